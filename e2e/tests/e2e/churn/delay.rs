//! The distribution of delays.

use std::time::Duration;

/// The delay that this percentage of all delays doesn't exceed.
pub(super) fn percentile(delays: &[Duration], percent: usize) -> Duration {
    let mut delays = delays.to_vec();
    delays.sort_unstable();
    delays[(delays.len() * percent).div_ceil(100) - 1]
}

/// The distribution of delays, as bars.
pub(super) fn histogram(delays: &[Duration]) -> String {
    let bounds = [5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 500, 1_000, 10_000].map(Duration::from_millis);
    let mut text = String::from("from the API server's answer to the first right answer of the proxy:\n");
    let mut below = Duration::ZERO;
    for bound in bounds {
        let count = delays.iter().filter(|delay| (below..bound).contains(*delay)).count();
        if count > 0 {
            let bar = "#".repeat((count * 60).div_ceil(delays.len()));
            text += &format!("{:>9} {count:5} {bar}\n", format!("< {} ms", bound.as_millis()));
        }
        below = bound;
    }
    let [p50, p90, p99, p100] = [50, 90, 99, 100].map(|percent| percentile(delays, percent));
    text + &format!("{} changes: p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, longest {p100:.1?}", delays.len())
}
