//! TLS of a whole Gateway: the client certificates that its HTTPS listeners demand, and the certificate that it presents to backends.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairway_model::{Authority, ClientAuth, ClientAuthMode};

use super::api::{FrontendValidation, Gateway, ObjectReference};
use super::backend_tls::of_config_map;
use super::grant;
use super::status::Shortcoming;
use crate::objects::{Kind, ObjectKey, Objects};

/// What the HTTPS listeners on a port demand of clients.
#[derive(Default)]
pub(super) struct Frontend {
    pub(super) auth: Option<Arc<ClientAuth>>,
    /// The first reference that can't be followed.
    pub(super) unresolved: Option<Shortcoming>,
    /// Why no client can be admitted; `auth` then refuses all of them.
    pub(super) fault: Option<Shortcoming>,
}

/// Reads what the listeners on a port demand.
pub(super) fn frontend(gateway: &Gateway, port: i32, objects: &Objects) -> Frontend {
    let mut read = Frontend::default();
    let Some((field, validation)) = validation(gateway, port) else { return read };
    let mode = match validation.mode.as_deref() {
        None | Some("AllowValidOnly") => ClientAuthMode::Required,
        Some("AllowInsecureFallback") => ClientAuthMode::Unverified,
        Some(other) => {
            let message = format!("{field}.mode: expected AllowValidOnly or AllowInsecureFallback, found {other}");
            read.fault = Some(Shortcoming::new("UnsupportedValue", message));
            ClientAuthMode::Required
        }
    };
    let mut authorities: Vec<Authority> = Vec::new();
    for (at, one) in validation.ca_certificate_refs.iter().enumerate() {
        let field = format!("{field}.caCertificateRefs[{at}]");
        let found = config_map(gateway, one, objects).and_then(|key| {
            of_config_map(&key, objects).map_err(|why| Shortcoming::new("InvalidCACertificateRef", why))
        });
        match found {
            Ok(found) => authorities.extend(found.iter().cloned()),
            Err(fault) => {
                let fault = Shortcoming::new(fault.reason, format!("{field}: {}", fault.message));
                read.unresolved.get_or_insert(fault);
            }
        }
    }
    if read.fault.is_some() {
        authorities.clear();
    } else if authorities.is_empty() {
        let message = format!("{field}: no CA certificate is usable, so every client would be refused");
        read.fault = Some(Shortcoming::new("NoValidCACertificate", message));
    }
    // Without an authority no certificate is valid.
    let mode = if authorities.is_empty() { ClientAuthMode::Required } else { mode };
    read.auth = Some(Arc::new(ClientAuth {
        mode,
        authorities: authorities.into(),
        revocation_lists: Arc::default(),
        depth: u32::MAX,
        subject: None,
        error_page: None,
        passes_certificate: false,
        in_handshake: mode == ClientAuthMode::Required,
    }));
    read
}

/// Whether clients without a valid certificate are admitted on some port.
pub(super) fn is_insecure(gateway: &Gateway) -> bool {
    let is_insecure =
        |(_, validation): (String, &FrontendValidation)| validation.mode.as_deref() == Some("AllowInsecureFallback");
    all(gateway).into_iter().any(is_insecure)
}

/// The ConfigMaps that a Gateway names and may refer to.
pub(super) fn config_maps(gateway: &Gateway, objects: &Objects) -> BTreeSet<ObjectKey> {
    let references = all(gateway).into_iter().flat_map(|(_, validation)| &validation.ca_certificate_refs);
    references.filter_map(|one| config_map(gateway, one, objects).ok()).collect()
}

/// The Secret with the certificate to present to backends.
pub(super) fn client_certificate(gateway: &Gateway, objects: &Objects) -> Option<Result<ObjectKey, Shortcoming>> {
    let reference = gateway.spec.tls.as_ref()?.backend.as_ref()?.client_certificate_ref.as_ref()?;
    let field = "spec.tls.backend.clientCertificateRef";
    let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
    let target = reference.namespace.as_deref().unwrap_or(namespace);
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    Some(if !reference.group.as_deref().unwrap_or_default().is_empty() || kind != "Secret" {
        let message = format!("{field}: expected a Secret, found {kind} {}", reference.name);
        Err(Shortcoming::new("InvalidClientCertificateRef", message))
    } else if !grant::permits(
        objects,
        (Kind::Gateway, namespace),
        &ObjectKey::new(Kind::Secret, target, &*reference.name),
    ) {
        let message = format!(
            "{field}: no ReferenceGrant in namespace {target} lets Gateways of {namespace} refer to Secret {}",
            reference.name
        );
        Err(Shortcoming::new("RefNotPermitted", message))
    } else {
        Ok(ObjectKey::new(Kind::Secret, target, &*reference.name))
    })
}

/// The validation for a port, and its field: an entry for the port replaces the default for all ports.
fn validation(gateway: &Gateway, port: i32) -> Option<(String, &FrontendValidation)> {
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    match frontend.per_port.iter().position(|one| one.port == port) {
        Some(at) => {
            let own = frontend.per_port[at].tls.as_ref()?.validation.as_ref()?;
            Some((format!("spec.tls.frontend.perPort[{at}].tls.validation"), own))
        }
        None => {
            Some(("spec.tls.frontend.default.validation".to_owned(), frontend.default.as_ref()?.validation.as_ref()?))
        }
    }
}

fn all(gateway: &Gateway) -> Vec<(String, &FrontendValidation)> {
    let ports = gateway.spec.tls.iter().flat_map(|tls| &tls.frontend).flat_map(|frontend| &frontend.per_port);
    // No listener has port 0, so it stands for the default.
    ports.map(|one| one.port).chain([0]).filter_map(|port| validation(gateway, port)).collect()
}

fn config_map(gateway: &Gateway, one: &ObjectReference, objects: &Objects) -> Result<ObjectKey, Shortcoming> {
    let kind = one.kind.as_deref().unwrap_or_default();
    if !one.group.as_deref().unwrap_or_default().is_empty() || kind != "ConfigMap" {
        let message = format!("expected a ConfigMap, found {kind} {}", one.name);
        return Err(Shortcoming::new("InvalidCACertificateKind", message));
    }
    let own = gateway.metadata.namespace.as_deref().unwrap_or_default();
    let namespace = one.namespace.as_deref().unwrap_or(own);
    if !grant::permits(objects, (Kind::Gateway, own), &ObjectKey::new(Kind::ConfigMap, namespace, &*one.name)) {
        let message = format!(
            "no ReferenceGrant in namespace {namespace} lets Gateways of {own} refer to ConfigMap {}",
            one.name
        );
        return Err(Shortcoming::new("RefNotPermitted", message));
    }
    Ok(ObjectKey::new(Kind::ConfigMap, namespace, &*one.name))
}
