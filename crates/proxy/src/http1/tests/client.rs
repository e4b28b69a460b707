//! Tests with received heads which statements about the client are trusted.

use std::net::IpAddr;

use fairway_model::client::{Arrival, ClientView};
use fairway_model::{ForwardedHeaders, KnownField, KnownSet, Scheme, Settings};

use crate::http1::{FieldsView, HeadLimits, HeadWriter, NameRules, Parsed, PreparedField, RequestHead};
use crate::random::Rng;
use proptest::prelude::*;

const PEER: &str = "10.9.9.9:5555";

fn arrival(peer: &str, scheme: Scheme) -> Arrival {
    let local = match scheme {
        Scheme::Http => "192.168.0.1:80",
        Scheme::Https => "192.168.0.1:8443",
    };
    Arrival::new(peer.parse().unwrap(), local.parse().unwrap(), scheme)
}

fn settings(change: impl FnOnce(&mut ForwardedHeaders)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings.forwarded);
    settings
}

fn trusting(networks: &[&str]) -> Settings {
    settings(|forwarded| {
        forwarded.trust = true;
        forwarded.trusted = networks.iter().map(|net| net.parse().unwrap()).collect();
    })
}

fn decided(fields: &str, arrival: &Arrival, settings: &Settings) -> ClientView {
    let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let mut head = RequestHead::default();
    let limits = HeadLimits { names: NameRules::Underscores, ..HeadLimits::default() };
    let parsed = head.parse(bytes.as_bytes(), &limits).unwrap();
    assert!(matches!(parsed, Parsed::Complete { .. }));
    let mut view = ClientView::default();
    // Used twice, as on a connection: nothing of the first request may remain.
    view.decide(arrival, &head.view(bytes.as_bytes()), settings, || Rng::from_seed(8).bits());
    view.decide(arrival, &head.view(bytes.as_bytes()), settings, || Rng::from_seed(8).bits());
    view
}

fn sent(view: &ClientView) -> String {
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    let family = PreparedField::written_by(|writer| view.write_family::<FieldsView<'_>, _>(writer, KnownSet::EMPTY));
    view.write_fields::<FieldsView<'_>, _>(&mut writer, KnownSet::EMPTY, Some(&family));
    writer.finish();
    String::from_utf8(out).unwrap().trim_end().replace("\r\n", "\n")
}

fn line<'a>(sent: &'a str, name: &str) -> Option<&'a str> {
    sent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn by_default_no_peer_is_trusted() {
    let fields = "Host: Shop.example:8080\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\
        X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 444\r\nX-Request-ID: abc\r\nX-Real-IP: 6.6.6.6\r\n";
    let view = decided(fields, &arrival(PEER, Scheme::Http), &Settings::default());
    assert_eq!(
        sent(&view),
        "X-Request-ID: abc\nX-Forwarded-Host: Shop.example:8080\nX-Original-Forwarded-For: 1.2.3.4\n\
         X-Original-Forwarded-Host: evil.example\nX-Real-IP: 10.9.9.9\nX-Forwarded-For: 10.9.9.9\n\
         X-Forwarded-Proto: http\nX-Forwarded-Scheme: http\nX-Scheme: http\nX-Forwarded-Port: 80"
    );
    assert_eq!(view.address(), "10.9.9.9".parse::<IpAddr>().unwrap());
    assert_eq!((view.port(), view.scheme(), view.forwarded_port()), (5555, Scheme::Http, 80));
}

#[test]
fn a_tls_listener_is_port_443() {
    let sent = sent(&decided("Host: a\r\n", &arrival(PEER, Scheme::Https), &Settings::default()));
    assert_eq!(line(&sent, "X-Forwarded-Port"), Some("443"));
    assert_eq!(line(&sent, "X-Forwarded-Proto"), Some("https"));
    assert_eq!(line(&sent, "X-Original-Forwarded-For"), None);
    assert_eq!(line(&sent, "X-Request-ID").map(str::len), Some(32));
}

