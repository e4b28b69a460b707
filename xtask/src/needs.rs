//! Tools that the other tasks use. Missing Debian packages are installed if we are root; missing rustup components are
//! only named.

use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// The purpose of a tool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Use {
    /// Compiling anything.
    Build,
    /// Linting.
    Lint,
    /// Running the tests.
    Test,
    /// Counting instructions.
    Bench,
    /// Generating load on other proxies and Fairway.
    Peers,
    /// Recording what requests execute.
    Profile,
    /// The fuzz targets.
    Fuzz,
    /// The image.
    Image,
    /// The programs of a control plane, above all helm.
    Tools,
    /// HTTP parsers to compare with.
    Framing,
    /// Other clients and servers.
    Matrix,
    /// Running a cluster and its tests.
    Cluster,
    /// Building modules that require a newer Go than Debian's, such as the conformance suite of the Gateway API.
    NewerGo,
}

/// The tools of each task that builds something. A task that isn't here builds nothing slow.
const TASKS: &[(&str, &[Use])] = &[
    ("clippy", &[Use::Build, Use::Lint]),
    ("doc", &[Use::Build]),
    ("test", &[Use::Build, Use::Test]),
    ("image", &[Use::Build, Use::Image]),
    ("chart", &[Use::Build, Use::Tools]),
    ("alerts", &[Use::Build, Use::Tools]),
    ("grpc", &[Use::Build, Use::Tools, Use::Cluster]),
    ("oauth", &[Use::Build, Use::Tools, Use::Cluster]),
    ("framing", &[Use::Build, Use::Tools, Use::Framing]),
    ("matrix", &[Use::Build, Use::Tools, Use::Framing, Use::Matrix]),
    ("h2spec", &[Use::Build, Use::Tools]),
    ("cluster", &[Use::Build, Use::Image, Use::Tools, Use::Cluster]),
    ("e2e", &[Use::Build, Use::Image, Use::Tools, Use::Cluster]),
    ("e2e ecosystem", &[Use::Build, Use::Image, Use::Tools, Use::Cluster, Use::NewerGo]),
    ("conformance ingress", &[Use::Build, Use::Image, Use::Tools, Use::Cluster]),
    ("conformance gateway", &[Use::Build, Use::Image, Use::Tools, Use::Cluster, Use::NewerGo]),
    ("conformance both", &[Use::Build, Use::Image, Use::Tools, Use::Cluster, Use::NewerGo]),
    ("tools", &[Use::Tools]),
    ("bench", &[Use::Build, Use::Bench, Use::Image]),
    ("bench --peers", &[Use::Build, Use::Image, Use::Tools, Use::Framing, Use::Peers]),
    ("profile", &[Use::Build, Use::Image, Use::Tools, Use::Framing, Use::Peers, Use::Profile]),
    ("fuzz", &[Use::Build, Use::Fuzz]),
];

/// A program, the Debian package that contains it, its purpose, and its use.
const PACKAGES: &[(&str, &str, &str, Use)] = &[
    ("cc", "gcc", "to compile aws-lc", Use::Build),
    (
        "/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so",
        "libnginx-mod-http-headers-more-filter",
        "to compare snippets with",
        Use::Test,
    ),
    ("c++", "g++", "to compile libFuzzer", Use::Fuzz),
    ("valgrind", "valgrind", "to count instructions", Use::Bench),
    ("git", "git", "to list the files of the repository", Use::Build),
    // Debian's path; users' search paths lack sbin.
    ("/usr/sbin/nginx", "nginx", "to compare its answers with ours in tests", Use::Test),
    ("curl", "curl", "for the commands in the pages for users", Use::Cluster),
    ("openssl", "openssl", "for the commands in the pages for users", Use::Cluster),
    ("/usr/bin/openssl", "openssl", "to sign responses of OCSP in tests", Use::Test),
    ("bash", "bash", "for the commands in the pages for users, and in the tests of installing", Use::Cluster),
    ("timeout", "coreutils", "to end the commands of a page that hangs", Use::Cluster),
    ("diff", "diffutils", "for the commands in the pages for users", Use::Cluster),
    ("unshare", "util-linux", "to make the namespaces of a cluster", Use::Cluster),
    ("setsid", "util-linux", "to start a cluster that outlives its terminal", Use::Cluster),
    ("nsenter", "util-linux", "to run commands in the network of a cluster", Use::Cluster),
    ("setpriv", "util-linux", "to end commands together with the process that started them", Use::Cluster),
    ("mount", "mount", "for the tests of the kubelet", Use::Cluster),
    ("hostname", "hostname", "for the tests of the kubelet", Use::Cluster),
    ("setcap", "libcap2-bin", "to let the binary of the image listen on low ports", Use::Image),
    ("ip", "iproute2", "to make the network of a cluster", Use::Cluster),
    ("nft", "nftables", "for kube-proxy", Use::Cluster),
    // The path in a pod, which sees no other locations.
    ("/usr/bin/python3", "python3", "for a server in the tests of the cluster", Use::Cluster),
    ("nginx", "nginx", "to see how it reads requests", Use::Framing),
    ("node", "nodejs", "to see how it reads requests", Use::Framing),
    ("python3", "python3", "to see how it reads requests", Use::Framing),
    ("/usr/bin/curl", "curl", "to talk to it", Use::Matrix),
    ("h2load", "nghttp2-client", "to talk to it", Use::Matrix),
    ("h2load", "nghttp2-client", "to load proxies over HTTP/2", Use::Peers),
    ("wrk", "wrk", "to load proxies over HTTP/1.1", Use::Peers),
    ("/usr/sbin/haproxy", "haproxy", "to compare its latency with ours", Use::Peers),
    ("llvm-profdata-19", "llvm-19", "to merge what was recorded", Use::Profile),
    ("taskset", "util-linux", "to keep proxies and load apart", Use::Peers),
    ("java", "default-jdk-headless", "to talk to it", Use::Matrix),
    ("chromium", "chromium", "to talk to it", Use::Matrix),
    ("ps", "procps", "for the tests of the cluster", Use::Cluster),
    (
        "pip3",
        "python3-pip",
        "to install the Go release that the suite of the Gateway API and external-dns need",
        Use::NewerGo,
    ),
];

