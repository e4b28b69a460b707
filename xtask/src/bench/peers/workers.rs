//! The cost of a request with two workers, compared with one: they share nothing that is written for each request, so it should be the
//! same. A proxy with two workers fills both cores of a small machine, where load and backend need their part, so requests per second and
//! core can't show that; the processor time of a request can. All programs may run on both cores, with one worker and with two.

use std::process::Stdio;

use super::config::Origin;
use super::load::{CONNECTIONS, Load};
use super::scenario::app;
use super::{Bench, Cost, median};
use crate::serving::Program;
use crate::workspace::Workspace;

const BOTH: &str = "0,1";

/// Measures, and returns the table's lines.
pub(super) fn measure(bench: &Bench<'_>, workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let setup = &bench.setup;
    let _origin = bench.origin(Origin::Plain, BOTH)?;
    let manifests = setup.write_manifests(&app(""), "")?;
    let mut costs: [Vec<Cost>; 2] = Default::default();
    for round in 1..=bench.options.rounds {
        for (workers, costs) in (1..).zip(&mut costs) {
            workspace.console.progress(&format!("workers round {round}: {workers}"));
            let mut command = bench.fairway(BOTH, workers, &manifests, Origin::Plain);
            command.args(["--access-log", "off"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let load = |seconds| Load::wrk("/").run_on(BOTH, CONNECTIONS * workers, setup, seconds);
            costs.push(bench.load(vec![Program::start(&mut command)?], load)?);
        }
    }
    let [one, two] = &costs;
    let base = median(one.iter().map(|cost| cost.time));
    let mut lines = vec![format!(
        "{:<14}{:<10}{:>12}{:>8}{:>12}{:>10}",
        "workers", "", "us/request", "a core", "requests/s", "MiB"
    )];
    for (name, costs) in [("one", one), ("two", two)] {
        let of = |pick: fn(&Cost) -> f64| median(costs.iter().map(pick));
        let time = of(|cost| cost.time);
        lines.push(format!(
            "{:<14}{name:<10}{time:>12.2}{:>8.2}{:>12.0}{:>10.1}",
            "",
            base / time,
            of(|cost| cost.rate),
            of(|cost| cost.memory)
        ));
    }
    Ok(lines)
}
