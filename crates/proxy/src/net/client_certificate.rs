//! Client certificates: asked for by the host that a client names in its hello, verified after the handshake.
//!
//! The handshake accepts any certificate whose key the client has, so that a missing or bad one gets an HTTP response, unless the host
//! wants the handshake to fail. The chain is verified once for each connection, resumed ones included, and again if the host's demands
//! change: a session carries certificates over, never a verdict.

mod name;

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use fairway_model::{ClientAuth, ClientAuthMode, ClientIdentity, Snapshot, TableName, Verified};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// What a host asks for, compiled.
#[derive(Debug)]
pub(crate) struct ClientPolicy {
    pub(super) auth: Arc<ClientAuth>,
    /// `None` if the authorities or revocation lists can't be used: then no certificate is good.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientPolicy {
    pub(super) fn new(auth: Arc<ClientAuth>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(auth.authorities.iter().map(|root| CertificateDer::from(root.der())));
        let lists = auth.revocation_lists.iter().map(|list| CertificateRevocationListDer::from(list.der().to_vec()));
        let provider = Arc::new(provider::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        // Without lists, revocation is not checked.
        let verifier = builder.with_crls(lists).enforce_revocation_expiration().build().ok();
        Self { auth, verifier }
    }

    /// The verifier for the TLS layer.
    pub(super) fn asking(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        let strict = self.auth.in_handshake && self.auth.mode == ClientAuthMode::Required;
        if let Some(verifier) = self.verifier.as_ref().filter(|_| strict) {
            return verifier.clone();
        }
        let hints = self.verifier.as_ref().map(|verifier| verifier.root_hint_subjects().to_vec());
        // Without a verifier no certificate is good.
        Arc::new(AnyOfClient {
            refuses: strict,
            hints: hints.unwrap_or_default(),
            provider: provider::default_provider(),
        })
    }

    fn identity(&self, chain: &[CertificateDer<'static>]) -> ClientIdentity {
        let Some((leaf, intermediates)) = chain.split_first() else { return ClientIdentity::default() };
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            let verified = Verified::Failed("malformed certificate");
            return ClientIdentity { verified, ..ClientIdentity::default() };
        };
        let outcome = self.verify(leaf, &parsed, intermediates);
        let of_unknown_authority = outcome == Err(CertificateError::UnknownIssuer);
        let verified = match outcome {
            Ok(()) => Verified::Success,
            Err(_) if of_unknown_authority && parsed.subject() == parsed.issuer() => {
                Verified::Failed("self-signed certificate")
            }
            Err(error) => Verified::Failed(reason(&error)),
        };
        let validity = parsed.validity();
        // As OpenSSL writes times; they are in UTC.
        let time = |time: ASN1Time| time.to_string().replace("+00:00", "GMT").into();
        let hex = |bytes: &[u8], upper: bool| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
                text
            })
        };
        ClientIdentity {
            verified,
            of_unknown_authority,
            subject: name::rfc2253(parsed.subject()).into(),
            issuer: name::rfc2253(parsed.issuer()).into(),
            serial: hex(parsed.raw_serial(), true).into(),
            valid_from: time(validity.not_before),
            valid_until: time(validity.not_after),
            days_left: validity.time_to_expiration().map_or(0, |left| left.whole_days()).to_string().into(),
            fingerprint: hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, leaf).as_ref(), false).into(),
            escaped: name::escaped_pem(leaf).into(),
        }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &X509Certificate<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), CertificateError> {
        // Not the error of an unknown authority, which some hosts admit.
        let verifier = self.verifier.as_ref().ok_or(CertificateError::BadEncoding)?;
        let verify = |intermediates: &[CertificateDer<'_>]| {
            verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop).map_err(|error| match error {
                Error::InvalidCertificate(error) => error,
                _ => CertificateError::BadEncoding,
            })
        };
        let depth = usize::try_from(self.auth.depth).unwrap_or(usize::MAX);
        if intermediates.len() <= depth {
            return verify(intermediates);
        }
        // Given only these, the library can't find a longer chain.
        let near = nearest(parsed, intermediates, depth);
        match (verify(&near), verify(intermediates)) {
            (Err(_), Ok(())) => Err(CertificateError::Other(rustls::OtherError(Arc::new(ChainTooLong)))),
            (within, _) => within,
        }
    }
}

