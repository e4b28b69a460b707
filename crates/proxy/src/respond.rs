//! The proxy's own responses: error pages, redirects, and the Date field.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Body, ConfiguredName, FieldLine, KnownField};

use crate::http::reason;
use crate::timer::{Millis, NEVER, Timers};

/// nginx's message to a client that sent plain HTTP to a TLS port.
pub(crate) const PLAIN_ON_TLS: &str = "The plain HTTP request was sent to HTTPS port";

/// nginx's message to a client without a required certificate.
pub(crate) const NO_CERTIFICATE: &str = "No required SSL certificate was sent";

/// nginx's message to a client whose certificate can't be verified.
pub(crate) const BAD_CERTIFICATE: &str = "The SSL certificate error";

/// ingress-nginx's message to a client whose certificate has another subject.
pub(crate) const WRONG_SUBJECT: &str = "client certificate unauthorized";

/// One of the proxy's own responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: &'a Body,
    /// A message on the page, besides the status.
    pub(crate) message: &'a str,
    /// Fields besides those that every response has.
    pub(crate) fields: &'a [(ConfiguredName, Box<str>)],
    /// The target of a redirect.
    pub(crate) location: Option<&'a [u8]>,
    /// For a gRPC client: what is sent in place of status and body.
    pub(crate) grpc: Option<GrpcStatus>,
}

/// A gRPC status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct GrpcStatus {
    /// Its number.
    pub(crate) code: &'static str,
    /// A message, in ASCII without `%`.
    pub(crate) message: &'static str,
}

impl<'a> Answer<'a> {
    /// The content type and the body, for which `page` may be filled; both are empty if there is no body.
    pub(crate) fn body<'p>(&self, page: &'p mut Page) -> (&'p str, &'p [u8])
    where
        'a: 'p,
    {
        if self.grpc.is_some() {
            return ("application/grpc", b"");
        }
        let bodiless = matches!(self.status, 204 | 304);
        match self.body {
            Body::Page if !bodiless => {
                page.fill(self.status, reason(self.status), self.message);
                ("text/html", page.bytes())
            }
            Body::Text { content_type, text } if !bodiless => (content_type, text.as_bytes()),
            _ => ("", b""),
        }
    }

    /// Its fields, given the type of its body. The location must be a valid field value.
    pub(crate) fn lines<'p>(&self, content_type: &'p str) -> AnswerLines<'p>
    where
        'a: 'p,
    {
        let allow = matches!(self.status, 204 | 405).then_some(METHODS);
        let content_type = Some(content_type.as_bytes()).filter(|text| !text.is_empty());
        let line = |known, name, value: Option<&'p [u8]>| value.map(|value| FieldLine { known, name, value });
        let own = [
            line(KnownField::Location, b"Location".as_slice(), self.location),
            line(KnownField::Other, b"Allow", allow),
            line(KnownField::ContentType, b"Content-Type", content_type),
            line(KnownField::Other, b"grpc-status", self.grpc.map(|grpc| grpc.code.as_bytes())),
            line(KnownField::Other, b"grpc-message", self.grpc.map(|grpc| grpc.message.as_bytes())),
        ];
        let none = FieldLine { known: KnownField::Other, name: b"", value: b"" };
        let mut lines = AnswerLines { lines: [none; 5], count: 0 };
        for line in own.into_iter().flatten() {
            lines.lines[lines.count] = line;
            lines.count += 1;
        }
        lines
    }
}

/// Methods listed when a request concerns the server as a whole (`OPTIONS *`) or uses an unsupported method.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The fields that an answer has by itself.
#[derive(Debug)]
pub(crate) struct AnswerLines<'a> {
    lines: [FieldLine<'a>; 5],
    count: usize,
}

impl<'a> AnswerLines<'a> {
    /// The fields, for the model to edit.
    pub(crate) fn as_slice(&self) -> &[FieldLine<'a>] {
        &self.lines[..self.count]
    }
}

/// A small page in fixed memory: there may be many of them during an outage.
#[derive(Debug)]
pub(crate) struct Page {
    text: [u8; 512],
    len: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { text: [0; 512], len: 0 }
    }
}

impl Page {
    fn fill(&mut self, status: u16, title: &str, message: &str) {
        let digit = |unit: u16| b'0' + (status / unit % 10) as u8;
        let status = [digit(100), digit(10), digit(1), b' '];
        let before: &[u8] = if message.is_empty() { b"" } else { b"<p>" };
        self.len = 0;
        let head: [&[u8]; 3] = [b"<html>\r\n<head><title>", &status, title.as_bytes()];
        let heading: [&[u8]; 3] = [b"</title></head>\r\n<body>\r\n<center><h1>", &status, title.as_bytes()];
        let rest: [&[u8]; 4] = [
            b"</h1></center>\r\n",
            before,
            message.as_bytes(),
            b"\r\n<hr><center>fairway</center>\r\n</body>\r\n</html>\r\n",
        ];
        // Without the general formatter, which takes longer than the rest of a redirect.
        head.into_iter().chain(heading).chain(rest).for_each(|part| self.push(part));
    }

    /// Appends text. Longer text is cut off, but titles and messages are the proxy's own and short.
    fn push(&mut self, part: &[u8]) {
        let room = &mut self.text[self.len..];
        let fitting = part.len().min(room.len());
        room[..fitting].copy_from_slice(&part[..fitting]);
        self.len += fitting;
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// The current date in HTTP's format (RFC 9110 5.6.7), formatted once a second. The time is read once per tick of the worker's clock,
/// because reading it costs as much as writing the field.
#[derive(Debug)]
pub(crate) struct DateClock {
    timers: Rc<Timers>,
    /// The tick of the last reading.
    read: Cell<Millis>,
    second: Cell<u64>,
    text: RefCell<[u8; 29]>,
}

impl DateClock {
    /// The date of a worker.
    pub(crate) fn new(timers: Rc<Timers>) -> Self {
        Self { timers, read: Cell::new(NEVER), second: Cell::new(0), text: RefCell::new(date(0)) }
    }

    /// Passes the date to `write`.
    pub(crate) fn read<T>(&self, write: impl FnOnce(&[u8; 29]) -> T) -> T {
        let now = self.timers.now();
        if self.read.replace(now) != now {
            let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            if self.second.replace(second) != second {
                *self.text.borrow_mut() = date(second);
            }
        }
        write(&self.text.borrow())
    }
}

impl Default for DateClock {
    fn default() -> Self {
        Self::new(Timers::new())
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn date(second: u64) -> [u8; 29] {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let (days, rest) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut digits = |at: usize, number: u64| {
        text[at] = b'0' + (number / 10 % 10) as u8;
        text[at + 1] = b'0' + (number % 10) as u8;
    };
    digits(5, day);
    digits(12, year / 100);
    digits(14, year);
    digits(17, rest / 3600);
    digits(20, rest / 60 % 60);
    digits(23, rest % 60);
    text[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    text
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_specification() {
        assert_eq!(&date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&date(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&date(4_102_444_799), b"Thu, 31 Dec 2099 23:59:59 GMT");
    }
}
