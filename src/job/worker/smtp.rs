//! What a share does with its SMTP sessions, and they with it.

use super::machine::Machine;
use super::{Worker, encode};
use crate::job::link::Links;
use crate::measure::recorder::Blame;
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::smtp::client::{Event, Output, RecipientTally};
use crate::wire::smtp::reply::Class;

/// The reply to a login with a wrong user or password (RFC 4954 §6).
const CREDENTIALS_INVALID: u16 = 535;

impl Worker {
    /// Bytes came from the slot's peer; says how many of them were eaten.
    #[inline]
    pub(super) fn smtp_received(&mut self, slot: u32, now: Instant, arrived: Instant, bytes: &[u8]) -> usize {
        let this = &mut self.slots[slot as usize];
        let Machine::Smtp(client) = &mut this.machine else { return bytes.len() };
        let handled = client.handle(now, bytes, &self.job.client);
        let is_warm = this.ticket.map_or(self.warming, |ticket| self.job.warmup.contains(ticket));
        if let Some(reply) = handled.reply.filter(|_| !is_warm) {
            let enhanced = reply.enhanced.map(|code| (code.class, code.subject, code.detail));
            let (phase, positive) = (reply.phase, reply.class == Class::Positive);
            let job = &self.job;
            self.delta.reply_by(phase, reply.code, enhanced, || encode::fit_to_show(job, reply.text).into());
            match phase {
                // The whole exchange counts, once it has ended.
                Phase::Auth if reply.code == 334 => {}
                Phase::Auth => self.delta.phase(phase, positive, arrived.ns_since(this.auth_begun)),
                _ => self.delta.phase(phase, positive, arrived.ns_since(this.sent)),
            }
        }
        handled.consumed
    }

    /// Does what the session asks for until it waits or is over.
    #[inline]
    pub(super) fn smtp_drain(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        loop {
            let Machine::Smtp(client) = &mut self.slots[slot as usize].machine else { return };
            match client.poll_output() {
                Output::Write(write) => self.encode(slot, write, now, links.outgoing(slot)),
                Output::Event(event) => self.smtp_event(slot, event, now),
                Output::StartTls => self.start_tls(slot, now, links),
                Output::Wait(deadline) => return links.deadline(slot, deadline),
                Output::Close => return self.hang_up(slot, now, links),
            }
        }
    }

    #[inline]
    fn smtp_event(&mut self, slot: u32, event: Event, now: Instant) {
        match event {
            Event::Ready => self.ready(slot, now),
            Event::Done { class, recipients, .. } => self.done(slot, class, recipients, now),
            Event::Refused { class, code, phase } => {
                if (phase, code) == (Phase::Auth, CREDENTIALS_INVALID) {
                    self.delta.error(Blame::Configuration, "credentials", phase, || {
                        "the server does not know the user, or not by this password (535): correct them".to_owned()
                    });
                }
                self.refused(slot, class, now);
            }
            Event::Failed { phase, error } => {
                self.delta.error(Blame::Peer, error.kind(), phase, || error.to_string());
                self.failed(slot, now);
            }
        }
    }

    #[inline]
    fn done(&mut self, slot: u32, class: Class, recipients: RecipientTally, now: Instant) {
        if !self.is_warm(slot) {
            let counts = &mut self.delta.recipients;
            counts.accepted += u64::from(recipients.accepted);
            counts.deferred += u64::from(recipients.deferred);
            counts.rejected += u64::from(recipients.rejected);
        }
        self.outcome(slot, Some(class), now);
        let this = &mut self.slots[slot as usize];
        if this.machine.is_over() {
            // By 421: the server wants to be left alone.
            this.failures += 1;
        } else {
            this.failures = 0;
        }
    }

    fn refused(&mut self, slot: u32, class: Class, now: Instant) {
        if self.keeps_message(slot) {
            return;
        }
        let this = &mut self.slots[slot as usize];
        this.failures += 1;
        // A refusal after the session has served, between two messages, costs none.
        if this.served == 0 {
            self.take_for_want_of_connection(slot, now);
        }
        if self.slots[slot as usize].ticket.is_some() {
            let recipients = if self.is_warm(slot) { 0 } else { u64::from(self.job.recipients.per_message()) };
            match class {
                Class::Permanent => self.delta.recipients.rejected += recipients,
                _ => self.delta.recipients.deferred += recipients,
            }
            self.outcome(slot, Some(class), now);
        }
    }
}
