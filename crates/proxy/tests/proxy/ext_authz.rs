//! Services that are called by ext_authz: what they are asked, what follows from their answers, and that everything else denies.
//!
//! Messages are read and written here by the numbers of their fields alone.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support;
use crate::support::grpc::{BytesCodec, Server};
use crate::support::h2_origin::{Call, FrameOrigin, H2Origin};
use crate::support::http2::HEADERS;
use crate::support::{HOST, TestProxy, backend, config, endpoints, filtered, forward, host, route};
use bytes::Bytes;
use fairway_model::{
    Action, AuthProtocol, ConfiguredName, ExternalAuth, Filter, ForwardPolicy, GrpcAuth, UpstreamProtocol, UpstreamTls,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Fault, Gate, Leaf, Origin, Reply, Response, eventually};
use http::HeaderMap;

/// A field of a message: a message, a text or bytes.
fn part(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&[number << 3 | 2][..], &varint(content.len() as u64), content].concat()
}

/// A field that is a number.
fn number(number: u8, value: u64) -> Vec<u8> {
    [&[number << 3][..], &varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// The content of a field, or its number.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Content {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message.
fn parts(mut bytes: &[u8]) -> Vec<(u64, Content)> {
    let mut read = |count: Option<usize>| -> (u64, Vec<u8>) {
        if let Some(count) = count {
            let (one, rest) = bytes.split_at(count);
            bytes = rest;
            return (0, one.to_vec());
        }
        if bytes.is_empty() {
            return (u64::MAX, Vec::new());
        }
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = bytes.split_first().expect("a whole number");
            bytes = rest;
            value |= u64::from(byte & 127) << shift;
            shift += 7;
            if byte & 128 == 0 {
                return (value, Vec::new());
            }
        }
    };
    let mut all = Vec::new();
    loop {
        let (tag, _) = read(None);
        if tag == u64::MAX {
            return all;
        }
        let content = match tag & 7 {
            0 => Content::Number(read(None).0),
            2 => {
                let (length, _) = read(None);
                Content::Bytes(read(Some(length as usize)).1)
            }
            kind => panic!("kind {kind}"),
        };
        all.push((tag >> 3, content));
    }
}

/// The bytes at the end of a path of field numbers; empty if there are none.
fn at(message: &[u8], path: &[u64]) -> Vec<u8> {
    path.iter().fold(message.to_vec(), |message, number| {
        let found = parts(&message).into_iter().find(|(other, _)| other == number);
        match found {
            Some((_, Content::Bytes(bytes))) => bytes,
            _ => Vec::new(),
        }
    })
}

fn text_at(message: &[u8], path: &[u64]) -> String {
    String::from_utf8(at(message, path)).expect("a text")
}

fn number_at(message: &[u8], path: &[u64], number: u64) -> Option<u64> {
    parts(&at(message, path)).into_iter().find_map(|(other, content)| match content {
        Content::Number(value) if other == number => Some(value),
        _ => None,
    })
}

/// `attributes.request.http` of a question.
const HTTP: [u64; 3] = [1, 4, 2];

/// The fields of the request that a question is about.
fn fields_of(question: &[u8]) -> Vec<String> {
    let all = parts(&at(question, &HTTP)).into_iter().filter(|(number, _)| *number == 3);
    let mut all: Vec<_> = all
        .map(|(_, entry)| match entry {
            Content::Bytes(entry) => format!("{}: {}", text_at(&entry, &[1]), text_at(&entry, &[2])),
            Content::Number(_) => unreachable!("an entry is a message"),
        })
        .collect();
    all.sort();
    all
}

/// A `HeaderValueOption`.
fn option(name: &str, value: &str, rest: &[u8]) -> Vec<u8> {
    [part(1, [part(1, name), part(2, value)].concat()), rest.to_vec()].concat()
}

/// An answer with this code.
fn answer(code: u64, rest: &[u8]) -> Vec<u8> {
    // Unknown fields are skipped.
    [part(1, [number(1, code), part(2, "why")].concat()), rest.to_vec(), part(4, part(9, "x")), number(15, 1)].concat()
}

/// A yes with the content of an `OkHttpResponse`.
fn yes(ok: &[Vec<u8>]) -> Vec<u8> {
    answer(0, &part(3, ok.concat()))
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// What a service sends back.
#[derive(Clone, Debug)]
struct Sends {
    status: u16,
    head: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    /// Without any, the body ends the stream.
    trailers: Vec<(&'static str, &'static str)>,
}

impl Sends {
    fn message(message: &[u8]) -> Self {
        let (head, trailers) = (vec![("content-type", "application/grpc")], vec![("grpc-status", "0")]);
        Self { status: 200, head, body: framed(message), trailers }
    }

    fn to(&self, mut call: Call) {
        let mut response = http::Response::builder().status(self.status);
        for (name, value) in &self.head {
            response = response.header(*name, *value);
        }
        let alone = self.body.is_empty() && self.trailers.is_empty();
        let response = response.body(()).expect("a response");
        let mut send = call.respond.send_response(response, alone).expect("an open stream");
        if !self.body.is_empty() {
            send.send_data(Bytes::from(self.body.clone()), self.trailers.is_empty()).expect("an open stream");
        }
        if !self.trailers.is_empty() {
            let name = |name: &str| http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            let lines = self.trailers.iter().map(|(own, value)| (name(own), value.parse().expect("a value")));
            send.send_trailers(HeaderMap::from_iter(lines)).expect("an open stream");
        }
    }
}

/// A question that a service got.
#[derive(Clone, Debug)]
struct Asked {
    head: http::request::Parts,
    message: Vec<u8>,
    connection: usize,
}

type AllAsked = Arc<Mutex<Vec<Asked>>>;

async fn take(call: &mut Call, all: &AllAsked) {
    let (body, _) = call.body().await;
    let (method, uri) = (call.request.method().clone(), call.request.uri().clone());
    let mut copy = http::Request::builder().method(method).uri(uri).body(()).expect("a request");
    *copy.headers_mut() = call.request.headers().clone();
    assert_eq!(framed(&body[5..]), body);
    let asked = Asked { head: copy.into_parts().0, message: body[5..].to_vec(), connection: call.connection };
    all.lock().expect("no panic").push(asked);
}

fn policy() -> ForwardPolicy {
    ForwardPolicy { protocol: UpstreamProtocol::Http2, ..ForwardPolicy::default() }
}

/// For services that do not answer.
fn hasty() -> ForwardPolicy {
    ForwardPolicy { read_timeout: Duration::from_millis(300), ..policy() }
}

fn filter(policy: ForwardPolicy, allowed: Option<&[&str]>) -> Filter {
    let Action::Forward(forward) = forward("auth", policy) else { unreachable!("it forwards") };
    let allowed =
        allowed.map(|names| names.iter().map(|name| ConfiguredName::try_from(*name).expect("a name")).collect());
    let asks = GrpcAuth { authority: "auth.default.svc:80".into(), allowed, body: None };
    Filter::ExternalAuth(Box::new(ExternalAuth { forward, protocol: AuthProtocol::Grpc(asks) }))
}

/// For a service that gets bodies of up to `most` bytes.
fn filter_with_body(most: u32) -> Filter {
    let mut filter = filter(policy(), None);
    if let Filter::ExternalAuth(auth) = &mut filter
        && let AuthProtocol::Grpc(asks) = &mut auth.protocol
    {
        asks.body = NonZeroU32::new(most);
    }
    filter
}

/// A backend behind a service.
struct Guarded {
    service: Option<H2Origin>,
    asked: AllAsked,
    web: Origin,
    proxy: TestProxy,
}

impl Guarded {
    async fn by(sends: Sends) -> Self {
        Self::by_filter(sends, filter(policy(), None), None).await
    }

    async fn by_filter(sends: Sends, filter: Filter, tls: Option<&Leaf>) -> Self {
        let asked = AllAsked::default();
        let all = asked.clone();
        let serve = move |mut call: Call| {
            let (all, sends) = (all.clone(), sends.clone());
            async move {
                take(&mut call, &all).await;
                sends.to(call);
            }
        };
        let service = H2Origin::with(&h2::server::Builder::new(), tls, serve).await;
        let mut guarded = Self::at(service.address, filter);
        (guarded.service, guarded.asked) = (Some(service), asked);
        guarded
    }

    /// The service is at this address.
    fn at(service: std::net::SocketAddr, filter: Filter) -> Self {
        let web = Origin::start("web");
        let mut resources = backend("web", &[web.address()]);
        resources.extend(backend("auth", &[service]));
        resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), vec![filter])]));
        // One worker, so that all requests meet the same connections.
        let config = ProxyConfig { workers: std::num::NonZeroUsize::new(1), ..config() };
        Self { proxy: TestProxy::start_with(resources, config), service: None, asked: AllAsked::default(), web }
    }

    async fn get(&self, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("host", HOST)];
        all.extend(fields);
        self.proxy.connect().await.request("GET", "/a%20b?c=d", &all, b"").await
    }

    fn asked(&self) -> Asked {
        self.asked.lock().expect("no panic").last().expect("the service was asked").clone()
    }
}

