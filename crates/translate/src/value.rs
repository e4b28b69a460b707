//! Small types for text that users write: annotation values, ConfigMap keys, flags. A value is parsed once, here, and never checked
//! again.
//!
//! Parsing is as strict as ingress-nginx's validators (`internal/ingress/annotations/parser/validators.go`): numbers and booleans
//! allow no surrounding blanks, text is trimmed, and single-line values must not span several lines.

mod auth;
mod choice;
mod coding;
mod cors;
mod health;
mod list;
mod network;
mod replacement;
mod size;
mod text;
mod time;
mod tls;

#[cfg(test)]
mod tests;

pub use auth::{
    AuthCacheDuration, AuthMethod, AuthRealm, AuthRedirect, AuthSecret, AuthUrl, CopiedFields, GlobalAuthUrl,
    InvalidAuthUrl, MirrorTarget, RedirectParam, SignInUrl,
};
pub use choice::{
    AffinityKind, AffinityMode, AuthSecretType, AuthType, BackendProtocol, CanaryBehavior, ErrorStatus,
    HttpRedirectCode, LoadBalance, NextUpstream, OtelSampler, PortNumber, RetryCondition, RiskLevel, SameSite,
    SamplerRatio, Satisfy, Switch, TlsProtocols, VerifyClient, WorkerProcesses,
};
pub use coding::{BrotliLevel, GzipLevel, MediaTypes, UserAgents};
pub use cors::{CorsExposed, CorsHeaders, CorsMethods, CorsOrigins};
pub use health::{HealthCount, HealthProbe, HealthSeconds, HealthStatuses};
pub use list::{
    CommaList, ErrorStatuses, HeaderNames, HostAlias, HostAliases, ReplacedStatuses, UriPattern, UriPatterns,
};
pub(crate) use network::network;
pub use network::{AccessList, IpList};
pub use replacement::{BlockedValues, ConnectionHeader, CookieRewrite, RedirectPart};
pub use size::{FieldCount, HeaderBuffers, Size};
pub use text::{
    AppRoot, CanaryHeader, CanaryPattern, CertificatePage, CollectorHost, CommonName, CookieDomain, CookieName,
    CookiePath, ForwardedPrefix, HashKey, HeaderName, HostOrAddress, LogFormat, ObjectRef, OperationName, RedirectUrl,
    RewriteTarget, SecretName, ServerName, ServiceName, SpanName, Text, Vhost,
};
pub use time::{GoDuration, NginxTime, Seconds, SignedSeconds};
pub use tls::{AnyCiphers, SessionTicketKey, TlsCiphers, TlsGroups};

/// A value that users write as text.
pub trait Value: Sized {
    /// The expected value, which completes the sentence "expected …".
    const SYNTAX: &'static str;

    /// Parses the text; `None` if it doesn't have this syntax.
    fn parse(text: &str) -> Option<Self>;

    /// The meaning of an empty text in a ConfigMap: ingress-nginx reads it into Go's bools and numbers as their zero.
    const ZERO: &'static str = "";

    /// Invalid entries that were left out of a list.
    fn left_out(&self) -> &[String] {
        &[]
    }
}

/// A value that few objects have but that would take room in all of them.
impl<T: Value> Value for Box<T> {
    const SYNTAX: &'static str = T::SYNTAX;
    const ZERO: &'static str = T::ZERO;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Self::new)
    }

    fn left_out(&self) -> &[String] {
        (**self).left_out()
    }
}

/// Go's `strconv.ParseBool`.
impl Value for bool {
    const SYNTAX: &'static str = "`true` or `false` (also 1 t T TRUE True, 0 f F FALSE False)";
    const ZERO: &'static str = "false";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        }
    }
}

/// Go's `strconv.Atoi`: decimal, with an optional sign.
impl Value for i64 {
    const SYNTAX: &'static str = "a whole number";
    const ZERO: &'static str = "0";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// A count: decimal, without a sign.
impl Value for u32 {
    const SYNTAX: &'static str = "a whole number of 0 or more";
    const ZERO: &'static str = "0";

    fn parse(text: &str) -> Option<Self> {
        digits(text)?.try_into().ok()
    }
}

/// A value that may be empty.
impl<T: Value> Value for Option<T> {
    const SYNTAX: &'static str = T::SYNTAX;

    fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() { Some(None) } else { T::parse(text).map(Some) }
    }
}

/// Only decimal digits, unlike `str::parse`, which also accepts a leading `+`.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Whether the text has several lines, which no single-line value may have.
fn is_multi_line(text: &str) -> bool {
    text.contains(['\r', '\n'])
}
