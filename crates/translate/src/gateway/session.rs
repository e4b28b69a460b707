//! Session persistence (`sessionPersistence` of a rule, experimental channel), as sessions of the model.

use std::time::Duration;

use fairway_model::{ConfiguredName, KnownField, SameSite, Session, SessionCarrier, SessionCookie};

use super::api::{CookieConfig, SessionPersistence};
use super::rule::duration;

/// Reads a session. `named` identifies its owner: the default name of the cookie depends on it.
///
/// # Errors
///
/// The part that can't be carried out, and why.
pub(super) fn session(spec: &SessionPersistence, named: &str) -> Result<Session, (&'static str, String)> {
    let lasts = match &spec.absolute_timeout {
        None => None,
        Some(text) => match duration(text) {
            None => {
                let message =
                    format!("{text:?} is no time: expected up to four numbers with h, m, s or ms, such as 1m30s");
                return Err(("absoluteTimeout", message));
            }
            Some(Duration::ZERO) => {
                return Err(("absoluteTimeout", "no session would last: must be above 0".to_owned()));
            }
            // Cookies count in seconds.
            Some(time) => Some(Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))),
        },
    };
    let carrier = match (spec.r#type.as_deref().unwrap_or("Cookie"), &spec.cookie, &spec.header) {
        ("Cookie", Some(cookie), None) => of_cookie(cookie, lasts, named)?,
        ("Header", None, Some(header)) => {
            let name = ConfiguredName::try_from(header.name.as_str())
                .map_err(|_| ("header.name", format!("{:?} is no name of a field", header.name)))?;
            if KnownField::named(&header.name).is_some() {
                let message = format!("{} has another meaning: expected a field of your own", header.name);
                return Err(("header.name", message));
            }
            SessionCarrier::Header(name)
        }
        (kind, ..) => return Err(("type", format!("expected Cookie or Header with its settings alone, found {kind}"))),
    };
    Ok(Session { carrier, lasts })
}

fn of_cookie(
    cookie: &CookieConfig,
    lasts: Option<Duration>,
    named: &str,
) -> Result<SessionCarrier, (&'static str, String)> {
    let name = cookie.name.clone().unwrap_or_else(|| format!("fairway-{:016x}", fingerprint(named)));
    // Names of cookies are tokens, like those of fields (RFC 6265 4.1.1).
    if ConfiguredName::try_from(name.as_str()).is_err() {
        return Err(("cookie.name", format!("{name:?} is no name of a cookie")));
    }
    let path = cookie.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    if !path.starts_with('/') || !path.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b';') {
        return Err((
            "cookie.path",
            format!("{path:?} is no path of a cookie: expected / and printable ASCII without ;"),
        ));
    }
    let max_age = match (cookie.lifetime_type.as_deref().unwrap_or("Session"), lasts) {
        ("Session", _) => None,
        ("Permanent", Some(lasts)) => Some(i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX)),
        ("Permanent", None) => return Err(("absoluteTimeout", "a permanent cookie needs it".to_owned())),
        (other, _) => return Err(("cookie.lifetimeType", format!("expected Session or Permanent, found {other}"))),
    };
    let cookie = SessionCookie {
        name: name.into(),
        expires: None,
        max_age,
        domain: None,
        // Over TLS it is always set, and without TLS browsers would not send the cookie back.
        secure: false,
        same_site: Some(SameSite::Strict),
        conditional_same_site_none: false,
    };
    Ok(SessionCarrier::Cookie { cookie, path: path.into() })
}

/// FNV-1a: the same on every replica and in every version.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: serde_json::Value) -> Result<Session, &'static str> {
        session(&serde_json::from_value(text).unwrap(), "HTTPRoute shop/a#0").map_err(|(part, _)| part)
    }

    #[test]
    fn what_cannot_be_carried_out_is_blamed_on_its_part() {
        use serde_json::json;
        for (spec, part) in [
            (json!({}), "type"),
            (json!({"cookie": {}, "header": {"name": "x-a"}}), "type"),
            (json!({"type": "Header", "cookie": {}}), "type"),
            (json!({"type": "Other", "cookie": {}}), "type"),
            (json!({"cookie": {}, "absoluteTimeout": "0s"}), "absoluteTimeout"),
            (json!({"cookie": {}, "absoluteTimeout": "soon"}), "absoluteTimeout"),
            (json!({"cookie": {"lifetimeType": "Permanent"}}), "absoluteTimeout"),
            (json!({"cookie": {"lifetimeType": "Long"}}), "cookie.lifetimeType"),
            (json!({"cookie": {"name": "a=b"}}), "cookie.name"),
            (json!({"cookie": {"name": ""}}), "cookie.name"),
            (json!({"cookie": {"path": "/a;Domain=b"}}), "cookie.path"),
            (json!({"cookie": {"path": "a"}}), "cookie.path"),
            (json!({"type": "Header", "header": {"name": "a b"}}), "header.name"),
            (json!({"type": "Header", "header": {"name": "Content-Length"}}), "header.name"),
            (json!({"type": "Header", "header": {"name": "set-cookie"}}), "header.name"),
        ] {
            assert_eq!(read(spec.clone()).unwrap_err(), part, "{spec}");
        }
    }

    #[test]
    fn a_cookie_without_a_name_has_one_of_its_own() {
        let name = |named| match session(&serde_json::from_value(serde_json::json!({"cookie": {}})).unwrap(), named) {
            Ok(Session { carrier: SessionCarrier::Cookie { cookie, .. }, .. }) => cookie.name,
            other => panic!("{other:?}"),
        };
        assert_eq!(&*name(""), "fairway-cbf29ce484222325");
        assert_ne!(name("HTTPRoute shop/a#0"), name("HTTPRoute shop/a#1"));
    }
}
