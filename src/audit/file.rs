//! One side of the account as a file, by which another host can hold it against the other side.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::join::{Arrived, join, run_name};
use super::ledger::{Ledger, StrayCounts, Tally};
use super::sent::Sent;
use super::sequences::Sequences;
use crate::measure::audit::{AuditClock, AuditReport};
use crate::measure::histogram::{Digits, LatencyHistogram};

/// The version of the file.
pub const FILE_VERSION: u32 = 1;

/// What a generator, a sink, or a process that is both knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditFile {
    /// The version of this form.
    pub timecop_audit: u32,
    /// What was accepted, run by run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<AcceptedRun>,
    /// What has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<ArrivedRuns>,
}

/// The accepted messages of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct AcceptedRun {
    /// The run as its stamps name it.
    pub run: String,
    /// How many.
    pub messages: u64,
    /// Those of them that `sequences` has no room for.
    #[serde(default)]
    pub untracked: u64,
    /// Their numbers: [`Sequences::encode`].
    pub sequences: String,
}

/// What a sink has seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArrivedRuns {
    /// What the sink is known by, so that two files of one are not taken for those of two: 16 hexadecimal digits.
    pub sink: String,
    /// Whether the sink had not ended: what has arrived since is not in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
    /// After how long an arrival was late, in seconds.
    pub late_after_s: f64,
    /// Messages with a stamp that the key has not made.
    pub forged: u64,
    /// Messages with a stamp that says something else than ours do.
    pub malformed: u64,
    /// Messages without a stamp.
    pub unstamped: u64,
    /// Messages of runs that are not among `runs`.
    pub other_runs: u64,
    /// Those of them whose run is not among `forgotten` either.
    pub unnamed_runs: u64,
    /// Runs that were among `runs` and had to make room for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<String>,
    /// Run by run.
    pub runs: Vec<ArrivedRun>,
}

/// The arrivals of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArrivedRun {
    /// The run as its stamps name it.
    pub run: String,
    /// Messages that have arrived at least once.
    pub messages: u64,
    /// Copies beyond the first.
    pub duplicate: u64,
    /// Copies with another body than was sent.
    pub altered: u64,
    /// The first of them.
    pub altered_sequences: Vec<u64>,
    /// First copies that were late.
    pub late: u64,
    /// First copies that came before they were sent.
    pub skewed: u64,
    /// What times are measured by.
    pub clock: AuditClock,
    /// The numbers of the messages: [`Sequences::encode`].
    pub sequences: String,
    /// From send to arrival: HdrHistogram V2 in base64, in nanoseconds; absent without any.
    #[serde(default)]
    pub end_to_end: Option<String>,
}

/// Why files cannot be made one account.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// One was written by another version.
    #[error("{name}: expected an audit file of version {FILE_VERSION}, got version {got}")]
    Version {
        /// The file.
        name: String,
        /// Its version.
        got: u32,
    },
    /// Something in one cannot be read.
    #[error("{name}: run {run}: {problem}")]
    Run {
        /// The file.
        name: String,
        /// The run.
        run: String,
        /// What is wrong.
        problem: String,
    },
    /// The same run was accepted twice: a file stands twice, perhaps.
    #[error("{name}: expected each run in the file of one generator, got {run} again; name each file once")]
    Again {
        /// The file.
        name: String,
        /// The run.
        run: String,
    },
    /// One sink tells twice what it has seen.
    #[error("{name}: expected one file of each sink, got another one of the sink of {first}; name the newer one alone")]
    SinkAgain {
        /// The file.
        name: String,
        /// The other one.
        first: String,
    },
    /// No file says what was accepted, or none what has arrived.
    #[error(
        "expected the files of a generator (hammer --audit-report) and of a sink (sink --audit-report), got none of a {0}"
    )]
    OneSided(&'static str),
}

