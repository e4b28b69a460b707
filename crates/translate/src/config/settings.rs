//! The settings of the whole proxy and its listeners, from the global ConfigMap, the ConfigMaps that it names, and the flags.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use fairway_model::{
    AccessLog, CodingRules, Collector, Compression, FieldEdit, ForwardedHeaders, GeoSettings, HeadBuffers,
    Http2Settings, Listener, LogEscape, Origin, Sampler, Scheme, Settings, StreamLog, StreamRetry, StreamSettings,
    StreamTemplate, Syslog, TableName, Template, TlsSettings, ToldPort, Tracing, UpstreamKeepalive,
};
use regex::bytes::RegexBuilder;

use crate::config::variable::without_value;
use crate::configmap::GlobalConfig;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::gateway::PortInUse;
use crate::limit;
use crate::objects::{Kind, ObjectKey};
use crate::options::Options;
use crate::resource::certificate::certificate_name;
use crate::value::{HeaderName, OtelSampler, UriPattern, Value, WorkerProcesses};

/// Fields that the proxy sets itself: setting them by a ConfigMap would break the framing of messages (RFC 9112).
const FRAMING: [&str; 6] = ["connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"];

/// The ConfigMaps behind the settings.
pub(crate) struct SettingsSources<'a> {
    pub(crate) config: &'a GlobalConfig,
    /// The global ConfigMap.
    pub(crate) origin: &'a Origin,
    /// Data of the ConfigMap of `add-headers`, if it exists.
    pub(crate) add_headers: Option<(&'a ObjectKey, &'a BTreeMap<String, String>)>,
    /// Data of the ConfigMap of `proxy-set-headers`, if it exists.
    pub(crate) proxy_set_headers: Option<(&'a ObjectKey, &'a BTreeMap<String, String>)>,
}

/// The settings; all faults of the named ConfigMaps are reported.
pub(crate) fn settings(
    sources: &SettingsSources<'_>,
    options: &Options,
    diagnostics: &mut Vec<Diagnostic>,
) -> Settings {
    let config = sources.config;
    for (key, wanted, found) in [
        ("add-headers", &config.add_headers, sources.add_headers),
        ("proxy-set-headers", &config.proxy_set_headers, sources.proxy_set_headers),
    ] {
        if let (Some(wanted), None) = (wanted, found) {
            let field = format!("data[\"{key}\"]");
            let message = "there is no such ConfigMap; no header is set";
            diagnostics.push(Diagnostic::new(
                Severity::Error,
                Reason::InvalidConfiguration,
                sources.origin,
                field,
                &wanted.to_string(),
                message,
            ));
        }
    }
    let response_fields = fields(sources.add_headers, diagnostics);
    let request_fields = fields(sources.proxy_set_headers, diagnostics);
    let default_certificate = options
        .default_ssl_certificate
        .as_ref()
        .map(|(namespace, name)| certificate_name(&ObjectKey::new(Kind::Secret, namespace, name)));
    Settings {
        default_certificate,
        forwarded: ForwardedHeaders {
            trust: config.use_forwarded_headers,
            real_ip: config.enable_real_ip,
            append: config.compute_full_forwarded_for,
            address_field: config.forwarded_for_header.as_str().to_ascii_lowercase().into(),
            host_field: config.forwarded_host_header.as_str().to_ascii_lowercase().into(),
            trusted: trusted(config),
        },
        strict_transport_security: config.strict_transport_security().map(Into::into),
        response_fields,
        hidden_response_fields: config
            .hide_headers
            .names
            .iter()
            .map(|name| name.as_str().to_ascii_lowercase().into())
            .collect(),
        request_fields,
        server_tokens: config.server_tokens,
        allow_backend_server_header: config.allow_backend_server_header,
        generate_request_id: config.generate_request_id,
        original_uri_header: config.proxy_add_original_uri_header,
        ignore_invalid_headers: config.ignore_invalid_headers,
        underscores_in_headers: config.enable_underscores_in_headers,
        keep_alive: Some(config.keep_alive.duration()).filter(|idle| !idle.is_zero()),
        http2: Http2Settings {
            offered: config.use_http2,
            // nginx refuses to start with 0.
            streams: NonZeroU32::new(config.http2_max_concurrent_streams).unwrap_or(Http2Settings::default().streams),
        },
        keep_alive_requests: config.keep_alive_requests.into(),
        keep_alive_time: Settings::default().keep_alive_time,
        upstream_keepalive: UpstreamKeepalive {
            connections: config.upstream_keepalive_connections,
            requests: config.upstream_keepalive_requests.into(),
            idle: config.upstream_keepalive_timeout.duration(),
            age: config.upstream_keepalive_time.0,
        },
        retry_budget: NonZeroU32::new(config.retry_budget),
        header_timeout: nonzero(config.client_header_timeout.duration(), 60),
        proxy_header_timeout: nonzero(config.proxy_protocol_header_timeout.0, 5),
        body_timeout: nonzero(config.client_body_timeout.duration(), 60),
        body_rate: config.client_body_min_rate,
        worker_connections: NonZeroU32::new(config.max_worker_connections),
        connections_per_client: NonZeroU32::new(config.max_connections_per_client),
        wrong_passwords: NonZeroU32::new(config.auth_failures_per_minute),
        compression: compression(config),
        head_buffers: head_buffers(config),
        tls: TlsSettings {
            versions: config.ssl_protocols.0,
            ciphers: config.ssl_ciphers.ciphers.clone(),
            groups: config.ssl_ecdh_curve.groups.clone(),
            remembered: config.ssl_session_cache.then_some(config.ssl_session_timeout.0),
            tickets: config.ssl_session_tickets,
            ticket_key: config.ssl_session_ticket_key.0.clone(),
            reject_unknown_names: config.ssl_reject_handshake,
            staple: config.enable_ocsp,
        },
        access_log: access_log(config, sources.origin, diagnostics),
        tracing: tracing(config),
        geo: config.use_geoip2.then(|| geo(config, options)),
        streams: streams(config, sources.origin, diagnostics),
        shutdown_timeout: config.worker_shutdown_timeout.0,
        replicas: NonZeroU32::MIN,
        workers: match config.worker_processes {
            WorkerProcesses::Auto => None,
            // More threads would not help.
            WorkerProcesses::Count(count) => Some(count.get().min(1024) as u16),
        },
    }
}

