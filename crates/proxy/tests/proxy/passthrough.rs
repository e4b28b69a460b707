//! TLS passthrough: connections for a host reach an endpoint byte for byte, and others on the same listener end at the proxy.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::log::Lines;
use crate::support::{
    HOST, TestProxy, backend, certificate, config, endpoints, forward, host_with_certificate, route, table,
};
use fairway_model::{
    Authority, ClientAuth, ClientAuthMode, ForwardPolicy, Host, HostPattern, Listener, Origin as Owner, Passthrough,
    Resource, Scheme, Settings, StreamBackends, StreamSettings, StreamTemplate,
};
use fairway_proxy::{Drained, ProxyConfig};
use fairway_testkit::{Ca, Client, Origin, TlsClient, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A host whose TLS passes to a Service.
fn passing(name: &str, service: &str, send_proxy: bool) -> Resource {
    let passthrough = Passthrough {
        origin: Owner::new("Ingress", "default", "app"),
        backend: Some(format!("default/{service}:80").as_str().into()),
        send_proxy,
        terminate: false,
    };
    let routes = vec![route("/", forward(service, ForwardPolicy::default()))];
    let host = Host::new(table(), HostPattern::parse(name).unwrap(), routes);
    Resource::from(host.with_passthrough(Some(Arc::new(passthrough))))
}

/// A host whose TLS ends at the proxy, with what it carries passing to a Service.
fn ending(name: &str, backend: StreamBackends, send_proxy: bool) -> Host {
    let origin = Owner::new("TLSRoute", "default", "app");
    let passthrough = Passthrough { origin, backend: Some(backend), send_proxy, terminate: true };
    let host = Host::new(table(), HostPattern::parse(name).unwrap(), Vec::new());
    host.with_certificate(Some("own".into())).with_passthrough(Some(Arc::new(passthrough)))
}

fn one_worker() -> ProxyConfig {
    ProxyConfig { workers: NonZeroUsize::new(1), ..config() }
}

/// An endpoint that shows what arrives.
struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    async fn accept(&self) -> TcpStream {
        within("a connection at the endpoint", self.listener.accept()).await.unwrap().0
    }

    /// Shows that no connection waits: the next one is ours.
    async fn is_untouched(&self) {
        let ours = TcpStream::connect(self.address).await.unwrap();
        let (_, peer) = within("our own connection", self.listener.accept()).await.unwrap();
        assert_eq!(peer, ours.local_addr().unwrap(), "nobody else has connected");
    }
}

async fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    within("bytes", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// A proxy that passes [`HOST`] to this endpoint.
fn proxy_to(endpoint: &Endpoint, send_proxy: bool) -> TestProxy {
    let mut resources = backend("web", &[endpoint.address]);
    resources.push(passing(HOST, "web", send_proxy));
    TestProxy::start(resources)
}

/// The first records of a client that asks for a name.
fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Ca::new("any").roots())
        .with_no_client_auth();
    let name: rustls::pki_types::ServerName<'static> = name.to_owned().try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// The same hello in records of this size.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

#[tokio::test]
async fn tls_ends_at_the_endpoint_and_elsewhere_at_the_proxy() {
    let ca = Ca::new("root");
    let (theirs, ours) = (ca.leaf(&[HOST, "x.wild.example"]), ca.leaf(&["own.wild.example"]));
    let secure = Origin::new("secure").tls(&theirs).start();
    let plain = Origin::start("plain");
    let mut resources = backend("secure", &[secure.address()]);
    resources.extend(backend("plain", &[plain.address()]));
    let routes = vec![route("/", forward("plain", ForwardPolicy::default()))];
    resources.extend([
        passing(HOST, "secure", false),
        passing("*.wild.example", "secure", false),
        certificate("own", &ours),
        host_with_certificate("own.wild.example", routes, "own"),
    ]);
    let proxy = TestProxy::start(resources);
    for name in [HOST, "APP.example", "x.wild.example"] {
        let mut client = TlsClient::new(&ca, name).alpn(&["http/1.1"]).connect(proxy.https).await;
        assert_eq!(client.tls().chain, theirs.chain());
        for _ in 0..2 {
            let echo = client.get(name, "/a//b").await.echo();
            assert_eq!(echo.origin, "secure");
            assert_eq!(echo.header("x-forwarded-for"), None, "nobody edits what is encrypted");
        }
    }
    let mut client = TlsClient::new(&ca, "own.wild.example").connect(proxy.https).await;
    assert_eq!(client.tls().chain, ours.chain());
    assert_eq!(client.get("own.wild.example", "/").await.echo().origin, "plain");
    let unnamed = TlsClient::unverified(HOST).without_sni().connect(proxy.https).await;
    assert_ne!(unnamed.tls().chain, theirs.chain(), "without a name TLS ends at the proxy");
}

