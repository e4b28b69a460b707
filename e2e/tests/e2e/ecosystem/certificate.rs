//! cert-manager orders certificates for annotated Gateways and Ingresses by HTTP-01. Its own routes and Ingresses lead the challenges
//! through Fairway to its pod.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::cluster::layout;
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Scene, Session};
use fairway_testkit::Response;
use futures::future::try_join_all;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::authority::{Authority, DIRECTORY, DNS};
use super::{kubeconfig, start};
use crate::gateway::{fairway, route};

/// Hosts of the Gateway, of which the second redirects to https from the start; of the Ingress; and of an Ingress without TLS.
const SHOP: &str = "shop.example";
const SAFE: &str = "safe.example";
const SITE: &str = "site.example";
const OTHER: &str = "other.example";

/// cert-manager's CRDs.
const DEFINITIONS: &str = "cert-manager-crds";

/// Distinguishes its routes and Ingresses for challenges from those of users.
const LABEL: &str = "acme.cert-manager.io/http01-solver=true";

/// The image of the pod that answers a challenge.
const SOLVER: &str = "quay.io/jetstack/cert-manager-acmesolver";

/// The latest time for the answer to a challenge after its route exists. cert-manager checks every ten seconds, and its pod takes most of
/// this time.
const SOON: Duration = Duration::from_secs(10);

/// Requests per second to each host.
const RATE: u32 = 50;

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: '{ns}'
  listeners:
    - {name: http, port: 80, protocol: HTTP}
";

/// The same with listeners that need certificates.
const GATEWAY_WITH_TLS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: edge
  annotations: {cert-manager.io/cluster-issuer: '{ns}'}
spec:
  gatewayClassName: '{ns}'
  listeners:
    - {name: http, port: 80, protocol: HTTP}
    - name: https
      port: 443
      protocol: HTTPS
      hostname: shop.example
      tls: {certificateRefs: [{name: shop}]}
    - name: https-safe
      port: 443
      protocol: HTTPS
      hostname: safe.example
      tls: {certificateRefs: [{name: safe}]}
";

/// Kind, name, parents and host names.
const ROUTES: [(&str, &str, &str, &str); 2] =
    [("HTTPRoute", "shop", "{name: edge}", SHOP), ("HTTPRoute", "safe", "{name: edge, sectionName: https-safe}", SAFE)];

const REDIRECT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: safe-redirect}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [safe.example]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]}]
";

/// Plain requests are redirected once the Ingress has a certificate, as by default.
const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: site
  annotations: {cert-manager.io/cluster-issuer: '{ns}'}
spec:
  ingressClassName: '{ns}'
  tls: [{hosts: [site.example], secretName: site}]
  rules:
    - host: site.example
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

#[test]
fn certificates_are_ordered_through_gateways_and_ingresses_while_all_requests_succeed() -> anyhow::Result<()> {
    scene::run("certificate", async |scene| {
        let fairway = fairway(scene, &[]).await?;
        let address = fairway.address().await?;
        scene.echo("web", 1).await?;
        fairway.ingress("other", OTHER, "web").await?;
        scene.apply(&format!("{GATEWAY}---{REDIRECT}---\n{}", ROUTES.map(route).join("---\n"))).await?;
        for host in [SHOP, OTHER] {
            scene.served(address, host).await?;
        }
        let authority = Authority::start(scene).await?;
        for host in [SHOP, SAFE, SITE] {
            authority.enter(host, address.ip()).await?;
        }
        install(scene).await?;
        let arguments = [
            kubeconfig(scene),
            format!("--cluster-resource-namespace={}", scene.namespace()),
            format!("--acme-http01-solver-nameservers={DNS}"),
            format!("--acme-http01-solver-image={SOLVER}"),
        ];
        let _manager = start(scene, "cert-manager", &[], &arguments)?;
        let issuer = issuer(scene, &authority);
        scene.apply(&issuer).await?;
        scene
            .until("an account at the authority", async || is_ready(scene, "clusterissuer", scene.namespace()).await)
            .await?;

        let loads = [SHOP, OTHER].map(|host| (host, Load::to(address).host(host).connections(2).rate(RATE).start()));
        scene.apply(GATEWAY_WITH_TLS).await?;
        let wait = ["wait", "gateway/edge", "--for", "condition=ResolvedRefs=False", "--timeout", "30s"];
        scene.kubectl(&wait).await?;
        // On the port of Ingresses, the default certificate is shown for it, as for any unknown name.
        let secure = SocketAddr::new(address.ip(), 443);
        let unknown = Session::connect_tls(secure, SHOP).await?.get(SHOP, "/").await?;
        ensure!(unknown.status == 404, "a listener without its certificate serves nothing: {unknown:?}");
        let orders = [SHOP, SAFE].map(|host| order(scene, &authority, host, address, "httproute"));
        try_join_all(orders).await?;
        scene.apply(INGRESS).await?;
        order(scene, &authority, SITE, address, "ingress").await?;
        for (host, status) in [(SAFE, 302), (SITE, 308)] {
            let plain = scene.get(address, host, "/").await?;
            ensure!(plain.status == status, "plain requests of {host} are redirected: {plain:?}");
        }

        let first = served(address.ip(), SHOP).await?;
        let renewed = async {
            renew(scene, "shop").await?;
            scene.until("another certificate", async || Ok(served(address.ip(), SHOP).await? != first)).await
        };
        let answers = meanwhile(renewed, async || authority.get(SHOP, address.ip()).await.map(drop)).await?;
        println!("{answers} answers over https while the certificate was renewed");
        ensure!(answers > 0, "nothing was asked for meanwhile");

        for (host, load) in loads {
            let account = load.stop().await;
            println!("{host}: {account}");
            ensure!(account.failed == 0 && account.retried == 0, "requests of {host} failed");
        }
        scene.delete(&issuer).await
    })
}

