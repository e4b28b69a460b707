//! Whether an Ingress may be stored: the answer of the admission webhook.
//!
//! Invariant: an Ingress is never refused if it would be served without loss. The submitted version is read like any other, and its paths
//! are compared with those of the hosts as they stand. The texts are those of ingress-nginx's webhook, since people search for them.

use std::collections::HashMap;

use fairway_model::HostPattern;
use k8s_openapi::api::networking::v1::Ingress;

use super::annotation::{Rules, forbidden_word};
use super::hosts::Hosts;
use super::merge::{canonical, is_ordinary};
use super::part::{Part, PathKind, PathRule};
use super::reader::{IngressInputs, Ingresses};
use crate::config::configmap::GlobalConfig;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::limit;
use crate::objects::{Kind, ObjectKey};
use crate::options::Options;
use crate::standing::NotOurs;

/// The answer about a submitted Ingress.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Review {
    /// Why it must not be stored; `None` if it may.
    pub refusal: Option<String>,
    /// Messages for its author all the same.
    pub warnings: Vec<String>,
}

impl Review {
    fn refused(why: String) -> Self {
        Self { refusal: Some(why), warnings: Vec::new() }
    }
}

/// The prefix that annotations have by default.
const DEFAULT_PREFIX: &str = "nginx.ingress.kubernetes.io";

/// The inputs of an answer, besides the Ingress.
#[derive(Clone, Copy)]
pub(crate) struct ReviewInputs<'a> {
    pub(crate) ingresses: &'a Ingresses,
    pub(crate) reading: IngressInputs<'a>,
    pub(crate) hosts: &'a Hosts,
    pub(crate) config: &'a GlobalConfig,
}

/// Answers for a submitted Ingress. The cost is that of reading it and the paths of its hosts, however many Ingresses there are.
pub(crate) fn review(ingress: &Ingress, inputs: ReviewInputs<'_>) -> Review {
    let ReviewInputs { ingresses, reading, hosts, config } = inputs;
    let IngressInputs { rules, options, .. } = reading;
    // Finalizers must be able to update it.
    if ingress.metadata.deletion_timestamp.is_some() {
        return Review::default();
    }
    let key = ObjectKey::of(Kind::Ingress, &ingress.metadata);
    let read = match ingresses.read_submitted(&key, ingress, reading) {
        Ok(read) => read,
        Err(NotOurs::CatchAll) => {
            return Review::refused(
                "This deployment is trying to create a catch-all ingress while DisableCatchAll flag is set to true. Remove \
                 '.spec.defaultBackend' or set DisableCatchAll flag to false."
                    .to_owned(),
            );
        }
        Err(_) => return Review::default(),
    };
    if let Some(refusal) = annotations(ingress, rules, options) {
        return Review::refused(refusal);
    }
    let part = match read {
        Ok(part) => part,
        Err(why) => return Review::refused(rejected(&why.diagnostics, &options.annotations_prefix)),
    };
    let refusal = path_types(&part, config).or_else(|| overlap(&part, hosts));
    let warnings = part.diagnostics.iter().filter(|found| found.severity >= Severity::Warning);
    Review { refusal, warnings: warnings.take(limit::REVIEW_WARNINGS).map(told).collect() }
}

/// Annotations that are refused by their name, or by a word in their value.
fn annotations(ingress: &Ingress, rules: &Rules, options: &Options) -> Option<String> {
    let prefix = &*options.annotations_prefix;
    let all = ingress.metadata.annotations.as_ref()?;
    for (key, value) in all {
        let under = |prefix: &str| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
        if prefix != DEFAULT_PREFIX && under(DEFAULT_PREFIX) {
            return Some(format!(
                "This deployment has a custom annotation prefix defined. Use '{prefix}' instead of '{DEFAULT_PREFIX}'"
            ));
        }
        if !under(prefix) {
            continue;
        }
        if let Some(word) = forbidden_word(value, rules) {
            return Some(format!("{key} annotation contains invalid word {}", crate::diagnostic::bounded(word)));
        }
        if !rules.snippets && key.ends_with("-snippet") {
            return Some(format!(
                "{key} annotation cannot be used. Snippet directives are disabled by the Ingress administrator"
            ));
        }
    }
    None
}

