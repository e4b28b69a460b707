//! One record per request in the access log and in the metrics, however the request ends.

use std::num::NonZeroU16;
use std::time::Duration;

use crate::support;
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, config, forward, forwarding, host, route};
use fairway_model::{
    AccessLog, Backend, Balance, Delta, EndpointSet, Endpoints, ForwardPolicy, Resource, ResourceName, Retry, Settings,
    Syslog,
};
use fairway_proxy::{ProxyConfig, UnreachableSink};
use fairway_testkit::{Client, Fault, Gate, Origin, Reply, eventually};

#[tokio::test]
async fn each_request_is_one_line_whatever_became_of_it() {
    let lines = Lines::default();
    let format = "$status $request_method $request_uri $host $proxy_upstream_name $upstream_addr $upstream_status \
                  $body_bytes_sent $request_length $sent_http_content_length $ingress_name";
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().body("hello")).start();
    let refused = Origin::new("down").fault(Fault::Refuse).start();
    let mut resources = forwarding(&[&origin], ForwardPolicy::default());
    resources.extend(support::backend("down", &[refused.address()]));
    let policy = ForwardPolicy { retry: Retry { tries: Some(2), ..Retry::default() }, ..ForwardPolicy::default() };
    resources.push(host("down.example", vec![route("/", forward("down", policy))]));
    let proxy = TestProxy::start_with(resources, logging(&lines, format));
    let at = origin.address();
    let mut client = proxy.connect().await;
    client.get(HOST, "/x?y").await;
    client.get("down.example", "/").await;
    client.get("unknown.example", "/").await;
    client.send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    client.read_response().await;
    origin.set_reply(Reply::ok().held_by(&gate));
    let mut gone = proxy.connect().await;
    gone.send(format!("GET /gone HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    gone.reset();
    let lines = lines.after(5).await;
    let line = format!("200 GET /x?y {HOST} default-web-80 {at} 200 5 ");
    assert!(lines[0].starts_with(&line), "{lines:?}");
    assert!(lines[0].ends_with(" 5 app"), "{lines:?}");
    let twice = format!("{0}, {0} 502, 502", refused.address());
    assert!(lines[1].starts_with(&format!("502 GET / down.example default-down-80 {twice}")), "{lines:?}");
    assert!(lines[2].starts_with("404 GET / unknown.example"), "{lines:?}");
    assert!(lines[3].starts_with("400 "), "{lines:?}");
    assert!(lines[4].starts_with(&format!("499 GET /gone {HOST} default-web-80 {at} 499")), "{lines:?}");
}

#[tokio::test]
async fn a_body_that_was_cut_and_a_request_at_the_stop_are_lines_too() {
    let lines = Lines::default();
    let gate = Gate::new();
    let reply = Reply::ok().chunked(["abcdef"]).cut_body_after(6).then_close();
    let origin = Origin::new("a").reply(reply).start();
    let resources = forwarding(&[&origin], ForwardPolicy::default());
    let proxy = TestProxy::start_with(resources, logging(&lines, "$status $body_bytes_sent $request_uri"));
    let mut client = proxy.connect().await;
    client.send(format!("GET /cut HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(client.try_read_response().await.is_err());
    origin.set_reply(Reply::ok().held_by(&gate));
    let mut waiting = proxy.connect().await;
    waiting.send(format!("GET /waiting HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    proxy.proxy.stop_now();
    let mut lines = lines.after(2).await;
    // They may come from two workers.
    lines.sort();
    assert_eq!(lines, ["200 6 /cut", "499 0 /waiting"]);
}

#[tokio::test]
async fn health_readiness_metrics_and_the_snapshot_are_served_apart() {
    let origin = Origin::new("a").reply(Reply::ok().body("hello")).start();
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() };
    let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), config);
    let mut admin = Client::connect(proxy.proxy.admin_address().unwrap()).await;
    assert_eq!(admin.get("a", "/readyz").await.status, 503);
    proxy.proxy.readiness().serving();
    assert_eq!(admin.get("a", "/readyz").await.status, 200);
    assert_eq!(admin.get("a", "/healthz").await.status, 200);
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.get(HOST, "/").await;
    }
    // The record of the last request is made after its response.
    let line = eventually("three requests in the metrics", || {
        let address = proxy.proxy.admin_address().unwrap();
        // Boxed: a client is too large for the stack of nested futures in a debug build.
        Box::pin(async move {
            let text = Client::connect(address).await.get("a", "/metrics").await.text();
            let found = text.lines().find(|line| line.starts_with("nginx_ingress_controller_requests{"))?;
            found.ends_with(" 3").then(|| found.to_owned())
        })
    })
    .await;
    for label in ["ingress=\"app\"", "namespace=\"default\"", "service=\"web\"", "status=\"200\"", "method=\"GET\""] {
        assert!(line.contains(label), "{line}");
    }
    let text = admin.get("a", "/metrics").await.text();
    assert!(text.contains("nginx_process_connections{"), "{text}");
    let snapshot = admin.get("a", "/debug/snapshot").await.text();
    assert!(snapshot.contains(HOST), "{snapshot}");
    let mut stopping = proxy;
    let readiness = stopping.proxy.readiness();
    stopping.proxy.drain(Duration::ZERO, Duration::from_secs(5)).await;
    assert_eq!(readiness.stage(), fairway_proxy::admin::Stage::Draining);
}

#[tokio::test]
async fn a_name_as_endpoint_is_resolved_and_loopback_is_refused() {
    let origin = Origin::start("a");
    let named = |host: &str| {
        Resource::from(EndpointSet {
            backend: "default/web:80".into(),
            endpoints: Endpoints::Name { host: host.into(), port: origin.port() },
        })
    };
    let resources = |config| {
        let backend = Backend { balance: Balance::RoundRobin, ..support::backend_alone("web") };
        let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
        TestProxy::start_with([backend.into(), named("127.0.0.1"), host(HOST, routes)], config)
    };
    let refused = resources(config());
    assert_eq!(refused.connect().await.get(HOST, "/").await.status, 503);
    let mut allowing = config();
    allowing.addresses.allowed = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let allowed = resources(allowing);
    let http = allowed.http;
    eventually("the name to lead somewhere", || {
        Box::pin(async move { Client::connect(http).await.get(HOST, "/").await.status == 200 })
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_edited_leads_to_the_old_one_no_more() {
    let (old, new) = (Origin::start("old"), Origin::start("new"));
    let named = |host: &str, port| {
        Resource::from(EndpointSet {
            backend: "default/web:80".into(),
            endpoints: Endpoints::Name { host: host.into(), port },
        })
    };
    let mut config = config();
    config.addresses.allowed = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
    let resources = [support::backend_alone("web").into(), named("127.0.0.1", old.port()), host(HOST, routes)];
    let proxy = TestProxy::start_with(resources, config);
    let http = proxy.http;
    let answers = |origin: &'static str| async move {
        eventually("the name to lead somewhere", || {
            Box::pin(async move {
                let response = Client::connect(http).await.get(HOST, "/").await;
                response.status == 200 && response.echo().origin == origin
            })
        })
        .await;
    };
    answers("old").await;
    // Names under .invalid never exist (RFC 6761 6.4).
    proxy.publish([named("gone.invalid", old.port())]).await;
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 503);
    proxy.publish([named("127.0.0.1", new.port())]).await;
    answers("new").await;
    proxy.publish([named("127.0.0.1", old.port())]).await;
    let response = proxy.connect().await.get(HOST, "/").await;
    assert!(response.status == 503 || response.echo().origin == "old", "{}", response.status);
    answers("old").await;
}

#[tokio::test]
async fn endpoints_here_are_refused_and_counted() {
    let origin = Origin::start("a");
    let mut config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() };
    config.addresses.loopback_endpoints = false;
    let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), config);
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 503);
    let admin = proxy.proxy.admin_address().unwrap();
    let text = Client::connect(admin).await.get("a", "/metrics").await.text();
    let refused = text.lines().find(|line| line.starts_with("fairway_endpoints_refused_total{"));
    assert!(refused.is_some_and(|line| line.ends_with(" 1")), "{text}");
}

