//! How a try gets its connection: an idle one, a place on a shared one, or a new one that the client waits for.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use fairway_model::Forward;
use fairway_model::decision::Forwarding;

use super::super::Exchange;
use super::super::tries::Attempt;
use super::Connected;
use crate::error::{Errno, Failure, Side};
use crate::http2::{self, NewConnection, StreamChoice, StreamPlace};
use crate::shard::connect::{self, ConnectError};
use crate::stream::Upstream;
use crate::upstream::{Service, Target, UpstreamConnection, Way};

impl Exchange<'_> {
    /// Takes an idle HTTP/1 connection, if there is one.
    pub(in super::super) fn take_idle(&self, target: &Target, attempt: &mut Attempt) -> Option<Connected> {
        // A request that must not be sent twice needs a connection that is certainly open.
        let certain = !self.is_idempotent();
        let up = self.facts.shard.upstreams.take(target, certain)?;
        self.note_kept(attempt);
        Some(Connected::Http1(up))
    }

    /// A connection to the target. `fresh` requires a new one.
    ///
    /// # Errors
    /// If none could be opened, or the client has gone meanwhile.
    pub(in super::super) async fn reach(
        &mut self,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        attempt: &mut Attempt,
        target: Target,
        fresh: bool,
    ) -> Result<Connected, Failure> {
        if !way.is_exclusive() {
            return self.place(forwarding, service, way, attempt, target, fresh).await.map(Connected::Http2);
        }
        let stream = self.connect(forwarding.rule, service, way, target.address).await;
        let stream = self.count_connect(stream)?;
        attempt.note_connected();
        let opened = self.facts.shard.timers.now();
        Ok(Connected::Http1(Box::new(UpstreamConnection { stream, target, opened, requests: 0 })))
    }

    fn note_kept(&self, attempt: &mut Attempt) {
        attempt.note_kept();
        self.facts.shard.metrics.borrow_mut().upstream.reused += 1;
    }

    fn count_connect(&self, connected: Result<Upstream, Failure>) -> Result<Upstream, Failure> {
        let counts = &mut self.facts.shard.metrics.borrow_mut().upstream;
        let asked = |failure: &Failure| *failure != Failure::NoFile;
        let connected = connected.inspect_err(|failure| counts.failed += u64::from(asked(failure)))?;
        counts.connected += 1;
        Ok(connected)
    }

    /// A place on an existing or new HTTP/2 connection.
    async fn place(
        &mut self,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        attempt: &mut Attempt,
        target: Target,
        fresh: bool,
    ) -> Result<StreamPlace, Failure> {
        let (facts, limits) = (self.facts, self.live.prepared.pool);
        let (shard, timeout) = (&facts.shard, forwarding.rule.policy.connect_timeout);
        let end = shard.timers.after(timeout);
        let mut waited = false;
        loop {
            let opening = match shard.http2.place(&target, shard.timers.now(), fresh, &limits) {
                StreamChoice::Stream(place) => {
                    if waited {
                        attempt.note_connected();
                    } else {
                        self.note_kept(attempt);
                    }
                    return Ok(place);
                }
                StreamChoice::Wait(opening) => opening,
                StreamChoice::Open(duty) => {
                    let opening = duty.wait();
                    let stream = self.connect(forwarding.rule, service, way, target.address).await;
                    match self.count_connect(stream) {
                        Ok(stream) => {
                            let new = NewConnection { target, stream, timeout, limits };
                            http2::start(new, duty, shard.timers.clone(), shard.blocks.clone());
                        }
                        // Requests that wait for the same connection must not fail because this client left.
                        Err(failure) if failure.side() == Side::Downstream || failure == Failure::Shutdown => {
                            return Err(failure);
                        }
                        Err(failure) => {
                            duty.fail(failure);
                            return Err(failure);
                        }
                    }
                    opening
                }
            };
            waited = true;
            let (deadline, client) = (self.deadline, &mut self.client);
            deadline.set(end);
            let made = poll_fn(|cx| match opening.poll(cx) {
                Poll::Ready(Err(Some(failure))) => Poll::Ready(Err(failure)),
                Poll::Ready(Ok(connection)) => Poll::Ready(Ok(Some(connection))),
                Poll::Ready(Err(None)) => Poll::Ready(Ok(None)),
                Poll::Pending if shard.is_stopping() => Poll::Ready(Err(Failure::Shutdown)),
                Poll::Pending if shard.timers.now() >= end => Poll::Ready(Err(Failure::ConnectTimeout)),
                Poll::Pending => client.poll_gone(cx, &shard.timers).map(Err),
            })
            .await?;
            if let Some(place) = made.and_then(|connection| shard.http2.take(&connection, shard.timers.now())) {
                attempt.note_connected();
                return Ok(place);
            }
            if shard.timers.now() >= end {
                return Err(Failure::ConnectTimeout);
            }
        }
    }

    /// Opens a new connection while the client waits.
    async fn connect(
        &mut self,
        forward: &Forward,
        service: &Service,
        way: &Way,
        endpoint: SocketAddr,
    ) -> Result<Upstream, Failure> {
        let (shard, deadline, client) = (&self.facts.shard, self.deadline, &mut self.client);
        // Boxed: few tries need it, and it would otherwise take room in every try that looks for a place.
        let timeout = forward.policy.connect_timeout;
        let mut opening = Box::pin(connect::open_way(shard, deadline, service, way, endpoint, timeout));
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Ok(opened)),
            Poll::Pending if shard.is_stopping() => Poll::Ready(Err(Failure::Shutdown)),
            Poll::Pending => client.poll_gone(cx, &shard.timers).map(Err),
        });
        opened.await?.map_err(|error| match error {
            ConnectError::Refused(error) => Failure::Connect(Errno::from(&error)),
            ConnectError::Gone => Failure::EndpointGone,
            ConnectError::TimedOut => Failure::ConnectTimeout,
            ConnectError::Handshake(fault) => Failure::Handshake(fault),
            ConnectError::NoFile => Failure::NoFile,
        })
    }
}
