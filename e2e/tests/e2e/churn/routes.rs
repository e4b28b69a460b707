//! HTTPRoutes in many namespaces on one Gateway, twenty changes per second: how soon each is live, how soon the Gateway's status counts a
//! route that is created or deleted meanwhile, and the same after a start.
//!
//! CI uses 200 routes and 100 changes, which shows that everything is correct; `FAIRWAY_CHURN_ROUTES=5000` uses that many routes, a hundred
//! in each namespace, and 1,000 changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Options;
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Release, Scene};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::delay::percentile;
use super::process::{resident, time_of};
use super::proxy::Proxies;
use super::{Churned, WRITERS, backend, churn, patch};
use crate::gateway::{fairway, resource};

const API: &str = "gateway.networking.k8s.io/v1";
const INTERVAL: Duration = Duration::from_millis(50);
/// How often a route is created or deleted.
const COMING: Duration = Duration::from_secs(1);
/// Routes in each namespace.
const EACH: usize = 100;
/// Routes created while no controller runs.
const MEANWHILE: usize = 10;
/// The interval between two checks of a status.
const PAUSE: Duration = Duration::from_millis(5);
/// The same for the status of all routes.
const LONG_PAUSE: Duration = Duration::from_millis(500);

/// The size of the test.
#[derive(Clone, Copy)]
struct Size {
    routes: usize,
    changes: usize,
}

impl Size {
    fn wanted() -> anyhow::Result<Self> {
        let Ok(text) = std::env::var("FAIRWAY_CHURN_ROUTES") else { return Ok(Self { routes: 200, changes: 100 }) };
        let routes = text.parse().ok().filter(|routes| *routes > 1_000);
        let routes = routes.with_context(|| format!("FAIRWAY_CHURN_ROUTES={text}: expected more than 1000"))?;
        Ok(Self { routes, changes: 1_000 })
    }

    fn namespaces(self) -> usize {
        self.routes.div_ceil(EACH)
    }
}

#[test]
fn every_change_of_a_route_is_soon_live_and_counted_and_fails_no_request() -> anyhow::Result<()> {
    let size = Size::wanted()?;
    scene::run_alone("churn-routes", &Options::default(), async |scene| {
        let fairway = fairway(scene, &["controller.replicaCount=1"]).await?;
        scene.echo("answers", 2).await?;
        let ground = Arc::new(Ground::new(scene, &fairway, size).await?);
        let begin = Instant::now();
        ground.create(scene).await?;
        ground.proxies.shows(&host(size.routes - 1), |response| response.status == 200).await?;
        println!(
            "{} routes in {} namespaces created and served in {:.1?}",
            size.routes,
            size.namespaces(),
            begin.elapsed()
        );
        let took = ground.counts(size.routes).await?;
        println!("the Gateway counts them {took:.1?} later");
        ground.all_accepted().await?;
        println!("all of them say that they are accepted {:.1?} after the first was created", begin.elapsed());
        println!("memory, MB: {:.1?}", resident(scene)?);

        let bystander = Load::to(fairway.address().await?).host(&host(0)).connections(4).rate(200);
        let (changing, coming) = (ground.clone(), tokio::spawn(ground.clone().come_and_go()));
        let change = move |number| {
            let ground = changing.clone();
            async move { ground.change(number).await }
        };
        let Churned { delays, .. } = churn(scene, bystander, (size.changes, INTERVAL), change).await?;
        let counted = coming.await??;
        let [half, longest] = [50, 100].map(|percent| percentile(&counted, percent));
        println!("{} routes came or went, and were counted: p50 {half:.1?}, longest {longest:.1?}", counted.len());

        let (started, memory) = ground.restart(scene, &fairway).await?;
        println!("after a start of the controller the Gateway counts {MEANWHILE} new routes: {started:.1?}");
        println!("memory after the start, MB: {memory:.1?}");
        // The goals are 30 ms (p99), 200 ms and 2 s. The clock of a shared machine decides no test, so the limits are far above its noise.
        ensure!(percentile(&delays, 99) < Duration::from_secs(1), "changes are late");
        ensure!(percentile(&counted, 50) < Duration::from_secs(1), "routes are counted late");
        ensure!(started < Duration::from_secs(20), "after a start routes are counted late");
        Ok(())
    })
}

