//! The messages of the stream, in protobuf. `Debug` shows no body, because that may contain keys.

use std::fmt;

use bytes::Bytes;

/// A message from a proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FromProxy {
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5")]
    pub(crate) said: Option<Said>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Said {
    /// First on every connection.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// What it holds, in as many messages as that takes.
    #[prost(message, tag = "2")]
    Held(HeldList),
    #[prost(message, tag = "3")]
    Ack(Ack),
    #[prost(message, tag = "4")]
    Unreachable(Unreachable),
    /// Only to a controller that deals.
    #[prost(message, tag = "5")]
    Demands(Demands),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Hello {
    /// Its version.
    #[prost(string, tag = "1")]
    pub(crate) fairway: String,
    /// Its name, for people.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    /// Whether it takes patches.
    #[prost(bool, tag = "3")]
    pub(crate) patches: bool,
    /// Whether it takes shares of limits.
    #[prost(bool, tag = "4")]
    pub(crate) shares: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeldList {
    #[prost(message, repeated, tag = "1")]
    pub(crate) held: Vec<HeldOne>,
    /// Whether nothing follows.
    #[prost(bool, tag = "2")]
    pub(crate) last: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HeldOne {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Empty for a resource that is refused and has no earlier form.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) version: Bytes,
}

/// A round is in effect.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ack {
    #[prost(uint64, tag = "1")]
    pub(crate) nonce: u64,
    /// Its resources that were refused. Their last good forms stay.
    #[prost(message, repeated, tag = "2")]
    pub(crate) refused: Vec<Refusal>,
    /// Whether another acknowledgement of this round follows, with further ones that were refused.
    #[prost(bool, tag = "3")]
    pub(crate) more: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Refusal {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

/// A backend to which no connection can be made.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Unreachable {
    /// The object whose route leads there.
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(string, tag = "2")]
    pub(crate) namespace: String,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) section: String,
    #[prost(string, tag = "5")]
    pub(crate) backend: String,
    #[prost(message, repeated, tag = "6")]
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Endpoint {
    #[prost(string, tag = "1")]
    pub(crate) address: String,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

/// The limits that clients of a proxy are close to.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Demands {
    /// Counts the reports.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// The last deal that is in effect.
    #[prost(uint64, tag = "2")]
    pub(crate) applied: u64,
    /// Where requests are counted, for the limits to refer to.
    #[prost(string, repeated, tag = "3")]
    pub(crate) scopes: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) demands: Vec<OneDemand>,
    /// Whether there were more.
    #[prost(bool, tag = "5")]
    pub(crate) cut: bool,
}

/// Parts are in millionths of the limit.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OneDemand {
    #[prost(message, optional, tag = "1")]
    pub(crate) limit: Option<OneLimit>,
    #[prost(uint32, tag = "2")]
    pub(crate) now: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) lately: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) held: u32,
    /// Milliseconds in which a burst that is used up becomes available again.
    #[prost(uint32, tag = "5")]
    pub(crate) span: u32,
}

/// One limit of one client.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OneLimit {
    /// The number of its scope in the list of the message.
    #[prost(uint32, tag = "1")]
    pub(crate) scope: u32,
    /// Four bytes of an IPv4 address, or the first eight of an IPv6 address.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) client: Bytes,
    /// 1 for requests per second, 2 per minute, 3 in progress.
    #[prost(uint32, tag = "3")]
    pub(crate) kind: u32,
}

/// Shares of limits. For other limits, earlier messages remain in force.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Deal {
    /// Counts the deals.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// The last report read before this deal.
    #[prost(uint64, tag = "2")]
    pub(crate) heard: u64,
    #[prost(string, repeated, tag = "3")]
    pub(crate) scopes: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) shares: Vec<OneShare>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OneShare {
    #[prost(message, optional, tag = "1")]
    pub(crate) limit: Option<OneLimit>,
    /// In millionths; none for the even share.
    #[prost(uint32, optional, tag = "2")]
    pub(crate) share: Option<u32>,
}

/// A message from a controller: a part of a round, or a deal.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FromController {
    /// The number of the round. A round is applied as a whole, and acknowledged by this number.
    #[prost(uint64, tag = "1")]
    pub(crate) nonce: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) pieces: Vec<Piece>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) removals: Vec<String>,
    /// Whether the round is complete.
    #[prost(bool, tag = "4")]
    pub(crate) last: bool,
    /// If given, the message is not part of a round. Sent only to a proxy that takes shares.
    #[prost(message, optional, tag = "5")]
    pub(crate) deal: Option<Deal>,
}

/// A part of the body of a resource. Pieces of one resource follow each other.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(crate) struct Piece {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) version: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) body: Bytes,
    /// Whether the body as a whole is compressed (zlib, RFC 1950).
    #[prost(bool, tag = "4")]
    pub(crate) compressed: bool,
    /// Whether another piece of the resource follows.
    #[prost(bool, tag = "5")]
    pub(crate) more: bool,
    /// The version that the body is a patch of. Empty if the body is complete.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) base: Bytes,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, body, more, .. } = self;
        f.debug_struct("Piece")
            .field("name", name)
            .field("bytes", &body.len())
            .field("more", more)
            .finish_non_exhaustive()
    }
}

impl From<Said> for FromProxy {
    fn from(said: Said) -> Self {
        Self { said: Some(said) }
    }
}
