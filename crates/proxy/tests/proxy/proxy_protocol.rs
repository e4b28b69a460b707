//! The PROXY header on listeners for HTTP and HTTPS: the client that it names, and the headers that end the connection.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::support;
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, config, filtered, forward, forwarding, host, route, table};
use fairway_model::{Filter, ForwardPolicy, HttpsRedirect, Listener, NetworkSet, Resource, Scheme, Settings};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Origin, TlsClient};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 8443\r\n";
/// From 192.0.2.1 port 5 to 192.0.2.2 port 443, and an extension (PP2_TYPE_NOOP).
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbb\x04\0\x01\0";
/// `LOCAL`, with addresses that do not count.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbb";

const FORMAT: &str = "$remote_addr:$remote_port $realip_remote_addr $proxy_protocol_addr:$proxy_protocol_port \
    $proxy_protocol_server_addr:$proxy_protocol_server_port $server_addr";

fn listeners() -> Vec<Resource> {
    let listener = |name: &str, scheme| {
        let address = ([127, 0, 0, 1], 0).into();
        Resource::from(Listener { accept_proxy: true, ..Listener::new(name, address, scheme, table()) })
    };
    vec![listener("http", Scheme::Http), listener("https", Scheme::Https)]
}

fn start(origin: &Origin, settings: Settings, config: ProxyConfig) -> TestProxy {
    let mut resources = forwarding(&[origin], ForwardPolicy::default());
    resources.extend(listeners());
    resources.push(settings.into());
    TestProxy::start_with(resources, config)
}

fn trusting(networks: &[&str]) -> Settings {
    let mut settings = Settings::default();
    settings.forwarded.trusted = networks.iter().map(|network| network.parse().unwrap()).collect::<NetworkSet>();
    settings
}

fn request() -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// Sends a header and a request in one piece.
async fn ask(proxy: &TestProxy, header: &[u8]) -> fairway_testkit::Response {
    let mut client = Client::connect(proxy.http).await;
    client.send([header, request().as_bytes()].concat()).await;
    client.read_response().await
}

#[tokio::test]
async fn the_header_names_the_client_on_both_ports() {
    let (origin, lines) = (Origin::start("a"), Lines::default());
    let proxy = start(&origin, Settings::default(), logging(&lines, FORMAT));
    for header in [V1, V2] {
        let echo = ask(&proxy, header).await.echo();
        assert_eq!(echo.header("x-real-ip"), Some("192.0.2.1"));
        assert_eq!(echo.header("x-forwarded-for"), Some("192.0.2.1"));
        let over_tls = TlsClient::unverified(HOST).transport(Client::builder().send_first(header));
        let mut client = over_tls.connect(proxy.https).await;
        for _ in 0..2 {
            let echo = client.get(HOST, "/").await.echo();
            assert_eq!(echo.header("x-real-ip"), Some("192.0.2.1"));
            assert_eq!(echo.header("x-forwarded-proto"), Some("https"));
        }
    }
    let lines = lines.after(6).await;
    assert_eq!(lines[0], "192.0.2.1:5 127.0.0.1 192.0.2.1:5 192.0.2.2:8443 127.0.0.1");
    assert_eq!(lines[5], "192.0.2.1:5 127.0.0.1 192.0.2.1:5 192.0.2.2:443 127.0.0.1");
}

#[tokio::test]
async fn the_header_may_come_byte_by_byte() {
    let origin = Origin::start("a");
    let proxy = start(&origin, Settings::default(), config());
    for header in [V1, V2] {
        let mut client = Client::connect(proxy.http).await;
        for byte in header {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        client.send(request()).await;
        assert_eq!(client.read_response().await.echo().header("x-real-ip"), Some("192.0.2.1"));
    }
}

#[tokio::test]
async fn a_peer_that_speaks_for_itself_is_the_client() {
    let (origin, lines) = (Origin::start("a"), Lines::default());
    let proxy = start(&origin, Settings::default(), logging(&lines, FORMAT));
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        assert_eq!(ask(&proxy, header).await.echo().header("x-real-ip"), Some("127.0.0.1"));
    }
    let lines = lines.after(2).await;
    assert!(lines.iter().all(|line| line.ends_with(" 127.0.0.1 -:- -:- 127.0.0.1")), "{lines:?}");
}

#[tokio::test]
async fn port_443_in_the_header_means_https() {
    let origin = Origin::start("a");
    let mut resources = forwarding(&[&origin], ForwardPolicy::default());
    let redirect = Filter::HttpsRedirect(HttpsRedirect { status: 308, preserve_trailing_slash: false, port: None });
    resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), vec![redirect])]));
    resources.extend(listeners());
    let proxy = TestProxy::start(resources);
    assert_eq!(ask(&proxy, V1).await.status, 308, "port 8443 says nothing");
    let echo = ask(&proxy, V2).await.echo();
    assert_eq!(echo.header("x-forwarded-proto"), Some("https"));
    assert_eq!(echo.header("x-scheme"), Some("https"));
}

