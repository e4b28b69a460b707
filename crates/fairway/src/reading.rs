//! Manifests or a cluster, read once and translated, for the read-only commands: `check`, `explain` and the kubectl plugin.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use fairway_model::{Origin, Snapshot};
use fairway_translate::annotation::{self, OBSERVE, OBSERVED, OWN_PREFIX, Rules};
use fairway_translate::configmap::GlobalConfig;
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity, bounded};
use fairway_translate::gateway::status::ObjectStatus;
use fairway_translate::gateway::{AppliedPolicy, Claims};
use fairway_translate::limit::UNKNOWN_NAMES;
use fairway_translate::objects::{Kind, Object, ObjectKey, Objects};
use fairway_translate::options::{Development, Options};
use fairway_translate::verdict::nearest;
use fairway_translate::{LeftOut, NotOurs, Standing, Translation};

use crate::flags::Flags;
use crate::manifest::{Counts, Finding, Manifests, Refused};
use crate::report;

/// Represents the echo of `fairway dev`, which isn't running. No Service in the files has this address.
const ECHO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), 0);

/// Objects and their translation.
pub(crate) struct Reading {
    /// The files; empty if a cluster was read.
    pub(crate) manifests: Manifests,
    pub(crate) source: Source,
    pub(crate) objects: Objects,
    /// The addresses in the status of Ingresses, if a cluster was read.
    pub(crate) addresses: BTreeMap<ObjectKey, Vec<String>>,
    pub(crate) options: Options,
    pub(crate) snapshot: Snapshot,
    pub(crate) findings: Vec<Finding>,
    /// Ingresses that have no version in effect, or only an older one.
    pub(crate) left_out: Vec<LeftOut>,
    /// The status of each Gateway API object that belongs to us.
    pub(crate) statuses: BTreeMap<ObjectKey, Arc<ObjectStatus>>,
    /// The RoutePolicies that apply to routes.
    pub(crate) policies: Vec<AppliedPolicy>,
    /// Which listener each host belongs to.
    pub(crate) claims: Claims,
    /// Ingresses that are not served, most likely because they belong to another controller.
    pub(crate) foreign: HashSet<Origin>,
}

/// The source of objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    Files,
    Cluster,
}

/// What stands in for a Service that is missing from the files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    /// Nothing: the Service is reported as missing.
    Told,
    /// The echo of `fairway dev`, for Services that the files contain without endpoints.
    Echo,
}

/// Reads files and folders, and translates their objects.
pub(crate) fn read(paths: &[PathBuf], flags: &Flags, missing: Missing, refused: Refused) -> anyhow::Result<Reading> {
    let mut options = options(flags)?;
    let echo = (missing == Missing::Echo).then_some(ECHO);
    options.development = Some(Development { echo, judged: missing == Missing::Told, ..Development::default() });
    let mut manifests = Manifests::open(paths, refused)?;
    manifests.reload(None);
    let objects: Objects = manifests.objects().cloned().collect();
    let translation = fairway_translate::translate(&objects, &options, jiff::Timestamp::now().as_second());
    let reading = Reading::of(objects, translation, options)?;
    let others = reading.findings.into_iter().map(|found| found.diagnostic);
    let (mut findings, others) = without_second_opinions(manifests.findings(), others.collect());
    findings.extend(manifests.locate(others));
    findings.extend(missing_objects(&reading.objects, &reading.options, Source::Files));
    if missing == Missing::Told {
        findings.extend(nothing(&manifests));
        findings.iter_mut().for_each(|finding| {
            raise(&mut finding.diagnostic);
            allow_missing_certificate(&mut finding.diagnostic);
        });
    }
    report::sort(&mut findings);
    Ok(Reading { manifests, source: Source::Files, findings, ..reading })
}

