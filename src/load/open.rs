//! The open loop: messages are due on a schedule, whatever the target does.

use std::sync::Arc;

use super::arrival::{ConstantSchedule, PoissonSchedule, Schedule};
use super::stages::{StagedSchedule, Stages};
use super::warmup::WarmupEnd;
use super::{Arrival, Rate, RateError, Ticket};
use crate::time::Instant;

/// What ends an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// This many messages in the whole job, over all shards.
    Messages(u64),
    /// All messages that are due before this instant.
    Until(Instant),
}

/// What one shard needs to know of an open-loop job.
#[derive(Clone, Copy, Debug)]
pub struct OpenLoopSpec {
    /// Messages a second of the whole job, over all shards.
    pub rate_per_s: f64,
    /// How due times follow each other.
    pub arrival: Arrival,
    /// What ends the loop.
    pub limit: Limit,
    /// When the schedule begins: message 0 of a constant schedule is due here.
    pub start: Instant,
    /// Repeats a Poisson schedule; a constant one has no chance in it.
    pub seed: u64,
    /// Which shard this is, from 0.
    pub shard: u32,
    /// How many shards share the job.
    pub shards: u32,
}

/// An [`OpenLoopSpec`] that cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum OpenLoopError {
    /// The rate is out of bounds.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// There is no such shard: a fault of the generator, not of a user.
    #[error("expected a shard below the number of shards, got shard {shard} of {shards}; number shards from 0")]
    Shard {
        /// The shard asked for.
        shard: u32,
        /// The number of shards.
        shards: u32,
    },
}

/// One shard's share of an open-loop job: its messages are those whose number leaves `shard` when divided by `shards`.
///
/// Constant arrival: the shares are interleaved, and together are exactly the schedule of a single shard. Poisson: each
/// share is an independent process of rate / shards; together they are a Poisson process of the whole rate, in which
/// the numbers of messages of different shards need not follow the order of their due times.
#[derive(Debug)]
pub struct OpenLoop {
    schedule: Schedule,
    next_sequence: u64,
    step: u64,
    /// No message with this number or a higher one.
    sequence_end: u64,
    /// No message due at this instant or later.
    end: Instant,
    taken: u64,
    stopped: bool,
}

impl OpenLoop {
    /// The share that `spec` describes, with nothing taken yet.
    ///
    /// # Errors
    ///
    /// When the rate is out of bounds or there is no such shard.
    pub fn new(spec: OpenLoopSpec) -> Result<OpenLoop, OpenLoopError> {
        let OpenLoopSpec { start, seed, shard, shards, .. } = spec;
        let rate = Rate::per_second(spec.rate_per_s)?;
        if shard >= shards {
            return Err(OpenLoopError::Shard { shard, shards });
        }
        let schedule = match spec.arrival {
            Arrival::Constant => Schedule::Constant(ConstantSchedule::new(rate, start, shard, shards)),
            Arrival::Poisson => Schedule::Poisson(PoissonSchedule::new(rate, start, seed, shard, shards)),
        };
        let (sequence_end, end) = match spec.limit {
            Limit::Messages(messages) => (messages, Instant::NEVER),
            Limit::Until(end) => (u64::MAX, end),
        };
        let (next_sequence, step) = (u64::from(shard), u64::from(shards));
        Ok(OpenLoop { schedule, next_sequence, step, sequence_end, end, taken: 0, stopped: false })
    }

    /// A share, `(shard, shards)`, of a job in stages, which ends with the last of them. `start` and `seed` are those of
    /// [`OpenLoopSpec`].
    ///
    /// # Errors
    ///
    /// When there is no such shard.
    pub fn staged(
        stages: Arc<Stages>,
        arrival: Arrival,
        start: Instant,
        seed: u64,
        (shard, shards): (u32, u32),
    ) -> Result<OpenLoop, OpenLoopError> {
        if shard >= shards {
            return Err(OpenLoopError::Shard { shard, shards });
        }
        let end = start + stages.duration();
        let schedule = Schedule::Staged(StagedSchedule::new(stages, arrival, start, seed, (shard, shards)));
        let (next_sequence, step) = (u64::from(shard), u64::from(shards));
        Ok(OpenLoop { schedule, next_sequence, step, sequence_end: u64::MAX, end, taken: 0, stopped: false })
    }

