//! The attack classes that the codec handles, and the edge cases of HTTP/1 that ingress-nginx users rely on.

use super::{request, request_within, response, with_fields, with_line};
use crate::http1::{
    BodyDecoder, BodyError, ChunkLimits, Event, Framing, HeadError, HeadLimits, HeadWriter, KnownField, KnownSet,
    Method, NameRules, Parsed, RequestHead, ResponseHead, TargetForm, Upgrade,
};

#[test]
fn content_length_with_transfer_encoding_is_refused() {
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\nCONTENT-LENGTH: 0\r\n",
        "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
        "Transfer-Encoding:\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(with_fields(lines), Err(400), "{lines:?}");
    }
}

#[test]
fn obfuscated_transfer_encoding_is_refused() {
    for lines in [
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: x chunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\x0c\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: chunked\r\n , identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(with_fields(lines), Err(400), "{lines:?}");
    }
    for lines in ["Transfer-Encoding: chunked\r\n", "transfer-encoding:\tCHUNKED \r\n"] {
        assert_eq!(with_fields(lines), Ok(Framing::Chunked), "{lines:?}");
    }
}

#[test]
fn unsupported_transfer_codings_are_not_implemented() {
    for lines in
        ["Transfer-Encoding: gzip\r\n", "Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n"]
    {
        assert_eq!(with_fields(lines), Err(501), "{lines:?}");
    }
}

#[test]
fn variant_spellings_of_framing_fields_never_get_through() {
    for lines in ["Transfer_Encoding: chunked\r\n", "Content_Length: 5\r\n", "Transfer.Encoding: chunked\r\n"] {
        for names in [NameRules::Plain, NameRules::Underscores, NameRules::Tokens] {
            let limits = HeadLimits { names, ..HeadLimits::default() };
            let head = request_within(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), &limits).unwrap();
            assert_eq!(head.framing(), Framing::None, "{lines:?}");
            assert_eq!(head.fields().len(), 1, "{lines:?}");
        }
    }
}

#[test]
fn transfer_encoding_in_http_1_0_is_refused() {
    let refused = request("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(refused.unwrap_err().status(), 400);
    assert!(response("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
}

#[test]
fn body_length_is_decided_by_the_message_for_every_method() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"] {
        let framing =
            |lines: &str| request(format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).unwrap().framing();
        assert_eq!(framing(""), Framing::None);
        assert_eq!(framing("Content-Length: 0\r\n"), Framing::Length(0));
        assert_eq!(framing("Content-Length: 7\r\n"), Framing::Length(7));
        assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Framing::Chunked);
    }
    assert_eq!(request("POST / HTTP/1.0\r\n\r\n").unwrap().framing(), Framing::None, "never `UntilClose`");
}

#[test]
fn a_connection_option_can_not_remove_framing_or_host() {
    let head = request(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: Content-Length, Host, Transfer-Encoding, Expect\r\n\r\n",
    )
    .unwrap();
    assert_eq!(head.framing(), Framing::Length(5));
    assert!(head.fields().present().contains(KnownField::ContentLength));
    assert!(head.fields().present().contains(KnownField::Host));
}

#[test]
fn strange_expectations_fail() {
    for lines in [
        "Expect: 200-ok\r\n",
        "Expect:\r\n",
        "Expect: 100-continue, x\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
    ] {
        assert_eq!(with_fields(&format!("Content-Length: 5\r\n{lines}")), Err(417), "{lines:?}");
    }
    let expects = |text: &str| request(text).unwrap().expects_continue();
    assert!(expects("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"));
    assert!(!expects("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n"));
    assert!(!expects("PUT / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"));
}

