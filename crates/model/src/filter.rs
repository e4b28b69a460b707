//! Steps between the choice of a request's route and its action.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::path::is_sendable;
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

impl PathReplacement {
    /// Appends the path for a request that has `rest` after the prefix.
    pub(crate) fn append(&self, rest: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        match self {
            Self::Full(value) => out.extend_from_slice(value.as_bytes()),
            Self::Prefix(value) => {
                out.extend_from_slice(value.trim_end_matches('/').as_bytes());
                out.extend_from_slice(rest);
            }
        }
        if out.get(start) != Some(&b'/') {
            out.insert(start, b'/');
        }
    }

    /// Whether no request can be sent on with it: whatever its path is, the new one is not in canonical form.
    pub fn refuses_all(&self) -> bool {
        let rests: [&[u8]; 2] = [b"", b"/x"];
        rests.iter().all(|rest| {
            let mut path = Vec::new();
            self.append(rest, &mut path);
            !is_sendable(&path)
        })
    }
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

impl Rewrite {
    /// Whether no request can be sent on with it: whatever its path is, the new one is not in canonical form.
    pub fn refuses_all(&self) -> bool {
        let captured: [&[u8]; 3] = [b"", b"/x", b"x"];
        captured.iter().all(|group| {
            let mut path = vec![b'/'];
            // A text as long as that can't be configured.
            let _ = self.target.expand(|_| group, usize::MAX, &mut path);
            if path.get(1) == Some(&b'/') {
                path.remove(0);
            }
            !is_sendable(&path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_refuses_all_requests_only_if_each_path_that_it_makes_is_refused() {
        let full = |path: &str| PathReplacement::Full(path.into());
        let prefix = |text: &str| PathReplacement::Prefix(text.into());
        for (replacement, refuses) in [
            (full("/a"), false),
            (full("a//b/"), false),
            (full("/a b?"), false),
            (full("/a/../b"), true),
            (full("/100%"), true),
            (prefix("/"), false),
            (prefix(""), false),
            (prefix("/a/./b"), true),
            (prefix("/.."), true),
            // `/..x` is a name.
            (prefix("/a/..b"), false),
        ] {
            assert_eq!(replacement.refuses_all(), refuses, "{replacement:?}");
        }
        for (target, refuses) in [("/$1", false), ("$2", false), ("/x/../$1", true), ("/.$1", false), ("/x/..", true)] {
            let rewrite = Rewrite { target: target.into(), forwarded_prefix: None };
            assert_eq!(rewrite.refuses_all(), refuses, "{target}");
        }
    }
}
