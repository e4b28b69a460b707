//! `fairway controller` and `fairway proxy` as two processes, joined by a socket.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::support;
use crate::support::run::{ConfigMap, Run, api_server, api_server_with, signal};
use crate::support::{fairway, text};
use fairway_testkit::{Client, Gate, Origin, Reply, eventually};
use serde_json::{Value, json};

/// A free path for a socket.
fn socket() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control.sock");
    (folder, path)
}

fn open() -> Gate {
    let gate = Gate::new();
    gate.release();
    gate
}

async fn channel(run: &Run) -> Value {
    serde_json::from_str(&run.body_of("/debug/channel").await).expect("JSON")
}

/// A metric of the channel.
async fn figure(run: &Run, name: &str) -> f64 {
    let metrics = run.body_of("/metrics").await;
    let line = metrics.lines().find(|line| line.starts_with(&format!("fairway_channel_{name}{{")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}: {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_ready_once_it_serves_what_the_controller_says() {
    let ((_folder, socket), lists) = (socket(), Gate::new());
    let origin = Origin::start("web");
    let api = api_server(&origin, &lists);
    let mut proxy = Run::proxy(&socket, &[]);
    assert_eq!((proxy.status_of("/readyz").await, proxy.status_of("/livez").await), (503, 200));
    let mut controller = Run::controller(api.address(), &socket, &[]);
    lists.reached(1).await;
    assert_eq!((controller.status_of("/readyz").await, controller.status_of("/livez").await), (503, 200));
    lists.release();
    let http = proxy.serving();
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    assert_eq!(proxy.status_of("/readyz").await, 200);
    controller.line_with("publishing");
    assert_eq!(controller.status_of("/readyz").await, 200);

    let (of_proxy, of_controller) = (channel(&proxy).await, channel(&controller).await);
    assert_eq!((&of_proxy["current"], &of_proxy["rounds"]), (&json!(true), &json!(1)));
    assert_eq!(of_controller["proxies"][0]["current"], true);
    assert_eq!(of_controller["proxies"][0]["resources"], of_proxy["resources"]);
    assert_eq!(figure(&proxy, "age_seconds").await, 0.0);
    // No alert depends on metrics that only a proxy can have.
    let metrics = controller.body_of("/metrics").await;
    let success =
        metrics.lines().find(|line| line.starts_with("nginx_ingress_controller_config_last_reload_successful{"));
    assert!(success.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    assert_eq!(figure(&controller, "current_proxies").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_proxy() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let config = ConfigMap::new([json!({}), json!({"add-headers": "edge/none", "server-tokens": "true"})]);
    let api = api_server_with(&origin, &config);
    let flags = ["--configmap=edge/config"];
    let _controller = Run::controller(api.address(), &socket, &flags);
    let mut proxy = Run::proxy(&socket, &flags);
    let mut client = Client::connect(proxy.serving()).await;
    assert_eq!(client.get("a.example", "/").await.headers().get("server"), None);
    config.change();
    eventually("the change", || async { proxy.body_of("/debug/snapshot").await.contains("\"server_tokens\": true") })
        .await;
    assert!(client.get("a.example", "/").await.headers().get("server").is_some());
}

/// The controller is killed under load, and comes back: no request is affected, and nothing is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_there_is_no_controller() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let api = api_server(&origin, &open());
    let mut controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    let http = proxy.serving();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let load = {
        let (stop, answered) = (stop.clone(), answered.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut client = Client::connect(http).await;
                for _ in 0..10 {
                    assert_eq!(client.get("a.example", "/").await.status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let more = async || {
        let before = answered.load(Ordering::Relaxed);
        eventually("more answers", || async { answered.load(Ordering::Relaxed) > before + 100 || load.is_finished() })
            .await;
    };
    more().await;
    controller.signal("-KILL");
    controller.ended();
    proxy.line_with("no controller");
    more().await;
    assert_eq!(channel(&proxy).await["current"], false);
    assert!(figure(&proxy, "age_seconds").await > 0.0);
    assert_eq!(proxy.status_of("/readyz").await, 200);

    let controller = Run::controller(api.address(), &socket, &[]);
    eventually("the new controller", || async { channel(&proxy).await["current"] == true }).await;
    assert_eq!((figure(&controller, "sent_resources_total").await, figure(&proxy, "age_seconds").await), (0.0, 0.0));
    more().await;
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
}

/// In a pod, the controller's container doesn't end, so the pod stays ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_fails_is_started_again_by_its_parent() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let api = api_server(&origin, &open());
    let mut parent = Run::controller(api.address(), &socket, &["--restart-on-failure"]);
    let mut proxy = Run::proxy(&socket, &[]);
    proxy.serving();
    let child =
        |line: &str| line.rsplit("process=").next().and_then(|id| id.parse::<u32>().ok()).expect("a process id");
    let first = child(parent.log().lines().find(|line| line.contains("of its own")).expect("the first child"));
    signal(first, "-KILL");
    assert!(parent.line_with("the controller failed").contains("signal: 9"));
    let second = child(&parent.line_with("of its own"));
    assert_ne!(first, second);
    parent.line_with("publishing");
    eventually("the new controller", || async { channel(&proxy).await["current"] == true }).await;

    proxy.signal("-TERM");
    proxy.ended();
    parent.signal("-TERM");
    assert_eq!(parent.ended().code(), Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{second}")).exists(), "the child ends first");
    // A failure that would recur each time is not retried.
    let refused = fairway().args(["controller", "--restart-on-failure", "--configmap=one/two/three"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_restarts_gets_everything_at_once() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let api = api_server(&origin, &open());
    let controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    proxy.serving();
    proxy.signal("-KILL");
    proxy.ended();
    let mut proxy = Run::proxy(&socket, &[]);
    let http = proxy.serving();
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    assert_eq!(channel(&proxy).await["rounds"], 1);
    eventually("one proxy", || async { figure(&controller, "proxies").await == 1.0 }).await;
}

/// Kubernetes tells both containers of a pod to stop at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn the_controller_ends_after_the_proxy_has_drained() {
    let (_folder, socket) = socket();
    let held = Gate::new();
    let origin = Origin::new("web").reply(Reply::ok().body("done").held_by(&held)).start();
    let api = api_server(&origin, &open());
    let mut controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    let mut client = Client::connect(proxy.serving()).await;
    client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
    origin.next_request().await;
    controller.signal("-TERM");
    proxy.signal("-TERM");
    controller.line_with("asked to end");
    proxy.line_with("draining");
    // The controller still knows its proxy.
    assert_eq!(figure(&controller, "current_proxies").await, 1.0);
    held.release();
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(controller.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_how_both_stand_and_exits_with_1_when_a_proxy_is_stale() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let api = api_server(&origin, &open());
    let mut controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    proxy.serving();
    eventually("both", || async { figure(&controller, "current_proxies").await == 1.0 }).await;
    let both = [controller.admin(), proxy.admin()];
    let status = |args: &[&str]| {
        let addresses = both.iter().flat_map(|address| ["--admin".to_owned(), address.to_string()]);
        fairway().arg("status").args(addresses).args(args).output().expect("the binary runs")
    };
    let output = status(&["--resources", "--output=json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let schema = serde_json::from_str(include_str!("../../../../docs/schema/status.json")).expect("the schema is JSON");
    support::schema::validate(&schema, &report).unwrap_or_else(|wrong| panic!("{wrong} in {report:#}"));
    let [of_controller, of_proxy] = [0, 1].map(|at| &report["processes"][at]);
    assert_eq!((&of_controller["role"], &of_proxy["role"]), (&json!("controller"), &json!("proxy")));
    assert_eq!(of_controller["versions"], of_proxy["versions"]);
    let versions = of_proxy["versions"].as_object().expect("versions");
    assert!(versions.contains_key("host/ingress a.example") && versions.contains_key("settings"), "{versions:?}");
    assert_eq!(of_proxy["resources"], versions.len());
    assert_eq!((output.status.code(), &of_controller["proxies"][0]["name"]), (Some(0), &of_proxy["name"]));
    let table = text(&status(&["--resources"]));
    assert!(table.contains(" 0 different between 2 processes\n") && table.contains(" 1 of 1 "), "{table}");

    controller.signal("-KILL");
    controller.ended();
    proxy.line_with("no controller");
    let output = status(&[]);
    let table = text(&output);
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(table.lines().any(|line| line.contains(" proxy  stale ")), "{table}");
    assert!(table.contains(&format!("{}: asking", both[0])), "{table}");
}

/// The node restarts while the API server and every controller are away.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_starts_from_its_file_while_there_is_no_controller() {
    let (folder, socket) = socket();
    let origin = Origin::start("web");
    let api = api_server(&origin, &open());
    let (key, kept) = (folder.path().join("key"), folder.path().join("kept"));
    std::fs::write(&key, [7; 32]).expect("a key");
    std::fs::create_dir(&kept).expect("a folder");
    let file = kept.join("snapshot");
    let flags = [format!("--snapshot-file={}", file.display()), format!("--snapshot-key-file={}", key.display())];
    let flags = [&*flags[0], &*flags[1]];
    let mut controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &flags);
    proxy.serving();
    eventually("the file", || async { figure(&proxy, "file_timestamp_seconds").await > 0.0 }).await;
    let before = proxy.body_of("/debug/resources").await;
    for run in [&mut proxy, &mut controller] {
        run.signal("-KILL");
        run.ended();
    }
    // Pretend, by the machine's clock, that this was seven hours ago.
    let away = Duration::from_secs(7 * 3600);
    let opened = File::options().write(true).open(&file).expect("the file");
    opened.set_modified(SystemTime::now() - away).expect("a time");

    let mut proxy = Run::proxy(&socket, &flags);
    let http = proxy.serving();
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
    let age = figure(&proxy, "age_seconds").await - away.as_secs_f64();
    assert!((0.0..60.0).contains(&age), "{age}");
    assert_eq!(proxy.body_of("/debug/resources").await, before);
    assert_eq!((proxy.status_of("/readyz").await, figure(&proxy, "from_file").await), (200, 1.0));
    let standing = channel(&proxy).await;
    assert_eq!(
        (&standing["complete"], &standing["current"], &standing["rounds"]),
        (&json!(true), &json!(false), &json!(0))
    );
    let output = fairway().args(["status", "--admin", &proxy.admin().to_string()]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(" stale "), "{}", text(&output));

    // A controller has the same configuration, and sends none of it again.
    let controller = Run::controller(api.address(), &socket, &[]);
    eventually("the controller", || async { channel(&proxy).await["current"] == true }).await;
    assert_eq!((figure(&controller, "sent_resources_total").await, figure(&proxy, "from_file").await), (0.0, 0.0));
    assert_eq!((figure(&controller, "rounds_total").await, figure(&proxy, "age_seconds").await), (1.0, 0.0));
    drop((proxy, controller));

    // With another key the file is unusable, and the proxy waits.
    std::fs::write(&key, [8; 32]).expect("a key");
    let mut proxy = Run::proxy(&socket, &flags);
    assert!(proxy.line_with("is ignored").contains("another key"));
    assert_eq!(proxy.status_of("/readyz").await, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_change_takes_is_measured() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let config = ConfigMap::new([json!({}), json!({"server-tokens": "true"})]);
    let api = api_server_with(&origin, &config);
    let controller = Run::controller(api.address(), &socket, &["--configmap=edge/config"]);
    let mut proxy = Run::proxy(&socket, &[]);
    proxy.serving();
    eventually("the proxy", || async { figure(&controller, "current_proxies").await == 1.0 }).await;
    let before = figure(&controller, "propagation_seconds_count").await;
    config.change();
    eventually("the change", || async { figure(&controller, "propagation_seconds_count").await > before }).await;
    let metrics = controller.body_of("/metrics").await;
    let (slowest, standing) = (channel(&controller).await["slowest"].clone(), channel(&proxy).await);
    assert_eq!(slowest["name"], standing["name"], "{slowest}");
    assert!(slowest["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0 && seconds < 5.0), "{slowest}");
    assert!(metrics.contains("fairway_channel_slowest_proxy_seconds{"), "{metrics}");
}

/// What an attacker who takes over the proxy's process would find.
#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_has_no_credentials_and_may_not_get_any() {
    let (_folder, socket) = socket();
    let origin = Origin::start("web");
    let api = api_server(&origin, &open());
    let controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    proxy.serving();
    let of = |run: &Run, file: &str| {
        let text = std::fs::read(format!("/proc/{}/{file}", run.child.id())).expect("the process runs");
        String::from_utf8_lossy(&text).into_owned()
    };
    let files = |run: &Run| -> Vec<String> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", run.child.id())).expect("the process runs");
        let targets = folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.map(|target| target.display().to_string()).collect()
    };
    let words = ["kubeconfig", "serviceaccount", "token", "/config"];
    let named = |text: &str| words.iter().any(|word| text.contains(word));
    assert!(named(&of(&controller, "cmdline")), "the words are those that give a controller away");
    assert!(!named(&of(&proxy, "cmdline")) && !of(&proxy, "environ").contains("KUBECONFIG"));
    assert!(!of(&proxy, "mounts").contains("serviceaccount"));
    let open = files(&proxy);
    assert!(!open.is_empty() && !open.iter().any(|file| named(file)), "{open:?}");
    let status = of(&proxy, "status");
    let has = |line: &str| status.lines().any(|found| found.split_whitespace().eq(line.split_whitespace()));
    assert!(has("Seccomp: 2") && has("NoNewPrivs: 1"), "{status}");
    // A container runtime may have installed a filter too.
    let filters = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.and_then(|number| number.trim().parse::<u32>().ok()).unwrap_or_else(|| panic!("no number: {status}"))
    };
    assert_eq!(filters(&status), filters(&of(&controller, "status")) + 1);
    // No kernel file shows what Landlock does to a process, but the proxy knows.
    let without = proxy.log().lines().find(|line| line.contains("may use all files"));
    assert!(without.is_none_or(|line| line.contains("this kernel has no Landlock")), "{without:?}");
    assert!(!proxy.log().contains("may make all system calls"), "{}", proxy.log());
}
