//! TLS to the endpoints of a TCP service.

use fairway_model::{Authority, StreamBackends, StreamShare, Trust, UpstreamTls};
use fairway_testkit::{Ca, Client, Origin};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::support::{HOST, certificate};

fn trusting(ca: &Ca, name: &str) -> UpstreamTls {
    let trust = Trust::Authorities([Authority::new(ca.der().to_vec())].into());
    UpstreamTls { name: Some(name.into()), sni: true, trust, ..UpstreamTls::default() }
}

fn over(tls: UpstreamTls) -> StreamBackends {
    let share = StreamShare { backend: Some("default/web:80".into()), weight: 1, tls: Some(tls.into()) };
    StreamBackends::Weighted([share].into())
}

fn listener(transport: Transport, backend: StreamBackends) -> Resource {
    let Resource::StreamListener(one) = stream("127.0.0.1:0", transport, "web") else { unreachable!() };
    StreamListener { backend, ..(*one).clone() }.into()
}

fn proxy_to(origin: SocketAddr, tls: UpstreamTls, more: Vec<Resource>) -> TestProxy {
    let mut resources = backend("web", &[origin]);
    resources.push(listener(TCP, over(tls)));
    resources.extend(more);
    TestProxy::start(resources)
}

/// An endpoint whose every byte the test controls.
struct Secure {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
}

impl Secure {
    async fn start(ca: &Ca) -> Self {
        let leaf = ca.leaf(&["web.example"]);
        let key: PrivateKeyDer<'static> = leaf.key();
        let config = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(leaf.chain().to_vec(), key)
            .unwrap();
        let (listener, address) = listen().await;
        Self { listener, address, acceptor: Arc::new(config).into() }
    }

    async fn accept(&self) -> TlsStream<TcpStream> {
        let stream = accept(&self.listener).await;
        within("a handshake", self.acceptor.accept(stream)).await.unwrap()
    }
}

async fn tls_client(ca: &Ca, proxy: SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connect(proxy).await;
    within("a handshake", connector.connect(HOST.try_into().unwrap(), stream)).await.unwrap()
}

