//! The Ingresses that a cluster's Fairway serves: one row each, and the totals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fairway_model::{Host, Origin};
use fairway_translate::diagnostic::Severity;
use fairway_translate::objects::{Kind, Object};
use serde::Serialize;

use crate::reading::Reading;
use crate::table::is_implied;
use crate::terminal::{Terminal, count, table};

/// The served Ingresses.
#[derive(Debug, Serialize)]
pub(super) struct ServedIngresses {
    class: String,
    /// Ingresses of other classes.
    ignored: usize,
    errors: usize,
    warnings: usize,
    served: Vec<ServedIngress>,
}

/// An Ingress.
#[derive(Debug, Serialize)]
struct ServedIngress {
    namespace: String,
    name: String,
    hosts: Vec<String>,
    addresses: Vec<String>,
    routes: usize,
    errors: usize,
    warnings: usize,
}

impl ServedIngresses {
    pub(super) fn of(reading: &Reading) -> Self {
        let mut routes: BTreeMap<Origin, usize> = BTreeMap::new();
        for route in reading
            .snapshot
            .hosts()
            .iter()
            .flat_map(|host| host.tiers().flat_map(Host::reachable_routes))
            .filter(|route| !is_implied(route))
        {
            *routes.entry(route.origin.section("")).or_default() += 1;
        }
        let mut problems: BTreeMap<Origin, (usize, usize)> = BTreeMap::new();
        for found in reading.findings.iter().map(|finding| &finding.diagnostic) {
            let (errors, warnings) = problems.entry(found.origin.section("")).or_default();
            match found.severity {
                Severity::Error => *errors += 1,
                Severity::Warning => *warnings += 1,
                Severity::Info => {}
            }
        }
        let (errors, warnings) = crate::report::totals(&reading.findings);
        let class = reading.options.ingress_class.clone();
        let mut all = Self { class, ignored: 0, errors, warnings, served: Vec::new() };
        for (key, object) in reading.objects.of_kind(Kind::Ingress) {
            let (Object::Ingress(ingress), origin) = (object, key.origin()) else { continue };
            if reading.foreign.contains(&origin) {
                all.ignored += 1;
                continue;
            }
            let ingress = ingress.read();
            let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
            let (errors, warnings) = problems.get(&origin).copied().unwrap_or_default();
            all.served.push(ServedIngress {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                hosts: rules.map(|rule| rule.host.as_deref().unwrap_or("*").to_owned()).collect(),
                addresses: reading.addresses.get(key).cloned().unwrap_or_default(),
                routes: routes.get(&origin).copied().unwrap_or_default(),
                errors,
                warnings,
            });
        }
        all
    }

    pub(super) fn text(&self, terminal: Terminal) -> String {
        let mut rows = vec![["INGRESS", "HOSTS", "ADDRESS", "ROUTES", "FINDINGS"].map(str::to_owned)];
        rows.extend(self.served.iter().map(ServedIngress::row));
        let mut out = if self.served.is_empty() { String::new() } else { table(&rows, terminal) };
        let _ = writeln!(
            out,
            "{} of class {}, {} ignored; {}, {}{}",
            count(self.served.len(), "Ingress", "Ingresses"),
            self.class,
            count(self.ignored, "other", "others"),
            count(self.errors, "error", "errors"),
            count(self.warnings, "warning", "warnings"),
            if self.errors + self.warnings > 0 { ": kubectl fairway check says which" } else { "" },
        );
        out
    }
}

impl ServedIngress {
    fn row(&self) -> [String; 5] {
        let hosts = match &self.hosts[..] {
            [] => "*".to_owned(),
            [one] => one.clone(),
            [one, rest @ ..] => format!("{one} +{}", rest.len()),
        };
        let address = if self.addresses.is_empty() { "-".to_owned() } else { self.addresses.join(",") };
        let (errors, warnings) = (count(self.errors, "error", "errors"), count(self.warnings, "warning", "warnings"));
        let findings = match (self.errors, self.warnings) {
            (0, 0) => "-".to_owned(),
            (0, _) => warnings,
            (_, 0) => errors,
            _ => format!("{errors}, {warnings}"),
        };
        [format!("{}/{}", self.namespace, self.name), hosts, address, self.routes.to_string(), findings]
    }
}
