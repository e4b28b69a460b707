//! Traces: the context of a request, and the fields that carry it (W3C Trace Context, and B3 for clients that use it).

use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::field::is_same_field;
use crate::{FieldName, FieldSink, Fields, Telemetry, TelemetryName, Template};

const TRACEPARENT: FieldName<'_> = FieldName::from_static("traceparent");
const B3: FieldName<'_> = FieldName::from_static("b3");
const B3_TRACE: FieldName<'_> = FieldName::from_static("X-B3-TraceId");
const B3_SPAN: FieldName<'_> = FieldName::from_static("X-B3-SpanId");
const B3_PARENT: FieldName<'_> = FieldName::from_static("X-B3-ParentSpanId");
const B3_SAMPLED: FieldName<'_> = FieldName::from_static("X-B3-Sampled");
const B3_FLAGS: FieldName<'_> = FieldName::from_static("X-B3-Flags");

/// Fields of B3 that are rewritten or removed.
const B3_FIELDS: [FieldName<'_>; 6] = [B3, B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS];

/// How requests are sampled, and where their spans go.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Tracing {
    /// The receiver of spans; with `None` only the context is propagated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<Collector>,
    /// `service.name` of the spans.
    pub service: Box<str>,
    /// Which traces are sampled.
    pub sampler: Sampler,
    /// Whether to follow the caller's decision, if there is one.
    pub follows_parent: bool,
    /// Spans sent at a time.
    pub batch: u32,
    /// Spans that wait to be sent; more are dropped.
    pub queue: u32,
    /// How often spans are sent.
    pub delay: Duration,
}

/// A receiver of spans over OTLP.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Collector {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: NonZeroU16,
    /// Whether to use HTTP/1.1 instead of gRPC.
    pub http: bool,
    /// The file with the authorities that must have issued its certificate; `None` without TLS.
    pub authorities: Option<Box<str>>,
}

/// Which traces are sampled.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Sampler {
    /// All of them.
    Always,
    /// None.
    Never,
    /// A share, in units of 2^-63: the same traces in every process.
    Share(u64),
}

/// How the requests of a route are traced.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TraceRule {
    /// Whether to continue the client's trace.
    pub trusts: bool,
    /// The name of spans; `None` for the path of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Template>,
    /// What replaces the settings, if anything. While that resource is missing, nothing is traced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<TelemetryName>,
}

/// The place of a request in a trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceContext {
    /// Id of the trace.
    pub trace: [u8; 16],
    /// Id of the proxy's span.
    pub span: [u8; 8],
    /// Id of the caller's span, if the trace is the client's.
    pub parent: Option<[u8; 8]>,
    /// Whether the span is recorded.
    pub sampled: bool,
    /// Whether `tracestate` is propagated.
    keeps_state: bool,
    single_b3: bool,
    multiple_b3: bool,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            collector: None,
            service: "nginx".into(),
            sampler: Sampler::Always,
            follows_parent: true,
            batch: 512,
            queue: 2048,
            delay: Duration::from_secs(5),
        }
    }
}

impl Sampler {
    /// A share of all traces, from 0 to 1.
    pub fn share(ratio: f64) -> Self {
        Self::Share((ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64)
    }

    pub(crate) fn samples(self, trace: &[u8; 16]) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Share(share) => {
                let (_, low) = trace.split_at(8);
                u64::from_be_bytes(low.try_into().unwrap_or_default()) >> 1 < share
            }
        }
    }
}

/// What a request reveals about its caller.
#[derive(Debug, Default)]
struct Caller {
    ids: Option<([u8; 16], [u8; 8])>,
    sampled: Option<bool>,
}

