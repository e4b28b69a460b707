//! `fairway explain`: the response and its reasons, the chosen route, other routes that match, and the steps in between.
//! `explain::differential` in the binary shows that it agrees with the proxy.

use crate::support;
use crate::support::{example, run, text};
use fairway_testkit::Ca;
use serde_json::{Value, json};

fn explain(name: &str, words: &[&str]) -> (Option<i32>, String) {
    let folder = example(name).into_os_string().into_string().expect("a path in UTF-8");
    let output = run(["explain", &folder].into_iter().chain(words.iter().copied()));
    (output.status.code(), text(&output))
}

/// Explains a request to manifests, as JSON that conforms to its schema.
fn of(manifests: &str, words: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("objects.yaml"), manifests).expect("a file");
    let path = folder.path().to_str().expect("a path in UTF-8");
    let output = run(["explain", "--output", "json", path].into_iter().chain(words.iter().copied()));
    let account: Value = serde_json::from_str(&text(&output)).unwrap_or_else(|_| panic!("{output:?}"));
    let schema =
        serde_json::from_str(include_str!("../../../../docs/schema/explain.json")).expect("the schema is JSON");
    support::schema::validate(&schema, &account).unwrap_or_else(|wrong| panic!("{wrong} in {account:#}"));
    account
}

/// An Ingress for a.example with annotations, in YAML, and its Service.
fn ingress(annotations: &str, path: &str, service: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\n\
         kind: Ingress\n\
         metadata:\n  name: web\n  annotations:\n    nginx.ingress.kubernetes.io/{annotations}\n\
         spec:\n  ingressClassName: nginx\n  tls:\n  - hosts: [a.example]\n  rules:\n  - host: a.example\n    http:\n      paths:\n      \
         - {{path: '{path}', pathType: ImplementationSpecific, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n\
         ---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n\
         ---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{use-forwarded-headers: 'true'}}\n"
    )
}

#[track_caller]
fn assert_lines(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.lines().any(|found| found.contains(line)), "{line:?} in\n{report}");
    }
}

#[test]
fn the_route_and_what_it_beat_come_with_object_and_file() {
    let (code, report) = explain("shop", &["GET", "http://shop.localhost/order/7"]);
    assert_eq!(code, Some(0));
    let first =
        "Answer     by the backend: Prefix /order of Ingress default/shop leads to Service default/order, port http";
    assert_eq!(report.lines().next(), Some(first), "{report}");
    assert_lines(
        &report,
        &[
            "Host       shop.localhost, exactly",
            "Route      Prefix /order of Ingress default/shop#rules[0].paths[1] (",
            "shop/ingress.yaml:23)",
            "it is the longest prefix",
            "before Prefix / of Ingress default/shop#rules[0].paths[0] (",
            "Forward    GET /order/7 to default/order:http",
            "Backend    Service default/order, port http (",
            "Endpoints  none in the files",
            "Fields     Host: shop.localhost",
        ],
    );
}

#[test]
fn the_path_is_followed_to_the_backend() {
    let (_, report) = explain("rewrite", &["GET", "https://rewrite.localhost/api/x/../v1?q=1"]);
    assert_lines(
        &report,
        &[
            "Path       /api/v1 in canonical form",
            "rewrite the path to /$2, set X-Forwarded-Prefix to /api",
            "Forward    GET /v1?q=1 to ",
            "X-Forwarded-Prefix: /api",
        ],
    );
}

#[test]
fn filters_say_what_they_do_with_the_request() {
    let (code, report) = explain("tls", &["GET", "http://bank.localhost/"]);
    let first = "Answer     308 Permanent Redirect to https://bank.localhost: plain HTTP is redirected to https";
    assert_eq!((code, report.lines().next()), (Some(0), Some(first)), "{report}");
    assert_lines(&report, &["redirect plain HTTP to https with 308 (answers this request)"]);
    let (_, report) = explain("tls", &["GET", "https://bank.localhost/"]);
    assert_lines(
        &report,
        &["HSTS, over TLS only", "Response   remove Server", "set Strict-Transport-Security: max-age="],
    );
}

