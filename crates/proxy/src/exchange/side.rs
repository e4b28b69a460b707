//! The two sides of an exchange, the client's and the endpoint's. Only this module knows which version of HTTP a side speaks; the rest of
//! the exchange asks for the properties that matter, such as [`EndpointSide::shows_end`].

mod call;
mod reach;

use std::cell::OnceCell;
use std::io;
use std::task::{Context, Poll};

use fairway_model::KnownSet;
use fairway_model::client::ClientView;
use fairway_model::decision::Expand;

pub(super) use self::call::{Question, Reply};
use super::grpc;
use crate::body::{Ahead, BodySource};
use crate::buffer::Buffer;
use crate::direction::Direction;
use crate::error::Failure;
use crate::http::{
    After, BodyError, BodyForm, FieldsView, Framing, HeadError, HeadLimits, Method, Parsed, PreparedField, Reframed,
    RequestHead, ResponseHead, ResponsePart, Spanned,
};
use crate::http1::{self, AnswerTo, Http1Client, Http1Endpoint, Persistence};
use crate::http2::{Http2Client, Http2Endpoint, Http2Stream, Link, RequestTo, StreamPlace};
use crate::message::{ResponseContext, UpstreamRequest};
use crate::net::tls;
use crate::record::TlsView;
use crate::respond::Answer;
use crate::spool::SpoolFile;
use crate::stream::Downstream;
use crate::timer::{Millis, NEVER, Timers};
use crate::upstream::{UpstreamConnection, Way};
use crate::work::{Http2Memory, Scratch, Store, Work};

/// What an exchange works with: its two sides, and memory for its output.
#[derive(Debug)]
pub(crate) struct Sides<'a> {
    pub(super) client: ClientSide<'a>,
    pub(super) endpoint: EndpointSide<'a>,
    pub(super) compressed: &'a mut Buffer,
    pub(super) scratch: &'a mut Scratch,
}

impl<'a> Sides<'a> {
    /// A client whose connection carries one request at a time, in HTTP/1.
    pub(crate) fn of_connection(stream: &'a mut Downstream, work: &'a mut Work) -> Self {
        let Work { inbound, head, from_upstream, response, compressed, http2, to_upstream, to_client, scratch, .. } =
            work;
        Self {
            client: ClientSide::Http1(Http1Client::new(stream, inbound, head, to_client)),
            endpoint: EndpointSide::Http1(Http1Endpoint::new(from_upstream, response, to_upstream), Some(http2)),
            compressed,
            scratch,
        }
    }

    /// A client that has sent a request on an HTTP/2 stream. Its head is in the memory of `work`.
    pub(crate) fn of_stream(link: &'a Link, stream: &'a mut Http2Stream, work: &'a mut Work) -> Self {
        let Work { inbound, head, from_upstream, response, compressed, http2, to_upstream, to_client, lines, scratch } =
            work;
        Self {
            client: ClientSide::Http2(Http2Client::new(link, stream, inbound, head, to_client, lines)),
            endpoint: EndpointSide::Http1(Http1Endpoint::new(from_upstream, response, to_upstream), Some(http2)),
            compressed,
            scratch,
        }
    }
}

/// Parses the head of a request on a connection that carries one at a time, into the memory of `work`.
///
/// # Errors
/// See [`RequestHead::parse`].
pub(crate) fn parse_head(work: &mut Work, limits: &HeadLimits) -> Result<Parsed, HeadError> {
    work.head.parse(work.inbound.filled(), limits)
}

/// Appends one of the proxy's own responses as text, for a client whose connection is kept, and returns its status.
pub(crate) fn write_answer(
    answer: &Answer<'_>,
    head_only: bool,
    context: &ResponseContext<'_>,
    out: &mut Vec<u8>,
) -> u16 {
    let to = AnswerTo { head_only, persistence: Persistence::Kept };
    http1::write_answer(answer, to, context, out, &mut Vec::new()).0
}

/// Appends the head of a request as text, the form that an endpoint gets unless the backend asks for another.
///
/// # Errors
/// If a configured value makes the head invalid.
pub(crate) fn write_request(
    request: &UpstreamRequest<'_>,
    out: &mut Vec<u8>,
    expand: &mut impl Expand,
) -> Result<(), Failure> {
    http1::write_request(request, None, out, &mut Vec::new(), expand)
}

