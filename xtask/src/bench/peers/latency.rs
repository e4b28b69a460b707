//! Request latency while a proxy is busy but not saturated: at 70 % of the highest rate that nginx reaches on the same core. The load is
//! open: a slow request doesn't delay those that follow (`xtask/peers/load.go`).

use std::process::{Command, Stdio};

use anyhow::Context;

use super::config::Origin;
use super::load::{Load, number_before};
use super::scenario::app;
use super::{Bench, LOAD, PROXY, START, WARM_UP, median, pinned, silent};
use crate::serving::{Program, wait_for};
use crate::shell;
use crate::workspace::Workspace;

/// The fraction of nginx's highest rate.
const PART: f64 = 0.7;

/// Measures, and returns the table's lines.
pub(super) fn measure(bench: &Bench<'_>, workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let (setup, seconds) = (&bench.setup, bench.options.seconds);
    let _origin = bench.origin(Origin::Plain, LOAD)?;
    let program = setup.folder.join("load");
    let mut build = workspace.command("go");
    build.args(["build", "-o"]).arg(&program).arg(workspace.root.join("xtask/peers/load.go"));
    shell::read(&mut build)?;

    let plain = &super::SCENARIOS[0];
    let nginx = || -> anyhow::Result<Command> {
        let mut command = pinned(PROXY, &setup.nginx);
        command.arg("-c").arg(setup.write_nginx(plain, "", "")?);
        Ok(command)
    };
    let haproxy = || -> anyhow::Result<Command> {
        let mut command = pinned(PROXY, "/usr/sbin/haproxy".as_ref());
        command.arg("-db").arg("-f").arg(setup.write_haproxy()?);
        Ok(command)
    };
    let fairway = || -> anyhow::Result<Command> {
        let mut command = bench.fairway(PROXY, 1, &setup.write_manifests(&app(""), "")?, Origin::Plain);
        command.args(["--access-log", "off"]);
        Ok(command)
    };
    let start = |command: &mut Command| -> anyhow::Result<Program> {
        let program = Program::start(silent(command).stdin(Stdio::null()))?;
        wait_for(setup.http, START)?;
        wait_for(setup.https, START)?;
        Ok(program)
    };

    let peak = {
        let _nginx = start(&mut nginx()?)?;
        Load::wrk("/").run(setup, WARM_UP)?;
        Load::wrk("/").run(setup, seconds)? as f64 / seconds as f64
    };
    let rate = (peak * PART).round();
    let mut times: [Vec<(f64, f64)>; 3] = Default::default();
    type Make<'a> = &'a dyn Fn() -> anyhow::Result<Command>;
    let sides: [(&str, Make<'_>); 3] = [("nginx", &nginx), ("haproxy", &haproxy), ("fairway", &fairway)];
    for round in 1..=bench.options.rounds {
        for ((name, make), times) in sides.iter().zip(&mut times) {
            workspace.console.progress(&format!("latency round {round}: {name}"));
            let _proxy = start(&mut make()?).with_context(|| format!("with {name}"))?;
            let mut command = pinned(LOAD, &program);
            command.args([&setup.http.to_string(), "localhost", &rate.to_string(), &seconds.to_string()]);
            let printed = String::from_utf8(shell::read(&mut command)?)?;
            let number = |text: &str| number_before(&printed, text).map(|number| number as f64);
            times.push((number(" us half")?, number(" us 99 %")?));
        }
    }
    let mut lines =
        vec![format!("{:<14}{:<10}{:>12}{:>12}   at {rate:.0} requests/s", "latency", "", "us half", "us 99 %")];
    for ((name, _), times) in sides.iter().zip(&times) {
        let (half, most) = (median(times.iter().map(|time| time.0)), median(times.iter().map(|time| time.1)));
        lines.push(format!("{:<14}{name:<10}{half:>12.0}{most:>12.0}", ""));
    }
    Ok(lines)
}
