//! Copies of requests for a second destination, whose answers nobody waits for.

use serde::{Deserialize, Serialize};

use crate::{Forward, Template};

/// Where copies of requests go, and what of a request they hold.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// The destination: its backend, its Host field, the time to connect, and TLS.
    pub forward: Forward,
    /// The target of a copy.
    pub target: Template,
    /// Whether a copy has the body. Then it is read first, and a request with a longer one than there is memory for is not copied.
    pub body: bool,
}
