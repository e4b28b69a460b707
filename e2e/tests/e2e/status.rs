//! The addresses in the status of Ingresses: which replica writes them, when, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fairway_e2e::scene::{self, Request, Scene};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::sleep;

/// The Lease's duration in these tests. A leader that can't renew it for half of that time stops leading: on a busy machine this
/// must not happen by chance.
const TERM: Duration = Duration::from_secs(15);

/// How late an event may be on such a machine.
const NOISE: Duration = Duration::from_secs(5);

/// The interval of checks; the shortest possible.
const CHECK: Duration = Duration::from_secs(5);

/// From the far end of the pool, which no other test's Service reaches.
const OTHER_ADDRESSES: [&str; 2] = ["198.19.0.248", "198.19.0.249"];

const SETTINGS: &[&str] = &[
    "controller.replicaCount=2",
    "controller.electionTTL=15s",
    "controller.extraArgs.status-update-interval=5",
    "controller.terminationGracePeriodSeconds=60",
];

#[test]
fn status_follows_the_address_with_one_write_for_each_change() -> anyhow::Result<()> {
    scene::run("status", async |scene| {
        let fairway = scene.fairway(SETTINGS).await?;
        let first = fairway.address().await?.ip().to_string();
        scene.echo("web", 1).await?;
        for name in ["a", "b"] {
            fairway.ingress(name, &format!("{name}.example"), "web").await?;
        }
        scene.apply(&other("by-annotation", &format!("kubernetes.io/ingress.class: {}", fairway.class()), "")).await?;
        let ours = ["a", "b", "by-annotation"];
        // Ingresses of other classes, of which one shows our address.
        scene.apply(&other("class", "x: y", "ingressClassName: someone-elses")).await?;
        scene.apply(&other("annotation", "kubernetes.io/ingress.class: someone-elses", "")).await?;
        scene.apply(&other("none", "x: y", "")).await?;
        let theirs = ["class", "annotation", "none"];
        let shown = json!({"status": {"loadBalancer": {"ingress": [{"ip": first}]}}});
        let ingresses = scene.api::<Ingress>();
        ingresses.patch_status("class", &PatchParams::default(), &Patch::Merge(&shown)).await?;

        show(scene, &ours, &[&first]).await.context("set")?;
        Writes::until(scene, &ours, 1).await.context("set")?;

        // One is created later, and one is changed.
        fairway.ingress("late", "late.example", "web").await?;
        fairway.ingress("a", "changed.example", "web").await?;
        let ours = ["a", "b", "by-annotation", "late"];
        show(scene, &ours, &[&first]).await.context("one more")?;
        Writes::until(scene, &ours, 1).await.context("one more")?;

        let address = OTHER_ADDRESSES[0];
        let setting = format!("controller.service.loadBalancerIP={address}");
        fairway.upgrade(&[SETTINGS, &[&setting]].concat()).await?;
        show(scene, &ours, &[address]).await.context("changed")?;
        // Two checks of everything, without anything to do.
        sleep(2 * CHECK + Duration::from_secs(1)).await;
        Writes::until(scene, &ours, 2).await.context("changed, and looked at again")?;

        // A change of our status by someone else is corrected.
        let nonsense = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
        ingresses.patch_status("b", &PatchParams::default(), &Patch::Merge(&nonsense)).await?;
        show(scene, &ours, &[address]).await.context("corrected")?;
        Writes::until(scene, &["b"], 3).await?.are_each(&["a", "by-annotation", "late"], 2)?;

        // One of two replicas ends, and then the last one.
        let deployment = format!("deployment/{}", fairway.controller());
        scene.kubectl(&["scale", &deployment, "--replicas=1"]).await?;
        fairway.ready(1).await?;
        let before = Writes::of(scene)?;
        scene.kubectl(&["scale", &deployment, "--replicas=0"]).await?;
        show(scene, &ours, &[]).await.context("cleared")?;
        fairway.ready(0).await?;
        let after = scene
            .find("a write to each on the way out", async || {
                let after = Writes::of(scene)?;
                Ok(ours.iter().all(|name| after.count(name) > before.count(name)).then_some(after))
            })
            .await?;
        for name in ours {
            let (before, after) = (before.count(name), after.count(name));
            ensure!(after == before + 1, "{name} was written to {} times on the way out", after - before);
        }
        after.are_each(&theirs, 0)?;
        after.have_one_writer_at_a_time(scene)?;
        ensure!(after.refused == 0, "{} writes failed", after.refused);
        ensure!(addresses(scene, "class").await? == [first], "the status of another's Ingress has changed");
        Ok(())
    })
}

