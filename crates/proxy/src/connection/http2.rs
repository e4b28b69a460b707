//! An HTTP/2 connection: one task drives it, and each stream has its own task, so a stream that waits or panics does not affect the others.
//!
//! The end of a connection is announced: first GOAWAY with the highest possible stream, so that requests in transit are still served; a
//! round trip later GOAWAY with the last stream (RFC 9113 6.8); the connection closes once its streams have ended. Some clients (httpx,
//! undici, Java's HttpClient) treat the first GOAWAY as a failure of their requests, so it waits for a moment without streams. The wait is
//! short if the client keeps opening streams, which would be better off elsewhere, and longer if it only has long ones, such as a large
//! download.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::http::Request;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};

use super::{ClientConnection, Runners, hurried};
use crate::error::Failure;
use crate::exchange::{ConnectionFacts, Exchange, Sides};
pub(super) use crate::http2::Preface;
use crate::http2::{Block, Http2Io, Http2Stream, Link, TlsFacts, receive_head};
use crate::limit::{
    CLIENT_SEND_TIMEOUT, HTTP2_ANNOUNCE_AFTER, HTTP2_CONNECTION_WINDOW, HTTP2_ERROR_RESETS, HTTP2_FRAME,
    HTTP2_HEADER_TABLE, HTTP2_LEAVE_TIMEOUT, HTTP2_PENDING_RESETS, HTTP2_PING_AFTER, HTTP2_PING_TIMEOUT,
    HTTP2_SEND_BUFFER, HTTP2_STREAM_WINDOW, LINGER_BYTES, LINGER_GAP, LINGER_TIME,
};
use crate::live::Live;
use crate::metrics::Phase;
use crate::prepared::header_list_limit;
use crate::shard::{Admission, Shard};
use crate::stream::{Downstream, ServerTls};
use crate::timer::{Deadline, Millis, NEVER, within};

/// What the tasks of a connection share.
#[derive(Debug)]
struct SharedConnection {
    facts: ConnectionFacts,
    link: Rc<Link>,
}

/// Counts one stream for as long as it lives.
#[derive(Debug)]
struct StreamCount(Rc<SharedConnection>);

impl StreamCount {
    fn new(shared: Rc<SharedConnection>) -> Self {
        shared.link.begin_stream();
        Self(shared)
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.link.end_stream();
    }
}

/// The stages of a connection's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    /// It accepts streams.
    None,
    /// The client knows that no more are accepted.
    Announced,
    /// The last GOAWAY is queued or sent.
    Closing,
}

/// When something has to be done; [`NEVER`] for none.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// A connection without streams ends, or the next step of its end is due.
    idle: Millis,
    /// The end is announced even if there are streams.
    leave: Millis,
    /// The same if new streams begin.
    leave_early: Millis,
    /// A PING is to be sent, or its answer is due.
    ping: Millis,
    /// The client must have read something.
    write: Millis,
    /// The rest of a head is due.
    head: Millis,
}

impl Times {
    const NONE: Self = Self { idle: NEVER, leave: NEVER, leave_early: NEVER, ping: NEVER, write: NEVER, head: NEVER };
}

/// A new stream with its request.
pub(super) struct NewStream {
    count: StreamCount,
    request: Request<RecvStream>,
    respond: SendResponse<Block>,
}

/// The task that drives a connection.
struct Driver {
    shared: Rc<SharedConnection>,
    runners: Rc<Runners>,
    connection: Connection<Http2Io<ServerTls>, Block>,
    pings: Option<PingPong>,
    /// Whether a PING was sent and the client has sent nothing since.
    asked: bool,
    /// Whether the answer to a PING has not been taken yet.
    pinged: bool,
    deadline: Deadline,
    admission: Admission,
    ending: Ending,
    busy: bool,
    /// At the last check: the bytes read, and the bytes written when writing was blocked.
    seen: (u64, Option<u64>),
    times: Times,
}

/// Serves a connection of which `early` has already been read.
// Large parts are boxed: the size of this future is the cost of an idle connection.
pub(super) async fn serve(connection: Box<ClientConnection>, early: Vec<u8>, runners: Rc<Runners>) {
    let Some(mut driver) = Box::pin(begin(connection, early, runners)).await else { return };
    poll_fn(|cx| driver.poll(cx)).await;
    Box::pin(driver.end()).await;
}