impl TraceContext {
    /// The context of a request, by the settings or their replacement. `random` gives 64 random bits.
    pub fn begin<'a>(
        rule: &TraceRule,
        (tracing, telemetry): (&Tracing, Option<&Telemetry>),
        fields: impl Fields<'a>,
        mut random: impl FnMut() -> u64,
    ) -> Self {
        let (mut w3c, mut single, mut multiple) = (None, None, Multiple::default());
        let mut parents = 0;
        if rule.trusts {
            for line in fields.lines() {
                if line.is(TRACEPARENT.as_bytes()) {
                    parents += 1;
                    w3c = traceparent(line.value);
                } else if line.is(B3.as_bytes()) {
                    single = b3(line.value);
                } else {
                    multiple.read(|name| line.is(name.as_bytes()), line.value);
                }
            }
        }
        // More than one count as none (Trace Context, 3.2).
        let w3c = w3c.filter(|_| parents == 1);
        let multiple = multiple.caller();
        let (single_b3, multiple_b3, keeps_state) = (single.is_some(), multiple.is_some(), w3c.is_some());
        let caller = w3c.or(single).or(multiple).unwrap_or_default();
        let (trace, parent) = match caller.ids {
            Some((trace, parent)) => (trace, Some(parent)),
            None => {
                let mut trace = [0; 16];
                trace[..8].copy_from_slice(&random().to_be_bytes());
                // Zero is no valid id.
                trace[8..].copy_from_slice(&random().max(1).to_be_bytes());
                (trace, None)
            }
        };
        let sampled = match telemetry {
            Some(telemetry) => telemetry.samples(tracing, &trace, caller.sampled),
            None => {
                let followed = caller.sampled.filter(|_| tracing.follows_parent);
                followed.unwrap_or_else(|| tracing.sampler.samples(&trace))
            }
        };
        Self { trace, span: random().max(1).to_be_bytes(), parent, sampled, keeps_state, single_b3, multiple_b3 }
    }

    /// Whether a field of the client is replaced by what is [written](Self::write), or must not pass.
    pub fn replaces(&self, name: &[u8]) -> bool {
        is_same_field(TRACEPARENT.as_bytes(), name)
            || (!self.keeps_state && is_same_field(b"tracestate", name))
            || B3_FIELDS.iter().any(|own| is_same_field(own.as_bytes(), name))
    }

    /// Writes the fields that propagate the context, except those that are `set` otherwise.
    pub fn write<F, S: FieldSink<F>>(&self, sink: &mut S, set: impl Fn(&[u8]) -> bool, value: &mut Vec<u8>) {
        let mut put = |name: FieldName<'_>, value: &[u8]| {
            if !set(name.as_bytes()) {
                sink.field(name, value);
            }
        };
        value.clear();
        self.append_traceparent(value);
        put(TRACEPARENT, value);
        let flag: &[u8] = if self.sampled { b"1" } else { b"0" };
        if self.single_b3 {
            value.clear();
            hex(&self.trace, value);
            value.push(b'-');
            hex(&self.span, value);
            value.push(b'-');
            value.extend_from_slice(flag);
            if let Some(parent) = &self.parent {
                value.push(b'-');
                hex(parent, value);
            }
            put(B3, value);
        }
        if self.multiple_b3 {
            let parent = self.parent.as_ref();
            let ids = [(B3_TRACE, Some(&self.trace[..])), (B3_SPAN, Some(&self.span[..]))];
            for (name, id) in ids.into_iter().chain([(B3_PARENT, parent.map(|parent| &parent[..]))]) {
                if let Some(id) = id {
                    value.clear();
                    hex(id, value);
                    put(name, value);
                }
            }
            put(B3_SAMPLED, flag);
        }
    }

    /// Appends the value of `traceparent`.
    pub fn append_traceparent(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"00-");
        hex(&self.trace, out);
        out.push(b'-');
        hex(&self.span, out);
        out.extend_from_slice(if self.sampled { b"-01" } else { b"-00" });
    }
}

/// The fields `X-B3-*` of a request.
#[derive(Debug, Default)]
struct Multiple {
    trace: Option<[u8; 16]>,
    span: Option<[u8; 8]>,
    sampled: Option<bool>,
}

