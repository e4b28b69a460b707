//! Arbitrary input: nothing panics, splitting the bytes never matters, and written heads read back as intended.

use proptest::prelude::*;

use crate::http1::{
    BodyDecoder, BodyError, ChunkEncoder, ChunkLimits, ChunkRelay, Event, Framing, HeadError, HeadLimits, HeadWriter,
    KnownField, KnownSet, NameRules, Parsed, Relay, RequestHead, ResponseHead,
};

/// Heads made of pieces that are nearly right.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "POST http://b:80/x?y HTTP/1.1\r\n", "OPTIONS * HTTP/1.0\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.0 304\r\n",
        ]),
        1 => prop::sample::select(vec!["\r\n", "GET /", "GET / HTTP/1.1\n", "X / HTTP/2.0\r\n", "HTTP/1.1 20\r\n"]),
    ];
    let field = prop_oneof![
        8 => prop::sample::select(vec![
            "Host: a\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close, X\r\n", "X: y\r\n", "X:  y \r\n",
            "Connection: upgrade\r\nUpgrade: websocket\r\n", "a_b: c\r\n", "X_Real_IP: c\r\n", "Expect: 100-continue\r\n", "E:\r\n",
            "Connection:,,\r\n", "Cookie: a=b; c=d\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::sample::select(vec!["X: y\n", " fold\r\n", "a b: c\r\n", "a(: c\r\n", "X: \0\r\n", "Content-Length: +1\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    (line, prop::collection::vec(field, 0..10), prop::bool::weighted(0.9), prop::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(line, fields, ended, rest)| {
            let mut bytes = line.as_bytes().to_vec();
            bytes.extend(fields.concat());
            if ended {
                bytes.extend(b"\r\n");
            }
            bytes.extend(rest);
            bytes
        })
}

fn names() -> impl Strategy<Value = NameRules> {
    prop::sample::select(vec![NameRules::Plain, NameRules::Underscores, NameRules::Tokens])
}

fn limits() -> impl Strategy<Value = HeadLimits> {
    (10..80_usize, 10..60_usize, 20..300_usize, 0..10_usize, names(), any::<bool>()).prop_map(
        |(start_line, field_line, total, fields, names, small)| {
            let policy = HeadLimits { names, ..HeadLimits::default() };
            if small { HeadLimits { start_line, field_line, total, fields, ..policy } } else { policy }
        },
    )
}

/// Where the input is cut, as ends of prefixes; the last is the whole input.
fn prefixes(len: usize, cuts: &[prop::sample::Index]) -> Vec<usize> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(len + 1)).chain([len]).collect();
    ends.sort_unstable();
    ends
}

/// The outcome and everything that was parsed of a head, however it arrived.
fn outcome<H: std::fmt::Debug>(result: Result<Parsed, HeadError>, head: &H) -> String {
    match result {
        Ok(parsed) => format!("{parsed:?} {head:?}"),
        Err(error) => format!("{error:?}"),
    }
}

/// A chunked body from `pieces`, with extensions, as a peer might send it.
fn encoded(pieces: &[Vec<u8>], extensions: bool, trailers: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        if extensions && index % 2 == 1 && !piece.is_empty() {
            out.extend(format!("0{:X};x=y\r\n", piece.len()).bytes());
            out.extend(piece);
            out.extend(b"\r\n");
        } else {
            ChunkEncoder::chunk(piece, &mut out);
        }
    }
    if trailers {
        ChunkEncoder::end([(&b"X-Sum"[..], &b"1"[..]), (b"Host", b"evil")], &mut out);
    } else {
        out.extend(ChunkEncoder::END);
    }
    out
}

/// Decodes `input` that arrives in pieces; returns the data, the trailers, and how many bytes were left over.
fn decode(input: &[u8], ends: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize), BodyError> {
    let mut body = BodyDecoder::new(Framing::Chunked, ChunkLimits::default());
    let (mut data, mut trailers, mut at) = (Vec::new(), Vec::new(), 0);
    for &end in ends {
        loop {
            let rest = &input[at..end.max(at)];
            let decoded = body.decode(rest)?;
            at += decoded.consumed;
            match decoded.event {
                Event::Data(range) => data.extend(&rest[range]),
                Event::Trailer { name, value } => trailers.extend([&rest[name], b"=", &rest[value], b";"].concat()),
                Event::NeedMore | Event::End => break,
            }
        }
    }
    body.close()?;
    assert_eq!(body.data_len(), data.len() as u64);
    Ok((data, trailers, input.len() - at))
}

