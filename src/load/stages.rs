//! Stages: an open loop whose rate goes up and down in linear ramps.
//!
//! The rate r(t) is a line from stage to stage, and Λ(t), its integral, is how many messages are due before t. Message i of
//! a constant schedule is due where Λ(t) = i; one of a Poisson process where Λ(t) is the sum of independent exponential
//! gaps of mean 1 (time-rescaling: Λ of a Poisson process's points is a Poisson process of rate 1). Within a ramp Λ is a
//! parabola, which is inverted exactly; nothing is added up from message to message.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::SeedableRng;
use thiserror::Error;

use super::arrival::{Arrival, RATE_PER_S_MAX, exponential, mix};
use crate::time::{Instant, duration_ns};

/// Most stages of a job.
pub const STAGES_MAX: usize = 1_000;

const NS_PER_S: f64 = 1e9;

/// One stage: rate or connections go in a line from those of the stage before to this one's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How long that takes; zero for a jump.
    pub duration: Duration,
    /// What there is at its end.
    pub goal: Goal,
}

/// Where a stage leads to; in all stages of a job the same kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// Open loop: so many messages a second.
    Rate(f64),
    /// Closed loop: so many connections, see [`super::connections`].
    Connections(u32),
}

impl Stage {
    /// Whether it leads to a number of connections.
    pub fn is_of_connections(&self) -> bool {
        matches!(self.goal, Goal::Connections(_))
    }

    /// The rate that it leads to, if that is what it leads to.
    fn rate_per_s(&self) -> Option<f64> {
        match self.goal {
            Goal::Rate(per_s) => Some(per_s),
            Goal::Connections(_) => None,
        }
    }
}

/// Stages that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StagesError {
    /// A text that is no list of stages.
    #[error(
        "expected TIME@RATE[,TIME@RATE...], such as 1m@1000,5m@5000, which is up to 1,000 a second in 1 minute, then to \
         5,000 in 5 minutes, or TIME@CONNECTIONSc[,...], such as 1m@50c, got {0:?}"
    )]
    Syntax(String),
    /// None, or too many.
    #[error("expected 1 to {STAGES_MAX} stages, got {0}")]
    Number(usize),
    /// A rate out of bounds.
    #[error("expected rates from 0 to {RATE_PER_S_MAX} messages a second, got {0}")]
    Rate(String),
    /// No message is ever due.
    #[error("expected stages of which at least one takes time and has a rate above 0, got none")]
    Empty,
    /// Rates and connections in one list.
    #[error("expected stages with a rate each, or with connections each, got both")]
    Mixed,
    /// No connection is ever there.
    #[error("expected stages of which at least one takes time and has connections, got none")]
    NoConnection,
}

/// Reads `1m@1000,5m@5000`, or `1m@50c,5m@50c`.
///
/// # Errors
///
/// When it is no such list. Whether its values can be is looked at by [`Stages::new`].
pub fn parse(text: &str) -> Result<Vec<Stage>, StagesError> {
    let stage = |text: &str| {
        let (duration, goal) = text.trim().split_once('@')?;
        let goal = match goal.strip_suffix('c') {
            Some(connections) => Goal::Connections(connections.parse().ok()?),
            None => Goal::Rate(goal.parse().ok()?),
        };
        Some(Stage { duration: humantime::parse_duration(duration).ok()?, goal })
    };
    text.split(',').map(stage).collect::<Option<_>>().ok_or_else(|| StagesError::Syntax(text.to_owned()))
}

/// A stage, ready to be computed with. Times are nanoseconds from the schedule's start, rates messages a nanosecond.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ramp {
    start: f64,
    length: f64,
    from: f64,
    to: f64,
    /// Messages due before it.
    before: f64,
}

