use fairway_model::NetworkSet;
use proptest::prelude::*;

use super::examples::EXAMPLES;
use super::*;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::value::{BackendProtocol, HealthProbe, HostAlias, SameSite, Size};

fn map(annotations: &[(&str, &str)]) -> BTreeMap<String, String> {
    annotations.iter().map(|(name, value)| (full_name(DEFAULT_PREFIX, name), (*value).to_owned())).collect()
}

fn read_with(rules: &Rules, annotations: &[(&str, &str)]) -> (Result<IngressAnnotations, Rejected>, Vec<Diagnostic>) {
    let origin = Origin::new("Ingress", "shop", "web");
    let all = map(annotations);
    let mut diagnostics = Vec::new();
    let out = read(&Annotations::new(&origin, DEFAULT_PREFIX, &all), rules, &mut diagnostics);
    (out, diagnostics)
}

fn read_all(annotations: &[(&str, &str)]) -> (Result<IngressAnnotations, Rejected>, Vec<Diagnostic>) {
    read_with(&Rules { ssl_passthrough: true, ..Rules::default() }, annotations)
}

/// The value of `field` for an annotation that is read without complaint.
fn taken<T>(name: &str, value: &str, field: impl Fn(&IngressAnnotations) -> Option<T>) -> T {
    let (out, diagnostics) = read_all(&[(name, value)]);
    assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}");
    field(&out.expect("accepted")).unwrap_or_else(|| panic!("{name}: {value} is valid"))
}

/// Annotations that can't be read alone: users need a Secret, and snippets have to be allowed.
const NEEDS_OTHERS: [&str; 4] = ["auth-type", "auth-snippet", "configuration-snippet", "server-snippet"];

#[test]
fn every_annotation_that_works_has_an_example() {
    let working = GROUPS.iter().flat_map(|group| group.specs).filter(|spec| spec.verdict.works());
    for spec in working {
        assert!(EXAMPLES.iter().any(|(name, ..)| *name == spec.name), "{}", spec.name);
    }
}

#[test]
fn valid_values_are_read_without_a_word() {
    for (name, valid, _) in EXAMPLES {
        // By itself this one gets a warning that it has no effect.
        if NEEDS_OTHERS.contains(name) || *name == "auth-secret" {
            continue;
        }
        let (out, diagnostics) = read_all(&[(name, valid)]);
        assert!(diagnostics.is_empty(), "{name}: {diagnostics:?}");
        let out = out.expect("accepted");
        assert_ne!(out, IngressAnnotations::default(), "{name} fills a field");
        assert_eq!(out.denial, Denial::None);
    }
}

#[test]
fn the_wrong_part_of_an_authentication_url_is_named() {
    for (url, part) in [
        ("https://a b/", "a character that none may have"),
        ("auth.example/check", "does not begin with http:// or https://"),
        ("ftp://auth.example/", "does not begin with http:// or https://"),
        ("http://auth.example:http/", "the port"),
        ("http://auth.example:0/", "the port"),
        ("http://auth.example:70000/", "the port"),
        ("http://user:word@auth.example/", "names a user"),
        ("http:///check", "the host"),
        ("http://$service/", "the host"),
        ("http://[::g]/", "the host"),
    ] {
        let (_, diagnostics) = read_all(&[("auth-url", url)]);
        assert!(diagnostics[0].message.contains(part), "{url}: {}", diagnostics[0].message);
    }
}

