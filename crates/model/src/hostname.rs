//! Host names as configured and as requested.
//!
//! All are lower case, without port and without trailing dot; that form is made once, on entry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Why a text is not a host name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not a host name: expected labels of letters, digits and hyphens, joined by dots")]
pub struct InvalidHostname(String);

/// An exact DNS name, lower case, no trailing dot (RFC 1123 section 2.1, at most 253 characters; `_` is tolerated, as nginx does).
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label, `example.com` for `www.example.com`.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

/// Hashes like its bytes, so that a host from a request can be looked up without building one of these.
impl std::hash::Hash for Hostname {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.0.as_bytes());
    }
}

impl FromStr for Hostname {
    type Err = InvalidHostname;

    fn from_str(text: &str) -> Result<Self, InvalidHostname> {
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        let valid_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if trimmed.len() > 253 || !trimmed.split('.').all(valid_label) {
            return Err(InvalidHostname(text.chars().take(300).collect()));
        }
        Ok(Self(trimmed.to_ascii_lowercase().into()))
    }
}

impl TryFrom<String> for Hostname {
    type Error = InvalidHostname;

    fn try_from(text: String) -> Result<Self, InvalidHostname> {
        text.parse()
    }
}

impl From<Hostname> for String {
    fn from(name: Hostname) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The host names a [`Host`](crate::Host) answers for. The variants are in order of precedence, except that among
/// [`Subdomains`](Self::Subdomains) the longest wins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// Exactly this name.
    Exact(Hostname),
    /// `*.example.com`: exactly one label before the name (Ingress wildcards). It comes before all wildcards that aliases can have, so
    /// that no alias takes names from an Ingress that has them by its host; in ingress-nginx it comes after them.
    Label(Hostname),
    /// `**.example.com`: any number of labels before the name, at least one (server-alias `*.x`, Gateway API wildcards).
    Subdomains(Hostname),
    /// `example.*`: the name followed by anything (server-alias `x.*`).
    AnySuffix(Hostname),
    /// `~pattern`: a case-insensitive regular expression, searched anywhere in the name (server-alias `~regex`).
    Regex(HostRegex),
    /// `*`: any name that no other pattern matches.
    Any,
}

/// A host regular expression; two are equal if their text is.
#[derive(Clone, Debug)]
pub struct HostRegex {
    text: Arc<str>,
    regex: Regex,
}

impl HostRegex {
    /// Whether the canonical host matches.
    pub fn is_match(&self, host: &[u8]) -> bool {
        self.regex.is_match(host)
    }
}

impl HostPattern {
    /// Parses the text form that [`Display`](fmt::Display) prints; `*` is [`HostPattern::Any`].
    pub fn parse(text: &str) -> Result<Self, InvalidHostname> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(pattern) = text.strip_prefix('~') {
            let regex = RegexBuilder::new(pattern)
                .case_insensitive(true)
                .unicode(false)
                .size_limit(256 << 10)
                .build()
                .map_err(|_| InvalidHostname(text.chars().take(300).collect()))?;
            return Ok(Self::Regex(HostRegex { text: pattern.into(), regex }));
        }
        if let Some(name) = text.strip_prefix("**.") {
            return Ok(Self::Subdomains(name.parse()?));
        }
        if let Some(name) = text.strip_prefix("*.") {
            return Ok(Self::Label(name.parse()?));
        }
        if let Some(name) = text.strip_suffix(".*") {
            return Ok(Self::AnySuffix(name.parse()?));
        }
        Ok(Self::Exact(text.parse()?))
    }

    /// The pattern as users write it: a wildcard has a single `*`, whether that stands for one label or for many.
    pub fn as_written(&self) -> String {
        match self {
            Self::Subdomains(name) => format!("*.{name}"),
            other => other.to_string(),
        }
    }

    /// Sorts the more specific of two patterns that match the same name first: an exact name, then the longer wildcard, one label before
    /// many, then other patterns, then any name.
    pub fn by_precision(&self) -> std::cmp::Reverse<(u8, usize, u8)> {
        let length = self.text().len();
        std::cmp::Reverse(match self {
            Self::Exact(_) => (4, length, 0),
            Self::Label(_) => (3, length, 1),
            Self::Subdomains(_) => (3, length, 0),
            Self::AnySuffix(_) => (2, length, 0),
            Self::Regex(_) => (1, length, 0),
            Self::Any => (0, 0, 0),
        })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Exact(_) => 0,
            Self::Label(_) => 1,
            Self::Subdomains(_) => 2,
            Self::AnySuffix(_) => 3,
            Self::Regex(_) => 4,
            Self::Any => 5,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Subdomains(name) | Self::AnySuffix(name) | Self::Label(name) => name.as_str(),
            Self::Regex(regex) => &regex.text,
            Self::Any => "",
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Subdomains(name) => write!(f, "**.{name}"),
            Self::AnySuffix(name) => write!(f, "{name}.*"),
            Self::Label(name) => write!(f, "*.{name}"),
            Self::Regex(regex) => write!(f, "~{}", regex.text),
            Self::Any => f.write_str("*"),
        }
    }
}

