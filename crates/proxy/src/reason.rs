//! Why a request failed, as operators see it: one closed list for the access log, the metrics and the documentation.
//!
//! A failed request is one that the proxy could not finish or answered with its own error, or that the backend answered with a 5xx status.
//! Each has exactly one [`Reason`], and each reason has one [`Side`].

use std::fmt;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::http::{BodyError, HeadError};

/// The side at fault, which decides what happens to the connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The client: its connection ends, and the endpoint is not blamed.
    Downstream,
    /// The endpoint: another one may be tried.
    Upstream,
    /// The proxy or its configuration.
    Internal,
}

impl Side {
    /// As logs and metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

macro_rules! reasons {
    ($($side:ident { $($variant:ident = $name:literal, $status:literal, $text:literal;)+ })+) => {
        /// Why a request failed.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
        pub enum Reason {
            $($(#[doc = $text] $variant,)+)+
        }

        impl Reason {
            /// All reasons, by side.
            pub const ALL: &[Self] = &[$($(Self::$variant,)+)+];

            /// As logs and metrics spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$variant => $name,)+)+ }
            }

            /// The side at fault.
            pub const fn side(self) -> Side {
                match self { $($(Self::$variant)|+ => Side::$side,)+ }
            }

            /// A sentence that explains it.
            pub const fn text(self) -> &'static str {
                match self { $($(Self::$variant => $text,)+)+ }
            }

            /// The statuses of the response if none was already started, for the documentation.
            pub const fn statuses(self) -> &'static str {
                match self { $($(Self::$variant => $status,)+)+ }
            }
        }
    };
}

