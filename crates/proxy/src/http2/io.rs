//! The bytes of a connection as `h2` gets them: those already read come first, frames are counted as they pass, and closing waits for the
//! peer to close, as in HTTP/1.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::link::Link;
use crate::limit::LINGER_BYTES;
use crate::stream::{MaybeTls, OverTcp, ReadInto, WriteFrom};

/// A connection for `h2`.
#[derive(Debug)]
pub(crate) struct Http2Io<S> {
    stream: MaybeTls<S>,
    /// What was read before the connection was known to be HTTP/2.
    early: Vec<u8>,
    link: Rc<Link>,
    finished: bool,
    /// Bytes still to be read and discarded after the proxy has closed its side.
    left: u64,
}

impl<S: OverTcp> Http2Io<S> {
    /// A connection of which `early` has already been read.
    pub(crate) fn new(stream: MaybeTls<S>, early: Vec<u8>, link: Rc<Link>) -> Self {
        Self { stream, early, link, finished: false, left: LINGER_BYTES }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Its content is never used.
        let mut room = [0; 512];
        loop {
            match ready!(self.stream.poll_read_into(cx, &mut room)) {
                Ok(count @ 1..) if self.left > 0 => self.left = self.left.saturating_sub(count as u64),
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: OverTcp> AsyncRead for Http2Io<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.link.is_abused() {
            // The task that drives the connection ends it.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if this.early.is_empty() {
            let read = match &mut this.stream {
                MaybeTls::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
                MaybeTls::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
            };
            ready!(read)?;
        } else {
            let count = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early[..count]);
            this.early.drain(..count);
        }
        this.link.has_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: OverTcp> AsyncWrite for Http2Io<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            MaybeTls::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, pieces),
            MaybeTls::Tls(tls) => Pin::new(&mut **tls).poll_write_vectored(cx, pieces),
        };
        match &written {
            Poll::Ready(Ok(count)) => this.link.has_written(Some(*count)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => this.link.has_written(None),
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.poll_flush_all(cx);
        if flushed.is_pending() {
            self.link.has_written(None);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.finished {
            ready!(this.stream.poll_finish(cx))?;
            this.finished = true;
            this.link.linger();
        }
        this.poll_linger(cx).map(Ok)
    }
}