#[tokio::test]
async fn tls_12_and_large_bodies_pass() {
    let ca = Ca::new("root");
    let origin = Origin::new("secure").tls(&ca.leaf(&[HOST])).start();
    let mut resources = backend("web", &[origin.address()]);
    resources.push(passing(HOST, "web", false));
    let proxy = TestProxy::start(resources);
    for client in [TlsClient::new(&ca, HOST).only_tls12(), TlsClient::new(&ca, HOST).post_quantum()] {
        let mut client = client.connect(proxy.https).await;
        let body = vec![b'x'; 3 << 20];
        assert_eq!(client.request("POST", "/", &[("host", HOST)], &body).await.echo().body_length, 3 << 20);
    }
}

#[tokio::test]
async fn every_byte_arrives_however_the_hello_is_cut() {
    let endpoint = Endpoint::start().await;
    let proxy = proxy_to(&endpoint, false);
    let whole = hello(HOST);
    for (record, piece) in [(whole.len(), whole.len()), (whole.len(), 1), (1, 4000), (100, 7), (16, 64)] {
        let bytes = [&in_records(&whole, record)[..], b"\x14\x03\x03\0\x01\x01 early bytes"].concat();
        let mut client = Client::connect(proxy.https).await;
        for part in bytes.chunks(piece) {
            client.send(part).await;
        }
        let mut server = endpoint.accept().await;
        assert_eq!(read(&mut server, bytes.len()).await, bytes, "records of {record}, pieces of {piece}");
        server.write_all(b"answer").await.unwrap();
        assert_eq!(client.read_exact(6).await, b"answer");
        client.send(b"more").await;
        assert_eq!(read(&mut server, 4).await, b"more");
        client.half_close().await;
        assert_eq!(within("the end", server.read(&mut [0; 1])).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_hello_that_only_the_endpoint_understands_passes() {
    let endpoint = Endpoint::start().await;
    let proxy = proxy_to(&endpoint, false);
    // TLS 1.0 with a server name and no other extension, which rustls refuses.
    let host = |name: &str| {
        let names = [&[0][..], &(name.len() as u16).to_be_bytes(), name.as_bytes()].concat();
        let list = [&(names.len() as u16).to_be_bytes()[..], &names].concat();
        let extension = [&[0, 0][..], &(list.len() as u16).to_be_bytes(), &list].concat();
        let extensions = [&(extension.len() as u16).to_be_bytes()[..], &extension].concat();
        let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 47], &[1, 0], &extensions].concat();
        let message = [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), &message].concat()
    };
    let old = host(HOST);
    let mut client = Client::connect(proxy.https).await;
    client.send(&old).await;
    assert_eq!(read(&mut endpoint.accept().await, old.len()).await, old);
    // For another host, the client gets the alert.
    let mut client = Client::connect(proxy.https).await;
    client.send(host("other.example")).await;
    assert_eq!(client.read_exact(2).await, [21, 3]);
    client.drain().await;
    endpoint.is_untouched().await;
}

