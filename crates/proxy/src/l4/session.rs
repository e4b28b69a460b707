//! One worker's UDP ports and sessions: by client, and by last use.
//!
//! Their number never exceeds [`most_sessions`](crate::net::descriptors::most_sessions): the session that has been silent longest makes
//! room for a new one.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::task::AbortHandle;

/// Identifies the client of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub(super) struct Client {
    /// The number of the proxy's port, unique in the worker.
    pub(super) port: u64,
    /// The client's address.
    pub(super) address: SocketAddr,
    /// The proxy's address that the client sent to, if the port is open on all addresses.
    pub(super) local: Option<IpAddr>,
}

/// All ports and sessions.
#[derive(Debug)]
pub(super) struct DatagramSessions<S> {
    /// The proxy's address at each port, by the port's number.
    ports: HashMap<u64, SocketAddr, foldhash::fast::RandomState>,
    by_client: HashMap<Client, Entry<S>, foldhash::fast::RandomState>,
    /// Keys are times of use, counted up.
    by_use: BTreeMap<u64, Client>,
    uses: u64,
}

#[derive(Debug)]
struct Entry<S> {
    session: Rc<S>,
    used: Cell<u64>,
    task: AbortHandle,
}

impl<S> Default for DatagramSessions<S> {
    fn default() -> Self {
        Self { ports: HashMap::default(), by_client: HashMap::default(), by_use: BTreeMap::new(), uses: 0 }
    }
}

impl<S> DatagramSessions<S> {
    /// Adds an open port.
    pub(super) fn open(&mut self, port: u64, local: SocketAddr) {
        self.ports.insert(port, local);
    }

    /// Whether any port has a matching address.
    pub(super) fn has_port(&self, is_it: impl Fn(SocketAddr) -> bool) -> bool {
        self.ports.values().any(|local| is_it(*local))
    }

    /// Number of sessions.
    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// The session of a client, marked as the most recently used.
    pub(super) fn touch(&mut self, client: &Client) -> Option<Rc<S>> {
        let entry = self.by_client.get(client)?;
        self.uses += 1;
        self.by_use.remove(&entry.used.replace(self.uses));
        self.by_use.insert(self.uses, *client);
        Some(entry.session.clone())
    }

    /// Adds a session, removing the oldest ones to make room for it.
    pub(super) fn insert(&mut self, client: Client, session: Rc<S>, task: AbortHandle, most: usize) {
        while self.by_client.len() >= most && self.evict() {}
        self.uses += 1;
        self.by_use.insert(self.uses, client);
        let entry = Entry { session, used: Cell::new(self.uses), task };
        if let Some(before) = self.by_client.insert(client, entry) {
            self.by_use.remove(&before.used.get());
            before.task.abort();
        }
    }

    /// Ends the session that has been silent longest; `false` if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let Some((_, client)) = self.by_use.pop_first() else { return false };
        if let Some(entry) = self.by_client.remove(&client) {
            entry.task.abort();
        }
        true
    }

    /// Removes a session that ends by itself.
    pub(super) fn remove(&mut self, client: &Client, session: &Rc<S>) {
        if self.by_client.get(client).is_some_and(|entry| Rc::ptr_eq(&entry.session, session))
            && let Some(entry) = self.by_client.remove(client)
        {
            self.by_use.remove(&entry.used.get());
        }
    }

    /// Ends the session of a client.
    pub(super) fn end(&mut self, client: &Client) {
        if let Some(entry) = self.by_client.remove(client) {
            self.by_use.remove(&entry.used.get());
            entry.task.abort();
        }
    }

    /// Closes a port and ends all its sessions.
    pub(super) fn close(&mut self, port: u64) {
        self.ports.remove(&port);
        for (_, entry) in self.by_client.extract_if(|client, _| client.port == port) {
            self.by_use.remove(&entry.used.get());
            entry.task.abort();
        }
    }
}
