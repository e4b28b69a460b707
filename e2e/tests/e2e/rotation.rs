//! Certificates that change: new ones are served at once, broken ones never, and open connections are unaffected.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::scene::{self, Scene, Session};
use fairway_testkit::{Ca, Leaf};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::sleep;

const HOST: &str = "rotation.example";

/// The usual time from the write until handshakes show a new certificate: that of half of the rotations. The clock of a shared
/// machine decides none of them alone.
const USUAL: Duration = Duration::from_secs(1);

#[test]
fn a_new_certificate_is_served_within_a_second_and_open_connections_stay() -> anyhow::Result<()> {
    scene::run("rotation", async |scene| {
        let ca = Ca::new("rotation");
        let (mut old, address) = serve(scene, &ca).await?;
        let mut open = Session::connect_tls(address, HOST).await?;
        ensure!(open.certificate() == **old.der(), "the first connection shows another certificate");

        let mut delays = Vec::new();
        for round in 1..=8 {
            let new = ca.leaf(&[HOST]);
            write(scene, &new.certificate_pem(), &new.key_pem()).await?;
            // Only the old one, then only the new one.
            let took = served(address, &old, &new).await.with_context(|| format!("rotation {round}"))?;
            println!("rotation {round}: the new certificate is served {took:?} after the write");
            delays.push(took);
            still(address, &new, &mut open).await.with_context(|| format!("after rotation {round}"))?;
            old = new;
        }
        delays.sort_unstable();
        ensure!(delays[delays.len() / 2] <= USUAL, "new certificates are late: {delays:?}");
        Ok(())
    })
}

#[test]
fn a_deleted_or_broken_certificate_leaves_the_last_good_one_in_force() -> anyhow::Result<()> {
    scene::run("rotation-broken", async |scene| {
        let ca = Ca::new("rotation");
        let (good, address) = serve(scene, &ca).await?;
        let mut open = Session::connect_tls(address, HOST).await?;

        scene.delete("{apiVersion: v1, kind: Secret, metadata: {name: site}}").await?;
        let messages = events(scene, "SecretNotFound", 1).await?;
        println!("deleted: {}", messages.join(" | "));
        still(address, &good, &mut open).await.context("after the Secret was deleted")?;

        let key = good.key_pem();
        let other = ca.certificate(&[HOST]).mismatched_key().issue();
        let garbage = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
        let broken = [
            ("no PEM", "garbage", &key),
            ("PEM of no certificate", garbage, &key),
            ("another's key", &other.certificate_pem(), &other.key_pem()),
        ];
        for (count, (what, certificate, key)) in (1..).zip(broken) {
            write(scene, certificate, key).await?;
            let messages = events(scene, "InvalidSecret", count).await.context(what)?;
            println!("{what}: {}", messages.join(" | "));
            still(address, &good, &mut open).await.with_context(|| format!("after {what}"))?;
        }

        let healed = ca.leaf(&[HOST]);
        write(scene, &healed.certificate_pem(), &healed.key_pem()).await?;
        served(address, &good, &healed).await.context("healing")?;
        still(address, &healed, &mut open).await.context("after healing")
    })
}

/// A host that is served with a certificate; returns the certificate and the address for TLS.
async fn serve(scene: &Scene, ca: &Ca) -> anyhow::Result<(Leaf, SocketAddr)> {
    let fairway = scene.fairway(&[]).await?;
    scene.echo("web", 1).await?;
    let first = ca.leaf(&[HOST]);
    write(scene, &first.certificate_pem(), &first.key_pem()).await?;
    let class = fairway.class();
    scene
        .apply(&format!(
            "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web}}
spec:
  ingressClassName: {class}
  tls: [{{hosts: [{HOST}], secretName: site}}]
  rules:
    - host: {HOST}
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
        ))
        .await?;
    let address = SocketAddr::new(fairway.address().await?.ip(), 443);
    scene
        .until("the host is served with its certificate", async || {
            let mut session = Session::connect_tls(address, HOST).await?;
            Ok(session.certificate() == **first.der() && session.get(HOST, "/").await?.status == 200)
        })
        .await?;
    Ok((first, address))
}

/// Writes the Secret.
async fn write(scene: &Scene, certificate: &str, key: &str) -> anyhow::Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "site"},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    scene.apply(&secret.to_string()).await
}

/// Makes one handshake after the other until one shows `new`; until then each has to show `old`. Returns how long it took.
async fn served(address: SocketAddr, old: &Leaf, new: &Leaf) -> anyhow::Result<Duration> {
    let written = Instant::now();
    loop {
        let shown = Session::connect_tls(address, HOST).await.context("a handshake during a rotation")?.certificate();
        let took = written.elapsed();
        ensure!(took <= scene::PATIENCE, "the new certificate isn't served {took:?} after the write");
        if shown == **new.der() {
            return Ok(took);
        }
        ensure!(shown == **old.der(), "neither the old certificate is served nor the new one");
        sleep(Duration::from_millis(2)).await;
    }
}

/// New handshakes show `good`, and the open connection works.
async fn still(address: SocketAddr, good: &Leaf, open: &mut Session) -> anyhow::Result<()> {
    // More than there are workers.
    for _ in 0..20 {
        let mut session = Session::connect_tls(address, HOST).await?;
        ensure!(session.certificate() == **good.der(), "another certificate is served");
        let answer = session.get(HOST, "/").await?;
        ensure!(answer.status == 200, "a new connection: {}", answer.status);
    }
    let answer = open.get(HOST, "/").await.context("over the connection that was open all the time")?;
    ensure!(answer.status == 200, "over the connection that was open all the time: {}", answer.status);
    Ok(())
}

/// Waits until there are `count` warnings with that reason about the Ingress; returns their texts.
async fn events(scene: &Scene, reason: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let fields = format!("involvedObject.kind=Ingress,involvedObject.name=web,type=Warning,reason={reason}");
    let parameters = ListParams::default().fields(&fields);
    scene
        .find(&format!("{count} Events {reason}"), async || {
            let events = scene.api::<Event>().list(&parameters).await?.items;
            let texts: Vec<String> = events.into_iter().filter_map(|event| event.message).collect();
            Ok((texts.len() == count).then_some(texts))
        })
        .await
}
