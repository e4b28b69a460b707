//! Sends log lines to a syslog server: one UDP datagram each (RFC 3164), worded as nginx does it. Used only by the log's own thread.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use fairway_model::{Syslog, Variable};
use jiff::Timestamp;

use super::value;
use crate::limit::{SYSLOG_DATAGRAM, SYSLOG_RESOLVE, SYSLOG_RETRY, SYSLOG_WAIT};

/// The facility local7 and the severity info: those of nginx.
const PRIORITY: u8 = 23 * 8 + 6;

/// The sender of lines to one server.
#[derive(Debug)]
pub(super) struct SyslogSender {
    server: Syslog,
    socket: Option<UdpSocket>,
    /// When to look the server's name up again.
    next: Instant,
    datagram: Vec<u8>,
}

impl SyslogSender {
    pub(super) fn new(server: Syslog) -> Self {
        Self { server, socket: None, next: Instant::now(), datagram: Vec::new() }
    }

    pub(super) fn server(&self) -> &Syslog {
        &self.server
    }

    /// Sends each line. Returns how many were lost: UDP loses datagrams silently, so those are only the ones that could not be sent.
    pub(super) fn send(&mut self, lines: &[u8]) -> u64 {
        let now = Instant::now();
        if now >= self.next {
            self.connect(now);
        }
        let header = header(Timestamp::now());
        let mut lost = 0;
        for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.datagram.clear();
            self.datagram.extend_from_slice(&header);
            self.datagram.extend_from_slice(line);
            self.datagram.truncate(SYSLOG_DATAGRAM);
            let sent = match &self.socket {
                Some(socket) => match socket.send(&self.datagram) {
                    // The answer to an earlier datagram; this one was not sent yet.
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => socket.send(&self.datagram),
                    result => result,
                },
                None => Err(ErrorKind::NotConnected.into()),
            };
            lost += u64::from(sent.is_err());
        }
        lost
    }

    /// Looks the server up. While that fails, the last address stays in use.
    fn connect(&mut self, now: Instant) {
        let Syslog { host, port } = &self.server;
        let address = (&**host, port.get()).to_socket_addrs().and_then(|mut addresses| {
            addresses.next().ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the name has no address"))
        });
        let is_connected = |address: &SocketAddr| {
            self.socket.as_ref().and_then(|socket| socket.peer_addr().ok()).as_ref() == Some(address)
        };
        let connected = match &address {
            Ok(address) if is_connected(address) => Ok(None),
            Ok(address) => connect(*address).map(Some),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let pause: Duration = match connected {
            Ok(changed) => {
                if changed.is_some() {
                    self.socket = changed;
                }
                SYSLOG_RESOLVE
            }
            Err(error) => {
                tracing::error!(%error, host = &**host, "the syslog server cannot be reached");
                SYSLOG_RETRY
            }
        };
        self.next = now + pause;
    }
}

fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_write_timeout(Some(SYSLOG_WAIT))?;
    Ok(socket)
}

/// `<190>Nov 29 04:30:00 host nginx: `. The tag stays nginx's, so that existing filters match.
fn header(now: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let host = value::constant(&Variable::Hostname).unwrap_or_default();
    let written = write!(out, "<{PRIORITY}>{} {host} nginx: ", now.strftime("%b %e %H:%M:%S"));
    debug_assert!(written.is_ok(), "a vector takes everything");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_begins_as_nginx_begins_it() {
        let text = String::from_utf8(header(Timestamp::from_second(1_795_244_400).unwrap())).unwrap();
        let host = value::constant(&Variable::Hostname).unwrap();
        assert_eq!(text, format!("<190>Nov 21 07:00:00 {host} nginx: "));
        let first = String::from_utf8(header(Timestamp::from_second(951_868_800 + 86_400).unwrap())).unwrap();
        assert!(first.starts_with("<190>Mar  2 00:00:00 "), "{first}");
    }
}
