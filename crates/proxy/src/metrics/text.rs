//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// Media type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes series of one metric after the other.
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

    /// One value of the metric. `labels` are written by [`Labels`].
    pub(super) fn value(&mut self, suffix: &str, labels: &Labels, more: &str, value: impl Display) {
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

    /// A histogram of the metric, from counts by bucket.
    pub(super) fn histogram(&mut self, labels: &Labels, bounds: &[f64], counts: &[u64], sum: f64) {
        let mut total = 0;
        let mut more = String::new();
        for (at, count) in counts.iter().enumerate() {
            total += count;
            more.clear();
            match bounds.get(at) {
                Some(bound) => write!(more, "le=\"{bound}\""),
                None => write!(more, "le=\"+Inf\""),
            }
            .expect("a string takes everything");
            self.value("_bucket", labels, &more, total);
        }
        self.value("_sum", labels, "", sum);
        self.value("_count", labels, "", total);
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

/// Labels, as they stand between the braces.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    /// These labels and one more.
    #[must_use]
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
        Self(text)
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
        let labels = Labels::default().with("path", "/a\"}\n\\x").with("host", "ü");
        assert_eq!(labels.0, r#"path="/a\"}\n\\x",host="ü""#);
    }

    #[test]
    fn histograms_are_cumulative() {
        let mut text = Text::default();
        text.metric("p_", "x", "histogram", "Help.");
        text.histogram(&Labels::default().with("a", "b"), &[0.5, 10.0], &[1, 0, 2], 31.25);
        text.value("", &Labels::default(), "", 7);
        assert_eq!(
            text.finish(),
            "# HELP p_x Help.\n# TYPE p_x histogram\np_x_bucket{a=\"b\",le=\"0.5\"} 1\np_x_bucket{a=\"b\",le=\"10\"} 1\n\
             p_x_bucket{a=\"b\",le=\"+Inf\"} 3\np_x_sum{a=\"b\"} 31.25\np_x_count{a=\"b\"} 3\np_x 7\n"
        );
    }
}
