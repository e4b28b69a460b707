//! The complete configuration of the proxy, and how it changes.
//!
//! A snapshot is immutable. A change makes a new one that shares everything else with the old one, so that it costs no
//! more than what changed. Invariant: `a.apply(diff(&a, &b)) == b`.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::map::{HASHER, Map};
use crate::{
    Backend, BackendName, Certificate, CertificateName, EndpointSet, Host, HostKey, HostPattern, Hostname, Listener,
    ListenerName, Passthrough, Settings, StreamListener, TableName, Telemetry, TelemetryName,
};

/// The complete immutable configuration that the proxy runs. Cloning copies pointers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    listeners: BTreeMap<ListenerName, Arc<Listener>>,
    stream_listeners: BTreeMap<ListenerName, Arc<StreamListener>>,
    tables: BTreeMap<TableName, Arc<HostTable>>,
    backends: Map<BackendName, Backend>,
    endpoint_sets: Map<BackendName, EndpointSet>,
    certificates: Map<CertificateName, Certificate>,
    telemetries: BTreeMap<TelemetryName, Arc<Telemetry>>,
    settings: Arc<Settings>,
}

/// One named part of a snapshot.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Resource {
    /// An address on which connections are accepted.
    Listener(Arc<Listener>),
    /// A port of a TCP or UDP service.
    StreamListener(Arc<StreamListener>),
    /// A host and its routes.
    Host(Arc<Host>),
    /// How to speak to a Service port.
    Backend(Arc<Backend>),
    /// The endpoints of a backend.
    EndpointSet(Arc<EndpointSet>),
    /// A certificate chain and its key.
    Certificate(Arc<Certificate>),
    /// How the requests to a Gateway are traced.
    Telemetry(Arc<Telemetry>),
    /// Settings for the whole proxy.
    Settings(Arc<Settings>),
}

/// The name of a [`Resource`]. Settings have none: they always exist.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum ResourceName {
    /// Of a listener.
    Listener(ListenerName),
    /// Of a port of a TCP or UDP service.
    StreamListener(ListenerName),
    /// Of a host.
    Host(HostKey),
    /// Of a backend.
    Backend(BackendName),
    /// Of an endpoint set.
    EndpointSet(BackendName),
    /// Of a certificate.
    Certificate(CertificateName),
    /// Of how requests are traced.
    Telemetry(TelemetryName),
}

impl Resource {
    /// Its name, by which [`Snapshot::resource`] finds it. `None` for the settings, of which there is only one.
    pub fn name(&self) -> Option<ResourceName> {
        Some(match self {
            Self::Listener(listener) => ResourceName::Listener(listener.name.clone()),
            Self::StreamListener(listener) => ResourceName::StreamListener(listener.name.clone()),
            Self::Host(host) => {
                ResourceName::Host(HostKey { table: host.table().clone(), pattern: host.pattern().clone() })
            }
            Self::Backend(backend) => ResourceName::Backend(backend.name.clone()),
            Self::EndpointSet(set) => ResourceName::EndpointSet(set.backend.clone()),
            Self::Certificate(certificate) => ResourceName::Certificate(certificate.name.clone()),
            Self::Telemetry(telemetry) => ResourceName::Telemetry(telemetry.name.clone()),
            Self::Settings(_) => return None,
        })
    }
}

macro_rules! into_resource {
    ($($variant:ident)*) => {$(
        impl From<$variant> for Resource {
            fn from(value: $variant) -> Self {
                Self::$variant(Arc::new(value))
            }
        }
    )*};
}
into_resource!(Listener StreamListener Host Backend EndpointSet Certificate Telemetry Settings);

/// A change: the only kind of value that crosses from the control side to the data side.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// New or changed resources.
    pub upserts: Vec<Resource>,
    /// Removed resources. Removals are applied before upserts.
    pub removals: Vec<ResourceName>,
}

