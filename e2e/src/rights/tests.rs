use serde_json::{Value, json};

use super::*;

/// Like the chart's rights: some cluster-wide, some in a namespace.
const CHART: &str = "
kind: ClusterRole
rules:
  - {apiGroups: [''], resources: [secrets], verbs: [list]}
  - {apiGroups: [''], resources: [events], verbs: [create]}
  - {apiGroups: [networking.k8s.io], resources: [ingressclasses], verbs: [list]}
---
kind: Role
rules:
  - {apiGroups: [''], resources: [pods], verbs: [get]}
  - {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [any-release-leader], verbs: [update]}
---
kind: Service
";

/// The rights of an account `shop` in the namespace `shop`, from a Role of its own.
const GET_POD: Asked = Asked { verb: "get", group: "", resource: "pods", namespace: "shop", name: "pod-1" };
/// The rights from a ClusterRole.
const LIST_SECRETS: Asked = Asked { verb: "list", group: "", resource: "secrets", namespace: "", name: "" };
const CREATE_EVENT: Asked = Asked { verb: "create", group: "", resource: "events", namespace: "shop", name: "" };
const UPDATE_LEASE: Asked =
    Asked { verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: "shop", name: "shop-leader" };

/// The binding in the namespace `shop`, and the cluster-wide one.
const ROLE: &str = "RoleBinding \"shop/shop\" of Role \"shop\"";
const CLUSTER_ROLE: &str = "ClusterRoleBinding \"shop\" of ClusterRole \"shop\"";

#[derive(Clone, Copy)]
struct Asked {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: &'static str,
    name: &'static str,
}

/// A log, written line by line, one second per line.
#[derive(Default)]
struct Written {
    lines: Vec<Value>,
}

impl Written {
    /// After the chart was installed, by `helm install`.
    fn installed() -> Self {
        let mut log = Self::default();
        for (resource, namespace) in
            [("clusterroles", ""), ("clusterrolebindings", ""), ("roles", "shop"), ("rolebindings", "shop")]
        {
            log.rbac("patch", 201, resource, namespace, "shop");
        }
        log
    }

    fn line(&mut self, user: &str, asked: Asked, code: u16, annotations: Value) -> &mut Self {
        let second = self.lines.len();
        let time = |fraction: u32| format!("2026-01-01T00:00:{second:02}.{fraction}Z");
        let Asked { verb, group, resource, namespace, name } = asked;
        let pod = "authentication.kubernetes.io/pod-name";
        let (user, pod_name) = user.split_once('@').unwrap_or((user, ""));
        self.lines.push(json!({
            "stage": if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" },
            "verb": verb,
            "user": {"username": user, "extra": {pod: [pod_name]}},
            "objectRef": {"apiGroup": group, "resource": resource, "namespace": namespace, "name": name},
            "responseStatus": {"code": code},
            "annotations": annotations,
            "requestReceivedTimestamp": time(0),
            "stageTimestamp": time(5),
        }));
        self
    }

    /// A write to a role or a binding.
    fn rbac(
        &mut self,
        verb: &'static str,
        code: u16,
        resource: &'static str,
        namespace: &'static str,
        name: &'static str,
    ) -> &mut Self {
        let asked = Asked { verb, group: "rbac.authorization.k8s.io", resource, namespace, name };
        self.line("admin", asked, code, json!({"authorization.k8s.io/decision": "allow"}))
    }

    /// A request of `namespace:account@pod` that a binding allows.
    fn allowed(&mut self, user: &str, asked: Asked, binding: &str) -> &mut Self {
        let reason = format!("RBAC: allowed by {binding} to ServiceAccount \"shop/shop\"");
        let annotations = json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": reason});
        self.line(&format!("system:serviceaccount:{user}"), asked, 200, annotations)
    }

