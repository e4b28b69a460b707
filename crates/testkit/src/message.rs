//! HTTP/1 messages as they were on the wire: with order, case and repetition of fields.

use std::fmt;

/// The fields of a head or a trailer section, in order, in their original case.
///
/// A value that is not UTF-8 is read as Latin-1, so that no byte is lost.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, ignoring case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of `name`, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// Whether there is a field with this name.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The names in order, as spelt.
    pub fn names(&self) -> Vec<&str> {
        self.iter().map(|(name, _)| name).collect()
    }

    /// Name and value of each field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a comma-separated field lists `token`.
    pub(crate) fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Parses lines that each end in CRLF.
    pub(crate) fn parse(lines: &[u8]) -> Result<Self, String> {
        let mut headers = Vec::new();
        for line in lines_of(lines)? {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                return Err(format!("field line without a colon: {}", show(line)));
            };
            headers.push((text(&line[..colon]), text(line[colon + 1..].trim_ascii())));
        }
        Ok(Self(headers))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, value)| format!("{name}: {value}"))).finish()
    }
}

/// A start line and the fields below it.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// Every byte of the head, the empty line included.
    pub raw: Vec<u8>,
    /// The start line without its CRLF.
    pub start: String,
    /// The fields.
    pub headers: Headers,
}

impl Head {
    /// Parses a head that ends in an empty line.
    pub(crate) fn parse(raw: Vec<u8>) -> Result<Self, String> {
        let end = find(&raw, b"\r\n").ok_or_else(|| format!("no CRLF in head: {}", show(&raw)))?;
        let start = text(&raw[..end]);
        let headers = Headers::parse(&raw[end + 2..raw.len() - 2])?;
        Ok(Self { raw, start, headers })
    }

    /// The status code of a response head.
    pub(crate) fn status(&self) -> Result<u16, String> {
        let mut words = self.start.splitn(3, ' ');
        match (words.next(), words.next().map(str::parse)) {
            (Some(version), Some(Ok(status))) if version.starts_with("HTTP/1.") => Ok(status),
            _ => Err(format!("not a status line: {:?}", self.start)),
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.raw))
    }
}

/// How the length of a body is declared, RFC 9112 section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `content-length`, in bytes.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
    /// Everything until the connection closes.
    Close,
}

impl Framing {
    /// The framing of a request.
    pub(crate) fn of_request(headers: &Headers) -> Result<Self, String> {
        Ok(Self::declared(headers)?.unwrap_or(Self::None))
    }

    /// The framing of a response with `status` to a request with `method`.
    pub(crate) fn of_response(status: u16, method: &str, headers: &Headers) -> Result<Self, String> {
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(Self::None);
        }
        Ok(Self::declared(headers)?.unwrap_or(Self::Close))
    }

    fn declared(headers: &Headers) -> Result<Option<Self>, String> {
        if headers.lists("transfer-encoding", "chunked") {
            return Ok(Some(Self::Chunked));
        }
        let lengths = headers.all("content-length");
        match lengths.as_slice() {
            [] => Ok(None),
            [length] => {
                length.parse().map(|length| Some(Self::Length(length))).map_err(|_| format!("content-length: {length}"))
            }
            _ => Err(format!("{} content-length fields", lengths.len())),
        }
    }
}

/// A body, as far as it arrived.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) data: Vec<u8>,
    pub(crate) chunks: Vec<usize>,
    pub(crate) trailers: Headers,
}

/// A request as an origin received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The number of the connection at the origin, from 1.
    pub connection: u64,
    /// The number of the request on that connection, from 1.
    pub number: u64,
    /// The method as spelt.
    pub method: String,
    /// The target as spelt; the exact bytes are in `head.raw`.
    pub target: String,
    /// For example `HTTP/1.1`.
    pub version: String,
    /// The head, with the exact bytes.
    pub head: Head,
    /// The framing of the body.
    pub framing: Framing,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The size of each chunk, if chunked.
    pub chunks: Vec<usize>,
    /// The fields after the last chunk.
    pub trailers: Headers,
    /// The server name in the client's TLS hello.
    pub sni: Option<String>,
}