impl Multiple {
    fn read(&mut self, is: impl Fn(FieldName<'_>) -> bool, value: &[u8]) {
        if is(B3_TRACE) {
            self.trace = trace_id(value);
        } else if is(B3_SPAN) {
            self.span = unhex(value);
        } else if is(B3_SAMPLED) {
            self.sampled = match value {
                b"1" | b"true" => Some(true),
                b"0" | b"false" => Some(false),
                _ => self.sampled,
            };
        } else if is(B3_FLAGS) && value == b"1" {
            self.sampled = Some(true);
        }
    }

    fn caller(self) -> Option<Caller> {
        let caller = Caller { ids: self.trace.zip(self.span), sampled: self.sampled };
        (caller.ids.is_some() || caller.sampled.is_some()).then_some(caller)
    }
}

/// Reads `00-TRACE-PARENT-FLAGS`; later versions may have more after it (Trace Context, 3.2).
fn traceparent(value: &[u8]) -> Option<Caller> {
    let (fixed, rest) = value.trim_ascii().split_at_checked(55)?;
    let [version, trace, parent, flags] = fixed.split(|&byte| byte == b'-').collect::<Vec<_>>()[..] else {
        return None;
    };
    let version: [u8; 1] = unhex(version)?;
    let flags: [u8; 1] = unhex(flags)?;
    let ends = rest.is_empty() || (version != [0] && rest[0] == b'-');
    let has_capitals = fixed.iter().any(u8::is_ascii_uppercase);
    if version == [0xff] || !ends || has_capitals {
        return None;
    }
    let (trace, parent) = (unhex(trace)?, unhex(parent)?);
    (trace != [0; 16] && parent != [0; 8])
        .then_some(Caller { ids: Some((trace, parent)), sampled: Some(flags[0] & 1 == 1) })
}

/// Reads `TRACE-SPAN-SAMPLED-PARENT`, of which the last two may be missing, or `SAMPLED` alone.
fn b3(value: &[u8]) -> Option<Caller> {
    let state = |text: &[u8]| match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    };
    let parts: Vec<&[u8]> = value.trim_ascii().splitn(5, |&byte| byte == b'-').collect();
    match parts[..] {
        [only] => Some(Caller { ids: None, sampled: Some(state(only)?) }),
        [trace, span] => Some(Caller { ids: Some((trace_id(trace)?, unhex(span)?)), sampled: None }),
        [trace, span, sampled] | [trace, span, sampled, _] => {
            Some(Caller { ids: Some((trace_id(trace)?, unhex(span)?)), sampled: state(sampled) })
        }
        _ => None,
    }
}

/// B3 has ids of 8 and of 16 bytes.
fn trace_id(text: &[u8]) -> Option<[u8; 16]> {
    let id = match text.len() {
        16 => {
            let low: [u8; 8] = unhex(text)?;
            let mut id = [0; 16];
            id[8..].copy_from_slice(&low);
            id
        }
        _ => unhex(text)?,
    };
    (id != [0; 16]).then_some(id)
}

fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// Appends bytes as hexadecimal digits in lower case.
pub fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|&byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

/// Like [`hex`], for a digest of 16 bytes, without an allocation.
pub fn hex_digest(digest: [u8; 16]) -> [u8; 32] {
    std::array::from_fn(|at| {
        let byte = digest[at / 2];
        DIGITS[usize::from(if at % 2 == 0 { byte >> 4 } else { byte & 15 })]
    })
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_caller_is_read_as_the_specifications_say() {
        let read = |text: &str| traceparent(text.as_bytes()).map(|caller| (caller.ids.unwrap().1[7], caller.sampled));
        assert_eq!(read(PARENT), Some((0x31, Some(true))));
        assert_eq!(read(&PARENT.replace("-01", "-00")), Some((0x31, Some(false))));
        assert_eq!(read(&PARENT.replacen("00", "01", 1).replace("-01", "-03-more")), Some((0x31, Some(true))));
        for bad in [
            "",
            &PARENT[1..],
            &format!("{PARENT}-"),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.to_uppercase(),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &PARENT.replace("b7ad", "g7ad"),
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
        let read = |text: &str| b3(text.as_bytes()).map(|caller| (caller.ids.is_some(), caller.sampled));
        assert_eq!(
            read("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1-05e3ac9a4f6e3b90"),
            Some((true, Some(true)))
        );
        assert_eq!(read("8448eb211c80319c-b7ad6b7169203331"), Some((true, None)));
        assert_eq!(read("0"), Some((false, Some(false))));
        for bad in ["", "x", "8448eb211c80319c", "8448eb211c80319c-b7ad", "0000000000000000-b7ad6b7169203331-1"] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_share_of_the_traces_is_sampled() {
        let sampled = |ratio: f64| {
            let trace = |number: u64| {
                let mut id = [0; 16];
                id[8..].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                id
            };
            (0..10_000).filter(|&number| Sampler::share(ratio).samples(&trace(number))).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0), sampled(7.0)), (0, 10_000, 10_000));
        assert!((900..1100).contains(&sampled(0.1)), "{}", sampled(0.1));
    }
}
