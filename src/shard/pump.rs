//! The one loop of a shard. It mutates all of the shard's state and is the only reader of its clock. A turn:
//!
//! 1. submit what the last turn gathered and take up what has arrived; if that is nothing, wait in the ring, with the
//!    next deadline as time-out;
//! 2. read the clock: everything that has completed arrived by now;
//! 3. give bytes to the machines, expire deadlines, hand out due messages, gather what is to be written;
//! 4. read the clock: everything gathered leaves from now on. A shard with time to spare does so for each write, and gives
//!    it to the kernel before the next: each takes the kernel some microseconds.
//!
//! What a dialled connection receives bears the kernel's own stamp, which the calendar makes an instant of: that is when
//! it arrived, whatever the loop was doing. Without a stamp it may have done so at any time since the last turn's step 2,
//! and what leaves does so before the next one. So each such time errs by at most the length of a turn, the kernel's
//! share of the turn included, and that length is reported. Before it waits the loop reads the clock once more, so that
//! idle time is no part of a turn's length. Whatever is not measured (deadlines, what is due, the run's end) goes by the
//! turn's clock, since stamps of different connections come in no order.
//!
//! A wait that ends later than it was to, because the shard was stopped or its core was given to others, is reported as a
//! standstill: what was due meanwhile errs by as much.
//!
//! The loop blocks in its own ring. The executor's reactor does not run meanwhile: none of its timers, channels and
//! streams may be used on a data shard.

mod completions;
mod reporting;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use async_channel::{Receiver, Sender};

use super::calendar::Calendar;
use super::clock::{Clock, thread_cpu_ns, wall_now};
use super::connections::{Connections, Notice};
use super::mailbox::{Command, Event, Inbox};
use super::ring::Buffers;
use super::service::Service;
use super::slack::Slack;
use super::tls::ClientTls;
use crate::job::link::Links;
use crate::job::worker::Worker;
use crate::measure::recorder::Delta;
use crate::measure::stamps::Writes;
use crate::outgoing::Outgoing;
use crate::time::Instant;

/// The longest wait when nothing at all is due.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest wait while a job runs, so that a shard that is not let run shows as a wait that ended too late.
const WAIT_MAX_AT_WORK: Duration = Duration::from_millis(10);
/// Most writes of a turn that leave one by one: more make it long anyhow, and would cost a call into the kernel each.
const SINGLY_MAX: usize = 32;
/// How often a measurement is offered again that must not be lost and that control had no room for.
const OFFER_AGAIN: Duration = Duration::from_millis(5);

/// A shard at work.
pub struct Pump {
    clock: Clock,
    calendar: Calendar,
    slack: Slack,
    /// Writes of jobs since they were last charged to them.
    writes: Writes,
    /// Which shard this is.
    shard: usize,
    inbox: Inbox,
    events: Sender<(usize, Event)>,
    connections: Connections,
    buffers: Rc<Buffers>,
    jobs: Vec<RunningJob>,
    /// For each dialled file slot, the job and its slot that it belongs to.
    owners: Vec<Option<(u32, u32)>>,
    free_files: Vec<u32>,
    waiting: VecDeque<WaitingStart>,
    sink: Option<Service>,
    /// What TLS has deciphered of the bytes in hand.
    plain: Vec<u8>,
    cpu_ns: u64,
    shutting_down: bool,
}

/// A share of a job on this shard.
struct RunningJob {
    job: u64,
    worker: Box<Worker>,
    target: usize,
    tls: Option<ClientTls>,
    /// The file slot of each of the worker's slots.
    files: Vec<u32>,
    spares: Receiver<Box<Delta>>,
    /// An empty set that came back when control had no room for a full one.
    spare: Option<Box<Delta>>,
    /// Its draining was noticed.
    draining: bool,
    /// Whole seconds that were reported.
    seconds: u64,
    /// What the delta in hand had of messages sent when CPU time was last charged.
    charged_sent: u64,
    /// The last measurement, until control has taken it.
    last: Option<Event>,
    ended: bool,
}

/// A share of a job that waits for file slots.
struct WaitingStart {
    job: u64,
    worker: Box<Worker>,
    target: SocketAddr,
    tls: Option<ClientTls>,
    spares: Receiver<Box<Delta>>,
    /// It was stopped before it began.
    stopped: bool,
}

/// A worker's view of the shard's connections.
struct JobLinks<'a> {
    connections: &'a mut Connections,
    files: &'a [u32],
    target: usize,
    tls: Option<&'a ClientTls>,
}

impl Links for JobLinks<'_> {
    fn dial(&mut self, slot: u32) {
        self.connections.dial(self.files[slot as usize], self.target);
    }

    #[inline]
    fn outgoing(&mut self, slot: u32) -> &mut Outgoing {
        self.connections.outgoing(self.files[slot as usize])
    }

    fn start_tls(&mut self, slot: u32) {
        if let Some(tls) = self.tls {
            self.connections.start_tls(self.files[slot as usize], tls.connect());
        }
    }

    fn close(&mut self, slot: u32) {
        self.connections.close(self.files[slot as usize]);
    }

    #[inline]
    fn deadline(&mut self, slot: u32, at: Instant) {
        self.connections.timers.set(self.files[slot as usize], at);
    }
}

