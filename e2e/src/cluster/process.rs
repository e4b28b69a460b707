//! The running components: started, stopped, paused, and reaped.
//!
//! The supervisor is the first process of its process namespace, so every orphan in it becomes its child. It reaps all
//! of them in one place, [`Processes::reap`]. No other code may wait for a child in between; that holds because the
//! supervisor has one thread and runs everything else to completion without an `await`.

use std::fs::{self, File, OpenOptions};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cluster::component::Component;

/// How long a component may take to exit by itself. With open watches kube-apiserver would take a minute.
const GRACE: Duration = Duration::from_secs(5);

/// How many log lines to show of a component that exited by itself.
const LAST_LINES: usize = 15;

/// An action on a component.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Ask it to exit, and kill it after 5 seconds. Returns when it has exited.
    Stop,
    /// Kill it, as a crash would.
    Kill,
    /// Start it again with the same arguments and data.
    Start,
    /// Freeze it: its sockets stay open, but it does not respond.
    Pause,
    /// Let it continue.
    Resume,
}

/// The state of a component.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not started yet.
    Waiting,
    /// It runs, with this number in the cluster's process namespace.
    Running {
        /// Its process id there.
        pid: i32,
        /// Whether it is frozen.
        paused: bool,
    },
    /// Exited on request.
    Stopped,
    /// Exited by itself, and how.
    Died(String),
}

#[derive(Clone, Debug)]
struct ProcessEntry {
    component: Component,
    state: State,
    /// It was asked to exit.
    stopping: bool,
}

/// All components of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    entries: Arc<Mutex<Vec<ProcessEntry>>>,
    changes: watch::Sender<()>,
}

impl Processes {
    pub(crate) fn new(components: Vec<Component>) -> Self {
        let entry = |component| ProcessEntry { component, state: State::Waiting, stopping: false };
        let entries = components.into_iter().map(entry).collect();
        Self { entries: Arc::new(Mutex::new(entries)), changes: watch::Sender::new(()) }
    }

    /// The components in order, with their states.
    pub(crate) fn states(&self) -> Vec<(Component, State)> {
        self.lock().iter().map(|entry| (entry.component.clone(), entry.state.clone())).collect()
    }

    /// Fails if a component has exited by itself, with the end of its log.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for entry in self.lock().iter() {
            if let State::Died(how) = &entry.state {
                let log = &entry.component.log;
                anyhow::bail!("{} ended: {how}. The end of {}:\n{}", entry.component.name, log.display(), tail(log));
            }
        }
        Ok(())
    }

    /// Waits until a process exits, whether a component or another.
    pub(crate) async fn changed(&self) {
        // The sender lives as long as `self`.
        let _ = self.changes.subscribe().changed().await;
    }

    /// Applies `action` to the component called `name`, and returns when it is done.
    pub(crate) async fn act(&self, name: &str, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Start => self.start(name),
            Action::Stop => {
                self.end(name, Signal::SIGTERM)?;
                if tokio::time::timeout(GRACE, self.ended(name)).await.is_err() {
                    self.end(name, Signal::SIGKILL)?;
                    self.ended(name).await;
                }
                Ok(())
            }
            Action::Kill => {
                self.end(name, Signal::SIGKILL)?;
                self.ended(name).await;
                Ok(())
            }
            Action::Pause => self.freeze(name, true),
            Action::Resume => self.freeze(name, false),
        }
    }

    /// Records every process that has exited, ours or an orphan.
    pub(crate) fn reap(&self) {
        loop {
            let (pid, how) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit status {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("killed by {signal}")),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "waiting for a process");
                    return;
                }
            };
            for entry in self.lock().iter_mut() {
                if matches!(entry.state, State::Running { pid: running, .. } if running == pid.as_raw()) {
                    tracing::info!(component = entry.component.name, pid = pid.as_raw(), how, "ended");
                    entry.state = if entry.stopping { State::Stopped } else { State::Died(how.clone()) };
                    entry.stopping = false;
                }
            }
            self.changes.send_replace(());
        }
    }

    fn start(&self, name: &str) -> anyhow::Result<()> {
        self.with(name, |entry| {
            anyhow::ensure!(!matches!(entry.state, State::Running { .. }), "{name} runs already");
            let log = open_log(&entry.component)?;
            let errors = log.try_clone().context("a second handle of the log")?;
            let child = entry
                .component
                .command()
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .spawn()
                .with_context(|| format!("starting {name}"))?;
            // Dropping a `Child` does not affect the process; `reap` collects it.
            let pid = i32::try_from(child.id()).context("a process id")?;
            tracing::info!(component = name, pid, "started");
            entry.state = State::Running { pid, paused: false };
            entry.stopping = false;
            Ok(())
        })
    }

    /// Sends a signal that ends the component, unless it has exited already.
    fn end(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        self.with(name, |entry| {
            match entry.state {
                State::Running { pid, paused } => {
                    entry.stopping = true;
                    kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {name}"))?;
                    if paused {
                        // A frozen process reacts only to SIGKILL.
                        kill(Pid::from_raw(pid), Signal::SIGCONT).with_context(|| format!("waking {name}"))?;
                    }
                }
                State::Died(_) => entry.state = State::Stopped,
                State::Stopped | State::Waiting => {}
            }
            Ok(())
        })
    }

    /// Waits until the component is not running. There is one thread, so nothing can exit between the check and the
    /// wait.
    async fn ended(&self, name: &str) {
        let running = |entry: &mut ProcessEntry| Ok(matches!(entry.state, State::Running { .. }));
        while self.with(name, running).unwrap_or(false) {
            self.changed().await;
        }
    }

    fn freeze(&self, name: &str, freeze: bool) -> anyhow::Result<()> {
        let signal = if freeze { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.with(name, |entry| {
            let State::Running { pid, ref mut paused } = entry.state else { anyhow::bail!("{name} does not run") };
            kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {name}"))?;
            *paused = freeze;
            Ok(())
        })
    }

    fn with<T>(&self, name: &str, work: impl FnOnce(&mut ProcessEntry) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut entries = self.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.component.name == name) {
            return work(entry);
        }
        let names: Vec<&str> = entries.iter().map(|entry| entry.component.name.as_str()).collect();
        anyhow::bail!("no component is called {name}; there are {}", names.join(", "))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ProcessEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_log(component: &Component) -> anyhow::Result<File> {
    let open = OpenOptions::new().create(true).append(true).open(&component.log);
    open.with_context(|| format!("opening {}", component.log.display()))
}

fn tail(log: &std::path::Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
