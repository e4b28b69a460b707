//! Checks the warnings about values that render but don't do what was meant, and which values are rejected.

use serde_json::{Value as Json, json};

use super::Helm;
use super::helm::objects;
use super::names::Name;
use super::table::{Value, merge};

/// Complains about missing or superfluous warnings, values that should be rejected, and pods that are replaced for no
/// reason.
pub(crate) fn check(helm: &Helm, values: &[Value], flags: &[Name], keys: &[Name]) -> anyhow::Result<Vec<String>> {
    let mut complaints = in_vain(helm, flags, keys)?;
    complaints.extend(warnings(helm)?);
    complaints.extend(waits(helm)?);
    complaints.extend(example(helm)?);
    complaints.extend(refused(helm));
    complaints.extend(scaled(helm)?);
    complaints.extend(unset(helm, values)?);
    complaints.extend(replaced(helm)?);
    Ok(complaints)
}

/// The names at the start of the warnings, in order.
pub(crate) fn warned(helm: &Helm, name: &str, set: &Json) -> anyhow::Result<Vec<String>> {
    let notes = helm.notes(name, &[&helm.write(name, set)?])?;
    let lines = notes.split_once("\nWARNINGS\n").map_or("", |(_, warnings)| warnings);
    let named = lines.lines().filter_map(|line| Some(line.strip_prefix("- ")?.split_once(": ")?.0.to_owned()));
    Ok(named.collect())
}

/// Unsupported flags and keys are listed if they ask for anything; others never are.
fn in_vain(helm: &Helm, flags: &[Name], keys: &[Name]) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let file = |map: &str, names: &[Name], text: &dyn Fn(&Name) -> String| {
        let set = names.iter().map(|name| (name.name.clone(), json!(text(name)))).collect();
        json!({"controller": {map: Json::Object(set)}})
    };
    let other = |name: &Name| match (name.default.as_str(), name.takes.as_str()) {
        ("true", _) => "false".to_owned(),
        ("false", _) => "true".to_owned(),
        (_, "PORT" | "NUMBER" | "SECONDS") => "31".to_owned(),
        (_, "DURATION") => "31s".to_owned(),
        (_, "NAMESPACE/NAME") => "a/b".to_owned(),
        _ => "other".to_owned(),
    };
    // These decide what is rendered, and exclude each other.
    let usable = |name: &&Name| !name.name.starts_with("watch-namespace");
    let flags: Vec<Name> = flags.iter().filter(usable).cloned().collect();
    for (map, names) in [("extraArgs", flags.as_slice()), ("config", keys)] {
        // For HTTP/2, the default is the part that isn't implemented.
        let offered = |name: &Name| name.name == "use-http2";
        let set = file(map, names, &|name| if offered(name) { "true".to_owned() } else { other(name) });
        let mut wanted: Vec<_> = names
            .iter()
            .filter(|name| name.is_in_vain())
            .map(|name| format!("controller.{map}.{}", name.name))
            .collect();
        wanted.sort_unstable();
        let found = warned(helm, map, &set)?;
        if found != wanted || wanted.len() < 4 {
            complaints.push(format!("{map}, all set: warned of {found:?}, not of {wanted:?}"));
        }
        let names: Vec<Name> = names.iter().filter(|name| !name.default.is_empty()).cloned().collect();
        let defaults = file(map, &names, &|name| if offered(name) { "false".to_owned() } else { name.default.clone() });
        let found = warned(helm, map, &defaults)?;
        if !found.is_empty() {
            complaints.push(format!("{map}, set to its default: warned of {found:?}"));
        }
    }
    Ok(complaints)
}

