//! Tests the head that is written for a received head.

use super::{request_within, response};
use crate::http1::{FieldName, HeadLimits, HeadWriter, KnownField, KnownSet, NameRules};

fn forwarded(text: &str, drop: KnownSet, name: &str) -> String {
    let limits = HeadLimits { names: NameRules::Underscores, ..HeadLimits::default() };
    let head = request_within(text, &limits).unwrap();
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line(head.method_bytes(text.as_bytes()), b"/new").unwrap();
    writer.forward(head.fields(), text.as_bytes(), drop, |field| field.is(name.as_bytes(), text.as_bytes()));
    writer.field(FieldName::from_static("X-Own"), b"1").unwrap();
    writer.finish();
    String::from_utf8(out).unwrap()
}

#[test]
fn fields_keep_order_case_and_duplicates() {
    let text = "FOO /old?q HTTP/1.0\r\nhOST: a\r\nAccept: 1\r\nX-b: 2\r\naccept: 3\r\nEmpty:\r\n\r\n";
    let expected = "FOO /new HTTP/1.1\r\nhOST: a\r\nAccept: 1\r\nX-b: 2\r\naccept: 3\r\nEmpty:\r\nX-Own: 1\r\n\r\n";
    assert_eq!(forwarded(text, KnownSet::HOP_BY_HOP, ""), expected);
}

#[test]
fn dropped_fields_leave_no_trace_wherever_they_stand() {
    let text = "GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: a\r\nX-A:   1  \r\nX_Forwarded_For: x\r\nX-B: 2\r\nX-Drop: 3\r\n\
        Te: trailers\r\nX-C: 4\r\na.b: dropped\r\nX-D:5\r\nKeep-Alive: 5\r\n\r\n";
    let drop = KnownSet::HOP_BY_HOP | KnownSet::FORWARDED | KnownSet::of(&[KnownField::Host]);
    let expected = "GET /new HTTP/1.1\r\nX-A: 1\r\nX-B: 2\r\nX-C: 4\r\nX-D:5\r\nX-Own: 1\r\n\r\n";
    assert_eq!(forwarded(text, drop, "x-drop"), expected);
}

#[test]
fn own_fields_are_written_even_if_connection_lists_them() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Own: forged\r\nConnection: X-Own\r\n\r\n";
    assert_eq!(forwarded(text, KnownSet::HOP_BY_HOP, ""), "GET /new HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\n\r\n");
}

#[test]
fn responses_keep_their_reason_phrase() {
    let text = "HTTP/1.0 299 Strange But True\r\nSet-Cookie: a=1\r\nConnection: close\r\nSet-Cookie: b=2\r\n\r\n";
    let head = response(text).unwrap();
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer.forward_status_line(&head, text.as_bytes());
    writer.forward(head.fields(), text.as_bytes(), KnownSet::HOP_BY_HOP, |_| false);
    writer.finish();
    let expected: &[u8] = b"HTTP/1.1 299 Strange But True\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n";
    assert_eq!(out, expected);
}

#[test]
fn interim_responses_are_recognised() {
    for (status, interim) in [(100, true), (102, true), (103, true), (101, false), (200, false)] {
        assert_eq!(response(format!("HTTP/1.1 {status} x\r\n\r\n")).unwrap().is_interim(), interim);
    }
}
