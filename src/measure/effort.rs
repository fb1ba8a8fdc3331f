//! What measuring cost a shard, and how far it may have erred: CPU time, turns, standstills, what the kernel was short of.

use super::histogram::{Digits, LatencyHistogram};
use super::stamps::{Stamps, Writes};

/// A wait that ends later than asked by this much was a standstill.
pub const OVERSHOOT_NS_MIN: u64 = 1_000_000;
/// So was a turn of this length.
pub const STANDSTILL_TURN_NS_MIN: u64 = 10_000_000;

/// Times for which a shard neither sent nor read because it was not let run: stopped, pre-empted, or busy with one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standstill {
    /// How many.
    pub count: u64,
    /// The longest, in nanoseconds.
    pub longest_ns: u64,
    /// All of them, in nanoseconds.
    pub sum_ns: u64,
}

impl Standstill {
    /// A wait that ended so much later than it was to; a timer's usual slack is none.
    #[inline]
    pub fn overshoot(&mut self, ns: u64) {
        if ns >= OVERSHOOT_NS_MIN {
            self.add(&Standstill { count: 1, longest_ns: ns, sum_ns: ns });
        }
    }

    /// A turn of this length; one of the usual lengths is none.
    #[inline]
    pub fn turn(&mut self, ns: u64) {
        if ns >= STANDSTILL_TURN_NS_MIN {
            self.add(&Standstill { count: 1, longest_ns: ns, sum_ns: ns });
        }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Standstill) {
        self.count += other.count;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.sum_ns += other.sum_ns;
    }
}

/// The shard's own effort.
#[derive(Clone, Debug)]
pub struct Effort {
    /// CPU time of the shard's thread, user and system, in nanoseconds; of several jobs on it, each has its part.
    pub cpu_ns: u64,
    /// CPU time that the thread used before the job's drain, for whichever job.
    pub busy_ns: u64,
    /// Length of the pump's turns, the kernel's work for them included: from one arrival of completions to the next, or
    /// to where the shard had nothing to do. The error bar of every time.
    pub turns: LatencyHistogram,
    /// Times for which the shard stood still.
    pub standstill: Standstill,
    /// Times that the kernel found no receive buffer, for whichever job.
    pub buffers_exhausted: u64,
    /// Writes that the kernel did not take whole at once, for whichever job.
    pub short_writes: u64,
    /// Receives that ended though their connection goes on, and were armed again, for whichever job.
    pub rearms: u64,
    /// Deltas that control was too slow to take; their contents went with the next one.
    pub deltas_held: u64,
    /// What arrivals were timed by, for whichever job.
    pub stamps: Stamps,
    /// How writes left, for whichever job.
    pub writes: Writes,
}

impl Effort {
    pub(super) fn new() -> Effort {
        Effort {
            cpu_ns: 0,
            busy_ns: 0,
            turns: LatencyHistogram::new(Digits::Two),
            standstill: Standstill::default(),
            buffers_exhausted: 0,
            short_writes: 0,
            rearms: 0,
            deltas_held: 0,
            stamps: Stamps::default(),
            writes: Writes::default(),
        }
    }

    /// Charges CPU time that the shard has used. `part` is the job's part in it, and the sum of all jobs' parts.
    pub fn charge(&mut self, used_ns: u64, part: (u64, u64), is_draining: bool) {
        let (own, all) = part;
        self.cpu_ns += (u128::from(used_ns) * u128::from(own) / u128::from(all.max(1))) as u64;
        self.busy_ns += if is_draining { 0 } else { used_ns };
    }

    /// Back to nothing, keeping all memory.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        let turns = std::mem::replace(&mut self.turns, LatencyHistogram::new(Digits::Two));
        *self = Effort { turns, ..Effort::new() };
    }

    /// Adds what another one counted.
    pub(super) fn merge(&mut self, other: &Effort) {
        self.cpu_ns += other.cpu_ns;
        self.busy_ns += other.busy_ns;
        self.turns.merge(&other.turns);
        self.standstill.add(&other.standstill);
        self.buffers_exhausted += other.buffers_exhausted;
        self.short_writes += other.short_writes;
        self.rearms += other.rearms;
        self.deltas_held += other.deltas_held;
        self.stamps.add(&other.stamps);
        self.writes.add(&other.writes);
    }
}
