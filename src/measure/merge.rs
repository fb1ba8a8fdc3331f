//! Several generators' reports made into one, exactly: counts are added, histograms by adding buckets, percentiles
//! computed anew. What cannot be merged exactly, such as the percentiles of single seconds, is left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::confidence::Intervals;
use super::histogram::{Digits, LatencyHistogram};
use super::recorder::{Delta, ErrorKind, Latencies};
use super::report::{
    self, Connections, Generator, Latency, Messages, Part, REPORT_VERSION, Reply, Report, RetryAfter, SizesReport,
    StandstillReport, Times, Tls, TurnLength, WarmupReport,
};
use super::stamps::{Stamps, TimedBy, Writes};
use super::threshold::Threshold;
use super::totals::SeriesRow;
use super::verdict::{Reason, Rule, Verdict};
use super::words::time;
use crate::phase::Phase;
use crate::time::WallTime;

/// A report and the name by which messages speak of it, such as its file's.
pub type Named = (String, Report);

/// Runs of which one lasted a smaller share of the longest one's time did not run together.
const LENGTH_SHARE_MIN: f64 = 0.95;

/// Why reports cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("expected at least one report, got none")]
    None,
    /// A report of another version of the schema.
    #[error(
        "{name}: expected a report of version {REPORT_VERSION}, got version {got}; merge it with the timecop that wrote it"
    )]
    Version {
        /// Which report.
        name: String,
        /// Its version.
        got: u32,
    },
    /// A run that would count twice.
    #[error("expected each run once, got one that began {started_at} with seed {seed} in {first} and in {second}")]
    Twice {
        /// When the run began.
        started_at: String,
        /// Its seed.
        seed: u64,
        /// Which report has it.
        first: String,
        /// Which one has it, too.
        second: String,
    },
    /// Closed and open loops, or other arrivals: the sum would be neither.
    #[error("{name}: expected the load model of the first report, {expected}, got {got}; merge runs of one kind only")]
    LoadModel {
        /// Which report.
        name: String,
        /// That of the first report.
        expected: String,
        /// That of this one.
        got: String,
    },
    /// A histogram that cannot be read.
    #[error("{name}: histograms: {histogram}: {problem}")]
    Histogram {
        /// Which report.
        name: String,
        /// Which of its histograms.
        histogram: String,
        /// What was expected, and what came.
        problem: String,
    },
}

