//! TLS on a client's connection, over rustls's API without buffers of its own: with those, each connection would hold 4 KiB for its next
//! record even while idle. Records are received into and sent from memory that the thread lends, and an idle connection holds none.
//!
//! Encrypted data is sent in order and exactly once, whatever else fails: it counts as written as soon as it is encrypted.

mod queue;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{Error, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::queue::{RecordQueue, give_back, lend};
use crate::limit::{TLS_LARGE_RECORDS, TLS_RECORDS};

/// Most bytes in a record (RFC 8446 5.1).
// No limit: fixed by the protocol.
const RECORD: usize = 16 << 10;

/// Most records that are encrypted before the first of them is sent.
// No limit: a batch.
const BATCH: usize = 4;

/// A client's connection over TLS, after the handshake.
pub(crate) struct ServerTls {
    tcp: TcpStream,
    session: UnbufferedServerConnection,
    server_name: Option<Box<str>>,
    /// Records, or the beginning of one, that rustls has not finished with.
    incoming: RecordQueue,
    /// Decrypted data that has not been read.
    decrypted: RecordQueue,
    /// Records that the kernel has not taken yet.
    outgoing: RecordQueue,
    /// Whether the client has sent `close_notify`.
    ended: bool,
    /// Whether the proxy has.
    finished: bool,
    /// The client's fault; nothing after it is read.
    failure: Option<Box<Error>>,
}

/// What the session could do with its present input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SessionProgress {
    /// It needs more from the client or from the proxy.
    Waits,
    /// It did what was asked for.
    Done,
    /// Both sides have ended.
    Over,
}

/// The result of handling a state of the session.
enum SessionStep {
    /// There may be more to do.
    Again,
    /// The client has ended its side.
    Ended,
    /// There is nothing more to do.
    Reached(SessionProgress),
}

/// What to do once the session can send.
#[derive(Clone, Copy, Debug)]
enum SessionOutput<'a> {
    Nothing,
    Data(&'a [u8]),
    CloseNotify,
}

impl ServerTls {
    /// Completes the handshake. `received` holds at least the whole ClientHello, which asks for `server_name`.
    ///
    /// # Errors
    /// The connection or the handshake failed; the client has received the alert.
    pub(crate) async fn accept(
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        server_name: Option<&str>,
        received: Vec<u8>,
    ) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let mut tls = Self {
            tcp,
            session,
            server_name: server_name.map(Into::into),
            incoming: RecordQueue::with_bytes(received),
            decrypted: RecordQueue::default(),
            outgoing: RecordQueue::default(),
            ended: false,
            finished: false,
            failure: None,
        };
        loop {
            let processed = tls.process(&mut ReadBuf::new(&mut []), SessionOutput::Nothing);
            let handshaking = tls.session.is_handshaking();
            if processed.is_err() || !handshaking {
                let sent = poll_fn(|cx| tls.poll_send(cx)).await;
                processed?;
                sent?;
                tls.incoming.settle();
                return Ok(tls);
            }
            poll_fn(|cx| tls.poll_send(cx)).await?;
            if poll_fn(|cx| tls.poll_receive(cx)).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client left during the handshake"));
            }
        }
    }

    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// The TLS session.
    pub(crate) fn session(&self) -> &UnbufferedServerConnection {
        &self.session
    }

    /// The name that the client asked for.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Frees the memory that pending output does not need.
    pub(crate) fn trim(&mut self) {
        self.outgoing.trim();
    }

    /// Lets rustls process what was received. Decrypted data goes to `room`; the rest is kept.
    fn process(&mut self, room: &mut ReadBuf<'_>, send: SessionOutput<'_>) -> io::Result<SessionProgress> {
        loop {
            let UnbufferedStatus { discard, state } = self.session.process_tls_records(self.incoming.filled_mut());
            let (step, also) = match state {
                Ok(state) => advance(state, room, &mut self.decrypted, &mut self.outgoing, send)?,
                Err(error) => {
                    self.incoming.consume(discard);
                    self.failure = Some(Box::new(error.clone()));
                    self.take_alert();
                    return Err(invalid(error));
                }
            };
            self.incoming.consume(discard + also);
            match step {
                SessionStep::Again => {}
                SessionStep::Ended => self.ended = true,
                SessionStep::Reached(progress) => return Ok(progress),
            }
        }
    }

    /// Takes rustls's alert about a failure.
    fn take_alert(&mut self) {
        while let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } =
            self.session.process_tls_records(self.incoming.filled_mut())
        {
            if encode(&mut data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }

    /// Receives once; 0 at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.incoming.make_room()?;
        let mut room = ReadBuf::new(self.incoming.room_mut());
        let read = Pin::new(&mut self.tcp).poll_read(cx, &mut room);
        let count = room.filled().len();
        self.incoming.end += count;
        read.map_ok(|()| count)
    }

    /// Sends encrypted records.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, self.outgoing.filled()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outgoing.consume(count),
            }
        }
        self.outgoing.settle();
        Poll::Ready(Ok(()))
    }

    fn poll_read_some(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        loop {
            self.decrypted.move_to(room);
            let has_some = room.filled().len() > before;
            if self.ended || room.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if let Some(failure) = &self.failure {
                return Poll::Ready(if has_some { Ok(()) } else { Err(invalid((**failure).clone())) });
            }
            let brimful = match self.poll_receive(cx) {
                // The next read will meet the same error.
                Poll::Pending | Poll::Ready(Err(_) | Ok(0)) if has_some => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => {
                    let cut = "the client left without close_notify";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut)));
                }
                Poll::Ready(Ok(_)) => self.incoming.room_mut().is_empty(),
            };
            let processed = self.process(room, SessionOutput::Nothing);
            let has_some = room.filled().len() > before;
            if processed.is_err() {
                // A last attempt to send the alert.
                let _ = self.poll_send(cx);
            } else if !brimful && has_some {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Encrypts the beginning of these pieces in as few records as possible. Returns how many bytes.
    fn encrypt(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        if total == 0 {
            return Ok(0);
        }
        self.outgoing.supply(if total <= RECORD { TLS_RECORDS } else { TLS_LARGE_RECORDS });
        let mut count = 0;
        let mut gathered = Vec::new();
        let (mut at, mut skipped) = (0, 0);
        while count < total.min(BATCH * RECORD) {
            let rest = &pieces[at][skipped..];
            let next = if rest.len() >= RECORD || at + 1 == pieces.len() {
                let next = &rest[..rest.len().min(RECORD)];
                skipped += next.len();
                next
            } else {
                if gathered.is_empty() {
                    gathered = lend(TLS_RECORDS);
                }
                let mut filled = 0;
                while filled < RECORD && at < pieces.len() {
                    let rest = &pieces[at][skipped..];
                    let taken = rest.len().min(RECORD - filled);
                    gathered[filled..filled + taken].copy_from_slice(&rest[..taken]);
                    (filled, skipped) = (filled + taken, skipped + taken);
                    if skipped == pieces[at].len() {
                        (at, skipped) = (at + 1, 0);
                    }
                }
                &gathered[..filled]
            };
            let length = next.len();
            if length > 0
                && self.process(&mut ReadBuf::new(&mut []), SessionOutput::Data(next))? != SessionProgress::Done
            {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            count += length;
            if at < pieces.len() && skipped == pieces[at].len() {
                (at, skipped) = (at + 1, 0);
            }
        }
        give_back(gathered);
        Ok(count)
    }
}

impl AsyncRead for ServerTls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.poll_read_some(cx, room);
        self.incoming.settle();
        read
    }
}

