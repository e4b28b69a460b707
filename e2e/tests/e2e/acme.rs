//! cert-manager's HTTP-01 flow: for the duration of a challenge it adds its own Ingress for the user's host.
//!
//! Sources: cert-manager's `pkg/issuer/acme/http`. Its Ingress names the class by the annotation or by `ingressClassName`, as the
//! issuer sets it; the path is `ImplementationSpecific`, `Exact` since version 1.18; its list of all networks overrides the user's
//! own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::scene::{self, Release, Scene, Session};
use fairway_testkit::{Ca, Response};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const HOST: &str = "acme.example";
const TOKEN: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";

/// How long a challenge is observed before, during and after its existence.
const WHILE: Duration = Duration::from_millis(500);

/// The latest time for a response to a challenge, which the authority requests seconds later. Generous, because tests must not
/// depend on the clock of a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// The setup of an issuer, and the version of cert-manager.
struct Solver {
    name: &'static str,
    by_annotation: bool,
    path_type: &'static str,
    service_type: &'static str,
}

const SOLVERS: [Solver; 3] = [
    Solver { name: "old", by_annotation: true, path_type: "ImplementationSpecific", service_type: "NodePort" },
    Solver { name: "class-field", by_annotation: false, path_type: "Exact", service_type: "NodePort" },
    Solver { name: "cluster-ip", by_annotation: true, path_type: "Exact", service_type: "ClusterIP" },
];

#[test]
fn a_challenge_is_answered_as_long_as_its_ingress_exists() -> anyhow::Result<()> {
    scene::run("acme", async |scene| {
        let fairway = scene.fairway(&[]).await?;
        scene.echo("web", 1).await?;
        scene.apply(&user(fairway.class(), "203.0.113.0/24")).await?;
        let address = fairway.address().await?;
        let https = SocketAddr::new(address.ip(), 443);
        scene
            .steady("the user's Ingress is in effect", async || {
                Ok(ask(address, "/").await?.status == 308 && ask_tls(https).await?.0.status == 403)
            })
            .await?;

        // Nothing but the challenge changes during this time.
        let others = [
            Poll::start("another path", 308, move || redirected(address, "/shop?a=b")),
            Poll::start("another token", 308, move || redirected(address, "/.well-known/acme-challenge/x")),
            Poll::start("https", 403, move || async move { Ok(ask_tls(https).await?.0.status) }),
        ];
        for solver in &SOLVERS {
            challenge(&fairway, scene, solver, address).await.with_context(|| format!("the solver {}", solver.name))?;
        }

        // The order is fulfilled: the Secret appears.
        let leaf = Ca::new("acme").leaf(&[HOST]);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "site"},
            "stringData": {"tls.crt": leaf.certificate_pem(), "tls.key": leaf.key_pem()},
        });
        scene.apply(&secret.to_string()).await?;
        let written = Instant::now();
        scene.until("https with the certificate", async || Ok(ask_tls(https).await?.1 == **leaf.der())).await?;
        println!("the certificate is served {:?} after the Secret was written", written.elapsed());

        for other in others {
            let (what, expected) = (other.what, other.expected);
            let samples = other.end().await?;
            ensure!(samples.len() > 5, "{what} was asked for only {} times", samples.len());
            let odd = samples.iter().find(|sample| sample.status != expected);
            ensure!(odd.is_none(), "{what}: not {expected} but {odd:?}");
        }

        // Without the user's list, the backend is served.
        scene.apply(&user(fairway.class(), "0.0.0.0/0,::/0")).await?;
        scene.until("the shop over https", async || Ok(ask_tls(https).await?.0.status == 200)).await
    })
}

