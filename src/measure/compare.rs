//! Two sides of one or more runs each, compared by tests and not by eye.
//!
//! The rate and the percentiles of single seconds are compared by Welch's t-test. Neighbouring seconds resemble each
//! other, which makes a sample worth less than its number of values, so the test is given its effective size: the number
//! of values divided by the autocorrelation time, as `latte` does it. The autocorrelation time comes from batch means: if
//! values were independent, the mean of `b` of them would vary with 1/b of their variance; by what factor it varies more,
//! values hang together. `docs/compare.md` has the formulas.
//!
//! Several figures are tested at once, so their probabilities are corrected for that (Holm).
//!
//! Where both sides are several runs, the runs are the values: what differs from run to run is then part of the test.

use std::collections::BTreeSet;

use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::confidence::{Interval, Intervals, P50, P90, P95, P99, P99_9};
use super::histogram::{Digits, LatencyHistogram, Summary};
use super::merge::{MergeError, Named};
use super::report::{REPORT_VERSION, Report};
use super::totals::SeriesRow;
use super::verdict::Validity;

/// A difference that chance brings about less often than this is one.
pub const SIGNIFICANCE: f64 = 0.01;
/// Seconds below which only great differences can be told from chance.
const SECONDS_MIN: usize = 10;
/// A second at whose end so little of it was left when the last message was begun is a whole one, for messages are spaced.
const DISPATCH_SLACK_S: f64 = 0.1;
/// The same for runs.
const RUNS_MIN: usize = 4;
/// Batches that the variance of their means needs.
const BATCHES_MIN: usize = 4;
/// A series that is not worth this many independent values is too short to tell how much its values hang together.
const SIZE_MIN: f64 = 7.0;
/// Batches longer than this many autocorrelation times say nothing more of it.
const BATCH_TIMES: f64 = 5.0;

/// What can be said of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The sides differ.
    Different,
    /// Their intervals do not overlap, and the figure has no value a second that could be tested.
    IntervalsApart,
    /// Chance explains it.
    NotShown,
    /// There are too few messages, seconds or runs to say.
    TooFew,
}

/// One figure of both sides. Times are in seconds, the rate in messages a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// `rate`, `p50`, `p90`, `p95`, `p99` or `p99.9` (response times of accepted messages).
    pub metric: &'static str,
    /// The first side's; `None` without accepted messages.
    pub a: Option<f64>,
    /// The second side's.
    pub b: Option<f64>,
    /// By what share of `a` the second side's is greater; negative when it is less.
    pub change: Option<f64>,
    /// The probability that chance brings about such a difference, by Welch's t-test; `None` where none is made.
    pub p_value: Option<f64>,
    /// The same when all figures that are tested are looked at together, by Holm's method: what the finding goes by.
    pub p_corrected: Option<f64>,
    /// The 95 % interval of the first side's percentile.
    pub a_95: Option<Interval>,
    /// That of the second side's.
    pub b_95: Option<Interval>,
    /// What follows.
    pub finding: Finding,
}

/// All that was compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The first side's reports by name.
    pub a: Vec<String>,
    /// The second side's.
    pub b: Vec<String>,
    /// What the t-test's values are: `runs` or `seconds`.
    pub values: &'static str,
    /// Figure by figure.
    pub differences: Vec<Difference>,
    /// Why the comparison may not mean what it seems to.
    pub warnings: Vec<String>,
}