#[test]
fn invalid_values_are_reported_and_end_as_the_table_says() {
    for (name, _, invalid) in EXAMPLES {
        if NEEDS_OTHERS.contains(name) {
            continue;
        }
        let (out, diagnostics) = read_all(&[(name, invalid)]);
        let spec = spec(name).expect("known");
        let [found] = diagnostics.as_slice() else { panic!("{name}: {diagnostics:?}") };
        assert_eq!(found.reason, Reason::AnnotationParsingFailed);
        let expected = format!("expected {}; {}", spec.syntax, spec.on_invalid.consequence());
        match *name {
            // The message begins with the fault.
            "auth-url" => assert!(found.message.ends_with(&expected), "{}", found.message),
            _ => assert_eq!(found.message, expected),
        }
        let value = if *name == "auth-snippet" { String::new() } else { format!(": {invalid}") };
        let by = format!("nginx.ingress.kubernetes.io/{name}{value}").into();
        let denied =
            IngressAnnotations { denial: Denial::Locations, denied_by: Some(by), ..IngressAnnotations::default() };
        match spec.on_invalid {
            OnInvalid::Default | OnInvalid::Drop => assert_eq!(out, Ok(IngressAnnotations::default()), "{name}"),
            OnInvalid::Deny => assert_eq!(out, Ok(denied), "{name}"),
            OnInvalid::Reject => assert_eq!(out, Err(Rejected), "{name}"),
        }
    }
}

#[test]
fn empty_values_are_absent() {
    // Only the risk depends on the name alone.
    let rules = Rules { risk_level: RiskLevel::Critical, snippets: true, ..Rules::default() };
    // A template may have lost this URL, which was meant to restrict access.
    assert_eq!(read_all(&[("auth-url", "")]).0.map(|read| read.denial), Ok(Denial::Locations));
    for name in names().filter(|name| *name != "auth-url") {
        assert_eq!(read_with(&rules, &[(name, "")]), (Ok(IngressAnnotations::default()), vec![]), "{name}");
    }
}

#[test]
fn values_reach_their_fields() {
    assert!(taken("use-regex", "true", |all| all.rewriting.use_regex));
    assert_eq!(taken("proxy-body-size", "0", |all| all.proxying.body_size).limit(), None);
    assert_eq!(taken("proxy-body-size", "8m", |all| all.proxying.body_size), Size(8 << 20));
    assert_eq!(taken("backend-protocol", "HTTP", |all| all.proxying.protocol), BackendProtocol::Http);
    assert_eq!(taken("session-cookie-samesite", "None", |all| all.affinity.cookie_same_site), SameSite::None);
    let aliases = taken("server-alias", "*.A.example", |all| all.hosts.aliases.clone());
    assert_eq!(aliases.0, [HostAlias::Below("a.example".into())]);
}

#[test]
fn alias_counts_only_where_the_name_is_absent_or_empty() {
    let networks = |annotations: &[(&str, &str)]| {
        let (out, diagnostics) = read_all(annotations);
        let out = out.expect("accepted");
        let allow = out.access.allow.map(|set| set.networks().iter().map(ToString::to_string).collect::<Vec<_>>());
        (allow, out.denial, diagnostics.len())
    };
    let some = |network: &str| Some(vec![network.to_owned()]);
    let old = ("whitelist-source-range", "10.0.0.0/8");
    assert_eq!(networks(&[old]), (some("10.0.0.0/8"), Denial::None, 0));
    assert_eq!(networks(&[old, ("allowlist-source-range", "")]), (some("10.0.0.0/8"), Denial::None, 0));
    assert_eq!(networks(&[old, ("allowlist-source-range", "192.0.2.0/24")]), (some("192.0.2.0/24"), Denial::None, 1));
    assert_eq!(networks(&[("whitelist-source-range", "x")]), (None, Denial::Locations, 1));
    // The old name, valid or not, doesn't count beside the new one.
    let both = [("whitelist-source-range", "x"), ("allowlist-source-range", "192.0.2.0/24")];
    assert_eq!(networks(&both), (some("192.0.2.0/24"), Denial::None, 1));
    let both = [old, ("allowlist-source-range", "x")];
    assert_eq!(networks(&both), (None, Denial::Locations, 2));
}

