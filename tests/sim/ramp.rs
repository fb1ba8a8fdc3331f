//! A closed loop whose number of connections goes up and down: as many are held as the stages say, and no message is lost by
//! it.

use std::sync::Arc;
use std::time::Duration;

use timecop::job::spec::RawSpec;
use timecop::job::worker::Worker;
use timecop::load::stages;
use timecop::measure::recorder::Delta;
use timecop::sink::{FaultCounters, Faults, Rule, SinkSettings};
use timecop::wire::smtp::server::ServerConfig;

use crate::job::job;
use crate::network::{Conditions, World};
use crate::server::Server;

const MS: u64 = 1_000_000;
const BEGIN_NS: u64 = 77_000 * MS;
/// What a message takes: so long a connection stays behind its time.
const MESSAGE: &str = "final=10ms";

/// Runs these stages over some shards; gives what was measured, and the sessions held at each time in milliseconds.
fn run(text: &str, shards: u32) -> (Delta, Vec<(u64, u64)>) {
    let raw = RawSpec { stages: Some(stages::parse(text).expect("the stages are valid")), ..RawSpec::default() };
    let (spec, job) = job(raw, BEGIN_NS);
    let shares = job.split(spec.connections, shards).into_iter();
    let workers = shares.map(|share| Worker::new(Arc::clone(&job), share.pacer, share.connections)).collect();
    let delay = Rule::delay(MESSAGE).expect("the delay is valid");
    let faults = Faults::new([delay], FaultCounters::default()).expect("it is one");
    let settings = SinkSettings { faults, ..SinkSettings::default() };
    let server = Server::new(ServerConfig::new("sink.example", 1_000_000, true), settings, job.start, 0.0, 1);
    let mut world = World::new(BEGIN_NS, workers, server, Conditions::default(), 1);
    world.start();
    let (mut totals, mut held) = (Delta::new(), Vec::new());
    for _ in 0..2_000_000 {
        if world.is_finished() {
            break;
        }
        assert!(world.turn(), "nothing will ever happen, and the job is not over");
        let mut now_held = 0;
        for shard in &mut world.shards {
            let delta = shard.worker.take_delta(Box::default());
            now_held += delta.connections.held;
            totals.merge(&delta);
        }
        held.push(((world.now_ns - BEGIN_NS) / MS, now_held));
    }
    assert!(world.is_finished() && world.is_closed(), "the job does not come to its end");
    (totals, held)
}

#[test]
fn as_many_connections_are_held_as_the_stages_say() {
    let length = Duration::from_secs(2).as_millis() as u64;
    for shards in 1..=3 {
        let (totals, held) = run("2s@40c,2s@40c,0s@10c,2s@10c,2s@0c", shards);
        assert!(held.len() > 1_000);
        for &(ms, held) in &held {
            // A message takes 10 ms, for which a connection stays; one that comes has its greeting to wait for.
            let within = |at: u64| match at / length {
                0 => at * 40 / length,
                1 => 40,
                2 => 10,
                _ => 10 - (at - 3 * length).min(length) * 10 / length,
            };
            let near = (ms.saturating_sub(30)..=ms + 1).map(within);
            let (least, most) = (near.clone().min().unwrap_or(0), near.max().unwrap_or(0));
            assert!((least.saturating_sub(1)..=most + 1).contains(&held), "{shards} shards: {held} held after {ms} ms");
        }
        let messages = totals.messages;
        assert_eq!((messages.taken, messages.accepted, messages.failed), (messages.taken, messages.taken, 0));
        // 40 + 80 + 20 + 10 seconds of a connection, of a hundred messages each.
        assert!((14_000..=15_200).contains(&messages.taken), "{} messages", messages.taken);
        assert_eq!(totals.connections.opened, 40, "each was there once");
    }
}

#[test]
fn a_connection_that_went_comes_again() {
    let (totals, _) = run("0s@10c,1s@0c,1s@10c,500ms@10c", 2);
    assert_eq!(totals.messages.accepted, totals.messages.taken);
    assert_eq!((totals.connections.opened, totals.connections.reopened), (20, 10));
}
