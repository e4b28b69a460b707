//! Values of the CORS annotations, as ingress-nginx's validators read them (`annotations/cors/main.go`).

use fairway_model::{OriginPattern, Origins};

use super::list::sift;
use super::{Value, digits};

/// The origins of `cors-allow-origin`. `*` in a list stands for all. Entries that pass the check of the whole value, but are no
/// origins, are left out.
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
        if text.len() > LIMIT
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

/// Longest value, and number of names in one.
const LIMIT: usize = 4096;

/// A host with `*.` in front and a port behind, both optional.
fn is_origin(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = host.strip_prefix("*.").unwrap_or(host);
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        && port.is_none_or(|port| digits(port).is_some())
}

macro_rules! lists {
    ($($(#[doc = $doc:literal])+ $name:ident($syntax:literal): $allowed:expr;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Eq, Hash, PartialEq)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Value for $name {
            const SYNTAX: &'static str = $syntax;

            fn parse(text: &str) -> Option<Self> {
                let (text, allowed): (_, fn(u8) -> bool) = (text.trim(), $allowed);
                let words = |byte: u8| allowed(byte) || b", ".contains(&byte);
                let fits = !text.is_empty() && text.len() <= LIMIT && text.bytes().all(words);
                fits.then(|| Self(text.to_owned()))
            }
        }
    )+};
}

lists! {
    /// The value of Access-Control-Allow-Methods.
    CorsMethods("methods separated by commas"): |byte| byte.is_ascii_alphabetic();

    /// The value of Access-Control-Allow-Headers.
    CorsHeaders("names of headers, separated by commas"): |byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);

    /// The value of Access-Control-Expose-Headers.
    CorsExposed("names of headers, or `*`, separated by commas"):
        |byte| byte.is_ascii_alphanumeric() || b"-_*".contains(&byte);
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
