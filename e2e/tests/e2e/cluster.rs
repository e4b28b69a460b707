//! The cluster itself: it starts, ends, and leaves nothing behind.

mod trace;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fairway_e2e::cluster::layout::Layout;
use fairway_e2e::cluster::{Action, Cluster, Options, OwnCluster, State, Turn, down};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::trace::{Footprint, Surroundings};
use crate::ground::Background;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fairway-cluster");

#[test]
fn ending_leaves_nothing_whether_asked_for_or_by_force() {
    let turn = Turn::take();
    let before = Surroundings::look();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| turn.start("side-one", &Options::default()));
        let second = scope.spawn(|| turn.start("side-two", &Options::default()));
        (first.join().unwrap().unwrap(), second.join().unwrap().unwrap())
    });
    let error = Cluster::start("side-one", &Options::default(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("running already"), "{error:#}");

    succeed(first.command("kubectl").args(["run", "sleeper", "--image=busybox", "--", "sleep", "1000"]));
    succeed(first.command("kubectl").args(["wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s"]));
    let footprint = Footprint::of(&first);
    assert!(footprint.namespaces.len() > 8, "two Nodes, a pod and a supervisor: {footprint:?}");
    let directory = first.directory().to_owned();
    first.end().unwrap();
    footprint.assert_gone();
    assert_eq!(Surroundings::look(), before);
    assert!(Cluster::find("side-one").unwrap_err().to_string().contains("cargo xtask cluster up --name side-one"));
    let left: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["logs"]);

    // The other cluster notices nothing until it is killed.
    let nodes = succeed(second.command("kubectl").args(["get", "nodes", "--no-headers"]));
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 2, "{nodes}");
    let footprint = Footprint::of(&second);
    kill(Pid::from_raw(second.supervisor()), Signal::SIGKILL).unwrap();
    eventually("the lock is free", || Layout::new("side-two").unwrap().try_lock().unwrap().is_some());
    footprint.assert_gone();
    assert_eq!(Surroundings::look(), before);

    // The remains of the dead cluster do no harm. `second` also stops this one if anything goes wrong.
    assert!(Layout::new("side-two").unwrap().kubeconfig().exists());
    let again = Cluster::start("side-two", &Options::default(), |_| {}).unwrap();
    again.down().unwrap();
    second.end().unwrap();
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    let _turn = Turn::take();
    let before = Surroundings::look();
    let layout = Layout::new("interrupted").unwrap();
    down("interrupted").unwrap();
    let _ = fs::remove_dir_all(layout.logs());
    let up = Background::start(Command::new(PROGRAM).args(["up", "--name", "interrupted"]).stdout(Stdio::null()));
    eventually("kube-apiserver has started", || layout.log("kube-apiserver").exists());
    let cluster = Cluster::find("interrupted").unwrap();
    let footprint = Footprint::of(&cluster);
    drop(cluster);
    // This kills it.
    drop(up);
    eventually("the lock is free", || layout.try_lock().unwrap().is_some());
    footprint.assert_gone();
    assert_eq!(Surroundings::look(), before);
    assert!(!down("interrupted").unwrap());
}

/// A panic of the test stops the cluster that it has started.
#[test]
fn a_cluster_of_ones_own_ends_with_a_panic() {
    let mut footprint = None;
    let panicking = std::panic::AssertUnwindSafe(|| {
        let cluster = start("panic");
        footprint = Some(Footprint::of(&cluster));
        panic!("on purpose");
    });
    assert_eq!(std::panic::catch_unwind(panicking).unwrap_err().downcast_ref(), Some(&"on purpose"));
    footprint.unwrap().assert_gone();
    Cluster::find("panic").unwrap_err();
}