#[test]
fn trusted_peers_may_name_the_client() {
    let fields = "Host: a\r\nX-Forwarded-For: 1.2.3.4, 10.0.0.7\r\nX-Forwarded-Proto: HTTPS\r\n\
        X-Forwarded-Host: b.example:1, c\r\nX-Forwarded-Port: 8443\r\n";
    let view = decided(fields, &arrival(PEER, Scheme::Http), &trusting(&["10.0.0.0/8"]));
    let sent = sent(&view);
    assert_eq!(line(&sent, "X-Real-IP"), Some("1.2.3.4"));
    assert_eq!(line(&sent, "X-Forwarded-For"), Some("1.2.3.4"));
    assert_eq!(line(&sent, "X-Forwarded-Host"), Some("b.example:1"));
    assert_eq!(line(&sent, "X-Forwarded-Port"), Some("8443"));
    assert_eq!(line(&sent, "X-Scheme"), Some("https"));
    assert_eq!(view.port(), 0);

    let other = decided(fields, &arrival("11.0.0.1:1", Scheme::Http), &trusting(&["10.0.0.0/8"]));
    assert_eq!(other.address().to_string(), "11.0.0.1");
    assert_eq!((other.scheme(), other.forwarded_port(), other.host()), (Scheme::Http, 80, &b"a"[..]));
}

#[test]
fn hops_are_walked_from_the_right() {
    let client = |fields: &str, networks: &[&str]| {
        decided(&format!("Host: a\r\n{fields}"), &arrival(PEER, Scheme::Http), &trusting(networks))
            .address()
            .to_string()
    };
    let all = &["0.0.0.0/0", "::/0"];
    assert_eq!(client("X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\r\n", all), "1.1.1.1");
    let ours = &["10.0.0.0/8", "3.3.3.3/32"];
    assert_eq!(client("X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\r\n", ours), "2.2.2.2");
    assert_eq!(client("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 3.3.3.3\r\n", ours), "1.1.1.1");
    assert_eq!(client("X-Forwarded-For: 1.1.1.1, what, 3.3.3.3\r\n", ours), "3.3.3.3");
    assert_eq!(client("X-Forwarded-For: what\r\n", ours), "10.9.9.9");
    assert_eq!(client("X-Forwarded-For: , 2.2.2.2:77 , ,\r\n", ours), "2.2.2.2");
    assert_eq!(client("X-Forwarded-For: [2001:db8::1]:9, 3.3.3.3\r\n", ours), "2001:db8::1");
    assert_eq!(client("X-Forwarded-For: ::ffff:2.2.2.2\r\n", ours), "2.2.2.2");
    assert_eq!(client("", ours), "10.9.9.9");
}

#[test]
fn the_full_list_is_kept_only_where_asked() {
    let mut all = trusting(&["0.0.0.0/0"]);
    all.forwarded.append = true;
    let fields = "Host: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n";
    let told = |view: &ClientView| view.forwarded_list().map_or_else(|| view.address_text().to_vec(), <[u8]>::to_vec);
    let view = decided(fields, &arrival(PEER, Scheme::Http), &all);
    assert_eq!(told(&view), b"1.1.1.1, 2.2.2.2, 10.9.9.9");
    assert_eq!(view.received_forwarded_for(), b"1.1.1.1, 2.2.2.2");
    assert_eq!(line(&sent(&view), "X-Original-Forwarded-For"), Some("1.1.1.1, 2.2.2.2"));
    let none = decided("Host: a\r\n", &arrival(PEER, Scheme::Http), &all);
    assert_eq!(told(&none), b"10.9.9.9");
    let mut some = all;
    some.forwarded.trusted = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    assert_eq!(told(&decided(fields, &arrival(PEER, Scheme::Http), &some)), b"10.9.9.9");
}

#[test]
fn real_ip_alone_trusts_the_address_only() {
    let real_ip = settings(|forwarded| {
        forwarded.real_ip = true;
        forwarded.address_field = "x-client".into();
    });
    let fields = "Host: a\r\nX-Client: 4.4.4.4\r\nX-Forwarded-For: 5.5.5.5\r\nX-Forwarded-Proto: https\r\n";
    let view = decided(fields, &arrival(PEER, Scheme::Http), &real_ip);
    assert_eq!(&*view.address_text(), b"4.4.4.4");
    assert_eq!(view.scheme(), Scheme::Http);
    assert_eq!(line(&sent(&view), "X-Original-Forwarded-For"), Some("4.4.4.4"));
}

