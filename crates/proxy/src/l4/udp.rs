//! The datagrams of a UDP service.
//!
//! A session is identified by the client's address and port. It has one endpoint and its own socket, so that the endpoint can
//! distinguish clients and its responses find their way back; they are sent from the address that the client used. A session ends
//! when it has been silent too long, when the endpoint has sent the configured number of responses, when another session needs its place,
//! or when its port closes. While the worker drains, datagrams from clients are forwarded but don't prolong it: only the silence of the
//! endpoint counts. When the port no longer leads to the endpoint, the next datagram begins another session: otherwise a client that keeps
//! its port would stay with a pod that is gone. Datagrams that can't be sent at once are dropped, as networks do.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;

use super::port::{OpenStream, StreamSession};
use super::session::{Client, DatagramSessions};
use crate::limit::SILENCE_WHILE_DRAINING;
use crate::net::descriptors;
use crate::net::listener::pause_after;
use crate::shard::Shard;
use crate::timer::{Deadline, Millis, NEVER, within};

/// The largest possible datagram.
// No limit: set by the protocol.
const LARGEST: usize = 64 << 10;

/// Datagrams received before other tasks of the worker get their turn.
// No limit: a batch.
const BATCH: usize = 32;

/// One worker's datagrams.
#[derive(Debug)]
pub(crate) struct Datagrams {
    shard: Rc<Shard>,
    sessions: RefCell<DatagramSessions<UdpSession>>,
}

impl Datagrams {
    /// Creates the value without ports.
    pub(crate) fn new(shard: Rc<Shard>) -> Rc<Self> {
        Rc::new(Self { shard, sessions: RefCell::default() })
    }

    /// Number of sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Ends all sessions; each is logged.
    pub(crate) fn clear(&self) {
        drop(self.sessions.take());
    }
}

/// The socket of a UDP service, in one worker.
#[derive(Debug)]
pub(crate) struct Port {
    socket: UdpSocket,
    local: SocketAddr,
    /// Memory for one datagram, in either direction.
    scratch: RefCell<Vec<u8>>,
}

/// The addresses of a received datagram.
#[derive(Clone, Copy, Debug)]
struct Datagram {
    len: usize,
    client: SocketAddr,
    /// The proxy's address that it was sent to, if the socket is bound to all.
    local: Option<IpAddr>,
}

impl Port {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// If it can't be registered with the event loop, or the kernel can't report destinations.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        match local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            IpAddr::V6(ip) if ip.is_unspecified() => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        Ok(Self { socket: UdpSocket::from_std(socket)?, local, scratch: RefCell::new(vec![0; LARGEST]) })
    }

    /// Receives a datagram that has already arrived.
    fn receive(&self, room: &mut [u8]) -> io::Result<Datagram> {
        self.socket.try_io(Interest::READABLE, || {
            let mut control = [0; 64];
            let mut room = [IoSliceMut::new(room)];
            let fd = self.socket.as_raw_fd();
            let message = recvmsg::<SockaddrStorage>(fd, &mut room, Some(&mut control), MsgFlags::empty())?;
            let client = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
            let local = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(IpAddr::from(u32::from_be(info.ipi_spec_dst.s_addr).to_be_bytes()))
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
                _ => None,
            });
            Ok(Datagram { len: message.bytes, client, local })
        })
    }

    /// Sends a datagram to a client, from the address that the client sent to.
    fn send(&self, datagram: &[u8], client: &Client) -> io::Result<usize> {
        let pieces = [IoSlice::new(datagram)];
        let to = SockaddrStorage::from(client.address);
        let send = |control: &[ControlMessage<'_>]| {
            let fd = self.socket.as_raw_fd();
            Ok(sendmsg(fd, &pieces, control, MsgFlags::MSG_DONTWAIT, Some(&to))?)
        };
        match client.local {
            Some(IpAddr::V4(ip)) => {
                let own = in_addr { s_addr: u32::from_be_bytes(ip.octets()).to_be() };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: own, ipi_addr: in_addr { s_addr: 0 } };
                send(&[ControlMessage::Ipv4PacketInfo(&info)])
            }
            Some(IpAddr::V6(ip)) => {
                // The client's scope, as reported by the kernel, identifies the link of a link-local address.
                let info = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
                send(&[ControlMessage::Ipv6PacketInfo(&info)])
            }
            None => send(&[]),
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || storage.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    let v6 = || storage.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)));
    v4().or_else(v6)
}

