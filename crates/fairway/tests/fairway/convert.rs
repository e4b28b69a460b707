//! `fairway convert`: an Ingress that can't be converted in full is left unchanged and named, and no access becomes wider.

use std::collections::BTreeSet;

use crate::support::run;
use serde_json::Value;

/// The result of the command: status, report and standard error.
struct Said {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

impl Said {
    /// The objects of a kind.
    fn of(&self, kind: &str) -> Vec<&Value> {
        self.report["objects"].as_array().into_iter().flatten().filter(|object| object["kind"] == kind).collect()
    }

    /// The notes about an Ingress of the namespace `ns`.
    fn notes(&self, ingress: &str) -> String {
        let all = self.report["notes"].as_array().into_iter().flatten();
        let own = all.filter(|note| note["object"] == format!("Ingress ns/{ingress}").as_str());
        own.map(|note| format!("{} {}: {}\n", note["verdict"], note["about"], note["text"])).collect()
    }

    /// Asserts that an Ingress is left unchanged, for a reason that contains this text.
    #[track_caller]
    fn is_left(&self, ingress: &str, why: &str) {
        let notes = self.notes(ingress);
        assert!(
            notes.lines().any(|note| note.contains("not_converted") && note.contains(why)),
            "{notes}{:#}",
            self.report
        );
        let routes = self.of("HTTPRoute");
        let own =
            routes.iter().any(|route| route["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(ingress)));
        assert!(!own, "{routes:#?}");
        assert_eq!(self.code, Some(1));
    }
}

fn convert(manifests: &str, flags: &[&str]) -> Said {
    convert_as("json", manifests, flags)
}

fn convert_as(format: &str, manifests: &str, flags: &[&str]) -> Said {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("objects.yaml");
    std::fs::write(&file, format!("{manifests}{SERVICES}")).expect("a file");
    let path = file.to_str().expect("a path in UTF-8");
    let output = run(["convert", path, "--output", format].into_iter().chain(flags.iter().copied()));
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Said { code: output.status.code(), report, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

const SERVICES: &str = "---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: ns}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: other, namespace: ns}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: away, namespace: ns}, spec: {type: ExternalName, externalName: away.example, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: users, namespace: ns}, data: {auth: YWRhOntQTEFJTn14}}
";

/// An Ingress of host `a.example`: annotations without the prefix, paths with their Services, and more of the spec.
fn ingress(name: &str, annotations: &[(&str, &str)], paths: &[(&str, &str, &str)], more: &str) -> String {
    let annotations: Vec<_> = annotations
        .iter()
        .map(|(name, value)| match name.contains('/') {
            true => format!("{name}: '{value}'"),
            false => format!("nginx.ingress.kubernetes.io/{name}: '{value}'"),
        })
        .collect();
    let paths: Vec<_> = paths
        .iter()
        .map(|(path, kind, service)| {
            format!(
                "{{path: '{path}', pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}"
            )
        })
        .collect();
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{namespace: ns, name: {name}, annotations: {{{}}}}}\n\
         spec: {{rules: [{{host: a.example, http: {{paths: [{}]}}}}]{more}}}\n",
        annotations.join(", "),
        paths.join(", ")
    )
}

fn settings(key: &str, value: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{namespace: ns, name: settings}}, data: {{'{key}': '{value}'}}}}\n"
    )
}

const ROOT: &[(&str, &str, &str)] = &[("/", "Prefix", "web")];
const BY_SETTINGS: &[&str] = &["--configmap", "ns/settings"];
const TLS: &str = ", tls: [{hosts: [a.example], secretName: tls}]";

