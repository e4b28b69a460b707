//! One file and its documents. Only documents whose text changed are parsed again.

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use fairway_model::Origin;
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::objects::{Object, ObjectKey};
use foldhash::quality::RandomState;

use super::advice;
use super::node::Node;
use super::object::{self, Contents, Refused, Unreadable};
use super::split::{Document, documents};

/// Largest file that is read, in bytes. The manifests of a whole cluster take a tenth of that.
const SIZE_LIMIT: u64 = 256 << 20;

/// The state of a file.
#[derive(Debug, Default)]
pub(super) struct FileState {
    /// Metadata of the file when its content was read.
    stamp: Option<Stamp>,
    /// The last good content.
    pub(super) documents: Vec<DocumentState>,
    /// Number of the take that brought this content, counted over all files; 0 before the first.
    pub(super) taken: u64,
    /// Why the current content is not in use.
    pub(super) broken: Option<Broken>,
    /// Whether the file contained objects and is empty now.
    emptied: bool,
}

/// A file that can't be read or parsed.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) line: Option<u32>,
    pub(super) diagnostic: Diagnostic,
}

/// What is kept of a document when its text is dropped.
#[derive(Clone, Debug)]
pub(super) struct DocumentState {
    hash: u64,
    /// Line of the file where it begins, from 1.
    pub(super) line: u32,
    pub(super) objects: Vec<Held>,
    /// Lines count from the start of the document.
    pub(super) findings: Vec<(u32, Diagnostic)>,
    pub(super) ignored: u32,
}

/// An object and its position in the order of reading.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) key: ObjectKey,
    pub(super) object: Object,
    /// Line within the document.
    pub(super) line: u32,
    /// Whether the file gives the object's creation time.
    pub(super) dated: bool,
    /// Whether the API server would accept it.
    pub(super) good: bool,
}

impl Held {
    fn good((line, object): (u32, Object)) -> Self {
        let dated = object.created().is_some();
        Self { key: object.key(), object, line, dated, good: true }
    }

    /// An object that counts because there is no good one.
    fn refused(object: (u32, Object)) -> Self {
        Self { good: false, ..Self::good(object) }
    }
}

/// Identifies the content of a file: any edit changes one of these.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A new or changed file that hasn't been read yet.
#[derive(Debug)]
pub(super) struct UnreadFile {
    pub(super) path: Arc<Path>,
    stamp: io::Result<Stamp>,
    /// Hashes of documents that needn't be parsed again.
    known: HashSet<u64>,
}

/// A file that was read and parsed, but not applied yet.
#[derive(Debug)]
pub(super) struct ParsedFile {
    pub(super) path: Arc<Path>,
    content: io::Result<(Stamp, Content)>,
}

#[derive(Debug)]
struct Content {
    /// The documents in their order.
    documents: Vec<ParsedDocument>,
    /// The first line that isn't valid YAML, and why.
    broken: Option<(u32, String)>,
}

#[derive(Debug)]
enum ParsedDocument {
    /// A document with a known hash, and the line where it begins.
    Known(u64, u32),
    /// A new text, and the objects that can't be read.
    New(DocumentState, Vec<Unreadable>),
}

impl UnreadFile {
    /// Length of the file.
    pub(super) fn size(&self) -> u64 {
        self.stamp.as_ref().map_or(0, |stamp| stamp.length)
    }

    /// Reads the file and parses its new documents.
    pub(super) fn parse(self, hasher: &RandomState, refused: Refused) -> ParsedFile {
        let Self { path, stamp, known } = self;
        let text = stamp.and_then(|stamp| read(&path).map(|text| (stamp, text)));
        let content =
            text.map(|(stamp, text)| (stamp, Content::of(&text, &file_origin(&path), &known, hasher, refused)));
        ParsedFile { path, content }
    }
}

impl Content {
    fn of(text: &str, file: &Origin, known: &HashSet<u64>, hasher: &RandomState, refused: Refused) -> Self {
        let mut found = Self { documents: Vec::new(), broken: None };
        for document in documents(text) {
            let hash = hasher.hash_one(document.text);
            if known.contains(&hash) {
                found.documents.push(ParsedDocument::Known(hash, document.line));
                continue;
            }
            match Node::parse(document.text) {
                Ok(Some(node)) => {
                    let contents = object::read(&node, file, refused);
                    found.documents.push(DocumentState::parsed(hash, document.line, contents));
                }
                Ok(None) => {}
                Err(error) => {
                    let line = document.line + error.line.max(1) - 1;
                    let advice = advice::template(document.text).map(|advice| format!("; {advice}"));
                    found.broken.get_or_insert((line, format!("{error}{}", advice.unwrap_or_default())));
                }
            }
        }
        found
    }
}

