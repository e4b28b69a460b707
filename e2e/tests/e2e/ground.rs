//! A cluster for one test alone: for tests about the cluster as a whole, such as installing and removing.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fairway_e2e::cluster::{Cluster, Options};

/// One at a time: each is a whole control plane.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster that ends with the value. Its logs stay in `target/cluster/NAME/logs` until the next run.
pub(crate) struct Ground {
    cluster: Cluster,
    _turn: MutexGuard<'static, ()>,
}

impl Ground {
    pub(crate) fn new(name: &str, options: &Options) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(left) = Cluster::find(name) {
            // Of a run that was ended by force.
            left.down().expect("the cluster of an earlier run ends");
        }
        let cluster = Cluster::start(name, options, |_| {}).expect("the cluster starts");
        Self { cluster, _turn: turn }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs a line of bash in the top folder of the repository and in the cluster's network; its output.
    pub(crate) fn bash(&self, line: &str) -> Output {
        let mut command = self.cluster.command("timeout");
        command.args(["--kill-after=10", "300", "bash", "-euo", "pipefail", "-c", line]).current_dir(repository());
        private(&mut command, self.cluster.directory());
        command.output().expect("bash starts")
    }

    /// What the line prints; it has to succeed.
    #[track_caller]
    pub(crate) fn read(&self, line: &str) -> String {
        let output = self.bash(line);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "`{line}`: {}\n{text}{errors}\n{}", output.status, self.place());
        text.trim_end().to_owned()
    }

    /// Where to look after a failure.
    pub(crate) fn place(&self) -> String {
        format!("Logs: {}", self.cluster.layout().logs().display())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        match self.cluster.down() {
            Err(error) if !std::thread::panicking() => panic!("the cluster doesn't end: {error:#}"),
            Err(error) => eprintln!("the cluster doesn't end: {error:#}"),
            Ok(()) => (),
        }
    }
}

/// The top folder of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// Keeps what helm and kubectl remember out of the home folder of who runs the tests.
pub(crate) fn private(command: &mut Command, directory: &Path) {
    for (variable, folder) in
        [("HOME", "home"), ("HELM_CACHE_HOME", "home/c"), ("HELM_CONFIG_HOME", "home/f"), ("HELM_DATA_HOME", "home/d")]
    {
        command.env(variable, directory.join(folder));
    }
}
