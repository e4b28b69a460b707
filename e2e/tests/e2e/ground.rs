//! A cluster for one test alone, in which a user types commands; and processes beside a test.

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

    /// Runs a line of bash in the top folder of the repository and in the cluster's network; its output.
    pub(crate) fn bash(&self, line: &str) -> Output {
        let mut command = self.cluster.command("timeout");
        command.args(["--kill-after=10", "300", "bash", "-euo", "pipefail", "-c", line]).current_dir(repository());
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

/// A process that ends with the value at the latest. Nothing of it may be left when the cluster ends in whose network it is.
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
