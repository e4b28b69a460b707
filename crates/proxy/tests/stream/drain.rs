//! How TCP connections and UDP sessions end when the proxy drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairway_model::{StreamSettings, Transport};
use fairway_proxy::{Drained, ProxyConfig};
use fairway_testkit::{eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Lines, TCP, accept, connect, listen, one_worker, read, start, start_with, udp};

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
    // Both clients send all the time, and one of them gets responses, as long as any arrive.
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
