//! Certificates, kept up to date, and which host has which.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairway_model::{CertificateName, HostPattern, Resource, ResourceName};
use k8s_openapi::api::core::v1::Secret;

use super::ingresses::{patterns, secret_key};
use super::{Translator, Work};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::ingress::{BackendTls, Part, Parts, build_backend_tls};
use crate::objects::{Object, ObjectKey};
use crate::secret::{self, TlsSecret, certificate_name};

/// One Secret that something refers to.
#[derive(Debug, Default)]
pub(super) struct SecretState {
    /// The Ingresses that refer to it.
    pub(super) parts: Parts,
    /// The newest version that could be used.
    pub(super) good: Option<TlsSecret>,
    pub(super) problem: Option<CertificateProblem>,
    /// The version that `good` and `problem` were read from.
    read: Option<Arc<Secret>>,
    /// The newest version that could be used for anything.
    kept: Option<Arc<Secret>>,
    /// Whether it is the default certificate.
    pub(super) pinned: bool,
}

/// Why the newest version of a Secret isn't used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum CertificateProblem {
    Missing,
    Unusable(String),
}

impl SecretState {
    pub(super) fn pinned() -> Self {
        Self { pinned: true, ..Self::default() }
    }
}

/// What was decided about the certificate of one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice {
    /// Whether the host has an entry at all, if only for the default certificate: `ssl-redirect` needs one.
    pub(super) entry: bool,
    /// The certificate, if it isn't the default one.
    pub(super) certificate: Option<CertificateName>,
    /// What there is to tell the Ingress that decided.
    pub(super) diagnostic: Option<Box<(ObjectKey, Diagnostic)>>,
}

impl Translator {
    /// Notes the certificates that began or ended to be valid.
    pub(super) fn pass_time(&mut self, now: i64, work: &mut Work) {
        self.now = self.now.max(now);
        while let Some((at, _)) = self.validity.first()
            && *at <= self.now
        {
            let Some((_, key)) = self.validity.pop_first() else { break };
            self.report_users(&key, work);
        }
    }

    pub(super) fn settle_secrets(&mut self, work: &mut Work) {
        for key in std::mem::take(&mut work.secrets) {
            let Some(state) = self.secrets.get_mut(&key) else { continue };
            let was_good = state.good.as_ref().map(|good| good.certificate.clone());
            if state.parts.is_empty() && !state.pinned {
                if was_good.is_some() {
                    work.removals.push(ResourceName::Certificate(certificate_name(&key)));
                }
                if let Some(state) = self.secrets.remove(&key) {
                    forget_turns(&mut self.validity, &key, state.good.as_ref());
                }
                continue;
            }
            let secret = match self.objects.get(&key) {
                Some(Object::Secret(secret)) => Some(secret),
                _ => None,
            };
            let same = match (&state.read, secret) {
                (Some(read), Some(secret)) => Arc::ptr_eq(read, secret),
                (None, None) => state.problem.is_some(),
                _ => false,
            };
            if same {
                continue;
            }
            let problem = match secret.map(|secret| secret::read(&key, secret)) {
                Some(Ok(good)) => {
                    forget_turns(&mut self.validity, &key, state.good.as_ref());
                    let turns = good.turns().into_iter().filter(|at| *at > self.now);
                    self.validity.extend(turns.map(|at| (at, key.clone())));
                    state.good = Some(good);
                    None
                }
                Some(Err(reason)) => Some(CertificateProblem::Unusable(reason)),
                None => Some(CertificateProblem::Missing),
            };
            state.read = secret.cloned();
            let kept = secret.filter(|secret| problem.is_none() || secret::read_backend(&key, secret).is_ok());
            if let Some(secret) = kept {
                state.kept = Some(secret.clone());
            }
            for part in state.parts.values().filter(|part| part.backend_secret.as_deref() == Some(&key)) {
                work.names.extend(patterns(part));
                work.reports.insert(part.key.clone());
            }
            let told_otherwise = state.problem != problem;
            state.problem = problem;
            let good = state.good.as_ref().map(|good| &good.certificate);
            let replaced = was_good.as_ref() != good;
            if let (true, Some(good)) = (replaced, good) {
                work.upserts.push(Resource::Certificate(good.clone()));
            }
            if told_otherwise || replaced {
                work.certificates.extend(state.parts.values().flat_map(|part| patterns(part)));
                self.report_users(&key, work);
            }
        }
    }

    /// What an Ingress says of TLS to backends, if it names a Secret for it.
    pub(super) fn backend_tls(&self, part: &Part) -> Option<BackendTls> {
        let key = part.backend_secret.as_deref()?;
        let Some(kept) = self.secrets.get(key).and_then(|state| state.kept.as_ref()) else {
            let why = match self.secrets.get(key).and_then(|state| state.read.as_deref()) {
                Some(newest) => self.unusable(key, newest).unwrap_or_default(),
                None => format!("there is no Secret {}/{}", key.namespace, key.name),
            };
            return Some(Err(why.into()));
        };
        Some(match secret::read_backend(key, kept) {
            Ok(secret) => build_backend_tls(&part.annotations.backend_tls, key, &secret),
            Err(why) => Err(format!("Secret {}/{}: {why}", key.namespace, key.name).into()),
        })
    }

