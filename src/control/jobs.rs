//! The jobs of the service: admitted, followed, stopped, and kept.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::draft::{Built, Draft, Read};
use super::metrics::Metrics;
use super::running::{RunningJob, SILENT};
use super::store::{Store, StoreError, StoredJob};
use super::targets::ResolvedTarget;
use super::trials::Trials;
use crate::audit::sent::AuditPlan;
use crate::config::{Defaults, Limits};
use crate::job::plan::Job;
use crate::job::record::{JobRecord, JobState};
use crate::job::request::JobType;
use crate::job::spec::{JobSpec, SpecError};
use crate::measure::threshold::Threshold;
use crate::shard::clock::wall_now;
use crate::shard::mailbox::Event;
use crate::shard::pool::{LeftBehind, Pool};
use crate::time::Instant;

/// How often the totals of a running job are stored, as long as they are small.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// Octets of results that are stored a second: a result that has grown larger is stored less often.
const STORED_A_SECOND: usize = 256 << 10;

/// All jobs, running and kept.
pub struct Jobs {
    pool: Pool,
    /// The pool's first shards generate, so many of them.
    generators: usize,
    host: String,
    audit: Option<AuditPlan>,
    limits: Limits,
    defaults: Defaults,
    /// Connections that a shard has room for, whatever the limits say: that of the limits at the start.
    connections_max: u32,
    running: Vec<Running>,
    /// The newest ones, without their results.
    records: BTreeMap<u64, JobRecord>,
    kept: u64,
    store: Rc<Store>,
    metrics: Metrics,
    closing: bool,
}

struct Running {
    /// Of a search, the trial that is under way or was the last one.
    job: RunningJob,
    search: Option<Box<Trials>>,
    kind: JobType,
    /// Connections on each shard of the pool, by the shard's number.
    connections: Vec<(usize, u32)>,
    /// Conditions under which its result is a failure.
    fail_if: Vec<Threshold>,
    store_at: Instant,
}

/// Why a job was not taken.
#[derive(Debug, Error)]
pub enum JobRefusal {
    /// It cannot be.
    #[error(transparent)]
    Invalid(#[from] SpecError),
    /// Not beside those that run.
    #[error("{0}")]
    Busy(String),
    /// The service ends, or cannot give it an id.
    #[error("{0}")]
    Unavailable(String),
}

/// What the jobs run on.
pub struct JobsParts {
    /// Running shards; the first ones generate.
    pub pool: Pool,
    /// So many of them.
    pub generators: usize,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// What an audit needs; without it there can be none.
    pub audit: Option<AuditPlan>,
    /// What a job may ask for.
    pub limits: Limits,
    /// What a job is like that says nothing else.
    pub defaults: Defaults,
    /// Jobs that are kept.
    pub kept: u64,
    /// Where they are kept.
    pub store: Rc<Store>,
    /// Where they are counted.
    pub metrics: Metrics,
    /// Those that were there already.
    pub known: Vec<JobRecord>,
}

impl Jobs {
    /// Nothing runs yet.
    pub fn new(parts: JobsParts) -> Jobs {
        Jobs {
            pool: parts.pool,
            generators: parts.generators,
            host: parts.host,
            audit: parts.audit,
            connections_max: parts.limits.connections_max,
            limits: parts.limits,
            defaults: parts.defaults,
            running: Vec::new(),
            records: parts.known.into_iter().map(|record| (record.id, record)).collect(),
            kept: parts.kept,
            store: parts.store,
            metrics: parts.metrics,
            closing: false,
        }
    }

    /// The shards.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What was counted of all jobs.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Jobs that run, draining ones included.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Connections of all jobs that are open.
    pub fn connections_open(&self) -> u64 {
        self.running.iter().map(|running| running.job.connections_open()).sum()
    }