#[tokio::test]
async fn bad_hellos_reach_no_endpoint() {
    let endpoint = Endpoint::start().await;
    let mut resources = backend("web", &[endpoint.address]);
    resources.extend([passing(HOST, "web", false), passing("*.exampl", "web", false)]);
    resources.push(Settings { header_timeout: Duration::from_millis(200), ..Settings::default() }.into());
    let proxy = TestProxy::start(resources);
    // Invalid server names.
    for instead in [&b"a\0b.exampl"[..], b"a b.exampl", b"ab-.exampl", b"192.0.2.11"] {
        let mut bytes = hello("app.exampl");
        let at = bytes.windows(instead.len()).position(|part| part == b"app.exampl").unwrap();
        bytes[at..at + instead.len()].copy_from_slice(instead);
        let mut client = Client::connect(proxy.https).await;
        client.send(&bytes).await;
        assert_eq!(client.read_exact(7).await, [21, 3, 3, 0, 2, 2, 112], "{:?}", String::from_utf8_lossy(instead));
        assert!(client.read_to_end().await.is_empty());
    }
    // One that is too large, as its first record says.
    let mut large = Client::connect(proxy.https).await;
    large.send([&b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"[..], &[0; 0x4000 - 4]].concat()).await;
    assert_eq!(large.read_exact(7).await, [21, 3, 3, 0, 2, 2, 50]);
    large.drain().await;
    // One that never ends.
    let mut slow = Client::connect(proxy.https).await;
    slow.send(&hello(HOST)[..100]).await;
    assert!(slow.read_to_end().await.is_empty(), "closed at the deadline of the handshake");
    // One that is cut.
    let mut cut = Client::connect(proxy.https).await;
    cut.send(&hello(HOST)[..100]).await;
    cut.half_close().await;
    cut.drain().await;
    endpoint.is_untouched().await;
}

#[tokio::test]
async fn the_endpoint_gets_a_proxy_header_only_if_asked_for() {
    let endpoint = Endpoint::start().await;
    let proxy = proxy_to(&endpoint, true);
    let bytes = hello(HOST);
    let mut client = Client::connect(proxy.https).await;
    client.send(&bytes).await;
    let mut server = endpoint.accept().await;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(read(&mut server, 1).await);
    }
    let line = String::from_utf8(line).unwrap();
    assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line}");
    assert!(line.ends_with(&format!(" {}\r\n", proxy.https.port())), "{line}");
    assert_eq!(read(&mut server, bytes.len()).await, bytes);

    // The client that a trusted peer names is also named to the endpoint.
    let listener =
        Listener { accept_proxy: true, ..Listener::new("https", ([127, 0, 0, 1], 0).into(), Scheme::Https, table()) };
    proxy.publish([Resource::from(listener.clone())]).await;
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n";
    let both = [&header[..], &bytes].concat();
    let mut client = Client::connect(proxy.https).await;
    client.send(&both).await;
    assert_eq!(read(&mut endpoint.accept().await, both.len()).await, both);
    proxy.publish([passing(HOST, "web", false)]).await;
    let mut client = Client::connect(proxy.https).await;
    client.send(&both).await;
    assert_eq!(read(&mut endpoint.accept().await, bytes.len()).await, bytes, "the header ends at the proxy");
}

/// An address without a listener; no other process gets it while the socket lives.
fn dead() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

