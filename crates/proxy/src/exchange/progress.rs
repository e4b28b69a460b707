//! How far the request of a try has come. The same for every version of HTTP, so the exchange keeps it.

/// The state of the request of a try.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum RequestProgress {
    /// Some of it is to be sent.
    #[default]
    Sending,
    /// All of it was sent.
    Sent,
    /// The endpoint stopped taking it before its end. It may have answered before; reading shows whether it did.
    Broken,
}