#[tokio::test]
async fn an_endpoint_with_the_right_certificate_gets_what_the_client_sends_over_tls() {
    let ca = Ca::new("root");
    let origin = Origin::new("secure").tls(&ca.leaf(&["web.example"])).start();
    let proxy = proxy_to(origin.address(), trusting(&ca, "web.example"), Vec::new());
    let mut client = Client::connect(address_of(&proxy)).await;
    for _ in 0..2 {
        assert_eq!(client.get("any", "/x").await.echo().origin, "secure");
        assert_eq!(origin.next_request().await.sni.as_deref(), Some("web.example"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_not_trusted_gets_nothing() {
    let (ca, clients) = (Ca::new("root"), Ca::new("clients"));
    let secure = Origin::new("secure").tls(&ca.leaf(&["web.example"])).start();
    let mutual = Origin::new("mutual").mutual_tls(&ca.leaf(&["web.example"]), &clients).start();
    let (plain, address) = listen().await;
    let missing = UpstreamTls { client_certificate: Some("gone".into()), ..trusting(&ca, "web.example") };
    let other = UpstreamTls { client_certificate: Some("other".into()), ..trusting(&ca, "web.example") };
    for (what, endpoint, tls) in [
        ("another authority", secure.address(), trusting(&clients, "web.example")),
        ("another name", secure.address(), trusting(&ca, "else.example")),
        ("a certificate that is gone", secure.address(), missing),
        ("no certificate", mutual.address(), trusting(&ca, "web.example")),
        ("a certificate of somebody else", mutual.address(), other),
    ] {
        let proxy = proxy_to(endpoint, tls, vec![certificate("other", &ca.leaf(&["proxy"]))]);
        let mut client = Client::connect(address_of(&proxy)).await;
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (read, _) = client.drain().await;
        assert!(!read.windows(4).any(|bytes| bytes == b"HTTP"), "{what}");
    }
    assert_eq!((secure.requests(), mutual.requests()), (0, 0));

    // One without TLS sees a hello, and nothing of the client.
    let proxy = proxy_to(address, trusting(&ca, "web.example"), Vec::new());
    let mut client = connect(address_of(&proxy)).await;
    client.write_all(b"secret").await.unwrap();
    let mut server = accept(&plain).await;
    assert_eq!(read(&mut server, 1).await, [22], "a record of the handshake");
    server.write_all(b"what?\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = within("the end", server.read_to_end(&mut rest)).await;
    assert!(!rest.windows(6).any(|bytes| bytes == b"secret"));
    assert!(matches!(within("the end", client.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_certificate_is_shown_to_an_endpoint_that_asks_for_one() {
    let (ca, clients) = (Ca::new("root"), Ca::new("clients"));
    let origin = Origin::new("mutual").mutual_tls(&ca.leaf(&["web.example"]), &clients).start();
    let tls = UpstreamTls { client_certificate: Some("own".into()), ..trusting(&ca, "web.example") };
    let proxy = proxy_to(origin.address(), tls, vec![certificate("own", &clients.leaf(&["proxy"]))]);
    let mut client = Client::connect(address_of(&proxy)).await;
    assert_eq!(client.get("any", "/").await.echo().origin, "mutual");
}

#[tokio::test]
async fn another_endpoint_is_tried_if_the_first_speaks_no_tls() {
    let ca = Ca::new("root");
    let (plain, secure) = (Origin::start("plain"), Origin::new("secure").tls(&ca.leaf(&["web.example"])).start());
    let mut resources = backend("web", &[plain.address(), secure.address()]);
    resources.push(listener(TCP, over(trusting(&ca, "web.example"))));
    let proxy = TestProxy::start(resources);
    for _ in 0..4 {
        let mut client = Client::connect(address_of(&proxy)).await;
        assert_eq!(client.get("any", "/").await.echo().origin, "secure");
    }
    assert_eq!(plain.requests(), 0);
}

#[tokio::test]
async fn the_proxy_header_stands_before_the_handshake() {
    let ca = Ca::new("root");
    let secure = Secure::start(&ca).await;
    let transport = Transport::Tcp { accept_proxy: true, send_proxy: true };
    let mut resources = backend("web", &[secure.address]);
    resources.push(listener(transport, over(trusting(&ca, "web.example"))));
    let proxy = TestProxy::start(resources);
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n";
    let mut client = connect(address_of(&proxy)).await;
    client.write_all(&[&header[..], b"hello"].concat()).await.unwrap();
    let mut server = accept(&secure.listener).await;
    assert_eq!(read(&mut server, header.len()).await, header);
    let mut server = within("a handshake", secure.acceptor.accept(server)).await.unwrap();
    let mut bytes = [0; 5];
    within("bytes", server.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn only_an_end_that_tls_confirms_is_confirmed_to_the_client() {
    let ca = Ca::new("root");
    let secure = Secure::start(&ca).await;
    let mut resources = backend("web", &[secure.address]);
    let passthrough = fairway_model::Passthrough {
        origin: Owner::new("TLSRoute", "default", "app"),
        backend: Some(over(trusting(&ca, "web.example"))),
        send_proxy: false,
        terminate: true,
    };
    let pattern = fairway_model::HostPattern::parse(HOST).unwrap();
    let host = fairway_model::Host::new(support::table(), pattern, Vec::new())
        .with_certificate(Some("own".into()))
        .with_passthrough(Some(passthrough.into()));
    resources.extend([
        host.into(),
        certificate("own", &ca.leaf(&[HOST])),
        listener(TCP, over(trusting(&ca, "web.example"))),
    ]);
    let proxy = TestProxy::start(resources);

    // With close_notify each direction ends on its own.
    let mut client = tls_client(&ca, proxy.https).await;
    let mut server = secure.accept().await;
    server.write_all(b"question").await.unwrap();
    server.shutdown().await.unwrap();
    let mut received = Vec::new();
    within("the end", client.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"question");
    client.write_all(b"answer").await.unwrap();
    let mut bytes = [0; 6];
    within("bytes", server.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"answer");

    // Without it the client gets every byte, but no close_notify that says that these are all.
    let large = vec![b'x'; 300_000];
    let cut = async {
        let mut server = secure.accept().await;
        server.write_all(&large).await.unwrap();
        server.flush().await.unwrap();
        server.into_inner().0.shutdown().await.unwrap();
    };
    let mut client = tls_client(&ca, proxy.https).await;
    let mut received = Vec::new();
    let (ended, ()) = tokio::join!(within("the end", client.read_to_end(&mut received)), cut);
    assert!(received == large, "{} bytes", received.len());
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);

    // To a client without TLS both look the same.
    let mut client = connect(address_of(&proxy)).await;
    let cut = async {
        let mut server = secure.accept().await;
        server.write_all(&large).await.unwrap();
        server.flush().await.unwrap();
        server.into_inner().0.shutdown().await.unwrap();
    };
    let (received, ()) = tokio::join!(read_to_end(&mut client), cut);
    assert!(received == large, "{} bytes", received.len());
}

#[tokio::test]
async fn datagrams_do_not_go_in_the_clear_to_where_tls_is_demanded() {
    let (endpoint, address) = udp().await;
    let mut resources = backend("web", &[address]);
    resources.push(listener(Transport::Udp, over(UpstreamTls::default())));
    let log = Lines::default();
    let proxy = TestProxy::start_with(resources, ProxyConfig { log: log.sink(), ..one_worker() });
    let (client, _) = udp().await;
    client.send_to(b"first", address_of(&proxy)).await.unwrap();
    assert!(log.wait(1).await[0].contains(" UDP 502 "));
    proxy.publish([listener(Transport::Udp, "default/web:80".into())]).await;
    client.send_to(b"second", address_of(&proxy)).await.unwrap();
    let mut room = [0; 8];
    let len = within("a datagram", endpoint.recv(&mut room)).await.unwrap();
    assert_eq!(&room[..len], b"second");
}
