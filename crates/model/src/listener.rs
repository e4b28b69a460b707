//! Addresses that the proxy accepts connections on.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{ListenerName, TableName};

/// An address, what is spoken on it, and which hosts it serves.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Its name.
    pub name: ListenerName,
    /// Where connections are accepted.
    pub address: SocketAddr,
    /// `Https` terminates TLS.
    pub scheme: Scheme,
    /// The hosts that are served here.
    pub table: TableName,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The name as it stands in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
