//! OCSP stapling, with OpenSSL's responses and client.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{HOST, TestProxy, backend, config, forward, host_with_certificate, local, route};
use fairway_model::{Certificate, ForwardPolicy, Origin as Owner, PrivateKey, Resource, Settings, TlsSettings};
use fairway_proxy::ProxyConfig;
use fairway_proxy::resolve::AddressPolicy;
use fairway_testkit::{Client, Origin, eventually};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A folder with an authority, its delegate for OCSP, another authority of the same name, and a leaf.
struct Authority(PathBuf);

impl Authority {
    /// `state` is the line of the leaf in the index of OpenSSL: valid, revoked, or none.
    fn new(name: &str, state: &str, responder: SocketAddr) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ocsp-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let this = Self(folder);
        let responder = format!("authorityInfoAccess=OCSP;URI:http://{responder}/ask\nsubjectAltName=DNS:{HOST}\n");
        fs::write(this.0.join("leaf.ext"), responder).expect("a file");
        fs::write(this.0.join("delegate.ext"), "extendedKeyUsage=OCSPSigning\n").expect("a file");
        fs::write(this.0.join("index"), state).expect("a file");
        for ca in ["ca", "other"] {
            this.run(&format!(
                "req -x509 -newkey rsa:2048 -nodes -subj /CN=root -days 30 -keyout {ca}.key -out {ca}.crt"
            ));
        }
        for (name, ca, serial) in [("leaf", "ca", 1), ("delegate", "ca", 2), ("stranger", "other", 3)] {
            this.run(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            let extensions = if name == "leaf" { "leaf" } else { "delegate" };
            this.run(&format!(
                "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -set_serial {serial} -days 20 -extfile {extensions}.ext -out {name}.crt"
            ));
        }
        this
    }

    fn run(&self, arguments: &str) -> String {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().expect("openssl");
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn pem(&self, file: &str) -> Vec<u8> {
        fs::read(self.0.join(file)).expect("a file")
    }

    fn certificate(&self) -> Resource {
        let der = |file: &str| Arc::from(CertificateDer::from_pem_slice(&self.pem(file)).expect("PEM").as_ref());
        let key = PrivateKeyDer::from_pem_slice(&self.pem("leaf.key")).expect("PEM");
        Resource::from(Certificate {
            name: "leaf".into(),
            origin: Owner::new("Secret", "default", "leaf"),
            fingerprint: "".into(),
            not_after: i64::MAX,
            chain: vec![der("leaf.crt"), der("ca.crt")],
            key: PrivateKey::new(key.secret_der().to_vec()),
        })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// The signer, or what is answered instead.
#[derive(Clone, Copy, Debug)]
enum Answer {
    SignedBy(&'static str),
    Bytes(&'static [u8]),
}

/// Answers questions as OpenSSL does.
struct Responder {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    listener: TcpListener,
}

impl Responder {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { address: listener.local_addr().expect("an address"), asked: Arc::default(), listener }
    }

    fn serve(&self, folder: PathBuf, answer: Answer) {
        let (listener, asked) = (self.listener.try_clone().expect("a socket"), self.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                asked.fetch_add(1, Ordering::SeqCst);
                let Some(question) = read(&mut stream) else { continue };
                let body = match answer {
                    Answer::Bytes(bytes) => bytes.to_vec(),
                    Answer::SignedBy(signer) => {
                        fs::write(folder.join("question.der"), question).expect("a file");
                        let arguments = format!(
                            "ocsp -index index -CA ca.crt -rsigner {signer}.crt -rkey {signer}.key -nmin 60 -reqin question.der -respout answer.der"
                        );
                        let mut openssl = Command::new("openssl");
                        openssl.args(arguments.split(' ')).current_dir(&folder);
                        assert!(
                            openssl.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("openssl").success()
                        );
                        fs::read(folder.join("answer.der")).expect("an answer")
                    }
                };
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), &body].concat()).ok();
            }
        });
    }
}

/// The body of a question.
fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
        let text = String::from_utf8_lossy(&bytes);
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.is_empty() || head.starts_with("POST /ask HTTP/1.0\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        if let Some(body) = length.and_then(|length| bytes.get(head.len() + 4..)?.get(..length)) {
            return Some(body.to_vec());
        }
    }
}

