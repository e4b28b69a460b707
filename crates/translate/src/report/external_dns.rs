//! Annotations for external-dns under the prefix that its newer versions ignore. Fairway itself doesn't read them, but a DNS record
//! that changes by itself during a migration deserves a finding.

use std::collections::BTreeMap;
use std::ops::Bound;

use fairway_model::Origin;
use k8s_openapi::api::core::v1::Service;

use crate::diagnostic::{Diagnostic, Reason, Severity, bounded};

/// The prefix that external-dns reads up to 0.21.
const OLD: &str = "external-dns.alpha.kubernetes.io/";

/// The prefix that external-dns reads from 0.22 on.
const NEW: &str = "external-dns.kubernetes.io/";

/// The finding about annotations that an object has only under the old prefix.
pub(crate) fn finding(origin: &Origin, annotations: &BTreeMap<String, String>) -> Option<Diagnostic> {
    let mut names = old_names(annotations);
    let (name, value) = names.next()?;
    let more = match names.count() {
        0 => String::new(),
        1 => " (one more annotation has it too)".to_owned(),
        more => format!(" ({more} more annotations have it too)"),
    };
    let message = format!(
        "external-dns 0.22 and newer ignore this prefix{more} unless a flag says otherwise; set {NEW}{} as well",
        bounded(name)
    );
    let field = format!("metadata.annotations[\"{OLD}{}\"]", bounded(name));
    Some(Diagnostic::new(Severity::Info, Reason::OutdatedAnnotation, origin, field, value, message))
}

/// The same for a Service.
pub(crate) fn finding_of_service(origin: &Origin, service: &Service) -> Option<Diagnostic> {
    finding(origin, service.metadata.annotations.as_ref()?)
}

/// Whether two versions of a Service are the same to [`finding_of_service`].
pub(crate) fn alike(before: &Service, after: &Service) -> bool {
    let names =
        |service: &Service| service.metadata.annotations.iter().flat_map(old_names).map(owned).collect::<Vec<_>>();
    names(before) == names(after)
}

/// Whether a Service has such annotations.
pub(crate) fn concerns(service: &Service) -> bool {
    service.metadata.annotations.iter().flat_map(old_names).next().is_some()
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Names, without the old prefix, and values. Annotations of other prefixes cost nothing.
fn old_names(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    annotations
        .range::<str, _>((Bound::Included(OLD), Bound::Unbounded))
        .map_while(|(key, value)| key.strip_prefix(OLD).map(|name| (name, value.as_str())))
        .filter(|(name, _)| !annotations.contains_key(&format!("{NEW}{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str]) -> Option<Diagnostic> {
        let all = names.iter().map(|name| ((*name).to_owned(), "none".to_owned())).collect();
        finding(&Origin::new("Ingress", "a", "b"), &all)
    }

    #[test]
    fn the_old_prefix_alone_is_reported() {
        let one = found(&["external-dns.alpha.kubernetes.io/controller", "a/b"]).unwrap();
        assert_eq!(
            one.to_string(),
            "Ingress a/b: metadata.annotations[\"external-dns.alpha.kubernetes.io/controller\"]: value \"none\": external-dns \
             0.22 and newer ignore this prefix unless a flag says otherwise; set external-dns.kubernetes.io/controller as well"
        );
        let three = ["controller", "hostname", "ttl"].map(|name| format!("{OLD}{name}"));
        let three = found(&three.each_ref().map(String::as_str)).unwrap();
        assert!(three.message.contains("(2 more annotations have it too)"), "{}", three.message);
    }

    #[test]
    fn both_prefixes_are_fine() {
        assert_eq!(found(&["external-dns.alpha.kubernetes.io/ttl", "external-dns.kubernetes.io/ttl"]), None);
        assert_eq!(found(&["external-dns.kubernetes.io/ttl"]), None);
    }
}
