//! `cargo xtask bench --peers`: the processor time per request, compared with other proxies that do the same work.
//!
//! Each proxy has one worker, on core 0; load and backend run on core 1. The proxies take turns, and the medians of the rounds are
//! compared: on a machine that isn't idle, ratios say more than times. Four more tables don't compare proxies in this way: the modules
//! `latency`, `memory`, `pair` and `workers`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::outcome::Outcome;
use crate::serving::{Program, wait_for};
use crate::workspace::Workspace;
use crate::{image, tools};

mod api;
mod config;
mod latency;
mod load;
mod memory;
mod pair;
mod scenario;
mod workers;

use config::{Origin, Setup};
use scenario::{Proxy, SCENARIOS, Scenario, Side};

/// What to compare, and for how long.
#[derive(Debug)]
pub(crate) struct PeerOptions {
    scenarios: Vec<&'static Scenario>,
    tables: Vec<&'static Table>,
    rounds: usize,
    seconds: u64,
    binary: Option<PathBuf>,
    nginx: PathBuf,
    envoy: Option<PathBuf>,
}

/// A table that isn't a scenario.
#[derive(Debug)]
struct Table {
    name: &'static str,
    /// Measures, and returns the table's lines.
    measure: fn(&Bench<'_>, &Workspace) -> anyhow::Result<Vec<String>>,
}

const TABLES: &[Table] = &[
    Table { name: "workers", measure: workers::measure },
    Table { name: "pair", measure: pair::measure },
    Table { name: "memory", measure: memory::measure },
    Table { name: "latency", measure: latency::measure },
];

/// The core of the proxies.
const PROXY: &str = "0";

/// The core of load and backend.
const LOAD: &str = "1";

/// Time for a program to start listening.
const START: Duration = Duration::from_secs(30);

/// The first part of a run, in seconds, which isn't counted: it opens connections and fills caches.
const WARM_UP: u64 = 1;

/// The cost of one side in one round.
struct Cost {
    /// Microseconds of processor time for each request.
    time: f64,
    /// Requests per second.
    rate: f64,
    /// Resident memory afterwards, in MiB.
    memory: f64,
}

impl PeerOptions {
    /// Reads the words after `--peers`: names of scenarios and options.
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self {
            scenarios: Vec::new(),
            tables: Vec::new(),
            rounds: 3,
            seconds: 4,
            binary: None,
            nginx: "/usr/sbin/nginx".into(),
            envoy: None,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match *word {
                "--rounds" => options.rounds = value()?.parse().context("--rounds takes a number")?,
                "--seconds" => options.seconds = value()?.parse().context("--seconds takes a number")?,
                "--binary" => options.binary = Some(value()?.into()),
                "--nginx" => options.nginx = value()?.into(),
                "--envoy" => options.envoy = Some(value()?.into()),
                name => {
                    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
                    let table = TABLES.iter().find(|table| table.name == name);
                    if scenario.is_none() && table.is_none() {
                        let names = SCENARIOS.iter().map(|scenario| scenario.name);
                        let names: Vec<_> = names.chain(TABLES.iter().map(|table| table.name)).collect();
                        bail!("there is no scenario {name}; those that exist: {}", names.join(", "));
                    }
                    options.scenarios.extend(scenario);
                    options.tables.extend(table);
                }
            }
        }
        ensure!(options.rounds > 0 && options.seconds > 0, "there must be a round, and a second");
        if options.scenarios.is_empty() && options.tables.is_empty() {
            options.scenarios = SCENARIOS.iter().collect();
            options.tables = TABLES.iter().collect();
        }
        Ok(options)
    }
}

/// Runs the scenarios and prints a table for each. It never fails because of a figure: whether that is good enough depends on the machine.
pub(crate) fn run(workspace: &Workspace, options: &PeerOptions) -> anyhow::Result<Outcome> {
    ensure!(thread::available_parallelism()?.get() >= 2, "this needs two cores: one for the proxy, one for the load");
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            let binary = workspace.root.join(image::ROOT).join("fairway");
            if !binary.exists() {
                let built = image::build(workspace)?;
                if built.failure.is_some() {
                    return Ok(built);
                }
            }
            binary
        }
    };
    if options.scenarios.iter().any(|scenario| scenario.origin == Origin::Grpc) {
        let built = tools::build_grpc(workspace)?;
        if built.failure.is_some() {
            return Ok(built);
        }
    }
    let bench = Bench { setup: setup(workspace, options)?, binary, options };
    for scenario in &options.scenarios {
        for line in bench.compare(workspace, scenario).with_context(|| format!("scenario {}", scenario.name))? {
            workspace.console.line(&line);
        }
    }
    for table in &options.tables {
        for line in (table.measure)(&bench, workspace).with_context(|| table.name)? {
            workspace.console.line(&line);
        }
    }
    Ok(Outcome::passed(format!("{} tables", options.scenarios.len() + options.tables.len())))
}

