//! The first process of a container: enters its namespaces, drops its rights, becomes the program.
//!
//! The kubelet starts it inside the pod's network namespace as the first process of a new PID namespace (or, for a
//! command in a running container, inside that container's PID namespace). It has one thread, so it may change its own
//! mount namespace, and it ends with `exec`: the program sees the same as under a container runtime. Its standard input
//! is a pipe to the kubelet, which carries the error if the start fails; end of file means that the program runs.

pub mod rights;
pub mod root;
mod seccomp;

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{chdir, dup2_stdin, setsid};
use serde::{Deserialize, Serialize};

/// The program to become. Written by the kubelet as JSON.
#[derive(Debug, Deserialize, Serialize)]
pub struct Spec {
    /// The namespaces of the process.
    pub place: Place,
    /// The program and its arguments, never empty. A name without `/` is looked up in the `PATH` of [`Self::environment`].
    pub command: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The directory in which the program starts; created if it is missing in a new container.
    pub working_directory: PathBuf,
    /// The rights of the program.
    pub rights: rights::Rights,
}

/// The namespaces of a process.
#[derive(Debug, Deserialize, Serialize)]
pub enum Place {
    /// A new container.
    New(root::RootLayout),
    /// The running container whose first process has this id.
    Inside(i32),
}

/// Becomes the program described by the file. Returns only on failure; the error goes to the pipe on standard input,
/// and the exit code is that of container runtimes, 128.
pub fn main(spec: &Path) -> ExitCode {
    // The only copy of the pipe that survives the start: closed by `exec`.
    let report = std::io::stdin().as_fd().try_clone_to_owned();
    let Err(error) = start(spec);
    match report {
        Ok(pipe) => {
            let _ = write!(File::from(pipe), "{error:#}");
        }
        Err(_) => eprintln!("{error:#}"),
    }
    ExitCode::from(128)
}

fn start(path: &Path) -> anyhow::Result<Infallible> {
    let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let spec: Spec = serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    let null = File::options().read(true).write(true).open("/dev/null").context("opening /dev/null")?;
    dup2_stdin(&null).context("replacing the standard input")?;
    let _ = setsid();

    match &spec.place {
        Place::New(layout) => root::enter(layout)?,
        Place::Inside(process) => enter(*process)?,
    }
    if let Place::New(_) = spec.place {
        std::fs::create_dir_all(&spec.working_directory)
            .with_context(|| format!("making the working directory {}", spec.working_directory.display()))?;
    }
    chdir(&spec.working_directory).with_context(|| format!("going to {}", spec.working_directory.display()))?;
    rights::apply(&spec.rights)?;
    // After the change of user, which resets this: no process survives its kubelet.
    prctl::set_pdeathsig(Signal::SIGKILL).context("tying the container to its kubelet")?;

    let (program, arguments) = spec.command.split_first().context("no command")?;
    // The standard library's `exec` restores the default disposition of SIGPIPE and an empty signal mask.
    let error =
        Command::new(program).args(arguments).env_clear().envs(spec.environment.iter().map(|(k, v)| (k, v))).exec();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound if !program.contains('/') => {
            anyhow::anyhow!("exec: \"{program}\": executable file not found in $PATH")
        }
        _ => anyhow::Error::new(error).context(format!("exec {program}")),
    })
}

/// Joins the namespaces of a running container; the parent has joined those of network and processes.
fn enter(process: i32) -> anyhow::Result<()> {
    let kinds =
        [("ipc", CloneFlags::CLONE_NEWIPC), ("uts", CloneFlags::CLONE_NEWUTS), ("mnt", CloneFlags::CLONE_NEWNS)];
    let mut open = Vec::new();
    for (name, flag) in kinds {
        let path = format!("/proc/{process}/ns/{name}");
        open.push((File::open(&path).with_context(|| format!("opening {path}"))?, flag));
    }
    for (namespace, flag) in open {
        setns(namespace, flag).context("joining the container's namespaces")?;
    }
    Ok(())
}
