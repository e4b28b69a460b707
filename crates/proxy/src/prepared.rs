//! Settings in the form that the data path uses: compiled once per change, shared by all workers.

use std::time::Duration;

use fairway_model::{FieldRules, LogEscape, Segment, Settings, Template, Variable};

use crate::access_log::{LogRules, StreamFormat};
use crate::http::{HeadLimits, NameRules};
use crate::limit::{HTTP2_LARGEST_LIST, HTTP2_LEAST_LIST, RESPONSE_FIELDS, RESPONSE_HEAD};
use crate::timer::Millis;

/// An access log format from the command line.
pub(crate) type LogFormat = (Template, LogEscape);

/// Limits of the pool of connections to endpoints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolLimits {
    /// Idle connections in all.
    pub(crate) connections: usize,
    /// Requests on one connection.
    pub(crate) requests: u64,
    /// Longest idle time.
    pub(crate) idle: Millis,
    /// Longest age.
    pub(crate) age: Millis,
}

/// The settings, compiled.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Which requests are logged, and how.
    pub(crate) log: LogRules,
    /// The log line of TCP and UDP services, if they are logged.
    pub(crate) stream_log: Option<StreamFormat>,
    /// Whether the log shows fields of responses, so that their heads have to be kept.
    pub(crate) log_tells_response: bool,
    /// Limits of request heads.
    pub(crate) request: HeadLimits,
    /// Limits of response heads.
    pub(crate) response: HeadLimits,
    /// Limits of the pool of upstream connections.
    pub(crate) pool: PoolLimits,
    /// Edits of fields.
    pub(crate) fields: FieldRules,
}

impl Prepared {
    /// Compiles settings. Invalid fields are left out: translation has already reported them.
    pub(crate) fn new(settings: &Settings, log_format: Option<&LogFormat>) -> Self {
        let buffers = &settings.head_buffers;
        let line = buffers.line as usize;
        let keepalive = &settings.upstream_keepalive;
        let millis = |duration: Duration| duration.as_millis() as u64;
        let log_template = log_format.map_or(&settings.access_log.format, |(template, _)| template);
        let of_response =
            |segment: &Segment| matches!(segment, Segment::Variable(Variable::ResponseField(_) | Variable::GrpcStatus));
        Self {
            log_tells_response: log_template.segments().iter().any(of_response),
            log: LogRules::new(&settings.access_log, log_format),
            stream_log: StreamFormat::of(&settings.streams.log, log_format),
            request: HeadLimits {
                start_line: line,
                field_line: line,
                total: buffers.total as usize,
                fields: usize::from(buffers.fields),
                names: match (settings.ignore_invalid_headers, settings.underscores_in_headers) {
                    (true, false) => NameRules::Plain,
                    (true, true) => NameRules::Underscores,
                    (false, _) => NameRules::Tokens,
                },
                guarded: guarded(settings),
            },
            response: response_limits(RESPONSE_HEAD),
            pool: PoolLimits {
                connections: keepalive.connections as usize,
                requests: keepalive.requests,
                idle: millis(keepalive.idle),
                age: millis(keepalive.age),
            },
            fields: FieldRules::new(settings),
        }
    }
}

/// Limits of response heads of at most `bytes` bytes.
pub(crate) fn response_limits(bytes: usize) -> HeadLimits {
    HeadLimits { start_line: bytes, field_line: bytes, total: bytes, fields: RESPONSE_FIELDS, ..HeadLimits::default() }
}

/// The largest head that `h2` accepts: large enough that excessive heads are answered with 431 here and logged, and far less than the
/// 24,576 names that its map can hold.
pub(crate) fn header_list_limit(limits: &HeadLimits) -> u32 {
    // RFC 9113 6.5.2 counts 32 bytes for each field.
    let allowed = 2 * (limits.total + 32 * limits.fields);
    allowed.clamp(HTTP2_LEAST_LIST, HTTP2_LARGEST_LIST) as u32
}

/// Names that a client's `Connection` options can't remove, besides the known ones: those that the settings use.
fn guarded(settings: &Settings) -> Vec<Box<[u8]>> {
    let forwarded = [&settings.forwarded.address_field, &settings.forwarded.host_field];
    let set = settings.request_fields.iter().map(|edit| edit.name().as_str());
    forwarded.into_iter().map(|name| &**name).chain(set).map(|name| name.as_bytes().into()).collect()
}
