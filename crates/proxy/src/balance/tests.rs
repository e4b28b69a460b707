use super::*;
use crate::random::Rng;
use fairway_model::{Affinity, AffinityMode, BackendName, HashBalance, Origin, Protocol, SessionCookie, Template};
use proptest::prelude::*;
use std::collections::HashMap;

fn backend(balance: Balance, affinity: Option<(AffinityMode, bool)>) -> Backend {
    Backend {
        name: BackendName::from("b"),
        origin: Origin::new("Service", "default", "web"),
        port: "80".into(),
        upstream_name: "default-web-80".into(),
        protocol: Protocol::Http1,
        balance,
        affinity: affinity.map(|(mode, change_on_failure)| Affinity {
            mode,
            cookie: SessionCookie {
                name: "INGRESSCOOKIE".into(),
                expires: None,
                max_age: None,
                domain: None,
                secure: false,
                same_site: None,
                conditional_same_site_none: false,
            },
            change_on_failure,
        }),
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    }
}

fn hash(subset: Option<u32>) -> Balance {
    Balance::Hash(HashBalance { key: Template::parse("$request_uri"), subset })
}

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 8080).into()
}

fn ready(count: u8) -> Vec<Endpoint> {
    (0..count).map(|last| Endpoint::ready(address(last))).collect()
}

fn ask(now: Instant) -> Ask<'static> {
    Ask { session: None, hash_key: b"", tried: &[], ejected: &[], unhealthy: &[], now }
}

fn balancer(balance: Balance, affinity: Option<(AffinityMode, bool)>, endpoints: &[Endpoint]) -> Balancer {
    Balancer::new(&backend(balance, affinity), endpoints, &mut Rng::from_seed(5), Instant::now())
}

fn shares(balancer: &mut Balancer, picks: u32) -> HashMap<SocketAddr, u32> {
    let now = Instant::now();
    let mut shares = HashMap::new();
    for _ in 0..picks {
        *shares.entry(balancer.pick(&ask(now)).unwrap().endpoint).or_default() += 1;
    }
    shares
}

fn cookie(key: SessionKey) -> Vec<u8> {
    [key.as_bytes(), b"|", &backend_key("default-web-80")].concat()
}

#[test]
fn round_robin_takes_turns_from_a_random_start() {
    let mut balancer = balancer(Balance::RoundRobin, None, &ready(3));
    assert!(shares(&mut balancer, 30).values().all(|&share| share == 10));
    let mut rng = Rng::from_seed(1);
    let starts: std::collections::HashSet<_> = (0..30)
        .map(|_| {
            let mut one = Balancer::new(&backend(Balance::RoundRobin, None), &ready(3), &mut rng, Instant::now());
            one.pick(&ask(Instant::now())).unwrap().endpoint
        })
        .collect();
    assert_eq!(starts.len(), 3);
}

#[test]
fn weights_are_shares_and_turns_are_spread() {
    let mut endpoints = ready(3);
    (endpoints[0].weight, endpoints[1].weight, endpoints[2].weight) = (5, 1, 0);
    let mut balancer = balancer(Balance::RoundRobin, None, &endpoints);
    let now = Instant::now();
    let picks: Vec<_> = (0..60).map(|_| balancer.pick(&ask(now)).unwrap().endpoint).collect();
    for six in picks.chunks(6) {
        assert_eq!(six.iter().filter(|&&each| each == address(1)).count(), 1, "{picks:?}");
    }
    assert!(!picks.contains(&address(2)));
}

#[test]
fn nothing_is_picked_without_endpoints() {
    let mut draining = ready(1);
    draining[0].state = EndpointState::Draining;
    for balance in [Balance::RoundRobin, Balance::Ewma, Balance::LeastRequest, hash(None), hash(Some(3))] {
        for affinity in [None, Some((AffinityMode::Balanced, false)), Some((AffinityMode::Persistent, true))] {
            for endpoints in [&[][..], &draining] {
                let mut balancer = balancer(balance.clone(), affinity, endpoints);
                assert_eq!(balancer.pick(&ask(Instant::now())), None);
                assert!(!balancer.is_open());
            }
        }
    }
}