#[tokio::test]
async fn what_is_no_header_ends_the_connection_and_reaches_no_endpoint() {
    let origin = Origin::start("a");
    let admin = Some(([127, 0, 0, 1], 0).into());
    let proxy = start(&origin, Settings::default(), ProxyConfig { admin, ..config() });
    let long = [&b"PROXY TCP4 "[..], &[b'1'; 200], b"\r\n"].concat();
    let huge = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbb".to_vec();
    let starts: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 5\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1, 192.0.2.2 5 443\r\n".to_vec(),
        b"\r\nPROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbb".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        long,
        huge,
    ];
    let count = starts.len() * 2;
    for start in starts {
        for address in [proxy.http, proxy.https] {
            let mut client = Client::connect(address).await;
            // The proxy may close before it has read everything.
            let _ = client.try_send([&start, request().as_bytes()].concat()).await;
            assert_eq!(client.drain().await.0, b"", "{}", start.escape_ascii());
        }
    }
    assert_eq!(origin.connections(), 0);
    let mut admin = Client::connect(proxy.proxy.admin_address().unwrap()).await;
    let metrics = admin.get("admin", "/metrics").await.text();
    let expected = format!("fairway_proxy_headers_failed_total{{{}}} {count}", support::CONTROLLER);
    assert!(metrics.lines().any(|line| line == expected), "{metrics}");
}

#[tokio::test]
async fn only_trusted_peers_may_name_the_client() {
    let origin = Origin::start("a");
    let proxy = start(&origin, trusting(&["10.0.0.0/8", "127.0.0.2/32"]), config());
    for address in [proxy.http, proxy.https] {
        let mut client = Client::connect(address).await;
        let _ = client.try_send([V1, request().as_bytes()].concat()).await;
        assert_eq!(client.drain().await.0, b"");
    }
    assert_eq!(origin.connections(), 0);
    let trusted = Client::builder().source([127, 0, 0, 2]).send_first(V1);
    let echo = trusted.connect(proxy.http).await.get(HOST, "/").await.echo();
    assert_eq!(echo.header("x-real-ip"), Some("192.0.2.1"));
}

#[tokio::test]
async fn forwarded_fields_count_only_from_a_trusted_client() {
    let origin = Origin::start("a");
    let mut settings = trusting(&["127.0.0.1/32", "192.0.2.1/32"]);
    settings.forwarded.trust = true;
    let proxy = start(&origin, settings, config());
    let other = b"PROXY TCP4 192.0.2.9 192.0.2.2 5 80\r\n";
    for (header, expected) in [(V1, "203.0.113.7"), (other, "192.0.2.9")] {
        let mut client = Client::builder().send_first(header).connect(proxy.http).await;
        let fields = [("host", HOST), ("x-forwarded-for", "203.0.113.7")];
        let echo = client.request("GET", "/", &fields, b"").await.echo();
        assert_eq!(echo.header("x-real-ip"), Some(expected));
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_in_time_ends_the_connection() {
    let origin = Origin::start("a");
    let proxy_header_timeout = Duration::from_millis(100);
    let proxy = start(&origin, Settings { proxy_header_timeout, ..Settings::default() }, config());
    for address in [proxy.http, proxy.https] {
        for sent in [&b""[..], &V1[..20], &V2[..14]] {
            let mut client = Client::connect(address).await;
            client.send(sent).await;
            assert_eq!(client.drain().await.0, b"");
        }
    }
}

#[tokio::test]
async fn connections_without_a_header_make_room_first() {
    let origin = Origin::start("a");
    let config = ProxyConfig { connections: 4, workers: NonZeroUsize::new(1), ..config() };
    let settings = Settings { proxy_header_timeout: Duration::from_secs(600), ..Settings::default() };
    let proxy = start(&origin, settings, config);
    let mut silent = Vec::new();
    for address in [proxy.http, proxy.https] {
        for sent in [&b""[..], &V1[..9]] {
            let mut client = Client::connect(address).await;
            client.send(sent).await;
            silent.push(client);
        }
    }
    assert_eq!(ask(&proxy, V1).await.status, 200);
    let over_tls = TlsClient::unverified(HOST).transport(Client::builder().send_first(V1));
    assert_eq!(over_tls.connect(proxy.https).await.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn the_limit_per_client_counts_whom_the_header_names() {
    let origin = Origin::start("a");
    let settings = Settings { connections_per_client: NonZeroU32::new(1), ..Settings::default() };
    let proxy = start(&origin, settings, config());
    let first = Client::builder().send_first(V1);
    let mut held = first.connect(proxy.http).await;
    assert_eq!(held.get(HOST, "/").await.status, 200);
    let mut second = first.connect(proxy.http).await;
    let _ = second.try_send(request()).await;
    assert_eq!(second.drain().await.0, b"", "the same client");
    let other = Client::builder().send_first(b"PROXY TCP4 192.0.2.3 192.0.2.2 5 80\r\n");
    assert_eq!(other.connect(proxy.http).await.get(HOST, "/").await.status, 200);
    assert_eq!(held.get(HOST, "/").await.status, 200);
}
