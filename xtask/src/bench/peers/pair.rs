//! Processor time per request, over all processes, with controller and proxy as two processes joined by a Unix socket (`mode: pair`) and as
//! one (`mode: single`). The objects come from an API server without changes (the module `api`).

use std::fs;
use std::process::Command;

use anyhow::Context;

use super::api::Api;
use super::config::Origin;
use super::load::Load;
use super::{Bench, Cost, LOAD, PROXY, median, pinned, silent};
use crate::serving::Program;
use crate::workspace::Workspace;

/// Each has a host of its own.
const ROUTES: usize = 100;

/// One of them (`config::host_of`).
const HOST: &str = "Host: host-0.bench.example";

/// Measures, and returns the table's lines.
pub(super) fn measure(bench: &Bench<'_>, workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let setup = &bench.setup;
    let _origin = bench.origin(Origin::Plain, LOAD)?;
    let api = Api::start(setup.origin, ROUTES)?;
    let folder = setup.folder.join("pair");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (config, socket) = (folder.join("kubeconfig"), folder.join("control.sock"));
    fs::write(&config, api.kubeconfig())?;
    let command = |role: &str| {
        let mut command = pinned(PROXY, &bench.binary);
        command.arg(role).args(["--healthz-host=127.0.0.1", "--healthz-port=0", "--allow-backend-address=127.0.0.1"]);
        if role != "proxy" {
            command.arg("--kubeconfig").arg(&config).arg("--update-status=false");
            command.arg(format!("--http-port={}", setup.http.port()));
            command.arg(format!("--https-port={}", setup.https.port()));
        }
        if role != "run" {
            command.arg("--control-socket").arg(&socket);
        }
        if role != "controller" {
            command.args(["--workers", "1", "--access-log", "off"]);
        }
        command
    };
    let start = |mut command: Command| Program::start(silent(&mut command));
    let sides: [(&str, &[&str]); 2] = [("single", &["run"]), ("pair", &["controller", "proxy"])];
    let mut costs: [Vec<Cost>; 2] = Default::default();
    for round in 0..bench.options.rounds {
        // The order alternates: on a busy machine, the second side may be luckier every time.
        for side in [round % 2, 1 - round % 2] {
            let (name, roles) = sides[side];
            workspace.console.progress(&format!("pair round {}: {name}", round + 1));
            let programs = roles.iter().map(|role| start(command(role))).collect::<anyhow::Result<Vec<_>>>()?;
            let load = |seconds| Load::wrk("/").with(HOST).run(setup, seconds);
            costs[side].push(bench.load(programs, load).with_context(|| name)?);
        }
    }
    let time = |costs: &[Cost]| median(costs.iter().map(|cost| cost.time));
    let base = time(&costs[0]);
    let mut lines =
        vec![format!("{:<14}{:<10}{:>12}{:>8}{:>12}{:>10}", "pair", "", "us/request", "ratio", "requests/s", "MiB")];
    for ((name, _), costs) in sides.iter().zip(&costs) {
        let of = |pick: fn(&Cost) -> f64| median(costs.iter().map(pick));
        lines.push(format!(
            "{:<14}{name:<10}{:>12.2}{:>8.3}{:>12.0}{:>10.1}",
            "",
            time(costs),
            time(costs) / base,
            of(|cost| cost.rate),
            of(|cost| cost.memory)
        ));
    }
    Ok(lines)
}
