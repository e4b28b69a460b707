//! Private keys in one form. OpenSSL writes three: PKCS#8 (RFC 5958), PKCS#1 for RSA (RFC 8017), SEC 1 for elliptic curves (RFC 5915). Keys
//! in the last two are wrapped into the first, which can hold all of their information.

use rustls_pki_types::PrivateKeyDer;

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const VERSION_ZERO: &[u8] = &[0x02, 0x01, 0x00];
/// rsaEncryption, with NULL as its parameters.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// ecPublicKey; the curve follows.
const ELLIPTIC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// The curves that TLS uses, by the length of their private keys in bytes.
const CURVES: [(u8, &[u8]); 3] = [
    (32, &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
    (48, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]),
    (66, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23]),
];

/// The key as PKCS#8; `None` for a curve that TLS doesn't use.
pub(super) fn pkcs8(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    match key {
        PrivateKeyDer::Pkcs8(key) => Some(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Pkcs1(key) => Some(wrap(RSA, key.secret_pkcs1_der())),
        PrivateKeyDer::Sec1(key) => {
            let der = key.secret_sec1_der();
            let curve = curve(der)?;
            Some(wrap(&[ELLIPTIC, curve].concat(), der))
        }
        _ => None,
    }
}

fn wrap(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let body = [VERSION_ZERO, &tagged(SEQUENCE, algorithm), &tagged(OCTET_STRING, key)].concat();
    tagged(SEQUENCE, &body)
}

/// `ECPrivateKey ::= SEQUENCE { version INTEGER (1), privateKey OCTET STRING, ... }`
fn curve(sec1: &[u8]) -> Option<&'static [u8]> {
    let header = match sec1 {
        [SEQUENCE, 0x81, _, rest @ ..] => rest,
        [SEQUENCE, 0x82, _, _, rest @ ..] => rest,
        [SEQUENCE, 0..=0x7f, rest @ ..] => rest,
        _ => return None,
    };
    let [0x02, 0x01, 0x01, OCTET_STRING, length, ..] = header else { return None };
    CURVES.iter().find(|(size, _)| size == length).map(|(_, curve)| *curve)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let bytes = content.len().to_be_bytes();
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        _ => {
            let significant: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | significant.len() as u8);
            out.extend(significant);
        }
    }
    out.extend_from_slice(content);
    out
}
