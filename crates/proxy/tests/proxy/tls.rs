//! TLS: the choice of certificate and version, resumption, and changes that don't touch connections.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::Arc;

use crate::support;
use crate::support::{HOST, TestProxy, backend, certificate, filtered, forward, host, host_with_certificate, route};
use fairway_model::{ForwardPolicy, Listener, Resource, Scheme, Settings, ToldPort};
use fairway_testkit::{Ca, Client, Leaf, Origin, TlsClient};

struct Site {
    ca: Ca,
    origin: Origin,
    proxy: TestProxy,
    own: Leaf,
    wild: Leaf,
}

fn site() -> Site {
    let ca = Ca::new("root");
    let (own, wild, default) = (ca.leaf(&[HOST]), ca.leaf(&["*.wild.example"]), ca.leaf(&["default.example"]));
    let origin = Origin::start("a");
    let routes = || {
        let secure = vec![fairway_model::Filter::StrictTransportSecurity];
        vec![filtered(route("/", forward("web", ForwardPolicy::default())), secure)]
    };
    let mut resources = backend("web", &[origin.address()]);
    resources.extend([
        certificate("own", &own),
        certificate("wild", &wild),
        certificate("default", &default),
        host_with_certificate(HOST, routes(), "own"),
        host_with_certificate("*.wild.example", routes(), "wild"),
        host("plain.example", routes()),
        Settings { default_certificate: Some("default".into()), ..Settings::default() }.into(),
    ]);
    let proxy = TestProxy::start(resources);
    Site { ca, origin, proxy, own, wild }
}

async fn leaf_for(site: &Site, name: &str) -> Vec<u8> {
    let client = TlsClient::unverified(name).connect(site.proxy.https).await;
    client.tls().chain[0].to_vec()
}

#[tokio::test]
async fn the_certificate_follows_the_server_name() {
    let site = site();
    assert_eq!(leaf_for(&site, HOST).await, site.own.der().to_vec());
    assert_eq!(leaf_for(&site, "APP.example").await, site.own.der().to_vec());
    assert_eq!(leaf_for(&site, "x.wild.example").await, site.wild.der().to_vec());
    let default = leaf_for(&site, "unknown.example").await;
    assert!(default != site.own.der().to_vec() && default != site.wild.der().to_vec());
    assert_eq!(leaf_for(&site, "plain.example").await, default);
    let without = TlsClient::unverified(HOST).without_sni().connect(site.proxy.https).await;
    assert_eq!(without.tls().chain[0].to_vec(), default);
}

#[tokio::test]
async fn both_versions_are_spoken_and_the_backend_is_told() {
    let site = site();
    for client in [TlsClient::new(&site.ca, HOST).only_tls12(), TlsClient::new(&site.ca, HOST).only_tls13()] {
        let mut client = client.alpn(&["h3", "http/1.1"]).connect(site.proxy.https).await;
        assert_eq!(client.tls().alpn.as_deref(), Some("http/1.1"));
        let response = client.get(HOST, "/").await;
        assert_eq!(response.header("strict-transport-security"), Some("max-age=31536000; includeSubDomains"));
        let echo = response.echo();
        assert_eq!(echo.header("x-forwarded-proto"), Some("https"));
        assert_eq!(echo.header("x-forwarded-port"), Some("443"));
    }
    let plain = site.proxy.connect().await.get(HOST, "/").await;
    assert_eq!(plain.header("strict-transport-security"), None);
}

#[tokio::test]
async fn a_listener_says_which_port_backends_are_told() {
    let site = site();
    let local = site.proxy.https.port();
    for (told_port, expected) in [(ToldPort::Number(8443), 8443), (ToldPort::Local, local), (ToldPort::Usual, 443)] {
        let Resource::Listener(https) = support::listener("https", Scheme::Https) else { unreachable!("a listener") };
        site.proxy.publish([Listener { told_port, ..(*https).clone() }.into()]).await;
        let mut client = TlsClient::new(&site.ca, HOST).connect(site.proxy.https).await;
        let told = client.get(HOST, "/").await.echo().header("x-forwarded-port").map(str::to_owned);
        assert_eq!(told, Some(expected.to_string()), "{told_port:?}");
    }
}

#[tokio::test]
async fn sessions_are_resumed_in_any_worker() {
    let site = site();
    for client in [TlsClient::new(&site.ca, HOST).only_tls12(), TlsClient::new(&site.ca, HOST).only_tls13()] {
        let mut resumed = 0;
        for _ in 0..6 {
            // A request and its response, so that the tickets of TLS 1.3 have arrived.
            let mut connection = client.connect(site.proxy.https).await;
            connection.get(HOST, "/").await;
            resumed += usize::from(connection.tls().resumed);
        }
        assert!(resumed >= 5, "{resumed}");
    }
}

