//! Latency histograms: HDR buckets in nanoseconds, made when first used, merged by adding buckets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

    /// The bounds in nanoseconds of the bucket that holds the value of this rank (1 is the smallest), which is at most
    /// [`LatencyHistogram::count`]; `None` when empty.
    pub fn at_rank(&self, rank: u64) -> Option<(u64, u64)> {
        let buckets = self.buckets.as_ref().filter(|buckets| !buckets.is_empty())?;
        // Half a value below the rank, so that rounding cannot reach the next one.
        let value = buckets.value_at_quantile((rank as f64 - 0.5) / buckets.len() as f64);
        Some((buckets.lowest_equivalent(value).max(buckets.min()), value.min(buckets.max())))
    }

    /// How many values are certainly above `ns`: those in buckets that lie wholly above it.
    pub fn count_above(&self, ns: u64) -> u64 {
        let Some(buckets) = &self.buckets else { return 0 };
        buckets.len() - buckets.count_between(0, ns)
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

    /// The form of other monitoring systems: how many values lie at or below each bound, all in one pass. Bounds and sum
    /// are as fine as the buckets: a value counts as at a bound when it shares the bound's bucket, and adds its bucket's
    /// middle to the sum. As values come in, no figure ever goes down.
    pub fn cumulative(&self, bounds_ns: &[u64]) -> Cumulative {
        let mut found = Cumulative { at_or_below: vec![0; bounds_ns.len()], count: self.count(), sum_ns: 0 };
        let Some(buckets) = &self.buckets else { return found };
        let reach: Vec<u64> = bounds_ns.iter().map(|&bound| buckets.highest_equivalent(bound)).collect();
        for bucket in buckets.iter_recorded() {
            let (value, count) = (bucket.value_iterated_to(), bucket.count_at_value());
            found.sum_ns += u128::from(buckets.median_equivalent(value)) * u128::from(count);
            for (sum, _) in found.at_or_below.iter_mut().zip(&reach).filter(|(_, reach)| value <= **reach) {
                *sum += count;
            }
        }
        found
    }

    /// HdrHistogram's V2 encoding in base64, which its libraries in other languages read too; `None` when empty.
    pub fn encode(&self) -> Option<String> {
        let buckets = self.buckets.as_ref().filter(|buckets| !buckets.is_empty())?;
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(buckets, &mut bytes).expect("writing to memory does not fail");
        Some(BASE64.encode(bytes))
    }

    /// Reads what [`LatencyHistogram::encode`] wrote; the error says what is wrong with it.
    pub fn decode(text: &str, digits: Digits) -> Result<LatencyHistogram, String> {
        let bytes = BASE64.decode(text).map_err(|error| format!("expected base64, got other text: {error}"))?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("expected an HdrHistogram in V2 encoding, got other bytes: {error}"))?;
        let mut histogram = LatencyHistogram::new(digits);
        let own = histogram.first();
        // Buckets of other bounds would be added, but not exactly.
        if (read.low(), read.high(), read.sigfig()) != (own.low(), own.high(), own.sigfig()) {
            return Err(format!(
                "expected a histogram of {} to {} ns with {} digits, got one of {} to {} ns with {}",
                own.low(),
                own.high(),
                own.sigfig(),
                read.low(),
                read.high(),
                read.sigfig()
            ));
        }
        own.add(read).map_err(|error| format!("expected values within the histogram's bounds: {error}"))?;
        Ok(histogram)
    }
}

/// What [`LatencyHistogram::cumulative`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cumulative {
    /// Values at or below each bound.
    pub at_or_below: Vec<u64>,
    /// All values.
    pub count: u64,
    /// Their sum in nanoseconds.
    pub sum_ns: u128,
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// What a report says of one histogram; times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
    fn cumulative_counts_are_exact_to_the_bucket_and_never_go_down() {
        const BOUNDS: [u64; 4] = [100_000, 1_000_000, 1_000_000_000, LATENCY_NS_MAX];
        for (digits, error) in [(Digits::Two, 0.01), (Digits::Three, 0.001)] {
            let mut histogram = LatencyHistogram::new(digits);
            assert_eq!(
                histogram.cumulative(&BOUNDS),
                Cumulative { at_or_below: vec![0; 4], count: 0, sum_ns: 0 },
                "nothing yet"
            );
            let (mut values, mut before) = (Vec::new(), histogram.cumulative(&BOUNDS));
            for step in 0..2_000u64 {
                let value = if step % 5 == 0 { BOUNDS[step as usize % 3] } else { step * step * step };
                values.push(value);
                histogram.record(value);
                let now = histogram.cumulative(&BOUNDS);
                assert!(now.at_or_below.is_sorted() && now.at_or_below[3] == now.count && now.count == step + 1);
                assert!(now.at_or_below.iter().zip(&before.at_or_below).all(|(now, before)| now >= before));
                assert!(now.sum_ns >= before.sum_ns);
                before = now;
            }
            for (bound, found) in BOUNDS.iter().zip(before.at_or_below) {
                let upto = |limit: u64| values.iter().filter(|&&value| value <= limit).count() as u64;
                let above = bound + (*bound as f64 * error) as u64;
                assert!((upto(*bound)..=upto(above)).contains(&found), "{bound}: {found}");
            }
            let exact = values.iter().map(|&value| u128::from(value)).sum::<u128>() as f64;
            assert!((before.sum_ns as f64 / exact - 1.0).abs() <= error);
        }
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
    fn what_was_encoded_is_decoded_and_nothing_else_is() {
        let mut histogram = LatencyHistogram::new(Digits::Three);
        [0, 1_234_567, LATENCY_NS_MAX, LATENCY_NS_MAX * 5].into_iter().for_each(|ns| histogram.record(ns));
        let text = histogram.encode().unwrap();
        let read = LatencyHistogram::decode(&text, Digits::Three).unwrap();
        assert_eq!((read.encode(), read.summary()), (Some(text.clone()), histogram.summary()));
        for (wrong, digits) in [(text.as_str(), Digits::Two), ("AAAA", Digits::Three), ("no base64", Digits::Three)] {
            let error = LatencyHistogram::decode(wrong, digits).unwrap_err();
            assert!(error.starts_with("expected "), "{error}");
        }
        assert!(LatencyHistogram::decode(&text[..text.len() / 8 * 4], Digits::Three).is_err());
    }

    #[test]
    fn ranks_and_counts_are_those_of_the_sorted_values() {
        let mut histogram = LatencyHistogram::new(Digits::Three);
        (1..=1_000u64).for_each(|us| histogram.record(us * 1_000));
        for rank in [1, 2, 500, 999, 1_000] {
            let (low, high) = histogram.at_rank(rank).unwrap();
            assert!((low..=high).contains(&(rank * 1_000)), "{rank}: {low} to {high}");
        }
        assert_eq!((histogram.count_above(750_000), histogram.count_above(LATENCY_NS_MAX)), (250, 0));
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
