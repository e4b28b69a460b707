//! What a head says about its connection: persistence and protocol upgrades.

use super::byte_class::trim;

/// What a head says about its connection (RFC 9112 9.3). The connection is reused only if the body was also read to its end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionOptions {
    /// The sender allows the connection to be reused: HTTP/1.1 without `close`, or HTTP/1.0 with `keep-alive`.
    pub keep_alive: bool,
    /// Protocol switch that is requested or accepted.
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
    /// The value of the one `Upgrade` field lists protocols that may be tunnelled.
    Protocol,
    /// Malformed, or lists a protocol that must not hide in a tunnel ([`Upgrade::NEVER`]): the request is served as if the field
    /// were absent.
    Refused,
}

impl Upgrade {
    /// Protocols that carry requests past all request rules or hide them: HTTP in any version, and TLS.
    pub const NEVER: [&'static [u8]; 7] = [b"h2c", b"h2", b"h3", b"http", b"https", b"tls", b"ssl"];

    /// Whether the protocol `agreed` on by an endpoint is one of those that the client `asked` for.
    pub fn is_among(agreed: &[u8], asked: &[u8]) -> bool {
        asked.split(|&byte| byte == b',').any(|protocol| trim(protocol).eq_ignore_ascii_case(agreed))
    }
}

/// How the client's connection continues after the exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    /// The next request is read from it.
    Keep,
    /// It is closed.
    Close,
    /// It is closed for writing and read for a while. Closing it while the client is still sending would make the kernel reset it, and the
    /// client might never see the response.
    Linger,
    /// It is closed with a reset, so that a response that ends with its connection is not mistaken for complete.
    Reset,
}
