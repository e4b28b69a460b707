//! Backends and their endpoints, from Services and EndpointSlices.
//!
//! A backend is one port of one Service as an object names it; all its owners share it. The owners decide how to connect to it; the Service
//! and its slices decide where its endpoints are. These are two resources, because the second changes with every rollout and must affect
//! nothing else.

mod endpoints;
mod external;
mod xbackend;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use fairway_model::{
    Affinity, AffinityMode, Backend, BackendName, Balance, EndpointSet, Endpoints, Origin, Protocol, RetryConstraint,
};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::configmap::GlobalConfig;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::gateway::api::XBackend;
use crate::objects::{Kind, ObjectKey};
use crate::options::{Development, ECHO_SERVICE_FIELD, Options};
use crate::resource::Owner;

pub(crate) use self::external::outside;

/// A port of a Service, or of what stands in for a Service, as an object names it, and its traffic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct BackendKey {
    pub(crate) namespace: Arc<str>,
    /// The name of a Service or an XBackend, or the DNS name or the address itself.
    pub(crate) target: Arc<str>,
    pub(crate) layer: Layer,
    pub(crate) port: BackendPort,
}

/// The traffic to a backend. Each kind makes a separate backend of the same port: endpoints are chosen differently, and TCP and UDP may use
/// the same number.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Layer {
    /// Requests.
    Http,
    /// Requests by routes of the Gateway API. The annotations of Ingresses don't apply to them.
    Gateway,
    /// Bytes of a TCP service.
    Tcp,
    /// Datagrams of a UDP service.
    Udp,
    /// Requests of the proxy itself, to an authentication service or a receiver of spans. Owners may be in other namespaces, so they decide
    /// nothing.
    Auth,
    /// The same, to a DNS name or an address, which is in `target`; the namespace is empty.
    Name,
    /// Requests by routes of the Gateway API to an XBackend: `target` is its name.
    XBackendHttp,
    /// Bytes of connections by such routes to an XBackend.
    XBackendTcp,
}

impl Layer {
    /// Whether a port of a Service or slice has the right protocol; an absent one means TCP.
    pub(crate) fn takes(self, protocol: Option<&str>) -> bool {
        let protocol = protocol.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
        protocol == self.protocol()
    }

    /// The protocol, as Services spell it.
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Http
            | Self::Gateway
            | Self::Tcp
            | Self::Auth
            | Self::Name
            | Self::XBackendHttp
            | Self::XBackendTcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Whether it receives clients' requests.
    fn is_of_requests(self) -> bool {
        matches!(self, Self::Http | Self::Gateway | Self::XBackendHttp)
    }
}

/// How an object names a port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum BackendPort {
    /// The first port of the Service (default backends).
    First,
    /// By number.
    Number(i32),
    /// By name.
    Name(Arc<str>),
}

impl BackendPort {
    /// A port by name; digits are a number, as in ingress-nginx.
    pub(crate) fn named(name: &str) -> Self {
        name.parse().map_or_else(|_| Self::Name(name.into()), Self::Number)
    }
}

