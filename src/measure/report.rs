//! The result of a job in the form that scripts read. `docs/report.md` describes it; its version changes when a field
//! changes its meaning or goes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::histogram::{LatencyHistogram, Summary};
use super::recorder::{ErrorKind, Latencies, RecipientCounts, ReplyKind, TlsKind};
use super::totals::{SeriesRow, Totals};
use crate::phase::Phase;
use crate::time::Instant;

/// The version of [`Report`]'s schema.
pub const REPORT_VERSION: u32 = 1;

/// What a report says beside the measurements: what was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `closed`, `open constant` or `open poisson`.
    pub load_model: &'static str,
    /// Where the load went.
    pub target: String,
    /// The job as it was understood, defaults filled in.
    pub spec: serde_json::Value,
    /// What repeats the run.
    pub seed: u64,
    /// The number of messages, where the job names one.
    pub messages: Option<u64>,
    /// Connections.
    pub connections: u64,
    /// Shards that drive them.
    pub shards: usize,
    /// When the first connection was dialled.
    pub dialed: Instant,
    /// When the job began: elapsed time counts from here.
    pub start: Instant,
    /// When a run by time is to end.
    pub end: Option<Instant>,
}

/// The object of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// See [`Asked::load_model`].
    pub load_model: &'static str,
    /// See [`Asked::target`].
    pub target: String,
    /// See [`Asked::spec`].
    pub spec: serde_json::Value,
    /// See [`Asked::seed`].
    pub seed: u64,
    /// From the start to the last message's outcome; in a run by time, or one that was stopped, to the end of dispatch.
    pub elapsed_s: f64,
    /// From there to the last outcome of what was then in flight.
    pub drain_s: f64,
    /// Messages by outcome: `asked` is the sum of `accepted` to `cut`.
    pub messages: Messages,
    /// Recipients of messages that were answered.
    pub recipients: RecipientCounts,
    /// Messages accepted within `elapsed_s`, a second.
    pub rate_per_s: f64,
    /// Octets of SMTP written to the target, commands included; what TLS adds is not counted.
    pub bytes_sent: u64,
    /// Connections.
    pub connections: Connections,
    /// TLS handshakes; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Times in seconds.
    pub latency_s: Latency,
    /// Replies by phase, code and enhanced code.
    pub replies: Vec<Reply>,
    /// Errors by blame, kind and phase.
    pub errors: Vec<ErrorKind>,
    /// One row a second.
    pub series: Vec<SeriesRow>,
    /// The generator's own effort.
    pub generator: Generator,
    /// Why the run ended early; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
    /// What the reader should know of this run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// HDR V2 in base64, values in nanoseconds: `accepted.response`, `accepted.phases.mail`, …
    pub histograms: BTreeMap<String, String>,
}

/// Messages by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// The number asked for, or in a run by time those that fell due.
    pub asked: u64,
    /// MAIL was written.
    pub sent: u64,
    /// The server took responsibility.
    pub accepted: u64,
    /// Answered 4xx.
    pub deferred: u64,
    /// Answered 5xx.
    pub rejected: u64,
    /// No answer.
    pub failed: u64,
    /// Never dispatched.
    pub missed: u64,
    /// In flight when the drain time was over.
    pub cut: u64,
}

impl Messages {
    fn new(asked: &Asked, totals: &Totals) -> Messages {
        let counts = &totals.merged.messages;
        let answered = counts.accepted + counts.not_accepted();
        Messages {
            asked: asked.messages.unwrap_or(counts.taken + counts.missed),
            sent: counts.sent,
            accepted: counts.accepted,
            deferred: counts.deferred,
            rejected: counts.rejected,
            failed: counts.failed,
            missed: asked.messages.map_or(counts.missed, |messages| messages.saturating_sub(counts.taken)),
            // Of a shard that broke down nobody says what became of its messages in flight: they were cut, too.
            cut: if totals.is_finished() { counts.taken.saturating_sub(answered) } else { counts.cut },
        }
    }

    /// The sum that must equal `asked`.
    pub fn outcomes(&self) -> u64 {
        self.accepted + self.deferred + self.rejected + self.failed + self.missed + self.cut
    }
}

/// Connections of a whole job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Asked for.
    pub asked: u64,
    /// Most sessions at once: connections on which the server's reply to EHLO was good.
    pub held_max: u64,
    /// Opened in all.
    pub opened: u64,
    /// Most that waited at once before connecting again.
    pub waiting_max: u64,
}

/// TLS handshakes that came to a good end.
#[derive(Clone, Debug, Serialize)]
pub struct Tls {
    /// Full ones.
    pub full: u64,
    /// Those that resumed an earlier session.
    pub resumed: u64,
    /// Both, by version and cipher suite.
    pub kinds: Vec<TlsKind>,
}

