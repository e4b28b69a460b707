//! Finds the files in a set of paths, and the folders to watch.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Extensions of files that are read in folders. A file on the command line is read regardless of its name.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Nesting of folders.
const DEPTH: u8 = 32;

/// A path on the command line that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {}", path.display())]
pub(crate) struct NoSuchPath {
    path: PathBuf,
    source: std::io::Error,
}

/// Fails for the first path that doesn't exist.
pub(super) fn check(paths: &[PathBuf]) -> Result<(), NoSuchPath> {
    paths.iter().try_for_each(|path| match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        // Findings name a file and a line in it.
        Err(_) if path.as_os_str() == "-" => {
            let advice = "standard input is not read: write it to a file, such as all.yaml, and give that";
            Err(NoSuchPath { path: path.clone(), source: std::io::Error::other(advice) })
        }
        Err(source) => Err(NoSuchPath { path: path.clone(), source }),
    })
}

/// Whether a file in a folder is read, by its extension.
pub(super) fn is_manifest(file: &Path) -> bool {
    file.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found == *known))
}

/// The files in these paths, sorted. A root that has been deleted in the meantime has none.
pub(super) fn files(roots: &[PathBuf]) -> BTreeSet<Arc<Path>> {
    let mut files = BTreeSet::new();
    for root in roots {
        if root.is_dir() {
            walk(root, DEPTH, &mut HashSet::new(), &mut |entry, is_folder| {
                if !is_folder && is_manifest(entry) {
                    files.insert(entry.into());
                }
            });
        } else if root.exists() {
            files.insert(root.as_path().into());
        }
    }
    files
}

/// The folders where relevant changes can happen: those of the paths, and those that symlinks lead to.
pub(super) fn folders(roots: &[PathBuf]) -> HashSet<PathBuf> {
    let mut folders = HashSet::new();
    let holder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    for root in roots {
        let mut note = |entry: &Path, is_folder: bool| {
            if is_folder {
                folders.insert(entry.to_owned());
            }
            if entry.is_symlink()
                && let Ok(target) = entry.canonicalize()
            {
                folders.insert(if is_folder { target } else { holder(&target) });
            }
        };
        note(root, root.is_dir());
        if root.is_dir() {
            walk(root, DEPTH, &mut HashSet::new(), &mut note);
        }
        // The root itself may be replaced, as most editors do when they save a file.
        folders.insert(holder(root));
    }
    folders
}

/// Visits the contents of a folder. It follows symlinks, and skips hidden names: these are editors' files, or the versions behind the
/// symlinks of a mounted ConfigMap, which would count twice.
fn walk(folder: &Path, depth: u8, seen: &mut HashSet<PathBuf>, visit: &mut dyn FnMut(&Path, bool)) {
    let Ok(real) = folder.canonicalize() else { return };
    if depth == 0 || !seen.insert(real) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        // This follows a symlink; a dangling one is not a file yet.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        // Reading a pipe or a socket might never end.
        if metadata.is_dir() || metadata.is_file() {
            visit(&path, metadata.is_dir());
        }
        if metadata.is_dir() {
            walk(&path, depth - 1, seen, visit);
        }
    }
}
