//! `cargo xtask oauth`: a user signs in through a real oauth2-proxy, whose responses decide on requests before, during and after.
//!
//! The users come from an htpasswd file, so no identity provider is needed; everything else is as in production.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::outcome::Outcome;
use crate::serving::{Program, Serving, free_address};
use crate::shell;
use crate::tools;
use crate::workspace::Workspace;

/// Time for oauth2-proxy to start listening, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// `alice` with the password `secret`.
const USERS: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

/// The application is guarded, on one path with a cache of decisions; oauth2-proxy's own pages are on the same host and unguarded.
const MANIFESTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: oauth2-proxy, namespace: sso}
spec: {ports: [{port: 4180}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: sso}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  namespace: sso
  annotations:
    nginx.ingress.kubernetes.io/auth-url: http://oauth2-proxy.sso.svc.cluster.local:4180/oauth2/auth
    nginx.ingress.kubernetes.io/auth-signin: http://$host/oauth2/sign_in?rd=$escaped_request_uri
    nginx.ingress.kubernetes.io/auth-response-headers: X-Auth-Request-User
spec:
  ingressClassName: nginx
  rules:
  - host: app.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: cached
  namespace: sso
  annotations:
    nginx.ingress.kubernetes.io/auth-url: http://oauth2-proxy.sso.svc.cluster.local:4180/oauth2/auth
    nginx.ingress.kubernetes.io/auth-signin: http://$host/oauth2/sign_in?rd=$escaped_request_uri
    nginx.ingress.kubernetes.io/auth-response-headers: X-Auth-Request-User
    nginx.ingress.kubernetes.io/auth-cache-key: $cookie__oauth2_proxy
    nginx.ingress.kubernetes.io/auth-cache-duration: 202 10m
spec:
  ingressClassName: nginx
  rules:
  - host: app.example
    http:
      paths:
      - {path: /cached, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: oauth2-proxy, namespace: sso}
spec:
  ingressClassName: nginx
  rules:
  - host: app.example
    http:
      paths:
      - {path: /oauth2, pathType: Prefix, backend: {service: {name: oauth2-proxy, port: {number: 4180}}}}
"#;

/// Runs the whole flow.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let built = tools::build_oauth(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let folder = workspace.target_folder()?.join("oauth");
    let manifests = folder.join("manifests");
    fs::create_dir_all(&manifests).with_context(|| format!("making {}", manifests.display()))?;
    fs::write(manifests.join("app.yaml"), MANIFESTS)?;
    let users = folder.join("users");
    fs::write(&users, USERS)?;
    let (guard, address) = guard(&workspace.root.join("target/tools/bin/oauth2-proxy"), &users)?;
    // Each worker keeps its own decisions.
    let options = ["--workers=1".to_owned(), format!("--backend=sso/oauth2-proxy:4180={address}")];
    let mut fairway = match Serving::start(workspace, &manifests, &options)? {
        Ok(fairway) => fairway,
        Err(outcome) => return Ok(outcome),
    };
    let browser = Browser { address: fairway.http, jar: folder.join("cookies") };
    let mut complaints = Complaints(Vec::new());

    let _ = fs::remove_file(&browser.jar);
    let stranger = browser.get("/hello?a=b", &[])?;
    complaints.unless("a stranger", &stranger, 302, "http://app.example/oauth2/sign_in?rd=%2Fhello%3Fa%3Db");
    complaints.unless("a forged cookie", &browser.forged("/hello")?, 302, "/oauth2/sign_in");
    complaints.unless("the page to sign in", &browser.get("/oauth2/sign_in?rd=%2Fhello", &[])?, 200, "password");
    let form = |password: &str| format!("rd=%2Fhello&username=alice&password={password}");
    browser.get("/oauth2/sign_in", &["--data", &form("wrong")])?;
    complaints.unless("after a wrong password", &browser.get("/hello", &[])?, 302, "/oauth2/sign_in");
    let signed = browser.get("/oauth2/sign_in", &["--data", &form("secret")])?;
    complaints.unless("the right password", &signed, 302, "_oauth2_proxy=");
    let user = "x-auth-request-user: alice";
    complaints.unless("the user", &browser.get("/hello", &[])?, 200, user);
    let claimed = browser.get("/hello", &["-H", "X-Auth-Request-User: mallory"])?;
    complaints.unless("the user, who claims to be another one", &claimed, 200, user);
    if claimed.text.contains("mallory") {
        complaints.0.push(format!("a claimed identity reaches the backend:\n{}", claimed.text));
    }
    complaints.unless("the user, on a path with a cache", &browser.get("/cached", &[])?, 200, user);

    // Without the service, only cached decisions grant access.
    drop(guard);
    complaints.unless("a kept decision", &browser.get("/cached", &[])?, 200, user);
    complaints.unless("no decision", &browser.get("/hello", &[])?, 500, "");
    complaints.unless("a kept decision, for another cookie", &browser.forged("/cached")?, 500, "");
    ensure!(fairway.is_running()?, "fairway ended");
    Ok(Outcome::from_complaints("13 requests through oauth2-proxy".to_owned(), &complaints.0))
}

