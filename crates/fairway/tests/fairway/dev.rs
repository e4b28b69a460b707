//! `fairway dev` as an author of manifests uses it.

use std::fs;
use std::path::Path;

use crate::support::{Dev, example, fairway};
use fairway_testkit::{Client, Origin, Reply, TlsClient, eventually};

fn ingress(name: &str, host: &str, class: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{class}  \
         rules:\n  - host: {host}\n    http:\n      paths:\n      - path: /\n        pathType: Prefix\n        \
         backend: {{service: {{name: {name}, port: {{number: 80}}}}}}\n"
    )
}

fn write(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("the file can be written");
}

#[tokio::test]
async fn a_saved_edit_is_live_and_told() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &ingress("web", "a.example", ""));
    let mut dev = Dev::start([folder.path()]);
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80");

    write(folder.path(), "a.yaml", &(ingress("web", "a.example", "") + &ingress("api", "b.example", "")));
    let live = dev.line_with(" live in ");
    assert!(live.starts_with("1 change live in ") && live.ends_with(" ms"), "{live}");
    let added = dev.line_with("+ b.example/");
    assert!(added.contains("shop/api:80 (echo)"), "{added}");
    assert_eq!(dev.service("b.example", "/").await, "shop/api:80");

    // As editors do: rename a new file over the old one.
    write(folder.path(), ".a.yaml.new", &ingress("api", "b.example", ""));
    fs::rename(folder.path().join(".a.yaml.new"), folder.path().join("a.yaml")).unwrap();
    dev.line_with("- a.example/");
    assert_eq!(dev.service("a.example", "/").await, "404");

    write(folder.path(), "new.json", &serde_json_of(&ingress("late", "c.example", "")));
    dev.line_with("+ c.example/");
    fs::remove_file(folder.path().join("new.json")).unwrap();
    dev.line_with("- c.example/");
}

