//! Lists of OpenSSL names for TLS: cipher suites and groups.

use fairway_model::{KeyGroup, TlsCipher};

use super::Value;

/// Cipher suites of TLS 1.2; none for all of them.
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
        // What is excluded is not spoken anyway.
        let (ciphers, left_out) = list(text, |name| name.starts_with(['!', '-', '@']), TlsCipher::named);
        let nothing = ciphers.is_empty() && !text.trim().is_empty();
        (!nothing).then_some(Self { ciphers, left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// Groups for the key exchange; none for all of them.
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

/// The names that are known, each once, and those that are not.
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
