//! Runs commands in a running container for probes, hooks and requests to the kubelet.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;

use super::PodWorker;
use crate::container::Place;
use crate::kubelet::process::{self, ContainerProcess, Output, Program};

impl PodWorker {
    /// Runs a command in a container; returns its exit code and the start of its output.
    ///
    /// # Errors
    /// If the container does not run or the command can't be started.
    pub(crate) async fn execute(&self, container: &str, command: Vec<String>) -> Result<(i32, Vec<u8>), String> {
        let running =
            self.running_container(container).ok_or_else(|| format!("container {container} is not running"))?;
        let program = Program { command, ..running.program };
        let (sender, mut output) = mpsc::channel(2);
        let directory = self.directory().join("containers").join(container);
        let place = Place::Inside(running.process);
        let spawner = &self.kubelet.spawner;
        let started =
            process::start(spawner, self.network(), &program, place, &directory, Output::Collected(sender)).await;
        let mut process = Guard(Some(started?));
        let exit = match &mut process.0 {
            Some(process) => process.wait().await,
            None => return Err("the command did not start".to_owned()),
        };
        process.0 = None;
        let mut text = Vec::new();
        // A child of the command may hold the pipes open: its output is not awaited.
        let collect = async {
            while let Some(part) = output.recv().await {
                text.extend(part);
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), collect).await;
        Ok((process::exit_code(exit).0, text))
    }
}

/// Kills a command whose caller is gone.
struct Guard(Option<ContainerProcess>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = kill(Pid::from_raw(process.id), Signal::SIGKILL);
        }
    }
}
