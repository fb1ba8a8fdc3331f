//! A search for the highest rate that a target holds: what is asked for, which trial comes next, and what came of each.
//!
//! Whoever runs a search starts the job that [`Searching::trial`] names, hands its report to [`Searching::ended`], lets the
//! target rest, and goes on until there is no further trial. Which rate is tried when is decided by [`crate::load::search`].

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::spec::{DURATION_MAX, JobSpec, Limit, LoadModel, RawSpec, SpecError, Target};
use super::trial::{Figures, Wrong, judge, too_few_messages};
use crate::load::search::{Length, Outcome, PRECISION_MIN, Search, Trial};
use crate::load::{Arrival, RATE_PER_S_MAX, Rate};
use crate::measure::report::Report;
use crate::measure::threshold::{Metric, THRESHOLDS_MAX, Threshold};
use crate::measure::verdict::{Reason, Rule};

/// The version of [`SearchReport`]'s schema.
pub const SEARCH_REPORT_VERSION: u32 = 1;
/// Messages a second of the first trial of a search that is not told where to begin.
pub const START_PER_S: f64 = 100.0;
/// Length of the trials that find the rate, where nothing is said of it.
pub const TRIAL: Duration = Duration::from_secs(5);
/// Length of the trials that confirm it.
pub const CONFIRM: Duration = Duration::from_secs(20);
/// How long the target rests between two trials.
pub const COOL_DOWN: Duration = Duration::from_secs(1);
/// How close the rate that holds and the one that does not come, as a share of the rate.
pub const PRECISION: f64 = 0.01;

/// What somebody asked for of a search, value by value; `None` where nothing was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawSearch {
    /// Conditions that must be true of a trial that the target holds.
    pub slo: Vec<Threshold>,
    /// Messages a second of the first trial.
    pub start_rate: Option<f64>,
    /// Never offer more than this, in messages a second.
    pub max_rate: Option<f64>,
    /// Length of the trials that find the rate.
    pub trial: Option<Duration>,
    /// Length of those that confirm it.
    pub confirm: Option<Duration>,
    /// How long the target rests between two trials.
    pub cool_down: Option<Duration>,
    /// See [`Search::new`].
    pub precision: Option<f64>,
}

/// A valid search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSpec {
    /// At least one.
    pub slo: Vec<Threshold>,
    /// Messages a second of the first trial, not above the most.
    pub start_per_s: f64,
    /// The most messages a second.
    pub rate_per_s_max: f64,
    /// Length of the trials that find the rate.
    pub trial: Duration,
    /// Length of those that confirm it.
    pub confirm: Duration,
    /// How long the target rests between two trials.
    pub cool_down: Duration,
    /// See [`Search::new`].
    pub precision: f64,
}

impl SearchSpec {
    /// Looks at every value.
    ///
    /// # Errors
    ///
    /// Names `search`, and in it the value that is wrong.
    pub fn new(raw: RawSearch) -> Result<SearchSpec, SpecError> {
        if !(1..=THRESHOLDS_MAX).contains(&raw.slo.len()) {
            return Err(wrong("slo", format!("1 to {THRESHOLDS_MAX} conditions such as p99<250ms"), raw.slo.len()));
        }
        let rate = |name, rate: Option<f64>, usual| match rate {
            None => Ok(usual),
            Some(rate) if Rate::per_second(rate).is_ok() => Ok(rate),
            Some(rate) => Err(wrong(name, format!("messages a second, above 0 and at most {RATE_PER_S_MAX}"), rate)),
        };
        let rate_per_s_max = rate("max_rate", raw.max_rate, RATE_PER_S_MAX)?;
        let start_per_s = match raw.start_rate {
            // Nobody asked for the usual one.
            None => START_PER_S.min(rate_per_s_max),
            asked => rate("start_rate", asked, START_PER_S)?,
        };
        if start_per_s > rate_per_s_max {
            return Err(wrong("start_rate", format!("at most max_rate, {rate_per_s_max}"), start_per_s));
        }
        let precision = raw.precision.unwrap_or(PRECISION);
        if !(PRECISION_MIN..=1.0).contains(&precision) {
            return Err(wrong("precision", format!("a share from {PRECISION_MIN} to 1"), precision));
        }
        let time = |name, time: Option<Duration>, usual: Duration| match time.unwrap_or(usual) {
            time if !time.is_zero() && time <= DURATION_MAX => Ok(time),
            time => Err(wrong(name, "more than 0 and at most 30 days", format_args!("{time:?}"))),
        };
        let cool_down = raw.cool_down.unwrap_or(COOL_DOWN);
        if cool_down > DURATION_MAX {
            return Err(wrong("cool_down", "at most 30 days", format_args!("{cool_down:?}")));
        }
        Ok(SearchSpec {
            slo: raw.slo,
            start_per_s,
            rate_per_s_max,
            trial: time("trial", raw.trial, TRIAL)?,
            confirm: time("confirm", raw.confirm, CONFIRM)?,
            cool_down,
            precision,
        })
    }
}

