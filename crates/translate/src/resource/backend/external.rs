//! Services of type ExternalName, and XBackends with an external host: a DNS name in place of endpoints.
//!
//! Such a name would let anyone who may create one of these objects direct the proxy to itself, to its node or to the cloud's metadata
//! server. Names that reveal this are refused here; the proxy checks the addresses that a name resolves to.

use std::net::{IpAddr, SocketAddr};

use fairway_model::{Endpoints, Hostname, is_special};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{BackendKey, BackendPort, Problem, port_missing, port_number};
use crate::diagnostic::{Reason, Severity, bounded};
use crate::options::Options;

/// The destination of an ExternalName Service.
pub(super) fn find(
    key: &BackendKey,
    service: &Service,
    port: Option<&ServicePort>,
    options: &Options,
) -> Result<Endpoints, Problem> {
    let forbidden = |message: String| Problem::new(Severity::Error, Reason::ForbiddenAddress, message);
    if options.disable_external_name {
        return Err(forbidden("Services of type ExternalName are turned off".into()));
    }
    let number = match (port, &key.port) {
        (Some(port), _) => match port.target_port {
            Some(IntOrString::Int(target)) if target != 0 => port_number(target),
            _ => port_number(port.port),
        },
        (None, BackendPort::Number(number)) => port_number(*number),
        (None, _) => None,
    };
    let Some(number) = number else { return Err(port_missing(key, service)) };
    let name = service.spec.as_ref().and_then(|spec| spec.external_name.as_deref()).unwrap_or_default();
    at(name, "externalName", number, options)
}

/// The destination of a name that isn't a Service's.
pub(super) fn named(name: &str, number: i32, options: &Options) -> Result<Endpoints, Problem> {
    let number = port_number(number);
    let missing = || Problem::new(Severity::Error, Reason::InvalidBackend, "expected a port from 1 to 65535");
    at(name, "the host", number.ok_or_else(missing)?, options)
}

/// The host of an XBackend. It is a whole name (the specification says FQDN), which no search domain of the cluster completes: completed
/// names would lead to Services of any namespace, as names of the cluster would.
pub(crate) fn outside(name: &str, number: i32, options: &Options) -> Result<Endpoints, Problem> {
    let forbidden = |message: String| Problem::new(Severity::Error, Reason::ForbiddenAddress, message);
    if options.disable_external_name {
        return Err(forbidden("hosts outside of the cluster are turned off (--disable-svc-external-name)".into()));
    }
    let missing = || Problem::new(Severity::Error, Reason::InvalidBackend, "expected a port from 1 to 65535");
    match at(name, "the host", port_number(number).ok_or_else(missing)?, options)? {
        // In the form in which it is resolved: without a dot at the end, in lower case.
        Endpoints::Name { host, .. } if host.rsplit('.').take(2).eq(["local", "cluster"]) => {
            Err(forbidden(format!("{host} is a name of the cluster: refer to the Service")))
        }
        Endpoints::Name { host, port } => Ok(Endpoints::Name { host: format!("{host}.").into(), port }),
        Endpoints::Addresses(_) => {
            let message = format!("{} is an address: expected a DNS name", bounded(name));
            Err(Problem::new(Severity::Error, Reason::InvalidBackend, message))
        }
    }
}

fn at(name: &str, what: &str, number: u16, options: &Options) -> Result<Endpoints, Problem> {
    let forbidden = |message: String| Problem::new(Severity::Error, Reason::ForbiddenAddress, message);
    if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        if is_special(address) && !options.allowed_backend_addresses.contains(&address) {
            return Err(forbidden(format!("{address} may not be a backend")));
        }
        return Ok(super::one(SocketAddr::new(address, number)));
    }
    let Ok(host) = name.parse::<Hostname>() else {
        let message = format!("{what} \"{}\" is no DNS name", bounded(name));
        return Err(Problem::new(Severity::Error, Reason::InvalidBackend, message));
    };
    let last = host.as_str().rsplit('.').next().unwrap_or_default();
    // Some resolvers read `127.1` and `0x7f000001` as addresses.
    let looks_like_address = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    let is_local = last == "localhost" || last == "localdomain";
    let loopback_allowed = options.allowed_backend_addresses.iter().any(IpAddr::is_loopback);
    if looks_like_address || (is_local && !loopback_allowed) {
        return Err(forbidden(format!("{host} may not be a backend")));
    }
    Ok(Endpoints::Name { host: host.as_str().into(), port: number })
}
