//! Answers that the proxy makes itself: error pages, redirects, and the date.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Body, ConfiguredName, FieldLine};

use crate::http1::{FieldName, HeadWriter, InvalidField, KnownField, is_field_value, reason};
use crate::message::{ResponseContext, write_own_fields};

const CONNECTION: FieldName<'_> = FieldName::from_static("Connection");
const CONTENT_TYPE: FieldName<'_> = FieldName::from_static("Content-Type");
const DATE: FieldName<'_> = FieldName::from_static("Date");
const LOCATION: FieldName<'_> = FieldName::from_static("Location");
const ALLOW: FieldName<'_> = FieldName::from_static("Allow");

/// Methods named when a request is about the server as a whole (`OPTIONS *`) or uses one that is not served.
const METHODS: &[u8] = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What nginx tells a client that sent plain HTTP to a TLS port.
pub(crate) const PLAIN_ON_TLS: &str = "The plain HTTP request was sent to HTTPS port";

/// What becomes of the connection, as far as the client has to be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Persistence {
    /// It stays, which HTTP/1.1 takes for granted.
    Kept,
    /// It stays, which HTTP/1.0 has to be told.
    KeptExplicitly,
    /// It is closed after this response.
    Closed,
}

impl Persistence {
    /// Writes what has to be said.
    pub(crate) fn write(self, writer: &mut HeadWriter<'_>) {
        let option: &[u8] = match self {
            Self::Kept => return,
            Self::KeptExplicitly => b"keep-alive",
            Self::Closed => b"close",
        };
        put(writer, CONNECTION, option);
    }
}

/// An answer without a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// What it says.
    pub(crate) body: &'a Body,
    /// What the page says besides the status.
    pub(crate) message: &'a str,
    /// Fields that it has besides those that every answer has.
    pub(crate) fields: &'a [(ConfiguredName, Box<str>)],
    /// Where a redirect leads.
    pub(crate) location: Option<&'a [u8]>,
    /// Whether the request was a HEAD: the page is announced and not sent.
    pub(crate) head_only: bool,
    /// What becomes of the connection.
    pub(crate) persistence: Persistence,
}

impl Answer<'_> {
    /// Appends the whole response and returns the length of its body.
    ///
    /// # Errors
    /// If the location cannot stand in a field; nothing is appended then.
    pub(crate) fn write(
        &self,
        context: &ResponseContext<'_>,
        out: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<usize, InvalidField> {
        let mut page = Page::default();
        let bodiless = matches!(self.status, 204 | 304);
        let (content_type, body) = match self.body {
            Body::Page if !bodiless => {
                page.fill(self.status, reason(self.status), self.message);
                ("text/html", page.bytes())
            }
            Body::Text { content_type, text } if !bodiless => (&**content_type, text.as_bytes()),
            _ => ("", &b""[..]),
        };
        let mut writer = HeadWriter::new(out);
        writer.status_line(self.status)?;
        if !context.edits().replaces(KnownField::Date) {
            context.clock.write(&mut writer);
        }
        if self.location.is_some_and(|location| !is_field_value(location)) {
            return Err(InvalidField::Value);
        }
        let allow = matches!(self.status, 204 | 405).then_some(METHODS);
        let own: [(FieldName<'_>, KnownField, Option<&[u8]>); 3] = [
            (LOCATION, KnownField::Location, self.location),
            (ALLOW, KnownField::Other, allow),
            (CONTENT_TYPE, KnownField::ContentType, Some(content_type.as_bytes()).filter(|text| !text.is_empty())),
        ];
        let mut lines = [FieldLine { known: KnownField::Other, name: b"", value: b"" }; 3];
        let mut count = 0;
        for (name, known, value) in own {
            if let Some(value) = value {
                lines[count] = FieldLine { known, name: name.as_bytes(), value };
                count += 1;
            }
        }
        for (name, value) in self.fields {
            writer.field(name.get(), value.as_bytes())?;
        }
        write_own_fields(context, &lines[..count], &mut writer, value);
        if self.status != 204 {
            writer.framing(crate::http1::Framing::Length(body.len() as u64));
        }
        self.persistence.write(&mut writer);
        writer.finish();
        if self.head_only {
            return Ok(0);
        }
        out.extend_from_slice(body);
        Ok(body.len())
    }
}

/// A small page in fixed memory: there may be many of them while something is down.
struct Page {
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
        let mut rest = &mut self.text[..];
        let before = if message.is_empty() { "" } else { "<p>" };
        // What does not fit is cut: titles and messages are ours, and short.
        let _ = write!(
            rest,
            "<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n<center><h1>{status} {title}</h1>\
             </center>\r\n{before}{message}\r\n<hr><center>fairway</center>\r\n</body>\r\n</html>\r\n"
        );
        let left = rest.len();
        self.len = self.text.len() - left;
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

fn put(writer: &mut HeadWriter<'_>, name: FieldName<'_>, value: &[u8]) {
    let written = writer.field(name, value);
    debug_assert!(written.is_ok(), "{} is a constant without control bytes", KnownField::Other.name());
}

/// The current date as HTTP writes it (RFC 9110 5.6.7), made once a second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Cell<u64>,
    text: RefCell<[u8; 29]>,
}

impl Clock {
    /// Writes the Date field.
    pub(crate) fn write(&self, writer: &mut HeadWriter<'_>) {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second.replace(second) != second {
            *self.text.borrow_mut() = date(second);
        }
        put(writer, DATE, &*self.text.borrow());
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
    use fairway_model::{Settings, Snapshot};

    use super::*;
    use crate::live::Live;
    use crate::message::Evaluated;
    use crate::net::resolve::AddressPolicy;

    fn answer(status: u16) -> Answer<'static> {
        Answer {
            status,
            body: &Body::Page,
            message: "",
            fields: &[],
            location: None,
            head_only: false,
            persistence: Persistence::Kept,
        }
    }

    fn write(answer: &Answer<'_>, out: &mut Vec<u8>) -> Result<usize, InvalidField> {
        let snapshot = Snapshot::default().apply(fairway_model::Delta::upsert([Settings::default().into()]));
        let live = Live::first(snapshot, None, AddressPolicy::default());
        let (clock, values, mut sent_head) = (Clock::default(), Evaluated::default(), Vec::new());
        let context = ResponseContext {
            live: &live,
            clock: &clock,
            plan: None,
            session_cookie: b"",
            values: &values,
            sent_head: &mut sent_head,
        };
        answer.write(&context, out, &mut Vec::new())
    }

    fn written(answer: &Answer<'_>) -> String {
        let mut out = Vec::new();
        write(answer, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_are_those_of_the_specification() {
        assert_eq!(&date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&date(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(&date(4_102_444_799), b"Thu, 31 Dec 2099 23:59:59 GMT");
    }

    #[test]
    fn pages_say_how_long_they_are() {
        let text = written(&answer(404));
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\nDate: ") && !head.contains("Server"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())) && body.contains("<h1>404 Not Found</h1>"));
        let head_only = written(&Answer { head_only: true, ..answer(404) });
        assert_eq!(head_only.split_once("\r\n\r\n").unwrap().1, "");
        assert!(head_only.contains(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn a_204_has_no_length() {
        assert!(!written(&answer(204)).contains("Content-"));
    }

    #[test]
    fn a_location_cannot_end_its_field() {
        let mut out = Vec::new();
        let redirect = Answer { location: Some(b"/\r\nX: y"), ..answer(302) };
        assert!(write(&redirect, &mut out).is_err());
        assert!(out.is_empty());
    }
}