/// Compares two sides of at least one report each.
pub fn compare(a: &[Named], b: &[Named]) -> Result<Comparison, MergeError> {
    let sides = [a, b];
    for (name, report) in sides.iter().flat_map(|side| side.iter()) {
        if report.version != REPORT_VERSION {
            return Err(MergeError::Version { name: name.clone(), got: report.version });
        }
    }
    if sides.iter().any(|side| side.is_empty()) {
        return Err(MergeError::None);
    }
    let by_runs = sides.iter().all(|side| side.len() >= 2);
    let responses = [response(a)?, response(b)?];
    let intervals = [Intervals::new(&responses[0]), Intervals::new(&responses[1])];
    let values = |of_run: fn(&Report) -> Option<f64>, of_row: Option<fn(&SeriesRow) -> Option<f64>>| {
        sides.map(|side| match (by_runs, of_row) {
            (true, _) => Sample::of_runs(side, of_run),
            (false, Some(of_row)) => Sample::of_seconds(side, of_row),
            (false, None) => None,
        })
    };
    let rates = values(|report| Some(report.rate_per_s), Some(|row| Some(row.accepted as f64)));
    let mean_rate =
        |side: &[Named]| Some(side.iter().map(|(_, report)| report.rate_per_s).sum::<f64>() / side.len() as f64);
    let mut tested = vec![Tested::new("rate", sides.map(mean_rate), Some(rates), [None, None])];
    type OfRun = fn(&Report) -> Option<f64>;
    type OfRow = fn(&SeriesRow) -> Option<f64>;
    type OfIntervals = fn(&Intervals) -> Option<Interval>;
    let percentiles: [(&'static str, f64, OfRun, Option<OfRow>, OfIntervals); 5] = [
        ("p50", P50, |report| accepted(report).map(|s| s.p50), Some(|row| row.p50), |intervals| intervals.p50),
        ("p90", P90, |report| accepted(report).map(|s| s.p90), None, |intervals| intervals.p90),
        ("p95", P95, |report| accepted(report).map(|s| s.p95), None, |intervals| intervals.p95),
        ("p99", P99, |report| accepted(report).map(|s| s.p99), Some(|row| row.p99), |intervals| intervals.p99),
        ("p99.9", P99_9, |report| accepted(report).map(|s| s.p99_9), None, |intervals| intervals.p99_9),
    ];
    for (metric, quantile, of_run, of_row, of_intervals) in percentiles {
        let figures = [0, 1].map(|side| responses[side].quantile_ns(quantile).map(|ns| ns as f64 / 1e9));
        let samples = (by_runs || of_row.is_some()).then(|| values(of_run, of_row));
        tested.push(Tested::new(metric, figures, samples, [0, 1].map(|side| of_intervals(&intervals[side]))));
    }
    let corrected = holm(&tested.iter().map(|one| one.p_value).collect::<Vec<_>>());
    let differences = tested.into_iter().zip(corrected).map(|(one, p_corrected)| one.found(p_corrected)).collect();
    let names = |side: &[Named]| side.iter().map(|(name, _)| name.clone()).collect();
    let values = if by_runs { "runs" } else { "seconds" };
    Ok(Comparison { a: names(a), b: names(b), values, differences, warnings: warnings(a, b, by_runs) })
}

fn accepted(report: &Report) -> Option<&Summary> {
    Some(&report.latency_s.accepted.response).filter(|summary| summary.count > 0)
}

/// The response times of a side's accepted messages in one histogram.
fn response(side: &[Named]) -> Result<LatencyHistogram, MergeError> {
    const NAME: &str = "accepted.response";
    let mut merged = LatencyHistogram::new(Digits::Three);
    for (name, report) in side {
        if let Some(text) = report.histograms.get(NAME) {
            let read = LatencyHistogram::decode(text, Digits::Three).map_err(|problem| MergeError::Histogram {
                name: name.clone(),
                histogram: NAME.to_owned(),
                problem,
            })?;
            merged.merge(&read);
        }
    }
    Ok(merged)
}

/// What may make the sides incomparable.
fn warnings(a: &[Named], b: &[Named], by_runs: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let all = || a.iter().chain(b);
    let (first_name, first) = &a[0];
    let mut differing = BTreeSet::new();
    for (name, report) in all().skip(1) {
        for (what, one, other) in [
            ("load models", &*first.load_model, &*report.load_model),
            ("targets", first.target.as_str(), report.target.as_str()),
        ] {
            if one != other {
                warnings.push(format!("the {what} differ: {first_name} has {one}, {name} has {other}"));
            }
        }
        if let (Some(one), Some(other)) = (first.spec.as_object(), report.spec.as_object()) {
            // The address is the target's.
            let keys = one.keys().chain(other.keys()).filter(|key| *key != "address");
            differing.extend(keys.filter(|key| one.get(*key) != other.get(*key)));
        }
    }
    if !differing.is_empty() {
        let keys: Vec<&str> = differing.into_iter().map(String::as_str).collect();
        warnings.push(format!("the jobs differ in {}", keys.join(", ")));
    }
    for (name, report) in all() {
        match report.verdict.as_ref().map(|verdict| verdict.result) {
            Some(Validity::Valid) => {}
            Some(result) => warnings.push(format!("the verdict on {name} is {}", result.name())),
            None => warnings.push(format!("{name} has no verdict: it is of a run that had not ended")),
        }
        let seconds = whole_seconds(report).count();
        if !by_runs && seconds < SECONDS_MIN {
            let text =
                format!("{name} has {seconds} whole seconds: only great differences show in less than {SECONDS_MIN}");
            warnings.push(text);
        }
    }
    if by_runs && a.len().min(b.len()) < RUNS_MIN {
        warnings.push(format!("less than {RUNS_MIN} runs a side: only great differences show"));
    }
    warnings
}

/// The rows that are a second long and end before dispatch does: afterwards nothing is offered, and the end of what was in
/// flight is no rate.
fn whole_seconds(report: &Report) -> impl Iterator<Item = &SeriesRow> {
    let dispatch_ends_s = match report.spec["messages"].is_u64() && report.dispatched_s > 0.0 {
        true => report.dispatched_s,
        false => report.warmup.map_or(0.0, |warmup| warmup.elapsed_s) + report.elapsed_s,
    };
    let last_s = dispatch_ends_s + DISPATCH_SLACK_S;
    report.series.iter().filter(move |row| row.t_s.fract() == 0.0 && row.t_s <= last_s)
}

/// One figure of both sides, tested by itself.
struct Tested {
    metric: &'static str,
    figures: [Option<f64>; 2],
    intervals: [Option<Interval>; 2],
    /// Whether it has values that a test could go by, were there enough of them.
    is_tested: bool,
    p_value: Option<f64>,
}

impl Tested {
    fn new(
        metric: &'static str,
        figures: [Option<f64>; 2],
        samples: Option<[Option<Sample>; 2]>,
        intervals: [Option<Interval>; 2],
    ) -> Tested {
        let is_tested = samples.is_some();
        let p_value = samples.and_then(|[of_a, of_b]| welch(&of_a?, &of_b?));
        Tested { metric, figures, intervals, is_tested, p_value }
    }

    /// What follows, once it is known what its probability is worth among the others.
    fn found(self, p_corrected: Option<f64>) -> Difference {
        let Tested { metric, figures: [a, b], intervals: [a_95, b_95], is_tested, p_value } = self;
        let change = a.zip(b).filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a - 1.0);
        let apart = a_95.zip(b_95).map(|([a_low, a_high], [b_low, b_high])| a_high < b_low || b_high < a_low);
        let finding = match (p_corrected, apart) {
            // A percentile must differ in both ways: seconds are not weighted by their messages, intervals know no time.
            (Some(p), apart) if p < SIGNIFICANCE && apart != Some(false) => Finding::Different,
            (Some(_), _) => Finding::NotShown,
            // Intervals, which take messages as independent, are no substitute for a test that had too little to go by.
            (None, _) if is_tested => Finding::TooFew,
            (None, Some(true)) => Finding::IntervalsApart,
            (None, Some(false)) => Finding::NotShown,
            (None, None) => Finding::TooFew,
        };
        Difference { metric, a, b, change, p_value, p_corrected, a_95, b_95, finding }
    }
}

