//! Basic authentication (RFC 7617) and Digest (RFC 7616): users and their password hashes. Hashes never appear in a dump, a log line or a
//! golden file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret;

/// Demands a name and a password.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BasicAuth {
    /// What browsers show to the user.
    pub realm: Box<str>,
    /// Who is admitted.
    pub users: Users,
    /// Whether the password is proved by a digest instead of sent. A user's hash is then the MD5 of name, realm and password, in
    /// hexadecimal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub digest: bool,
    /// Whether an authentication service is asked next about all other clients, and may admit them too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub or_service: bool,
}

/// Users and the hashes of their passwords. Cloning copies a pointer.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Users(Arc<BTreeMap<Box<str>, Arc<str>>>);

impl Users {
    /// The hash of a user's password.
    pub fn hash_of(&self, user: &str) -> Option<&Arc<str>> {
        self.0.get(user)
    }

    /// Any hash, checked in place of an unknown user's so that both cases take the same time.
    pub fn any_hash(&self) -> Option<&Arc<str>> {
        self.0.values().next()
    }

    /// The number of users.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no users, so that no client is admitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Users {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(users: I) -> Self {
        Self(Arc::new(users.into_iter().map(|(name, hash)| (name.into(), hash.into())).collect()))
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} redacted]", self.len())
    }
}

impl Serialize for Users {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if secret::are_written() {
            return self.0.serialize(serializer);
        }
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

/// A dump holds no hash, so reading one yields no users, and no client is admitted.
impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if secret::are_written() {
            return Arc::deserialize(deserializer).map(Self);
        }
        String::deserialize(deserializer).map(|_| Self::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_never_printed() {
        let users = Users::from_iter([("alice", "{PLAIN}secret")]);
        assert_eq!(format!("{users:?}"), "[1 redacted]");
        assert_eq!(serde_json::to_string(&users).unwrap(), "\"[1 redacted]\"");
        assert!(serde_json::from_str::<Users>("\"[1 redacted]\"").unwrap().is_empty());
        let sent = secret::with_secrets(|| serde_json::to_string(&users).unwrap());
        assert_eq!(secret::with_secrets(|| serde_json::from_str::<Users>(&sent).unwrap()), users);
    }
}
