//! External authentication: another service allows or denies each request. It is asked in one of the ways of [`AuthProtocol`].

mod check;

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::check::{CheckAllowed, CheckAnswer, CheckChange, CheckDenied, CheckField, CheckVerdict};
use crate::field::is_same_field;
use crate::{ConfiguredName, FieldEdit, Forward, KnownField, KnownSet, Template};

/// The service to ask about a request, and how to ask it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ExternalAuth {
    /// The service: its backend, the timeouts, and TLS.
    pub forward: Forward,
    /// What it is asked, and what its answer means.
    pub protocol: AuthProtocol,
}

/// How a service is asked.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum AuthProtocol {
    /// As nginx's `auth_request` does it (`auth-url` of ingress-nginx): a request without a body, whose answer's status decides.
    Subrequest(Box<Subrequest>),
    /// By a request with the client's method, host and target (the filter ExternalAuth of the Gateway API, protocol HTTP); only 200 allows.
    Http(HttpAuth),
    /// By a call of `envoy.service.auth.v3.Authorization/Check` (the same filter, protocol GRPC).
    Grpc(GrpcAuth),
}

/// A question in the form of ingress-nginx.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Subrequest {
    /// The Host field for the service.
    pub host: Box<str>,
    /// The target of the request to the service.
    pub target: Template,
    /// The method of that request; `None` for GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Box<str>>,
    /// The value of X-Auth-Request-Redirect; `None` for the target of the client's request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<Template>,
    /// Edits of the fields for the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldEdit>,
    /// The sign-in URL, to which a client is redirected in place of 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<Template>,
    /// Fields of the service's answer that the backend gets. The client's own never pass, whether the answer has them or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<ConfiguredName>,
    /// Variables that the service's answer sets (nginx's `auth_request_set`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<AuthVariable>,
    /// How long answers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<AuthCache>,
    /// Whether the client gets the service's cookies with every status, not just with those of success and redirects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always_set_cookie: bool,
}

/// A question over HTTP, as the Gateway API defines it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HttpAuth {
    /// The prefix put before the target of the client's request.
    pub path: Box<str>,
    /// The fields of the client that the service gets, besides Authorization.
    pub allowed: Vec<ConfiguredName>,
    /// Fields of the service's answer that the backend gets; the client's own never pass. If there are none, it gets all but those about
    /// the answer itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<ConfiguredName>,
    /// The largest body in bytes that the service gets; `None` if it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<NonZeroU32>,
}

/// A question over gRPC.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct GrpcAuth {
    /// The host that the call names.
    pub authority: Box<str>,
    /// The fields of the client that the service gets; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<ConfiguredName>>,
    /// The largest body in bytes that the service gets; `None` if it gets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<NonZeroU32>,
}

/// A variable whose value comes from an answer of the service.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct AuthVariable {
    /// Its name.
    pub name: Box<str>,
    /// Its value, in parts.
    pub parts: Vec<AuthPart>,
}

/// A part of the value of an [`AuthVariable`].
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum AuthPart {
    /// A text.
    Text(Box<str>),
    /// The lines of a field of the answer, joined.
    Field(ConfiguredName),
    /// A cookie that the answer sets.
    Cookie(Box<str>),
    /// The status of the answer.
    Status,
}

impl AuthVariable {
    /// Appends the value for an answer with this status. `all` gives the values of a field.
    pub fn append<'f, I: Iterator<Item = &'f [u8]>>(&self, status: u16, all: impl Fn(&str) -> I, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                AuthPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                AuthPart::Field(name) => {
                    for (at, line) in all(name.as_str()).enumerate() {
                        if at > 0 {
                            out.extend_from_slice(b", ");
                        }
                        out.extend_from_slice(line);
                    }
                }
                AuthPart::Cookie(name) => {
                    let found = all("Set-Cookie").find_map(|line| {
                        let (own, rest) = line.split_at_checked(name.len())?;
                        own.eq_ignore_ascii_case(name.as_bytes()).then(|| rest.strip_prefix(b"="))?
                    });
                    let value = found.and_then(|value| value.split(|&byte| byte == b';').next());
                    out.extend_from_slice(value.unwrap_or_default());
                }
                AuthPart::Status => crate::decimal::number(status.into(), out),
            }
        }
    }
}

/// For which requests an answer is kept, and how long.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AuthCache {
    /// Requests to a path with the same value share an answer.
    pub key: Template,
    /// How long answers are kept, by status; the first rule with the status counts.
    pub rules: Vec<AuthCacheRule>,
}

