//! The access log of a test.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use fairway_model::{LogEscape, Template};
use fairway_proxy::ProxyConfig;
use fairway_proxy::access_log::LogSink;
use fairway_testkit::eventually;

/// The lines as written.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no holder panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no holder panics").clone()).expect("lines are text")
    }

    /// Waits for this many lines, and returns them; more are a failure.
    pub async fn after(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines"), || async { self.text().lines().count() >= count }).await;
        let lines: Vec<_> = self.text().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

/// A proxy that logs in this format. It has one worker, so that lines come in the order in which exchanges end.
pub fn logging(lines: &Lines, format: &str) -> ProxyConfig {
    ProxyConfig {
        log: LogSink::Writer(Box::new(lines.clone())),
        log_format: Some((Template::parse(format), LogEscape::Default)),
        workers: NonZeroUsize::new(1),
        ..super::config()
    }
}
