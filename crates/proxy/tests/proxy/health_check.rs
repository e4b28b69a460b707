//! Active health checks: what endpoints are asked, and where requests go for their answers.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::h2_origin::{Call, H2Origin};
use crate::support::{HOST, TestProxy, backend_alone, config, endpoints, forward, host, route};
use fairway_model::{
    Backend, Delta, Endpoint, EndpointSet, Endpoints, ForwardPolicy, HealthCheck, Probe, Resource, ResourceName, Retry,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Client, Origin, OriginBuilder, Reply, eventually};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

fn http() -> Probe {
    Probe::Http { path: "/healthz?x=1".into(), statuses: vec![(200, 299)] }
}

fn checked(probe: Probe, tls: bool) -> Resource {
    let check = HealthCheck {
        probe,
        tls,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(20),
        unhealthy_after: 2,
        healthy_after: 2,
    };
    Backend { health_check: Some(Box::new(check)), ..backend_alone("web") }.into()
}

/// An endpoint that answers requests, and checks as the switch says.
fn switched(name: &'static str, healthy: &Arc<AtomicBool>) -> OriginBuilder {
    let healthy = healthy.clone();
    Origin::new(name).reply_with(move |request| match &*request.target {
        "/healthz?x=1" if !healthy.load(Ordering::SeqCst) => Reply::status(503),
        _ => Reply::ok().header("x-origin", name),
    })
}

fn admin() -> ProxyConfig {
    ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() }
}

async fn metric(proxy: &TestProxy, name: &str, value: &str) {
    let address = proxy.proxy.admin_address().expect("an admin listener");
    eventually(&format!("{name} to be {value}"), || {
        Box::pin(async move {
            let text = Client::connect(address).await.get("a", "/metrics").await.text();
            let line = text.lines().find(|line| line.starts_with(&format!("fairway_{name}{{")))?;
            (line.rsplit_once(' ')?.1 == value).then_some(())
        })
    })
    .await;
}

fn to_web(addresses: &[std::net::SocketAddr], web: Resource) -> Vec<Resource> {
    let policy = ForwardPolicy { retry: Retry { tries: Some(1), ..Retry::default() }, ..ForwardPolicy::default() };
    vec![web, endpoints("web", addresses), host(HOST, vec![route("/", forward("web", policy))])]
}

/// The endpoints that answer twenty requests over each of two connections.
async fn serving(proxy: &TestProxy) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        for _ in 0..20 {
            let answer = client.get(HOST, "/").await;
            assert_eq!(answer.status, 200);
            seen.extend(answer.header("x-origin").map(str::to_owned));
        }
    }
    seen.sort();
    seen.dedup();
    seen
}

#[tokio::test]
async fn an_unhealthy_endpoint_gets_no_requests_until_it_is_healthy_again() {
    let (good, turning) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (a, b) = (switched("a", &good).start(), switched("b", &turning).start());
    let addresses = [a.address(), b.address()];
    let proxy = TestProxy::start_with(to_web(&addresses, checked(http(), false)), admin());
    assert_eq!(serving(&proxy).await, ["a", "b"], "healthy until found otherwise");
    turning.store(false, Ordering::SeqCst);
    metric(&proxy, "health_unhealthy_endpoints", "1").await;
    assert_eq!(serving(&proxy).await, ["a"]);
    turning.store(true, Ordering::SeqCst);
    metric(&proxy, "health_unhealthy_endpoints", "0").await;
    assert_eq!(serving(&proxy).await, ["a", "b"]);
    let asked = b.seen().into_iter().find(|request| request.target == "/healthz?x=1").expect("a check");
    assert_eq!((&*asked.method, asked.header("host")), ("GET", Some(&*b.address().to_string())));
    assert!(asked.header("user-agent").is_some_and(|agent| agent.starts_with("fairway-health-check/")));

    // Without a healthy endpoint, requests are still served.
    good.store(false, Ordering::SeqCst);
    turning.store(false, Ordering::SeqCst);
    metric(&proxy, "health_unhealthy_endpoints", "2").await;
    assert_eq!(serving(&proxy).await, ["a", "b"]);
}

#[tokio::test]
async fn checks_follow_the_configuration() {
    let healthy = Arc::new(AtomicBool::new(false));
    let (a, b) = (switched("a", &Arc::new(AtomicBool::new(true))).start(), switched("b", &healthy).start());
    let addresses = [a.address(), b.address()];
    let proxy = TestProxy::start_with(to_web(&addresses, backend_alone("web").into()), admin());
    metric(&proxy, "health_checked_endpoints", "0").await;
    proxy.publish([checked(http(), false)]).await;
    metric(&proxy, "health_unhealthy_endpoints", "1").await;
    assert_eq!(serving(&proxy).await, ["a"]);
    proxy.publish([endpoints("web", &addresses[..1])]).await;
    metric(&proxy, "health_checked_endpoints", "1").await;
    metric(&proxy, "health_unhealthy_endpoints", "0").await;
    proxy.publish([endpoints("web", &addresses)]).await;
    metric(&proxy, "health_unhealthy_endpoints", "1").await;
    proxy.publish([Resource::from(backend_alone("web"))]).await;
    metric(&proxy, "health_checked_endpoints", "0").await;
    assert_eq!(serving(&proxy).await, ["a", "b"]);
    proxy.publish([checked(http(), false)]).await;
    metric(&proxy, "health_checked_endpoints", "2").await;
    let removals = vec![ResourceName::Backend(backend_alone("web").name)];
    proxy.publisher.publish(Delta { upserts: Vec::new(), removals }).await;
    metric(&proxy, "health_checked_endpoints", "0").await;
}

