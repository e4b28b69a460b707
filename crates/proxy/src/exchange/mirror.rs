//! Sends copies of requests to other destinations (`mirror-target`, the `RequestMirror` of the Gateway API). Each copy has its own task, so
//! its fate does not affect the request.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Instant;

use fairway_model::decision::Forwarding;
use fairway_model::{Mirror, RequestBuffering};

use super::Exchange;
use super::side::write_request;
use super::tries::{OfExchange, Serves};
use crate::balance::Ask;
use crate::http::Framing;
use crate::limit::{DISCARDED_BODY, MIRROR_TIME, MIRRORED_BYTES, MIRRORED_BYTES_EACH, MIRRORS, MIRRORS_EACH};
use crate::message::UpstreamRequest;
use crate::shard::Shard;
use crate::shard::connect;
use crate::stream::{ReadInto, Upstream, WriteFrom};
use crate::timer::{Deadline, within};
use crate::upstream::{Service, Way};

/// Memory for reading an answer, which is dropped.
// No limit: it divides the work into steps.
const STEP: usize = 4 << 10;

/// Marks a copy, so that it is not copied again: a target that leads back here would otherwise get endless copies of copies.
const MARK: &[u8] = b"fairway-copy";

/// A place among the copies that a worker has in flight, and among those to one Service, so that a slow Service leaves room for the others.
#[derive(Debug)]
struct CopyPlace {
    shard: Rc<Shard>,
    service: Rc<Service>,
    bytes: usize,
}

impl CopyPlace {
    /// A place for a copy of this many bytes, if there is one.
    fn take(shard: &Rc<Shard>, service: &Rc<Service>, bytes: usize) -> Option<Self> {
        let room = shard.copies.get().admits(bytes, MIRRORS, MIRRORED_BYTES)
            && service.copies.get().admits(bytes, MIRRORS_EACH, MIRRORED_BYTES_EACH);
        room.then(|| {
            for copies in [&shard.copies, &service.copies] {
                copies.set(copies.get().with(bytes));
            }
            Self { shard: shard.clone(), service: service.clone(), bytes }
        })
    }
}

impl Drop for CopyPlace {
    fn drop(&mut self) {
        for copies in [&self.shard.copies, &self.service.copies] {
            copies.set(copies.get().without(self.bytes));
        }
    }
}

/// A copy in flight.
#[derive(Debug)]
struct RequestCopy {
    place: CopyPlace,
    head: Vec<u8>,
    body: Vec<u8>,
    way: Way,
    connect_timeout: std::time::Duration,
}

/// Which mirrors of a route get a copy of a request, one bit each. A rule of the Gateway API has at most 16 filters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MirrorSet(u16);

impl MirrorSet {
    pub(super) const NONE: Self = Self(0);

    fn has(self, at: usize) -> bool {
        1u16.checked_shl(at as u32).is_some_and(|bit| self.0 & bit != 0)
    }
}

