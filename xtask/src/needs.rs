//! Tools that the other tasks use. Missing Debian packages are installed when we are root; what rustup brings is only named.

use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// A program, the Debian package that brings it, and what for.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("cc", "gcc", "to compile aws-lc"),
    ("c++", "g++", "to compile libFuzzer"),
    ("valgrind", "valgrind", "to count instructions"),
    ("git", "git", "to list the files of the repository"),
    ("curl", "curl", "for the commands in the pages for users"),
    ("openssl", "openssl", "for the commands in the pages for users"),
    ("bash", "bash", "for the commands in the pages for users, and in the tests of installing"),
    ("timeout", "coreutils", "to end the commands of a page that hangs"),
    ("diff", "diffutils", "for the commands in the pages for users"),
    ("unshare", "util-linux", "to make the namespaces of a cluster"),
    ("setsid", "util-linux", "to start a cluster that outlives its terminal"),
    ("nsenter", "util-linux", "to run commands in the network of a cluster"),
    ("setpriv", "util-linux", "to end commands together with who has asked for them"),
    ("mount", "mount", "for the tests of the kubelet"),
    ("hostname", "hostname", "for the tests of the kubelet"),
    ("setcap", "libcap2-bin", "to let the binary of the image listen on low ports"),
    ("ip", "iproute2", "to make the network of a cluster"),
    ("nft", "nftables", "for kube-proxy"),
    // Where a pod finds it, which sees nothing of other places.
    ("/usr/bin/python3", "python3", "for a server in the tests of the cluster"),
    ("ps", "procps", "for the tests of the cluster"),
];

/// Commands that must succeed, and what brings them.
const RUST: &[(&[&str], &str)] = &[
    (&["cargo", "fmt", "--version"], "rustup component add rustfmt"),
    (&["cargo", "clippy", "--version"], "rustup component add clippy"),
    (&["go", "version"], "https://go.dev/dl, Go 1.26 or newer (for the programs of a cluster's control plane)"),
    (&["rustup", "run", "nightly", "rustc", "--version"], "rustup toolchain install nightly (for the fuzz targets)"),
];

pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut complaints = Vec::new();
    for (command, remedy) in RUST {
        if !shell::succeeds(workspace.command(command[0]).args(&command[1..])) {
            complaints.push(format!("`{}` does not work. Install it with: {remedy}", command.join(" ")));
        }
    }
    let missing: Vec<_> = PACKAGES.iter().filter(|(program, ..)| !is_installed(program)).collect();
    if !missing.is_empty() {
        let packages: Vec<_> = missing.iter().map(|(_, package, _)| *package).collect();
        if let Err(reason) = install(workspace, &packages) {
            for (program, package, purpose) in missing {
                complaints.push(format!("{program} is missing ({purpose}): apt-get install {package} ({reason})"));
            }
        }
    }
    Ok(Outcome::from_complaints(format!("{} tools", RUST.len() + PACKAGES.len()), &complaints))
}

/// Whether there is a file of that name where programs are searched for: what a shell has built in is of no use to others.
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
