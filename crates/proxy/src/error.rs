//! Why a request failed, as the serving code sees it: the status for the client, whether another endpoint may be tried, and the
//! [`Cause`] for the operator.

use std::io;
use std::net::IpAddr;

use fairway_model::{BackendName, decision};
use nix::libc::ECONNREFUSED;

use crate::http::{BodyError, HeadError};
use crate::live::Live;
pub(crate) use crate::reason::Side;
use crate::reason::{Cause, CauseDetail, Reason};
use crate::upstream::InvalidTls;

/// What went wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The request head was refused.
    RequestHead(HeadError),
    /// The request path has no canonical form.
    RequestPath,
    /// A template produces more than a head may hold.
    TooLong,
    /// Plain HTTP arrived on a TLS listener.
    PlainOnTls,
    /// The request body was refused or ended early.
    RequestBody(BodyError),
    /// The request body is larger than the route allows.
    BodyTooLarge,
    /// The request head did not arrive in time.
    HeadTimeout,
    /// The request body stopped arriving.
    BodyTimeout,
    /// The client closed or reset the connection before the response.
    ClientGone,
    /// The client stopped reading.
    ClientStalled,
    /// The client's own timeout for the call has expired.
    CallTimeout,
    /// The backend is unknown.
    NoService,
    /// All backends of the rule have weight 0.
    NoShare,
    /// The backend has no endpoint.
    NoEndpoint,
    /// The backend is a name that is not resolved.
    Unresolved,
    /// The backend is a name that resolves only to forbidden addresses such as this one.
    Forbidden(IpAddr),
    /// The process has reached its limit of open files.
    NoFile,
    /// Connecting to the endpoint failed, with the error of the operating system.
    Connect(Errno),
    /// The endpoint was removed while the proxy was connecting to it.
    EndpointGone,
    /// Connecting to the endpoint took too long.
    ConnectTimeout,
    /// The endpoint closed the connection before a response.
    UpstreamClosed,
    /// The connection to the endpoint was reset or broke before a response.
    UpstreamReset(Errno),
    /// The endpoint does not speak HTTP/2.
    NotHttp2,
    /// The endpoint has refused the request without processing it, which HTTP/2 lets it signal.
    Unprocessed,
    /// The endpoint has reset the HTTP/2 stream before the end of the response.
    StreamReset(h2::Reason),
    /// The endpoint's HTTP/2 frames are invalid.
    InvalidFrames,
    /// The endpoint read nothing for too long.
    SendTimeout,
    /// The endpoint sent nothing for too long.
    ReadTimeout,
    /// The response head was refused.
    ResponseHead(HeadError),
    /// More interim responses arrived than are passed on.
    InterimResponses,
    /// The endpoint switched protocols unasked, or not as the protocol demands.
    Upgrade,
    /// The response body was refused or ended early.
    ResponseBody(BodyError),
    /// The TLS handshake with the endpoint failed, for this reason.
    Handshake(&'static str),
    /// TLS to the endpoint can't be set up as the route demands.
    InvalidTls(InvalidTls),
    /// The authentication service could not be asked, for this reason, or its answer is unusable.
    Authentication(Option<Reason>),
    /// The authentication service took longer than the request's time allows.
    AuthenticationTimeout,
    /// Too many passwords are being checked.
    PasswordsBusy,
    /// The client has had too many wrong passwords.
    WrongPasswords,
    /// A try failed, and the backend's budget allows no other.
    NoRetryLeft,
    /// A request can't be written as HTTP.
    Unwritable,
    /// The process is ending.
    Shutdown,
    /// The connection was opened for a host with other requirements for client certificates.
    Misdirected,
    /// The host asks for another client certificate.
    ClientCertificate(Uncertified),
}

/// Why a client certificate is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Uncertified {
    /// No certificate was sent.
    Missing,
    /// It can't be verified.
    Refused,
    /// Its subject is not admitted.
    Subject,
}

/// The number of an error of the operating system, if it has one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Errno(Option<i32>);

impl From<decision::Failure> for Failure {
    fn from(failure: decision::Failure) -> Self {
        match failure {
            decision::Failure::Path(_) | decision::Failure::Ambiguous(_) | decision::Failure::Rewritten => {
                Self::RequestPath
            }
            decision::Failure::Host => Self::RequestHead(HeadError::InvalidHost),
            decision::Failure::TooLong(_) => Self::TooLong,
            decision::Failure::BodyTooLarge => Self::BodyTooLarge,
            decision::Failure::NoService => Self::NoService,
            decision::Failure::NoEndpoint => Self::NoEndpoint,
            decision::Failure::NoBackend => Self::NoShare,
            decision::Failure::Misdirected => Self::Misdirected,
            decision::Failure::NoCertificate => Self::ClientCertificate(Uncertified::Missing),
            decision::Failure::Certificate => Self::ClientCertificate(Uncertified::Refused),
            decision::Failure::Authentication => Self::Authentication(None),
            decision::Failure::Subject => Self::ClientCertificate(Uncertified::Subject),
        }
    }
}

