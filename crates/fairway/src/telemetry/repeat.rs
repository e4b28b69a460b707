//! Logs a repeated warning once a minute, with the number of repetitions. Errors are always logged, because they describe a current state.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Form;
use crate::cluster::FINDINGS;

/// How soon a line may be repeated.
const PAUSE: Duration = Duration::from_secs(60);

/// Maximum number of lines that are remembered.
const REMEMBERED: usize = 1024;

/// Formats events as `inner` does, except warnings with the same text and fields as one in the last minute.
pub(super) struct Once<F> {
    inner: F,
    form: Form,
    seen: Mutex<Repeats>,
}

impl<F> Once<F> {
    pub(super) fn new(inner: F, form: Form) -> Self {
        Self { inner, form, seen: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Once<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Findings are logged once, and again when they return after being resolved.
        if *event.metadata().level() != Level::WARN || event.metadata().target() == FINDINGS {
            return self.inner.format_event(context, writer, event);
        }
        let mut text = Text(DefaultHasher::new());
        event.metadata().callsite().hash(&mut text.0);
        event.record(&mut text);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(repeated) = seen.pass(text.0.finish(), Instant::now()) else { return Ok(()) };
        drop(seen);
        if repeated == 0 {
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", with_number(line.trim_end(), self.form, repeated))
    }
}

/// A line with an additional field.
fn with_number(line: &str, form: Form, repeated: u64) -> String {
    match (form, line.strip_suffix('}')) {
        (Form::Json, Some(fields)) => format!("{fields},\"repeated\":{repeated}}}"),
        _ => format!("{line} repeated={repeated}"),
    }
}

/// The lines of the last minute: when each was logged, and how often it has been repeated since.
#[derive(Default)]
struct Repeats(HashMap<u64, (Instant, u64)>);

impl Repeats {
    /// Whether to log a line now, and how often it was suppressed since the last time.
    fn pass(&mut self, text: u64, now: Instant) -> Option<u64> {
        if let Some((at, repeated)) = self.0.get_mut(&text) {
            if now.duration_since(*at) < PAUSE {
                *repeated += 1;
                return None;
            }
            *at = now;
            return Some(std::mem::take(repeated));
        }
        if self.0.len() == REMEMBERED {
            self.0.retain(|_, (at, repeated)| *repeated > 0 && now.duration_since(*at) < PAUSE);
        }
        if self.0.len() < REMEMBERED {
            self.0.insert(text, (now, 0));
        }
        Some(0)
    }
}

/// A hash of the whole event.
struct Text(DefaultHasher);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        field.name().hash(&mut self.0);
        // A hasher never fails.
        let _ = write!(Hashed(&mut self.0), "{value:?}");
    }
}

struct Hashed<'a>(&'a mut DefaultHasher);

impl fmt::Write for Hashed<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing::{info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(text: &Lines) -> Vec<String> {
        String::from_utf8(text.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn warnings_with_the_same_text_come_once_and_others_each_time() {
        let text = Lines::default();
        let writer = text.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .map_event_format(|format| Once::new(format, Form::Text))
            .finish();
        tracing::subscriber::with_default(log, || {
            for round in 0..3 {
                for name in ["a", "b"] {
                    warn!(name, "it fails");
                }
                info!("it goes on");
                warn!(round, "it fails otherwise");
            }
        });
        let lines = lines(&text);
        let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
        assert_eq!((count("it fails name"), count("name=\"a\""), count("goes on"), count("otherwise")), (2, 1, 3, 3));
    }

    #[test]
    fn a_line_that_is_said_again_tells_how_often_it_came() {
        let mut seen = Repeats::default();
        let begin = Instant::now();
        let mut pass = |text, seconds| seen.pass(text, begin + Duration::from_secs(seconds));
        assert_eq!((pass(1, 0), pass(1, 1), pass(1, 59), pass(2, 59)), (Some(0), None, None, Some(0)));
        assert_eq!((pass(1, 60), pass(1, 61), pass(1, 120), pass(1, 180)), (Some(2), None, Some(1), Some(0)));
    }

    #[test]
    fn the_number_is_a_field_in_both_forms() {
        assert_eq!(with_number("WARN it fails name=\"a}\"", Form::Text, 7), "WARN it fails name=\"a}\" repeated=7");
        let line = with_number(r#"{"message":"it fails","name":"a}"}"#, Form::Json, 7);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["name"], &line["repeated"]), (&"a}".into(), &7.into()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut seen = Repeats::default();
        let now = Instant::now();
        for text in 0..3 * REMEMBERED as u64 {
            assert_eq!(seen.pass(text, now), Some(0));
        }
        assert!(seen.0.len() <= REMEMBERED);
    }
}