#[tokio::test]
async fn connections_are_retried_logged_and_counted() {
    let (endpoint, log) = (Endpoint::start().await, Lines::default());
    let (_held, dead) = dead();
    let format = "$remote_addr $protocol $status $ssl_preread_server_name $proxy_upstream_name $bytes_received";
    let mut streams = StreamSettings::default();
    streams.log.format = StreamTemplate::parse(format);
    let mut resources = backend("web", &[dead, endpoint.address]);
    resources.extend([passing(HOST, "web", false), Settings { streams, ..Settings::default() }.into()]);
    let log_to = fairway_proxy::access_log::LogSink::Writer(Box::new(log.clone()));
    let config = ProxyConfig { log: log_to, admin: Some(([127, 0, 0, 1], 0).into()), ..one_worker() };
    let proxy = TestProxy::start_with(resources, config);
    let bytes = hello(HOST);
    for _ in 0..4 {
        let mut client = Client::connect(proxy.https).await;
        client.send(&bytes).await;
        let mut server = endpoint.accept().await;
        assert_eq!(read(&mut server, bytes.len()).await, bytes);
        server.write_all(b"12345").await.unwrap();
        assert_eq!(client.read_exact(5).await, b"12345");
    }
    let expected = format!("127.0.0.1 TLS 200 {HOST} default-web-80 {}", bytes.len());
    assert_eq!(log.after(4).await, vec![expected; 4]);

    // Without an endpoint the connection is closed.
    proxy.publish([endpoints("web", &[])]).await;
    let mut client = Client::connect(proxy.https).await;
    client.send(&bytes).await;
    client.drain().await;
    let lines = log.after(5).await;
    assert!(lines[4].contains(&format!(" TLS 502 {HOST} ")), "{lines:?}");
    let scraped = Client::connect(proxy.proxy.admin_address().unwrap()).await.get("x", "/metrics").await;
    let label = format!("{},listener=\"https\",protocol=\"TLS\"", support::CONTROLLER);
    for (name, value) in
        [("sessions_total", 5), ("sessions_active", 0), ("failures_total", 1), ("sent_bytes_total", 20)]
    {
        let line = format!("fairway_stream_{name}{{{label}}} {value}\n");
        assert!(scraped.text().contains(&line), "{line}: {}", scraped.text());
    }
    assert!(scraped.text().contains("fairway_tls_handshakes_failed_total{"), "{}", scraped.text());
}

#[tokio::test]
async fn a_change_touches_only_new_connections() {
    let ca = Ca::new("root");
    let (theirs, ours) = (ca.leaf(&[HOST]), ca.leaf(&[HOST]));
    let secure = Origin::new("secure").tls(&theirs).start();
    let plain = Origin::start("plain");
    let mut resources = backend("web", &[secure.address()]);
    resources.extend(backend("plain", &[plain.address()]));
    resources.extend([passing(HOST, "web", false), certificate("own", &ours)]);
    let proxy = TestProxy::start(resources);
    let mut before = TlsClient::new(&ca, HOST).connect(proxy.https).await;
    assert_eq!(before.get(HOST, "/").await.echo().origin, "secure");
    let routes = vec![route("/", forward("plain", ForwardPolicy::default()))];
    proxy.publish([host_with_certificate(HOST, routes, "own")]).await;
    let mut after = TlsClient::new(&ca, HOST).connect(proxy.https).await;
    assert_eq!(after.tls().chain, ours.chain());
    assert_eq!(after.get(HOST, "/").await.echo().origin, "plain");
    proxy.publish([passing(HOST, "web", false)]).await;
    assert_eq!(before.get(HOST, "/").await.echo().origin, "secure");
}

#[tokio::test]
async fn silence_ends_a_connection_and_draining_waits_for_it() {
    let endpoint = Endpoint::start().await;
    let mut proxy = proxy_to(&endpoint, false);
    let bytes = hello(HOST);
    let mut client = Client::connect(proxy.https).await;
    client.send(&bytes).await;
    let mut server = endpoint.accept().await;
    read(&mut server, bytes.len()).await;
    let https = proxy.https;
    let drain = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await });
    eventually("a closed port", || async { TcpStream::connect(https).await.is_err() }).await;
    server.write_all(b"still here").await.unwrap();
    assert_eq!(client.read_exact(10).await, b"still here");
    assert!(!drain.is_finished());
    drop((client, server));
    assert_eq!(within("the end of draining", drain).await.unwrap(), Drained { cut: 0 });

    let mut resources = backend("web", &[endpoint.address]);
    let streams = StreamSettings { idle: Duration::from_millis(50), ..StreamSettings::default() };
    resources.extend([passing(HOST, "web", false), Settings { streams, ..Settings::default() }.into()]);
    let proxy = TestProxy::start(resources);
    let mut client = Client::connect(proxy.https).await;
    client.send(&bytes).await;
    let _server = endpoint.accept().await;
    client.drain().await;
}

