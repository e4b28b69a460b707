//! `fairway run` as a child of the test, and an API server for it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use fairway_testkit::{Client, DEADLINE, Gate, Origin, Reply, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fairway;

/// `fairway run` against a fake API server, on ports that the kernel chooses. Ends when dropped.
pub(crate) struct Run {
    pub(crate) child: Child,
    log: Receiver<String>,
    seen: String,
    /// Health and metrics.
    admin: SocketAddr,
    _folder: Option<TempDir>,
}

/// Flags for all roles: free ports of this machine, and endpoints on it.
const COMMON: [&str; 6] = [
    "--healthz-host=127.0.0.1",
    "--healthz-port=0",
    "--http-port=0",
    "--https-port=0",
    "--post-shutdown-grace-period=0",
    "--allow-backend-address=127.0.0.1",
];

impl Run {
    /// Starts it with the API server at this address, and without a pod: there is no leader election, and no status is written.
    pub(crate) fn start(api: SocketAddr, args: &[&str]) -> Self {
        Self::start_as(fairway(), api, args)
    }

    /// The same with a command that takes the arguments of `fairway`.
    pub(crate) fn start_as(mut command: Command, api: SocketAddr, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let command = command
            .arg("run")
            .arg("--kubeconfig")
            .arg(kubeconfig(&folder, &format!("http://{api}")))
            .args(COMMON)
            .arg("--update-status=false")
            .args(args);
        Self::spawn(command, Some(folder))
    }

    /// Starts `fairway controller` against a fake API server, with proxies at this socket.
    pub(crate) fn controller(api: SocketAddr, socket: &Path, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = fairway();
        let command = command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(kubeconfig(&folder, &format!("http://{api}")))
            .args(COMMON)
            .arg("--update-status=false")
            .arg("--control-socket")
            .arg(socket)
            .args(args);
        Self::spawn(command, Some(folder))
    }

    /// Starts `fairway proxy` with the controller at this socket.
    pub(crate) fn proxy(socket: &Path, args: &[&str]) -> Self {
        let mut command = fairway();
        Self::spawn(command.arg("proxy").args(COMMON).arg("--control-socket").arg(socket).args(args), None)
    }

