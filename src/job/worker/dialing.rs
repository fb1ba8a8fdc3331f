//! Connections come and go: when a slot dials, waits before it tries again, and is no longer needed.

use std::time::Duration;

use super::{BACKOFF_FIRST, BACKOFF_MAX, LinkState, Machine, Stage, Worker};
use crate::job::link::Links;
use crate::time::Instant;

impl Worker {
    /// The session is over: close, then connect again where there is something left to do.
    pub(super) fn hang_up(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        links.close(slot);
        self.leave_connection(slot);
        self.reconnect(slot, now, links);
    }

    /// Takes a connection that is being closed out of the gauges.
    pub(super) fn leave_connection(&mut self, slot: u32) {
        self.gauges.open -= u64::from(self.slots[slot as usize].link == LinkState::Open);
        if std::mem::take(&mut self.slots[slot as usize].in_session) {
            self.gauges.held -= 1;
        }
    }

    pub(super) fn reconnect(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        let has_message = self.slots[slot as usize].ticket.is_some();
        debug_assert!(!has_message || self.stage == Stage::Running);
        if !has_message && (self.stage != Stage::Running || self.pacer.is_exhausted(now)) {
            self.resume(slot, now);
            return self.end(slot);
        }
        let resume = self.paused_until(slot).unwrap_or(now);
        let this = &mut self.slots[slot as usize];
        if has_message || (this.failures == 0 && resume <= now) {
            self.resume(slot, now);
            return self.dial(slot, now, links);
        }
        this.link = LinkState::Waiting;
        self.gauges.waiting += 1;
        self.gauges.waiting_max = self.gauges.waiting_max.max(self.gauges.waiting);
        let backoff = match this.failures {
            0 => Duration::ZERO,
            failures => (BACKOFF_FIRST * 2u32.pow((failures - 1).min(16))).min(BACKOFF_MAX),
        };
        links.deadline(slot, resume.max(now + backoff));
    }

    /// Opens the slot's connection; in closed loop for a message, which is due from now on, unless one is in hand that has
    /// not left by the last one.
    pub(super) fn dial(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        let has_message = self.slots[slot as usize].ticket.is_some();
        if !has_message && !self.job.is_open_loop() {
            match self.pacer.next_connected(slot, now) {
                None => return self.end(slot),
                Some(at) if at > now => {
                    self.slots[slot as usize].link = LinkState::Resting;
                    return links.deadline(slot, at);
                }
                Some(_) => {}
            }
            match self.pacer.take(now) {
                Some(ticket) => self.take(slot, ticket),
                None => return self.end(slot),
            }
        } else if !has_message && self.pacer.is_exhausted(now) {
            return self.end(slot);
        }
        let this = &mut self.slots[slot as usize];
        this.machine = Machine::new(&self.job);
        this.link = LinkState::Dialing;
        this.served = 0;
        this.sent = Instant::NEVER;
        links.dial(slot);
        links.deadline(slot, now + self.job.connect_timeout);
    }

    pub(super) fn end(&mut self, slot: u32) {
        let this = &mut self.slots[slot as usize];
        debug_assert!(this.link != LinkState::Ended && this.ticket.is_none());
        this.link = LinkState::Ended;
        self.ended += 1;
    }
}
