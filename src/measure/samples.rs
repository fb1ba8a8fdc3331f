//! Reports of made-up runs, for tests.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;

use super::recorder::{Blame, Delta, MessageTimes};
use super::report::{Asked, Report};
use super::totals::Totals;
use crate::phase::Phase;
use crate::time::{Instant, WallTime};

/// A run in which nothing goes wrong, unless it is told to.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub messages: u64,
    /// Messages a second of an open loop.
    pub rate: Option<f64>,
    pub connections: u64,
    /// Of these messages `rejected` are rejected, the first ones.
    pub rejected: u64,
    pub service_us: f64,
    pub lateness_us: f64,
    pub turn_us: u64,
    pub busy: f64,
    pub seed: u64,
    pub start: Instant,
}

impl Run {
    pub fn open(messages: u64, rate: f64) -> Run {
        Run {
            messages,
            rate: Some(rate),
            connections: 100,
            rejected: 0,
            service_us: 1_000.0,
            lateness_us: 10.0,
            turn_us: 20,
            busy: 0.1,
            seed: 1,
            start: Instant::from_ns(1),
        }
    }

    pub fn closed(messages: u64, connections: u64) -> Run {
        Run { rate: None, connections, ..Run::open(messages, 1.0) }
    }

    /// How long the run lasts, without its last message.
    pub fn elapsed(&self) -> Duration {
        let cycle_s = (self.service_us + self.lateness_us) / 1e6;
        Duration::from_secs_f64(match self.rate {
            Some(rate) => self.messages as f64 / rate,
            None => self.messages as f64 * cycle_s / self.connections as f64,
        })
    }

    fn asked(&self) -> Asked {
        Asked {
            load_model: if self.rate.is_some() { "open constant" } else { "closed" },
            target: "smtp://127.0.0.1:2525".into(),
            spec: serde_json::json!({
                "messages": self.messages, "connections": self.connections, "rate": self.rate, "msg_size": 1_024,
            }),
            seed: self.seed,
            messages: Some(self.messages),
            sizes: Vec::new(),
            connections: self.connections,
            shards: 1,
            dialed: self.start,
            start: self.start,
            wall_start: WallTime::default(),
            warmup: None,
            congestion: None,
            end: None,
        }
    }

    /// What those of the messages of `from` to `to` measure that a generator sends, in one delta.
    fn delta(&self, from: u64, to: u64, sends: impl Fn(u64) -> bool) -> Delta {
        let mut delta = Delta::new();
        let mut random = Pcg64::seed_from_u64(self.seed);
        let us = |us: f64| Duration::from_nanos((us * 1e3) as u64);
        for index in 0..to {
            let spread: f64 = random.random_range(0.8..1.2);
            if index < from || !sends(index) {
                continue;
            }
            let due = self.start + self.elapsed().mul_f64(index as f64 / self.messages.max(1) as f64);
            let started = due + us(self.lateness_us);
            let ended = started + us(self.service_us * spread);
            let accepted = index >= self.rejected;
            delta.message(accepted, MessageTimes { due, started: Some(started), ended });
            (delta.last_due, delta.last_begun) = (due, started);
            delta.reply(Phase::Final, if accepted { 250 } else { 550 }, None, b"as it is");
            delta.phase(Phase::Final, accepted, ended.ns_since(started) / 2);
            delta.effort.turns.record(self.turn_us * 1_000);
            delta.messages.taken += 1;
            delta.messages.sent += 1;
            delta.messages.accepted += u64::from(accepted);
            delta.messages.rejected += u64::from(!accepted);
            delta.bytes_sent += 1_200;
        }
        let share = (to - from) as f64 / self.messages.max(1) as f64;
        delta.effort.cpu_ns = self.elapsed().mul_f64(self.busy * share).as_nanos() as u64;
        delta.effort.busy_ns = delta.effort.cpu_ns;
        delta
    }

    /// The report, with a row for each second, not yet judged.
    pub fn report(&self) -> Report {
        self.report_of(self.asked(), |_| true)
    }

    /// The report of one of two generators that share the run: every other message, half of the connections.
    pub fn half(&self, which: u64) -> Report {
        let mut half = Run { messages: self.messages / 2, connections: self.connections / 2, ..*self };
        half.rate = self.rate.map(|rate| rate / 2.0);
        self.report_of(half.asked(), |index| index % 2 == which)
    }

    fn report_of(&self, asked: Asked, sends: impl Fn(u64) -> bool) -> Report {
        let mut totals = Totals::new(1);
        let seconds = self.elapsed().as_secs_f64().ceil().max(1.0) as u64;
        let until = |second: u64| {
            let share = second as f64 / self.elapsed().as_secs_f64();
            if share < 1.0 { (self.messages as f64 * share) as u64 } else { self.messages }
        };
        for second in 1..=seconds {
            let elapsed = self.elapsed().min(Duration::from_secs(second));
            let mut delta = self.delta(until(second - 1), until(second), &sends);
            delta.connections.held_max = asked.connections;
            delta.connections.opened = if second == 1 { asked.connections } else { 0 };
            totals.add(0, second, elapsed, &delta);
        }
        totals.shard_finished(0);
        Report::new(&asked, &totals, Instant::NEVER)
    }
}

/// An open loop by number, in which everything is well.
pub fn open(messages: u64, rate: f64) -> Report {
    Run::open(messages, rate).report()
}

/// A closed loop by number, in which everything is well.
pub fn closed(messages: u64, connections: u64) -> Report {
    Run::closed(messages, connections).report()
}

/// A run whose target was not there.
pub fn nothing_accepted() -> Report {
    let run = Run::closed(0, 1);
    let mut delta = Delta::new();
    delta.messages.taken = 10;
    delta.messages.failed = 10;
    (0..10).for_each(|_| delta.error(Blame::Peer, "refused", Phase::Connect, || "connection refused".into()));
    let mut totals = Totals::new(1);
    totals.add(0, 1, Duration::from_secs(1), &delta);
    totals.shard_finished(0);
    let asked = Asked { messages: Some(10), ..run.asked() };
    Report::new(&asked, &totals, run.start + Duration::from_secs(1))
}