#[test]
fn what_the_configmap_restricts_is_written_or_named() {
    for (key, value) in [
        ("global-auth-url", "http://auth.example/check"),
        ("block-user-agents", "curl"),
        ("block-referers", "bad.example"),
        ("server-snippet", "deny 192.0.2.1;"),
        ("http-snippet", "limit_req_status 429;"),
        ("location-snippet", "deny all;"),
        ("whitelist-source-range", "ten"),
    ] {
        let said = convert(&(ingress("one", &[], ROOT, "") + &settings(key, value)), BY_SETTINGS);
        said.is_left("one", key);
    }
    // The global service doesn't guard an Ingress that has its own, nor one that opts out.
    let free = ingress("one", &[("enable-global-auth", "false")], ROOT, "");
    let said = convert(&(free + &settings("global-auth-url", "http://auth.example/check")), BY_SETTINGS);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn address_lists_of_the_configmap_become_those_of_the_policy() {
    for (key, field) in
        [("whitelist-source-range", "allow"), ("denylist-source-range", "deny"), ("block-cidrs", "deny")]
    {
        let said = convert(&(ingress("one", &[], ROOT, "") + &settings(key, "10.0.0.0/8")), BY_SETTINGS);
        assert_eq!(said.of("RoutePolicy")[0]["spec"]["access"][field][0], "10.0.0.0/8", "{key}: {:#}", said.report);
        assert_eq!(said.code, Some(0), "{key}: {:#}", said.report);
    }
    let own = ingress("one", &[("whitelist-source-range", "192.0.2.0/24")], ROOT, "");
    let said = convert(&(own + &settings("block-cidrs", "10.0.0.0/8")), BY_SETTINGS);
    let access = &said.of("RoutePolicy")[0]["spec"]["access"];
    assert_eq!(access["allow"][0], "192.0.2.0/24", "{access}");
    assert!(access["deny"].is_null(), "{access}");
}

#[test]
fn time_limits_of_the_configmap_are_those_of_the_policy() {
    let said = convert(&(ingress("one", &[], ROOT, "") + &settings("proxy-read-timeout", "300")), BY_SETTINGS);
    assert_eq!(said.of("RoutePolicy")[0]["spec"]["timeouts"]["readSeconds"], 300, "{:#}", said.report);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn what_cannot_be_read_is_told_with_file_and_line() {
    let good = ingress("one", &[], ROOT, "");
    let said = convert(&format!("{good}---\nkind: [\n"), &[]);
    assert_eq!(said.code, Some(1), "{:#}", said.report);
    let error = &said.report["errors"][0];
    assert!(error["file"].as_str().is_some_and(|file| file.ends_with("objects.yaml")), "{:#}", said.report);
    assert!(error["line"].as_u64().is_some(), "{error}");
    let said = convert_as("yaml", &good.replace("pathType: Prefix", "pathType: Prefixed"), &[]);
    assert!(said.stderr.contains("objects.yaml:") && said.stderr.contains("error: "), "{}", said.stderr);
    assert_eq!(said.code, Some(1));
}

#[test]
fn app_root_takes_no_path_of_another_service() {
    let paths = &[("/one", "Prefix", "web"), ("/two", "Prefix", "other")];
    let said = convert(&ingress("one", &[("app-root", "/one")], paths, ""), &[]);
    let routes = said.of("HTTPRoute");
    let rules: Vec<_> =
        routes.iter().flat_map(|route| route["spec"]["rules"].as_array().into_iter().flatten()).collect();
    let of = |path: &str| {
        let rule = rules
            .iter()
            .find(|rule| rule["matches"].as_array().into_iter().flatten().any(|one| one["path"]["value"] == path));
        rule.map(|rule| rule["backendRefs"][0]["name"].clone())
    };
    assert_eq!((of("/one"), of("/two"), of("/")), (Some("web".into()), Some("other".into()), None), "{rules:#?}");
    // The annotation is named, and counts.
    assert!(said.notes("one").contains("app-root"), "{}", said.notes("one"));
    assert_eq!(said.code, Some(1));
}

#[test]
fn any_origin_gets_no_credentials() {
    let said = convert(&ingress("one", &[("enable-cors", "true")], ROOT, ""), &[]);
    let cors = &said.of("HTTPRoute")[0]["spec"]["rules"][0]["filters"][0]["cors"];
    assert_eq!((&cors["allowOrigins"][0], &cors["allowCredentials"]), (&"*".into(), &false.into()), "{cors}");
    assert!(said.notes("one").contains("cors-allow-credentials"), "{}", said.notes("one"));
    let wild = [("enable-cors", "true"), ("cors-allow-origin", "https://*.b.example")];
    let notes = convert(&ingress("wild", &wild, ROOT, ""), &[]).notes("wild");
    assert!(notes.contains("* also stands for several labels"), "{notes}");
    assert!(notes.contains("preflights from other origins get 204"), "{notes}");
    let named = [("enable-cors", "true"), ("cors-allow-origin", "https://b.example")];
    let said = convert(&ingress("one", &named, ROOT, ""), &[]);
    assert_eq!(said.of("HTTPRoute")[0]["spec"]["rules"][0]["filters"][0]["cors"]["allowCredentials"], true);
}

#[test]
fn a_pattern_that_is_closed_leaves_the_ingress_as_it_is() {
    let annotations = &[("use-regex", "true"), ("auth-type", "basic"), ("auth-secret", "users")];
    let closed = ingress("one", annotations, &[("/admin(?!/public).*", "ImplementationSpecific", "web")], "");
    let said = convert(&(closed + &ingress("two", &[], ROOT, "")), &[]);
    said.is_left("one", "/admin(?!/public).*");
}

#[test]
fn the_certificate_of_a_host_is_that_of_all_its_ingresses() {
    let all =
        ingress("one", &[], &[("/one", "Prefix", "web")], TLS) + &ingress("two", &[], &[("/two", "Prefix", "web")], "");
    let said = convert(&all, &[]);
    let routes = said.of("HTTPRoute");
    let listeners = |name: &str| -> Vec<String> {
        let route = routes.iter().find(|route| route["metadata"]["name"] == name);
        let parents = route.map(|route| route["spec"]["parentRefs"].as_array().cloned().unwrap_or_default());
        parents.into_iter().flatten().filter_map(|parent| Some(parent["sectionName"].as_str()?.to_owned())).collect()
    };
    assert_eq!(listeners("two"), ["https-a.example"], "{:#}", said.report);
    assert_eq!(listeners("two-to-https"), ["http"], "{:#}", said.report);
    assert_eq!(said.of("Gateway")[0]["spec"]["listeners"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_entry_without_a_secret_is_for_the_default_certificate() {
    let password = &[("auth-type", "basic"), ("auth-secret", "users")];
    for tls in [", tls: [{hosts: [a.example]}]", ", tls: [{secretName: tls}]", ", tls: [{}]"] {
        let said = convert(&ingress("one", password, ROOT, tls), &[]);
        said.is_left("one", "--default-ssl-certificate");
        let said = convert(&ingress("one", password, ROOT, tls), &["--default-ssl-certificate", "edge/usual"]);
        let listener = &said.of("Gateway")[0]["spec"]["listeners"][1];
        let certificate = &listener["tls"]["certificateRefs"][0];
        assert_eq!((&certificate["namespace"], &certificate["name"]), (&"edge".into(), &"usual".into()), "{listener}");
        // No route lets a password be sent in the clear.
        let plain = |route: &&&Value| {
            route["spec"]["parentRefs"].as_array().into_iter().flatten().any(|one| one["sectionName"] == "http")
        };
        let routes = said.of("HTTPRoute");
        for route in routes.iter().filter(plain) {
            assert_eq!(route["spec"]["rules"][0]["filters"][0]["type"], "RequestRedirect", "{route:#}");
        }
    }
}

#[test]
fn nobody_is_sent_to_https_where_there_is_none() {
    let forced = ingress("one", &[("force-ssl-redirect", "true")], ROOT, "");
    convert(&forced, &[]).is_left("one", "--default-ssl-certificate");
    let said = convert(&forced, &["--default-ssl-certificate", "edge/usual"]);
    assert_eq!(said.of("Gateway")[0]["spec"]["listeners"][1]["hostname"], "a.example", "{:#}", said.report);
}

#[test]
fn a_path_stays_with_the_older_ingress() {
    let all = ingress("one", &[], ROOT, "")
        + &ingress("two", &[], &[("/", "Prefix", "other"), ("/two", "Prefix", "other")], "");
    let said = convert(&all, &[]);
    let routes = said.of("HTTPRoute");
    let to_other: Vec<_> = routes
        .iter()
        .flat_map(|route| route["spec"]["rules"].as_array().into_iter().flatten())
        .filter(|rule| rule["backendRefs"][0]["name"] == "other")
        .flat_map(|rule| rule["matches"].as_array().into_iter().flatten())
        .map(|one| one["path"]["value"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(to_other, ["/two"], "{routes:#?}");
    assert!(said.notes("two").contains("ns/one"), "{}", said.notes("two"));
}

#[test]
fn what_the_api_server_would_refuse_is_left_as_it_is() {
    for path in ["/a b", "/x^y", "/t/{id}", "/ü"] {
        let said = convert(&ingress("one", &[], &[(path, "Prefix", "web")], ""), &[]);
        said.is_left("one", "the API server would refuse");
    }
    let statuses: Vec<_> = (400..=470).map(|status| status.to_string()).collect();
    let networks: Vec<_> = (0..1001).map(|at| format!("10.{}.{}.0/24", at / 256, at % 256)).collect();
    for annotations in [
        &[("custom-http-errors", &*statuses.join(",")), ("default-backend", "other")][..],
        &[("whitelist-source-range", &*networks.join(","))],
        &[("upstream-vhost", "no_host")],
        &[("limit-rps", "10000000")],
    ] {
        let said = convert(&ingress("one", annotations, ROOT, ""), &[]);
        said.is_left("one", "the API server would refuse");
    }
}

#[test]
fn a_gateway_has_64_listeners_at_most() {
    let all: String = (0..70)
        .map(|at| ingress(&format!("i{at:02}"), &[], ROOT, TLS).replace("a.example", &format!("h{at:02}.example")))
        .collect();
    let said = convert(&all, &[]);
    assert_eq!(said.of("Gateway")[0]["spec"]["listeners"].as_array().map(Vec::len), Some(64));
    said.is_left("i69", "64 listeners");
}

#[test]
fn services_that_are_only_a_name_have_no_route() {
    convert(&ingress("one", &[], &[("/", "Prefix", "away")], ""), &[])
        .is_left("one", "XBackend of type ExternalHostname");
}

#[test]
fn what_observes_a_change_stays_and_tracing_has_another_place() {
    let annotations = [("fairway.dev/observe", "true"), ("enable-opentelemetry", "true")];
    let said = convert(&ingress("one", &annotations, ROOT, TLS), &[]);
    let routes = said.of("HTTPRoute");
    assert_eq!(routes.len(), 2, "{:#}", said.report);
    for route in routes {
        assert_eq!(route["metadata"]["annotations"]["fairway.dev/observe"], "true", "{route:#}");
    }
    assert!(said.notes("one").contains("XTelemetryPolicy"), "{:#}", said.report);
}

#[test]
fn only_what_counts_is_named_as_lost() {
    // A host without TLS is converted as it was, and annotations without effect don't matter.
    let said = convert(&ingress("one", &[("auth-keepalive", "10"), ("enable-rewrite-log", "true")], ROOT, ""), &[]);
    assert_eq!((said.code, said.notes("one")), (Some(0), String::new()), "{:#}", said.report);
    for name in ["mirror-target", "cert-manager.io/cluster-issuer", "external-dns.alpha.kubernetes.io/ttl"] {
        let said = convert(&ingress("one", &[(name, "http://copy.example/")], ROOT, ""), &[]);
        assert!(said.notes("one").contains(name), "{name}: {:#}", said.report);
        assert_eq!(said.code, Some(1), "{name}");
    }
}

#[test]
fn names_of_the_gateway_are_checked() {
    for flags in [["--gateway", "edge/No_Name"], ["--gateway", "a/b/c"], ["--gateway-class", "A B"]] {
        let said = convert(&ingress("one", &[], ROOT, ""), &flags);
        assert_eq!(said.code, Some(2), "{flags:?}");
        assert!(said.stderr.contains(flags[0]), "{}", said.stderr);
    }
}

#[test]
fn an_annotation_that_denies_is_named() {
    let said = convert(&ingress("one", &[("whitelist-source-range", "ten")], ROOT, ""), &[]);
    said.is_left("one", "whitelist-source-range");
}

#[test]
fn what_an_ingress_that_stays_guards_is_opened_by_no_route() {
    // Both apply to the whole host.
    for (stays, flags, more) in [
        (ingress("one", &[("auth-tls-secret", "ns/ca")], ROOT, TLS), &[][..], String::new()),
        (
            ingress("one", &[("server-snippet", "deny all;")], ROOT, ""),
            BY_SETTINGS,
            settings("allow-snippet-annotations", "true").replace("}}", ", annotations-risk-level: Critical}}"),
        ),
    ] {
        let said = convert(&(stays + &ingress("two", &[], &[("/two", "Prefix", "other")], "") + &more), flags);
        said.is_left("two", "would be less restricted");
    }
}

#[test]
fn a_wildcard_leaves_the_other_ingresses_of_its_domain_alone() {
    let wildcard = ingress("one", &[], ROOT, TLS).replace("a.example", "'*.a.example'");
    let said = convert(&(wildcard + &ingress("two", &[], ROOT, "").replace("a.example", "b.a.example")), &[]);
    assert!(!said.notes("two").contains("not_converted"), "{}", said.notes("two"));
}

#[test]
fn an_ingress_with_a_canary_stays_with_it() {
    let canary = ingress("two", &[("canary", "true"), ("canary-weight", "10")], &[("/", "Prefix", "other")], "");
    let said = convert(&(ingress("one", &[], ROOT, "") + &canary), &[]);
    said.is_left("one", "canary");
    said.is_left("two", "canary");
}

#[test]
fn keys_of_the_configmap_that_hold_for_ingresses_only_are_named() {
    let said = convert(&(ingress("one", &[], ROOT, "") + &settings("limit-rate", "100")), BY_SETTINGS);
    let notes = &said.report["notes"];
    assert_eq!((&notes[0]["object"], &notes[0]["about"]), (&"ConfigMap ns/settings".into(), &"limit-rate".into()));
    assert_eq!(said.code, Some(1));
    let said = convert(&(ingress("one", &[], ROOT, "") + &settings("limit-rate", "0")), BY_SETTINGS);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn no_two_objects_and_no_two_listeners_share_a_name() {
    let wildcard = ingress("one", &[], ROOT, TLS).replace("a.example", "'*.a.example'");
    let said = convert(&(wildcard + &ingress("two", &[], ROOT, TLS).replace("a.example", "wildcard.a.example")), &[]);
    let listeners = &said.of("Gateway")[0]["spec"]["listeners"];
    let names: BTreeSet<_> = listeners.as_array().into_iter().flatten().map(|one| one["name"].as_str()).collect();
    assert_eq!(names.len(), 3, "{listeners:#}");
    // Too many routes for one policy; the name of the second one belongs to another Ingress.
    let rules: Vec<_> = (0..20)
        .map(|at| {
            format!("{{host: h{at}.example, http: {{paths: [{{path: /p{at}, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}")
        })
        .collect();
    let many = ingress("one", &[("whitelist-source-range", "10.0.0.0/8")], ROOT, "")
        .replace("rules: [", &format!("rules: [{}, ", rules.join(", ")));
    let said = convert(&(many + &ingress("one-2", &[], ROOT, "").replace("a.example", "b.example")), &[]);
    let policies = said.of("RoutePolicy");
    let names: BTreeSet<_> = policies.iter().map(|policy| policy["metadata"]["name"].as_str()).collect();
    assert!(policies.len() > 2, "{policies:#?}");
    assert_eq!(names.len(), policies.len(), "{names:?}");
}

const REGEX: (&str, &str) = ("use-regex", "true");
const LIST: (&str, &str) = ("whitelist-source-range", "10.0.0.0/8");

/// The paths of all routes: type and value.
fn paths(said: &Said) -> Vec<(String, String)> {
    let routes = said.of("HTTPRoute");
    let rules = routes.iter().flat_map(|route| route["spec"]["rules"].as_array().into_iter().flatten());
    let all = rules.flat_map(|rule| rule["matches"].as_array().into_iter().flatten());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.map(|one| (text(&one["path"]["type"]), text(&one["path"]["value"]))).collect()
}

#[test]
fn all_paths_come_after_each_pattern() {
    let guarded = ingress("two", &[REGEX, LIST], &[("/tenants/[0-9]+/admin", "ImplementationSpecific", "other")], "");
    let said = convert(&(ingress("one", &[], ROOT, "") + &guarded), &[]);
    let expected = [("PathPrefix", "/"), ("RegularExpression", "(?i)/tenants/[0-9]+/admin.*")];
    assert_eq!(paths(&said), expected.map(|(kind, value)| (kind.to_owned(), value.to_owned())), "{:#}", said.report);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn patterns_whose_order_counts_stay_in_order() {
    let wide = |name, path| ingress(name, &[REGEX], &[(path, "ImplementationSpecific", "web")], "");
    let guarded =
        ingress("two", &[REGEX, LIST], &[("/files/[0-9]+/invoice[.]pdf", "ImplementationSpecific", "web")], "");
    // The older route would take requests that the longer pattern restricts.
    let said = convert(&(wide("one", "/files") + &guarded), &[]);
    said.is_left("one", "may take the same requests");
    said.is_left("two", "Ingress ns/one");
    // Other paths don't matter.
    let said = convert(&(wide("one", "/images") + &guarded), &[]);
    assert_eq!((said.code, said.of("HTTPRoute").len()), (Some(0), 2), "{:#}", said.report);
    // An Ingress that stays takes precedence over routes, as the older object.
    let stays = ingress("one", &[REGEX, ("backend-protocol", "HTTPS")], ROOT, "");
    let said = convert(&(stays + &guarded), &[]);
    said.is_left("two", "Ingress ns/one");
    // What its host answers for all other paths comes last.
    let stays = [REGEX, ("backend-protocol", "HTTPS")];
    let stays = ingress("one", &stays, &[("/d", "ImplementationSpecific", "web")], "");
    let said = convert(&(stays + &ingress("two", &[], ROOT, "")), &[]);
    assert_eq!(paths(&said), [("PathPrefix".to_owned(), "/".to_owned())], "{:#}", said.report);
    assert_eq!(said.report["differences"].as_array().map(Vec::len), Some(0), "{:#}", said.report);
    // Within an Ingress, the order of rules decides as long as there is only one route.
    let both = [("/files", "ImplementationSpecific", "web"), ("/files/[0-9]+/x", "ImplementationSpecific", "other")];
    let said = convert(&ingress("one", &[REGEX], &both, ""), &[]);
    let values: Vec<_> = paths(&said).into_iter().map(|(_, value)| value).collect();
    assert_eq!((said.code, &*values[0]), (Some(0), "(?i)/files/[0-9]+/x.*"), "{:#}", said.report);
    let all: Vec<_> = (0..20).map(|at| (format!("/p{}", "x".repeat(at)), ["web", "other"][at % 2])).collect();
    let all: Vec<_> = all.iter().map(|(path, service)| (&**path, "ImplementationSpecific", *service)).collect();
    convert(&ingress("one", &[REGEX], &all, ""), &[]).is_left("one", "tried in order");
}

#[test]
fn a_prefix_stays_before_a_pattern_that_takes_the_same() {
    // A prefix with a trailing slash becomes a pattern in routes.
    let both = [("/a/b", "Prefix", "other"), ("/a/", "Prefix", "web"), ("/c", "Prefix", "web")];
    let said = convert(&ingress("one", &[("preserve-trailing-slash", "true")], &both, ""), &[]);
    let differences = said.report["differences"].to_string();
    assert!(!differences.contains("/a/b"), "{:#}", said.report);
    let values = paths(&said);
    assert!(values.contains(&("RegularExpression".to_owned(), "/a/b(/.*)?".to_owned())), "{values:?}");
    assert!(values.contains(&("PathPrefix".to_owned(), "/c".to_owned())), "{values:?}");
    // A route that replaces a prefix also comes after patterns.
    let rewritten = [REGEX, ("rewrite-target", "/$2")];
    let with = ingress("one", &rewritten, &[("/app/v2(/|$)(.*)", "ImplementationSpecific", "web")], "");
    let said = convert(&(with + &ingress("two", &[], &[("/app", "Prefix", "other")], "")), &[]);
    said.is_left("two", "may take the same requests");
}

#[test]
fn a_path_in_capitals_gets_past_no_address_list() {
    let rewritten = [REGEX, LIST, ("rewrite-target", "/$2")];
    let guarded = ingress("one", &rewritten, &[("/app(/|$)(.*)", "ImplementationSpecific", "web")], "");
    // If no other route has the path, a prefix is as good, and the report names the difference.
    let said = convert(&guarded, &[]);
    assert!(paths(&said).contains(&("PathPrefix".to_owned(), "/app".to_owned())), "{:#}", said.report);
    assert!(said.notes("one").contains("match case-sensitively"), "{}", said.notes("one"));
    let said = convert(&(guarded + &ingress("two", &[], ROOT, "")), &[]);
    assert!(
        paths(&said).contains(&("RegularExpression".to_owned(), "(?i)/app(/|$)(.*).*".to_owned())),
        "{:#}",
        said.report
    );
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn a_path_goes_to_no_ingress_that_stays() {
    // The API server accepts such a path for Ingresses only.
    let stays = ingress("two", &[], &[("/", "Prefix", "other"), ("/[x]", "ImplementationSpecific", "other")], "");
    let said = convert(&(ingress("one", &[], ROOT, "") + &stays), &[]);
    said.is_left("two", "the API server would refuse");
    said.is_left("one", "Ingress ns/two, which is not converted, would take / of a.example");
}

#[test]
fn alternatives_of_a_pattern_are_all_of_its_paths() {
    let said = convert(&ingress("one", &[REGEX], &[("/one|/two", "ImplementationSpecific", "web")], ""), &[]);
    assert_eq!(paths(&said)[0].1, "(?i)(?:/one|.*?(?:/two)).*", "{:#}", said.report);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn a_default_backend_beside_rules_is_for_their_hosts() {
    let backend = ", defaultBackend: {service: {name: other, port: {number: 80}}}";
    let said = convert(&ingress("one", &[], &[("/a", "Prefix", "web")], backend), &[]);
    let routes = said.of("HTTPRoute");
    for route in &routes {
        assert_eq!(route["spec"]["hostnames"][0], "a.example", "{routes:#?}");
    }
    assert!(paths(&said).contains(&("PathPrefix".to_owned(), "/".to_owned())), "{routes:#?}");
    assert_eq!(said.code, Some(0), "{:#}", said.report);
    // Without rules, the backend applies to all hosts.
    let alone = ingress("one", &[], &[], backend).replace("rules: [{host: a.example, http: {paths: []}}], ", "");
    let said = convert(&alone, &[]);
    assert!(said.of("HTTPRoute")[0]["spec"]["hostnames"].is_null(), "{:#}", said.report);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

#[test]
fn the_default_certificate_has_its_reason() {
    let both = ingress("one", &[], ROOT, TLS).replace("rules: [", "rules: [{host: v.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}, ");
    convert(&both, &[]).is_left("one", "no TLS entry of Ingress ns/one lists v.example");
    let unnamed = ingress("one", &[], ROOT, ", tls: [{hosts: [a.example]}]");
    convert(&unnamed, &[]).is_left("one", "the TLS entry for a.example names no Secret");
}

#[test]
fn a_difference_says_for_how_many_requests_it_stands() {
    let redirected = ingress("one", &[("app-root", "/one")], &[("/one", "Prefix", "web")], "");
    let said = convert(&redirected, &[]);
    let listed = said.report["differences"].as_array().cloned().unwrap_or_default();
    assert!(listed.iter().any(|one| one["requests"].as_u64() > Some(1)), "{:#}", said.report);
    let said = convert_as("yaml", &redirected, &[]);
    assert!(said.stderr.contains("from other clients or with other methods"), "{}", said.stderr);
    // The total includes every Ingress.
    let total: u64 = listed.iter().filter_map(|one| one["requests"].as_u64()).sum();
    let all = said.stderr.lines().last().and_then(|line| {
        let words: Vec<_> = line.split_once("; ")?.1.split(' ').collect();
        Some(words[2].parse::<u64>().ok()? - words[0].parse::<u64>().ok()?)
    });
    assert_eq!(all, Some(total), "{}", said.stderr);
}

#[test]
fn references_to_other_namespaces_are_granted_as_the_api_server_takes_it() {
    let asked = ingress("one", &[("auth-url", "http://auth.ops.svc.cluster.local/check")], ROOT, TLS);
    let service =
        "---\n{apiVersion: v1, kind: Service, metadata: {name: auth, namespace: ops}, spec: {ports: [{port: 80}]}}\n";
    let said = convert(&(asked + service), &["--gateway", "infra/shared"]);
    let grants = said.of("ReferenceGrant");
    let to: Vec<_> = grants.iter().map(|grant| grant["spec"]["to"][0].to_string()).collect();
    let granted = |kind, name| format!(r#"{{"group":"","kind":"{kind}","name":"{name}"}}"#);
    assert_eq!(to, [granted("Service", "auth"), granted("Secret", "tls")], "{:#}", said.report);
    assert_eq!(said.code, Some(0), "{:#}", said.report);
}

/// A Gateway would send these requests to a wider host.
#[test]
fn a_name_with_an_ingress_of_its_own_gets_no_requests_of_wider_hosts() {
    let only: &[(&str, &str, &str)] = &[("/only", "Prefix", "web")];
    let other: &[(&str, &str, &str)] = &[("/", "Prefix", "other")];
    for (wide, host) in [("any", "host: a.example, "), ("below", "a.example")] {
        let with = if wide == "any" { "" } else { "'*.example'" };
        let all = ingress(wide, &[], other, "").replace(host, with) + &ingress("one", &[], only, "");
        let said = convert(&all, &[]);
        let differences = said.report["differences"].to_string();
        assert!(!differences.contains("http://a.example/"), "{differences}");
        let listeners = said.of("Gateway")[0]["spec"]["listeners"].to_string();
        assert!(listeners.contains(r#""hostname":"a.example","name":"http-a.example","port":80"#), "{listeners}");
        // No path is left for a wider host.
        let said = convert(&all.replace("/only", "/"), &[]);
        assert_eq!(said.of("Gateway")[0]["spec"]["listeners"].as_array().map(Vec::len), Some(1), "{:#}", said.report);
    }
}

#[test]
fn a_target_port_becomes_the_port_of_the_service() {
    let service = "---\n{apiVersion: v1, kind: Service, metadata: {name: far, namespace: ns}, spec: {ports: [{port: 8080, targetPort: 80}]}}\n";
    let said = convert(&(ingress("one", &[], &[("/", "Prefix", "far")], "") + service), &[]);
    let port = &said.of("HTTPRoute")[0]["spec"]["rules"][0]["backendRefs"][0]["port"];
    assert_eq!((port, said.code), (&8080.into(), Some(0)), "{:#}", said.report);
}