/// Combinations that are wrong although each part is valid.
fn warnings(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let service = |service: Json| json!({"controller": {"service": service}});
    let without_service = |flags: Json, scoped: bool| {
        json!({
            "controller": {"scope": {"enabled": true}, "publishService": {"enabled": false}, "extraArgs": flags},
            "rbac": {"scope": scoped},
        })
    };
    let cases = [
        (json!({"controller": {"config": {"enable-modsecurity": true}}}), vec!["controller.config.enable-modsecurity"]),
        (json!({"controller": {"config": {"enable-modsecurity": "", "use-proxy-protocol": true}}}), vec![]),
        (json!({"controller": {"config": {"otel-sampler": "AlwaysOff", "use-geoip2": true}}}), vec![]),
        (json!({"controller": {"extraArgs": {"maxmind-mirror": "a"}}}), vec!["controller.extraArgs.maxmind-mirror"]),
        (json!({"controller": {"extraArgs": {"max-buckets": "100", "profiling": false}}}), vec![]),
        (
            json!({"controller": {"ingressClassResource": {"name": "internal"}}}),
            vec!["controller.ingressClassResource.name"],
        ),
        (
            json!({"controller": {"ingressClassResource": {"name": "internal", "controllerValue": "k8s.io/internal"}}}),
            vec![],
        ),
        (json!({"controller": {"scope": {"enabled": true}}, "rbac": {"scope": true}}), vec!["rbac.scope"]),
        (json!({"controller": {"kind": "Both", "autoscaling": {"enabled": true}}}), vec!["controller.kind"]),
        (json!({"controller": {"mode": "pair"}}), vec![]),
        (json!({"controller": {"mode": "split", "shareProcessNamespace": true}}), vec![]),
        (
            json!({"controller": {"mode": "pair", "shareProcessNamespace": true}}),
            vec!["controller.shareProcessNamespace"],
        ),
        (json!({"controller": {"scope": {"enabled": true}}}), vec![]),
        // Nodes' addresses don't belong to a namespace.
        (without_service(json!({}), true), vec!["rbac.scope", "controller.publishService.enabled"]),
        (without_service(json!({}), false), vec![]),
        (without_service(json!({"publish-status-address": "192.0.2.1"}), true), vec!["rbac.scope"]),
        (without_service(json!({"update-status": "false"}), true), vec!["rbac.scope"]),
        // A budget that Kubernetes can't compute blocks every eviction.
        (both(json!({})), vec![]),
        (both(json!({"maxUnavailable": 1})), vec!["controller.maxUnavailable"]),
        (both(json!({"minAvailable": "50%"})), vec!["controller.minAvailable"]),
        (hook(json!(["/bin/sh", "-c", "sleep 30"])), vec!["controller.lifecycle.preStop"]),
        (hook(json!(["/fairway", "--version"])), vec![]),
        // The program comes with a volume.
        (
            json!({"controller": {
                "lifecycle": {"preStop": {"exec": {"command": ["/tools/sh", "-c", "sleep 30"]}}},
                "extraVolumeMounts": [{"name": "tools", "mountPath": "/tools"}],
            }}),
            vec![],
        ),
        (json!({"controller": {"lifecycle": {"preStop": {"sleep": {"seconds": 30}}}}}), vec![]),
        // The pattern for load balancers that terminate TLS.
        (
            json!({"controller": {"containerPort": {"tohttps": 2443}, "service": {"targetPorts": {"http": "tohttps", "https": "http"}}}}),
            vec!["controller.containerPort.tohttps", "controller.service.targetPorts.http"],
        ),
        (service(json!({"targetPorts": {"http": 8080}})), vec!["controller.service.targetPorts.http"]),
        (service(json!({"targetPorts": {"http": 8080}, "enableHttp": false})), vec![]),
        (service(json!({"targetPorts": {"http": 80, "https": "http"}})), vec![]),
        (
            json!({"controller": {"containerPort": {"http": 8080}, "service": {"targetPorts": {"http": 8080, "https": 443}}}}),
            vec![],
        ),
        (
            service(
                json!({"internal": {"enabled": true, "annotations": {"a": "b"}, "targetPorts": {"https": "special"}}}),
            ),
            vec!["controller.service.internal.targetPorts.https"],
        ),
        // Another container in the pod listens.
        (
            json!({"controller": {
                "extraContainers": [{"name": "a", "image": "a", "ports": [{"name": "special", "containerPort": 8080}]}],
                "service": {"targetPorts": {"http": "special", "https": 8080}},
            }}),
            vec![],
        ),
    ];
    let mut complaints = Vec::new();
    for (set, wanted) in cases {
        let found = warned(helm, "warnings", &set)?;
        if found != wanted {
            complaints.push(format!("{set}: warned of {found:?}, not of {wanted:?}"));
        }
    }
    Ok(complaints)
}

