//! Locks between runs of this program in one tree. The kernel releases a lock when its process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::Context;

use crate::console::Console;

/// A lock held for as long as the value lives. The file names the holder.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The holder of a lock.
#[derive(Debug)]
pub(crate) struct Holder(String);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Lock {
    /// Takes the lock on the file at `path`, or returns its holder.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Result<Self, Holder>> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Ok(Self::held(file, path)?)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).with_context(|| format!("reading {}", path.display()))?;
                Ok(Err(Holder(holder)))
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
        }
    }

    /// Takes the lock, and prints the holder if it has to wait.
    pub(crate) fn wait(path: &Path, console: &Console) -> anyhow::Result<Self> {
        let holder = match Self::take(path)? {
            Ok(lock) => return Ok(lock),
            Err(holder) => holder,
        };
        console.line(&format!("waiting for {holder}, which has locked {}", path.display()));
        let file = open(path)?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Self::held(file, path)
    }

    fn held(mut file: File, path: &Path) -> anyhow::Result<Self> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let holder = format!("process {}, `cargo xtask {}`", std::process::id(), words.join(" "));
        let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(holder.as_bytes()));
        written.with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    let folder = path.parent().context("a lock without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.with_context(|| format!("opening {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_others_learn_who() {
        let path = std::env::temp_dir().join(format!("fairway-lock-{}", std::process::id()));
        let lock = Lock::take(&path).unwrap().unwrap();
        for _ in 0..2 {
            let holder = Lock::take(&path).unwrap().unwrap_err();
            assert!(holder.to_string().starts_with(&format!("process {}, ", std::process::id())), "{holder}");
        }
        drop(lock);
        let lock = Lock::wait(&path, &Console::new(false)).unwrap();
        assert!(Lock::take(&path).unwrap().is_err());
        drop(lock);
        fs::remove_file(path).unwrap();
    }
}
