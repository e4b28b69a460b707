//! The cluster as a whole, as used by the command line and the tests.
//!
//! A running cluster is one network, one mount and one process namespace. Its first process, the [`supervisor`], holds
//! all of it: when that process ends, however it ends, the kernel kills all others and removes the namespaces and their
//! mounts. Only files in `target/cluster/NAME` remain.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use fairway_e2e::cluster::{Action, Cluster, Options};
//!
//! let cluster = Cluster::up("example", &Options::default()).await?;
//! cluster.enter()?; // this thread now sees pods, Nodes and the API server
//! let version = cluster.client().await?.apiserver_version().await?;
//! cluster.component("kube-apiserver", Action::Stop).await?;
//! cluster.component("kube-apiserver", Action::Start).await?;
//! cluster.down()?;
//! # Ok(())
//! # }
//! ```

pub mod audit;
mod component;
mod control;
mod credential;
pub mod layout;
pub mod network;
mod own;
mod process;
pub(crate) mod ready;
pub mod status;
pub mod supervisor;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use self::component::Options;
pub use self::control::ComponentStatus;
pub use self::own::{OwnCluster, Turn};
pub use self::process::{Action, State};

use self::control::{Connection, ControlAnswer, ControlRequest, Progress};
use self::layout::{Layout, Logs};
use crate::procfs::{self, Namespace};

/// How long the shutdown may take before it is forced, and again before it counts as failed.
const END: Duration = Duration::from_secs(15);

/// The programs needed to start a cluster.
const PROGRAMS: [&str; 6] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"];

/// Folders that helm uses if they aren't below the home folder.
const HELM_FOLDERS: [&str; 3] = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    /// The supervisor's process id, as this process sees it.
    supervisor: i32,
    /// The cluster's own network namespace.
    network: File,
}