reasons! {
    Downstream {
    BadRequest = "bad_request", "400, 405, 417, 501, 505",
        "The head of the request is malformed, ambiguous or not supported; the detail names the fault.";
    HeadTooLarge = "head_too_large", "414, 431", "The request line, a field, the whole head or the number of fields is over its limit.";
    BadPath = "bad_path", "400", "The path of the request, or the path that a rewrite made of it, has no safe canonical form.";
    PlainHttpOnTls = "plain_http_on_tls", "400", "The client spoke plain HTTP on a TLS port.";
    BadBody = "bad_body", "400", "The body of the request is malformed.";
    BodyTooLarge = "body_too_large", "413", "The body of the request is larger than the route allows (`proxy-body-size`).";
    HeadTimeout = "head_timeout", "408", "The head of the request did not arrive in time (`client-header-timeout`).";
    BodyTimeout = "body_timeout", "408", "The body of the request stopped arriving (`client-body-timeout`).";
    ClientGone = "client_gone", "499", "The client closed its connection before it had the whole response.";
    ClientStalled = "client_stalled", "408", "The client stopped reading the response.";
    CallTimeout = "call_timeout", "504", "The time that the client itself gave a call of gRPC (`grpc-timeout`) has passed.";
    RateLimit = "rate_limit", "503", "The client exceeds `limit-rps` or `limit-rpm` of the route; `limit-req-status-code` sets another status. Or it has had more wrong passwords than `auth-failures-per-minute`: 429.";
    ConnectionLimit = "connection_limit", "503",
        "The client has as many requests in progress as `limit-connections` of the route allows; `limit-conn-status-code` sets another status.";
    AccessDenied = "access_denied", "403", "The client's address is not allowed by the route, or its User-Agent or Referer is blocked.";
    Unauthenticated = "unauthenticated", "401, 403, as the service says", "The authentication service of the route (`auth-url`, `ExternalAuth`) did not allow the request, or name and password (`auth-type`) are missing or wrong.";
    ClientCertificate = "client_certificate", "400, 403",
        "The host asks for a client certificate (`auth-tls-secret`), and there is none, or one that could not be verified or is of another subject.";
    Misdirected = "misdirected", "421",
        "The connection was made for a host that asks for other client certificates than the host of the request; clients then make another one.";
    NoHost = "no_host", "404", "No Ingress and no route of the Gateway API serves the host of the request.";
    NoRoute = "no_route", "404", "No path of the host matches the request.";
    }
    Upstream {
    ConnectRefused = "connect_refused", "502", "The endpoint refused the connection: nothing listens on its port.";
    ConnectFailed = "connect_failed", "502", "The connection to the endpoint failed for another cause, which the detail names.";
    ConnectTimeout = "connect_timeout", "504", "The endpoint did not accept the connection in time (`proxy-connect-timeout`).";
    TlsHandshake = "tls_handshake", "502",
        "The endpoint does not speak TLS, or its certificate was refused (`proxy-ssl-verify`), or it refused ours.";
    EndpointGone = "endpoint_gone", "502", "The endpoint was removed while the proxy was connecting to it.";
    UpstreamClosed = "upstream_closed", "502", "The endpoint closed the connection before the response was complete.";
    UpstreamReset = "upstream_reset", "502", "The endpoint reset the connection, or it broke, before the response was complete.";
    SendTimeout = "send_timeout", "504", "The endpoint stopped reading the request (`proxy-send-timeout`).";
    ReadTimeout = "read_timeout", "504", "The endpoint sent nothing for too long (`proxy-read-timeout`).";
    BadResponse = "bad_response", "502", "The head of the response is malformed or over a limit; the detail names the fault.";
    BadUpgrade = "bad_upgrade", "502", "The endpoint switched protocols without being asked, or not as the protocol demands.";
    BadResponseBody = "bad_response_body", "502", "The body of the response is malformed or ended too early.";
    RetryBudget = "retry_budget", "503",
        "The try failed, and the retry budget of the Service (XBackendTrafficPolicy) is used up, so no other one follows.";
    Upstream5xx = "upstream_5xx", "as sent", "The endpoint itself answered with a 5xx status, which was passed on.";
    }
    Internal {
    NoService = "no_service", "503", "The Service of the route, or its port, does not exist.";
    NoEndpoint = "no_endpoint", "503", "The Service of the route has no ready endpoint.";
    NoFile = "no_file", "503", "The process has as many files open as it may; raise its limit of open files.";
    Misconfigured = "misconfigured", "500, 503",
        "A restriction of the route or its backend is misconfigured or cannot be built, so the route denies everything. Or a rule of the Gateway API cannot be carried out, or refers to no valid backend: 500.";
    Authentication = "authentication", "500, 504",
        "The authentication service of the route (`auth-url`, `ExternalAuth`) could not be asked, which the detail explains, gave an answer that neither allows nor denies, or took longer than `timeouts.request` of the route (504); or too many passwords wait to be checked.";
    Unwritable = "unwritable", "500", "The request or the answer cannot be written as HTTP.";
    Shutdown = "shutdown", "499", "The proxy ended while the request was under way: the deadline of the drain had passed.";
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The detail of a cause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CauseDetail {
    /// No detail.
    None,
    /// What is wrong with a head.
    Head(HeadError),
    /// What is wrong with a body.
    Body(BodyError),
    /// An error of the operating system, by number.
    System(i32),
    /// A constant text.
    Text(&'static str),
    /// An address that endpoints may not have.
    Forbidden(IpAddr),
}

impl fmt::Display for CauseDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Head(error) => error.fmt(f),
            Self::Body(error) => error.fmt(f),
            Self::System(number) => f.write_str(Errno::from_raw(*number).desc()),
            Self::Text(text) => f.write_str(text),
            Self::Forbidden(address) => write!(f, "the name of the backend leads to {address}, which is refused"),
        }
    }
}

/// Why one request, or one try of it, failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cause {
    /// The reason.
    pub reason: Reason,
    /// Its detail.
    pub detail: CauseDetail,
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: CauseDetail::None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_reason_has_a_sentence() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.text().ends_with('.') && reason.text().len() > 20, "{reason}");
            assert!(
                reason.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
        }
    }

    #[test]
    fn what_the_system_says_is_text() {
        assert_eq!(CauseDetail::System(nix::libc::ECONNREFUSED).to_string(), "Connection refused");
        assert_eq!(CauseDetail::Head(HeadError::TooManyFields).to_string(), "too many fields");
        assert_eq!(CauseDetail::None.to_string(), "");
    }
}
