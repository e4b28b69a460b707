//! Hands the listening sockets to the next process, over a Unix socket, while this one still serves.
//!
//! | sender | message | meaning |
//! | --- | --- | --- |
//! | both | `H` version | greeting, before anything else |
//! | the next process | `T` | give me your sockets as they are now |
//! | this process | `S` number, with descriptors | some of them; the number 0 means that there are no more |
//! | the next process | `R` | I serve |
//! | this process | `D` | I accept nothing more |
//!
//! Both processes accept from the same queues until `D`. The connection stays open after it: if the next process ends before this one is
//! asked to, this one listens again. The kernel says what each socket is, so two versions need to agree on nothing else.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net as std_net;
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::{Publisher, Relisten};
use crate::admin::{Lifecycle, Stage};
use crate::limit::{ACCEPT_PAUSE, HANDOVER_PATIENCE, HANDOVER_SOCKETS};
use crate::net::inherited::Inherited;
use crate::worker::Order;

/// Version of the messages.
// No limit: the number of a format.
const VERSION: u32 = 1;

/// Descriptors in one message; the kernel allows 253.
// No limit: a batch.
const AT_ONCE: usize = 64;

/// Where a process meets its successor: a path, or `@` and a name in the network namespace, which needs no folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HandoverPlace(PathBuf);

/// A running process whose sockets this one may take.
#[derive(Debug)]
pub struct Predecessor(std_net::UnixStream);

/// A [`Predecessor`] within an event loop.
#[derive(Debug)]
pub struct Taking(UnixStream);

/// Why sockets can't be handed over.
#[derive(Debug, thiserror::Error)]
#[error("the handover socket {}", .place.display())]
pub struct HandoverError {
    place: PathBuf,
    source: io::Error,
}

impl HandoverPlace {
    /// The place with this name.
    pub fn new(place: PathBuf) -> Self {
        Self(place)
    }

    /// The folder in which the socket is made, if it has one.
    pub fn folder(&self) -> Option<&Path> {
        if self.is_abstract() { None } else { self.0.parent() }
    }

    fn is_abstract(&self) -> bool {
        self.0.as_os_str().as_bytes().starts_with(b"@")
    }

    fn address(&self) -> io::Result<std_net::SocketAddr> {
        match self.0.as_os_str().as_bytes().split_first() {
            Some((b'@', name)) => std_net::SocketAddr::from_abstract_name(name),
            _ => std_net::SocketAddr::from_pathname(&self.0),
        }
    }

    /// The process that serves now; `None` if there is none.
    ///
    /// # Errors
    /// If it can't be asked, or belongs to another user.
    pub fn predecessor(&self) -> Result<Option<Predecessor>, HandoverError> {
        let connect = || {
            let stream = match std_net::UnixStream::connect_addr(&self.address()?) {
                Ok(stream) => stream,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            checked(&stream)?;
            stream.set_nonblocking(true)?;
            Ok(Some(Predecessor(stream)))
        };
        connect().map_err(|source| HandoverError { place: self.0.clone(), source })
    }

    /// Creates the socket in the context of an event loop, replacing one that an earlier process left behind.
    fn bind(&self) -> io::Result<UnixListener> {
        let address = self.address()?;
        let is_socket = || std::fs::symlink_metadata(&self.0).is_ok_and(|metadata| metadata.file_type().is_socket());
        if !self.is_abstract() && is_socket() {
            if std_net::UnixStream::connect_addr(&address).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::fs::remove_file(&self.0)?;
        }
        let listener = std_net::UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }
}

impl Predecessor {
    /// Begins to take its sockets, in the context of an event loop.
    ///
    /// # Errors
    /// If it does not answer, or speaks another version.
    pub async fn greet(self) -> io::Result<Taking> {
        let mut stream = UnixStream::from_std(self.0)?;
        patiently(async {
            say(&mut stream, b'H', VERSION).await?;
            match hear(&mut stream).await? {
                (b'H', VERSION) => Ok(()),
                (tag, version) => Err(unexpected(tag, version)),
            }
        })
        .await?;
        Ok(Taking(stream))
    }
}

impl Taking {
    /// Takes its sockets as they are now: listeners that open from now on use them, and lose nothing that waits there.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn take(&mut self, publisher: &Publisher) -> io::Result<usize> {
        let inherited = patiently(self.receive()).await?;
        let count = inherited.len();
        publisher.0.change.lock().await.inherited = inherited;
        Ok(count)
    }