    /// Whether jobs can be started and kept, or why not.
    pub fn readiness(&self) -> Result<(), String> {
        self.admit_any().map_err(|refusal| refusal.to_string())?;
        self.store.health().map_err(|why| match self.store.ids_left() {
            0 => format!("the store cannot be written: {why}; jobs that run go on, but no further one can start"),
            left => format!(
                "the store cannot be written: {why}; jobs go on and are kept in memory, and {left} more can start"
            ),
        })
    }

    /// Sets what a job may ask for from now on, and what it is like where it does not; never more connections than the shards were made for.
    pub fn set_limits(&mut self, limits: Limits, defaults: Defaults) {
        let connections_max = limits.connections_max.min(self.connections_max);
        self.limits = Limits { connections_max, ..limits };
        self.defaults = defaults;
    }

    /// Whether another job may start now; asked before a target is resolved, and again by [`Jobs::start`].
    pub fn admit(&self) -> Result<(), JobRefusal> {
        self.admit_any()?;
        if self.running.len() >= self.limits.jobs_max as usize {
            return Err(JobRefusal::Busy(format!(
                "{} jobs run, as many as may run at once (`jobs_max` in [hammer]): wait until one has ended, or stop one",
                self.running.len()
            )));
        }
        Ok(())
    }

    fn admit_any(&self) -> Result<(), JobRefusal> {
        match self.closing {
            true => Err(JobRefusal::Unavailable("the service is ending and takes no new jobs".into())),
            false => Ok(()),
        }
    }

    /// What is needed to build a job, which takes long for a large one.
    pub fn draft(&self, read: Read, target: ResolvedTarget) -> Draft {
        let (limits, defaults, clock) = (self.limits.clone(), self.defaults.clone(), self.pool.clock());
        Draft { read, target, limits, defaults, clock, host: self.host.clone(), audit: self.audit.clone() }
    }

    /// Starts a job on the shards that have the fewest connections.
    pub fn start(&mut self, built: Built) -> Result<JobRecord, JobRefusal> {
        let Built { echo, spec, job: built, target, shards, fail_if, searching, start } = built;
        self.admit()?;
        let shards = self.shards_of(shards)?;
        self.has_room(&spec)?;
        let id = self.store.next_id().ok_or_else(|| {
            JobRefusal::Unavailable("no job can be given an id while the store cannot be written: see /readyz".into())
        })?;
        let mut job = RunningJob::start(id, &spec, built, target.tls.as_ref(), &self.pool, &shards);
        for running in &mut self.running {
            running.job.beside(id);
            job.beside(running.job.id());
        }
        let shares = Job::connections(spec.connections, shards.len() as u32);
        let connections = shards.iter().copied().zip(shares).collect();
        let trials = |searching| Box::new(Trials::new(searching, target.tls.clone(), shards, self.host.clone()));
        let (search, kind) = (searching.map(trials), spec.job_type());
        self.running.push(Running { job, search, kind, connections, fail_if, store_at: Instant::ZERO });
        let record = JobRecord { id, job: echo, state: JobState::Running, start, stop: None, verdict: None };
        self.records.insert(id, record.clone());
        self.forget_old();
        self.keep(id);
        tracing::info!(job = id, target = %target.name, "job started");
        Ok(record)
    }

    /// The shards for a job: those with the fewest connections.
    fn shards_of(&self, asked: Option<u64>) -> Result<Vec<usize>, SpecError> {
        let wanted = asked.unwrap_or(self.generators as u64);
        if !(1..=self.generators as u64).contains(&wanted) {
            return Err(SpecError::new(
                "shards",
                format!("1 to {}, as many as generate here (`shards` in [hammer])", self.generators),
                wanted,
            ));
        }
        let mut shards: Vec<usize> = (0..self.generators).collect();
        shards.sort_by_key(|&shard| self.connections_on(shard));
        shards.truncate(wanted as usize);
        Ok(shards)
    }

    fn connections_on(&self, shard: usize) -> u32 {
        let shares = self.running.iter().flat_map(|running| &running.connections);
        shares.filter(|(own, _)| *own == shard).map(|(_, connections)| connections).sum()
    }

