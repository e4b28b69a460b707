//! The memory of a connection. The worker runs on the thread of the test, its clients and endpoints on others: allocations are
//! counted by thread.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use fairway_model::{
    Action, Backend, Balance, Delta, Endpoint, EndpointSet, Endpoints, Filter, Forward, ForwardPolicy, Host,
    HostPattern, Listener, Origin as Owner, PathMatch, Protocol, Resource, Route, Scheme, Settings, Snapshot,
    StreamListener, TableName, Template, Transport,
};
use fairway_testkit::{Client, Origin, Reply, within};
use tokio::sync::mpsc;

mod cost;
mod stall;

use super::*;
use crate::access_log::{LogHandle, LogSink, LogThread};
use crate::net::listener;
use crate::remark::Remarks;
use crate::shard::ClientCounts;
use crate::unreachable::UnreachableSink;
use crate::work::ORDINARY;

const REQUESTS: usize = 200;

fn snapshot(origin: SocketAddr, settings: Settings, policy: ForwardPolicy) -> Snapshot {
    let table = TableName::from("t");
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let forward = Forward { backends: "b".into(), fallback: None, session_cookie_path: None, policy: Arc::new(policy) };
    let mut route =
        Route::new(Owner::new("Ingress", "n", "i"), PathMatch::prefix("/").unwrap(), Action::Forward(forward));
    route.filters = vec![Filter::StrictTransportSecurity, Filter::RequireEndpoints];
    Snapshot::default().apply(Delta::upsert([
        Resource::from(Listener::new("http", address, Scheme::Http, table.clone())),
        Resource::from(Host::new(table, HostPattern::parse("app.example").unwrap(), vec![route])),
        Resource::from(Backend {
            name: "b".into(),
            origin: Owner::new("Service", "n", "b"),
            port: "80".into(),
            upstream_name: "n-b-80".into(),
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            affinity: None,
            health_check: None,
            retry: None,
            request_fields: Vec::new(),
        }),
        Resource::from(EndpointSet {
            backend: "b".into(),
            endpoints: Endpoints::Addresses(vec![Endpoint::ready(origin)]),
        }),
        Resource::from(Settings { keep_alive_requests: u64::MAX, ..settings }),
    ]))
}

/// An endpoint on its own thread, until the sender is dropped.
fn origin(reply: Reply) -> (SocketAddr, std_mpsc::Sender<()>) {
    let (address, told) = std_mpsc::channel();
    let (alive, ended) = std_mpsc::channel::<()>();
    thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let origin = runtime.block_on(async { Origin::new("o").reply(reply).start() });
        address.send(origin.address()).unwrap();
        let _ = ended.recv();
    });
    (told.recv().unwrap(), alive)
}

/// Allocations on the worker's thread while `exchange` runs [`REQUESTS`] times on one connection, after as many runs to warm up.
fn allocations<F>(reply: Reply, log: LogSink, exchange: F) -> u64
where
    F: AsyncFn(&mut Client) + Send + 'static,
{
    allocations_with(Settings::default(), ForwardPolicy::default(), reply, log, exchange)
}

fn allocations_with<F>(settings: Settings, policy: ForwardPolicy, reply: Reply, log: LogSink, exchange: F) -> u64
where
    F: AsyncFn(&mut Client) + Send + 'static,
{
    let (endpoint, _alive) = origin(reply);
    let live = Live::first(snapshot(endpoint, settings, policy), None, local());
    let thread = LogThread::start(log).unwrap();

    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let worker = worker(&live, Some(thread.handle()));
    let resource = live.snapshot.listeners().next().unwrap().clone();
    let socket = listener::bind(&AnyListener::Http(resource.clone()), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let (reached, mut phases) = mpsc::channel(2);
    let client = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::connect(address).await;
            for _ in 0..2 {
                for _ in 0..REQUESTS {
                    exchange(&mut client).await;
                }
                reached.send(()).await.unwrap();
            }
        });
    });
    let serving = worker.clone();
    runtime.block_on(async {
        tokio::task::spawn_local(async move { serving.shard.timers.run(Beat::new().unwrap(), || false).await });
        worker.open_listener(AnyListener::Http(resource), socket).unwrap();
        phases.recv().await.unwrap();
    });
    let counted = measure(|| {
        runtime.block_on(phases.recv()).unwrap();
    });
    client.join().unwrap();
    counted.count_total
}

async fn get(client: &mut Client) {
    let response = client.get("app.example", "/some/path?and=query").await;
    assert_eq!(response.status, 200);
}

#[test]
fn a_request_allocates_nothing_in_steady_state() {
    assert_eq!(allocations(Reply::ok().body("x".repeat(100)), LogSink::Off, get), 0);
}

#[test]
fn nor_does_its_line_in_the_log() {
    let log = LogSink::Writer(Box::new(io::sink()));
    // Lines travel in a few buffers that are returned.
    let allocated = allocations(Reply::ok().body("x".repeat(100)), log, get);
    assert!(allocated <= 4, "{allocated}");
}

