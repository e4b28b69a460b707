//! `fairway run` under an orchestrator: how it starts, when it reports readiness, and how it stops.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use crate::support;
use crate::support::fairway;
use crate::support::run::{Run, api_server, kubeconfig};
use fairway_testkit::{Client, Gate, Origin, Reply, eventually};

fn run_to_its_end(args: &[&str]) -> Output {
    let pod = ["POD_NAME", "POD_NAMESPACE", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
    let mut command = fairway();
    pod.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.arg("run").args(args).output().expect("the binary runs")
}

/// The error output and exit status of the command.
fn complaint(args: &[&str]) -> (String, Option<i32>) {
    let output = run_to_its_end(args);
    (String::from_utf8(output.stderr).expect("the log is text"), output.status.code())
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_only_when_the_first_configuration_is_live() {
    let (origin, lists) = (Origin::start("web"), Gate::new());
    let api = api_server(&origin, &lists);
    let mut run = Run::start(api.address(), &[]);
    lists.reached(1).await;
    assert_eq!((run.status_of("/readyz").await, run.status_of("/healthz").await), (503, 500));
    lists.release();
    let http = run.serving();
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    assert_eq!((run.status_of("/readyz").await, run.status_of("/healthz").await), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_before_the_end() {
    let (held, lists) = (Gate::new(), Gate::new());
    lists.release();
    let origin = Origin::new("web").reply(Reply::ok().body("done").held_by(&held)).start();
    let api = api_server(&origin, &lists);
    let mut run = Run::start(api.address(), &[]);
    let http = run.serving();
    let mut client = Client::connect(http).await;
    client.send(REQUEST).await;
    origin.next_request().await;

    run.signal("-TERM");
    eventually("no more connections", || async { Client::try_connect(http).await.is_err() }).await;
    assert_eq!((run.status_of("/readyz").await, run.status_of("/healthz").await), (503, 500));
    held.release();
    let response = client.read_response().await;
    assert_eq!((response.status, response.text()), (200, "done".into()));
    assert_eq!(response.headers().get("connection"), Some("close"));
    assert_eq!(run.ended().code(), Some(0));
}

/// Kubernetes sends traffic to a terminating pod only while it is ready; load balancers that check its health see the change at once.
#[tokio::test(flavor = "multi_thread")]
async fn it_stays_ready_as_long_as_it_takes_connections() {
    let lists = Gate::new();
    lists.release();
    let origin = Origin::start("web");
    let api = api_server(&origin, &lists);
    let mut run = Run::start(api.address(), &["--shutdown-grace-period=3600"]);
    let http = run.serving();
    run.signal("-TERM");
    run.line_with("draining");
    eventually("a failing health check", || async { run.status_of("/healthz").await == 500 }).await;
    assert_eq!(run.status_of("/readyz").await, 200);
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    run.signal("-TERM");
    run.ended();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let (held, lists) = (Gate::new(), Gate::new());
    lists.release();
    let origin = Origin::new("web").reply(Reply::ok().held_by(&held)).start();
    let api = api_server(&origin, &lists);
    let mut run = Run::start(api.address(), &[]);
    let mut client = Client::connect(run.serving()).await;
    client.send(REQUEST).await;
    origin.next_request().await;
    run.signal("-TERM");
    run.line_with("draining");
    run.signal("-TERM");
    assert_eq!(run.ended().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_is_waited_for() {
    // A port that was free a moment ago may belong to another test by now.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut run = Run::start(nobody, &[]);
    run.line_with("the first configuration waits for it");
    assert_eq!(run.status_of("/readyz").await, 503);
    run.signal("-INT");
    assert_eq!(run.ended().code(), Some(0));
}

/// Container runtimes set 1024 by default, and each connection takes one.
#[test]
fn it_takes_all_the_files_that_it_may_have() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_fairway")]);
    let run = Run::start_as(shell, nobody, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", run.child.id())).expect("the process runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit of files");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "soft and hard: {line}");
    assert_ne!(words[3], "256");
}

#[test]
fn version_is_printed() {
    let output = run_to_its_end(&["--version"]);
    assert_eq!(support::text(&output), concat!("fairway ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(output.status.success());
}

#[test]
fn what_cannot_be_carried_out_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "clusters: [").unwrap();
    let good = kubeconfig(&folder, "http://192.0.2.1:1");
    let (broken, good) = (broken.display().to_string(), good.display().to_string());
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let any = ["--http-port=0", "--https-port=0", "--healthz-port=0"];
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--kubeconfig=/nowhere/config"], 1, "/nowhere/config"),
        (&["--kubeconfig", &broken], 1, &broken),
        (&[], 1, "fairway dev"),
        (&["--kubeconfig", &good], 1, "POD_NAME and POD_NAMESPACE must be set"),
        (&["--kubeconfig", &good, "--http-port", &port], 1, "choose other ports with --http-port and --https-port"),
        (&["--watch-namespace=a", "--watch-namespace-selector=b=c"], 2, "exclude each other"),
    ];
    for (args, code, part) in cases {
        let (log, status) = complaint(&[&any[..], args].concat());
        let error = log.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(part), "{args:?}: {log}");
        assert_eq!(error.contains("fairway dev"), part == "fairway dev", "advice that fits: {log}");
        assert_eq!(status, Some(code), "{args:?}: {log}");
    }
}

#[test]
fn flags_that_change_nothing_are_answered() {
    let any = ["--http-port=0", "--https-port=0", "--healthz-port=0", "--kubeconfig=/nowhere"];
    let unbuilt = ["--profiling", "--sync-period=1s", "--maxmind-mirror=x", "--ingress-class=x"];
    let (log, _) = complaint(&[&any[..], &unbuilt].concat());
    for (flag, level) in [("profiling", " INFO "), ("sync-period", " INFO "), ("maxmind-mirror", " WARN ")] {
        let line = log.lines().find(|line| line.contains(&format!("flag=\"{flag}\"")));
        assert!(line.is_some_and(|line| line.contains(level) && line.contains("note=")), "{flag}: {log}");
    }
    assert!(!log.contains("flag=\"ingress-class\""), "{log}");
}
