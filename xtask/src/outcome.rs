//! The result of a step.

use crate::totals::Totals;

/// The result of a step. An `Err` instead means that the step could not be carried out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What it checked, for its line: "273 packages".
    pub(crate) note: String,
    /// The problem in full, if any.
    pub(crate) failure: Option<String>,
    /// The tests it ran.
    pub(crate) totals: Totals,
}

impl Outcome {
    /// There is no problem.
    pub(crate) fn passed(note: impl Into<String>) -> Self {
        Self { note: note.into(), ..Self::default() }
    }

    /// Passed if there are no complaints; otherwise each is shown.
    pub(crate) fn from_complaints(note: impl Into<String>, complaints: &[String]) -> Self {
        let failure = (!complaints.is_empty()).then(|| complaints.join("\n"));
        Self { note: note.into(), failure, ..Self::default() }
    }
}
