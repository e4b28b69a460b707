//! One host moves from an Ingress to an HTTPRoute and back, following the steps of `docs/move-to-gateway-api.md`.

use anyhow::{Context, ensure};
use fairway_e2e::load::{Load, Running};
use fairway_e2e::scene::{self, Scene, Session};
use kube::Api;
use kube::api::DynamicObject;
use serde::Deserialize as _;
use serde_json::Value;

use super::{fairway, resource};

const BINARY: &str = "target/image/rootfs/fairway";

/// Requests per second.
const RATE: u32 = 100;

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: before, namespace: '{ns}'}
spec: {selector: {app: before}, ports: [{name: http, port: 80, targetPort: http}]}
";

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: '{ns}'
  annotations:
    nginx.ingress.kubernetes.io/proxy-read-timeout: '30'
    nginx.ingress.kubernetes.io/proxy-body-size: 8m
spec:
  ingressClassName: '{ns}'
  rules:
    - host: moving.example
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: before, port: {number: 80}}}}]}
";

const HOST: &str = "moving.example";

#[test]
fn a_host_moves_to_a_route_and_back_without_a_failed_request() -> anyhow::Result<()> {
    scene::run("to-route", async |scene| {
        let fairway = fairway(scene, &[]).await?;
        let address = fairway.address().await?;
        scene.echo("before", 1).await?;
        scene.echo("after", 1).await?;
        scene.apply(INGRESS).await?;
        scene.served(address, HOST).await?;
        let converted = convert(scene).await?;
        let routes = only(&converted, |kind| kind == "HTTPRoute")?;

        let mut session = Session::connect(address).await?;
        let load = Load::to(address).host(HOST).connections(4).rate(RATE).start();
        load.more(u64::from(RATE)).await;
        scene.apply(&only(&converted, |kind| kind != "HTTPRoute")?).await?;
        scene.apply(&routes).await?;
        accepted(scene, name(&converted, "HTTPRoute")?).await?;
        load.more(u64::from(RATE)).await;
        ensure!(!answered(&load, "after"), "the older Ingress keeps the host");
        ensure!(session.get(HOST, "/").await?.status == 200, "while both serve the host");

        scene.delete(INGRESS).await?;
        turns(scene, &load, "after").await?;
        ensure!(session.get(HOST, "/").await?.status == 200, "behind the route");

        scene.apply(INGRESS).await?;
        scene.delete(&routes).await?;
        turns(scene, &load, "before").await?;
        ensure!(session.get(HOST, "/").await?.status == 200, "behind the Ingress again");

        let account = load.stop().await;
        println!("{HOST}: {account}");
        ensure!(account.failed == 0, "requests failed");
        ensure!(account.retried == 0, "connections were closed");
        Ok(())
    })
}

/// Waits until a route reports that its Gateway has accepted it.
async fn accepted(scene: &Scene, name: &str) -> anyhow::Result<()> {
    let routes: Api<DynamicObject> = Api::namespaced_with(scene.client(), scene.namespace(), &resource("HTTPRoute").0);
    let holds = |one: &Value| one["type"] == "Accepted" && one["status"] == "True";
    scene
        .until("the route is accepted", async || {
            let parents = routes.get(name).await?.data["status"]["parents"].clone();
            let conditions = parents.as_array().into_iter().flatten().filter_map(|one| one["conditions"].as_array());
            ensure!(conditions.flatten().any(holds), "{parents}");
            Ok(true)
        })
        .await
}

/// Waits until only this Deployment answers.
async fn turns(scene: &Scene, load: &Running, deployment: &str) -> anyhow::Result<()> {
    scene
        .until(&format!("only {deployment} answers"), async || {
            let before = load.so_far().pods;
            load.more(u64::from(RATE)).await;
            let grown = load.so_far().pods;
            let grows = |(pod, count): (&String, &u64)| (before.get(pod) != Some(count)).then(|| pod.clone());
            let all: Vec<String> = grown.iter().filter_map(grows).collect();
            Ok(!all.is_empty() && all.iter().all(|pod| pod.starts_with(&format!("{deployment}-"))))
        })
        .await
}

/// Whether a pod of the Deployment has answered.
fn answered(load: &Running, deployment: &str) -> bool {
    load.so_far().pods.keys().any(|pod| pod.starts_with(&format!("{deployment}-")))
}

/// The output of `fairway convert` for the Ingress, with another backend, which shows a test what has answered. The class is the chart's.
async fn convert(scene: &Scene) -> anyhow::Result<Vec<Value>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ingress.yaml");
    std::fs::write(&file, format!("{INGRESS}---{SERVICE}").replace("{ns}", scene.namespace()))?;
    let (gateway, file) = (format!("{}/edge", scene.namespace()), file.to_str().context("a path of text")?);
    let words = ["convert", "--gateway", &gateway, "--gateway-class", scene.namespace()];
    let words = [&words[..], &["--ingress-class", scene.namespace(), file]].concat();
    let output = scene.output(BINARY, &words).await?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let text = text.replace("name: \"before\"", "name: \"after\"");
    let documents = serde_norway::Deserializer::from_str(&text).map(Value::deserialize);
    let documents = documents.collect::<Result<Vec<_>, _>>().context("YAML of convert")?;
    Ok(documents.into_iter().filter(|object| object["kind"].as_str().is_some_and(|it| it != "GatewayClass")).collect())
}

fn only(objects: &[Value], wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let chosen: Vec<String> =
        objects.iter().filter(|one| one["kind"].as_str().is_some_and(&wanted)).map(Value::to_string).collect();
    ensure!(!chosen.is_empty(), "no such object among those of convert");
    Ok(chosen.join("\n---\n"))
}

fn name<'a>(objects: &'a [Value], kind: &str) -> anyhow::Result<&'a str> {
    let found = objects.iter().find(|one| one["kind"] == kind);
    found.and_then(|one| one["metadata"]["name"].as_str()).with_context(|| format!("no {kind} of convert"))
}
