use super::*;
use crate::http::Spanned;
use crate::reason::{Cause, CauseDetail, Reason};
use crate::record::fixture::{Fixture, one_try};
use crate::timer::{Beat, Timers};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

fn line(template: &str, escape: LogEscape, record: &RequestRecord<'_>) -> String {
    let mut out = Vec::new();
    Format::compile(&Template::parse(template), escape)
        .append(record, &mut LogClock::new(), 1 << 20, &mut out)
        .unwrap();
    String::from_utf8(out).unwrap()
}

fn default_line(template: &str, record: &RequestRecord<'_>) -> String {
    line(template, LogEscape::Default, record)
}

/// The line with the time replaced, which is the only part that changes.
fn upstreaminfo(record: &RequestRecord<'_>) -> String {
    let text = default_line(AccessLog::UPSTREAMINFO, record);
    let (before, rest) = text.split_once('[').unwrap();
    let (_, after) = rest.split_once(']').unwrap();
    format!("{before}[TIME]{after}")
}

#[test]
fn the_default_line_matches_ingress_nginx() {
    let fixture = Fixture::new("GET /a?b=c HTTP/1.1", "User-Agent: curl/8 \"x\"\r\nReferer: http://r/\r\n");
    assert_eq!(
        upstreaminfo(&fixture.record()),
        "10.1.2.3 - - [TIME] \"GET /a?b=c HTTP/1.1\" 200 11 \"http://r/\" \"curl/8 \\x22x\\x22\" 99 0.012 \
         [default-web-80] [] 10.0.0.1:80 11 0.004 200 id7"
    );
}

#[test]
fn a_request_that_could_not_be_read_has_a_line_too() {
    let mut fixture = Fixture::new("GET /a HTTP/1.1", "");
    fixture.tries.clear();
    let record = RequestRecord {
        head: None,
        broken_line: b"GET /\x16 HTTP/1.1",
        host: None,
        route: None,
        backend: None,
        status: 400,
        tries: &[],
        ..fixture.record()
    };
    assert_eq!(
        upstreaminfo(&record),
        "10.1.2.3 - - [TIME] \"GET /\\x16 HTTP/1.1\" 400 11 \"-\" \"-\" 99 0.012 [-] [] - - - - id7"
    );
}

#[test]
fn tries_are_separated_by_commas() {
    let mut fixture = Fixture::new("GET /a HTTP/1.1", "");
    let failed = crate::record::Try { connect: None, header: None, body_received: 0, ..one_try("[::1]:81", 502) };
    fixture.tries.insert(0, failed);
    let template =
        "$upstream_addr|$upstream_status|$upstream_connect_time|$upstream_header_time|$upstream_response_length";
    let expected = "[::1]:81, 10.0.0.1:80|502, 200|-, 0.000|-, 0.003|0, 11";
    assert_eq!(default_line(template, &fixture.record()), expected);
}

#[test]
fn a_failure_has_a_reason_a_side_and_a_detail() {
    let mut fixture = Fixture::new("GET /a HTTP/1.1", "");
    fixture.tries.insert(0, crate::record::Try { reason: Some(Reason::ConnectRefused), ..one_try("[::1]:81", 502) });
    let cause = Cause { reason: Reason::ConnectRefused, detail: CauseDetail::System(nix::libc::ECONNREFUSED) };
    let record = RequestRecord { cause: Some(cause), ..fixture.record() };
    let template = "$failure_reason|$failure_side|$failure_detail|$upstream_reason";
    let expected = "connect_refused|upstream|Connection refused|connect_refused, -";
    assert_eq!(default_line(template, &record), expected);
    let record = RequestRecord { cause: Some(Reason::NoEndpoint.into()), ..fixture.record() };
    assert_eq!(default_line("$failure_reason|$failure_side|$failure_detail", &record), "no_endpoint|internal|-");
}

