//! The result of a job in the form that scripts read. `docs/report.md` describes it; its version changes when a field
//! changes its meaning or goes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::audit::AuditReport;
use super::confidence::Intervals;
pub use super::generator::{Generator, StandstillReport, TurnLength};
use super::histogram::{LatencyHistogram, Summary};
use super::recorder::{
    AuthKind, Delta, ErrorKind, Latencies, MessageCounts, RecipientCounts, ReplyKind, RetryAfterCounts, TlsKind,
};
use super::threshold::ThresholdResult;
use super::totals::{SeriesRow, Totals};
use super::verdict::{LATE_NS, Verdict};
use crate::phase::Phase;
use crate::time::{Instant, WallTime};

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
    /// The sizes of a mix, in octets; empty without one.
    pub sizes: Vec<u64>,
    /// Connections.
    pub connections: u64,
    /// Shards that drive them.
    pub shards: usize,
    /// When the first connection was dialled.
    pub dialed: Instant,
    /// When the job began: elapsed time counts from here.
    pub start: Instant,
    /// The calendar time of `start`.
    pub wall_start: WallTime,
    /// How the kernel controls congestion on its connections, where that is known.
    pub congestion: Option<String>,
    /// When a run by time is to end.
    pub end: Option<Instant>,
    /// What is shown apart.
    pub warmup: Option<AskedWarmup>,
}

/// The warm-up that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedWarmup {
    /// Until then.
    Until(Instant),
    /// By number; it lasts until its last message is due.
    ByNumber,
}

/// The object of `--json`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// The version of this schema; raised when a field changes its meaning or goes.
    pub version: u32,
    /// `closed`, `open constant` or `open poisson`.
    pub load_model: Cow<'static, str>,
    /// Where the load went.
    pub target: String,
    /// The job as it was understood, defaults filled in.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
    /// What repeats the run.
    pub seed: u64,
    /// The calendar time of the start of the job, warm-up included, by this machine: RFC 3339 in UTC, to the microsecond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("2021-04-29T01:50:39.000001Z"))]
    pub started_at: Option<String>,
    /// That of the last outcome, or of the end of dispatch where that is later; absent while the run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// The runs that were merged; absent in the report of a single one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// From the start, or the end of the warm-up, to the last message's outcome; in a run by time, or one that was stopped, to the end of dispatch.
    pub elapsed_s: f64,
    /// From there to the last outcome of what was then in flight.
    pub drain_s: f64,
    /// What was shown apart; absent without a warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<WarmupReport>,
    /// Messages by outcome: `asked` is the sum of `accepted` to `to_come`.
    pub messages: Messages,
    /// Recipients of messages that were answered.
    pub recipients: RecipientCounts,
    /// From the start of the job, warm-up included, to when the last message was begun.
    #[serde(default)]
    pub dispatched_s: f64,
    /// How much later than the last message was due the last one was begun: by so much a run by number was offered too
    /// slowly.
    #[serde(default)]
    pub behind_s: f64,
    /// Messages accepted within `elapsed_s`, a second.
    pub rate_per_s: f64,
    /// The sizes that messages had; absent where all have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<SizesReport>,
    /// Octets of SMTP or HTTP written to the target, commands and heads included; what TLS adds is not counted.
    pub bytes_sent: u64,
    /// Connections.
    pub connections: Connections,
    /// TLS handshakes; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Logins (AUTH) by mechanism; absent without any. Whose they are is not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auth: Vec<AuthKind>,
    /// Waits of connections that answers asked for (`Retry-After`); absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// How the kernel controls congestion on the connections, such as `cubic` or `bbr`; absent where it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion: Option<String>,
    /// Times in seconds.
    pub latency_s: Latency,
    /// Replies by phase, code and enhanced code.
    pub replies: Vec<Reply>,
    /// Errors by blame, kind and phase.
    pub errors: Vec<ErrorKind>,
    /// What has arrived of what was accepted; absent without an audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditReport>,
    /// One row a second.
    pub series: Vec<SeriesRow>,
    /// The generator's own effort.
    pub generator: Generator,
    /// Why the run ended early; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
    /// What the reader should know of this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Ids of the jobs that ran at the same time and shared this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_jobs: Vec<String>,
    /// What came of the conditions under which the run fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thresholds: Vec<ThresholdResult>,
    /// Whether the figures can be relied on; absent while the run goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// HDR V2 in base64, values in nanoseconds: `accepted.response`, `accepted.phases.mail`, …, `turns`.
    pub histograms: BTreeMap<String, String>,
}

/// A run that is part of a merged report: what tells it from any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// Where its load went.
    pub target: String,
    /// Its seed.
    pub seed: u64,
    /// When it began; absent where its report did not say.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// The warm-up, of which no other figure knows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WarmupReport {
    /// How long it took, in seconds.
    pub elapsed_s: f64,
    /// Its messages by outcome.
    pub messages: Messages,
}