impl AsyncWrite for ServerTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = self.encrypt(pieces)?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.finished = true;
            if self.failure.is_none() {
                self.outgoing.supply(TLS_RECORDS);
                // If that fails, the client gets the alert.
                let _ = self.process(&mut ReadBuf::new(&mut []), SessionOutput::CloseNotify);
            }
        }
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.tcp).poll_shutdown(cx)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Does what a state of the session asks for. Also returns how many more of the received bytes are finished with.
fn advance(
    state: ConnectionState<'_, '_, ServerConnectionData>,
    room: &mut ReadBuf<'_>,
    decrypted: &mut RecordQueue,
    outgoing: &mut RecordQueue,
    send: SessionOutput<'_>,
) -> io::Result<(SessionStep, usize)> {
    let mut also = 0;
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record.map_err(invalid)?;
                also += record.discard;
                let fitting = if decrypted.is_empty() { room.remaining() } else { 0 };
                let (now, later) = record.payload.split_at(record.payload.len().min(fitting));
                room.put_slice(now);
                decrypted.append(later);
            }
            SessionStep::Again
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, outgoing)?;
            SessionStep::Again
        }
        ConnectionState::TransmitTlsData(data) => {
            // It is sent in order, and before anything else.
            data.done();
            SessionStep::Again
        }
        ConnectionState::PeerClosed => SessionStep::Ended,
        ConnectionState::Closed => SessionStep::Reached(SessionProgress::Over),
        ConnectionState::BlockedHandshake => SessionStep::Reached(SessionProgress::Waits),
        ConnectionState::WriteTraffic(mut traffic) => loop {
            let written = match send {
                SessionOutput::Nothing => break SessionStep::Reached(SessionProgress::Waits),
                SessionOutput::Data(data) => traffic.encrypt(data, outgoing.room_mut()),
                SessionOutput::CloseNotify => traffic.queue_close_notify(outgoing.room_mut()),
            };
            match written {
                Ok(count) => {
                    outgoing.end += count;
                    break SessionStep::Reached(SessionProgress::Done);
                }
                Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    outgoing.reserve(required_size);
                }
                Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
            }
        },
        // Early data is refused; there is no other state.
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok((step, also))
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut RecordQueue) -> io::Result<()> {
    loop {
        match data.encode(outgoing.room_mut()) {
            Ok(count) => {
                outgoing.end += count;
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                outgoing.reserve(required_size);
            }
            Err(error @ EncodeError::AlreadyEncoded) => return Err(io::Error::other(error)),
        }
    }
}

#[cfg(test)]
mod tests;
