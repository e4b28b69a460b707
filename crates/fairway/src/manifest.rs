//! Manifests as a source of objects: files and folders, read as `kubectl apply -f` reads them.
//!
//! Invariants: the live objects come from each file's last content that could be parsed; files are read in the order of their paths,
//! documents in file order; if an object is defined twice, the last definition counts and a finding reports it. Changing one document costs
//! one document, however large its file.

mod advice;
mod base64;
mod crd;
mod decode;
mod file;
mod node;
mod object;
mod order;
mod refusal;
mod scan;
mod settle;
mod split;
pub(crate) mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fairway_model::Origin;
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Change, Kind, Object, ObjectKey};
use foldhash::quality::RandomState;

use file::{DocumentState, FileState, Texts};
use node::Node;
pub(crate) use object::Refused;
pub(crate) use scan::NoSuchPath;
use settle::Unsettled;

/// The objects of a set of files and folders.
#[derive(Debug)]
pub(crate) struct Manifests {
    roots: Vec<PathBuf>,
    files: BTreeMap<Arc<Path>, FileState>,
    live: HashMap<ObjectKey, Live, RandomState>,
    /// Findings that appear only when files are compared.
    duplicates: Vec<Finding>,
    hasher: RandomState,
    refused: Refused,
    pending: Unsettled,
    /// The documents of deleted files, kept until the files found in the same search are read.
    gone: Vec<DocumentState>,
    /// Folders that nothing can be seen of, and why.
    unreadable: BTreeMap<Arc<Path>, String>,
    /// How often content was taken over.
    takes: u64,
}

/// A live object and its location.
#[derive(Clone, Debug)]
struct Live {
    object: Object,
    file: Arc<Path>,
    /// Line of the document, and of the object within it.
    lines: (u32, u32),
    /// Which content of its file it was in.
    taken: u64,
}

/// A diagnostic and the location of its subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub(crate) place: Option<Place>,
    pub(crate) diagnostic: Diagnostic,
}

/// Why the API server would refuse a Gateway API object or a RoutePolicy; `document` is the whole object.
pub(crate) fn refusals(object: &Object, document: &serde_json::Value) -> Vec<String> {
    let of_metadata = match object {
        Object::GatewayClass(it) => refusal::refusals(&**it),
        Object::Gateway(it) => refusal::refusals(&**it),
        Object::HTTPRoute(it) => refusal::refusals(&**it),
        Object::ReferenceGrant(it) => refusal::refusals(&**it),
        Object::RoutePolicy(it) => refusal::refusals(&**it),
        _ => Vec::new(),
    };
    let crd::Judgement { refusals, in_standard, .. } = crd::judge(object.kind().as_str(), document);
    let all = of_metadata.into_iter().chain(refusals).chain(in_standard);
    all.map(|refusal| format!("{}: \"{}\": {}", refusal.field, refusal.value, refusal.message)).collect()
}

/// A line of a file, or the whole file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    pub(crate) file: Arc<Path>,
    pub(crate) line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Number of files and objects.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    pub(crate) files: usize,
    pub(crate) objects: usize,
    /// Objects of kinds that are not read.
    pub(crate) ignored: usize,
}

impl Manifests {
    /// Stores the paths; [`reload`](Self::reload) reads them. A path that doesn't exist is an error here, but not later.
    pub(crate) fn open(paths: &[PathBuf], refused: Refused) -> Result<Self, NoSuchPath> {
        scan::check(paths)?;
        let hasher = RandomState::default();
        Ok(Self {
            roots: paths.to_vec(),
            files: BTreeMap::new(),
            live: HashMap::with_hasher(hasher.clone()),
            duplicates: Vec::new(),
            hasher,
            refused,
            pending: Unsettled::default(),
            gone: Vec::new(),
            unreadable: BTreeMap::new(),
            takes: 0,
        })
    }

    /// Reads new and changed files, and returns the objects that changed. `touched` are the paths with events, if known: if all of them are
    /// files that were read before, no folder is searched.
    pub(crate) fn reload(&mut self, touched: Option<&HashSet<PathBuf>>) -> Vec<Change> {
        let unread = self.look(touched);
        let mut changes = self.take(unread.parse());
        while self.has_more() {
            changes.extend(self.proceed());
        }
        changes
    }

