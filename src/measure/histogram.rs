//! Latency histograms: HDR buckets in nanoseconds, made when first used, merged by adding buckets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2Serializer};
use serde::Serialize;

/// The longest time that is told apart, in nanoseconds: 24 hours. Longer ones count as this long.
pub const LATENCY_NS_MAX: u64 = 24 * 3_600 * 1_000_000_000;

/// How finely values are told apart: significant decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digits {
    /// To within 1 %: for phases and turns, of which there are many histograms.
    Two,
    /// To within 0.1 %: for the latencies that a report stands on.
    Three,
}

/// A histogram of nanoseconds that costs nothing until its first value.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    digits: Digits,
    buckets: Option<Histogram<u64>>,
}

impl LatencyHistogram {
    /// An empty histogram.
    pub const fn new(digits: Digits) -> LatencyHistogram {
        LatencyHistogram { digits, buckets: None }
    }

    /// Counts one value.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        match &mut self.buckets {
            Some(buckets) => buckets.saturating_record(ns),
            None => self.first().saturating_record(ns),
        }
    }

    #[cold]
    fn first(&mut self) -> &mut Histogram<u64> {
        let digits = match self.digits {
            Digits::Two => 2,
            Digits::Three => 3,
        };
        let made = Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits).expect("constant bounds are valid");
        self.buckets.insert(made)
    }

    /// Adds all values of `other`, bucket by bucket.
    ///
    /// # Panics
    ///
    /// When the two were made with different digits, which is a bug.
    pub fn merge(&mut self, other: &LatencyHistogram) {
        assert_eq!(self.digits, other.digits, "histograms of one kind have the same digits");
        if let Some(values) = other.buckets.as_ref().filter(|values| !values.is_empty()) {
            let own = match &mut self.buckets {
                Some(own) => own,
                None => self.first(),
            };
            own.add(values).expect("histograms of one kind have the same bounds");
        }
    }

    /// Forgets all values and keeps the memory.
    pub fn clear(&mut self) {
        if let Some(buckets) = self.buckets.as_mut().filter(|buckets| !buckets.is_empty()) {
            buckets.reset();
        }
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.as_ref().map_or(0, Histogram::len)
    }

    /// The value in nanoseconds below which the share `quantile` (0 to 1) of all values lies; `None` when empty.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        self.buckets.as_ref().filter(|b| !b.is_empty()).map(|b| b.value_at_quantile(quantile).min(b.max()))
    }

    /// The figures of a report, in seconds; all zero when empty.
    pub fn summary(&self) -> Summary {
        let Some(buckets) = self.buckets.as_ref().filter(|buckets| !buckets.is_empty()) else {
            return Summary::default();
        };
        let quantile = |q: f64| seconds(buckets.value_at_quantile(q).min(buckets.max()));
        Summary {
            count: buckets.len(),
            min: seconds(buckets.min()),
            mean: buckets.mean() / 1e9,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p95: quantile(0.95),
            p99: quantile(0.99),
            p99_9: quantile(0.999),
            max: seconds(buckets.max()),
        }
    }

    /// HdrHistogram's V2 encoding in base64, which its libraries in other languages read too; `None` when empty.
    pub fn encode(&self) -> Option<String> {
        let buckets = self.buckets.as_ref().filter(|buckets| !buckets.is_empty())?;
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(buckets, &mut bytes).expect("writing to memory does not fail");
        Some(BASE64.encode(bytes))
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What a report says of one histogram; times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Values counted.
    pub count: u64,
    /// The least.
    pub min: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p99_9: f64,
    /// The greatest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn percentiles_are_within_a_tenth_of_a_percent() {
        let mut histogram = LatencyHistogram::new(Digits::Three);
        (1..=100_000u64).for_each(|us| histogram.record(us * 1_000));
        for (quantile, us) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let found = histogram.quantile_ns(quantile).unwrap() as f64 / 1_000.0;
            assert!((found / us - 1.0).abs() <= 0.001, "{quantile}: {found} instead of {us}");
        }
        assert_eq!(histogram.summary().count, 100_000);
    }

    #[test]
    fn merging_equals_recording_everything_in_one() {
        let (mut left, mut right, mut whole) = (
            LatencyHistogram::new(Digits::Three),
            LatencyHistogram::new(Digits::Three),
            LatencyHistogram::new(Digits::Three),
        );
        for i in 0..10_000u64 {
            let value = i * i * 37;
            if i % 3 == 0 {
                left.record(value)
            } else {
                right.record(value)
            }
            whole.record(value);
        }
        left.merge(&right);
        assert_eq!(left.encode(), whole.encode());
    }

    #[test]
    fn encoded_histograms_are_read_by_the_hdr_library() {
        let mut histogram = LatencyHistogram::new(Digits::Three);
        histogram.record(1_234_567);
        histogram.record(LATENCY_NS_MAX * 5);
        let bytes = BASE64.decode(histogram.encode().unwrap()).unwrap();
        let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(read.len(), 2);
        assert!(read.max() >= LATENCY_NS_MAX);
    }

    #[test]
    fn an_empty_histogram_says_zero_and_holds_no_memory() {
        let mut histogram = LatencyHistogram::new(Digits::Two);
        assert_eq!(histogram.summary(), Summary::default());
        assert_eq!((histogram.encode(), histogram.quantile_ns(0.5)), (None, None));
        histogram.record(0);
        histogram.clear();
        assert_eq!(histogram.count(), 0);
    }
}
