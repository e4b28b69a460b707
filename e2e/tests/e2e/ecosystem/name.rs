//! external-dns writes the records that routes and Ingresses ask for, based on their status and on the addresses of their Gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, ensure};
use fairway_e2e::scene::{self, Scene};
use serde::Deserialize;

use super::{kubeconfig, start};
use crate::gateway::{fairway, route};

/// Targets by name and type, such as `a.example A`.
type Records = BTreeMap<String, BTreeSet<String>>;

const GATEWAYS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: outer}
spec:
  gatewayClassName: '{ns}'
  allowedListeners: {namespaces: {from: Same}}
  listeners:
    - {name: apps, port: 80, protocol: HTTP, hostname: '*.apps.example'}
    - {name: any, port: 8080, protocol: HTTP}
    - {name: secure, port: 443, protocol: TLS, tls: {mode: Passthrough}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: inner}
spec:
  gatewayClassName: '{ns}'
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: team}
spec:
  parentRef: {name: outer}
  listeners: [{name: team, port: 80, protocol: HTTP, hostname: team.example}]
";

/// Kind, name, parents and host names: routes with names of their own, two of which the listener accepts; with the names of a listener,
/// also a ListenerSet's; and at a second Gateway.
const ROUTES: [(&str, &str, &str, &str); 7] = [
    (
        "HTTPRoute",
        "shop",
        "{name: outer, sectionName: apps}",
        "shop.apps.example, www.apps.example, shop.elsewhere.example",
    ),
    ("HTTPRoute", "rest", "{name: outer, sectionName: apps}", ""),
    ("HTTPRoute", "team", "{kind: ListenerSet, name: team}", ""),
    ("HTTPRoute", "both", "{name: outer, sectionName: any}, {name: inner}", "both.example"),
    ("HTTPRoute", "refused", "{name: outer, sectionName: apps}", "refused.example"),
    ("GRPCRoute", "rpc", "{name: outer, sectionName: any}", "rpc.example"),
    ("TLSRoute", "secure", "{name: outer}", "secure.example"),
];

#[test]
fn records_are_the_names_of_routes_and_the_addresses_of_their_gateways() -> anyhow::Result<()> {
    scene::run("name", async |scene| {
        let fairway = fairway(scene, &["controller.gatewayAPI.address=own"]).await?;
        scene.echo("web", 1).await?;
        scene.apply(&format!("{GATEWAYS}---\n{}", ROUTES.map(route).join("---\n"))).await?;
        fairway.ingress("site", "site.example", "web").await?;
        let [outer, inner] = [gateway(scene, "outer").await?, gateway(scene, "inner").await?];
        let own = fairway.address().await?.ip();
        ensure!(BTreeSet::from([outer, inner, own]).len() == 3, "{outer}, {inner} and {own} are not three addresses");

        let sources = ["ingress", "gateway-httproute", "gateway-grpcroute", "gateway-tlsroute"];
        let mut arguments: Vec<String> = sources.iter().map(|source| format!("--source={source}")).collect();
        arguments.extend(["provider=inmemory", "policy=sync", "inmemory-zone=example", "interval=1s"].map(option));
        arguments.extend([
            kubeconfig(scene),
            option(&format!("namespace={}", scene.namespace())),
            option("gateway-listener-sets"),
        ]);
        let _writer = start(scene, "external-dns", &[], &arguments)?;

        let mut expected = Records::new();
        for name in
            ["shop.apps.example", "www.apps.example", "*.apps.example", "team.example", "rpc.example", "secure.example"]
        {
            expected.insert(format!("{name} A"), BTreeSet::from([outer.to_string()]));
        }
        expected.insert("both.example A".to_owned(), BTreeSet::from([outer.to_string(), inner.to_string()]));
        expected.insert("site.example A".to_owned(), BTreeSet::from([own.to_string()]));
        written(scene, "all", &expected).await?;
        // Traffic arrives where the records point.
        for (address, port, host) in [
            (outer, 80, "shop.apps.example"),
            (outer, 80, "any.apps.example"),
            (outer, 80, "team.example"),
            (outer, 8080, "both.example"),
            (inner, 80, "both.example"),
            (own, 80, "site.example"),
        ] {
            scene.served(SocketAddr::new(address, port), host).await?;
        }

        // One name replaces two, and a route, a Gateway, a ListenerSet and an Ingress are deleted.
        let patch = r#"{"spec":{"hostnames":["new.apps.example"]}}"#;
        scene.kubectl(&["patch", "httproute", "shop", "--type=merge", "--patch", patch]).await?;
        scene.kubectl(&["delete", "grpcroute/rpc", "gateway/inner", "listenerset/team", "ingress/site"]).await?;
        for name in ["shop.apps.example", "www.apps.example", "team.example", "rpc.example", "site.example"] {
            expected.remove(&format!("{name} A"));
        }
        for name in ["new.apps.example", "both.example"] {
            expected.insert(format!("{name} A"), BTreeSet::from([outer.to_string()]));
        }
        written(scene, "what is left", &expected).await?;

        scene.kubectl(&["delete", "httproute,tlsroute", "--all"]).await?;
        written(scene, "none", &Records::new()).await
    })
}

/// The only address in the status of a Gateway.
async fn gateway(scene: &Scene, name: &str) -> anyhow::Result<IpAddr> {
    let words = ["get", "gateway", name, "--output=jsonpath={.status.addresses[*].value}"];
    scene.find(&format!("the address of {name}"), async || Ok(scene.kubectl(&words).await?.parse().ok())).await
}

/// Waits until external-dns has written these records and no others.
async fn written(scene: &Scene, which: &str, expected: &Records) -> anyhow::Result<()> {
    scene
        .until(&format!("{which} records"), async || {
            let found = records(scene)?;
            ensure!(found == *expected, "expected {expected:?}, and found {found:?}");
            Ok(true)
        })
        .await
}

/// The records after the last pass of external-dns.
fn records(scene: &Scene) -> anyhow::Result<Records> {
    #[derive(Deserialize)]
    struct Record {
        name: String,
        r#type: String,
        targets: BTreeSet<String>,
    }
    let log = fs::read_to_string(scene.cluster().layout().log("external-dns"))?;
    // A line without its end is still being written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let last = whole.lines().rfind(|line| line.starts_with('[')).context("no pass so far")?;
    let records: Vec<Record> = serde_json::from_str(last)?;
    Ok(records.into_iter().map(|one| (format!("{} {}", one.name, one.r#type), one.targets)).collect())
}

fn option(text: &str) -> String {
    format!("--{text}")
}