/// Merges reports of generators that ran at the same time, each for itself.
pub fn merge(reports: &[Named]) -> Result<Report, MergeError> {
    let Some((_, first)) = reports.first() else { return Err(MergeError::None) };
    for (name, report) in reports {
        if report.version != REPORT_VERSION {
            return Err(MergeError::Version { name: name.clone(), got: report.version });
        }
        if report.load_model != first.load_model {
            let (expected, got) = (first.load_model.to_string(), report.load_model.to_string());
            return Err(MergeError::LoadModel { name: name.clone(), expected, got });
        }
    }
    let parts = parts(reports)?;
    let measured = measured(reports)?;
    let all = || reports.iter().map(|(_, report)| report);
    let elapsed_s = all().map(|report| report.elapsed_s).fold(0.0, f64::max);
    let shortest_s = all().map(|report| report.elapsed_s).fold(elapsed_s, f64::min);
    let accepted_in_time: f64 = all().map(|report| report.rate_per_s * report.elapsed_s).sum();
    let mut notes = vec![format!("merged from {}", names(reports.iter().map(|(name, _)| name)))];
    if shortest_s < LENGTH_SHARE_MIN * elapsed_s {
        let (shortest, longest) = (time(shortest_s), time(elapsed_s));
        notes.push(format!("the merged runs lasted {shortest} to {longest}; the rate is that over the longest"));
    }
    if let Some(apart_s) = began_apart_s(all()).filter(|apart_s| *apart_s > (1.0 - LENGTH_SHARE_MIN) * elapsed_s) {
        notes.push(format!(
            "the merged runs began up to {} apart by the calendars of their machines: what they did in that time they did \
             not do together, and the rates are added all the same",
            time(apart_s)
        ));
    }
    let spec = spec(reports, &mut notes);
    if all().any(|report| report.audit.is_some()) {
        notes.push(
            "audits are not merged: `timecop audit` makes one account of several generators' and sinks' files"
                .to_owned(),
        );
    }
    for note in all().flat_map(|report| &report.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    let given_up = reports.iter().filter_map(|(name, report)| Some(format!("{name}: {}", report.aborted.as_ref()?)));
    let given_up: Vec<String> = given_up.collect();
    let mut merged = Report {
        version: REPORT_VERSION,
        load_model: first.load_model.clone(),
        target: names(all().map(|report| &report.target)),
        spec,
        seed: first.seed,
        started_at: all().filter_map(|report| report.started_at.clone()).min(),
        // Of one that has not ended, nobody knows.
        ended_at: all()
            .map(|report| report.ended_at.clone())
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max()),
        parts,
        elapsed_s,
        drain_s: all().map(|report| report.drain_s).fold(0.0, f64::max),
        messages: messages(all().map(|report| &report.messages)),
        warmup: warmup(reports),
        recipients: Default::default(),
        dispatched_s: all().map(|report| report.dispatched_s).fold(0.0, f64::max),
        behind_s: all().map(|report| report.behind_s).fold(0.0, f64::max),
        rate_per_s: report::ratio(accepted_in_time, elapsed_s),
        sizes: SizesReport::sum(all().filter_map(|report| report.sizes.as_ref())),
        bytes_sent: all().map(|report| report.bytes_sent).sum(),
        tls: Tls::new(&measured.tls),
        auth: measured.auth.clone(),
        retry_after: retry_after(reports),
        congestion: first.congestion.clone().filter(|own| all().all(|report| report.congestion.as_ref() == Some(own))),
        connections: connections(reports),
        latency_s: Latency {
            accepted: Times::new(&measured.accepted),
            other: Times::new(&measured.other),
            phases_from_group: all().any(|report| report.latency_s.phases_from_group),
            response_95: Intervals::new(&measured.accepted.response),
            service_95: Intervals::new(&measured.accepted.service),
            late: all().map(|report| report.latency_s.late).sum(),
        },
        replies: replies(reports),
        errors: errors(reports),
        audit: None,
        series: series(reports),
        generator: generator(reports, &measured),
        aborted: (!given_up.is_empty()).then(|| given_up.join("; ")),
        notes,
        other_jobs: all().flat_map(|report| report.other_jobs.clone()).collect::<BTreeSet<_>>().into_iter().collect(),
        thresholds: Vec::new(),
        verdict: None,
        histograms: report::histograms(&measured),
    };
    for report in all() {
        merged.recipients.accepted += report.recipients.accepted;
        merged.recipients.deferred += report.recipients.deferred;
        merged.recipients.rejected += report.recipients.rejected;
    }
    let mut asked: Vec<&str> = all().flat_map(|report| &report.thresholds).map(|result| &*result.asked).collect();
    asked.sort_unstable();
    asked.dedup();
    merged.check(&asked.into_iter().filter_map(|asked| Threshold::parse(asked).ok()).collect::<Vec<_>>());
    merged.verdict = Some(verdict(&merged, reports));
    Ok(merged)
}

/// The runs that the reports are of: those that are merged themselves have several. A run whose report does not say when
/// it began cannot be told from others.
fn parts(reports: &[Named]) -> Result<Vec<Part>, MergeError> {
    let mut seen = HashMap::new();
    let mut parts = Vec::new();
    for (name, report) in reports {
        let own = Part {
            target: report.target.clone(),
            seed: report.seed,
            started_at: report.started_at.clone(),
            ended_at: report.ended_at.clone(),
        };
        let of_report = if report.parts.is_empty() { std::slice::from_ref(&own) } else { &report.parts };
        for part in of_report {
            let Part { target, seed, started_at, ended_at: _ } = part.clone();
            let Some(started_at) = started_at else { continue };
            // One of the two may have been asked for before the run had ended.
            if let Some(first) = seen.insert((target, seed, started_at.clone()), name) {
                return Err(MergeError::Twice { started_at, seed, first: first.clone(), second: name.clone() });
            }
        }
        parts.extend_from_slice(of_report);
    }
    Ok(parts)
}

