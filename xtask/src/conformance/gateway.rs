//! `cargo xtask conformance gateway`: runs the official conformance suite of the Gateway API against Fairway on its own cluster.
//!
//! The suite is one Go test with a subtest for each conformance test. It reads the features to test from the status of the GatewayClass,
//! reaches each Gateway at the address in its status, and deploys echo servers. Its exit status decides, not how we read its output.

mod build;
mod result;
mod schema;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};

use self::result::{Results, begun};
use super::{FOLDER, Ground, failed, in_cluster, inside, number, on_cluster, said_in_cluster};
use crate::console::duration;
use crate::outcome::Outcome;
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{image, shell};

/// The usage text.
pub(super) const USAGE: &str = "usage: cargo xtask conformance gateway [TEST...] [--experimental] [--times N] [--keep] [--save] [--development] | --schema";

const INSTALL: &str = "helm install fairway deploy/helm/fairway --namespace fairway --create-namespace \
                       --set controller.gatewayAPI.enabled=true --set controller.gatewayAPI.address=own --wait --timeout 300s";

/// The GatewayClass that the chart creates.
const CLASS: &str = "fairway";

/// The profiles, each with the feature that a class must declare to be tested for it.
const PROFILES: [(&str, &str); 5] = [
    ("GATEWAY-HTTP", "HTTPRoute"),
    ("GATEWAY-GRPC", "GRPCRoute"),
    ("GATEWAY-TLS", "TLSRoute"),
    ("GATEWAY-TCP", "TCPRoute"),
    ("GATEWAY-UDP", "UDPRoute"),
];

/// How reports name the implementation.
const IMPLEMENTATION: [&str; 4] =
    ["-organization=fairway", "-project=fairway", "-url=https://fairway.dev", "-contact=https://fairway.dev"];

/// Time limit for one run. On two cores it needs less than half of that.
const LIMIT: &str = "-test.timeout=12m";

/// A datagram to an address that kube-proxy doesn't know yet is lost, and the suite waits ten seconds for the answer. By default kube-proxy
/// pauses for a second between two changes, which is longer than the suite takes from a Gateway's status to its first request.
pub(super) const CLUSTER_OPTIONS: &[&str] = &["--prompt-proxies"];

/// An address in the pool of the cluster's load balancer, for the test of static addresses. The pool is used from the other end.
const USABLE: &str = "-usable-address=198.19.0.250";
/// An address outside its pool.
const UNUSABLE: &str = "-unusable-address=198.19.1.1";

/// The options of a run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct GatewayOptions {
    /// The names of tests; empty for all tests of the features that the class declares.
    tests: Vec<String>,
    channel: Channel,
    /// How often to run the suite, beyond the first time.
    repeats: u32,
    /// Keep the cluster.
    keep: bool,
    /// Save the report in the documentation.
    save: bool,
    /// Run a development build in place of the image.
    development: bool,
    /// Only rewrite the table of the CRDs' rules.
    schema: bool,
}

/// The CRDs to install.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Channel {
    #[default]
    Standard,
    Experimental,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Experimental => "experimental",
        }
    }
}

impl GatewayOptions {
    /// All tests, `times` times.
    pub(super) fn repeated(times: u32) -> Self {
        Self { repeats: times - 1, ..Self::default() }
    }

    fn times(&self) -> u32 {
        self.repeats + 1
    }

    pub(super) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--keep" => options.keep = true,
                "--save" => options.save = true,
                "--experimental" => options.channel = Channel::Experimental,
                "--development" => options.development = true,
                "--schema" => options.schema = true,
                "--times" => options.repeats = number("--times", words.next(), USAGE)? - 1,
                test if test.chars().all(|symbol| symbol.is_ascii_alphanumeric()) => {
                    options.tests.push(test.to_owned());
                }
                other => bail!("unknown option {other}; {USAGE}"),
            }
        }
        if options.save && (options.development || !options.tests.is_empty()) {
            bail!("--save is for a report of all tests on the image; {USAGE}");
        }
        Ok(options)
    }
}

