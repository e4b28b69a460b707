//! TCP and UDP services: bytes and datagrams go to an endpoint as they are.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairway_model::{
    Delta, Endpoint, EndpointSet, EndpointState, Endpoints, Origin as Owner, Resource, ResourceName, Settings,
    StreamListener, StreamRetry, StreamSettings, Transport,
};
use fairway_proxy::access_log::LogSink;
use fairway_proxy::{Drained, Proxy, ProxyConfig};
use fairway_testkit::{eventually, within};
use support::{TestProxy, backend, config, endpoints, local};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const TCP: Transport = Transport::Tcp { accept_proxy: false, send_proxy: false };

fn stream(address: &str, transport: Transport, service: &str) -> Resource {
    stream_named("service", address, transport, service)
}

fn stream_named(name: &str, address: &str, transport: Transport, service: &str) -> Resource {
    Resource::from(StreamListener {
        name: name.into(),
        origin: Owner::new("ConfigMap", "ingress", "services").section("9000"),
        address: address.parse().unwrap(),
        transport,
        backend: format!("default/{service}:80").as_str().into(),
    })
}

fn settings(streams: StreamSettings) -> Resource {
    Resource::from(Settings { streams, ..Settings::default() })
}

/// A proxy with one TCP or UDP service and these endpoints.
fn start(transport: Transport, endpoints: &[SocketAddr]) -> (TestProxy, SocketAddr) {
    start_with(transport, endpoints, StreamSettings::default(), config())
}

fn start_with(
    transport: Transport,
    endpoints: &[SocketAddr],
    streams: StreamSettings,
    config: ProxyConfig,
) -> (TestProxy, SocketAddr) {
    let mut resources = backend("web", endpoints);
    resources.extend([stream("127.0.0.1:0", transport, "web"), settings(streams)]);
    let proxy = TestProxy::start_with(resources, config);
    let address = address_of(&proxy);
    (proxy, address)
}

fn address_of(proxy: &TestProxy) -> SocketAddr {
    proxy.proxy.local_addresses()[&"service".into()]
}

fn one_worker() -> ProxyConfig {
    ProxyConfig { workers: NonZeroUsize::new(1), ..config() }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(address: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(address)).await.unwrap()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    within("a connection at the endpoint", listener.accept()).await.unwrap().0
}

async fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    within("bytes", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within("the end", stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// An address where nobody listens, for as long as the socket lives: nobody else gets it.
fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// The same for datagrams: the socket takes those of one other address only.
async fn nobody_for_datagrams() -> (UdpSocket, SocketAddr) {
    let (socket, address) = udp().await;
    socket.connect(address).await.unwrap();
    (socket, address)
}

async fn ask(socket: &UdpSocket, to: SocketAddr, question: &[u8]) -> Vec<u8> {
    socket.send_to(question, to).await.unwrap();
    let mut room = [0; 2048];
    let (len, from) = within("a datagram", socket.recv_from(&mut room)).await.unwrap();
    assert_eq!(from, to, "answers come from where the question went");
    room[..len].to_vec()
}

async fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Answers each datagram with its name and the datagram.
async fn udp_echo(name: &'static str) -> SocketAddr {
    let (socket, address) = udp().await;
    tokio::spawn(async move {
        let mut room = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut room).await {
            let answer = [name.as_bytes(), b" ", &room[..len], b" ", from.to_string().as_bytes()].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

async fn scrape(proxy: &TestProxy) -> String {
    let mut stream = connect(proxy.proxy.admin_address().unwrap()).await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    String::from_utf8(read_to_end(&mut stream).await).unwrap()
}

/// The log as it was written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn sink(&self) -> LogSink {
        LogSink::Writer(Box::new(self.clone()))
    }

    fn now(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn wait(&self, count: usize) -> Vec<String> {
        eventually("log lines", || async {
            let lines = self.now();
            if lines.len() >= count { Ok(lines) } else { Err(lines) }
        })
        .await
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_side_may_end_before_the_other() {
    let (listener, endpoint) = listen().await;
    let (_proxy, port) = start(TCP, &[endpoint]);
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, b"question");
    server.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut client, 6).await, b"answer", "the other direction is open");
    server.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"");

    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    server.write_all(b"greeting").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await, b"greeting", "the server may speak first");
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut server).await, b"late");
}