/// Hooks that wait cause a hint about what to set instead.
fn waits(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let instead = "set controller.extraArgs.shutdown-grace-period: 25.";
    let cases = [
        (json!(["/bin/sh", "-c", "sleep 25"]), true),
        (json!(["sh", "-c", "sleep 25; /usr/local/nginx/sbin/nginx -s quit"]), true),
        (json!(["/bin/sleep", "25"]), true),
        (json!(["/bin/sh", "-c", "sleep 25 && /wait-shutdown"]), true),
        (json!(["/wait-shutdown"]), false),
        (json!(["/bin/sh", "-c", "true"]), false),
    ];
    let mut complaints = Vec::new();
    for (command, named) in cases {
        let notes = helm.notes("waits", &[&helm.write("waits", &hook(command.clone()))?])?;
        if notes.contains(instead) != named || !notes.contains("controller.extraArgs.shutdown-grace-period") {
            complaints.push(format!("the preStop hook {command}: not {instead:?}, or in vain:\n{notes}"));
        }
    }
    Ok(complaints)
}

/// A preStop hook.
fn hook(command: Json) -> Json {
    json!({"controller": {"lifecycle": {"preStop": {"exec": {"command": command}}}}})
}

/// The example Ingress in the NOTES is one that is served.
fn example(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let (field, annotation) = ("ingressClassName: nginx", "kubernetes.io/ingress.class: nginx");
    let mut complaints = Vec::new();
    for (set, wanted, other) in [
        (json!({}), field, annotation),
        (json!({"controller": {"scope": {"enabled": true}}}), field, annotation),
        (json!({"controller": {"scope": {"enabled": true}}, "rbac": {"scope": true}}), annotation, field),
    ] {
        let notes = helm.notes("example", &[&helm.write("example", &set)?])?;
        let lines: Vec<&str> = notes.lines().map(str::trim).collect();
        if !lines.contains(&wanted) || lines.contains(&other) {
            complaints.push(format!("{set}: the example in the NOTES has not {wanted}:\n{notes}"));
        }
    }
    Ok(complaints)
}

