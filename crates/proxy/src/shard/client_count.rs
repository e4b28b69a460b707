//! Counts each client's connections, if there is a limit.
//!
//! One count for the whole process: the kernel spreads a client's connections over all workers, and a limit per worker would
//! depend on the machine. It takes a lock when a connection begins and when it ends, and only where the limit is set.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairway_model::{CountedClient, Settings};

/// The clients that have connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientCounts(Arc<Mutex<HashMap<CountedClient, u32>>>);

/// One connection of a client, counted until it is dropped. The default is one that isn't counted.
#[derive(Debug, Default)]
pub(crate) struct ClientCount(Option<(ClientCounts, CountedClient)>);

impl ClientCounts {
    /// Another connection of a client; `None` if it has reached the limit. A peer that is trusted to name its clients acts for
    /// many of them and is not counted.
    pub(crate) fn enter(&self, peer: IpAddr, settings: &Settings) -> Option<ClientCount> {
        let Some(most) = settings.connections_per_client.filter(|_| !settings.forwarded.trusts(peer)) else {
            return Some(ClientCount::default());
        };
        let client = CountedClient::from(peer);
        let mut counts = self.lock();
        let count = counts.entry(client).or_default();
        if *count >= most.get() {
            return None;
        }
        *count += 1;
        Some(ClientCount(Some((self.clone(), client))))
    }

    /// Locks even after a panic in another thread: the counts stay consistent.
    fn lock(&self) -> MutexGuard<'_, HashMap<CountedClient, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientCount {
    fn drop(&mut self) {
        let Some((counts, client)) = self.0.take() else { return };
        let mut counts = counts.lock();
        if let Entry::Occupied(mut count) = counts.entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_so_many_connections_and_leaves_nothing_behind() {
        let counts = ClientCounts::default();
        let settings = Settings { connections_per_client: NonZeroU32::new(2), ..Settings::default() };
        let enter = |text| counts.enter(address(text), &settings);
        let (first, second) = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("192.0.2.1").is_none());
        let others = [enter("192.0.2.2"), enter("2001:db8::1"), enter("2001:db8::2")];
        assert!(others.iter().all(Option::is_some));
        assert!(enter("2001:db8::ffff:1").is_none(), "the same network of 64 bits");
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        drop((second, others));
        assert!(counts.lock().is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted_and_a_trusted_proxy_never_is() {
        let counts = ClientCounts::default();
        let peer = address("192.0.2.1");
        let counted = [counts.enter(peer, &Settings::default())];
        let mut trusting = Settings { connections_per_client: NonZeroU32::new(1), ..Settings::default() };
        trusting.forwarded.trust = true;
        assert!(counted[0].is_some() && counts.enter(peer, &trusting).is_some());
        assert!(counts.lock().is_empty());
    }
}
