//! The Gateway API from files: the output of `check`, the responses of `dev` and the explanations of `explain`.

use std::ffi::OsStr;
use std::fs;
use std::process::Output;

use crate::support::{Dev, run, text};
use fairway_testkit::{Ca, Client, Leaf, Origin, Reply, TlsClient, eventually};

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
  - matches: [{path: {value: /secure}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]
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

/// Manifests in a folder of their own, and the results of the commands for them.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// One file, `a.yaml`.
    fn of(text: impl AsRef<[u8]>) -> Self {
        let files = Self::new();
        files.write("a.yaml", text);
        files
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), text).expect("a file");
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("a path of text")
    }

    fn dev(&self, flags: &[&str]) -> Dev {
        self.dev_with(flags, &[])
    }

    /// The same, with these variables in its environment.
    fn dev_with(&self, flags: &[&str], environment: &[(&str, &OsStr)]) -> Dev {
        Dev::start_with([&[self.path()], flags].concat(), environment)
    }

    fn check(&self) -> Output {
        run(["check", self.path()])
    }

    fn explain(&self, words: &[&str]) -> String {
        text(&run([&["explain", self.path()], words].concat()))
    }
}

#[tokio::test]
async fn routes_of_files_are_served_beside_ingresses() {
    let files = Files::of(OBJECTS);
    let mut dev = files.dev(&[]);
    dev.line_with("for port 8081 of Gateways");
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80/gateway");
    assert_eq!(dev.service("a.example", "/api").await, "shop/api:80");
    // Only the Gateway's other listener has this name.
    assert_eq!(dev.service("unknown.example", "/").await, "404");
    let rewritten = dev.get("a.example", "/old/x?y=z").await.text();
    assert!(rewritten.contains("/new/x?y=z"), "{rewritten}");
    let moved = dev.get("a.example", "/moved/x").await;
    assert_eq!(moved.status, 301);
    // The port that represents 443 here.
    let secure = dev.get("a.example", "/secure/x").await;
    assert_eq!(secure.header("location"), Some(&*format!("https://a.example:{}/secure/x", dev.https.port())));

    files.write("a.yaml", OBJECTS.replace("a.example, b", "d.example, b"));
    dev.line_with("+ d.example/");
    assert_eq!(dev.service("d.example", "/").await, "shop/web:80/gateway");
    assert_eq!(dev.service("a.example", "/").await, "404");
    assert_eq!(dev.service("a.example", "/api").await, "shop/api:80");
}

#[test]
fn check_shows_the_status_and_what_the_crds_refuse() {
    let files = Files::of(OBJECTS);
    let good = text(&files.check());
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
    files.write("a.yaml", bad);
    let output = files.check();
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for parts in [
        ["a.yaml:6: error", "spec.listeners: Invalid value", "tls must not be specified for protocols"],
        ["a.yaml:15: warning", "unknown field", "did you mean hostnames?"],
        ["a.yaml:18: error", "spec.rules[1].matches[0].path.value", "does not start with /"],
        ["a.yaml:20: error", "spec.rules[1].filters[0].type", "did you mean URLRewrite?"],
    ] {
        assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in\n{report}");
    }
}

#[test]
fn explain_shows_the_route_of_either_kind_and_what_it_beat() {
    let files = Files::of(OBJECTS);
    let report = files.explain(&["GET", "http://a.example/api/x"]);
    assert!(report.contains("Prefix /api of Ingress shop/old"), "{report}");
    assert!(report.contains("Prefix / of HTTPRoute shop/web"), "{report}");
    let report = files.explain(&["GET", "http://b.other.example:8081/"]);
    assert!(report.contains("HTTPRoute shop/web"), "{report}");
}

