//! The sessions of datagrams of one worker: by client, and by when they were last used.
//!
//! There are never more than [`most_sessions`](crate::net::descriptors::most_sessions): the one that was silent for longest makes room for
//! a new one.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::task::AbortHandle;

use super::udp::UdpSession;

/// Whose session it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub(super) struct Client {
    /// The port of ours; no two have the same number.
    pub(super) port: u64,
    /// The client.
    pub(super) address: SocketAddr,
    /// The address of ours that it asked, where the port is open on all.
    pub(super) local: Option<IpAddr>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_client: HashMap<Client, Entry, foldhash::fast::RandomState>,
    /// Keys are times of use, which count up.
    by_use: BTreeMap<u64, Client>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    session: Rc<UdpSession>,
    used: Cell<u64>,
    task: AbortHandle,
}

impl Sessions {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// The session of a client, which is the last one used from now on.
    pub(super) fn touch(&mut self, client: &Client) -> Option<Rc<UdpSession>> {
        let entry = self.by_client.get(client)?;
        self.uses += 1;
        self.by_use.remove(&entry.used.replace(self.uses));
        self.by_use.insert(self.uses, *client);
        Some(entry.session.clone())
    }

    /// Adds a session, after the oldest ones have made room for it.
    pub(super) fn insert(&mut self, client: Client, session: Rc<UdpSession>, task: AbortHandle, most: usize) {
        while self.by_client.len() >= most && self.evict() {}
        self.uses += 1;
        self.by_use.insert(self.uses, client);
        let entry = Entry { session, used: Cell::new(self.uses), task };
        if let Some(before) = self.by_client.insert(client, entry) {
            self.by_use.remove(&before.used.get());
            before.task.abort();
        }
    }

    /// Ends the session that was silent for longest; `false` if there is none.
    pub(super) fn evict(&mut self) -> bool {
        let Some((_, client)) = self.by_use.pop_first() else { return false };
        if let Some(entry) = self.by_client.remove(&client) {
            entry.task.abort();
        }
        true
    }

    /// Forgets a session that ends by itself.
    pub(super) fn remove(&mut self, client: &Client, session: &Rc<UdpSession>) {
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

    /// Ends all sessions of a port.
    pub(super) fn close(&mut self, port: u64) {
        for (_, entry) in self.by_client.extract_if(|client, _| client.port == port) {
            self.by_use.remove(&entry.used.get());
            entry.task.abort();
        }
    }
}
