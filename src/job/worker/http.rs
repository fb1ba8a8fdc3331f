//! What a share does with its HTTP connections, and they with it.

use std::borrow::Cow;
use std::time::Duration;

use super::machine::Machine;
use super::{Stage, Worker, encode};
use crate::job::link::Links;
use crate::measure::recorder::{Blame, Delta};
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::http::client::{Answer, Event, Output, Verdict};
use crate::wire::http::response::{RetryAfter, message_of};

/// The longest that a connection waits because an answer asked for it, whatever the answer says: shorter than what counts
/// as all connections being lost.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// A connection's wait that an answer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pause {
    since: Instant,
    until: Instant,
}

impl Worker {
    /// Bytes came from the slot's peer; says how many of them were eaten.
    #[inline]
    pub(super) fn http_received(&mut self, slot: u32, arrived: Instant, bytes: &[u8]) -> usize {
        let this = &mut self.slots[slot as usize];
        let (Machine::Http(client), Some(http)) = (&mut this.machine, self.job.http()) else { return bytes.len() };
        let handled = client.handle(arrived, bytes, &http.client);
        let is_warm = this.ticket.map_or(self.warming, |ticket| self.job.warmup.contains(ticket));
        if let Some(answer) = handled.answer.filter(|_| !is_warm) {
            count(&mut self.delta, &self.job, answer, this.begun, this.sent, arrived);
        }
        handled.consumed
    }

    /// The slot's peer closed its side, which may have been the end of an answer.
    pub(super) fn http_end_of_stream(&mut self, slot: u32, now: Instant) {
        let this = &mut self.slots[slot as usize];
        let Machine::Http(client) = &mut this.machine else { return };
        let is_warm = this.ticket.map_or(self.warming, |ticket| self.job.warmup.contains(ticket));
        if let Some(answer) = client.end_of_stream().filter(|_| !is_warm) {
            count(&mut self.delta, &self.job, answer, this.begun, this.sent, now);
        }
    }

    /// Does what the connection asks for until it waits or is over.
    #[inline]
    pub(super) fn http_drain(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        loop {
            let this = &mut self.slots[slot as usize];
            let Machine::Http(client) = &mut this.machine else { return };
            match client.poll_output() {
                Output::Write => {
                    let (Some(http), Some(ticket)) = (self.job.http(), this.ticket) else { continue };
                    http.write(ticket.sequence, self.job.wall(now), &mut self.dates, links.outgoing(slot));
                }
                Output::Event(event) => self.http_event(slot, event, now),
                Output::StartTls => self.start_tls(slot, now, links),
                Output::Wait(deadline) => {
                    let resume = this.pause.map_or(Instant::NEVER, |pause| pause.until);
                    return links.deadline(slot, deadline.min(resume));
                }
                Output::Close => return self.hang_up(slot, now, links),
            }
        }
    }

    #[inline]
    fn http_event(&mut self, slot: u32, event: Event, now: Instant) {
        match event {
            Event::Ready => self.ready(slot, now),
            Event::Done { status, verdict, retry_after } => {
                if let 300..=399 | 401 | 403 = status {
                    self.misconfigured(status);
                }
                self.answered(slot, verdict, now);
                if let (Verdict::Deferred, Some(retry_after)) = (verdict, retry_after) {
                    self.pause(slot, retry_after, now);
                }
            }
            Event::Failed { phase, error } => {
                self.delta.error(Blame::Peer, error.kind(), phase, || error.to_string());
                self.failed(slot, now);
            }
        }
    }