/// Successes and everything else, never merged.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Accepted messages; phases whose reply was positive.
    pub accepted: Times,
    /// Deferred, rejected and failed messages; phases whose reply was not positive.
    pub other: Times,
    /// Whether mail, rcpt and data count from the write of their whole group (PIPELINING was in use).
    pub phases_from_group: bool,
}

/// One side of [`Latency`].
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// From due to outcome.
    pub response: Summary,
    /// From start to outcome.
    pub service: Summary,
    /// From due to start.
    pub lateness: Summary,
    /// By phase.
    pub phases: BTreeMap<&'static str, Summary>,
}

/// Replies that agree in phase, code and enhanced code.
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    /// What they answered.
    pub phase: Phase,
    /// 200 to 599.
    pub code: u16,
    /// Such as `5.7.1`.
    pub enhanced: Option<String>,
    /// How many.
    pub count: u64,
    /// The text of the first one.
    pub example: String,
}

/// The generator's own effort.
#[derive(Clone, Debug, Serialize)]
pub struct Generator {
    /// CPU time of the shards for each message sent, in microseconds.
    pub cpu_us_per_message: f64,
    /// Shards used.
    pub shards: usize,
    /// Length of the pump's turns in microseconds: the error bar of every latency.
    pub turn_us: TurnLength,
    /// Share of their time that the shards were busy, from the first dial to the end of dispatch: CPU time over
    /// elapsed time.
    pub busy: f64,
    /// Times that the kernel found no receive buffer.
    pub buffers_exhausted: u64,
    /// Deltas that had to wait for control.
    pub deltas_held: u64,
}

/// Lengths of turns in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TurnLength {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Report {
    /// Puts together what was asked and what was measured; a job that has not ended is looked at as of `now`.
    pub fn new(asked: &Asked, totals: &Totals, now: Instant) -> Report {
        let merged = &totals.merged;
        let dispatch_end = match totals.is_finished() {
            _ if merged.stopped > asked.start => merged.stopped,
            // The last message of an open loop may be over, and all connections closed, before the run's time is.
            true if asked.end.is_some() => asked.end.unwrap_or(now),
            true if merged.last_outcome > asked.start => merged.last_outcome,
            _ => now,
        };
        let elapsed_s = (dispatch_end - asked.start).as_secs_f64();
        let counts = merged.messages;
        let accepted_in_time = counts.accepted - counts.accepted_in_drain;
        let messages = Messages::new(asked, totals);
        let connections = totals.connections();
        let latency_s = Latency {
            accepted: Times::new(&merged.accepted),
            other: Times::new(&merged.other),
            phases_from_group: merged.grouped,
        };
        Report {
            version: REPORT_VERSION,
            load_model: asked.load_model,
            target: asked.target.clone(),
            spec: asked.spec.clone(),
            seed: asked.seed,
            elapsed_s,
            drain_s: (merged.last_outcome - dispatch_end).as_secs_f64(),
            messages,
            recipients: merged.recipients,
            rate_per_s: ratio(accepted_in_time as f64, elapsed_s),
            bytes_sent: merged.bytes_sent,
            connections: Connections {
                asked: asked.connections,
                held_max: connections.held_max,
                opened: connections.opened,
                waiting_max: connections.waiting_max,
            },
            tls: Tls::new(&merged.tls),
            latency_s,
            replies: merged.replies.iter().flatten().map(Reply::new).collect(),
            errors: merged.errors.clone(),
            series: totals.rows().to_vec(),
            generator: Generator::new(asked, totals, dispatch_end),
            aborted: None,
            notes: Vec::new(),
            histograms: histograms(totals),
        }
    }
}

impl Tls {
    fn new(kinds: &[TlsKind]) -> Option<Tls> {
        let sum = |count: fn(&TlsKind) -> u64| kinds.iter().map(count).sum();
        let (full, resumed) = (sum(|kind| kind.full), sum(|kind| kind.resumed));
        (!kinds.is_empty()).then(|| Tls { full, resumed, kinds: kinds.to_vec() })
    }
}

impl Times {
    fn new(latencies: &Latencies) -> Times {
        let phases = Phase::MEASURED.iter().zip(&latencies.phases).map(|(phase, h)| (phase.name(), h.summary()));
        Times {
            response: latencies.response.summary(),
            service: latencies.service.summary(),
            lateness: latencies.lateness.summary(),
            phases: phases.collect(),
        }
    }
}

impl Reply {
    fn new(kind: &ReplyKind) -> Reply {
        Reply {
            phase: kind.phase,
            code: kind.code,
            enhanced: kind.enhanced.map(|(class, subject, detail)| format!("{class}.{subject}.{detail}")),
            count: kind.count,
            example: kind.example.clone(),
        }
    }
}

