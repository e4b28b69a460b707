use super::*;
use crate::objects::Kind;
use k8s_openapi::ByteString;

fn key() -> ObjectKey {
    ObjectKey::new(Kind::Secret, "shop", "tls")
}

fn secret(chain: &str, private: &str) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [("tls.crt".to_owned(), bytes(chain)), ("tls.key".to_owned(), bytes(private))].into();
    Secret { data: Some(data), ..Secret::default() }
}

fn self_signed(names: &[&str], pair: &rcgen::KeyPair) -> String {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    rcgen::CertificateParams::new(names).unwrap().self_signed(pair).unwrap().pem()
}

/// The OCTET STRING of a PKCS#8 key: the key in the form of its algorithm.
fn inner(pkcs8: &[u8]) -> &[u8] {
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, header) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        (&der[header..header + length], &der[header + length..])
    }
    let (body, _) = value(pkcs8);
    let (_, rest) = value(body);
    let (_, rest) = value(rest);
    value(rest).0
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
        if text.len() % 65 == 64 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn all_three_forms_of_keys_are_read() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let chain = self_signed(&["a.example"], &pair);
        let pkcs8 = pair.serialize_der();
        let one = read(&key(), &secret(&chain, &pair.serialize_pem())).unwrap();
        let other = read(&key(), &secret(&chain, &pem("EC PRIVATE KEY", inner(&pkcs8)))).unwrap();
        assert_eq!(one.certificate.fingerprint, other.certificate.fingerprint);
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let chain = self_signed(&["a.example"], &pair);
    let pkcs8 = pair.serialize_der();
    let one = read(&key(), &secret(&chain, &pair.serialize_pem())).unwrap();
    let other = read(&key(), &secret(&chain, &pem("RSA PRIVATE KEY", inner(&pkcs8)))).unwrap();
    assert_eq!(one.certificate.key, other.certificate.key, "wrapped, a PKCS#1 key is the PKCS#8 one");
}

#[test]
fn names_are_covered_exactly_or_by_a_wildcard_of_one_label() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let read =
        read(&key(), &secret(&self_signed(&["A.example", "*.w.example"], &pair), &pair.serialize_pem())).unwrap();
    let covers = |text: &str| read.covers(&HostPattern::parse(text).unwrap());
    for name in ["a.example", "x.w.example", "*.w.example", "**.w.example"] {
        assert!(covers(name), "{name}");
    }
    for name in ["b.example", "w.example", "y.x.w.example", "*.example", "a.*", "*", "~a.example"] {
        assert!(!covers(name), "{name}");
    }
    assert_eq!(read.certificate.fingerprint.len(), 64);
}

#[test]
fn what_cannot_be_used_says_why() {
    let (pair, other) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let chain = self_signed(&["a.example"], &pair);
    let private = pair.serialize_pem();
    for (chain, private, why) in [
        ("", &*private, "expected the keys"),
        (&chain, "", "expected the keys"),
        ("nonsense", &private, "no certificate"),
        (&chain, "nonsense", "no private key"),
        (&private, &private, "no certificate"),
        (&chain, &chain, "no private key"),
        (&chain, &other.serialize_pem(), "does not belong"),
        (&pem("CERTIFICATE", b"nonsense"), &private, "malformed"),
        (&chain, &pem("EC PRIVATE KEY", b"\x30\x03\x02\x01\x01"), "unknown kind"),
        (&chain, &pem("RSA PRIVATE KEY", b"nonsense"), "can't be used"),
        (&chain.repeat(20), &private, "more than 16"),
    ] {
        let found = read(&key(), &secret(chain, private)).unwrap_err();
        assert!(found.contains(why), "{found:?} should say {why:?}");
    }
    assert!(read(&key(), &Secret::default()).is_err());
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let pair = &*PAIR;
        let _ = read(&key(), &secret(&pem("CERTIFICATE", &bytes), &pair.0));
        let _ = read(&key(), &secret(&pair.1, &pem("EC PRIVATE KEY", &bytes)));
        let _ = read(&key(), &secret(&pair.1, &String::from_utf8_lossy(&bytes)));
    }
}

static PAIR: std::sync::LazyLock<(String, String)> = std::sync::LazyLock::new(|| {
    let pair = rcgen::KeyPair::generate().unwrap();
    (pair.serialize_pem(), self_signed(&["a.example"], &pair))
});

/// `openssl x509 -req -signkey` without extensions, valid for a hundred years.
const VERSION_1: &str = include_str!("../../../../testkit/version-1.crt");
const KEY_OF_VERSION_1: &str = include_str!("../../../../testkit/version-1.key");

