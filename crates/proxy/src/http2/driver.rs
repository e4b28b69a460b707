//! The task that drives an HTTP/2 connection to an endpoint. The connection lives as long as this task, whatever happens to its requests.
//!
//! If an endpoint sends nothing while requests wait, a PING asks whether it is still there. The second PING during a silence comes late,
//! because grpc-go closes a connection on which PINGs are more frequent than its data.
//!
//! A connection without requests ends when its endpoint announces that it takes no more (GOAWAY), after its idle time, or when the worker
//! has too many idle connections.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::client::{Builder, Connection};
use h2::{Ping, PingPong};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::block::{Block, Blocks};
use super::io::Http2Io;
use super::link::Link;
use super::pool::{EndpointConnection, Http2Pool, OpeningDuty};
use crate::error::Failure;
use crate::limit::{
    HTTP2_ENDPOINT_CONNECTION_WINDOW, HTTP2_ENDPOINT_HEAD, HTTP2_ENDPOINT_STREAM_WINDOW, HTTP2_ERROR_RESETS,
    HTTP2_FRAME, HTTP2_HEADER_TABLE, HTTP2_PING_AFTER, HTTP2_PING_AGAIN, HTTP2_PING_TIMEOUT, HTTP2_SEND_BUFFER,
};
use crate::prepared::PoolLimits;
use crate::stream::Upstream;
use crate::timer::{Deadline, Millis, NEVER, Timers, within};
use crate::upstream::Target;

/// Bytes of the answer to a PING: a header and the payload of the PING.
// No limit: part of the protocol.
const PONG: u64 = 17;

/// What a new connection is made from.
#[derive(Debug)]
pub(crate) struct NewConnection {
    /// The endpoint.
    pub(crate) target: Target,
    /// The connection, after any TLS handshake.
    pub(crate) stream: Upstream,
    /// Time for the endpoint's first SETTINGS.
    pub(crate) timeout: Duration,
    /// Limits of connections to endpoints.
    pub(crate) limits: PoolLimits,
}

/// Begins HTTP/2 on a connection and drives it from now on. Requests that wait for the connection learn the outcome.
pub(crate) fn start(new: NewConnection, duty: OpeningDuty, timers: Rc<Timers>, blocks: Rc<Blocks>) {
    // The pool notes its end.
    drop(tokio::task::spawn_local(drive(new, duty, timers, blocks)));
}

struct EndpointDriver {
    connection: Connection<Http2Io<TlsStream<TcpStream>>, Block>,
    shared: Rc<EndpointConnection>,
    pool: Rc<Http2Pool>,
    pings: Option<PingPong>,
    timers: Rc<Timers>,
    deadline: Deadline,
    /// Whether a PING was sent and the endpoint has sent nothing since.
    asked: bool,
    /// Whether the answer to a PING has not been taken yet.
    pinged: bool,
    /// Bytes read at the last check.
    read: u64,
    busy: bool,
    /// When the connection has been idle for too long.
    idle: Millis,
    /// When a PING is to be sent, or its answer is due.
    ping: Millis,
}