/// A Gateway with a TLS listener, an HTTP listener and a TCP listener, whose routes lead to one Service that expects TLS.
const SECURED: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: any
  tls: {backend: {clientCertificateRef: {name: shown}}}
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: tls, port: 443, protocol: TLS, hostname: tls.example, tls: {certificateRefs: [{name: own}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [web.example]
  rules: [{backendRefs: [{name: web, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [tls.example]
  rules: [{backendRefs: [{name: web, port: 443}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 443}]}
";

fn policy(validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: web, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, name: web}}]\n  validation: {{{validation}}}\n"
    )
}

fn object(kind: &str, name: &str, data: &[(&str, String)]) -> String {
    let field = if kind == "Secret" { "stringData" } else { "data" };
    let mut out = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\n{field}:\n");
    for (key, value) in data {
        out += &format!("  {key}: |\n    {}\n", value.trim().replace('\n', "\n    "));
    }
    out
}

/// The results for a client of the HTTPRoute and for one of the TLSRoute.
async fn through_both(dev: &Dev, ca: &Ca) -> (u16, Option<String>) {
    let http = dev.get("web.example", "/").await.status;
    let Ok(mut client) = TlsClient::new(ca, "tls.example").try_connect(dev.https).await else { return (http, None) };
    if client.try_send("GET / HTTP/1.1\r\nHost: any\r\n\r\n").await.is_err() {
        return (http, None);
    }
    (http, client.try_read_response().await.ok().map(|response| response.echo().origin))
}

#[test]
fn explain_says_when_the_handshake_fails_and_where_tls_ends() {
    let ca = Ca::new("servers");
    let leaf = ca.leaf(&["tls.example", "web.example"]);
    let asking = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: asking, namespace: shop}
spec:
  gatewayClassName: any
  tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}}}
  listeners: [{name: https, port: 443, protocol: HTTPS, hostname: asking.example, tls: {certificateRefs: [{name: own}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: asking, namespace: shop}
spec: {parentRefs: [{name: asking}], rules: [{backendRefs: [{name: web, port: 443}]}]}
---
";
    let own = object("Secret", "own", &[("tls.crt", leaf.certificate_pem()), ("tls.key", leaf.key_pem())]);
    let files = Files::of(format!("{SECURED}{asking}{own}---\n{}", object("ConfigMap", "ca", &[("ca.crt", ca.pem())])));
    let report = files.explain(&["https://asking.example/"]);
    assert!(report.contains("the TLS handshake fails: no required client certificate was sent"), "{report}");
    assert!(report.contains("requires a client certificate of 1 authority\n"), "{report}");
    let report = files.explain(&["https://tls.example/"]);
    assert!(
        report.contains("TLS ends at the proxy by TLSRoute shop/web, but Service shop/web has no endpoint"),
        "{report}"
    );
}

#[test]
fn explain_shows_all_shares_of_a_rule_and_its_limits() {
    let shared = "  - matches: [{path: {value: /shared}}]
    timeouts: {request: 2s, backendRequest: 500ms}
    retry: {codes: [503], attempts: 2}
    backendRefs: [{name: web, port: 80, weight: 3}, {name: api, port: 80}, {name: gone, port: 80, weight: 6}]
---
";
    let files = Files::of(OBJECTS.replacen(
        "---\napiVersion: networking.k8s.io/v1\n",
        &format!("{shared}apiVersion: networking.k8s.io/v1\n"),
        1,
    ));
    let report = files.explain(&["http://a.example/shared"]);
    for line in [
        "3 of 10 requests to shop/web:80/gateway\n",
        "1 of 10 requests to shop/api:80/gateway\n",
        "6 of 10 requests to no valid backend: an error\n",
        "connect 0.5 s, send 0.5 s, read 0.5 s, response within 2 s; 3 tries, also after 503; ",
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
    assert!(!files.explain(&["http://a.example/"]).contains("Shares"));
}

#[tokio::test]
async fn backends_are_spoken_to_over_tls_as_a_policy_says_also_for_terminated_connections() {
    let (ca, other, clients) = (Ca::new("servers"), Ca::new("others"), Ca::new("clients"));
    let origin = Origin::new("secure").mutual_tls(&ca.leaf(&["web.internal"]), &clients).start();
    let files = Files::new();
    let pair = |leaf: &Leaf| [("tls.crt", leaf.certificate_pem()), ("tls.key", leaf.key_pem())];
    files.write("routes.yaml", SECURED);
    files.write("own.yaml", object("Secret", "own", &pair(&ca.leaf(&["tls.example"]))));
    files.write("shown.yaml", object("Secret", "shown", &pair(&clients.leaf(&["proxy"]))));
    files.write("ca.yaml", object("ConfigMap", "ca", &[("ca.crt", ca.pem())]));
    files.write("other.yaml", object("ConfigMap", "other", &[("ca.crt", other.pem())]));
    let trusting = |name: &str| format!("caCertificateRefs: [{{group: '', kind: ConfigMap, name: {name}}}]");
    let backend = format!("--backend=shop/web:443={}", origin.address());
    files.write("policy.yaml", policy(&format!("hostname: web.internal, {}", trusting("ca"))));
    let dev = files.dev(&[&backend]);
    let secure = Some("secure".to_owned());
    assert_eq!(Box::pin(through_both(&dev, &ca)).await, (200, secure.clone()));
    for _ in 0..2 {
        assert_eq!(origin.next_request().await.sni.as_deref(), Some("web.internal"));
    }
    let expect = async |what: &str, expected: (u16, Option<String>)| {
        let is_so = async || {
            let found = Box::pin(through_both(&dev, &ca)).await;
            if found == expected { Ok(()) } else { Err(found) }
        };
        Box::pin(eventually(what, is_so)).await;
    };
    files.write("policy.yaml", policy(&format!("hostname: else.internal, {}", trusting("ca"))));
    expect("another name", (502, None)).await;
    files.write("policy.yaml", policy(&format!("hostname: web.internal, {}", trusting("other"))));
    expect("another authority", (502, None)).await;
    files.write("policy.yaml", policy(&format!("hostname: web.internal, {}", trusting("gone"))));
    expect("no authority", (500, None)).await;
    files.write("policy.yaml", policy(&format!("hostname: web.internal, {}", trusting("ca"))));
    expect("all is well again", (200, secure.clone())).await;
    files.write("shown.yaml", object("Secret", "shown", &pair(&other.leaf(&["proxy"]))));
    expect("the certificate of somebody else", (502, None)).await;
}

#[tokio::test]
async fn the_authorities_of_the_machine_count_where_a_policy_says_so() {
    let ca = Ca::new("servers");
    let origin = Origin::new("secure").tls(&ca.leaf(&["web.internal"])).start();
    let files = Files::new();
    let routes = SECURED.replace("  tls: {backend: {clientCertificateRef: {name: shown}}}\n", "");
    files.write("routes.yaml", routes);
    let leaf = ca.leaf(&["tls.example"]);
    files.write(
        "own.yaml",
        object("Secret", "own", &[("tls.crt", leaf.certificate_pem()), ("tls.key", leaf.key_pem())]),
    );
    files.write("policy.yaml", policy("hostname: web.internal, wellKnownCACertificates: System"));
    let backend = format!("--backend=shop/web:443={}", origin.address());
    let authorities = tempfile::NamedTempFile::new().unwrap();
    for (trusted, expected) in [(&ca, (200, Some("secure".to_owned()))), (&Ca::new("others"), (502, None))] {
        fs::write(authorities.path(), trusted.pem()).unwrap();
        let environment = [("SSL_CERT_FILE", authorities.path().as_os_str())];
        let dev = files.dev_with(&[&backend], &environment);
        assert_eq!(Box::pin(through_both(&dev, &ca)).await, expected);
    }
}

/// A Gateway whose route leads to an XBackend.
const OUTSIDE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: any
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [web.example]
  rules:
  - backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: web}]
  - matches: [{path: {value: /other}}]
    backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: web}]
