//! A page of the documentation: its commands, and their expected output.
//!
//! Fences and their meaning here:
//! - `sh`: commands, run in the order of the page, all in one bash.
//! - `console`: the output of the commands before it, line by line; `...` stands for anything within a line.
//! - `text`: the words of each line appear in that output, in order, with anything between them; `...` separates words.
//!
//! HTML comments on the line before a fence:
//! - `<!-- test: docker -->`: not run, see `NOT_RUN` in `docs.rs`; any word but `replace` is allowed.
//! - `<!-- test: replace A with B: reason -->`: B is run instead of A.

use std::fmt::Write as _;

/// Separates the outputs of blocks: ASCII's record separator, which no command prints.
const MARK: char = '\u{1e}';

/// The commands of a page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Number of its lines.
    lines: usize,
    pub(crate) blocks: Vec<Block>,
}

/// A fence with commands.
#[derive(Debug)]
pub(crate) struct Block {
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
    /// The commands, after replacements.
    pub(crate) text: String,
    /// Why it isn't run: the word in the comment.
    pub(crate) not_run: Option<String>,
    expected: Vec<Expected>,
}

#[derive(Debug)]
struct Expected {
    line: usize,
    text: String,
    exact: bool,
}

impl Page {
    /// Reads a page.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut page = Self { lines: text.lines().count(), blocks: Vec::new() };
        let mut comment = None;
        let mut lines = text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            let directive = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
            if directive.is_some() {
                comment = directive;
                continue;
            }
            let Some(kind) = line.strip_prefix("```") else {
                if comment.is_some() {
                    return Err(format!("line {number}: expected ``` after the comment for the test"));
                }
                continue;
            };
            let mut content = String::new();
            loop {
                match lines.next() {
                    Some(("```", _)) => break,
                    Some((line, _)) => content.extend([line, "\n"]),
                    None => return Err(format!("line {number}: the fence has no end")),
                }
            }
            match kind {
                "sh" => page.blocks.push(block(number, content, comment.take())?),
                "console" | "text" => {
                    let Some(block) = page.blocks.last_mut() else {
                        return Err(format!("line {number}: output without a command before it"));
                    };
                    block.expected.push(Expected { line: number, text: content, exact: kind == "console" });
                }
                other => return Err(format!("line {number}: ```{other}: expected sh, console or text")),
            }
        }
        Ok(page)
    }

    /// A script in which every command has the line number that it has in the page, so that bash's messages name it.
    pub(crate) fn script(&self) -> String {
        let mut lines = vec![String::new(); self.lines + 1];
        lines[0] = "set -Eeuo pipefail; exec 9>&1 2>&1; trap 'kill $(jobs -p) 2>/dev/null || true' EXIT; \
                    trap 'echo \"$0: line $LINENO: failed: $BASH_COMMAND\" >&9' ERR"
            .to_owned();
        for block in self.blocks.iter().filter(|block| block.not_run.is_none()) {
            // Line 1 of a page is its title, so the two never meet.
            lines[block.line - 1] = format!("printf '\\n\\036{}\\n'", block.line);
            for (index, line) in block.text.lines().enumerate() {
                line.clone_into(&mut lines[block.line + index]);
            }
        }
        lines.join("\n") + "\n"
    }

    /// Everything that is missing from the output of the script.
    pub(crate) fn complaints(&self, output: &str) -> String {
        let mut complaints = String::new();
        for block in self.blocks.iter().filter(|block| block.not_run.is_none()) {
            let mark = format!("{MARK}{}\n", block.line);
            let Some((_, rest)) = output.split_once(&mark) else {
                let _ = writeln!(complaints, "line {}: never reached", block.line);
                continue;
            };
            let got = rest.split(MARK).next().unwrap_or_default().trim();
            for expected in &block.expected {
                let found =
                    if expected.exact { is_exactly(got, &expected.text) } else { has_words(got, &expected.text) };
                if !found {
                    let (line, text) = (expected.line, expected.text.trim_end());
                    let _ = writeln!(complaints, "line {line}: expected\n{text}\nbut the commands printed\n{got}\n");
                }
            }
        }
        complaints
    }
}