#[test]
fn ambiguous_content_length_is_refused() {
    for value in [
        "+5",
        "-5",
        "0x5",
        "5,5",
        "5, 5",
        "5 5",
        "5.0",
        "1e1",
        "",
        " ",
        "five",
        "\u{665}",
        "99999999999999999999",
        "9223372036854775808",
    ] {
        assert_eq!(with_fields(&format!("Content-Length: {value}\r\n")), Err(400), "{value:?}");
    }
    assert_eq!(with_fields("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(400));
    assert_eq!(with_fields("Content-Length: 5\r\ncontent-length: 6\r\n"), Err(400));
    assert_eq!(with_fields("Content-Length: 0000000005\r\n"), Ok(Framing::Length(5)));
    assert_eq!(with_fields("Content-Length: 9223372036854775807\r\n"), Ok(Framing::Length(i64::MAX as u64)));
}

/// Decodes the chunked body in `input`; returns its data and the kept trailers as text.
fn chunked(input: &str) -> Result<(String, String), BodyError> {
    let input = input.as_bytes();
    let mut body = BodyDecoder::new(Framing::Chunked, ChunkLimits::default());
    let (mut data, mut trailers, mut at) = (String::new(), String::new(), 0);
    loop {
        let rest = &input[at..];
        let decoded = body.decode(rest)?;
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&rest[range]).unwrap();
        at += decoded.consumed;
        match decoded.event {
            Event::Data(range) => data.push_str(text(range)),
            Event::Trailer { name, value } => trailers.push_str(&format!("{}={};", text(name), text(value))),
            Event::NeedMore => return Err(BodyError::Incomplete),
            Event::End => {
                assert_eq!(&input[at..], b"NEXT", "the next message is not touched");
                return Ok((data, trailers));
            }
        }
    }
}

#[test]
fn chunked_bodies_are_strict() {
    let ok = |data: &str| Ok((data.to_owned(), String::new()));
    assert_eq!(chunked("5\r\nhello\r\n0\r\n\r\nNEXT"), ok("hello"));
    assert_eq!(chunked("5;a=b;c=\"d\"\r\nhello\r\n00;x\r\n\r\nNEXT"), ok("hello"), "extensions are dropped");
    assert_eq!(chunked("5 \r\nhello\r\nA ;x\r\n0123456789\r\n0\r\n\r\nNEXT"), ok("hello0123456789"));
    for (input, error) in [
        ("10000000000000000\r\n", BodyError::ChunkSizeOverflow),
        ("ffffffffffffffff\r\n", BodyError::ChunkSizeOverflow),
        ("8000000000000000\r\n", BodyError::ChunkSizeOverflow),
        ("00000000000000005\r\n", BodyError::ChunkSizeOverflow),
        ("\r\n", BodyError::InvalidChunkSize),
        ("+5\r\n", BodyError::InvalidChunkSize),
        ("-5\r\n", BodyError::InvalidChunkSize),
        ("0x5\r\n", BodyError::InvalidChunkSize),
        (" 5\r\n", BodyError::InvalidChunkSize),
        ("5 5\r\n", BodyError::InvalidChunkSize),
        ("5,5\r\n", BodyError::InvalidChunkSize),
        ("g\r\n", BodyError::InvalidChunkSize),
        ("5;a\0\r\n", BodyError::InvalidChunkSize),
        ("5;a\rb\r\n", BodyError::InvalidChunkSize),
        ("5\nhello\r\n0\r\n\r\n", BodyError::InvalidChunkSize),
        ("5;\nhello\r\n0\r\n\r\n", BodyError::InvalidChunkSize),
        ("5\r\nhello\n0\r\n\r\n", BodyError::MissingChunkEnd),
        ("5\r\nhelloX\r\n0\r\n\r\n", BodyError::MissingChunkEnd),
        ("5\r\nhello\r0\r\n\r\n", BodyError::MissingChunkEnd),
        ("5\r\nhello0\r\n\r\n", BodyError::MissingChunkEnd),
        ("0\r\n\n", BodyError::InvalidTrailer),
        ("0\r\nA: b\n\r\n", BodyError::InvalidTrailer),
        ("0\r\n folded\r\n\r\n", BodyError::InvalidTrailer),
        ("0\r\nA : b\r\n\r\n", BodyError::InvalidTrailer),
        ("0\r\nA: \0\r\n\r\n", BodyError::InvalidTrailer),
        ("0\r\nno colon\r\n\r\n", BodyError::InvalidTrailer),
        ("0\r\n", BodyError::Incomplete),
        ("0\r\nA: b\r\n", BodyError::Incomplete),
    ] {
        assert_eq!(chunked(input), Err(error), "{input:?}");
    }
}

#[test]
fn the_overhead_of_a_chunked_body_is_bounded() {
    assert_eq!(chunked(&format!("5;{}", "x".repeat(300))), Err(BodyError::ChunkLineTooLong));
    assert_eq!(chunked(&format!("5;{}\r\nhello", "x".repeat(300))), Err(BodyError::ChunkLineTooLong));
    assert_eq!(chunked(&format!("1;{}\r\nx\r\n", "x".repeat(200)).repeat(30)), Err(BodyError::TooManyExtensions));
    assert_eq!(chunked(&format!("0\r\n{}", "A: b\r\n".repeat(2000))), Err(BodyError::TrailersTooLong));
    assert_eq!(chunked(&format!("0\r\nA: {}", "b".repeat(9000))), Err(BodyError::TrailersTooLong));
}

#[test]
fn forbidden_trailers_are_dropped() {
    let lines: String = [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Content-Encoding",
        "Content-Type",
        "Content-Range",
        "Trailer",
        "Cache-Control",
        "Expect",
        "Max-Forwards",
        "Range",
        "TE",
        "X-Forwarded-For",
        "X-Real-IP",
        "ssl-client-verify",
        "X-Accel-Redirect",
        "X_Forwarded_For",
        "Connection",
        "Upgrade",
        "Location",
        "Age",
        "Vary",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "If-Match",
        "X-Original-URL",
        "Forwarded",
        "Date",
        "Expires",
        "Retry-After",
    ]
    .map(|name| format!("{name}: 1\r\n"))
    .concat();
    let body = format!("0\r\n{lines}grpc-status: 0\r\nX-Checksum:  abc \r\n\r\nNEXT");
    assert_eq!(chunked(&body), Ok((String::new(), "grpc-status=0;X-Checksum=abc;".to_owned())));
}

#[test]
fn host_confusion_is_refused() {
    assert_eq!(request("GET / HTTP/1.1\r\n\r\n").unwrap_err(), HeadError::MissingHost);
    assert_eq!(request("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").unwrap_err(), HeadError::DuplicateHost);
    assert_eq!(request("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n").unwrap_err(), HeadError::DuplicateHost);
    for host in ["", "user@host", "a b", "a/b", "a,b", "a:99999", "a:x", "a..b", "a%00", "\u{e9}"] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(text).unwrap_err().status(), 400, "{host:?}");
    }
    assert!(request("GET / HTTP/1.0\r\n\r\n").unwrap().authority().is_none());
    let text = "GET / HTTP/1.1\r\nHost: EXAMPLE.com.:8080\r\n\r\n";
    let authority = request(text).unwrap().authority().unwrap();
    assert_eq!((authority.host.of(text.as_bytes()), authority.port), (&b"EXAMPLE.com."[..], Some(8080)));
}

