//! The proxy's work for a request besides forwarding it allocates nothing after the first time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use fairway_model::client::{Arrival, ClientView};
use fairway_model::{
    AccessLog, Action, Affinity, AffinityMode, Backend, Balance, Endpoint, Forward, HashBalance, Host, HostPattern,
    Origin, PathMatch, Protocol, Route, SameSite, Scheme, SessionCookie, Settings, Template,
};
use fairway_proxy::access_log::{LogRules, LogSink, LogThread};
use fairway_proxy::balance::{Ask, Balancer, TryOutcome, backend_key, cookie};
use fairway_proxy::http::{FieldsView, HeadLimits, KnownSet, RequestHead, Spanned};
use fairway_proxy::http1::HeadWriter;
use fairway_proxy::metrics::{MetricOptions, WorkerMetrics};
use fairway_proxy::random::Rng;
use fairway_proxy::record::{RequestRecord, Try};

const REQUEST: &[u8] =
    b"GET /a/b?c=d HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8\r\nX-Forwarded-For: 1.2.3.4\r\n\
    Cookie: INGRESSCOOKIE=unknown|x\r\n\r\n";

fn backend(balance: Balance, affinity: Option<AffinityMode>) -> Backend {
    Backend {
        name: "default/web:80".into(),
        origin: Origin::new("Service", "default", "web"),
        port: "80".into(),
        upstream_name: "default-web-80".into(),
        protocol: Protocol::Http1,
        balance,
        affinity: affinity.map(|mode| Affinity { mode, cookie: session_cookie(), change_on_failure: true }),
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    }
}

fn session_cookie() -> SessionCookie {
    SessionCookie {
        name: "INGRESSCOOKIE".into(),
        expires: None,
        max_age: Some(3600),
        domain: Some("shop.example".into()),
        secure: true,
        same_site: Some(SameSite::None),
        conditional_same_site_none: true,
    }
}

fn steady(what: &str, mut step: impl FnMut()) {
    step();
    step();
    let counted = measure(|| (0..100).for_each(|_| step()));
    assert_eq!(counted.count_total, 0, "{what}: {counted:?}");
}

#[test]
fn choosing_an_endpoint() {
    let endpoints: Vec<_> = (1..=9u8)
        .map(|last| Endpoint { weight: u16::from(last), ..Endpoint::ready(([10, 0, 0, last], 80).into()) })
        .collect();
    let key = HashBalance { key: Template::parse("$request_uri"), subset: None };
    let subset = HashBalance { subset: Some(2), ..key.clone() };
    for balance in
        [Balance::RoundRobin, Balance::Ewma, Balance::LeastRequest, Balance::Hash(key), Balance::Hash(subset)]
    {
        for affinity in [None, Some(AffinityMode::Balanced), Some(AffinityMode::Persistent)] {
            let what = format!("{balance:?} {affinity:?}");
            let backend = backend(balance.clone(), affinity);
            let mut rng = Rng::from_os();
            let mut balancer = Balancer::new(&backend, &endpoints, &mut rng, Instant::now());
            let (mut out, attributes) = (Vec::new(), session_cookie());
            let second_part = backend_key(&backend.upstream_name);
            let at =
                cookie::Circumstances { path: "/", tls: true, user_agent: b"curl/8", now: 1_795_244_400, ends: None };
            steady(&what, || {
                let now = Instant::now();
                let mut tried: [SocketAddr; 1] = [([10, 0, 0, 1], 80).into()];
                for session in [None, Some(&b"1795244400.123.31.22|x"[..])] {
                    let first = Ask { session, hash_key: b"/a", tried: &[], ejected: &[], unhealthy: &[], now };
                    let pick = balancer.pick(&first).expect("there are endpoints");
                    tried[0] = pick.endpoint;
                    let second = balancer.pick(&Ask { tried: &tried, ..first }).expect("there are endpoints");
                    balancer.done(&pick, TryOutcome::Failed, now);
                    balancer.done(&second, TryOutcome::Answered(Duration::from_millis(2)), now);
                    out.clear();
                    if let Some(key) = &second.session {
                        cookie::write(&mut out, &attributes, key, &second_part, &at);
                    }
                }
            });
        }
    }
}

