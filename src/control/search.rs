//! The search for the highest rate that a target holds, for the command line: one pool of shards, and on it one open-loop
//! job a trial.

use std::time::Duration;

use async_channel::Receiver;

use super::hammer::{self, HammerError};
use super::layout;
use super::running::{Progress, RunningJob};
use crate::job::plan::{Circumstances, Job};
use crate::job::search::{SearchReport, Searching, TrialReport};
use crate::job::spec::JobSpec;
use crate::shard::clock::{Clock, wall_now};
use crate::shard::pool::{Pool, SHARDS_END_WITHIN, ShardSpec};
use crate::shard::tls::ClientTls;

/// What is to be searched, and with what.
#[derive(Debug)]
pub struct SearchPlan {
    /// The search.
    pub searching: Searching,
    /// The TLS of its connections: needed where the target is secured.
    pub tls: Option<ClientTls>,
    /// The generator's CPUs, one shard each; no more are used than there are connections.
    pub cpus: Vec<usize>,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// A fresh number, so that no two runs share a Message-ID.
    pub run_id: u64,
}

/// What a search tells whoever watches it.
#[derive(Debug)]
pub enum SearchEvent<'a> {
    /// A trial begins.
    Begins(&'a JobSpec),
    /// How it stands.
    Stands(&'a Progress),
    /// It is over.
    Ended(&'a TrialReport),
}

/// Searches. `stop` asks for an end; `watch` is told of every trial.
pub fn run(
    mut plan: SearchPlan,
    stop: &Receiver<()>,
    mut watch: impl FnMut(SearchEvent<'_>),
) -> Result<SearchReport, HammerError> {
    let clock = Clock::start();
    // Whatever can be wrong with the job shows before a thread is started.
    Job::new(plan.searching.job(), &circumstances(&plan, clock))?;
    let connections = plan.searching.job().connections;
    let shards = plan.cpus.len().min(connections as usize);
    let ring = layout::generator_ring(connections.div_ceil(shards as u32));
    let mut pool = Pool::start(
        plan.cpus[..shards].iter().map(|&cpu| ShardSpec { cpu: Some(cpu), ring, sink: None }).collect(),
        clock,
    )?;
    match hammer::executor() {
        Ok(executor) => executor.run(trials(&mut plan, &pool, stop, &mut watch)),
        Err(reason) => plan.searching.give_up(reason),
    }
    // A shard that hangs has failed its trial already.
    let _ = pool.end(SHARDS_END_WITHIN, |_, _| {});
    Ok(plan.searching.report(None))
}

fn circumstances(plan: &SearchPlan, clock: Clock) -> Circumstances {
    let run_id = plan.run_id.wrapping_add(plan.searching.trials() as u64);
    Circumstances { now: clock.now(), wall: wall_now(), run_id, host: plan.host.clone(), audit: None }
}

/// One trial after the other, until the search has its result.
async fn trials(plan: &mut SearchPlan, pool: &Pool, stop: &Receiver<()>, watch: &mut impl FnMut(SearchEvent<'_>)) {
    let shards: Vec<usize> = (0..pool.len()).collect();
    while let Some(spec) = plan.searching.trial() {
        let trials = plan.searching.trials() as u64;
        if trials > 0 && rest(plan.searching.spec().cool_down, stop).await {
            return plan.searching.give_up("it was stopped by a signal before its end".to_owned());
        }
        let built = Job::new(spec, &circumstances(plan, pool.clock()));
        let built = built.expect("the same job was built before with another rate");
        watch(SearchEvent::Begins(spec));
        let mut job = RunningJob::start(trials + 1, spec, built, plan.tls.as_ref(), pool, &shards);
        hammer::attend(&mut job, pool, stop, &mut |now| watch(SearchEvent::Stands(now))).await;
        let run = job.report(pool.clock().now());
        watch(SearchEvent::Ended(plan.searching.ended(&run, job.was_interrupted())));
    }
}

/// Leaves the target alone for a while; says whether a stop was requested in it.
async fn rest(time: Duration, stop: &Receiver<()>) -> bool {
    let stopped = async { stop.recv().await.is_ok() };
    let rested = async {
        glommio::timer::sleep(time).await;
        false
    };
    futures_lite::future::or(stopped, rested).await
}
