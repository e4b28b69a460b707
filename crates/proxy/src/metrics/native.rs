//! Native histograms (`--bucket-factor`): buckets that grow by a factor, of which only those with samples exist.
//!
//! Invariant: a histogram has at most the configured number of buckets, whatever is observed. When one more would be needed, pairs of
//! neighbours are joined, as in Prometheus's own library, until there are few enough.

use std::sync::LazyLock;

use crate::limit::NATIVE_BUCKETS;

/// The finest resolution: 256 buckets for each doubling of a value.
// No limit: the format of Prometheus.
const FINEST: i32 = 8;

/// The coarsest resolution: a bucket ends at 65,536 times its beginning, so 128 of them hold all numbers.
// No limit: the format of Prometheus.
const COARSEST: i32 = -4;

/// Values up to this one, 2^-128, count as zero.
// No limit: that of Prometheus's library.
pub(super) const ZERO_THRESHOLD: f64 = f64::from_bits((1023 - 128) << 52);

/// How native histograms are kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NativeBuckets {
    schema: i32,
    most: usize,
}

impl NativeBuckets {
    /// Buckets that grow at most by `factor`, and at most `most` of them (0 for the largest number allowed); `None` if the factor turns
    /// them off.
    pub fn new(factor: f64, most: u64) -> Option<Self> {
        if factor.is_nan() || factor <= 1.0 {
            return None;
        }
        // The greatest growth 2^(2^-schema) that isn't above the factor.
        let floor = factor.log2().log2().floor().clamp(f64::from(-FINEST), f64::from(-COARSEST));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let most = if most == 0 { NATIVE_BUCKETS } else { most.min(NATIVE_BUCKETS) };
        Some(Self { schema: -(floor as i32), most })
    }
}

/// A native histogram; sum and number of samples are kept beside it.
#[derive(Clone, Debug, Default)]
pub(super) struct NativeHistogram {
    /// By how much the resolution is coarser than configured.
    coarser: i32,
    /// Samples that count as zero.
    pub(super) zeros: u64,
    /// Samples by the index of their bucket, ascending.
    pub(super) buckets: Vec<(i32, u64)>,
}

impl NativeHistogram {
    /// The resolution: a bucket ends at 2^(2^-schema) times its beginning.
    pub(super) fn schema(&self, options: NativeBuckets) -> i32 {
        options.schema - self.coarser
    }

    /// Counts a value, which is not negative.
    pub(super) fn observe(&mut self, value: f64, options: NativeBuckets) {
        if value.is_nan() || value <= ZERO_THRESHOLD {
            self.zeros += 1;
            return;
        }
        let index = index(value, self.schema(options));
        match self.buckets.binary_search_by_key(&index, |bucket| bucket.0) {
            Ok(at) => self.buckets[at].1 += 1,
            Err(at) => {
                self.buckets.insert(at, (index, 1));
                self.bound(options);
            }
        }
    }

    /// Adds the samples of another one, with the same options.
    pub(super) fn add(&mut self, other: &Self, options: NativeBuckets) {
        self.zeros += other.zeros;
        if other.buckets.is_empty() {
            return;
        }
        while self.coarser < other.coarser {
            self.coarsen();
        }
        let mut theirs = other.clone();
        while theirs.coarser < self.coarser {
            theirs.coarsen();
        }
        for (index, count) in theirs.buckets {
            match self.buckets.binary_search_by_key(&index, |bucket| bucket.0) {
                Ok(at) => self.buckets[at].1 += count,
                Err(at) => self.buckets.insert(at, (index, count)),
            }
        }
        self.bound(options);
    }

    fn bound(&mut self, options: NativeBuckets) {
        while self.buckets.len() > options.most && self.schema(options) > COARSEST {
            self.coarsen();
        }
    }

    /// Joins each pair of neighbours: bucket `i` becomes part of bucket `ceil(i / 2)`.
    fn coarsen(&mut self) {
        self.coarser += 1;
        for bucket in &mut self.buckets {
            bucket.0 = (bucket.0 + 1) >> 1;
        }
        self.buckets.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
    }
}

/// The upper bounds of the buckets between 1/2 and 1 at the finest resolution, except 1 itself.
static BOUNDS: LazyLock<Vec<f64>> =
    LazyLock::new(|| (0..1 << FINEST).map(|at| (f64::from(at) / f64::from(1 << FINEST)).exp2() / 2.0).collect());

