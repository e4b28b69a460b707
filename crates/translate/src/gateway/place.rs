//! Where listeners of Gateways are open: ports of the address that Gateways share, or of a Gateway's own address.
//!
//! One proxy serves all of them. It tells Gateways apart by the local port of a connection: a port of the shared address is a port of the
//! process, and each port of a Gateway's own address leads to a different port of the process (see `service`).

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use fairway_model::{ListenerName, Origin, Scheme, StreamBackends, TableName};

use super::status::Shortcoming;
use super::stream::Door;
use crate::objects::ObjectKey;
use crate::options::Options;
use crate::resource::backend::Layer;

/// A port of one address, as Gateways name it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// The Gateway whose address it is; `None` for the shared one.
    pub(super) gateway: Option<ObjectKey>,
    pub(super) port: Port,
}

/// A port. TCP and UDP may use the same number.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Port {
    /// TCP or UDP.
    pub(super) layer: Layer,
    pub(super) number: u16,
}

/// Ports that TCP and UDP services of ConfigMaps use.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamPorts {
    pub(crate) tcp: BTreeSet<u16>,
    pub(crate) udp: BTreeSet<u16>,
}

impl Place {
    /// The table of the hosts that are served there.
    pub(super) fn table(&self) -> TableName {
        self.to_string().as_str().into()
    }

    /// Whether Ingresses are served there too.
    pub(super) fn is_of_ingresses(&self) -> bool {
        self.gateway.is_none() && self.port.of_ingresses().is_some()
    }

    /// Why it can't be opened.
    pub(super) fn unavailable(&self, door: Door, options: &Options, streams: &StreamPorts) -> Option<Shortcoming> {
        let port = self.port.number;
        let fault = |message: String| Some(Shortcoming::new("PortUnavailable", format!("port {port}: {message}")));
        if self.gateway.is_some() {
            return None;
        }
        if let Some(other) = self.port.of_ingresses() {
            let message = || fault(format!("it is open for {other}, which Ingresses use there"));
            return if door == Door::Named(other) { None } else { message() };
        }
        // On a developer's machine another port takes its place.
        if options.development.is_some() {
            return None;
        }
        if options.gateway_ports.contains(&port) {
            let (first, last) = (options.gateway_ports.start(), options.gateway_ports.end());
            return fault(format!("{first} to {last} are for Gateways with an address of their own (--gateway-ports)"));
        }
        taken(self.port, options, streams).and_then(fault)
    }
}

/// `gateway-80`, or `gateway-namespace/name-80`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.port.number;
        match &self.gateway {
            None => write!(f, "gateway-{number}"),
            Some(ObjectKey { namespace, name, .. }) => write!(f, "gateway-{namespace}/{name}-{number}"),
        }
    }
}

/// A port that is open for Gateways.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PortInUse {
    pub(super) place: Place,
    pub(crate) traffic: Traffic,
    /// Where it is open; empty for a port of the Ingresses, which is open anyway.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// The traffic of a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Traffic {
    /// Connections whose client names a host.
    Named(Scheme),
    /// Connections or datagrams that are passed on.
    Stream {
        /// The listener of the Gateway.
        origin: Origin,
        /// Where they go.
        backends: StreamBackends,
    },
}

impl PortInUse {
    /// The table of the hosts that are served there.
    pub(crate) fn table(&self) -> TableName {
        self.place.table()
    }

    /// Its number, as the Gateway has it.
    pub(crate) fn number(&self) -> u16 {
        self.place.port.number
    }

    /// Whether Ingresses are served there too.
    pub(crate) fn is_shared(&self) -> bool {
        self.place.is_of_ingresses()
    }

    /// Whether it is a UDP port.
    pub(crate) fn is_udp(&self) -> bool {
        self.place.port.layer == Layer::Udp
    }

    /// The name of the listener for one of its addresses, counted from 1. A port whose traffic is passed on has a different name than one
    /// for requests: both kinds of listener share one set of names, and one may follow the other.
    pub(crate) fn listener(&self, count: usize) -> ListenerName {
        let place = &self.place;
        let name = match (&self.traffic, self.is_udp()) {
            (Traffic::Named(_), _) => place.to_string(),
            (Traffic::Stream { .. }, false) => format!("tcp-{place}"),
            (Traffic::Stream { .. }, true) => format!("udp-{place}"),
        };
        match count {
            1 => name.into(),
            _ => format!("{name}-{count}").into(),
        }
    }
}

impl Port {
    /// The scheme of the Ingresses' port that Gateways name by this number; `None` for any other port.
    fn of_ingresses(self) -> Option<Scheme> {
        let has = |scheme: &Scheme| self.layer == Layer::Tcp && scheme.default_port() == self.number;
        [Scheme::Http, Scheme::Https].into_iter().find(has)
    }
}

/// What already uses a port of the process, so that Gateways can't.
fn taken(port: Port, options: &Options, streams: &StreamPorts) -> Option<String> {
    let Port { layer, number: port } = port;
    if let Some(flag) = options.reserved_ports.get(&port) {
        return Some(format!("it is reserved (--{flag})"));
    }
    let mut doors = options.http.iter().chain(&options.https);
    if layer == Layer::Tcp && doors.any(|address| address.port() == port) {
        return Some("it is the port on which the proxy takes the requests for 80 or 443".to_owned());
    }
    let streams = if layer == Layer::Udp { &streams.udp } else { &streams.tcp };
    streams.contains(&port).then(|| "a TCP or UDP service has it".to_owned())
}

/// The ports of the process that the ports of Gateways' own addresses may lead to.
pub(super) fn pool<'a>(
    layer: Layer,
    options: &'a Options,
    streams: &'a StreamPorts,
) -> impl Iterator<Item = Port> + 'a {
    let ports = options.gateway_ports.clone().map(move |number| Port { layer, number });
    ports.filter(|port| taken(*port, options, streams).is_none())
}

/// The same port on all addresses of the proxy.
pub(super) fn everywhere(port: u16, options: &Options) -> Vec<SocketAddr> {
    let hosts: BTreeSet<_> = options.http.iter().map(SocketAddr::ip).collect();
    hosts.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// The port that takes the place of a Gateway's port on a developer's machine, where low ports need privileges and other programs use ports
/// too. `open` are those in use.
pub(super) fn local(port: Port, options: &Options, open: &mut BTreeSet<Port>) -> u16 {
    let Port { layer, number: port } = port;
    // The user asked for free ports.
    if options.http.iter().all(|address| address.port() == 0) {
        return 0;
    }
    let doors = || options.http.iter().chain(&options.https);
    let is_free =
        |port: &u16| doors().all(|address| address.port() != *port) && !open.contains(&Port { layer, number: *port });
    let wanted = if port < 1024 { port + 8000 } else { port };
    let candidates = (0..=60u16).map(|step| wanted.checked_add(step * 1000).unwrap_or(wanted - step));
    let free = candidates.into_iter().find(is_free).unwrap_or(wanted);
    open.insert(Port { layer, number: free });
    free
}
