//! Client limits across four proxies and their controller, mostly with a simulated clock: the code that deals and counts is real, and the
//! test delays the messages between them. The last test uses real processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::support::run::{ConfigMap, Run, api_server_and};
use fairway_channel::Dealer;
use fairway_model::{ClientLimits, DemandReport, NetworkSet, RequestRate, Respond, ShareDeal};
use fairway_proxy::limit::REPORT_PAUSE;
use fairway_proxy::{ClientLedger, OpenRequest};
use fairway_testkit::{Client, Gate, Origin, Reply, Request, within};
use proptest::prelude::*;
use serde_json::json;

const STEP: Duration = Duration::from_millis(5);
const PROXIES: usize = 4;
const REPLICAS: NonZeroU32 = NonZeroU32::new(PROXIES as u32).unwrap();

fn client() -> IpAddr {
    [203, 0, 113, 9].into()
}

fn limits(per_second: u32, burst: u32, in_progress: u32) -> ClientLimits {
    let rate = |requests| {
        let requests = NonZeroU32::new(requests)?;
        Some(RequestRate { requests, period: Duration::from_secs(1), burst })
    };
    ClientLimits {
        scope: "shop/web".into(),
        per_second: rate(per_second),
        per_minute: None,
        in_progress: NonZeroU32::new(in_progress),
        exempt: NetworkSet::default(),
        over_rate: Respond::page(503),
        over_requests: Respond::page(503),
    }
}

fn per_minute(requests: u32, burst: u32) -> ClientLimits {
    let requests = NonZeroU32::new(requests).expect("a rate");
    let rate = RequestRate { requests, period: Duration::from_secs(60), burst };
    ClientLimits { per_minute: Some(rate), ..limits(0, 0, 0) }
}

/// A proxy and its connection.
#[derive(Default)]
struct Proxy {
    ledger: Arc<ClientLedger>,
    /// Its id at the controller, while connected.
    id: Option<u64>,
    reports: Vec<(Duration, u64, DemandReport)>,
    deals: Vec<(Duration, ShareDeal)>,
    ticked: Duration,
    /// Due requests, including a fraction.
    due: f64,
    open: Vec<OpenRequest>,
    /// Whether deals to this proxy are held up, and reports to the controller.
    cut: [bool; 2],
    /// Which of eight consecutive reports are lost.
    lost: u8,
}

struct Cluster {
    limits: ClientLimits,
    dealer: Dealer,
    proxies: Vec<Proxy>,
    next: u64,
    now: Duration,
    delay: Duration,
    /// Requests that each proxy let through, by second.
    admitted: BTreeMap<u64, [u32; PROXIES]>,
    times: Vec<Duration>,
}

impl Cluster {
    fn new(limits: ClientLimits, delay: Duration) -> Self {
        let mut cluster = Self {
            limits,
            dealer: Dealer::default(),
            proxies: (0..PROXIES).map(|_| Proxy::default()).collect(),
            next: 0,
            now: Duration::from_secs(1),
            delay,
            admitted: BTreeMap::new(),
            times: Vec::new(),
        };
        cluster.dealer.resize(REPLICAS);
        for (at, phase) in [0, 130, 50, 90].into_iter().enumerate() {
            cluster.proxies[at].ticked = cluster.now - Duration::from_millis(phase);
            cluster.connect(at);
        }
        cluster
    }

    fn connect(&mut self, at: usize) {
        let proxy = &mut self.proxies[at];
        assert_eq!(proxy.id.replace(self.next), None);
        self.dealer.join(self.next);
        self.next += 1;
        self.tell_all();
    }

    fn disconnect(&mut self, at: usize) {
        let proxy = &mut self.proxies[at];
        let Some(id) = proxy.id.take() else { return };
        self.dealer.leave(id, self.now);
        proxy.ledger.controller_gone(self.now);
        proxy.deals.clear();
        proxy.reports.clear();
    }

    /// Does the work of a proxy's session.
    fn tell(&mut self, id: u64) {
        while let Some(proxy) = self.proxies.iter_mut().find(|proxy| proxy.id == Some(id))
            && let Some(deal) = self.dealer.deal(id, self.now)
        {
            proxy.deals.push((self.now + self.delay, deal));
        }
    }

