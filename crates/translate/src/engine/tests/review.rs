//! What the admission webhook answers about an Ingress that is being stored.

use super::*;
use crate::review::Review;

const PREFIX: &str = "nginx.ingress.kubernetes.io";

fn submitted(name: &str, annotations: Value, spec: Value) -> Ingress {
    let Change::Upsert(Object::Ingress(stored)) = ingress_with(name, annotations, spec) else { unreachable!() };
    stored.read()
}

fn path(host: &str, path: &str, kind: &str) -> Value {
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    json!({ "host": host, "http": { "paths": [{ "path": path, "pathType": kind, "backend": backend }] } })
}

fn spec(rule: Value) -> Value {
    json!({ "rules": [rule] })
}

fn refusal(translator: &Translator, name: &str, annotations: Value, spec: Value) -> Option<String> {
    translator.review(&submitted(name, annotations, spec)).refusal
}

fn started_with(options: Options, config: Value, changes: impl IntoIterator<Item = Change>) -> Translator {
    let options = Options {
        configmap: Some(("a".to_owned(), "config".to_owned())),
        watch_ingress_without_class: true,
        ..options
    };
    let mut translator = Translator::new(options);
    let config = read::<ConfigMap>(json!({ "metadata": { "namespace": "a", "name": "config" }, "data": config }));
    translator.apply(std::iter::once(config).chain(changes), 0);
    translator
}

#[test]
fn a_host_and_path_of_another_ingress_is_refused_with_the_text_that_people_search_for() {
    let old = ingress_with("old", json!({}), spec(path("a.example", "/x", "Prefix")));
    let anywhere = ingress_with("anywhere", json!({}), spec(path("", "/", "Prefix")));
    let translator = started_with(Options::default(), json!({}), [old, anywhere]);
    let new = |rule| refusal(&translator, "new", json!({}), spec(rule));
    let text = "host \"a.example\" and path \"/x\" is already defined in ingress a/old";
    assert_eq!(new(path("a.example", "/x", "Prefix")).as_deref(), Some(text));
    assert_eq!(new(path("A.example", "/x", "ImplementationSpecific")).as_deref(), Some(text));
    let text = "host \"_\" and path \"/\" is already defined in ingress a/anywhere";
    assert_eq!(new(path("", "/", "Prefix")).as_deref(), Some(text));
    // Both are served.
    assert_eq!(new(path("a.example", "/x", "Exact")), None);
    assert_eq!(new(path("a.example", "/y", "Prefix")), None);
    assert_eq!(new(path("b.example", "/x", "Prefix")), None);
    // Its own paths.
    assert_eq!(refusal(&translator, "old", json!({}), spec(path("a.example", "/x", "Prefix"))), None);
}

#[test]
fn the_owner_of_a_path_may_be_edited_although_another_one_wants_it() {
    let both = ["old", "younger"].map(|name| ingress_with(name, json!({}), spec(path("a.example", "/x", "Prefix"))));
    let translator = started_with(Options::default(), json!({}), both);
    // On a tie the name that comes last in the alphabet is the older one.
    assert_eq!(refusal(&translator, "younger", json!({}), spec(path("a.example", "/x", "Prefix"))), None);
    let text = refusal(&translator, "old", json!({}), spec(path("a.example", "/x", "Prefix")));
    assert_eq!(text.as_deref(), Some("host \"a.example\" and path \"/x\" is already defined in ingress a/younger"));
}

#[test]
fn a_canary_shares_its_path_with_one_ingress_but_not_with_another_canary() {
    let canary = || json!({ format!("{PREFIX}/canary"): "true", format!("{PREFIX}/canary-weight"): "10" });
    let main = ingress_with("main", json!({}), spec(path("a.example", "/", "Prefix")));
    let first = ingress_with("first", canary(), spec(path("a.example", "/", "Prefix")));
    let translator = started_with(Options::default(), json!({}), [main, first]);
    let at = || spec(path("a.example", "/", "Prefix"));
    assert_eq!(refusal(&translator, "first", canary(), at()), None);
    let text = refusal(&translator, "second", canary(), at());
    assert_eq!(text.as_deref(), Some("host \"a.example\" and path \"/\" is already defined in ingress a/first"));
    let no = json!({ format!("{PREFIX}/canary"): "false" });
    assert_eq!(refusal(&translator, "new", no, at()), None, "said explicitly, it switches the check off");
    let text = refusal(&translator, "first", json!({}), at());
    assert_eq!(text.as_deref(), Some("host \"a.example\" and path \"/\" is already defined in ingress a/main"));
}