fn retry_after(reports: &[Named]) -> Option<RetryAfter> {
    reports
        .iter()
        .filter_map(|(_, report)| report.retry_after)
        .reduce(|one, other| RetryAfter { waits: one.waits + other.waits, waited_s: one.waited_s + other.waited_s })
}

/// Each name once, in the order in which they come.
fn names<'a>(all: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.join(", ")
}

/// The histograms of all reports, added bucket by bucket.
fn measured(reports: &[Named]) -> Result<Delta, MergeError> {
    let mut measured = Delta::new();
    for (name, report) in reports {
        let read = |histogram: &str, digits| match report.histograms.get(histogram) {
            None => Ok(LatencyHistogram::new(digits)),
            Some(text) => LatencyHistogram::decode(text, digits).map_err(|problem| MergeError::Histogram {
                name: name.clone(),
                histogram: histogram.to_owned(),
                problem,
            }),
        };
        let add = |side: &str, latencies: &mut Latencies| -> Result<(), MergeError> {
            latencies.response.merge(&read(&format!("{side}.response"), Digits::Three)?);
            latencies.service.merge(&read(&format!("{side}.service"), Digits::Three)?);
            latencies.lateness.merge(&read(&format!("{side}.lateness"), Digits::Three)?);
            for (phase, histogram) in Phase::MEASURED.iter().zip(&mut latencies.phases) {
                histogram.merge(&read(&format!("{side}.phases.{phase}"), Digits::Two)?);
            }
            Ok(())
        };
        add("accepted", &mut measured.accepted)?;
        add("other", &mut measured.other)?;
        measured.effort.turns.merge(&read("turns", Digits::Two)?);
        measured.add_auth(&report.auth);
        measured.add_tls(report.tls.as_ref().map_or(&[], |tls| &tls.kinds));
    }
    Ok(measured)
}

/// What several generators were asked for together: messages, connections and rates are added; of the rest, what all
/// agree in.
fn spec(reports: &[Named], notes: &mut Vec<String>) -> Value {
    let specs: Vec<&Map<String, Value>> = reports.iter().filter_map(|(_, report)| report.spec.as_object()).collect();
    let keys: BTreeSet<&String> = specs.iter().flat_map(|spec| spec.keys()).collect();
    let mut merged = Map::new();
    for key in keys {
        let values: Vec<&Value> = specs.iter().map(|spec| spec.get(key).unwrap_or(&Value::Null)).collect();
        let is_sum = ["messages", "connections", "rate"].contains(&key.as_str());
        let value = match values.iter().map(|value| value.as_f64()).collect::<Option<Vec<f64>>>() {
            Some(numbers) if is_sum => match values.iter().map(|value| value.as_u64()).sum::<Option<u64>>() {
                Some(sum) => json!(sum),
                None => json!(numbers.iter().sum::<f64>()),
            },
            _ if key == "stages" && values.iter().any(|value| value.is_array()) => {
                stages(&values).unwrap_or_else(|| {
                    notes.push("the stages of the merged runs differ in their durations or kinds".to_owned());
                    Value::Null
                })
            }
            _ if values.iter().all(|value| *value == values[0]) => values[0].clone(),
            _ => {
                notes.push(format!("the merged runs differ in {key}"));
                Value::Null
            }
        };
        merged.insert(key.clone(), value);
    }
    Value::Object(merged)
}

/// Stages side by side: where their durations and kinds agree, what they aim at is added, as rates and connections are.
fn stages(values: &[&Value]) -> Option<Value> {
    let all: Vec<&Vec<Value>> = values.iter().map(|value| value.as_array()).collect::<Option<_>>()?;
    if all.iter().any(|stages| stages.len() != all[0].len()) {
        return None;
    }
    let merged = (0..all[0].len()).map(|at| {
        let mut sum = all[0][at].as_object()?.clone();
        for other in all[1..].iter().map(|stages| &stages[at]) {
            let other = other.as_object()?;
            if !sum.keys().eq(other.keys()) || sum.get("duration_s") != other.get("duration_s") {
                return None;
            }
            for (key, goal) in sum.iter_mut().filter(|(key, _)| *key != "duration_s") {
                *goal = match (goal.as_u64(), other[key].as_u64()) {
                    (Some(one), Some(other)) => json!(one + other),
                    _ => json!(goal.as_f64()? + other[key].as_f64()?),
                };
            }
        }
        Some(Value::Object(sum))
    });
    merged.collect::<Option<Vec<Value>>>().map(Value::Array)
}

