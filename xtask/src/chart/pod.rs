//! The required properties of the chart's pods: confined, spread, updated without loss, drained in time.

use anyhow::Context;
use serde_json::{Value as Json, json};

use super::Helm;
use super::helm::objects;
use super::table::merge;

/// How long a drain may last by default (`worker-shutdown-timeout` in docs/configmap.md), in seconds.
const DRAIN: i64 = 240;

/// Complains about pods without the required properties.
pub(crate) fn check(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut expect = |what: &str, object: &Json, pointer: &str, wanted: Json| {
        let found = object.pointer(pointer).unwrap_or(&Json::Null);
        if *found != wanted {
            complaints.push(format!("{what}: {pointer} is {found}, not {wanted}"));
        }
    };
    let host = json!({"controller": {"hostNetwork": true, "kind": "DaemonSet"}});
    for (what, values) in [("the default", json!({})), ("on the host's network", host.clone())] {
        let workload = workload(helm, &values)?;
        let on_host = values == host;
        let container = "/spec/template/spec/containers/1";
        let context = workload.pointer(&format!("{container}/securityContext")).unwrap_or(&Json::Null);
        expect(
            what,
            context,
            "",
            json!({
                "runAsNonRoot": true, "runAsUser": 101, "runAsGroup": 82, "readOnlyRootFilesystem": true,
                // There, the file capability is the only way to open low ports.
                "allowPrivilegeEscalation": on_host,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        );
        expect(what, &workload, "/spec/template/spec/enableServiceLinks", json!(false));
        // A pod with a network sysctl is rejected on the host's network.
        let sysctl = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]});
        expect(what, &workload, "/spec/template/spec/securityContext", if on_host { Json::Null } else { sysctl });
        let strategy = if on_host { json!({"maxUnavailable": 1}) } else { json!({"maxUnavailable": 0, "maxSurge": 1}) };
        let field = if on_host { "/spec/updateStrategy/rollingUpdate" } else { "/spec/strategy/rollingUpdate" };
        expect(what, &workload, field, strategy);
        // A constraint on zones would make the scheduler ignore both constraints if nodes have no zones.
        let spread = "/spec/template/spec/topologySpreadConstraints";
        let zones = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution";
        let node = if on_host { Json::Null } else { json!("kubernetes.io/hostname") };
        let zone = if on_host { Json::Null } else { json!("topology.kubernetes.io/zone") };
        expect(what, &workload, &format!("{spread}/0/topologyKey"), node);
        expect(what, &workload, &format!("{spread}/1"), Json::Null);
        expect(what, &workload, &format!("{zones}/0/podAffinityTerm/topologyKey"), zone);
        let grace = workload.pointer("/spec/template/spec/terminationGracePeriodSeconds").and_then(Json::as_i64);
        let before = flag(&workload, "shutdown-grace-period").and_then(|text| text.parse::<i64>().ok());
        let after = flag(&workload, "post-shutdown-grace-period").and_then(|text| text.parse::<i64>().ok());
        let fits = before.zip(after).zip(grace).is_some_and(|((before, after), grace)| before + DRAIN + after < grace);
        expect(
            what,
            &json!({"fits": fits, "hook": workload.pointer(&format!("{container}/lifecycle"))}),
            "",
            json!({"fits": true, "hook": null}),
        );
    }

    // Users who set the placement of pods set all of it.
    let placed = workload(helm, &json!({"controller": {"affinity": {"nodeAffinity": {}}}}))?;
    expect("own affinity", &placed, "/spec/template/spec/topologySpreadConstraints", Json::Null);
    let placed = workload(helm, &json!({"controller": {"topologySpreadConstraints": [{"topologyKey": "a"}]}}))?;
    expect("own constraints", &placed, "/spec/template/spec/affinity", Json::Null);
    // Templates in values use the names of the ingress-nginx chart.
    let named = json!({"controller": {"affinity": {"a": "{{ include \"ingress-nginx.name\" . }}"}}});
    expect("a template", &workload(helm, &named)?, "/spec/template/spec/affinity/a", json!("ingress-nginx"));
    // Probes and ports follow the flags.
    let moved = json!({"controller": {"extraArgs": {"healthz-port": "9000"}, "healthCheckPath": "/alive", "containerPort": {"http": 8080}}});
    let moved = workload(helm, &moved)?;
    for (probe, path) in [("startupProbe", "/alive"), ("livenessProbe", "/alive"), ("readinessProbe", "/readyz")] {
        let pointer = format!("/spec/template/spec/containers/1/{probe}/httpGet");
        expect("moved", &moved, &pointer, json!({"path": path, "port": 9000, "scheme": "HTTP"}));
    }
    expect("moved", &json!(flag(&moved, "http-port")), "", json!("8080"));
    // Metrics are served with the health endpoints.
    let values = json!({"controller": {
        "metrics": {"enabled": true}, "networkPolicy": {"enabled": true}, "extraArgs": {"healthz-port": 10255},
    }});
    let all = objects(&helm.render("metrics", &values)?)?;
    let of_kind = |kind: &str| all.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"));
    let ports = of_kind("Deployment")?.pointer("/spec/template/spec/containers/1/ports").unwrap_or(&Json::Null);
    expect("metrics", ports, "/2", json!({"name": "metrics", "containerPort": 10255, "protocol": "TCP"}));
    // The controller beside the proxy uses another port.
    let deployment = of_kind("Deployment")?;
    expect("metrics", deployment, "/spec/template/spec/containers/0/ports/0/containerPort", json!(10265));
    let own = flag_of(0, deployment, "healthz-port");
    expect("metrics", &json!(own), "", json!("10265"));
    // Its parent process checks this instead of Kubernetes: a container that ends makes the pod unready.
    expect("metrics", &json!(flag_of(0, deployment, "restart-on-failure")), "", json!(""));
    expect("metrics", deployment, "/spec/template/spec/containers/0/livenessProbe", Json::Null);
    let allowed = of_kind("NetworkPolicy")?;
    expect("metrics", allowed, "/spec/ingress/0/ports/2", json!({"protocol": "TCP", "port": 10255}));
    // That chart's values set one path for all probes. It is the path for readiness, and succeeds until no connection is accepted.
    let same =
        json!({"controller": {"readinessProbe": {"httpGet": {"path": "/healthz"}}, "healthCheckPath": "/alive"}});
    let readiness = "/spec/template/spec/containers/1/readinessProbe/httpGet/path";
    expect("a path of that chart", &workload(helm, &same)?, readiness, json!("/readyz"));
    // All notations of flags.
    let flags = json!({"controller": {"extraArgs": {
        "deep-inspect": "", "update-status": false, "max-buckets": 1_000_000, "exclude-socket-metrics": ["x", "y"], "shutdown-grace-period": 30,
    }}});
    let flags = workload(helm, &flags)?;
    for (name, wanted) in [
        ("deep-inspect", ""),
        ("update-status", "false"),
        ("max-buckets", "1000000"),
        ("exclude-socket-metrics", "x,y"),
        ("shutdown-grace-period", "30"),
    ] {
        expect("a flag", &json!(flag(&flags, name)), "", json!(wanted));
    }
    // The hook in old values files runs a program that doesn't exist here.
    let hook = |command: Json| json!({"controller": {"lifecycle": {"preStop": {"exec": {"command": command}}}}});
    let pointer = "/spec/template/spec/containers/1/lifecycle/preStop";
    expect("an old hook", &workload(helm, &hook(json!(["/wait-shutdown"])))?, pointer, Json::Null);
    let other = json!(["/fairway", "--version"]);
    expect("another hook", &workload(helm, &hook(other.clone()))?, pointer, json!({"exec": {"command": other}}));
    complaints.extend(pair(helm)?);
    complaints.extend(split(helm)?);
    complaints.extend(kept(helm)?);
    complaints.extend(handed_over(helm)?);
    complaints.extend(names(helm)?);
    Ok(complaints)
}

