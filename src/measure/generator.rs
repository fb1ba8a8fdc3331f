//! The generator's own effort, as a report shows it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::effort::Standstill;
use super::histogram::LatencyHistogram;
use super::report::{Asked, Report, ratio};
use super::stamps::{Stamps, TimedBy, Writes};
use super::totals::Totals;
use crate::time::Instant;

/// The generator's own effort.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Generator {
    /// CPU time of the shards for each message sent, in microseconds; over the messages of all jobs that shared them.
    pub cpu_us_per_message: f64,
    /// Shards used.
    pub shards: usize,
    /// Length of the pump's turns in microseconds: the error bar of every latency.
    pub turn_us: TurnLength,
    /// Times for which a shard stood still, which a wait's late end shows or a turn of 10 ms and more. What arrived or was
    /// due meanwhile errs by as much.
    #[serde(default)]
    pub standstill: StandstillReport,
    /// Share of their time that the shards were busy, from the first dial to the end of dispatch: CPU time over
    /// elapsed time, with that used for other jobs, since this one waits for it all the same.
    pub busy: f64,
    /// The same of the busiest shard.
    #[serde(default)]
    pub busy_max: f64,
    /// Times that the kernel found no receive buffer, other jobs on the shards included.
    pub buffers_exhausted: u64,
    /// Writes that the kernel did not take whole at once, other jobs on the shards included.
    #[serde(default)]
    pub short_writes: u64,
    /// Receives that ended though their connection went on, so that they had to be armed again, other jobs included.
    #[serde(default)]
    pub rearms: u64,
    /// Deltas that had to wait for control.
    pub deltas_held: u64,
    /// What arrivals were timed by.
    #[serde(default)]
    pub stamps: TimedBy,
    /// How many of them by which clock, those of other jobs on the shards included.
    #[serde(default)]
    pub arrivals: Stamps,
    /// Writes by how exactly it is known when they left, those of other jobs on the shards included.
    #[serde(default)]
    pub writes: Writes,
}

/// Standstills of all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StandstillReport {
    /// How many.
    pub count: u64,
    /// The longest in seconds.
    pub longest_s: f64,
    /// All of them in seconds.
    pub sum_s: f64,
}

impl StandstillReport {
    fn new(standstill: &Standstill) -> StandstillReport {
        let seconds = |ns| Duration::from_nanos(ns).as_secs_f64();
        let Standstill { count, longest_ns, sum_ns } = *standstill;
        StandstillReport { count, longest_s: seconds(longest_ns), sum_s: seconds(sum_ns) }
    }

    /// What several runs had.
    pub(super) fn sum(reports: impl Iterator<Item = StandstillReport>) -> StandstillReport {
        reports.fold(StandstillReport::default(), |one, other| StandstillReport {
            count: one.count + other.count,
            longest_s: one.longest_s.max(other.longest_s),
            sum_s: one.sum_s + other.sum_s,
        })
    }
}

impl Report {
    /// The part of the time of all shards, the drain included, for which they stood still.
    pub fn standstill_share(&self) -> f64 {
        let time_s = (self.elapsed_s + self.drain_s) * self.generator.shards.max(1) as f64;
        ratio(self.generator.standstill.sum_s, time_s).min(1.0)
    }
}

/// Lengths of turns in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct TurnLength {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl TurnLength {
    pub(super) fn new(turns: &LatencyHistogram) -> TurnLength {
        let turn = turns.summary();
        TurnLength { p50: turn.p50 * 1e6, p99: turn.p99 * 1e6, max: turn.max * 1e6 }
    }
}

impl Generator {
    /// Whether times err by some microseconds only: the kernel has stamped arrivals, and of a hundred writes hardly one
    /// was stamped together with others.
    pub fn is_exact(&self) -> bool {
        self.stamps == TimedBy::Kernel && self.writes.together <= self.writes.singly / 100
    }

    /// How busy the busiest shard was; the mean, in a report that does not say.
    pub fn busiest(&self) -> f64 {
        self.busy.max(self.busy_max)
    }

    pub(super) fn new(asked: &Asked, totals: &Totals, dispatch_end: Instant) -> Generator {
        let effort = &totals.merged.effort;
        let cpu = Duration::from_nanos(effort.cpu_ns).as_secs_f64();
        let of_a_shard = (dispatch_end - asked.dialed).as_secs_f64();
        // A run of milliseconds has its ends within the CPU time and not within the elapsed one.
        let busy = |ns, shards| ratio(Duration::from_nanos(ns).as_secs_f64(), of_a_shard * shards).min(1.0);
        Generator {
            cpu_us_per_message: ratio(cpu * 1e6, (totals.merged.messages.sent + totals.merged.warmup.sent) as f64),
            shards: asked.shards,
            turn_us: TurnLength::new(&effort.turns),
            standstill: StandstillReport::new(&effort.standstill),
            busy: busy(effort.busy_ns, asked.shards as f64),
            busy_max: busy(totals.busy_ns_max(), 1.0),
            buffers_exhausted: effort.buffers_exhausted,
            short_writes: effort.short_writes,
            rearms: effort.rearms,
            deltas_held: effort.deltas_held,
            stamps: effort.stamps.timed_by(),
            arrivals: effort.stamps,
            writes: effort.writes,
        }
    }
}