/// A value of a search that cannot be.
pub(crate) fn wrong(name: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> SpecError {
    SpecError::of("search", format_args!("{name}: expected {expected}, got {got}"))
}

/// The result of a search, in the form that scripts read: the object of `search --json`, and the `result` of a job that is a
/// search.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchReport {
    /// The version of this schema; raised when a field changes its meaning or goes.
    pub version: u32,
    /// Where the load went.
    pub target: String,
    /// The job of every trial as it was understood; its rate is that of the first one.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
    /// What repeats it.
    pub seed: u64,
    /// The conditions.
    pub slo: Vec<String>,
    /// What came of it; null while it goes on.
    pub result: Option<SearchResult>,
    /// The highest rate that the target held, in messages a second; null when it held none.
    pub rate_per_s: Option<f64>,
    /// The lowest rate above it that was not held, if any was tried.
    pub not_held_per_s: Option<f64>,
    /// Every trial, in their order; the last one may be under way.
    pub trials: Vec<TrialReport>,
    /// Why the search ended early; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<String>,
    /// What the reader should know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchResult {
    /// The highest rate, confirmed by long trials on both of its sides.
    Found,
    /// The target holds this rate, and perhaps a higher one: the generator could not offer more, or was not to.
    AtLeast,
    /// The target holds no rate that was tried.
    None,
    /// It ended before it came to a result.
    Unfinished,
}

impl SearchResult {
    /// All of them.
    pub const ALL: [SearchResult; 4] =
        [SearchResult::Found, SearchResult::AtLeast, SearchResult::None, SearchResult::Unfinished];

    /// The name in reports and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            SearchResult::Found => "found",
            SearchResult::AtLeast => "at_least",
            SearchResult::None => "none",
            SearchResult::Unfinished => "unfinished",
        }
    }
}

/// One trial.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TrialReport {
    /// Messages a second asked for.
    pub rate_per_s: f64,
    /// How long, in seconds.
    pub duration_s: f64,
    /// Whether it was one of the long ones, which confirm.
    pub confirms: bool,
    /// What came of it.
    pub outcome: TrialOutcome,
    /// Why it was not held.
    pub reasons: Vec<String>,
    /// Messages accepted a second.
    pub achieved_per_s: f64,
    /// Median response time of accepted messages in seconds.
    pub p50: Option<f64>,
    /// 99th percentile of the same.
    pub p99: Option<f64>,
    /// Share of the messages that were not accepted.
    pub failures: f64,
    /// How busy the generator was: the busiest of its shards.
    pub busy: f64,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialOutcome {
    /// The target held the rate, and every condition.
    Held,
    /// It did not.
    Failed,
    /// The generator could not offer the rate: nothing is known of the target.
    Unknown,
    /// It was stopped before its end: nothing is known of the target either.
    Interrupted,
    /// It is under way.
    Running,
}

impl TrialOutcome {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            TrialOutcome::Held => "held",
            TrialOutcome::Failed => "failed",
            TrialOutcome::Unknown => "unknown",
            TrialOutcome::Interrupted => "interrupted",
            TrialOutcome::Running => "running",
        }
    }
}

impl From<Outcome> for TrialOutcome {
    fn from(outcome: Outcome) -> TrialOutcome {
        match outcome {
            Outcome::Held => TrialOutcome::Held,
            Outcome::Failed => TrialOutcome::Failed,
            Outcome::Unknown => TrialOutcome::Unknown,
        }
    }
}

/// A search under way.
#[derive(Debug)]
pub struct Searching {
    spec: SearchSpec,
    /// The job of the trial that is under way, or next.
    job: JobSpec,
    arrival: Arrival,
    search: Search,
    /// What of the search is under way, or next; `None` when it is over.
    trial: Option<Trial>,
    /// The least mean service time of a trial that was held: what a message takes where the target is not overloaded.
    unloaded_s: Option<f64>,
    /// Rules whose doubts were noted.
    doubts: BTreeSet<usize>,
    report: SearchReport,
}

