//! The counts that `cargo test` prints, one line per test binary.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed, and were not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Totals {
    /// Parses a line such as `test result: ok. 24 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in
    /// 0.35s`. Tests that a filter excludes don't count: the end-to-end tests run in passes, each of which excludes the
    /// others' tests.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let counts = line.trim_start().strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut totals = Self::default();
        for part in counts.split(';') {
            let Some((count, word)) = part.trim().split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match word {
                "passed" | "measured" => totals.passed += count,
                "failed" => totals.failed += count,
                "ignored" => totals.skipped += count,
                _ => {}
            }
        }
        Some(totals)
    }

    /// The sum of all lines of `output` with counts.
    pub(crate) fn sum(output: &str) -> Self {
        let mut sum = Self::default();
        output.lines().filter_map(Self::parse).for_each(|totals| sum += totals);
        sum
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_binaries_add_up() {
        let output = "\
running 3 tests
test a ... ok
test result: ok. 24 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.35s

   Doc-tests model
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";
        assert_eq!(Totals::sum(output).to_string(), "26 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn other_lines_hold_no_counts() {
        for line in ["", "test result_is_kept ... ok", "test result: ", "running 3 tests", "error: test failed"] {
            assert_eq!(Totals::parse(line), None, "{line}");
        }
    }
}
