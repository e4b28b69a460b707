//! The access log: one line per request, made by a format that is compiled once and written by a dedicated thread.
//!
//! A worker appends lines to a buffer and hands it over when it is large or a tenth of a second old, so that the path of a
//! request involves no lock and no system call. If the writer can't keep up, lines are dropped and counted; requests never wait.

mod clock;
mod escape;
mod format;
mod stream;
mod syslog;
mod value;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;

use fairway_model::{AccessLog, LogEscape, Template};
use regex::bytes::RegexSet;

use crate::record::RequestRecord;

pub use self::clock::LogClock;
pub use self::format::Format;
pub use self::stream::{StreamFormat, StreamRecord};
pub(crate) use self::value::without_port;
pub use self::writer::{LogHandle, LogSink, LogThread, LogWriter};

/// What is logged and in which format, compiled from the settings whenever they change.
#[derive(Debug)]
pub struct LogRules {
    enabled: bool,
    format: Format,
    skip: Skip,
}

impl LogRules {
    /// Compiles the settings. `instead` is a format requested on the command line.
    pub fn new(settings: &AccessLog, instead: Option<&(Template, LogEscape)>) -> Self {
        let format = match instead {
            Some((template, escape)) => Format::compile(template, *escape),
            None => Format::compile(&settings.format, settings.escape),
        };
        Self { enabled: settings.enabled, format, skip: Skip::new(&settings.skip) }
    }

    /// Whether a request is logged.
    pub fn admits(&self, record: &RequestRecord<'_>) -> bool {
        let target = || record.head.map_or(&b""[..], |head| head.parsed.request_uri().of(head.bytes));
        self.enabled && record.route.is_none_or(|route| route.access_log) && !self.skip.contains(target())
    }

    /// The format of lines.
    pub fn format(&self) -> &Format {
        &self.format
    }
}

/// Request targets that are not logged (`skip-access-log-urls`), by the rules of an nginx `map` on `$request_uri`: plain text
/// must equal the whole target, ignoring case; `~` starts a regular expression and `~*` one that ignores case.
#[derive(Debug, Default)]
struct Skip {
    exact: HashSet<Box<[u8]>>,
    longest: usize,
    patterns: RegexSet,
}

impl Skip {
    fn new(targets: &[Arc<str>]) -> Self {
        let patterns = targets.iter().filter_map(|target| target.strip_prefix('~')).map(|pattern| {
            match pattern.strip_prefix('*') {
                Some(pattern) => format!("(?i-u){pattern}"),
                None => format!("(?-u){pattern}"),
            }
        });
        // Checked one by one first: an invalid pattern must not disable the others. The control side has already reported it to
        // the user.
        let valid = patterns.filter(|pattern| regex::bytes::Regex::new(pattern).is_ok());
        let exact: HashSet<Box<[u8]>> = targets
            .iter()
            .filter(|target| !target.starts_with('~'))
            .map(|target| target.to_ascii_lowercase().into_bytes().into())
            .collect();
        Self {
            longest: exact.iter().map(|target| target.len()).max().unwrap_or(0),
            exact,
            patterns: RegexSet::new(valid).unwrap_or_default(),
        }
    }

    fn contains(&self, target: &[u8]) -> bool {
        self.contains_exactly(target) || (!self.patterns.is_empty() && self.patterns.is_match(target))
    }

    fn contains_exactly(&self, target: &[u8]) -> bool {
        // No limit: longer targets are compared without a copy.
        const ROOM: usize = 256;
        if self.exact.is_empty() || target.len() > self.longest {
            return false;
        }
        let mut lower = [0; ROOM];
        match lower.get_mut(..target.len()) {
            Some(lower) => {
                lower.copy_from_slice(target);
                lower.make_ascii_lowercase();
                self.exact.contains(&*lower)
            }
            None => self.exact.iter().any(|exact| exact.eq_ignore_ascii_case(target)),
        }
    }
}

#[cfg(test)]
mod tests;