#[test]
fn absolute_target_wins_over_host() {
    let text = "GET hTTp://target:81/p?q HTTP/1.1\r\nHost: other\r\n\r\n";
    let head = request(text).unwrap();
    assert_eq!(head.target(), TargetForm::Absolute { https: false });
    assert_eq!(head.authority().unwrap().span.of(text.as_bytes()), b"target:81");
    assert_eq!(head.path().of(text.as_bytes()), b"/p");
    assert_eq!(head.query().unwrap().of(text.as_bytes()), b"q");
    assert_eq!(head.request_uri().of(text.as_bytes()), b"/p?q");

    let text = "GET https://target?q HTTP/1.0\r\n\r\n";
    let head = request(text).unwrap();
    assert_eq!(head.target(), TargetForm::Absolute { https: true });
    assert!(head.path().is_empty());
    assert_eq!(head.query().unwrap().of(text.as_bytes()), b"q");
    assert_eq!(head.request_uri().of(text.as_bytes()), b"?q");
    for text in ["GET https://target HTTP/1.0\r\n\r\n", "GET http://target:81 HTTP/1.0\r\n\r\n"] {
        assert_eq!(request(text).unwrap().request_uri().of(text.as_bytes()), b"/");
    }

    assert_eq!(request("GET http://a/ HTTP/1.1\r\n\r\n").unwrap_err(), HeadError::MissingHost);
    assert_eq!(request("GET http://a/ HTTP/1.1\r\nHost: b@c\r\n\r\n").unwrap_err(), HeadError::InvalidHost);
    for target in ["http://user@a/", "http:///", "http://", "ftp://a/", "a:443", "a/b", "*", "", "http:/a", "//"] {
        let expected = if target == "//" { 200 } else { 400 };
        assert_eq!(with_line(&format!("GET {target} HTTP/1.1")), expected, "{target:?}");
    }
    assert_eq!(with_line("OPTIONS * HTTP/1.1"), 200);
}

