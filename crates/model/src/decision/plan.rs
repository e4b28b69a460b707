//! The result of a decision: the chosen host and route, what filters have asked for, and the step that answers the request.

use std::sync::Arc;

use super::Received;
use crate::client::ClientView;
use crate::path::InvalidPath;
use crate::{
    Backend, BackendName, BasicAuth, CanaryChoice, Cors, ErrorPages, ErrorResponse, Excess, ExternalAuth, FieldEdit,
    FieldRules, Fields, Filter, Forward, Host, HostPattern, Mirror, Protocol, Refusal, Respond, ResponseRewrites,
    Route, Scheme, Snapshot, SnippetEdits, TooLong, UpstreamProtocol, UpstreamTls, WeightedBackend,
};

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'s> {
    /// The chosen host.
    pub host: Option<&'s Host>,
    /// The chosen route.
    pub route: Option<&'s Route>,
    /// The step that answers the request.
    pub step: Step<'s>,
    /// Number of filters of the route that the request passed. If there is another, that one gave the answer or is
    /// waiting.
    pub passed: usize,
    pub(super) scheme: Scheme,
    /// The most specific host, if others were searched because none of its routes takes the request.
    pub(super) wider_than: Option<&'s Host>,
    pub(super) chosen: Option<Forwarding<'s>>,
    /// The choice between a backend and its alternative, if there was one.
    pub(super) canary: Option<CanaryChoice<'s>>,
    /// Whether the request gets an error page in place of what it asked for, so that its query does not count.
    pub(super) replaced: bool,
    /// What replaces error responses.
    pub(super) errors: Option<&'s ErrorPages>,
    /// The status of the error response that another service is asked to replace.
    pub(super) error: Option<u16>,
    /// Whether a filter that the request passed edits the request.
    pub(super) edits_request: bool,
    /// Whether one edits the response.
    pub(super) edits_response: bool,
    /// Cross-origin resource sharing, if it admits the origin.
    pub(super) cors: Option<&'s Cors>,
    /// The edits of the last snippet.
    pub(super) snippet: Option<&'s SnippetEdits>,
    /// The service that has allowed the request.
    pub(super) allowed_by: Option<&'s ExternalAuth>,
    /// The service that decides about the route, asked or not: the client's versions of its fields never pass.
    pub(super) guarded_by: Option<&'s ExternalAuth>,
    /// Whether copies of the request go elsewhere.
    pub(super) copies: bool,
    /// Whether the request needs no further authentication.
    pub(super) exempt: bool,
    /// Whether the request lacks a password that would have admitted it.
    pub(super) lacks_password: bool,
    /// Whether the backend must not get the client's credentials.
    pub(super) hides_credentials: bool,
}

