//! A sink of known capacity: so many messages a second, one after the other, and no more.
//!
//! It is a token bucket of one token with a queue: the messages of all sessions and shards stand in one line, in the
//! order in which their last octet arrived, and every 1 / capacity seconds the first of them is accepted. So whoever
//! measures the sink has a truth to measure against.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;

use crate::time::Instant;

/// Highest capacity, in messages a second: beyond what a sink could serve.
pub const CAPACITY_PER_S_MAX: f64 = 1e9;

const PS_PER_S: f64 = 1e12;
const PS_PER_NS: u64 = 1_000;

/// A capacity that was asked for in a way we do not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected RATE/s[,queue=MESSAGES], such as 5000/s or 0.5/s,queue=100, with a rate above 0, got {got:?}")]
pub struct CapacityError {
    /// What came.
    got: String,
}

/// `5000/s` or `5000/s,queue=100`. Clones share one line of messages, which is how the shards of a sink do.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Picoseconds that one message takes.
    gap_ps: u64,
    /// Messages that may stand in line; one more is turned away.
    queue: u64,
    /// When the message that came last is done, in picoseconds from the sink's start: 213 days fit.
    line_ps: Arc<AtomicU64>,
}

impl FromStr for Capacity {
    type Err = CapacityError;

    fn from_str(text: &str) -> Result<Capacity, CapacityError> {
        let (rate, queue) = match text.split_once(",queue=") {
            Some((rate, queue)) => (rate, queue.parse().ok()),
            None => (text, Some(u64::MAX)),
        };
        let rate = rate.strip_suffix("/s").and_then(|rate| rate.parse::<f64>().ok());
        match (rate, queue) {
            (Some(per_s), Some(queue)) if per_s > 0.0 && per_s <= CAPACITY_PER_S_MAX => {
                // The cast saturates.
                let gap_ps = (PS_PER_S / per_s).round() as u64;
                Ok(Capacity { gap_ps, queue, line_ps: Arc::default() })
            }
            _ => Err(CapacityError { got: text.to_owned() }),
        }
    }
}

impl Capacity {
    /// A message has arrived at `now` at a sink that began at `start`: how long it takes until it is accepted, the wait
    /// in line included; `None` when the line is full.
    pub fn admit(&self, start: Instant, now: Instant) -> Option<Duration> {
        let now_ps = now.ns_since(start).saturating_mul(PS_PER_NS);
        let end_ps = |line_ps: u64| line_ps.max(now_ps).saturating_add(self.gap_ps);
        let enter = |line_ps: u64| {
            let waiting = line_ps.saturating_sub(now_ps).div_ceil(self.gap_ps);
            (waiting <= self.queue).then(|| end_ps(line_ps))
        };
        // The line's end is all that the shards tell each other: relaxed is enough.
        let before = self.line_ps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        Some(Duration::from_nanos((end_ps(before) - now_ps) / PS_PER_NS))
    }
}

/// `100/s`: so many messages a second, up to those of one second at once, and what comes on top is turned away. A token
/// bucket, shared by clones.
#[derive(Clone, Debug)]
pub struct RateLimit(Capacity);

/// A rate that was asked for in a way we do not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected RATE/s, such as 100/s or 0.5/s, with a rate above 0, got {got:?}")]
pub struct RateLimitError {
    /// What came.
    got: String,
}

impl FromStr for RateLimit {
    type Err = RateLimitError;

    fn from_str(text: &str) -> Result<RateLimit, RateLimitError> {
        let whole = |capacity: &Capacity| capacity.queue == u64::MAX;
        let capacity = text.parse::<Capacity>().ok().filter(whole).ok_or(RateLimitError { got: text.to_owned() })?;
        // A full line is a bucket that is empty.
        let queue = ((PS_PER_S as u64) / capacity.gap_ps).max(1) - 1;
        Ok(RateLimit(Capacity { queue, ..capacity }))
    }
}

