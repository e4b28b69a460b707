//! Certificates from TLS Secrets: parsed, checked against their keys, and matched with hosts.

mod backend;
mod key;

use std::sync::Arc;

use fairway_model::{Certificate, CertificateName, HostPattern, PrivateKey};
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;

pub(crate) use self::backend::{BackendSecret, authorities, read as read_backend};
use crate::limit;
use crate::objects::ObjectKey;

/// A usable certificate and its properties.
#[derive(Clone, Debug)]
pub(crate) struct TlsSecret {
    pub(crate) certificate: Arc<Certificate>,
    /// Lower case; the common name if there is no subject alternative name.
    names: Vec<Box<str>>,
    /// Whether the names are subject alternative names, the only ones that clients check (RFC 9525).
    pub(crate) has_alternative_names: bool,
    /// Whether it is X.509 version 1, which has no extensions: the output of `openssl x509 -req`.
    pub(crate) is_version_1: bool,
    /// The kind of its key: the object identifier of the algorithm.
    pub(crate) key_kind: Box<str>,
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// The sizes of RSA keys that the TLS library accepts, in bits.
// No limit of ours.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a Secret has no usable certificate, as the end of a sentence.
pub(crate) type Unusable = String;

/// The name of the certificate in a Secret.
pub(crate) fn certificate_name(key: &ObjectKey) -> CertificateName {
    format!("{}/{}", key.namespace, key.name).into()
}

/// Reads a Secret with `tls.crt` and `tls.key`.
pub(crate) fn read(key: &ObjectKey, secret: &Secret) -> Result<TlsSecret, Unusable> {
    let (Some(chain), Some(private)) = (field(secret, "tls.crt"), field(secret, "tls.key")) else {
        return Err("expected the keys tls.crt and tls.key".into());
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .take(limit::CHAIN + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| "tls.crt holds no certificates in PEM form".to_owned())?;
    let Some(leaf) = chain.first() else { return Err("tls.crt holds no certificate".into()) };
    if chain.len() > limit::CHAIN {
        return Err(format!("tls.crt holds more than {} certificates", limit::CHAIN));
    }
    let private = PrivateKeyDer::from_pem_slice(private)
        .map_err(|_| "tls.key holds no private key in PEM form; encrypted ones can't be used".to_owned())?;
    let pkcs8 = key::pkcs8(&private).ok_or("tls.key holds a private key of an unknown kind")?;
    let (rest, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| "tls.crt holds a malformed certificate".to_owned())?;
    if !rest.is_empty() {
        return Err("tls.crt holds a malformed certificate".into());
    }
    check_fit(&chain, &pkcs8, &parsed)?;
    let (names, has_alternative_names) = names(&parsed);
    let (not_before, not_after) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let fingerprint = fingerprint(leaf);
    let certificate = Certificate {
        name: certificate_name(key),
        origin: key.origin(),
        fingerprint: fingerprint.into(),
        not_after,
        chain: chain.iter().map(|link| Arc::from(link.as_ref())).collect(),
        key: PrivateKey::new(pkcs8),
    };
    let is_version_1 = parsed.version() != X509Version::V3;
    Ok(TlsSecret {
        certificate: certificate.into(),
        names,
        has_alternative_names,
        is_version_1,
        key_kind: parsed.public_key().algorithm.algorithm.to_id_string().into(),
        not_before,
        not_after,
    })
}

/// A non-empty key of a Secret.
fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(name).map(|bytes| bytes.0.as_slice()).filter(|bytes| !bytes.is_empty())
}

impl TlsSecret {
    /// Whether clients that ask for a host of this pattern would accept the certificate: by the exact name, or by a wildcard of
    /// one label (RFC 9525 section 6.3).
    pub(crate) fn covers(&self, pattern: &HostPattern) -> bool {
        let has = |wanted: &str| self.names.iter().any(|name| **name == *wanted);
        let wildcard = |parent: &str| {
            self.names.iter().any(|name| name.strip_prefix("*.").is_some_and(|covered| covered == parent))
        };
        match pattern {
            HostPattern::Exact(name) => has(name.as_str()) || name.parent().is_some_and(wildcard),
            HostPattern::Label(parent) | HostPattern::Subdomains(parent) => wildcard(parent.as_str()),
            HostPattern::AnySuffix(_) | HostPattern::Regex(_) | HostPattern::Any => false,
        }
    }

    /// The times when it becomes valid and when it expires.
    pub(crate) fn turns(&self) -> [i64; 2] {
        [self.not_before, self.not_after.saturating_add(1)]
    }

    /// The names that it covers, for a message.
    pub(crate) fn names(&self) -> String {
        match self.names.len() {
            0 => "no name".to_owned(),
            1..=5 => self.names.join(", "),
            more => format!("{} and {} more", self.names[..5].join(", "), more - 5),
        }
    }
}

fn names(certificate: &X509Certificate<'_>) -> (Vec<Box<str>>, bool) {
    let mut names: Vec<Box<str>> = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase().into()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|address| address.to_string().into())),
                _ => {}
            }
        }
        return (names, true);
    }
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.extend(common.map(|name| name.to_ascii_lowercase().into()));
    (names, false)
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}

fn check_fit(chain: &[CertificateDer<'static>], pkcs8: &[u8], leaf: &X509Certificate<'_>) -> Result<(), Unusable> {
    let provider: CryptoProvider = default_provider();
    let key = PrivateKeyDer::Pkcs8(pkcs8.to_vec().into());
    let mismatch = || Err("the certificate does not belong to the key".into());
    if leaf.version() != X509Version::V3 {
        // rustls parses only certificates of version 3, because it is a client too. To serve a certificate, it needn't parse it.
        let key =
            provider.key_provider.load_private_key(key).ok().and_then(|key| key.public_key().map(|key| key.to_vec()));
        return match key {
            Some(key) if key == leaf.public_key().raw => Ok(()),
            Some(_) => mismatch(),
            None => Err("tls.key holds a private key that can't be used".into()),
        };
    }
    match CertifiedKey::from_der(chain.to_vec(), key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => mismatch(),
        Err(_) => Err(match leaf.public_key().parsed() {
            Ok(PublicKey::RSA(rsa)) if !RSA_BITS.contains(&rsa.key_size()) => {
                let (bits, least, most) = (rsa.key_size(), RSA_BITS.start(), RSA_BITS.end());
                format!("tls.key holds an RSA key of {bits} bits: expected {least} to {most}")
            }
            _ => "tls.key holds a private key that can't be used".to_owned(),
        }),
    }
}

/// SHA-256 in hexadecimal. The hash comes with the cipher suites, so no crate is needed for it.
fn fingerprint(der: &[u8]) -> String {
    let suite = cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("a cipher suite of TLS 1.3");
    let digest = suite.common.hash_provider.hash(der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
