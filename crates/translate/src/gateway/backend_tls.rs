//! BackendTLSPolicies: TLS to the endpoints of a Service.
//!
//! A policy that can't be applied makes its backend invalid: its share of the requests gets an error, and nothing goes there in the clear.
//! That holds for XBackends too, which have their own TLS: a policy for one is never applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{AlternativeName, Authority, CertificateName, Hostname, Trust, UpstreamTls};

use super::api::{BackendTLSPolicy, BackendTLSPolicySpec, BackendTlsValidation, GROUP, ParentReference, PolicyTarget};
use super::host::RouteAge;
use super::status::{AncestorStatus, Condition, FieldFault, Shortcoming};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::{Dirty, Output};
use crate::engine::shared::Shared;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::resource::certificate::authorities;
use crate::resource::{ConfigMaps, Owner};

/// The most Gateways that the status of a policy may name.
pub(super) const ANCESTORS: usize = 16;

/// TLS to a backend, or why it is impossible.
pub(super) type PolicyTls = Result<Arc<UpstreamTls>, String>;

/// All policies, by the Services and XBackends that they are for.
#[derive(Debug, Default)]
pub(super) struct BackendPolicies {
    policies: BTreeMap<ObjectKey, PolicyPart>,
    /// The policies of each Service or XBackend, oldest first.
    targets: BTreeMap<ObjectKey, BTreeSet<RouteAge>>,
    /// The policies that depend on a ConfigMap.
    config_maps: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    values: Shared<UpstreamTls>,
}

/// One policy.
#[derive(Debug)]
struct PolicyPart {
    owner: Arc<Owner>,
    turn: RouteAge,
    targets: Vec<PolicyFor>,
    /// Targets of other kinds, each with its place in the list.
    others: Vec<(usize, String)>,
    config_maps: BTreeSet<ObjectKey>,
    tls: PolicyTls,
    /// Why it is not accepted, as far as that does not depend on others.
    fault: Option<Shortcoming>,
    /// The first reference to an authority that can't be followed.
    unresolved: Option<Shortcoming>,
}

/// A target of a policy.
#[derive(Debug)]
struct PolicyFor {
    /// Its place in the list.
    at: usize,
    /// A Service, or an XBackend.
    object: ObjectKey,
    /// The name of a port; `None` for all ports.
    section: Option<Arc<str>>,
}

impl BackendPolicies {
    /// Marks the policies that depend on a ConfigMap.
    pub(super) fn touch_config_map(&self, key: &ObjectKey, dirty: &mut Dirty) {
        dirty.backend_policies.extend(self.config_maps.get(key).into_iter().flatten().cloned());
    }

    /// Why an XBackend is not used: a policy is for it.
    pub(super) fn refuses(&self, xbackend: &ObjectKey) -> Option<String> {
        let policy = self.for_service(xbackend).next()?;
        Some(format!("{policy} is for it: {}", of_its_own(xbackend)))
    }

    /// The policies for a Service or an XBackend.
    pub(super) fn for_service(&self, object: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.targets.get(object).into_iter().flatten().map(RouteAge::key)
    }

    /// TLS to a port of a Service; `None` if no policy is for it. A policy for the port comes before one for the whole Service.
    pub(super) fn tls(&self, service: &ObjectKey, port: Option<&str>) -> Option<&PolicyTls> {
        let port = port.filter(|name| !name.is_empty());
        let winner = port.and_then(|_| self.winner(service, port)).or_else(|| self.winner(service, None))?;
        Some(&winner.tls)
    }

    /// The oldest of the policies for exactly this target.
    fn winner(&self, service: &ObjectKey, section: Option<&str>) -> Option<&PolicyPart> {
        let is_for = |part: &&PolicyPart| {
            part.targets.iter().any(|target| target.object == *service && target.section.as_deref() == section)
        };
        self.for_service(service).filter_map(|key| self.policies.get(key)).find(is_for)
    }

