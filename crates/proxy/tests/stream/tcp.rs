//! Connections of TCP services.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairway_model::{Delta, ResourceName, StreamRetry, StreamSettings};
use fairway_proxy::ProxyConfig;
use fairway_proxy::resolve::AddressPolicy;
use fairway_testkit::{eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{backend, config, endpoints, local};
use crate::{
    Lines, TCP, accept, connect, listen, one_worker, read, read_to_end, scrape, series, settings, start, start_with,
    stream, with_admin,
};

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

/// An address without a listener; no other process gets it while the socket lives.
fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
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
    // The same holds for an unknown backend.
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
    let addresses = AddressPolicy { loopback_endpoints: false, ..local() };
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
    // A service takes the port of HTTP in one change, and the other way round.
    let http = proxy.http.to_string();
    let swap =
        Delta { removals: vec![ResourceName::Listener("http".into())], upserts: vec![stream(&http, TCP, "web")] };
    assert!(proxy.publisher.publish(swap).await.refused.is_empty());
    let mut swapped = connect(proxy.http).await;
    accept(&b.0).await.write_all(b"swapped").await.unwrap();
    assert_eq!(read(&mut swapped, 7).await, b"swapped");
    check("another port").await;
    // A port held by another process is reported and affects nothing else.
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
async fn no_more_connections_are_taken_than_a_worker_may_have() {
    let (listener, endpoint) = listen().await;
    let config = ProxyConfig { connections: 2, ..with_admin() };
    let (proxy, port) = start_with(TCP, &[endpoint], StreamSettings::default(), config);
    let first = (connect(port).await, accept(&listener).await);
    let _second = (connect(port).await, accept(&listener).await);
    let mut third = connect(port).await;
    // By then the worker has looked at its queue after the client connected, and would have accepted the client if it could.
    for _ in 0..2 {
        proxy.publish([endpoints("web", &[endpoint])]).await;
    }
    let text = scrape(&proxy).await;
    let begun = series("sessions_total", "TCP", 2);
    assert!(text.contains(&begun), "the third waits in the queue: {text}");
    drop(first);
    accept(&listener).await.write_all(b"now").await.unwrap();
    assert_eq!(read(&mut third, 3).await, b"now");
}

#[tokio::test]
async fn what_passes_is_counted_by_listener() {
    let (listener, endpoint) = listen().await;
    let (proxy, port) = start_with(TCP, &[endpoint], StreamSettings::default(), with_admin());
    let (mut client, mut server) = (connect(port).await, accept(&listener).await);
    client.write_all(b"12345").await.unwrap();
    assert_eq!(read(&mut server, 5).await, b"12345");
    server.write_all(b"123").await.unwrap();
    assert_eq!(read(&mut client, 3).await, b"123");
    let text = scrape(&proxy).await;
    for expected in [
        series("sessions_total", "TCP", 1),
        series("sessions_active", "TCP", 1),
        series("failures_total", "TCP", 0),
        series("received_bytes_total", "TCP", 5),
        series("sent_bytes_total", "TCP", 3),
    ] {
        assert!(text.contains(&expected), "{expected} in {text}");
    }
    drop((client, server));
    let ended = series("sessions_active", "TCP", 0);
    eventually("the end", || async { scrape(&proxy).await.contains(&ended) }).await;
}
