//! The operator's choices by flags, as opposed to users' choices in objects.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::objects::ObjectKey;

/// Ports that ingress-nginx reserves, with the flags that move them. Those without a use here stay reserved, so that an entry means
/// the same in both.
pub const RESERVED_PORTS: [(u16, &str); 6] = [
    (442, "ssl-passthrough-proxy-port"),
    (8181, "default-server-port"),
    (10245, "profiler-port"),
    (10246, "status-port"),
    (10247, "stream-port"),
    (10254, "healthz-port"),
];

/// The usual ports of the process for Gateways with an address of their own: below those that systems give to outgoing connections
/// and to NodePorts.
pub const GATEWAY_PORTS: RangeInclusive<u16> = 20000..=20499;

/// How objects are read. Flag names and meanings are those of ingress-nginx.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Options {
    /// `--annotations-prefix`, without slash.
    pub annotations_prefix: String,
    /// `--controller-class`: the `spec.controller` of our IngressClasses.
    pub controller_class: String,
    /// `--ingress-class`: the value of the old annotation.
    pub ingress_class: String,
    /// `--ingress-class-by-name`: also serve the IngressClass of that name, whatever its controller.
    pub ingress_class_by_name: bool,
    /// `--watch-ingress-without-class`.
    pub watch_ingress_without_class: bool,
    /// Whether an Ingress without a class belongs to the default IngressClass, if that is ours. In a cluster the API server has
    /// filled the class in; files lack it. Implied by [`development`](Self::development).
    pub default_class_by_mark: bool,
    /// Whether IngressClass objects can be read. If not, `spec.ingressClassName` is never ours.
    pub ingress_classes_readable: bool,
    /// `--watch-namespace`: serve only this namespace.
    pub watch_namespace: Option<String>,
    /// `--watch-namespace-selector`: serve only namespaces with these labels.
    pub namespace_selector: Option<LabelSelector>,
    /// `--configmap`: the global ConfigMap, namespace and name.
    pub configmap: Option<(String, String)>,
    /// `--tcp-services-configmap`, namespace and name.
    pub tcp_services: Option<(String, String)>,
    /// `--udp-services-configmap`, namespace and name.
    pub udp_services: Option<(String, String)>,
    /// Addresses of TCP and UDP services. The ConfigMap's `bind-address` replaces them.
    pub stream_addresses: Vec<IpAddr>,
    /// Ports that TCP and UDP services can't use, each with the flag that reserves it, without dashes. Those of
    /// [`http`](Self::http) and [`https`](Self::https) can't be used either.
    pub reserved_ports: BTreeMap<u16, String>,
    /// `--default-backend-service`, namespace and name.
    pub default_backend_service: Option<(String, String)>,
    /// `--publish-service`, namespace and name: the Service in front of the proxy, whose ready endpoints are its replicas.
    pub publish_service: Option<(String, String)>,
    /// `--default-ssl-certificate`, namespace and name of the Secret.
    pub default_ssl_certificate: Option<(String, String)>,
    /// `--enable-ssl-passthrough`: without it the annotation `ssl-passthrough` has no effect.
    pub ssl_passthrough: bool,
    /// The zone of our own node, with `--enable-topology-aware-routing`: Services that ask for it are served by endpoints for this zone.
    pub zone: Option<String>,
    /// `--maxmind-edition-ids`: geographic databases, with `use-geoip2`.
    pub geo_editions: Vec<String>,
    /// `--disable-catch-all`.
    pub disable_catch_all: bool,
    /// `--disable-svc-external-name`. It holds for XBackends with an external host too.
    pub disable_external_name: bool,
    /// `--deep-inspect`.
    pub deep_inspect: bool,
    /// `--enable-annotation-validation`.
    pub annotation_validation: bool,
    /// Addresses of the listeners with and without TLS. The ConfigMap's `bind-address` replaces the IP, never the port.
    pub http: Vec<SocketAddr>,
    /// See [`http`](Self::http).
    pub https: Vec<SocketAddr>,
    /// Whether the API server has the kind XBackend: without its CRD, references to it are to an unknown kind.
    pub has_xbackends: bool,
    /// `--gateway-controller-name`: the `spec.controllerName` of our GatewayClasses, by which our entries in a status are marked too.
    pub gateway_controller: String,
    /// `--gateway-address`.
    pub gateway_address: GatewayAddressing,
    /// `--gateway-ports`: the ports of the process for these addresses.
    pub gateway_ports: RangeInclusive<u16>,
    /// Loopback, link-local or metadata addresses that ExternalName Services and XBackends may lead to nevertheless.
    pub allowed_backend_addresses: Vec<IpAddr>,
    /// Stand-ins for a cluster (`fairway dev` only).
    pub development: Option<Development>,
}

/// Stand-ins for a cluster in `fairway dev`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Development {
    /// The built-in echo, which answers for Services without known endpoints. `None` with `--no-echo`.
    pub echo: Option<SocketAddr>,
    /// Whether the echo also answers for Services that are missing from the files.
    pub echo_for_missing: bool,
    /// `--backend NAMESPACE/SERVICE:PORT=HOST:PORT`: the Service port, as the Ingress names it, and its replacement.
    pub backends: BTreeMap<(ObjectKey, String), SocketAddr>,
    /// The port that redirects to https name, since no Service in front maps 443 to it.
    pub https_port: Option<u16>,
    /// Whether objects are judged as in a cluster instead of being served here: those that need Services of their own are refused.
    pub judged: bool,
}

