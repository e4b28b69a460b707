//! Owners of resources. A backend, its endpoints and a certificate belong to no single object: any object with routes can be an owner, and
//! the oldest decides what a resource can have only once.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{AffinityMode, Balance, HealthCheck, SessionCookie};
use jiff::Timestamp;

use crate::objects::{Kind, ObjectKey};

/// The precedence of an object: the lesser of two wins every conflict.
///
/// An object that is being deleted, or whose namespace is, comes after all others: since Kubernetes 1.33 the pods of a namespace are
/// deleted before its other objects, so its claims would lead nowhere while the last pod ends.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Age {
    pub(crate) leaving: bool,
    born: Born,
}

/// ingress-nginx's rule: by creation time, with ties going to the `namespace/name` that comes last in the alphabet. Objects without a
/// creation time come after all others, in the order in which they were read.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Born {
    Created(Timestamp, Reverse<Arc<str>>),
    Read(u64),
}

impl Age {
    pub(crate) fn of(key: &ObjectKey, created: Option<Timestamp>, sequence: u64, leaving: bool) -> Self {
        let born = match created {
            // Objects of two kinds may have the same name and age.
            Some(created) => Born::Created(
                created,
                Reverse(match key.kind {
                    Kind::Ingress => format!("{}/{}", key.namespace, key.name).into(),
                    kind => format!("{}/{}/{kind}", key.namespace, key.name).into(),
                }),
            ),
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
    /// Its wishes for all backends that it refers to.
    pub(crate) wishes: Arc<BackendWishes>,
}

/// An owner's wishes for a backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BackendWishes {
    /// Whether requests go to the cluster address of the Service instead of its endpoints.
    pub(crate) by_cluster_address: Option<bool>,
    /// How an endpoint is chosen.
    pub(crate) balance: Option<Balance>,
    /// How endpoints' health is checked.
    pub(crate) health_check: Option<Box<HealthCheck>>,
    /// How closely a client is tied to its endpoint.
    pub(crate) affinity_mode: Option<AffinityMode>,
    /// The cookie of the session, and whether it may change when the endpoint fails.
    pub(crate) affinity: Option<(SessionCookie, bool)>,
}

/// An object with an age.
pub(crate) trait Aged {
    fn age(&self) -> &Age;
}

impl Aged for Owner {
    fn age(&self) -> &Age {
        &self.age
    }
}

/// The owners of something, oldest first.
///
/// There is nearly always just one, hence a vector: a tree takes half a kilobyte. Some Services and Secrets have thousands.
#[derive(Debug)]
pub(crate) struct ByAge<T> {
    few: Vec<Arc<T>>,
    /// All owners, once there have been more than a few.
    many: BTreeMap<Age, Arc<T>>,
}

impl<T> Default for ByAge<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> ByAge<T> {
    pub(crate) const fn new() -> Self {
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

    /// Whether there are owners, and all of them are being deleted.
    pub(crate) fn all_leave(&self) -> bool {
        self.values().next().is_some_and(|first| first.age().leaving)
    }
}
