//! A client of HTTP/2 that never opens its window, while a minute passes at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc as tokio_mpsc;

use super::*;
use crate::limit::CLIENT_SEND_TIMEOUT;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
/// Less than the time after which a silent client gets a PING.
const STEP: Duration = Duration::from_secs(15);

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// The kind and the flags of the next frame.
fn next(tcp: &mut TcpStream) -> (u8, u8) {
    let mut header = [0; 9];
    tcp.read_exact(&mut header).unwrap();
    let length = usize::from(header[1]) << 8 | usize::from(header[2]);
    tcp.read_exact(&mut vec![0; length]).unwrap();
    (header[3], header[4])
}

#[test]
fn a_client_that_never_opens_its_window_loses_its_stream_and_keeps_its_connection() {
    let (endpoint, _alive) = origin(Reply::ok().body("x".repeat(1 << 20)));
    let live = Live::first(snapshot(endpoint, Settings::default(), ForwardPolicy::default()), None, local());
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let worker = worker(&live, None);
    let resource = live.snapshot.listeners().next().unwrap().clone();
    let socket = listener::bind(&AnyListener::Http(resource.clone()), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let (go, steps) = mpsc::channel::<()>();
    let (seen, mut answers) = tokio_mpsc::channel(1);
    let client = thread::spawn(move || {
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE 0; then GET, http, / of the static table, and the authority.
        tcp.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
        tcp.write_all(&frame(HEADERS, 5, 1, b"\x82\x86\x84\x01\x0bapp.example")).unwrap();
        while next(&mut tcp).0 != HEADERS {}
        seen.blocking_send(false).unwrap();
        // Each step ends with a round trip, so the worker has done what was due.
        while steps.recv().is_ok() {
            tcp.write_all(&frame(PING, 0, 0, &[7; 8])).unwrap();
            let mut reset = false;
            loop {
                match next(&mut tcp) {
                    (PING, 1) => break,
                    (RST_STREAM, _) => reset = true,
                    _ => {}
                }
            }
            seen.blocking_send(reset).unwrap();
        }
    });
    let serving = worker.clone();
    runtime.block_on(async {
        tokio::task::spawn_local(async move { serving.shard.timers.run(Beat::new().unwrap(), || false).await });
        worker.open_listener(AnyListener::Http(resource), socket).unwrap();
        answers.recv().await.unwrap();
        for step in 1..20 {
            worker.shard.timers.pass(STEP);
            go.send(()).unwrap();
            if answers.recv().await.unwrap() {
                assert!(step * STEP > CLIENT_SEND_TIMEOUT, "reset after {step} steps");
                return;
            }
        }
        panic!("its stream is still there");
    });
    drop(go);
    client.join().unwrap();
}
