//! Licences that we accept in the packages we build.

use crate::graph::{Graph, Package};
use crate::licence;

/// Permissive licences, by SPDX identifier. None requires more than the notice that we ship.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    // For a list of certificates, not for code.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub(super) fn check(graph: &Graph) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in graph.packages() {
        let Package { name, version, licence, .. } = package;
        match licence::accepts(licence, ACCEPTED) {
            Some(true) => {}
            Some(false) => complaints.push(format!("{name} {version} is under {licence}, which is not accepted")),
            None => complaints.push(format!("{name} {version} states no licence that we can read: {licence:?}")),
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::example;

    #[test]
    fn a_licence_outside_the_list_is_reported() {
        assert_eq!(check(&example(&[])), ["y 1.0.0 is under GPL-3.0, which is not accepted"]);
    }
}
