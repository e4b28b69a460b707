//! What an Ingress has besides its own annotations: the ConfigMap's restrictions, the certificate of its hosts, and older Ingresses. And
//! whether the API server takes what it becomes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use fairway_model::{Action, HostPattern, Location, PathMatch, PathRegex, Route};
use fairway_translate::annotation::IngressAnnotations;
use fairway_translate::gateway::policy::{ClientAccess, Network, RoutePolicySpec};
use fairway_translate::gateway::schema::Listed;
use fairway_translate::objects::{Kind, Object, ObjectKey, Objects};
use fairway_translate::value::{AccessList, GlobalAuthUrl};
use k8s_openapi::api::networking::v1::{Ingress, IngressTLS};

use super::assemble::Assembling;
use super::gateway::covers;
use super::policy::Obstacle;
use crate::manifest::refusals;

/// Keys of the ConfigMap whose text concerns each request of an Ingress, and that have no place in the Gateway API.
const TEXTS: [&str; 5] = ["block-user-agents", "block-referers", "http-snippet", "server-snippet", "location-snippet"];

/// The certificate of a host.
pub(super) enum HostCertificate {
    /// The host has no TLS entry.
    None,
    Secret(ObjectKey),
    /// It is served over https, and the reason why the Secret is not known.
    Unknown(String),
}

impl Assembling<'_> {
    /// What the ConfigMap restricts for this Ingress: lists of addresses are added to its policy, the rest is an obstacle.
    pub(super) fn restrict(&self, values: &IngressAnnotations, spec: &mut RoutePolicySpec) -> Result<(), Obstacle> {
        let of_all = |annotation: &'static str, why: &str| Obstacle {
            annotation,
            why: format!("the ConfigMap sets it for all Ingresses, and {why}"),
        };
        for key in TEXTS {
            if self.setting(key).is_some() {
                return Err(of_all(key, "it has no place in a RoutePolicy"));
            }
        }
        let is_asked = values.external_auth.url.is_none() && values.access.global_auth != Some(false);
        if self.config.global_auth_url != GlobalAuthUrl::Unset && is_asked {
            let why = "write externalAuth into a RoutePolicy for the Gateway, or auth-url at each Ingress";
            return Err(of_all("global-auth-url", why));
        }
        let list = |own: bool, global: &AccessList, key: &'static str| match global {
            AccessList::Networks(networks) if !own => {
                let networks: Vec<_> = networks.clone().into();
                Ok(Some(networks.iter().map(|network| Network(format!("{network}"))).collect::<Vec<_>>()))
            }
            AccessList::Unreadable if !own => Err(of_all(key, "it can't be read")),
            _ => Ok(None),
        };
        let access = &values.access;
        let allow = list(access.allow.is_some(), &self.config.allow, "whitelist-source-range")?;
        let mut deny = list(access.deny.is_some(), &self.config.deny, "denylist-source-range")?;
        if access.allow.is_none() && access.deny.is_none() && allow.is_none() && deny.is_none() {
            deny = list(false, &self.config.block, "block-cidrs")?;
        }
        if allow.is_none() && deny.is_none() {
            return Ok(());
        }
        let of_ingress = spec.access.take();
        let any = (access.satisfy == Some(fairway_translate::value::Satisfy::Any))
            .then(|| fairway_translate::gateway::policy::Satisfaction("Any".to_owned()));
        let (own_allow, own_deny) = of_ingress.map(|own| (own.allow, own.deny)).unwrap_or_default();
        spec.access = Some(ClientAccess {
            allow: own_allow.or(allow.map(Listed)),
            deny: own_deny.or(deny.map(Listed)),
            satisfy: any,
            ..ClientAccess::default()
        });
        Ok(())
    }

    /// The certificate of a host, as the proxy chooses it: the oldest Ingress of the host with a TLS entry decides.
    pub(super) fn certificate(&self, host: &HostPattern) -> HostCertificate {
        if *host == HostPattern::Any {
            return HostCertificate::None;
        }
        let name = host.to_string();
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let decides = self.deciding.get(&name).or_else(|| match host {
            HostPattern::Exact(_) => self.deciding.get(&wildcard?),
            _ => None,
        });
        let Some((key, entries)) = decides else { return HostCertificate::None };
        let in_use = self.served.get(host).and_then(|served| served.host.certificate());
        if let Some((namespace, secret)) = in_use.and_then(|certificate| certificate.as_str().split_once('/')) {
            return HostCertificate::Secret(ObjectKey::new(Kind::Secret, namespace, secret));
        }
        let lists = |is_it: &dyn Fn(&str) -> bool| {
            entries.iter().find(|tls| {
                tls.hosts.iter().flatten().any(|listed| is_it(&listed.trim_end_matches('.').to_ascii_lowercase()))
            })
        };
        let entry = lists(&|listed| listed == name).or_else(|| lists(&|listed| covers(listed, &name)));
        match entry.and_then(|tls| tls.secret_name.as_deref()).filter(|secret| !secret.is_empty()) {
            Some(secret) => HostCertificate::Secret(ObjectKey::new(Kind::Secret, &*key.namespace, secret)),
            None => match &self.reading.options.default_ssl_certificate {
                Some((namespace, secret)) => {
                    HostCertificate::Secret(ObjectKey::new(Kind::Secret, &**namespace, &**secret))
                }
                None if entry.is_some() => {
                    HostCertificate::Unknown(format!("the TLS entry for {host} names no Secret"))
                }
                None => HostCertificate::Unknown(format!("no TLS entry of {key} lists {host}")),
            },
        }
    }
}

