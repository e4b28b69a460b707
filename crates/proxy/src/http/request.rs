//! The head of a request.

use super::authority::Authority;
use fairway_model::KnownField;

use super::connection::{ConnectionOptions, Upgrade};
use super::error::HeadError;
use super::field::{Fields, Span};
use super::framing::Framing;
use super::head::Progress;
use super::version::Version;
use crate::limit::LONGEST_METHOD;

/// The request method. `CONNECT` and `TRACE` are refused earlier.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    /// Any other name of upper-case letters, `-` and `_`; see [`RequestHead::method_bytes`].
    Other,
}

impl Method {
    /// Reads a method as received.
    ///
    /// # Errors
    /// If it is malformed or not supported.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, HeadError> {
        Ok(match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" | b"TRACE" => return Err(HeadError::MethodNotAllowed),
            _ => {
                let valid = |&byte: &u8| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_';
                if name.is_empty() || name.len() > LONGEST_METHOD || !name.iter().all(valid) {
                    return Err(HeadError::InvalidMethod);
                }
                Self::Other
            }
        })
    }
}

/// The form of the request target (RFC 9112 3.2).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`, with either scheme.
    Absolute {
        /// Whether the scheme is `https`.
        https: bool,
    },
    /// `*`, for `OPTIONS` only.
    Asterisk,
}

/// A request head, as ranges of the buffer that it was parsed from. Reused from request to request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub(crate) progress: Progress,
    /// Empty lines before the start line.
    pub(crate) empty_lines: u8,
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) target: TargetForm,
    pub(crate) method_span: Span,
    pub(crate) target_span: Span,
    pub(crate) path: Span,
    pub(crate) query: Option<Span>,
    pub(crate) authority: Option<Authority>,
    pub(crate) framing: Framing,
    pub(crate) connection: ConnectionOptions,
    pub(crate) expects_continue: bool,
    pub(crate) fields: Fields,
}

impl RequestHead {
    /// Clears the parsed head and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The protocols that the client asks to switch to, if that is allowed. `buf` is the buffer that the head was parsed from.
    pub fn asked_protocols<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        let asks = self.connection.upgrade == Upgrade::Protocol;
        asks.then(|| self.fields.get(KnownField::Upgrade, buf)).flatten()
    }

    /// The method.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The method as received.
    pub fn method_bytes<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.method_span.of(buf)
    }

    /// The protocol version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The protocol version as text.
    pub const fn protocol(&self) -> &'static str {
        match self.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }

    /// The form of the target.
    pub const fn target(&self) -> TargetForm {
        self.target
    }

    /// The target as received.
    pub const fn target_span(&self) -> Span {
        self.target_span
    }

    /// The target as received, from the path on: nginx's `$request_uri`. `http://host?query` is `?query`, and `http://host` is `/`.
    pub fn request_uri(&self) -> Span {
        let whole = self.target_span.range();
        match (self.target, self.query) {
            (TargetForm::Absolute { .. }, _) if !self.path.is_empty() => Span::new(self.path.range().start, whole.end),
            (TargetForm::Absolute { .. }, Some(query)) => Span::new(query.range().start - 1, whole.end),
            (TargetForm::Absolute { https }, None) => {
                // A slash of the scheme serves as the missing path, as in nginx.
                let slash = whole.start + if https { "https:/" } else { "http:/" }.len();
                Span::new(slash, slash + 1)
            }
            _ => self.target_span,
        }
    }

    /// The path as received; empty in `http://host` and `http://host?query`, `*` in asterisk form.
    pub const fn path(&self) -> Span {
        self.path
    }

    /// The part after the first `?`, if present.
    pub const fn query(&self) -> Option<Span> {
        self.query
    }

    /// The host that the request is for: from an absolute target, else from `Host`. `None` only in HTTP/1.0.
    pub const fn authority(&self) -> Option<Authority> {
        self.authority
    }

    /// The framing of the body; never [`Framing::UntilClose`].
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Persistence and upgrade. A tunnel may begin only after the body, if there is one.
    pub const fn connection(&self) -> ConnectionOptions {
        self.connection
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub const fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The fields, except those that the rules drop and those listed in `Connection`.
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }
}
