//! A client's connection, from accept to close: TLS, one request after another, the end. HTTP/2 connections continue in `http2`.

mod handshake;
mod http2;
mod linger;
mod proxy_header;
mod runner;

use std::future::{Future, poll_fn};
use std::hint::cold_path;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fairway_model::Scheme;
use tokio::net::TcpStream;

use self::handshake::{Greeted, Leaving};
use self::runner::Handover;
pub(crate) use self::runner::Runners;
use crate::error::Failure;
use crate::exchange::{ConnectionFacts, Exchange, Sides, parse_head};
use crate::http::{After, Parsed};
use crate::l4::{self, tcp::Passed};
use crate::limit::{FIRST_REQUEST_WHILE_DRAINING, LINGER_GAP};
use crate::live::Live;
use crate::metrics::Phase;
use crate::net::listener::OpenListener;
use crate::net::proxy_protocol::Ends;
use crate::net::tls;
use crate::shard::{Admission, Shard, while_admitted};
use crate::stream::Downstream;
use crate::timer::{Deadline, Millis, NEVER, within};
use crate::work::{LARGE, Work};
use fairway_model::client::Arrival;

/// A client's connection.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    facts: ConnectionFacts,
    /// Its bytes.
    stream: Downstream,
    /// The task's only deadline.
    deadline: Deadline,
    /// When the handshake and the first head are due.
    head_due: Millis,
    admission: Admission,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) shard: Rc<Shard>,
    pub(crate) admission: Admission,
    pub(crate) listener: Rc<OpenListener>,
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
}

/// Serves a connection to its end.
// Large parts are boxed: the size of this future is the cost of an idle connection.
pub(crate) async fn serve(accepted: Box<Accepted>, runners: Rc<Runners>) {
    let mut connection = accepted.begin().await;
    if connection.facts.listener.accepts_proxy() && !Box::pin(connection.receive_proxy_header()).await {
        return;
    }
    if connection.facts.arrival.scheme == Scheme::Https {
        match Box::pin(connection.handshake()).await {
            Some(encrypted) => connection = encrypted,
            None => return,
        }
    }
    let speaks_http2 =
        if connection.chose_http2() { Some((connection, Vec::new())) } else { run(connection, &runners).await };
    if let Some((connection, early)) = speaks_http2 {
        http2::serve(connection, early, runners).await;
    }
}

impl Accepted {
    async fn begin(self: Box<Self>) -> Box<ClientConnection> {
        let deadline = Deadline::of_task(self.shard.timers.clone()).await;
        let Self { shard, admission, listener, stream, peer } = *self;
        admission.set_deadline(&deadline);
        let mut local = listener.local();
        if local.ip().is_unspecified() {
            local = stream.local_addr().unwrap_or(local);
        }
        let head_due = shard.timers.after(shard.running().snapshot.settings().header_timeout);
        let told = listener.with_resource(|listener| listener.told_port);
        let arrival = Arrival::new(peer, local, listener.scheme()).telling(told);
        Box::new(ClientConnection {
            facts: ConnectionFacts::new(shard, listener, arrival),
            head_due,
            admission,
            stream: Downstream::Plain(stream),
            deadline,
        })
    }
}

/// Serves requests over HTTP/1. If the client turns out to speak HTTP/2, returns the connection and what was read of it.
async fn run(mut connection: Box<ClientConnection>, runners: &Runners) -> Option<(Box<ClientConnection>, Vec<u8>)> {
    let mut waiting: Option<Box<Work>> = None;
    loop {
        let pipelined = waiting.is_some();
        let mut work = match waiting.take() {
            Some(work) => work,
            None => connection.next_request().await?,
        };
        if !connection.facts.had_request() && Box::pin(connection.knows_http2(&mut work)).await? {
            cold_path();
            let early = work.inbound.filled().to_vec();
            connection.facts.shard.store.give_back(work);
            return Some((connection, early));
        }
        let served = runners.serve(Handover { connection, work, item: pipelined }).await;
        let after = served.item;
        (connection, work) = (served.connection, served.work);
        if after != After::Keep {
            cold_path();
            connection.end(work, after).await;
            return None;
        }
        work.inbound.release();
        work.from_upstream.clear();
        work.to_client.clear();
        work.to_upstream.clear();
        if work.inbound.is_empty() {
            connection.facts.shard.store.give_back(work);
        } else if connection.facts.shard.store.recede(&mut work) {
            waiting = Some(work);
        } else {
            // A client must resend pipelined requests that got no response (RFC 9112, 9.3.2).
            connection.end(work, After::Linger).await;
            return None;
        }
    }
}