#[test]
fn invalid_values_of_trusted_peers_are_ignored() {
    let fields = "Host: a\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Port: 99999\r\nX-Forwarded-Host: x y\r\n";
    let view = decided(fields, &arrival(PEER, Scheme::Http), &trusting(&["0.0.0.0/0"]));
    assert_eq!((view.scheme(), view.forwarded_port(), view.host()), (Scheme::Http, 80, &b"a"[..]));
}

#[test]
fn ids_are_passed_on_or_made() {
    let id = |fields: &str, generate| {
        let settings = Settings { generate_request_id: generate, ..Settings::default() };
        let view = decided(&format!("Host: a\r\n{fields}"), &arrival(PEER, Scheme::Http), &settings);
        String::from_utf8(view.request_id().to_vec()).unwrap()
    };
    assert_eq!(id("X-Request-ID: a\r\nx-request-id: b\r\n", true), "a, b");
    assert_eq!(id("", false), "");
    let made = id("", true);
    assert!(made.len() == 32 && made.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{made}");
}

#[test]
fn a_request_without_host_has_the_host_of_the_catch_all() {
    let bytes = b"GET / HTTP/1.0\r\n\r\n";
    let mut head = RequestHead::default();
    head.parse(bytes, &HeadLimits::default()).unwrap();
    let mut view = ClientView::default();
    view.decide(&arrival(PEER, Scheme::Http), &head.view(bytes), &Settings::default(), || 1);
    assert_eq!(view.host(), b"_");
}

#[test]
fn all_forwarding_fields_of_an_untrusted_peer_are_removed() {
    let stranger = decided("Host: a\r\n", &arrival(PEER, Scheme::Http), &Settings::default()).removed();
    let friend = decided("Host: a\r\n", &arrival(PEER, Scheme::Http), &trusting(&["10.0.0.0/8"])).removed();
    for name in ["X-Forwarded-For", "x_forwarded_proto", "X-Real-IP", "X-Scheme", "Proxy", "X-Original-Forwarded-For"] {
        let field = KnownField::classify(name.as_bytes());
        assert!(stranger.contains(field) && friend.contains(field), "{name}");
    }
    for name in ["Forwarded", "X-Forwarded-Prefix", "X-Forwarded-Anything", "X-Original-URL", "ssl-client-verify"] {
        let field = KnownField::classify(name.as_bytes());
        assert!(stranger.contains(field) && !friend.contains(field), "{name}");
    }
}

proptest! {
    #[test]
    fn what_a_stranger_sends_is_never_a_fact(
        name in "(X-Forwarded-(For|Host|Proto|Port|Scheme)|X-Real-IP|X-Scheme)", value in "[ -~]{0,30}",
    ) {
        let plain = decided("Host: a\r\n", &arrival(PEER, Scheme::Http), &Settings::default());
        let with = decided(&format!("Host: a\r\n{name}: {value}\r\n"), &arrival(PEER, Scheme::Http), &Settings::default());
        let facts = |view: &ClientView| {
            sent(view).lines().filter(|line| !line.starts_with("X-Original-")).map(str::to_owned).collect::<Vec<_>>()
        };
        prop_assert_eq!(facts(&plain), facts(&with));
    }
}

/// Schemes from a trusted peer are forwarded; values that can't be a scheme are not.
#[test]
fn schemes_of_trusted_peers_are_forwarded_unchanged() {
    for (named, told, scheme, plain) in [
        ("wss", "wss", Scheme::Https, false),
        ("WS", "WS", Scheme::Http, false),
        ("HTTPS", "https", Scheme::Https, false),
        ("http", "http", Scheme::Http, true),
        ("spdy", "spdy", Scheme::Http, false),
        ("a b", "http", Scheme::Http, true),
        ("", "http", Scheme::Http, true),
    ] {
        let fields = format!("Host: a\r\nX-Forwarded-Proto: {named}\r\n");
        let view = decided(&fields, &arrival(PEER, Scheme::Http), &trusting(&["0.0.0.0/0"]));
        for name in ["X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Scheme"] {
            assert_eq!(line(&sent(&view), name), Some(told), "{named}");
        }
        assert_eq!((view.scheme(), view.is_plain()), (scheme, plain), "{named}");
    }
}
