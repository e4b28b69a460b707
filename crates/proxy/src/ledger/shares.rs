//! The shares of limits that a controller deals, and the reports by which it knows what to deal.
//!
//! Invariant: what is not confirmed in time lapses. A share above the even one is in force for [`LEASE`] after the report was sent that the
//! controller had read last when it dealt; one below it for [`LOW`] after the last word of the controller, which by then has taken back
//! what it had dealt others of this.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_model::{
    Delta, Demand, DemandReport, Filter, Host, LEASE, LimitKey, LimitKind, LimitPart, Resource, ShareDeal, Snapshot,
};
use tokio::sync::Notify;

use super::watch::{Lease, Watch};
use super::{ClientLedger, LedgerPart, nanoseconds};
use crate::limit::{DEALT_SHARES, REPORTED_DEMANDS};

/// How long a share below the even one is in force without another word of the controller.
// No limit: what keeps the sum of all shares.
const LOW: u64 = 4_000_000_000;

/// Reports of which the time of sending is known.
// No limit: more than are sent in the time of a share.
const SENT: usize = 256;

/// Scopes of which it is known that their limit of requests in progress has changed. Those that are forgotten count by the limit of the client's
/// last request.
// No limit: what is exact.
const CHANGED_SCOPES: usize = 1024;

/// What a ledger knows about the controller.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Whether a controller deals.
    on: AtomicBool,
    high: AtomicU64,
    low: AtomicU64,
    since: AtomicU64,
    watched: AtomicUsize,
    woken: Notify,
    talk: Mutex<Talk>,
}

#[derive(Debug, Default)]
struct Talk {
    number: u64,
    applied: u64,
    /// When reports were sent.
    sent: VecDeque<(u64, u64)>,
    /// Limits with a share that is dealt.
    dealt: usize,
    /// The limits of requests in progress that have changed.
    changed: HashMap<Arc<str>, NonZeroU32>,
    /// Whether a deal had more limits than are kept, so that no further one may confirm it.
    refuses: bool,
}

/// Limits of requests in progress that have changed, by scope.
#[derive(Debug, Default)]
pub(crate) struct ChangedLimits {
    changed: HashMap<Arc<str>, NonZeroU32>,
    /// Those of which a host had none before. Whoever has such a scope counts by another limit only if it has changed before it went.
    new: HashMap<Arc<str>, NonZeroU32>,
}

impl Sharing {
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub(super) fn lease(&self) -> Lease {
        let [high, low, since] = [&self.high, &self.low, &self.since].map(|time| time.load(Ordering::Relaxed));
        Lease { high, low, since }
    }

    /// Notes that one more client is watched.
    pub(super) fn watching(&self) {
        if self.watched.fetch_add(1, Ordering::Relaxed) == 0 {
            self.woken.notify_one();
        }
    }

    fn talk(&self) -> MutexGuard<'_, Talk> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientLedger {
    /// Whether there are clients to report about, every [`REPORT_PAUSE`](crate::limit::REPORT_PAUSE).
    pub fn is_watching(&self) -> bool {
        self.sharing.watched.load(Ordering::Relaxed) > 0
    }

    /// Resolves when there are.
    pub async fn watching(&self) {
        while !self.is_watching() {
            self.sharing.woken.notified().await;
        }
    }

