//! The only reader of the clock.

use std::time::SystemTime;

use nix::time::{ClockId, clock_gettime};

use crate::time::{Instant, WallTime};

/// The monotonic clock, counted from when this value was made. Copies share the origin, so that instants read on
/// different shards may be compared.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// Reads the clock. Only a shard's loop does so on a shard.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant::from_ns(crate::time::duration_ns(self.origin.elapsed()))
    }
}

/// The calendar time.
#[inline]
pub fn wall_now() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime::from_unix_ns(crate::time::duration_ns(since_epoch))
}

/// CPU time that the calling thread has used, in nanoseconds, user and system together.
pub fn thread_cpu_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}
