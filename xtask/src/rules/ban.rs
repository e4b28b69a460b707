//! Crates that are banned from the build, and crates that must not be in it twice.

use crate::graph::Graph;

const BANNED: &[(&str, &str)] = &[
    ("openssl", "TLS is rustls with aws-lc-rs"),
    ("openssl-sys", "TLS is rustls with aws-lc-rs"),
    ("native-tls", "TLS is rustls with aws-lc-rs"),
    ("ring", "there is one provider of cryptography: aws-lc-rs"),
    ("chrono", "time is jiff"),
    ("serde_yaml", "it is no longer maintained; use serde_norway"),
    ("async-std", "the runtime is tokio"),
];

/// Two versions of these would have incompatible types, or would double the size of the program.
const ONCE: &[&str] =
    &["aws-lc-sys", "bytes", "h2", "http", "hyper", "k8s-openapi", "rustls", "serde", "tokio", "tracing"];

pub(super) fn check(graph: &Graph) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, why) in BANNED {
        if let Some(package) = graph.packages().find(|package| package.name == *name) {
            complaints.push(format!("{name} {} is in the build: {why}", package.version));
        }
    }
    for name in ONCE {
        let same = graph.packages().filter(|package| package.name == *name);
        let versions: Vec<_> = same.map(|package| package.version.as_str()).collect();
        if versions.len() > 1 {
            complaints.push(format!("{name} is in the build more than once: {}", versions.join(", ")));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::example;

    #[test]
    fn banned_and_duplicate_crates_are_reported() {
        assert!(check(&example(&[])).is_empty());
        let complaints = check(&example(&[("y", "openssl")]));
        assert_eq!(complaints, ["openssl 1.0.0 is in the build: TLS is rustls with aws-lc-rs"]);
    }

    #[test]
    fn two_versions_of_one_crate_are_reported() {
        let complaints = check(&example(&[("x v1", "tokio v0"), ("y", "tokio")]));
        assert_eq!(complaints, ["tokio is in the build more than once: 0.0.0, 1.0.0"]);
    }
}