impl Request {
    pub(crate) fn parse(head: Head, connection: u64, number: u64, sni: Option<String>) -> Result<Self, String> {
        let mut words = head.start.splitn(2, ' ');
        let method = words.next().unwrap_or_default().to_owned();
        let (target, version) = words
            .next()
            .and_then(|rest| rest.rsplit_once(' '))
            .ok_or_else(|| format!("not a request line: {:?}", head.start))?;
        Ok(Self {
            connection,
            number,
            method,
            target: target.to_owned(),
            version: version.to_owned(),
            framing: Framing::of_request(&head.headers)?,
            head,
            body: Vec::new(),
            chunks: Vec::new(),
            trailers: Headers::default(),
            sni,
        })
    }

    /// The fields of the head.
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)
    }
}

/// A response as a client received it.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The head, with the exact bytes.
    pub head: Head,
    /// The interim responses (100, 103) before it.
    pub interim: Vec<Head>,
    /// The framing of the body.
    pub framing: Framing,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The size of each chunk, if chunked.
    pub chunks: Vec<usize>,
    /// The fields after the last chunk.
    pub trailers: Headers,
}

impl Response {
    /// The fields of the head.
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)
    }

    /// The reason phrase.
    pub fn reason(&self) -> &str {
        self.head.start.splitn(3, ' ').nth(2).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        text(&self.body)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON ({error}): {self:?}"),
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("interim", &self.interim)
            .field("head", &self.head)
            .field("body", &show(&self.body))
            .field("trailers", &self.trailers)
            .finish_non_exhaustive()
    }
}

/// Decodes UTF-8, or else Latin-1.
pub(crate) fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// Formats bytes for a message to a person: escaped, and truncated if long.
pub(crate) fn show(bytes: &[u8]) -> String {
    const MOST: usize = 2_000;
    let rest = bytes.len().saturating_sub(MOST);
    let shown = bytes[..bytes.len() - rest].escape_ascii();
    if rest == 0 { format!("\"{shown}\"") } else { format!("\"{shown}\" and {rest} bytes more") }
}

/// The position at which `needle` starts.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn lines_of(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    while !bytes.is_empty() {
        let end = find(bytes, b"\r\n").ok_or_else(|| format!("line without CRLF: {}", show(bytes)))?;
        if bytes[..end].contains(&b'\n') {
            return Err(format!("bare LF: {}", show(&bytes[..end])));
        }
        lines.push(&bytes[..end]);
        bytes = &bytes[end + 2..];
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_keeps_order_case_and_bytes() {
        let head = Head::parse(b"GET / HTTP/1.1\r\nB: 1\r\na:2\r\nb: \xff\r\n\r\n".to_vec()).unwrap();
        assert_eq!(head.headers.names(), ["B", "a", "b"]);
        assert_eq!(head.headers.all("b"), ["1", "ÿ"]);
    }

    #[test]
    fn bare_lf_and_missing_colon_are_malformed() {
        assert!(Head::parse(b"GET / HTTP/1.1\r\na: 1\nb: 2\r\n\r\n".to_vec()).is_err());
        assert!(Head::parse(b"GET / HTTP/1.1\r\nab\r\n\r\n".to_vec()).is_err());
    }

    #[test]
    fn framing_of_a_response_depends_on_method_and_status() {
        let headers = Headers(vec![("Content-Length".to_owned(), "5".to_owned())]);
        assert_eq!(Framing::of_response(200, "GET", &headers), Ok(Framing::Length(5)));
        assert_eq!(Framing::of_response(200, "HEAD", &headers), Ok(Framing::None));
        assert_eq!(Framing::of_response(304, "GET", &headers), Ok(Framing::None));
        assert_eq!(Framing::of_response(200, "GET", &Headers::default()), Ok(Framing::Close));
    }
}
