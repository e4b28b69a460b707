//! `fairway check`: its report, and its exit status.

use std::fs;

use crate::support;
use crate::support::{example, run, text};

const BAD: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations:
    nginx.ingress.kubernetes.io/proxy-read-timeout: 5s
    nginx.ingress.kubernetes.io/rewrite-targt: /
    nginx.ingress.kubernetes.io/enable-opentelemetry: 'true'
spec:
  ingressClassName: nginx
  rules:
  - host: a b.example
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: web, port: {number: 80}}}
  - hots: b.example
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: risky
  annotations:
    nginx.ingress.kubernetes.io/modsecurity-snippet: SecRuleEngine On
---
apiVersion: extensions/v1beta1
kind: Ingress
metadata: {name: old}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
";

#[test]
fn examples_are_without_findings() {
    for name in ["shop", "hosts", "tls", "rewrite", "sticky"] {
        let output = run(["check".into(), example(name)]);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).ends_with(": 0 errors, 0 warnings\n"), "{}", text(&output));
    }
}

#[test]
fn every_finding_names_file_line_object_field_and_value() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str()]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for parts in [
        ["bad.yaml:6: ", "Ingress default/web", "proxy-read-timeout", "\"5s\""],
        ["bad.yaml:7: ", "Ingress default/web", "rewrite-targt", "rewrite-target"],
        ["bad.yaml:12: error", "Ingress default/web", "spec.rules[0].host", "\"a b.example\""],
        ["bad.yaml:18: warning", "spec.rules[1].hots", "unknown field", "hots"],
        ["bad.yaml:27: error", "Ingress default/old", "apiVersion", "backend.service.name"],
    ] {
        assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in\n{report}");
    }
    for (name, verdict) in [
        ("enable-opentelemetry", "same"),
        ("modsecurity-snippet", "refused"),
        ("rewrite-targt", "unknown"),
        ("proxy-read-timeout", "same"),
    ] {
        let annotations = report.split("Annotations\n").nth(1).unwrap_or_default();
        let named = |line: &&str| line.contains(&format!("/{name} "));
        assert!(annotations.lines().find(named).is_some_and(|line| line.contains(verdict)), "{name} in\n{report}");
    }
    assert!(report.contains("(1 object of other kinds ignored)"), "{report}");
}

/// `fairway dev` starts its echo; in a cluster nothing answers.
#[test]
fn a_service_that_the_files_do_not_hold_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("alone.yaml"),
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: nginx
  rules:
  - host: a.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}
",
    )
    .unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str()]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let parts = ["alone.yaml:10: error", "no Service default/api", "[ServiceNotFound]"];
    assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{report}");
    assert!(report.ends_with("1 object in 1 file: 1 error, 0 warnings\n"), "{report}");
}

#[test]
fn the_json_report_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str(), "--output=json".as_ref()]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let diagnostics = report["diagnostics"].as_array().unwrap();
    let host = diagnostics.iter().find(|found| found["field"] == "spec.rules[0].host").unwrap();
    assert_eq!(
        (host["line"].as_u64(), host["severity"].as_str(), host["name"].as_str()),
        (Some(12), Some("Error"), Some("web"))
    );
    assert!(host["file"].as_str().unwrap().ends_with("bad.yaml"));
    let verdicts = report["annotations"].as_array().unwrap();
    let snippet = verdicts.iter().find(|found| found["verdict"] == "refused").unwrap();
    assert!(snippet["instead"].is_string() && snippet["line"] == 25, "{snippet}");
    assert_eq!(
        report["errors"].as_u64(),
        Some(diagnostics.iter().filter(|found| found["severity"] == "Error").count() as u64)
    );
}

#[test]
fn the_global_configmap_is_checked_too() {
    let folder = tempfile::tempdir().unwrap();
    let configmap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: global, namespace: ops}\ndata:\n  keep-alive: \"75\"\n  no-such-key: x\n";
    fs::write(folder.path().join("a.yaml"), configmap).unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str(), "--configmap=ops/global".as_ref()]);
    let report = text(&output);
    let keys = report.split("ConfigMap keys\n").nth(1).unwrap_or_default();
    assert!(
        keys.lines().any(|line| line.contains("no-such-key") && line.contains("unknown") && line.contains("a.yaml:6")),
        "{report}"
    );
    assert!(keys.lines().any(|line| line.contains("keep-alive") && line.contains("same")), "{report}");
}

