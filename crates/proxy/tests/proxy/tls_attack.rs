//! What a client may try with TLS records and must not get away with, on a listener that ends TLS itself.
//!
//! No client library sends most of this, so a library makes the handshake and the test seals the records that follow.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{HOST, TestProxy, backend, certificate, forward, host_with_certificate, route};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use fairway_model::ForwardPolicy;
use fairway_testkit::{Ca, Origin, Reply};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, SupportedProtocolVersion};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const UNEXPECTED_MESSAGE: u8 = 10;
const NO_RENEGOTIATION: u8 = 100;
const USER_CANCELED: u8 = 90;

struct Site {
    ca: Ca,
    origin: Origin,
    proxy: TestProxy,
}

fn site() -> Site {
    let ca = Ca::new("root");
    let origin = Origin::new("a").reply(Reply::status(204)).start();
    let mut resources = backend("web", &[origin.address()]);
    let routes = vec![route("/", forward("web", ForwardPolicy::default()))];
    resources.extend([certificate("own", &ca.leaf(&[HOST])), host_with_certificate(HOST, routes, "own")]);
    let proxy = TestProxy::start(resources);
    Site { ca, origin, proxy }
}

impl Site {
    fn config(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut provider = default_provider();
        provider.cipher_suites =
            vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
        let builder = ClientConfig::builder_with_provider(provider.into()).with_protocol_versions(&[version]).unwrap();
        let mut config = builder.with_root_certificates(self.ca.roots()).with_no_client_auth();
        config.enable_secret_extraction = true;
        config.into()
    }

    fn dial(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.proxy.https).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        tcp
    }

    /// A connection on which one request was served.
    fn served(&self, version: &'static SupportedProtocolVersion) -> Records {
        let (mut tls, mut tcp) = (new(self.config(version)), self.dial());
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        stream.write_all(request().as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.windows(4).any(|part| part == b"\r\n\r\n") {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).unwrap();
            head.extend_from_slice(&piece[..count]);
        }
        assert!(head.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&head));
        let secrets = tls.dangerous_extract_secrets().unwrap();
        let half = |(sequence, secrets)| match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Half {
                key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_ref()).unwrap()),
                iv: iv.as_ref().try_into().unwrap(),
                sequence,
            },
            _ => panic!("another suite"),
        };
        let tls13 = version.version == rustls::ProtocolVersion::TLSv1_3;
        Records { tcp, tls13, sending: half(secrets.tx), receiving: half(secrets.rx) }
    }
}

fn new(config: Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config, HOST.try_into().unwrap()).unwrap()
}

fn request() -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// The first message of a handshake, without its record.
fn hello(site: &Site, version: &'static SupportedProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    new(site.config(version)).write_tls(&mut bytes).unwrap();
    bytes.split_off(5)
}

/// One direction.
struct Half {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

/// A connection after its handshake.
struct Records {
    tcp: TcpStream,
    tls13: bool,
    sending: Half,
    receiving: Half,
}

impl Half {
    /// The nonce of TLS 1.3 (RFC 8446 5.3).
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        Nonce::assume_unique_for_key(nonce)
    }

    /// The nonce of TLS 1.2, of which the record has the last eight bytes (RFC 5288 3).
    fn nonce_with(&self, explicit: [u8; 8]) -> Nonce {
        Nonce::assume_unique_for_key([&self.iv[..4], &explicit].concat().try_into().unwrap())
    }

    /// What TLS 1.2 authenticates besides the content (RFC 5246 6.2.3.3).
    fn additional(&self, kind: u8, length: usize) -> Aad<Vec<u8>> {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        Aad::from([&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &length].concat())
    }
}

impl Records {
    /// Sends a record; `false` if the connection is closed.
    fn send(&mut self, kind: u8, content: &[u8]) -> bool {
        let half = &mut self.sending;
        let record = if self.tls13 {
            let mut sealed = [content, &[kind]].concat();
            let length = u16::try_from(sealed.len() + 16).unwrap().to_be_bytes();
            let header = [APPLICATION_DATA, 3, 3, length[0], length[1]];
            half.key.seal_in_place_append_tag(half.nonce(), Aad::from(header), &mut sealed).unwrap();
            [&header[..], &sealed].concat()
        } else {
            let explicit = half.sequence.to_be_bytes();
            let mut sealed = content.to_vec();
            let additional = half.additional(kind, content.len());
            half.key.seal_in_place_append_tag(half.nonce_with(explicit), additional, &mut sealed).unwrap();
            let length = u16::try_from(sealed.len() + 8).unwrap().to_be_bytes();
            [&[kind, 3, 3, length[0], length[1]], &explicit[..], &sealed].concat()
        };
        half.sequence += 1;
        self.tcp.write_all(&record).is_ok()
    }

