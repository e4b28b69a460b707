use std::collections::BTreeMap as Map;

use fairway_model::{Endpoint, EndpointSet, Endpoints, ResourceName, Snapshot};
use proptest::prelude::*;

use super::*;

fn endpoints(name: u8, last: u8) -> Resource {
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, last], 80).into())]);
    EndpointSet { backend: format!("b{name}").into(), endpoints }.into()
}

fn change(name: u8, last: u8) -> Delta {
    Delta::upsert([endpoints(name, last)])
}

/// A proxy that takes what it is sent at once.
#[derive(Default)]
struct Taker {
    ledger: Ledger,
    snapshot: Snapshot,
    told: usize,
}

impl Taker {
    fn catch_up(&mut self, hub: &Hub, proxy: &ConnectedProxy) {
        let Some(Difference { generation, changed, removed }) = hub.difference(&self.ledger) else { return };
        self.told += changed.len() + removed.len();
        let gone = |name: &Arc<str>| ResourceName::EndpointSet(name.trim_start_matches("endpoints/").into());
        let removals = removed.iter().map(gone).collect();
        let sent = changed.iter().map(|changed| (changed.name.clone(), changed.version));
        self.ledger.acknowledged(generation, sent, &removed, |_| false);
        let upserts = changed.into_iter().map(|changed| changed.resource).collect();
        self.snapshot = self.snapshot.apply(Delta { upserts, removals });
        proxy.serves(generation, self.ledger.held.len(), std::iter::empty(), Vec::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_a_proxy_only_as_long_as_that_is_no_secret() {
    let (hub, _reports) = Hub::new();
    let (quick, slow) = (
        hub.seat().unwrap().join("quick".into(), "1".into(), false),
        hub.seat().unwrap().join("slow".into(), "1".into(), false),
    );
    let mut taker = Taker::default();
    let mut newest = hub.newest();
    let follow = async {
        loop {
            newest.changed().await.unwrap();
            taker.catch_up(&hub, &quick);
        }
    };
    let publish = async {
        let begun = Instant::now();
        hub.publish(change(1, 1)).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        // It is late now: nothing waits for it.
        let begun = Instant::now();
        hub.publish(change(1, 2)).await;
        assert!(begun.elapsed().is_zero());
        // It has caught up, so that changes wait for it again.
        slow.serves(2, 1, std::iter::empty(), Vec::new());
        hub.publish(change(1, 3)).await;
        assert_eq!(begun.elapsed(), PATIENCE);
        let late: Vec<_> = hub.proxies().iter().map(|proxy| proxy.current).collect();
        assert_eq!(late, [true, false]);
        // One that is gone is not waited for.
        drop(slow);
        let begun = Instant::now();
        hub.publish(change(1, 4)).await;
        assert!(begun.elapsed().is_zero());
    };
    tokio::select! {
        () = follow => {}
        () = publish => {}
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_proxy_a_change_waits_once() {
    let (hub, _reports) = Hub::new();
    let begun = Instant::now();
    hub.publish(change(1, 1)).await;
    hub.publish(change(1, 2)).await;
    assert_eq!(begun.elapsed(), PATIENCE);
    // One that comes with an old state is not waited for before it has caught up.
    let proxy = hub.seat().unwrap().join("late".into(), "1".into(), false);
    hub.publish(change(1, 3)).await;
    assert_eq!(begun.elapsed(), PATIENCE);
    drop(proxy);
    hub.deserted().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_is_remembered_only_while_that_saves_something() {
    let (hub, _reports) = Hub::new();
    let proxy = hub.seat().unwrap().join("p".into(), "1".into(), false);
    let mut taker = Taker::default();
    let logged = || hub.state().log.iter().map(|(_, names)| names.len()).sum::<usize>();
    hub.publish(Delta::upsert((0..50).map(|name| endpoints(name, 0)))).await;
    taker.catch_up(&hub, &proxy);
    assert_eq!(taker.told, 50);
    for last in 1..=200 {
        hub.publish(change(last % 50, last)).await;
        assert!(logged() <= 50 && logged() == hub.state().logged);
    }
    taker.catch_up(&hub, &proxy);
    assert_eq!(taker.told, 100, "further behind than the log goes back");
    hub.publish(change(7, 0)).await;
    taker.catch_up(&hub, &proxy);
    assert_eq!(taker.told, 101);
    // The names of what is gone go with the next change.
    let gone = |name| ResourceName::EndpointSet(format!("b{name}").into());
    hub.publish(Delta { removals: (0..48).map(gone).collect(), ..Delta::default() }).await;
    hub.publish(change(48, 1)).await;
    assert_eq!(logged(), 1);
}

#[test]
fn a_refusal_is_reported_with_the_objects_that_it_is_about() {
    let (hub, mut reports) = Hub::new();
    let proxy = hub.seat().unwrap().join("p".into(), "1".into(), false);
    proxy.serves(1, 1, std::iter::empty(), vec![("endpoints/b1".into(), "because".into())]);
    let Ok(Report::Refused { proxy: by, name, origins, reason }) = reports.try_recv() else { panic!("no report") };
    assert_eq!((&*by, &*name, origins, &*reason), ("p", "endpoints/b1", Vec::new(), "because"));
    assert_eq!(hub.figures().refused, 1);
    proxy.serves(2, 1, ["endpoints/b1"].into_iter(), Vec::new());
    assert_eq!(hub.figures().refused, 0);
}

proptest! {
    /// Whatever a proxy missed or had before, it ends with what is published, and is sent each name at most once at a time.
    #[test]
    fn a_proxy_gets_what_it_lacks(
        changes in prop::collection::vec((0..6u8, 0..3u8, any::<bool>()), 1..60),
        held in prop::collection::btree_map(0..8u8, 0..3u8, 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (hub, _reports) = Hub::new();
        let proxy = hub.seat().unwrap().join("p".into(), "1".into(), false);
        let mut taker = Taker::default();
        let before = Delta::upsert(held.iter().map(|(name, last)| endpoints(*name, *last)));
        for resource in &before.upserts {
            let Encoded { name, version, .. } = Encoded::new(resource).unwrap();
            taker.ledger.held.insert(name, Some(version));
        }
        taker.snapshot = taker.snapshot.apply(before);
        let mut published: Map<u8, u8> = Map::new();
        for (name, last, looks) in changes {
            let delta = if last == 0 {
                published.remove(&name);
                Delta { removals: endpoints(name, 0).name().into_iter().collect(), ..Delta::default() }
            } else {
                published.insert(name, last);
                change(name, last)
            };
            runtime.block_on(hub.publish(delta));
            if looks {
                taker.catch_up(&hub, &proxy);
            }
        }
        taker.catch_up(&hub, &proxy);
        let expected = Delta::upsert(published.iter().map(|(name, last)| endpoints(*name, *last)));
        prop_assert_eq!(&taker.snapshot, &Snapshot::default().apply(expected));
        // Nothing is sent twice.
        let told = taker.told;
        taker.catch_up(&hub, &proxy);
        prop_assert_eq!(taker.told, told);
    }
}

#[test]
fn a_proxy_that_missed_more_than_is_remembered_has_everything_compared() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (hub, _reports) = Hub::new();
    let proxy = hub.seat().unwrap().join("p".into(), "1".into(), false);
    let mut taker = Taker::default();
    runtime.block_on(hub.publish(change(1, 1)));
    runtime.block_on(hub.publish(change(2, 1)));
    taker.catch_up(&hub, &proxy);
    let gone = Delta { removals: endpoints(2, 0).name().into_iter().collect(), ..Delta::default() };
    runtime.block_on(hub.publish(gone));
    runtime.block_on(hub.publish(change(3, 2)));
    for _ in 0..LOG {
        runtime.block_on(hub.publish(Delta::default()));
    }
    assert_eq!(hub.state().log.len(), LOG);
    taker.catch_up(&hub, &proxy);
    assert_eq!(taker.snapshot, Snapshot::default().apply(Delta::upsert([endpoints(1, 1), endpoints(3, 2)])));
}

#[test]
fn names_have_room_for_each_proxy_and_for_all_and_give_it_back() {
    let (hub, _reports) = Hub::new();
    let mut seats: Vec<_> = (0..4).map(|_| hub.seat().unwrap()).collect();
    assert!(seats.iter_mut().all(|seat| seat.hold(NAMES)));
    assert!(!seats[0].hold(1), "more than one may have");
    let mut late = hub.seat().unwrap();
    assert!(!late.hold(1), "more than all may have");
    drop(seats);
    assert!(late.hold(NAMES));
}