    /// What there is to tell about the Secret of an Ingress for TLS to backends.
    pub(super) fn report_backend_secret(&self, part: &Part) -> Option<Diagnostic> {
        let key = part.backend_secret.as_deref()?;
        let newest = self.secrets.get(key).and_then(|state| state.read.as_deref());
        let reason = if newest.is_some() { Reason::InvalidSecret } else { Reason::SecretNotFound };
        let missing = || format!("there is no Secret {}/{}", key.namespace, key.name);
        let (severity, message) = match self.backend_tls(part)? {
            Err(why) => (Severity::Error, format!("{why}; all paths of this Ingress answer 503")),
            Ok(_) => {
                let why = newest.map_or_else(|| Some(missing()), |newest| self.unusable(key, newest))?;
                (Severity::Warning, format!("{why}; the last usable version stays in force"))
            }
        };
        let field = format!("metadata.annotations[\"{}/proxy-ssl-secret\"]", self.options.annotations_prefix);
        let value = format!("{}/{}", key.namespace, key.name);
        let found = Diagnostic::new(severity, reason, &part.origin, field, &value, message);
        Some(if severity == Severity::Error { found.unserved() } else { found })
    }

    /// Why a version of a Secret is of no use for TLS to backends.
    fn unusable(&self, key: &ObjectKey, secret: &Secret) -> Option<String> {
        let why = secret::read_backend(key, secret).err()?;
        Some(format!("Secret {}/{}: {why}", key.namespace, key.name))
    }

    /// Everybody who has to be told about a Secret.
    fn report_users(&self, key: &ObjectKey, work: &mut Work) {
        let Some(state) = self.secrets.get(key) else { return };
        work.reports.extend(state.parts.values().map(|part| part.key.clone()));
        if state.pinned {
            work.reports.insert(key.clone());
        }
    }

    /// The certificate of a host: the oldest Ingress of the host that has a `tls` section decides.
    ///
    /// Its entry that lists the host names the Secret. If none does, the first of its Secrets that covers the host counts. What
    /// is missing, broken, or doesn't cover the host means the default certificate.
    pub(super) fn choose(&self, pattern: &HostPattern) -> Choice {
        let parts = self.names.get(pattern).map(|name| &name.parts);
        let decides = parts.and_then(|parts| parts.values().find(|part| !part.tls.is_empty()));
        let Some(part) = decides.filter(|_| *pattern != HostPattern::Any) else { return Choice::default() };
        let by_default = Choice { entry: true, ..Choice::default() };
        let usable = |name: &Arc<str>| self.secrets.get(&secret_key(part, name)).and_then(|state| state.good.as_ref());
        let host = pattern.to_string();
        let listed = part
            .tls
            .iter()
            .position(|tls| tls.hosts.iter().any(|listed| listed.strip_suffix('.').unwrap_or(listed) == host));
        if let Some(at) = listed {
            let Some(good) = part.tls[at].secret.as_ref().and_then(usable) else { return by_default };
            if good.covers(pattern) {
                return Choice { certificate: Some(good.certificate.name.clone()), ..by_default };
            }
            let message = format!(
                "the certificate is for {}, not for host {host}, which gets the default certificate",
                crate::diagnostic::bounded(&good.names())
            );
            let name = part.tls[at].secret.as_deref().unwrap_or_default();
            let field = format!("spec.tls[{at}].secretName");
            let (severity, reason) = (Severity::Warning, Reason::CertificateMismatch);
            let found = Diagnostic::new(severity, reason, &part.origin, field, name, message);
            return Choice { diagnostic: Some(Box::new((part.key.clone(), found))), ..by_default };
        }
        let covering = part.secrets().filter_map(|(_, name)| usable(name)).find(|good| good.covers(pattern));
        Choice { certificate: covering.map(|good| good.certificate.name.clone()), ..by_default }
    }

    /// Whether a certificate that was chosen for one name of a host covers another one.
    pub(super) fn covers(&self, certificate: &CertificateName, pattern: &HostPattern) -> bool {
        let Some((namespace, name)) = certificate.as_str().split_once('/') else { return false };
        let key = ObjectKey::new(crate::objects::Kind::Secret, namespace, name);
        self.secrets.get(&key).and_then(|state| state.good.as_ref()).is_some_and(|good| good.covers(pattern))
    }
}

fn forget_turns(validity: &mut BTreeSet<(i64, ObjectKey)>, key: &ObjectKey, good: Option<&TlsSecret>) {
    for at in good.into_iter().flat_map(TlsSecret::turns) {
        validity.remove(&(at, key.clone()));
    }
}