#[test]
fn wrong_command_lines_end_with_2() {
    for args in [&["check"][..], &["check", "/no/such/file"], &["check", "--output=xml", "."], &["nothing"], &[]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
    let help = text(&run(["check", "--help"]));
    assert!(help.contains("Examples:") && help.contains("--configmap"), "{help}");
    assert!(text(&run(["version"])).starts_with("fairway 0."));
    assert!(text(&run(["run", "--version"])).starts_with("fairway 0."));
}

fn check_with(manifest: &str, args: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.yaml"), manifest).expect("the file can be written");
    let args = args.iter().map(AsRef::<std::ffi::OsStr>::as_ref);
    run(["check".as_ref(), folder.path().as_os_str()].into_iter().chain(args))
}

const WARNING: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {nginx.ingress.kubernetes.io/rewrite-targt: /}
spec:
  ingressClassName: nginx
  rules: [{host: a.example}]
";

#[test]
fn the_exit_status_depends_on_the_severity_that_counts() {
    for (args, code) in [
        (&[][..], 0),
        (&["--fail-on=error"], 0),
        (&["--fail-on=warning"], 1),
        (&["--fail-on=info"], 1),
        (&["--fail-on=never"], 2),
    ] {
        let output = check_with(WARNING, args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    }
}

#[test]
fn what_a_flag_names_and_nothing_at_all_are_errors() {
    let output = check_with(WARNING, &["--configmap=ops/global"]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("error: ConfigMap ops/global: --configmap: \"ops/global\": "), "{report}");
    let folder = tempfile::tempdir().unwrap();
    let output = run(["check".as_ref(), folder.path().as_os_str()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("there is no manifest here"), "{}", text(&output));
    let output = check_with("just: values\n", &[]);
    assert_eq!(output.status.code(), Some(1));
    // An ignored object counts as an object.
    assert!(check_with("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n", &[]).status.success());
}

#[test]
fn annotations_of_other_classes_have_verdicts_that_are_marked() {
    let manifest = WARNING.replace("ingressClassName: nginx", "ingressClassName: internal");
    let report = text(&check_with(&manifest, &[]));
    assert!(
        report.contains("there is no IngressClass internal in these files: give --ingress-class internal"),
        "{report}"
    );
    let verdict = report.lines().find(|line| line.contains("rewrite-targt  unknown")).unwrap_or_default();
    assert!(verdict.ends_with("(not served)"), "{report}");
    let report = text(&check_with(&manifest, &["--ingress-class=internal"]));
    assert!(!report.contains("not served"), "{report}");
    let theirs = "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: internal}\nspec: {controller: b/c}\n";
    let report = text(&check_with(&(manifest + theirs), &[]));
    assert!(report.contains("info: ") && report.contains("its IngressClass belongs to b/c"), "{report}");
}

/// A route that attaches, one that does not, and a Gateway that the API server refuses.
const GATEWAYS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: fairway
  listeners: [{name: web, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: good}
spec: {parentRefs: [{name: gw}], hostnames: [a.example]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: stray}
spec: {parentRefs: [{name: gw, sectionName: none}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: empty}
spec: {gatewayClassName: fairway, listeners: []}
";

#[test]
fn the_json_report_has_the_status_of_gateways_and_routes() {
    let output = check_with(GATEWAYS, &["--output=json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let object = |name: &str| {
        let objects = report["gateway"].as_array().expect("objects");
        objects.iter().find(|object| object["name"] == name).unwrap_or_else(|| panic!("no {name} in {report:#}"))
    };
    let said = |name: &str, part: usize, kind: &str| {
        let conditions = object(name)["status"][part]["conditions"].as_array().expect("conditions");
        let one = conditions.iter().find(|one| one["type"] == kind).expect("the condition");
        (one["status"].as_str().unwrap().to_owned(), one["reason"].as_str().unwrap().to_owned(), one["good"] == true)
    };
    assert_eq!(object("gw")["kind"], "Gateway");
    assert_eq!(object("gw")["status"][1]["place"], "listener web, 1 route");
    assert_eq!(said("good", 0, "Accepted"), ("True".into(), "Accepted".into(), true));
    assert_eq!(said("stray", 0, "Accepted"), ("False".into(), "NoMatchingParent".into(), false));
    assert!(object("empty")["refused"] == true && object("empty")["status"] == serde_json::json!([]));
}

#[test]
fn the_json_report_fits_its_schema() {
    let schema = include_str!("../../../../docs/schema/check.json");
    let schema: serde_json::Value = serde_json::from_str(schema).expect("the schema is JSON");
    for (manifest, args) in [
        (BAD, &[][..]),
        (WARNING, &["--configmap=ops/global", "--profiling"]),
        (GATEWAYS, &[]),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {nope: a, keep-alive: '5'}\n",
            &["--configmap=default/a"],
        ),
    ] {
        let output = check_with(manifest, &[args, &["--output=json"]].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        support::schema::validate(&schema, &report).unwrap_or_else(|wrong| panic!("{wrong} in {report:#}"));
        let mut broken = report.clone();
        broken["errors"] = "many".into();
        assert!(support::schema::validate(&schema, &broken).is_err());
    }
}

#[test]
fn sarif_holds_each_finding_with_its_place() {
    let output = check_with(BAD, &["--output=sarif"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["version"], "2.1.0");
    let results = report["runs"][0]["results"].as_array().unwrap();
    let host =
        results.iter().find(|result| result["message"]["text"].as_str().unwrap().contains("rules[0].host")).unwrap();
    assert_eq!(host["level"], "error");
    let place = &host["locations"][0]["physicalLocation"];
    assert_eq!(place["region"]["startLine"], 12);
    let uri = place["artifactLocation"]["uri"].as_str().unwrap();
    assert!(uri.starts_with("file:///") && uri.ends_with("/a.yaml"), "{uri}");
    let rules = report["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(results.iter().all(|result| rules.iter().any(|rule| rule["id"] == result["ruleId"])));
}

#[test]
fn github_shows_findings_beside_their_lines() {
    let report = text(&check_with(BAD, &["--output=github"]));
    let host = report.lines().find(|line| line.contains("spec.rules[0].host")).unwrap_or_default();
    assert!(
        host.starts_with("::error file=/")
            && host.contains("a.yaml,line=12,title=InvalidManifest::Ingress default/web"),
        "{report}"
    );
    assert!(report.lines().all(|line| line.starts_with("::")), "{report}");
}

#[test]
fn messages_say_what_to_write() {
    let manifest = WARNING.to_owned()
        + "  defaultBackend: {service: {name: web, port: 80}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: \"${X}\"}\n";
    let report = text(&check_with(&manifest, &[]));
    for parts in [
        [
            "a.yaml:9: error: Ingress default/web: spec.defaultBackend.service.port: \"80\": ",
            "write port: {number: 80}",
        ],
        ["a.yaml:13: error: Service: metadata.name: \"${X}\": ", "looks like a template"],
    ] {
        assert!(report.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in\n{report}");
    }
}

#[test]
fn what_the_api_server_refuses_is_an_error_with_the_line_of_its_field() {
    let manifest = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {nginx.ingress.kubernetes.io/rewrite-targt: /}
spec:
  rules:
  - host: Shop.Example
    http:
      paths:
      - path: /
        backend: {service: {name: web, port: {number: 80, name: http}}}
      - path: //cart
        pathType: Prefix
        backend: {service: {name: web, port: {number: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {\"my app\": web}}
spec:
  ports:
  - {port: 80, name: http}
  - {port: 80, name: http}
---
apiVersion: v1
kind: Secret
metadata: {name: Cert}
type: kubernetes.io/tls
stringData: {tls.crt: x}
";
    let output = check_with(manifest, &[]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    let path = "a.yaml:11: error: Ingress default/web: spec.rules[0].http.paths[0]";
    for expected in [
        "a.yaml:8: error: Ingress default/web: spec.rules[0].host: \"Shop.Example\": Invalid value: a lowercase RFC 1123 subdomain",
        &format!("{path}.pathType: Required value: pathType must be specified; the API server refuses the object"),
        "a.yaml:13: error: Ingress default/web: spec.rules[0].http.paths[1].path: \"//cart\": Invalid value: must not contain '//'",
        "a.yaml:19: error: Service default/web: metadata.labels: \"my app\": Invalid value: name part",
        "a.yaml:23: error: Service default/web: spec.ports[1].name: \"http\": Duplicate value",
        "a.yaml:23: error: Service default/web: spec.ports[1]: \"TCP 80\": Duplicate value",
        "error: Secret default/Cert: metadata.name: \"Cert\": Invalid value: a lowercase RFC 1123 subdomain",
        "error: Secret default/Cert: data[tls.key]: Required value; the API server refuses the object",
    ] {
        assert!(report.lines().any(|line| line.contains(expected)), "{expected} in\n{report}");
    }
    // Other faults are found in the same run, and no field is reported twice.
    assert!(report.contains("rewrite-targt  unknown"), "{report}");
    assert_eq!(report.matches("spec.rules[0].host:").count(), 1, "{report}");
}

#[test]
fn a_gateway_that_is_not_served_is_reported_with_the_controller_of_its_class() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.yaml");
    let report = |controller: &str| {
        let class = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: edge}}\nspec: {{controllerName: {controller}}}\n"
        );
        let gateway = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  gatewayClassName: edge\n  \
            listeners: [{name: http, port: 80, protocol: HTTP}]\n";
        fs::write(&file, class + gateway).unwrap();
        text(&run(["check".as_ref(), folder.path().as_os_str()]))
    };
    let misspelt = report("fairway.dev/gateway-controller");
    let message = "not served: its GatewayClass belongs to fairway.dev/gateway-controller; ours is fairway.dev/gateway";
    assert!(misspelt.contains(message) && misspelt.ends_with("1 warning\n"), "{misspelt}");
    let other = report("example.com/controller");
    assert!(other.contains("belongs to example.com/controller") && other.ends_with("0 warnings\n"), "{other}");
    let ours = report("fairway.dev/gateway");
    assert!(!ours.contains("not served"), "{ours}");
    report("example.com/controller");
    let named = |name: &str| text(&run(["check", folder.path().to_str().unwrap(), "--gateway-controller-name", name]));
    let served = named("example.com/controller");
    assert!(!served.contains("not served"), "{served}");
}

#[test]
fn other_mistakes_of_an_ingress_that_is_not_loaded_are_reported_too() {
    let folder = tempfile::tempdir().unwrap();
    let ingress = BAD.replace(
        "    nginx.ingress.kubernetes.io/rewrite-targt: /\n",
        "    nginx.ingress.kubernetes.io/configuration-snippet: deny all;\n",
    );
    fs::write(folder.path().join("bad.yaml"), ingress.replace("  - hots: b.example\n", "")).unwrap();
    let report = text(&run(["check".as_ref(), folder.path().as_os_str()]));
    for part in
        ["its risk is Critical", "proxy-read-timeout", "a b.example", "the Ingress is not loaded, as in ingress-nginx"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }
}

#[test]
fn a_key_that_occurs_twice_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  gatewayClassName: any\n  \
                   gatewayClassName: any\n  listeners: [{name: http, port: 80, protocol: HTTP}]\n";
    fs::write(folder.path().join("a.yaml"), gateway).unwrap();
    let report = text(&run(["check".as_ref(), folder.path().as_os_str()]));
    let told: Vec<_> = report.lines().filter(|line| line.contains("a.yaml:")).collect();
    assert!(matches!(told[..], [one] if one.contains("the key occurs twice; the last one counts")), "{report}");
}

#[test]
fn an_object_that_the_api_server_refuses_has_no_status() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = |name: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {{name: {name}}}, spec: {{gatewayClassName: any, \
             listeners: [{{name: http, port: 80, protocol: HTTP}}]}}}}\n"
        )
    };
    fs::write(folder.path().join("a.yaml"), gateway("good") + &gateway("Bad_Name")).unwrap();
    let report = text(&run(["check".as_ref(), folder.path().as_os_str()]));
    let after = |name: &str| {
        report.split_once(&format!("  Gateway default/{name}\n")).and_then(|(_, rest)| rest.lines().next())
    };
    assert_eq!(after("good"), Some("    Accepted, Programmed, ResolvedRefs"), "{report}");
    assert_eq!(after("Bad_Name"), Some("    refused by the API server, as said above: it has no status"), "{report}");
}

#[test]
fn what_is_not_there_or_refused_is_not_counted_as_served() {
    let folder = tempfile::tempdir().unwrap();
    let object = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n"
        )
    };
    let listeners = "gatewayClassName: any, listeners: [{name: http, port: 80, protocol: HTTP}]";
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let route =
        |name: &str, parent: &str| object("HTTPRoute", name, &format!("parentRefs: [{{name: {parent}}}], {rules}"));
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}\n";
    let all = [
        object("Gateway", "edge", listeners),
        route("good", "edge"),
        route("Bad_Name", "edge"),
        route("astray", "gone"),
        service.to_owned(),
    ];
    fs::write(folder.path().join("a.yaml"), all.concat()).unwrap();
    let report = text(&run(["check".as_ref(), folder.path().as_os_str()]));
    let astray = "    at gone: there is no Gateway default/gone, so the route is not served there";
    for line in ["    listener http, 1 route: Accepted, ResolvedRefs, Programmed", "  HTTPRoute default/astray", astray]
    {
        assert!(report.lines().any(|found| found == line), "{line:?} in {report}");
    }
    assert!(report.contains("\n5 objects in 1 file, 1 of them refused by the API server: "), "{report}");
    let output = run(["check".as_ref(), "--output".as_ref(), "json".as_ref(), folder.path().as_os_str()]);
    let report: serde_json::Value = serde_json::from_str(&text(&output)).unwrap();
    let schema = serde_json::from_str(include_str!("../../../../docs/schema/check.json")).unwrap();
    support::schema::validate(&schema, &report).unwrap();
    let astray = report["gateway"].as_array().unwrap().iter().find(|object| object["name"] == "astray");
    assert_eq!(astray.map(|object| &object["absentParents"]), Some(&serde_json::json!(["gone"])), "{report:#}");
    assert_eq!(report["refused"], 1);
}

#[test]
fn a_certificate_that_the_files_lack_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: edge}, spec: {gatewayClassName: any, \
        listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}]}}\n";
    let broken = "---\n{apiVersion: v1, kind: Secret, metadata: {name: cert}, type: kubernetes.io/tls, stringData: {tls.crt: x, tls.key: x}}\n";
    for (manifests, severity) in [(gateway.to_owned(), "warning"), (gateway.to_owned() + broken, "error")] {
        fs::write(folder.path().join("a.yaml"), manifests).unwrap();
        let report = text(&run(["check".as_ref(), folder.path().as_os_str()]));
        let said = format!("{severity}: Gateway default/edge: spec.listeners[0]: \"https\":");
        assert!(report.contains(&said), "{said}: {report}");
    }
}