#[tokio::test]
async fn a_service_is_told_about_the_request_that_is_forwarded() {
    let guarded = Guarded::by(Sends::message(&answer(0, b""))).await;
    let mut client = guarded.proxy.connect().await;
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let fields = [
        ("host", "app.example:8080"),
        ("Cookie", "a=1"),
        ("cookie", "b=2"),
        ("X-Tag", "one"),
        ("x-tag", "two"),
        ("authorization", "Bearer x"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("x-forwarded-for", "192.0.2.9"),
        ("x-forwarded-user", "spoofed"),
        ("x-real-ip", "192.0.2.9"),
        ("ssl-client-verify", "SUCCESS"),
        ("x-latin", "caf\u{e9}"),
        ("x-request-id", "id7"),
    ];
    let response = client.request("PUT", "/public/../a%20b?c=d", &fields, b"the body").await;
    let echo = response.echo();
    assert_eq!((response.status, echo.body.as_str(), echo.target.as_str()), (200, "the body", "/a%20b?c=d"));
    let Asked { head, message, .. } = guarded.asked();
    assert_eq!(head.method, "POST");
    assert_eq!(head.uri.to_string(), "http://auth.default.svc:80/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(
        (&head.headers["content-type"], &head.headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert_eq!(text_at(&message, &[1, 1, 1, 1, 2]), "127.0.0.1");
    let port = |whose| number_at(&message, &[1, whose, 1, 1], 3).expect("a port");
    assert_eq!(
        (text_at(&message, &[1, 2, 1, 1, 2]).as_str(), port(2)),
        ("127.0.0.1", guarded.proxy.http.port().into())
    );
    assert!(port(1) > 0 && port(1) != port(2));
    let time = number_at(&message, &[1, 4, 1], 1).expect("a time");
    assert!((before..before + 60).contains(&time), "{time} {before}");
    let http = |number| text_at(&at(&message, &HTTP), &[number]);
    assert_eq!((http(1).as_str(), http(2).as_str(), http(4).as_str()), ("id7", "PUT", "/a%20b?c=d"));
    assert_eq!((http(5).as_str(), http(6).as_str(), http(10).as_str()), ("app.example:8080", "http", "HTTP/1.1"));
    assert_eq!((http(7).as_str(), http(11).as_str()), ("", ""));
    assert_eq!(number_at(&message, &HTTP, 9), Some(8));
    assert_eq!(
        fields_of(&message),
        [
            "authorization: Bearer x",
            "cookie: a=1; b=2",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: app.example:8080",
            &format!("x-forwarded-port: {}", guarded.proxy.http.port()),
            "x-forwarded-proto: http",
            "x-forwarded-scheme: http",
            "x-latin: caf\u{e9}",
            "x-original-forwarded-for: 192.0.2.9",
            "x-real-ip: 127.0.0.1",
            "x-request-id: id7",
            "x-scheme: http",
            "x-tag: one,two",
        ]
    );
    let request = "GET / HTTP/1.0\r\nHost: app.example\r\n\r\n";
    let mut client = guarded.proxy.connect().await;
    client.send(request).await;
    assert_eq!(client.read_response().await.status, 200);
    let asked = guarded.asked().message;
    assert_eq!((text_at(&at(&asked, &HTTP), &[10]).as_str(), number_at(&asked, &HTTP, 9)), ("HTTP/1.0", None));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_told_as_such() {
    let guarded = Guarded::by(Sends::message(&answer(0, b""))).await;
    let mut client = guarded.proxy.connect().await;
    let head = [
        b"GET /caf\xe9?\xff HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\nX-A: \xe9\r\n\r\n0\r\n\r\n",
    ];
    client.send(&head[0][..]).await;
    assert_eq!(client.read_response().await.status, 200);
    let message = guarded.asked().message;
    assert_eq!(text_at(&at(&message, &HTTP), &[4]), "/caf%E9?%FF");
    assert!(fields_of(&message).contains(&"x-a: \u{fffd}".to_owned()));
    assert_eq!(number_at(&message, &HTTP, 9), Some(u64::MAX), "-1 for a length that is not known");
}

#[tokio::test]
async fn a_service_gets_only_the_fields_that_are_listed() {
    let listed = filter(policy(), Some(&["X-Tenant", "X-Forwarded-For"]));
    let guarded = Guarded::by_filter(Sends::message(&answer(0, b"")), listed, None).await;
    let fields = [("x-tenant", "a"), ("authorization", "x"), ("x-forwarded-for", "192.0.2.9"), ("x-other", "1")];
    assert_eq!(guarded.get(&fields).await.status, 200);
    assert_eq!(fields_of(&guarded.asked().message), ["x-forwarded-for: 127.0.0.1", "x-tenant: a"]);
}

#[tokio::test]
async fn a_service_gets_the_body_that_the_backend_gets() {
    let guarded = Guarded::by_filter(Sends::message(&answer(0, b"")), filter_with_body(100_000), None).await;
    let mut client = guarded.proxy.connect().await;
    let long = vec![b'x'; 100_000];
    for (body, text, raw) in [
        (&b"the body"[..], "the body", &b""[..]),
        (b"", "", b""),
        (b"caf\xe9", "caf\u{fffd}", b"caf\xe9"),
        (&long, std::str::from_utf8(&long).expect("text"), b""),
    ] {
        let response = client.request("POST", "/", &[("host", HOST)], body).await;
        assert_eq!((response.status, guarded.web.seen().pop().expect("one").body), (200, body.to_vec()));
        let http = at(&guarded.asked().message, &HTTP);
        assert_eq!((text_at(&http, &[11]), at(&http, &[12])), (text.to_owned(), raw.to_vec()));
        assert_eq!(number_at(&http, &[], 9).unwrap_or_default(), body.len() as u64);
    }
    let seen = guarded.web.requests();
    let response = client.request("POST", "/", &[("host", HOST)], &vec![b'x'; 100_001]).await;
    assert_eq!((response.status, guarded.web.requests()), (413, seen));
}

#[tokio::test]
async fn a_yes_edits_the_request_and_the_response() {
    let (append, absent, present) = (part(2, number(1, 1)), number(3, 1), number(3, 3));
    let ok = [
        part(2, option("x-user", "ann", b"")),
        part(2, option("X-Raw", "", &part(1, part(3, b"raw")))),
        part(2, option("x-list", "b", &append)),
        part(2, option("x-absent", "new", &absent)),
        part(2, option("x-there", "new", &absent)),
        part(2, option("x-forwarded-user", "ann", &absent)),
        part(2, option("x-gone", "new", &present)),
        part(2, option("x-real-ip", "192.0.2.1", b"")),
        part(2, option("transfer-encoding", "chunked", b"")),
        part(5, "authorization"),
        part(5, "host"),
        part(5, ":path"),
        part(6, option("x-answered", "yes", b"")),
        part(6, option("set-cookie", "s=2", &append)),
        part(6, option("set-cookie", "t=3", b"")),
        part(6, option("x-served", "no", &absent)),
        part(6, option("x-money", "$5", b"")),
    ];
    let guarded = Guarded::by(Sends::message(&yes(&ok))).await;
    let fields = [
        ("x-user", "mallory"),
        ("X_User", "mallory"),
        ("x-list", "a"),
        ("x-there", "old"),
        ("authorization", "Bearer x"),
        // An untrusted client has no say in this: the backend would not get it.
        ("x-forwarded-user", "mallory"),
    ];
    let response = guarded.get(&fields).await;
    let echo = response.echo();
    assert_eq!((echo.headers.all("x-user"), echo.header("x_user")), (vec!["ann"], None));
    assert_eq!((echo.headers.all("x-list"), echo.headers.all("x-there")), (vec!["a", "b"], vec!["old"]));
    assert_eq!(
        (echo.header("x-absent"), echo.header("x-gone"), echo.header("x-raw")),
        (Some("new"), None, Some("raw"))
    );
    assert_eq!(echo.headers.all("x-forwarded-user"), ["ann"]);
    assert_eq!((echo.header("authorization"), echo.header("host")), (None, Some(HOST)));
    assert_eq!((echo.headers.all("x-real-ip"), echo.header("transfer-encoding")), (vec!["127.0.0.1"], None));
    assert_eq!(
        (response.header("x-answered"), response.headers().all("set-cookie")),
        (Some("yes"), vec!["s=2", "t=3"])
    );
    assert_eq!((response.header("x-served"), response.header("x-money")), (Some("no"), Some("$5")));
    let own = [("X-Answered", "web"), ("Set-Cookie", "a=1"), ("X_Answered", "web"), ("X-Served", "web")];
    guarded.web.set_reply(own.iter().fold(Reply::ok(), |reply, (name, value)| reply.header(name, value)));
    let response = guarded.get(&fields).await;
    assert_eq!((response.headers().all("x-answered"), response.header("x_answered")), (vec!["yes"], None));
    assert_eq!(response.headers().all("set-cookie"), ["a=1", "s=2", "t=3"]);
    assert_eq!(response.headers().all("x-served"), ["web"]);
}

#[tokio::test]
async fn a_denial_is_answered_as_the_service_says() {
    let denied = [
        part(1, number(1, 401)),
        part(2, option("www-authenticate", "Bearer realm=\"x\"", b"")),
        part(2, option("content-type", "application/json", b"")),
        part(2, option("content-length", "999", b"")),
        part(2, option("set-cookie", "a=1", b"")),
        part(2, option("set-cookie", "b=2", b"")),
        part(3, "{\"why\": \"who\"}"),
    ];
    let guarded = Guarded::by(Sends::message(&answer(16, &part(2, denied.concat())))).await;
    let mut client = guarded.proxy.connect().await;
    for _ in 0..2 {
        let response = client.get(HOST, "/").await;
        assert_eq!((response.status, &*response.text()), (401, "{\"why\": \"who\"}"));
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"x\""));
        assert_eq!(response.headers().all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!(
            (response.header("content-type"), response.header("content-length")),
            (Some("application/json"), Some("14"))
        );
    }
    for (denied, status) in [
        (Vec::new(), 403),
        (part(2, b""), 403),
        (part(2, part(1, number(1, 429))), 429),
        (part(2, [part(1, number(1, 302)), part(2, option("location", "https://login.example/", b""))].concat()), 302),
        (part(2, part(1, number(1, 200))), 403),
        (part(3, b""), 403),
    ] {
        let guarded = Guarded::by(Sends::message(&answer(7, &denied))).await;
        let response = guarded.get(&[]).await;
        assert_eq!((response.status, guarded.web.requests()), (status, 0));
        assert_eq!(response.header("location"), (status == 302).then_some("https://login.example/"));
    }
}

#[tokio::test]
async fn a_client_of_grpc_reads_a_denial_in_its_terms() {
    for (status, code) in [(403, "7"), (401, "16"), (503, "14")] {
        let denied = [part(1, number(1, status)), part(2, option("x-why", "no", b"")), part(3, "a page")].concat();
        let guarded = Guarded::by(Sends::message(&answer(7, &part(2, denied)))).await;
        let mut request = support::http2::post("/a.B/C");
        request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        let response = support::http2::H2::connect(guarded.proxy.http).await.ask(request).await;
        assert_eq!((response.status, response.field("grpc-status"), response.text()), (200, Some(code), ""));
        assert_eq!(response.field("x-why"), Some("no"));
        assert_eq!(guarded.web.requests(), 0);
    }
}

#[tokio::test]
async fn everything_else_denies() {
    let good = Sends::message(&answer(0, b""));
    let message = |message: &[u8]| Sends::message(message);
    let body = |body: Vec<u8>| Sends { body, ..good.clone() };
    let trailers = |trailers: &[(&'static str, &'static str)]| Sends { trailers: trailers.to_vec(), ..good.clone() };
    let head = |head: &[(&'static str, &'static str)]| Sends { head: head.to_vec(), ..good.clone() };
    let mut compressed = framed(&answer(0, b""));
    compressed[0] = 1;
    let mut unknown = framed(&answer(0, b""));
    unknown[0] = 2;
    let two = [framed(&answer(0, b"")), framed(&answer(0, b""))].concat();
    let cut = framed(&answer(0, b""))[..8].to_vec();
    let long = answer(0, &part(4, part(9, vec![b'x'; 64 << 10])));
    for (sends, why) in [
        (message(b""), "no status"),
        (message(&part(3, b"")), "no status beside a yes"),
        (message(&answer(0, &part(2, b""))), "yes and no"),
        (message(&answer(0, &part(5, b""))), "an error of the service"),
        (message(&answer(7, &[part(2, b""), part(5, b"")].concat())), "a no and an error of the service"),
        (message(&yes(&vec![part(5, "x"); 129])), "too many edits"),
        (message(b"\xff\xff"), "no message"),
        (message(&[part(1, number(1, 0)), part(3, part(5, b"\xff"))].concat()), "no text"),
        (message(&long), "too long"),
        (message(&yes(&[part(2, option(":path", "/other", b""))])), "another path"),
        (message(&yes(&[part(2, option("Host", "other", b""))])), "another host"),
        (message(&yes(&[part(2, option("x-a", "a\r\nb: c", b""))])), "no value"),
        (message(&yes(&[part(2, option("x-a", "b", &number(3, 9)))])), "an unknown change"),
        (message(&yes(&[part(7, part(1, "role"))])), "another query"),
        (message(&yes(&[part(8, "role")])), "less of a query"),
        (body(compressed), "compressed"),
        (body(unknown), "an unknown flag"),
        (body(two), "two messages"),
        (body(cut), "half a message"),
        (body(Vec::new()), "no message"),
        (trailers(&[]), "no end of the call"),
        (trailers(&[("x-a", "b")]), "no status of the call"),
        (trailers(&[("grpc-status", "7")]), "a failed call"),
        (trailers(&[("grpc-status", "0"), ("grpc-status", "7")]), "two statuses"),
        (trailers(&[("grpc-status", "")]), "an empty status"),
        (Sends { status: 503, ..good.clone() }, "another status of HTTP"),
        (Sends { status: 204, body: Vec::new(), ..good.clone() }, "no content"),
        (head(&[("content-type", "text/html")]), "a page"),
        (head(&[("content-type", "application/grpc-web")]), "another protocol"),
        (head(&[]), "no type"),
        (head(&[("content-type", "application/grpc"), ("grpc-encoding", "gzip")]), "a coding"),
        (
            Sends {
                body: Vec::new(),
                trailers: Vec::new(),
                head: vec![("content-type", "application/grpc"), ("grpc-status", "0")],
                ..good.clone()
            },
            "a head alone",
        ),
        (
            Sends {
                body: Vec::new(),
                trailers: Vec::new(),
                head: vec![("content-type", "application/grpc"), ("grpc-status", "14")],
                ..good.clone()
            },
            "a failure in the head",
        ),
    ] {
        let guarded = Guarded::by(sends).await;
        let response = guarded.get(&[]).await;
        assert_eq!((response.status, guarded.web.requests()), (500, 0), "{why}");
        // The connection is as good as ever for others.
        assert_eq!(
            (guarded.get(&[]).await.status, guarded.service.as_ref().expect("one").connections()),
            (500, 1),
            "{why}"
        );
    }
    let guarded = Guarded::by(good).await;
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (200, 1));
}

#[tokio::test]
async fn a_service_that_cannot_be_called_denies() {
    // One that speaks HTTP/1, one that is missing, and one that sends nothing.
    for service in [
        Origin::new("auth").start(),
        Origin::new("auth").fault(Fault::Refuse).start(),
        Origin::new("auth").fault(Fault::Silent).start(),
    ] {
        let policy = ForwardPolicy { connect_timeout: Duration::from_millis(300), ..hasty() };
        let guarded = Guarded::at(service.address(), filter(policy, None));
        assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (500, 0));
    }
    // One that takes the call and never answers it.
    let service = H2Origin::start(|call| async move {
        std::future::pending::<()>().await;
        drop(call);
    });
    let service = service.await;
    let guarded = Guarded::at(service.address, filter(hasty(), None));
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests(), service.connections()), (500, 0, 1));
    guarded.proxy.publish([endpoints("auth", &[])]).await;
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (500, 0));
    // A model that names another protocol is not believed.
    let service = Origin::start("auth");
    let guarded = Guarded::at(service.address(), filter(ForwardPolicy::default(), None));
    assert_eq!((guarded.get(&[]).await.status, service.requests()), (500, 0));
}

