//! XTelemetryPolicies: how requests are traced.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BackendReference, Fraction, LocalReference};

record! {
    /// See the API.
    XTelemetryPolicySpec {
        /// What it is for.
        target_refs: Vec<LocalReference>,
        /// How requests are traced.
        tracing: Option<TracingSpec>,
    }
    /// See the API.
    TracingSpec {
        /// `Enabled`, `Disabled` or `ImplementationDefault`, which is the default.
        mode: Option<String>,
        /// Who receives spans.
        provider: Option<TracingProvider>,
        /// Which traces are sampled that begin here.
        sampling_rate: Option<Fraction>,
        /// What the decision of the caller counts.
        parent_based_sampling: Option<ParentBasedSampling>,
        /// `service.name` of the spans.
        service_name: Option<String>,
        /// The name of spans.
        span_name: Option<String>,
        /// What spans say besides.
        attributes: Vec<SpanAttributeSpec>,
    }
    /// See the API.
    TracingProvider {
        /// Where it is.
        backend_ref: BackendReference,
        /// Fields of the requests to it.
        headers: Vec<ProviderHeader>,
    }
    /// See the API.
    ParentBasedSampling {
        /// `Enabled`, `Disabled` or `ImplementationDefault`, which is the default.
        mode: Option<String>,
        /// Of the traces that the caller has sampled.
        sampling_rate: Option<Fraction>,
    }
    /// See the API.
    SpanAttributeSpec {
        /// Its name.
        name: String,
        /// Where its value comes from: `Header`, `Literal` or `Attribute`.
        source_type: String,
        /// A field.
        header_name: Option<String>,
        /// A text.
        literal_value: Option<String>,
        /// A name of the conventions of OpenTelemetry.
        attribute_key: Option<String>,
    }
    /// See the API.
    ProviderHeader {
        /// Name.
        name: String,
        /// Value.
        value: HiddenText,
    }
}

/// A text of an object that may be a secret: it is written in the object and never printed.
#[derive(Clone, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HiddenText(String);

impl HiddenText {
    /// The text, only for its destination.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
