//! The 30 scenarios of the Ingress conformance suite (kubernetes-sigs/ingress-controller-conformance), with its images, its objects
//! and the requests of its client, in code of this repository.
//!
//! One test per feature of the suite, one line per scenario. Every request is sent once: once an Ingress has an address, it is
//! served.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow, ensure};
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Release, Scene, Session};
use fairway_testkit::Response;
use k8s_openapi::api::networking::v1::Ingress;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use serde_json::Value;

/// The suite expects a Server header, which is sent only if a value asks for it.
const VALUES: &[&str] = &["controller.config.server-tokens=true", "controller.replicaCount=1"];

/// The suite's client sends this, and backends must see it.
const AGENT: &str = "Go-http-client/1.1";

/// Runs the scenarios of a feature, on a release of its own.
fn feature(
    name: &str,
    scenarios: impl AsyncFnOnce(&Scene, &Release<'_>) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    scene::run(name, async |scene| {
        let fairway = scene.fairway(VALUES).await?;
        scenarios(scene, &fairway).await
    })
}

/// A request of a scenario.
#[derive(Clone, Copy, Debug)]
struct Ask<'a> {
    method: &'a str,
    scheme: &'a str,
    /// Empty: the address itself.
    host: &'a str,
    path: &'a str,
}

/// What came back.
struct Answer {
    response: Response,
    /// In DER; empty without TLS.
    certificate: Vec<u8>,
}

impl<'a> Ask<'a> {
    fn get(host: &'a str, path: &'a str) -> Self {
        Self { method: "GET", scheme: "http", host, path }
    }

