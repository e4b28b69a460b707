//! Numbers by label set, in a few large pieces of memory.
//!
//! Copying for a report is one pass over each piece: it doesn't hold up the worker, and its memory is freed as a whole. Counts
//! take four bytes; the few that outgrow them keep their carry separately, so nothing wraps.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::label::RequestLabels;
use super::native::NativeHistogram;
use super::{Buckets, Form, MetricOptions, NativeBuckets};
use crate::http::Method;
use crate::reason::Reason;
use crate::record::RequestRecord;

/// The histograms of a series, in the order in which they are stored.
pub(super) const HISTOGRAMS: [&str; 7] = [
    "request_duration_seconds",
    "response_duration_seconds",
    "header_duration_seconds",
    "connect_duration_seconds",
    "request_size",
    "response_size",
    "bytes_sent",
];

/// Marks the end of a chain of slots.
const NONE: u32 = u32::MAX;

/// All series, by route and by method and status.
#[derive(Clone, Debug)]
pub(super) struct Series {
    shape: Shape,
    routes: Vec<RouteSeries>,
    slots: Vec<SeriesSlot>,
    /// Counts by bucket modulo 2^32, with all buckets of a slot next to each other.
    counts: Vec<u32>,
    /// The multiples of 2^32 in large counts, by index in `counts`.
    carries: HashMap<usize, u64>,
    /// Native histograms, all of a slot next to each other; empty if there are none.
    native: Vec<NativeHistogram>,
    /// Failures. Requests that succeed never look here.
    failures: hashbrown::HashMap<FailureKey, u64, foldhash::fast::RandomState>,
}

/// A kind of failure of a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
struct FailureKey {
    /// [`NONE`] for requests that match no route.
    route: u32,
    of: Failed,
    reason: Reason,
}

/// What failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub(super) enum Failed {
    /// A request as a whole.
    Request,
    /// One try to get a response from an endpoint; others may have followed.
    Try,
}

/// Failures of a Service in the routes of an Ingress, as displayed.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct FailureLabels {
    pub(super) of: Failed,
    pub(super) namespace: Arc<str>,
    pub(super) ingress: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) reason: Reason,
}

/// The series of a route: a chain through [`Series::slots`].
#[derive(Clone, Debug)]
struct RouteSeries {
    labels: Arc<RequestLabels>,
    first: u32,
}

/// The numbers of one pair of method and status, apart from the buckets.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesSlot {
    pub(super) pair: Pair,
    /// The next slot of the route.
    next: u32,
    pub(super) requests: u64,
    pub(super) sums: [f64; HISTOGRAMS.len()],
}

/// Method and status as labels.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct Pair {
    pub(super) method: &'static str,
    pub(super) status: StatusLabel,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) enum StatusLabel {
    Code(u16),
    Class(u16),
}

/// The histograms, and the number of buckets that a slot has for all of them.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    histograms: [Histogram; HISTOGRAMS.len()],
    len: usize,
    native: Option<NativeBuckets>,
}

/// One histogram of every slot.
#[derive(Clone, Debug)]
struct Histogram {
    buckets: Buckets,
    /// Its position among the buckets of a slot.
    start: usize,
    /// Whether values are counted: not if the histogram is hidden.
    counted: bool,
    /// Its native buckets, if it has any.
    native: Option<NativeBuckets>,
}

impl Series {
    /// Creates an empty set of series.
    pub(super) fn new(options: &MetricOptions) -> Self {
        Self::of(Shape::new(options))
    }

    fn of(shape: Shape) -> Self {
        Self {
            shape,
            routes: Vec::new(),
            slots: Vec::new(),
            counts: Vec::new(),
            carries: HashMap::new(),
            native: Vec::new(),
            failures: Default::default(),
        }
    }

