//! Tasks of the repository that need more than one cargo command. `cargo xtask --help` lists them.

use std::io::IsTerminal;
use std::process::ExitCode;

mod alerts;
mod bench;
mod cargo;
mod chart;
mod ci;
mod cluster;
mod conformance;
mod console;
mod e2e;
mod ecosystem;
mod framing;
mod fuzz;
mod generated;
mod go;
mod graph;
mod grpc;
mod h2spec;
mod image;
mod licence;
mod lock;
mod matrix;
mod needs;
mod oauth;
mod outcome;
mod profile;
mod rules;
mod serving;
mod shell;
mod tls_files;
mod tools;
mod totals;
mod words;
mod workspace;

use console::Console;
use outcome::Outcome;
use workspace::Workspace;

const HELP: &str = "\
Tasks of the repository.

Usage: cargo xtask <TASK> [OPTIONS]

Tasks:
  ci                  Everything that CI does, in order; stops at the first step that fails
  needs               Tools that the other tasks use; installs missing Debian packages when root
  words               No file holds a machine path or the host name of a registry
  rules               Direction of dependencies between crates and between modules, banned crates, licences
  fmt                 Formatting
  clippy              Lints of all targets, warnings are errors
  quick-start         The build of the README's first command, without a Kubernetes client: lints, and tests of what it can do
  doc                 Documentation builds without a warning
  test                All tests, documentation examples included
  image [--build]     Builds target/image/rootfs, what the container image is made of, and runs it (or only builds it)
  chart               Renders the Helm chart with every value, and with values files of users
  h2spec              The conformance suite of HTTP/2, in the clear and over TLS
  grpc                The interoperability cases of gRPC, in the clear and over TLS
  oauth               Signing in through a real oauth2-proxy
  framing [--requests N]
                      N generated requests (500 by default) to four parsers: all see the same ones
  matrix [--python FILE]
                      Twelve clients through Fairway to eight servers: downloads, uploads, cut responses, GOAWAY. FILE is a Python with httpx
  cluster [--help]    A real control plane and two Nodes in network namespaces: up, status, exec, down
  e2e [NAME...] [--keep] [--development]
                      End-to-end tests on such a cluster, all or those with NAME in theirs; --keep leaves it running
  e2e ecosystem       Those with cert-manager, external-dns and pebble, which take minutes to build and belong to no other selection
  conformance ingress --suite FOLDER [--times N] [--keep]
                      The official Ingress conformance suite from a checkout, N times in a row (once by default); takes 15 minutes
  conformance gateway [TEST...] [--experimental] [--times N] [--keep] [--save]
                      The official suite of the Gateway API, all tests of the declared features or some by name; --experimental
                      installs the CRDs of that channel, --save keeps the report in docs/conformance
  conformance both --suite FOLDER [--times N] [--keep]
                      Both suites at the same time on one installation
  conformance gateway --schema
                      Writes the table of the rules of its CRDs, which `fairway check` applies
  tools               Builds etcd, the Kubernetes programs, kubectl and helm, as far as they are missing
  ahead               Builds what takes longest of what `ci` needs (Go programs, the image, the fuzz targets) and runs `bench`; `ci`
                      begins with it
  bench [--binary FILE]
                      Counts the instructions of what must stay cheap (valgrind), or of requests to a binary of yours
  bench --peers [SCENARIO...] [--rounds N] [--seconds N] [--binary FILE] [--nginx FILE] [--envoy FILE]
                      Processor time of a request beside nginx, and beside Envoy for gRPC; memory, latency beside nginx and HAProxy, and
                      two workers beside one; on two idle cores
  profile             Records what requests execute, for the compiler of the image: writes deploy/image.profdata
  gen [--check]       Rewrites generated files; with --check says which ones differ
  fuzz [TARGET] [--seconds N]
                      Runs every fuzz target, or one, for N seconds each (10 by default)

Examples:
  cargo xtask ci                        before a push
  cargo xtask rules                     after a change of dependencies
  cargo xtask gen                       after a change of what a generated file is made from
  cargo xtask cluster up                then `cargo xtask cluster exec -- kubectl get pods -A`
  cargo xtask e2e conformance           the tests of one file
  cargo xtask fuzz annotation --seconds 600
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task; returns `false` if it found a problem and reported it.
fn run(arguments: &[String]) -> anyhow::Result<bool> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let console = Console::new(std::io::stdout().is_terminal());
    let workspace = Workspace::find(console)?;
    // A command to a running cluster, or for help, builds nothing.
    let builds = !matches!(words.as_slice(), ["cluster", first, ..] if *first != "up") && !words.contains(&"--help");
    if let Some(task) = words.first().filter(|_| builds) {
        let two = *task == "conformance" || words.get(1) == Some(&"--peers");
        let task = if two { &*words[..words.len().min(2)].join(" ") } else { task };
        let lack = needs::check_for(&workspace, task)?;
        if lack.failure.is_some() {
            return Ok(workspace.console.finish(Ok(lack)));
        }
    }
    let step = |run: fn(&Workspace) -> anyhow::Result<Outcome>| workspace.console.finish(run(&workspace));
    Ok(match words.as_slice() {
        ["ci"] => ci::run(&workspace),
        ["needs"] => step(needs::check),
        ["words"] => step(words::check),
        ["rules"] => step(rules::check),
        ["fmt"] => step(cargo::fmt),
        ["clippy"] => step(cargo::clippy),
        ["quick-start"] => step(cargo::quick_start),
        ["doc"] => step(cargo::doc),
        ["test"] => step(cargo::test),
        ["image"] => step(image::run),
        ["image", "--build"] => step(image::build),
        ["chart"] => step(chart::check::run),
        ["alerts"] => step(alerts::run),
        ["framing"] => step(framing::smoke),
        ["framing", "--requests", count] => workspace.console.finish(framing::run(&workspace, count.parse()?)),
        ["grpc"] => step(grpc::run),
        ["oauth"] => step(oauth::run),
        ["matrix"] => workspace.console.finish(matrix::run(&workspace, "python3")),
        ["matrix", "--python", file] => workspace.console.finish(matrix::run(&workspace, file)),
        ["h2spec"] => step(h2spec::run),
        ["cluster", words @ ..] => cluster::run(&workspace, words)?,
        ["e2e", options @ ..] => {
            let options = e2e::Options::parse(options)?;
            workspace.console.finish(e2e::run(&workspace, &options))
        }
        ["conformance", options @ ..] => {
            let options = conformance::ConformanceOptions::parse(options)?;
            workspace.console.finish(conformance::run(&workspace, &options))
        }
        ["tools"] => step(tools::build),
        ["ahead"] => step(ci::ahead),
        ["bench"] => step(bench::run),
        ["bench", "--peers", words @ ..] => {
            let options = bench::peers::PeerOptions::parse(words)?;
            workspace.console.finish(bench::peers::run(&workspace, &options))
        }
        ["bench", "--binary", file] => workspace.console.finish(bench::requests(&workspace, file.as_ref())),
        ["profile"] => step(profile::record),
        ["gen"] => step(generated::rewrite),
        ["gen", "--check"] => step(generated::check),
        ["fuzz", options @ ..] => {
            let options = fuzz::FuzzOptions::parse(options)?;
            workspace.console.finish(fuzz::run(&workspace, &options))
        }
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            true
        }
        _ => anyhow::bail!("unknown task or option: {}\n\n{HELP}", words.join(" ")),
    })
}
