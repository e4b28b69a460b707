//! TLS on connections of clients: the settings for all hosts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{PrivateKey, TlsVersions};

/// TLS on connections of clients.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// Allowed versions (`ssl-protocols`).
    pub versions: TlsVersions,
    /// Cipher suites of TLS 1.2, most preferred first; none for all of them: AES-128, AES-256, ChaCha20, or
    /// ChaCha20 first for clients that prefer it (`ssl-ciphers`).
    pub ciphers: Vec<TlsCipher>,
    /// Groups for the key exchange, most preferred first; none for all of them (`ssl-ecdh-curve`).
    pub groups: Vec<KeyGroup>,
    /// How long sessions are remembered; `None` for not at all (`ssl-session-cache`, `ssl-session-timeout`).
    #[serde(default = "TlsSettings::usually", skip_serializing_if = "TlsSettings::is_usual")]
    pub remembered: Option<Duration>,
    /// Whether sessions are kept by the clients themselves, in encrypted tickets (`ssl-session-tickets`).
    pub tickets: bool,
    /// The key of the tickets, for all replicas alike (`ssl-session-ticket-key`); `None` for one that the proxy makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket_key: Option<TicketKey>,
    /// Whether a handshake without the name of a known host is refused (`ssl-reject-handshake`).
    pub reject_unknown_names: bool,
    /// Whether OCSP responses are fetched and stapled (`enable-ocsp`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staple: bool,
}

impl TlsSettings {
    /// Ten minutes, as in nginx.
    #[expect(clippy::unnecessary_wraps, reason = "the value of a field")]
    const fn usually() -> Option<Duration> {
        Some(Duration::from_secs(600))
    }

    fn is_usual(remembered: &Option<Duration>) -> bool {
        *remembered == Self::usually()
    }
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            versions: TlsVersions::default(),
            ciphers: Vec::new(),
            groups: Vec::new(),
            remembered: Self::usually(),
            tickets: false,
            ticket_key: None,
            reject_unknown_names: false,
            staple: false,
        }
    }
}

/// One host's replacement for the global cipher suites (`ssl-ciphers`, `ssl-prefer-server-ciphers` of an Ingress).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HostCiphers {
    /// Cipher suites of TLS 1.2, most preferred first; none for those of [`TlsSettings`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ciphers: Vec<TlsCipher>,
    /// Whether the client's order of preference decides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_order: bool,
}

/// A secret that the key of session tickets is derived from: 48 or 80 random bytes, of which the first 16 name the key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TicketKey(PrivateKey);

impl TicketKey {
    /// Length of the name.
    const NAME: usize = 16;

    /// Wraps key bytes. `None` if there are not 48 or 80 of them.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        matches!(bytes.len(), 48 | 80).then(|| Self(PrivateKey::new(bytes)))
    }

    /// The name, which tickets carry in the clear, and the secret.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        self.0.der().split_at(self.0.der().len().min(Self::NAME))
    }
}

macro_rules! named {
    ($(#[doc = $about:literal] $vis:vis enum $kind:ident { $($variant:ident = $($name:literal)|+,)+ })+) => {$(
        #[doc = $about]
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
        $vis enum $kind { $(#[doc = concat!($("`", $name, "` ",)+)] $variant,)+ }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one with this name in OpenSSL.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($($name)|+ => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    )+};
}

named! {
    /// A cipher suite of TLS 1.2.
    pub enum TlsCipher {
        EcdsaAes128 = "ECDHE-ECDSA-AES128-GCM-SHA256",
        EcdsaAes256 = "ECDHE-ECDSA-AES256-GCM-SHA384",
        EcdsaChaCha20 = "ECDHE-ECDSA-CHACHA20-POLY1305",
        RsaAes128 = "ECDHE-RSA-AES128-GCM-SHA256",
        RsaAes256 = "ECDHE-RSA-AES256-GCM-SHA384",
        RsaChaCha20 = "ECDHE-RSA-CHACHA20-POLY1305",
    }

    /// A group for the key exchange.
    pub enum KeyGroup {
        X25519MlKem768 = "X25519MLKEM768",
        X25519 = "X25519" | "x25519",
        P256 = "prime256v1" | "secp256r1" | "P-256",
        P384 = "secp384r1" | "P-384",
    }
}
