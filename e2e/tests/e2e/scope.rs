//! The namespaces that a release serves: one, or those matching a selector. It has no rights elsewhere.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, ensure};
use fairway_e2e::scene::{self, Scene};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;

#[test]
fn a_release_with_a_scope_serves_its_own_namespace_only() -> anyhow::Result<()> {
    scene::run("scope", async |scene| {
        let fairway = scene.fairway(&["controller.scope.enabled=true"]).await?;
        serves(scene, &fairway, false).await
    })
}

#[test]
fn a_selector_chooses_the_namespaces_that_are_served() -> anyhow::Result<()> {
    scene::run("selector", async |scene| {
        let label = "controller.scope.namespaceSelector=fairway\\.dev/test=selector";
        let fairway = scene.fairway(&[label]).await?;
        serves(scene, &fairway, true).await
    })
}

/// It needs rights in four namespaces then: it has them in each of these, and in no other.
#[test]
fn a_release_serves_another_namespace_and_takes_its_address_from_a_third() -> anyhow::Result<()> {
    scene::run("scope-elsewhere", async |scene| {
        let [served, edge] = ["served", "edge"].map(|name| format!("{}-{name}", scene.namespace()));
        let namespaces =
            [&served, &edge].map(|name| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"));
        for namespace in &namespaces {
            scene.apply(namespace).await?;
        }
        scene.echo("web", 1).await?;
        let web = scene.pods("web").await?.pop().and_then(|pod| pod.status?.pod_ip).context("no address of the pod")?;
        scene.apply(&service(&served, &web)).await?;
        let scope = format!("controller.scope.namespace={served}");
        let tcp = format!("tcp.5432={served}/web:80");
        let values = ["controller.scope.enabled=true", &scope, &tcp];
        let fairway = scene.fairway(&values).await?;
        let address = fairway.address().await?;

        scene.apply(&ingress(fairway.class(), scene.namespace(), "ours")).await?;
        scene.apply(&ingress(fairway.class(), &served, "theirs")).await?;
        let answers = async |host: &str| anyhow::Ok(scene.get(address, host, "/").await?.status);
        // Its Service doesn't exist: a release that serves the host answers 503, any other 404.
        scene.steady("their host is served", async || Ok(answers("theirs.example").await? == 503)).await?;
        // It is older than theirs.
        ensure!(answers("ours.example").await? == 404, "a namespace is served that isn't theirs");
        let database = SocketAddr::new(address.ip(), 5432);
        scene.served(database, "any.example").await?;
        shows(scene, &served, "theirs", address.ip()).await?;

        let front = "spec: {type: LoadBalancer, ports: [{port: 80}]}";
        let metadata = format!("metadata: {{name: front, namespace: {edge}}}");
        scene.apply(&format!("apiVersion: v1\nkind: Service\n{metadata}\n{front}")).await?;
        let services: Api<Service> = Api::namespaced(scene.client(), &edge);
        let front = async || {
            let status = services.get("front").await?.status.and_then(|status| status.load_balancer);
            Ok(status.and_then(|status| status.ingress?.into_iter().find_map(|ingress| ingress.ip)))
        };
        let front: IpAddr = scene.find("the address of the other Service", front).await?.parse()?;
        let path = format!("controller.publishService.pathOverride={edge}/front");
        fairway.upgrade(&[&values[..], &[&path]].concat()).await?;
        shows(scene, &served, "theirs", front).await?;
        scene.served(database, "any.example").await?;
        for namespace in &namespaces {
            scene.delete(namespace).await?;
        }
        Ok(())
    })
}

#[test]
fn without_any_right_in_the_cluster_only_the_annotation_tells_whose_an_ingress_is() -> anyhow::Result<()> {
    scene::run("scope-rights", async |scene| {
        let fairway = scene.fairway(&["controller.scope.enabled=true", "rbac.scope=true"]).await?;
        let (client, class) = (scene.client(), fairway.class());
        let role = Api::<ClusterRole>::all(client.clone()).get_opt(class).await?;
        let binding = Api::<ClusterRoleBinding>::all(client).get_opt(class).await?;
        ensure!(role.is_none() && binding.is_none(), "rights in the cluster: {role:?}, {binding:?}");

        let address = fairway.address().await?;
        let answers = async |host: &str| anyhow::Ok(scene.get(address, host, "/").await?.status);
        let field = ingress(class, scene.namespace(), "field");
        let annotation = ingress(class, scene.namespace(), "annotation")
            .replace("metadata: {", &format!("metadata: {{annotations: {{kubernetes.io/ingress.class: {class}}}, "))
            .replace(&format!("ingressClassName: {class}"), "");
        scene.apply(&field).await?;
        scene.apply(&annotation).await?;
        scene
            .steady("the one with the annotation is served", async || Ok(answers("annotation.example").await? == 503))
            .await?;
        // It is older than that.
        ensure!(answers("field.example").await? == 404, "a class is known that can't be read");
        shows(scene, scene.namespace(), "annotation", address.ip()).await
    })
}

/// Waits until the status of an Ingress shows an address, and nothing else.
async fn shows(scene: &Scene, namespace: &str, name: &str, address: IpAddr) -> anyhow::Result<()> {
    let ingresses: Api<Ingress> = Api::namespaced(scene.client(), namespace);
    let address = Some(address.to_string());
    let shown = async || {
        let status = ingresses.get(name).await?.status.and_then(|status| status.load_balancer);
        let shown = status.and_then(|status| status.ingress).unwrap_or_default();
        Ok(shown.iter().map(|shown| &shown.ip).eq([&address]))
    };
    scene.until(&format!("the Ingress {name} shows {address:?}"), shown).await
}

/// A Service `web` whose only endpoint is a pod of another namespace.
fn service(namespace: &str, address: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec: {{ports: [{{name: http, port: 80, targetPort: 3000}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 3000}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
"
    )
}

/// Checks that the namespace of the scene is served and another is not, until it has the label of the selector, if there is one.
async fn serves(scene: &Scene, fairway: &scene::Release<'_>, selects: bool) -> anyhow::Result<()> {
    let address = fairway.address().await?;
    let other = format!("{}-other", scene.namespace());
    let namespace = |labels: &str| {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {other}, labels: {{{labels}}}}}}}")
    };
    scene.apply(&namespace("")).await?;
    let answers = async |host: &str| anyhow::Ok(scene.get(address, host, "/").await?.status);

    // Its Service doesn't exist: a release that serves the host answers 503, any other 404.
    scene.apply(&ingress(fairway.class(), &other, "theirs")).await?;
    scene.apply(&ingress(fairway.class(), scene.namespace(), "ours")).await?;
    scene.until("our host is served", async || Ok(answers("ours.example").await? == 503)).await?;
    // It is older than ours.
    anyhow::ensure!(answers("theirs.example").await? == 404, "a namespace is served that isn't ours");
    if selects {
        scene.apply(&namespace("fairway.dev/test: selector")).await?;
        scene.until("their host is served", async || Ok(answers("theirs.example").await? == 503)).await?;
        scene.apply(&namespace("")).await?;
        scene.until("their host is served no longer", async || Ok(answers("theirs.example").await? == 404)).await?;
    }
    scene.delete(&namespace("")).await
}

fn ingress(class: &str, namespace: &str, name: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  ingressClassName: {class}
  rules:
    - host: {name}.example
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: nothing, port: {{number: 80}}}}}}}}
"
    )
}