impl<'s> Plan<'s> {
    /// The choice between a backend and its alternative, if there was one.
    pub fn canary(&self) -> Option<CanaryChoice<'s>> {
        self.canary
    }

    /// The backend whose alternative was chosen.
    #[inline]
    pub fn alternative_of(&self) -> Option<&'s BackendName> {
        self.canary.filter(|choice| choice.alternative).map(|choice| &choice.canary.main)
    }

    /// The status of the error response that another service, which gets no body, is asked to replace.
    #[inline]
    pub fn replaces_error(&self) -> Option<u16> {
        self.error
    }

    /// Whether error responses with this status are replaced, provided that a service is available.
    #[inline]
    pub fn may_replace(&self, error: ErrorResponse) -> bool {
        self.errors.is_some_and(|pages| pages.replaces(error))
    }

    /// The filter that gave the answer, if any.
    pub fn ended_by(&self) -> Option<&'s Filter> {
        self.route?.filters.get(self.passed)
    }

    /// The host that some object serves under the requested name, if no route for that name takes the request.
    pub fn unmatched_host(&self) -> Option<&'s Host> {
        let is_of_user = |host: &&Host| {
            let of_user = || host.tiers().flat_map(Host::routes).any(|route| !route.origin.is_built_in());
            *host.pattern() != HostPattern::Any || of_user()
        };
        self.wider_than.filter(|_| self.route.is_none_or(|route| route.origin.is_built_in())).filter(is_of_user)
    }

    /// Other routes that match the request but have lower precedence, in order.
    pub fn beaten<'a, F: Fields<'a>>(
        &self,
        received: &Received<'a, F>,
        client: &ClientView,
        path: &[u8],
    ) -> impl Iterator<Item = &'s Route> {
        let chosen = self.route.map(std::ptr::from_ref);
        self.host.into_iter().flat_map(Host::routes).filter(move |route| {
            Some(std::ptr::from_ref(*route)) != chosen
                && route.path.matches(path)
                && route.admits(&received.head, client.address())
        })
    }

    /// The authentication service that has allowed the request.
    pub fn allowed_by(&self) -> Option<&'s ExternalAuth> {
        self.allowed_by
    }

    /// The authentication service that gave the answer or is being asked.
    pub fn asks(&self) -> Option<&'s ExternalAuth> {
        match self.ended_by() {
            Some(Filter::ExternalAuth(auth)) => Some(auth),
            _ => None,
        }
    }

    /// How the request to an authentication service is forwarded.
    pub fn forwarding_to(&self, auth: &'s ExternalAuth) -> Option<Forwarding<'s>> {
        let backend = auth.forward.backends.names().next()?;
        Some(self.to(&auth.forward, backend))
    }

    /// Where copies of the request may go, and how they are forwarded.
    pub fn mirroring(&self) -> impl Iterator<Item = (&'s Mirror, Forwarding<'s>)> {
        self.passed_filters(self.copies).iter().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => {
                let backend = mirror.forward.backends.names().next()?;
                Some((&**mirror, self.to(&mirror.forward, backend)))
            }
            _ => None,
        })
    }

    /// Forwards to a backend besides that of the request.
    fn to(&self, rule: &'s Forward, backend: &'s BackendName) -> Forwarding<'s> {
        Forwarding { rule, backend, in_place_of: None, open: true, share: None, scheme: self.scheme }
    }

    /// The filters for the chosen backend.
    fn of_backend(&self) -> &'s [Filter] {
        self.chosen.map_or(&[], Forwarding::filters)
    }

    /// Why all requests are refused, if the answer is a refusal.
    pub fn refusal(&self) -> Option<&'s Refusal> {
        match self.ended_by() {
            Some(Filter::Refuse(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// The limit that the client has exceeded, if that caused the answer.
    pub fn excess(&self) -> Option<Excess> {
        match (self.ended_by(), self.step) {
            (Some(Filter::ClientLimits(limits)), Step::Respond(respond)) => {
                Some(if std::ptr::eq(respond, &limits.over_rate) { Excess::Rate } else { Excess::Requests })
            }
            _ => None,
        }
    }

    /// The edits that the route's filters make to the response, in order.
    pub fn response_edits<'r>(&self, rules: &'r FieldRules) -> impl Iterator<Item = &'r FieldEdit>
    where
        's: 'r,
    {
        let encrypted = self.scheme == Scheme::Https;
        let filters = self.passed_filters(self.edits_response).iter().chain(self.of_backend());
        let of_filters = filters.flat_map(move |filter| match filter {
            Filter::StrictTransportSecurity if encrypted => rules.strict_transport_security.as_slice(),
            Filter::EditResponse(edits) => edits,
            _ => &[],
        });
        let is_preflight = self.cors.is_some() && matches!(self.ended_by(), Some(Filter::Cors(_)));
        let of_preflight = self.cors.filter(|_| is_preflight).and_then(|cors| cors.preflight.as_deref());
        of_filters.chain(self.cors.into_iter().flat_map(|cors| &cors.fields)).chain(of_preflight.into_iter().flatten())
    }

    /// Whether the origin of the request is admitted.
    pub fn admits_origin(&self) -> bool {
        self.cors.is_some()
    }

    /// The route's rewrites of the backend's response.
    pub fn response_rewrites(&self) -> Option<&'s ResponseRewrites> {
        self.passed_filters(self.edits_response).iter().find_map(|filter| match filter {
            Filter::RewriteResponse(rewrites) => Some(&**rewrites),
            _ => None,
        })
    }

    /// Whether the route may edit the response.
    pub(super) fn edits_response(&self) -> bool {
        self.edits_response || self.cors.is_some() || self.snippet().is_some()
    }

    /// The edits that the route's filters make to the request, in order.
    pub fn request_edits(&self) -> impl Iterator<Item = &'s FieldEdit> {
        self.filter_edits().chain(self.snippet.into_iter().flat_map(|edits| &edits.request))
    }

    /// Those not made by a snippet, whose fields nginx sends in addition to others of the same name.
    pub(super) fn filter_edits(&self) -> impl Iterator<Item = &'s FieldEdit> {
        self.passed_filters(self.edits_request).iter().chain(self.of_backend()).flat_map(|filter| match filter {
            Filter::EditRequest(edits) => edits,
            _ => &[][..],
        })
    }

    /// The edits of the last snippet that the request met.
    pub fn snippet(&self) -> Option<&'s SnippetEdits> {
        self.snippet
    }

    /// Whether anything edits fields of the request.
    pub(crate) fn edits_request(&self) -> bool {
        self.edits_request || self.snippet.is_some_and(|edits| !edits.request.is_empty())
    }

    /// The filters that the request passed, if `needed`: most routes edit nothing, and this is called several times per head.
    fn passed_filters(&self, needed: bool) -> &'s [Filter] {
        match self.route {
            Some(route) if needed => &route.filters[..self.passed.min(route.filters.len())],
            _ => &[],
        }
    }
}