/// Commands that must succeed, and how to install them.
const RUST: &[(&[&str], &str, Use)] = &[
    (&["cargo", "fmt", "--version"], "rustup component add rustfmt", Use::Lint),
    (&["cargo", "clippy", "--version"], "rustup component add clippy", Use::Lint),
    (
        &["go", "version"],
        "https://go.dev/dl, Go 1.26 or newer (for the programs of a cluster's control plane)",
        Use::Tools,
    ),
    (
        &["rustup", "run", "nightly", "rustc", "--version"],
        "rustup toolchain install nightly (for the fuzz targets)",
        Use::Fuzz,
    ),
];

/// Checks all tools.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    look(workspace, |_| true)
}

/// Checks the tools of a task before it starts to build, so that a missing one is reported at once, not after minutes.
pub(crate) fn check_for(workspace: &Workspace, task: &str) -> anyhow::Result<Outcome> {
    match TASKS.iter().find(|(name, _)| *name == task) {
        Some((_, uses)) => look(workspace, |of| uses.contains(&of)),
        None => Ok(Outcome::default()),
    }
}

fn look(workspace: &Workspace, is_used: impl Fn(Use) -> bool) -> anyhow::Result<Outcome> {
    let mut complaints = Vec::new();
    for (command, remedy, _) in RUST.iter().filter(|(.., of)| is_used(*of)) {
        if !shell::succeeds(workspace.command(command[0]).args(&command[1..])) {
            complaints.push(format!("`{}` does not work. Install it with: {remedy}", command.join(" ")));
        }
    }
    let missing: Vec<_> = PACKAGES.iter().filter(|(program, .., of)| is_used(*of) && !is_installed(program)).collect();
    if !missing.is_empty() {
        let packages: Vec<_> = missing.iter().map(|(_, package, ..)| *package).collect();
        if let Err(reason) = install(workspace, &packages) {
            for (program, package, purpose, _) in missing {
                complaints.push(format!("{program} is missing ({purpose}): apt-get install {package} ({reason})"));
            }
        }
    }
    Ok(Outcome::from_complaints(format!("{} tools", RUST.len() + PACKAGES.len()), &complaints))
}

/// Whether a file with this name is in the search path: a shell builtin is of no use to other programs.
fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

fn install(workspace: &Workspace, packages: &[&str]) -> Result<(), String> {
    let user = shell::read(workspace.command("id").arg("-u")).map_err(|error| format!("{error:#}"))?;
    if user.trim_ascii() != b"0" {
        return Err("not root, so not installed now".to_owned());
    }
    for arguments in [&["update"][..], &[&["install", "-y", "--no-install-recommends"], packages].concat()] {
        let mut command = workspace.command("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        let finished = shell::run(&workspace.console, &mut command, |_| false).map_err(|error| format!("{error:#}"))?;
        if !finished.success {
            let last = finished.output.trim_end().lines().last().unwrap_or_default();
            return Err(format!("`{}` failed: {last}", shell::display(&command)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// kube-proxy needs `nft`, which was once found missing only after everything had been built.
    #[test]
    fn tasks_that_run_a_cluster_check_its_tools() {
        let uses = |task| TASKS.iter().find(|(name, _)| *name == task).map_or(&[][..], |(_, uses)| uses);
        for task in ["cluster", "e2e", "conformance ingress", "conformance gateway", "conformance both"] {
            for program in ["nft", "ip", "setcap", "cc"] {
                let of = PACKAGES.iter().find(|(name, ..)| *name == program).unwrap().3;
                assert!(uses(task).contains(&of), "{task} asks for {program}");
            }
        }
        assert!(!uses("clippy").contains(&Use::Cluster));
    }
}