#[test]
fn every_bad_value_is_reported_not_just_the_first() {
    let (out, diagnostics) = read_all(&[
        ("allowlist-source-range", "x"),
        ("load-balance", "x"),
        ("proxy-read-timeout", "x"),
        ("rewrite-targt", "/x"),
    ]);
    assert_eq!(out, Err(Rejected));
    assert_eq!(diagnostics.len(), 4);
    assert_eq!(diagnostics[3].message, "no annotation of this name exists; did you mean rewrite-target?");
}

#[test]
fn authentication_that_is_not_built_denies() {
    let denial = |name, value| {
        let (out, diagnostics) = read_all(&[(name, value)]);
        assert!(diagnostics.iter().any(|found| found.severity == Severity::Error), "{name}");
        out.expect("accepted").denial
    };
    assert_eq!(denial("auth-type", "basic"), Denial::Locations);
    assert_eq!(denial("auth-type", "digest"), Denial::Locations);
    assert_eq!(denial("auth-url", "auth.example"), Denial::Locations);
    assert_eq!(denial("auth-tls-secret", "other/ca"), Denial::Hosts);
    assert_eq!(denial("auth-tls-secret", "ca"), Denial::Hosts);
    for protocol in ["fcgi", "FCGI"] {
        assert_eq!(denial("backend-protocol", protocol), Denial::Locations);
    }
}

#[test]
fn a_check_of_backends_that_cannot_be_built_denies() {
    let read = |annotations: &[(&str, &str)]| {
        let (out, diagnostics) = read_all(annotations);
        (out.expect("accepted").denial, diagnostics.iter().map(|found| found.severity).max())
    };
    let https = ("backend-protocol", "HTTPS");
    assert_eq!(read(&[https]), (Denial::None, None));
    // Without the Secret, ingress-nginx ignores the rest of the family.
    assert_eq!(read(&[https, ("proxy-ssl-verify", "on")]), (Denial::None, Some(Severity::Warning)));
    let named = ("proxy-ssl-name", "web");
    for (secret, verify, denial) in [
        ("shop/ca", "on", Denial::None),
        ("shop/ca", "off", Denial::None),
        ("shop/ca", "false", Denial::None),
        ("shop/ca", "true", Denial::Locations),
        ("shop/ca", "On", Denial::Locations),
        ("ops/ca", "off", Denial::Locations),
        ("ca", "on", Denial::Locations),
        ("a/b/c", "on", Denial::Locations),
    ] {
        let annotations = [https, named, ("proxy-ssl-secret", secret), ("proxy-ssl-verify", verify)];
        assert_eq!(read(&annotations).0, denial, "{secret} {verify}");
    }
    let rules = Rules { other_namespaces: true, ..Rules::default() };
    let (out, diagnostics) = read_with(&rules, &[("proxy-ssl-secret", "ops/ca")]);
    assert_eq!(out.unwrap().backend_secret.map(|secret| secret.to_string()).as_deref(), Some("ops/ca"));
    assert!(diagnostics.is_empty());
}

#[test]
fn limits_are_read_under_their_old_names_too() {
    let (out, diagnostics) = read_all(&[("limit-rps", "5"), ("limit-whitelist", "10.0.0.0/8")]);
    let limits = out.unwrap().limits;
    assert_eq!((limits.per_second, limits.exempt), (Some(5), NetworkSet::parse("10.0.0.0/8")));
    assert!(diagnostics.is_empty());
}

#[test]
fn what_has_no_effect_on_a_canary_is_harmless() {
    let all = |canary: &str| {
        [("canary", canary), ("canary-weight", "5"), ("auth-url", "http://a.example/"), ("load-balance", "ewma")]
            .map(|(name, value)| (full_name(DEFAULT_PREFIX, name), value.to_owned()))
    };
    let labels = |canary| {
        let (origin, all) = (Origin::new("Ingress", "a", "b"), all(canary).into());
        let annotations = Annotations::new(&origin, DEFAULT_PREFIX, &all);
        let verdict = |(name, value)| spec(name).unwrap().verdict_of(value, &annotations, &Rules::default()).label();
        annotations.iter().map(verdict).collect::<Vec<_>>()
    };
    // auth-url, canary, canary-weight, load-balance
    assert_eq!(labels("true"), ["harmless", "differs", "same", "differs"]);
    assert_eq!(labels("false"), ["differs", "same", "harmless", "differs"]);
}