/// How long answers with certain statuses are kept.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct AuthCacheRule {
    /// The statuses; none for all.
    pub statuses: Vec<u16>,
    /// How long.
    pub lasts: Duration,
}

impl AuthCache {
    /// How long an answer with this status is kept; zero if it isn't. A failure is never kept.
    pub fn lasts(&self, status: u16) -> Duration {
        let is_for = |rule: &&AuthCacheRule| rule.statuses.is_empty() || rule.statuses.contains(&status);
        let rule = self.rules.iter().find(is_for).filter(|_| AuthAnswer::of_status(status) != AuthAnswer::Failed);
        rule.map_or(Duration::ZERO, |rule| rule.lasts)
    }
}

/// Fields that are about a response itself.
const OF_ANSWER: [&[u8]; 11] = [
    b"Accept-Ranges",
    b"Age",
    b"Cache-Control",
    b"Date",
    b"ETag",
    b"Expires",
    b"Last-Modified",
    b"Server",
    b"Set-Cookie",
    b"Vary",
    b"Via",
];

impl ExternalAuth {
    /// The question, if it has the form of ingress-nginx.
    pub fn subrequest(&self) -> Option<&Subrequest> {
        match &self.protocol {
            AuthProtocol::Subrequest(asks) => Some(asks),
            AuthProtocol::Http(_) | AuthProtocol::Grpc(_) => None,
        }
    }

    /// The largest request body in bytes that the service gets, `None` if it gets none; a longer one is refused.
    pub fn body(&self) -> Option<NonZeroU32> {
        match &self.protocol {
            AuthProtocol::Subrequest(_) => None,
            AuthProtocol::Http(HttpAuth { body, .. }) | AuthProtocol::Grpc(GrpcAuth { body, .. }) => *body,
        }
    }

    /// Fields of the service's answer that the backend gets.
    pub fn copied(&self) -> &[ConfiguredName] {
        match &self.protocol {
            AuthProtocol::Subrequest(asks) => &asks.copied,
            AuthProtocol::Http(asks) => &asks.copied,
            AuthProtocol::Grpc(_) => &[],
        }
    }

    /// Whether the backend gets all fields of the answer except those about its body and its connection.
    pub fn copies_all(&self) -> bool {
        matches!(&self.protocol, AuthProtocol::Http(asks) if asks.copied.is_empty())
    }

    /// Variables that the answer sets.
    pub fn sets(&self) -> &[AuthVariable] {
        self.subrequest().map_or(&[], |asks| &asks.sets)
    }

    /// The URL to sign in at.
    pub fn sign_in(&self) -> Option<&Template> {
        self.subrequest()?.sign_in.as_ref()
    }

    /// Whether a response with this status carries the service's cookies: nginx's `add_header` without `always`. With the Gateway API, none
    /// does.
    pub fn sets_cookies_with(&self, status: u16) -> bool {
        let of_success = matches!(status, 200 | 201 | 204 | 206 | 301..=304 | 307 | 308);
        self.subrequest().is_some_and(|asks| asks.always_set_cookie || of_success)
    }

    /// Whether the backend may get fields from the service in place of the client's.
    pub fn may_replace(&self) -> bool {
        match &self.protocol {
            AuthProtocol::Subrequest(asks) => !asks.copied.is_empty(),
            AuthProtocol::Http(_) | AuthProtocol::Grpc(_) => true,
        }
    }

    /// Whether the client's field does not pass, because the backend gets it from the service or not at all. Fields that delimit a message
    /// are always the message's own.
    pub fn replaces(&self, name: &[u8], given: Option<&AuthGiven>) -> bool {
        (given.is_some_and(|given| given.replaces(name)) || self.is_copied(name))
            && !KnownSet::STRUCTURAL.contains(KnownField::classify(name))
    }

    /// Whether a field of the answer goes to the backend although it is not listed. Fields about the answer itself do not.
    pub fn copies_other(&self, name: &[u8]) -> bool {
        let is_content = name.len() > 8 && name[..8].eq_ignore_ascii_case(b"content-");
        self.copies_all()
            && !is_content
            && !KnownSet::STRUCTURAL.contains(KnownField::classify(name))
            && !OF_ANSWER.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// What an answer with this status means. In ingress-nginx each 2xx allows. In the Gateway API only 200 does, and a service may deny
    /// with a redirect or any 4xx. A status doesn't answer a gRPC call.
    pub fn judge(&self, status: u16) -> AuthAnswer {
        match (AuthAnswer::of_status(status), &self.protocol) {
            (_, AuthProtocol::Grpc(_)) => AuthAnswer::Failed,
            (_, AuthProtocol::Http(_)) => match status {
                200 => AuthAnswer::Allowed,
                301 | 302 | 303 | 307 | 308 | 400..=499 => AuthAnswer::Denied,
                _ => AuthAnswer::Failed,
            },
            (answer, _) => answer,
        }
    }

    fn is_copied(&self, name: &[u8]) -> bool {
        self.copied().iter().any(|own| is_same_field(own.as_str().as_bytes(), name))
    }
}

/// The answer of a service that was asked about a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthAnswer {
    /// The request may go on.
    Allowed,
    /// The client has to sign in first.
    Unauthorized,
    /// The client may not send the request.
    Forbidden,
    /// The client may not send it, and gets the service's own answer, [`Scratch::denied`](crate::decision::Scratch::denied).
    Denied,
    /// The answer was unintelligible, or there was none.
    Failed,
}

