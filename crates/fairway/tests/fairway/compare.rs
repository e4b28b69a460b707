//! `fairway compare` between two addresses, as its user runs it: fakes for requests that it must never send, and a real nginx, configured
//! as ingress-nginx's template does, beside `fairway dev`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support;
use crate::support::nginx::Nginx;
use crate::support::{Dev, run, text};
use fairway_testkit::{Ca, Origin, Reply};
use serde_json::Value;

/// Runs the command to its end. Origins and the proxy need the other threads meanwhile.
async fn compare(args: &[&str]) -> Output {
    let args: Vec<_> = std::iter::once("compare").chain(args.iter().copied()).map(str::to_owned).collect();
    tokio::task::spawn_blocking(move || run(args)).await.expect("it runs")
}

/// The JSON report, which conforms to its schema, and the exit status.
async fn report(args: &[&str]) -> (Value, Option<i32>) {
    let output = compare(&[args, &["--output", "json", "--rate", "1000"]].concat()).await;
    let report: Value = serde_json::from_str(&text(&output)).unwrap_or_else(|_| panic!("{output:?}"));
    let schema =
        serde_json::from_str(include_str!("../../../../docs/schema/compare.json")).expect("the schema is JSON");
    support::schema::validate(&schema, &report).unwrap_or_else(|wrong| panic!("{wrong} in {report:#}"));
    (report, output.status.code())
}

/// The aspects of all differences, with the Ingress: `shop/web status`.
fn found(report: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for group in report["differences"].as_array().expect("a list") {
        let ingress = group["ingress"]["name"].as_str().unwrap_or("none");
        for change in group["changes"].as_array().expect("a list") {
            let name = change["name"].as_str().map(|name| format!(" {name}")).unwrap_or_default();
            found.insert(format!("{ingress} {}{name}", change["kind"].as_str().expect("a text")));
        }
    }
    found
}

