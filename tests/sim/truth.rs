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
//!   it. When it is due is worked out here, from the rate and what the schedules are documented to be, and not asked of the
//!   pacer, so that one which lets messages be due at other times than it should fails, however true the times from there are.
//!   (Of those that leave in one turn any may be the first: their due times are less than a turn apart.)

use std::sync::Arc;
use std::time::Duration;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use timecop::job::spec::RawSpec;
use timecop::job::worker::Worker;
use timecop::load::Arrival;
use timecop::measure::histogram::LatencyHistogram;
use timecop::measure::recorder::Delta;
use timecop::sink::{FaultCounters, Faults, Rule, SinkSettings};
use timecop::time::Instant;
use timecop::wire::smtp::server::ServerConfig;

use crate::job::job;
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

/// When messages are due in nanoseconds from the start, in order.
///
/// Constant: message k at k / rate. Poisson: each an exponential gap after the one before it, -ln(u) / rate with u of 53
/// bits in (0, 1] from PCG XSL RR 128/64, which the seed and the shard's number (0) begin through SplitMix64's finalizer.
fn due_ns(arrival: Arrival, rate: f64, seed: u64) -> Vec<u64> {
    let gap_ns = 1e9 / rate;
    let mixed = |value: u64| {
        let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut random = Pcg64::seed_from_u64(mixed(seed ^ mixed(0)));
    let mut at_ns = 0.0;
    let message = |k| match arrival {
        Arrival::Constant => (k as f64 * gap_ns) as u64,
        Arrival::Poisson => {
            at_ns -= (((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64).ln() * gap_ns;
            at_ns as u64
        }
    };
    (0..MESSAGES).map(message).collect()
}

/// A run at `load` of what the sink can serve.
fn run(delay: &str, arrival: Arrival, load: f64, conditions: Conditions, seed: u64) -> Run {
    let rate = load * f64::from(CONNECTIONS) * 1e9 / DELAY_NS as f64;
    let raw = RawSpec {
        messages: Some(MESSAGES),
        connections: Some(CONNECTIONS),
        rate: Some(rate),
        arrival: Some(arrival),
        pipelining: Some(false),
        seed: Some(seed),
        ..RawSpec::default()
    };
    let now = Instant::from_ns(123 * MS);
    let (spec, job) = job(raw, now.as_ns());
    let share = job.split(spec.connections, 1).pop().expect("there is one shard");
    let due: Vec<Instant> =
        due_ns(arrival, rate, seed).into_iter().map(|ns| job.start + Duration::from_nanos(ns)).collect();

    let delay = Rule::delay(delay).expect("the delay is valid");
    let faults = Faults::new([delay], FaultCounters::default()).expect("it is one");
    let settings = SinkSettings { faults, ..SinkSettings::default() };
    let config = ServerConfig::new("sink.example", 1_000_000, true);
    let server = Server::new(config, settings, job.start, 0.0, seed);
    let one_way = Duration::from_nanos(conditions.latency_ns.0);
    let worker = Worker::new(Arc::clone(&job), share.pacer, CONNECTIONS);
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
    let run = run("final=10ms", Arrival::Poisson, 0.1, Conditions::default(), 1);
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
        let run = run("final=exp:10ms", Arrival::Poisson, load, Conditions::default(), 1);
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
    let (fixed, exponential) = ("final=10ms", "final=exp:10ms");
    for (delay, arrival) in
        [(fixed, Arrival::Poisson), (exponential, Arrival::Poisson), (exponential, Arrival::Constant)]
    {
        for load in LOADS {
            let run = run(delay, arrival, load, conditions.clone(), 7);
            let accepted = &run.delta.accepted;
            for (name, reported, truth) in
                [("response", &accepted.response, &run.response), ("service", &accepted.service, &run.service)]
            {
                for quantile in QUANTILES {
                    let error = error(reported, quantile, exact(truth, quantile));
                    let name = format!("{delay}, {} at {load}: {name} p{}", arrival.name(), quantile * 100.0);
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
