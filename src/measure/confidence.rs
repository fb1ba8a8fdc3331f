//! How far a percentile can be trusted: the 95 % interval of an order statistic.
//!
//! Of `n` values, the number of those below the true quantile `p` is binomial (n, p), whatever the distribution of the
//! values. So the `j`-th and the `k`-th smallest value enclose it with a probability of P(j <= B < k), which needs no
//! assumption but that the values are independent (J.-Y. Le Boudec, Performance Evaluation of Computer and
//! Communication Systems, §2.2.2). Values of one run are not quite: neighbours in time resemble each other, and the
//! true interval is wider.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::histogram::LatencyHistogram;

/// What may lie beyond each end of an interval of 95 %.
const TAIL: f64 = 0.025;
/// The point of the normal distribution that leaves [`TAIL`] beyond it.
const NORMAL_TAIL: f64 = 1.959_964;
/// From so many values expected beyond the quantile, the binomial distribution is taken for normal.
const EXACT_UP_TO: f64 = 100.0;

/// The percentiles of a report, as shares.
pub const P50: f64 = 0.5;
/// See [`P50`].
pub const P90: f64 = 0.9;
/// See [`P50`].
pub const P95: f64 = 0.95;
/// See [`P50`].
pub const P99: f64 = 0.99;
/// See [`P50`].
pub const P99_9: f64 = 0.999;

/// The ranks (1 is the smallest value) of the two values of `count` that enclose the true quantile, a share between 0
/// and 1, with a probability of at least 95 %, at most 2.5 % beyond either end; `None` where the sample is too small to
/// have such values.
pub fn ranks(count: u64, quantile: f64) -> Option<(u64, u64)> {
    let beyond = 1.0 - quantile;
    if count == 0 || quantile <= 0.0 || beyond <= 0.0 {
        return None;
    }
    let n = count as f64;
    if n * quantile.min(beyond) > EXACT_UP_TO {
        let half_width = NORMAL_TAIL * (n * quantile * beyond).sqrt();
        let low = (n * quantile - half_width).floor().max(1.0) as u64;
        let high = ((n * quantile + half_width).ceil() as u64).saturating_add(1).min(count);
        return Some((low, high));
    }
    // Counted from the end where few are expected, the sums are short however large the sample is.
    if beyond <= quantile {
        let (few, many) = binomial_tails(count, beyond)?;
        (many < count).then(|| (count - many, count - few))
    } else {
        let (few, many) = binomial_tails(count, quantile)?;
        (many < count).then(|| (few + 1, many + 1))
    }
}

/// Of a binomial distribution: the greatest number whose cumulative probability is at most [`TAIL`], if there is one,
/// and the smallest whose cumulative probability is at least 1 - [`TAIL`].
fn binomial_tails(count: u64, probability: f64) -> Option<(u64, u64)> {
    let odds = (probability / (1.0 - probability)).ln();
    let mut log_of_term = count as f64 * (-probability).ln_1p();
    let (mut cumulative, mut few) = (0.0, None);
    for k in 0..=count {
        cumulative += log_of_term.exp();
        if cumulative <= TAIL {
            few = Some(k);
        }
        if cumulative >= 1.0 - TAIL {
            return few.map(|few| (few, k));
        }
        log_of_term += ((count - k) as f64 / (k + 1) as f64).ln() + odds;
    }
    None
}

/// How many values a quantile's interval needs.
pub fn needed(quantile: f64) -> u64 {
    let rarer = quantile.max(1.0 - quantile);
    (TAIL.ln() / rarer.ln()).ceil() as u64
}

/// A time's lower and upper bound in seconds.
pub type Interval = [f64; 2];

/// The 95 % intervals of a histogram's percentiles, in seconds; `None` where there were too few values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Intervals {
    /// Of the median.
    pub p50: Option<[f64; 2]>,
    /// Of the 90th percentile.
    pub p90: Option<[f64; 2]>,
    /// Of the 95th percentile.
    pub p95: Option<[f64; 2]>,
    /// Of the 99th percentile.
    pub p99: Option<[f64; 2]>,
    /// Of the 99.9th percentile.
    pub p99_9: Option<[f64; 2]>,
}

