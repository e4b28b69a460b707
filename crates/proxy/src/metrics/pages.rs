//! What is served at `/metrics`, in either format.
//!
//! With a few thousand routes it is a hundred megabytes long, made from far fewer numbers: it is written one [`Pages::page`] at a time, as
//! fast as the client reads it, and is never in memory as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{Host, HostPattern, ListenerName};

use super::process::{self, ProcessFigures};
use super::protobuf::Sample;
use super::report::Configured;
use super::series::{Failed, FailureLabels, HISTOGRAMS};
use super::text::{Labels, Text};
use super::worker::StreamCounts;
use super::{ConfigStatus, Exposition, Form, MetricFormat, MetricOptions, PREFIX, ProxyFigures, Totals};

/// A page ends with the line that makes it longer than this, in bytes: large enough that one system call per page is cheap, small
/// enough to be written in a fraction of a millisecond.
// No limit: how the text is cut.
const PAGE: usize = 64 << 10;

/// The text, written as it is read.
#[derive(Debug)]
pub struct Pages {
    part: Part,
    text: Text,
    /// The constant labels, followed by those of the current series.
    labels: Labels,
    /// Length of the constant ones.
    constants: usize,
    /// The label `le` of each bucket of the current histogram, except the last.
    bounds: Vec<String>,
    /// Routes and slots, in the order in which they are written.
    order: Vec<(u32, u32)>,
    options: Arc<MetricOptions>,
    totals: Totals,
    streams: Vec<(ListenerName, &'static str, StreamCounts)>,
    failures: Vec<(FailureLabels, u64)>,
    findings: BTreeMap<(&'static str, &'static str), u64>,
    configured: Configured,
    config: ConfigStatus,
    proxy: ProxyFigures,
    process: ProcessFigures,
}

/// The next part to write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Requests(Line),
    Process,
    /// Index among the hosts that have a certificate.
    Certificates(usize),
    /// Index of the metric, and of the listener.
    Streams(usize, usize),
    /// Index of the failure.
    Failures(usize),
    Own,
    End,
}

/// A line of the request metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Line {
    /// 0 for `requests`, above that a histogram.
    metric: usize,
    /// Index in [`Pages::order`].
    series: usize,
    /// Line of the histogram.
    line: usize,
    /// Samples in the buckets before this line.
    total: u64,
}

impl Line {
    fn of_metric(metric: usize) -> Self {
        Self { metric, ..Self::default() }
    }

    fn of_next_series(self) -> Self {
        Self { series: self.series + 1, ..Self::of_metric(self.metric) }
    }
}

impl Pages {
    /// Prepares the text. The snapshot itself is released here: a slow reader would keep replaced parts of it alive.
    pub(super) fn new(exposition: Exposition, configured: Configured, format: MetricFormat) -> Self {
        let Exposition { options, totals, snapshot: _, config, proxy, process, findings } = exposition;
        let mut labels = Labels::new(format);
        labels.push("controller_class", &options.constant.class);
        labels.push("controller_namespace", &options.constant.namespace);
        labels.push("controller_pod", &options.constant.pod);
        Self {
            part: Part::Requests(Line::default()),
            text: Text::new(format),
            constants: labels.len(),
            labels,
            bounds: Vec::new(),
            order: totals.series.sorted(),
            findings,
            failures: totals.series.failures().into_iter().collect(),
            streams: totals
                .streams
                .iter()
                .map(|(name, (protocol, counts))| (name.clone(), *protocol, *counts))
                .collect(),
            options,
            totals,
            configured,
            config,
            proxy,
            process,
        }
    }

    /// The next piece, slightly over 64 KiB unless it is the last; `None` at the end.
    pub fn page(&mut self) -> Option<&[u8]> {
        self.text.clear();
        while self.text.len() < PAGE && self.part != Part::End {
            self.part = self.advance();
        }
        Some(self.text.page()).filter(|page| !page.is_empty())
    }

    /// Writes one line, or several that are certainly short.
    fn advance(&mut self) -> Part {
        match self.part {
            Part::Requests(line) => self.requests(line),
            Part::Process => {
                self.connections();
                self.process();
                self.config();
                Part::Certificates(0)
            }
            Part::Certificates(at) => self.certificate(at),
            Part::Streams(metric, at) => self.stream(metric, at),
            Part::Failures(at) => self.failure(at),
            Part::Own => {
                self.findings();
                self.own();
                Part::End
            }
            Part::End => Part::End,
        }
    }