/// Messages by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// In flight now, while a job runs; absent when there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_flight: u64,
    /// Not yet begun, while a job by number runs; absent when there are none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub to_come: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Messages {
    /// Of messages of which so many were `asked` for, or as many as fell due. Once the job has ended, nothing is in flight or
    /// to come: what has no outcome was cut, as by a shard that broke down, and what was not begun was missed.
    fn new(asked: Option<u64>, counts: &MessageCounts, has_ended: bool) -> Messages {
        let unanswered = counts.taken.saturating_sub(counts.accepted + counts.not_accepted());
        let not_begun = asked.map_or(counts.missed, |messages| messages.saturating_sub(counts.taken));
        let (missed, cut) = if has_ended { (not_begun, unanswered) } else { (counts.missed, counts.cut) };
        Messages {
            asked: asked.unwrap_or(counts.taken + counts.missed),
            sent: counts.sent,
            accepted: counts.accepted,
            deferred: counts.deferred,
            rejected: counts.rejected,
            failed: counts.failed,
            missed,
            cut,
            in_flight: unanswered.saturating_sub(cut),
            to_come: not_begun.saturating_sub(missed),
        }
    }

    /// The sum that must equal `asked`.
    pub fn outcomes(&self) -> u64 {
        self.accepted + self.deferred + self.rejected + self.failed + self.missed + self.cut + self.undecided()
    }

    /// Those that may still have any outcome, while a job runs.
    pub fn undecided(&self) -> u64 {
        self.in_flight + self.to_come
    }
}

/// Connections of a whole job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Tls {
    /// Full ones.
    pub full: u64,
    /// Those that resumed an earlier session.
    pub resumed: u64,
    /// Both, by version and cipher suite.
    pub kinds: Vec<TlsKind>,
}

/// Waits of connections that answers asked for, each of at most 30 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RetryAfter {
    /// How many.
    pub waits: u64,
    /// How long they were in all, in seconds.
    pub waited_s: f64,
}

/// Successes and everything else, never merged.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// Accepted messages; phases whose reply was positive.
    pub accepted: Times,
    /// Deferred, rejected and failed messages; phases whose reply was not positive.
    pub other: Times,
    /// Whether mail, rcpt and data count from the write of their whole group (PIPELINING was in use).
    pub phases_from_group: bool,
    /// The 95 % intervals of the percentiles of `accepted.response`.
    #[serde(default)]
    pub response_95: Intervals,
    /// Those of `accepted.service`.
    #[serde(default)]
    pub service_95: Intervals,
    /// Messages that were begun more than a millisecond after they were due.
    #[serde(default)]
    pub late: u64,
}

/// The times of successes, or of everything else.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Times {
    /// From due to outcome.
    pub response: Summary,
    /// From start to outcome.
    pub service: Summary,
    /// From due to start.
    pub lateness: Summary,
    /// By phase.
    pub phases: BTreeMap<Phase, Summary>,
}

/// Replies that agree in phase, code and enhanced code.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
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

/// The sizes of generated messages of a mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SizesReport {
    /// Mean octets of the messages that were written.
    pub mean: f64,
    /// How many had each size.
    pub counts: Vec<SizeCount>,
}

/// How many messages had one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SizeCount {
    /// Octets.
    pub bytes: u64,
    /// Messages that were written.
    pub messages: u64,
}

impl SizesReport {
    fn new(sizes: &[u64], counts: &[u64]) -> Option<SizesReport> {
        let count = |(index, &bytes)| SizeCount { bytes, messages: counts.get(index).copied().unwrap_or(0) };
        SizesReport::of(sizes.iter().enumerate().map(count).collect())
    }