#[test]
fn names_listed_in_connection_are_removed() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Drop: 1\r\nConnection: close, X-Drop\r\nAuthorization: b\r\nx-drop: 2\r\n\
        Cookie: c\r\nX-Keep: 3\r\nConnection: authorization , ,COOKIE\r\n\r\n";
    let head = request(text).unwrap();
    assert!(!head.connection().keep_alive);
    let names: Vec<_> =
        head.fields().iter().map(|field| std::str::from_utf8(field.name(text.as_bytes())).unwrap()).collect();
    assert_eq!(names, ["Host", "Connection", "X-Keep", "Connection"]);
    assert!(head.fields().get(KnownField::Authorization, text.as_bytes()).is_none());
    assert!(!head.fields().present().contains(KnownField::Cookie));
}

#[test]
fn connection_can_not_remove_fields_that_identify_the_client() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nssl-client-verify: SUCCESS\r\n\
        Connection: X-Forwarded-For, X-Real-IP, ssl-client-verify\r\n\r\n";
    assert_eq!(request(text).unwrap().fields().len(), 5);
}

#[test]
fn connection_options_are_bounded() {
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "a,".repeat(100));
    assert_eq!(request(text).unwrap_err(), HeadError::TooManyConnectionOptions);
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "Connection:\r\n".repeat(100));
    assert_eq!(request(text).unwrap_err(), HeadError::TooManyConnectionOptions);
}

#[test]
fn spoofed_identity_fields_are_found_by_family() {
    let limits = HeadLimits { names: NameRules::Underscores, ..HeadLimits::default() };
    let names = [
        "X-Forwarded-For",
        "X_Forwarded_Proto",
        "x-forwarded-anything",
        "X-FORWARDED_HOST",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X_Rewrite_URL",
        "X-Original-Forwarded-For",
        "X-Scheme",
        "X-Forwarded-Prefix",
    ];
    let lines = names.map(|name| format!("{name}: x\r\n")).concat();
    let head = request_within(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), &limits).unwrap();
    assert_eq!(head.fields().iter().filter(|field| KnownSet::FORWARDED.contains(field.known())).count(), names.len());

    let names = ["SSL-Client-Verify", "ssl_client_cert", "Ssl-Client-Anything"];
    let lines = names.map(|name| format!("{name}: x\r\n")).concat();
    let head = request_within(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), &limits).unwrap();
    assert_eq!(head.fields().iter().filter(|field| KnownSet::SSL_CLIENT.contains(field.known())).count(), names.len());
}

#[test]
fn any_protocol_is_an_upgrade_but_http_and_tls() {
    let upgrade =
        |lines: &str| request(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).unwrap().connection().upgrade;
    for lines in [
        "Connection: Upgrade\r\nUpgrade: WebSocket\r\n",
        "Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: SPDY/3.1\r\n",
        "Connection: upgrade\r\nUpgrade: one, two/2.0 ,three\r\n",
        "Connection: upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n",
    ] {
        assert_eq!(upgrade(lines), Upgrade::Protocol, "{lines:?}");
    }
    assert_eq!(upgrade("Upgrade: websocket\r\n"), Upgrade::None);
    assert_eq!(upgrade("Connection: upgrade\r\n"), Upgrade::None);
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n",
        "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: upgrade\r\nUpgrade: http/1.1\r\n",
        "Connection: upgrade\r\nUpgrade: H2C/1\r\n",
        "Connection: upgrade\r\nUpgrade: websocket,tls/1.3\r\n",
        "Connection: upgrade\r\nUpgrade: websocket,,x\r\n",
        "Connection: upgrade\r\nUpgrade: web socket\r\n",
        "Connection: upgrade\r\nUpgrade: a/b/c\r\n",
        "Connection: upgrade\r\nUpgrade: \r\n",
    ] {
        assert_eq!(upgrade(lines), Upgrade::Refused, "{lines:?}");
    }
    assert!(Upgrade::is_among(b"WEBSOCKET", b"spdy/3.1, websocket") && !Upgrade::is_among(b"spdy", b"spdy/3.1"));
    let old = request("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert_eq!(old.connection().upgrade, Upgrade::None);

    let switch = response("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").unwrap();
    assert_eq!(switch.connection().upgrade, Upgrade::Refused);
    assert!(!switch.is_interim() && !switch.allows_reuse(Method::Get));
}

