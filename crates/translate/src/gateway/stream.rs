//! Traffic that is passed on without being read: connections of TLS, TCP and UDP listeners, and the routes that say where they go.

use fairway_model::{CertificateName, Origin, Scheme, StreamBackends, StreamShare};

use super::api::{GatewayListener, StreamRule};
use super::backend_tls::showing;
use super::place::Port;
use super::rule::{BuiltRule, RuleReader};
use super::status::Shortcoming;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::objects::Kind;
use crate::resource::backend::Layer;

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Protocol {
    Http,
    Https,
    /// TLS, which is either passed on or terminated so that its content is passed on.
    Tls {
        terminate: bool,
    },
    Tcp,
    Udp,
}

/// The kind of traffic that a port is open for: listeners with the same kind share a port, and host names tell them apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// Connections whose client names a host. TLS that is passed on arrives at the same ports as HTTPS.
    Named(Scheme),
    /// Connections or datagrams of one listener.
    Stream,
}

/// Where the traffic of a route goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Passage {
    /// The route.
    pub(super) origin: Origin,
    /// Where datagrams go, and connections that are passed on unchanged.
    pub(super) backends: StreamBackends,
    /// Where the content of a connection goes if TLS ends at the proxy or there was none: BackendTLSPolicies apply to it. `None` if the
    /// backends have none.
    pub(super) secured: Option<StreamBackends>,
}

impl Passage {
    /// Where the content of a connection goes. Endpoints that speak TLS are presented this certificate.
    pub(super) fn content(&self, shown: Option<&CertificateName>) -> StreamBackends {
        let content = self.secured.as_ref().unwrap_or(&self.backends);
        match (content, shown) {
            (StreamBackends::Weighted(shares), Some(shown)) if shares.iter().any(|share| share.tls.is_some()) => {
                let showing = |share: &StreamShare| StreamShare {
                    tls: share.tls.as_ref().map(|tls| showing(tls, shown)),
                    ..share.clone()
                };
                StreamBackends::Weighted(shares.iter().map(showing).collect())
            }
            _ => content.clone(),
        }
    }
}

impl Protocol {
    /// The protocol of a listener; `None` if it is not served.
    pub(super) fn of(listener: &GatewayListener) -> Option<Self> {
        match &*listener.protocol {
            "HTTP" => Some(Self::Http),
            "HTTPS" => Some(Self::Https),
            "TLS" => Some(Self::Tls { terminate: !listener.passes_through() }),
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }

    /// The kinds of route that its listeners take.
    pub(super) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Http | Self::Https => &[Kind::HTTPRoute, Kind::GRPCRoute],
            // The content of TLS is a connection like any other.
            Self::Tls { terminate: true } => &[Kind::TLSRoute, Kind::TCPRoute],
            Self::Tls { terminate: false } => &[Kind::TLSRoute],
            Self::Tcp => &[Kind::TCPRoute],
            Self::Udp => &[Kind::UDPRoute],
        }
    }

    pub(super) fn door(self) -> Door {
        match self {
            Self::Http => Door::Named(Scheme::Http),
            Self::Https | Self::Tls { .. } => Door::Named(Scheme::Https),
            Self::Tcp | Self::Udp => Door::Stream,
        }
    }

    /// A port of this protocol.
    pub(super) fn port(self, number: u16) -> Port {
        Port { layer: if self == Self::Udp { Layer::Udp } else { Layer::Tcp }, number }
    }

    /// Whether a listener needs a certificate.
    pub(super) fn ends_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls { terminate: true })
    }
}

/// The traffic to the backends of a kind of route.
pub(super) fn layer(kind: Kind) -> Layer {
    match kind {
        Kind::TLSRoute | Kind::TCPRoute => Layer::Tcp,
        Kind::UDPRoute => Layer::Udp,
        _ => Layer::Gateway,
    }
}

impl RuleReader<'_> {
    /// Where a rule leads. The connections of a backend's share are closed if the reference doesn't lead to it, or if it can't be reached
    /// as a policy demands.
    pub(super) fn passage(&self, at: usize, rule: &StreamRule) -> (Passage, BuiltRule) {
        let mut built = BuiltRule::default();
        let (mut shares, mut secured) = (Vec::new(), Vec::new());
        let what = if self.key.kind == Kind::UDPRoute { "datagrams is dropped" } else { "connections is closed" };
        for (index, reference) in rule.backend_refs.iter().enumerate() {
            let field = format!("spec.rules[{at}].backendRefs[{index}]");
            let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or(0);
            let share = |backend, tls| StreamShare { backend, weight, tls };
            match self.backend(reference, &mut built) {
                Ok(backend) => {
                    let name = backend.key.name();
                    shares.push(share(Some(name.clone()), None));
                    secured.push(match backend.tls {
                        Ok(tls) => share(Some(name), tls),
                        // A backend that a policy demands TLS for gets nothing in the clear.
                        Err(why) => {
                            built.findings.extend(self.unreachable(&field, &reference.name, &why));
                            share(None, None)
                        }
                    });
                    built.backends.push((backend.key, field));
                }
                Err((reason, fault)) => {
                    let message = format!("{}; its share of the {what}", fault.message);
                    let found =
                        Diagnostic::new(Severity::Error, reason, self.origin, &*field, &reference.name, message);
                    built.findings.push(found.unserved());
                    let fault = Shortcoming::new(fault.reason, format!("{field}: {}", fault.message));
                    built.unresolved.get_or_insert(fault);
                    shares.push(share(None, None));
                    secured.push(share(None, None));
                }
            }
        }
        if rule.backend_refs.is_empty() {
            let field = format!("spec.rules[{at}].backendRefs");
            let (severity, reason) = (Severity::Warning, Reason::InvalidBackend);
            built.findings.push(Diagnostic::new(severity, reason, self.origin, field, "", "no backend"));
        }
        // Datagrams have no TLS, and policies don't apply to them.
        let secured = (secured != shares && self.key.kind != Kind::UDPRoute).then(|| backends(secured));
        let origin = self.origin.section(format!("rules[{at}]"));
        (Passage { origin, backends: backends(shares), secured }, built)
    }

    /// The finding that a backend can't be reached as a policy demands. Connections of TLSRoutes may still pass to it unchanged.
    fn unreachable(&self, field: &str, name: &str, why: &str) -> Option<Diagnostic> {
        let reason = Reason::BackendPolicyRefused;
        let found = |severity, message: String| Diagnostic::new(severity, reason, self.origin, field, name, message);
        match self.key.kind {
            Kind::UDPRoute => None,
            Kind::TLSRoute => {
                let then = "its share of the connections whose TLS ends at the proxy is closed";
                Some(found(Severity::Warning, format!("{why}; {then}")))
            }
            _ => Some(found(Severity::Error, format!("{why}; its share of the connections is closed")).unserved()),
        }
    }
}

fn backends(shares: Vec<StreamShare>) -> StreamBackends {
    match &shares[..] {
        [StreamShare { backend: Some(only), weight: 1.., tls: None }] => StreamBackends::One(only.clone()),
        _ => StreamBackends::Weighted(shares.into()),
    }
}