#[test]
fn cookies_are_looked_at() {
    let (_, report) = explain("sticky", &["GET", "http://sticky.localhost/", "-H", "Cookie: a=b; cart=x"]);
    assert_lines(&report, &["by the session cookie cart: the request has it"]);
}

#[test]
fn an_error_ends_with_1() {
    let (code, report) = explain("shop", &["GET", "http://shop.localhost/../x"]);
    let first = "Answer     400 Bad Request: the path climbs above the root [bad_path]";
    assert_eq!((code, report.lines().next()), (Some(1), Some(first)), "{report}");
    let (code, report) = explain("shop", &["GET", "http://nobody.localhost/"]);
    assert_eq!(code, Some(1), "{report}");
    assert_lines(&report, &["404 Not Found: no Ingress serves the host nobody.localhost"]);
    let output = run(["explain", "GET", "shop.localhost/x"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn flags_may_stand_between_the_words() {
    let (code, report) = explain("shop", &["--client", "192.0.2.1", "GET", "http://shop.localhost/order"]);
    assert_eq!(code, Some(0), "{report}");
    assert_lines(&report, &["Route      Prefix /order"]);
}

#[test]
fn what_a_trusted_proxy_says_counts() {
    let words = ["--configmap", "default/settings", "GET", "http://a.example/", "-H"];
    let account =
        of(&ingress("ssl-redirect: 'true'", "/", "web"), &[&words[..], &["X-Forwarded-Proto: https"]].concat());
    assert_eq!(account["answer"]["by"], "backend", "{account:#}");
    let allowed = ingress("whitelist-source-range: 10.0.0.0/8", "/", "web");
    let words = [&words[..], &["X-Forwarded-For: 10.1.2.3", "-H", "X-Forwarded-Proto: https"]].concat();
    let account = of(&allowed, &words);
    assert_eq!((&account["answer"]["by"], &account["client"]["address"]), (&"backend".into(), &"10.1.2.3".into()));
    let account = of(&allowed, &["GET", "https://a.example/"]);
    assert_eq!((&account["answer"]["status"], &account["answer"]["reason"]), (&403.into(), &"access_denied".into()));
    let why = account["answer"]["why"].as_str().expect("a text");
    assert!(why.contains("127.0.0.1 is not allowed: only from 10.0.0.0/8"), "{why}");
}

#[test]
fn rewrites_end_where_they_end_in_the_proxy() {
    let account = of(&ingress("rewrite-target: /x/../$1", "/(.*)", "web"), &["GET", "https://a.example/a"]);
    assert_eq!(account["answer"]["status"], 400, "{account:#}");
    let url = ingress("rewrite-target: https://new.example.com/$1", "/(.*)", "web");
    let account = of(&url, &["GET", "https://a.example/a/b?c=d"]);
    assert_eq!(account["answer"]["location"], "https://new.example.com/a/b?c=d", "{account:#}");
}

#[test]
fn an_ingress_that_is_not_loaded_is_named() {
    for (manifest, why) in [
        (
            ingress("ssl-redirect: 'true'", "/", "web").replace("ingressClassName: nginx", "ingressClassName: other"),
            "other",
        ),
        (ingress("server-alias: 'not a host'", "/", "web"), "server-alias"),
    ] {
        let account = of(&manifest, &["GET", "https://a.example/"]);
        assert_eq!(account["answer"]["status"], 404, "{account:#}");
        let left = &account["left_out"][0];
        assert_eq!(left["object"], "Ingress default/web", "{account:#}");
        assert!(left["why"].as_str().is_some_and(|text| text.contains(why)), "{account:#}");
        assert!(account["answer"]["why"].as_str().is_some_and(|text| text.contains("Ingress default/web names it")));
    }
}

#[test]
fn what_denies_is_named() {
    let account = of(&ingress("backend-protocol: FCGI", "/", "web"), &["GET", "https://a.example/"]);
    let why = account["answer"]["why"].as_str().expect("a text");
    assert_eq!(account["answer"]["status"], 503, "{account:#}");
    assert!(why.contains("backend-protocol") && why.contains("FCGI"), "{why}");
    let account = of(&ingress("ssl-redirect: 'true'", "/", "gone"), &["GET", "https://a.example/"]);
    let why = account["answer"]["why"].as_str().expect("a text");
    assert_eq!(account["answer"]["status"], 503, "{account:#}");
    assert!(why.contains("there is no Service default/gone"), "{why}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let broken = format!(
        "{}---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: broken}}\nspec: {{rules: 7}}\n",
        ingress("ssl-redirect: 'true'", "/", "web")
    );
    let account = of(&broken, &["GET", "https://b.example/"]);
    let findings = account["findings"].as_array().expect("a list");
    assert!(
        findings.iter().any(|found| found.as_str().is_some_and(|text| text.contains("default/broken"))),
        "{account:#}"
    );
    let account = of(&broken, &["--configmap", "default/none", "GET", "https://a.example/"]);
    assert!(account["findings"].to_string().contains("--configmap"), "{account:#}");
}

#[test]
fn an_authentication_service_at_a_refused_address_allows_nothing() {
    let manifest = ingress("auth-url: http://127.0.0.1:4180/auth", "/", "web");
    let request = ["GET", "https://a.example/x"];
    let account = of(&manifest, &request);
    assert_eq!(
        (&account["answer"]["by"], &account["answer"]["status"]),
        (&"fairway".into(), &500.into()),
        "{account:#}"
    );
    let allowed = ["--allow-backend-address", "127.0.0.1", request[0], request[1]];
    let account = of(&manifest, &allowed);
    assert_eq!(account["answer"]["by"], "backend", "{account:#}");
}

#[test]
fn tls_that_passes_through_has_no_route() {
    let manifest = ingress("ssl-passthrough: 'true'", "/", "web");
    let flag = "--enable-ssl-passthrough";
    let account = of(&manifest, &[flag, "GET", "https://a.example/x"]);
    let why = account["answer"]["why"].as_str().expect("a text");
    assert!(
        why.contains("passes undecrypted to Service default/web, port 80, by ssl-passthrough of Ingress default/web"),
        "{why}"
    );
    assert_eq!((&account["answer"]["by"], &account["answer"]["status"]), (&"backend".into(), &Value::Null));
    assert_eq!(account["passthrough"]["object"], "Ingress default/web", "{account:#}");
    assert_eq!((&account["route"], &account["forward"]), (&Value::Null, &Value::Null), "{account:#}");
    let account = of(&manifest, &[flag, "GET", "http://a.example/x"]);
    assert_eq!(account["answer"]["status"], 308, "plain HTTP is served as usual: {account:#}");
    let account = of(&manifest, &["GET", "https://a.example/x"]);
    assert_eq!(account["passthrough"], Value::Null, "without the flag: {account:#}");
    assert!(account["findings"].to_string().contains("without --enable-ssl-passthrough"), "{account:#}");
    let account = of(&ingress("ssl-passthrough: 'true'", "/x", "web"), &[flag, "GET", "https://a.example/x"]);
    assert_eq!(account["answer"]["by"], "nothing", "{account:#}");
    assert!(account["findings"].to_string().contains("expected a path /"), "{account:#}");
}

const ROUTES: &str = "\
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: gw}, spec: {gatewayClassName: any, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: gone}, spec: {parentRefs: [{name: gw}], hostnames: [gone.example], rules: [{backendRefs: [{name: gone, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: port}, spec: {parentRefs: [{name: gw}], hostnames: ['*.port.example'], rules: [{matches: [{path: {value: /x}}], backendRefs: [{name: web, port: 8080}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80, targetPort: 8080}]}}
";

#[test]
fn a_rule_without_a_valid_backend_names_what_is_missing() {
    for (url, status, reason) in [
        ("http://gone.example/", 500, "there is no Service default/gone"),
        // The Service doesn't have the target port.
        ("http://a.port.example/x", 500, "there is no port 8080: Service default/web has 80"),
    ] {
        let account = of(ROUTES, &["GET", url]);
        let why = account["answer"]["why"].as_str().expect("a text");
        assert!(account["answer"]["status"] == status && why.contains(reason), "{account:#}");
    }
    assert_eq!(of(ROUTES, &["GET", "http://a.port.example/x"])["host"]["pattern"], "*.port.example");
}

#[test]
fn a_service_that_no_file_has_is_answered_for_in_dev_only() {
    for (manifests, url) in [
        (ingress("ssl-redirect: 'true'", "/", "gone"), "https://a.example/"),
        (ROUTES.to_owned(), "http://gone.example/"),
    ] {
        let account = of(&manifests, &["GET", url]);
        let why = account["answer"]["why"].as_str().expect("a text");
        assert!(why.ends_with(" in a cluster, and fairway dev answers with its echo"), "{why}");
    }
}

fn why(account: &Value) -> &str {
    account["answer"]["why"].as_str().expect("a text")
}

/// Objects of the Gateway API with one rule, in YAML, of a route for these hosts.
fn with_rule(hosts: &str, rule: &str) -> String {
    let route = format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r}}, spec: {{parentRefs: [{{name: gw}}]{hosts}, rules: [{rule}]}}}}"
    );
    let auth = "{apiVersion: v1, kind: Service, metadata: {name: auth}, spec: {ports: [{port: 80}]}}";
    let gateway = ROUTES.lines().next().expect("a Gateway");
    let web = ROUTES.lines().last().expect("a Service");
    [gateway, &route, web, auth].join("\n---\n")
}

