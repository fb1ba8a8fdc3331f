//! The search for the highest rate that a target holds: one pool of shards, and on it one open-loop job a trial.

use std::time::Duration;

use async_channel::Receiver;
use serde::Serialize;

use super::hammer::{self, HammerError};
use super::layout;
use super::running::{Progress, RunningJob};
use crate::job::plan::{Circumstances, Job};
use crate::job::spec::{JobSpec, Limit, LoadModel};
use crate::load::search::{Length, Outcome, Search, Trial};
use crate::load::{Arrival, RATE_PER_S_MAX, Rate};
use crate::measure::report::Report;
use crate::measure::threshold::{Metric, Threshold};
use crate::measure::words;
use crate::shard::clock::{Clock, wall_now};
use crate::shard::pool::{Pool, ShardSpec};
use crate::shard::tls::ClientTls;

/// The version of [`SearchReport`]'s schema.
pub const SEARCH_REPORT_VERSION: u32 = 1;

/// Share of the due messages that may be unanswered at the end of dispatch, beside those that are then in flight.
const BEHIND_SHARE: f64 = 0.005;
/// The same in messages, where the share is less.
const BEHIND_MESSAGES: f64 = 2.0;
/// Share of its CPUs beyond which a generator is no judge of a target that failed.
const BUSY_MAX: f64 = 0.8;
/// Share of its connections that a generator needs at most to be a judge of a target that failed.
const CONNECTIONS_IN_USE_MAX: f64 = 0.8;

/// What is to be searched, and with what.
#[derive(Debug)]
pub struct SearchPlan {
    /// The job of every trial. Its load is an open loop, whose rate is that of the first trial; its limit is not looked
    /// at.
    pub spec: JobSpec,
    /// The TLS of its connections: needed where the target is secured.
    pub tls: Option<ClientTls>,
    /// Conditions that must be true of a trial that the target holds.
    pub slo: Vec<Threshold>,
    /// Never offer more than this, in messages a second.
    pub rate_per_s_max: f64,
    /// See [`Search::new`].
    pub precision: f64,
    /// Length of the trials that find the rate.
    pub trial: Duration,
    /// Length of those that confirm it.
    pub confirm: Duration,
    /// How long the target rests between two trials.
    pub cool_down: Duration,
    /// The generator's CPUs, one shard each; no more are used than there are connections.
    pub cpus: Vec<usize>,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// A fresh number, so that no two runs share a Message-ID.
    pub run_id: u64,
}

/// The object of `search --json`.
#[derive(Clone, Debug, Serialize)]
pub struct SearchReport {
    /// [`SEARCH_REPORT_VERSION`].
    pub version: u32,
    /// Where the load went.
    pub target: String,
    /// The job of every trial as it was understood; its rate is that of the first one.
    pub spec: serde_json::Value,
    /// What repeats it.
    pub seed: u64,
    /// The conditions.
    pub slo: Vec<String>,
    /// What came of it.
    pub result: SearchResult,
    /// The highest rate that the target held, in messages a second; `None` when it held none.
    pub rate_per_s: Option<f64>,
    /// The lowest rate above it that was not held, if any was tried.
    pub not_held_per_s: Option<f64>,
    /// Every trial, in their order.
    pub trials: Vec<TrialReport>,
    /// Why the search ended early; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
}

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchResult {
    /// The highest rate, confirmed by long trials on both of its sides.
    Found,
    /// The target holds this rate, and perhaps a higher one: the generator could not offer more, or was not to.
    AtLeast,
    /// The target holds no rate that was tried.
    None,
    /// It ended before it came to a result.
    Unfinished,
}

