//! How the end of a body is known.

/// How the end of a message body is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Framing {
    /// There is no body and no field that speaks of one.
    #[default]
    None,
    /// `Content-Length`, which may be zero.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// A response that ends when its connection does. Never a request.
    UntilClose,
}

impl Framing {
    /// Whether the body has no bytes for certain.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// How a body that is passed on is framed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reframed {
    /// By its sender.
    pub received: Framing,
    /// For its recipient.
    pub sent: Framing,
}
