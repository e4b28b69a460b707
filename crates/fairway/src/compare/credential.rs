//! Detects credentials in the URLs of an access log, so that they are never replayed.

/// Substrings of the names of query parameters whose values are credentials.
const NAMES: [&str; 18] = [
    "token",
    "secret",
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "apikey",
    "api_key",
    "api-key",
    "signature",
    "credential",
    "session",
    "jwt",
    "assertion",
    "otp",
    "authorization",
    "access_key",
    "accesskey",
];

/// Complete names of such parameters.
const WHOLE: [&str; 11] = ["key", "sig", "code", "auth", "pass", "sid", "ticket", "state", "nonce", "hmac", "pin"];

/// The value sent instead.
const INSTEAD: &str = "redacted";

/// A target with the values of parameters that look like credentials replaced, and whether there were any; `None` if the path itself
/// contains one, in which case no similar request can be sent.
pub(super) fn without(target: &str) -> Option<(String, bool)> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    if path.split(['/', ';', '=']).any(is_credential) {
        return None;
    }
    let Some(query) = query else { return Some((path.to_owned(), false)) };
    let mut found = false;
    let parts = query.split('&').map(|part| match part.split_once('=') {
        Some((name, value)) if !value.is_empty() && (names_credential(name) || is_credential(value)) => {
            found = true;
            format!("{name}={INSTEAD}")
        }
        None if is_credential(part) => {
            found = true;
            INSTEAD.to_owned()
        }
        _ => part.to_owned(),
    });
    let query = parts.collect::<Vec<_>>().join("&");
    Some((format!("{path}?{query}"), found))
}

fn names_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WHOLE.contains(&&*name) || NAMES.iter().any(|part| name.contains(part))
}

/// Whether a text has the form of a credential: a JSON Web Token, or a long text of hexadecimal digits or base64 that contains no word.
fn is_credential(text: &str) -> bool {
    let token = text.starts_with("eyJ") && text.len() >= 20;
    let long = text.len() >= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+".contains(&b));
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let mixed = digits >= 4 && text.bytes().any(|b| b.is_ascii_alphabetic());
    // A UUID more often names something than grants access; so does the hash in a script's name.
    let uuid = text.len() == 36 && text.bytes().filter(|b| *b == b'-').count() == 4;
    token || (long && mixed && !uuid && text.bytes().filter(|b| *b == b'-').count() < 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_sent_again() {
        for (target, expected) in [
            ("/a?x=1&y=2", Some(("/a?x=1&y=2", false))),
            ("/a?access_token=abc&x=1", Some(("/a?access_token=redacted&x=1", true))),
            ("/cb?code=abc&state=xyz", Some(("/cb?code=redacted&state=redacted", true))),
            (
                "/s3/x?X-Amz-Signature=aa&X-Amz-Credential=b",
                Some(("/s3/x?X-Amz-Signature=redacted&X-Amz-Credential=redacted", true)),
            ),
            ("/a?x=eyJhbGciOiJIUzI1NiJ9.e30.abc", Some(("/a?x=redacted", true))),
            ("/a?token=", Some(("/a?token=", false))),
            ("/reset/eyJhbGciOiJIUzI1NiJ9.e30.abc", None),
            ("/reset/3f786850e387550fdab836ed7e6dc881de23001b", None),
            (
                "/order/123e4567-e89b-12d3-a456-426614174000",
                Some(("/order/123e4567-e89b-12d3-a456-426614174000", false)),
            ),
            (
                "/a-long-path-with-many-words-in-its-name-2024",
                Some(("/a-long-path-with-many-words-in-its-name-2024", false)),
            ),
            ("/keyboard?monkey=1&keyword=x", Some(("/keyboard?monkey=1&keyword=x", false))),
        ] {
            let found = without(target);
            assert_eq!(found.as_ref().map(|(target, found)| (target.as_str(), *found)), expected, "{target}");
        }
    }
}
