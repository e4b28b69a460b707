//! Copies of requests for a second destination, whose answers nobody waits for.

use serde::{Deserialize, Serialize};

use crate::{Forward, Template};

/// A part of all requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fraction {
    /// So many.
    pub numerator: u32,
    /// Of so many.
    pub denominator: u32,
}

/// Where copies of requests go, and what of a request they hold.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// The destination: its backend, its Host field, the time to connect, and TLS.
    pub forward: Forward,
    /// The target of a copy; `None` for that of the request as its backend gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Template>,
    /// Whether a copy has the body. Then it is read first, and a request with a longer one than there is memory for is not copied.
    pub body: bool,
    /// The part of the requests that is copied, by chance; `None` for all.
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
