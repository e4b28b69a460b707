//! What a controller publishes, for any number of proxies.
//!
//! Each proxy gets the difference to what it has, whatever happened in between: one that is slow or was away gets the newest state, not a
//! queue of old ones. Invariant: no proxy delays another, and none delays a change for longer than [`PATIENCE`], or more than once before
//! it has caught up.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock, SystemTime};

use fairway_model::packing::{MANY, pack};
use fairway_model::{Delta, DemandReport, Host, Origin, Resource, Settings, ShareDeal, Snapshot};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{error, warn};

use crate::dealer::Dealer;
use crate::limit::{ALL_NAMES, LOG, NAMES, PATIENCE, PROXIES, REFUSALS, REPORTS};
use crate::replica::stand_in;
use crate::resource::{Encoded, SETTINGS, Version, name_of, text_of};

mod pace;

use pace::Pace;
pub use pace::{PROPAGATION_BOUNDS, Propagation};

/// What a controller publishes. Clones share it.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// The number of the newest generation.
    newest: watch::Sender<u64>,
    /// Changes when a proxy has taken a round, has connected or has left.
    progress: watch::Sender<u64>,
    reports: mpsc::Sender<Report>,
    begun: Clock,
    dealing: Mutex<Dealing>,
}

/// The shares of limits.
#[derive(Debug, Default)]
struct Dealing {
    dealer: Dealer,
    /// Wakes each proxy that takes shares when there is news for it: each has its own bell, because with many proxies most have no news.
    bells: HashMap<u64, Arc<Notify>>,
}

#[derive(Debug, Default)]
struct State {
    /// 0 before the first publication.
    generation: u64,
    resources: BTreeMap<Arc<str>, Entry>,
    /// The names that each of the last generations changed.
    log: VecDeque<(u64, Vec<Arc<str>>)>,
    /// Number of names in it.
    logged: usize,
    proxies: BTreeMap<u64, Proxy>,
    next: u64,
    /// Proxies, including those that are still greeting.
    seats: usize,
    /// Bytes of the names that they have said they hold.
    names: usize,
    /// When the last change was published.
    published: Option<SystemTime>,
    /// Whether a change has waited in vain for any proxy to connect.
    alone: bool,
    rounds: u64,
    sent: u64,
    pace: Pace,
}

#[derive(Debug)]
struct Entry {
    version: Version,
    resource: Resource,
    /// Whether it is worth keeping when another form replaces it.
    long: bool,
    /// The form before.
    before: Option<(Version, Resource)>,
}

#[derive(Debug)]
struct Proxy {
    name: String,
    fairway: String,
    /// The generation that it serves; 0 for none of ours.
    serves: u64,
    /// Whether changes no longer wait for it.
    late: bool,
    since: Clock,
    held: usize,
    refused: BTreeMap<Box<str>, String>,
}

/// A report from a proxy to users.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// No connection can be made to the endpoints of a backend.
    Unreachable {
        /// The object whose route leads there.
        origin: Origin,
        /// The backend.
        backend: String,
        /// Its endpoints, and why each can't be connected to, as one word.
        endpoints: Vec<(std::net::SocketAddr, String)>,
    },
    /// A proxy can't understand a resource and serves its last good form.
    Refused {
        /// The proxy.
        proxy: String,
        /// The resource.
        name: String,
        /// The objects that it came from.
        origins: Vec<Origin>,
        /// What it can't understand.
        reason: String,
    },
}

/// A connected proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyStatus {
    /// Its name.
    pub name: String,
    /// Its version.
    pub fairway: String,
    /// Whether it serves the newest generation.
    pub current: bool,
    /// Seconds for which it has served this generation.
    pub seconds: u64,
    /// Number of resources that it holds.
    pub held: usize,
    /// The resources that it refuses, and why.
    pub refused: BTreeMap<Box<str>, String>,
}

/// What has been sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HubFigures {
    /// Number of resources.
    pub resources: usize,
    /// Number of published changes.
    pub generation: u64,
    /// When the last one was.
    pub published: Option<SystemTime>,
    /// Connected proxies.
    pub proxies: usize,
    /// Those that serve the newest generation.
    pub current: usize,
    /// Rounds that were sent, to all proxies together.
    pub rounds: u64,
    /// Resources and removals in them.
    pub sent: u64,
    /// Resources that some proxy refuses.
    pub refused: usize,
    /// How long changes took to be in force everywhere.
    pub propagation: Propagation,
    /// Limits of clients of which shares are dealt.
    pub shared: usize,
}

