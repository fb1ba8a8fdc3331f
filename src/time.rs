//! Time as the pure half sees it: a number that is handed in, never a clock that is read.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use jiff::Timestamp;

/// A point on a monotonic clock, in nanoseconds since an epoch that the owner of the clock chose.
///
/// The engine fills it from `CLOCK_MONOTONIC`, the simulation from a counter. All shards of a machine share one epoch,
/// so instants of different shards may be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The epoch itself.
    pub const ZERO: Instant = Instant(0);
    /// Later than every instant that is ever reached: a deadline that never comes.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The instant that lies `ns` nanoseconds after the epoch.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to `self`; zero when `earlier` is the later one.
    pub const fn ns_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::NEVER`].
    fn add(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(duration_ns(span)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// Zero when `earlier` is the later one.
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.ns_since(earlier))
    }
}

/// The whole of a duration in nanoseconds, saturating after 584 years.
pub fn duration_ns(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// A point in calendar time: nanoseconds since 1970-01-01 00:00:00 UTC. Only for what people and mail headers read;
/// durations are never computed from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(u64);

impl WallTime {
    /// The point `ns` nanoseconds after the Unix epoch.
    pub const fn from_unix_ns(ns: u64) -> WallTime {
        WallTime(ns)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_unix_ns(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// `2021-04-29T01:50:39.000001Z`: RFC 3339 in UTC, to the microsecond, always as long, so that texts are in order as
    /// their times are.
    pub fn rfc_3339(self) -> String {
        let timestamp = i64::try_from(self.0 / 1_000).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
        // A wall time ends in the year 2554, a timestamp in 9999.
        format!("{:.6}", timestamp.unwrap_or(Timestamp::MAX))
    }

    /// What [`WallTime::rfc_3339`] has written; `None` for anything that is no time after 1970.
    pub fn from_rfc_3339(text: &str) -> Option<WallTime> {
        let microseconds = u64::try_from(text.parse::<Timestamp>().ok()?.as_microsecond()).ok()?;
        Some(WallTime(microseconds.checked_mul(1_000)?))
    }
}

impl Add<Duration> for WallTime {
    type Output = WallTime;

    fn add(self, span: Duration) -> WallTime {
        WallTime(self.0.saturating_add(duration_ns(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_to_an_earlier_instant_is_zero() {
        let (early, late) = (Instant::from_ns(5), Instant::from_ns(9));
        assert_eq!(late.ns_since(early), 4);
        assert_eq!(early.ns_since(late), 0);
        assert_eq!(early - late, Duration::ZERO);
    }

    #[test]
    fn calendar_times_are_in_order_as_texts() {
        let text = |ns| WallTime::from_unix_ns(ns).rfc_3339();
        assert_eq!(text(1_619_661_039_000_001_999), "2021-04-29T01:50:39.000001Z");
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert!(text(u64::MAX).starts_with("2554-07-21T") && text(999_999_999) < text(1_000_000_000));
        let read = WallTime::from_rfc_3339(&text(1_619_661_039_000_001_999)).unwrap();
        assert_eq!(read, WallTime::from_unix_ns(1_619_661_039_000_001_000));
        assert_eq!((WallTime::from_rfc_3339("1969-12-31T23:59:59Z"), WallTime::from_rfc_3339("today")), (None, None));
    }

    #[test]
    fn never_stays_never() {
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
    }
}
