//! Lists separated by commas.

use std::str::FromStr;

use super::text::is_pattern;
use super::{HeaderName, Value};

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// Any words. Surrounding blanks and empty words are ignored.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct CommaList(pub Vec<String>);

impl CommaList {
    /// The list of these words.
    pub fn of(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }
}

impl Value for CommaList {
    const SYNTAX: &'static str = "a list separated by commas";

    fn parse(text: &str) -> Option<Self> {
        Some(Self(entries(text).map(str::to_owned).collect()))
    }
}

/// Statuses of error responses.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ErrorStatuses(pub Vec<u16>);

impl Value for ErrorStatuses {
    const SYNTAX: &'static str = "statuses from 400 to 599, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let (statuses, left_out) = statuses(text, 400);
        (left_out.is_empty() && !statuses.is_empty()).then_some(Self(statuses))
    }
}

/// Statuses of responses to replace. Invalid entries are left out without affecting the others.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ReplacedStatuses {
    /// The statuses, ascending.
    pub statuses: Vec<u16>,
    left_out: Vec<String>,
}

impl Value for ReplacedStatuses {
    const SYNTAX: &'static str = "statuses from 300 to 599, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let (statuses, left_out) = statuses(text, 300);
        Some(Self { statuses, left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

fn statuses(text: &str, least: u16) -> (Vec<u16>, Vec<String>) {
    let (mut statuses, left_out) = sift(text, |entry| u16::from_str(entry).ok().filter(|it| (least..600).contains(it)));
    statuses.sort_unstable();
    statuses.dedup();
    (statuses, left_out)
}

/// Names of headers. Invalid entries are left out without affecting the others.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct HeaderNames {
    /// The names.
    pub names: Vec<HeaderName>,
    left_out: Vec<String>,
}

impl Value for HeaderNames {
    const SYNTAX: &'static str = "names of headers, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let (names, left_out) = sift(text, HeaderName::parse);
        Some(Self { names, left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// The valid entries, and the invalid ones.
pub(super) fn sift<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> (Vec<T>, Vec<String>) {
    let (mut read, mut left_out) = (Vec::new(), Vec::new());
    for entry in entries(text) {
        match parse(entry) {
            Some(value) => read.push(value),
            None => left_out.push(entry.to_owned()),
        }
    }
    (read, left_out)
}

/// A selection of request URIs.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum UriPattern {
    /// The whole URI, including the query, compared without case (as nginx's `map` does).
    Exact(String),
    /// URIs in which the regex matches.
    Regex {
        /// The regex, not compiled yet.
        pattern: String,
        /// Written `~*`: case is ignored.
        ignore_case: bool,
    },
}

/// A list of [`UriPattern`]s.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct UriPatterns(pub Vec<UriPattern>);

impl Value for UriPatterns {
    const SYNTAX: &'static str = "URIs, or regexes after `~` or `~*`, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let pattern = |entry: &str| match (entry.strip_prefix("~*"), entry.strip_prefix('~')) {
            (Some(pattern), _) => UriPattern::Regex { pattern: pattern.to_owned(), ignore_case: true },
            (None, Some(pattern)) => UriPattern::Regex { pattern: pattern.to_owned(), ignore_case: false },
            (None, None) => UriPattern::Exact(entry.to_owned()),
        };
        Some(Self(entries(text).map(pattern).collect()))
    }
}

/// Another name of a host, in nginx's notation.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HostAlias {
    /// This name. Lower case.
    Exact(String),
    /// `*.` and this: any name below it, at any depth. Lower case, without the `*.`.
    Below(String),
    /// This and `.*`: the name followed by anything. Lower case, without the `.*`.
    Before(String),
    /// `~` and this regex, not compiled yet, which may match anywhere in the host.
    Regex(String),
}

/// The names of `server-alias`.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct HostAliases(pub Vec<HostAlias>);

impl Value for HostAliases {
    const SYNTAX: &'static str = "host names separated by commas; `*.name`, `name.*`, `.name` and `~regex` of at most 4096 bytes as nginx has them";

    fn parse(text: &str) -> Option<Self> {
        let mut aliases = Vec::new();
        for entry in entries(text) {
            if !entry.bytes().all(is_pattern) {
                return None;
            }
            if let Some(regex) = entry.strip_prefix('~') {
                if regex.len() > 4096 {
                    return None;
                }
                aliases.push(HostAlias::Regex(regex.to_owned()));
            } else if let Some(name) = entry.strip_prefix("*.") {
                aliases.push(HostAlias::Below(host(name)?));
            } else if let Some(name) = entry.strip_suffix(".*") {
                aliases.push(HostAlias::Before(host(name)?));
            } else if let Some(name) = entry.strip_prefix('.') {
                let name = host(name)?;
                aliases.extend([HostAlias::Exact(name.clone()), HostAlias::Below(name)]);
            } else {
                aliases.push(HostAlias::Exact(host(entry)?));
            }
        }
        aliases.dedup();
        (!aliases.is_empty()).then_some(Self(aliases))
    }
}

/// A name of letters, digits, `-`, `_` and single dots, in lower case.
fn host(name: &str) -> Option<String> {
    let is_label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        !label.is_empty() && label.len() <= 63 && inner
    };
    (name.len() <= 253 && name.split('.').all(is_label)).then(|| name.to_ascii_lowercase())
}