/// The fields about a client that are the same for every request of its connection, in the syntax of each version of HTTP.
#[derive(Debug, Default)]
pub(super) struct FamilyFields {
    http1: OnceCell<PreparedField>,
}

/// The side that sends the request.
#[derive(Debug)]
pub(super) enum ClientSide<'a> {
    Http1(Http1Client<'a>),
    Http2(Http2Client<'a>),
}

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) enum Connected {
    Http1(Box<UpstreamConnection>),
    Http2(StreamPlace),
}

/// The side that receives the request.
#[derive(Debug)]
pub(super) enum EndpointSide<'a> {
    /// With memory for an endpoint that speaks HTTP/2, in case this one does.
    Http1(Http1Endpoint<'a>, Option<&'a mut Option<Box<Http2Memory>>>),
    /// Boxed: it would otherwise take room in every HTTP/1 connection.
    Http2(Box<Http2Endpoint<'a>>),
}

/// The part of a request head that is not in the memory for output.
pub(super) type Written = Option<Box<RequestTo>>;

/// Methods that each version of HTTP implements in its own way, and documents there.
macro_rules! delegate {
    ($each:ident: $(fn $name:ident(&self $(, $arg:ident: $kind:ty)*) $(-> $result:ty)?;)*) => {
        $(pub(super) fn $name(&self $(, $arg: $kind)*) $(-> $result)? {
            $each!(self, side => side.$name($($arg),*))
        })*
    };
    (mut $each:ident: $(fn $name:ident(&mut self $(, $arg:ident: $kind:ty)*) $(-> $result:ty)?;)*) => {
        $(pub(super) fn $name(&mut self $(, $arg: $kind)*) $(-> $result)? {
            $each!(self, side => side.$name($($arg),*))
        })*
    };
}

/// The same expression for a client of each version.
macro_rules! client {
    ($self:expr, $side:ident => $call:expr) => {
        match $self {
            ClientSide::Http1($side) => $call,
            ClientSide::Http2($side) => $call,
        }
    };
}

/// The same expression for an endpoint of each version.
macro_rules! endpoint {
    ($self:expr, $side:ident => $call:expr) => {
        match $self {
            EndpointSide::Http1($side, _) => $call,
            EndpointSide::Http2($side) => $call,
        }
    };
}

/// The same expression for the request of a client of each version.
macro_rules! request {
    ($self:expr, $request:ident => $call:expr) => {
        match $self {
            ClientSide::Http1(Http1Client { request: $request, .. })
            | ClientSide::Http2(Http2Client { request: $request, .. }) => $call,
        }
    };
}