#[test]
fn a_rule_that_is_not_carried_out_says_why_whatever_the_host() {
    let filter = "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}, http: {}}}";
    let rule = format!("{{filters: [{filter}, {filter}], backendRefs: [{{name: web, port: 80}}]}}");
    for hosts in ["", ", hostnames: [a.example]"] {
        let account = of(&with_rule(hosts, &rule), &["GET", "http://a.example/"]);
        assert_eq!(
            (&account["answer"]["status"], &account["answer"]["reason"]),
            (&500.into(), &"misconfigured".into())
        );
        assert!(why(&account).contains("expected one filter ExternalAuth"), "{account:#}");
    }
}

#[test]
fn a_path_that_no_rule_takes_is_none_of_the_host() {
    let rule = "{matches: [{path: {value: /a}}], backendRefs: [{name: web, port: 80}]}";
    let routes = with_rule(", hostnames: [a.example]", rule);
    let account = of(&routes, &["GET", "http://a.example/b"]);
    assert_eq!(account["answer"]["reason"], "no_route", "{account:#}");
    assert_eq!(why(&account), "no path of host a.example takes the request");
    let account = of(&routes, &["GET", "http://b.example/a"]);
    assert_eq!(account["answer"]["reason"], "no_host", "{account:#}");
    assert!(why(&account).starts_with("no Ingress and no route serves the host b.example"), "{account:#}");
}