/// The index of the bucket for a positive value: bucket `i` holds the values above g^(i-1) up to g^i, with the growth g.
fn index(value: f64, schema: i32) -> i32 {
    let (fraction, exponent) = split(value);
    if schema > 0 {
        // Every `step`th of the finest bounds is one of this resolution.
        let step = 1usize << (FINEST - schema);
        let finest = BOUNDS.partition_point(|bound| *bound < fraction);
        return finest.div_ceil(step) as i32 + ((exponent - 1) << schema);
    }
    let whole = if fraction > 0.5 { exponent } else { exponent - 1 };
    let width = -schema;
    (whole + (1 << width) - 1) >> width
}

/// The fraction, at least 1/2 and below 1, and the exponent of 2 of a positive value.
fn split(value: f64) -> (f64, i32) {
    if value.is_infinite() {
        // One above the largest number, as in Prometheus's library.
        return (0.5, 1025);
    }
    // Below 2^-1022 a number has fewer bits; those count as zero here, so none arrives.
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1022;
    (f64::from_bits(bits & !(0x7ff << 52) | (1022 << 52)), exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolution_follows_from_the_factor() {
        let schema = |factor| NativeBuckets::new(factor, 100).map(|options| options.schema);
        for off in [0.0, 1.0, -3.0, f64::NAN, 0.5] {
            assert_eq!(schema(off), None, "{off}");
        }
        // Those of Prometheus's library.
        for (factor, expected) in
            [(1.00271, 8), (1.002, 8), (1.0055, 7), (1.1, 3), (1.2, 2), (1.5, 1), (2.0, 0), (4.0, -1), (1e9, -4)]
        {
            assert_eq!(schema(factor), Some(expected), "{factor}");
        }
    }

    #[test]
    fn a_bucket_holds_what_is_above_its_beginning_up_to_its_end() {
        for schema in COARSEST..=FINEST {
            let growth = f64::from(-schema).exp2().exp2();
            for value in
                [1e-30, 0.001, 0.3, 0.5, 0.999, 1.0, 1.1, 2.0, 2.000_001, 3.9, 4.0, 1000.0, 65_536.0, 1e12, 1e300]
            {
                let at = f64::from(index(value, schema));
                let (below, end) = (growth.powf(at - 1.0), growth.powf(at));
                let near = 1.0 + 1e-9;
                assert!(below < value * near && value <= end * near, "{value} at {schema}: {below} to {end}");
            }
            assert_eq!(index(1.0, schema), 0, "1 is the end of a bucket at every resolution: {schema}");
            assert!(index(f64::INFINITY, schema) >= index(f64::MAX, schema));
        }
        assert_eq!((index(2.0, 3), index(4.0, 3), index(0.5, 3)), (8, 16, -8));
    }

    #[test]
    fn more_buckets_than_allowed_are_joined_and_no_sample_is_lost() {
        let options = NativeBuckets::new(1.01, 10).unwrap();
        let mut histogram = NativeHistogram::default();
        for step in 0..1000 {
            histogram.observe(1.01f64.powi(step), options);
            assert!(histogram.buckets.len() <= 10);
        }
        histogram.observe(0.0, options);
        assert_eq!(histogram.buckets.iter().map(|bucket| bucket.1).sum::<u64>(), 1000);
        assert_eq!(histogram.zeros, 1);
        // The same as if they had been counted at that resolution from the start.
        let schema = histogram.schema(options);
        let expected =
            (0..1000).map(|step| index(1.01f64.powi(step), schema)).collect::<std::collections::BTreeSet<_>>();
        assert!(histogram.buckets.iter().map(|bucket| bucket.0).eq(expected));
    }

    #[test]
    fn the_coarsest_resolution_bounds_them_all() {
        let options = NativeBuckets::new(1.001, 1).unwrap();
        let mut histogram = NativeHistogram::default();
        for exponent in -127..1023 {
            histogram.observe(f64::from(exponent).exp2(), options);
        }
        assert!(histogram.buckets.len() < 80, "{}", histogram.buckets.len());
        assert_eq!(histogram.schema(options), COARSEST);
    }

    #[test]
    fn a_sum_has_the_coarser_of_two_resolutions() {
        let options = NativeBuckets::new(1.1, 5).unwrap();
        let (mut one, mut other) = (NativeHistogram::default(), NativeHistogram::default());
        (0..50).for_each(|step| one.observe(f64::from(step + 1), options));
        other.observe(3.0, options);
        let (mut sum, mut reverse) = (one.clone(), other.clone());
        sum.add(&other, options);
        reverse.add(&one, options);
        assert_eq!((sum.schema(options), &sum.buckets), (reverse.schema(options), &reverse.buckets));
        assert!(sum.buckets.len() <= 5);
        assert_eq!(sum.buckets.iter().map(|bucket| bucket.1).sum::<u64>(), 51);
    }
}