impl Ramp {
    fn messages(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// Messages due before `time` from its start.
    fn messages_at(&self, time: f64) -> f64 {
        self.from * time + (self.to - self.from) / self.length * time * time / 2.0
    }

    /// When its message number `x` is due, from its start: the root of [`Ramp::messages_at`], in the form that loses no
    /// digits where the ramp is flat, and does not divide by its slope.
    #[inline]
    fn time_of(&self, x: f64) -> f64 {
        let slope = (self.to - self.from) / self.length;
        let rate = (self.from * self.from + 2.0 * slope * x).max(0.0).sqrt();
        // Only the first message of a ramp from nothing has no rate at all.
        if self.from + rate > 0.0 { (2.0 * x / (self.from + rate)).min(self.length) } else { 0.0 }
    }
}

/// All stages of a job.
#[derive(Clone, PartialEq)]
pub struct Stages {
    from_per_s: f64,
    list: Vec<Stage>,
    ramps: Vec<Ramp>,
}

impl Stages {
    /// The stages of `list`, the first of which begins at `from_per_s` messages a second.
    ///
    /// # Errors
    ///
    /// When there are none or too many, a rate is out of bounds, or no message would ever be due.
    pub fn new(from_per_s: f64, list: Vec<Stage>) -> Result<Stages, StagesError> {
        if !(1..=STAGES_MAX).contains(&list.len()) {
            return Err(StagesError::Number(list.len()));
        }
        let Some(goals) = list.iter().map(Stage::rate_per_s).collect::<Option<Vec<f64>>>() else {
            return Err(StagesError::Mixed);
        };
        let mut rates = goals.iter().copied().chain([from_per_s]);
        if let Some(wrong) = rates.find(|rate| !(0.0..=RATE_PER_S_MAX).contains(rate)) {
            return Err(StagesError::Rate(wrong.to_string()));
        }
        let mut ramps = Vec::with_capacity(list.len());
        let (mut from, mut start, mut before) = (from_per_s / NS_PER_S, 0.0, 0.0);
        for (stage, goal) in list.iter().zip(goals) {
            let to = goal / NS_PER_S;
            let ramp = Ramp { start, length: duration_ns(stage.duration) as f64, from, to, before };
            (from, start, before) = (to, start + ramp.length, before + ramp.messages());
            if ramp.messages() > 0.0 {
                ramps.push(ramp);
            }
        }
        if ramps.is_empty() { Err(StagesError::Empty) } else { Ok(Stages { from_per_s, list, ramps }) }
    }

    /// The stages as they were asked for.
    pub fn list(&self) -> &[Stage] {
        &self.list
    }

    /// The rate at which the first one begins, in messages a second.
    pub fn from_per_s(&self) -> f64 {
        self.from_per_s
    }

    /// The highest rate of all, in messages a second: where a stage ends, or where the first one begins.
    pub fn rate_per_s_max(&self) -> f64 {
        self.list.iter().filter_map(Stage::rate_per_s).fold(self.from_per_s, f64::max)
    }

    /// How long all of them take.
    pub fn duration(&self) -> Duration {
        self.list.iter().fold(Duration::ZERO, |sum, stage| sum.saturating_add(stage.duration))
    }

    /// How many messages are due within `elapsed`: the integral of the rate.
    pub fn messages_within(&self, elapsed: Duration) -> f64 {
        let elapsed = duration_ns(elapsed) as f64;
        let within = |ramp: &Ramp| match elapsed - ramp.start {
            time if time <= 0.0 => 0.0,
            time if time >= ramp.length => ramp.messages(),
            time => ramp.messages_at(time),
        };
        self.ramps.iter().map(within).sum()
    }

    /// When the point is reached where `messages` are due, in nanoseconds from the start; `None` when it never is. Looks
    /// from ramp number `at` on, and leaves there the one that it has found.
    #[inline]
    fn time_of(&self, messages: f64, at: &mut usize) -> Option<u64> {
        while let Some(ramp) = self.ramps.get(*at) {
            let x = messages - ramp.before;
            if x < ramp.messages() {
                return Some((ramp.start + ramp.time_of(x.max(0.0))) as u64);
            }
            *at += 1;
        }
        None
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} per s", self.from_per_s)?;
        self.list.iter().try_for_each(|stage| write!(f, ", {:?} to {:?}", stage.duration, stage.goal))
    }
}

/// Where a shard's next message stands in the schedule, in messages of the whole job.
#[derive(Clone, Debug)]
enum Position {
    /// The message's number, and the step to the shard's next one.
    Constant(u64, u64),
    /// The sum of exponential gaps, and their mean: the number of shards.
    Poisson(f64, f64, Pcg64),
}

/// One shard's part of a schedule in stages.
///
/// Constant arrival: shard k of n has the messages i ≡ k (mod n). Poisson: a process of its own with a share 1 / n of the
/// rate.
#[derive(Clone, Debug)]
pub(super) struct StagedSchedule {
    stages: Arc<Stages>,
    position: Position,
    ramp: usize,
    start: Instant,
    pub(super) due: Instant,
}