struct Complaints(Vec<String>);

impl Complaints {
    fn unless(&mut self, what: &str, answer: &Answer, status: u16, text: &str) {
        let Answer { status: found, text: whole } = answer;
        // The echo may write field names in any case.
        if *found != status || !whole.to_lowercase().contains(&text.to_lowercase()) {
            self.0.push(format!("{what}: expected {status} with {text:?}, and got {found}:\n{whole}"));
        }
    }
}

/// Starts oauth2-proxy and waits until it listens.
fn guard(program: &Path, users: &Path) -> anyhow::Result<(Program, SocketAddr)> {
    let address = free_address()?;
    let mut command = Command::new(program);
    command.args([
        format!("--http-address={address}"),
        format!("--htpasswd-file={}", users.display()),
        "--upstream=static://202".to_owned(),
        "--email-domain=*".to_owned(),
        "--client-id=unused".to_owned(),
        "--client-secret=unused".to_owned(),
        "--cookie-secret=0123456789abcdef0123456789abcdef".to_owned(),
        "--cookie-secure=false".to_owned(),
        "--reverse-proxy=true".to_owned(),
        "--set-xauthrequest=true".to_owned(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let program = Program::start_at(&mut command, address, START).context("oauth2-proxy")?;
    Ok((program, address))
}

/// curl with a cookie jar.
struct Browser {
    address: SocketAddr,
    jar: PathBuf,
}

/// Head and body as text.
struct Answer {
    status: u16,
    text: String,
}

impl Browser {
    /// Sends a request with the cookies so far, and keeps those that the response sets.
    fn get(&self, target: &str, options: &[&str]) -> anyhow::Result<Answer> {
        let jar = self.jar.to_str().context("the path of the cookies is no text")?;
        self.ask(target, &[&["--cookie", jar, "--cookie-jar", jar], options].concat())
    }

    /// Sends a request with a forged cookie.
    fn forged(&self, target: &str) -> anyhow::Result<Answer> {
        self.ask(target, &["-H", "Cookie: _oauth2_proxy=forged"])
    }

    fn ask(&self, target: &str, options: &[&str]) -> anyhow::Result<Answer> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--max-time", "30", "--noproxy", "*"]);
        curl.args(["--resolve", &format!("app.example:{}:{}", self.address.port(), self.address.ip())]);
        // The port belongs to this test only, and oauth2-proxy compares hosts.
        curl.args(options).args([
            "-H",
            "Host: app.example",
            &format!("http://app.example:{}{target}", self.address.port()),
        ]);
        let text = String::from_utf8_lossy(&shell::read(&mut curl)?).into_owned();
        let status = text.split(' ').nth(1).and_then(|word| word.trim().parse().ok()).context("no status")?;
        Ok(Answer { status, text })
    }
}
