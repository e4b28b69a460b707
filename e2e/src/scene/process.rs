//! The processes of pods, which are processes of this machine.

use std::fs;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Scene;

impl Scene {
    /// Sends a signal to the process of a pod of the namespace that has one container and knows its name from `POD_NAME`, as
    /// those of Fairway and of the echo image do. With SIGKILL it is what the kernel does when memory is short.
    ///
    /// # Errors
    /// When there is not just one such process.
    pub fn signal(&self, pod: &str, signal: Signal) -> anyhow::Result<()> {
        let process = self.process(pod)?;
        kill(Pid::from_raw(process), signal).with_context(|| format!("ending process {process} of pod {pod}"))
    }

    /// Memory of that process that is in use, in bytes.
    ///
    /// # Errors
    /// When there is not just one such process.
    pub fn resident_bytes(&self, pod: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process(pod)?))?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Ok(kibibytes.context("a process without VmRSS")?.parse::<u64>()? * 1024)
    }

    /// The process id, as this machine sees it.
    fn process(&self, pod: &str) -> anyhow::Result<i32> {
        let name = format!("POD_NAME={pod}");
        let namespaces = [format!("POD_NAMESPACE={}", self.namespace()), format!("NAMESPACE={}", self.namespace())];
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // It may have ended meanwhile.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let has = |wanted: &str| environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
            if has(&name) && namespaces.iter().any(|namespace| has(namespace)) {
                found.push(process);
            }
        }
        ensure!(found.len() == 1, "processes of pod {pod}: {found:?}");
        Ok(found[0])
    }
}
