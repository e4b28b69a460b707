//! Human-readable output: colours and links where they are visible, plain text elsewhere.

use std::fmt;
use std::io::{self, IsTerminal, Write};

/// How to print on standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    styled: bool,
}

/// The style of a word on a terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Terminal {
    /// Inspects standard output; respects `NO_COLOR` and dumb terminals (no-color.org).
    pub(crate) fn new() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { styled: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
    }

    /// Prints without any escape sequence.
    pub(crate) fn plain() -> Self {
        Self { styled: false }
    }

    /// The text in a style.
    pub(crate) fn style<T: fmt::Display>(self, style: Style, text: T) -> impl fmt::Display {
        let code = match style {
            _ if !self.styled => "",
            Style::Plain => "",
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Red => "31",
            Style::Green => "32",
            Style::Yellow => "33",
            Style::Cyan => "36",
        };
        fmt::from_fn(
            move |f| if code.is_empty() { write!(f, "{text}") } else { write!(f, "\x1b[{code}m{text}\x1b[0m") },
        )
    }

    /// A clickable URL (OSC 8); terminals without support show the text.
    pub(crate) fn link(self, url: &str) -> String {
        let url = printable(url);
        if self.styled { format!("\x1b]8;;{url}\x1b\\{url}\x1b]8;;\x1b\\") } else { url }
    }

    /// Prints a text immediately. A closed pipe is not a failure.
    pub(crate) fn print(self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Escapes control characters in a text, because the output contains users' objects and clients' requests.
pub(crate) fn printable(text: &str) -> String {
    if text.chars().all(|char| !char.is_control()) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|char| {
            let escaped = char.is_control().then(|| char.escape_default());
            let plain = escaped.is_none().then_some(char);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Formats columns as wide as their contents; the first row is the header.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], terminal: Terminal) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", printable(cell)));
        let line = cells.collect::<Vec<_>>().join("  ");
        let style = if at == 0 { Style::Bold } else { Style::Plain };
        out.push_str(&terminal.style(style, line.trim_end()).to_string());
        out.push('\n');
    }
    out
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, singular: &str, plural: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { singular } else { plural })
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_steers_the_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\n"), "a\\u{1b}[31mb\\r\\n");
        assert_eq!(printable("ä/ö"), "ä/ö");
        assert_eq!(
            Terminal { styled: true }.link("http://a/\x1b"),
            "\x1b]8;;http://a/\\u{1b}\x1b\\http://a/\\u{1b}\x1b]8;;\x1b\\"
        );
    }

    #[test]
    fn plain_output_has_no_escapes() {
        assert_eq!(Terminal::plain().style(Style::Red, "x").to_string(), "x");
        assert_eq!(Terminal::plain().link("http://a/"), "http://a/");
        assert_eq!(Terminal { styled: true }.style(Style::Red, "x").to_string(), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
    }
}
