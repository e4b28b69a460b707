//! Copies of requests for a second destination; the exchange does not wait for its answers.

use serde::{Deserialize, Serialize};

use crate::{Forward, Template};

/// A fraction of all requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fraction {
    /// The number taken.
    pub numerator: u32,
    /// The number it is taken from.
    pub denominator: u32,
}

/// Where copies of requests go, and what they contain.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// The destination: its backend, its Host field, the time to connect, and TLS.
    pub forward: Forward,
    /// The target of a copy; `None` for that of the request as its backend gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Template>,
    /// Whether a copy has the body. If so, the body is read first, and a request whose body exceeds the available memory is not copied.
    pub body: bool,
    /// The fraction of the requests that is copied, chosen at random; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

impl Mirror {
    /// Whether a request is copied. `below` is a random number below its argument.
    pub fn takes(&self, below: impl FnOnce(u32) -> u32) -> bool {
        self.fraction.is_none_or(|Fraction { numerator, denominator }| {
            numerator >= denominator || below(denominator) < numerator
        })
    }
}
