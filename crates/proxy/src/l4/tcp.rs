//! A connection of a TCP service, from accept to close, and a TLS connection whose server name leads to a backend, from its ClientHello to
//! close.
//!
//! Each side may end its direction and still receive, as if there were no proxy. A failure on one side resets the other, so that
//! a truncated transfer never looks complete. An endpoint that closes TLS without close_notify, as many do, causes no reset, or the client
//! could lose the last bytes; a TLS client gets no close_notify either, so that it can tell.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fairway_model::{ListenerName, Passthrough, StreamSettings, StreamTarget, Transport};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::endpoint::Endpoint;
use super::port::{OpenStream, StreamSession};
use crate::balance::Pick;
use crate::direction::Direction;
use crate::limit::PROXY_HEADER_TIMEOUT;
use crate::metrics::{PASSED, Phase};
use crate::net::proxy_protocol::{self, Decoded, Ends};
use crate::shard::connect::{self, ConnectError};
use crate::shard::{Admission, Shard, while_admitted};
use crate::stream::{Downstream, Upstream};
use crate::timer::{Deadline, within};
use crate::upstream::{Service, Way};

/// Serves a connection to its end.
pub(crate) async fn serve(
    shard: Rc<Shard>,
    mut admission: Admission,
    open: Rc<OpenStream>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    // Connections spend most of their time relaying bytes, so the state needed before that is boxed to keep the task small.
    if let Some(mut passing) = Box::pin(begin(shard, &mut admission, open, stream, peer)).await {
        passing.run().await;
    }
}

/// A TLS connection whose server name leads to a backend.
#[derive(Debug)]
pub(crate) struct Passed {
    /// The client's connection. If TLS ends here, its handshake is over.
    pub(crate) client: Downstream,
    /// The client, and the address that it connected to.
    pub(crate) ends: Ends,
    /// The listener that accepted it.
    pub(crate) listener: ListenerName,
    /// The host that the client asks for, in canonical form.
    pub(crate) server_name: Box<str>,
    /// All that was read from the client: its hello, and perhaps more. Empty if TLS ends here.
    pub(crate) hello: Vec<u8>,
    /// Where it leads.
    pub(crate) passthrough: Arc<Passthrough>,
}

/// Passes a TLS connection, or what it carries, to an endpoint, byte for byte, to its end.
pub(crate) async fn pass(shard: Rc<Shard>, mut admission: Admission, deadline: Deadline, passed: Passed) {
    if let Some(mut passing) = Box::pin(begin_passed(shard, &mut admission, deadline, passed)).await {
        passing.run().await;
    }
}

async fn begin_passed(
    shard: Rc<Shard>,
    admission: &mut Admission,
    deadline: Deadline,
    passed: Passed,
) -> Option<Passing> {
    let Passed { client, ends, listener, server_name, hello, passthrough } = passed;
    let settings = shard.running().snapshot.settings().streams.clone();
    let tally = shard.metrics.borrow_mut().passed(&listener);
    let mut session = StreamSession::begin(&shard, &tally, PASSED, ends.source, ends.destination);
    session.record.server_name = server_name;
    session.record.received = hello.len() as u64;
    tally.count(|counts| counts.received += hello.len() as u64);
    let target = session.target(passthrough.backend.as_ref()?)?;
    // What is passed through is encrypted already.
    let target = StreamTarget { tls: target.tls.filter(|_| passthrough.terminate), ..target };
    let destination = Destination { target, send_proxy: passthrough.send_proxy };
    let connection = TcpConnection { session, deadline, ends, client, received: hello, to_up: Direction::strict() };
    connection.begin(admission, &destination, &settings).await
}

