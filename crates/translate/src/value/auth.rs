//! Values of the authentication annotations.

use std::fmt;

use fairway_model::{AuthCacheRule, KnownField, KnownSet, Template};

use super::text::{all, texts};
use super::{HeaderName, NginxTime, Value, digits};

/// ingress-nginx's `URLWithNginxVariableRegex`, and other characters that occur in URLs. None of them ends a field or a request line.
fn is_url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:?&=,%$+@!*(){};[]".contains(&byte)
}

/// The URL of an authentication service.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AuthUrl {
    /// Whether to call it over TLS.
    pub https: bool,
    /// Its host, lower case; `$host` for that of the request.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path and query, which may hold variables.
    pub target: Template,
}

/// How a URL names the host of the request.
const OF_REQUEST: [&str; 2] = ["$host", "${host}"];

impl AuthUrl {
    /// Whether the service is at the host of the request.
    pub fn is_of_request(&self) -> bool {
        OF_REQUEST.contains(&&*self.host)
    }
}

impl Value for AuthUrl {
    const SYNTAX: &'static str =
        "an http or https URL, whose host is a name, an address or `$host`, and whose path may hold nginx variables";

    fn parse(text: &str) -> Option<Self> {
        Self::read(text).ok()
    }
}

/// What is wrong with the URL of an authentication service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidAuthUrl {
    /// Blanks, quotes and the like.
    #[error("the URL has a character that none may have")]
    Character,
    /// Neither http nor https.
    #[error("the URL does not begin with http:// or https://")]
    Scheme,
    /// Not a number, or out of range.
    #[error("the port is no number from 1 to 65535")]
    Port,
    /// The name of a user before the host.
    #[error("the URL names a user, and no password is sent to a service")]
    User,
    /// Empty, or neither a name nor an address.
    #[error("the host is no name, no address and not `$host`")]
    Host,
}

impl AuthUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// The first part that is wrong.
    pub fn read(text: &str) -> Result<Self, InvalidAuthUrl> {
        if text.trim().is_empty() {
            return Err(InvalidAuthUrl::Scheme);
        }
        let text = all(text.trim(), is_url).ok_or(InvalidAuthUrl::Character)?;
        let (scheme, rest) = text.split_once("://").ok_or(InvalidAuthUrl::Scheme)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(InvalidAuthUrl::Scheme),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(InvalidAuthUrl::User);
        }
        // `[::1]:80`, `name:80`.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let number = digits(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
                (host, number.ok_or(InvalidAuthUrl::Port)?)
            }
            _ => (authority, if https { 443 } else { 80 }),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_address = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if !(OF_REQUEST.contains(&host) || is_address || (!host.is_empty() && host.bytes().all(is_name))) {
            return Err(InvalidAuthUrl::Host);
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { https, host: host.to_ascii_lowercase(), port, target: Template::parse(&target) })
    }
}

/// The URL that requests are mirrored to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct MirrorTarget(pub AuthUrl);

impl Value for MirrorTarget {
    const SYNTAX: &'static str = "an http or https URL, whose host is a name or an address, and after which nginx variables may follow, such as \
                                  `https://test.example.com$request_uri`";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://")?;
        let (authority, target) = rest.split_at(rest.find(['/', '?', '$']).unwrap_or(rest.len()));
        let url = AuthUrl::parse(&format!("{scheme}://{authority}"))?;
        let target = if target.is_empty() { "/".to_owned() } else { all(target, is_url)? };
        let target = Template::parse(&target);
        let known = target.unknown().next().is_none();
        known.then_some(Self(AuthUrl { target, ..url }))
    }
}

/// The method of requests to an authentication service. CONNECT and TRACE are methods too, but such requests are never made.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct AuthMethod(pub &'static str);

impl Value for AuthMethod {
    const SYNTAX: &'static str = "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";

    fn parse(text: &str) -> Option<Self> {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        known.into_iter().find(|known| *known == text).map(Self)
    }
}

/// The URL of the authentication service for all paths.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum GlobalAuthUrl {
    /// There is none.
    Unset,
    /// This one.
    Url(AuthUrl),
    /// The value is invalid: paths that it would guard answer 503.
    Unreadable,
}

impl Value for GlobalAuthUrl {
    const SYNTAX: &'static str =
        "an http or https URL, whose host is a name or an address, and whose path may hold nginx variables";

    fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::Unset);
        }
        // `$host` would mean another service for each host.
        AuthUrl::parse(text).filter(|url| !url.is_of_request()).map(Self::Url)
    }
}

/// How long answers of an authentication service are kept.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AuthCacheDuration(pub Vec<AuthCacheRule>);

impl AuthCacheDuration {
    /// The durations if a key is set but no duration.
    pub const DEFAULT: &str = "200 202 401 5m";
}

impl Value for AuthCacheDuration {
    const SYNTAX: &'static str = "rules separated by commas, each a time such as `5m` after the statuses that it is for, such as `200 202 401 5m`";