    fn has_room(&self, spec: &JobSpec) -> Result<(), JobRefusal> {
        let used: u32 = (0..self.generators).map(|shard| self.connections_on(shard)).sum();
        if used + spec.connections > self.limits.connections_max {
            return Err(JobRefusal::Busy(format!(
                "connections: running jobs have {used} of the {} that may be open at once (`connections_max` in \
                 [hammer]), which leaves too few for {}: wait until one has ended, or stop one",
                self.limits.connections_max, spec.connections
            )));
        }
        Ok(())
    }

    /// A job; one that runs comes with its report so far, as JSON.
    pub fn get(&self, id: u64) -> Option<(JobRecord, Option<String>)> {
        let record = self.records.get(&id)?.clone();
        let running = self.running.iter().find(|running| running.job.id() == id);
        Some((record, running.map(|running| running.result(self.pool.clock().now()))))
    }

    /// A job without its result, which costs much less.
    pub fn record(&self, id: u64) -> Option<&JobRecord> {
        self.records.get(&id)
    }

    /// All jobs, the newest first.
    pub fn list(&self) -> impl Iterator<Item = &JobRecord> {
        self.records.values().rev()
    }

    /// Sends no new messages of a job; those in flight have the drain's time to end. A job that has ended is left alone.
    pub fn stop(&mut self, id: u64) -> Option<JobRecord> {
        let record = self.records.get_mut(&id)?;
        if record.state == JobState::Running {
            let at = self.running.iter().position(|running| running.job.id() == id);
            let has_failed = at.is_some_and(|at| self.running[at].has_failed());
            record.state = if has_failed { JobState::Failed } else { JobState::Stopped };
            record.stop = Some(wall_now());
            tracing::info!(job = id, "job stopped");
            if let Some(at) = at {
                self.interrupt(at, "it was stopped by job.stop".into());
            }
            self.keep(id);
        }
        self.records.get(&id).cloned()
    }

    /// The service ends: no new jobs, and those that run have the drain's time to end.
    pub fn close(&mut self) {
        self.closing = true;
        for at in (0..self.running.len()).rev() {
            let running = &mut self.running[at];
            if let Some(record) = self.records.get_mut(&running.job.id())
                && record.state == JobState::Running
            {
                record.state = if running.has_failed() { JobState::Failed } else { JobState::Interrupted };
                record.stop = Some(wall_now());
            }
            // What a large job is stored less often for must not leave it running in the store.
            running.store_at = Instant::ZERO;
            self.interrupt(at, "the service was told to end".into());
        }
    }

    /// Somebody wants a job to end before its time: what is in flight may end. A search that rests ends at once.
    fn interrupt(&mut self, at: usize, reason: String) {
        let running = &mut self.running[at];
        match running.search.as_mut().filter(|search| search.is_resting()) {
            None => running.job.abort(&self.pool, reason),
            Some(search) => {
                search.searching.give_up(reason);
                self.end_job(at);
            }
        }
    }

    /// Takes what a shard says. An error means that the service cannot go on.
    pub fn take(&mut self, shard: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Measured { job, second, elapsed, delta, finished } => {
                if let Some(at) = self.running.iter().position(|running| running.job.id() == job) {
                    let running = &mut self.running[at];
                    // What is in no report is in no metric.
                    if running.job.awaits(shard) {
                        self.metrics.add(running.kind, &delta);
                    }
                    running.job.take(shard, second, elapsed, delta, finished);
                    self.end_if_finished(at);
                }
                Ok(())
            }
            Event::Failed(reason) => Err(self.shard_failed(shard, &reason)),
            Event::Ready | Event::Sunk(_) | Event::Ended | Event::Arrived(_) => Ok(()),
        }
    }

    /// A shard is gone or hangs: all jobs have failed, with what is known of them.
    fn shard_failed(&mut self, shard: usize, reason: &str) -> String {
        for at in (0..self.running.len()).rev() {
            if self.running[at].is_resting() {
                self.interrupt(at, format!("shard {shard} failed: {reason}"));
                continue;
            }
            let job = &mut self.running[at].job;
            job.shard_failed(&self.pool, shard, reason);
            if let Some(record) = self.records.get_mut(&job.id())
                && record.state == JobState::Running
            {
                (record.state, record.stop) = (JobState::Failed, Some(wall_now()));
            }
            self.end_if_finished(at);
        }
        format!("shard {shard} failed: {reason}")
    }

