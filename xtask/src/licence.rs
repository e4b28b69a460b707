//! SPDX licence expressions, as far as package manifests use them (SPDX 3.0, annex "SPDX license expressions").

/// Whether the accepted licences satisfy `expression`. `None` if it is not a valid expression.
///
/// The old form `MIT/Apache-2.0` means `OR`.
pub(crate) fn accepts(expression: &str, accepted: &[&str]) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut parser = Parser { tokens: &tokens, accepted };
    let value = parser.alternatives()?;
    parser.tokens.is_empty().then_some(value)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    accepted: &'a [&'a str],
}

impl<'a> Parser<'a> {
    /// `a OR b`: binds weakest.
    fn alternatives(&mut self) -> Option<bool> {
        let mut value = self.conjunction()?;
        while self.take("OR") {
            value |= self.conjunction()?;
        }
        Some(value)
    }

    fn conjunction(&mut self) -> Option<bool> {
        let mut value = self.licence()?;
        while self.take("AND") {
            value &= self.licence()?;
        }
        Some(value)
    }

    fn licence(&mut self) -> Option<bool> {
        if self.take("(") {
            let value = self.alternatives()?;
            return self.take(")").then_some(value);
        }
        let name = self.word()?;
        let name = if self.take("WITH") { format!("{name} WITH {}", self.word()?) } else { name.to_owned() };
        Some(self.accepted.contains(&name.as_str()))
    }

    fn word(&mut self) -> Option<&'a str> {
        let (&word, rest) = self.tokens.split_first()?;
        if matches!(word, "AND" | "OR" | "WITH" | "(" | ")") {
            return None;
        }
        self.tokens = rest;
        Some(word)
    }

    fn take(&mut self, token: &str) -> bool {
        match self.tokens.split_first() {
            Some((&first, rest)) if first == token => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[&str] = &["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];

    #[test]
    fn and_needs_all_or_needs_one() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0 OR MIT AND ISC", true),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("(GPL-3.0 OR MIT) AND BSD-3-Clause", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
        ] {
            assert_eq!(accepts(expression, ACCEPTED), Some(expected), "{expression}");
        }
    }

    #[test]
    fn invalid_expressions_are_recognised() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "OR", "MIT WITH"] {
            assert_eq!(accepts(expression, ACCEPTED), None, "{expression}");
        }
    }
}