impl Cluster {
    /// The running cluster called `name`.
    ///
    /// # Errors
    /// If there is none; the error says what to do.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        let layout = Layout::new(name)?;
        let Ok(connection) = Connection::open(&layout) else {
            let others: Vec<String> = layout::names().into_iter().filter(|other| is_running(other)).collect();
            let others = if others.is_empty() { String::new() } else { format!(" (running: {})", others.join(", ")) };
            anyhow::bail!(
                "no cluster called {name} is running{others}; start it with `cargo xtask cluster up --name {name}`"
            );
        };
        let supervisor = connection.supervisor()?;
        let path = format!("/proc/{supervisor}/ns/net");
        let network = File::open(&path).with_context(|| format!("opening {path} (root is needed)"))?;
        Ok(Self { layout, supervisor, network })
    }

    /// Starts a cluster and waits until it is ready: API server, both Nodes, both kube-proxies. Builds nothing: `cargo
    /// xtask` does that.
    ///
    /// # Errors
    /// If one with that name is running, if something is missing, or if it does not become ready. Then no part of it runs.
    pub async fn up(name: &str, options: &Options) -> anyhow::Result<Self> {
        let (name, options) = (name.to_owned(), options.clone());
        tokio::task::spawn_blocking(move || Self::start(&name, &options, |_| {})).await?
    }

    /// Like [`Cluster::up`], and reports to `progress` what it is starting.
    pub fn start(name: &str, options: &Options, mut progress: impl FnMut(&str)) -> anyhow::Result<Self> {
        let layout = Layout::new(name)?;
        let program = check()?;
        let Some(lock) = layout.try_lock()? else {
            anyhow::bail!(
                "a cluster called {name} is running already; look at it with `cargo xtask cluster status --name {name}`, \
                 end it with `cargo xtask cluster down --name {name}`"
            );
        };
        layout.clear(Logs::Remove)?;
        fs::create_dir_all(layout.logs())?;
        fs::copy(&program, layout.program()).with_context(|| format!("copying {}", program.display()))?;

        let (ours, theirs) = UnixStream::pair()?;
        let log = File::create(layout.log("supervisor"))?;
        let mut command = Command::new("setsid");
        command.args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        command.arg(layout.program()).args(["supervise", "--name", name]);
        if options.control_plane_taint {
            command.arg("--control-plane-taint");
        }
        if options.prompt_proxies {
            command.arg("--prompt-proxies");
        }
        command.stdin(lock).stdout(OwnedFd::from(theirs)).stderr(log).current_dir(layout.directory());
        let mut child = command.spawn().context("starting `setsid unshare` (Debian package util-linux)")?;
        // The command still holds the lock and the socket: their lifetime must be that of the supervisor.
        drop(command);

        for line in BufReader::new(ours).lines() {
            match serde_json::from_str(&line.context("reading from the supervisor")?)? {
                Progress::Step(what) => progress(&what),
                Progress::Ready => {
                    // Reaps the process if the cluster ends while we still run.
                    std::thread::spawn(move || child.wait());
                    return Self::find(name);
                }
                Progress::Failed(reason) => {
                    child.wait()?;
                    anyhow::bail!("the cluster {name} does not start: {reason}\nAll logs: {}", layout.logs().display());
                }
            }
        }
        let status = child.wait()?;
        let log = fs::read_to_string(layout.log("supervisor")).unwrap_or_default();
        anyhow::bail!(
            "the supervisor of the cluster {name} ended ({status}). Its log, {}:\n{log}",
            layout.log("supervisor").display()
        )
    }

    /// Stops the cluster and waits until none of its processes is left. Its logs remain until a cluster with that name
    /// starts.
    ///
    /// # Errors
    /// If something does not stop, or if commands started with [`Cluster::command`] still run in its network.
    pub fn down(&self) -> anyhow::Result<()> {
        let namespaces = self.namespaces();
        if let Ok(connection) = Connection::open(&self.layout) {
            // The end of the connection is the response.
            let _ = connection.ask(&ControlRequest::Down);
        }
        let mut lock = wait_for_lock(&self.layout)?;
        if lock.is_none() {
            kill(Pid::from_raw(self.supervisor), Signal::SIGKILL).context("ending the supervisor by force")?;
            lock = wait_for_lock(&self.layout)?;
        }
        let Some(_lock) = lock else {
            anyhow::bail!("the supervisor, process {}, does not end", self.supervisor);
        };
        self.layout.clear(Logs::Keep)?;
        let left = procfs::inhabitants(&namespaces).context("looking for processes that are left")?;
        let words = |process: &procfs::Process| process.words().unwrap_or_default().join(" ");
        let left: Vec<_> = left.iter().map(|process| format!("{} ({})", process.id(), words(process))).collect();
        anyhow::ensure!(
            left.is_empty(),
            "these processes still run in the network of the cluster: {}",
            left.join(", ")
        );
        Ok(())
    }

    /// Moves the calling thread, and only it, into the cluster's own network: it sees pods, Nodes, Services, the API server.
    pub fn enter(&self) -> anyhow::Result<()> {
        network::enter(&self.network)
    }

    /// A runtime whose threads are all in the cluster's network. The calling thread enters it as well, because the
    /// future passed to `block_on` runs on it.
    pub fn runtime(&self) -> anyhow::Result<tokio::runtime::Runtime> {
        self.enter()?;
        let network = self.network.try_clone()?;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            // The calling thread was able to, so the others are as well.
            .on_thread_start(move || network::enter(&network).expect("a thread enters the network like the first one"))
            .build()
            .context("building a runtime")
    }

    /// Runs `work` on a thread of its own in the cluster's network; the calling thread stays where it is.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        network::inside(&self.network, work)
    }

    /// A client with all rights; use it on a thread that has [entered](Self::enter).
    pub async fn client(&self) -> anyhow::Result<kube::Client> {
        ready::client(&self.layout.kubeconfig()).await
    }

    /// Runs `program` in the cluster's own network, with `KUBECONFIG`, a `PATH` that starts with the built kubectl and
    /// helm, and a home folder that ends with the cluster, so that programs share no state with the caller. Its process
    /// is the program itself: signals reach it. Wait for it before [`Cluster::down`].
    pub fn command(&self, program: &str) -> Command {
        self.command_at(&format!("/proc/{}/ns/net", self.supervisor), program)
    }

    /// Like [`Cluster::command`], in the network of a Node (`node-a`) or of another namespace named by the kubelet.
    pub fn command_in(&self, namespace: &str, program: &str) -> Command {
        let path = network::namespace(namespace);
        self.command_at(&format!("/proc/{}/root{}", self.supervisor, path.display()), program)
    }

    fn command_at(&self, network: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={network}")).arg("--").arg(program);
        self.environment(&mut command);
        let home = self.directory().join("home");
        for variable in HELM_FOLDERS {
            command.env(variable, home.join(variable.to_lowercase()));
        }
        command.env("HOME", home);
        command
    }

    /// A command line in all namespaces of the cluster, or with the network of a Node; it ends with the cluster.
    pub fn shell(&self, node: Option<&str>, words: &[OsString]) -> anyhow::Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.supervisor)).args(["--mount", "--pid"]);
        match node {
            Some(node) => {
                let path = format!("/proc/{}/root{}", self.supervisor, network::namespace(node).display());
                anyhow::ensure!(Path::new(&path).exists(), "no Node is called {node}; there are node-a and node-b");
                command.arg(format!("--net={path}"));
            }
            None => drop(command.arg("--net")),
        }
        let folder = std::env::current_dir().context("the current folder")?;
        command.arg(format!("--wdns={}", folder.display())).arg("--");
        // nsenter stays outside and waits: if it is killed, so is the command.
        command.args(["setpriv", "--pdeathsig", "TERM", "--"]).args(words);
        self.environment(&mut command);
        Ok(command)
    }

    fn environment(&self, command: &mut Command) {
        let mut path = layout::tools().into_os_string();
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        command.env("PATH", path).env("KUBECONFIG", self.layout.kubeconfig());
    }

    /// `target/cluster/NAME`.
    pub fn directory(&self) -> &Path {
        self.layout.directory()
    }

    /// The paths of its files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The supervisor's process id, as this process sees it.
    pub fn supervisor(&self) -> i32 {
        self.supervisor
    }

    /// Applies `action` to the component called `name` (`kube-apiserver`, `kube-proxy-node-a`, ...), and returns when
    /// it is done.
    pub async fn component(&self, name: &str, action: Action) -> anyhow::Result<()> {
        let layout = self.layout.clone();
        let request = ControlRequest::Component { name: name.to_owned(), action };
        tokio::task::spawn_blocking(move || ask(&layout, &request)).await??;
        Ok(())
    }

    /// The state of each component.
    pub fn components(&self) -> anyhow::Result<Vec<ComponentStatus>> {
        match ask(&self.layout, &ControlRequest::Status)? {
            ControlAnswer::Components(components) => Ok(components),
            answer => anyhow::bail!("the supervisor answered {answer:?}"),
        }
    }

    /// The network namespaces of the cluster.
    fn namespaces(&self) -> Vec<Namespace> {
        let root = PathBuf::from(format!("/proc/{}/root{}", self.supervisor, network::namespace("").display()));
        let named = fs::read_dir(root).into_iter().flatten().flatten();
        let named = named.filter_map(|entry| Namespace::open(&entry.path()).ok());
        let own = self.network.try_clone().and_then(Namespace::of);
        named.chain(own.ok()).collect()
    }
}