impl<'a> ClientSide<'a> {
    delegate! { request:
        fn head(&self) -> Option<Spanned<'_, RequestHead>>;
        fn broken_line(&self) -> &[u8];
        fn method(&self) -> Method;
        fn body_has_ended(&self) -> bool;
        fn received(&self) -> u64;
        fn can_rewind(&self) -> bool;
        fn framing(&self) -> Framing;
        fn measured(&self) -> Option<u64>;
        fn held_ahead(&self) -> usize;
        fn data_ahead(&self) -> u64;
        fn whole_data(&self) -> Option<Vec<u8>>;
        fn seen_ahead(&self) -> usize;
        fn is_spooled(&self) -> bool;
    }
    delegate! { mut request:
        fn source(&mut self) -> &mut BodySource<'a>;
        fn rewind(&mut self);
        fn set_form(&mut self, form: BodyForm);
        fn look_ahead(&mut self) -> Result<Ahead, BodyError>;
        fn measure(&mut self);
        fn begin_spooling(&mut self, file: SpoolFile);
        fn spool(&mut self) -> bool;
        fn poll_spooled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
        fn end_spooling(&mut self);
    }
    delegate! { client:
        fn next_look(&self) -> Millis;
        fn sent(&self) -> u64;
        fn body_sent(&self) -> u64;
        fn is_answered(&self) -> bool;
        fn body_form(&self) -> BodyForm;
        fn has_written(&self) -> bool;
        fn after(&self) -> After;
    }
    delegate! { mut client:
        fn begin(&mut self, may_keep: bool);
        fn write_continue(&mut self) -> bool;
        fn poll_receive(&mut self, cx: &mut Context<'_>, store: &Store) -> Poll<Result<(), Failure>>;
        fn poll_gone(&mut self, cx: &mut Context<'_>, timers: &Timers) -> Poll<Failure>;
        fn take_body(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError>;
        fn end_body(&mut self, from: &mut BodySource<'_>) -> Result<(), BodyError>;
        fn poll_write(&mut self, cx: &mut Context<'_>, from: &mut BodySource<'_>) -> Poll<io::Result<()>>;
        fn take_back(&mut self) -> bool;
        fn write_answer(&mut self, answer: Answer<'_>, context: ResponseContext<'_>, value: &mut Vec<u8>) -> u16;
        fn give_up(&mut self);
        fn cut_response(&mut self, to_blame: bool);
        fn split_tunnel(&mut self) -> Direction;
        fn release_output(&mut self);
        fn count_sent(&mut self, count: u64);
    }

    pub(super) fn close(&mut self) {
        client!(self, side => side.close());
    }

    // The rest of a stream's request affects no other request, so HTTP/2 has nothing to do here.

    pub(super) fn skip_body(&mut self, unsent: bool) {
        if let Self::Http1(client) = self {
            client.skip_body(unsent);
        }
    }

    /// Says whether the request body is left unread for now. A stream that is reset is noticed in any case.
    pub(super) fn leave_body(&mut self, leaves: bool) {
        if let Self::Http1(client) = self {
            client.leave_body(leaves);
        }
    }

    pub(super) fn forgo_linger(&mut self) {
        if let Self::Http1(client) = self {
            client.forgo_linger();
        }
    }

    pub(super) fn distrust(&mut self) {
        if let Self::Http1(client) = self {
            client.distrust();
        }
    }

    /// Whether the client would take a response with this status for an agreement to switch protocols.
    pub(super) fn would_switch_at(&self, status: u16) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(client) => client.would_switch_at(status),
        }
    }

    /// The status that the client gets for an endpoint's status.
    pub(super) fn status_for(&self, status: u16) -> u16 {
        match self {
            Self::Http1(_) => status,
            Self::Http2(client) => client.status_for(status),
        }
    }

    /// Whether the request is a gRPC call; HTTP/1.1 carries none.
    pub(super) fn is_call(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(client) => client.request.head().is_some_and(grpc::is_typed),
        }
    }

    /// The gRPC status in the trailers of the response.
    pub(super) fn grpc_status(&self) -> Option<u16> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(client) => client.grpc_status(),
        }
    }

    pub(super) fn write_interim(&mut self, from: &EndpointSide<'_>) {
        client!(self, side => side.write_interim(from.response()));
    }

    /// Writes the head of the response. `sent` is the framing of a body that replaces the endpoint's.
    pub(super) fn write_response(
        &mut self,
        from: &EndpointSide<'_>,
        sent: Option<Framing>,
        context: ResponseContext<'_>,
        value: &mut Vec<u8>,
    ) {
        match self {
            Self::Http1(client) => {
                let framing = from.framing();
                let framing = sent.map_or(framing, |sent| Reframed { sent, ..framing });
                client.write_response(from.response(), framing, context, value);
            }
            Self::Http2(client) => client.write_response(from.response(), sent.is_none(), context, value),
        }
    }

    /// Trims the connection's memory to what waits to be sent. In HTTP/2 that is not for one stream to do.
    pub(super) fn trim_stream(&mut self) {
        if let Self::Http1(client) = self {
            client.stream().trim();
        }
    }

    /// The log's view of the TLS session.
    pub(super) fn tls_view(&self) -> Option<TlsView<'_>> {
        match self {
            Self::Http1(client) => match client.stream_ref() {
                Downstream::Plain(_) => None,
                Downstream::Tls(tls) => Some(tls::view(tls)),
            },
            Self::Http2(client) => client.tls_view(),
        }
    }
}

