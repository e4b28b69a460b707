//! The paths of an Ingress as the proxy serves them: in its order, without those that belong to others, each with its Service.

use std::collections::BTreeMap;

use fairway_model::{Action, Backends, Forward, HostPattern, Origin};
use fairway_translate::annotation::IngressAnnotations;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::assemble::Assembling;
use super::policy::Obstacle;
use super::route::{self, ServedPath};
use super::whole::is_broken;

impl Assembling<'_> {
    /// The paths of each host, as the proxy serves them.
    pub(super) fn hosts(
        &self,
        key: &ObjectKey,
        ingress: &Ingress,
        values: &IngressAnnotations,
        plainly: bool,
        lost: &mut Vec<(String, String)>,
    ) -> Result<BTreeMap<HostPattern, Vec<ServedPath>>, Obstacle> {
        let obstacle = |why: String| Obstacle { annotation: "", why };
        let mut placed: BTreeMap<HostPattern, Vec<ServedPath>> = BTreeMap::new();
        let Some(spec) = &ingress.spec else { return Ok(BTreeMap::new()) };
        for (at, rule) in spec.rules.iter().flatten().enumerate() {
            let pattern = match rule.host.as_deref().filter(|host| !host.is_empty()) {
                None => HostPattern::Any,
                Some(host) => match host.strip_prefix("*.") {
                    Some(parent) => {
                        HostPattern::Label(parent.parse().map_err(|_| obstacle(format!("host {host} is no name")))?)
                    }
                    None => HostPattern::Exact(host.parse().map_err(|_| obstacle(format!("host {host} is no name")))?),
                },
            };
            for (path_at, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let section = format!("rules[{at}].paths[{path_at}]");
                let all = self.served(key, &pattern, &section);
                if all.is_empty() {
                    return Err(obstacle(format!("spec.{section} is not served")));
                }
                let is_before_a_pattern =
                    |place| self.served.get(&pattern).is_some_and(|served| served.is_before_a_pattern(place));
                for (place, found, winner) in all {
                    if is_broken(found) {
                        return Err(obstacle(format!("spec.{section}: {} is not a usable pattern", found.rule)));
                    }
                    let has_canary =
                        matches!(&found.action, Action::Forward(Forward { backends: Backends::Canary(_), .. }));
                    if has_canary {
                        let why = format!("spec.{section} has a canary, which would get no requests any more");
                        return Err(obstacle(why));
                    }
                    if let Some(winner) = winner {
                        let text = format!(
                            "{} of {pattern} is left out: it belongs to {winner}, which comes first",
                            found.rule
                        );
                        lost.push(("path".to_owned(), text));
                        continue;
                    }
                    let backend = self.backend(key, path).map_err(obstacle)?;
                    let matched = route::matched(found, values, plainly && !is_before_a_pattern(place));
                    let path = ServedPath { matched, backend: Some(backend), place };
                    placed.entry(pattern.clone()).or_default().push(path);
                }
            }
            // Its other paths are those of the default backend.
            if spec.default_backend.is_some() {
                placed.entry(pattern).or_default();
            }
        }
        let mut hosts = placed;
        for paths in hosts.values_mut() {
            // Patterns are tried in this order.
            paths.sort_by_key(|path| path.place);
            route::drop_what_follows_takes(paths);
            route::keep_order(paths);
        }
        if let Some(backend) = &spec.default_backend {
            let path = HTTPIngressPath { backend: backend.clone(), ..HTTPIngressPath::default() };
            let backend = self.backend(key, &path).map_err(obstacle)?;
            // Beside rules it is for their hosts only.
            if spec.rules.iter().flatten().next().is_none() {
                hosts.insert(HostPattern::Any, Vec::new());
            }
            for (pattern, paths) in &mut hosts {
                if self.served(key, pattern, "defaultBackend").is_empty() {
                    continue;
                }
                let matched = route::root();
                if paths.iter().all(|path| path.matched != matched) {
                    paths.push(ServedPath { matched, backend: Some(backend.clone()), place: usize::MAX });
                }
            }
        }
        for (pattern, paths) in &mut hosts {
            let root = route::root();
            // What the Ingress has on a host without a path `/`, it has for all other paths too, where they lead nowhere.
            if !self.served(key, pattern, "").is_empty() && paths.iter().all(|path| path.matched != root) {
                paths.push(ServedPath { matched: root, backend: None, place: usize::MAX });
            }
        }
        Ok(hosts)
    }

    /// The routes of a path, each with its place among those of the host, and who has the path if it is another Ingress.
    fn served(
        &self,
        key: &ObjectKey,
        pattern: &HostPattern,
        section: &str,
    ) -> Vec<(usize, &fairway_model::Route, Option<&Origin>)> {
        let Some(served) = self.served.get(pattern) else { return Vec::new() };
        let places = served.places(&key.origin().section(section)).into_iter();
        places
            .filter_map(|place| {
                let winner = served.winner(place).map(|route| &route.origin);
                Some((place, served.host.routes().get(place)?, winner))
            })
            .collect()
    }

    /// The Service of a path, with the number of its port.
    fn backend(&self, key: &ObjectKey, path: &HTTPIngressPath) -> Result<(String, i32), String> {
        let service = path.backend.service.as_ref().ok_or("a backend is no Service")?;
        let found = match self.reading.objects.get(&ObjectKey::new(Kind::Service, &*key.namespace, &*service.name)) {
            Some(Object::Service(found)) => found.spec.as_ref(),
            _ => None,
        };
        if found.is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName")) {
            return Err(format!(
                "Service {} is an ExternalName, which routes can't lead to: write an XBackend of type ExternalHostname (docs/gateway-api.md)",
                service.name
            ));
        }
        let port = service.port.as_ref();
        let found = found.and_then(|spec| spec.ports.as_ref());
        if let Some(number) = port.and_then(|port| port.number).filter(|number| *number != 0) {
            // An Ingress may name the target port, a route may not.
            let is_meant =
                |port: &&ServicePort| port.port == number || port.target_port == Some(IntOrString::Int(number));
            let of_service = found.and_then(|ports| ports.iter().find(is_meant)).map(|port| port.port);
            return Ok((service.name.clone(), of_service.unwrap_or(number)));
        }
        let name = port.and_then(|port| port.name.as_deref()).unwrap_or_default();
        let found = found.and_then(|ports| ports.iter().find(|port| port.name.as_deref() == Some(name)));
        let number = found.map(|port| port.port);
        let number = number.ok_or_else(|| {
            format!("port {name} of Service {} is not known: add the Service to the files", service.name)
        })?;
        Ok((service.name.clone(), number))
    }
}
