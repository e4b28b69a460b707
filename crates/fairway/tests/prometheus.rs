//! The chart's rules and dashboard in a real Prometheus that scrapes a Fairway under traffic: each query finds something. `cargo xtask
//! alerts` runs this.

mod support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use fairway_testkit::{Ca, Client, Fault, Origin, Reply, Request, eventually};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use support::fairway;
use support::run::Run;
use tempfile::TempDir;

/// The host for each kind of outcome, which also names its Ingress and its Service.
const HOSTS: [&str; 3] = ["good", "refused", "missing"];

/// Rules that become at least pending because of the traffic here.
const WAITING: [&str; 5] = [
    "FairwayBackendUnreachable",
    "FairwayIngressErrors",
    "FairwayObjectErrors",
    "FairwayRequestsUnserved",
    "FairwayRoutesWithoutBackend",
];

/// Values that Grafana inserts for variables. A label must exist to match.
const VARIABLES: [(&str, &str); 6] = [
    ("$controller_namespace", ".+"),
    ("$controller_class", ".+"),
    ("$controller_pod", ".+"),
    ("$namespace", ".+"),
    ("$ingress", ".+"),
    ("$__rate_interval", "10s"),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_and_the_rules_finds_something() {
    let (good, refused) = (Origin::start("good"), Origin::new("refused").fault(Fault::Refuse).start());
    let stream = free_port();
    let api = api_server(good.address(), refused.address(), stream);
    let mut command = fairway();
    command.env("POD_NAME", "fairway-0").env("POD_NAMESPACE", "edge");
    let mut run = Run::start_as(command, api.address(), &["--tcp-services-configmap=edge/tcp"]);
    let http = run.serving();
    // Metrics of controllers and proxies need two processes.
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("control.sock");
    let _controller = Run::controller(api.address(), &socket, &[]);
    let mut proxy = Run::proxy(&socket, &[]);
    proxy.serving();
    let prometheus = Prometheus::start(&[run.admin(), proxy.admin()]);
    // One request per host, and one through the TCP service.
    let traffic = async || {
        for (address, host) in HOSTS.map(|host| (http, host)).into_iter().chain([(stream, "any")]) {
            let host = format!("{host}.example");
            Box::pin(async { Client::connect(address).await.get(&host, "/").await }).await;
        }
    };

    let rules = eventually("the rules", || async {
        let rules = prometheus.rules().await?;
        (!rules.is_empty()).then_some(rules)
    })
    .await;
    let mut queries = dashboard();
    assert!(queries.len() > 40, "the dashboard has {} queries only", queries.len());
    for rule in &rules {
        queries.extend(metrics(text(rule, "query")).map(str::to_owned));
    }
    // A rate needs a second scrape of each series.
    let end = std::time::Instant::now() + fairway_testkit::DEADLINE;
    while !queries.is_empty() {
        traffic().await;
        let mut empty = BTreeSet::new();
        for query in queries {
            if prometheus.query(&query).await.is_none_or(|series| series.is_empty()) {
                empty.insert(query);
            }
        }
        queries = empty;
        let left = || Vec::from_iter(queries.iter().map(String::as_str)).join("\n");
        assert!(std::time::Instant::now() < end, "these find nothing:\n{}", left());
    }
    for rule in &rules {
        let query = text(rule, "query");
        let labels = labels(query);
        for metric in metrics(query) {
            let series = prometheus.query(metric).await.expect("Prometheus answers");
            let has = |label: &&&str| series.iter().any(|series| !series["metric"][**label].is_null());
            let missing: Vec<_> = labels.iter().filter(|label| !has(label)).collect();
            assert!(missing.is_empty(), "{metric} has no {missing:?}, by which this groups: {query}");
        }
    }
    eventually("rules that wait for their time", || async {
        traffic().await;
        let rules = prometheus.rules().await.unwrap_or_default();
        let is_active = |name: &str| rules.iter().any(|rule| rule["name"] == name && rule["state"] != "inactive");
        assert!(!is_active("FairwayAbsent"));
        let inactive: Vec<_> = WAITING.iter().filter(|name| !is_active(name)).collect();
        if inactive.is_empty() { Ok(()) } else { Err(inactive) }
    })
    .await;
    for rule in prometheus.rules().await.expect("Prometheus has rules") {
        assert!(rule["health"] == "ok" && !rule.to_string().contains("<error"), "{rule}");
    }
}

/// Prometheus requests protobuf in this mode, and keeps native buckets beside the classic ones.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_native_histograms() {
    let (good, refused) = (Origin::start("good"), Origin::new("refused").fault(Fault::Refuse).start());
    let api = api_server(good.address(), refused.address(), free_port());
    let mut run = Run::start_as(fairway(), api.address(), &["--bucket-factor=1.1", "--max-buckets=4"]);
    let http = run.serving();
    let prometheus = Prometheus::start(&[run.admin()]);
    for _ in 0..20 {
        Box::pin(async { Client::connect(http).await.get("good.example", "/").await }).await;
    }
    let name = "nginx_ingress_controller_request_duration_seconds";
    let found_by = &prometheus;
    let series = |query: String| async move { found_by.query(&query).await.filter(|found| !found.is_empty()) };
    let native = eventually("a native histogram with all requests", async || {
        let found = series(format!("{name}{{ingress=\"good\"}}")).await?.remove(0);
        (found["histogram"][1]["count"] == "20").then_some(found)
    })
    .await;
    let histogram = &native["histogram"][1];
    let buckets = histogram["buckets"].as_array().expect("its buckets");
    assert!((1..=4).contains(&buckets.len()), "{histogram}");
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number");
    assert_eq!(buckets.iter().map(|bucket| number(&bucket[3])).sum::<f64>(), 20.0, "{histogram}");
    // The value lies within the bounds of the classic histogram, which exists too.
    let classic = series(format!("{name}_bucket{{ingress=\"good\",le=\"+Inf\"}}")).await.expect("classic buckets");
    assert_eq!(classic[0]["value"][1], "20");
    let quantile = series(format!("histogram_quantile(1, {name}{{ingress=\"good\"}})")).await.expect("a quantile");
    let (quantile, sum) = (number(&quantile[0]["value"][1]), number(&histogram["sum"]));
    assert!(quantile >= sum / 20.0 && quantile < 5.0, "{quantile} of {histogram}");
    // All other metrics arrive in that format too.
    for other in ["nginx_ingress_controller_requests", "fairway_hosts", "fairway_upstream_connections_total"] {
        assert!(series(other.to_owned()).await.is_some(), "{other}");
    }
}

