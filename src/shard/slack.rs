//! Whether a shard has time to spare.

use std::time::Duration;

use crate::time::Instant;

/// How long a shard is watched before it is judged anew: long enough that chance alone does not keep a shard that waits for a
/// tenth of its time from waiting for a twentieth.
const WINDOW: Duration = Duration::from_millis(100);
/// Of this many parts of its time a shard that is not saturated waits at least one.
const WAITED_PART: u64 = 20;

/// How much of its time a shard has waited lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slack {
    window_began: Instant,
    waited_ns: u64,
    saturated: bool,
}

impl Slack {
    /// A turn has begun at `now`, after a wait of so long.
    #[inline]
    pub fn turn(&mut self, now: Instant, waited_ns: u64) {
        self.waited_ns += waited_ns;
        let window = now - self.window_began;
        if window >= WINDOW {
            self.saturated = self.waited_ns < crate::time::duration_ns(window) / WAITED_PART;
            (self.window_began, self.waited_ns) = (now, 0);
        }
    }

    /// Whether the shard has hardly waited: what it does for accuracy's sake would cost it throughput.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.saturated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_saturated_while_it_waits_for_less_than_a_twentieth_of_its_time() {
        // The part of each turn of 100 us that is spent waiting, and whether that leaves slack.
        for (waited_us, is_none) in [(0, true), (4, true), (6, false), (90, false)] {
            let mut slack = Slack::default();
            assert!(!slack.is_none(), "a shard that has not begun has time");
            for turn in 1..10_000 {
                slack.turn(Instant::from_ns(turn * 100_000), waited_us * 1_000);
            }
            assert_eq!(slack.is_none(), is_none, "{waited_us}");
            // A pause gives it time at once.
            slack.turn(Instant::from_ns(2_000_000_000), 900_000_000);
            assert!(!slack.is_none());
        }
    }
}
