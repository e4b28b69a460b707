//! Measurements of a client that is close to a limit, and the shares of its limits that are dealt.
//!
//! Invariant: a change of a share creates no allowance: requests that may come at once after it could have come at once before it.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use fairway_model::{ClientLimits, CountedClient, Demand, Excess, LimitKey, LimitKind, LimitPart, RequestRate};

/// Shorter times say nothing about a rate.
// No limit: a measurement.
const SHORTEST: u64 = 50_000_000;

/// Recent demand is measured over this time, or that of eight requests at the limit.
// No limit: a measurement.
const LATELY: f64 = 1e9;

/// But over this time at most.
// No limit: a measurement.
const LATELY_MOST: f64 = 60e9;

/// Nanoseconds without a request after which a client is no longer watched.
// No limit: a measurement.
const QUIET: u64 = 1_000_000_000;

/// The same for one whose limits are no longer dealt, but were at its last request: after this time it has its whole burst. Limits whose
/// burst takes longer are not dealt.
// No limit: how long shares are remembered.
pub(super) const LONGEST_SPAN: Duration = Duration::from_secs(600);

/// Changes of a share that are remembered until the next request; further ones count as the least share of all.
// No limit: how many are exact.
const CHANGES: usize = 8;

/// The clocks by which shares lapse, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// Until when a share above the even one is in force.
    pub(super) high: u64,
    /// The same for one below it.
    pub(super) low: u64,
    /// Since when one below it is in force without a lapse.
    pub(super) since: u64,
}

/// A client that is close to a limit, here or at another proxy.
#[derive(Debug)]
pub(super) struct Watch {
    scope: Arc<str>,
    client: CountedClient,
    gauges: [Gauge; 3],
    ticked: u64,
    active: u64,
}

/// What is measured about one limit, and its share.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    measure: Option<Measure>,
    /// Requests since the last tick; of those in progress, the most at once.
    seen: u32,
    refused: u32,
    /// Fractions of the limit that were asked for in the last two ticks, and whether some of that was refused.
    recent: [(f64, bool); 2],
    lately: f64,
    dealt: Option<Dealt>,
    /// The share that the account goes by; `None` for the even one.
    basis: Option<LimitPart>,
    /// How it has changed since.
    changes: Vec<(u64, Option<LimitPart>)>,
}

/// The limit, as of the last request.
#[derive(Clone, Copy, Debug)]
struct Measure {
    limit: Whole,
    replicas: NonZeroU32,
}

#[derive(Clone, Copy, Debug)]
enum Whole {
    Rate(RequestRate),
    InProgress(NonZeroU32),
}

#[derive(Clone, Copy, Debug)]
struct Dealt {
    part: LimitPart,
    /// When it lapses, if not with the lease.
    until: Option<u64>,
}

pub(super) const KINDS: [LimitKind; 3] = [LimitKind::PerSecond, LimitKind::PerMinute, LimitKind::InProgress];

impl Watch {
    pub(super) fn new(scope: &str, client: CountedClient, now: u64) -> Self {
        Self { scope: scope.into(), client, gauges: Default::default(), ticked: now, active: now }
    }

    /// Begins with the request that showed that the client is close to a limit. `open` are those in progress with it.
    pub(super) fn begin(&mut self, limits: &ClientLimits, replicas: NonZeroU32, open: u32, excess: Option<Excess>) {
        let rates = [limits.per_second, limits.per_minute].map(|rate| rate.map(Whole::Rate));
        let wholes = rates.into_iter().chain([limits.in_progress.map(Whole::InProgress)]);
        for (limit, gauge) in wholes.zip(&mut self.gauges) {
            gauge.measure = limit.map(|limit| Measure { limit, replicas });
            let (seen, refused) = match limit {
                Some(Whole::Rate(_)) => (1, excess == Some(Excess::Rate)),
                Some(Whole::InProgress(_)) => (open, excess == Some(Excess::Requests)),
                None => (0, false),
            };
            (gauge.seen, gauge.refused) = (seen, refused.into());
        }
    }

    pub(super) fn gauge(&mut self, kind: LimitKind) -> &mut Gauge {
        &mut self.gauges[kind as usize]
    }

    /// Number of its limits that are dealt.
    pub(super) fn dealt(&self) -> usize {
        self.gauges.iter().filter(|gauge| gauge.dealt.is_some()).count()
    }