/// Receives datagrams until the port is closed. A draining worker begins no sessions but continues those that it has.
pub(crate) async fn serve(datagrams: Rc<Datagrams>, open: Rc<OpenStream>, port: Port) {
    let number = datagrams.shard.next_number();
    datagrams.sessions.borrow_mut().open(number, port.local);
    let port = Rc::new(port);
    let mut quiet = open.gate().quiet();
    loop {
        let is_quiet = *quiet.borrow_and_update();
        let readable = tokio::select! {
            biased;
            () = open.gate().closed() => break,
            _ = quiet.changed() => continue,
            readable = port.socket.readable(), if !is_quiet => readable,
        };
        match readable.and_then(|()| take(&datagrams, &open, &port, number)) {
            Ok(More::Perhaps) => tokio::task::yield_now().await,
            Ok(More::No) => {}
            Err(error) => pause_after(&error, open.gate(), &datagrams.shard.timers).await,
        }
    }
    datagrams.sessions.borrow_mut().close(number);
    datagrams.shard.has_ended();
}

/// Whether there may be another datagram.
enum More {
    Perhaps,
    No,
}

/// Receives the available datagrams.
fn take(datagrams: &Rc<Datagrams>, open: &Rc<OpenStream>, port: &Rc<Port>, number: u64) -> io::Result<More> {
    let mut scratch = port.scratch.borrow_mut();
    for _ in 0..BATCH {
        let received = match port.receive(&mut scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(More::No),
            received => received?,
        };
        let client = Client { port: number, address: received.client, local: received.local };
        let known = datagrams.sessions.borrow_mut().touch(&client);
        let session = match known {
            Some(session) if session.is_served(&datagrams.shard, open) => session,
            known => {
                if known.is_some() {
                    end(datagrams, &client);
                }
                match begin(datagrams, open, port, client) {
                    Ok(Some(session)) => session,
                    Ok(None) => continue,
                    Err(error) => {
                        // The session that has been silent longest holds a descriptor. It is released when its task ends, which happens
                        // once other tasks get their turn.
                        open.gate().warn(&error);
                        datagrams.sessions.borrow_mut().evict();
                        return Ok(More::Perhaps);
                    }
                }
            }
        };
        session.forward(&scratch[..received.len]);
        if session.is_answered() {
            end(datagrams, &client);
        }
    }
    Ok(More::Perhaps)
}

fn end(datagrams: &Datagrams, client: &Client) {
    datagrams.sessions.borrow_mut().end(client);
    datagrams.shard.has_ended();
}

/// A session with its endpoint.
#[derive(Debug)]
pub(super) struct UdpSession {
    socket: UdpSocket,
    endpoint: SocketAddr,
    /// The newest snapshot in which the port leads to the endpoint.
    version: Cell<u64>,
    /// Longest silence.
    idle: Cell<Duration>,
    /// Datagrams expected in response to each one of the client's.
    responses: u32,
    asked: Cell<u64>,
    answered: Cell<u64>,
    /// Time of the last datagram; while the worker drains, of the last one from the endpoint.
    used: Cell<Millis>,
    session: RefCell<StreamSession>,
}

