//! Field names as values of the `http` crate. Names that most messages have are prepared: parsing a name takes longer than writing its
//! field, and a name that the crate does not know takes memory.

use ::http::HeaderName;
use ::http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG,
    LAST_MODIFIED, LOCATION, SERVER, SET_COOKIE, STRICT_TRANSPORT_SECURITY, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
    VARY,
};

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_SCHEME: HeaderName = HeaderName::from_static("x-scheme");

/// The name of a field of a message; `None` if it is invalid.
pub(super) fn name_of(name: &[u8]) -> Option<HeaderName> {
    ready_made(name).or_else(|| HeaderName::from_bytes(name).ok())
}

/// The same for a head; also `None` for a connection-specific field (RFC 9113 8.2.2).
pub(super) fn name_in_head(name: &[u8]) -> Option<HeaderName> {
    ready_made(name).or_else(|| HeaderName::from_bytes(name).ok().filter(|name| !is_about_connection(name)))
}

fn is_about_connection(name: &HeaderName) -> bool {
    name == CONNECTION
        || name == TRANSFER_ENCODING
        || name == UPGRADE
        || name == TE
        || name == "keep-alive"
        || name == "proxy-connection"
}

/// A prepared name, from its usual spelling or that of HTTP/2. None of these is connection-specific.
fn ready_made(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"Date" | b"date" => DATE,
        b"Content-Type" | b"content-type" => CONTENT_TYPE,
        b"Content-Length" | b"content-length" => CONTENT_LENGTH,
        b"Server" | b"server" => SERVER,
        b"Cache-Control" | b"cache-control" => CACHE_CONTROL,
        b"ETag" | b"etag" => ETAG,
        b"Last-Modified" | b"last-modified" => LAST_MODIFIED,
        b"Accept-Ranges" | b"accept-ranges" => ACCEPT_RANGES,
        b"Vary" | b"vary" => VARY,
        b"Set-Cookie" | b"set-cookie" => SET_COOKIE,
        b"Location" | b"location" => LOCATION,
        b"Strict-Transport-Security" | b"strict-transport-security" => STRICT_TRANSPORT_SECURITY,
        b"User-Agent" | b"user-agent" => USER_AGENT,
        b"Accept" | b"accept" => ACCEPT,
        b"Accept-Encoding" | b"accept-encoding" => ACCEPT_ENCODING,
        b"X-Request-ID" | b"x-request-id" => X_REQUEST_ID,
        b"X-Real-IP" | b"x-real-ip" => X_REAL_IP,
        b"X-Forwarded-For" | b"x-forwarded-for" => X_FORWARDED_FOR,
        b"X-Forwarded-Host" | b"x-forwarded-host" => X_FORWARDED_HOST,
        b"X-Forwarded-Port" | b"x-forwarded-port" => X_FORWARDED_PORT,
        b"X-Forwarded-Proto" | b"x-forwarded-proto" => X_FORWARDED_PROTO,
        b"X-Forwarded-Scheme" | b"x-forwarded-scheme" => X_FORWARDED_SCHEME,
        b"X-Scheme" | b"x-scheme" => X_SCHEME,
        b"grpc-status" => GRPC_STATUS,
        b"grpc-message" => GRPC_MESSAGE,
        b"grpc-encoding" => GRPC_ENCODING,
        b"grpc-accept-encoding" => GRPC_ACCEPT_ENCODING,
        b"grpc-timeout" => GRPC_TIMEOUT,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_name_is_the_one_that_the_library_reads() {
        for name in [
            "Date",
            "Content-Type",
            "Content-Length",
            "Server",
            "Cache-Control",
            "ETag",
            "Last-Modified",
            "Accept-Ranges",
            "Vary",
            "Set-Cookie",
            "Location",
            "Strict-Transport-Security",
            "User-Agent",
            "Accept",
            "Accept-Encoding",
            "X-Request-ID",
            "X-Real-IP",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-Forwarded-Port",
            "X-Forwarded-Proto",
            "X-Forwarded-Scheme",
            "X-Scheme",
            "grpc-status",
            "grpc-message",
            "grpc-encoding",
            "grpc-accept-encoding",
            "grpc-timeout",
        ] {
            for spelling in [name, &name.to_ascii_lowercase()] {
                assert_eq!(ready_made(spelling.as_bytes()), HeaderName::from_bytes(name.as_bytes()).ok(), "{spelling}");
            }
        }
    }

    #[test]
    fn other_names_are_read_and_none_about_the_connection_is_in_a_head() {
        for (name, in_head) in [
            ("DATE", true),
            ("X_Forwarded_For", true),
            ("X-Other", true),
            ("Connection", false),
            ("Keep-Alive", false),
            ("Proxy-Connection", false),
            ("TE", false),
            ("Transfer-Encoding", false),
            ("upgrade", false),
        ] {
            let read = HeaderName::from_bytes(name.as_bytes()).ok();
            assert_eq!(name_of(name.as_bytes()), read);
            assert_eq!(name_in_head(name.as_bytes()), read.filter(|_| in_head));
        }
        for none in [&b""[..], b"a b", b"a\xff"] {
            assert!(name_of(none).is_none() && name_in_head(none).is_none());
        }
    }
}