#[test]
fn components_stop_start_and_freeze_and_commands_end_with_the_cluster() {
    let cluster = start("components");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let act = |name: &str, action| runtime.block_on(cluster.component(name, action));
    let state = |name: &str| {
        let components = cluster.components().unwrap();
        components.into_iter().find(|component| component.name == name).unwrap().state
    };
    let ready =
        || cluster.command("kubectl").args(["get", "--raw", "/readyz", "--request-timeout=1s"]).output().unwrap();

    act("kube-apiserver", Action::Stop).unwrap();
    assert_eq!(state("kube-apiserver"), State::Stopped);
    assert!(!ready().status.success());
    act("kube-apiserver", Action::Start).unwrap();
    eventually("kube-apiserver is back, with its data", || ready().status.success());
    succeed(cluster.command("kubectl").args(["get", "node", "node-a", "node-b"]));
    assert!(act("kube-apiserver", Action::Start).unwrap_err().to_string().contains("runs already"));

    act("kube-apiserver", Action::Pause).unwrap();
    assert!(matches!(state("kube-apiserver"), State::Running { paused: true, .. }));
    assert!(!ready().status.success());
    act("kube-apiserver", Action::Resume).unwrap();
    eventually("kube-apiserver answers again", || ready().status.success());

    // An unexpected death is reported.
    let status = run(Command::new(PROGRAM).args(["status", "--name", "components"]));
    let line = status.lines().find(|line| line.contains("kube-scheduler")).unwrap();
    let pid = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("the death is noted", || matches!(state("kube-scheduler"), State::Died(_)));
    assert!(act("no-such", Action::Stop).unwrap_err().to_string().contains("kubelet-node-a"));

    // `exec` passes on the exit code, the folder, and its end.
    let exec = |words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["exec", "--name", "components", "--"]).args(words).current_dir("/usr");
        command
    };
    assert_eq!(exec(&["sh", "-c", "exit 7"]).status().unwrap().code(), Some(7));
    assert_eq!(succeed(&mut exec(&["pwd"])), "/usr\n");
    let mut sleeper = Background::start(&mut exec(&["sleep", "1000"]));
    eventually("sleep runs", || {
        let shown = exec(&["ps", "-C", "sleep"]).output().unwrap();
        shown.status.success()
    });
    cluster.end().unwrap();
    let status = sleeper.wait().unwrap();
    assert!(status.signal().is_some() || status.code() != Some(0), "{status}");
}

#[test]
fn an_address_of_a_load_balancer_is_reached_and_kept_by_open_connections() {
    let cluster = start("balanced");
    let manifest = cluster.directory().join("web.yaml");
    fs::write(&manifest, WEB).unwrap();
    succeed(cluster.command("kubectl").arg("apply").arg("-f").arg(&manifest));
    succeed(cluster.command("kubectl").args(["rollout", "status", "deployment/web", "--timeout=60s"]));
    let address = |name: &str| {
        let path = "-o=jsonpath={.status.loadBalancer.ingress[*].ip}";
        succeed(cluster.command("kubectl").args(["get", "service", name, path]))
    };
    eventually("both have an address", || !address("web").is_empty() && !address("local").is_empty());
    assert_eq!(address("local"), "198.19.0.222");
    assert_ne!(address("web"), address("local"));
    let fetch = |address: &str| {
        cluster.command("curl").args(["--silent", "--fail", "--max-time", "2", address]).output().unwrap()
    };
    eventually("web answers", || fetch(&address("web")).status.success());
    eventually("local answers", || fetch("198.19.0.222").status.success());

    // An open connection, over which the second request goes once the address leads to the other Node.
    let mut kept = cluster.within(|| Ok(Kept::open("198.19.0.222:80"))).unwrap();
    let first = kept.fetch();
    // The only endpoint of its Node leaves the Service, and continues to serve.
    succeed(cluster.command("kubectl").args(["label", "pod", &first, "app-"]));
    eventually("new connections go to the other Node", || {
        let answer = fetch("198.19.0.222");
        answer.status.success() && String::from_utf8_lossy(&answer.stdout).trim() != first
    });
    assert_eq!(kept.fetch(), first);

    succeed(cluster.command("kubectl").args(["delete", "service", "local"]));
    let patch = r#"{"spec":{"type":"ClusterIP"}}"#;
    succeed(cluster.command("kubectl").args(["patch", "service", "web", "--patch", patch]));
    eventually("a Service of another type has no address", || address("web").is_empty());
    cluster.end().unwrap();
}

/// A server whose pods answer with their names, on both Nodes.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule,
         labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: busybox
        command: [python3, -c]
        args:
        - |
          import http.server, os
          class Handler(http.server.BaseHTTPRequestHandler):
              protocol_version = "HTTP/1.1"
              def do_GET(self):
                  body = os.environ["NAME"].encode()
                  self.send_response(200)
                  self.send_header("Content-Length", str(len(body)))
                  self.end_headers()
                  self.wfile.write(body)
          http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
        env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  loadBalancerIP: 198.19.0.222
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// A connection that is reused.
struct Kept(std::net::TcpStream);

impl Kept {
    fn open(address: &str) -> Self {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(stream)
    }

    /// The body of one answer.
    fn fetch(&mut self) -> String {
        use std::io::{Read, Write};
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        loop {
            let mut buffer = [0; 1024];
            let read = self.0.read(&mut buffer).unwrap();
            assert!(read > 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
                if body.len() == length.parse::<usize>().unwrap() {
                    return body.to_owned();
                }
            }
        }
    }
}

fn start(name: &str) -> OwnCluster {
    OwnCluster::start(name, &Options::default()).unwrap()
}

/// The output of `command`, which must succeed.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    text(&output)
}

fn run(command: &mut Command) -> String {
    text(&command.output().unwrap())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `holds` returns true, for half a minute at most.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