impl fmt::Display for BackendPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => Ok(()),
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl BackendKey {
    /// For requests.
    pub(crate) fn new(namespace: impl Into<Arc<str>>, service: &str, port: BackendPort) -> Self {
        Self { namespace: namespace.into(), target: service.into(), layer: Layer::Http, port }
    }

    /// For routes of the Gateway API.
    pub(crate) fn of_gateway(namespace: impl Into<Arc<str>>, target: &str, layer: Layer, port: i32) -> Self {
        Self { namespace: namespace.into(), target: target.into(), layer, port: BackendPort::Number(port) }
    }

    /// `namespace/service:port`, and `namespace/service` for the first port; `/tcp` or `/udp` follows unless it receives requests.
    pub(crate) fn name(&self) -> BackendName {
        let suffix = match self.layer {
            Layer::Http => "",
            Layer::Gateway => "/gateway",
            Layer::Tcp => "/tcp",
            Layer::Udp => "/udp",
            Layer::Auth => "/auth",
            Layer::XBackendHttp => "/xbackend",
            Layer::XBackendTcp => "/xbackend-tcp",
            Layer::Name => return format!("//{}:{}", self.target, self.port).into(),
        };
        match self.port {
            BackendPort::First => format!("{}/{}{suffix}", self.namespace, self.target).into(),
            _ => format!("{}/{}:{}{suffix}", self.namespace, self.target, self.port).into(),
        }
    }

    /// The XBackend, if it is one.
    pub(crate) fn xbackend(&self) -> Option<ObjectKey> {
        let (namespace, name) = (self.namespace.clone(), self.target.clone());
        let is_one = matches!(self.layer, Layer::XBackendHttp | Layer::XBackendTcp);
        is_one.then_some(ObjectKey { kind: Kind::XBackend, namespace, name })
    }

    fn origin(&self) -> Origin {
        match self.xbackend() {
            Some(xbackend) => xbackend.origin(),
            None if self.layer == Layer::Name => Origin::new("Name", "", &*self.target),
            None => self.service().origin(),
        }
    }

    /// The Service.
    pub(crate) fn service(&self) -> ObjectKey {
        ObjectKey { kind: Kind::Service, namespace: self.namespace.clone(), name: self.target.clone() }
    }
}

/// A fault of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Problem {
    severity: Severity,
    reason: Reason,
    message: String,
}

impl Problem {
    fn new(severity: Severity, reason: Reason, message: impl Into<String>) -> Self {
        Self { severity, reason, message: message.into() }
    }

    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The fault as a finding about the object that mirrors its requests to the backend.
    pub(crate) fn of_mirror(&self, origin: &Origin, field: &str, backend: &BackendKey) -> Diagnostic {
        let (value, message) =
            (format!("{}:{}", backend.target, backend.port), format!("{}; no copies are sent", self.message));
        Diagnostic::new(self.severity.min(Severity::Warning), self.reason, origin, field, &value, message)
    }

    /// The fault as a finding about the policy whose spans the backend receives.
    pub(crate) fn of_receiver(&self, origin: &Origin, field: &str, backend: &BackendKey) -> Diagnostic {
        let (value, message) =
            (format!("{}:{}", backend.target, backend.port), format!("{}; no spans are sent", self.message));
        Diagnostic::new(self.severity.min(Severity::Warning), self.reason, origin, field, &value, message)
    }

    /// The fault as a finding about the object that refers to the backend.
    pub(crate) fn diagnostic(&self, origin: &Origin, field: &str, backend: &BackendKey) -> Diagnostic {
        let value = match backend.port {
            BackendPort::First => backend.target.to_string(),
            _ => format!("{}:{}", backend.target, backend.port),
        };
        // A default backend stands in for others, and Fairway stands in for it.
        let stands_in = backend.port == BackendPort::First;
        let then = match backend.layer {
            Layer::Http if stands_in => "Fairway answers in its place",
            Layer::Http if self.reason == Reason::NoEndpoints => {
                "requests answer 503 unless there is a default backend"
            }
            Layer::Http | Layer::Gateway | Layer::XBackendHttp => "requests answer 503",
            Layer::Tcp | Layer::XBackendTcp => "connections are closed",
            Layer::Udp => "datagrams are dropped",
            Layer::Auth | Layer::Name => "requests can't be authenticated and answer 500",
        };
        let message = format!("{}; {then}", self.message);
        let found = Diagnostic::new(self.severity, self.reason, origin, field, &value, message);
        let serves = backend.layer.is_of_requests() || matches!(backend.layer, Layer::Auth | Layer::Name);
        if serves && !stands_in { found.unserved() } else { found }
    }
}

/// A backend and its endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) backend: Backend,
    /// `None` if the Service or its port doesn't exist.
    pub(crate) endpoints: Option<EndpointSet>,
    pub(crate) problem: Option<Problem>,
}