/// With `acme.cert-manager.io/http01-edit-in-place` cert-manager adds the path to the user's Ingress. Its list of networks then
/// applies to the challenge as well, its redirect doesn't.
#[test]
fn a_challenge_within_the_users_ingress_is_not_redirected() -> anyhow::Result<()> {
    scene::run("acme-in-place", async |scene| {
        let fairway = scene.fairway(&[]).await?;
        scene.echo("web", 1).await?;
        scene.apply(&user(fairway.class(), "0.0.0.0/0,::/0")).await?;
        let address = fairway.address().await?;
        scene.steady("the redirect", async || Ok(ask(address, "/").await?.status == 308)).await?;
        let target = format!("/.well-known/acme-challenge/{TOKEN}");
        ensure!(ask(address, &target).await?.status == 308, "there is no challenge so far");

        scene.apply(&solver_pod("edit", "ClusterIP")).await?;
        let path = json!([{"op": "add", "path": "/spec/rules/0/http/paths/-", "value": {
            "path": target,
            "pathType": "Exact",
            "backend": {"service": {"name": "solver-edit", "port": {"number": 8089}}},
        }}]);
        scene.kubectl(&["patch", "ingress", "user", "--type=json", "--patch", &path.to_string()]).await?;
        scene.until("the answer to the challenge", async || Ok(is_from(&ask(address, &target).await?, "edit"))).await?;
        ensure!(ask(address, "/").await?.status == 308, "the rest is redirected no more");
        Ok(())
    })
}

/// The life of one challenge.
async fn challenge(fairway: &Release<'_>, scene: &Scene, solver: &Solver, address: SocketAddr) -> anyhow::Result<()> {
    let Solver { name, service_type, .. } = solver;
    let target = format!("/.well-known/acme-challenge/{TOKEN}-{name}");
    let poll = Poll::start(name, 200, {
        let (target, name) = (target.clone(), *name);
        move || {
            let target = target.clone();
            async move {
                let answer = ask(address, &target).await?;
                ensure!(answer.status != 200 || is_from(&answer, name), "answered, and not by the solver: {answer:?}");
                Ok(answer.status)
            }
        }
    });
    sleep(WHILE).await;
    scene.apply(&solver_pod(name, service_type)).await?;
    let service = format!("solver-{name}");
    scene.until("the solver's endpoint", async || Ok(!scene.ready_endpoints(&service).await?.is_empty())).await?;
    let begin = Instant::now();
    let ingress = solver_ingress(fairway.class(), solver, &target);
    scene.apply(&ingress).await?;
    let written = Instant::now();
    scene.until("the answer to the challenge", async || Ok(ask(address, &target).await?.status == 200)).await?;
    let took = written.elapsed();
    println!("{name}: answered {took:?} after the Ingress was written");
    ensure!(took < SOON, "a challenge was answered only after {took:?}");
    scene.steady("the answer to the challenge", async || Ok(ask(address, &target).await?.status == 200)).await?;
    let everywhere = Instant::now();
    sleep(WHILE).await;
    let removed = Instant::now();
    scene.delete(&ingress).await?;
    scene.until("the end of the challenge", async || Ok(ask(address, &target).await?.status == 308)).await?;
    sleep(WHILE).await;
    let samples = poll.end().await?;

    for sample in samples {
        // Requests in progress when the Ingress was written or deleted may be answered by either.
        let expected: &[u16] = match sample {
            Sample { answered, .. } if answered < begin => &[308],
            Sample { asked, answered, .. } if asked >= everywhere && answered < removed => &[200],
            // The pod counts as ready before its process listens, so the first requests may be refused.
            Sample { answered, .. } if answered < everywhere => &[308, 200, 502],
            _ => &[308, 200],
        };
        let since = sample.asked.saturating_duration_since(begin);
        let status = sample.status;
        ensure!(expected.contains(&status), "{since:?} after the Ingress was written: {status}, not {expected:?}");
    }
    scene.delete(&solver_pod(name, service_type)).await
}

/// A host with a redirect, a list of networks, and a certificate that doesn't exist yet.
fn user(class: &str, networks: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: user
  annotations:
    cert-manager.io/cluster-issuer: letsencrypt
    nginx.ingress.kubernetes.io/ssl-redirect: 'true'
    nginx.ingress.kubernetes.io/force-ssl-redirect: 'true'
    nginx.ingress.kubernetes.io/whitelist-source-range: {networks}
spec:
  ingressClassName: {class}
  tls: [{{hosts: [{HOST}], secretName: site}}]
  rules:
    - host: {HOST}
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
    )
}

