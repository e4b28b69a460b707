//! Two thousand Ingresses, fifty changes per second: how soon each change is live, and how many other requests fail.
//!
//! `FAIRWAY_CHURN=10000,4` sets the number of Ingresses, and of proxies in pods of their own; then it also shows how long a start takes,
//! and what remains in memory once nearly all Ingresses are deleted. A third number, as in `FAIRWAY_CHURN=10000,1,10`, sets the hosts of
//! each Ingress.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fairway_e2e::cluster::Options;
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Release, Scene};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::delay::percentile;
use super::process::{Resident, resident, time_of};
use super::proxy::Proxies;
use super::rest::rest;
use super::{Churned, SAMPLE, WRITERS, backend, churn, patch};

const CHANGES: usize = 3_000;
/// How many Ingresses remain at the end.
const FEW: usize = 10;
const INTERVAL: Duration = Duration::from_millis(20);

/// The size of the cluster.
#[derive(Clone, Copy)]
struct Size {
    /// The first half redirects, the second half leads to the Services.
    ingresses: usize,
    /// Proxies in pods of their own, with one controller; `None` for one pod with both.
    proxies: Option<usize>,
    /// The number of hosts of each Ingress. Changes are observed at the first one.
    hosts: usize,
}

impl Size {
    fn wanted() -> anyhow::Result<Self> {
        let Ok(text) = std::env::var("FAIRWAY_CHURN") else {
            return Ok(Self { ingresses: 2_000, proxies: None, hosts: 1 });
        };
        let numbers: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
        let (ingresses, proxies, hosts) = match numbers.as_deref() {
            Ok(&[ingresses, proxies]) => (ingresses, proxies, 1),
            Ok(&[ingresses, proxies, hosts]) => (ingresses, proxies, hosts),
            _ => bail!("FAIRWAY_CHURN={text}: expected INGRESSES,PROXIES or INGRESSES,PROXIES,HOSTS"),
        };
        ensure!(ingresses >= 1_000 && proxies > 0 && hosts > 0, "FAIRWAY_CHURN={text}: expected 1000,1,1 at least");
        Ok(Self { ingresses, proxies: Some(proxies), hosts })
    }

    /// The ports of the first half change, and the endpoints of the second half.
    fn services(self) -> usize {
        self.ingresses / 10
    }

    /// Values of the chart.
    fn values(self) -> Vec<String> {
        match self.proxies {
            None => vec!["controller.replicaCount=1".to_owned()],
            Some(proxies) => vec![
                format!("controller.replicaCount={proxies}"),
                "controller.mode=split".to_owned(),
                "controller.control.replicaCount=1".to_owned(),
                // The nodes of the tests have no DNS.
                "controller.control.clusterIP=10.96.0.42".to_owned(),
            ],
        }
    }
}

