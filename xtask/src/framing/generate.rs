//! Generates almost well-formed requests from a seed.

/// Bytes with a meaning in a head or in the chunked coding.
const BYTES: &[u8] = b"\r\n\t :,;=\"\0\x0b\x80\xff0123456789abcfxGPX-_/?#%";

/// Fields that determine, or seem to determine, the length of a body.
const FIELDS: &[&str] = &[
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 05",
    "Content-Length: 0x5",
    "Content-Length:\t5",
    "Content-Length : 5",
    " Content-Length: 5",
    "Content_Length: 5",
    "Content-Length: 18446744073709551621",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding:",
    "Transfer_Encoding: chunked",
    "TE: trailers",
    "Trailer: Content-Length",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Connection: close, Content-Length",
    "Connection: Transfer-Encoding",
    "Upgrade: h2c",
    "X-A: b\r\n c",
    "X-A\0: b",
    "Cookie: a=b; c=d",
];

const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];

/// Bodies in the chunked coding, and bodies that only resemble it.
const CHUNKED: &[&str] = &[
    "5\r\nhello\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5;a=\"\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello0\r\n\r\n",
    "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-T: u\r\n\r\n",
    "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
    "5\r\nhello\r\n0\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
];

/// A request, into which the host of each backend is inserted.
pub(crate) enum Case {
    /// HTTP/1.
    Text(Vec<u8>),
    /// HTTP/2: fields besides the pseudo-headers, and the pieces of a body.
    Frames { method: &'static str, path: String, fields: Vec<(String, String)>, body: Vec<Vec<u8>> },
}

/// The placeholder for the backend's name.
const HOST: &[u8] = b"@";

impl Case {
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Frames { .. })
    }

    /// The bytes to send.
    pub(crate) fn bytes(&self, backend: &str) -> Vec<u8> {
        match self {
            Self::Text(text) => {
                text.split(|byte| HOST.contains(byte)).collect::<Vec<_>>().join(format!("{backend}.example").as_bytes())
            }
            Self::Frames { method, path, fields, body } => {
                let mut block = Vec::new();
                let host = format!("{backend}.example");
                for (name, value) in [(":method", *method), (":scheme", "http"), (":authority", &host), (":path", path)]
                {
                    literal(name, value, &mut block);
                }
                for (name, value) in fields {
                    literal(name, value, &mut block);
                }
                let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                frame(4, 0, 0, &[], &mut bytes);
                frame(1, if body.is_empty() { 5 } else { 4 }, 1, &block, &mut bytes);
                for (at, piece) in body.iter().enumerate() {
                    frame(0, u8::from(at + 1 == body.len()), 1, piece, &mut bytes);
                }
                bytes
            }
        }
    }
}

/// A field that is not indexed (RFC 7541 6.2.2). Both texts are short.
fn literal(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        out.push(text.len().min(126) as u8);
        out.extend_from_slice(&text.as_bytes()[..text.len().min(126)]);
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Generates cases.
pub(crate) struct Generator {
    state: u64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number below `bound` (xorshift64).
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub(crate) fn case(&mut self, number: usize) -> Case {
        if self.below(4) == 0 { self.frames(number) } else { self.text(number) }
    }

    fn text(&mut self, number: usize) -> Case {
        let method = self.one_of(METHODS);
        let version = self.one_of(&["1.1", "1.1", "1.1", "1.1", "1.0"]);
        let mut lines = vec![format!("{method} /r{number} HTTP/{version}"), "Host: @".to_owned()];
        let body = match self.below(4) {
            0 => String::new(),
            1 => {
                lines.push("Content-Length: 5".to_owned());
                self.one_of(&["hello", "hello", "hell", "hello!"]).to_owned()
            }
            _ => {
                lines.push("Transfer-Encoding: chunked".to_owned());
                self.one_of(CHUNKED).to_owned()
            }
        };
        for _ in 0..self.one_of(&[0, 0, 0, 1, 2]) {
            let at = 1 + self.below(lines.len());
            let field = self.one_of(FIELDS);
            lines.insert(at, field.to_owned());
        }
        let end = self.one_of(&["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
        let mut text = format!("{}{end}{end}{body}", lines.join(end)).into_bytes();
        for _ in 0..self.one_of(&[0, 0, 1, 1, 2]) {
            // Not within the number, which identifies the request.
            let at = 12 + self.below(text.len() - 12);
            let byte = self.one_of(BYTES);
            match self.below(3) {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => {
                    text.remove(at);
                }
            }
        }
        if self.below(5) == 0 {
            text.extend_from_slice(format!("GET /r{number}/next HTTP/1.1\r\nHost: @\r\n\r\n").as_bytes());
        }
        Case::Text(text)
    }

    fn frames(&mut self, number: usize) -> Case {
        let method = self.one_of(METHODS);
        let mut fields = Vec::new();
        let body = match self.below(4) {
            0 => Vec::new(),
            1 => vec![b"hello".to_vec()],
            2 => vec![b"he".to_vec(), Vec::new(), b"llo".to_vec()],
            _ => vec![self.one_of(CHUNKED).as_bytes().to_vec()],
        };
        if self.below(2) == 0 {
            let length = body.iter().map(Vec::len).sum::<usize>() + self.one_of(&[0, 0, 0, 1]);
            fields.push(("content-length".to_owned(), length.to_string()));
        }
        for _ in 0..self.one_of(&[0, 0, 1, 2]) {
            let (name, value) = self.one_of(FIELDS).split_once(':').unwrap_or_default();
            fields.push((name.to_ascii_lowercase(), value.trim_start_matches(' ').to_owned()));
        }
        let mut path = format!("/r{number}");
        if self.below(4) == 0 {
            path.push(self.one_of(BYTES) as char);
        }
        Case::Frames { method, path, fields, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_requests_and_each_names_its_backend() {
        let (mut one, mut other) = (Generator::new(7), Generator::new(7));
        let mut named = 0;
        for number in 0..1000 {
            let bytes = one.case(number).bytes("a");
            assert_eq!(bytes, other.case(number).bytes("a"));
            named += usize::from(bytes.windows(9).any(|window| window == b"a.example"));
        }
        assert!(named > 900, "{named}");
    }
}
