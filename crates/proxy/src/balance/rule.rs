//! The session of a rule as its client carries it: `<key of the endpoint>|<key of the backend>`, and `|<second of its end>` if it expires.
//! A client that changes the last part stays at the endpoint for longer and gains nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Session, SessionCarrier};

use super::cookie;
use crate::http::Fields;

/// The session that a request carries, unless it has ended.
pub(crate) fn carried<'b>(session: &'b Session, fields: &'b Fields, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let value = match &session.carrier {
        SessionCarrier::Cookie { cookie, .. } => cookie::find(fields, bytes, cookie.name.as_bytes()),
        SessionCarrier::Header(name) => fields.named(name.as_str().as_bytes(), bytes).last(),
    }?;
    (session.lasts.is_none() || end(value).is_some_and(|end| seconds_since_1970() < end)).then_some(value)
}

/// The key of the backend in a session.
pub(crate) fn backend(value: &[u8]) -> Option<&[u8]> {
    value.split(|&byte| byte == b'|').nth(1)
}

/// When a session that begins now ends.
pub(crate) fn ends(session: &Session, now: i64) -> Option<i64> {
    let lasts = i64::try_from(session.lasts?.as_secs()).ok()?;
    Some(now.saturating_add(lasts))
}

/// The current time.
pub(crate) fn seconds_since_1970() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn end(value: &[u8]) -> Option<i64> {
    let text = value.split(|&byte| byte == b'|').nth(2)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}