/// Why a version can't be loaded: its first error.
fn rejected(rejection: &[Diagnostic], prefix: &str) -> String {
    let error = rejection.iter().find(|found| found.severity == Severity::Error);
    let Some(found) = error.or(rejection.first()) else { return "the Ingress can't be loaded".to_owned() };
    let name = found.field.strip_prefix("metadata.annotations[\"").and_then(|rest| rest.strip_suffix("\"]"));
    let fallback = format!("{prefix}/");
    let name = name.unwrap_or(&fallback);
    match found.reason {
        Reason::SuspiciousText => format!("invalid object: {}", told(found)),
        Reason::AnnotationTooRisky => format!("annotation {name} is too risky for environment: {}", found.message),
        Reason::AnnotationParsingFailed => format!("annotation {name} contains invalid value: {}", found.message),
        _ => told(found),
    }
}

/// The text of a finding, without the object, which its author knows.
fn told(found: &Diagnostic) -> String {
    let mut text = match (found.field.as_str(), found.value.as_str()) {
        ("", _) => found.message.clone(),
        (field, "") => format!("{field}: {}", found.message),
        (field, value) => format!("{field}: value \"{value}\": {}", found.message),
    };
    if let Some((end, _)) = text.char_indices().nth(limit::REVIEW_WARNING) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Paths with characters that their type doesn't allow.
fn path_types(part: &Part, config: &GlobalConfig) -> Option<String> {
    if !config.strict_validate_path_type {
        return None;
    }
    let paths = part.hosts.iter().flat_map(|host| &host.paths).filter(|rule| !is_ordinary(rule));
    let wrong = paths.take(limit::REVIEW_WARNINGS).map(|rule| {
        let kind = if rule.kind == PathKind::Exact { "Exact" } else { "Prefix" };
        format!("path {} cannot be used with pathType {kind}", crate::diagnostic::bounded(&rule.text))
    });
    let wrong: Vec<String> = wrong.collect();
    (!wrong.is_empty()).then(|| format!("ingress contains invalid paths: {}", wrong.join("\n")))
}

/// A host and path that another Ingress has. Two canaries can't share them, and neither can two Ingresses that aren't canaries.
fn overlap(part: &Part, hosts: &Hosts) -> Option<String> {
    for host in &part.hosts {
        let mut wanted: HashMap<_, &PathRule> = HashMap::new();
        for rule in &host.paths {
            wanted.entry((rule.kind == PathKind::Exact, canonical(part, rule))).or_insert(rule);
        }
        let mut first: Option<(&PathRule, &Part)> = None;
        // The oldest comes first, since it is the one that is served.
        for other in hosts.named(&host.pattern, part.annotations.is_canary()) {
            let rules = other.hosts.iter().filter(|rules| rules.pattern == host.pattern);
            for rule in rules.flat_map(|rules| &rules.paths) {
                let Some(mine) = wanted.remove(&(rule.kind == PathKind::Exact, canonical(other, rule))) else {
                    continue;
                };
                if other.key() == part.key() || !excludes(part, other) {
                    continue;
                }
                if first.is_none_or(|(earlier, _)| mine.place < earlier.place) {
                    first = Some((mine, other));
                }
            }
        }
        if let Some((rule, other)) = first {
            let name = match &host.pattern {
                HostPattern::Any => "_".to_owned(),
                pattern => pattern.to_string(),
            };
            let (path, owner) = (crate::diagnostic::bounded(&rule.text), other.key());
            return Some(format!(
                "host \"{name}\" and path \"{path}\" is already defined in ingress {}/{}",
                owner.namespace, owner.name
            ));
        }
    }
    None
}

/// Whether an Ingress keeps another one from its paths.
fn excludes(new: &Part, old: &Part) -> bool {
    // An Ingress that is being deleted yields.
    if old.owner.age.leaving {
        return false;
    }
    let canaries = (new.annotations.canary.enabled, old.annotations.canary.enabled);
    matches!(canaries, (Some(true), Some(true)) | (None, None))
}
