//! Which bytes may stand where: one table for field names, and the few scans that every line passes.

/// Not a letter, digit or hyphen, but an underscore: legal, and dropped by default as nginx does.
pub(super) const UNDERSCORE: u8 = 1;
/// A `tchar` (RFC 9110 5.6.2) other than letters, digits, hyphen and underscore.
pub(super) const ODD_TOKEN: u8 = 2;
/// A visible byte or obs-text that no token may hold.
pub(super) const NOT_TOKEN: u8 = 4;
/// The colon that ends a field name.
pub(super) const COLON: u8 = 8;
/// White space, a control byte, DEL: never tolerated in a name.
pub(super) const FATAL: u8 = 16;

/// The class of each byte of a field name; 0 is a letter, a digit or a hyphen.
pub(super) static NAME_CLASS: [u8; 256] = {
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

/// Folds the spellings that backends take for the same field: lower case, and every token byte that is neither letter nor
/// digit becomes a hyphen (CGI-like backends do the same on their side).
pub(super) const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// True for a non-empty `token` (RFC 9110 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| NAME_CLASS[usize::from(b)] & !(UNDERSCORE | ODD_TOKEN) == 0)
}

/// True if `bytes` may stand in a field value: no control byte but HTAB, no DEL (RFC 9110 5.5). Obs-text passes.
pub(super) fn is_value(bytes: &[u8]) -> bool {
    // No early exit, so that the loop is vectorised.
    !bytes.iter().fold(false, |bad, &b| bad | ((b < 0x20) & (b != b'\t')) | (b == 0x7f))
}

/// True if `bytes` may stand in a request target: no blank, control byte, DEL or fragment sign. Raw bytes above ASCII pass,
/// as in nginx; what they mean is for the canonical form of the path to say.
pub(super) fn is_target(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, &b| bad | (b <= 0x20) | (b == 0x7f) | (b == b'#'))
}

/// `bytes` without the optional white space (SP, HTAB) around it.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [front @ .., b' ' | b'\t'] = rest {
        rest = front;
    }
    rest
}
