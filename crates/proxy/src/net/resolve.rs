//! Resolves the names of ExternalName Services and XBackends, again whenever their TTL expires.
//!
//! One task on the control runtime keeps a list of names and reports every change of their addresses; workers see plain endpoints
//! and never wait for DNS. While a name can't be resolved, its last addresses stay in use. Addresses that lead back to this
//! machine or to the cloud's metadata service are refused, whatever DNS returns.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limit::{RESOLVE_ADDRESSES, RESOLVE_AT_ONCE, RESOLVE_LONGEST, RESOLVE_LONGEST_PAUSE, RESOLVE_SHORTEST};
use fairway_model::{
    BackendName, Delta, Endpoint, EndpointSet, Endpoints, NetworkSet, Resource, ResourceName, Snapshot, is_special,
};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Which addresses requests may be sent to.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// Networks that are allowed although they lie in a refused range.
    pub allowed: NetworkSet,
    /// The proxy's own addresses that are refused (the admin listener). An unspecified address stands for its port on every
    /// address.
    pub own: Vec<SocketAddr>,
    /// Whether endpoints given as addresses, not as names, may be on loopback.
    pub loopback_endpoints: bool,
}

/// Keeps the addresses of names up to date. Dropping it ends the task.
#[derive(Debug)]
pub struct Resolver {
    commands: mpsc::UnboundedSender<Command>,
    counts: Arc<Counts>,
}

/// The endpoints that a backend's name currently resolves to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resolved {
    /// The backend.
    pub backend: BackendName,
    /// The name that was resolved.
    pub host: Arc<str>,
    /// Port of all endpoints.
    pub port: u16,
    /// Its endpoints, sorted. Empty when every address is refused.
    pub endpoints: Arc<[Endpoint]>,
    /// One of the addresses that are refused, if there are any.
    pub refused: Option<IpAddr>,
}

/// Why names can't be resolved at all.
#[derive(Debug, thiserror::Error)]
#[error("reading the configuration of the resolver")]
pub struct ResolverError(#[from] NetError);

/// Counters of the resolver.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResolverCounts {
    /// Names currently being resolved.
    pub names: u64,
    /// Queries so far.
    pub queries: u64,
    /// Queries that failed or returned no usable address.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Counts {
    names: AtomicU64,
    queries: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug)]
enum Command {
    Resolve { backend: BackendName, host: Box<str>, port: u16 },
    Forget(BackendName),
}

impl Resolved {
    /// Whether this result is for the current name of an endpoint set, not for an earlier one.
    pub(crate) fn is_of(&self, set: &EndpointSet) -> bool {
        match &set.endpoints {
            Endpoints::Name { host, port } => **host == *self.host && *port == self.port,
            Endpoints::Addresses(_) => false,
        }
    }
}

impl AddressPolicy {
    /// Whether a name may resolve to an address.
    pub fn admits(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let own = self
            .own
            .iter()
            .any(|own| own.port() == address.port() && (own.ip().is_unspecified() || own.ip().to_canonical() == ip));
        !own && (!is_special(ip) || self.allowed.contains(ip))
    }

    /// Why a name may not resolve to an address, if it may not.
    fn why_refused(&self, address: SocketAddr) -> &'static str {
        match address.ip().to_canonical() {
            ip if !is_special(ip) => "it is an address of the proxy itself",
            ip if ip.is_loopback() || ip.is_unspecified() => "it leads back to this machine",
            IpAddr::V4(ip) if ip.is_link_local() => "it is link-local, as metadata services of clouds are",
            _ => "it is an address of a kind that endpoints do not have, or of a metadata service",
        }
    }

    /// Whether a certificate may name an address as its OCSP responder: one on the Internet, at the port of HTTP, or an allowed one.
    pub(crate) fn admits_responder(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.admits(address) && (self.allowed.contains(ip) || (address.port() == 80 && !is_private(ip)))
    }

    /// Whether an endpoint may have an address: the same rules as for names, except that other machines may use the port of our
    /// own listener, as pods of a second controller do.
    pub fn admits_endpoint(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let own = |own: &SocketAddr| {
            let here = || if own.ip().is_unspecified() { is_local(ip) } else { own.ip().to_canonical() == ip };
            own.port() == address.port() && here()
        };
        let admitted = self.loopback_endpoints && ip.is_loopback();
        (admitted || !is_special(ip) || self.allowed.contains(ip)) && !self.own.iter().any(own)
    }

    /// Removes endpoints with refused addresses. Copies the list only if there are any.
    pub(crate) fn endpoints<'a>(&self, all: &'a [Endpoint]) -> Cow<'a, [Endpoint]> {
        let admitted = |endpoint: &&Endpoint| self.admits_endpoint(endpoint.address);
        if all.iter().all(|endpoint| admitted(&endpoint)) {
            return Cow::Borrowed(all);
        }
        Cow::Owned(all.iter().filter(admitted).cloned().collect())
    }

    /// Logs and counts refused endpoints that `before` did not contain.
    pub(crate) fn report(&self, delta: &Delta, before: &Snapshot) -> u64 {
        let mut count = 0;
        for resource in &delta.upserts {
            let Resource::EndpointSet(set) = resource else {
                continue;
            };
            let known = before.endpoint_set(&set.backend).map_or(&[][..], |set| addresses(set));
            for endpoint in addresses(set) {
                if !self.admits_endpoint(endpoint.address) && !known.contains(endpoint) {
                    tracing::warn!(backend = %set.backend, address = %endpoint.address, "an endpoint is refused");
                    count += 1;
                }
            }
        }
        count
    }
}

