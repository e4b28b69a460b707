//! The session cookie: finding it in a request and writing it for a response, as lua-resty-cookie does for ingress-nginx.

use std::io::Write;

use fairway_model::{SameSite, SessionCookie};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::SessionKey;
use crate::http::{Fields, KnownField};

/// The inputs for the attributes of a session cookie besides its configuration.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The Path attribute, from the route.
    pub path: &'a str,
    /// Whether the client's connection is TLS.
    pub tls: bool,
    /// The User-Agent field; empty if absent.
    pub user_agent: &'a [u8],
    /// The current time in seconds since 1970.
    pub now: i64,
    /// The end of a session that expires, in the same unit.
    pub ends: Option<i64>,
}

/// The value of the session cookie of a request. If several have the same name, the last one counts, as in ingress-nginx.
pub fn find<'b>(fields: &Fields, bytes: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    all(fields, bytes, name).last()
}

/// The values of all cookies with a name, in order.
pub fn all<'b>(fields: &Fields, bytes: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
    fields.all(KnownField::Cookie, bytes).flat_map(move |line| all_in(line, name))
}

/// The same for the value of one Cookie field.
pub fn all_in<'b>(line: &'b [u8], name: &[u8]) -> impl Iterator<Item = &'b [u8]> {
    line.split(|&byte| byte == b';').filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        // White space ends the value. Java's clients quote the value of a cookie with Max-Age and without Expires.
        let value = value.split(u8::is_ascii_whitespace).next()?;
        Some(value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// Appends the value of the Set-Cookie field that starts a session.
pub fn write(
    out: &mut Vec<u8>,
    cookie: &SessionCookie,
    key: &SessionKey,
    backend_key: &[u8; 32],
    at: &Circumstances<'_>,
) {
    out.extend_from_slice(cookie.name.as_bytes());
    out.push(b'=');
    write_value(out, key, backend_key, at.ends);
    if let Some(date) = cookie.expires.and_then(|after| Timestamp::from_second(at.now.checked_add(after)?).ok()) {
        let utc = date.to_zoned(TimeZone::UTC);
        // Years from 2038 on have four digits, as in ngx.cookie_time: two would be read as a past year.
        let format = if utc.year() > 2037 { "%a, %d-%b-%Y %H:%M:%S GMT" } else { "%a, %d-%b-%y %H:%M:%S GMT" };
        let written = write!(out, "; Expires={}", utc.strftime(format));
        debug_assert!(written.is_ok(), "a vector takes everything");
    }
    if let Some(seconds) = cookie.max_age {
        let written = write!(out, "; Max-Age={seconds}");
        debug_assert!(written.is_ok(), "a vector takes everything");
    }
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    if let Some(domain) = &cookie.domain {
        put(&[b"; Domain=", domain.as_bytes()]);
    }
    // Characters that no cookie may contain (RFC 6265 4.1.1) would let the path end the attribute and start another.
    if !at.path.bytes().any(|byte| byte == b';' || byte.is_ascii_control()) {
        put(&[b"; Path=", at.path.as_bytes()]);
    }
    if cookie.secure || at.tls {
        put(&[b"; Secure"]);
    }
    put(&[b"; HttpOnly"]);
    match cookie.same_site {
        Some(SameSite::None) if cookie.conditional_same_site_none && !knows_same_site_none(at.user_agent) => {}
        Some(same_site) => put(&[b"; SameSite=", name(same_site)]),
        None => {}
    }
}

/// Appends the value that names the endpoint of a session.
pub fn write_value(out: &mut Vec<u8>, key: &SessionKey, backend_key: &[u8; 32], ends: Option<i64>) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'|');
    out.extend_from_slice(backend_key);
    if let Some(end) = ends {
        let written = write!(out, "|{end}");
        debug_assert!(written.is_ok(), "a vector takes everything");
    }
}

fn name(same_site: SameSite) -> &'static [u8] {
    match same_site {
        SameSite::None => b"None",
        SameSite::Lax => b"Lax",
        SameSite::Strict => b"Strict",
    }
}

/// Whether a browser understands `SameSite=None`; others drop the cookie or read it as `Strict` (chromium.org "SameSite=None:
/// Known Incompatible Clients", as far as ingress-nginx follows it).
fn knows_same_site_none(user_agent: &[u8]) -> bool {
    let has = |text: &str| memchr::memmem::find(user_agent, text.as_bytes()).is_some();
    let old_chrome = has("Chrome/4") || has("Chrome/5") || has("Chrome/6");
    let ios_12 = has("CPU iPhone OS 12") || has("iPad; CPU OS 12");
    let old_safari = has("Macintosh") && has("Intel Mac OS X 10_14") && has("Safari") && !has("Chrome");
    !(old_chrome || ios_12 || old_safari)
}

#[cfg(test)]
mod tests;