    /// Measures the demand since the last time, and adds it where dealing is worthwhile. `open` are the requests in progress. Returns
    /// whether to keep watching the client.
    pub(super) fn tick(&mut self, open: u32, now: u64, demands: &mut Vec<Demand>) -> bool {
        let elapsed = now.saturating_sub(self.ticked);
        if elapsed >= SHORTEST {
            self.ticked = now;
            for gauge in &mut self.gauges {
                if gauge.seen > 0 {
                    self.active = now;
                }
                gauge.tick(open, elapsed);
            }
        }
        let mut hot = false;
        for (kind, gauge) in KINDS.into_iter().zip(&mut self.gauges) {
            gauge.lapse(now);
            if let Some(demand) = gauge.demand(open) {
                hot = true;
                let key = LimitKey { scope: self.scope.clone(), client: self.client, kind };
                let (now, lately, held, span) = demand;
                demands.push(Demand { key, now, lately, held, span });
            }
        }
        let quiet = now.saturating_sub(self.active);
        let unsettled = self.gauges.iter().any(|gauge| !gauge.changes.is_empty());
        let patience = if unsettled { LONGEST_SPAN.as_nanos() as u64 } else { QUIET };
        hot || self.dealt() > 0 || quiet < patience
    }

    /// Counts requests in progress against the limits of scopes that have changed.
    pub(super) fn follow(&mut self, changed: &HashMap<Arc<str>, NonZeroU32>) {
        let Some(now) = changed.get(&self.scope) else { return };
        if let Some(measure) = &mut self.gauge(LimitKind::InProgress).measure {
            measure.limit = Whole::InProgress(*now);
        }
    }

    /// Notes that shares above the even one have lapsed, before they are leased anew.
    pub(super) fn lapse(&mut self, lease: Lease, now: u64) {
        for gauge in &mut self.gauges {
            if let Some(part) = gauge.lapse_above_even(lease, now) {
                gauge.change(Some(part), now);
            }
        }
    }

    /// Ends what was dealt: shares above the even one at once, those below it once the controller no longer counts on them.
    pub(super) fn orphan(&mut self, lease: Lease, now: u64) {
        for gauge in &mut self.gauges {
            gauge.lapse_above_even(lease, now);
            if gauge.above_even().is_some() {
                gauge.dealt = None;
                gauge.change(None, now);
            } else if let Some(dealt) = &mut gauge.dealt {
                dealt.until.get_or_insert(lease.low);
            }
        }
    }
}

impl Whole {
    /// The time in which a client that has used up the whole burst has all of it again.
    fn span(self) -> Duration {
        match self {
            Self::Rate(rate) => Duration::from_nanos(rate.interval().saturating_mul(u64::from(rate.burst) + 1)),
            Self::InProgress(_) => Duration::ZERO,
        }
    }
}

impl Gauge {
    /// Counts a request against a rate, and brings the account to the share that is in force.
    pub(super) fn rate(&mut self, rate: RequestRate, replicas: NonZeroU32, lease: Lease, now: u64, due: &mut u64) {
        self.measure = Some(Measure { limit: Whole::Rate(rate), replicas });
        self.seen = self.seen.saturating_add(1);
        let of = |part: Option<LimitPart>| part.map_or_else(|| rate.shared(replicas), |part| rate.dealt(part));
        let current = self.in_force(replicas, lease, now);
        let mut last = 0;
        for (at, part) in self.changes.drain(..).chain([current]) {
            // A share that comes when its lease has ended was never in force.
            let at = at.max(last);
            last = at;
            if part != self.basis {
                *due = of(self.basis).reshared(of(part), *due, at);
                self.basis = part;
            }
        }
    }

    /// The requests in progress that are allowed.
    pub(super) fn most(&mut self, most: NonZeroU32, replicas: NonZeroU32, lease: Lease, open: u32, now: u64) -> u32 {
        self.measure = Some(Measure { limit: Whole::InProgress(most), replicas });
        self.seen = self.seen.max(open.saturating_add(1));
        self.changes.clear();
        let (_, current) = self.in_force(replicas, lease, now);
        current.map_or_else(|| most.get().div_ceil(replicas.get()), |part| part.of(most.get()))
    }

    /// The share that the account goes by.
    pub(super) fn basis(&self) -> Option<LimitPart> {
        self.basis
    }

    pub(super) fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    /// The dealt share, unless it has lapsed, and since when it is in force, or no longer is.
    fn in_force(&self, replicas: NonZeroU32, lease: Lease, now: u64) -> (u64, Option<LimitPart>) {
        let Some(Dealt { part, until }) = self.dealt else { return (now, None) };
        let is_high = part > LimitPart::even(replicas);
        let until = until.unwrap_or(if is_high { lease.high } else { lease.low });
        match now < until {
            true if is_high => (now, Some(part)),
            true => (lease.since.min(now), Some(part)),
            false => (until, None),
        }
    }