/// Installs the CRDs and Fairway, and runs the suite on a cluster of its own.
pub(super) fn run(workspace: &Workspace, options: &GatewayOptions) -> anyhow::Result<Outcome> {
    if options.schema {
        if let Some(failure) = build::module(workspace)? {
            return Ok(failed(failure));
        }
        schema::rewrite(workspace)?;
        return Ok(Outcome::passed(format!("wrote {}", schema::TABLE)));
    }
    let image = if options.development { image::build_development } else { image::build };
    let ground = Ground { image, options: CLUSTER_OPTIONS, keep: options.keep };
    on_cluster(
        workspace,
        ground,
        || build_suite(workspace),
        || {
            if let Some(failure) = install(workspace, options, INSTALL)? {
                return Ok(failed(failure));
            }
            test(workspace, options)
        },
    )
}

/// Builds the suite, and checks that `check` knows the rules of its CRDs.
pub(super) fn build_suite(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let outcome = build::suite(workspace)?;
    if outcome.failure.is_some() {
        return Ok(outcome);
    }
    Ok(schema::difference(workspace)?.map_or(outcome, failed))
}

/// Installs the CRDs, then Fairway with a helm command. Returns the failure, if any.
pub(super) fn install(workspace: &Workspace, options: &GatewayOptions, helm: &str) -> anyhow::Result<Option<String>> {
    workspace.console.line(&format!("installing the CRDs, {} channel", options.channel.name()));
    for path in build::definitions(workspace, options.channel.name())? {
        // The CRDs don't fit in the annotation of a client-side apply.
        let words = ["kubectl", "apply", "--server-side", "--filename", &*path.to_string_lossy()];
        if let Some(failure) = in_cluster(workspace, &words)? {
            return Ok(Some(failure));
        }
    }
    let established = "kubectl wait customresourcedefinitions --all --for condition=established --timeout 60s";
    for line in [established, helm] {
        if let Some(failure) = said_in_cluster(workspace, line)? {
            return Ok(Some(failure));
        }
    }
    Ok(None)
}

/// Runs the suite the requested number of times on a cluster with Fairway.
pub(super) fn test(workspace: &Workspace, options: &GatewayOptions) -> anyhow::Result<Outcome> {
    let features = features(workspace)?;
    workspace.console.line(&format!("the class {CLASS} declares {} features", features.len()));
    let mut totals = Totals::default();
    let mut failures = Vec::new();
    for run in 1..=options.times() {
        let played = play(workspace, options, &features, run)?;
        totals += played.totals;
        failures.extend(played.failure);
    }
    let note = format!("Gateway API conformance {}, runs: {}; tests: {totals}", build::VERSION, options.times());
    let failure = (!failures.is_empty()).then(|| format!("{}\n{note}", failures.join("\n")));
    Ok(Outcome { note: format!("{note}\n{}", build::STAND_IN), failure, totals })
}

