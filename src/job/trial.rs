//! What came of one trial of a search: held, failed, or unknown because the generator was the limit.

use std::time::Duration;

use crate::load::search::Outcome;
use crate::measure::confidence;
use crate::measure::report::Report;
use crate::measure::threshold::{Metric, Threshold};
use crate::measure::words;

/// Share of the due messages that may be unanswered at the end of dispatch, beside those that are then in flight.
const BEHIND_SHARE: f64 = 0.005;
/// The same in messages, where the share is less.
const BEHIND_MESSAGES: f64 = 2.0;
/// Share of its CPUs beyond which a generator is no judge of a target that failed.
const BUSY_MAX: f64 = 0.8;
/// Share of its connections that a generator needs at most to be a judge of a target that failed.
const CONNECTIONS_IN_USE_MAX: f64 = 0.8;
/// Share of the messages that a target has to accept at least where no condition is about failures.
const ACCEPTED_SHARE_MIN: f64 = 0.99;
/// The generator's standstills count from this share of the messages that decide on a condition, for the target may have
/// done the rest.
const STILL_PART: f64 = 0.5;
/// A standstill shorter than this part of a condition's bound does not decide on it.
const STILL_OF_BOUND: f64 = 0.1;

/// What is looked at of a trial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    rate_per_s: f64,
    due: u64,
    /// Due messages that had no outcome at the end of dispatch.
    behind: f64,
    /// Mean time that a message had a connection, in seconds.
    service_s: f64,
    /// The same where the target is not overloaded, as far as that is known.
    unloaded_s: Option<f64>,
    connections: f64,
    busy: f64,
    /// The longest time for which the generator itself stood still, a long turn included, in seconds.
    still_max_s: f64,
    /// The share of the time for which it did.
    still_share: f64,
    /// The least share of the messages that decides on a condition which was broken.
    decisive_share: f64,
    /// The least bound of such a condition, in seconds; zero for one that is about no time.
    bound_s: f64,
    /// Other jobs ran on the machine.
    beside_others: bool,
}

impl Figures {
    /// Of the trial at this rate that broke these conditions.
    pub(super) fn new(run: &Report, rate_per_s: f64, unloaded_s: Option<f64>, broken: &[&Threshold]) -> Figures {
        let messages = &run.messages;
        let accepted_in_drain = messages.accepted as f64 - run.rate_per_s * run.elapsed_s;
        let standstill = run.generator.standstill;
        let time = (run.elapsed_s + run.drain_s) * run.generator.shards.max(1) as f64;
        let least =
            |of: fn(&Threshold) -> f64| broken.iter().map(|condition| of(condition)).fold(f64::INFINITY, f64::min);
        Figures {
            rate_per_s,
            due: messages.asked,
            behind: accepted_in_drain + (messages.missed + messages.cut) as f64,
            service_s: run.latency_s.accepted.service.mean,
            unloaded_s,
            connections: run.connections.asked as f64,
            busy: run.generator.busiest(),
            still_max_s: (run.generator.turn_us.max / 1e6).max(standstill.longest_s),
            still_share: if time > 0.0 { standstill.sum_s / time } else { 0.0 },
            decisive_share: least(|condition| decisive_share(condition.metric)),
            bound_s: least(|condition| match condition.metric {
                Metric::Failures | Metric::Rate => 0.0,
                _ => condition.bound,
            }),
            beside_others: !run.other_jobs.is_empty(),
        }
    }

    /// Messages that may have no outcome at the end: those in flight, by Little's law, and a few.
    fn may_be_behind(&self) -> f64 {
        self.rate_per_s * self.service_s + (self.due as f64 * BEHIND_SHARE).max(BEHIND_MESSAGES)
    }

    /// Whether the generator's own standstills may have done what the target is blamed for.
    fn stood_still(&self) -> bool {
        // Where no condition was broken there is no bound.
        let is_long = self.bound_s.is_infinite() || self.still_max_s > STILL_OF_BOUND * self.bound_s;
        let has_decided = self.still_share >= STILL_PART * self.decisive_share;
        let due_in_one = self.still_max_s * self.rate_per_s;
        is_long && (has_decided || due_in_one > self.behind.max(self.due as f64 * self.decisive_share.min(0.02)))
    }
}

/// The share of all messages that, being slow, breaks a condition on this figure.
fn decisive_share(metric: Metric) -> f64 {
    match metric.quantile() {
        Some(quantile) => 1.0 - quantile,
        None if metric == Metric::Max => 0.0,
        None => 0.01,
    }
}

/// The conditions that are not true of a run.
pub(super) fn broken<'a>(slo: &'a [Threshold], run: &Report) -> Vec<&'a Threshold> {
    let is_broken = |condition: &&Threshold| !condition.metric.of(run).is_some_and(|actual| condition.holds(actual));
    slo.iter().filter(is_broken).collect()
}

/// A condition that was broken, in words.
pub(super) fn told(condition: &Threshold, run: &Report) -> String {
    let actual = match condition.metric.of(run) {
        Some(actual) => condition.metric.words(actual),
        None => "unknown, for nothing was accepted".to_owned(),
    };
    format!("{condition} was asked for, it is {actual}")
}

/// A target that refuses the load has not held it, unless a condition says how much it may refuse.
pub(super) fn refused(slo: &[Threshold], run: &Report) -> Option<String> {
    let failures = Metric::Failures.of(run)?;
    let is_judged = slo.iter().any(|condition| condition.metric == Metric::Failures);
    (!is_judged && 1.0 - failures < ACCEPTED_SHARE_MIN).then(|| {
        format!(
            "only {} of the messages were accepted; a condition such as failures<5% says how many need not be",
            words::percent(1.0 - failures)
        )
    })
}

