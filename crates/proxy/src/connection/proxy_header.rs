//! The PROXY header at the start of a client's connection, before TLS and HTTP: it names the client that the peer speaks for.
//!
//! Only a trusted peer may name clients. A connection that begins with anything else is closed: where a header is expected, the peer's own
//! address never counts as the client's.

use std::future::poll_fn;
use std::io;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::{ClientConnection, hurried};
use crate::limit::PROXY_HEADER;
use crate::net::proxy_protocol::{Decoded, Ends, InvalidProxyHeader, decode};
use crate::stream::{Downstream, ReadInto};

/// Why the client of a connection is unknown.
#[derive(Debug, thiserror::Error)]
enum ProxyHeaderError {
    /// The connection begins with something else.
    #[error(transparent)]
    Invalid(#[from] InvalidProxyHeader),
    /// The connection failed or ended.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The header took too long.
    #[error("no complete PROXY header came in time")]
    Late,
    /// The peer may not send one.
    #[error("the peer is not trusted to name its clients")]
    Untrusted,
}

impl ClientConnection {
    /// Receives the PROXY header and takes the client from it. Returns `false` if the connection is over.
    pub(super) async fn receive_proxy_header(&mut self) -> bool {
        match self.client_ends().await {
            // The peer speaks for itself, as a load balancer does in its health checks.
            Some(Ok(None)) => true,
            Some(Ok(Some(ends))) => {
                self.facts.speak_for(ends);
                self.admission.count_against(ends.source)
            }
            // The connection had to give up its place.
            None => false,
            Some(Err(error)) => {
                self.facts.shard.metrics.borrow_mut().connections.proxy_headers_failed += 1;
                tracing::debug!(%error, remote_addr = %self.facts.arrival.peer, "no PROXY header");
                false
            }
        }
    }

    async fn client_ends(&mut self) -> Option<Result<Option<Ends>, ProxyHeaderError>> {
        let shard = self.facts.shard.clone();
        let running = shard.running();
        let settings = running.snapshot.settings();
        if !settings.forwarded.trusted.contains(self.facts.arrival.peer.ip()) {
            return Some(Err(ProxyHeaderError::Untrusted));
        }
        // The time for the request head includes this.
        self.deadline.set(self.head_due.min(shard.timers.after(settings.proxy_header_timeout)));
        drop(running);
        let Downstream::Plain(tcp) = &mut self.stream else { return None };
        match hurried(&shard, &self.admission, &self.deadline, Box::pin(read(tcp))).await {
            Some(result) => Some(result),
            None => self.deadline.expired().then_some(Err(ProxyHeaderError::Late)),
        }
    }
}

/// Reads the header and nothing after it. `None` for the ends of the connection itself.
async fn read(tcp: &mut TcpStream) -> Result<Option<Ends>, ProxyHeaderError> {
    let mut header = [0; PROXY_HEADER];
    let mut read = 0;
    loop {
        let mut room = ReadBuf::new(&mut header[read..]);
        // Peeked bytes stay in the kernel until they are known to belong to the header.
        let peeked = poll_fn(|cx| tcp.poll_peek(cx, &mut room)).await?;
        if peeked == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let seen = read + peeked;
        let decoded = decode(&header[..seen])?;
        // All of an incomplete header belongs to it.
        let end = if let Decoded::Complete { len, .. } = decoded { len } else { seen };
        while read < end {
            let count = poll_fn(|cx| tcp.poll_read_into(cx, &mut header[read..end])).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            read += count;
        }
        if let Decoded::Complete { ends, .. } = decoded {
            return Ok(ends);
        }
    }
}