impl Searching {
    /// A search by jobs like `raw`, which says nothing of how many messages are sent, and when.
    ///
    /// # Errors
    ///
    /// When a job of either length cannot be.
    pub fn new(spec: SearchSpec, mut raw: RawSpec, target: &Target, seed: u64) -> Result<Searching, SpecError> {
        let said = [
            ("rate", raw.rate.is_some(), "the search chooses it; `start_rate` says where it begins"),
            ("stages", raw.stages.is_some(), "the search chooses the rate; `start_rate` says where it begins"),
            ("messages", raw.messages.is_some(), "`trial` and `confirm` say how long its trials last"),
            ("duration", raw.duration.is_some(), "`trial` and `confirm` say how long its trials last"),
        ];
        if let Some((field, _, instead)) = said.into_iter().find(|(_, said, _)| *said) {
            return Err(SpecError::new(field, "none in a search", format_args!("one: {instead}")));
        }
        // A Poisson schedule of 2 s at 1,000/s has 2,000 messages give or take 45: trials would differ by what they ask.
        let arrival = *raw.arrival.get_or_insert(Arrival::Constant);
        (raw.rate, raw.duration) = (Some(spec.start_per_s), Some(spec.confirm));
        // Both lengths have to be valid ones.
        JobSpec::new(raw.clone(), target.clone(), seed)?;
        raw.duration = Some(spec.trial);
        let job = JobSpec::new(raw, target.clone(), seed)?;
        let search = Search::new(spec.start_per_s, spec.rate_per_s_max, spec.precision);
        let report = SearchReport {
            version: SEARCH_REPORT_VERSION,
            target: job.target.name.clone(),
            spec: job.describe(),
            seed: job.seed,
            slo: spec.slo.iter().map(ToString::to_string).collect(),
            result: None,
            rate_per_s: None,
            not_held_per_s: None,
            trials: Vec::new(),
            aborted: None,
            notes: Vec::new(),
        };
        let trial = search.next_trial();
        Ok(Searching { spec, job, arrival, search, trial, unloaded_s: None, doubts: BTreeSet::new(), report })
    }

    /// The job of the trial that is under way or next; `None` when the search is over.
    pub fn trial(&self) -> Option<&JobSpec> {
        self.trial.map(|_| &self.job)
    }

    /// The job of every trial, but for its rate and length.
    pub fn job(&self) -> &JobSpec {
        &self.job
    }

    /// What was asked for.
    pub fn spec(&self) -> &SearchSpec {
        &self.spec
    }

    /// Trials that have ended.
    pub fn trials(&self) -> usize {
        self.report.trials.len()
    }

    /// A trial has ended, with this report; it was `interrupted` if it did not come to its end for a reason that lies on this
    /// side. Says what came of it.
    pub fn ended(&mut self, run: &Report, interrupted: bool) -> &TrialReport {
        let Some(trial) = self.trial else { unreachable!("whoever runs a trial was given it") };
        self.note_what_is_known_of(run);
        let mut too_few = None;
        let (outcome, reasons) = match interrupted {
            true => (TrialOutcome::Interrupted, run.aborted.iter().cloned().collect()),
            false => {
                let wrong = Wrong::all(&self.spec.slo, run);
                let figures = Figures::new(run, trial.rate_per_s, self.unloaded_s, &wrong);
                let reasons = wrong.iter().map(|wrong| wrong.told(run)).collect();
                let (mut outcome, mut reasons) = judge(&figures, reasons);
                let service = run.latency_s.accepted.service;
                // Of an overloaded target the connections are all in use, however many there are.
                if outcome == Outcome::Held && service.count > 0 {
                    self.unloaded_s = Some(self.unloaded_s.map_or(service.mean, |least| least.min(service.mean)));
                }
                too_few = (outcome == Outcome::Held && trial.length == Length::Long)
                    .then(|| too_few_messages(&self.spec.slo, run, trial.rate_per_s))
                    .flatten();
                if let Some(reason) = &too_few {
                    outcome = Outcome::Unknown;
                    reasons.push(reason.clone());
                }
                self.search.learn(trial, outcome);
                (outcome.into(), reasons)
            }
        };
        self.report.trials.push(self.trial_report(trial, outcome, reasons, run));
        if interrupted {
            self.give_up(run.aborted.clone().unwrap_or_else(|| "a trial was interrupted".to_owned()));
        } else if run.connections.opened == 0 {
            // Of a target that takes no connection nothing can be learnt at any rate.
            let obstacle = run.errors.iter().max_by_key(|error| error.count);
            let obstacle = obstacle.map_or("the target has not answered", |error| &error.example);
            self.give_up(format!("no connection could be opened: {obstacle}"));
        } else if let Some(reason) = too_few {
            // At a lower rate there would be fewer still.
            self.give_up(reason);
        } else {
            self.go_on();
        }
        &self.report.trials[self.report.trials.len() - 1]
    }

