//! Compression of responses: which ones, and in which coding (RFC 9110 8.4.1, 12.5.3).
//!
//! As in nginx, responses with status 200, 403 or 404 are compressed if their media type is listed and they are long enough. Unlike
//! nginx, a response with `Cache-Control: no-transform` never is (RFC 9110 7.7).

use serde::{Deserialize, Serialize};

use crate::{Fields, KnownField, SearchRegex};

/// The rules for all responses.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Compression {
    /// Compression with gzip, if it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gzip: Option<CodingRules>,
    /// Compression with Brotli, if it is on; preferred to gzip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brotli: Option<CodingRules>,
}

/// The rules for one coding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct CodingRules {
    /// Effort, from 1 to 9 for gzip and from 0 to 11 for Brotli.
    pub level: u8,
    /// Shortest body that is compressed, in bytes; one of unknown length always is.
    pub min_length: u64,
    /// Media types that are compressed besides `text/html`, without parameters; `*` for all.
    pub types: Vec<Box<str>>,
    /// Clients that get no compression, by their User-Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_for: Option<SearchRegex>,
}

/// A content coding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
}

impl Coding {
    /// Its name in fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// What compression does to a response.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Compressing {
    /// Nothing, whatever the client accepts.
    #[default]
    Never,
    /// Nothing for this client, but something for others, which caches must know.
    NotForClient,
    /// It is compressed.
    With(Coding),
}

impl Compressing {
    /// Whether the response depends on what the client accepts.
    pub fn varies(self) -> bool {
        self != Self::Never
    }

    /// The coding, if the response is compressed.
    pub fn coding(self) -> Option<Coding> {
        match self {
            Self::With(coding) => Some(coding),
            Self::Never | Self::NotForClient => None,
        }
    }
}

/// A response with a body, before compression.
#[derive(Clone, Copy, Debug)]
pub struct Uncompressed<F> {
    /// The status.
    pub status: u16,
    /// Its fields.
    pub fields: F,
    /// The length of its body, if known.
    pub length: Option<u64>,
}

impl Compression {
    /// Whether nothing is ever compressed.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.gzip.is_none() && self.brotli.is_none()
    }

    /// What compression does to the response to a request with these fields.
    pub fn of<'q, 'r>(&self, request: impl Fields<'q>, response: Uncompressed<impl Fields<'r>>) -> Compressing {
        let mut compressing = Compressing::Never;
        if !matches!(response.status, 200 | 403 | 404)
            || response.fields.present().contains(KnownField::ContentEncoding)
            || forbids_transformation(response.fields)
            || is_grpc(response.fields)
        {
            return compressing;
        }
        for (coding, rules) in [(Coding::Brotli, &self.brotli), (Coding::Gzip, &self.gzip)] {
            let Some(rules) = rules.as_ref().filter(|rules| rules.cover(response)) else { continue };
            if accepts(request, coding) && rules.serve(request) {
                return Compressing::With(coding);
            }
            compressing = Compressing::NotForClient;
        }
        compressing
    }
}

impl CodingRules {
    fn cover<'r>(&self, response: Uncompressed<impl Fields<'r>>) -> bool {
        response.length.is_none_or(|length| length >= self.min_length)
            && response.fields.get(KnownField::ContentType).is_some_and(|value| {
                let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
                let is = |listed: &str| listed == "*" || listed.as_bytes().eq_ignore_ascii_case(media_type);
                is("text/html") || self.types.iter().any(|listed| is(listed))
            })
    }

    fn serve<'q>(&self, request: impl Fields<'q>) -> bool {
        self.disabled_for
            .as_ref()
            .is_none_or(|pattern| request.get(KnownField::UserAgent).is_none_or(|agent| !pattern.is_match(agent)))
    }
}

/// Whether the client accepts a coding by name, with a weight above 0. As in nginx, `*` doesn't count.
fn accepts<'q>(request: impl Fields<'q>, coding: Coding) -> bool {
    let has_weight = |entry: &[u8]| {
        let mut parts = entry.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding.name().as_bytes()));
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")));
        // A weight of 0 has no other digit.
        named.then(|| weight.is_none_or(|weight| weight.iter().any(|byte| (b'1'..=b'9').contains(byte))))
    };
    let mut entries = request.all(KnownField::AcceptEncoding).flat_map(|value| value.split(|&byte| byte == b','));
    entries.find_map(has_weight).unwrap_or(false)
}

/// Whether the body consists of gRPC messages, which have their own compression.
fn is_grpc<'r>(response: impl Fields<'r>) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let begins = |value: &[u8]| value.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE));
    response.get(KnownField::ContentType).is_some_and(begins)
}

