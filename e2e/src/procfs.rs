//! The processes of this machine and their namespaces, as shown in `/proc`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kinds of namespaces that a process of a cluster may have of its own.
pub const KINDS: [&str; 5] = ["net", "mnt", "pid", "ipc", "uts"];

/// A process of this machine. It may end at any time; then it can no longer be inspected.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Process(i32);

/// All processes.
///
/// # Errors
/// When `/proc` can't be read.
pub fn all() -> io::Result<impl Iterator<Item = Process>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| Some(Process(entry.file_name().to_str()?.parse().ok()?))))
}

/// The processes, other than this one, that are in one of `namespaces`, of any kind.
///
/// # Errors
/// When `/proc` can't be read.
pub fn inhabitants(namespaces: &[Namespace]) -> io::Result<Vec<Process>> {
    let own = std::process::id();
    let is_inside = |process: &Process| {
        let inside = |kind| namespaces.iter().any(|namespace| namespace.holds(*process, kind));
        u32::try_from(process.0) != Ok(own) && KINDS.into_iter().any(inside)
    };
    Ok(all()?.filter(is_inside).collect())
}

impl Process {
    /// The process with this id, as seen by this process.
    pub fn new(id: i32) -> Self {
        Self(id)
    }

    /// Its id, as seen by this process.
    pub fn id(self) -> i32 {
        self.0
    }

    /// The path of its file or folder in `/proc`.
    pub fn path(self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(name)
    }

    /// The words of its command line.
    ///
    /// # Errors
    /// If it has ended.
    pub fn words(self) -> io::Result<Vec<String>> {
        Ok(self.list("cmdline")?.split_terminator('\0').map(str::to_owned).collect())
    }

    /// The environment it was started with.
    ///
    /// # Errors
    /// If it has ended.
    pub fn environment(self) -> io::Result<BTreeMap<String, String>> {
        let text = self.list("environ")?;
        let variables = text.split('\0').filter_map(|variable| variable.split_once('='));
        Ok(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn list(self, name: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.path(name))?).into_owned())
    }

    /// A line of its status, such as `Uid` or `VmRSS` of proc_pid_status(5).
    ///
    /// # Errors
    /// If it has ended, or has no such line.
    pub fn field(self, name: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.path("status"))?;
        let line = text.lines().filter_map(|line| line.split_once(':')).find(|(known, _)| *known == name);
        line.map(|(_, value)| value.trim().to_owned())
            .ok_or_else(|| io::Error::other(format!("no {name} in its status")))
    }

    /// Its parent, or its new parent if that has ended.
    pub fn parent(self) -> Option<Self> {
        Some(Self(self.stat(4)?.parse().ok()?))
    }

    /// The time of its start, in kernel units: distinguishes it from a later one with the same id.
    pub fn birth(self) -> Option<String> {
        self.stat(22)
    }

    /// How long it has had a processor, to a hundredth of a second.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu(self) -> io::Result<Duration> {
        let ticks = |number| self.stat(number)?.parse::<u64>().ok();
        let ticks = ticks(14).zip(ticks(15)).map(|(user, system)| user + system);
        // Linux shows a hundred ticks a second, whatever the kernel's own clock.
        ticks.map(|ticks| Duration::from_millis(ticks * 10)).ok_or_else(|| io::Error::other("it has ended"))
    }

    /// A field by its number in proc_pid_stat(5), from 3 on: the second one, in parentheses, may contain anything.
    fn stat(self, number: usize) -> Option<String> {
        let text = fs::read_to_string(self.path("stat")).ok()?;
        text.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 3).map(str::to_owned)
    }

    /// One of its namespaces, of a kind in [`KINDS`].
    ///
    /// # Errors
    /// If it has ended, or without root's rights.
    pub fn namespace(self, kind: &str) -> io::Result<Namespace> {
        Namespace::open(&self.path("ns").join(kind))
    }
}

/// A namespace that is held open. The kernel identifies namespaces by a number and reuses the numbers of those that are
/// gone: the number refers to this one only while it is held.
#[derive(Debug)]
pub struct Namespace {
    _file: File,
    number: u64,
}

impl Namespace {
    /// Opens the namespace of a file, which is a link in `/proc/PID/ns` or was created by `ip netns`.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    /// The namespace of an open file.
    ///
    /// # Errors
    /// When the file can't be looked at.
    pub fn of(file: File) -> io::Result<Self> {
        Ok(Self { number: file.metadata()?.ino(), _file: file })
    }

    /// Whether the process is in it.
    pub fn holds(&self, process: Process, kind: &str) -> bool {
        fs::metadata(process.path("ns").join(kind)).is_ok_and(|metadata| metadata.ino() == self.number)
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_known_of_a_process() {
        let mut child =
            Command::new("cat").env("COLOUR", "a=b").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Before it responds, the kernel may still be loading it, and its command line is empty.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let process = Process::new(child.id().try_into().unwrap());
        let own = Process::new(std::process::id().try_into().unwrap());
        assert!(all().unwrap().any(|other| other == process));
        assert_eq!(process.words().unwrap(), ["cat"]);
        assert_eq!(process.environment().unwrap()["COLOUR"], "a=b");
        assert_eq!(process.parent(), Some(own));
        assert!(process.birth().unwrap().parse::<u64>().unwrap() >= own.birth().unwrap().parse::<u64>().unwrap());
        assert_eq!(process.field("Pid").unwrap(), process.id().to_string());
        assert!(process.field("Colour").is_err());
        let namespace = own.namespace("net").unwrap();
        assert!(namespace.holds(process, "net") && !namespace.holds(process, "pid"));
        assert!(inhabitants(&[namespace]).unwrap().contains(&process));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(process.birth().is_none() && process.words().is_err());
    }
}