#[test]
fn each_variable_has_its_value() {
    let fixture = Fixture::new(
        "POST /a%20b?X=1&x=2&y HTTP/1.1",
        "Cookie: c=1; d=2; c=3\r\nX-Foo: a\r\nX-Foo: b\r\nContent-Length: 5\r\n",
    );
    let record = RequestRecord { user: b"me", ..fixture.record() };
    for (variable, expected) in [
        ("remote_addr", "10.1.2.3"),
        ("the_real_ip", "10.1.2.3"),
        ("remote_port", "4567"),
        ("remote_user", "me"),
        ("realip_remote_addr", "10.1.2.3"),
        ("request", "POST /a%20b?X=1&x=2&y HTTP/1.1"),
        ("request_method", "POST"),
        ("request_uri", "/a%20b?X=1&x=2&y"),
        ("uri", "/rewritten"),
        ("args", "X=1&x=2&y"),
        ("is_args", "?"),
        ("scheme", "http"),
        ("https", ""),
        ("host", "shop.example"),
        ("server_name", "shop.example"),
        ("server_addr", "127.0.0.1"),
        ("server_port", "8080"),
        ("server_protocol", "HTTP/1.1"),
        ("status", "200"),
        ("body_bytes_sent", "11"),
        ("bytes_sent", "150"),
        ("request_length", "99"),
        ("request_time", "0.012"),
        ("req_id", "id7"),
        ("connection", "42"),
        ("connection_requests", "3"),
        ("content_length", "5"),
        ("content_type", "-"),
        ("upstream_bytes_received", "140"),
        ("upstream_bytes_sent", "120"),
        ("ssl_protocol", "TLSv1.3"),
        ("ssl_cipher", "TLS_AES_256_GCM_SHA384"),
        ("ssl_server_name", "shop.example"),
        ("ssl_session_reused", "r"),
        ("pipe", "."),
        ("namespace", "default"),
        ("ingress_name", "web"),
        ("service_name", "web"),
        ("service_port", "http"),
        ("location_path", "/a"),
        ("proxy_upstream_name", "default-web-80"),
        ("proxy_alternative_upstream_name", ""),
        ("proxy_host", "default-web-80"),
        ("proxy_add_x_forwarded_for", "10.1.2.3"),
        ("pass_port", "8080"),
        ("http_x_foo", "a, b"),
        ("http_host", "Shop.Example:8080"),
        ("http_nothing", "-"),
        ("sent_http_content_type", "text/html"),
        ("sent_http_location", "/x"),
        ("sent_http_etag", "-"),
        ("upstream_http_server", "gunicorn"),
        ("upstream_http_x_a", "1, 2"),
        ("arg_x", "1"),
        ("arg_z", "-"),
        ("cookie_c", "1"),
        ("cookie_e", "-"),
        ("unheard_of", "-"),
        ("grpc_status", "-"),
        ("failure_reason", "-"),
        ("failure_side", "-"),
        ("failure_detail", "-"),
        ("upstream_reason", "-"),
    ] {
        assert_eq!(default_line(&format!("${variable}"), &record), expected, "{variable}");
    }
    assert_eq!(line("$unheard_of|$content_type", LogEscape::Json, &record), "|");
    let pid = std::process::id().to_string();
    assert_eq!(default_line("$pid $nginx_version", &record), format!("{pid} {}", env!("CARGO_PKG_VERSION")));
    let msec: f64 = default_line("$msec", &record).parse().unwrap();
    assert!(msec > 1.7e9);
    assert!(default_line("$time_iso8601", &record).ends_with("+00:00"));
}

#[test]
fn json_lines_are_json() {
    let fixture = Fixture::new("GET /a HTTP/1.1", "User-Agent: a\"b\\c\u{e9}\r\n");
    let text = line(r#"{"agent":"$http_user_agent","status":$status}"#, LogEscape::Json, &fixture.record());
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["agent"], "a\"b\\cé");
}