impl StagedSchedule {
    pub(super) fn new(
        stages: Arc<Stages>,
        arrival: Arrival,
        start: Instant,
        seed: u64,
        (shard, shards): (u32, u32),
    ) -> StagedSchedule {
        let position = match arrival {
            Arrival::Constant => Position::Constant(u64::from(shard), u64::from(shards)),
            Arrival::Poisson => {
                let mut rng = Pcg64::seed_from_u64(mix(seed ^ mix(u64::from(shard))));
                let mean = f64::from(shards);
                Position::Poisson(exponential(&mut rng) * mean, mean, rng)
            }
        };
        let mut schedule = StagedSchedule { stages, position, ramp: 0, start, due: start };
        schedule.find();
        schedule
    }

    #[inline]
    pub(super) fn advance(&mut self) {
        match &mut self.position {
            Position::Constant(next, step) => *next += *step,
            Position::Poisson(sum, mean, rng) => *sum += exponential(rng) * *mean,
        }
        self.find();
    }

    #[inline]
    fn find(&mut self) {
        let messages = match self.position {
            Position::Constant(next, _) => next as f64,
            Position::Poisson(sum, ..) => sum,
        };
        let found = self.stages.time_of(messages, &mut self.ramp);
        let due = found.map_or(Instant::NEVER, |ns| Instant::from_ns(self.start.as_ns().saturating_add(ns)));
        // Two messages closer than rounding are due together, never in the wrong order.
        self.due = due.max(self.due);
    }
}

#[cfg(test)]
mod tests {
    use super::super::arrival::tests::{A2_CRITICAL, anderson_darling};
    use super::*;
    use crate::load::{OpenLoop, Ticket};
    use rand::{RngExt, SeedableRng};

    const START: Instant = Instant::from_ns(77_000);

    fn stages(from: f64, list: &[(f64, f64)]) -> Arc<Stages> {
        let stage = |&(s, rate): &(f64, f64)| Stage { duration: Duration::from_secs_f64(s), goal: Goal::Rate(rate) };
        Arc::new(Stages::new(from, list.iter().map(stage).collect()).unwrap())
    }

    fn tickets(stages: &Arc<Stages>, arrival: Arrival, seed: u64, shards: u32) -> Vec<Ticket> {
        let share = |shard| OpenLoop::staged(Arc::clone(stages), arrival, START, seed, (shard, shards)).unwrap();
        let all = |mut open: OpenLoop| std::iter::from_fn(move || open.take(Instant::NEVER)).collect::<Vec<_>>();
        (0..shards).flat_map(|shard| all(share(shard))).collect()
    }

    fn random_stages(random: &mut Pcg64) -> Arc<Stages> {
        let rate = |random: &mut Pcg64| match random.random_range(0..4) {
            0 => 0.0,
            _ => random.random_range(0.1..20_000.0),
        };
        let from = rate(random);
        let list: Vec<(f64, f64)> = (0..random.random_range(1..8))
            .map(|_| (if random.random_bool(0.2) { 0.0 } else { random.random_range(0.001..2.0) }, rate(random)))
            .chain([(0.1, 100.0)])
            .collect();
        stages(from, &list)
    }

