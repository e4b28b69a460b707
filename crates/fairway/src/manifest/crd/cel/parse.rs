//! Parses a text into an expression.

use regex::Regex;

use super::{Comparison, Function, Quantifier, Term};

/// An expression that isn't supported.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}, at byte {at}")]
pub(in super::super) struct SyntaxError {
    at: usize,
    what: String,
}

pub(super) fn expression(text: &str) -> Result<Term, SyntaxError> {
    let mut parser = Parser { text, at: 0 };
    let node = parser.choice()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.wrong("expected an operator or the end"));
    }
    Ok(node)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl<'a> Parser<'a> {
    fn wrong(&self, what: impl Into<String>) -> SyntaxError {
        SyntaxError { at: self.at, what: what.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Consumes a sign if it comes next.
    fn takes(&mut self, sign: &str) -> bool {
        self.space();
        let there = self.rest().starts_with(sign);
        self.at += if there { sign.len() } else { 0 };
        there
    }

    fn expect(&mut self, sign: &str) -> Result<(), SyntaxError> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong(format!("expected {sign}"))) }
    }

    fn word(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        is_word.then(|| {
            self.at += word.len();
            word
        })
    }

    fn choice(&mut self) -> Result<Term, SyntaxError> {
        let condition = self.any()?;
        if !self.takes("?") {
            return Ok(condition);
        }
        let first = self.any()?;
        self.expect(":")?;
        Ok(Term::If(Box::new([condition, first, self.choice()?])))
    }

    fn any(&mut self) -> Result<Term, SyntaxError> {
        let mut node = self.every()?;
        while self.takes("||") {
            node = Term::Or(Box::new(node), Box::new(self.every()?));
        }
        Ok(node)
    }

    fn every(&mut self) -> Result<Term, SyntaxError> {
        let mut node = self.relation()?;
        while self.takes("&&") {
            node = Term::And(Box::new(node), Box::new(self.relation()?));
        }
        Ok(node)
    }

    fn relation(&mut self) -> Result<Term, SyntaxError> {
        let node = self.sum()?;
        if let Some((_, comparison)) = COMPARISONS.into_iter().find(|(sign, _)| self.takes(sign)) {
            return Ok(Term::Compare(comparison, Box::new(node), Box::new(self.sum()?)));
        }
        if self.rest().starts_with("in ") && self.takes("in") {
            return Ok(Term::In(Box::new(node), Box::new(self.sum()?)));
        }
        Ok(node)
    }

    fn sum(&mut self) -> Result<Term, SyntaxError> {
        let mut node = self.negation()?;
        while self.takes("+") {
            node = Term::Add(Box::new(node), Box::new(self.negation()?));
        }
        Ok(node)
    }

    fn negation(&mut self) -> Result<Term, SyntaxError> {
        // This can't be the beginning of `!=`, which follows an operand.
        if !self.takes("!") {
            return self.member();
        }
        Ok(match self.negation()? {
            // The term for a format check is already negated.
            Term::Not(inner) if matches!(*inner, Term::Call(Function::IsSubdomain | Function::IsQualifiedName, ..)) => {
                *inner
            }
            node => Term::Not(Box::new(node)),
        })
    }

    fn member(&mut self) -> Result<Term, SyntaxError> {
        let mut node = self.primary()?;
        loop {
            if self.takes("[") {
                let index = self.choice()?;
                self.expect("]")?;
                node = Term::Index(Box::new(node), Box::new(index));
            } else if self.takes(".") {
                let name = self.word().ok_or_else(|| self.wrong("expected a name"))?;
                node =
                    if self.takes("(") { self.method(node, name)? } else { Term::Field(Box::new(node), plain(name)) };
            } else {
                return Ok(node);
            }
        }
    }

    /// Parses a method call after its parenthesis.
    fn method(&mut self, of: Term, name: &str) -> Result<Term, SyntaxError> {
        let of = Box::new(of);
        let quantifier = match name {
            "all" => Some(Quantifier::All),
            "exists" => Some(Quantifier::Exists),
            "exists_one" => Some(Quantifier::ExistsOne),
            "filter" => Some(Quantifier::Filter),
            _ => None,
        };
        let node = if let Some(quantifier) = quantifier {
            let name = self.word().ok_or_else(|| self.wrong("expected a name"))?.to_owned();
            self.expect(",")?;
            Term::Each(quantifier, of, name, Box::new(self.choice()?))
        } else if name == "matches" {
            Term::Matches(of, self.pattern()?)
        } else if name == "size" {
            Term::Call(Function::Size, of, None)
        } else {
            let function = match name {
                "startsWith" => Function::StartsWith,
                "endsWith" => Function::EndsWith,
                "contains" => Function::Contains,
                "split" => Function::Split,
                "substring" => Function::Substring,
                _ => return Err(self.wrong(format!("no function {name} is known"))),
            };
            Term::Call(function, of, Some(Box::new(self.choice()?)))
        };
        self.expect(")")?;
        Ok(node)
    }

    fn pattern(&mut self) -> Result<Regex, SyntaxError> {
        let Term::Text(pattern) = self.primary()? else { return Err(self.wrong("expected a text with a pattern")) };
        Regex::new(&pattern).map_err(|error| self.wrong(error.to_string()))
    }

    fn primary(&mut self) -> Result<Term, SyntaxError> {
        self.space();
        if let Some(text) = self.text()? {
            return Ok(Term::Text(text));
        }
        if self.takes("(") {
            let node = self.choice()?;
            self.expect(")")?;
            return Ok(node);
        }
        if self.takes("[") {
            let mut items = Vec::new();
            while !self.takes("]") {
                if !items.is_empty() {
                    self.expect(",")?;
                }
                items.push(self.choice()?);
            }
            return Ok(Term::List(items));
        }
        let digits = self.rest().len() - self.rest().trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits > 0 {
            let number = self.rest()[..digits].parse().map_err(|_| self.wrong("expected a smaller number"))?;
            self.at += digits;
            return Ok(Term::Int(number));
        }
        let word = self.word().ok_or_else(|| self.wrong("expected a value"))?;
        match word {
            "true" => return Ok(Term::Bool(true)),
            "false" => return Ok(Term::Bool(false)),
            "format" => return self.format(),
            _ if !self.takes("(") => return Ok(Term::Name(plain(word))),
            _ => {}
        }
        let argument = self.choice()?;
        self.expect(")")?;
        let function = match word {
            "has" => match argument {
                Term::Field(of, name) => return Ok(Term::Has(of, name)),
                _ => return Err(self.wrong("has expects a field")),
            },
            "size" => Function::Size,
            "duration" => Function::Duration,
            "isIP" => Function::IsIp,
            _ => return Err(self.wrong(format!("no function {word} is known"))),
        };
        Ok(Term::Call(function, Box::new(argument), None))
    }

    /// `.NAME().validate(TEXT).hasValue()`: whether a text violates a format.
    fn format(&mut self) -> Result<Term, SyntaxError> {
        self.expect(".")?;
        let function = match self.word() {
            Some("dns1123Subdomain") => Function::IsSubdomain,
            Some("qualifiedName") => Function::IsQualifiedName,
            _ => return Err(self.wrong("no such format is known")),
        };
        self.expect("().validate(")?;
        let text = self.choice()?;
        self.expect(").hasValue()")?;
        Ok(Term::Not(Box::new(Term::Call(function, Box::new(text), None))))
    }

    /// A quoted text, if one comes next. After `r`, backslashes are literal.
    fn text(&mut self) -> Result<Option<String>, SyntaxError> {
        let raw = self.rest().starts_with("r\"") || self.rest().starts_with("r'");
        let open = &self.rest()[usize::from(raw)..];
        let Some(quotes) = ["\"\"\"", "\"", "'"].into_iter().find(|quotes| open.starts_with(quotes)) else {
            return Ok(None);
        };
        self.at += usize::from(raw) + quotes.len();
        let mut text = String::new();
        loop {
            if self.rest().starts_with(quotes) {
                self.at += quotes.len();
                return Ok(Some(text));
            }
            let mut letters = self.rest().chars();
            let letter = letters.next().ok_or_else(|| self.wrong("expected the end of a text"))?;
            self.at += letter.len_utf8();
            if letter != '\\' || raw {
                text.push(letter);
                continue;
            }
            let escaped = letters.next().unwrap_or_default();
            text.push(match escaped {
                '\\' | '"' | '\'' => escaped,
                'n' => '\n',
                't' => '\t',
                _ => return Err(self.wrong("no such escape is known")),
            });
            self.at += escaped.len_utf8();
        }
    }
}

/// The name of a field: reserved words are written between underscores.
fn plain(name: &str) -> String {
    name.strip_prefix("__").and_then(|name| name.strip_suffix("__")).unwrap_or(name).to_owned()
}
