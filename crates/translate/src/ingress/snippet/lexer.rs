//! The words of nginx's configuration, by the rules of its own reader (`ngx_conf_read_token`): quotes, escapes, comments.

use super::Fault;

/// A token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Token {
    /// A word, without quotes and with escapes resolved.
    Word(String),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

/// Reads a text once, from its start to its end.
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
    line: u32,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), text, at: 0, line: 1 }
    }

    fn step(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Some(byte)
    }

    fn fault(&self, message: &str) -> Fault {
        Fault::new(self.line, "", message)
    }

    /// The next token and its line; `None` at the end.
    ///
    /// # Errors
    /// Text that nginx would not read, or text with control characters other than tabs and line breaks, which no value may have.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Token)>, Fault> {
        let first = loop {
            match self.step() {
                None => return Ok(None),
                Some(b' ' | b'\t' | b'\r' | b'\n') => {}
                Some(b'#') => while self.step().is_some_and(|byte| byte != b'\n') {},
                Some(byte) => break byte,
            }
        };
        let line = self.line;
        let token = match first {
            b';' => Token::End,
            b'{' => Token::Open,
            b'}' => Token::Close,
            quote @ (b'"' | b'\'') => {
                let start = self.at;
                let end = loop {
                    match self.step() {
                        None => return Err(Fault::new(line, "", "a quote is not closed")),
                        Some(b'\\') => _ = self.step(),
                        Some(byte) if byte == quote => break self.at - 1,
                        Some(_) => {}
                    }
                };
                if !matches!(self.bytes.get(self.at), None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')')) {
                    return Err(self.fault("expected a blank, `;` or `{` after a quote"));
                }
                Token::Word(self.unescaped(start, end)?)
            }
            mut byte => {
                let start = self.at - 1;
                let mut after_dollar = false;
                loop {
                    match byte {
                        b'\\' => _ = self.step(),
                        b'{' if !after_dollar => break,
                        _ => {}
                    }
                    after_dollar = byte == b'$';
                    match self.bytes.get(self.at) {
                        None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';') => break,
                        Some(b'{') if !after_dollar => break,
                        Some(_) => byte = self.step().unwrap_or_default(),
                    }
                }
                Token::Word(self.unescaped(start, self.at)?)
            }
        };
        Ok(Some((line, token)))
    }

    /// The text between two places. Other escapes than these keep their backslash.
    fn unescaped(&self, start: usize, end: usize) -> Result<String, Fault> {
        let mut out = String::new();
        let mut rest = self.text.get(start..end).ok_or_else(|| self.fault("a character is cut in two"))?;
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            let escaped = rest[at + 1..].chars().next();
            match escaped {
                Some(quoted @ ('"' | '\'' | '\\')) => out.push(quoted),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('n') => out.push('\n'),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            }
            rest = &rest[at + 1 + escaped.map_or(0, char::len_utf8)..];
        }
        out.push_str(rest);
        match out.chars().find(|char| char.is_control() && !is_blank(*char)) {
            Some(control) => {
                Err(self.fault(&format!("the control character {} is not allowed", control.escape_default())))
            }
            None => Ok(out),
        }
    }
}

/// Whether a character is a tab or part of a line break: control characters that texts may have.
fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        while let Some((_, token)) = lexer.next()? {
            tokens.push(token);
        }
        Ok(tokens)
    }

    fn words(text: &str) -> Vec<String> {
        let words = tokens(text).unwrap().into_iter().map(|token| match token {
            Token::Word(word) => word,
            Token::End => ";".to_owned(),
            Token::Open => "{".to_owned(),
            Token::Close => "}".to_owned(),
        });
        words.collect()
    }

    #[test]
    fn words_are_those_of_nginx() {
        for (text, expected) in [
            ("a b;c", &["a", "b", ";", "c"][..]),
            ("a \"b ; c\" 'd {' ;", &["a", "b ; c", "d {", ";"]),
            ("# x ; y\na;# z", &["a", ";"]),
            ("a b#c;", &["a", "b#c", ";"]),
            ("a ${b}c {d}", &["a", "${b}c", "{", "d}"]),
            ("if ($a ~ \"x{2}\") {\n}", &["if", "($a", "~", "x{2}", ")", "{", "}"]),
            (r#"a "b\"c\\d\.e" f\ g;"#, &["a", "b\"c\\d\\.e", "f\\ g", ";"]),
            ("a b\"c;", &["a", "b\"c", ";"]),
            ("é 'ü';", &["é", "ü", ";"]),
            (r#"a "b\nc\td" e\r;"#, &["a", "b\nc\td", "e\r", ";"]),
            ("a 'b\nc';", &["a", "b\nc", ";"]),
            ("", &[]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn what_nginx_would_not_read_is_a_fault() {
        for text in ["a \"b", "a 'b", "a \"b\"c;", "a \0;", "a \"\\n\x01\";", "a \x7f;", "a \"x\\", "a \u{85};"] {
            assert!(tokens(text).is_err(), "{text:?}");
        }
    }
}
