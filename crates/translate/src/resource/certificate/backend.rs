//! The contents of a Secret for TLS to backends or for client certificates: authorities, a certificate of our own, or both.

use std::sync::Arc;

use fairway_model::Authority;
use k8s_openapi::api::core::v1::Secret;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{Unusable, field};
use crate::limit;

/// A Secret for TLS to backends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BackendSecret {
    /// The accepted authorities; `None` without `ca.crt`.
    pub(crate) authorities: Option<Arc<[Authority]>>,
    /// Whether there is a client certificate.
    pub(crate) has_certificate: bool,
    /// The contents of `ca.crl`.
    pub(crate) revocation_lists: Result<Arc<[Authority]>, Unusable>,
}

/// Reads a Secret with `ca.crt`, or with `tls.crt` and `tls.key`, or all of them. Everything in it must be usable; `certificate` says
/// whether its certificate is.
pub(crate) fn read(secret: &Secret, certificate: Result<(), &str>) -> Result<BackendSecret, Unusable> {
    let authorities = field(secret, "ca.crt").map(authorities).transpose()?;
    let has_certificate = field(secret, "tls.crt").is_some() || field(secret, "tls.key").is_some();
    if has_certificate {
        certificate?;
    } else if authorities.is_none() {
        return Err("expected the key ca.crt, or tls.crt and tls.key".into());
    }
    let revocation_lists = field(secret, "ca.crl").map_or_else(|| Ok(Arc::default()), revocation_lists);
    Ok(BackendSecret { authorities, has_certificate, revocation_lists })
}

fn revocation_lists(pem: &[u8]) -> Result<Arc<[Authority]>, Unusable> {
    let mut found = Vec::new();
    for list in CertificateRevocationListDer::pem_slice_iter(pem) {
        let list = list.map_err(|_| "ca.crl holds no revocation lists in PEM form".to_owned())?;
        if !CertificateRevocationList::from_der(&list).is_ok_and(|(rest, _)| rest.is_empty()) {
            return Err("ca.crl holds a malformed revocation list".into());
        }
        if found.len() == limit::AUTHORITIES {
            return Err(format!("ca.crl holds more than {} revocation lists", limit::AUTHORITIES));
        }
        found.push(Authority::new(list.as_ref()));
    }
    if found.is_empty() { Err("ca.crl holds no revocation list".into()) } else { Ok(found.into()) }
}

/// The certificates of authorities.
pub(crate) fn authorities(pem: &[u8]) -> Result<Arc<[Authority]>, Unusable> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "ca.crt holds no certificates in PEM form".to_owned())?;
        if !X509Certificate::from_der(&certificate).is_ok_and(|(rest, _)| rest.is_empty()) {
            return Err("ca.crt holds a malformed certificate".into());
        }
        if found.len() == limit::AUTHORITIES {
            return Err(format!("ca.crt holds more than {} certificates", limit::AUTHORITIES));
        }
        found.push(Authority::new(certificate.as_ref()));
    }
    if found.is_empty() { Err("ca.crt holds no certificate".into()) } else { Ok(found.into()) }
}
