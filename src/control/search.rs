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
        if let Some(reason) = job.interruption() {
            plan.searching.stop(reason);
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::job::search::{RawSearch, SearchSpec, TrialOutcome};
    use crate::job::spec::{ConnectionType, RawSpec, Target};
    use crate::measure::abort::AbortRule;
    use crate::measure::threshold::Threshold;

    /// Puts off every message of a session, or answers the end of none until `held` is closed.
    fn session(stream: TcpStream, puts_off: bool, held: &Receiver<Infallible>) -> std::io::Result<()> {
        let mut reply = stream.try_clone()?;
        let mut in_data = false;
        reply.write_all(b"220 target.test\r\n")?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let answer = match line.get(..4).unwrap_or(&line) {
                "." if in_data => {
                    in_data = false;
                    let _ = held.recv_blocking();
                    "250 taken\r\n"
                }
                _ if in_data => continue,
                "MAIL" if puts_off => "450 later\r\n",
                "DATA" => {
                    in_data = true;
                    "354 go on\r\n"
                }
                _ => "250 yes\r\n",
            };
            reply.write_all(answer.as_bytes())?;
        }
        Ok(())
    }

    #[test]
    fn a_stop_ends_a_search_whose_trial_drains_because_it_was_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (hold, held) = async_channel::bounded::<Infallible>(1);
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (stream, held) = (stream.unwrap(), held.clone());
                thread::spawn(move || session(stream, number % 2 == 0, &held));
            }
        });
        let search = RawSearch {
            slo: vec![Threshold::parse("p99<1s").unwrap()],
            start_rate: Some(50.0),
            trial: Some(Duration::from_secs(60)),
            cool_down: Some(Duration::ZERO),
            ..RawSearch::default()
        };
        let raw = RawSpec {
            connections: Some(4),
            abort_on: vec![AbortRule::parse("failures>5%,window=1s,grace=0s").unwrap()],
            ..RawSpec::default()
        };
        let (name, host) = (format!("smtp://{address}"), address.ip().to_string());
        let target = Target { name, host, address, connection: ConnectionType::Plain };
        let searching = Searching::new(SearchSpec::new(search).unwrap(), raw, &target, 1).unwrap();
        let plan = SearchPlan { searching, tls: None, cpus: vec![0], host: "generator.test".to_owned(), run_id: 1 };
        let (stop, stopped) = async_channel::bounded(1);
        let (mut begun, mut looks, mut hold) = (0, 0, Some(hold));
        let report = run(plan, &stopped, |event| match event {
            // A second trial is not let go on for ever by a test that fails.
            SearchEvent::Begins(_) => {
                begun += 1;
                let _ = stop.try_send(());
                if begun == 1 {
                    stopped.try_recv().unwrap();
                }
            }
            SearchEvent::Stands(progress) if progress.stopping => {
                looks += 1;
                match looks {
                    1 => stop.try_send(()).unwrap(),
                    // The stop is known; what was held may end.
                    _ => drop(hold.take()),
                }
            }
            SearchEvent::Stands(_) | SearchEvent::Ended(_) => {}
        });
        let report = report.unwrap();
        assert_eq!((begun, report.trials.len()), (1, 1), "{report:?}");
        assert_eq!(report.aborted.as_deref(), Some("it was stopped by a signal before its end"));
        // What its target did before stands.
        assert_ne!(report.trials[0].outcome, TrialOutcome::Interrupted, "{report:?}");
    }
}
