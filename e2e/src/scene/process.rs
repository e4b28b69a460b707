//! The processes of pods, which are processes of this machine.

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Scene;
use crate::procfs::{self, Process};

impl Scene {
    /// Sends a signal to the [process](Self::process) of a pod. SIGKILL simulates the kernel's out-of-memory killer.
    ///
    /// # Errors
    /// If there is not exactly one such process.
    pub fn signal(&self, pod: &str, signal: Signal) -> anyhow::Result<()> {
        let process = self.process(pod)?.id();
        kill(Pid::from_raw(process), signal).with_context(|| format!("{signal} to process {process} of pod {pod}"))
    }

    /// The memory in use by the [process](Self::process) of a pod, in bytes.
    ///
    /// # Errors
    /// If there is not exactly one such process.
    pub fn resident_bytes(&self, pod: &str) -> anyhow::Result<u64> {
        let memory = self.process(pod)?.field("VmRSS")?;
        let kibibytes = memory.strip_suffix(" kB").with_context(|| format!("VmRSS is {memory}"))?;
        Ok(kibibytes.parse::<u64>()? * 1024)
    }

    /// The process of a pod of the namespace that serves: the only one with the pod's name in `POD_NAME`, as Fairway and the echo image set
    /// it, or the proxy beside a controller.
    ///
    /// # Errors
    /// If there is not exactly one such process.
    pub fn process(&self, pod: &str) -> anyhow::Result<Process> {
        match self.processes(pod)?[..] {
            [process] => Ok(process),
            _ => self.process_of(pod, "proxy"),
        }
    }

    /// The process of a Fairway pod with this role; not the parent that restarts a controller.
    ///
    /// # Errors
    /// If there is none.
    pub fn process_of(&self, pod: &str, role: &str) -> anyhow::Result<Process> {
        let found = self.processes(pod)?;
        let has = |words: Vec<String>| {
            words.get(1).is_some_and(|word| word == role) && !words.iter().any(|word| word == "--restart-on-failure")
        };
        let is_it = |process: &&Process| process.words().is_ok_and(has);
        found.iter().find(is_it).copied().with_context(|| format!("no {role} of {pod}: {found:?}"))
    }

    /// The processes of a pod of the namespace with its name in `POD_NAME`.
    ///
    /// # Errors
    /// If the processes of this machine can't be listed.
    pub fn processes(&self, pod: &str) -> anyhow::Result<Vec<Process>> {
        let is_it = |process: &Process| {
            // It may have ended in the meantime.
            let environment = process.environment().unwrap_or_default();
            let has = |name: &str, value: &str| environment.get(name).is_some_and(|known| known == value);
            has("POD_NAME", pod) && ["POD_NAMESPACE", "NAMESPACE"].iter().any(|name| has(name, self.namespace()))
        };
        Ok(procfs::all()?.filter(is_it).collect())
    }
}
