//! Durations in the three notations in use: whole seconds, nginx's, and Go's.

use std::time::Duration;

use super::{Value, digits};

/// Whole seconds without a unit, as in nginx annotations: `60`, never `60s`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The same length as a `Duration`.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl Value for Seconds {
    const SYNTAX: &'static str = "whole seconds without a unit, such as `60`";
    const ZERO: &'static str = "0";

    fn parse(text: &str) -> Option<Self> {
        u32::parse(text).map(Self)
    }
}

/// Whole seconds that may be negative, such as the lifetime of a cookie: a negative one deletes the cookie.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SignedSeconds(pub i64);

impl Value for SignedSeconds {
    const SYNTAX: &'static str = "whole seconds without a unit, negative ones allowed";

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(' ');
        let number = text.strip_prefix('-').unwrap_or(text);
        let well_formed = number == "0" && number.len() == text.len() || number.starts_with(|first: char| first != '0');
        (well_formed && digits(number).is_some()).then(|| text.parse().ok().map(Self))?
    }
}

/// A duration as Go's `time.ParseDuration` reads it: `10m`, `1h30m`, `1.5s`, and `0`. Negative durations are refused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GoDuration(pub Duration);

impl Value for GoDuration {
    const SYNTAX: &'static str = "a duration such as `30s`, `10m` or `1h30m`";

    fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Self(Duration::ZERO));
        }
        let mut rest = text;
        let mut total: u128 = 0;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => split_digits(after),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return None;
            }
            let unit_length = after.find(|char: char| char.is_ascii_digit() || char == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_length);
            let nanos: u128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return None,
            };
            let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
            total = total.checked_add(whole.checked_mul(nanos)?)?;
            // Nine digits give a nanosecond even for a fraction of an hour, to within Go's own rounding.
            let fraction = &fraction[..fraction.len().min(15)];
            if let Ok(part) = fraction.parse::<u128>() {
                total = total.checked_add(part * nanos / 10_u128.pow(u32::try_from(fraction.len()).ok()?))?;
            }
            rest = after;
        }
        // Go stores nanoseconds in an i64, which overflows after 292 years.
        Some(Self(Duration::from_nanos(i64::try_from(total).ok()?.unsigned_abs())))
    }
}

/// A duration as nginx reads it: `240s`, `1h`, `1h 30m`, `500ms`; a number without unit is seconds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NginxTime(pub Duration);

impl Value for NginxTime {
    const SYNTAX: &'static str = "a time such as `240s`, `10m` or `1h`; a number without unit is seconds";

    fn parse(text: &str) -> Option<Self> {
        // nginx requires the units in descending order, each at most once (ngx_parse_time); minutes come before milliseconds.
        const UNITS: [(&str, u64); 8] = [
            ("y", 31_536_000_000),
            ("M", 2_592_000_000),
            ("w", 604_800_000),
            ("d", 86_400_000),
            ("h", 3_600_000),
            ("m", 60_000),
            ("s", 1_000),
            ("ms", 1),
        ];
        let mut rest = text.trim();
        let mut next = 0;
        let mut total: u64 = 0;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let (number, after) = split_digits(rest);
            let number = digits(number)?;
            let unit_length = after.find(|char: char| !char.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_length);
            let unit = if unit.is_empty() && after.is_empty() { "s" } else { unit };
            let place = UNITS[next..].iter().position(|(name, _)| *name == unit)? + next;
            total = total.checked_add(number.checked_mul(UNITS[place].1)?)?;
            next = place + 1;
            rest = after.trim_start_matches(' ');
        }
        // The same maximum as for Go's durations, so that adding it to a clock can't overflow.
        (total <= i64::MAX.unsigned_abs() / 1_000_000).then(|| Self(Duration::from_millis(total)))
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()))
}
