//! The input of a case: settings, then manifests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fairway_translate::gateway::GatewayParameters;
use fairway_translate::gateway::api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute, XBackend, XBackendTrafficPolicy, XTelemetryPolicy,
};
use fairway_translate::gateway::policy::RoutePolicy;
use fairway_translate::objects::{Kind, Object, ObjectKey, Objects};
use fairway_translate::options::{Development, GatewayAddressing, Options};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use libtest_mimic::Failed;
use serde::Deserialize;
use serde_norway::Value;

/// The first document.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// The purpose of the case.
    about: String,
    /// Flags, by the names of ingress-nginx.
    #[serde(default)]
    flags: Flags,
    /// Seconds since 1970.
    #[serde(default = "today")]
    now: i64,
    /// Requests as `URL`; the output shows their routes.
    #[serde(default)]
    requests: Vec<String>,
    /// TLS Secrets to create.
    #[serde(default)]
    certificates: Vec<Certificate>,
    /// Parts of the output to show beside hosts, backends and diagnostics: `settings`, `listeners`, `catch-all`.
    #[serde(default)]
    show: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Flags {
    annotations_prefix: Option<String>,
    controller_class: Option<String>,
    ingress_class: Option<String>,
    ingress_class_by_name: bool,
    watch_ingress_without_class: bool,
    watch_namespace: Option<String>,
    watch_namespace_selector: Option<String>,
    configmap: Option<String>,
    tcp_services_configmap: Option<String>,
    udp_services_configmap: Option<String>,
    stream_addresses: Option<Vec<IpAddr>>,
    default_backend_service: Option<String>,
    publish_service: Option<String>,
    default_ssl_certificate: Option<String>,
    disable_catch_all: bool,
    enable_ssl_passthrough: bool,
    disable_svc_external_name: bool,
    /// Without the CRD of XBackend.
    no_xbackends: bool,
    http: Option<Vec<SocketAddr>>,
    https: Option<Vec<SocketAddr>>,
    allowed_backend_addresses: Vec<IpAddr>,
    /// `own`: each Gateway gets an address of its own.
    gateway_address: Option<String>,
    /// First and last.
    gateway_ports: Option<(u16, u16)>,
    development: bool,
    no_echo: bool,
    backend: BTreeMap<String, SocketAddr>,
    /// The zone of our own node, with `--enable-topology-aware-routing`.
    zone: Option<String>,
}

/// A Secret with a self-signed certificate.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    /// `namespace/name`.
    secret: String,
    /// Subject alternative names.
    #[serde(default)]
    names: Vec<String>,
    /// Common name.
    #[serde(default)]
    common_name: Option<String>,
    /// Year in which it expires.
    #[serde(default = "far")]
    until: i32,
    /// Year in which it becomes valid.
    #[serde(default = "long_ago")]
    from: i32,
    /// Whether the key belongs to another certificate.
    #[serde(default)]
    wrong_key: bool,
    /// Whether the key is of the kind Ed25519 instead of ECDSA.
    #[serde(default)]
    ed25519: bool,
    /// Whether the certificate is also an authority (`ca.crt`), or only that.
    #[serde(default)]
    authority: Authority,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Authority {
    #[default]
    No,
    Too,
    Only,
}

/// 2026-01-01.
fn today() -> i64 {
    1_767_225_600
}

fn far() -> i32 {
    2036
}

fn long_ago() -> i32 {
    2020
}

/// A case, ready for translation.
pub(crate) struct Ready {
    pub(crate) about: String,
    pub(crate) objects: Objects,
    pub(crate) options: Options,
    pub(crate) now: i64,
    pub(crate) requests: Vec<String>,
    pub(crate) show: Vec<String>,
}

pub(crate) fn read(text: &str) -> Result<Ready, Failed> {
    let mut documents = serde_norway::Deserializer::from_str(text);
    let case = Case::deserialize(documents.next().ok_or("no documents")?)?;
    let mut objects = Vec::new();
    for document in documents {
        let value = Value::deserialize(document)?;
        if !value.is_null() {
            objects.push(object(value)?);
        }
    }
    for certificate in &case.certificates {
        objects.push(certificate.make()?);
    }
    Ok(Ready {
        about: case.about,
        objects: objects.into_iter().collect(),
        options: case.flags.options()?,
        now: case.now,
        requests: case.requests,
        show: case.show,
    })
}

