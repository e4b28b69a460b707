//! The channel over a Unix socket, between the containers of a pod.
//!
//! Both sides ask the kernel for the user of the peer: only processes of the same user, or of root, get the configuration with its keys, or
//! may provide one. A process that could impersonate that user could read the memory of either process anyway.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::grpc::{Connection, Served, accept};
use crate::hub::Hub;
use crate::limit::SOCKETS;

/// A socket at which a controller serves proxies.
#[derive(Debug)]
pub struct SocketServer {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket can't be opened or connected to.
#[derive(Debug, thiserror::Error)]
#[error("the socket {path}")]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

impl SocketServer {
    /// Opens the socket in the context of a runtime. A socket that an earlier process has left behind is replaced.
    ///
    /// # Errors
    /// If the folder is missing or not writable, or another process serves there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let open = || {
            if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another controller serves there"));
                }
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let path = path.to_owned();
        match open() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(SocketError { path, source }),
        }
    }

    /// Serves proxies. Never ends; when it is dropped, their connections end.
    pub async fn run(self, hub: Hub) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, path = %self.path.display(), "can't accept a proxy");
                    // Perhaps the process has no file descriptors left; other connections may end.
                    tokio::time::sleep(crate::limit::AGAIN_FIRST).await;
                    continue;
                }
            };
            if connections.len() >= SOCKETS {
                debug!("there are as many connections at the socket as may be: a further one is closed");
                continue;
            }
            match checked(stream) {
                Ok(connection) => {
                    let served = Served { hub: hub.clone(), desk: None, known: true };
                    connections.spawn(async move {
                        if let Err(error) = accept(served, connection).await {
                            debug!(%error, "the connection of a proxy ended");
                        }
                    });
                }
                Err(error) => warn!(%error, "a process is not given the configuration"),
            }
        }
    }
}

/// Connects to a controller.
pub(crate) async fn connect(path: &Path) -> io::Result<Connection> {
    checked(UnixStream::connect(path).await?)
}

/// The connection, if the process at its other end belongs to our user or to root.
fn checked(stream: UnixStream) -> io::Result<Connection> {
    let (peer, own) = (stream.peer_cred()?.uid(), nix::unistd::geteuid().as_raw());
    if !is_trusted(peer, own) {
        let text = format!("the other process belongs to user {peer}, this one to user {own}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(Box::pin(stream))
}

fn is_trusted(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

#[cfg(test)]
mod tests {
    use fairway_testkit::{eventually, within};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::limit::GREETING;

    #[test]
    fn only_the_same_user_and_root_are_trusted() {
        assert!(is_trusted(101, 101) && is_trusted(0, 101) && is_trusted(0, 0));
        assert!(!is_trusted(102, 101) && !is_trusted(101, 0));
    }

    fn serve(folder: &Path) -> (PathBuf, tokio::task::JoinHandle<()>) {
        let path = folder.join("channel.sock");
        let server = SocketServer::bind(&path).unwrap();
        (path, tokio::spawn(server.run(Hub::new().0)))
    }

    /// Reads until the connection closes.
    async fn end(mut stream: UnixStream) {
        let mut rest = Vec::new();
        let _ = timeout(2 * GREETING, stream.read_to_end(&mut rest)).await.expect("the connection ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_is_asked_for_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (path, server) = serve(folder.path());
        let begun = tokio::time::Instant::now();
        end(UnixStream::connect(&path).await.unwrap()).await;
        assert!(begun.elapsed() >= GREETING);
        let mut greeted = UnixStream::connect(&path).await.unwrap();
        // Greeted as HTTP/2 is, with empty SETTINGS, but without a stream.
        greeted.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        end(greeted).await;
        server.abort();
    }

    #[tokio::test]
    async fn there_are_only_so_many_connections() {
        let folder = tempfile::tempdir().unwrap();
        let (path, server) = serve(folder.path());
        let mut open = Vec::new();
        for _ in 0..SOCKETS {
            open.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut more = UnixStream::connect(&path).await.unwrap();
        assert_eq!(within("the end", more.read(&mut [0])).await.unwrap(), 0);
        // A connection that ends makes room.
        drop(open.pop());
        eventually("room", || async {
            let mut next = UnixStream::connect(&path).await.ok()?;
            // The server speaks first.
            next.read(&mut [0]).await.ok().filter(|read| *read == 1)
        })
        .await;
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("channel.sock");
        drop(SocketServer::bind(&path).unwrap());
        assert!(path.exists());
        let server = SocketServer::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SocketServer::bind(&path).unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
        drop(server);
        // A file that is not a socket stays.
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert!(SocketServer::bind(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    }
}
