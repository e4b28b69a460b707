//! What happens to a request between the choice of its route and its action.

use serde::{Deserialize, Serialize};

use crate::{CaptureTemplate, FieldEdit, NetworkSet};

/// One step. Routes list them in the order in which they run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// Answers over TLS carry the Strict-Transport-Security value of the settings, in place of the backend's (RFC 6797).
    StrictTransportSecurity,
    /// Requests over plain HTTP are sent to https.
    HttpsRedirect(HttpsRedirect),
    /// Answers 503 when neither the backend nor its fallback has an endpoint, before access is checked, as ingress-nginx does.
    RequireEndpoints,
    /// Answers 404 when neither the backend nor its fallback has an endpoint: what the built-in default backend would answer in
    /// the place of the global one.
    NotFoundWithoutEndpoints,
    /// Answers a restriction that could not be built: everyone is refused, with 503.
    Refuse(Refusal),
    /// Who may connect, by client address; others get 403.
    AccessList(AccessList),
    /// The path that the backend sees.
    Rewrite(Rewrite),
    /// Fields of the request that the backend gets otherwise than they came.
    EditRequest(Vec<FieldEdit>),
    /// Fields of the response that the client gets otherwise than they came. They hold for answers of later filters too.
    EditResponse(Vec<FieldEdit>),
}

/// Sends plain HTTP to https, on the same host and target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HttpsRedirect {
    /// Status, one of 301, 302, 307, 308.
    pub status: u16,
    /// Whether one slash at the end of the target is kept; ingress-nginx cuts it by default.
    pub preserve_trailing_slash: bool,
    /// The port that the URL names; `None` for none, so that clients take 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Why everyone is refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong with the user's object. For logs and explanations; clients do not see it.
    pub reason: Box<str>,
}

/// Networks that are let in or kept out. The denied are asked first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AccessList {
    /// Who is refused.
    #[serde(default, skip_serializing_if = "NetworkSet::is_empty")]
    pub deny: NetworkSet,
    /// Who is let in; `None` for everyone. An empty set lets nobody in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<NetworkSet>,
}

impl AccessList {
    /// Whether a client is let in.
    pub fn admits(&self, client: std::net::IpAddr) -> bool {
        !self.deny.contains(client) && self.allow.as_ref().is_none_or(|allow| allow.contains(client))
    }
}

/// Replaces the whole path; the query stays. Captures are those of the route's pattern.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The new path.
    pub target: CaptureTemplate,
    /// Value of X-Forwarded-Prefix for the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_prefix: Option<CaptureTemplate>,
}
