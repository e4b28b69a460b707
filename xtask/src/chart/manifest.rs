//! `deploy/manifests`: the rendered chart, for users without helm.

use std::path::{Path, PathBuf};

use super::Helm;
use crate::workspace::Workspace;

/// Name and namespace are those of the ingress-nginx manifests, which these replace.
const RELEASE: &str = "ingress-nginx";

/// The manifests and their purpose.
const MANIFESTS: &[(&str, &str)] = &[
    (
        "baremetal",
        "Nodes without a load balancer: Fairway is reached on a port of every node (Service of type NodePort).",
    ),
    ("cloud", "Clusters in which Services of type LoadBalancer get an address."),
    ("kind", "kind, with ports 80 and 443 of a node labelled ingress-ready=true mapped to the machine it runs on."),
];

/// The manifests: path and content.
pub(crate) fn files(workspace: &Workspace) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let helm = Helm::new(workspace)?;
    let folder = Path::new("deploy/manifests");
    let render = |&(name, purpose): &(&str, &str)| {
        let values = workspace.root.join(folder).join("values").join(format!("{name}.yaml"));
        let rendered = helm.template(RELEASE, RELEASE, &[&values])?;
        Ok((folder.join(format!("{name}.yaml")), manifest(name, purpose, &rendered).into_bytes()))
    };
    MANIFESTS.iter().map(render).collect()
}

fn manifest(name: &str, purpose: &str, rendered: &str) -> String {
    // Labels that refer to helm would be wrong without it.
    let of_helm = ["helm.sh/chart:", "app.kubernetes.io/managed-by:", "# Source:"];
    let lines = rendered.lines().filter(|line| !of_helm.iter().any(|word| line.trim_start().starts_with(word)));
    let mut text = format!(
        "# Generated from the chart with the values in values/{name}.yaml by `cargo xtask gen`.\n\
         # {purpose}\n\
         #\n\
         # It takes the place of ingress-nginx installed by its own manifests. Of that, remove the admission webhook first:\n\
         #   kubectl delete validatingwebhookconfiguration ingress-nginx-admission\n\
         apiVersion: v1\n\
         kind: Namespace\n\
         metadata:\n  name: {RELEASE}\n  labels:\n    app.kubernetes.io/name: {RELEASE}\n    app.kubernetes.io/instance: {RELEASE}\n"
    );
    let mut empty = false;
    for line in lines {
        if !(line.is_empty() && empty) {
            text.push_str(line);
            text.push('\n');
        }
        empty = line.is_empty();
    }
    text
}