#[test]
fn a_kind_of_the_experimental_channel_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let xbackend = |name: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XBackend, metadata: {{name: {name}}}, spec: {{type: \
             ExternalHostname, externalHostname: {{hostname: api.example.com}}, port: {{number: 443}}}}}}\n"
        )
    };
    fs::write(folder.path().join("a.yaml"), xbackend("one") + &xbackend("two")).unwrap();
    let report = text(&run(["check".as_ref(), folder.path().as_os_str()]));
    assert_eq!(report.matches("a kind of the experimental channel").count(), 1, "{report}");
}

const ROUTES: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: fairway
  addresses: [{type: IPAddress, value: 192.0.2.7}]
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: admin
  namespace: shop
  annotations:
    nginx.ingress.kubernetes.io/whitelist-source-range: 10.0.0.0/8
    fairway.dev/obsrve: 'true'
    fairway.dev/observe: 'true'
    fairway.dev/health-check: /
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 80}]}}
---
{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: SecurityPolicy, metadata: {name: one, namespace: shop}}
---
{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: SecurityPolicy, metadata: {name: two, namespace: shop}}
---
{apiVersion: traefik.io/v1alpha1, kind: Middleware, metadata: {name: one, namespace: shop}}
---
{apiVersion: example.com/v1, kind: Middleware, metadata: {name: one, namespace: shop}}
";

