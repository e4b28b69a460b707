//! Listening sockets on their way from one process to the next: those that are kept ready to be given away, and those that came from
//! the previous process. Connections wait in the socket, not in a process, so none is lost on the way.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use fairway_model::ListenerName;
use socket2::{Socket, Type};

use super::listener::{self, AnyListener, Bound};
use crate::limit::INHERITED_PER_WORKER;

/// Further descriptors of the open sockets. Without them a process can't give its sockets away; with them a socket stays open until
/// both are closed.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<HashMap<ListenerName, Vec<Bound>>>);

impl Spare {
    /// Keeps descriptors from now on.
    pub(crate) fn enabled() -> Self {
        Self(Some(HashMap::new()))
    }

    /// Keeps those of a listener. If no descriptors are left for them, the next process can't take these sockets.
    pub(crate) fn keep(&mut self, name: &ListenerName, sockets: &[Bound]) {
        if let Some(kept) = &mut self.0 {
            match sockets.iter().map(Bound::try_clone).collect() {
                Ok(copies) => drop(kept.insert(name.clone(), copies)),
                Err(error) => tracing::warn!(%error, listener = %name, "can't be handed over to another process"),
            }
        }
    }

    /// Closes those of a listener.
    pub(crate) fn remove(&mut self, name: &ListenerName) {
        if let Some(kept) = &mut self.0 {
            kept.remove(name);
        }
    }

    /// Closes all, or all but the UDP sockets.
    pub(crate) fn clear(&mut self, with_datagrams: bool) {
        if let Some(kept) = &mut self.0 {
            kept.retain(|_, sockets| !with_datagrams && sockets.iter().all(|one| matches!(one, Bound::Udp(_))));
        }
    }

    /// A copy of each.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(crate) fn copies(&self) -> io::Result<Vec<Bound>> {
        self.0.iter().flat_map(HashMap::values).flatten().map(Bound::try_clone).collect()
    }
}

/// Sockets of the previous process, by kind and address.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<(bool, SocketAddr), Vec<Bound>>);

impl Inherited {
    /// Adds a socket; the kernel says what it is. One that can't be used is closed.
    pub(crate) fn add(&mut self, socket: OwnedFd) -> io::Result<()> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let bound = match socket.r#type()? {
            Type::STREAM if socket.is_listener()? => Bound::Tcp(socket.into()),
            Type::DGRAM => Bound::Udp(socket.into()),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.0.entry((matches!(bound, Bound::Udp(_)), address)).or_default().push(bound);
        Ok(())
    }

    /// Number of sockets.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The sockets for a listener, and as many new ones as it takes to give each worker the same number. `None` if it has inherited none.
    ///
    /// All of them stay open, even if the previous process had more workers: a client connecting to one that closes would be refused.
    ///
    /// # Errors
    /// Those of `bind(2)` for the new ones.
    pub(crate) fn take(&mut self, listener: &AnyListener, workers: usize) -> io::Result<Option<Vec<Bound>>> {
        let Some(mut sockets) = self.0.remove(&(listener.is_udp(), listener.address())) else { return Ok(None) };
        let more = missing(sockets.len(), workers);
        sockets.extend(listener::bind_beside(listener, more)?);
        Ok(Some(sockets))
    }
}

/// How many sockets have to be added so that each worker has the same number of them, unless that would be too many.
fn missing(sockets: usize, workers: usize) -> usize {
    let all = sockets.next_multiple_of(workers.max(1));
    if all > workers.saturating_mul(INHERITED_PER_WORKER) { 0 } else { all - sockets }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_the_same_number_of_sockets() {
        for (sockets, workers, more) in [(1, 1, 0), (2, 4, 2), (3, 2, 1), (4, 2, 0), (5, 4, 3), (1, 4, 3)] {
            assert_eq!(missing(sockets, workers), more, "{sockets} for {workers}");
        }
    }

    #[test]
    fn their_number_does_not_grow_with_every_process() {
        let mut sockets = 7;
        for workers in (1..=9).cycle().take(1000) {
            sockets += missing(sockets, workers);
            assert!(sockets <= 9 * INHERITED_PER_WORKER, "{sockets}");
        }
    }
}