    /// Sends the request, and follows one redirect to the same address, as the suite's client does. ingress-nginx's first response is also
    /// a redirect: to https for all hosts of an Ingress with a tls section, and to the path with a slash for a Prefix that ends in one.
    async fn follow(self, address: IpAddr) -> anyhow::Result<Answer> {
        let answer = self.send(address).await?;
        if !(300..400).contains(&answer.response.status) {
            return Ok(answer);
        }
        let location = answer.response.headers().get("location").context("a redirect without Location")?.to_owned();
        let (scheme, rest) = location.split_once("://").with_context(|| format!("redirected to {location}"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Ask { scheme, host, path, ..self }.send(address).await
    }

    async fn send(self, address: IpAddr) -> anyhow::Result<Answer> {
        let tls = self.scheme == "https";
        let mut session = if tls {
            Session::connect_tls(SocketAddr::new(address, 443), self.host).await?
        } else {
            Session::connect(SocketAddr::new(address, 80)).await?
        };
        let host = if self.host.is_empty() { address.to_string() } else { self.host.to_owned() };
        let length = if matches!(self.method, "POST" | "PUT" | "PATCH") { "content-length: 0\r\n" } else { "" };
        let target = if self.path.starts_with('/') { self.path.to_owned() } else { format!("/{}", self.path) };
        let head = format!(
            "{} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept-Encoding: gzip\r\n{length}\r\n",
            self.method
        );
        let response = session.send(&head, self.method).await.with_context(|| format!("{self:?}"))?;
        Ok(Answer { response, certificate: if tls { session.certificate() } else { Vec::new() } })
    }
}

impl Answer {
    /// The response comes from that Service, which received the request unchanged.
    fn comes_from(&self, service: &str, ask: Ask<'_>) -> anyhow::Result<()> {
        let status = self.response.status;
        ensure!(status == 200, "{ask:?}: status {status} instead of 200 of {service}");
        let seen: Value = serde_json::from_slice(&self.response.body).context("the echo answers in JSON")?;
        ensure!(seen["service"] == service, "{ask:?}: answered by {} instead of {service}", seen["service"]);
        ensure!(seen["method"] == ask.method && seen["proto"] == "HTTP/1.1", "{ask:?}: the backend saw {seen}");
        let path = format!("/{}", ask.path.trim_start_matches('/'));
        // A redirect may have added a slash.
        let arrived = seen["path"].as_str().unwrap_or_default();
        ensure!(arrived == path || arrived == format!("{path}/"), "{ask:?}: the backend saw {seen}");
        ensure!(ask.host.is_empty() || seen["host"] == ask.host, "{ask:?}: the backend saw {seen}");
        ensure!(seen["headers"]["User-Agent"][0] == AGENT, "{ask:?}: the backend saw {seen}");
        Ok(())
    }

    /// It has the fields that an HTTP/1.1 client can expect.
    fn is_complete(&self) -> anyhow::Result<()> {
        for name in ["content-length", "content-type", "date", "server"] {
            let there = self.response.headers().get(name).is_some();
            ensure!(there, "the response has no {name}: {:?}", self.response.head);
        }
        Ok(())
    }
}

/// Plays all scenarios of a feature, and reports failures.
#[derive(Default)]
struct Score {
    played: usize,
    failed: Vec<String>,
}

impl Score {
    fn count(&mut self, scenario: &str, result: anyhow::Result<()>) {
        self.played += 1;
        if let Err(error) = result {
            self.failed.push(format!("{scenario}: {error:#}"));
        }
    }

    fn end(self, scenarios: usize) -> anyhow::Result<()> {
        ensure!(self.failed.is_empty(), "{} of {scenarios} failed:\n{}", self.failed.len(), self.failed.join("\n"));
        assert_eq!(self.played, scenarios, "the number of scenarios of the suite");
        Ok(())
    }
}

/// The objects that the suite creates for each Service that an Ingress names, and waits for.
async fn backends(scene: &Scene, ingress: &str, services: &[(&str, &str)]) -> anyhow::Result<()> {
    for (service, port) in services {
        let port_name = if port.is_empty() { String::new() } else { format!("name: {port}, ") };
        scene
            .apply(&format!(
                "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {ingress}-{service}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {service}}}}}
  template:
    metadata: {{labels: {{app: {service}}}}}
    spec:
      containers:
        - name: ingress-conformance-echo
          image: ingressconformance/echoserver:v0.0.1
          ports: [{{{port_name}containerPort: 3000}}]
          readinessProbe: {{httpGet: {{path: /health, port: 3000}}, initialDelaySeconds: 1, periodSeconds: 1}}
          livenessProbe: {{httpGet: {{path: /health, port: 3000}}, initialDelaySeconds: 1, periodSeconds: 1}}
          env:
            - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
            - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
            - {{name: INGRESS_NAME, value: {ingress}}}
            - {{name: SERVICE_NAME, value: {service}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {service}}}
spec:
  type: NodePort
  selector: {{app: {service}}}
  ports: [{{{port_name}port: 8080, targetPort: 3000}}]
"
            ))
            .await?;
    }
    for (service, _) in services {
        scene.ready(service, 1).await?;
    }
    Ok(())
}

/// Applies an Ingress, whose `spec` follows the class, and waits for its address.
async fn ingress(scene: &Scene, class: &str, name: &str, spec: &str) -> anyhow::Result<IpAddr> {
    let head = format!("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n");
    scene.apply(&format!("{head}  ingressClassName: {class}\n{spec}")).await?;
    let address = scene.find(&format!("an address of the Ingress {name}"), async || address(scene, name).await).await?;
    Ok(address.parse()?)
}

/// The first address in the status of an Ingress.
async fn address(scene: &Scene, name: &str) -> anyhow::Result<Option<String>> {
    let status = scene.api::<Ingress>().get(name).await?.status.unwrap_or_default();
    let addresses = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    Ok(addresses.into_iter().find_map(|address| address.ip.or(address.hostname)))
}

const DEFAULT_BACKEND: &str = "  defaultBackend: {service: {name: echo-service, port: {number: 8080}}}\n";

#[test]
fn default_backend() -> anyhow::Result<()> {
    feature("conformance-default", async |scene, fairway| {
        backends(scene, "default-backend", &[("echo-service", "")]).await?;
        let address = ingress(scene, fairway.class(), "default-backend", DEFAULT_BACKEND).await?;
        let mut score = Score::default();
        for (method, host, path) in [
            ("GET", "my-host", ""),
            ("GET", "my-host", "sub-path"),
            ("POST", "some-host", ""),
            ("PUT", "", "resource"),
            ("DELETE", "some-host", "resource"),
            ("PATCH", "my-host", "resource"),
        ] {
            let ask = Ask { method, scheme: "http", host, path };
            let answer = ask.send(address).await?;
            let result = answer.comes_from("echo-service", ask).and_then(|()| answer.is_complete());
            score.count(&format!("{method} {host} /{path}"), result);
        }
        score.end(6)
    })
}

#[test]
fn host_rules() -> anyhow::Result<()> {
    feature("conformance-hosts", async |scene, fairway| {
        backends(scene, "host-rules", &[("wildcard-foo-com", ""), ("foo-bar-com", "http")]).await?;
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
        let certificate = CertificateParams::new(vec!["foo.bar.com".to_owned()])?.self_signed(&key)?;
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "conformance-tls"},
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
        });
        scene.apply(&secret.to_string()).await?;
        let spec = "
  tls: [{hosts: [foo.bar.com], secretName: conformance-tls}]
  rules:
    - host: '*.foo.com'
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: wildcard-foo-com, port: {number: 8080}}}}]}
    - host: foo.bar.com
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo-bar-com, port: {name: http}}}}]}
";
        let address = ingress(scene, fairway.class(), "host-rules", spec).await?;
        let mut score = Score::default();

        let secure = Ask { scheme: "https", ..Ask::get("foo.bar.com", "/") };
        let answer = secure.send(address).await?;
        let shown = answer.certificate == **certificate.der();
        let result = answer.comes_from("foo-bar-com", secure);
        score.count("https://foo.bar.com", if shown { result } else { Err(anyhow!("shows another certificate")) });
        for (host, service) in [
            ("foo.bar.com", Some("foo-bar-com")),
            ("subdomain.bar.com", None),
            ("bar.foo.com", Some("wildcard-foo-com")),
            ("baz.bar.foo.com", None),
            ("foo.com", None),
        ] {
            score.count(&format!("http://{host}"), expect(address, Ask::get(host, "/"), service).await);
        }
        score.end(6)
    })
}