impl From<fairway_model::TooLong> for Failure {
    fn from(_: fairway_model::TooLong) -> Self {
        Self::TooLong
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        Self(error.raw_os_error())
    }
}

impl From<Errno> for CauseDetail {
    fn from(errno: Errno) -> Self {
        errno.0.map_or(Self::None, Self::System)
    }
}

/// The name of an HTTP/2 error code (RFC 9113 7).
fn code_name(code: h2::Reason) -> &'static str {
    match code {
        h2::Reason::NO_ERROR => "NO_ERROR",
        h2::Reason::PROTOCOL_ERROR => "PROTOCOL_ERROR",
        h2::Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
        h2::Reason::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
        h2::Reason::STREAM_CLOSED => "STREAM_CLOSED",
        h2::Reason::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
        h2::Reason::CANCEL => "CANCEL",
        h2::Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        h2::Reason::HTTP_1_1_REQUIRED => "HTTP_1_1_REQUIRED",
        _ => "another code of HTTP/2",
    }
}

/// The status for a client that is gone (nginx's "client closed request"); only logs show it.
pub(crate) const CLIENT_CLOSED: u16 = 499;

impl Failure {
    /// The failure for a backend without endpoints.
    pub(crate) fn without_endpoint(live: &Live, backend: &BackendName) -> Self {
        match decision::Failure::without_endpoint(&live.snapshot, backend) {
            decision::Failure::NoEndpoint => match live.resolved.get(backend) {
                Some(resolved) => resolved.refused.map_or(Self::NoEndpoint, Self::Forbidden),
                None if live.is_name(backend) => Self::Unresolved,
                None => Self::NoEndpoint,
            },
            other => other.into(),
        }
    }

    /// The side at fault.
    pub(crate) const fn side(self) -> Side {
        self.reason().side()
    }

    /// The cause, for the operator.
    pub(crate) fn cause(self) -> Cause {
        let detail = match self {
            Self::RequestHead(error) | Self::ResponseHead(error) => CauseDetail::Head(error),
            Self::RequestBody(error) | Self::ResponseBody(error) => CauseDetail::Body(error),
            Self::Connect(errno) | Self::UpstreamReset(errno) => errno.into(),
            Self::InvalidTls(InvalidTls::NoCertificate) => CauseDetail::Text("the client certificate is missing"),
            Self::InvalidTls(InvalidTls::Certificate) => CauseDetail::Text("the client certificate cannot be used"),
            Self::InvalidTls(InvalidTls::Authorities) => CauseDetail::Text("the authorities cannot be used"),
            Self::InvalidTls(InvalidTls::Name) => CauseDetail::Text("the server name cannot be used"),
            Self::Handshake(fault) => CauseDetail::Text(fault),
            Self::Unresolved => CauseDetail::Text("the name of the backend is not resolved"),
            Self::Forbidden(address) => CauseDetail::Forbidden(address),
            Self::NotHttp2 => CauseDetail::Text("the endpoint does not speak HTTP/2"),
            Self::Unprocessed => CauseDetail::Text("the endpoint refused the stream"),
            Self::StreamReset(reason) => CauseDetail::Text(code_name(reason)),
            Self::InvalidFrames => CauseDetail::Text("frames of HTTP/2 are invalid"),
            Self::InterimResponses => CauseDetail::Text("too many interim responses"),
            Self::ClientCertificate(Uncertified::Missing) => CauseDetail::Text("no certificate was sent"),
            Self::ClientCertificate(Uncertified::Refused) => CauseDetail::Text("the certificate could not be verified"),
            Self::ClientCertificate(Uncertified::Subject) => CauseDetail::Text("the subject is not admitted"),
            Self::Authentication(Some(reason)) => CauseDetail::Text(reason.as_str()),
            Self::Authentication(None) => CauseDetail::Text("the service gave no answer that allows or denies"),
            Self::AuthenticationTimeout => CauseDetail::Text("the service took longer than the request may"),
            Self::PasswordsBusy => CauseDetail::Text("too many passwords are being checked"),
            Self::WrongPasswords => CauseDetail::Text("too many wrong passwords"),
            Self::TooLong => CauseDetail::Text("a template makes more of it than a head may hold"),
            _ => CauseDetail::None,
        };
        Cause { reason: self.reason(), detail }
    }