#[test]
fn ewma_prefers_the_faster_and_forgets() {
    let mut balancer = balancer(Balance::Ewma, None, &ready(2));
    let start = Instant::now();
    let mut now = start;
    for _ in 0..200 {
        now += Duration::from_millis(100);
        let pick = balancer.pick(&ask(now)).unwrap();
        let took = if pick.endpoint == address(0) { 500 } else { 5 };
        balancer.done(&pick, TryOutcome::Answered(Duration::from_millis(took)), now);
    }
    let fast = (0..100).filter(|_| balancer.pick(&ask(now)).unwrap().endpoint == address(1)).count();
    assert_eq!(fast, 100, "of two endpoints, the better one is chosen");
    // Scores of unused endpoints decay, so that a slow one gets another chance.
    let slow = |balancer: &mut Balancer, now| {
        (0..100).any(|_| {
            let pick = balancer.pick(&ask(now)).unwrap();
            balancer.done(&pick, TryOutcome::Answered(Duration::from_millis(5)), now);
            pick.endpoint == address(0)
        })
    };
    let found = (0..600).any(|second| slow(&mut balancer, now + Duration::from_secs(second)));
    assert!(found);
}

#[test]
fn ewma_rates_failures_as_slow_and_new_endpoints_as_average() {
    let description = backend(Balance::Ewma, None);
    let mut balancer = balancer(Balance::Ewma, None, &ready(2));
    let mut now = Instant::now();
    let picks: Vec<_> = (0..50).map(|_| balancer.pick(&ask(now)).unwrap()).collect();
    for _ in 0..300 {
        now += Duration::from_millis(100);
        for last in [0, 1] {
            let pick = picks.iter().find(|pick| pick.endpoint == address(last)).unwrap();
            let outcome = if last == 0 { TryOutcome::Failed } else { TryOutcome::Answered(Duration::from_millis(20)) };
            balancer.done(pick, outcome, now);
        }
    }
    assert!((0..50).all(|_| balancer.pick(&ask(now)).unwrap().endpoint == address(1)));
    balancer.update(&description, &ready(3), now);
    let mut share = |last| (0..300).filter(|_| balancer.pick(&ask(now)).unwrap().endpoint == address(last)).count();
    assert_eq!(share(0), 0, "the worst of three is never the better of two");
    // The new endpoint is the better one in one of the three pairs that can be drawn.
    assert!((60..140).contains(&share(2)));
}

#[test]
fn least_request_takes_the_one_with_fewer_in_progress() {
    let (mut balancer, now) = (balancer(Balance::LeastRequest, None, &ready(3)), Instant::now());
    let mut held = Vec::new();
    let mut counts = HashMap::<_, u32>::new();
    for _ in 0..300 {
        let pick = balancer.pick(&ask(now)).unwrap();
        held.push(balancer.begin(&pick).unwrap());
        *counts.entry(pick.endpoint).or_default() += 1;
    }
    assert!(counts.values().all(|count| (98..=102).contains(count)), "{counts:?}");
    // Two endpoints become free; the third one keeps its requests through an update.
    balancer.update(&backend(Balance::LeastRequest, None), &ready(3), now);
    let busy = balancer.pick(&ask(now)).unwrap();
    let extra: Vec<_> = (0..200).filter_map(|_| balancer.begin(&busy)).collect();
    let share = |balancer: &mut Balancer| shares(balancer, 300).get(&busy.endpoint).copied().unwrap_or_default();
    assert_eq!(share(&mut balancer), 0, "the busiest of three is never the better of two");
    drop(extra);
    drop(held);
    assert!((70..130).contains(&share(&mut balancer)));
}