/// Corrects probabilities that were found in several tests of one pair, so that any of equal pairs' figures is called
/// different as seldom as one alone: of m of them the least counts m times, the next m - 1 times, and so on, none for less
/// than one before it (Holm 1979). Tests may depend on each other.
fn holm(p_values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..p_values.len()).filter(|&at| p_values[at].is_some()).collect();
    order.sort_by(|&one, &other| p_values[one].unwrap_or(1.0).total_cmp(&p_values[other].unwrap_or(1.0)));
    let mut corrected = vec![None; p_values.len()];
    let mut greatest: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        let times = (order.len() - rank) as f64;
        greatest = greatest.max(p_values[at].unwrap_or(1.0) * times).min(1.0);
        corrected[at] = Some(greatest);
    }
    corrected
}

/// What the t-test needs to know of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    mean: f64,
    variance: f64,
    /// How many independent values it is worth.
    size: f64,
}

impl Sample {
    /// A value a run: runs are independent of each other.
    fn of_runs(side: &[Named], value: impl Fn(&Report) -> Option<f64>) -> Option<Sample> {
        let values: Vec<f64> = side.iter().filter_map(|(_, report)| value(report)).collect();
        Sample::new(&values, values.len() as f64)
    }

    /// A value a second. Only the seconds of one run hang together.
    fn of_seconds(side: &[Named], value: impl Fn(&SeriesRow) -> Option<f64>) -> Option<Sample> {
        let (mut values, mut size) = (Vec::new(), 0.0);
        for (_, report) in side {
            let run: Vec<f64> = whole_seconds(report).filter_map(&value).collect();
            size += effective_size(&run)?;
            values.extend(run);
        }
        Sample::new(&values, size)
    }