async fn drive(new: NewConnection, duty: OpeningDuty, timers: Rc<Timers>, blocks: Rc<Blocks>) {
    let NewConnection { target, stream, timeout, limits } = new;
    let deadline = Deadline::of_task(timers.clone()).await;
    deadline.set_after(timeout);
    let link = Rc::new(Link::to_endpoint(blocks, timers.now()));
    let secure = matches!(stream, Upstream::Tls(_));
    let handshake = builder().handshake::<_, Block>(Http2Io::new(stream, Vec::new(), link.clone()));
    let (requests, mut connection) = match within(&deadline, handshake).await {
        Some(Ok(made)) => made,
        Some(Err(_)) => return duty.fail(Failure::NotHttp2),
        None => return duty.fail(Failure::ConnectTimeout),
    };
    let settled = poll_fn(|cx| {
        link.drive(cx);
        match std::pin::Pin::new(&mut connection).poll(cx) {
            Poll::Ready(_) => Poll::Ready(false),
            Poll::Pending if link.is_settled() => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    });
    match within(&deadline, settled).await {
        Some(true) => {}
        Some(false) => return duty.fail(Failure::NotHttp2),
        None => return duty.fail(Failure::ConnectTimeout),
    }
    let pool = duty.pool();
    let shared = Rc::new(EndpointConnection::new(target, secure, requests, link, timers.now(), limits));
    // An overloaded endpoint (RFC 9113 5.1.2): more connections would not help.
    if shared.admitted() == 0 {
        return duty.fail(Failure::Unprocessed);
    }
    duty.fulfil(shared.clone());
    let mut driver = EndpointDriver {
        pings: connection.ping_pong(),
        connection,
        shared,
        pool,
        idle: idle_end(&timers, &limits),
        timers,
        deadline,
        asked: false,
        pinged: false,
        read: 0,
        busy: false,
        ping: NEVER,
    };
    poll_fn(|cx| driver.poll(cx)).await;
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(HTTP2_ENDPOINT_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_ENDPOINT_CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .header_table_size(HTTP2_HEADER_TABLE)
        .max_header_list_size(HTTP2_ENDPOINT_HEAD)
        .max_send_buffer_size(HTTP2_SEND_BUFFER)
        .max_local_error_reset_streams(Some(HTTP2_ERROR_RESETS));
    builder
}

impl EndpointDriver {
    /// Drives the connection until it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let link = self.shared.link.clone();
        link.drive(cx);
        loop {
            link.forgive(self.timers.now());
            if link.is_abused() {
                tracing::debug!(upstream_addr = %self.shared.target.address, "HTTP/2 connection abused by an endpoint");
                return Poll::Ready(());
            }
            if let Poll::Ready(ended) = std::pin::Pin::new(&mut self.connection).poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(%error, upstream_addr = %self.shared.target.address, "HTTP/2 to an endpoint failed");
                }
                return Poll::Ready(());
            }
            if !link.is_abused() {
                let again = ready!(self.poll_times(cx));
                if !again {
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Does what is due. Ready with `true` if there is something to send, with `false` if the connection is to end.
    fn poll_times(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let link = self.shared.link.clone();
        let busy = link.is_busy();
        if busy != self.busy {
            self.busy = busy;
            self.idle = if busy { NEVER } else { idle_end(&self.timers, &self.shared.limits) };
            self.ping = if busy { self.timers.after(HTTP2_PING_AFTER) } else { NEVER };
            self.asked = false;
            if busy {
                self.pool.note_busy(&self.shared);
            } else {
                self.pool.note_idle(&self.shared, self.timers.now());
            }
        }
        if link.peer_leaves() {
            self.shared.retire();
        }
        if !busy && self.shared.is_retired() {
            return Poll::Ready(false);
        }
        self.note_progress(cx);
        let first = self.idle.min(self.ping);
        self.deadline.set(first);
        let now = self.timers.now();
        if first > now {
            return Poll::Pending;
        }
        if self.idle <= now || self.asked {
            return Poll::Ready(false);
        }
        self.asked = true;
        self.ping = self.timers.after(HTTP2_PING_TIMEOUT);
        if let Some(pings) = &mut self.pings {
            self.pinged |= pings.send_ping(Ping::opaque()).is_ok();
        }
        Poll::Ready(true)
    }

    /// Notes what was read since the last check.
    fn note_progress(&mut self, cx: &mut Context<'_>) {
        let read = self.shared.link.read();
        let mut answered = false;
        if self.pinged
            && let Some(pings) = &mut self.pings
        {
            answered = pings.poll_pong(cx).is_ready();
            self.pinged = !answered;
        }
        if read != self.read && self.busy {
            let silent = answered && read - self.read == PONG;
            self.asked = false;
            self.ping = self.timers.after(if silent { HTTP2_PING_AGAIN } else { HTTP2_PING_AFTER });
        }
        self.read = read;
    }
}

/// When a connection that becomes idle now ends. Requests that waited for it have a moment to use it.
fn idle_end(timers: &Timers, limits: &PoolLimits) -> Millis {
    timers.now().saturating_add(limits.idle.max(1000))
}

impl Drop for EndpointDriver {
    fn drop(&mut self) {
        self.shared.retire();
        self.pool.remove(&self.shared);
    }
}
