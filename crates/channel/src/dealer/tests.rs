use fairway_model::{CountedClient, LimitKind};
use proptest::prelude::*;

use super::*;

fn key(client: u32) -> LimitKey {
    LimitKey { scope: "shop/web".into(), client: CountedClient::V4(client.to_be_bytes()), kind: LimitKind::PerSecond }
}

/// A proxy that reports and confirms at once, and keeps to its lease.
#[derive(Default)]
struct Proxy {
    number: u64,
    /// When reports were sent.
    sent: HashMap<u64, Duration>,
    lease: Duration,
    applied: u64,
    shares: HashMap<LimitKey, LimitPart>,
}

impl Proxy {
    /// The part of a limit that it may use.
    fn in_force(&self, key: &LimitKey, even: LimitPart, at: Duration) -> LimitPart {
        self.shares.get(key).map_or(even, |share| if at < self.lease { *share } else { even.min(*share) })
    }

    fn take(&mut self, deal: ShareDeal) {
        self.applied = deal.number;
        let leased = self.sent.get(&deal.heard).map(|sent| *sent + LEASE);
        self.lease = self.lease.max(leased.unwrap_or_default());
        for (key, share) in deal.shares {
            match share {
                Some(share) => self.shares.insert(key, share),
                None => self.shares.remove(&key),
            };
        }
    }
}

struct Table {
    dealer: Dealer,
    proxies: Vec<Proxy>,
    at: Duration,
}

impl Table {
    fn new(replicas: u32, proxies: usize) -> Self {
        let mut dealer = Dealer::default();
        dealer.resize(NonZeroU32::new(replicas).unwrap());
        (0..proxies as u64).for_each(|id| dealer.join(id));
        let mut table =
            Self { dealer, proxies: (0..proxies).map(|_| Proxy::default()).collect(), at: Duration::from_secs(1) };
        table.take();
        table
    }

    fn take(&mut self) {
        for (id, proxy) in self.proxies.iter_mut().enumerate() {
            while let Some(deal) = self.dealer.deal(id as u64, self.at) {
                proxy.take(deal);
            }
        }
    }

    fn report(&mut self, id: usize, demands: Vec<Demand>) {
        let proxy = &mut self.proxies[id];
        proxy.number += 1;
        proxy.sent.insert(proxy.number, self.at);
        let report = DemandReport { number: proxy.number, applied: proxy.applied, demands, cut: false };
        self.dealer.report(id as u64, report, self.at);
    }

    /// All report what they could use of a limit, and apply their deals, a few times.
    fn rounds(&mut self, key: &LimitKey, wants: &[f64], count: usize) {
        for _ in 0..count {
            self.at += Duration::from_millis(200);
            for (id, want) in wants.iter().enumerate() {
                self.report(id, demand(key, *want, 0.0).into_iter().collect());
            }
            self.take();
        }
    }

    fn share(&self, id: usize, key: &LimitKey) -> f64 {
        self.proxies[id].shares.get(key).map_or(f64::NAN, |share| f64::from(share.get()) / 1e6)
    }
}

fn demand(key: &LimitKey, now: f64, held: f64) -> Option<Demand> {
    let [now, held] = [now, held].map(LimitPart::fraction);
    let span = Duration::from_secs(5);
    (now > LimitPart::default()).then(|| Demand { key: key.clone(), now, lately: now, held, span })
}

#[test]
fn the_proxies_of_one_controller_divide_what_they_have_together() {
    let mut table = Table::new(8, 2);
    table.rounds(&key(1), &[1.0, 0.0], 4);
    let (all, floor) = (table.share(0, &key(1)), table.share(1, &key(1)));
    // Other controllers have six more.
    assert!((0.24..=0.25 - floor).contains(&all) && floor > 0.003, "{all}, {floor}");
}

#[test]
fn one_proxy_alone_is_dealt_nothing() {
    let mut table = Table::new(4, 1);
    table.rounds(&key(1), &[1.0], 4);
    assert_eq!((table.dealer.limits(), table.proxies[0].applied), (0, 0));
    assert_eq!(table.dealer.deal(0, table.at), None);
}

#[test]
fn nothing_is_dealt_before_it_is_known_how_many_proxies_there_are() {
    let mut table = Table::new(4, 0);
    table.dealer = Dealer::default();
    for id in 0..2 {
        table.dealer.join(id);
        table.proxies.push(Proxy::default());
    }
    table.rounds(&key(1), &[1.0, 0.0], 4);
    assert!(table.dealer.limits() == 0 && table.proxies.iter().all(|proxy| proxy.applied == 0));
    table.dealer.resize(NonZeroU32::new(4).unwrap());
    table.rounds(&key(1), &[1.0, 0.0], 4);
    let share = table.share(0, &key(1));
    assert!((0.47..=0.5).contains(&share), "{share}");
}