    /// Whether it has no counts.
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.failures.is_empty()
    }

    /// Number of routes. They are numbered from 0.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.routes.len()).expect("routes are bounded")
    }

    /// The labels of all routes, by number.
    pub(super) fn routes(&self) -> impl Iterator<Item = (u32, &Arc<RequestLabels>)> {
        (0..).zip(self.routes.iter().map(|route| &route.labels))
    }

    /// The labels of a route.
    pub(super) fn labels(&self, route: u32) -> &Arc<RequestLabels> {
        &self.routes[route as usize].labels
    }

    /// Adds a route and returns its number.
    pub(super) fn push(&mut self, labels: Arc<RequestLabels>) -> u32 {
        self.routes.push(RouteSeries { labels, first: NONE });
        self.len() - 1
    }

    /// The slot of a pair. If it is new and the route already has `most`, the slot of its status class.
    pub(super) fn slot(&mut self, route: u32, pair: Pair, most: usize) -> u32 {
        match self.find(route, pair) {
            Ok(slot) => slot,
            Err(count) if count >= most => {
                let pair = pair.coarse();
                self.find(route, pair).unwrap_or_else(|_| self.push_slot(route, pair))
            }
            Err(_) => self.push_slot(route, pair),
        }
    }

    /// The slot of a pair, or the number of other slots that the route has.
    fn find(&self, route: u32, pair: Pair) -> Result<u32, usize> {
        let mut count = 0;
        for slot in self.slots_of(route) {
            if self.at(slot).pair == pair {
                return Ok(slot);
            }
            count += 1;
        }
        Err(count)
    }

    fn push_slot(&mut self, route: u32, pair: Pair) -> u32 {
        let new = u32::try_from(self.slots.len()).expect("slots are bounded");
        let last = self.slots_of(route).last();
        self.slots.push(SeriesSlot { pair, next: NONE, requests: 0, sums: [0.0; HISTOGRAMS.len()] });
        self.counts.resize(self.counts.len() + self.shape.len, 0);
        if self.shape.native.is_some() {
            self.native.resize_with(self.native.len() + HISTOGRAMS.len(), NativeHistogram::default);
        }
        match last {
            Some(last) => self.slots[last as usize].next = new,
            None => self.routes[route as usize].first = new,
        }
        new
    }

    /// The slots of a route.
    pub(super) fn slots_of(&self, route: u32) -> impl Iterator<Item = u32> {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(some(self.routes[route as usize].first), move |&slot| some(self.at(slot).next))
    }

    /// A slot.
    pub(super) fn at(&self, slot: u32) -> &SeriesSlot {
        &self.slots[slot as usize]
    }

    /// Counts a request.
    pub(super) fn request(&mut self, slot: u32) {
        self.slots[slot as usize].requests += 1;
    }

    /// Counts a failure; `route` is `None` for a request that matches no route.
    pub(super) fn fail(&mut self, route: Option<u32>, of: Failed, reason: Reason, by: u64) {
        *self.failures.entry(FailureKey { route: route.unwrap_or(NONE), of, reason }).or_default() += by;
    }

    /// All failures, sorted; paths and hosts of one Ingress are added up.
    pub(super) fn failures(&self) -> BTreeMap<FailureLabels, u64> {
        let mut sorted = BTreeMap::new();
        for (failure, count) in &self.failures {
            let labels = (failure.route != NONE).then(|| self.labels(failure.route));
            let text =
                |of: fn(&RequestLabels) -> &Arc<str>| labels.map(|labels| of(labels).clone()).unwrap_or_default();
            let labels = FailureLabels {
                of: failure.of,
                namespace: text(|labels| &labels.namespace),
                ingress: text(|labels| &labels.ingress),
                service: text(|labels| &labels.service),
                reason: failure.reason,
            };
            *sorted.entry(labels).or_default() += count;
        }
        sorted
    }

    /// Adds the failures of another set. `number` maps the number of one of its routes to the number here, if there is one.
    pub(super) fn add_failures(&mut self, other: &Self, number: impl Fn(u32) -> Option<u32>) {
        for (failure, count) in &other.failures {
            match failure.route {
                NONE => self.fail(None, failure.of, failure.reason, *count),
                route => {
                    if let Some(route) = number(route) {
                        self.fail(Some(route), failure.of, failure.reason, *count);
                    }
                }
            }
        }
    }

    /// Counts a value in a histogram.
    #[inline]
    pub(super) fn observe(&mut self, slot: u32, histogram: usize, value: f64) {
        if self.shape.histograms[histogram].counted {
            self.count_value(slot, histogram, value);
        }
    }

    fn count_value(&mut self, slot: u32, histogram: usize, value: f64) {
        let Histogram { buckets, native, .. } = &self.shape.histograms[histogram];
        let (bucket, native) = (buckets.of(value), *native);
        self.increase(self.place(slot, histogram) + bucket, 1);
        self.slots[slot as usize].sums[histogram] += value;
        // A new bucket allocates now and then; there are few of them, and they are off by default.
        if let Some(options) = native {
            self.native[slot as usize * HISTOGRAMS.len() + histogram].observe(value, options);
        }
    }

    /// Upper bounds of a histogram.
    pub(super) fn bounds(&self, histogram: usize) -> &[f64] {
        self.shape.histograms[histogram].buckets.bounds()
    }

    /// Counts of a histogram by bucket; the bucket above all bounds comes last.
    pub(super) fn buckets(&self, slot: u32, histogram: usize) -> impl Iterator<Item = u64> {
        let start = self.place(slot, histogram);
        (start..start + self.bounds(histogram).len() + 1).map(|place| self.count(place))
    }

    /// The native histogram of a slot.
    pub(super) fn native(&self, slot: u32, histogram: usize) -> Option<(&NativeHistogram, NativeBuckets)> {
        let options = self.shape.histograms[histogram].native?;
        Some((self.native.get(slot as usize * HISTOGRAMS.len() + histogram)?, options))
    }

    /// Adds the series of a route of another set, which has the same histograms.
    pub(super) fn add(&mut self, route: u32, other: &Self, theirs: u32) {
        for from in other.slots_of(theirs) {
            let numbers = other.at(from);
            let to = self.slot(route, numbers.pair, usize::MAX);
            let slot = &mut self.slots[to as usize];
            slot.requests += numbers.requests;
            slot.sums.iter_mut().zip(&numbers.sums).for_each(|(mine, theirs)| *mine += theirs);
            if let Some(options) = self.shape.native {
                let (to, from) = (to as usize * HISTOGRAMS.len(), from as usize * HISTOGRAMS.len());
                for at in 0..HISTOGRAMS.len() {
                    self.native[to + at].add(&other.native[from + at], options);
                }
            }
            let (to, from) = (self.place(to, 0), other.place(from, 0));
            for at in 0..self.shape.len {
                self.increase(to + at, other.count(from + at));
            }
        }
    }

    /// Relabels routes, adds up those that get equal labels, and removes those that get none. All numbers change.
    pub(super) fn regroup(&mut self, labels: impl Fn(&Arc<RequestLabels>) -> Option<Arc<RequestLabels>>) {
        let mut kept = Self::of(self.shape.clone());
        let mut by_labels = HashMap::new();
        let mut numbers = HashMap::new();
        for (route, old) in self.routes() {
            let Some(labels) = labels(old) else { continue };
            let new = *by_labels.entry(labels.clone()).or_insert_with(|| kept.push(labels));
            kept.add(new, self, route);
            numbers.insert(route, new);
        }
        kept.add_failures(self, |route| numbers.get(&route).copied());
        *self = kept;
    }

    /// Every slot with its route, sorted by labels.
    pub(super) fn sorted(&self) -> Vec<(u32, u32)> {
        let mut all: Vec<_> =
            (0..self.len()).flat_map(|route| self.slots_of(route).map(move |slot| (route, slot))).collect();
        all.sort_unstable_by_key(|&(route, slot)| (self.labels(route), self.at(slot).pair));
        all
    }

    fn place(&self, slot: u32, histogram: usize) -> usize {
        slot as usize * self.shape.len + self.shape.histograms[histogram].start
    }

    fn count(&self, place: usize) -> u64 {
        // Carries are very rare, so skip the lookup if there are none.
        let carry = if self.carries.is_empty() { 0 } else { self.carries.get(&place).copied().unwrap_or_default() };
        (carry << 32) + u64::from(self.counts[place])
    }

    fn increase(&mut self, place: usize, by: u64) {
        let sum = u64::from(self.counts[place]) + by;
        self.counts[place] = sum as u32;
        if sum >> 32 > 0 {
            *self.carries.entry(place).or_default() += sum >> 32;
        }
    }
}

