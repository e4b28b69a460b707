//! The findings about each object, collected from all stages.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::global::Global;
use crate::config::streams::Streams;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::Dirty;
use crate::engine::part::{Extent, portion};
use crate::gateway::Gateways;
use crate::ingress::{Hosts, Ingresses, Part, Referrer};
use crate::limit;
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::Options;
use crate::report::external_dns;
use crate::resource::backend::{BackendKey, BackendPort};
use crate::resource::secrets::CertificateProblem;
use crate::resource::{Backends, Secrets};

/// The findings as last reported.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    reported: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    waiting: BTreeSet<ObjectKey>,
}

/// The stages that have findings.
#[derive(Clone, Copy)]
pub(crate) struct ReportInputs<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) global: &'a Global,
    pub(crate) streams: &'a Streams,
    pub(crate) ingresses: &'a Ingresses,
    pub(crate) hosts: &'a Hosts,
    pub(crate) gateways: &'a Gateways,
    pub(crate) backends: &'a Backends,
    pub(crate) secrets: &'a Secrets,
    pub(crate) options: &'a Options,
}

impl Reports {
    /// All findings, by object.
    pub(crate) fn all(&self) -> &BTreeMap<ObjectKey, Vec<Diagnostic>> {
        &self.reported
    }

    /// The same, by value.
    pub(crate) fn into_all(self) -> BTreeMap<ObjectKey, Vec<Diagnostic>> {
        self.reported
    }

    /// Whether any objects wait for their turn.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Collects the findings about objects that are due, and returns the objects whose findings have changed.
    pub(crate) fn settle(
        &mut self,
        inputs: ReportInputs<'_>,
        dirty: &mut Dirty,
        extent: Extent,
    ) -> Vec<(ObjectKey, Vec<Diagnostic>)> {
        let mut changes = Vec::new();
        let due = std::mem::take(&mut dirty.reports);
        for key in portion(due, &mut self.waiting, extent.results, extent) {
            let mut now = inputs.report(&key);
            if now.len() > limit::FINDINGS {
                let more = now.len() - limit::FINDINGS;
                now.truncate(limit::FINDINGS);
                let message = format!("{more} more findings about this object");
                now.push(Diagnostic::new(Severity::Warning, Reason::InvalidManifest, &key.origin(), "", "", message));
            }
            now.shrink_to_fit();
            let before = self.reported.get(&key).map(Vec::as_slice).unwrap_or_default();
            if before == now.as_slice() {
                continue;
            }
            if now.is_empty() {
                self.reported.remove(&key);
            } else {
                self.reported.insert(key.clone(), now.clone());
            }
            changes.push((key, now));
        }
        changes
    }
}