/// The inputs of a backend.
pub(crate) struct Sources<'a> {
    pub(crate) service: Option<&'a Service>,
    pub(crate) xbackend: Option<&'a XBackend>,
    pub(crate) slices: Vec<&'a EndpointSlice>,
    /// Its owners, oldest first.
    pub(crate) owners: Vec<&'a Owner>,
    /// A policy's limit on tries after failures, if any.
    pub(crate) retry: Option<RetryConstraint>,
    /// Whether it is the global default backend.
    pub(crate) is_default: bool,
}

/// Builds a backend and its endpoints.
pub(crate) fn resolve(key: &BackendKey, sources: &Sources<'_>, config: &GlobalConfig, options: &Options) -> Resolved {
    let name = key.name();
    let service = sources.service.filter(|_| key.xbackend().is_none());
    let port = service.and_then(|service| find_port(service, key));
    // The first owner decides everything that a backend can have only once.
    let first = sources.owners.first();
    let of_requests = key.layer.is_of_requests();
    let by_cluster_address =
        of_requests && first.and_then(|first| first.wishes.by_cluster_address).unwrap_or(config.service_upstream);
    let found = match (key.layer, &key.port) {
        (Layer::Name, BackendPort::Number(number)) => external::named(&key.target, *number, options),
        (Layer::XBackendHttp | Layer::XBackendTcp, BackendPort::Number(number)) => {
            xbackend::find(key, *number, sources, options)
        }
        _ => endpoints::find(key, sources, port, by_cluster_address, options),
    };
    let (mut endpoints, mut problem) = match found {
        Ok(endpoints) => (Some(endpoints), None),
        Err(problem) if matches!(problem.reason, Reason::ServiceNotFound | Reason::PortNotFound) => {
            (None, Some(problem))
        }
        Err(problem) => (Some(Endpoints::Addresses(Vec::new())), Some(problem)),
    };
    let (mut request_fields, mut protocol) = (Vec::new(), Protocol::Http1);
    if let Some(development) = &options.development {
        if let Some(address) = local_process(key, port, development) {
            (endpoints, problem) = (Some(one(address)), None);
            if key.xbackend().is_some() {
                // The replaced endpoints would be the ones to speak TLS.
                protocol = Protocol::ClearHttp1;
            }
        } else if let Some(echo) = development.echo
            && endpoints.as_ref().is_none_or(|all| matches!(all, Endpoints::Addresses(none) if none.is_empty()))
            // The echo speaks HTTP.
            && of_requests
            // A wrong port or a forbidden address is a mistake here, as it would be in a cluster.
            && problem.as_ref().is_none_or(|problem| {
                development.echo_for_missing && problem.reason == Reason::ServiceNotFound
            })
        {
            // No finding: in development the echo is expected, and the list of routes shows it.
            (endpoints, problem) = (Some(one(echo)), None);
            let value = match key.port {
                BackendPort::First => format!("{}/{}", key.namespace, key.target),
                _ => name.to_string(),
            };
            request_fields = vec![(ECHO_SERVICE_FIELD.into(), value.into())];
            protocol = Protocol::ClearHttp1;
        }
    }
    let port_text = match (&key.port, port) {
        (BackendPort::First, Some(port)) => port.port.to_string(),
        (port, _) => port.to_string(),
    };
    let upstream_name = match key.port {
        _ if matches!(key.layer, Layer::Tcp | Layer::XBackendTcp) => {
            format!("tcp-{}-{}-{}", key.namespace, key.target, key.port).into()
        }
        _ if key.layer == Layer::XBackendHttp => {
            format!("xbackend-{}-{}-{}", key.namespace, key.target, key.port).into()
        }
        _ if key.layer == Layer::Udp => format!("udp-{}-{}-{}", key.namespace, key.target, key.port).into(),
        _ if key.layer == Layer::Name => format!("external-auth-{}-{}", key.target, key.port).into(),
        BackendPort::First if sources.is_default => "upstream-default-backend".into(),
        BackendPort::First => format!("custom-default-backend-{}-{}", key.namespace, key.target).into(),
        _ => format!("{}-{}-{}", key.namespace, key.target, key.port).into(),
    };
    let backend = Backend {
        name: name.clone(),
        origin: key.origin(),
        port: port_text.into(),
        upstream_name,
        protocol,
        balance: if of_requests { balance(&sources.owners, config) } else { Balance::RoundRobin },
        affinity: if matches!(key.layer, Layer::Auth | Layer::Name) { None } else { affinity(&sources.owners) },
        health_check: first.filter(|_| of_requests).and_then(|first| first.wishes.health_check.clone()),
        retry: sources.retry,
        request_fields,
    };
    let endpoints = endpoints.map(|endpoints| EndpointSet { backend: name, endpoints });
    Resolved { backend, endpoints, problem }
}