#[test]
fn what_was_to_restrict_a_route_and_is_not_read_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("routes.yaml"), ROUTES).unwrap();
    let path = folder.path().to_str().unwrap();
    let report = text(&run(["check", path]));
    let about = |name: &str| report.lines().filter(|line| line.contains(name)).collect::<Vec<_>>();
    for (name, said) in [
        ("whitelist-source-range", "a RoutePolicy says what holds for routes"),
        ("obsrve", "did you mean fairway.dev/observe?"),
        ("fairway.dev/health-check", "an annotation of Ingresses, without effect here"),
        ("SecurityPolicy", "use a RoutePolicy instead"),
        ("Middleware", "a kind of traefik.io"),
    ] {
        let lines = about(name);
        assert!(lines.len() == 1 && lines[0].contains(said) && lines[0].contains(": warning: "), "{name} in\n{report}");
    }
    assert!(about("annotations[\"fairway.dev/observe\"]").is_empty(), "{report}");
}

#[test]
fn gateways_are_judged_as_by_the_installation_that_the_flag_describes() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("routes.yaml"), ROUTES).unwrap();
    let path = folder.path().to_str().unwrap();
    let report = text(&run(["check", path]));
    assert!(report.contains("UnsupportedAddress"), "{report}");
    let report = text(&run(["check", path, "--gateway-address", "asked"]));
    assert!(!report.contains("UnsupportedAddress"), "{report}");
}

