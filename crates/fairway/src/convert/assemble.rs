//! All Ingresses as one Gateway, routes and policies, with what is lost.

use std::collections::{BTreeMap, BTreeSet};

use fairway_model::{HostPattern, Origin};
use fairway_translate::annotation::{self, Annotations, Denial, IngressAnnotations};
use fairway_translate::configmap::{self, GlobalConfig};
use fairway_translate::gateway::api::{
    self, HTTPRoute, HTTPRouteFilter, HTTPRouteRule, HTTPRouteSpec, ParentReference,
};
use fairway_translate::gateway::policy::{self, RoutePolicy, Target, TargetGroup, TargetKind};
use fairway_translate::gateway::schema::Listed;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::value::Seconds;
use fairway_translate::verdict;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressTLS};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::gateway::{LISTENERS, listener_name};
use super::order::Placed;
use super::policy::{Annotated, Defaults, Obstacle};
use super::route::{self, RULES, ServedPath};
use super::served::ServedHosts;
use super::table::{CONVERTED, FOR_LISTENERS, OBSTACLES, OF_INGRESSES};
use super::whole::{HostCertificate, deciding, judged};
use crate::reading::Reading;

/// What a conversion yields.
#[derive(Default)]
pub(super) struct Converted {
    pub(super) objects: Vec<Object>,
    pub(super) notes: Vec<Remark>,
    /// The Ingresses that have been converted.
    pub(super) done: BTreeSet<ObjectKey>,
    /// Their paths, but for those that belong to others.
    pub(super) placed: Vec<Placed>,
    /// The Ingress of each HTTPRoute.
    pub(super) routes: BTreeMap<String, String>,
    /// The Secrets of the listeners.
    pub(super) certificates: BTreeSet<ObjectKey>,
    /// The hosts that are served over https.
    pub(super) secured: BTreeSet<String>,
}

/// Something that a reader has to know.
#[derive(Debug, Serialize)]
pub(super) struct Remark {
    /// The Ingress.
    pub(super) object: String,
    pub(super) verdict: Verdict,
    /// The annotation, without the prefix, or the field.
    pub(super) about: String,
    pub(super) text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The Ingress is left as it is.
    NotConverted,
    /// An annotation has no effect any more.
    Lost,
    /// Answers differ in something.
    Changes,
}

/// The Gateway to make.
pub(super) struct Wanted {
    /// Namespace and name.
    pub(super) gateway: Option<(String, String)>,
    pub(super) class: String,
    /// Ingresses that would serve more than now if they were converted, each with the reason.
    pub(super) wider: BTreeMap<String, String>,
}

/// A route to make; it may become several.
struct Draft {
    /// Whether it only sends clients to https.
    to_https: bool,
    hosts: Vec<String>,
    listeners: Vec<String>,
    rules: Vec<HTTPRouteRule>,
}

/// Converts all Ingresses that are served.
pub(super) fn convert(reading: &Reading, wanted: &Wanted) -> Converted {
    let mut converted = Converted::default();
    let left_out: BTreeSet<_> = reading.left_out.iter().map(|left| left.ingress.clone()).collect();
    let served = reading.objects.of_kind(Kind::Ingress).filter_map(|(key, object)| match object {
        Object::Ingress(ingress) if !reading.foreign.contains(&key.origin()) => Some((key, ingress.read())),
        _ => None,
    });
    let served: Vec<_> = served.collect();
    let Some((first, _)) = served.first() else { return converted };
    let gateway = wanted.gateway.clone().unwrap_or_else(|| (first.namespace.to_string(), "fairway".to_owned()));
    let mut all = Assembling {
        reading,
        served: ServedHosts::new(&reading.snapshot),
        gateway: ObjectKey::new(Kind::Gateway, gateway.0, gateway.1),
        listeners: BTreeMap::new(),
        barriers: BTreeSet::new(),
        secrets: BTreeSet::new(),
        names: BTreeSet::new(),
        deciding: BTreeMap::new(),
        config: GlobalConfig::default(),
        converted: &mut converted,
    };
    if let Some((key, data)) = reading.settings() {
        all.config = GlobalConfig::read(&key.origin(), data, &mut Vec::new());
    }
    let of_ingresses = OF_INGRESSES.iter().filter(|key| {
        let is_neutral = |value: &str| configmap::spec(key).is_some_and(|spec| spec.is_neutral(value));
        all.setting(key).is_some_and(|value| !is_neutral(value))
    });
    let of_ingresses: Vec<_> = of_ingresses.copied().collect();
    if let (Some((namespace, name)), false) = (&reading.options.configmap, of_ingresses.is_empty()) {
        let text = "what the ConfigMap sets there holds for Ingresses, and not for routes";
        all.note(&ObjectKey::new(Kind::ConfigMap, namespace, name), Verdict::Lost, &of_ingresses.join(", "), text);
    }
    all.deciding = deciding(&served, &reading.objects, &left_out);
    for (key, ingress) in &served {
        if let Some(why) = wanted.wider.get(&key.to_string()) {
            all.note(key, Verdict::NotConverted, "", &format!("{why}; the Ingress is not converted"));
            continue;
        }
        if left_out.contains(*key) {
            all.note(key, Verdict::NotConverted, "", "it is not loaded, see fairway check");
            continue;
        }
        match all.ingress(key, ingress) {
            Ok(()) => {
                all.converted.done.insert((*key).clone());
            }
            Err(Obstacle { annotation, why }) => {
                all.note(key, Verdict::NotConverted, annotation, &format!("{why}; the Ingress is not converted"));
            }
        }
    }
    all.finish(&wanted.class);
    converted
}