impl Delta {
    /// A delta that only adds or replaces.
    pub fn upsert(resources: impl IntoIterator<Item = Resource>) -> Self {
        Self { upserts: resources.into_iter().collect(), removals: Vec::new() }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

impl Snapshot {
    /// The snapshot after a change. Unchanged parts are shared with this one.
    #[must_use]
    pub fn apply(&self, delta: Delta) -> Self {
        let mut next = self.clone();
        for name in &delta.removals {
            next.remove(name);
        }
        for resource in delta.upserts {
            next.insert(resource);
        }
        next
    }

    /// The delta that turns `old` into `new`, in a stable order.
    pub fn diff(old: &Self, new: &Self) -> Delta {
        let mut delta = Delta::default();
        if old.settings != new.settings {
            delta.upserts.push(Resource::Settings(new.settings.clone()));
        }
        diff_trees(&old.listeners, &new.listeners, Resource::Listener, ResourceName::Listener, &mut delta);
        let (before, after) = (&old.stream_listeners, &new.stream_listeners);
        diff_trees(before, after, Resource::StreamListener, ResourceName::StreamListener, &mut delta);
        diff_trees(&old.telemetries, &new.telemetries, Resource::Telemetry, ResourceName::Telemetry, &mut delta);
        diff_maps(&old.certificates, &new.certificates, Resource::Certificate, ResourceName::Certificate, &mut delta);
        diff_maps(&old.endpoint_sets, &new.endpoint_sets, Resource::EndpointSet, ResourceName::EndpointSet, &mut delta);
        diff_maps(&old.backends, &new.backends, Resource::Backend, ResourceName::Backend, &mut delta);
        let empty = Arc::default();
        for (name, table) in &new.tables {
            let before = old.tables.get(name).unwrap_or(&empty);
            if !Arc::ptr_eq(before, table) {
                diff_maps(&before.named, &table.named, Resource::Host, |pattern| host_name(name, pattern), &mut delta);
            }
        }
        for (name, table) in &old.tables {
            if !new.tables.contains_key(name) {
                diff_maps(&table.named, &empty.named, Resource::Host, |pattern| host_name(name, pattern), &mut delta);
            }
        }
        delta.removals.sort_unstable();
        delta
    }

    /// The host of a table for a canonical host name (see [`canonical_host`](crate::canonical_host)). An empty name
    /// matches only the catch-all.
    pub fn host(&self, table: &TableName, host: &[u8]) -> Option<&Arc<Host>> {
        let own = self.tables.get(table)?;
        let found = own.find(host);
        match own.beneath() {
            None => found,
            Some(beneath) => {
                let other = self.tables.get(beneath).and_then(|table| table.find(host));
                found.into_iter().chain(other).min_by_key(|host| host.pattern().by_precision())
            }
        }
    }

    /// The host whose requirements apply to the handshake of a client with this server name in its hello. A client without one may mean any
    /// host: where Ingresses are served, it is treated as with Ingresses alone, and no Gateway listener decides about it.
    pub fn greeted(&self, table: &TableName, server_name: &[u8]) -> Option<&Arc<Host>> {
        match self.tables.get(table)?.beneath().filter(|_| server_name.is_empty()) {
            Some(beneath) => self.tables.get(beneath)?.find(server_name),
            None => self.host(table, server_name),
        }
    }

    /// The host of a table that follows another one for the same name, if that one passes requests on.
    pub fn host_after<'s>(&'s self, table: &TableName, name: &[u8], host: &'s Host) -> Option<&'s Host> {
        let onward = host.onward()?;
        if let Some(then) = &onward.then {
            return Some(then);
        }
        let own = self.tables.get(table).filter(|_| onward.wider)?;
        let beneath = own.beneath().and_then(|table| self.tables.get(table));
        let precision = host.pattern().by_precision();
        let tables = [Some(own), beneath].into_iter().flatten();
        let next = tables.filter_map(|table| table.after(name, precision));
        next.min_by_key(|host| host.pattern().by_precision()).map(|host| &**host)
    }

    /// Where a TLS connection with this server name, in canonical form, passes to: the most specific host with the name decides. `None` if
    /// requests are parsed, as they are for clients that name no host where Ingresses are served.
    pub fn passthrough(&self, table: &TableName, server_name: &[u8]) -> Option<&Arc<Passthrough>> {
        let own = self.tables.get(table)?;
        match own.beneath() {
            None => own.patterns(server_name).next().or(own.any.as_ref())?.passthrough(),
            Some(_) => self.host(table, server_name).filter(|_| !server_name.is_empty())?.passthrough(),
        }
    }

    /// The certificate for a TLS server name: that of the host with exactly that name, else of the wildcard host around
    /// it, else the default one. `None` if there is no default or the snapshot doesn't hold it.
    pub fn certificate_for(&self, table: &TableName, server_name: Option<&[u8]>) -> Option<&Arc<Certificate>> {
        let host = self.tables.get(table).and_then(|own| match server_name {
            Some(name) => self.certified(own, name),
            // The host for any name has a certificate only if a Gateway's listener has no host.
            None => own.any.as_ref(),
        });
        let own = host.and_then(|host| self.certificates.get(host.certificate()?));
        own.or_else(|| self.certificates.get(self.settings.default_certificate.as_ref()?))
    }

    /// The certificate with another kind of key that the same host has besides [its own](Self::certificate_for).
    pub fn alternative_certificate_for(&self, table: &TableName, server_name: &[u8]) -> Option<&Arc<Certificate>> {
        let host = self.certified(self.tables.get(table)?, server_name)?;
        self.certificates.get(host.alternative_certificate()?)
    }

    /// The host whose certificate a server name gets; `None` for the default one. A host of a table beneath another keeps its names: a
    /// wider host of the table above has no certificate for them.
    fn certified<'s>(&'s self, own: &'s HostTable, name: &[u8]) -> Option<&'s Arc<Host>> {
        let has_own = |host: &&Arc<Host>| host.certificate().is_some_and(|name| self.certificates.get(name).is_some());
        let found = own.all(name).find(has_own);
        let Some(beneath) = own.beneath().and_then(|table| self.tables.get(table)) else { return found };
        let precision = |host: &&Arc<Host>| host.pattern().by_precision();
        let taken = beneath.find(name).map(|host| precision(&host));
        let found = found.filter(|host| taken.is_none_or(|taken| precision(host) <= taken));
        found.into_iter().chain(beneath.all(name).find(has_own)).min_by_key(precision)
    }

    /// A backend by name.
    pub fn backend(&self, name: &BackendName) -> Option<&Arc<Backend>> {
        self.backends.get(name)
    }

    /// The endpoints of a backend.
    pub fn endpoint_set(&self, name: &BackendName) -> Option<&Arc<EndpointSet>> {
        self.endpoint_sets.get(name)
    }

    /// A certificate by name.
    pub fn certificate(&self, name: &CertificateName) -> Option<&Arc<Certificate>> {
        self.certificates.get(name)
    }

    /// How requests are traced, by name.
    pub fn telemetry(&self, name: &TelemetryName) -> Option<&Arc<Telemetry>> {
        self.telemetries.get(name)
    }

    /// All ways of tracing requests other than that of the settings, by name.
    pub fn telemetries(&self) -> impl ExactSizeIterator<Item = &Arc<Telemetry>> {
        self.telemetries.values()
    }

    /// A resource by name.
    pub fn resource(&self, name: &ResourceName) -> Option<Resource> {
        match name {
            ResourceName::Listener(name) => self.listeners.get(name).cloned().map(Resource::Listener),
            ResourceName::StreamListener(name) => {
                self.stream_listeners.get(name).cloned().map(Resource::StreamListener)
            }
            ResourceName::Host(key) => {
                self.tables.get(&key.table)?.named.get(&key.pattern).cloned().map(Resource::Host)
            }
            ResourceName::Backend(name) => self.backends.get(name).cloned().map(Resource::Backend),
            ResourceName::EndpointSet(name) => self.endpoint_sets.get(name).cloned().map(Resource::EndpointSet),
            ResourceName::Certificate(name) => self.certificates.get(name).cloned().map(Resource::Certificate),
            ResourceName::Telemetry(name) => self.telemetries.get(name).cloned().map(Resource::Telemetry),
        }
    }

    /// The settings for the whole proxy.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The listeners, by name.
    pub fn listeners(&self) -> impl ExactSizeIterator<Item = &Arc<Listener>> {
        self.listeners.values()
    }

    /// The ports of TCP and UDP services, by name.
    pub fn stream_listeners(&self) -> impl ExactSizeIterator<Item = &Arc<StreamListener>> {
        self.stream_listeners.values()
    }

    /// All hosts of all tables, sorted.
    pub fn hosts(&self) -> Vec<&Arc<Host>> {
        let mut hosts: Vec<_> =
            self.tables.values().flat_map(|table| table.named.iter().map(|(_, host)| host)).collect();
        hosts.sort_unstable_by(|a, b| (a.table(), a.pattern()).cmp(&(b.table(), b.pattern())));
        hosts
    }

    /// The number of hosts.
    pub fn host_count(&self) -> usize {
        self.tables.values().map(|table| table.named.len()).sum()
    }

    /// All backends, sorted.
    pub fn backends(&self) -> Vec<&Arc<Backend>> {
        sorted(&self.backends)
    }

    /// All endpoint sets, sorted.
    pub fn endpoint_sets(&self) -> Vec<&Arc<EndpointSet>> {
        sorted(&self.endpoint_sets)
    }

    /// All certificates, sorted.
    pub fn certificates(&self) -> Vec<&Arc<Certificate>> {
        sorted(&self.certificates)
    }

    fn insert(&mut self, resource: Resource) {
        match resource {
            Resource::Listener(listener) => {
                self.listeners.insert(listener.name.clone(), listener);
            }
            Resource::StreamListener(listener) => {
                self.stream_listeners.insert(listener.name.clone(), listener);
            }
            Resource::Host(host) => {
                let table = self.tables.entry(host.table().clone()).or_default();
                Arc::make_mut(table).insert(host);
            }
            Resource::Backend(backend) => self.backends.insert(backend.name.clone(), backend),
            Resource::EndpointSet(set) => self.endpoint_sets.insert(set.backend.clone(), set),
            Resource::Certificate(certificate) => self.certificates.insert(certificate.name.clone(), certificate),
            Resource::Telemetry(telemetry) => {
                self.telemetries.insert(telemetry.name.clone(), telemetry);
            }
            Resource::Settings(settings) => self.settings = settings,
        }
    }

    fn remove(&mut self, name: &ResourceName) {
        match name {
            ResourceName::Listener(name) => {
                self.listeners.remove(name);
            }
            ResourceName::StreamListener(name) => {
                self.stream_listeners.remove(name);
            }
            ResourceName::Host(key) => {
                if let Some(table) = self.tables.get_mut(&key.table) {
                    Arc::make_mut(table).remove(&key.pattern);
                    if table.named.len() == 0 {
                        self.tables.remove(&key.table);
                    }
                }
            }
            ResourceName::Backend(name) => {
                self.backends.remove(name);
            }
            ResourceName::EndpointSet(name) => {
                self.endpoint_sets.remove(name);
            }
            ResourceName::Certificate(name) => {
                self.certificates.remove(name);
            }
            ResourceName::Telemetry(name) => {
                self.telemetries.remove(name);
            }
        }
    }
}

/// For dumps and golden files: sorted, and keys redacted.
impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Snapshot", 7 + usize::from(!self.telemetries.is_empty()))?;
        out.serialize_field("settings", &self.settings)?;
        out.serialize_field("listeners", &self.listeners().collect::<Vec<_>>())?;
        out.serialize_field("stream_listeners", &self.stream_listeners().collect::<Vec<_>>())?;
        out.serialize_field("hosts", &self.hosts())?;
        out.serialize_field("backends", &self.backends())?;
        out.serialize_field("endpoint_sets", &self.endpoint_sets())?;
        out.serialize_field("certificates", &self.certificates())?;
        if self.telemetries.is_empty() {
            out.skip_field("telemetries")?;
        } else {
            out.serialize_field("telemetries", &self.telemetries().collect::<Vec<_>>())?;
        }
        out.end()
    }
}

