//! Deadlines of a shard's connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// One deadline for each connection, most of which are put off many times before they come, if they ever do.
///
/// A connection has at most two entries in the queue, a near and a far one. Putting its deadline off leaves the entries
/// where they are, and when an entry's time has come the deadline that holds by then is looked at. So a dialogue that
/// moves its deadline with every reply costs a store, not a queue operation.
#[derive(Debug, Default)]
pub struct Timers {
    queue: BinaryHeap<Reverse<(Instant, u32)>>,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    deadline: Instant,
    /// The times for which an entry is in the queue; [`Instant::NEVER`] stands for none.
    near: Instant,
    far: Instant,
}

impl Timers {
    /// Deadlines for connections numbered below `connections`; none is set.
    pub fn new(connections: u32) -> Timers {
        let unset = Slot { deadline: Instant::NEVER, near: Instant::NEVER, far: Instant::NEVER };
        Timers { queue: BinaryHeap::new(), slots: vec![unset; connections as usize] }
    }

    /// Sets a connection's deadline in place of the one it had. [`Instant::NEVER`] takes it away.
    #[inline]
    pub fn set(&mut self, connection: u32, deadline: Instant) {
        let slot = &mut self.slots[connection as usize];
        slot.deadline = deadline;
        if deadline < slot.near.min(slot.far) {
            self.queue_entry(connection);
        }
    }

    /// Puts an entry in the queue for a deadline that is earlier than both entries. With two there already, the near
    /// one is left to come for nothing, and its place is taken.
    #[cold]
    fn queue_entry(&mut self, connection: u32) {
        let slot = &mut self.slots[connection as usize];
        if slot.far == Instant::NEVER {
            slot.far = slot.near;
        }
        slot.near = slot.deadline;
        self.queue.push(Reverse((slot.deadline, connection)));
    }

    /// When [`Timers::expired`] should be asked again, at the latest.
    #[inline]
    pub fn next(&self) -> Instant {
        self.queue.peek().map_or(Instant::NEVER, |Reverse((at, _))| *at)
    }

    /// A connection whose deadline has come by `now`; its deadline is taken away. To be asked until there is none.
    #[inline]
    pub fn expired(&mut self, now: Instant) -> Option<u32> {
        while let Some(&Reverse((at, connection))) = self.queue.peek() {
            if at > now {
                return None;
            }
            self.queue.pop();
            let slot = &mut self.slots[connection as usize];
            if slot.near == at {
                slot.near = Instant::NEVER;
            } else if slot.far == at {
                slot.far = Instant::NEVER;
            }
            if slot.deadline <= now {
                slot.deadline = Instant::NEVER;
                return Some(connection);
            }
            if slot.deadline < slot.near.min(slot.far) {
                self.queue_entry(connection);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant::from_ns(ns)
    }

    #[test]
    fn deadlines_come_in_their_order_and_once() {
        let mut timers = Timers::new(3);
        timers.set(0, at(30));
        timers.set(1, at(10));
        timers.set(2, at(20));
        assert_eq!(timers.next(), at(10));
        assert_eq!(timers.expired(at(5)), None);
        assert_eq!([timers.expired(at(25)), timers.expired(at(25)), timers.expired(at(25))], [Some(1), Some(2), None]);
        assert_eq!([timers.expired(at(99)), timers.expired(at(99))], [Some(0), None]);
    }

    #[test]
    fn a_deadline_that_is_put_off_costs_no_entry() {
        let mut timers = Timers::new(1);
        (1..=1_000).for_each(|ns| timers.set(0, at(ns)));
        assert_eq!(timers.queue.len(), 1);
        assert_eq!(timers.expired(at(999)), None);
        assert_eq!(timers.next(), at(1_000));
        assert_eq!(timers.expired(at(1_000)), Some(0));
    }

    #[test]
    fn near_and_far_deadlines_in_turn_do_not_make_the_queue_grow() {
        let mut timers = Timers::new(1);
        for turn in 1..10_000u64 {
            timers.set(0, at(turn * 10 + 1_000_000));
            timers.set(0, at(turn * 10));
            assert_eq!(timers.expired(at(turn * 10)), Some(0));
            timers.set(0, at(turn * 10 + 1_000_000));
        }
        assert!(timers.queue.len() <= 3, "{} entries", timers.queue.len());
    }

    #[test]
    fn an_earlier_deadline_wins_and_a_cancelled_one_never_comes() {
        let mut timers = Timers::new(2);
        timers.set(0, at(100));
        timers.set(0, at(10));
        timers.set(1, at(50));
        timers.set(1, Instant::NEVER);
        assert_eq!(timers.expired(at(10)), Some(0));
        assert_eq!(timers.expired(at(1_000)), None);
        assert_eq!(timers.next(), Instant::NEVER);
    }
}