/// Exchanges the first frames. `None` if the connection is over.
async fn begin(connection: Box<ClientConnection>, early: Vec<u8>, runners: Rc<Runners>) -> Option<Box<Driver>> {
    let ClientConnection { facts, stream, deadline, head_due, admission } = *connection;
    let shard = facts.shard.clone();
    let tls = match &stream {
        Downstream::Plain(_) => None,
        Downstream::Tls(tls) => Some(TlsFacts::of(tls)),
    };
    let link = Rc::new(Link::new(tls, shard.blocks.clone(), shard.timers.now()));
    let handshake = {
        let running = shard.running();
        builder(&running).handshake::<_, Block>(Http2Io::new(stream, early, link.clone()))
    };
    deadline.set(head_due);
    let mut connection = hurried(&shard, &admission, &deadline, handshake).await?.ok()?;
    Some(Box::new(Driver {
        pings: connection.ping_pong(),
        connection,
        shared: Rc::new(SharedConnection { facts, link }),
        runners,
        asked: false,
        pinged: false,
        deadline,
        admission,
        ending: Ending::None,
        busy: false,
        seen: (0, None),
        times: Times { idle: head_due, ..Times::NONE },
    }))
}

fn builder(live: &Live) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(live.snapshot.settings().http2.streams.get())
        .initial_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .header_table_size(HTTP2_HEADER_TABLE)
        .max_header_list_size(header_list_limit(&live.prepared.request))
        .max_send_buffer_size(HTTP2_SEND_BUFFER)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(Some(HTTP2_ERROR_RESETS))
        .enable_connect_protocol();
    builder
}

