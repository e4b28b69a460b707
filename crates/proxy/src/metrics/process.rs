//! Figures about the process, under the names of ingress-nginx's process exporter.

use std::time::{SystemTime, UNIX_EPOCH};

/// Clock ticks in a second in `/proc`; fixed on Linux for user space (`USER_HZ`).
// No limit: a unit.
const TICKS: f64 = 100.0;

/// Unit of the sizes in `/proc/self/status`.
// No limit: a unit.
const KIB: u64 = 1024;

/// The figures of `/proc` about this process. Unreadable ones are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// CPU time used, in seconds.
    pub cpu_seconds: f64,
    /// Memory in use, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Bytes read by system calls.
    pub read_bytes: u64,
    /// Bytes written by system calls.
    pub write_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Start of the process in seconds since 1970.
    pub start_seconds: f64,
}

impl ProcessFigures {
    /// Reads the current figures.
    pub fn read() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/self/io"), &text("/proc/stat"))
    }

    fn parse(stat: &str, status: &str, io: &str, system: &str) -> Self {
        // The name of the program, in parentheses, may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        let boot = figure(system, "btime ") as f64;
        Self {
            // Counted from the state, which is field 3 of proc(5).
            cpu_seconds: (ticks(11) + ticks(12)) / TICKS,
            start_seconds: boot + ticks(19) / TICKS,
            resident_bytes: figure(status, "VmRSS:") * KIB,
            virtual_bytes: figure(status, "VmSize:") * KIB,
            threads: figure(status, "Threads:"),
            read_bytes: figure(io, "rchar:"),
            write_bytes: figure(io, "wchar:"),
        }
    }
}

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn figure(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes > 100_000, "{figures:?}");
        assert!(figures.virtual_bytes >= figures.resident_bytes);
        assert!(figures.threads >= 1);
        assert!(figures.start_seconds > 1.7e9 && figures.start_seconds <= now() + 1.0);
    }

    #[test]
    fn a_program_name_with_blanks_and_parentheses_does_no_harm() {
        let stat = "7 (a b) c)) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1000 1 1";
        let figures = ProcessFigures::parse(stat, "VmRSS:\t 20 kB\n", "", "cpu 1\nbtime 1000\n");
        assert_eq!(figures.cpu_seconds, 3.0);
        assert_eq!(figures.start_seconds, 1010.0);
        assert_eq!(figures.resident_bytes, 20480);
    }
}
