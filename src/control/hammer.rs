//! One hammer job, from its start to its report.

use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use thiserror::Error;

use super::layout;
use super::running::{Progress, RunningJob, SILENT};
use super::sink::{self, SinkError, SinkPlan};
use super::targets::EMBEDDED_PATH;
use crate::audit::sent::{AuditPlan, Sent};
use crate::job::plan::{Circumstances, Job};
use crate::job::spec::{JobSpec, SpecError};
use crate::measure::report::Report;
use crate::measure::words::thousands;
use crate::shard::clock::{Clock, wall_now};
use crate::shard::mailbox::Event;
use crate::shard::pool::{Pool, PoolError, ShardSpec};
use crate::shard::tls::ClientTls;
use crate::time::Instant;

/// How often the progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// The number of the only job.
const JOB: u64 = 1;

/// What is to be done, and on what.
#[derive(Debug)]
pub struct HammerPlan {
    /// The job. Its target's address is not looked at when a sink is embedded.
    pub spec: JobSpec,
    /// The generator's CPUs, one shard each; no more are used than there are connections.
    pub cpus: Vec<usize>,
    /// The TLS of its connections, as [`ClientTls::of_job`] makes it.
    pub tls: Option<ClientTls>,
    /// A sink to be loaded, in place of the job's target.
    pub embedded: Option<SinkPlan>,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// A fresh number, so that no two runs share a Message-ID.
    pub run_id: u64,
    /// What an audit needs, if there is to be one.
    pub audit: Option<AuditPlan>,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum HammerError {
    /// The job cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The shards did not start.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The embedded sink did not start.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// Runs the job and returns its report, and what was accepted if that is audited. `stop` asks for a gentle end; `progress` is called a few times a second.
pub fn run(
    mut plan: HammerPlan,
    stop: &Receiver<()>,
    mut progress: impl FnMut(&Progress),
) -> Result<(Report, Option<Arc<Sent>>), HammerError> {
    let clock = Clock::start();
    let embedded = plan.embedded.take().map(|sink| sink::prepare(sink, clock)).transpose()?;
    if let Some(sink) = &embedded {
        let address = sink.addresses[0].address;
        plan.spec.target.address = address;
        plan.spec.target.name = match &mut plan.spec.http {
            None => format!("smtp://{address} (embedded sink)"),
            Some(http) => {
                http.host = address.to_string();
                format!("http://{address}{EMBEDDED_PATH} (embedded stub)")
            }
        };
    }
    // Whatever can be wrong with the job shows before a thread is started.
    let built = Job::new(&plan.spec, &circumstances(&plan, clock))?;
    let has_sink = embedded.is_some();
    let shards = plan.cpus.len().min(plan.spec.connections as usize);
    let ring = layout::generator_ring(plan.spec.connections.div_ceil(shards as u32));
    let generators = plan.cpus[..shards].iter().map(|&cpu| ShardSpec { cpu: Some(cpu), ring, sink: None });
    let servers = embedded.into_iter().flat_map(|sink| sink.specs);
    let pool = Pool::start(generators.chain(servers).collect(), clock)?;
    let own: Vec<usize> = (0..shards).collect();
    let mut job = RunningJob::start(JOB, &plan.spec, built, plan.tls.as_ref(), &pool, &own);
    follow(&mut job, &pool, stop, &mut progress);
    let mut report = job.report(clock.now());
    // What kept a shard of the job from ending is in the report already.
    if let (Ok(sunk), true) = (sink::end(pool), has_sink) {
        let messages = sunk.http.map_or(sunk.smtp.messages, |http| http.messages);
        report.notes.push(verdict_of_sink(messages, &report));
    }
    report.judge();
    Ok((report, job.audit().cloned()))
}

fn circumstances(plan: &HammerPlan, clock: Clock) -> Circumstances {
    let (run_id, host, audit) = (plan.run_id, plan.host.clone(), plan.audit.clone());
    Circumstances { now: clock.now(), wall: wall_now(), run_id, host, audit }
}

fn verdict_of_sink(messages: u64, report: &Report) -> String {
    let verdict = match messages == report.messages.accepted {
        true => "as many as",
        false => "which are not as many as",
    };
    format!("the embedded sink counted {} messages, {verdict} were accepted", thousands(messages))
}

/// What control waits for.
enum Woken {
    Event(usize, Event),
    AllShardsGone,
    StopRequested,
    TimeToLook,
}

/// Merges what comes until every shard's share has ended.
fn follow(job: &mut RunningJob, pool: &Pool, stop: &Receiver<()>, progress: &mut impl FnMut(&Progress)) {
    match executor() {
        Ok(executor) => executor.run(attend(job, pool, stop, progress)),
        Err(reason) => job.abort(pool, reason),
    }
}

/// What control waits on, for shards and timers at once.
pub(super) fn executor() -> Result<glommio::LocalExecutor, String> {
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).io_memory(64 << 10).make();
    executor.map_err(|_| "control has no executor: the machine has no room for another io_uring".to_owned())
}

/// The same on an executor that is there.
pub(super) async fn attend(
    job: &mut RunningJob,
    pool: &Pool,
    stop: &Receiver<()>,
    progress: &mut impl FnMut(&Progress),
) {
    let mut next_look = pool.clock().now() + PROGRESS_EVERY;
    while !job.is_over(pool.clock().now()) {
        match wake(pool, stop, next_look).await {
            Woken::Event(shard, Event::Measured { second, elapsed, delta, finished, .. }) => {
                job.take(shard, second, elapsed, delta, finished);
            }
            Woken::Event(shard, Event::Failed(reason)) => job.shard_failed(pool, shard, &reason),
            Woken::Event(_, Event::Ready | Event::Sunk(_) | Event::Ended | Event::Arrived(_)) => {}
            Woken::AllShardsGone => {
                job.abort(pool, "all shards have ended before the job".into());
                break;
            }
            Woken::StopRequested => {
                job.interrupt(pool);
                progress(&job.progress(pool.clock().now()));
            }
            Woken::TimeToLook => {
                let now = pool.clock().now();
                next_look = now + PROGRESS_EVERY;
                job.look(pool);
                if let Some(shard) = job.silent(now) {
                    job.shard_failed(pool, shard, SILENT);
                }
                progress(&job.progress(now));
            }
        }
    }
}

async fn wake(pool: &Pool, stop: &Receiver<()>, next_look: Instant) -> Woken {
    use futures_lite::future::or;
    let event = async {
        match pool.events().recv().await {
            Ok((shard, event)) => Woken::Event(shard, event),
            Err(_) => Woken::AllShardsGone,
        }
    };
    let stop = async {
        match stop.recv().await {
            Ok(()) => Woken::StopRequested,
            // No second request can come this way: the second signal ends the process.
            Err(_) => std::future::pending().await,
        }
    };
    let look = async {
        glommio::timer::sleep(next_look - pool.clock().now()).await;
        Woken::TimeToLook
    };
    or(event, or(stop, look)).await
}
