//! Facts about rights in the audit log of an API server: the requests of pods, and how their grants came and went.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac` of Kubernetes for the reason of a decision.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead};

use jiff::Timestamp;

use crate::cluster::audit::{Event, Object};

/// The account of a pod.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct AuditAccount {
    pub namespace: String,
    pub name: String,
}

/// The target of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AuditAction {
    pub group: String,
    /// With the subresource: `ingresses/status`.
    pub resource: String,
    pub verb: String,
    /// Empty: in all namespaces, or an object that is in none.
    pub namespace: String,
    /// Empty for many objects and for a new one: names don't restrict creation.
    pub name: String,
}

/// A role and its binding to an account. The chart gives both the name of the account.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Grant {
    /// Empty: ClusterRole and ClusterRoleBinding.
    pub namespace: String,
    pub name: String,
}

/// The decision about a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// By this binding, if it is a binding.
    Allowed(Option<Grant>),
    Denied,
}

/// A request of a pod that was decided on.
#[derive(Clone, Debug)]
pub(super) struct JudgedRequest {
    pub account: AuditAccount,
    pub pod: String,
    pub action: AuditAction,
    pub decision: Decision,
    pub received: Timestamp,
    pub answered: Timestamp,
}

/// The state of a grant at some time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// Not given so far.
    Unknown,
    /// Both role and binding are there.
    InForce,
    /// Role or binding was deleted.
    TakenAway,
}

/// One log.
pub(super) struct RequestLog {
    /// In the order of the responses.
    pub requests: Vec<JudgedRequest>,
    changes: Vec<Change>,
    /// When each pod first appears.
    first: BTreeMap<(AuditAccount, String), Timestamp>,
}

/// A write to a role or to a binding.
struct Change {
    part: Part,
    namespace: String,
    /// `None` for all objects of the namespace.
    name: Option<String>,
    kind: ChangeKind,
    /// When the request arrived: it has no effect before.
    received: Timestamp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Role,
    Binding,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ChangeKind {
    Created,
    Changed,
    Deleted,
}

impl RequestLog {
    /// Reads a log, a line of JSON for each event.
    pub(super) fn read(lines: impl BufRead) -> io::Result<Self> {
        let mut log = Self { requests: Vec::new(), changes: Vec::new(), first: BTreeMap::new() };
        for line in lines.lines() {
            let line = line?;
            // Cheaper than parsing every request of every component.
            if !line.contains("system:serviceaccount:") && !line.contains("\"rbac.authorization.k8s.io\"") {
                continue;
            }
            // The last line of an API server that was killed may be cut.
            let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
            log.changes.extend(change(&event));
            if let Some(request) = request(event) {
                let pod = (request.account.clone(), request.pod.clone());
                log.first.entry(pod).or_insert(request.received);
                log.requests.push(request);
            }
        }
        Ok(log)
    }

    /// The state of a grant at some time.
    pub(super) fn standing(&self, grant: &Grant, at: Timestamp) -> Standing {
        let last = |part| {
            let until = self.changes_of(grant).filter(|change| change.part == part && change.received <= at);
            until.max_by_key(|change| change.received).map(|change| change.kind)
        };
        match [last(Part::Role), last(Part::Binding)] {
            [None, _] | [_, None] => Standing::Unknown,
            parts if parts.contains(&Some(ChangeKind::Deleted)) => Standing::TakenAway,
            _ => Standing::InForce,
        }
    }

    /// Whether role or binding were changed, but not replaced, during the pod's life and before a request was denied.
    pub(super) fn was_changed_under(&self, grant: &Grant, denied: &JudgedRequest) -> bool {
        let first = self.first[&(denied.account.clone(), denied.pod.clone())];
        self.changes_of(grant).any(|change| {
            change.kind == ChangeKind::Changed && first < change.received && change.received <= denied.answered
        })
    }

    /// Whether the request was for IngressClasses, by an account that has rights in its own namespace and never had any
    /// in the cluster.
    pub(super) fn is_of_namespaces_only(&self, denied: &JudgedRequest) -> bool {
        let JudgedRequest { account: AuditAccount { namespace, name }, action, answered, .. } = denied;
        let standing = |namespace: &str| {
            let grant = Grant { namespace: namespace.to_owned(), name: name.clone() };
            self.standing(&grant, *answered)
        };
        let classes = (action.group.as_str(), action.resource.as_str()) == ("networking.k8s.io", "ingressclasses");
        classes && standing("") == Standing::Unknown && standing(namespace) != Standing::Unknown
    }