/// Stops the cluster called `name`, or removes the remains of a dead one. Returns whether it was running.
pub fn down(name: &str) -> anyhow::Result<bool> {
    if let Ok(cluster) = Cluster::find(name) {
        cluster.down()?;
        return Ok(true);
    }
    let layout = Layout::new(name)?;
    if !layout.directory().exists() {
        return Ok(false);
    }
    let Some(_lock) = wait_for_lock(&layout)? else {
        anyhow::bail!("the cluster {name} is just starting or ending; try again, or end its `cargo xtask cluster up`");
    };
    layout.clear(Logs::Keep)?;
    Ok(false)
}

fn is_running(name: &str) -> bool {
    Layout::new(name).is_ok_and(|layout| Connection::open(&layout).is_ok())
}

fn ask(layout: &Layout, request: &ControlRequest) -> anyhow::Result<ControlAnswer> {
    let connection = Connection::open(layout).with_context(|| format!("the cluster {} has ended", layout.name()))?;
    connection.ask(request)
}

/// Checks the requirements of a cluster; returns the program that it will run.
fn check() -> anyhow::Result<PathBuf> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "root is needed: namespaces, bridges and routes are made");
    for program in PROGRAMS {
        let path = layout::tools().join(program);
        anyhow::ensure!(path.exists(), "{} is missing; `cargo xtask tools` builds it", path.display());
    }
    let current = std::env::current_exe().context("the path of this program")?;
    if current.file_name().is_some_and(|name| name == "fairway-cluster") {
        return Ok(current);
    }
    // A test: `target/debug/deps/e2e-...`, and the program is `target/debug/fairway-cluster`.
    let program = current.ancestors().nth(2).unwrap_or(&current).join("fairway-cluster");
    anyhow::ensure!(program.exists(), "{} is missing; `cargo build --bin fairway-cluster` makes it", program.display());
    Ok(program)
}

/// The lock of a stopping cluster; `None` if it has not stopped in time.
fn wait_for_lock(layout: &Layout) -> anyhow::Result<Option<File>> {
    let start = Instant::now();
    loop {
        match layout.try_lock()? {
            None if start.elapsed() < END => std::thread::sleep(Duration::from_millis(10)),
            lock => return Ok(lock),
        }
    }
}
