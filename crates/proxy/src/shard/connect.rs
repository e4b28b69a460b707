//! Connects to endpoints, within a time limit and only as long as the endpoint exists.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::Shard;
use crate::limit::CONNECT_LOOK;
use crate::net::descriptors;
use crate::stream::Upstream;
use crate::timer::{Deadline, Millis, within};
use crate::upstream::{Service, TlsWay, Way, fault};

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The endpoint or the kernel refused.
    #[error(transparent)]
    Refused(#[from] io::Error),
    /// The limit of open files is reached, and none was closed in time.
    #[error("too many open files")]
    NoFile,
    /// The service no longer has this endpoint.
    #[error("the endpoint is gone")]
    Gone,
    /// The endpoint doesn't speak TLS, or not as required, for this reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(&'static str),
    /// The time limit passed.
    #[error("no answer in time")]
    TimedOut,
}

/// Opens a connection to an endpoint of a service. Waiting ends if the endpoint is removed meanwhile: packets to the address of a
/// removed pod are lost silently.
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn open(
    shard: &Shard,
    deadline: &Deadline,
    service: &Service,
    endpoint: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, ConnectError> {
    let end = shard.timers.after(timeout);
    let socket = socket(shard, deadline, endpoint, end).await?;
    socket.set_nodelay(true)?;
    let mut connecting = pin!(socket.connect(endpoint));
    loop {
        deadline.set(end.min(shard.timers.after(CONNECT_LOOK)));
        if let Some(connected) = within(deadline, connecting.as_mut()).await {
            return Ok(connected?);
        }
        if shard.timers.now() >= end {
            return Err(ConnectError::TimedOut);
        }
        if service.has_lost(&shard.running(), endpoint) {
            return Err(ConnectError::Gone);
        }
    }
}

/// Like [`open`], in the way that the route requires.
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn open_way(
    shard: &Shard,
    deadline: &Deadline,
    service: &Service,
    way: &Way,
    endpoint: SocketAddr,
    timeout: Duration,
) -> Result<Upstream, ConnectError> {
    let end = shard.timers.after(timeout);
    let tcp = open(shard, deadline, service, endpoint, timeout).await?;
    match way {
        Way::Plain(_) => Ok(Upstream::Plain(tcp)),
        Way::Tls(way) => secure(deadline, way, endpoint, tcp, end).await,
    }
}

/// Speaks TLS on a connection to an endpoint, from now on.
///
/// # Errors
/// If the handshake fails, or isn't over by `end`.
pub(crate) async fn secure(
    deadline: &Deadline,
    way: &TlsWay,
    endpoint: SocketAddr,
    tcp: TcpStream,
    end: Millis,
) -> Result<Upstream, ConnectError> {
    deadline.set(end);
    match within(deadline, TlsConnector::from(way.config.clone()).connect(way.name.clone(), tcp)).await {
        None => Err(ConnectError::TimedOut),
        Some(Ok(stream)) => Ok(Upstream::Tls(Box::new(stream))),
        Some(Err(error)) => {
            tracing::debug!(%error, upstream_addr = %endpoint, "TLS handshake with an endpoint failed");
            Err(ConnectError::Handshake(fault(&error)))
        }
    }
}

/// A socket, as soon as there is a file descriptor for it.
async fn socket(
    shard: &Shard,
    deadline: &Deadline,
    endpoint: SocketAddr,
    end: Millis,
) -> Result<TcpSocket, ConnectError> {
    loop {
        match if endpoint.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() } {
            Err(error) if descriptors::is_lack(&error) => {}
            socket => return Ok(socket?),
        }
        if !shard.free_file() {
            // Other parts of the process may have closed a file as well.
            deadline.set(end.min(shard.timers.after(CONNECT_LOOK)));
            within(deadline, shard.ended()).await;
            if shard.timers.now() >= end {
                return Err(ConnectError::NoFile);
            }
        }
    }
}
