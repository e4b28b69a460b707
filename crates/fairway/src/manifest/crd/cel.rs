//! The rules of CRDs, which are written in the Common Expression Language: what of it the CRDs that we check against use, and no more.
//!
//! An expression with anything else isn't parsed, and a test parses all of them: a rule is carried out, or the build fails.

mod eval;
mod parse;

use regex::Regex;

pub(super) use self::eval::Failure;

/// An expression.
#[derive(Clone, Debug)]
pub(super) struct Expression(Term);

impl Expression {
    /// Whether it is true of a value and the one before it. A new object has none before.
    pub(super) fn holds(&self, value: &serde_json::Value) -> Result<bool, Failure> {
        eval::holds(&self.0, value)
    }

    /// Whether it says something about changes only.
    pub(super) fn is_about_changes(&self) -> bool {
        self.0.names("oldSelf")
    }
}

impl std::str::FromStr for Expression {
    type Err = parse::SyntaxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::expression(text).map(Self)
    }
}

#[derive(Clone, Debug)]
enum Term {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Self>),
    /// `self`, or what a macro iterates over.
    Name(String),
    Field(Box<Self>, String),
    /// `has(a.b)`.
    Has(Box<Self>, String),
    Index(Box<Self>, Box<Self>),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    If(Box<[Self; 3]>),
    Compare(Comparison, Box<Self>, Box<Self>),
    In(Box<Self>, Box<Self>),
    Add(Box<Self>, Box<Self>),
    /// A function of what stands before its dot, or of its first argument.
    Call(Function, Box<Self>, Option<Box<Self>>),
    Matches(Box<Self>, Regex),
    /// A macro: list, name of the element, what is said about it.
    Each(Quantifier, Box<Self>, String, Box<Self>),
}

impl Term {
    fn names(&self, wanted: &str) -> bool {
        let either = |one: &Self, other: &Self| one.names(wanted) || other.names(wanted);
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Text(_) => false,
            Self::List(items) => items.iter().any(|item| item.names(wanted)),
            Self::Name(name) => name == wanted,
            Self::Field(of, _) | Self::Has(of, _) | Self::Not(of) | Self::Matches(of, _) => of.names(wanted),
            Self::If(parts) => parts.iter().any(|part| part.names(wanted)),
            Self::Call(_, of, argument) => of.names(wanted) || argument.as_ref().is_some_and(|it| it.names(wanted)),
            Self::Index(one, other)
            | Self::And(one, other)
            | Self::Or(one, other)
            | Self::Compare(_, one, other)
            | Self::In(one, other)
            | Self::Add(one, other)
            | Self::Each(_, one, _, other) => either(one, other),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quantifier {
    All,
    Exists,
    ExistsOne,
    Filter,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    Split,
    Substring,
    Duration,
    IsIp,
    /// `!format.dns1123Subdomain().validate(TEXT).hasValue()`.
    IsSubdomain,
    /// `!format.qualifiedName().validate(TEXT).hasValue()`.
    IsQualifiedName,
}

#[cfg(test)]
mod tests;
