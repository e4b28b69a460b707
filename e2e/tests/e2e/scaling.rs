//! Users who scale Fairway, by hand or with an autoscaler, continue to do so through upgrades. Helm upgrades by
//! server-side apply: a number of replicas in the chart would conflict with theirs.

use anyhow::ensure;
use fairway_e2e::scene::{self, Release, Scene};
use k8s_openapi::api::apps::v1::Deployment;

/// An additional change in an upgrade.
const CHANGE: &str = "controller.resources.requests.memory=91Mi";

#[test]
fn an_upgrade_keeps_the_replicas_that_were_set_by_hand() -> anyhow::Result<()> {
    scene::run("scaling-by-hand", async |scene| {
        let own = "controller.replicaCount=null";
        let fairway = scene.fairway(&[own]).await?;
        ensure!(replicas(scene, &fairway).await? == Some(1), "one is the default of the API");
        scale(scene, &fairway, 2).await?;
        fairway.upgrade(&[own, CHANGE]).await?;
        ensure!(replicas(scene, &fairway).await? == Some(2), "the upgrade has scaled");
        fairway.ready(2).await
    })
}

#[test]
fn a_release_with_a_number_of_replicas_can_leave_it_to_others() -> anyhow::Result<()> {
    scene::run("scaling-handed-over", async |scene| {
        let fairway = scene.fairway(&["controller.replicaCount=1"]).await?;
        scale(scene, &fairway, 2).await?;
        let error = fairway.upgrade(&["controller.replicaCount=1", CHANGE]).await.expect_err("another one's number");
        ensure!(format!("{error:#}").contains(".spec.replicas"), "{error:#}");
        fairway.upgrade(&["controller.replicaCount=null", CHANGE]).await?;
        ensure!(replicas(scene, &fairway).await? == Some(2), "the upgrade has scaled");
        Ok(())
    })
}

#[test]
fn an_upgrade_keeps_the_replicas_of_an_autoscaler() -> anyhow::Result<()> {
    scene::run("scaling-auto", async |scene| {
        let values = ["controller.autoscaling.enabled=true", "controller.autoscaling.minReplicas=1"];
        let fairway = scene.fairway(&values).await?;
        // As the autoscaler does: by the subresource of the Deployment.
        scale(scene, &fairway, 2).await?;
        fairway.upgrade(&[values[0], values[1], CHANGE]).await?;
        ensure!(replicas(scene, &fairway).await? == Some(2), "the upgrade has scaled");
        fairway.ready(2).await
    })
}

async fn scale(scene: &Scene, fairway: &Release<'_>, count: usize) -> anyhow::Result<()> {
    let deployment = format!("deployment/{}", fairway.controller());
    scene.kubectl(&["scale", &deployment, &format!("--replicas={count}")]).await?;
    fairway.ready(count).await
}

async fn replicas(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<Option<i32>> {
    let deployment = scene.api::<Deployment>().get(&fairway.controller()).await?;
    Ok(deployment.spec.and_then(|spec| spec.replicas))
}
