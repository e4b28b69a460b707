//! Which package may depend on which. A new crate of the workspace must be added here.

use crate::graph::Graph;

/// Each of our packages, with those of ours that it may depend on outside its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("fairway-model", &[]),
    ("fairway-translate", &["fairway-model"]),
    ("fairway-controller", &["fairway-model", "fairway-translate"]),
    ("fairway-proxy", &["fairway-model"]),
    ("fairway-channel", &["fairway-model"]),
    ("fairway", &["fairway-model", "fairway-translate", "fairway-controller", "fairway-proxy", "fairway-channel"]),
    ("fairway-testkit", &[]),
    ("fairway-e2e", &["fairway-testkit"]),
    ("xtask", &[]),
];

/// Packages that some of ours must not depend on, not even indirectly. A name that ends in `*` is a prefix.
const WALLS: &[(&str, &[&str], &str)] = &[
    ("fairway-model", PURE, "the model is plain data: no async, no sockets, no Kubernetes"),
    ("fairway-model", &["k8s-openapi", "kube*"], "the model has never heard of Kubernetes"),
    ("fairway-translate", PURE, "translation is a pure function: no async, no sockets, no client"),
    ("fairway-translate", &["kube*"], "translation reads objects, it fetches none"),
    ("fairway-proxy", &["k8s-openapi", "kube*"], "the proxy has never heard of Kubernetes"),
    ("fairway-channel", &["k8s-openapi", "kube*"], "a proxy without a controller in its process uses the channel"),
];

const PURE: &[&str] = &["tokio", "tokio-*", "mio", "hyper*", "h2", "socket2"];

/// Packages that only some of ours may depend on directly, tests included.
const WRAPPERS: &[(&str, &[&str])] = &[("kube", &["fairway-controller", "fairway-e2e"])];

pub(super) fn check(graph: &Graph) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in graph.members() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            complaints.push(format!("{} has no row in xtask/src/rules/direction.rs", package.name));
            continue;
        };
        let ours = graph.normal(package).filter(|dependency| dependency.member);
        for dependency in ours.filter(|dependency| !allowed.contains(&dependency.name.as_str())) {
            complaints.push(format!("{} may not depend on {}", package.name, dependency.name));
        }
    }
    for (name, behind, why) in WALLS {
        let Some(package) = graph.members().find(|package| package.name == *name) else { continue };
        if let Some(path) = graph.path(package, |reached| behind.iter().any(|pattern| matches(pattern, reached))) {
            complaints.push(format!("{}: {why}", path.join(" -> ")));
        }
    }
    for (wrapped, wrappers) in WRAPPERS {
        for package in graph.members().filter(|package| !wrappers.contains(&package.name.as_str())) {
            if graph.all(package).any(|dependency| dependency.name == *wrapped) {
                complaints.push(format!("{} may not name {wrapped}: only {} may", package.name, wrappers.join(", ")));
            }
        }
    }
    complaints
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::example;

    #[test]
    fn a_new_package_of_ours_is_reported() {
        assert_eq!(check(&example(&[]))[0], "a has no row in xtask/src/rules/direction.rs");
    }

    #[test]
    fn walls_arrows_and_wrappers_hold() {
        let complaints = check(&example(&[("a", "fairway-proxy"), ("b", "fairway-model"), ("y", "kube")]));
        let wall = "fairway-proxy -> x -> kube: the proxy has never heard of Kubernetes";
        let wrapper = "fairway-model may not name kube: only fairway-controller, fairway-e2e may";
        assert_eq!(complaints, [wall, wrapper]);
    }

    #[test]
    fn an_arrow_the_wrong_way_is_reported() {
        let backwards = "0|fairway-model v1|MIT|\n1|fairway-proxy v1|MIT|\n0|fairway-proxy v1|MIT|\n";
        let graph = Graph::parse(backwards, backwards).unwrap();
        assert_eq!(check(&graph), ["fairway-model may not depend on fairway-proxy"]);
    }

    #[test]
    fn patterns_match_prefixes() {
        assert!(matches("kube*", "kube-client") && matches("kube*", "kube") && !matches("kube", "kube-client"));
    }
}
