//! Why a message was refused.

/// Why a message head was refused. Variants are grouped by the status that the client gets; a refused head from upstream is
/// always a 502. After any of these the start of the next message is unknown, so the connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// A line that ends in LF without CR (RFC 9112 2.2 allows accepting it, but request smuggling relies on it). A response is
    /// refused only if the LF delimits a framing or connection field in a head that also uses CRLF: a reader that takes the LF as
    /// part of a value would see a different message.
    #[error("line ends without carriage return")]
    BareLineFeed,
    /// More empty lines before the request line than are allowed, or any before a status line.
    #[error("empty lines before the start line")]
    LeadingEmptyLines,
    /// The start line does not consist of three parts separated by single spaces.
    #[error("malformed start line")]
    InvalidStartLine,
    /// The method does not consist of upper-case letters, `-` and `_`, or is longer than any registered one.
    #[error("malformed method")]
    InvalidMethod,
    /// The request target contains illegal bytes, or has no form that fits the method.
    #[error("malformed request target")]
    InvalidTarget,
    /// The protocol version is not of the form `HTTP/x.y`.
    #[error("malformed protocol version")]
    InvalidVersion,
    /// The status code is not three digits from 100 to 999, or the reason phrase contains control bytes.
    #[error("malformed status line")]
    InvalidStatus,
    /// A field line that starts with white space (obs-fold, RFC 9112 5.2).
    #[error("folded field line")]
    ObsoleteFold,
    /// A field name that is empty, has no colon, or contains white space, control bytes or (by policy) other invalid bytes.
    #[error("malformed field name")]
    InvalidFieldName,
    /// A field value with NUL, CR or another control byte.
    #[error("control byte in a field value")]
    InvalidFieldValue,
    /// No `Host` in an HTTP/1.1 request (RFC 9112 3.2).
    #[error("no Host field")]
    MissingHost,
    /// `:authority` and `Host` name different hosts (RFC 9113 8.3.1).
    #[error(":authority and Host differ")]
    HostMismatch,
    /// More than one `Host`.
    #[error("more than one Host field")]
    DuplicateHost,
    /// A `Host` or a target authority that is not a host name or address with an optional port.
    #[error("malformed host")]
    InvalidHost,
    /// `Content-Length` is not a plain decimal number below 2^63.
    #[error("malformed Content-Length")]
    InvalidContentLength,
    /// More than one `Content-Length`, equal or not.
    #[error("more than one Content-Length")]
    DuplicateContentLength,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 6.1).
    #[error("Content-Length with Transfer-Encoding")]
    LengthWithTransferEncoding,
    /// A `Transfer-Encoding` that only some recipients would read as `chunked`: obfuscated, repeated, not last, or in an HTTP/1.0
    /// message.
    #[error("ambiguous Transfer-Encoding")]
    InvalidTransferEncoding,
    /// More options in `Connection` than any real client sends.
    #[error("too many Connection options")]
    TooManyConnectionOptions,
    /// `TRACE` and `CONNECT` are not supported.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The request line exceeds its limit.
    #[error("request line too long")]
    RequestLineTooLong,
    /// An `Expect` other than `100-continue` (RFC 9110 10.1.1).
    #[error("unknown expectation")]
    UnknownExpectation,
    /// One field line exceeds its limit.
    #[error("field line too long")]
    FieldTooLong,
    /// The head as a whole exceeds its limit.
    #[error("head too long")]
    HeadTooLong,
    /// More fields than the limit allows.
    #[error("too many fields")]
    TooManyFields,
    /// A well-formed `Transfer-Encoding` that is not supported (RFC 9112 6.1).
    #[error("transfer coding not implemented")]
    UnknownTransferEncoding,
    /// An extended `CONNECT` (RFC 8441) for a protocol other than WebSocket.
    #[error("protocol of a CONNECT not supported")]
    UnknownProtocol,
    /// A version of HTTP other than 1.0 and 1.1.
    #[error("HTTP version not supported")]
    UnsupportedVersion,
}

impl HeadError {
    /// The status for a client whose request had this fault. For a response from upstream, answer 502 instead.
    pub const fn status(self) -> u16 {
        match self {
            Self::BareLineFeed
            | Self::LeadingEmptyLines
            | Self::InvalidStartLine
            | Self::InvalidMethod
            | Self::InvalidTarget
            | Self::InvalidVersion
            | Self::InvalidStatus
            | Self::ObsoleteFold
            | Self::InvalidFieldName
            | Self::InvalidFieldValue
            | Self::MissingHost
            | Self::DuplicateHost
            | Self::HostMismatch
            | Self::InvalidHost
            | Self::InvalidContentLength
            | Self::DuplicateContentLength
            | Self::LengthWithTransferEncoding
            | Self::InvalidTransferEncoding
            | Self::TooManyConnectionOptions => 400,
            Self::MethodNotAllowed => 405,
            Self::RequestLineTooLong => 414,
            Self::UnknownExpectation => 417,
            Self::FieldTooLong | Self::HeadTooLong | Self::TooManyFields => 431,
            Self::UnknownTransferEncoding | Self::UnknownProtocol => 501,
            Self::UnsupportedVersion => 505,
        }
    }
}

/// Why a body could not be read to its end. Its connection is closed and never pooled. A client gets 400 if no response was
/// started; a fault on the upstream side is a 502 or an aborted response.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// A chunk-size line that is not hexadecimal digits, an optional extension and CRLF (RFC 9112 7.1).
    #[error("malformed chunk size")]
    InvalidChunkSize,
    /// A chunk size of 2^63 or more, or of more than 16 digits.
    #[error("chunk size overflows")]
    ChunkSizeOverflow,
    /// A chunk-size line, extension included, longer than its limit.
    #[error("chunk size line too long")]
    ChunkLineTooLong,
    /// The chunk extensions of the message exceed their limit in total.
    #[error("too many chunk extensions")]
    TooManyExtensions,
    /// The data of a chunk is not followed by CRLF.
    #[error("chunk does not end in CRLF")]
    MissingChunkEnd,
    /// A trailer line that would be refused in a head as well.
    #[error("malformed trailer field")]
    InvalidTrailer,
    /// The trailer section exceeds its limit in bytes.
    #[error("trailer section too long")]
    TrailersTooLong,
    /// The frames of the body carry more or less than `Content-Length` says (RFC 9113 8.1.1), or are malformed.
    #[error("body differs from Content-Length")]
    InvalidFrames,
    /// The peer closed before the message ended (RFC 9112 8).
    #[error("connection closed inside a message body")]
    Incomplete,
}

impl From<fairway_model::InvalidName> for InvalidField {
    fn from(_: fairway_model::InvalidName) -> Self {
        Self::Name
    }
}

/// A name, value or start line that is not written because it would change the structure of the message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidField {
    /// The name is not a token (RFC 9110 5.6.2).
    #[error("field name is not a token")]
    Name,
    /// The value contains CR, LF, NUL or another control byte.
    #[error("control byte in a field value")]
    Value,
    /// The method is not a token, or the target contains a space or a control byte.
    #[error("malformed request line")]
    RequestLine,
    /// The status is outside 100 to 999.
    #[error("status out of range")]
    Status,
}
