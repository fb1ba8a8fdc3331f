//! What was accepted and what has arrived, made one account.

use std::time::Duration;

use super::ledger::{StrayCounts, Tally};
use super::sent::Sent;
use super::sequences::Sequences;
use crate::measure::audit::{AuditArrivals, AuditClock, AuditReport};
use crate::measure::confidence::Intervals;

/// Ranges of missing messages that are named.
pub const MISSING_RANGES_MAX: usize = 10_000;

/// One side of the account: what a sink knows of a run.
#[derive(Debug)]
pub struct Arrived<'a> {
    /// The messages that have arrived.
    pub sequences: &'a Sequences,
    /// What was counted of them.
    pub tally: &'a Tally,
    /// What belongs to no run.
    pub strays: StrayCounts,
    /// After how long an arrival was late.
    pub late_after: Duration,
    /// What its times are measured by.
    pub clock: AuditClock,
}

/// Holds the accepted messages against those that have arrived.
pub fn join(accepted: &Sequences, arrived: &Arrived<'_>) -> AuditArrivals {
    let missing = accepted.without(arrived.sequences, MISSING_RANGES_MAX);
    let Tally { duplicate, altered, altered_sequences, late, skewed, end_to_end } = arrived.tally;
    let StrayCounts { forged, malformed, unstamped, other_runs } = arrived.strays;
    AuditArrivals {
        arrived: arrived.sequences.len(),
        missing: missing.count,
        missing_sequences: missing.ranges.iter().map(|range| [*range.start(), *range.end()]).collect(),
        missing_unnamed: missing.unnamed,
        unacknowledged: arrived.sequences.without(accepted, 0).count,
        duplicate: *duplicate,
        altered: *altered,
        altered_sequences: altered_sequences.clone(),
        late: *late,
        late_after_s: arrived.late_after.as_secs_f64(),
        skewed: *skewed,
        forged,
        malformed,
        unstamped,
        other_runs,
        clock: arrived.clock,
        end_to_end_s: end_to_end.summary(),
        end_to_end_95: Intervals::new(end_to_end),
    }
}

/// The account of a job, as far as this process knows it.
pub fn report(sent: &Sent) -> AuditReport {
    let arrivals = sent.here().map(|(ledger, arrivals)| {
        let arrived = Arrived {
            sequences: arrivals.sequences(),
            tally: &arrivals.tally(),
            strays: ledger.strays_since(arrivals),
            late_after: ledger.late_after(),
            clock: if arrivals.is_of_this_process() { AuditClock::Monotonic } else { AuditClock::Wall },
        };
        join(sent.accepted(), &arrived)
    });
    AuditReport {
        run: run_name(sent.run()),
        accepted: sent.accepted().len() + sent.untracked(),
        untracked: sent.untracked(),
        arrivals,
    }
}

/// A run's number as stamps have it.
pub fn run_name(run: u64) -> String {
    format!("{run:016x}")
}
