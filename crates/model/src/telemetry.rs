//! How the requests to a Gateway are traced, in place of the settings: which traces are sampled, how their spans are named, what attributes
//! they have, and where they are sent. What is left out is as in the settings.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::{self, REDACTED};
use crate::{BackendName, ConfiguredName, Origin, Sampler, TelemetryName, Tracing, UpstreamTls};

/// How the requests of routes that [name](crate::TraceRule::telemetry) this are traced.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Its name.
    pub name: TelemetryName,
    /// The object that asked for it.
    pub origin: Origin,
    /// Which of the traces that begin here are sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// The effect of the caller's decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentRule>,
    /// `service.name` of the spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Box<str>>,
    /// The name of spans; the path of the rule by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Box<str>>,
    /// Attributes of spans beyond those that all have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<SpanAttribute>,
    /// The receiver of spans; with `None` only the context is propagated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<SpanReceiver>,
}

/// The effect of a caller's decision about its trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ParentRule {
    /// It is ignored.
    Ignored,
    /// A trace that isn't sampled stays so; of the sampled ones, the sampler selects which spans are recorded.
    Followed(Sampler),
}

/// An attribute of spans.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SpanAttribute {
    /// Its name.
    pub name: Box<str>,
    /// Its value. Without one, a span does not have the attribute.
    pub value: SpanValue,
}

/// The value of an attribute.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SpanValue {
    /// This text.
    Literal(Box<str>),
    /// A field of the request; if it has none, of the endpoint's response.
    Field(ConfiguredName),
    /// The attribute that OpenTelemetry defines.
    Standard(StandardAttribute),
}

macro_rules! standard {
    ($($(#[doc = $doc:literal])+ $name:ident $key:literal)*) => {
        /// An attribute of a request, by its name in the semantic conventions of OpenTelemetry: those of the Gateway API's dictionary
        /// (GEP-5253) that a proxy can know.
        #[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
        pub enum StandardAttribute {
            $($(#[doc = $doc])+ $name,)*
            /// `http.request.header.NAME`.
            RequestField(ConfiguredName),
            /// `http.response.header.NAME`.
            ResponseField(ConfiguredName),
        }

        impl StandardAttribute {
            /// All names, with `<name>` for that of a field.
            pub const KEYS: &'static [&'static str] =
                &[$($key,)* "http.request.header.<name>", "http.response.header.<name>"];

            /// The attribute of this name, if it is known.
            pub fn of_key(key: &str) -> Option<Self> {
                match key {
                    $($key => return Some(Self::$name),)*
                    _ => {}
                }
                let field = |prefix| ConfiguredName::try_from(key.strip_prefix(prefix)?).ok();
                let request = field("http.request.header.").map(Self::RequestField);
                request.or_else(|| field("http.response.header.").map(Self::ResponseField))
            }
        }
    };
}
standard! {
    /// The method; `_OTHER` for one that HTTP doesn't define.
    Method "http.request.method"
    /// The method as it was sent.
    MethodOriginal "http.request.method_original"
    /// The status.
    Status "http.response.status_code"
    /// The path of the rule.
    Route "http.route"
    /// The field `User-Agent`.
    UserAgent "user_agent.original"
    /// Why the request failed, or the status of an error.
    ErrorType "error.type"
    /// `http` or `https`.
    Scheme "url.scheme"
    /// The path as it was sent.
    Path "url.path"
    /// The query as it was sent.
    Query "url.query"
    /// The whole.
    Url "url.full"
    /// The client's address.
    ClientAddress "client.address"
    /// The port of the peer, if that is the client.
    ClientPort "client.port"
    /// The host that was asked for.
    ServerAddress "server.address"
    /// The port that the connection arrived at.
    ServerPort "server.port"
    /// The address of the peer.
    PeerAddress "network.peer.address"
    /// The port of the peer.
    PeerPort "network.peer.port"
    /// `http`.
    Protocol "network.protocol.name"
    /// The version of HTTP.
    ProtocolVersion "network.protocol.version"
    /// `tcp`.
    Transport "network.transport"
    /// `ipv4` or `ipv6`.
    NetworkType "network.type"
}

/// A receiver of spans over OTLP.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SpanReceiver {
    /// Its backend.
    pub backend: BackendName,
    /// Its host and port in requests.
    pub authority: Box<str>,
    /// Whether to use HTTP/1.1 instead of gRPC.
    pub http: bool,
    /// TLS to it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
    /// Fields of the requests that carry spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(ConfiguredName, SecretText)>,
}

/// A text that may grant access to something, so it is never printed.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct SecretText(Box<str>);

impl SecretText {
    /// The text, only for the party it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if secret::are_written() { &self.0 } else { REDACTED })
    }
}

/// A dump holds no such text, so reading one yields an empty one.
impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<str>::deserialize(deserializer)?;
        Ok(if secret::are_written() { Self(text) } else { Self::default() })
    }
}

