//! A backend that gets some of another's requests (`canary` of ingress-nginx).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::decision::Facts;
use crate::{BackendName, ConfiguredName, Fields, KnownField, Origin, RequestView, SearchRegex};

/// A backend, its alternative, and the rules of choice between them.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The backend that gets all requests that no rule sends elsewhere.
    pub main: BackendName,
    /// Its alternative.
    pub alternative: BackendName,
    /// The object that asks for it.
    pub origin: Origin,
    /// The rule about a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<CanaryField>,
    /// The cookie whose value may be `always` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Box<str>>,
    /// How many of `total` requests go to the alternative if nothing else decides.
    pub weight: u32,
    /// At least 1.
    pub total: u32,
    /// Whether the session cookie of the main backend ties clients to the alternative as well.
    pub sticky: bool,
}

/// A field whose value may decide.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CanaryField {
    /// Its name.
    pub name: ConfiguredName,
    /// The values that decide.
    pub value: CanaryValue,
}

/// The values of a field that decide.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum CanaryValue {
    /// `always` chooses the alternative, `never` the main backend.
    Switch,
    /// This value chooses the alternative.
    Exact(Box<str>),
    /// A value that contains a match chooses the alternative.
    Pattern(SearchRegex),
}

/// A choice between the two.
#[derive(Clone, Copy, Debug)]
pub struct CanaryChoice<'s> {
    /// The rules.
    pub canary: &'s Canary,
    /// Whether the alternative was chosen.
    pub alternative: bool,
    /// What decided.
    pub by: CanaryBy,
}

/// What decided between a backend and its alternative.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CanaryBy {
    /// The session that the request belongs to.
    Session,
    /// The field.
    Field,
    /// The cookie.
    Cookie,
    /// Chance, by weight.
    Weight,
    /// The alternative has no endpoint.
    NoEndpoint,
}

impl fmt::Display for CanaryBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "by the session that its cookie names",
            Self::Field => "by its header",
            Self::Cookie => "by its cookie",
            Self::Weight => "by weight",
            Self::NoEndpoint => "because the canary has no endpoint",
        })
    }
}

impl Canary {
    /// Chooses for a request, in the order of ingress-nginx (`lua/balancer.lua`, `route_to_alternative_balancer`).
    pub fn choose<'s, 'a, F: Fields<'a>>(
        &'s self,
        head: &RequestView<'a, F>,
        facts: &mut impl Facts,
    ) -> CanaryChoice<'s> {
        let choice = |alternative, by| CanaryChoice { canary: self, alternative, by };
        if facts.has_session(&self.main, &self.main) {
            return choice(false, CanaryBy::Session);
        }
        if !facts.is_open(&self.alternative) {
            return choice(false, CanaryBy::NoEndpoint);
        }
        if self.sticky && facts.has_session(&self.main, &self.alternative) {
            return choice(true, CanaryBy::Session);
        }
        if let Some(decided) = self.field.as_ref().and_then(|field| field.decide(head)) {
            return choice(decided, CanaryBy::Field);
        }
        let cookie = self.cookie.as_ref().and_then(|name| cookie(head, name.as_bytes()));
        if let Some(decided) = cookie.and_then(switch) {
            return choice(decided, CanaryBy::Cookie);
        }
        let chosen = match self.weight {
            0 => false,
            weight if weight >= self.total => true,
            weight => {
                let wide = u128::from(facts.random()) * u128::from(self.total);
                ((wide >> 64) as u32) < weight
            }
        };
        choice(chosen, CanaryBy::Weight)
    }
}

impl CanaryField {
    /// Whether the alternative is chosen; `None` if the field decides nothing. Several lines count as one value, as in nginx.
    fn decide<'a, F: Fields<'a>>(&self, head: &RequestView<'a, F>) -> Option<bool> {
        let mut lines =
            head.fields.lines().filter(|line| line.is(self.name.as_str().as_bytes())).map(|line| line.value);
        let first = lines.next()?;
        let rest: Vec<_> = lines.collect();
        let joined;
        let value = match rest.is_empty() {
            true => first,
            false => {
                joined = [&[first], &rest[..]].concat().join(&b", "[..]);
                &joined
            }
        };
        match &self.value {
            CanaryValue::Switch => switch(value),
            CanaryValue::Exact(text) => (text.as_bytes() == value).then_some(true),
            CanaryValue::Pattern(pattern) => pattern.is_match(value).then_some(true),
        }
    }
}

fn switch(value: &[u8]) -> Option<bool> {
    match value {
        b"always" => Some(true),
        b"never" => Some(false),
        _ => None,
    }
}

/// The value of the first cookie with a name.
fn cookie<'a, F: Fields<'a>>(head: &RequestView<'a, F>, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = head.fields.all(KnownField::Cookie).flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}
