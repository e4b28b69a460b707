//! The ConfigMaps of TCP and UDP services (`--tcp-services-configmap`, `--udp-services-configmap`).
//!
//! A key is a port of the proxy, its value `namespace/service:port`, then `:PROXY` to read a PROXY header from the client, and
//! another `:PROXY` to send one to the endpoint; `::PROXY` only sends. An invalid entry is reported and affects no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{Origin, Transport};

use crate::diagnostic::{Diagnostic, Reason, Severity, bounded};
use crate::options::Options;
use crate::resource::backend::{BackendKey, BackendPort, Layer};

/// The expected value.
const TCP_SYNTAX: &str = "expected namespace/service:port, then :PROXY to read a PROXY header, :PROXY:PROXY to send it on or ::PROXY to only send one";
const UDP_SYNTAX: &str = "expected namespace/service:port";

/// One entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StreamService {
    /// The port to listen on.
    pub(crate) port: u16,
    /// TCP or UDP.
    pub(crate) transport: Transport,
    /// The destination.
    pub(crate) backend: BackendKey,
}

/// The field of an entry, as a user would write it.
pub(crate) fn field(port: &str) -> String {
    format!("data[\"{}\"]", bounded(port))
}

/// The entries of a ConfigMap, by port.
pub(crate) fn read(
    origin: &Origin,
    data: &BTreeMap<String, String>,
    layer: Layer,
    options: &Options,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<StreamService> {
    let mut services = Vec::new();
    for (key, value) in data {
        let mut report = |severity, message: &str| {
            let reason = Reason::InvalidConfiguration;
            diagnostics.push(Diagnostic::new(severity, reason, origin, field(key), value, message));
        };
        let Some(port) = key.parse().ok().filter(|port: &u16| *port != 0 && port.to_string() == *key) else {
            report(Severity::Error, "expected a port from 1 to 65535 as the key; the entry is ignored");
            continue;
        };
        if let Some(flag) = reserved(port, options) {
            let message = format!("port {port} is reserved (--{flag}); the entry is ignored, choose another port");
            report(Severity::Error, &message);
            continue;
        }
        let syntax = if layer == Layer::Udp { UDP_SYNTAX } else { TCP_SYNTAX };
        let Some((backend, accept_proxy, send_proxy)) = entry(value, layer) else {
            report(Severity::Error, &format!("{syntax}; the entry is ignored"));
            continue;
        };
        let transport = match layer {
            Layer::Udp => {
                if accept_proxy || send_proxy {
                    report(Severity::Warning, "the PROXY protocol is for TCP only; it is neither read nor sent");
                }
                Transport::Udp
            }
            Layer::Http
            | Layer::Gateway
            | Layer::Tcp
            | Layer::Auth
            | Layer::Name
            | Layer::XBackendHttp
            | Layer::XBackendTcp => Transport::Tcp { accept_proxy, send_proxy },
        };
        services.push(StreamService { port, transport, backend });
    }
    services.sort_by_key(|service| service.port);
    services
}

/// The flag that reserves an unusable port.
fn reserved(port: u16, options: &Options) -> Option<&str> {
    let of = |addresses: &[std::net::SocketAddr]| addresses.iter().any(|address| address.port() == port);
    if of(&options.http) {
        return Some("http-port");
    }
    if of(&options.https) {
        return Some("https-port");
    }
    options.reserved_ports.get(&port).map(String::as_str)
}

/// The backend, and whether PROXY headers are read and sent.
fn entry(value: &str, layer: Layer) -> Option<(BackendKey, bool, bool)> {
    let mut parts = value.trim().split(':');
    let (namespace, service) = parts.next()?.split_once('/')?;
    let port = parts.next().filter(|port| is_name(port))?;
    let mut word = || match parts.next() {
        None | Some("") => Some(false),
        Some(word) => word.eq_ignore_ascii_case("PROXY").then_some(true),
    };
    let (accept_proxy, send_proxy) = (word()?, word()?);
    if parts.next().is_some() || !is_name(namespace) || !is_name(service) {
        return None;
    }
    let port = match BackendPort::named(port) {
        BackendPort::Number(number) if !(1..=65_535).contains(&number) => return None,
        port => port,
    };
    let backend = BackendKey { namespace: Arc::from(namespace), target: Arc::from(service), layer, port };
    Some((backend, accept_proxy, send_proxy))
}

/// Whether an object or port could have this name; whether one has is checked elsewhere.
fn is_name(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(layer: Layer, key: &str, value: &str) -> (Option<StreamService>, Vec<String>) {
        let mut diagnostics = Vec::new();
        let origin = Origin::new("ConfigMap", "ingress", "services");
        let data = [(key.to_owned(), value.to_owned())].into();
        let mut found = read(&origin, &data, layer, &Options::default(), &mut diagnostics);
        (found.pop(), diagnostics.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn all_forms_of_an_entry_are_read() {
        for (value, accept_proxy, send_proxy) in [
            ("a/b:8080", false, false),
            ("a/b:http", false, false),
            ("a/b:8080:PROXY", true, false),
            ("a/b:8080:proxy:", true, false),
            ("a/b:8080:PROXY:PROXY", true, true),
            ("a/b:8080::PROXY", false, true),
            ("a/b:8080::\n", false, false),
        ] {
            let (service, diagnostics) = one(Layer::Tcp, "9000", value);
            let expected = Transport::Tcp { accept_proxy, send_proxy };
            assert_eq!(service.map(|service| service.transport), Some(expected), "{value}: {diagnostics:?}");
            assert!(diagnostics.is_empty());
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in [
            "",
            "b:80",
            "a/b",
            "a/b:",
            "/b:80",
            "a/:80",
            "a/b/c:80",
            "a/b:0",
            "a/b:65536",
            "a/b:80:TLS",
            "a/b:80:::PROXY",
        ] {
            let (service, diagnostics) = one(Layer::Tcp, "9000", bad);
            assert!(service.is_none() && diagnostics.len() == 1, "{bad}: {diagnostics:?}");
            assert!(diagnostics[0].starts_with("ConfigMap ingress/services: data[\"9000\"]: "), "{diagnostics:?}");
        }
        for key in ["", "0", "65536", "+9000", "09000", "http", "-1"] {
            let (service, diagnostics) = one(Layer::Tcp, key, "a/b:80");
            assert!(service.is_none() && diagnostics[0].contains("expected a port from 1 to 65535"), "{key}");
        }
        for (key, flag) in [("80", "http-port"), ("443", "https-port"), ("10254", "healthz-port")] {
            let (service, diagnostics) = one(Layer::Udp, key, "a/b:80");
            assert!(service.is_none() && diagnostics[0].contains(flag), "{diagnostics:?}");
        }
    }

    #[test]
    fn datagrams_know_no_proxy_protocol() {
        let (service, diagnostics) = one(Layer::Udp, "53", "a/b:dns:PROXY");
        assert_eq!(service.map(|service| service.transport), Some(Transport::Udp));
        assert!(diagnostics[0].contains("for TCP only"), "{diagnostics:?}");
    }
}
