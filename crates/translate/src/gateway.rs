//! The reader of the Gateway API: classes, Gateways with their listeners, routes, and the grants between namespaces.
//!
//! Each object is read by itself (`listener`, `route`); `attach` decides which listeners take a route, and `reader` keeps all of it up to
//! date and turns it into hosts. Each port of an address has its own table of hosts. On the ports of Ingresses, it lies above that of the
//! Ingresses (`Onward`): of all hosts for a name the most specific takes a request, and a host that both name has the routes of both. Two
//! routes conflict only if their whole match is the same, path and conditions; the younger route then stays behind the older, where no
//! request reaches it but `explain` finds it. Services that give Gateways an address of their own are data too ([`Make`]): the leader
//! writes what translation wants, and every replica opens the ports that it reads in them.

pub mod api;
mod attach;
mod backend_tls;
mod claim;
mod frontend;
mod grant;
mod host;
mod listener;
mod listener_set;
mod open;
mod parameters;
mod place;
mod read_match;
mod reader;
mod route;
mod route_policy;
mod rule;
mod selection;
mod service;
mod session;
pub mod status;
mod stream;
mod telemetry_policy;
mod traffic_policy;
mod xbackend;

pub use claim::{Claims, PassedOver};
pub(crate) use place::{PortInUse, StreamPorts, Traffic};
pub(crate) use reader::{GatewayInputs, GatewayOwned, Gateways};
pub use route_policy::api as policy;
pub use route_policy::parameters::GatewayParameters;
pub use route_policy::{AppliedPolicy, schema};
pub(crate) use selection::{service_key, service_port};
pub use service::{Make, is_for_gateway};
pub(crate) use service::{XBACKEND, alike, made_for};
pub(crate) use traffic_policy::TrafficPolicies;

/// The name by which a GatewayClass selects Fairway (`spec.controllerName`), unless `--gateway-controller-name` sets another one.
pub const CONTROLLER: &str = "fairway.dev/gateway";