impl Telemetry {
    /// Whether the span of a request is recorded. `caller` is the caller's decision about the trace, if it made one.
    pub(crate) fn samples(&self, settings: &Tracing, trace: &[u8; 16], caller: Option<bool>) -> bool {
        let rule = self.parent.unwrap_or(match settings.follows_parent {
            true => ParentRule::Followed(Sampler::Always),
            false => ParentRule::Ignored,
        });
        match (rule, caller) {
            (ParentRule::Followed(_), Some(false)) => false,
            // Mixed, because the caller may have sampled by the same digits.
            (ParentRule::Followed(share), Some(true)) => share.samples(&mixed(trace)),
            (ParentRule::Followed(_), None) | (ParentRule::Ignored, _) => {
                self.sampler.unwrap_or(settings.sampler).samples(trace)
            }
        }
    }

    /// `service.name` of the spans.
    pub fn service<'a>(&'a self, settings: &'a Tracing) -> &'a str {
        self.service.as_deref().unwrap_or(&settings.service)
    }
}

/// Different digits for the same trace, equal in every process (the finalizer of splitmix64).
fn mixed(trace: &[u8; 16]) -> [u8; 16] {
    let mut number = u128::from_be_bytes(*trace) as u64;
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u128::from(number ^ (number >> 31)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(sampler: Option<f64>, parent: Option<ParentRule>) -> Telemetry {
        Telemetry {
            name: "shop/traces".into(),
            origin: Origin::new("XTelemetryPolicy", "shop", "traces"),
            sampler: sampler.map(Sampler::share),
            parent,
            service: None,
            span: None,
            attributes: Vec::new(),
            receiver: None,
        }
    }

    /// How many of 10,000 traces are sampled, and how many are admitted.
    fn sampled(telemetry: &Telemetry, caller: Option<bool>, admits: impl Fn(&[u8; 16]) -> bool) -> (usize, usize) {
        let trace = |number: u64| u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes();
        let all = (0..10_000).map(trace).filter(|trace| admits(trace)).collect::<Vec<_>>();
        let settings = Tracing { sampler: Sampler::Never, ..Tracing::default() };
        (all.iter().filter(|trace| telemetry.samples(&settings, trace, caller)).count(), all.len())
    }

    #[test]
    fn the_decision_of_the_caller_counts_as_far_as_the_rule_says() {
        let any = |_: &[u8; 16]| true;
        let count = |parent, caller| sampled(&telemetry(Some(1.0), parent), caller, any).0;
        let half = ParentRule::Followed(Sampler::share(0.5));
        for parent in [None, Some(ParentRule::Followed(Sampler::Always)), Some(half)] {
            assert_eq!(count(parent, Some(false)), 0);
            assert_eq!(count(parent, None), 10_000, "a trace that begins here");
        }
        assert_eq!(count(None, Some(true)), 10_000);
        assert!((4_800..5_200).contains(&count(Some(half), Some(true))));
        let tenth = telemetry(Some(0.1), Some(ParentRule::Ignored));
        for caller in [None, Some(false), Some(true)] {
            assert!((900..1_100).contains(&sampled(&tenth, caller, any).0), "{caller:?}");
        }
        assert_eq!(sampled(&telemetry(None, None), None, any).0, 0, "as the settings say");
    }

    #[test]
    fn a_share_of_what_the_caller_has_chosen_is_a_share_of_that() {
        let half = telemetry(None, Some(ParentRule::Followed(Sampler::share(0.5))));
        // The caller samples a tenth by the same digits.
        let (sampled, all) = sampled(&half, Some(true), |trace| Sampler::share(0.1).samples(trace));
        assert!(all > 900 && (all * 4 / 10..all * 6 / 10).contains(&sampled), "{sampled} of {all}");
    }

    #[test]
    fn attributes_have_the_names_of_the_conventions() {
        for key in StandardAttribute::KEYS {
            assert!(StandardAttribute::of_key(&key.replace("<name>", "x-user")).is_some(), "{key}");
        }
        let field = StandardAttribute::of_key("http.request.header.x-user");
        assert_eq!(field, Some(StandardAttribute::RequestField("x-user".try_into().unwrap())));
        for unknown in ["", "http.request", "gen_ai.tool.name", "http.request.header.", "url.fragment"] {
            assert_eq!(StandardAttribute::of_key(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_lets_in_is_never_printed() {
        let text = SecretText::from("Bearer secret");
        assert_eq!(format!("{text:?}"), REDACTED);
        assert_eq!(serde_json::to_string(&text).unwrap(), "\"[redacted]\"");
        assert_eq!(serde_json::from_str::<SecretText>("\"[redacted]\"").unwrap(), SecretText::default());
        let sent = secret::with_secrets(|| serde_json::to_string(&text).unwrap());
        assert_eq!(secret::with_secrets(|| serde_json::from_str::<SecretText>(&sent).unwrap()), text);
    }
}
