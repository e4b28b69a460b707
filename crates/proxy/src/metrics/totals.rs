//! The counts of all workers, added up one report at a time, so that only one is in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fairway_model::ListenerName;

use super::MetricOptions;
use super::label::RequestLabels;
use super::series::Series;
use super::worker::{ConnectionCounts, StreamCounts, UpstreamCounts, WorkerReport};

/// The sum of the reports of workers.
#[derive(Debug)]
pub struct Totals {
    pub(super) series: Series,
    by_labels: HashMap<Arc<RequestLabels>, u32>,
    pub(super) connections: ConnectionCounts,
    pub(super) upstream: UpstreamCounts,
    /// By the names of listeners, with the protocol of each.
    pub(super) streams: BTreeMap<ListenerName, (&'static str, StreamCounts)>,
}

impl Totals {
    /// Starts at zero.
    pub fn new(options: &MetricOptions) -> Self {
        Self {
            series: Series::new(options),
            by_labels: HashMap::new(),
            connections: ConnectionCounts::default(),
            upstream: UpstreamCounts::default(),
            streams: BTreeMap::new(),
        }
    }

    /// Adds the counts of one worker, made with the same options.
    pub fn add(&mut self, report: WorkerReport) {
        self.connections.add(&report.connections);
        self.upstream.add(&report.upstream);
        for (name, protocol, counts) in report.streams {
            self.streams.entry(name).or_insert((protocol, StreamCounts::default())).1.add(&counts);
        }
        if self.series.is_empty() {
            // The first report is taken over as it is: then usually no memory has to grow.
            self.series = report.series;
            self.by_labels = self.series.routes().map(|(route, labels)| (labels.clone(), route)).collect();
            return;
        }
        let mut numbers = HashMap::new();
        for (theirs, labels) in report.series.routes() {
            let route = match self.by_labels.get(labels) {
                Some(&route) => route,
                None => {
                    let route = self.series.push(labels.clone());
                    self.by_labels.insert(labels.clone(), route);
                    route
                }
            };
            self.series.add(route, &report.series, theirs);
            numbers.insert(theirs, route);
        }
        self.series.add_failures(&report.series, |theirs| numbers.get(&theirs).copied());
    }
}
