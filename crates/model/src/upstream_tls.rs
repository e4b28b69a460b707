//! TLS to endpoints. These values contain everything that distinguishes two connections to the same address, so that
//! routes share a connection only if they need the same kind.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{CertificateName, TlsCipher};

/// How to speak TLS to endpoints. The default is that of ingress-nginx: no server name and no verification.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// The name that a verified certificate must have and that [`sni`](Self::sni) sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// Whether to send the name to the endpoint (SNI).
    pub sni: bool,
    /// Which certificates to accept.
    pub trust: Trust,
    /// Names, one of which a verified certificate must have in place of [`name`](Self::name); if empty, that one is required.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternative_names: Vec<AlternativeName>,
    /// Client certificate for endpoints that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateName>,
    /// Allowed versions.
    pub versions: TlsVersions,
    /// Cipher suites of TLS 1.2, most preferred first; none for all of them (`proxy-ssl-ciphers`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<TlsCipher>,
}

/// Which certificates of endpoints to accept.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// Any certificate: the connection is encrypted, but the peer is not authenticated.
    #[default]
    Anyone,
    /// Certificates signed by one of these authorities that have the right name.
    Authorities(Arc<[Authority]>),
    /// Certificates with the right name that are signed by an authority the machine trusts. If the machine has no list of authorities, the
    /// proxy's own applies.
    System,
}

/// A subject alternative name of a certificate.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum AlternativeName {
    /// A DNS name, which a wildcard of the certificate may cover.
    Dns(Box<str>),
    /// A URI, byte for byte.
    Uri(Box<str>),
}

/// The certificate of an authority, in DER.
#[derive(Clone, Eq, PartialEq, Hash)]
pub struct Authority(Arc<[u8]>);

impl Authority {
    /// Wraps the DER bytes.
    pub fn new(der: impl Into<Arc<[u8]>>) -> Self {
        Self(der.into())
    }

    /// The DER bytes.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({} bytes)", self.0.len())
    }
}

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Authority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::new)
    }
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}
