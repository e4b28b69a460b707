//! `cargo xtask h2spec`: the HTTP/2 conformance suite, in the clear and over TLS, including its strict cases.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::outcome::Outcome;
use crate::serving::Serving;
use crate::shell;
use crate::tools;
use crate::workspace::Workspace;

/// A host for every name, in front of the echo.
const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: default}
spec:
  ingressClassName: nginx
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
";

/// The case that fails on a port for both HTTP/1.1 and HTTP/2: an invalid HTTP/2 preface is a bad HTTP/1.1 request there, so the connection
/// is closed after a response, which the suite doesn't expect.
const PREFACE: &str = "Sends invalid connection preface";

/// Runs the suite.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let built = tools::build_h2spec(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let folder = workspace.target_folder()?.join("h2spec");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    std::fs::write(folder.join("web.yaml"), MANIFESTS)?;
    let mut fairway = match Serving::start(workspace, &folder, &[])? {
        Ok(fairway) => fairway,
        Err(outcome) => return Ok(outcome),
    };

    let mut cases = 0;
    let mut complaints = Vec::new();
    for (address, over, expected) in
        [(fairway.http, &[][..], &[PREFACE][..]), (fairway.https, &["--tls", "--insecure"], &[])]
    {
        let mut command = Command::new(workspace.root.join("target/tools/bin/h2spec"));
        command.args(["--strict", "--timeout", "10", "--host", &address.ip().to_string()]);
        command.args(["--port", &address.port().to_string()]).args(over);
        let output = shell::run(&workspace.console, &mut command, |_| false)?.output;
        cases += count(&output).with_context(|| format!("h2spec printed no result:\n{output}"))?;
        let failures = failures(&output);
        if failures != expected {
            complaints.push(format!("{}: expected the failures {expected:?}\n{output}", shell::display(&command)));
        }
    }
    ensure!(fairway.is_running()?, "fairway ended");
    Ok(Outcome::from_complaints(format!("{cases} cases"), &complaints))
}

/// The number of cases, from the last line.
fn count(output: &str) -> Option<usize> {
    output.lines().rev().find_map(|line| line.split_once(" tests, ")?.0.parse().ok())
}

/// The names of the cases that failed, from the list at the end.
fn failures(output: &str) -> Vec<&str> {
    let Some((_, list)) = output.split_once("\nFailures:") else { return Vec::new() };
    list.lines().filter_map(|line| Some(line.trim().strip_prefix("× ")?.split_once(": ")?.1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_failures_is_read() {
        let output = "  1: Good\r      \u{2714} 1: Good\n      \u{d7} 2: Bad: x\n\nFailures: \n\nHTTP/2\n      \u{d7} 2: Bad: x\n\n\
                      Finished in 0.2 seconds\n146 tests, 145 passed, 0 skipped, 1 failed\n";
        assert_eq!((failures(output), count(output)), (vec!["Bad: x"], Some(146)));
        assert_eq!((failures("146 tests, 146 passed"), count("")), (vec![], None));
    }
}