/// Writes a file, and returns its path as text.
fn write(folder: &Path, name: &str, content: &str) -> String {
    let path: PathBuf = folder.join(name);
    fs::write(&path, content).expect("the file can be written");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn address(origin: &Origin) -> String {
    origin.address().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_answers_are_no_difference_and_one_connection_is_kept() {
    let reply = |date: &str| Reply::ok().header("date", date).header("server", date).body("hello");
    let (old, new) = (Origin::new("old").reply(reply("1")).start(), Origin::new("new").reply(reply("2")).start());
    let folder = tempfile::tempdir().unwrap();
    let list =
        write(folder.path(), "list", "# mine\nhttp://a.example/x?y\n\nHEAD http://b.example/z\nhttp://a.example/x?y\n");
    let output = compare(&[&address(&old), &address(&new), "--requests", &list, "-H", "Accept: a/b"]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output).ends_with(": no difference\n"), "{}", text(&output));
    for origin in [&old, &new] {
        let seen: Vec<_> =
            origin.seen().iter().map(|request| format!("{} {}", request.method, request.target)).collect();
        assert_eq!(seen, ["GET /x?y", "HEAD /z"]);
        let request = &origin.seen()[0];
        assert_eq!((request.header("host"), request.header("accept")), (Some("a.example"), Some("a/b")));
        // One connection for the probe, one for the requests.
        assert_eq!(origin.connections(), 2);
    }
    assert_eq!(
        compare(&[&address(&old), &address(&new), "--requests", &list, "--strict"]).await.status.code(),
        Some(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_compared_and_never_followed() {
    let elsewhere = Origin::start("elsewhere");
    let to = |path: &str| Reply::redirect(302, &format!("http://{}{path}", elsewhere.address()));
    let (old, new) = (Origin::new("old").reply(to("/a")).start(), Origin::new("new").reply(to("/b")).start());
    let folder = tempfile::tempdir().unwrap();
    let list = write(folder.path(), "list", "http://a.example/\n");
    let (report, code) = report(&[&address(&old), &address(&new), "--requests", &list]).await;
    assert_eq!((code, found(&report)), (Some(1), ["none location".to_owned()].into()), "{report:#}");
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_the_old_address_is_not_compared() {
    let counter = std::sync::atomic::AtomicUsize::new(0);
    let fresh = move |_: &fairway_testkit::Request| {
        let number = counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Reply::ok().header("x-nonce", number.to_string()).header("x-same", "1").body(format!("page {number}"))
    };
    let old = Origin::new("old").reply_with(fresh).start();
    let new =
        Origin::new("new").reply(Reply::ok().header("x-nonce", "none").header("x-same", "2").body("page")).start();
    let folder = tempfile::tempdir().unwrap();
    let list = write(folder.path(), "list", "http://a.example/\n");
    let (report, code) = report(&[&address(&old), &address(&new), "--requests", &list]).await;
    assert_eq!((code, found(&report)), (Some(1), ["none field x-same".to_owned()].into()), "{report:#}");
    assert_eq!(report["unsteady"][0]["parts"].as_array().map(Vec::len), Some(2), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_replayed_without_its_credentials_and_without_unsafe_methods() {
    let (old, new) = (Origin::start("old"), Origin::start("new"));
    let folder = tempfile::tempdir().unwrap();
    let log = write(
        folder.path(),
        "access.log",
        "10.0.0.9 - alice [10/Oct/2026:13:55:36 +0000] \"GET /a?token=s3cr3t HTTP/2.0\" 200 1 \"-\" \"x\" 1 0.0 [shop-web-80] [] - - - - f\n\
         10.0.0.9 - - [10/Oct/2026:13:55:36 +0000] \"POST /b HTTP/1.1\" 200 1 \"-\" \"x\"\n\
         {\"method\":\"GET\",\"scheme\":\"http\",\"host\":\"b.example\",\"path\":\"/c/eyJhbGciOiJIUzI1NiJ9.e30\",\"status\":200}\n\
         {\"method\":\"GET\",\"scheme\":\"http\",\"host\":\"b.example\",\"path\":\"/d\",\"status\":200,\"authorization\":\"Basic YTpi\"}\n\
         not a request\n",
    );
    let (report, _) = report(&[&address(&old), &address(&new), "--log", &log, "--host", "a.example"]).await;
    let seen: Vec<_> =
        new.seen().iter().map(|it| format!("{} {}", it.header("host").unwrap_or(""), it.target)).collect();
    assert_eq!(seen, ["a.example /a?token=redacted", "b.example /d"], "{report:#}");
    assert!(new.seen().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(report["redacted"], 1);
    let reasons = report["not_sent"].to_string();
    for reason in ["POST is not among --methods", "credential", "known format"] {
        assert!(reasons.contains(reason), "{reason} in {reasons}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_up_to_the_bound() {
    let body = |end: &str| Reply::ok().body(format!("{}{end}", "x".repeat(300_000)));
    let (old, new) = (Origin::new("old").reply(body("a")).start(), Origin::new("new").reply(body("b")).start());
    let folder = tempfile::tempdir().unwrap();
    let list = write(folder.path(), "list", "http://a.example/\nhttp://a.example/2\n");
    let args = [&*address(&old), &*address(&new), "--requests", &list];
    let (whole, _) = report(&args).await;
    assert_eq!(found(&whole), ["none body".to_owned()].into());
    let (part, code) = report(&[&args[..], &["--max-body", "1000"]].concat()).await;
    assert_eq!((code, found(&part)), (Some(0), BTreeSet::new()), "{part:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_does_not_answer_is_named() {
    let (old, new) = (Origin::start("old"), Origin::start("new"));
    let folder = tempfile::tempdir().unwrap();
    let list = write(folder.path(), "list", "http://a.example/\n");
    new.stop_listening();
    let output = compare(&[&address(&old), &address(&new), "--requests", &list]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&format!("NEW, {}", new.address())) && error.contains("kubectl get service"), "{error}");
    let mute = Origin::new("mute").reply(Reply::nothing().then_stall()).start();
    let (report, code) = report(&[&address(&old), &address(&mute), "--requests", &list, "--timeout", "0.2"]).await;
    assert_eq!((code, found(&report)), (Some(1), ["none answer".to_owned()].into()), "{report:#}");
}

#[tokio::test]
async fn a_wrong_command_line_says_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = write(folder.path(), "wrong", "GET /x\n");
    let odd = write(folder.path(), "odd", "a line\nanother\n");
    for (args, expected) in [
        (&["127.0.0.1:1", "127.0.0.1:2"][..], "PATH"),
        (&["http://127.0.0.1", "127.0.0.1:2", "--requests", &wrong], "127.0.0.1:8080,8443"),
        (&["127.0.0.1:1", "127.0.0.1:2", "--requests", &wrong], "wrong:1: \"/x\""),
        (&["127.0.0.1:1", "127.0.0.1:2", "--log", &odd], "odd:1: expected an access log"),
        (&["127.0.0.1:1", "127.0.0.1:2", "--requests", &wrong, "-H", "Host: x"], "name another"),
        (&["127.0.0.1:1", "127.0.0.1:2", "--rate", "0", "--requests", &wrong], "0.001"),
    ] {
        let output = compare(args).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expected), "{expected} in {error}");
    }
}

/// An Ingress of the namespace `shop` for HOST.example, and its Service.
fn ingress(name: &str, annotations: &[(&str, &str)], tls: bool, paths: &[(&str, &str)]) -> String {
    let mut out =
        format!("---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  namespace: shop\n");
    if !annotations.is_empty() {
        out += "  annotations:\n";
    }
    for (name, value) in annotations {
        out += &format!("    nginx.ingress.kubernetes.io/{name}: '{value}'\n");
    }
    out += "spec:\n  ingressClassName: nginx\n";
    if tls {
        out += &format!("  tls:\n  - hosts: [{name}.example]\n");
    }
    out += &format!("  rules:\n  - host: {name}.example\n    http:\n      paths:\n");
    for (path, kind) in paths {
        out += &format!(
            "      - {{path: '{path}', pathType: {kind}, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}\n"
        );
    }
    out
}

const SERVICE: &str =
    "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
/// In locations only: responses sent before a location is chosen lack the field.
const HSTS: &str = "add_header Strict-Transport-Security $hsts always;";
const ANY: &str = "ImplementationSpecific";

/// Ingresses that both proxies serve in the same way.
fn sound() -> String {
    [
        ingress("plain", &[], false, &[("/", "Prefix"), ("/order", "Prefix"), ("/exact", "Exact")]),
        ingress("part", &[], false, &[("/dir/", "Prefix")]),
        ingress("secure", &[], true, &[("/", "Prefix")]),
        ingress("moved", &[("permanent-redirect", "https://new.example/x")], false, &[("/", "Prefix")]),
        ingress("rewritten", &[("rewrite-target", "/$2"), ("use-regex", "true")], false, &[("/api(/|$)(.*)", ANY)]),
        ingress("inner", &[("whitelist-source-range", "10.0.0.0/8")], false, &[("/", "Prefix")]),
        ingress("rooted", &[("app-root", "/app")], false, &[("/", "Prefix")]),
        SERVICE.to_owned(),
    ]
    .concat()
}

/// The servers of these Ingresses in nginx, as ingress-nginx's template writes them. Directives with the same effect replace its Lua code.
fn servers(edit: impl Fn(&str) -> String) -> String {
    let proxy = "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Host $http_host; proxy_pass http://upstream_balancer; \
                 proxy_redirect off;";
    let location = |matching: &str, before: &str| format!("location {matching} {{ {HSTS} {before} {proxy} }}\n");
    let server =
        |name: &str, locations: String| format!("server {{ server_name {name}.example; LISTEN {locations} }}\n");
    let default = format!("location / {{ {HSTS} return 404; }}\n");
    let all = [
        server(
            "plain",
            location("/order/", "") + &location("= /order", "") + &location("= /exact", "") + &location("/", ""),
        ),
        server("part", location("/dir/", "") + &default),
        server("secure", location("/", "if ($scheme = http) { return 308 https://$host$target_uri; }")),
        server("moved", location("/", "return 301 https://new.example/x;")),
        server(
            "rewritten",
            location("~* \"^/api(/|$)(.*)\"", "rewrite \"(?i)/api(/|$)(.*)\" /$2 break;")
                + &format!("location ~* \"^/\" {{ {HSTS} return 404; }}\n"),
        ),
        server("inner", location("/", "allow 10.0.0.0/8; deny all;")),
        server("rooted", "if ($uri = /) { return 302 $scheme://$http_host/app; }\n".to_owned() + &location("/", "")),
    ];
    edit(&all.concat())
}

/// The backend of all Ingresses: its response shows the parts of the request on which both proxies must agree.
fn backend() -> Origin {
    let answer = |request: &fairway_testkit::Request| {
        let seen = format!("{} {} {:?}", request.method, request.target, request.header("host"));
        Reply::ok().header("content-type", "text/plain").header("x-backend", "web").body(seen)
    };
    Origin::new("web").reply_with(answer).start()
}

struct Pair {
    nginx: Nginx,
    dev: Dev,
    _backend: Origin,
    folder: tempfile::TempDir,
    manifests: String,
}

impl Pair {
    /// nginx with `servers`, and Fairway with `manifests`.
    fn start(servers: &str, manifests: &str) -> Self {
        let backend = backend();
        let folder = tempfile::tempdir().expect("a folder");
        let nginx = Nginx::start(folder.path(), servers, backend.address(), &Ca::new("x").leaf(&["old.example"]));
        let path = write(folder.path(), "ingresses.yaml", manifests);
        let dev = Dev::start([path.as_str(), &format!("--backend=shop/web:80={}", backend.address())]);
        Self { nginx, dev, _backend: backend, folder, manifests: path }
    }

    /// Both addresses.
    fn addresses(&self) -> [String; 2] {
        let dev = format!("{},{}", self.dev.http, self.dev.https.port());
        [format!("{},{}", self.nginx.http, self.nginx.https.port()), dev]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_everywhere_is_shown_once_and_fields_of_the_user_never() {
    let reply = |value: &str| Reply::ok().header("x-a", value).body("hello");
    let (old, new) = (Origin::new("old").reply(reply("1")).start(), Origin::new("new").reply(reply("2")).start());
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let ingresses: String = names.iter().map(|name| ingress(name, &[], false, &[("/", "Prefix")])).collect();
    let manifests = write(folder.path(), "ingresses.yaml", &(ingresses + SERVICE));
    let args = ["-H", "Authorization: Basic s3cr3t", "--rate", "1000"];
    let (from, to) = (address(&old), address(&new));
    let args = [&[&*from, &*to, &*manifests], &args[..]].concat();
    let page = text(&compare(&args).await);
    assert!(page.starts_with("5 Ingresses\n  field x-a  old: 1  new: 2  ("), "{page}");
    assert!(!page.contains("Ingress shop/") && !page.contains("s3cr3t"), "{page}");
    assert!(new.seen().iter().all(|request| request.header("authorization") == Some("Basic s3cr3t")));
    let json = text(&compare(&[&args[..], &["--output", "json"]].concat()).await);
    assert!(json.contains("\"x-a\"") && !json.contains("s3cr3t"), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_and_fairway_answer_the_same_for_sound_ingresses() {
    let pair = Pair::start(&servers(str::to_owned), &sound());
    let [old, new] = pair.addresses();
    let (report, code) = report(&[&old, &new, &pair.manifests]).await;
    assert_eq!((code, found(&report)), (Some(0), BTreeSet::new()), "{report:#}");
    assert!(report["requests"].as_u64().is_some_and(|requests| requests > 80), "{report:#}");
    assert_eq!(report["same"], report["requests"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_found_and_belongs_to_its_ingress_and_annotation() {
    // nginx represents the intended behaviour, which the Ingresses have partly lost.
    let servers = servers(|text| {
        let (plain, others) = text.split_once("server_name part.example").expect("the second server");
        format!(
            "{}server_name part.example{others}",
            plain.replace(HSTS, &format!("{HSTS} add_header X-Frame-Options DENY;"))
        )
    });
    let manifests = sound()
        .replace("rewrite-target: '/$2'", "rewrite-target: '/v1/$2'")
        .replace("https://new.example/x", "https://new.example/y")
        .replace("{path: '/dir/', pathType: Prefix", "{path: '/dir/', pathType: Exact")
        .replace("10.0.0.0/8'", "127.0.0.0/8'\n    nginx.ingress.kubernetes.io/enable-modsecurity: 'true'");
    let pair = Pair::start(&servers, &manifests);
    let [old, new] = pair.addresses();
    let (report, code) = report(&[&old, &new, &pair.manifests]).await;
    let expected = ["plain field x-frame-options", "rewritten body", "moved location", "inner status", "part status"];
    assert_eq!((code, found(&report)), (Some(1), expected.map(str::to_owned).into()), "{report:#}");
    let group = |name: &str| {
        let mut groups = report["differences"].as_array().expect("a list").iter();
        groups.find(|group| group["ingress"]["name"] == name).unwrap_or_else(|| panic!("{name} in {report:#}"))
    };
    let names = |name: &str| group(name)["annotations"].to_string();
    assert!(names("rewritten").contains("rewrite-target"), "{report:#}");
    assert_eq!(group("rewritten")["known"], false);
    assert_eq!(group("moved")["annotations"][0]["name"], "permanent-redirect");
    assert_eq!(group("plain")["annotations"], Value::Array(Vec::new()));
    let inner = group("inner");
    assert_eq!((&inner["known"], &inner["annotations"][0]["name"]), (&true.into(), &"enable-modsecurity".into()));
    assert_eq!(inner["annotations"][0]["verdict"], "refused");
    assert!(group("plain")["file"].as_str().is_some_and(|file| file.ends_with("ingresses.yaml")));
    assert_eq!(report["documented"][0]["name"], "exact-slash", "{report:#}");

    let output = compare(&[&old, &new, &pair.manifests, "--rate", "1000"]).await;
    let page = text(&output);
    for line in [
        "Ingress shop/rewritten  ",
        "  body  old: ",
        "rewrite-target (same)",
        "known: enable-modsecurity refused: ",
        "GET https://rewritten.example/api\n",
        ", from byte 5 \"v1/",
        &format!("Next: fairway explain {} GET '", pair.manifests),
    ] {
        assert!(page.contains(line), "{line:?} in\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_ingress_nginx_is_replayed_at_the_hosts_that_the_ingresses_name() {
    let pair = Pair::start(&servers(str::to_owned), &sound());
    let [old, new] = pair.addresses();
    let line = |request: &str, status: u16| {
        format!(
            "127.0.0.1 - - [10/Oct/2026:13:55:36 +0000] \"{request} HTTP/1.1\" {status} 1 \"-\" \"curl\" 80 0.001 [shop-web-80] [] \
             127.0.0.1:80 1 0.001 {status} 0f\n"
        )
    };
    let lines = [line("GET /order/7?a=b", 200), line("GET /dir/x", 200), line("GET /api/v1", 200)].concat();
    let log = write(pair.folder.path(), "access.log", &lines);
    let (report, code) = report(&[&old, &new, &pair.manifests, "--log", &log]).await;
    assert_eq!((code, found(&report)), (Some(0), BTreeSet::new()), "{report:#}");
    assert!(report["requests"].as_u64().is_some_and(|requests| requests >= 3), "{report:#}");
    assert_eq!(report["not_sent"], Value::Array(Vec::new()), "{report:#}");
}
