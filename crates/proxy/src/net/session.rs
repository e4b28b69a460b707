//! TLS sessions of client connections: none is resumed where other client certificates are asked for, and replicas may share tickets.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256};
use fairway_model::{ClientAuth, TableName, TicketKey};
use rustls::server::{ProducesTickets, StoresServerSessions};

use crate::limit::TICKET_LIFETIME;

/// The sessions of one configuration within the store of all.
#[derive(Debug)]
pub(super) struct ScopedSessions {
    pub(super) scope: [u8; 8],
    pub(super) sessions: Arc<dyn StoresServerSessions>,
    /// Seconds for which a session is remembered; `None` if it is not.
    pub(super) lifetime: Option<u64>,
}

impl ScopedSessions {
    fn scoped(&self, key: &[u8]) -> Vec<u8> {
        [&self.scope, key].concat()
    }

    fn put_at(&self, now: u64, key: &[u8], value: &[u8]) -> bool {
        self.lifetime.is_some() && self.sessions.put(self.scoped(key), [&now.to_be_bytes(), value].concat())
    }

    /// The stored value, unless it is too old.
    fn current(&self, now: u64, stored: &[u8]) -> Option<Vec<u8>> {
        let (since, value) = stored.split_first_chunk::<ISSUED>()?;
        let age = now.saturating_sub(u64::from_be_bytes(*since));
        (age <= self.lifetime?).then(|| value.to_vec())
    }
}

impl StoresServerSessions for ScopedSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.put_at(now(), &key, &value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.current(now(), &self.sessions.get(&self.scoped(key))?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.current(now(), &self.sessions.take(&self.scoped(key))?)
    }

    fn can_cache(&self) -> bool {
        self.lifetime.is_some() && self.sessions.can_cache()
    }
}

/// The tickets of one configuration, which no other one accepts.
#[derive(Debug)]
pub(super) struct ScopedTickets {
    pub(super) scope: [u8; 8],
    pub(super) tickets: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for ScopedTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&[&self.scope, plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.tickets.decrypt(cipher)?;
        plain.strip_prefix(&self.scope).map(<[u8]>::to_vec)
    }
}

/// Tickets with a key that replicas share. A ticket is the name of the key, a random nonce, and the session with the time of issue,
/// encrypted and authenticated with AES-256-GCM.
pub(super) struct SharedTickets {
    name: Vec<u8>,
    key: RandomizedNonceKey,
}

/// Length of a nonce of AES-GCM.
// No limit: fixed by the format.
const NONCE: usize = 12;

/// Length of the time of issue, in seconds since 1970.
// No limit: fixed by the format.
const ISSUED: usize = size_of::<u64>();

impl SharedTickets {
    /// `None` for a key without a secret.
    pub(super) fn new(key: &TicketKey) -> Option<Self> {
        let (name, secret) = key.parts();
        let mut context = Context::new(&SHA256);
        context.update(b"fairway session tickets");
        context.update(secret);
        let key = RandomizedNonceKey::new(&AES_256_GCM, context.finish().as_ref()).ok()?;
        (!secret.is_empty()).then(|| Self { name: name.to_vec(), key })
    }

    fn encrypt_at(&self, now: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = [&now.to_be_bytes(), plain].concat();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(&self.name), &mut sealed).ok()?;
        Some([&self.name, &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt_at(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.strip_prefix(&self.name[..])?.split_first_chunk::<NONCE>()?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(&self.name), &mut sealed).ok()?;
        let (issued, plain) = opened.split_first_chunk::<ISSUED>()?;
        // The clocks of replicas may differ a little.
        let age = now.saturating_sub(u64::from_be_bytes(*issued));
        (age <= TICKET_LIFETIME.as_secs()).then(|| plain.to_vec())
    }
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(now(), plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(now(), ticket)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The scope of sessions, the same in every process: the hosts, and what clients are asked for.
pub(super) fn lasting_scope(table: &TableName, auth: Option<&ClientAuth>) -> [u8; 8] {
    let mut context = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    add(table.as_str().as_bytes());
    if let Some(auth) = auth {
        add(format!("{:?} {} {}", auth.mode, auth.depth, auth.in_handshake).as_bytes());
        for der in auth.authorities.iter().chain(auth.revocation_lists.iter()) {
            add(der.der());
        }
    }
    let mut scope = [0; 8];
    scope.copy_from_slice(&context.finish().as_ref()[..8]);
    scope
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(secret: u8) -> SharedTickets {
        let key = [[1; 16].as_slice(), &[secret; 32]].concat();
        SharedTickets::new(&TicketKey::new(&key).unwrap()).unwrap()
    }

    #[test]
    fn replicas_with_the_same_key_read_each_others_tickets() {
        let (one, other, stranger) = (tickets(7), tickets(7), tickets(8));
        let ticket = one.encrypt(b"session").unwrap();
        assert_ne!(ticket, one.encrypt(b"session").unwrap());
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(stranger.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(other.decrypt(&changed), None, "{at}");
            assert_eq!(other.decrypt(&ticket[..at]), None, "{at}");
        }
    }

    #[test]
    fn a_ticket_expires() {
        let (tickets, lifetime) = (tickets(7), TICKET_LIFETIME.as_secs());
        let ticket = tickets.encrypt_at(1000, b"session").unwrap();
        assert!(tickets.decrypt_at(1000 + lifetime, &ticket).is_some());
        assert!(tickets.decrypt_at(1001 + lifetime, &ticket).is_none());
        assert!(tickets.decrypt_at(990, &ticket).is_some(), "another clock");
    }

    #[test]
    fn a_session_is_remembered_for_its_time() {
        let sessions = |lifetime| ScopedSessions {
            scope: [1; 8],
            sessions: rustls::server::ServerSessionMemoryCache::new(10),
            lifetime,
        };
        let lasting = sessions(Some(600));
        assert!(lasting.can_cache() && lasting.put_at(1000, b"key", b"session"));
        let stored = lasting.sessions.get(&lasting.scoped(b"key")).unwrap();
        assert_eq!(lasting.current(1600, &stored).as_deref(), Some(&b"session"[..]));
        assert_eq!(lasting.current(1601, &stored), None);
        assert!(lasting.put(b"other".to_vec(), b"session".to_vec()) && lasting.get(b"other").is_some());
        assert!(lasting.take(b"other").is_some() && lasting.get(b"other").is_none());
        let forgetful = sessions(None);
        assert!(!forgetful.can_cache() && !forgetful.put(b"key".to_vec(), b"session".to_vec()));
        assert_eq!(forgetful.get(b"key"), None);
    }
}