impl Exchange<'_> {
    /// Chooses the mirrors that get a copy.
    pub(super) fn choose_copies(&self) -> MirrorSet {
        let mut chosen = MirrorSet::NONE;
        for (at, (mirror, _)) in self.plan.iter().flat_map(|plan| plan.mirroring()).enumerate() {
            if mirror.takes(|bound| self.facts.shard.rng.borrow_mut().below(bound)) {
                chosen.0 |= 1u16.checked_shl(at as u32).unwrap_or_default();
            }
        }
        chosen
    }

    /// How the body is read before the request is sent: whole if a copy includes it.
    pub(super) fn buffering_for(&self, copies: MirrorSet, own: RequestBuffering) -> RequestBuffering {
        if copies != MirrorSet::NONE && self.copied_to(copies).any(|(mirror, _)| mirror.body) {
            return RequestBuffering::All;
        }
        own
    }

    /// Sends the copies of the request, as far as there is room for them.
    pub(super) fn send(&self, copies: MirrorSet) {
        if copies == MirrorSet::NONE
            || self.client.head().is_some_and(|head| head.parsed.fields().named(MARK, head.bytes).next().is_some())
        {
            return;
        }
        for (mirror, forwarding) in self.copied_to(copies) {
            match self.copy(mirror, &forwarding) {
                Some(copy) => drop(tokio::task::spawn_local(send(copy))),
                None => self.facts.shard.metrics.borrow_mut().upstream.copies_dropped += 1,
            }
        }
    }

    fn copied_to(&self, copies: MirrorSet) -> impl Iterator<Item = (&Mirror, Forwarding<'_>)> {
        let all = self.plan.iter().flat_map(|plan| plan.mirroring()).enumerate();
        all.filter_map(move |(at, one)| copies.has(at).then_some(one))
    }

    fn copy(&self, mirror: &Mirror, forwarding: &Forwarding<'_>) -> Option<RequestCopy> {
        let (shard, live) = (&self.facts.shard, self.live);
        let has_body = mirror.body && !matches!(self.client.framing(), Framing::None | Framing::UntilClose);
        let held = if has_body { self.client.held_ahead() } else { 0 };
        let service = shard.upstreams.service(live, forwarding.backend, &shard.rng)?;
        let place = CopyPlace::take(shard, &service, held)?;
        let body = if has_body { self.client.whole_data()? } else { Vec::new() };
        let way = shard.upstreams.ways.for_own(live, forwarding, &service).ok()?;
        let mut target = Vec::new();
        if let Some(template) = &mirror.target {
            self.expand_template(Serves::Request, template, &mut target).ok()?;
        }
        let (received, plan) = (self.client.head()?, self.plan.as_ref()?);
        let mut head = Vec::new();
        let written = service.with_backend(|backend| {
            let scratch = &self.scratch.decision;
            let mut request = UpstreamRequest::new(live, received, plan, forwarding, backend, scratch);
            request.turn_into_copy(mirror.target.as_ref().map(|_| &target[..]), has_body.then_some(body.len() as u64));
            write_request(&request, &mut head, &mut OfExchange(self, Serves::Request))
        });
        written.ok()?;
        // Before the empty line.
        head.truncate(head.len().checked_sub(2)?);
        for part in [MARK, b": 1\r\n\r\n"] {
            head.extend_from_slice(part);
        }
        let connect_timeout = forwarding.rule.policy.connect_timeout;
        Some(RequestCopy { place, head, body, way, connect_timeout })
    }
}

/// Sends a copy, and drops the answer.
async fn send(copy: RequestCopy) {
    let sent = deliver(&copy).await.is_some();
    let counts = &mut copy.place.shard.metrics.borrow_mut().upstream;
    if sent {
        counts.copied += 1;
    } else {
        counts.copies_failed += 1;
    }
}

/// Sends a copy; `None` if no answer begins. The outcome does not count for the Service's health: a mirror may be slower and less reliable
/// than a backend that serves clients.
async fn deliver(copy: &RequestCopy) -> Option<()> {
    let RequestCopy { place: CopyPlace { shard, service, .. }, way, .. } = copy;
    let deadline = Deadline::of_task(shard.timers.clone()).await;
    let end = shard.timers.after(MIRROR_TIME);
    let ask = Ask { session: None, hash_key: &[], tried: &[], ejected: &[], unhealthy: &[], now: Instant::now() };
    let pick = service.pick_for_copy(&ask)?;
    let _counted = service.begin(&pick);
    let opened =
        connect::open_way(shard, &deadline, service, way, pick.endpoint, copy.connect_timeout.min(MIRROR_TIME)).await;
    deadline.set(end);
    let mut answered = false;
    // The copy counts as sent even if the rest of the answer is late.
    let _ = within(&deadline, converse(&mut opened.ok()?, copy, &mut answered)).await;
    answered.then_some(())
}

async fn converse(stream: &mut Upstream, copy: &RequestCopy, answered: &mut bool) -> io::Result<()> {
    for mut rest in [&copy.head[..], &copy.body[..]] {
        while !rest.is_empty() {
            let written = poll_fn(|cx| stream.poll_write_from(cx, &[IoSlice::new(rest)])).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[written..];
        }
    }
    poll_fn(|cx| stream.poll_flush_all(cx)).await?;
    let (mut room, mut dropped) = (vec![0; STEP], 0);
    loop {
        let read = poll_fn(|cx| stream.poll_read_into(cx, &mut room)).await?;
        *answered |= read > 0;
        dropped += read as u64;
        if read == 0 || dropped > DISCARDED_BODY {
            return Ok(());
        }
    }
}
