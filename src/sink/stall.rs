//! A time in which a sink says nothing at all.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::time::Instant;

/// A stall that was asked for in a way we do not understand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected TIME@AFTER, got {got:?}; for example 1s@5s, which is silence for 1 s from 5 s after the start of the sink"
)]
pub struct StallError {
    /// What came.
    got: String,
}

/// `1s@5s`: no reply leaves within this span; those that would are held to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// How long it lasts.
    pub length: Duration,
    /// When it begins, from the start of the sink.
    pub after: Duration,
}

impl FromStr for Stall {
    type Err = StallError;

    fn from_str(text: &str) -> Result<Stall, StallError> {
        let wrong = || StallError { got: text.into() };
        let (length, after) = text.split_once('@').ok_or_else(wrong)?;
        let duration = |text| humantime::parse_duration(text).map_err(|_| wrong());
        Ok(Stall { length: duration(length)?, after: duration(after)? })
    }
}

impl Stall {
    /// When a reply that is due at `due` goes out, if the sink started at `start`.
    #[inline]
    pub fn release(&self, start: Instant, due: Instant) -> Instant {
        let begin = start + self.after;
        let end = begin + self.length;
        if due >= begin && due < end { end } else { due }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_holds_replies_to_its_end() {
        let stall: Stall = "1s@5s".parse().unwrap();
        assert_eq!(stall, Stall { length: Duration::from_secs(1), after: Duration::from_secs(5) });
        let at = |ms: u64| Instant::from_ns(ms * 1_000_000);
        for (due, released) in [(5_999, 5_999), (6_000, 7_000), (6_999, 7_000), (7_000, 7_000), (8_000, 8_000)] {
            assert_eq!(stall.release(at(1_000), at(due)), at(released));
        }
        for wrong in ["", "5s", "5@1s", "1s@"] {
            let error = wrong.parse::<Stall>().unwrap_err().to_string();
            assert!(error.starts_with("expected TIME@AFTER, got ") && error.contains(wrong), "{error}");
        }
    }
}