    /// Sets what is known about requests in progress of a client that was not watched: what it has open counts from the first report on.
    pub(super) fn bound(&mut self, most: NonZeroU32, replicas: NonZeroU32) {
        self.measure.get_or_insert(Measure { limit: Whole::InProgress(most), replicas });
    }

    /// Deals a share. The lease is that of the share before it.
    pub(super) fn deal(&mut self, part: LimitPart, lease: Lease, now: u64) {
        self.lapse_above_even(lease, now);
        self.dealt = Some(Dealt { part, until: None });
        self.change(Some(part), now);
    }

    /// Returns to the even share, and tells whether the client has its whole burst, because it was quiet for as long as that takes.
    pub(super) fn undeal(&mut self, now: u64) -> bool {
        if self.dealt.take().is_none() {
            return false;
        }
        let forgets = self.measure.is_none_or(|Measure { limit, .. }| limit.span() <= LONGEST_SPAN);
        if forgets && self.seen == 0 && self.recent.iter().all(|(recent, _)| *recent == 0.0) {
            self.changes.clear();
            self.basis = None;
            return true;
        }
        self.change(None, now);
        false
    }

    /// The share, if it is above the even one.
    fn above_even(&self) -> Option<LimitPart> {
        let even = LimitPart::even(self.measure?.replicas);
        self.dealt.map(|dealt| dealt.part).filter(|part| *part > even)
    }

    /// Notes and returns a share above the even one that has lapsed: another proxy may have had it meanwhile.
    fn lapse_above_even(&mut self, lease: Lease, now: u64) -> Option<LimitPart> {
        let part = self.above_even().filter(|_| lease.high <= now)?;
        self.change(None, lease.high);
        Some(part)
    }

    fn lapse(&mut self, now: u64) {
        if let Some(Dealt { until: Some(until), .. }) = self.dealt
            && until <= now
        {
            self.dealt = None;
            self.change(None, until);
        }
    }

    fn change(&mut self, part: Option<LimitPart>, at: u64) {
        if self.changes.len() >= CHANGES {
            self.changes.truncate(CHANGES - 1);
            if let Some((_, part)) = self.changes.last_mut() {
                *part = Some(LimitPart::default());
            }
        }
        self.changes.push((at, part));
    }

    fn tick(&mut self, open: u32, elapsed: u64) {
        let Some(Measure { limit, .. }) = self.measure else { return };
        let (seen, refused) = (std::mem::take(&mut self.seen), std::mem::take(&mut self.refused));
        let (asked, lately) = match limit {
            Whole::Rate(rate) => {
                let interval = rate.interval() as f64;
                (f64::from(seen) * interval / elapsed as f64, (8.0 * interval).clamp(LATELY, LATELY_MOST))
            }
            Whole::InProgress(most) => {
                (f64::from(seen.max(open).saturating_add(refused)) / f64::from(most.get()), LATELY)
            }
        };
        self.recent = [(asked, refused > 0), self.recent[0]];
        self.lately += (asked - self.lately) * -(-(elapsed as f64) / lately).exp_m1();
    }

    /// The demand now and lately, the use, and the time to have the whole burst again; `None` if dealing is not worthwhile.
    fn demand(&self, open: u32) -> Option<(LimitPart, LimitPart, LimitPart, Duration)> {
        let Measure { limit, replicas } = self.measure?;
        let [(last, refused), (before, refused_before)] = self.recent;
        let now = last.max(before);
        let span = limit.span();
        if span > LONGEST_SPAN {
            // Use under a share would be forgotten before the burst has come back.
            return None;
        }
        let (held, level) = match limit {
            Whole::Rate(_) => (0.0, self.lately),
            Whole::InProgress(most) => (f64::from(open) / f64::from(most.get()), now),
        };
        let is_close = refused || refused_before || level * f64::from(replicas.get()) >= 0.5;
        let is_used = self.dealt.is_some() && (now > 0.0 || held > 0.0 || self.lately > 0.01);
        (is_close || is_used).then(|| {
            // What is in use is rounded up.
            let held = if held > 0.0 {
                LimitPart::fraction(held).plus(LimitPart::millionths(1))
            } else {
                LimitPart::default()
            };
            (LimitPart::fraction(now), LimitPart::fraction(self.lately), held, span)
        })
    }
}