async fn begin(
    shard: Rc<Shard>,
    admission: &mut Admission,
    open: Rc<OpenStream>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Passing> {
    let deadline = Deadline::of_task(shard.timers.clone()).await;
    admission.set_deadline(&deadline);
    let mut local = open.gate().local();
    if local.ip().is_unspecified() {
        local = stream.local_addr().unwrap_or(local);
    }
    let resource = open.resource();
    let Transport::Tcp { accept_proxy, send_proxy } = resource.transport else { return None };
    let settings = shard.running().snapshot.settings().streams.clone();
    let mut connection = TcpConnection {
        session: open.begin(&shard, peer, local),
        deadline,
        ends: Ends { source: peer, destination: local },
        client: Downstream::Plain(stream),
        received: Vec::new(),
        to_up: Direction::strict(),
    };
    if accept_proxy && !connection.read_header(admission).await {
        connection.session.record.status = 400;
        connection.to_up.release(&shard.store);
        return None;
    }
    let Some(target) = connection.session.target(&resource.backend) else {
        connection.to_up.release(&shard.store);
        return None;
    };
    connection.begin(admission, &Destination { target, send_proxy }, &settings).await
}

/// Where a connection leads.
struct Destination<'a> {
    target: StreamTarget<'a>,
    /// Whether the endpoint gets a PROXY header.
    send_proxy: bool,
}

/// A connection without an endpoint yet.
struct TcpConnection {
    session: StreamSession,
    deadline: Deadline,
    /// The client, and the address that it connected to: taken from the PROXY header if there is one.
    ends: Ends,
    client: Downstream,
    /// What was read from the client before there was an endpoint; already counted as received.
    received: Vec<u8>,
    /// From the client to the endpoint.
    to_up: Direction,
}

/// A connection with both sides.
struct Passing {
    session: StreamSession,
    deadline: Deadline,
    client: Downstream,
    endpoint: Endpoint,
    to_up: Direction,
    to_down: Direction,
    /// Longest silence.
    idle: Duration,
}

impl TcpConnection {
    /// Finds the endpoint. If there is none, the memory goes back to the worker, as at the end of every connection.
    async fn begin(
        mut self,
        admission: &mut Admission,
        destination: &Destination<'_>,
        settings: &StreamSettings,
    ) -> Option<Passing> {
        // From here on the server may have to speak first, so silence means nothing.
        admission.enter(Phase::Passing);
        let Some(endpoint) = self.reach(destination, settings).await else {
            self.to_up.release(&self.session.shard.store);
            return None;
        };
        let Self { session, deadline, client, to_up, .. } = self;
        Some(Passing { session, deadline, client, endpoint, to_up, to_down: Direction::strict(), idle: settings.idle })
    }

    /// Connects, and sends the PROXY header, if configured, and what was received.
    async fn reach(&mut self, destination: &Destination<'_>, settings: &StreamSettings) -> Option<Endpoint> {
        let mut stream = self.connect(destination, settings).await?;
        // With TLS, the header was sent before the handshake, and only `to_up` has read from the client.
        if let Upstream::Plain(tcp) = &mut stream {
            let mut first = self.header(destination);
            first.append(&mut self.received);
            if !first.is_empty() {
                self.deadline.set_after(settings.connect_timeout);
                let written = within(&self.deadline, tcp.write_all(&first)).await;
                if !matches!(written, Some(Ok(()))) {
                    self.session.record.status = 502;
                    return None;
                }
            }
        }
        Some(Endpoint::new(stream))
    }

    /// The PROXY header for the endpoint; empty if it gets none.
    fn header(&self, destination: &Destination<'_>) -> Vec<u8> {
        let mut header = Vec::new();
        if destination.send_proxy {
            proxy_protocol::encode(&self.ends, &mut header);
        }
        header
    }

    /// Reads the header and returns whether it is valid. Bytes after it stay in the buffer.
    async fn read_header(&mut self, admission: &Admission) -> bool {
        self.deadline.set_after(PROXY_HEADER_TIMEOUT);
        let inbound = self.to_up.buffer(&self.session.shard.store);
        loop {
            let client = &mut self.client;
            // The buffer is larger than any header, so it always has room for another byte of one.
            let read = while_admitted(admission, &self.deadline, poll_fn(|cx| inbound.poll_fill(client, cx))).await;
            let Some(Ok(count @ 1..)) = read else { return false };
            self.session.record.received += count as u64;
            match proxy_protocol::decode(inbound.filled()) {
                Ok(Decoded::Partial) => {}
                Ok(Decoded::Complete { len, ends }) => {
                    inbound.consume(len);
                    self.ends = ends.unwrap_or(self.ends);
                    self.session.record.client = self.ends.source;
                    // Relayed bytes are counted from here.
                    self.session.record.received = len as u64;
                    return true;
                }
                Err(_) => return false,
            }
        }
    }