#[test]
fn values_that_ask_for_what_happens_anyway_lose_nothing() {
    for spec in GROUPS.iter().flat_map(|group| group.specs) {
        for neutral in spec.neutral {
            let found = read_all(&[(spec.name, neutral)]).1;
            assert!(found.iter().all(|found| found.severity == Severity::Info), "{}: {found:?}", spec.name);
        }
    }
}

#[test]
fn snippets_are_too_risky_then_dropped_then_deny() {
    let snippet = [("configuration-snippet", "deny all;\nproxy_pass http://a;")];
    let (out, diagnostics) = read_all(&snippet);
    assert_eq!((out, diagnostics[0].reason), (Err(Rejected), Reason::AnnotationTooRisky));
    let mut rules = Rules { risk_level: RiskLevel::Critical, ..Rules::default() };
    let (out, diagnostics) = read_with(&rules, &snippet);
    assert_eq!((out, diagnostics[0].severity), (Ok(IngressAnnotations::default()), Severity::Error));
    assert!(diagnostics[0].message.ends_with("what it closes is open"), "{diagnostics:?}");
    let (_, diagnostics) = read_with(&rules, &[("configuration-snippet", "add_header A b;")]);
    assert_eq!(diagnostics[0].severity, Severity::Warning);
    rules.snippets = true;
    let (out, diagnostics) = read_with(&rules, &snippet);
    assert_eq!(out.expect("accepted").denial, Denial::Locations);
    assert!(diagnostics[0].message.starts_with("refused as a whole: line 2: proxy_pass: "), "{diagnostics:?}");
    let (out, diagnostics) = read_with(&rules, &[("configuration-snippet", "deny all;")]);
    assert_eq!(out.expect("accepted").denial, Denial::None);
    assert_eq!(diagnostics[0].message, "read as: line 1: answer 403 to all");
    assert_eq!(read_with(&rules, &[("server-snippet", "x")]).0.expect("accepted").denial, Denial::Hosts);
}

#[test]
fn risk_and_words_reject_the_ingress() {
    let rules = Rules { risk_level: RiskLevel::Low, ..Rules::default() };
    let (out, diagnostics) = read_with(&rules, &[("whitelist-source-range", "10.0.0.0/8")]);
    assert_eq!((out, diagnostics[0].reason), (Err(Rejected), Reason::AnnotationTooRisky));
    assert!(read_with(&rules, &[("ssl-redirect", "true")]).0.is_ok());

    let rules = Rules { word_blocklist: vec![String::new(), "lua".into()], ..Rules::default() };
    let (out, diagnostics) = read_with(&rules, &[("anything-at-all", "by_lua")]);
    assert_eq!((out, diagnostics[0].reason), (Err(Rejected), Reason::ForbiddenWord));
    assert!(read_with(&rules, &[("rewrite-target", "/LUA")]).0.is_ok());
}