/// The step that answers a request.
#[derive(Clone, Copy, Debug)]
pub enum Step<'s> {
    /// Forward to a backend with [`Scratch::target`](super::Scratch::target).
    Forward(Forwarding<'s>),
    /// Redirect with this status to [`Scratch::location`](super::Scratch::location).
    Redirect(u16),
    /// Respond from the proxy itself.
    Respond(&'s Respond),
    /// Respond with [`Scratch::denied`](super::Scratch::denied).
    Deny,
    /// Respond from the proxy itself with an error.
    Fail(Failure),
    /// Wait before deciding.
    Wait(Wait<'s>),
}

/// What must be known before the decision can continue.
#[derive(Clone, Copy, Debug)]
pub enum Wait<'s> {
    /// The answer of this service.
    ExternalAuth(&'s ExternalAuth),
    /// Whether the request has the name and the password of one of the users.
    Password(&'s BasicAuth),
}

/// The destination of a request.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'s> {
    /// The rule.
    pub rule: &'s Forward,
    /// The chosen backend.
    pub backend: &'s BackendName,
    /// The backend it stands in for, because that one has no endpoint.
    pub in_place_of: Option<&'s BackendName>,
    /// Whether it had an endpoint for new requests. If not, only a terminating endpoint can take the request, for an
    /// existing session.
    pub open: bool,
    /// What is particular to this backend among those of the rule.
    pub(super) share: Option<&'s WeightedBackend>,
    /// The scheme of the client's connection.
    pub(super) scheme: Scheme,
}

impl<'s> Forwarding<'s> {
    /// TLS to the endpoints of the backend. The policy applies to the rule's own backend; connections to a fallback are in
    /// the clear.
    pub fn tls(&self, backend: &Backend) -> Option<&'s Arc<UpstreamTls>> {
        self.tls_as_written().filter(|_| self.follows_policy(backend))
    }

    /// The same, whatever stands in for the endpoints of the backend in development.
    pub fn tls_as_written(&self) -> Option<&'s Arc<UpstreamTls>> {
        let policy = &*self.rule.policy;
        let clear = policy.protocol == UpstreamProtocol::LikeClient && self.scheme == Scheme::Http;
        self.share
            .and_then(|share| share.tls.as_ref())
            .or(policy.tls.as_ref())
            .filter(|_| !clear && self.in_place_of.is_none())
    }

    /// The filters for the chosen backend.
    pub(super) fn filters(self) -> &'s [Filter] {
        self.share.map_or(&[], |share| &share.filters)
    }

    /// Whether the backend's endpoints get HTTP/2.
    pub fn is_http2(&self, backend: &Backend) -> bool {
        self.rule.policy.protocol == UpstreamProtocol::Http2 && self.follows_policy(backend)
    }

    fn follows_policy(&self, backend: &Backend) -> bool {
        self.in_place_of.is_none() && backend.protocol != Protocol::ClearHttp1
    }
}

/// Why the proxy refuses a request or can't forward it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The path has no canonical form.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The path belongs to different routes, depending on how it is decoded.
    #[error(transparent)]
    Ambiguous(#[from] crate::AmbiguousPath),
    /// The host is not a valid host name.
    #[error("the host is no host name")]
    Host,
    /// The rewritten path has no canonical form, or a different one.
    #[error("the rewritten path is not in canonical form, so the backend could read another one than was matched")]
    Rewritten,
    /// The expansion of a template is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The body is larger than the route allows.
    #[error("the body is larger than the route allows")]
    BodyTooLarge,
    /// The Service or port of the backend doesn't exist, and its fallback has no endpoint.
    #[error("the Service or its port does not exist")]
    NoService,
    /// Neither the backend nor its fallback has an endpoint.
    #[error("no endpoint is ready")]
    NoEndpoint,
    /// All backends of the rule have weight 0, or the request falls to a reference that is invalid.
    #[error("the rule has no valid backend for this share of its requests")]
    NoBackend,
    /// The connection was made for a host with other requirements for client certificates.
    #[error("the connection was made for a host that asks for other client certificates")]
    Misdirected,
    /// The host requires a client certificate, and there is none.
    #[error("no required client certificate was sent")]
    NoCertificate,
    /// The client certificate is not good.
    #[error("the client certificate could not be verified")]
    Certificate,
    /// The subject of the client certificate does not match.
    #[error("the subject of the client certificate is not admitted")]
    Subject,
    /// The authentication service could not be asked, or its answer was unusable.
    #[error("the authentication service gave no usable answer")]
    Authentication,
}

impl Failure {
    /// The failure for a backend without endpoints. If the backend is known but has no endpoint set, its Service or port
    /// doesn't exist.
    pub fn without_endpoint(snapshot: &Snapshot, backend: &BackendName) -> Self {
        if snapshot.endpoint_set(backend).is_none() { Self::NoService } else { Self::NoEndpoint }
    }

    /// The status of the response.
    pub const fn status(self) -> u16 {
        match self {
            Self::Path(_) | Self::Ambiguous(_) | Self::Host | Self::Rewritten => 400,
            Self::TooLong(_) => 414,
            Self::BodyTooLarge => 413,
            Self::NoService | Self::NoEndpoint => 503,
            Self::NoBackend | Self::Authentication => 500,
            Self::Misdirected => 421,
            Self::NoCertificate | Self::Certificate => 400,
            Self::Subject => 403,
        }
    }
}
