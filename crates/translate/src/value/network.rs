//! Addresses and networks.

use std::net::IpAddr;

use fairway_model::NetworkSet;
use ipnet::{IpNet, Ipv4Net};

use super::Value;
use super::list::sift;

/// Addresses and CIDRs, IPv4 and IPv6, separated by commas. Host bits are cleared; one bad entry spoils the list.
impl Value for NetworkSet {
    const SYNTAX: &'static str = "addresses or CIDRs, separated by commas, such as `10.0.0.0/8, 2001:db8::1`";

    fn parse(text: &str) -> Option<Self> {
        let mut networks = text.split(',').map(|entry| network(entry.trim())).collect::<Option<Vec<_>>>()?;
        networks.sort_unstable();
        networks.dedup();
        Some(networks.into())
    }
}

/// One address or CIDR. Networks of IPv4-mapped addresses become IPv4 ones, as Go prints them.
fn network(text: &str) -> Option<IpNet> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical().into());
    }
    let network = text.parse::<IpNet>().ok()?.trunc();
    match (network.network().to_canonical(), network.prefix_len()) {
        (IpAddr::V4(v4), length) if length > 32 => Ipv4Net::new(v4, length.checked_sub(96)?).ok().map(IpNet::V4),
        _ => Some(network),
    }
}

/// A list of networks that holds for every route without one of its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum AccessList {
    /// No such list: nobody is refused by it.
    #[default]
    Unset,
    /// These networks.
    Networks(NetworkSet),
    /// What stands there can't be read. A restriction fails closed: routes that would inherit the list answer 503.
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

/// Addresses to listen on; an empty list means all. An entry that is no address is left out, and the others stay, as long as there
/// are others.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
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