#[tokio::test]
async fn the_admin_listener_is_no_endpoint() {
    let origin = Origin::start("a");
    let config = ProxyConfig { admin: Some(([0, 0, 0, 0], 0).into()), ..config() };
    let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), config);
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let admin = ([127, 0, 0, 1], proxy.proxy.admin_address().unwrap().port()).into();
    proxy.publish([support::endpoints("web", &[admin])]).await;
    assert_eq!(client.get(HOST, "/").await.status, 503);
}

#[tokio::test]
async fn the_hash_follows_the_configuration() {
    let start = || {
        let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() };
        TestProxy::start_with([], config)
    };
    let hash = async |proxy: &TestProxy| {
        let text = Client::connect(proxy.proxy.admin_address().unwrap()).await.get("a", "/metrics").await.text();
        let line = text.lines().find(|line| line.starts_with("nginx_ingress_controller_config_hash{")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let (one, other) = (start(), start());
    let named = |name: &str, path: &str| host(name, vec![route(path, forward("web", ForwardPolicy::default()))]);
    let empty = hash(&one).await;
    one.publish([named("a.example", "/"), named("b.example", "/")]).await;
    let first = hash(&one).await;
    assert!(first != empty && first != "0", "{first}");
    // The same configuration, reached in another order and through another one.
    other.publish([named("b.example", "/x")]).await;
    other.publish([named("b.example", "/"), named("a.example", "/y"), named("a.example", "/")]).await;
    assert_eq!(hash(&other).await, first);
    one.publish([named("a.example", "/z")]).await;
    assert_ne!(hash(&one).await, first);
    one.publish([named("a.example", "/")]).await;
    assert_eq!(hash(&one).await, first);
}

#[tokio::test]
async fn a_backend_that_relies_on_accel_redirect_is_a_finding() {
    let origin = Origin::new("a")
        .reply_with(|request| match &*request.target {
            "/file" => Reply::ok().header("X-Accel-Redirect", "/protected/file").body("x"),
            _ => Reply::ok().body("x"),
        })
        .start();
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() };
    let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), config);
    let (mut client, mut admin) = (proxy.connect().await, Client::connect(proxy.proxy.admin_address().unwrap()).await);
    assert_eq!(client.get(HOST, "/").await.status, 200);
    assert_eq!(admin.get("a", "/debug/findings").await.text(), "[]");
    for _ in 0..2 {
        assert_eq!(client.get(HOST, "/file").await.header("x-accel-redirect"), None);
    }
    let findings = admin.get("a", "/debug/findings").await.text();
    assert_eq!(findings.matches("AccelRedirectIgnored").count(), 1, "{findings}");
    let metrics = admin.get("a", "/metrics").await.text();
    let line = ",severity=\"warning\",reason=\"AccelRedirectIgnored\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    // Without the backend there is no finding about it.
    proxy
        .proxy
        .publisher()
        .publish(Delta { removals: vec![ResourceName::Backend("default/web:80".into())], ..Delta::default() })
        .await;
    assert_eq!(admin.get("a", "/debug/findings").await.text(), "[]");
}

