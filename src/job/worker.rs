//! One shard's share of a job: slots, each of which holds one connection to the target, driven without I/O.
//!
//! A message is *due* by the schedule (open loop), or as soon as a slot is free for it (closed loop). Work on it
//! *starts* when its first octet goes out: MAIL on an open session, or the connection itself where the slot has none.
//! It ends with the reply that decides it. No message is sent twice.

mod dialing;
mod encode;
mod ending;
mod http;
mod machine;
mod smtp;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use self::http::RETRY_AFTER_MAX;

use self::http::Pause;
use self::machine::Machine;
use super::link::{LinkError, Links, TlsFailure, TlsSession};
use super::plan::Job;
use crate::load::{Pacer, Ticket};
use crate::measure::recorder::{Blame, ConnectionCounts, Delta, MessageCounts, MessageTimes};
use crate::message::DateCache;
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::smtp::reply::Class;

/// How long messages in flight may take to end after the last one was dispatched, at the end of a run by time or after
/// a stop.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long a slot waits before it connects again after a failure; doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest such wait.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Drives one shard's connections through a job. Every method mutates once and drains completely; the caller passes
/// the connections' events in and flushes what was put into [`Links::outgoing`].
#[derive(Debug)]
pub struct Worker {
    job: Arc<Job>,
    pacer: Pacer,
    slots: Vec<Slot>,
    /// Open loop: slots whose session is ready for a message, the longest ready first, so that all stay in use.
    idle: VecDeque<u32>,
    ended: usize,
    /// Slots whose connection waits because an answer asked for it.
    paused: usize,
    delta: Box<Delta>,
    gauges: ConnectionCounts,
    dates: DateCache,
    stage: Stage,
    /// What was missed is counted, or nothing can have been.
    missed_counted: bool,
    /// Connections without a message were ended, since none is left for them.
    parted: bool,
    /// The message that was taken last belongs to the warm-up; what has no message goes with it.
    warming: bool,
    /// What was missed of the warm-up is counted.
    warmup_counted: bool,
    /// When the bytes in hand arrived; [`Instant::NEVER`] without any, and then the present is what counts.
    arrived: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// No new message; what is in flight may end until then.
    Draining(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// Before the first connection, or between two: waits for its deadline.
    Waiting,
    Dialing,
    Open,
    /// Its time has not come, or comes again: the number of connections goes up and down.
    Resting,
    /// This slot is done for good.
    Ended,
}

#[derive(Debug)]
struct Slot {
    machine: Machine,
    link: LinkState,
    ticket: Option<Ticket>,
    /// When work on the ticket's message began; [`Instant::NEVER`] until its first octet has gone out.
    started: Instant,
    /// When the last write went out, or for the greeting when the connection was open; [`Instant::NEVER`] while a
    /// connection waits in line to be dialled.
    sent: Instant,
    /// When the TLS handshake was begun.
    tls_begun: Instant,
    /// When AUTH went out; [`Instant::NEVER`] until then.
    auth_begun: Instant,
    /// When the message in hand was begun on this connection.
    begun: Instant,
    /// Nothing of the message that was begun last has left yet.
    unsent: bool,
    /// The connection waits because an answer asked for it.
    pause: Option<Pause>,
    /// Messages begun on this connection.
    served: u64,
    /// Failures since the last message that was accepted.
    failures: u32,
    in_idle: bool,
    /// It has had an open connection, now or before.
    was_open: bool,
    /// The server has taken the session: its reply to EHLO was good, and to AUTH where there is a login.
    in_session: bool,
}

impl Worker {
    /// A worker with `connections` slots, whose messages the pacer hands out.
    pub fn new(job: Arc<Job>, pacer: Pacer, connections: u32) -> Worker {
        let slot = || Slot {
            machine: Machine::new(&job),
            link: LinkState::Waiting,
            ticket: None,
            started: Instant::NEVER,
            sent: Instant::ZERO,
            tls_begun: Instant::NEVER,
            auth_begun: Instant::NEVER,
            begun: Instant::NEVER,
            unsent: false,
            pause: None,
            served: 0,
            failures: 0,
            in_idle: false,
            was_open: false,
            in_session: false,
        };
        let slots = (0..connections).map(|_| slot()).collect();
        Worker {
            warming: job.warmup.exists(),
            warmup_counted: !job.warmup.exists(),
            job,
            pacer,
            slots,
            idle: VecDeque::with_capacity(connections as usize),
            ended: 0,
            paused: 0,
            delta: Box::default(),
            gauges: ConnectionCounts::default(),
            dates: DateCache::default(),
            stage: Stage::Running,
            missed_counted: true,
            parted: false,
            arrived: Instant::NEVER,
        }
    }