/// The hosts of one table. `named` holds all of them by pattern; the other fields serve lookups beyond exact names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct HostTable {
    named: Map<HostPattern, Host>,
    exact: Map<Hostname, Host>,
    subdomains: Map<Hostname, Host>,
    any_suffix: Map<Hostname, Host>,
    label: Map<Hostname, Host>,
    regex: BTreeMap<HostPattern, Arc<Host>>,
    any: Option<Arc<Host>>,
}

impl HostTable {
    fn find(&self, host: &[u8]) -> Option<&Arc<Host>> {
        // Most requests are for a host with exactly their name.
        lookup(&self.exact, host).or_else(|| self.inexact(host).next()).or(self.any.as_ref())
    }

    /// The hosts whose pattern matches the name, in order of precedence.
    fn all<'s, 'n>(&'s self, host: &'n [u8]) -> impl Iterator<Item = &'s Arc<Host>> + use<'s, 'n> {
        self.patterns(host).chain(&self.any)
    }

    /// The most specific of the hosts for a name that are less specific than `precision`.
    fn after(&self, name: &[u8], precision: std::cmp::Reverse<(u8, usize, u8)>) -> Option<&Arc<Host>> {
        let mut found: Option<&Arc<Host>> = None;
        for host in self.patterns(name) {
            let own = host.pattern().by_precision();
            if own > precision && found.is_none_or(|found| own < found.pattern().by_precision()) {
                found = Some(host);
            }
        }
        found.or(self.any.as_ref())
    }

    /// The table whose hosts are served alongside those of this one.
    fn beneath(&self) -> Option<&TableName> {
        self.any.as_ref()?.onward()?.beneath.as_ref()
    }

    /// The hosts whose pattern matches the name, in order of precedence, without the catch-all.
    fn patterns<'a>(&'a self, host: &[u8]) -> impl Iterator<Item = &'a Arc<Host>> {
        lookup(&self.exact, host).into_iter().chain(self.inexact(host))
    }

    /// Like [`patterns`](Self::patterns), without the host of exactly this name.
    fn inexact<'a>(&'a self, host: &[u8]) -> impl Iterator<Item = &'a Arc<Host>> {
        let dots = move || memchr::memchr_iter(b'.', host);
        let subdomains = (self.subdomains.len() > 0)
            .then(|| dots().filter_map(|dot| lookup(&self.subdomains, &host[dot + 1..])))
            .into_iter()
            .flatten();
        let any_suffix = (self.any_suffix.len() > 0)
            .then(|| dots().rev().filter_map(|dot| lookup(&self.any_suffix, &host[..dot])))
            .into_iter()
            .flatten();
        let label = dots().next().filter(|&dot| dot > 0).and_then(|dot| lookup(&self.label, &host[dot + 1..]));
        let regex = self.regex.iter().filter_map(move |(pattern, found)| match pattern {
            HostPattern::Regex(regex) if !host.is_empty() && regex.is_match(host) => Some(found),
            _ => None,
        });
        label.into_iter().chain(subdomains).chain(any_suffix).chain(regex)
    }

    fn insert(&mut self, host: Arc<Host>) {
        match host.pattern() {
            HostPattern::Exact(name) => self.exact.insert(name.clone(), host.clone()),
            HostPattern::Subdomains(name) => self.subdomains.insert(name.clone(), host.clone()),
            HostPattern::AnySuffix(name) => self.any_suffix.insert(name.clone(), host.clone()),
            HostPattern::Label(name) => self.label.insert(name.clone(), host.clone()),
            HostPattern::Regex(_) => {
                self.regex.insert(host.pattern().clone(), host.clone());
            }
            HostPattern::Any => self.any = Some(host.clone()),
        }
        self.named.insert(host.pattern().clone(), host);
    }

    fn remove(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Exact(name) => {
                self.exact.remove(name);
            }
            HostPattern::Subdomains(name) => {
                self.subdomains.remove(name);
            }
            HostPattern::AnySuffix(name) => {
                self.any_suffix.remove(name);
            }
            HostPattern::Label(name) => {
                self.label.remove(name);
            }
            HostPattern::Regex(_) => {
                self.regex.remove(pattern);
            }
            HostPattern::Any => self.any = None,
        }
        self.named.remove(pattern);
    }
}

