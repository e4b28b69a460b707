//! A list of requests, one per line: `[METHOD] URL`. Empty lines and comments (`#`) are skipped.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;

use super::question::Question;
use super::{Collected, Options};
use crate::flags::UsageError;

/// Longest line that is read: longer than any request line that servers accept.
pub(super) const LINE: usize = 64 << 10;

/// Opens a file, or standard input for `-`.
pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The next line without its line ending; `None` at the end of the file. A longer line is cut off.
pub(super) fn next_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<Option<()>> {
    line.clear();
    if Read::take(&mut *input, LINE as u64).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() == LINE {
        input.skip_until(b'\n')?;
    }
    Ok(Some(()))
}

/// Reads the whole list. A line that is not a request is an error, since a person wrote it.
pub(super) fn read(path: &Path, options: &Options) -> anyhow::Result<Collected> {
    let mut input = open(path)?;
    let (mut collected, mut seen, mut line) = (Collected::default(), HashSet::new(), Vec::new());
    let mut number = 0;
    while next_line(&mut *input, &mut line).with_context(|| format!("reading {}", path.display()))?.is_some() {
        number += 1;
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let request = parse(text).map_err(|wrong| UsageError(format!("{}:{number}: {wrong}", path.display())))?;
        if seen.len() > options.max_requests {
            collected.leave_out("more than --max-requests");
        } else if seen.insert(request.clone()) {
            collected.requests.push(request);
        }
    }
    Ok(collected)
}

fn parse(line: &str) -> Result<Question, String> {
    match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [url] => Question::to_url("GET", url),
        [method, url] => Question::to_url(&method.to_ascii_uppercase(), url),
        _ => Err(format!("{line:?}: expected [METHOD] URL, such as GET https://shop.example/order/7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_method_and_a_url() {
        assert_eq!(parse("http://a/b").unwrap().method, "GET");
        assert_eq!(parse("post  https://a/b").unwrap().method, "POST");
        for line in ["GET http://a/b HTTP/1.1", "GET /b", "GET"] {
            assert!(parse(line).unwrap_err().contains("expected"), "{line}");
        }
    }

    #[test]
    fn lines_are_bounded() {
        let text = format!("a\n{}\nb", "x".repeat(3 * LINE));
        let (mut input, mut line) = (text.as_bytes(), Vec::new());
        let mut lengths = Vec::new();
        while next_line(&mut input, &mut line).unwrap().is_some() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [1, LINE, 1]);
    }
}
