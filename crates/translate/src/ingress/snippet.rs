//! Snippets: nginx text that is read as data and never run. Anything outside the set that is read here refuses the whole snippet; the fault
//! has the name and the line.

mod effect;
mod instead;
mod level;
mod lexer;
mod read;
mod tree;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use fairway_model::{FieldEdit, NetworkSet};

use crate::value::Value;

pub(crate) use effect::{Effect, HostLevels};
pub(crate) use level::Level;
use read::Context;

/// The most characters that are shown of one line about a snippet, or of a fault in it.
// No limit: the rest is left out of a message.
const SHOWN: usize = 300;

/// The most lines that are shown about one snippet.
// No limit: the rest is counted.
const LINES: usize = 40;

/// Why a snippet can't be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The line of the snippet, from 1.
    pub line: u32,
    /// The directive, if it is known.
    directive: String,
    message: String,
}

impl Fault {
    fn new(line: u32, directive: &str, message: &str) -> Self {
        Self { line, directive: crate::diagnostic::bounded(directive), message: message.chars().take(SHOWN).collect() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.directive.is_empty() {
            write!(f, "{}: ", self.directive)?;
        }
        f.write_str(&self.message)
    }
}

/// Why the text of an annotation or a key that holds a snippet can't be read; `None` if it can, or if it holds none.
pub fn fault(name: &str, text: &str) -> Option<Fault> {
    read::read(text, Context::of(name)?).err()
}

/// Whether a text that can't be read may restrict access, by the directives that it names.
pub(crate) fn may_restrict(text: &str) -> bool {
    [
        "allow",
        "deny",
        "limit_except",
        "return",
        "satisfy",
        "auth_",
        "valid_referers",
        "secure_link",
        "limit_req",
        "limit_conn",
        "by_lua",
    ]
    .iter()
    .any(|word| text.contains(word))
}

/// Whether a text is a snippet, by the name of its annotation or key, and readable.
pub fn is_read(name: &str, text: &str) -> bool {
    Context::of(name).is_some_and(|context| read::read(text, context).is_ok())
}

/// Whether a text that is not in effect may have restricted access: by the directives that it names, or because nobody knows.
pub fn may_have_restricted(name: &str, text: &str) -> bool {
    // Authentication without the fields of its snippet still takes place.
    name != "auth-snippet" && (may_restrict(text) || fault(name, text).is_some())
}

/// The directives of a snippet that may answer a request, in their order; none if it can't be read.
pub fn answering(name: &str, text: &str) -> Vec<Answering> {
    let level = Context::of(name).and_then(|context| read::read(text, context).ok());
    level.map(|level| level.answering).unwrap_or_default()
}

/// A directive that may answer a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answering {
    /// Its line in the snippet, from 1.
    pub line: u32,
    /// Its text, such as `deny all`.
    pub text: String,
    /// The block that holds it.
    pub place: AnsweringPlace,
    /// What it does.
    pub does: Does,
}

/// The block that holds a directive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AnsweringPlace {
    /// None, or an `if`.
    Top,
    /// `limit_except`.
    Except,
    /// A `location` of a server, with its path or pattern as written.
    Location(Box<str>),
}

/// What a directive does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Does {
    /// Answers with a status.
    Respond(u16),
    /// Redirects with a status.
    Redirect(u16),
    /// Admits networks, or refuses them.
    Rule(bool, NetworkSet),
}

/// What a snippet asks for, in plain words; empty if it can't be read.
pub fn words(name: &str, text: &str) -> Vec<String> {
    let level = Context::of(name).and_then(|context| read::read(text, context).ok());
    let mut words = level.map(|level| level.words).unwrap_or_default();
    let more = words.len().saturating_sub(LINES);
    words.truncate(LINES);
    for line in &mut words {
        if let Some((end, _)) = line.char_indices().nth(SHOWN) {
            line.truncate(end);
            line.push('…');
        }
    }
    words.extend((more > 0).then(|| format!("and {more} more")));
    words
}

/// Declares values that hold a snippet. Two are equal if their texts are.
macro_rules! snippets {
    ($($(#[doc = $doc:literal])+ $name:ident($context:ident);)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Default)]
        pub struct $name {
            text: Arc<str>,
            level: Arc<Level>,
        }

        // Nothing at the top level concerns requests, so that level is never read.
        #[allow(dead_code)]
        impl $name {
            pub(crate) fn level(&self) -> &Level {
                &self.level
            }

            /// Whether it may keep a request from the backend.
            pub fn restricts(&self) -> bool {
                self.level.may_refuse()
            }

            /// Stands for an unreadable text that [may restrict access](may_restrict).
            pub(crate) fn refused(text: &str) -> Self {
                Self { text: text.into(), level: Arc::new(Level { refused: true, ..Level::default() }) }
            }
        }

        impl Value for $name {
            const SYNTAX: &'static str = "nginx directives of the set in docs/snippets.md";

            fn parse(text: &str) -> Option<Self> {
                let level = read::read(text, Context::$context).ok()?;
                Some(Self { text: text.into(), level: Arc::new(level) })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.text, f)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.text.hash(state);
            }
        }
    )+};
}

snippets! {
    /// A snippet of the top level: nothing there concerns requests.
    MainSnippet(Main);
    /// A snippet of the `http` block.
    HttpSnippet(Http);
    /// A snippet of a `server` block.
    ServerSnippet(Server);
    /// A snippet of a `location` block.
    LocationSnippet(Location);
}

/// An `auth-snippet`: the fields that the authentication service gets.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AuthSnippet(pub Vec<FieldEdit>);

impl Value for AuthSnippet {
    const SYNTAX: &'static str = "lines of `proxy_set_header NAME VALUE;`, see docs/snippets.md";

    fn parse(text: &str) -> Option<Self> {
        let level = read::read(text, Context::Auth).ok()?;
        // The variables of other snippets have no value in it.
        (level.needs.is_empty() && !level.set_request.is_empty()).then_some(Self(level.set_request))
    }
}

/// The fields for the service of `global-auth-url`.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum GlobalAuthSnippet {
    /// There is none.
    #[default]
    Unset,
    /// It can't be read, so the paths that the service would guard are denied.
    Unreadable,
    /// The fields.
    Fields(AuthSnippet),
}

impl Value for GlobalAuthSnippet {
    const SYNTAX: &'static str = AuthSnippet::SYNTAX;

    fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() { Some(Self::Unset) } else { AuthSnippet::parse(text).map(Self::Fields) }
    }
}

#[cfg(test)]
mod tests;
