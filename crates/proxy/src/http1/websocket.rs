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

/// Twenty bytes make 27 digits and one `=`.
fn base64(hash: &[u8]) -> [u8; 28] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; 28];
    for (group, out) in hash.chunks(3).zip(text.chunks_mut(4)) {
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
    fn the_example_of_the_specification() {
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
