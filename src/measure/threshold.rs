//! A condition on a run's figures, such as `p99>300ms`, `failures>0.1%` or `rate<1000`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::confidence;
use super::report::Report;
use super::words;

/// Most conditions of a job of the service.
pub const THRESHOLDS_MAX: usize = 16;

/// A figure that a condition can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Median response time of accepted messages, in seconds; the others in the same way.
    P50,
    /// 90th percentile.
    P90,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
    /// 99.9th percentile.
    P99_9,
    /// The longest.
    Max,
    /// Arithmetic mean.
    Mean,
    /// The share, 0 to 1, of the messages asked for that were not accepted.
    Failures,
    /// Messages accepted a second.
    Rate,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 9] = [
        Metric::P50,
        Metric::P90,
        Metric::P95,
        Metric::P99,
        Metric::P99_9,
        Metric::Max,
        Metric::Mean,
        Metric::Failures,
        Metric::Rate,
    ];

    /// The name in conditions.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::P50 => "p50",
            Metric::P90 => "p90",
            Metric::P95 => "p95",
            Metric::P99 => "p99",
            Metric::P99_9 => "p99.9",
            Metric::Max => "max",
            Metric::Mean => "mean",
            Metric::Failures => "failures",
            Metric::Rate => "rate",
        }
    }

    /// The figure of a run: seconds, a share, or messages a second; `None` where no message was accepted that
    /// could have a time, or none was asked for.
    pub fn of(self, report: &Report) -> Option<f64> {
        let response = &report.latency_s.accepted.response;
        let time = |seconds: f64| (response.count > 0).then_some(seconds);
        match self {
            Metric::P50 => time(response.p50),
            Metric::P90 => time(response.p90),
            Metric::P95 => time(response.p95),
            Metric::P99 => time(response.p99),
            Metric::P99_9 => time(response.p99_9),
            Metric::Max => time(response.max),
            Metric::Mean => time(response.mean),
            Metric::Failures => {
                let messages = &report.messages;
                // While a run goes on, what may yet be accepted is no failure.
                let decided = messages.asked.saturating_sub(messages.undecided());
                (decided > 0).then(|| decided.saturating_sub(messages.accepted) as f64 / decided as f64)
            }
            Metric::Rate => Some(report.rate_per_s),
        }
    }

    /// The quantile that it is, a share; `None` for what is no percentile.
    pub const fn quantile(self) -> Option<f64> {
        match self {
            Metric::P50 => Some(confidence::P50),
            Metric::P90 => Some(confidence::P90),
            Metric::P95 => Some(confidence::P95),
            Metric::P99 => Some(confidence::P99),
            Metric::P99_9 => Some(confidence::P99_9),
            Metric::Max | Metric::Mean | Metric::Failures | Metric::Rate => None,
        }
    }

    /// The figure in words.
    pub fn words(self, value: f64) -> String {
        match self {
            Metric::Failures => words::percent(value),
            Metric::Rate => format!("{} a second", words::rate(value)),
            _ => words::time(value),
        }
    }

    /// A bound in the metric's unit.
    fn parse_bound(self, text: &str) -> Option<f64> {
        let (number, unit) =
            text.split_at(text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len()));
        let number: f64 = number.parse().ok()?;
        let factor = match (self, unit.trim()) {
            (Metric::Failures, "%") => 0.01,
            (Metric::Failures, "") | (Metric::Rate, "" | "/s") => 1.0,
            (Metric::Failures | Metric::Rate, _) => return None,
            (_, "us") => 1e-6,
            (_, "ms") => 1e-3,
            (_, "s") => 1.0,
            (_, "m") => 60.0,
            _ => return None,
        };
        let is_share = self != Metric::Failures || number * factor <= 1.0;
        is_share.then_some(number * factor)
    }

    const fn bound_expected(self) -> &'static str {
        match self {
            Metric::Failures => "a share, such as 0.1% or 0.001",
            Metric::Rate => "messages a second, such as 1000",
            _ => "a time with its unit (us, ms, s, m), such as 300ms",
        }
    }
}

/// How a figure is held against its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What is looked at.
    pub metric: Metric,
    /// How.
    pub comparison: Comparison,
    /// Held against what: seconds, a share, or messages a second.
    pub bound: f64,
    text: String,
}

/// A text that is no condition.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected {expected}, got {got:?}")]
pub struct ThresholdError {
    expected: String,
    got: String,
}