    fn tell_all(&mut self) {
        let ids: Vec<_> = self.proxies.iter().filter_map(|proxy| proxy.id).collect();
        ids.into_iter().for_each(|id| self.tell(id));
    }

    /// Delivers the messages that are due.
    fn exchange(&mut self) {
        for at in 0..PROXIES {
            let (now, delay) = (self.now, self.delay);
            let proxy = &mut self.proxies[at];
            let Some(id) = proxy.id else { continue };
            let mut confirms = Vec::new();
            if !proxy.cut[0] {
                while proxy.deals.first().is_some_and(|(when, _)| *when <= now) {
                    let (_, deal) = proxy.deals.remove(0);
                    if proxy.ledger.deal(&deal, now) {
                        confirms.push(true);
                    }
                }
            }
            if proxy.ticked + REPORT_PAUSE <= now && proxy.ledger.is_watching() {
                proxy.ticked = now;
                confirms.push(false);
            }
            for confirms in confirms {
                let report = proxy.ledger.report(now, confirms);
                let report = report.filter(|report| proxy.lost >> (report.number % 8) & 1 == 0);
                proxy.reports.extend(report.map(|report| (now + delay, id, report)));
            }
            let mut arrived = Vec::new();
            if !proxy.cut[1] {
                while proxy.reports.first().is_some_and(|(when, ..)| *when <= now) {
                    arrived.push(proxy.reports.remove(0));
                }
            }
            for (_, id, report) in arrived {
                self.dealer.report(id, report, now);
                self.tell(id);
                for id in self.dealer.woken() {
                    self.tell(id);
                }
            }
        }
    }

    /// Lets time pass while requests arrive at each proxy at these rates per second.
    fn run(&mut self, time: Duration, rates: [f64; PROXIES]) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.exchange();
            for (at, rate) in rates.into_iter().enumerate() {
                let proxy = &mut self.proxies[at];
                proxy.due += rate * STEP.as_secs_f64();
                while proxy.due >= 1.0 {
                    proxy.due -= 1.0;
                    if proxy.ledger.enter(&self.limits, client(), REPLICAS, self.now).is_ok() {
                        self.admitted.entry(self.now.as_secs()).or_default()[at] += 1;
                        self.times.push(self.now);
                    }
                }
            }
        }
    }

    fn seconds(&mut self, seconds: u64, rates: [f64; PROXIES]) {
        self.run(Duration::from_secs(seconds), rates);
    }

    /// The rate that each proxy let through over the last whole seconds.
    fn last(&self, seconds: u64) -> [f64; PROXIES] {
        let now = self.now.as_secs();
        let mut sums = [0.0; PROXIES];
        for counts in self.admitted.range(now - seconds..now).map(|(_, counts)| counts) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += f64::from(*count) / seconds as f64;
            }
        }
        sums
    }

    /// The most that all proxies let through in any period, beyond the limit's rate.
    fn excess(&self, rate: f64) -> f64 {
        let mut least = f64::INFINITY;
        let mut most = 0.0_f64;
        for (number, time) in self.times.iter().enumerate() {
            // The first request of a period counts too.
            least = least.min(number as f64 - rate * time.as_secs_f64());
            most = most.max(number as f64 + 1.0 - rate * time.as_secs_f64() - least);
        }
        most
    }
}

const DELAY: Duration = Duration::from_millis(10);

#[test]
fn a_client_at_one_proxy_has_the_whole_limit_within_a_second() {
    let mut cluster = Cluster::new(limits(100, 3, 0), DELAY);
    cluster.seconds(1, [300.0, 0.0, 0.0, 0.0]);
    let first = cluster.last(1)[0];
    cluster.seconds(5, [300.0, 0.0, 0.0, 0.0]);
    for second in 1..=5 {
        let admitted = cluster.last(second)[0];
        assert!((95.0..=101.0).contains(&admitted), "{admitted} of 100");
    }
    assert!(first > 70.0, "the even share lets 25 through, and {first} passed in the first second");
    assert!(cluster.excess(100.0) <= 4.0 + PROXIES as f64, "{}", cluster.excess(100.0));
}