    /// What several runs wrote.
    pub(super) fn sum<'a>(reports: impl Iterator<Item = &'a SizesReport>) -> Option<SizesReport> {
        let mut counts = BTreeMap::new();
        for SizeCount { bytes, messages } in reports.flat_map(|report| &report.counts) {
            *counts.entry(*bytes).or_default() += messages;
        }
        SizesReport::of(counts.into_iter().map(|(bytes, messages)| SizeCount { bytes, messages }).collect())
    }

    fn of(counts: Vec<SizeCount>) -> Option<SizesReport> {
        let messages: u64 = counts.iter().map(|count| count.messages).sum();
        let octets: f64 = counts.iter().map(|count| count.bytes as f64 * count.messages as f64).sum();
        (!counts.is_empty()).then(|| SizesReport { mean: ratio(octets, messages as f64), counts })
    }
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
            true => now,
            // Nothing later than what was last reported is counted yet.
            false => now.min(asked.start + totals.reported()).min(asked.end.unwrap_or(Instant::NEVER)),
        };
        let has_ended = totals.is_finished();
        let measured_from = match asked.warmup {
            None => asked.start,
            Some(AskedWarmup::Until(until)) => until,
            Some(AskedWarmup::ByNumber) => merged.warmup_until.max(asked.start),
        };
        let elapsed_s = (dispatch_end - measured_from).as_secs_f64();
        let counts = merged.messages;
        let accepted_in_time = counts.accepted - counts.accepted_in_drain;
        let warm = merged.warmup.taken + merged.warmup.missed;
        let messages = Messages::new(asked.messages.map(|all| all.saturating_sub(warm)), &counts, has_ended);
        let warmup = asked.warmup.map(|_| WarmupReport {
            elapsed_s: (measured_from.min(dispatch_end) - asked.start).as_secs_f64(),
            messages: Messages::new(None, &merged.warmup, has_ended),
        });
        let connections = totals.connections();
        let ended = totals.is_finished().then(|| dispatch_end.max(merged.last_outcome));
        let latency_s = Latency {
            accepted: Times::new(&merged.accepted),
            other: Times::new(&merged.other),
            phases_from_group: merged.grouped,
            response_95: Intervals::new(&merged.accepted.response),
            service_95: Intervals::new(&merged.accepted.service),
            late: merged.accepted.lateness.count_above(LATE_NS) + merged.other.lateness.count_above(LATE_NS),
        };
        Report {
            version: REPORT_VERSION,
            load_model: Cow::Borrowed(asked.load_model),
            target: asked.target.clone(),
            spec: asked.spec.clone(),
            seed: asked.seed,
            started_at: Some(asked.wall_start.rfc_3339()),
            ended_at: ended.map(|ended| (asked.wall_start + (ended - asked.start)).rfc_3339()),
            parts: Vec::new(),
            elapsed_s,
            drain_s: (merged.last_outcome - dispatch_end).as_secs_f64(),
            warmup,
            messages,
            recipients: merged.recipients,
            dispatched_s: (merged.last_begun - asked.start).as_secs_f64(),
            behind_s: (merged.last_begun - merged.last_due).as_secs_f64(),
            rate_per_s: ratio(accepted_in_time as f64, elapsed_s),
            sizes: SizesReport::new(&asked.sizes, &merged.sizes),
            bytes_sent: merged.bytes_sent,
            connections: Connections {
                asked: asked.connections,
                held_max: connections.held_max,
                opened: connections.opened,
                waiting_max: connections.waiting_max,
            },
            tls: Tls::new(&merged.tls),
            auth: merged.auth.clone(),
            retry_after: RetryAfter::new(&merged.retry_after),
            congestion: asked.congestion.clone(),
            latency_s,
            replies: merged.replies.iter().flatten().map(Reply::new).collect(),
            errors: merged.errors.clone(),
            audit: None,
            series: totals.rows().to_vec(),
            generator: Generator::new(asked, totals, dispatch_end),
            aborted: None,
            notes: Vec::new(),
            other_jobs: Vec::new(),
            thresholds: Vec::new(),
            verdict: None,
            histograms: histograms(merged),
        }
    }
}

impl Tls {
    pub(super) fn new(kinds: &[TlsKind]) -> Option<Tls> {
        let sum = |count: fn(&TlsKind) -> u64| kinds.iter().map(count).sum();
        let (full, resumed) = (sum(|kind| kind.full), sum(|kind| kind.resumed));
        (!kinds.is_empty()).then(|| Tls { full, resumed, kinds: kinds.to_vec() })
    }
}

impl RetryAfter {
    fn new(counts: &RetryAfterCounts) -> Option<RetryAfter> {
        let waited_s = Duration::from_nanos(counts.waited_ns).as_secs_f64();
        (counts.waits > 0).then_some(RetryAfter { waits: counts.waits, waited_s })
    }
}

impl Times {
    pub(super) fn new(latencies: &Latencies) -> Times {
        let phases = Phase::MEASURED.iter().zip(&latencies.phases).map(|(phase, h)| (*phase, h.summary()));
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

/// All histograms of what was measured, encoded, by name; those that are empty are left out.
pub(super) fn histograms(measured: &Delta) -> BTreeMap<String, String> {
    let mut encoded = BTreeMap::new();
    for (side, latencies) in [("accepted", &measured.accepted), ("other", &measured.other)] {
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
    if let Some(text) = measured.effort.turns.encode() {
        encoded.insert("turns".to_owned(), text);
    }
    encoded
}

/// A quotient that is zero where there is nothing to divide by.
pub(super) fn ratio(dividend: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { dividend / divisor } else { 0.0 }
}

#[cfg(test)]
mod tests;