/// The same Ingress as JSON.
fn serde_json_of(yaml: &str) -> String {
    assert!(yaml.contains("name: late"));
    r#"{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "late", "namespace": "shop"},
        "spec": {"rules": [{"host": "c.example", "http": {"paths": [{"path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "late", "port": {"number": 80}}}}]}}]}}"#
        .to_owned()
}

#[tokio::test]
async fn the_echo_answers_tls_that_passes_through() {
    let folder = tempfile::tempdir().unwrap();
    let annotations = ", namespace: shop, annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: 'true'}}";
    let manifest = ingress("web", "a.example", "").replacen(", namespace: shop}", annotations, 1);
    write(folder.path(), "a.yaml", &manifest);
    let dev = Dev::start(["--enable-ssl-passthrough".as_ref(), folder.path().as_os_str()]);
    let mut client = TlsClient::unverified("a.example").connect(dev.https).await;
    let text = client.get("a.example", "/x").await.text();
    assert!(text.starts_with("Service behind TLS for a.example\n\nGET /x HTTP/1.1\n"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_broken_keeps_its_last_good_content() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &ingress("web", "a.example", ""));
    let mut dev = Dev::start([folder.path()]);
    write(folder.path(), "a.yaml", "apiVersion: networking.k8s.io/v1\nkind: [Ingress\n");
    let told = dev.line_with("a.yaml:");
    assert!(told.contains("error") && told.contains("last good content"), "{told}");
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80");
    write(folder.path(), "a.yaml", &ingress("web", "b.example", ""));
    dev.line_with("+ b.example/");
    dev.line_with("cleared");
    assert_eq!(dev.service("a.example", "/").await, "404");
}

#[tokio::test]
async fn an_object_that_the_api_server_refuses_keeps_its_last_good_form() {
    let folder = tempfile::tempdir().unwrap();
    let (web, api) = (ingress("web", "a.example", ""), ingress("api", "b.example", ""));
    write(folder.path(), "a.yaml", &(web.clone() + &api));
    let mut dev = Dev::start([folder.path()]);
    for (from, to, told) in [
        ("pathType: Prefix", "pathType: prefix", "pathType: \"prefix\": Unsupported value"),
        ("a.example", "A.example", "host: \"A.example\": Invalid value"),
        ("number: 80", "number: 80, name: http", "backend: Invalid value: cannot set both port name & port number"),
    ] {
        write(folder.path(), "a.yaml", &(web.replace(from, to) + &api));
        dev.line_with(told);
        assert_eq!(dev.service("a.example", "/").await, "shop/web:80", "{to}");
        write(folder.path(), "a.yaml", &(web.clone() + &api));
        dev.line_with("cleared");
    }
}

#[tokio::test]
async fn a_local_process_can_stand_in_for_a_service() {
    let origin = Origin::new("mine").reply(Reply::ok().body("from my process")).start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &(ingress("web", "a.example", "") + &ingress("api", "b.example", "")));
    let backend = format!("--backend=shop/web:80={}", origin.address());
    let dev = Dev::start([folder.path().as_os_str(), backend.as_ref()]);
    assert_eq!(dev.get("a.example", "/").await.text(), "from my process");
    assert_eq!(dev.service("b.example", "/").await, "shop/api:80");
    let request = origin.next_request().await;
    assert!(request.headers().iter().all(|(name, _)| !name.to_lowercase().contains("fairway")), "{request:?}");
}

#[tokio::test]
async fn tcp_services_are_served_and_follow_their_config_map() {
    let origin = Origin::new("mine").reply(Reply::ok().body("over a port")).start();
    let folder = tempfile::tempdir().unwrap();
    let config_map = |port: u16| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: tcp, namespace: edge}}\ndata: {{\"{port}\": \"shop/db:5432\", \
             \"x\": \"y\"}}\n"
        )
    };
    // Ports that are free now; no other test in this binary binds fixed ones.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (first, second) = (free(), free());
    write(folder.path(), "a.yaml", &config_map(first));
    let backend = format!("--backend=shop/db:5432={}", origin.address());
    let flag = "--tcp-services-configmap=edge/tcp";
    let mut dev = Dev::start([folder.path().as_os_str(), backend.as_ref(), flag.as_ref()]);
    dev.line_with(&format!("tcp   on 127.0.0.1:{first} → shop/db:5432/tcp"));
    assert!(dev.greeting.contains("expected a port from 1 to 65535"), "{}", dev.greeting);
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(Client::connect(at(first)).await.get("any.example", "/").await.text(), "over a port");
    write(folder.path(), "a.yaml", &config_map(second));
    dev.line_with(&format!("127.0.0.1:{second}"));
    assert_eq!(Client::connect(at(second)).await.get("any.example", "/").await.text(), "over a port");
    assert!(Client::try_connect(at(first)).await.is_err());
}

#[tokio::test]
async fn without_echo_a_service_without_endpoints_is_unavailable() {
    let dev = Dev::start([example("shop").as_os_str(), "--no-echo".as_ref()]);
    assert_eq!(dev.service("shop.localhost", "/").await, "503");
    assert!(dev.greeting.contains("no endpoints: 503"), "{}", dev.greeting);
}

#[tokio::test]
async fn ingresses_of_other_classes_are_listed_and_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let classes = [
        ("none", ""),
        ("ours", "  ingressClassName: nginx\n"),
        ("other", "  ingressClassName: alb\n"),
        ("named", "  ingressClassName: mine\n"),
    ];
    let mut text = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: mine}\nspec: {controller: k8s.io/ingress-nginx}\n".to_owned();
    for (name, class) in classes {
        text.push_str(&ingress(name, &format!("{name}.example"), class));
    }
    write(folder.path(), "a.yaml", &text);
    let dev = Dev::start([folder.path()]);
    for (name, service) in
        [("none", "shop/none:80"), ("ours", "shop/ours:80"), ("other", "404"), ("named", "shop/named:80")]
    {
        assert_eq!(dev.service(&format!("{name}.example"), "/").await, service);
    }
    assert!(
        dev.greeting.contains("Ingress shop/other: spec.ingressClassName: \"alb\": not served"),
        "{}",
        dev.greeting
    );
}

#[tokio::test]
async fn the_global_configmap_and_flags_are_looked_up_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: global, namespace: ops}\ndata: {force-ssl-redirect: \"true\"}\n";
    write(folder.path(), "a.yaml", &(ingress("web", "a.example", "") + settings));
    assert_eq!(Dev::start([folder.path()]).get("a.example", "/").await.status, 200);
    let dev = Dev::start([folder.path().as_os_str(), "--configmap=ops/global".as_ref()]);
    assert_eq!(dev.get("a.example", "/").await.status, 308);
    // A missing ConfigMap is reported, and used once it exists.
    let mut dev = Dev::start([folder.path().as_os_str(), "--configmap=ops/other".as_ref()]);
    assert!(dev.greeting.contains("warning: ConfigMap ops/other: --configmap: "), "{}", dev.greeting);
    write(folder.path(), "b.yaml", &settings.replace("name: global", "name: other"));
    dev.line_with("cleared");
    assert_eq!(dev.get("a.example", "/").await.status, 308);
}

#[tokio::test]
async fn the_redirect_to_https_leads_to_the_port_in_use() {
    let dev = Dev::start([example("tls")]);
    let redirect = dev.get("bank.localhost", "/login").await;
    assert_eq!(redirect.status, 308);
    assert_eq!(redirect.header("location"), Some(&*format!("https://bank.localhost:{}/login", dev.https.port())));
}

#[tokio::test]
async fn backends_are_told_the_port_that_clients_ask() {
    let dev = Dev::start([example("tls")]);
    let mut client = TlsClient::unverified("bank.localhost").connect(dev.https).await;
    let echoed = client.get("bank.localhost", "/").await.text();
    assert!(echoed.contains(&format!("X-Forwarded-Port: {}", dev.https.port())), "{echoed}");
}

#[tokio::test]
async fn requests_are_shown_as_asked_for() {
    let mut dev = Dev::start([example("shop")]);
    dev.get("shop.localhost", "/order").await;
    let line = dev.line_with("GET http://shop.localhost/order");
    assert!(line.starts_with("200 "), "{line}");

    let mut dev = Dev::start([example("shop").as_os_str(), "--access-log=json".as_ref()]);
    dev.get("shop.localhost", "/a\"b").await;
    dev.get("shop.localhost", "/a").await;
    let json: serde_json::Value = serde_json::from_str(&dev.line_with("\"path\":\"/a\"")).expect("a line of JSON");
    assert_eq!((json["status"].as_u64(), json["route"].as_str()), (Some(200), Some("default/shop#/a")));
    assert!(json["bytes_in"].as_u64() > Some(0) && json["duration"].is_number(), "{json}");
    assert_eq!(json["upstream_status"], serde_json::json!([200]));

    let mut dev = Dev::start([example("shop").as_os_str(), "--access-log=<$request_uri>".as_ref()]);
    dev.get("shop.localhost", "/x").await;
    assert_eq!(dev.line_with("</x>"), "</x>");
}

#[tokio::test]
async fn the_admin_listener_answers_and_shows_no_secrets() {
    let dev = Dev::start([example("tls")]);
    let mut admin = Client::connect(dev.admin).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(admin.get("x", path).await.status, 200, "{path}");
    }
    let dump = admin.get("x", "/debug/snapshot").await.text();
    assert!(dump.contains("bank.localhost") && dump.contains("[redacted]"), "{dump}");
    assert_eq!(admin.get("x", "/metrics").await.status, 200);
}

