//! The Gateway API on a real API server. Its CRDs come from the table that `fairway check` uses, and stay until the cluster ends.

mod moving;
mod observed;
mod outside;
mod policy;
mod refusal;
mod telemetry;

use anyhow::{Context, ensure};
use fairway_e2e::scene::{Release, Scene, repository};
use kube::Api;
use kube::api::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

/// The table that `check` uses.
const TABLE: &str = "crates/fairway/src/manifest/crd/gateway-api.json";

/// The plurals of our own kinds, which are also the names of their CRD files.
const OWN: [(&str, &str); 2] = [("RoutePolicy", "routepolicies"), ("GatewayParameters", "gatewayparameters")];

/// Kind, plural, and whether the kind is namespaced.
const KINDS: [(&str, &str, bool); 10] = [
    ("GatewayClass", "gatewayclasses", false),
    ("Gateway", "gateways", true),
    ("ListenerSet", "listenersets", true),
    ("HTTPRoute", "httproutes", true),
    ("GRPCRoute", "grpcroutes", true),
    ("TLSRoute", "tlsroutes", true),
    ("TCPRoute", "tcproutes", true),
    ("UDPRoute", "udproutes", true),
    ("ReferenceGrant", "referencegrants", true),
    ("BackendTLSPolicy", "backendtlspolicies", true),
];

const GROUP: &str = "gateway.networking.k8s.io";
const EXPERIMENTS: &str = "gateway.networking.x-k8s.io";

/// Creates the CRDs of the standard channel, some of the experimental one, and our own.
pub(crate) async fn install(scene: &Scene) -> anyhow::Result<()> {
    let table: Value = serde_json::from_slice(&std::fs::read(repository().join(TABLE))?)?;
    let mut names = Vec::new();
    for (_, plural) in OWN {
        let file = repository().join(format!("deploy/helm/fairway/files/{plural}.yaml"));
        scene.apply(&std::fs::read_to_string(file)?).await?;
        names.push(format!("crd/{plural}.fairway.dev"));
    }
    let standard = KINDS.map(|(kind, plural, namespaced)| (kind, plural, namespaced, "standard", GROUP, "v1"));
    let experimental = [("XBackend", "xbackends"), ("XTelemetryPolicy", "xtelemetrypolicies")];
    let experimental = experimental.map(|(kind, plural)| (kind, plural, true, "experimental", EXPERIMENTS, "v1alpha1"));
    for (kind, plural, namespaced, channel, group, version) in standard.into_iter().chain(experimental) {
        let mut schema = followed(&table["kinds"][kind][channel], &table["definitions"]);
        schema["properties"]["status"] = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let name = format!("{plural}.{group}");
        let version = json!({
            "name": version, "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema},
        });
        let crd = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
            "spec": {
                "group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" }, "versions": [version],
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            },
        });
        scene.apply(&crd.to_string()).await?;
        names.push(format!("crd/{name}"));
    }
    let words = ["wait", "--for", "condition=established", "--timeout", "60s"];
    scene.kubectl(&words.into_iter().chain(names.iter().map(String::as_str)).collect::<Vec<_>>()).await?;
    Ok(())
}

/// Creates the CRDs, and installs Fairway with a class of the scene's name and these chart values.
pub(crate) async fn fairway<'a>(scene: &'a Scene, values: &[&str]) -> anyhow::Result<Release<'a>> {
    install(scene).await?;
    let class = format!("controller.gatewayAPI.className={}", scene.namespace());
    let name = format!("controller.gatewayAPI.controllerName=e2e.example/{}", scene.namespace());
    scene.fairway(&[&["controller.gatewayAPI.enabled=true", &class, &name], values].concat()).await
}

/// A route of this kind to the Service `web`. Its parents and host names are the items of YAML lists.
pub(crate) fn route((kind, name, parents, hostnames): (&str, &str, &str, &str)) -> String {
    format!(
        "apiVersion: {GROUP}/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  parentRefs: [{parents}]\n  \
         hostnames: [{hostnames}]\n  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]\n"
    )
}

/// Waits until a policy or an XBackend reports these conditions for the Gateway `edge` and its current generation.
async fn says(scene: &Scene, (kind, name): (&str, &str), expected: &[&str]) -> anyhow::Result<()> {
    let objects: Api<DynamicObject> = Api::namespaced_with(scene.client(), scene.namespace(), &resource(kind).0);
    scene
        .until(&format!("the status of {name}: {expected:?}"), async || {
            let object = objects.get(name).await?;
            let generation = object.metadata.generation.context("a generation")?;
            let Some([ancestor]) = object.data["status"]["ancestors"].as_array().map(Vec::as_slice) else {
                return Ok(false);
            };
            ensure!(ancestor["ancestorRef"]["name"] == "edge", "{ancestor}");
            let said = |one: &Value| {
                let text = |name: &str| one[name].as_str().unwrap_or_default();
                format!("{}={}/{}", text("type"), text("status"), text("reason"))
            };
            let conditions = ancestor["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            Ok(conditions.iter().map(said).eq(expected.iter().copied())
                && conditions.iter().all(|one| one["observedGeneration"] == generation))
        })
        .await
}

/// A schema with all references resolved.
fn followed(schema: &Value, definitions: &Value) -> Value {
    match schema {
        Value::Object(members) => match members.get("$ref").and_then(Value::as_str) {
            Some(name) => followed(&definitions[name], definitions),
            None => members.iter().map(|(name, member)| (name.clone(), followed(member, definitions))).collect(),
        },
        Value::Array(items) => items.iter().map(|item| followed(item, definitions)).collect(),
        other => other.clone(),
    }
}

/// The API of a kind, and whether the kind is namespaced.
pub(crate) fn resource(kind: &str) -> (ApiResource, bool) {
    let (group, version, plural, namespaced) = match KINDS.iter().find(|(known, ..)| *known == kind) {
        Some((_, plural, namespaced)) => (GROUP, "v1", *plural, *namespaced),
        None if kind == "XBackend" => (EXPERIMENTS, "v1alpha1", "xbackends", true),
        None if kind == "XTelemetryPolicy" => (EXPERIMENTS, "v1alpha1", "xtelemetrypolicies", true),
        None => {
            let own = OWN.iter().find(|(known, _)| *known == kind).map_or("", |(_, plural)| plural);
            ("fairway.dev", "v1alpha1", own, true)
        }
    };
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: format!("{group}/{version}"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    (resource, namespaced)
}
