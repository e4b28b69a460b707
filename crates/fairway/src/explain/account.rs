//! What happens to a request and why, as data: [`super::text`] prints it for people, serde for programs
//! (`docs/schema/explain.json`).

use std::net::IpAddr;

use serde::Serialize;

/// The account of one request.
#[derive(Debug, Serialize)]
pub(crate) struct Account {
    pub(crate) request: Asked,
    pub(crate) answer: Answer,
    pub(crate) client: Client,
    /// The certificate for a TLS client; `None` for the default one.
    pub(crate) certificate: Option<String>,
    /// The path that is matched against routes; `None` if it has no canonical form.
    pub(crate) path: Option<String>,
    pub(crate) host: Option<ChosenHost>,
    pub(crate) route: Option<ChosenRoute>,
    pub(crate) filters: Vec<FilterStep>,
    pub(crate) forward: Option<Forwarded>,
    /// Where the connection passes to, if TLS does not end at the proxy. Then there is no route.
    pub(crate) passthrough: Option<PassedThrough>,
    /// Edits of response fields, in order.
    pub(crate) response: Vec<ResponseField>,
    /// Findings about the objects that the request depends on.
    pub(crate) findings: Vec<String>,
    /// Ingresses that name the host and are not loaded.
    pub(crate) left_out: Vec<NotLoaded>,
    /// Routes that name the host at a listener where its requests don't arrive.
    pub(crate) elsewhere: Vec<NotLoaded>,
}

/// The request.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) client: IpAddr,
}

/// The response to the client.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// `None` when the backend decides.
    pub(crate) status: Option<u16>,
    pub(crate) location: Option<String>,
    pub(crate) by: By,
    /// The failure reason in the access log and the metrics.
    pub(crate) reason: Option<&'static str>,
    /// The explanation, in a sentence.
    pub(crate) why: String,
}

/// Who responds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    Backend,
    Fairway,
    /// Nothing listens on the port, or the connection is closed.
    Nothing,
}

/// The client, as seen past trusted proxies.
#[derive(Debug, Serialize)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) scheme: String,
    pub(crate) host: String,
    /// Whether forwarded fields of the request are trusted.
    pub(crate) trusted: bool,
}

/// The host that was chosen.
#[derive(Debug, Serialize)]
pub(crate) struct ChosenHost {
    pub(crate) pattern: String,
    pub(crate) why: String,
}

/// A route and the object that it comes from.
#[derive(Debug, Serialize)]
pub(crate) struct RouteName {
    /// Kind of match and path, such as `Prefix /order`.
    pub(crate) path: String,
    /// The object and the part of it.
    pub(crate) object: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
}

/// The route that was chosen.
#[derive(Debug, Serialize)]
pub(crate) struct ChosenRoute {
    #[serde(flatten)]
    pub(crate) name: RouteName,
    pub(crate) why: String,
    /// Other routes that match the request, by precedence.
    pub(crate) beaten: Vec<RouteName>,
    /// The policies that decide about something of the route.
    pub(crate) policies: Vec<DecidingPolicy>,
}

/// A RoutePolicy or an XTelemetryPolicy, and what it decides about.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct DecidingPolicy {
    pub(crate) object: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// As members of its spec.
    pub(crate) members: Vec<&'static str>,
}

/// A filter of the route, in order.
#[derive(Debug, Serialize)]
pub(crate) struct FilterStep {
    pub(crate) filter: &'static str,
    pub(crate) effect: FilterEffect,
    pub(crate) text: String,
}

/// What a filter did with the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FilterEffect {
    Passed,
    Answered,
    NotReached,
}

/// The destination of the request.
#[derive(Debug, Serialize)]
pub(crate) struct Forwarded {
    pub(crate) backend: String,
    /// The backend without endpoints that this one replaces.
    pub(crate) in_place_of: Option<String>,
    /// All backends of a rule that divides its requests by weights, this one included.
    pub(crate) shares: Vec<Share>,
    /// The Service and its port.
    pub(crate) service: String,
    pub(crate) port: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// How the endpoint is chosen.
    pub(crate) choice: String,
    /// `None` for a connection in the clear, or if the request is not sent.
    pub(crate) tls: Option<BackendTls>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) limits: Limits,
    /// The request as sent to an endpoint; `None` if it is not sent.
    pub(crate) request: Option<Sent>,
}

/// The part of a rule's requests that one backend gets.
#[derive(Debug, Serialize)]
pub(crate) struct Share {
    /// `None` for the share without a valid backend, whose requests get 500 (503 for gRPC).
    pub(crate) backend: Option<String>,
    /// In proportion to the weights of the others.
    pub(crate) weight: u32,
}

/// TLS to endpoints.
#[derive(Debug, Serialize)]
pub(crate) struct BackendTls {
    /// The name that the endpoint is told (SNI).
    pub(crate) server_name: Option<String>,
    pub(crate) verified_by: VerifiedBy,
    /// How many authorities verify, if it is not those of the system.
    pub(crate) authorities: Option<usize>,
    /// The names of which the endpoint's certificate must have one.
    pub(crate) names: Vec<String>,
    /// The certificate that the endpoint is shown, if it asks for one.
    pub(crate) client_certificate: Option<String>,
}

/// Who must have signed the certificate of an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerifiedBy {
    /// Any certificate is accepted.
    Nobody,
    /// Authorities of the object.
    Authorities,
    /// Those that the machine trusts.
    System,
}

/// The destination of a connection whose TLS passes through.
#[derive(Debug, Serialize)]
pub(crate) struct PassedThrough {
    /// The object that asks for it.
    pub(crate) object: String,
    /// `None` if the host has no path `/` with a Service.
    pub(crate) backend: Option<String>,
    /// The Service and its port.
    pub(crate) service: String,
    pub(crate) port: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// How the endpoint is chosen.
    pub(crate) choice: String,
    /// Whether the endpoint gets a PROXY header.
    pub(crate) proxy_header: bool,
    /// Whether TLS ends at the proxy and its content is passed on.
    pub(crate) terminated: bool,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A possible endpoint of the request.
#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    /// Address and port, or name and port.
    pub(crate) address: String,
    pub(crate) state: &'static str,
}

/// Limits and timeouts. Times are in seconds, sizes in bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Limits {
    pub(crate) connect_timeout: f64,
    pub(crate) send_timeout: f64,
    pub(crate) read_timeout: f64,
    /// From the request to the head of the response, over all tries; `None` for no limit.
    pub(crate) response_within: Option<f64>,
    /// `None` for no limit.
    pub(crate) tries: Option<u32>,
    /// Responses after which another endpoint is tried.
    pub(crate) retried_statuses: Vec<u16>,
    /// `None` for no limit.
    pub(crate) max_body: Option<u64>,
}

/// The head of a request for an endpoint.
#[derive(Debug, Serialize)]
pub(crate) struct Sent {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<Field>,
}

/// A field line.
#[derive(Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A field of the response that is edited.
#[derive(Debug, Serialize)]
pub(crate) struct ResponseField {
    pub(crate) name: String,
    /// `set`, `add` or `remove`.
    pub(crate) change: &'static str,
    pub(crate) value: Option<String>,
}

/// An Ingress or a route that names the host and does not get its requests.
#[derive(Debug, Serialize)]
pub(crate) struct NotLoaded {
    pub(crate) object: String,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) why: String,
}

impl Account {
    /// Whether the client gets the response that it asked for, as far as Fairway decides: anything but an error from the proxy
    /// itself.
    pub(crate) fn is_good(&self) -> bool {
        self.answer.by != By::Nothing && self.answer.status.is_none_or(|status| status < 400)
    }
}