/// The pod that answers a challenge, and its Service.
fn solver_pod(name: &str, service_type: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata:
  name: solver-{name}
  labels: {{acme.cert-manager.io/http01-solver: 'true', acme.cert-manager.io/http-token: '{name}'}}
spec:
  restartPolicy: OnFailure
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 5
  containers:
    - name: acmesolver
      image: ingressconformance/echoserver:v0.0.1
      ports: [{{name: http, containerPort: 8089}}]
      env:
        - {{name: HTTP_PORT, value: '8089'}}
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
---
apiVersion: v1
kind: Service
metadata:
  name: solver-{name}
  annotations: {{auth.istio.io/8089: NONE}}
spec:
  type: {service_type}
  selector: {{acme.cert-manager.io/http01-solver: 'true', acme.cert-manager.io/http-token: '{name}'}}
  ports: [{{name: http, port: 8089, targetPort: 8089}}]
"
    )
}

fn solver_ingress(class: &str, solver: &Solver, target: &str) -> String {
    let Solver { name, by_annotation, path_type, .. } = solver;
    let (annotation, field) = if *by_annotation {
        (format!("kubernetes.io/ingress.class: {class}"), String::new())
    } else {
        (String::new(), format!("ingressClassName: {class}"))
    };
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: cm-acme-http-solver-{name}
  labels: {{acme.cert-manager.io/http01-solver: 'true', acme.cert-manager.io/http-token: '{name}'}}
  annotations:
    nginx.ingress.kubernetes.io/whitelist-source-range: 0.0.0.0/0,::/0
    {annotation}
spec:
  {field}
  rules:
    - host: {HOST}
      http:
        paths:
          - {{path: {target}, pathType: {path_type}, backend: {{service: {{name: solver-{name}, port: {{number: 8089}}}}}}}}
"
    )
}

async fn ask(address: SocketAddr, target: &str) -> anyhow::Result<Response> {
    Session::connect(address).await?.get(HOST, target).await
}

/// The answer over https, and the certificate.
async fn ask_tls(address: SocketAddr) -> anyhow::Result<(Response, Vec<u8>)> {
    let mut session = Session::connect_tls(address, HOST).await?;
    Ok((session.get(HOST, "/").await?, session.certificate()))
}

/// The status of a response that redirects to the same URL over https.
async fn redirected(address: SocketAddr, target: &str) -> anyhow::Result<u16> {
    let answer = ask(address, target).await?;
    let location = answer.headers().get("location").unwrap_or_default().to_owned();
    ensure!(location == format!("https://{HOST}{target}"), "{}, to {location:?}", answer.status);
    Ok(answer.status)
}

fn is_from(answer: &Response, solver: &str) -> bool {
    answer.status == 200 && answer.text().contains(&format!("\"pod\": \"solver-{solver}\""))
}

/// A request repeated in the background.
struct Poll {
    what: &'static str,
    expected: u16,
    stop: watch::Sender<()>,
    task: JoinHandle<anyhow::Result<Vec<Sample>>>,
}

/// A status, and the period in which it was the response.
#[derive(Clone, Copy, Debug)]
struct Sample {
    asked: Instant,
    answered: Instant,
    status: u16,
}

impl Poll {
    fn start<F>(what: &'static str, expected: u16, ask: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<u16>> + Send,
    {
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(async move {
            let mut samples = Vec::new();
            while stopped.has_changed().is_ok() {
                let asked = Instant::now();
                let status = ask().await.context(what)?;
                samples.push(Sample { asked, answered: Instant::now(), status });
                sleep(Duration::from_millis(10)).await;
            }
            Ok(samples)
        });
        Self { what, expected, stop, task }
    }

    async fn end(self) -> anyhow::Result<Vec<Sample>> {
        drop(self.stop);
        self.task.await?
    }
}
