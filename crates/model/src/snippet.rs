//! What nginx text asks for, as data: the steps of nginx's rewrite phase, and edits that depend on the response.
//!
//! As in nginx, blocks of `if` don't nest: the cost of a request is bounded by the length of the text.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{FieldEdit, NetworkSet, Respond, SearchRegex, Template};

/// Steps before the checks of a route, and edits that replace those of an earlier snippet of the same route.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Snippet {
    /// Whether the steps belong to the whole host: they run once, even if a step changes the path and with it the route.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_host: bool,
    /// The methods that the steps apply to; none for all. nginx's `limit_except` is a location of its own, without the steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Box<str>>,
    /// The steps, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<SnippetStep>,
    /// The edits, unless a block of [`SnippetStep::If`] has its own.
    #[serde(default, skip_serializing_if = "SnippetEdits::is_empty")]
    pub edits: SnippetEdits,
}

/// Edits of the messages of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SnippetEdits {
    /// Edits of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request: Vec<FieldEdit>,
    /// Edits of the response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub response: Vec<ResponseEdit>,
    /// Texts to replace in the body of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substitution: Option<Box<Substitution>>,
    /// Whether the response stays uncompressed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncompressed: bool,
}

/// An edit of a response, if that has one of some statuses and types.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct ResponseEdit {
    /// The edit.
    #[serde(flatten)]
    pub edit: FieldEdit,
    /// The statuses; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// The media types; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<Box<str>>,
}

/// Texts to replace in the body of a response (nginx's `sub_filter`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Substitution {
    /// The texts to search for, in any case, and their replacements.
    pub pairs: Vec<(Box<str>, Template)>,
    /// Whether only the first occurrence of each text is replaced.
    pub once: bool,
    /// The media types besides `text/html`; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<Box<str>>,
    /// Whether Last-Modified and ETag stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last_modified: bool,
}

/// A step of nginx's rewrite phase.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SnippetStep {
    /// Gives a variable a value.
    Set(Box<str>, Template),
    /// Gives a variable the value that belongs to the first matching key.
    Map(Box<VariableMap>),
    /// Does more if a condition holds.
    If(Box<SnippetIf>),
    /// Answers.
    Respond(Respond),
    /// Redirects, with a status.
    Redirect(u16, Template),
    /// Changes the path, if a pattern matches it.
    Rewrite(Box<PathChange>),
    /// Ends the steps.
    Break,
}

/// A condition and its consequences.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SnippetIf {
    /// The condition.
    pub test: SnippetTest,
    /// The steps. None of them is another condition.
    pub steps: Vec<SnippetStep>,
    /// The edits from then on, inherited ones included.
    pub edits: SnippetEdits,
}

/// A condition of `if`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SnippetTest {
    /// The value is neither empty nor `0`.
    Is(Template),
    /// The values are the same.
    Equal(Template, Template),
    /// They differ.
    Unequal(Template, Template),
    /// The pattern matches some part of the value.
    Matches(Template, SearchRegex),
    /// It doesn't.
    MatchesNot(Template, SearchRegex),
}

/// A variable whose value depends on another value (nginx's `map` and `geo`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct VariableMap {
    /// The name of the variable.
    pub name: Box<str>,
    /// The value that decides.
    pub source: Template,
    /// Keys in order of precedence, and their values.
    pub entries: Vec<(MapKey, Template)>,
    /// The value if no key matches.
    pub default: Template,
}

/// A key of a map.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum MapKey {
    /// The same text, in any case.
    Text(Box<str>),
    /// A match of a pattern.
    Pattern(SearchRegex),
    /// An address in one of these networks.
    Network(NetworkSet),
}

/// A change to the path (nginx's `rewrite`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PathChange {
    /// The pattern that the path must match.
    pub pattern: SearchRegex,
    /// The new path, with a query or without. One with a scheme is a redirect.
    pub target: Template,
    /// Whether the request's query is appended.
    pub keeps_query: bool,
    /// What happens then.
    pub then: AfterChange,
}

/// What happens after a change of the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum AfterChange {
    /// The next steps, and at their end another choice of the route.
    Continue,
    /// Another choice of the route.
    Choose,
    /// The same route, without further steps.
    Stay,
    /// A redirect with this status.
    Redirect(u16),
}

/// Address rules in order: the first one that contains the client decides; if none does, it is admitted.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct AccessRules {
    /// The rules: whether these networks are admitted.
    pub rules: Vec<(bool, NetworkSet)>,
    /// Rules for all methods but some, which replace the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Box<MethodRules>>,
    /// Whether authentication by a later filter admits other clients too, and admitted clients need none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub or_auth: bool,
}

/// Address rules for all methods but some.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct MethodRules {
    /// The methods that the rules don't apply to.
    pub methods: Vec<Box<str>>,
    /// The rules.
    pub rules: Vec<(bool, NetworkSet)>,
}

impl AccessRules {
    /// Whether a client is admitted with a method; `None` if no rule contains it: as in nginx, such a client is admitted, but not exempt
    /// from authentication.
    pub fn verdict(&self, client: IpAddr, method: &[u8]) -> Option<bool> {
        let rules = match &self.except {
            Some(other) if !other.methods.iter().any(|own| own.as_bytes() == method) => &other.rules,
            _ => &self.rules,
        };
        rules.iter().find(|(_, networks)| networks.contains(client)).map(|(allow, _)| *allow)
    }
}

impl SnippetEdits {
    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ResponseEdit {
    /// Whether the edit applies to a response.
    pub fn applies(&self, status: u16, media_type: Option<&[u8]>) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.types.is_empty() || is_listed(&self.types, media_type))
    }
}

impl Substitution {
    /// Whether the body of a response of this type is searched.
    pub fn covers(&self, media_type: Option<&[u8]>) -> bool {
        self.types.iter().any(|own| &**own == "*")
            || media_type.is_some_and(|value| bare(value).eq_ignore_ascii_case(b"text/html"))
            || is_listed(&self.types, media_type)
    }
}

fn is_listed(types: &[Box<str>], media_type: Option<&[u8]>) -> bool {
    media_type.is_some_and(|value| types.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(bare(value))))
}

/// A media type without its parameters.
fn bare(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_rule_about_a_client_nothing_is_said_of_it() {
        let networks = |text: &str| NetworkSet::from_iter([text.parse().expect("a network")]);
        let except = MethodRules { methods: vec!["GET".into()], rules: vec![(false, networks("0.0.0.0/0"))] };
        let rules = vec![(false, networks("10.0.0.5/32")), (true, networks("10.0.0.0/8"))];
        let rules = AccessRules { rules, except: Some(Box::new(except)), or_auth: true };
        for (client, method, verdict) in [
            ("10.0.0.5", "GET", Some(false)),
            ("10.0.0.6", "GET", Some(true)),
            ("192.0.2.1", "GET", None),
            ("10.0.0.6", "POST", Some(false)),
        ] {
            assert_eq!(rules.verdict(client.parse().unwrap(), method.as_bytes()), verdict, "{client} {method}");
        }
    }
}
