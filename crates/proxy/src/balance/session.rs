//! Maps sessions to endpoints (ingress-nginx `balancer/sticky*.lua`, `util/nodemap.lua`).
//!
//! The value of a session cookie is `<key>|<backend key>`. In `persistent` mode the key names an endpoint; in `balanced` mode it is hashed
//! onto a ring. Cookies set by ingress-nginx keep their meaning, with and without the second part.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Affinity, AffinityMode, hex_digest};
use md5::{Digest, Md5};

use super::Node;
use super::ring::Ring;
use crate::limit::SESSION_KEYS;
use crate::random::Rng;

/// The first part of a session cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionKey {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl SessionKey {
    /// Seconds (20 digits at most), milliseconds, process id and a random number, with dots between them.
    // No limit: the longest possible text.
    const CAPACITY: usize = 44;

    /// The key as written in the cookie.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn of_hex(hex: &[u8; 32]) -> Self {
        let mut key = Self { bytes: [0; Self::CAPACITY], len: 32 };
        key.bytes[..32].copy_from_slice(hex);
        key
    }

    /// Generates `<time>.<process>.<random>`, like ingress-nginx.
    fn generate(since_1970: std::time::Duration, rng: &mut Rng) -> Self {
        use std::io::Write;
        let mut key = Self { bytes: [0; Self::CAPACITY], len: 0 };
        let mut rest = &mut key.bytes[..];
        let (seconds, millis) = (since_1970.as_secs(), since_1970.subsec_millis());
        let written = write!(rest, "{seconds}.{millis:03}.{}.{}", std::process::id(), rng.below(1_000_000));
        debug_assert!(written.is_ok(), "the buffer holds the longest key");
        let left = rest.len();
        key.len = (Self::CAPACITY - left) as u8;
        key
    }
}

/// The second part of a session cookie, md5(md5(name) + name) of the upstream name in hexadecimal.
pub fn backend_key(upstream_name: &str) -> [u8; 32] {
    let inner = hex_digest(Md5::digest(upstream_name).into());
    hex_digest(Md5::new().chain_update(inner).chain_update(upstream_name).finalize().into())
}

/// The sessions of one backend.
#[derive(Debug)]
pub(super) struct Sessions {
    change_on_failure: bool,
    map: Map,
}

#[derive(Debug)]
enum Map {
    Balanced(Ring),
    Persistent {
        /// Node by key, sorted.
        by_key: Vec<([u8; 32], u32)>,
        /// Key by node.
        keys: Vec<[u8; 32]>,
    },
}

impl Sessions {
    pub(super) fn new(
        affinity: &Affinity,
        upstream_name: &str,
        known: Option<Self>,
        previous: &[Node],
        nodes: &[Node],
    ) -> Self {
        let map = match affinity.mode {
            AffinityMode::Balanced => {
                let known = match known {
                    Some(Self { map: Map::Balanced(ring), .. }) => Some(ring),
                    _ => None,
                };
                // Draining endpoints stay on the ring, so their sessions move only once they are gone.
                Map::Balanced(Ring::new(known, previous, nodes, |_| true))
            }
            AffinityMode::Persistent => Map::persistent(upstream_name, nodes),
        };
        Self { change_on_failure: affinity.change_on_failure, map }
    }

    /// Sessions of rules: each names its endpoint, and moves to another when that one fails.
    pub(super) fn of_rules(upstream_name: &str, nodes: &[Node]) -> Self {
        Self { change_on_failure: true, map: Map::persistent(upstream_name, nodes) }
    }

    pub(super) fn change_on_failure(&self) -> bool {
        self.change_on_failure
    }

    /// The node that a session cookie's value refers to.
    pub(super) fn find(&self, value: &[u8]) -> Option<u32> {
        let key = value.split(|&byte| byte == b'|').next().filter(|key| !key.is_empty())?;
        match &self.map {
            Map::Balanced(ring) => ring.find(key),
            Map::Persistent { by_key, .. } => {
                let at = by_key.binary_search_by(|(known, _)| known.as_slice().cmp(key)).ok()?;
                Some(by_key[at].1)
            }
        }
    }

    /// Starts a session whose key determines its endpoint; `None` if the balancer has to choose the endpoint.
    pub(super) fn open(
        &self,
        nodes: &[Node],
        may: impl Fn(&SocketAddr) -> bool,
        rng: &mut Rng,
    ) -> Option<(u32, SessionKey)> {
        let Map::Balanced(ring) = &self.map else {
            return None;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (0..SESSION_KEYS).find_map(|_| {
            let key = SessionKey::generate(now, rng);
            let node = ring.find(key.as_bytes())?;
            let found = &nodes[node as usize];
            (found.is_open() && may(&found.address)).then_some((node, key))
        })
    }

    /// The key of a session on a node chosen by the balancer, if the mode has one.
    pub(super) fn key_of(&self, node: u32) -> Option<SessionKey> {
        match &self.map {
            Map::Balanced(_) => None,
            Map::Persistent { keys, .. } => keys.get(node as usize).map(SessionKey::of_hex),
        }
    }
}

impl Map {
    fn persistent(upstream_name: &str, nodes: &[Node]) -> Self {
        let keys: Vec<_> = nodes.iter().map(|node| endpoint_key(upstream_name, node.address)).collect();
        let mut by_key: Vec<_> = keys.iter().copied().zip(0..).collect();
        by_key.sort_unstable();
        Self::Persistent { by_key, keys }
    }
}

/// md5(upstream name + address) in hexadecimal.
fn endpoint_key(upstream_name: &str, address: SocketAddr) -> [u8; 32] {
    hex_digest(Md5::new().chain_update(upstream_name).chain_update(address.to_string()).finalize().into())
}

/// A key with a given text, for tests of how keys are used.
#[cfg(test)]
pub(super) fn tests_key(text: &[u8]) -> SessionKey {
    let mut key = SessionKey { bytes: [0; SessionKey::CAPACITY], len: text.len() as u8 };
    key.bytes[..text.len()].copy_from_slice(text);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_ingress_nginx() {
        // printf %s web-80 | md5sum, and the result with the name appended, hashed again.
        assert_eq!(hex_digest(Md5::digest("").into()), *b"d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(std::str::from_utf8(&backend_key("default-web-80")).unwrap(), "6cde5721ec2c7e2bce07cff7d0e4ac37");
        let address = "10.184.7.40:8080".parse().unwrap();
        assert_eq!(
            std::str::from_utf8(&endpoint_key("default-web-80", address)).unwrap(),
            "1a6e1b519587043c69d14e9033a4e665"
        );
    }

    #[test]
    fn the_longest_key_fits() {
        let longest = std::time::Duration::new(99_999_999_999, 999_000_000);
        let key = SessionKey::generate(longest, &mut Rng::from_seed(1));
        let text = std::str::from_utf8(key.as_bytes()).unwrap();
        assert_eq!(text.split('.').count(), 4);
        assert!(text.starts_with("99999999999.999."));
    }
}
