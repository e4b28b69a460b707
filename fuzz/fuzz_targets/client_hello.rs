//! The first bytes of a TLS connection: no input panics, a name once found does not change with more input, and the division into
//! records makes no difference.
#![no_main]

use fairway_proxy::client_hello::{names_server, server_name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (u8, Vec<u8>)| {
    let (size, bytes) = (data.0, &data.1[..]);
    let whole = server_name(bytes);
    if let Some(name) = &whole {
        assert!(names_server(bytes) && !name.is_empty() && name.len() < bytes.len());
        assert_eq!(server_name(&[bytes, b"\x16\x03\x01\0\x05hello"].concat()).as_ref(), Some(name));
    }
    // The input as the content of records.
    let records = |size: usize| -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1, 0, part.len() as u8][..], part].concat();
        bytes.chunks(size).flat_map(record).collect()
    };
    assert_eq!(server_name(&records(255)), server_name(&records(usize::from(size.max(1)))));
});
