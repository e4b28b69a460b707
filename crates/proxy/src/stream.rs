//! Byte streams as the data path sees them: polled, with plain byte counts, the same for TCP and TLS.

mod server_tls;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client;

pub(crate) use self::server_tls::ServerTls;
use crate::limit::CLIENT_PROBE;

/// Something to read from.
pub(crate) trait ReadInto {
    /// Reads into initialised memory and returns the number of bytes; 0 at the end of the stream.
    fn poll_read_into(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>>;
}

/// Something to write to.
pub(crate) trait WriteFrom {
    /// Writes from up to three pieces, of which only the first may be empty.
    fn poll_write_from(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Passes everything that was written to the kernel.
    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the stream: nothing more will be written.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl ReadInto for TcpStream {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        read(Pin::new(self), cx, room)
    }
}

impl WriteFrom for TcpStream {
    fn poll_write_from(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        write(Pin::new(self), cx, pieces)
    }

    fn poll_flush_all(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

/// A plain connection, or TLS over one.
#[derive(Debug)]
pub(crate) enum MaybeTls<S> {
    /// Without TLS.
    Plain(TcpStream),
    /// Over TLS, after the handshake.
    Tls(Box<S>),
}

/// A client's connection.
pub(crate) type Downstream = MaybeTls<ServerTls>;

/// A connection to an endpoint.
pub(crate) type Upstream = MaybeTls<client::TlsStream<TcpStream>>;

/// A TLS stream, of either side.
pub(crate) trait OverTcp: AsyncRead + AsyncWrite + Unpin {
    /// Whether an end of the connection without close_notify counts as the end of the stream.
    const MAY_END_SILENTLY: bool;

    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

impl OverTcp for ServerTls {
    const MAY_END_SILENTLY: bool = false;

    fn tcp(&self) -> &TcpStream {
        self.tcp()
    }
}

impl OverTcp for client::TlsStream<TcpStream> {
    /// Many servers send no close_notify. Framing shows whether something is missing, and nginx accepts this as the end of a
    /// response without framing.
    const MAY_END_SILENTLY: bool = true;

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl<S: OverTcp> MaybeTls<S> {
    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }
}

impl Downstream {
    /// Frees the memory that pending output does not need.
    pub(crate) fn trim(&mut self) {
        if let Self::Tls(tls) = self {
            tls.trim();
        }
    }

    /// Whether the peer has reset the connection, or no longer answers the [probes](Self::probe). Costs a system call.
    pub(crate) fn has_failed(&self) -> bool {
        !matches!(SockRef::from(self.tcp()).take_error(), Ok(None))
    }

    /// Enables probes by the kernel, which notice a peer that is gone.
    pub(crate) fn probe(&self) {
        let probes = TcpKeepalive::new().with_time(CLIENT_PROBE).with_interval(CLIENT_PROBE).with_retries(3);
        // Without probes, a peer that is gone is noticed only at the next write.
        let _ = SockRef::from(self.tcp()).set_tcp_keepalive(&probes);
    }
}

impl<S: OverTcp> ReadInto for MaybeTls<S> {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => read(Pin::new(tcp), cx, room),
            Self::Tls(tls) => match read(Pin::new(&mut **tls), cx, room) {
                Poll::Ready(Err(error)) if S::MAY_END_SILENTLY && error.kind() == io::ErrorKind::UnexpectedEof => {
                    Poll::Ready(Ok(0))
                }
                other => other,
            },
        }
    }
}

impl<S: OverTcp> WriteFrom for MaybeTls<S> {
    fn poll_write_from(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => write(Pin::new(tcp), cx, pieces),
            Self::Tls(tls) => write(Pin::new(&mut **tls), cx, pieces),
        }
    }

    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
        }
    }
}

fn read<S: AsyncRead>(stream: Pin<&mut S>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
    #[cfg(test)]
    calls::CALLS.set(calls::CALLS.get() + 1);
    let mut room = ReadBuf::new(room);
    stream.poll_read(cx, &mut room).map_ok(|()| room.filled().len())
}

/// One piece is written with `write`, which costs the kernel less than `writev`.
fn write<S: AsyncWrite>(stream: Pin<&mut S>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    #[cfg(test)]
    calls::CALLS.set(calls::CALLS.get() + 1);
    let written = match pieces {
        [piece] => stream.poll_write(cx, piece),
        _ => stream.poll_write_vectored(cx, pieces),
    };
    match written {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        other => other,
    }
}

/// Counts the reads and writes of a thread, for tests.
#[cfg(test)]
pub(crate) mod calls {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static CALLS: Cell<u64> = const { Cell::new(0) };
    }
}