/// Begins a session; `None` if that fails, which is counted and logged.
///
/// # Errors
/// If there is no descriptor for it, which is not the endpoint's fault.
fn begin(
    datagrams: &Rc<Datagrams>,
    open: &Rc<OpenStream>,
    port: &Rc<Port>,
    client: Client,
) -> io::Result<Option<Rc<UdpSession>>> {
    let shard = &datagrams.shard;
    if shard.is_draining() || is_ours(datagrams, client.address) {
        return Ok(None);
    }
    let resource = open.resource();
    let running = shard.running();
    let settings = running.snapshot.settings().streams.clone();
    let local = SocketAddr::new(client.local.unwrap_or(port.local.ip()), port.local.port());
    let mut session = open.begin(shard, client.address, local);
    // Datagrams are never sent in the clear to a backend that demands TLS.
    let backend = session.target(&resource.backend).filter(|target| target.tls.is_none()).map(|target| target.backend);
    let (socket, endpoint) = loop {
        let next = backend.and_then(|backend| session.choose(backend, settings.retry.as_ref()));
        let Some((service, pick)) = next else {
            session.logged = open.logs_drop();
            return Ok(None);
        };
        let since = Instant::now();
        match connect(pick.endpoint).and_then(|socket| UdpSocket::from_std(socket.into())) {
            Ok(socket) => {
                session.reached(&service, &pick, since);
                break (socket, pick.endpoint);
            }
            Err(error) if descriptors::is_lack(&error) => {
                session.logged = open.logs_drop();
                return Err(error);
            }
            Err(error) => {
                tracing::debug!(%error, upstream_addr = %pick.endpoint, "cannot connect to an endpoint");
                session.failed(&service, &pick);
            }
        }
    };
    let session = Rc::new(UdpSession {
        socket,
        endpoint,
        version: Cell::new(running.version),
        idle: Cell::new(settings.idle),
        responses: settings.responses,
        asked: Cell::new(0),
        answered: Cell::new(0),
        used: Cell::new(shard.timers.now()),
        session: RefCell::new(session),
    });
    let task = tokio::task::spawn_local(answer(datagrams.clone(), session.clone(), Rc::downgrade(port), client));
    let most = shard.common.datagram_sessions;
    datagrams.sessions.borrow_mut().insert(client, session.clone(), task.abort_handle(), most);
    Ok(Some(session))
}

/// Creates a socket that exchanges datagrams with this peer only.
fn connect(peer: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.connect(&peer.into())?;
    Ok(socket)
}

/// Whether a sender is one of the proxy's own UDP ports, and so most likely forged: responses would go to that port as requests,
/// and its responses would come back here as requests, forever.
///
/// A sender that reaches one of our ports through an address translated by another machine (a load balancer's, say) looks like
/// any client. The port number alone doesn't identify it either: NTP and DNS servers send queries from the port on which they
/// answer.
fn is_ours(datagrams: &Datagrams, sender: SocketAddr) -> bool {
    datagrams.sessions.borrow().has_port(|own| {
        own.port() == sender.port()
            && own.is_ipv4() == sender.is_ipv4()
            && (own.ip() == sender.ip() || (own.ip().is_unspecified() && is_local(sender)))
    })
}

/// Whether an address belongs to this machine or network namespace: the kernel sends to itself from the destination address. On
/// loopback, where it needn't, all addresses are local.
fn is_local(address: SocketAddr) -> bool {
    let from = || connect(address)?.local_addr();
    address.ip().is_loopback()
        || from().is_ok_and(|from| from.as_socket().is_some_and(|from| from.ip() == address.ip()))
}

/// Forwards the endpoint's responses until the session ends. Sessions don't hold the port's socket, so the port is free as soon
/// as it is closed.
async fn answer(datagrams: Rc<Datagrams>, session: Rc<UdpSession>, port: Weak<Port>, client: Client) {
    let shard = &datagrams.shard;
    let deadline = Deadline::of_task(shard.timers.clone()).await;
    session.wait(shard, &deadline);
    let mut draining = false;
    loop {
        // The kernel reports errors (port unreachable) separately from data.
        let ready = session.socket.ready(Interest::READABLE | Interest::ERROR);
        let ready = tokio::select! {
            biased;
            () = drains(shard), if !draining => {
                draining = true;
                session.idle.set(session.idle.get().min(SILENCE_WHILE_DRAINING));
                session.wait(shard, &deadline);
                continue;
            }
            ready = within(&deadline, ready) => ready,
        };
        let next = match (ready, port.upgrade()) {
            (Some(ready), Some(port)) => session.receive(ready, shard, &port, &client),
            (None, Some(_)) if !session.is_over(shard, &deadline) => ControlFlow::Continue(More::No),
            _ => ControlFlow::Break(()),
        };
        match next {
            ControlFlow::Continue(More::Perhaps) => tokio::task::yield_now().await,
            ControlFlow::Continue(More::No) => {}
            ControlFlow::Break(()) => break,
        }
    }
    datagrams.sessions.borrow_mut().remove(&client, &session);
    shard.has_ended();
}

