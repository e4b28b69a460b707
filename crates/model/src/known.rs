//! The fields that the proxy itself reads, removes or writes, recognised once while a head is parsed.
//!
//! Spellings that a backend may take for the same field (`X_Forwarded_Proto`) fold to the same [`KnownField`], so that
//! stripping by family leaves no variant behind (CVE-2026-39858).

use std::ops::{BitAnd, BitOr, Sub};

use crate::field::fold;

macro_rules! known_fields {
    ($($variant:ident = $name:literal,)+) => {
        /// A field name that the proxy knows. The `*Other` variants stand for the rest of a family.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[repr(u8)]
        pub enum KnownField {
            /// Any other name.
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        /// Names by discriminant.
        const NAMES: &[&str] = &["", $($name,)+];
        const VARIANTS: &[KnownField] = &[KnownField::Other, $(KnownField::$variant,)+];
    };
}

known_fields! {
    Host = "Host",
    ContentLength = "Content-Length",
    TransferEncoding = "Transfer-Encoding",
    Connection = "Connection",
    KeepAlive = "Keep-Alive",
    ProxyConnection = "Proxy-Connection",
    Te = "TE",
    Trailer = "Trailer",
    Upgrade = "Upgrade",
    Http2Settings = "HTTP2-Settings",
    Expect = "Expect",
    MaxForwards = "Max-Forwards",
    Via = "Via",

    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthenticationInfo = "Proxy-Authentication-Info",
    WwwAuthenticate = "WWW-Authenticate",
    AuthenticationInfo = "Authentication-Info",
    Cookie = "Cookie",
    SetCookie = "Set-Cookie",

    Forwarded = "Forwarded",
    XForwardedFor = "X-Forwarded-For",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedPort = "X-Forwarded-Port",
    XForwardedScheme = "X-Forwarded-Scheme",
    XForwardedPrefix = "X-Forwarded-Prefix",
    XForwardedServer = "X-Forwarded-Server",
    XForwardedUri = "X-Forwarded-Uri",
    XForwardedMethod = "X-Forwarded-Method",
    XForwardedSsl = "X-Forwarded-Ssl",
    XForwardedClientCert = "X-Forwarded-Client-Cert",
    XForwardedOther = "X-Forwarded-*",
    XRealIp = "X-Real-IP",
    XScheme = "X-Scheme",
    XClientIp = "X-Client-IP",
    XClusterClientIp = "X-Cluster-Client-IP",
    TrueClientIp = "True-Client-IP",
    CfConnectingIp = "CF-Connecting-IP",
    FrontEndHttps = "Front-End-Https",
    XUrlScheme = "X-Url-Scheme",
    XOriginalForwardedFor = "X-Original-Forwarded-For",
    XOriginalForwardedHost = "X-Original-Forwarded-Host",
    XOriginalUri = "X-Original-URI",
    XOriginalUrl = "X-Original-URL",
    XOriginalMethod = "X-Original-Method",
    XOriginalHost = "X-Original-Host",
    XOriginalOther = "X-Original-*",
    XRewriteUrl = "X-Rewrite-URL",
    Proxy = "Proxy",
    SslClientCert = "ssl-client-cert",
    SslClientVerify = "ssl-client-verify",
    SslClientSubjectDn = "ssl-client-subject-dn",
    SslClientIssuerDn = "ssl-client-issuer-dn",
    SslClientOther = "ssl-client-*",
    XAccelRedirect = "X-Accel-Redirect",
    XAccelBuffering = "X-Accel-Buffering",
    XAccelLimitRate = "X-Accel-Limit-Rate",
    XAccelExpires = "X-Accel-Expires",
    XAccelCharset = "X-Accel-Charset",
    XAccelOther = "X-Accel-*",

    XRequestId = "X-Request-ID",
    Traceparent = "Traceparent",
    Tracestate = "Tracestate",
    SecWebSocketKey = "Sec-WebSocket-Key",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketVersion = "Sec-WebSocket-Version",
    SecWebSocketProtocol = "Sec-WebSocket-Protocol",
    SecWebSocketExtensions = "Sec-WebSocket-Extensions",

    Server = "Server",
    Date = "Date",
    Location = "Location",
    Refresh = "Refresh",
    StrictTransportSecurity = "Strict-Transport-Security",
    UserAgent = "User-Agent",
    Referer = "Referer",
    Origin = "Origin",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    AcceptRanges = "Accept-Ranges",
    ContentType = "Content-Type",
    ContentEncoding = "Content-Encoding",
    ContentRange = "Content-Range",
    ContentLanguage = "Content-Language",
    ContentLocation = "Content-Location",
    CacheControl = "Cache-Control",
    Pragma = "Pragma",
    Expires = "Expires",
    Age = "Age",
    Etag = "ETag",
    LastModified = "Last-Modified",
    Vary = "Vary",
    Warning = "Warning",
    RetryAfter = "Retry-After",
    Range = "Range",
    IfMatch = "If-Match",
    IfNoneMatch = "If-None-Match",
    IfModifiedSince = "If-Modified-Since",
    IfUnmodifiedSince = "If-Unmodified-Since",
    IfRange = "If-Range",
    AccessControlRequestMethod = "Access-Control-Request-Method",
    AccessControlRequestHeaders = "Access-Control-Request-Headers",
    AccessControlAllowOrigin = "Access-Control-Allow-Origin",
    AccessControlAllowMethods = "Access-Control-Allow-Methods",
    AccessControlAllowHeaders = "Access-Control-Allow-Headers",
    AccessControlAllowCredentials = "Access-Control-Allow-Credentials",
    AccessControlExposeHeaders = "Access-Control-Expose-Headers",
    AccessControlMaxAge = "Access-Control-Max-Age",
}

impl KnownField {
    /// Recognises `name` in any case. Spellings with other token bytes in place of hyphens fold to the same field.
    pub fn classify(name: &[u8]) -> Self {
        let (&[first, ..], &[.., last]) = (name, name) else {
            return Self::Other;
        };
        let mut slot = hash(name.len(), fold(first), fold(name[name.len() / 2]), fold(last));
        loop {
            let index = usize::from(TABLE[slot]);
            if index == 0 {
                break;
            }
            // Most clients spell names the usual way.
            if name == NAMES[index].as_bytes() || is_spelling_of(name, NAMES[index]) {
                return VARIANTS[index];
            }
            slot = (slot + 1) % SLOTS;
        }
        match fold(first) {
            b'x' | b's' => Self::family(name),
            _ => Self::Other,
        }
    }

    /// The field with a name, if it is known by exactly this name (in any case) and not as a member of a family.
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::classify(name.as_bytes());
        known.name().eq_ignore_ascii_case(name).then_some(known).filter(|known| *known != Self::Other)
    }

    /// The usual spelling, or a pattern ending in `*` for the rest of a family; empty for [`KnownField::Other`].
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    fn family(name: &[u8]) -> Self {
        let starts_with = |prefix: &str| name.len() > prefix.len() && is_spelling_of(&name[..prefix.len()], prefix);
        if starts_with("x-forwarded-") {
            Self::XForwardedOther
        } else if starts_with("x-original-") {
            Self::XOriginalOther
        } else if starts_with("x-accel-") {
            Self::XAccelOther
        } else if starts_with("ssl-client-") {
            Self::SslClientOther
        } else {
            Self::Other
        }
    }
}

