//! Listeners that the operating system refuses: reported once, then retried repeatedly.

use std::net::{SocketAddr, TcpListener};

use crate::support::{HOST, TestProxy, config, endpoints, table};
use fairway_model::{Delta, Listener, Origin as Owner, Resource, ResourceName, Scheme, StreamListener, Transport};
use fairway_proxy::{ProxyConfig, Published};
use fairway_testkit::{Client, Origin};

/// A port of a service without endpoints.
fn port_at(address: SocketAddr) -> Resource {
    Resource::from(StreamListener {
        name: "service".into(),
        origin: Owner::built_in("test"),
        address,
        transport: Transport::Tcp { accept_proxy: false, send_proxy: false },
        backend: "default/none:80".into(),
    })
}

/// A change that doesn't concern listeners.
fn unrelated(number: u8) -> Resource {
    endpoints("other", &[([127, 0, 0, number], 80).into()])
}

/// For each refused listener, whether its refusal is known, and the number of listeners opened at last.
fn outcome(published: &Published) -> (Vec<bool>, usize) {
    (published.refused.iter().map(|refused| refused.known).collect(), published.opened.len())
}

/// `config_last_reload_successful`, `success` and `errors`.
async fn figures(proxy: &TestProxy) -> [u64; 3] {
    let text = Client::connect(proxy.proxy.admin_address().expect("an admin listener"))
        .await
        .get("localhost", "/metrics")
        .await
        .text();
    ["config_last_reload_successful", "success", "errors"].map(|name| {
        let name = format!("nginx_ingress_controller_{name}");
        let line = text.lines().find(|line| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    })
}

fn start() -> TestProxy {
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..config() };
    TestProxy::start_with([], config)
}

async fn publish(proxy: &TestProxy, resource: Resource) -> (Vec<bool>, usize) {
    outcome(&proxy.publisher.publish(Delta::upsert([resource])).await)
}

async fn listen_again(proxy: &TestProxy) -> Option<(Vec<bool>, usize)> {
    proxy.publisher.listen_again().await.as_ref().map(outcome)
}

#[tokio::test]
async fn a_refused_listener_is_told_once_and_counted_once() {
    let proxy = start();
    assert_eq!(figures(&proxy).await, [1, 1, 0]);
    let (first, second) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = first.local_addr().unwrap();
    assert_eq!(publish(&proxy, port_at(address)).await, (vec![false], 0));
    assert_eq!(figures(&proxy).await, [0, 1, 1]);
    // Other changes apply, but not all of the configuration is in effect.
    for number in 1..=3 {
        assert_eq!(publish(&proxy, unrelated(number)).await, (vec![true], 0));
    }
    assert_eq!(listen_again(&proxy).await, Some((vec![true], 0)));
    assert_eq!(figures(&proxy).await, [0, 4, 1]);
    // Another address is a new refusal.
    assert_eq!(publish(&proxy, port_at(second.local_addr().unwrap())).await, (vec![false], 0));
    assert_eq!(publish(&proxy, port_at(address)).await, (vec![false], 0));
    assert_eq!(figures(&proxy).await, [0, 4, 3]);
    // So is one that no machine has (RFC 5737).
    let nowhere = SocketAddr::from(([192, 0, 2, 1], address.port()));
    assert_eq!(publish(&proxy, port_at(nowhere)).await, (vec![false], 0));
    // A refusal that was gone is new when it returns.
    let removal = ResourceName::StreamListener("service".into());
    let gone = proxy.publisher.publish(Delta { removals: vec![removal], ..Delta::default() }).await;
    assert_eq!(outcome(&gone), (vec![], 0));
    assert_eq!(figures(&proxy).await, [1, 5, 4]);
    assert_eq!(listen_again(&proxy).await, None);
    assert_eq!(publish(&proxy, port_at(nowhere)).await, (vec![false], 0));
}

#[tokio::test]
async fn a_port_that_is_free_at_last_is_opened() {
    let proxy = start();
    for by_a_change in [false, true] {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(publish(&proxy, port_at(address)).await, (vec![false], 0));
        let before = figures(&proxy).await;
        drop(taken);
        let opened = if by_a_change { Some(publish(&proxy, unrelated(1)).await) } else { listen_again(&proxy).await };
        assert_eq!(opened, Some((vec![], 1)));
        assert_eq!(proxy.proxy.local_addresses()[&"service".into()], address);
        Client::connect(address).await;
        let [_, successes, errors] = before;
        assert_eq!(figures(&proxy).await, [1, successes + u64::from(by_a_change), errors]);
        // That is reported once, too.
        assert_eq!(listen_again(&proxy).await, None);
        assert_eq!(publish(&proxy, unrelated(2)).await, (vec![], 0));
    }
}

/// The old address is served until the new one is open.
#[tokio::test]
async fn an_address_that_comes_later_replaces_the_old_one() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let moved = Listener::new("http", address, Scheme::Http, table());
    assert_eq!(publish(&proxy, moved.into()).await, (vec![false], 0));
    assert_eq!(listen_again(&proxy).await, Some((vec![true], 0)));
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
    drop(taken);
    assert_eq!(listen_again(&proxy).await, Some((vec![], 1)));
    assert_eq!(Client::connect(address).await.get(HOST, "/").await.status, 200);
    assert!(Client::try_connect(proxy.http).await.is_err());
}
