//! The protobuf format of Prometheus: messages `io.prometheus.client.MetricFamily`, each after its length.
//!
//! The only format in which native histograms can be read. A family may be written in several messages of the same name, so that
//! there is never more than a page of it in memory; readers take each on its own.

use super::native::{NativeBuckets, NativeHistogram, ZERO_THRESHOLD};

/// Media type of the format.
pub(crate) const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The wire type of numbers.
// No limit: a number of the format, as are the next two.
const VARINT: u64 = 0;

/// The wire type of doubles.
// No limit: see above.
const FIXED: u64 = 1;

/// The wire type of texts and messages.
// No limit: see above.
const BYTES: u64 = 2;

/// The current family: name, help and kind in front, then its metrics.
#[derive(Debug, Default)]
pub(super) struct Family {
    front: Vec<u8>,
    metrics: Vec<u8>,
    /// The field of the metric that holds the value of this kind.
    value: u64,
    /// Memory for one metric, and for a part of one.
    one: Vec<u8>,
    part: Vec<u8>,
}

/// A histogram of one series, with classic and native buckets.
pub(super) struct Sample<'a> {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bounds and the samples up to each.
    pub(super) classic: &'a [(f64, u64)],
    pub(super) native: Option<(&'a NativeHistogram, NativeBuckets)>,
}

impl Family {
    /// Starts a family.
    pub(super) fn begin(&mut self, name: &str, kind: &str, help: &str) {
        let (number, value) = match kind {
            "counter" => (0, 3),
            "summary" => (2, 4),
            "histogram" => (4, 7),
            _ => (1, 2),
        };
        self.value = value;
        self.front.clear();
        bytes(&mut self.front, 1, name.as_bytes());
        bytes(&mut self.front, 2, help.as_bytes());
        tag(&mut self.front, 3, VARINT);
        varint(&mut self.front, number);
    }

    /// Bytes of its metrics so far.
    pub(super) fn len(&self) -> usize {
        self.metrics.len()
    }

    /// A counter or gauge. `labels` is in the form of [`label`].
    pub(super) fn number(&mut self, labels: &[u8], value: f64) {
        self.part.clear();
        double(&mut self.part, 1, value);
        self.metric(labels);
    }

    /// A summary without quantiles.
    pub(super) fn summary(&mut self, labels: &[u8], count: u64, sum: f64) {
        self.part.clear();
        number(&mut self.part, 1, count);
        double(&mut self.part, 2, sum);
        self.metric(labels);
    }

    /// A histogram.
    pub(super) fn histogram(&mut self, labels: &[u8], sample: &Sample<'_>) {
        let (part, one) = (&mut self.part, &mut self.one);
        part.clear();
        number(part, 1, sample.count);
        double(part, 2, sample.sum);
        for &(bound, count) in sample.classic {
            one.clear();
            number(one, 1, count);
            double(one, 2, bound);
            bytes(part, 3, one);
        }
        if let Some((histogram, options)) = sample.native {
            native(part, one, histogram, options);
        }
        self.metric(labels);
    }

    fn metric(&mut self, labels: &[u8]) {
        self.one.clear();
        self.one.extend_from_slice(labels);
        bytes(&mut self.one, self.value, &self.part);
        bytes(&mut self.metrics, 4, &self.one);
    }

    /// Writes the family, if it has metrics, and forgets them.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.metrics.is_empty() {
            varint(out, (self.front.len() + self.metrics.len()) as u64);
            out.extend_from_slice(&self.front);
            out.extend_from_slice(&self.metrics);
            self.metrics.clear();
        }
    }
}

/// A label of a metric.
pub(super) fn label(out: &mut Vec<u8>, name: &str, value: &str) {
    let length = 2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
    tag(out, 1, BYTES);
    varint(out, length as u64);
    bytes(out, 1, name.as_bytes());
    bytes(out, 2, value.as_bytes());
}

