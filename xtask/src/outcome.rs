//! What a step found.

use crate::totals::Totals;

/// The end of a step. An `Err` in its place means that the step could not be carried out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What it looked at, for its line: "273 packages".
    pub(crate) note: String,
    /// What is wrong, in full, if anything is.
    pub(crate) failure: Option<String>,
    /// The tests that it ran.
    pub(crate) totals: Totals,
}

impl Outcome {
    /// Nothing is wrong.
    pub(crate) fn passed(note: impl Into<String>) -> Self {
        Self { note: note.into(), ..Self::default() }
    }

    /// Passed if there are no complaints; otherwise each one is shown.
    pub(crate) fn from_complaints(note: impl Into<String>, complaints: &[String]) -> Self {
        let failure = (!complaints.is_empty()).then(|| complaints.join("\n"));
        Self { note: note.into(), failure, ..Self::default() }
    }
}
