//! BackendTLSPolicies, XBackends and XBackendTrafficPolicies: how backends are spoken to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LocalReference, ObjectReference, SessionPersistence};

record! {
    /// See the API.
    BackendTLSPolicySpec {
        /// What it is for.
        target_refs: Vec<PolicyTarget>,
        /// How certificates of endpoints are verified.
        validation: BackendTlsValidation,
        /// For the controller.
        options: BTreeMap<String, String>,
    }
    /// See the API.
    PolicyTarget {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// The name of a port of a Service; all by default.
        section_name: Option<String>,
    }
    /// See the API.
    SubjectAltName {
        /// Type, which says which of the others is there.
        r#type: String,
        /// DNS name.
        hostname: Option<String>,
        /// URI.
        uri: Option<String>,
    }
    /// See the API.
    XBackendTrafficPolicySpec {
        /// What it is for.
        target_refs: Vec<LocalReference>,
        /// How many tries after failures there may be.
        retry_constraint: Option<RetryConstraintSpec>,
        /// Sessions.
        session_persistence: Option<SessionPersistence>,
    }
    /// See the API.
    XBackendSpec {
        /// Type, which says which of the next two is there.
        r#type: String,
        /// A host outside of the cluster.
        external_hostname: Option<ExternalHostname>,
        /// Pods of its namespace.
        endpoint_selector: Option<EndpointSelector>,
        /// The port of the host or of the pods.
        port: XBackendPort,
        /// What is spoken there; what the route says by default.
        protocol: Option<String>,
        /// TLS; none by default.
        tls: Option<XBackendTls>,
        /// Sessions with its endpoints.
        session_persistence: Option<SessionPersistence>,
    }
    /// See the API.
    XBackendPort {
        /// Number.
        number: Option<i32>,
    }
    /// See the API.
    ExternalHostname {
        /// DNS name.
        hostname: String,
    }
    /// See the API.
    EndpointSelector {
        /// Labels that the pods have.
        match_labels: BTreeMap<String, String>,
    }
    /// See the API.
    XBackendTls {
        /// `None`, `ServerOnly` or `ClientAndServer`.
        mode: String,
        /// The certificate that is shown.
        client_certificate_ref: Option<ObjectReference>,
        /// How the certificate of the endpoint is verified.
        validation: Option<BackendTlsValidation>,
    }
    /// See the API.
    RetryConstraintSpec {
        /// A share of the requests; 20 percent in 10 seconds by default.
        budget: Option<BudgetDetails>,
        /// What is allowed in any case; 10 in a second by default.
        min_retry_rate: Option<RequestRateSpec>,
    }
    /// See the API.
    BudgetDetails {
        /// The share; 20 by default.
        percent: Option<i32>,
        /// The time; 10 seconds by default.
        interval: Option<String>,
    }
    /// See the API.
    RequestRateSpec {
        /// How many.
        count: Option<i32>,
        /// In which time.
        interval: Option<String>,
    }
}

/// See the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// Authorities.
    #[serde(skip_serializing_if = "super::is_empty")]
    pub ca_certificate_refs: Vec<LocalReference>,
    /// Authorities that everybody knows, in place of them.
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "super::is_empty")]
    pub well_known_ca_certificates: Option<String>,
    /// The name that is sent, and that the certificate must have if there are no others.
    #[serde(skip_serializing_if = "super::is_empty")]
    pub hostname: String,
    /// Names of which the certificate must have one.
    #[serde(skip_serializing_if = "super::is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}
