//! Fairway beside the controllers that most users run with it: cert-manager, which orders certificates, and external-dns, which writes DNS
//! records. Both are the original programs, built from their Go modules; only the authority (pebble) and the DNS provider (external-dns'
//! own, in memory) replace internet services. They take minutes to build, so only `cargo xtask e2e ecosystem` runs these tests.

mod authority;
mod certificate;
mod name;

use std::fs::File;

use anyhow::Context;
use fairway_e2e::cluster::layout;
use fairway_e2e::scene::Scene;

use crate::ground::Background;

/// Starts one of the built programs in the cluster's network. Both output streams go to a file beside the logs of the cluster's components.
fn start(scene: &Scene, program: &str, variables: &[(&str, &str)], arguments: &[String]) -> anyhow::Result<Background> {
    let path = layout::tools().join(program);
    let mut command = scene.cluster().command(path.to_str().context("a path of text")?);
    let log = scene.cluster().layout().log(program);
    let log = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    command.args(arguments).envs(variables.iter().copied()).stderr(log.try_clone()?).stdout(log);
    Ok(Background::start(&mut command))
}

/// The program option that selects the API server.
fn kubeconfig(scene: &Scene) -> String {
    format!("--kubeconfig={}", scene.cluster().layout().kubeconfig().display())
}
