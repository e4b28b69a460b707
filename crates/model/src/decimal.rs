//! Appends numbers and addresses to a buffer as text. The general formatter costs several times as much, and these are
//! written for every request.

use std::fmt::Display;
use std::io::Write;
use std::net::IpAddr;
use std::ops::Deref;

/// Appends a number.
pub fn number(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an address without brackets. An IPv4 address mapped into IPv6 is an IPv4 address.
pub fn ip(address: IpAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&AddressText::of(address));
}

/// An address as text, without brackets.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    text: [u8; Self::CAPACITY],
    len: usize,
}

impl AddressText {
    /// Eight groups of four digits with colons between them; one byte more than the longest needs.
    // No limit: what the text takes at most.
    const CAPACITY: usize = 40;

    /// The text of an address. An IPv4 address mapped into IPv6 is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        let (mut text, mut len) = ([b'.'; Self::CAPACITY], 0);
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                for octet in v4.octets() {
                    for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
                        if octet >= least {
                            text[len] = b'0' + octet / unit % 10;
                            len += 1;
                        }
                    }
                    // The dot after it is already there.
                    len += 1;
                }
                len -= 1;
            }
            IpAddr::V6(v6) => {
                let mut rest = &mut text[..];
                let written = write!(rest, "{v6}");
                debug_assert!(written.is_ok(), "an address that is not a mapped one has at most 39 bytes");
                len = Self::CAPACITY - rest.len();
            }
        }
        Self { text, len }
    }
}

impl Deref for AddressText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// The hexadecimal digits for eight bytes below 16, all at once.
pub fn hex_digits(bytes: u64) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let above_nine = (bytes + 6 * EACH) >> 4 & EACH;
    (bytes + u64::from(b'0') * EACH + u64::from(b'a' - b'9' - 1) * above_nine).to_le_bytes()
}

/// Appends a displayable value.
pub fn display(value: &impl Display, out: &mut Vec<u8>) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "writing to a vector cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_byte_has_its_digit() {
        let bytes = |first: u8| u64::from_le_bytes(std::array::from_fn(|at| first + at as u8));
        assert_eq!((hex_digits(bytes(0)), hex_digits(bytes(8))), (*b"01234567", *b"89abcdef"));
    }

    proptest! {
        #[test]
        fn agrees_with_the_general_formatter(value in any::<u64>(), v4 in any::<u32>(), v6 in any::<u128>()) {
            let mut out = Vec::new();
            number(value, &mut out);
            out.push(b' ');
            ip(IpAddr::V4(v4.into()), &mut out);
            out.push(b' ');
            ip(IpAddr::V6(v6.into()), &mut out);
            let expected = format!("{value} {} {}", IpAddr::V4(v4.into()), IpAddr::V6(v6.into()).to_canonical());
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
