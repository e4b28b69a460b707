//! Which Ingresses are in force, in which version.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::HostPattern;

use super::part::{Extent, portion};
use super::{MANY, Translator, Work};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::ingress::{Age, Part, parse};
use crate::objects::{Kind, Object, ObjectKey, StoredIngress};
use crate::standing::{LeftOut, NotOurs, Standing};

/// An Ingress that is ours, or that there is something to tell about.
#[derive(Debug, Default)]
pub(super) struct IngressState {
    /// What is in force.
    pub(super) part: Option<Arc<Part>>,
    /// The newest version that was acceptable when it came.
    good: Option<StoredIngress>,
    /// Why the newest version is not in force.
    pub(super) rejection: Vec<Diagnostic>,
}

impl Translator {
    pub(super) fn settle_ingresses(&mut self, work: &mut Work, extent: Extent) {
        let mut keys = std::mem::take(&mut work.ingresses);
        if work.all_ingresses {
            keys.extend(self.objects.of_kind(Kind::Ingress).map(|(key, _)| key.clone()));
        }
        for namespace in &work.namespaces {
            keys.extend(self.objects.in_namespace(Kind::Ingress, namespace).map(|(key, _)| key.clone()));
        }
        let keys = portion(keys, &mut self.waiting.ingresses, extent.changes, extent);
        // A part has no time for that.
        let many = keys.len() >= MANY && extent.is_whole();
        for key in keys {
            self.update_ingress(key, work);
        }
        if many {
            compact(&mut self.ingresses);
            compact(&mut self.names);
            compact(&mut self.backends);
            self.served = std::mem::take(&mut self.served).into_iter().collect();
        }
    }

    fn update_ingress(&mut self, key: ObjectKey, work: &mut Work) {
        let before = self.ingresses.remove(&key).unwrap_or_default();
        let after = self.read_ingress(&key, before.good);
        if let Some(part) = &before.part {
            self.detach(part, work);
        }
        let was_served = match &after.part {
            Some(part) => {
                self.attach(part, work);
                !self.served.insert(key.clone())
            }
            None => self.served.remove(&key),
        };
        work.served.entry(key.clone()).or_insert(was_served);
        let there = self.objects.get(&key).is_some();
        if there && (after.part.is_none() || !after.rejection.is_empty()) {
            self.left_out.insert(key.clone());
        } else {
            self.left_out.remove(&key);
        }
        work.reports.insert(key.clone());
        if after.part.is_some() || !after.rejection.is_empty() {
            self.ingresses.insert(key, after);
        }
    }

    fn read_ingress(&self, key: &ObjectKey, good: Option<StoredIngress>) -> IngressState {
        let Some(Object::Ingress(stored)) = self.objects.get(key) else { return IngressState::default() };
        let ingress = stored.read();
        if let Err(why) = self.classes.judge(&key.namespace, &ingress, &self.options) {
            return IngressState { rejection: self.notice(key, &why).into_iter().collect(), ..IngressState::default() };
        }
        let sequence = self.objects.sequence(key).unwrap_or(u64::MAX);
        // Also of the last good version.
        let leaving = stored.is_leaving() || self.classes.is_leaving(&key.namespace);
        let read = |ingress| {
            let age = Age::of(&ingress, key, sequence, leaving);
            parse(&ingress, key, age, &self.global.rules, &self.options).map(Arc::new)
        };
        match read(ingress) {
            Ok(part) => IngressState { part: Some(part), good: Some(stored.clone()), rejection: Vec::new() },
            Err(rejection) => {
                let part = good.as_ref().and_then(|good| read(good.read()).ok());
                IngressState { part, good, rejection }
            }
        }
    }

    /// What there is to tell about an Ingress that isn't ours. Of a class that somebody else serves, nothing.
    fn notice(&self, key: &ObjectKey, why: &NotOurs) -> Option<Diagnostic> {
        let ours = &self.options.ingress_class;
        let missing = Reason::IngressClassNotFound;
        let (severity, reason, message) = match why {
            NotOurs::CatchAll => {
                let message = "Ingresses with a default backend are not served (--disable-catch-all)".to_owned();
                (Severity::Warning, Reason::CatchAllDisabled, message)
            }
            // Files hold what somebody tries, rarely all the classes of a cluster: the commands for files say it in their way.
            _ if self.options.development.is_some() => return None,
            NotOurs::ClassMissing { class } if class == ours => {
                let message = "there is no IngressClass of this name, so no controller serves the Ingress".to_owned();
                (Severity::Warning, missing, message)
            }
            NotOurs::ClassMissing { .. } => {
                let message = format!(
                    "there is no IngressClass of this name, so no controller serves the Ingress; ours is {ours}"
                );
                (Severity::Warning, missing, message)
            }
            NotOurs::OtherAnnotation { class, exists: false } if !class.is_empty() => {
                let message = format!(
                    "there is no IngressClass of this name, so only a controller that reads this annotation serves the Ingress; ours is {ours}"
                );
                (Severity::Info, missing, message)
            }
            NotOurs::NoClass | NotOurs::OtherAnnotation { exists: false, .. } => {
                let message = format!("it names no class, so it is not served; ours is {ours} (spec.ingressClassName)");
                (Severity::Info, missing, message)
            }
            _ => return None,
        };
        Some(Diagnostic::new(severity, reason, &key.origin(), why.field(), why.class(), message))
    }

