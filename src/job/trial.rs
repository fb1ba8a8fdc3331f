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
    still: Still,
    /// Whatever was wrong may be the doing of those standstills.
    still_explains: bool,
    /// Other jobs ran on the machine.
    beside_others: bool,
}

impl Figures {
    /// Of the trial at this rate that was not held for these reasons, which are about the run alone.
    pub(super) fn new(run: &Report, rate_per_s: f64, unloaded_s: Option<f64>, wrong: &[Wrong]) -> Figures {
        let messages = &run.messages;
        let accepted_in_drain = messages.accepted as f64 - run.rate_per_s * run.elapsed_s;
        let still = Still::of(run);
        Figures {
            rate_per_s,
            due: messages.asked,
            behind: accepted_in_drain + (messages.missed + messages.cut) as f64,
            service_s: run.latency_s.accepted.service.mean,
            unloaded_s,
            connections: run.connections.asked as f64,
            busy: run.generator.busiest(),
            still,
            still_explains: wrong.iter().all(|wrong| still.explains(wrong, run)),
            beside_others: !run.other_jobs.is_empty(),
        }
    }

    /// Messages that may have no outcome at the end: those in flight, by Little's law, and a few.
    fn may_be_behind(&self) -> f64 {
        self.rate_per_s * self.service_s + (self.due as f64 * BEHIND_SHARE).max(BEHIND_MESSAGES)
    }

    /// Whether the generator's own standstills may have done all that the target is blamed for.
    fn stood_still(&self) -> bool {
        let due_meanwhile = self.still.longest_s * self.rate_per_s;
        self.still.longest_s > 0.0 && self.still_explains && self.behind - due_meanwhile <= self.may_be_behind()
    }
}

/// Times for which the generator itself neither sent nor read.
#[derive(Clone, Copy, Debug)]
struct Still {
    /// The longest, in seconds.
    longest_s: f64,
    /// The part of the run that they were.
    share: f64,
}

impl Still {
    fn of(run: &Report) -> Still {
        Still { longest_s: run.generator.standstill.longest_s, share: run.standstill_share() }
    }

    /// Whether they may have done this. A target that can hold the rate ends messages that were held back for a time, and
    /// then sent at once, at most that much later, however often it happens: what waits at it after a standstill is what
    /// waited before, or what was due meanwhile, whichever is more. Nor do more messages find it full than were held
    /// back. Whatever is beyond that, the target has done.
    fn explains(self, wrong: &Wrong, run: &Report) -> bool {
        match wrong {
            Wrong::Broken(condition) => {
                let Some(actual) = condition.metric.of(run) else { return false };
                let without = match condition.metric {
                    Metric::Failures => actual - self.share,
                    Metric::Rate => actual + actual * self.share,
                    _ => actual - self.longest_s,
                };
                condition.holds(without) && self.share >= STILL_PART * decisive_share(condition.metric)
            }
            Wrong::Refused(accepted) => accepted + self.share >= ACCEPTED_SHARE_MIN,
            Wrong::GivenUp(_) => false,
        }
    }
}

/// The share of all messages that, being slow, breaks a condition on this figure.
fn decisive_share(metric: Metric) -> f64 {
    match metric.quantile() {
        Some(quantile) => 1.0 - quantile,
        None if metric == Metric::Mean => 0.01,
        None => 0.0,
    }
}

/// Something of a run for which its rate was not held.
#[derive(Clone, Debug)]
pub(super) enum Wrong<'a> {
    /// A condition that is not true of it.
    Broken(&'a Threshold),
    /// It ended before its time, for this reason.
    GivenUp(&'a str),
    /// The target refuses the load, and no condition says how much it may: this share was accepted.
    Refused(f64),
}

impl Wrong<'_> {
    /// All that is wrong with a run that was to fulfil these conditions.
    pub(super) fn all<'a>(slo: &'a [Threshold], run: &'a Report) -> Vec<Wrong<'a>> {
        let is_broken =
            |condition: &&Threshold| !condition.metric.of(run).is_some_and(|actual| condition.holds(actual));
        let broken = slo.iter().filter(is_broken).map(Wrong::Broken);
        let given_up = run.aborted.as_deref().map(Wrong::GivenUp);
        broken.chain(given_up).chain(refused(slo, run)).collect()
    }

    /// In words.
    pub(super) fn told(&self, run: &Report) -> String {
        match self {
            Wrong::Broken(condition) => {
                let actual = match condition.metric.of(run) {
                    Some(actual) => condition.metric.words(actual),
                    None => "unknown, for nothing was accepted".to_owned(),
                };
                format!("{condition} was asked for, it is {actual}")
            }
            Wrong::GivenUp(reason) => (*reason).to_owned(),
            Wrong::Refused(accepted) => format!(
                "only {} of the messages were accepted; a condition such as failures<5% says how many need not be",
                words::percent(*accepted)
            ),
        }
    }
}

