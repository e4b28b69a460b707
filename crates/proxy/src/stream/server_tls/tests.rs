//! Against the library's own client, over real sockets.

use fairway_testkit::{Ca, Leaf};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::{TlsConnector, client};

use super::*;

const NAME: &str = "app.example";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    rustls::crypto::aws_lc_rs::default_provider().into()
}

/// A client's configuration; `chain` is the number of further certificates that it sends.
fn client_config(ca: &Ca, version: &'static SupportedProtocolVersion, own: &Leaf, chain: usize) -> ClientConfig {
    let mut certificates = vec![own.der().clone()];
    certificates.resize(1 + chain, ca.der().clone());
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(ca.roots())
        .with_client_auth_cert(certificates, own.key())
        .unwrap()
}

fn server_config(ca: &Ca, asks: bool) -> Arc<ServerConfig> {
    let leaf = ca.leaf(&[NAME]);
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&VERSIONS).unwrap();
    let builder = match asks {
        true => {
            let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots(), provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        false => builder.with_no_client_auth(),
    };
    let chain: Vec<CertificateDer<'static>> = leaf.chain().to_vec();
    builder.with_single_cert(chain, leaf.key()).unwrap().into()
}

/// Both ends of a connection after the handshake, or the server's error.
async fn connected(client: ClientConfig, server: Arc<ServerConfig>) -> io::Result<(Client, ServerTls)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(client)).connect(NAME.try_into().unwrap(), tcp).await
    };
    let accepting = async {
        let tcp = listener.accept().await.unwrap().0;
        ServerTls::accept(tcp, server, Some(NAME), Vec::new()).await
    };
    let (client, server) = tokio::join!(connecting, accepting);
    server.map(|server| (client.unwrap(), server))
}

type Client = client::TlsStream<TcpStream>;

fn holds_nothing(tls: &ServerTls) -> bool {
    [&tls.incoming, &tls.decrypted, &tls.outgoing].iter().all(|queue| queue.memory.is_empty())
}

#[tokio::test]
async fn bytes_arrive_in_order_whatever_the_pieces() {
    let ca = Ca::new("root");
    let own = ca.leaf(&["client"]);
    for version in VERSIONS {
        let (client, mut server) =
            connected(client_config(&ca, version, &own, 0), server_config(&ca, false)).await.unwrap();
        assert!(holds_nothing(&server));
        let sizes = [1, 7, RECORD - 1, RECORD, RECORD + 1, 3 * RECORD, 300_000, 5];
        let data: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
        let (mut from_server, mut to_server) = tokio::io::split(client);
        let sent = data.clone();
        let sending = tokio::spawn(async move {
            for piece in sent.chunks(10_007) {
                to_server.write_all(piece).await.unwrap();
            }
            to_server.flush().await.unwrap();
            to_server
        });
        let wanted = data.clone();
        let receiving = tokio::spawn(async move {
            let mut received = vec![0; wanted.len()];
            from_server.read_exact(&mut received).await.unwrap();
            assert!(received == wanted);
            // The end is announced.
            assert_eq!(from_server.read(&mut [0; 1]).await.unwrap(), 0);
            from_server
        });
        let mut received = vec![0; data.len()];
        server.read_exact(&mut received[..3]).await.unwrap();
        server.read_exact(&mut received[3..]).await.unwrap();
        assert!(received == data && server.decrypted.is_empty());
        let mut at = 0;
        for (number, size) in sizes.into_iter().enumerate() {
            let end = (at + size).min(data.len());
            while at < end {
                let middle = at + (end - at) * (number % 3) / 2;
                let pieces = [&data[at..middle], &data[middle..end], &data[end..(end + 2).min(data.len())]];
                let pieces = pieces.map(IoSlice::new);
                let count = poll_fn(|cx| Pin::new(&mut server).poll_write_vectored(cx, &pieces)).await.unwrap();
                assert!(count > 0);
                at += count;
            }
        }
        server.flush().await.unwrap();
        server.shutdown().await.unwrap();
        drop((sending.await.unwrap(), receiving.await.unwrap()));
        assert!(holds_nothing(&server), "what is idle holds no memory");
    }
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    let ca = Ca::new("root");
    let own = ca.leaf(&["client"]);
    for version in VERSIONS {
        for properly in [true, false] {
            let (mut client, mut server) =
                connected(client_config(&ca, version, &own, 0), server_config(&ca, false)).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            client.flush().await.unwrap();
            match properly {
                true => client.shutdown().await.unwrap(),
                false => client.get_mut().0.shutdown().await.unwrap(),
            }
            let mut received = Vec::new();
            let end = server.read_to_end(&mut received).await;
            assert_eq!(received, b"hello");
            assert_eq!(end.map_err(|error| error.kind()).is_ok(), properly);
            // The other direction continues.
            server.write_all(b"bye").await.unwrap();
            server.flush().await.unwrap();
            if !properly {
                client.read_exact(&mut [0; 3]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_only_what_waits() {
    let ca = Ca::new("root");
    let own = ca.leaf(&["client"]);
    let config = client_config(&ca, &rustls::version::TLS13, &own, 0);
    let (_client, mut server) = connected(config, server_config(&ca, false)).await.unwrap();
    let data = vec![b'x'; 1 << 20];
    let blocked = poll_fn(|cx| {
        loop {
            match Pin::new(&mut server).poll_write(cx, &data) {
                Poll::Ready(Ok(count)) => assert!(count <= BATCH * RECORD),
                other => return Poll::Ready(other.is_pending()),
            }
        }
    });
    assert!(blocked.await);
    let waits = server.outgoing.filled().to_vec();
    server.trim();
    assert!(server.outgoing.filled() == waits && server.outgoing.memory.len() == waits.len());
    assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut server).poll_write(cx, &data).is_pending())).await);
    assert!(server.outgoing.filled() == waits);
}

#[tokio::test]
async fn long_chains_of_client_certificates_are_received_up_to_a_limit() {
    let ca = Ca::new("root");
    let own = ca.leaf(&["client"]);
    let each = ca.der().len() + 5;
    for version in VERSIONS {
        for (bytes, fits) in [(TLS_RECORDS + 5000, true), (50_000, true), (70_000, false)] {
            let config = client_config(&ca, version, &own, bytes / each);
            let outcome = connected(config, server_config(&ca, true)).await;
            assert_eq!(outcome.is_ok(), fits, "{bytes} bytes, {version:?}");
            if let Ok((_, server)) = outcome {
                assert_eq!(server.session().peer_certificates().unwrap().len(), 1 + bytes / each);
                assert!(holds_nothing(&server));
            }
        }
    }
}