#[test]
fn a_forbidden_address_can_be_allowed_and_standard_input_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let here = "\
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: here}, spec: {ingressClassName: nginx, rules: [{host: a.example, \
http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: here, port: {number: 80}}}}]}}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: here}, spec: {type: ExternalName, externalName: localhost, ports: [{port: 80}]}}
";
    fs::write(folder.path().join("here.yaml"), here).unwrap();
    let path = folder.path().to_str().unwrap();
    let report = text(&run(["check", path]));
    assert!(report.contains("localhost may not be a backend"), "{report}");
    let report = text(&run(["check", path, "--allow-backend-address", "127.0.0.1"]));
    assert!(!report.contains("may not be a backend"), "{report}");
    let output = run(["check", "-"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("write it to a file"), "{said}");
}

#[test]
fn the_verdict_on_a_snippet_depends_on_whether_it_is_read() {
    let (deny, header, unknown) = ("deny all;", "add_header A b;", "proxy_pass http://x;");
    for (allowed, level, snippet, verdict, error) in [
        ("true", "Critical", deny, "differs", None),
        ("true", "Critical", header, "differs", None),
        ("true", "Critical", unknown, "refused", Some("refused as a whole: line 1: proxy_pass")),
        ("false", "Critical", deny, "refused", Some("what it closes is open")),
        ("false", "Critical", unknown, "refused", Some("what it closes is open")),
        ("false", "Critical", header, "harmless", None),
        ("true", "High", header, "refused", Some("this version of the Ingress is not loaded")),
        ("false", "High", deny, "refused", Some("this version of the Ingress is not loaded")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let objects = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\n\
             data: {{allow-snippet-annotations: '{allowed}', annotations-risk-level: {level}}}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n\
             ---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  annotations:\n    \
             nginx.ingress.kubernetes.io/configuration-snippet: '{snippet}'\nspec:\n  ingressClassName: nginx\n  rules:\n  \
             - host: a.example\n    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
        );
        fs::write(folder.path().join("all.yaml"), objects).unwrap();
        let arguments: [&std::ffi::OsStr; 6] = [
            "check".as_ref(),
            folder.path().as_os_str(),
            "--configmap".as_ref(),
            "default/settings".as_ref(),
            "--output".as_ref(),
            "json".as_ref(),
        ];
        let output = run(arguments);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let case = format!("{allowed} {level} {snippet}: {report:#}");
        assert_eq!(report["annotations"][0]["verdict"], verdict, "{case}");
        let is_error = |found: &&serde_json::Value| found["severity"] == "Error";
        let found = report["diagnostics"].as_array().unwrap().iter().find(is_error);
        let message = found.map(|found| found["message"].as_str().unwrap());
        assert_eq!(message.is_some(), error.is_some(), "{case}");
        assert!(message.zip(error).is_none_or(|(message, part)| message.contains(part)), "{case}");
        let not_loaded = report["annotations"][0].to_string().contains("not loaded");
        assert_eq!(not_loaded, level == "High", "{case}");
    }
}

/// The binary without root's right to read everything.
fn without_override() -> std::process::Command {
    use std::os::unix::fs::MetadataExt;
    let is_root = fs::metadata("/proc/self").expect("proc is mounted").uid() == 0;
    let mut command = std::process::Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.arg("--bounding-set=-dac_override,-dac_read_search");
    }
    command.arg(env!("CARGO_BIN_EXE_fairway"));
    command
}

#[test]
fn a_folder_that_cannot_be_read_is_reported() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let sub = folder.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("bad.yaml"), BAD).unwrap();
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o000)).unwrap();
    let output = without_override().arg("check").arg(folder.path()).output().expect("the binary runs");
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o700)).unwrap();
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(report.contains("sub: error: can't be read: Permission denied"), "{report}");
}