/// A request is answered by this Service, or with 404.
async fn expect(address: IpAddr, ask: Ask<'_>, service: Option<&str>) -> anyhow::Result<()> {
    let answer = ask.follow(address).await?;
    match service {
        Some(service) => answer.comes_from(service, ask),
        None => {
            let status = answer.response.status;
            ensure!(status == 404, "{ask:?}: status {status} instead of 404");
            Ok(())
        }
    }
}

#[test]
fn ingress_class() -> anyhow::Result<()> {
    feature("conformance-class", async |scene, fairway| {
        let rule = |host: &str| {
            format!(
                "  rules:\n    - host: {host}\n      http: {{paths: [{{path: /, pathType: Prefix, \
                 backend: {{service: {{name: echo-service, port: {{number: 8080}}}}}}}}]}}\n"
            )
        };
        backends(scene, "class", &[("echo-service", "")]).await?;
        let head = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: other}\nspec:\n";
        let spec = format!("  ingressClassName: some-invalid-class-name\n{}", rule("other.example"));
        scene.apply(&format!("{head}{spec}")).await?;
        // The suite waits for minutes. An Ingress written later has its address and is served, so this one was skipped.
        let at = ingress(scene, fairway.class(), "own", &rule("own.example")).await?;
        expect(at, Ask::get("own.example", "/"), Some("echo-service")).await?;
        expect(at, Ask::get("other.example", "/"), None).await?;
        let given = address(scene, "other").await?;
        ensure!(given.is_none(), "the Ingress of another class was given the address {given:?}");
        let mut written = scene.audit()?.into_iter().filter(|asked| asked.resource == "ingresses/status");
        ensure!(written.all(|asked| asked.name == "own"), "the status of the Ingress of another class was written");
        Ok(())
    })
}