    /// The earliest ticket not yet taken that is due at or before `now`, with its original due time.
    #[inline]
    pub fn take(&mut self, now: Instant) -> Option<Ticket> {
        let due = self.next_due()?;
        if due > now {
            return None;
        }
        let sequence = self.next_sequence;
        self.next_sequence = sequence.saturating_add(self.step);
        self.schedule.advance();
        self.taken += 1;
        Some(Ticket { sequence, due })
    }

    /// When the next ticket not yet taken is due, which may have been long ago; none when no ticket is left.
    #[inline]
    pub fn next_due(&self) -> Option<Instant> {
        (!self.is_exhausted()).then(|| self.schedule.due())
    }

    /// Whether no ticket will ever be issued again. Tickets due before the end stay until they are taken or the loop is
    /// stopped, so the clock alone exhausts nothing.
    #[inline]
    pub fn is_exhausted(&self) -> bool {
        self.stopped || self.next_sequence >= self.sequence_end || self.schedule.due() >= self.end
    }

    /// No more tickets: what was due before `now` and the end, and is not taken, is missed. A second stop changes
    /// nothing.
    pub fn stop(&mut self, now: Instant) {
        if !self.stopped {
            self.stopped = true;
            self.end = self.end.min(now);
        }
    }

    /// Counts tickets of this shard that were due before the end or the stop, whichever came first, and were not taken:
    /// at most `most` of them a call, none before the stop. Says how many, and whether that were all.
    ///
    /// Free at a constant rate with constant arrival. Else it draws the missed due times, some nanoseconds each: hence the slices,
    /// for nothing that is measured may wait for it.
    pub fn count_missed(&mut self, most: u64) -> (u64, bool) {
        self.count_missed_before(self.end, self.sequence_end, most)
    }

    /// The same, of the tickets that belong to the warm-up: to be called before the others are counted.
    pub fn count_missed_in(&mut self, warmup: &WarmupEnd, most: u64) -> (u64, bool) {
        let WarmupEnd { until, sequence } = *warmup;
        match sequence {
            0 => self.count_missed_before(self.end.min(until), self.sequence_end, most),
            _ => self.count_missed_before(self.end, self.sequence_end.min(sequence), most),
        }
    }

    fn count_missed_before(&mut self, horizon: Instant, sequence_end: u64, most: u64) -> (u64, bool) {
        if !self.stopped {
            return (0, false);
        }
        let (count, all) = self.schedule.count_before(horizon, self.next_sequence, self.step, sequence_end, most);
        self.next_sequence = self.next_sequence.saturating_add(count.saturating_mul(self.step));
        (count, all)
    }

    /// Tickets taken so far.
    #[inline]
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Pacer;

    const START: Instant = Instant::from_ns(1_000_000);
    const SECOND_NS: u64 = 1_000_000_000;

    fn spec(rate_per_s: f64, arrival: Arrival, limit: Limit) -> OpenLoopSpec {
        OpenLoopSpec { rate_per_s, arrival, limit, start: START, seed: 42, shard: 0, shards: 1 }
    }

    fn after_s(seconds: f64) -> Instant {
        Instant::from_ns(START.as_ns() + (seconds * SECOND_NS as f64) as u64)
    }

    /// All that was missed, counted in slices of 100.
    fn missed(open: &mut OpenLoop) -> u64 {
        let mut sum = 0;
        loop {
            let (count, all) = open.count_missed(100);
            sum += count;
            if all {
                return sum;
            }
        }
    }