    /// The first of three steps that together do the same: find new and changed files without reading them, [parse](Unread::parse) them,
    /// and [apply](Self::take) the result. The second may take long and doesn't need `self`.
    pub(crate) fn look(&mut self, touched: Option<&HashSet<PathBuf>>) -> Unread {
        let known =
            touched.filter(|paths| paths.iter().all(|path| self.files.contains_key(path.as_path()) && path.is_file()));
        let mut unread =
            Unread { files: Vec::new(), gone: Vec::new(), hasher: self.hasher.clone(), refused: self.refused };
        match known {
            Some(paths) => {
                for path in paths {
                    let state = self.files.get_key_value(path.as_path());
                    unread.files.extend(state.and_then(|(path, state)| state.look(path)));
                }
            }
            None => {
                let found = scan::files(&self.roots);
                let gone = self.files.extract_if(.., |path, _| !found.files.contains(path) && !found.hides(path));
                unread.gone.extend(gone.flat_map(|(_, state)| state.documents));
                unread.gone.append(&mut self.gone);
                self.unreadable = found.unreadable;
                for path in found.files {
                    let state = self.files.entry(path.clone()).or_default();
                    // The search has another cause. A file that is empty now may be about to be written, and gets its own event when it is.
                    let is_told = touched.is_none_or(|paths| paths.contains(&*path));
                    if !is_told && !state.documents.is_empty() && watch::is_empty(&path) {
                        continue;
                    }
                    unread.files.extend(state.look(&path));
                }
            }
        }
        unread
    }

    /// Takes back files that can't be read now: the next search finds them again.
    pub(crate) fn put_back(&mut self, unread: Unread) {
        self.gone.extend(unread.gone);
    }

    /// Whether these files define the same objects as before, perhaps in other versions.
    pub(crate) fn are_edits(&self, parsed: &Parsed) -> bool {
        parsed.files.iter().all(|file| self.files.get(&file.path).is_some_and(|state| state.is_edit(file)))
    }

    /// The files and folders given by the user.
    pub(crate) fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The folders to watch so that no change is missed.
    pub(crate) fn folders(&self) -> HashSet<PathBuf> {
        scan::folders(&self.roots)
    }

    /// Number of files and objects.
    pub(crate) fn counts(&self) -> Counts {
        let ignored =
            self.files.values().flat_map(|file| &file.documents).map(|document| document.ignored as usize).sum();
        Counts { files: self.files.len(), objects: self.live.len(), ignored }
    }

    /// The objects that are read although the API server would refuse them.
    pub(crate) fn refused(&self) -> HashSet<&ObjectKey> {
        let held = self.files.values().flat_map(|file| &file.documents).flat_map(|document| &document.objects);
        held.filter(|held| !held.good).map(|held| &held.key).collect()
    }

    /// The live objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.live.values().map(|live| &live.object)
    }

    /// Findings about the files themselves, sorted by location.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.duplicates.clone();
        for (path, error) in &self.unreadable {
            let has_content = |(file, state): (&Arc<Path>, &FileState)| file.starts_with(path) && state.taken > 0;
            let kept = self.files.iter().any(has_content);
            let kept = if kept { "; its last content stays in effect" } else { "" };
            let diagnostic = file::invalid(&file::file_origin(path), &format!("can't be read: {error}{kept}"));
            findings.push(Finding { place: Some(Place { file: path.clone(), line: None }), diagnostic });
        }
        for (path, file) in &self.files {
            let at = |line| Some(Place { file: path.clone(), line });
            if let Some(broken) = &file.broken {
                findings.push(Finding { place: at(broken.line), diagnostic: broken.diagnostic.clone() });
            }
            findings.extend(file.remark(path).map(|diagnostic| Finding { place: at(None), diagnostic }));
            for document in &file.documents {
                findings.extend(document.findings.iter().map(|(line, diagnostic)| Finding {
                    place: at(Some(document.line + line.max(&1) - 1)),
                    diagnostic: diagnostic.clone(),
                }));
            }
        }
        findings.sort_by(|a, b| a.place.cmp(&b.place));
        let mut told = HashSet::new();
        findings.retain(|Finding { diagnostic, .. }| {
            let once =
                diagnostic.message.ends_with(object::NOT_READ) || diagnostic.message == object::EXPERIMENTAL_KIND;
            !once || told.insert(diagnostic.message.clone() + &diagnostic.value)
        });
        findings
    }

    /// The location of an object.
    pub(crate) fn place(&self, origin: &Origin) -> Option<Place> {
        let live = self.live.get(&key_of(origin)?)?;
        Some(Place { file: live.file.clone(), line: Some(live.lines.0 + live.lines.1.max(1) - 1) })
    }

    /// The location of a field, or of its object if the field is missing.
    pub(crate) fn place_of(&self, origin: &Origin, field: &str) -> Option<Place> {
        self.places(&[(origin, field)]).pop().flatten()
    }

    /// Finds the location of each diagnostic, down to the line of its field.
    pub(crate) fn locate(&self, diagnostics: impl IntoIterator<Item = Diagnostic>) -> Vec<Finding> {
        let diagnostics: Vec<_> = diagnostics.into_iter().collect();
        let fields: Vec<_> = diagnostics.iter().map(|found| (&found.origin, found.field.as_str())).collect();
        let places = self.places(&fields);
        let finding = |(mut diagnostic, place): (Diagnostic, _)| {
            if diagnostic.severity != Severity::Info
                && let Some(advice) = advice::template(&diagnostic.value)
            {
                diagnostic.message.push_str(&format!("; {advice}"));
            }
            Finding { place, diagnostic }
        };
        diagnostics.into_iter().zip(places).map(finding).collect()
    }

    /// The same for findings about objects; findings about files already have their lines.
    pub(crate) fn locate_objects(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let of_object = |found: &Finding| {
            found.diagnostic.reason != Reason::InvalidManifest && self.place(&found.diagnostic.origin) == found.place
        };
        let (objects, mut located): (Vec<_>, Vec<_>) = findings.into_iter().partition(of_object);
        located.extend(self.locate(objects.into_iter().map(|found| found.diagnostic)));
        located
    }

    /// Finds the locations of fields. It rereads the files that it needs, and parses each document once.
    pub(crate) fn places(&self, fields: &[(&Origin, &str)]) -> Vec<Option<Place>> {
        let mut places: Vec<_> = fields.iter().map(|(origin, _)| self.place(origin)).collect();
        let mut by_document: BTreeMap<_, Vec<(usize, ObjectKey)>> = BTreeMap::new();
        for (at, (origin, _)) in fields.iter().enumerate().filter(|(_, (_, field))| !field.is_empty()) {
            let Some(key) = key_of(origin) else { continue };
            if let Some(live) = self.live.get(&key) {
                by_document.entry((&live.file, live.lines.0)).or_default().push((at, key));
            }
        }
        // In file order, so that each file is read and split once.
        let mut by_document = by_document.into_iter().peekable();
        while let Some(((path, _), _)) = by_document.peek() {
            let path = *path;
            let (text, file) = (file::read(path).unwrap_or_default(), self.files.get(path));
            let texts = Texts::of(&text, &self.hasher);
            while let Some(((_, line), members)) = by_document.next_if(|((next, _), _)| *next == path) {
                let Some(text) = file.and_then(|file| texts.get(file, line)) else { continue };
                let Ok(Some(root)) = Node::parse(text) else { continue };
                for (at, key) in members {
                    if let (Some(place), Some(node)) = (&mut places[at], object::find(&root, &key)) {
                        place.line = Some(line + node.line_of(fields[at].1).max(1) - 1);
                    }
                }
            }
        }
        places
    }
}