fn start(authority: &Authority, origin: &Origin, addresses: AddressPolicy) -> TestProxy {
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host_with_certificate(HOST, vec![route("/", forward("web", ForwardPolicy::default()))], "leaf"));
    resources.extend([authority.certificate(), stapling(true)]);
    let admin = Some(([127, 0, 0, 1], 0).into());
    TestProxy::start_with(resources, ProxyConfig { admin, addresses, ..config() })
}

fn stapling(staple: bool) -> Resource {
    Settings { tls: TlsSettings { staple, ..TlsSettings::default() }, ..Settings::default() }.into()
}

fn loopback() -> AddressPolicy {
    AddressPolicy { allowed: ["127.0.0.0/8".parse().expect("a network")].into_iter().collect(), ..local() }
}

/// What OpenSSL's client says about the staple.
async fn status(https: SocketAddr, version: &str) -> String {
    let arguments = format!("s_client -connect {https} -servername {HOST} -status {version}");
    tokio::task::spawn_blocking(move || {
        let output = Command::new("openssl").args(arguments.split(' ')).stdin(Stdio::null()).output().expect("openssl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
    .await
    .expect("no panic")
}

async fn failures(proxy: &TestProxy) {
    let address = proxy.proxy.admin_address().expect("an admin listener");
    eventually("a failure in the metrics", || {
        Box::pin(async move {
            let text = Client::connect(address).await.get("a", "/metrics").await.text();
            let line = text.lines().find(|line| line.starts_with("fairway_ocsp_failures_total{"));
            line.is_some_and(|line| !line.ends_with(" 0"))
        })
    })
    .await;
}

const VALID: &str = "V\t491231235959Z\t\t01\tunknown\t/CN=leaf\n";
const NO_STAPLE: &str = "OCSP response: no response sent";

#[tokio::test]
async fn a_good_response_is_stapled_whether_the_issuer_signed_it_or_its_delegate() {
    let origin = Origin::start("a");
    for signer in ["ca", "delegate"] {
        let responder = Responder::new();
        let authority = Authority::new(signer, VALID, responder.address);
        responder.serve(authority.0.clone(), Answer::SignedBy(signer));
        let proxy = start(&authority, &origin, loopback());
        for version in ["-tls1_3", "-tls1_2"] {
            eventually("a staple", || {
                Box::pin(async {
                    let said = status(proxy.https, version).await;
                    assert!(said.contains("Cert Status: good") || said.contains(NO_STAPLE), "{said}");
                    said.contains("OCSP Response Status: successful (0x0)")
                })
            })
            .await;
        }
        assert_eq!(responder.asked.load(Ordering::SeqCst), 1, "for all workers and handshakes");
        proxy.publish([stapling(false)]).await;
        assert!(status(proxy.https, "-tls1_3").await.contains(NO_STAPLE));
    }
}

#[tokio::test]
async fn a_response_that_clients_would_refuse_is_not_stapled() {
    let origin = Origin::start("a");
    for (name, state, answer) in [
        ("revoked", "R\t491231235959Z\t250101000000Z\t01\tunknown\t/CN=leaf\n", Answer::SignedBy("ca")),
        ("unknown", "", Answer::SignedBy("ca")),
        ("other", VALID, Answer::SignedBy("other")),
        ("stranger", VALID, Answer::SignedBy("stranger")),
        ("leaf", VALID, Answer::SignedBy("leaf")),
        ("later", VALID, Answer::Bytes(b"\x30\x03\x0a\x01\x03")),
        ("garbage", VALID, Answer::Bytes(b"garbage")),
    ] {
        let responder = Responder::new();
        let authority = Authority::new(name, state, responder.address);
        responder.serve(authority.0.clone(), answer);
        let proxy = start(&authority, &origin, loopback());
        assert!(status(proxy.https, "-tls1_3").await.contains(NO_STAPLE), "{name}");
        failures(&proxy).await;
        assert_eq!(responder.asked.load(Ordering::SeqCst), 1, "{name}");
        assert!(status(proxy.https, "-tls1_3").await.contains(NO_STAPLE), "{name}");
    }
}

#[tokio::test]
async fn no_responder_is_asked_at_an_address_that_backends_may_not_have() {
    let origin = Origin::start("a");
    let responder = Responder::new();
    let authority = Authority::new("refused", VALID, responder.address);
    responder.serve(authority.0.clone(), Answer::SignedBy("ca"));
    let proxy = start(&authority, &origin, local());
    assert!(status(proxy.https, "-tls1_3").await.contains(NO_STAPLE));
    failures(&proxy).await;
    assert_eq!(responder.asked.load(Ordering::SeqCst), 0);
}
