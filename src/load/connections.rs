//! Stages of a closed loop: its number of connections goes up and down in linear ramps.
//!
//! The number c(t) is a line from stage to stage, and connection k, counted from 0, is there while c(t) is at least k + ½:
//! as many connections as c(t) rounds to. One whose time has not come, or is over, sends nothing; when it is over, its
//! message comes to its end first.

use std::sync::Arc;
use std::time::Duration;

use super::stages::{Goal, STAGES_MAX, Stage, StagesError};
use crate::time::{Instant, duration_ns};

/// A stage, ready to be computed with: times are nanoseconds from the start.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Line {
    start: f64,
    end: f64,
    from: f64,
    to: f64,
}

/// All stages of a job, the first of which begins without a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionStages {
    list: Vec<Stage>,
    /// Those that take time.
    lines: Vec<Line>,
}

impl ConnectionStages {
    /// The stages of `list`, in which every goal is a number of connections.
    ///
    /// # Errors
    ///
    /// When there are none or too many, one's goal is a rate, or no connection would ever be there.
    pub fn new(list: Vec<Stage>) -> Result<ConnectionStages, StagesError> {
        if !(1..=STAGES_MAX).contains(&list.len()) {
            return Err(StagesError::Number(list.len()));
        }
        let mut lines = Vec::with_capacity(list.len());
        let (mut from, mut start) = (0.0, 0.0);
        for stage in &list {
            let Goal::Connections(to) = stage.goal else { return Err(StagesError::Mixed) };
            let line = Line { start, end: start + duration_ns(stage.duration) as f64, from, to: f64::from(to) };
            (from, start) = (line.to, line.end);
            if line.end > line.start {
                lines.push(line);
            }
        }
        let some = lines.iter().any(|line| line.from.max(line.to) > 0.0);
        if some { Ok(ConnectionStages { list, lines }) } else { Err(StagesError::NoConnection) }
    }

    /// The stages as they were asked for.
    pub fn list(&self) -> &[Stage] {
        &self.list
    }

    /// How long all stages take.
    pub fn duration(&self) -> Duration {
        self.list.iter().fold(Duration::ZERO, |sum, stage| sum.saturating_add(stage.duration))
    }

    /// The most connections at once; at least one.
    pub fn most(&self) -> u32 {
        self.lines.iter().map(|line| line.from.max(line.to) as u32).max().unwrap_or(1)
    }

    /// When connection `number` is to be there next, from `elapsed` after the start on; `None` when it is not again.
    pub fn next(&self, number: u32, elapsed: Duration) -> Option<Duration> {
        let least = f64::from(number) + 0.5;
        let now_ns = duration_ns(elapsed);
        let now = now_ns as f64;
        let first = self.lines.partition_point(|line| line.end <= now);
        for line in &self.lines[first..] {
            let slope = (line.to - line.from) / (line.end - line.start);
            let at = line.start.max(now);
            if line.from + slope * (at - line.start) >= least {
                return Some(Duration::from_nanos(at as u64).max(elapsed));
            }
            if line.to >= least {
                // It rises to there; rounding must not let it come before `elapsed`.
                let at = (line.start + (least - line.from) / slope).ceil() as u64;
                return Some(Duration::from_nanos(at.max(now_ns + 1)));
            }
        }
        None
    }
}

/// One shard's part of the connections, of which it has every so-many-th.
#[derive(Clone, Debug)]
pub struct ConnectionRamp {
    stages: Arc<ConnectionStages>,
    start: Instant,
    shard: u32,
    shards: u32,
}

impl ConnectionRamp {
    /// The share of `shard`, one of `shards`, in a job that begins at `start`.
    pub fn new(stages: Arc<ConnectionStages>, start: Instant, (shard, shards): (u32, u32)) -> ConnectionRamp {
        ConnectionRamp { stages, start, shard, shards }
    }

