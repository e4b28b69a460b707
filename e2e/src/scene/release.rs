//! Fairway, installed from its chart into the namespace of a scene, with its own class.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;

use super::{Scene, Session, is_ready};

const CHART: &str = "deploy/helm/fairway";

/// Settings common to all tests: faster responses, and small enough for many on one machine.
const QUICK: &[&str] = &[
    "controller.startupProbe.periodSeconds=1",
    "controller.readinessProbe.periodSeconds=1",
    "controller.resources.requests.cpu=10m",
];

/// An installed release. Its name, its class and the prefix of its objects' names are the name of the namespace.
pub struct Release<'a> {
    scene: &'a Scene,
}

impl Scene {
    /// Installs Fairway with `values` (as `--set` takes them) and waits until it is ready.
    pub async fn fairway(&self, values: &[&str]) -> anyhow::Result<Release<'_>> {
        let release = Release { scene: self };
        release.upgrade(values).await?;
        Ok(release)
    }
}

impl Release<'_> {
    /// Installs or changes the release, and waits until it is ready.
    pub async fn upgrade(&self, values: &[&str]) -> anyhow::Result<()> {
        let name = self.class();
        let own = [
            format!("fullnameOverride={name}"),
            format!("controller.ingressClass={name}"),
            format!("controller.ingressClassResource.name={name}"),
            format!("controller.ingressClassResource.controllerValue=fairway.dev/{name}"),
        ];
        let mut arguments = vec!["upgrade", "--install", name, CHART, "--wait", "--timeout", "120s"];
        for value in own.iter().map(String::as_str).chain(QUICK.iter().copied()).chain(values.iter().copied()) {
            arguments.extend(["--set", value]);
        }
        self.scene.helm(&arguments).await?;
        Ok(())
    }

    /// Removes the release and waits until its objects are gone.
    pub async fn uninstall(self) -> anyhow::Result<()> {
        self.scene.helm(&["uninstall", self.class(), "--wait", "--timeout", "120s"]).await?;
        Ok(())
    }

    /// The name of its class, which is the name of the namespace.
    pub fn class(&self) -> &str {
        self.scene.namespace()
    }

    /// The name of the Deployment, the Service and the ConfigMap.
    pub fn controller(&self) -> String {
        format!("{}-controller", self.class())
    }

    /// The address of the Service of type LoadBalancer, port 80.
    pub async fn address(&self) -> anyhow::Result<SocketAddr> {
        let services = self.scene.api::<Service>();
        let address: IpAddr = self
            .scene
            .find("an address of the Service of type LoadBalancer", async || {
                let status = services.get(&self.controller()).await?.status.unwrap_or_default();
                let ingress = status.load_balancer.and_then(|status| status.ingress).unwrap_or_default();
                Ok(ingress.into_iter().find_map(|ingress| ingress.ip))
            })
            .await?
            .parse()?;
        Ok(SocketAddr::new(address, 80))
    }

    /// The pods of the controller.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let labels = format!("app.kubernetes.io/instance={},app.kubernetes.io/component=controller", self.class());
        Ok(self.scene.api::<Pod>().list(&ListParams::default().labels(&labels)).await?.items)
    }

    /// Waits until exactly `count` pods exist and are ready.
    pub async fn ready(&self, count: usize) -> anyhow::Result<()> {
        self.scene
            .until(&format!("{count} ready pods of Fairway"), async || {
                let pods = self.pods().await?;
                Ok(pods.len() == count && pods.iter().all(is_ready))
            })
            .await
    }

    /// Applies an Ingress of this class with one host whose paths all lead to port 80 of a Service.
    pub async fn ingress(&self, name: &str, host: &str, service: &str) -> anyhow::Result<()> {
        let class = self.class();
        self.scene
            .apply(&format!(
                "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  ingressClassName: {class}
  rules:
    - host: {host}
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}
"
            ))
            .await
    }

    /// A metric of the only pod, summed over all its series.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let pods = self.pods().await?;
        let address = pods.iter().filter(|pod| is_ready(pod)).find_map(|pod| pod.status.as_ref()?.pod_ip.clone());
        let address: IpAddr = address.context("no ready pod of Fairway")?.parse()?;
        let mut session = Session::connect(SocketAddr::new(address, 10254)).await?;
        let text = session.get("metrics", "/metrics").await?.text();
        let series =
            text.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
        let values = series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
        let values: Vec<f64> = values.collect();
        anyhow::ensure!(!values.is_empty(), "there is no metric called {name}");
        Ok(values.iter().sum())
    }
}

/// Removes everything that helm installed in the namespace of a scene: a release also has cluster-scoped objects.
pub(super) async fn uninstall_all(scene: &Scene) -> anyhow::Result<()> {
    for release in scene.helm(&["list", "--short"]).await?.lines().filter(|line| !line.is_empty()) {
        scene.helm(&["uninstall", release, "--wait=false"]).await?;
    }
    Ok(())
}