";

fn xbackend(spec: &str) -> String {
    let head = "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackend";
    format!("{head}\nmetadata: {{name: web, namespace: shop}}\nspec: {{{spec}}}\n")
}

#[tokio::test]
async fn a_host_outside_of_the_cluster_is_reached_over_tls_as_its_xbackend_says() {
    let (ca, other, clients) = (Ca::new("servers"), Ca::new("others"), Ca::new("clients"));
    let origin = Origin::new("outside").mutual_tls(&ca.leaf(&["api.example"]), &clients).start();
    let files = Files::new();
    let pair = |leaf: &Leaf| [("tls.crt", leaf.certificate_pem()), ("tls.key", leaf.key_pem())];
    let outside = |authorities: &str, tls: &str| {
        let validation =
            format!("hostname: api.example, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {authorities}}}]");
        let host = "type: ExternalHostname, externalHostname: {hostname: localhost}";
        xbackend(&format!("{host}, port: {{number: {}}}, tls: {{{tls}, validation: {{{validation}}}}}", origin.port()))
    };
    let mutual = "mode: ClientAndServer, clientCertificateRef: {name: shown}";
    files.write("routes.yaml", OUTSIDE);
    files.write("shown.yaml", object("Secret", "shown", &pair(&clients.leaf(&["proxy"]))));
    files.write("ca.yaml", object("ConfigMap", "ca", &[("ca.crt", ca.pem())]));
    files.write("other.yaml", object("ConfigMap", "other", &[("ca.crt", other.pem())]));
    files.write("outside.yaml", outside("ca", mutual));
    // Addresses that lead back to this machine are refused, unless a flag allows them.
    let refused = text(&files.check());
    assert!(refused.contains("XBackend shop/web"), "{refused}");
    assert!(refused.contains("localhost may not be a backend"), "{refused}");
    let allowed = "--allow-backend-address=127.0.0.1";
    let explained = files.explain(&[allowed, "GET", "http://web.example/"]);
    assert!(explained.contains("shop/web") && explained.contains("localhost"), "{explained}");

    let dev = files.dev(&[allowed]);
    let expect = async |what: &str, expected: u16| {
        let is_so = async || match dev.get("web.example", "/").await.status {
            status if status == expected => Ok(()),
            status => Err(status),
        };
        Box::pin(eventually(what, is_so)).await;
    };
    expect("the origin", 200).await;
    assert_eq!(origin.next_request().await.sni.as_deref(), Some("api.example"));
    files.write("outside.yaml", outside("other", mutual));
    expect("another authority", 502).await;
    files.write("outside.yaml", outside("gone", mutual));
    expect("no authority", 500).await;
    files.write("outside.yaml", outside("ca", "mode: ServerOnly"));
    expect("no certificate to show", 502).await;
    files.write("outside.yaml", outside("ca", mutual));
    expect("all is well again", 200).await;
    // The XBackend itself says which protocol it expects, so a policy for it is never applied.
    let policy = policy("hostname: api.example, wellKnownCACertificates: System");
    files.write(
        "policy.yaml",
        policy.replace("group: '', kind: Service", "group: gateway.networking.x-k8s.io, kind: XBackend"),
    );
    expect("a policy for the XBackend", 500).await;
    let refused = text(&files.check());
    assert!(refused.contains("BackendTLSPolicy shop/web") && refused.contains("expected a Service"), "{refused}");
    fs::remove_file(files.0.path().join("policy.yaml")).unwrap();
    expect("no policy", 200).await;
    files.write("outside.yaml", String::new());
    expect("no XBackend", 500).await;
}

