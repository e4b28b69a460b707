//! `--deep-inspect`: texts in an Ingress that only make sense as an attack on a configuration file.
//!
//! Fairway never writes them into such a file, so they can do no harm. An Ingress that contains one is refused all the same, as in
//! ingress-nginx, because its author meant harm or wrote it for another controller.

use k8s_openapi::api::networking::v1::IngressSpec;

/// The first field with such a text, its value, and the kind of attack.
pub(crate) fn inspect(spec: &IngressSpec) -> Option<(String, &str, &'static str)> {
    for (at, rule) in spec.rules.iter().flatten().enumerate() {
        if let Some((host, what)) = rule.host.as_deref().and_then(suspicious) {
            return Some((format!("spec.rules[{at}].host"), host, what));
        }
        for (path_at, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            if let Some((path, what)) = path.path.as_deref().and_then(suspicious) {
                return Some((format!("spec.rules[{at}].http.paths[{path_at}].path"), path, what));
            }
        }
    }
    for (at, tls) in spec.tls.iter().flatten().enumerate() {
        if let Some((name, what)) = tls.secret_name.as_deref().and_then(suspicious) {
            return Some((format!("spec.tls[{at}].secretName"), name, what));
        }
        for (host_at, host) in tls.hosts.iter().flatten().enumerate() {
            if let Some((host, what)) = suspicious(host) {
                return Some((format!("spec.tls[{at}].hosts[{host_at}]"), host, what));
            }
        }
    }
    None
}

fn suspicious(text: &str) -> Option<(&str, &'static str)> {
    suspicion(text).map(|what| (text, what))
}

/// The kind of attack that a text looks like, by the patterns of ingress-nginx's inspector.
fn suspicion(text: &str) -> Option<&'static str> {
    let directive = |name: &str| text.find(name).is_some_and(|at| text[at..].contains(';'));
    let etc = |text: &str| {
        ["passwd", "shadow", "group", "nginx", "ingress-controller"].iter().any(|name| text.starts_with(name))
    };
    if directive("alias") {
        Some("an alias directive")
    } else if directive("root") {
        Some("a root directive")
    } else if text.match_indices("/etc/").any(|(at, found)| etc(&text[at + found.len()..])) {
        Some("a system file")
    } else if text.contains("/var/run/secrets") {
        Some("the service account's token")
    } else if text.contains("_by_lua") {
        Some("a Lua directive")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_inspector() {
        for text in [
            "/x alias /y;",
            "/ { root /; }",
            "/a/etc/passwd",
            "/etc/nginx/x",
            "/var/run/secrets/kubernetes.io",
            "/content_by_lua_block",
        ] {
            assert!(suspicion(text).is_some(), "{text}");
        }
        for text in ["/alias", "/root", "/etc", "/etc/hosts", "/a;b", "/var/run"] {
            assert_eq!(suspicion(text), None, "{text}");
        }
    }
}
