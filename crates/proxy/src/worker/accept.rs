//! Accepts connections as long as there is room for them, until the socket is closed.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

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

/// Accepts the connections in the queue, which would be reset when the socket closes.
///
/// Asks the kernel directly: the event loop lets a task accept only a limited number at a time, and may take the queue for empty when it
/// isn't.
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
    // Any connections beyond the length of the queue arrived after the gate was closed.
    for _ in 0..=BACKLOG {
        match accept() {
            Ok((stream, peer)) => spawn(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                pauses += u32::from(recover(shard, gate, &error).await);
                // Closing the listener waits for this, and must not wait long.
                if pauses > CLOSING_PAUSES {
                    break;
                }
            }
        }
    }
}

/// Recovers from a failed accept as far as possible. Returns `true` if that took a pause.
async fn recover(shard: &Shard, gate: &Gate, error: &io::Error) -> bool {
    if !descriptors::is_lack(error) {
        pause_after(error, gate, &shard.timers).await;
        return !is_of_one(error);
    }
    gate.warn(error);
    if shard.free_file() {
        return false;
    }
    shard.timers.timeout(ACCEPT_PAUSE, shard.ended()).await;
    true
}