#[tokio::test]
async fn what_the_crd_of_xbackends_refuses_is_not_served_and_pods_have_sessions() {
    let files = Files::new();
    files.write("routes.yaml", OUTSIDE);
    let pods = "type: EndpointSelector, endpointSelector: {matchLabels: {app: web}}, port: {number: 8080}";
    files.write("pods.yaml", xbackend(&format!("{pods}, protocol: HTTP2")));
    let output = files.check();
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("tls must be enabled when protocol is HTTP2"), "{report}");
    assert!(report.contains("a kind of the experimental channel"), "{report}");

    files.write(
        "pods.yaml",
        xbackend(&format!("{pods}, sessionPersistence: {{type: Header, header: {{name: X-Session}}}}")),
    );
    let report = text(&files.check());
    let refused = "the right to make Services comes with --gateway-address=asked or own";
    assert!(report.contains("at edge: Accepted=False") && report.contains(refused), "{report}");
    let report = text(&run(["check", files.path(), "--gateway-address=asked"]));
    assert!(report.contains("at edge: Accepted") && !report.contains("Accepted=False"), "{report}");
    let local = Origin::start("local");
    let replaced = files.dev(&["--backend", &format!("shop/web:8080={}", local.address())]);
    assert!(!replaced.greeting.contains("leads to this port"), "{}", replaced.greeting);
    assert_eq!(replaced.get("web.example", "/").await.echo().origin, "local");
    drop(replaced);
    let mut dev = files.dev(&[]);
    // There are no pods on this machine, so the echo answers for them.
    assert_eq!(dev.service("web.example", "/").await, "shop/web:8080/xbackend");
    let begun = dev.get("web.example", "/").await;
    let session = begun.header("x-session").expect("a session").to_owned();
    let fields = format!("Host: web.example\r\nX-Session: {session}");
    let head = format!("GET /other HTTP/1.1\r\n{fields}\r\n\r\n");
    let mut client = Client::connect(dev.http).await;
    client.send(&head).await;
    let again = client.read_response().await;
    assert_eq!((again.status, again.header("x-session")), (200, None), "the session of the other rule too");
    fs::remove_file(files.0.path().join("pods.yaml")).unwrap();
    dev.line_with("there is no XBackend shop/web");
    assert_eq!(dev.get("web.example", "/").await.status, 500);
}

