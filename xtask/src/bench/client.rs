//! Benchmark clients: each repeats one request on one connection, byte for byte the same.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// Time limit for the binary's first response, under callgrind on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A request to `bench.example.com` with the two fields that every client sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) path: &'static str,
    /// The status of the response.
    pub(super) status: u16,
}

/// The version of HTTP, without TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    Http1,
    /// With prior knowledge.
    Http2,
}

/// A persistent connection.
pub(super) struct Client {
    stream: TcpStream,
    asked: Asked,
    /// Requests sent.
    sent: u32,
    buffer: Vec<u8>,
    filled: usize,
}

impl Client {
    /// Connects as soon as the binary is serving.
    pub(super) fn connect(address: SocketAddr, asked: Asked) -> anyhow::Result<Self> {
        let begin = Instant::now();
        let stream = loop {
            if let Ok(stream) = TcpStream::connect(address) {
                break stream;
            }
            ensure!(begin.elapsed() < START, "nothing listens on {address} after {} s", START.as_secs());
            thread::sleep(Duration::from_millis(50));
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(START))?;
        Ok(Self { stream, asked, sent: 0, buffer: vec![0; 16 << 10], filled: 0 })
    }

    /// Sends one request and reads the response.
    pub(super) fn ask(&mut self) -> anyhow::Result<()> {
        let request = match self.asked.version {
            Version::Http1 => http1_request(self.asked.path),
            Version::Http2 => http2_request(self.asked.path, self.sent),
        };
        self.sent += 1;
        self.stream.write_all(&request).context("sending a request")?;
        match self.asked.version {
            Version::Http1 => self.read_http1(),
            Version::Http2 => self.read_http2(),
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read(&mut self.buffer[self.filled..]).context("reading a response")?;
        ensure!(read > 0, "the connection was closed in the middle of a response");
        self.filled += read;
        Ok(())
    }

    fn read_http1(&mut self) -> anyhow::Result<()> {
        self.filled = 0;
        loop {
            self.read()?;
            let answer = String::from_utf8_lossy(&self.buffer[..self.filled]);
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            if !head.starts_with(&format!("HTTP/1.1 {}", self.asked.status)) {
                bail!("expected {}, got {head}", self.asked.status);
            }
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.context("a response without Content-Length")? {
                return Ok(());
            }
        }
    }

    /// Reads frames up to the end of the last request's stream.
    fn read_http2(&mut self) -> anyhow::Result<()> {
        loop {
            while let Some((frame, len)) = Frame::first(&self.buffer[..self.filled]) {
                let ends = frame.ends_stream(stream_id(self.sent - 1));
                let (kind, flags) = (frame.kind, frame.flags);
                let status = frame.payload.first().copied();
                self.buffer.copy_within(len..self.filled, 0);
                self.filled -= len;
                match (kind, flags) {
                    (SETTINGS, 0) => self.stream.write_all(&SETTINGS_ACK)?,
                    (RST_STREAM | GOAWAY, _) => bail!("the stream or the connection was ended"),
                    // The indexed field `:status: 200` of HPACK.
                    (HEADERS, _) => ensure!(status == Some(0x88), "expected status 200"),
                    _ => {}
                }
                if ends {
                    return Ok(());
                }
            }
            self.read()?;
        }
    }
}

fn http1_request(path: &str) -> Vec<u8> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench/1\r\nAccept: */*\r\n\r\n");
    head.into_bytes()
}

// No other frame types occur here, or they need no reply (RFC 9113 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const SETTINGS_ACK: [u8; 9] = [0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];

fn stream_id(request: u32) -> u32 {
    2 * request + 1
}

/// The frames of a request, after `before` others with the same fields. As with real clients, the first request adds its fields to the
/// HPACK table, and later ones refer to their indexes there.
fn http2_request(path: &str, before: u32) -> Vec<u8> {
    let mut out = Vec::new();
    if before == 0 {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        out.extend_from_slice(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        // A window that is large enough for all responses: WINDOW_UPDATE of the connection.
        out.extend_from_slice(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0]);
    }
    // `:method: GET`, `:scheme: http`.
    let mut block = vec![0x82, 0x86];
    if before == 0 {
        // Indexes of the names `:path`, `:authority`, `user-agent` and `accept` in the static table (RFC 7541, appendix A).
        for (name, value) in [(4, path), (1, "bench.example.com"), (58, "bench/1"), (19, "*/*")] {
            block.extend_from_slice(&[0x40 | name, value.len() as u8]);
            block.extend_from_slice(value.as_bytes());
        }
    } else {
        // The newest entry has index 62.
        block.extend_from_slice(&[0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]);
    }
    // END_STREAM and END_HEADERS.
    out.extend_from_slice(&[0, 0, block.len() as u8, HEADERS, 0x5]);
    out.extend_from_slice(&stream_id(before).to_be_bytes());
    out.extend_from_slice(&block);
    out
}

/// A received frame.
struct Frame<'b> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'b [u8],
}

impl<'b> Frame<'b> {
    /// The first frame, and its length in bytes; `None` if it is incomplete.
    fn first(bytes: &'b [u8]) -> Option<(Self, usize)> {
        let (head, rest) = bytes.split_first_chunk::<9>()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((Self { kind: head[3], flags: head[4], stream, payload: rest.get(..len)? }, 9 + len))
    }

    fn ends_stream(&self, stream: u32) -> bool {
        // DATA or HEADERS with END_STREAM.
        self.kind <= HEADERS && self.flags & 1 != 0 && self.stream == stream
    }
}
