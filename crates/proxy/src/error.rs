//! Why a request did not go as it should: whose fault it is, what the client is answered, what the log calls it.

use crate::http1::{BodyError, HeadError};

/// Who is at fault, which decides what happens to the connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// The client: its connection ends, the endpoint is not blamed.
    Downstream,
    /// The endpoint: another one may be tried.
    Upstream,
    /// The proxy or its configuration.
    Internal,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    /// The request head was refused.
    #[error("bad request: {0}")]
    RequestHead(#[from] HeadError),
    /// The request path has no canonical form.
    #[error("bad request path")]
    RequestPath,
    /// Plain HTTP came in on a TLS listener.
    #[error("plain HTTP on a TLS port")]
    PlainOnTls,
    /// The request body was refused, or ended before its end.
    #[error("bad request body: {0}")]
    RequestBody(BodyError),
    /// The request body is larger than the route allows.
    #[error("request body over the limit")]
    BodyTooLarge,
    /// The head of the request did not come in time.
    #[error("request head timed out")]
    HeadTimeout,
    /// The request body stopped coming.
    #[error("request body timed out")]
    BodyTimeout,
    /// The client closed or reset the connection before the answer.
    #[error("client went away")]
    ClientGone,
    /// The client stopped reading.
    #[error("client stopped reading")]
    ClientStalled,
    /// The backend is unknown or has no endpoint.
    #[error("no endpoint")]
    NoEndpoint,
    /// As many files are open as the process may have.
    #[error("too many open files")]
    NoFile,
    /// Connecting to the endpoint failed.
    #[error("connecting failed")]
    Connect,
    /// Connecting to the endpoint took too long.
    #[error("connecting timed out")]
    ConnectTimeout,
    /// The endpoint closed or reset the connection before a response.
    #[error("endpoint closed the connection")]
    UpstreamClosed,
    /// The endpoint took nothing for too long.
    #[error("sending timed out")]
    SendTimeout,
    /// The endpoint sent nothing for too long.
    #[error("reading timed out")]
    ReadTimeout,
    /// The response head was refused.
    #[error("bad response: {0}")]
    ResponseHead(HeadError),
    /// The endpoint switched protocols without being asked, or not as the protocol demands.
    #[error("bad upgrade")]
    Upgrade,
    /// The response body was refused, or ended before its end.
    #[error("bad response body: {0}")]
    ResponseBody(BodyError),
    /// A request could not be written as HTTP.
    #[error("request cannot be written")]
    Unwritable,
}

/// The answer of a client that is gone (nginx's "client closed request"): only ever seen in logs.
pub(crate) const CLIENT_CLOSED: u16 = 499;

impl Failure {
    /// Who is at fault.
    pub(crate) const fn side(self) -> Side {
        match self {
            Self::RequestHead(_)
            | Self::RequestPath
            | Self::PlainOnTls
            | Self::RequestBody(_)
            | Self::BodyTooLarge
            | Self::HeadTimeout
            | Self::BodyTimeout
            | Self::ClientGone
            | Self::ClientStalled => Side::Downstream,
            Self::Connect
            | Self::ConnectTimeout
            | Self::UpstreamClosed
            | Self::SendTimeout
            | Self::ReadTimeout
            | Self::ResponseHead(_)
            | Self::Upgrade
            | Self::ResponseBody(_) => Side::Upstream,
            Self::NoEndpoint | Self::NoFile | Self::Unwritable => Side::Internal,
        }
    }

    /// The status that the client is answered, if no response was started, and a short word for the log.
    pub(crate) const fn answer(self) -> (u16, &'static str) {
        match self {
            Self::RequestHead(error) => (error.status(), "request_head"),
            Self::RequestPath => (400, "request_path"),
            Self::PlainOnTls => (400, "plain_on_tls"),
            Self::RequestBody(BodyError::Incomplete) => (CLIENT_CLOSED, "client_gone"),
            Self::RequestBody(_) => (400, "request_body"),
            Self::BodyTooLarge => (413, "body_too_large"),
            Self::HeadTimeout => (408, "head_timeout"),
            Self::BodyTimeout => (408, "body_timeout"),
            Self::ClientGone => (CLIENT_CLOSED, "client_gone"),
            Self::ClientStalled => (408, "client_stalled"),
            Self::NoEndpoint => (503, "no_endpoint"),
            Self::NoFile => (503, "no_file"),
            Self::Connect => (502, "connect"),
            Self::ConnectTimeout => (504, "connect_timeout"),
            Self::UpstreamClosed => (502, "upstream_closed"),
            Self::SendTimeout => (504, "send_timeout"),
            Self::ReadTimeout => (504, "read_timeout"),
            Self::ResponseHead(_) => (502, "response_head"),
            Self::Upgrade => (502, "upgrade"),
            Self::ResponseBody(_) => (502, "response_body"),
            Self::Unwritable => (500, "unwritable"),
        }
    }

    /// Whether nothing of the request can have reached the endpoint.
    pub(crate) const fn is_connect(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout)
    }

    /// Whether this is one of nginx's `timeout` conditions; other faults of the endpoint are `error` or `invalid_header`.
    pub(crate) const fn is_timeout(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::SendTimeout | Self::ReadTimeout)
    }
}
