//! The contents of Secrets, kept up to date: certificates for clients, and the inputs of TLS to backends.
//!
//! The newest usable version stays in effect, even when the Secret is gone, as long as something refers to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{CertificateName, HostPattern, Resource, ResourceName};
use k8s_openapi::api::core::v1::Secret;

use crate::engine::dirty::{Dirty, Output};
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::resource::certificate::{self, BackendSecret, TlsSecret, Unusable, certificate_name};
use crate::resource::{Age, ByAge, Owner};

/// All Secrets with an owner.
#[derive(Debug)]
pub(crate) struct Secrets {
    states: BTreeMap<ObjectKey, SecretState>,
    /// When certificates become valid or expire.
    validity: BTreeSet<(i64, ObjectKey)>,
    /// Seconds since 1970; never goes back.
    now: i64,
}

/// One Secret.
#[derive(Debug, Default)]
struct SecretState {
    owners: ByAge<Owner>,
    /// Whether it is the default certificate.
    pinned: bool,
    /// The newest version with a usable certificate.
    good: Option<TlsSecret>,
    problem: Option<CertificateProblem>,
    /// The newest version, which `problem` and `newest_for_backends` are about.
    read: Option<Arc<Secret>>,
    /// The newest version's contents for TLS to backends; `None` while there is no Secret.
    newest_for_backends: Option<Result<BackendSecret, Unusable>>,
    /// The contents of the newest version that is usable for TLS to backends.
    good_for_backends: Option<BackendSecret>,
}

/// Why the newest version of a certificate isn't in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum CertificateProblem {
    Missing,
    Unusable(String),
}

/// The state of a certificate.
pub(crate) struct CertificateStanding<'a> {
    pub(crate) good: Option<&'a TlsSecret>,
    pub(crate) problem: Option<&'a CertificateProblem>,
    pub(crate) is_default: bool,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

impl Default for Secrets {
    fn default() -> Self {
        Self { states: BTreeMap::new(), validity: BTreeSet::new(), now: i64::MIN }
    }
}

impl Secrets {
    /// Whether something refers to a Secret.
    pub(crate) fn contains(&self, key: &ObjectKey) -> bool {
        self.states.contains_key(key)
    }

    /// Adds an owner.
    pub(crate) fn attach(&mut self, key: &ObjectKey, owner: &Arc<Owner>, dirty: &mut Dirty, out: &mut Output) {
        out.wants.entry(key.clone()).or_insert_with(|| self.states.contains_key(key));
        self.states.entry(key.clone()).or_default().owners.insert(owner);
        dirty.secrets.insert(key.clone());
    }

    /// Removes an owner.
    pub(crate) fn detach(&mut self, key: &ObjectKey, age: &Age, dirty: &mut Dirty, out: &mut Output) {
        out.wants.entry(key.clone()).or_insert(true);
        if let Some(state) = self.states.get_mut(key) {
            state.owners.remove(age);
        }
        dirty.secrets.insert(key.clone());
    }

    /// Keeps a Secret without an owner: that of the default certificate.
    pub(crate) fn pin(&mut self, key: &ObjectKey, dirty: &mut Dirty, out: &mut Output) {
        out.wants.insert(key.clone(), false);
        self.states.entry(key.clone()).or_default().pinned = true;
        dirty.secrets.insert(key.clone());
    }

    /// The usable certificate of a Secret, if it has one.
    pub(crate) fn good(&self, key: &ObjectKey) -> Option<&TlsSecret> {
        self.states.get(key)?.good.as_ref()
    }

    /// Whether a certificate that was chosen for one name of a host also covers another.
    pub(crate) fn covers(&self, certificate: &CertificateName, pattern: &HostPattern) -> bool {
        self.good_by_name(certificate).is_some_and(|good| good.covers(pattern))
    }

    /// The usable certificate of a name.
    pub(crate) fn good_by_name(&self, certificate: &CertificateName) -> Option<&TlsSecret> {
        let (namespace, name) = certificate.as_str().split_once('/')?;
        self.good(&ObjectKey::new(Kind::Secret, namespace, name))
    }