impl Intervals {
    /// Those of all the values in a histogram; the width of its buckets is part of them.
    pub fn new(histogram: &LatencyHistogram) -> Intervals {
        let of = |quantile| {
            let (low, high) = ranks(histogram.count(), quantile)?;
            Some([histogram.at_rank(low)?.0 as f64 / 1e9, histogram.at_rank(high)?.1 as f64 / 1e9])
        };
        Intervals { p50: of(P50), p90: of(P90), p95: of(P95), p99: of(P99), p99_9: of(P99_9) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::histogram::Digits;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_pcg::Pcg64;

    #[test]
    fn ranks_of_the_median_are_those_of_the_books_table() {
        // Le Boudec, appendix A, table A.1.
        for (count, expected) in [
            (5, None),
            (6, Some((1, 6))),
            (10, Some((2, 9))),
            (20, Some((6, 15))),
            (70, Some((27, 44))),
            (100, Some((40, 61))),
        ] {
            assert_eq!(ranks(count, P50), expected, "{count} values");
        }
    }

    #[test]
    fn a_percentile_has_an_interval_from_the_smallest_sample_that_can_have_one() {
        for (quantile, least) in [(P50, 6), (P90, 36), (P95, 72), (P99, 368), (P99_9, 3_688)] {
            assert_eq!(needed(quantile), least);
            assert_eq!(ranks(least - 1, quantile), None);
            assert_eq!(ranks(least, quantile).map(|(_, high)| high), Some(least));
        }
        assert_eq!(ranks(0, P50), None);
    }

    #[test]
    fn low_and_high_quantiles_mirror_each_other() {
        for count in [40, 500, 10_000, 1_000_000] {
            let (low, high) = ranks(count, P90).unwrap();
            assert_eq!(ranks(count, 1.0 - P90), Some((count + 1 - high, count + 1 - low)), "{count}");
        }
    }

    #[test]
    fn the_approximation_takes_over_without_a_step() {
        for quantile in [P50, P90, P99, P99_9] {
            let border = (EXACT_UP_TO / (1.0 - quantile)).floor() as u64;
            let (exact, normal) = (ranks(border - 5, quantile).unwrap(), ranks(border + 5, quantile).unwrap());
            let width = |(low, high): (u64, u64)| high - low;
            assert!(width(exact).abs_diff(width(normal)) <= 3, "{quantile}: {exact:?}, then {normal:?}");
        }
    }

    #[test]
    fn intervals_enclose_the_truth_in_nineteen_of_twenty_runs() {
        const RUNS: u32 = 2_000;
        let mut random = Pcg64::seed_from_u64(1);
        for (quantile, count) in [(P50, 50), (P90, 200), (P99, 1_000), (P99, 20_000)] {
            let mut enclosed = 0;
            for _ in 0..RUNS {
                let mut values: Vec<f64> = (0..count).map(|_| random.random()).collect();
                values.sort_by(f64::total_cmp);
                let (low, high) = ranks(count, quantile).unwrap();
                // The quantile of uniform values is their share itself.
                enclosed += u32::from((values[low as usize - 1]..values[high as usize - 1]).contains(&quantile));
            }
            // Three standard deviations of the simulation below 95 %; discrete ranks cover up to 98 %.
            let share = f64::from(enclosed) / f64::from(RUNS);
            assert!((0.935..0.99).contains(&share), "p{quantile} of {count}: {share}");
        }
    }

    #[test]
    fn intervals_of_a_histogram_lie_around_its_percentiles() {
        let mut histogram = LatencyHistogram::new(Digits::Three);
        (1..=1_000u64).for_each(|us| histogram.record(us * 1_000));
        let intervals = Intervals::new(&histogram);
        let [low, high] = intervals.p50.unwrap();
        // Ranks 469 and 532.
        assert!((low - 469e-6).abs() < 1e-6 && (high - 532e-6).abs() < 1e-6, "{low} to {high}");
        assert!(intervals.p99.is_some());
        assert_eq!(intervals.p99_9, None, "a thousand values say nothing of the 99.9th percentile");
        assert_eq!(Intervals::new(&LatencyHistogram::new(Digits::Three)), Intervals::default());
    }
}
