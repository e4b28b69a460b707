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
    /// The port that backends are told.
    #[serde(default, skip_serializing_if = "ToldPort::is_usual")]
    pub told_port: ToldPort,
}

impl Listener {
    /// A listener without PROXY headers that tells backends the usual port.
    pub fn new(name: impl Into<ListenerName>, address: SocketAddr, scheme: Scheme, table: TableName) -> Self {
        Self { name: name.into(), address, scheme, table, accept_proxy: false, told_port: ToldPort::Usual }
    }
}

/// The port that backends are told as that of the client's request (X-Forwarded-Port).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum ToldPort {
    /// 443 over TLS, whatever port it is on, since clients reach it there through a Service; otherwise that of the address (ingress-nginx).
    #[default]
    Usual,
    /// That of the address.
    Local,
    /// This one, which leads to that of the address.
    Number(u16),
}

impl ToldPort {
    /// Whether it is as usual.
    pub fn is_usual(&self) -> bool {
        *self == Self::Usual
    }

    /// The number, for a connection to this port.
    pub fn number(self, scheme: Scheme, local: u16) -> u16 {
        match (self, scheme) {
            (Self::Usual, Scheme::Https) => Scheme::Https.default_port(),
            (Self::Usual, Scheme::Http) | (Self::Local, _) => local,
            (Self::Number(number), _) => number,
        }
    }
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
