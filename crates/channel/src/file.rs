//! The last good state of a proxy in a file, so that it can start while there is no controller.
//!
//! The file contains keys of certificates, so it is encrypted (AES-256-GCM, with a key for each file, derived from the operator's). Each
//! part of it can be read only at its place, in this file, as a whole: a torn or foreign file counts as none. The parts are the messages of
//! a round that would bring an empty proxy to this state.
//!
//! Invariant: the path always holds the newest complete file, because another one replaces it only once it is on disk.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use fairway_model::{Delta, Snapshot};
use prost::Message as _;

use crate::limit::{LARGEST_MESSAGE, SNAPSHOT_KEY};
use crate::message::FromController;
use crate::replica::Replica;
use crate::resource::{Encoded, resources};
use crate::round::Cut;

/// How a file begins. Also part of the authenticated data.
const BEGIN: &[u8; 19] = b"fairway snapshot 1\n";

/// Bytes of random data from which the key of a file is derived.
const SALT: usize = 32;

/// The bit of a length that marks the last part.
const LAST: u32 = 1 << 31;

/// A place for the last good state.
#[derive(Clone)]
pub struct SnapshotFile {
    path: PathBuf,
    key: Vec<u8>,
}

/// A file that was written, known by its salt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written([u8; SALT]);

/// A state from a file.
#[derive(Debug)]
pub(crate) struct KeptState {
    pub(crate) replica: Replica,
    pub(crate) delta: Delta,
    /// When it was last known to be the newest.
    pub(crate) as_of: SystemTime,
}

/// Why there is no state in a file, or none can be written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// The file can't be read or written.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
    /// The key is too short to be one, or too long.
    #[error("the key in {0} must have from 32 to {SNAPSHOT_KEY} bytes")]
    Key(PathBuf),
    /// The file is something else, or of another version.
    #[error("{0} is no snapshot of this version")]
    Foreign(PathBuf),
    /// It was written with another key, or has been altered.
    #[error("{0} was written with another key, or is damaged")]
    Sealed(PathBuf),
    /// It contains something that this version does not understand.
    #[error("{0} can't be understood: {1}")]
    Unreadable(PathBuf, String),
    /// The state is too large to be written, or there is no randomness.
    #[error("{0} can't be encrypted")]
    Encrypt(PathBuf),
}

