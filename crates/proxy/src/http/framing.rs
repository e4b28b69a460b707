//! How the end of a body is found.

/// How the end of a message body is found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// No body, and no field that announces one.
    #[default]
    None,
    /// `Content-Length`, which may be zero.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// A response that ends when its connection closes. Never a request.
    UntilClose,
}

impl Framing {
    /// Whether the body certainly has no bytes.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// The framing of a forwarded body on both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reframed {
    /// As received from its sender.
    pub received: Framing,
    /// As sent to its recipient.
    pub sent: Framing,
}

/// How a recipient learns where a body of unknown length ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyForm {
    /// By chunks (HTTP/1.1).
    Chunks,
    /// By the end of the connection (HTTP/1.0).
    Close,
    /// By the frames that carry it (HTTP/2).
    Frames,
}