impl RunningJob {
    /// The worker, and its view of the connections.
    #[inline]
    fn parts<'a>(&'a mut self, connections: &'a mut Connections) -> (&'a mut Worker, JobLinks<'a>) {
        let links = JobLinks { connections, files: &self.files, target: self.target, tls: self.tls.as_ref() };
        (&mut self.worker, links)
    }

    /// When the second that is being measured is over.
    fn second_ends(&self) -> Instant {
        self.worker.job().start + Duration::from_secs(self.seconds + 1)
    }
}

/// What a pump is made of.
pub struct PumpParts {
    /// Shared by all shards.
    pub clock: Clock,
    /// Which shard this is.
    pub shard: usize,
    /// Where commands come from.
    pub inbox: Inbox,
    /// Where measurements go.
    pub events: Sender<(usize, Event)>,
    /// Over a fresh ring.
    pub connections: Connections,
    /// File slots for outgoing connections: those below this number.
    pub dialed_files: u32,
    /// What incoming connections are for.
    pub sink: Option<Service>,
}

impl Pump {
    /// A pump that has not turned yet.
    pub fn new(parts: PumpParts) -> Pump {
        let buffers = parts.connections.buffers();
        Pump {
            clock: parts.clock,
            calendar: Calendar::default(),
            slack: Slack::default(),
            writes: Writes::default(),
            shard: parts.shard,
            inbox: parts.inbox,
            events: parts.events,
            connections: parts.connections,
            buffers,
            jobs: Vec::new(),
            owners: vec![None; parts.dialed_files as usize],
            free_files: (0..parts.dialed_files).rev().collect(),
            waiting: VecDeque::new(),
            sink: parts.sink,
            plain: Vec::new(),
            cpu_ns: thread_cpu_ns(),
            shutting_down: false,
        }
    }

    /// Turns until told to shut down. An error is one of the ring itself.
    pub fn run(&mut self) -> std::io::Result<()> {
        self.connections.ring().watch(self.inbox.bell());
        if let Some(sink) = &mut self.sink {
            sink.open(&mut self.connections);
        }
        let mut last = self.clock.now();
        while !self.shutting_down {
            let is_busy = self.connections.ring().submit()? > 0;
            let turned = self.clock.now();
            let mut arrived = turned;
            self.record_turn(turned, turned.ns_since(last));
            if !is_busy {
                let wait = self.time_to_wait(arrived);
                self.connections.ring().wait(wait)?;
                let awake = arrived + wait;
                arrived = self.clock.now();
                self.record_overshoot(arrived, arrived.ns_since(awake));
            }
            last = arrived;
            self.slack.turn(arrived, arrived.ns_since(turned));
            if self.jobs.iter().any(|job| !job.ended) {
                let (clock, wall) = (self.clock, wall_now());
                self.calendar.turn((arrived, wall), || clock.now());
            }
            self.turn(arrived);
            self.flush();
        }
        if let Some(counts) = self.sink.as_ref().and_then(Service::counts) {
            self.tell(Event::Sunk(counts));
        }
        self.tell(Event::Ended);
        Ok(())
    }

    /// What was measured in a turn may err by the turn's length.
    fn record_turn(&mut self, now: Instant, ns: u64) {
        for job in self.jobs.iter_mut().filter(|job| !job.ended && job.worker.is_measuring(now)) {
            let effort = &mut job.worker.delta_mut().effort;
            effort.turns.record(ns);
            effort.standstill.turn(ns);
        }
    }

    /// What ended while the loop waited for longer than it had asked to may have done so by that much earlier.
    fn record_overshoot(&mut self, now: Instant, ns: u64) {
        for job in self.jobs.iter_mut().filter(|job| !job.ended && job.worker.is_measuring(now)) {
            job.worker.delta_mut().effort.standstill.overshoot(ns);
        }
    }

    /// Everything between the two readings of the clock.
    fn turn(&mut self, arrived: Instant) {
        for at in 0..self.connections.ring().gather(arrived) {
            let completion = self.connections.ring().completion(at);
            self.complete(completion);
        }
        self.connections.settle();
        while let Some(file) = self.connections.timers.expired(arrived) {
            self.expire(file, arrived);
        }
        for job in self.jobs.iter_mut().filter(|job| !job.ended) {
            let (worker, mut links) = job.parts(&mut self.connections);
            worker.turn(arrived, &mut links);
        }
        if let Some(sink) = &mut self.sink {
            sink.turn(arrived, &mut self.connections);
        }
        if !self.waiting.is_empty() {
            self.start_waiting(arrived);
        }
        self.dial_those_in_line(arrived);
        self.report(arrived);
    }

