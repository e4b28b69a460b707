//! Values of the CORS annotations, as ingress-nginx's validators read them (`annotations/cors/main.go`).

use std::fmt;

use fairway_model::{OriginPattern, Origins};

use super::list::sift;
use super::text::{TEXT_LIMIT, all, texts};
use super::{Value, digits};

/// The origins of `cors-allow-origin`. `*` in a list stands for all. Entries that pass the check of the whole value but aren't origins are
/// left out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CorsOrigins {
    /// The origins.
    pub origins: Origins,
    left_out: Vec<String>,
}

impl Value for CorsOrigins {
    const SYNTAX: &'static str =
        "origins separated by commas, such as `https://a.example:8443` or `https://*.a.example`, or `null`, or `*`";

    fn parse(text: &str) -> Option<Self> {
        let entries = || text.split(',').map(str::trim);
        if entries().any(|entry| entry == "*") {
            return Some(Self { origins: Origins::Any, left_out: Vec::new() });
        }
        if text.len() > TEXT_LIMIT
            || !entries().all(|entry| is_origin(entry.split_once("://").map_or(entry, |(_, host)| host)))
        {
            return None;
        }
        let (origins, left_out) = sift(text, |entry| {
            let scheme = entry.split_once("://").map_or("", |(scheme, _)| scheme);
            let has_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
            (has_scheme || entry == "null").then(|| OriginPattern::from(entry))
        });
        Some(Self { origins: Origins::Listed(origins), left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// A host with an optional leading `*.` and an optional port.
fn is_origin(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        && port.is_none_or(|port| digits(port).is_some())
}

texts! {
    /// The value of Access-Control-Allow-Methods.
    CorsMethods("methods separated by commas"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphabetic() || b", ".contains(&byte));

    /// The value of Access-Control-Allow-Headers.
    CorsHeaders("names of headers, separated by commas"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"-_, ".contains(&byte));

    /// The value of Access-Control-Expose-Headers.
    CorsExposed("names of headers, or `*`, separated by commas"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"-_*, ".contains(&byte));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_in_ingress_nginx() {
        let read = |text: &str| CorsOrigins::parse(text).map(|value| (value.origins, value.left_out));
        let listed = |origins: &[&str], left_out: &[&str]| {
            let origins = origins.iter().map(|origin| OriginPattern::from(*origin)).collect();
            Some((Origins::Listed(origins), left_out.iter().map(|text| (*text).to_owned()).collect()))
        };
        assert_eq!(
            read("https://a.example , http://*.b.example:81"),
            listed(&["https://a.example", "http://*.b.example:81"], &[])
        );
        assert_eq!(read("a.example, null"), listed(&["null"], &["a.example"]));
        assert_eq!(read("https://a.example,*"), Some((Origins::Any, Vec::new())));
        for bad in ["$http_origin", "https://a.example/", "https://a.*.example", "https://a.example:x", "https://a b"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert!(CorsHeaders::parse("*").is_none() && CorsMethods::parse("GET;").is_none());
        assert_eq!(CorsExposed::parse(" *, X-A ").unwrap().as_str(), "*, X-A");
    }
}