/// The features that the class declares, once its status has them.
fn features(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let class = format!("gatewayclass/{CLASS}");
    let accepted = ["kubectl", "wait", &class, "--for", "condition=Accepted", "--timeout", "60s"];
    if let Some(failure) = in_cluster(workspace, &accepted)? {
        bail!("the class {CLASS} is not accepted: {failure}");
    }
    let names = ["kubectl", "get", &class, "--output", "jsonpath={.status.supportedFeatures[*].name}"];
    let names = String::from_utf8(shell::read(&mut inside(workspace, &names)?)?).context("names of features")?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// Runs the suite once.
fn play(workspace: &Workspace, options: &GatewayOptions, features: &[String], run: u32) -> anyhow::Result<Outcome> {
    let console = &workspace.console;
    let times = options.times();
    let channel = options.channel.name();
    let folder = workspace.root.join(FOLDER).join("gateway");
    let log = folder.join(format!("{channel}-{run}.log"));
    let report = folder.join(format!("{channel}-{run}.yaml"));
    let _ = fs::remove_file(&report);
    let begin = Instant::now();
    let mut command = inside(workspace, &[&*build::program(workspace).to_string_lossy()])?;
    command.current_dir(&folder).args(arguments(options, features, &report));
    let count = Cell::new(0);
    let finished = shell::run(console, &mut command, |line| {
        // The results come only at the end, all at once.
        if let Some(name) = begun(line) {
            count.set(count.get() + 1);
            console.line(&format!("{} {:>3} {name}", duration(begin.elapsed()), count.get()));
        }
        false
    })?;
    fs::write(&log, &finished.output).with_context(|| format!("writing {}", log.display()))?;
    let results = Results::of(&finished.output);
    let totals = results.totals();
    for line in results.lines() {
        console.line(line);
    }
    let took = duration(begin.elapsed());
    console.line(&format!("run {run} of {times}: {totals} in {took}"));
    if options.save && report.exists() {
        console.line(&format!("saved {}", save(workspace, &report, channel)?.display()));
    }
    let failure = (!finished.success).then(|| {
        format!("run {run} of {times}: the suite failed\n{}\nall of it: {}", results.complaints(), log.display())
    });
    Ok(Outcome { note: String::new(), failure, totals })
}

/// The arguments of the suite.
fn arguments(options: &GatewayOptions, features: &[String], report: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["-test.v", LIMIT, USABLE, UNUSABLE].iter().map(|&word| word.to_owned()).collect();
    words.push(format!("-gateway-class={CLASS}"));
    if options.tests.is_empty() {
        words.push("-test.run=^TestConformance$".to_owned());
        let declared = PROFILES.iter().filter(|(_, feature)| features.iter().any(|name| name == feature));
        let profiles: Vec<_> = declared.map(|(profile, _)| *profile).collect();
        words.push(format!("-conformance-profiles={}", profiles.join(",")));
        words.push(format!("-supported-features={}", features.join(",")));
        words.push(format!("-version=v{}", env!("CARGO_PKG_VERSION")));
        words.extend(IMPLEMENTATION.iter().map(|&word| word.to_owned()));
        words.push(format!("-report-output={}", report.display()));
    } else {
        // A named test runs even if the class doesn't declare its features.
        words.push("-all-features".to_owned());
        // Without this, the suite sets up a mesh and waits for it.
        words.push("-exempt-features=Mesh".to_owned());
        words.push(format!("-test.run=^TestConformance$/^({})$", options.tests.join("|")));
    }
    words
}

/// Copies a report into the documentation, with what the report itself can't say. Returns its path.
fn save(workspace: &Workspace, report: &Path, channel: &str) -> anyhow::Result<PathBuf> {
    let text = fs::read_to_string(report).with_context(|| format!("reading {}", report.display()))?;
    let path = Path::new("docs/conformance").join(format!("{channel}-default-report.yaml"));
    let absolute = workspace.root.join(&path);
    fs::write(&absolute, format!("# {}\n{text}", build::STAND_IN))
        .with_context(|| format!("writing {}", absolute.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &[&str], features: &[&str]) -> Vec<String> {
        let features: Vec<String> = features.iter().map(|&name| name.to_owned()).collect();
        arguments(&GatewayOptions::parse(options).unwrap(), &features, Path::new("report.yaml"))
    }

    #[test]
    fn all_tests_are_those_of_the_declared_features_and_make_a_report() {
        let words = words(&[], &["Gateway", "HTTPRoute", "UDPRoute"]);
        for word in [
            "-conformance-profiles=GATEWAY-HTTP,GATEWAY-UDP",
            "-supported-features=Gateway,HTTPRoute,UDPRoute",
            "-report-output=report.yaml",
            "-test.run=^TestConformance$",
        ] {
            assert!(words.iter().any(|other| other == word), "{word} is among {words:?}");
        }
    }

    #[test]
    fn named_tests_run_even_if_no_feature_is_declared_and_make_no_report() {
        let words = words(&["HTTPRouteMatching", "HTTPRouteWeight"], &[]);
        assert!(words.contains(&"-all-features".to_owned()));
        assert!(words.contains(&"-test.run=^TestConformance$/^(HTTPRouteMatching|HTTPRouteWeight)$".to_owned()));
        assert!(words.iter().all(|word| !word.starts_with("-report-output")), "{words:?}");
    }

    #[test]
    fn options_are_told_from_names_of_tests() {
        let options = GatewayOptions::parse(&["--experimental", "--keep", "--times", "3", "GRPCRouteWeight"]).unwrap();
        assert_eq!(
            options,
            GatewayOptions {
                tests: vec!["GRPCRouteWeight".to_owned()],
                channel: Channel::Experimental,
                repeats: 2,
                keep: true,
                ..GatewayOptions::default()
            }
        );
        for wrong in [
            &["--fast"][..],
            &["--times", "0"],
            &["--times"],
            &["A|B"],
            &["--save", "GRPCRouteWeight"],
            &["--save", "--development"],
        ] {
            assert!(GatewayOptions::parse(wrong).unwrap_err().to_string().contains("usage: "), "{wrong:?}");
        }
    }
}
