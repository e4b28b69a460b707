//! An application moves from one namespace to another: the old one is deleted while the new one is ready.
//!
//! The pods of a namespace are deleted before anything else in it. Its Ingresses, which have the older claims, stay without
//! endpoints until the last pod has ended, and one of them takes its time here.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fairway_e2e::load::{Account, Load, Running};
use fairway_e2e::scene::{self, Scene, Session};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::DeleteParams;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

/// The names that the application serves: its host, an alias, and a catch-all name.
const HOSTS: [&str; 3] = ["shop.example", "alias.example", "unused.example"];

/// Requests per second for each of them.
const RATE: u32 = 100;

/// A host for which each of the two namespaces has its own certificate.
const SECURE: &str = "secure.example";

#[test]
fn no_request_is_lost_when_an_application_moves_to_another_namespace() -> anyhow::Result<()> {
    scene::run("moving", async |scene| {
        let fairway = scene.fairway(&["controller.replicaCount=1"]).await?;
        let address = fairway.address().await?;
        let (old, new) = (format!("{}-old", scene.namespace()), format!("{}-new", scene.namespace()));
        let before = install(scene, &old, fairway.class(), "before").await?;
        scene.apply(&reluctant(&old)).await?;
        ready(scene, &old, 3).await?;
        for host in HOSTS {
            scene.served(address, host).await?;
        }
        // Newer, and therefore without effect while the old one exists.
        let after = install(scene, &new, fairway.class(), "after").await?;
        ready(scene, &new, 2).await?;
        let secure = SocketAddr::new(address.ip(), 443);
        let is_shown = async || Ok(certificate(secure).await? == before);
        scene.steady("the certificate of the old namespace is shown", is_shown).await?;
        let (stop, stopped) = watch::channel(false);
        let handshakes = tokio::spawn(follow(secure, [before, after], stopped));

        let loads = HOSTS.map(|host| Load::to(address).host(host).connections(4).rate(RATE).start());
        for load in &loads {
            load.more(u64::from(RATE)).await;
        }
        ensure!(loads.iter().all(|load| !answered(load, "after")), "the older claims hold");
        let namespaces: Api<Namespace> = Api::all(scene.client());
        namespaces.delete(&old, &DeleteParams::default()).await?;
        let moved = async || Ok(loads.iter().all(|load| answered(load, "after")));
        let moved = scene.until("the new namespace answers", moved).await;
        let was_there = namespaces.get_opt(&old).await?.is_some();
        let gone = async || Ok(namespaces.get_opt(&old).await?.is_none());
        let gone = scene.until("the old namespace is gone", gone).await;
        for load in &loads {
            load.more(u64::from(RATE)).await;
        }
        let mut accounts: Vec<Account> = Vec::new();
        for load in loads {
            accounts.push(load.stop().await);
        }
        for (host, account) in HOSTS.iter().zip(&accounts) {
            println!("{host}: {account}");
        }
        stop.send_replace(true);
        let handshakes = handshakes.await?;
        println!("{SECURE}: {handshakes:?} handshakes with the old and the new certificate");
        moved.and(gone)?;
        let [old_ones, new_ones] = handshakes?;
        ensure!(old_ones > 0 && new_ones > 0, "the certificate has not moved");
        ensure!(was_there, "the old namespace went so fast that nothing was shown");
        ensure!(accounts.iter().all(|account| account.failed == 0), "requests failed");
        namespaces.delete(&new, &DeleteParams::default()).await?;
        Ok(())
    })
}

/// Repeatedly connects with TLS and sends a request until it is stopped; returns how often each of two certificates was shown, in
/// this order.
async fn follow(
    address: SocketAddr,
    [before, after]: [Vec<u8>; 2],
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<[usize; 2]> {
    let mut counts = [0, 0];
    while !*stopped.borrow() {
        match certificate(address).await? {
            shown if shown == before && counts[1] == 0 => counts[0] += 1,
            shown if shown == after => counts[1] += 1,
            shown => bail!("after {counts:?} handshakes another certificate is shown, of {} bytes", shown.len()),
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(counts)
}

/// The certificate shown for the host, which must respond as well.
async fn certificate(address: SocketAddr) -> anyhow::Result<Vec<u8>> {
    let mut session = Session::connect_tls(address, SECURE).await?;
    let status = session.get(SECURE, "/").await.context(SECURE)?.status;
    ensure!(status == 200, "{SECURE} answers {status}");
    Ok(session.certificate())
}

/// Whether a pod of the Deployment has answered.
fn answered(load: &Running, deployment: &str) -> bool {
    load.so_far().pods.keys().any(|pod| pod.starts_with(&format!("{deployment}-")))
}

/// Waits until this many pods are ready.
async fn ready(scene: &Scene, namespace: &str, count: usize) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(scene.client(), namespace);
    scene
        .until(&format!("{count} ready pods in {namespace}"), async || {
            Ok(pods.list(&Default::default()).await?.iter().filter(|pod| scene::is_ready(pod)).count() == count)
        })
        .await
}

/// The application: two pods, a Service, an Ingress with a host and an alias, one with a certificate, and a catch-all. Returns the
/// certificate, in DER.
async fn install(scene: &Scene, namespace: &str, class: &str, deployment: &str) -> anyhow::Result<Vec<u8>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![SECURE.to_owned()])?.self_signed(&key)?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "secure", "namespace": namespace},
        "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
    });
    scene
        .apply(&format!(
            "
apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {deployment}, namespace: {namespace}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: shop}}}}
  template:
    metadata: {{labels: {{app: shop}}}}
    spec:
      containers:
        - name: echo
          image: ingressconformance/echoserver:v0.0.1
          ports: [{{name: http, containerPort: 3000}}]
          readinessProbe: {{httpGet: {{path: /health, port: 3000}}, periodSeconds: 1}}
          env:
            - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
            - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: {namespace}}}
spec:
  selector: {{app: shop}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: {namespace}
  annotations: {{nginx.ingress.kubernetes.io/server-alias: alias.example}}
spec:
  ingressClassName: {class}
  rules:
    - host: shop.example
      http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: shop, port: {{name: http}}}}}}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: all-else, namespace: {namespace}}}
spec:
  ingressClassName: {class}
  defaultBackend: {{service: {{name: shop, port: {{name: http}}}}}}
---
{secret}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: secure, namespace: {namespace}}}
spec:
  ingressClassName: {class}
  tls: [{{hosts: [{SECURE}], secretName: secure}}]
  rules:
    - host: {SECURE}
      http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: shop, port: {{name: http}}}}}}}}]}}
"
        ))
        .await?;
    Ok(certificate.der().to_vec())
}

/// A pod that ignores SIGTERM.
fn reluctant(namespace: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: reluctant, namespace: {namespace}}}
spec:
  terminationGracePeriodSeconds: 15
  containers:
    - name: reluctant
      image: busybox
      command: [sh, -c, 'trap : TERM; while :; do sleep 1; done']
"
    )
}