#[test]
fn least_request_follows_weights_and_avoids_failures() {
    let mut endpoints = ready(2);
    endpoints[0].weight = 4;
    let mut balancer = balancer(Balance::LeastRequest, None, &endpoints);
    let mut held = Vec::new();
    for _ in 0..500 {
        let pick = balancer.pick(&ask(Instant::now())).unwrap();
        held.push((pick.endpoint, balancer.begin(&pick)));
    }
    let heavy = held.iter().filter(|(endpoint, _)| *endpoint == address(0)).count();
    assert!((390..=410).contains(&heavy), "{heavy}");
    let failing = Ask { ejected: &[address(0)], ..ask(Instant::now()) };
    assert!((0..50).all(|_| balancer.pick(&failing).unwrap().endpoint == address(1)));
}

#[test]
fn an_endpoint_that_joins_others_starts_slowly() {
    let start = Instant::now();
    let mut balancer = balancer(Balance::LeastRequest, None, &ready(2));
    let share = |balancer: &mut Balancer, last, after| {
        let at = ask(start + after);
        (0..3000).filter(|_| balancer.pick(&at).unwrap().endpoint == address(last)).count()
    };
    assert!((1400..1600).contains(&share(&mut balancer, 1, Duration::ZERO)), "the first ones have their full share");
    balancer.update(&backend(Balance::LeastRequest, None), &ready(3), start);
    // Shares of one tenth, one half and one, beside two of one.
    for (after, expected) in [(0, 143), (15, 600), (30, 1000)] {
        let share = share(&mut balancer, 2, Duration::from_secs(after));
        assert!((expected * 7 / 10..expected * 13 / 10).contains(&share), "{share} after {after} s");
    }
}

#[test]
fn a_hash_key_has_one_endpoint_everywhere() {
    let mut one = balancer(hash(None), None, &ready(10));
    let mut other = Balancer::new(&backend(hash(None), None), &ready(10), &mut Rng::from_os(), Instant::now());
    for key in 0..200u32 {
        let key = key.to_string();
        let ask = Ask { hash_key: key.as_bytes(), ..ask(Instant::now()) };
        assert_eq!(one.pick(&ask).unwrap().endpoint, other.pick(&ask).unwrap().endpoint);
    }
}

#[test]
fn a_hash_key_has_one_group_of_the_subset_size() {
    let mut balancer = balancer(hash(Some(3)), None, &ready(9));
    for key in ["a", "b", "c", "d"] {
        let ask = Ask { hash_key: key.as_bytes(), ..ask(Instant::now()) };
        let members: std::collections::BTreeSet<_> = (0..100).map(|_| balancer.pick(&ask).unwrap().endpoint).collect();
        assert_eq!(members.len(), 3);
        let groups: Vec<_> =
            members.iter().map(|member| (member.ip().to_string()[7..].parse::<u8>().unwrap()) / 3).collect();
        assert!(groups.windows(2).all(|pair| pair[0] == pair[1]), "{members:?}");
    }
}

#[test]
fn cookies_of_ingress_nginx_keep_their_endpoint() {
    // The ring of lua-resty-balancer for these three endpoints, queried with a key made by ingress-nginx; computed by an
    // independent implementation in another language.
    let mut balancer = balancer(Balance::RoundRobin, Some((AffinityMode::Balanced, false)), &ready(3));
    for (key, last) in [
        ("1795244400.123.31.1", 2),
        ("1795244400.123.31.22", 2),
        ("1795244400.123.31.333", 1),
        ("1795244400.123.31.4444", 2),
        ("1795244400.123.31.55555", 0),
        ("1795244400.123.31.666666", 1),
        ("abc", 1),
        ("1795244401.5.32.77", 0),
        ("low647", 0),
    ] {
        let ask = Ask { session: Some(key.as_bytes()), ..ask(Instant::now()) };
        let pick = balancer.pick(&ask).unwrap();
        assert_eq!((pick.endpoint, pick.session), (address(last), None), "{key}");
    }
}