/// The account of several files.
#[derive(Debug, Default, Serialize)]
pub struct Account {
    /// The runs that a generator has told of, by their names.
    pub runs: Vec<AuditReport>,
    /// Runs of which a sink keeps no account, though messages of them may have arrived there: what is missing nobody knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_kept: Vec<NotKept>,
    /// Runs that have arrived somewhere, and no file says what was accepted of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_runs: Vec<String>,
    /// Files of sinks that had not ended when they were written: what has arrived since is counted nowhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<String>,
}

/// A run of which a sink keeps no account.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct NotKept {
    /// The run as its stamps name it.
    pub run: String,
    /// Its messages that were accepted.
    pub accepted: u64,
    /// The file of the sink.
    pub file: String,
}

impl AuditFile {
    /// What a job's target has accepted, and what has arrived of it, where the sink is of this process.
    pub fn of_job(sent: &Sent) -> AuditFile {
        let accepted = AcceptedRun {
            run: run_name(sent.run()),
            messages: sent.accepted().len() + sent.untracked(),
            untracked: sent.untracked(),
            sequences: sent.accepted().encode(),
        };
        let arrived = sent.here().map(|(ledger, _)| ArrivedRuns::new(ledger));
        AuditFile { timecop_audit: FILE_VERSION, accepted: vec![accepted], arrived }
    }

    /// What a sink has seen.
    pub fn of_sink(ledger: &Ledger) -> AuditFile {
        AuditFile { timecop_audit: FILE_VERSION, accepted: Vec::new(), arrived: Some(ArrivedRuns::new(ledger)) }
    }

    /// What a sink that goes on has seen so far.
    pub fn of_running_sink(ledger: &Ledger) -> AuditFile {
        let arrived = ArrivedRuns { running: true, ..ArrivedRuns::new(ledger) };
        AuditFile { timecop_audit: FILE_VERSION, accepted: Vec::new(), arrived: Some(arrived) }
    }
}

impl ArrivedRuns {
    /// Whether messages of the run may have arrived of which nothing is told.
    fn may_hide(&self, run: &str) -> bool {
        let is_told = self.runs.iter().any(|told| told.run == run);
        !is_told && (self.unnamed_runs > 0 || self.forgotten.iter().any(|forgotten| forgotten == run))
    }

    fn new(ledger: &Ledger) -> ArrivedRuns {
        let StrayCounts { forged, malformed, unstamped, other_runs } = ledger.strays();
        let run = |(run, arrivals): &(u64, std::sync::Arc<super::ledger::Arrivals>)| {
            let Tally { duplicate, altered, altered_sequences, late, skewed, end_to_end } = arrivals.tally();
            ArrivedRun {
                run: run_name(*run),
                messages: arrivals.sequences().len(),
                duplicate,
                altered,
                altered_sequences,
                late,
                skewed,
                clock: if arrivals.is_of_this_process() { AuditClock::Monotonic } else { AuditClock::Wall },
                sequences: arrivals.sequences().encode(),
                end_to_end: end_to_end.encode(),
            }
        };
        ArrivedRuns {
            sink: run_name(ledger.id()),
            running: false,
            late_after_s: ledger.late_after().as_secs_f64(),
            forged,
            malformed,
            unstamped,
            other_runs,
            unnamed_runs: ledger.unnamed_runs(),
            forgotten: ledger.forgotten().into_iter().map(run_name).collect(),
            runs: ledger.runs().iter().map(run).collect(),
        }
    }
}

/// All that sinks know of one run.
#[derive(Default)]
struct OfRun {
    sequences: Sequences,
    tally: Tally,
    is_wall: bool,
}