fn forbids_transformation<'r>(response: impl Fields<'r>) -> bool {
    let mut directives =
        response.all(KnownField::CacheControl).flat_map(|value: &'r [u8]| value.split(|&byte| byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldLine;

    fn rules(types: &[&str]) -> CodingRules {
        let types = types.iter().map(|&text| text.into()).collect();
        CodingRules { level: 1, min_length: 20, types, disabled_for: None }
    }

    fn both() -> Compression {
        Compression { gzip: Some(rules(&["text/css"])), brotli: Some(rules(&["text/css", "image/svg+xml"])) }
    }

    fn fields<'a>(text: &'a [(&'a str, &'a str)]) -> Vec<FieldLine<'a>> {
        text.iter().map(|(name, value)| FieldLine::new(name.as_bytes(), value.as_bytes())).collect()
    }

    fn of(
        compression: &Compression,
        accept: &str,
        status: u16,
        response: &[(&str, &str)],
        length: Option<u64>,
    ) -> Compressing {
        let request = [FieldLine::new(b"Accept-Encoding", accept.as_bytes())];
        let response = fields(response);
        compression.of(&request[..], Uncompressed { status, fields: &response[..], length })
    }

    const CSS: &[(&str, &str)] = &[("Content-Type", "text/css; charset=utf-8")];

    #[test]
    fn messages_of_grpc_are_left_alone() {
        let all = Compression { gzip: Some(rules(&["*"])), brotli: None };
        for (kind, expected) in [
            ("application/grpc", Compressing::Never),
            ("application/grpc-web+proto", Compressing::Never),
            ("application/grpx", Compressing::With(Coding::Gzip)),
        ] {
            assert_eq!(of(&all, "gzip", 200, &[("Content-Type", kind)], None), expected, "{kind}");
        }
    }

    #[test]
    fn the_client_chooses_and_brotli_is_preferred() {
        for (accept, expected) in [
            ("gzip", Compressing::With(Coding::Gzip)),
            ("GZIP;q=0.1, deflate", Compressing::With(Coding::Gzip)),
            ("gzip, deflate, br", Compressing::With(Coding::Brotli)),
            ("br;q=0, gzip;q=0.001", Compressing::With(Coding::Gzip)),
            ("br; q=0.000, gzip;q=0", Compressing::NotForClient),
            ("*", Compressing::NotForClient),
            ("gzipped, brr", Compressing::NotForClient),
            ("", Compressing::NotForClient),
        ] {
            assert_eq!(of(&both(), accept, 200, CSS, None), expected, "{accept}");
        }
    }

    #[test]
    fn only_listed_types_of_some_length_are_compressed() {
        let with = |media_type: &str, length| of(&both(), "gzip", 200, &[("content-type", media_type)], length);
        assert_eq!(with("TEXT/CSS", Some(20)), Compressing::With(Coding::Gzip));
        assert_eq!(with("text/html", None), Compressing::With(Coding::Gzip), "it is always listed");
        assert_eq!(with("text/css", Some(19)), Compressing::Never);
        assert_eq!(with("image/svg+xml", None), Compressing::NotForClient, "gzip doesn't list it");
        assert_eq!(with("image/png", None), Compressing::Never);
        let any = Compression { gzip: Some(rules(&["*"])), brotli: None };
        assert_eq!(of(&any, "gzip", 200, &[("content-type", "image/png")], None), Compressing::With(Coding::Gzip));
        assert_eq!(of(&any, "gzip", 200, &[], None), Compressing::Never, "no type is no listed one");
    }

    #[test]
    fn what_is_coded_already_or_must_not_change_stays() {
        for (name, value) in [("Content-Encoding", "br"), ("Cache-Control", "private, No-Transform")] {
            let response = [CSS[0], (name, value)];
            assert_eq!(of(&both(), "gzip, br", 200, &response, None), Compressing::Never, "{name}");
        }
        for (status, expected) in [(403, true), (404, true), (206, false), (201, false), (500, false)] {
            assert_eq!(of(&both(), "gzip", status, CSS, None).varies(), expected, "{status}");
        }
    }

    #[test]
    fn some_clients_get_none() {
        let disabled_for = Some("(?i)MSIE [4-6]\\.".parse().unwrap());
        let compression = Compression { gzip: Some(CodingRules { disabled_for, ..rules(&[]) }), brotli: None };
        let html = fields(&[("content-type", "text/html")]);
        for (agent, expected) in
            [("Mozilla (msie 6.0)", Compressing::NotForClient), ("curl", Compressing::With(Coding::Gzip))]
        {
            let request = [("accept-encoding", "gzip"), ("user-agent", agent)];
            let request = fields(&request);
            let response = Uncompressed { status: 200, fields: &html[..], length: None };
            assert_eq!(compression.of(&request[..], response), expected, "{agent}");
        }
    }
}