#[test]
fn deciding_about_the_client_counting_and_logging() {
    let mut head = RequestHead::default();
    head.parse(REQUEST, &HeadLimits::default()).expect("a request");
    let arrival = Arrival::new(([10, 1, 2, 3], 4567).into(), ([127, 0, 0, 1], 443).into(), Scheme::Https);
    let forward = Forward {
        backends: "default/web:80".into(),
        fallback: None,
        session_cookie_path: None,
        policy: Arc::default(),
    };
    let route = Route::new(
        Origin::new("Ingress", "default", "web"),
        PathMatch::prefix("/a").expect("a path"),
        Action::Forward(forward),
    );
    let host = Host::new("t".into(), HostPattern::parse("shop.example").expect("a host"), vec![route]);
    let backend = backend(Balance::RoundRobin, None);
    let tries = [Try {
        endpoint: ([10, 0, 0, 1], 80).into(),
        status: 200,
        reason: None,
        connect: Some(Duration::ZERO),
        header: Some(Duration::from_millis(3)),
        response: Duration::from_millis(4),
        body_received: 11,
        received: 140,
        sent: 120,
    }];
    let mut settings = Settings::default();
    settings.forwarded.trust = true;
    settings.forwarded.append = true;
    settings.access_log = AccessLog { skip: vec!["/healthz".into(), "~^/probe".into()], ..AccessLog::default() };
    let rules = LogRules::new(&settings.access_log, None);
    let thread = LogThread::start(LogSink::Writer(Box::new(std::io::sink()))).expect("a thread");
    let log = thread.handle().writer();
    let mut metrics = WorkerMetrics::new(Arc::new(MetricOptions::default()));
    let mut rng = Rng::from_os();
    let mut client = ClientView::default();
    let mut out = Vec::new();
    steady("client, metrics, log", || {
        client.decide(&arrival, &head.view(REQUEST), &settings, || rng.bits());
        out.clear();
        let mut writer = HeadWriter::new(&mut out);
        client.write_fields::<FieldsView<'_>, _>(&mut writer, KnownSet::EMPTY, None);
        writer.finish();
        let record = RequestRecord {
            peer: arrival.peer,
            proxied: None,
            identity: None,
            variables: None,
            trace: None,
            geo: None,
            local: arrival.local,
            tls: None,
            connection: 1,
            connection_requests: 1,
            pipelined: false,
            head: Some(Spanned { parsed: &head, bytes: REQUEST }),
            broken_line: b"",
            client: &client,
            path: b"/a/b",
            judged_path: None,
            grpc_status: None,
            user: b"",
            host: Some(&host),
            route: host.routes().first(),
            backend: Some(&backend),
            alternative: None,
            cause: None,
            status: 200,
            body_sent: 11,
            sent: 150,
            received: 99,
            duration: Duration::from_millis(12),
            tries: &tries,
            upstream_fields: None,
            sent_head: b"",
        };
        metrics.record(&record);
        assert!(rules.admits(&record));
        log.log(rules.format(), &record, 1 << 17);
    });
}

/// Written buffers are returned, so a log under load allocates no more than its few buffers.
#[test]
fn a_busy_log_recycles_its_buffers() {
    let thread = LogThread::start(LogSink::Writer(Box::new(std::io::sink()))).expect("a thread");
    let log = thread.handle().writer();
    let settings = AccessLog { format: Template::parse(&"x".repeat(1000)), ..AccessLog::default() };
    let rules = LogRules::new(&settings, None);
    let client = ClientView::default();
    let none: SocketAddr = ([127, 0, 0, 1], 1).into();
    let record = RequestRecord {
        peer: none,
        proxied: None,
        identity: None,
        variables: None,
        trace: None,
        geo: None,
        local: none,
        tls: None,
        connection: 1,
        connection_requests: 1,
        pipelined: false,
        head: None,
        broken_line: b"",
        client: &client,
        path: b"",
        judged_path: None,
        grpc_status: None,
        user: b"",
        host: None,
        route: None,
        backend: None,
        alternative: None,
        cause: None,
        status: 400,
        body_sent: 0,
        sent: 0,
        received: 0,
        duration: Duration::ZERO,
        tries: &[],
        upstream_fields: None,
        sent_head: b"",
    };
    let round = || {
        (0..100).for_each(|_| log.log(rules.format(), &record, 1 << 17));
        log.flush();
        assert!(thread.synchronize(Duration::from_secs(10)));
    };
    (0..5).for_each(|_| round());
    // The channel used to wait for the writer allocates by itself, only in the test.
    let waiting = measure(|| assert!(thread.synchronize(Duration::from_secs(10)))).count_total;
    let counted = measure(|| (0..10).for_each(|_| round()));
    // A wait that has to block allocates more; a thousand lines would cost a thousand allocations.
    assert!(counted.count_total <= 10 * (waiting + 4), "{counted:?}, {waiting} for waiting");
    assert_eq!(thread.dropped(), 0);
}