/// A set of known fields; tests and unions cost one or two instructions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// No field.
    pub const EMPTY: Self = Self(0);

    /// Fields that concern a single connection and are never forwarded (RFC 9110 7.6.1). They include
    /// `Transfer-Encoding`: the writer of a chunked body writes that field itself. They exclude `Expect`: the caller
    /// decides whether the proxy answers it.
    pub const HOP_BY_HOP: Self = Self::of(&[
        KnownField::Connection,
        KnownField::KeepAlive,
        KnownField::ProxyConnection,
        KnownField::Te,
        KnownField::Trailer,
        KnownField::TransferEncoding,
        KnownField::Upgrade,
        KnownField::Http2Settings,
    ]);

    /// Fields by which a proxy in front of us may name the client, the scheme, the host or the original path. Requests
    /// of untrusted peers lose them, by family.
    pub const FORWARDED: Self = Self::of(&[
        KnownField::Forwarded,
        KnownField::XForwardedFor,
        KnownField::XForwardedHost,
        KnownField::XForwardedProto,
        KnownField::XForwardedPort,
        KnownField::XForwardedScheme,
        KnownField::XForwardedPrefix,
        KnownField::XForwardedServer,
        KnownField::XForwardedUri,
        KnownField::XForwardedMethod,
        KnownField::XForwardedSsl,
        KnownField::XForwardedClientCert,
        KnownField::XForwardedOther,
        KnownField::XRealIp,
        KnownField::XScheme,
        KnownField::XClientIp,
        KnownField::XClusterClientIp,
        KnownField::TrueClientIp,
        KnownField::CfConnectingIp,
        KnownField::FrontEndHttps,
        KnownField::XUrlScheme,
        KnownField::XOriginalForwardedFor,
        KnownField::XOriginalForwardedHost,
        KnownField::XOriginalUri,
        KnownField::XOriginalUrl,
        KnownField::XOriginalMethod,
        KnownField::XOriginalHost,
        KnownField::XOriginalOther,
        KnownField::XRewriteUrl,
    ]);

    /// Fields that describe a client certificate.
    pub const SSL_CLIENT: Self = Self::of(&[
        KnownField::SslClientCert,
        KnownField::SslClientVerify,
        KnownField::SslClientSubjectDn,
        KnownField::SslClientIssuerDn,
        KnownField::SslClientOther,
    ]);

    /// Instructions of an nginx backend to its proxy.
    pub const X_ACCEL: Self = Self::of(&[
        KnownField::XAccelRedirect,
        KnownField::XAccelBuffering,
        KnownField::XAccelLimitRate,
        KnownField::XAccelExpires,
        KnownField::XAccelCharset,
        KnownField::XAccelOther,
    ]);

    /// Fields that delimit or route a message or that the codec itself reads. A variant spelling of one of them (with
    /// `_`) is always dropped: it means nothing here but may mean something to a backend.
    pub const STRUCTURAL: Self =
        Self::HOP_BY_HOP.with(KnownField::Host).with(KnownField::ContentLength).with(KnownField::Expect);

    /// Fields that a `Connection` option can't remove: the structure of the message and everything that identifies the
    /// client. Otherwise a client could strip fields that a trusted proxy in front of us wrote (CVE-2022-31813).
    pub const NOT_REMOVABLE: Self = Self(Self::STRUCTURAL.0 | Self::FORWARDED.0 | Self::SSL_CLIENT.0 | Self::X_ACCEL.0);

    /// Fields whose variant spellings classify as the field itself.
    pub const FOLDED: Self = Self(Self::FORWARDED.0 | Self::SSL_CLIENT.0 | Self::X_ACCEL.0)
        .with(KnownField::Proxy)
        .with(KnownField::XRequestId);

    /// A set of `fields`.
    pub const fn of(fields: &[KnownField]) -> Self {
        let mut set = Self::EMPTY;
        let mut index = 0;
        while index < fields.len() {
            set = set.with(fields[index]);
            index += 1;
        }
        set
    }

    /// This set without the members of another.
    #[must_use]
    pub const fn without_all(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// This set with `field` added. [`KnownField::Other`] is never a member.
    #[must_use]
    #[inline]
    pub const fn with(self, field: KnownField) -> Self {
        match field {
            KnownField::Other => self,
            _ => Self(self.0 | 1 << field as u8),
        }
    }

    /// The union of this set and `other`.
    #[must_use]
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `field`.
    #[must_use]
    pub const fn without(self, field: KnownField) -> Self {
        Self(self.0 & !(1 << field as u8))
    }

    /// Whether `field` is a member.
    #[inline]
    pub const fn contains(self, field: KnownField) -> bool {
        self.0 & (1 << field as u8) != 0
    }

    /// Whether the sets have a member in common.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for KnownSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitAnd for KnownSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Sub for KnownSet {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Four times the number of names, so that a miss nearly always ends at its first slot.
// No limit: the size of a table that is made at compile time.
const SLOTS: usize = 512;

/// Open addressing over [`NAMES`]; 0 is a free slot.
static TABLE: [u8; SLOTS] = {
    assert!(NAMES.len() <= 128, "KnownSet has 128 bits");
    let mut table = [0; SLOTS];
    let mut index = 1;
    while index < NAMES.len() {
        let name = NAMES[index].as_bytes();
        let mut slot = hash(name.len(), fold(name[0]), fold(name[name.len() / 2]), fold(name[name.len() - 1]));
        while table[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = index as u8;
        index += 1;
    }
    table
};

const fn hash(len: usize, first: u8, middle: u8, last: u8) -> usize {
    (len * 37 + first as usize * 5 + middle as usize * 113 + last as usize * 59) % SLOTS
}

fn is_spelling_of(name: &[u8], known: &str) -> bool {
    let known = known.as_bytes();
    name.len() == known.len() && name.iter().zip(known).all(|(&a, &b)| a == b || (fold(a) == fold(b) && b != b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_classifies_as_itself() {
        for (&name, &field) in NAMES.iter().zip(VARIANTS).skip(1) {
            if let Some(family) = name.strip_suffix('*') {
                assert_eq!(KnownField::classify(format!("{family}zzz").as_bytes()), field);
                continue;
            }
            assert_eq!(KnownField::classify(name.as_bytes()), field);
            assert_eq!(KnownField::classify(name.to_ascii_lowercase().as_bytes()), field);
            assert_eq!(KnownField::classify(name.to_ascii_uppercase().replace('-', "_").as_bytes()), field);
            assert_eq!(field.name(), name);
        }
    }

    #[test]
    fn unknown_names_are_other() {
        for name in ["", "a", "x-custom", "x-forwarded-", "hosts", "hos", "set-cookie2", "x-forwardedfor"] {
            assert_eq!(KnownField::classify(name.as_bytes()), KnownField::Other, "{name}");
        }
    }

    #[test]
    fn probe_sequences_are_short() {
        let mut longest = 0;
        let mut run = 0;
        for slot in TABLE {
            run = if slot == 0 { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        assert!(longest <= 6, "a run of {longest} occupied slots");
    }

    #[test]
    fn other_is_in_no_set() {
        assert!(!KnownSet::EMPTY.with(KnownField::Other).contains(KnownField::Other));
        assert!(KnownSet::HOP_BY_HOP.contains(KnownField::Te));
        assert!(!KnownSet::HOP_BY_HOP.without(KnownField::Te).contains(KnownField::Te));
    }
}