#[test]
fn load_balancing() -> anyhow::Result<()> {
    feature("conformance-balance", async |scene, fairway| {
        backends(scene, "default-backend", &[("echo-service", "")]).await?;
        let address = ingress(scene, fairway.class(), "default-backend", DEFAULT_BACKEND).await?;
        scene.kubectl(&["scale", "deployment/default-backend-echo-service", "--replicas=10"]).await?;
        scene.ready("echo-service", 10).await?;
        // The suite sleeps for a minute here.
        let address = SocketAddr::new(address, 80);
        let mut seen = std::collections::BTreeSet::new();
        scene
            .until("an answer of each of 10 pods", async || {
                let seen_now: Value = serde_json::from_slice(&scene.get(address, "load.example", "/").await?.body)?;
                seen.insert(seen_now["pod"].as_str().unwrap_or_default().to_owned());
                Ok(seen.len() == 10)
            })
            .await?;
        let load = Load::to(address).host("load.example").connections(1).rate(1000).start();
        load.more(100).await;
        let account = load.stop().await;
        ensure!(account.failures.is_empty(), "{account}");
        ensure!(account.pods.len() == 10, "100 requests reached {} of 10 pods: {:?}", account.pods.len(), account.pods);
        Ok(())
    })
}

#[test]
fn path_rules() -> anyhow::Result<()> {
    /// Path, path type and Service of a rule.
    type Rule = (&'static str, &'static str, &'static str);
    const RULES: &[(&str, &[Rule])] = &[
        ("exact-path-rules", &[("/foo", "Exact", "foo-exact")]),
        (
            "prefix-path-rules",
            &[
                ("/foo", "Prefix", "foo-prefix"),
                ("/aaa/bbb", "Prefix", "aaa-slash-bbb-prefix"),
                ("/aaa", "Prefix", "aaa-prefix"),
            ],
        ),
        ("mixed-path-rules", &[("/foo", "Prefix", "foo-prefix"), ("/foo", "Exact", "foo-exact")]),
        (
            "trailing-slash-path-rules",
            &[("/aaa/bbb/", "Prefix", "aaa-slash-bbb-slash-prefix"), ("/foo/", "Exact", "foo-slash-exact")],
        ),
    ];
    const SCENARIOS: &[(&str, &str, Option<&str>)] = &[
        ("exact-path-rules", "/foo", Some("foo-exact")),
        ("exact-path-rules", "/foo/", None),
        ("exact-path-rules", "/FOO", None),
        ("exact-path-rules", "/bar", None),
        ("prefix-path-rules", "/foo", Some("foo-prefix")),
        ("prefix-path-rules", "/foo/", Some("foo-prefix")),
        ("prefix-path-rules", "/FOO", None),
        ("prefix-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
        ("prefix-path-rules", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
        ("prefix-path-rules", "/aaa/ccc", Some("aaa-prefix")),
        ("prefix-path-rules", "/aaaccc", None),
        ("prefix-path-rules", "/foo/", Some("foo-prefix")),
        ("mixed-path-rules", "/foo", Some("foo-exact")),
        ("trailing-slash-path-rules", "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix")),
        ("trailing-slash-path-rules", "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix")),
        ("trailing-slash-path-rules", "/foo", None),
    ];
    feature("conformance-paths", async |scene, fairway| {
        let mut services: Vec<_> =
            RULES.iter().flat_map(|(_, paths)| paths.iter()).map(|(.., service)| (*service, "")).collect();
        services.sort_unstable();
        services.dedup();
        backends(scene, "path-rules", &services).await?;
        let mut spec = String::from("  rules:\n");
        for (host, paths) in RULES {
            spec += &format!("    - host: {host}\n      http:\n        paths:\n");
            for (path, kind, service) in *paths {
                let backend = format!("{{service: {{name: {service}, port: {{number: 8080}}}}}}");
                spec += &format!("          - {{path: {path}, pathType: {kind}, backend: {backend}}}\n");
            }
        }
        let address = ingress(scene, fairway.class(), "path-rules", &spec).await?;
        let mut score = Score::default();
        for (host, path, service) in SCENARIOS {
            score.count(&format!("{host}{path}"), expect(address, Ask::get(host, path), *service).await);
        }
        score.end(16)
    })
}