/// The host of a route.
fn host(number: usize) -> String {
    format!("host-{number}.churn.example")
}

/// The place where the changes are made and observed.
struct Ground {
    client: Client,
    size: Size,
    /// The namespace of the Gateway, and the prefix of the routes' namespaces.
    namespace: String,
    /// Each of them must know a change.
    proxies: Proxies,
    /// The pods behind the Services `one` and `two` of each namespace.
    pods: [backend::Pod; 2],
}

const SERVICES: [&str; 2] = ["one", "two"];

impl Ground {
    async fn new(scene: &Scene, fairway: &Release<'_>, size: Size) -> anyhow::Result<Self> {
        let pods = backend::pods(scene, "answers").await?.try_into();
        let pods = pods.map_err(|pods| anyhow::anyhow!("two pods: {pods:?}"))?;
        let (client, namespace) = (scene.client(), scene.namespace().to_owned());
        Ok(Self { client, size, namespace, proxies: Proxies::of(fairway).await?, pods })
    }

    /// The namespace of a route.
    fn namespace_of(&self, number: usize) -> String {
        format!("{}-{}", self.namespace, number / EACH % self.size.namespaces())
    }

    fn routes(&self, number: usize) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace_of(number), &resource("HTTPRoute").0)
    }

    async fn create(&self, scene: &Scene) -> anyhow::Result<()> {
        let listener = json!({
            "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}},
        });
        let gateway = json!({
            "apiVersion": API, "kind": "Gateway", "metadata": {"name": "edge"},
            "spec": {"gatewayClassName": self.namespace, "listeners": [listener]},
        });
        scene.apply(&gateway.to_string()).await?;
        let namespaces = stream::iter(0..self.size.namespaces()).map(|number| self.create_namespace(number * EACH));
        namespaces.buffer_unordered(WRITERS).try_collect::<()>().await?;
        let routes = stream::iter(0..self.size.routes).map(|number| self.create_route(number));
        routes.buffer_unordered(WRITERS).try_collect::<()>().await
    }

    /// Creates the namespace of a route.
    async fn create_namespace(&self, route: usize) -> anyhow::Result<()> {
        let (post, name) = (&PostParams::default(), self.namespace_of(route));
        let namespace = json!({"metadata": {"name": name}});
        Api::<Namespace>::all(self.client.clone()).create(post, &serde_json::from_value(namespace)?).await?;
        let services: Api<Service> = Api::namespaced(self.client.clone(), &name);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &name);
        for (service, pod) in SERVICES.iter().zip(&self.pods) {
            services.create(post, &serde_json::from_value(backend::service(service))?).await?;
            slices.create(post, &serde_json::from_value(backend::slice(service, service, pod))?).await?;
        }
        Ok(())
    }

    async fn create_route(&self, number: usize) -> anyhow::Result<()> {
        let route = json!({
            "apiVersion": API, "kind": "HTTPRoute", "metadata": {"name": format!("route-{number}")},
            "spec": {
                "parentRefs": [{"name": "edge", "namespace": self.namespace}],
                "hostnames": [host(number)],
                "rules": [rule("0", SERVICES[0])],
            },
        });
        let created = self.routes(number).create(&PostParams::default(), &serde_json::from_value(route)?).await;
        created.with_context(|| format!("creating route {number}"))?;
        Ok(())
    }

    /// Makes one change and waits until a client sees it. Each changes another route, but never the first, which a bystander requests.
    async fn change(&self, number: usize) -> anyhow::Result<Duration> {
        let object = 1 + number * (self.size.routes / self.size.changes) % (self.size.routes - 1);
        let (routes, name, value) = (self.routes(object), format!("route-{object}"), (number + 1).to_string());
        match number % 3 {
            0 => {
                patch(&routes, &name, json!({"spec": {"rules": [rule(&value, SERVICES[0])]}})).await?;
                let right = |of: &str| of == value;
                self.proxies.shows(&host(object), |response| response.header("x-change").is_some_and(right)).await
            }
            1 => {
                patch(&routes, &name, json!({"spec": {"rules": [rule("0", SERVICES[1])]}})).await?;
                let pod = &self.pods[1].name;
                self.proxies.shows(&host(object), |response| response.json()["pod"] == **pod).await
            }
            _ => {
                let moved = format!("moved-{number}.churn.example");
                patch(&routes, &name, json!({"spec": {"hostnames": [moved]}})).await?;
                self.proxies.shows(&moved, |response| response.status == 200).await
            }
        }
    }

    /// Creates a route and deletes it again while changes are made; returns how long each took to be counted after the API server's
    /// response.
    async fn come_and_go(self: Arc<Self>) -> anyhow::Result<Vec<Duration>> {
        let (count, extra) =
            (INTERVAL.as_millis() as usize * self.size.changes / COMING.as_millis() as usize, self.size.routes);
        let mut ticks = interval(COMING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut delays = Vec::new();
        for number in 0..count {
            ticks.tick().await;
            let comes = number % 2 == 0;
            if comes {
                self.create_route(extra).await?;
            } else {
                self.routes(extra).delete(&format!("route-{extra}"), &DeleteParams::default()).await?;
            }
            delays.push(self.counts(extra + usize::from(comes)).await?);
        }
        if count % 2 == 1 {
            self.routes(extra).delete(&format!("route-{extra}"), &DeleteParams::default()).await?;
        }
        Ok(delays)
    }

    /// Waits until the Gateway's status counts this many routes; returns how long that took.
    async fn counts(&self, routes: usize) -> anyhow::Result<Duration> {
        let gateways: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource("Gateway").0);
        let begin = Instant::now();
        loop {
            let listener = gateways.get("edge").await?.data["status"]["listeners"][0].clone();
            let elapsed = begin.elapsed();
            if listener["attachedRoutes"] == routes {
                return Ok(elapsed);
            }
            ensure!(elapsed < scene::PATIENCE, "expected {routes} routes: {listener}");
            sleep(PAUSE).await;
        }
    }

    /// Waits until the status of each route says that it is accepted.
    async fn all_accepted(&self) -> anyhow::Result<()> {
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("HTTPRoute").0);
        let holds = |one: &Value| one["type"] == "Accepted" && one["status"] == "True";
        let is_accepted = |route: &&DynamicObject| {
            let conditions = route.data["status"]["parents"][0]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(holds))
        };
        let begin = Instant::now();
        loop {
            let routes = all.list(&ListParams::default()).await?.items;
            let accepted = routes.iter().filter(is_accepted).count();
            if accepted == self.size.routes {
                return Ok(());
            }
            ensure!(begin.elapsed() < scene::PATIENCE, "{accepted} of {} routes are accepted", routes.len());
            sleep(LONG_PAUSE).await;
        }
    }

    /// Stops Fairway, creates more routes, and starts it again. Returns how long after that start they are counted, and the memory then.
    async fn restart(&self, scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<(Duration, super::Resident)> {
        let deployment = format!("deployment/{}", fairway.controller());
        scene.kubectl(&["scale", &deployment, "--replicas=0"]).await?;
        scene.until("no pod of Fairway", async || Ok(fairway.pods().await?.is_empty())).await?;
        let more = self.size.routes..self.size.routes + MEANWHILE;
        for number in more.clone() {
            self.create_route(number).await?;
        }
        scene.kubectl(&["scale", &deployment, "--replicas=1"]).await?;
        self.counts(more.end).await?;
        let counted = jiff::Timestamp::now();
        fairway.ready(1).await?;
        let log = scene.kubectl(&["logs", &deployment, "--container", "controller"]).await?;
        let took = counted.duration_since(time_of(&log, "starting")?);
        Ok((took.try_into()?, resident(scene)?))
    }
}

/// A rule that sets a field of the response.
fn rule(value: &str, service: &str) -> Value {
    let field = json!({"set": [{"name": "x-change", "value": value}]});
    json!({
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": field}],
        "backendRefs": [{"name": service, "port": 80}],
    })
}