/// With two containers, the one that serves has no token, and the other one has no port for clients.
fn pair(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let values = json!({"controller": {
        "mode": "pair", "metrics": {"enabled": true, "serviceMonitor": {"enabled": true}}, "networkPolicy": {"enabled": true},
        "extraVolumes": [{"name": "a", "emptyDir": {}}], "extraVolumeMounts": [{"name": "a", "mountPath": "/a"}],
    }});
    let all = objects(&helm.render("pair", &values)?)?;
    let of_kind = |kind: &str| all.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"));
    let pod = of_kind("Deployment")?.pointer("/spec/template/spec").context("no pod")?;
    let mut expect = |what: &str, found: Json, wanted: Json| {
        if found != wanted {
            complaints.push(format!("mode pair: {what}: {found}, not {wanted}"));
        }
    };
    let [controller, proxy] = pod["containers"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Ok(vec![format!("mode pair: not two containers: {}", pod["containers"])]);
    };
    let names =
        |list: &Json| -> Json { list.as_array().into_iter().flatten().map(|one| one["name"].clone()).collect() };
    expect("names", json!([controller["name"], proxy["name"]]), json!(["controller", "proxy"]));
    expect("roles", json!([controller["args"][0], proxy["args"][0]]), json!(["controller", "proxy"]));
    expect("a token for all", pod["automountServiceAccountToken"].clone(), json!(false));
    expect("mounts of the controller", names(&controller["volumeMounts"]), json!(["a", "control", "token"]));
    expect("mounts of the proxy", names(&proxy["volumeMounts"]), json!(["a", "control"]));
    expect("ports of the controller", names(&controller["ports"]), json!(["control"]));
    expect("ports of the proxy", names(&proxy["ports"]), json!(["http", "https", "metrics"]));
    let context = |container: &Json| container["securityContext"]["capabilities"].clone();
    expect("capabilities of the controller", context(controller), json!({"drop": ["ALL"]}));
    expect("capabilities of the proxy", context(proxy), json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}));
    // A controller that starts while the API server is away must not take the proxy out of service.
    expect("readiness of the controller", controller["readinessProbe"].clone(), Json::Null);
    expect("a start probe of the controller", controller["startupProbe"].clone(), Json::Null);
    expect("readiness of the proxy", proxy["readinessProbe"]["httpGet"]["path"].clone(), json!("/readyz"));
    let scraped: Json = of_kind("ServiceMonitor")?["spec"]["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|endpoint| endpoint["port"].clone())
        .collect();
    expect("what is scraped", scraped, json!(["metrics", "control"]));
    let allowed = &of_kind("NetworkPolicy")?["spec"]["ingress"][0]["ports"];
    let open = allowed.as_array().into_iter().flatten().any(|port| port["port"] == 10255);
    expect("whether the policy lets scrapes of the controller in", json!(open), json!(true));
    Ok(complaints)
}