#[test]
fn a_persistent_session_names_its_endpoint() {
    let mut balancer = balancer(Balance::RoundRobin, Some((AffinityMode::Persistent, false)), &ready(4));
    let pick = balancer.pick(&ask(Instant::now())).unwrap();
    let value = cookie(pick.session.unwrap());
    let (old, _) = value.split_at(32);
    for value in [&value[..], old] {
        let again = balancer.pick(&Ask { session: Some(value), ..ask(Instant::now()) }).unwrap();
        assert_eq!((again.endpoint, again.session), (pick.endpoint, None));
    }
    for unknown in [&b""[..], b"|", b"nonsense", b"d41d8cd98f00b204e9800998ecf8427e|x"] {
        let new = balancer.pick(&Ask { session: Some(unknown), ..ask(Instant::now()) }).unwrap();
        assert!(new.session.is_some(), "an unknown key starts a new session");
    }
}

#[test]
fn a_session_leaves_an_unhealthy_endpoint_if_there_is_another_one() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let mut balancer = balancer(Balance::RoundRobin, Some((mode, false)), &ready(2));
        let pick = balancer.pick(&ask(Instant::now())).unwrap();
        let value = cookie(pick.session.unwrap());
        let session = Ask { session: Some(&value), ..ask(Instant::now()) };
        let one = [pick.endpoint];
        let failing = Ask { ejected: &one, ..session };
        assert_eq!(balancer.pick(&failing).unwrap().endpoint, pick.endpoint, "it may answer the next request");
        let moved = balancer.pick(&Ask { unhealthy: &one, ..failing }).unwrap();
        assert_ne!(moved.endpoint, pick.endpoint);
        assert!(moved.session.is_some());
        let mut both = [pick.endpoint, moved.endpoint];
        both.sort_unstable();
        let all = Ask { ejected: &both, unhealthy: &both, ..session };
        let stays = balancer.pick(&all).unwrap();
        assert_eq!((stays.endpoint, stays.session), (pick.endpoint, None), "none is better");
    }
}

#[test]
fn failure_moves_a_session_only_where_it_may() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let mut stays = balancer(Balance::RoundRobin, Some((mode, false)), &ready(4));
        let mut moves = balancer(Balance::RoundRobin, Some((mode, true)), &ready(4));
        let pick = stays.pick(&ask(Instant::now())).unwrap();
        let value = cookie(pick.session.unwrap());
        let tried = [pick.endpoint];
        let again = Ask { session: Some(&value), tried: &tried, ..ask(Instant::now()) };
        assert_eq!(stays.pick(&again).unwrap().endpoint, pick.endpoint);
        let moved = moves.pick(&again).unwrap();
        assert_ne!(moved.endpoint, pick.endpoint);
        let new = cookie(moved.session.unwrap());
        assert_eq!(moves.pick(&Ask { session: Some(&new), ..ask(Instant::now()) }).unwrap().endpoint, moved.endpoint);
        // A session that only starts with this request moves in any case.
        let fresh = Ask { session: None, ..again };
        assert_ne!(stays.pick(&fresh).unwrap().endpoint, pick.endpoint);
    }
}

#[test]
fn new_sessions_are_spread() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let mut balancer = balancer(Balance::RoundRobin, Some((mode, false)), &ready(4));
        let shares = shares(&mut balancer, 2000);
        assert!((0..4).all(|last| (350..650).contains(&shares[&address(last)])), "{mode:?} {shares:?}");
    }
}

fn balances() -> impl Strategy<Value = Balance> {
    prop_oneof![
        Just(Balance::RoundRobin),
        Just(Balance::Ewma),
        Just(Balance::LeastRequest),
        Just(hash(None)),
        Just(hash(Some(2)))
    ]
}

fn affinities() -> impl Strategy<Value = Option<(AffinityMode, bool)>> {
    let mode = prop_oneof![Just(AffinityMode::Balanced), Just(AffinityMode::Persistent)];
    proptest::option::of((mode, any::<bool>()))
}

