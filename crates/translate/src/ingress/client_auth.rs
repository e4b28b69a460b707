//! Client certificates, from the annotations `auth-tls-*` and the Secret that they name.
//!
//! If a requested check is impossible, access is denied.

use std::sync::Arc;

use fairway_model::{CertificateErrorPage, ClientAuthMode};

use crate::annotation::ClientCertificates;
use crate::objects::ObjectKey;
use crate::resource::certificate::BackendSecret;
use crate::value::VerifyClient;

/// What a host demands of clients, or why that is impossible.
pub(crate) type ClientAuth = Result<Arc<fairway_model::ClientAuth>, Box<str>>;

/// Combines the annotations with the Secret. `None` if no certificate is requested.
pub(super) fn build(
    annotations: &ClientCertificates,
    key: &ObjectKey,
    secret: Result<&BackendSecret, String>,
) -> Option<ClientAuth> {
    let mode = match annotations.verify {
        None | Some(VerifyClient::On) => ClientAuthMode::Required,
        Some(VerifyClient::Optional) => ClientAuthMode::Optional,
        Some(VerifyClient::OptionalNoCa) => ClientAuthMode::AnyAuthority,
        Some(VerifyClient::Off) => return None,
    };
    let build = || -> Result<_, Box<str>> {
        let secret = secret?;
        let named = |why: &str| format!("Secret {}/{}: {why}", key.namespace, key.name);
        let authorities = secret.authorities.clone().ok_or_else(|| named("expected the key ca.crt"))?;
        let revocation_lists = secret.revocation_lists.clone().map_err(|why| named(&why))?;
        let subject = annotations.subject.as_ref().map(|pattern| pattern.as_str().parse()).transpose();
        Ok(Arc::new(fairway_model::ClientAuth {
            mode,
            authorities,
            revocation_lists,
            depth: annotations.depth.filter(|depth| *depth > 0).unwrap_or(1),
            subject: subject.map_err(|_| "auth-tls-match-cn can't be read")?,
            error_page: annotations.error_page.as_ref().map(|page| match page.as_str() {
                path if path.starts_with('/') => CertificateErrorPage::Path(path.into()),
                url => CertificateErrorPage::Url(url.into()),
            }),
            passes_certificate: annotations.pass_certificate.unwrap_or(false),
            in_handshake: false,
        }))
    };
    Some(build())
}