    /// How long the ring may be waited in. Nothing that is due by the clock is overslept.
    fn time_to_wait(&self, now: Instant) -> Duration {
        if self.connections.is_pressed() {
            return Duration::ZERO;
        }
        let mut until = now + WAIT_MAX;
        until = until.min(self.connections.timers.next());
        for job in self.jobs.iter().filter(|job| !job.ended) {
            let due = job.worker.wake_at().min(job.second_ends()).min(now + WAIT_MAX_AT_WORK);
            until = until.min(if job.last.is_some() { now + OFFER_AGAIN } else { due });
        }
        if let Some(sink) = &self.sink {
            until = until.min(sink.wake_at());
        }
        until - now
    }

    fn dial_those_in_line(&mut self, now: Instant) {
        while let Some((file, result)) = self.connections.dial_next() {
            if let Err(error) = result {
                self.notify(file, Notice::ConnectFailed(error), now);
            }
        }
    }

    fn flush(&mut self) {
        let Pump { connections, jobs, owners, clock, writes, .. } = self;
        // A single write leaves with the next call into the kernel, which is what happens next.
        let most = if self.slack.is_none() || jobs.iter().all(|job| job.ended) { 1 } else { SINGLY_MAX };
        let singly = connections.touched() <= most;
        let together = if singly { None } else { Some(clock.now()) };
        connections.flush(singly, |file, octets| {
            let sent = together.unwrap_or_else(|| clock.now());
            if let Some(Some((job, slot))) = owners.get(file as usize) {
                jobs[*job as usize].worker.written(*slot, sent, octets);
                if octets > 0 {
                    writes.count(singly);
                }
            }
            sent
        });
    }

    fn read_mail(&mut self, now: Instant, still_watched: bool) {
        self.inbox.silence();
        if !still_watched {
            self.connections.ring().watch(self.inbox.bell());
        }
        while let Some(command) = self.inbox.next() {
            match command {
                Command::Start { job, worker, target, tls, spares } => {
                    self.waiting.push_back(WaitingStart { job, worker, target, tls, spares, stopped: false });
                    self.start_waiting(now);
                }
                Command::Stop { job } => {
                    if let Some(start) = self.waiting.iter_mut().find(|start| start.job == job) {
                        start.stopped = true;
                    } else if let Some(running) =
                        self.jobs.iter_mut().find(|running| running.job == job && !running.ended)
                    {
                        let (worker, mut links) = running.parts(&mut self.connections);
                        worker.stop(now, &mut links);
                    }
                }
                Command::Answer { ticket, verdict } => {
                    if let Some(sink) = &mut self.sink {
                        sink.answer(ticket, verdict, now, &mut self.connections);
                    }
                }
                Command::Secure(tls) => {
                    if let Some(sink) = &mut self.sink {
                        sink.secure(tls);
                    }
                }
                Command::Faults(faults) => {
                    if let Some(sink) = &mut self.sink {
                        sink.set_faults(faults, &mut self.connections);
                    }
                }
                Command::Shutdown => self.shutting_down = true,
                #[cfg(test)]
                Command::Fault(fault) => fault(),
            }
        }
    }

    /// Begins the shares for which there are file slots now. Those of jobs that have ended become free when their
    /// connections are closed, which takes the kernel a moment.
    fn start_waiting(&mut self, now: Instant) {
        while let Some(start) = self.waiting.front() {
            let wanted = start.worker.connections() as usize;
            assert!(wanted <= self.owners.len(), "control admits no more connections than a shard has file slots");
            if wanted > self.free_files.len() {
                return;
            }
            if let Some(start) = self.waiting.pop_front() {
                self.start(start, now);
            }
        }
    }

    fn start(&mut self, start: WaitingStart, now: Instant) {
        let WaitingStart { job, worker, target, tls, spares, stopped } = start;
        let files = self.free_files.split_off(self.free_files.len() - worker.connections() as usize);
        // Slots are kept in place, so that the owners' numbers stay true while other jobs come and go.
        let vacant = self.jobs.iter().position(|running| running.ended);
        let index = vacant.unwrap_or(self.jobs.len());
        for (slot, &file) in files.iter().enumerate() {
            self.owners[file as usize] = Some((index as u32, slot as u32));
        }
        // Each shard begins with another one, lest all begin with the first.
        let mut sources = worker.job().source_addresses.clone();
        let first = self.shard % sources.len().max(1);
        sources.rotate_left(first);
        let congestion = worker.job().congestion.clone();
        let target = match vacant.map(|index| self.jobs[index].target) {
            Some(known) => {
                self.connections.ring().retarget(known, target, &sources);
                known
            }
            None => self.connections.ring().target(target, &sources),
        };
        self.connections.ring().control_congestion(target, congestion);
        // What the shard has used so far was for those that were there.
        self.charge();
        let mut running = RunningJob {
            job,
            worker,
            target,
            tls,
            files,
            spares,
            spare: None,
            draining: false,
            seconds: 0,
            charged_sent: 0,
            last: None,
            ended: false,
        };
        let (worker, mut links) = running.parts(&mut self.connections);
        worker.start(now, &mut links);
        if stopped {
            worker.stop(now, &mut links);
        }
        match vacant {
            Some(index) => self.jobs[index] = running,
            None => self.jobs.push(running),
        }
    }
}