/// The Ingress that decides about the certificate of each host, with its TLS entries: the oldest that has any.
pub(super) fn deciding(
    served: &[(&ObjectKey, Ingress)],
    objects: &Objects,
    left_out: &BTreeSet<ObjectKey>,
) -> BTreeMap<String, (ObjectKey, Vec<IngressTLS>)> {
    let places: BTreeMap<_, _> = objects.in_order().into_iter().map(Object::key).zip(0_usize..).collect();
    let mut all: Vec<_> = served.iter().filter(|(key, _)| !left_out.contains(*key)).collect();
    // Those without a time come last, in the order of reading.
    all.sort_by_key(|(key, ingress)| {
        let created = ingress.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let name = created.map(|_| format!("{}/{}", key.namespace, key.name));
        (created.is_none(), created, Reverse(name), places.get(*key).copied())
    });
    let mut deciding = BTreeMap::new();
    for (key, ingress) in all {
        let Some(spec) = &ingress.spec else { continue };
        let Some(entries) = spec.tls.as_ref().filter(|entries| !entries.is_empty()) else { continue };
        for host in spec.rules.iter().flatten().filter_map(|rule| rule.host.as_deref()) {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            deciding.entry(host).or_insert_with(|| ((*key).clone(), entries.clone()));
        }
    }
    deciding
}

/// Whether a route of an Ingress sends `/` to another path of its host, and stands for no path of the Ingress.
pub(super) fn is_app_root(route: &Route) -> bool {
    matches!(&route.action, Action::Redirect(redirect) if matches!(redirect.location, Location::AppRoot(_)))
}

/// Whether a path is a pattern that can't be matched on: something wider is closed in its place.
pub(super) fn is_broken(route: &Route) -> bool {
    matches!(route.path, PathMatch::Regex(_)) && route.rule.parse::<PathRegex>().is_err()
}

/// Why the API server would refuse an object of an Ingress.
pub(super) fn judged(object: &Object) -> Result<(), Obstacle> {
    let Some(why) = refusals(object, &super::document(object)).into_iter().next() else { return Ok(()) };
    let why = format!("the API server would refuse {}: {why}", object.key());
    Err(Obstacle { annotation: "", why })
}
