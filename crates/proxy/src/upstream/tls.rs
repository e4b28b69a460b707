//! TLS to endpoints: turns a policy into a configuration of the TLS library.

use std::io;
use std::sync::{Arc, OnceLock};

use fairway_model::decision::Forwarding;
use fairway_model::{AlternativeName, Backend, Certificate, TlsVersions, Trust, UpstreamTls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::net::tls::restrict;

/// The name that nginx verifies if none is configured: the name of the upstream in the configuration that ingress-nginx writes.
const NAMELESS: &str = "upstream_balancer";

/// Why no connection can be opened as a policy requires.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum InvalidTls {
    /// The snapshot doesn't contain the client certificate.
    #[error("the client certificate is missing")]
    NoCertificate,
    /// The client certificate or its key can't be used.
    #[error("the client certificate cannot be used")]
    Certificate,
    /// None of the certificate authorities can be used.
    #[error("the authorities cannot be used")]
    Authorities,
    /// The name is neither a DNS name nor an address.
    #[error("the server name cannot be used")]
    Name,
}

/// Identifies one way in one worker. Different ways have different numbers, and no number is reused, so ways are cheap to compare.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct WayNumber(pub(super) u32);

impl WayNumber {
    /// HTTP/1.1 without TLS.
    pub(crate) const PLAIN: Self = Self(0);

    /// HTTP/2 without TLS, by prior knowledge.
    pub(crate) const PLAIN_HTTP2: Self = Self(1);
}

/// One way over TLS.
#[derive(Debug)]
pub(crate) struct TlsWay {
    pub(super) number: WayNumber,
    /// Shared by all connections of this way, so that sessions are resumed.
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    pub(crate) version: UpstreamVersion,
}

/// The version of HTTP that the proxy speaks to endpoints.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum UpstreamVersion {
    Http1,
    Http2,
}

impl UpstreamVersion {
    /// The version for the endpoints of a backend.
    pub(crate) fn of(forwarding: &Forwarding<'_>, backend: &Backend) -> Self {
        if forwarding.is_http2(backend) { Self::Http2 } else { Self::Http1 }
    }
}

impl TlsWay {
    /// # Errors
    /// See [`InvalidTls`].
    pub(super) fn new(
        number: WayNumber,
        version: UpstreamVersion,
        tls: &UpstreamTls,
        certificate: Option<&Certificate>,
    ) -> Result<Self, InvalidTls> {
        let mut provider = aws_lc_rs::default_provider();
        restrict(&mut provider, &tls.ciphers);
        let provider = Arc::new(provider);
        let versions: &[&'static SupportedProtocolVersion] = match tls.versions {
            TlsVersions::All => &[&version::TLS13, &version::TLS12],
            TlsVersions::Tls12 => &[&version::TLS12],
            TlsVersions::Tls13 => &[&version::TLS13],
        };
        let verifier: Arc<dyn ServerCertVerifier> = match &tls.trust {
            Trust::Anyone => Arc::new(Anyone(provider.clone())),
            trust => {
                let roots = roots(trust);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                    .build()
                    .map_err(|_| InvalidTls::Authorities)?;
                if tls.alternative_names.is_empty() {
                    verifier
                } else {
                    Arc::new(Named {
                        names: tls.alternative_names.clone(),
                        roots,
                        verifier,
                        provider: provider.clone(),
                    })
                }
            }
        };
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let Ok(builder) = builder else { unreachable!("aws-lc-rs has cipher suites for TLS 1.2 and 1.3") };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let chain = certificate.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.key.der().to_vec()));
                builder.with_client_auth_cert(chain, key).map_err(|_| InvalidTls::Certificate)?
            }
        };
        config.enable_sni = tls.sni && tls.name.is_some();
        if version == UpstreamVersion::Http2 {
            // HTTP/2 is spoken even to an endpoint that ignores the offer, as in nginx.
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let name = tls.name.as_deref().unwrap_or(NAMELESS).to_owned();
        let name = ServerName::try_from(name).map_err(|_| InvalidTls::Name)?;
        Ok(Self { number, config: Arc::new(config), name, version })
    }
}