#[test]
fn bare_line_feeds_of_an_endpoint_are_accepted_where_unambiguous() {
    for (text, fields) in [
        ("HTTP/1.1 200 OK\nA: b\nContent-Length: 2\n\n", 2),
        ("HTTP/1.1 200\n\n", 0),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\nA: b\n\n", 2),
        ("HTTP/1.1 200 OK\nContent-Length: 2\r\nA: b\n\r\n", 2),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\nC: d\r\nE: f\r\n\r\n", 4),
    ] {
        let head = response(text).unwrap();
        assert_eq!((head.fields().len(), head.status()), (fields, 200), "{text:?}");
        let mut out = Vec::new();
        let mut writer = HeadWriter::new(&mut out);
        writer.forward_status_line(&head, text.as_bytes());
        writer.forward(head.fields(), text.as_bytes(), KnownSet::EMPTY, |_| false);
        writer.finish();
        let normal = text.replace("\r\n", "\n").replace("200\n", "200 \n").replace('\n', "\r\n");
        assert_eq!(String::from_utf8(out).unwrap(), normal);
        let mixed = text.contains('\r');
        assert_eq!(head.connection().keep_alive, !mixed, "{text:?}");
    }
    for (text, error) in [
        ("HTTP/1.1 200 OK\r\nA: b\nContent-Length: 2\r\n\r\n", HeadError::BareLineFeed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\nA: b\r\n\r\n", HeadError::BareLineFeed),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n", HeadError::BareLineFeed),
        ("HTTP/1.1 200 OK\r\nA: b\nConnection: close\nB: c\r\n\r\n", HeadError::BareLineFeed),
        ("HTTP/1.1 200 OK\nA: b\rc\n\n", HeadError::InvalidFieldValue),
        ("HTTP/1.1 200 OK\nA: b\r\r\n\n", HeadError::InvalidFieldValue),
        ("HTTP/1.1 200 OK\nA: b\0\n\n", HeadError::InvalidFieldValue),
        ("HTTP/1.1 200 OK\r\nA: b\n c\n\n", HeadError::ObsoleteFold),
        ("\nHTTP/1.1 200 OK\n\n", HeadError::InvalidVersion),
    ] {
        assert_eq!(response(text).map(|head| head.status()), Err(error), "{text:?}");
    }
}

#[test]
fn oversized_heads_are_refused_with_their_status() {
    let limits = HeadLimits { start_line: 64, field_line: 48, total: 200, fields: 5, ..HeadLimits::default() };
    let status = |text: String| request_within(text, &limits).map_or_else(HeadError::status, |_| 200);
    let line = |len: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(len - 16));
    let field = |len: usize| format!("x: {}\r\n", "a".repeat(len - 5));
    let host = "Host: a\r\n";
    assert_eq!(status(line(64) + host + "\r\n"), 200);
    assert_eq!(status(line(65) + host + "\r\n"), 414);
    assert_eq!(status(line(64)[..63].to_owned() + "aaaaaaaaaaaaaaa"), 414, "before the line has ended");
    assert_eq!(status(line(30) + host + &field(48) + "\r\n"), 200);
    assert_eq!(status(line(30) + host + &field(49) + "\r\n"), 431);
    assert_eq!(status(line(30) + host + &field(48)[..46] + "aaaaaaaaaaaaa"), 431, "before the line has ended");
    assert_eq!(status(line(30) + host + &field(48) + &field(48) + &field(48) + &field(15) + "\r\n"), 200);
    assert_eq!(status(line(30) + host + &field(48) + &field(48) + &field(48) + &field(16) + "\r\n"), 431);
    assert_eq!(status(line(30) + host + &field(9).repeat(4) + "\r\n"), 200);
    assert_eq!(status(line(30) + host + &field(9).repeat(5) + "\r\n"), 431);
    assert_eq!(status(line(30) + host + &"a_b: x\r\n".repeat(5) + "\r\n"), 431, "dropped fields count");
}