    fn parse(text: &str) -> Option<Self> {
        let rule = |text: &str| {
            let (statuses, lasts) = text.rsplit_once(' ').unwrap_or(("", text));
            let lasts = NginxTime::parse(lasts)?.0;
            let statuses = match statuses.trim() {
                // As in nginx: 200, 301 and 302 without a list, and all statuses for `any`.
                "" => vec![200, 301, 302],
                "any" => Vec::new(),
                listed => {
                    let status = |word: &str| word.parse().ok().filter(|status| (100..=599).contains(status));
                    listed.split_ascii_whitespace().map(status).collect::<Option<_>>()?
                }
            };
            Some(AuthCacheRule { statuses, lasts })
        };
        let rules = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        rules.map(rule).collect::<Option<Vec<_>>>().filter(|rules| !rules.is_empty()).map(Self)
    }
}

texts! {
    /// The URL at which users sign in.
    SignInUrl("a URL or path, which may hold nginx variables"): |text| all(text.trim(), is_url);

    /// The query parameter with the original URL.
    RedirectParam("letters, digits and `- . _ ~`"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));

    /// The value of X-Auth-Request-Redirect.
    AuthRedirect("a URL or path, which may hold nginx variables"): |text| all(text.trim(), is_url);

    /// The realm of basic authentication.
    AuthRealm("text of letters, digits, blanks and `- . _ ~ : /`"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"-._~:/ ".contains(&byte));

    /// The Secret with the users; whether it is a reference is checked later.
    AuthSecret("a Secret, `name` or `namespace/name`"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte));
}

impl SignInUrl {
    /// The target of the redirect: this URL, with the URL of the request in the parameter `param` unless it already has that parameter.
    pub fn with_redirect(&self, param: &str) -> Template {
        let query = self.0.split_once('?').map_or("", |(_, query)| query);
        let mut pairs = query.split('&').filter(|pair| !pair.is_empty()).peekable();
        let join = if pairs.peek().is_some() { '&' } else { '?' };
        if pairs.any(|pair| pair.split_once('=').is_some_and(|(name, value)| name == param && !value.is_empty())) {
            return Template::parse(&self.0);
        }
        let url = self.0.trim_end_matches('?');
        Template::parse(&format!("{url}{join}{param}=$pass_access_scheme://$http_host$escaped_request_uri"))
    }
}

/// Names of fields that are copied from one message to another.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CopiedFields(pub Vec<HeaderName>);

impl Value for CopiedFields {
    const SYNTAX: &'static str = "names of headers of letters, digits, `-` and `_`, separated by commas, but for those that delimit a \
        message or belong to a connection, such as Content-Length, Host and Connection";

    fn parse(text: &str) -> Option<Self> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        names
            .map(|name| HeaderName::parse(name).filter(|_| is_name(name) && !is_structural(name)))
            .collect::<Option<_>>()
            .map(Self)
    }
}

/// Whether a field delimits a message or belongs to a connection, in any spelling. If it were removed from a request with a body, the body
/// would become the next request.
fn is_structural(name: &str) -> bool {
    KnownSet::STRUCTURAL.contains(KnownField::classify(name.replace('_', "-").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_delimit_a_message_are_not_copied() {
        for name in ["Content-Length", "content_length", "Transfer-Encoding", "Host", "Connection", "TE", "Upgrade"] {
            assert_eq!(CopiedFields::parse(&format!("X-User, {name}")), None, "{name}");
        }
        assert_eq!(CopiedFields::parse("X-User,X_Groups, ").map(|names| names.0.len()), Some(2));
    }

    #[test]
    fn urls_are_taken_apart() {
        let read =
            |text: &str| AuthUrl::parse(text).map(|url| (url.https, url.host, url.port, url.target.text().to_owned()));
        let some = |https, host: &str, port, target: &str| Some((https, host.to_owned(), port, target.to_owned()));
        assert_eq!(
            read("http://auth.ns.svc.cluster.local:4180/oauth2/auth"),
            some(false, "auth.ns.svc.cluster.local", 4180, "/oauth2/auth")
        );
        assert_eq!(read("https://$host/oauth2/auth?a=$arg_b"), some(true, "$host", 443, "/oauth2/auth?a=$arg_b"));
        assert_eq!(read("HTTPS://Auth.Example"), some(true, "auth.example", 443, "/"));
        assert_eq!(read("http://10.0.0.1?x"), some(false, "10.0.0.1", 80, "/?x"));
        assert_eq!(read("http://[2001:db8::1]:81/"), some(false, "[2001:db8::1]", 81, "/"));
        for bad in [
            "",
            "/auth",
            "ftp://a/",
            "http:///auth",
            "http://a b/",
            "http://$http_x/",
            "http://a.$host/",
            "http://user@a/",
            "http://a:0/",
            "http://a:x/",
            "http://a/\nb",
            "http://a/\"",
            "http://a/#x",
            "$scheme://a/",
            "http://[::1/",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_sign_in_page_learns_where_the_user_wanted_to_go() {
        let to = "$pass_access_scheme://$http_host$escaped_request_uri";
        let with = |text: &str, param: &str| SignInUrl::parse(text).unwrap().with_redirect(param).text().to_owned();
        assert_eq!(with("https://a/start", "rd"), format!("https://a/start?rd={to}"));
        assert_eq!(with("https://a/start?", "rd"), format!("https://a/start?rd={to}"));
        assert_eq!(with("https://a/start?x=y", "to"), format!("https://a/start?x=y&to={to}"));
        assert_eq!(with("https://a/start?rd=", "rd"), format!("https://a/start?rd=&rd={to}"));
        assert_eq!(
            with("https://$host/start?rd=$escaped_request_uri", "rd"),
            "https://$host/start?rd=$escaped_request_uri"
        );
    }
}
