//! What was read, by what is asked about it: a request costs the same however many objects there are.

use std::collections::HashMap;

use fairway_model::Origin;
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::gateway::AppliedPolicy;

use crate::reading::Reading;

/// Findings and policies, by object.
pub(super) struct Lookup<'r> {
    reading: &'r Reading,
    /// The policies that decide about each route.
    policies: HashMap<&'r Origin, Vec<&'r AppliedPolicy>>,
    /// The places of the findings about each object, without its sections.
    findings: HashMap<Object<'r>, Vec<usize>>,
    /// Those that any request may be about.
    general: Vec<usize>,
}

/// Kind, namespace and name.
type Object<'r> = (&'r str, &'r str, &'r str);

fn object(origin: &Origin) -> Object<'_> {
    (&origin.kind, &origin.namespace, &origin.name)
}

impl<'r> Lookup<'r> {
    pub(super) fn new(reading: &'r Reading) -> Self {
        let (mut policies, mut findings) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for one in &reading.policies {
            policies.entry(&one.route).or_default().push(one);
        }
        let mut general = Vec::new();
        for (place, found) in reading.findings.iter().map(|found| &found.diagnostic).enumerate() {
            let unread = found.reason == Reason::InvalidManifest && found.severity == Severity::Error;
            if unread || found.field.starts_with("--") {
                general.push(place);
            } else {
                findings.entry(object(&found.origin)).or_default().push(place);
            }
        }
        Self { reading, policies, findings, general }
    }

    /// The policies that decide about a route, wherever it is served.
    pub(super) fn policies(&self, route: &Origin) -> &[&'r AppliedPolicy] {
        self.policies.get(route).map_or(&[], Vec::as_slice)
    }

    /// The findings about an object, and those about what could not be read, in their order.
    pub(super) fn findings(&self, origin: Option<&Origin>) -> impl Iterator<Item = &'r Diagnostic> {
        let own = origin.and_then(|origin| self.findings.get(&object(origin))).into_iter().flatten();
        let mut places: Vec<usize> = own.chain(&self.general).copied().collect();
        places.sort_unstable();
        places.into_iter().map(|place| &self.reading.findings[place].diagnostic)
    }
}
