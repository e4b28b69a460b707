//! A client's bytes: any split gives the same head, what is forwarded reads back with the same framing, and the body ends at
//! the same byte for the decoder and the relay.
#![no_main]

use fairway_proxy::http1::{
    BodyDecoder, ChunkLimits, ChunkRelay, Event, Framing, HeadLimits, HeadWriter, KnownField, KnownSet, NameRules,
    Parsed, PreparedField, Relay, RequestHead,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&policy, bytes)) = data.split_first() else {
        return;
    };
    let names = match policy & 3 {
        0 => NameRules::Underscores,
        2 => NameRules::Plain,
        _ => NameRules::Tokens,
    };
    let limits = HeadLimits { names, ..HeadLimits::default() };
    let mut head = RequestHead::default();
    let parsed = head.parse(bytes, &limits);

    let mut pieces = RequestHead::default();
    let step = 1 + usize::from(policy >> 2);
    let mut end = 0;
    let piecewise = loop {
        end = (end + step).min(bytes.len());
        let result = pieces.parse(&bytes[..end], &limits);
        if end == bytes.len() || !matches!(result, Ok(Parsed::Partial { .. })) {
            break result;
        }
    };
    assert_eq!(parsed, piecewise);

    let Ok(Parsed::Complete { len }) = parsed else {
        return;
    };
    assert_eq!(format!("{head:?}"), format!("{pieces:?}"));

    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer
        .request_line(head.method_bytes(bytes), head.target_span().of(bytes))
        .expect("a parsed request line can be written");
    writer.forward(head.fields(), bytes, KnownSet::HOP_BY_HOP.with(KnownField::ContentLength), |_| false);
    if !head.fields().present().contains(KnownField::Host) {
        writer.prepared(&PreparedField::new(b"Host", b"a").expect("a valid field"));
    }
    writer.framing(head.framing());
    writer.finish();
    let strict = HeadLimits { names: NameRules::Tokens, ..HeadLimits::default() };
    let mut again = RequestHead::default();
    if out.len() <= strict.total {
        assert_eq!(again.parse(&out, &strict), Ok(Parsed::Complete { len: out.len() }));
        assert_eq!(again.framing(), head.framing());
    }

    let body = &bytes[len..];
    let mut decoder = BodyDecoder::new(head.framing(), ChunkLimits::default());
    let mut at = 0;
    let decoded = loop {
        match decoder.decode(&body[at..]) {
            Ok(decoded) => {
                at += decoded.consumed;
                if matches!(decoded.event, Event::NeedMore | Event::End) {
                    break Ok(at);
                }
            }
            Err(error) => break Err(error),
        }
    };
    if head.framing() == Framing::Chunked {
        let mut relay = ChunkRelay::new(ChunkLimits::default());
        let mut at = 0;
        let relayed = loop {
            match relay.relay(&body[at..], &mut out) {
                Ok(relayed) => {
                    at += relayed.consumed;
                    if matches!(relayed.relay, Relay::NeedMore | Relay::End) {
                        break Ok(at);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        assert_eq!(decoded, relayed);
        assert_eq!(decoder.data_len(), relay.data_len());
    }
});