    /// Number of slots.
    pub fn connections(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The job this is a share of.
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Opens all connections.
    pub fn start(&mut self, now: Instant, links: &mut impl Links) {
        for slot in 0..self.connections() {
            self.dial(slot, now, links);
        }
    }

    /// The slot's connection is open.
    pub fn connected(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        let this = &mut self.slots[slot as usize];
        debug_assert_eq!(this.link, LinkState::Dialing);
        let took = now.ns_since(this.sent);
        this.link = LinkState::Open;
        this.sent = now;
        this.machine.connected(now, &self.job);
        let reopened = std::mem::replace(&mut this.was_open, true);
        self.phase(slot, Phase::Connect, true, took);
        self.delta.connections.opened += 1;
        self.delta.connections.reopened += u64::from(reopened);
        self.gauges.open += 1;
        self.drain(slot, now, links);
    }

    /// The slot's connection could not be opened.
    pub fn connect_failed(&mut self, slot: u32, now: Instant, error: LinkError, links: &mut impl Links) {
        let this = &mut self.slots[slot as usize];
        debug_assert_eq!(this.link, LinkState::Dialing);
        this.failures += 1;
        let took = now.ns_since(this.sent);
        self.phase(slot, Phase::Connect, false, took);
        self.delta.error(error.blame(), error.kind(), Phase::Connect, || error.to_string());
        self.fail_for_want_of_connection(slot, now);
        self.reconnect(slot, now, links);
    }

    /// The slot's TLS handshake has come to its good end, by what arrived at `arrived`.
    pub fn tls_ready(
        &mut self,
        slot: u32,
        now: Instant,
        arrived: Instant,
        session: TlsSession,
        links: &mut impl Links,
    ) {
        let this = &self.slots[slot as usize];
        if this.link != LinkState::Open {
            return;
        }
        let took = arrived.ns_since(this.tls_begun);
        self.phase(slot, Phase::Tls, true, took);
        self.delta.tls(session.version, session.cipher, session.resumed);
        let this = &mut self.slots[slot as usize];
        this.sent = arrived;
        this.machine.tls_ready(now, &self.job);
        self.drain(slot, now, links);
    }

    /// The slot's TLS handshake failed, or its TLS broke.
    pub fn tls_failed(&mut self, slot: u32, now: Instant, failure: &TlsFailure, links: &mut impl Links) {
        let this = &self.slots[slot as usize];
        if this.link != LinkState::Open {
            return;
        }
        let phase = this.machine.phase();
        if phase == Phase::Tls {
            let took = now.ns_since(this.tls_begun);
            self.phase(slot, phase, false, took);
        }
        self.delta.error(Blame::Peer, failure.kind, phase, || failure.reason.clone());
        self.failed(slot, now);
        self.hang_up(slot, now, links);
    }

    /// Bytes came from the slot's peer. What is measured ends when they `arrived`; all else happens `now`.
    #[inline]
    pub fn received(&mut self, slot: u32, now: Instant, arrived: Instant, mut bytes: &[u8], links: &mut impl Links) {
        self.arrived = arrived;
        while !bytes.is_empty() && self.slots[slot as usize].link == LinkState::Open {
            let eaten = match self.slots[slot as usize].machine {
                Machine::Smtp(_) => self.smtp_received(slot, now, arrived, bytes),
                Machine::Http(_) => self.http_received(slot, arrived, bytes),
            };
            bytes = &bytes[eaten..];
            self.drain(slot, now, links);
        }
        self.arrived = Instant::NEVER;
    }

    /// The slot's peer closed its side, or with an `error` the connection broke.
    pub fn closed(&mut self, slot: u32, now: Instant, error: Option<LinkError>, links: &mut impl Links) {
        let this = &mut self.slots[slot as usize];
        if this.link != LinkState::Open {
            return;
        }
        match error {
            // A peer that is gone after QUIT owes us nothing.
            Some(error) if this.machine.phase() != Phase::Quit => self.break_off(slot, now, error, links),
            _ => {
                match &mut this.machine {
                    Machine::Smtp(client) => client.end_of_stream(),
                    Machine::Http(_) => self.http_end_of_stream(slot, now),
                }
                self.drain(slot, now, links);
            }
        }
    }

    /// The deadline that was last asked for has come.
    pub fn timer(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        let this = &mut self.slots[slot as usize];
        match this.link {
            LinkState::Waiting => {
                self.gauges.waiting -= 1;
                self.resume(slot, now);
                self.dial(slot, now, links);
            }
            LinkState::Resting => self.dial(slot, now, links),
            LinkState::Dialing => {
                // The time limit counts from the dial itself, which may have had to wait in line.
                let limit = this.sent.min(now) + self.job.connect_timeout;
                if this.sent == Instant::NEVER || now < limit {
                    return links.deadline(slot, limit);
                }
                links.close(slot);
                self.connect_failed(slot, now, LinkError::TimedOut, links);
            }
            LinkState::Open => {
                this.machine.timed_out(now);
                if self.paused_until(slot).is_some_and(|until| now >= until) {
                    self.resume(slot, now);
                    if self.is_ready(slot) {
                        self.ready(slot, now);
                    }
                }
                self.drain(slot, now, links);
            }
            LinkState::Ended => {}
        }
    }

    /// Everything that was put out for the slot in this turn, a dial included, goes out at `sent`.
    #[inline]
    pub fn written(&mut self, slot: u32, sent: Instant, octets: usize) {
        let this = &mut self.slots[slot as usize];
        this.sent = sent;
        this.machine.written();
        if this.auth_begun == Instant::NEVER && this.machine.phase() == Phase::Auth {
            this.auth_begun = sent;
        }
        if this.ticket.is_some() && this.started == Instant::NEVER {
            this.started = sent;
            self.delta.last_begun = sent;
        }
        if std::mem::take(&mut this.unsent) {
            self.message_left(slot);
        }
        if !self.is_warm(slot) {
            self.delta.bytes_sent += octets as u64;
        }
    }

    /// The last of what was put out for the slot has left only now: it was too much to leave at once.
    pub fn left(&mut self, slot: u32, now: Instant) {
        let this = &mut self.slots[slot as usize];
        if matches!(this.machine, Machine::Http(_)) {
            this.sent = this.sent.max(now);
        }
    }

    /// What the passing of time brings: due messages, the end of the run, the end of the drain.
    #[inline]
    pub fn turn(&mut self, now: Instant, links: &mut impl Links) {
        match self.stage {
            Stage::Running => {
                if self.pacer.next_due().is_some_and(|due| due <= now) {
                    self.dispatch(now, links);
                }
                if self.job.end.is_some_and(|end| now >= end) {
                    self.stop(now, links);
                } else if (self.job.is_open_loop() || self.paused > 0) && self.pacer.is_exhausted(now) {
                    self.part_with_unneeded(now, links);
                }
            }
            Stage::Draining(until) if now >= until => self.cut(links),
            Stage::Draining(_) => {}
        }
        if self.ended == self.slots.len() && !self.missed_counted {
            self.count_missed();
        }
    }

    /// When [`Worker::turn`] must be called at the latest.
    #[inline]
    pub fn wake_at(&self) -> Instant {
        match self.stage {
            Stage::Running => {
                let due = if self.idle.is_empty() { None } else { self.pacer.next_due() };
                due.unwrap_or(Instant::NEVER).min(self.job.end.unwrap_or(Instant::NEVER))
            }
            Stage::Draining(_) if self.ended == self.slots.len() => Instant::ZERO,
            Stage::Draining(until) => until,
        }
    }

    /// Whether every slot is done for good.
    pub fn is_finished(&self) -> bool {
        self.ended == self.slots.len() && self.missed_counted
    }

    /// Whether every slot is done for good, though what was missed may still have to be counted.
    pub fn is_over(&self) -> bool {
        self.ended == self.slots.len()
    }

    /// Whether what the generator does now may show in what is measured: the job has begun, and is warm.
    #[inline]
    pub fn is_measuring(&self, now: Instant) -> bool {
        !self.warming && now >= self.job.start && !self.is_over()
    }

    /// Whether no new message will be sent, though some may be in flight.
    pub fn is_draining(&self) -> bool {
        self.stage != Stage::Running
    }

    /// Hands over what was measured since the last time and goes on with `spare`, which must be empty.
    pub fn take_delta(&mut self, spare: Box<Delta>) -> Box<Delta> {
        let mut delta = std::mem::replace(&mut self.delta, spare);
        let ConnectionCounts { opened, reopened, .. } = delta.connections;
        delta.connections = ConnectionCounts { opened, reopened, ..self.gauges };
        delta
    }

    /// Measures how long the messages without an outcome have waited, those of the warm-up left out. It looks at every slot,
    /// so it is for once a second.
    pub fn measure_waiting(&mut self, now: Instant) {
        self.delta.waiting.clear();
        for slot in 0..self.slots.len() as u32 {
            if let Some(ticket) = &self.slots[slot as usize].ticket
                && !self.is_warm(slot)
            {
                self.delta.waiting.in_flight.record(now.ns_since(ticket.due));
            }
        }
        if let Some(due) = self.pacer.next_due().filter(|due| *due < now) {
            // At the mean rate so far.
            let (so_far, overdue) = (due.ns_since(self.job.start), now.ns_since(due));
            let mean = self.pacer.taken() as f64 / so_far.max(1) as f64;
            self.delta.waiting.overdue = ((overdue as f64 * mean) as u64).max(1);
            self.delta.waiting.overdue_ns = overdue;
        }
    }

    /// Messages sent since what was measured was handed over, those of the warm-up included.
    pub fn sent(&self) -> u64 {
        self.delta.messages.sent + self.delta.warmup.sent
    }

    /// What is being measured, for those who add to it.
    pub fn delta_mut(&mut self) -> &mut Delta {
        &mut self.delta
    }

    /// Gives due messages to idle sessions, the oldest to the one that has been idle longest.
    #[inline]
    fn dispatch(&mut self, now: Instant, links: &mut impl Links) {
        while let Some(&slot) = self.idle.front() {
            if !self.is_ready(slot) {
                self.pop_idle();
                continue;
            }
            let Some(ticket) = self.pacer.take(now) else { break };
            self.pop_idle();
            self.take(slot, ticket);
            self.begin(slot, now);
            self.drain(slot, now, links);
        }
    }

    fn is_ready(&self, slot: u32) -> bool {
        let this = &self.slots[slot as usize];
        this.link == LinkState::Open && this.machine.phase() == Phase::Idle
    }

    fn pop_idle(&mut self) -> Option<u32> {
        let slot = self.idle.pop_front()?;
        self.slots[slot as usize].in_idle = false;
        Some(slot)
    }

    #[inline]
    fn take(&mut self, slot: u32, ticket: Ticket) {
        self.warming = self.job.warmup.contains(ticket);
        if self.warming {
            self.delta.warmup_until = self.delta.warmup_until.max(ticket.due);
        }
        self.counts(ticket).taken += 1;
        self.delta.last_due = ticket.due;
        let this = &mut self.slots[slot as usize];
        this.ticket = Some(ticket);
        this.started = Instant::NEVER;
    }

    /// Where the ticket's message is counted.
    #[inline]
    fn counts(&mut self, ticket: Ticket) -> &mut MessageCounts {
        if self.job.warmup.contains(ticket) { &mut self.delta.warmup } else { &mut self.delta.messages }
    }

    /// Whether what happens on the slot's connection belongs to the warm-up: by its message, or by the last one taken.
    #[inline]
    fn is_warm(&self, slot: u32) -> bool {
        self.slots[slot as usize].ticket.map_or(self.warming, |ticket| self.job.warmup.contains(ticket))
    }

    /// Records how long a phase took, unless it belongs to the warm-up.
    fn phase(&mut self, slot: u32, phase: Phase, positive: bool, ns: u64) {
        if !self.is_warm(slot) {
            self.delta.phase(phase, positive, ns);
        }
    }

    #[inline]
    fn begin(&mut self, slot: u32, now: Instant) {
        let this = &mut self.slots[slot as usize];
        this.served += 1;
        this.begun = now;
        this.unsent = true;
        this.machine.begin(now, &self.job);
    }

    /// The first octets of the slot's message are on their way.
    #[inline]
    fn message_left(&mut self, slot: u32) {
        let this = &self.slots[slot as usize];
        let Some(ticket) = this.ticket else { return };
        let is_request = matches!(this.machine, Machine::Http(_));
        self.counts(ticket).sent += 1;
        if is_request {
            self.count_size(slot, ticket.sequence);
        }
    }

    /// Whether the slot's message was begun, on a connection that has served before, and has not left: it goes on the next
    /// connection, since the server that ended this one cannot know of it. There is no next one once the run has stopped.
    fn keeps_message(&mut self, slot: u32) -> bool {
        let is_running = self.stage == Stage::Running;
        let this = &mut self.slots[slot as usize];
        let is_kept = std::mem::take(&mut this.unsent) && this.ticket.is_some() && this.served > 1 && is_running;
        if is_kept {
            this.started = Instant::NEVER;
        }
        is_kept
    }

    /// Does what the machine asks for until it waits or is over.
    #[inline]
    fn drain(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        match self.slots[slot as usize].machine {
            Machine::Smtp(_) => self.smtp_drain(slot, now, links),
            Machine::Http(_) => self.http_drain(slot, now, links),
        }
    }

    fn start_tls(&mut self, slot: u32, now: Instant, links: &mut impl Links) {
        self.slots[slot as usize].tls_begun = now;
        links.start_tls(slot);
    }

    /// The session is ready: go on with the message in hand, take the next one, or part.
    #[inline]
    fn ready(&mut self, slot: u32, now: Instant) {
        let this = &mut self.slots[slot as usize];
        if !this.in_session {
            this.in_session = true;
            if let Some(mechanism) = this.machine.auth_mechanism() {
                self.delta.auth_granted(mechanism.name());
            }
            self.gauges.held += 1;
            self.gauges.held_max = self.gauges.held_max.max(self.gauges.held);
        }
        if this.ticket.is_some() {
            return self.begin(slot, now);
        }
        if this.pause.is_some() && !self.pacer.is_exhausted(now) {
            return;
        }
        let worn_out = self.job.messages_per_connection.is_some_and(|most| this.served >= most.get());
        if worn_out || self.stage != Stage::Running {
            this.machine.quit(now, &self.job);
        } else if self.job.is_open_loop() {
            if !this.in_idle {
                this.in_idle = true;
                self.idle.push_back(slot);
            }
        } else if self.pacer.next_connected(slot, now) == Some(now)
            && let Some(ticket) = self.pacer.take(now)
        {
            // Its connection has been free for it since the last reply arrived.
            self.take(slot, Ticket { due: now.min(self.arrived), ..ticket });
            self.begin(slot, now);
        } else {
            this.machine.quit(now, &self.job);
        }
    }

    fn failed(&mut self, slot: u32, now: Instant) {
        if self.keeps_message(slot) {
            return;
        }
        let this = &mut self.slots[slot as usize];
        this.failures += 1;
        if this.ticket.is_some() {
            self.outcome(slot, None, now);
        } else if this.served == 0 {
            self.fail_for_want_of_connection(slot, now);
        }
    }

    /// A session could not be had: the message that the slot has in hand fails, or that was due longest.
    fn fail_for_want_of_connection(&mut self, slot: u32, now: Instant) {
        self.take_for_want_of_connection(slot, now);
        if self.slots[slot as usize].ticket.is_some() {
            self.outcome(slot, None, now);
        }
    }

    /// A session could not be had. In closed loop the slot has the message in hand that is to pay for it; in open loop
    /// it is the one that has been due longest, if any is.
    fn take_for_want_of_connection(&mut self, slot: u32, now: Instant) {
        let empty_handed = self.slots[slot as usize].ticket.is_none();
        if empty_handed
            && self.job.is_open_loop()
            && let Some(ticket) = self.pacer.take(now)
        {
            self.take(slot, ticket);
        }
    }

    /// The slot's message has its outcome; `None` stands for no answer.
    #[inline]
    fn outcome(&mut self, slot: u32, class: Option<Class>, now: Instant) {
        let this = &mut self.slots[slot as usize];
        let Some(ticket) = this.ticket.take() else {
            debug_assert!(false, "an outcome without a message");
            return;
        };
        let ended = now.min(self.arrived);
        let started = Some(this.started).filter(|started| *started != Instant::NEVER);
        let in_drain = u64::from(self.stage != Stage::Running);
        let counts = self.counts(ticket);
        match class {
            Some(Class::Positive) => {
                counts.accepted += 1;
                counts.accepted_in_drain += in_drain;
                if let Some(audit) = &self.job.audit {
                    audit.accept(ticket.sequence);
                }
            }
            Some(Class::Transient) => counts.deferred += 1,
            Some(Class::Permanent) => counts.rejected += 1,
            None => counts.failed += 1,
        }
        if self.job.warmup.contains(ticket) {
            self.delta.last_outcome = self.delta.last_outcome.max(ended);
            return;
        }
        self.delta.message(class == Some(Class::Positive), MessageTimes { due: ticket.due, started, ended });
    }

    fn break_off(&mut self, slot: u32, now: Instant, error: LinkError, links: &mut impl Links) {
        let this = &self.slots[slot as usize];
        // The peer cannot know of what has not left.
        let phase = if this.unsent { Phase::Idle } else { this.machine.phase() };
        self.delta.error(error.blame(), error.kind(), phase, || error.to_string());
        self.failed(slot, now);
        self.hang_up(slot, now, links);
    }
}