    /// Answers that only another configuration makes better.
    #[cold]
    fn misconfigured(&mut self, status: u16) {
        let (kind, text) = match status {
            401 if self.job.client.auth.is_none() => (
                "credentials",
                "the server wants credentials (401), and none were sent, or in a header: give a user and a password (--user and \
                 --password-file; for a job of a service `user` and `password_file` of its target, and auth)",
            ),
            401 => (
                "credentials",
                "the server wants other credentials (401): correct user and password (--user and --password-file, or those of \
                 the target)",
            ),
            403 => ("credentials", "the server forbids it (403): correct user and password, or what they may do"),
            _ => ("redirect", "the server redirects, which is never followed: name the URL that it redirects to"),
        };
        self.delta.error(Blame::Configuration, kind, Phase::LastByte, || match kind {
            "redirect" => format!("{text} ({status})"),
            _ => text.to_owned(),
        });
    }

    #[inline]
    fn answered(&mut self, slot: u32, verdict: Verdict, now: Instant) {
        if !self.is_warm(slot) {
            let recipients = u64::from(self.job.recipients.per_message());
            match verdict {
                Verdict::Accepted => self.delta.recipients.accepted += recipients,
                Verdict::Deferred => self.delta.recipients.deferred += recipients,
                Verdict::Rejected => self.delta.recipients.rejected += recipients,
                Verdict::Failed => {}
            }
        }
        self.outcome(slot, verdict.class(), now);
        let this = &mut self.slots[slot as usize];
        // A server that closes behind such an answer wants to be left alone.
        match this.machine.is_over() && matches!(verdict, Verdict::Deferred | Verdict::Failed) {
            true => this.failures += 1,
            false => this.failures = 0,
        }
    }

    /// Lets the slot's connection wait as long as the server wants it to, in closed loop: in open loop messages are due
    /// whatever the server does.
    fn pause(&mut self, slot: u32, retry_after: RetryAfter, now: Instant) {
        if self.job.is_open_loop() || self.stage != Stage::Running || self.pacer.is_exhausted(now) {
            return;
        }
        let wanted = match retry_after {
            RetryAfter::Seconds(seconds) => Duration::from_secs(seconds),
            RetryAfter::At(second) => {
                let wall = self.job.wall(now).as_unix_ns();
                Duration::from_nanos(second.saturating_mul(1_000_000_000).saturating_sub(wall))
            }
        };
        if !wanted.is_zero() {
            self.slots[slot as usize].pause = Some(Pause { since: now, until: now + wanted.min(RETRY_AFTER_MAX) });
            self.paused += 1;
        }
    }

    /// Whether the slot's connection waits because an answer asked for it.
    #[inline]
    pub(super) fn is_paused(&self, slot: u32) -> bool {
        self.slots[slot as usize].pause.is_some()
    }

    /// Until when the slot's connection waits because an answer asked for it.
    pub(super) fn paused_until(&self, slot: u32) -> Option<Instant> {
        self.slots[slot as usize].pause.map(|pause| pause.until)
    }

    /// Ends the slot's wait, if it has one, once its time has come or it is of no use any more.
    pub(super) fn resume(&mut self, slot: u32, now: Instant) {
        if let Some(pause) = self.slots[slot as usize].pause.take() {
            self.paused -= 1;
            self.delta.retry_after.waits += 1;
            self.delta.retry_after.waited_ns += now.ns_since(pause.since);
        }
    }
}

/// Counts an answer and times its phases: the request was `begun`, and had `left`.
#[inline]
fn count(
    delta: &mut Delta,
    job: &crate::job::plan::Job,
    answer: Answer<'_>,
    begun: Instant,
    left: Instant,
    now: Instant,
) {
    let accepted = answer.verdict == Verdict::Accepted;
    delta.phase(Phase::Write, accepted, left.ns_since(begun));
    delta.phase(Phase::FirstByte, accepted, answer.first_byte.ns_since(left));
    delta.phase(Phase::LastByte, accepted, now.ns_since(answer.first_byte));
    delta.reply_by(Phase::LastByte, answer.status, None, || match encode::fit_to_show(job, answer.text) {
        text if text.len() == answer.text.len() => message_of(answer.text),
        withheld => Cow::Borrowed(withheld),
    });
}
