//! Responses are compressed on their way to the client: which ones, how they say so, and when their bytes arrive.

use std::io::Read;

use crate::support::{HOST, TestProxy};
use fairway_model::{CodingRules, Compression, Settings};
use fairway_testkit::{Origin, ReadError, Reply};

fn rules() -> CodingRules {
    let types = vec!["application/json".into()];
    CodingRules { level: 4, min_length: 256, types, disabled_for: None }
}

fn proxy_to(origin: &Origin) -> TestProxy {
    let compression = Compression { gzip: Some(rules()), brotli: Some(CodingRules { min_length: 20, ..rules() }) };
    TestProxy::with_settings(&[origin], Settings { compression, ..Settings::default() })
}

fn json(len: usize) -> Vec<u8> {
    let lines =
        (0..).flat_map(|number: u32| format!("{{\"id\":{number},\"name\":\"x{}\"}}\n", number % 97).into_bytes());
    lines.take(len).collect()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).expect("a whole gzip stream");
    out
}

fn unbrotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out).expect("a whole Brotli stream");
    out
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[tokio::test]
async fn a_client_gets_what_it_accepts() {
    let body = json(16 << 10);
    let reply = Reply::ok().header(JSON.0, JSON.1).header("etag", "\"1\"").header("accept-ranges", "bytes").body(&body);
    let origin = Origin::new("a").reply(reply).start();
    let proxy = proxy_to(&origin);
    let mut client = proxy.connect().await;
    let gzip = client.request("GET", "/", &[("host", HOST), ("accept-encoding", "gzip, deflate")], b"").await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert_eq!(gunzip(&gzip.body), body);
    assert!(gzip.body.len() < body.len() / 4, "{}", gzip.body.len());
    let brotli = client.request("GET", "/", &[("host", HOST), ("accept-encoding", "gzip, br")], b"").await;
    assert_eq!(brotli.header("content-encoding"), Some("br"));
    assert_eq!(unbrotli(&brotli.body), body);
    for response in [&gzip, &brotli] {
        let header = |name| response.header(name);
        assert_eq!((header("vary"), header("etag")), (Some("Accept-Encoding"), Some("W/\"1\"")));
        assert_eq!((header("content-length"), header("accept-ranges")), (None, None));
    }
    let plain = client.get(HOST, "/").await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    assert_eq!((plain.header("etag"), plain.body == body), (Some("\"1\""), true));
    assert_eq!(origin.connections(), 1, "connections are kept on both sides");
}

#[tokio::test]
async fn bodies_of_every_framing_and_size_arrive_whole() {
    for len in [256, 40_000, 3 << 20] {
        let body = json(len);
        let reply = || Reply::ok().header(JSON.0, JSON.1);
        let chunks: Vec<&[u8]> = body.chunks(1000).collect();
        for reply in
            [reply().body(&body), reply().chunked(chunks).trailer("x-sum", "1"), reply().close_delimited(&body)]
        {
            let origin = Origin::new("a").reply(reply).start();
            let proxy = proxy_to(&origin);
            let mut client = proxy.connect().await;
            let accept = |coding| [("host", HOST), ("accept-encoding", coding)];
            let response = client.request("GET", "/", &accept("gzip"), b"").await;
            assert!(gunzip(&response.body) == body, "{len}");
            let response = client.request("GET", "/", &accept("br"), b"").await;
            assert!(unbrotli(&response.body) == body, "{len}");
        }
    }
}

#[tokio::test]
async fn some_responses_stay_as_they_are() {
    let typed = |reply: Reply| reply.header(JSON.0, JSON.1);
    for (why, reply) in [
        ("coded already", typed(Reply::ok()).header("content-encoding", "deflate").body(json(1000))),
        ("no-transform", typed(Reply::ok()).header("cache-control", "public, no-transform").body(json(1000))),
        ("a part", typed(Reply::status(206)).header("content-range", "bytes 0-999/2000").body(json(1000))),
        ("an error", typed(Reply::status(500)).body(json(1000))),
        ("too short", typed(Reply::ok()).body("{}")),
        ("of another type", Reply::ok().header("content-type", "image/png").body(json(1000))),
        ("no content", typed(Reply::status(204))),
        ("not modified", typed(Reply::status(304))),
    ] {
        let origin = Origin::new("a").reply(reply).start();
        let proxy = proxy_to(&origin);
        let mut client = proxy.connect().await;
        let response = client.request("GET", "/", &[("host", HOST), ("accept-encoding", "gzip, br")], b"").await;
        assert_eq!(response.header("vary"), None, "{why}");
        assert!(matches!(response.header("content-encoding"), None | Some("deflate")), "{why}");
    }
}

#[tokio::test]
async fn a_head_and_an_old_client_get_no_coding() {
    let origin = Origin::new("a").reply(Reply::ok().header(JSON.0, JSON.1).body(json(1000))).start();
    let proxy = proxy_to(&origin);
    let mut client = proxy.connect().await;
    client.send(format!("HEAD / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n")).await;
    let head = client.read_response_to("HEAD").await;
    assert_eq!((head.header("content-encoding"), head.header("content-length")), (None, Some("1000")));
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n")).await;
    let old = client.read_response().await;
    assert_eq!((old.header("content-encoding"), old.header("vary")), (None, Some("Accept-Encoding")));
    assert_eq!(old.body, json(1000));
}

#[tokio::test]
async fn what_the_endpoint_has_sent_arrives_before_it_sends_more() {
    for coding in ["gzip", "br"] {
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n\"one\"\n\r\n";
        let origin = Origin::new("a").reply(Reply::raw(head).then_stall()).start();
        let proxy = proxy_to(&origin);
        let mut client = proxy.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
        let head = client.read_head().await;
        assert_eq!(head.headers.get("content-encoding"), Some(coding));
        let size = String::from_utf8(client.read_until("\r\n").await).expect("a chunk size");
        let len = usize::from_str_radix(size.trim_end(), 16).expect("a hexadecimal number");
        let bytes = client.read_exact(len).await;
        let mut first = [0; 6];
        let read = match coding {
            "gzip" => flate2::read::GzDecoder::new(&bytes[..]).read_exact(&mut first),
            _ => brotli::Decompressor::new(&bytes[..], 64).read_exact(&mut first),
        };
        assert!(read.is_ok() && first == *b"\"one\"\n", "{coding}");
    }
}

#[tokio::test]
async fn a_response_that_is_cut_is_not_completed() {
    let body = json(1000);
    let reply = Reply::ok().header(JSON.0, JSON.1).body(&body).cut_body_after(500).then_close();
    let origin = Origin::new("a").reply(reply).start();
    let proxy = proxy_to(&origin);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n")).await;
    match client.try_read_response().await {
        Ok(response) => assert_eq!(response.status, 502, "nothing of it was sent"),
        Err(error) => assert!(matches!(error, ReadError::Truncated(..)), "{error}"),
    }
}
