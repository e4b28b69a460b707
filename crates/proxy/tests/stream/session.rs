//! Sessions of UDP services: their endpoint, and how long they last.

use std::net::SocketAddr;
use std::time::Duration;

use fairway_model::{Endpoint, EndpointSet, EndpointState, Endpoints, StreamSettings, Transport};
use fairway_proxy::ProxyConfig;
use fairway_testkit::within;
use tokio::net::UdpSocket;

use crate::support::{backend, config, endpoints};
use crate::{Lines, ask, one_worker, settings, start_with, stream, udp, udp_echo, unanswered};

/// Enough clients that each of two endpoints has some: each has sent one datagram, and the result names its endpoint.
async fn sixteen_clients(port: SocketAddr) -> Vec<(UdpSocket, Vec<u8>)> {
    let mut clients = Vec::new();
    for _ in 0..16 {
        let (client, _) = udp().await;
        let first = ask(&client, port, b"one").await;
        clients.push((client, first));
    }
    clients
}

#[tokio::test]
async fn datagrams_go_to_one_endpoint_of_each_session_and_answers_come_back() {
    let (a, b) = (udp_echo("a").await, udp_echo("b").await);
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    let (proxy, port) = start_with(Transport::Udp, &[a, b], streams, config());
    let clients = sixteen_clients(port).await;
    // A pod that is ending keeps its sessions.
    let ending = Endpoint { state: EndpointState::Draining, ..Endpoint::ready(b) };
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(a), ending]);
    proxy.publish([EndpointSet { backend: "default/web:80".into(), endpoints }.into()]).await;
    for (client, first) in &clients {
        let second = String::from_utf8(ask(client, port, b"one").await).unwrap();
        assert_eq!(second.as_bytes(), first, "the same endpoint sees the same sender");
    }
    let (of_b, of_a): (Vec<_>, Vec<_>) = clients.iter().partition(|(_, answer)| answer.starts_with(b"b "));
    assert!(!of_a.is_empty() && !of_b.is_empty());
    assert_eq!(
        &ask(&udp().await.0, port, b"").await[..3],
        b"a  ",
        "new sessions go where there is one, empty datagrams too"
    );
}

#[tokio::test]
async fn sessions_leave_an_endpoint_that_the_port_no_longer_leads_to() {
    let (a, b, c) = (udp_echo("a").await, udp_echo("b").await, udp_echo("c").await);
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    let (proxy, port) = start_with(Transport::Udp, &[a, b], streams, config());
    let clients = sixteen_clients(port).await;
    // An unrelated change doesn't affect them.
    proxy.publish(backend("other", &[c])).await;
    for (client, first) in &clients {
        assert_eq!(ask(client, port, b"one").await, *first);
    }
    proxy.publish([endpoints("web", &[a])]).await;
    let mut moved = 0;
    for (client, first) in &clients {
        let now = ask(client, port, b"one").await;
        if first.starts_with(b"a ") {
            assert_eq!(now, *first, "its endpoint is still there");
        } else {
            assert!(now.starts_with(b"a one "), "{}", String::from_utf8_lossy(&now));
            moved += 1;
        }
    }
    assert!(moved > 0);
    proxy.publish([stream("127.0.0.1:0", Transport::Udp, "other")]).await;
    for (client, _) in &clients {
        assert!(ask(client, port, b"one").await.starts_with(b"c one "));
    }
}

#[tokio::test]
async fn an_endpoint_without_a_path_costs_no_other_session() {
    let echo = udp_echo("a").await;
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    let (proxy, port) = start_with(Transport::Udp, &[echo], streams, one_worker());
    let (old, _) = udp().await;
    let first = ask(&old, port, b"x").await;
    // Connecting to a broadcast address fails at once.
    let broadcast = SocketAddr::from(([127, 255, 255, 255], 9));
    assert!(udp().await.0.connect(broadcast).await.is_err());
    proxy.publish([endpoints("web", &[echo, broadcast])]).await;
    for _ in 0..4 {
        assert!(ask(&udp().await.0, port, b"x").await.starts_with(b"a "), "the other endpoint is tried");
    }
    assert_eq!(ask(&old, port, b"x").await, first, "its session goes on");
}