#[test]
fn what_the_api_server_refuses_is_not_loaded() {
    let filter = "{type: ExternalAuth, externalAuth: {protocol: http, backendRef: {name: auth, port: 80}, http: {}}}";
    let rule = format!("{{filters: [{filter}], backendRefs: [{{name: web, port: 80}}]}}");
    let account = of(&with_rule(", hostnames: [a.example]", &rule), &["GET", "http://a.example/"]);
    assert_eq!(
        (&account["answer"]["status"], &account["route"]["object"]),
        (&404.into(), &"Fairway default backend".into())
    );
    let why = why(&account);
    assert!(why.contains("externalAuth.protocol") && why.contains("did you mean HTTP?"), "{why}");
    assert!(why.ends_with("the API server refuses the object, and it is not read here"), "{why}");
}

#[test]
fn a_secret_that_an_xbackend_lacks_is_the_cause() {
    let xbackend = "\n---\n{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XBackend, metadata: {name: out}, spec: \
        {type: ExternalHostname, externalHostname: {hostname: api.example.com}, port: {number: 443}, tls: {mode: ClientAndServer, \
        clientCertificateRef: {name: gone}, validation: {hostname: api.example.com, wellKnownCACertificates: System}}}}";
    let rule = "{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: out}]}";
    let account = of(&(with_rule("", rule) + xbackend), &["GET", "http://a.example/"]);
    assert_eq!((&account["answer"]["status"], &account["answer"]["reason"]), (&503.into(), &"misconfigured".into()));
    assert!(why(&account).contains("there is no Secret default/gone"), "{account:#}");
}