#[test]
fn only_names_under_the_prefix_count() {
    let origin = Origin::new("Ingress", "shop", "web");
    let all: BTreeMap<String, String> = [
        ("nginx.ingress.kubernetes.io", "x"),
        ("nginx.ingress.kubernetes.io-old/use-regex", "true"),
        ("nginx.ingress.kubernetes.iox/use-regex", "true"),
        ("kubernetes.io/ingress.class", "nginx"),
        ("other.example/use-regex", "true"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    let mut diagnostics = Vec::new();
    let annotations = Annotations::new(&origin, DEFAULT_PREFIX, &all);
    assert_eq!(read(&annotations, &Rules::default(), &mut diagnostics), Ok(IngressAnnotations::default()));
    let told: Vec<_> = diagnostics.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(
        told,
        ["the prefix nginx.ingress.kubernetes.iox is not read; did you mean nginx.ingress.kubernetes.io/use-regex?"]
    );
    let other = Annotations::new(&origin, "other.example", &all);
    let out = read(&other, &Rules::default(), &mut diagnostics).expect("accepted");
    assert_eq!(out.rewriting.use_regex, Some(true));
}

#[test]
fn our_own_annotations_have_their_own_prefix() {
    let origin = Origin::new("Ingress", "shop", "web");
    let all: BTreeMap<String, String> = [
        ("fairway.dev/health-check", "/healthz"),
        ("fairway.dev/use-regex", "true"),
        ("nginx.ingress.kubernetes.io/fairway.dev/health-check", "grpc"),
        ("other.example/health-check-interval", "5"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    for prefix in [DEFAULT_PREFIX, "other.example"] {
        let mut found = Vec::new();
        let read = read(&Annotations::new(&origin, prefix, &all), &Rules::default(), &mut found).expect("accepted");
        assert_eq!(read.health.probe.as_deref(), Some(&HealthProbe::Path("/healthz".to_owned())));
        assert_eq!((read.rewriting.use_regex, read.health.interval), (None, None));
        let field = "metadata.annotations[\"fairway.dev/use-regex\"]";
        assert!(found.iter().any(|one| one.field == field && one.reason == Reason::UnknownAnnotation), "{found:?}");
    }
}

#[test]
fn rules_between_fields() {
    let (out, diagnostics) = read_all(&[("permanent-redirect-code", "309"), ("temporal-redirect-code", "308")]);
    let redirects = out.expect("accepted").redirects;
    assert_eq!((redirects.permanent_code, redirects.temporal_code, diagnostics.len()), (None, None, 2));
    let (out, diagnostics) = read_all(&[("temporal-redirect", "ftp://x.example")]);
    assert_eq!((out.expect("accepted").redirects.temporal, diagnostics.len()), (None, 1));
    let (out, diagnostics) = read_all(&[("upstream-hash-by-subset-size", "0")]);
    assert_eq!((out.expect("accepted").balancing.hash_by_subset_size, diagnostics.len()), (None, 0));
}

#[test]
fn unknown_names_are_not_reported_without_end() {
    let names: Vec<String> = (0..1000).map(|n| format!("name-{n}")).collect();
    let annotations: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
    assert_eq!(read_all(&annotations).1.len(), 17);
}

#[test]
fn a_mebibyte_in_any_value_is_bounded_in_what_is_said_of_it() {
    let large = "(a+)+\u{0}\r\n".repeat((1 << 20) / 8);
    for name in names() {
        let rules = Rules { risk_level: RiskLevel::Critical, ..Rules::default() };
        let (_, diagnostics) = read_with(&rules, &[(name, &large)]);
        for found in diagnostics {
            let text = found.to_string();
            assert!(text.len() < 4000 && !text.contains(char::is_control), "{name}: {text}");
        }
    }
    assert_eq!(read_all(&[(&large, "x")]).1.len(), 1);
}

proptest! {
    #[test]
    fn reading_never_panics_and_never_opens(value in any::<String>()) {
        for name in names() {
            let _ = read_all(&[(name, &value)]);
        }
        if !value.is_empty() {
            let (out, _) = read_all(&[("allowlist-source-range", &value)]);
            let out = out.expect("never rejected");
            prop_assert!(out.access.allow.is_some() || out.denial == Denial::Locations);
        }
    }
}

/// A struct of options stays small enough to keep one for each of 10,000 Ingresses, although equal ones are shared: 16 bytes per annotation
/// on average.
#[test]
fn options_are_small() {
    let (size, count) = (size_of::<IngressAnnotations>(), EXAMPLES.len());
    assert!(size <= 16 * count, "{size} bytes for {count} annotations");
}

#[test]
fn verdicts_follow_the_values() {
    let verdict = |rules: &Rules, all: &[(&str, &str)]| {
        let origin = Origin::new("Ingress", "a", "b");
        let map = all.iter().map(|(name, value)| (full_name(DEFAULT_PREFIX, name), (*value).to_owned())).collect();
        let annotations = Annotations::new(&origin, DEFAULT_PREFIX, &map);
        spec(all[0].0).unwrap().verdict_of(all[0].1, &annotations, rules).label()
    };
    let plain = Rules::default();
    let passing = Rules { ssl_passthrough: true, ..Rules::default() };
    for (rules, all, label) in [
        (&plain, &[("proxy-request-buffering", "off")][..], "same"),
        (&plain, &[("proxy-request-buffering", "on")], "differs"),
        (&plain, &[("proxy-buffering", "off")], "same"),
        (&plain, &[("proxy-buffering", "on")], "differs"),
        (&plain, &[("proxy-buffer-size", "16k")], "same"),
        (&plain, &[("proxy-buffer-size", "64K")], "same"),
        (&plain, &[("proxy-buffer-size", "128k")], "same"),
        (&plain, &[("proxy-buffer-size", "2m")], "differs"),
        (&plain, &[("backend-protocol", "https")], "same"),
        (&plain, &[("backend-protocol", "auto_http")], "same"),
        (&plain, &[("backend-protocol", "GRPC")], "differs"),
        (&plain, &[("backend-protocol", "FCGI")], "differs"),
        (&plain, &[("proxy-ssl-name", "web")], "harmless"),
        (&plain, &[("proxy-ssl-name", "web"), ("proxy-ssl-secret", "a/ca")], "same"),
        (&plain, &[("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "a/ca")], "differs"),
        (&plain, &[("satisfy", "any"), ("allowlist-source-range", "10.0.0.0/8")], "harmless"),
        (&plain, &[("satisfy", "any"), ("auth-type", "basic")], "same"),
        (&plain, &[("ssl-passthrough", "true")], "harmless"),
        (&passing, &[("ssl-passthrough", "true")], "differs"),
        (&passing, &[("ssl-passthrough", "false")], "same"),
        (&plain, &[("auth-method", "POST"), ("auth-url", "http://a.example/")], "same"),
        (&plain, &[("auth-method", "TRACE"), ("auth-url", "http://a.example/")], "differs"),
        (&plain, &[("auth-method", "CONNECT"), ("auth-url", "http://a.example/")], "differs"),
        (&plain, &[("auth-request-redirect", "/in"), ("auth-url", "http://a.example/")], "same"),
        (&plain, &[("auth-request-redirect", "$request_uri"), ("auth-url", "http://a.example/")], "differs"),
        (&plain, &[("auth-tls-pass-certificate-to-upstream", "False")], "harmless"),
        (&plain, &[("auth-tls-verify-depth", "2"), ("auth-tls-secret", "a/ca")], "same"),
    ] {
        assert_eq!(verdict(rules, all), label, "{all:?}");
    }
}

#[test]
fn a_misspelt_prefix_is_told() {
    let origin = Origin::new("Ingress", "a", "b");
    let names = [
        "ngnix.ingress.kubernetes.io/ssl-redirect",
        "ngnix.ingress.kubernetes.io/no-such-name",
        "traefik.ingress.kubernetes.io/ssl-redirect",
        "nginx.ingress.kubernetes.io/ssl-redirect",
    ];
    let all = names.iter().map(|name| ((*name).to_owned(), "true".to_owned())).collect();
    let mut found = Vec::new();
    read(&Annotations::new(&origin, DEFAULT_PREFIX, &all), &Rules::default(), &mut found).unwrap();
    let fields: Vec<_> = found.iter().map(|found| (found.reason, found.field.as_str())).collect();
    let field = "metadata.annotations[\"ngnix.ingress.kubernetes.io/ssl-redirect\"]";
    assert_eq!(fields, [(Reason::UnknownAnnotation, field)]);
}