#[test]
fn nor_do_chunks_and_request_bodies() {
    let reply = Reply::ok().chunked(["hello", "world"]);
    let post = async |client: &mut Client| {
        let fields = [("host", "app.example"), ("content-type", "text/plain")];
        assert_eq!(client.request("POST", "/", &fields, b"body").await.status, 200);
    };
    assert_eq!(allocations(reply, LogSink::Off, post), 0);
}

#[test]
fn nor_do_answers_of_our_own() {
    let missing = async |client: &mut Client| {
        assert_eq!(client.get("unknown.example", "/").await.status, 404);
    };
    assert_eq!(allocations(Reply::ok(), LogSink::Off, missing), 0);
}

#[test]
fn nor_does_a_peer_that_is_trusted() {
    let mut settings = Settings::default();
    settings.forwarded.trust = true;
    let policy = ForwardPolicy::default();
    assert_eq!(allocations_with(settings, policy, Reply::ok().body("x"), LogSink::Off, get), 0);
}

#[test]
fn nor_does_a_host_with_variables() {
    let policy = ForwardPolicy { upstream_host: Some(Template::parse("$host.internal")), ..ForwardPolicy::default() };
    assert_eq!(allocations_with(Settings::default(), policy, Reply::ok().body("x"), LogSink::Off, get), 0);
}

#[test]
fn nor_do_the_heads_of_a_pipeline_pile_up() {
    // Together they are more than a worker keeps.
    const HEADS: usize = 12;
    let pipeline = async |client: &mut Client| {
        client.send("HEAD / HTTP/1.1\r\nHost: app.example\r\n\r\n".repeat(HEADS)).await;
        for _ in 0..HEADS {
            assert_eq!(client.read_response_to("HEAD").await.status, 200);
        }
    };
    assert_eq!(allocations(Reply::ok().padding(8000), LogSink::Off, pipeline), 0);
}

#[test]
fn a_request_that_waits_for_its_response_holds_one_buffer() {
    const WAITING: usize = 20;
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = endpoint.local_addr().unwrap();
    let (reached, mut requests) = mpsc::channel(WAITING);
    thread::spawn(move || {
        for _ in 0..WAITING {
            let mut stream = endpoint.accept().unwrap().0;
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            reached.blocking_send(stream).unwrap();
        }
    });
    let live = Live::first(snapshot(origin, Settings::default(), ForwardPolicy::default()), None, local());
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let worker = worker(&live, None);
    let resource = live.snapshot.listeners().next().unwrap().clone();
    let socket = listener::bind(&AnyListener::Http(resource.clone()), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let _clients: Vec<_> = (0..WAITING)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n").unwrap();
            client
        })
        .collect();
    let mut held = Vec::new();
    let counted = measure(|| {
        runtime.block_on(async {
            worker.open_listener(AnyListener::Http(resource), socket).unwrap();
            for _ in 0..WAITING {
                held.push(requests.recv().await.unwrap());
            }
        });
    });
    let each = counted.bytes_current / WAITING as i64;
    assert!((32 << 10..48 << 10).contains(&each), "{each} bytes");
}

#[test]
fn an_idle_connection_is_small() {
    let (idle, busy) = crate::connection::future_sizes();
    assert!(idle <= 640, "{idle} bytes");
    assert!(busy <= 3072, "{busy} bytes");
}

fn local() -> crate::net::resolve::AddressPolicy {
    crate::net::resolve::AddressPolicy { loopback_endpoints: true, ..Default::default() }
}

