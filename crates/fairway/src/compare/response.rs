//! The parts of a response that are compared.

use std::fmt;

use aws_lc_rs::digest;

/// Bytes kept from the start of a body, to recognize the built-in pages of proxies.
const START: usize = 1 << 10;

/// A response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// Names in lower case, and values, in their original order.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Body,
}

/// Facts about a body, or about the part of it that was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Body {
    pub(super) length: u64,
    /// The first 16 digits of its SHA-256.
    pub(super) hash: String,
    /// False if only the beginning was read.
    pub(super) whole: bool,
    pub(super) start: Vec<u8>,
}

/// Why there is no response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum NoAnswer {
    /// Connecting failed.
    Unreachable(String),
    /// The TLS handshake failed.
    Tls(String),
    /// It took too long.
    TimedOut,
    /// The connection ended, or the peer didn't speak HTTP.
    Broken(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "no connection: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
            Self::TimedOut => write!(f, "no answer in time"),
            Self::Broken(why) => write!(f, "no answer: {why}"),
        }
    }
}

impl Response {
    /// The values of a field, joined as RFC 9110 5.3 allows; `None` if the response doesn't have it.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// Whether the body is the built-in page of a known proxy.
    pub(super) fn is_built_in(&self) -> bool {
        let page = String::from_utf8_lossy(&self.body.start);
        let title = format!("<head><title>{}", self.status);
        let signature = ["<hr><center>nginx", "<hr><center>openresty", "<hr><center>fairway"];
        self.body.whole && page.contains(&title) && signature.iter().any(|signature| page.contains(signature))
    }
}

/// Reads a body piece by piece.
pub(super) struct BodyReader {
    hash: digest::Context,
    length: u64,
    start: Vec<u8>,
    limit: u64,
}

impl BodyReader {
    pub(super) fn new(limit: u64) -> Self {
        Self { hash: digest::Context::new(&digest::SHA256), length: 0, start: Vec::new(), limit }
    }

    /// Takes a piece; returns false once the limit is exceeded.
    pub(super) fn take(&mut self, piece: &[u8]) -> bool {
        let room = usize::try_from(self.limit - self.length).unwrap_or(usize::MAX);
        let fitting = &piece[..piece.len().min(room)];
        self.hash.update(fitting);
        self.length += fitting.len() as u64;
        self.start.extend_from_slice(&fitting[..fitting.len().min(START - self.start.len())]);
        fitting.len() == piece.len()
    }

    pub(super) fn finish(self, whole: bool) -> Body {
        let hash = self.hash.finish();
        let hash = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Body { length: self.length, hash, whole, start: self.start }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.length, self.whole) {
            (0, true) => write!(f, "empty"),
            (length, true) => write!(f, "{length} bytes, sha256 {}", self.hash),
            (length, false) => write!(f, "more than {length} bytes, sha256 of these {}", self.hash),
        }
    }
}
