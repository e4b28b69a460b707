//! Proof that an endpoint speaks WebSocket (RFC 6455 4.2.2).

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` value for a key: base64 of the SHA-1 of the key and a constant.
pub(crate) fn accept(key: &[u8]) -> [u8; 28] {
    let mut input = [0; 64];
    let len = key.len().min(input.len() - GUID.len());
    input[..len].copy_from_slice(&key[..len]);
    input[len..len + GUID.len()].copy_from_slice(GUID);
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &input[..len + GUID.len()]);
    base64(hash.as_ref())
}

/// A `Sec-WebSocket-Key` of random bits: base64 of 16 bytes. It only proves that the endpoint has read it, so any random bits do.
pub(crate) fn key(bits: [u64; 2]) -> [u8; 24] {
    base64(bits.map(u64::to_ne_bytes).as_flattened())
}

/// Sixteen bytes make 22 digits and two `=`, twenty make 27 and one.
fn base64<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; LENGTH];
    for (group, out) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for (at, digit) in out.iter_mut().enumerate().take(group.len() + 1) {
            *digit = DIGITS[(bits >> (18 - 6 * at)) as usize & 63];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert_eq!(&key([0, 0]), b"AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(&key([u64::MAX, u64::MAX]), b"/////////////////////w==");
    }

    #[test]
    fn the_example_of_the_specification() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
