//! Keys and password hashes are left out wherever a value is written: in dumps, logs and golden files. Only what a controller sends to its
//! proxies contains them, because the proxies need them to serve.

use std::cell::Cell;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Written in place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

thread_local! {
    /// A property of the thread, not of the serializer: untagged enums are read through a buffer that forgets which deserializer filled it.
    static WITH_SECRETS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; within it, values are written and read with their secrets. Only for the connection from a controller to its proxies.
pub fn with_secrets<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            WITH_SECRETS.set(self.0);
        }
    }
    let _restore = Restore(WITH_SECRETS.replace(true));
    work()
}

/// Whether values are written and read with their secrets now.
pub(crate) fn are_written() -> bool {
    WITH_SECRETS.get()
}

/// For fields that only exist where secrets are written.
pub(crate) fn are_left_out<T: ?Sized>(_: &T) -> bool {
    !are_written()
}

/// Writes bytes as hexadecimal digits.
pub(crate) fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        digits.extend([byte >> 4, byte & 15].map(|half| char::from_digit(half.into(), 16).unwrap_or('0')));
    }
    serializer.serialize_str(&digits)
}

/// Reads what [`write_bytes`] has written.
pub(crate) fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
    let digits = Box::<str>::deserialize(deserializer)?;
    let wrong = || D::Error::custom("expected pairs of hexadecimal digits");
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return Err(wrong()) };
    let half = |digit: u8| char::from(digit).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| Some((half(*high)? << 4 | half(*low)?) as u8);
    pairs.iter().map(byte).collect::<Option<_>>().ok_or_else(wrong)
}

/// Certificates in DER, as a list of texts.
pub(crate) mod chain {
    use super::*;
    use serde::{Serialize, ser::SerializeSeq};

    struct One<'a>(&'a [u8]);

    impl Serialize for One<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            write_bytes(self.0, serializer)
        }
    }

    #[derive(Deserialize)]
    struct Read(#[serde(deserialize_with = "read_bytes")] Arc<[u8]>);

    pub(crate) fn serialize<S: Serializer>(chain: &[Arc<[u8]>], serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(chain.len()))?;
        for certificate in chain {
            list.serialize_element(&One(certificate))?;
        }
        list.end()
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<[u8]>>, D::Error> {
        let chain = Vec::<Read>::deserialize(deserializer)?;
        Ok(chain.into_iter().map(|Read(der)| der).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_within_and_not_afterwards() {
        assert!(with_secrets(|| with_secrets(are_written) && are_written()));
        assert!(!are_written());
        let panicked = std::panic::catch_unwind(|| with_secrets(|| panic!("as a bug would")));
        assert!(panicked.is_err() && !are_written());
    }

    #[test]
    fn bytes_are_read_as_they_are_written() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = serde_json::value::Serializer;
        let written = write_bytes(&bytes, text).unwrap();
        assert_eq!(*read_bytes(&written).unwrap(), *bytes);
        for wrong in ["0", "0g", "é"] {
            assert!(read_bytes(serde_json::Value::from(wrong)).is_err(), "{wrong}");
        }
    }
}
