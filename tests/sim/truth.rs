//! What a run reports, against the truth: a sink whose delay is known, at 10, 50 and 90 % of what it can serve.
//!
//! The sink holds each message for a delay of mean D, fixed or exponential. One that is spoken to over c connections
//! serves c / D messages a second; the load is an open loop of Poisson arrivals at a share of that, and a message for
//! which no connection is free waits and keeps its due time. There are two truths:
//!
//! - By analysis, without a network. That is an M/G/c queue. At 10 % nobody waits, and a response takes what the delay
//!   takes. With an exponential delay it is M/M/c, and more than t with the probability
//!
//!   ```text
//!   P(T > t) = e^-µt (1 + C (1 - e^-(c - 1 - a)µt) / (c - 1 - a)),   µ = 1 / D,   a = load × c,   C by Erlang's formula
//!   ```
//!
//! - As the server saw it, over a network and with a client whose turns last. Message k begins with the k-th MAIL that
//!   reaches the server, since messages start in the order in which they are due, and ends with the reply that accepts
//!   it. Nothing of that comes from what is under test. (Of those that leave in one turn any may be the first: their
//!   due times are less than a turn apart.)

use std::sync::Arc;
use std::time::Duration;

use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::{ConnectionType, JobSpec, RawSpec, Target};
use timecop::job::worker::Worker;
use timecop::load::Arrival;
use timecop::measure::histogram::LatencyHistogram;
use timecop::measure::recorder::Delta;
use timecop::sink::{FaultCounters, Faults, Rule, SinkSettings};
use timecop::time::{Instant, WallTime};
use timecop::wire::smtp::server::ServerConfig;

use crate::network::{Conditions, World};
use crate::server::Server;

const MS: u64 = 1_000_000;
const DELAY_NS: u64 = 10 * MS;
const CONNECTIONS: u32 = 20;
const MESSAGES: u64 = 50_000;
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// p50, p99 and p99.9.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
/// How far from the truth a reported percentile may be.
const ERROR_MAX: f64 = 0.01;

/// What was reported, and the true response and service times in nanoseconds, sorted.
struct Run {
    delta: Delta,
    response: Vec<u64>,
    service: Vec<u64>,
}

/// A run at `load` of what the sink can serve.
fn run(delay: &str, load: f64, conditions: Conditions, seed: u64) -> Run {
    let raw = RawSpec {
        messages: Some(MESSAGES),
        connections: Some(CONNECTIONS),
        rate: Some(load * f64::from(CONNECTIONS) * 1e9 / DELAY_NS as f64),
        arrival: Some(Arrival::Poisson),
        pipelining: Some(false),
        seed: Some(seed),
        ..RawSpec::default()
    };
    let target = Target {
        name: "smtp://sim".into(),
        host: "127.0.0.1".into(),
        address: ([127, 0, 0, 1], 25).into(),
        connection: ConnectionType::Plain,
    };
    let spec = JobSpec::new(raw, target, 1).expect("the job is valid");
    let now = Instant::from_ns(123 * MS);
    let at = Circumstances { now, wall: WallTime::default(), run_id: 1, host: "load.example".into(), audit: None };
    let job = Arc::new(Job::new(&spec, &at).expect("the job is valid").0);
    let share = || job.split(CONNECTIONS, 1).pop().expect("there is one shard");
    let mut schedule = share().pacer;
    let due: Vec<Instant> = std::iter::from_fn(|| schedule.take(Instant::NEVER)).map(|ticket| ticket.due).collect();

    let delay = Rule::delay(delay).expect("the delay is valid");
    let faults = Faults::new([delay], FaultCounters::default()).expect("it is one");
    let settings = SinkSettings { faults, ..SinkSettings::default() };
    let config = ServerConfig::new("sink.example", 1_000_000, true);
    let server = Server::new(config, settings, job.start, 0.0, seed);
    let one_way = Duration::from_nanos(conditions.latency_ns.0);
    let worker = Worker::new(Arc::clone(&job), share().pacer, CONNECTIONS);
    let mut world = World::new(now.as_ns(), vec![worker], server, conditions, seed);
    world.start();
    let turns = std::iter::repeat_with(|| world.is_finished() || !world.turn()).take(10_000_000).position(|over| over);
    assert!(turns.is_some() && world.is_finished(), "the run does not come to its end");
    let delta = *world.shards[0].worker.take_delta(Box::default());
    assert_eq!((delta.messages.taken, delta.messages.accepted), (MESSAGES, MESSAGES));

    let mut served = world.server.served;
    assert_eq!((served.len(), due.len()), (MESSAGES as usize, MESSAGES as usize));
    served.sort_unstable();
    // On the wire a message begins one way before its MAIL arrives and ends one way after its reply leaves.
    let response = served.iter().zip(&due).map(|((_, accepted), due)| (*accepted + one_way).ns_since(*due)).collect();
    let service = served.iter().map(|(mail, accepted)| (*accepted + one_way + one_way).ns_since(*mail)).collect();
    let sorted = |mut times: Vec<u64>| {
        times.sort_unstable();
        times
    };
    Run { delta, response: sorted(response), service: sorted(service) }
}

