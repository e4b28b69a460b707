//! What filters and hosts do, in a sentence each.

use crate::terminal::count;
use fairway_model::{
    AuthProtocol, ClientAuth, ClientAuthMode, ClientLimits, ConfiguredName, Cors, ErrorPages, ExternalAuth, Filter,
    Origins, PathReplacement, ResponseRewrites,
};

use super::tell::Teller;

impl Teller<'_> {
    /// The name of a filter, and its purpose.
    pub(super) fn filter(&self, filter: &Filter) -> (&'static str, String) {
        match filter {
            Filter::ErrorPages(pages) => ("error_pages", error_pages(pages)),
            Filter::StrictTransportSecurity => {
                let value = self.reading.snapshot.settings().strict_transport_security.as_deref();
                let value = value.map_or("off".to_owned(), |value| format!("Strict-Transport-Security: {value}"));
                ("strict_transport_security", format!("HSTS, over TLS only: {value}"))
            }
            Filter::Block(block) => {
                let (agents, referers) = (block.user_agents.len(), block.referers.len());
                ("block", format!("answer 403 to {agents} kinds of User-Agent and {referers} of Referer"))
            }
            Filter::Cors(cors) => ("cors", format!("answer preflights and edit response fields for {}", origins(cors))),
            Filter::HttpsRedirect(redirect) => {
                let port = redirect.port.map(|port| format!(" on port {port}")).unwrap_or_default();
                ("https_redirect", format!("redirect plain HTTP to https{port} with {}", redirect.status))
            }
            Filter::RequireEndpoints => {
                ("require_endpoints", "answer 503 without endpoints, before access is checked".to_owned())
            }
            Filter::NotFoundWithoutEndpoints => {
                ("not_found_without_endpoints", "answer 404 without endpoints".to_owned())
            }
            Filter::Refuse(refusal) => ("refuse", format!("answer 503: {}", refusal.reason)),
            Filter::ClientLimits(limits) => ("client_limits", client_limits(limits)),
            Filter::AccessList(list) => ("access_list", format!("admit clients {}, answer 403 to others", rule(list))),
            Filter::AccessListOrAuth(list) => {
                ("access_list_or_auth", format!("admit clients {} without authentication", rule(list)))
            }
            Filter::AccessRules(rules) => {
                let others = if rules.or_auth { "authentication" } else { "403" };
                let of_methods = rules.except.as_ref().map_or(0, |own| own.rules.len());
                let rules = count(rules.rules.len().max(of_methods), "rule", "rules");
                ("access_rules", format!("check the client's address by {rules} in order, {others} for those refused"))
            }
            Filter::Snippet(snippet) => {
                let (steps, edits) = (snippet.steps.len(), &snippet.edits);
                let edits = count(edits.request.len() + edits.response.len(), "edit", "edits");
                let steps = count(steps, "step", "steps");
                ("snippet", format!("run {steps} of a snippet, with {edits} of fields"))
            }
            Filter::BasicAuth(auth) => (
                "basic_auth",
                format!(
                    "demand the name and {} of one of {} users, answer 401 to others",
                    if auth.digest { "a digest of the password" } else { "password" },
                    auth.users.len()
                ),
            ),
            Filter::ExternalAuth(auth) => ("external_auth", self.authentication(auth)),
            Filter::Rewrite(rewrite) => {
                let prefix = rewrite.forwarded_prefix.as_ref();
                let prefix = prefix.map(|prefix| format!(", set X-Forwarded-Prefix to {}", prefix.text()));
                ("rewrite", format!("rewrite the path to {}{}", rewrite.target.text(), prefix.unwrap_or_default()))
            }
            Filter::ReplacePath { with: PathReplacement::Full(path) } => {
                ("replace_path", format!("replace the path with {path}"))
            }
            Filter::ReplacePath { with: PathReplacement::Prefix(text) } => {
                ("replace_path", format!("replace the matched prefix of the path with {text:?}"))
            }
            Filter::Mirror(mirror) => {
                let body = if mirror.body { "" } else { " without its body" };
                let part =
                    mirror.fraction.map(|part| format!(" of {} in {} requests", part.numerator, part.denominator));
                let part = part.unwrap_or_default();
                ("mirror", format!("send a copy{body}{part} to {}, whose answer is dropped", mirror.forward.backends))
            }
            Filter::RewriteResponse(rewrites) => ("rewrite_response", response_rewrites(rewrites)),
            Filter::EditRequest(edits) => ("edit_request", format!("edit request fields: {}", names(edits))),
            Filter::EditResponse(edits) => ("edit_response", format!("edit response fields: {}", names(edits))),
        }
    }

    /// Whom a route asks about a request, and what follows from the answer.
    fn authentication(&self, auth: &ExternalAuth) -> String {
        let backend = auth.forward.backends.to_string();
        // The name of one outside the cluster begins with two slashes.
        let backend = backend.trim_start_matches('/');
        let names = |names: &[ConfiguredName]| names.iter().map(ConfiguredName::as_str).collect::<Vec<_>>().join(", ");
        let copied = match (auth.copies_all(), auth.copied()) {
            (true, _) => ", and copy all fields of the answer".to_owned(),
            (false, []) => String::new(),
            (false, copied) => format!(", and copy {}", names(copied)),
        };
        let (question, denied, allows) = match &auth.protocol {
            AuthProtocol::Subrequest(asks) => {
                let denied = match &asks.sign_in {
                    Some(sign_in) => format!("401 redirects to {sign_in}"),
                    None => "401".to_owned(),
                };
                let question = format!("{} {}", asks.method.as_deref().unwrap_or("GET"), asks.target);
                (question, format!("{denied}, 403 denies"), "2xx")
            }
            AuthProtocol::Http(asks) => (
                format!("the client's method and {}PATH", asks.path),
                "a redirect or 4xx is what the client gets".to_owned(),
                "200",
            ),
            AuthProtocol::Grpc(asks) => {
                let fields = match &asks.allowed {
                    None => "all fields".to_owned(),
                    Some(allowed) => format!("the fields {}", names(allowed)),
                };
                let denied = "a denial is answered as it says".to_owned();
                (format!("a call of ext_authz about the request with {fields}"), denied, "OK")
            }
        };
        let body = match auth.body() {
            Some(most) => format!(" and a body of up to {most} bytes"),
            None => String::new(),
        };
        format!(
            "ask {backend} with {question}{body}{copied}; {denied}, anything but {allows} answers 500. Explained as if it allowed the request",
        )
    }
}