/// With separate pods, Services select the proxies, and only controllers have a token for the API server.
fn split(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let values = json!({"controller": {
        "mode": "split", "kind": "DaemonSet", "hostNetwork": true, "publishService": {"enabled": false},
        "metrics": {"enabled": true, "serviceMonitor": {"enabled": true}}, "networkPolicy": {"enabled": true},
        "validatingWebhook": {"enabled": true, "certificateSecret": "a", "caBundle": "b"},
        "nodeSelector": {"edge": "true"}, "extraContainers": [{"name": "c"}],
    }});
    let all = objects(&helm.render("split", &values)?)?;
    let named = |kind: &str, name: &str| {
        let found = all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
        found.with_context(|| format!("no {kind} {name}"))
    };
    let mut expect = |what: &str, found: Json, wanted: Json| {
        if found != wanted {
            complaints.push(format!("mode split: {what}: {found}, not {wanted}"));
        }
    };
    let names =
        |list: &Json| -> Json { list.as_array().into_iter().flatten().map(|one| one["name"].clone()).collect() };
    let pod = |workload: &Json| workload["spec"]["template"]["spec"].clone();
    let proxies = pod(named("DaemonSet", "ingress-nginx-controller")?);
    let controllers = pod(named("Deployment", "ingress-nginx-control")?);
    expect("proxies", names(&proxies["containers"]), json!(["proxy", "c"]));
    expect("controllers", names(&controllers["containers"]), json!(["controller"]));
    let accounts = json!([proxies["serviceAccountName"], controllers["serviceAccountName"]]);
    expect("accounts", accounts, json!(["ingress-nginx-proxy", "ingress-nginx"]));
    let tokens = json!([proxies["automountServiceAccountToken"], controllers["automountServiceAccountToken"]]);
    expect("tokens", tokens, json!([false, true]));
    let audience = proxies.pointer("/volumes/1/projected/sources/0/serviceAccountToken/audience").cloned();
    expect("the only token of proxies", json!(audience), json!("fairway.dev/control"));
    expect("volumes of proxies", names(&proxies["volumes"]), json!(["control-authority", "control-token"]));
    expect("volumes of controllers", names(&controllers["volumes"]), json!(["validation"]));
    let network = json!([proxies["hostNetwork"], proxies["dnsPolicy"], controllers["hostNetwork"]]);
    expect("networks", network, json!([true, "ClusterFirstWithHostNet", null]));
    let nodes = json!([proxies["nodeSelector"], controllers["nodeSelector"]]);
    expect("nodes", nodes, json!([{"edge": "true", "kubernetes.io/os": "linux"}, {"kubernetes.io/os": "linux"}]));
    let ports = json!([names(&proxies["containers"][0]["ports"]), names(&controllers["containers"][0]["ports"])]);
    expect("ports", ports, json!([["http", "https", "metrics"], ["control", "channel", "validation"]]));
    let readiness = controllers.pointer("/containers/0/readinessProbe/httpGet/path").cloned();
    expect("readiness of controllers", json!(readiness), json!("/readyz"));
    let arguments = |pod: &Json| -> Vec<String> {
        let arguments = pod["containers"][0]["args"].as_array().into_iter().flatten();
        let ours = |text: &&str| text.starts_with("--control-");
        arguments.filter_map(Json::as_str).filter(ours).map(str::to_owned).collect()
    };
    expect(
        "arguments of proxies",
        json!(arguments(&proxies)),
        json!(["--control-server=ingress-nginx-control.ingress-nginx.svc:10260"]),
    );
    expect(
        "arguments of controllers",
        json!(arguments(&controllers)),
        json!([
            "--control-account=ingress-nginx-proxy",
            "--control-listen=:10260",
            "--control-pods=app.kubernetes.io/component=controller,app.kubernetes.io/instance=ingress-nginx,app.kubernetes.io/name=ingress-nginx",
            "--control-secret=ingress-nginx-control",
        ]),
    );
    for (name, component) in [
        ("ingress-nginx-controller", "controller"),
        ("ingress-nginx-controller-metrics", "controller"),
        ("ingress-nginx-control", "control"),
        ("ingress-nginx-validation", "control"),
    ] {
        let selected = named("Service", name)?["spec"]["selector"]["app.kubernetes.io/component"].clone();
        expect(name, selected, json!(component));
    }
    let policy = named("NetworkPolicy", "ingress-nginx-control")?;
    expect("who reaches controllers", policy["spec"]["ingress"][0]["from"].clone(), Json::Null);
    let budget = named("PodDisruptionBudget", "ingress-nginx-control")?;
    expect("the budget of controllers", budget["spec"]["maxUnavailable"].clone(), json!(1));

    // Of all pods with addresses of their own, only proxies may reach controllers.
    let values = json!({"controller": {"mode": "split", "networkPolicy": {"enabled": true}}});
    let all = objects(&helm.render("split", &values)?)?;
    let policy =
        all.iter().find(|one| one["kind"] == "NetworkPolicy" && one["metadata"]["name"] == "ingress-nginx-control");
    let from = policy.and_then(|policy| policy.pointer("/spec/ingress/0/from/0/podSelector/matchLabels")).cloned();
    expect(
        "who reaches controllers",
        json!(from.map(|labels| labels["app.kubernetes.io/component"].clone())),
        json!("controller"),
    );
    let scoped = json!({"controller": {"mode": "split", "scope": {"enabled": true}}, "rbac": {"scope": true}});
    expect("without rights in the cluster", json!(helm.render("split", &scoped).is_err()), json!(true));
    Ok(complaints)
}