/// The findings from reading files and from translation, without the less precise of two about the same field: a value that the API server
/// refuses is not reported by translation, nor is a field without effect that makes translation deny.
pub(crate) fn without_second_opinions(
    mut of_files: Vec<Finding>,
    mut of_translation: Vec<Diagnostic>,
) -> (Vec<Finding>, Vec<Diagnostic>) {
    fn errors<'a>(all: impl Iterator<Item = &'a Diagnostic>) -> HashSet<(Origin, String)> {
        let errors = all.filter(|found| found.severity == Severity::Error);
        errors.map(about).filter(|(_, field)| !field.is_empty()).collect()
    }
    let (refused, denied) = (errors(of_files.iter().map(|found| &found.diagnostic)), errors(of_translation.iter()));
    let is_said = |found: &Diagnostic| found.severity != Severity::Error && denied.contains(&about(found));
    of_translation.retain(|found| !refused.contains(&about(found)));
    of_files.retain(|found| !is_said(&found.diagnostic));
    (of_files, of_translation)
}

/// The object and field of a diagnostic.
fn about(found: &Diagnostic) -> (Origin, String) {
    (found.origin.clone(), found.field.clone())
}

/// Objects that flags name but that don't exist.
pub(crate) fn missing_objects(objects: &Objects, options: &Options, source: Source) -> Vec<Finding> {
    let named = [
        ("--configmap", &options.configmap),
        ("--tcp-services-configmap", &options.tcp_services),
        ("--udp-services-configmap", &options.udp_services),
    ];
    let mut found = Vec::new();
    for (flag, name) in named {
        let Some((namespace, name)) = name else { continue };
        let key = ObjectKey::new(Kind::ConfigMap, namespace, name);
        if objects.get(&key).is_none() {
            let message = match source {
                Source::Files => "the files contain no such ConfigMap: add its manifest, or correct the flag",
                Source::Cluster => "the cluster has no such ConfigMap: create it, or correct the flag",
            };
            let (reason, value) = (Reason::InvalidConfiguration, format!("{namespace}/{name}"));
            let diagnostic = Diagnostic::new(Severity::Error, reason, &key.origin(), flag, &value, message);
            found.push(Finding { place: None, diagnostic });
        }
    }
    found
}

/// A report without any objects would have no findings and no value.
pub(crate) fn nothing(manifests: &Manifests) -> Option<Finding> {
    let counts = manifests.counts();
    let broken = || manifests.findings().iter().any(|found| found.diagnostic.severity == Severity::Error);
    (counts.objects == 0 && counts.ignored == 0 && !broken()).then(|| {
        let paths: Vec<_> = manifests.roots().iter().map(|path| path.to_string_lossy()).collect();
        let origin = Origin::new("File", "", paths.join(", "));
        let message = match counts.files {
            0 => format!("{}: there is no manifest here: expected files that end in .yaml, .yml or .json", origin.name),
            _ => format!("{}: there is no Kubernetes object in these files", origin.name),
        };
        let diagnostic = Diagnostic::new(Severity::Error, Reason::InvalidManifest, &origin, "", "", message);
        Finding { place: None, diagnostic }
    })
}

/// A finding that makes a route answer 503 is an error for the author of manifests, even where a cluster may resolve it later. That a Service
/// has no pods is no mistake in any manifest.
pub(crate) fn raise(diagnostic: &mut Diagnostic) {
    let in_manifests = diagnostic.reason != Reason::NoEndpoints;
    if diagnostic.severity == Severity::Warning && diagnostic.unserved && in_manifests {
        diagnostic.severity = Severity::Error;
    }
}

/// Files rarely contain the Secret of a certificate, which cert-manager may make: for a listener, as for an Ingress, that is a warning.
fn allow_missing_certificate(diagnostic: &mut Diagnostic) {
    let of_listener = ["Gateway", "ListenerSet"].contains(&&*diagnostic.origin.kind);
    if of_listener && diagnostic.reason == Reason::SecretNotFound {
        diagnostic.severity = Severity::Warning;
    }
}

/// The options of a command that reads files: no admission controller has set the class of Ingresses, so those without a class are served.
pub(crate) fn options(flags: &Flags) -> anyhow::Result<Options> {
    let mut options = flags.options()?;
    if !flags.is_set("watch-ingress-without-class") {
        options.watch_ingress_without_class = true;
    }
    Ok(options)
}