    fn requests(&mut self, line: Line) -> Part {
        let next_metric = Part::Requests(Line::of_metric(line.metric + 1));
        let Some(at) = line.metric.checked_sub(1) else {
            return self.request_count(line, next_metric);
        };
        let Some(name) = HISTOGRAMS.get(at) else {
            return Part::Process;
        };
        let form = self.options.form(name);
        if self.order.is_empty() || form == Form::Hidden {
            return next_metric;
        }
        if (line.series, line.line) == (0, 0) {
            let kind = if form == Form::Buckets { "histogram" } else { "summary" };
            self.text.metric(PREFIX, name, kind, help(name));
            self.bounds = self.totals.series.bounds(at).iter().map(|bound| format!("le=\"{bound}\"")).collect();
        }
        let Some(&(route, slot)) = self.order.get(line.series) else {
            return next_metric;
        };
        if line.line == 0 {
            // A request that no endpoint served has no sample here, and a series without samples is omitted.
            if self.totals.series.buckets(slot, at).all(|count| count == 0) {
                return Part::Requests(line.of_next_series());
            }
            self.label(route, slot);
        }
        if self.text.format() == MetricFormat::Protobuf {
            self.sample(slot, at, form);
            return Part::Requests(line.of_next_series());
        }
        let past = line.line.checked_sub(self.bounds.len() + 1);
        let next = match past {
            None => {
                let count = self.totals.series.buckets(slot, at).nth(line.line).unwrap_or_default();
                let total = line.total + count;
                if form == Form::Buckets {
                    let bound = self.bounds.get(line.line).map_or("le=\"+Inf\"", String::as_str);
                    self.text.part("_bucket", &self.labels, bound, total);
                }
                Line { line: line.line + 1, total, ..line }
            }
            Some(0) => {
                self.text.part("_sum", &self.labels, "", self.totals.series.at(slot).sums[at]);
                Line { line: line.line + 1, ..line }
            }
            Some(_) => {
                self.text.part("_count", &self.labels, "", line.total);
                line.of_next_series()
            }
        };
        Part::Requests(next)
    }

    /// A histogram or summary of one series, in protobuf. The bucket without bound is implied there.
    fn sample(&mut self, slot: u32, at: usize, form: Form) {
        let series = &self.totals.series;
        let mut total = 0;
        let mut sums = series.buckets(slot, at).map(|count| {
            total += count;
            total
        });
        let classic: Vec<(f64, u64)> = series.bounds(at).iter().copied().zip(&mut sums).collect();
        let count = sums.last().unwrap_or_default();
        let sample =
            Sample { sum: series.at(slot).sums[at], count, classic: &classic, native: series.native(slot, at) };
        self.text.sample(&self.labels, &sample, form == Form::Buckets);
    }

    fn request_count(&mut self, line: Line, next_metric: Part) -> Part {
        let shown = self.options.shows("requests");
        let Some(&(route, slot)) = self.order.get(line.series).filter(|_| shown) else {
            return next_metric;
        };
        if line.series == 0 {
            self.text.metric(PREFIX, "requests", "counter", "The total number of client requests");
        }
        self.label(route, slot);
        self.text.value(&self.labels, self.totals.series.at(slot).requests);
        Part::Requests(line.of_next_series())
    }

    /// Sets the labels of a series.
    fn label(&mut self, route: u32, slot: u32) {
        let of_route = self.totals.series.labels(route);
        let pair = self.totals.series.at(slot).pair;
        let labels = &mut self.labels;
        labels.truncate(self.constants);
        labels.push("canary", &of_route.canary);
        labels.push("ingress", &of_route.ingress);
        labels.push("namespace", &of_route.namespace);
        labels.push("path", &of_route.path);
        labels.push("service", &of_route.service);
        if self.options.per_host {
            labels.push("host", &of_route.host);
        }
        labels.push("method", pair.method);
        labels.push("status", &pair.status.to_string());
    }

