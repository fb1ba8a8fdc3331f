//! Coordinated omission: what a stalled server does to latency, against arithmetic.
//!
//! The sink answers at once, but for a stall: no reply leaves within [5 s, 6 s); those that would leave at 6 s. One way
//! through the network takes L. A message takes four commands (MAIL, RCPT, DATA, the message), each of which reaches the
//! server after L and is answered there and then, or at the stall's end. So work that starts at s ends at
//!
//! ```text
//! end(s) = t4,   t0 = s,   tk = held(tk-1 + L) + L,   held(t) = 6 s if 5 s <= t < 6 s, else t
//! ```
//!
//! With c connections, message i, which is due at d(i) = i / R, starts when it is due or when the first of them is free,
//! whichever is later, since a message waits for a connection and keeps its due time:
//!
//! ```text
//! start(i) = max(d(i), earliest free),   response(i) = end(start(i)) - d(i),   service(i) = end(start(i)) - start(i)
//! ```
//!
//! For L = 0 this is plain. Messages due outside of [5 s, 6 s) take no time. Those due inside end at 6 s, whether they
//! wait on a connection of their own or for the only one: 1,000 ms, 999 ms, …, 1 ms at R = 1,000/s. Of 10,000 messages,
//! sorted, the first 9,000 took 0, and number 9,000 + k took k ms: p90 is 0, p95 is 500 ms, p99 is 900 ms, p99.9 is 990 ms,
//! the longest 1 s. Service time sees that only if there is a connection for each of them. With one connection, one
//! message is served for 1 s and 999 wait: the service times have a p99.9 of 0, as have all times of a closed loop,
//! which sends nothing while it waits.

use std::sync::Arc;
use std::time::Duration;

use timecop::job::spec::RawSpec;
use timecop::job::worker::Worker;
use timecop::load::Arrival;
use timecop::measure::histogram::LatencyHistogram;
use timecop::measure::recorder::Delta;
use timecop::sink::SinkSettings;
use timecop::time::Instant;
use timecop::wire::smtp::server::ServerConfig;

use crate::job::job;
use crate::network::{Conditions, World};
use crate::server::Server;

const MS: u64 = 1_000_000;
const STALL: std::ops::Range<u64> = 5_000 * MS..6_000 * MS;
const RUN: Duration = Duration::from_secs(10);

/// A run against the stalled sink, and the due times of its messages from the job's start.
fn run(latency_ns: u64, connections: u32, load: Option<(f64, Arrival)>) -> (Delta, Vec<u64>) {
    let raw = RawSpec {
        duration: Some(RUN),
        connections: Some(connections),
        rate: load.map(|load| load.0),
        arrival: load.map(|load| load.1),
        pipelining: Some(false),
        ..RawSpec::default()
    };
    let now_ns = 123 * MS;
    let (_, job) = job(raw, now_ns);
    let share = || job.split(connections, 1).pop().expect("there is one shard");
    let mut schedule = share().pacer;
    let tickets = std::iter::from_fn(|| if load.is_some() { schedule.take(Instant::NEVER) } else { None });
    let due = tickets.map(|ticket| ticket.due.ns_since(job.start)).collect();

    let worker = Worker::new(Arc::clone(&job), share().pacer, connections);
    let stall = Some("1s@5s".parse().expect("the stall is valid"));
    let settings = SinkSettings { stall, ..SinkSettings::default() };
    let config = ServerConfig::new("sink.example", 1_000_000, true);
    let server = Server::new(config, settings, job.start, 0.0, 1);
    let conditions = Conditions { latency_ns: (latency_ns, latency_ns), ..Conditions::default() };
    let mut world = World::new(now_ns, vec![worker], server, conditions, 1);
    world.start();
    let turns = std::iter::repeat_with(|| world.is_finished() || !world.turn()).take(1_000_000).position(|over| over);
    assert!(turns.is_some() && world.is_finished(), "the run does not come to its end");
    let delta = *world.shards[0].worker.take_delta(Box::default());
    assert_eq!(delta.messages.taken, delta.messages.accepted);
    (delta, due)
}

/// When work that starts at `start` ends, after `commands` commands.
fn end(start: u64, latency_ns: u64, commands: u32) -> u64 {
    (0..commands).fold(start, |now, _| {
        let there = now + latency_ns;
        let held = if STALL.contains(&there) { STALL.end } else { there };
        held + latency_ns
    })
}

/// Response and service times, sorted, of messages due at `due` on so many connections. Those that the end of the run
/// finds without a connection are missed.
fn expected(due: &[u64], connections: usize, latency_ns: u64) -> (Vec<u64>, Vec<u64>) {
    let mut free = vec![0; connections];
    let (mut response, mut service) = (Vec::new(), Vec::new());
    for due in due {
        let first = free.iter_mut().min().expect("there is a connection");
        let start = (*due).max(*first);
        if start > RUN.as_nanos() as u64 {
            break;
        }
        *first = end(start, latency_ns, 4);
        response.push(*first - due);
        service.push(*first - start);
    }
    response.sort_unstable();
    service.sort_unstable();
    (response, service)
}

