//! What connections cost in resident memory, for `docs/sizing.md`: `cargo run --release -p fairway-proxy --example memory [COUNT]`.
//! It runs itself again as a proxy with one worker, opens COUNT connections of each kind (5,000), and compares before and after.

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fairway_model::{ForwardPolicy, Settings};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Client, Origin, Reply, TlsClient};
use support::http2::{ACK, END_HEADERS, END_STREAM, HEADERS, SETTINGS};
use support::{HOST, TestProxy, backend, certificate, config, forward, host_with_certificate, route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A response that is larger than what sockets and buffers hold, in pieces that all of its connections share.
const LARGE: usize = 32 << 20;
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// An HTTP/2 request for `/` (RFC 7541 C.4): GET, `http`, the path, and an authority without Huffman coding.
fn get_over_http2() -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x84, 0x41, HOST.len() as u8];
    block.extend(HOST.bytes());
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A kind of connection.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Idle,
    WebSocket,
    Stalled,
    Http2,
}

impl Kind {
    /// Brings a new connection into the state to be measured.
    async fn settle(self, client: &mut Client) {
        match self {
            Self::Idle => assert_eq!(client.get(HOST, "/").await.status, 200),
            Self::WebSocket => {
                let upgrade = format!(
                    "GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                client.send(upgrade).await;
                assert!(client.read_head().await.start.contains(" 101 "));
                client.send("hello").await;
                client.read_exact(5).await;
            }
            Self::Stalled => {
                client.send(format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
                client.read_head().await;
            }
            Self::Http2 => {
                let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                bytes.extend(frame(SETTINGS, 0, 0, &[]));
                bytes.extend(frame(SETTINGS, ACK, 0, &[]));
                bytes.extend(get_over_http2());
                client.send(bytes).await;
                // Reads to the end of the response.
                loop {
                    let head = client.read_exact(9).await;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    client.read_exact(length as usize).await;
                    if head[3] <= HEADERS && head[4] & END_STREAM != 0 {
                        break;
                    }
                }
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(word) if word == "proxy" => {
            let mut origin = || arguments.next().ok_or("an origin is missing");
            serve(origin()?.parse()?, origin()?.parse()?)
        }
        count => measure(count.map_or(Ok(5000), |count| count.parse())?).await,
    }
}

/// The proxy that is measured.
fn serve(origin: SocketAddr, large: SocketAddr) -> Result<(), Box<dyn Error>> {
    let leaf = Ca::new("ca").leaf(&[HOST]);
    let mut resources = backend("web", &[origin]);
    resources.extend(backend("large", &[large]));
    resources.push(certificate("web", &leaf));
    let to = |path, name| route(path, forward(name, ForwardPolicy::default()));
    resources.push(host_with_certificate(HOST, vec![to("/large", "large"), to("/", "web")], "web"));
    let settings = Settings { keep_alive: Some(Duration::from_secs(3600)), ..Settings::default() };
    resources.push(settings.into());
    let proxy = TestProxy::start_with(resources, ProxyConfig { workers: NonZeroUsize::new(1), ..config() });
    println!("{} {}", proxy.http, proxy.https);
    loop {
        std::thread::park();
    }
}

async fn measure(count: usize) -> Result<(), Box<dyn Error>> {
    let origin = Origin::new("origin")
        .reply_with(|request| match request.target.as_str() {
            "/chat" => Reply::upgrade("websocket").header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            _ => Reply::ok().body("ok"),
        })
        .start();
    let large = large_origin().await?;
    println!("{:<28}{:>8}{:>12}", "", "number", "KiB each");
    for (name, kind, tls) in [
        ("idle", Kind::Idle, false),
        ("idle, TLS", Kind::Idle, true),
        ("idle, HTTP/2 over TLS", Kind::Http2, true),
        ("WebSocket", Kind::WebSocket, false),
        ("WebSocket, TLS", Kind::WebSocket, true),
        ("stalled download", Kind::Stalled, false),
        ("stalled download, TLS", Kind::Stalled, true),
    ] {
        let proxy = Served::start(origin.address(), large)?;
        let transport = Client::builder().receive_buffer(4096);
        let over_tls = TlsClient::unverified(HOST)
            .alpn(if matches!(kind, Kind::Http2) { &["h2"] } else { &["http/1.1"] })
            .transport(transport.clone());
        let open = async || {
            let mut client =
                if tls { over_tls.connect(proxy.https).await } else { transport.connect(proxy.http).await };
            kind.settle(&mut client).await;
            client
        };
        let mut clients = Vec::with_capacity(count);
        // Memory that the first ones need is kept for all others.
        for _ in 0..10 {
            clients.push(open().await);
        }
        let before = proxy.settled_memory().await?;
        for _ in 0..count {
            clients.push(open().await);
        }
        let grown = proxy.settled_memory().await?.saturating_sub(before);
        println!("{name:<28}{count:>8}{:>12.2}", grown as f64 / count as f64);
    }
    Ok(())
}

/// Answers every connection with a large response.
async fn large_origin() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // It ends with its client.
            drop(tokio::spawn(send_large(stream)));
        }
    }));
    Ok(address)
}

async fn send_large(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; 4096];
    let mut filled = 0;
    while !head[..filled].ends_with(b"\r\n\r\n") {
        filled += match stream.read(&mut head[filled..]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => count,
        };
    }
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes()).await?;
    for _ in 0..LARGE / PIECE.len() {
        stream.write_all(&PIECE).await?;
    }
    Ok(())
}

/// A running proxy.
struct Served {
    child: Child,
    http: SocketAddr,
    https: SocketAddr,
}

impl Served {
    fn start(origin: SocketAddr, large: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child =
            command.args(["proxy", &origin.to_string(), &large.to_string()]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (http, https) = line.trim().split_once(' ').ok_or("no addresses")?;
        Ok(Self { http: http.parse()?, https: https.parse()?, child })
    }

    /// Resident memory in KiB, once it no longer changes.
    async fn settled_memory(&self) -> Result<u64, Box<dyn Error>> {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
            let memory: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
            if memory.abs_diff(last) < 16 {
                return Ok(memory);
            }
            last = memory;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
