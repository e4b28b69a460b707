//! The reasons why the API server refuses a new object, so that `check` reports them before `kubectl apply` does.
//!
//! The rules, the fields and most messages are those of Kubernetes (`pkg/apis/*/validation` of version 1.36). A rule that any supported
//! version lacks is left out: an object that can be applied is never reported as refused.

mod custom;
mod ingress;
mod service;
pub(super) mod syntax;

use std::collections::BTreeMap;
use std::fmt::Arguments;

use fairway_translate::verdict::nearest;
use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Most bytes in all annotations of an object together.
const ANNOTATIONS: usize = 256 << 10;
/// Most bytes in the data of a ConfigMap or Secret together.
const DATA: usize = 1 << 20;
/// Most refusals listed for an object: a ConfigMap may have tens of thousands of keys.
const LISTED: usize = 50;

/// One reason to refuse an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    /// As the API server writes it.
    pub(super) field: String,
    pub(super) value: String,
    pub(super) message: String,
}

/// The reasons to refuse an object; empty if the API server accepts it.
pub(super) fn refusals<T: Validate + Metadata<Ty = ObjectMeta>>(object: &T) -> Vec<Refusal> {
    let mut found = Refusals::default();
    metadata(object.metadata(), T::NAMES, &mut found);
    object.validate(&mut found);
    found.0
}

/// A kind of object that the API server validates.
pub(super) trait Validate {
    /// The syntax of its names.
    const NAMES: Names;
    /// Its kind, if it has a CRD, which is then checked too.
    const CRD: Option<&'static str> = None;

    /// Checks everything except the metadata.
    fn validate(&self, found: &mut Refusals);
}

/// The syntax of an object's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Names {
    /// A DNS label.
    Label,
    /// A DNS name.
    Subdomain,
}

/// Collects reasons, with a method for each kind of error that the API server has.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Refusal>);

impl Refusals {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_all(self) -> Vec<Refusal> {
        self.0
    }

    pub(super) fn add(&mut self, field: Arguments<'_>, value: &str, message: String) {
        if self.0.len() < LISTED {
            self.0.push(Refusal { field: field.to_string(), value: value.to_owned(), message });
        }
    }

    pub(super) fn required(&mut self, field: Arguments<'_>, detail: &str) {
        self.add(field, "", with_detail("Required value", detail));
    }

    fn forbidden(&mut self, field: Arguments<'_>, detail: &str) {
        self.add(field, "", with_detail("Forbidden", detail));
    }

    pub(super) fn invalid(&mut self, field: Arguments<'_>, value: &str, detail: &str) {
        self.add(field, value, with_detail("Invalid value", detail));
    }

    /// Reports an invalid value, if there is a flaw.
    fn check(&mut self, field: Arguments<'_>, value: &str, wrong: syntax::Flaw) {
        if let Some(detail) = wrong {
            self.invalid(field, value, detail);
        }
    }

    /// The same for a host; it suggests lower case if that was probably meant.
    fn host(&mut self, field: Arguments<'_>, host: &str, syntax: fn(&str) -> syntax::Flaw) {
        let Some(detail) = syntax(host) else { return };
        let lower = host.to_ascii_lowercase();
        match syntax(&lower) {
            None => self.invalid(field, host, &format!("{detail}: write {lower}")),
            Some(_) => self.invalid(field, host, detail),
        }
    }

    pub(super) fn unsupported(&mut self, field: Arguments<'_>, value: &str, supported: &[&str]) {
        let meant = supported.iter().find(|known| known.eq_ignore_ascii_case(value)).copied();
        let meant = meant.or_else(|| nearest(value, supported.iter().copied()));
        let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        self.add(field, value, format!("Unsupported value: supported are {}{hint}", supported.join(", ")));
    }

    pub(super) fn duplicate(&mut self, field: Arguments<'_>, value: &str) {
        self.add(field, value, "Duplicate value".to_owned());
    }

