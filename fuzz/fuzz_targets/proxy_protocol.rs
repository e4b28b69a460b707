//! The first bytes of a connection that must begin with a PROXY header: no input panics, the parser's demand for bytes is bounded,
//! more input never changes an earlier result, and every result can be serialised.
#![no_main]

use fairway_proxy::proxy_protocol::{Decoded, InvalidProxyHeader, LONGEST, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = decode(data);
    for cut in 0..data.len().min(LONGEST) {
        match decode(&data[..cut]) {
            Ok(Decoded::Partial) => {}
            decided => {
                assert_eq!(decided, whole);
                break;
            }
        }
    }
    match whole {
        Ok(Decoded::Partial) => assert!(data.len() < LONGEST),
        Ok(Decoded::Complete { len, ends }) => {
            assert!(len <= data.len().min(LONGEST));
            if let Some(ends) = ends {
                let mut out = Vec::new();
                encode(&ends, &mut out);
                let again = decode(&out);
                assert!(matches!(again, Ok(Decoded::Complete { len, .. }) if len == out.len()), "{again:?}");
            }
        }
        Err(InvalidProxyHeader) => {}
    }
});