#[tokio::test]
async fn no_answer_and_a_wrong_one_are_bad() {
    let a = switched("a", &Arc::new(AtomicBool::new(true))).start();
    let raw = |bytes: &'static str| {
        let name = "raw";
        Origin::new(name).reply_with(move |request| match &*request.target {
            "/" => Reply::ok().header("x-origin", name),
            _ => Reply::raw(bytes).then_close(),
        })
    };
    for bytes in ["", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n"] {
        let b = raw(bytes).start();
        let resources = to_web(&[a.address(), b.address()], checked(http(), false));
        let proxy = TestProxy::start_with(resources, admin());
        metric(&proxy, "health_unhealthy_endpoints", "1").await;
        assert_eq!(serving(&proxy).await, ["a"], "{bytes}");
    }
    let early = raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").start();
    let proxy = TestProxy::start_with(to_web(&[early.address()], checked(http(), false)), admin());
    eventually("three checks", || Box::pin(async { early.requests() >= 3 })).await;
    metric(&proxy, "health_check_failures_total", "0").await;
}

/// A gRPC endpoint whose service `shop.Orders` serves as the switch says.
async fn grpc(serves: &Arc<AtomicBool>, tls: Option<&fairway_testkit::Leaf>) -> H2Origin {
    let serves = serves.clone();
    H2Origin::with(&h2::server::Builder::new(), tls, move |mut call: Call| {
        let serves = serves.clone();
        async move {
            assert_eq!(call.request.uri().path(), "/grpc.health.v1.Health/Check");
            let (asked, _) = call.body().await;
            let mut response = Response::new(());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let Ok(mut send) = call.respond.send_response(response, false) else { return };
            let known = asked == b"\0\0\0\0\x0d\x0a\x0bshop.Orders";
            if known {
                let state = if serves.load(Ordering::SeqCst) { 1 } else { 2 };
                let _ = send.send_data(vec![0, 0, 0, 0, 2, 8, state].into(), false);
            }
            let status = HeaderValue::from_static(if known { "0" } else { "5" });
            let _ = send.send_trailers(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]));
        }
    })
    .await
}

#[tokio::test]
async fn services_of_grpc_are_asked_by_their_own_protocol() {
    let leaf = Ca::new("nobody knows it").leaf(&["x.example"]);
    for tls in [None, Some(&leaf)] {
        let serves = Arc::new(AtomicBool::new(true));
        let origin = grpc(&serves, tls).await;
        let probe = |service: &str| checked(Probe::Grpc { service: service.into() }, tls.is_some());
        let proxy = TestProxy::start_with(to_web(&[origin.address], probe("shop.Orders")), admin());
        metric(&proxy, "health_checked_endpoints", "1").await;
        serves.store(false, Ordering::SeqCst);
        metric(&proxy, "health_unhealthy_endpoints", "1").await;
        serves.store(true, Ordering::SeqCst);
        metric(&proxy, "health_unhealthy_endpoints", "0").await;
        proxy.publish([probe("shop.Unknown")]).await;
        metric(&proxy, "health_unhealthy_endpoints", "1").await;
    }
}

/// More endpoints than are checked at a time accept connections and never answer.
#[tokio::test]
async fn silent_endpoints_of_one_namespace_keep_no_other_one_waiting() {
    let silent: Vec<_> = (0..100).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let addresses: Vec<_> = silent.iter().map(|listener| listener.local_addr().expect("an address")).collect();
    let check = |name: &str| {
        let check = HealthCheck {
            probe: http(),
            tls: false,
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(3600),
            unhealthy_after: 1,
            healthy_after: 1,
        };
        Resource::from(Backend { name: name.into(), health_check: Some(Box::new(check)), ..backend_alone("web") })
    };
    let set = |name: &str, addresses: &[std::net::SocketAddr]| {
        let endpoints = addresses.iter().map(|address| Endpoint::ready(*address)).collect();
        Resource::from(EndpointSet { backend: name.into(), endpoints: Endpoints::Addresses(endpoints) })
    };
    let proxy = TestProxy::start_with([check("one/web:80"), set("one/web:80", &addresses)], admin());
    metric(&proxy, "health_checked_endpoints", "100").await;
    for listener in &silent {
        listener.set_nonblocking(true).expect("a socket");
    }
    let held = RefCell::new(Vec::new());
    eventually("as many checks as one namespace may have", async || {
        held.borrow_mut().extend(silent.iter().filter_map(|listener| listener.accept().ok()));
        held.borrow().len() >= 16
    })
    .await;
    let bad = switched("bad", &Arc::new(AtomicBool::new(false))).start();
    proxy.publish([check("other/web:80"), set("other/web:80", &[bad.address()])]).await;
    metric(&proxy, "health_unhealthy_endpoints", "1").await;
    held.borrow_mut().extend(silent.iter().filter_map(|listener| listener.accept().ok()));
    assert_eq!(held.borrow().len(), 16, "the others wait");
}