/// The same for datagrams: the socket accepts them from only one other address.
async fn nobody_for_datagrams() -> (UdpSocket, SocketAddr) {
    let (socket, address) = udp().await;
    socket.connect(address).await.unwrap();
    (socket, address)
}

#[tokio::test]
async fn an_endpoint_where_nobody_is_ends_its_session() {
    let echo = udp_echo("a").await;
    let (_held, dead) = nobody_for_datagrams().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let (proxy, port) = start_with(Transport::Udp, &[dead], StreamSettings::default(), config);
    let (client, _) = udp().await;
    client.send_to(b"x", port).await.unwrap();
    assert!(log.wait(1).await[0].contains(" UDP 502 0 1 "));
    proxy.publish([endpoints("web", &[echo])]).await;
    ask(&client, port, b"x").await;
    // Without endpoints, datagrams are dropped, which is logged as well.
    proxy.publish([endpoints("web", &[])]).await;
    log.wait(2).await;
    client.send_to(b"x", port).await.unwrap();
    assert!(log.wait(3).await[2].contains(" UDP 502 0 0 "));
}

#[tokio::test]
async fn a_session_ends_with_its_last_answer() {
    let endpoint = udp_echo("a").await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let (proxy, port) = start_with(Transport::Udp, &[endpoint], StreamSettings::default(), config);
    let (client, _) = udp().await;
    let first = ask(&client, port, b"one").await;
    log.wait(1).await;
    let second = ask(&client, port, b"one").await;
    assert_ne!(first, second, "another session has another socket");
    let lines = log.wait(2).await;
    let len = first.len();
    assert!(lines[0].contains(&format!(" UDP 200 {len} 3 ")), "{lines:?}");
    // No response is expected: the session ends at once, and the datagram arrives.
    let (socket, silent) = udp().await;
    let streams = StreamSettings { responses: 0, ..StreamSettings::default() };
    proxy.publish([settings(streams), endpoints("web", &[silent])]).await;
    client.send_to(b"log line", port).await.unwrap();
    let mut room = [0; 64];
    assert_eq!(within("a datagram", socket.recv(&mut room)).await.unwrap(), 8);
    assert!(log.wait(3).await[2].contains(" UDP 200 0 8 "));
}

#[tokio::test]
async fn silence_ends_a_session() {
    let (_endpoint, silent) = udp().await;
    let log = Lines::default();
    let streams = StreamSettings { idle: Duration::from_millis(100), ..StreamSettings::default() };
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let (_proxy, port) = start_with(Transport::Udp, &[silent], streams, config);
    udp().await.0.send_to(b"x", port).await.unwrap();
    assert!(log.wait(1).await[0].contains(" UDP 200 0 1 "));
}

#[tokio::test]
async fn the_oldest_session_makes_room_for_a_new_one() {
    let endpoint = udp_echo("a").await;
    let log = Lines::default();
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    let config = ProxyConfig { log: log.sink(), connections: 2, ..one_worker() };
    let (_proxy, port) = start_with(Transport::Udp, &[endpoint], streams, config);
    let (a, b, c) = (udp().await.0, udp().await.0, udp().await.0);
    let (of_a, of_b) = (ask(&a, port, b"x").await, ask(&b, port, b"x").await);
    assert_eq!(ask(&a, port, b"x").await, of_a);
    ask(&c, port, b"x").await;
    log.wait(1).await;
    assert_eq!(ask(&a, port, b"x").await, of_a, "it was used after the other one");
    assert_ne!(ask(&b, port, b"x").await, of_b);
}

#[tokio::test]
async fn sessions_are_logged_when_the_proxy_stops() {
    let (proxy, _, log, _endpoint) = unanswered().await;
    drop(proxy);
    assert!(log.wait(1).await[0].contains(" UDP 200 0 1 "));
}
