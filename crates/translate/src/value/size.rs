//! Sizes in bytes.

use super::{Value, digits};

/// A number of bytes: digits and an optional `k`, `m` or `g`, in either case.
///
/// ingress-nginx's check accepts a `b` that nginx then rejects, which breaks the whole configuration; it is rejected here.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Size(pub u64);

impl Size {
    /// The size as a limit; nginx takes 0 for "no limit".
    pub const fn limit(self) -> Option<u64> {
        match self.0 {
            0 => None,
            bytes => Some(bytes),
        }
    }
}

impl Value for Size {
    const SYNTAX: &'static str = "a size: digits and an optional `k`, `m` or `g`, such as `8m`";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(' ');
        let (number, unit) = match text.as_bytes().last()? {
            b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
            b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
            b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
            _ => (text, 1),
        };
        // nginx's offsets are signed.
        let bytes = digits(number)?.checked_mul(unit)?;
        i64::try_from(bytes).is_ok().then_some(Self(bytes))
    }
}

/// Number and size of the buffers for a request's head: `4 8k`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HeaderBuffers {
    /// Number of buffers.
    pub number: u32,
    /// Bytes of each.
    pub size: Size,
}

impl Value for HeaderBuffers {
    const SYNTAX: &'static str = "a number and a size, such as `4 8k`";

    fn parse(text: &str) -> Option<Self> {
        let (number, size) = text.trim().split_once(' ')?;
        let parsed = Self { number: u32::parse(number)?, size: Size::parse(size)? };
        // nginx rejects zero for either.
        (parsed.number > 0 && parsed.size.0 > 0).then_some(parsed)
    }
}
/// Maximum number of fields of a request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FieldCount(pub u16);

impl Value for FieldCount {
    const SYNTAX: &'static str = "a whole number from 16 to 1000";

    fn parse(text: &str) -> Option<Self> {
        // Browsers send up to 20; from 24,576 on the HTTP/2 library would fail. Each field costs some bytes of memory per request.
        let count = u32::parse(text)?;
        (16..=1000).contains(&count).then_some(Self(count as u16))
    }
}