    /// What to tell the controller, if anything. It `confirms` a deal in any case.
    pub fn report(&self, at: Duration, confirms: bool) -> Option<DemandReport> {
        let now = nanoseconds(at);
        let mut talk = self.sharing.talk();
        let (mut demands, mut dealt) = (Vec::new(), 0);
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let LedgerPart { accounts, watched } = &mut *part;
            watched.retain(|key| {
                let Some(account) = accounts.get_mut(key) else { return false };
                let open = account.open;
                let Some(watch) = &mut account.watch else { return false };
                let stays = watch.tick(open, now, &mut demands);
                dealt += watch.dealt();
                if !stays {
                    account.watch = None;
                    self.sharing.watched.fetch_sub(1, Ordering::Relaxed);
                    if account.is_settled(now) {
                        accounts.remove(key);
                    }
                }
                stays
            });
        }
        talk.dealt = dealt;
        if !self.sharing.is_on() || (demands.is_empty() && dealt == 0 && !confirms) {
            return None;
        }
        let cut = demands.len() > REPORTED_DEMANDS;
        if cut {
            demands.sort_unstable_by_key(|Demand { now, held, .. }| std::cmp::Reverse((*held, *now)));
            demands.truncate(REPORTED_DEMANDS);
        }
        talk.number += 1;
        if talk.sent.len() >= SENT {
            talk.sent.pop_front();
        }
        let number = talk.number;
        talk.sent.push_back((number, now));
        Some(DemandReport { number, applied: talk.applied, demands, cut })
    }

    /// Takes what the controller deals. Whether it waits for a report, by which it knows that the deal is in effect.
    pub fn deal(&self, deal: &ShareDeal, at: Duration) -> bool {
        let now = nanoseconds(at);
        let mut talk = self.sharing.talk();
        if talk.refuses {
            return false;
        }
        let leased = talk.sent.iter().find(|(number, _)| *number == deal.heard);
        let high = leased.map(|(_, sent)| sent.saturating_add(nanoseconds(LEASE))).filter(|high| now < *high);
        let mut lease = self.sharing.lease();
        if let Some(high) = high
            && lease.high <= now
        {
            self.each_watch(|watch| watch.lapse(lease, now));
            lease.high = high;
        }
        for (key, share) in &deal.shares {
            match share {
                Some(_) if talk.dealt >= DEALT_SHARES => {
                    talk.refuses = true;
                    self.orphan(now);
                    return false;
                }
                Some(part) => talk.dealt += usize::from(self.deal_one(key, *part, &talk.changed, (lease, now))),
                None => self.undeal_one(key, now),
            }
        }
        if let Some(high) = high {
            self.sharing.high.fetch_max(high, Ordering::Relaxed);
        }
        talk.sent.retain(|(number, _)| *number > deal.heard);
        if self.sharing.low.load(Ordering::Relaxed) <= now {
            self.sharing.since.store(now, Ordering::Relaxed);
        }
        self.sharing.low.store(now.saturating_add(LOW), Ordering::Relaxed);
        talk.applied = deal.number;
        self.sharing.on.store(true, Ordering::Relaxed);
        !deal.shares.is_empty()
    }

    /// Takes note of limits of requests in progress that have changed: what goes on is a part of the new limit at once, not only from the next
    /// request of the client on.
    pub(crate) fn follow(&self, changed: ChangedLimits) {
        let ChangedLimits { changed, new } = changed;
        if changed.is_empty() && new.is_empty() {
            return;
        }
        let mut talk = self.sharing.talk();
        self.each_watch(|watch| {
            watch.follow(&new);
            watch.follow(&changed);
        });
        for (scope, most) in new {
            if let Some(known) = talk.changed.get_mut(&scope) {
                *known = most;
            }
        }
        if talk.changed.len() + changed.len() > CHANGED_SCOPES {
            talk.changed.clear();
        }
        talk.changed.extend(changed.into_iter().take(CHANGED_SCOPES));
    }

    /// Notes that the controller is gone.
    pub fn controller_gone(&self, at: Duration) {
        let mut talk = self.sharing.talk();
        (talk.applied, talk.sent, talk.refuses) = (0, VecDeque::new(), false);
        self.orphan(nanoseconds(at));
    }

    fn orphan(&self, now: u64) {
        self.sharing.on.store(false, Ordering::Relaxed);
        let lease = self.sharing.lease();
        // What another controller deals is not leased by this one. The lease ends now and not at some time before: a share that lapsed
        // long ago would be free for as long.
        self.sharing.high.fetch_min(now, Ordering::Relaxed);
        self.each_watch(|watch| watch.orphan(lease, now));
    }

    fn each_watch(&self, mut act: impl FnMut(&mut Watch)) {
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let LedgerPart { accounts, watched } = &mut *part;
            for key in watched {
                if let Some(watch) = accounts.get_mut(key).and_then(|account| account.watch.as_mut()) {
                    act(watch);
                }
            }
        }
    }

    /// Whether there was no share before.
    fn deal_one(
        &self,
        key: &LimitKey,
        share: LimitPart,
        changed: &HashMap<Arc<str>, NonZeroU32>,
        (lease, now): (Lease, u64),
    ) -> bool {
        let id = self.key(&key.scope, key.client);
        let mut part = self.part(id);
        let LedgerPart { accounts, watched } = &mut *part;
        let account = accounts.entry(id).or_default();
        let watch = account.watch.get_or_insert_with(|| {
            watched.push(id);
            self.sharing.watching();
            Box::new(Watch::new(&key.scope, key.client, now))
        });
        let before = watch.dealt();
        let gauge = watch.gauge(key.kind);
        if let (LimitKind::InProgress, Some((most, replicas))) = (key.kind, account.bound) {
            gauge.bound(changed.get(&key.scope).copied().unwrap_or(most), replicas);
        }
        gauge.deal(share, lease, now);
        watch.dealt() > before
    }

    fn undeal_one(&self, key: &LimitKey, now: u64) {
        let id = self.key(&key.scope, key.client);
        let mut part = self.part(id);
        let Some(account) = part.accounts.get_mut(&id) else { return };
        let Some(watch) = &mut account.watch else { return };
        if watch.gauge(key.kind).undeal(now) {
            match key.kind {
                LimitKind::PerSecond => account.second = 0,
                LimitKind::PerMinute => account.minute = 0,
                LimitKind::InProgress => {}
            }
        }
    }
}

