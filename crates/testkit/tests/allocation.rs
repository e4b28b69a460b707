//! How to count allocations, as a pattern for the tests of other crates.
//!
//! `allocation_counter` replaces the global allocator of the test binary that names it, and counts per thread. The code
//! under test therefore runs on the measuring thread, and everything else that may allocate (origins, clients) on
//! another.

use std::thread;

use allocation_counter::measure;
use fairway_testkit::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

#[test]
fn a_closure_is_measured() {
    let mut buffer = Vec::with_capacity(16);
    assert_eq!(measure(|| buffer.extend_from_slice(&[0; 16])).count_total, 0);
    assert_eq!(measure(|| buffer.push(0)).count_total, 1);
}

/// A server on the measuring thread: the first exchange warms it up; later ones do not allocate.
#[test]
fn a_server_in_steady_state_is_measured() {
    const EXCHANGES: usize = 20;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let address = listener.local_addr().unwrap();

    let client = thread::spawn(move || {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut client = Client::connect(address).await;
            for _ in 0..=EXCHANGES {
                client.send("ping").await;
                assert_eq!(client.read_exact(4).await, b"ping");
            }
        });
    });
    let mut stream = runtime.block_on(listener.accept()).unwrap().0;
    let mut exchange = || {
        runtime.block_on(async {
            let mut piece = [0; 4];
            stream.read_exact(&mut piece).await.unwrap();
            stream.write_all(&piece).await.unwrap();
        });
    };
    exchange();
    let counted = measure(|| (0..EXCHANGES).for_each(|_| exchange()));
    client.join().unwrap();
    assert_eq!(counted.count_total, 0, "{counted:?}");
}
