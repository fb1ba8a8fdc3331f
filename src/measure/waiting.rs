//! Messages that wait for their outcome when a second is over: of a target that hangs there is nothing else to see.

use super::histogram::{Digits, LatencyHistogram};

/// How long the messages of one shard have waited, by the clock at the end of a second.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Of those in flight, how long ago they were due.
    pub in_flight: LatencyHistogram,
    /// About how many are due and not begun.
    pub overdue: u64,
    /// How long ago the first of these was due, in nanoseconds; the others spread evenly from there until now.
    pub overdue_ns: u64,
}

impl Waiting {
    /// Nobody waits.
    pub fn new() -> Waiting {
        Waiting { in_flight: LatencyHistogram::new(Digits::Two), overdue: 0, overdue_ns: 0 }
    }

    /// Nobody waits any longer; the memory is kept.
    pub fn clear(&mut self) {
        self.in_flight.clear();
        (self.overdue, self.overdue_ns) = (0, 0);
    }

    /// About how many have waited for longer than so many nanoseconds.
    pub fn above(&self, bound_ns: u64) -> u64 {
        let overdue = match self.overdue_ns {
            oldest if oldest > bound_ns => self.overdue as f64 * (1.0 - bound_ns as f64 / oldest as f64),
            _ => 0.0,
        };
        self.in_flight.count_above(bound_ns) + overdue.round() as u64
    }

    /// How long all of them have waited, in seconds.
    pub fn sum_s(&self) -> f64 {
        let in_flight = self.in_flight.summary().mean * self.in_flight.count() as f64;
        in_flight + self.overdue as f64 * self.overdue_ns as f64 / 2e9
    }
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting::new()
    }
}