#[test]
fn what_is_spread_unevenly_within_the_limit_is_not_refused() {
    let rates = [68.0, 19.0, 9.0, 0.0];
    let mut cluster = Cluster::new(limits(100, 50, 0), DELAY);
    cluster.seconds(12, rates);
    for (admitted, sent) in cluster.last(10).into_iter().zip(rates) {
        assert!((admitted - sent).abs() < 1.0, "{admitted} of {sent}");
    }
}

#[test]
fn what_is_spread_unevenly_over_the_limit_is_divided_fairly() {
    let mut cluster = Cluster::new(limits(100, 20, 0), DELAY);
    cluster.seconds(12, [140.0, 40.0, 20.0, 0.0]);
    let [a, b, c, _] = cluster.last(10);
    assert!((a - 39.0).abs() < 4.0 && (b - 39.0).abs() < 4.0 && (c - 20.0).abs() < 1.0, "{a}, {b}, {c}");
    assert!(a + b + c <= 100.5, "{}", a + b + c);
    assert!(cluster.excess(100.0) <= 21.0 + PROXIES as f64, "{}", cluster.excess(100.0));
}

#[test]
fn load_that_moves_takes_the_limit_with_it_within_a_second() {
    let mut cluster = Cluster::new(limits(100, 10, 0), DELAY);
    cluster.seconds(5, [200.0, 0.0, 0.0, 0.0]);
    for to in [1, 2, 3, 0] {
        let mut rates = [0.0; PROXIES];
        rates[to] = 200.0;
        cluster.seconds(1, rates);
        cluster.seconds(3, rates);
        for second in 1..=3 {
            let admitted = cluster.last(second)[to];
            assert!((95.0..=101.0).contains(&admitted), "{admitted} of 100 at proxy {to}");
        }
    }
    assert!(cluster.excess(100.0) <= 11.0 + PROXIES as f64, "{}", cluster.excess(100.0));
}

#[test]
fn a_low_limit_is_one_of_the_cluster_too() {
    let mut cluster = Cluster::new(per_minute(60, 4), DELAY);
    cluster.seconds(60, [0.0, 3.0, 0.0, 0.0]);
    let passed = cluster.last(50)[1];
    assert!((0.95..=1.0).contains(&passed), "{passed} in a second");
    assert!(cluster.excess(1.0) <= 5.0 + PROXIES as f64, "{}", cluster.excess(1.0));
}

#[test]
fn after_a_pause_all_shares_are_even_and_nothing_is_reported() {
    let mut cluster = Cluster::new(limits(100, 100, 0), DELAY);
    cluster.seconds(3, [200.0, 0.0, 0.0, 0.0]);
    assert_eq!(cluster.dealer.limits(), 1);
    cluster.seconds(8, [0.0; PROXIES]);
    assert_eq!(cluster.dealer.limits(), 0);
    assert!(cluster.proxies.iter().all(|proxy| !proxy.ledger.is_watching()));
    // Each proxy has the whole burst of its even share again, and no more.
    let mut passed = 0;
    for proxy in &cluster.proxies {
        while proxy.ledger.enter(&cluster.limits, client(), REPLICAS, cluster.now).is_ok() {
            passed += 1;
        }
    }
    assert_eq!(passed, 26 * PROXIES);
}

#[test]
fn a_client_far_below_its_limit_is_not_reported() {
    let mut cluster = Cluster::new(limits(100, 100, 0), DELAY);
    cluster.seconds(5, [9.0, 3.0, 10.0, 0.0]);
    assert!(cluster.proxies.iter().all(|proxy| !proxy.ledger.is_watching()));
}

impl Cluster {
    /// Begins a request that stays open at a proxy.
    fn open(&mut self, at: usize) -> bool {
        let entered = self.proxies[at].ledger.enter(&self.limits, client(), REPLICAS, self.now);
        let Ok(Some(open)) = entered else { return false };
        self.proxies[at].open.push(open);
        true
    }

