//! The jobs of the service: admitted, followed, stopped, and kept.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use thiserror::Error;

use super::draft::{Built, Draft, Read};
use super::metrics::Metrics;
use super::running::RunningJob;
use super::store::{Store, StoreError, StoredJob};
use super::targets::ResolvedTarget;
use crate::audit::sent::AuditPlan;
use crate::config::Limits;
use crate::job::plan::Job;
use crate::job::record::{JobRecord, JobState};
use crate::job::request::JobType;
use crate::job::spec::{JobSpec, SpecError};
use crate::measure::report::Report;
use crate::measure::threshold::Threshold;
use crate::shard::clock::wall_now;
use crate::shard::mailbox::Event;
use crate::shard::pool::Pool;
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
    job: RunningJob,
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

    /// Sets what a job may ask for from now on; never more connections than the shards were made for.
    pub fn set_limits(&mut self, limits: Limits) {
        let connections_max = limits.connections_max.min(self.connections_max);
        self.limits = Limits { connections_max, ..limits };
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
        let (limits, clock) = (self.limits.clone(), self.pool.clock());
        Draft { read, target, limits, clock, host: self.host.clone(), audit: self.audit.clone() }
    }

    /// Starts a job on the shards that have the fewest connections.
    pub fn start(&mut self, built: Built) -> Result<JobRecord, JobRefusal> {
        let Built { echo, spec, job: built, target, shards, fail_if, start } = built;
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
        let connections = shards.into_iter().zip(shares).collect();
        self.running.push(Running { job, kind: spec.job_type(), connections, fail_if, store_at: Instant::ZERO });
        let record = JobRecord { id, job: echo, state: JobState::Running, start, stop: None };
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
        Some((record, running.map(|running| to_json(&running.job.report(self.pool.clock().now())))))
    }

    /// All jobs, the newest first.
    pub fn list(&self) -> impl Iterator<Item = &JobRecord> {
        self.records.values().rev()
    }

    /// Sends no new messages of a job; those in flight have the drain's time to end. A job that has ended is left alone.
    pub fn stop(&mut self, id: u64) -> Option<JobRecord> {
        let record = self.records.get_mut(&id)?;
        if record.state == JobState::Running {
            (record.state, record.stop) = (JobState::Stopped, Some(wall_now()));
            if let Some(running) = self.running.iter_mut().find(|running| running.job.id() == id) {
                running.job.abort(&self.pool, "it was stopped by job.stop".into());
            }
            tracing::info!(job = id, "job stopped");
            self.keep(id);
        }
        self.records.get(&id).cloned()
    }

    /// The service ends: no new jobs, and those that run have the drain's time to end.
    pub fn close(&mut self) {
        self.closing = true;
        for running in &mut self.running {
            if let Some(record) = self.records.get_mut(&running.job.id())
                && record.state == JobState::Running
            {
                (record.state, record.stop) = (JobState::Interrupted, Some(wall_now()));
            }
            running.job.abort(&self.pool, "the service was told to end".into());
            // What a large job is stored less often for must not leave it running in the store.
            running.store_at = Instant::ZERO;
        }
    }

    /// Takes what a shard says. An error means that the service cannot go on.
    pub fn take(&mut self, shard: usize, event: Event) -> Result<(), String> {
        match event {
            Event::Measured { job, second, elapsed, delta, finished } => {
                let found = self.running.iter().position(|running| running.job.id() == job);
                self.metrics.add(found.map_or(JobType::Smtp, |at| self.running[at].kind), &delta);
                if let Some(at) = found {
                    self.running[at].job.take(shard, second, elapsed, delta, finished);
                    self.end_if_finished(at);
                }
                Ok(())
            }
            Event::Failed(reason) => {
                for at in (0..self.running.len()).rev() {
                    self.running[at].job.shard_failed(&self.pool, shard, &reason);
                    self.end_if_finished(at);
                }
                Err(format!("shard {shard} failed: {reason}"))
            }
            Event::Ready | Event::Sunk(_) | Event::Ended | Event::Arrived(_) => Ok(()),
        }
    }

    /// Looks after the jobs that run; to be called a few times a second.
    pub fn look(&mut self) {
        let now = self.pool.clock().now();
        for at in 0..self.running.len() {
            self.running[at].job.look(&self.pool);
            if now >= self.running[at].store_at {
                self.keep(self.running[at].job.id());
            }
        }
        // Those that have waited for arrivals.
        (0..self.running.len()).rev().for_each(|at| self.end_if_finished(at));
    }

    fn end_if_finished(&mut self, at: usize) {
        let now = self.pool.clock().now();
        if !self.running[at].job.is_over(now) {
            return;
        }
        let Running { job, kind, fail_if, .. } = self.running.swap_remove(at);
        let mut report = job.report(now);
        report.judge();
        report.check(&fail_if);
        let Some(record) = self.records.get_mut(&job.id()) else { return };
        if record.state == JobState::Running {
            record.state = if report.aborted.is_some() { JobState::Failed } else { JobState::Finished };
            record.stop = Some(wall_now());
        }
        tracing::info!(
            job = record.id,
            state = record.state.name(),
            accepted = report.messages.accepted,
            asked = report.messages.asked,
            aborted = report.aborted.as_deref(),
            "job ended"
        );
        self.metrics.job_ended(kind, record.state, Some(&report));
        self.store.put(stored(record, Some(to_json(&report))));
        self.forget_old();
    }

    /// Stores how a running job stands.
    fn keep(&mut self, id: u64) {
        let Some(record) = self.records.get(&id) else { return };
        let Some(running) = self.running.iter_mut().find(|running| running.job.id() == id) else { return };
        let now = self.pool.clock().now();
        let result = to_json(&running.job.report(now));
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

    /// Ends the shards and writes what is not yet stored, when no job runs any more and nobody else uses the store. What a shard still says is counted. One that has not ended
    /// `shards_within` is left behind: it must not keep what is known from being stored.
    pub async fn end(mut self, shards_within: Duration, stored_within: Duration) -> Result<(), StoreError> {
        self.pool.shut_down();
        let events = self.pool.events().clone();
        let all_ended = async {
            while let Ok((shard, event)) = events.recv().await {
                let _ = self.take(shard, event);
            }
            true
        };
        let too_late = async {
            glommio::timer::sleep(shards_within).await;
            false
        };
        let all_ended = futures_lite::future::or(all_ended, too_late).await;
        drop(events);
        let running: Vec<u64> = self.running.iter().map(|running| running.job.id()).collect();
        running.into_iter().for_each(|id| self.keep(id));
        match all_ended {
            true => self.pool.join(),
            false => tracing::error!("a shard has not ended within {shards_within:?} and is left behind"),
        }
        Rc::into_inner(self.store).expect("whoever else used the store has ended").close(stored_within)
    }
}

/// When a job is stored again of which so many octets were stored.
fn stored_again_after(octets: usize) -> Duration {
    STORE_EVERY.max(STORE_EVERY * (octets / STORED_A_SECOND) as u32)
}

fn to_json(report: &Report) -> String {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_a_job_the_less_often_it_is_stored() {
        assert_eq!(stored_again_after(500), Duration::from_secs(1));
        assert_eq!(stored_again_after(2 * STORED_A_SECOND - 1), Duration::from_secs(1));
        assert_eq!(stored_again_after(40 * STORED_A_SECOND), Duration::from_secs(40));
        for octets in (0..100 << 20).step_by(99_991) {
            // Rounded down to seconds, at most twice the rate.
            assert!(octets as u64 <= 2 * STORED_A_SECOND as u64 * stored_again_after(octets).as_secs(), "{octets}");
        }
    }
}