    fn too_long(&mut self, field: Arguments<'_>, limit: usize) {
        self.add(field, "", format!("Too long: may not be more than {limit} bytes"));
    }

    pub(super) fn too_many(&mut self, field: Arguments<'_>, number: usize, limit: usize) {
        let items = if limit == 1 { "item" } else { "items" };
        self.add(field, "", format!("Too many: {number}: must have at most {limit} {items}"));
    }
}

fn with_detail(kind: &str, detail: &str) -> String {
    if detail.is_empty() { kind.to_owned() } else { format!("{kind}: {detail}") }
}

fn metadata(metadata: &ObjectMeta, names: Names, found: &mut Refusals) {
    let name = metadata.name.as_deref().unwrap_or_default();
    let wrong = match names {
        Names::Label => syntax::label(name),
        Names::Subdomain => syntax::subdomain(name),
    };
    found.check(format_args!("metadata.name"), name, wrong);
    if let Some(namespace) = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        found.check(format_args!("metadata.namespace"), namespace, syntax::label(namespace));
    }
    if let Some(all) = &metadata.labels {
        labels(all, format_args!("metadata.labels"), found);
    }
    let annotations = || metadata.annotations.iter().flatten();
    for (key, _) in annotations() {
        found.check(format_args!("metadata.annotations"), key, syntax::qualified_name(&key.to_lowercase()));
    }
    if annotations().map(|(key, value)| key.len() + value.len()).sum::<usize>() > ANNOTATIONS {
        found.too_long(format_args!("metadata.annotations"), ANNOTATIONS);
    }
}

fn labels(labels: &BTreeMap<String, String>, field: Arguments<'_>, found: &mut Refusals) {
    for (key, value) in labels {
        found.check(field, key, syntax::qualified_name(key));
        found.check(field, value, syntax::label_value(value));
    }
}

impl Validate for Namespace {
    const NAMES: Names = Names::Label;

    fn validate(&self, _: &mut Refusals) {}
}

impl Validate for ConfigMap {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        let texts = || self.data.iter().flatten();
        let bytes = || self.binary_data.iter().flatten();
        for (key, _) in texts() {
            found.check(format_args!("data[{key}]"), key, syntax::data_key(key));
            if self.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                found.invalid(format_args!("data[{key}]"), key, "duplicate of key present in binaryData");
            }
        }
        for (key, _) in bytes() {
            found.check(format_args!("binaryData[{key}]"), key, syntax::data_key(key));
        }
        let size = texts().map(|(_, text)| text.len()).chain(bytes().map(|(_, bytes)| bytes.0.len())).sum::<usize>();
        if size > DATA {
            found.too_long(format_args!(""), DATA);
        }
    }
}

impl Validate for Secret {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        let data = || self.data.iter().flatten();
        for (key, _) in data() {
            found.check(format_args!("data[{key}]"), key, syntax::data_key(key));
        }
        if data().map(|(_, bytes)| bytes.0.len()).sum::<usize>() > DATA {
            found.too_long(format_args!("data"), DATA);
        }
        let has = |key: &str| data().any(|(there, _)| there == key);
        let mut needs = |key: &str| {
            if !has(key) {
                found.required(format_args!("data[{key}]"), "");
            }
        };
        match self.type_.as_deref().unwrap_or_default() {
            "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(needs),
            "kubernetes.io/dockercfg" => needs(".dockercfg"),
            "kubernetes.io/dockerconfigjson" => needs(".dockerconfigjson"),
            "kubernetes.io/ssh-auth" => needs("ssh-privatekey"),
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                ["username", "password"].into_iter().for_each(needs);
            }
            "kubernetes.io/service-account-token" => {
                let name = "kubernetes.io/service-account.name";
                let annotations = self.metadata.annotations.as_ref();
                if annotations.and_then(|all| all.get(name)).is_none_or(String::is_empty) {
                    found.required(format_args!("metadata.annotations[{name}]"), "");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