/// Asserts that every 23rd of all values, and the last ones, are where they belong, to within the histogram's 0.1 %.
fn assert_equals(histogram: &LatencyHistogram, sorted: &[u64]) {
    assert_eq!(histogram.count(), sorted.len() as u64);
    let ranks = (0..sorted.len()).step_by(23).chain(sorted.len() - 12..sorted.len());
    for rank in ranks {
        let measured = histogram.quantile_ns((rank as f64 + 0.5) / sorted.len() as f64).expect("it is not empty");
        let exact = sorted[rank];
        assert!((exact..=exact + exact / 1_000 + 1).contains(&measured), "rank {rank}: {measured} ns, not {exact} ns");
    }
}

/// p90, p95, p99, p99.9 and the longest, in whole milliseconds.
fn figures_ms(histogram: &LatencyHistogram) -> [u64; 5] {
    let summary = histogram.summary();
    [summary.p90, summary.p95, summary.p99, summary.p99_9, summary.max].map(|seconds| (seconds * 1e3) as u64)
}

const CONSTANT: Option<(f64, Arrival)> = Some((1_000.0, Arrival::Constant));

#[test]
fn with_a_connection_for_each_message_response_and_service_show_the_stall() {
    let (delta, due) = run(0, 1_000, CONSTANT);
    assert_eq!((due.len(), delta.messages.accepted, delta.messages.missed), (10_000, 10_000, 0));
    let (response, service) = expected(&due, 1_000, 0);
    let plain: Vec<u64> = std::iter::repeat_n(0, 9_000).chain((1..=1_000).map(|k| k * MS)).collect();
    assert_eq!((&response, &service), (&plain, &plain));
    assert_equals(&delta.accepted.response, &plain);
    assert_equals(&delta.accepted.service, &plain);
    assert_eq!(delta.accepted.lateness.quantile_ns(1.0), Some(0));
    assert_eq!(figures_ms(&delta.accepted.response), [0, 500, 900, 990, 1_000]);
}

#[test]
fn with_one_connection_response_shows_the_stall_and_service_hides_it() {
    let (delta, due) = run(0, 1, CONSTANT);
    let (response, service) = expected(&due, 1, 0);
    assert_equals(&delta.accepted.response, &response);
    assert_equals(&delta.accepted.service, &service);
    assert_eq!(figures_ms(&delta.accepted.response), [0, 500, 900, 990, 1_000]);
    assert_eq!(figures_ms(&delta.accepted.service), [0, 0, 0, 0, 1_000]);
}

#[test]
fn a_closed_loop_hides_the_stall() {
    let latency_ns = 100_000;
    let (delta, _) = run(latency_ns, 1, None);
    // The first message pays for the connection: connect and greeting take one round trip, EHLO another.
    let mut service = vec![12 * latency_ns];
    let mut now = service[0];
    while now < 10_000 * MS {
        let ended = end(now, latency_ns, 4);
        service.push(ended - now);
        now = ended;
    }
    service.sort_unstable();
    assert_equals(&delta.accepted.response, &service);
    // 0.8 ms each, and a single one that took the second in which an open loop had 1,000 messages waiting.
    assert_eq!(figures_ms(&delta.accepted.response), [0, 0, 0, 0, 1_000]);
    assert_eq!(delta.accepted.response.quantile_ns(0.999).map(|ns| ns / 10_000), Some(80));
}

#[test]
fn queues_that_the_stall_leaves_behind_are_in_the_response() {
    // One connection serves 1,250 messages a second, so that the queue of 1,000 takes 4 s to go; two are more than enough;
    // a Poisson process queues without a stall too; where one message takes 3.192 ms and the next is due after 3.188 ms,
    // some are missed in the end.
    let poisson = Some((1_000.0, Arrival::Poisson));
    let slow = Some((313.7, Arrival::Constant));
    for (latency_ns, connections, load) in [
        (100_000, 1, CONSTANT),
        (100_000, 2, CONSTANT),
        (100_000, 1_100, CONSTANT),
        (150_000, 3, poisson),
        (77, 5, poisson),
        (399_000, 1, slow),
    ] {
        let (delta, due) = run(latency_ns, connections, load);
        let (response, service) = expected(&due, connections as usize, latency_ns);
        assert_equals(&delta.accepted.response, &response);
        assert_equals(&delta.accepted.service, &service);
        assert_eq!(delta.messages.missed, (due.len() - response.len()) as u64);
    }
}
