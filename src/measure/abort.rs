//! Conditions that end a run: a threshold that is held against the last seconds, over and over.
//!
//! A rule looks at whole seconds that all shards have reported, as many at once as its window is long, and at none that
//! began within its grace: so the first look is taken when grace and window are over. Of each second only two or three
//! numbers are kept: a percentile is above its bound exactly when more than its share of the values is. A message without
//! an outcome counts as slow once it has waited for longer than the bound, and as not accepted once it has for longer than
//! the window, so that a target which hangs is given up like one that is slow.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::recorder::Delta;
use super::threshold::{Comparison, Metric, Threshold, ThresholdError};
use super::words;

/// Most rules of a job.
pub const ABORT_RULES_MAX: usize = 16;
/// Longest window, and longest grace.
pub const ABORT_SPAN_MAX: Duration = Duration::from_secs(3_600);
/// The window of a rule that names none.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The grace of a rule that names none.
pub const GRACE: Duration = Duration::from_secs(5);

/// When a run is given up.
#[derive(Clone, Debug, PartialEq)]
pub struct AbortRule {
    threshold: Threshold,
    window_s: u64,
    grace_s: u64,
}

/// A rule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AbortError {
    /// Its condition is none.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// Something behind the condition.
    #[error(
        "expected window=TIME or grace=TIME behind the condition, as in failures>5%,window=10s,grace=5s, got {0:?}"
    )]
    Part(String),
    /// A span out of bounds.
    #[error("expected a {name} of whole seconds, {least} s to 1 h, got {got}")]
    Span {
        /// `window` or `grace`.
        name: &'static str,
        /// The shortest.
        least: u64,
        /// What came.
        got: String,
    },
}

impl AbortRule {
    /// Gives up when the condition is true of `window`, which begins at the end of `grace` at the earliest.
    ///
    /// # Errors
    ///
    /// When a span is no whole number of seconds, or out of bounds.
    pub fn new(threshold: Threshold, window: Duration, grace: Duration) -> Result<AbortRule, AbortError> {
        let whole = |name, span: Duration, least| match span.subsec_nanos() == 0
            && span <= ABORT_SPAN_MAX
            && span.as_secs() >= least
        {
            true => Ok(span.as_secs()),
            false => Err(AbortError::Span { name, least, got: format!("{span:?}") }),
        };
        Ok(AbortRule { threshold, window_s: whole("window", window, 1)?, grace_s: whole("grace", grace, 0)? })
    }

    /// The condition.
    pub fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    /// How many seconds at once it is held against.
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.window_s)
    }

    /// How long from the start it is not.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_s)
    }

    /// Reads `failures>5%,window=10s,grace=5s`, of which only the condition is needed.
    ///
    /// # Errors
    ///
    /// When it is no such text, or a span out of bounds.
    pub fn parse(text: &str) -> Result<AbortRule, AbortError> {
        let mut parts = text.split(',');
        let threshold = Threshold::parse(parts.next().unwrap_or_default())?;
        let (mut window, mut grace) = (WINDOW, GRACE);
        for part in parts {
            let wrong = || AbortError::Part(part.to_owned());
            let (name, span) = part.trim().split_once('=').ok_or_else(wrong)?;
            let span = humantime::parse_duration(span).map_err(|_| wrong())?;
            match name {
                "window" => window = span,
                "grace" => grace = span,
                _ => return Err(wrong()),
            }
        }
        AbortRule::new(threshold, window, grace)
    }

    /// What of a second the rule looks at.
    fn second(&self, delta: &Delta) -> Second {
        let response = &delta.accepted.response;
        // No bound is longer than the longest time that is told apart.
        let bound_ns = (self.threshold.bound * 1e9) as u64;
        Second {
            accepted: delta.messages.accepted,
            not_accepted: delta.messages.not_accepted() + delta.messages.missed + delta.messages.cut,
            above: response.count_above(bound_ns),
            waiting: delta.waiting.above(match self.threshold.metric {
                // What has no answer after a whole window is not accepted in any.
                Metric::Failures => self.window_s * 1_000_000_000,
                Metric::Mean => 0,
                _ => bound_ns,
            }),
            waiting_s: delta.waiting.sum_s(),
            sum_s: response.summary().mean * response.count() as f64,
        }
    }

    /// Whether the condition is true of a window, and what it looks like.
    fn judge(&self, seen: Second) -> Option<String> {
        let Threshold { metric, comparison, .. } = self.threshold;
        let (accepted, waiting) = (seen.accepted as f64, seen.waiting as f64);
        let failed = seen.not_accepted as f64 + waiting;
        let figure = match metric {
            Metric::Failures if accepted + failed > 0.0 => failed / (accepted + failed),
            Metric::Rate => accepted / self.window_s as f64,
            // Those that wait count once they make it worse.
            Metric::Mean if accepted + waiting > 0.0 => {
                let with_waiting = (seen.sum_s + seen.waiting_s) / (accepted + waiting);
                if accepted > 0.0 { with_waiting.max(seen.sum_s / accepted) } else { with_waiting }
            }
            Metric::Failures | Metric::Mean => return None,
            _ => {
                let above = (seen.above as f64 + waiting) / (accepted + waiting);
                return self.judge_share(above, metric, comparison);
            }
        };
        self.threshold.holds(figure).then(|| format!("{} is {}", metric.name(), metric.words(figure)))
    }

    /// The same of a percentile, by the share of the values that are above its bound.
    fn judge_share(&self, above: f64, metric: Metric, comparison: Comparison) -> Option<String> {
        let share = match metric {
            Metric::P50 => 0.5,
            Metric::P90 => 0.1,
            Metric::P95 => 0.05,
            Metric::P99 => 0.01,
            Metric::P99_9 => 0.001,
            _ => 0.0,
        };
        let is_above = matches!(comparison, Comparison::Above | Comparison::AtLeast);
        // Of no message there is no share, and no comparison is true.
        let holds = if is_above { above > share } else { above <= share };
        let bound = metric.words(self.threshold.bound);
        holds.then(|| format!("{} of the messages took more than {bound}", words::percent(above)))
    }
}