/// Puts every load on a binary, alone and with its controller beside it.
pub(crate) fn exercise(workspace: &Workspace, binary: PathBuf) -> anyhow::Result<()> {
    let built = tools::build_grpc(workspace)?;
    if let Some(failure) = built.failure {
        bail!(failure);
    }
    let options = PeerOptions { rounds: 1, seconds: 2, ..PeerOptions::parse(&[])? };
    let bench = Bench { setup: setup(workspace, &options)?, binary, options: &options };
    for scenario in SCENARIOS {
        let _origin = bench.origin(scenario.origin, LOAD)?;
        for side in scenario.sides.iter().filter(|side| matches!(side.proxy, Proxy::Fairway { .. })) {
            workspace.console.progress(&format!("{}: {}", scenario.name, side.name));
            bench.cost(scenario, side).with_context(|| format!("scenario {}", scenario.name))?;
        }
    }
    pair::measure(&bench, workspace)?;
    memory::measure(&bench, workspace).map(drop)
}

/// Chooses addresses, and writes the files of all programs.
fn setup(workspace: &Workspace, options: &PeerOptions) -> anyhow::Result<Setup> {
    let folder = workspace.target_folder()?.join("peers");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Setup::new(&folder, &options.nginx, &workspace.root.join("target/tools/bin/grpc-server"))
}

struct Bench<'a> {
    setup: Setup,
    binary: PathBuf,
    options: &'a PeerOptions,
}