impl ReportInputs<'_> {
    fn report(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        match key.kind {
            Kind::Ingress => self.ingress(key),
            Kind::ConfigMap => {
                let mut found = self.global.diagnostics.get(key).cloned().unwrap_or_default();
                found.extend(self.streams.report(key, self.backends));
                found.extend(self.global.report_auth(key, self.backends));
                found
            }
            Kind::Secret => self.default_certificate(key).into_iter().collect(),
            Kind::Service => {
                let mut found: Vec<Diagnostic> = self.default_backend(key).into_iter().collect();
                if let Some(service) = self.objects.service(key) {
                    found.extend(external_dns::finding_of_service(&key.origin(), service));
                }
                found
            }
            Kind::Gateway
            | Kind::ListenerSet
            | Kind::HTTPRoute
            | Kind::GRPCRoute
            | Kind::TLSRoute
            | Kind::TCPRoute
            | Kind::UDPRoute
            | Kind::BackendTLSPolicy
            | Kind::RoutePolicy
            | Kind::XBackend
            | Kind::XBackendTrafficPolicy
            | Kind::XTelemetryPolicy => self.of_gateway_api(key),
            Kind::IngressClass
            | Kind::EndpointSlice
            | Kind::Namespace
            | Kind::GatewayClass
            | Kind::ReferenceGrant
            | Kind::GatewayParameters => Vec::new(),
        }
    }

    fn of_gateway_api(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let mut found = self.gateways.findings(key).to_vec();
        let origin = key.origin();
        for (backend, field) in &*self.gateways.backends(key) {
            found.extend(self.backends.problem(backend).map(|problem| match key.kind {
                Kind::XTelemetryPolicy => problem.of_receiver(&origin, field, backend),
                _ => problem.diagnostic(&origin, field, backend),
            }));
        }
        found
    }

    fn ingress(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let mut found = self.ingresses.rejection(key).to_vec();
        let Some(part) = self.ingresses.part(key) else { return found };
        if !found.is_empty() && !self.ingresses.only_denies(key) {
            let message = "the last version that could be loaded stays in effect";
            found.push(Diagnostic::new(Severity::Info, Reason::LastGoodVersion, &part.origin, "", "", message));
        }
        found.extend(part.diagnostics.iter().cloned());
        found.extend(self.hosts.findings(part).into_iter().cloned());
        for (backend, referrer) in &part.backends {
            if let Some(problem) = self.backends.problem(backend) {
                let field = referrer.field(&self.options.annotations_prefix);
                found.push(match referrer {
                    Referrer::Mirror => problem.of_mirror(&part.origin, &field, backend),
                    _ => problem.diagnostic(&part.origin, &field, backend),
                });
            }
        }
        for (at, key) in part.tls_secrets() {
            found.extend(certificate(self.secrets, &key).map(|(severity, reason, message)| {
                let field = format!("spec.tls[{at}].secretName");
                Diagnostic::new(severity, reason, &part.origin, field, &key.name, message)
            }));
        }
        found.extend(self.backend_secret(part));
        found.extend(self.client_secret(part));
        found.extend(self.user_secret(part));
        found
    }

    /// The finding about an Ingress's Secret for client certificates.
    fn client_secret(&self, part: &Part) -> Option<Diagnostic> {
        let key = part.client_secret.as_deref()?;
        let Err(why) = part.client_auth(self.secrets)? else {
            let (_, why) = self.secrets.problem_for_backends(key)?;
            let message = format!("{why}; the last usable version stays in effect");
            return Some(self.of_secret(part, "auth-tls-secret", key, Severity::Warning, message));
        };
        let message = format!("{why}; what the Ingress has on its hosts answers 503");
        Some(self.of_secret(part, "auth-tls-secret", key, Severity::Error, message).unserved())
    }

    /// The finding about an Ingress's Secret with the users of basic authentication.
    fn user_secret(&self, part: &Part) -> Option<Diagnostic> {
        let key = part.user_secret.as_deref()?;
        if let Err(why) = part.user_auth(self.secrets)? {
            let message = format!("{why}; all paths of this Ingress answer 503");
            return Some(self.of_secret(part, "auth-secret", key, Severity::Error, message).unserved());
        }
        let left_out = part.users_left_out(self.secrets);
        let message = format!("{left_out} users have a hash that can't be checked, so they aren't admitted");
        (left_out > 0).then(|| self.of_secret(part, "auth-secret", key, Severity::Warning, message))
    }

    fn of_secret(&self, part: &Part, name: &str, key: &ObjectKey, severity: Severity, message: String) -> Diagnostic {
        let missing = matches!(self.secrets.problem_for_backends(key), Some((CertificateProblem::Missing, _)));
        let reason = if missing { Reason::SecretNotFound } else { Reason::InvalidSecret };
        let field = format!("metadata.annotations[\"{}/{name}\"]", self.options.annotations_prefix);
        Diagnostic::new(severity, reason, &part.origin, field, &format!("{}/{}", key.namespace, key.name), message)
    }

    /// The findings about an Ingress's Secret for TLS to backends.
    fn backend_secret(&self, part: &Part) -> Option<Diagnostic> {
        let key = part.backend_secret.as_deref()?;
        let newest = self.secrets.problem_for_backends(key);
        let found = |severity, message| self.of_secret(part, "proxy-ssl-secret", key, severity, message);
        match (part.backend_tls(self.secrets)?, newest) {
            (Err(why), _) => {
                let message = format!("{why}; all paths of this Ingress answer 503");
                Some(found(Severity::Error, message).unserved())
            }
            (Ok(_), Some((_, why))) => {
                Some(found(Severity::Warning, format!("{why}; the last usable version stays in effect")))
            }
            (Ok(_), None) => None,
        }
    }

    fn default_certificate(&self, key: &ObjectKey) -> Option<Diagnostic> {
        self.secrets.standing(key).filter(|standing| standing.is_default)?;
        let (severity, reason, message) = certificate(self.secrets, key)?;
        let message = format!("default certificate: {message}");
        Some(Diagnostic::new(severity, reason, &key.origin(), "", "", message))
    }

    fn default_backend(&self, key: &ObjectKey) -> Option<Diagnostic> {
        let (namespace, service) = self.options.default_backend_service.as_ref()?;
        let backend = BackendKey::new(key.namespace.clone(), &key.name, BackendPort::First);
        let is_default = *key.namespace == **namespace && *key.name == **service;
        let problem = self.backends.problem(&backend).filter(|_| is_default)?;
        Some(problem.diagnostic(&key.origin(), "", &backend))
    }
}

/// The findings about the certificate of a Secret.
fn certificate(secrets: &Secrets, key: &ObjectKey) -> Option<(Severity, Reason, String)> {
    let state = secrets.standing(key)?;
    let instead = match (state.good, state.is_default) {
        (Some(_), _) => "the last usable version is served, where ingress-nginx would serve the default certificate",
        (None, false) => "the default certificate is served",
        (None, true) => "a self-signed certificate is served",
    };
    match state.problem {
        Some(CertificateProblem::Missing) => {
            let message = format!("there is no Secret {}/{}; {instead}", key.namespace, key.name);
            return Some((Severity::Warning, Reason::SecretNotFound, message));
        }
        Some(CertificateProblem::Unusable(why)) => {
            let message = format!("Secret {}/{}: {why}; {instead}", key.namespace, key.name);
            return Some((Severity::Error, Reason::InvalidSecret, message));
        }
        None => {}
    }
    let good = state.good?;
    let warning = |reason, message: &str| Some((Severity::Warning, reason, message.to_owned()));
    if good.not_after < state.now {
        warning(Reason::CertificateExpired, "the certificate has expired, but is still served")
    } else if good.not_before > state.now {
        warning(Reason::CertificateExpired, "the certificate is not valid yet, but is served")
    } else if good.is_version_1 {
        let message = "the certificate is of X.509 version 1, which has no subject alternative names: it is served, and clients \
                       that check certificates refuse it";
        warning(Reason::CertificateMismatch, message)
    } else if !good.has_alternative_names {
        let message = "the certificate has no subject alternative name, only a common name, which clients ignore";
        warning(Reason::CertificateMismatch, message)
    } else {
        None
    }
}
