//! The Gateway API from files: what `check` says, what `dev` serves, what `explain` shows.

mod support;

use std::fs;

use support::{Dev, run, text};

const OBJECTS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: any
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: other, port: 8081, protocol: HTTP, hostname: '*.other.example'}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [a.example, b.other.example]
  rules:
  - backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /old}}]
    filters:
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: c.example, statusCode: 301}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: old, namespace: shop}
spec:
  rules:
  - host: a.example
    http:
      paths:
      - {path: /api, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {ports: [{port: 80}]}
";

#[tokio::test]
async fn routes_of_files_are_served_beside_ingresses() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), OBJECTS).unwrap();
    let mut dev = Dev::start([folder.path()]);
    dev.line_with("for port 8081 of Gateways");
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80/gateway");
    assert_eq!(dev.service("a.example", "/api").await, "shop/api:80");
    // Only its other listener has this name.
    assert_eq!(dev.service("unknown.example", "/").await, "404");
    let rewritten = dev.get("a.example", "/old/x?y=z").await.text();
    assert!(rewritten.contains("/new/x?y=z"), "{rewritten}");
    let moved = dev.get("a.example", "/moved/x").await;
    assert_eq!(moved.status, 301);

    fs::write(folder.path().join("a.yaml"), OBJECTS.replace("a.example, b", "d.example, b")).unwrap();
    dev.line_with("+ d.example/");
    assert_eq!(dev.service("d.example", "/").await, "shop/web:80/gateway");
    assert_eq!(dev.service("a.example", "/").await, "404");
    assert_eq!(dev.service("a.example", "/api").await, "shop/api:80");
}

#[test]
fn check_shows_the_status_and_what_the_crds_refuse() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), OBJECTS).unwrap();
    let good = text(&run(["check".as_ref(), folder.path().as_os_str()]));
    for line in [
        "Gateway shop/edge",
        "listener http, 1 route: Accepted, ResolvedRefs, Programmed",
        "HTTPRoute shop/web",
        "at edge: Accepted, ResolvedRefs",
    ] {
        assert!(good.contains(line), "{line:?} in\n{good}");
    }
    let bad = OBJECTS
        .replace("port: 8081, protocol: HTTP", "port: 80, protocol: HTTP, tls: {}")
        .replace("/old}", "old}")
        .replace("type: URLRewrite", "type: URLRewrites")
        .replace("hostnames:", "hostname:");
    fs::write(folder.path().join("a.yaml"), bad).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str()]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for parts in [
        ["a.yaml:8: error", "spec.listeners[1].tls", "must not be specified"],
        ["a.yaml:15: warning", "unknown field", "did you mean hostnames?"],
        ["a.yaml:18: error", "spec.rules[1].matches[0].path.value", "start with '/'"],
        ["a.yaml:20: error", "spec.rules[1].filters[0].type", "did you mean URLRewrite?"],
    ] {
        assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in\n{report}");
    }
}

#[test]
fn explain_shows_the_route_of_either_kind_and_what_it_beat() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), OBJECTS).unwrap();
    let path = folder.path().to_str().unwrap();
    let report = text(&run(["explain", path, "GET", "http://a.example/api/x"]));
    assert!(report.contains("Prefix /api of Ingress shop/old"), "{report}");
    assert!(report.contains("Prefix / of HTTPRoute shop/web"), "{report}");
    let report = text(&run(["explain", path, "GET", "http://b.other.example:8081/"]));
    assert!(report.contains("HTTPRoute shop/web"), "{report}");
}
