//! Ports of UDP services: which datagrams are accepted, and from which senders.

use std::net::SocketAddr;

use fairway_model::{Delta, Origin as Owner, ResourceName, Snapshot, StreamListener, StreamSettings, Transport};
use fairway_proxy::{Proxy, ProxyConfig};
use fairway_testkit::{eventually, within};
use tokio::net::UdpSocket;

use crate::support::{TestProxy, backend, config, endpoints};
use crate::{
    Lines, TCP, address_of, ask, one_worker, scrape, series, start_with, stream, stream_named, udp, udp_echo,
    unanswered, with_admin,
};

/// Sends a datagram from a port of the proxy, as only the proxy's own user can; from another machine it takes a forged sender.
fn forge(from: SocketAddr, to: SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&from.into()).unwrap();
    assert_eq!(socket.send_to(b"forged", &to.into()).unwrap(), 6);
}

#[tokio::test]
async fn senders_that_are_udp_ports_of_ours_are_refused() {
    let (endpoint, address) = udp().await;
    let mut resources = backend("web", &[address]);
    resources.extend([
        stream("127.0.0.1:0", Transport::Udp, "web"),
        stream_named("second", "127.0.0.1:0", Transport::Udp, "web"),
        stream_named("everywhere", "0.0.0.0:0", Transport::Udp, "web"),
    ]);
    let proxy = TestProxy::start_with(resources, one_worker());
    let addresses = proxy.proxy.local_addresses();
    let (first, second) = (addresses[&"service".into()], addresses[&"second".into()]);
    let everywhere = addresses[&"everywhere".into()].port();
    let at = |last| SocketAddr::from(([127, 0, 0, last], everywhere));
    // If the endpoint responds, each would travel between two ports of the proxy forever.
    for (from, to) in [(second, first), (at(5), first), (first, at(1)), (at(5), at(1))] {
        forge(from, to);
        // Datagrams of one port are handled in order.
        udp().await.0.send_to(b"honest", to).await.unwrap();
        let mut room = [0; 64];
        let len = within("a datagram", endpoint.recv(&mut room)).await.unwrap();
        assert_eq!(&room[..len], b"honest", "from {from} to {to}");
    }
    // A client may use the port number at which the proxy listens, as time servers do.
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    client.set_reuse_port(true).unwrap();
    client.bind(&SocketAddr::from(([127, 0, 0, 9], first.port())).into()).unwrap();
    client.send_to(b"peer", &first.into()).unwrap();
    let mut room = [0; 64];
    assert_eq!(within("a datagram", endpoint.recv(&mut room)).await.unwrap(), 4);
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    let endpoint = udp_echo("a").await;
    let mut resources = backend("web", &[endpoint]);
    resources.push(stream("0.0.0.0:0", Transport::Udp, "web"));
    let proxy = TestProxy::start(resources);
    let port = address_of(&proxy).port();
    let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    for last in [1, 2, 77] {
        ask(&client, ([127, 0, 0, last], port).into(), b"x").await;
    }
    let mut resources = backend("web", &[endpoint]);
    resources.push(stream("[::]:0", Transport::Udp, "web"));
    let proxy = TestProxy::start(resources);
    let client = UdpSocket::bind("[::]:0").await.unwrap();
    ask(&client, format!("[::1]:{}", address_of(&proxy).port()).parse().unwrap(), b"x").await;
}

#[tokio::test]
async fn datagrams_that_are_dropped_are_counted_each_and_logged_now_and_then() {
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..with_admin() };
    let (proxy, port) = start_with(Transport::Udp, &[], StreamSettings::default(), config);
    let (client, _) = udp().await;
    for _ in 0..20 {
        client.send_to(b"x", port).await.unwrap();
    }
    let failures = series("failures_total", "UDP", 20);
    eventually("twenty failures", || async { scrape(&proxy).await.contains(&failures) }).await;
    proxy.publish([endpoints("web", &[udp_echo("a").await])]).await;
    ask(&client, port, b"x").await;
    let lines = log.wait(2).await;
    assert!(lines[0].contains(" UDP 502 0 0 "), "{lines:?}");
    assert!(lines[1].contains(" UDP 200 "), "nothing was logged in between: {lines:?}");
}

#[tokio::test]
async fn sessions_end_with_their_udp_port() {
    let (proxy, port, log, _endpoint) = unanswered().await;
    let gone = Delta { removals: vec![ResourceName::StreamListener("service".into())], ..Delta::default() };
    proxy.publisher.publish(gone).await;
    assert!(log.wait(1).await[0].contains(" UDP 200 0 1 "));
    UdpSocket::bind(port).await.unwrap();
}

#[tokio::test]
async fn a_closed_udp_port_is_free_again() {
    let mut resources = backend("web", &[udp_echo("a").await]);
    // An unused address: on 127.0.0.1 other processes hold TCP ports of any number.
    resources.push(stream("127.0.0.23:0", Transport::Udp, "web"));
    let proxy = TestProxy::start(resources);
    let port = address_of(&proxy);
    ask(&udp().await.0, port, b"x").await;
    let resource = StreamListener {
        name: "second".into(),
        origin: Owner::built_in("test"),
        address: port,
        transport: Transport::Udp,
        backend: "default/web:80".into(),
    };
    // TCP at the same number is another port; UDP is not.
    let tcp = StreamListener { name: "third".into(), transport: TCP, ..resource.clone() };
    let refused = proxy.publisher.publish(Delta::upsert([resource.into(), tcp.into()])).await.refused;
    assert_eq!(refused.iter().map(|refused| refused.listener.as_str()).collect::<Vec<_>>(), ["second"]);
    let removals = ["service", "second"].map(|name| ResourceName::StreamListener(name.into())).to_vec();
    proxy.publisher.publish(Delta { removals, ..Delta::default() }).await;
    UdpSocket::bind(port).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_stops_the_start() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resource = stream(&taken.local_addr().unwrap().to_string(), Transport::Udp, "web");
    let snapshot = Snapshot::default().apply(Delta::upsert([resource]));
    assert!(Proxy::start(snapshot, config()).is_err());
}