/// Only the proxy has a file of its configuration, and its key is where the running proxy can't read it again.
fn kept(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let names = |list: &Json| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|one| Some(one["name"].as_str()?.to_owned())).collect()
    };
    let ours = |list: &Json| names(list).into_iter().filter(|name| name.starts_with("snapshot")).collect::<Vec<_>>();
    for mode in ["pair", "split"] {
        for path in ["", "/srv/fairway"] {
            let controller = json!({"mode": mode, "snapshot": {"keySecret": "own", "hostPath": path}});
            let all = objects(&helm.render("kept", &json!({"controller": controller}))?)?;
            for pod in all.iter().filter_map(|object| object.pointer("/spec/template/spec")) {
                let serves = names(&pod["containers"]).iter().any(|name| name == "proxy");
                let wanted: &[&str] = if serves { &["snapshot", "snapshot-key"] } else { &[] };
                if ours(&pod["volumes"]) != wanted {
                    complaints.push(format!(
                        "a file in mode {mode}: {:?} in {}",
                        ours(&pod["volumes"]),
                        pod["containers"]
                    ));
                }
                for container in pod["containers"].as_array().into_iter().flatten() {
                    let proxy = container["name"] == "proxy";
                    let arguments = container["args"].to_string();
                    let flags = ["--snapshot-file=/var/lib/fairway/snapshot/", "--snapshot-key-file=/var/run/secrets/"];
                    let has = flags.iter().filter(|flag| arguments.contains(*flag)).count();
                    if (has, ours(&container["volumeMounts"]).len()) != if proxy { (2, 2) } else { (0, 0) } {
                        complaints.push(format!("a file in mode {mode}, container {}: {arguments}", container["name"]));
                    }
                }
                if serves {
                    let volumes = pod["volumes"].as_array().into_iter().flatten();
                    let kept: Vec<&Json> = volumes.filter(|volume| volume["name"] == "snapshot").collect();
                    let place = match path {
                        "" => json!({"name": "snapshot", "emptyDir": {"sizeLimit": "256Mi"}}),
                        path => json!({"name": "snapshot", "hostPath": {"path": path, "type": "Directory"}}),
                    };
                    if kept != [&place] {
                        complaints.push(format!("a file in mode {mode}: {kept:?}, not {place}"));
                    }
                }
            }
        }
    }
    let single = json!({"controller": {"mode": "single", "snapshot": {"keySecret": "own"}}});
    if !helm.render("kept", &single).is_err_and(|error| error.to_string().contains("controller.mode: pair or split")) {
        complaints.push("a file in mode single: accepted, or refused without the reason".to_owned());
    }
    Ok(complaints)
}