#[tokio::test]
async fn a_backend_whose_endpoints_all_refuse_is_reported_with_each_of_them() {
    let down = [Origin::new("one").fault(Fault::Refuse).start(), Origin::new("two").fault(Fault::Refuse).start()];
    let up = Origin::new("up").start();
    let policy = ForwardPolicy { retry: Retry { tries: Some(2), ..Retry::default() }, ..ForwardPolicy::default() };
    let mut resources = forwarding(&[&up], ForwardPolicy::default());
    resources.extend(support::backend("half", &[down[0].address(), up.address()]));
    resources.push(host("half.example", vec![route("/", forward("half", policy.clone()))]));
    resources.extend(support::backend("down", &[down[0].address(), down[1].address()]));
    resources.push(host("down.example", vec![route("/", forward("down", policy))]));
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let unreachable = UnreachableSink::new(move |one| drop(sender.send(one)));
    let proxy = TestProxy::start_with(resources, ProxyConfig { unreachable, ..config() });
    let mut client = proxy.connect().await;
    for _ in 0..4 {
        assert_eq!(client.get("half.example", "/").await.status, 200);
    }
    assert_eq!(client.get("down.example", "/").await.status, 502);
    let one = told.recv().await.unwrap();
    assert_eq!((&*one.origin.kind, &*one.origin.name), ("Ingress", "app"));
    assert_eq!(one.backend, "default/down:80".into());
    let mut found: Vec<_> = one.endpoints.iter().map(|(address, reason)| (*address, reason.as_str())).collect();
    found.sort_unstable();
    let mut expected: Vec<_> = down.iter().map(|origin| (origin.address(), "connect_refused")).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(told.try_recv().is_err(), "the other one was not reported");
}

#[tokio::test]
async fn lines_go_to_a_syslog_server_while_one_is_set() {
    let (lines, server) = (Lines::default(), tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let origin = Origin::start("a");
    let to = |host: &str, port| {
        let syslog = NonZeroU16::new(port).map(|port| Syslog { host: host.into(), port });
        Resource::from(Settings { access_log: AccessLog { syslog, ..AccessLog::default() }, ..Settings::default() })
    };
    let mut resources = forwarding(&[&origin], ForwardPolicy::default());
    resources.push(to("127.0.0.1", server.local_addr().unwrap().port()));
    let proxy = TestProxy::start_with(resources, logging(&lines, "$request_uri $status"));
    let mut client = proxy.connect().await;
    for path in ["/a", "/b"] {
        client.get(HOST, path).await;
        let mut datagram = [0; 2048];
        let count = server.recv(&mut datagram).await.unwrap();
        let text = std::str::from_utf8(&datagram[..count]).unwrap();
        assert!(text.starts_with("<190>") && text.ends_with(&format!(" nginx: {path} 200")), "{text}");
    }
    // A server that can't be reached costs lines, and never requests.
    proxy.publish([to("no-such-host.invalid", 514)]).await;
    client.get(HOST, "/lost").await;
    proxy.publish([to("", 0)]).await;
    client.get(HOST, "/c").await;
    eventually("a line in the log", || async { lines.text().contains("/c 200") }).await;
    assert!(!lines.text().contains("/a"), "{}", lines.text());
}
