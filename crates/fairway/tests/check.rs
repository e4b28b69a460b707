//! `fairway check`: what it says, and how it ends.

mod support;

use std::fs;

use support::{example, run, text};

const BAD: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations:
    nginx.ingress.kubernetes.io/proxy-read-timeout: 5s
    nginx.ingress.kubernetes.io/rewrite-targt: /
    nginx.ingress.kubernetes.io/auth-url: https://auth.example/
spec:
  ingressClassName: nginx
  rules:
  - host: a b.example
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: web, port: {number: 80}}}
  - hots: b.example
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: risky
  annotations:
    nginx.ingress.kubernetes.io/configuration-snippet: more_clear_headers a;
---
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: old}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
";

#[test]
fn examples_are_without_findings() {
    for name in ["shop", "hosts", "tls", "rewrite", "sticky"] {
        let output = run(["check".into(), example(name)]);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).ends_with(": 0 errors, 0 warnings\n"), "{}", text(&output));
    }
}

#[test]
fn every_finding_names_file_line_object_field_and_value() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str()]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for parts in [
        ["bad.yaml:6: ", "Ingress default/web", "proxy-read-timeout", "\"5s\""],
        ["bad.yaml:7: ", "Ingress default/web", "rewrite-targt", "rewrite-target"],
        ["bad.yaml:12: error", "Ingress default/web", "spec.rules[0].host", "\"a b.example\""],
        ["bad.yaml:18: warning", "spec.rules[1].hots", "unknown field", "hots"],
        ["bad.yaml:27: error", "Ingress default/old", "apiVersion", "backend.service.name"],
    ] {
        assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in\n{report}");
    }
    for (name, verdict) in [
        ("auth-url", "not yet"),
        ("configuration-snippet", "refused"),
        ("rewrite-targt", "unknown"),
        ("proxy-read-timeout", "same"),
    ] {
        let annotations = report.split("Annotations\n").nth(1).unwrap_or_default();
        let named = |line: &&str| line.contains(&format!("/{name} "));
        assert!(annotations.lines().find(named).is_some_and(|line| line.contains(verdict)), "{name} in\n{report}");
    }
    assert!(report.contains("(1 object of other kinds left alone)"), "{report}");
}

/// `fairway dev` has its echo; a cluster has nothing that answers.
#[test]
fn a_service_that_the_files_do_not_hold_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("alone.yaml"),
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: nginx
  rules:
  - host: a.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}
",
    )
    .unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str()]);
    let report = text(&output);
    assert!(output.status.success(), "{report}");
    let parts = ["alone.yaml:10: warning", "no Service default/api", "[ServiceNotFound]"];
    assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{report}");
    assert!(report.ends_with("1 object in 1 file: 0 errors, 1 warning\n"), "{report}");
}

/// Nobody writes down what is on by itself.
#[test]
fn a_default_that_is_missing_is_said_unless_the_files_speak_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = |data: &str| {
        let manifest = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config}}\ndata: {{{data}}}\n");
        fs::write(folder.path().join("config.yaml"), manifest).unwrap();
        text(&run(["check".as_ref(), folder.path().as_os_str(), "--configmap=default/config".as_ref()]))
    };
    let standing = "By default ingress-nginx has use-http2 on: HTTP/2 isn't built yet";
    let report = config("");
    assert!(report.contains(standing), "{report}");
    let report = config("use-http2: 'true'");
    assert!(!report.contains(standing) && report.contains("HTTP/2 isn't built yet"), "{report}");
}

#[test]
fn the_json_report_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str(), "--output=json".as_ref()]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let diagnostics = report["diagnostics"].as_array().unwrap();
    let host = diagnostics.iter().find(|found| found["field"] == "spec.rules[0].host").unwrap();
    assert_eq!(
        (host["line"].as_u64(), host["severity"].as_str(), host["name"].as_str()),
        (Some(12), Some("Error"), Some("web"))
    );
    assert!(host["file"].as_str().unwrap().ends_with("bad.yaml"));
    let verdicts = report["annotations"].as_array().unwrap();
    let snippet = verdicts.iter().find(|found| found["verdict"] == "refused").unwrap();
    assert!(snippet["instead"].is_string() && snippet["line"] == 25, "{snippet}");
    assert_eq!(
        report["errors"].as_u64(),
        Some(diagnostics.iter().filter(|found| found["severity"] == "Error").count() as u64)
    );
}

#[test]
fn the_global_configmap_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let configmap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: global, namespace: ops}\ndata:\n  keep-alive: \"75\"\n  no-such-key: x\n";
    fs::write(folder.path().join("a.yaml"), configmap).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str(), "--configmap=ops/global".as_ref()]);
    let report = text(&output);
    let keys = report.split("ConfigMap keys\n").nth(1).unwrap_or_default();
    assert!(
        keys.lines().any(|line| line.contains("no-such-key") && line.contains("unknown") && line.contains("a.yaml:6")),
        "{report}"
    );
    assert!(keys.lines().any(|line| line.contains("keep-alive") && line.contains("same")), "{report}");
}

#[test]
fn wrong_command_lines_end_with_2() {
    for args in [&["check"][..], &["check", "/no/such/file"], &["check", "--output=xml", "."], &["nothing"], &[]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let help = text(&run(["check", "--help"]));
    assert!(help.contains("Examples:") && help.contains("--configmap"), "{help}");
    assert!(text(&run(["version"])).starts_with("fairway 0."));
    assert!(text(&run(["run", "--version"])).starts_with("fairway 0."));
}
