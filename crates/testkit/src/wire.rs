//! Reads HTTP/1 messages from a connection: simple, slow, and independent of the code under test.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::message::{Body, Framing, Head, Headers, find, show};
use crate::stream::Stream;

/// Longer than any head or chunk line in a test.
const LONGEST_SECTION: usize = 16 << 20;

/// Why a message could not be read completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer closed; the caller knows whether part of the message had arrived.
    Closed,
    /// The peer reset the connection, or it broke in another way.
    Reset(String),
    /// The bytes are not HTTP/1.
    Malformed(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // This is how rustls reports a TCP close without close_notify.
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Reset(error.to_string()),
        }
    }
}

/// Receives a copy of all bytes read.
type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// A connection with a buffer of bytes received but not yet consumed.
pub(crate) struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
    tap: Option<Tap>,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new(), tap: None }
    }

    /// Passes every received byte to `tap` before it is consumed.
    pub(crate) fn with_tap(stream: Stream, tap: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self { stream, buffer: Vec::new(), tap: Some(Box::new(tap)) }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Bytes received but not yet consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Receives more; `false` at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 16 << 10];
        let count = self.stream.read(&mut piece).await?;
        if let Some(tap) = &mut self.tap {
            tap(&piece[..count]);
        }
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(count > 0)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Closes the sending side (FIN, for TLS after close_notify).
    pub(crate) async fn half_close(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Consumes everything in the buffer.
    pub(crate) fn take_buffered(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Consumes `count` bytes.
    pub(crate) async fn read_exact(&mut self, count: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Ok(self.consume(count))
    }

    /// Consumes everything up to and including `mark`.
    pub(crate) async fn read_until(&mut self, mark: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut searched = 0;
        loop {
            if let Some(at) = find(&self.buffer[searched..], mark) {
                return Ok(self.consume(searched + at + mark.len()));
            }
            if self.buffer.len() > LONGEST_SECTION {
                return Err(Broken::Malformed(format!("no {} in {}", show(mark), show(&self.buffer))));
            }
            searched = self.buffer.len().saturating_sub(mark.len() - 1);
            self.more().await?;
        }
    }

    /// Consumes one head.
    pub(crate) async fn read_head(&mut self) -> Result<Head, Broken> {
        let raw = self.read_until(b"\r\n\r\n").await?;
        Head::parse(raw).map_err(Broken::Malformed)
    }

    /// Reads a body into `body`, which keeps the partial body on error.
    pub(crate) async fn read_body(&mut self, framing: Framing, body: &mut Body) -> Result<(), Broken> {
        match framing {
            Framing::None => Ok(()),
            Framing::Length(length) => self.read_into(length, &mut body.data).await,
            Framing::Chunked => self.read_chunks(body).await,
            Framing::Close => loop {
                body.data.append(&mut self.buffer);
                if !self.fill().await? {
                    return Ok(());
                }
            },
        }
    }

    async fn read_chunks(&mut self, body: &mut Body) -> Result<(), Broken> {
        loop {
            let line = self.read_until(b"\r\n").await?;
            let digits = line.split(|&byte| byte == b';' || byte == b'\r').next().unwrap_or_default();
            let size = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u64::from_str_radix(digits.trim_end(), 16).ok())
                .ok_or_else(|| Broken::Malformed(format!("chunk size {}", show(&line))))?;
            if size == 0 {
                break;
            }
            self.read_into(size, &mut body.data).await?;
            body.chunks.push(size as usize);
            if self.read_exact(2).await? != b"\r\n" {
                return Err(Broken::Malformed(format!("chunk of {size} bytes does not end in CRLF")));
            }
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.read_until(b"\r\n").await?;
            if line == b"\r\n" {
                break;
            }
            trailers.extend_from_slice(&line);
        }
        body.trailers = Headers::parse(&trailers).map_err(Broken::Malformed)?;
        Ok(())
    }

    /// Moves `count` bytes to `data`, or the available ones if the connection breaks.
    async fn read_into(&mut self, count: u64, data: &mut Vec<u8>) -> Result<(), Broken> {
        let mut left = count;
        loop {
            let now = left.min(self.buffer.len() as u64) as usize;
            data.extend(self.buffer.drain(..now));
            left -= now as u64;
            if left == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), Broken> {
        if self.fill().await? { Ok(()) } else { Err(Broken::Closed) }
    }

    fn consume(&mut self, count: usize) -> Vec<u8> {
        self.buffer.drain(..count).collect()
    }
}
