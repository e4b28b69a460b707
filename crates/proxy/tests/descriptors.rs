//! How many of the process's files connections and datagrams may use. The limit applies to the whole process, so these tests are a
//! program of their own and run one at a time.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::cell::RefCell;
use std::fs::File;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fairway_model::{ForwardPolicy, Origin as Owner, Resource, Settings, StreamListener, StreamSettings, Transport};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Origin, TlsClient, eventually, within};
use nix::sys::resource::{Resource as Limit, getrlimit, setrlimit};
use support::log::{Lines, logging};
use support::{HOST, TestProxy, backend, config, forward, forwarding, host, route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Builder;
use tokio::time::timeout;

const FILES: u64 = 256;

/// Runs a test while no other one runs. Its event loop needs files as well.
fn with_few_files(test: impl AsyncFnOnce()) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    allow(FILES);
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
}

fn allow(files: u64) {
    let (_, most) = getrlimit(Limit::RLIMIT_NOFILE).unwrap();
    setrlimit(Limit::RLIMIT_NOFILE, files, most).unwrap();
}

/// Every file that may still be opened.
fn all_files() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn one_worker() -> ProxyConfig {
    ProxyConfig { workers: NonZeroUsize::new(1), ..config() }
}

/// Clients that wait without a request; the proxy keeps no connection to an endpoint for them.
async fn idle_clients(proxy: &TestProxy, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = proxy.connect().await;
        assert_eq!(client.get("unknown.example", "/").await.status, 404);
        clients.push(client);
    }
    clients
}

#[test]
fn connections_leave_files_to_requests() {
    with_few_files(async || {
        let origin = Origin::start("a");
        let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), one_worker());
        // The proxy uses the limit as of its start: these files are for the clients.
        allow(4 * FILES);
        let _clients = idle_clients(&proxy, FILES as usize / 2).await;
        // A connection that makes room is closed by its own task, which may get its turn only after the next one was accepted.
        let few = || async { proxy.proxy.connections().await <= FILES as usize * 5 / 16 };
        eventually("connections leave files to requests", few).await;
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
    });
}

#[test]
fn a_request_without_a_file_gets_that_of_an_idle_client() {
    with_few_files(async || {
        let origin = Origin::start("a");
        let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), one_worker());
        let mut clients = idle_clients(&proxy, 20).await;
        let _held = all_files();
        assert_eq!(clients.last_mut().unwrap().get(HOST, "/").await.status, 200);
    });
}

#[test]
fn a_request_without_a_file_gets_that_of_an_idle_connection_to_another_endpoint() {
    with_few_files(async || {
        let (web, other) = (Origin::start("web"), Origin::start("other"));
        let mut resources = forwarding(&[&web], ForwardPolicy::default());
        resources.extend(backend("other", &[other.address()]));
        let routes = vec![route("/", forward("other", ForwardPolicy::default()))];
        resources.push(host("other.example", routes));
        let proxy = TestProxy::start_with(resources, one_worker());
        let mut client = proxy.connect().await;
        assert_eq!(client.get(HOST, "/").await.status, 200);
        let _held = all_files();
        assert_eq!(client.get("other.example", "/").await.echo().origin, "other");
        assert_eq!(client.get(HOST, "/").await.echo().origin, "web");
    });
}

#[test]
fn a_request_that_gets_no_file_is_answered_503() {
    with_few_files(async || {
        let origin = Origin::start("a");
        let policy = ForwardPolicy { connect_timeout: Duration::from_millis(100), ..ForwardPolicy::default() };
        let lines = Lines::default();
        let config = ProxyConfig { workers: NonZeroUsize::new(1), ..logging(&lines, "$status $failure_reason") };
        let proxy = TestProxy::start_with(forwarding(&[&origin], policy), config);
        let mut clients = idle_clients(&proxy, 1).await;
        let held = all_files();
        assert_eq!(clients[0].get(HOST, "/").await.status, 503);
        drop(held);
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
        assert_eq!(lines.after(3).await, ["404 no_host", "503 no_file", "200 -"]);
    });
}

#[test]
fn a_new_client_gets_the_file_of_an_idle_one() {
    with_few_files(async || {
        let proxy = TestProxy::start_with([], one_worker());
        let _clients = idle_clients(&proxy, 20).await;
        let socket = TcpSocket::new_v4().unwrap();
        let _held = all_files();
        let mut late = within("a connection", socket.connect(proxy.http)).await.unwrap();
        late.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut response = Vec::new();
        within("a response", late.read_to_end(&mut response)).await.unwrap();
        assert!(response.starts_with(b"HTTP/1.1 404"), "{response:?}");
    });
}

/// More connections than the proxy has places for, on which only `sent` arrives.
async fn silent_clients(to: SocketAddr, sent: &[u8]) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..3 * FILES {
        let mut stream = within("a connection", TcpStream::connect(to)).await.unwrap();
        stream.write_all(sent).await.unwrap();
        silent.push(stream);
    }
    silent
}

/// A proxy with [`FILES`] files, for clients that have more.
fn proxy_for_many(origin: &Origin) -> TestProxy {
    let admin = Some(([127, 0, 0, 1], 0).into());
    let proxy =
        TestProxy::start_with(forwarding(&[origin], ForwardPolicy::default()), ProxyConfig { admin, ..one_worker() });
    allow(8 * FILES);
    proxy
}

