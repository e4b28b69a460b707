//! Connecting to endpoints: within a time, and no longer than the endpoint is there.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::Service;
use crate::connection::within;
use crate::timer::Deadline;
use crate::worker::Worker;

/// How often who waits for a connection looks whether the endpoint is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The endpoint or the kernel does not want to.
    #[error(transparent)]
    Refused(#[from] io::Error),
    /// The service has no such endpoint any more.
    #[error("the endpoint is gone")]
    Gone,
    /// The time is over.
    #[error("no answer in time")]
    TimedOut,
}

/// Opens a connection to an endpoint of a service. Waiting ends when the endpoint is gone meanwhile: packets to the address of a pod
/// that was removed are lost without a word.
///
/// # Errors
/// See [`ConnectError`].
pub(crate) async fn open(
    worker: &Worker,
    deadline: &Deadline,
    service: &Service,
    endpoint: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream, ConnectError> {
    let end = worker.timers.after(timeout);
    let mut connecting = pin!(connect(endpoint));
    loop {
        deadline.set(end.min(worker.timers.after(LOOK)));
        if let Some(connected) = within(deadline, connecting.as_mut()).await {
            return Ok(connected?);
        }
        if worker.timers.now() >= end {
            return Err(ConnectError::TimedOut);
        }
        let newest = worker.running();
        service.refresh(&newest);
        if !service.knows(&newest, endpoint) {
            return Err(ConnectError::Gone);
        }
    }
}

async fn connect(endpoint: SocketAddr) -> io::Result<TcpStream> {
    let socket = if endpoint.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.connect(endpoint).await
}
