//! Accepting connections: as long as there is room for them, until the socket is closed.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::limit::{ACCEPT_PAUSE, BACKLOG, CLOSING_PAUSES};
use crate::net::descriptors;
use crate::net::listener::{Gate, is_of_one, pause_after};
use crate::shard::Shard;

/// Accepts connections until the gate is closed, and then those that wait in the queue.
pub(super) async fn accept(shard: &Shard, gate: &Gate, socket: TcpListener, spawn: impl Fn(TcpStream, SocketAddr)) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = gate.closed() => break,
            accepted = async { shard.room().await; socket.accept().await } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => spawn(stream, peer),
            Err(error) => drop(recover(shard, gate, &error).await),
        }
    }
    match socket.into_std() {
        Ok(socket) => accept_queue(shard, gate, &socket, spawn).await,
        Err(error) => gate.warn(&error),
    }
}

/// Accepts what is in the queue, which would be reset when the socket closes.
///
/// Asks the kernel itself: the event loop lets a task accept only so many at a time, and may take the queue for empty when it isn't.
async fn accept_queue(
    shard: &Shard,
    gate: &Gate,
    socket: &std::net::TcpListener,
    spawn: impl Fn(TcpStream, SocketAddr),
) {
    let accept = || -> io::Result<_> {
        let (stream, peer) = socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok((TcpStream::from_std(stream)?, peer))
    };
    let mut pauses = 0;
    // More than fit into the queue came after it was to be closed.
    for _ in 0..=BACKLOG {
        match accept() {
            Ok((stream, peer)) => spawn(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                pauses += u32::from(recover(shard, gate, &error).await);
                // Whoever closes the listener waits, and can't wait for long.
                if pauses > CLOSING_PAUSES {
                    break;
                }
            }
        }
    }
}

/// Sees to it that the next connection can be accepted, as far as that is up to us. `true` if that took a pause.
async fn recover(shard: &Shard, gate: &Gate, error: &io::Error) -> bool {
    if !descriptors::is_lack(error) {
        pause_after(error, gate).await;
        return !is_of_one(error);
    }
    gate.warn(error);
    if shard.free_file() {
        return false;
    }
    let _ = timeout(ACCEPT_PAUSE, shard.ended()).await;
    true
}