#[tokio::test]
async fn the_admin_listener_lists_and_counts_what_was_found() {
    let folder = tempfile::tempdir().unwrap();
    let annotated = ingress("web", "a.example", "").replace(
        "namespace: shop}",
        "namespace: shop, annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: soon}}",
    );
    write(folder.path(), "a.yaml", &annotated);
    let mut dev = Dev::start([folder.path()]);
    let found = Client::connect(dev.admin).await.get("x", "/debug/findings").await.text();
    assert!(found.contains("proxy-read-timeout") && found.contains(r#""name": "web""#), "{found}");
    let counted = Client::connect(dev.admin).await.get("x", "/metrics").await.text();
    assert!(counted.lines().any(|line| line.starts_with("fairway_findings{") && line.ends_with(" 1")), "{counted}");
    write(folder.path(), "a.yaml", &ingress("web", "a.example", ""));
    dev.line_with("cleared");
    let found = Client::connect(dev.admin).await.get("x", "/debug/findings").await.text();
    assert_eq!(found, "[]");
}

#[tokio::test]
async fn a_port_that_another_program_has_is_told_and_opened_once_it_is_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ports = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: tcp, namespace: shop}}\ndata: {{'{}': 'shop/web:80'}}\n",
        address.port()
    );
    write(folder.path(), "ports.yaml", &ports);
    write(folder.path(), "a.yaml", &ingress("web", "a.example", ""));
    let mut dev = Dev::start([folder.path().as_os_str(), "--tcp-services-configmap=shop/tcp".as_ref()]);
    let told = dev.line_with(&format!("cannot listen on {address}"));
    assert!(told.contains("end the program that has it"), "{told}");
    assert_eq!(dev.service("a.example", "/").await, "shop/web:80", "the others are served");
    drop(taken);
    dev.line_with(&format!("now listening on {address}"));
}

