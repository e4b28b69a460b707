//! External authentication: another service allows or denies each request, by the status of its answer to a request
//! without a body (`auth-url` of ingress-nginx, nginx's `auth_request`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::field::is_same_field;
use crate::{ConfiguredName, FieldEdit, Forward, KnownField, KnownSet, Template};

/// Whom to ask about a request, how, and what to do with the answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ExternalAuth {
    /// The service: its backend, the timeouts, and TLS.
    pub forward: Forward,
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
    /// The fields of the client that the service gets, beside Authorization, in a request with the client's host, its method, and its target
    /// after [`ExternalAuth::target`] (the ExternalAuth filter of the Gateway API); `None` for a request as ingress-nginx sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<ConfiguredName>>,
    /// Edits of the fields for the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldEdit>,
    /// The URL to sign in at, to which a client is redirected in place of 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<Template>,
    /// Fields of the service's answer that the backend gets. A client's own never pass, whether the answer has them or
    /// not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copied: Vec<ConfiguredName>,
    /// Whether the backend gets all other fields of the answer too, but those of its body and its connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copies_all: bool,
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
    /// Appends the value by an answer with this status. `all` gives the values of a field.
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
    /// How long an answer with this status is kept; zero for not at all. What means nothing is never kept.
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
    /// Whether a response with this status passes the service's cookies on: nginx's `add_header` without `always`. The Gateway API does not.
    pub fn sets_cookies_with(&self, status: u16) -> bool {
        if self.allowed.is_some() {
            return false;
        }
        self.always_set_cookie || matches!(status, 200 | 201 | 204 | 206 | 301..=304 | 307 | 308)
    }

    /// Whether the backend gets a field from the service, and not from the client. What delimits a message is always that of the
    /// message itself.
    pub fn replaces(&self, name: &[u8], given: Option<&AuthGiven>) -> bool {
        let is_given =
            |given: &AuthGiven| given.others.iter().any(|(own, _)| is_same_field(own.as_str().as_bytes(), name));
        (given.is_some_and(is_given) || self.is_copied(name))
            && !KnownSet::STRUCTURAL.contains(KnownField::classify(name))
    }

    /// Whether a field of the answer goes to the backend although it is not listed. What is about the answer itself does not.
    pub fn copies_other(&self, name: &[u8]) -> bool {
        let is_content = name.len() > 8 && name[..8].eq_ignore_ascii_case(b"content-");
        self.copies_all
            && !self.is_copied(name)
            && !is_content
            && !KnownSet::STRUCTURAL.contains(KnownField::classify(name))
            && !OF_ANSWER.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// What an answer with this status means. The Gateway API takes nothing but 200 for a yes, ingress-nginx each success.
    pub fn judge(&self, status: u16) -> AuthAnswer {
        match (AuthAnswer::of_status(status), &self.allowed) {
            (AuthAnswer::Allowed, Some(_)) if status != 200 => AuthAnswer::Failed,
            (answer, _) => answer,
        }
    }

    fn is_copied(&self, name: &[u8]) -> bool {
        self.copied.iter().any(|own| is_same_field(own.as_str().as_bytes(), name))
    }
}

/// What a service that was asked about a request has said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthAnswer {
    /// The request may go on.
    Allowed,
    /// The client has to sign in first.
    Unauthorized,
    /// The client may not send the request.
    Forbidden,
    /// Nothing that could be understood, or nothing at all.
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
    /// Other fields, see [`ExternalAuth::copies_all`].
    pub others: Vec<(ConfiguredName, Box<[u8]>)>,
    /// The values of [`ExternalAuth::sets`].
    pub variables: Vec<Vec<u8>>,
}

impl AuthGiven {
    /// The memory that it takes.
    pub fn size(&self) -> usize {
        let variables: usize = self.variables.iter().map(|value| value.len() + size_of::<Vec<u8>>()).sum();
        let others = self.others.iter().map(|(name, value)| name.as_str().len() + value.len() + size_of_val(name) * 2);
        self.text.len() + self.copied.len() * size_of::<(usize, usize)>() + variables + others.sum::<usize>()
    }

    /// Adds the value of a name in [`ExternalAuth::copied`]: all lines of the field, joined. Cookies can't be joined (RFC
    /// 6265 3), so their lines stay apart.
    pub fn push<'a>(&mut self, auth: &ExternalAuth, place: usize, lines: impl Iterator<Item = &'a [u8]>) {
        let apart = auth.copied.get(place).is_some_and(|name| is_same_field(name.as_str().as_bytes(), b"Set-Cookie"));
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
            .filter_map(|(place, value)| Some((auth.copied.get(place)?, value)))
            .filter(|(_, value)| !value.is_empty())
            .chain(self.others.iter().map(|(name, value)| (name, &**value)))
    }
}