/// The warm-ups, which were side by side.
fn warmup(reports: &[Named]) -> Option<WarmupReport> {
    let all = || reports.iter().filter_map(|(_, report)| report.warmup.as_ref());
    all().next()?;
    let elapsed_s = all().map(|warmup| warmup.elapsed_s).fold(0.0, f64::max);
    Some(WarmupReport { elapsed_s, messages: messages(all().map(|warmup| &warmup.messages)) })
}

fn messages<'a>(all: impl Iterator<Item = &'a Messages>) -> Messages {
    let mut sum = Messages {
        asked: 0,
        sent: 0,
        accepted: 0,
        deferred: 0,
        rejected: 0,
        failed: 0,
        missed: 0,
        cut: 0,
        in_flight: 0,
        to_come: 0,
    };
    for Messages { asked, sent, accepted, deferred, rejected, failed, missed, cut, in_flight, to_come } in all {
        sum.asked += asked;
        sum.sent += sent;
        sum.accepted += accepted;
        sum.deferred += deferred;
        sum.rejected += rejected;
        sum.failed += failed;
        sum.missed += missed;
        sum.cut += cut;
        sum.in_flight += in_flight;
        sum.to_come += to_come;
    }
    sum
}

fn connections(reports: &[Named]) -> Connections {
    let mut sum = Connections { asked: 0, held_max: 0, opened: 0, waiting_max: 0 };
    for Connections { asked, held_max, opened, waiting_max } in reports.iter().map(|(_, report)| &report.connections) {
        sum.asked += asked;
        sum.held_max += held_max;
        sum.opened += opened;
        sum.waiting_max += waiting_max;
    }
    sum
}

fn replies(reports: &[Named]) -> Vec<Reply> {
    let mut merged: BTreeMap<(Phase, u16, Option<String>), Reply> = BTreeMap::new();
    for reply in reports.iter().flat_map(|(_, report)| &report.replies) {
        let kind = (reply.phase, reply.code, reply.enhanced.clone());
        merged.entry(kind).and_modify(|sum| sum.count += reply.count).or_insert_with(|| reply.clone());
    }
    merged.into_values().collect()
}

fn errors(reports: &[Named]) -> Vec<ErrorKind> {
    let mut merged: Vec<ErrorKind> = Vec::new();
    for error in reports.iter().flat_map(|(_, report)| &report.errors) {
        let is_same =
            |other: &&mut ErrorKind| (other.blame, &other.kind, other.phase) == (error.blame, &error.kind, error.phase);
        match merged.iter_mut().find(is_same) {
            Some(sum) => sum.count += error.count,
            None => merged.push(error.clone()),
        }
    }
    merged
}

/// How far apart the runs began that say when they did, in seconds.
fn began_apart_s<'a>(reports: impl Iterator<Item = &'a Report>) -> Option<f64> {
    let began: Vec<u64> =
        reports.filter_map(|report| Some(WallTime::from_rfc_3339(report.started_at.as_ref()?)?.as_unix_ns())).collect();
    Some((began.iter().max()? - began.iter().min()?) as f64 / 1e9)
}

/// Seconds are counted from each run's own start. A second in which several had accepted messages has no percentiles:
/// there is no way to have them from those of its parts.
fn series(reports: &[Named]) -> Vec<SeriesRow> {
    let mut merged: BTreeMap<u64, SeriesRow> = BTreeMap::new();
    for row in reports.iter().flat_map(|(_, report)| &report.series) {
        merged
            .entry(row.t_s.ceil() as u64)
            .and_modify(|sum| {
                (sum.p50, sum.p99) = match (sum.accepted, row.accepted) {
                    (_, 0) => (sum.p50, sum.p99),
                    (0, _) => (row.p50, row.p99),
                    _ => (None, None),
                };
                sum.t_s = sum.t_s.max(row.t_s);
                sum.sent += row.sent;
                sum.accepted += row.accepted;
                sum.other += row.other;
            })
            .or_insert(*row);
    }
    merged.into_values().collect()
}

