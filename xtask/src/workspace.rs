//! The repository that a task works on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::console::Console;
use crate::shell;

/// The paths a task works with.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) console: Console,
}

impl Workspace {
    /// The repository that this program was built from.
    pub(crate) fn find(console: Console) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent folder")?.to_owned();
        Ok(Self { root, console })
    }

    /// The cargo that runs this program.
    pub(crate) fn cargo(&self) -> Command {
        self.command(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
    }

    /// A program that runs in the root of the repository.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }
    /// The target folder of this build of cargo.
    pub(crate) fn target_folder(&self) -> anyhow::Result<PathBuf> {
        let mut command = self.cargo();
        command.args(["metadata", "--format-version", "1", "--no-deps"]);
        let json: Value =
            serde_json::from_slice(&shell::read(&mut command)?).context("cargo metadata printed no JSON")?;
        Ok(json["target_directory"].as_str().context("cargo metadata names no target folder")?.into())
    }
}