/// cert-manager's kinds.
async fn install(scene: &Scene) -> anyhow::Result<()> {
    let folder = layout::target().join("tools").join(DEFINITIONS);
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        scene.apply(&fs::read_to_string(entry?.path())?).await?;
    }
    // kubectl fails for a CRD that has no status yet.
    let wait = ["wait", "crd", "--all", "--for", "condition=established", "--timeout", "60s"];
    scene.until("cert-manager's kinds", async || scene.kubectl(&wait).await.map(|_| true)).await
}

/// An issuer that proves the Gateway's hosts with routes, and all others with Ingresses.
fn issuer(scene: &Scene, authority: &Authority<'_>) -> String {
    let ca = ByteString(authority.ca().into_bytes());
    json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "ClusterIssuer",
        "metadata": {"name": scene.namespace()},
        "spec": {"acme": {
            "server": DIRECTORY,
            "caBundle": ca,
            "privateKeySecretRef": {"name": "account"},
            "solvers": [
                {
                    "selector": {"dnsNames": [SHOP, SAFE]},
                    "http01": {"gatewayHTTPRoute": {"parentRefs": [{"kind": "Gateway", "name": "edge"}]}},
                },
                {"http01": {"ingress": {"ingressClassName": scene.namespace()}}},
            ],
        }},
    })
    .to_string()
}

/// Follows one order from the challenge to the certificate.
async fn order(
    scene: &Scene,
    authority: &Authority<'_>,
    host: &str,
    address: SocketAddr,
    by: &str,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let challenge = scene
        .find(&format!("a challenge for {host}"), async || {
            let all = read(scene, &["challenges"]).await?;
            let items = all["items"].as_array().context("a list")?;
            Ok(items.iter().find(|one| one["spec"]["dnsName"] == host).cloned())
        })
        .await?;
    let text = |name: &str| challenge["spec"][name].as_str().map(str::to_owned).with_context(|| name.to_owned());
    let (target, key) = (format!("/.well-known/acme-challenge/{}", text("token")?), text("key")?);
    let solvers = async || anyhow::Ok(read(scene, &[by, "--selector", LABEL]).await?["items"].clone());
    scene.until("the solver", async || Ok(solvers().await? != json!([]))).await?;
    let there = Instant::now();
    scene
        .until("the answer to the challenge", async || Ok(is_key(&scene.get(address, host, &target).await?, &key)))
        .await?;
    println!(
        "{host}: its {by} was there after {:?}, and the challenge answered {:?} later",
        there - begin,
        there.elapsed()
    );
    ensure!(there.elapsed() < SOON, "the challenge was answered only after {:?}", there.elapsed());

    let name = host.split('.').next().unwrap_or_default();
    scene.until("the certificate", async || is_ready(scene, "certificate", name).await).await?;
    scene
        .steady(&format!("https for {host}, with a certificate of the authority"), async || {
            let answer = authority.get(host, address.ip()).await?;
            ensure!(answer.contains("\"pod\": \"web-"), "{answer}");
            Ok(true)
        })
        .await?;
    println!("{host}: served with its certificate {:?} after it was asked for", begin.elapsed());
    scene.until("the solver has gone", async || Ok(solvers().await? == json!([]))).await?;
    scene.until("the challenge is over", async || Ok(!is_key(&scene.get(address, host, &target).await?, &key))).await
}

/// Asks cert-manager to order a certificate again, as `cmctl renew` does.
async fn renew(scene: &Scene, certificate: &str) -> anyhow::Result<()> {
    let condition =
        json!({"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "for a test"});
    let mut conditions = read(scene, &["certificate", certificate]).await?["status"]["conditions"].clone();
    conditions.as_array_mut().context("conditions")?.push(condition);
    let patch = json!({"status": {"conditions": conditions}}).to_string();
    let words = ["patch", "certificate", certificate, "--subresource=status", "--type=merge", "--patch", &patch];
    scene.kubectl(&words).await.map(drop)
}

/// Sends requests until `change` is done; returns how many, or the first failure of either.
async fn meanwhile(
    change: impl Future<Output = anyhow::Result<()>>,
    ask: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    let mut change = std::pin::pin!(change);
    let mut answers = 0;
    loop {
        tokio::select! {
            biased;
            done = &mut change => return done.map(|()| answers),
            answer = ask() => answer?,
        }
        answers += 1;
    }
}

/// The certificate that is served for a host.
async fn served(address: IpAddr, host: &str) -> anyhow::Result<Vec<u8>> {
    Ok(Session::connect_tls(SocketAddr::new(address, 443), host).await?.certificate())
}

fn is_key(answer: &Response, key: &str) -> bool {
    answer.status == 200 && answer.text() == key
}

/// Whether an object reports that it is ready.
async fn is_ready(scene: &Scene, kind: &str, name: &str) -> anyhow::Result<bool> {
    let conditions = read(scene, &[kind, name]).await?["status"]["conditions"].clone();
    let is_it = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
    ensure!(conditions.as_array().into_iter().flatten().any(is_it), "{conditions}");
    Ok(true)
}

/// The output of `kubectl get`.
async fn read(scene: &Scene, words: &[&str]) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&scene.kubectl(&[&["get", "--output=json"], words].concat()).await?)?)
}
