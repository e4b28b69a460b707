//! Fairway's processes: their memory and their logs.

use std::collections::BTreeMap;

use anyhow::Context;
use fairway_e2e::procfs::{self, Process};
use fairway_e2e::scene::Scene;

/// Megabytes used by the largest process of each role.
pub(super) type Resident = BTreeMap<String, f64>;

/// The memory of Fairway's processes in the namespace.
pub(super) fn resident(scene: &Scene) -> anyhow::Result<Resident> {
    let mut all = Resident::new();
    for (role, process) in processes(scene)? {
        let size = process.field("VmRSS")?.trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6;
        let most = all.entry(role).or_default();
        *most = most.max(size);
    }
    Ok(all)
}

/// Fairway's processes in the namespace, each with its role.
pub(super) fn processes(scene: &Scene) -> anyhow::Result<Vec<(String, Process)>> {
    let mut all = Vec::new();
    for process in procfs::all()? {
        // It may have ended in the meantime.
        let (Ok(words), Ok(environment)) = (process.words(), process.environment()) else { continue };
        let role = words.get(1).filter(|role| ["controller", "proxy"].contains(&role.as_str()));
        let is_own = environment.get("POD_NAMESPACE").is_some_and(|name| name == scene.namespace());
        if let Some(role) = role.filter(|_| is_own && !words.iter().any(|word| word == "--restart-on-failure")) {
            all.push((role.clone(), process));
        }
    }
    Ok(all)
}

/// When a log first contains this text.
pub(super) fn time_of(log: &str, part: &str) -> anyhow::Result<jiff::Timestamp> {
    let line =
        log.lines().find(|line| line.contains(part)).with_context(|| format!("no {part:?} in the log: {log}"))?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}