/// Passes a tunnel's bytes from the client to the endpoint.
pub(super) fn poll_up(
    direction: &mut Direction,
    (client, endpoint): (&mut ClientSide<'_>, &mut EndpointSide<'_>),
    cx: &mut Context<'_>,
    store: &Store,
    count: &mut u64,
) -> Poll<Result<(), ()>> {
    let EndpointSide::Http1(endpoint, _) = endpoint else { return Poll::Ready(Err(())) };
    match client {
        ClientSide::Http1(client) => direction.poll(cx, store, client.stream(), endpoint.stream(), count),
        ClientSide::Http2(client) => direction.poll(cx, store, client, endpoint.stream(), count),
    }
}

/// Passes a tunnel's bytes from the endpoint to the client.
pub(super) fn poll_down(
    direction: &mut Direction,
    (client, endpoint): (&mut ClientSide<'_>, &mut EndpointSide<'_>),
    cx: &mut Context<'_>,
    store: &Store,
    count: &mut u64,
) -> Poll<Result<(), ()>> {
    let EndpointSide::Http1(endpoint, _) = endpoint else { return Poll::Ready(Err(())) };
    match client {
        ClientSide::Http1(client) => direction.poll(cx, store, endpoint.stream(), client.stream(), count),
        ClientSide::Http2(client) => direction.poll(cx, store, endpoint.stream(), client, count),
    }
}

