//! Jobs on real shards that do what no shard should.

use std::net::TcpListener;
use std::path::Path;
use std::thread;

use futures_lite::future::block_on;
use tempfile::TempDir;

use super::*;
use crate::config::TargetUrl;
use crate::control::draft::Helpers;
use crate::control::layout;
use crate::control::targets::{self, Unresolved};
use crate::measure::recorder::Delta;
use crate::shard::clock::Clock;
use crate::shard::mailbox::Command;
use crate::shard::pool::ShardSpec;

/// A time that nothing comes to here.
const LONG: Duration = Duration::from_secs(60);

/// One shard, and a job on it whose target never says a word.
struct Fixture {
    jobs: Jobs,
    id: u64,
    folder: TempDir,
    _target: TcpListener,
}

impl Fixture {
    /// With a job of which something was reported.
    fn new() -> Fixture {
        Fixture::of(r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100}"#)
    }

    /// With this job.
    fn of(request: &'static str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&folder.path().join("jobs.db"), 10).unwrap();
        let spec = ShardSpec { cpu: None, ring: layout::generator_ring(10), sink: None };
        let mut jobs = Jobs::new(JobsParts {
            pool: Pool::start(vec![spec], Clock::start()).unwrap(),
            generators: 1,
            host: "generator.test".to_owned(),
            audit: None,
            limits: Limits::default(),
            defaults: Default::default(),
            kept: 10,
            store: Rc::new(store),
            metrics: Metrics::new(),
            known: Vec::new(),
        });
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = TargetUrl::parse(&format!("smtp://{}", target.local_addr().unwrap())).unwrap();
        let resolved = targets::resolve(Unresolved::unrestricted(url)).unwrap();
        let helpers = Helpers::default();
        let read = block_on(helpers.read(request.into())).unwrap().unwrap();
        let built = block_on(helpers.build(jobs.draft(read, resolved))).unwrap().unwrap();
        let id = jobs.start(built).unwrap().id;
        let mut fixture = Fixture { jobs, id, folder, _target: target };
        assert_eq!(fixture.hear(), Ok(()));
        fixture
    }

    /// Takes what the shard says next.
    fn hear(&mut self) -> Result<(), String> {
        let (shard, event) = self.jobs.pool().events().recv_blocking().unwrap();
        self.jobs.take(shard, event)
    }

    /// What the target does makes the job's run end before its time.
    fn give_up(&mut self) {
        let Jobs { running, pool, .. } = &mut self.jobs;
        running[0].job.give_up(pool, "more than 5% failed".to_owned());
    }

    /// The last that a shard says of the run under way.
    fn drained(&mut self) {
        let mut delta = Box::<Delta>::default();
        delta.connections.opened = 1;
        let elapsed = Duration::from_secs(1);
        let event = Event::Measured { job: self.id, second: 1, elapsed, delta, finished: true };
        assert_eq!(self.jobs.take(0, event), Ok(()));
    }

    /// Ends the service; the job as the next one finds it.
    fn end(self) -> (JobState, serde_json::Value) {
        let Fixture { jobs, id, folder, .. } = self;
        let (ended, stored_all) = jobs.end(LONG, LONG);
        assert_eq!(ended, Ok(()));
        stored_all.unwrap();
        stored(folder.path(), id)
    }

    fn fault(&self, fault: fn()) {
        self.jobs.pool().send(0, Command::Fault(fault));
    }
}

/// The job as it is found by the next service: its state, and its result.
fn stored(folder: &Path, id: u64) -> (JobState, serde_json::Value) {
    let (store, kept) = Store::open(&folder.join("jobs.db"), 10).unwrap();
    let job = kept.jobs.iter().find(|job| job.id == id).unwrap();
    assert!(job.stop_unix_ns.is_some_and(|stop| stop > job.start_unix_ns));
    let result = store.result(id).recv_blocking().unwrap().unwrap().unwrap();
    (job.state, serde_json::from_str(&result).unwrap())
}

#[test]
fn a_shard_that_panics_ends_its_jobs_as_failed_with_what_is_known() {
    let mut fixture = Fixture::new();
    fixture.fault(|| panic!("made by a test"));
    let reason = (0..10).find_map(|_| fixture.hear().err()).expect("the shard's last word");
    assert_eq!(reason, "shard 0 failed: the shard panicked; this is a fault of timecop");
    assert_eq!(fixture.jobs.running(), 0);
    fixture.jobs.close();
    let Fixture { jobs, id, folder, .. } = fixture;
    let (ended, stored_all) = jobs.end(LONG, LONG);
    assert_eq!(ended, Ok(()), "a shard that has panicked has ended");
    stored_all.unwrap();
    let (state, result) = stored(folder.path(), id);
    assert_eq!(state, JobState::Failed);
    assert!(result["aborted"].as_str().unwrap().contains("the shard panicked"), "{result}");
    assert_eq!(result["connections"]["opened"], 1, "{result}");
    assert!(result["verdict"].is_object(), "{result}");
}

