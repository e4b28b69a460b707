//! Manifests read once and translated, for the commands that only look: `check` and `explain`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use fairway_model::{Origin, Snapshot};
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Kind, ObjectKey, Objects};
use fairway_translate::options::{Development, Options};
use fairway_translate::{LeftOut, NotOurs, Standing};

use crate::flags::Flags;
use crate::manifest::{Finding, Manifests};
use crate::report;

/// Stands for the echo of `fairway dev`, which isn't running: no Service of the files leads there by itself.
const ECHO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), 0);

/// Manifests and what they come to.
pub(crate) struct Reading {
    pub(crate) manifests: Manifests,
    pub(crate) options: Options,
    pub(crate) snapshot: Snapshot,
    pub(crate) findings: Vec<Finding>,
    /// Ingresses that are left alone: another controller's, most likely.
    pub(crate) foreign: HashSet<Origin>,
}

/// What answers for a Service of which the files hold nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Missing {
    /// Nobody: there is something to say.
    Told,
    /// The echo of `fairway dev`.
    Echo,
}

/// Reads files and folders, and translates what is in them.
pub(crate) fn read(paths: &[PathBuf], flags: &Flags, missing: Missing) -> anyhow::Result<Reading> {
    let mut options = options(flags)?;
    let echo = (missing == Missing::Echo).then_some(ECHO);
    options.development = Some(Development { echo, ..Development::default() });
    let mut manifests = Manifests::open(paths)?;
    manifests.reload(None);
    let objects: Objects = manifests.objects().cloned().collect();
    let translation = fairway_translate::translate(&objects, &options, jiff::Timestamp::now().as_second());
    let mut findings = manifests.findings();
    let foreign: Vec<_> = not_served(translation.left_out.into_iter(), &options).collect();
    let foreign_origins = foreign.iter().map(|found| found.origin.clone()).collect();
    findings.extend(manifests.locate(translation.diagnostics));
    findings.extend(manifests.locate(foreign));
    if missing == Missing::Told {
        findings.extend(missing_objects(&manifests, &objects, &options, paths));
        findings.iter_mut().for_each(|finding| raise(&mut finding.diagnostic));
    }
    report::sort(&mut findings);
    Ok(Reading { manifests, options, snapshot: translation.snapshot, findings, foreign: foreign_origins })
}

/// What flags name and the files don't hold, and files that hold nothing at all: a report without a finding would be worth nothing.
fn missing_objects(manifests: &Manifests, objects: &Objects, options: &Options, paths: &[PathBuf]) -> Vec<Finding> {
    let named = [
        ("--configmap", &options.configmap),
        ("--tcp-services-configmap", &options.tcp_services),
        ("--udp-services-configmap", &options.udp_services),
    ];
    let finding = |reason, origin: &Origin, flag: &str, value: &str, message: &str| Finding {
        place: None,
        diagnostic: Diagnostic::new(Severity::Error, reason, origin, flag, value, message),
    };
    let mut found = Vec::new();
    for (flag, name) in named {
        let Some((namespace, name)) = name else { continue };
        let key = ObjectKey::new(Kind::ConfigMap, namespace, name);
        if objects.get(&key).is_none() {
            let message = "the files hold no such ConfigMap: add its manifest, or correct the flag";
            let value = format!("{namespace}/{name}");
            found.push(finding(Reason::InvalidConfiguration, &key.origin(), flag, &value, message));
        }
    }
    let counts = manifests.counts();
    if counts.objects == 0
        && counts.ignored == 0
        && manifests.findings().iter().all(|found| found.diagnostic.severity < Severity::Error)
    {
        let paths: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let origin = Origin::new("File", "", paths.join(", "));
        let message = match counts.files {
            0 => format!("{}: there is no manifest here: expected files that end in .yaml, .yml or .json", origin.name),
            _ => format!("{}: there is no Kubernetes object in these files", origin.name),
        };
        found.push(finding(Reason::InvalidManifest, &origin, "", "", &message));
    }
    found
}

/// What makes a route answer 503 is an error for someone who is about to apply it, also where it may be right by tomorrow in a cluster.
fn raise(diagnostic: &mut Diagnostic) {
    let unserved = ["answer 503", "answers 503"].iter().any(|words| diagnostic.message.contains(words));
    if diagnostic.severity == Severity::Warning && unserved {
        diagnostic.severity = Severity::Error;
    }
}

/// The options of a command that reads files: nobody has filled in the class of an Ingress, so one without any is served.
pub(crate) fn options(flags: &Flags) -> anyhow::Result<Options> {
    let mut options = flags.options()?;
    if !flags.is_set("watch-ingress-without-class") {
        options.watch_ingress_without_class = true;
    }
    Ok(options)
}

impl Reading {
    /// What stands in the place of a cluster.
    pub(crate) fn development(&self) -> Option<&Development> {
        self.options.development.as_ref()
    }
}

/// Says of each Ingress that is left alone why, so that its author doesn't wait in vain.
pub(crate) fn not_served<'a>(
    left_out: impl Iterator<Item = LeftOut> + 'a,
    options: &'a Options,
) -> impl Iterator<Item = Diagnostic> + 'a {
    let ours = &options.ingress_class;
    left_out.filter_map(move |LeftOut { ingress, standing, .. }| {
        let Standing::NotOurs(why) = standing else { return None };
        let class = why.class();
        let (severity, message) = match &why {
            // The operator chose so by a flag: another namespace, no catch-all.
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
                    "not served: there is no IngressClass {class} in these files: give --ingress-class {class}, or its \
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