    fn drain(mut open: OpenLoop, now: Instant) -> Vec<Ticket> {
        std::iter::from_fn(|| open.take(now)).collect()
    }

    #[test]
    fn the_shares_of_the_shards_are_exactly_the_constant_schedule() {
        for limit in [Limit::Messages(10_001), Limit::Until(after_s(1.3))] {
            let whole = spec(7919.0, Arrival::Constant, limit);
            let single = drain(OpenLoop::new(whole).unwrap(), Instant::NEVER);
            for shards in [2, 3, 7] {
                let share = |shard| OpenLoop::new(OpenLoopSpec { shard, shards, ..whole }).unwrap();
                let mut union: Vec<Ticket> =
                    (0..shards).flat_map(|shard| drain(share(shard), Instant::NEVER)).collect();
                union.sort_unstable_by_key(|ticket| ticket.sequence);
                assert_eq!(union, single, "{shards} shards, {limit:?}");
            }
        }
    }

    #[test]
    fn a_number_of_messages_is_split_exactly() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            for messages in [0, 1, 2, 3, 1_000, 1_001] {
                let whole = spec(100.0, arrival, Limit::Messages(messages));
                let share = |shard| OpenLoop::new(OpenLoopSpec { shard, shards: 3, ..whole }).unwrap();
                let mut sequences: Vec<u64> =
                    (0..3).flat_map(|shard| drain(share(shard), Instant::NEVER)).map(|t| t.sequence).collect();
                sequences.sort_unstable();
                assert!(sequences.into_iter().eq(0..messages), "{messages} messages, {arrival:?}");
            }
        }
    }

    #[test]
    fn a_late_taker_gets_every_ticket_with_its_original_due() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            let spec = spec(1_000.0, arrival, Limit::Until(after_s(2.0)));
            let (mut prompt, mut late) = (OpenLoop::new(spec).unwrap(), OpenLoop::new(spec).unwrap());
            let mut on_time = Vec::new();
            while let Some(due) = prompt.next_due() {
                assert_eq!(
                    prompt.take(Instant::from_ns(due.as_ns() - 1)),
                    None,
                    "a ticket is not issued before its due time"
                );
                on_time.push(prompt.take(due).unwrap());
            }
            assert!(on_time.is_sorted_by_key(|ticket| ticket.due));

            let mut delayed = Vec::new();
            for stall_end_s in [0.7, 0.9, 5.0] {
                delayed.extend(std::iter::from_fn(|| late.take(after_s(stall_end_s))));
            }
            assert_eq!(delayed, on_time);
            assert!(late.is_exhausted());
            late.stop(after_s(6.0));
            assert_eq!(missed(&mut late), 0);
        }
    }

    #[test]
    fn the_end_itself_is_not_part_of_the_run() {
        let mut open = OpenLoop::new(spec(10.0, Arrival::Constant, Limit::Until(after_s(1.0)))).unwrap();
        let tickets: Vec<_> = std::iter::from_fn(|| open.take(after_s(9.0))).collect();
        assert_eq!(tickets.len(), 10);
        assert_eq!(tickets[9].due, after_s(0.9));
        assert_eq!(open.next_due(), None);
    }

    #[test]
    fn missed_and_taken_make_up_what_was_due() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            for (stop_s, horizon_s) in [(0.37, 0.37), (1.0, 1.0), (2.5, 1.0)] {
                let spec = OpenLoopSpec { shard: 1, shards: 3, ..spec(7919.0, arrival, Limit::Until(after_s(1.0))) };
                let due = drain(OpenLoop::new(spec).unwrap(), Instant::NEVER);
                let asked = due.iter().filter(|ticket| ticket.due < after_s(horizon_s)).count() as u64;

                let mut open = OpenLoop::new(spec).unwrap();
                while open.take(after_s(0.2)).is_some() {}
                assert_eq!(open.count_missed(100), (0, false), "nothing is missed before the stop");
                open.stop(after_s(stop_s));
                open.stop(after_s(9.0));
                assert!(open.is_exhausted() && open.take(Instant::NEVER).is_none() && open.next_due().is_none());
                let missed = missed(&mut open);
                assert!(missed > 0);
                assert_eq!(open.taken() + missed, asked, "{arrival:?}, stop at {stop_s} s");
                assert_eq!(open.count_missed(100), (0, true), "each is counted once");
            }
        }
    }

    #[test]
    fn what_is_missed_of_the_warm_up_is_counted_apart() {
        for (arrival, warmup) in [(Arrival::Constant, "300ms"), (Arrival::Poisson, "300ms"), (Arrival::Poisson, "400")]
        {
            let warmup = WarmupEnd::new(Some(warmup.parse().unwrap()), START);
            let spec = OpenLoopSpec { shard: 1, shards: 3, ..spec(1_000.0, arrival, Limit::Until(after_s(1.0))) };
            let mut open = OpenLoop::new(spec).unwrap();
            (0..10).for_each(|_| assert!(open.take(Instant::NEVER).is_some()));
            let left = drain(OpenLoop::new(spec).unwrap(), Instant::NEVER).split_off(10);
            let expected = left.iter().filter(|ticket| warmup.contains(**ticket)).count() as u64;
            assert!(expected > 50);
            open.stop(after_s(5.0));
            assert_eq!(open.count_missed_in(&warmup, u64::MAX), (expected, true));
            assert_eq!(open.count_missed(u64::MAX), (left.len() as u64 - expected, true));
        }
    }

    #[test]
    fn a_stopped_number_of_messages_has_missed_only_what_was_due() {
        for arrival in [Arrival::Constant, Arrival::Poisson] {
            let spec = spec(1_000.0, arrival, Limit::Messages(500));
            let all = drain(OpenLoop::new(spec).unwrap(), Instant::NEVER);
            for stop_s in [0.1, 100.0] {
                let mut open = OpenLoop::new(spec).unwrap();
                open.stop(after_s(stop_s));
                let due = all.iter().filter(|ticket| ticket.due < after_s(stop_s)).count() as u64;
                assert_eq!(missed(&mut open), due, "{arrival:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_tickets() {
        let spec = spec(500.0, Arrival::Poisson, Limit::Messages(1_000));
        let again = drain(OpenLoop::new(spec).unwrap(), Instant::NEVER);
        assert_eq!(drain(OpenLoop::new(spec).unwrap(), Instant::NEVER), again);
        let other = OpenLoopSpec { seed: 43, ..spec };
        assert_ne!(drain(OpenLoop::new(other).unwrap(), Instant::NEVER), again);
    }

    #[test]
    fn a_spec_that_cannot_run_is_refused() {
        let good = spec(1.0, Arrival::Constant, Limit::Messages(1));
        assert!(matches!(OpenLoop::new(OpenLoopSpec { rate_per_s: 0.0, ..good }), Err(OpenLoopError::Rate(_))));
        for (shard, shards) in [(0, 0), (2, 2)] {
            let error = OpenLoop::new(OpenLoopSpec { shard, shards, ..good }).unwrap_err();
            assert_eq!(error, OpenLoopError::Shard { shard, shards });
        }
    }

    #[test]
    fn a_pacer_asks_the_loop_it_holds() {
        let open = OpenLoop::new(spec(10.0, Arrival::Constant, Limit::Until(after_s(1.0)))).unwrap();
        let mut pacer = Pacer::Open(open);
        assert_eq!(pacer.next_due(), Some(START));
        assert_eq!(pacer.take(START), Some(Ticket { sequence: 0, due: START }));
        assert!(!pacer.is_exhausted(after_s(3.0)), "tickets due before the end may still be taken");
        pacer.stop(after_s(3.0));
        assert!(pacer.is_exhausted(after_s(3.0)));
        assert_eq!((pacer.taken(), pacer.count_missed(100)), (1, (9, true)));
    }
}
