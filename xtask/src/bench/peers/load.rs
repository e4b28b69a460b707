//! The programs that generate load.

use std::path::Path;

use anyhow::{Context, ensure};

use super::config::Setup;
use super::{LOAD, pinned};
use crate::shell;

/// The kinds of load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// wrk: [`CONNECTIONS`] persistent HTTP/1.1 connections, one request after another on each.
    Http1 { tls: bool, path: &'static str, field: &'static str },
    /// h2load: 8 HTTP/2 connections with 8 streams each; a call is a unary gRPC one, with a message of 100 bytes in the response.
    Http2 { tls: bool, call: bool },
    /// openssl: one connection after another, with one request each.
    Handshake { resumed: bool },
}

/// The connections of wrk.
pub(super) const CONNECTIONS: usize = 64;

impl Load {
    pub(super) const fn wrk(path: &'static str) -> Self {
        Self::Http1 { tls: false, path, field: "" }
    }

    pub(super) const fn over_tls(self) -> Self {
        match self {
            Self::Http1 { path, field, .. } => Self::Http1 { tls: true, path, field },
            other => other,
        }
    }

    pub(super) const fn with(self, field: &'static str) -> Self {
        match self {
            Self::Http1 { tls, path, .. } => Self::Http1 { tls, path, field },
            other => other,
        }
    }

    /// Sends requests for some seconds. Returns how many were answered.
    ///
    /// # Errors
    /// If any response is an error.
    pub(super) fn run(self, setup: &Setup, seconds: u64) -> anyhow::Result<u64> {
        self.run_on(LOAD, CONNECTIONS, setup, seconds)
    }

    /// The same on other cores, and with another number of connections for wrk.
    pub(super) fn run_on(self, cores: &str, connections: usize, setup: &Setup, seconds: u64) -> anyhow::Result<u64> {
        match self {
            Self::Http1 { tls, path, field } => {
                let mut command = pinned(cores, Path::new("wrk"));
                command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
                if !field.is_empty() {
                    command.args(["-H", field]);
                }
                let port = setup.port(tls);
                command.arg(format!("{}://localhost:{port}{path}", if tls { "https" } else { "http" }));
                let printed = String::from_utf8(shell::read(&mut command)?)?;
                for bad in ["Non-2xx", "Socket errors"] {
                    let line = printed.lines().find(|line| line.contains(bad)).unwrap_or_default();
                    ensure!(line.is_empty(), "wrk reports: {}", line.trim());
                }
                number_before(&printed, " requests in")
            }
            Self::Http2 { tls, call } => {
                let mut command = pinned(cores, Path::new("h2load"));
                command.args(["-c8", "-m8", "-t1", &format!("--duration={seconds}"), "--warm-up-time=0"]);
                let port = setup.port(tls);
                command.arg(format!("--connect-to=127.0.0.1:{port}"));
                let path = if call { "/grpc.testing.TestService/UnaryCall" } else { "/" };
                if call {
                    command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]);
                    command.arg(&setup.message);
                }
                command.arg(format!("{}://localhost:{port}{path}", if tls { "https" } else { "http" }));
                let printed = String::from_utf8(shell::read(&mut command)?)?;
                for bad in [" 3xx", " 4xx", " 5xx"] {
                    let count = number_before(&printed, bad)?;
                    ensure!(count == 0, "h2load counts {count} answers of{bad}");
                }
                number_before(&printed, " 2xx")
            }
            Self::Handshake { resumed } => {
                let mut command = pinned(cores, Path::new("openssl"));
                command.args(["s_time", "-connect", &format!("localhost:{}", setup.port(true)), "-www", "/"]);
                command.args(["-time", &seconds.to_string(), if resumed { "-reuse" } else { "-new" }]);
                let printed = String::from_utf8(shell::read(&mut command)?)?;
                number_before(&printed, " connections in")
            }
        }
    }
}

/// The last number before a text: openssl prints two, and the second one counts whole seconds.
pub(super) fn number_before(printed: &str, text: &str) -> anyhow::Result<u64> {
    let before = printed.rsplit_once(text).map(|(before, _)| before);
    let word = before.and_then(|before| before.rsplit(|byte: char| !byte.is_ascii_digit()).next());
    word.and_then(|word| word.parse().ok()).with_context(|| format!("no number before `{text}` in:\n{printed}"))
}
