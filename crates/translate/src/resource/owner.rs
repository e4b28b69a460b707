//! Who refers to a resource. A backend, its endpoints and a certificate belong to nobody: any object with routes can be an owner, and
//! the oldest one decides what a resource has once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{AffinityMode, Balance, SessionCookie};
use jiff::Timestamp;

use crate::objects::ObjectKey;

/// Which of two objects comes first: that one wins every conflict.
///
/// One that is being deleted, or whose namespace is, comes after all that stay: since Kubernetes 1.33 the pods of a namespace go before
/// its other objects, so its claims would lead nowhere for as long as the last pod takes to end.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Age {
    pub(crate) leaving: bool,
    born: Born,
}

/// ingress-nginx's rule: by creation time, and on a tie the one whose `namespace/name` comes last in the alphabet. Those that say
/// no creation time come after all that do, in the order in which they were read.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Born {
    Created(Timestamp, Reverse<Arc<str>>),
    Read(u64),
}

impl Age {
    pub(crate) fn of(key: &ObjectKey, created: Option<Timestamp>, sequence: u64, leaving: bool) -> Self {
        let born = match created {
            Some(created) => Born::Created(created, Reverse(format!("{}/{}", key.namespace, key.name).into())),
            None => Born::Read(sequence),
        };
        Self { leaving, born }
    }
}

/// An object that refers to resources.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) key: ObjectKey,
    pub(crate) age: Age,
    /// What it says of all backends that it refers to.
    pub(crate) wishes: Arc<BackendWishes>,
}

/// What an owner says of a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BackendWishes {
    /// Whether requests go to the cluster address of the Service instead of to its endpoints.
    pub(crate) by_cluster_address: Option<bool>,
    /// How an endpoint is chosen.
    pub(crate) balance: Option<Balance>,
    /// How closely a client is tied to its endpoint.
    pub(crate) affinity_mode: Option<AffinityMode>,
    /// The cookie by which it is, and whether that may change when the endpoint fails.
    pub(crate) affinity: Option<(SessionCookie, bool)>,
}

/// Something that has an age.
pub(crate) trait Aged {
    fn age(&self) -> &Age;
}

impl Aged for Owner {
    fn age(&self) -> &Age {
        &self.age
    }
}

/// Those that have a say in something, oldest first.
///
/// Nearly always it is one: a vector then, since a tree would take half a kilobyte. Some Services and Secrets have thousands.
#[derive(Debug)]
pub(crate) struct ByAge<T> {
    few: Vec<Arc<T>>,
    /// All of them, once there were more than a few.
    many: BTreeMap<Age, Arc<T>>,
}

impl<T> Default for ByAge<T> {
    fn default() -> Self {
        Self { few: Vec::new(), many: BTreeMap::new() }
    }
}

impl<T: Aged> ByAge<T> {
    const FEW: usize = 16;

    pub(crate) fn insert(&mut self, one: &Arc<T>) {
        if !self.many.is_empty() {
            self.many.insert(one.age().clone(), one.clone());
            return;
        }
        match self.few.binary_search_by(|other| other.age().cmp(one.age())) {
            Ok(at) => self.few[at] = one.clone(),
            Err(at) if self.few.len() < Self::FEW => {
                if self.few.is_empty() {
                    self.few.reserve_exact(1);
                }
                self.few.insert(at, one.clone());
            }
            Err(_) => {
                let all = std::mem::take(&mut self.few).into_iter().chain([one.clone()]);
                self.many = all.map(|one| (one.age().clone(), one)).collect();
            }
        }
    }

    pub(crate) fn remove(&mut self, age: &Age) {
        self.many.remove(age);
        if let Ok(at) = self.few.binary_search_by(|other| other.age().cmp(age)) {
            self.few.remove(at);
        }
    }

    pub(crate) fn get(&self, age: &Age) -> Option<&Arc<T>> {
        self.many.get(age).or_else(|| self.few.iter().find(|one| one.age() == age))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.few.iter().chain(self.many.values())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.many.is_empty()
    }

    /// Whether there are some, and all of them are being deleted.
    pub(crate) fn all_leave(&self) -> bool {
        self.values().next().is_some_and(|first| first.age().leaving)
    }
}