impl Driver {
    /// Drives the connection until it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared.clone();
        let link = &*shared.link;
        let shard = &shared.facts.shard;
        link.drive(cx);
        loop {
            link.forgive(shard.timers.now());
            if link.is_abused() && self.ending != Ending::Closing {
                tracing::debug!(remote_addr = %shared.facts.arrival.peer, "HTTP/2 connection abused");
                self.close(Reason::ENHANCE_YOUR_CALM);
            }
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, remote_addr = %shared.facts.arrival.peer, "HTTP/2 connection failed");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if link.is_abused() && self.ending != Ending::Closing => {}
                Poll::Pending if self.is_to_announce() => self.announce(),
                Poll::Pending => match self.poll_times(cx) {
                    // Something was sent.
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Whether the end is to be announced now. If not, sets when it will be.
    fn is_to_announce(&mut self) -> bool {
        let facts = &self.shared.facts;
        if self.ending != Ending::None || !(self.shared.link.leaves() || facts.shard.is_draining()) {
            return false;
        }
        // Frames of streams that have ended on this side may still be unsent.
        let busy = self.shared.link.is_busy() || self.connection.has_streams();
        if busy && self.times.leave == NEVER {
            // A client that always has streams learns of a drain while there is time to end them.
            let time = facts.shard.running().snapshot.settings().shutdown_timeout;
            self.times.leave = facts.shard.timers.after(time / 2);
            self.times.leave_early = facts.shard.timers.after(HTTP2_ANNOUNCE_AFTER.min(time / 4));
        }
        !busy
    }

    /// Announces that no more streams are accepted.
    fn announce(&mut self) {
        self.connection.graceful_shutdown();
        self.ending = Ending::Announced;
        self.times = Times { leave: NEVER, leave_early: NEVER, ..self.times };
        self.note_phase();
        if !self.busy {
            self.times.idle = self.shared.facts.shard.timers.after(HTTP2_LEAVE_TIMEOUT);
        }
    }

    /// Ends the connection and its streams.
    fn close(&mut self, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
        self.ending = Ending::Closing;
        let linger = if reason == Reason::NO_ERROR { HTTP2_LEAVE_TIMEOUT } else { LINGER_TIME };
        self.times = Times { idle: self.shared.facts.shard.timers.after(linger), ..Times::NONE };
    }

    /// Begins a stream.
    fn accept(&mut self, request: Request<RecvStream>, respond: SendResponse<Block>) {
        let count = StreamCount::new(self.shared.clone());
        self.note_phase();
        self.times.leave = self.times.leave.min(self.times.leave_early);
        // The count notes its end.
        let stream = NewStream { count, request, respond };
        drop(tokio::task::spawn_local(self.runners.clone().serve_stream(stream)));
    }

    /// Notes whether there are streams.
    fn note_phase(&mut self) {
        let facts = &self.shared.facts;
        let busy = self.shared.link.is_busy();
        if busy == self.busy {
            return;
        }
        self.busy = busy;
        let timers = &facts.shard.timers;
        self.asked = false;
        if busy {
            self.admission.enter(Phase::Writing);
            self.times.idle = NEVER;
            self.times.ping = timers.after(HTTP2_PING_AFTER);
        } else {
            self.admission.enter(Phase::Waiting);
            self.times.ping = NEVER;
            let idle = match self.ending {
                Ending::None => facts.shard.running().snapshot.settings().keep_alive.unwrap_or_default(),
                Ending::Announced | Ending::Closing => HTTP2_LEAVE_TIMEOUT,
            };
            self.times.idle = timers.after(idle);
        }
    }

    /// Does what is due. Ready with `true` if there is something to send, with `false` if the connection is over.
    fn poll_times(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = self.shared.clone();
        let (link, shard) = (&*shared.link, &shared.facts.shard);
        let timers = &shard.timers;
        if self.ending != Ending::Closing {
            self.note_phase();
            self.note_progress(cx);
        } else if self.admission.is_called() {
            return Poll::Ready(false);
        }
        let Times { idle, leave, leave_early: _, ping, write, head } = self.times;
        let first = idle.min(leave).min(ping).min(write).min(head);
        self.deadline.set(first);
        if !self.busy && self.ending != Ending::Closing && self.admission.is_called() {
            self.close(Reason::NO_ERROR);
            return Poll::Ready(true);
        }
        let now = timers.now();
        if first > now {
            return Poll::Pending;
        }
        if write <= now || self.ending == Ending::Closing {
            return Poll::Ready(false);
        }
        if head <= now {
            self.close(Reason::ENHANCE_YOUR_CALM);
        } else if leave <= now {
            self.announce();
        } else if idle <= now {
            match self.ending {
                Ending::None if !link.lingers() => self.announce(),
                _ => self.close(Reason::NO_ERROR),
            }
        } else if self.asked {
            return Poll::Ready(false);
        } else {
            self.asked = true;
            self.times.ping = timers.after(HTTP2_PING_TIMEOUT);
            if let Some(pings) = &mut self.pings {
                self.pinged |= pings.send_ping(Ping::opaque()).is_ok();
            }
        }
        Poll::Ready(true)
    }

    /// Notes what was read and written since the last check.
    fn note_progress(&mut self, cx: &mut Context<'_>) {
        let shared = self.shared.clone();
        let (link, timers) = (&*shared.link, &shared.facts.shard.timers);
        let (read, blocked) = (link.read(), link.blocked_at());
        if read != self.seen.0 && self.busy {
            self.asked = false;
            self.times.ping = timers.after(HTTP2_PING_AFTER);
        }
        if blocked != self.seen.1 {
            self.times.write = if blocked.is_some() { timers.after(CLIENT_SEND_TIMEOUT) } else { NEVER };
        }
        self.seen = (read, blocked);
        if !link.in_head() {
            self.times.head = NEVER;
        } else if self.times.head == NEVER {
            self.times.head = timers.after(shared.facts.shard.running().snapshot.settings().header_timeout);
        }
        // The answer to a PING has been read like any other frame; taking it allows the next PING.
        if self.pinged
            && let Some(pings) = &mut self.pings
        {
            self.pinged = pings.poll_pong(cx).is_pending();
        }
    }

    /// Waits for the streams, which have lost their connection, to end before giving up its place.
    async fn end(self: Box<Self>) {
        let Self { shared, connection, deadline, admission, .. } = *self;
        drop(connection);
        deadline.set_after(HTTP2_LEAVE_TIMEOUT);
        poll_fn(|cx| {
            shared.link.drive(cx);
            if shared.link.is_busy() && !deadline.expired() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        drop(admission);
    }
}

/// Serves one request.
pub(super) async fn serve_stream(stream: NewStream) {
    let NewStream { count, request, respond } = stream;
    let begun = Instant::now();
    let SharedConnection { facts, link } = &*count.0;
    let shard = &facts.shard;
    let deadline = Deadline::of_task(shard.timers.clone()).await;
    let running = shard.running();
    let mut work = shard.store.lend();
    let (parts, received) = request.into_parts();
    let mut stream = Http2Stream::new(received, respond);
    let limits = &running.prepared.request;
    let head = receive_head(&parts, stream.has_all(), &mut work.inbound, &mut work.head, &shard.store, limits, || {
        let mut rng = shard.rng.borrow_mut();
        [rng.bits(), rng.bits()]
    });
    drop(parts);
    // Nothing is sent to an endpoint for a stream that was reset before it was served.
    let cut = stream.was_cut();
    if !cut && let Ok(length) = head {
        work.inbound.hold(length);
    }
    let mut exchange =
        Exchange::new(facts, &deadline, Sides::of_stream(link, &mut stream, &mut work), &running, begun, false);
    let _ = match head {
        _ if cut => exchange.refuse(Failure::ClientGone).await,
        Ok(_) => exchange.serve(begun).await,
        Err(error) => exchange.refuse(Failure::RequestHead(error)).await,
    };
    drop(exchange);
    if stream.was_cut() {
        link.charge_reset();
    }
    shard.store.give_back(work);
    if stream.lingers() {
        linger(shard, &deadline, &mut stream).await;
    }
}

/// Reads and discards input until the client has ended its request, for a limited time.
async fn linger(shard: &Shard, deadline: &Deadline, stream: &mut Http2Stream) {
    let end = shard.timers.after(LINGER_TIME);
    let mut left = LINGER_BYTES;
    while left > 0 && shard.timers.now() < end {
        deadline.set(shard.timers.after(LINGER_GAP).min(end));
        let read = poll_fn(|cx| if shard.is_stopping() { Poll::Ready(None) } else { stream.poll_discard(cx) });
        let Some(Some(count)) = within(deadline, read).await else { return };
        left = left.saturating_sub(count);
    }
}
