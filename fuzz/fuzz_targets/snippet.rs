//! The parser of snippets: no text makes it panic, and its messages about a text are deterministic and bounded.
#![no_main]

use fairway_translate::snippet::{fault, is_read, words};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 5] = ["configuration-snippet", "server-snippet", "auth-snippet", "http-snippet", "main-snippet"];

fuzz_target!(|text: &str| {
    for name in NAMES {
        match fault(name, text) {
            Some(fault) => {
                assert!(fault.line >= 1 && fault.to_string().len() < 2500);
                assert!(words(name, text).is_empty() && !is_read(name, text));
            }
            None => assert!(is_read(name, text)),
        }
    }
});
