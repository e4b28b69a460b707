//! What datagrams may take of the files that the process may have open. The limit is one of the whole process: this test has one of
//! its own.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::cell::RefCell;
use std::fs::File;
use std::num::NonZeroUsize;
use std::time::Duration;

use fairway_model::{ForwardPolicy, Origin as Owner, Resource, Settings, StreamListener, StreamSettings, Transport};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Origin, eventually, within};
use nix::sys::resource::{Resource as Limit, getrlimit, setrlimit};
use support::{HOST, TestProxy, backend, config, forwarding};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const FILES: u64 = 256;

#[tokio::test]
async fn datagrams_leave_files_to_connections() {
    let (_, most) = getrlimit(Limit::RLIMIT_NOFILE).unwrap();
    setrlimit(Limit::RLIMIT_NOFILE, FILES, most).unwrap();
    let origin = Origin::start("a");
    let endpoint = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut resources = forwarding(&[&origin], ForwardPolicy::default());
    resources.extend(backend("udp", &[endpoint.local_addr().unwrap()]));
    let listener = StreamListener {
        name: "service".into(),
        origin: Owner::built_in("test"),
        address: ([127, 0, 0, 1], 0).into(),
        transport: Transport::Udp,
        backend: "default/udp:80".into(),
    };
    // Sessions that last.
    let streams = StreamSettings { responses: u32::MAX, ..StreamSettings::default() };
    resources.extend([listener.into(), Resource::from(Settings { streams, ..Settings::default() })]);
    let admin = Some(([127, 0, 0, 1], 0).into());
    let config = ProxyConfig { workers: NonZeroUsize::new(1), admin, ..config() };
    let proxy = TestProxy::start_with(resources, config);
    let port = proxy.proxy.local_addresses()[&"service".into()];

    // More clients than there may be files.
    for _ in 0..FILES + 50 {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"x", port).await.unwrap();
        within("a datagram", endpoint.recv(&mut [0; 8])).await.unwrap();
    }
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let active = format!("fairway_stream_sessions_active{{listener=\"service\",protocol=\"UDP\"}} {}\n", FILES / 4);
    // Connections are kept: none is to give back a file later.
    let kept = RefCell::new(Vec::new());
    // In boxes: the buffers of a client are large, and the stack of a test is not.
    let sessions = || {
        Box::pin(async {
            let mut admin = Client::connect(proxy.proxy.admin_address().unwrap()).await;
            let metrics = admin.get("admin", "/metrics").await.text();
            kept.borrow_mut().push(admin);
            if metrics.contains(&active) { Ok(()) } else { Err(metrics) }
        })
    };
    eventually("a quarter of the files", sessions).await;

    // Without any file left, the session that was silent for longest gives its own to the next client.
    let late = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let _held: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    eventually("a datagram of the late client", || async {
        late.send_to(b"late", port).await.unwrap();
        let mut room = [0; 8];
        matches!(timeout(Duration::from_millis(200), endpoint.recv(&mut room)).await, Ok(Ok(4)))
    })
    .await;
}
