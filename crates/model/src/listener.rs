//! Addresses on which the proxy accepts connections.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{ListenerName, TableName};

/// An address, the scheme spoken on it, and the hosts it serves.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Its name.
    pub name: ListenerName,
    /// Where connections are accepted.
    pub address: SocketAddr,
    /// `Https` terminates TLS.
    pub scheme: Scheme,
    /// The hosts served here.
    pub table: TableName,
    /// Whether each connection must begin with a PROXY header, which names its client. The peers that may send one are
    /// those of [`ForwardedHeaders::trusted`](crate::ForwardedHeaders::trusted).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_proxy: bool,
}

/// The scheme of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The name as it appears in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that URLs needn't name.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
