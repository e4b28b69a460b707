//! A word of a fixed set, or several of them.

use std::num::{NonZeroU16, NonZeroU32};

use fairway_model::{Balance, Sampler, TlsVersions};

use super::{Value, is_multi_line};

macro_rules! choices {
    ($($(#[$about:meta])+ $name:ident { $($(#[doc = $doc:literal])+ $word:literal => $variant:ident,)+ })+) => {$(
        $(#[$about])+
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Value for $name {
            const SYNTAX: &'static str = concat!("one of" $(, " `", $word, "`")+);

            fn parse(text: &str) -> Option<Self> {
                match text.trim() {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    )+};
}

choices! {
    /// A kind of authentication of users.
    AuthType {
        /// Name and password in each request.
        "basic" => Basic,
        /// RFC 7616.
        "digest" => Digest,
    }

    /// The layout of a Secret with users.
    AuthSecretType {
        /// The key `auth` holds an htpasswd file.
        "auth-file" => File,
        /// Each key is a user, and its value the hash.
        "auth-map" => Map,
    }

    /// Which traces are recorded.
    OtelSampler {
        /// All of them.
        "AlwaysOn" => Always,
        /// None.
        "AlwaysOff" => Never,
        /// A share of them.
        "TraceIdRatioBased" => Ratio,
    }

    /// How address lists and authentication combine.
    Satisfy {
        /// A client has to pass all of them.
        "all" => All,
        /// One of them is enough.
        "any" => Any,
    }

    /// A switch of nginx.
    Switch {
        /// It is on.
        "on" => On,
        /// It is off.
        "off" => Off,
    }

    /// The kinds of session affinity.
    AffinityKind {
        /// A cookie set by the proxy.
        "cookie" => Cookie,
    }

    /// How closely a session is tied to its endpoint.
    AffinityMode {
        /// The cookie is hashed over the endpoints: scaling moves some sessions.
        "balanced" => Balanced,
        /// The cookie names one endpoint, and the session moves only when that is gone.
        "persistent" => Persistent,
    }

    /// Whether session affinity keeps a client on its side of a canary.
    CanaryBehavior {
        /// Yes.
        "sticky" => Sticky,
        /// No: the canary sets no cookie.
        "legacy" => Legacy,
    }

    /// The SameSite attribute of a cookie. Case matters.
    SameSite {
        /// Sent everywhere.
        "None" => None,
        /// Sent when navigating to the site.
        "Lax" => Lax,
        /// Sent within the site only.
        "Strict" => Strict,
    }

    /// How much harm an annotation can do, in ascending order.
    RiskLevel {
        /// None beyond its own route.
        "Low" => Low,
        /// Some, by mistake.
        "Medium" => Medium,
        /// It can redirect or expose other users' traffic.
        "High" => High,
        /// It is code.
        "Critical" => Critical,
    }

    /// Whether clients have to present a certificate.
    VerifyClient {
        /// A valid one is required.
        "on" => On,
        /// None is requested.
        "off" => Off,
        /// None, or a valid one.
        "optional" => Optional,
        /// None, or one of any authority.
        "optional_no_ca" => OptionalNoCa,
    }

    /// Status of the redirects to https and between `www.` and the bare name.
    HttpRedirectCode {
        /// Moved permanently.
        "301" => MovedPermanently,
        /// Found.
        "302" => Found,
        /// Temporary redirect: method and body are kept.
        "307" => TemporaryRedirect,
        /// Permanent redirect: method and body are kept.
        "308" => PermanentRedirect,
    }
}

impl HttpRedirectCode {
    /// The status as a number.
    pub const fn status(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::Found => 302,
            Self::TemporaryRedirect => 307,
            Self::PermanentRedirect => 308,
        }
    }
}

/// How an endpoint is chosen without session affinity or a hash.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum LoadBalance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The faster of two random ones, by recent response times.
    Ewma,
    /// Of two random ones, the one with fewer requests in progress.
    LeastRequest,
}

impl LoadBalance {
    /// The same for a backend.
    pub fn balance(self) -> Balance {
        match self {
            Self::RoundRobin => Balance::RoundRobin,
            Self::Ewma => Balance::Ewma,
            Self::LeastRequest => Balance::LeastRequest,
        }
    }
}

impl Value for LoadBalance {
    const SYNTAX: &'static str = "one of `round_robin` `ewma` `least_request`";

    /// ingress-nginx's check also accepts the names of its Lua modules. Their behaviour is selected by `upstream-hash-by` and `affinity`;
    /// without those they mean the default, as an empty ConfigMap key does.
    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "" | "round_robin" | "chash" | "chashsubset" | "sticky_balanced" | "sticky_persistent" => {
                Some(Self::RoundRobin)
            }
            "ewma" => Some(Self::Ewma),
            "least_request" => Some(Self::LeastRequest),
            _ => None,
        }
    }
}

/// The status of a rejected request.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ErrorStatus(pub u16);

impl Value for ErrorStatus {
    const SYNTAX: &'static str = "a status from 400 to 599";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|status| (400..600).contains(status)).map(Self)
    }
}

/// The share of traces to record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SamplerRatio(pub Sampler);

impl Value for SamplerRatio {
    const SYNTAX: &'static str = "a number from 0 to 1";

    fn parse(text: &str) -> Option<Self> {
        let ratio: f64 = text.trim().parse().ok()?;
        (0.0..=1.0).contains(&ratio).then(|| Self(Sampler::share(ratio)))
    }
}

