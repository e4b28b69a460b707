//! Connecting to endpoints.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

/// Opens a connection. How long that may take is for the caller to say.
///
/// # Errors
/// Those of `connect(2)`.
pub(crate) async fn open(endpoint: SocketAddr) -> io::Result<TcpStream> {
    let socket = if endpoint.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.connect(endpoint).await
}