/// As in ingress-nginx, the default, all of IPv4, means all peers, including those over IPv6.
fn trusted(config: &GlobalConfig) -> fairway_model::NetworkSet {
    if config.proxy_real_ip_cidr == GlobalConfig::default().proxy_real_ip_cidr {
        ForwardedHeaders::default().trusted
    } else {
        config.proxy_real_ip_cidr.clone()
    }
}

/// A time limit of zero would end every request, as in nginx, which no user wants.
fn nonzero(time: Duration, default: u64) -> Duration {
    if time.is_zero() { Duration::from_secs(default) } else { time }
}

fn compression(config: &GlobalConfig) -> Compression {
    Compression {
        gzip: config.use_gzip.then(|| CodingRules {
            level: config.gzip_level.0,
            min_length: config.gzip_min_length.0,
            types: config.gzip_types.0.clone(),
            disabled_for: config.gzip_disable.as_ref().map(|agents| agents.0.clone()),
        }),
        brotli: config.enable_brotli.then(|| CodingRules {
            level: config.brotli_level.0,
            min_length: config.brotli_min_length.0,
            types: config.brotli_types.0.clone(),
            disabled_for: None,
        }),
    }
}

fn head_buffers(config: &GlobalConfig) -> HeadBuffers {
    let buffers = &config.large_client_header_buffers;
    let line = buffers.size.0.clamp(1, limit::HEAD);
    let total = line.saturating_mul(buffers.number.into()).clamp(line, limit::HEAD);
    HeadBuffers { line: line as u32, total: total as u32, fields: config.max_request_headers.0 }
}

fn access_log(config: &GlobalConfig, origin: &Origin, diagnostics: &mut Vec<Diagnostic>) -> AccessLog {
    let mut skip = Vec::new();
    for pattern in &config.skip_access_log_urls.0 {
        let entry = match pattern {
            UriPattern::Exact(uri) => uri.clone(),
            UriPattern::Regex { pattern, ignore_case: false } => format!("~{pattern}"),
            UriPattern::Regex { pattern, ignore_case: true } => format!("~(?i){pattern}"),
        };
        let valid = entry
            .strip_prefix('~')
            .is_none_or(|pattern| RegexBuilder::new(pattern).unicode(false).size_limit(256 << 10).build().is_ok());
        if valid {
            skip.push(entry.into());
        } else {
            diagnostics.push(Diagnostic::new(
                Severity::Error,
                Reason::InvalidConfiguration,
                origin,
                "data[\"skip-access-log-urls\"]",
                &entry,
                "expected a regex that runs in linear time and is not too large; it is ignored",
            ));
        }
    }
    let format = Template::parse(config.log_format_upstream.as_str());
    diagnose_variables(format.unknown(), "log-format-upstream", "; it is logged as -", origin, diagnostics);
    AccessLog {
        enabled: !config.disable_access_log && !config.disable_http_access_log,
        format,
        escape: escape(config),
        skip,
        syslog: syslog(config, origin, diagnostics),
    }
}