fn addresses(set: &EndpointSet) -> &[Endpoint] {
    match &set.endpoints {
        Endpoints::Addresses(list) => list,
        Endpoints::Name { .. } => &[],
    }
}

/// Whether an address belongs to this machine: only its own addresses can be bound.
fn is_local(address: IpAddr) -> bool {
    !matches!(UdpSocket::bind((address, 0)), Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Whether an address belongs to a private network (RFC 1918, 6598, 4193).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

impl Resolver {
    /// Starts the task on the current runtime, with name servers, search domains and `ndots` of `/etc/resolv.conf`. The receiver
    /// yields every change of a backend's addresses.
    ///
    /// # Errors
    /// If the system's configuration can't be read.
    pub fn start(policy: AddressPolicy) -> Result<(Self, mpsc::Receiver<Resolved>), ResolverError> {
        let (config, options) = read_system_conf()?;
        Self::start_with(config, options, policy, RESOLVE_SHORTEST)
    }

    /// Starts the task with the given configuration.
    fn start_with(
        config: ResolverConfig,
        mut options: ResolverOpts,
        policy: AddressPolicy,
        shortest: Duration,
    ) -> Result<(Self, mpsc::Receiver<Resolved>), ResolverError> {
        options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
        // The task queries when a TTL expires and not before; a cache on top would only make results older.
        options.cache_size = 0;
        let resolver = hickory_resolver::Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()?;
        let (commands, received) = mpsc::unbounded_channel();
        let (changes, out) = mpsc::channel(RESOLVE_AT_ONCE);
        let counts = Arc::<Counts>::default();
        let task = Task {
            resolver,
            policy,
            shortest,
            names: HashMap::new(),
            due: BTreeSet::new(),
            queries: JoinSet::new(),
            next_id: 0,
            changes,
            counts: counts.clone(),
        };
        tokio::spawn(task.run(received));
        Ok((Self { commands, counts }, out))
    }

    /// Updates the list of names from a delta. Call it for every delta applied to the snapshot, including the first.
    pub fn apply(&self, delta: &Delta) {
        // The task outlives this value, so sending can't fail.
        for removed in &delta.removals {
            if let ResourceName::EndpointSet(backend) = removed {
                self.commands.send(Command::Forget(backend.clone())).ok();
            }
        }
        for resource in &delta.upserts {
            if let Resource::EndpointSet(set) = resource {
                let backend = set.backend.clone();
                let command = match &set.endpoints {
                    Endpoints::Name { host, port } => Command::Resolve { backend, host: host.clone(), port: *port },
                    Endpoints::Addresses(_) => Command::Forget(backend),
                };
                self.commands.send(command).ok();
            }
        }
    }

    /// Returns the counters.
    pub fn counts(&self) -> ResolverCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ResolverCounts {
            names: read(&self.counts.names),
            queries: read(&self.counts.queries),
            failures: read(&self.counts.failures),
        }
    }
}

struct Task {
    resolver: TokioResolver,
    policy: AddressPolicy,
    shortest: Duration,
    names: HashMap<BackendName, KnownName>,
    /// When to query for which backend. Backends with a query in flight are absent.
    due: BTreeSet<(Instant, BackendName)>,
    queries: JoinSet<DnsAnswer>,
    next_id: u64,
    changes: mpsc::Sender<Resolved>,
    counts: Arc<Counts>,
}

struct KnownName {
    /// Distinguishes this name from an earlier one of the same backend.
    id: u64,
    host: Arc<str>,
    port: u16,
    due: Option<Instant>,
    pause: Duration,
    endpoints: Option<Arc<[Endpoint]>>,
    /// The refused addresses of the last answer.
    refused: Vec<SocketAddr>,
}

struct DnsAnswer {
    backend: BackendName,
    id: u64,
    found: Result<(Vec<IpAddr>, std::time::Instant), NetError>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        loop {
            let next = self.due.first().map(|(due, _)| *due);
            let may_ask = self.queries.len() < RESOLVE_AT_ONCE;
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(answer) = self.queries.join_next() => {
                    // A query that panicked is ignored; its name keeps its addresses.
                    if let Ok(answer) = answer
                        && let Some(change) = self.take(answer)
                        && self.changes.send(change).await.is_err()
                    {
                        return;
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if may_ask && next.is_some() => self.ask(),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Resolve { backend, host, port } => {
                if self.names.get(&backend).is_some_and(|name| *name.host == *host && name.port == port) {
                    return;
                }
                self.forget(&backend);
                let now = Instant::now();
                self.next_id += 1;
                let name = KnownName {
                    id: self.next_id,
                    host: host.into(),
                    port,
                    due: Some(now),
                    pause: self.shortest,
                    endpoints: None,
                    refused: Vec::new(),
                };
                self.names.insert(backend.clone(), name);
                self.due.insert((now, backend));
            }
            Command::Forget(backend) => self.forget(&backend),
        }
        self.counts.names.store(self.names.len() as u64, Ordering::Relaxed);
    }

    fn forget(&mut self, backend: &BackendName) {
        if let Some(KnownName { due: Some(due), .. }) = self.names.remove(backend) {
            self.due.remove(&(due, backend.clone()));
        }
    }

    fn ask(&mut self) {
        let Some((_, backend)) = self.due.pop_first() else {
            return;
        };
        let Some(name) = self.names.get_mut(&backend) else {
            return;
        };
        name.due = None;
        self.counts.queries.fetch_add(1, Ordering::Relaxed);
        let (resolver, host, id) = (self.resolver.clone(), name.host.clone(), name.id);
        self.queries.spawn(async move {
            let found = match host.parse::<IpAddr>() {
                Ok(address) => Ok((vec![address], std::time::Instant::now() + RESOLVE_LONGEST)),
                Err(_) => {
                    let found = resolver.lookup_ip(&*host).await;
                    found.map(|found| (found.iter().take(RESOLVE_ADDRESSES).collect(), found.valid_until()))
                }
            };
            DnsAnswer { backend, id, found }
        });
    }

    /// Applies an answer and returns the change, if any.
    fn take(&mut self, answer: DnsAnswer) -> Option<Resolved> {
        let backend = answer.backend;
        let name = self.names.get_mut(&backend).filter(|name| name.id == answer.id)?;
        let (wait, change) = match answer.found {
            Ok((addresses, valid_until)) => {
                name.pause = self.shortest;
                let left = valid_until.saturating_duration_since(std::time::Instant::now());
                (left.clamp(self.shortest, RESOLVE_LONGEST), Some(admitted(&addresses, name.port, &self.policy)))
            }
            Err(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                if name.pause <= self.shortest {
                    tracing::warn!(backend = %backend, host = &*name.host, %error, "a name is not resolved");
                }
                let wait = name.pause;
                name.pause = (name.pause * 2).min(RESOLVE_LONGEST_PAUSE);
                (wait, None)
            }
        };
        let due = Instant::now() + wait;
        name.due = Some(due);
        self.due.insert((due, backend.clone()));
        let (endpoints, refused) = change?;
        let endpoints: Arc<[Endpoint]> = endpoints.into();
        // Logged once, until none is refused any more: each answer may bring other addresses.
        if name.refused.is_empty() {
            for address in &refused {
                let why = self.policy.why_refused(*address);
                tracing::warn!(backend = %backend, host = &*name.host, %address, why, "an address of a name is refused");
            }
        }
        // A refused address explains why there is no endpoint.
        let first = |list: &[SocketAddr]| list.first().map(SocketAddr::ip).filter(|_| endpoints.is_empty());
        let same = name.endpoints.as_ref() == Some(&endpoints) && first(&refused) == first(&name.refused);
        name.refused = refused;
        if same {
            return None;
        }
        let refused = first(&name.refused);
        name.endpoints = Some(endpoints.clone());
        Some(Resolved { backend, host: name.host.clone(), port: name.port, endpoints, refused })
    }
}

/// The endpoints that the addresses of a name make, and the addresses that are refused.
fn admitted(addresses: &[IpAddr], port: u16, policy: &AddressPolicy) -> (Vec<Endpoint>, Vec<SocketAddr>) {
    let sorted: BTreeSet<_> = addresses.iter().map(|address| SocketAddr::new(address.to_canonical(), port)).collect();
    let (admitted, refused): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|address| policy.admits(*address));
    (admitted.into_iter().map(Endpoint::ready).collect(), refused)
}

#[cfg(test)]
mod tests;