impl RateLimit {
    /// A message has arrived at `now` at a sink that began at `start`: whether it is within the rate, or else how long it
    /// is until the next one would be.
    pub fn admit(&self, start: Instant, now: Instant) -> Result<(), Duration> {
        let Capacity { gap_ps, queue, .. } = self.0;
        if self.0.admit(start, now).is_some() {
            return Ok(());
        }
        let waiting_ps =
            self.0.line_ps.load(Ordering::Relaxed).saturating_sub(now.ns_since(start).saturating_mul(PS_PER_NS));
        let over_ps = waiting_ps.saturating_sub(queue * gap_ps);
        Err(Duration::from_nanos(over_ps.div_ceil(PS_PER_NS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_ns(77_000_000);

    fn capacity(text: &str) -> Capacity {
        text.parse().unwrap()
    }

    fn at_us(us: u64) -> Instant {
        START + Duration::from_micros(us)
    }

    #[test]
    fn messages_are_accepted_one_after_the_other_at_the_rate() {
        let capacity = capacity("1000/s");
        let wait = |us| capacity.admit(START, at_us(us)).unwrap().as_micros();
        assert_eq!([wait(0), wait(0), wait(500), wait(5_000)], [1_000, 2_000, 2_500, 1_000]);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_kept() {
        for per_s in [3.0, 7_919.0, 6.5e6] {
            let capacity = capacity(&format!("{per_s}/s"));
            let mut last = Duration::ZERO;
            for _ in 0..100_000 {
                last = capacity.admit(START, START).unwrap();
            }
            let ratio = 1e5 / last.as_secs_f64() / per_s;
            assert!((ratio - 1.0).abs() < 1e-5, "{ratio} of {per_s}/s");
        }
    }

    #[test]
    fn clones_stand_in_one_line() {
        let one = capacity("10/s");
        let other = one.clone();
        one.admit(START, START).unwrap();
        assert_eq!(other.admit(START, START), Some(Duration::from_millis(200)));
    }

    #[test]
    fn a_full_line_turns_messages_away_and_they_take_no_place() {
        let capacity = capacity("1000/s,queue=2");
        // One is being served, two wait.
        let admitted = |us| capacity.admit(START, at_us(us)).is_some();
        assert_eq!(
            [admitted(0), admitted(0), admitted(0), admitted(0), admitted(999)],
            [true, true, true, false, false]
        );
        assert!(admitted(1_000));
        assert_eq!(capacity.admit(START, at_us(10_000)), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_rate_lets_a_second_of_messages_through_at_once_and_says_when_the_next_one_may_come() {
        let rate: RateLimit = "4/s".parse().unwrap();
        let admit = |ms: u64| rate.admit(START, at_us(ms * 1_000)).map_err(|retry| retry.as_millis());
        assert_eq!([admit(0), admit(0), admit(0), admit(0)], [Ok(()); 4]);
        assert_eq!([admit(0), admit(100), admit(250), admit(250)], [Err(250), Err(150), Ok(()), Err(250)]);
        let seldom: RateLimit = "0.5/s".parse().unwrap();
        assert_eq!([seldom.admit(START, START), seldom.admit(START, START)], [Ok(()), Err(Duration::from_secs(2))]);
        for wrong in ["", "5", "0/s", "5/s,queue=3"] {
            let error = wrong.parse::<RateLimit>().unwrap_err().to_string();
            assert!(error.contains("expected RATE/s, such as") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn anything_else_says_what_was_expected() {
        for wrong in ["", "5000", "0/s", "-1/s", "NaN/s", "inf/s", "1e10/s", "5/s,queue=", "5/s,queue=x", "5/s,q=1"] {
            let error = wrong.parse::<Capacity>().unwrap_err().to_string();
            assert!(error.contains("RATE/s[,queue=MESSAGES]") && error.contains(wrong), "{error}");
        }
    }
}
