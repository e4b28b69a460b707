//! Which bytes are allowed where: one table for field names, and the few scans that run over every line.

/// Underscore: legal, but dropped by default, as in nginx.
pub(crate) const UNDERSCORE: u8 = 1;
/// A `tchar` (RFC 9110 5.6.2) other than letters, digits, hyphen and underscore.
pub(crate) const ODD_TOKEN: u8 = 2;
/// A visible byte or obs-text that is not allowed in a token.
pub(crate) const NOT_TOKEN: u8 = 4;
/// The colon that ends a field name. This class and those above it do not occur in names.
pub(crate) const COLON: u8 = 8;
/// White space, a control byte, DEL: never allowed in a name.
pub(crate) const FATAL: u8 = 16;

/// The class of each byte of a field name; 0 is a letter, a digit or a hyphen.
pub(crate) static NAME_CLASS: [u8; 256] = {
    let mut table = [NOT_TOKEN; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'-' {
            table[byte] = 0;
        } else if b <= b' ' || b == 0x7f {
            table[byte] = FATAL;
        }
        byte += 1;
    }
    table[b'_' as usize] = UNDERSCORE;
    table[b':' as usize] = COLON;
    let odd = b"!#$%&'*+.^`|~";
    let mut index = 0;
    while index < odd.len() {
        table[odd[index] as usize] = ODD_TOKEN;
        index += 1;
    }
    table
};

/// True for a non-empty `token` (RFC 9110 5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| NAME_CLASS[usize::from(b)] & !(UNDERSCORE | ODD_TOKEN) == 0)
}

/// True if `bytes` is a legal field value: no control byte except HTAB, no DEL (RFC 9110 5.5). Obs-text passes.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    // Tabs are rare, so bytes are checked one by one only where a tab is possible.
    !any_word(bytes, b' ', |word| below(word, 0x20) | equal(word, 0x7f))
        || bytes.iter().all(|&byte| (byte >= 0x20 && byte != 0x7f) || byte == b'\t')
}

/// True if `bytes` is a legal request target: no space, control byte, DEL or `#`. Raw bytes above ASCII pass, as in nginx;
/// canonicalising the path decides what they mean.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !any_word(bytes, b'/', |word| below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#'))
}

/// Whether `found` is non-zero for any group of eight bytes. The last group overlaps the one before it; a shorter input is padded
/// with `filler`, a byte that `found` must not match.
fn any_word(bytes: &[u8], filler: u8, found: impl Fn(u64) -> u64) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        let mut word = u64::from_ne_bytes([filler; 8]);
        for &byte in bytes {
            word = word << 8 | u64::from(byte);
        }
        return found(word) != 0;
    };
    let words = bytes.as_chunks::<8>().0.iter().chain(std::iter::once(last));
    words.fold(0, |sum, word| sum | found(u64::from_ne_bytes(*word))) != 0
}

// No limit: a pattern of bits.
const EACH: u64 = 0x0101_0101_0101_0101;
// No limit: a pattern of bits.
const TOP: u64 = 0x8080_8080_8080_8080;

/// Non-zero if and only if a byte of `word` is below `limit`, which is at most 128 (Anderson, "Bit Twiddling Hacks", hasless).
const fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(EACH * limit as u64) & !word & TOP
}

/// Non-zero if and only if a byte of `word` is `byte`, which is below 128.
const fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (EACH * byte as u64), 1)
}

/// `bytes` without the optional white space (SP, HTAB) around it.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [front @ .., b' ' | b'\t'] = rest {
        rest = front;
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_bytes_at_a_time_see_what_one_at_a_time_sees(
            plain in "[ -~\\PC]{0,20}", at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = plain.into_bytes();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let value = bytes.iter().all(|&b| (b >= 0x20 && b != 0x7f) || b == b'\t');
            prop_assert_eq!(is_value(&bytes), value);
            let target = bytes.iter().all(|&b| b > 0x20 && b != 0x7f && b != b'#');
            prop_assert_eq!(is_target(&bytes), target);
        }
    }
}