/// Makes one account of several files, each with its name. What several sinks have seen of a run adds up: a message that has
/// arrived at two of them has one duplicate.
///
/// # Errors
///
/// Which file is not what was expected.
pub fn account(files: &[(String, AuditFile)]) -> Result<Account, JoinError> {
    let mut accepted: BTreeMap<&str, (&AcceptedRun, Sequences)> = BTreeMap::new();
    let mut arrived: BTreeMap<&str, OfRun> = BTreeMap::new();
    let mut sinks: BTreeMap<&str, &str> = BTreeMap::new();
    let mut strays = StrayCounts::default();
    let mut late_after = Duration::ZERO;
    for (name, file) in files {
        if file.timecop_audit != FILE_VERSION {
            return Err(JoinError::Version { name: name.clone(), got: file.timecop_audit });
        }
        let wrong = |run: &str, problem| JoinError::Run { name: name.clone(), run: run.to_owned(), problem };
        for run in &file.accepted {
            let sequences = Sequences::decode(&run.sequences).map_err(|problem| wrong(&run.run, problem))?;
            if accepted.insert(&run.run, (run, sequences)).is_some() {
                return Err(JoinError::Again { name: name.clone(), run: run.run.clone() });
            }
        }
        let Some(sink) = &file.arrived else { continue };
        if let Some(first) = sinks.insert(&sink.sink, name) {
            return Err(JoinError::SinkAgain { name: name.clone(), first: first.to_owned() });
        }
        strays.forged += sink.forged;
        strays.malformed += sink.malformed;
        strays.unstamped += sink.unstamped;
        strays.other_runs += sink.other_runs;
        let late = Duration::try_from_secs_f64(sink.late_after_s)
            .map_err(|error| wrong("-", format!("late_after_s: {error}")))?;
        late_after = late_after.max(late);
        for run in &sink.runs {
            let sequences = Sequences::decode(&run.sequences).map_err(|problem| wrong(&run.run, problem))?;
            let end_to_end = match &run.end_to_end {
                None => LatencyHistogram::new(Digits::Three),
                Some(text) => {
                    LatencyHistogram::decode(text, Digits::Three).map_err(|problem| wrong(&run.run, problem))?
                }
            };
            let all = arrived.entry(&run.run).or_default();
            let again = all.sequences.merge(&sequences);
            all.is_wall |= run.clock == AuditClock::Wall;
            all.tally.merge(&Tally {
                duplicate: run.duplicate + again,
                altered: run.altered,
                altered_sequences: run.altered_sequences.clone(),
                late: run.late,
                skewed: run.skewed,
                end_to_end,
            });
        }
    }
    if accepted.is_empty() {
        return Err(JoinError::OneSided("generator"));
    }
    if files.iter().all(|(_, file)| file.arrived.is_none()) {
        return Err(JoinError::OneSided("sink"));
    }
    let keeps_none = |run: &str| {
        let hides = |(_, file): &&(String, AuditFile)| file.arrived.as_ref().is_some_and(|sink| sink.may_hide(run));
        files.iter().find(hides).map(|(name, _)| name.clone())
    };
    let not_kept = |(name, (run, _)): (&&str, &(&AcceptedRun, Sequences))| {
        Some(NotKept { run: run.run.clone(), accepted: run.messages, file: keeps_none(name)? })
    };
    let not_kept: Vec<NotKept> = accepted.iter().filter_map(not_kept).collect();
    let kept = accepted.iter().filter(|(name, _)| keeps_none(name).is_none());
    let runs = kept.map(|(name, (run, sequences))| {
        let of_run = arrived.remove(name).unwrap_or_default();
        let clock = if of_run.is_wall { AuditClock::Wall } else { AuditClock::Monotonic };
        let side = Arrived { sequences: &of_run.sequences, tally: &of_run.tally, strays, late_after, clock };
        AuditReport {
            run: run.run.clone(),
            accepted: run.messages,
            untracked: run.untracked,
            arrivals: Some(join(sequences, &side)),
        }
    });
    let runs = runs.collect();
    let unknown_runs = arrived.into_keys().filter(|run| !accepted.contains_key(run)).map(str::to_owned).collect();
    let is_running = |file: &AuditFile| file.arrived.as_ref().is_some_and(|sink| sink.running);
    let running = files.iter().filter(|(_, file)| is_running(file)).map(|(name, _)| name.clone()).collect();
    Ok(Account { runs, not_kept, unknown_runs, running })
}