#[tokio::test]
async fn a_local_process_in_place_of_an_xbackend_is_spoken_to_in_the_clear() {
    let files = Files::new();
    files.write("routes.yaml", OUTSIDE);
    let tls = "tls: {mode: ServerOnly, validation: {hostname: api.example, wellKnownCACertificates: System}}";
    let outside = "type: ExternalHostname, externalHostname: {hostname: api.example}, port: {number: 443}";
    files.write("outside.yaml", xbackend(&format!("{outside}, {tls}")));
    let local = Origin::start("local");
    let dev = files.dev(&["--backend", &format!("shop/web:443={}", local.address())]);
    let said = format!("{} is spoken to in plain HTTP/1.1, not as spec.tls of XBackend shop/web says", local.address());
    assert!(dev.greeting.contains(&said), "{}", dev.greeting);
    assert_eq!(dev.get("web.example", "/").await.echo().origin, "local");
    drop(dev);
    files.write("outside.yaml", xbackend(outside));
    let dev = files.dev(&["--backend", &format!("shop/web:443={}", local.address())]);
    assert!(!dev.greeting.contains("plain HTTP/1.1"), "{}", dev.greeting);
}

/// The policy that restricts `/old` of the route.
const POLICY: &str = "\
---
apiVersion: fairway.dev/v1alpha1
kind: RoutePolicy
metadata: {name: staff, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: old}]
  basicAuth: {secretRef: {name: staff}}
---
apiVersion: v1
kind: Secret
metadata: {name: staff, namespace: shop}
stringData: {auth: 'ada:{PLAIN}lovelace'}
";

#[tokio::test]
async fn a_policy_restricts_the_rule_that_it_is_for() {
    let files = Files::new();
    let objects =
        OBJECTS.replace("- matches: [{path: {value: /old}}]", "- name: old\n    matches: [{path: {value: /old}}]");
    files.write("a.yaml", format!("{objects}{POLICY}"));
    let mut dev = files.dev(&[]);
    dev.line_with("for port 8081 of Gateways");
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80/gateway");
    assert_eq!(dev.get("a.example", "/old").await.status, 401);
    // Without its Secret, access is denied to all.
    let broken = POLICY.replace("secretRef: {name: staff}", "secretRef: {name: none}");
    files.write("a.yaml", format!("{objects}{broken}"));
    dev.line_with("there is no Secret shop/none");
    assert_eq!(dev.get("a.example", "/old").await.status, 503);
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80/gateway");
    let report = text(&files.check());
    for line in ["RoutePolicy shop/staff", "at edge: ResolvedRefs=False/InvalidSecretRef"] {
        assert!(report.contains(line), "{line:?} in\n{report}");
    }
    // The policy is named with what it decides, and only where it applies.
    let report = files.explain(&["GET", "http://a.example/old"]);
    let told = report.lines().find(|line| line.contains("basicAuth of RoutePolicy shop/staff ("));
    assert!(told.is_some_and(|line| line.trim_start().starts_with("Policy")), "{report}");
    assert!(!files.explain(&["GET", "http://a.example/"]).contains("RoutePolicy"));
    // Without the policy, access is open to all.
    files.write("a.yaml", &objects);
    dev.line_with("~");
    assert_eq!(dev.service("a.example", "/old").await, "shop/web:80/gateway");
}