#[test]
fn every_change_is_soon_live_and_fails_no_request() -> anyhow::Result<()> {
    let size = Size::wanted()?;
    scene::run_alone("churn", &Options::default(), async |scene| {
        let values = size.values();
        let fairway = scene.fairway(&values.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let address = fairway.address().await?;
        scene.echo("answers", 2).await?;
        fairway.ingress("bystander", "bystander.example", "answers").await?;
        scene.served(address, "bystander.example").await?;

        let ground = Arc::new(Ground::new(scene, &fairway, size).await?);
        let begin = Instant::now();
        ground.create().await?;
        ground
            .proxies
            .shows(&host(size.ingresses - 1), |response| response.status == 200)
            .await
            .context("the last Ingress")?;
        println!(
            "{} Ingresses with {} hosts and {} Services created and served in {:.1?}",
            size.ingresses,
            size.ingresses * size.hosts,
            size.services(),
            begin.elapsed()
        );

        let bystander = Load::to(address).host("bystander.example").connections(4).rate(200);
        let changes = ground.clone();
        let change = move |number| {
            let ground = changes.clone();
            async move { ground.change(number).await }
        };
        let Churned { delays, memory } = churn(scene, bystander, (CHANGES, INTERVAL), change).await?;
        // By the middle of the run, every object has grown by an annotation, and pools and buffers are filled. The
        // maximum of each half counts, because the allocator returns free memory to the kernel at its own pace.
        ensure!(memory.len() > 3, "memory was looked at only {} times", memory.len());
        let (first, second) = memory.split_at(memory.len() / 2);
        for role in memory[0].keys() {
            let most = |half: &[Resident]| half.iter().filter_map(|sizes| sizes.get(role)).copied().fold(0.0, f64::max);
            let (first, second) = (most(first), most(second));
            ensure!(
                second < first * 1.25,
                "the {role} grew from {first:.1} MB at most in the first half to {second:.1} MB"
            );
        }
        // The goal is 100 ms (p99). The clock of a shared machine decides no test, so the limit is far above its noise.
        ensure!(percentile(&delays, 99) < Duration::from_secs(1), "changes are late");
        ensure!(percentile(&delays, 50) < Duration::from_millis(500), "most changes are late");
        rest(scene, &fairway, ground.ingress(0)).await?;
        if size.proxies.is_some() {
            start_and_shrink(scene, &fairway, &ground).await?;
        }
        Ok(())
    })
}

/// Shows how long starts take, and what remains in memory after Ingresses are deleted.
async fn start_and_shrink(scene: &Scene, fairway: &Release<'_>, ground: &Ground) -> anyhow::Result<()> {
    let restart = async || {
        for deployment in [format!("{}-control", fairway.class()), fairway.controller()] {
            let deployment = format!("deployment/{deployment}");
            scene.kubectl(&["rollout", "restart", &deployment]).await?;
            scene.kubectl(&["rollout", "status", &deployment, "--timeout=300s"]).await?;
        }
        anyhow::Ok(())
    };
    restart().await?;
    for pod in pods(scene).await? {
        let log = scene.kubectl(&["logs", &pod]).await?;
        let ready = if log.contains("publishing") { "publishing" } else { " serving " };
        println!("{pod}: {ready:?} {:#} after its start", time_of(&log, ready)? - time_of(&log, "starting")?);
    }
    println!("memory after the start, MB: {:.1?}", resident(scene)?);
    stream::iter(FEW..ground.size.ingresses)
        .map(|number| async move {
            ground.ingresses.delete(&format!("ingress-{number}"), &DeleteParams::default()).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(WRITERS)
        .try_collect::<()>()
        .await?;
    let ground = Ground::new(scene, fairway, ground.size).await?;
    ground
        .proxies
        .shows(&host(ground.size.ingresses - 1), |response| response.status == 404)
        .await
        .context("no Ingress")?;
    // The allocator returns memory in the background.
    sleep(2 * SAMPLE).await;
    println!("memory with {FEW} Ingresses, MB: {:.1?}", resident(scene)?);
    restart().await?;
    println!("memory of a start with {FEW} Ingresses, MB: {:.1?}", resident(scene)?);
    Ok(())
}

/// The names of Fairway's pods.
async fn pods(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let labels = format!("app.kubernetes.io/instance={}", scene.namespace());
    let pods = scene.api::<Pod>().list(&ListParams::default().labels(&labels)).await?;
    Ok(pods.items.into_iter().filter_map(|pod| pod.metadata.name).collect())
}

/// The place where the changes are made and observed.
struct Ground {
    ingresses: Api<Ingress>,
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    size: Size,
    class: String,
    /// Each of them must know a change.
    proxies: Proxies,
    /// The two pods that answer.
    pods: Vec<backend::Pod>,
}

/// The host of an Ingress, its first one if it has several.
fn host(number: usize) -> String {
    format!("host-{number}.churn.example")
}

/// All of its hosts.
fn hosts(number: usize, count: usize) -> impl Iterator<Item = String> {
    std::iter::once(host(number)).chain((1..count).map(move |more| format!("more-{more}.{}", host(number))))
}

impl Ground {
    async fn new(scene: &Scene, fairway: &Release<'_>, size: Size) -> anyhow::Result<Self> {
        let (pods, proxies) = (backend::pods(scene, "answers").await?, Proxies::of(fairway).await?);
        let (ingresses, services, slices, class) = (scene.api(), scene.api(), scene.api(), fairway.class().to_owned());
        Ok(Self { ingresses, services, slices, size, class, proxies, pods })
    }

    /// The host that shows the state of a Service.
    fn host_of_service(&self, number: usize) -> String {
        host(self.size.ingresses / 2 + number)
    }

    async fn create(&self) -> anyhow::Result<()> {
        let post = &PostParams::default();
        let services = stream::iter(0..self.size.services()).map(|number| async move {
            let service = format!("service-{number}");
            let slice = backend::slice(&format!("slice-{number}"), &service, &self.pods[0]);
            self.services.create(post, &serde_json::from_value(backend::service(&service))?).await?;
            self.slices.create(post, &serde_json::from_value(slice)?).await?;
            anyhow::Ok(())
        });
        services.buffer_unordered(WRITERS).try_collect::<()>().await?;
        let ingresses = stream::iter(0..self.size.ingresses).map(|number| async move {
            self.ingresses.create(post, &serde_json::from_value(self.ingress(number))?).await?;
            anyhow::Ok(())
        });
        ingresses.buffer_unordered(WRITERS).try_collect::<()>().await
    }

    fn ingress(&self, number: usize) -> Value {
        let service = json!({"name": format!("service-{}", number % self.size.services()), "port": {"number": 80}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": service}});
        let rule = |host| json!({"host": host, "http": {"paths": [path]}});
        let rules: Vec<_> = hosts(number, self.size.hosts).map(rule).collect();
        json!({
            "metadata": {"name": format!("ingress-{number}")},
            "spec": {"ingressClassName": self.class, "rules": rules},
        })
    }

    /// Makes one change and waits until a client sees it. An object changes again only long after its last change.
    async fn change(&self, number: usize) -> anyhow::Result<Duration> {
        let (round, half) = (number / 3, self.size.services() / 2);
        match number % 3 {
            0 => {
                let (object, target) = (round % (self.size.ingresses / 2), format!("https://example.com/{number}"));
                let annotations = json!({"nginx.ingress.kubernetes.io/permanent-redirect": target});
                patch(&self.ingresses, &format!("ingress-{object}"), json!({"metadata": {"annotations": annotations}}))
                    .await?;
                self.proxies.shows(&host(object), |response| response.header("location") == Some(&target)).await
            }
            1 => {
                let (object, closed) = (round % half, (round / half).is_multiple_of(2));
                let port = if closed { 81 } else { 80 };
                let ports = json!([{"name": "http", "port": port, "targetPort": 3000}]);
                patch(&self.services, &format!("service-{object}"), json!({"spec": {"ports": ports}})).await?;
                let status = if closed { 503 } else { 200 };
                self.proxies.shows(&self.host_of_service(object), |response| response.status == status).await
            }
            _ => {
                let (object, pod) = (half + round % half, (1 + round / half) % 2);
                patch(&self.slices, &format!("slice-{object}"), backend::endpoints(&self.pods[pod])).await?;
                let name = &self.pods[pod].name;
                self.proxies.shows(&self.host_of_service(object), |response| response.json()["pod"] == **name).await
            }
        }
    }
}