impl fmt::Display for AbortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},window={}s,grace={}s", self.threshold, self.window_s, self.grace_s)
    }
}

/// What a rule has to know of a second, or of several.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    accepted: u64,
    not_accepted: u64,
    /// Accepted ones whose response time is above the rule's bound.
    above: u64,
    /// Sum of the response times of accepted ones, in seconds.
    sum_s: f64,
    /// Messages without an outcome at its end that have waited for longer than the rule's bound; for a mean, all of them.
    waiting: u64,
    /// How long all that had none have waited, in seconds.
    waiting_s: f64,
}

impl Second {
    fn add(&mut self, other: Second) {
        self.accepted += other.accepted;
        self.not_accepted += other.not_accepted;
        self.above += other.above;
        self.sum_s += other.sum_s;
        self.waiting += other.waiting;
        self.waiting_s += other.waiting_s;
    }
}

/// One rule and the seconds that it may still have to look at.
#[derive(Debug)]
struct Watched {
    rule: AbortRule,
    /// The number of the first of `seconds`; the first of a job is 1.
    first: u64,
    seconds: VecDeque<Second>,
}

/// Holds a running job against its rules.
#[derive(Debug, Default)]
pub struct AbortWatch {
    watched: Vec<Watched>,
    /// Messages of a warm-up by number that were not yet taken.
    warm_messages: u64,
}

/// What comes before the first second that is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct WarmSpan {
    /// Length of a warm-up by time.
    pub time: Duration,
    /// Messages of one by number.
    pub messages: u64,
}

impl AbortWatch {
    /// Nothing seen yet.
    pub fn new(rules: &[AbortRule], warm: WarmSpan) -> AbortWatch {
        let warm_s = warm.time.as_secs() + u64::from(warm.time.subsec_nanos() > 0);
        let watch = |rule: &AbortRule| Watched {
            rule: rule.clone(),
            first: rule.grace_s.max(warm_s) + 1,
            seconds: VecDeque::new(),
        };
        AbortWatch { watched: rules.iter().map(watch).collect(), warm_messages: warm.messages }
    }

    /// Adds what a shard measured in second `second` of the job; the first is 1. A shard is at most a few seconds ahead
    /// of the others, so that not much more than a window is kept.
    pub fn add(&mut self, second: u64, delta: &Delta) {
        let is_warm = self.warm_messages > 0 || delta.warmup.taken > 0;
        self.warm_messages = self.warm_messages.saturating_sub(delta.warmup.taken + delta.warmup.missed);
        for Watched { rule, first, seconds } in &mut self.watched {
            // Nothing of the warm-up is looked at. Another shard may have reported later seconds by now.
            if is_warm && *first <= second {
                seconds.drain(..seconds.len().min((second + 1 - *first) as usize));
                *first = second + 1;
            }
            let Some(at) = second.checked_sub(*first) else { continue };
            let at = at as usize;
            if seconds.len() <= at {
                seconds.resize(at + 1, Second::default());
            }
            seconds[at].add(rule.second(delta));
        }
    }

