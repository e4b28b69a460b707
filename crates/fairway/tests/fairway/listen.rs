//! `fairway run` where the operating system refuses an address or a port.

use std::net::{TcpListener, TcpStream};

use crate::support::run::{ConfigMap, Run, api_server_with};
use fairway_testkit::{Client, Origin};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_before_http_and_https_are_open() {
    let origin = Origin::start("web");
    // No machine has the address (RFC 5737).
    let nowhere = json!({"bind-address": "192.0.2.1"});
    let config = ConfigMap::new([nowhere.clone(), json!({"bind-address": "127.0.0.1"}), nowhere]);
    let api = api_server_with(&origin, &config);
    let mut run = Run::start(api.address(), &["--configmap=edge/config"]);
    let line = run.line_with("not ready");
    for part in ["http 192.0.2.1:0", "https 192.0.2.1:0", "bind-address"] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!((run.status_of("/readyz").await, run.status_of("/healthz").await), (503, 500));

    config.change();
    let http = run.serving_at("127.0.0.1");
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    assert_eq!((run.status_of("/readyz").await, run.status_of("/healthz").await), (200, 200));

    // From now on, a mistake leaves open listeners open.
    config.change();
    run.line_with("can't listen");
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    assert_eq!((run.status_of("/readyz").await, run.status_of("/healthz").await), (200, 200));
}

/// `bind-address` has only addresses that `disable-ipv6` forbids.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_not_ready_without_any_address_for_http() {
    let origin = Origin::start("web");
    let config = ConfigMap::new([json!({"bind-address": "::1", "disable-ipv6": "true"})]);
    let api = api_server_with(&origin, &config);
    let mut run = Run::start(api.address(), &["--configmap=edge/config"]);
    let line = run.line_with("not ready");
    assert!(line.contains("disable-ipv6"), "{line}");
    assert_eq!(run.status_of("/readyz").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_somebody_else_has_keeps_nobody_from_being_served() {
    let origin = Origin::start("web");
    let taken = taken();
    let port = taken.local_addr().unwrap().port();
    let entry = |value: &str| json!({(port.to_string()): value});
    let config = ConfigMap::new([entry("shop/web:80"), entry("shop/web:80::PROXY")]);
    let api = api_server_with(&origin, &config);
    let mut run = Run::start(api.address(), &["--tcp-services-configmap=edge/config"]);
    let line = run.line_with("can't listen");
    assert!(line.contains(&format!("listener=tcp-{port}")) && line.contains("advice="), "{line}");
    let http = run.serving();
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    assert_eq!(run.status_of("/readyz").await, 200);

    // The refusal is logged once, and so is its end.
    config.change();
    run.line_with(" published ");
    drop(taken);
    let line = run.line_with("listening at last");
    assert!(line.contains(&format!("listener=tcp-{port}")), "{line}");
    assert_eq!(run.log().matches("can't listen").count(), 1, "{}", run.log());
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

/// A port held on all addresses. The kernel never assigns it to a socket bound to port 0, even once it is free again.
fn taken() -> TcpListener {
    (0..10_000)
        .map(|at| 20_000 + u16::try_from((std::process::id() + at) % 10_000).expect("less than 10000"))
        .find_map(|port| TcpListener::bind(("0.0.0.0", port)).ok())
        .expect("a free port below those that the kernel gives")
}