/// Judged by the messages that had an outcome: what was not sent the target has not refused.
fn refused(slo: &[Threshold], run: &Report) -> Option<Wrong<'static>> {
    let messages = &run.messages;
    let answered = messages.accepted + messages.deferred + messages.rejected + messages.failed;
    let accepted = if answered == 0 { return None } else { messages.accepted as f64 / answered as f64 };
    let is_judged = slo.iter().any(|condition| condition.metric == Metric::Failures);
    (!is_judged && accepted < ACCEPTED_SHARE_MIN).then_some(Wrong::Refused(accepted))
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
        let (longest, share) = (words::time(figures.still.longest_s), words::percent(figures.still.share));
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
    use crate::measure::report::StandstillReport;
    use crate::measure::samples;

    /// A trial of 2 s at 1,000/s that was held: a message takes 10 ms, so that ten are in flight.
    const HELD: Figures = Figures {
        rate_per_s: 1_000.0,
        due: 2_000,
        behind: 12.0,
        service_s: 0.01,
        unloaded_s: Some(0.01),
        connections: 100.0,
        busy: 0.3,
        still: Still { longest_s: 0.0, share: 0.0 },
        still_explains: true,
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
        let still = Still { longest_s: 0.2, share: 0.1 };
        for (limited, word) in [
            (Figures { busy: 0.9, ..HELD }, "busy"),
            (Figures { still, ..HELD }, "stood still"),
            (Figures { unloaded_s: Some(0.095), ..HELD }, "connections"),
        ] {
            assert_eq!(outcome(limited, &[]).0, Outcome::Held, "what was held was held");
            let (unknown, reason) = outcome(limited, &["p99"]);
            assert_eq!(unknown, Outcome::Unknown);
            assert!(reason.contains(word), "{reason}");
        }
        // It has not done all of it.
        assert_eq!(outcome(Figures { still, still_explains: false, ..HELD }, &["p99"]).0, Outcome::Failed);
        // Not more messages are behind for its sake than were due meanwhile.
        assert_eq!(outcome(Figures { still, behind: 219.0, ..HELD }, &[]).0, Outcome::Unknown);
        assert_eq!(outcome(Figures { still, behind: 221.0, ..HELD }, &[]).0, Outcome::Failed);
    }

    #[test]
    fn standstills_explain_what_they_can_have_done_and_no_more() {
        // Of 5 s the generator stood still for 6 %, and 120 ms of a time may be its doing.
        let mut run = samples::open(5_000, 1_000.0);
        run.generator.standstill = StandstillReport { count: 3, longest_s: 0.12, sum_s: 0.3 };
        let explains = |run: &Report, condition: &str| {
            let condition = Threshold::parse(condition).unwrap();
            Still::of(run).explains(&Wrong::Broken(&condition), run)
        };
        run.latency_s.accepted.response.p99 = 0.36;
        assert!(explains(&run, "p99<250ms"));
        assert!(!explains(&run, "p99<230ms"), "240 ms are the target's");
        // A median is not moved by so few messages.
        run.latency_s.accepted.response.p50 = 0.2;
        assert!(!explains(&run, "p50<100ms"));
        // What arrives at once may be refused, but not more than that.
        (run.messages.accepted, run.messages.rejected) = (4_750, 250);
        assert!(explains(&run, "failures<1%"));
        (run.messages.accepted, run.messages.rejected) = (4_600, 400);
        assert!(!explains(&run, "failures<1%"));
        // Without standstills nothing is explained.
        run.generator.standstill = StandstillReport::default();
        assert!(!explains(&run, "p99<250ms"));
    }
}