#[tokio::test]
async fn much_passes_both_ways_at_once() {
    const LEN: usize = 32 << 20;
    let (listener, endpoint) = listen().await;
    let (_proxy, port) = start(TCP, &[endpoint]);
    let (client, server) = (connect(port).await, accept(&listener).await);
    let byte = |at: usize, seed: usize| ((at / 7).wrapping_mul(seed) >> 3) as u8;
    let run = |stream: TcpStream, out: usize, back: usize| {
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.into_split();
            let write = async move {
                let bytes: Vec<u8> = (0..LEN).map(|at| byte(at, out)).collect();
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut found = Vec::with_capacity(LEN);
            let (result, ()) = tokio::join!(reader.read_to_end(&mut found), write);
            result.unwrap();
            assert_eq!(found.len(), LEN);
            assert!(found.iter().enumerate().all(|(at, found)| *found == byte(at, back)));
        })
    };
    let both = [run(client, 3, 5), run(server, 5, 3)];
    tokio::time::timeout(Duration::from_secs(120), async {
        for one in both {
            one.await.unwrap();
        }
    })
    .await
    .expect("64 MiB within two minutes");
}

#[tokio::test]
async fn a_side_that_fails_resets_the_other() {
    let (listener, endpoint) = listen().await;
    let (_proxy, port) = start(TCP, &[endpoint]);
    for client_fails in [true, false] {
        let (mut client, mut server) = (connect(port).await, accept(&listener).await);
        client.write_all(b"half of it").await.unwrap();
        assert_eq!(read(&mut server, 10).await, b"half of it");
        let (failing, mut other) = if client_fails { (client, server) } else { (server, client) };
        socket2::SockRef::from(&failing).set_linger(Some(Duration::ZERO)).unwrap();
        drop(failing);
        let ended = within("the end", other.read(&mut [0; 1])).await;
        assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_leads_to_the_next() {
    let (listener, endpoint) = listen().await;
    let log = Lines::default();
    let (_held, dead): (Vec<_>, Vec<_>) = [nobody(), nobody()].into_iter().unzip();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let streams = StreamSettings::default();
    let (proxy, port) = start_with(TCP, &[dead[0], dead[1], endpoint], streams.clone(), config);
    for _ in 0..6 {
        let (mut client, mut server) = (connect(port).await, accept(&listener).await);
        server.write_all(b"here").await.unwrap();
        assert_eq!(read(&mut client, 4).await, b"here");
    }
    // Without retries the first try decides; with all endpoints gone every try fails once.
    proxy.publish([settings(StreamSettings { retry: None, ..streams.clone() }), endpoints("web", &dead)]).await;
    assert_eq!(read_to_end(&mut connect(port).await).await, b"");
    let retry = Some(StreamRetry { tries: None, within: None });
    proxy.publish([settings(StreamSettings { retry, ..streams }), endpoints("web", &dead)]).await;
    assert_eq!(read_to_end(&mut connect(port).await).await, b"");
    let lines = log.wait(8).await;
    assert!(lines[..6].iter().all(|line| line.contains(" TCP 200 4 0 ")), "{lines:?}");
    assert!(lines[6..].iter().all(|line| line.contains(" TCP 502 0 0 ")), "{lines:?}");
}

#[tokio::test]
async fn without_endpoints_connections_are_closed_and_ports_stay_open() {
    let (proxy, port) = start(TCP, &[]);
    assert_eq!(read_to_end(&mut connect(port).await).await, b"");
    // A backend that nobody knows is the same.
    proxy.publish([stream("127.0.0.1:0", TCP, "nothing")]).await;
    assert_eq!(read_to_end(&mut connect(port).await).await, b"");
    let (listener, endpoint) = listen().await;
    proxy.publish([stream("127.0.0.1:0", TCP, "web"), endpoints("web", &[endpoint])]).await;
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
}

#[tokio::test]
async fn endpoints_on_forbidden_addresses_are_not_asked() {
    let (listener, endpoint) = listen().await;
    let addresses = fairway_proxy::resolve::AddressPolicy { loopback_endpoints: false, ..local() };
    let config = ProxyConfig { addresses, ..config() };
    let (proxy, port) = start_with(TCP, &[endpoint], StreamSettings::default(), config);
    assert_eq!(read_to_end(&mut connect(port).await).await, b"");
    drop(proxy);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(listener.poll_accept(&mut context).is_pending());
}

#[tokio::test]
async fn ports_come_and_go_and_connections_stay() {
    let (a, b) = (listen().await, listen().await);
    let (proxy, port) = start(TCP, &[a.1]);
    let (mut client, mut server) = (connect(port).await, accept(&a.0).await);
    let mut check = async |what: &str| {
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut server, 4).await, b"ping", "{what}");
        server.write_all(b"pong").await.unwrap();
        assert_eq!(read(&mut client, 4).await, b"pong", "{what}");
    };
    proxy.publish([endpoints("web", &[b.1])]).await;
    check("another endpoint").await;
    let (mut later, mut other) = (connect(port).await, accept(&b.0).await);
    other.write_all(b"b").await.unwrap();
    assert_eq!(read(&mut later, 1).await, b"b", "what begins later goes there");
    let resources = backend("other", &[a.1]);
    proxy.publish(resources.into_iter().chain([stream("127.0.0.1:0", TCP, "other")])).await;
    check("another backend").await;
    let mut again = connect(port).await;
    accept(&a.0).await.write_all(b"a").await.unwrap();
    assert_eq!(read(&mut again, 1).await, b"a");
    let gone = Delta { removals: vec![ResourceName::StreamListener("service".into())], ..Delta::default() };
    proxy.publisher.publish(gone).await;
    assert!(TcpStream::connect(port).await.is_err());
    check("no port").await;
    // The port that HTTP had is taken by a service in one change, and the other way round.
    let http = proxy.http.to_string();
    let swap =
        Delta { removals: vec![ResourceName::Listener("http".into())], upserts: vec![stream(&http, TCP, "web")] };
    assert!(proxy.publisher.publish(swap).await.refused.is_empty());
    let mut swapped = connect(proxy.http).await;
    accept(&b.0).await.write_all(b"swapped").await.unwrap();
    assert_eq!(read(&mut swapped, 7).await, b"swapped");
    check("another port").await;
    // A port that somebody else has is told, and harms nobody.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = Delta::upsert([stream(&taken.local_addr().unwrap().to_string(), TCP, "web")]);
    assert_eq!(proxy.publisher.publish(taken).await.refused.len(), 1);
    check("a port that is taken").await;
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let (listener, endpoint) = listen().await;
    let idle = Duration::from_secs(2);
    let streams = StreamSettings { idle, ..StreamSettings::default() };
    let (_proxy, port) = start_with(TCP, &[endpoint], streams, config());
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    let begun = Instant::now();
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    while begun.elapsed() < idle * 3 / 2 {
        interval.tick().await;
        server.write_all(b"x").await.unwrap();
        assert_eq!(read(&mut client, 1).await, b"x", "one side that speaks is enough");
    }
    assert_eq!(read_to_end(&mut client).await, b"");
    assert_eq!(read_to_end(&mut server).await, b"");
}

