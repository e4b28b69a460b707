//! Certificates with their keys. Keys never appear in a dump, a log line or a golden file.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::{self, REDACTED};
use crate::{CertificateName, Origin};

/// Chain and key from one Secret. Construction has checked that they belong together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its name.
    pub name: CertificateName,
    /// The Secret.
    pub origin: Origin,
    /// SHA-256 of the first certificate in hexadecimal; tells versions apart without revealing them.
    pub fingerprint: Box<str>,
    /// End of validity in seconds since 1970.
    pub not_after: i64,
    /// The chain in DER, the server's own certificate first.
    #[serde(default, skip_serializing_if = "secret::are_left_out", with = "secret::chain")]
    pub chain: Vec<Arc<[u8]>>,
    /// The private key.
    pub key: PrivateKey,
}

/// A private key in PKCS#8 DER.
#[derive(Clone, Eq, PartialEq, Default)]
pub struct PrivateKey(Arc<[u8]>);

impl PrivateKey {
    /// Wraps key bytes.
    pub fn new(der: impl Into<Arc<[u8]>>) -> Self {
        Self(der.into())
    }

    /// The bytes, for the TLS library only.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if secret::are_written() {
            return secret::write_bytes(&self.0, serializer);
        }
        serializer.serialize_str(REDACTED)
    }
}

/// A dump holds no key, so reading one yields an empty key; such a certificate is never served.
impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if secret::are_written() {
            return secret::read_bytes(deserializer).map(Self);
        }
        String::deserialize(deserializer).map(|_| Self::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_printed() {
        let key = PrivateKey::new(*b"secret bytes");
        assert_eq!(format!("{key:?}"), REDACTED);
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"[redacted]\"");
        let sent = secret::with_secrets(|| serde_json::to_string(&key).unwrap());
        assert_eq!(secret::with_secrets(|| serde_json::from_str::<PrivateKey>(&sent).unwrap()), key);
    }
}