impl FileState {
    /// Checks the file again; `None` if it is unchanged.
    pub(super) fn look(&self, path: &Arc<Path>) -> Option<UnreadFile> {
        let stamp = std::fs::metadata(path).map(|metadata| Stamp::of(&metadata));
        if stamp.as_ref().ok().copied() == self.stamp && self.stamp.is_some() {
            return None;
        }
        let known = self.documents.iter().map(|document| document.hash).collect();
        Some(UnreadFile { path: path.clone(), stamp, known })
    }

    /// Applies parsed content, and returns the documents that it replaces; `None` if the content stays the same. If documents that it
    /// relies on have been replaced in the meantime, the file counts as unread.
    pub(super) fn take(&mut self, parsed: ParsedFile, take: u64) -> Option<Vec<DocumentState>> {
        let file = file_origin(&parsed.path);
        match parsed.content {
            Ok((stamp, content)) => {
                let Ok(replaced) = self.take_content(content, &file) else {
                    self.stamp = None;
                    return None;
                };
                self.stamp = Some(stamp);
                if replaced.is_some() {
                    self.taken = take;
                }
                replaced
            }
            Err(error) => {
                self.stamp = None;
                let kept = if self.documents.is_empty() { "" } else { "; its last content stays in effect" };
                let message = format!("can't be read: {error}{kept}");
                self.broken = Some(Broken { line: None, diagnostic: invalid(&file, &message) });
                None
            }
        }
    }

    /// Whether the parsed content defines the same objects as the current one.
    pub(super) fn is_edit(&self, parsed: &ParsedFile) -> bool {
        let Ok((_, content)) = &parsed.content else { return true };
        let (mut known, mut now) = (HashSet::new(), HashSet::new());
        for document in &content.documents {
            match document {
                ParsedDocument::Known(hash, _) => {
                    known.insert(*hash);
                }
                ParsedDocument::New(state, unreadable) => {
                    now.extend(state.objects.iter().map(|held| &held.key).chain(unreadable.iter().map(|it| &it.key)));
                }
            }
        }
        let replaced = self.documents.iter().filter(|document| !known.contains(&document.hash));
        let before: HashSet<_> = replaced.flat_map(|document| &document.objects).map(|held| &held.key).collect();
        content.broken.is_some() || before == now
    }

    /// A remark if the file is empty now, perhaps by accident.
    pub(super) fn remark(&self, path: &Path) -> Option<Diagnostic> {
        let message = "the file is now empty: its objects are removed";
        let reason = Reason::InvalidManifest;
        self.emptied.then(|| Diagnostic::new(Severity::Warning, reason, &file_origin(path), "", "", message))
    }

    /// Applies nothing before everything is parsed: invalid YAML changes nothing.
    fn take_content(&mut self, content: Content, file: &Origin) -> Result<Option<Vec<DocumentState>>, Outdated> {
        let Content { documents: parsed, broken } = content;
        let places = self.places(&parsed)?;
        if let Some((line, reason)) = broken {
            let kept = !self.documents.is_empty();
            let consequence =
                if kept { "the file's last good content stays in effect" } else { "the document is left out" };
            let diagnostic = invalid(file, &format!("can't be parsed: {reason}; {consequence}"));
            self.broken = Some(Broken { line: Some(line), diagnostic });
            if kept {
                return Ok(None);
            }
        } else {
            self.broken = None;
        }
        let mut old: Vec<Option<DocumentState>> = std::mem::take(&mut self.documents).into_iter().map(Some).collect();
        let mut last_good: Option<HashMap<ObjectKey, Held>> = None;
        let mut fresh: Vec<DocumentState> = Vec::with_capacity(parsed.len());
        for (document, place) in parsed.into_iter().zip(places) {
            fresh.push(match document {
                ParsedDocument::Known(hash, line) => {
                    let state = match old.get_mut(place).and_then(Option::take) {
                        Some(state) => state,
                        // The text occurs more often than before.
                        None => fresh.iter().find(|state| state.hash == hash).cloned().expect("the first copy is used"),
                    };
                    DocumentState { line, ..state }
                }
                ParsedDocument::New(mut state, unreadable) => {
                    for Unreadable { key, otherwise } in unreadable {
                        let good = last_good.get_or_insert_with(|| good_by_key(&old));
                        state.objects.extend(good.remove(&key).or_else(|| otherwise.map(Held::refused)));
                    }
                    state
                }
            });
        }
        self.emptied = fresh.is_empty() && (self.emptied || !old.is_empty());
        self.documents = fresh;
        Ok(Some(old.into_iter().flatten().collect()))
    }