/// Resolves when the worker drains, which wakes every task with a deadline.
async fn drains(shard: &Shard) {
    poll_fn(|_| if shard.is_draining() { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl UdpSession {
    /// Whether the port still leads to the endpoint, even one that accepts nothing new. This is looked up once after each change;
    /// otherwise only two numbers are compared.
    fn is_served(&self, shard: &Shard, open: &OpenStream) -> bool {
        let running = shard.running();
        if self.version.replace(running.version) == running.version {
            return true;
        }
        let knows = |backend| {
            let service = shard.upstreams.service(&running, backend, &shard.rng);
            service.is_some_and(|service| service.knows(&running, self.endpoint))
        };
        open.resource().backend.names().any(knows)
    }

    /// Sends a datagram of the client, bypassing the event loop, which does not know yet that a new socket is writable.
    fn forward(&self, datagram: &[u8]) {
        let socket = SockRef::from(&self.socket);
        // The first send may report the error of an earlier datagram.
        let sent = socket.send(datagram).or_else(|_| socket.send(datagram));
        let mut session = self.session.borrow_mut();
        self.asked.set(self.asked.get() + 1);
        if !session.shard.is_draining() {
            self.used.set(session.shard.timers.now());
        }
        let len = datagram.len() as u64;
        session.record.received += len;
        session.tally.count(|counts| counts.received += len);
        if sent.is_ok() {
            session.record.upstream_sent += len;
        }
    }

    /// Whether the endpoint has sent all expected responses.
    fn is_answered(&self) -> bool {
        self.answered.get() >= self.asked.get().saturating_mul(self.responses.into())
    }

    /// Forwards datagrams from the endpoint, unless they end the session.
    fn receive(&self, ready: io::Result<Ready>, shard: &Shard, port: &Port, client: &Client) -> ControlFlow<(), More> {
        let Ok(ready) = ready else { return ControlFlow::Break(()) };
        if ready.is_error() {
            if !matches!(SockRef::from(&self.socket).take_error(), Ok(None)) {
                // The endpoint's machine reports that the port is unreachable: the next datagram may find another endpoint.
                if self.answered.get() == 0 {
                    self.session.borrow_mut().record.status = 502;
                }
                return ControlFlow::Break(());
            }
            // A send already consumed the error. Returning `WouldBlock` clears the readiness.
            let _ = self.socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        let mut scratch = port.scratch.borrow_mut();
        for _ in 0..BATCH {
            match self.socket.try_recv(&mut scratch) {
                Ok(len) => {
                    let sent = port.send(&scratch[..len], client);
                    self.note_answer(shard, len as u64, sent.is_ok());
                    if self.is_answered() {
                        return ControlFlow::Break(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ControlFlow::Continue(More::No),
                Err(_) => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(More::Perhaps)
    }

    /// Restarts the silence timer.
    fn wait(&self, shard: &Shard, deadline: &Deadline) {
        self.used.set(shard.timers.now());
        deadline.set_after(self.idle.get());
    }

    /// Whether the silence has lasted too long; if not, moves the deadline to when it will have.
    fn is_over(&self, shard: &Shard, deadline: &Deadline) -> bool {
        let end = self.used.get().saturating_add(Millis::try_from(self.idle.get().as_millis()).unwrap_or(NEVER));
        if end > shard.timers.now() {
            deadline.set(end);
            return false;
        }
        true
    }

    fn note_answer(&self, shard: &Shard, len: u64, sent: bool) {
        self.answered.set(self.answered.get() + 1);
        self.used.set(shard.timers.now());
        let mut session = self.session.borrow_mut();
        session.record.upstream_received += len;
        if sent {
            session.record.sent += len;
            session.tally.count(|counts| counts.sent += len);
        }
    }
}
