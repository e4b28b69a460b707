//! Finds the files in a set of paths, and the folders to watch.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
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
    source: io::Error,
}

/// Fails for the first path that doesn't exist.
pub(super) fn check(paths: &[PathBuf]) -> Result<(), NoSuchPath> {
    paths.iter().try_for_each(|path| match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        // Findings name a file and a line in it.
        Err(_) if path.as_os_str() == "-" => {
            let advice = "standard input is not read: write it to a file, such as all.yaml, and give that";
            Err(NoSuchPath { path: path.clone(), source: io::Error::other(advice) })
        }
        Err(source) => Err(NoSuchPath { path: path.clone(), source }),
    })
}

/// Whether a file in a folder is read, by its extension.
pub(super) fn is_manifest(file: &Path) -> bool {
    file.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found == *known))
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files, sorted.
    pub(super) files: BTreeSet<Arc<Path>>,
    /// Folders and other paths that nothing can be seen of, and why.
    pub(super) unreadable: BTreeMap<Arc<Path>, String>,
}

/// The files in these paths. A root that has been deleted in the meantime has none.
pub(super) fn files(roots: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for root in roots {
        match std::fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => {
                walk(root, DEPTH, &mut HashSet::new(), &mut |path, entry| match entry {
                    Visited::File if is_manifest(path) => _ = found.files.insert(path.into()),
                    Visited::File | Visited::Folder => {}
                    Visited::Unreadable(error) => found.note(path, &error),
                });
            }
            Ok(_) => _ = found.files.insert(root.as_path().into()),
            Err(error) => found.note(root, &error),
        }
    }
    found
}

impl Found {
    /// A path that is gone, or a symlink that leads nowhere yet, is no fault.
    fn note(&mut self, path: &Path, error: &io::Error) {
        if error.kind() != io::ErrorKind::NotFound {
            self.unreadable.insert(path.into(), error.to_string());
        }
    }

    /// Whether a file may still be there, because it is within what can't be seen.
    pub(super) fn hides(&self, file: &Path) -> bool {
        file.ancestors().any(|path| self.unreadable.contains_key(path))
    }
}

/// What a path is.
enum Visited {
    File,
    Folder,
    Unreadable(io::Error),
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
            walk(root, DEPTH, &mut HashSet::new(), &mut |path, entry| match entry {
                Visited::File => note(path, false),
                Visited::Folder => note(path, true),
                Visited::Unreadable(_) => {}
            });
        }
        // The root itself may be replaced, as most editors do when they save a file.
        folders.insert(holder(root));
    }
    folders
}

/// Visits the contents of a folder. It follows symlinks, and skips hidden names: these are editors' files, or the versions behind the
/// symlinks of a mounted ConfigMap, which would count twice.
fn walk(folder: &Path, depth: u8, seen: &mut HashSet<PathBuf>, visit: &mut dyn FnMut(&Path, Visited)) {
    let real = match folder.canonicalize() {
        Ok(real) => real,
        Err(error) => return visit(folder, Visited::Unreadable(error)),
    };
    if depth == 0 || !seen.insert(real) {
        return;
    }
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return visit(folder, Visited::Unreadable(error)),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        // This follows a symlink; a dangling one is not a file yet.
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                visit(&path, Visited::Unreadable(error));
                continue;
            }
        };
        // Reading a pipe or a socket might never end.
        if metadata.is_file() {
            visit(&path, Visited::File);
        }
        if metadata.is_dir() {
            visit(&path, Visited::Folder);
            walk(&path, depth - 1, seen, visit);
        }
    }
}
