//! The PROXY header of TCP services, read and sent.

use fairway_model::{StreamSettings, Transport};
use fairway_proxy::ProxyConfig;
use fairway_testkit::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Lines, accept, connect, listen, one_worker, read, read_to_end, start_with, stream};

#[tokio::test]
async fn the_proxy_header_is_read_and_sent_on() {
    let (listener, endpoint) = listen().await;
    let log = Lines::default();
    let config = ProxyConfig { log: log.sink(), ..one_worker() };
    let transport = Transport::Tcp { accept_proxy: true, send_proxy: true };
    let (proxy, port) = start_with(transport, &[endpoint], StreamSettings::default(), config);
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x05\x01\xbb";
    let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n";
    for header in [&v1[..], v2] {
        // In two pieces, followed by bytes of the client.
        let mut client = connect(port).await;
        client.write_all(&header[..9]).await.unwrap();
        tokio::task::yield_now().await;
        client.write_all(&[&header[9..], b"hello"].concat()).await.unwrap();
        let mut server = accept(&listener).await;
        assert_eq!(read(&mut server, v1.len() + 5).await, [&v1[..], b"hello"].concat());
        client.shutdown().await.unwrap();
        drop(server);
    }
    log.wait(2).await;
    // A client that sends no header, or an invalid one, reaches no endpoint.
    let mut client = connect(port).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(within("the end", client.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    let lines = log.wait(3).await;
    assert!(lines[..2].iter().all(|line| line.starts_with("[192.0.2.1] ") && line.contains(" TCP 200 ")), "{lines:?}");
    assert!(lines[2].starts_with("[127.0.0.1] ") && lines[2].contains(" TCP 400 "), "{lines:?}");

    // Only sent: the header names the client that the proxy sees.
    let send = Transport::Tcp { accept_proxy: false, send_proxy: true };
    proxy.publish([stream("127.0.0.1:0", send, "web")]).await;
    let client = connect(port).await;
    let mut server = accept(&listener).await;
    let expected =
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", client.local_addr().unwrap().port(), port.port());
    assert_eq!(String::from_utf8(read(&mut server, expected.len()).await).unwrap(), expected);

    // Only read: the endpoint sees none of it.
    let accept_only = Transport::Tcp { accept_proxy: true, send_proxy: false };
    proxy.publish([stream("127.0.0.1:0", accept_only, "web")]).await;
    let mut client = connect(port).await;
    client.write_all(b"PROXY UNKNOWN\r\nhello").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut accept(&listener).await).await, b"hello");
}