#[tokio::test]
async fn tls_that_ends_at_the_proxy_leads_to_an_endpoint_without_it() {
    let ca = Ca::new("root");
    let leaf = ca.leaf(&[HOST, "as-is.example"]);
    let (endpoint, secure) = (Endpoint::start().await, Origin::new("secure").tls(&leaf).start());
    let mut resources = backend("web", &[endpoint.address]);
    resources.extend(backend("secure", &[secure.address()]));
    let host = ending(HOST, "default/web:80".into(), true);
    resources.extend([certificate("own", &leaf), host.into(), passing("as-is.example", "secure", false)]);
    let proxy = TestProxy::start(resources);
    // Both share a port, told apart by the name.
    let mut other = TlsClient::new(&ca, "as-is.example").connect(proxy.https).await;
    assert_eq!(other.get("as-is.example", "/").await.echo().origin, "secure");
    let mut client = TlsClient::new(&ca, HOST).alpn(&["h2", "http/1.1"]).connect(proxy.https).await;
    assert_eq!((client.tls().alpn.as_deref(), client.tls().chain.as_slice()), (None, leaf.chain()));
    let mut server = endpoint.accept().await;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(read(&mut server, 1).await);
    }
    assert!(line.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), "{line:?}");
    // The server may speak first, and the bytes need no meaning.
    server.write_all(b"hello").await.unwrap();
    assert_eq!(client.read_exact(5).await, b"hello");
    let large = vec![b'x'; 1 << 20];
    let (_, received) = tokio::join!(client.send(&large), read(&mut server, large.len()));
    assert!(received == large, "every byte");
    client.half_close().await;
    assert_eq!(within("the end", server.read(&mut [0; 1])).await.unwrap(), 0);
    server.write_all(b"bye").await.unwrap();
    drop(server);
    assert_eq!(client.read_to_end().await, b"bye");
}

#[tokio::test]
async fn what_demands_a_client_certificate_is_not_passed_without_one() {
    let ca = Ca::new("root");
    let endpoint = Endpoint::start().await;
    let mut resources = backend("web", &[endpoint.address]);
    let auth = ClientAuth {
        mode: ClientAuthMode::Required,
        authorities: [Authority::new(ca.der().to_vec())].into(),
        revocation_lists: [].into(),
        depth: 1,
        subject: None,
        error_page: None,
        passes_certificate: false,
        in_handshake: false,
    };
    let host = ending(HOST, "default/web:80".into(), false).with_client_auth(Some(auth.into()));
    resources.extend([certificate("own", &ca.leaf(&[HOST])), host.into()]);
    let proxy = TestProxy::start(resources);
    let mut client = Client::connect(proxy.https).await;
    client.send(hello(HOST)).await;
    assert_eq!(client.read_exact(2).await, [21, 3], "an alert");
    client.drain().await;
    endpoint.is_untouched().await;
}

#[tokio::test]
async fn a_host_that_leads_nowhere_closes_the_connection_in_the_handshake() {
    let proxy = TestProxy::start([ending(HOST, StreamBackends::none(), false).into()]);
    let origin = Owner::new("Gateway", "default", "gw");
    let nowhere = Passthrough { origin, backend: None, send_proxy: false, terminate: false };
    let any = Host::new(table(), HostPattern::Any, Vec::new()).with_passthrough(Some(nowhere.into()));
    proxy.publish([any.into()]).await;
    let mut client = Client::connect(proxy.https).await;
    client.send(hello("unknown.example")).await;
    assert!(client.read_to_end().await.is_empty(), "nothing but the end");
}