    /// The current position of each known document. In an edited file, most documents keep their order.
    fn places(&self, parsed: &[ParsedDocument]) -> Result<Vec<usize>, Outdated> {
        let (mut next, mut by_hash) = (0, None);
        let mut places = Vec::with_capacity(parsed.len());
        for document in parsed {
            let ParsedDocument::Known(hash, _) = document else {
                places.push(usize::MAX);
                continue;
            };
            if self.documents.get(next).is_none_or(|old| old.hash != *hash) {
                let by_hash = by_hash.get_or_insert_with(|| {
                    self.documents.iter().enumerate().map(|(at, old)| (old.hash, at)).collect::<HashMap<_, _>>()
                });
                next = *by_hash.get(hash).ok_or(Outdated)?;
            }
            places.push(next);
            next += 1;
        }
        Ok(places)
    }
}

/// The parsed content relies on documents that the file no longer has.
#[derive(Debug)]
struct Outdated;

impl DocumentState {
    fn parsed(hash: u64, line: u32, contents: Contents) -> ParsedDocument {
        let Contents { objects, unreadable, refused, mut findings, ignored } = contents;
        let mut objects: Vec<_> = objects.into_iter().map(Held::good).collect();
        let refused: HashSet<_> = refused.into_iter().collect();
        objects.iter_mut().for_each(|held| held.good = !refused.contains(&held.key));
        findings.shrink_to_fit();
        ParsedDocument::New(Self { hash, line, objects, findings, ignored }, unreadable)
    }
}

/// The texts of a file's documents, for finding the unchanged ones.
pub(super) struct Texts<'a> {
    documents: Vec<Document<'a>>,
    hasher: &'a RandomState,
}

impl<'a> Texts<'a> {
    pub(super) fn of(text: &'a str, hasher: &'a RandomState) -> Self {
        Self { documents: documents(text), hasher }
    }

    /// The text of the document that begins on a line, unless it has changed since it was read.
    pub(super) fn get(&self, file: &FileState, line: u32) -> Option<&'a str> {
        let state = file.documents.binary_search_by_key(&line, |state| state.line).ok()?;
        let text = self.documents.binary_search_by_key(&line, |document| document.line).ok()?;
        let text = self.documents[text].text;
        (self.hasher.hash_one(text) == file.documents[state].hash).then_some(text)
    }
}

/// The text of a file; an error if it isn't UTF-8 or is too long.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > SIZE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {} MiB", SIZE_LIMIT >> 20)));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 1);
    Read::by_ref(&mut file).take(SIZE_LIMIT).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let reason = match advice::encrypted_bytes(error.as_bytes()) {
            Some(advice) => format!("no text: {advice}"),
            None => format!("no UTF-8 text: {}", error.utf8_error()),
        };
        io::Error::new(io::ErrorKind::InvalidData, reason)
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

pub(super) fn file_origin(path: &Path) -> Origin {
    Origin::new("File", "", Arc::<str>::from(path.to_string_lossy()))
}

pub(super) fn invalid(file: &Origin, message: &str) -> Diagnostic {
    Diagnostic::new(Severity::Error, Reason::InvalidManifest, file, "", "", message)
}

fn good_by_key(documents: &[Option<DocumentState>]) -> HashMap<ObjectKey, Held> {
    documents
        .iter()
        .flatten()
        .flat_map(|document| &document.objects)
        .filter(|held| held.good)
        .map(|held| (held.key.clone(), held.clone()))
        .collect()
}
