//! What all requests on a client's connection have in common.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairway_model::client::Arrival;

use super::side::FamilyFields;
use crate::limit::CLIENT_TRUSTED;
use crate::live::Live;
use crate::net::client_certificate::Asked;
use crate::net::listener::OpenListener;
use crate::net::proxy_protocol::Ends;
use crate::record::Proxied;
use crate::shard::Shard;
use crate::timer::Millis;
use crate::work::{LARGE, RESPONSE};

/// A connection as its exchanges see it. Any number of exchanges can share it.
#[derive(Debug)]
pub(crate) struct ConnectionFacts {
    /// The worker that serves it.
    pub(crate) shard: Rc<Shard>,
    /// The listener that accepted it.
    pub(crate) listener: Rc<OpenListener>,
    /// Both of its ends.
    pub(crate) arrival: Arrival,
    /// The client's answer, if it was asked for a certificate.
    pub(crate) asked: Option<Box<Asked>>,
    /// The listener that matches the server name in its ClientHello; empty if none does, `None` if there was no name.
    pub(crate) chosen: Option<Arc<str>>,
    /// Its number, unique in the process.
    pub(crate) number: u64,
    /// The fields about the client that every request to an endpoint carries, once known.
    pub(super) family: FamilyFields,
    /// What its PROXY header said; boxed because most connections have none.
    proxied: Option<Box<Proxied>>,
    requests: Cell<u64>,
    opened: Millis,
    /// Bytes that the client has taken since the proxy last had to wait for it.
    smooth: Cell<u32>,
}

impl ConnectionFacts {
    /// Creates the facts of a new connection.
    pub(crate) fn new(shard: Rc<Shard>, listener: Rc<OpenListener>, arrival: Arrival) -> Self {
        Self {
            arrival,
            asked: None,
            chosen: None,
            number: shard.next_number(),
            family: FamilyFields::default(),
            proxied: None,
            requests: Cell::new(0),
            opened: shard.timers.now(),
            smooth: Cell::new(0),
            shard,
            listener,
        }
    }

    /// Replaces the peer with the client that its PROXY header names.
    pub(crate) fn speak_for(&mut self, ends: Ends) {
        let Ends { source, destination } = ends;
        self.proxied = Some(Box::new(Proxied { by: self.arrival.peer, source, destination }));
        self.arrival.peer = source;
        // As in ingress-nginx, which looks for this number whatever ports it listens on.
        self.arrival.tls_ended_before = destination.port() == 443;
    }

    /// What its PROXY header said.
    pub(crate) fn proxied(&self) -> Option<&Proxied> {
        self.proxied.as_deref()
    }

    /// Address of the peer itself.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.proxied.as_ref().map_or(self.arrival.peer, |proxied| proxied.by)
    }

    /// Whether the connection may serve another request after this one.
    pub(crate) fn may_keep(&self, live: &Live) -> bool {
        let settings = live.snapshot.settings();
        settings.keep_alive.is_some()
            && self.requests.get() < settings.keep_alive_requests
            && Duration::from_millis(self.shard.timers.now().saturating_sub(self.opened)) < settings.keep_alive_time
            && !self.shard.is_leaving()
    }

    /// Counts a request and returns its number, from 1.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }

    /// Notes that the client has taken this many bytes at once.
    pub(super) fn note_smooth(&self, bytes: u64) {
        self.smooth.set(self.smooth.get().saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    /// Notes that the proxy has to wait for the client.
    pub(super) fn note_slow(&self) {
        self.smooth.set(0);
    }

    /// Size of the buffer for a response: large for a client that keeps up, so that it takes few reads and writes; small for one that may
    /// stop reading.
    pub(super) fn response_buffer(&self) -> usize {
        if self.smooth.get() >= CLIENT_TRUSTED { LARGE } else { RESPONSE }
    }

    /// Whether it has carried a request.
    pub(crate) fn had_request(&self) -> bool {
        self.requests.get() > 0
    }
}