fn block(line: usize, text: String, comment: Option<&str>) -> Result<Block, String> {
    let mut block = Block { line, text, not_run: None, expected: Vec::new() };
    match comment {
        None => (),
        Some(comment) => match comment.strip_prefix("replace ") {
            None => block.not_run = Some(comment.to_owned()),
            Some(rest) => {
                let Some((from, to)) = rest.split_once(" with ") else {
                    return Err(format!("line {line}: expected `replace A with B` in the comment before"));
                };
                let to = to.split_once(": ").map_or(to, |(to, _reason)| to);
                if !block.text.contains(from) {
                    return Err(format!("line {line}: there is no `{from}` to replace"));
                }
                block.text = block.text.replace(from, to);
            }
        },
    }
    Ok(block)
}

/// Whether both have the same lines, apart from spaces.
fn is_exactly(got: &str, expected: &str) -> bool {
    let lines = |text: &str| text.lines().map(squeeze).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    let (got, expected) = (lines(got), lines(expected));
    got.len() == expected.len() && got.iter().zip(&expected).all(|(got, expected)| fits(got, expected))
}

/// Whether a line is the expected one, in which `...` stands for anything.
fn fits(got: &str, expected: &str) -> bool {
    let Some((first, rest)) = expected.split_once("...") else { return got == expected };
    let (middle, last) = rest.rsplit_once("...").unwrap_or(("", rest));
    let Some(mut got) = got.strip_prefix(first).and_then(|got| got.strip_suffix(last)) else { return false };
    for part in middle.split("...") {
        let Some((_, after)) = got.split_once(part) else { return false };
        got = after;
    }
    true
}

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the words of each expected line are present, in their order. Spaces don't count, and lines may come in any order, since
/// JSON may differ in that.
fn has_words(got: &str, expected: &str) -> bool {
    let got: String = got.split_whitespace().collect();
    expected.lines().all(|line| {
        let mut rest = got.as_str();
        line.split_whitespace().flat_map(|word| word.split("...")).all(|word| {
            let found = rest.split_once(word);
            rest = found.map_or("", |(_, after)| after);
            found.is_some()
        })
    })
}

#[test]
fn commands_keep_their_line_numbers() {
    let page = Page::parse(
        "# Title\n\n```sh\necho a\n```\n\n<!-- test: docker -->\n```sh\ndocker run\n```\n\n```sh\necho b\n```\n",
    );
    let page = page.expect("a page");
    let script = page.script();
    let lines: Vec<_> = script.lines().collect();
    assert_eq!((lines[3], lines[12]), ("echo a", "echo b"));
    assert!(!script.contains("docker"));
}

#[test]
fn output_is_compared_with_what_follows_the_command() {
    let text = "# T\n```sh\nx\n```\n```console\na  1\nb...c\n```\n```sh\ny\n```\n```text\n\"k\": [\"v\"] ...\n```\n";
    let page = Page::parse(text).expect("a page");
    let good = "\n\u{1e}2\na 1\nb--c\n\n\u{1e}9\n{\n \"k\": [\n  \"v\"\n ]\n}\n";
    assert_eq!(page.complaints(good), "");
    let more = good.replace("a 1\n", "a 1\na 2\n");
    assert!(page.complaints(&more).starts_with("line 5: expected"), "{}", page.complaints(&more));
    let other = good.replace('v', "w");
    assert!(page.complaints(&other).starts_with("line 12: expected"), "{}", page.complaints(&other));
    assert!(page.complaints("\n\u{1e}2\na 1\nb--c\n").contains("line 9: never reached"));
}

#[test]
fn an_ellipsis_stands_for_anything_within_a_line() {
    assert!(fits("pod-x-1 deleted", "pod-... deleted"));
    assert!(fits("deleted from default", "deleted..."));
    assert!(fits("a b a b", "a...b"));
    assert!(!fits("a b", "a"));
    assert!(!fits("a b c", "a...b"));
    assert!(!fits("b", "a..."));
}

#[test]
fn replacements_need_something_to_replace() {
    let page = |from| format!("# T\n<!-- test: replace {from} with $B: why -->\n```sh\nrun a\n```\n");
    assert_eq!(Page::parse(&page("a")).expect("a page").blocks[0].text, "run $B\n");
    assert!(Page::parse(&page("z")).expect_err("nothing to replace").contains("line 3"));
}
