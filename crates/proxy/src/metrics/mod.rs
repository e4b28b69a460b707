//! Counters under the names used by dashboards for ingress-nginx, and some new ones under `fairway_`.
//!
//! Each worker keeps its own counts; a read of `/metrics` collects a [`WorkerReport`] from each and adds them up, so no request waits for a
//! lock or shares a cache line, and nothing is allocated once a route has been seen. The sum is written a page at a time, so that a
//! response takes little memory however long it is and however slowly it is read.
//!
//! Labels come only from the configuration, except status and method, which are bounded: unusual methods count as `OTHER`, and a
//! route with more than 64 pairs of method and status counts the rest by status class. With `--metrics-per-undefined-host` the
//! most recently seen hosts are labels too, and the rest count as one.

mod channel;
mod histogram;
mod label;
mod native;
mod pages;
mod process;
mod protobuf;
mod recent;
mod report;
mod series;
mod text;
mod totals;
mod worker;

pub use self::channel::{ChannelFigures, ControllerEnd, Distribution, ProxyEnd};
pub use self::histogram::{Buckets, InvalidBuckets};
pub use self::label::{LiveRoutes, RequestLabels};
pub use self::native::NativeBuckets;
pub use self::pages::Pages;
pub use self::process::ProcessFigures;
pub(crate) use self::protobuf::is_preferred;
pub use self::report::{ConfigStatus, Exposition, ProxyFigures};
pub use self::text::MetricFormat;
pub use self::totals::Totals;
pub use self::worker::{ConnectionCounts, Phase, StreamCounts, UpstreamCounts, WorkerMetrics, WorkerReport};
pub(crate) use self::worker::{PASSED, StreamTally};

use std::collections::BTreeSet;

use crate::limit::UNDEFINED_HOSTS;

/// What is counted and how it is labelled; the same for all workers.
#[derive(Clone, Debug)]
pub struct MetricOptions {
    /// Labels that every series has.
    pub constant: ConstantLabels,
    /// Whether there is a label `host` (`--metrics-per-host`).
    pub per_host: bool,
    /// Whether requests for hosts that the configuration does not name are counted too, each under its own host
    /// (`--metrics-per-undefined-host`).
    pub undefined_hosts: bool,
    /// How many of these hosts a worker distinguishes.
    pub undefined_host_limit: usize,
    /// How much of each request metric is shown.
    pub detail: Detail,
    /// Whether `status` is a class, `2xx` (`--report-status-classes`).
    pub status_classes: bool,
    /// Request metrics that are left out, without prefix (`--exclude-socket-metrics`).
    pub excluded: BTreeSet<String>,
    /// Upper bounds of durations in seconds (`--time-buckets`).
    pub time_buckets: Buckets,
    /// Upper bounds of request and response sizes in bytes (`--length-buckets`).
    pub length_buckets: Buckets,
    /// Upper bounds of `bytes_sent` in bytes (`--size-buckets`).
    pub size_buckets: Buckets,
    /// Native buckets beside these (`--bucket-factor`, `--max-buckets`); a reader gets them in the protobuf format.
    pub native: Option<NativeBuckets>,
}

impl Default for MetricOptions {
    fn default() -> Self {
        Self {
            constant: ConstantLabels::default(),
            per_host: true,
            undefined_hosts: false,
            undefined_host_limit: UNDEFINED_HOSTS,
            detail: Detail::Standard,
            status_classes: false,
            excluded: BTreeSet::new(),
            time_buckets: Buckets::few_times(),
            length_buckets: Buckets::lengths(),
            size_buckets: Buckets::sizes(),
            native: None,
        }
    }
}

/// How much of ingress-nginx's request metrics is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Detail {
    /// What most dashboards and alerts use: the page for a thousand Ingresses stays below 4 MB.
    #[default]
    Standard,
    /// All histograms with all buckets, as in ingress-nginx: six times as much.
    Full,
}

/// How a metric of values is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// As a histogram.
    Buckets,
    /// As sum and count.
    Sum,
    /// Not at all.
    Hidden,
}

impl MetricOptions {
    /// Whether a request metric is shown; `name` has no prefix.
    fn shows(&self, name: &str) -> bool {
        !self.excluded.contains(name)
    }

    /// How a metric of values is shown.
    fn form(&self, name: &str) -> Form {
        match (self.detail, name) {
            _ if !self.shows(name) => Form::Hidden,
            (Detail::Full, _) | (Detail::Standard, "request_duration_seconds") => Form::Buckets,
            (Detail::Standard, "request_size" | "response_size") => Form::Sum,
            (Detail::Standard, _) => Form::Hidden,
        }
    }

    /// Leaves out metrics by name, with or without the prefix `nginx_ingress_controller_`.
    pub fn exclude<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let bare = |name: &'a str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
        self.excluded.extend(names.into_iter().map(bare));
    }
}

/// Labels that every series of ingress-nginx has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConstantLabels {
    /// Namespace of the controller.
    pub namespace: String,
    /// Its Ingress class.
    pub class: String,
    /// Its pod.
    pub pod: String,
}

/// The prefix of ingress-nginx's metric names.
const PREFIX: &str = "nginx_ingress_controller_";

#[cfg(test)]
mod tests;