#[test]
fn a_killed_leader_is_replaced_within_the_leases_duration() -> anyhow::Result<()> {
    scene::run("status-killed", async |scene| {
        let fairway = scene.fairway(SETTINGS).await?;
        let first = fairway.address().await?.ip().to_string();
        let pods = scene.api::<Pod>();
        let ours = ["a", "b", "c"];
        for name in ours {
            fairway.ingress(name, &format!("{name}.example"), "none").await?;
        }
        show(scene, &ours, &[&first]).await?;

        for round in 1..=2 {
            fairway.ready(2).await?;
            let leader = holder(scene).await?;
            // From now on it does nothing. If it were killed at once, the kubelet would restart it under the same name: that
            // happens together with the end of its pod.
            kill(Pid::from_raw(scene.process_of(&leader, "controller")?.id()), Signal::SIGSTOP)?;
            let dead = Timestamp::now();
            pods.delete(&leader, &DeleteParams::default().grace_period(0)).await?;
            let renewal = next_renewal(scene, &leader).await?;
            let took = Duration::try_from(renewal.answered.duration_since(dead))?;
            let new = renewal.pod;
            println!("round {round}: {new} leads {took:?} after the end of {leader}, the Lease lasts {TERM:?}");
            ensure!(took <= TERM + NOISE, "there was no leader for {took:?}");
            ensure!(holder(scene).await? == new, "{new} took the Lease, and another one has it");
            // The new leader has nothing to write; later writes are its own.
            Writes::until(scene, &ours, 1).await.context("the address is the same after the leader was killed")?;
            let late = format!("late-{round}");
            fairway.ingress(&late, &format!("{late}.example"), "none").await?;
            show(scene, &[&late], &[&first]).await?;
            let writes = Writes::until(scene, &[&late], 1).await?;
            let by = writes.by(&late);
            ensure!(by == [new.as_str()], "{late} was written by {by:?}, the leader is {new}");
        }
        let writes = Writes::of(scene)?;
        writes.are_each(&ours, 1)?;
        writes.have_one_writer_at_a_time(scene)
    })
}

#[test]
fn a_leader_whose_lease_is_stolen_stops_writing_until_the_thief_is_gone() -> anyhow::Result<()> {
    scene::run("status-stolen", async |scene| {
        let fairway = scene.fairway(SETTINGS).await?;
        let first = fairway.address().await?.ip().to_string();
        fairway.ingress("a", "a.example", "none").await?;
        show(scene, &["a"], &[&first]).await?;

        let leader = holder(scene).await?;
        let leases: Api<Lease> = scene.api();
        let now = MicroTime(Timestamp::now());
        let stolen = json!({"spec": {
            "holderIdentity": "thief", "acquireTime": now, "renewTime": now, "leaseDurationSeconds": TERM.as_secs(),
        }});
        // The process waits by itself, so it needs no hook.
        let before = Timestamp::now();
        leases.patch(&lease(scene), &PatchParams::default(), &Patch::Merge(&stolen)).await?;
        let theft = Timestamp::now();
        let seen = scene
            .find("the leader sees that it leads no more", async || {
                let looks = |request: &Request| request.pod == leader && request.received > theft && is_lease(request);
                Ok(scene.audit()?.into_iter().find(looks))
            })
            .await?;
        let took = Duration::try_from(seen.received.duration_since(theft))?;
        println!("the theft was seen after {took:?}");
        ensure!(took <= TERM / 2 + NOISE, "the theft was seen only after {took:?}");

        // There is something to write, but no replica writes before the thief's term ends.
        fairway.ingress("b", "b.example", "none").await?;
        show(scene, &["b"], &[&first]).await?;
        let writes = Writes::until(scene, &["a", "b"], 1).await?;
        let write = writes.all.iter().find(|request| request.name == "b").context("no write of b")?;
        let after = |moment| Duration::try_from(write.received.duration_since(moment));
        println!("written {:?} after the theft, which holds for {TERM:?}", after(theft)?);
        ensure!(
            after(before)? >= TERM - TERM / 8,
            "written {:?} after the theft: another holds the Lease",
            after(before)?
        );
        ensure!(after(theft)? <= TERM + TERM / 8 + NOISE, "written only {:?} after the theft", after(theft)?);
        ensure!(holder(scene).await? == write.pod, "{} wrote, and another leads", write.pod);
        writes.have_one_writer_at_a_time(scene)
    })
}

