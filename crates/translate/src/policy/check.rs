//! Who may send requests: the filters of addresses and limits, and how they combine with the authentication filters.

use std::num::NonZeroU32;
use std::time::Duration;

use fairway_model::{AccessList, BasicAuth, ClientLimits, Filter, RequestRate, Respond};

use crate::annotation::{IngressAnnotations, RequestLimits};
use crate::configmap::GlobalConfig;
use crate::value::{self, ErrorStatus};

/// The checks that a request passes before the action.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// By number.
    pub(crate) limits: Option<Filter>,
    /// By address.
    pub(crate) access: Option<Filter>,
    /// By name and password.
    pub(crate) password: Option<Filter>,
    /// By a service.
    pub(crate) authentication: Option<Filter>,
    /// Whether one of the last three is enough (`satisfy any`).
    pub(crate) any: bool,
}

impl Checks {
    /// Whether either an allowed address or authentication is enough. Without authentication there is no choice.
    pub(crate) fn are_alternatives(&self) -> bool {
        self.any && (self.password.is_some() || self.authentication.is_some())
    }

    /// The filters, in their order.
    pub(crate) fn into_filters(self) -> impl Iterator<Item = Filter> {
        let either = self.are_alternatives();
        let Self { limits, access, password, authentication, .. } = self;
        let access = access.map(|access| match access {
            Filter::AccessList(list) if either => Filter::AccessListOrAuth(list),
            access => access,
        });
        let password = password.map(|password| match password {
            Filter::BasicAuth(auth) if either && authentication.is_some() => {
                Filter::BasicAuth(Box::new(BasicAuth { or_service: true, ..*auth }))
            }
            password => password,
        });
        limits.into_iter().chain(access).chain(password).chain(authentication)
    }
}

/// The filter of client addresses, and the reason for denying all clients if a list of the ConfigMap can't be read. A list of the
/// Ingress replaces the ConfigMap's list of the same kind.
pub(crate) fn access(annotations: &IngressAnnotations, config: &GlobalConfig) -> (Option<Filter>, Option<Box<str>>) {
    use value::AccessList::{Networks, Unreadable, Unset};
    let pick = |own: &Option<fairway_model::NetworkSet>, global: &value::AccessList| match (own, global) {
        (Some(own), _) => Networks(own.clone()),
        (None, global) => global.clone(),
    };
    let allow = pick(&annotations.access.allow, &config.allow);
    let mut deny = pick(&annotations.access.deny, &config.deny);
    if allow == Unset && deny == Unset {
        deny = config.block.clone();
    }
    if allow == Unreadable || deny == Unreadable {
        return (None, Some("an address list of the ConfigMap can't be read".into()));
    }
    let (allow, deny) = match (allow, deny) {
        (Unset, Unset) => return (None, None),
        (allow, deny) => (allow, deny),
    };
    let networks = |list| match list {
        Networks(networks) => Some(networks),
        Unset | Unreadable => None,
    };
    let list = AccessList { deny: networks(deny).unwrap_or_default(), allow: networks(allow) };
    (Some(Filter::AccessList(list)), None)
}

/// The limits for clients. `scope` is where requests are counted; `over` has the status for exceeding a rate, and that for exceeding the
/// number in progress.
pub(crate) fn limits(scope: String, limits: &RequestLimits, over: (ErrorStatus, ErrorStatus)) -> Option<Filter> {
    let positive = |limit: Option<i64>| NonZeroU32::new(limit?.clamp(0, u32::MAX.into()) as u32);
    let rate = |limit, seconds| {
        let requests = positive(limit)?;
        let burst = requests.get().saturating_mul(limits.burst_multiplier.unwrap_or(5));
        Some(RequestRate { requests, period: Duration::from_secs(seconds), burst })
    };
    let (per_second, per_minute) = (rate(limits.per_second, 1), rate(limits.per_minute, 60));
    let in_progress = positive(limits.in_progress);
    if per_second.is_none() && per_minute.is_none() && in_progress.is_none() {
        return None;
    }
    let limits = ClientLimits {
        scope: scope.into(),
        per_second,
        per_minute,
        in_progress,
        exempt: limits.exempt.clone().unwrap_or_default(),
        over_rate: Respond::page(over.0.0),
        over_requests: Respond::page(over.1.0),
    };
    Some(Filter::ClientLimits(limits.into()))
}
