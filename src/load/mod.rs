//! When messages are sent: a [`Pacer`] hands out one [`Ticket`] for each.
//!
//! - *Closed loop* ([`ClosedLoop`]): a fixed number of connections, or one that goes up and down ([`connections`]), each
//!   sending its next message when the last one ended. The target sets the pace, so a message is due at the moment it is asked for.
//! - *Open loop* ([`OpenLoop`]): messages are due on a schedule, whatever the target does. The schedule is computed
//!   ahead and never skips or moves a message: one that found no free connection keeps its original due time, and its
//!   latency counts from there.
//!
//!   The schedule's rate is a constant one, or goes up and down in [`stages`].
//!
//! Every shard owns a pacer of its own. In a closed loop they draw on one [`MessageCounter`], in an open loop each
//! owns an exact share of the schedule. Either way no sequence number is issued twice in a job.
//!
//! # Who ends a run, and who counts what was missed
//!
//! A pacer never drops a ticket by itself. In an open loop that ends at an instant, tickets due before the end may
//! still be taken after it: the pump's last turn is always a little late, and a target that kept up must not be
//! charged for that. So the pump, in its first turn at or after the end, first hands out what is due to the connections
//! that are free, and then calls [`Pacer::stop`]. From then on nothing is issued, and [`Pacer::count_missed`] counts the
//! tickets that were due before the end (or the stop, if that came first) and not taken.
//!
//! A job of N messages that is stopped early has also messages that never became due. No pacer counts those: whoever
//! knows N, the control side, gets them as N - taken - missed. In a closed loop nothing is ever missed.

mod arrival;
mod closed;
pub mod connections;
mod counter;
mod open;
pub mod search;
pub mod stages;
pub mod warmup;

pub use arrival::{Arrival, RATE_PER_S_MAX, Rate, RateError};
pub use closed::ClosedLoop;
pub use counter::{BLOCK_MESSAGES_MAX, MessageCounter};
pub use open::{Limit, OpenLoop, OpenLoopError, OpenLoopSpec};

use warmup::WarmupEnd;

use crate::time::Instant;

/// Permission to send one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Number of the message in its job, counted from 0 over all shards.
    pub sequence: u64,
    /// When the message was to be sent. Response time counts from here, however late it leaves.
    pub due: Instant,
}

/// Decides when one shard sends the messages of one job.
#[derive(Debug)]
pub enum Pacer {
    /// The next message follows when a connection is free.
    Closed(ClosedLoop),
    /// Messages follow a schedule.
    Open(OpenLoop),
}

impl Pacer {
    /// The next ticket, when there is one at `now`. Call it when a connection is free to send.
    ///
    /// Closed loop: due at `now`. Open loop: the earliest ticket not yet taken that is due at or before `now`, with its
    /// original due time.
    #[inline]
    pub fn take(&mut self, now: Instant) -> Option<Ticket> {
        match self {
            Pacer::Closed(closed) => closed.take(now),
            Pacer::Open(open) => open.take(now),
        }
    }

    /// When the next ticket not yet taken is or was due: what the pump waits for. None in a closed loop, where a free
    /// connection is all that it takes, and when no ticket is left.
    #[inline]
    pub fn next_due(&self) -> Option<Instant> {
        match self {
            Pacer::Closed(_) => None,
            Pacer::Open(open) => open.next_due(),
        }
    }

    /// When the shard's connection `slot` is to be there next, from `now` on: `now` itself, unless their number goes up and
    /// down; `None` when it is not again.
    #[inline]
    pub fn next_connected(&self, slot: u32, now: Instant) -> Option<Instant> {
        match self {
            Pacer::Closed(closed) => closed.next_connected(slot, now),
            Pacer::Open(_) => Some(now),
        }
    }

    /// Whether no ticket will ever be issued again, now that it is `now`. A pacer that has said yes keeps saying it.
    #[inline]
    pub fn is_exhausted(&self, now: Instant) -> bool {
        match self {
            Pacer::Closed(closed) => closed.is_exhausted(now),
            Pacer::Open(open) => open.is_exhausted(),
        }
    }

    /// No more tickets. A second stop changes nothing.
    pub fn stop(&mut self, now: Instant) {
        match self {
            Pacer::Closed(closed) => closed.stop(),
            Pacer::Open(open) => open.stop(now),
        }
    }

    /// Counts tickets that were due before the end or the stop and will never be taken, at most `most` a call; says how
    /// many, and whether that were all. None before the stop, and none at all in a closed loop. See
    /// [`OpenLoop::count_missed`] for its cost.
    pub fn count_missed(&mut self, most: u64) -> (u64, bool) {
        match self {
            Pacer::Closed(_) => (0, true),
            Pacer::Open(open) => open.count_missed(most),
        }
    }

    /// The same, of the tickets that belong to the warm-up: to be called before the others are counted.
    pub fn count_missed_in(&mut self, warmup: &WarmupEnd, most: u64) -> (u64, bool) {
        match self {
            Pacer::Closed(_) => (0, true),
            Pacer::Open(open) => open.count_missed_in(warmup, most),
        }
    }

    /// Tickets taken so far from this pacer.
    #[inline]
    pub fn taken(&self) -> u64 {
        match self {
            Pacer::Closed(closed) => closed.taken(),
            Pacer::Open(open) => open.taken(),
        }
    }
}
