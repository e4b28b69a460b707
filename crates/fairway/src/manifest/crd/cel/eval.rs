//! Evaluates an expression for a value.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

use serde_json::{Map, Value as Json};

use super::super::super::refusal::syntax;
use super::{Comparison, Function, Quantifier, Term};

/// A value of the language.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Map(&'a Map<String, Json>),
    /// In nanoseconds.
    Duration(i64),
}

/// Why an expression can't be evaluated, in the API server's words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(in super::super) enum Failure {
    #[error("no such key: {0}")]
    NoSuchKey(String),
    #[error("index out of bounds: {0}")]
    OutOfBounds(i64),
    #[error("no such overload")]
    NoSuchOverload,
    #[error("undeclared reference to '{0}'")]
    Undeclared(String),
    #[error("integer overflow")]
    Overflow,
    #[error("invalid duration: {0}")]
    InvalidDuration(String),
}

/// The variables that macros bind, innermost first.
struct Scope<'s, 'a> {
    outer: Option<&'s Self>,
    name: &'s str,
    value: Operand<'a>,
}

pub(super) fn holds(node: &Term, value: &Json) -> Result<bool, Failure> {
    truth(node.eval(&Scope { outer: None, name: "self", value: Operand::of(value) })?)
}

impl<'a> Operand<'a> {
    fn of(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Float(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::Text(Cow::Borrowed(text)),
            Json::Array(items) => Self::List(items.iter().map(Self::of).collect()),
            Json::Object(fields) => Self::Map(fields),
        }
    }

    fn text(&self) -> Result<&str, Failure> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Failure::NoSuchOverload),
        }
    }
}

fn truth(value: Operand<'_>) -> Result<bool, Failure> {
    match value {
        Operand::Bool(value) => Ok(value),
        _ => Err(Failure::NoSuchOverload),
    }
}

impl Term {
    fn eval<'a>(&self, scope: &Scope<'_, 'a>) -> Result<Operand<'a>, Failure> {
        Ok(match self {
            Self::Bool(value) => Operand::Bool(*value),
            Self::Int(value) => Operand::Int(*value),
            Self::Text(text) => Operand::Text(Cow::Owned(text.clone())),
            Self::List(items) => Operand::List(items.iter().map(|item| item.eval(scope)).collect::<Result<_, _>>()?),
            Self::Name(name) => scope.find(name).cloned().ok_or_else(|| Failure::Undeclared(name.clone()))?,
            Self::Field(of, name) => match of.eval(scope)? {
                Operand::Map(fields) => Operand::of(fields.get(name).ok_or_else(|| Failure::NoSuchKey(name.clone()))?),
                _ => return Err(Failure::NoSuchOverload),
            },
            Self::Has(of, name) => match of.eval(scope)? {
                Operand::Map(fields) => Operand::Bool(fields.get(name).is_some_and(|value| !value.is_null())),
                _ => return Err(Failure::NoSuchOverload),
            },
            Self::Index(of, index) => match (of.eval(scope)?, index.eval(scope)?) {
                (Operand::List(items), Operand::Int(at)) => {
                    let item = usize::try_from(at).ok().and_then(|at| items.into_iter().nth(at));
                    item.ok_or(Failure::OutOfBounds(at))?
                }
                _ => return Err(Failure::NoSuchOverload),
            },
            Self::Not(of) => Operand::Bool(!truth(of.eval(scope)?)?),
            Self::And(one, other) => Operand::Bool(!either(one.is(false, scope), || other.is(false, scope))?),
            Self::Or(one, other) => Operand::Bool(either(one.is(true, scope), || other.is(true, scope))?),
            Self::If(parts) => {
                let [condition, first, second] = &**parts;
                if truth(condition.eval(scope)?)? { first.eval(scope)? } else { second.eval(scope)? }
            }
            Self::Compare(comparison, one, other) => {
                Operand::Bool(compare(*comparison, &one.eval(scope)?, &other.eval(scope)?)?)
            }
            Self::In(one, all) => {
                let one = one.eval(scope)?;
                Operand::Bool(match all.eval(scope)? {
                    Operand::List(items) => items.contains(&one),
                    Operand::Map(fields) => fields.contains_key(one.text()?),
                    _ => return Err(Failure::NoSuchOverload),
                })
            }
            Self::Add(one, other) => match (one.eval(scope)?, other.eval(scope)?) {
                (Operand::Int(one), Operand::Int(other)) => {
                    Operand::Int(one.checked_add(other).ok_or(Failure::Overflow)?)
                }
                _ => return Err(Failure::NoSuchOverload),
            },
            Self::Matches(of, pattern) => Operand::Bool(pattern.is_match(of.eval(scope)?.text()?)),
            Self::Call(function, of, argument) => {
                let argument = argument.as_ref().map(|argument| argument.eval(scope)).transpose()?;
                call(*function, &of.eval(scope)?, argument.as_ref())?
            }
            Self::Each(quantifier, all, name, said) => {
                let items = match all.eval(scope)? {
                    Operand::List(items) => items,
                    Operand::Map(fields) => fields.keys().map(|key| Operand::Text(Cow::Borrowed(&**key))).collect(),
                    _ => return Err(Failure::NoSuchOverload),
                };
                each(*quantifier, items, |value| said.is(true, &Scope { outer: Some(scope), name, value }))?
            }
        })
    }