    fn connections(&mut self) {
        let sum = self.totals.connections;
        let text = &mut self.text;
        let now = "current number of client connections with state {active, reading, writing, waiting}";
        text.metric(PREFIX, "nginx_process_connections", "gauge", now);
        let active = sum.reading + sum.writing + sum.waiting + sum.passing;
        let mut states = |states: &[(&str, u64)], text: &mut Text| {
            for (state, count) in states {
                self.labels.truncate(self.constants);
                self.labels.push("state", state);
                text.value(&self.labels, *count);
            }
            self.labels.truncate(self.constants);
        };
        states(
            &[("active", active), ("reading", sum.reading), ("waiting", sum.waiting), ("writing", sum.writing)],
            text,
        );
        let total = "total number of connections with state {accepted, handled}";
        text.metric(PREFIX, "nginx_process_connections_total", "counter", total);
        states(&[("accepted", sum.accepted), ("handled", sum.handled)], text);
        text.metric(PREFIX, "nginx_process_requests_total", "counter", "total number of client requests");
        text.value(&self.labels, sum.requests);
    }

    fn process(&mut self) {
        let figures = &self.process;
        for (name, kind, help, value) in [
            ("num_procs", "gauge", "number of processes", 1.0),
            ("cpu_seconds_total", "counter", "Cpu usage in seconds", figures.cpu_seconds),
            ("read_bytes_total", "counter", "number of bytes read", figures.read_bytes as f64),
            ("write_bytes_total", "counter", "number of bytes written", figures.write_bytes as f64),
            ("resident_memory_bytes", "gauge", "number of bytes of memory in use", figures.resident_bytes as f64),
            ("virtual_memory_bytes", "gauge", "number of bytes of memory in use", figures.virtual_bytes as f64),
            ("oldest_start_time_seconds", "gauge", "start time in seconds since 1970/01/01", figures.start_seconds),
        ] {
            self.text.metric(PREFIX, &format!("nginx_process_{name}"), kind, help);
            self.text.value(&self.labels, value);
        }
    }

    fn config(&mut self) {
        let config = &self.config;
        for (name, kind, help, value) in [
            (
                "success",
                "counter",
                "Cumulative number of Ingress controller reload operations",
                config.successes as f64,
            ),
            (
                "errors",
                "counter",
                "Cumulative number of Ingress controller errors during reload operations",
                config.errors as f64,
            ),
            // A double holds 53 bits exactly, and equal configurations must print equal numbers.
            ("config_hash", "gauge", "Running configuration hash actually running", (config.hash >> 11) as f64),
            (
                "config_last_reload_successful",
                "gauge",
                "Whether the last configuration reload attempt was successful",
                f64::from(u8::from(config.whole)),
            ),
            (
                "config_last_reload_successful_timestamp_seconds",
                "gauge",
                "Timestamp of the last successful configuration reload.",
                config.last_success,
            ),
        ] {
            self.text.metric(PREFIX, name, kind, help);
            self.text.value(&self.labels, value);
        }
        self.text.metric(
            PREFIX,
            "build_info",
            "gauge",
            "A metric with a constant '1' labeled with information about the build.",
        );
        self.labels.push("build", "fairway");
        self.labels.push("release", env!("CARGO_PKG_VERSION"));
        self.labels.push("repository", env!("CARGO_PKG_REPOSITORY"));
        self.text.value(&self.labels, 1.0);
        self.labels.truncate(self.constants);
    }

    fn certificate(&mut self, at: usize) -> Part {
        let Some((host, certificate)) = self.configured.certificates.get(at) else {
            return Part::Streams(0, 0);
        };
        if at == 0 {
            let help = "Number of seconds since 1970 to the SSL Certificate expire.";
            self.text.metric(PREFIX, "ssl_expire_time_seconds", "gauge", help);
        }
        let labels = &mut self.labels;
        labels.truncate(self.constants);
        labels.push("class", &self.options.constant.class);
        labels.push("host", &host_name(host));
        // In ingress-nginx the label `identifier` is the serial number; the fingerprint serves the same purpose.
        labels.push("identifier", &certificate.fingerprint);
        labels.push("namespace", &certificate.origin.namespace);
        labels.push("secret_name", &certificate.origin.name);
        self.text.value(labels, certificate.not_after);
        Part::Certificates(at + 1)
    }