    fn new(values: &[f64], size: f64) -> Option<Sample> {
        (values.len() >= 2).then(|| {
            let (mean, variance) = moments(values);
            Sample { mean, variance, size }
        })
    }
}

/// Mean and sample variance; the variance of a single value is zero.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (mean, squares / (count - 1.0).max(1.0))
}

/// How many independent values a series of `n` is worth; `None` when that is less than [`SIZE_MIN`], so that it is too short
/// to tell. It is n / t, where the autocorrelation time t is the greatest of 1, of (1 + r) / (1 - r) with the correlation r
/// of neighbours, and of b * variance of the means of batches of b / variance of the values, over b = 2, 4, 8, …, as long
/// as there are enough batches and each is not much longer than t.
fn effective_size(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    let (_, variance) = moments(values);
    let correlation = neighbours_correlation(values);
    let mut autocorrelation_time: f64 = ((1.0 + correlation) / (1.0 - correlation)).max(1.0);
    let mut length = 2;
    while values.len() / length >= BATCHES_MIN && variance > 0.0 {
        let means: Vec<f64> = values.chunks_exact(length).map(|batch| moments(batch).0).collect();
        let time = length as f64 * moments(&means).1 / variance;
        if time * BATCH_TIMES < length as f64 {
            break;
        }
        autocorrelation_time = autocorrelation_time.max(time);
        length *= 2;
    }
    let size = count / autocorrelation_time;
    (size >= SIZE_MIN).then_some(size)
}

/// The correlation of a series' neighbours, 0 to 0.99. In a short one it comes out too low, by (1 + 4 r) / n in the mean
/// (Marriott and Pope 1954, Kendall 1954), which is added.
fn neighbours_correlation(values: &[f64]) -> f64 {
    let (mean, _) = moments(values);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    if squares <= 0.0 {
        return 0.0;
    }
    let products: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    let seen = products / squares;
    (seen + (1.0 + 4.0 * seen.max(0.0)) / values.len() as f64).clamp(0.0, 0.99)
}