    /// What a reader of a trial's own report would be told, each once: its notes, and why its figures are doubtful.
    fn note_what_is_known_of(&mut self, run: &Report) {
        let verdict = run.verdict.iter().flat_map(|verdict| &verdict.reasons);
        // How it ended, and whether the target took the load, is told of each trial.
        let of_machine = |reason: &&Reason| {
            matches!(reason.rule, Rule::OtherJobs | Rule::SkipVerify | Rule::Generator | Rule::Standstill | Rule::Turns)
        };
        let doubts = verdict.filter(of_machine).filter(|reason| match reason.rule {
            // These have figures in them: once is enough.
            Rule::Generator | Rule::Standstill | Rule::Turns => self.doubts.insert(reason.rule as usize),
            _ => true,
        });
        let doubts: Vec<String> = doubts.map(|reason| reason.text.clone()).collect();
        for note in run.notes.iter().chain(&doubts) {
            if !self.report.notes.contains(note) && self.report.notes.len() < NOTES_MAX {
                self.report.notes.push(note.clone());
            }
        }
    }

    /// The search ends here, for the first reason that is named. A trial that is under way has to be stopped by whoever runs
    /// it.
    pub fn give_up(&mut self, reason: String) {
        self.report.aborted.get_or_insert(reason);
        self.trial = None;
        self.conclude();
    }

    /// Somebody wants the search to end: what else there was to try is not tried. One that is over stays as it is.
    pub fn stop(&mut self, reason: &str) {
        if self.trial.is_some() {
            self.give_up(reason.to_owned());
        }
    }

    fn go_on(&mut self) {
        self.trial = self.search.next_trial();
        match self.trial {
            None => self.conclude(),
            Some(trial) => {
                let rate = Rate::per_second(trial.rate_per_s).expect("a search stays within the bounds of rates");
                self.job.load = LoadModel::Open { rate, arrival: self.arrival };
                self.job.limit = Limit::Duration(self.length(trial));
            }
        }
    }

    fn length(&self, trial: Trial) -> Duration {
        if trial.length == Length::Long { self.spec.confirm } else { self.spec.trial }
    }

    fn conclude(&mut self) {
        let bounds = self.search.bounds();
        let result = match (self.search.is_confirmed(), bounds.held, bounds.not_held) {
            (true, _, Some((_, Outcome::Failed))) => SearchResult::Found,
            (true, _, _) => SearchResult::AtLeast,
            (false, None, _) if self.report.aborted.is_none() => SearchResult::None,
            (false, _, _) => SearchResult::Unfinished,
        };
        self.report.result = Some(result);
    }

    /// How it stands, with the trial that is under way, or what came of it. `under_way` is how that trial stands.
    pub fn report(&self, under_way: Option<&Report>) -> SearchReport {
        let mut report = self.report.clone();
        let bounds = self.search.bounds();
        report.rate_per_s = bounds.held;
        report.not_held_per_s = bounds.not_held.map(|(rate, _)| rate);
        if let (Some(trial), Some(run)) = (self.trial, under_way) {
            report.trials.push(self.trial_report(trial, TrialOutcome::Running, Vec::new(), run));
        }
        report
    }

    fn trial_report(&self, trial: Trial, outcome: TrialOutcome, reasons: Vec<String>, run: &Report) -> TrialReport {
        TrialReport {
            rate_per_s: trial.rate_per_s,
            duration_s: self.length(trial).as_secs_f64(),
            confirms: trial.length == Length::Long,
            outcome,
            reasons,
            achieved_per_s: run.rate_per_s,
            p50: Metric::P50.of(run),
            p99: Metric::P99.of(run),
            failures: Metric::Failures.of(run).unwrap_or(0.0),
            busy: run.generator.busiest(),
        }
    }
}