/// What one proxy has.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// `None` for the version of a resource that the proxy refused without an earlier form.
    pub(crate) held: BTreeMap<Arc<str>, Option<Version>>,
    /// The resources of which the proxy has another form than `held` says, because it refused that.
    pub(crate) refused: BTreeSet<Arc<str>>,
    /// The generation that it was last compared with.
    pub(crate) seen: Option<u64>,
}

/// What a proxy lacks.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) generation: u64,
    pub(crate) changed: Vec<Changed>,
    pub(crate) removed: Vec<Arc<str>>,
}

/// A resource to send to a proxy.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) name: Arc<str>,
    pub(crate) version: Version,
    pub(crate) resource: Resource,
    /// The form that the proxy has, if that is known.
    pub(crate) before: Option<(Version, Resource)>,
}

/// A place for a proxy; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Hub,
    /// Bytes of the names that it has said it holds.
    names: usize,
}

/// A connected proxy; dropping it disconnects.
#[derive(Debug)]
pub(crate) struct ConnectedProxy {
    hub: Hub,
    id: u64,
    _seat: Seat,
    /// Rings when there is a share to send, if it takes shares of limits.
    bell: Option<Arc<Notify>>,
}

/// There are as many proxies as one controller can serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this controller serves {PROXIES} proxies already")]
pub(crate) struct Full;