/// Two pods of a node run at the same time, and nothing prevents scheduling the second one there.
fn handed_over(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let on_host = |more: Json| {
        let mut controller = json!({"handover": {"enabled": true}, "hostNetwork": true, "kind": "DaemonSet"});
        merge(&mut controller, more);
        json!({"tcp": {"5432": "shop/db:5432"}, "udp": {"53": "shop/names:53"}, "controller": controller})
    };
    for mode in ["single", "split"] {
        let more = json!({"mode": mode, "metrics": {"enabled": true}, "containerPort": {"http": 8080}});
        let all = objects(&helm.render("handover", &on_host(more))?)?;
        let named = |kind: &str, name: &str| {
            let found = all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
            found.with_context(|| format!("no {kind} {name}"))
        };
        let mut expect = |what: &str, found: &Json, wanted: Json| {
            if *found != wanted {
                complaints.push(format!("handover in mode {mode}: {what}: {found}, not {wanted}"));
            }
        };
        let workload = named("DaemonSet", "ingress-nginx-controller")?;
        let update = &workload["spec"]["updateStrategy"]["rollingUpdate"];
        expect("update", update, json!({"maxUnavailable": 0, "maxSurge": 1}));
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        expect("ports of the node", &container["ports"], Json::Null);
        expect("patience with the old pod", &container["readinessProbe"]["failureThreshold"], json!(60));
        let arguments = container["args"].as_array().into_iter().flatten().filter_map(Json::as_str);
        let sockets = arguments.filter(|argument| argument.starts_with("--handover-socket=@fairway-")).count();
        expect("places to meet", &json!(sockets), json!(1));
        let targets = |service: &Json| -> Json {
            let ports = service["spec"]["ports"].as_array().into_iter().flatten();
            ports.map(|port| port["targetPort"].clone()).collect()
        };
        expect("the Service", &targets(named("Service", "ingress-nginx-controller")?), json!([8080, 443, 5432, 53]));
        let metrics = named("Service", "ingress-nginx-controller-metrics")?;
        expect("the Service of metrics", &targets(metrics), json!([10254]));
    }
    for (more, named) in [
        (json!({"mode": "pair"}), "controller.mode: split or single"),
        (json!({"mode": "split", "kind": "Deployment"}), "controller.kind: DaemonSet"),
        (json!({"mode": "split", "updateStrategy": {"type": "OnDelete"}}), "rollingUpdate.maxSurge"),
        (json!({"mode": "split", "minReadySeconds": 5}), "minReadySeconds at 0"),
        (json!({"mode": "split", "hostNetwork": false}), "controller.hostNetwork"),
        (json!({"mode": "single", "validatingWebhook": {"enabled": true}}), "controller.mode: split"),
    ] {
        match helm.render("handover", &on_host(more.clone())) {
            Ok(_) => complaints.push(format!("handover with {more}: accepted")),
            Err(error) if error.to_string().contains(named) => {}
            Err(error) => complaints.push(format!("handover with {more}: {named} is not named in: {error}")),
        }
    }
    Ok(complaints)
}

