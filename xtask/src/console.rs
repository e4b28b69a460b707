//! Terminal output: progress while a step runs, colour only on a terminal.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::outcome::Outcome;

/// Without a terminal, a long command prints a line this often.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// The destination of progress messages.
#[derive(Debug)]
pub(crate) struct Console {
    terminal: bool,
    last: Mutex<Instant>,
    started: Instant,
}

/// The mark at the start of a step's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Passed,
    Failed,
    NotRun,
}

impl Console {
    pub(crate) fn new(terminal: bool) -> Self {
        Self { terminal, last: Mutex::new(Instant::now()), started: Instant::now() }
    }

    /// Prints a permanent line.
    pub(crate) fn line(&self, text: &str) {
        self.clear();
        println!("{text}");
        *self.last() = Instant::now();
    }

    /// Prints a line of a running command: on a terminal the next one replaces it, elsewhere few are shown.
    pub(crate) fn progress(&self, text: &str) {
        if self.terminal {
            let short: String = text.trim().chars().filter(|symbol| !symbol.is_control()).take(100).collect();
            print!("\r\x1b[K  {short}");
            let _ = std::io::stdout().flush();
        } else if self.last().elapsed() >= HEARTBEAT {
            self.line(&format!("  {} ... {}", duration(self.started.elapsed()), text.trim()));
        }
    }

    /// When the last permanent line was printed.
    fn last(&self) -> MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints the line of a step.
    pub(crate) fn step(&self, mark: Mark, name: &str, took: Duration, note: &str) {
        let time = if mark == Mark::NotRun { String::new() } else { duration(took) };
        let (word, colour) = match mark {
            Mark::Passed => ("ok", 32),
            Mark::Failed => ("FAILED", 31),
            Mark::NotRun => ("not run", 33),
        };
        let word = format!("{word:<7}");
        let word = if self.terminal { format!("\x1b[{colour}m{word}\x1b[0m") } else { word };
        self.line(format!("{word} {name:<10} {time:>8}  {note}").trim_end());
    }

    /// Ends a task that runs alone; returns whether it passed.
    pub(crate) fn finish(&self, outcome: anyhow::Result<Outcome>) -> bool {
        self.clear();
        match outcome {
            Ok(Outcome { note, failure: None, .. }) => {
                self.line(if note.is_empty() { "ok" } else { &note });
                true
            }
            Ok(Outcome { failure: Some(failure), .. }) => {
                self.line(&failure);
                false
            }
            Err(error) => {
                self.line(&format!("{error:#}"));
                false
            }
        }
    }

    /// Removes the line of progress.
    pub(crate) fn clear(&self) {
        if self.terminal {
            print!("\r\x1b[K");
            let _ = std::io::stdout().flush();
        }
    }
}

/// Minutes and seconds, as in `3m05s` or `4.2s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1}s", duration.as_secs_f64())
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(Duration::from_millis(4_230)), "4.2s");
        assert_eq!(duration(Duration::from_secs(185)), "3m05s");
    }
}
