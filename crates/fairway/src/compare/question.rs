//! A request sent to both addresses: method, scheme, host, target. Equal questions are sent once.

use std::str::FromStr;

use fairway_model::{Origin, Scheme};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};

/// Longest host and target that are sent.
const HOST: usize = 255;
const TARGET: usize = 8 << 10;

/// A request without a body.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Question {
    pub(super) method: String,
    pub(super) scheme: Scheme,
    /// The value of `Host`.
    pub(super) host: String,
    /// Path and query, as on the wire.
    pub(super) target: String,
    /// Further fields.
    pub(super) fields: Vec<(String, String)>,
    /// The Ingress that it was derived from.
    pub(super) origin: Option<Origin>,
}

impl Question {
    pub(super) fn new(method: &str, scheme: Scheme, host: &str, target: &str) -> Self {
        let target = match target.as_bytes() {
            [] => "/".to_owned(),
            [b'?', ..] => format!("/{target}"),
            _ => target.to_owned(),
        };
        let (method, host) = (method.to_owned(), host.to_owned());
        Self { method, scheme, host, target, fields: Vec::new(), origin: None }
    }

    /// The request for a URL.
    pub(super) fn to_url(method: &str, url: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{url:?}: {why}: expected a URL, such as https://shop.example/order/7");
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(wrong("it does not begin with http:// or https://")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.is_empty() || host.contains('@') {
            return Err(wrong(if host.is_empty() { "it has no host" } else { "it has a user name" }));
        }
        let request = Self::new(method, scheme, host, target);
        if request.can_be_sent() { Ok(request) } else { Err(wrong("it has bytes that no client sends")) }
    }

    /// Whether a client could send this request.
    pub(super) fn can_be_sent(&self) -> bool {
        let host = !self.host.is_empty() && self.host.len() <= HOST && self.host.bytes().all(|b| b.is_ascii_graphic());
        let target = self.target.len() <= TARGET
            && (self.target.starts_with('/') || self.target == "*")
            && !self.target.contains('#')
            && PathAndQuery::from_str(&self.target).is_ok_and(|parsed| parsed.as_str() == self.target);
        host && target && Method::from_bytes(self.method.as_bytes()).is_ok() && self.method != "CONNECT"
    }

    /// The host without its port, for SNI.
    pub(super) fn server_name(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &self.host,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.host, if self.target == "*" { "" } else { &self.target })
    }

    /// Whether the request can be repeated without harm.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS")
    }

    /// Adds a field.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A field as the user writes it: `NAME: VALUE`.
pub(super) fn field(text: &str) -> Result<(String, String), String> {
    let expected = || format!("-H {text:?}: expected NAME:VALUE, such as 'Accept-Language: fr'");
    let (name, value) = text.split_once(':').ok_or_else(expected)?;
    let (name, value) = (name.trim(), value.trim());
    if HeaderName::from_str(name).is_err() || HeaderValue::from_str(value).is_err() {
        return Err(expected());
    }
    if ["host", "content-length", "transfer-encoding", "connection"].contains(&&*name.to_ascii_lowercase()) {
        return Err(format!("-H {text:?}: this field follows from the request; name another"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_a_client_would_send_them() {
        let request = Question::to_url("GET", "HTTPS://a.example:8443?x=1#frag").unwrap();
        assert_eq!((request.scheme, &*request.host, &*request.target), (Scheme::Https, "a.example:8443", "/?x=1"));
        assert_eq!(request.server_name(), "a.example");
        assert_eq!(request.url(), "https://a.example:8443/?x=1");
        for target in ["//a/../%2e%2E/b", "/a;b=(c)?d=[e]", "/%C3%A9"] {
            assert_eq!(Question::to_url("GET", &format!("http://a{target}")).unwrap().target, target, "kept as it is");
        }
        for url in ["a/b", "ftp://a", "http://", "http://u@a/", "http://a/b c", "http://a/<b>"] {
            assert!(Question::to_url("GET", url).unwrap_err().contains("expected a URL"), "{url}");
        }
        assert!(!Question::new("G T", Scheme::Http, "a", "/").can_be_sent());
        assert!(!Question::new("CONNECT", Scheme::Http, "a", "/").can_be_sent());
    }

    #[test]
    fn fields_that_frame_the_message_are_refused() {
        assert_eq!(field("Accept: a:b").unwrap(), ("Accept".into(), "a:b".into()));
        for text in ["none", "a b: c", "Host: x", "content-length: 3"] {
            assert!(field(text).is_err(), "{text}");
        }
    }
}
