//! Warm-up: the first part of a run, which no figure shows.
//!
//! A message belongs to it by when it was due (or by its number), however late it leaves and ends: so a target that is
//! slow in its warm-up is not charged for it, and one that is slow afterwards cannot hide in it.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::Ticket;
use crate::time::Instant;

/// How long a warm-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmup {
    /// All messages that are due within so much time from the start.
    Duration(Duration),
    /// So many messages, by their numbers.
    Messages(u64),
}

/// A text that is no warm-up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a time such as 10s, or a number of messages such as 1000, got {0:?}")]
pub struct WarmupError(String);

impl FromStr for Warmup {
    type Err = WarmupError;

    fn from_str(text: &str) -> Result<Warmup, WarmupError> {
        match (text.parse(), humantime::parse_duration(text)) {
            (Ok(messages), _) => Ok(Warmup::Messages(messages)),
            (_, Ok(duration)) => Ok(Warmup::Duration(duration)),
            _ => Err(WarmupError(text.to_owned())),
        }
    }
}

/// Which tickets of a job belong to its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmupEnd {
    /// Those that are due before.
    pub(super) until: Instant,
    /// Those with a lower number.
    pub(super) sequence: u64,
}

impl WarmupEnd {
    /// The end of the warm-up of a job that begins at `start`.
    pub fn new(warmup: Option<Warmup>, start: Instant) -> WarmupEnd {
        match warmup {
            None => WarmupEnd { until: Instant::ZERO, sequence: 0 },
            Some(Warmup::Duration(duration)) => WarmupEnd { until: start + duration, sequence: 0 },
            Some(Warmup::Messages(messages)) => WarmupEnd { until: Instant::ZERO, sequence: messages },
        }
    }

    /// Whether the ticket belongs to the warm-up.
    #[inline]
    pub fn contains(&self, ticket: Ticket) -> bool {
        ticket.due < self.until || ticket.sequence < self.sequence
    }

    /// Whether there is a warm-up at all.
    pub fn exists(&self) -> bool {
        self.until > Instant::ZERO || self.sequence > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_belongs_by_its_due_time_or_its_number() {
        let start = Instant::from_ns(77);
        let ticket = |sequence, ns| Ticket { sequence, due: start + Duration::from_nanos(ns) };
        let timed = WarmupEnd::new(Some("10ns".parse().unwrap()), start);
        assert!(timed.contains(ticket(5, 9)) && !timed.contains(ticket(0, 10)));
        let counted = WarmupEnd::new(Some("10".parse().unwrap()), start);
        assert!(counted.contains(ticket(9, 99)) && !counted.contains(ticket(10, 0)));
        let none = WarmupEnd::new(None, start);
        assert!(!none.contains(Ticket { sequence: 0, due: Instant::ZERO }) && !none.exists());
    }

    #[test]
    fn times_have_units_and_numbers_none() {
        assert_eq!("1m30s".parse(), Ok(Warmup::Duration(Duration::from_secs(90))));
        assert_eq!("1000".parse(), Ok(Warmup::Messages(1_000)));
        for wrong in ["", "-1", "1.5", "10 apples"] {
            assert_eq!(wrong.parse::<Warmup>(), Err(WarmupError(wrong.into())));
        }
    }
}
