//! Changes made while the API server is away, and their expected effects when it is back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::scene::{Release, Scene, Session};
use fairway_testkit::{Ca, Leaf};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::sleep;

use super::api_server::ready;

/// The host whose Service has the endpoints that the test writes.
const MANUAL: &str = "manual.example";

/// The objects that the test changes, and the expected effects.
pub(super) struct World {
    namespace: String,
    class: String,
    ca: Ca,
    leaf: Leaf,
    /// Number of changes so far.
    count: usize,
    /// Pods that can be behind [`MANUAL`]: names and addresses.
    pub(super) backends: Vec<(String, String)>,
}

impl World {
    pub(super) async fn new(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<Self> {
        scene
            .apply(
                "{apiVersion: v1, kind: Service, metadata: {name: manual}, spec: {ports: [{name: http, port: 80, targetPort: 3000}]}}",
            )
            .await?;
        let ca = Ca::new("outage");
        let leaf = ca.leaf(&[MANUAL]);
        let address = |pod: Pod| Some((pod.metadata.name?, pod.status?.pod_ip?));
        let backends = scene.pods("web").await?.into_iter().filter_map(address).collect();
        let mut world = Self {
            namespace: scene.namespace().to_owned(),
            class: fairway.class().to_owned(),
            ca,
            leaf,
            count: 0,
            backends,
        };
        world.backends.sort();
        fairway.ingress("manual", MANUAL, "manual").await?;
        let tls = json!({"spec": {"tls": [{"hosts": [MANUAL], "secretName": "site"}]}, "metadata": {"annotations": {
            "nginx.ingress.kubernetes.io/ssl-redirect": "false",
        }}});
        let ingresses = scene.api::<Ingress>();
        ingresses.patch("manual", &PatchParams::default(), &Patch::Merge(&tls)).await?;
        Ok(world)
    }

    /// Adds one Ingress, removes one, and changes an endpoint and a certificate.
    pub(super) async fn change(&mut self, client: &Client) -> anyhow::Result<()> {
        self.count += 1;
        self.leaf = self.ca.leaf(&[MANUAL]);
        let count = self.count;
        let backend = |service: &str| json!({"service": {"name": service, "port": {"number": 80}}});
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": format!("new-{count}")},
            "spec": {"ingressClassName": self.class, "rules": [{
                "host": format!("new-{count}.example"),
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend("web")}]},
            }]},
        });
        self.put::<Ingress>(client, &ingress).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "manual", "labels": {"kubernetes.io/service-name": "manual"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 3000, "protocol": "TCP"}],
            "endpoints": [{"addresses": [self.backend().1], "conditions": {"ready": true}}],
        });
        self.put::<EndpointSlice>(client, &slice).await?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "site"},
            "stringData": {"tls.crt": self.leaf.certificate_pem(), "tls.key": self.leaf.key_pem()},
        });
        self.put::<Secret>(client, &secret).await?;
        if count > 3 {
            let ingresses: Api<Ingress> = Api::namespaced(client.clone(), &self.namespace);
            ingresses.delete(&format!("new-{}", count - 3), &DeleteParams::default()).await?;
        }
        Ok(())
    }

    async fn put<K>(&self, client: &Client, object: &serde_json::Value) -> anyhow::Result<()>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned,
        K: std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(client.clone(), &self.namespace);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply("outage").force();
        api.patch(name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("writing {name}"))?;
        Ok(())
    }

    /// The pod that is behind [`MANUAL`]. Not the first one, which is killed.
    fn backend(&self) -> &(String, String) {
        &self.backends[1 + self.count % (self.backends.len() - 1)]
    }

    /// Waits until each of the pods shows the last written state; returns how long that took.
    pub(super) async fn live(&self, pods: &[SocketAddr], deadline: Instant) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        for pod in pods {
            while let Some(missing) = self.missing(*pod).await? {
                ensure!(Instant::now() < deadline, "{pod}, {:?} later: {missing}", begin.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(begin.elapsed())
    }

    /// The differences from the last written state.
    async fn missing(&self, pod: SocketAddr) -> anyhow::Result<Option<String>> {
        let mut session = Session::connect(pod).await?;
        for count in 1..=self.count {
            let expected = if count + 3 > self.count { 200 } else { 404 };
            let status = session.get(&format!("new-{count}.example"), "/").await?.status;
            if status != expected {
                return Ok(Some(format!("change {count} of {}: {status}, not {expected}", self.count)));
            }
        }
        let answer = session.get(MANUAL, "/").await?;
        let (name, _) = self.backend();
        if !answer.text().contains(&format!("\"pod\": \"{name}\"")) {
            return Ok(Some(format!("the endpoint is not {name}: {}", answer.status)));
        }
        let tls = Session::connect_tls(SocketAddr::new(pod.ip(), 443), MANUAL).await?;
        Ok((tls.certificate() != **self.leaf.der()).then(|| "the certificate is an older one".to_owned()))
    }

    /// Waits for the return of the API server, then for all changes, then for one more change.
    pub(super) async fn back(&mut self, scene: &Scene, pods: &[SocketAddr], limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        ready(scene).await?;
        let back = Instant::now();
        let took = self.live(pods, back + limit).await?;
        println!("{} changes live {took:?} after the return, which took {:?}", self.count, back - start);
        self.change(&scene.client()).await?;
        let took = self.live(pods, Instant::now() + limit).await.context("a change after the return")?;
        println!("a change after the return: live in {took:?}");
        Ok(())
    }
}