/// New and changed files, not read yet.
#[derive(Debug)]
pub(crate) struct Unread {
    /// Sorted by path.
    files: Vec<file::UnreadFile>,
    /// The documents of files that are gone.
    gone: Vec<DocumentState>,
    hasher: RandomState,
    refused: Refused,
}

/// Files that were read and parsed, but not applied yet.
#[derive(Debug)]
pub(crate) struct Parsed {
    files: Vec<file::ParsedFile>,
    gone: Vec<DocumentState>,
}

impl Unread {
    /// Removes and returns the small files, unless they exceed `bytes` together. The objects of deleted files stay with the large files, if
    /// there are any: they may have moved there.
    pub(crate) fn split_small(&mut self, bytes: u64) -> Self {
        let files = std::mem::take(&mut self.files);
        let (mut small, large): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.size() <= bytes);
        self.files = large;
        if small.iter().map(file::UnreadFile::size).sum::<u64>() > bytes {
            self.files.append(&mut small);
            self.files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        let gone = if self.files.is_empty() { std::mem::take(&mut self.gone) } else { Vec::new() };
        Self { files: small, gone, hasher: self.hasher.clone(), refused: self.refused }
    }

    /// Whether there is nothing left to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Leaves files out. Returns whether any were left out.
    pub(crate) fn leave_out(&mut self, which: impl Fn(&Path) -> bool) -> bool {
        let before = self.files.len();
        self.files.retain(|file| !which(&file.path));
        self.files.len() < before
    }

    /// The files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| &*file.path)
    }

    /// Reads and parses the files.
    pub(crate) fn parse(self) -> Parsed {
        let files = self.files.into_iter().map(|file| file.parse(&self.hasher, self.refused)).collect();
        Parsed { files, gone: self.gone }
    }
}

impl Parsed {
    /// The files.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| &*file.path)
    }

    /// Combines both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.files.extend(other.files);
        self.gone.extend(other.gone);
        self
    }
}

/// The object that an origin names, if manifests can hold its kind.
fn key_of(origin: &Origin) -> Option<ObjectKey> {
    let kind = Kind::ALL.iter().find(|kind| kind.as_str() == &*origin.kind)?;
    Some(ObjectKey { kind: *kind, namespace: origin.namespace.clone(), name: origin.name.clone() })
}

fn duplicate(key: &ObjectKey, before: &Live, file: &Arc<Path>, lines: (u32, u32)) -> Finding {
    let at = |lines: (u32, u32)| Some(lines.0 + lines.1.max(1) - 1);
    let earlier = Place { file: before.file.clone(), line: at(before.lines) };
    let message = format!("{earlier} defines the object too; this one counts, because it is read later");
    let diagnostic = Diagnostic::new(Severity::Warning, Reason::InvalidManifest, &key.origin(), "", "", message);
    Finding { place: Some(Place { file: file.clone(), line: at(lines) }), diagnostic }
}

#[cfg(test)]
mod tests;