/// One trial.
#[derive(Clone, Debug, Serialize)]
pub struct TrialReport {
    /// Messages a second asked for.
    pub rate_per_s: f64,
    /// How long.
    pub duration_s: f64,
    /// Whether it was one of the long ones, which confirm.
    pub confirms: bool,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was not held.
    pub reasons: Vec<String>,
    /// Messages accepted a second.
    pub achieved_per_s: f64,
    /// Median response time of accepted messages in seconds.
    pub p50: f64,
    /// 99th percentile of the same.
    pub p99: f64,
    /// Share of the messages that were not accepted.
    pub failures: f64,
    /// How busy the generator was.
    pub busy: f64,
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
    let (start_per_s, arrival) = match plan.spec.load {
        LoadModel::Open { rate, arrival } => (rate.as_per_second(), arrival),
        LoadModel::Closed | LoadModel::Staged { .. } => unreachable!("a search is made of open loops of one rate"),
    };
    // Whatever can be wrong with the job shows before a thread is started.
    Job::new(&plan.spec, &circumstances(&plan, clock, 0))?;
    let search = Search::new(start_per_s, plan.rate_per_s_max.min(RATE_PER_S_MAX), plan.precision);
    let mut report = SearchReport {
        version: SEARCH_REPORT_VERSION,
        target: plan.spec.target.name.clone(),
        spec: plan.spec.describe(),
        seed: plan.spec.seed,
        slo: plan.slo.iter().map(ToString::to_string).collect(),
        result: SearchResult::Unfinished,
        rate_per_s: None,
        not_held_per_s: None,
        trials: Vec::new(),
        aborted: None,
    };
    let shards = plan.cpus.len().min(plan.spec.connections as usize);
    let ring = layout::generator_ring(plan.spec.connections.div_ceil(shards as u32));
    let pool = Pool::start(
        plan.cpus[..shards].iter().map(|&cpu| ShardSpec { cpu: Some(cpu), ring, sink: None }).collect(),
        clock,
    )?;
    match hammer::executor() {
        Ok(executor) => executor.run(trials(&mut plan, search, arrival, &pool, stop, &mut report, &mut watch)),
        Err(reason) => report.aborted = Some(reason),
    }
    pool.shut_down();
    while pool.events().recv_blocking().is_ok() {}
    pool.join();
    Ok(report)
}

fn circumstances(plan: &SearchPlan, clock: Clock, trial: u32) -> Circumstances {
    let run_id = plan.run_id.wrapping_add(u64::from(trial));
    Circumstances { now: clock.now(), wall: wall_now(), run_id, host: plan.host.clone(), audit: None }
}

