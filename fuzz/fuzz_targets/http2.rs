//! A client's frames, against a running proxy: whatever they are, no task panics, only well-formed HTTP/1.1 requests reach an endpoint, and
//! other clients are served.
#![no_main]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use fairway_model::{
    Action, Backend, Balance, Delta, Endpoint, EndpointSet, Endpoints, Forward, ForwardPolicy, Host, HostPattern,
    Listener, Origin, PathMatch, Protocol, Resource, Route, Scheme, Snapshot,
};
use fairway_proxy::http1::{BodyDecoder, ChunkLimits, Event, HeadLimits, NameRules, Parsed, RequestHead};
use fairway_proxy::resolve::AddressPolicy;
use fairway_proxy::{Proxy, ProxyConfig};
use libfuzzer_sys::fuzz_target;
use nix::sys::signal::{SigSet, Signal};

/// How long a client waits for the proxy's bytes.
const PATIENCE: Duration = Duration::from_millis(20);

fn proxy() -> SocketAddr {
    static PROXY: OnceLock<(Proxy, SocketAddr)> = OnceLock::new();
    PROXY
        .get_or_init(|| {
            ignore_broken_pipes();
            start(origin())
        })
        .1
}

/// Keeps SIGPIPE from silently ending the process at a write to a connection that the client has closed. The start of a Rust program does
/// this; libFuzzer's `main` does not. Threads that start later inherit it.
fn ignore_broken_pipes() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGPIPE);
    signals.thread_block().expect("a signal mask");
}

fn start(endpoint: SocketAddr) -> (Proxy, SocketAddr) {
    let forward = Forward {
        backends: "web".into(),
        fallback: None,
        session_cookie_path: None,
        policy: Arc::new(ForwardPolicy::default()),
    };
    let route = Route::new(Origin::built_in("fuzz"), PathMatch::prefix("/").expect("a path"), Action::Forward(forward));
    let resources = [
        Resource::from(Listener::new("http", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Scheme::Http, "t".into())),
        Resource::from(Host::new("t".into(), HostPattern::Any, vec![route])),
        Resource::from(Backend {
            name: "web".into(),
            origin: Origin::built_in("fuzz"),
            port: "80".into(),
            upstream_name: "web".into(),
            protocol: Protocol::Http1,
            balance: Balance::RoundRobin,
            affinity: None,
            health_check: None,
            retry: None,
            request_fields: Vec::new(),
        }),
        Resource::from(EndpointSet {
            backend: "web".into(),
            endpoints: Endpoints::Addresses(vec![Endpoint::ready(endpoint)]),
        }),
    ];
    let config = ProxyConfig {
        workers: NonZeroUsize::new(1),
        addresses: AddressPolicy { loopback_endpoints: true, ..AddressPolicy::default() },
        ..ProxyConfig::default()
    };
    let proxy = Proxy::start(Snapshot::default().apply(Delta::upsert(resources)), config).expect("a proxy");
    let address = proxy.local_addresses()[&"http".into()];
    (proxy, address)
}

/// An endpoint that takes only well-formed requests, and answers each.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let limits = HeadLimits { names: NameRules::Tokens, ..HeadLimits::default() };
    let (mut received, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let mut head = RequestHead::default();
        match head.parse(&received, &limits).expect("a head of HTTP/1.1") {
            Parsed::Complete { len } => {
                received.drain(..len);
                let mut body = BodyDecoder::new(head.framing(), ChunkLimits::default());
                while !body.is_done() {
                    let piece = body.decode(&received).expect("a body of HTTP/1.1");
                    received.drain(..piece.consumed);
                    if piece.event == Event::NeedMore {
                        match stream.read(&mut room) {
                            Ok(count @ 1..) => received.extend_from_slice(&room[..count]),
                            _ => return,
                        }
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(answer).is_err() {
                    return;
                }
            }
            Parsed::Partial { .. } => match stream.read(&mut room) {
                Ok(count @ 1..) => received.extend_from_slice(&room[..count]),
                _ => return,
            },
        }
    }
}

fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy()).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let (mut answer, mut room) = (Vec::new(), [0; 4096]);
    if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        while let Ok(count @ 1..) = stream.read(&mut room) {
            answer.extend_from_slice(&room[..count]);
        }
    }
    answer
}

fuzz_target!(|frames: Vec<(u8, u8, u8, Vec<u8>)>| {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (kind, flags, stream, payload) in frames {
        // Mostly heads of a few streams, whose payload begins with the pseudo-headers of a request.
        let kind = if kind > 20 { 1 } else { kind };
        let begin: &[u8] = if kind == 1 && flags & 0x40 != 0 { b"\x83\x86\x84\x41\x01a" } else { b"" };
        let length = (begin.len() + payload.len()) as u32;
        bytes.extend_from_slice(&length.to_be_bytes()[1..]);
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, stream & 15]);
        bytes.extend_from_slice(begin);
        bytes.extend_from_slice(&payload);
    }
    exchange(&bytes);
    // A panic of the worker would end this process; a worker that hangs would not answer.
    let answer = exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
});