/// Without the key.
impl std::fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SnapshotFile {
    /// A place for the state, and the file with its key, all bytes of which count.
    ///
    /// # Errors
    /// If there is no key.
    pub fn new(path: PathBuf, key: &Path) -> Result<Self, SnapshotFileError> {
        let mut bytes = Vec::new();
        let read = File::open(key).and_then(|file| file.take(SNAPSHOT_KEY + 1).read_to_end(&mut bytes));
        read.map_err(|error| SnapshotFileError::Io(key.to_owned(), error))?;
        if bytes.len() < 32 || bytes.len() as u64 > SNAPSHOT_KEY {
            return Err(SnapshotFileError::Key(key.to_owned()));
        }
        Ok(Self { path, key: bytes })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a state, which replaces the last one.
    ///
    /// # Errors
    /// If it can't be written. The last one stays.
    pub fn write(&self, snapshot: &Snapshot) -> Result<Written, SnapshotFileError> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let failed = |error| SnapshotFileError::Io(new.clone(), error);
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).map_err(|Unspecified| SnapshotFileError::Encrypt(self.path.clone()))?;
        let seal = Seal::new(&self.key, &salt).map_err(|Unspecified| SnapshotFileError::Encrypt(self.path.clone()))?;
        let mut out = BufWriter::new(fresh(&new).map_err(failed)?);
        out.write_all(BEGIN).and_then(|()| out.write_all(&salt)).map_err(failed)?;
        let resources = resources(snapshot);
        let encoded = resources.iter().filter_map(|resource| Encoded::new(resource).ok());
        for (number, message) in Cut::new(1, encoded, std::iter::empty()).enumerate() {
            let mut part = message.encode_to_vec();
            seal.close(number, message.last, &mut part)
                .map_err(|Unspecified| SnapshotFileError::Encrypt(self.path.clone()))?;
            let length = u32::try_from(part.len()).map_err(|_| SnapshotFileError::Encrypt(self.path.clone()))?;
            let length = if message.last { length | LAST } else { length };
            out.write_all(&length.to_be_bytes()).and_then(|()| out.write_all(&part)).map_err(failed)?;
        }
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, &self.path).map_err(|error| SnapshotFileError::Io(self.path.clone(), error))?;
        Ok(Written(salt))
    }

    /// Notes that the state in the file is still the newest, if the file is the one that was written; `false` if another proxy has put its
    /// own there.
    ///
    /// # Errors
    /// If the file is gone.
    pub fn confirm(&self, written: &Written) -> Result<bool, SnapshotFileError> {
        let confirm = || {
            let mut file = OpenOptions::new().read(true).write(true).open(&self.path)?;
            let (mut begin, mut salt) = ([0; BEGIN.len()], [0; SALT]);
            let own =
                file.read_exact(&mut begin).and_then(|()| file.read_exact(&mut salt)).is_ok() && salt == written.0;
            if own {
                file.set_modified(SystemTime::now())?;
            }
            Ok(own)
        };
        confirm().map_err(|error| SnapshotFileError::Io(self.path.clone(), error))
    }

    /// Reads the state; `None` if there is no file yet.
    pub(crate) fn read(&self) -> Result<Option<KeptState>, SnapshotFileError> {
        let failed = |error| SnapshotFileError::Io(self.path.clone(), error);
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let as_of = file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
        let mut file = BufReader::new(file);
        // A file that ends too early is damaged.
        let mut take = |bytes: &mut [u8]| match file.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(SnapshotFileError::Sealed(self.path.clone()))
            }
            read => read.map_err(failed),
        };
        let mut begin = [0; BEGIN.len()];
        if take(&mut begin).is_err() || begin != *BEGIN {
            return Err(SnapshotFileError::Foreign(self.path.clone()));
        }
        let mut salt = [0; SALT];
        take(&mut salt)?;
        let sealed = |Unspecified| SnapshotFileError::Sealed(self.path.clone());
        let unreadable = |why: String| SnapshotFileError::Unreadable(self.path.clone(), why);
        let seal = Seal::new(&self.key, &salt).map_err(sealed)?;
        let mut replica = Replica::default();
        for number in 0.. {
            let mut length = [0; 4];
            take(&mut length)?;
            let (length, last) = (u32::from_be_bytes(length), u32::from_be_bytes(length) & LAST != 0);
            let length = (length & !LAST) as usize;
            if length > LARGEST_MESSAGE + AES_256_GCM.tag_len() {
                return Err(SnapshotFileError::Sealed(self.path.clone()));
            }
            let mut part = vec![0; length];
            take(&mut part)?;
            let part = seal.open(number, last, &mut part).map_err(sealed)?;
            let message = FromController::decode(part).map_err(|error| unreadable(error.to_string()))?;
            if message.last != last {
                return Err(SnapshotFileError::Sealed(self.path.clone()));
            }
            if let Some(mut round) = replica.take(message).map_err(|violation| unreadable(violation.to_string()))? {
                let delta = std::mem::take(&mut round.delta);
                replica.commit(round);
                return match replica.refused().first_key_value() {
                    // The file does not have its last good form.
                    Some((name, reason)) => Err(unreadable(format!("{name}: {reason}"))),
                    None => Ok(Some(KeptState { replica, delta, as_of })),
                };
            }
        }
        Err(SnapshotFileError::Sealed(self.path.clone()))
    }
}

/// An empty file at this path that nothing else writes to: two proxies of a node may share the path.
fn fresh(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.try_lock()?;
    // Since it was opened, its previous holder may have moved it to the place of the last state.
    let (ours, there) = (file.metadata()?, std::fs::metadata(path)?);
    if (ours.dev(), ours.ino()) != (there.dev(), there.ino()) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    file.set_len(0)?;
    Ok(file)
}

/// The encryption of one file.
struct Seal(LessSafeKey);

impl Seal {
    fn new(key: &[u8], salt: &[u8; SALT]) -> Result<Self, Unspecified> {
        let mut own = [0; 32];
        Salt::new(HKDF_SHA256, salt).extract(key).expand(&[&BEGIN[..]], HKDF_SHA256)?.fill(&mut own)?;
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &own)?)))
    }

    fn close(&self, number: usize, last: bool, part: &mut Vec<u8>) -> Result<(), Unspecified> {
        self.0.seal_in_place_append_tag(nonce(number, last), Aad::from(BEGIN), part)
    }

    fn open<'p>(&self, number: usize, last: bool, part: &'p mut [u8]) -> Result<&'p [u8], Unspecified> {
        self.0.open_in_place(nonce(number, last), Aad::from(BEGIN), part).map(|part| &*part)
    }
}

