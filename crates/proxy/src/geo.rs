//! MaxMind databases, and what they say about the address of a client. They are read from local files, and nothing is ever fetched.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use fairway_model::{GeoPlace, GeoSettings, GeoStep, GeoSubject, GeoVariable};
use maxminddb::{PathElement, Reader};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::limit::GEO_FILE;

/// The databases in memory, shared by all workers.
pub struct GeoDatabases {
    of: GeoSettings,
    readers: Vec<(GeoSubject, Arc<Reader<Vec<u8>>>)>,
    /// The files, and when each was changed last.
    files: Vec<(PathBuf, Option<SystemTime>)>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
enum GeoFileError {
    #[error("the file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the file has more than {} MiB", GEO_FILE >> 20)]
    TooLarge,
    #[error("the file is no database: {0}")]
    Format(#[from] maxminddb::MaxMindDbError),
}

impl GeoDatabases {
    /// Reads the databases that the settings name, if any; blocks. Those that can't be read have no values.
    pub(crate) fn read(settings: Option<&GeoSettings>) -> Option<Arc<Self>> {
        settings.map(|settings| Self::read_after(settings, None))
    }

    /// Reads the files again; blocks. A database whose file can't be read now, such as one that is being copied, stays as it was: a
    /// rule that denies countries must not admit everyone meanwhile.
    pub(crate) fn read_again(&self) -> Arc<Self> {
        Self::read_after(&self.of, Some(self))
    }

    fn read_after(settings: &GeoSettings, before: Option<&Self>) -> Arc<Self> {
        let mut this = Self { of: settings.clone(), readers: Vec::new(), files: Vec::new() };
        for edition in &settings.editions {
            let Some(subject) = GeoSubject::of_edition(edition) else { continue };
            let path = Path::new(&*settings.directory).join(format!("{edition}.mmdb"));
            // Before it is read: a file that is replaced meanwhile is outdated.
            let at = changed(&path);
            match open(&path) {
                Ok(reader) => this.readers.push((subject, Arc::new(reader))),
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "a geographic database can't be read");
                    let kept = before.and_then(|before| before.readers.iter().find(|(known, _)| *known == subject));
                    this.readers.extend(kept.cloned());
                }
            }
            this.files.push((path, at));
        }
        Arc::new(this)
    }

    /// The databases for new settings: the same, if nothing about them changed.
    pub(crate) fn follow(this: Option<&Arc<Self>>, settings: Option<&GeoSettings>) -> Option<Arc<Self>> {
        match (this, settings) {
            (Some(this), Some(settings)) if this.of == *settings => Some(this.clone()),
            // Another folder has other databases.
            (Some(this), Some(settings)) if this.of.directory == settings.directory => {
                Some(Self::read_after(settings, Some(this)))
            }
            (_, settings) => Self::read(settings),
        }
    }

    /// Whether a file was replaced since it was read.
    pub(crate) fn is_outdated(&self) -> bool {
        self.files.iter().any(|(path, known)| changed(path) != *known)
    }

    /// The settings that they were read with.
    pub(crate) fn settings(&self) -> &GeoSettings {
        &self.of
    }

    /// Appends what is known about an address; `None` if nothing is.
    pub(crate) fn append(&self, variable: GeoVariable, client: IpAddr, out: &mut Vec<u8>) -> Option<()> {
        let client = client.to_canonical();
        let place = |place: &GeoPlace| {
            let (_, reader) = self.readers.iter().find(|(subject, _)| *subject == place.subject)?;
            Some((reader, place.steps))
        };
        let (reader, steps) = variable.places().iter().find_map(place)?;
        let steps: Vec<PathElement<'_>> = steps
            .iter()
            .map(|step| match step {
                GeoStep::Key(key) => PathElement::Key(key),
                GeoStep::Index(at) => PathElement::Index(*at),
            })
            .collect();
        let value: GeoValue<'_> = reader.lookup(client).ok()?.decode_path(&steps).ok()??;
        match value {
            GeoValue::Text(text) => out.extend_from_slice(text.as_bytes()),
            GeoValue::Number(number) => write!(out, "{number}").ok()?,
            // As nginx's module writes them.
            GeoValue::Fraction(number) => write!(out, "{number:.5}").ok()?,
            GeoValue::Switch(on) => out.push(if on { b'1' } else { b'0' }),
        }
        Some(())
    }
}

impl fmt::Debug for GeoDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoDatabases").field("of", &self.of).finish_non_exhaustive()
    }
}

fn open(path: &Path) -> Result<Reader<Vec<u8>>, GeoFileError> {
    if std::fs::metadata(path)?.len() > GEO_FILE {
        return Err(GeoFileError::TooLarge);
    }
    Ok(Reader::from_source(std::fs::read(path)?)?)
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// A value that a variable can have.
enum GeoValue<'a> {
    Text(&'a str),
    Number(i128),
    Fraction(f64),
    Switch(bool),
}

impl<'de> Deserialize<'de> for GeoValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GeoValueVisitor)
    }
}

struct GeoValueVisitor;

impl<'de> Visitor<'de> for GeoValueVisitor {
    type Value = GeoValue<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a boolean")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(GeoValue::Text(text))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(GeoValue::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(GeoValue::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(GeoValue::Fraction(number))
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Self::Value, E> {
        Ok(GeoValue::Switch(on))
    }
}
