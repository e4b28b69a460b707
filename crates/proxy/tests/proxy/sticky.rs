//! Sessions and hashes, through the whole proxy.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{HOST, TestProxy, backend_alone, endpoints, host, route};
use fairway_model::{
    Action, Affinity, AffinityMode, Backend, Backends, Balance, Forward, ForwardPolicy, HashBalance, SameSite, Session,
    SessionCarrier, SessionCookie, Template, WeightedBackend,
};
use fairway_testkit::{Client, Fault, Origin, TlsClient};

fn action(cookie_path: Option<&str>) -> Action {
    Action::Forward(Forward {
        backends: "default/web:80".into(),
        fallback: None,
        session_cookie_path: cookie_path.map(Into::into),
        policy: Arc::new(ForwardPolicy::default()),
    })
}

fn sticky(mode: AffinityMode, change_on_failure: bool) -> Backend {
    let cookie = SessionCookie {
        name: "INGRESSCOOKIE".into(),
        expires: None,
        max_age: Some(60),
        domain: None,
        secure: false,
        same_site: Some(SameSite::Lax),
        conditional_same_site_none: false,
    };
    Backend { affinity: Some(Affinity { mode, cookie, change_on_failure }), ..backend_alone("web") }
}

fn proxy(backend: Backend, origins: &[&Origin]) -> TestProxy {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    let routes = vec![route("/", action(Some("/shop"))), route("/quiet", action(None))];
    TestProxy::start([backend.into(), endpoints("web", &addresses), host(HOST, routes)])
}

async fn ask(client: &mut Client, target: &str, cookie: Option<&str>) -> (String, Option<String>) {
    let mut fields = vec![("host", HOST)];
    fields.extend(cookie.map(|cookie| ("cookie", cookie)));
    let response = client.request("GET", target, &fields, b"").await;
    assert_eq!(response.status, 200);
    (response.echo().origin, response.header("set-cookie").map(str::to_owned))
}

#[tokio::test]
async fn a_session_stays_where_its_cookie_says() {
    for mode in [AffinityMode::Balanced, AffinityMode::Persistent] {
        let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
        let proxy = proxy(sticky(mode, false), &[&a, &b, &c]);
        let mut client = proxy.connect().await;
        for _ in 0..6 {
            let (chosen, cookie) = ask(&mut client, "/", None).await;
            let cookie = cookie.expect("a new session");
            assert!(cookie.starts_with("INGRESSCOOKIE="), "{cookie}");
            assert!(cookie.ends_with("; Max-Age=60; Path=/shop; HttpOnly; SameSite=Lax"), "{cookie}");
            let pair = cookie.split(';').next().unwrap();
            for _ in 0..4 {
                // On either worker.
                let mut other = proxy.connect().await;
                assert_eq!(ask(&mut other, "/", Some(pair)).await, (chosen.clone(), None));
                assert_eq!(ask(&mut other, "/quiet", Some(pair)).await, (chosen.clone(), None));
            }
        }
        assert_eq!(ask(&mut client, "/quiet", None).await.1, None);
        let mut secure = TlsClient::unverified(HOST).connect(proxy.https).await;
        assert!(ask(&mut secure, "/", None).await.1.unwrap().contains("; Secure; HttpOnly"));
    }
}

/// The cookie of a session at this origin, for which new ones are begun.
async fn session_at(client: &mut Client, origin: &str) -> String {
    loop {
        let (chosen, cookie) = ask(client, "/", None).await;
        if chosen == origin {
            let cookie = cookie.expect("a new session");
            return cookie.split(';').next().unwrap_or_default().to_owned();
        }
    }
}

/// The session goes on at the origin `up`, under another key.
async fn moves_up(client: &mut Client, pair: &str) {
    let (chosen, cookie) = ask(client, "/", Some(pair)).await;
    assert_eq!(chosen, "up");
    assert!(cookie.is_some_and(|cookie| !cookie.starts_with(pair)));
}

#[tokio::test]
async fn a_session_moves_only_if_it_may() {
    let (down, up) = (Origin::new("down").fault(Fault::Refuse).start(), Origin::start("up"));
    // Which key maps to the endpoint that goes down is found by requests while both are up.
    let address = down.address();
    drop(down);
    let was_up = Origin::new("down").bind(address).start();
    let moving = proxy(sticky(AffinityMode::Persistent, true), &[&was_up, &up]);
    let staying = proxy(sticky(AffinityMode::Persistent, false), &[&was_up, &up]);
    let mut client = moving.connect().await;
    let pair = session_at(&mut client, "down").await;
    drop(was_up);
    moves_up(&mut client, &pair).await;
    let mut client = staying.connect().await;
    let response = client.request("GET", "/", &[("host", HOST), ("cookie", &pair)], b"").await;
    assert_eq!(response.status, 502);
}

/// A proxy whose rule has sessions and two Services, of which new sessions get the second only.
fn of_rule(session: Session, one: &[&Origin], two: &[&Origin], weights: (u32, u32)) -> TestProxy {
    let addresses = |origins: &[&Origin]| origins.iter().map(|origin| origin.address()).collect::<Vec<_>>();
    let share = |name: &str, weight| WeightedBackend { backend: name.into(), weight, filters: Vec::new(), tls: None };
    let backends = Backends::Weighted(vec![share("default/one:80", weights.0), share("default/two:80", weights.1)]);
    let policy = Arc::new(ForwardPolicy { session: Some(session.into()), ..ForwardPolicy::default() });
    let action = Action::Forward(Forward { backends, fallback: None, session_cookie_path: None, policy });
    TestProxy::start([
        backend_alone("one").into(),
        backend_alone("two").into(),
        endpoints("one", &addresses(one)),
        endpoints("two", &addresses(two)),
        host(HOST, vec![route("/", action)]),
    ])
}