    /// The state of a Secret's certificate.
    pub(crate) fn standing(&self, key: &ObjectKey) -> Option<CertificateStanding<'_>> {
        let SecretState { good, problem, pinned, .. } = self.states.get(key)?;
        Some(CertificateStanding { good: good.as_ref(), problem: problem.as_ref(), is_default: *pinned, now: self.now })
    }

    /// The newest version of a Secret.
    pub(crate) fn newest(&self, key: &ObjectKey) -> Option<&Secret> {
        self.states.get(key)?.read.as_deref()
    }

    /// The contents of a Secret for TLS to backends.
    ///
    /// # Errors
    /// Why no version of it is usable, as the end of a sentence.
    pub(crate) fn for_backends(&self, key: &ObjectKey) -> Result<&BackendSecret, String> {
        let good = self.states.get(key).and_then(|state| state.good_for_backends.as_ref());
        good.ok_or_else(|| self.problem_for_backends(key).map_or_else(|| missing(key), |(_, why)| why))
    }

    /// Why the newest version of a Secret is unusable for TLS to backends, and whether the Secret exists.
    pub(crate) fn problem_for_backends(&self, key: &ObjectKey) -> Option<(CertificateProblem, String)> {
        match self.states.get(key).and_then(|state| state.newest_for_backends.as_ref()) {
            None => Some((CertificateProblem::Missing, missing(key))),
            Some(Ok(_)) => None,
            Some(Err(why)) => Some((
                CertificateProblem::Unusable(why.clone()),
                format!("Secret {}/{}: {why}", key.namespace, key.name),
            )),
        }
    }

    /// Marks the certificates that became valid or expired. `now` is in seconds since 1970.
    pub(crate) fn pass_time(&mut self, now: i64, dirty: &mut Dirty) {
        self.now = self.now.max(now);
        while let Some((at, _)) = self.validity.first()
            && *at <= self.now
        {
            let Some((_, key)) = self.validity.pop_first() else { break };
            self.report_owners(&key, dirty);
        }
    }

    /// Reads the Secrets that are due.
    pub(crate) fn settle(&mut self, objects: &Objects, dirty: &mut Dirty, out: &mut Output) {
        for key in std::mem::take(&mut dirty.secrets) {
            let Some(state) = self.states.get_mut(&key) else { continue };
            let was_good = state.good.as_ref().map(|good| good.certificate.clone());
            if state.owners.is_empty() && !state.pinned {
                if was_good.is_some() {
                    out.removals.push(ResourceName::Certificate(certificate_name(&key)));
                }
                if let Some(state) = self.states.remove(&key) {
                    forget_turns(&mut self.validity, &key, state.good.as_ref());
                }
                continue;
            }
            let secret = match objects.get(&key) {
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
            state.problem = match secret.map(|secret| certificate::read(&key, secret)) {
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
            let certificate = match &state.problem {
                Some(CertificateProblem::Unusable(reason)) => Err(&**reason),
                Some(CertificateProblem::Missing) | None => Ok(()),
            };
            state.newest_for_backends = secret.map(|secret| certificate::read_backend(secret, certificate));
            if let Some(Ok(good)) = &state.newest_for_backends {
                state.good_for_backends = Some(good.clone());
            }
            let good = state.good.as_ref().map(|good| &good.certificate);
            if let Some(good) = good.filter(|good| was_good.as_ref() != Some(*good)) {
                out.upserts.push(Resource::Certificate(good.clone()));
            }
            dirty.secret_owners.extend(state.owners.values().map(|owner| (owner.key.clone(), key.clone())));
            self.report_owners(&key, dirty);
        }
    }

    /// All objects that get findings about a Secret.
    fn report_owners(&self, key: &ObjectKey, dirty: &mut Dirty) {
        let Some(state) = self.states.get(key) else { return };
        dirty.reports.extend(state.owners.values().map(|owner| owner.key.clone()));
        if state.pinned {
            dirty.reports.insert(key.clone());
        }
    }
}

fn missing(key: &ObjectKey) -> String {
    format!("there is no Secret {}/{}", key.namespace, key.name)
}

fn forget_turns(validity: &mut BTreeSet<(i64, ObjectKey)>, key: &ObjectKey, good: Option<&TlsSecret>) {
    for at in good.into_iter().flat_map(TlsSecret::turns) {
        validity.remove(&(at, key.clone()));
    }
}
