//! Resident memory with many routes and idle connections: of nginx, of `fairway proxy`, and of the `fairway controller` beside it, which
//! gets the objects from an API server without changes (the module `api`).

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::api::Api;
use super::config::{Origin, host_of};
use super::{Bench, LOAD, PROXY, START, memory, pinned, silent};
use crate::serving::{Program, wait_for};
use crate::workspace::Workspace;

/// Each has a host of its own.
const ROUTES: usize = 5000;

/// Each has received a response.
const CONNECTIONS: usize = 1000;

/// How long the memory must stay the same.
const SETTLED: Duration = Duration::from_secs(2);

/// Measures, and returns the table's lines.
pub(super) fn measure(bench: &Bench<'_>, workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let setup = &bench.setup;
    let _origin = bench.origin(Origin::Plain, LOAD)?;
    let mut lines = vec![format!(
        "{:<14}{:<10}{:>12}{:>12}   {ROUTES} routes, {CONNECTIONS} idle connections",
        "memory", "", "MiB", "with them"
    )];
    let line = |name: &str, before: f64, after: f64| format!("{:<14}{name:<10}{before:>12.1}{after:>12.1}", "");

    workspace.console.progress("memory: nginx");
    let mut command = pinned(PROXY, &setup.nginx);
    command.arg("-c").arg(setup.write_nginx_of(ROUTES)?);
    let nginx = Program::start(silent(&mut command))?;
    let [before, after] = with_connections(setup.http, || settled(nginx.id()))?;
    lines.push(line("nginx", before, after));
    drop(nginx);

    workspace.console.progress("memory: fairway");
    let api = Api::start(setup.origin, ROUTES)?;
    let folder = setup.folder.join("split");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let config = folder.join("kubeconfig");
    fs::write(&config, api.kubeconfig())?;
    let socket = folder.join("control.sock");
    let common = |role: &str| {
        let mut command = pinned(PROXY, &bench.binary);
        command.arg(role).args(["--healthz-host=127.0.0.1", "--healthz-port=0", "--allow-backend-address=127.0.0.1"]);
        command.arg("--control-socket").arg(&socket);
        command
    };
    let ports = [format!("--http-port={}", setup.http.port()), format!("--https-port={}", setup.https.port())];
    let started = |mut command: Command| Program::start(silent(&mut command));
    let mut command = common("controller");
    command.arg("--kubeconfig").arg(&config).arg("--update-status=false").args(&ports);
    let controller = started(command)?;
    let mut command = common("proxy");
    command.args(["--workers", "1"]);
    let proxy = started(command)?;
    let of_both = || -> anyhow::Result<[f64; 2]> { Ok([settled(proxy.id())?, settled(controller.id())?]) };
    let [before, after] = with_connections(setup.http, of_both)?;
    lines.push(line("proxy", before[0], after[0]));
    lines.push(line("controller", before[1], after[1]));
    proxy.end()?;
    controller.end()?;
    Ok(lines)
}

/// Measures once the last route is served, and again once there are idle connections.
fn with_connections<T>(to: SocketAddr, measure: impl Fn() -> anyhow::Result<T>) -> anyhow::Result<[T; 2]> {
    wait_for(to, START)?;
    let begin = Instant::now();
    while ask(to, ROUTES - 1).is_err() {
        ensure!(begin.elapsed() < START, "the last route is not served after {} s", START.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
    let before = measure()?;
    let clients = (0..CONNECTIONS).map(|at| ask(to, at * ROUTES / CONNECTIONS)).collect::<anyhow::Result<Vec<_>>>()?;
    let after = measure()?;
    drop(clients);
    Ok([before, after])
}

/// A connection that has received a response.
fn ask(to: SocketAddr, route: usize) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).context("connecting")?;
    stream.set_read_timeout(Some(START))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host_of(route)).as_bytes())?;
    let mut answer = Vec::new();
    let mut room = [0; 4096];
    // The end of the origin's body.
    while !answer.ends_with(b"end\n") {
        let count = stream.read(&mut room)?;
        ensure!(count > 0, "the connection was closed");
        answer.extend_from_slice(&room[..count]);
        let status = answer.get(..12).unwrap_or(b"HTTP/1.1 200");
        ensure!(status == b"HTTP/1.1 200", "an error: {}", String::from_utf8_lossy(&answer));
    }
    Ok(stream)
}

/// Resident memory in MiB, once it no longer changes.
fn settled(id: u32) -> anyhow::Result<f64> {
    let mut last = memory(id)?;
    let mut since = Instant::now();
    let begin = since;
    while since.elapsed() < SETTLED {
        ensure!(begin.elapsed() < START, "memory still changes: {last:.1} MiB now");
        thread::sleep(Duration::from_millis(100));
        let now = memory(id)?;
        if (now - last).abs() > 0.1 {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(last)
}
