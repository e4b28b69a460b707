//! Rows of the table of limits: what each bounds, its value, the setting, the effect of reaching it, and where that
//! shows.
//!
//! Each crate declares its limits with [`limits!`](crate::limits), which turns one declaration into a constant and a
//! row, so that the reference in `docs/limits.md` cannot differ from the code.

use std::fmt;
use std::time::Duration;

/// Limits that belong together.
#[derive(Clone, Copy, Debug)]
pub struct LimitSection {
    /// Their subject.
    pub title: &'static str,
    /// The limits.
    pub limits: &'static [Limit],
}

/// One limit or timeout.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What it bounds, in a sentence.
    pub what: &'static str,
    /// Its default value.
    pub amount: Amount,
    /// The effect of reaching it.
    pub answer: &'static str,
    /// The failure reason or metric that shows it; empty for none.
    pub shown: &'static str,
}

/// The value of a limit, with its unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// A fixed time.
    Time(Duration),
    /// A fixed number of bytes.
    Bytes(u64),
    /// A fixed number of something named in the sentence.
    Count(u64),
    /// The default of this ConfigMap key or, with two hyphens, this flag.
    Setting(&'static str),
    /// A value derived from the environment of the process.
    Found(&'static str),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time(time) if time.subsec_millis() > 0 => write!(f, "{} ms", time.as_millis()),
            Self::Time(time) if time.as_secs() >= 60 && time.as_secs().is_multiple_of(60) => {
                write!(f, "{} min", time.as_secs() / 60)
            }
            Self::Time(time) => write!(f, "{} s", time.as_secs()),
            Self::Bytes(bytes) if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => write!(f, "{} MiB", bytes >> 20),
            Self::Bytes(bytes) if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => write!(f, "{} KiB", bytes >> 10),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Setting(text) | Self::Found(text) => f.write_str(text),
        }
    }
}

/// Declares limits: a constant for each fixed one, and the table `SECTIONS` of all.
///
/// ```
/// use std::time::Duration;
///
/// fairway_model::limits! {
///     "Waiting" {
///         settings {
///             "keep-alive": "Time that a connection may be idle.", "It is closed.", "";
///         }
///         found {}
///         fixed {
///             /// Time for a greeting.
///             GREETING: Duration = Duration::from_secs(5), Time, "The connection is closed.", "";
///         }
///     }
/// }
/// assert_eq!(SECTIONS[0].limits[1].amount.to_string(), "5 s");
/// assert_eq!(GREETING, Duration::from_secs(5));
/// ```
#[macro_export]
macro_rules! limits {
    ($($title:literal {
        settings { $($key:literal: $set_what:literal, $set_answer:literal, $set_shown:literal;)* }
        found { $($found:literal: $found_what:literal, $found_answer:literal, $found_shown:literal;)* }
        fixed { $(
            $(#[doc = $doc:literal])+
            $name:ident: $type:ty = $value:expr, $unit:ident, $answer:literal, $shown:literal;
        )* }
    })+) => {
        $($(
            $(#[doc = $doc])+
            pub const $name: $type = $value;
        )*)+

        /// All limits of this crate.
        pub const SECTIONS: &[$crate::LimitSection] = &[$($crate::LimitSection {
            title: $title,
            limits: &[
                $($crate::Limit {
                    what: $set_what,
                    amount: $crate::Amount::Setting($key),
                    answer: $set_answer,
                    shown: $set_shown,
                },)*
                $($crate::Limit {
                    what: $found_what,
                    amount: $crate::Amount::Found($found),
                    answer: $found_answer,
                    shown: $found_shown,
                },)*
                $($crate::Limit {
                    what: concat!($($doc),+),
                    amount: $crate::limits!(@amount $unit $name),
                    answer: $answer,
                    shown: $shown,
                },)*
            ],
        },)+];
    };
    (@amount Time $name:ident) => { $crate::Amount::Time($name) };
    (@amount Bytes $name:ident) => { $crate::Amount::Bytes($name as u64) };
    (@amount Count $name:ident) => { $crate::Amount::Count($name as u64) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        for (amount, expected) in [
            (Amount::Time(Duration::from_millis(200)), "200 ms"),
            (Amount::Time(Duration::from_secs(75)), "75 s"),
            (Amount::Time(Duration::from_secs(600)), "10 min"),
            (Amount::Bytes(107), "107 bytes"),
            (Amount::Bytes(32 << 10), "32 KiB"),
            (Amount::Bytes(16 << 20), "16 MiB"),
            (Amount::Count(64), "64"),
        ] {
            assert_eq!(amount.to_string(), expected);
        }
    }
}
