//! What there is to tell about each object, put together from everything that was found.

use std::collections::BTreeSet;

use fairway_model::HostPattern;

use super::certificates::CertificateProblem;
use super::ingresses::secret_key;
use super::part::{Extent, portion};
use super::{Translator, Work};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::external_dns;
use crate::ingress::Part;
use crate::limit;
use crate::objects::{Kind, Object, ObjectKey};
use crate::service::{BackendKey, BackendPort};

impl Translator {
    pub(super) fn settle_reports(&mut self, work: &mut Work, extent: Extent) -> Vec<(ObjectKey, Vec<Diagnostic>)> {
        let mut changes = Vec::new();
        let due = std::mem::take(&mut work.reports);
        for key in portion(due, &mut self.waiting.reports, extent.results, extent) {
            let mut now = self.report(&key);
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

    fn report(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        match key.kind {
            Kind::Ingress => self.report_ingress(key),
            Kind::ConfigMap => self.report_config_map(key),
            Kind::Secret => self.report_default_certificate(key),
            Kind::Service => self.report_service(key),
            Kind::IngressClass | Kind::EndpointSlice | Kind::Namespace => Vec::new(),
        }
    }

    fn report_config_map(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let mut found = self.global.diagnostics.get(key).cloned().unwrap_or_default();
        found.extend(self.report_streams(key));
        found
    }

    fn report_ingress(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let Some(state) = self.ingresses.get(key) else { return Vec::new() };
        let mut found = state.rejection.clone();
        let Some(part) = &state.part else { return found };
        if !found.is_empty() {
            let message = "the last version that could be loaded stays in force";
            found.push(Diagnostic::new(Severity::Info, Reason::LastGoodVersion, &part.origin, "", "", message));
        }
        found.extend(part.diagnostics.iter().cloned());
        let mut names: BTreeSet<&HostPattern> = part.hosts.iter().map(|rules| &rules.pattern).collect();
        if part.catch_all {
            names.insert(&HostPattern::Any);
        }
        for name in &names {
            let state = self.names.get(*name);
            found.extend(state.and_then(|state| state.rare.diagnostics.get(key)).into_iter().flatten().cloned());
        }
        let claimed: BTreeSet<&HostPattern> =
            names.iter().filter_map(|name| self.names.get(*name)).flat_map(|state| state.claimed_names()).collect();
        for name in claimed {
            let state = self.names.get(name);
            found.extend(state.and_then(|state| state.rare.claim_diagnostics.get(key)).into_iter().flatten().cloned());
        }
        for (backend, referrer) in &part.backends {
            if let Some(problem) = self.backends.get(backend).and_then(|state| state.problem.as_ref()) {
                let field = referrer.field(&self.options.annotations_prefix);
                found.push(problem.diagnostic(&part.origin, &field, backend));
            }
        }
        for (at, name) in part.secrets() {
            found.extend(self.report_secret(part, at, &secret_key(part, name)));
        }
        found.extend(self.report_backend_secret(part));
        found
    }

    fn report_secret(&self, part: &Part, at: usize, key: &ObjectKey) -> Option<Diagnostic> {
        let field = format!("spec.tls[{at}].secretName");
        let (severity, reason, message) = self.secret_finding(key)?;
        Some(Diagnostic::new(severity, reason, &part.origin, field, &key.name, message))
    }

    fn secret_finding(&self, key: &ObjectKey) -> Option<(Severity, Reason, String)> {
        let state = self.secrets.get(key)?;
        let instead = match (&state.good, state.pinned) {
            (Some(_), _) => {
                "the last usable version is served, where ingress-nginx would serve the default certificate"
            }
            (None, false) => "the default certificate is served",
            (None, true) => "a self-signed certificate is served",
        };
        match &state.problem {
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
        let good = state.good.as_ref()?;
        let warning = |reason, message: &str| Some((Severity::Warning, reason, message.to_owned()));
        if good.not_after < self.now {
            warning(Reason::CertificateExpired, "the certificate has expired; it is served all the same")
        } else if good.not_before > self.now {
            warning(Reason::CertificateExpired, "the certificate is not valid yet; it is served all the same")
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

    fn report_default_certificate(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let pinned = self.secrets.get(key).is_some_and(|state| state.pinned);
        let finding = self.secret_finding(key).filter(|_| pinned);
        let diagnostic = finding.map(|(severity, reason, message)| {
            Diagnostic::new(severity, reason, &key.origin(), "", "", format!("default certificate: {message}"))
        });
        diagnostic.into_iter().collect()
    }

    fn report_service(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let mut found = self.report_default_backend(key);
        if let Some(Object::Service(service)) = self.objects.get(key) {
            found.extend(external_dns::finding_of_service(&key.origin(), service));
        }
        found
    }

    fn report_default_backend(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let backend = BackendKey::new(key.namespace.clone(), &key.name, BackendPort::First);
        let is_default = self.default_backend.as_ref() == Some(&backend.name());
        let problem = self.backends.get(&backend).filter(|_| is_default).and_then(|state| state.problem.as_ref());
        problem.map(|problem| problem.diagnostic(&key.origin(), "", &backend)).into_iter().collect()
    }
}