/// Why a trial in which every condition was true does not show that it is: a percentile of too few messages.
pub(super) fn too_few_messages(slo: &[Threshold], run: &Report, rate_per_s: f64) -> Option<String> {
    let (metric, quantile) = slo
        .iter()
        .filter_map(|condition| Some((condition.metric, condition.metric.quantile()?)))
        .max_by(|one, other| one.1.total_cmp(&other.1))?;
    let (count, needed) = (run.latency_s.accepted.response.count, confidence::needed(quantile));
    let long_enough = Duration::from_secs((needed as f64 / rate_per_s).ceil().min(1e9) as u64);
    (count < needed).then(|| {
        format!(
            "{} messages are too few to tell {}, which needs {}: let the trials that confirm last {} s or more",
            words::thousands(count),
            metric.name(),
            words::thousands(needed),
            long_enough.as_secs()
        )
    })
}

/// What came of a trial that was not held for these reasons, if there are any. The generator is asked only when something
/// went wrong: what was held was held.
pub(super) fn judge(figures: &Figures, mut reasons: Vec<String>) -> (Outcome, Vec<String>) {
    let behind = figures.behind;
    if behind > figures.may_be_behind() {
        let (behind, due) = (words::thousands(behind.round() as u64), words::thousands(figures.due));
        reasons.push(format!("it fell behind: {behind} of {due} messages were unanswered at the end"));
    }
    if reasons.is_empty() {
        return (Outcome::Held, reasons);
    }
    let needed = figures.unloaded_s.map(|unloaded_s| figures.rate_per_s * unloaded_s);
    let limit = if figures.busy > BUSY_MAX {
        format!("the generator was {} busy", words::percent(figures.busy))
    } else if figures.stood_still() {
        let (longest, share) = (words::time(figures.still_max_s), words::percent(figures.still_share));
        format!("the generator itself stood still, for {longest} at the longest and {share} of the time")
    } else if let Some(needed) = needed.filter(|needed| *needed > figures.connections * CONNECTIONS_IN_USE_MAX) {
        format!("it needs {needed:.0} of the {:.0} connections, too many to tell; use more", figures.connections)
    } else if figures.beside_others {
        "other jobs ran on this machine at the same time".to_owned()
    } else {
        return (Outcome::Failed, reasons);
    };
    reasons.push(limit);
    (Outcome::Unknown, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trial of 2 s at 1,000/s that was held: a message takes 10 ms, so that ten are in flight.
    const HELD: Figures = Figures {
        rate_per_s: 1_000.0,
        due: 2_000,
        behind: 12.0,
        service_s: 0.01,
        unloaded_s: Some(0.01),
        connections: 100.0,
        busy: 0.3,
        still_max_s: 0.001,
        still_share: 0.0,
        decisive_share: 0.01,
        bound_s: 0.1,
        beside_others: false,
    };

    fn outcome(figures: Figures, broken: &[&str]) -> (Outcome, String) {
        let (outcome, reasons) = judge(&figures, broken.iter().map(ToString::to_string).collect());
        (outcome, reasons.join("; "))
    }

    #[test]
    fn what_is_in_flight_is_not_behind() {
        assert_eq!(outcome(HELD, &[]).0, Outcome::Held);
        let slow = Figures { service_s: 0.09, behind: 95.0, ..HELD };
        assert_eq!(outcome(slow, &[]).0, Outcome::Held);
    }

    #[test]
    fn a_target_that_falls_behind_or_breaks_a_condition_has_failed() {
        let (failed, reason) = outcome(Figures { behind: 60.0, ..HELD }, &[]);
        assert_eq!(failed, Outcome::Failed);
        assert!(reason.contains("60 of 2,000"), "{reason}");
        assert_eq!(outcome(HELD, &["p99"]).0, Outcome::Failed);
    }

    #[test]
    fn a_generator_that_was_the_limit_is_no_judge() {
        for (limited, word) in [
            (Figures { busy: 0.9, ..HELD }, "busy"),
            (Figures { still_max_s: 0.2, ..HELD }, "stood still"),
            (Figures { unloaded_s: Some(0.095), ..HELD }, "connections"),
        ] {
            assert_eq!(outcome(limited, &[]).0, Outcome::Held, "what was held was held");
            let (unknown, reason) = outcome(limited, &["p99"]);
            assert_eq!(unknown, Outcome::Unknown);
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn stalls_of_the_generator_count_by_the_share_that_decides() {
        // 120 ms every 1.6 s: 7.5 % of the messages, and each stall alone is no more than 2 % of a trial's.
        let stalled = Figures { still_max_s: 0.03, still_share: 0.075, bound_s: 0.05, ..HELD };
        let (unknown, reason) = outcome(stalled, &["p99"]);
        assert_eq!(unknown, Outcome::Unknown, "{reason}");
        assert!(reason.contains("stood still"), "{reason}");
        // A median is not moved by it, nor a bound of seconds.
        assert_eq!(outcome(Figures { decisive_share: 0.5, ..stalled }, &["p50"]).0, Outcome::Failed);
        assert_eq!(outcome(Figures { bound_s: 10.0, ..stalled }, &["p99"]).0, Outcome::Failed);
        assert_eq!(outcome(Figures { still_share: 0.001, still_max_s: 0.015, ..stalled }, &["p99"]).0, Outcome::Failed);
        let rare = Figures { still_share: 0.001, decisive_share: 0.001, ..stalled };
        assert_eq!(outcome(rare, &["p99.9"]).0, Outcome::Unknown);
    }
}
