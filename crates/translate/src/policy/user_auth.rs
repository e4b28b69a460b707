//! Basic and Digest authentication, from the annotations `auth-type`, `auth-secret` and `auth-realm`. Without users, the paths are denied.

use std::str;

use fairway_model::BasicAuth;
use k8s_openapi::api::core::v1::Secret;

use crate::annotation::UserAuthentication;
use crate::objects::ObjectKey;
use crate::value::{AuthSecretType, AuthType};

/// The users to admit, or why they aren't known.
pub(crate) type UserAuth = Result<BasicAuth, Box<str>>;

/// The most work that one password check may take: about a second.
const BCRYPT_COST: u32 = 14;
const SHA_ROUNDS: u32 = 500_000;

/// Combines the annotations with the Secret.
pub(crate) fn build(annotations: &UserAuthentication, key: &ObjectKey, secret: Option<&Secret>) -> UserAuth {
    let (namespace, name) = (&key.namespace, &key.name);
    let Some(secret) = secret else { return Err(format!("there is no Secret {namespace}/{name}").into()) };
    let is_file = annotations.secret_type != Some(AuthSecretType::Map);
    if is_file && secret.data.as_ref().is_none_or(|data| !data.contains_key("auth")) {
        return Err(format!("Secret {namespace}/{name}: expected the key auth").into());
    }
    let digest = annotations.kind == Some(AuthType::Digest);
    let realm = annotations.realm.as_ref().map_or("", |realm| realm.as_str());
    let users = if digest {
        let users: Vec<_> = digests(annotations, secret).filter_map(|(user, hash)| Some((user, hash?))).collect();
        users.iter().map(|(user, hash)| (*user, &**hash)).collect()
    } else {
        entries(annotations, secret).into_iter().filter(|(_, hash)| is_checkable(hash)).collect()
    };
    let auth = BasicAuth { realm: realm.into(), users, digest, or_service: false };
    if digest && auth.users.is_empty() {
        return Err(format!(
            "Secret {namespace}/{name}: expected users of the realm \"{realm}\", each with its MD5 (user:realm:MD5)"
        )
        .into());
    }
    if auth.users.is_empty() {
        return Err(format!("Secret {namespace}/{name}: expected users with hashes that can be checked").into());
    }
    Ok(auth)
}

/// How many entries have no hash that can be checked.
pub(crate) fn left_out(annotations: &UserAuthentication, secret: Option<&Secret>) -> usize {
    if annotations.kind == Some(AuthType::Digest) {
        let all = secret.into_iter().flat_map(|secret| digests(annotations, secret));
        return all.filter(|(_, hash)| hash.is_none()).count();
    }
    let entries = secret.into_iter().flat_map(|secret| entries(annotations, secret));
    entries.filter(|(_, hash)| !is_checkable(hash)).count()
}

/// Users and the MD5 of user, realm and password: lines of an htdigest file, or the keys of the Secret with the rest of such a line. `None`
/// in place of the MD5 if it is of another realm or malformed.
fn digests<'a>(
    annotations: &'a UserAuthentication,
    secret: &'a Secret,
) -> impl Iterator<Item = (&'a str, Option<String>)> {
    let realm = annotations.realm.as_ref().map_or("", |realm| realm.as_str());
    let of_realm = move |rest: &str| {
        let (own, hash) = rest.rsplit_once(':')?;
        let is_md5 = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_md5 && own == realm).then(|| hash.to_ascii_lowercase())
    };
    lines(annotations, secret).into_iter().map(move |(user, rest)| (user, of_realm(rest)))
}

/// Users and hashes: lines of an htpasswd file, or the keys of the Secret.
fn entries<'a>(annotations: &UserAuthentication, secret: &'a Secret) -> Vec<(&'a str, &'a str)> {
    let is_map = annotations.secret_type == Some(AuthSecretType::Map);
    let all = lines(annotations, secret).into_iter();
    // The rest of a line after a second colon is a comment.
    all.map(|(user, rest)| (user, if is_map { rest } else { rest.split(':').next().unwrap_or_default() })).collect()
}

/// Users, and the rest of their entries.
fn lines<'a>(annotations: &UserAuthentication, secret: &'a Secret) -> Vec<(&'a str, &'a str)> {
    let data = secret.data.iter().flatten().filter_map(|(key, value)| Some((&**key, str::from_utf8(&value.0).ok()?)));
    if annotations.secret_type == Some(AuthSecretType::Map) {
        return data.map(|(key, value)| (key, value.trim())).collect();
    }
    let file = data.filter(|(key, _)| *key == "auth").map(|(_, file)| file);
    let lines = file.flat_map(str::lines).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut found: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    // The first line about a user counts, but collecting into a map keeps the last.
    found.reverse();
    found
}

/// Whether a hash is of a kind that the proxy checks, and takes bounded time.
fn is_checkable(hash: &str) -> bool {
    if let Some((kind, rest)) = hash.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        return matches!(kind, "SHA" | "SSHA" | "PLAIN") && !rest.is_empty();
    }
    let mut parts = hash.split('$');
    let (before, kind, first) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    before == Some("")
        && match kind {
            Some("2a" | "2b" | "2x" | "2y") => first.parse().is_ok_and(|cost: u32| cost <= BCRYPT_COST),
            Some("apr1" | "1") => true,
            Some("5" | "6") => match first.strip_prefix("rounds=") {
                Some(rounds) => rounds.parse().is_ok_and(|rounds: u32| rounds <= SHA_ROUNDS),
                None => true,
            },
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_checked_that_are_known_and_take_bounded_time() {
        for good in
            ["$2y$10$x", "$2b$14$x", "$apr1$a$b", "$1$a$b", "$5$a$b", "$6$rounds=5000$a$b", "{SHA}a", "{PLAIN}a"]
        {
            assert!(is_checkable(good), "{good}");
        }
        for bad in [
            "",
            "abJnggxhB/yWI",
            "$2y$15$x",
            "$2y$x",
            "$6$rounds=500001$a$b",
            "$y$j9T$a$b",
            "{MD5}a",
            "{SHA}",
            "x$1$a$b",
        ] {
            assert!(!is_checkable(bad), "{bad}");
        }
    }
}