impl Options {
    /// Whether objects that need Services of their own get none: a controller creates them only with `--gateway-address=asked` or `own`.
    pub(crate) fn lacks_own_services(&self) -> bool {
        self.gateway_address == GatewayAddressing::Shared && self.development.as_ref().is_none_or(|all| all.judged)
    }
}

/// The request field that tells the echo which Service it answers for.
pub const ECHO_SERVICE_FIELD: &str = "X-Fairway-Echo-Service";

/// A label selector in its text form: `key=value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key`, `!key`, joined by commas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// Why a text is not a label selector.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not a label selector: expected key=value, key!=value, key in (a,b), key notin (a,b), key or !key, joined by commas"
)]
pub struct InvalidLabelSelector(String);

impl std::str::FromStr for LabelSelector {
    type Err = InvalidLabelSelector;

    fn from_str(text: &str) -> Result<Self, InvalidLabelSelector> {
        let invalid = || InvalidLabelSelector(text.to_owned());
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            // A comma within parentheses belongs to the list of values.
            let open = rest.find('(');
            let comma = rest.find(',');
            let end = match (open, comma) {
                (Some(open), Some(comma)) if open < comma => {
                    let close = rest.find(')').ok_or_else(invalid)?;
                    rest[close..].find(',').map(|at| close + at)
                }
                (_, comma) => comma,
            };
            let (part, tail) = end.map_or((rest, ""), |end| (&rest[..end], &rest[end + 1..]));
            requirements.push(Requirement::parse(part.trim()).ok_or_else(invalid)?);
            rest = tail.trim();
        }
        if requirements.is_empty() { Err(invalid()) } else { Ok(Self { requirements }) }
    }
}

impl Requirement {
    fn parse(text: &str) -> Option<Self> {
        let key = |text: &str| {
            let key = text.trim();
            let valid = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
            valid.then(|| key.to_owned())
        };
        let list = |text: &str| {
            let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
            Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
        };
        if let Some(name) = text.strip_prefix('!') {
            return Some(Self::Absent(key(name)?));
        }
        if let Some((name, values)) = text.split_once(" notin ") {
            return Some(Self::NotIn(key(name)?, list(values)?));
        }
        if let Some((name, values)) = text.split_once(" in ") {
            return Some(Self::In(key(name)?, list(values)?));
        }
        if let Some((name, value)) = text.split_once("!=") {
            return Some(Self::NotIn(key(name)?, vec![value.trim().to_owned()]));
        }
        if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Some(Self::In(key(name)?, vec![value.trim().to_owned()]));
        }
        Some(Self::Exists(key(text)?))
    }
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn selects(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &String| labels.and_then(|labels| labels.get(key));
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::Absent(key) => value(key).is_none(),
        })
    }
}

/// Which Gateways get an address of their own (`--gateway-address`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum GatewayAddressing {
    /// None: all of them share the address of Ingresses.
    #[default]
    Shared,
    /// Those with `spec.addresses`, or with labels or annotations in `spec.infrastructure`.
    Asked,
    /// Each of them.
    Own,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            annotations_prefix: "nginx.ingress.kubernetes.io".into(),
            controller_class: "k8s.io/ingress-nginx".into(),
            ingress_class: "nginx".into(),
            ingress_class_by_name: false,
            watch_ingress_without_class: false,
            default_class_by_mark: false,
            ingress_classes_readable: true,
            watch_namespace: None,
            namespace_selector: None,
            configmap: None,
            tcp_services: None,
            udp_services: None,
            stream_addresses: vec![IpAddr::from([0, 0, 0, 0])],
            reserved_ports: RESERVED_PORTS.iter().map(|(port, flag)| (*port, (*flag).to_owned())).collect(),
            default_backend_service: None,
            publish_service: None,
            default_ssl_certificate: None,
            ssl_passthrough: false,
            zone: None,
            geo_editions: vec!["GeoLite2-City".into(), "GeoLite2-ASN".into()],
            disable_catch_all: false,
            disable_external_name: false,
            deep_inspect: true,
            annotation_validation: true,
            http: vec![SocketAddr::from(([0, 0, 0, 0], 80))],
            https: vec![SocketAddr::from(([0, 0, 0, 0], 443))],
            has_xbackends: true,
            gateway_controller: crate::gateway::CONTROLLER.into(),
            gateway_address: GatewayAddressing::Shared,
            gateway_ports: GATEWAY_PORTS,
            allowed_backend_addresses: Vec::new(),
            development: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubernetes_does() {
        let labels: BTreeMap<_, _> = [("env".to_owned(), "prod".to_owned())].into();
        for (text, selected) in [
            ("env=prod", true),
            ("env==prod", true),
            ("env!=prod", false),
            ("env in (dev, prod),env", true),
            ("env notin (dev,prod)", false),
            ("team!=a", true),
            ("!team", true),
            ("team", false),
        ] {
            assert_eq!(text.parse::<LabelSelector>().unwrap().selects(Some(&labels)), selected, "{text}");
        }
        for bad in ["", "=x", "a in b", "a in (b", "a b"] {
            assert!(bad.parse::<LabelSelector>().is_err(), "{bad:?}");
        }
    }
}
