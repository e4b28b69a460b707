//! Commands that read a cluster: `fairway check --kubeconfig` and the kubectl plugin, against a fake API server.

use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use crate::support;
use crate::support::run::{api_server, kubeconfig};
use crate::support::{fairway, text};
use fairway_testkit::{Gate, Origin};

/// Runs a command with the `--kubeconfig` of an API server that holds the Ingress `shop/web`.
fn look(mut command: Command, args: &[&str]) -> Output {
    let lists = Gate::new();
    lists.release();
    let (origin, folder) = (Origin::start("web"), tempfile::tempdir().expect("a folder"));
    let api = api_server(&origin, &lists);
    let kubeconfig = kubeconfig(&folder, &format!("http://{}", api.address()));
    command.args(args).arg("--kubeconfig").arg(kubeconfig).output().expect("the binary runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reads_a_cluster() {
    let output = look(fairway(), &["check"]);
    let report = text(&output);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("Ingresses\n  shop/web  no annotations of ingress-nginx\n"), "{report}");
    assert!(report.ends_with(" in the cluster: 0 errors, 0 warnings\n"), "{report}");
    let output = look(fairway(), &["check", "--configmap=ops/none"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("the cluster has no such ConfigMap"), "{}", text(&output));
    let output = look(fairway(), &["check", "--output=json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let schema = serde_json::from_str(include_str!("../../../../docs/schema/check.json")).expect("the schema is JSON");
    support::schema::validate(&schema, &report).unwrap_or_else(|wrong| panic!("{wrong} in {report:#}"));
    assert_eq!(report["ingresses"][0]["served"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_files_exclude_each_other_and_contexts_must_exist() {
    assert_eq!(look(fairway(), &["check", "."]).status.code(), Some(2));
    let output = look(fairway(), &["check", "--context=nowhere"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_of_kubectl_shows_the_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = folder.path().join("kubectl-fairway");
    symlink(env!("CARGO_BIN_EXE_fairway"), &name).expect("a link");
    let plugin = || {
        let mut command = Command::new(&name);
        command.env("NO_COLOR", "1");
        command
    };
    let status = text(&look(plugin(), &["status"]));
    let row = status.lines().find(|line| line.starts_with("shop/web")).unwrap_or_default();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["shop/web", "a.example", "-", "1", "-"], "{status}");
    assert!(status.ends_with("1 Ingress of class nginx, 0 others ignored; 0 errors, 0 warnings\n"), "{status}");
    let output = look(plugin(), &["explain", "--allow-backend-address=127.0.0.1", "GET", "http://a.example/x"]);
    assert!(output.status.success() && text(&output).contains("shop/web"), "{}", text(&output));
    let output = look(plugin(), &["explain", "GET", "http://a.example/x"]);
    assert!(!output.status.success(), "run would not use an endpoint on loopback either: {}", text(&output));
    assert_eq!(look(plugin(), &["explain", "GET", "http://b.example/"]).status.code(), Some(1));
    assert!(text(&look(plugin(), &["check"])).contains("in the cluster: 0 errors"));
    assert!(text(&look(plugin(), &["events"])).contains("no Events"));
    let help = plugin().arg("--help").output().expect("the binary runs");
    assert!(text(&help).contains("kubectl fairway status"), "{}", text(&help));
}
