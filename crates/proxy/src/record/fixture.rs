//! A request for tests of what is derived from records.

use std::net::SocketAddr;
use std::time::Duration;

use fairway_model::{
    Action, Backend, Balance, Forward, Host, HostPattern, Origin, PathMatch, Protocol, Route, Scheme, Settings,
};

use super::{RequestRecord, TlsView, Try};
use crate::http::Spanned;
use crate::http::{HeadLimits, RequestHead, ResponseHead};
use crate::random::Rng;
use fairway_model::client::{Arrival, ClientView};

/// Everything that a record borrows.
pub(crate) struct Fixture {
    pub(crate) bytes: Vec<u8>,
    pub(crate) head: RequestHead,
    pub(crate) client: ClientView,
    pub(crate) host: Host,
    pub(crate) backend: Backend,
    pub(crate) upstream_bytes: Vec<u8>,
    pub(crate) upstream: ResponseHead,
    pub(crate) tries: Vec<Try>,
}

impl Fixture {
    pub(crate) fn new(request_line: &str, fields: &str) -> Self {
        let bytes =
            format!("{request_line}\r\nHost: Shop.Example:8080\r\nX-Request-ID: id7\r\n{fields}\r\n").into_bytes();
        let mut head = RequestHead::default();
        head.parse(&bytes, &HeadLimits::default()).unwrap();
        let arrival = Arrival::new("10.1.2.3:4567".parse().unwrap(), "127.0.0.1:8080".parse().unwrap(), Scheme::Http);
        let mut client = ClientView::default();
        let mut rng = Rng::from_seed(1);
        client.decide(&arrival, &head.view(&bytes), &Settings::default(), || rng.bits());
        let upstream_bytes = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nX-A: 1\r\nX-A: 2\r\n\r\n".to_vec();
        let mut upstream = ResponseHead::default();
        upstream.parse(&upstream_bytes, &HeadLimits::default()).unwrap();
        Self {
            bytes,
            head,
            client,
            host: host("shop.example", "web"),
            backend: backend(),
            upstream_bytes,
            upstream,
            tries: vec![one_try("10.0.0.1:80", 200)],
        }
    }

    pub(crate) fn record(&self) -> RequestRecord<'_> {
        RequestRecord {
            peer: "10.1.2.3:4567".parse().unwrap(),
            proxied: None,
            identity: None,
            variables: None,
            trace: None,
            geo: None,
            local: "127.0.0.1:8080".parse().unwrap(),
            tls: Some(TlsView {
                protocol: "TLSv1.3",
                cipher: "TLS_AES_256_GCM_SHA384",
                server_name: Some("shop.example"),
                resumed: true,
            }),
            connection: 42,
            connection_requests: 3,
            pipelined: false,
            head: Some(Spanned { parsed: &self.head, bytes: &self.bytes }),
            broken_line: b"",
            client: &self.client,
            path: b"/rewritten",
            judged_path: None,
            grpc_status: None,
            user: b"",
            host: Some(&self.host),
            route: self.host.routes().first(),
            backend: Some(&self.backend),
            alternative: None,
            cause: None,
            status: 200,
            body_sent: 11,
            sent: 150,
            received: 99,
            duration: Duration::from_micros(12_999),
            tries: &self.tries,
            upstream_fields: Some(Spanned { parsed: self.upstream.fields(), bytes: &self.upstream_bytes }),
            sent_head: b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nLocation:/x\r\n\r\n",
        }
    }
}

pub(crate) fn host(pattern: &str, ingress: &str) -> Host {
    let forward = Forward {
        backends: "default/web:80".into(),
        fallback: None,
        session_cookie_path: None,
        policy: std::sync::Arc::default(),
    };
    let route = Route::new(
        Origin::new("Ingress", "default", ingress).section("rules[0]"),
        PathMatch::prefix("/a").unwrap(),
        Action::Forward(forward),
    );
    Host::new("t".into(), HostPattern::parse(pattern).unwrap(), vec![route])
}

pub(crate) fn backend() -> Backend {
    Backend {
        name: "default/web:80".into(),
        origin: Origin::new("Service", "default", "web"),
        port: "http".into(),
        upstream_name: "default-web-80".into(),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    }
}

pub(crate) fn one_try(endpoint: &str, status: u16) -> Try {
    let endpoint: SocketAddr = endpoint.parse().unwrap();
    Try {
        endpoint,
        status,
        reason: None,
        connect: Some(Duration::ZERO),
        header: Some(Duration::from_millis(3)),
        response: Duration::from_millis(4),
        body_received: 11,
        received: 140,
        sent: 120,
    }
}
