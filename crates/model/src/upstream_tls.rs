//! TLS to endpoints. All that makes two connections to the same address different is in these values, so that connections are only
//! shared between routes that want the same one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::CertificateName;

/// How endpoints are spoken to over TLS. The default is ingress-nginx's: no name is sent and no certificate is verified.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// The name that a verified certificate must have, and the one that [`sni`](Self::sni) sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// Whether the endpoint is told the name (SNI).
    pub sni: bool,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// Shown to endpoints that ask for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateName>,
    /// Versions that may be spoken.
    pub versions: TlsVersions,
}

/// Whose certificates are accepted from endpoints.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum Trust {
    /// Everybody's: the connection is encrypted, and it is not known with whom.
    #[default]
    Anyone,
    /// Certificates that one of these authorities has signed, and that have the right name.
    Authorities(Arc<[Authority]>),
}

/// The certificate of an authority in DER.
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