    /// The reason in the operator's list.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::RequestHead(error) if matches!(error.status(), 414 | 431) => Reason::HeadTooLarge,
            Self::RequestHead(_) => Reason::BadRequest,
            Self::RequestPath => Reason::BadPath,
            Self::TooLong => Reason::HeadTooLarge,
            Self::PlainOnTls => Reason::PlainHttpOnTls,
            Self::RequestBody(BodyError::Incomplete) | Self::ClientGone => Reason::ClientGone,
            Self::RequestBody(_) => Reason::BadBody,
            Self::BodyTooLarge => Reason::BodyTooLarge,
            Self::HeadTimeout => Reason::HeadTimeout,
            Self::BodyTimeout => Reason::BodyTimeout,
            Self::ClientStalled => Reason::ClientStalled,
            Self::CallTimeout => Reason::CallTimeout,
            Self::NoService | Self::NoShare => Reason::NoService,
            Self::NoEndpoint | Self::Unresolved | Self::Forbidden(_) => Reason::NoEndpoint,
            Self::NoFile => Reason::NoFile,
            Self::Connect(Errno(Some(ECONNREFUSED))) => Reason::ConnectRefused,
            Self::Connect(_) => Reason::ConnectFailed,
            Self::EndpointGone => Reason::EndpointGone,
            Self::ConnectTimeout => Reason::ConnectTimeout,
            Self::UpstreamClosed => Reason::UpstreamClosed,
            Self::UpstreamReset(_) | Self::Unprocessed | Self::StreamReset(_) => Reason::UpstreamReset,
            Self::SendTimeout => Reason::SendTimeout,
            Self::ReadTimeout => Reason::ReadTimeout,
            Self::ResponseHead(_) | Self::InterimResponses | Self::NotHttp2 | Self::InvalidFrames => {
                Reason::BadResponse
            }
            Self::Upgrade => Reason::BadUpgrade,
            Self::ResponseBody(_) => Reason::BadResponseBody,
            Self::Handshake(_) => Reason::TlsHandshake,
            Self::InvalidTls(_) => Reason::Misconfigured,
            Self::Authentication(_) | Self::AuthenticationTimeout | Self::PasswordsBusy => Reason::Authentication,
            Self::WrongPasswords => Reason::RateLimit,
            Self::NoRetryLeft => Reason::RetryBudget,
            Self::Unwritable => Reason::Unwritable,
            Self::Shutdown => Reason::Shutdown,
            Self::Misdirected => Reason::Misdirected,
            Self::ClientCertificate(_) => Reason::ClientCertificate,
        }
    }

    /// The status for the client, if no response was started.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::RequestHead(error) => error.status(),
            Self::RequestPath | Self::PlainOnTls => 400,
            Self::ClientCertificate(Uncertified::Missing | Uncertified::Refused) => 400,
            Self::ClientCertificate(Uncertified::Subject) => 403,
            Self::Misdirected => 421,
            Self::TooLong => 414,
            Self::RequestBody(BodyError::Incomplete) | Self::ClientGone | Self::Shutdown => CLIENT_CLOSED,
            Self::RequestBody(_) => 400,
            Self::BodyTooLarge => 413,
            Self::WrongPasswords => 429,
            Self::HeadTimeout | Self::BodyTimeout | Self::ClientStalled => 408,
            Self::NoService
            | Self::NoEndpoint
            | Self::Unresolved
            | Self::Forbidden(_)
            | Self::NoFile
            | Self::InvalidTls(_)
            | Self::NoRetryLeft => 503,
            Self::ConnectTimeout
            | Self::SendTimeout
            | Self::ReadTimeout
            | Self::CallTimeout
            | Self::AuthenticationTimeout => 504,
            Self::Connect(_)
            | Self::EndpointGone
            | Self::Handshake(_)
            | Self::UpstreamClosed
            | Self::UpstreamReset(_)
            | Self::NotHttp2
            | Self::Unprocessed
            | Self::StreamReset(_)
            | Self::InvalidFrames
            | Self::ResponseHead(_)
            | Self::InterimResponses
            | Self::Upgrade
            | Self::ResponseBody(_) => 502,
            Self::Unwritable | Self::NoShare | Self::Authentication(_) | Self::PasswordsBusy => 500,
        }
    }

    /// Whether no part of the request can have reached the endpoint.
    pub(crate) const fn is_connect(self) -> bool {
        matches!(
            self,
            Self::Connect(_)
                | Self::EndpointGone
                | Self::ConnectTimeout
                | Self::Handshake(_)
                | Self::NotHttp2
                | Self::Unprocessed
        )
    }

    /// Whether the endpoint ended the connection before a response, cleanly or not.
    pub(crate) const fn is_closed(self) -> bool {
        matches!(self, Self::UpstreamClosed | Self::UpstreamReset(_))
    }

    /// Whether this is one of nginx's `timeout` conditions; other failures of the endpoint are `error` or `invalid_header`.
    pub(crate) const fn is_timeout(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::SendTimeout | Self::ReadTimeout)
    }
}
