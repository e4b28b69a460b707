//! A client's claims about itself: forwarded fields and cookies. No input panics, no value can end a field, and an untrusted peer's address
//! is its own.
#![no_main]

use std::net::SocketAddr;

use fairway_model::client::{Arrival, ClientView};
use fairway_model::{FieldName, FieldSink, ForwardedHeaders, KnownField, KnownSet, Scheme, Settings};
use fairway_proxy::balance::cookie;
use fairway_proxy::http1::{FieldsView, HeadLimits, Parsed, RequestHead};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 5] = ["x-forwarded-for", "x-real-ip", "forwarded", "x-client", ""];

/// Checks each field.
struct Checked;

impl<F> FieldSink<F> for Checked {
    type Prepared = ();

    fn field(&mut self, _: FieldName<'_>, value: &[u8]) {
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{:?}", value.escape_ascii());
    }

    fn number(&mut self, _: FieldName<'_>, _: u64) {}

    fn prepared(&mut self, (): &()) {}

    fn forward(&mut self, _: F, _: KnownSet, _: impl FnMut(KnownField, &[u8]) -> bool) {}
}

fuzz_target!(|data: (u8, u8, Vec<u8>, Vec<u8>)| {
    let (policy, name, fields, cookies) = &data;
    let before = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ";
    let bytes = [before, &fields[..], b"\r\nCookie: ", cookies, b"\r\n\r\n"].concat();
    let mut head = RequestHead::default();
    if !matches!(head.parse(&bytes, &HeadLimits::default()), Ok(Parsed::Complete { .. })) {
        return;
    }
    let settings = Settings {
        forwarded: ForwardedHeaders {
            trust: policy & 1 != 0,
            real_ip: policy & 2 != 0,
            append: policy & 4 != 0,
            address_field: NAMES[usize::from(*name) % NAMES.len()].into(),
            host_field: "x-forwarded-host".into(),
            trusted: [if policy & 8 != 0 { "10.0.0.0/9" } else { "0.0.0.0/0" }]
                .into_iter()
                .map(|network| network.parse().expect("a network"))
                .collect(),
        },
        ..Settings::default()
    };
    let peer = SocketAddr::from(([10, 0, 0, 1], 4711));
    let arrival = Arrival::new(peer, SocketAddr::from(([10, 0, 0, 2], 80)), Scheme::Http);
    let mut view = ClientView::of_connection(&arrival);
    view.decide(&arrival, &head.view(&bytes), &settings, || 7);
    if !settings.forwarded.trusts(peer.ip()) {
        assert_eq!(view.address(), peer.ip());
    }
    view.write_fields::<FieldsView<'_>, _>(&mut Checked, KnownSet::EMPTY, None);
    // The same view decides the same again.
    let (address, list) = (view.address(), view.forwarded_list().map(<[u8]>::to_vec));
    view.decide(&arrival, &head.view(&bytes), &settings, || 7);
    assert_eq!((view.address(), view.forwarded_list()), (address, list.as_deref()));

    let found: Vec<_> = cookie::all(head.fields(), &bytes, b"route").collect();
    assert_eq!(cookie::find(head.fields(), &bytes, b"route"), found.last().copied());
    assert!(found.iter().all(|value| !value.contains(&b';') && !value.contains(&b' ')));
});
