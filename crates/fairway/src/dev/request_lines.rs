//! Requests on the terminal: one short line each, coloured by status if the terminal shows colours.

use std::io::{self, Write};

use crate::terminal::{Style, Terminal};

/// The format of a line, unless the user asks for another. The status comes first, because it decides the colour.
pub(super) const TEMPLATE: &str =
    "$status $request_method $scheme://$host$request_uri > $service_name:$service_port $upstream_addr ${request_time}s";
/// What stands there for a request that no backend was meant to get, and what is shown in its place.
const NOBODY: (&str, &str) = (" > : - ", " > no backend ");

/// Takes lines in pieces and prints whole ones.
pub(super) struct RequestLines {
    terminal: Terminal,
    rest: Vec<u8>,
}

impl RequestLines {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self { terminal, rest: Vec::new() }
    }
}

impl Write for RequestLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return Ok(bytes.len()) };
        let mut out = String::new();
        for line in String::from_utf8_lossy(&self.rest[..end]).lines() {
            let style = match line.as_bytes().first() {
                Some(b'2') => Style::Green,
                Some(b'3') => Style::Cyan,
                Some(b'4') => Style::Yellow,
                Some(b'5') => Style::Red,
                _ => Style::Plain,
            };
            let (status, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
            let rest = rest.replacen(NOBODY.0, NOBODY.1, 1);
            out.push_str(&format!("{}{rest}\n", self.terminal.style(style, status)));
        }
        self.rest.drain(..=end);
        self.terminal.print(&out);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
