//! The client's TLS: server name, protocols, version, and the server's answer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme, SupportedCipherSuite,
    SupportedProtocolVersion,
};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{Client, ClientBuilder};
use crate::stream::Stream;
use crate::wire::Wire;
use crate::{Ca, Leaf, within};

const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Makes connections with TLS. One value and its clones share their sessions, so a second connection may resume. Set
/// options before the first connection.
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsClient {
    name: ServerName<'static>,
    sni: bool,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
    certificate: Option<Arc<CertifiedKey>>,
    transport: ClientBuilder,
    post_quantum: bool,
    chacha20: bool,
    /// Created once: rustls resumes a session only under the configuration that created it.
    config: OnceLock<Arc<ClientConfig>>,
}

/// The result of a handshake.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    /// The server's certificates as sent, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The protocol chosen by ALPN.
    pub alpn: Option<String>,
    /// The TLS version.
    pub version: ProtocolVersion,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// The cipher suite.
    pub cipher: rustls::CipherSuite,
    /// The group of the key exchange; `None` for a session of TLS 1.2 that was resumed.
    pub group: Option<rustls::NamedGroup>,
}

impl TlsClient {
    /// Trusts `ca`, asks for `name` (an address sends no SNI), offers no ALPN, speaks TLS 1.2 and 1.3.
    pub fn new(ca: &Ca, name: &str) -> Self {
        let verifier = WebPkiServerVerifier::builder_with_provider(ca.roots(), provider()).build();
        Self::with_verifier(name, verifier.expect("a root that rustls can use"))
    }

    /// Asks for `name` and accepts any certificate, for tests that check [`TlsInfo::chain`] themselves.
    pub fn unverified(name: &str) -> Self {
        let provider = provider();
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        Self::with_verifier(name, Arc::new(AnyCertificate { provider, schemes }))
    }

    fn with_verifier(name: &str, verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self {
            name: ServerName::try_from(name.to_owned()).expect("a DNS name or an address"),
            sni: true,
            alpn: Vec::new(),
            versions: rustls::ALL_VERSIONS,
            verifier,
            certificate: None,
            transport: ClientBuilder::default(),
            post_quantum: false,
            chacha20: false,
            config: OnceLock::new(),
        }
    }

    /// Offers these protocols, most preferred first.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Speaks only TLS 1.2.
    pub fn only_tls12(mut self) -> Self {
        self.versions = ONLY_TLS12;
        self
    }

    /// Speaks only TLS 1.3.
    pub fn only_tls13(mut self) -> Self {
        self.versions = ONLY_TLS13;
        self
    }

    /// Prefers X25519MLKEM768 for the key exchange, as browsers do.
    pub fn post_quantum(mut self) -> Self {
        self.post_quantum = true;
        self
    }

    /// Offers ChaCha20 before AES, as devices without instructions for AES do.
    pub fn preferring_chacha20(mut self) -> Self {
        self.chacha20 = true;
        self
    }

    /// Offers only these signatures, and accepts any certificate.
    pub fn signatures(mut self, schemes: &[SignatureScheme]) -> Self {
        self.verifier = Arc::new(AnyCertificate { provider: provider(), schemes: schemes.to_vec() });
        self
    }

    /// Sends no server name.
    pub fn without_sni(mut self) -> Self {
        self.sni = false;
        self
    }

    /// Presents this certificate if the server asks for one.
    pub fn certificate(mut self, leaf: &Leaf) -> Self {
        let key = provider().key_provider.load_private_key(leaf.key()).expect("a key that rustls can use");
        self.certificate = Some(Arc::new(CertifiedKey::new(leaf.chain().to_vec(), key)));
        self
    }

    /// Makes the TCP connection with these options.
    pub fn transport(mut self, transport: ClientBuilder) -> Self {
        self.transport = transport;
        self
    }

    /// Connects.
    ///
    /// # Panics
    /// If the connection or the handshake fails.
    pub async fn connect(&self, address: SocketAddr) -> Client {
        match self.try_connect(address).await {
            Ok(client) => client,
            Err(error) => panic!("TLS to {address} as {:?}: {error}", self.name),
        }
    }

    /// Connects and returns any error.
    ///
    /// # Errors
    /// Those of `connect(2)`; a failed handshake is an error that wraps a `rustls::Error`. In TLS 1.3 a server rejects
    /// a client's certificate after the handshake, so the error appears at the first read.
    pub async fn try_connect(&self, address: SocketAddr) -> io::Result<Client> {
        let tcp = self.transport.dial(address).await?;
        let connector = TlsConnector::from(self.config());
        let stream =
            within(&format!("a TLS handshake with {address}"), connector.connect(self.name.clone(), tcp)).await?;
        let session = stream.get_ref().1;
        let info = TlsInfo {
            chain: session.peer_certificates().unwrap_or_default().to_vec(),
            alpn: session.alpn_protocol().map(crate::message::text),
            version: session.protocol_version().expect("a version after the handshake"),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            cipher: session.negotiated_cipher_suite().expect("a suite after the handshake").suite(),
            group: session.negotiated_key_exchange_group().map(|group| group.name()),
        };
        let stream = Stream::Tls(Box::new(TlsStream::Client(stream)));
        Ok(Client { wire: Wire::new(stream), peer: address, tls: Some(info) })
    }

    /// What the TLS library is configured with.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(self.config.get_or_init(|| self.new_config()))
    }

    fn new_config(&self) -> Arc<ClientConfig> {
        let mut provider = aws_lc_rs::default_provider();
        if self.post_quantum {
            provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519];
        }
        if self.chacha20 {
            let is_chacha20 = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("CHACHA20");
            provider.cipher_suites.sort_by_key(|suite| !is_chacha20(suite));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(self.versions)
            .expect("aws-lc-rs speaks TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier));
        let mut config = match &self.certificate {
            Some(certified) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))))
            }
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.sni;
        config.alpn_protocols = self.alpn.clone();
        Arc::new(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Accepts any peer that holds the key of its certificate.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