/// Objects have the same names as ingress-nginx's, whatever the release name, unless the release has our name.
fn names(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let cases = [
        ("ingress-nginx", "ingress-nginx", "ingress-nginx-controller"),
        ("web", "ingress-nginx", "web-ingress-nginx-controller"),
        ("fairway", "fairway", "fairway-controller"),
    ];
    for (release, name, full) in cases {
        let objects = objects(&helm.template(release, "edge", &[])?)?;
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
        let labels = json!({
            "app.kubernetes.io/name": name, "app.kubernetes.io/instance": release, "app.kubernetes.io/component": "controller",
        });
        if deployment["metadata"]["name"] != full || deployment["spec"]["selector"]["matchLabels"] != labels {
            complaints.push(format!(
                "release {release}: {} selects {}",
                deployment["metadata"], deployment["spec"]["selector"]
            ));
        }
    }
    Ok(complaints)
}

fn workload(helm: &Helm, values: &Json) -> anyhow::Result<Json> {
    let objects = objects(&helm.render("pod", values)?)?;
    objects
        .into_iter()
        .find(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet")
        .context("no pods")
}

/// The value of a flag; empty if it has none.
fn flag(workload: &Json, name: &str) -> Option<String> {
    flag_of(1, workload, name)
}

/// The same for the container with this index.
fn flag_of(container: usize, workload: &Json, name: &str) -> Option<String> {
    let arguments = workload.pointer(&format!("/spec/template/spec/containers/{container}/args"))?.as_array()?;
    arguments.iter().find_map(|argument| {
        let (flag, value) = argument.as_str()?.split_once('=').unwrap_or((argument.as_str()?, ""));
        (flag.strip_prefix("--")? == name).then(|| value.to_owned())
    })
}
