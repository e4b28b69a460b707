//! Writes metrics, in the text format of Prometheus, version 0.0.4, or in its protobuf format.

use std::fmt::Display;
use std::io::Write;

use super::protobuf::{self, Family, Sample};

/// The format of metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MetricFormat {
    /// Lines.
    #[default]
    Text,
    /// Messages of protobuf, the only ones with native histograms.
    Protobuf,
}

impl MetricFormat {
    /// Its media type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::Protobuf => protobuf::CONTENT_TYPE,
        }
    }
}

/// A value of a metric: as text it is exact, in protobuf a double.
pub(super) trait Figure: Display {
    fn double(&self) -> f64;
}

impl Figure for f64 {
    fn double(&self) -> f64 {
        *self
    }
}

impl Figure for u64 {
    fn double(&self) -> f64 {
        *self as f64
    }
}

impl Figure for i64 {
    fn double(&self) -> f64 {
        *self as f64
    }
}

/// Writes metrics, each with its values.
#[derive(Debug, Default)]
pub(super) struct Text {
    format: MetricFormat,
    out: Vec<u8>,
    name: String,
    /// The metric that is being written, in protobuf.
    family: Family,
}

impl Text {
    pub(super) fn new(format: MetricFormat) -> Self {
        Self { format, ..Self::default() }
    }

    pub(super) fn format(&self) -> MetricFormat {
        self.format
    }

    /// Starts a metric.
    pub(super) fn metric(&mut self, prefix: &str, name: &str, kind: &str, help: &str) {
        self.name.clear();
        self.name.push_str(prefix);
        self.name.push_str(name);
        if self.format == MetricFormat::Protobuf {
            self.family.flush(&mut self.out);
            self.family.begin(&self.name, kind, help);
            return;
        }
        line(&mut self.out, format_args!("# HELP {} {help}", self.name));
        line(&mut self.out, format_args!("# TYPE {} {kind}", self.name));
    }

    /// One value of the metric.
    pub(super) fn value(&mut self, labels: &Labels, value: impl Figure) {
        match self.format {
            MetricFormat::Text => self.part("", labels, "", value),
            MetricFormat::Protobuf => self.family.number(&labels.bytes, value.double()),
        }
    }

    /// All of a histogram, or of a summary without quantiles, in protobuf.
    pub(super) fn sample(&mut self, labels: &Labels, sample: &Sample<'_>, is_histogram: bool) {
        if is_histogram {
            self.family.histogram(&labels.bytes, sample);
        } else {
            self.family.summary(&labels.bytes, sample.count, sample.sum);
        }
    }

    /// One value that is part of a histogram, with an additional label, as text.
    pub(super) fn part(&mut self, suffix: &str, labels: &Labels, more: &str, value: impl Display) {
        self.out.extend_from_slice(self.name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        let comma = if labels.bytes.is_empty() || more.is_empty() { "" } else { "," };
        if !(labels.bytes.is_empty() && more.is_empty()) {
            for part in [b"{", labels.bytes.as_slice(), comma.as_bytes(), more.as_bytes(), b"}"] {
                self.out.extend_from_slice(part);
            }
        }
        line(&mut self.out, format_args!(" {value}"));
    }

    /// Bytes written since the last call of [`Self::clear`].
    pub(super) fn len(&self) -> usize {
        self.out.len() + self.family.len()
    }

    /// What was written since the last call of [`Self::clear`].
    pub(super) fn page(&mut self) -> &[u8] {
        self.family.flush(&mut self.out);
        &self.out
    }

    /// Clears what was written and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.out.clear();
    }
}

/// Labels: in text as written between the braces, in protobuf as the fields of a metric.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    format: MetricFormat,
    bytes: Vec<u8>,
}

impl Labels {
    pub(super) fn new(format: MetricFormat) -> Self {
        Self { format, ..Self::default() }
    }

    /// Adds a label.
    pub(super) fn push(&mut self, name: &str, value: &str) {
        if self.format == MetricFormat::Protobuf {
            protobuf::label(&mut self.bytes, name, value);
            return;
        }
        let text = &mut self.bytes;
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"=\"");
        for part in value.split_inclusive(['\\', '"', '\n']) {
            let plain = part.trim_end_matches(['\\', '"', '\n']);
            text.extend_from_slice(plain.as_bytes());
            match &part[plain.len()..] {
                "\n" => text.extend_from_slice(b"\\n"),
                "" => {}
                other => {
                    text.push(b'\\');
                    text.extend_from_slice(other.as_bytes());
                }
            }
        }
        text.push(b'"');
    }

    /// Removes everything after the first `len` bytes, a value of [`Self::len`].
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("memory takes everything");
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
        assert_eq!(labels.bytes, r#"path="/a\"}\n\\x\\",host="ü""#.as_bytes());
        labels.truncate(first);
        labels.push("n", "");
        assert_eq!(labels.bytes, r#"path="/a\"}\n\\x\\",n="""#.as_bytes());
    }

    #[test]
    fn a_line_has_labels_only_if_there_are_some() {
        let mut text = Text::default();
        let mut labels = Labels::default();
        text.metric("p_", "x", "gauge", "Help.");
        text.value(&labels, 7u64);
        text.part("_bucket", &labels, "le=\"1\"", 8);
        labels.push("a", "b");
        text.value(&labels, 0.5);
        text.part("_bucket", &labels, "le=\"1\"", 9);
        assert_eq!(
            String::from_utf8_lossy(text.page()),
            "# HELP p_x Help.\n# TYPE p_x gauge\np_x 7\np_x_bucket{le=\"1\"} 8\np_x{a=\"b\"} 0.5\n\
             p_x_bucket{a=\"b\",le=\"1\"} 9\n"
        );
    }
}
