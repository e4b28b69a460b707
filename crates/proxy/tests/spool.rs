//! Request bodies that are read first, and held in files because they don't fit in memory (`--request-body-directory`).

mod support;

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use fairway_model::{ByteLimit, ForwardPolicy, RequestBuffering, UpstreamProtocol};
use fairway_proxy::{ProxyConfig, SpoolOptions};
use fairway_testkit::{Client, Origin, Reply, eventually, within};
use http::{HeaderMap, HeaderValue, Response};
use support::h2_origin::{Call, H2Origin};
use support::http2::{H2, post, whole};
use support::{HOST, TestProxy, backend, forward, forwarding, host, route};
use tempfile::TempDir;

/// More than memory holds of a body, and a multiple of no buffer size.
const LONG: usize = 3_000_001;

fn policy() -> ForwardPolicy {
    ForwardPolicy { request_buffering: RequestBuffering::All, max_body: ByteLimit::NONE, ..ForwardPolicy::default() }
}

fn config(directory: &Path, space: u64) -> ProxyConfig {
    ProxyConfig { spool: Some(SpoolOptions { directory: directory.into(), space }), ..support::config() }
}

fn proxy(origins: &[&Origin], directory: &Path, space: u64) -> TestProxy {
    TestProxy::start_with(forwarding(origins, policy()), config(directory, space))
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn head(more: &str) -> String {
    format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// A body in the chunked coding, without its last chunk.
fn chunks(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(70_001) {
        out.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Files without a name that the process has open there.
fn open_files(directory: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").expect("open files").flatten();
    files.filter(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.starts_with(directory))).count()
}

async fn nothing_is_left(directory: &Path) {
    eventually("all files are closed", || async { open_files(directory) == 0 }).await;
    assert_eq!(std::fs::read_dir(directory).expect("the directory").count(), 0);
}

#[tokio::test]
async fn a_body_of_any_form_reaches_another_endpoint_whole() {
    let (broken, origin) = (Origin::new("broken").reply(Reply::nothing().then_reset()).start(), Origin::start("a"));
    let directory = directory();
    let proxy = proxy(&[&broken, &origin], directory.path(), 64 << 20);
    let body = plain(LONG);
    for chunked in [false, true] {
        // Whichever endpoint is first.
        for _ in 0..2 {
            let mut client = proxy.connect().await;
            if chunked {
                client.send(head("Transfer-Encoding: chunked\r\n")).await;
                client.send(chunks(&body)).await;
                client.send("0\r\n\r\n").await;
            } else {
                client.send(head(&format!("Content-Length: {LONG}\r\n"))).await;
                client.send(&body).await;
            }
            // The next request follows at once, and keeps its place.
            client.send(format!("GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            let seen = origin.next_request().await;
            assert_eq!(seen.header("content-length"), Some(&*LONG.to_string()));
            assert_eq!(seen.header("transfer-encoding"), None);
            assert!(seen.body == body, "{} bytes", seen.body.len());
            assert_eq!(client.read_response().await.status, 200);
            assert_eq!(client.read_response().await.status, 200);
            assert_eq!(origin.next_request().await.head.start, "GET /next HTTP/1.1");
            origin.close_connections();
        }
    }
    assert!(broken.connections() > 0);
    nothing_is_left(directory.path()).await;
}

#[tokio::test]
async fn no_endpoint_is_asked_before_all_of_it_is_there() {
    let origin = Origin::start("a");
    let directory = directory();
    let proxy = proxy(&[&origin], directory.path(), 64 << 20);
    let mut client = proxy.connect().await;
    client.send(head(&format!("Content-Length: {LONG}\r\n"))).await;
    client.send(&plain(LONG)[..LONG - 1]).await;
    eventually("a file has it", || async { open_files(directory.path()) == 1 }).await;
    assert_eq!(std::fs::read_dir(directory.path()).expect("the directory").count(), 0, "it has no name");
    assert_eq!(origin.connections(), 0);
    client.send(&plain(LONG)[LONG - 1..]).await;
    assert_eq!(client.read_response().await.status, 200);
    assert!(origin.next_request().await.body == plain(LONG));
    nothing_is_left(directory.path()).await;
}

#[tokio::test]
async fn over_http_2_both_ways_with_and_without_trailers() {
    let directory = directory();
    let origin = H2Origin::start(|mut call: Call| async move {
        let (body, trailers) = call.body().await;
        let as_sent = body == plain(LONG);
        call.answer(Response::new(()), &format!("{as_sent} {}", trailers.is_some()));
    })
    .await;
    let mut resources = backend("web", &[origin.address]);
    let policy = ForwardPolicy { protocol: UpstreamProtocol::Http2, ..policy() };
    resources.push(host(HOST, vec![route("/", forward("web", policy))]));
    let proxy = TestProxy::start_with(resources, config(directory.path(), 64 << 20));
    for trailers in [false, true] {
        let client = H2::connect(proxy.http).await;
        let (response, mut send) = client.ready().await.send_request(post("/"), false).expect("a request");
        send.send_data(Bytes::from(plain(LONG)), !trailers).expect("data");
        if trailers {
            let last = HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("1"))]);
            send.send_trailers(last).expect("trailers");
        }
        let response = whole(within("a response", response).await.expect("a response")).await;
        assert_eq!(response.body, format!("true {trailers}").into_bytes());
    }
    nothing_is_left(directory.path()).await;
}

#[tokio::test]
async fn a_body_for_which_there_is_no_space_is_streamed() {
    let origin = Origin::start("a");
    let directory = directory();
    let proxy = proxy(&[&origin], directory.path(), 1 << 20);
    let body = plain(LONG);
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send(chunks(&body)).await;
    assert_eq!(origin.next_head().await.header("transfer-encoding"), Some("chunked"));
    client.send("0\r\n\r\n").await;
    client.send(format!("GET /next HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(client.read_response().await.status, 200);
    assert!(origin.next_request().await.body == body);
    nothing_is_left(directory.path()).await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_its_space_back() {
    let origin = Origin::start("a");
    let directory = directory();
    let proxy = proxy(&[&origin], directory.path(), 4 << 20);
    for _ in 0..3 {
        let mut client = proxy.connect().await;
        client.send(head("Transfer-Encoding: chunked\r\n")).await;
        client.send(chunks(&plain(LONG))).await;
        eventually("a file has it", || async { open_files(directory.path()) == 1 }).await;
        drop(client);
        nothing_is_left(directory.path()).await;
    }
    assert_eq!(origin.connections(), 0);
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send([chunks(&plain(LONG)), b"0\r\n\r\n".to_vec()].concat()).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(origin.next_request().await.header("content-length"), Some(&*LONG.to_string()));
}

#[tokio::test]
async fn a_body_that_becomes_too_large_is_refused_and_forgotten() {
    let origin = Origin::start("a");
    let directory = directory();
    let limited = ForwardPolicy { max_body: ByteLimit::of(2 << 20), ..policy() };
    let proxy = TestProxy::start_with(forwarding(&[&origin], limited), config(directory.path(), 64 << 20));
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send(chunks(&plain(LONG))).await;
    assert_eq!(client.read_response().await.status, 413);
    nothing_is_left(directory.path()).await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn without_its_directory_bodies_are_streamed() {
    let origin = Origin::start("a");
    let directory = directory();
    let proxy = proxy(&[&origin], directory.path(), 64 << 20);
    drop(directory);
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send([chunks(&plain(LONG)), b"0\r\n\r\n".to_vec()].concat()).await;
    assert_eq!(client.read_response().await.status, 200);
    let seen = origin.next_request().await;
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    assert!(seen.body == plain(LONG));
}

#[test]
fn a_directory_that_can_not_be_written_is_an_error_at_start() {
    let snapshot = fairway_model::Snapshot::default();
    let error = fairway_proxy::Proxy::start(snapshot, config(Path::new("/nowhere/at/all"), 1)).expect_err("an error");
    assert_eq!(error.to_string(), "cannot keep bodies of requests in /nowhere/at/all");
}

/// The disk of [`inside_a_small_disk`], made for this test.
#[test]
fn a_disk_that_is_full_loses_nothing() {
    let directory = directory();
    let script =
        "mount -t tmpfs -o size=2m none \"$0\" && SMALL_DISK=\"$0\" exec \"$1\" --exact inside_a_small_disk --ignored";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(directory.path());
    let output = command.arg(std::env::current_exe().expect("this test")).output().expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "needs a small disk, see above"]
async fn inside_a_small_disk() {
    let directory = std::env::var("SMALL_DISK").expect("where it is");
    let origin = Origin::start("a");
    let proxy = proxy(&[&origin], Path::new(&directory), 64 << 20);
    for framing in [format!("Content-Length: {LONG}\r\n"), "Transfer-Encoding: chunked\r\n".to_owned()] {
        let mut client = Client::connect(proxy.http).await;
        client.send(head(&framing)).await;
        let body = plain(LONG);
        let sent =
            if framing.starts_with('C') { body.clone() } else { [chunks(&body), b"0\r\n\r\n".to_vec()].concat() };
        client.send(sent).await;
        assert_eq!(client.read_response().await.status, 200);
        assert!(origin.next_request().await.body == body);
        nothing_is_left(Path::new(&directory)).await;
    }
}
