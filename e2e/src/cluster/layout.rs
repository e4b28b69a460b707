//! The paths of a cluster's files: all of them under `target/`.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;

/// The maximum length of a Unix socket's path, without its final zero byte: `sun_path` of unix(7).
const LONGEST_SOCKET_PATH: usize = 107;

/// A cluster's name: at most 32 lower-case letters, digits and `-`, so that it can be part of a path and of a host
/// name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name(String);

/// The name is not valid for a cluster.
#[derive(Debug)]
pub struct InvalidName(String);

/// The files of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    name: Name,
    directory: PathBuf,
}

impl Layout {
    /// The files of the cluster called `name`.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let name: Name = name.parse()?;
        let directory = target().join("cluster").join(&name.0);
        let layout = Self { name, directory };
        let length = layout.control().as_os_str().len();
        anyhow::ensure!(
            length <= LONGEST_SOCKET_PATH,
            "{} has {length} bytes and a socket's path at most {LONGEST_SOCKET_PATH}: choose a shorter cluster name, or \
             move the repository to a shorter path",
            layout.control().display()
        );
        Ok(layout)
    }

    /// The name of the cluster.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// `target/cluster/NAME`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The Unix socket on which the supervisor listens.
    pub fn control(&self) -> PathBuf {
        self.directory.join("control")
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// The folder for logs.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// The log of one component.
    pub fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    /// The requests to kube-apiserver and its responses, a line of JSON per request.
    pub fn audit_log(&self) -> PathBuf {
        self.logs().join("audit.log")
    }

    /// Certificates, keys, kubeconfigs of the components.
    pub fn credentials(&self) -> PathBuf {
        self.directory.join("credentials")
    }

    /// The cluster's copy of this program, so that a new build does not change a running cluster.
    pub fn program(&self) -> PathBuf {
        self.directory.join("fairway-cluster")
    }

    /// The files of a Node's kubelet.
    pub fn node(&self, node: &str) -> PathBuf {
        self.directory.join("nodes").join(node)
    }

    /// Takes the cluster's lock, which is held for as long as any process of the cluster lives; `None` if another one
    /// holds it.
    ///
    /// The lock is on the directory itself, so that it needs no separate file.
    pub fn try_lock(&self) -> anyhow::Result<Option<File>> {
        fs::create_dir_all(&self.directory).with_context(|| format!("creating {}", self.directory.display()))?;
        let file = File::open(&self.directory).with_context(|| format!("opening {}", self.directory.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("locking {}", self.directory.display()))
            }
        }
    }

    /// Removes everything except the logs, or everything. Requires the lock.
    pub fn clear(&self, logs: Logs) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.directory).with_context(|| format!("reading {}", self.directory.display()))? {
            let path = entry?.path();
            if logs == Logs::Keep && path == self.logs() {
                continue;
            }
            let removed =
                if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }
}

/// What to do with the logs when a cluster's directory is cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Logs {
    /// Keep them, for reading after the end.
    Keep,
    /// Remove them as well.
    Remove,
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=32).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.to_owned())) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no name for a cluster: 1 to 32 lower-case letters, digits and `-`", self.0)
    }
}

impl std::error::Error for InvalidName {}

/// `target/` of the repository, regardless of `CARGO_TARGET_DIR`: programs built once (the control plane) are shared by
/// all.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join("target")).unwrap_or_default()
}

/// The folder with the programs of the control plane, kubectl and helm; `cargo xtask cluster up` builds them.
pub fn tools() -> PathBuf {
    target().join("tools").join("bin")
}

/// The root file system of Fairway's image; `cargo xtask image` builds it.
pub fn image() -> PathBuf {
    target().join("image").join("rootfs")
}

/// The names of all clusters with a directory, running or not, in order.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(target().join("cluster")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_part_of_a_path() {
        for name in ["dev", "e2e-2", "0"] {
            assert!(name.parse::<Name>().is_ok(), "{name}");
        }
        for name in ["", "..", "a/b", "Dev", "-dev", "a.b", &"a".repeat(33)] {
            assert!(name.parse::<Name>().is_err(), "{name}");
        }
    }
}
