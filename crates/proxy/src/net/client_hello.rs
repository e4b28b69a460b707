//! Finds the server name in a ClientHello (RFC 8446 4.1.2, RFC 6066 3) where rustls can't: it gives no access to a hello that it refuses,
//! and does not distinguish a name that is an address from no name.
//!
//! The hello may be spread over records. Whatever it contains, reading it takes time and memory proportional to its length.

/// The handshake record type (RFC 8446 5.1), and the message type of a client hello.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Extension and name type of a host name.
const SERVER_NAME: [u8; 2] = [0, 0];
const HOST_NAME: u8 = 0;

/// Whether a complete hello has the extension with the server name, whatever is in it.
pub fn names_server(records: &[u8]) -> bool {
    extension(&message(records)).is_some()
}

/// The host that a complete hello names, as written. `None` if the hello is incomplete or malformed up to the name, or names
/// anything but one host.
pub fn server_name(records: &[u8]) -> Option<Vec<u8>> {
    let message = message(records);
    let list = &mut extension(&message)?;
    let names = &mut field::<2>(list)?;
    let (&kind, rest) = names.split_first()?;
    *names = rest;
    let name = field::<2>(names)?;
    (kind == HOST_NAME && list.is_empty() && names.is_empty() && !name.is_empty()).then(|| name.to_vec())
}

/// The bytes of the handshake records at the front.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(records.len());
    while let Some((&[kind, _, _, high, low], rest)) = records.split_first_chunk::<5>() {
        if kind != HANDSHAKE {
            break;
        }
        let len = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        message.extend_from_slice(&rest[..len]);
        records = &rest[len..];
    }
    message
}

/// The contents of the extension with the server name.
fn extension(message: &[u8]) -> Option<&[u8]> {
    let (&kind, mut rest) = message.split_first()?;
    if kind != CLIENT_HELLO {
        return None;
    }
    let hello = field::<3>(&mut rest)?;
    // Version and random.
    let rest = &mut hello.get(2 + 32..)?;
    // Session id, cipher suites, compression methods.
    field::<1>(rest)?;
    field::<2>(rest)?;
    field::<1>(rest)?;
    let extensions = &mut field::<2>(rest)?;
    loop {
        let (kind, after) = extensions.split_first_chunk::<2>()?;
        *extensions = after;
        let contents = field::<2>(extensions)?;
        if *kind == SERVER_NAME {
            return Some(contents);
        }
    }
}

/// Takes a field that begins with its length in `N` bytes.
fn field<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<N>()?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    let (field, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefixed<const N: usize>(bytes: &[u8]) -> Vec<u8> {
        let length = (bytes.len() as u64).to_be_bytes();
        [&length[8 - N..], bytes].concat()
    }

    /// A hello with this content of the server name extension, in records of this size.
    fn hello(extension: &[u8], record: usize) -> Vec<u8> {
        let other = [&[0, 43][..], &prefixed::<2>(&[2, 3, 1])].concat();
        let named = [&SERVER_NAME[..], &prefixed::<2>(extension)].concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &prefixed::<1>(&[9; 32]),
            &prefixed::<2>(&[0, 47]),
            &prefixed::<1>(&[0]),
            &prefixed::<2>(&[other, named].concat()),
        ]
        .concat();
        let message = [&[CLIENT_HELLO][..], &prefixed::<3>(&body)].concat();
        message.chunks(record).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &prefixed::<2>(part)].concat()).collect()
    }

    fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
        let names: Vec<_> = names.iter().map(|(kind, name)| [&[*kind][..], &prefixed::<2>(name)].concat()).collect();
        prefixed::<2>(&names.concat())
    }

    #[test]
    fn the_name_is_found_in_any_records() {
        for record in [1, 5, 40, 1000] {
            let bytes = hello(&names(&[(0, b"a.example")]), record);
            assert_eq!(server_name(&bytes).as_deref(), Some(&b"a.example"[..]));
            for cut in 0..bytes.len() {
                assert_eq!(server_name(&bytes[..cut]), None, "{cut}");
            }
            assert_eq!(
                server_name(&[bytes, b"\x14\x03\x03\0\x01\x01".to_vec()].concat()).as_deref(),
                Some(&b"a.example"[..])
            );
        }
    }

    #[test]
    fn anything_but_one_host_is_no_name() {
        let some: &[u8] = b"a.example";
        for bad in [names(&[(0, some), (0, some)]), names(&[(1, some)]), names(&[(0, b"")]), names(&[]), Vec::new()] {
            let bytes = hello(&bad, 1000);
            assert_eq!(server_name(&bytes), None, "{bad:?}");
            assert!(names_server(&bytes));
        }
        let mut other_message = hello(&names(&[(0, some)]), 1000);
        other_message[5] = 2;
        assert_eq!(server_name(&other_message), None);
        let mut other_record = hello(&names(&[(0, some)]), 1000);
        other_record[0] = 23;
        assert_eq!(server_name(&other_record), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in 0usize..200, byte in any::<u8>(), record in 1usize..200, rest in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = hello(&names(&[(0, b"a.example")]), record);
            let len = bytes.len();
            bytes[at % len] = byte;
            server_name(&bytes);
            server_name(&[bytes, rest.clone()].concat());
            server_name(&rest);
        }
    }
}