/// A port to send to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PortNumber(pub NonZeroU16);

impl Value for PortNumber {
    const SYNTAX: &'static str = "a port from 1 to 65535";

    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }
}

/// The protocol of connections to endpoints.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum BackendProtocol {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// The protocol of the client.
    AutoHttp,
    /// HTTP/2 in the clear.
    Grpc,
    /// HTTP/2 over TLS.
    Grpcs,
    /// FastCGI.
    Fcgi,
}

impl BackendProtocol {
    /// Whether connections are encrypted, at least those for clients that use TLS.
    pub(crate) fn may_encrypt(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs | Self::AutoHttp)
    }
}

impl Value for BackendProtocol {
    const SYNTAX: &'static str = "one of `HTTP` `HTTPS` `AUTO_HTTP` `GRPC` `GRPCS` `FCGI`, in any letter case";

    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "HTTP" => Some(Self::Http),
            "HTTPS" => Some(Self::Https),
            "AUTO_HTTP" => Some(Self::AutoHttp),
            "GRPC" => Some(Self::Grpc),
            "GRPCS" => Some(Self::Grpcs),
            "FCGI" => Some(Self::Fcgi),
            _ => None,
        }
    }
}

/// TLS versions for backends. OpenSSL knows others besides 1.2 and 1.3, but they are never used.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct TlsProtocols(pub TlsVersions);

impl Value for TlsProtocols {
    const SYNTAX: &'static str = "`TLSv1.2`, `TLSv1.3` or both, separated by blanks";

    fn parse(text: &str) -> Option<Self> {
        let (mut two, mut three) = (false, false);
        for word in text.split_ascii_whitespace() {
            match word {
                "TLSv1.2" => two = true,
                "TLSv1.3" => three = true,
                "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1.1" => {}
                _ => return None,
            }
        }
        match (two, three) {
            (true, true) => Some(Self(TlsVersions::All)),
            (true, false) => Some(Self(TlsVersions::Tls12)),
            (false, true) => Some(Self(TlsVersions::Tls13)),
            (false, false) => None,
        }
    }
}

macro_rules! retry_conditions {
    ($($(#[doc = $doc:literal])+ $word:literal => $variant:ident,)+) => {
        /// A failure after which another endpoint may be tried.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum RetryCondition { $($(#[doc = $doc])+ $variant,)+ }

        impl RetryCondition {
            /// All of them, in the order of the nginx manual.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// nginx's word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

retry_conditions! {
    /// Connecting, sending or reading failed.
    "error" => Error,
    /// Connecting, sending or reading took too long.
    "timeout" => Timeout,
    /// The response was empty or malformed.
    "invalid_header" => InvalidHeader,
    /// Status 500.
    "http_500" => Http500,
    /// Status 502.
    "http_502" => Http502,
    /// Status 503.
    "http_503" => Http503,
    /// Status 504.
    "http_504" => Http504,
    /// Status 403.
    "http_403" => Http403,
    /// Status 404.
    "http_404" => Http404,
    /// Status 429.
    "http_429" => Http429,
    /// Not a failure: POST, LOCK and PATCH are retried as well.
    "non_idempotent" => NonIdempotent,
    /// Not a failure: nothing is ever retried, whatever else is listed.
    "off" => Off,
}

/// The conditions of `proxy-next-upstream`. A list replaces the default instead of extending it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NextUpstream(u16);

impl NextUpstream {
    /// Connection errors and timeouts: the default.
    pub const DEFAULT: Self = Self(1 << RetryCondition::Error as u16 | 1 << RetryCondition::Timeout as u16);

    /// Whether the condition is listed, and not overruled by `off`.
    pub const fn contains(self, condition: RetryCondition) -> bool {
        let off = self.0 & 1 << RetryCondition::Off as u16 != 0;
        let listed = self.0 & 1 << condition as u16 != 0;
        listed && (!off || matches!(condition, RetryCondition::Off))
    }

    /// The conditions in effect.
    pub fn iter(self) -> impl Iterator<Item = RetryCondition> {
        RetryCondition::ALL.iter().copied().filter(move |condition| self.contains(*condition))
    }
}

impl Value for NextUpstream {
    const SYNTAX: &'static str = "words separated by single blanks: `error` `timeout` `invalid_header` `http_500` `http_502` \
         `http_503` `http_504` `http_403` `http_404` `http_429` `non_idempotent` `off`";

    fn parse(text: &str) -> Option<Self> {
        if is_multi_line(text) {
            return None;
        }
        let words = text.strip_suffix(' ').unwrap_or(text).split([' ', '\t']);
        let mut bits = words.map(|word| {
            let condition = RetryCondition::ALL.iter().find(|condition| condition.as_str() == word)?;
            Some(1 << *condition as u16)
        });
        bits.try_fold(0, |all, bit: Option<u16>| Some(all | bit?)).map(Self)
    }
}

/// Number of threads that serve traffic.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum WorkerProcesses {
    /// One per available processor.
    #[default]
    Auto,
    /// This many.
    Count(NonZeroU32),
}

impl Value for WorkerProcesses {
    const SYNTAX: &'static str = "`auto` or a number of 1 or more";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "auto" => Some(Self::Auto),
            number => u32::parse(number).and_then(NonZeroU32::new).map(Self::Count),
        }
    }
}
