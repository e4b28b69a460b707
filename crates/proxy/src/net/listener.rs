//! Listening sockets: bound once for each worker (SO_REUSEPORT), accepting until closed.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fairway_model::{Listener, ListenerName, Scheme, StreamListener};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::limit::{ACCEPT_PAUSE, ACCEPT_WARNING_INTERVAL, BACKLOG};
use crate::net::tls::{Certificates, ServerConfigs};
use crate::timer::Timers;

/// A resource that listens.
#[derive(Clone, Debug)]
pub(crate) enum AnyListener {
    /// For HTTP.
    Http(Arc<Listener>),
    /// For a TCP or UDP service.
    Stream(Arc<StreamListener>),
}

impl AnyListener {
    /// Its unique name.
    pub(crate) fn name(&self) -> &ListenerName {
        match self {
            Self::Http(listener) => &listener.name,
            Self::Stream(listener) => &listener.name,
        }
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Http(listener) => listener.address,
            Self::Stream(listener) => listener.address,
        }
    }

    /// Whether it receives datagrams.
    pub(crate) fn is_udp(&self) -> bool {
        matches!(self, Self::Stream(listener) if listener.transport.is_udp())
    }

    /// Whether both are the same resource.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => Arc::ptr_eq(one, other),
            (Self::Stream(one), Self::Stream(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether sockets bound for one can serve the other.
    pub(crate) fn shares_sockets(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.address() == other.address()
            && self.is_udp() == other.is_udp()
    }
}

/// A bound socket.
#[derive(Debug)]
pub(crate) enum Bound {
    /// A listening TCP socket.
    Tcp(std::net::TcpListener),
    /// A UDP socket.
    Udp(std::net::UdpSocket),
}

impl Bound {
    /// Its local address, with the port that the kernel chose.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Udp(socket) => Self::Udp(socket.try_clone()?),
        })
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Binds one socket for each worker. With port 0, all of them share the port that the kernel chose.
///
/// # Errors
/// Those of `bind(2)`: above all, that the port is already in use.
pub(crate) fn bind(listener: &AnyListener, workers: usize) -> io::Result<Vec<Bound>> {
    // Without SO_REUSEPORT the kernel reports whether another socket listens there; with it, another process of the same user
    // would silently get half of the connections.
    let address = listener.address();
    if address.port() != 0 {
        socket(address, listener.is_udp())?.bind(&address.into())?;
    }
    bind_beside(listener, workers)
}

/// The same for a port held by this process's own sockets, which are closed once the new ones are open.
///
/// # Errors
/// Those of `bind(2)`.
pub(crate) fn bind_beside(listener: &AnyListener, count: usize) -> io::Result<Vec<Bound>> {
    let mut address = listener.address();
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(address, listener.is_udp())?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        let bound = if listener.is_udp() {
            Bound::Udp(socket.into())
        } else {
            socket.listen(BACKLOG)?;
            Bound::Tcp(socket.into())
        };
        address = bound.local_addr()?;
        sockets.push(bound);
    }
    Ok(sockets)
}

fn socket(address: SocketAddr, udp: bool) -> io::Result<Socket> {
    let (kind, protocol) = if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if !udp {
        // For datagrams it would allow other sockets to bind the port too.
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// State that every open listening socket has.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The local address, with the port that the kernel chose.
    local: SocketAddr,
    closed: Notify,
    /// Whether nothing is received, because another process does.
    quiet: watch::Sender<bool>,
    /// Time of the last warning that nothing can be accepted.
    warned: Cell<Option<Instant>>,
}

impl Gate {
    /// Creates the gate of a socket at this address.
    pub(crate) fn new(local: SocketAddr) -> Self {
        Self { local, closed: Notify::new(), quiet: watch::Sender::default(), warned: Cell::new(None) }
    }

    /// Its address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Ends the accept loop.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }

    /// Leaves arriving datagrams to another process that has the socket too, or receives them again.
    pub(crate) fn set_quiet(&self, quiet: bool) {
        self.quiet.send_replace(quiet);
    }

    /// Whether arriving datagrams are left to another process: the current state, and its changes.
    pub(crate) fn quiet(&self) -> watch::Receiver<bool> {
        self.quiet.subscribe()
    }

    /// Resolves when the gate is closed.
    pub(crate) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Warns that something can't be accepted, unless it did so recently.
    pub(crate) fn warn(&self, error: &io::Error) {
        if is_due(&self.warned, Instant::now()) {
            tracing::warn!(%error, address = %self.local, "cannot accept connections or datagrams");
        }
    }
}

/// One worker's open listener.
#[derive(Debug)]
pub(crate) struct OpenListener {
    resource: RefCell<Arc<Listener>>,
    tls: RefCell<Option<Arc<ServerConfigs>>>,
    certificates: Arc<Certificates>,
    gate: Gate,
}

impl OpenListener {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// If it can't be registered with the event loop.
    pub(crate) fn new(
        resource: Arc<Listener>,
        socket: std::net::TcpListener,
        certificates: &Arc<Certificates>,
    ) -> io::Result<(Self, TcpListener)> {
        let socket = TcpListener::from_std(socket)?;
        let open = Self {
            gate: Gate::new(socket.local_addr()?),
            tls: RefCell::new(None),
            resource: RefCell::new(resource.clone()),
            certificates: certificates.clone(),
        };
        open.change(resource);
        Ok((open, socket))
    }

    /// Its name.
    pub(crate) fn name(&self) -> ListenerName {
        self.resource.borrow().name.clone()
    }

    /// Its address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.gate.local
    }

    /// The gate that closes it.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The scheme of requests on this listener.
    pub(crate) fn scheme(&self) -> Scheme {
        self.resource.borrow().scheme
    }

    /// Whether its connections begin with a PROXY header.
    pub(crate) fn accepts_proxy(&self) -> bool {
        self.resource.borrow().accept_proxy
    }

    /// The TLS configuration, if the listener uses TLS.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfigs>> {
        self.tls.borrow().clone()
    }

    /// Calls `look` with the resource, without counting a reference.
    pub(crate) fn with_resource<T>(&self, look: impl FnOnce(&Listener) -> T) -> T {
        look(&self.resource.borrow())
    }

    /// Replaces the resource: all connections, open ones included, use the new one from their next request on.
    pub(crate) fn change(&self, resource: Arc<Listener>) {
        let tls = (resource.scheme == Scheme::Https).then(|| self.certificates.server_configs(&resource.table));
        *self.tls.borrow_mut() = tls;
        *self.resource.borrow_mut() = resource;
    }
}

/// Pauses after a failed accept. A connection that ended before it was accepted needs no pause; a shortage of descriptors or
/// memory takes time to pass, and retrying at once would only burn CPU.
pub(crate) async fn pause_after(error: &io::Error, gate: &Gate, timers: &Rc<Timers>) {
    if !is_of_one(error) {
        gate.warn(error);
        timers.sleep(ACCEPT_PAUSE).await;
    }
}

/// Whether the error concerns only the connection being accepted.
pub(crate) fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Whether another warning is due; if so, records its time.
pub(crate) fn is_due(warned: &Cell<Option<Instant>>, now: Instant) -> bool {
    let due = warned.get().is_none_or(|last| now.duration_since(last) >= ACCEPT_WARNING_INTERVAL);
    if due {
        warned.set(Some(now));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_shortage_is_logged_once_a_minute() {
        let (warned, start) = (Cell::new(None), Instant::now());
        let told = (0..1200).filter(|&at| is_due(&warned, start + at * ACCEPT_PAUSE)).count();
        assert_eq!(told, 2, "in two minutes");
    }
}