fn endpoint_sets() -> impl Strategy<Value = Vec<Endpoint>> {
    let state = prop_oneof![3 => Just(EndpointState::Ready), 1 => Just(EndpointState::Draining)];
    proptest::collection::btree_map(0u8..10, (0u16..4, state), 0..8).prop_map(|set| {
        let endpoint = |(last, (weight, state))| Endpoint { address: address(last), weight, state };
        set.into_iter().map(endpoint).collect()
    })
}

proptest! {
    #[test]
    fn new_requests_go_only_where_they_may(
        balance in balances(),
        affinity in affinities(),
        sets in proptest::collection::vec(endpoint_sets(), 1..5),
        tried in proptest::collection::vec(0u8..10, 0..4),
        ejected in proptest::collection::vec(0u8..10, 0..4),
    ) {
        let now = Instant::now();
        let description = backend(balance, affinity);
        let mut balancer = Balancer::new(&description, &[], &mut Rng::from_seed(3), now);
        let tried: Vec<_> = tried.into_iter().map(address).collect();
        let mut ejected: Vec<_> = ejected.into_iter().map(address).collect();
        ejected.sort_unstable();
        for set in sets {
            balancer.update(&description, &set, now);
            let open: Vec<_> = set
                .iter()
                .filter(|each| each.state == EndpointState::Ready && each.weight > 0)
                .map(|each| each.address)
                .collect();
            let fresh = open.iter().any(|each| !tried.contains(each));
            let sound = open.iter().any(|each| !tried.contains(each) && !ejected.contains(each));
            for key in 0..20u8 {
                let ask = Ask { session: None, hash_key: &[key], tried: &tried, ejected: &ejected, unhealthy: &[], now };
                match balancer.pick(&ask) {
                    None => prop_assert!(open.is_empty()),
                    Some(pick) => {
                        prop_assert!(open.contains(&pick.endpoint));
                        prop_assert!(!fresh || !tried.contains(&pick.endpoint));
                        prop_assert!(!sound || !ejected.contains(&pick.endpoint));
                        balancer.done(&pick, TryOutcome::Answered(Duration::from_millis(1)), now);
                    }
                }
            }
        }
    }

    #[test]
    fn sessions_stay_while_their_endpoint_drains_and_move_only_from_one_that_is_gone(
        mode in prop_oneof![Just(AffinityMode::Balanced), Just(AffinityMode::Persistent)],
        count in 2u8..10,
        leaving in 0u8..10,
    ) {
        let now = Instant::now();
        let description = backend(Balance::RoundRobin, Some((mode, false)));
        let mut endpoints = ready(count);
        let leaving = usize::from(leaving % count);
        let mut balancer = Balancer::new(&description, &endpoints, &mut Rng::from_seed(9), now);
        let sessions: Vec<_> = (0..60)
            .map(|_| {
                let pick = balancer.pick(&ask(now)).unwrap();
                (pick.endpoint, cookie(pick.session.unwrap()))
            })
            .collect();
        endpoints[leaving].state = EndpointState::Draining;
        balancer.update(&description, &endpoints, now);
        for (endpoint, value) in &sessions {
            let pick = balancer.pick(&Ask { session: Some(value), ..ask(now) }).unwrap();
            prop_assert_eq!((pick.endpoint, pick.session), (*endpoint, None));
        }
        for _ in 0..60 {
            prop_assert_ne!(balancer.pick(&ask(now)).unwrap().endpoint, endpoints[leaving].address);
        }
        let gone = endpoints.remove(leaving).address;
        balancer.update(&description, &endpoints, now);
        for (endpoint, value) in &sessions {
            let pick = balancer.pick(&Ask { session: Some(value), ..ask(now) }).unwrap();
            prop_assert_eq!(pick.endpoint == *endpoint, *endpoint != gone);
            prop_assert_ne!(pick.endpoint, gone);
        }
    }
}
