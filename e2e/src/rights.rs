//! Checks that the chart grants exactly the rights that Fairway needs, based on the audit logs of API servers, see
//! [`Judge`].
//!
//! It is here rather than beside its test so that its rules are tested without a cluster.

mod audit;
mod chart;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead};

use self::audit::{Decision, JudgedRequest, RequestLog, Standing};

pub use self::chart::{RELEASE, Right, Scope, rights};

/// Compares the rights granted by the chart with those that pods request.
///
/// A denied request is a gap in the chart, with four exceptions. Each requires that the chart grants this right, in this scope, for an
/// object of this name, with some of its settings:
/// - the right was taken away: the role or its binding was deleted before, as when a user uninstalls while pods are still ending;
/// - the right was changed while the pod ran: an upgrade to settings that need fewer rights, which the pod doesn't know about;
/// - the request reads IngressClasses, and the account only ever had rights in namespaces: Fairway asks, and continues without;
/// - the API server didn't know the right yet, having just started: the same request of the same account was allowed, and role and binding
///   did not change between the two.
///
/// A cluster-wide right counts as used if one account used it for all namespaces at once, or in two of them: for one namespace a Role would
/// be enough. A namespace's right counts as used if the binding in that namespace allowed a request.
#[derive(Debug)]
pub struct Judge {
    granted: BTreeSet<Right>,
    /// What the chart grants with each of its settings, including rights that need not be used.
    settings: Vec<BTreeSet<Right>>,
    used: BTreeSet<Right>,
    requests: usize,
    denied: BTreeMap<String, usize>,
}

impl Judge {
    /// Judges the rights that the chart grants with each of some settings.
    pub fn new(settings: impl IntoIterator<Item = BTreeSet<Right>>) -> Self {
        let settings: Vec<_> = settings.into_iter().collect();
        let granted = settings.iter().flatten().cloned().collect();
        Self { granted, settings, used: BTreeSet::new(), requests: 0, denied: BTreeMap::new() }
    }

    /// Registers the rights that the chart grants with other settings, which need not be used.
    #[must_use]
    pub fn knowing(mut self, others: BTreeSet<Right>) -> Self {
        self.settings.push(others);
        self
    }

    /// Reads the audit log of one API server, a line of JSON for each event.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(&mut self, log: impl BufRead) -> io::Result<()> {
        let log = RequestLog::read(log)?;
        let mut reached: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for request in &log.requests {
            match &request.decision {
                Decision::Allowed(by) => {
                    let has_allowed = |right: &&Right| right.allows(request) && Some(right.grant(request)) == *by;
                    for right in self.granted.iter().filter(has_allowed) {
                        reached.entry((right, &request.account)).or_default().insert(&request.action.namespace);
                    }
                }
                Decision::Denied => {
                    if !self.is_excused(request, &log) {
                        *self.denied.entry(request.to_string()).or_default() += 1;
                    }
                }
            }
        }
        let used = reached.iter().filter(|((right, _), namespaces)| match right.scope {
            Scope::Cluster => namespaces.contains("") || namespaces.len() > 1,
            Scope::Namespace => true,
        });
        self.used.extend(used.map(|((right, _), _)| (*right).clone()));
        self.requests += log.requests.len();
        Ok(())
    }

    /// The number of requests of pods that were decided on.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Requests denied without an excuse, with their counts.
    pub fn denied(&self) -> &BTreeMap<String, usize> {
        &self.denied
    }

    /// Rights that the chart grants and no request needed.
    pub fn unused(&self) -> impl Iterator<Item = &Right> {
        self.granted.difference(&self.used)
    }

    /// A log doesn't show the settings from which the account got its rights.
    fn is_excused(&self, denied: &JudgedRequest, log: &RequestLog) -> bool {
        self.settings.iter().any(|rights| is_excused_with(rights, denied, log))
    }
}

fn is_excused_with(rights: &BTreeSet<Right>, denied: &JudgedRequest, log: &RequestLog) -> bool {
    let grants: BTreeSet<_> =
        rights.iter().filter(|right| right.allows(denied)).map(|right| right.grant(denied)).collect();
    let stands = |standing| move |grant: &&_| log.standing(grant, denied.answered) == standing;
    let in_force: Vec<_> = grants.iter().filter(stands(Standing::InForce)).collect();
    if in_force.is_empty() {
        let taken_away = grants.iter().any(|grant| stands(Standing::TakenAway)(&grant));
        return taken_away || (!grants.is_empty() && log.is_of_namespaces_only(denied));
    }
    in_force.iter().any(|grant| log.was_changed_under(grant, denied)) || log.was_allowed_as_well(denied, &in_force)
}

#[cfg(test)]
mod tests;