    /// Reads a policy again. Returns the Services and XBackends that it was for or is for now.
    pub(super) fn read(
        &mut self,
        key: &ObjectKey,
        found: Option<(Arc<Owner>, RouteAge, &BackendTLSPolicy)>,
        objects: &Objects,
        config_maps: &mut ConfigMaps,
        dirty: &mut Dirty,
        out: &mut Output,
    ) -> BTreeSet<ObjectKey> {
        let mut targets = BTreeSet::new();
        if let Some(before) = self.policies.remove(key) {
            for map in &before.config_maps {
                config_maps.detach(map, &before.owner.age, dirty, out);
                remove(&mut self.config_maps, map, key);
            }
            for target in before.targets {
                remove(&mut self.targets, &target.object, &before.turn);
                targets.insert(target.object);
            }
        }
        let Some((owner, turn, policy)) = found else { return targets };
        let part = self.part(key, owner, turn, &policy.spec, objects);
        for map in &part.config_maps {
            config_maps.attach(map, &part.owner, dirty, out);
            self.config_maps.entry(map.clone()).or_default().insert(key.clone());
        }
        for target in &part.targets {
            self.targets.entry(target.object.clone()).or_default().insert(part.turn.clone());
            targets.insert(target.object.clone());
        }
        self.policies.insert(key.clone(), part);
        targets
    }

    fn part(
        &mut self,
        key: &ObjectKey,
        owner: Arc<Owner>,
        turn: RouteAge,
        spec: &BackendTLSPolicySpec,
        objects: &Objects,
    ) -> PolicyPart {
        let (mut targets, mut others) = (Vec::new(), Vec::new());
        for (at, PolicyTarget { group, kind, name, section_name }) in spec.target_refs.iter().enumerate() {
            let meant =
                [Kind::Service, Kind::XBackend].into_iter().find(|it| it.group() == group && it.as_str() == kind);
            match meant {
                Some(kind) => targets.push(PolicyFor {
                    at,
                    object: ObjectKey::new(kind, &*key.namespace, &**name),
                    section: section_name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
                }),
                None => others.push((at, format!("{kind} {name}"))),
            }
        }
        let mut config_maps = BTreeSet::new();
        let (validation, field) = (&spec.validation, "spec.validation");
        let (authorities, unresolved) = trusted(key, validation, field, objects, &mut config_maps);
        let built = built(validation, field, authorities, unresolved.as_ref());
        let built = built.map_err(|fault| fault.shortcoming());
        let fault = built.as_ref().err().cloned();
        PolicyPart {
            targets,
            others,
            tls: built.map(|tls| self.values.of(tls)).map_err(|fault| format!("{key}: {}", fault.message)),
            owner,
            turn,
            config_maps,
            fault,
            unresolved: unresolved.as_ref().map(FieldFault::shortcoming),
        }
    }