/// Welch's t-test: the probability that two samples of one mean differ by so much. `None` for samples worth less than
/// two values.
fn welch(a: &Sample, b: &Sample) -> Option<f64> {
    if a.size < 2.0 || b.size < 2.0 {
        return None;
    }
    let (error_a, error_b) = (a.variance / a.size, b.variance / b.size);
    let error = error_a + error_b;
    if error <= 0.0 {
        return Some(if a.mean == b.mean { 1.0 } else { 0.0 });
    }
    let t = (a.mean - b.mean).abs() / error.sqrt();
    // The degrees of freedom of Welch and Satterthwaite.
    let freedom = error * error / (error_a * error_a / (a.size - 1.0) + error_b * error_b / (b.size - 1.0));
    let distribution = StudentsT::new(0.0, 1.0, freedom).ok()?;
    Some(2.0 * distribution.sf(t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::Run;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_pcg::Pcg64;

    /// One side of so many runs, each with a seed of its own.
    fn side(name: &str, runs: u64, run: Run) -> Vec<Named> {
        (0..runs)
            .map(|number| {
                let mut report = Run { seed: run.seed * 100 + number, ..run }.report();
                report.judge();
                (format!("{name}{number}.json"), report)
            })
            .collect()
    }

    fn findings(comparison: &Comparison) -> Vec<(&'static str, Finding)> {
        comparison.differences.iter().map(|difference| (difference.metric, difference.finding)).collect()
    }

    #[test]
    fn welchs_test_agrees_with_the_formula_worked_out_apart() {
        // t = -2.947, 27.27 degrees of freedom; the distribution's tails were integrated numerically.
        let sample = |values: &[f64]| Sample::new(values, values.len() as f64).unwrap();
        let a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4];
        let b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.5, 31.4];
        let p = welch(&sample(&a), &sample(&b)).unwrap();
        assert!((p - 0.006_500_2).abs() < 1e-6, "{p}");
        assert_eq!(welch(&sample(&[1.0, 1.0]), &sample(&[1.0, 1.0])), Some(1.0));
        assert_eq!(welch(&sample(&[1.0, 1.0]), &sample(&[2.0, 2.0])), Some(0.0));
        assert_eq!(welch(&Sample { mean: 1.0, variance: 1.0, size: 1.5 }, &sample(&[2.0, 2.0])), None);
    }

    #[test]
    fn values_that_hang_together_are_worth_less() {
        let mut random = Pcg64::seed_from_u64(1);
        let independent: Vec<f64> = (0..1_000).map(|_| random.random()).collect();
        let size = effective_size(&independent).unwrap();
        assert!((500.0..=1_000.0).contains(&size), "{size}");
        for cluster in [4, 10, 50] {
            let clustered: Vec<f64> =
                (0..200).flat_map(|_| std::iter::repeat_n(random.random::<f64>(), cluster)).collect();
            let size = effective_size(&clustered).unwrap();
            assert!((90.0..400.0).contains(&size), "200 values of {cluster} seconds each are worth {size}");
        }
        assert_eq!(
            (effective_size(&[]), effective_size(&[1.0]), effective_size(&[3.0; 100])),
            (None, None, Some(100.0))
        );
    }

    #[test]
    fn autocorrelated_series_of_one_mean_are_not_told_apart() {
        // An AR(1) process: without the correction a third of the pairs and more would differ.
        let mut random = Pcg64::seed_from_u64(7);
        let mut series = |seconds: usize, correlation: f64| {
            let mut value = 0.0;
            let mut step = || {
                value = correlation * value + random.random_range(-1.0..1.0);
                value
            };
            // It begins as it goes on.
            for _ in 0..100 {
                step();
            }
            (0..seconds).map(|_| step()).collect::<Vec<f64>>()
        };
        const PAIRS: u32 = 1_000;
        for seconds in [10, 30, 60, 300] {
            for correlation in [0.0, 0.5, 0.8, 0.9] {
                let (mut corrected, mut too_few, mut naive) = (0, 0, 0);
                for _ in 0..PAIRS {
                    let pair = [series(seconds, correlation), series(seconds, correlation)];
                    let [a, b] = pair.each_ref().map(|values| Sample::new(values, seconds as f64).unwrap());
                    naive += u32::from(welch(&a, &b).unwrap() < SIGNIFICANCE);
                    match pair.each_ref().map(|values| effective_size(values)) {
                        [Some(size_a), Some(size_b)] => {
                            let (a, b) = (Sample { size: size_a, ..a }, Sample { size: size_b, ..b });
                            corrected += u32::from(welch(&a, &b).unwrap() < SIGNIFICANCE);
                        }
                        _ => too_few += 1,
                    }
                }
                let what =
                    format!("{seconds} s, {correlation}: {corrected} differ, {naive} naively, {too_few} too few");
                assert!(corrected <= PAIRS / 40, "{what}");
                assert!(correlation < 0.8 || naive > PAIRS / 6, "{what}");
                assert!(correlation > 0.0 || seconds < 30 || too_few < PAIRS / 50, "{what}");
                assert!(seconds < 300 || too_few < PAIRS / 10, "{what}");
            }
        }
    }

    #[test]
    fn several_tests_of_one_pair_are_corrected_as_holm_has_it() {
        // Worked out by hand: the least times 4, the next times 3, and none below one before it.
        let corrected = holm(&[Some(0.01), None, Some(0.04), Some(0.03), Some(0.005)]);
        let expected = [Some(0.03), None, Some(0.06), Some(0.06), Some(0.02)];
        for (one, other) in corrected.iter().zip(expected) {
            assert!(one.zip(other).is_none_or(|(one, other)| (one - other).abs() < 1e-12), "{corrected:?}");
            assert_eq!(one.is_some(), other.is_some());
        }
        assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
        assert_eq!(holm(&[]), []);
    }

    #[test]
    fn pairs_of_equal_runs_are_seldom_told_apart_in_any_figure() {
        const PAIRS: u64 = 400;
        let (mut any, mut naively) = (0, 0);
        for pair in 0..PAIRS {
            // Six figures of four runs a side, all of one distribution and independent of each other.
            let mut random = Pcg64::seed_from_u64(pair);
            let mut sample = || {
                let values: Vec<f64> = (0..4).map(|_| random.random_range(0.0..1.0)).collect();
                Sample::new(&values, 4.0)
            };
            let p_values: Vec<Option<f64>> = (0..6).map(|_| welch(&sample().unwrap(), &sample().unwrap())).collect();
            let shows = |values: &[Option<f64>]| values.iter().flatten().any(|p| *p < SIGNIFICANCE);
            naively += u64::from(shows(&p_values));
            any += u64::from(shows(&holm(&p_values)));
        }
        assert!(naively > PAIRS / 33, "{naively} of {PAIRS} without the correction");
        assert!(any <= PAIRS / 50, "{any} of {PAIRS}");
    }

    #[test]
    fn the_seconds_of_the_drain_are_no_part_of_the_comparison() {
        let run = Run::open(20_000, 1_000.0);
        let drained = |by_number: bool| {
            let mut report = run.report();
            for t_s in 21..=28 {
                let row = SeriesRow { t_s: f64::from(t_s), sent: 0, accepted: 1, other: 0, p50: None, p99: None };
                report.series.push(row);
            }
            // By number, the last message's outcome ends the run.
            match by_number {
                true => report.elapsed_s = 28.0,
                false => report.spec["messages"] = serde_json::Value::Null,
            }
            whole_seconds(&report).count()
        };
        assert_eq!((drained(false), drained(true)), (20, 20));
    }

    #[test]
    fn runs_too_short_for_a_test_are_too_few_whatever_their_intervals_say() {
        let run = Run::open(5_000, 1_000.0);
        let slower = Run { service_us: 1_500.0, seed: 2, ..run };
        let comparison = compare(&side("a", 1, run), &side("b", 1, slower)).unwrap();
        let few = |metric: &str| comparison.differences.iter().find(|one| one.metric == metric).unwrap().finding;
        assert_eq!(["rate", "p50", "p99"].map(few), [Finding::TooFew; 3]);
        assert_eq!(few("p90"), Finding::IntervalsApart);
    }

    #[test]
    fn a_slower_server_is_told_from_the_same_one() {
        let run = Run::open(20_000, 1_000.0);
        let same = compare(&side("a", 1, run), &side("b", 1, Run { seed: 2, ..run })).unwrap();
        assert!(same.differences.iter().all(|difference| difference.finding == Finding::NotShown), "{same:?}");
        assert_eq!((same.values, &same.warnings), ("seconds", &Vec::new()));
        let slower = Run { service_us: 1_100.0, seed: 2, ..run };
        let slower = compare(&side("a", 1, run), &side("b", 1, slower)).unwrap();
        assert_eq!(
            findings(&slower),
            [
                ("rate", Finding::NotShown),
                ("p50", Finding::Different),
                ("p90", Finding::IntervalsApart),
                ("p95", Finding::IntervalsApart),
                ("p99", Finding::Different),
                ("p99.9", Finding::IntervalsApart),
            ]
        );
        assert!((slower.differences[1].change.unwrap() - 0.1).abs() < 0.02);
    }

    #[test]
    fn several_runs_a_side_are_compared_by_run() {
        let run = Run::closed(4_000, 10);
        let slower = Run { service_us: 1_100.0, seed: 2, ..run };
        let comparison = compare(&side("a", 4, run), &side("b", 4, slower)).unwrap();
        assert_eq!(comparison.values, "runs");
        assert_eq!(findings(&comparison)[..2], [("rate", Finding::Different), ("p50", Finding::Different)]);
        assert!(comparison.differences[0].change.unwrap() < -0.05);
        assert_eq!(comparison.a, ["a0.json", "a1.json", "a2.json", "a3.json"]);
    }

    #[test]
    fn what_makes_runs_incomparable_is_said() {
        let open = side("a", 1, Run::open(5_000, 1_000.0));
        let mut other = side("b", 1, Run { busy: 0.9, ..Run::closed(5_000, 10) });
        other[0].1.target = "elsewhere".into();
        let warnings = compare(&open, &other).unwrap().warnings.join("\n");
        for part in [
            "load models differ: a0.json has open constant, b0.json has closed",
            "targets differ",
            "jobs differ in connections, rate",
            "verdict on b0.json is SUSPECT",
            "b0.json has 0 whole seconds",
        ] {
            assert!(warnings.contains(part), "{part} is not in\n{warnings}");
        }
    }

    #[test]
    fn runs_without_accepted_messages_are_compared_without_a_finding() {
        let nothing = vec![("n.json".to_owned(), crate::measure::samples::nothing_accepted())];
        let comparison = compare(&nothing, &nothing).unwrap();
        assert!(findings(&comparison)[1..].iter().all(|(_, finding)| *finding == Finding::TooFew));
        assert_eq!(compare(&nothing, &[]).unwrap_err(), MergeError::None);
    }
}
