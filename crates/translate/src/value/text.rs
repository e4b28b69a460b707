//! Text of a limited alphabet. The alphabets are those of ingress-nginx's validators, so that values which they accept are accepted
//! here.

use std::fmt;

use fairway_model::AccessLog;

use super::{Value, is_multi_line};

/// ingress-nginx's `BasicCharsRegex`.
fn is_basic(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte)
}

/// Its `RegexPathWithCapture`.
fn is_path(byte: u8) -> bool {
    is_basic(byte) || byte == b'$'
}

/// Its `URLIsValidRegex`.
fn is_url(byte: u8) -> bool {
    is_basic(byte) || b",?&=".contains(&byte)
}

/// Its `NGINXVariable`.
fn is_variable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_${}".contains(&byte)
}

/// Its `IsValidRegex`.
pub(super) fn is_pattern(byte: u8) -> bool {
    is_basic(byte) || b"^$[](){}*+?|&=\\".contains(&byte)
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Maximum length of a text. The longest in practice has some 200 bytes; ingress-nginx itself has no limit.
pub(super) const TEXT_LIMIT: usize = 4096;

/// The text, if it is not empty, not too long, and only has allowed bytes.
pub(super) fn all(text: &str, allowed: fn(u8) -> bool) -> Option<String> {
    (!text.is_empty() && text.len() <= TEXT_LIMIT && text.bytes().all(allowed)).then(|| text.to_owned())
}

/// Declares values that are a checked text.
macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $name:ident($syntax:literal): |$text:ident| $parse:expr;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Value for $name {
            const SYNTAX: &'static str = $syntax;

            fn parse($text: &str) -> Option<Self> {
                $parse.map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }
    )+};
}

pub(super) use texts;

texts! {
    /// The path to which `app-root` redirects requests for `/`: an absolute path.
    AppRoot("an absolute path of letters, digits and `- . _ ~ : / $`"):
        |text| all(text, is_path).filter(|path| path.starts_with('/'));

    /// The value of X-Forwarded-Prefix; `$1` to `$9` are captures of the rule path.
    ForwardedPrefix("a path of letters, digits and `- . _ ~ : / $`, at most 4096 bytes"): |text| all(text, is_path);

    /// The Location of a redirect.
    RedirectUrl("a URL or path of letters, digits and `- . _ ~ : / , ? & =`"): |text| all(text, is_url);

    /// The input of `upstream-hash-by`: text with nginx variables.
    HashKey("nginx variables and text of letters, digits and `- _ $ { }`, such as `$request_uri`, at most 4096 bytes"):
        |text| all(text.trim_matches(' '), is_variable);

    /// The Host field for endpoints. May contain nginx variables.
    Vhost("a host name, which may hold nginx variables, at most 4096 bytes"): |text| all(text.trim(), is_pattern);

    /// The name of a cookie.
    CookieName("letters, digits and `- . _ ~ / :`"): |text| all(text.trim_matches(' '), is_basic);

    /// The Domain attribute of a cookie.
    CookieDomain("letters, digits and `- . _ ~ / :`"): |text| all(text.trim_matches(' '), is_basic);

    /// The Path attribute of a cookie.
    CookiePath("a path of letters, digits and `- . _ ~ : / , ? & =`"): |text| all(text.trim_matches(' '), is_url);

    /// The name of a Service in the namespace of the object that names it (a DNS-1035 label).
    ServiceName("the name of a Service in the same namespace"): |text| {
        let ends = text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.ends_with('-') && text.len() <= 63;
        all(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-').filter(|_| ends)
    };

    /// A Secret that an annotation names: `namespace/name`. Any text of its alphabet is accepted; whether it is a reference is
    /// checked later, because that decides between an Ingress that isn't loaded and paths that answer 503.
    SecretName("a Secret, `namespace/name`"): |text| all(text.trim(), is_basic);

    /// Where a client without a valid certificate is sent: an http or https URL, or a path.
    CertificatePage("an http or https URL, or a path without a query, of letters, digits and `- . _ ~ : / , ? & =`"): |text| {
        let is_web = text.starts_with("http://") || text.starts_with("https://");
        all(text, is_url).filter(|text| is_web || (text.starts_with('/') && !text.contains('?')))
    };

    /// The subjects of client certificates to admit.
    CommonName("`CN=` and a regex that runs in linear time and is not too large"): |text| {
        let fits = text.len() <= TEXT_LIMIT && text.starts_with("CN=");
        (fits && text.parse::<fairway_model::SearchRegex>().is_ok()).then(|| text.to_owned())
    };

    /// The name that a backend's certificate must have.
    ServerName("a host name or an address"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));

    /// The name or address of a host to send something to; an IPv6 address may be in brackets.
    HostOrAddress("a host name or an address"): |text| {
        let text = text.trim();
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        all(bare, |byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
    };

    /// The host that receives spans, with TLS or without.
    CollectorHost("a host name or an address, after `https://` or `grpcs://` for TLS"): |text| {
        let text = text.trim();
        let schemes = ["https://", "grpcs://", "http://", "grpc://"];
        let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        HostOrAddress::parse(host).map(|_| text.to_owned())
    };

    /// The name of a span.
    OperationName("letters, digits, `_` and `-`"):
        |text| all(text.trim(), |byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));

    /// The name of spans, or of the service that they belong to.
    SpanName("one line of at most 256 bytes"): |text| {
        let text = text.trim();
        (!text.is_empty() && text.len() <= 256 && !text.contains(char::is_control)).then(|| text.to_owned())
    };

    /// The name of a header, as written.
    HeaderName("the name of a header"): |text| all(text.trim(), is_token);

    /// The value of a header that selects a canary.
    CanaryHeader("letters, digits and `- . _ ~ / :`"): |text| all(text.trim_matches(' '), is_basic);

    /// The values of a header that select a canary.
    CanaryPattern("a regex that runs in linear time and is not too large"): |text| {
        all(text, is_pattern).filter(|text| text.parse::<fairway_model::SearchRegex>().is_ok())
    };

    /// Any text.
    Text("text"): |text| Some(text.to_owned());
}