impl ClientConnection {
    /// The TLS handshake, within its deadline. `None` if it failed; a client that speaks plain HTTP gets an error page.
    async fn handshake(mut self: Box<Self>) -> Option<Box<Self>> {
        let configs = self.facts.listener.tls()?.current();
        self.deadline.set(self.head_due);
        let Downstream::Plain(tcp) = self.stream else { return None };
        let mut first = [0; 1];
        let peeked = hurried(&self.facts.shard, &self.admission, &self.deadline, tcp.peek(&mut first)).await?.ok()?;
        if peeked == 0 {
            return None;
        }
        if first[0].is_ascii_uppercase() {
            self.stream = Downstream::Plain(tcp);
            let mut work = self.facts.shard.store.lend();
            let running = self.facts.shard.running();
            self.exchange(&mut work, &running, Instant::now(), false).refuse(Failure::PlainOnTls).await;
            self.linger(&mut work).await;
            return None;
        }
        // Boxed so that the handshake's memory is freed after it.
        let http2 = self.facts.shard.running().snapshot.settings().http2.offered;
        let accepting = Box::pin(handshake::accept(tcp, &configs, http2));
        match hurried(&self.facts.shard, &self.admission, &self.deadline, accepting).await? {
            Ok(Greeted::Passing(passing)) => {
                drop(configs);
                // Boxed: it would otherwise take room in every connection.
                Box::pin(pass(self.facts, self.admission, self.deadline, passing)).await;
                None
            }
            Ok(Greeted::Accepted(stream, asked, chosen)) => {
                self.facts.chosen = chosen;
                self.facts.arrival.asked_for_certificate = asked.is_some();
                self.facts.asked = asked;
                self.stream = Downstream::Tls(stream);
                Some(self)
            }
            Err(error) => {
                self.facts.shard.metrics.borrow_mut().connections.handshakes_failed += 1;
                tracing::debug!(%error, remote_addr = %self.facts.arrival.peer, "TLS handshake failed");
                None
            }
        }
    }

    /// Whether the client chose HTTP/2 in its TLS handshake.
    fn chose_http2(&self) -> bool {
        matches!(&self.stream, Downstream::Tls(tls) if tls.session().alpn_protocol() == Some(tls::HTTP2))
    }

    /// Ends the connection after its last request.
    async fn end(&mut self, mut work: Box<Work>, after: After) {
        match after {
            After::Linger => self.linger(&mut work).await,
            After::Reset => drop(socket2::SockRef::from(self.stream.tcp()).set_linger(Some(Duration::ZERO))),
            After::Keep | After::Close if self.has_unread(&mut work).await => self.linger(&mut work).await,
            After::Keep | After::Close => self.finish().await,
        }
        self.facts.shard.store.give_back(work);
    }

    /// Whether a new connection without TLS begins with the HTTP/2 preface; `None` if it is over before that is certain.
    async fn knows_http2(&mut self, work: &mut Work) -> Option<bool> {
        if !matches!(self.stream, Downstream::Plain(_)) || !self.facts.shard.running().snapshot.settings().http2.offered
        {
            return Some(false);
        }
        loop {
            match http2::Preface::of(work.inbound.filled()) {
                http2::Preface::None => return Some(false),
                http2::Preface::Complete => return Some(true),
                http2::Preface::Partial => {}
            }
            let read = poll_fn(|cx| work.inbound.poll_fill(&mut self.stream, cx));
            match hurried(&self.facts.shard, &self.admission, &self.deadline, read).await? {
                Ok(1..) => {}
                // What has arrived is a truncated request.
                _ => return Some(false),
            }
        }
    }

    /// Waits for the first bytes of a request without holding memory for it. `None` if the connection is over.
    async fn next_request(&mut self) -> Option<Box<Work>> {
        let running = self.facts.shard.running();
        let settings = running.snapshot.settings();
        let patience = settings.keep_alive.unwrap_or_default();
        drop(running);
        if self.facts.had_request() {
            self.admission.enter(Phase::Waiting);
            self.deadline.set_after(patience);
        } else {
            cold_path();
            self.deadline.set(self.head_due);
        }
        poll_fn(|cx| self.poll_first_bytes(cx)).await
    }

    fn poll_first_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<Work>>> {
        let mut work = self.facts.shard.store.lend();
        let read = work.inbound.poll_fill(&mut self.stream, cx);
        if let Poll::Ready(Ok(1..)) = read {
            return Poll::Ready(Some(work));
        }
        self.facts.shard.store.put_back(work);
        if read.is_ready() || self.deadline.expired() || self.admission.is_called() {
            return Poll::Ready(None);
        }
        if self.facts.shard.is_draining() {
            cold_path();
            if self.facts.had_request() {
                return Poll::Ready(None);
            }
            self.deadline.bring_forward(FIRST_REQUEST_WHILE_DRAINING);
        }
        Poll::Pending
    }