#[test]
fn routes_at_another_listener_than_that_of_the_host_are_named() {
    let object = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
        )
    };
    let gateway = |name: &str, host: &str| {
        let listeners = format!("listeners: [{{name: l, port: 80, protocol: HTTP, hostname: '{host}'}}]");
        object("Gateway", name, &format!("gatewayClassName: any, {listeners}"))
    };
    let route = |name: &str, parent: &str, host: &str| {
        let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
        object("HTTPRoute", name, &format!("parentRefs: [{{name: {parent}}}], hostnames: [{host}], {rules}"))
    };
    // Without times the order is that of reading.
    let all = [
        gateway("old", "*.example"),
        route("narrowed", "old", "a.example"),
        route("served", "old", "b.example"),
        gateway("narrow", "a.example"),
        gateway("late", "*.example"),
        route("closed", "late", "b.example"),
        "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}\n".to_owned(),
    ];
    let told = |url: &str| {
        let account = of(&all.concat(), &["GET", url]);
        let elsewhere = account["elsewhere"].as_array().expect("a list").clone();
        let told = elsewhere.iter().map(|one| format!("{} {}", one["object"], one["why"]).replace('"', ""));
        (account["answer"]["by"].clone(), told.collect::<Vec<_>>())
    };
    let narrowed = "HTTPRoute default/narrowed at Gateway default/old#l; the host belongs to Gateway default/narrow#l, whose host name \
                    a.example is more specific";
    assert_eq!(told("http://a.example/"), ("fairway".into(), vec![narrowed.to_owned()]));
    let closed = "HTTPRoute default/closed at Gateway default/late#l, which is closed; the host belongs to Gateway default/old#l, with the \
                  host name *.example";
    assert_eq!(told("http://b.example/"), ("backend".into(), vec![closed.to_owned()]));
    assert_eq!(told("http://c.example/").1, Vec::<String>::new());
}

#[test]
fn tls_to_the_backend_is_told() {
    let plain = "{backendRefs: [{name: web, port: 80}]}";
    let tls_of = |manifests: &str, url| {
        let account = of(manifests, &["GET", url]);
        assert_eq!(account["answer"]["by"], "backend", "{account:#}");
        account["forward"]["tls"].clone()
    };
    assert_eq!(tls_of(&with_rule("", plain), "http://a.example/"), Value::Null);
    let policy = "\n---\n{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: t}, spec: \
        {targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: web.example, wellKnownCACertificates: System}}}";
    let expected = json!({
        "server_name": "web.example", "verified_by": "system", "authorities": null, "names": ["web.example"], "client_certificate": null,
    });
    assert_eq!(tls_of(&(with_rule("", plain) + policy), "http://a.example/"), expected);
    let expected = json!({
        "server_name": null, "verified_by": "nobody", "authorities": null, "names": [], "client_certificate": null,
    });
    assert_eq!(tls_of(&ingress("backend-protocol: HTTPS", "/", "web"), "https://a.example/"), expected);
    let (ca, leaf) = (Ca::new("ours"), Ca::new("clients").leaf(&["proxy"]));
    let shown = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shown"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": leaf.certificate_pem(), "tls.key": leaf.key_pem()},
    });
    let authority =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"}, "data": {"ca.crt": ca.pem()}});
    let xbackend = "{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XBackend, metadata: {name: out}, spec: \
        {type: ExternalHostname, externalHostname: {hostname: api.example.com}, port: {number: 443}, tls: {mode: ClientAndServer, \
        clientCertificateRef: {name: shown}, validation: {hostname: api.example.com, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}";
    let rule = "{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: out}]}";
    let all = [&with_rule("", rule), xbackend, &shown.to_string(), &authority.to_string()].map(str::to_owned);
    let expected = json!({
        "server_name": "api.example.com", "verified_by": "authorities", "authorities": 1, "names": ["api.example.com"],
        "client_certificate": "default/shown",
    });
    assert_eq!(tls_of(&all.join("\n---\n"), "http://a.example/"), expected);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("objects.yaml"), all.join("\n---\n")).expect("a file");
    let report = text(&run(["explain", folder.path().to_str().expect("UTF-8"), "http://a.example/"]));
    let line = "over TLS: server name api.example.com; only a certificate for api.example.com of its authority is accepted; shows \
                certificate default/shown";
    assert_lines(&report, &[line]);
}

