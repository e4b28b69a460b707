//! Manifests read once and translated, for the commands that only look: `check` and `explain`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use fairway_model::{Origin, Snapshot};
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Object, ObjectKey, Objects};
use fairway_translate::options::{Development, Options};

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
    let told: HashSet<_> = translation.diagnostics.iter().map(|found| found.origin.section("")).collect();
    let foreign =
        not_served(&manifests, &options, |key| translation.served.contains(key) || told.contains(&key.origin()));
    let foreign_origins = foreign.iter().map(|found| found.origin.clone()).collect();
    findings.extend(manifests.locate(translation.diagnostics));
    findings.extend(manifests.locate(foreign));
    report::sort(&mut findings);
    Ok(Reading { manifests, options, snapshot: translation.snapshot, findings, foreign: foreign_origins })
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

/// Says of each Ingress that is left alone why, so that nobody waits for it in vain. `known` are those that are served, or about
/// which something else is said.
pub(crate) fn not_served(
    manifests: &Manifests,
    options: &Options,
    known: impl Fn(&ObjectKey) -> bool,
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for object in manifests.objects() {
        let Object::Ingress(ingress) = object else { continue };
        let key = object.key();
        if known(&key) {
            continue;
        }
        let ingress = ingress.read();
        let annotation =
            ingress.metadata.annotations.as_ref().and_then(|all| all.get(fairway_translate::annotation::CLASS));
        let name = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_ref());
        let (field, class) = match (name, annotation) {
            (Some(name), _) => ("spec.ingressClassName".to_owned(), name.as_str()),
            (None, Some(name)) => {
                (format!("metadata.annotations[\"{}\"]", fairway_translate::annotation::CLASS), name.as_str())
            }
            (None, None) => (String::new(), ""),
        };
        let ours = &options.ingress_class;
        let message = match (name, class) {
            // The operator chose so by a flag: another namespace, no catch-all.
            (_, class) if class == ours => continue,
            (_, "") => format!("not served: it names no class; ours is {ours}"),
            (Some(class), _) => format!(
                "not served: ours is {ours}, and the files hold no IngressClass {class} with controller {}",
                options.controller_class
            ),
            (None, _) => format!("not served: ours is {ours}"),
        };
        found.push(Diagnostic::new(Severity::Info, Reason::IngressClassNotFound, &key.origin(), field, class, message));
    }
    found
}
