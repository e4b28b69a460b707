//! The sockets that a worker listens on: they change with the configuration.

use std::io;
use std::rc::Rc;

use fairway_model::ListenerName;

use tokio::net::TcpListener;

use super::Worker;
use super::accept::accept;
use crate::connection::{self, Accepted};
use crate::l4::{OpenStream, tcp, udp};
use crate::net::listener::{AnyListener, Bound, OpenListener};

impl Worker {
    /// Starts to accept.
    ///
    /// # Errors
    /// If the socket can't be registered with the event loop.
    pub(super) fn open_listener(&self, listener: AnyListener, socket: Bound) -> io::Result<()> {
        let local = socket.local_addr()?;
        match (listener, socket) {
            (AnyListener::Http(resource), Bound::Tcp(socket)) => {
                let (open, socket) = OpenListener::new(resource, socket, &self.certificates)?;
                let open = Rc::new(open);
                let (shard, serving, runners) = (self.shard.clone(), open.clone(), self.runners.clone());
                let task = tokio::task::spawn_local(async move {
                    accept(&shard, serving.gate(), socket, |stream, peer| {
                        // A peer that names its clients acts for many: they are counted once they are known.
                        let named = serving.accepts_proxy().then(|| shard.admit_proxy());
                        if let Some(admission) = named.or_else(|| shard.admit(peer)) {
                            let (shard, listener) = (shard.clone(), serving.clone());
                            let accepted = Box::new(Accepted { shard, admission, listener, stream, peer });
                            tokio::task::spawn_local(connection::serve(accepted, runners.clone()));
                        }
                    })
                    .await;
                });
                self.listeners.borrow_mut().push((open, task));
            }
            (AnyListener::Stream(resource), Bound::Tcp(socket)) => {
                let open = Rc::new(OpenStream::new(resource, local));
                let socket = TcpListener::from_std(socket)?;
                let (shard, serving) = (self.shard.clone(), open.clone());
                let task = tokio::task::spawn_local(async move {
                    accept(&shard, serving.gate(), socket, |stream, peer| {
                        if let Some(admission) = serving.admit(&shard, peer) {
                            let (shard, open) = (shard.clone(), serving.clone());
                            tokio::task::spawn_local(tcp::serve(shard, admission, open, stream, peer));
                        }
                    })
                    .await;
                });
                self.streams.borrow_mut().push((open, task));
            }
            (AnyListener::Stream(resource), Bound::Udp(socket)) => {
                let open = Rc::new(OpenStream::new(resource, local));
                let port = udp::Port::new(socket)?;
                let task = tokio::task::spawn_local(udp::serve(self.datagrams.clone(), open.clone(), port));
                self.streams.borrow_mut().push((open, task));
            }
            (AnyListener::Http(_), Bound::Udp(_)) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(())
    }

    /// Makes the listener at an address serve another resource from now on.
    pub(super) fn change_listener(&self, changed: AnyListener) {
        match changed {
            AnyListener::Http(resource) => {
                let listeners = self.listeners.borrow();
                listeners.iter().filter(|(open, _)| open.name() == resource.name).for_each(|(open, _)| {
                    open.change(resource.clone());
                });
            }
            AnyListener::Stream(resource) => {
                let streams = self.streams.borrow();
                streams.iter().filter(|(open, _)| open.resource().name == resource.name).for_each(|(open, _)| {
                    open.change(resource.clone());
                });
            }
        }
    }

    /// The names of the UDP listeners.
    pub(super) fn datagram_ports(&self) -> Vec<ListenerName> {
        let streams = self.streams.borrow();
        let datagrams = streams.iter().filter(|(open, _)| open.is_udp());
        datagrams.map(|(open, _)| open.resource().name.clone()).collect()
    }

    /// Leaves the datagrams that arrive at UDP listeners to another process, or receives them again.
    pub(super) fn set_quiet(&self, quiet: bool) {
        let streams = self.streams.borrow();
        streams.iter().filter(|(open, _)| open.is_udp()).for_each(|(open, _)| open.gate().set_quiet(quiet));
    }

    /// Closes listeners after accepting what waits in their queues, which would otherwise be reset.
    pub(super) async fn close_listeners(&self, gone: impl Fn(&ListenerName) -> bool) {
        let closing: Vec<_> = self.listeners.borrow_mut().extract_if(.., |(open, _)| gone(&open.name())).collect();
        let streams: Vec<_> =
            self.streams.borrow_mut().extract_if(.., |(open, _)| gone(&open.resource().name)).collect();
        // All at the same time: each may have to wait a moment.
        closing.iter().for_each(|(open, _)| open.gate().close());
        streams.iter().for_each(|(open, _)| open.gate().close());
        for task in closing.into_iter().map(|(_, task)| task).chain(streams.into_iter().map(|(_, task)| task)) {
            let _ = task.await;
        }
    }
}
