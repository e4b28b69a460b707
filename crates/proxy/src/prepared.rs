//! Settings in the form that the data path uses: compiled once for each change, shared by all workers.

use std::time::Duration;

use fairway_model::{LogEscape, Segment, Settings, Template, Variable};

use crate::access_log::{Format, LogRules, StreamFormat};
use crate::http1::{HeadLimits, KnownField, KnownSet, PreparedField};
use crate::limit::{RESPONSE_FIELDS, RESPONSE_HEAD};
use crate::upstream::pool::Limits;

/// A format of the access log that the command line asked for.
pub(crate) type LogFormat = (Template, LogEscape);

/// What follows from the settings.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What is logged and how.
    pub(crate) log: LogRules,
    /// The log line of TCP and UDP services, if they have one.
    pub(crate) stream_log: Option<StreamFormat>,
    /// Whether the log tells fields of responses, so that their heads have to be remembered.
    pub(crate) log_tells_response: bool,
    /// Limits of request heads.
    pub(crate) request: HeadLimits,
    /// Limits of response heads.
    pub(crate) response: HeadLimits,
    /// Limits of the pool of upstream connections.
    pub(crate) pool: Limits,
    /// Fields added to every response.
    pub(crate) response_fields: Box<[PreparedField]>,
    /// Strict-Transport-Security, for routes that ask for it.
    pub(crate) strict_transport_security: Option<PreparedField>,
    /// The Server field of every response.
    pub(crate) server: Option<PreparedField>,
    /// Known fields of the endpoint's response that do not pass.
    pub(crate) hidden_known: KnownSet,
    /// Other fields of the endpoint's response that do not pass, lower case.
    pub(crate) hidden: Box<[Box<[u8]>]>,
    /// Known request fields that a template sets or removes.
    pub(crate) replaced_known: KnownSet,
    /// Fields set on every request, without those that are only removed.
    pub(crate) request_fields: Box<[(Box<[u8]>, Format)]>,
    /// Other request fields that a template sets or removes, each for all spellings that a backend could take for it.
    pub(crate) replaced: Box<[Box<[u8]>]>,
}

impl Prepared {
    /// Compiles settings. What is no valid field is left out: translation has already told the user.
    pub(crate) fn new(settings: &Settings, log_format: Option<&LogFormat>) -> Self {
        let buffers = &settings.head_buffers;
        let line = buffers.line as usize;
        let fields = |fields: &[(Box<str>, Box<str>)]| -> Box<[PreparedField]> {
            fields.iter().filter_map(|(name, value)| field(name, value)).collect()
        };
        let keepalive = &settings.upstream_keepalive;
        let millis = |duration: Duration| duration.as_millis() as u64;
        let (hidden_known, hidden) = split(settings.hidden_response_fields.iter().map(|name| &**name));
        let (replaced_known, mut replaced) =
            split(settings.request_fields.iter().map(|field| &*field.name).filter(|name| !is_structure(name)));
        if settings.underscores_in_headers || !settings.ignore_invalid_headers {
            // Other spellings of known fields may come.
            let set = settings.request_fields.iter().map(|field| &field.name).filter(|name| !is_structure(name));
            replaced = set.map(|name| name.as_bytes().into()).collect();
        }
        let log_template = log_format.map_or(&settings.access_log.format, |(template, _)| template);
        let of_response = |segment: &Segment| matches!(segment, Segment::Variable(Variable::ResponseField(_)));
        Self {
            log_tells_response: log_template.segments().iter().any(of_response),
            log: LogRules::new(&settings.access_log, log_format),
            stream_log: StreamFormat::of(&settings.streams.log, log_format),
            request: HeadLimits {
                start_line: line,
                field_line: line,
                total: buffers.total as usize,
                fields: usize::from(buffers.fields),
                ignore_invalid_headers: settings.ignore_invalid_headers,
                underscores_in_headers: settings.underscores_in_headers,
                guarded: guarded(settings),
            },
            response: HeadLimits {
                start_line: RESPONSE_HEAD,
                field_line: RESPONSE_HEAD,
                total: RESPONSE_HEAD,
                fields: RESPONSE_FIELDS,
                ..HeadLimits::default()
            },
            pool: Limits {
                connections: keepalive.connections as usize,
                requests: keepalive.requests,
                idle: millis(keepalive.idle),
                age: millis(keepalive.age),
            },
            response_fields: fields(&settings.response_fields),
            strict_transport_security: settings
                .strict_transport_security
                .as_ref()
                .and_then(|value| field("Strict-Transport-Security", value)),
            server: settings.server_tokens.then(|| field("Server", "fairway")).flatten(),
            hidden_known,
            hidden,
            replaced_known,
            request_fields: settings
                .request_fields
                .iter()
                .filter(|field| !field.value.text().is_empty() && !is_structure(&field.name))
                .map(|field| (field.name.as_bytes().into(), Format::plain(&field.value)))
                .collect(),
            replaced,
        }
    }
}

/// Names that a `Connection` option of a client can't remove besides the known ones: those that the settings give a meaning.
fn guarded(settings: &Settings) -> Vec<Box<[u8]>> {
    let forwarded = [&settings.forwarded.address_field, &settings.forwarded.host_field];
    let set = settings.request_fields.iter().map(|field| &field.name);
    forwarded.into_iter().chain(set).map(|name| name.as_bytes().into()).collect()
}

fn field(name: &str, value: &str) -> Option<PreparedField> {
    PreparedField::new(name.as_bytes(), value.as_bytes()).ok()
}

/// Fields that say where the message ends or what becomes of the connection are not for users to set.
fn is_structure(name: &str) -> bool {
    const STRUCTURE: KnownSet = KnownSet::HOP_BY_HOP.with(KnownField::ContentLength);
    STRUCTURE.contains(KnownField::classify(name.as_bytes()))
}

/// Field names as a set of those that have a meaning to the proxy, and the others.
fn split<'a>(names: impl Iterator<Item = &'a str>) -> (KnownSet, Box<[Box<[u8]>]>) {
    let mut known = KnownSet::EMPTY;
    let mut others = Vec::new();
    for name in names {
        let field = KnownField::classify(name.as_bytes());
        if field.name().eq_ignore_ascii_case(name) {
            known = known.with(field);
        } else {
            others.push(name.to_ascii_lowercase().into_bytes().into_boxed_slice());
        }
    }
    (known, others.into())
}
