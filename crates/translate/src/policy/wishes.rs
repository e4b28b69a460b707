//! An Ingress's wishes for its backends, from its annotations.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use fairway_model::{AffinityMode, Balance, HashBalance, HealthCheck, Probe, SameSite, SessionCookie, Template};

use crate::annotation::{Affinity, HealthChecks, IngressAnnotations};
use crate::resource::BackendWishes;
use crate::value::{self, BackendProtocol, HealthCount, HealthProbe, HealthSeconds, HealthStatuses};

/// The shared value of the many Ingresses without wishes.
static NOTHING: LazyLock<Arc<BackendWishes>> = LazyLock::new(Arc::default);

/// The wishes in these annotations.
pub(crate) fn wishes(annotations: &IngressAnnotations) -> Arc<BackendWishes> {
    let balancing = &annotations.balancing;
    let hash = balancing.hash_by.as_ref().map(|key| {
        let subset = balancing.hash_by_subset.unwrap_or(false).then(|| balancing.hash_by_subset_size.unwrap_or(3));
        Balance::Hash(HashBalance { key: Template::parse(key.as_str()), subset })
    });
    let wishes = BackendWishes {
        by_cluster_address: balancing.service_upstream,
        balance: hash.or_else(|| balancing.algorithm.map(value::LoadBalance::balance)),
        // The session cookie of a canary is that of the Ingress whose alternative it is.
        affinity_mode: annotations.affinity.mode.filter(|_| !annotations.is_canary()).map(|mode| match mode {
            value::AffinityMode::Persistent => AffinityMode::Persistent,
            value::AffinityMode::Balanced => AffinityMode::Balanced,
        }),
        health_check: health_check(&annotations.health, annotations.proxying.protocol),
        affinity: annotations.affinity.kind.filter(|_| !annotations.is_canary()).map(|_| cookie(&annotations.affinity)),
    };
    if wishes == BackendWishes::default() { NOTHING.clone() } else { wishes.into() }
}

fn health_check(health: &HealthChecks, protocol: Option<BackendProtocol>) -> Option<Box<HealthCheck>> {
    let probe = match &**health.probe.as_ref()? {
        HealthProbe::Path(path) => {
            let HealthStatuses(statuses) = health.statuses.as_deref().cloned().unwrap_or_else(HealthStatuses::usual);
            Probe::Http { path: path.as_str().into(), statuses }
        }
        HealthProbe::Grpc(service) => Probe::Grpc { service: service.as_str().into() },
    };
    let seconds = |given: Option<HealthSeconds>, usual| {
        let HealthSeconds(seconds) = given.unwrap_or(HealthSeconds(usual));
        Duration::from_secs(seconds.into())
    };
    let count = |given: Option<HealthCount>, usual| {
        let HealthCount(count) = given.unwrap_or(HealthCount(usual));
        count.into()
    };
    Some(Box::new(HealthCheck {
        probe,
        tls: matches!(protocol, Some(BackendProtocol::Https | BackendProtocol::Grpcs)),
        interval: seconds(health.interval, 10),
        timeout: seconds(health.timeout, 3),
        unhealthy_after: count(health.unhealthy_after, 3),
        healthy_after: count(health.healthy_after, 2),
    }))
}

fn cookie(affinity: &Affinity) -> (SessionCookie, bool) {
    let cookie = SessionCookie {
        name: affinity.cookie_name.as_ref().map_or("INGRESSCOOKIE", |name| name.as_str()).into(),
        expires: affinity.cookie_expires.map(|seconds| seconds.0),
        max_age: affinity.cookie_max_age.map(|seconds| seconds.0),
        domain: affinity.cookie_domain.as_ref().map(|domain| domain.as_str().into()),
        secure: affinity.cookie_secure.unwrap_or_default(),
        same_site: affinity.cookie_same_site.map(|same_site| match same_site {
            value::SameSite::None => SameSite::None,
            value::SameSite::Lax => SameSite::Lax,
            value::SameSite::Strict => SameSite::Strict,
        }),
        conditional_same_site_none: affinity.cookie_conditional_same_site_none.unwrap_or_default(),
    };
    (cookie, affinity.cookie_change_on_failure.unwrap_or_default())
}