impl AuthAnswer {
    /// The meaning of a status, as in nginx's `auth_request`.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Allowed,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            _ => Self::Failed,
        }
    }
}

/// What an answer of the service contributes to other messages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuthGiven {
    text: Vec<u8>,
    /// Places in [`ExternalAuth::copied`], and the ends of their values in `text`.
    copied: Vec<(usize, usize)>,
    /// Other fields, which replace the client's.
    pub others: Vec<(ConfiguredName, Box<[u8]>)>,
    /// Fields in addition to the client's.
    pub added: Vec<(ConfiguredName, Box<[u8]>)>,
    /// Fields of the client that the backend does not get.
    pub removed: Vec<ConfiguredName>,
    /// Fields of the response.
    pub response: Vec<GivenField>,
    /// The values of [`ExternalAuth::sets`].
    pub variables: Vec<Vec<u8>>,
}

/// A field of the response that a service gives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GivenField {
    /// Its name.
    pub name: ConfiguredName,
    /// Its value; none is written if it is empty.
    pub value: Box<[u8]>,
    /// Whether it replaces the response's own.
    pub replaces: bool,
    /// If given, it applies only if the response has the field itself (`true`) or lacks it (`false`).
    pub only_with: Option<bool>,
}

impl AuthGiven {
    /// The memory that it takes.
    pub fn size(&self) -> usize {
        let variables: usize = self.variables.iter().map(|value| value.len() + size_of::<Vec<u8>>()).sum();
        let lines = self.others.iter().chain(&self.added);
        let lines = lines.map(|(name, value)| name.as_str().len() + value.len() + size_of_val(name) * 2);
        let removed = self.removed.iter().map(|name| name.as_str().len() + size_of_val(name));
        let response =
            self.response.iter().map(|field| field.name.as_str().len() + field.value.len() + size_of_val(field));
        self.text.len()
            + self.copied.len() * size_of::<(usize, usize)>()
            + variables
            + lines.chain(removed).chain(response).sum::<usize>()
    }

    /// Whether the service's answer replaces or removes the client's field of this name.
    fn replaces(&self, name: &[u8]) -> bool {
        let is = |own: &ConfiguredName| is_same_field(own.as_str().as_bytes(), name);
        self.others.iter().any(|(own, _)| is(own)) || self.removed.iter().any(is)
    }

    /// Adds the value of a name in [`ExternalAuth::copied`]: all lines of the field, joined. Cookies can't be joined (RFC
    /// 6265 3), so their lines stay apart.
    pub fn push<'a>(&mut self, auth: &ExternalAuth, place: usize, lines: impl Iterator<Item = &'a [u8]>) {
        let apart = auth.copied().get(place).is_some_and(|name| is_same_field(name.as_str().as_bytes(), b"Set-Cookie"));
        let start = self.text.len();
        for line in lines {
            if apart {
                self.text.extend_from_slice(line);
                self.copied.push((place, self.text.len()));
                continue;
            }
            if self.text.len() > start {
                self.text.extend_from_slice(b", ");
            }
            self.text.extend_from_slice(line);
        }
        if !apart {
            self.copied.push((place, self.text.len()));
        }
    }

    /// Names and values that are not empty.
    pub fn fields<'a>(&'a self, auth: &'a ExternalAuth) -> impl Iterator<Item = (&'a ConfiguredName, &'a [u8])> {
        let starts = std::iter::once(0).chain(self.copied.iter().map(|(_, end)| *end));
        let values = starts.zip(&self.copied).map(|(start, &(place, end))| (place, &self.text[start..end]));
        values
            .filter_map(|(place, value)| Some((auth.copied().get(place)?, value)))
            .filter(|(_, value)| !value.is_empty())
            .chain(self.others.iter().chain(&self.added).map(|(name, value)| (name, &**value)))
    }
}