impl Reading {
    /// The translation of objects, before anything is known about their files.
    pub(crate) fn of(objects: Objects, translation: Translation, options: Options) -> anyhow::Result<Self> {
        let foreign: Vec<_> = not_served(translation.left_out.iter().cloned(), &options).collect();
        let foreign_origins = foreign.iter().map(|found| found.origin.clone()).collect();
        let gateways: Vec<_> = gateways_not_served(&objects, &options).collect();
        let annotations: Vec<_> = annotations_of_routes(&objects, &options).collect();
        let nowhere = |diagnostic| Finding { place: None, diagnostic };
        Ok(Self {
            manifests: Manifests::open(&[], Refused::Read)?,
            source: Source::Cluster,
            objects,
            addresses: BTreeMap::new(),
            options,
            snapshot: translation.snapshot,
            findings: translation
                .diagnostics
                .into_iter()
                .chain(foreign)
                .chain(gateways)
                .chain(annotations)
                .map(nowhere)
                .collect(),
            left_out: translation.left_out,
            statuses: translation.statuses,
            policies: translation.policies,
            claims: translation.claims,
            foreign: foreign_origins,
        })
    }

    /// The operator's rules for annotations, which verdicts depend on.
    pub(crate) fn annotation_rules(&self) -> Rules {
        let config = self.settings().map(|(key, data)| GlobalConfig::read(&key.origin(), data, &mut Vec::new()));
        config.unwrap_or_default().annotation_rules(self.options.ssl_passthrough)
    }

    /// The global ConfigMap, if it is there and has data.
    pub(crate) fn settings(&self) -> Option<(ObjectKey, &BTreeMap<String, String>)> {
        let (namespace, name) = self.options.configmap.as_ref()?;
        let key = ObjectKey::new(Kind::ConfigMap, namespace, name);
        let Some(Object::ConfigMap(map)) = self.objects.get(&key) else { return None };
        Some((key, map.data.as_ref()?))
    }

    /// The number of objects and files that were read, and of objects of other kinds.
    pub(crate) fn counts(&self) -> Counts {
        match self.source {
            Source::Files => self.manifests.counts(),
            Source::Cluster => Counts { objects: self.objects.len(), ..Counts::default() },
        }
    }

    /// The objects that replace a cluster.
    pub(crate) fn development(&self) -> Option<&Development> {
        self.options.development.as_ref()
    }
}

/// Reports why an Ingress is not served, so that its author doesn't wait in vain.
pub(crate) fn not_served<'a>(
    left_out: impl Iterator<Item = LeftOut> + 'a,
    options: &'a Options,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let ours = &options.ingress_class;
    let place = if options.development.is_some() { "these files" } else { "the cluster" };
    left_out.filter_map(move |LeftOut { ingress, standing, .. }| {
        let Standing::NotOurs(why) = standing else { return None };
        let class = why.class();
        let (severity, message) = match &why {
            // The operator chose this with a flag: another namespace, no catch-all.
            _ if class == ours => return None,
            NotOurs::NoClass => (Severity::Info, format!("not served: it names no class; ours is {ours}")),
            NotOurs::OtherAnnotation { .. } if class.is_empty() => {
                (Severity::Info, format!("not served: it names no class; ours is {ours}"))
            }
            NotOurs::OtherController { controller, .. } => {
                let controller = if controller.is_empty() { "no controller" } else { controller };
                (Severity::Info, format!("not served: its IngressClass belongs to {controller}; ours is {ours}"))
            }
            NotOurs::ClassMissing { .. } => (
                Severity::Warning,
                format!(
                    "not served: there is no IngressClass {class} in {place}: give --ingress-class {class}, or its \
                     manifest with controller {}, if it is to be served",
                    options.controller_class
                ),
            ),
            NotOurs::OtherAnnotation { .. } => {
                let message = format!("not served: ours is {ours}; give --ingress-class {class} if it is to be served");
                (Severity::Info, message)
            }
            _ => return None,
        };
        let reason = Reason::IngressClassNotFound;
        Some(Diagnostic::new(severity, reason, &ingress.origin(), why.field(), class, message))
    })
}

