//! What one client may do: how often it may send requests, how many may be in progress, how fast it gets a response.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use crate::support::{HOST, TestProxy, backend, config, filtered, forward, host, route};
use fairway_model::{
    Bandwidth, ClientLimits, Filter, ForwardPolicy, NetworkSet, RequestRate, Resource, Respond, Route, Settings,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Gate, Origin, Reply, eventually};

fn limits(change: impl FnOnce(&mut ClientLimits)) -> ClientLimits {
    let mut limits = ClientLimits {
        scope: "shop/web".into(),
        per_second: None,
        per_minute: None,
        in_progress: None,
        exempt: NetworkSet::default(),
        over_rate: Respond::page(429),
        over_requests: Respond::page(509),
    };
    change(&mut limits);
    limits
}

/// One request an hour, and this burst.
fn hourly(burst: u32) -> Option<RequestRate> {
    Some(RequestRate { requests: NonZeroU32::MIN, period: Duration::from_secs(3600), burst })
}

fn limited(path: &str, limits: ClientLimits) -> Route {
    let filters = vec![Filter::ClientLimits(Box::new(limits))];
    filtered(route(path, forward("web", ForwardPolicy::default())), filters)
}

fn serving(origin: &Origin, routes: Vec<Route>, settings: Settings) -> TestProxy {
    let mut resources = backend("web", &[origin.address()]);
    resources.extend([host(HOST, routes), Resource::from(settings)]);
    TestProxy::start_with(resources, ProxyConfig { workers: NonZeroUsize::new(4), ..config() })
}

#[tokio::test]
async fn a_rate_counts_over_all_workers_connections_and_routes_of_a_scope() {
    let origin = Origin::start("a");
    let both = limits(|limits| limits.per_minute = hourly(5));
    let other = ClientLimits { scope: "shop/other".into(), ..both.clone() };
    let routes = vec![limited("/", both.clone()), limited("/a", both), limited("/b", other)];
    let proxy = serving(&origin, routes, Settings::default());
    let mut statuses = Vec::new();
    for turn in 0..24 {
        // The kernel spreads new connections over the workers.
        let mut client = proxy.connect().await;
        statuses.push(client.get(HOST, if turn % 2 == 0 { "/" } else { "/a" }).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 6, "{statuses:?}");
    assert_eq!(statuses[6..], [429; 18]);
    assert_eq!(origin.requests(), 6);
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/b").await.status, 200, "another scope");
    assert_eq!(client.get(HOST, "/").await.status, 429, "on a kept connection");
    let mut another = Client::builder().source([127, 0, 0, 2]).connect(proxy.http).await;
    assert_eq!(another.get(HOST, "/").await.status, 200, "another client");
}

#[tokio::test]
async fn replicas_share_a_rate_and_exempt_networks_have_none() {
    let origin = Origin::start("a");
    let exempt = NetworkSet::from_iter(["127.0.0.2/32".parse().unwrap()]);
    let limits = limits(|limits| (limits.per_second, limits.exempt) = (hourly(5), exempt));
    let settings = Settings { replicas: NonZeroU32::new(3).unwrap(), ..Settings::default() };
    let proxy = serving(&origin, vec![limited("/", limits)], settings);
    let mut client = proxy.connect().await;
    for expected in [200, 200, 429] {
        assert_eq!(client.get(HOST, "/").await.status, expected);
    }
    let mut exempt = Client::builder().source([127, 0, 0, 2]).connect(proxy.http).await;
    for _ in 0..4 {
        assert_eq!(exempt.get(HOST, "/").await.status, 200);
    }
}

#[tokio::test]
async fn requests_in_progress_count_until_they_end_however_they_end() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let limits = limits(|limits| limits.in_progress = NonZeroU32::new(2));
    let proxy = serving(&origin, vec![limited("/", limits)], Settings::default());
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let (mut first, mut second) = (proxy.connect().await, proxy.connect().await);
    first.send(&request).await;
    second.send(&request).await;
    gate.reached(2).await;
    let mut third = proxy.connect().await;
    assert_eq!(third.get(HOST, "/").await.status, 509);
    // One client goes away, the other one gets its response.
    second.reset();
    gate.release();
    assert_eq!(first.read_response().await.status, 200);
    // Boxed: without optimisation these futures are too large for the stack of a test.
    let ask = || Box::pin(async { proxy.connect().await.get(HOST, "/").await.status == 200 });
    Box::pin(eventually("both places are free", ask)).await;
}

#[tokio::test]
async fn a_response_is_sent_no_faster_than_the_bandwidth() {
    let body = vec![b'x'; 600 << 10];
    let origin = Origin::new("a").reply(Reply::ok().body(body.clone())).start();
    let rate = NonZeroU64::new(200 << 10).unwrap();
    let policy = |bandwidth| ForwardPolicy { bandwidth, ..ForwardPolicy::default() };
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host(
        HOST,
        vec![
            route("/slow", forward("web", policy(Some(Bandwidth { rate, after: 0 })))),
            route("/after", forward("web", policy(Some(Bandwidth { rate: NonZeroU64::MIN, after: 600 << 10 })))),
        ],
    ));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    let begun = Instant::now();
    assert_eq!(client.get(HOST, "/slow").await.body, body);
    // A second's worth arrives at once, and the last piece is at most a large buffer.
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    assert_eq!(client.get(HOST, "/after").await.body, body);
}
