//! What an origin sends for one request and does with the connection afterwards. A reply may be arbitrarily wrong.

use std::time::Duration;

use crate::Gate;

/// A reply, built by chaining.
///
/// By default it is well-formed: a body has a `content-length`, and the connection is kept. A framing field set with
/// [`Reply::header`] is sent in addition to the one that the body requires, which is how to lie.
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    before: Vec<Step>,
    start: String,
    status: u16,
    headers: Vec<u8>,
    framing: ReplyFraming,
    pieces: Vec<Vec<u8>>,
    piece_gate: Option<Gate>,
    trailers: Vec<u8>,
    cut: Option<usize>,
    trickle: Option<(usize, Duration)>,
    stray: Vec<u8>,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplyFraming {
    Length,
    Claimed(u64),
    Chunked,
    /// The body has no framing fields.
    Unframed,
    /// Only the pieces, without a head.
    Raw,
}

/// One action on the connection.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Wait(Gate),
    Send(Vec<u8>),
    /// In pieces of this many bytes, with a pause after each.
    Trickle(Vec<u8>, usize, Duration),
}

/// The fate of the connection after the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Keep,
    Close,
    Reset,
    HalfClose,
    Stall,
    EchoBytes,
}

impl Reply {
    /// 200 with an empty body.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// This status with an empty body.
    pub fn status(status: u16) -> Self {
        Self {
            before: Vec::new(),
            start: format!("HTTP/1.1 {status} {}", reason(status)),
            status,
            headers: Vec::new(),
            framing: ReplyFraming::Length,
            pieces: Vec::new(),
            piece_gate: None,
            trailers: Vec::new(),
            cut: None,
            trickle: None,
            stray: Vec::new(),
            then: Then::Keep,
        }
    }