#[tokio::test]
async fn a_service_is_asked_by_a_filter_of_a_route() {
    let guard = Origin::new("guard").reply(Reply::status(200).header("X-User", "ann")).start();
    let files = Files::new();
    let filter = "    - type: ExternalAuth
      externalAuth:
        protocol: HTTP
        backendRef: {name: guard, port: 80}
        http: {path: /check, allowedResponseHeaders: [X-User]}
    - type: URLRewrite
";
    let asking = OBJECTS.replace("    - type: URLRewrite\n", filter);
    let service =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: guard, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
    files.write("a.yaml", format!("{asking}{service}"));
    let backend = format!("--backend=shop/guard:80={}", guard.address());
    let mut dev = files.dev(&[&backend]);
    dev.line_with("for port 8081 of Gateways");
    let echoed = dev.get("a.example", "/old/x?y=z").await.text();
    assert!(echoed.contains("/new/x?y=z") && echoed.contains("X-User: ann"), "{echoed}");
    let asked = guard.seen().pop().expect("the service was asked");
    assert_eq!((asked.target.as_str(), asked.header("host")), ("/check/old/x?y=z", Some("a.example")));
    // The other rules call no service.
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80/gateway");
    assert!(guard.seen().len() == 1, "{:?}", guard.seen());
    // A service that speaks only HTTP/1 can't be called over gRPC.
    let grpc = asking
        .replace("protocol: HTTP\n        backendRef", "protocol: GRPC\n        backendRef")
        .replace("http: {path: /check, allowedResponseHeaders: [X-User]}", "grpc: {allowedHeaders: [X-User]}");
    files.write("a.yaml", format!("{grpc}{service}"));
    dev.line_with("~");
    assert_eq!(dev.get("a.example", "/old/x").await.status, 500);
    let report = files.explain(&["GET", "http://a.example/old/x"]);
    assert!(report.contains("with a call of ext_authz about the request with the fields X-User;"), "{report}");
    let report = text(&files.check());
    assert!(report.contains("experimental channel") && !report.contains("it has no effect"), "{report}");
    // Without the service, access is denied to all.
    files.write("a.yaml", asking.replace("name: guard", "name: gone"));
    dev.line_with("there is no Service shop/gone");
    assert_eq!(dev.get("a.example", "/old/x").await.status, 500);
    let report = text(&files.check());
    assert!(report.contains("experimental channel") && !report.contains("it has no effect"), "{report}");
}

#[tokio::test]
async fn a_rule_begins_sessions_as_its_route_says() {
    let sessions = |text: &str| {
        let rule = format!("  rules:\n  - sessionPersistence: {text}\n    backendRefs: [{{name: web, port: 80}}]\n");
        OBJECTS.replace("  rules:\n  - backendRefs: [{name: web, port: 80}]\n", &rule)
    };
    let files = Files::new();
    files.write("a.yaml", sessions("{type: Header, header: {name: X-Session}}"));
    let mut dev = files.dev(&[]);
    dev.line_with("for port 8081 of Gateways");
    let begun = dev.get("a.example", "/").await;
    assert!(begun.header("x-session").is_some() && begun.header("set-cookie").is_none(), "{begun:?}");
    assert_eq!(dev.get("a.example", "/old").await.header("x-session"), None, "another rule");
    let explained = files.explain(&["GET", "http://a.example/"]);
    assert!(explained.contains("by the session header X-Session: the request does not have it"), "{explained}");
    files.write("a.yaml", sessions("{cookie: {name: sid, lifetimeType: Permanent}, absoluteTimeout: 1h}"));
    dev.line_with("~");
    let begun = dev.get("a.example", "/").await;
    let cookie = begun.header("set-cookie").unwrap_or_default();
    assert!(cookie.starts_with("sid=") && cookie.contains("; Max-Age=3600; Path=/; HttpOnly"), "{cookie}");
    // A route that the CRDs refuse is reported, and is not served without sessions.
    files.write("a.yaml", sessions("{cookie: {lifetimeType: Permanent}}"));
    dev.line_with("a permanent cookie needs it");
    assert_eq!(dev.get("a.example", "/").await.status, 500);
    let report = text(&files.check());
    assert!(report.contains("AbsoluteTimeout must be specified when cookie lifetimeType is Permanent"), "{report}");
    assert!(report.contains("it has no effect in a cluster without the CRDs of that channel"), "{report}");
}