    /// When the shard's connection `slot` is to be there next, from `now` on: `now` itself while it is; `None` when it is
    /// not again.
    pub fn next(&self, slot: u32, now: Instant) -> Option<Instant> {
        let number = slot * self.shards + self.shard;
        let elapsed = Duration::from_nanos(now.ns_since(self.start));
        Some(self.start + self.stages.next(number, elapsed)?).map(|at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::stages::parse;

    fn stages(text: &str) -> ConnectionStages {
        ConnectionStages::new(parse(text).unwrap()).unwrap()
    }

    /// How many connections are there so many milliseconds after the start.
    fn there(stages: &ConnectionStages, ms: u64) -> usize {
        let at = Duration::from_millis(ms);
        (0..stages.most()).filter(|&number| stages.next(number, at) == Some(at)).count()
    }

    #[test]
    fn the_number_follows_the_line() {
        let ramp = stages("10s@100c,10s@100c,0s@20c,5s@20c,10s@0c");
        assert_eq!((ramp.most(), ramp.duration()), (100, Duration::from_secs(35)));
        for (ms, number) in [
            (0, 0),
            (49, 0),
            (51, 1),
            (5_000, 50),
            (9_949, 99),
            (9_951, 100),
            (15_000, 100),
            (19_999, 100),
            (20_000, 20),
            (24_999, 20),
            (30_000, 10),
            (34_700, 1),
            (34_800, 0),
            (35_000, 0),
        ] {
            assert_eq!(there(&ramp, ms), number, "after {ms} ms");
        }
    }

    #[test]
    fn a_connection_is_told_when_its_time_comes() {
        let ramp = stages("10s@10c,10s@0c,10s@10c");
        let next = |number, s| ramp.next(number, Duration::from_secs(s)).map(|at| at.as_millis());
        assert_eq!(next(0, 0), Some(500));
        assert_eq!(next(9, 0), Some(9_500));
        assert_eq!(next(9, 11), Some(29_500), "it went, and comes again");
        assert_eq!(next(4, 15), Some(15_000), "it is still there");
        assert_eq!(next(5, 15), Some(25_500));
        assert_eq!(next(0, 30), None);
        let falling = stages("0s@10c,10s@0c");
        assert_eq!(falling.next(9, Duration::from_secs(1)), None, "it does not come again");
    }

    #[test]
    fn whoever_waits_until_then_is_there() {
        let ramp = stages("7s@13c,3s@5c,0s@1c,11s@17c,1s@3c");
        for number in 0..ramp.most() {
            let mut at = Duration::ZERO;
            let mut steps = 0;
            while let Some(next) = ramp.next(number, at) {
                assert!(next >= at, "{number}: {next:?} is before {at:?}");
                // A nanosecond more at most: rounding.
                at = if next == at { at + Duration::from_millis(97) } else { next };
                steps += 1;
                assert!(steps < 1_000, "{number} does not come to an end");
            }
        }
    }

    #[test]
    fn shards_share_the_connections_evenly() {
        let all = Arc::new(stages("10s@100c"));
        let start = Instant::from_ns(5_000);
        let now = start + Duration::from_millis(5_030);
        let on = |shard| {
            let ramp = ConnectionRamp::new(Arc::clone(&all), start, (shard, 3));
            (0..34).filter(|&slot| ramp.next(slot, now) == Some(now)).count()
        };
        assert_eq!([on(0), on(1), on(2)], [17, 17, 16]);
    }

    #[test]
    fn stages_that_cannot_be_are_refused() {
        let refused = |text: &str| ConnectionStages::new(parse(text).unwrap()).unwrap_err();
        assert_eq!(refused("1m@5c,1m@5"), StagesError::Mixed);
        assert_eq!(refused("1m@0c"), StagesError::NoConnection);
        assert_eq!(refused("0s@10c"), StagesError::NoConnection);
        assert_eq!(ConnectionStages::new(Vec::new()), Err(StagesError::Number(0)));
    }
}
