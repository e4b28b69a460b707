//! The image: a folder with a single binary is a complete root file system. `cargo xtask image` builds it and runs
//! these tests as root.
//!
//! Each test has a thread with its own network and mount namespace, whose root is a read-only file system with the
//! binary and, like a volume, a folder of files. Processes it starts have the rights that a container would give them.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use caps::{CapSet, Capability};
use fairway_testkit::{Client, Origin, Reply, Request, eventually};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;

/// A user id that is unused on this machine.
const USER: u32 = 65532;
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const MANIFESTS: &str = "\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  rules:
  - host: web.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
";

/// The rights granted by a container runtime.
#[derive(Clone, Copy, Debug)]
struct Grant {
    /// `capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}`; otherwise all are dropped.
    bind_service: bool,
    /// `allowPrivilegeEscalation: false`.
    no_new_privileges: bool,
}

const CHART: Grant = Grant { bind_service: true, no_new_privileges: true };

/// Runs a test in its own root file system.
fn in_image(grant: Grant, files: &'static [(&'static str, &'static str)], test: impl AsyncFnOnce() + Send + 'static) {
    let play = move || {
        enter(files);
        give_up(grant);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
    };
    // Unoptimised futures with the buffers of a client in them are large.
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(play);
    thread.expect("a thread").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Moves this thread into its own namespaces and makes the image its root.
fn enter(files: &[(&str, &str)]) {
    let image = std::env::var("FAIRWAY_ROOTFS").expect("FAIRWAY_ROOTFS: run this with `cargo xtask image`");
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("namespaces of our own: this test needs root");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip, of the package iproute2");
    assert!(up.success());
    let (none, no_flags) = (None::<&str>, MsFlags::empty());
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
    // Hides /mnt of this machine from this thread only.
    let root = Path::new("/mnt");
    mount(Some("tmpfs"), root, Some("tmpfs"), no_flags, Some("mode=755")).expect("an empty file system");
    std::fs::write(root.join("fairway"), "").expect("a place for the binary");
    std::fs::create_dir(root.join("files")).expect("a place for the files");
    for (name, content) in files {
        std::fs::write(root.join("files").join(name), content).expect("a file");
    }
    let binary = Path::new(&image).join("fairway");
    mount(Some(&binary), &root.join("fairway"), none, MsFlags::MS_BIND, none).expect("the binary");
    mount(none, root, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, none).expect("read-only");
    nix::unistd::chroot(root).expect("chroot");
    std::env::set_current_dir("/").expect("the new root");
}

/// Reduces the rights of processes started by this thread as a container runtime would: first the capabilities, then
/// the user.
fn give_up(grant: Grant) {
    for capability in caps::all() {
        if !(grant.bind_service && capability == Capability::CAP_NET_BIND_SERVICE) {
            // A kernel older than the list of capabilities refuses those that it does not know.
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    let left = caps::read(None, CapSet::Bounding).expect("the bounding set");
    assert_eq!(left.contains(&Capability::CAP_NET_BIND_SERVICE), grant.bind_service, "{left:?}");
    assert!(!left.contains(&Capability::CAP_SYS_ADMIN), "{left:?}");
    // The change of the user would take all of them away before the program is run; runc keeps them, too.
    prctl::set_keepcaps(true).expect("to keep capabilities");
    if grant.no_new_privileges {
        prctl::set_no_new_privs().expect("no new privileges");
    }
}

fn fairway(arguments: &[&str]) -> Command {
    let mut command = Command::new("/fairway");
    command.env_clear().args(arguments).uid(USER).gid(USER).current_dir("/");
    command
}

fn run(arguments: &[&str]) -> Output {
    // There is no /dev/null in an image of one binary.
    fairway(arguments).stdin(Stdio::inherit()).output().expect("the binary runs")
}

/// A server that is killed when the value is dropped.
struct Server {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = fairway(arguments).stdout(Stdio::piped()).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { child, lines }
    }

    /// Waits for a line with this prefix.
    fn line(&mut self, begin: &str) -> String {
        let mut seen = String::new();
        for line in self.lines.by_ref() {
            let line = line.expect("text");
            if line.starts_with(begin) {
                return line;
            }
            seen += &line;
            seen.push('\n');
        }
        panic!("no line begins with {begin:?}; there was:\n{seen}");
    }

    /// Asks it to stop as the kubelet does.
    fn terminate(mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a process id"));
        nix::sys::signal::kill(id, nix::sys::signal::SIGTERM).expect("a running process");
        assert!(self.child.wait().expect("a child of ours").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn manifests_are_checked() {
    in_image(CHART, &[("web.yaml", MANIFESTS)], async || {
        let output = run(&["check", "/files"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.ends_with("1 object in 1 file: 1 error, 0 warnings\n") && said.contains("no Service"), "{said}");
        let output = run(&["explain", "/files", "GET", "http://web.example/a"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("Answer     503 Service Unavailable: ") && said.contains("no Service"), "{said}");
    });
}

#[test]
fn manifests_are_served_on_a_low_port() {
    in_image(CHART, &[("web.yaml", MANIFESTS)], async || {
        let mut dev = Server::start(&["dev", "/files", "--http", "0.0.0.0:80", "--https", "0.0.0.0:443"]);
        dev.line("https on 0.0.0.0:443");
        let answer = Client::connect(SocketAddr::new(LOOPBACK, 80)).await.get("web.example", "/a").await;
        assert_eq!((answer.status, answer.text().lines().next()), (200, Some("Service shop/web:80")));
        let tls = fairway_testkit::TlsClient::unverified("web.example");
        let answer = tls.connect(SocketAddr::new(LOOPBACK, 443)).await.get("web.example", "/b").await;
        assert_eq!(answer.status, 200);
        dev.terminate();
    });
}

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: k, cluster: {server: 'http://127.0.0.1:6443'}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: k, user: u}}]
";

/// An API server without any object.
fn api_server() -> Origin {
    let answer = |request: &Request| {
        if request.target.contains("watch=true") {
            return Reply::ok().header("transfer-encoding", "chunked").unframed("").then_stall();
        }
        if request.method != "GET" {
            return Reply::status(201).body("{}");
        }
        let list = r#"{"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}"#;
        Reply::ok().header("content-type", "application/json").body(list)
    };
    Origin::new("api").bind((LOOPBACK, 6443)).reply_with(answer).start()
}

#[test]
fn a_cluster_is_served_on_the_usual_ports() {
    in_image(CHART, &[("config", KUBECONFIG)], async || {
        let _api = api_server();
        let flags = ["--disable-leader-election", "--update-status=false", "--post-shutdown-grace-period=0"];
        let run = Server::start(&[&["run", "--kubeconfig=/files/config"], &flags[..]].concat());
        eventually("readiness", async || {
            let mut client = Client::try_connect(SocketAddr::new(LOOPBACK, 10254)).await.ok()?;
            (client.get("localhost", "/readyz").await.status == 200).then_some(())
        })
        .await;
        assert_eq!(Client::connect(SocketAddr::new(LOOPBACK, 80)).await.get("a.example", "/").await.status, 404);
        run.terminate();
    });
}

#[test]
fn the_right_to_low_ports_needs_no_escalation_and_its_absence_prevents_no_start() {
    for bind_service in [true, false] {
        for no_new_privileges in [true, false] {
            let grant = Grant { bind_service, no_new_privileges };
            in_image(grant, &[("web.yaml", MANIFESTS)], async move || {
                assert!(run(&["version"]).status.success(), "{grant:?}");
                let low = ["dev", "/files", "--http", "127.0.0.1:80", "--https", "127.0.0.1:0"];
                if grant.bind_service {
                    Server::start(&low).line("https on ");
                } else {
                    let output = run(&low);
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert!(!output.status.success() && said.contains("127.0.0.1:80"), "{grant:?}: {said}");
                    // The settings of the chart and of container runtimes make the right unnecessary.
                    Server::start(&["dev", "/files", "--http", "127.0.0.1:8080", "--https", "127.0.0.1:0"])
                        .line("https on ");
                }
            });
        }
    }
}