impl Threshold {
    /// Reads a condition: a metric, a comparison and a bound with its unit.
    pub fn parse(text: &str) -> Result<Threshold, ThresholdError> {
        let wrong = |expected: String| ThresholdError { expected, got: text.to_owned() };
        let at = text
            .find(['<', '>'])
            .ok_or_else(|| wrong("a condition such as p99>300ms, failures>0.1% or rate<1000".into()))?;
        let (name, rest) = (text[..at].trim(), &text[at..]);
        let metric = Metric::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
            wrong(format!("one of {} before the comparison", Metric::ALL.map(Metric::name).join(", ")))
        })?;
        let (comparison, bound) = match (rest.strip_prefix(">="), rest.strip_prefix("<="), &rest[..1]) {
            (Some(bound), _, _) => (Comparison::AtLeast, bound),
            (_, Some(bound), _) => (Comparison::AtMost, bound),
            (_, _, ">") => (Comparison::Above, &rest[1..]),
            _ => (Comparison::Below, &rest[1..]),
        };
        let bound = metric
            .parse_bound(bound.trim())
            .ok_or_else(|| wrong(format!("{} behind the comparison", metric.bound_expected())))?;
        Ok(Threshold { metric, comparison, bound, text: text.split_whitespace().collect() })
    }

    /// Whether the condition is true of a figure.
    pub fn holds(&self, actual: f64) -> bool {
        match self.comparison {
            Comparison::Above => actual > self.bound,
            Comparison::AtLeast => actual >= self.bound,
            Comparison::Below => actual < self.bound,
            Comparison::AtMost => actual <= self.bound,
        }
    }

    /// What came of the condition under which a run fails. A run without the figure has not shown that it passes.
    pub fn check(&self, report: &Report) -> ThresholdResult {
        let actual = self.metric.of(report);
        ThresholdResult { asked: self.text.clone(), actual, met: actual.is_some_and(|actual| !self.holds(actual)) }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What came of one condition under which a run fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ThresholdResult {
    /// The condition as it was written.
    pub asked: String,
    /// The figure: seconds, a share, or messages a second; `None` where the run has none.
    pub actual: Option<f64>,
    /// Whether the run passed: it has the figure, and the condition is not true of it.
    pub met: bool,
}

impl Report {
    /// Holds the report against conditions under which the run fails.
    pub fn check(&mut self, thresholds: &[Threshold]) {
        self.thresholds = thresholds.iter().map(|threshold| threshold.check(self)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples;

    #[test]
    fn conditions_are_read_with_their_units() {
        for (text, metric, comparison, bound) in [
            ("p99>300ms", Metric::P99, Comparison::Above, 0.3),
            ("p99.9 >= 1.5s", Metric::P99_9, Comparison::AtLeast, 1.5),
            ("max>2m", Metric::Max, Comparison::Above, 120.0),
            ("mean<=250us", Metric::Mean, Comparison::AtMost, 250e-6),
            ("failures>0.1%", Metric::Failures, Comparison::Above, 0.001),
            ("failures>=0.05", Metric::Failures, Comparison::AtLeast, 0.05),
            ("rate<1000", Metric::Rate, Comparison::Below, 1_000.0),
            (" rate < 99.5/s ", Metric::Rate, Comparison::Below, 99.5),
        ] {
            let read = Threshold::parse(text).unwrap();
            assert_eq!((read.metric, read.comparison), (metric, comparison), "{text}");
            assert!((read.bound - bound).abs() < 1e-12, "{text}: {}", read.bound);
            assert_eq!(Threshold::parse(&read.to_string()), Ok(read), "{text} is read back as it is shown");
        }
    }

    #[test]
    fn an_error_says_what_was_expected() {
        for (text, expected) in [
            ("", "a condition such as"),
            ("p99=300ms", "a condition such as"),
            ("p98>300ms", "one of p50, p90"),
            (">300ms", "one of p50, p90"),
            ("p99>300", "a time with its unit"),
            ("p99>ms", "a time with its unit"),
            ("p99>-1ms", "a time with its unit"),
            ("p99>>1ms", "a time with its unit"),
            ("p99>é", "a time with its unit"),
            ("failures>5ms", "a share"),
            ("failures>101%", "a share"),
            ("failures>inf", "a share"),
            ("rate<1%", "messages a second"),
            ("rate<1.2.3", "messages a second"),
        ] {
            let error = Threshold::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("expected {expected}")), "{text}: {error}");
        }
    }

    #[test]
    fn a_run_fails_when_the_condition_is_true_of_it() {
        let mut report = samples::open(1_000, 100.0);
        report.messages.accepted -= 2;
        report.messages.rejected += 2;
        let met = |text: &str| Threshold::parse(text).unwrap().check(&report).met;
        assert!(met("failures>0.2%") && !met("failures>=0.2%") && !met("failures>0.1%"));
        let p99 = report.latency_s.accepted.response.p99;
        assert!(met("p99>1m") && !met(&format!("p99>{}us", p99 * 1e6 * 0.99)));
        assert!(met("rate<50") && !met("rate<1000"));
    }

    #[test]
    fn a_run_without_accepted_messages_passes_no_condition_on_times() {
        let report = samples::nothing_accepted();
        let result = Threshold::parse("p99>1s").unwrap().check(&report);
        assert_eq!((result.actual, result.met), (None, false));
        assert!(!Threshold::parse("failures>0.1%").unwrap().check(&report).met);
    }
}