    /// A request of `namespace:account@pod` that is denied.
    fn denied(&mut self, user: &str, asked: Asked) -> &mut Self {
        let annotations = json!({"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""});
        self.line(&format!("system:serviceaccount:{user}"), asked, 403, annotations)
    }

    fn judge(&self) -> Judge {
        let mut judge = Judge::new([rights(CHART.as_bytes()).unwrap()]);
        let text: Vec<String> = self.lines.iter().map(Value::to_string).collect();
        judge.read(text.join("\n").as_bytes()).unwrap();
        judge
    }

    /// The requests that were denied without an excuse.
    fn complaints(&self) -> Vec<String> {
        self.judge().denied().keys().cloned().collect()
    }

    /// The chart's rights that were used.
    fn used(&self) -> Vec<String> {
        let judge = self.judge();
        let unused: BTreeSet<_> = judge.unused().collect();
        judge
            .granted
            .iter()
            .filter(|right| !unused.contains(right))
            .map(|right| format!("{} {}", right.verb, right.resource))
            .collect()
    }
}

const POD: &str = "shop:shop@pod-1";

#[test]
fn the_rights_are_those_of_the_roles() {
    let granted = rights(CHART.as_bytes()).unwrap();
    let shown: Vec<_> = granted.iter().map(Right::to_string).collect();
    assert_eq!(
        shown,
        [
            "create events of \"\" in the whole cluster",
            "list secrets of \"\" in the whole cluster",
            "list ingressclasses of \"networking.k8s.io\" in the whole cluster",
            "get pods of \"\" in a namespace",
            "update leases of \"coordination.k8s.io\" in a namespace, called any-release-leader",
        ]
    );
}

#[test]
fn what_is_denied_while_the_grant_stands_is_a_lack() {
    let mut log = Written::installed();
    log.denied(POD, GET_POD).denied(POD, GET_POD).denied(POD, LIST_SECRETS);
    let expected = ["shop/shop: get pods of \"\", shop/pod-1", "shop/shop: list secrets of \"\""];
    assert_eq!(log.complaints(), expected, "to install is no revocation, though helm patches");
    assert_eq!(log.judge().denied()[expected[0]], 2);
}

#[test]
fn what_was_never_given_is_a_lack() {
    let mut log = Written::default();
    log.denied(POD, GET_POD);
    assert_eq!(log.complaints().len(), 1);
}

/// With `rbac.scope`, Fairway asks for classes and continues without.
#[test]
fn who_has_rights_in_namespaces_only_may_ask_for_classes() {
    let classes =
        Asked { verb: "list", group: "networking.k8s.io", resource: "ingressclasses", namespace: "", name: "" };
    let scoped = || {
        let mut log = Written::default();
        log.rbac("patch", 201, "roles", "shop", "shop").rbac("patch", 201, "rolebindings", "shop", "shop");
        log
    };
    assert!(scoped().denied(POD, classes).complaints().is_empty());
    assert_eq!(scoped().denied(POD, LIST_SECRETS).complaints().len(), 1, "another kind");
    assert_eq!(scoped().denied(POD, Asked { verb: "delete", ..classes }).complaints().len(), 1, "another verb");
    assert_eq!(scoped().denied("shop:another@pod-1", classes).complaints().len(), 1, "an account without rights");
    assert_eq!(Written::installed().denied(POD, classes).complaints().len(), 1, "with a ClusterRole that lacks it");
    let mut ended = scoped();
    ended.rbac("delete", 200, "rolebindings", "shop", "shop").denied(POD, classes);
    assert!(ended.complaints().is_empty(), "at the end of a release");
}

#[test]
fn what_was_taken_away_is_denied_rightly() {
    for (resource, code) in [("roles", 200), ("rolebindings", 200), ("rolebindings", 202)] {
        let mut log = Written::installed();
        log.rbac("delete", code, resource, "shop", "shop").denied(POD, GET_POD);
        assert!(log.complaints().is_empty(), "{resource}");
        let mut log = Written::installed();
        log.rbac("deletecollection", code, resource, "shop", "").denied(POD, GET_POD);
        assert!(log.complaints().is_empty(), "{resource} with their namespace");
        let mut log = Written::installed();
        log.denied(POD, GET_POD).rbac("delete", code, resource, "shop", "shop");
        assert_eq!(log.complaints().len(), 1, "{resource}, later");
        let mut log = Written::installed();
        log.rbac("delete", 403, resource, "shop", "shop").denied(POD, GET_POD);
        assert_eq!(log.complaints().len(), 1, "{resource}, in vain");
        let mut log = Written::installed();
        log.rbac("delete", code, resource, "shop", "shop")
            .rbac("create", 201, resource, "shop", "shop")
            .denied(POD, GET_POD);
        assert_eq!(log.complaints().len(), 1, "{resource}, and given again");
    }
}

#[test]
fn what_was_taken_away_elsewhere_excuses_nothing() {
    for (resource, namespace, name) in [
        ("rolebindings", "shop", "another"),
        ("rolebindings", "another", "shop"),
        // Rights from the Role remain when the ClusterRole is deleted.
        ("clusterrolebindings", "", "shop"),
        ("clusterroles", "", "shop"),
    ] {
        let mut log = Written::installed();
        log.rbac("delete", 200, resource, namespace, name).denied(POD, GET_POD);
        assert_eq!(log.complaints().len(), 1, "{resource} {namespace}/{name}");
    }
    let mut log = Written::installed();
    log.rbac("delete", 200, "clusterrolebindings", "", "shop").denied(POD, LIST_SECRETS).denied(POD, CREATE_EVENT);
    assert!(log.complaints().is_empty(), "a right of the ClusterRole ends with it, in each namespace");
    let mut log = Written::installed();
    log.rbac("deletecollection", 200, "rolebindings", "another", "").denied(POD, GET_POD);
    assert_eq!(log.complaints().len(), 1, "another namespace");
}

#[test]
fn a_right_that_need_not_be_used_ends_with_its_role_too() {
    let others =
        "{kind: ClusterRole, rules: [{apiGroups: [gateway.networking.k8s.io], resources: [gateways], verbs: [list]}]}";
    let list =
        Asked { verb: "list", group: "gateway.networking.k8s.io", resource: "gateways", namespace: "", name: "" };
    let judged = |taken_away: bool| {
        let mut log = Written::installed();
        if taken_away {
            log.rbac("delete", 200, "clusterroles", "", "shop");
        }
        log.denied(POD, list);
        let mut judge = Judge::new([]).knowing(rights(others.as_bytes()).unwrap());
        let text: Vec<String> = log.lines.iter().map(Value::to_string).collect();
        judge.read(text.join("\n").as_bytes()).unwrap();
        (judge.denied().len(), judge.unused().count())
    };
    assert_eq!((judged(true), judged(false)), ((0, 0), (1, 0)));
}

/// An uninstall deletes the Role before the ClusterRole.
#[test]
fn a_right_that_other_settings_grant_in_the_cluster_too_ends_with_the_role_of_these() {
    let others = "{kind: ClusterRole, rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]}";
    let judged = |taken_away: bool| {
        let mut log = Written::installed();
        if taken_away {
            log.rbac("delete", 200, "rolebindings", "shop", "shop");
        }
        log.denied(POD, GET_POD);
        let mut judge = Judge::new([CHART, others].map(|text| rights(text.as_bytes()).unwrap()));
        let text: Vec<String> = log.lines.iter().map(Value::to_string).collect();
        judge.read(text.join("\n").as_bytes()).unwrap();
        judge.denied().len()
    };
    assert_eq!((judged(true), judged(false)), (0, 1));
}

#[test]
fn a_right_that_the_chart_never_grants_is_missing_whatever_was_taken_away() {
    let gone = |asked| {
        let mut log = Written::installed();
        log.rbac("delete", 200, "clusterroles", "", "shop").rbac("delete", 200, "roles", "shop", "shop");
        log.denied(POD, asked).complaints().len()
    };
    assert_eq!((gone(GET_POD), gone(LIST_SECRETS), gone(UPDATE_LEASE)), (0, 0, 0));
    assert_eq!(gone(Asked { verb: "delete", ..GET_POD }), 1, "another verb");
    assert_eq!(gone(Asked { resource: "pods/log", ..GET_POD }), 1, "another resource");
    assert_eq!(gone(Asked { group: "apps", ..GET_POD }), 1, "another group");
    assert_eq!(gone(Asked { namespace: "another", ..GET_POD }), 1, "another namespace than the Role's");
    assert_eq!(gone(Asked { name: "another-leader", ..UPDATE_LEASE }), 1, "another name");
}

#[test]
fn a_change_excuses_the_pods_of_before_only() {
    for resource in ["roles", "rolebindings"] {
        let mut log = Written::installed();
        log.allowed(POD, LIST_SECRETS, CLUSTER_ROLE).rbac("patch", 200, resource, "shop", "shop").denied(POD, GET_POD);
        assert!(log.complaints().is_empty(), "{resource}");
        log.denied("shop:shop@pod-2", GET_POD);
        assert_eq!(log.complaints().len(), 1, "{resource}: a pod that came after the change");
    }
    let mut log = Written::installed();
    log.allowed(POD, LIST_SECRETS, CLUSTER_ROLE).denied(POD, GET_POD).rbac("patch", 200, "roles", "shop", "shop");
    assert_eq!(log.complaints().len(), 1, "before the change");
    let mut log = Written::installed();
    log.allowed(POD, LIST_SECRETS, CLUSTER_ROLE).rbac("patch", 200, "clusterroles", "", "shop").denied(POD, GET_POD);
    assert_eq!(log.complaints().len(), 1, "the change of another role");
}

#[test]
fn what_the_api_server_does_not_know_yet_is_denied_without_a_lack() {
    let mut log = Written::installed();
    log.denied(POD, GET_POD).allowed(POD, GET_POD, ROLE);
    assert!(log.complaints().is_empty(), "allowed soon");
    let mut log = Written::installed();
    log.allowed(POD, GET_POD, ROLE).denied(POD, GET_POD);
    assert!(log.complaints().is_empty(), "allowed before");
    let mut log = Written::installed();
    let watch = Asked { verb: "watch", ..LIST_SECRETS };
    assert_eq!(log.denied(POD, watch).complaints().len(), 1, "a watch is a request, too");

    let others = [
        ("another account", "shop:another@pod-1", GET_POD),
        ("another namespace's account", "another:shop@pod-1", GET_POD),
        ("another namespace", POD, Asked { namespace: "another", ..GET_POD }),
        ("another object", POD, Asked { name: "pod-2", ..GET_POD }),
        ("another verb", POD, Asked { verb: "list", ..GET_POD }),
    ];
    for (what, user, asked) in others {
        let mut log = Written::installed();
        log.denied(POD, GET_POD).allowed(user, asked, ROLE);
        assert_eq!(log.complaints().len(), 1, "{what}");
    }
    for (verb, code, resource) in
        [("patch", 200, "roles"), ("patch", 201, "rolebindings"), ("update", 200, "rolebindings")]
    {
        let mut log = Written::installed();
        log.denied(POD, GET_POD).rbac(verb, code, resource, "shop", "shop").allowed(POD, GET_POD, ROLE);
        assert_eq!(log.complaints().len(), 1, "given only between the two: {verb} {resource}");
    }
}

#[test]
fn a_right_of_the_whole_cluster_has_to_be_used_in_more_than_one_namespace() {
    let event = |namespace| Asked { namespace, ..CREATE_EVENT };
    let used = |asked: &[(&str, Asked)]| {
        let mut log = Written::installed();
        for (user, asked) in asked {
            log.allowed(user, *asked, CLUSTER_ROLE);
        }
        log.used()
    };
    assert!(used(&[(POD, event("shop")), (POD, event("shop"))]).is_empty(), "in one namespace");
    assert!(used(&[(POD, event("a")), ("another:shop@pod-1", event("b"))]).is_empty(), "each account in one namespace");
    assert_eq!(used(&[(POD, event("a")), ("shop:shop@pod-2", event("b"))]), ["create events"]);
    assert_eq!(used(&[(POD, LIST_SECRETS)]), ["list secrets"], "in all at once");
    let own = Asked { namespace: "shop", ..LIST_SECRETS };
    assert!(used(&[(POD, own)]).is_empty(), "in its own");
}

#[test]
fn a_right_is_used_by_who_has_it_from_that_role() {
    let used = |binding: &str, asked| {
        let mut log = Written::installed();
        log.allowed(POD, asked, binding).used()
    };
    assert_eq!(used(ROLE, GET_POD), ["get pods"]);
    assert_eq!(used(ROLE, UPDATE_LEASE), ["update leases"]);
    assert!(used(ROLE, Asked { name: "another", ..UPDATE_LEASE }).is_empty(), "another name");
    assert!(used(CLUSTER_ROLE, GET_POD).is_empty(), "from the ClusterRole");
    assert!(used(ROLE, LIST_SECRETS).is_empty(), "from the Role");
    assert!(used("RoleBinding \"another/shop\" of Role \"another\"", GET_POD).is_empty(), "another account's binding");
    assert!(used("RoleBinding \"shop/another\" of Role \"shop\"", GET_POD).is_empty(), "a binding elsewhere");
    assert!(Written::installed().denied(POD, GET_POD).used().is_empty(), "a denied right is not used");
}

#[test]
fn undecided_requests_and_those_of_the_control_plane_do_not_count() {
    let mut log = Written::installed();
    log.line("system:serviceaccount:shop:shop@pod-1", LIST_SECRETS, 429, json!({}));
    log.denied("kube-system:job-controller", LIST_SECRETS);
    // The end of a watch, which was authorised at its start.
    log.denied(POD, Asked { verb: "watch", ..LIST_SECRETS }).lines.last_mut().unwrap()["stage"] =
        json!("ResponseComplete");
    let judge = log.judge();
    assert_eq!((judge.requests(), judge.denied().len()), (0, 0));
    assert!(log.used().is_empty());
}

#[test]
fn a_line_that_is_cut_is_left_out() {
    let mut log = Written::installed();
    let text = log.denied(POD, GET_POD).lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let mut judge = Judge::new([rights(CHART.as_bytes()).unwrap()]);
    judge.read(&text.as_bytes()[..text.len() - 9]).unwrap();
    assert_eq!((judge.requests(), judge.denied().len()), (0, 0));
}