    /// Serves one request whose first bytes have arrived.
    async fn request(&mut self, work: &mut Work, pipelined: bool) -> After {
        let begun = Instant::now();
        let running = self.facts.shard.running();
        let received = self.receive_head(work, &running).await;
        match received {
            Ok(waited) => {
                self.admission.enter(Phase::Writing);
                // Reading the clock is not free, and most heads arrive in one piece.
                let dispatched = if waited { Instant::now() } else { begun };
                self.exchange(work, &running, begun, pipelined).serve(dispatched).await
            }
            // Only empty lines arrived, or the connection has to give up its place.
            Err(None) => After::Close,
            Err(Some(failure)) => {
                cold_path();
                self.admission.enter(Phase::Writing);
                self.exchange(work, &running, begun, pipelined).refuse(failure).await
            }
        }
    }

    fn exchange<'a>(&'a mut self, work: &'a mut Work, live: &'a Live, begun: Instant, pipelined: bool) -> Exchange<'a> {
        Exchange::new(&self.facts, &self.deadline, Sides::of_connection(&mut self.stream, work), live, begun, pipelined)
    }

    /// Receives the rest of the head and holds it. Returns whether it had to wait.
    async fn receive_head(&mut self, work: &mut Work, live: &Live) -> Result<bool, Option<Failure>> {
        let limits = &live.prepared.request;
        let mut armed = false;
        loop {
            let started = match parse_head(work, limits) {
                Ok(Parsed::Complete { len }) => {
                    work.inbound.hold(len);
                    return Ok(armed);
                }
                Ok(Parsed::Partial { started }) => {
                    cold_path();
                    started
                }
                Err(error) => return Err(Some(Failure::RequestHead(error))),
            };
            if !armed {
                armed = true;
                self.admission.enter(Phase::Reading);
                if self.facts.had_request() {
                    self.deadline.set_after(live.snapshot.settings().header_timeout);
                } else {
                    self.deadline.set(self.head_due);
                }
            }
            // The parser refuses a head that exceeds its limit.
            let more = limits.total.saturating_sub(work.inbound.used());
            self.facts.shard.store.make_room(&mut work.inbound, Some(more as u64), LARGE);
            let read = poll_fn(|cx| match work.inbound.poll_fill(&mut self.stream, cx) {
                Poll::Pending if self.deadline.expired() => Poll::Ready(Err(Some(Failure::HeadTimeout))),
                Poll::Pending if self.admission.is_called() => Poll::Ready(Err(None)),
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
                Poll::Ready(_) => Poll::Ready(Err(Some(Failure::ClientGone))),
            })
            .await;
            if let Err(failure) = read {
                work.head.clear();
                return Err(failure.filter(|_| started));
            }
        }
    }

    /// Whether the client has sent more than was read or served. In that case, closing at once would reset the connection.
    async fn has_unread(&mut self, work: &mut Work) -> bool {
        if !work.inbound.is_empty() {
            return true;
        }
        work.inbound.clear();
        poll_fn(|cx| {
            let read = work.inbound.poll_fill(&mut self.stream, cx);
            Poll::Ready(matches!(read, Poll::Ready(Ok(1..))))
        })
        .await
    }

    /// Closes cleanly: over TLS the client gets `close_notify`, so that it can tell the end from truncation by an attacker.
    async fn finish(&mut self) {
        use crate::stream::WriteFrom;
        if matches!(self.stream, Downstream::Tls(_)) {
            self.deadline.set_after(LINGER_GAP);
            within(&self.deadline, poll_fn(|cx| self.stream.poll_finish(cx))).await;
        }
        self.deadline.set(NEVER);
    }
}

/// Passes a TLS connection to an endpoint until it ends.
async fn pass(facts: ConnectionFacts, admission: Admission, deadline: Deadline, passing: Leaving) {
    let Leaving { client, received, server_name, passthrough } = passing;
    let destination = facts.proxied().map_or(facts.arrival.local, |proxied| proxied.destination);
    let passed = Passed {
        client,
        ends: Ends { source: facts.arrival.peer, destination },
        listener: facts.listener.name(),
        server_name,
        hello: received,
        passthrough,
    };
    let shard = facts.shard.clone();
    drop(facts);
    l4::tcp::pass(shard, admission, deadline, passed).await;
}

/// Awaits something that the client must do before its next request; only briefly once the worker drains.
async fn hurried<F: Future>(shard: &Shard, admission: &Admission, deadline: &Deadline, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let polled = poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() && shard.is_draining() {
            deadline.bring_forward(FIRST_REQUEST_WHILE_DRAINING);
        }
        polled
    });
    while_admitted(admission, deadline, polled).await
}

/// Sizes of a connection's future: idle, and with a request in progress.
#[cfg(test)]
pub(crate) fn future_sizes() -> (usize, usize) {
    fn size_of_output<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }
    let idle = size_of_output(serve) + size_of::<ClientConnection>();
    (idle, idle + runner::runner_size())
}