/// The share by which a reported percentile is off the truth.
fn error(histogram: &LatencyHistogram, quantile: f64, truth_ns: f64) -> f64 {
    histogram.quantile_ns(quantile).expect("it is not empty") as f64 / truth_ns - 1.0
}

/// The value at a quantile of sorted ones, by the nearest rank.
fn exact(sorted: &[u64], quantile: f64) -> f64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1] as f64
}

/// P(T > t) of M/M/c at `load`, with `t` in mean delays.
fn longer(load: f64, t: f64) -> f64 {
    let c = f64::from(CONNECTIONS);
    let a = load * c;
    // Erlang B by its recursion, and C from it.
    let blocked = (1..=CONNECTIONS).fold(1.0, |b, servers| a * b / (f64::from(servers) + a * b));
    let waits = blocked / (1.0 - load * (1.0 - blocked));
    let spare = c - 1.0 - a;
    (-t).exp() * (1.0 + waits * -(-spare * t).exp_m1() / spare)
}

/// The quantile of M/M/c, by bisection, and its standard error in a sample of independent values; both in nanoseconds.
fn m_m_c(load: f64, quantile: f64) -> (f64, f64) {
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if longer(load, middle) > 1.0 - quantile { low = middle } else { high = middle }
    }
    let density = (longer(load, low - 1e-4) - longer(load, low + 1e-4)) / 2e-4;
    let error = (quantile * (1.0 - quantile) / MESSAGES as f64).sqrt() / density;
    (low * DELAY_NS as f64, error * DELAY_NS as f64)
}

#[test]
fn a_fixed_delay_without_queues_is_reported_as_it_is() {
    let run = run("final=10ms", 0.1, Conditions::default(), 1);
    for quantile in QUANTILES {
        let error = error(&run.delta.accepted.response, quantile, DELAY_NS as f64);
        // That of the histogram alone.
        assert!(error.abs() <= 0.001, "p{}: off by {:.3} %", quantile * 100.0, error * 100.0);
    }
}

#[test]
fn an_exponential_delay_is_reported_as_queueing_theory_has_it() {
    // At 90 % those that wait one behind the other are far from independent, and no sample of this size is exact to 1 %.
    for load in [0.1, 0.5] {
        let run = run("final=exp:10ms", load, Conditions::default(), 1);
        for quantile in QUANTILES {
            let (truth_ns, chance_ns) = m_m_c(load, quantile);
            let error = error(&run.delta.accepted.response, quantile, truth_ns).abs();
            let error_max = ERROR_MAX + 3.0 * chance_ns / truth_ns;
            assert!(error <= error_max, "load {load}, p{}: {error:.4} of {error_max:.4}", quantile * 100.0);
        }
    }
}

#[test]
fn percentiles_are_within_one_percent_of_what_the_server_saw() {
    let conditions = Conditions { latency_ns: (100_000, 100_000), turn_ns: 20_000, ..Conditions::default() };
    for delay in ["final=10ms", "final=exp:10ms"] {
        for load in LOADS {
            let run = run(delay, load, conditions.clone(), 7);
            let accepted = &run.delta.accepted;
            for (name, reported, truth) in
                [("response", &accepted.response, &run.response), ("service", &accepted.service, &run.service)]
            {
                for quantile in QUANTILES {
                    let error = error(reported, quantile, exact(truth, quantile));
                    let name = format!("{delay} at {load}: {name} p{}", quantile * 100.0);
                    println!("{name}: off by {:.3} %", error * 100.0);
                    assert!(error.abs() <= ERROR_MAX, "{name} is off by {:.3} %", error * 100.0);
                }
            }
            // Otherwise the queue would be no part of the test.
            let queued = exact(&run.response, 0.99) / exact(&run.service, 0.99);
            assert!(
                (load == 0.9) == (queued > 1.05),
                "{delay} at {load}: p99 with the queue is {queued} of that without"
            );
        }
    }
}