impl Hub {
    /// A hub, and where the reports of proxies arrive.
    pub fn new() -> (Self, mpsc::Receiver<Report>) {
        let (reports, receiver) = mpsc::channel(REPORTS);
        let inner = Inner {
            state: Mutex::default(),
            newest: watch::Sender::new(0),
            progress: watch::Sender::new(0),
            reports,
            begun: Clock::now(),
            dealing: Mutex::default(),
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// Publishes a change. The first one is the whole state. Resolves when the proxies serve it, or have had their time.
    pub async fn publish(&self, delta: Delta) {
        let encoded: Vec<_> = delta.upserts.into_iter().filter_map(encode).collect();
        let (generation, replicas) = {
            let mut state = self.state();
            let mut names = Vec::with_capacity(encoded.len() + delta.removals.len());
            for name in &delta.removals {
                names.extend(state.resources.remove_entry(text_of(name).as_str()).map(|(name, _)| name));
            }
            for (name, entry, stands_in) in encoded {
                match state.resources.get_mut(&name) {
                    // The same in the memory that the publisher has it in.
                    Some(now) if now.version == entry.version => now.resource = entry.resource,
                    Some(_) if stands_in => {}
                    Some(now) => {
                        let old = std::mem::replace(now, entry);
                        now.before = old.long.then_some((old.version, old.resource));
                        names.push(name);
                    }
                    None => {
                        names.push(name.clone());
                        state.resources.insert(name, entry);
                    }
                }
            }
            if names.len() >= MANY {
                pack(&mut state.resources);
            }
            state.generation += 1;
            state.published = Some(SystemTime::now());
            let generation = state.generation;
            let (next, proxies) = (state.next, state.proxies.len());
            state.pace.publish(generation, next, proxies);
            state.note(names);
            let replicas = match state.resources.get(SETTINGS).map(|entry| &entry.resource) {
                Some(Resource::Settings(settings)) => Some(settings.replicas),
                _ => None,
            };
            (generation, replicas)
        };
        if let Some(replicas) = replicas {
            self.dealing().dealer.resize(replicas);
        }
        self.0.newest.send_replace(generation);
        self.live(generation).await;
    }

    /// Waits until the proxies serve a generation, or have had their time.
    async fn live(&self, generation: u64) {
        let deadline = Instant::now() + PATIENCE;
        let mut progress = self.0.progress.subscribe();
        loop {
            {
                let state = self.state();
                let served = state.proxies.values().any(|proxy| proxy.serves >= generation);
                let behind = state.proxies.values().any(|proxy| proxy.serves < generation && !proxy.late);
                if !behind && (served || state.alone) {
                    return;
                }
            }
            if !matches!(timeout_at(deadline, progress.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
        let mut state = self.state();
        let mut served = false;
        for proxy in state.proxies.values_mut() {
            served |= proxy.serves >= generation;
            if proxy.serves < generation && !proxy.late {
                warn!(
                    proxy = proxy.name,
                    "a proxy is slow to serve a change: no change waits for it until it has caught up"
                );
                proxy.late = true;
            }
        }
        state.alone = !served;
    }

    /// The connected proxies.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let state = self.state();
        let generation = state.generation;
        let status = |proxy: &Proxy| ProxyStatus {
            name: proxy.name.clone(),
            fairway: proxy.fairway.clone(),
            current: proxy.serves >= generation,
            seconds: proxy.since.elapsed().as_secs(),
            held: proxy.held,
            refused: proxy.refused.clone(),
        };
        state.proxies.values().map(status).collect()
    }

    /// Changes whenever a proxy has taken a change, has connected or has left.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.0.progress.subscribe()
    }

    /// For each connected proxy the number of the last change that it serves, where the first one published is 1.
    pub fn serves(&self) -> Vec<u64> {
        self.state().proxies.values().map(|proxy| proxy.serves).collect()
    }

    /// What has been sent so far.
    pub fn figures(&self) -> HubFigures {
        let shared = self.dealing().dealer.limits();
        let state = self.state();
        HubFigures {
            shared,
            resources: state.resources.len(),
            generation: state.generation,
            published: state.published,
            proxies: state.proxies.len(),
            current: state.proxies.values().filter(|proxy| proxy.serves >= state.generation).count(),
            rounds: state.rounds,
            sent: state.sent,
            refused: state.proxies.values().map(|proxy| proxy.refused.len()).sum(),
            propagation: state.pace.propagation,
        }
    }

    /// Of the last change that all proxies have: the last proxy to get it, and the time that took.
    pub fn slowest(&self) -> Option<(String, Duration)> {
        self.state().pace.slowest.clone()
    }

    /// The version of each resource.
    pub fn versions(&self) -> BTreeMap<String, Option<Version>> {
        let state = self.state();
        state.resources.iter().map(|(name, entry)| (name.as_ref().to_owned(), Some(entry.version))).collect()
    }

    /// What is published.
    pub fn snapshot(&self) -> Snapshot {
        let resources: Vec<_> = self.state().resources.values().map(|entry| entry.resource.clone()).collect();
        Snapshot::default().apply(Delta::upsert(resources))
    }

    /// How long proxies may drain, by the published settings.
    pub fn shutdown_timeout(&self) -> Duration {
        let state = self.state();
        match state.resources.get(SETTINGS).map(|entry| &entry.resource) {
            Some(Resource::Settings(settings)) => settings.shutdown_timeout,
            _ => Settings::default().shutdown_timeout,
        }
    }

    /// Resolves when no proxy is connected.
    pub async fn deserted(&self) {
        let mut progress = self.0.progress.subscribe();
        while !self.state().proxies.is_empty() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Changes with each generation.
    pub(crate) fn newest(&self) -> watch::Receiver<u64> {
        self.0.newest.subscribe()
    }

    /// A place for a proxy.
    pub(crate) fn seat(&self) -> Result<Seat, Full> {
        let mut state = self.state();
        if state.seats >= PROXIES {
            return Err(Full);
        }
        state.seats += 1;
        Ok(Seat { hub: self.clone(), names: 0 })
    }

    /// What a proxy lacks. `None` before the first publication.
    pub(crate) fn difference(&self, ledger: &Ledger) -> Option<Difference> {
        let state = self.state();
        let generation = state.generation;
        if generation == 0 {
            return None;
        }
        let mut difference = Difference { generation, changed: Vec::new(), removed: Vec::new() };
        let lacks =
            |name: &Arc<str>, entry: &Entry| ledger.held.get(name).is_none_or(|held| *held != Some(entry.version));
        let known = ledger.seen.filter(|seen| state.log.front().is_some_and(|(first, _)| *first <= seen + 1));
        match known {
            Some(seen) => {
                let mut names: Vec<&Arc<str>> = state
                    .log
                    .iter()
                    .rev()
                    .take_while(|(number, _)| *number > seen)
                    .flat_map(|(_, names)| names)
                    .collect();
                names.sort_unstable();
                names.dedup();
                for name in names {
                    match state.resources.get(name) {
                        Some(entry) if lacks(name, entry) => difference.add(name, entry, ledger),
                        None if ledger.held.contains_key(name) => difference.removed.push(name.clone()),
                        _ => {}
                    }
                }
            }
            None => {
                let lacking = state.resources.iter().filter(|(name, entry)| lacks(name, entry));
                lacking.for_each(|(name, entry)| difference.add(name, entry, ledger));
                let gone = ledger.held.keys().filter(|name| !state.resources.contains_key(*name));
                difference.removed.extend(gone.cloned());
            }
        }
        Some(difference)
    }

    /// Passes a report on. When too many wait already, it is lost.
    pub(crate) fn report(&self, report: Report) {
        let _ = self.0.reports.try_send(report);
    }

    fn dealing(&self) -> MutexGuard<'_, Dealing> {
        self.0.dealing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progressed(&self) {
        self.0.progress.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl State {
    /// Records the names that the newest generation changed. With more names than resources, comparing everything costs less.
    fn note(&mut self, names: Vec<Arc<str>>) {
        self.logged += names.len();
        self.log.push_back((self.generation, names));
        while self.log.len() > LOG || (self.logged > self.resources.len() && self.log.len() > 1) {
            self.logged -= self.log.pop_front().map_or(0, |(_, names)| names.len());
        }
    }
}

impl Difference {
    fn add(&mut self, name: &Arc<str>, entry: &Entry, ledger: &Ledger) {
        let has = |(version, _): &&(Version, Resource)| {
            ledger.held.get(name) == Some(&Some(*version)) && !ledger.refused.contains(name)
        };
        let before = entry.before.as_ref().filter(has).cloned();
        self.changed.push(Changed {
            name: name.clone(),
            version: entry.version,
            resource: entry.resource.clone(),
            before,
        });
    }
}

impl Ledger {
    /// Notes that a round is in effect. A refused version counts as held, because the proxy would refuse it again.
    pub(crate) fn acknowledged(
        &mut self,
        generation: u64,
        sent: impl IntoIterator<Item = (Arc<str>, Version)>,
        removed: &[Arc<str>],
        refused: impl Fn(&str) -> bool,
    ) {
        for name in removed {
            self.held.remove(name);
            self.refused.remove(name);
        }
        let before = self.held.len();
        for (name, version) in sent {
            if refused(&name) {
                self.refused.insert(name.clone());
            } else {
                self.refused.remove(&name);
            }
            self.held.insert(name, Some(version));
        }
        if self.held.len() >= before + MANY {
            pack(&mut self.held);
        }
        self.seen = Some(generation);
    }
}

impl Seat {
    /// Takes room for names of resources; `false` if there is none.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        let mut state = self.hub.state();
        if self.names + bytes > NAMES || state.names + bytes > ALL_NAMES {
            return false;
        }
        state.names += bytes;
        self.names += bytes;
        true
    }

    /// Adds the proxy that takes the seat.
    pub(crate) fn join(self, name: String, fairway: String, shares: bool) -> ConnectedProxy {
        let id = {
            let mut state = self.hub.state();
            let id = state.next;
            state.next += 1;
            // One that comes before the first publication has nothing to catch up with.
            let late = state.generation > 0;
            let (held, refused) = (0, BTreeMap::new());
            state.proxies.insert(id, Proxy { name, fairway, serves: 0, late, since: Clock::now(), held, refused });
            id
        };
        let bell = shares.then(|| {
            let mut dealing = self.hub.dealing();
            let bell = dealing.bells.entry(id).or_default().clone();
            dealing.dealer.join(id);
            dealing.ring();
            bell
        });
        ConnectedProxy { id, hub: self.hub.clone(), _seat: self, bell }
    }
}

impl Dealing {
    /// Wakes the proxies that have news.
    fn ring(&mut self) {
        for id in self.dealer.woken() {
            if let Some(bell) = self.bells.get(&id) {
                bell.notify_one();
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        state.seats -= 1;
        state.names -= self.names;
    }
}

impl ConnectedProxy {
    /// Takes the proxy's report about its clients.
    pub(crate) fn demands(&self, report: DemandReport) {
        if self.bell.is_some() {
            let mut dealing = self.hub.dealing();
            dealing.dealer.report(self.id, report, self.hub.0.begun.elapsed());
            dealing.ring();
        }
    }

    /// Resolves when there is a share to send to the proxy.
    pub(crate) async fn dealt(&self) {
        match &self.bell {
            Some(bell) => bell.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The next deal of shares for the proxy. There may be more.
    pub(crate) fn deal(&self) -> Option<ShareDeal> {
        self.bell.as_ref()?;
        let mut dealing = self.hub.dealing();
        let deal = dealing.dealer.deal(self.id, self.hub.0.begun.elapsed());
        dealing.ring();
        deal
    }

    /// Notes that a round goes out.
    pub(crate) fn sends(&self, resources: usize) {
        let mut state = self.hub.state();
        state.rounds += 1;
        state.sent += resources as u64;
    }

    /// Notes that the proxy serves a generation. `settled` are the names whose refusal no longer holds.
    pub(crate) fn serves<'a>(
        &self,
        generation: u64,
        held: usize,
        settled: impl Iterator<Item = &'a str>,
        refused: impl IntoIterator<Item = (Box<str>, String)>,
    ) {
        let mut reports = Vec::new();
        {
            let mut state = self.hub.state();
            let State { proxies, resources, generation: newest, alone, pace, .. } = &mut *state;
            let Some(proxy) = proxies.get_mut(&self.id) else { return };
            settled.for_each(|name| {
                proxy.refused.remove(name);
            });
            for (name, reason) in refused {
                let reason = if proxy.refused.len() < REFUSALS { reason } else { String::new() };
                // Further ones would be lost.
                if reports.len() < REPORTS {
                    let origins = resources.get(&*name).map(|entry| origins(&entry.resource)).unwrap_or_default();
                    let (proxy_name, text) = (proxy.name.clone(), name.clone().into_string());
                    reports.push(Report::Refused { proxy: proxy_name, name: text, origins, reason: reason.clone() });
                }
                proxy.refused.insert(name, reason);
            }
            pace.serves(self.id, &proxy.name, proxy.serves, generation);
            (proxy.serves, proxy.held, proxy.since) = (generation, held, Clock::now());
            if generation >= *newest {
                (proxy.late, *alone) = (false, false);
            }
        }
        reports.into_iter().for_each(|report| self.hub.report(report));
        self.hub.progressed();
    }
}

impl Drop for ConnectedProxy {
    fn drop(&mut self) {
        if self.bell.is_some() {
            let mut dealing = self.hub.dealing();
            dealing.bells.remove(&self.id);
            dealing.dealer.leave(self.id, self.hub.0.begun.elapsed());
        }
        {
            let mut state = self.hub.state();
            if let Some(proxy) = state.proxies.remove(&self.id) {
                state.pace.leaves(self.id, proxy.serves);
            }
        }
        self.hub.progressed();
    }
}

/// Serializes a resource once, for its name and version, and again when it is sent, so that not all of them are in memory twice. Also
/// returns whether this stands in for a host that can't be serialized: its last form stays, but without one its requests must not go to a
/// wider host.
fn encode(resource: Resource) -> Option<(Arc<str>, Entry, bool)> {
    match Encoded::new(&resource) {
        Ok(encoded) => {
            // A new certificate shares nothing with the old one, whose key must not be kept, and neither must fields for a receiver of
            // spans.
            let is_secret = matches!(resource, Resource::Certificate(_) | Resource::Telemetry(_));
            let (long, version) = (encoded.is_long() && !is_secret, encoded.version);
            Some((encoded.name, Entry { version, resource, long, before: None }, false))
        }
        Err(error) => {
            error!(name = %name_of(&resource), %error, "a resource can't be written");
            let resource = stand_in(&name_of(&resource))?;
            let Encoded { name, version, .. } = Encoded::new(&resource).ok()?;
            Some((name, Entry { version, resource, long: false, before: None }, true))
        }
    }
}

/// The objects that a resource came from, each once.
fn origins(resource: &Resource) -> Vec<Origin> {
    const MOST: usize = 16;
    let mut origins: Vec<Origin> = match resource {
        Resource::Host(host) => host.tiers().flat_map(Host::routes).map(|route| route.origin.section("")).collect(),
        Resource::Backend(backend) => vec![backend.origin.clone()],
        Resource::Certificate(certificate) => vec![certificate.origin.clone()],
        Resource::Telemetry(telemetry) => vec![telemetry.origin.clone()],
        Resource::StreamListener(listener) => vec![listener.origin.section("")],
        Resource::EndpointSet(_) | Resource::Listener(_) | Resource::Settings(_) => Vec::new(),
    };
    origins.sort_unstable();
    origins.dedup();
    origins.truncate(MOST);
    origins
}

#[cfg(test)]
mod tests;