#[test]
fn an_ingress_that_is_being_deleted_keeps_nobody_from_its_paths_and_passes_itself() {
    let mut leaving = submitted("old", json!({}), spec(path("a.example", "/", "Prefix")));
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    let translator = started_with(Options::default(), json!({}), [Change::Upsert(leaving.clone().into())]);
    assert_eq!(refusal(&translator, "new", json!({}), spec(path("a.example", "/", "Prefix"))), None);
    leaving.metadata.annotations = Some([(format!("{PREFIX}/server-snippet"), "}".to_owned())].into());
    assert_eq!(translator.review(&leaving), Review::default());
}

#[test]
fn annotations_are_refused_as_their_rules_say() {
    let config = json!({ "annotations-risk-level": "Medium", "annotation-value-word-blocklist": "load_module" });
    let translator = started_with(Options::default(), config, []);
    let of = |name: &str, value: &str| {
        let annotations = json!({ format!("{PREFIX}/{name}"): value });
        refusal(&translator, "new", annotations, spec(rule("a.example")))
    };
    let text = of("configuration-snippet", "return 403;");
    let expected = format!(
        "{PREFIX}/configuration-snippet annotation cannot be used. Snippet directives are disabled by the Ingress administrator"
    );
    assert_eq!(text, Some(expected));
    assert_eq!(
        of("permanent-redirect", "load_module"),
        Some(format!("{PREFIX}/permanent-redirect annotation contains invalid word load_module"))
    );
    let risky = of("server-alias", "b.example").expect("a refusal");
    assert!(risky.starts_with(&format!("annotation {PREFIX}/server-alias is too risky for environment: ")), "{risky}");
    assert_eq!(of("proxy-body-size", "8m"), None);
}

#[test]
fn a_custom_prefix_replaces_the_usual_one() {
    let options = Options { annotations_prefix: "ours.example".to_owned(), ..Options::default() };
    let translator = started_with(options, json!({}), []);
    let of = |prefix: &str| refusal(&translator, "new", json!({ format!("{prefix}/app-root"): "/x" }), json!({}));
    let text = "This deployment has a custom annotation prefix defined. Use 'ours.example' instead of 'nginx.ingress.kubernetes.io'";
    assert_eq!(of(PREFIX).as_deref(), Some(text));
    assert_eq!(of("ours.example"), None);
}

#[test]
fn paths_catch_alls_and_suspicious_texts_are_refused_as_the_settings_say() {
    let strict = started_with(Options { disable_catch_all: true, ..Options::default() }, json!({}), []);
    let lax = started_with(
        Options { deep_inspect: false, ..Options::default() },
        json!({ "strict-validate-path-type": "false" }),
        [],
    );
    let of = |translator: &Translator, spec: Value| refusal(translator, "new", json!({}), spec);
    let odd = spec(path("a.example", "/x(.*)", "Prefix"));
    let text = "ingress contains invalid paths: path /x(.*) cannot be used with pathType Prefix";
    assert_eq!(of(&strict, odd.clone()).as_deref(), Some(text));
    assert_eq!(of(&lax, odd), None);
    assert_eq!(of(&strict, spec(path("a.example", "/x(.*)", "ImplementationSpecific"))), None);
    let attack = spec(path("a.example", "/etc/passwd", "Prefix"));
    let refused = of(&strict, attack.clone()).expect("a refusal");
    assert!(refused.starts_with("invalid object: spec.rules[0].http.paths[0].path: "), "{refused}");
    assert_eq!(of(&lax, attack), None);
    let catch_all = json!({ "defaultBackend": { "service": { "name": "web", "port": { "number": 80 } } } });
    assert!(of(&strict, catch_all.clone()).is_some_and(|text| text.contains("DisableCatchAll")));
    assert_eq!(of(&lax, catch_all), None);
}

#[test]
fn others_pass_and_what_only_loses_something_is_a_warning() {
    let translator = started_with(Options::default(), json!({}), []);
    let mut theirs = submitted("new", json!({}), spec(path("a.example", "/etc/passwd", "Prefix")));
    theirs.spec.get_or_insert_default().ingress_class_name = Some("other".to_owned());
    assert_eq!(translator.review(&theirs), Review::default());
    let annotations = json!({ format!("{PREFIX}/proxy-read-timeout"): "soon", format!("{PREFIX}/nonsense"): "1" });
    let Review { refusal, warnings } = translator.review(&submitted("new", annotations, spec(rule("a.example"))));
    assert_eq!(refusal, None);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.starts_with("metadata.annotations[")), "{warnings:?}");
    let many: serde_json::Map<_, _> = (0..200).map(|at| (format!("{PREFIX}/x{at}"), json!("é".repeat(600)))).collect();
    let Review { warnings, .. } = translator.review(&submitted("new", many.into(), spec(rule("a.example"))));
    assert!(warnings.len() <= 17 && warnings.iter().all(|warning| warning.chars().count() <= 256), "{warnings:?}");
}