impl PartialEq for HostPattern {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for HostPattern {}

impl PartialOrd for HostPattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostPattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.rank(), self.text()).cmp(&(other.rank(), other.text()))
    }
}

impl std::hash::Hash for HostPattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        self.text().hash(state);
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHostname;

    fn try_from(text: String) -> Result<Self, InvalidHostname> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

/// Converts the value of a Host field or the authority of an absolute target into the form used for matching: without
/// port, without one trailing dot, lower case. Borrows if nothing changes; `scratch` is reused otherwise.
///
/// Returns `None` if it is not a host: user information, bad port, or a byte that is not allowed in a name or address
/// literal (RFC 9110 section 7.2, RFC 3986 section 3.2.2). An empty host stays empty: HTTP allows it, and only the
/// catch-all matches it.
pub fn canonical_host<'a>(authority: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let (host, port) = if authority.first() == Some(&b'[') {
        let end = memchr::memchr(b']', authority)?;
        (&authority[..=end], &authority[end + 1..])
    } else {
        let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
        authority.split_at(end)
    };
    match port {
        [] => {}
        [b':', digits @ ..] if digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) => {}
        _ => return None,
    }
    let literal = host.first() == Some(&b'[');
    let mut upper = false;
    for (at, &byte) in host.iter().enumerate() {
        match byte {
            b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b'=' => {}
            // An empty label is invalid; nginx also refuses two dots in a row.
            b'.' if at > 0 && host[at - 1] != b'.' => {}
            b'A'..=b'Z' => upper = true,
            b'[' | b']' | b':' if literal => {}
            _ => return None,
        }
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    if !upper {
        return Some(host);
    }
    scratch.clear();
    scratch.extend(host.iter().map(u8::to_ascii_lowercase));
    Some(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_without_trailing_dot() {
        assert_eq!("Shop.Example.".parse::<Hostname>().unwrap().as_str(), "shop.example");
        for bad in ["", ".", "a..b", "-a.b", "a b", "a/b", "*.a", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_print_as_they_are_read() {
        for text in ["a.b", "*.a.b", "**.a.b", "a.b.*", "~^x[0-9]+\\.b$", "*"] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), text);
            assert_eq!(HostPattern::parse(text).unwrap().as_written(), text.replace("**", "*"));
        }
        assert!(HostPattern::parse("~(").is_err());
        assert!(HostPattern::parse("*.").is_err());
    }

    #[test]
    fn hosts_are_canonicalized() {
        let mut scratch = Vec::new();
        let mut canonical =
            |text: &str| canonical_host(text.as_bytes(), &mut scratch).map(|h| String::from_utf8(h.to_vec()).unwrap());
        assert_eq!(canonical("Shop.Example.:8080").as_deref(), Some("shop.example"));
        assert_eq!(canonical("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(canonical("").as_deref(), Some(""));
        for bad in
            ["user@host", "a b", "a:80x", "a:123456", "a/b", "a\0", "a..b", ".a", "[::1", "[::1]x", "a:1:2", "a#", "a?"]
        {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
    }
}
