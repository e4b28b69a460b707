//! Conditions besides the path that a request must meet for a route to match.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{ConfiguredName, Fields, NetworkSet, RequestView, ValueRegex};

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Box<str>>,
    /// Fields, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldMatch>,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<ArgumentMatch>,
    /// Networks, one of which must contain the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<NetworkSet>,
}

/// A condition on a field.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FieldMatch {
    /// Its name, in any case.
    pub name: ConfiguredName,
    /// Its value.
    pub value: ValueMatch,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ArgumentMatch {
    /// Its name, exactly.
    pub name: Box<str>,
    /// Its value. If the parameter occurs several times, the first counts.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum ValueMatch {
    /// Exactly this value.
    Exact(Box<str>),
    /// The whole value matches.
    Regex(ValueRegex),
}

impl Conditions {
    /// Whether a request meets all conditions.
    pub fn admit<'a, F: Fields<'a>>(&self, head: &RequestView<'a, F>, client: IpAddr) -> bool {
        let field = |wanted: &FieldMatch| {
            let name = wanted.name.as_str().as_bytes();
            head.fields.lines().find(|line| line.is(name)).is_some_and(|line| wanted.value.matches(line.value))
        };
        let argument = |wanted: &ArgumentMatch| {
            let mut pairs = head.query().unwrap_or_default().split(|&byte| byte == b'&').map(|pair| {
                let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
                (&pair[..at], pair.get(at + 1..).unwrap_or_default())
            });
            let found = pairs.find(|(name, _)| *name == wanted.name.as_bytes());
            found.is_some_and(|(_, value)| wanted.value.matches(value))
        };
        self.method.as_ref().is_none_or(|method| method.as_bytes() == head.method)
            && self.sources.as_ref().is_none_or(|sources| sources.contains(client))
            && self.fields.iter().all(field)
            && self.arguments.iter().all(argument)
    }
}

impl Conditions {
    /// The order of precedence alone: which of two is more specific. Equal means that another rule must decide, such as
    /// the age of the objects.
    pub(crate) fn by_precedence(&self, other: &Self) -> std::cmp::Ordering {
        let count = |it: &Self| (it.method.is_some(), it.fields.len(), it.arguments.len(), it.sources.is_some());
        count(other).cmp(&count(self))
    }
}

/// By precedence, most specific first: a method, then more fields, more query parameters, a source (Gateway API,
/// HTTPRouteRule). Ties are broken by text, so that only equal values compare equal.
impl Ord for Conditions {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        fn text(it: &Conditions) -> impl Ord {
            let fields = it.fields.iter().map(|one| (one.name.as_str(), &one.value)).collect::<Vec<_>>();
            let arguments = it.arguments.iter().map(|one| (&*one.name, &one.value)).collect::<Vec<_>>();
            (it.method.as_deref(), fields, arguments, it.sources.as_ref().map(NetworkSet::networks))
        }
        self.by_precedence(other).then_with(|| text(self).cmp(&text(other)))
    }
}

impl PartialOrd for Conditions {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl ValueMatch {
    fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}