/// Values that can't work are rejected, and the message names them.
fn refused(helm: &Helm) -> Vec<String> {
    let shell = json!({"exec": {"command": ["/bin/sh", "-c", "true"]}});
    let cases = [
        (json!({"controller": {"replicaCount": "three"}}), "/controller/replicaCount"),
        (json!({"controller": {"replicaCount": 1.5}}), "/controller/replicaCount"),
        (json!({"controller": {"replicaCount": ""}}), "/controller/replicaCount"),
        (json!({"controller": {"extraVolumes": "data"}}), "/controller/extraVolumes"),
        (
            json!({"controller": {"service": {"healthCheckNodePort": "none"}}}),
            "/controller/service/healthCheckNodePort",
        ),
        (json!({"controller": {"kind": "StatefulSet"}}), "/controller/kind"),
        (json!({"controller": {"service": {"type": "LoadBalanser"}}}), "/controller/service/type"),
        (json!({"controller": {"service": {"externalTrafficPolicy": "local"}}}), "externalTrafficPolicy"),
        (json!({"controller": {"image": {"pullPolicy": "Sometimes"}}}), "/controller/image/pullPolicy"),
        (json!({"controller": {"extraArgs": {"publish-servise": "a/b"}}}), "publish-servise"),
        (json!({"controller": {"extraArgs": {"http-port": "http"}}}), "/controller/extraArgs/http-port"),
        (json!({"controller": {"extraArgs": {"election-ttl": "30"}}}), "/controller/extraArgs/election-ttl"),
        (json!({"controller": {"extraArgs": {"update-status": "no"}}}), "/controller/extraArgs/update-status"),
        (json!({"controller": {"extraArgs": {"default-ssl-certificate": "a"}}}), "default-ssl-certificate"),
        (json!({"tcp": {"80": "a/b:1"}}), "tcp: the port 80 is that of http"),
        (json!({"tcp": {"443": "a/b:1"}}), "tcp: the port 443 is that of https"),
        // Fairway listens there itself, or ignores the entry as ingress-nginx does.
        (
            json!({"tcp": {"80": "a/b:1"}, "controller": {"service": {"enableHttp": false}}}),
            "tcp: the port 80 is reserved",
        ),
        (
            json!({"tcp": {"80": "a/b:1"}, "controller": {"service": {"ports": {"http": 8080}}}}),
            "tcp: the port 80 is reserved",
        ),
        (json!({"udp": {"443": "a/b:1"}}), "udp: the port 443 is reserved (--https-port)"),
        (json!({"udp": {"8443": "a/b:1"}, "controller": {"containerPort": {"https": 8443}}}), "udp: the port 8443"),
        (json!({"tcp": {"10254": "a/b:1"}}), "tcp: the port 10254 is reserved (--healthz-port)"),
        (
            json!({"tcp": {"9000": "a/b:1"}, "controller": {"metrics": {"enabled": true, "port": 9000}}}),
            "tcp: the port 9000 is reserved (--healthz-port)",
        ),
        (json!({"tcp": {"8181": "a/b:1"}}), "tcp: the port 8181 is reserved (--default-server-port)"),
        (
            json!({"udp": {"9001": "a/b:1"}, "controller": {"extraArgs": {"stream-port": 9001}}}),
            "udp: the port 9001 is reserved (--stream-port)",
        ),
        // The port is free in the pod, but not in the Service.
        (
            json!({"tcp": {"80": "a/b:1"}, "controller": {"containerPort": {"http": 8080}}}),
            "tcp: the port 80 is that of http (controller.service.ports.http)",
        ),
        // There is no other program in the image.
        (json!({"controller": {"lifecycle": {"postStart": shell}}}), "controller.lifecycle.postStart: /bin/sh isn't"),
        (json!({"controller": {"livenessProbe": shell}}), "controller.livenessProbe: /bin/sh isn't in the image"),
        (json!({"controller": {"readinessProbe": shell}}), "controller.readinessProbe: /bin/sh isn't in the image"),
        (json!({"tcp": {"postgres": "a/b:1"}}), "postgres"),
        (json!({"udp": {"53": 53}}), "/udp/53"),
    ];
    let mut complaints = Vec::new();
    for (set, named) in cases {
        match helm.render("refused", &set) {
            Ok(_) => complaints.push(format!("{set} is accepted")),
            Err(error) if error.to_string().contains(named) => {}
            Err(error) => complaints.push(format!("{set}: {named} is not named in: {error}")),
        }
    }
    let accepted = [
        json!({"controller": {"replicaCount": "3", "minAvailable": "50%", "kind": "Both"}}),
        json!({"controller": {"extraArgs": {"log-format": "json", "workers": 4, "update-status": false, "v": 2}}}),
        json!({"controller": {"extraArgs": {"election-ttl": "1m30s", "length-buckets": [10, 20], "deep-inspect": null}}}),
        json!({"tcp": {"80": "a/b:1"}, "controller": {"containerPort": {"http": 8080}, "service": {"enableHttp": false}}}),
        json!({"controller": {"lifecycle": {"postStart": {"exec": {"command": ["/fairway", "--version"]}}}}}),
        json!({"controller": {"livenessProbe": shell}, "image": {"repository": "shop/fairway-with-shell"}}),
        json!({"tcp": {"10247": "a/b:1"}, "udp": {"443": "a/b:1"}, "controller": {"extraArgs": {"stream-port": "9", "https-port": 8443}}}),
    ];
    for set in accepted {
        if let Err(error) = helm.render("accepted", &set) {
            complaints.push(format!("{set}: {error}"));
        }
    }
    complaints
}

/// A Deployment with two replicas beside a DaemonSet.
fn both(mut controller: Json) -> Json {
    merge(&mut controller, json!({"kind": "Both", "replicaCount": 2}));
    json!({"controller": controller})
}

