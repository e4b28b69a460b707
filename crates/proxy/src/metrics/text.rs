//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// Media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes metrics, each with its lines.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    name: String,
}

impl Text {
    /// Starts a metric.
    pub(super) fn metric(&mut self, prefix: &str, name: &str, kind: &str, help: &str) {
        self.name.clear();
        self.name.push_str(prefix);
        self.name.push_str(name);
        line(&mut self.out, format_args!("# HELP {} {help}", self.name));
        line(&mut self.out, format_args!("# TYPE {} {kind}", self.name));
    }

    /// One value of the metric.
    pub(super) fn value(&mut self, labels: &Labels, value: impl Display) {
        self.part("", labels, "", value);
    }

    /// One value that is part of a histogram, with an additional label.
    pub(super) fn part(&mut self, suffix: &str, labels: &Labels, more: &str, value: impl Display) {
        self.out.push_str(&self.name);
        self.out.push_str(suffix);
        let comma = if labels.0.is_empty() || more.is_empty() { "" } else { "," };
        if !(labels.0.is_empty() && more.is_empty()) {
            for part in ["{", labels.0.as_str(), comma, more, "}"] {
                self.out.push_str(part);
            }
        }
        line(&mut self.out, format_args!(" {value}"));
    }

    /// The text written since the last call of [`Self::clear`].
    pub(super) fn as_str(&self) -> &str {
        &self.out
    }

    /// Clears the text and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.out.clear();
    }
}

/// Labels, as written between the braces.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// Adds a label.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        let text = &mut self.0;
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for part in value.split_inclusive(['\\', '"', '\n']) {
            let plain = part.trim_end_matches(['\\', '"', '\n']);
            text.push_str(plain);
            match &part[plain.len()..] {
                "\n" => text.push_str("\\n"),
                "" => {}
                other => text.extend(["\\", other]),
            }
        }
        text.push('"');
    }

    /// Removes everything after the first `len` bytes, a value of [`Self::len`].
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_can_not_break_out() {
        let mut labels = Labels::default();
        labels.push("path", "/a\"}\n\\x\\");
        let first = labels.len();
        labels.push("host", "ü");
        assert_eq!(labels.0, r#"path="/a\"}\n\\x\\",host="ü""#);
        labels.truncate(first);
        labels.push("n", "");
        assert_eq!(labels.0, r#"path="/a\"}\n\\x\\",n="""#);
    }

    #[test]
    fn a_line_has_labels_only_if_there_are_some() {
        let mut text = Text::default();
        let mut labels = Labels::default();
        text.metric("p_", "x", "gauge", "Help.");
        text.value(&labels, 7);
        text.part("_bucket", &labels, "le=\"1\"", 8);
        labels.push("a", "b");
        text.value(&labels, 0.5);
        text.part("_bucket", &labels, "le=\"1\"", 9);
        assert_eq!(
            text.as_str(),
            "# HELP p_x Help.\n# TYPE p_x gauge\np_x 7\np_x_bucket{le=\"1\"} 8\np_x{a=\"b\"} 0.5\n\
             p_x_bucket{a=\"b\",le=\"1\"} 9\n"
        );
    }
}