fn by_cookie(lasts: Option<Duration>) -> Session {
    let cookie = SessionCookie {
        name: "fairway".into(),
        expires: None,
        max_age: None,
        domain: None,
        secure: false,
        same_site: Some(SameSite::Strict),
        conditional_same_site_none: false,
    };
    Session { carrier: SessionCarrier::Cookie { cookie, path: "/app".into() }, lasts }
}

#[tokio::test]
async fn a_session_of_a_rule_keeps_its_service_whatever_the_weights() {
    let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
    let both = of_rule(by_cookie(None), &[&a, &b], &[&c], (1, 1));
    let drained = of_rule(by_cookie(None), &[&a, &b], &[&c], (0, 1));
    let mut pairs = std::collections::BTreeMap::new();
    while pairs.len() < 3 {
        let (chosen, cookie) = ask(&mut both.connect().await, "/", None).await;
        let cookie = cookie.expect("a new session");
        assert!(
            cookie.starts_with("fairway=") && cookie.ends_with("; Path=/app; HttpOnly; SameSite=Strict"),
            "{cookie}"
        );
        pairs.insert(chosen, cookie.split(';').next().unwrap().to_owned());
    }
    for (chosen, pair) in &pairs {
        for proxy in [&both, &drained] {
            for _ in 0..4 {
                assert_eq!(ask(&mut proxy.connect().await, "/", Some(pair)).await, (chosen.clone(), None));
            }
        }
    }
    assert_eq!(ask(&mut drained.connect().await, "/", None).await.0, "c");
    let strange = "fairway=0123456789abcdef0123456789abcdef|0123456789abcdef0123456789abcdef";
    let (chosen, cookie) = ask(&mut drained.connect().await, "/", Some(strange)).await;
    assert_eq!((&*chosen, cookie.is_some()), ("c", true), "a session that nobody has is a new one");
}

#[tokio::test]
async fn a_session_of_a_rule_ends_at_its_time() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let proxy = of_rule(by_cookie(Some(Duration::from_secs(3600))), &[&a], &[&b], (1, 1));
    let mut client = proxy.connect().await;
    let (chosen, cookie) = ask(&mut client, "/", None).await;
    let pair = cookie.unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(ask(&mut client, "/", Some(&pair)).await, (chosen, None));
    let (rest, end) = pair.rsplit_once('|').unwrap();
    let (end, now) = (end.parse::<u64>().unwrap(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    assert!((now + 3590..=now + 3600).contains(&end), "{pair}");
    for ended in [format!("{rest}|{}", now - 1), rest.to_owned(), format!("{rest}|x")] {
        assert!(ask(&mut client, "/", Some(&ended)).await.1.is_some(), "{ended}");
    }
}

#[tokio::test]
async fn a_session_of_a_rule_moves_when_its_endpoint_fails() {
    let (down, up) = (Origin::new("down").fault(Fault::Refuse).start(), Origin::start("up"));
    let address = down.address();
    drop(down);
    let was_up = Origin::new("down").bind(address).start();
    let proxy = of_rule(by_cookie(None), &[&was_up, &up], &[], (1, 0));
    let mut client = proxy.connect().await;
    let pair = session_at(&mut client, "down").await;
    drop(was_up);
    moves_up(&mut client, &pair).await;
}

#[tokio::test]
async fn a_session_of_a_rule_may_be_in_a_header() {
    let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
    let session = Session { carrier: SessionCarrier::Header("X-Session".try_into().unwrap()), lasts: None };
    let proxy = of_rule(session, &[&a, &b], &[&c], (1, 1));
    for _ in 0..6 {
        let mut client = proxy.connect().await;
        let first = client.get(HOST, "/").await;
        assert_eq!(first.header("set-cookie"), None);
        let value = first.header("x-session").expect("a new session").to_owned();
        for _ in 0..4 {
            let fields = [("host", HOST), ("x-session", &*value)];
            let again = proxy.connect().await.request("GET", "/", &fields, b"").await;
            assert_eq!((again.echo().origin, again.header("x-session")), (first.echo().origin, None));
        }
    }
}

#[tokio::test]
async fn a_hash_of_the_request_chooses_the_endpoint() {
    let origins: Vec<_> = ["a", "b", "c", "d"].into_iter().map(Origin::start).collect();
    let hash = HashBalance { key: Template::parse("$request_uri"), subset: None };
    let backend = Backend { balance: Balance::Hash(hash), ..backend_alone("web") };
    let proxy = proxy(backend, &origins.iter().collect::<Vec<_>>());
    let mut chosen = BTreeSet::new();
    for at in 0..40 {
        let target = format!("/{at}");
        let first = ask(&mut proxy.connect().await, &target, None).await.0;
        for _ in 0..3 {
            assert_eq!(ask(&mut proxy.connect().await, &target, None).await.0, first);
        }
        chosen.insert(first);
    }
    assert!(chosen.len() > 2, "{chosen:?}");
}

#[tokio::test]
async fn requests_are_spread() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    for balance in [Balance::RoundRobin, Balance::Ewma] {
        let proxy = proxy(Backend { balance, ..backend_alone("web") }, &[&a, &b]);
        let mut client = proxy.connect().await;
        let mut chosen = BTreeSet::new();
        for _ in 0..50 {
            chosen.insert(ask(&mut client, "/", None).await.0);
        }
        assert_eq!(chosen.len(), 2);
    }
}