fn one(address: SocketAddr) -> Endpoints {
    Endpoints::Addresses(vec![fairway_model::Endpoint::ready(address)])
}

/// The local process that replaces a Service (`--backend`), found by name or number of the port.
fn local_process(key: &BackendKey, port: Option<&ServicePort>, development: &Development) -> Option<SocketAddr> {
    // `--backend` names it like a Service.
    let named = ObjectKey::new(Kind::Service, &*key.namespace, &*key.target);
    let find = |port: String| development.backends.get(&(named.clone(), port)).copied();
    find(key.port.to_string()).or_else(|| find(port?.port.to_string())).or_else(|| find(port?.name.clone()?))
}

/// Whether the Service stands for a name outside of the cluster, and its ports for that name's.
pub(crate) fn is_external(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// The port of a Service: by number, by name, or by an equal target port. Only ports of the right protocol count, so that a number
/// used for both protocols finds the right one.
pub(crate) fn find_port<'a>(service: &'a Service, key: &BackendKey) -> Option<&'a ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let mut right = ports.iter().filter(|port| key.layer.takes(port.protocol.as_deref()));
    match &key.port {
        BackendPort::First => right.next(),
        BackendPort::Number(number) => right.find(|port| {
            let target = match &port.target_port {
                Some(IntOrString::Int(target)) => target == number,
                Some(IntOrString::String(target)) => target.parse() == Ok(*number),
                None => false,
            };
            // Routes of the Gateway API name ports of the Service only.
            port.port == *number || target && key.layer != Layer::Gateway
        }),
        BackendPort::Name(name) => right.find(|port| {
            let target = matches!(&port.target_port, Some(IntOrString::String(target)) if **target == **name);
            port.name.as_deref() == Some(name) || target
        }),
    }
}

/// The ports of a Service, in words, for a backend whose port is not among them.
pub(crate) fn ports(key: &BackendKey, service: &Service) -> String {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let known: Vec<String> = ports
        .iter()
        .filter(|port| key.layer.takes(port.protocol.as_deref()))
        .take(8)
        .map(|port| match port.name.as_deref() {
            Some(name) if !name.is_empty() => format!("{} ({name})", port.port),
            _ => port.port.to_string(),
        })
        .collect();
    let known = if known.is_empty() { format!("no {} port", key.layer.protocol()) } else { known.join(", ") };
    format!("Service {}/{} has {known}", key.namespace, key.target)
}

fn port_missing(key: &BackendKey, service: &Service) -> Problem {
    Problem::new(Severity::Warning, Reason::PortNotFound, ports(key, service))
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// The first owner decides; if it sets nothing, the ConfigMap does.
fn balance(owners: &[&Owner], config: &GlobalConfig) -> Balance {
    let first = owners.first().and_then(|owner| owner.wishes.balance.clone());
    first.unwrap_or_else(|| config.load_balance.balance())
}

/// The mode comes from the first owner that has one, the cookie from the last one, as in ingress-nginx.
fn affinity(owners: &[&Owner]) -> Option<Affinity> {
    let (cookie, change_on_failure) = owners.iter().rev().find_map(|owner| owner.wishes.affinity.clone())?;
    let mode = owners.iter().find_map(|owner| owner.wishes.affinity_mode).unwrap_or(AffinityMode::Balanced);
    Some(Affinity { mode, cookie, change_on_failure })
}
