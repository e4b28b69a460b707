//! The datagrams of a UDP service.
//!
//! A session is a client's address and port. It has one endpoint and a socket of its own, so that the endpoint tells clients apart
//! and its answers find the way back; they leave from the address that the client asked. A session ends when nothing came for too
//! long, when the endpoint has sent as many datagrams as were asked for, or when others need its place. What can't be sent at once
//! is dropped, as networks do.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;

use super::session::Client;
use super::{OpenStream, StreamSession};
use crate::connection::within;
use crate::listener::pause_after;
use crate::timer::{Deadline, Millis, NEVER};
use crate::worker::Worker;

/// The largest datagram there is.
const LARGEST: usize = 64 << 10;

/// So many datagrams are taken before others of the worker get their turn.
const BATCH: usize = 32;

/// The socket of a UDP service, in one worker.
#[derive(Debug)]
pub(super) struct Port {
    socket: UdpSocket,
    local: SocketAddr,
    /// Memory for one datagram, either way.
    scratch: RefCell<Vec<u8>>,
}

/// Where a datagram came from and went to.
#[derive(Clone, Copy, Debug)]
struct Received {
    len: usize,
    client: SocketAddr,
    /// The address of ours, where the socket has all.
    local: Option<IpAddr>,
}

impl Port {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// If the event loop does not take it, or the kernel does not tell destinations.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        match local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            IpAddr::V6(ip) if ip.is_unspecified() => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        Ok(Self { socket: UdpSocket::from_std(socket)?, local, scratch: RefCell::new(vec![0; LARGEST]) })
    }

    /// Receives a datagram that is there.
    fn receive(&self, room: &mut [u8]) -> io::Result<Received> {
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
            Ok(Received { len: message.bytes, client, local })
        })
    }

    /// Sends a datagram to a client, from the address that it asked.
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
                // The client's scope, which the kernel gave us, says which link a link-local address is of.
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

/// Takes datagrams until the port is closed. A worker that drains begins no session, and goes on with those that it has.
pub(super) async fn serve(worker: Rc<Worker>, open: Rc<OpenStream>, port: Port) {
    let number = worker.next_number();
    let port = Rc::new(port);
    loop {
        let readable = tokio::select! {
            biased;
            () = open.gate().closed() => break,
            readable = port.socket.readable() => readable,
        };
        match readable.and_then(|()| take(&worker, &open, &port, number)) {
            Ok(More::Perhaps) => tokio::task::yield_now().await,
            Ok(More::No) => {}
            Err(error) => pause_after(&error, open.gate()).await,
        }
    }
    worker.sessions.borrow_mut().close(number);
    worker.session_ended();
}

/// Whether there may be another datagram.
enum More {
    Perhaps,
    No,
}

/// Takes what is there.
fn take(worker: &Rc<Worker>, open: &Rc<OpenStream>, port: &Rc<Port>, number: u64) -> io::Result<More> {
    let mut scratch = port.scratch.borrow_mut();
    for _ in 0..BATCH {
        let received = match port.receive(&mut scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(More::No),
            received => received?,
        };
        let own = SocketAddr::new(received.local.unwrap_or(port.local.ip()), port.local.port());
        if received.client == own {
            // A forged sender: the answer would be the next question, for ever.
            continue;
        }
        let client = Client { port: number, address: received.client, local: received.local };
        let known = worker.sessions.borrow_mut().touch(&client);
        let Some(session) = known.or_else(|| begin(worker, open, port, client)) else { continue };
        session.forward(&scratch[..received.len]);
        if session.is_answered() {
            worker.sessions.borrow_mut().end(&client);
            worker.session_ended();
        }
    }
    Ok(More::Perhaps)
}

/// A session with its endpoint.
#[derive(Debug)]
pub(super) struct UdpSession {
    socket: UdpSocket,
    idle: Duration,
    /// Datagrams that answer one of the client's.
    responses: u32,
    asked: Cell<u64>,
    answered: Cell<u64>,
    /// When anything came.
    used: Cell<Millis>,
    session: RefCell<StreamSession>,
}

