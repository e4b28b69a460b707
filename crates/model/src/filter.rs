//! Steps between the choice of a request's route and its action.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    AccessRules, BasicAuth, CaptureTemplate, ClientLimits, Cors, ErrorPages, ExternalAuth, FieldBlock, FieldEdit,
    Mirror, NetworkSet, ResponseRewrites, Snippet,
};

/// One step. A route lists its filters in the order in which they run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// Replaces error responses, those of later filters too.
    ErrorPages(Arc<ErrorPages>),
    /// Sets Strict-Transport-Security from the settings in responses over TLS, in place of the backend's (RFC 6797).
    StrictTransportSecurity,
    /// Refuses requests by User-Agent and Referer with 403.
    Block(Box<FieldBlock>),
    /// Sets the fields of cross-origin resource sharing, and answers preflights.
    Cors(Box<Cors>),
    /// Redirects plain HTTP requests to https.
    HttpsRedirect(HttpsRedirect),
    /// Answers 503 if neither the backend nor its fallback has an endpoint, before checking access, as ingress-nginx
    /// does.
    RequireEndpoints,
    /// Answers 404 if neither the backend nor its fallback has an endpoint: the answer of the built-in default backend,
    /// in place of the global one.
    NotFoundWithoutEndpoints,
    /// Refuses all requests with 503, because a restriction could not be built.
    Refuse(Refusal),
    /// Limits the requests of each client.
    ClientLimits(Box<ClientLimits>),
    /// Restricts access by client address; others get 403.
    AccessList(AccessList),
    /// Like [`AccessList`](Self::AccessList), but authentication by a later filter admits other clients too.
    AccessListOrAuth(AccessList),
    /// Restricts access by rules in order; others get 403.
    AccessRules(Box<AccessRules>),
    /// Demands a name and a password; others get 401. The backend doesn't get them.
    BasicAuth(Box<BasicAuth>),
    /// Lets another service decide whether the request may go on.
    ExternalAuth(Box<ExternalAuth>),
    /// Rewrites the path for the backend.
    Rewrite(Box<Rewrite>),
    /// Replaces the path, or the part of it that the route's prefix matches, for the backend.
    ReplacePath {
        /// The replacement.
        with: PathReplacement,
    },
    /// Sends a copy of the request to a second destination.
    Mirror(Box<Mirror>),
    /// Rewrites redirects and cookies of the backend.
    RewriteResponse(Box<ResponseRewrites>),
    /// Edits request fields for the backend.
    EditRequest(Vec<FieldEdit>),
    /// Edits response fields for the client. Applies to answers of later filters too.
    EditResponse(Vec<FieldEdit>),
    /// Steps and edits that nginx text asks for. Its edits replace those of an earlier one.
    Snippet(Arc<Snippet>),
}

/// Redirects plain HTTP to https on the same host and target.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HttpsRedirect {
    /// Status, one of 301, 302, 307, 308.
    pub status: u16,
    /// Whether to keep one trailing slash of the target; ingress-nginx removes it by default.
    pub preserve_trailing_slash: bool,
    /// The port to put in the URL; `None` for no port, which means 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Why all requests are refused.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The fault in the user's object. For logs and explanations; clients do not see it.
    pub reason: Box<str>,
}

/// Networks to admit or deny. Denial takes precedence.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AccessList {
    /// Denied networks.
    #[serde(default, skip_serializing_if = "NetworkSet::is_empty")]
    pub deny: NetworkSet,
    /// Admitted networks; `None` for all. An empty set admits no client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<NetworkSet>,
}

impl AccessList {
    /// Whether a client is admitted.
    pub fn admits(&self, client: std::net::IpAddr) -> bool {
        !self.deny.contains(client) && self.allow.as_ref().is_none_or(|allow| allow.contains(client))
    }

    /// Whether a client needs no authentication under `satisfy any`. As in nginx, a list that only denies exempts no client.
    pub fn exempts(&self, client: std::net::IpAddr) -> bool {
        self.allow.is_some() && self.admits(client)
    }
}

/// Another path for a request. The query stays (Gateway API, HTTPPathModifier).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum PathReplacement {
    /// This path.
    Full(Box<str>),
    /// This text in place of the route's prefix, without the slash at the end of either. An empty result becomes `/`.
    Prefix(Box<str>),
}

/// Replaces the whole path and keeps the query. Captures refer to the route's pattern.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The new path.
    pub target: CaptureTemplate,
    /// Value of X-Forwarded-Prefix for the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_prefix: Option<CaptureTemplate>,
}