impl<'a> EndpointSide<'a> {
    delegate! { endpoint:
        fn has_unsent(&self) -> bool;
        fn sent(&self) -> u64;
        fn received(&self) -> u64;
        fn body_received(&self) -> u64;
        fn response(&self) -> Spanned<'_, ResponseHead>;
        fn status(&self) -> u16;
        fn framing(&self) -> Reframed;
    }
    delegate! { mut endpoint:
        fn begin(&mut self);
        fn disconnect(&mut self);
        fn take_output(&mut self) -> Vec<u8>;
        fn take_body(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError>;
        fn drop_unsent(&mut self);
        fn poll_head(&mut self, cx: &mut Context<'_>, store: &Store, limits: &HeadLimits) -> Poll<Result<ResponsePart, Failure>>;
        fn drop_interim(&mut self);
        fn begin_body(&mut self, method: Method, form: BodyForm);
        fn source(&mut self) -> &mut BodySource<'a>;
        fn poll_receive(&mut self, cx: &mut Context<'_>, store: &Store, largest: usize) -> Poll<Result<bool, Failure>>;
    }

    /// Switches to the version of HTTP that the way requires. Returns whether it changed to HTTP/2, whose bodies have frames.
    pub(super) fn follow(&mut self, way: &Way, store: &Store) -> bool {
        let Self::Http1(_, memory) = self else { return false };
        let Some(memory) = memory.take_if(|_| !way.is_exclusive()) else { return false };
        *self = Self::Http2(Box::new(Http2Endpoint::new(memory.get_or_insert_default(), store)));
        true
    }

    /// Lends the memory for an endpoint of the other version, for a call that the proxy itself makes.
    fn lend_memory(&mut self) -> Box<Http2Memory> {
        match self {
            Self::Http1(_, Some(memory)) => memory.take().unwrap_or_default(),
            Self::Http1(_, None) | Self::Http2(_) => Box::default(),
        }
    }

    /// Takes it back.
    fn return_memory(&mut self, lent: Box<Http2Memory>) {
        if let Self::Http1(_, Some(memory)) = self {
            **memory = Some(lent);
        }
    }

    /// Notes when the client's timeout for the request expires.
    pub(super) fn set_until(&mut self, until: Millis) {
        if let Self::Http2(endpoint) = self {
            endpoint.until = until;
        }
    }

    /// When the client's timeout for the request expires.
    pub(super) fn until(&self) -> Millis {
        match self {
            Self::Http1(..) => NEVER,
            Self::Http2(endpoint) => endpoint.until,
        }
    }

    /// Whether the endpoint sees where a body without a length ends. Many HTTP/1 servers assume that there is no body.
    pub(super) fn shows_end(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether client and endpoint may talk for long before there is a response, as gRPC does.
    pub(super) fn may_converse(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether this side can next talk to another service, which may speak another version.
    pub(super) fn can_turn(&self) -> bool {
        matches!(self, Self::Http1(..))
    }

    /// Uses a connection for the try.
    pub(super) fn connect(&mut self, connection: Connected) {
        match (self, connection) {
            (Self::Http1(endpoint, _), Connected::Http1(connection)) => endpoint.connect(connection),
            (Self::Http2(endpoint), Connected::Http2(place)) => endpoint.connect(place),
            _ => debug_assert!(false, "the way of the route says which version is spoken"),
        }
    }

    /// The connection, if it is to be kept after the complete response to a complete request with `method`. An HTTP/2 connection stays
    /// where it is.
    pub(super) fn take_reusable(&mut self, method: Method) -> Option<Box<UpstreamConnection>> {
        match self {
            Self::Http1(endpoint, _) => endpoint.take_reusable(method),
            Self::Http2(endpoint) => {
                endpoint.disconnect();
                None
            }
        }
    }

    /// Ends the try after all of the response was received, which is still in the buffer. Returns the connection if it can carry another
    /// request.
    pub(super) fn release(&mut self, method: Method) -> Option<Box<UpstreamConnection>> {
        match self {
            Self::Http1(endpoint, _) => endpoint.release(method),
            Self::Http2(endpoint) => {
                endpoint.disconnect();
                None
            }
        }
    }

    /// Sets the head of the request.
    pub(super) fn set_request(&mut self, memory: Vec<u8>, written: Written) {
        match self {
            Self::Http1(endpoint, _) => endpoint.set_request(memory),
            Self::Http2(endpoint) => endpoint.set_request(memory, written),
        }
    }

    /// Writes pending bytes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, from: &mut BodySource<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Http1(endpoint, _) => endpoint.poll_write(cx, from),
            Self::Http2(endpoint) => endpoint.poll_write(cx),
        }
    }

    /// Notes that the endpoint took too long.
    pub(super) fn suspect(&self) {
        if let Self::Http2(endpoint) = self {
            endpoint.suspect();
        }
    }

    // There are no tunnels to an endpoint over HTTP/2, which has no 101.

    pub(super) fn split_tunnel(&mut self) -> Direction {
        match self {
            Self::Http1(endpoint, _) => endpoint.split_tunnel(),
            Self::Http2(_) => Direction::default(),
        }
    }

    /// Frees the memory for output, if everything was written.
    pub(super) fn release_output(&mut self) {
        if let Self::Http1(endpoint, _) = self {
            endpoint.release_output();
        }
    }

    pub(super) fn count_sent(&mut self, count: u64) {
        if let Self::Http1(endpoint, _) = self {
            endpoint.count_sent(count);
        }
    }

    /// Prepares the fields about a client that every request on its connection carries, if they do not depend on the request.
    pub(super) fn prepare_family(&self, client: &ClientView, family: &FamilyFields) {
        match self {
            Self::Http1(..) => {
                if family.http1.get().is_none() && client.is_of_connection() {
                    let fields = PreparedField::written_by(|writer| {
                        client.write_family::<FieldsView<'_>, _>(writer, KnownSet::EMPTY);
                    });
                    // Another exchange on the same connection may have prepared the same fields.
                    let _ = family.http1.set(fields);
                }
            }
            Self::Http2(_) => {}
        }
    }

    /// Appends the head of a request to its memory.
    ///
    /// # Errors
    /// If a configured value makes the head invalid.
    pub(super) fn write_request(
        &self,
        request: &UpstreamRequest<'_>,
        family: &FamilyFields,
        out: &mut Vec<u8>,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<Written, Failure> {
        match self {
            Self::Http1(endpoint, _) => {
                endpoint.write_request(request, family.http1.get(), out, value, expand).map(|()| None)
            }
            Self::Http2(endpoint) => endpoint.write_request(request, out, value, expand).map(Some),
        }
    }

    pub(super) fn agrees_to_switch(&self, client: &ClientSide<'_>) -> bool {
        match self {
            Self::Http1(endpoint, _) => client.head().is_some_and(|request| endpoint.agrees_to_switch(request)),
            Self::Http2(_) => false,
        }
    }
}