pub(super) struct Assembling<'a> {
    pub(super) reading: &'a Reading,
    pub(super) served: ServedHosts<'a>,
    pub(super) gateway: ObjectKey,
    /// The HTTPS listeners by host, each with its Secret.
    pub(super) listeners: BTreeMap<String, ObjectKey>,
    /// The hosts with a listener of their own for plain HTTP.
    pub(super) barriers: BTreeSet<String>,
    /// Secrets of other namespaces than that of the Gateway.
    pub(super) secrets: BTreeSet<ObjectKey>,
    pub(super) names: BTreeSet<ObjectKey>,
    /// The Ingress that decides about the certificate of a host, with its TLS entries.
    pub(super) deciding: BTreeMap<String, (ObjectKey, Vec<IngressTLS>)>,
    pub(super) config: GlobalConfig,
    pub(super) converted: &'a mut Converted,
}

impl Assembling<'_> {
    pub(super) fn note(&mut self, key: &ObjectKey, verdict: Verdict, about: &str, text: &str) {
        let (object, about, text) = (key.to_string(), about.to_owned(), text.to_owned());
        self.converted.notes.push(Remark { object, verdict, about, text });
    }

    /// The routes and the policy of one Ingress. Nothing of it is kept if there is an obstacle.
    fn ingress(&mut self, key: &ObjectKey, ingress: &Ingress) -> Result<(), Obstacle> {
        let prefix = &self.reading.options.annotations_prefix;
        let none = BTreeMap::new();
        let written = ingress.metadata.annotations.as_ref().unwrap_or(&none);
        let origin = key.origin();
        let values = self.values(&origin, written)?;
        let text = |name: &str| {
            let value = written.get(&format!("{prefix}/{name}")).map(String::as_str);
            value.filter(|value| !value.trim().is_empty())
        };
        for (name, why) in OBSTACLES {
            let is_neutral = |value: &str| annotation::spec(name).is_some_and(|spec| spec.is_neutral(value));
            let off = |value: &str| matches!(value, "false" | "HTTP") || is_neutral(value);
            if text(name).is_some_and(|value| !off(value.trim())) {
                return Err(Obstacle { annotation: name, why: (*why).to_owned() });
            }
        }
        let mut lost = Vec::new();
        for (name, value) in written {
            let own = name.strip_prefix(prefix).and_then(|name| name.strip_prefix('/'));
            let Some(own) = own else {
                if FOR_LISTENERS.iter().any(|group| name.starts_with(group)) {
                    self.note(
                        key,
                        Verdict::Lost,
                        name,
                        "it is not converted: what reads it looks at Gateways or routes",
                    );
                }
                continue;
            };
            let is_known = CONVERTED.contains(&own) || OBSTACLES.iter().any(|(known, _)| *known == own);
            let says_nothing = annotation::spec(own).is_some_and(|spec| {
                matches!(spec.verdict, verdict::Verdict::Harmless(_)) || spec.is_neutral(value.trim())
            });
            if text(own).is_some() && !is_known && !says_nothing {
                let text = match own {
                    "enable-opentelemetry" => {
                        "it is not converted: an XTelemetryPolicy for the Gateway traces its requests"
                    }
                    _ if own.starts_with("opentelemetry-") => "it is not converted: see tracing of an XTelemetryPolicy",
                    _ => "it is not converted",
                };
                self.note(key, Verdict::Lost, own, text);
            }
        }
        let cors = &values.cross_origin;
        let names_any = text("cors-allow-origin").is_none_or(|origins| origins.split(',').any(|one| one.trim() == "*"));
        if cors.enabled == Some(true) && cors.credentials != Some(false) && names_any {
            let why = "credentials can't be allowed for every origin, and browsers refuse that too: list the origins";
            lost.push(("cors-allow-credentials".to_owned(), why.to_owned()));
        }
        if cors.enabled == Some(true) && !names_any {
            let about = || "cors-allow-origin".to_owned();
            if text("cors-allow-origin").is_some_and(|origins| origins.contains('*')) {
                lost.push((about(), "in a route, * also stands for several labels, such as a.b".to_owned()));
            }
            lost.push((about(), "preflights from other origins get 204 and don't reach the backend".to_owned()));
        }
        let captures =
            |hosts: &BTreeMap<HostPattern, Vec<ServedPath>>| hosts.values().flatten().any(|path| path.matched.captures);
        let plain = self.hosts(key, ingress, &values, true, &mut lost)?;
        // What rewrites by captures is a policy for all paths.
        let hosts = if captures(&plain) { self.hosts(key, ingress, &values, false, &mut lost)? } else { plain };
        let replaced = hosts.values().flatten().filter(|path| path.matched.is_replaced());
        lost.extend(replaced.map(|path| {
            ("path".to_owned(), format!("{} becomes a prefix, which routes match case-sensitively", path.matched))
        }));
        let placed: Vec<_> = hosts
            .iter()
            .flat_map(|(host, paths)| paths.iter().map(move |path| (host, path)))
            .map(|(host, ServedPath { matched, place, .. })| Placed {
                host: host.clone(),
                ingress: key.clone(),
                place: *place,
                matched: matched.clone(),
            })
            .collect();
        let objects = &self.reading.objects;
        let service = |name: &str| -> Option<&Service> {
            match objects.get(&ObjectKey::new(Kind::Service, &*key.namespace, name)) {
                Some(Object::Service(service)) => Some(&**service),
                _ => None,
            }
        };
        let only = match hosts.keys().collect::<Vec<_>>()[..] {
            [HostPattern::Exact(name)] => Some(name.as_str().to_owned()),
            _ => None,
        };
        let annotated = Annotated {
            namespace: &key.namespace,
            values: &values,
            text: &text,
            host: only.as_deref(),
            service: &service,
        };
        let mut spec = super::policy::spec(&annotated, &self.defaults(), &mut lost)?;
        self.restrict(&values, &mut spec)?;
        if captures(&hosts)
            && let Some(target) = &values.rewriting.rewrite_target
        {
            let prefix = values.rewriting.forwarded_prefix.as_ref().map(|prefix| prefix.as_str());
            spec.rewrite = Some(super::policy::rewrite(target.as_str(), prefix));
        }
        let slashed = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
        let slashed = slashed.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
        let slashed =
            slashed.filter_map(|path| path.path.as_deref()?.strip_suffix('/').filter(|path| !path.is_empty()));
        lost.extend(slashed.map(|path| ("path".to_owned(), format!("{path} is not redirected to {path}/"))));
        let redirect = route::redirect(&values)?;
        if redirect.is_some() {
            let name = if values.redirects.temporal.is_some() { "temporal-redirect" } else { "permanent-redirect" };
            lost.push((name.to_owned(), "the redirect keeps the query of the request".to_owned()));
        }
        let mut routes = Vec::new();
        let forced =
            values.redirects.force_ssl_redirect.unwrap_or_else(|| self.setting("force-ssl-redirect") == Some("true"));
        let mut certificates = BTreeMap::new();
        for host in hosts.keys() {
            match self.certificate(host) {
                // Only https would be left, and nobody answers there.
                HostCertificate::None if forced && redirect.is_none() => {
                    let usual = self.reading.options.default_ssl_certificate.as_ref();
                    let Some((namespace, secret)) = usual.filter(|_| *host != HostPattern::Any) else {
                        let why = format!(
                            "{host} has no certificate for https: write a TLS entry, or give --default-ssl-certificate"
                        );
                        return Err(Obstacle { annotation: "force-ssl-redirect", why });
                    };
                    certificates.insert(host.clone(), ObjectKey::new(Kind::Secret, &**namespace, &**secret));
                }
                HostCertificate::None => {}
                HostCertificate::Secret(secret) => {
                    certificates.insert(host.clone(), secret);
                }
                HostCertificate::Unknown(why) => {
                    let why = format!("{why}, so it has the default certificate: give --default-ssl-certificate");
                    return Err(Obstacle { annotation: "tls", why });
                }
            }
        }
        let of_host = |host: &HostPattern| certificates.get(host);
        // Hosts with TLS and without are apart: they attach to other listeners.
        let (secured, plain): (BTreeMap<_, _>, BTreeMap<_, _>) =
            hosts.into_iter().partition(|(host, _)| of_host(host).is_some());
        let redirects = &values.redirects;
        let status = self.redirect_status();
        let asked = redirects.ssl_redirect.unwrap_or_else(|| self.setting("ssl-redirect") != Some("false"));
        let hsts = self.reading.snapshot.settings().strict_transport_security.as_deref();
        let (mut listeners, mut barriers) = (Vec::new(), BTreeSet::new());
        for (is_secured, hosts) in [(true, secured), (false, plain)] {
            let to_https = forced || (asked && is_secured);
            if to_https && redirect.is_none() && !hosts.is_empty() && redirects.preserve_trailing_slash != Some(true) {
                lost.push((
                    "ssl-redirect".to_owned(),
                    "redirects to https keep a slash at the end of the path".to_owned(),
                ));
            }
            let plain_filters = route::filters(&values, &|name| text(name).map(str::to_owned), None)?;
            let secure_filters = route::filters(&values, &|name| text(name).map(str::to_owned), hsts)?;
            for (hosts, paths) in route::groups(hosts) {
                let names: Vec<String> = hosts.iter().filter_map(host_name).collect();
                let rules = |filters: &[HTTPRouteFilter]| -> Vec<HTTPRouteRule> {
                    let mut rules = route::rules(&paths, filters);
                    if let Some(redirect) = &redirect {
                        let before = filters.iter().filter(|filter| filter.r#type == "ResponseHeaderModifier");
                        let filters: Vec<_> = before.chain([redirect]).cloned().collect();
                        for rule in &mut rules {
                            (rule.filters, rule.backend_refs) = (filters.clone(), Vec::new());
                        }
                    } else {
                        rules.retain(|rule| !rule.backend_refs.is_empty());
                    }
                    rules
                };
                let mut https = Vec::new();
                for host in &hosts {
                    if let (Some(name), Some(secret)) = (host_name(host), of_host(host)) {
                        https.push(listener_name(&name));
                        listeners.push((name, secret.clone()));
                    }
                }
                let http = self.plain_listeners(hosts.iter(), &mut barriers);
                match (to_https && redirect.is_none(), is_secured) {
                    (true, _) => {
                        let rules = route::to_https(&route::rules(&paths, &[]), status);
                        routes.push(Draft { to_https: true, hosts: names.clone(), listeners: http, rules });
                    }
                    (false, true) if hsts.is_none() => https.extend(http),
                    // Only answers over TLS say that TLS is to be used from now on.
                    (false, _) => {
                        let rules = rules(&plain_filters);
                        routes.push(Draft { to_https: false, hosts: names.clone(), listeners: http, rules });
                    }
                }
                if is_secured {
                    let rules = rules(&secure_filters);
                    routes.push(Draft { to_https: false, hosts: names, listeners: https, rules });
                }
            }
            if hosts_below(&routes) {
                lost.push(("host".to_owned(), "*.NAME of a Gateway takes names of more labels too".to_owned()));
            }
        }
        let (mut targets, mut objects) = (Vec::new(), Vec::<Object>::new());
        for Draft { to_https, hosts, listeners, rules } in routes {
            if route::order_is_split(&rules) {
                let why = format!(
                    "its patterns are tried in order, which takes more rules than the {RULES} that an HTTPRoute may have"
                );
                return Err(Obstacle { annotation: "", why });
            }
            for rules in rules.chunks(RULES) {
                let name = self.name(Kind::HTTPRoute, key, if to_https { "-to-https" } else { "" });
                let mut route = self.route(key, &name, &hosts, &listeners, rules.to_vec());
                if let Some(observe) = written.get(annotation::OBSERVE) {
                    route.metadata.annotations = Some([(annotation::OBSERVE.to_owned(), observe.clone())].into());
                }
                // Redirects come before all checks.
                if !to_https && redirect.is_none() {
                    targets.push(Target {
                        group: TargetGroup(api::GROUP.to_owned()),
                        kind: TargetKind("HTTPRoute".to_owned()),
                        name: policy::ObjectName(name),
                        ..Target::default()
                    });
                }
                objects.push(route.into());
            }
        }
        for targets in targets.chunks(16) {
            let name = self.name(Kind::RoutePolicy, key, "");
            let metadata = self.metadata(key, &name);
            let spec = policy::RoutePolicySpec { target_refs: Listed(targets.to_vec()), ..spec.clone() };
            objects.push(RoutePolicy { metadata, spec, ..RoutePolicy::default() }.into());
        }
        for object in &objects {
            judged(object)?;
        }
        let new: BTreeSet<_> =
            listeners.iter().map(|(host, _)| host).filter(|host| !self.listeners.contains_key(*host)).collect();
        let plain = 1 + self.barriers.union(&barriers).count();
        if plain + self.listeners.len() + new.len() > LISTENERS {
            let why = format!(
                "the Gateway has {LISTENERS} listeners, which is the maximum: convert this one separately, with --gateway for another Gateway"
            );
            return Err(Obstacle { annotation: "tls", why });
        }
        self.barriers.extend(barriers);
        for (host, secret) in listeners {
            self.listener(&host, secret);
        }
        let routes = objects.iter().filter(|object| object.kind() == Kind::HTTPRoute);
        self.converted.routes.extend(routes.map(|route| (route.key().to_string(), key.to_string())));
        self.converted.objects.extend(objects);
        self.converted.placed.extend(placed);
        self.grant(key, &values);
        lost.sort();
        lost.dedup();
        for (about, text) in lost {
            self.note(key, Verdict::Changes, &about, &text);
        }
        Ok(())
    }

    /// The annotations as the proxy reads them.
    fn values(&self, origin: &Origin, written: &BTreeMap<String, String>) -> Result<IngressAnnotations, Obstacle> {
        let all = Annotations::new(origin, &self.reading.options.annotations_prefix, written);
        let rules = self.config.annotation_rules(self.reading.options.ssl_passthrough);
        let read = annotation::read(&all, &rules, &mut Vec::new());
        let refused = |why: String| Obstacle { annotation: "", why };
        let values = read.map_err(|_| refused("its annotations are refused, see fairway check".to_owned()))?;
        if values.denial != Denial::None {
            let by = values.denied_by.as_deref().unwrap_or("an annotation that restricts it");
            return Err(refused(format!("{by} can't be applied, see fairway check")));
        }
        Ok(values)
    }

    /// A value of the ConfigMap.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.reading.settings()?.1.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn redirect_status(&self) -> u16 {
        self.setting("http-redirect-code").and_then(|code| code.parse().ok()).unwrap_or(308)
    }

    fn defaults(&self) -> Defaults {
        let over_rate = self.setting("limit-req-status-code").and_then(|code| code.parse().ok()).unwrap_or(503);
        let seconds = |name, value: Seconds| self.setting(name).map(|_| i64::from(value.0));
        Defaults {
            body_size: self.setting("proxy-body-size").unwrap_or("1m").to_owned(),
            over_rate,
            connect: seconds("proxy-connect-timeout", self.config.proxy_connect_timeout),
            send: seconds("proxy-send-timeout", self.config.proxy_send_timeout),
            read: seconds("proxy-read-timeout", self.config.proxy_read_timeout),
        }
    }

    /// A name for a route or policy of an Ingress that no other has.
    fn name(&mut self, kind: Kind, key: &ObjectKey, suffix: &str) -> String {
        let mut number = 1;
        loop {
            let more = if number == 1 { String::new() } else { format!("-{number}") };
            let name = format!("{}{suffix}{more}", key.name);
            if self.names.insert(ObjectKey::new(kind, &*key.namespace, &*name)) {
                return name;
            }
            number += 1;
        }
    }

    pub(super) fn metadata(&self, key: &ObjectKey, name: &str) -> ObjectMeta {
        ObjectMeta { namespace: Some(key.namespace.to_string()), name: Some(name.to_owned()), ..ObjectMeta::default() }
    }

    fn route(
        &self,
        key: &ObjectKey,
        name: &str,
        hostnames: &[String],
        listeners: &[String],
        rules: Vec<HTTPRouteRule>,
    ) -> HTTPRoute {
        let namespace = (key.namespace != self.gateway.namespace).then(|| self.gateway.namespace.to_string());
        let parent = |listener: &String| ParentReference {
            namespace: namespace.clone(),
            name: self.gateway.name.to_string(),
            section_name: Some(listener.clone()),
            ..ParentReference::default()
        };
        HTTPRoute {
            metadata: self.metadata(key, name),
            spec: HTTPRouteSpec {
                parent_refs: listeners.iter().map(parent).collect(),
                hostnames: hostnames.to_vec(),
                rules: Some(rules),
            },
            ..HTTPRoute::default()
        }
    }
}

/// A host as a route names it; `None` for all.
fn host_name(host: &HostPattern) -> Option<String> {
    (*host != HostPattern::Any).then(|| host.to_string())
}

/// Whether a route has a wildcard.
fn hosts_below(routes: &[Draft]) -> bool {
    routes.iter().flat_map(|route| &route.hosts).any(|host| host.starts_with("*."))
}