/// One trial after the other, until the search has its result.
async fn trials(
    plan: &mut SearchPlan,
    mut search: Search,
    arrival: Arrival,
    pool: &Pool,
    stop: &Receiver<()>,
    report: &mut SearchReport,
    watch: &mut impl FnMut(SearchEvent<'_>),
) {
    let shards: Vec<usize> = (0..pool.len()).collect();
    // The least mean service time of a trial that was held: what a message takes where the target is not overloaded.
    let mut unloaded_s: Option<f64> = None;
    while let Some(trial) = search.next_trial() {
        if search.trials() > 0 && rest(plan.cool_down, stop).await {
            report.aborted = Some(INTERRUPTED.to_owned());
            break;
        }
        let duration = if trial.length == Length::Long { plan.confirm } else { plan.trial };
        let rate = Rate::per_second(trial.rate_per_s).expect("a search stays within the bounds of rates");
        (plan.spec.load, plan.spec.limit) = (LoadModel::Open { rate, arrival }, Limit::Duration(duration));
        let built = Job::new(&plan.spec, &circumstances(plan, pool.clock(), search.trials()));
        let built = built.expect("the same job was built before with another rate");
        watch(SearchEvent::Begins(&plan.spec));
        let mut job =
            RunningJob::start(u64::from(search.trials()) + 1, &plan.spec, built, plan.tls.as_ref(), pool, &shards);
        let interrupted = hammer::attend(&mut job, pool, stop, &mut |now| watch(SearchEvent::Stands(now))).await;
        let run = job.report(pool.clock().now());
        let (outcome, mut reasons) = judge(&Figures::new(&run, trial, unloaded_s), broken(&plan.slo, &run));
        reasons.extend(run.aborted.clone());
        let shown = trial_report(trial, duration, outcome, reasons, &run);
        watch(SearchEvent::Ended(&shown));
        report.trials.push(shown);
        // Of a target that has never taken a connection nothing can be learnt at any rate.
        if interrupted || (run.aborted.is_some() && run.connections.opened == 0) {
            report.aborted = run.aborted;
            break;
        }
        let service = run.latency_s.accepted.service;
        if outcome == Outcome::Held && service.count > 0 {
            unloaded_s = Some(unloaded_s.map_or(service.mean, |least| least.min(service.mean)));
        }
        search.learn(trial, outcome);
    }
    conclude(&search, report);
}

const INTERRUPTED: &str = "it was stopped by a signal before its end";

/// Leaves the target alone for a while; says whether a stop was requested in it.
async fn rest(time: Duration, stop: &Receiver<()>) -> bool {
    let stopped = async { stop.recv().await.is_ok() };
    let rested = async {
        glommio::timer::sleep(time).await;
        false
    };
    futures_lite::future::or(stopped, rested).await
}

fn conclude(search: &Search, report: &mut SearchReport) {
    let bounds = search.bounds();
    report.rate_per_s = bounds.held;
    report.not_held_per_s = bounds.not_held.map(|(rate, _)| rate);
    report.result = match (search.is_confirmed(), bounds.held, bounds.not_held) {
        (true, _, Some((_, Outcome::Failed))) => SearchResult::Found,
        (true, _, _) => SearchResult::AtLeast,
        (false, None, _) if report.aborted.is_none() => SearchResult::None,
        (false, _, _) => SearchResult::Unfinished,
    };
}

/// What is looked at of a trial.
#[derive(Clone, Copy, Debug)]
struct Figures {
    rate_per_s: f64,
    due: u64,
    /// Due messages that had no outcome at the end of dispatch.
    behind: f64,
    /// Mean time that a message had a connection, in seconds.
    service_s: f64,
    /// The same where the target is not overloaded, as far as that is known.
    unloaded_s: Option<f64>,
    connections: f64,
    busy: f64,
    /// The generator's longest turn, in seconds.
    turn_max_s: f64,
}

impl Figures {
    fn new(run: &Report, trial: Trial, unloaded_s: Option<f64>) -> Figures {
        let messages = &run.messages;
        let accepted_in_drain = messages.accepted as f64 - run.rate_per_s * run.elapsed_s;
        Figures {
            rate_per_s: trial.rate_per_s,
            due: messages.asked,
            behind: accepted_in_drain + (messages.missed + messages.cut) as f64,
            service_s: run.latency_s.accepted.service.mean,
            unloaded_s,
            connections: run.connections.asked as f64,
            busy: run.generator.busy,
            turn_max_s: run.generator.turn_us.max / 1e6,
        }
    }

    /// Messages that may have no outcome at the end: those in flight, by Little's law, and a few.
    fn may_be_behind(&self) -> f64 {
        self.rate_per_s * self.service_s + (self.due as f64 * BEHIND_SHARE).max(BEHIND_MESSAGES)
    }
}

/// The conditions that are not true of a run, in words.
fn broken(slo: &[Threshold], run: &Report) -> Vec<String> {
    let actual = |condition: &Threshold| match condition.metric.of(run) {
        Some(actual) => condition.metric.words(actual),
        None => "unknown, for nothing was accepted".to_owned(),
    };
    let is_broken = |condition: &&Threshold| !condition.metric.of(run).is_some_and(|actual| condition.holds(actual));
    let told = |condition: &Threshold| format!("{condition} was asked for, it is {}", actual(condition));
    slo.iter().filter(is_broken).map(told).collect()
}

/// What came of a trial of which these conditions are not true, and why. The generator is asked only when something went
/// wrong: what was held was held.
fn judge(figures: &Figures, mut reasons: Vec<String>) -> (Outcome, Vec<String>) {
    let behind = figures.behind;
    if behind > figures.may_be_behind() {
        let (behind, due) = (words::thousands(behind.round() as u64), words::thousands(figures.due));
        reasons.push(format!("it fell behind: {behind} of {due} messages were unanswered at the end"));
    }
    if reasons.is_empty() {
        return (Outcome::Held, reasons);
    }
    let needed = figures.unloaded_s.map(|unloaded_s| figures.rate_per_s * unloaded_s);
    let limit = if figures.busy > BUSY_MAX {
        format!("the generator was {} busy", words::percent(figures.busy))
    } else if figures.turn_max_s * figures.rate_per_s > behind.max(figures.due as f64 * 0.02) {
        format!("the generator itself stood still for {}", words::time(figures.turn_max_s))
    } else if let Some(needed) = needed.filter(|needed| *needed > figures.connections * CONNECTIONS_IN_USE_MAX) {
        format!("it needs {needed:.0} of the {:.0} connections, too many to tell; use more", figures.connections)
    } else {
        return (Outcome::Failed, reasons);
    };
    reasons.push(limit);
    (Outcome::Unknown, reasons)
}

fn trial_report(trial: Trial, duration: Duration, outcome: Outcome, reasons: Vec<String>, run: &Report) -> TrialReport {
    let response = &run.latency_s.accepted.response;
    TrialReport {
        rate_per_s: trial.rate_per_s,
        duration_s: duration.as_secs_f64(),
        confirms: trial.length == Length::Long,
        outcome,
        reasons,
        achieved_per_s: run.rate_per_s,
        p50: response.p50,
        p99: response.p99,
        failures: Metric::Failures.of(run).unwrap_or(0.0),
        busy: run.generator.busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trial of 2 s at 1,000/s that was held: a message takes 10 ms, so that ten are in flight.
    const HELD: Figures = Figures {
        rate_per_s: 1_000.0,
        due: 2_000,
        behind: 12.0,
        service_s: 0.01,
        unloaded_s: Some(0.01),
        connections: 100.0,
        busy: 0.3,
        turn_max_s: 0.001,
    };

    fn outcome(figures: Figures, broken: &[&str]) -> (Outcome, String) {
        let (outcome, reasons) = judge(&figures, broken.iter().map(ToString::to_string).collect());
        (outcome, reasons.join("; "))
    }

    #[test]
    fn what_is_in_flight_is_not_behind() {
        assert_eq!(outcome(HELD, &[]).0, Outcome::Held);
        let slow = Figures { service_s: 0.09, behind: 95.0, ..HELD };
        assert_eq!(outcome(slow, &[]).0, Outcome::Held);
    }

    #[test]
    fn a_target_that_falls_behind_or_breaks_a_condition_has_failed() {
        let (failed, reason) = outcome(Figures { behind: 60.0, ..HELD }, &[]);
        assert_eq!(failed, Outcome::Failed);
        assert!(reason.contains("60 of 2,000"), "{reason}");
        assert_eq!(outcome(HELD, &["p99"]).0, Outcome::Failed);
    }

    #[test]
    fn a_generator_that_was_the_limit_is_no_judge() {
        for (limited, word) in [
            (Figures { busy: 0.9, ..HELD }, "busy"),
            (Figures { turn_max_s: 0.2, ..HELD }, "stood still"),
            (Figures { unloaded_s: Some(0.095), ..HELD }, "connections"),
        ] {
            assert_eq!(outcome(limited, &[]).0, Outcome::Held, "what was held was held");
            let (unknown, reason) = outcome(limited, &["p99"]);
            assert_eq!(unknown, Outcome::Unknown);
            assert!(reason.contains(word), "{reason}");
        }
    }
}
