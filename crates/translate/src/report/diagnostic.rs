//! Messages to users about their objects. A mistake in an object is data, never a failed run: the controller turns the same value
//! into an Event, a log line and a condition, and `fairway check` prints it.

use std::fmt;

use crate::limit;
use fairway_model::Origin;
use serde::{Serialize, Serializer};

/// A message about one field of an object.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Diagnostic {
    /// The object that it is about.
    pub origin: Origin,
    /// The field, as a user would write it, such as `spec.rules[0].host`; empty for the object as a whole.
    pub field: String,
    /// Its value, cut to 200 characters, with control characters escaped; empty if it doesn't matter.
    pub value: String,
    /// How bad it is.
    pub severity: Severity,
    /// Its kind, as one word.
    pub reason: Reason,
    /// What was expected and what happens instead.
    pub message: String,
    /// Whether requests to the object get 503 because of it.
    #[serde(skip)]
    pub unserved: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Severity {
    /// No action needed: the value has no effect, or a small documented difference.
    Info,
    /// Traffic is served, but part of what was written is not in effect.
    Warning,
    /// Something isn't served, or is denied.
    Error,
}

impl Severity {
    /// The severity as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The kind of a finding, usable as the `reason` of a Kubernetes Event.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// The reason as one word in CamelCase.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    /// The value of an annotation can't be read (the name is the one of ingress-nginx's Event).
    AnnotationParsingFailed,
    /// An unknown annotation under our prefix.
    UnknownAnnotation,
    /// An annotation of ingress-nginx that isn't built yet.
    UnsupportedAnnotation,
    /// An annotation of ingress-nginx that will never be built.
    RefusedAnnotation,
    /// An annotation without effect here and in ingress-nginx.
    IneffectiveAnnotation,
    /// An annotation that newer versions of its reader ignore.
    OutdatedAnnotation,
    /// An annotation above the risk that `annotations-risk-level` allows.
    AnnotationTooRisky,
    /// An annotation whose value contains a word of `annotation-value-word-blocklist`.
    ForbiddenWord,
    /// The value of a ConfigMap key can't be read.
    InvalidConfiguration,
    /// An unknown ConfigMap key.
    UnknownConfiguration,
    /// A ConfigMap key of ingress-nginx that isn't built yet.
    UnsupportedConfiguration,
    /// What a snippet was read as.
    SnippetRead,
    /// A ConfigMap key of ingress-nginx that will never be built.
    RefusedConfiguration,
    /// A ConfigMap key without effect here.
    IneffectiveConfiguration,
    /// A difference from ingress-nginx.
    DiffersFromIngressNginx,
    /// A text that `--deep-inspect` refuses.
    SuspiciousText,
    /// An Ingress with a default backend, with `--disable-catch-all`.
    CatchAllDisabled,
    /// A version of an object that can't be loaded, so that the previous one stays in effect.
    LastGoodVersion,
    /// An Ingress that isn't loaded and may restrict access, so that its paths are denied.
    AccessDenied,
    /// A manifest that can't be read at all.
    InvalidManifest,
    /// An object of an API version that is no longer served.
    UnsupportedApiVersion,
    /// A host that is not a valid host name.
    InvalidHost,
    /// A path that can't be matched.
    InvalidPath,
    /// Two objects that claim the same host, path and path type.
    PathConflict,
    /// Two objects that set a property of a host to different values.
    HostConflict,
    /// An incomplete backend.
    InvalidBackend,
    /// A backend of an unsupported kind.
    UnsupportedBackend,
    /// A Service that doesn't exist.
    ServiceNotFound,
    /// A port that the Service lacks.
    PortNotFound,
    /// A Service that nothing answers for.
    NoEndpoints,
    /// An address that backends must not have.
    ForbiddenAddress,
    /// A Secret that doesn't exist.
    SecretNotFound,
    /// A Secret without a usable certificate and key.
    InvalidSecret,
    /// A certificate that doesn't cover its host.
    CertificateMismatch,
    /// A certificate that isn't valid yet, or has expired.
    CertificateExpired,
    /// An IngressClass that doesn't exist.
    IngressClassNotFound,
    /// A GatewayClass that doesn't exist, or that belongs to another controller.
    GatewayClassNotFound,
    /// A forbidden reference to an object of another namespace.
    ForbiddenReference,
    /// A route that a parent does not take.
    RouteNotAttached,
    /// A value of the Gateway API that isn't built, or means nothing.
    UnsupportedValue,
    /// A listener that can't be told apart from another one.
    ListenerConflict,
    /// The Gateway that a ListenerSet names does not take it: it is not accepted itself, or admits no set of that namespace.
    ListenerSetRefused,
    /// A BackendTLSPolicy or an XBackendTrafficPolicy that is not applied, in whole or in part.
    BackendPolicyRefused,
    /// A kind of object that the controller has to read but may not.
    MissingRight,
    /// An XTelemetryPolicy that is not applied, in whole or in part.
    TelemetryPolicyRefused,
    /// A RoutePolicy that is not applied, in whole or in part.
    RoutePolicyRefused,
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Diagnostic {
    /// A finding about `field` of `origin`, which contains `value`.
    pub fn new(
        severity: Severity,
        reason: Reason,
        origin: &Origin,
        field: impl Into<String>,
        value: &str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            origin: origin.clone(),
            field: one_line(field.into()),
            value: bounded(value),
            severity,
            reason,
            message: one_line(message.into()),
            unserved: false,
        }
    }

    /// The same for a finding that makes requests get 503.
    #[must_use]
    pub fn unserved(self) -> Self {
        Self { unserved: true, ..self }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", one_line(self.origin.to_string()))?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, "value \"{}\": ", self.value)?;
        }
        f.write_str(&self.message)
    }
}

/// The text cut to the length of a log line or an Event, with all characters escaped that could start a new one.
pub fn bounded(value: &str) -> String {
    let mut out = String::with_capacity(value.len().min(limit::QUOTED));
    for (count, char) in value.chars().enumerate() {
        if count == limit::QUOTED {
            out.push('…');
            break;
        }
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            _ if is_unsafe(char) => out.extend(char.escape_default()),
            _ => out.push(char),
        }
    }
    out
}

/// The text with the same characters escaped, but not cut: names of objects in files can contain anything.
fn one_line(text: String) -> String {
    if !text.contains(is_unsafe) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if is_unsafe(char) { out.extend(char.escape_default()) } else { out.push(char) }
    }
    out
}

/// Line and paragraph separators, direction marks and the like can rearrange what a terminal shows.
fn is_unsafe(char: char) -> bool {
    char.is_control() || ('\u{200b}'..='\u{206f}').contains(&char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_object_field_value_and_expectation() {
        let found = Diagnostic::new(
            Severity::Warning,
            Reason::AnnotationParsingFailed,
            &Origin::new("Ingress", "shop", "web"),
            r#"metadata.annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]"#,
            "5s",
            "expected whole seconds",
        );
        assert_eq!(
            found.to_string(),
            r#"Ingress shop/web: metadata.annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]: value "5s": expected whole seconds"#
        );
    }

    #[test]
    fn values_are_cut_and_escaped() {
        assert_eq!(bounded("a\r\n\"\0\u{202e}"), r#"a\r\n\"\u{0}\u{202e}"#);
        assert_eq!(bounded(&"é".repeat(1000)).chars().count(), 201);
    }
}