    /// Exactly these bytes.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { framing: ReplyFraming::Raw, pieces: vec![bytes.as_ref().to_vec()], ..Self::ok() }
    }

    /// Nothing: for use with [`Reply::then_reset`], [`Reply::then_close`] and the like.
    pub fn nothing() -> Self {
        Self::raw("")
    }

    /// Bytes that are not HTTP, then a close.
    pub fn garbage() -> Self {
        Self::raw("\x16\x03\x01 this is not HTTP\r\n\r\n\0\0\0").then_close()
    }

    /// A redirect.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::status(status).header("location", location)
    }

    /// 101 with `upgrade`, whether requested or not; echoes every byte afterwards.
    pub fn upgrade(protocol: &str) -> Self {
        Self { then: Then::EchoBytes, ..Self::status(101).header("connection", "upgrade").header("upgrade", protocol) }
    }

    /// Sets the whole start line.
    pub fn start_line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.start);
        self
    }

    /// Adds a field.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.extend_from_slice(name.as_bytes());
        self.headers.extend_from_slice(b": ");
        self.headers.extend_from_slice(value.as_ref());
        self.headers.extend_from_slice(b"\r\n");
        self
    }

    /// Adds fields that enlarge the head by `bytes` or a little more.
    pub fn padding(mut self, bytes: usize) -> Self {
        for at in 0..bytes.div_ceil(1024) {
            self = self.header(&format!("x-padding-{at}"), "p".repeat(1024));
        }
        self
    }

    /// Sets the body, with `content-length`.
    pub fn body(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { framing: ReplyFraming::Length, pieces: vec![bytes.as_ref().to_vec()], ..self }
    }

    /// Sets the body, in chunks.
    pub fn chunked<P: AsRef<[u8]>>(self, chunks: impl IntoIterator<Item = P>) -> Self {
        let pieces = chunks.into_iter().map(|piece| piece.as_ref().to_vec()).collect();
        Self { framing: ReplyFraming::Chunked, pieces, ..self }
    }

    /// Sets the body without framing; it ends with the connection.
    pub fn close_delimited(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { framing: ReplyFraming::Unframed, pieces: vec![bytes.as_ref().to_vec()], then: Then::Close, ..self }
    }

    /// Sets the body without framing fields: add them with [`Reply::header`].
    pub fn unframed(self, bytes: impl AsRef<[u8]>) -> Self {
        Self { framing: ReplyFraming::Unframed, pieces: vec![bytes.as_ref().to_vec()], ..self }
    }

    /// Adds a field after the last chunk.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        self
    }

    /// Declares `content-length: length`, whatever the length of the body.
    pub fn claiming_length(self, length: u64) -> Self {
        Self { framing: ReplyFraming::Claimed(length), ..self }
    }

    /// Sends an interim response first: 100, 102, 103.
    pub fn interim(mut self, status: u16, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.before.push(Step::Send(head.into_bytes()));
        self
    }

    /// Waits at `gate` before the rest: interim responses added later, and the head.
    pub fn held_by(mut self, gate: &Gate) -> Self {
        self.before.push(Step::Wait(gate.clone()));
        self
    }

    /// Waits at `gate` before each piece of the body and before its end: `n` chunks need `n + 1` calls of
    /// [`Gate::release_one`], other bodies one.
    pub fn body_held_by(mut self, gate: &Gate) -> Self {
        self.piece_gate = Some(gate.clone());
        self
    }

    /// Sends this many bytes at a time, with a pause after each: `Duration::ZERO` only lets other tasks run.
    pub fn trickle(mut self, bytes: usize, pause: Duration) -> Self {
        assert!(bytes > 0, "a trickle of no bytes never ends");
        self.trickle = Some((bytes, pause));
        self
    }

    /// Omits everything after this many bytes of the body (including chunk framing). Choose with `then_` what follows.
    pub fn cut_body_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }

    /// Sends stray bytes after the response.
    pub fn stray(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stray = bytes.as_ref().to_vec();
        self
    }

    /// Closes the connection afterwards without announcing it.
    ///
    /// Bytes that have arrived by then are read. If more arrive, the kernel answers with a RST, as for any server.
    pub fn then_close(self) -> Self {
        Self { then: Then::Close, ..self }
    }

    /// Sends `connection: close`, and closes.
    pub fn close(self) -> Self {
        self.header("connection", "close").then_close()
    }

    /// Resets the connection afterwards.
    pub fn then_reset(self) -> Self {
        Self { then: Then::Reset, ..self }
    }

    /// Sends a FIN afterwards, and continues to read until the peer closes.
    pub fn then_half_close(self) -> Self {
        Self { then: Then::HalfClose, ..self }
    }

    /// Sends nothing more, but reads until the peer closes.
    pub fn then_stall(self) -> Self {
        Self { then: Then::Stall, ..self }
    }

    /// Echoes every byte afterwards, and half-closes after the peer does.
    pub fn then_echo_bytes(self) -> Self {
        Self { then: Then::EchoBytes, ..self }
    }

    pub(super) fn then(&self) -> Then {
        self.then
    }

    /// The steps for a request with `method`.
    pub(super) fn steps(&self, method: &str) -> Vec<Step> {
        let mut steps = self.before.clone();
        if self.framing != ReplyFraming::Raw {
            steps.push(Step::Send(self.head()));
        }
        let bodiless = method == "HEAD" || matches!(self.status, 100..200 | 204 | 304);
        let mut left = self.cut.unwrap_or(usize::MAX);
        for piece in if bodiless && self.framing != ReplyFraming::Raw { Vec::new() } else { self.encoded() } {
            if left == 0 {
                break;
            }
            steps.extend(self.piece_gate.clone().map(Step::Wait));
            let kept = &piece[..piece.len().min(left)];
            left -= kept.len();
            steps.push(Step::Send(kept.to_vec()));
        }
        if !self.stray.is_empty() {
            steps.push(Step::Send(self.stray.clone()));
        }
        match self.trickle {
            Some((bytes, pause)) => steps.into_iter().map(|step| step.trickled(bytes, pause)).collect(),
            None => steps,
        }
    }

    fn head(&self) -> Vec<u8> {
        let length = match self.framing {
            ReplyFraming::Length if matches!(self.status, 100..200 | 204 | 304) => None,
            ReplyFraming::Length => Some(self.pieces.iter().map(Vec::len).sum::<usize>() as u64),
            ReplyFraming::Claimed(length) => Some(length),
            _ => None,
        };
        let mut head = format!("{}\r\n", self.start).into_bytes();
        head.extend_from_slice(&self.headers);
        if let Some(length) = length {
            head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
        } else if self.framing == ReplyFraming::Chunked {
            head.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn encoded(&self) -> Vec<Vec<u8>> {
        if self.framing != ReplyFraming::Chunked {
            return self.pieces.clone();
        }
        let mut encoded: Vec<_> = self
            .pieces
            .iter()
            .map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
            .collect();
        encoded.push([b"0\r\n", self.trailers.as_slice(), b"\r\n"].concat());
        encoded
    }
}

impl Step {
    fn trickled(self, bytes: usize, pause: Duration) -> Self {
        match self {
            Self::Send(data) => Self::Trickle(data, bytes, pause),
            other => other,
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(reply: &Reply, method: &str) -> String {
        let sent = |step| match step {
            Step::Send(data) => data,
            _ => Vec::new(),
        };
        String::from_utf8(reply.steps(method).into_iter().flat_map(sent).collect()).unwrap()
    }

    #[test]
    fn chunks_and_trailers_are_framed() {
        let reply = Reply::ok().chunked(["ab", "c"]).trailer("t", "1");
        let body = "2\r\nab\r\n1\r\nc\r\n0\r\nt: 1\r\n\r\n";
        assert_eq!(bytes(&reply, "GET"), format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}"));
    }

    #[test]
    fn head_and_204_have_no_body() {
        let reply = Reply::ok().body("abc");
        assert_eq!(bytes(&reply, "HEAD"), "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n");
        assert_eq!(bytes(&Reply::status(204), "GET"), "HTTP/1.1 204 No Content\r\n\r\n");
    }

    #[test]
    fn lies_are_sent_unchanged() {
        let reply = Reply::ok().body("abc").claiming_length(9).stray("!");
        assert_eq!(bytes(&reply, "GET"), "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc!");
        let reply = Reply::ok().header("content-length", "3").chunked(["abc"]).cut_body_after(4);
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(bytes(&reply, "GET"), format!("{head}3\r\na"));
    }
}