    /// The status of a policy at the Gateways through which its Services are reached, and the findings about it. `reached` returns the
    /// Gateways for a Service.
    pub(super) fn status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
        reached: impl Fn(&ObjectKey) -> BTreeSet<ObjectKey>,
    ) -> Option<(Vec<AncestorStatus>, Vec<Diagnostic>)> {
        let part = self.policies.get(key)?;
        let mut findings = Vec::new();
        let mut found: BTreeMap<ObjectKey, Option<Shortcoming>> = BTreeMap::new();
        let origin = key.origin();
        let mut complain = |severity: Severity, at: usize, value: &str, message: String| {
            let reason = Reason::BackendPolicyRefused;
            let field = format!("spec.targetRefs[{at}]");
            findings.push(Diagnostic::new(severity, reason, &origin, field, value, message));
        };
        for target in &part.targets {
            let of_part = part.fault.clone().filter(|_| target.object.kind == Kind::Service);
            let fault = match self.fault_at(part, target, objects) {
                // A missing target decides, whatever else is wrong with the policy: it is applied to nothing there.
                Some(missing) if missing.reason == "TargetNotFound" => Some(missing),
                fault => of_part.or(fault),
            };
            if let Some(fault) = &fault {
                let message = match fault.reason {
                    "Conflicted" | "TargetNotFound" => format!("{}; the policy is not applied there", fault.message),
                    _ => format!(
                        "{}; requests to the {} answer 500, connections to it are closed",
                        fault.message, target.object.kind
                    ),
                };
                complain(Severity::Error, target.at, &target.object.name, message);
            }
            note(&mut found, reached(&target.object), fault.as_ref());
        }
        // Kinds that only another implementation knows are for that one to judge, unless the policy concerns us too.
        for (at, what) in part.others.iter().filter(|_| !found.is_empty()) {
            let message = "expected a Service; the policy is not applied there".to_owned();
            complain(Severity::Warning, *at, what, message);
        }
        if let Some(fault) = part.unresolved.as_ref().filter(|_| part.fault.is_none()) {
            let (severity, reason) = (Severity::Warning, Reason::BackendPolicyRefused);
            let message = format!("{}; it is left out", fault.message);
            findings.push(Diagnostic::new(severity, reason, &origin, "spec.validation", "", message));
        }
        let ancestors = found.into_iter().take(ANCESTORS).map(|(gateway, fault)| AncestorStatus {
            ancestor_ref: ancestor(&gateway),
            conditions: vec![
                Condition::of("Accepted", fault.as_ref()),
                Condition::of("ResolvedRefs", part.unresolved.as_ref()),
            ],
        });
        Some((ancestors.collect(), findings))
    }

    /// Why a policy is not applied to one of its targets.
    fn fault_at(&self, part: &PolicyPart, target: &PolicyFor, objects: &Objects) -> Option<Shortcoming> {
        let PolicyFor { object: service, section, .. } = target;
        let missing = |what: String| Some(Shortcoming::new("TargetNotFound", what));
        if service.kind == Kind::XBackend {
            return match objects.get(service) {
                Some(_) => Some(Shortcoming::new("Invalid", of_its_own(service))),
                None => missing(format!("there is no XBackend {}/{}", service.namespace, service.name)),
            };
        }
        let Some(object) = objects.service(service) else {
            return missing(format!("there is no Service {}/{}", service.namespace, service.name));
        };
        let mut ports = object.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        if let Some(section) = section
            && !ports.any(|port| port.name.as_deref() == Some(section))
        {
            return missing(format!("Service {}/{} has no port {section}", service.namespace, service.name));
        }
        let winner = self.winner(service, section.as_deref()).filter(|winner| winner.turn != part.turn)?;
        Some(Shortcoming::conflict_with(winner.turn.key()))
    }
}

/// Why no policy is applied to an XBackend.
fn of_its_own(xbackend: &ObjectKey) -> String {
    format!("XBackend {}/{} configures its own TLS (spec.tls): expected a Service", xbackend.namespace, xbackend.name)
}

/// Records the fault of one target of a policy at Gateways. The status at a Gateway has the first fault of all targets there.
pub(super) fn note(
    found: &mut BTreeMap<ObjectKey, Option<Shortcoming>>,
    gateways: BTreeSet<ObjectKey>,
    fault: Option<&Shortcoming>,
) {
    for gateway in gateways {
        let known = found.entry(gateway).or_default();
        *known = known.take().or_else(|| fault.cloned());
    }
}

/// A Gateway, as the status of a policy names it.
pub(super) fn ancestor(gateway: &ObjectKey) -> ParentReference {
    ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some(Kind::Gateway.as_str().to_owned()),
        namespace: Some(gateway.namespace.to_string()),
        name: gateway.name.to_string(),
        ..ParentReference::default()
    }
}

