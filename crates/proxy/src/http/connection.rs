//! What a head says about its connection: persistence and protocol upgrades.

use super::byte_class::trim;

/// What a head says about its connection (RFC 9112 9.3). Whether the connection is in fact used again also depends on the body
/// having been read to its end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionOptions {
    /// The sender lets the connection be used again: HTTP/1.1 without `close`, or HTTP/1.0 with `keep-alive`.
    pub keep_alive: bool,
    /// Protocol change that is asked for or agreed to.
    pub upgrade: Upgrade,
    /// `TE: trailers` was sent.
    pub te_trailers: bool,
}

/// An `Upgrade` that its `Connection` field covers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Upgrade {
    /// None, or not covered by `Connection: upgrade`.
    #[default]
    None,
    /// The value of the one `Upgrade` field names protocols that may be tunnelled.
    Protocol,
    /// Malformed, or with a protocol among them that must not hide in a tunnel ([`Upgrade::NEVER`]): the request is served as if
    /// the field was absent.
    Refused,
}

impl Upgrade {
    /// Protocols that carry requests of their own, past all rules for requests, or hide them: HTTP in any version, and TLS.
    pub const NEVER: [&'static [u8]; 7] = [b"h2c", b"h2", b"h3", b"http", b"https", b"tls", b"ssl"];

    /// Whether an endpoint that switches to `agreed` does what the client `asked` for: one protocol of those.
    pub fn is_among(agreed: &[u8], asked: &[u8]) -> bool {
        asked.split(|&byte| byte == b',').any(|protocol| trim(protocol).eq_ignore_ascii_case(agreed))
    }
}
