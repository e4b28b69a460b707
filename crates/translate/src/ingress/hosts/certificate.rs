//! The certificate of each host, and whether the host has an entry for one at all.

use std::collections::BTreeSet;
use std::sync::Arc;

use fairway_model::{CertificateName, HostPattern};

use super::Hosts;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::objects::ObjectKey;
use crate::resource::Secrets;

/// The choice of certificate for one host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice {
    /// Whether the host has an entry at all, if only for the default certificate: `ssl-redirect` needs one.
    pub(super) entry: bool,
    /// The certificate, if it isn't the default one.
    pub(super) certificate: Option<CertificateName>,
    /// Another certificate, with another kind of key, for clients that can't verify the first.
    pub(super) alternative: Option<CertificateName>,
    /// The finding for the Ingress that decided.
    pub(super) diagnostic: Option<Box<(ObjectKey, Diagnostic)>>,
}

impl Hosts {
    /// Chooses the certificates of hosts. Returns the hosts that are due, and those whose choice has changed.
    pub(super) fn settle_choices(
        &mut self,
        mut due: BTreeSet<HostPattern>,
        certificates: BTreeSet<HostPattern>,
        secrets: &Secrets,
    ) -> BTreeSet<HostPattern> {
        let patterns: BTreeSet<HostPattern> = due.union(&certificates).cloned().collect();
        for pattern in patterns {
            let choice = self.choose(&pattern, secrets);
            let choice = Choice { alternative: self.alternative(&pattern, &choice, secrets), ..choice };
            let Some(state) = self.names.get_mut(&pattern) else { continue };
            if state.choice == choice {
                // A changed certificate may cover other names of the host than before.
                if !state.rare.claimed.is_empty() {
                    due.insert(pattern);
                }
                continue;
            }
            let turned = state.choice.entry != choice.entry;
            state.choice = choice;
            if let (HostPattern::Label(parent), true) = (&pattern, turned) {
                let below = self
                    .names
                    .keys()
                    .filter(|name| matches!(name, HostPattern::Exact(name) if name.parent() == Some(parent.as_str())));
                due.extend(below.cloned());
            }
            due.insert(pattern);
        }
        due
    }

    /// The certificate of a host: the oldest Ingress of the host that has a `tls` section decides.
    ///
    /// Its entry that lists the host names the Secret. If none does, the first of its Secrets that covers the host counts. A Secret
    /// that is missing, broken, or doesn't cover the host means the default certificate.
    fn choose(&self, pattern: &HostPattern, secrets: &Secrets) -> Choice {
        let parts = self.names.get(pattern).map(|name| &name.parts);
        let decides = parts.and_then(|parts| parts.values().find(|part| !part.tls.is_empty()));
        let Some(part) = decides.filter(|_| *pattern != HostPattern::Any) else { return Choice::default() };
        let by_default = Choice { entry: true, ..Choice::default() };
        let usable = |name: &Arc<str>| secrets.good(&part.secret_key(name));
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
            return Choice { diagnostic: Some(Box::new((part.key().clone(), found))), ..by_default };
        }
        let covering = part.tls_secrets().filter_map(|(_, key)| secrets.good(&key)).find(|good| good.covers(pattern));
        Choice { certificate: covering.map(|good| good.certificate.name.clone()), ..by_default }
    }

    /// The certificate beside the chosen one: the first that covers the host and has another kind of key, among the Secrets of all
    /// Ingresses of the host, oldest first.
    fn alternative(&self, pattern: &HostPattern, choice: &Choice, secrets: &Secrets) -> Option<CertificateName> {
        let chosen = choice.certificate.as_ref()?;
        let kind = &secrets.good_by_name(chosen)?.key_kind;
        let parts = &self.names.get(pattern)?.parts;
        let keys = parts.values().flat_map(|part| part.tls_secrets());
        let mut good = keys.filter_map(|(_, key)| secrets.good(&key));
        good.find(|good| good.key_kind != *kind && good.covers(pattern)).map(|good| good.certificate.name.clone())
    }

    /// Whether a certificate entry exists for this name, its own or that of the wildcard that covers it.
    pub(super) fn has_entry(&self, pattern: &HostPattern) -> bool {
        self.names.get(pattern).is_some_and(|state| state.choice.entry) || self.has_wildcard_entry(pattern)
    }

    pub(super) fn has_wildcard_entry(&self, pattern: &HostPattern) -> bool {
        let HostPattern::Exact(name) = pattern else { return false };
        let Some(parent) = name.parent().and_then(|parent| parent.parse().ok()) else { return false };
        self.names.get(&HostPattern::Label(parent)).is_some_and(|state| state.choice.entry)
    }

    /// The certificate for another name of a host: the host's own if it covers the name, otherwise the first that does among all Secrets in
    /// `spec.tls` of the host's Ingresses.
    pub(super) fn certificate_for(
        &self,
        pattern: &HostPattern,
        primary: &HostPattern,
        secrets: &Secrets,
    ) -> Option<CertificateName> {
        let state = self.names.get(primary)?;
        let chosen = state.choice.certificate.clone().filter(|certificate| secrets.covers(certificate, pattern));
        chosen.or_else(|| {
            let keys = state.parts.values().flat_map(|part| part.tls_secrets());
            let mut good = keys.filter_map(|(_, key)| secrets.good(&key));
            good.find(|good| good.covers(pattern)).map(|good| good.certificate.name.clone())
        })
    }
}
