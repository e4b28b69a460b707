//! Upper bounds of histograms.

use std::sync::Arc;

use crate::limit;

/// Ascending upper bounds; one more bucket holds the values above them.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets(Arc<[f64]>);

/// Why a list of numbers is not valid as bounds.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("expected ascending finite numbers, at most {}", Buckets::MOST)]
pub struct InvalidBuckets;

impl Buckets {
    /// Maximum number of bounds of a histogram; every series has a count for each.
    pub const MOST: usize = limit::METRIC_BUCKETS;

    /// Bounds, ascending.
    ///
    /// # Errors
    /// If they are not ascending, not finite or too many.
    pub fn new(bounds: &[f64]) -> Result<Self, InvalidBuckets> {
        let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
        if bounds.len() > Self::MOST || !ascending || !bounds.iter().all(|bound| bound.is_finite()) {
            return Err(InvalidBuckets);
        }
        Ok(Self(bounds.into()))
    }

    /// No bounds at all.
    pub(super) fn none() -> Self {
        Self([].into())
    }

    /// Seconds, a selection of [`Self::times`]: enough for objectives and a rough percentile, with half of the lines.
    pub fn few_times() -> Self {
        Self([0.05, 0.25, 1.0, 5.0].into())
    }

    /// Seconds, the default of Prometheus libraries.
    pub fn times() -> Self {
        Self([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0].into())
    }

    /// Bytes, 10 to 100.
    pub fn lengths() -> Self {
        Self((1..=10).map(|step| f64::from(step * 10)).collect())
    }

    /// Bytes, 10 to 10 million.
    pub fn sizes() -> Self {
        Self((1..=7).map(|power| 10f64.powi(power)).collect())
    }

    /// The bounds.
    pub fn bounds(&self) -> &[f64] {
        &self.0
    }

    /// Number of buckets, the unbounded one included.
    pub(super) fn count(&self) -> usize {
        self.0.len() + 1
    }

    /// The index of the bucket for a value.
    pub(super) fn of(&self, value: f64) -> usize {
        self.0.partition_point(|&bound| bound < value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let buckets = Buckets::times();
        assert_eq!(buckets.of(0.0), 0);
        assert_eq!(buckets.of(0.005), 0);
        assert_eq!(buckets.of(0.0051), 1);
        assert_eq!(buckets.of(11.0), 11);
        assert_eq!(buckets.count(), 12);
        assert_eq!(Buckets::sizes().bounds().last(), Some(&1e7));
    }

    #[test]
    fn bounds_ascend() {
        assert!(Buckets::new(&[1.0, 2.0]).is_ok());
        assert!(Buckets::new(&[]).is_ok());
        for bad in [&[1.0, 1.0][..], &[2.0, 1.0], &[f64::INFINITY], &[f64::NAN], &[0.0; 101]] {
            assert_eq!(Buckets::new(bad), Err(InvalidBuckets));
        }
    }
}