fn generator(reports: &[Named], measured: &Delta) -> Generator {
    let all = || reports.iter().map(|(_, report)| report);
    // The CPU time of the warm-up is in that of the run.
    let sent_by = |report: &Report| report.messages.sent + report.warmup.map_or(0, |warmup| warmup.messages.sent);
    let sent: u64 = all().map(sent_by).sum();
    let shards: usize = all().map(|report| report.generator.shards).sum();
    let cpu: f64 = all().map(|report| report.generator.cpu_us_per_message * sent_by(report) as f64).sum();
    let used: f64 = all().map(|report| report.generator.busy * report.generator.shards as f64).sum();
    let (mut arrivals, mut writes) = (Stamps::default(), Writes::default());
    all().for_each(|report| arrivals.add(&report.generator.arrivals));
    all().for_each(|report| writes.add(&report.generator.writes));
    Generator {
        cpu_us_per_message: report::ratio(cpu, sent as f64),
        shards,
        turn_us: TurnLength::new(&measured.effort.turns),
        standstill: StandstillReport::sum(all().map(|report| report.generator.standstill)),
        busy: report::ratio(used, shards as f64),
        busy_max: all().map(|report| report.generator.busiest()).fold(0.0, f64::max),
        buffers_exhausted: all().map(|report| report.generator.buffers_exhausted).sum(),
        short_writes: all().map(|report| report.generator.short_writes).sum(),
        rearms: all().map(|report| report.generator.rearms).sum(),
        deltas_held: all().map(|report| report.generator.deltas_held).sum(),
        // The figures are no better than the worst of them; a report of before stamps has none.
        stamps: match all().all(|report| report.generator.stamps == TimedBy::Kernel) {
            true => arrivals.timed_by(),
            false => TimedBy::Turn,
        },
        arrivals,
        writes,
    }
}