/// TLS for one of the proxy's own connections that no pool holds.
///
/// # Errors
/// See [`InvalidTls`].
pub(crate) fn apart(
    version: UpstreamVersion,
    tls: &UpstreamTls,
    certificate: Option<&Certificate>,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), InvalidTls> {
    // The number has no use outside a pool.
    let TlsWay { config, name, .. } = TlsWay::new(WayNumber::PLAIN, version, tls, certificate)?;
    Ok((config, name))
}

/// The operator's description of a failed handshake.
pub(crate) fn fault(error: &io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
        return "the endpoint ended the connection during the handshake";
    };
    match error {
        rustls::Error::InvalidCertificate(invalid) => match invalid {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate of the endpoint is not valid for the name that is expected"
            }
            CertificateError::UnknownIssuer => "the issuer of the certificate of the endpoint is unknown",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate of the endpoint has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate of the endpoint is not valid yet"
            }
            CertificateError::Revoked => "the certificate of the endpoint is revoked",
            CertificateError::BadSignature => "a signature of the endpoint is wrong",
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "the certificate of the endpoint is not one for servers"
            }
            _ => "the certificate of the endpoint is not valid",
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => "the endpoint demands a client certificate",
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => "the endpoint refused the client certificate",
            AlertDescription::UnrecognisedName => "the endpoint does not know the server name",
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
                "the endpoint accepts none of the versions or cipher suites"
            }
            _ => "the endpoint ended the handshake with an alert",
        },
        rustls::Error::PeerIncompatible(_) => "the endpoint offers no version or cipher suite that is accepted",
        rustls::Error::InvalidMessage(_) | rustls::Error::PeerSentOversizedRecord => "the endpoint does not speak TLS",
        _ => "the endpoint does not follow the protocol",
    }
}

/// The trusted authorities. Those of the machine are read once, so a change to them takes effect only in a new process.
fn roots(trust: &Trust) -> Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let store = |authorities: &mut dyn Iterator<Item = CertificateDer<'static>>| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities);
        roots
    };
    match trust {
        Trust::Anyone => Arc::new(RootCertStore::empty()),
        Trust::Authorities(authorities) => {
            Arc::new(store(&mut authorities.iter().map(|root| CertificateDer::from(root.der().to_vec()))))
        }
        Trust::System => {
            let read = || {
                let found = store(&mut rustls_native_certs::load_native_certs().certs.into_iter());
                if found.is_empty() { webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect() } else { found }
            };
            SYSTEM.get_or_init(|| Arc::new(read())).clone()
        }
    }
}

/// TLS that accepts any certificate and offers these protocols.
pub fn unverified_tls(protocols: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(rustls::ALL_VERSIONS);
    let Ok(builder) = builder else { unreachable!("aws-lc-rs has cipher suites for TLS 1.2 and 1.3") };
    let verifier = Arc::new(Anyone(provider));
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config
}

/// Accepts certificates of these authorities that have one of these names. The name that is sent is not checked.
#[derive(Debug)]
struct Named {
    names: Vec<AlternativeName>,
    roots: Arc<RootCertStore>,
    /// Checks signatures.
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Named {
    fn is_named(&self, certificate: &ParsedCertificate<'_>, der: &CertificateDer<'_>) -> bool {
        self.names.iter().any(|name| match name {
            AlternativeName::Dns(name) => ServerName::try_from(&**name)
                .is_ok_and(|name| rustls::client::verify_server_name(certificate, &name).is_ok()),
            AlternativeName::Uri(uri) => {
                let Ok((_, parsed)) = X509Certificate::from_der(der) else { return false };
                let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
                names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(found) if *found == &**uri))
            }
        })
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let roots = &self.roots;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        if self.is_named(&certificate, end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Accepts every certificate. It doesn't even check that the endpoint has the key of its certificate: any certificate would do anyway, and
/// old ones that the library can't parse are in use behind ingress-nginx.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
