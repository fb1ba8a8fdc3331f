//! The delivery audit in a report: what became of the messages that were accepted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::confidence::Intervals;
use super::histogram::Summary;

/// The name under which a report has the histogram of [`AuditArrivals::end_to_end_s`].
pub const HISTOGRAM: &str = "audit.end_to_end";

/// What was accepted, and what of it has arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditReport {
    /// The run as its stamps name it: 16 hexadecimal digits.
    pub run: String,
    /// Messages that were accepted, those of the warm-up included.
    pub accepted: u64,
    /// Those of them whose number is beyond what is told apart (2^30): nothing more is known of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untracked: u64,
    /// What has arrived; absent where no sink of this process looked for it, and `timecop audit` joins the files of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<AuditArrivals>,
}

/// What a sink has seen of a run. A message is known by its number, and counts once in `arrived`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditArrivals {
    /// Messages that have arrived at least once.
    pub arrived: u64,
    /// Messages that were accepted and have not arrived.
    pub missing: u64,
    /// Their numbers, as ranges from the first to the last, both included; at most 10,000 ranges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_sequences: Vec<[u64; 2]>,
    /// How many of the missing are in no range.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missing_unnamed: u64,
    /// Messages that have arrived though nobody saw them accepted: the reply was lost, or is still on its way.
    pub unacknowledged: u64,
    /// Copies beyond the first.
    pub duplicate: u64,
    /// Copies with another body than was sent.
    pub altered: u64,
    /// The numbers of the first 100 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altered_sequences: Vec<u64>,
    /// First copies that came more than `late_after_s` after they were sent.
    pub late: u64,
    /// What counts as late, in seconds.
    pub late_after_s: f64,
    /// First copies that came before they were sent, by clocks that disagree; they are in no percentile.
    pub skewed: u64,
    /// Messages with a stamp that the key has not made, of whatever run.
    pub forged: u64,
    /// Messages with a stamp that says something else than ours do, or with several.
    pub malformed: u64,
    /// Messages without a stamp.
    pub unstamped: u64,
    /// Messages of other runs with the same key, of which no account is kept here.
    pub other_runs: u64,
    /// What times are measured by.
    pub clock: AuditClock,
    /// From when a message's content was written to when its last octet was taken by the sink, in seconds; of first copies.
    pub end_to_end_s: Summary,
    /// The 95 % intervals of these percentiles.
    #[serde(default)]
    pub end_to_end_95: Intervals,
}

/// What end-to-end times are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditClock {
    /// The clock of the one process that sent and received: no step of the calendar time is in them.
    Monotonic,
    /// The calendar times of two processes or hosts, as far as these agree.
    Wall,
}

impl AuditClock {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            AuditClock::Monotonic => "monotonic",
            AuditClock::Wall => "wall",
        }
    }
}

impl AuditReport {
    /// Whether a message that was accepted is known to be lost, or to have arrived as another one.
    pub fn is_faulty(&self) -> bool {
        self.arrivals.as_ref().is_some_and(|arrivals| arrivals.missing > 0 || arrivals.altered > 0)
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