/// Reports why a Gateway is not served: its class belongs to another controller, or the cluster doesn't have it.
pub(crate) fn gateways_not_served<'a>(
    objects: &'a Objects,
    options: &'a Options,
) -> impl Iterator<Item = Diagnostic> + 'a {
    objects.of_kind(Kind::Gateway).filter_map(|(key, object)| {
        let Object::Gateway(gateway) = object else { return None };
        let class = &gateway.spec.gateway_class_name;
        let (severity, message) = match objects.get(&ObjectKey::new(Kind::GatewayClass, "", class)) {
            Some(Object::GatewayClass(class)) if class.spec.controller_name == options.gateway_controller => {
                return None;
            }
            Some(Object::GatewayClass(class)) => {
                let controller = &class.spec.controller_name;
                let ours = &options.gateway_controller;
                let message = format!("not served: its GatewayClass belongs to {controller}; ours is {ours}");
                // The name is probably misspelt, not another controller's.
                let meant = controller.starts_with("fairway.dev/") || nearest(controller, [ours.as_str()]).is_some();
                (if meant { Severity::Warning } else { Severity::Info }, message)
            }
            // Files rarely contain the class.
            _ if options.development.is_some() => return None,
            _ => (Severity::Warning, format!("not served: there is no GatewayClass {class} in the cluster")),
        };
        let (reason, field) = (Reason::GatewayClassNotFound, "spec.gatewayClassName");
        Some(Diagnostic::new(severity, reason, &key.origin(), field, class, message))
    })
}

/// Reports annotations on routes and Gateways that would have an effect on an Ingress, and misspelt annotations of ours.
pub(crate) fn annotations_of_routes<'a>(
    objects: &'a Objects,
    options: &'a Options,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let http = objects.of_kind(Kind::HTTPRoute).filter_map(|(key, object)| match object {
        Object::HTTPRoute(route) => Some((key, &route.metadata)),
        _ => None,
    });
    let grpc = objects.of_kind(Kind::GRPCRoute).filter_map(|(key, object)| match object {
        Object::GRPCRoute(route) => Some((key, &route.metadata)),
        _ => None,
    });
    let gateways = objects.of_kind(Kind::Gateway).filter_map(|(key, object)| match object {
        Object::Gateway(gateway) => Some((key, &gateway.metadata)),
        _ => None,
    });
    let all = http.chain(grpc).chain(gateways);
    all.flat_map(move |(key, metadata)| {
        let names = metadata.annotations.iter().flatten().map(|(name, _)| name.as_str());
        let found = names.filter_map(move |name| {
            let message = without_effect(name, key.kind, options)?;
            let field = format!("metadata.annotations[\"{}\"]", bounded(name));
            Some(Diagnostic::new(Severity::Warning, Reason::UnknownAnnotation, &key.origin(), field, "", message))
        });
        found.take(UNKNOWN_NAMES)
    })
}

/// Why an annotation on a route or Gateway has no effect, if it was meant to have one.
fn without_effect(name: &str, kind: Kind, options: &Options) -> Option<String> {
    if name == OBSERVED || (name == OBSERVE && kind != Kind::Gateway) {
        return None;
    }
    let prefix = &options.annotations_prefix;
    let of_ingress_nginx = name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
    let is_own = name.starts_with(OWN_PREFIX);
    if of_ingress_nginx || (is_own && annotation::spec(name).is_some()) {
        let message = "an annotation of Ingresses, without effect here: a RoutePolicy says what holds for routes (docs/route-policy.md)";
        return Some(message.to_owned());
    }
    let hint = nearest(name, [OBSERVE]).filter(|_| kind != Kind::Gateway);
    let hint = hint.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    is_own.then(|| format!("no annotation of this name exists{hint}"))
}
