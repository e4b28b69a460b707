//! The head of a response.

use super::connection::ConnectionOptions;
use super::field::{Fields, Span};
use super::framing::Framing;
use super::head::{LineEnd, Progress};
use super::request::Method;
use super::version::Version;

/// A response head, as ranges of the buffer that it was parsed from. Reused from response to response.
///
/// Parsing is as strict as for [`super::RequestHead`]: ambiguous framing from a backend is a 502, because the next bytes on its
/// connection could be taken for the response to another client's request. Field names may be any token, and lines may end in LF
/// alone (RFC 9112 2.2) where that is unambiguous, see [`HeadError::BareLineFeed`](super::HeadError::BareLineFeed).
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    pub(crate) progress: Progress,
    pub(crate) version: Version,
    pub(crate) status: u16,
    pub(crate) reason: Span,
    pub(crate) declared: Framing,
    pub(crate) connection: ConnectionOptions,
    pub(crate) fields: Fields,
    pub(crate) line_ends: LineEnds,
}

/// The part of a response that has arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResponsePart {
    /// Not enough for a head.
    Partial,
    /// An interim response, which must be dropped before the next part.
    Interim,
    /// The head of the response.
    Head,
}

/// The line ends seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineEnds {
    /// The end of the last line; CRLF before the first.
    pub(crate) last: LineEnd,
    /// Whether both kinds have occurred.
    pub(crate) mixed: bool,
    /// LF alone delimits a framing or connection field.
    pub(crate) around_structure: bool,
}

impl ResponseHead {
    /// Clears the parsed head and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The protocol version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The status code, 100 to 999.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as received; may be empty.
    pub const fn reason(&self) -> Span {
        self.reason
    }

    /// Whether another response to the same request will follow: 1xx except 101.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The framing of the body in response to a request with `method` (RFC 9112 6.3). A 101 has no body: the bytes after it belong to the
    /// new protocol. (`CONNECT` needs no rule because it is never sent.)
    pub const fn framing(&self, method: Method) -> Framing {
        if matches!(method, Method::Head) || self.is_bodiless() {
            return Framing::None;
        }
        match self.declared {
            Framing::None => Framing::UntilClose,
            declared => declared,
        }
    }

    /// The framing that the fields announce, whether or not there is a body: for `HEAD` and 304, whose `Content-Length` describes
    /// another response. [`Framing::None`] if there is no such field.
    pub const fn declared_framing(&self) -> Framing {
        self.declared
    }

    /// Persistence and upgrade. `keep_alive` is false if the response can't have a body but announces one (RFC 9112 6.1, RFC 9110
    /// 8.6): its end is then uncertain.
    pub const fn connection(&self) -> ConnectionOptions {
        self.connection
    }

    /// The fields, without those listed in `Connection`.
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Whether the connection can carry another request after this response to a request with `method`, provided that the body is
    /// read to its end and no bytes are left over.
    pub fn allows_reuse(&self, method: Method) -> bool {
        self.connection.keep_alive && self.framing(method) != Framing::UntilClose && self.status != 101
    }

    pub(crate) const fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }
}