#[tokio::test]
async fn draining_waits_for_connections_until_the_deadline() {
    let (listener, endpoint) = listen().await;
    let (mut proxy, port) = start(TCP, &[endpoint]);
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
    let http = proxy.http;
    let drain = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await });
    eventually("a closed port", || async { TcpStream::connect(http).await.is_err() }).await;
    server.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut client, 10).await, b"still here");
    assert!(!drain.is_finished());
    drop((client, server));
    assert_eq!(within("the end of draining", drain).await.unwrap(), Drained { cut: 0 });

    let (mut proxy, port) = start(TCP, &[endpoint]);
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
    assert_eq!(proxy.proxy.drain(Duration::ZERO, Duration::from_millis(50)).await, Drained { cut: 1 });
    assert!(matches!(within("the cut", client.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn no_more_connections_are_taken_than_a_worker_may_have() {
    let (listener, endpoint) = listen().await;
    let config = ProxyConfig { connections: 2, admin: Some(([127, 0, 0, 1], 0).into()), ..one_worker() };
    let (proxy, port) = start_with(TCP, &[endpoint], StreamSettings::default(), config);
    let first = (connect(port).await, accept(&listener).await);
    let _second = (connect(port).await, accept(&listener).await);
    let mut third = connect(port).await;
    // By then the worker has looked at what there is after the client had connected, and taken it, were it free to.
    for _ in 0..2 {
        proxy.publish([endpoints("web", &[endpoint])]).await;
    }
    let text = scrape(&proxy).await;
    let begun = "fairway_stream_sessions_total{listener=\"service\",protocol=\"TCP\"} 2\n";
    assert!(text.contains(begun), "the third waits in the queue: {text}");
    drop(first);
    accept(&listener).await.write_all(b"now").await.unwrap();
    assert_eq!(read(&mut third, 3).await, b"now");
}

#[tokio::test]
async fn the_proxy_header_is_read_and_sent_on() {
    let (listener, endpoint) = listen().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let transport = Transport::Tcp { accept_proxy: true, send_proxy: true };
    let (proxy, port) = start_with(transport, &[endpoint], StreamSettings::default(), config);
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbb";
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n";
    for header in [&v1[..], v2] {
        // In two pieces, and with bytes of the client behind it.
        let mut client = connect(port).await;
        client.write_all(&header[..9]).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(&[&header[9..], b"hello"].concat()).await.unwrap();
        let mut server = accept(&listener).await;
        assert_eq!(read(&mut server, v1.len() + 5).await, [&v1[..], b"hello"].concat());
        client.shutdown().await.unwrap();
        drop(server);
    }
    // Whoever sends no header, or a bad one, reaches nobody.
    let mut client = connect(port).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(within("the end", client.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    let lines = log.wait(3).await;
    assert!(lines[..2].iter().all(|line| line.starts_with("[192.0.2.1] ") && line.contains(" TCP 200 ")), "{lines:?}");
    assert!(lines[2].starts_with("[127.0.0.1] ") && lines[2].contains(" TCP 400 "), "{lines:?}");

    // Sent only: it names the client that we see.
    let send = Transport::Tcp { accept_proxy: false, send_proxy: true };
    proxy.publish([stream("127.0.0.1:0", send, "web")]).await;
    let client = connect(port).await;
    let mut server = accept(&listener).await;
    let expected =
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.local_addr().unwrap().port(), port.port());
    assert_eq!(String::from_utf8(read(&mut server, expected.len()).await).unwrap(), expected);

    // Read only: the endpoint sees nothing of it.
    let accept_only = Transport::Tcp { accept_proxy: true, send_proxy: false };
    proxy.publish([stream("127.0.0.1:0", accept_only, "web")]).await;
    let mut client = connect(port).await;
    client.write_all(b"PROXY UNKNOWN\r\nhello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut accept(&listener).await).await, b"hello");
}

#[tokio::test]
async fn datagrams_go_to_one_endpoint_of_each_session_and_answers_come_back() {
    let (a, b) = (udp_echo("a").await, udp_echo("b").await);
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    let (proxy, port) = start_with(Transport::Udp, &[a, b], streams, config());
    let mut clients = Vec::new();
    for _ in 0..16 {
        let (client, _) = udp().await;
        let first = ask(&client, port, b"one").await;
        clients.push((client, first));
    }
    // A pod that is about to end keeps what it has.
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
    let mut clients = Vec::new();
    for _ in 0..16 {
        let (client, _) = udp().await;
        let first = ask(&client, port, b"one").await;
        clients.push((client, first));
    }
    // A change of something else is none of theirs.
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
    // To connect to a broadcast address fails at once.
    let broadcast = SocketAddr::from(([127, 255, 255, 255], 9));
    assert!(udp().await.0.connect(broadcast).await.is_err());
    proxy.publish([endpoints("web", &[echo, broadcast])]).await;
    for _ in 0..4 {
        assert!(ask(&udp().await.0, port, b"x").await.starts_with(b"a "), "the other endpoint is tried");
    }
    assert_eq!(ask(&old, port, b"x").await, first, "its session goes on");
}

/// Sends a datagram in the name of a port of the proxy, as only its own user can; from another machine it takes a forged sender.
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
    // Each would go from one port of ours to the other for ever, if the endpoint answers what it gets.
    for (from, to) in [(second, first), (at(5), first), (first, at(1)), (at(5), at(1))] {
        forge(from, to);
        // Datagrams of one port are taken in their order.
        udp().await.0.send_to(b"honest", to).await.unwrap();
        let mut room = [0; 64];
        let len = within("a datagram", endpoint.recv(&mut room)).await.unwrap();
        assert_eq!(&room[..len], b"honest", "from {from} to {to}");
    }
    // A client may well ask from the port number at which we listen, as time servers do.
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    client.set_reuse_port(true).unwrap();
    client.bind(&SocketAddr::from(([127, 0, 0, 9], first.port())).into()).unwrap();
    client.send_to(b"peer", &first.into()).unwrap();
    let mut room = [0; 64];
    assert_eq!(within("a datagram", endpoint.recv(&mut room)).await.unwrap(), 4);
}

#[tokio::test]
async fn datagrams_that_are_dropped_are_counted_each_and_logged_now_and_then() {
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), admin: Some(([127, 0, 0, 1], 0).into()), ..one_worker() };
    let (proxy, port) = start_with(Transport::Udp, &[], StreamSettings::default(), config);
    let (client, _) = udp().await;
    for _ in 0..20 {
        client.send_to(b"x", port).await.unwrap();
    }
    let failures = "fairway_stream_failures_total{listener=\"service\",protocol=\"UDP\"} 20";
    eventually("twenty failures", || async { scrape(&proxy).await.contains(failures) }).await;
    proxy.publish([endpoints("web", &[udp_echo("a").await])]).await;
    ask(&client, port, b"x").await;
    let lines = log.wait(2).await;
    assert!(lines[0].contains(" UDP 502 0 0 "), "{lines:?}");
    assert!(lines[1].contains(" UDP 200 "), "nothing was logged in between: {lines:?}");
}

#[tokio::test]
async fn sessions_end_with_their_udp_port() {
    let (endpoint, silent) = udp().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let (proxy, port) = start_with(Transport::Udp, &[silent], StreamSettings::default(), config);
    udp().await.0.send_to(b"x", port).await.unwrap();
    within("a datagram", endpoint.recv(&mut [0; 8])).await.unwrap();
    let gone = Delta { removals: vec![ResourceName::StreamListener("service".into())], ..Delta::default() };
    proxy.publisher.publish(gone).await;
    assert!(log.wait(1).await[0].contains(" UDP 200 0 1 "));
    UdpSocket::bind(port).await.unwrap();
}

#[tokio::test]
async fn sessions_are_logged_when_the_proxy_stops() {
    let (endpoint, silent) = udp().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let (proxy, port) = start_with(Transport::Udp, &[silent], StreamSettings::default(), config);
    udp().await.0.send_to(b"x", port).await.unwrap();
    within("a datagram", endpoint.recv(&mut [0; 8])).await.unwrap();
    drop(proxy);
    assert!(log.wait(1).await[0].contains(" UDP 200 0 1 "));
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
    // None expected: the session ends at once, and the datagram arrives.
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
    // Without endpoints datagrams are dropped, which is told as well.
    proxy.publish([endpoints("web", &[])]).await;
    log.wait(2).await;
    client.send_to(b"x", port).await.unwrap();
    assert!(log.wait(3).await[2].contains(" UDP 502 0 0 "));
}

#[tokio::test]
async fn draining_lets_answers_come_and_begins_nothing() {
    let (endpoint, address) = udp().await;
    let (mut proxy, port) = start(Transport::Udp, &[address]);
    let (client, _) = udp().await;
    client.send_to(b"question", port).await.unwrap();
    let mut room = [0; 64];
    let (_, from) = within("a question", endpoint.recv_from(&mut room)).await.unwrap();
    let http = proxy.http;
    let drain = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await });
    eventually("a closed port", || async { TcpStream::connect(http).await.is_err() }).await;
    assert!(!drain.is_finished());
    endpoint.send_to(b"answer", from).await.unwrap();
    let (len, _) = within("an answer", client.recv_from(&mut room)).await.unwrap();
    assert_eq!(&room[..len], b"answer");
    assert_eq!(within("the end of draining", drain).await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn while_draining_sessions_last_as_long_as_their_endpoints_answer() {
    let (endpoint, address) = udp().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    let (mut proxy, port) = start_with(Transport::Udp, &[address], streams, config);
    let [asks, logs] = [udp().await.0, udp().await.0];
    for client in [&asks, &logs] {
        client.send_to(b"begin", port).await.unwrap();
        within("a datagram", endpoint.recv(&mut [0; 8])).await.unwrap();
    }
    // Both clients send all the time, and one of them gets answers, as long as there are any.
    let answers = Arc::new(AtomicBool::new(true));
    let answered = answers.clone();
    let clients = tokio::spawn(async move {
        let mut room = [0; 8];
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        loop {
            interval.tick().await;
            logs.send_to(b"log", port).await.unwrap();
            asks.send_to(b"ask", port).await.unwrap();
            while let Ok((len, from)) = endpoint.try_recv_from(&mut room) {
                if &room[..len] == b"ask" && answered.load(Ordering::Relaxed) {
                    endpoint.send_to(b"answer", from).await.unwrap();
                }
            }
        }
    });
    let limit = Duration::from_secs(60);
    let drain = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, limit).await });
    let mut interval = tokio::time::interval(Duration::from_millis(20));
    while log.now().is_empty() && !drain.is_finished() {
        interval.tick().await;
    }
    assert!(!drain.is_finished(), "the session that gets answers lasts");
    assert!(log.now()[0].contains(" UDP 200 0 "), "{:?}", log.now());
    answers.store(false, Ordering::Relaxed);
    assert_eq!(drain.await.unwrap(), Drained { cut: 0 });
    let lines = log.wait(2).await;
    assert!(lines[1].contains(" UDP 200 ") && !lines[1].contains(" UDP 200 0 "), "{lines:?}");
    clients.abort();
}