fn object(value: Value) -> Result<Object, Failed> {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    macro_rules! read {
        ($($kind:ident)*) => {
            match kind.as_str() {
                $(stringify!($kind) => serde_norway::from_value::<$kind>(value)?.into(),)*
                _ => return Err(format!("kind {kind:?}").into()),
            }
        };
    }
    Ok(read!(
        Ingress IngressClass Service EndpointSlice Secret ConfigMap Namespace
        GatewayClass Gateway ListenerSet HTTPRoute GRPCRoute TLSRoute TCPRoute UDPRoute ReferenceGrant BackendTLSPolicy RoutePolicy
        XBackend XBackendTrafficPolicy XTelemetryPolicy GatewayParameters
    ))
}

impl Flags {
    fn options(self) -> Result<Options, Failed> {
        let pair = |text: Option<String>| {
            text.and_then(|text| text.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())))
        };
        let defaults = Options::default();
        let development = if self.development || !self.backend.is_empty() {
            let mut backends = BTreeMap::new();
            for (name, address) in self.backend {
                let (service, port) = name.split_once(':').ok_or("namespace/service:port")?;
                let (namespace, service) = service.split_once('/').ok_or("namespace/service:port")?;
                backends.insert((ObjectKey::new(Kind::Service, namespace, service), port.to_owned()), address);
            }
            let echo = (!self.no_echo).then(|| SocketAddr::from(([127, 0, 0, 1], 9999)));
            Some(Development { echo, echo_for_missing: true, backends, https_port: None, judged: false })
        } else {
            None
        };
        Ok(Options {
            annotations_prefix: self.annotations_prefix.unwrap_or(defaults.annotations_prefix),
            controller_class: self.controller_class.unwrap_or(defaults.controller_class),
            ingress_class: self.ingress_class.unwrap_or(defaults.ingress_class),
            ingress_class_by_name: self.ingress_class_by_name,
            watch_ingress_without_class: self.watch_ingress_without_class,
            watch_namespace: self.watch_namespace,
            namespace_selector: self.watch_namespace_selector.map(|text| text.parse()).transpose()?,
            configmap: pair(self.configmap),
            tcp_services: pair(self.tcp_services_configmap),
            udp_services: pair(self.udp_services_configmap),
            stream_addresses: self.stream_addresses.unwrap_or(defaults.stream_addresses),
            default_backend_service: pair(self.default_backend_service),
            publish_service: pair(self.publish_service),
            default_ssl_certificate: pair(self.default_ssl_certificate),
            disable_catch_all: self.disable_catch_all,
            ssl_passthrough: self.enable_ssl_passthrough,
            gateway_address: match self.gateway_address.as_deref() {
                Some("own") => GatewayAddressing::Own,
                Some("asked") => GatewayAddressing::Asked,
                _ => GatewayAddressing::Shared,
            },
            gateway_ports: self.gateway_ports.map_or(defaults.gateway_ports, |(first, last)| first..=last),
            disable_external_name: self.disable_svc_external_name,
            has_xbackends: !self.no_xbackends,
            http: self.http.unwrap_or(defaults.http),
            https: self.https.unwrap_or(defaults.https),
            allowed_backend_addresses: self.allowed_backend_addresses,
            development,
            zone: self.zone,
            ..Options::default()
        })
    }
}

impl Certificate {
    fn make(&self) -> Result<Object, Failed> {
        let mut params = rcgen::CertificateParams::new(self.names.clone())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = &self.common_name {
            params.distinguished_name.push(rcgen::DnType::CommonName, name.as_str());
        }
        params.not_before = rcgen::date_time_ymd(self.from, 1, 1);
        params.not_after = rcgen::date_time_ymd(self.until, 1, 1);
        let kind = if self.ed25519 { &rcgen::PKCS_ED25519 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
        let key = rcgen::KeyPair::generate_for(kind)?;
        let certificate = params.self_signed(&key)?;
        let written = if self.wrong_key { rcgen::KeyPair::generate()? } else { key };
        let (namespace, name) = self.secret.split_once('/').ok_or("namespace/name")?;
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "namespace": namespace, "name": name },
            "data": {},
        });
        let mut secret: Secret = serde_json::from_value(secret)?;
        let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
        let mut data = BTreeMap::new();
        if self.authority != Authority::Only {
            data.insert("tls.crt".to_owned(), bytes(certificate.pem()));
            data.insert("tls.key".to_owned(), bytes(written.serialize_pem()));
        }
        if self.authority != Authority::No {
            data.insert("ca.crt".to_owned(), bytes(certificate.pem()));
        }
        secret.data = Some(data);
        Ok(secret.into())
    }
}
