//! A cluster for a single test, in which a user types commands; and background processes of a test.

use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output};

use fairway_e2e::cluster::{Cluster, Options, OwnCluster};
use fairway_e2e::scene::repository;

/// A cluster that ends with the value.
pub(crate) struct Ground {
    cluster: OwnCluster,
}

impl Ground {
    pub(crate) fn new(name: &str, options: &Options) -> Self {
        Self { cluster: OwnCluster::start(name, options).expect("the cluster starts") }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs a line of bash in the repository root and in the cluster's network; returns its output.
    pub(crate) fn bash(&self, line: &str) -> Output {
        let mut command = self.cluster.command("timeout");
        command.args(["--kill-after=10", "300", "bash", "-euo", "pipefail", "-c", line]).current_dir(repository());
        command.output().expect("bash starts")
    }

    /// Returns the output of the line, which must succeed.
    #[track_caller]
    pub(crate) fn read(&self, line: &str) -> String {
        let output = self.bash(line);
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "`{line}`: {}\n{text}{errors}\n{}", output.status, self.place());
        text.trim_end().to_owned()
    }

    /// The place to look after a failure.
    pub(crate) fn place(&self) -> String {
        format!("Logs: {}", self.cluster.layout().logs().display())
    }
}

/// A process that is killed when the value is dropped, or earlier. It must not outlive the cluster whose network it uses.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Deref for Background {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Background {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}