    /// The next record; `None` at the end.
    fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        match self.tcp.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
            Err(error) => panic!("{error}"),
        }
        let mut sealed = vec![0; usize::from(header[3]) << 8 | usize::from(header[4])];
        self.tcp.read_exact(&mut sealed).unwrap();
        let half = &mut self.receiving;
        let (kind, content) = if self.tls13 {
            let mut content = half.key.open_in_place(half.nonce(), Aad::from(header), &mut sealed).unwrap().to_vec();
            (content.pop().unwrap(), content)
        } else {
            let mut content = sealed.split_off(8);
            let explicit = sealed.try_into().unwrap();
            let additional = half.additional(header[0], content.len() - 16);
            let content = half.key.open_in_place(half.nonce_with(explicit), additional, &mut content).unwrap();
            (header[0], content.to_vec())
        };
        half.sequence += 1;
        Some((kind, content))
    }

    /// The alert with which the connection ends.
    fn last_alert(&mut self) -> Option<Vec<u8>> {
        let mut last = None;
        while let Some((kind, content)) = self.receive() {
            assert_eq!(kind, ALERT);
            last = Some(content);
        }
        last
    }
}

async fn blocking(test: impl FnOnce(&Site) + Send + 'static) {
    let site = site();
    tokio::task::spawn_blocking(move || test(&site)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_renegotiated() {
    blocking(|site| {
        let version = &rustls::version::TLS12;
        let again = hello(site, version);
        let mut records = site.served(version);
        // The first time, it is declined along with the next data sent, and the session goes on (RFC 5246 7.2.2).
        assert!(records.send(HANDSHAKE, &again));
        assert!(records.send(APPLICATION_DATA, request().as_bytes()));
        assert_eq!(records.receive(), Some((ALERT, vec![WARNING, NO_RENEGOTIATION])));
        let (kind, answer) = records.receive().unwrap();
        assert_eq!((kind, &answer[..12]), (APPLICATION_DATA, &b"HTTP/1.1 204"[..]));
        // One that insists is closed.
        records.send(HANDSHAKE, &again);
        records.send(HANDSHAKE, &again);
        let last = records.last_alert();
        assert!(last.is_none_or(|alert| alert[0] == FATAL || alert[1] == NO_RENEGOTIATION));
        assert!(!records.send(APPLICATION_DATA, request().as_bytes()) || records.receive().is_none());
        assert_eq!(site.origin.requests(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handshake_begins_within_a_session_of_tls_13() {
    blocking(|site| {
        let version = &rustls::version::TLS13;
        let mut records = site.served(version);
        assert!(records.send(HANDSHAKE, &hello(site, version)));
        assert_eq!(records.last_alert(), Some(vec![FATAL, UNEXPECTED_MESSAGE]));
        assert_eq!(site.origin.requests(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_alerts_end_the_connection() {
    blocking(|site| {
        let mut records = site.served(&rustls::version::TLS12);
        for _ in 0..50 {
            records.send(ALERT, &[WARNING, USER_CANCELED]);
        }
        records.last_alert();
        assert!(!records.send(APPLICATION_DATA, request().as_bytes()) || records.receive().is_none());
        assert_eq!(site.origin.requests(), 1);
    })
    .await;
}

/// Each makes the server derive new keys and send a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_key_updates_end_the_connection() {
    blocking(|site| {
        let (mut tls, mut tcp) = (new(site.config(&rustls::version::TLS13)), site.dial());
        tls.complete_io(&mut tcp).unwrap();
        for _ in 0..200 {
            tls.refresh_traffic_keys().unwrap();
            if tls.write_tls(&mut tcp).is_err() {
                break;
            }
        }
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let asked = stream.write_all(request().as_bytes()).and_then(|()| stream.read(&mut [0; 16]));
        assert!(asked.is_err(), "{asked:?}");
        assert_eq!(site.origin.requests(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_in_many_records_is_one() {
    blocking(|site| {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (mut tls, mut tcp) = (new(site.config(version)), site.dial());
            let mut bytes = Vec::new();
            tls.write_tls(&mut bytes).unwrap();
            for byte in &bytes[5..] {
                tcp.write_all(&[HANDSHAKE, 3, 1, 0, 1, *byte]).unwrap();
            }
            let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
            stream.write_all(request().as_bytes()).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 204");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_is_too_large_ends_the_connection() {
    blocking(|site| {
        let mut tcp = site.dial();
        // It announces 16 MiB, and begins to send them.
        let mut records = vec![HANDSHAKE, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff, 3, 3];
        records.resize(5 + 16_384, 0);
        for _ in 0..64 {
            if tcp.write_all(&records).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[..3] == [ALERT, 3, 3] && answer[5] == FATAL, "{answer:?}");
        assert_eq!(site.origin.requests(), 0);
        // Others are served.
        site.served(&rustls::version::TLS13);
    })
    .await;
}