    /// Tries to begin a request every 20 ms. Returns how many are open in the end.
    fn insist(&mut self, at: usize, time: Duration) -> usize {
        let end = self.now + time;
        while self.now < end {
            self.open(at);
            self.run(4 * STEP, [0.0; PROXIES]);
        }
        self.proxies[at].open.len()
    }
}

#[test]
fn requests_in_progress_at_one_proxy_have_the_whole_limit_and_move_with_the_client() {
    const SECOND: Duration = Duration::from_secs(1);
    let mut cluster = Cluster::new(limits(0, 0, 40), DELAY);
    let before = (0..60).filter(|_| cluster.open(0)).count();
    assert_eq!(before, 10, "the even share");
    assert_eq!(cluster.insist(0, 2 * SECOND), 40);
    // Open requests count: each other proxy lets only one through, so at most the limit plus one for each proxy are open.
    assert_eq!((1..PROXIES).map(|at| cluster.insist(at, 2 * SECOND)).collect::<Vec<_>>(), [1, 1, 1]);
    // A request that ends at one proxy makes room at another within a second.
    cluster.proxies[0].open.truncate(5);
    assert!(cluster.insist(1, 2 * SECOND) >= 30, "{}", cluster.proxies[1].open.len());
    let open: usize = cluster.proxies.iter().map(|proxy| proxy.open.len()).sum();
    assert!(open <= 40 + PROXIES, "{open}");
}

#[test]
fn requests_in_progress_count_where_the_client_is_not_close_to_the_limit() {
    let mut cluster = Cluster::new(limits(0, 0, 1000), DELAY);
    for at in 1..PROXIES {
        assert!((0..124).all(|_| cluster.open(at)));
    }
    cluster.seconds(3, [0.0; PROXIES]);
    for _ in 0..60 {
        (0..30).for_each(|_| {
            cluster.open(0);
        });
        cluster.run(10 * STEP, [0.0; PROXIES]);
    }
    let open: usize = cluster.proxies.iter().map(|proxy| proxy.open.len()).sum();
    assert!((950..=1000 + PROXIES).contains(&open), "{open}");
}

#[test]
fn a_burst_that_takes_long_to_come_back_stays_divided_evenly() {
    let mut cluster = Cluster::new(per_minute(60, 6000), DELAY);
    for _ in 0..2 {
        for _ in 0..40 {
            for at in 0..2 {
                for _ in 0..100 {
                    if cluster.proxies[at].ledger.enter(&cluster.limits, client(), REPLICAS, cluster.now).is_ok() {
                        cluster.times.push(cluster.now);
                    }
                }
            }
            cluster.run(20 * STEP, [0.0; PROXIES]);
        }
        assert_eq!(cluster.dealer.limits(), 0);
        cluster.seconds(610, [0.0; PROXIES]);
    }
    assert!(cluster.excess(1.0) <= 6001.0 + PROXIES as f64, "{}", cluster.excess(1.0));
}

#[test]
fn a_client_with_one_request_at_a_time_is_not_reported_however_low_the_limit_is() {
    let mut cluster = Cluster::new(limits(PROXIES as u32, 0, PROXIES as u32), DELAY);
    for _ in 0..20 {
        assert!(cluster.open(0));
        cluster.run(Duration::from_millis(400), [0.0; PROXIES]);
        assert!(!cluster.proxies[0].ledger.is_watching());
        cluster.proxies[0].open.clear();
        cluster.run(Duration::from_millis(700), [0.0; PROXIES]);
    }
    // A second request beside it is refused; after that the proxy has the whole limit.
    assert_eq!(cluster.insist(0, Duration::from_secs(4)), PROXIES);
}