#[tokio::test]
async fn an_answer_that_never_ends_denies_in_time() {
    let service = H2Origin::start(|mut call: Call| async move {
        let response = http::Response::builder().header("content-type", "application/grpc").body(()).expect("one");
        let mut send = call.respond.send_response(response, false).expect("an open stream");
        // A byte at a time, forever: what counts is the whole answer.
        while send.send_data(Bytes::from_static(b"\0"), false).is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let service = service.await;
    let guarded = Guarded::at(service.address, filter(hasty(), None));
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests(), service.connections()), (500, 0, 1));
    // With a limit of the request it ends with that.
    let limited = ForwardPolicy { response_within: Some(Duration::from_millis(300)), ..ForwardPolicy::default() };
    let patient = ForwardPolicy { read_timeout: Duration::from_secs(3600), ..policy() };
    let route = filtered(route("/", forward("web", limited)), vec![filter(patient, None)]);
    guarded.proxy.publish([host(HOST, vec![route])]).await;
    let mut client = guarded.proxy.connect().await;
    for _ in 0..2 {
        assert_eq!(client.request("GET", "/", &[("host", HOST)], b"").await.status, 504);
    }
    assert_eq!(guarded.web.requests(), 0);
}

#[tokio::test]
async fn a_connection_that_is_silent_to_the_end_of_the_request_gets_no_more_calls() {
    let service = FrameOrigin::start().await;
    let guarded = Guarded::at(service.address, filter(policy(), None));
    let limited = ForwardPolicy { response_within: Some(Duration::from_millis(600)), ..ForwardPolicy::default() };
    let route = filtered(route("/", forward("web", limited)), vec![filter(policy(), None)]);
    guarded.proxy.publish([host(HOST, vec![route])]).await;
    let serve = async {
        // Connecting takes some of the time.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut first = service.accept(&[]).await;
        // After its acknowledgement nothing is in flight.
        while first.next().await.expect("a frame").kind != HEADERS {}
        let mut second = service.accept(&[]).await;
        second.request().await;
        (first, second)
    };
    let mut client = guarded.proxy.connect().await;
    let ask = async { (client.get(HOST, "/").await.status, client.get(HOST, "/").await.status) };
    assert_eq!(tokio::join!(serve, ask).1, (504, 504));
}