#[tokio::test]
async fn it_ends_when_it_is_told_to_and_finishes_what_runs() {
    let origin = Origin::new("slow").reply(Reply::ok().body("done")).start();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", &ingress("web", "a.example", ""));
    let backend = format!("--backend=shop/web:80={}", origin.address());
    let dev = Dev::start([folder.path().as_os_str(), backend.as_ref()]);
    let mut client = Client::connect(dev.http).await;
    assert_eq!(client.get("a.example", "/").await.status, 200);
    let http = dev.http;
    // These signals would end a process that doesn't handle them.
    ["-HUP", "-USR1", "-USR2"].iter().for_each(|name| dev.signal(name));
    assert!(dev.terminate().success());
    eventually("the port is free", || async { Client::try_connect(http).await.is_err() }).await;
}

#[test]
fn what_cannot_be_started_says_why_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let shop = example("shop");
    for (args, code, part) in [
        (vec!["--http", &address], 1, "choose other addresses with --http, --https and --admin"),
        (vec!["--access-log", "jsn"], 2, "did you mean json?"),
        (vec!["--backend", "web:80"], 2, "NAMESPACE/SERVICE:PORT=HOST:PORT"),
        (vec!["--configmap", "x"], 2, "NAMESPACE/NAME"),
        (vec!["--no-such-flag"], 2, "--help"),
        (vec!["/no/such/folder"], 2, "/no/such/folder"),
    ] {
        let output = fairway().arg("dev").arg(&shop).args(&args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_is_emptied_is_told_by_the_name_that_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("manifests")).unwrap();
    let file = Path::new("manifests").join("a.yaml");
    for root in ["manifests", "./manifests", ".", "manifests/a.yaml"] {
        write(folder.path(), "manifests/a.yaml", &ingress("web", "a.example", ""));
        let mut dev = Dev::start_in(folder.path(), [root]);
        drop(fs::File::create(folder.path().join(&file)).unwrap());
        dev.line_with("- a.example/");
        let told = dev.line_with("the file is now empty");
        assert!(told.contains("a.yaml: warning: "), "{root}: {told}");
        assert_eq!(dev.service("a.example", "/").await, "404", "{root}");
        write(folder.path(), "manifests/a.yaml", &ingress("web", "b.example", ""));
        dev.line_with("cleared");
    }
}

#[tokio::test]
async fn a_folder_without_manifests_is_told_until_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start([folder.path()]);
    assert!(
        dev.greeting.contains("warning: ") && dev.greeting.contains("there is no manifest here"),
        "{}",
        dev.greeting
    );
    write(folder.path(), "a.yaml", &ingress("web", "a.example", ""));
    dev.line_with("cleared");
}

#[tokio::test]
async fn services_that_no_file_has_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        "---\n{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {ports: [{port: 80}]}}\n";
    write(folder.path(), "a.yaml", &(ingress("web", "a.example", "") + &ingress("api", "b.example", "") + service));
    let dev = Dev::start([folder.path()]);
    assert!(dev.greeting.contains("Services that the files lack: shop/web; the echo answers"), "{}", dev.greeting);
}

#[tokio::test]
async fn a_request_for_no_backend_is_shown_as_that() {
    let mut dev = Dev::start([example("shop")]);
    dev.get("nobody.localhost", "/x").await;
    let line = dev.line_with("GET http://nobody.localhost/x");
    assert!(line.starts_with("404 GET http://nobody.localhost/x > no backend "), "{line}");
}

#[tokio::test]
async fn wildcards_are_shown_as_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let aliased = ingress("web", "a.example", "").replace(
        "namespace: shop}",
        "namespace: shop, annotations: {nginx.ingress.kubernetes.io/server-alias: '*.b.example'}}",
    );
    write(folder.path(), "a.yaml", &aliased);
    let mut dev = Dev::start([folder.path()]);
    assert!(dev.greeting.contains("http://*.b.example:"), "{}", dev.greeting);
    write(folder.path(), "a.yaml", &aliased.replace("*.b", "*.c"));
    dev.line_with("+ *.c.example/");
}