    async fn receive(&mut self) -> io::Result<Inherited> {
        say(&mut self.0, b'T', 0).await?;
        let (mut inherited, mut received) = (Inherited::default(), 0);
        loop {
            let (count, sockets) = sockets(&self.0).await?;
            if count == 0 {
                return Ok(inherited);
            }
            received += sockets.len();
            if received > HANDOVER_SOCKETS || sockets.len() != count as usize {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not as many sockets as announced"));
            }
            for socket in sockets {
                if let Err(error) = inherited.add(socket) {
                    tracing::warn!(%error, "a socket of the process before can't be used");
                }
            }
        }
    }

    /// Tells it that this process serves, and waits until it accepts nothing more. Unused sockets are closed first, so that the other
    /// process closes them last and accepts what waits there. Hold the result for as long as this process serves.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn finish(mut self, publisher: &Publisher) -> io::Result<Self> {
        publisher.0.change.lock().await.inherited = Inherited::default();
        patiently(async {
            say(&mut self.0, b'R', 0).await?;
            match hear(&mut self.0).await? {
                (b'D', _) => Ok(()),
                (tag, number) => Err(unexpected(tag, number)),
            }
        })
        .await?;
        Ok(self)
    }
}

impl Publisher {
    /// Offers the listening sockets to the next process, if the proxy was started with [`ProxyConfig::handover`](crate::ProxyConfig). Ends
    /// with this process.
    ///
    /// The two share the port for health and metrics, which the next process gets in the end. Until it serves, a readiness probe meant for
    /// it must not get the answer of this one.
    pub async fn offer(self, place: HandoverPlace, lifecycle: Lifecycle) {
        let (mut complained, mut away) = (false, false);
        // Once asked to end, a process that has handed over has nothing to offer, and takes nothing back.
        while !away || lifecycle.stage() <= Stage::Serving {
            let listener = match place.bind() {
                Ok(listener) => listener,
                Err(error) => {
                    // While another process serves, the place belongs to it.
                    if !away && !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, place = %place.0.display(), "no other process can take the sockets over");
                    }
                    sleep(HANDOVER_PATIENCE).await;
                    continue;
                }
            };
            complained = false;
            if std::mem::take(&mut away) {
                tracing::warn!("the process that took the sockets over is gone: listening again");
                self.take_back().await;
                lifecycle.succeeded(false);
            }
            let mut stream = self.give(&listener, &lifecycle).await;
            // The next process makes a socket of its own there.
            drop(listener);
            self.hand_over().await;
            tracing::info!(
                "another process serves in place of this one, which goes on with its connections until it is told to end"
            );
            away = true;
            if say(&mut stream, b'D', 0).await.is_ok() {
                // It sends nothing more. When it ends, a third process may already serve.
                let _ = hear(&mut stream).await;
            }
        }
    }

    /// Gives the sockets away, to one process at a time, until one that has them serves.
    async fn give(&self, listener: &UnixListener, lifecycle: &Lifecycle) -> UnixStream {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "can't accept the process that comes next");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match checked(&stream) {
                Ok(()) => {
                    lifecycle.succeeded(true);
                    match self.answer(stream).await {
                        Ok(stream) => return stream,
                        Err(error) => tracing::warn!(%error, "another process gave up taking the sockets over"),
                    }
                    lifecycle.succeeded(false);
                }
                Err(error) => tracing::warn!(%error, "a process is not given the sockets"),
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> io::Result<UnixStream> {
        let version = match patiently(hear(&mut stream)).await? {
            (b'H', version) => version,
            (tag, number) => return Err(unexpected(tag, number)),
        };
        say(&mut stream, b'H', VERSION).await?;
        if version != VERSION {
            return Err(unexpected(b'H', version));
        }
        loop {
            // The next process may take long: it has to get its configuration first.
            match hear(&mut stream).await? {
                (b'T', _) => {
                    let spare = self.0.change.lock().await.spare.copies()?;
                    for some in spare.chunks(AT_ONCE) {
                        give_some(&stream, some).await?;
                    }
                    say(&mut stream, b'S', 0).await?;
                }
                (b'R', _) => return Ok(stream),
                (tag, number) => return Err(unexpected(tag, number)),
            }
        }
    }

    /// Accepts the connections that wait, and nothing more.
    async fn hand_over(&self) {
        let shared = &*self.0;
        let mut listening = shared.change.lock().await;
        listening.hand_over(&mut super::locked(&shared.local));
        let (done, mut all_done) = tokio::sync::mpsc::channel(1);
        shared.tell(|| Order::HandOver { done: done.clone() });
        drop(done);
        while all_done.recv().await.is_some() {}
        shared.away.send_replace(true);
    }

    /// Listens again.
    async fn take_back(&self) {
        let shared = &*self.0;
        let mut listening = shared.change.lock().await;
        listening.handed_over = false;
        let live = shared.live();
        let mut listeners: Relisten = shared.relisten(&mut listening, &live.snapshot);
        let refused = std::mem::take(&mut listeners.refused);
        shared.distribute(&live, listeners).await;
        shared.note_attempt(&refused);
        shared.tell(|| Order::TakeBack);
        shared.away.send_replace(false);
        drop(listening);
        // Ports may be free only a moment later.
        while self.listen_again().await.is_some_and(|published| !published.refused.is_empty()) {
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Whether the process at the other end belongs to our user or to root. A process able to impersonate that user could listen beside this
/// one anyway.
fn checked(stream: &impl AsFd) -> io::Result<()> {
    let (peer, own) = (getsockopt(&stream.as_fd(), sockopt::PeerCredentials)?.uid(), nix::unistd::geteuid().as_raw());
    if peer == own || peer == 0 {
        return Ok(());
    }
    let text = format!("the other process belongs to user {peer}, this one to user {own}");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

async fn patiently<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(HANDOVER_PATIENCE, future).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn unexpected(tag: u8, number: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected message {:?} {number}", char::from(tag)))
}

fn message(tag: u8, number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [tag, a, b, c, d]
}

fn parts([tag, number @ ..]: [u8; 5]) -> (u8, u32) {
    (tag, u32::from_be_bytes(number))
}

async fn say(stream: &mut UnixStream, tag: u8, number: u32) -> io::Result<()> {
    patiently(stream.write_all(&message(tag, number))).await
}

async fn hear(stream: &mut UnixStream) -> io::Result<(u8, u32)> {
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await?;
    Ok(parts(bytes))
}

/// Sends some sockets. Descriptors travel with the first byte of their message.
async fn give_some(stream: &UnixStream, sockets: &[impl AsFd]) -> io::Result<()> {
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let bytes = message(b'S', u32::try_from(descriptors.len()).unwrap_or(u32::MAX));
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?)
    };
    match patiently(stream.async_io(Interest::WRITABLE, send)).await? {
        5 => Ok(()),
        // The kernel takes so short a message whole or not at all.
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Receives one message with sockets.
async fn sockets(stream: &UnixStream) -> io::Result<(u32, Vec<OwnedFd>)> {
    let (mut bytes, mut at, mut found) = ([0; 5], 0, Vec::new());
    while at < bytes.len() {
        let room = &mut bytes[at..];
        let receive = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut room = [IoSliceMut::new(room)];
            let received = recvmsg(stream, &mut room, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    found.extend(descriptors);
                }
            }
            Ok(received.bytes)
        };
        match stream.async_io(Interest::READABLE, receive).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => at += received,
        }
    }
    match parts(bytes) {
        (b'S', count) => Ok((count, found)),
        (tag, number) => Err(unexpected(tag, number)),
    }
}
