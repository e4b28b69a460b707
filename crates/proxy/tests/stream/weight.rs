//! Backends by weight: each connection and each session goes to one of them.

use std::collections::BTreeMap;

use fairway_model::{StreamBackends, StreamShare};

use super::*;

/// Seven parts for `a`, two for no backend, one for `b`, and none for `c`.
fn shares() -> StreamBackends {
    let share = |name: Option<&str>, weight| StreamShare {
        backend: name.map(|name| format!("default/{name}:80").as_str().into()),
        weight,
        tls: None,
    };
    StreamBackends::Weighted(Arc::new([share(Some("a"), 7), share(None, 2), share(Some("b"), 1), share(Some("c"), 0)]))
}

fn weighted(transport: Transport, backend: StreamBackends) -> Resource {
    let Resource::StreamListener(one) = stream("127.0.0.1:0", transport, "a") else { unreachable!() };
    StreamListener { backend, ..(*one).clone() }.into()
}

fn within_reason(counts: &BTreeMap<String, u32>) {
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    // Of 300 the expected numbers are 210, 60 and 30: five standard deviations around them.
    assert!((170..=250).contains(&count("a")) && (25..=95).contains(&count("")), "{counts:?}");
    assert!((4..=56).contains(&count("b")) && count("c") == 0, "{counts:?}");
}

#[tokio::test]
async fn connections_go_to_backends_by_weight_and_those_to_none_are_closed() {
    let mut resources = vec![weighted(TCP, shares())];
    for name in ["a", "b", "c"] {
        let (listener, address) = listen().await;
        resources.extend(backend(name, &[address]));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        });
    }
    let proxy = TestProxy::start(resources);
    let mut counts = BTreeMap::new();
    for _ in 0..300 {
        let mut client = connect(address_of(&proxy)).await;
        let answer = String::from_utf8(read_to_end(&mut client).await).unwrap();
        *counts.entry(answer).or_default() += 1;
    }
    within_reason(&counts);
}

#[tokio::test]
async fn sessions_go_to_backends_by_weight_and_stay_there() {
    let share = |name: &str, weight| StreamShare {
        backend: Some(format!("default/{name}:80").as_str().into()),
        weight,
        tls: None,
    };
    let shares = StreamBackends::Weighted(Arc::new([share("a", 1), share("b", 1), share("c", 0)]));
    // Sessions that wait for more than one answer.
    let mut resources = vec![settings(StreamSettings { responses: 100, ..StreamSettings::default() })];
    resources.push(weighted(Transport::Udp, shares));
    for name in ["a", "b", "c"] {
        resources.extend(backend(name, &[udp_echo(name).await]));
    }
    let proxy = TestProxy::start(resources);
    let port = address_of(&proxy);
    let mut counts: BTreeMap<u8, u32> = BTreeMap::new();
    for _ in 0..60 {
        let (client, _) = udp().await;
        let first = ask(&client, port, b"x").await[0];
        *counts.entry(first).or_default() += 1;
        for _ in 0..5 {
            assert_eq!(ask(&client, port, b"x").await[0], first, "a session keeps its endpoint");
        }
    }
    assert!(counts.keys().eq(b"ab") && counts.values().all(|count| (8..=52).contains(count)), "{counts:?}");
}
