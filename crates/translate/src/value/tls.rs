//! Values for TLS: lists of OpenSSL names of cipher suites and groups, and the key of session tickets.

use fairway_model::{KeyGroup, TicketKey, TlsCipher};
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{self, StrDeserializer};

use super::Value;

/// Cipher suites of TLS 1.2; an empty list means all of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsCiphers {
    /// Most preferred first.
    pub ciphers: Vec<TlsCipher>,
    left_out: Vec<String>,
}

impl Value for TlsCiphers {
    const SYNTAX: &'static str =
        "OpenSSL names of suites with ECDHE and AES-GCM or ChaCha20, separated by colons (no others are spoken)";

    fn parse(text: &str) -> Option<Self> {
        // Exclusions change nothing: only suites that the list names are spoken.
        let (ciphers, left_out) = list(text, |name| name.starts_with(['!', '-', '@']), TlsCipher::named);
        let nothing = ciphers.is_empty() && !text.trim().is_empty();
        (!nothing).then_some(Self { ciphers, left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// Cipher suites of TLS 1.2, of which only those that Fairway speaks count; an empty list means all of them.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct AnyCiphers {
    /// Most preferred first.
    pub ciphers: Vec<TlsCipher>,
    whole: bool,
}

impl AnyCiphers {
    /// Whether no name was left out.
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

impl Value for AnyCiphers {
    const SYNTAX: &'static str = TlsCiphers::SYNTAX;

    fn parse(text: &str) -> Option<Self> {
        // These names stand for lists of the library.
        if matches!(text.trim(), "DEFAULT" | "ALL" | "HIGH") {
            return Some(Self { ciphers: Vec::new(), whole: true });
        }
        let TlsCiphers { ciphers, left_out } = TlsCiphers::parse(text)?;
        // Within a list, `HIGH` and its kin stand for all suites that Fairway speaks.
        let all = left_out.iter().any(|name| matches!(&**name, "DEFAULT" | "ALL" | "HIGH" | "EECDH" | "ECDHE"));
        Some(Self { ciphers: if all { Vec::new() } else { ciphers }, whole: left_out.is_empty() })
    }
}

/// Groups for the key exchange; an empty list means all of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsGroups {
    /// Most preferred first.
    pub groups: Vec<KeyGroup>,
    left_out: Vec<String>,
}

impl Value for TlsGroups {
    const SYNTAX: &'static str =
        "`auto`, or `X25519MLKEM768` `X25519` `prime256v1` `secp384r1` separated by colons (no others are spoken)";

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "auto" {
            return Some(Self::default());
        }
        let (groups, left_out) = list(text, |_| false, KeyGroup::named);
        (!groups.is_empty()).then_some(Self { groups, left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// The key of session tickets; `None` for one that the proxy generates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SessionTicketKey(pub Option<TicketKey>);

impl Value for SessionTicketKey {
    const SYNTAX: &'static str = "48 or 80 random bytes in base64 (`openssl rand 80 | base64 -w 0`)";

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let text: StrDeserializer<'_, value::Error> = text.trim().into_deserializer();
        let bytes = ByteString::deserialize(text).ok()?;
        TicketKey::new(&bytes.0).map(|key| Self(Some(key)))
    }
}

/// The known names, each once, and the unknown ones.
fn list<T: PartialEq>(
    text: &str,
    skipped: impl Fn(&str) -> bool,
    named: impl Fn(&str) -> Option<T>,
) -> (Vec<T>, Vec<String>) {
    let (mut known, mut left_out) = (Vec::new(), Vec::new());
    let names = text.split([':', ',', ' ']).map(str::trim).filter(|name| !name.is_empty() && !skipped(name));
    for name in names {
        match named(name) {
            Some(one) if known.contains(&one) => {}
            Some(one) => known.push(one),
            None => left_out.push(name.to_owned()),
        }
    }
    (known, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_key_has_48_or_80_bytes_and_is_never_printed() {
        let key = SessionTicketKey::parse(&"QUJD".repeat(16)).unwrap();
        assert_eq!(key.0.as_ref().unwrap().parts(), (&b"ABC".repeat(6)[..16], &b"ABC".repeat(16)[16..]));
        assert!(!format!("{key:?}").contains("65"), "{key:?}");
        assert!(SessionTicketKey::parse(&format!("{}QUI=\n", "QUJD".repeat(26))).unwrap().0.is_some());
        assert_eq!(SessionTicketKey::parse(""), Some(SessionTicketKey::default()));
        for bad in ["QUJD", "x", &"QUJD".repeat(17), &"A*JD".repeat(16)] {
            assert_eq!(SessionTicketKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_spoken_is_left_out_and_told() {
        let old = "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:!aNULL";
        let ciphers = TlsCiphers::parse(old).unwrap();
        assert_eq!(ciphers.ciphers, [TlsCipher::RsaAes128]);
        assert_eq!(ciphers.left_out(), ["DHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(TlsCiphers::parse(""), Some(TlsCiphers::default()));
        assert_eq!(TlsCiphers::parse("AES128-SHA"), None, "nothing would be left");
        let groups = TlsGroups::parse("X25519:prime256v1:secp521r1").unwrap();
        assert_eq!(groups.groups, [KeyGroup::X25519, KeyGroup::P256]);
        assert_eq!(groups.left_out(), ["secp521r1"]);
        assert_eq!(TlsGroups::parse("auto"), Some(TlsGroups::default()));
        assert_eq!(TlsGroups::parse("secp521r1"), None);
    }
}