/// Native buckets: spans of neighbours, and for each bucket the difference to the one before.
fn native(part: &mut Vec<u8>, one: &mut Vec<u8>, histogram: &NativeHistogram, options: NativeBuckets) {
    tag(part, 5, VARINT);
    varint(part, zigzag(i64::from(histogram.schema(options))));
    double(part, 6, ZERO_THRESHOLD);
    number(part, 7, histogram.zeros);
    let mut next = 0;
    let mut at = 0;
    while let Some(&(first, _)) = histogram.buckets.get(at) {
        let length =
            histogram.buckets[at..].iter().zip(first..).take_while(|(bucket, index)| bucket.0 == *index).count();
        one.clear();
        tag(one, 1, VARINT);
        varint(one, zigzag(i64::from(first) - next));
        number(one, 2, length as u64);
        bytes(part, 12, one);
        at += length;
        next = i64::from(first) + length as i64;
    }
    let mut before = 0;
    for &(_, count) in &histogram.buckets {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        tag(part, 13, VARINT);
        varint(part, zigzag(count - before));
        before = count;
    }
}

fn tag(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    tag(out, field, FIXED);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    tag(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: usize) -> usize {
    (value.max(1).ilog2() as usize) / 7 + 1
}

/// Encodes signed numbers so that small ones are short.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Whether a client that sends this `Accept` prefers this format to the text.
pub(crate) fn is_preferred(accept: &str) -> bool {
    let mut best = (0.0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let (mut weight, mut proto, mut encoding) = (1.0, "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "q" => weight = value.parse().unwrap_or(0.0),
                "proto" => proto = value,
                "encoding" => encoding = value,
                _ => {}
            }
        }
        if kind.eq_ignore_ascii_case("application/vnd.google.protobuf") {
            if proto == "io.prometheus.client.MetricFamily" && encoding == "delimited" {
                best.0 = f32::max(best.0, weight);
            }
        } else if kind.eq_ignore_ascii_case("text/plain") || kind == "*/*" || kind.eq_ignore_ascii_case("text/*") {
            best.1 = f32::max(best.1, weight);
        }
    }
    best.0 > 0.0 && best.0 >= best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_chosen_by_its_weight() {
        let proto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        // Prometheus, with and without native histograms.
        let text = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert!(is_preferred(&format!("{proto};q=0.6,{text}")));
        assert!(!is_preferred(&format!("{text},{proto};q=0.2")));
        assert!(is_preferred(proto) && is_preferred(&proto.replace(';', "; ")));
        for other in [text, "", "*/*", "text/plain", "application/vnd.google.protobuf;q=1", ";;=,,q", "a;q=x"] {
            assert!(!is_preferred(other), "{other}");
        }
        assert!(!is_preferred(&proto.replace("delimited", "text")));
        assert!(!is_preferred(&format!("{proto};q=0")));
    }

    #[test]
    fn numbers_have_the_lengths_of_the_format() {
        for value in [0, 1, 127, 128, 16_383, 16_384, usize::MAX] {
            let mut out = Vec::new();
            varint(&mut out, value as u64);
            assert_eq!(out.len(), varint_len(value), "{value}");
        }
        assert_eq!([0, -1, 1, -2, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX]);
    }

    #[test]
    fn neighbours_are_one_span_and_counts_are_differences() {
        let options = NativeBuckets::new(2.0, 100).unwrap();
        let mut histogram = NativeHistogram::default();
        for value in [1.0, 2.0, 2.0, 64.0, 0.0] {
            histogram.observe(value, options);
        }
        let (mut part, mut one) = (Vec::new(), Vec::new());
        native(&mut part, &mut one, &histogram, options);
        let front = [&[0x28, 0, 0x31][..], &ZERO_THRESHOLD.to_le_bytes(), &[0x38, 1]].concat();
        let spans = [0x62, 4, 8, 0, 16, 2, 0x62, 4, 8, 8, 16, 1];
        let deltas = [0x68, 2, 0x68, 2, 0x68, 1];
        assert_eq!(part, [&front[..], &spans, &deltas].concat());
    }

    #[test]
    fn a_family_is_its_length_its_name_and_its_metrics() {
        let (mut family, mut out, mut labels) = (Family::default(), Vec::new(), Vec::new());
        label(&mut labels, "a", "b");
        family.begin("n", "counter", "h");
        family.flush(&mut out);
        assert!(out.is_empty(), "a family without metrics is nothing");
        family.number(&labels, 1.0);
        family.flush(&mut out);
        let value = [&[0x1a, 9, 9][..], &1f64.to_le_bytes()].concat();
        let metric = [&[0x22, 19, 0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'][..], &value].concat();
        let front = [0x0a, 1, b'n', 0x12, 1, b'h', 0x18, 0];
        assert_eq!(out, [&[29][..], &front, &metric].concat());
    }
}
