//! The time of day in the two formats of nginx logs, formatted once a second.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// One worker's clock. Times are UTC, as in the containers of ingress-nginx.
#[derive(Debug)]
pub struct LogClock {
    second: i64,
    local: Vec<u8>,
    iso8601: Vec<u8>,
}

impl LogClock {
    /// Creates a clock.
    pub fn new() -> Self {
        Self { second: i64::MIN, local: Vec::with_capacity(32), iso8601: Vec::with_capacity(32) }
    }

    /// Seconds and milliseconds since 1970.
    pub fn now(&self) -> (i64, u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_millis())
    }

    /// Formatted as `21/Nov/2026:07:00:00 +0000`.
    pub fn local(&mut self, second: i64) -> &[u8] {
        self.turn(second);
        &self.local
    }

    /// Formatted as `2026-11-21T07:00:00+00:00`.
    pub fn iso8601(&mut self, second: i64) -> &[u8] {
        self.turn(second);
        &self.iso8601
    }

    fn turn(&mut self, second: i64) {
        if self.second == second {
            return;
        }
        self.second = second;
        let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        for (text, format) in
            [(&mut self.local, "%d/%b/%Y:%H:%M:%S +0000"), (&mut self.iso8601, "%Y-%m-%dT%H:%M:%S+00:00")]
        {
            text.clear();
            let written = write!(text, "{}", time.strftime(format));
            debug_assert!(written.is_ok(), "a vector takes everything");
        }
    }
}

impl Default for LogClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_nginx_writes_them() {
        let mut clock = LogClock::new();
        assert_eq!(clock.local(1_795_244_400), b"21/Nov/2026:07:00:00 +0000");
        assert_eq!(clock.iso8601(1_795_244_400), b"2026-11-21T07:00:00+00:00");
        assert_eq!(clock.local(951_782_400), b"29/Feb/2000:00:00:00 +0000");
        assert!(clock.now().0 > 1_700_000_000);
    }
}
