//! Sends a request to a process's admin server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Timeout for connecting, and for each read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest answer, in bytes: the names and versions of all resources of a large cluster.
const ANSWER: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("asking {0}")]
    Io(SocketAddr, #[source] io::Error),
    #[error("{0} answers {1}: is that the port of health and metrics?")]
    Refused(SocketAddr, String),
}

/// The body of the answer to a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, AskError> {
    let answer = exchange(address, path).map_err(|error| AskError::Io(address, error))?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let head = String::from_utf8_lossy(&answer[..end.unwrap_or(answer.len().min(80))]).into_owned();
    let line = head.lines().next().unwrap_or_default();
    match end {
        Some(end) if line.starts_with("HTTP/1.") && line.split(' ').nth(1) == Some("200") => {
            Ok(answer[end + 4..].to_vec())
        }
        _ => Err(AskError::Refused(address, crate::terminal::printable(line))),
    }
}

fn exchange(address: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}
