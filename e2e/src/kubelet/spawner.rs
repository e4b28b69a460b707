//! The thread that starts processes in other namespaces.
//!
//! Network namespaces and "the PID namespace of my children" belong to a thread. One thread, which lives as long as the
//! kubelet, enters a pod's namespaces, starts a process there and returns. It must live that long: the kernel kills
//! containers when the thread that started them ends, so none survives the kubelet.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A network namespace that lives as long as this is held.
#[derive(Clone, Debug)]
pub(crate) struct Network(pub(super) Arc<File>);

/// The PID namespace in which a process starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PodProcesses {
    /// A new one, with it as the first process.
    New,
    /// That of this process.
    Of(i32),
}

type Job = Box<dyn FnOnce(&Home) + Send>;

/// Starts processes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
    /// This program, to start containers with.
    pub program: PathBuf,
}

/// The namespaces to which the thread returns.
struct Home {
    network: File,
    processes: File,
    runtime: Handle,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// If `/proc` can't be read.
    pub(crate) fn new(runtime: Handle) -> anyhow::Result<Self> {
        let home = Home {
            network: File::open("/proc/self/ns/net").context("opening the network namespace")?,
            processes: File::open("/proc/self/ns/pid").context("opening the PID namespace")?,
            runtime,
        };
        let program = std::env::current_exe().context("finding this program")?;
        let (jobs, receiver) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for job in receiver {
                    job(&home);
                }
            })
            .context("starting a thread")?;
        Ok(Self { jobs, program })
    }

    /// Creates a network namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) async fn network(&self) -> io::Result<Network> {
        self.run(|home| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let made = File::open("/proc/thread-self/ns/net");
            home.back()?;
            Ok(Network(Arc::new(made?)))
        })
        .await
    }

    /// Runs something short in a network namespace (`None` for the Node's).
    ///
    /// # Errors
    /// Those of `work`, and if the namespace can't be entered.
    pub(crate) async fn within<T: Send + 'static>(
        &self,
        network: Option<Network>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run(move |home| {
            if let Some(network) = &network {
                setns(&*network.0, CloneFlags::CLONE_NEWNET)?;
            }
            let result = work();
            home.back()?;
            result
        })
        .await
    }

    /// Starts a process in a network namespace (`None`: the Node's) and a PID namespace. `stdio` are its standard input, output
    /// and error.
    ///
    /// # Errors
    /// If a namespace can't be entered or the program can't be started.
    pub(crate) async fn spawn(
        &self,
        network: Option<Network>,
        processes: PodProcesses,
        mut command: Command,
        stdio: [OwnedFd; 3],
    ) -> io::Result<Child> {
        self.run(move |home| {
            let start = || {
                if let Some(network) = &network {
                    setns(&*network.0, CloneFlags::CLONE_NEWNET)?;
                }
                match processes {
                    PodProcesses::New => unshare(CloneFlags::CLONE_NEWPID)?,
                    PodProcesses::Of(process) => {
                        setns(File::open(format!("/proc/{process}/ns/pid"))?, CloneFlags::CLONE_NEWPID)?;
                    }
                }
                let [input, output, error] = stdio;
                command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(error));
                let _runtime = home.runtime.enter();
                command.spawn()
            };
            let child = start();
            home.back()?;
            child
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Home) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |home| {
            let _ = done.send(work(home));
        });
        let gone = || io::Error::other("the thread that starts processes is gone");
        self.jobs.send(job).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

impl Home {
    fn back(&self) -> io::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.processes, CloneFlags::CLONE_NEWPID)?;
        Ok(())
    }
}