    /// Looks after the jobs that run; to be called a few times a second. An error means that the service cannot go on.
    pub fn look(&mut self) -> Result<(), String> {
        let now = self.pool.clock().now();
        let mut silent = None;
        for at in (0..self.running.len()).rev() {
            match self.running[at].is_resting() {
                false => {
                    self.running[at].job.look(&self.pool);
                    silent = silent.or(self.running[at].job.silent(now));
                }
                true => {
                    if !self.begin_trial(at) {
                        continue;
                    }
                }
            }
            if now >= self.running[at].store_at {
                self.keep(self.running[at].job.id());
            }
        }
        // Those that have waited for arrivals.
        (0..self.running.len()).rev().for_each(|at| self.end_if_finished(at));
        silent.map_or(Ok(()), |shard| Err(self.shard_failed(shard, SILENT)))
    }

    /// Begins a search's next trial, if its time has come; says whether the search goes on.
    fn begin_trial(&mut self, at: usize) -> bool {
        let id = self.running[at].job.id();
        let Some(search) = &mut self.running[at].search else { return true };
        match search.begin(id, &self.pool) {
            None => true,
            Some(Ok(mut job)) => {
                let others = self.running.iter().map(|running| running.job.id()).filter(|&other| other != id);
                others.for_each(|other| job.beside(other));
                self.running[at].job = job;
                true
            }
            Some(Err(reason)) => {
                self.interrupt(at, reason);
                false
            }
        }
    }

    fn end_if_finished(&mut self, at: usize) {
        let now = self.pool.clock().now();
        let running = &mut self.running[at];
        if running.is_resting() || !running.job.is_over(now) {
            return;
        }
        self.end_trial(at);
        match self.running[at].search.as_mut().filter(|search| search.searching.trial().is_some()) {
            Some(search) => search.rest(&self.pool),
            None => self.end_job(at),
        }
    }

    /// The trial of a search that was under way is over, if there was one.
    fn end_trial(&mut self, at: usize) {
        let Running { job, search, kind, .. } = &mut self.running[at];
        let Some(search) = search.as_mut().filter(|search| !search.is_resting()) else { return };
        let run = job.report(self.pool.clock().now());
        self.metrics.trial_ended(*kind, &run);
        search.searching.ended(&run, job.was_interrupted());
        if let Some(reason) = job.interruption() {
            search.searching.stop(reason);
        }
    }

    /// A job is over: its last result is made and kept.
    fn end_job(&mut self, at: usize) {
        let Running { job, search, kind, fail_if, .. } = self.running.swap_remove(at);
        let Some(record) = self.records.get_mut(&job.id()) else { return };
        let end = |record: &mut JobRecord, aborted: bool| {
            if record.state == JobState::Running {
                record.state = if aborted { JobState::Failed } else { JobState::Finished };
                record.stop = Some(wall_now());
            }
        };
        let result = match search {
            None => {
                let mut report = job.report(self.pool.clock().now());
                report.judge();
                report.check(&fail_if);
                end(record, report.aborted.is_some());
                record.verdict = report.verdict.as_ref().map(|verdict| verdict.result.name().to_owned());
                tracing::info!(
                    job = record.id,
                    state = record.state.name(),
                    accepted = report.messages.accepted,
                    asked = report.messages.asked,
                    aborted = report.aborted.as_deref(),
                    "job ended"
                );
                self.metrics.job_ended(kind, record.state, Some(&report));
                to_json(&report)
            }
            Some(search) => {
                let report = search.searching.report(None);
                end(record, report.aborted.is_some());
                record.verdict = report.result.map(|result| result.name().to_owned());
                tracing::info!(
                    job = record.id,
                    state = record.state.name(),
                    rate_per_s = report.rate_per_s,
                    trials = report.trials.len(),
                    aborted = report.aborted.as_deref(),
                    "search ended"
                );
                self.metrics.job_ended(kind, record.state, None);
                self.metrics.search_ended(kind, report.result);
                to_json(&report)
            }
        };
        self.store.put(stored(record, Some(result)));
        self.forget_old();
    }