    fn is(&self, wanted: bool, scope: &Scope<'_, '_>) -> Result<bool, Failure> {
        Ok(truth(self.eval(scope)?)? == wanted)
    }
}

impl<'a> Scope<'_, 'a> {
    fn find(&self, name: &str) -> Option<&Operand<'a>> {
        if self.name == name { Some(&self.value) } else { self.outer.and_then(|outer| outer.find(name)) }
    }
}

/// Whether either operand is true. A deciding operand counts even if the other one can't be evaluated.
fn either(one: Result<bool, Failure>, other: impl FnOnce() -> Result<bool, Failure>) -> Result<bool, Failure> {
    match one {
        Ok(true) => Ok(true),
        Ok(false) => other(),
        Err(failure) => match other() {
            Ok(true) => Ok(true),
            _ => Err(failure),
        },
    }
}

fn each<'a>(
    quantifier: Quantifier,
    items: Vec<Operand<'a>>,
    said: impl Fn(Operand<'a>) -> Result<bool, Failure>,
) -> Result<Operand<'a>, Failure> {
    match quantifier {
        // A deciding item counts even if another item can't be evaluated.
        Quantifier::All | Quantifier::Exists => {
            let decides = quantifier == Quantifier::Exists;
            let mut failure = None;
            for item in items {
                match said(item) {
                    Ok(found) if found == decides => return Ok(Operand::Bool(decides)),
                    Ok(_) => {}
                    Err(found) => failure = failure.or(Some(found)),
                }
            }
            failure.map_or(Ok(Operand::Bool(!decides)), Err)
        }
        Quantifier::ExistsOne => {
            let mut count = 0;
            for item in items {
                count += usize::from(said(item)?);
            }
            Ok(Operand::Bool(count == 1))
        }
        Quantifier::Filter => {
            let mut kept = Vec::new();
            for item in items {
                if said(item.clone())? {
                    kept.push(item);
                }
            }
            Ok(Operand::List(kept))
        }
    }
}

fn compare(comparison: Comparison, one: &Operand<'_>, other: &Operand<'_>) -> Result<bool, Failure> {
    let order = || match (one, other) {
        (Operand::Int(one), Operand::Int(other)) | (Operand::Duration(one), Operand::Duration(other)) => {
            Ok(one.cmp(other))
        }
        (Operand::Text(one), Operand::Text(other)) => Ok(one.cmp(other)),
        _ => Err(Failure::NoSuchOverload),
    };
    Ok(match comparison {
        Comparison::Equal => one == other,
        Comparison::NotEqual => one != other,
        Comparison::Less => order()? == Ordering::Less,
        Comparison::LessOrEqual => order()? != Ordering::Greater,
        Comparison::Greater => order()? == Ordering::Greater,
        Comparison::GreaterOrEqual => order()? != Ordering::Less,
    })
}

fn call<'a>(function: Function, of: &Operand<'a>, argument: Option<&Operand<'a>>) -> Result<Operand<'a>, Failure> {
    let argument = || argument.ok_or(Failure::NoSuchOverload);
    let number = |size: usize| Operand::Int(i64::try_from(size).unwrap_or(i64::MAX));
    Ok(match function {
        Function::Size => number(match of {
            Operand::Text(text) => text.chars().count(),
            Operand::List(items) => items.len(),
            Operand::Map(fields) => fields.len(),
            _ => return Err(Failure::NoSuchOverload),
        }),
        Function::StartsWith => Operand::Bool(of.text()?.starts_with(argument()?.text()?)),
        Function::EndsWith => Operand::Bool(of.text()?.ends_with(argument()?.text()?)),
        Function::Contains => Operand::Bool(of.text()?.contains(argument()?.text()?)),
        Function::Split => {
            let parts = of.text()?.split(argument()?.text()?);
            Operand::List(parts.map(|part| Operand::Text(Cow::Owned(part.to_owned()))).collect())
        }
        Function::Substring => {
            let Operand::Int(from) = *argument()? else { return Err(Failure::NoSuchOverload) };
            let text = of.text()?;
            let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            let at = usize::try_from(from).ok().and_then(|from| places.nth(from));
            Operand::Text(Cow::Owned(text[at.ok_or(Failure::OutOfBounds(from))?..].to_owned()))
        }
        Function::Duration => {
            let text = of.text()?;
            Operand::Duration(duration(text).ok_or_else(|| Failure::InvalidDuration(text.to_owned()))?)
        }
        Function::IsIp => Operand::Bool(of.text()?.parse::<IpAddr>().is_ok()),
        Function::IsSubdomain => Operand::Bool(syntax::subdomain(of.text()?).is_none()),
        Function::IsQualifiedName => Operand::Bool(syntax::qualified_name(of.text()?).is_none()),
    })
}

/// Nanoseconds of a duration as Go writes them, without fractions: `1h30m`, `500ms`, `0`.
fn duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (text, 0_i64);
    while !rest.is_empty() {
        let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let nanoseconds = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            _ => return None,
        };
        sum = sum.checked_add(digits.parse::<i64>().ok()?.checked_mul(nanoseconds)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}
