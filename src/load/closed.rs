//! The closed loop: the next message when a connection is free.

use std::ops::Range;
use std::sync::Arc;

use super::connections::ConnectionRamp;
use super::{MessageCounter, Ticket};
use crate::time::Instant;

/// One shard's side of a closed-loop job.
#[derive(Debug)]
pub struct ClosedLoop {
    counter: Arc<MessageCounter>,
    /// Sequence numbers taken from the counter and not yet issued.
    block: Range<u64>,
    end: Instant,
    taken: u64,
    stopped: bool,
    /// Which connections are there, where not all are all the time.
    ramp: Option<ConnectionRamp>,
}

impl ClosedLoop {
    /// Issues what `counter` gives out, and nothing at or after `end`.
    pub fn new(counter: Arc<MessageCounter>, end: Option<Instant>) -> ClosedLoop {
        ClosedLoop { counter, block: 0..0, end: end.unwrap_or(Instant::NEVER), taken: 0, stopped: false, ramp: None }
    }

    /// The same with a number of connections that goes up and down.
    pub fn with_ramp(self, ramp: ConnectionRamp) -> ClosedLoop {
        ClosedLoop { ramp: Some(ramp), ..self }
    }

    /// See [`super::Pacer::next_connected`].
    #[inline]
    pub fn next_connected(&self, slot: u32, now: Instant) -> Option<Instant> {
        self.ramp.as_ref().map_or(Some(now), |ramp| ramp.next(slot, now))
    }

    /// A ticket due at `now`; none once the messages have run out, at the end and after it, and after a stop.
    #[inline]
    pub fn take(&mut self, now: Instant) -> Option<Ticket> {
        if self.stopped || now >= self.end {
            return None;
        }
        if self.block.is_empty() {
            self.block = self.counter.take_block()?;
        }
        let sequence = self.block.start;
        self.block.start += 1;
        self.taken += 1;
        Some(Ticket { sequence, due: now })
    }

    /// Whether no ticket will be issued at `now` or later.
    #[inline]
    pub fn is_exhausted(&self, now: Instant) -> bool {
        self.stopped || now >= self.end || (self.block.is_empty() && self.counter.is_exhausted())
    }

    /// No more tickets. Numbers that this shard took from the counter and did not issue stay unused: a stop ends the
    /// job on all shards.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Tickets issued so far.
    #[inline]
    pub fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_ns(1_000);

    #[test]
    fn a_message_is_due_when_it_is_asked_for() {
        let mut closed = ClosedLoop::new(Arc::new(MessageCounter::bounded(2, 1)), None);
        let later = Instant::from_ns(5_000);
        assert_eq!(closed.take(NOW), Some(Ticket { sequence: 0, due: NOW }));
        assert!(!closed.is_exhausted(NOW));
        assert_eq!(closed.take(later), Some(Ticket { sequence: 1, due: later }));
        assert!(closed.is_exhausted(later));
        assert_eq!(closed.take(later), None);
        assert_eq!(closed.taken(), 2);
    }

    #[test]
    fn two_shards_share_one_count() {
        let counter = Arc::new(MessageCounter::bounded(1_000, 2));
        let mut shards = [ClosedLoop::new(counter.clone(), None), ClosedLoop::new(counter, None)];
        let mut sequences = Vec::new();
        // The second shard is three times as fast.
        for turn in 0.. {
            match shards[usize::from(turn % 4 != 0)].take(NOW) {
                Some(ticket) => sequences.push(ticket.sequence),
                None => break,
            }
        }
        let left: Vec<u64> =
            shards.iter_mut().flat_map(|shard| std::iter::from_fn(|| shard.take(NOW))).map(|t| t.sequence).collect();
        assert!(left.len() <= 8, "the slow shard held {} messages when the other ran dry", left.len());
        sequences.extend(left);
        sequences.sort_unstable();
        assert!(sequences.into_iter().eq(0..1_000));
    }

    #[test]
    fn nothing_is_issued_at_the_end_or_after_a_stop() {
        let mut timed = ClosedLoop::new(Arc::new(MessageCounter::unbounded()), Some(NOW));
        let before = Instant::from_ns(999);
        assert!(timed.take(before).is_some() && !timed.is_exhausted(before));
        assert!(timed.take(NOW).is_none() && timed.is_exhausted(NOW));

        let mut stopped = ClosedLoop::new(Arc::new(MessageCounter::unbounded()), None);
        stopped.stop();
        assert!(stopped.take(NOW).is_none() && stopped.is_exhausted(NOW));
        assert_eq!(stopped.taken(), 0);
    }
}
