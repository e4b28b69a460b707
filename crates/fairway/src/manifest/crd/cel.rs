//! Evaluates the rules of CRDs, written in the Common Expression Language. Supports only the subset that the CRDs here use.
//!
//! Parsing fails for anything else, and a test parses all rules: either a rule is enforced, or the build fails.

mod eval;
mod parse;

use regex::Regex;

pub(super) use self::eval::Failure;

/// An expression.
#[derive(Clone, Debug)]
pub(super) struct Expression(Term);

impl Expression {
    /// Whether the expression holds for a value and its predecessor. A new object has no predecessor.
    pub(super) fn holds(&self, value: &serde_json::Value) -> Result<bool, Failure> {
        eval::holds(&self.0, value)
    }

    /// Whether it constrains changes only.
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
    /// `self`, or the variable of a macro.
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
    /// A function applied to its receiver, or to its first argument.
    Call(Function, Box<Self>, Option<Box<Self>>),
    Matches(Box<Self>, Regex),
    /// A macro: list, element variable, predicate.
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
