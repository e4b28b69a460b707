//! Finds where a message body ends: decided once, from the message alone (RFC 9112 6.3).

use fairway_model::{KnownField, KnownSet};

use crate::http::byte_class::{is_token, trim};
use crate::http::{Fields, Framing, HeadError, Version};

impl Framing {
    /// The framing given by the two framing fields; `None` if neither is present. The same rules hold for requests and responses.
    pub(crate) fn from_fields(fields: &Fields, version: Version, buf: &[u8]) -> Result<Self, HeadError> {
        const BOTH: KnownSet = KnownSet::of(&[KnownField::ContentLength, KnownField::TransferEncoding]);

        let present = fields.present() & BOTH;
        if present.is_empty() {
            return Ok(Self::None);
        }
        if present == BOTH {
            return Err(HeadError::LengthWithTransferEncoding);
        }
        if let Some(value) = fields.get(KnownField::ContentLength, buf) {
            if fields.repeated().contains(KnownField::ContentLength) {
                return Err(HeadError::DuplicateContentLength);
            }
            return content_length(value).map(Self::Length);
        }
        let value = fields.get(KnownField::TransferEncoding, buf).unwrap_or_default();
        if fields.repeated().contains(KnownField::TransferEncoding) || version == Version::Http10 {
            return Err(HeadError::InvalidTransferEncoding);
        }
        if value.eq_ignore_ascii_case(b"chunked") {
            return Ok(Self::Chunked);
        }
        Err(refused_coding(value))
    }
}

/// Digits only, and at most 19 of them: 2^63 and more don't fit the signed lengths of many backends.
fn content_length(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::InvalidContentLength);
    }
    let length = value.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    if i64::try_from(length).is_err() { Err(HeadError::InvalidContentLength) } else { Ok(length) }
}

/// Distinguishes a coding that the proxy doesn't support (501) from a value crafted to be read in two ways (400). The first is a list of
/// tokens of which none resembles `chunked`, except that the last may be exactly that.
fn refused_coding(value: &[u8]) -> HeadError {
    let resembles_chunked = |coding: &[u8]| coding.windows(5).any(|part| part.eq_ignore_ascii_case(b"chunk"));
    let mut codings = value.split(|&byte| byte == b',').map(trim);
    let last = codings.next_back().unwrap_or_default();
    let honest = codings.all(|coding| is_token(coding) && !resembles_chunked(coding))
        && is_token(last)
        && (last.eq_ignore_ascii_case(b"chunked") || !resembles_chunked(last));
    if honest { HeadError::UnknownTransferEncoding } else { HeadError::InvalidTransferEncoding }
}
