//! The variables of nginx and ingress-nginx that exist but have no value here: a log format that uses one is not a mistake.

use std::collections::BTreeSet;

use fairway_model::Variable;

use crate::diagnostic::Severity;
use crate::verdict::nearest;

/// Variables that are empty in ingress-nginx too, unless it uses something that isn't built here.
const EMPTY_THERE: &[&str] = &["proxy_alternative_upstream_name"];

/// Variables of the nginx modules in ingress-nginx (nginx.org, "Alphabetical index of variables"), and ingress-nginx's own.
const EMPTY_HERE: &[&str] = &[
    "ancient_browser",
    "binary_remote_addr",
    "body_bytes_sent",
    "bytes_received",
    "bytes_sent",
    "connection",
    "connection_requests",
    "connection_time",
    "connections_active",
    "connections_reading",
    "connections_waiting",
    "connections_writing",
    "content_length",
    "content_type",
    "date_gmt",
    "date_local",
    "document_root",
    "fastcgi_path_info",
    "fastcgi_script_name",
    "full_x_forwarded_for",
    "full_x_forwarded_proto",
    "gzip_ratio",
    "hostname",
    "http2",
    "http3",
    "invalid_referer",
    "limit_conn_status",
    "limit_rate",
    "limit_req_status",
    "location_path",
    "modern_browser",
    "msie",
    "nginx_version",
    "otel_parent_id",
    "otel_parent_sampled",
    "otel_span_id",
    "otel_trace_id",
    "pid",
    "pipe",
    "protocol",
    "proxy_add_x_forwarded_for",
    "proxy_host",
    "proxy_port",
    "realip_remote_port",
    "realpath_root",
    "redirect_to",
    "request_body",
    "request_body_file",
    "request_completion",
    "request_filename",
    "secure_link",
    "secure_link_expires",
    "session_time",
    "slice_range",
    "tcpinfo_rcv_space",
    "tcpinfo_rtt",
    "tcpinfo_rttvar",
    "tcpinfo_snd_cwnd",
    "upstream_addr",
    "upstream_bytes_received",
    "upstream_bytes_sent",
    "upstream_cache_status",
    "upstream_connect_time",
    "upstream_first_byte_time",
    "upstream_header_time",
    "upstream_response_length",
    "upstream_response_time",
    "upstream_session_time",
    "upstream_status",
    "uid_got",
    "uid_reset",
    "uid_set",
];

/// Prefixes of names.
const PREFIXES: &[&str] =
    &["geoip2_", "geoip_", "proxy_protocol_tlv_", "sent_trailer_", "ssl_", "upstream_cookie_", "upstream_trailer_"];

/// The findings about variables without a value here, each variable once. `then` ends the sentence.
pub(crate) fn without_value<'a>(
    names: impl Iterator<Item = &'a str>,
    then: &str,
) -> impl Iterator<Item = (&'a str, Severity, String)> {
    let names: BTreeSet<&str> = names.collect();
    let told = names.into_iter().filter_map(move |name| {
        Some(match absent(name) {
            Absent::EmptyThere => return None,
            Absent::EmptyHere => (name, Severity::Info, format!("this variable of nginx has no value here{then}")),
            Absent::Unknown => {
                let hint = meant(name).map(|meant| format!("; did you mean ${meant}?")).unwrap_or_default();
                (name, Severity::Warning, format!("no variable of this name exists{then}{hint}"))
            }
        })
    });
    told.take(8)
}

/// The names that no variable of nginx or ingress-nginx has, each with the name that was probably meant.
pub fn misspelt<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = (&'a str, Option<&'static str>)> {
    names.filter(|name| absent(name) == Absent::Unknown).map(|name| (name, meant(name)))
}

fn meant(name: &str) -> Option<&'static str> {
    // TCP and UDP services have only few of the variables, so the nearest name can be `name` itself, which is no correction.
    nearest(name, Variable::NAMES.iter().copied()).filter(|meant| *meant != name)
}

/// The status of a variable without a value here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absent {
    /// It is empty in ingress-nginx as well.
    EmptyThere,
    /// It has a value in ingress-nginx.
    EmptyHere,
    /// It does not exist.
    Unknown,
}

/// Whether nginx or ingress-nginx has a variable of this name that has no value here.
pub(crate) fn has_no_value(name: &str) -> bool {
    absent(name) != Absent::Unknown
}

/// The status of a variable without a value here.
fn absent(name: &str) -> Absent {
    if EMPTY_THERE.contains(&name) {
        Absent::EmptyThere
    } else if EMPTY_HERE.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        Absent::EmptyHere
    } else {
        Absent::Unknown
    }
}