#[test]
fn an_authentication_service_whose_endpoints_nobody_knows_is_taken_to_allow() {
    let asks = ingress("auth-url: http://web.default.svc.cluster.local/check", "/", "web");
    let account = of(&asks, &["GET", "https://a.example/"]);
    assert_eq!(account["answer"]["by"], "backend", "{account:#}");
    let filter = "{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}, http: {}}}";
    let rule = format!("{{filters: [{filter}], backendRefs: [{{name: web, port: 80}}]}}");
    let account = of(&with_rule("", &rule), &["GET", "http://a.example/"]);
    assert_eq!(account["answer"]["by"], "backend", "{account:#}");
    let gone = ingress("auth-url: http://gone.default.svc.cluster.local/check", "/", "web");
    let account = of(&gone, &["GET", "https://a.example/"]);
    assert_eq!(account["answer"]["by"], "fairway", "there is no such Service: {account:#}");
}

#[test]
fn without_manifests_the_command_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = support::fairway()
        .args(["explain", "http://a.example/"])
        .current_dir(folder.path())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("there is no manifest here") && said.contains("[PATH]"), "{said}");
}

/// Objects with snippets of an Ingress and of the ConfigMap.
const SNIPPETS: &str = r#"apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data:
  allow-snippet-annotations: "true"
  annotations-risk-level: Critical
  http-snippet: |
    deny 192.0.2.7;
  server-snippet: |
    # One for all hosts.
    if ($arg_gone) { return 410; }
  location-snippet: |
    if ($arg_teapot) { return 418; }
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations:
    nginx.ingress.kubernetes.io/configuration-snippet: |
      if ($http_x = a) { return 403; }
      if ($http_x = b) { return 403; }
      if ($http_x = c) { return 301 https://c.example/; }
    nginx.ingress.kubernetes.io/server-snippet: |
      if ($http_x_server) { return 410; }
      location /closed { deny all; }
      location = /robots.txt {
        return 200 "User-agent: *\nDisallow: /\n";
      }
spec:
  ingressClassName: nginx
  rules:
  - host: a.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
"#;

#[test]
fn an_answer_of_a_snippet_names_its_object_line_and_directive() {
    let why = |words: &[&str]| {
        let words: Vec<_> = ["--configmap", "default/settings"].into_iter().chain(words.iter().copied()).collect();
        let answer = of(SNIPPETS, &words)["answer"].clone();
        let why = answer["why"].as_str().expect("a reason");
        // The folder is a random one.
        let why = match (why.find(" ("), why.find("objects.yaml")) {
            (Some(start), Some(end)) => format!("{} ({}", &why[..start], &why[end..]),
            _ => why.to_owned(),
        };
        (answer["status"].as_u64(), why)
    };
    let of_ingress = |line: u32, rest: &str| format!("Ingress default/web (objects.yaml:{line}), {rest}");
    let of_settings = |line: u32, rest: &str| format!("ConfigMap default/settings (objects.yaml:{line}), {rest}");
    for (words, status, expected) in [
        (&["-H", "X: a", "http://a.example/"][..], 403, of_ingress(25, "configuration-snippet, line 1: return 403")),
        (&["-H", "X: b", "http://a.example/"], 403, of_ingress(25, "configuration-snippet, line 2: return 403")),
        (
            &["-H", "X: c", "http://a.example/"],
            301,
            of_ingress(25, "configuration-snippet, line 3: return 301 https://c.example/"),
        ),
        (&["-H", "X-Server: 1", "http://a.example/"], 410, of_ingress(29, "server-snippet, line 1: return 410")),
        (&["http://a.example/closed/x"], 403, of_ingress(29, "server-snippet, line 2: deny all")),
        (&["http://a.example/?gone=1"], 410, of_settings(9, "server-snippet, line 2: return 410")),
        (&["http://a.example/?teapot=1"], 418, of_settings(12, "location-snippet, line 1: return 418")),
        (&["--client", "192.0.2.7", "http://a.example/"], 403, of_settings(7, "http-snippet, line 1: deny 192.0.2.7")),
    ] {
        assert_eq!(why(words), (Some(status), expected), "{words:?}");
    }
    let (status, robots) = why(&["http://a.example/robots.txt"]);
    assert_eq!(status, Some(200));
    assert!(robots.contains("server-snippet, line 4: return 200 User-agent: *"), "{robots}");
}

#[test]
fn flags_that_select_a_cluster_are_refused_with_what_reads_one() {
    for (command, rest, instead) in
        [("explain", "http://a.example/", "kubectl fairway explain"), ("convert", ".", "kubectl get ingress")]
    {
        for flag in ["--kubeconfig", "--apiserver-host"] {
            let output = run([command, flag, "http://127.0.0.1:1", rest]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(&format!("{flag}: this command reads files, not a cluster")), "{said}");
            assert!(said.contains(instead), "{said}");
        }
    }
}

#[test]
fn wrong_arguments_are_told_what_was_expected() {
    for (arguments, expected) in [
        (&["dev", ".", "--http", "8080"][..], "expected ADDRESS:PORT, such as 127.0.0.1:9080"),
        (&["dev", ".", "--http", "localhost:18099"], "expected ADDRESS:PORT, such as 127.0.0.1:9080"),
        (&["explain", "--client", "1.2.3", "http://a.example/"], "expected an IPv4 or IPv6 address, such as 192.0.2.7"),
        (&["check"], "expected a PATH of manifests, or --context NAME or --kubeconfig FILE for a cluster"),
        (&["explain", "a.example"], "\"a.example\" is not a URL that starts with http:// or https://"),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[test]
fn manual_pages_get_their_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("share/man1");
    let output = run(["man".as_ref(), pages.as_os_str()]);
    assert!(output.status.success() && pages.join("fairway.1").exists(), "{output:?}");
}

#[test]
fn a_request_to_a_served_host_is_not_blamed_on_another_gateway() {
    let listener = |name: &str, host: &str| format!("{{name: {name}, port: 80, protocol: HTTP{host}}}");
    let gateway = |name: &str, listeners: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\n\
             spec: {{gatewayClassName: fairway, listeners: [{listeners}]}}\n---\n"
        )
    };
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n  parentRefs: [{name: edge}]\n  \
                 rules: [{matches: [{path: {type: PathPrefixx, value: /admin}}]}]\n";
    let manifests = gateway("edge", &listener("a", ", hostname: g.example"))
        + &gateway("other", &format!("{}, {}", listener("a", ""), listener("b", "")))
        + route;
    let why = of(&manifests, &["http://g.example/admin"])["answer"]["why"].clone();
    let why = why.as_str().expect("a reason");
    assert!(why.contains("HTTPRoute default/web") && why.contains("PathPrefixx"), "{why}");
    assert!(!why.contains("Gateway default/other"), "{why}");
}
