//! Probes.

use super::*;
use serde_json::json;
use tokio::net::TcpListener;

fn container(probe: serde_json::Value) -> Container {
    let ports = json!([{ "name": "web", "containerPort": 8080 }]);
    serde_json::from_value(json!({ "name": "c", "ports": ports, "readinessProbe": probe })).expect("a container")
}

fn action(probe: serde_json::Value) -> Result<ProbeAction, String> {
    let container = container(probe);
    ProbeAction::of_probe(container.readiness_probe.as_ref().expect("a probe"), &container)
}

#[test]
fn only_so_many_results_in_a_row_count() {
    let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
    let mut tally = ProbeCounter::new(&probe, false);
    let results = [true, false, true, true, false, false, true, false, false, false, true];
    let thought: Vec<bool> = results
        .into_iter()
        .map(|good| {
            tally.record(good);
            tally.good
        })
        .collect();
    assert_eq!(thought, [false, false, false, true, true, true, true, true, true, false, false]);
}

#[test]
fn ports_have_numbers_or_names() {
    assert_eq!(action(json!({ "tcpSocket": { "port": "web" } })), Ok(ProbeAction::Tcp { host: None, port: 8080 }));
    assert_eq!(action(json!({ "tcpSocket": { "port": 81 } })), Ok(ProbeAction::Tcp { host: None, port: 81 }));
    action(json!({ "tcpSocket": { "port": "none" } })).expect_err("no such port");
    action(json!({ "tcpSocket": { "port": 70000 } })).expect_err("no such number");
    action(json!({ "grpc": { "port": 1 } })).expect_err("not supported");
}

async fn probe_answered_with(answer: &'static str) -> (Result<(), String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.expect("a request");
        }
        stream.write_all(answer.as_bytes()).await.expect("answered");
        String::from_utf8(head).expect("text")
    });
    let headers = json!([{ "name": "Host", "value": "shop.example" }, { "name": "X-A", "value": "b" }]);
    let action = action(json!({ "httpGet": { "path": "healthz", "port": port, "httpHeaders": headers } }));
    let local = IpAddr::from([127, 0, 0, 1]);
    let result = http(&action.expect("an action"), Target { address: local, source: local }).await;
    (result, server.await.expect("served"))
}

#[tokio::test]
async fn an_answer_below_400_is_good_and_headers_are_sent() {
    let (result, request) = probe_answered_with("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n").await;
    assert_eq!(result, Ok(()));
    let expected = "GET /healthz HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\n\
        X-A: b\r\nConnection: close\r\n\r\n";
    assert_eq!(request, expected);
}

#[tokio::test]
async fn other_answers_are_failures_with_a_reason() {
    let (result, _) = probe_answered_with("HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    assert_eq!(result, Err("HTTP probe failed with statuscode: 503".to_owned()));
    let (result, _) = probe_answered_with("").await;
    assert!(result.expect_err("nothing").ends_with(": EOF"));
    let (result, _) = probe_answered_with("SSH-2.0\r\n").await;
    assert!(result.expect_err("not HTTP").contains("malformed HTTP response"));
}