#[test]
fn without_a_controller_shares_are_even_again_and_never_more_than_the_limit_on_the_way() {
    for silent in [false, true] {
        let mut cluster = Cluster::new(limits(100, 0, 0), DELAY);
        cluster.seconds(4, [200.0, 0.0, 0.0, 0.0]);
        for at in 0..PROXIES {
            if silent {
                cluster.proxies[at].cut = [true; 2];
            } else {
                cluster.disconnect(at);
            }
        }
        cluster.seconds(8, [200.0; PROXIES]);
        for admitted in cluster.last(2) {
            assert!((24.0..=26.0).contains(&admitted), "{admitted}, silent: {silent}");
        }
        assert!(cluster.excess(100.0) <= 1.0 + PROXIES as f64, "{}", cluster.excess(100.0));
    }
}

#[test]
fn a_proxy_that_nothing_reaches_has_its_even_share_and_the_others_the_rest() {
    let mut cluster = Cluster::new(limits(100, 11, 0), DELAY);
    cluster.seconds(4, [200.0, 0.0, 0.0, 0.0]);
    cluster.proxies[1].cut = [true; 2];
    cluster.seconds(10, [200.0, 50.0, 0.0, 0.0]);
    let [a, b, ..] = cluster.last(3);
    assert!((24.0..=26.0).contains(&b) && (72.0..=75.5).contains(&a), "{a} and {b}");
    assert!(cluster.excess(100.0) <= 12.0 + PROXIES as f64, "{}", cluster.excess(100.0));
    // Once it is back, it takes part again.
    cluster.proxies[1].cut = [false; 2];
    cluster.seconds(4, [200.0, 200.0, 0.0, 0.0]);
    let [a, b, ..] = cluster.last(2);
    assert!((a - b).abs() < 3.0 && a + b > 95.0, "{a} and {b}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent where, however late messages are, and whichever proxy is cut off or reconnects: in any period, all proxies together
    /// let through at most what the limit allows and one more request each.
    #[test]
    fn all_proxies_together_keep_the_limit(
        rate in 5_u32..200,
        burst in 0_u32..100,
        delay in 0_u64..1500,
        steps in proptest::collection::vec(
            (50_u64..4000, proptest::array::uniform4(0_u32..4), 0..PROXIES, proptest::array::uniform2(0_u32..3), 0_u32..6),
            1..16,
        ),
    ) {
        let mut cluster = Cluster::new(limits(rate, burst, 0), Duration::from_millis(delay));
        for (time, loads, at, cut, connection) in steps {
            if connection < 2 {
                cluster.disconnect(at);
            }
            if connection == 0 {
                cluster.connect(at);
            }
            // Messages that are cut off arrive late, but are not lost.
            cluster.proxies[at].cut = cut.map(|cut| cut == 0);
            let rates = loads.map(|load| f64::from(load * load * rate) / 3.0);
            cluster.run(Duration::from_millis(time), rates);
        }
        let excess = cluster.excess(f64::from(rate));
        prop_assert!(excess <= f64::from(burst) + 1.0 + PROXIES as f64, "{excess}");
    }
}

impl Cluster {
    /// Lets time pass while each proxy begins this many requests every 50 ms, and about this percentage of open ones ends.
    fn run_long(&mut self, time: Duration, begun: [u32; PROXIES], ends: usize) -> usize {
        let (end, mut most) = (self.now + time, 0);
        while self.now < end {
            for (at, count) in begun.into_iter().enumerate() {
                let open = &mut self.proxies[at].open;
                open.truncate(open.len() - open.len() * ends / 100);
                (0..count).for_each(|_| {
                    self.open(at);
                });
            }
            most = most.max(self.proxies.iter().map(|proxy| proxy.open.len()).sum());
            self.run(10 * STEP, [0.0; PROXIES]);
        }
        most
    }

    /// The requests in progress that the shares in force allow all proxies together. Open requests end.
    fn allowed(&mut self) -> usize {
        let count = |at: usize| {
            self.proxies[at].open.clear();
            while self.open(at) {}
            self.proxies[at].open.len()
        };
        (0..PROXIES).map(count).sum()
    }
}

#[test]
fn what_a_silent_proxy_does_not_use_is_used_by_others_about_a_second_later() {
    let mut cluster = Cluster::new(limits(100, 3, 0), DELAY);
    cluster.seconds(4, [200.0, 0.0, 0.0, 0.0]);
    // The stream stays open.
    cluster.proxies[0].cut = [true; 2];
    cluster.run(Duration::from_millis(1500), [0.0, 200.0, 0.0, 0.0]);
    cluster.seconds(3, [0.0, 200.0, 0.0, 0.0]);
    for second in 1..=3 {
        let admitted = cluster.last(second)[1];
        assert!((70.0..=75.5).contains(&admitted), "{admitted} beside the even share of the silent one");
    }
    assert!(cluster.excess(100.0) <= 4.0 + PROXIES as f64, "{}", cluster.excess(100.0));
}

#[test]
fn what_a_silent_proxy_has_in_progress_stays_its_own_and_the_rest_is_dealt() {
    let mut cluster = Cluster::new(limits(0, 0, 40), DELAY);
    assert_eq!(cluster.insist(0, Duration::from_secs(2)), 40);
    cluster.proxies[0].open.truncate(12);
    cluster.seconds(1, [0.0; PROXIES]);
    cluster.proxies[0].cut = [true; 2];
    assert_eq!(cluster.insist(1, Duration::from_secs(3)) + 12, 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However late messages are, and although some reports are lost: at any time, the requests in progress don't exceed the limit and one
    /// more for each proxy.
    #[test]
    fn requests_in_progress_stay_within_the_limit(
        limit in 1_u32..120,
        delay in 0_u64..200,
        lost in proptest::array::uniform4(proptest::sample::select(&[0_u8, 0b1, 0b1_0001, 0b11_0011, 0b101_0101][..])),
        steps in proptest::collection::vec((50_u64..2500, proptest::array::uniform4(0_u32..6), 0_usize..60), 1..16),
    ) {
        let mut cluster = Cluster::new(limits(0, 0, limit), Duration::from_millis(delay));
        for (proxy, lost) in cluster.proxies.iter_mut().zip(lost) {
            proxy.lost = lost;
        }
        for (time, begun, ends) in steps {
            let most = cluster.run_long(Duration::from_millis(time), begun, ends);
            prop_assert!(most <= limit as usize + PROXIES, "{most} of {limit}");
        }
    }

    /// Whichever proxy comes and goes, is cut off or falls silent: the shares in force allow at most the limit and one more request for
    /// each proxy.
    #[test]
    fn shares_in_force_are_never_more_than_the_limit(
        limit in 1_u32..120,
        delay in 0_u64..1500,
        steps in proptest::collection::vec(
            (
                (50_u64..2500, proptest::array::uniform4(0_u32..6), 0_usize..60),
                (0..PROXIES, proptest::array::uniform2(0_u32..3), any::<u8>(), 0_u32..6),
            ),
            1..16,
        ),
    ) {
        let mut cluster = Cluster::new(limits(0, 0, limit), Duration::from_millis(delay));
        for ((time, begun, ends), (at, cut, lost, connection)) in steps {
            if connection < 2 {
                cluster.disconnect(at);
            }
            if connection == 0 {
                cluster.connect(at);
            }
            let proxy = &mut cluster.proxies[at];
            (proxy.cut, proxy.lost) = (cut.map(|cut| cut == 0), if lost.is_multiple_of(3) { lost } else { 0 });
            cluster.run_long(Duration::from_millis(time), begun, ends);
        }
        let allowed = cluster.allowed();
        prop_assert!(allowed <= limit as usize + PROXIES, "{allowed} of {limit}");
    }

    /// The proxies of two controllers that don't know each other: each controller deals its proxies' part of an even division.
    #[test]
    fn two_controllers_keep_one_limit(
        rate in 5_u32..200,
        burst in 0_u32..100,
        of_the_first in 1..PROXIES,
        steps in proptest::collection::vec((50_u64..3000, proptest::array::uniform4(0_u32..4)), 1..10),
    ) {
        let mut clusters = [0, 1].map(|_| Cluster::new(limits(rate, burst, 0), DELAY));
        for at in 0..PROXIES {
            clusters[usize::from(at < of_the_first)].disconnect(at);
        }
        for (time, loads) in steps {
            let rates = loads.map(|load| f64::from(load * load * rate) / 3.0);
            for (number, cluster) in clusters.iter_mut().enumerate() {
                let is_here = |at: usize| (at < of_the_first) == (number == 0);
                let here: Vec<f64> = (0..PROXIES).map(|at| if is_here(at) { rates[at] } else { 0.0 }).collect();
                cluster.run(Duration::from_millis(time), here.try_into().expect("one for each"));
            }
        }
        let [mut all, other] = clusters;
        all.times.extend(other.times);
        all.times.sort_unstable();
        let excess = all.excess(f64::from(rate));
        prop_assert!(excess <= f64::from(burst) + 1.0 + PROXIES as f64, "{excess}");
    }
}

/// Opens requests to a proxy one after another, until this many have arrived at the origin.
async fn begin(http: std::net::SocketAddr, origin: &Origin, path: &str, count: usize) -> Vec<Client> {
    let at_origin = || origin.seen().iter().filter(|request| request.target == path).count();
    let mut clients = Vec::new();
    let beginning = async {
        while at_origin() < count {
            let mut client = Client::connect(http).await;
            let before = at_origin();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: b.example\r\n\r\n")).await;
            // The request is either refused, or it arrives.
            tokio::select! {
                head = client.read_head() => assert!(head.start.contains(" 503 "), "{}", head.start),
                () = async { while at_origin() == before { tokio::time::sleep(Duration::from_millis(5)).await } } => clients.push(client),
            }
        }
    };
    within("the whole limit", Box::pin(beginning)).await;
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn real_proxies_let_a_client_have_the_whole_limit_at_any_of_them() {
    const LIMIT: usize = 12;
    let (first, second) = (Gate::new(), Gate::new());
    let held = (first.clone(), second.clone());
    let answer = move |request: &Request| {
        let gate = if request.target == "/first" { &held.0 } else { &held.1 };
        Reply::ok().held_by(gate)
    };
    let origin = Origin::new("web").reply_with(answer).start();
    let config = ConfigMap::new([json!({})]);
    let api = api_server_and(&origin, &config, |plural| match plural {
        "ingresses" => {
            let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
            let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
            let annotations = json!({"nginx.ingress.kubernetes.io/limit-connections": LIMIT.to_string()});
            vec![json!({
                "metadata": {"namespace": "shop", "name": "b", "uid": "b", "resourceVersion": "1", "annotations": annotations},
                "spec": {"ingressClassName": "nginx", "rules": [{"host": "b.example", "http": {"paths": [path]}}]},
            })]
        }
        "endpointslices" => {
            let replica = |last: usize| json!({"addresses": [format!("10.0.0.{last}")]});
            let endpoints: Vec<_> = (0..PROXIES).map(replica).collect();
            vec![json!({
                "metadata": {"namespace": "edge", "name": "fairway-1", "uid": "f", "resourceVersion": "1",
                    "labels": {"kubernetes.io/service-name": "fairway"}},
                "addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints,
            })]
        }
        _ => Vec::new(),
    });
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let controller = Run::controller(api.address(), &socket, &["--publish-service=edge/fairway"]);
    let mut proxies: Vec<Run> = (0..PROXIES).map(|_| Run::proxy(&socket, &[])).collect();
    let https: Vec<_> = proxies.iter_mut().map(Run::serving).collect();

    // The even share is three.
    let at_first = begin(https[0], &origin, "/first", LIMIT).await;
    assert_eq!(at_first.len(), LIMIT);
    let metrics = controller.body_of("/metrics").await;
    let shared = metrics.lines().find(|line| line.starts_with("fairway_channel_shared_limits{"));
    assert!(shared.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    // All of the limit is in use; elsewhere a proxy still lets one request through.
    let elsewhere = begin(https[1], &origin, "/second", 1).await;
    for http in [https[0], https[1]] {
        assert_eq!(Client::connect(http).await.get("b.example", "/third").await.status, 503);
    }
    // Once the client has left there, it has the whole limit here.
    first.release();
    drop(at_first);
    let more = begin(https[1], &origin, "/second", LIMIT).await;
    assert_eq!(elsewhere.len() + more.len(), LIMIT);
    second.release();
}