/// An address that was free a moment ago.
fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port")
}

/// An API server with an Ingress for each outcome: one that is served, also over TLS; one whose endpoint refuses connections; one without a
/// Service.
fn api_server(good: SocketAddr, refused: SocketAddr, stream: SocketAddr) -> Origin {
    let leaf = Ca::new("prometheus").leaf(&["good.example"]);
    let bytes = |text: String| ByteString(text.into_bytes());
    let data = json!({"tls.crt": bytes(leaf.certificate_pem()), "tls.key": bytes(leaf.key_pem())});
    let mut objects = vec![
        object("ingressclasses", "", "nginx", json!({"spec": {"controller": "k8s.io/ingress-nginx"}})),
        object("secrets", "shop", "site", json!({"type": "kubernetes.io/tls", "data": data})),
    ];
    for (name, address) in [("good", good), ("refused", refused)] {
        objects.push(object("services", "shop", name, json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}})));
        let port = json!([{"port": address.port()}]);
        let endpoints = json!([{"addresses": ["127.0.0.1"]}]);
        let slice = json!({"addressType": "IPv4", "ports": port, "endpoints": endpoints});
        objects.push(object("endpointslices", "shop", name, slice));
    }
    for name in HOSTS {
        let backend = json!({"service": {"name": name, "port": {"number": 80}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        let rule = json!({"host": format!("{name}.example"), "http": {"paths": [path]}});
        let mut spec = json!({"ingressClassName": "nginx", "rules": [rule]});
        if name == "good" {
            spec["tls"] = json!([{"hosts": ["good.example"], "secretName": "site"}]);
        }
        let mut ingress = object("ingresses", "shop", name, json!({"spec": spec}));
        // A restriction that can't be applied is an error.
        let allowed = if name == "missing" { "nobody" } else { "0.0.0.0/0" };
        ingress.1["metadata"]["annotations"] = json!({
            "nginx.ingress.kubernetes.io/ssl-redirect": "false",
            "nginx.ingress.kubernetes.io/whitelist-source-range": allowed,
        });
        objects.push(ingress);
    }
    let ports = json!({"data": {stream.port().to_string(): "shop/good:80"}});
    objects.push(object("configmaps", "edge", "tcp", ports));
    Origin::new("api").reply_with(move |request: &Request| answer(&objects, request)).start()
}

/// An object and the plural of its kind.
fn object(plural: &'static str, namespace: &str, name: &str, mut rest: Value) -> (&'static str, Value) {
    let labels = json!({"kubernetes.io/service-name": name});
    rest["metadata"] = json!({"name": name, "uid": "u", "resourceVersion": "1", "labels": labels});
    if !namespace.is_empty() {
        rest["metadata"]["namespace"] = json!(namespace);
    }
    (plural, rest)
}

fn answer(objects: &[(&'static str, Value)], request: &Request) -> Reply {
    let path = request.target.split('?').next().unwrap_or_default();
    if request.target.contains("watch=true") {
        return Reply::ok().header("transfer-encoding", "chunked").unframed("").then_stall();
    }
    if request.method != "GET" {
        return Reply::status(201).body("{}");
    }
    let json = |value: Value| Reply::ok().header("content-type", "application/json").body(value.to_string());
    let mut words = path.rsplit('/');
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if let Some((_, object)) =
        objects.iter().find(|(plural, object)| *plural == before && object["metadata"]["name"] == last)
    {
        return json(object.clone());
    }
    let items: Vec<&Value> = objects.iter().filter(|(plural, _)| *plural == last).map(|(_, object)| object).collect();
    json(json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
}

/// The queries of the dashboard, and those of its variables.
fn dashboard() -> BTreeSet<String> {
    let text =
        std::fs::read_to_string(repository().join("deploy/helm/fairway/files/dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions = targets.map(|target| self::text(target, "expr").to_owned());
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter().filter_map(|variable| {
        let (series, label) = variable["query"].as_str()?.strip_prefix("label_values(")?.rsplit_once(", ")?;
        let (name, matchers) = series.split_once('{').unwrap_or((series, "}"));
        Some(format!("{name}{{{}!=\"\",{matchers}", label.strip_suffix(')')?))
    });
    let fill = |query: String| VARIABLES.iter().fold(query, |query, (name, value)| query.replace(name, value));
    let queries: BTreeSet<_> = expressions.chain(variables).map(fill).collect();
    assert_eq!(queries.iter().find(|query| query.contains('$')), None, "a variable that nobody knows");
    queries
}

/// The metrics that a rule reads. Its comparisons match nothing while all is well; the metrics exist nevertheless.
fn metrics(rule: &str) -> impl Iterator<Item = &str> {
    let words = rule.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    words.filter(|word| word.starts_with("fairway_") || word.starts_with("nginx_ingress_controller_"))
}

/// The labels by which a rule groups, except the namespace label, which has one of two names.
fn labels(rule: &str) -> BTreeSet<&str> {
    let after = |word: &str| rule.match_indices(word).map(|(at, _)| at + word.len()).collect::<Vec<_>>();
    let lists = after("by (").into_iter().chain(after("on (")).filter_map(|at| rule[at..].split(')').next());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|label| !label.is_empty()).collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{value} has no {field}"))
}

/// A Prometheus with the chart's rules. Ends when dropped.
struct Prometheus {
    address: SocketAddr,
    process: Child,
    _folder: TempDir,
}

impl Prometheus {
    fn start(targets: &[SocketAddr]) -> Self {
        let program = repository().join("target/tools/bin/prometheus");
        assert!(program.exists(), "there is no {}: `cargo xtask alerts` builds it", program.display());
        let folder = tempfile::tempdir().expect("a folder");
        let targets: Vec<_> = targets.iter().map(SocketAddr::to_string).collect();
        // The labels that a ServiceMonitor adds.
        let labels = json!({"namespace": "edge", "pod": "fairway-0"});
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [repository().join("deploy/helm/fairway/files/alerts.yaml")],
            "scrape_configs": [{
                "job_name": "fairway",
                "scrape_native_histograms": true,
                "always_scrape_classic_histograms": true,
                "static_configs": [{"targets": targets, "labels": labels}],
            }],
        });
        let file = folder.path().join("prometheus.yaml");
        std::fs::write(&file, config.to_string()).expect("the file can be written");
        let address = free_port();
        let process = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .spawn()
            .expect("prometheus starts");
        Self { address, process, _folder: folder }
    }

    /// The series that a query finds; `None` while Prometheus can't be queried.
    async fn query(&self, query: &str) -> Option<Vec<Value>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", encoded(query))).await?;
        Some(answer["result"].as_array()?.clone())
    }

    async fn rules(&self) -> Option<Vec<Value>> {
        let answer = self.ask("/api/v1/rules").await?;
        Some(
            answer["groups"]
                .as_array()?
                .iter()
                .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
                .collect(),
        )
    }

    async fn ask(&self, target: &str) -> Option<Value> {
        // Boxed: the buffers of a client, inside everything that polls it repeatedly, don't fit on the stack of a test.
        let get = async || Some(Client::try_connect(self.address).await.ok()?.get("prometheus", target).await);
        let response = Box::pin(get()).await?;
        if response.status == 503 {
            // Prometheus is not ready yet.
            return None;
        }
        let answer: Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!(answer["status"], "success", "{target}: {answer}");
        Some(answer["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A value of a query string.
fn encoded(text: &str) -> String {
    let byte =
        |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}
