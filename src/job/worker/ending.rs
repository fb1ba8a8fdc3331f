//! How a share comes to its end: the stop, the drain, the cut, and the count of what was missed.

use super::{DRAIN, LinkState, Stage, Worker};
use crate::job::link::Links;
use crate::time::Instant;

/// Missed messages that are counted in one turn: counting those of a Poisson schedule draws each of them.
const MISSED_A_TURN_MAX: u64 = 100_000;

impl Worker {
    /// No new message from now on; those in flight have [`DRAIN`] to end.
    pub fn stop(&mut self, now: Instant, links: &mut impl Links) {
        if self.stage != Stage::Running {
            return;
        }
        self.pacer.stop(now);
        self.missed_counted = false;
        self.delta.stopped = now;
        self.stage = Stage::Draining(now + DRAIN);
        self.part_with_unneeded(now, links);
    }

    /// No message is left to be dispatched: what has none in hand is not waited for.
    pub(super) fn part_with_unneeded(&mut self, now: Instant, links: &mut impl Links) {
        self.release_idle(now, links);
        if std::mem::replace(&mut self.parted, true) {
            return;
        }
        for slot in 0..self.connections() {
            let is_paused = self.is_paused(slot);
            self.resume(slot, now);
            let this = &mut self.slots[slot as usize];
            match this.link {
                LinkState::Waiting => {
                    self.gauges.waiting -= 1;
                    self.end(slot);
                }
                LinkState::Resting => self.end(slot),
                LinkState::Dialing if this.ticket.is_none() => {
                    links.close(slot);
                    self.end(slot);
                }
                LinkState::Open if this.ticket.is_none() && (is_paused || !this.in_session) => {
                    links.close(slot);
                    self.leave_connection(slot);
                    self.end(slot);
                }
                LinkState::Dialing | LinkState::Open | LinkState::Ended => {}
            }
        }
    }

    /// Ends the sessions that nothing is left for.
    pub(super) fn release_idle(&mut self, now: Instant, links: &mut impl Links) {
        while let Some(slot) = self.pop_idle() {
            if self.is_ready(slot) {
                self.slots[slot as usize].machine.quit(now, &self.job);
                self.drain(slot, now, links);
            }
        }
    }

    /// The drain time is over: what is still in flight is cut.
    pub(super) fn cut(&mut self, links: &mut impl Links) {
        for slot in 0..self.connections() {
            let this = &mut self.slots[slot as usize];
            if this.link == LinkState::Ended {
                continue;
            }
            if let Some(ticket) = this.ticket.take() {
                self.counts(ticket).cut += 1;
            }
            links.close(slot);
            self.leave_connection(slot);
            self.end(slot);
        }
    }

    /// Counts some of what was missed, that of the warm-up first.
    pub(super) fn count_missed(&mut self) {
        if !self.warmup_counted {
            let (missed, all) = self.pacer.count_missed_in(&self.job.warmup, MISSED_A_TURN_MAX);
            self.delta.warmup.missed += missed;
            self.warmup_counted = all;
        }
        if self.warmup_counted {
            let (missed, all) = self.pacer.count_missed(MISSED_A_TURN_MAX);
            self.delta.messages.missed += missed;
            self.missed_counted = all;
        }
    }
}
