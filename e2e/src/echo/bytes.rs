//! Echoes bytes, for tests of TCP and UDP services.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// The longest datagram.
const LONGEST: usize = 65_507;

/// Serves connections and datagrams on the same port number until dropped.
///
/// # Errors
/// If a port is in use, or the datagram socket fails.
pub(super) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, listener.local_addr()?.port()));
    let socket = UdpSocket::bind(address).await.with_context(|| format!("receiving datagrams on {address}"))?;
    tokio::select! {
        result = connections(listener) => result,
        result = datagrams(socket) => result,
    }
}

async fn connections(listener: TcpListener) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => drop(connections.spawn(echo(accepted.context("accepting")?.0))),
            Some(_) = connections.join_next() => (),
        }
    }
}

/// Echoes all bytes, then the end.
async fn echo(mut stream: TcpStream) {
    let (mut reader, mut writer) = stream.split();
    // The end of a connection concerns only its peer.
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        let _ = writer.shutdown().await;
    }
}

async fn datagrams(socket: UdpSocket) -> anyhow::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.context("receiving")?;
        // A vanished peer is no reason to stop.
        let _ = socket.send_to(&buffer[..length], peer).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn bytes_and_datagrams_come_back() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(serve(listener));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"bytes").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"bytes");
        // The connection was served, so the other socket exists as well.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.send_to(b"datagram", address).await.unwrap();
        let mut buffer = [0; 16];
        let (length, _) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"datagram");
    }
}