#[test]
fn a_shard_that_hangs_is_left_behind_and_its_jobs_are_stored() {
    let mut fixture = Fixture::new();
    fixture.fault(|| {
        loop {
            thread::park();
        }
    });
    fixture.jobs.close();
    let Fixture { jobs, id, folder, .. } = fixture;
    let (ended, stored_all) = jobs.end(Duration::from_millis(100), LONG);
    assert!(ended.unwrap_err().to_string().starts_with("a shard has not ended within 100ms"));
    stored_all.unwrap();
    let (state, result) = stored(folder.path(), id);
    assert_eq!(state, JobState::Interrupted);
    assert_eq!(result["aborted"], "the service was told to end");
    assert!(result["verdict"].is_object(), "{result}");
}

#[test]
fn commands_to_a_shard_that_hangs_hold_nobody_up() {
    let fixture = Fixture::new();
    fixture.fault(|| {
        loop {
            thread::park();
        }
    });
    // More than wait for it: the first one beyond is given up after a moment, and the others at once.
    (0..10_000).for_each(|_| fixture.jobs.pool().send(0, Command::Stop { job: fixture.id }));
}

#[test]
fn a_job_whose_shard_says_nothing_fails_and_one_that_reports_does_not() {
    let mut fixture = Fixture::new();
    let began = fixture.jobs.pool().clock().now();
    let running = &mut fixture.jobs.running[0].job;
    let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
    // However long nobody has looked, that is one look.
    assert_eq!(running.silent(at(1_000.0)), None);
    let silent_from = |running: &mut RunningJob, from: u32| {
        (1..1_000).find(|look| running.silent(at(1_000.0 + f64::from(from + look) / 5.0)).is_some())
    };
    let looks = silent_from(running, 0).unwrap();
    assert!((70..=75).contains(&looks), "{looks} looks, five a second: about 15 s");
    running.take(0, 1, Duration::from_secs(1), Box::default(), false);
    assert_eq!(silent_from(running, looks), Some(75), "what was reported is heard");
    running.take(0, 2, Duration::from_secs(2), Box::default(), true);
    assert_eq!(silent_from(running, looks + 75), None, "what has ended need not report");
    assert_eq!(fixture.jobs.look(), Ok(()));
}

const SEARCH: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"connections":2,
    "search":{"slo":"p99<1s","start_rate":10,"trial":"1m","cool_down":"1m"}}"#;

#[test]
fn a_search_that_is_stopped_while_a_trial_drains_that_was_given_up_has_no_further_trial() {
    let mut fixture = Fixture::of(SEARCH);
    fixture.give_up();
    let stopped = fixture.jobs.stop(fixture.id).unwrap();
    assert_eq!((stopped.state, stopped.stop.is_some()), (JobState::Stopped, true));
    fixture.drained();
    assert_eq!(fixture.jobs.running(), 0, "it rests before another trial");
    let (state, result) = fixture.end();
    assert_eq!((state, &result["result"]), (JobState::Stopped, &"unfinished".into()), "{result}");
    assert_eq!(result["aborted"], "it was stopped by job.stop");
    // What its target did before stands.
    assert_ne!(result["trials"][0]["outcome"], "interrupted", "{result}");
    assert_eq!(result["trials"][0]["reasons"][1], "more than 5% failed", "{result}");
}

#[test]
fn a_search_that_rests_ends_with_the_service() {
    let mut fixture = Fixture::of(SEARCH);
    fixture.give_up();
    fixture.drained();
    assert!(fixture.jobs.running[0].is_resting());
    let (state, result) = fixture.end();
    assert_eq!((state, &result["result"]), (JobState::Failed, &"unfinished".into()), "{result}");
    assert!(result["aborted"].as_str().unwrap().starts_with("the service ended"), "{result}");
}

#[test]
fn a_job_that_its_target_made_give_up_has_failed_whoever_stops_it_then() {
    let mut fixture = Fixture::new();
    fixture.give_up();
    let stopped = fixture.jobs.stop(fixture.id).unwrap();
    assert_eq!((stopped.state, stopped.stop.is_some()), (JobState::Failed, true));
    fixture.drained();
    let (state, result) = fixture.end();
    assert_eq!((state, &result["aborted"]), (JobState::Failed, &"more than 5% failed".into()), "{result}");
    let mut fixture = Fixture::new();
    fixture.give_up();
    fixture.jobs.close();
    fixture.drained();
    assert_eq!(fixture.end().0, JobState::Failed);
}

#[test]
fn what_is_said_of_a_job_that_does_not_wait_for_it_is_not_counted() {
    let mut fixture = Fixture::new();
    fixture.drained();
    assert_eq!(fixture.jobs.running(), 0);
    let opened = |fixture: &Fixture| {
        let text = fixture.jobs.metrics().render(&Default::default());
        let line =
            text.lines().find(|line| line.starts_with(r#"timecop_hammer_connections_opened_total{type="smtp"}"#));
        line.unwrap().to_owned()
    };
    let before = opened(&fixture);
    fixture.drained();
    assert_eq!(opened(&fixture), before);
}

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