/// The worst of all: what was said of each run, since in their sum a bad one may hide. Of the sum itself only the number
/// of messages is judged; rates and connections of runs of different lengths make no law.
fn verdict(merged: &Report, reports: &[Named]) -> Verdict {
    let mut reasons: Vec<Reason> = Vec::new();
    for (name, report) in reports {
        let judged = report.verdict.clone().unwrap_or_else(|| Verdict::of(report));
        reasons.extend(judged.reasons.into_iter().filter(|reason| reason.rule != Rule::FewSamples).map(|reason| {
            let text = format!("{name}: {}", reason.text);
            Reason { text, ..reason }
        }));
    }
    reasons.extend(Verdict::of(merged).reasons.into_iter().filter(|reason| reason.rule == Rule::FewSamples));
    reasons.sort_by_key(|reason| Rule::ALL.iter().position(|rule| *rule == reason.rule));
    Verdict::new(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::samples::{self, Run};
    use crate::measure::verdict::Validity;

    fn named(reports: impl IntoIterator<Item = Report>) -> Vec<Named> {
        let mut reports: Vec<Named> = reports.into_iter().enumerate().map(|(i, r)| (format!("{i}.json"), r)).collect();
        for (number, (_, report)) in reports.iter_mut().enumerate() {
            report.started_at = Some(began(number));
            report.judge();
        }
        reports
    }

    fn began(second: usize) -> String {
        format!("2021-04-29T01:50:{second:02}.000000Z")
    }

    #[test]
    fn a_run_is_in_a_merged_report_once() {
        let reports =
            named([samples::open(1_000, 1_000.0), samples::open(1_000, 1_000.0), samples::open(1_000, 500.0)]);
        let pair = merge(&reports[..2]).unwrap();
        assert_eq!((&pair.started_at, &pair.ended_at), (&Some(began(0)), &reports[1].1.ended_at));
        assert_eq!(
            pair.parts.iter().map(|part| part.started_at.clone()).collect::<Vec<_>>(),
            [0, 1].map(|s| Some(began(s)))
        );
        let pair = ("pair.json".to_owned(), pair);
        let all = merge(&[pair.clone(), reports[2].clone()]).unwrap();
        assert_eq!((all.parts.len(), all.started_at, all.messages.asked), (3, Some(began(0)), 3_000));
        let is_noted = |merged: &Report| merged.notes.iter().any(|note| note.contains("began up to 1.00 s apart"));
        let mut together = reports[..2].to_vec();
        together[1].1.started_at = Some("2021-04-29T01:50:00.050000Z".to_owned());
        assert!(is_noted(&merge(&reports[..2]).unwrap()) && !is_noted(&merge(&together).unwrap()));
        let early = Report { ended_at: None, ..reports[0].1.clone() };
        for twice in [[pair.clone(), reports[1].clone()], [reports[0].clone(), ("early".into(), early)]] {
            let error = merge(&twice).unwrap_err().to_string();
            let says = format!("in {} and in {}", twice[0].0, twice[1].0);
            assert!(error.starts_with("expected each run once") && error.ends_with(&says), "{error}");
        }
        // Reports of before do not say when they began, and running ones not when they end.
        let mut before = reports.clone();
        before.iter_mut().for_each(|(_, report)| (report.started_at, report.ended_at) = (None, None));
        let merged = merge(&before).unwrap();
        assert_eq!((merged.parts.len(), merged.started_at, merged.ended_at), (3, None, None));
    }

    #[test]
    fn the_halves_of_a_run_make_the_whole_bucket_for_bucket() {
        for run in [Run::open(4_000, 1_000.0), Run { rejected: 100, ..Run::closed(4_000, 10) }] {
            let whole = run.report();
            let halves = named([run.half(0), run.half(1)]);
            let merged = merge(&halves).unwrap();
            assert_eq!(merged.histograms, whole.histograms);
            assert_eq!(merged.latency_s.accepted.response, whole.latency_s.accepted.response);
            assert_eq!(merged.latency_s.response_95, whole.latency_s.response_95);
            assert_eq!(merged.latency_s.service_95, whole.latency_s.service_95);
            assert!(whole.latency_s.service_95.p99_9.is_some());
            assert_eq!(merged.messages, whole.messages);
            assert_eq!(merged.messages.outcomes(), merged.messages.asked);
            assert_eq!((merged.connections, &merged.spec), (whole.connections, &whole.spec));
            assert_eq!(merged.bytes_sent, whole.bytes_sent);
            assert!((merged.rate_per_s / whole.rate_per_s - 1.0).abs() < 1e-3);
            assert!((merged.generator.busy / whole.generator.busy - 1.0).abs() < 1e-3);
            let counts = |report: &Report| -> Vec<(f64, u64, u64)> {
                report.series.iter().map(|row| (row.t_s, row.sent, row.accepted)).collect()
            };
            assert_eq!(counts(&merged), counts(&whole));
            let replies = |report: &Report| -> Vec<(u16, u64)> {
                let mut replies: Vec<_> = report.replies.iter().map(|reply| (reply.code, reply.count)).collect();
                replies.sort_unstable();
                replies
            };
            assert_eq!(replies(&merged), replies(&whole));
            assert_eq!(merged.verdict.as_ref().map(|verdict| verdict.result), Some(Validity::Valid));
        }
    }

    #[test]
    fn warm_ups_are_added_and_lasted_as_long_as_the_longest() {
        let warm = |elapsed_s, accepted| {
            let mut report = samples::open(4_000, 1_000.0);
            let messages = Messages { asked: accepted, sent: accepted, accepted, ..messages([].into_iter()) };
            report.warmup = Some(WarmupReport { elapsed_s, messages });
            report
        };
        let merged = merge(&named([warm(1.0, 100), warm(2.0, 50)])).unwrap().warmup.unwrap();
        assert_eq!((merged.elapsed_s, merged.messages.asked, merged.messages.accepted), (2.0, 150, 150));
        assert!(merge(&named([samples::open(4_000, 1_000.0)])).unwrap().warmup.is_none());
    }

    #[test]
    fn stages_are_added_as_rates_are() {
        let staged = |goals: [f64; 2], last_s: f64| {
            let mut report = samples::open(4_000, 1_000.0);
            report.spec["rate"] = json!(goals[0]);
            report.spec["stages"] =
                json!([{ "duration_s": 1.0, "rate": goals[0] }, { "duration_s": last_s, "rate": goals[1] }]);
            report
        };
        let merged = merge(&named([staged([100.0, 500.0], 5.0), staged([100.5, 700.0], 5.0)])).unwrap();
        assert_eq!(merged.spec["rate"], json!(200.5));
        let expected = json!([{ "duration_s": 1.0, "rate": 200.5 }, { "duration_s": 5.0, "rate": 1_200.0 }]);
        assert_eq!(merged.spec["stages"], expected);
        let differing = merge(&named([staged([100.0, 500.0], 5.0), staged([100.0, 500.0], 6.0)])).unwrap();
        assert_eq!(differing.spec["stages"], Value::Null);
        assert!(differing.notes.iter().any(|note| note.contains("stages")), "{:?}", differing.notes);
        let mixed = merge(&named([staged([100.0, 500.0], 5.0), samples::open(4_000, 1_000.0)])).unwrap();
        assert_eq!(mixed.spec["stages"], Value::Null);
    }

    #[test]
    fn the_percentiles_of_a_second_of_several_generators_are_left_out() {
        let run = Run::open(4_000, 1_000.0);
        let merged = merge(&named([run.half(0), run.half(1)])).unwrap();
        assert!(merged.series.iter().all(|row| row.p50.is_none() && row.p99.is_none()));
        let alone = merge(&named([run.report()])).unwrap();
        assert_eq!(alone.series, run.report().series);
    }

    #[test]
    fn the_worst_verdict_wins_and_says_whose_it_is() {
        let good = samples::open(20_000, 10_000.0);
        let busy = Run { busy: 0.9, ..Run::open(1_000, 1_000.0) }.report();
        let merged = merge(&named([good, busy])).unwrap();
        let verdict = merged.verdict.unwrap();
        assert_eq!(verdict.result, Validity::Suspect);
        let of_rule: Vec<_> = verdict.reasons.iter().filter(|reason| reason.rule == Rule::Busy).collect();
        assert!(of_rule.len() == 1 && of_rule[0].text.starts_with("1.json: the generator was near"), "{verdict:?}");
        assert!(merged.notes.iter().any(|note| note.starts_with("the merged runs lasted ")), "{:?}", merged.notes);
    }

    #[test]
    fn conditions_are_held_against_the_merged_figures() {
        let run = Run::open(4_000, 1_000.0);
        let mut halves = named([run.half(0), run.half(1)]);
        let condition = Threshold::parse("rate<900").unwrap();
        for (_, half) in &mut halves {
            half.check(std::slice::from_ref(&condition));
            assert!(!half.thresholds[0].met);
        }
        let merged = merge(&halves).unwrap();
        assert_eq!(merged.thresholds.len(), 1);
        assert!(merged.thresholds[0].met, "500 and 500 a second are 1,000");
    }

    #[test]
    fn what_differs_is_noted_or_refused() {
        let (open, mut other) = (samples::open(1_000, 1_000.0), samples::open(1_000, 1_000.0));
        other.spec["msg_size"] = 4_096.into();
        other.target = "smtp://127.0.0.2:25".into();
        let merged = merge(&named([open.clone(), other.clone()])).unwrap();
        assert_eq!((&merged.spec["msg_size"], &merged.spec["rate"]), (&Value::Null, &json!(2_000.0)));
        assert_eq!(merged.target, "smtp://127.0.0.1:2525, smtp://127.0.0.2:25");
        assert!(merged.notes.contains(&"the merged runs differ in msg_size".to_owned()), "{:?}", merged.notes);
        let refused = |report: Report| merge(&named([open.clone(), report])).unwrap_err().to_string();
        assert!(refused(samples::closed(1_000, 10)).starts_with("1.json: expected the load model"));
        assert!(refused(Report { version: 9, ..open.clone() }).starts_with("1.json: expected a report of version 1"));
        other.histograms.insert("accepted.response".into(), "AAAA".into());
        assert!(refused(other).starts_with("1.json: histograms: accepted.response: expected"));
        assert_eq!(merge(&[]).unwrap_err(), MergeError::None);
    }
}