fn lookup<'a>(map: &'a Map<Hostname, Host>, name: &[u8]) -> Option<&'a Arc<Host>> {
    let mut hasher = HASHER.build_hasher();
    hasher.write(name);
    map.find(hasher.finish(), |other| other.as_str().as_bytes() == name)
}

fn host_name(table: &TableName, pattern: HostPattern) -> ResourceName {
    ResourceName::Host(HostKey { table: table.clone(), pattern })
}

fn sorted<K: Clone + Eq + std::hash::Hash + Ord, V>(map: &Map<K, V>) -> Vec<&Arc<V>> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries.into_iter().map(|(_, value)| value).collect()
}

fn diff_trees<K: Clone + Ord, V: PartialEq>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
    resource: impl Fn(Arc<V>) -> Resource,
    name: impl Fn(K) -> ResourceName,
    delta: &mut Delta,
) {
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
    delta.upserts.extend(changed.map(|(_, value)| resource(value.clone())));
    delta.removals.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned().map(name));
}

fn diff_maps<K: Clone + Eq + std::hash::Hash + Ord, V: PartialEq>(
    old: &Map<K, V>,
    new: &Map<K, V>,
    resource: impl Fn(Arc<V>) -> Resource,
    name: impl Fn(K) -> ResourceName,
    delta: &mut Delta,
) {
    let mut upserts: Vec<_> = new.newer_than(old).collect();
    upserts.sort_unstable_by_key(|(key, _)| *key);
    delta.upserts.extend(upserts.into_iter().map(|(_, value)| resource(value.clone())));
    delta.removals.extend(old.missing_in(new).cloned().map(name));
}

#[cfg(test)]
mod tests;
