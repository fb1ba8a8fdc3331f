//! What Prometheus reads: counters and histograms of all jobs since the service began, and how it stands now, in the text
//! format 0.0.4.
//!
//! Every delta of every job is merged into one per type of job, so the figures are those of the jobs' reports, added up.
//! Two outcomes are known only when a job ends, missed and cut; they are counted then, from its report, so that the
//! outcomes of ended jobs add up to the messages that were asked for.
//!
//! Messages of a warm-up count by their outcome, as they do at their target; their times, replies and recipients, which no
//! report has, are not measured.
//!
//! Labels come from closed sets, no target, address or text among them. Where the set is small, its series exist from the
//! start, since a rate over a series that has just appeared misses its first increase; phases, replies and errors appear
//! when first counted.
//!
//! Buckets are counted from HDR histograms, whose values are exact to 0.1 % for messages and to 1 % for phases and turns:
//! a bound, and the sum, err by as much. Percentiles for people are in the reports; these buckets follow 1-2-5, three a
//! decade, so that a quantile that is computed from them is within a factor of 2.5 at the worst.

mod families;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Registry, TextEncoder};

use self::families::{FAMILIES, Family, Samples};
pub use self::probe::{IGNORED, ProbeTotals, RouteTotals};
use crate::job::record::JobState;
use crate::job::request::JobType;
use crate::job::search::SearchResult;
use crate::measure::audit;
use crate::measure::histogram::{Digits, LatencyHistogram};
use crate::measure::recorder::{Delta, MessageCounts};
use crate::measure::report::Report;
use crate::measure::verdict::Validity;
use crate::sink::FaultCounters;

/// The `Content-Type` of [`Metrics::render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The types of jobs that there can be.
const TYPES: [JobType; 4] = JobType::ALL;

/// How the service stands when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// Jobs that run or drain.
    pub jobs_running: u64,
    /// Connections of all jobs that are open.
    pub connections_open: u64,
    /// Shards that are up.
    pub shards: u64,
    /// File slots of the shards' rings that are in use, see [`crate::shard::pool::Pool::file_slots`].
    pub file_slots_used: u64,
    /// All file slots of the shards' rings.
    pub file_slots: u64,
    /// What is to be kept can be written.
    pub store_writable: bool,
    /// Descriptors of the process that are in use, see [`descriptors`].
    pub descriptors_open: u64,
    /// The most that it may have.
    pub descriptors_max: u64,
    /// When the process began, in nanoseconds since 1970.
    pub start_unix_ns: u64,
}

/// Descriptors of this process: in use, and the most that it may have; 0 where the system does not say.
pub fn descriptors() -> (u64, u64) {
    // One of them is the folder that is being read.
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64);
    (open, getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft))
}

/// The figures of all jobs since the service began.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    totals: Arc<Mutex<Totals>>,
}

#[derive(Debug)]
struct Totals {
    /// One for each of [`TYPES`].
    kinds: [KindTotals; TYPES.len()],
    probes: ProbeTotals,
    audits: AuditTotals,
    faults: FaultCounters,
    now: Gauges,
}

/// All audits of jobs that have ended.
#[derive(Debug)]
struct AuditTotals {
    accepted: u64,
    arrived: u64,
    missing: u64,
    unacknowledged: u64,
    duplicate: u64,
    altered: u64,
    late: u64,
    forged: u64,
    malformed: u64,
    end_to_end: LatencyHistogram,
}

impl AuditTotals {
    fn new() -> AuditTotals {
        let end_to_end = LatencyHistogram::new(Digits::Three);
        let [accepted, arrived, missing, unacknowledged, duplicate, altered, late, forged, malformed] = [0; 9];
        AuditTotals {
            accepted,
            arrived,
            missing,
            unacknowledged,
            duplicate,
            altered,
            late,
            forged,
            malformed,
            end_to_end,
        }
    }

    fn add(&mut self, report: &Report) {
        let Some(audit) = &report.audit else { return };
        self.accepted += audit.accepted;
        let Some(arrivals) = &audit.arrivals else { return };
        self.arrived += arrivals.arrived;
        self.missing += arrivals.missing;
        self.unacknowledged += arrivals.unacknowledged;
        self.duplicate += arrivals.duplicate;
        self.altered += arrivals.altered;
        self.late += arrivals.late;
        self.forged += arrivals.forged;
        self.malformed += arrivals.malformed;
        if let Some(Ok(end_to_end)) =
            report.histograms.get(audit::HISTOGRAM).map(|text| LatencyHistogram::decode(text, Digits::Three))
        {
            self.end_to_end.merge(&end_to_end);
        }
    }
}

/// All jobs of one type.
#[derive(Debug)]
struct KindTotals {
    kind: JobType,
    /// Every delta in one.
    merged: Delta,
    /// Messages that never left, of jobs that have ended.
    missed: u64,
    /// Messages that were in flight when their job's time was over.
    cut: u64,
    /// Jobs that have ended, for each of [`JobState::FINAL`].
    ended: [u64; JobState::FINAL.len()],
    /// The same, for each of [`Validity::ALL`].
    verdicts: [u64; Validity::ALL.len()],
    /// Searches that have ended, for each of [`SearchResult::ALL`].
    searches: [u64; SearchResult::ALL.len()],
}

impl KindTotals {
    /// Messages by outcome, as their targets count them: those of warm-ups are among them.
    fn messages(&self) -> MessageCounts {
        let mut messages = self.merged.messages;
        messages.add(&self.merged.warmup);
        messages
    }

