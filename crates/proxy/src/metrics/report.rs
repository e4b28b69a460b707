//! What `/metrics` answers: the reports of all workers added up, and figures about the process and its configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{Action, Host, Snapshot};

use super::label::RequestLabels;
use super::process::{self, ProcessFigures};
use super::text::{Labels, Text};
use super::worker::{ConnectionCounts, LENGTHS, Pair, SIZES, Shape, Slot, StreamCounts, TIMES, UpstreamCounts};
use super::{MetricOptions, PREFIX, WorkerReport};

/// What is known about the configuration that runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigStatus {
    /// Changes that were taken over.
    pub successes: u64,
    /// Changes that were refused, at least in part.
    pub errors: u64,
    /// A number that is the same for the same configuration.
    pub hash: u64,
    /// Whether the last change was taken over whole.
    pub last_succeeded: bool,
    /// When a change was last taken over, in seconds since 1970.
    pub last_success: f64,
    /// Number of the snapshot.
    pub version: u64,
}

/// Figures of the proxy as a whole that no worker counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyFigures {
    /// Worker threads.
    pub workers: u64,
    /// Lines of the access log that were dropped.
    pub log_lines_dropped: u64,
    /// Names that are resolved now.
    pub resolver_names: u64,
    /// Queries for names so far.
    pub resolver_queries: u64,
    /// Of these, how many failed or led nowhere.
    pub resolver_failures: u64,
    /// Endpoints so far whose addresses were refused.
    pub refused_endpoints: u64,
}

/// Everything that one answer is made of.
#[derive(Debug)]
pub struct Exposition<'a> {
    /// What is shown and how.
    pub options: &'a MetricOptions,
    /// Reports of all workers.
    pub reports: &'a [WorkerReport],
    /// The configuration that runs.
    pub snapshot: &'a Snapshot,
    /// What is known about it.
    pub config: &'a ConfigStatus,
    /// Figures of the proxy.
    pub proxy: &'a ProxyFigures,
    /// Figures of the process.
    pub process: &'a ProcessFigures,
}

