//! Templates compiled to steps, each of which copies some bytes.

use fairway_model::{LogEscape, Segment, Template, TooLong, append_within};

use super::LogClock;
use super::escape;
use super::value::{self, Value};
use crate::record::RequestRecord;

/// A compiled template. Besides log lines, it produces hash keys and field values, with [`LogEscape::None`].
#[derive(Clone, Debug)]
pub struct Format {
    steps: Box<[Step]>,
    escape: LogEscape,
}

#[derive(Clone, Debug)]
enum Step {
    Literal(Box<[u8]>),
    Value(Value),
}

impl Format {
    /// Compiles a template. Values that never change during the life of the process are inserted at once.
    pub fn compile(template: &Template, escape: LogEscape) -> Self {
        let mut steps = Vec::new();
        let mut literal = Vec::new();
        for segment in template.segments() {
            match segment {
                Segment::Literal(text) => literal.extend_from_slice(text.as_bytes()),
                Segment::Variable(variable) => match value::constant(variable) {
                    Some(text) => escape::append(text.as_bytes(), escape, &mut literal),
                    None => {
                        if !literal.is_empty() {
                            steps.push(Step::Literal(std::mem::take(&mut literal).into()));
                        }
                        steps.push(Step::Value(Value::new(variable)));
                    }
                },
            }
        }
        if !literal.is_empty() {
            steps.push(Step::Literal(literal.into()));
        }
        Self { steps: steps.into(), escape }
    }

    /// Compiles a template for a field value or a hash key, where missing values are empty.
    pub fn plain(template: &Template) -> Self {
        Self::compile(template, LogEscape::None)
    }

    /// Appends the text for a request, up to a limit: the literal text, and values as long as they fit. The first value that
    /// doesn't fit and all values after it are left out.
    ///
    /// # Errors
    /// If anything is left out.
    pub fn append(
        &self,
        record: &RequestRecord<'_>,
        clock: &mut LogClock,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let end = out.len().saturating_add(limit);
        let mut result = Ok(());
        for step in &self.steps {
            match step {
                Step::Literal(text) => result = result.and(append_within(out, text, end)),
                Step::Value(value) => {
                    let before = out.len();
                    let mut found = result.ok().and_then(|()| value.append(record, clock, self.escape, out));
                    if out.len() > end {
                        out.truncate(before);
                        (found, result) = (None, Err(TooLong));
                    }
                    if found.is_none() && self.escape == LogEscape::Default {
                        result = result.and(append_within(out, b"-", end));
                    }
                }
            }
        }
        result
    }
}

impl Step {
    #[cfg(test)]
    pub(super) fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::Variable;

    #[test]
    fn what_never_changes_is_compiled_into_the_text() {
        let format = Format::compile(&Template::parse("a $pid $hostname $nothing_known b"), LogEscape::Default);
        assert_eq!(format.steps.len(), 3, "{:?}", format.steps);
        assert!(format.steps[0].is_literal());
        assert_eq!(Variable::from_name("nothing_known"), Variable::Unknown("nothing_known".into()));
    }
}