    async fn connect(&mut self, destination: &Destination<'_>, settings: &StreamSettings) -> Option<Upstream> {
        let StreamTarget { backend, tls } = destination.target;
        let way = {
            let shard = &self.session.shard;
            shard.upstreams.ways.for_stream(&shard.running(), tls)
        };
        let way = match way {
            Ok(way) => way,
            Err(error) => {
                tracing::debug!(%error, %backend, "no TLS to a backend");
                return None;
            }
        };
        while let Some((service, pick)) = self.session.choose(backend, settings.retry.as_ref()) {
            let since = Instant::now();
            match self.open(&service, &pick, &way, destination, settings.connect_timeout).await {
                Ok(stream) => {
                    self.session.reached(&service, &pick, since);
                    return Some(stream);
                }
                // No other endpoint could be connected either.
                Err(ConnectError::NoFile) => return None,
                Err(error) => {
                    tracing::debug!(%error, upstream_addr = %pick.endpoint, "cannot connect to an endpoint");
                    self.session.failed(&service, &pick);
                }
            }
        }
        None
    }

    /// Opens a connection to an endpoint. The PROXY header precedes the TLS handshake.
    async fn open(
        &self,
        service: &Service,
        pick: &Pick,
        way: &Way,
        destination: &Destination<'_>,
        timeout: Duration,
    ) -> Result<Upstream, ConnectError> {
        let shard = &self.session.shard;
        let end = shard.timers.after(timeout);
        let mut tcp = connect::open(shard, &self.deadline, service, pick.endpoint, timeout).await?;
        let Way::Tls(way) = way else { return Ok(Upstream::Plain(tcp)) };
        let header = self.header(destination);
        if !header.is_empty() {
            self.deadline.set(end);
            within(&self.deadline, tcp.write_all(&header)).await.ok_or(ConnectError::TimedOut)??;
        }
        connect::secure(&self.deadline, way, pick.endpoint, tcp, end).await
    }
}

impl Passing {
    /// Relays bytes until both sides have ended, one fails, or both stay silent too long.
    async fn run(&mut self) {
        self.deadline.set_after(self.idle);
        let ended = poll_fn(|cx| self.poll(cx)).await;
        let shard = self.session.shard.clone();
        self.to_up.release(&shard.store);
        self.to_down.release(&shard.store);
        if ended == Ended::Broken && !self.endpoint.was_cut() {
            for stream in [self.client.tcp(), self.endpoint.tcp()] {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Self { session, client, endpoint, to_up, to_down, deadline, idle } = self;
        let StreamSession { shard, tally, record, .. } = session;
        let (up, down) = (record.upstream_sent, record.sent);
        let up_result = to_up.poll(cx, &shard.store, client, endpoint, &mut record.upstream_sent);
        let down_result = to_down.poll(cx, &shard.store, endpoint, client, &mut record.sent);
        let (up, down) = (record.upstream_sent - up, record.sent - down);
        record.received += up;
        record.upstream_received += down;
        if up + down > 0 {
            tally.count(|counts| {
                counts.received += up;
                counts.sent += down;
            });
            deadline.set_after(*idle);
        }
        match (up_result, down_result) {
            (Poll::Ready(Err(())), _) | (_, Poll::Ready(Err(()))) => Poll::Ready(Ended::Broken),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ended::Whole),
            _ if deadline.expired() => Poll::Ready(Ended::Idle),
            _ => Poll::Pending,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// Both sides have ended, and each received everything.
    Whole,
    /// A side failed.
    Broken,
    /// Both sides were silent too long.
    Idle,
}

/// Size of a connection's future, which is its memory while it is silent.
#[cfg(test)]
pub(super) fn future_size() -> usize {
    fn size_of_output<A, B, C, D, E, F: Future>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }
    size_of_output(serve)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_silent_connection_takes_little_memory() {
        let size = super::future_size();
        assert!(size <= 1200, "{size} bytes");
    }
}
