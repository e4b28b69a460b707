//! The admission webhook of `fairway run`, called as the API server calls it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use crate::support::run::{Run, api_server};
use fairway_testkit::{Ca, Client, Gate, Leaf, Origin, TlsClient, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAME: &str = "admission.edge.svc";

/// A process with the webhook, and the folder with its certificate.
struct Asked {
    run: Run,
    address: SocketAddr,
    folder: TempDir,
    ca: Ca,
    lists: Gate,
    _api: Origin,
}

fn write(folder: &Path, leaf: &Leaf) {
    std::fs::write(folder.join("cert"), leaf.certificate_pem()).expect("the file can be written");
    std::fs::write(folder.join("key"), leaf.key_pem()).expect("the file can be written");
}

/// Starts the process; lists from the API server wait for the gate.
fn start(client_authority: Option<&Ca>) -> Asked {
    let (folder, ca, lists) = (tempfile::tempdir().expect("a folder"), Ca::new("webhook"), Gate::new());
    write(folder.path(), &ca.leaf(&[NAME]));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let mut args = vec![
        "--validating-webhook=127.0.0.1:0".to_owned(),
        format!("--validating-webhook-certificate={}", file("cert")),
        format!("--validating-webhook-key={}", file("key")),
    ];
    if let Some(authority) = client_authority {
        std::fs::write(file("authority"), authority.pem()).expect("the file can be written");
        args.push(format!("--validating-webhook-client-authority={}", file("authority")));
    }
    let origin = Origin::start("web");
    let api = api_server(&origin, &lists);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut run = Run::start(api.address(), &args);
    let line = run.line_with("admission webhook address=");
    let address = line.rsplit('=').next().and_then(|address| address.parse().ok()).expect("an address at the end");
    Asked { run, address, folder, ca, lists, _api: api }
}

fn ingress(name: &str, host: &str, annotations: Value) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": "shop", "name": name, "annotations": annotations},
        "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]},
    })
}

fn review(object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7f3a", "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"},
            "resource": {"group": "networking.k8s.io", "version": "v1", "resource": "ingresses"},
            "name": "new", "namespace": "shop", "operation": "CREATE", "userInfo": {}, "object": object, "dryRun": false,
        },
    })
}

impl Asked {
    async fn post(&self, body: &[u8]) -> (u16, Value) {
        let mut client = TlsClient::new(&self.ca, NAME).connect(self.address).await;
        let answer = client.request("POST", "/networking/v1/ingresses?timeout=10s", &[("host", NAME)], body).await;
        (answer.status, serde_json::from_str(&answer.text()).unwrap_or_default())
    }

    async fn ask(&self, object: Value) -> Value {
        let (status, answer) = self.post(review(object).to_string().as_bytes()).await;
        assert_eq!((status, &answer["response"]["uid"]), (200, &json!("7f3a")), "{answer}");
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        answer["response"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_gets_the_answers_of_ingress_nginx() {
    let mut asked = start(None);
    asked.lists.release();
    asked.run.serving();
    assert_eq!(asked.ask(ingress("new", "b.example", json!({}))).await, json!({"uid": "7f3a", "allowed": true}));
    let refused = asked.ask(ingress("new", "a.example", json!({}))).await;
    let message = "host \"a.example\" and path \"/\" is already defined in ingress shop/web";
    let status = json!({"status": "Failure", "message": message, "reason": "BadRequest", "code": 400});
    assert_eq!(refused, json!({"uid": "7f3a", "allowed": false, "status": status}));
    let odd = json!({"nginx.ingress.kubernetes.io/proxy-read-timeout": "soon"});
    let warned = asked.ask(ingress("new", "b.example", odd)).await;
    assert_eq!(warned["allowed"], true);
    assert!(warned["warnings"][0].as_str().is_some_and(|text| text.contains("proxy-read-timeout")), "{warned}");
    assert_eq!(asked.ask(Value::Null).await["allowed"], true);
    assert_eq!(asked.ask(json!({"spec": 7})).await["status"]["code"], 400);

    // Requests that are not admission reviews.
    assert_eq!(asked.post(b"{").await.0, 400);
    let mut other = review(Value::Null);
    other["request"]["kind"]["version"] = json!("v1beta1");
    assert_eq!(asked.post(other.to_string().as_bytes()).await.0, 500);
    let mut client = TlsClient::new(&asked.ca, NAME).connect(asked.address).await;
    client.send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", 64 << 20)).await;
    // The peer may close while the rest is sent.
    for _ in 0..10 {
        let _ = client.try_send(vec![b' '; 1 << 20]).await;
    }
    assert_eq!(client.read_response().await.status, 413);
}

/// Before that, nothing is known about other Ingresses: the failure policy decides.
#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_configuration_there_is_no_answer_but_soon() {
    let mut asked = start(None);
    asked.lists.reached(1).await;
    let begin = Instant::now();
    let (status, _) = asked.post(review(ingress("new", "a.example", json!({}))).to_string().as_bytes()).await;
    assert_eq!(status, 500);
    let most = fairway_translate::limit::REVIEW_TIME * 5;
    assert!(begin.elapsed() < most, "after {:?}", begin.elapsed());
    asked.lists.release();
    asked.run.serving();
    assert_eq!(asked.ask(ingress("new", "a.example", json!({}))).await["allowed"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_authority_is_named_only_its_clients_are_answered() {
    let authority = Ca::new("api-server");
    let mut asked = start(Some(&authority));
    asked.lists.release();
    asked.run.serving();
    let body = review(ingress("new", "b.example", json!({}))).to_string();
    let ours = authority.leaf(&["apiserver"]);
    let mut client = TlsClient::new(&asked.ca, NAME).certificate(&ours).connect(asked.address).await;
    assert_eq!(client.request("POST", "/", &[("host", NAME)], body.as_bytes()).await.status, 200);
    for stranger in [None, Some(Ca::new("other").leaf(&["apiserver"]))] {
        let mut tls = TlsClient::new(&asked.ca, NAME);
        if let Some(leaf) = &stranger {
            tls = tls.certificate(leaf);
        }
        // With TLS 1.3 the client learns of the refusal when it reads.
        let Ok(mut client) = tls.try_connect(asked.address).await else { continue };
        let _ = client
            .try_send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
            .await;
        assert!(client.try_read_response().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let mut asked = start(None);
    asked.lists.release();
    asked.run.serving();
    let shown = async || TlsClient::unverified(NAME).connect(asked.address).await.tls().chain[0].clone();
    let first = shown().await;
    let renewed = asked.ca.leaf(&[NAME, "renewed.edge.svc"]);
    std::fs::write(asked.folder.path().join("cert"), "no certificate").expect("the file can be written");
    assert_eq!(shown().await, first);
    write(asked.folder.path(), &renewed);
    eventually("the new certificate", async || shown().await == *renewed.der()).await;
}

/// Traffic doesn't depend on the webhook.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_certificate_the_process_serves_all_the_same() {
    let (origin, lists) = (Origin::start("web"), Gate::new());
    lists.release();
    let api = api_server(&origin, &lists);
    let files = ["--validating-webhook-certificate=/nowhere", "--validating-webhook-key=/nowhere"];
    let mut run = Run::start(api.address(), &["--validating-webhook=127.0.0.1:0", files[0], files[1]]);
    let http = run.serving();
    assert!(run.log().contains("the certificate of the admission webhook can't be used"), "{}", run.log());
    assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
}