impl ChangedLimits {
    /// Those that a change sets anew.
    pub(crate) fn of(delta: &Delta, before: &Snapshot) -> Self {
        let mut found = Self::default();
        for resource in &delta.upserts {
            let Resource::Host(host) = resource else { continue };
            let now = limits_in_progress(host);
            if now.is_empty() {
                continue;
            }
            let before = resource.name().and_then(|name| before.resource(&name));
            let before = match &before {
                Some(Resource::Host(before)) => limits_in_progress(before),
                _ => HashMap::new(),
            };
            for (scope, most) in now {
                match before.get(scope) {
                    Some(before) if *before == most => {}
                    Some(_) => _ = found.changed.insert(scope.into(), most),
                    None => _ = found.new.insert(scope.into(), most),
                }
            }
        }
        found
    }
}

/// The limits of requests in progress on the routes of a host, by scope.
fn limits_in_progress(host: &Host) -> HashMap<&str, NonZeroU32> {
    let filters = host.tiers().flat_map(Host::routes).flat_map(|route| &route.filters);
    let limits = filters.filter_map(|filter| match filter {
        Filter::ClientLimits(limits) => Some((&*limits.scope, limits.in_progress?)),
        _ => None,
    });
    limits.collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use fairway_model::{ClientLimits, NetworkSet, RequestRate, Respond};

    use super::*;
    use crate::limit::WATCHED_CLIENTS;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> ClientLimits {
        ClientLimits {
            scope: "shop/web".into(),
            per_second: Some(RequestRate { requests: NonZeroU32::MIN, period: SECOND, burst: 0 }),
            per_minute: None,
            in_progress: None,
            exempt: NetworkSet::default(),
            over_rate: Respond::page(503),
            over_requests: Respond::page(503),
        }
    }

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn key(number: u32) -> LimitKey {
        LimitKey { scope: "shop/web".into(), client: client(number).into(), kind: LimitKind::PerSecond }
    }

    /// Two requests of a client, the second of which is refused.
    fn exceed(ledger: &Arc<ClientLedger>, number: u32, at: Duration) {
        let enter = || ledger.enter(&limits(), client(number), NonZeroU32::MIN, at).is_ok();
        assert_eq!([enter(), enter()], [true, false]);
    }

    fn deal(number: u64, shares: impl IntoIterator<Item = LimitKey>) -> ShareDeal {
        let share = Some(LimitPart::fraction(0.01));
        ShareDeal { number, heard: 0, shares: shares.into_iter().map(|key| (key, share)).collect() }
    }

    #[test]
    fn without_a_controller_that_deals_nobody_is_watched() {
        let ledger = Arc::<ClientLedger>::default();
        exceed(&ledger, 1, SECOND);
        assert!(!ledger.is_watching() && ledger.report(2 * SECOND, true).is_none());
        assert!(!ledger.deal(&deal(1, []), 2 * SECOND));
        exceed(&ledger, 1, 3 * SECOND);
        let report = ledger.report(3 * SECOND + SECOND / 5, false).unwrap();
        assert_eq!((report.applied, &report.demands[0].key), (1, &key(1)));
        // And no more when it is gone.
        ledger.controller_gone(4 * SECOND);
        assert!((0..60).all(|fifth| ledger.report(4 * SECOND + fifth * SECOND / 5, true).is_none()));
        assert!(!ledger.is_watching());
    }

    #[test]
    fn those_who_are_watched_and_reported_are_bounded_and_forgotten() {
        let ledger = Arc::<ClientLedger>::default();
        ledger.deal(&deal(1, []), SECOND);
        (0..2 * WATCHED_CLIENTS as u32).for_each(|number| exceed(&ledger, number, SECOND));
        let watched = ledger.sharing.watched.load(Ordering::Relaxed);
        assert!(watched > WATCHED_CLIENTS / 2 && watched <= WATCHED_CLIENTS, "{watched}");
        let report = ledger.report(SECOND + SECOND / 5, false).unwrap();
        assert_eq!((report.demands.len(), report.cut), (REPORTED_DEMANDS, true));
        for fifth in 1..=60 {
            ledger.report(2 * SECOND + fifth * SECOND / 5, false);
        }
        assert!(!ledger.is_watching());
        let accounts: usize = ledger.parts.iter().map(|part| part.lock().unwrap().accounts.len()).sum();
        assert_eq!(accounts, 2 * WATCHED_CLIENTS - watched, "nothing of them stays");
    }

    #[test]
    fn a_deal_of_more_than_is_kept_is_never_confirmed_and_nothing_of_it_stays() {
        let ledger = Arc::<ClientLedger>::default();
        assert!(ledger.deal(&deal(1, (0..DEALT_SHARES as u32).map(key)), SECOND));
        assert_eq!(ledger.report(SECOND, true).unwrap().applied, 1);
        assert!(!ledger.deal(&deal(2, [key(DEALT_SHARES as u32)]), SECOND));
        assert!(!ledger.deal(&deal(3, []), SECOND));
        assert!(ledger.report(2 * SECOND, true).is_none());
        ledger.report(6 * SECOND, false);
        ledger.report(6 * SECOND + super::super::watch::LONGEST_SPAN, false);
        assert!(!ledger.is_watching());
        // Another controller may deal again.
        ledger.controller_gone(7 * SECOND);
        assert!(ledger.deal(&deal(1, [key(1)]), 8 * SECOND));
    }

    #[test]
    fn requests_in_progress_are_a_part_of_a_limit_that_is_lowered_at_once() {
        let in_progress = |most| ClientLimits { per_second: None, in_progress: NonZeroU32::new(most), ..limits() };
        let replicas = NonZeroU32::new(4).unwrap();
        let scope = |most| ChangedLimits {
            changed: [("shop/web".into(), NonZeroU32::new(most).unwrap())].into(),
            ..ChangedLimits::default()
        };
        let ledger = Arc::<ClientLedger>::default();
        ledger.deal(&deal(1, []), SECOND);
        let open = |number, count| -> Vec<_> {
            (0..count).map(|_| ledger.enter(&in_progress(40), client(number), replicas, SECOND).unwrap()).collect()
        };
        // One of them is close to the limit, and the other one only once the limit is lowered.
        let _open = (open(1, 10), open(2, 4));
        ledger.follow(scope(8));
        let key = |number| LimitKey { kind: LimitKind::InProgress, ..key(number) };
        ledger.deal(&deal(2, [key(2)]), SECOND);
        let report = ledger.report(SECOND + SECOND / 5, false).unwrap();
        let held = |number| {
            let demand = report.demands.iter().find(|demand| demand.key == key(number)).expect("a demand");
            demand.held
        };
        assert_eq!(held(1), LimitPart::WHOLE);
        assert!(held(2) >= LimitPart::fraction(0.5), "{:?}", held(2));
    }

    #[test]
    fn a_limit_that_goes_and_comes_back_counts_as_it_is_now() {
        let limit = |most| ClientLimits { per_second: None, in_progress: NonZeroU32::new(most), ..limits() };
        let host = |most| {
            let filters = vec![Filter::ClientLimits(limit(most).into())];
            let origin = fairway_model::Origin::new("Ingress", "shop", "web");
            let path = fairway_model::PathMatch::prefix("/").unwrap();
            let action = fairway_model::Action::Respond(Respond::page(200));
            let route = fairway_model::Route { filters, ..fairway_model::Route::new(origin, path, action) };
            Resource::from(Host::new("t".into(), fairway_model::HostPattern::Any, vec![route]))
        };
        let ledger = Arc::<ClientLedger>::default();
        ledger.deal(&deal(1, []), SECOND);
        let replicas = NonZeroU32::new(4).unwrap();
        let _open: Vec<_> = (0..4).map(|_| ledger.enter(&limit(40), client(1), replicas, SECOND).unwrap()).collect();
        let mut snapshot = Snapshot::default();
        for delta in [
            Delta::upsert([host(40)]),
            Delta::upsert([host(8)]),
            Delta { removals: host(8).name().into_iter().collect(), ..Delta::default() },
            Delta::upsert([host(40)]),
        ] {
            ledger.follow(ChangedLimits::of(&delta, &snapshot));
            snapshot = snapshot.apply(delta);
        }
        let key = LimitKey { kind: LimitKind::InProgress, ..key(1) };
        ledger.deal(&deal(2, [key.clone()]), SECOND);
        let report = ledger.report(SECOND + SECOND / 5, false).unwrap();
        let demand = report.demands.iter().find(|demand| demand.key == key).expect("a demand");
        // Four of forty, and not of the eight that it was.
        assert!(demand.held < LimitPart::fraction(0.2), "{:?}", demand.held);
    }

    #[test]
    fn with_a_small_share_the_first_request_passes_and_after_its_end_the_even_rate_is_back() {
        let ledger = Arc::<ClientLedger>::default();
        ledger.deal(&deal(1, [key(1)]), SECOND);
        exceed(&ledger, 1, SECOND);
        let enter = |at| ledger.enter(&limits(), client(1), NonZeroU32::MIN, at).is_ok();
        assert!(!enter(4 * SECOND), "the share is one in a hundred seconds");
        // Four seconds after the last word of the controller it lapses.
        assert!(!enter(5 * SECOND + SECOND / 2));
        assert!(enter(6 * SECOND));
        assert!(!enter(6 * SECOND + SECOND / 2));
    }
}
