//! A job under way, as control sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Sender;

use crate::audit::join;
use crate::audit::sent::Sent;
use crate::job::plan::Job;
use crate::job::spec::{ConnectionType, JobSpec, Limit, LoadModel};
use crate::job::worker::Worker;
use crate::load::connections::ConnectionRamp;
use crate::load::warmup::Warmup;
use crate::measure::abort::AbortWatch;
use crate::measure::audit::HISTOGRAM;
use crate::measure::recorder::{AuthKind, ConnectionCounts, Delta, MessageCounts};
use crate::measure::report::{Asked, AskedWarmup, Reply, Report};
use crate::measure::totals::{SeriesRow, Totals};
use crate::measure::words::thousands;
use crate::message::Conversion;
use crate::phase::Phase;
use crate::shard::clock::wall_now;
use crate::shard::machine;
use crate::shard::mailbox::Command;
use crate::shard::pool::Pool;
use crate::shard::tls::ClientTls;
use crate::time::Instant;
use crate::wire::smtp::auth::Mechanism;

/// A run without a single connection by then is given up.
pub const FIRST_CONNECTION_WITHIN: Duration = Duration::from_secs(10);
/// A run that had sessions, lost all of them and opened no connection for so long is given up, too.
pub const LOST_FOR: Duration = Duration::from_secs(60);

/// A shard reports each of its jobs once a second. One that has said nothing of a job for so long hangs.
pub const SILENT_FOR: Duration = Duration::from_secs(15);
/// A look counts at most so much of it: whatever keeps control from looking may have kept the shards from reporting.
const SILENT_A_LOOK: Duration = Duration::from_secs(1);
/// What is said of such a shard.
pub const SILENT: &str = "it has reported nothing for 15 s, though it should each second: it hangs, which is a fault of \
     timecop or of the machine; what it had not reported is not counted";

/// How long messages that were accepted may take to arrive at the sink of this process, behind the last one's outcome,
/// before the run is over without them.
pub const ARRIVALS_WITHIN: Duration = Duration::from_secs(10);

/// How a run stands, for whoever watches it.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// By outcome, so far, those of the warm-up included.
    pub messages: MessageCounts,
    /// Now.
    pub connections: ConnectionCounts,
    /// The last second that all shards have reported.
    pub last: Option<SeriesRow>,
    /// Draining after a stop.
    pub stopping: bool,
    /// A signal has stopped it, so that another one ends the process.
    pub by_signal: bool,
}

/// Why a run has ended that a signal has ended.
const STOPPED_BY_SIGNAL: &str = "it was stopped by a signal before its end";

/// What to do about a server that lets nobody send who has not logged in (RFC 4954 §6).
const LOGIN_WANTED_NOTE: &str = "the server wants a login (530): give a user and a password (--user and --password-file; \
     for a job of a service `user` and `password_file` of its target, and auth)";

/// What a report must not keep back.
const SKIP_VERIFY_NOTE: &str = "THE SERVER'S CERTIFICATE WAS NOT VERIFIED (skip_verify): whoever stood between could \
     read and answer everything";

/// Said where PLAIN or LOGIN was used without TLS.
const PASSWORD_IN_CLEAR_NOTE: &str = "THE PASSWORD WENT OVER THE WIRE IN CLEAR (no TLS): whoever stood between could \
     read it";

/// Jobs at the same time that a report names; more are not counted.
const OTHERS_MAX: usize = 100;

/// One job on some shards of a pool.
#[derive(Debug)]
pub struct RunningJob {
    id: u64,
    /// The shards of the pool that have a share, in the order of the shares.
    shards: Vec<usize>,
    asked: Asked,
    /// The target's certificate is believed unseen.
    skip_verify: bool,
    /// There is no TLS.
    in_the_clear: bool,
    /// It goes by HTTP.
    is_http: bool,
    /// There is no session without a login.
    logs_in: bool,
    /// What the job says of itself.
    notes: Vec<String>,
    /// What was changed in a given message.
    conversion: Conversion,
    totals: Totals,
    abort_on: AbortWatch,
    spares: Vec<Sender<Box<Delta>>>,
    /// Shards whose share has not ended.
    unfinished: usize,
    /// For how long each of the shares has reported nothing, as far as anybody has looked.
    unheard: Vec<Duration>,
    last_look: Instant,
    /// The number of connections goes up and down.
    ramp: Option<ConnectionRamp>,
    /// How many connections had been opened when that last changed, or one was last open; and when that was.
    last_sign: (u64, Instant),
    aborted: Option<String>,
    /// Why it was ended from this side, whatever its target had done before.
    interrupted: Option<String>,
    stopping: bool,
    /// Jobs that ran at the same time.
    others: BTreeSet<u64>,
    /// What was accepted, if that is audited.
    audit: Option<Arc<Sent>>,
    /// When it was first seen that every share had ended.
    ended: Option<Instant>,
}