#[tokio::test]
async fn calls_share_a_connection_and_move_to_another_when_it_ends() {
    let guarded = Guarded::by(Sends::message(&answer(0, b""))).await;
    let mut client = guarded.proxy.connect().await;
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
    assert_eq!(guarded.asked().connection, 1);
    let next = Guarded::by(Sends::message(&answer(0, b""))).await;
    let service = next.service.as_ref().expect("one");
    guarded.proxy.publish([endpoints("auth", &[service.address])]).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    assert_eq!(next.asked().connection, 1);
    next.service.expect("one").leave().await;
    let again = Guarded::by(Sends::message(&answer(0, b""))).await;
    guarded.proxy.publish([endpoints("auth", &[again.service.as_ref().expect("one").address])]).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    assert_eq!(guarded.web.requests(), 7);
}

#[tokio::test]
async fn another_endpoint_is_called_if_one_refuses() {
    let refusing = Origin::new("x").fault(Fault::Refuse).start();
    let guarded = Guarded::by(Sends::message(&answer(0, b""))).await;
    let service = guarded.service.as_ref().expect("one").address;
    guarded.proxy.publish([endpoints("auth", &[refusing.address(), service])]).await;
    for _ in 0..4 {
        assert_eq!(guarded.get(&[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_service_may_speak_tls() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    for (issuer, expected) in [(&ca, 200), (&other, 500)] {
        let trust = fairway_model::Trust::Authorities([fairway_model::Authority::new(ca.der().to_vec())].into());
        let tls = UpstreamTls { name: Some("auth.example".into()), sni: true, trust, ..UpstreamTls::default() };
        let policy = ForwardPolicy { tls: Some(Arc::new(tls)), ..policy() };
        let leaf = issuer.leaf(&["auth.example"]);
        let guarded = Guarded::by_filter(Sends::message(&answer(0, b"")), filter(policy, None), Some(&leaf)).await;
        assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (expected, u64::from(expected == 200)));
        if expected == 200 {
            assert_eq!(guarded.asked().head.uri.scheme_str(), Some("https"));
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_while_the_service_thinks_leaves_nothing_behind() {
    let (gate, gone) = (Gate::new(), Arc::new(Mutex::new(0)));
    let (thinking, resets) = (gate.clone(), gone.clone());
    let service = H2Origin::start(move |mut call: Call| {
        let (thinking, resets) = (thinking.clone(), resets.clone());
        async move {
            tokio::spawn(async move { thinking.pass().await });
            let _ = std::future::poll_fn(|cx| call.respond.poll_reset(cx)).await;
            *resets.lock().expect("no panic") += 1;
        }
    });
    let service = service.await;
    let patient = ForwardPolicy { read_timeout: Duration::from_secs(3600), ..policy() };
    let guarded = Guarded::at(service.address, filter(patient, None));
    let mut client = guarded.proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nabc")).await;
    gate.reached(1).await;
    client.reset();
    eventually("the call is reset", async || *gone.lock().expect("no panic") == 1).await;
    assert_eq!((guarded.web.requests(), service.connections()), (0, 1));
}

#[tokio::test]
async fn the_backend_may_speak_http2_as_well() {
    let asked = AllAsked::default();
    let all = asked.clone();
    // The same server for both, on one connection.
    let both = H2Origin::start(move |mut call: Call| {
        let all = all.clone();
        async move {
            if call.request.uri().path().starts_with("/envoy") {
                take(&mut call, &all).await;
                return Sends::message(&yes(&[part(2, option("x-user", "ann", b""))])).to(call);
            }
            let user = call.request.headers().get("x-user").cloned().expect("a user");
            call.answer(http::Response::builder().header("x-user", user).body(()).expect("one"), "from the backend");
        }
    });
    let both = both.await;
    let mut resources = backend("web", &[both.address]);
    resources.extend(backend("auth", &[both.address]));
    let web = ForwardPolicy { protocol: UpstreamProtocol::Http2, ..ForwardPolicy::default() };
    resources.push(host(HOST, vec![filtered(route("/", forward("web", web)), vec![filter(policy(), None)])]));
    let config = ProxyConfig { workers: std::num::NonZeroUsize::new(1), ..config() };
    let proxy = TestProxy::start_with(resources, config);
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        let response = client.get(HOST, "/").await;
        assert_eq!(
            (response.status, &*response.text(), response.header("x-user")),
            (200, "from the backend", Some("ann"))
        );
    }
    assert_eq!((asked.lock().expect("no panic").len(), both.connections()), (3, 1));
}

#[tokio::test]
async fn a_server_of_tonic_is_understood() {
    let judge = async |request: tonic::Request<Bytes>| {
        let fields = fields_of(request.get_ref());
        let user = fields.iter().find_map(|field| field.strip_prefix("authorization: "));
        match user {
            Some("ann") => Ok(tonic::Response::new(Bytes::from(yes(&[part(2, option("x-user", "ann", b""))])))),
            Some("fail") => Err(tonic::Status::internal("no judge")),
            _ => Ok(tonic::Response::new(Bytes::from(answer(7, &part(2, part(3, "who?")))))),
        }
    };
    let serve = move |request: http::Request<hyper::body::Incoming>| async move {
        if request.uri().path() != "/envoy.service.auth.v3.Authorization/Check" {
            return Ok(tonic::Status::unimplemented("no such method").into_http());
        }
        Ok(tonic::server::Grpc::new(BytesCodec).unary(tower::service_fn(judge), request).await)
    };
    let ca = Ca::new("ca");
    let leaf = ca.leaf(&["auth.example"]);
    for over_tls in [false, true] {
        let server = Server::start(over_tls.then_some(&leaf), serve).await;
        let tls = UpstreamTls { name: Some("auth.example".into()), sni: true, ..UpstreamTls::default() };
        let policy = ForwardPolicy { tls: over_tls.then(|| Arc::new(tls)), ..policy() };
        let guarded = Guarded::at(server.address, filter(policy, None));
        for _ in 0..3 {
            let response = guarded.get(&[("authorization", "ann")]).await;
            assert_eq!((response.status, response.echo().header("x-user")), (200, Some("ann")));
            let response = guarded.get(&[("authorization", "bob")]).await;
            assert_eq!((response.status, &*response.text()), (403, "who?"));
            assert_eq!(guarded.get(&[("authorization", "fail")]).await.status, 500);
        }
        // It announces the end of its connection, and another one takes its place.
        let next = Server::start(over_tls.then_some(&leaf), serve).await;
        guarded.proxy.publish([endpoints("auth", &[next.address])]).await;
        server.end().await;
        assert_eq!(guarded.get(&[("authorization", "ann")]).await.status, 200);
    }
}
