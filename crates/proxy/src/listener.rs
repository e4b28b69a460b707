//! Listening sockets: bound once for each worker (SO_REUSEPORT), accepting until they are closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_model::{Listener, ListenerName, Scheme};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::connection;
use crate::tls::Certificates;
use crate::worker::Worker;

/// Length of the kernel's queue of connections that wait to be accepted; Linux cuts it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Pause after an error that time may heal, such as running out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Such an error comes back with every try: it is logged no more often than this.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Binds one socket for each worker. With port 0 all get the one port that the kernel chose.
///
/// # Errors
/// Those of `bind(2)`: above all that the port is taken, by whomever.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // Without SO_REUSEPORT the kernel tells whether anybody else listens there; with it, another process of the same user
    // would silently get half of the connections.
    if address.port() != 0 {
        socket(address)?.bind(&address.into())?;
    }
    bind_beside(address, workers)
}

/// The same for a port that sockets of our own hold, which are closed once these are open.
///
/// # Errors
/// Those of `bind(2)`.
pub(crate) fn bind_beside(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// A listener of one worker.
#[derive(Debug)]
pub(crate) struct OpenListener {
    resource: RefCell<Arc<Listener>>,
    /// Our address, with the port that the kernel chose.
    local: SocketAddr,
    tls: RefCell<Option<Arc<ServerConfig>>>,
    certificates: Arc<Certificates>,
    closed: Notify,
    /// When it was last said that nothing can be accepted.
    warned: Cell<Option<Instant>>,
}

impl OpenListener {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// If the event loop does not take it.
    pub(crate) fn new(
        resource: Arc<Listener>,
        socket: std::net::TcpListener,
        certificates: &Arc<Certificates>,
    ) -> io::Result<(Self, TcpListener)> {
        let socket = TcpListener::from_std(socket)?;
        let open = Self {
            local: socket.local_addr()?,
            tls: RefCell::new(None),
            resource: RefCell::new(resource.clone()),
            certificates: certificates.clone(),
            closed: Notify::new(),
            warned: Cell::new(None),
        };
        open.change(resource);
        Ok((open, socket))
    }

    /// The listener resource.
    pub(crate) fn resource(&self) -> Arc<Listener> {
        self.resource.borrow().clone()
    }

    /// Its name.
    pub(crate) fn name(&self) -> ListenerName {
        self.resource.borrow().name.clone()
    }

    /// Its address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// What is spoken here.
    pub(crate) fn scheme(&self) -> Scheme {
        self.resource.borrow().scheme
    }

    /// The TLS configuration, if TLS is spoken here.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.borrow().clone()
    }

    /// Calls with the resource, without counting a reference.
    pub(crate) fn with_resource<T>(&self, look: impl FnOnce(&Listener) -> T) -> T {
        look(&self.resource.borrow())
    }

    /// The resource changed: connections, open ones too, serve the new one from their next request on.
    pub(crate) fn change(&self, resource: Arc<Listener>) {
        let tls = (resource.scheme == Scheme::Https).then(|| self.certificates.server_config(&resource.table));
        *self.tls.borrow_mut() = tls;
        *self.resource.borrow_mut() = resource;
    }

    /// Makes [`accept`] end.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }
}

/// Accepts connections until the listener is closed.
pub(crate) async fn accept(worker: Rc<Worker>, open: Rc<OpenListener>, socket: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = open.closed.notified() => break,
            accepted = async { worker.room().await; socket.accept().await } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => spawn(&worker, &open, stream, peer),
            Err(error) => pause_after(&error, &open).await,
        }
    }
    // Connections in the queue would be reset when the socket closes.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Ok((stream, peer))) = socket.poll_accept(&mut context) {
        spawn(&worker, &open, stream, peer);
    }
}

fn spawn(worker: &Rc<Worker>, open: &Rc<OpenListener>, stream: TcpStream, peer: SocketAddr) {
    tokio::task::spawn_local(connection::serve(worker.clone(), worker.admit(), open.clone(), stream, peer));
}

/// A connection that ended before it was accepted concerns nobody; a lack of descriptors or memory takes time to pass, and to
/// ask again at once would only burn the core.
async fn pause_after(error: &io::Error, open: &OpenListener) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    if is_due(&open.warned, Instant::now()) {
        tracing::warn!(%error, listener.addr = %open.local, "cannot accept connections");
    }
    tokio::time::sleep(PAUSE).await;
}

/// Whether it is time to warn again, which is noted then.
fn is_due(warned: &Cell<Option<Instant>>, now: Instant) -> bool {
    let due = warned.get().is_none_or(|last| now.duration_since(last) >= WARNING_INTERVAL);
    if due {
        warned.set(Some(now));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_that_lasts_is_told_once_a_minute() {
        let (warned, start) = (Cell::new(None), Instant::now());
        let told = (0..1200).filter(|&at| is_due(&warned, start + at * PAUSE)).count();
        assert_eq!(told, 2, "in two minutes");
    }
}
