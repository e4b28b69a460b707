//! A backend's bytes: any split gives the same head, the forwarded message parses back, and its body is decoded without panic.
#![no_main]

use fairway_proxy::http1::{
    BodyDecoder, ChunkLimits, Event, HeadLimits, HeadWriter, KnownField, KnownSet, Method, Parsed, ResponseHead,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else {
        return;
    };
    let limits = HeadLimits::default();
    let mut head = ResponseHead::default();
    let parsed = head.parse(bytes, &limits);

    let mut pieces = ResponseHead::default();
    let step = 1 + usize::from(choice >> 2);
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
    writer.forward_status_line(&head, bytes);
    writer.forward(head.fields(), bytes, KnownSet::HOP_BY_HOP.with(KnownField::ContentLength), |_| false);
    writer.framing(head.declared_framing());
    writer.finish();
    let mut again = ResponseHead::default();
    if out.len() <= limits.total {
        assert_eq!(again.parse(&out, &limits), Ok(Parsed::Complete { len: out.len() }));
        assert_eq!(again.declared_framing(), head.declared_framing());
        assert_eq!(again.status(), head.status());
    }

    let method = if choice & 1 == 0 { Method::Get } else { Method::Head };
    let mut body = BodyDecoder::new(head.framing(method), ChunkLimits::default());
    let mut at = len;
    while let Ok(decoded) = body.decode(&bytes[at..]) {
        at += decoded.consumed;
        if matches!(decoded.event, Event::NeedMore | Event::End) {
            break;
        }
    }
    let _ = body.close();
});