/// The syslog server, if the log doesn't go to standard output.
fn syslog(config: &GlobalConfig, origin: &Origin, diagnostics: &mut Vec<Diagnostic>) -> Option<Syslog> {
    if !config.enable_syslog {
        return None;
    }
    let Some(host) = &config.syslog_host else {
        let (severity, reason) = (Severity::Error, Reason::InvalidConfiguration);
        let message = "expected syslog-host as well; the access log stays on standard output";
        diagnostics.push(Diagnostic::new(severity, reason, origin, "data[\"enable-syslog\"]", "true", message));
        return None;
    };
    Some(Syslog { host: host.as_str().into(), port: config.syslog_port.0 })
}

/// The geographic databases.
fn geo(config: &GlobalConfig, options: &Options) -> GeoSettings {
    GeoSettings {
        directory: "/etc/ingress-controller/geoip".into(),
        editions: options.geo_editions.iter().map(|edition| edition.as_str().into()).collect(),
        reload: Some(Duration::from_secs(u64::from(config.geoip2_autoreload) * 60)).filter(|time| !time.is_zero()),
    }
}

/// How requests are traced.
fn tracing(config: &GlobalConfig) -> Tracing {
    const HTTP: u16 = 4318;
    /// Debian's path of the system's certificate authorities.
    const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
    let port = config.otlp_collector_port.0;
    Tracing {
        collector: config.otlp_collector_host.as_ref().map(|host| {
            let (scheme, host) = host.as_str().split_once("://").unwrap_or(("", host.as_str()));
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let authorities = matches!(scheme, "https" | "grpcs").then(|| AUTHORITIES.into());
            Collector { host: bare.into(), port, http: port.get() == HTTP, authorities }
        }),
        service: config.otel_service_name.as_str().into(),
        sampler: match config.otel_sampler {
            OtelSampler::Always => Sampler::Always,
            OtelSampler::Never => Sampler::Never,
            OtelSampler::Ratio => config.otel_sampler_ratio.0,
        },
        follows_parent: config.otel_sampler_parent_based,
        batch: config.otel_max_export_batch_size,
        queue: config.otel_max_queuesize,
        delay: nonzero(Duration::from_millis(config.otel_schedule_delay_millis.into()), 5),
    }
}

/// Reports each variable without a value, and whether the variable exists at all.
fn diagnose_variables<'a>(
    names: impl Iterator<Item = &'a str>,
    key: &str,
    then: &str,
    origin: &Origin,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let field = format!("data[\"{}\"]", crate::diagnostic::bounded(key));
    let found = without_value(names, then).map(|(name, severity, message)| {
        Diagnostic::new(severity, Reason::InvalidConfiguration, origin, field.clone(), name, message)
    });
    diagnostics.extend(found);
}

fn escape(config: &GlobalConfig) -> LogEscape {
    match (config.log_format_escape_json, config.log_format_escape_none) {
        (true, _) => LogEscape::Json,
        (false, true) => LogEscape::None,
        (false, false) => LogEscape::Default,
    }
}

fn streams(config: &GlobalConfig, origin: &Origin, diagnostics: &mut Vec<Diagnostic>) -> StreamSettings {
    let format = StreamTemplate::parse(config.log_format_stream.as_str());
    let then = " for TCP and UDP services; it is logged as -";
    diagnose_variables(format.unknown(), "log-format-stream", then, origin, diagnostics);
    StreamSettings {
        idle: nonzero(config.proxy_stream_timeout.0, 600),
        connect_timeout: nonzero(config.proxy_connect_timeout.duration(), 5),
        retry: config.proxy_stream_next_upstream.then(|| StreamRetry {
            tries: Some(config.proxy_stream_next_upstream_tries).filter(|tries| *tries > 0),
            within: Some(config.proxy_stream_next_upstream_timeout.0).filter(|within| !within.is_zero()),
        }),
        responses: config.proxy_stream_responses,
        log: StreamLog {
            enabled: !config.disable_access_log && !config.disable_stream_access_log,
            format,
            // ingress-nginx applies the escaping keys to both logs.
            escape: escape(config),
        },
    }
}