    fn stream(&mut self, metric: usize, at: usize) -> Part {
        type Figure = fn(&StreamCounts) -> u64;
        const FIGURES: [(&str, &str, &str, Figure); 5] = [
            (
                "stream_sessions_total",
                "counter",
                "Connections of TCP services and of TLS passthrough, and sessions of UDP services.",
                |one| one.opened,
            ),
            ("stream_sessions_active", "gauge", "Those of them that are open.", |one| one.active),
            ("stream_failures_total", "counter", "Connections and sessions without an endpoint.", |one| one.failed),
            ("stream_received_bytes_total", "counter", "Bytes from their clients.", |one| one.received),
            ("stream_sent_bytes_total", "counter", "Bytes to their clients.", |one| one.sent),
        ];
        let Some((name, kind, help, figure)) = FIGURES.get(metric).filter(|_| !self.streams.is_empty()) else {
            return Part::Failures(0);
        };
        let Some((listener, protocol, counts)) = self.streams.get(at) else {
            return Part::Streams(metric + 1, 0);
        };
        if at == 0 {
            self.text.metric("fairway_", name, kind, help);
        }
        let labels = &mut self.labels;
        labels.truncate(self.constants);
        labels.push("listener", listener.as_str());
        labels.push("protocol", protocol);
        self.text.value(labels, figure(counts));
        Part::Streams(metric, at + 1)
    }

    fn failure(&mut self, at: usize) -> Part {
        let Some((labels, count)) = self.failures.get(at) else {
            return Part::Own;
        };
        if at == 0 || self.failures[at - 1].0.of != labels.of {
            let (name, help) = match labels.of {
                Failed::Request => {
                    ("request_failures_total", "Requests that failed, by reason and by the side at fault.")
                }
                Failed::Try => {
                    ("upstream_failures_total", "Tries to get a response from an endpoint that failed, by reason.")
                }
            };
            self.text.metric("fairway_", name, "counter", help);
        }
        let text = &mut self.labels;
        text.truncate(self.constants);
        text.push("ingress", &labels.ingress);
        text.push("namespace", &labels.namespace);
        text.push("service", &labels.service);
        text.push("reason", labels.reason.as_str());
        text.push("side", labels.reason.side().as_str());
        self.text.value(text, *count);
        Part::Failures(at + 1)
    }

    fn findings(&mut self) {
        let help = "Findings about objects, by severity and reason; /debug/findings lists it by object.";
        if !self.findings.is_empty() {
            self.text.metric("fairway_", "findings", "gauge", help);
        }
        for (&(severity, reason), count) in &self.findings {
            let labels = &mut self.labels;
            labels.truncate(self.constants);
            labels.push("severity", severity);
            labels.push("reason", reason);
            self.text.value(labels, *count);
        }
        self.labels.truncate(self.constants);
    }