    /// How an Ingress stands with us; `None` if there is none of this name.
    pub fn standing(&self, key: &ObjectKey) -> Option<Standing> {
        let Some(Object::Ingress(stored)) = self.objects.get(key) else { return None };
        if let Err(why) = self.classes.judge(&key.namespace, &stored.read(), &self.options) {
            return Some(Standing::NotOurs(why));
        }
        Some(match self.ingresses.get(key) {
            Some(IngressState { rejection, .. }) if rejection.is_empty() => Standing::Accepted,
            Some(IngressState { rejection, part, .. }) => {
                Standing::Refused { because: rejection.clone(), last_good: part.is_some() }
            }
            None => Standing::Waiting,
        })
    }

    /// Every Ingress of which no version is in force, or not the newest one, with what it asks for and why it is left out.
    pub fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        self.left_out.iter().filter_map(|key| {
            let Some(Object::Ingress(stored)) = self.objects.get(key) else { return None };
            Some(LeftOut::new(key, &stored.read(), self.standing(key)?))
        })
    }

    /// Takes a part out of everything that it is part of.
    fn detach(&mut self, part: &Part, work: &mut Work) {
        for pattern in patterns(part) {
            if let Some(name) = self.names.get_mut(&pattern) {
                name.parts.remove(&part.age);
            }
            work.names.insert(pattern);
        }
        for (backend, _) in &part.backends {
            if let Some(state) = self.backends.get_mut(backend) {
                state.parts.remove(&part.age);
            }
            work.backends.insert(backend.clone());
        }
        for key in all_secrets(part) {
            work.wants.entry(key.clone()).or_insert(true);
            if let Some(state) = self.secrets.get_mut(&key) {
                state.parts.remove(&part.age);
            }
            work.secrets.insert(key);
        }
    }

    fn attach(&mut self, part: &Arc<Part>, work: &mut Work) {
        for pattern in patterns(part) {
            self.names.entry(pattern.clone()).or_default().parts.insert(part);
            work.names.insert(pattern);
        }
        for (backend, _) in &part.backends {
            let state = self.backends.entry(backend.clone()).or_default();
            state.parts.insert(part);
            work.backends.insert(backend.clone());
        }
        for key in all_secrets(part) {
            work.wants.entry(key.clone()).or_insert_with(|| self.secrets.contains_key(&key));
            let state = self.secrets.entry(key.clone()).or_default();
            state.parts.insert(part);
            work.secrets.insert(key);
        }
    }
}

/// Fills the nodes of a tree up.
fn compact<K: Ord, V>(tree: &mut BTreeMap<K, V>) {
    *tree = std::mem::take(tree).into_iter().collect();
}

/// The hosts that a part has a say in.
pub(super) fn patterns(part: &Part) -> impl Iterator<Item = HostPattern> {
    let catch_all = part.catch_all && part.default_backend.is_some();
    let hosts = part.hosts.iter().map(|rules| rules.pattern.clone());
    hosts.chain(catch_all.then_some(HostPattern::Any))
}

/// Every Secret that a part refers to.
fn all_secrets(part: &Part) -> impl Iterator<Item = ObjectKey> {
    secrets(part).chain(part.backend_secret.as_deref().cloned())
}

/// The Secrets of a part's `spec.tls`.
pub(super) fn secrets(part: &Part) -> impl Iterator<Item = ObjectKey> {
    part.secrets().map(|(_, name)| secret_key(part, name))
}

/// The key of a Secret in the namespace of a part.
pub(super) fn secret_key(part: &Part, name: &Arc<str>) -> ObjectKey {
    ObjectKey { kind: Kind::Secret, namespace: part.key.namespace.clone(), name: name.clone() }
}
