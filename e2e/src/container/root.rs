//! The files of a container: a private mount namespace with the image's files, the usual kernel file systems and the
//! volumes, and nothing of the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, pivot_root, sethostname};
use serde::{Deserialize, Serialize};

/// How to assemble the root file system.
#[derive(Debug, Deserialize, Serialize)]
pub struct RootLayout {
    /// An empty directory of the host on which to build the tree; it stays empty.
    pub scratch: PathBuf,
    /// The image's files; `None` for the host's system directories and `program`.
    pub image: Option<PathBuf>,
    /// The file to show as `/fairway-cluster` in an image of the host's directories.
    pub program: PathBuf,
    /// Whether everything except volumes is read-only.
    pub read_only: bool,
    /// Whether all of `/proc` and `/sys` is visible and writable.
    pub privileged: bool,
    /// The host name.
    pub hostname: String,
    /// Small files: path in the container, content.
    pub files: Vec<(PathBuf, String)>,
    /// Volumes, in any order.
    pub mounts: Vec<Mount>,
}

/// A file or directory of the host that is visible in the container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Mount {
    /// Its path on the host.
    pub source: PathBuf,
    /// Its path in the container.
    pub target: PathBuf,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// Builds the tree and makes it the root, in new mount, IPC and UTS namespaces.
///
/// # Errors
/// If the kernel refuses a step or a source is missing.
pub(super) fn enter(layout: &RootLayout) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS).context("new namespaces")?;
    sethostname(&layout.hostname).context("setting the host name")?;
    umask(Mode::from_bits_truncate(0o022));
    // Mounts made here must not be visible outside.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("private mounts")?;

    let root = tree(layout)?;
    kernel(&root, layout.privileged)?;
    for (path, content) in &layout.files {
        let path = below(&root, path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).context("file permissions")?;
    }
    let mut mounts: Vec<&Mount> = layout.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    for mount in mounts {
        bind(&mount.source, &below(&root, &mount.target), mount.read_only)?;
    }
    if layout.read_only {
        remount_read_only(&root)?;
    }
    chdir(&root).context("going to the new root")?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leaving the old root")?;
    chdir("/").context("going to the new root")?;
    Ok(())
}

/// The image's files as a writable mount of their own that vanishes with the container.
fn tree(layout: &RootLayout) -> anyhow::Result<PathBuf> {
    let scratch = &layout.scratch;
    mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mounting a tmpfs on {}", scratch.display()))?;
    let root = scratch.join("root");
    fs::create_dir(&root).context("making the root")?;
    if let Some(image) = &layout.image {
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        fs::create_dir(&upper).and_then(|()| fs::create_dir(&work)).context("making the overlay's directories")?;
        for directory in [&upper, &root] {
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).context("permissions of the root")?;
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", image.display(), upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("mounting an overlay over {}", image.display()))?;
        return Ok(root);
    }
    mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mounting the root")?;
    for (name, mode) in [("etc", 0o755), ("root", 0o700), ("run", 0o755), ("tmp", 0o1777), ("var", 0o755)] {
        let path = root.join(name);
        fs::create_dir(&path).with_context(|| format!("making /{name}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).context("permissions")?;
    }
    for name in ["bin", "sbin", "lib", "lib64", "usr"] {
        let source = Path::new("/").join(name);
        match fs::read_link(&source) {
            Ok(target) => symlink(target, root.join(name)).with_context(|| format!("making /{name}"))?,
            Err(_) if source.is_dir() => bind(&source, &root.join(name), true)?,
            Err(_) => {}
        }
    }
    for name in ["etc/ld.so.cache", "etc/ld.so.conf", "etc/alternatives", "etc/ssl"] {
        let source = Path::new("/").join(name);
        if source.exists() {
            bind(&source, &root.join(name), true)?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .and_then(|()| fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n"))
        .context("writing /etc/passwd")?;
    bind(&layout.program, &root.join("fairway-cluster"), true)?;
    Ok(root)
}

/// Mounts `/proc`, `/dev` and `/sys`, and hides what container runtimes hide.
fn kernel(root: &Path, privileged: bool) -> anyhow::Result<()> {
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let at = |name: &str, kind: &str, flags: MsFlags, options: Option<&str>| -> anyhow::Result<()> {
        let path = root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making /{name}"))?;
        mount(Some(kind), &path, Some(kind), flags, options).with_context(|| format!("mounting /{name}"))
    };
    at("proc", "proc", guarded, None)?;
    let seal = if privileged { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    at("sys", "sysfs", guarded | seal, None)?;
    at("dev", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, Some("mode=755,size=65536k"))?;
    at(
        "dev/pts",
        "devpts",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    )?;
    at("dev/shm", "tmpfs", guarded, Some("mode=1777,size=65536k"))?;
    at("dev/mqueue", "mqueue", guarded, None)?;
    for (name, device) in [
        ("null", makedev(1, 3)),
        ("zero", makedev(1, 5)),
        ("full", makedev(1, 7)),
        ("random", makedev(1, 8)),
        ("urandom", makedev(1, 9)),
        ("tty", makedev(5, 0)),
    ] {
        let path = root.join("dev").join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), device).with_context(|| format!("making /dev/{name}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).with_context(|| format!("making /dev/{name}"))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, root.join("dev").join(name)).with_context(|| format!("making /dev/{name}"))?;
    }
    if privileged {
        return Ok(());
    }
    for name in ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"] {
        let path = root.join(name);
        if path.exists() {
            bind(&path, &path, true)?;
        }
    }
    for name in ["acpi", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"] {
        let path = root.join("proc").join(name);
        if path.is_dir() {
            mount(Some("tmpfs"), &path, Some("tmpfs"), guarded | MsFlags::MS_RDONLY, Some("size=0"))
                .with_context(|| format!("hiding /proc/{name}"))?;
        } else if path.exists() {
            bind(&root.join("dev/null"), &path, false)?;
        }
    }
    Ok(())
}

/// Shows `source` at `target`, which is created as the same kind of file.
fn bind(source: &Path, target: &Path, read_only: bool) -> anyhow::Result<()> {
    let name = || format!("mounting {} on {}", source.display(), target.display());
    if fs::metadata(source).with_context(name)?.is_dir() {
        fs::create_dir_all(target).with_context(name)?;
    } else if !target.exists() {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).with_context(name)?;
        }
        fs::write(target, "").with_context(name)?;
    }
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).with_context(name)?;
    if read_only {
        remount_read_only(target)?;
    }
    Ok(())
}

fn remount_read_only(target: &Path) -> anyhow::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
        .with_context(|| format!("making {} read-only", target.display()))
}

/// Converts a path of the container to a path of the host; `..` is resolved within the root.
fn below(root: &Path, path: &Path) -> PathBuf {
    let mut joined = root.to_owned();
    joined.extend(path.components().filter(|part| matches!(part, Component::Normal(_))));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_root() {
        let root = Path::new("/r");
        assert_eq!(below(root, Path::new("/../../etc/./x/..")), Path::new("/r/etc/x"));
        assert_eq!(below(root, Path::new("/")), root);
    }
}
