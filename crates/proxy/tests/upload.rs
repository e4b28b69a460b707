//! What a large upload costs in memory while a file holds it. The test is alone in its process, whose memory it measures.

mod support;

use std::net::SocketAddr;

use fairway_model::{ByteLimit, ForwardPolicy, RequestBuffering};
use fairway_proxy::{ProxyConfig, SpoolOptions};
use support::{HOST, TestProxy, backend, forward, host, route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LENGTH: usize = 100_000_000;
/// Buffers of both sides, and what a test needs for itself.
const ALLOWED: usize = 4 << 20;

/// The byte at a place of the body.
fn byte(at: usize) -> u8 {
    (at / 7 % 251) as u8
}

/// Takes one request, and answers whether its body is as sent.
async fn origin(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let (mut head, mut room) = (Vec::new(), vec![0; 64 << 10]);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let mut good = head.contains(&format!("\r\ncontent-length: {LENGTH}\r\n"));
    let mut received = 0;
    while received < LENGTH {
        let count = stream.read(&mut room).await.expect("a body");
        assert!(count > 0, "the body ends after {received} bytes");
        good &= room[..count].iter().enumerate().all(|(at, &found)| found == byte(received + at));
        received += count;
    }
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{good}", good.to_string().len());
    stream.write_all(answer.as_bytes()).await.expect("an answer");
}

/// Memory of this process that no file backs.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
    line.trim().trim_end_matches("kB").trim().parse::<usize>().expect("a number") << 10
}

async fn upload(to: SocketAddr, chunked: bool) -> usize {
    let mut client = TcpStream::connect(to).await.expect("a connection");
    let framing = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {LENGTH}") };
    client.write_all(format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n").as_bytes()).await.expect("sent");
    let (before, mut most, mut piece) = (memory(), 0, Vec::new());
    for from in (0..LENGTH).step_by(50_000) {
        piece.clear();
        if chunked {
            piece.extend_from_slice(b"c350\r\n");
        }
        piece.extend((from..from + 50_000).map(byte));
        if chunked {
            piece.extend_from_slice(b"\r\n");
        }
        client.write_all(&piece).await.expect("sent");
        if from % 5_000_000 == 0 {
            most = most.max(memory().saturating_sub(before));
        }
    }
    if chunked {
        client.write_all(b"0\r\n\r\n").await.expect("sent");
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"true") {
        let count = client.read_buf(&mut answer).await.expect("an answer");
        assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
        most = most.max(memory().saturating_sub(before));
    }
    most
}

#[tokio::test]
async fn a_hundred_megabytes_pass_through_little_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    for chunked in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let origin = tokio::spawn(origin(listener));
        let policy = ForwardPolicy {
            request_buffering: RequestBuffering::All,
            max_body: ByteLimit::NONE,
            ..ForwardPolicy::default()
        };
        let mut resources = backend("web", &[address]);
        resources.push(host(HOST, vec![route("/", forward("web", policy))]));
        let spool = Some(SpoolOptions { directory: directory.path().into(), space: 1 << 30 });
        let proxy = TestProxy::start_with(resources, ProxyConfig { spool, ..support::config() });
        let most = upload(proxy.http, chunked).await;
        assert!(most < ALLOWED, "{most} bytes more than before");
        origin.await.expect("no panic");
    }
}