#[test]
fn a_tcp_connection_without_endpoint_gives_its_memory_back() {
    const CONNECTIONS: u64 = 50;
    let accept_proxy = Transport::Tcp { accept_proxy: true, send_proxy: false };
    let resource = Arc::new(StreamListener {
        name: "s".into(),
        origin: Owner::built_in("test"),
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        transport: accept_proxy,
        backend: "nothing".into(),
    });
    let live = Live::first(Snapshot::default(), None, local());
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let worker = worker(&live, None);
    let listener = AnyListener::Stream(resource);
    let socket = listener::bind(&listener, 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let (reached, mut phases) = mpsc::channel(2);
    let client = thread::spawn(move || {
        for _ in 0..2 {
            for _ in 0..CONNECTIONS {
                let mut client = std::net::TcpStream::connect(address).unwrap();
                client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
                assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
            }
            reached.blocking_send(()).unwrap();
        }
    });
    let serving = worker.clone();
    runtime.block_on(async {
        tokio::task::spawn_local(async move { serving.shard.timers.run(Beat::new().unwrap(), || false).await });
        worker.open_listener(listener, socket).unwrap();
        phases.recv().await.unwrap();
    });
    let counted = measure(|| {
        runtime.block_on(phases.recv()).unwrap();
    });
    client.join().unwrap();
    // Its tasks and no buffer.
    assert!(counted.bytes_total < CONNECTIONS * ORDINARY as u64 / 4, "{} bytes", counted.bytes_total);
}

#[test]
fn a_worker_that_ends_logs_its_sessions_and_leaves_nothing() {
    for last in [Some(Order::Stop), None] {
        let (endpoint, live, listener) = datagrams(Settings::default());
        let lines = Lines::default();
        let log = LogThread::start(LogSink::Writer(Box::new(lines.clone()))).unwrap();
        let common = common(Some(log.handle()));
        let (sender, thread) =
            start(0, common.clone(), Certificates::new(live.snapshot.clone()), live.clone()).unwrap();
        let socket = listener::bind(&listener, 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let (done, mut in_force) = mpsc::channel(1);
        let open = vec![(listener, socket)];
        sender.send(Order::Publish { live, open, change: Vec::new(), close: Vec::new(), done }).unwrap();
        assert_eq!(in_force.blocking_recv(), None);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"question", address).unwrap();
        assert_eq!(endpoint.recv(&mut [0; 16]).unwrap(), 8);
        last.into_iter().for_each(|last| sender.send(last).unwrap());
        drop(sender);
        thread.join().unwrap();
        assert_eq!(Arc::strong_count(&common), 1, "a worker has a share in it");
        assert!(log.synchronize(Duration::from_secs(60)));
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(text.lines().count() == 1 && text.contains(" UDP 200 0 8 "), "{text:?}");
    }
}

#[test]
fn an_endpoint_that_sends_without_pause_leaves_others_their_turn() {
    const DATAGRAMS: usize = 100;
    let mut settings = Settings::default();
    settings.streams.responses = u32::MAX;
    let (endpoint, live, listener) = datagrams(settings);
    endpoint.set_nonblocking(true).unwrap();
    let worker = worker(&live, None);
    let socket = listener::bind(&listener, 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_nonblocking(true).unwrap();
    turn_by_turn().block_on(async {
        let endpoint = tokio::net::UdpSocket::from_std(endpoint).unwrap();
        worker.open_listener(listener, socket).unwrap();
        client.send_to(b"question", address).unwrap();
        let (_, session) = within("a datagram", endpoint.recv_from(&mut [0; 16])).await.unwrap();
        // All of them wait before the session gets its turn.
        for _ in 0..DATAGRAMS {
            endpoint.try_send_to(b"answer", session).unwrap();
        }
        let taken = async || loop {
            tokio::task::yield_now().await;
            let taken = std::iter::from_fn(|| client.recv(&mut [0; 16]).ok()).count();
            if taken > 0 {
                break taken;
            }
        };
        let passed = within("answers", taken()).await;
        assert!(passed < DATAGRAMS, "nobody else had a turn");
    });
}

#[test]
fn a_udp_port_that_was_closed_is_free_at_once() {
    let (endpoint, live, listener) = datagrams(Settings::default());
    endpoint.set_nonblocking(true).unwrap();
    let worker = worker(&live, None);
    let socket = listener::bind(&listener, 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    turn_by_turn().block_on(async {
        let endpoint = tokio::net::UdpSocket::from_std(endpoint).unwrap();
        worker.open_listener(listener, socket).unwrap();
        client.send_to(b"question", address).unwrap();
        assert_eq!(within("a datagram", endpoint.recv(&mut [0; 16])).await.unwrap(), 8);
        // The next turn is the test's, not the session's.
        worker.close_listeners(|_| true).await;
        UdpSocket::bind(address).unwrap();
    });
}

/// A runtime on which the test gets its turn after every other task.
fn turn_by_turn() -> tokio::runtime::LocalRuntime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().event_interval(1).build_local(LocalOptions::default()).unwrap()
}

/// A UDP service, and its only endpoint, which fails instead of waiting forever.
fn datagrams(settings: Settings) -> (UdpSocket, Arc<Live>, AnyListener) {
    let endpoint = UdpSocket::bind("127.0.0.1:0").unwrap();
    endpoint.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let snapshot = snapshot(endpoint.local_addr().unwrap(), settings, ForwardPolicy::default());
    let listener = StreamListener {
        name: "s".into(),
        origin: Owner::built_in("test"),
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        transport: Transport::Udp,
        backend: "b".into(),
    };
    (endpoint, Live::first(snapshot, None, local()), AnyListener::Stream(Arc::new(listener)))
}

/// The log as written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A worker on the thread of the test.
fn worker(live: &Arc<Live>, log: Option<LogHandle>) -> Rc<Worker> {
    Worker::new(common(log), Certificates::new(live.snapshot.clone()), live.clone())
}

/// What the workers of these tests have in common.
fn common(log: Option<LogHandle>) -> Arc<Common> {
    Arc::new(Common {
        health: Arc::default(),
        unreachable: UnreachableSink::default(),
        spools: None,
        clients: ClientCounts::default(),
        ledger: Arc::default(),
        connections: 100,
        datagram_sessions: 100,
        numbers: AtomicU64::new(1),
        log,
        spans: crate::span::Spans::new(1),
        metrics: Arc::default(),
        remarks: Remarks::default(),
    })
}