#[test]
fn what_a_report_has_no_room_for_stays_as_it_was() {
    let (mut table, limit) = (Table::new(2, 2), key(1));
    table.rounds(&limit, &[1.0, 1.0], 4);
    for _ in 0..10 {
        table.at += Duration::from_millis(200);
        table.report(0, demand(&limit, 1.0, 0.0).into_iter().collect());
        let proxy = &mut table.proxies[1];
        proxy.number += 1;
        let (number, applied) = (proxy.number, proxy.applied);
        let demands = demand(&key(2), 1.0, 0.0).into_iter().collect();
        table.dealer.report(1, DemandReport { number, applied, demands, cut: true }, table.at);
        table.take();
    }
    let shares = [0, 1].map(|id| table.share(id, &limit));
    assert!(shares.iter().all(|share| (0.49..=0.5).contains(share) || share.is_nan()), "{shares:?}");
}

#[test]
fn requests_in_progress_that_outlive_a_connection_count_at_the_next_one() {
    let limit = LimitKey { kind: LimitKind::InProgress, ..key(1) };
    let mut table = Table::new(4, 4);
    let mut round = |demands: [f64; 4], used: f64| {
        table.at += Duration::from_millis(200);
        for (id, now) in demands.into_iter().enumerate() {
            table.report(id, demand(&limit, now, if id == 0 { used } else { 0.0 }).into_iter().collect());
        }
        table.take();
        table.share(1, &limit)
    };
    let shares: Vec<_> = (0..5).map(|_| round([0.9, 1.0, 0.0, 0.0], 0.9)).collect();
    // Of the even shares of the others, only what they free is dealt.
    assert!(shares.iter().all(|share| share.is_nan() || *share <= 0.25), "{shares:?}");
    let after = (0..4).map(|_| round([0.1, 1.0, 0.0, 0.0], 0.1)).last().unwrap();
    assert!(after > 0.8, "{after}");
}

#[test]
fn proxies_that_come_and_go_leave_nothing_behind() {
    let mut dealer = Dealer::default();
    dealer.resize(NonZeroU32::MIN);
    for id in 0..100 {
        dealer.join(id);
        dealer.leave(id, Duration::ZERO);
    }
    assert!(dealer.proxies.is_empty());
    (0..3 * PROXIES as u64).for_each(|id| dealer.join(id));
    assert_eq!(dealer.proxies.len(), 2 * PROXIES);
}

#[test]
fn where_nobody_counts_the_proxies_those_that_are_connected_share() {
    let mut table = Table::new(1, 4);
    table.rounds(&key(1), &[1.0; 4], 4);
    let shares = [0, 1, 2, 3].map(|id| table.share(id, &key(1)));
    assert!(shares.iter().all(|share| (0.24..=0.25).contains(share)), "{shares:?}");
    // A proxy that falls silent takes no more than its part with it.
    for _ in 0..10 {
        table.at += Duration::from_millis(200);
        (0..3).for_each(|id| table.report(id, demand(&key(1), 1.0, 0.0).into_iter().collect()));
        table.take();
    }
    let shares = [0, 1, 2].map(|id| table.share(id, &key(1)));
    assert!(shares.iter().all(|share| (0.24..=0.25).contains(share)), "{shares:?}");
}

#[test]
fn one_that_joins_has_its_share_of_what_was_dealt_before() {
    let mut table = Table::new(2, 2);
    table.rounds(&key(1), &[1.0, 0.0], 4);
    table.dealer.join(2);
    table.proxies.push(Proxy::default());
    table.dealer.resize(NonZeroU32::new(3).unwrap());
    table.rounds(&key(1), &[1.0, 0.0, 1.0], 4);
    let shares = [0, 1, 2].map(|id| table.share(id, &key(1)));
    assert!((shares[0] - shares[2]).abs() < 0.02 && shares.iter().sum::<f64>() <= 1.0, "{shares:?}");
}

#[test]
fn a_proxy_can_claim_no_more_than_a_fair_share_and_what_it_has() {
    let mut table = Table::new(3, 3);
    for _ in 0..10 {
        table.at += Duration::from_millis(200);
        table.report(0, demand(&key(1), 1.0, 0.0).into_iter().collect());
        // The use that it reports beyond what it was dealt doesn't count.
        table.report(1, demand(&key(1), 1.0, 1.0).into_iter().collect());
        table.report(2, Vec::new());
        table.take();
    }
    let share = table.share(0, &key(1));
    assert!(share > 0.48, "{share}");
    // A confirmation of a deal that was not sent frees nothing.
    table.proxies[1].applied = u64::MAX;
    (0..2).for_each(|_| table.report(1, Vec::new()));
    table.report(0, demand(&key(1), 1.0, 0.0).into_iter().collect());
    let deal = table.dealer.deal(0, table.at).expect("an answer");
    assert!(
        deal.shares.iter().all(|(_, share)| share.is_none_or(|share| share < LimitPart::fraction(0.55))),
        "{deal:?}"
    );
}