impl RunningJob {
    /// Splits a job over these shards of the pool, no more than it has connections, and starts it there, now. `tls` is what
    /// [`ClientTls::of_job`] makes of its spec.
    pub fn start(
        id: u64,
        spec: &JobSpec,
        (mut job, conversion): (Job, Conversion),
        tls: Option<&ClientTls>,
        pool: &Pool,
        shards: &[usize],
    ) -> RunningJob {
        let dialed = pool.clock().now();
        job.begin(dialed, wall_now());
        let job = Arc::new(job);
        let shares = job.split(spec.connections, shards.len() as u32);
        let shards = shards[..shares.len()].to_vec();
        let mut spares = Vec::with_capacity(shards.len());
        for (&shard, share) in shards.iter().zip(shares) {
            let worker = Box::new(Worker::new(Arc::clone(&job), share.pacer, share.connections));
            let (sender, receiver) = async_channel::bounded(2);
            // The second of the two sets that are swapped once a second.
            let _ = sender.try_send(Box::default());
            spares.push(sender);
            let target = spec.target.address;
            let tls = tls.map(|tls| tls.for_shard(share.connections));
            pool.send(shard, Command::Start { job: id, worker, target, tls, spares: receiver });
        }
        let asked = Asked {
            load_model: spec.load.name(),
            target: spec.target.name.clone(),
            spec: spec.describe(),
            seed: spec.seed,
            messages: match spec.limit {
                Limit::Messages(messages) => Some(messages),
                Limit::Duration(_) => None,
            },
            sizes: match job.sizes() {
                Some(sizes) if sizes.is_mix() => sizes.list().iter().map(|size| size.bytes).collect(),
                _ => Vec::new(),
            },
            connections: u64::from(spec.connections),
            shards: shards.len(),
            dialed,
            start: job.start,
            wall_start: job.wall_start,
            end: job.end,
            congestion: machine::congestion(spec.congestion.as_deref()).ok(),
            warmup: spec.warmup.map(|warmup| match warmup {
                Warmup::Duration(duration) => AskedWarmup::Until(job.start + duration),
                Warmup::Messages(_) => AskedWarmup::ByNumber,
            }),
        };
        let start = job.start;
        RunningJob {
            id,
            asked,
            skip_verify: spec.skip_verify,
            in_the_clear: spec.target.connection == ConnectionType::Plain,
            is_http: spec.http.is_some(),
            logs_in: spec.auth.is_some(),
            notes: spec.notes.clone(),
            conversion,
            totals: Totals::new(shards.len()),
            abort_on: AbortWatch::new(&spec.abort_on, spec.warm_span()),
            spares,
            unfinished: shards.len(),
            unheard: vec![Duration::ZERO; shards.len()],
            last_look: dialed,
            shards,
            ramp: match &spec.load {
                LoadModel::Ramped(stages) => Some(ConnectionRamp::new(Arc::clone(stages), start, (0, 1))),
                LoadModel::Closed | LoadModel::Open { .. } | LoadModel::Staged { .. } => None,
            },
            last_sign: (0, dialed),
            aborted: None,
            interrupted: None,
            stopping: false,
            others: BTreeSet::new(),
            audit: job.audit.clone(),
            ended: None,
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Another job runs at the same time.
    pub fn beside(&mut self, other: u64) {
        if self.others.len() < OTHERS_MAX {
            self.others.insert(other);
        }
    }

    /// Connections that are open.
    pub fn connections_open(&self) -> u64 {
        self.totals.connections().open
    }

    /// Which of the shares a shard of the pool has.
    fn share_of(&self, shard: usize) -> Option<usize> {
        self.shards.iter().position(|&own| own == shard)
    }

    /// Whether it waits for what this shard measures: one that was given up may come back.
    pub fn awaits(&self, shard: usize) -> bool {
        self.share_of(shard).is_some_and(|share| !self.totals.has_finished(share))
    }

    /// Merges what a shard has measured and gives it its set back.
    pub fn take(&mut self, shard: usize, second: u64, elapsed: Duration, mut delta: Box<Delta>, finished: bool) {
        let Some(share) = self.share_of(shard).filter(|_| self.awaits(shard)) else { return };
        self.unheard[share] = Duration::ZERO;
        self.totals.add(share, second, elapsed, &delta);
        self.abort_on.add(second, &delta);
        if finished {
            self.totals.shard_finished(share);
            self.unfinished -= 1;
        } else {
            delta.clear();
            let _ = self.spares[share].try_send(delta);
        }
    }

    /// Gives the job up when no connection could be opened, at its beginning or after all were lost, when every login
    /// fails, when messages fail and not one was ever answered, as by a certificate that nobody trusts, and when a
    /// condition says so.
    pub fn look(&mut self, pool: &Pool) {
        // In the drain of a run by time fewer messages end, and nothing more is sent that could be spared.
        let dispatched = self.asked.end.map_or(u64::MAX, |end| (end - self.asked.start).as_secs());
        if !self.stopping
            && !self.totals.is_finished()
            && let Some(reason) = self.abort_on.look(self.totals.whole_seconds().min(dispatched))
        {
            return self.give_up(pool, reason);
        }
        let now = pool.clock().now();
        let connections = self.totals.connections();
        // Where none is to be there, none is missing.
        let none_is_due = self.ramp.as_ref().is_some_and(|ramp| ramp.next(0, now) != Some(now));
        if connections.open > 0 || connections.opened > self.last_sign.0 || none_is_due {
            self.last_sign = (connections.opened, now);
        }
        if self.logs_in
            && !self.stopping
            && now >= self.asked.dialed + FIRST_CONNECTION_WITHIN
            && let Some(obstacle) = self.login_obstacle()
        {
            let reason = format!("no login succeeded within {} s: {obstacle}", FIRST_CONNECTION_WITHIN.as_secs());
            return self.give_up(pool, reason);
        }
        if !self.stopping
            && connections.opened > 0
            && now >= self.asked.dialed + FIRST_CONNECTION_WITHIN
            && self.is_answered_by_nobody()
        {
            let within = FIRST_CONNECTION_WITHIN.as_secs();
            let reason = format!("no message was answered within {within} s: {}", self.commonest_obstacle());
            return self.give_up(pool, reason);
        }
        let (limit, what) = match connections.opened {
            0 => (FIRST_CONNECTION_WITHIN, "no connection could be opened within"),
            _ => (LOST_FOR, "all connections were lost and none could be opened for"),
        };
        if !self.stopping && now >= self.last_sign.1 + limit {
            let reason = format!("{what} {} s: {}", limit.as_secs(), self.commonest_obstacle());
            self.give_up(pool, reason);
        }
    }

    /// The shard that has reported nothing for [`SILENT_FOR`], to be asked a few times a second. Nothing has to be reported
    /// before the job begins: what comes before that is the time in which its connections are opened.
    pub fn silent(&mut self, now: Instant) -> Option<usize> {
        let since = (now - std::mem::replace(&mut self.last_look, now)).min(SILENT_A_LOOK);
        if now < self.asked.start {
            return None;
        }
        self.unheard.iter_mut().for_each(|unheard| *unheard += since);
        let is_silent = |&share: &usize| self.unheard[share] >= SILENT_FOR && !self.totals.has_finished(share);
        (0..self.shards.len()).find(is_silent).map(|share| self.shards[share])
    }

    /// Whether messages have failed, and none has ever had an answer, be it a refusal.
    fn is_answered_by_nobody(&self) -> bool {
        let merged = &self.totals.merged;
        let answered = [&merged.messages, &merged.warmup].map(|of| of.accepted + of.deferred + of.rejected);
        merged.messages.failed + merged.warmup.failed > 0 && answered == [0, 0]
    }

    /// Why no login has succeeded; `None` when one has, or none has failed.
    fn login_obstacle(&self) -> Option<String> {
        let merged = &self.totals.merged;
        if merged.auth.iter().any(|kind| kind.granted > 0) {
            return None;
        }
        let error = merged.errors.iter().filter(|error| error.phase == Phase::Auth).max_by_key(|error| error.count);
        let refusals = merged.replies[Phase::Auth as usize].iter().filter(|reply| reply.code >= 400);
        let refusal = refusals.max_by_key(|reply| reply.count);
        error
            .map(|error| format!("{} ({} times)", error.example, error.count))
            .or_else(|| refusal.map(|reply| format!("{} {} ({} times)", reply.code, reply.example, reply.count)))
    }

    fn commonest_obstacle(&self) -> String {
        match self.totals.merged.errors.iter().max_by_key(|error| error.count) {
            Some(error) => format!("{} ({} times)", error.example, error.count),
            None => "the target has not answered".to_owned(),
        }
    }

    /// Gives the job up because of what its target does.
    pub(super) fn give_up(&mut self, pool: &Pool, reason: String) {
        self.aborted.get_or_insert(reason);
        self.stop(pool);
    }

    /// Whether it was given up because of what its target does, before anybody else ended it.
    pub fn was_given_up(&self) -> bool {
        self.aborted.is_some() && !self.was_interrupted()
    }

    /// Whether it ended before its time for a reason that is not its target's.
    pub fn was_interrupted(&self) -> bool {
        self.aborted.is_some() && self.aborted == self.interrupted
    }

    /// Why it was ended from this side, if it was: be it that its target had made it give up, and it drained already.
    pub fn interruption(&self) -> Option<&str> {
        self.interrupted.as_deref()
    }

    /// Ends the job from this side. It is reported with the first reason that is named by anybody.
    pub fn abort(&mut self, pool: &Pool, reason: String) {
        self.interrupt_for(reason);
        self.stop(pool);
    }

    fn interrupt_for(&mut self, reason: String) {
        let reason = self.interrupted.get_or_insert(reason).clone();
        self.aborted.get_or_insert(reason);
    }

    /// A shard is gone, and its share with it.
    pub fn shard_failed(&mut self, pool: &Pool, shard: usize, reason: &str) {
        self.abort(pool, format!("shard {shard} failed: {reason}"));
        // The others drain; one that only served was no part of the job.
        if let Some(share) = self.share_of(shard).filter(|&share| !self.totals.has_finished(share)) {
            self.totals.shard_finished(share);
            self.unfinished -= 1;
        }
    }

    /// Nobody waits for it any longer: what its shards have reported is all that will be known.
    pub fn abandon(&mut self, reason: &str) {
        self.interrupt_for(reason.to_owned());
        (0..self.shards.len()).for_each(|share| self.totals.shard_finished(share));
        self.unfinished = 0;
    }

    /// Somebody wants it to end before its time.
    pub fn interrupt(&mut self, pool: &Pool) {
        self.abort(pool, STOPPED_BY_SIGNAL.to_owned());
    }

    /// No new messages; those in flight may end.
    pub fn stop(&mut self, pool: &Pool) {
        if !self.stopping {
            self.stopping = true;
            self.shards.iter().for_each(|&shard| pool.send(shard, Command::Stop { job: self.id }));
        }
    }

    /// Whether every share has ended.
    pub fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// Whether every share has ended, and nothing that is audited may still arrive at the sink of this process, or it has had
    /// its time to.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if !self.is_finished() {
            return false;
        }
        let until = *self.ended.get_or_insert(now) + ARRIVALS_WITHIN;
        now >= until || !self.audit.as_ref().is_some_and(|sent| sent.awaits_arrivals())
    }