impl Bench<'_> {
    /// Runs all rounds of a scenario. Returns the table's lines.
    fn compare(&self, workspace: &Workspace, scenario: &Scenario) -> anyhow::Result<Vec<String>> {
        let _origin = self.origin(scenario.origin, LOAD)?;
        let sides: Vec<_> = scenario
            .sides
            .iter()
            .filter(|side| self.options.envoy.is_some() || !matches!(side.proxy, Proxy::Envoy))
            .collect();
        let mut costs: BTreeMap<&str, Vec<Cost>> = BTreeMap::new();
        for round in 1..=self.options.rounds {
            for side in &sides {
                workspace.console.progress(&format!("{} round {round}: {}", scenario.name, side.name));
                let cost = self.cost(scenario, side).with_context(|| format!("with {}", side.name))?;
                costs.entry(side.name).or_default().push(cost);
            }
        }
        let median = |name: &str, pick: fn(&Cost) -> f64| median(costs[name].iter().map(pick));
        let base = median(sides[0].name, |cost| cost.time);
        let mut lines = vec![format!(
            "{:<14}{:<10}{:>12}{:>8}{:>12}{:>10}",
            scenario.name, "", "us/request", "ratio", "requests/s", "MiB"
        )];
        for side in &sides {
            let (time, rate) = (median(side.name, |cost| cost.time), median(side.name, |cost| cost.rate));
            let memory = median(side.name, |cost| cost.memory);
            let ratio = time / base;
            lines.push(format!("{:<14}{:<10}{time:>12.2}{ratio:>8.2}{rate:>12.0}{memory:>10.1}", "", side.name));
        }
        Ok(lines)
    }

    /// Starts a proxy, loads it, and measures its cost.
    fn cost(&self, scenario: &Scenario, side: &Side) -> anyhow::Result<Cost> {
        let setup = &self.setup;
        let mut command = match side.proxy {
            Proxy::Fairway { objects, settings } => {
                let manifests = setup.write_manifests(&objects(), settings)?;
                let mut command = self.fairway(PROXY, 1, &manifests, scenario.origin);
                if scenario.log {
                    command
                        .args(["--access-log", config::LOG_FORMAT])
                        .stdout(File::create(setup.folder.join("fairway.log"))?);
                } else {
                    command.args(["--access-log", "off"]).stdout(Stdio::null());
                }
                command
            }
            Proxy::Nginx { http, location } => {
                let file = setup.write_nginx(scenario, &http(setup), &location())?;
                let mut command = pinned(PROXY, &setup.nginx);
                command.arg("-c").arg(file).stdout(Stdio::null());
                command
            }
            Proxy::Envoy => {
                let envoy = self.options.envoy.as_ref().context("no --envoy")?;
                let mut command = pinned(PROXY, envoy);
                command.arg("-c").arg(setup.write_envoy(scenario)?).stdout(Stdio::null());
                command.args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"]);
                command
            }
        };
        let program = Program::start(command.stdin(Stdio::null()).stderr(Stdio::null()))?;
        self.load(vec![program], |seconds| scenario.load.run(setup, seconds))
    }

    /// Loads a proxy that has been started, and adds up the cost of all its programs.
    fn load(&self, mut programs: Vec<Program>, run: impl Fn(u64) -> anyhow::Result<u64>) -> anyhow::Result<Cost> {
        let ids: Vec<u32> = programs.iter().map(Program::id).collect();
        let time = || ids.iter().map(|id| processor_time(*id)).sum::<anyhow::Result<Duration>>();
        wait_for(self.setup.http, START)?;
        wait_for(self.setup.https, START)?;
        run(WARM_UP)?;
        let (before, begin) = (time()?, Instant::now());
        let requests = run(self.options.seconds)?;
        let (took, elapsed) = (time()? - before, begin.elapsed());
        for program in &mut programs {
            ensure!(program.is_running()?, "it ended");
        }
        ensure!(requests > 0, "it answered no request");
        let memory = ids.iter().map(|id| memory(*id)).sum::<anyhow::Result<f64>>()?;
        // A controller waits for its proxies.
        programs.into_iter().rev().try_for_each(Program::end)?;
        Ok(Cost {
            time: took.as_secs_f64() * 1e6 / requests as f64,
            rate: requests as f64 / elapsed.as_secs_f64(),
            memory,
        })
    }

    /// Fairway with manifests.
    fn fairway(&self, cores: &str, workers: usize, manifests: &Path, origin: Origin) -> Command {
        let setup = &self.setup;
        let mut command = pinned(cores, &self.binary);
        command.arg("dev").arg(manifests).args(["--workers", &workers.to_string(), "--configmap", "bench/settings"]);
        command.args(["--http", &setup.http.to_string(), "--https", &setup.https.to_string()]);
        for (service, address) in setup.backends(origin) {
            command.args(["--backend", &format!("{service}={address}")]);
        }
        command
    }

    /// Starts what the proxies forward to, and the authentication service.
    fn origin(&self, origin: Origin, cores: &str) -> anyhow::Result<Vec<Program>> {
        let setup = &self.setup;
        let mut command = pinned(cores, &setup.nginx);
        command.arg("-c").arg(setup.write_origin()?);
        let mut programs = vec![Program::start_at(silent(&mut command), setup.origin, START)?];
        if origin == Origin::Grpc {
            let mut command = pinned(cores, &setup.grpc_server);
            command.arg(format!("--port={}", setup.grpc.port())).env("GOMAXPROCS", "1");
            programs.push(Program::start_at(silent(&mut command), setup.grpc, START)?);
        }
        Ok(programs)
    }
}

/// The median.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A command that runs on some cores only.
fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(program);
    command
}

/// The command, without input and output.
fn silent(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Processor time of a process, all threads included. The scheduler counts nanoseconds; the times in `stat` have ticks of 10 ms.
fn processor_time(id: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().unwrap_or_default().parse::<u64>().context("schedstat")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Resident memory in MiB.
fn memory(id: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let number = line.split_whitespace().next().context("VmRSS")?;
    Ok(number.parse::<f64>()? / 1024.0)
}

/// Writes a text to a file.
fn write(path: PathBuf, text: &str) -> anyhow::Result<PathBuf> {
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_scenarios_and_how_long_they_run() {
        let options = PeerOptions::parse(&["h2", "--rounds", "5", "grpc", "--nginx", "/opt/nginx"]).unwrap();
        let names: Vec<_> = options.scenarios.iter().map(|scenario| scenario.name).collect();
        assert_eq!((&names[..], options.rounds, options.nginx), (&["h2", "grpc"][..], 5, "/opt/nginx".into()));
        let all = PeerOptions::parse(&[]).unwrap();
        assert_eq!((all.scenarios.len(), all.tables.len()), (SCENARIOS.len(), TABLES.len()));
        let one = PeerOptions::parse(&["memory"]).unwrap();
        assert_eq!((one.scenarios.len(), one.tables.len()), (0, 1));
        for (words, complaint) in [
            (&["h3"][..], "there is no scenario h3; those that exist: h1, tls,"),
            (&["--rounds"], "--rounds needs a value"),
            (&["--seconds", "0"], "there must be a round, and a second"),
        ] {
            let error = PeerOptions::parse(words).unwrap_err().to_string();
            assert!(error.starts_with(complaint), "{error}");
        }
    }
}
