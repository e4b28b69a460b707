//! Manifests read once and translated, for the commands that only look: `check` and `explain`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use fairway_model::Snapshot;
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
    pub(crate) served: Vec<ObjectKey>,
}

/// Reads files and folders, and translates what is in them.
pub(crate) fn read(paths: &[PathBuf], flags: &Flags) -> anyhow::Result<Reading> {
    let mut options = options(flags)?;
    options.development = Some(Development { echo: Some(ECHO), ..Development::default() });
    let mut manifests = Manifests::open(paths)?;
    manifests.reload(None);
    let objects: Objects = manifests.objects().cloned().collect();
    let translation = fairway_translate::translate(&objects, &options, jiff::Timestamp::now().as_second());
    let mut findings = manifests.findings();
    findings.extend(manifests.locate(translation.diagnostics));
    findings.extend(manifests.locate(not_served(&manifests, &translation.served, &options)));
    report::sort(&mut findings);
    let served = translation.served.into_iter().collect();
    Ok(Reading { manifests, options, snapshot: translation.snapshot, findings, served })
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

/// Says of each Ingress that is left alone why, so that nobody waits for it in vain.
pub(crate) fn not_served<'a>(
    manifests: &Manifests,
    served: impl IntoIterator<Item = &'a ObjectKey>,
    options: &Options,
) -> Vec<Diagnostic> {
    let served: std::collections::HashSet<_> = served.into_iter().collect();
    let mut found = Vec::new();
    for object in manifests.objects() {
        let Object::Ingress(ingress) = object else { continue };
        let key = object.key();
        if served.contains(&key) {
            continue;
        }
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
            // Something else about it: that has a diagnostic of its own, or the operator chose so by a flag.
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