    /// Looks at the seconds up to `whole`, which all shards have reported; says why the run is to be given up.
    pub fn look(&mut self, whole: u64) -> Option<String> {
        self.watched.iter_mut().find_map(|Watched { rule, first, seconds }| {
            let window = rule.window_s as usize;
            while *first + rule.window_s - 1 <= whole && seconds.len() >= window {
                let mut seen = Second::default();
                seconds.iter().take(window).for_each(|second| seen.add(*second));
                // Who waits at the end of a second does so at the end of the next one, too: the last look counts.
                let last = seconds.get(window - 1).copied().unwrap_or_default();
                (seen.waiting, seen.waiting_s) = (last.waiting, last.waiting_s);
                if let Some(figure) = rule.judge(seen) {
                    return Some(format!("{rule}: {figure} in seconds {} to {}", first, *first + rule.window_s - 1));
                }
                seconds.pop_front();
                *first += 1;
            }
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::recorder::MessageTimes;
    use crate::time::Instant;

    /// A second of messages accepted after so many milliseconds each, and of others that were rejected.
    fn second(accepted_ms: &[u64], rejected: u64) -> Delta {
        let mut delta = Delta::new();
        for ms in accepted_ms {
            let ended = Instant::from_ns(ms * 1_000_000);
            delta.message(true, MessageTimes { due: Instant::ZERO, started: None, ended });
        }
        delta.messages.accepted = accepted_ms.len() as u64;
        delta.messages.rejected = rejected;
        delta
    }

    fn watch(rule: &str, warm: WarmSpan) -> AbortWatch {
        AbortWatch::new(&[AbortRule::parse(rule).unwrap()], warm)
    }

    /// The second after which the run is given up, if it is, and why.
    fn given_up(rule: &str, seconds: impl Iterator<Item = Delta>) -> Option<(u64, String)> {
        let mut watch = watch(rule, WarmSpan::default());
        (1..).zip(seconds).find_map(|(number, delta)| {
            watch.add(number, &delta);
            watch.look(number).map(|reason| (number, reason))
        })
    }

    #[test]
    fn failures_end_a_run_when_grace_and_window_are_over() {
        let bad = || std::iter::repeat_with(|| second(&[1; 94], 6)).take(60);
        let (when, reason) = given_up("failures>5%,window=10s,grace=5s", bad()).unwrap();
        assert_eq!(when, 15);
        assert_eq!(reason, "failures>5%,window=10s,grace=5s: failures is 6.0 % in seconds 6 to 15");
        assert_eq!(given_up("failures>5%,window=1s,grace=0s", bad()).unwrap().0, 1);
        assert_eq!(given_up("failures>6%", bad()), None);
    }

    #[test]
    fn what_happens_in_the_grace_is_not_looked_at() {
        let seconds = || (1..=30).map(|number| second(&[1; 100], if number <= 5 { 1_000 } else { 0 }));
        assert_eq!(given_up("failures>5%,window=10s,grace=5s", seconds()), None);
        assert_eq!(given_up("failures>5%,window=10s,grace=4s", seconds()).unwrap().0, 14);
    }

    #[test]
    fn the_window_slides() {
        // One bad second of five in a hundred is 5 % of it, and more than 2 % of two seconds.
        let seconds = || (1..=30).map(|number| second(&[1; 100], if number == 20 { 5 } else { 0 }));
        assert_eq!(given_up("failures>1%,window=10s,grace=0s", seconds()), None);
        assert_eq!(given_up("failures>1%,window=4s,grace=0s", seconds()).unwrap().0, 20);
    }

    #[test]
    fn a_percentile_is_that_of_the_whole_window() {
        let slow = |number: u64| if number >= 10 { vec![3_000; 2] } else { vec![] };
        let seconds = || (1..=30).map(|number| second(&[&[10; 98][..], &slow(number)].concat(), 0));
        // p99 is above 2 s once two in a hundred are, over three seconds: in seconds 10 to 11 of 9 to 11.
        let (when, reason) = given_up("p99>2s,window=3s,grace=0s", seconds()).unwrap();
        assert_eq!(when, 11, "{reason}");
        assert!(reason.contains("took more than 2.00 s"), "{reason}");
        assert_eq!(given_up("p95>2s,window=3s,grace=0s", seconds()), None);
        assert_eq!(given_up("max>2s,window=3s,grace=0s", seconds()).unwrap().0, 10);
        assert_eq!(given_up("max>3100ms,window=3s,grace=0s", seconds()), None);
        assert_eq!(given_up("mean>60ms,window=1s,grace=0s", seconds()).unwrap().0, 10);
    }

    #[test]
    fn a_run_in_which_nothing_is_asked_has_a_rate_and_no_times() {
        let silence = || std::iter::repeat_with(|| second(&[], 0)).take(20);
        for rule in ["p99>1s", "failures>1%", "mean>1s", "p99<1s"] {
            assert_eq!(given_up(rule, silence()), None, "{rule}");
        }
        assert_eq!(given_up("rate<10,window=5s,grace=0s", silence()).unwrap().0, 5);
    }

    #[test]
    fn a_target_that_hangs_is_given_up() {
        // From the third second on nothing is answered: ten connections wait, and 100 messages a second fall due.
        let hanging = || {
            (1..=20).map(|number: u64| {
                let mut delta = second(if number <= 2 { &[10; 100] } else { &[] }, 0);
                let waited_ns = number.saturating_sub(2) * 1_000_000_000;
                (0..10).for_each(|_| delta.waiting.in_flight.record(waited_ns));
                (delta.waiting.overdue, delta.waiting.overdue_ns) = (number.saturating_sub(2) * 100, waited_ns);
                delta
            })
        };
        assert_eq!(given_up("p99>1s,window=2s,grace=0s", hanging()).unwrap().0, 4);
        assert_eq!(given_up("max>1s,window=2s,grace=0s", hanging()).unwrap().0, 4);
        assert_eq!(given_up("mean>1s,window=2s,grace=0s", hanging()).unwrap().0, 4);
        assert_eq!(given_up("failures>5%,window=2s,grace=0s", hanging()).unwrap().0, 5);
        assert_eq!(given_up("p99>30s,window=2s,grace=0s", hanging()), None);
    }

    #[test]
    fn nothing_of_the_warm_up_is_looked_at_though_it_hangs() {
        let slow = || second(&[3_000; 100], 0);
        let when = |warm: WarmSpan, warm_taken: fn(u64) -> u64| {
            let mut watch = watch("p99>1s,window=1s,grace=0s", warm);
            (1..=20).find(|&number| {
                let mut delta = slow();
                delta.warmup.taken = warm_taken(number);
                watch.add(number, &delta);
                watch.look(number).is_some()
            })
        };
        let by_time = WarmSpan { time: Duration::from_millis(4_500), messages: 0 };
        assert_eq!(when(by_time, |_| 0), Some(6));
        let by_number = WarmSpan { time: Duration::ZERO, messages: 20 };
        assert_eq!(when(by_number, |number| if number == 1 || number == 7 { 10 } else { 0 }), Some(8));
    }

    #[test]
    fn a_warm_second_of_one_shard_does_not_lose_later_ones_of_another() {
        let mut watch = watch("p99>1s,window=1s,grace=0s", WarmSpan::default());
        watch.add(1, &second(&[10; 100], 0));
        watch.add(2, &second(&[3_000; 100], 0));
        let mut warm = second(&[], 0);
        warm.warmup.taken = 1;
        watch.add(1, &warm);
        watch.add(2, &second(&[10; 100], 0));
        assert!(watch.look(2).is_some(), "half of what second 2 has is slow");
    }

    #[test]
    fn a_second_counts_once_all_shards_have_reported_it() {
        let mut watch = watch("rate<150,window=1s,grace=0s", WarmSpan::default());
        watch.add(1, &second(&[1; 100], 0));
        watch.add(2, &second(&[1; 100], 0));
        assert_eq!(watch.look(0), None);
        watch.add(1, &second(&[1; 100], 0));
        assert_eq!(watch.look(1), None);
        assert!(watch.look(2).is_some());
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in ["failures>5%,window=10s,grace=5s", "p99>2s,window=1s,grace=0s"] {
            assert_eq!(AbortRule::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(AbortRule::parse("p99>2s").unwrap().to_string(), "p99>2s,window=10s,grace=5s");
        for (wrong, expected) in [
            ("", "a condition"),
            ("p99>2s,window", "window=TIME"),
            ("p99>2s,wide=1s", "window=TIME"),
            ("p99>2s,window=x", "window=TIME"),
            ("p99>2s,window=0s", "1 s to 1 h"),
            ("p99>2s,window=1500ms", "whole seconds"),
            ("p99>2s,grace=2h", "0 s to 1 h"),
        ] {
            let error = AbortRule::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with("expected") && error.contains(expected), "{wrong}: {error}");
        }
    }
}
