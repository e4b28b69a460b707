//! Cross-origin resource sharing (Fetch standard, 3.3): which origins may read responses, and the fields that say so.

use serde::{Deserialize, Serialize};

use crate::{Change, FieldEdit, Fields, KnownField, RequestView, Template, field::is_same_field};

/// Sets the fields of CORS on responses to admitted origins, and answers their preflights.
///
/// The fields are complete before any request arrives: what depends on the request is a variable in their values.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Cors {
    /// Who is admitted.
    pub origins: Origins,
    /// The fields of each response to an admitted origin. They replace those of the backend.
    pub fields: Vec<FieldEdit>,
    /// More fields of answers to preflights as the Fetch standard defines them, whatever their origin; `None` if every OPTIONS request of
    /// an admitted origin counts as one, as in ingress-nginx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<Vec<FieldEdit>>,
}

/// What the Gateway API says about cross-origin requests (HTTPCORSFilter).
#[derive(Clone, Copy, Debug, Default)]
pub struct CorsRules<'a> {
    /// Whether requests may have credentials.
    pub credentials: bool,
    /// The methods; `*` for any.
    pub methods: &'a [String],
    /// The request fields; `*` for any.
    pub headers: &'a [String],
    /// The response fields that scripts may read.
    pub exposed: &'a [String],
    /// Seconds for which an answer to a preflight holds.
    pub max_age: i32,
}

/// Admitted origins.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub enum Origins {
    /// Every origin, and requests without one.
    Any,
    /// Origins that one of these matches.
    Listed(Vec<OriginPattern>),
}

/// An origin, or all origins with one label in place of `*`, or any number of labels in place of `**`.
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

    /// Whether an origin matches from its first to its last byte, in any case. ingress-nginx allows any text in front of it, so it admits
    /// `https://evil.example?https://a.example` for `https://a.example`.
    pub fn matches(&self, origin: &[u8]) -> bool {
        let Some((start, end)) = self.text.split_once('*') else {
            return origin.eq_ignore_ascii_case(self.text.as_bytes());
        };
        let (end, deep) = end.strip_prefix('*').map_or((end, false), |end| (end, true));
        let (start, end) = (start.as_bytes(), end.as_bytes());
        let Some(label) = origin.len().checked_sub(start.len() + end.len()).filter(|length| *length > 0) else {
            return false;
        };
        let (before, rest) = origin.split_at(start.len());
        let (label, after) = rest.split_at(label);
        before.eq_ignore_ascii_case(start)
            && after.eq_ignore_ascii_case(end)
            && label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || (deep && *byte == b'.'))
            && !(deep && (label.starts_with(b".") || label.windows(2).any(|pair| pair == b"..")))
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
        Self { origins, fields: sets(&fields), preflight: None }
    }

    /// CORS as the Gateway API defines it. The caller must add `Vary: Origin` to all answers if they differ by
    /// origin, also to those without these fields.
    pub fn of_gateway(origins: Origins, rules: &CorsRules<'_>) -> Self {
        let CorsRules { credentials, methods, headers, exposed, max_age } = *rules;
        // With credentials, `*` would be read as a name.
        let list = |names: &[String], asked: &str| match names.iter().any(|name| name == "*") {
            true if credentials => Some(Template::parse(asked)),
            true => Some(Template::of_literal("*")),
            false => (!names.is_empty()).then(|| Template::of_literal(&names.join(", "))),
        };
        let any = origins == Origins::Any && !credentials;
        let origin = if any { Template::of_literal("*") } else { Template::parse("$http_origin") };
        let fields = templates([
            ("Access-Control-Allow-Origin", Some(origin)),
            ("Access-Control-Allow-Credentials", credentials.then(|| Template::of_literal("true"))),
            ("Access-Control-Expose-Headers", (!exposed.is_empty()).then(|| Template::of_literal(&exposed.join(", ")))),
        ]);
        let preflight = templates([
            ("Access-Control-Allow-Methods", list(methods, "$http_access_control_request_method")),
            ("Access-Control-Allow-Headers", list(headers, "$http_access_control_request_headers")),
            ("Access-Control-Max-Age", Some(Template::of_literal(&max_age.to_string()))),
        ]);
        Self { origins, fields, preflight: Some(preflight) }
    }

    /// Whether a request is a preflight, given whether its origin is admitted.
    pub fn is_preflight<'a, F: Fields<'a>>(&self, head: &RequestView<'a, F>, admitted: bool) -> bool {
        head.method == b"OPTIONS"
            && match self.preflight {
                None => admitted,
                Some(_) => {
                    let asks = |name: &[u8]| is_same_field(name, b"Access-Control-Request-Method");
                    head.fields.get(KnownField::Origin).is_some() && head.fields.lines().any(|line| asks(line.name))
                }
            }
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

/// Edits that set these fields; an empty value stands for no field.
fn sets(fields: &[(&str, &str)]) -> Vec<FieldEdit> {
    let set = fields.iter().filter(|(_, value)| !value.is_empty());
    set.filter_map(|(name, value)| FieldEdit::set(name, value).ok()).collect()
}

/// Sets those of these fields that have a value.
fn templates<const N: usize>(fields: [(&str, Option<Template>); N]) -> Vec<FieldEdit> {
    let set =
        |(name, value): (&str, Option<Template>)| Some(FieldEdit::new(name.try_into().ok()?, Change::Set(value?)));
    fields.into_iter().filter_map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stars_stand_for_any_number_of_labels() {
        let matches = |origin: &str| OriginPattern::from("https://**.a.example").matches(origin.as_bytes());
        for origin in ["https://x.a.example", "https://x.y.a.example"] {
            assert!(matches(origin), "{origin}");
        }
        for other in [
            "https://a.example",
            "https://.a.example",
            "https://x..y.a.example",
            "https://x/.a.example",
            "https://.y.a.example",
        ] {
            assert!(!matches(other), "{other}");
        }
    }

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
