//! Cross-origin resource sharing (Fetch standard, 3.3): which origins may read responses, and the fields that say so.

use serde::{Deserialize, Serialize};

use crate::{FieldEdit, Fields, KnownField, RequestView};

/// Sets the fields of CORS on responses to admitted origins, and answers their preflights.
///
/// The fields are complete before any request arrives: what depends on the request is a variable in their values.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Cors {
    /// Who is admitted.
    pub origins: Origins,
    /// The fields of each response to an admitted origin. They replace those of the backend.
    pub fields: Vec<FieldEdit>,
}

/// Admitted origins.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum Origins {
    /// Every origin, and requests without one.
    Any,
    /// Origins that one of these matches.
    Listed(Vec<OriginPattern>),
}

/// An origin, or all origins with one label in place of `*`.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(from = "Box<str>", into = "Box<str>")]
pub struct OriginPattern {
    /// Lower case.
    text: Box<str>,
}

impl OriginPattern {
    /// The pattern as text, in lower case.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether an origin matches from its first to its last byte, in any case. ingress-nginx takes any text in front of
    /// it, so that it admits `https://evil.example?https://a.example` for `https://a.example`.
    pub fn matches(&self, origin: &[u8]) -> bool {
        let Some((start, end)) = self.text.split_once('*') else {
            return origin.eq_ignore_ascii_case(self.text.as_bytes());
        };
        let (start, end) = (start.as_bytes(), end.as_bytes());
        let Some(label) = origin.len().checked_sub(start.len() + end.len()).filter(|length| *length > 0) else {
            return false;
        };
        let (before, rest) = origin.split_at(start.len());
        let (label, after) = rest.split_at(label);
        before.eq_ignore_ascii_case(start)
            && after.eq_ignore_ascii_case(end)
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    }
}

impl From<Box<str>> for OriginPattern {
    fn from(text: Box<str>) -> Self {
        Self { text: text.to_ascii_lowercase().into() }
    }
}

impl From<&str> for OriginPattern {
    fn from(text: &str) -> Self {
        Box::<str>::from(text).into()
    }
}

impl From<OriginPattern> for Box<str> {
    fn from(pattern: OriginPattern) -> Self {
        pattern.text
    }
}

impl Cors {
    /// CORS for these origins. The fields are those of ingress-nginx, in its order; an empty value stands for no field.
    pub fn new(origins: Origins, credentials: bool, methods: &str, headers: &str, exposed: &str, max_age: i64) -> Self {
        let origin = if origins == Origins::Any { "*" } else { "$http_origin" };
        let fields = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", if credentials { "true" } else { "" }),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", headers),
            ("Access-Control-Expose-Headers", exposed),
            ("Access-Control-Max-Age", &max_age.to_string()),
        ];
        let set = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let fields = set.filter_map(|(name, value)| FieldEdit::set(name, value).ok()).collect();
        Self { origins, fields }
    }

    /// Whether the origin of a request is admitted. A request with two origins has none.
    pub fn admits<'a, F: Fields<'a>>(&self, head: &RequestView<'a, F>) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::Listed(patterns) => {
                let mut origins = head.fields.all(KnownField::Origin);
                match (origins.next(), origins.next()) {
                    (Some(origin), None) => patterns.iter().any(|pattern| pattern.matches(origin)),
                    _ => false,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_matches_whole_and_a_star_stands_for_one_label() {
        let matches = |pattern: &str, origin: &str| OriginPattern::from(pattern).matches(origin.as_bytes());
        assert!(matches("https://a.example", "HTTPS://A.example"));
        assert!(matches("https://a.example:8443", "https://a.example:8443"));
        assert!(matches("null", "null"));
        for other in
            ["http://a.example", "https://a.example:8443", "https://evil?https://a.example", "https://a-example", ""]
        {
            assert!(!matches("https://a.example", other), "{other}");
        }
        assert!(matches("https://*.a.example:81", "https://x-1.a.example:81"));
        for other in [
            "https://a.example:81",
            "https://.a.example:81",
            "https://x.y.a.example:81",
            "https://x.a.example",
            "https://x/.a.example:81",
            "evilhttps://x.a.example:81",
            "https://.a.exampl",
        ] {
            assert!(!matches("https://*.a.example:81", other), "{other}");
        }
    }
}
