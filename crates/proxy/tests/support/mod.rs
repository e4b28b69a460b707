//! A proxy built by hand for a test: hosts, routes and backends in as little code as possible.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod grpc;
pub mod h2_origin;
pub mod http2;
pub mod log;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fairway_model::{
    Action, Backend, Balance, Certificate, CertificateName, Delta, Endpoint, EndpointSet, Endpoints, Filter, Forward,
    ForwardPolicy, Host, HostPattern, Listener, Origin as Owner, PathMatch, PrivateKey, Protocol, Resource, Route,
    Scheme, Settings, Snapshot, TableName,
};
use fairway_proxy::resolve::AddressPolicy;
use fairway_proxy::{Proxy, ProxyConfig, Publisher};
use fairway_testkit::{Client, Leaf, Origin};

/// The labels that name the controller in all metrics of Fairway; they are empty in tests.
pub const CONTROLLER: &str = "controller_class=\"\",controller_namespace=\"\",controller_pod=\"\"";

/// The host that tests use unless they name another one.
pub const HOST: &str = "app.example";

/// A running proxy with one plain and one TLS listener.
pub struct TestProxy {
    pub proxy: Proxy,
    pub publisher: Publisher,
    pub http: SocketAddr,
    pub https: SocketAddr,
}

impl TestProxy {
    /// Starts with these resources, besides the two listeners.
    pub fn start(resources: impl IntoIterator<Item = Resource>) -> Self {
        Self::start_with(resources, config())
    }

    pub fn start_with(resources: impl IntoIterator<Item = Resource>, config: ProxyConfig) -> Self {
        let listeners = [listener("http", Scheme::Http), listener("https", Scheme::Https)];
        let snapshot = Snapshot::default().apply(Delta::upsert(listeners.into_iter().chain(resources)));
        let proxy = Proxy::start(snapshot, config).expect("a proxy on ports that the kernel chooses");
        let addresses = proxy.local_addresses();
        Self { publisher: proxy.publisher(), http: addresses[&"http".into()], https: addresses[&"https".into()], proxy }
    }

    /// One host, one route, one backend with these endpoints.
    pub fn to(origins: &[&Origin]) -> Self {
        Self::start(forwarding(origins, ForwardPolicy::default()))
    }

    /// The same with a policy.
    pub fn with_policy(origins: &[&Origin], policy: ForwardPolicy) -> Self {
        Self::start(forwarding(origins, policy))
    }

    /// The same with settings.
    pub fn with_settings(origins: &[&Origin], settings: Settings) -> Self {
        let mut resources = forwarding(origins, ForwardPolicy::default());
        resources.push(Resource::from(settings));
        Self::start(resources)
    }

    /// A connection without TLS.
    pub async fn connect(&self) -> Client {
        Client::connect(self.http).await
    }

    pub async fn publish(&self, resources: impl IntoIterator<Item = Resource>) {
        let published = self.publisher.publish(Delta::upsert(resources)).await;
        assert!(published.refused.is_empty(), "{published:?}");
    }
}

/// Two workers, so that nothing works only because there is one; no log.
pub fn config() -> ProxyConfig {
    ProxyConfig { workers: NonZeroUsize::new(2), addresses: local(), ..ProxyConfig::default() }
}

/// The origins of tests are on loopback.
pub fn local() -> AddressPolicy {
    AddressPolicy { loopback_endpoints: true, ..AddressPolicy::default() }
}

pub fn table() -> TableName {
    TableName::from("ingress")
}

pub fn listener(name: &str, scheme: Scheme) -> Resource {
    Resource::from(Listener::new(name, SocketAddr::from(([127, 0, 0, 1], 0)), scheme, table()))
}

/// Host, route, backend and endpoints for requests to [`HOST`].
pub fn forwarding(origins: &[&Origin], policy: ForwardPolicy) -> Vec<Resource> {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address()).collect();
    let mut resources = backend("web", &addresses);
    resources.push(host(HOST, vec![route("/", forward("web", policy))]));
    resources
}

pub fn host(name: &str, routes: Vec<Route>) -> Resource {
    Resource::from(Host::new(table(), HostPattern::parse(name).expect("a host pattern"), routes))
}

pub fn host_with_certificate(name: &str, routes: Vec<Route>, certificate: &str) -> Resource {
    let host = Host::new(table(), HostPattern::parse(name).expect("a host pattern"), routes);
    Resource::from(host.with_certificate(Some(certificate.into())))
}

/// A prefix route without filters.
pub fn route(path: &str, action: Action) -> Route {
    Route::new(Owner::new("Ingress", "default", "app"), PathMatch::prefix(path).expect("a path"), action)
}

pub fn filtered(mut route: Route, filters: Vec<Filter>) -> Route {
    route.filters = filters;
    route
}

pub fn forward(service: &str, policy: ForwardPolicy) -> Action {
    Action::Forward(Forward {
        backends: name(service).as_str().into(),
        fallback: None,
        session_cookie_path: None,
        policy: Arc::new(policy),
    })
}

pub fn backend(service: &str, addresses: &[SocketAddr]) -> Vec<Resource> {
    vec![Resource::from(backend_alone(service)), endpoints(service, addresses)]
}

pub fn backend_alone(service: &str) -> Backend {
    Backend {
        name: name(service).as_str().into(),
        origin: Owner::new("Service", "default", service),
        port: "80".into(),
        upstream_name: format!("default-{service}-80").into(),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    }
}

pub fn endpoints(service: &str, addresses: &[SocketAddr]) -> Resource {
    let endpoints = addresses.iter().copied().map(Endpoint::ready).collect();
    Resource::from(EndpointSet { backend: name(service).as_str().into(), endpoints: Endpoints::Addresses(endpoints) })
}

pub fn certificate(name: &str, leaf: &Leaf) -> Resource {
    Resource::from(Certificate {
        name: CertificateName::from(name),
        origin: Owner::new("Secret", "default", name),
        fingerprint: "".into(),
        not_after: i64::MAX,
        chain: leaf.chain().iter().map(|der| Arc::from(der.as_ref())).collect(),
        key: PrivateKey::new(leaf.key().secret_der().to_vec()),
    })
}

fn name(service: &str) -> String {
    format!("default/{service}:80")
}