/// Begins a session; `None` if it can't be, which is counted and logged.
fn begin(worker: &Rc<Worker>, open: &Rc<OpenStream>, port: &Rc<Port>, client: Client) -> Option<Rc<UdpSession>> {
    if worker.is_draining() {
        return None;
    }
    let resource = open.resource();
    let settings = worker.running().snapshot.settings().streams.clone();
    let local = SocketAddr::new(client.local.unwrap_or(port.local.ip()), port.local.port());
    let mut session = StreamSession::begin(worker, open, client.address, local);
    let socket = loop {
        let (service, pick) = session.choose(&resource, settings.retry.as_ref())?;
        let since = Instant::now();
        match connect(pick.endpoint) {
            Ok(socket) => {
                session.reached(&service, &pick, since);
                break socket;
            }
            Err(error) => {
                session.failed(&service, &pick);
                // Perhaps there are no more descriptors: the oldest session has one.
                open.gate().warn(&error);
                worker.sessions.borrow_mut().evict();
            }
        }
    };
    let session = Rc::new(UdpSession {
        socket,
        idle: settings.idle,
        responses: settings.responses,
        asked: Cell::new(0),
        answered: Cell::new(0),
        used: Cell::new(worker.timers.now()),
        session: RefCell::new(session),
    });
    let task = tokio::task::spawn_local(answer(worker.clone(), session.clone(), port.clone(), client));
    let most = worker.common.connections;
    worker.sessions.borrow_mut().insert(client, session.clone(), task.abort_handle(), most);
    Some(session)
}

/// A socket that speaks with this endpoint only.
fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(endpoint), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.connect(&endpoint.into())?;
    UdpSocket::from_std(socket.into())
}

/// Passes the answers of the endpoint on until the session ends.
async fn answer(worker: Rc<Worker>, session: Rc<UdpSession>, port: Rc<Port>, client: Client) {
    let deadline = Deadline::of_task(worker.timers.clone()).await;
    deadline.set_after(session.idle);
    session.used.set(worker.timers.now());
    loop {
        // The kernel tells an error (nobody is there) apart from data.
        let ready = session.socket.ready(Interest::READABLE | Interest::ERROR);
        let ended = match within(&deadline, ready).await {
            Some(ready) => session.receive(ready, &worker, &port, &client),
            None => session.is_over(&worker, &deadline),
        };
        if ended {
            break;
        }
    }
    worker.sessions.borrow_mut().remove(&client, &session);
    worker.session_ended();
}

impl UdpSession {
    /// Sends a datagram of the client. Not by way of the event loop, which does not know a new socket as writable yet.
    fn forward(&self, datagram: &[u8]) {
        let socket = SockRef::from(&self.socket);
        // An error of an earlier datagram comes first, and is none of this one.
        let sent = socket.send(datagram).or_else(|_| socket.send(datagram));
        let mut session = self.session.borrow_mut();
        self.asked.set(self.asked.get() + 1);
        self.used.set(session.worker.timers.now());
        let len = datagram.len() as u64;
        session.record.received += len;
        session.open.count(|counts| counts.received += len);
        if sent.is_ok() {
            session.record.upstream_sent += len;
        }
    }

    /// Whether the endpoint has sent all that was asked for.
    fn is_answered(&self) -> bool {
        self.answered.get() >= self.asked.get().saturating_mul(self.responses.into())
    }

    /// Passes on what the endpoint has sent; `true` when that ends the session.
    fn receive(&self, ready: io::Result<Ready>, worker: &Worker, port: &Port, client: &Client) -> bool {
        let Ok(ready) = ready else { return true };
        if ready.is_error() {
            if !matches!(SockRef::from(&self.socket).take_error(), Ok(None)) {
                // The endpoint's machine says that nobody is there: the next datagram may find another one.
                if self.answered.get() == 0 {
                    self.session.borrow_mut().record.status = 502;
                }
                return true;
            }
            // It was taken by a send already. To say that it would block forgets it.
            let _ = self.socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        let mut scratch = port.scratch.borrow_mut();
        for _ in 0..BATCH {
            match self.socket.try_recv(&mut scratch) {
                Ok(len) => {
                    let sent = port.send(&scratch[..len], client);
                    self.note_answer(worker, len as u64, sent.is_ok());
                    if self.is_answered() {
                        return true;
                    }
                }
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// Whether nothing came for too long; else the deadline is moved to when that would be so.
    fn is_over(&self, worker: &Worker, deadline: &Deadline) -> bool {
        let end = self.used.get().saturating_add(Millis::try_from(self.idle.as_millis()).unwrap_or(NEVER));
        if end > worker.timers.now() {
            deadline.set(end);
            return false;
        }
        true
    }

    fn note_answer(&self, worker: &Worker, len: u64, sent: bool) {
        self.answered.set(self.answered.get() + 1);
        self.used.set(worker.timers.now());
        let mut session = self.session.borrow_mut();
        session.record.upstream_received += len;
        if sent {
            session.record.sent += len;
            session.open.count(|counts| counts.sent += len);
        }
    }
}