/// The authorities that an object names in a field, and the first unusable reference. All ConfigMaps that it names are recorded.
pub(super) fn trusted(
    key: &ObjectKey,
    validation: &BackendTlsValidation,
    field: &str,
    objects: &Objects,
    config_maps: &mut BTreeSet<ObjectKey>,
) -> (Vec<Authority>, Option<FieldFault>) {
    let (mut trusted, mut unresolved) = (Vec::new(), None);
    for (at, one) in validation.ca_certificate_refs.iter().enumerate() {
        let field = format!("{field}.caCertificateRefs[{at}]");
        let found = if !one.group.is_empty() || one.kind != Kind::ConfigMap.as_str() {
            Err(("InvalidKind", format!("expected a ConfigMap, found {} {}", one.kind, one.name)))
        } else {
            let map = ObjectKey::new(Kind::ConfigMap, &*key.namespace, &*one.name);
            let found = of_config_map(&map, objects);
            config_maps.insert(map);
            found.map_err(|why| ("InvalidCACertificateRef", why))
        };
        match found {
            Ok(found) => trusted.extend(found.iter().cloned()),
            Err((reason, why)) => {
                unresolved.get_or_insert(FieldFault::new(field, reason, why));
            }
        }
    }
    (trusted, unresolved)
}

/// The authorities in the key `ca.crt` of a ConfigMap. If it is deleted, they are no longer trusted.
pub(super) fn of_config_map(key: &ObjectKey, objects: &Objects) -> Result<Arc<[Authority]>, String> {
    let Some(Object::ConfigMap(map)) = objects.get(key) else {
        return Err(format!("there is no ConfigMap {}/{}", key.namespace, key.name));
    };
    let named = |why: &str| format!("ConfigMap {}/{}: {why}", key.namespace, key.name);
    let text = map.data.as_ref().and_then(|data| data.get("ca.crt")).ok_or_else(|| named("expected the key ca.crt"))?;
    authorities(text.as_bytes()).map_err(|why| named(&why))
}

/// The TLS that the field describes.
///
/// # Errors
/// Why it is impossible.
pub(super) fn built(
    validation: &BackendTlsValidation,
    field: &str,
    trusted: Vec<Authority>,
    unresolved: Option<&FieldFault>,
) -> Result<UpstreamTls, FieldFault> {
    let invalid = |field: String, message: String| Err(FieldFault::new(field, "Invalid", message));
    let trust = match validation.well_known_ca_certificates.as_deref() {
        Some("System") => Trust::System,
        Some(other) => {
            return invalid(format!("{field}.wellKnownCACertificates"), format!("expected System, found {other}"));
        }
        None if trusted.is_empty() => {
            let (field, message) = match unresolved {
                Some(fault) => (&*fault.field, &*fault.why.message),
                None => (field, "no authority is named"),
            };
            return Err(FieldFault::new(field, "NoValidCACertificate", message));
        }
        None => Trust::Authorities(trusted.into()),
    };
    let Ok(name) = validation.hostname.parse::<Hostname>() else {
        return invalid(format!("{field}.hostname"), format!("{:?} is no host name", validation.hostname));
    };
    let mut alternative_names = Vec::new();
    for (at, one) in validation.subject_alt_names.iter().enumerate() {
        let field = format!("{field}.subjectAltNames[{at}]");
        alternative_names.push(match (&*one.r#type, &one.hostname, &one.uri) {
            ("Hostname", Some(name), _) => match name.parse::<Hostname>() {
                Ok(name) => AlternativeName::Dns(name.as_str().into()),
                Err(_) => return invalid(format!("{field}.hostname"), format!("{name:?} is no host name")),
            },
            ("URI", _, Some(uri)) => AlternativeName::Uri(uri.as_str().into()),
            (other, ..) => {
                return invalid(field, format!("expected Hostname or URI with its value, found {other}"));
            }
        });
    }
    Ok(UpstreamTls { name: Some(name.as_str().into()), sni: true, trust, alternative_names, ..UpstreamTls::default() })
}

/// The same TLS with a certificate of the proxy's own, for endpoints that request one. An XBackend may have its own.
pub(super) fn showing(tls: &UpstreamTls, certificate: &CertificateName) -> Arc<UpstreamTls> {
    let own = tls.client_certificate.clone().unwrap_or_else(|| certificate.clone());
    Arc::new(UpstreamTls { client_certificate: Some(own), ..tls.clone() })
}

/// Removes a value from a set of values.
pub(super) fn remove<K: Ord, V: Ord>(of: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = of.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            of.remove(key);
        }
    }
}
