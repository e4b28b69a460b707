//! Parses the suite's output: which tests passed, and the messages of failed ones.

use std::collections::BTreeMap;

use crate::totals::Totals;

/// Most lines of a failed test in a summary.
const LINES: usize = 6;

/// The results of a run.
#[derive(Debug, Default)]
pub(super) struct Results {
    totals: Totals,
    /// A line for each test.
    lines: Vec<String>,
    /// The failed tests and their messages, in order.
    failed: Vec<(String, Vec<String>)>,
    /// The last lines, for a suite that failed before its first test.
    last: Vec<String>,
}

/// The result of a conformance test in a line such as `    --- PASS: TestConformance/HTTPRouteMatching (1.20s)`: result, name, time. Lines
/// about subtests have none.
fn ended(line: &str) -> Option<(&str, &str, &str)> {
    let (result, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": TestConformance/")?;
    let (name, took) = rest.split_once(' ')?;
    let took = took.trim_end().strip_prefix('(')?.strip_suffix(')')?;
    (!name.contains('/')).then_some((result, name, took))
}

/// The conformance test that starts, in a line such as `=== RUN   TestConformance/HTTPRouteMatching`.
pub(super) fn begun(line: &str) -> Option<&str> {
    let name = line.strip_prefix("=== RUN")?.trim_start().strip_prefix("TestConformance/")?.trim_end();
    (!name.contains('/')).then_some(name)
}

impl Results {
    pub(super) fn of(output: &str) -> Self {
        let mut results = Self::default();
        // Parallel tests interleave; a line announces whose lines follow.
        let mut current = "";
        let mut messages = BTreeMap::<&str, Vec<String>>::new();
        for line in output.lines() {
            if let Some(name) = owner(line) {
                current = name;
            }
            if let Some((result, name, took)) = ended(line) {
                results.lines.push(format!("{result} {took:>8} {name}"));
                match result {
                    "PASS" => results.totals.passed += 1,
                    "SKIP" => results.totals.skipped += 1,
                    _ => {
                        results.totals.failed += 1;
                        results.failed.push((name.to_owned(), messages.remove(name).unwrap_or_default()));
                    }
                }
            } else if is_message(line) {
                messages.entry(current).or_default().push(line.trim().to_owned());
            }
        }
        let lines: Vec<_> = output.lines().collect();
        results.last = lines[lines.len().saturating_sub(2 * LINES)..].iter().map(|&line| line.to_owned()).collect();
        results
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// The failed tests with the last lines of their messages, or the last lines of the output if there are none.
    pub(super) fn complaints(&self) -> String {
        if self.failed.is_empty() {
            return self.last.join("\n");
        }
        let mut text = Vec::new();
        for (name, messages) in &self.failed {
            text.push(name.clone());
            let messages = &messages[messages.len().saturating_sub(LINES)..];
            text.extend(messages.iter().map(|message| format!("    {message}")));
        }
        text.join("\n")
    }
}

/// The conformance test whose lines follow.
fn owner(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("=== ")?;
    let name = rest.split_whitespace().nth(1)?.strip_prefix("TestConformance/")?;
    Some(name.split_once('/').map_or(name, |(name, _)| name))
}

/// Whether a line belongs to a failed check, as the suite's library prints it.
fn is_message(line: &str) -> bool {
    let line = line.trim_start();
    ["Error:", "Messages:", "expected:", "actual  :"].iter().any(|word| line.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
=== RUN   TestConformance
=== RUN   TestConformance/HTTPRouteMatching
=== RUN   TestConformance/HTTPRouteMatching/1_request_to_/
    --- PASS: TestConformance/HTTPRouteMatching (1.20s)
        --- PASS: TestConformance/HTTPRouteMatching/1_request_to_/ (0.01s)
=== RUN   TestConformance/HTTPRouteCORS
=== CONT  TestConformance/HTTPRouteWeight
        \tError:      \tReceived unexpected error:
=== NAME  TestConformance/HTTPRouteCORS/preflight
        \tError:      \tNot equal
        \tMessages:   \tno header
    --- FAIL: TestConformance/HTTPRouteCORS (30.00s)
    --- SKIP: TestConformance/TLSRouteSimple (0.00s)
--- FAIL: TestConformance (40.00s)
";

    #[test]
    fn tests_count_and_their_parts_do_not() {
        let results = Results::of(OUTPUT);
        assert_eq!(results.totals(), Totals { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(results.lines()[0], "PASS    1.20s HTTPRouteMatching");
        assert_eq!(OUTPUT.lines().filter_map(begun).collect::<Vec<_>>(), ["HTTPRouteMatching", "HTTPRouteCORS"]);
        assert_eq!(ended("--- FAIL: TestConformance (40.00s)"), None);
    }

    #[test]
    fn a_failed_test_is_shown_with_its_own_messages() {
        let text = Results::of(OUTPUT).complaints();
        assert!(text.contains("HTTPRouteCORS\n    Error:      \tNot equal\n    Messages:   \tno header"), "{text}");
        assert!(!text.contains("Received unexpected"), "{text}");
    }

    #[test]
    fn a_suite_that_did_not_begin_is_shown_by_its_last_lines() {
        assert!(Results::of("error loading Kubernetes config\n").complaints().contains("error loading"));
    }
}