#[tokio::test]
async fn sessions_that_the_deadline_of_draining_cuts_are_counted() {
    let (endpoint, address) = udp().await;
    let (mut proxy, port) = start(Transport::Udp, &[address]);
    let clients = [udp().await.0, udp().await.0, udp().await.0];
    for client in &clients {
        client.send_to(b"question", port).await.unwrap();
        within("a question", endpoint.recv(&mut [0; 8])).await.unwrap();
    }
    assert_eq!(proxy.proxy.drain(Duration::ZERO, Duration::from_millis(50)).await, Drained { cut: 3 });
}

#[tokio::test]
async fn a_closed_udp_port_is_free_again() {
    let mut resources = backend("web", &[udp_echo("a").await]);
    // Where nobody else is: on 127.0.0.1 others have TCP ports of any number.
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
async fn what_passes_is_counted_by_listener() {
    let (listener, endpoint) = listen().await;
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..one_worker() };
    let (proxy, port) = start_with(TCP, &[endpoint], StreamSettings::default(), config);
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    client.write_all(b"12345").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"12345");
    server.write_all(b"123").await.unwrap();
    assert_eq!(read(&mut client, 3).await, b"123");
    let text = scrape(&proxy).await;
    for expected in [
        "fairway_stream_sessions_total{listener=\"service\",protocol=\"TCP\"} 1",
        "fairway_stream_sessions_active{listener=\"service\",protocol=\"TCP\"} 1",
        "fairway_stream_failures_total{listener=\"service\",protocol=\"TCP\"} 0",
        "fairway_stream_received_bytes_total{listener=\"service\",protocol=\"TCP\"} 5",
        "fairway_stream_sent_bytes_total{listener=\"service\",protocol=\"TCP\"} 3",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    drop((client, server));
    let ended = "fairway_stream_sessions_active{listener=\"service\",protocol=\"TCP\"} 0";
    eventually("the end", || async { scrape(&proxy).await.contains(ended) }).await;
}

#[tokio::test]
async fn a_taken_port_stops_the_start() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let resource = stream(&taken.local_addr().unwrap().to_string(), Transport::Udp, "web");
    let snapshot = fairway_model::Snapshot::default().apply(Delta::upsert([resource]));
    assert!(Proxy::start(snapshot, config()).is_err());
}
