//! The endpoint's side of a connection.
//!
//! Bytes carry no framing here, so a TLS endpoint ends its stream only with close_notify, which TLS authenticates. Without it the endpoint,
//! or someone on the path to it, has cut the stream, and a TLS client gets no close_notify either. A client without TLS can't tell: it sees
//! a plain end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::stream::{ReadInto, Upstream, WriteFrom};

/// A connection to an endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    stream: Upstream,
    /// Whether the endpoint has closed without close_notify.
    cut: bool,
}

impl Endpoint {
    pub(super) fn new(stream: Upstream) -> Self {
        Self { stream, cut: false }
    }

    /// The socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    /// Whether the endpoint has closed without close_notify, as many servers do: all that it sent was passed on.
    pub(super) fn was_cut(&self) -> bool {
        self.cut
    }
}

impl ReadInto for Endpoint {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let Upstream::Tls(tls) = &mut self.stream else { return self.stream.poll_read_into(cx, room) };
        let mut room = ReadBuf::new(room);
        let read = Pin::new(&mut **tls).poll_read(cx, &mut room).map_ok(|()| room.filled().len());
        self.cut |= matches!(&read, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof);
        read
    }
}

impl WriteFrom for Endpoint {
    fn poll_write_from(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.stream.poll_write_from(cx, pieces)
    }

    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush_all(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_finish(cx)
    }
}
