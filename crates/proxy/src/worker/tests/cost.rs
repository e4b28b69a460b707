//! The cost of a byte, whatever the sizes of heads, bodies and buffers: reads and writes are counted.

use fairway_model::HeadBuffers;
use fairway_testkit::{Client, Origin, Reply, Request};

use super::*;
use crate::stream::calls::CALLS;
use crate::work::{LARGE, LEAST_READ};

/// Reads and writes that a request may take besides those for its bytes: kernels deliver data in pieces of their own choice.
const EACH: u64 = 60;

/// Bytes for each further read or write. Far below what a read usually takes, and far above one byte.
const BYTES_A_CALL: u64 = 1024;

/// Head sizes at which something changes, and their neighbours.
fn around(edges: &[usize]) -> impl Iterator<Item = usize> + '_ {
    edges.iter().flat_map(|&edge| edge - 1..=edge + 1)
}

/// Bodies that fit beside every head, that fill a buffer, and that fill the largest one.
const BODIES: [usize; 4] = [10, 8200, 32_000, 300_000];

/// `start`, followed by a field that fills the head up to `size` bytes.
fn head(start: &str, size: usize) -> Vec<u8> {
    let padding = size - start.len() - "p: \r\n\r\n".len();
    format!("{start}p: {}\r\n\r\n", "x".repeat(padding)).into_bytes()
}

fn chunks(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(1000) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// The response that the target asks for: `/kind/head/body`.
fn reply(request: &Request) -> Reply {
    let mut parts = request.target.split('/').skip(1);
    let kind = parts.next().unwrap_or_default().to_owned();
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (Some(size), Some(len)) = (number(), number()) else {
        return Reply::ok().body(request.body.len().to_string());
    };
    let body = vec![b'b'; len];
    let start = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}");
    match &*kind {
        "length" => Reply::raw([head(&start(&format!("content-length: {len}\r\n")), size), body].concat()),
        "chunked" => Reply::raw([head(&start("transfer-encoding: chunked\r\n"), size), chunks(&body)].concat()),
        "close" => Reply::raw([head(&start(""), size), body].concat()).then_close(),
        _ => {
            let switch = "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
            Reply::raw(head(switch, size)).then_echo_bytes()
        }
    }
}

/// Runs `client` against a worker on this thread. After each exchange it reports which one it was and how many bytes were moved.
fn bounded<F>(client: F)
where
    F: AsyncFn(SocketAddr, &mpsc::UnboundedSender<(String, u64)>) + Send + 'static,
{
    let (address, told) = std_mpsc::channel();
    let (_alive, ended) = std_mpsc::channel::<()>();
    thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let origin = runtime.block_on(async { Origin::new("o").reply_with(reply).start() });
        address.send(origin.address()).unwrap();
        let _ = ended.recv();
    });
    let head_buffers = HeadBuffers { line: 1 << 20, total: 1 << 20, ..HeadBuffers::default() };
    let settings = Settings { head_buffers, ..Settings::default() };
    let live = Live::first(snapshot(told.recv().unwrap(), settings, ForwardPolicy::default()), None, local());
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let worker = worker(&live, None);
    let resource = live.snapshot.listeners().next().unwrap().clone();
    let socket = listener::bind(&AnyListener::Http(resource.clone()), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let (done, mut exchanges) = mpsc::unbounded_channel();
    let client = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client(address, &done));
    });
    let serving = worker.clone();
    let mut wrong = Vec::new();
    runtime.block_on(async {
        tokio::task::spawn_local(async move { serving.shard.timers.run(Beat::new().unwrap(), || false).await });
        worker.open_listener(AnyListener::Http(resource), socket).unwrap();
        let mut before = CALLS.get();
        while let Some((what, bytes)) = exchanges.recv().await {
            let now = CALLS.get();
            if now - before > EACH + bytes / BYTES_A_CALL {
                wrong.push(format!("{what}: {} reads and writes for {bytes} bytes", now - before));
            }
            before = now;
        }
    });
    client.join().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn request_bodies() {
    bounded(async |address, done| {
        let mut client = Client::connect(address).await;
        for size in around(&[ORDINARY - LEAST_READ, ORDINARY, 2 * ORDINARY, LARGE - LEAST_READ, LARGE]) {
            for len in BODIES {
                for chunked in [false, true] {
                    let body = vec![b'b'; len];
                    let (framing, body) = if chunked {
                        ("transfer-encoding: chunked".to_owned(), chunks(&body))
                    } else {
                        (format!("content-length: {len}"), body)
                    };
                    let head = head(&format!("POST / HTTP/1.1\r\nhost: app.example\r\n{framing}\r\n"), size);
                    client.send([head, body].concat()).await;
                    assert_eq!(client.read_response().await.body, len.to_string().as_bytes());
                    // Twice: bytes are received and sent.
                    done.send((format!("head {size}, body {len}, {framing}"), 2 * (size + len) as u64)).unwrap();
                }
            }
        }
    });
}

#[test]
fn response_bodies() {
    bounded(async |address, done| {
        for size in around(&[ORDINARY - LEAST_READ, ORDINARY, 40 << 10, (64 << 10) - LEAST_READ, (64 << 10) - 1]) {
            for len in BODIES {
                for kind in ["length", "chunked", "close"] {
                    for version in ["1.1", "1.0"] {
                        let mut client = Client::connect(address).await;
                        let request = format!("GET /{kind}/{size}/{len} HTTP/{version}\r\nhost: app.example\r\n\r\n");
                        client.send(request).await;
                        assert_eq!(client.read_response().await.body.len(), len);
                        done.send((
                            format!("head {size}, body {len}, {kind}, HTTP/{version}"),
                            2 * (size + len) as u64,
                        ))
                        .unwrap();
                    }
                }
            }
        }
    });
}

#[test]
fn tunnels() {
    bounded(async |address, done| {
        let of_request = around(&[ORDINARY - LEAST_READ, ORDINARY, 2 * ORDINARY, LARGE]).map(|size| (size, 400));
        let of_response = around(&[ORDINARY - LEAST_READ, ORDINARY, 40 << 10, (64 << 10) - 1]).map(|size| (400, size));
        for (request, response) in of_request.chain(of_response) {
            let mut client = Client::connect(address).await;
            let start = format!(
                "GET /switch/{response}/0 HTTP/1.1\r\nhost: app.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            );
            // Body bytes that arrive with the head wait in the same buffer.
            client.send([head(&start, request), b"early".to_vec()].concat()).await;
            assert!(client.read_head().await.start.contains("101"));
            assert_eq!(client.read_exact(5).await, b"early");
            let data = vec![b'd'; 200_000];
            client.send(&data).await;
            assert!(client.read_exact(data.len()).await == data);
            let moved = 2 * (request + response) + 4 * data.len();
            done.send((format!("request head {request}, response head {response}"), moved as u64)).unwrap();
            client.half_close().await;
            client.read_to_end().await;
        }
    });
}
