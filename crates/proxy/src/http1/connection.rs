//! Reads persistence, the names listed in `Connection`, and protocol upgrades from the fields.

use fairway_model::field::is_same_field;
use fairway_model::{KnownField, KnownSet};

use crate::http::byte_class::{is_token, trim};
use crate::http::{ConnectionOptions, Fields, HeadError, Span, Upgrade, Version};
use crate::limit::CONNECTION_OPTIONS;

impl ConnectionOptions {
    /// Reads the fields and removes those that `Connection` lists. Options that name a field that the proxy depends on
    /// ([`KnownSet::NOT_REMOVABLE`] and `guarded`) are ignored.
    pub(super) fn take(
        fields: &mut Fields,
        version: Version,
        buf: &[u8],
        guarded: &[Box<[u8]>],
    ) -> Result<Self, HeadError> {
        let mut connection = Self { keep_alive: version == Version::Http11, ..Self::default() };
        if fields.present().contains(KnownField::Te) {
            connection.te_trailers = fields.all(KnownField::Te, buf).any(|te| te.eq_ignore_ascii_case(b"trailers"));
        }
        match fields.get(KnownField::Connection, buf) {
            None => return Ok(connection),
            Some(value)
                if !fields.repeated().contains(KnownField::Connection) && value.eq_ignore_ascii_case(b"keep-alive") =>
            {
                connection.keep_alive = true;
                return Ok(connection);
            }
            Some(_) => {}
        }
        let options = Options::read(fields, buf)?;
        let mut close = false;
        let mut upgrade = false;
        let mut names = false;
        for option in options.iter(buf) {
            if option.eq_ignore_ascii_case(b"close") {
                close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                connection.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                upgrade = true;
            } else if !option.is_empty() {
                names = true;
            }
        }
        connection.keep_alive &= !close;
        if upgrade && version == Version::Http11 {
            connection.upgrade = Upgrade::from_fields(fields, buf);
        }
        if names {
            fields.remove(|field| {
                !KnownSet::NOT_REMOVABLE.contains(field.known())
                    && options.iter(buf).any(|option| field.is(option, buf))
                    && !guarded.iter().any(|name| is_same_field(name, field.name(buf)))
            });
        }
        Ok(connection)
    }
}

impl Upgrade {
    fn from_fields(fields: &Fields, buf: &[u8]) -> Self {
        match fields.get(KnownField::Upgrade, buf) {
            None => Self::None,
            Some(_) if fields.repeated().contains(KnownField::Upgrade) => Self::Refused,
            Some(value) if value.split(|&byte| byte == b',').all(|protocol| Self::may_pass(trim(protocol))) => {
                Self::Protocol
            }
            Some(_) => Self::Refused,
        }
    }

    /// Matches `name` or `name/version`, where the name is none of [`Self::NEVER`].
    fn may_pass(protocol: &[u8]) -> bool {
        let slash = memchr::memchr(b'/', protocol);
        let (name, version) = slash.map_or((protocol, None), |at| (&protocol[..at], Some(&protocol[at + 1..])));
        is_token(name)
            && version.is_none_or(is_token)
            && !Self::NEVER.iter().any(|never| never.eq_ignore_ascii_case(name))
    }
}

/// Positions of the elements of all `Connection` fields, without a borrow of the fields, which are about to change.
struct Options {
    spans: [Span; CONNECTION_OPTIONS],
    len: usize,
}

impl Options {
    fn read(fields: &Fields, buf: &[u8]) -> Result<Self, HeadError> {
        let mut options = Self { spans: [Span::default(); CONNECTION_OPTIONS], len: 0 };
        for field in fields.iter().filter(|field| field.known() == KnownField::Connection) {
            let mut start = field.value_span().range().start;
            for element in field.value(buf).split(|&byte| byte == b',') {
                let slot = options.spans.get_mut(options.len).ok_or(HeadError::TooManyConnectionOptions)?;
                *slot = Span::new(start, start + element.len());
                options.len += 1;
                start += element.len() + 1;
            }
        }
        Ok(options)
    }

    fn iter<'b>(&self, buf: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        self.spans[..self.len].iter().map(|span| trim(span.of(buf)))
    }
}
