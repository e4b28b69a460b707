//! TCP and UDP services: bytes and datagrams reach an endpoint unchanged.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod drain;
mod proxy_protocol;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod tcp;
mod tls;
mod udp;
mod weight;

/// A line of the metrics of the only listener.
fn series(name: &str, protocol: &str, value: u64) -> String {
    format!("fairway_stream_{name}{{{},listener=\"service\",protocol=\"{protocol}\"}} {value}\n", support::CONTROLLER)
}

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use fairway_model::{Origin as Owner, Resource, Settings, StreamListener, StreamSettings, Transport};
use fairway_proxy::ProxyConfig;
use fairway_proxy::access_log::LogSink;
use fairway_testkit::{eventually, within};
use support::{TestProxy, backend, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const TCP: Transport = Transport::Tcp { accept_proxy: false, send_proxy: false };

fn stream(address: &str, transport: Transport, service: &str) -> Resource {
    stream_named("service", address, transport, service)
}

fn stream_named(name: &str, address: &str, transport: Transport, service: &str) -> Resource {
    Resource::from(StreamListener {
        name: name.into(),
        origin: Owner::new("ConfigMap", "ingress", "services").section("9000"),
        address: address.parse().unwrap(),
        transport,
        backend: format!("default/{service}:80").as_str().into(),
    })
}

fn settings(streams: StreamSettings) -> Resource {
    Resource::from(Settings { streams, ..Settings::default() })
}

/// A proxy with one TCP or UDP service and these endpoints.
fn start(transport: Transport, endpoints: &[SocketAddr]) -> (TestProxy, SocketAddr) {
    start_with(transport, endpoints, StreamSettings::default(), config())
}

fn start_with(
    transport: Transport,
    endpoints: &[SocketAddr],
    streams: StreamSettings,
    config: ProxyConfig,
) -> (TestProxy, SocketAddr) {
    let mut resources = backend("web", endpoints);
    resources.extend([stream("127.0.0.1:0", transport, "web"), settings(streams)]);
    let proxy = TestProxy::start_with(resources, config);
    let address = address_of(&proxy);
    (proxy, address)
}

fn address_of(proxy: &TestProxy) -> SocketAddr {
    proxy.proxy.local_addresses()[&"service".into()]
}

fn one_worker() -> ProxyConfig {
    ProxyConfig { workers: NonZeroUsize::new(1), ..config() }
}

/// One worker, and an admin listener for [`scrape`].
fn with_admin() -> ProxyConfig {
    ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..one_worker() }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(address: SocketAddr) -> TcpStream {
    within("a connection", TcpStream::connect(address)).await.unwrap()
}

async fn accept(listener: &TcpListener) -> TcpStream {
    within("a connection at the endpoint", listener.accept()).await.unwrap().0
}

async fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    within("bytes", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within("the end", stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

async fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn ask(socket: &UdpSocket, to: SocketAddr, question: &[u8]) -> Vec<u8> {
    socket.send_to(question, to).await.unwrap();
    let mut room = [0; 2048];
    let (len, from) = within("a datagram", socket.recv_from(&mut room)).await.unwrap();
    assert_eq!(from, to, "answers come from where the question went");
    room[..len].to_vec()
}

/// Responds to each datagram with its name and the datagram.
async fn udp_echo(name: &'static str) -> SocketAddr {
    let (socket, address) = udp().await;
    tokio::spawn(async move {
        let mut room = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut room).await {
            let answer = [name.as_bytes(), b" ", &room[..len], b" ", from.to_string().as_bytes()].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// A proxy with one session, and the endpoint, which has received its datagram and doesn't respond.
async fn unanswered() -> (TestProxy, SocketAddr, Lines, UdpSocket) {
    let (endpoint, address) = udp().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let (proxy, port) = start_with(Transport::Udp, &[address], StreamSettings::default(), config);
    udp().await.0.send_to(b"x", port).await.unwrap();
    within("a datagram", endpoint.recv(&mut [0; 8])).await.unwrap();
    (proxy, port, log, endpoint)
}

async fn scrape(proxy: &TestProxy) -> String {
    let mut stream = connect(proxy.proxy.admin_address().unwrap()).await;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    String::from_utf8(read_to_end(&mut stream).await).unwrap()
}

/// The log as written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn sink(&self) -> LogSink {
        LogSink::Writer(Box::new(self.clone()))
    }

    fn now(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    async fn wait(&self, count: usize) -> Vec<String> {
        eventually("log lines", || async {
            let lines = self.now();
            if lines.len() >= count { Ok(lines) } else { Err(lines) }
        })
        .await
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