/// Which errors are replaced, and by whom.
fn error_pages(pages: &ErrorPages) -> String {
    let statuses: Vec<_> = pages.statuses.iter().map(ToString::to_string).collect();
    let whose = if pages.only_own { "of Fairway's own" } else { "of the backend and of Fairway" };
    let ErrorPages { forward, .. } = pages;
    let other = forward.fallback.as_ref().map(|other| format!(", or {other} if it has no endpoint"));
    let (statuses, other) = (statuses.join(", "), other.unwrap_or_default());
    format!("replace errors {whose} by the response of {}{other}: {statuses}", forward.backends)
}

fn names(edits: &[fairway_model::FieldEdit]) -> String {
    edits.iter().map(|edit| edit.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// The origins that are admitted.
fn origins(cors: &Cors) -> String {
    match &cors.origins {
        Origins::Any => "every origin".to_owned(),
        Origins::Listed(list) => {
            let list: Vec<_> = list.iter().map(fairway_model::OriginPattern::text).collect();
            format!("the origins {}", list.join(", "))
        }
    }
}

/// What a route rewrites in responses.
fn response_rewrites(rewrites: &ResponseRewrites) -> String {
    let parts = [
        ("redirects to", &rewrites.redirect),
        ("the Domain of cookies", &rewrites.cookie_domain),
        ("the Path of cookies", &rewrites.cookie_path),
    ];
    let part = |(what, own): (&str, &Option<fairway_model::Replacement>)| {
        own.as_ref().map(|own| format!("{what} {} to {}", own.from, own.to))
    };
    format!("rewrite {}", parts.into_iter().filter_map(part).collect::<Vec<_>>().join(", "))
}

/// What each client may do.
pub(super) fn client_limits(limits: &ClientLimits) -> String {
    let rate = |rate: Option<fairway_model::RequestRate>, period: &str| {
        rate.map(|rate| format!("{} requests per {period} and {} at once", rate.requests, u64::from(rate.burst) + 1))
    };
    let rates = [rate(limits.per_second, "second"), rate(limits.per_minute, "minute")];
    let parts = rates.into_iter().flatten().map(|text| format!("{text} (else {})", limits.over_rate.status));
    let open = limits.in_progress.map(|most| format!("{most} in progress (else {})", limits.over_requests.status));
    let exempt = if limits.exempt.is_empty() { "" } else { ", except for exempt networks" };
    format!("allow each client {}{exempt}", parts.chain(open).collect::<Vec<_>>().join(", "))
}

/// The addresses that an access list allows.
pub(super) fn rule(list: &fairway_model::AccessList) -> String {
    let networks =
        |set: &fairway_model::NetworkSet| set.networks().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let denied = (!list.deny.is_empty()).then(|| format!("not from {}", networks(&list.deny)));
    let allowed = list.allow.as_ref().map(|allow| format!("only from {}", networks(allow)));
    denied.into_iter().chain(allowed).collect::<Vec<_>>().join(" and ")
}

/// Which client certificates a host asks for.
pub(super) fn asks(auth: &ClientAuth) -> String {
    let mode = match auth.mode {
        ClientAuthMode::Required => "requires a client certificate of",
        ClientAuthMode::Optional => "asks for a client certificate of",
        ClientAuthMode::Unverified => "asks for a client certificate, accepts any, and knows",
        ClientAuthMode::AnyAuthority => "asks for a client certificate of any authority, and knows",
    };
    let lists = match auth.revocation_lists.len() {
        0 => String::new(),
        lists => format!(", {}", count(lists, "revocation list", "revocation lists")),
    };
    let subject = auth.subject.as_ref().map(|pattern| format!(", subject with {}", pattern.text()));
    let depth = auth.depth;
    let depth = if depth == u32::MAX { String::new() } else { format!(", depth {depth}") };
    let authorities = count(auth.authorities.len(), "authority", "authorities");
    format!("; over TLS it {mode} {authorities}{lists}{depth}{}", subject.unwrap_or_default())
}