    /// Stores how a running job stands.
    fn keep(&mut self, id: u64) {
        let Some(record) = self.records.get(&id) else { return };
        let Some(running) = self.running.iter_mut().find(|running| running.job.id() == id) else { return };
        let now = self.pool.clock().now();
        let result = running.result(now);
        let octets = record.job.get().len() + result.len();
        running.store_at = now + stored_again_after(octets);
        self.store.put(stored(record, Some(result)));
    }

    /// Keeps the newest jobs, and those that run or drain; forgets the others, here and in the store.
    fn forget_old(&mut self) {
        let Some(&oldest) = self.records.keys().rev().nth((self.kept as usize).saturating_sub(1)) else { return };
        let is_running = |id: u64| self.running.iter().any(|running| running.job.id() == id);
        let old: Vec<u64> = self.records.range(..oldest).map(|(&id, _)| id).filter(|&id| !is_running(id)).collect();
        for id in old {
            self.records.remove(&id);
            self.store.forget(id);
        }
    }

    /// Ends the shards and writes what is not yet stored, when nobody else uses the store any more. What a shard still says
    /// is counted. One that hangs is left behind: it must not keep what is known from being stored. Blocks, no longer than
    /// these two times.
    pub fn end(
        mut self,
        shards_within: Duration,
        stored_within: Duration,
    ) -> (Result<(), LeftBehind>, Result<(), StoreError>) {
        let mut last = Vec::new();
        let ended = self.pool.end(shards_within, |shard, event| last.push((shard, event)));
        for (shard, event) in last {
            let _ = self.take(shard, event);
        }
        // Nobody is waited for any longer, be it for a shard, for arrivals, or for a search's next trial.
        let reason = "the service ended before every shard had reported the last of it";
        for at in (0..self.running.len()).rev() {
            self.running[at].job.abandon(reason);
            self.end_trial(at);
            if let Some(search) = &mut self.running[at].search {
                search.searching.stop(reason);
            }
            self.end_job(at);
        }
        let store = Rc::into_inner(self.store).expect("whoever else used the store has ended");
        (ended, store.close(stored_within))
    }
}

/// When a job is stored again of which so many octets were stored.
fn stored_again_after(octets: usize) -> Duration {
    STORE_EVERY.max(STORE_EVERY * (octets / STORED_A_SECOND) as u32)
}

impl Running {
    /// Whether it is a search that has no trial under way.
    fn is_resting(&self) -> bool {
        self.search.as_ref().is_some_and(|search| search.is_resting())
    }

    /// Whether its target made it give up, so that it drains. Of a search that is the end of a trial.
    fn has_failed(&self) -> bool {
        self.search.is_none() && self.job.was_given_up()
    }

    /// What came of it so far, as JSON.
    fn result(&self, now: Instant) -> String {
        match &self.search {
            None => to_json(&self.job.report(now)),
            Some(search) if search.is_resting() => to_json(&search.searching.report(None)),
            Some(search) => to_json(&search.searching.report(Some(&self.job.report(now)))),
        }
    }
}

fn to_json(report: &impl Serialize) -> String {
    serde_json::to_string(report).expect("a report is made of numbers and strings")
}

fn stored(record: &JobRecord, result: Option<String>) -> StoredJob {
    StoredJob {
        id: record.id,
        state: record.state,
        job: record.job.get().to_owned(),
        start_unix_ns: record.start.as_unix_ns(),
        stop_unix_ns: record.stop.map(|stop| stop.as_unix_ns()),
        totals_unix_ns: wall_now().as_unix_ns(),
        result,
        verdict: None,
    }
}

#[cfg(test)]
mod tests;