    /// Counts the outcomes that a report tells at its job's end.
    fn add_ends(&mut self, report: &Report) {
        for messages in
            [Some(&report.messages), report.warmup.as_ref().map(|warmup| &warmup.messages)].into_iter().flatten()
        {
            self.missed += messages.missed;
            self.cut += messages.cut;
        }
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Metrics {
        let kind = |kind| KindTotals {
            kind,
            merged: Delta::new(),
            missed: 0,
            cut: 0,
            ended: Default::default(),
            verdicts: Default::default(),
            searches: Default::default(),
        };
        let totals = Totals {
            kinds: TYPES.map(kind),
            probes: ProbeTotals::default(),
            audits: AuditTotals::new(),
            faults: FaultCounters::default(),
            now: Gauges::default(),
        };
        let totals = Arc::new(Mutex::new(totals));
        let registry = Registry::new();
        let collector = TotalsCollector { descriptions: families().map(describe).collect(), totals: totals.clone() };
        registry.register(Box::new(collector)).expect("every family has a name and labels of its own");
        Metrics { registry, totals }
    }

    /// Counts what a shard measured of a job of this type; every delta once.
    pub fn add(&mut self, kind: JobType, delta: &Delta) {
        lock(&self.totals).of(kind).merged.merge(delta);
    }

    /// Counts a job's end, in one of [`JobState::FINAL`], and what its last report says of its messages and of itself; `None`
    /// for a job that never ran, and for a search, whose trials have said so.
    pub fn job_ended(&mut self, kind: JobType, state: JobState, report: Option<&Report>) {
        let mut totals = lock(&self.totals);
        if let Some(report) = report {
            totals.audits.add(report);
        }
        let totals = totals.of(kind);
        let place = JobState::FINAL.iter().position(|&known| known == state);
        totals.ended[place.expect("a job that has ended does not run")] += 1;
        let Some(report) = report else { return };
        totals.add_ends(report);
        if let Some(verdict) = &report.verdict {
            totals.verdicts[verdict.result as usize] += 1;
        }
    }

    /// Counts what a trial of a search says at its end of its messages.
    pub fn trial_ended(&mut self, kind: JobType, report: &Report) {
        lock(&self.totals).of(kind).add_ends(report);
    }

    /// Counts what came of a search.
    pub fn search_ended(&mut self, kind: JobType, result: Option<SearchResult>) {
        if let Some(result) = result {
            lock(&self.totals).of(kind).searches[result as usize] += 1;
        }
    }

    /// Counts what happens to probes.
    pub fn probes<T>(&self, count: impl FnOnce(&mut ProbeTotals) -> T) -> T {
        count(&mut lock(&self.totals).probes)
    }

    /// The faults of the service's sink are counted by these.
    pub fn count_faults(&self, counters: FaultCounters) {
        lock(&self.totals).faults = counters;
    }

    /// The text for a scrape.
    pub fn render(&self, now: &Gauges) -> String {
        lock(&self.totals).now = *now;
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("every gathered family has a name and samples")
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Totals {
    fn of(&mut self, kind: JobType) -> &mut KindTotals {
        &mut self.kinds[kind as usize]
    }
}

/// The registry wants to share what it collects from; control alone holds it, so nobody ever waits here.
fn lock(totals: &Mutex<Totals>) -> MutexGuard<'_, Totals> {
    totals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the samples of every family from the totals.
struct TotalsCollector {
    descriptions: Vec<Desc>,
    totals: Arc<Mutex<Totals>>,
}

impl Collector for TotalsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let totals = lock(&self.totals);
        families().map(|family| family.collect(&totals)).collect()
    }
}

impl Family {
    fn collect(&self, totals: &Totals) -> MetricFamily {
        let mut metrics = Vec::new();
        let field_type = match self.samples {
            Samples::Counter(read) => {
                read(totals, &mut |labels, value| {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    let mut metric = self.metric(labels);
                    metric.set_counter(counter);
                    metrics.push(metric);
                });
                MetricType::COUNTER
            }
            Samples::Gauge(read) => {
                read(totals, &mut |labels, value| {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    let mut metric = self.metric(labels);
                    metric.set_gauge(gauge);
                    metrics.push(metric);
                });
                MetricType::GAUGE
            }
            Samples::Histogram(bounds_ns, read) => {
                read(totals, &mut |labels, values| {
                    let mut metric = self.metric(labels);
                    metric.set_histogram(histogram(values, bounds_ns));
                    metrics.push(metric);
                });
                MetricType::HISTOGRAM
            }
        };
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(field_type);
        family.set_metric(metrics);
        family
    }

    fn metric(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        Metric::from_label(self.labels.iter().zip(values).map(pair).collect())
    }
}

/// Every metric.
fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().chain(probe::FAMILIES)
}

fn describe(family: &Family) -> Desc {
    let labels = family.labels.iter().map(|&label| label.to_owned()).collect();
    Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
        .expect("names and labels of the table are valid")
}

fn histogram(values: &LatencyHistogram, bounds_ns: &[u64]) -> Histogram {
    let found = values.cumulative(bounds_ns);
    let bucket = |(&bound_ns, count): (&u64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(seconds(bound_ns.into()));
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(bounds_ns.iter().zip(found.at_or_below).map(bucket).collect());
    histogram.set_sample_count(found.count);
    histogram.set_sample_sum(seconds(found.sum_ns));
    histogram
}

fn seconds(ns: u128) -> f64 {
    ns as f64 / 1e9
}
