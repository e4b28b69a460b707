//! A template compiled to steps, each of which copies some bytes.

use fairway_model::{LogEscape, Segment, Template};

use super::Clock;
use super::escape;
use super::value::{self, Value};
use crate::record::RequestRecord;

/// A compiled template. Besides log lines it makes hash keys and field values, with [`LogEscape::None`].
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
    /// Compiles a template. Values that are the same for the whole life of the process are put in at once.
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

    /// Compiles a template for a field value or a hash key, where what is missing is empty.
    pub fn plain(template: &Template) -> Self {
        Self::compile(template, LogEscape::None)
    }

    /// Appends the text for a request.
    pub fn append(&self, record: &RequestRecord<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
        for step in &self.steps {
            match step {
                Step::Literal(text) => out.extend_from_slice(text),
                Step::Value(value) => {
                    let found = value.append(record, clock, self.escape, out);
                    if found.is_none() && self.escape == LogEscape::Default {
                        out.push(b'-');
                    }
                }
            }
        }
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