/// The number of a part, and whether it is the last, so that parts can't be left out, moved or cut off. The key is used for one file only.
fn nonce(number: usize, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
    nonce[NONCE_LEN - 1] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::{Certificate, Endpoint, EndpointSet, Endpoints, Origin, PrivateKey, Resource};

    fn snapshot() -> Snapshot {
        let certificate = Resource::from(Certificate {
            name: "shop/tls".into(),
            origin: Origin::new("Secret", "shop", "tls"),
            fingerprint: "00".into(),
            not_after: 4_000_000_000,
            chain: vec![std::sync::Arc::from(*b"certificate")],
            key: PrivateKey::new(&b"very private"[..]),
        });
        // More than one part.
        let sets = (0..60_u8).map(|last| {
            let endpoints =
                (0..200).map(|port| Endpoint::ready(([10, 0, port, last], 80 + u16::from(last) * 251).into()));
            let backend = format!("shop/{}:{last}", "cart".repeat(2000)).as_str().into();
            EndpointSet { backend, endpoints: Endpoints::Addresses(endpoints.collect()) }.into()
        });
        Snapshot::default().apply(Delta::upsert(sets.chain([certificate])))
    }

    fn place(folder: &Path, key: &[u8]) -> SnapshotFile {
        let path = folder.join("key");
        std::fs::write(&path, key).unwrap();
        SnapshotFile::new(folder.join("snapshot"), &path).unwrap()
    }

    #[test]
    fn what_was_written_is_read_and_nothing_of_it_is_in_the_clear() {
        let folder = tempfile::tempdir().unwrap();
        let file = place(folder.path(), &[7; 32]);
        assert!(file.read().unwrap().is_none());
        file.write(&Snapshot::default()).unwrap();
        file.write(&snapshot()).unwrap();
        let kept = file.read().unwrap().unwrap();
        assert_eq!(Snapshot::default().apply(kept.delta), snapshot());
        let bytes = std::fs::read(file.path()).unwrap();
        for text in [&b"very private"[..], b"shop", b"cart"] {
            assert!(!bytes.windows(text.len()).any(|window| window == text));
        }
        // Nothing else is left behind.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        // The same state never looks the same twice.
        file.write(&snapshot()).unwrap();
        assert_ne!(std::fs::read(file.path()).unwrap()[BEGIN.len()..200], bytes[BEGIN.len()..200]);
    }

    #[test]
    fn only_the_file_that_was_written_is_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, long_ago) = (place(folder.path(), &[7; 32]), SystemTime::UNIX_EPOCH);
        let set_time = || File::options().write(true).open(file.path()).unwrap().set_modified(long_ago).unwrap();
        let written = file.write(&snapshot()).unwrap();
        set_time();
        assert!(file.confirm(&written).unwrap());
        assert!(file.read().unwrap().unwrap().as_of > long_ago);
        // Another proxy puts its own, older one there.
        let other = place(folder.path(), &[7; 32]).write(&Snapshot::default()).unwrap();
        set_time();
        assert!(!file.confirm(&written).unwrap());
        assert_eq!(file.read().unwrap().unwrap().as_of, long_ago);
        assert!(file.confirm(&other).unwrap());
        std::fs::write(file.path(), "short").unwrap();
        assert!(!file.confirm(&other).unwrap());
    }

    #[test]
    fn a_file_that_is_not_whole_or_of_someone_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = place(folder.path(), &[7; 32]);
        file.write(&snapshot()).unwrap();
        let good = std::fs::read(file.path()).unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            file.read().map(|kept| kept.is_some())
        };
        assert!(read(&good).unwrap());
        let starts = [0, 10, BEGIN.len(), 40, 60];
        let cuts = (1..20).map(|part| part * good.len() / 20);
        for cut in starts.into_iter().chain(cuts) {
            assert!(read(&good[..cut]).is_err(), "{cut}");
            let mut other = good.clone();
            other[cut] ^= 1;
            assert!(read(&other).is_err(), "{cut}");
        }
        // A file without its last parts is not taken for a whole one, nor is one with two parts swapped.
        let first = u32::from_be_bytes(good[51..55].try_into().unwrap()) as usize;
        assert!(first < good.len() - 55, "it has several parts");
        assert!(read(&good[..55 + first]).is_err());
        assert!(matches!(read(b"something else, by another program"), Err(SnapshotFileError::Foreign(_))));
        std::fs::write(file.path(), &good).unwrap();
        let other = place(folder.path(), &[8; 32]);
        assert!(matches!(other.read(), Err(SnapshotFileError::Sealed(_))));
    }

    #[test]
    fn of_two_that_write_at_once_one_fails_and_what_is_there_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = place(folder.path(), &[7; 32]);
        file.write(&snapshot()).unwrap();
        let other = File::create(folder.path().join("snapshot.new")).unwrap();
        other.lock().unwrap();
        assert!(matches!(file.write(&Snapshot::default()), Err(SnapshotFileError::Io(..))));
        assert_eq!(Snapshot::default().apply(file.read().unwrap().unwrap().delta), snapshot());
        drop(other);
        let start = std::sync::Barrier::new(4);
        let written: usize = std::thread::scope(|scope| {
            let writer = || {
                start.wait();
                (0..10).filter(|_| file.write(&snapshot()).is_ok()).count()
            };
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(writer)).collect();
            while !writers.iter().all(|writer| writer.is_finished()) {
                assert_eq!(Snapshot::default().apply(file.read().unwrap().unwrap().delta), snapshot());
            }
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert!(written > 0);
        // An unfinished file is overwritten.
        file.write(&Snapshot::default()).unwrap();
        assert_eq!(Snapshot::default().apply(file.read().unwrap().unwrap().delta), Snapshot::default());
    }

    #[test]
    fn a_short_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "secret\n").unwrap();
        let refused = SnapshotFile::new("snapshot".into(), &key);
        assert!(matches!(refused, Err(SnapshotFileError::Key(_))));
    }
}