    /// Whether the denied request was also allowed while the same grants were in effect.
    pub(super) fn was_allowed_as_well(&self, denied: &JudgedRequest, grants: &[&Grant]) -> bool {
        let is_same = |request: &&JudgedRequest| {
            let allowed = matches!(request.decision, Decision::Allowed(_));
            allowed && request.account == denied.account && request.action == denied.action
        };
        self.requests.iter().filter(is_same).any(|allowed| {
            let between = allowed.answered.min(denied.answered)..=allowed.answered.max(denied.answered);
            grants.iter().all(|grant| !self.changes_of(grant).any(|change| between.contains(&change.received)))
        })
    }

    fn changes_of(&self, grant: &Grant) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| {
            change.namespace == grant.namespace && change.name.as_ref().is_none_or(|name| *name == grant.name)
        })
    }
}

impl fmt::Display for JudgedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, action: AuditAction { group, resource, verb, namespace, name }, .. } = self;
        write!(f, "{}/{}: {verb} {resource} of {group:?}", account.namespace, account.name)?;
        if !namespace.is_empty() || !name.is_empty() {
            write!(f, ", {namespace}/{name}")?;
        }
        Ok(())
    }
}

/// The write to a role or a binding in this event, if it succeeded.
fn change(event: &Event) -> Option<Change> {
    let object = &event.object_ref;
    let part = match (object.api_group.as_str(), object.resource.as_str()) {
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => Part::Role,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => Part::Binding,
        _ => return None,
    };
    let kind = match (event.verb.as_str(), event.code()) {
        // An apply that creates an object is a patch as well.
        ("create" | "update" | "patch", Some(201)) => ChangeKind::Created,
        ("update" | "patch", Some(200)) => ChangeKind::Changed,
        ("delete" | "deletecollection", Some(200..300)) => ChangeKind::Deleted,
        _ => return None,
    };
    let name = (!object.name.is_empty()).then(|| object.name.clone());
    Some(Change { part, namespace: object.namespace.clone(), name, kind, received: event.received })
}

/// The request of a pod in this event, if it was decided on: a throttled one (429) is rejected before that.
fn request(event: Event) -> Option<JudgedRequest> {
    // A watch is decided on when it starts; it is logged once more at its end.
    if (event.stage == "ResponseStarted") != (event.verb == "watch") {
        return None;
    }
    let (namespace, name) = event.account()?;
    // The control plane's own controllers.
    if namespace == "kube-system" {
        return None;
    }
    let account = AuditAccount { namespace: namespace.to_owned(), name: name.to_owned() };
    let decision = match event.annotations.get("authorization.k8s.io/decision")?.as_str() {
        "allow" => {
            Decision::Allowed(event.annotations.get("authorization.k8s.io/reason").and_then(|text| binding(text)))
        }
        _ => Decision::Denied,
    };
    let pod = event.pod().unwrap_or_default().to_owned();
    let resource = event.object_ref.kind();
    let Object { api_group: group, namespace, name, .. } = event.object_ref;
    let name = if event.verb == "create" { String::new() } else { name };
    Some(JudgedRequest {
        account,
        pod,
        action: AuditAction { group, resource, verb: event.verb, namespace, name },
        decision,
        received: event.received,
        answered: event.reached,
    })
}

/// The binding named in a reason: `RBAC: allowed by ClusterRoleBinding "name" of ...` or `RoleBinding
/// "name/namespace"`.
fn binding(reason: &str) -> Option<Grant> {
    let (kind, rest) = reason.strip_prefix("RBAC: allowed by ")?.split_once(" \"")?;
    let (text, _) = rest.split_once('"')?;
    let (name, namespace) = match kind {
        "ClusterRoleBinding" => (text, ""),
        "RoleBinding" => text.split_once('/')?,
        _ => return None,
    };
    Some(Grant { namespace: namespace.to_owned(), name: name.to_owned() })
}