/// Relays `input` that arrives in pieces.
fn relay(input: &[u8], ends: &[usize]) -> Result<Vec<u8>, BodyError> {
    let mut relay = ChunkRelay::new(ChunkLimits::default());
    let (mut sent, mut at) = (Vec::new(), 0);
    for &end in ends {
        loop {
            let rest = &input[at..end.max(at)];
            let relayed = relay.relay(rest, &mut sent)?;
            at += relayed.consumed;
            match relayed.relay {
                Relay::Forward(range) => sent.extend(&rest[range]),
                Relay::Rewritten => assert!(relayed.consumed > 0),
                Relay::NeedMore | Relay::End => break,
            }
        }
    }
    if relay.is_done() { Ok(sent) } else { Err(BodyError::Incomplete) }
}

proptest! {
    #[test]
    fn splitting_a_head_changes_nothing(
        bytes in head(), limits in limits(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), every in any::<bool>(),
    ) {
        let ends = if every { (0..=bytes.len()).collect() } else { prefixes(bytes.len(), &cuts) };
        let (mut whole, mut pieces) = (RequestHead::default(), RequestHead::default());
        let expected = whole.parse(&bytes, &limits);
        let expected = outcome(expected, &whole);
        let mut result = Ok(Parsed::Partial { started: false });
        for &end in &ends {
            result = pieces.parse(&bytes[..end], &limits);
            if !matches!(result, Ok(Parsed::Partial { .. })) {
                break;
            }
        }
        prop_assert_eq!(outcome(result, &pieces), expected);

        let (mut whole, mut pieces) = (ResponseHead::default(), ResponseHead::default());
        let expected = whole.parse(&bytes, &limits);
        let expected = outcome(expected, &whole);
        let mut result = Ok(Parsed::Partial { started: false });
        for &end in &ends {
            result = pieces.parse(&bytes[..end], &limits);
            if !matches!(result, Ok(Parsed::Partial { .. })) {
                break;
            }
        }
        prop_assert_eq!(outcome(result, &pieces), expected);
    }

    #[test]
    fn a_reused_head_remembers_nothing(first in head(), second in head()) {
        let limits = HeadLimits::default();
        let (mut reused, mut fresh) = (RequestHead::default(), RequestHead::default());
        if !matches!(reused.parse(&first, &limits), Ok(Parsed::Partial { .. })) {
            let expected = fresh.parse(&second, &limits);
            let result = reused.parse(&second, &limits);
            prop_assert_eq!(outcome(result, &reused), outcome(expected, &fresh));
        }
    }

    #[test]
    fn httparse_reads_the_same(bytes in head()) {
        let limits = HeadLimits { names: NameRules::Tokens, ..HeadLimits::default() };
        let mut ours = RequestHead::default();
        if let Ok(Parsed::Complete { len }) = ours.parse(&bytes, &limits) {
            let mut storage = [httparse::EMPTY_HEADER; 300];
            let mut theirs = httparse::Request::new(&mut storage);
            prop_assert_eq!(theirs.parse(&bytes), Ok(httparse::Status::Complete(len)));
            prop_assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method_bytes(&bytes)));
            prop_assert_eq!(theirs.path.map(str::as_bytes), Some(ours.target_span().of(&bytes)));
            let mut theirs = theirs.headers.iter();
            for field in ours.fields() {
                prop_assert!(theirs.any(|header| header.name.as_bytes() == field.name(&bytes) && header.value == field.value(&bytes)));
            }
        }
        let mut ours = ResponseHead::default();
        if let Ok(Parsed::Complete { len }) = ours.parse(&bytes, &limits) {
            let mut storage = [httparse::EMPTY_HEADER; 300];
            let mut theirs = httparse::Response::new(&mut storage);
            prop_assert_eq!(theirs.parse(&bytes), Ok(httparse::Status::Complete(len)));
            prop_assert_eq!(theirs.code, Some(ours.status()));
            let mut theirs = theirs.headers.iter();
            for field in ours.fields() {
                prop_assert!(theirs.any(|header| header.name.as_bytes() == field.name(&bytes) && header.value == field.value(&bytes)));
            }
        }
    }

    #[test]
    fn forwarded_heads_read_back(bytes in head(), limits in limits()) {
        let mut head = RequestHead::default();
        if let Ok(Parsed::Complete { .. }) = head.parse(&bytes, &limits) {
            let drop = KnownSet::HOP_BY_HOP.with(KnownField::ContentLength);
            let mut out = Vec::new();
            let mut writer = HeadWriter::new(&mut out);
            writer.request_line(head.method_bytes(&bytes), head.target_span().of(&bytes)).unwrap();
            writer.forward(head.fields(), &bytes, drop, |_| false);
            if !head.fields().present().contains(KnownField::Host) {
                writer.prepared(&crate::http1::PreparedField::new(b"Host", b"a").unwrap());
            }
            writer.framing(head.framing());
            writer.finish();

            let strict = HeadLimits { names: NameRules::Tokens, ..HeadLimits::default() };
            let mut again = RequestHead::default();
            prop_assert_eq!(again.parse(&out, &strict), Ok(Parsed::Complete { len: out.len() }));
            prop_assert_eq!(again.framing(), head.framing());
            prop_assert_eq!(again.target(), head.target());
            let kept = |field: &&crate::http1::Field| !drop.contains(field.known()) && field.known() != KnownField::Host;
            let sent: Vec<_> = head.fields().iter().filter(kept).map(|field| (field.name(&bytes), field.value(&bytes))).collect();
            let not_framing = |field: &&crate::http1::Field| kept(field) && field.known() != KnownField::ContentLength;
            let read: Vec<_> = again.fields().iter().filter(not_framing).map(|field| (field.name(&out), field.value(&out))).collect();
            prop_assert_eq!(sent, read);
        }
    }

    #[test]
    fn chunked_data_survives_coding_and_splitting(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10),
        extensions in any::<bool>(), trailers in any::<bool>(), rest in prop::collection::vec(any::<u8>(), 0..9),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let data = pieces.concat();
        let mut input = encoded(&pieces, extensions, trailers);
        input.extend(&rest);
        let ends = prefixes(input.len(), &cuts);
        let expected = (data, if trailers { b"X-Sum=1;".to_vec() } else { Vec::new() });

        let (data, kept, left) = decode(&input, &ends).unwrap();
        prop_assert_eq!((&data, &kept), (&expected.0, &expected.1));
        prop_assert_eq!(left, rest.len());

        let sent = relay(&input, &ends).unwrap();
        prop_assert_eq!(&sent, &relay(&input, &[input.len()]).unwrap(), "splitting changes what is sent");
        let (data, kept, left) = decode(&sent, &[sent.len()]).unwrap();
        prop_assert_eq!((data, kept), expected);
        prop_assert_eq!(left, 0);
        if !extensions && !trailers {
            prop_assert_eq!(sent.as_slice(), &input[..input.len() - rest.len()], "canonical bodies are forwarded unchanged");
        }
    }

    #[test]
    fn arbitrary_chunked_bytes_are_decoded_alike_however_split(
        input in prop::collection::vec(prop_oneof![
            3 => prop::sample::select(b"0123a;\r\n: xX-".to_vec()), 1 => any::<u8>(),
        ], 0..60),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let ends = prefixes(input.len(), &cuts);
        let whole = decode(&input, &[input.len()]);
        prop_assert_eq!(&decode(&input, &ends), &whole);
        let sent = relay(&input, &ends);
        prop_assert_eq!(sent.is_ok(), whole.is_ok());
        if let (Ok(sent), Ok(whole)) = (sent, whole) {
            prop_assert_eq!(decode(&sent, &[sent.len()]).map(|again| (again.0, again.1)), Ok((whole.0, whole.1)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = RequestHead::default().parse(&bytes, &HeadLimits::default());
        let _ = ResponseHead::default().parse(&bytes, &HeadLimits::default());
        let _ = decode(&bytes, &[bytes.len()]);
    }
}

#[test]
fn a_head_sent_byte_by_byte_costs_one_search_of_each_byte() {
    // Without remembering the position of the search, this would read 128 GiB.
    let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    let limits = HeadLimits { field_line: 1 << 20, total: 1 << 20, ..HeadLimits::default() };
    let mut head = RequestHead::default();
    bytes.resize(1 << 19, b'x');
    for end in 1..bytes.len() {
        assert_eq!(head.parse(&bytes[..end], &limits), Ok(Parsed::Partial { started: true }));
    }
    bytes.extend(b"\r\n\r\n");
    assert_eq!(head.parse(&bytes, &limits), Ok(Parsed::Complete { len: bytes.len() }));
}
