//! The Secrets and ConfigMaps that pods refer to, each watched for as long as a pod needs it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::sleep;

/// Which object.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    kind: ObjectKind,
    namespace: String,
    name: String,
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum ObjectKind {
    ConfigMap,
    Secret,
}

/// The entries of a Secret or ConfigMap.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// The known state of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Lookup {
    /// The API server has not responded yet.
    #[default]
    Unknown,
    /// It doesn't exist.
    Absent,
    /// It exists.
    Present(Arc<Data>),
}

impl Key {
    /// A ConfigMap.
    pub(crate) fn config_map(namespace: &str, name: &str) -> Self {
        Self { kind: ObjectKind::ConfigMap, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// A Secret.
    pub(crate) fn secret(namespace: &str, name: &str) -> Self {
        Self { kind: ObjectKind::Secret, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ObjectKind::ConfigMap => "configmap",
            ObjectKind::Secret => "secret",
        };
        write!(f, "{kind} \"{}\"", self.name)
    }
}

/// All watched objects of the Node.
pub(crate) struct Cache {
    client: Client,
    watches: Mutex<HashMap<Key, Weak<Watch>>>,
}

#[derive(Debug)]
struct Watch {
    state: watch::Receiver<Lookup>,
    task: tokio::task::AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cache {
    /// Creates a cache that watches nothing yet.
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, watches: Mutex::new(HashMap::new()) })
    }

    /// Watches these objects until the result is dropped.
    pub(crate) fn watch(&self, keys: impl IntoIterator<Item = Key>) -> Objects {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|_, watch| watch.strong_count() > 0);
        let mut objects = BTreeMap::new();
        for key in keys {
            let watch = watches.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
                let watch = Arc::new(self.start(&key));
                watches.insert(key.clone(), Arc::downgrade(&watch));
                watch
            });
            objects.insert(key, watch);
        }
        Objects(objects)
    }

    fn start(&self, key: &Key) -> Watch {
        let (sender, state) = watch::channel(Lookup::Unknown);
        let Key { kind, namespace, name } = key.clone();
        let task = match kind {
            ObjectKind::ConfigMap => {
                let api = Api::<ConfigMap>::namespaced(self.client.clone(), &namespace);
                tokio::spawn(follow(api, name, sender, |map: ConfigMap| {
                    let text = map.data.into_iter().flatten().map(|(name, text)| (name, text.into_bytes()));
                    let binary = map.binary_data.into_iter().flatten().map(|(name, bytes)| (name, bytes.0));
                    text.chain(binary).collect()
                }))
            }
            ObjectKind::Secret => {
                let api = Api::<Secret>::namespaced(self.client.clone(), &namespace);
                tokio::spawn(follow(api, name, sender, |secret: Secret| {
                    secret.data.into_iter().flatten().map(|(name, bytes)| (name, bytes.0)).collect()
                }))
            }
        };
        Watch { state, task: task.abort_handle() }
    }
}

async fn follow<K>(api: Api<K>, name: String, state: watch::Sender<Lookup>, data: fn(K) -> Data)
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let events = watcher::watcher(api, watcher::Config::default().fields(&format!("metadata.name={name}")));
    pin_mut!(events);
    let mut seen = false;
    while let Some(event) = events.next().await {
        let set = |lookup: Lookup| {
            state.send_if_modified(|now| {
                let changed = *now != lookup;
                *now = lookup;
                changed
            });
        };
        match event {
            Ok(Event::Init) => seen = false,
            Ok(Event::InitApply(object)) => {
                seen = true;
                set(Lookup::Present(Arc::new(data(object))));
            }
            Ok(Event::InitDone) if seen => {}
            Ok(Event::InitDone | Event::Delete(_)) => set(Lookup::Absent),
            Ok(Event::Apply(object)) => set(Lookup::Present(Arc::new(data(object)))),
            // The watcher continues where it was; known objects stay known.
            Err(_) => sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Objects in use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(BTreeMap<Key, Arc<Watch>>);

impl Objects {
    /// The known state of an object.
    pub(crate) fn lookup(&self, key: &Key) -> Lookup {
        self.0.get(key).map(|watch| watch.state.borrow().clone()).unwrap_or_default()
    }

    /// The entries of an existing object.
    pub(crate) fn data(&self, key: &Key) -> Option<Arc<Data>> {
        match self.lookup(key) {
            Lookup::Present(data) => Some(data),
            Lookup::Unknown | Lookup::Absent => None,
        }
    }

    /// Waits until the API server has responded for each.
    pub(crate) async fn known(&self) {
        for watch in self.0.values() {
            // The sender lives as long as the watch.
            let _ = watch.state.clone().wait_for(|lookup| *lookup != Lookup::Unknown).await;
        }
    }

    /// A subscription to the next changes: take it before reading, then wait with [`Changes::next`].
    pub(crate) fn changes(&self) -> Changes {
        let mut receivers: Vec<_> = self.0.values().map(|watch| watch.state.clone()).collect();
        for receiver in &mut receivers {
            receiver.mark_unchanged();
        }
        Changes(receivers)
    }
}

/// A subscription to changes of some objects.
#[derive(Debug)]
pub(crate) struct Changes(Vec<watch::Receiver<Lookup>>);

impl Changes {
    /// Waits until one of the objects has changed since the last call. Never returns if there is none.
    pub(crate) async fn next(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.0.iter_mut().map(|receiver| Box::pin(receiver.changed()));
        let _ = futures::future::select_all(waits).await;
    }
}

#[cfg(test)]
impl Objects {
    /// Objects as if the API server had returned these.
    pub(super) fn fixed(known: impl IntoIterator<Item = (Key, Lookup)>) -> Self {
        let task = || tokio::spawn(std::future::pending::<()>()).abort_handle();
        let watch = |lookup| Arc::new(Watch { state: watch::channel(lookup).1, task: task() });
        Self(known.into_iter().map(|(key, lookup)| (key, watch(lookup))).collect())
    }
}