impl Exposition<'_> {
    /// The answer, in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        let constants = &self.options.constant;
        let labels = Labels::default()
            .with("controller_class", &constants.class)
            .with("controller_namespace", &constants.namespace)
            .with("controller_pod", &constants.pod);
        self.requests(&mut text, &labels);
        self.connections(&mut text, &labels);
        self.process(&mut text, &labels);
        self.config(&mut text, &labels);
        self.certificates(&mut text, &labels);
        self.streams(&mut text);
        self.own(&mut text);
        text.finish()
    }

    fn requests(&self, text: &mut Text, constants: &Labels) {
        let mut routes: BTreeMap<&Arc<RequestLabels>, BTreeMap<Pair, Slot>> = BTreeMap::new();
        let shape = Shape::new(self.options);
        for route in self.reports.iter().flat_map(|report| &report.routes) {
            let pairs = routes.entry(&route.labels).or_default();
            for slot in &route.slots {
                pairs.entry(slot.pair).or_insert_with(|| Slot::new(slot.pair, &shape)).add(slot);
            }
        }
        let series: Vec<_> = routes
            .iter()
            .flat_map(|(labels, pairs)| {
                let common = self.request_labels(constants, labels);
                pairs.values().map(move |slot| {
                    let status = slot.pair.status.to_string();
                    (common.with("method", slot.pair.method).with("status", &status), slot)
                })
            })
            .collect();
        if series.is_empty() {
            return;
        }
        if self.options.shows("requests") {
            text.metric(PREFIX, "requests", "counter", "The total number of client requests");
            series.iter().for_each(|(labels, slot)| text.value("", labels, "", slot.requests));
        }
        for (at, name) in TIMES.iter().chain(&LENGTHS).chain(&SIZES).enumerate() {
            if !self.options.shows(name) {
                continue;
            }
            text.metric(PREFIX, name, "histogram", help(name));
            let (buckets, start) = &shape.histograms[at];
            for (labels, slot) in &series {
                let counts = &slot.buckets[*start..start + buckets.count()];
                // A request without upstream part has no sample there, and a series without samples is no series.
                if counts.iter().any(|&count| count > 0) {
                    text.histogram(labels, buckets.bounds(), counts, slot.sums[at]);
                }
            }
        }
    }

    fn request_labels(&self, constants: &Labels, labels: &RequestLabels) -> Labels {
        let all = constants
            .with("canary", "")
            .with("ingress", &labels.ingress)
            .with("namespace", &labels.namespace)
            .with("path", &labels.path)
            .with("service", &labels.service);
        if self.options.per_host { all.with("host", &labels.host) } else { all }
    }

    fn connections(&self, text: &mut Text, labels: &Labels) {
        let mut sum = ConnectionCounts::default();
        self.reports.iter().for_each(|report| sum.add(&report.connections));
        let now = "current number of client connections with state {active, reading, writing, waiting}";
        text.metric(PREFIX, "nginx_process_connections", "gauge", now);
        let active = sum.reading + sum.writing + sum.waiting + sum.passing;
        let states = [("active", active), ("reading", sum.reading), ("waiting", sum.waiting), ("writing", sum.writing)];
        for (state, count) in states {
            text.value("", &labels.with("state", state), "", count);
        }
        let total = "total number of connections with state {accepted, handled}";
        text.metric(PREFIX, "nginx_process_connections_total", "counter", total);
        for (state, count) in [("accepted", sum.accepted), ("handled", sum.handled)] {
            text.value("", &labels.with("state", state), "", count);
        }
        text.metric(PREFIX, "nginx_process_requests_total", "counter", "total number of client requests");
        text.value("", labels, "", sum.requests);
    }

    fn process(&self, text: &mut Text, labels: &Labels) {
        let figures = self.process;
        for (name, kind, help, value) in [
            ("num_procs", "gauge", "number of processes", 1.0),
            ("cpu_seconds_total", "counter", "Cpu usage in seconds", figures.cpu_seconds),
            ("read_bytes_total", "counter", "number of bytes read", figures.read_bytes as f64),
            ("write_bytes_total", "counter", "number of bytes written", figures.write_bytes as f64),
            ("resident_memory_bytes", "gauge", "number of bytes of memory in use", figures.resident_bytes as f64),
            ("virtual_memory_bytes", "gauge", "number of bytes of memory in use", figures.virtual_bytes as f64),
            ("oldest_start_time_seconds", "gauge", "start time in seconds since 1970/01/01", figures.start_seconds),
        ] {
            text.metric(PREFIX, &format!("nginx_process_{name}"), kind, help);
            text.value("", labels, "", value);
        }
    }

    fn config(&self, text: &mut Text, labels: &Labels) {
        let config = self.config;
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
            // A double holds 53 bits exactly, and equal configurations have to print equal numbers.
            ("config_hash", "gauge", "Running configuration hash actually running", (config.hash >> 11) as f64),
            (
                "config_last_reload_successful",
                "gauge",
                "Whether the last configuration reload attempt was successful",
                f64::from(u8::from(config.last_succeeded)),
            ),
            (
                "config_last_reload_successful_timestamp_seconds",
                "gauge",
                "Timestamp of the last successful configuration reload.",
                config.last_success,
            ),
        ] {
            text.metric(PREFIX, name, kind, help);
            text.value("", labels, "", value);
        }
        text.metric(
            PREFIX,
            "build_info",
            "gauge",
            "A metric with a constant '1' labeled with information about the build.",
        );
        let build = labels
            .with("build", "fairway")
            .with("release", env!("CARGO_PKG_VERSION"))
            .with("repository", env!("CARGO_PKG_REPOSITORY"));
        text.value("", &build, "", 1);
    }

    fn certificates(&self, text: &mut Text, constants: &Labels) {
        let mut ends = BTreeMap::new();
        for host in self.snapshot.hosts() {
            let Some(certificate) = host.certificate().and_then(|name| self.snapshot.certificate(name)) else {
                continue;
            };
            let origin = &certificate.origin;
            // The label `identifier` is the serial number upstream; the fingerprint serves the same end.
            let key = (host_name(host), origin.namespace.clone(), origin.name.clone(), certificate.fingerprint.clone());
            ends.insert(key, certificate.not_after);
        }
        if ends.is_empty() {
            return;
        }
        let help = "Number of seconds since 1970 to the SSL Certificate expire.";
        text.metric(PREFIX, "ssl_expire_time_seconds", "gauge", help);
        for ((host, namespace, secret, fingerprint), not_after) in ends {
            let labels = constants
                .with("class", &self.options.constant.class)
                .with("host", &host)
                .with("identifier", &fingerprint)
                .with("namespace", &namespace)
                .with("secret_name", &secret);
            text.value("", &labels, "", not_after);
        }
    }

    fn streams(&self, text: &mut Text) {
        let mut sums: BTreeMap<_, (&str, StreamCounts)> = BTreeMap::new();
        for (name, protocol, counts) in self.reports.iter().flat_map(|report| &report.streams) {
            sums.entry(name).or_insert((*protocol, StreamCounts::default())).1.add(counts);
        }
        if sums.is_empty() {
            return;
        }
        type Figure = fn(&StreamCounts) -> u64;
        let figures: [(&str, &str, &str, Figure); 5] = [
            ("stream_sessions_total", "counter", "Connections of TCP, and sessions of UDP services.", |one| one.opened),
            ("stream_sessions_active", "gauge", "Those that there are now.", |one| one.active),
            ("stream_failures_total", "counter", "Those that reached no endpoint.", |one| one.failed),
            ("stream_received_bytes_total", "counter", "Bytes from their clients.", |one| one.received),
            ("stream_sent_bytes_total", "counter", "Bytes to their clients.", |one| one.sent),
        ];
        for (name, kind, help, figure) in figures {
            text.metric("fairway_", name, kind, help);
            for (listener, (protocol, counts)) in &sums {
                let labels = Labels::default().with("listener", listener.as_str()).with("protocol", protocol);
                text.value("", &labels, "", figure(counts));
            }
        }
    }

    fn own(&self, text: &mut Text) {
        let mut upstream = UpstreamCounts::default();
        self.reports.iter().for_each(|report| upstream.add(&report.upstream));
        let age = if self.config.last_success > 0.0 { process::now() - self.config.last_success } else { 0.0 };
        let hosts = self.snapshot.hosts();
        let routes: usize = hosts.iter().map(|host| host.routes().len()).sum();
        let forwarding = hosts.iter().flat_map(|host| host.routes());
        let orphans = forwarding.filter(|route| match &route.action {
            Action::Forward(forward) => self.snapshot.backend(&forward.backend).is_none(),
            Action::Redirect(_) | Action::Respond(_) => false,
        });
        for (name, kind, help, value) in [
            ("snapshot_version", "gauge", "Number of the configuration that runs.", self.config.version as f64),
            ("snapshot_age_seconds", "gauge", "Time since the configuration changed.", age.max(0.0)),
            ("hosts", "gauge", "Hosts of the configuration.", hosts.len() as f64),
            ("routes", "gauge", "Routes of the configuration.", routes as f64),
            ("routes_without_backend", "gauge", "Routes to a backend that is unknown.", orphans.count() as f64),
            ("workers", "gauge", "Worker threads.", self.proxy.workers as f64),
            ("threads", "gauge", "Threads of the process.", self.process.threads as f64),
            ("upstream_connections_total", "counter", "Connections made to endpoints.", upstream.connected as f64),
            ("upstream_connect_failures_total", "counter", "Connections not made.", upstream.failed as f64),
            ("upstream_reused_total", "counter", "Requests sent on a kept connection.", upstream.reused as f64),
            ("upstream_connections_idle", "gauge", "Connections kept to endpoints.", upstream.idle as f64),
            (
                "access_log_dropped_lines_total",
                "counter",
                "Lines dropped because the output was too slow.",
                self.proxy.log_lines_dropped as f64,
            ),
            ("resolver_names", "gauge", "Names of Services that are resolved.", self.proxy.resolver_names as f64),
            ("resolver_queries_total", "counter", "Queries for these.", self.proxy.resolver_queries as f64),
            ("resolver_failures_total", "counter", "Queries that failed.", self.proxy.resolver_failures as f64),
            (
                "endpoints_refused_total",
                "counter",
                "Endpoints at forbidden addresses.",
                self.proxy.refused_endpoints as f64,
            ),
        ] {
            text.metric("fairway_", name, kind, help);
            text.value("", &Labels::default(), "", value);
        }
    }
}

fn host_name(host: &Host) -> String {
    match host.pattern() {
        fairway_model::HostPattern::Any => "_".to_owned(),
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