#[test]
fn targets_and_routes_can_be_excluded() {
    let skip = |targets: &[&str]| AccessLog {
        skip: targets.iter().map(|&text| text.into()).collect(),
        ..AccessLog::default()
    };
    let admits = |settings: &AccessLog, target: &str| {
        let fixture = Fixture::new(&format!("GET {target} HTTP/1.1"), "");
        LogRules::new(settings, None).admits(&fixture.record())
    };
    let settings = skip(&["/Health", "~^/probe/[0-9]+", "~*metrics", "~("]);
    assert!(!admits(&settings, "/health") && admits(&settings, "/health/x") && admits(&settings, "/health?x"));
    assert!(!admits(&settings, "/probe/7?x") && admits(&settings, "/PROBE/7"));
    assert!(!admits(&settings, "/x/METRICS"));
    assert!(!admits(&skip(&[&format!("/{}", "a".repeat(400))]), &format!("/{}", "A".repeat(400))));
    assert!(!admits(&AccessLog { enabled: false, ..AccessLog::default() }, "/"));
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let mut route = fixture.host.routes()[0].clone();
    route.access_log = false;
    let rules = LogRules::new(&AccessLog::default(), None);
    assert!(!rules.admits(&RequestRecord { route: Some(&route), ..fixture.record() }));
    assert!(rules.admits(&RequestRecord { head: None::<Spanned<'_, _>>, ..fixture.record() }));
}

/// An output that reports what it receives and can be blocked.
struct Output {
    written: Sender<Vec<u8>>,
    go: Option<Receiver<()>>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(go) = &self.go {
            go.recv().ok();
        }
        self.written.send(bytes.to_vec()).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn lines_are_written_together_and_in_order() {
    let (written, output) = channel();
    let thread = LogThread::start(LogSink::Writer(Box::new(Output { written, go: None }))).unwrap();
    let writer = thread.handle().writer();
    let format = Format::compile(&Template::parse("$connection"), LogEscape::Default);
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    for connection in 1..=3 {
        writer.log(&format, &RequestRecord { connection, ..fixture.record() }, 1 << 20);
    }
    assert!(output.try_recv().is_err(), "lines are not written one by one");
    writer.flush();
    assert!(thread.synchronize(LONG));
    assert_eq!(output.recv_timeout(LONG).unwrap(), b"1\n2\n3\n");
    writer.log(&format, &fixture.record(), 1 << 20);
    drop(writer);
    assert_eq!(output.recv_timeout(LONG).unwrap(), b"42\n", "a worker that ends writes its last lines");
    assert_eq!(thread.dropped(), 0);
}

#[tokio::test]
async fn lines_are_handed_over_when_they_get_old() {
    let (written, output) = channel();
    let thread = LogThread::start(LogSink::Writer(Box::new(Output { written, go: None }))).unwrap();
    let writer = thread.handle().writer();
    let format = Format::compile(&Template::parse("x"), LogEscape::Default);
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    writer.log(&format, &fixture.record(), 1 << 20);
    let timers = Timers::new();
    tokio::select! {
        () = writer.clone().run(timers.clone()) => unreachable!("it never ends"),
        Err(error) = timers.run(Beat::new().unwrap(), || false) => panic!("{error}"),
        line = tokio::task::spawn_blocking(move || output.recv_timeout(LONG)) => assert_eq!(line.unwrap().unwrap(), b"x\n"),
    }
}

#[test]
fn a_slow_output_costs_lines_and_not_memory() {
    let (written, output) = channel();
    let (release, go) = channel();
    let thread = LogThread::start(LogSink::Writer(Box::new(Output { written, go: Some(go) }))).unwrap();
    let writer = thread.handle().writer();
    let format = Format::compile(&Template::parse(&"x".repeat(1023)), LogEscape::Default);
    let fixture = Fixture::new("GET /a HTTP/1.1", "");
    let lines = 2000;
    for _ in 0..lines {
        writer.log(&format, &fixture.record(), 1 << 20);
    }
    let dropped = thread.dropped();
    assert!(dropped > 0);
    drop(writer);
    drop(release);
    assert!(thread.synchronize(LONG));
    let bytes: usize = output.try_iter().map(|piece| piece.len()).sum();
    assert_eq!(bytes as u64, (lines - dropped) * 1024, "all other lines are written");
    assert!(bytes < 500 << 10);
}

#[test]
fn a_log_that_is_off_writes_nothing() {
    let thread = LogThread::start(LogSink::Off).unwrap();
    let writer = thread.handle().writer();
    writer.log(&Format::plain(&Template::parse("x")), &Fixture::new("GET /a HTTP/1.1", "").record(), 1 << 20);
    writer.flush();
    assert!(thread.synchronize(Duration::ZERO));
}

#[test]
fn a_line_is_bounded_and_keeps_its_structure() {
    let fixture = Fixture::new(&format!("GET /{} HTTP/1.1", "a".repeat(1000)), "");
    let template = Template::parse(&format!("{{\"uri\": \"{}\", \"status\": $status}}", "$request_uri".repeat(10_000)));
    let mut out = Vec::new();
    let format = Format::compile(&template, LogEscape::Json);
    assert_eq!(format.append(&fixture.record(), &mut LogClock::new(), 4096, &mut out), Err(fairway_model::TooLong));
    let text = String::from_utf8(out).unwrap();
    assert!(text.len() <= 4096 && text.ends_with("\", \"status\": }"), "{} {text}", text.len());
}
