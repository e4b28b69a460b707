//! Volumes on the host: directories, and files that change all at once.
//!
//! Files that follow objects lie in a directory with a unique name, to which the link `..data` points; each visible
//! name is a link through `..data`. Replacing that one link changes all files at once, and notifies programs that watch
//! it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Payload;

/// The ownership of a volume's files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ownership {
    /// `fsGroup`: owns every file, with at least the owner's read permission.
    pub group: Option<u32>,
}

/// Creates an `emptyDir`, in memory if requested, and keeps an existing one.
///
/// # Errors
/// If the directory can't be created or mounted.
pub(crate) fn empty_directory(path: &Path, memory: bool, limit: Option<&str>, ownership: Ownership) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    if memory {
        // The kernel's suffixes are powers of two; the API's "Mi" is the kernel's "m".
        let size = limit.map(|limit| limit.trim_end_matches('i').to_lowercase());
        let options = size.map_or("mode=777".to_owned(), |size| format!("mode=777,size={size}"));
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
    }
    chown(path, None, ownership.group)?;
    let mode = if ownership.group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes `path` show exactly `payload`, in one step.
///
/// # Errors
/// If a file can't be written.
pub(crate) fn write(path: &Path, payload: &Payload, ownership: Ownership) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let directory = |path: &Path| {
        fs::create_dir_all(path)?;
        chown(path, None, ownership.group)?;
        let mode = if ownership.group.is_some() { 0o2775 } else { 0o755 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    directory(path)?;
    let old = fs::read_link(path.join("..data")).ok();
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("..{moment}.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let fresh = path.join(&name);
    directory(&fresh)?;
    for (file, entry) in payload {
        let file = fresh.join(file);
        if let Some(parent) = file.parent().filter(|parent| *parent != fresh) {
            directory(parent)?;
        }
        fs::write(&file, &entry.content)?;
        let mode = if ownership.group.is_some() { entry.mode | 0o440 } else { entry.mode };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
        chown(&file, entry.owner, ownership.group)?;
    }
    let temporary = path.join("..data_tmp");
    let _ = fs::remove_file(&temporary);
    symlink(&name, &temporary)?;
    fs::rename(&temporary, path.join("..data"))?;

    // Only now add the names of new files and remove those of deleted files.
    let names: BTreeSet<&str> = payload.keys().filter_map(|file| file.split('/').next()).collect();
    for name in &names {
        let link = path.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| !name.starts_with("..") && !names.contains(name)) {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(path.join(old))?;
    }
    Ok(())
}

/// Removes a pod's directory and what is mounted below it. Host paths are never below it.
///
/// # Errors
/// If something can't be removed.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new).filter(|at| at.starts_with(path));
    for mounted in below.collect::<Vec<_>>().into_iter().rev() {
        umount2(mounted, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let entry = |text: &str| Entry { content: text.as_bytes().to_vec(), mode: 0o600, owner: None };
        files.iter().map(|(name, text)| ((*name).to_owned(), entry(text))).collect()
    }

    #[test]
    fn files_change_all_at_once_and_names_follow() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("volume");
        write(&path, &payload(&[("a", "1"), ("sub/b", "2"), ("gone", "3")]), Ownership::default()).expect("written");
        let before = fs::read_link(path.join("..data")).expect("a link");
        assert_eq!(fs::read_to_string(path.join("sub/b")).expect("a file"), "2");
        assert_eq!(fs::read_link(path.join("a")).expect("a link"), Path::new("..data/a"));

        write(&path, &payload(&[("a", "4"), ("new", "5")]), Ownership { group: Some(0) }).expect("written");
        assert_eq!(fs::read_to_string(path.join("a")).expect("a file"), "4");
        assert_eq!(fs::read_to_string(path.join("new")).expect("a file"), "5");
        let mode = fs::metadata(path.join("a")).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o640, "the group may read");
        assert!(path.join("gone").symlink_metadata().is_err() && path.join("sub").symlink_metadata().is_err());
        assert!(!path.join(before).exists(), "the old files are removed");
        remove_all(&path).expect("removed");
        assert!(!path.exists());
    }
}