#[test]
fn a_certificate_of_version_1_is_used_with_its_common_name() {
    let found = read(&key(), &secret(VERSION_1, KEY_OF_VERSION_1)).unwrap();
    assert!(found.is_version_1 && !found.has_alternative_names);
    assert!(found.covers(&HostPattern::parse("old.example").unwrap()));
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(read(&key(), &secret(VERSION_1, &other)).unwrap_err(), "the certificate does not belong to the key");
}

/// A certificate and its key of 1024 bits, which was made for this test.
const WEAK: [&str; 2] = [
    "-----BEGIN CERTIFICATE-----\n\
MIICHDCCAYWgAwIBAgIUXRlTC5Wcq1lvmsnEeNCZLYv3BFAwDQYJKoZIhvcNAQEL\n\
BQAwFDESMBAGA1UEAwwJYS5leGFtcGxlMCAXDTI2MTEzMDE4MDQ0NloYDzIxMjYx\n\
MTA2MTgwNDQ2WjAUMRIwEAYDVQQDDAlhLmV4YW1wbGUwgZ8wDQYJKoZIhvcNAQEB\n\
BQADgY0AMIGJAoGBAO4/jaUiYUkdgQBLa2/5qy6afjqOBk9QRzH7A47AB3c2IwRZ\n\
7SIm2XJ4UeT+Xo9u6tT7qc4UxrIpQvXJUYQm62F1F7zbvLfhIkXiaqfeYfVOPslj\n\
S+wQKLSYaHeG8l61mFulof7g1bXCe9AuzXRAlZnjGxSNGtEKU6S6c7I+hGkrAgMB\n\
AAGjaTBnMB0GA1UdDgQWBBR9y1SoY+l70yg+MID0oe4DxFLMpjAfBgNVHSMEGDAW\n\
gBR9y1SoY+l70yg+MID0oe4DxFLMpjAPBgNVHRMBAf8EBTADAQH/MBQGA1UdEQQN\n\
MAuCCWEuZXhhbXBsZTANBgkqhkiG9w0BAQsFAAOBgQBFCjiMlXxQ4Cmkh/xQHYTq\n\
qm1PRVvKSgcNNRAXS8gyJCAgXdprClb0ozMsEiLHhC8DxuWCxIMy/VM053p8EiLq\n\
H/ReTCTl+YpscBEz7xUAicbsjQrku0VAkQ29G83DceA9CIu0iG5127Wcr23ASLFi\n\
zKfnIyCb9gCikWb9Y1vzTA==\n\
-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE KEY-----\n\
MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBAO4/jaUiYUkdgQBL\n\
a2/5qy6afjqOBk9QRzH7A47AB3c2IwRZ7SIm2XJ4UeT+Xo9u6tT7qc4UxrIpQvXJ\n\
UYQm62F1F7zbvLfhIkXiaqfeYfVOPsljS+wQKLSYaHeG8l61mFulof7g1bXCe9Au\n\
zXRAlZnjGxSNGtEKU6S6c7I+hGkrAgMBAAECgYBd++onk3lnO2FROW9He+kgeEeF\n\
V9N7ZELBn7DWlkAbsdp8c/EMwOCUvIwp1oJ8+Jdgr2pb5mw/ifFlPiaPCD9frsx+\n\
9aS338O8iFhw5jsEHc710khcjm7Dq2s5FGnwJmQuGN8O+YMZPDkn9wzTVa6wmv2g\n\
U7wD9BQnbICMG/vLWQJBAPuhawapYKUa69jjtC3vvEM2eEG8IA3feccdS9kOnsvZ\n\
l/EnolWibop59tUpgIMpbNTztOGSzWawhKDug2ZJ10UCQQDyYqWBB4W66yhJvidm\n\
xm1bmv22jCeOZezWHfZhMAAdgqJD1Gc2bWgAZyBRFknN5kQ6vafDkf+oWXz0mG/E\n\
iM2vAkEA59V/wwJ47YVROGIKlqwjGxXrVD0cl0uHamFeiVxEB/KxX9kxYo6mI+Vc\n\
+mYjZjTbdZQX2iCkJ/GIMLGv1KVBtQJAVYfFyzAyWnEcuFjnYnbmpAqfOMlgM/l3\n\
h17vUAA2KjOsuq669RPKPUomtzZcONHmhavjBToBsxBQ7abU2c9EdQJALGeAmAhF\n\
PHbq12NjCvhIbYW56gTafulcI73qzOu8IrHCiqc4xY4wWDKx1/oN+Re4LPgrLVug\n\
70Uk8TN/7RFR/g==\n\
-----END PRIVATE KEY-----",
];

#[test]
fn a_weak_key_is_refused_with_its_size() {
    let [chain, private] = WEAK;
    let why = read(&key(), &secret(chain, private)).err();
    assert_eq!(why.as_deref(), Some("tls.key holds an RSA key of 1024 bits: expected 2048 to 8192"));
}