/// Field edits from the data of a ConfigMap: each entry sets a field, or removes it if the value is empty.
fn fields(
    source: Option<(&ObjectKey, &BTreeMap<String, String>)>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<FieldEdit> {
    let Some((key, data)) = source else { return Vec::new() };
    let mut fields = Vec::new();
    for (name, value) in data {
        match field(name, value) {
            Ok(edit) => {
                let unknown = edit.value().into_iter().flat_map(Template::unknown);
                diagnose_variables(unknown, edit.name().as_str(), "; it is empty", &key.origin(), diagnostics);
                fields.push(edit);
            }
            Err(why) => {
                let field = format!("data[\"{}\"]", crate::diagnostic::bounded(name));
                let (severity, reason) = (Severity::Error, Reason::InvalidConfiguration);
                let message = format!("{why}; it is ignored");
                diagnostics.push(Diagnostic::new(severity, reason, &key.origin(), field, value, message));
            }
        }
    }
    fields
}

/// One edit of a field: sets it, or removes it if the value is empty.
///
/// # Errors
/// What was expected.
pub(crate) fn field(name: &str, value: &str) -> Result<FieldEdit, &'static str> {
    const NAME: &str = "expected the name of a header";
    // A block in YAML ends in a line feed that isn't part of the value.
    let trimmed = value.trim();
    let visible = trimmed.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    let name = HeaderName::parse(name).ok_or(NAME)?;
    if FRAMING.contains(&name.as_str().to_ascii_lowercase().as_str()) {
        return Err("this header belongs to the proxy");
    }
    if !visible || trimmed.len() > limit::FIELD_VALUE {
        return Err("expected one line of at most 8192 bytes");
    }
    FieldEdit::set(name.as_str(), trimmed).map_err(|_| NAME)
}

/// The listeners: the addresses of the flags, with the ConfigMap's `bind-address` in place of their IP.
pub(crate) fn listeners(config: &GlobalConfig, options: &Options, table: &TableName) -> Vec<Listener> {
    let plain = addresses(&options.http, config).into_iter().map(|address| (Scheme::Http, address));
    let tls = addresses(&options.https, config).into_iter().map(|address| (Scheme::Https, address));
    let mut seen = BTreeMap::new();
    plain
        .chain(tls)
        .map(|(scheme, address)| {
            let count = seen.entry(scheme).or_insert(0u32);
            *count += 1;
            let name = if *count == 1 { scheme.to_string() } else { format!("{scheme}-{count}") };
            Listener {
                name: name.into(),
                address,
                scheme,
                table: table.clone(),
                accept_proxy: config.use_proxy_protocol,
                told_port: told_port(scheme, address, ToldPort::Usual, options),
            }
        })
        .collect()
}

/// The port that backends are told, in short. On a developer's machine clients ask the local one.
fn told_port(scheme: Scheme, address: SocketAddr, told: ToldPort, options: &Options) -> ToldPort {
    let told = if options.development.is_some() { ToldPort::Local } else { told };
    let is_usual = told.number(scheme, address.port()) == ToldPort::Usual.number(scheme, address.port());
    if is_usual && address.port() != 0 { ToldPort::Usual } else { told }
}

/// The listeners of a port that only Gateways use.
pub(crate) fn listeners_of(
    port: &PortInUse,
    scheme: Scheme,
    config: &GlobalConfig,
    options: &Options,
) -> impl Iterator<Item = Listener> {
    (1..).zip(addresses(&port.addresses, config)).map(move |(count, address)| Listener {
        name: port.listener(count),
        address,
        scheme,
        table: port.table(),
        accept_proxy: config.use_proxy_protocol,
        told_port: told_port(scheme, address, ToldPort::Number(port.number()), options),
    })
}

/// These addresses, as changed by the ConfigMap.
pub(crate) fn addresses(given: &[SocketAddr], config: &GlobalConfig) -> Vec<SocketAddr> {
    let allowed = |address: &IpAddr| !(config.disable_ipv6 && address.is_ipv6());
    let mut bound: Vec<SocketAddr> = given.to_vec();
    if !config.bind_address.addresses.is_empty() {
        let ports: BTreeSet<u16> = given.iter().map(SocketAddr::port).collect();
        let all = config.bind_address.addresses.iter();
        bound = all.flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect();
    }
    // Without IPv6, "all addresses of both families" becomes "all of IPv4".
    for address in &mut bound {
        if config.disable_ipv6 && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            address.set_ip(IpAddr::from([0, 0, 0, 0]));
        }
    }
    bound.retain(|address| allowed(&address.ip()));
    // An address that a listener on all addresses already covers can't be bound again.
    let all: Vec<SocketAddr> = bound.iter().copied().filter(|address| address.ip().is_unspecified()).collect();
    let is_among = |address: &SocketAddr| {
        let covers = |all: &SocketAddr| all.is_ipv4() == address.is_ipv4() && all.port() == address.port();
        !address.ip().is_unspecified() && all.iter().any(covers)
    };
    let mut seen = BTreeSet::new();
    bound.into_iter().filter(|address| !is_among(address) && seen.insert(*address)).collect()
}

#[cfg(test)]
mod tests;