/// Notes of trials that a search repeats; each once.
const NOTES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::ConnectionType;
    use crate::measure::samples;

    #[test]
    fn every_wrong_value_is_named() {
        let right = RawSearch { slo: vec![Threshold::parse("p99<1s").unwrap()], ..RawSearch::default() };
        let usual = SearchSpec::new(right.clone()).unwrap();
        assert_eq!((usual.start_per_s, usual.trial, usual.precision), (START_PER_S, TRIAL, PRECISION));
        let low = SearchSpec::new(RawSearch { max_rate: Some(20.0), ..right.clone() }).unwrap();
        assert_eq!((low.start_per_s, low.rate_per_s_max), (20.0, 20.0), "the usual beginning is no reason to refuse");
        for (name, wrong) in [
            ("slo", RawSearch::default()),
            ("max_rate", RawSearch { max_rate: Some(0.0), ..right.clone() }),
            ("start_rate", RawSearch { start_rate: Some(f64::NAN), ..right.clone() }),
            ("start_rate", RawSearch { start_rate: Some(21.0), max_rate: Some(20.0), ..right.clone() }),
            ("trial", RawSearch { trial: Some(Duration::ZERO), ..right.clone() }),
            ("confirm", RawSearch { confirm: Some(DURATION_MAX * 2), ..right.clone() }),
            ("cool_down", RawSearch { cool_down: Some(DURATION_MAX * 2), ..right.clone() }),
            ("precision", RawSearch { precision: Some(0.0), ..right.clone() }),
        ] {
            let error = SearchSpec::new(wrong).expect_err(name).to_string();
            assert!(error.starts_with(&format!("search: {name}: expected ")) && error.contains("got"), "{error}");
        }
    }

    fn target() -> Target {
        Target {
            name: "smtp://127.0.0.1:2525".into(),
            host: "127.0.0.1".into(),
            address: "127.0.0.1:2525".parse().unwrap(),
            connection: ConnectionType::Plain,
        }
    }

    fn searching(raw: RawSpec) -> Result<Searching, SpecError> {
        let raw_search = RawSearch { slo: vec![Threshold::parse("p99<1s").unwrap()], ..RawSearch::default() };
        Searching::new(SearchSpec::new(raw_search).unwrap(), raw, &target(), 1)
    }

    #[test]
    fn what_a_search_decides_cannot_be_asked_for() {
        let stage = crate::load::stages::parse("1m@5").unwrap();
        for (field, raw) in [
            ("rate", RawSpec { rate: Some(5.0), ..RawSpec::default() }),
            ("stages", RawSpec { stages: Some(stage), ..RawSpec::default() }),
            ("messages", RawSpec { messages: Some(5), ..RawSpec::default() }),
            ("duration", RawSpec { duration: Some(TRIAL), ..RawSpec::default() }),
        ] {
            assert_eq!(searching(raw).expect_err(field).field, field);
        }
    }

    /// The report of a trial that opened so many connections and had all of its messages accepted.
    fn run(connections_opened: u64) -> Report {
        let mut report = samples::open(500, 100.0);
        report.connections.opened = connections_opened;
        report
    }

    #[test]
    fn a_search_goes_on_from_trial_to_trial_and_shows_the_one_under_way() {
        let mut search = searching(RawSpec::default()).unwrap();
        assert!(matches!(search.trial().unwrap().limit, Limit::Duration(TRIAL)));
        let live = search.report(Some(&run(100)));
        assert_eq!((live.trials[0].outcome, live.result), (TrialOutcome::Running, None));
        assert_eq!(search.ended(&run(100), false).outcome, TrialOutcome::Held);
        let LoadModel::Open { rate, .. } = search.trial().unwrap().load else { panic!("{search:?}") };
        assert_eq!(rate.as_per_second(), 200.0);
        assert_eq!(search.report(None).rate_per_s, Some(100.0));
    }

    #[test]
    fn an_interrupted_trial_says_nothing_and_ends_the_search() {
        let mut search = searching(RawSpec::default()).unwrap();
        search.ended(&run(100), false);
        let stopped = Report { aborted: Some("it was stopped".to_owned()), ..run(100) };
        assert_eq!(search.ended(&stopped, true).outcome, TrialOutcome::Interrupted);
        let report = search.report(None);
        assert!(search.trial().is_none());
        assert_eq!((report.result, report.rate_per_s), (Some(SearchResult::Unfinished), Some(100.0)));
        assert_eq!(report.aborted.as_deref(), Some("it was stopped"));
    }

    #[test]
    fn a_target_that_takes_no_connection_ends_the_search_at_once() {
        let mut search = searching(RawSpec::default()).unwrap();
        search.ended(&run(0), false);
        let report = search.report(None);
        assert!(search.trial().is_none());
        assert!(report.aborted.is_some_and(|reason| reason.starts_with("no connection could be opened")));
        assert_eq!((report.result, report.trials.len()), (Some(SearchResult::Unfinished), 1));
    }

    #[test]
    fn a_target_that_refuses_has_not_held_unless_failures_were_judged() {
        let refusing = |share: u64| {
            let mut report = run(100);
            (report.messages.accepted, report.messages.rejected) = (500 - share, share);
            report
        };
        assert_eq!(searching(RawSpec::default()).unwrap().ended(&refusing(5), false).outcome, TrialOutcome::Held);
        let mut search = searching(RawSpec::default()).unwrap();
        let trial = search.ended(&refusing(6), false);
        assert_eq!(trial.outcome, TrialOutcome::Failed);
        assert!(trial.reasons[0].contains("98.8 %"), "{trial:?}");
        let slo = ["p99<1s", "failures<20%"].map(|text| Threshold::parse(text).unwrap()).to_vec();
        let spec = SearchSpec::new(RawSearch { slo, ..RawSearch::default() }).unwrap();
        let mut search = Searching::new(spec, RawSpec::default(), &target(), 1).unwrap();
        assert_eq!(search.ended(&refusing(50), false).outcome, TrialOutcome::Held);
    }

    #[test]
    fn what_was_never_sent_was_not_refused() {
        let mut search = searching(RawSpec::default()).unwrap();
        let mut behind = run(100);
        (behind.messages.accepted, behind.messages.missed) = (300, 200);
        behind.rate_per_s = 300.0 / behind.elapsed_s;
        let trial = search.ended(&behind, false);
        assert_eq!(trial.outcome, TrialOutcome::Failed);
        assert!(!trial.reasons.iter().any(|reason| reason.contains("were accepted")), "{trial:?}");
    }

    /// There all connections are in use, however many there are: it is no reason to blame the generator.
    #[test]
    fn a_first_trial_beyond_the_targets_capacity_has_failed() {
        let mut search = searching(RawSpec::default()).unwrap();
        let mut beyond = run(100);
        beyond.latency_s.accepted.service.mean = beyond.connections.asked as f64 / START_PER_S;
        beyond.latency_s.accepted.response.p99 = 3.0;
        let trial = search.ended(&beyond, false);
        assert_eq!(trial.outcome, TrialOutcome::Failed, "{trial:?}");
    }

    #[test]
    fn a_confirming_trial_of_too_few_messages_confirms_nothing() {
        let slo = vec![Threshold::parse("p99.9<1s").unwrap()];
        let raw = RawSearch { slo, start_rate: Some(100.0), max_rate: Some(100.0), ..RawSearch::default() };
        let mut search = Searching::new(SearchSpec::new(raw).unwrap(), RawSpec::default(), &target(), 1).unwrap();
        assert_eq!(search.ended(&run(100), false).outcome, TrialOutcome::Held, "a short one only finds the place");
        let trial = search.ended(&run(100), false);
        assert_eq!((trial.outcome, trial.confirms), (TrialOutcome::Unknown, true));
        let report = search.report(None);
        assert_eq!((report.result, report.rate_per_s), (Some(SearchResult::Unfinished), None));
        let reason = report.aborted.unwrap();
        assert!(reason.contains("3,688") && reason.contains("37 s"), "{reason}");
    }

    #[test]
    fn doubts_about_the_machine_are_noted() {
        let mut search = searching(RawSpec::default()).unwrap();
        let mut beside = run(100);
        beside.other_jobs = vec!["7".into()];
        beside.judge();
        search.ended(&beside, false);
        search.ended(&beside, false);
        let notes = search.report(None).notes;
        assert_eq!(notes.iter().filter(|note| note.contains("another job ran")).count(), 1, "{notes:?}");
        let mut broken = beside.clone();
        broken.latency_s.accepted.response.p99 = 3.0;
        let trial = search.ended(&broken, false);
        assert_eq!(trial.outcome, TrialOutcome::Unknown, "{trial:?}");
    }

    #[test]
    fn a_trial_that_a_condition_has_ended_was_not_held() {
        let mut search = searching(RawSpec::default()).unwrap();
        let given_up = Report { aborted: Some("p99 was 3 s".to_owned()), ..run(100) };
        assert_eq!(search.ended(&given_up, false).outcome, TrialOutcome::Failed);
        assert!(search.trial().is_some());
    }
}
