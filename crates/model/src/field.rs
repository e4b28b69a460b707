//! Field names: which ones are valid, and which ones a backend may take for the same.

use serde::{Deserialize, Serialize};

/// Folds the spellings that backends take for the same field: lower case, with every token byte that is neither letter
/// nor digit as a hyphen (CGI-like backends do the same).
#[inline]
pub const fn fold(byte: u8) -> u8 {
    FOLDED[byte as usize]
}

/// Whether a backend that folds names would take two for the same: `X_Tenant` and `x-tenant`.
#[inline]
pub fn is_same_field(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| fold(a) == fold(b))
}

/// A field name known to be a token (RFC 9110 5.6.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FieldName<'a>(&'a [u8]);

/// The name is not a valid field name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected the name of a field: letters, digits and -, without spaces")]
pub struct InvalidName;

impl FieldName<'static> {
    /// Creates a name from a literal in the source; meant for constants.
    ///
    /// # Panics
    ///
    /// If the name has bytes other than letters, digits, `-` and `_`.
    pub const fn from_static(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a field name is not empty");
        let mut index = 0;
        while index < bytes.len() {
            assert!(bytes[index].is_ascii_alphanumeric() || matches!(bytes[index], b'-' | b'_'), "not a field name");
            index += 1;
        }
        Self(bytes)
    }
}

impl<'a> FieldName<'a> {
    /// The name.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> TryFrom<&'a [u8]> for FieldName<'a> {
    type Error = InvalidName;

    fn try_from(name: &'a [u8]) -> Result<Self, InvalidName> {
        let is_token = |&byte: &u8| TOKEN[usize::from(byte)];
        if !name.is_empty() && name.iter().all(is_token) { Ok(Self(name)) } else { Err(InvalidName) }
    }
}

/// A field name that a user configured, as written.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct ConfiguredName(Box<str>);

impl ConfiguredName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, ready to send.
    pub fn get(&self) -> FieldName<'_> {
        FieldName(self.0.as_bytes())
    }
}

impl TryFrom<Box<str>> for ConfiguredName {
    type Error = InvalidName;

    fn try_from(name: Box<str>) -> Result<Self, InvalidName> {
        FieldName::try_from(name.as_bytes())?;
        Ok(Self(name))
    }
}

impl TryFrom<&str> for ConfiguredName {
    type Error = InvalidName;

    fn try_from(name: &str) -> Result<Self, InvalidName> {
        Box::<str>::from(name).try_into()
    }
}

impl From<ConfiguredName> for Box<str> {
    fn from(name: ConfiguredName) -> Self {
        name.0
    }
}

/// Which bytes a token consists of (RFC 9110 5.6.2).
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
};

static FOLDED: [u8; 256] = {
    let mut table = [b'-'; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() {
            table[byte] = b.to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_fold_names() {
        assert!(is_same_field(b"X_Tenant", b"x-tenant") && is_same_field(b"X.Tenant", b"X-Tenant"));
        assert!(!is_same_field(b"X-Tenant", b"X-Tenants") && !is_same_field(b"XaTenant", b"X-Tenant"));
    }

    #[test]
    fn names_are_tokens() {
        for name in ["X-Name", "a_b", "$x"] {
            assert_eq!(ConfiguredName::try_from(name).map(Box::<str>::from), Ok(name.into()));
        }
        for name in ["", "a b", "a:b", "a\r\n", "\u{fc}"] {
            assert_eq!(ConfiguredName::try_from(name), Err(InvalidName));
        }
    }
}