async fn shed(proxy: &TestProxy, what: &str) -> u64 {
    let mut admin = Client::connect(proxy.proxy.admin_address().unwrap()).await;
    let metrics = admin.get("admin", "/metrics").await.text();
    let name = format!("fairway_connections_shed_{what}_total{{");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX-Half: "] {
        with_few_files(async || {
            let origin = Origin::start("a");
            let proxy = proxy_for_many(&origin);
            let mut idle = idle_clients(&proxy, 8).await;
            let _silent = silent_clients(proxy.http, sent.as_bytes()).await;
            assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200, "{sent:?}");
            // Connections that have already sent a request stay.
            for client in &mut idle {
                assert_eq!(client.get(HOST, "/").await.status, 200, "{sent:?}");
            }
            assert!(shed(&proxy, "without_request").await > FILES, "{sent:?}");
            assert_eq!(shed(&proxy, "idle").await, 0, "{sent:?}");
        });
    }
}

#[test]
fn stalled_handshakes_do_not_keep_others_out() {
    // The header of a handshake record, without the record.
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        with_few_files(async || {
            let origin = Origin::start("a");
            let proxy = proxy_for_many(&origin);
            let _silent = silent_clients(proxy.https, sent).await;
            assert_eq!(TlsClient::unverified(HOST).connect(proxy.https).await.get(HOST, "/").await.status, 200);
            assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
        });
    }
}

#[test]
fn a_client_has_no_more_connections_than_it_may_have() {
    with_few_files(async || {
        let origin = Origin::start("a");
        let limited = Settings { connections_per_client: NonZeroU32::new(3), ..Settings::default() };
        let mut resources = forwarding(&[&origin], ForwardPolicy::default());
        resources.push(limited.into());
        let admin = Some(([127, 0, 0, 1], 0).into());
        let proxy = TestProxy::start_with(resources, ProxyConfig { admin, ..one_worker() });
        let mut clients = idle_clients(&proxy, 3).await;
        let mut fourth = TcpStream::connect(proxy.http).await.unwrap();
        assert!(!matches!(within("the end", fourth.read(&mut [0])).await, Ok(1..)));
        let other = TcpSocket::new_v4().unwrap();
        other.bind(([127, 0, 0, 2], 0).into()).unwrap();
        let mut other = other.connect(proxy.http).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(matches!(within("an answer", other.read(&mut [0])).await, Ok(1)));
        clients.pop();
        eventually("a place for another connection", || async {
            let mut stream = TcpStream::connect(proxy.http).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            matches!(stream.read(&mut [0]).await, Ok(1))
        })
        .await;
        let mut admin = Client::connect(proxy.proxy.admin_address().unwrap()).await;
        let metrics = admin.get("admin", "/metrics").await.text();
        let refused = metrics.lines().find(|line| line.starts_with("fairway_connections_refused_total{"));
        assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    });
}

#[test]
fn datagrams_leave_files_to_connections() {
    with_few_files(datagrams);
}

async fn datagrams() {
    let origin = Origin::start("a");
    let endpoint = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut resources = forwarding(&[&origin], ForwardPolicy::default());
    resources.extend(backend("udp", &[endpoint.local_addr().unwrap()]));
    let listener = StreamListener {
        name: "service".into(),
        origin: Owner::built_in("test"),
        address: ([127, 0, 0, 1], 0).into(),
        transport: Transport::Udp,
        backend: "default/udp:80".into(),
    };
    // Sessions that last.
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    resources.extend([listener.into(), Resource::from(Settings { streams, ..Settings::default() })]);
    let admin = Some(([127, 0, 0, 1], 0).into());
    let config = ProxyConfig { admin, ..one_worker() };
    let proxy = TestProxy::start_with(resources, config);
    let port = proxy.proxy.local_addresses()[&"service".into()];

    // More clients than files.
    for _ in 0..FILES + 50 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"x", port).await.unwrap();
        within("a datagram", endpoint.recv(&mut [0; 8])).await.unwrap();
    }
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let number = format!(" {}", FILES / 4);
    let is_active = |line: &str| line.starts_with("fairway_stream_sessions_active{") && line.ends_with(&number);
    // Connections are kept, so none releases a file later.
    let kept = RefCell::new(Vec::new());
    // Boxed: the buffers of a client are large, and the stack of a test is not.
    let sessions = || {
        Box::pin(async {
            let mut admin = Client::connect(proxy.proxy.admin_address().unwrap()).await;
            let metrics = admin.get("admin", "/metrics").await.text();
            kept.borrow_mut().push(admin);
            if metrics.lines().any(is_active) { Ok(()) } else { Err(metrics) }
        })
    };
    eventually("a quarter of the files", sessions).await;

    // When no file is left, the session that has been silent longest makes room for the next client.
    let late = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let _held = all_files();
    eventually("a datagram of the late client", || async {
        late.send_to(b"late", port).await.unwrap();
        let mut room = [0; 8];
        matches!(timeout(Duration::from_millis(200), endpoint.recv(&mut room)).await, Ok(Ok(4)))
    })
    .await;
}