/// A policy with a value of the wrong type, beside a list that restricts.
#[tokio::test]
async fn a_policy_that_cannot_be_read_denies() {
    let policy = "---\napiVersion: fairway.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  targetRefs:\n  \
                  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}\n  access: {allow: [10.0.0.0/8]}\n  \
                  timeouts: {readSeconds: soon}\n";
    let files = Files::of(format!("{OBJECTS}{policy}"));
    let dev = files.dev(&[]);
    assert_eq!(dev.service("a.example", "/").await, "503");
    let explained = files.explain(&["http://a.example/"]);
    assert!(explained.contains("503 Service Unavailable") && !explained.contains("(unreadable)"), "{explained}");
    let report = text(&files.check());
    assert!(report.contains("the requests that it applies to get 503") && !report.contains("(unreadable)"), "{report}");
    assert_eq!(report.lines().filter(|line| line.contains("a.yaml:")).count(), 1, "{report}");
}

/// Each says that access is restricted, but not how.
#[test]
fn a_policy_without_a_value_denies() {
    for access in ["", " null", " {}", " {allow: null}"] {
        let policy = format!(
            "---\napiVersion: fairway.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: p, namespace: shop}}\nspec:\n  targetRefs:\n  \
             - {{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}}\n  access:{access}\n"
        );
        let explained = Files::of(format!("{OBJECTS}{policy}")).explain(&["http://a.example/"]);
        assert!(explained.contains("503 Service Unavailable"), "{access}: {explained}");
    }
}

/// A policy for the Gateway of [`OBJECTS`].
fn telemetry(tracing: &str) -> String {
    format!(
        "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XTelemetryPolicy\nmetadata: {{name: traces, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]\n  tracing:\n    {tracing}\n"
    )
}

#[test]
fn a_telemetry_policy_is_judged_as_in_a_cluster_and_its_headers_are_never_printed() {
    let files = Files::new();
    let checked = |tracing: &str| {
        files.write("objects.yaml", OBJECTS);
        files.write("policy.yaml", telemetry(tracing));
        let output = files.check();
        let report = text(&output);
        assert!(!report.contains("hunter2"), "{report}");
        report
    };
    let provider = "provider: {backendRef: {name: web, port: 80}, headers: [{name: X-Key, value: hunter2}]}";
    let report = checked(&format!("mode: Enabled\n    {provider}"));
    assert!(
        report.contains("policy.yaml:2: warning") && report.contains("a kind of the experimental channel"),
        "{report}"
    );
    assert!(report.contains("XTelemetryPolicy shop/traces\n    at edge: Accepted, ResolvedRefs\n"), "{report}");
    let explained = files.explain(&["http://a.example/"]);
    assert!(explained.contains("tracing of XTelemetryPolicy shop/traces"), "{explained}");
    for (tracing, expected) in [
        (
            format!("mode: Disabled\n    {provider}"),
            "provider is required when mode is Enabled, and must be empty otherwise",
        ),
        (format!("mode: Enabled\n    {}", provider.replace("hunter2", "'hunter2\t\t'")), "headers[0].value"),
        (format!("mode: Enabled\n    {}", provider.replace("hunter2", "[hunter2]")), "headers[0].value"),
        (format!("mode: Enabled\n    {}", provider.replace("X-Key", "Host")), "UnsupportedValue"),
    ] {
        let report = checked(&tracing);
        assert!(report.contains("error") && report.contains(expected), "{expected} in\n{report}");
    }
}

#[tokio::test]
async fn spans_of_a_gateway_go_where_its_policy_says_and_the_change_is_told() {
    let (web, spans) = (Origin::start("web"), Origin::new("spans").reply(Reply::ok()).start());
    let files = Files::new();
    files.write("objects.yaml", OBJECTS);
    let backends = [("web", &web), ("otel", &spans)].map(|(name, origin)| {
        let port = if name == "otel" { 4318 } else { 80 };
        format!("--backend=shop/{name}:{port}={}", origin.address())
    });
    let dev = files.dev(&[&backends[0], &backends[1]]);
    let traced = async || dev.get("a.example", "/").await.echo().headers.all("traceparent").len();
    assert_eq!(traced().await, 0);
    let service =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: otel, namespace: shop}\nspec: {ports: [{port: 4318}]}\n";
    let policy = telemetry("mode: Enabled\n    provider: {backendRef: {name: otel, port: 4318}}");
    files.write("policy.yaml", policy + service);
    eventually("a trace", async || if traced().await == 1 { Ok(()) } else { Err("none") }).await;
    eventually("spans", async || if spans.requests() > 0 { Ok(()) } else { Err("none") }).await;
    assert_eq!(&*spans.seen()[0].target, "/v1/traces");
}