/// The chain has more intermediate certificates than it may have.
#[derive(Debug, thiserror::Error)]
#[error("the chain is too long")]
struct ChainTooLong;

/// The first certificates of the chain from a leaf, each the issuer of the one before it.
fn nearest<'a>(
    leaf: &X509Certificate<'_>,
    intermediates: &[CertificateDer<'a>],
    depth: usize,
) -> Vec<CertificateDer<'a>> {
    let parsed: Vec<_> = intermediates.iter().map(|der| X509Certificate::from_der(der).map(|(_, one)| one)).collect();
    let mut issuer = leaf.issuer().as_raw().to_vec();
    let mut near = Vec::new();
    while near.len() < depth {
        let next = parsed.iter().position(|one| one.as_ref().is_ok_and(|one| one.subject().as_raw() == issuer));
        let Some((at, Ok(one))) = next.map(|at| (at, &parsed[at])) else { break };
        near.push(intermediates[at].clone());
        issuer = one.issuer().as_raw().to_vec();
    }
    near
}

/// OpenSSL's text, where it has the same error.
fn reason(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "certificate is not yet valid",
        CertificateError::Revoked => "certificate revoked",
        CertificateError::UnknownIssuer => "unable to verify the first certificate",
        CertificateError::BadSignature => "certificate signature failure",
        CertificateError::UnknownRevocationStatus => "unable to get certificate CRL",
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            "CRL has expired"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "unsuitable certificate purpose"
        }
        CertificateError::Other(other) if other.0.is::<ChainTooLong>() => "certificate chain too long",
        _ => "certificate rejected",
    }
}

/// A connection whose client was asked for a certificate.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The name in the hello, in canonical form; empty for none.
    server_name: Box<[u8]>,
    chain: Vec<CertificateDer<'static>>,
    /// The newest demands, and the result of checking the chain against them.
    checked: RefCell<Option<(Arc<ClientAuth>, Arc<ClientIdentity>)>>,
    policy: Arc<ClientPolicy>,
}

impl Asked {
    /// Keeps the chain that the client presented.
    pub(crate) fn new(policy: Arc<ClientPolicy>, server_name: &[u8], chain: &[CertificateDer<'_>]) -> Self {
        let chain = chain.iter().map(|der| der.clone().into_owned()).collect();
        Self { server_name: server_name.into(), chain, checked: RefCell::default(), policy }
    }

    /// The client's certificate, verified as a host demands. `None` if the host that the client named in its hello demands
    /// something else.
    pub(crate) fn identity(
        &self,
        snapshot: &Snapshot,
        table: &TableName,
        wanted: Option<&Arc<ClientAuth>>,
    ) -> Option<Arc<ClientIdentity>> {
        let named = snapshot.greeted(table, &self.server_name).and_then(|host| host.client_auth());
        let wanted = match (named, wanted) {
            (None, None) => return Some(Arc::default()),
            (Some(named), Some(wanted)) if is_same(named, wanted) => wanted,
            _ => return None,
        };
        let mut checked = self.checked.borrow_mut();
        if let Some((auth, identity)) = &*checked
            && is_same(auth, wanted)
        {
            return Some(identity.clone());
        }
        let identity = if is_same(&self.policy.auth, wanted) {
            self.policy.identity(&self.chain)
        } else {
            ClientPolicy::new(wanted.clone()).identity(&self.chain)
        };
        let identity = Arc::new(identity);
        *checked = Some((wanted.clone(), identity.clone()));
        Some(identity)
    }
}

fn is_same(one: &Arc<ClientAuth>, other: &Arc<ClientAuth>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// Asks for a certificate and accepts any, if the client has its key, or none.
#[derive(Debug)]
struct AnyOfClient {
    /// Whether the handshake fails anyway.
    refuses: bool,
    /// The names of the authorities, by which browsers choose what they offer.
    hints: Vec<DistinguishedName>,
    provider: CryptoProvider,
}

impl ClientCertVerifier for AnyOfClient {
    fn client_auth_mandatory(&self) -> bool {
        self.refuses
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.refuses {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