    /// What was accepted, if that is audited.
    pub fn audit(&self) -> Option<&Arc<Sent>> {
        self.audit.as_ref()
    }

    /// What was measured so far.
    pub fn measured(&self) -> &Delta {
        &self.totals.merged
    }

    /// How it stands.
    pub fn progress(&self, now: Instant) -> Progress {
        let mut messages = self.totals.merged.messages;
        messages.add(&self.totals.merged.warmup);
        Progress {
            elapsed: now - self.asked.start,
            messages,
            connections: self.totals.connections(),
            last: self.totals.rows().last().copied(),
            stopping: self.stopping,
            by_signal: self.interruption() == Some(STOPPED_BY_SIGNAL),
        }
    }

    /// What came of it so far.
    pub fn report(&self, now: Instant) -> Report {
        let mut report = Report::new(&self.asked, &self.totals, now);
        report.aborted.clone_from(&self.aborted);
        if let Some(sent) = &self.audit {
            report.audit = Some(join::report(sent));
            let end_to_end = sent.here().and_then(|(_, arrivals)| arrivals.tally().end_to_end.encode());
            report.histograms.extend(end_to_end.map(|text| (HISTOGRAM.to_owned(), text)));
        }
        report.other_jobs = self.others.iter().map(u64::to_string).collect();
        if self.skip_verify {
            report.notes.push(SKIP_VERIFY_NOTE.to_owned());
        }
        let wants_login = |reply: &Reply| reply.code == 530 && reply.phase != Phase::Auth;
        if !self.logs_in && report.replies.iter().any(wants_login) {
            report.notes.push(LOGIN_WANTED_NOTE.to_owned());
        }
        let shows_password =
            |kind: &AuthKind| Mechanism::parse(kind.mechanism.as_bytes()).is_none_or(Mechanism::shows_password);
        let shows =
            report.auth.iter().any(shows_password) || (self.is_http && self.logs_in && report.messages.sent > 0);
        if self.in_the_clear && shows {
            report.notes.push(PASSWORD_IN_CLEAR_NOTE.to_owned());
        }
        report.notes.extend_from_slice(&self.notes);
        if self.conversion.bare_lf_lines > 0 {
            let lines = self.conversion.bare_lf_lines;
            let lines = thousands(lines);
            report.notes.push(format!("{lines} lines of the body ended in LF alone and were sent with CRLF"));
        }
        if self.conversion.final_crlf_added {
            report.notes.push("the body's last line had no end and was sent with CRLF".to_owned());
        }
        report
    }
}
