//! Addresses and networks.

use std::net::IpAddr;

use fairway_model::NetworkSet;
use ipnet::{IpNet, Ipv4Net};

use super::Value;
use super::list::sift;

/// Addresses and CIDRs, IPv4 and IPv6, separated by commas. Host bits are cleared; one invalid entry makes the list invalid.
impl Value for NetworkSet {
    const SYNTAX: &'static str = "addresses or CIDRs, separated by commas, such as `10.0.0.0/8, 2001:db8::1`";

    fn parse(text: &str) -> Option<Self> {
        let mut networks = text.split(',').map(|entry| network(entry.trim())).collect::<Option<Vec<_>>>()?;
        networks.sort_unstable();
        networks.dedup();
        Some(networks.into())
    }
}

/// One address or CIDR. Networks of IPv4-mapped addresses become IPv4 networks, as Go prints them.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let network = text.parse::<IpNet>().ok()?.trunc();
    match (network.network().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(v4), length) if length > 32 => Ipv4Net::new(v4, length.checked_sub(96)?).ok().map(IpNet::V4),
        _ => Some(network),
    }
}

/// A list of networks for every route without its own.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum AccessList {
    /// No list: it denies no client.
    #[default]
    Unset,
    /// These networks.
    Networks(NetworkSet),
    /// The value is invalid. A restriction fails closed: routes that would inherit the list answer 503.
    Unreadable,
}

impl Value for AccessList {
    const SYNTAX: &'static str = NetworkSet::SYNTAX;

    fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::Unset);
        }
        NetworkSet::parse(text).map(Self::Networks)
    }
}

/// Addresses to listen on; an empty list means all. Invalid entries are left out if any valid ones remain.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct IpList {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    left_out: Vec<String>,
}

impl Value for IpList {
    const SYNTAX: &'static str = "addresses separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let address = |entry: &str| {
            entry.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(entry).parse().ok()
        };
        let (addresses, left_out) = sift(text, address);
        (left_out.is_empty() || !addresses.is_empty()).then_some(Self { addresses, left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}
