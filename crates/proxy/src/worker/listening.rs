//! The sockets that a worker listens on: they come and go with the configuration.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use fairway_model::ListenerName;

use super::Worker;
use crate::l4::{self, OpenStream};
use crate::net::listener::{self, AnyListener, Bound, OpenListener};

impl Worker {
    /// Starts to accept.
    ///
    /// # Errors
    /// If the event loop does not take the socket.
    pub(super) fn open_listener(self: &Rc<Self>, listener: AnyListener, socket: Bound) -> io::Result<()> {
        let local = socket.local_addr()?;
        match (listener, socket) {
            (AnyListener::Http(resource), Bound::Tcp(socket)) => {
                let (open, socket) = OpenListener::new(resource, socket, &self.common.certificates)?;
                let open = Rc::new(open);
                let task = tokio::task::spawn_local(listener::serve(self.clone(), open.clone(), socket));
                self.listeners.borrow_mut().push((open, task));
            }
            (AnyListener::Stream(resource), socket) => {
                let open = Rc::new(OpenStream::new(resource, local));
                let task = l4::open(self.clone(), open.clone(), socket)?;
                self.streams.borrow_mut().push((open, task));
            }
            (AnyListener::Http(_), Bound::Udp(_)) => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(())
    }

    /// What listens at an address serves another resource from now on.
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

    /// Whether there is such an address among those where datagrams are taken.
    pub(crate) fn has_udp_port(&self, is_it: impl Fn(SocketAddr) -> bool) -> bool {
        self.streams.borrow().iter().any(|(open, _)| open.is_udp() && is_it(open.gate().local()))
    }

    /// The names of the listeners that take datagrams.
    pub(super) fn datagram_ports(&self) -> Vec<ListenerName> {
        let streams = self.streams.borrow();
        let datagrams = streams.iter().filter(|(open, _)| open.is_udp());
        datagrams.map(|(open, _)| open.resource().name.clone()).collect()
    }

    /// Closes listeners after they have taken what waits in their queues, which would be reset otherwise.
    pub(super) async fn close_listeners(&self, gone: impl Fn(&ListenerName) -> bool) {
        let closing: Vec<_> = self.listeners.borrow_mut().extract_if(.., |(open, _)| gone(&open.name())).collect();
        let streams: Vec<_> =
            self.streams.borrow_mut().extract_if(.., |(open, _)| gone(&open.resource().name)).collect();
        // All at the same time: each may have to wait for a moment.
        closing.iter().for_each(|(open, _)| open.gate().close());
        streams.iter().for_each(|(open, _)| open.gate().close());
        for task in closing.into_iter().map(|(_, task)| task).chain(streams.into_iter().map(|(_, task)| task)) {
            let _ = task.await;
        }
    }
}