    fn own(&mut self) {
        let (config, upstream, configured) = (&self.config, &self.totals.upstream, &self.configured);
        let clients = &self.totals.connections;
        let age = if config.last_success > 0.0 { process::now() - config.last_success } else { 0.0 };
        for (name, kind, help, value) in [
            ("snapshot_version", "gauge", "Number of the configuration that runs.", config.version as f64),
            ("snapshot_age_seconds", "gauge", "Time since the configuration changed.", age.max(0.0)),
            ("hosts", "gauge", "Hosts of the configuration.", configured.hosts as f64),
            ("routes", "gauge", "Routes of the configuration.", configured.routes as f64),
            (
                "routes_without_backend",
                "gauge",
                "Routes whose Service does not exist or has no endpoint, so that they answer 503.",
                configured.orphans as f64,
            ),
            ("workers", "gauge", "Worker threads.", self.proxy.workers as f64),
            ("threads", "gauge", "Threads of the process.", self.process.threads as f64),
            (
                "tls_handshakes_failed_total",
                "counter",
                "TLS handshakes of clients that failed.",
                clients.handshakes_failed as f64,
            ),
            (
                "proxy_headers_failed_total",
                "counter",
                "Connections of clients closed for their PROXY header: missing, invalid, late, or from a peer that may not send one.",
                clients.proxy_headers_failed as f64,
            ),
            (
                "connections_refused_total",
                "counter",
                "Connections closed at once, because their client has as many as it may have.",
                clients.refused as f64,
            ),
            (
                "connections_shed_without_request_total",
                "counter",
                "Connections closed before they sent a complete request, because others needed room.",
                clients.shed_asking as f64,
            ),
            (
                "connections_shed_idle_total",
                "counter",
                "Idle connections closed, because others needed room.",
                clients.shed_idle as f64,
            ),
            ("upstream_connections_total", "counter", "Connections made to endpoints.", upstream.connected as f64),
            ("upstream_connect_failures_total", "counter", "Failed attempts to connect.", upstream.failed as f64),
            ("upstream_reused_total", "counter", "Requests sent on a kept connection.", upstream.reused as f64),
            (
                "upstream_ejections_total",
                "counter",
                "Times that an endpoint failed so often in a row that it is passed over for a while.",
                upstream.ejected as f64,
            ),
            (
                "upstream_retries_denied_total",
                "counter",
                "Tries after a failure that the retry budget denied.",
                upstream.retries_denied as f64,
            ),
            ("mirror_requests_total", "counter", "Copies of requests that were answered.", upstream.copied as f64),
            (
                "mirror_failures_total",
                "counter",
                "Copies of requests that could not be sent, or were not answered in time.",
                upstream.copies_failed as f64,
            ),
            (
                "mirror_dropped_total",
                "counter",
                "Requests that were not copied: too many copies were under way, the body was too long, or it had not arrived.",
                upstream.copies_dropped as f64,
            ),
            ("upstream_connections_idle", "gauge", "Connections kept to endpoints.", upstream.idle as f64),
            (
                "access_log_dropped_lines_total",
                "counter",
                "Lines dropped because the output was too slow.",
                self.proxy.log_lines_dropped as f64,
            ),
            ("spans_sent_total", "counter", "Spans that the collector has taken.", self.proxy.spans_sent as f64),
            (
                "spans_dropped_total",
                "counter",
                "Spans that had no room in the queue, or could not be sent.",
                self.proxy.spans_dropped as f64,
            ),
            ("resolver_names", "gauge", "Names of Services that are resolved.", self.proxy.resolver_names as f64),
            ("resolver_queries_total", "counter", "Queries for these names.", self.proxy.resolver_queries as f64),
            ("resolver_failures_total", "counter", "Queries that failed.", self.proxy.resolver_failures as f64),
            (
                "ocsp_stapled",
                "gauge",
                "Certificates with a stapled OCSP response (`enable-ocsp`).",
                self.proxy.ocsp_stapled as f64,
            ),
            ("ocsp_fetches_total", "counter", "Requests to OCSP responders.", self.proxy.ocsp_fetches as f64),
            (
                "ocsp_failures_total",
                "counter",
                "Requests to OCSP responders without a response that can be stapled.",
                self.proxy.ocsp_failures as f64,
            ),
            (
                "health_checked_endpoints",
                "gauge",
                "Endpoints whose health is checked (`fairway.dev/health-check`).",
                self.proxy.health_checked as f64,
            ),
            (
                "health_unhealthy_endpoints",
                "gauge",
                "Endpoints of these that are unhealthy.",
                self.proxy.health_unhealthy as f64,
            ),
            ("health_checks_total", "counter", "Health checks that have ended.", self.proxy.health_checks as f64),
            (
                "health_check_failures_total",
                "counter",
                "Health checks with a bad answer or none.",
                self.proxy.health_check_failures as f64,
            ),
            (
                "endpoints_refused_total",
                "counter",
                "Endpoints at forbidden addresses.",
                self.proxy.refused_endpoints as f64,
            ),
        ] {
            self.text.metric("fairway_", name, kind, help);
            self.text.value(&self.labels, value);
        }
        if let Some(channel) = &self.proxy.channel {
            channel.write(&mut self.text, &self.labels);
        }
    }
}

fn host_name(host: &Host) -> String {
    match host.pattern() {
        HostPattern::Any => "_".to_owned(),
        pattern => pattern.to_string(),
    }
}

fn help(name: &str) -> &'static str {
    match name {
        "request_duration_seconds" => "The request processing time in seconds",
        "response_duration_seconds" => "The time spent on receiving the response from the upstream server",
        "header_duration_seconds" => "The time spent on receiving first header from the upstream server",
        "connect_duration_seconds" => "The time spent on establishing a connection with the upstream server",
        "request_size" => "The request length (including request line, header, and request body)",
        "response_size" => "The response length (including request line, header, and request body)",
        _ => "DEPRECATED The number of bytes sent to a client",
    }
}