#[test]
fn request_lines_are_strict() {
    for (line, status) in [
        ("GET / HTTP/1.1", 200),
        ("GET / HTTP/1.0", 200),
        ("M-SEARCH / HTTP/1.1", 200),
        ("FOO_BAR / HTTP/1.1", 200),
        ("TRACE / HTTP/1.1", 405),
        ("CONNECT a:443 HTTP/1.1", 405),
        ("get / HTTP/1.1", 400),
        ("Get / HTTP/1.1", 400),
        ("GE(T / HTTP/1.1", 400),
        ("G\0T / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET /  HTTP/1.1", 400),
        ("GET\t/ HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET /\0 HTTP/1.1", 400),
        ("GET /\r HTTP/1.1", 400),
        ("GET /\x7f HTTP/1.1", 400),
        ("GET /#f HTTP/1.1", 400),
        ("GET /", 400),
        ("GET", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/a.b", 400),
        ("GET / HTTPS/1.1", 400),
        ("GET / HTTP/2.5", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/10.1", 505),
        ("PRI * HTTP/2.0", 505),
    ] {
        assert_eq!(with_line(line), status, "{line:?}");
    }
    assert_eq!(with_line(&format!("{} / HTTP/1.1", "A".repeat(33))), 400);
}

#[test]
fn other_protocols_are_refused_at_their_first_byte() {
    for byte in [0x16_u8, b'{', b' ', b'g', 0] {
        let refused = RequestHead::default().parse(&[byte], &HeadLimits::default());
        assert_eq!(refused, Err(HeadError::InvalidMethod));
    }
    let refused = ResponseHead::default().parse(b"HTTQ", &HeadLimits::default());
    assert_eq!(refused, Err(HeadError::InvalidVersion));
}

#[test]
fn bare_line_feeds_are_refused_without_waiting_for_more() {
    for text in ["\n", "\r\n\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: a\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"] {
        let refused = RequestHead::default().parse(text.as_bytes(), &HeadLimits::default());
        assert_eq!(refused, Err(HeadError::BareLineFeed), "{text:?}");
    }
}

#[test]
fn field_lines_are_strict() {
    for lines in [
        " X: y\r\n",
        "X: y\r\n z\r\n",
        "X: y\r\n\tz\r\n",
        "X : y\r\n",
        "X\t: y\r\n",
        "X Y: z\r\n",
        "X\0: y\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\x01b\r\n",
        "X: a\x7fb\r\n",
        "X\r\n",
        ": y\r\n",
        "X: y\r\r\n",
    ] {
        assert_eq!(with_fields(lines), Err(400), "{lines:?}");
    }
    for lines in ["X: \r\n", "X:y\r\n", "X: a\tb\r\n", "X: caf\u{e9}\r\n", "a_b: c\r\n", "a.b: c\r\n", "a(b: c\r\n"] {
        assert_eq!(with_fields(lines), Ok(Framing::None), "{lines:?}");
    }
    let strict = HeadLimits { names: NameRules::Tokens, ..HeadLimits::default() };
    let refused = request_within("GET / HTTP/1.1\r\nHost: a\r\na(b: c\r\n\r\n", &strict);
    assert_eq!(refused.unwrap_err(), HeadError::InvalidFieldName);
}

#[test]
fn a_few_empty_lines_before_a_request_are_tolerated() {
    let tail = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = "\r\n".repeat(4) + tail;
    let head = request(&text).unwrap();
    assert_eq!(head.path().of(text.as_bytes()), b"/");
    assert_eq!(request("\r\n".repeat(5) + tail).unwrap_err(), HeadError::LeadingEmptyLines);
    assert!(response("\r\nHTTP/1.1 200 OK\r\n\r\n").is_err());

    let started = |text: &str| RequestHead::default().parse(text.as_bytes(), &HeadLimits::default());
    assert_eq!(started(""), Ok(Parsed::Partial { started: false }));
    assert_eq!(started("\r\n\r"), Ok(Parsed::Partial { started: false }));
    assert_eq!(started("\r\nG"), Ok(Parsed::Partial { started: true }));
}

#[test]
fn persistence_follows_version_and_options() {
    let keep = |text: &str| request(text).unwrap().connection().keep_alive;
    assert!(keep("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\n\r\n"));
    assert!(keep("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(!keep("GET / HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n"));
}

#[test]
fn response_framing_follows_the_message_and_the_request() {
    let framing = |text: &str, method| response(text).unwrap().framing(method);
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(framing(length, Method::Get), Framing::Length(5));
    assert_eq!(framing(length, Method::Head), Framing::None);
    assert_eq!(framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get), Framing::Chunked);
    assert_eq!(framing("HTTP/1.1 200\r\n\r\n", Method::Get), Framing::UntilClose);
    assert_eq!(framing("HTTP/1.0 200 \r\n\r\n", Method::Get), Framing::UntilClose);
    for status in [100, 101, 103, 204, 304] {
        assert_eq!(framing(&format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n"), Method::Get), Framing::None);
    }
    let reuse = |text: &str, method| response(text).unwrap().allows_reuse(method);
    assert!(reuse(length, Method::Get));
    assert!(!reuse("HTTP/1.1 200 OK\r\n\r\n", Method::Get));
    assert!(reuse("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Method::Get));
    assert!(!reuse("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Method::Get));
    assert!(!reuse("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Get));
}

#[test]
fn ambiguous_responses_are_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(response(text).is_err(), "{text:?}");
    }
}
