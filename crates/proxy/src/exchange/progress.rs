//! How much of a try's request has been sent. This is the same for every version of HTTP, so the exchange keeps it.

/// The state of the request of a try.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum RequestProgress {
    /// Some of it has yet to be sent.
    #[default]
    Sending,
    /// All of it has been sent.
    Sent,
    /// The endpoint stopped taking it before its end. It may have answered by then; a read will show.
    Broken,
}