/// A Deployment that is scaled automatically doesn't set a number of replicas, even beside a DaemonSet, and gets a budget if at least two
/// replicas remain.
fn scaled(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let scaling = ["HorizontalPodAutoscaler", "ScaledObject", "PodDisruptionBudget"];
    let by =
        |scaler: &str, kind: &str| json!({"controller": {"kind": kind, scaler: {"enabled": true, "minReplicas": 2}}});
    let cases = [
        (by("autoscaling", "Deployment"), vec![scaling[0], scaling[2]]),
        (by("autoscaling", "Both"), vec![scaling[0], scaling[2]]),
        (by("keda", "Both"), vec![scaling[1], scaling[2]]),
        (by("autoscaling", "DaemonSet"), vec![]),
        (both(json!({})), vec![scaling[2]]),
        (both(json!({"maxUnavailable": 1})), vec![]),
        (both(json!({"minAvailable": "50%"})), vec![]),
        (json!({"controller": {"replicaCount": 2, "minAvailable": "50%"}}), vec![scaling[2]]),
    ];
    let mut complaints = Vec::new();
    // Others set the replicas: setting them too would conflict with each upgrade (server-side apply).
    let left = [
        json!({"replicaCount": null}),
        json!({"replicaCount": null, "kind": "Both"}),
        json!({"autoscaling": {"enabled": true}, "keda": {"enabled": true}}),
    ];
    for controller in left {
        let set = json!({"controller": controller});
        let objects = objects(&helm.render("unscaled", &set)?)?;
        if objects.iter().any(|object| object["kind"] == "Deployment" && object.pointer("/spec/replicas").is_some()) {
            complaints.push(format!("{set}: replicas are given"));
        }
    }
    for (set, wanted) in cases {
        let objects = objects(&helm.render("scaled", &set)?)?;
        let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        let found: Vec<&str> = scaling.into_iter().filter(|kind| kinds.contains(kind)).collect();
        let fixed = objects.iter().any(|object| object.pointer("/spec/replicas").is_some());
        let scaler = wanted.iter().any(|kind| *kind != scaling[2]);
        let deployment = kinds.contains(&"Deployment");
        if found != wanted || fixed != (deployment && !scaler) {
            complaints.push(format!("{set}: {found:?} instead of {wanted:?}, replicas are given: {fixed}"));
        }
    }
    Ok(complaints)
}

/// An empty text counts as unset where the ingress-nginx templates test whether a value is set.
fn unset(helm: &Helm, values: &[Value]) -> anyhow::Result<Vec<String>> {
    let words = [
        "controller.service.ipFamilyPolicy",
        "controller.service.externalTrafficPolicy",
        "controller.service.sessionAffinity",
        "controller.service.healthCheckNodePort",
        "controller.service.internal.ipFamilyPolicy",
        "controller.service.internal.externalTrafficPolicy",
        "controller.service.internal.sessionAffinity",
        "controller.metrics.service.externalTrafficPolicy",
        "controller.unhealthyPodEvictionPolicy",
        "controller.progressDeadlineSeconds",
    ];
    let unset = |to: Json| {
        let mut set = json!({
            "controller": {
                "replicaCount": 2, "metrics": {"enabled": true},
                "service": {"internal": {"enabled": true, "annotations": {"a": "b"}}},
            },
            "defaultBackend": {"enabled": true},
        });
        for value in values.iter().filter(|value| words.contains(&value.name)) {
            merge(&mut set, value.set_to(to.clone()));
        }
        set
    };
    let empty = helm.render("unset", &unset(json!("")));
    let nothing = helm.render("nothing", &unset(Json::Null))?;
    Ok(match empty {
        Ok(text) if text == nothing => Vec::new(),
        Ok(_) => vec!["an empty text isn't the same as nothing".to_owned()],
        Err(error) => vec![format!("an empty text is refused: {error}")],
    })
}

/// Pods are replaced when their rights change, and only then.
fn replaced(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let sum = |set: Json| -> anyhow::Result<Json> {
        let objects = objects(&helm.render("replaced", &set)?)?;
        let pods = objects.iter().find_map(|object| object.pointer("/spec/template/metadata"));
        Ok(pods.map(|metadata| metadata["annotations"]["checksum/rights"].clone()).unwrap_or_default())
    };
    let scope = |rbac: Json| json!({"controller": {"scope": {"enabled": true}}, "rbac": rbac});
    let before = sum(scope(json!({})))?;
    let mut complaints = Vec::new();
    if !before.is_string() || before == sum(scope(json!({"scope": true})))? || before == sum(json!({}))? {
        complaints.push(format!("the rights change, their sum in the pods doesn't: {before}"));
    }
    let same = [json!({}), json!({"commonLabels": {"a": "b"}}), json!({"controller": {"podAnnotations": {"a": "b"}}})];
    for set in same {
        if sum(set.clone())? != sum(json!({}))? {
            complaints.push(format!("{set}: the rights stay, their sum in the pods doesn't"));
        }
    }
    if !sum(json!({"rbac": {"create": false}}))?.is_null() {
        complaints.push("a sum of rights that the chart doesn't grant".to_owned());
    }
    Ok(complaints)
}