/// The status writes so far, from the audit log.
struct Writes {
    all: Vec<Request>,
    /// The number of further writes that failed.
    refused: usize,
}

impl Writes {
    fn of(scene: &Scene) -> anyhow::Result<Self> {
        let is_write = |request: &Request| request.verb != "get" && request.resource == "ingresses/status";
        let all: Vec<_> = scene.audit()?.into_iter().filter(is_write).collect();
        let (all, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(|request| request.code == 200);
        Ok(Self { all, refused: refused.len() })
    }

    /// The writes, once each of these Ingresses has been written this often. The log contains a write when its handler has ended,
    /// which may be later than others see the written status.
    async fn until(scene: &Scene, names: &[&str], count: usize) -> anyhow::Result<Self> {
        let what = format!("{count} writes to each of {names:?}");
        let writes = scene
            .find(&what, async || {
                let writes = Self::of(scene)?;
                Ok(names.iter().all(|name| writes.count(name) >= count).then_some(writes))
            })
            .await?;
        writes.are_each(names, count)?;
        Ok(writes)
    }

    fn count(&self, name: &str) -> usize {
        self.all.iter().filter(|request| request.name == name).count()
    }

    fn by(&self, name: &str) -> Vec<&str> {
        self.all.iter().filter(|request| request.name == name).map(|request| request.pod.as_str()).collect()
    }

    /// Each of these Ingresses has been written this often.
    fn are_each(&self, names: &[&str], count: usize) -> anyhow::Result<()> {
        let counts: BTreeMap<_, _> = names.iter().map(|name| (*name, self.count(name))).collect();
        ensure!(counts.values().all(|found| *found == count), "writes: {counts:?}, expected: {count} of each");
        Ok(())
    }

    /// Every writer was the one that had last renewed the Lease.
    fn have_one_writer_at_a_time(&self, scene: &Scene) -> anyhow::Result<()> {
        let renewals: Vec<_> = scene.audit()?.into_iter().filter(is_renewal).collect();
        ensure!(!renewals.is_empty(), "the Lease has no holder");
        for write in &self.all {
            let Some(last) = renewals.iter().rfind(|renewal| renewal.answered <= write.received) else {
                bail!("{} wrote before anybody held the Lease", write.pod);
            };
            ensure!(last.pod == write.pod, "{} wrote to {} while {} led", write.pod, write.name, last.pod);
        }
        Ok(())
    }
}

fn is_lease(request: &Request) -> bool {
    request.resource == "leases"
}

/// Whether the requester holds the Lease from then on.
fn is_renewal(request: &Request) -> bool {
    is_lease(request) && request.verb != "get" && (200..300).contains(&request.code)
}

/// Waits until each of these Ingresses shows exactly these addresses.
async fn show(scene: &Scene, names: &[&str], expected: &[&str]) -> anyhow::Result<()> {
    for name in names {
        let what = format!("{name} shows {expected:?}");
        scene.until(&what, async || Ok(addresses(scene, name).await? == expected)).await?;
    }
    Ok(())
}

async fn addresses(scene: &Scene, name: &str) -> anyhow::Result<Vec<String>> {
    let status = scene.api::<Ingress>().get_status(name).await?.status.unwrap_or_default();
    let entries = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
    Ok(entries.into_iter().filter_map(|entry| entry.ip).collect())
}

fn lease(scene: &Scene) -> String {
    format!("{}-leader", scene.namespace())
}

/// The pod that holds the Lease.
pub(crate) async fn holder(scene: &Scene) -> anyhow::Result<String> {
    let leases: Api<Lease> = scene.api();
    scene
        .find("a leader", async || {
            let spec = leases.get(&lease(scene)).await?.spec.unwrap_or_default();
            Ok(spec.holder_identity.filter(|holder| !holder.is_empty()))
        })
        .await
}

/// The renewal by which the next leader took the Lease.
async fn next_renewal(scene: &Scene, before: &str) -> anyhow::Result<Request> {
    let what = format!("another leader than {before}");
    scene
        .find(&what, async || {
            let requests = scene.audit()?.into_iter().filter(is_renewal);
            let last_before =
                requests.clone().filter(|request| request.pod == before).map(|request| request.answered).max();
            Ok(requests.into_iter().find(|request| request.pod != before && Some(request.answered) > last_before))
        })
        .await
}

/// An Ingress with this annotation and field.
fn other(name: &str, annotation: &str, field: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, annotations: {{{annotation}}}}}
spec:
  {field}
  rules:
    - host: {name}.example
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}
"
    )
}