impl Pair {
    /// The pair of a request, with the class of its status if requested.
    pub(super) fn of(record: &RequestRecord<'_>, class: bool) -> Self {
        let method = record.head.map_or("OTHER", |head| match head.parsed.method() {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Other => "OTHER",
        });
        let pair = Self { method, status: StatusLabel::Code(record.status) };
        if class { Self { status: pair.status.class(), ..pair } } else { pair }
    }

    fn coarse(self) -> Self {
        Self { method: "OTHER", status: self.status.class() }
    }
}

impl StatusLabel {
    fn class(self) -> Self {
        match self {
            Self::Code(status) => Self::Class(status / 100),
            Self::Class(class) => Self::Class(class),
        }
    }
}

impl std::fmt::Display for StatusLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl Shape {
    fn new(options: &MetricOptions) -> Self {
        let mut len = 0;
        let mut place = |buckets: &Buckets, counted, native| {
            let start = len;
            len += buckets.count();
            Histogram { buckets: buckets.clone(), start, counted, native }
        };
        let (times, lengths, sizes) = (&options.time_buckets, &options.length_buckets, &options.size_buckets);
        let each = [times, times, times, times, lengths, lengths, sizes];
        let none = Buckets::none();
        let mut at = 0;
        let histograms = each.map(|buckets| {
            let form = options.form(HISTOGRAMS[at]);
            at += 1;
            let shown = form == Form::Buckets;
            let native = options.native.filter(|_| shown);
            place(if shown { buckets } else { &none }, form != Form::Hidden, native)
        });
        Self { histograms, len, native: options.native }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Pair = Pair { method: "GET", status: StatusLabel::Code(200) };

    fn full() -> MetricOptions {
        MetricOptions { detail: crate::metrics::Detail::Full, ..MetricOptions::default() }
    }

    fn labels(ingress: &str) -> Arc<RequestLabels> {
        Arc::new(RequestLabels { ingress: ingress.into(), ..RequestLabels::default() })
    }

    fn with(ingresses: &[&str]) -> Series {
        let mut series = Series::new(&full());
        for (at, ingress) in ingresses.iter().enumerate() {
            let route = series.push(labels(ingress));
            let slot = series.slot(route, PAIR, 64);
            series.request(slot);
            series.observe(slot, 3, at as f64);
        }
        series
    }

    #[test]
    fn counts_do_not_wrap() {
        let mut series = with(&["a"]);
        series.increase(series.place(0, 3), u64::from(u32::MAX) - 1);
        assert_eq!(series.buckets(0, 3).next(), Some(u64::from(u32::MAX)));
        series.observe(0, 3, 0.0);
        series.observe(0, 3, 0.0);
        assert_eq!(series.buckets(0, 3).next(), Some(u64::from(u32::MAX) + 2));
        assert_eq!(series.buckets(0, 3).nth(1), Some(0));
        let mut sum = Series::new(&full());
        let route = sum.push(labels("a"));
        sum.add(route, &series, 0);
        sum.add(route, &series, 0);
        assert_eq!(sum.buckets(0, 3).next(), Some(2 * (u64::from(u32::MAX) + 2)));
    }

    #[test]
    fn what_is_kept_keeps_its_numbers() {
        let mut series = with(&["b", "gone", "a"]);
        let other = series.slot(2, Pair { method: "PUT", ..PAIR }, 64);
        series.request(other);
        series.regroup(|labels| (&*labels.ingress != "gone").then(|| labels.clone()));
        let all: Vec<_> = series
            .sorted()
            .into_iter()
            .map(|(route, slot)| (&*series.labels(route).ingress, series.at(slot).pair.method, series.at(slot).sums[3]))
            .collect();
        assert_eq!(all, [("a", "GET", 2.0), ("a", "PUT", 0.0), ("b", "GET", 0.0)]);
        assert_eq!(series.counts.len(), 3 * series.shape.len);
    }
}