#[tokio::test]
async fn a_new_certificate_touches_no_connection() {
    let site = site();
    let mut before = TlsClient::new(&site.ca, HOST).connect(site.proxy.https).await;
    let renewed = site.ca.leaf(&[HOST]);
    site.proxy.publish([certificate("own", &renewed)]).await;
    assert_eq!(before.get(HOST, "/").await.status, 200);
    assert_eq!(leaf_for(&site, HOST).await, renewed.der().to_vec());
    assert_eq!(before.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_harms_only_its_host() {
    let site = site();
    let broken = site.ca.certificate(&[HOST]).mismatched_key().issue();
    site.proxy.publish([certificate("own", &broken)]).await;
    let default = leaf_for(&site, "unknown.example").await;
    assert_eq!(leaf_for(&site, HOST).await, default);
    assert_eq!(leaf_for(&site, "x.wild.example").await, site.wild.der().to_vec());
}

#[tokio::test]
async fn without_any_certificate_there_is_still_one() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = TlsClient::unverified(HOST).connect(proxy.https).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let first = client.tls().chain[0].clone();
    let again = TlsClient::unverified("other.example").connect(proxy.https).await;
    assert_eq!(again.tls().chain[0], first, "made once");
    assert!(memmem(&first, b"Kubernetes Ingress Controller Fake Certificate"));
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_told_so() {
    let site = site();
    let mut client = Client::connect(site.proxy.https).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let response = client.read_response().await;
    assert_eq!(response.status, 400);
    assert!(response.text().contains("The plain HTTP request was sent to HTTPS port"));
    client.half_close().await;
    client.ended().await;
    assert_eq!(site.origin.connections(), 0);
}

#[tokio::test]
async fn garbage_ends_one_connection_only() {
    let site = site();
    let mut good = TlsClient::new(&site.ca, HOST).connect(site.proxy.https).await;
    let mut garbage = Client::connect(site.proxy.https).await;
    garbage.send(b"\x16\x03\x01\x00\x05hello").await;
    garbage.drain().await;
    assert_eq!(good.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn large_bodies_go_through_tls_both_ways() {
    let site = site();
    let mut client = TlsClient::new(&site.ca, HOST).connect(site.proxy.https).await;
    let body = vec![b'x'; 1 << 20];
    assert_eq!(client.request("POST", "/", &[("host", HOST)], &body).await.echo().body_length, 1 << 20);
    site.origin.set_reply(fairway_testkit::Reply::ok().body(vec![b'y'; 5 << 20]));
    assert_eq!(client.get(HOST, "/").await.body.len(), 5 << 20);
    site.origin.set_reply(fairway_testkit::Reply::ok().body("end"));
    assert_eq!(client.get(HOST, "/").await.text(), "end");
}

#[tokio::test]
async fn a_listener_for_tls_can_come_and_go() {
    let site = site();
    let more = Resource::from(Listener::new("more", ([127, 0, 0, 1], 0).into(), Scheme::Https, support::table()));
    site.proxy.publish([more]).await;
    let address = site.proxy.proxy.local_addresses()[&"more".into()];
    let mut client = TlsClient::new(&site.ca, HOST).connect(address).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let removal = fairway_model::Delta {
        removals: vec![fairway_model::ResourceName::Listener("more".into())],
        ..fairway_model::Delta::default()
    };
    site.proxy.publisher.publish(removal).await;
    assert!(Client::try_connect(address).await.is_err());
    assert_eq!(client.get(HOST, "/").await.status, 200, "its connections go on");
}

fn memmem(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// A hello for a name, replaced by one of the same length that no client library would send.
fn hello(ca: &Ca, name: &str, instead: &[u8]) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_no_client_auth();
    let name: rustls::pki_types::ServerName<'static> = name.to_owned().try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(config.into(), name.clone()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    let at = bytes.windows(instead.len()).position(|part| part == name.to_str().as_bytes()).unwrap();
    bytes[at..at + instead.len()].copy_from_slice(instead);
    bytes
}

#[tokio::test]
async fn a_server_name_that_is_no_host_name_is_refused_as_such() {
    let site = site();
    for instead in
        [&b"192.0.2.11"[..], b"a\0b.exampl", b"*.x.exampl", b"ab-.exampl", b"a b.exampl", b"..........", b"x.exampl.9"]
    {
        let bytes = hello(&site.ca, "app.exampl", instead);
        // In one piece, and byte by byte.
        for piece in [bytes.len(), 1] {
            let mut client = Client::connect(site.proxy.https).await;
            for part in bytes.chunks(piece) {
                client.send(part).await;
            }
            let alert = client.read_exact(7).await;
            assert_eq!(alert, [21, 3, 3, 0, 2, 2, 112], "{:?}", String::from_utf8_lossy(instead));
            assert!(client.read_to_end().await.is_empty());
        }
    }
    assert_eq!(leaf_for(&site, "app.example.").await, site.own.der().to_vec(), "a final dot is no part of the name");
}

#[tokio::test]
async fn a_client_that_speaks_no_known_protocol_is_served_without_one() {
    let site = site();
    for (offered, chosen) in [(&["http/1.0"][..], None), (&["h3", "http/1.1"], Some("http/1.1")), (&["x"], None)] {
        let mut client = TlsClient::new(&site.ca, HOST).alpn(offered).connect(site.proxy.https).await;
        assert_eq!(client.tls().alpn.as_deref(), chosen);
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
}

#[tokio::test]
async fn replicas_with_one_ticket_key_resume_each_others_sessions() {
    let ca = Ca::new("root");
    let (leaf, origin) = (ca.leaf(&[HOST]), Origin::start("a"));
    let replica = |key: Option<u8>| {
        let mut settings = Settings::default();
        settings.tls.tickets = true;
        settings.tls.ticket_key = key.and_then(|key| fairway_model::TicketKey::new(&[key; 80]));
        let mut resources = backend("web", &[origin.address()]);
        let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
        resources.extend([certificate("own", &leaf), host_with_certificate(HOST, routes, "own"), settings.into()]);
        TestProxy::start(resources)
    };
    let (one, other, stranger, own) = (replica(Some(1)), replica(Some(1)), replica(Some(2)), replica(None));
    for client in [TlsClient::new(&ca, HOST).only_tls12(), TlsClient::new(&ca, HOST).only_tls13()] {
        for (proxy, resumed) in [(&one, false), (&other, true), (&one, true), (&stranger, false), (&own, false)] {
            let mut connection = client.connect(proxy.https).await;
            assert_eq!(connection.get(HOST, "/").await.status, 200);
            assert_eq!(connection.tls().resumed, resumed, "{:?}", connection.tls().version);
        }
    }
}

/// Makes two connections, the second of which could send early data if the first one's ticket allowed it.
fn early_data(address: std::net::SocketAddr, roots: Arc<rustls::RootCertStore>) -> (rustls::HandshakeKind, bool) {
    let mut config = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_early_data = true;
    let (config, mut last) = (Arc::new(config), None);
    for _ in 0..2 {
        let mut connection = rustls::ClientConnection::new(config.clone(), HOST.try_into().unwrap()).unwrap();
        let early = connection.early_data().is_some();
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        let mut stream = rustls::Stream::new(&mut connection, &mut tcp);
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
        last = Some((connection.handshake_kind().unwrap(), early));
    }
    last.unwrap()
}

#[tokio::test]
async fn no_session_allows_early_data() {
    for tickets in [false, true] {
        let site = site();
        let mut settings = Settings::default();
        settings.tls.tickets = tickets;
        site.proxy.publish([settings.into()]).await;
        let (https, roots) = (site.proxy.https, site.ca.roots());
        let (kind, early) = tokio::task::spawn_blocking(move || early_data(https, roots)).await.unwrap();
        assert_eq!((kind, early), (rustls::HandshakeKind::Resumed, false), "tickets: {tickets}");
    }
}

#[tokio::test]
async fn a_client_gets_the_certificate_that_it_can_verify() {
    use rustls::SignatureScheme::{ECDSA_NISTP256_SHA256, RSA_PSS_SHA256};
    let (ca, origin) = (Ca::new("root"), Origin::start("a"));
    let (ecdsa, rsa) = (ca.leaf(&[HOST]), ca.certificate(&[HOST]).rsa().issue());
    let both = |name: &str, first: &str, second: &str| {
        let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
        let host = fairway_model::Host::new(support::table(), fairway_model::HostPattern::parse(name).unwrap(), routes);
        let host = host.with_certificate(Some(first.into())).with_alternative_certificate(Some(second.into()));
        Resource::from(host)
    };
    let mut resources = backend("web", &[origin.address()]);
    resources.extend([certificate("ecdsa", &ecdsa), certificate("rsa", &rsa)]);
    resources.extend([both(HOST, "ecdsa", "rsa"), both("other.example", "rsa", "ecdsa")]);
    let proxy = TestProxy::start(resources);
    for (name, schemes, expected) in [
        (HOST, &[RSA_PSS_SHA256, ECDSA_NISTP256_SHA256][..], &ecdsa),
        (HOST, &[RSA_PSS_SHA256], &rsa),
        (HOST, &[ECDSA_NISTP256_SHA256], &ecdsa),
        ("other.example", &[ECDSA_NISTP256_SHA256, RSA_PSS_SHA256], &rsa),
        ("other.example", &[ECDSA_NISTP256_SHA256], &ecdsa),
    ] {
        for client in [TlsClient::unverified(name).only_tls12(), TlsClient::unverified(name).only_tls13()] {
            let mut client = client.signatures(schemes).connect(proxy.https).await;
            assert_eq!(client.tls().chain, expected.chain(), "{name} {schemes:?} {:?}", client.tls().version);
            assert_eq!(client.get(name, "/").await.status, 200);
        }
    }
}
