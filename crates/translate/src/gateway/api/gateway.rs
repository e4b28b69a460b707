//! GatewayClasses, Gateways and ListenerSets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};

use super::{Anything, ObjectReference};

record! {
    /// See the API.
    GatewayClassSpec {
        /// The controller that serves Gateways of the class.
        controller_name: String,
        /// For the controller.
        parameters_ref: Option<ParametersRef>,
        /// For people.
        description: Option<String>,
    }
    /// See the API.
    ParametersRef {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Namespace; not for a Gateway.
        namespace: Option<String>,
    }
    /// See the API.
    GatewaySpec {
        /// The class.
        gateway_class_name: String,
        /// What it listens on.
        listeners: Vec<GatewayListener>,
        /// Addresses that it asks for.
        addresses: Vec<GatewayAddress>,
        /// For objects that are made for it.
        infrastructure: Option<Infrastructure>,
        /// Which ListenerSets may join.
        allowed_listeners: Option<AllowedListeners>,
        /// TLS of the whole Gateway.
        tls: Option<GatewayTls>,
    }
    /// See the API.
    GatewayAddress {
        /// Type; `IPAddress` by default.
        r#type: Option<String>,
        /// Value.
        value: Option<String>,
    }
    /// See the API.
    Infrastructure {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Parameters.
        parameters_ref: Option<ParametersRef>,
    }
    /// See the API.
    AllowedListeners {
        /// By namespace.
        namespaces: Option<RouteNamespaces>,
    }
    /// See the API.
    GatewayTls {
        /// Towards backends.
        backend: Option<GatewayBackendTls>,
        /// Towards clients.
        frontend: Option<FrontendTls>,
    }
    /// See the API.
    GatewayBackendTls {
        /// The certificate shown to backends.
        client_certificate_ref: Option<ObjectReference>,
    }
    /// See the API.
    FrontendTls {
        /// For all ports.
        default: Option<FrontendConfig>,
        /// For some.
        per_port: Vec<FrontendPort>,
    }
    /// See the API.
    FrontendConfig {
        /// How client certificates are verified.
        validation: Option<FrontendValidation>,
    }
    /// See the API.
    FrontendPort {
        /// The port.
        port: i32,
        /// TLS there.
        tls: Option<FrontendConfig>,
    }
    /// See the API.
    FrontendValidation {
        /// Authorities.
        ca_certificate_refs: Vec<ObjectReference>,
        /// Mode.
        mode: Option<String>,
    }
    /// See the API.
    GatewayListener {
        /// Name.
        name: String,
        /// Host name, exact or a wildcard; any by default.
        hostname: Option<String>,
        /// Port.
        port: i32,
        /// Protocol.
        protocol: String,
        /// TLS.
        tls: Option<ListenerTls>,
        /// Which routes may attach.
        allowed_routes: Option<AllowedRoutes>,
        /// What happens before a route is chosen (experimental channel).
        filters: Option<Anything>,
    }
    /// See the API.
    ListenerTls {
        /// `Terminate` by default.
        mode: Option<String>,
        /// Secrets.
        certificate_refs: Vec<ObjectReference>,
        /// For the controller.
        options: BTreeMap<String, String>,
    }
    /// See the API.
    AllowedRoutes {
        /// By namespace.
        namespaces: Option<RouteNamespaces>,
        /// By kind.
        kinds: Vec<RouteGroupKind>,
    }
    /// See the API.
    RouteNamespaces {
        /// `Same` by default.
        from: Option<String>,
        /// For `Selector`.
        selector: Option<LabelSelector>,
    }
    /// See the API.
    RouteGroupKind {
        /// API group; the Gateway API's by default.
        group: Option<String>,
        /// Kind.
        kind: String,
    }
    /// See the API.
    ListenerSetSpec {
        /// The Gateway that it adds to.
        parent_ref: ObjectReference,
        /// What it adds.
        listeners: Vec<GatewayListener>,
    }
}

impl GatewayListener {
    /// Whether TLS passes through.
    pub fn passes_through(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.mode.as_deref() == Some("Passthrough"))
    }
}
