//! TLS to backends, from the annotations `proxy-ssl-*` and the Secret that they name.
//!
//! If a requested check is impossible, access is denied: omitting the check would be a security hole.

use std::sync::Arc;

use fairway_model::{TlsVersions, Trust, UpstreamTls};

use crate::annotation;
use crate::objects::ObjectKey;
use crate::resource::certificate::{BackendSecret, certificate_name};
use crate::value::Switch;

/// TLS to backends, or why it is impossible.
pub(crate) type TlsPolicy = Result<Arc<UpstreamTls>, Box<str>>;

/// Combines the annotations with the Secret.
pub(super) fn build(annotations: &annotation::BackendTls, key: &ObjectKey, secret: &BackendSecret) -> TlsPolicy {
    let verify = annotations.verify == Some(Switch::On);
    let trust = match (&secret.authorities, verify) {
        (Some(authorities), true) => Trust::Authorities(authorities.clone()),
        (None, true) => {
            let why = format!("proxy-ssl-verify is on, and Secret {}/{} has no ca.crt", key.namespace, key.name);
            return Err(why.into());
        }
        (_, false) => Trust::Anyone,
    };
    let certificate = secret.has_certificate.then(|| certificate_name(key));
    let mut tls = UpstreamTls { trust, client_certificate: certificate, ..UpstreamTls::default() };
    // ingress-nginx's template sets name and versions only if there is a ca.crt.
    if secret.authorities.is_some() {
        tls.name = annotations.name.as_ref().map(|name| name.as_str().into());
        tls.sni = tls.name.is_some() && annotations.server_name == Some(Switch::On);
        tls.versions = annotations.protocols.map_or(TlsVersions::Tls12, |protocols| protocols.0);
        tls.ciphers = annotations.ciphers.as_ref().map(|named| named.ciphers.clone()).unwrap_or_default();
    }
    Ok(tls.into())
}