    #[test]
    fn a_flat_stage_is_a_constant_rate() {
        let due: Vec<u64> = tickets(&stages(1_000.0, &[(0.01, 1_000.0)]), Arrival::Constant, 1, 1)
            .iter()
            .map(|ticket| ticket.due.ns_since(START))
            .collect();
        assert_eq!(due, (0..10).map(|i| i * 1_000_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_ramp_from_nothing_follows_the_square_root() {
        // r(t) = 2 t, Λ(t) = t²: message i is due at √i.
        let tickets = tickets(&stages(0.0, &[(10.0, 20.0)]), Arrival::Constant, 1, 1);
        assert_eq!(tickets.len(), 100);
        for Ticket { sequence, due } in tickets {
            let exact = (sequence as f64).sqrt() * 1e9;
            assert!((due.ns_since(START) as f64 - exact).abs() <= 1.0, "message {sequence}");
        }
    }

    #[test]
    fn at_every_moment_as_many_are_due_as_the_integral_of_the_rate_says() {
        for seed in 0..300 {
            let mut random = Pcg64::seed_from_u64(seed);
            let stages = random_stages(&mut random);
            let tickets = tickets(&stages, Arrival::Constant, seed, 1);
            assert!(tickets.is_sorted_by_key(|ticket| ticket.due), "seed {seed}");
            for _ in 0..50 {
                let elapsed = stages.duration().mul_f64(random.random_range(0.0..1.1));
                let due = tickets.partition_point(|ticket| ticket.due < START + elapsed) as f64;
                let integral = stages.messages_within(elapsed);
                assert!((due - integral).abs() <= 1.001, "seed {seed}: {due} are due, not {integral}; {stages:?}");
            }
        }
    }

    #[test]
    fn the_shares_of_the_shards_are_exactly_the_schedule_of_one() {
        for seed in 0..50 {
            let stages = random_stages(&mut Pcg64::seed_from_u64(seed));
            let single = tickets(&stages, Arrival::Constant, seed, 1);
            for shards in [2, 3, 7] {
                let mut union = tickets(&stages, Arrival::Constant, seed, shards);
                union.sort_unstable_by_key(|ticket| ticket.sequence);
                assert_eq!(union, single, "seed {seed}, {shards} shards");
            }
        }
    }

    #[test]
    fn a_poisson_process_in_stages_is_one_of_rate_one_on_its_own_clock() {
        // Long ramps up and down, so that a wrong inversion of either shows.
        let stages = stages(0.0, &[(100.0, 8_000.0), (0.0, 3_000.0), (50.0, 500.0), (50.0, 500.0), (60.0, 0.0)]);
        let mut rejected = 0;
        for seed in 0..20 {
            let mut due: Vec<Instant> = tickets(&stages, Arrival::Poisson, seed, 3).iter().map(|t| t.due).collect();
            due.sort_unstable();
            let expected = stages.messages_within(stages.duration());
            let deviations = (due.len() as f64 - expected) / expected.sqrt();
            assert!(deviations.abs() < 4.5, "seed {seed}: {} messages, not {expected}", due.len());
            let scaled: Vec<f64> = due.iter().map(|due| stages.messages_within(*due - START) * 1e9).collect();
            let gaps: Vec<u64> = scaled.windows(2).map(|pair| (pair[1] - pair[0]) as u64).step_by(100).collect();
            assert!(gaps.len() > 4_000);
            rejected += u32::from(anderson_darling(&gaps, 1e9) > A2_CRITICAL);
        }
        // 5 % of samples are rejected where all is well: more than 4 of 20 have a chance of 0.26 %.
        assert!(rejected <= 4, "{rejected} of 20 samples rejected");
    }

    #[test]
    fn missed_and_taken_make_up_what_was_due() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            let stages = stages(100.0, &[(1.0, 5_000.0), (1.0, 0.0)]);
            let asked = tickets(&stages, arrival, 5, 1).len() as u64;
            let mut open = OpenLoop::staged(stages, arrival, START, 5, (0, 1)).unwrap();
            (0..1_000).for_each(|_| assert!(open.take(Instant::NEVER).is_some()));
            open.stop(START + Duration::from_secs(9));
            assert_eq!(open.count_missed(u64::MAX), (asked - 1_000, true), "{arrival:?}");
        }
    }

    #[test]
    fn stages_are_read_as_they_are_written() {
        let stage = |s, rate| Stage { duration: Duration::from_secs(s), goal: Goal::Rate(rate) };
        assert_eq!(parse("1m@1000, 5m@5000.5,0s@0").unwrap(), [stage(60, 1_000.0), stage(300, 5_000.5), stage(0, 0.0)]);
        let connections = Stage { duration: Duration::from_secs(60), goal: Goal::Connections(10) };
        assert_eq!(parse("1m@10c").unwrap(), [connections]);
        for wrong in ["", "1m", "1m@", "@5", "5@5", "1m@1000,", "1m@x", "1m@10 c", "1m@1.5c", "1m@-1c", "1m@c"] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains("TIME@RATE") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn stages_that_cannot_be_say_why() {
        let new = |from, list: &str| Stages::new(from, parse(list).unwrap());
        assert_eq!(Stages::new(0.0, Vec::new()), Err(StagesError::Number(0)));
        assert_eq!(new(0.0, "1s@-1"), Err(StagesError::Rate("-1".into())));
        assert_eq!(new(0.0, "1s@NaN"), Err(StagesError::Rate("NaN".into())));
        assert_eq!(new(2e8, "1s@1"), Err(StagesError::Rate("200000000".into())));
        assert_eq!(new(0.0, "0s@5"), Err(StagesError::Empty));
        assert_eq!(new(0.0, "5s@0"), Err(StagesError::Empty));
    }
}
