//! The contents of Secrets and ConfigMaps: fetched for those that a served object refers to; of all others only the
//! name is ever held.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;

use fairway_model::ErrorChain;
use fairway_translate::objects::{Kind, ObjectKey};
use kube::api::ListParams;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::api::{ApiServer, CallError, collection};
use crate::backoff::Backoff;
use crate::watch::{Seen, Wanted, decode, plural};

/// Maximum number of simultaneous fetches.
const CONCURRENT: usize = 16;

/// Whether contents of objects of this kind are fetched by reference.
pub(crate) fn is_referenced(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::ConfigMap)
}

/// Which contents are wanted and which have been fetched.
#[derive(Debug, Default)]
pub(crate) struct References {
    /// Objects that exist, are wanted and have never been fetched.
    fresh: BTreeSet<ObjectKey>,
    /// The fetched version.
    fetched: BTreeMap<ObjectKey, Box<str>>,
    queue: BTreeSet<ObjectKey>,
    fetching: BTreeSet<ObjectKey>,
    failed: BTreeSet<ObjectKey>,
    retry_at: Option<Instant>,
    backoff: Backoff,
}

impl References {
    /// Records that a wanted object exists in this version.
    pub(crate) fn seen(&mut self, key: &ObjectKey, version: &str) {
        match self.fetched.get(key) {
            Some(fetched) if **fetched == *version => return,
            Some(_) => (),
            None => {
                self.fresh.insert(key.clone());
            }
        }
        self.queue.insert(key.clone());
    }

    /// Records that an object is gone or no longer wanted. Returns whether its content had been fetched.
    pub(crate) fn drop(&mut self, key: &ObjectKey) -> bool {
        self.fresh.remove(key);
        self.queue.remove(key);
        self.failed.remove(key);
        self.fetched.remove(key).is_some()
    }

    /// The next object to fetch.
    pub(crate) fn next(&mut self) -> Option<ObjectKey> {
        if self.fetching.len() >= CONCURRENT {
            return None;
        }
        // An object that changes again during its fetch waits until the fetch ends.
        let key = self.queue.iter().find(|key| !self.fetching.contains(key))?.clone();
        self.queue.remove(&key);
        self.fetching.insert(key.clone());
        Some(key)
    }

    /// Records the result of a fetch; `version` is the one received.
    pub(crate) fn ended(&mut self, key: ObjectKey, result: Result<Option<&str>, &CallError>) {
        self.fetching.remove(&key);
        match result {
            Ok(version) => {
                self.backoff.reset();
                self.fresh.remove(&key);
                match version {
                    Some(version) => self.fetched.insert(key, version.into()),
                    None => self.fetched.remove(&key),
                };
            }
            Err(error) => {
                if self.backoff.failures() == 0 {
                    let (kind, namespace, name) = (key.kind, &*key.namespace, &*key.name);
                    let forbidden = error.code() == Some(403);
                    let error = ErrorChain(error);
                    if forbidden {
                        error!(%kind, namespace, name, %error, "no right to read what an Ingress refers to");
                    } else {
                        warn!(%kind, namespace, name, %error, "cannot fetch what an Ingress refers to; trying again");
                    }
                }
                self.failed.insert(key);
                if self.retry_at.is_none() {
                    self.retry_at = Some(Instant::now() + self.backoff.after(Some(error)));
                }
            }
        }
    }

    /// Whether content that is wanted and exists has never been fetched, so that objects referring to it are
    /// incomplete.
    pub(crate) fn is_incomplete(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether contents are being fetched for the first time. A failed fetch doesn't count until it is retried.
    pub(crate) fn is_fetching_new(&self) -> bool {
        self.fetching.iter().chain(&self.queue).any(|key| !self.fetched.contains_key(key))
    }

    /// Stops waiting: objects that refer to contents never fetched are published without them.
    pub(crate) fn wait_no_longer(&mut self) {
        self.fresh.clear();
    }

    /// When [`retry`](Self::retry) is due.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Retries failed fetches.
    pub(crate) fn retry(&mut self) {
        self.retry_at = None;
        self.queue.append(&mut self.failed);
    }
}

/// The object with this name; `None` if there is none.
///
/// Uses a list of one name because the roles of ingress-nginx allow `list` and `watch` of Secrets but not `get`.
pub(crate) async fn fetch(api: &ApiServer, key: &ObjectKey, hasher: &RandomState) -> Result<Option<Seen>, CallError> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let request = collection(key.kind.api_version(), plural(key.kind), Some(&key.namespace));
    let params = ListParams { field_selector: Some(format!("metadata.name={}", key.name)), ..ListParams::default() };
    let text = api.page(request.list(&params)).await?;
    let list: List<'_> = serde_json::from_slice(text.as_ref()).map_err(CallError::Decode)?;
    let Some(item) = list.items.into_iter().flatten().next() else { return Ok(None) };
    decode(key.kind, item.get(), Wanted::Object, hasher).map(Some).map_err(CallError::Decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::Secret, "n", "s")
    }

    #[test]
    fn a_version_is_fetched_once() {
        let mut references = References::default();
        references.seen(&key(), "1");
        assert!(references.is_incomplete());
        assert_eq!(references.next(), Some(key()));
        references.ended(key(), Ok(Some("1")));
        assert!(!references.is_incomplete());
        references.seen(&key(), "1");
        assert_eq!(references.next(), None);
        references.seen(&key(), "2");
        assert_eq!(references.next(), Some(key()));
        assert!(!references.is_incomplete(), "the content before serves meanwhile");
    }

    #[test]
    fn a_change_during_a_fetch_leads_to_another_one() {
        let mut references = References::default();
        references.seen(&key(), "1");
        references.next();
        references.seen(&key(), "2");
        assert_eq!(references.next(), None);
        references.ended(key(), Ok(Some("1")));
        assert_eq!(references.next(), Some(key()));
    }

    #[tokio::test]
    async fn a_failed_fetch_is_tried_again() {
        let mut references = References::default();
        references.seen(&key(), "1");
        references.next();
        references.ended(key(), Err(&CallError::Endless));
        assert_eq!(references.next(), None);
        references.retry();
        assert_eq!(references.next(), Some(key()));
    }
}
