//! `cargo xtask conformance both`: runs both suites at the same time on one installation, so that each is exposed to the other's changes.

use std::thread;

use anyhow::anyhow;

use super::gateway::{self, GatewayOptions};
use super::ingress::{self, IngressOptions};
use super::{Ground, failed, on_cluster};
use crate::image;
use crate::outcome::Outcome;
use crate::workspace::Workspace;

/// The usage text.
pub(super) const USAGE: &str =
    "usage: cargo xtask conformance both --suite FOLDER [--times N] [--keep]; FOLDER as for the Ingress suite";

/// What the suites require: an address for each Gateway, and a Server header for Ingresses.
const INSTALL: &str = "helm install fairway deploy/helm/fairway --namespace fairway --create-namespace \
                       --set controller.gatewayAPI.enabled=true --set controller.gatewayAPI.address=own \
                       --set-string controller.config.server-tokens=true --wait --timeout 300s";

/// Installs the CRDs and Fairway, and runs both suites on a cluster of their own.
pub(super) fn run(workspace: &Workspace, options: &IngressOptions) -> anyhow::Result<Outcome> {
    let ground = Ground { image: image::build, options: gateway::CLUSTER_OPTIONS, keep: options.keep };
    let build = || {
        let outcome = ingress::build_suite(workspace, &options.suite)?;
        if outcome.failure.is_some() { Ok(outcome) } else { gateway::build_suite(workspace) }
    };
    on_cluster(workspace, ground, build, || {
        let gateways = GatewayOptions::repeated(options.times);
        if let Some(failure) = gateway::install(workspace, &gateways, INSTALL)? {
            return Ok(failed(failure));
        }
        let (ingresses, gateways) = thread::scope(|scope| {
            let ingresses = scope.spawn(|| ingress::test(workspace, options));
            let gateways = gateway::test(workspace, &gateways);
            (ingresses.join().unwrap_or_else(|_| Err(anyhow!("the Ingress suite's thread panicked"))), gateways)
        });
        Ok(joined(ingresses?, gateways?))
    })
}

/// Combines the outcomes of two suites.
fn joined(mut one: Outcome, other: Outcome) -> Outcome {
    one.totals += other.totals;
    one.note = format!("{}\n{}", one.note, other.note);
    one.failure = match (one.failure, other.failure) {
        (Some(one), Some(other)) => Some(format!("{one}\n{other}")),
        (one, other) => one.or(other),
    };
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_either_suite_is_a_failure() {
        let of = |failure: Option<&str>| Outcome { failure: failure.map(str::to_owned), ..Outcome::passed("ran") };
        assert_eq!(joined(of(None), of(None)).failure, None);
        assert_eq!(joined(of(Some("a")), of(None)).failure.as_deref(), Some("a"));
        assert_eq!(joined(of(None), of(Some("b"))).failure.as_deref(), Some("b"));
        assert_eq!(joined(of(Some("a")), of(Some("b"))).failure.as_deref(), Some("a\nb"));
    }
}