    fn spawn(command: &mut Command, folder: Option<TempDir>) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut run = Self { child, log, seen: String::new(), admin: nowhere, _folder: folder };
        let line = run.line_with("health and metrics");
        run.admin = line.rsplit('=').next().and_then(|address| address.parse().ok()).expect("an address at the end");
        run
    }

    /// The next line of the log that contains a text.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.extend([&line, "\n"]);
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("waited for {part:?}: {error}; the log so far:\n{}", self.seen),
            }
        }
    }

    /// The part of the log that was read.
    pub(crate) fn log(&self) -> &str {
        &self.seen
    }

    /// Waits until it serves. Returns the address for plain HTTP.
    pub(crate) fn serving(&mut self) -> SocketAddr {
        self.serving_at("0.0.0.0")
    }

    /// The same if the first listener has this address.
    pub(crate) fn serving_at(&mut self, ip: &str) -> SocketAddr {
        let line = self.line_with(" serving ");
        let rest = line.split(&format!("{ip}:")).nth(1);
        let port = rest.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let port = port.and_then(|port| port.parse().ok()).expect("the address of the first listener");
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// The address for health and metrics.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) async fn status_of(&self, path: &str) -> u16 {
        // Boxed: the buffers of a client, inside everything that polls it repeatedly, don't fit on the stack of a test.
        Box::pin(async { Client::connect(self.admin).await.get("localhost", path).await.status }).await
    }

    /// The body of a response of the admin server.
    pub(crate) async fn body_of(&self, path: &str) -> String {
        Box::pin(async { Client::connect(self.admin).await.get("localhost", path).await.text() }).await
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits until the process has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < end, "the process goes on; the log so far:\n{}", self.seen);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal, such as `-TERM`, to a process.
pub(crate) fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([name, &process.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

pub(crate) fn kubeconfig(folder: &TempDir, server: &str) -> PathBuf {
    let path = folder.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: k, cluster: {{server: '{server}'}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n"
    );
    std::fs::write(&path, text).expect("the file can be written");
    path
}

/// The ConfigMap `edge/config`, which the test changes while a process watches it. Clones share it.
#[derive(Clone)]
pub(crate) struct ConfigMap(Arc<State>);

struct State {
    /// Its first content, and the content after each change.
    contents: Vec<Value>,
    at: AtomicUsize,
    /// Holds each event until its change.
    events: Gate,
}

impl ConfigMap {
    pub(crate) fn new(contents: impl IntoIterator<Item = Value>) -> Self {
        let contents = contents.into_iter().collect();
        Self(Arc::new(State { contents, at: AtomicUsize::new(0), events: Gate::new() }))
    }

    /// Switches to the next content.
    pub(crate) fn change(&self) {
        self.0.at.fetch_add(1, Ordering::SeqCst);
        self.0.events.release_one();
    }

    fn version(&self, at: usize) -> Value {
        let version = (at + 1).to_string();
        json!({"metadata": {"namespace": "edge", "name": "config", "uid": "u", "resourceVersion": version},
            "data": self.0.contents[at]})
    }

    fn now(&self) -> Value {
        self.version(self.0.at.load(Ordering::SeqCst))
    }

    /// One watch, with the events of all changes. It stays open.
    fn watched(&self) -> Reply {
        let event = |at| format!("{}\n", json!({"type": "MODIFIED", "object": self.version(at)}));
        Reply::ok().chunked((1..self.0.contents.len()).map(event)).body_held_by(&self.0.events)
    }
}

/// An API server without changes: the Ingress `shop/web` routes a.example to `origin`. Lists wait for `gate`.
pub(crate) fn api_server(origin: &Origin, gate: &Gate) -> Origin {
    api(origin, gate, None, |_| Vec::new())
}

/// The same with a ConfigMap.
pub(crate) fn api_server_with(origin: &Origin, config: &ConfigMap) -> Origin {
    api_server_and(origin, config, |_| Vec::new())
}

/// The same with more objects, by the plural of their kind.
pub(crate) fn api_server_and(
    origin: &Origin,
    config: &ConfigMap,
    more: impl Fn(&str) -> Vec<Value> + Send + Sync + 'static,
) -> Origin {
    let lists = Gate::new();
    lists.release();
    api(origin, &lists, Some(config.clone()), more)
}

fn api(
    origin: &Origin,
    gate: &Gate,
    config: Option<ConfigMap>,
    more: impl Fn(&str) -> Vec<Value> + Send + Sync + 'static,
) -> Origin {
    let (port, gate) = (origin.port(), gate.clone());
    let answer = move |request: &Request| {
        let path = request.target.split('?').next().unwrap_or_default();
        let plural = path.rsplit('/').next().unwrap_or_default();
        let config = config.as_ref().filter(|_| plural == "configmaps");
        if request.target.contains("watch=true") {
            let quiet = || Reply::ok().header("transfer-encoding", "chunked").unframed("").then_stall();
            return config.map_or_else(quiet, ConfigMap::watched);
        }
        if request.method != "GET" {
            return Reply::status(201).body("{}");
        }
        let mut items = config.map_or_else(|| objects(plural, port), |config| vec![config.now()]);
        items.extend(more(plural));
        let list = json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
        Reply::ok().header("content-type", "application/json").body(list.to_string()).held_by(&gate)
    };
    Origin::new("api").reply_with(answer).start()
}

fn objects(plural: &str, port: u16) -> Vec<Value> {
    let mut object = match plural {
        "ingressclasses" => json!({"spec": {"controller": "k8s.io/ingress-nginx"}}),
        "services" => json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
        "endpointslices" => {
            json!({"addressType": "IPv4", "ports": [{"port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}]})
        }
        "ingresses" => {
            let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
            let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
            let rule = json!({"host": "a.example", "http": {"paths": [path]}});
            json!({"spec": {"ingressClassName": "nginx", "rules": [rule]}})
        }
        _ => return Vec::new(),
    };
    object["metadata"] = match plural {
        "ingressclasses" => json!({"name": "nginx", "uid": "u", "resourceVersion": "1"}),
        _ => json!({"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": "web"}}),
    };
    vec![object]
}