#[test]
fn limits_are_bounded_and_forgotten() {
    let mut table = Table::new(2, 2);
    for first in (0..DEALT as u32 + 2 * SHARES as u32).step_by(SHARES) {
        let all = (first..first + SHARES as u32 + 7).filter_map(|client| demand(&key(client), 1.0, 0.0)).collect();
        table.report(0, all);
        table.take();
    }
    assert_eq!(table.dealer.limits(), DEALT);
    assert!(table.proxies.iter().all(|proxy| proxy.shares.len() <= DEALT));
    for _ in 0..60 {
        table.at += Duration::from_millis(200);
        (0..2).for_each(|id| table.report(id, Vec::new()));
        table.take();
    }
    assert_eq!(table.dealer.limits(), 0);
    assert!(table.proxies.iter().all(|proxy| proxy.shares.is_empty()));
    let dealer = &table.dealer;
    assert!(dealer.dirty.is_empty() && dealer.proxies.values().all(|proxy| proxy.news.is_empty() && proxy.told == 0));
    // A proxy that has gone is forgotten as well.
    table.dealer.leave(1, table.at);
    table.at += 2 * AFTERLIFE;
    table.report(0, Vec::new());
    assert_eq!(table.dealer.proxies.len(), 1);
}

/// The second proxy's share in each round of 200 ms after the first of two, which has all of a limit, falls silent.
fn after_silence(limit: &LimitKey, used: f64, reports: bool) -> Vec<f64> {
    let mut table = Table::new(2, 2);
    for _ in 0..5 {
        table.at += Duration::from_millis(200);
        table.report(0, demand(limit, 1.0, used).into_iter().collect());
        table.report(1, Vec::new());
        table.take();
    }
    assert!(table.share(0, limit) > 0.9);
    let mut shares = Vec::new();
    for _ in 0..20 {
        table.at += Duration::from_millis(200);
        if reports {
            // It sends, and receives nothing.
            table.report(0, demand(limit, 1.0, used).into_iter().collect());
            while table.dealer.deal(0, table.at).is_some() {}
        }
        table.report(1, demand(limit, 1.0, 0.0).into_iter().collect());
        while let Some(deal) = table.dealer.deal(1, table.at) {
            table.proxies[1].take(deal);
        }
        shares.push(table.share(1, limit));
    }
    shares
}

#[test]
fn what_was_dealt_to_a_proxy_that_falls_silent_is_dealt_to_others_when_its_lease_has_ended() {
    for reports in [false, true] {
        let shares = after_silence(&key(1), 0.0, reports);
        assert!(shares[..5].iter().all(|share| *share < 0.1), "{reports}: {shares:?}");
        // The even share of the silent one stays its own.
        let soon = if reports { 12 } else { 6 };
        assert!(shares[soon..].iter().all(|share| (0.49..=0.5).contains(share)), "{reports}: {shares:?}");
    }
}

#[test]
fn what_a_proxy_that_falls_silent_has_in_progress_stays_its_own() {
    let limit = LimitKey { kind: LimitKind::InProgress, ..key(1) };
    let shares = after_silence(&limit, 0.8, false);
    assert!(shares[7..].iter().all(|share| (0.15..=0.2).contains(share)), "{shares:?}");
}

#[test]
fn only_those_who_have_news_are_woken() {
    let mut table = Table::new(50, 50);
    assert_eq!(table.dealer.woken().len(), 50, "shares are dealt");
    let mut wants = [0.0; 50];
    wants[0] = 1.0;
    table.rounds(&key(1), &wants, 4);
    assert_eq!(table.dealer.woken().len(), 50, "all have another share");
    table.rounds(&key(1), &wants, 4);
    assert!(table.dealer.woken().is_empty(), "nothing has changed");
}

#[test]
fn many_limits_are_divided_again_only_after_a_pause() {
    let mut table = Table::new(2, 2);
    let all = |count| -> Vec<_> { (0..count).filter_map(|client| demand(&key(client), 1.0, 0.0)).collect() };
    // Two proxies have as many shares of half as many limits.
    let many = MANY as u32 / 2 + 1;
    let waits = |table: &mut Table, pause, count| {
        table.at += pause;
        table.report(1, all(count));
        !table.dealer.dirty.is_empty()
    };
    table.report(0, all(many));
    let millisecond = Duration::from_millis(1);
    assert!(waits(&mut table, millisecond, many));
    assert!(!waits(&mut table, REST, many));
    // A few don't wait.
    table = Table::new(2, 2);
    assert!(!waits(&mut table, millisecond, 9) && !waits(&mut table, millisecond, 9));
}

proptest! {
    /// Holds whatever proxies ask for, in whatever order they receive and confirm.
    #[test]
    fn what_proxies_may_use_is_never_more_than_all(
        steps in proptest::collection::vec((0_usize..4, 0_u32..=10, any::<bool>(), 0_u64..700), 1..120),
    ) {
        let (mut table, limit) = (Table::new(4, 4), key(1));
        for (id, want, hears, pause) in steps {
            table.at += Duration::from_millis(pause);
            table.report(id, demand(&limit, f64::from(want) / 10.0, 0.0).into_iter().collect());
            if hears && let Some(deal) = table.dealer.deal(id as u64, table.at) {
                table.proxies[id].take(deal);
            }
            let even = LimitPart::even(NonZeroU32::new(4).unwrap());
            let sum: u32 = table.proxies.iter().map(|proxy| proxy.in_force(&limit, even, table.at).get()).sum();
            prop_assert!(sum <= LimitPart::WHOLE.get(), "{sum}");
        }
    }
}