impl Generator {
    fn new(asked: &Asked, totals: &Totals, dispatch_end: Instant) -> Generator {
        let effort = &totals.merged.effort;
        let turn = effort.turns.summary();
        let cpu = Duration::from_nanos(effort.cpu_ns).as_secs_f64();
        let cpu_before_drain = Duration::from_nanos(effort.cpu_before_drain_ns).as_secs_f64();
        let available = (dispatch_end - asked.dialed).as_secs_f64() * asked.shards as f64;
        Generator {
            cpu_us_per_message: ratio(cpu * 1e6, totals.merged.messages.sent as f64),
            shards: asked.shards,
            turn_us: TurnLength { p50: turn.p50 * 1e6, p99: turn.p99 * 1e6, max: turn.max * 1e6 },
            busy: ratio(cpu_before_drain, available),
            buffers_exhausted: effort.buffers_exhausted,
            deltas_held: effort.deltas_held,
        }
    }
}

fn histograms(totals: &Totals) -> BTreeMap<String, String> {
    let mut encoded = BTreeMap::new();
    for (side, latencies) in [("accepted", &totals.merged.accepted), ("other", &totals.merged.other)] {
        let mut put = |name: &str, histogram: &LatencyHistogram| {
            if let Some(text) = histogram.encode() {
                encoded.insert(format!("{side}.{name}"), text);
            }
        };
        put("response", &latencies.response);
        put("service", &latencies.service);
        put("lateness", &latencies.lateness);
        for (phase, histogram) in Phase::MEASURED.iter().zip(&latencies.phases) {
            put(&format!("phases.{phase}"), histogram);
        }
    }
    encoded
}

/// A quotient that is zero where there is nothing to divide by.
fn ratio(dividend: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { dividend / divisor } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::recorder::{Delta, MessageTimes};

    const SECOND: Duration = Duration::from_secs(1);

    fn asked(messages: Option<u64>) -> Asked {
        Asked {
            load_model: "closed",
            target: String::new(),
            spec: serde_json::Value::Null,
            seed: 1,
            messages,
            connections: 1,
            shards: 1,
            dialed: Instant::from_ns(1),
            start: Instant::from_ns(1),
            end: None,
        }
    }

    /// A second of `accepted` messages, of which the last is accepted at `last`.
    fn totals(accepted: u64, in_drain: u64, stopped: Instant, last: Instant) -> Totals {
        let mut delta = Delta::new();
        let times = MessageTimes { due: Instant::from_ns(1), started: None, ended: last };
        (0..accepted).for_each(|_| delta.message(true, times));
        delta.messages.taken = accepted + 1;
        delta.messages.accepted = accepted;
        delta.messages.accepted_in_drain = in_drain;
        delta.effort.cpu_ns = 900_000_000;
        delta.effort.cpu_before_drain_ns = 500_000_000;
        delta.stopped = stopped;
        let mut totals = Totals::new(1);
        totals.add(0, 1, SECOND, &delta);
        totals.shard_finished(0);
        totals
    }

    #[test]
    fn what_is_accepted_in_the_drain_does_not_count_towards_the_rate() {
        let start = asked(None).start;
        let report = Report::new(&asked(None), &totals(1_000, 10, start + SECOND, start + SECOND * 11), Instant::NEVER);
        assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (1.0, 10.0, 990.0));
        assert_eq!(report.generator.busy, 0.5);
    }

    #[test]
    fn a_run_by_number_lasts_until_its_last_outcome() {
        let start = asked(None).start;
        let report =
            Report::new(&asked(Some(1_001)), &totals(1_000, 0, Instant::ZERO, start + SECOND * 4), Instant::NEVER);
        assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (4.0, 0.0, 250.0));
    }

    #[test]
    fn a_stall_at_the_end_does_not_raise_the_rate() {
        let start = asked(None).start;
        let report = Report::new(&asked(None), &totals(1_000, 0, start + SECOND * 5, start + SECOND), Instant::NEVER);
        assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (5.0, 0.0, 200.0));
    }

    #[test]
    fn a_run_by_time_lasts_its_time_though_its_last_message_was_over_before() {
        let start = asked(None).start;
        let asked = Asked { end: Some(start + SECOND * 4), ..asked(None) };
        let report = Report::new(&asked, &totals(1_000, 0, Instant::ZERO, start + SECOND), Instant::NEVER);
        assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (4.0, 0.0, 250.0));
    }

    #[test]
    fn messages_whose_shard_broke_down_were_cut() {
        let start = asked(None).start;
        let report = Report::new(&asked(Some(1_500)), &totals(1_000, 0, Instant::ZERO, start + SECOND), Instant::NEVER);
        let messages = report.messages;
        assert_eq!((messages.cut, messages.missed, messages.outcomes()), (1, 499, messages.asked));
    }
}