/// The replacement for the path in requests to the backend.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RewriteTarget {
    /// A path, in which `$1` to `$9` are captures of the rule path.
    Path(String),
    /// Text that begins with `http://`, `https://` or `$scheme`: nginx redirects there with 302 and doesn't proxy.
    Url(String),
}

impl RewriteTarget {
    /// The text as written.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Path(text) | Self::Url(text) => text,
        }
    }
}

impl Value for RewriteTarget {
    const SYNTAX: &'static str = "a path of letters, digits and `- . _ ~ : / $`, where `$1` to `$9` are captures of the rule path; at most \
         4096 bytes";

    fn parse(text: &str) -> Option<Self> {
        let is_url = ["http://", "https://", "$scheme"].iter().any(|start| text.starts_with(start));
        all(text, is_path).map(if is_url { Self::Url } else { Self::Path })
    }
}

/// A reference to an object: `namespace/name`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Value for ObjectRef {
    const SYNTAX: &'static str = "`namespace/name`";

    fn parse(text: &str) -> Option<Self> {
        let is_name = |text: &str| {
            let inner =
                text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
            !text.is_empty()
                && text.len() <= 253
                && inner
                && !text.starts_with(['-', '.'])
                && !text.ends_with(['-', '.'])
        };
        let (namespace, name) = text.trim().split_once('/')?;
        (is_name(namespace) && is_name(name)).then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The template of an access log line: nginx variables and text, on one line. The default is ingress-nginx's `upstreaminfo`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct LogFormat(String);

impl LogFormat {
    /// The template.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFormat {
    fn default() -> Self {
        Self(AccessLog::UPSTREAMINFO.to_owned())
    }
}

impl Value for LogFormat {
    const SYNTAX: &'static str = "one line of text and nginx variables, at most 16384 bytes";

    fn parse(text: &str) -> Option<Self> {
        // A block in YAML ends in a line feed that isn't part of the line.
        let text = text.trim_end_matches(['\r', '\n']);
        (!text.is_empty() && text.len() <= 16_384 && !is_multi_line(text)).then(|| Self(text.to_owned()))
    }
}
