//! `timecop audit`, and what `timecop hammer` and `timecop sink` are told of audits.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::HumanCount;

use super::args::{AuditArguments, HammerAuditArguments, SinkAuditArguments};
use super::output::{JsonOutput, complain};
use super::{NOT_ALL_ACCEPTED, NOT_KEPT, OK, StartError, output, report};
use crate::audit::file::{self, Account, AuditFile, NotKept};
use crate::audit::ledger::{LATE_AFTER, Ledger, RUNS_MAX};
use crate::audit::sent::AuditPlan;
use crate::audit::stamp::{Key, Signer};
use crate::config;
use crate::measure::audit::{AuditArrivals, AuditReport};
use crate::measure::words::time;

/// Most octets of a file that are read: more than two full sets of numbers have that cannot be compressed.
const FILE_BYTES_MAX: u64 = 512 << 20;
/// How often a sink puts down what has arrived.
const KEPT_EVERY: Duration = Duration::from_secs(5);
/// What is much takes long to be written: at most one part in so many of the time goes into it.
const KEPT_SHARE: u32 = 20;
/// Ranges of missing messages that a run's report shows.
const RANGES_SHOWN: usize = 20;

/// What a run needs for its audit, if there is to be one: the embedded sink is told of it, too.
pub(super) fn of_hammer(arguments: &HammerAuditArguments, is_embedded: bool) -> Result<Option<AuditPlan>, StartError> {
    if !arguments.audit {
        return Ok(None);
    }
    let key = match &arguments.audit_key {
        Some(path) => key(path)?,
        None if is_embedded => Key::new(rand::random()),
        None => {
            let got = "--audit: expected --audit-key beside a target, since a sink must know the key, got none; write one \
                       with: openssl rand -hex 32";
            return Err(StartError::new(got));
        }
    };
    if !is_embedded && arguments.audit_report.is_none() {
        let got = "--audit: expected --audit-report beside a target, for `timecop audit` to hold against what arrives, got \
                   none; name a file, such as accepted.json";
        return Err(StartError::new(got));
    }
    let signer = Signer::new(&key);
    let ledger = is_embedded.then(|| Arc::new(Ledger::new(rand::random(), signer.clone(), LATE_AFTER, false)));
    Ok(Some(AuditPlan { signer, ledger }))
}

/// Where a sink puts down what arrives, if it is to.
pub(super) fn of_sink(arguments: &SinkAuditArguments) -> Result<Option<Arc<Ledger>>, StartError> {
    let Some(path) = &arguments.audit_key else { return Ok(None) };
    let signer = Signer::new(&key(path)?);
    Ok(Some(Arc::new(Ledger::new(rand::random(), signer, arguments.audit_late, true))))
}

/// Puts down what arrives at a sink while it runs, so that a crash costs the account its last seconds alone. The thread has
/// no CPU of its own, and the shards go on meanwhile.
pub(super) struct Keeper {
    end: Sender<()>,
    ledger: Arc<Ledger>,
    thread: JoinHandle<JsonOutput>,
}

impl Keeper {
    /// Begins; what is no file is written at the end only.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn start(mut output: JsonOutput, ledger: Arc<Ledger>) -> std::io::Result<Keeper> {
        let (end, ended) = mpsc::channel();
        let arrived = Arc::clone(&ledger);
        let thread = thread::Builder::new().name("timecop-audit".to_owned()).spawn(move || {
            let mut pause = KEPT_EVERY;
            while output.is_replaceable() && ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                if let Err(error) = output.replace(&AuditFile::of_running_sink(&arrived)) {
                    complain(format_args!(
                        "warning: --audit-report: cannot be written while the sink runs, and will be at its end: {error}"
                    ));
                    break;
                }
                pause = KEPT_EVERY.max(began.elapsed() * KEPT_SHARE);
            }
            output
        })?;
        Ok(Keeper { end, ledger, thread })
    }

    /// Writes it for the last time, and says whether it is where it was to be.
    pub(super) fn end(self) -> std::io::Result<bool> {
        let Keeper { end, ledger, thread } = self;
        drop(end);
        let mut output =
            thread.join().map_err(|_| std::io::Error::other("the thread that writes --audit-report failed"))?;
        let file = AuditFile::of_sink(&ledger);
        match output.is_replaceable() && output.replace(&file).is_ok() {
            true => Ok(true),
            false => output.write(&file),
        }
    }
}

fn key(path: &Path) -> Result<Key, StartError> {
    let (key, is_open) =
        config::audit_key(path).map_err(|problem| StartError::new(format!("--audit-key: {problem}")))?;
    if is_open {
        complain(format_args!("warning: --audit-key: everybody on this machine may read {}", path.display()));
    }
    Ok(key)
}

/// `timecop audit`.
pub(super) fn run(arguments: &AuditArguments) -> Result<u8, StartError> {
    let files = arguments.files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let account = file::account(&files).map_err(StartError::new)?;
    let is_faulty = account.runs.iter().any(AuditReport::is_faulty);
    match arguments.json {
        true => _ = JsonOutput::StandardOutput.write(&account).map_err(StartError::new)?,
        false => output::print(&render(&account)).map_err(StartError::new)?,
    }
    Ok(match account.not_kept.is_empty() {
        // What is known to be lost comes before what is not known.
        _ if is_faulty => NOT_ALL_ACCEPTED,
        true => OK,
        false => NOT_KEPT,
    })
}

fn read(path: &Path) -> Result<(String, AuditFile), StartError> {
    let name = path.display().to_string();
    let wrong = |got: &dyn std::fmt::Display| {
        StartError::new(format!("expected a file that --audit-report has written, got {name}: {got}"))
    };
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(&format_args!("more than {FILE_BYTES_MAX} octets")));
    }
    if text.is_empty() {
        return Err(wrong(
            &"it is empty; a generator writes it when it ends, and a sink every 5 s and when it ends, so end them \
                           first (Ctrl-C)",
        ));
    }
    let file = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    Ok((name, file))
}

fn render(account: &Account) -> String {
    let mut out = String::new();
    for report in &account.runs {
        writeln!(out, "\nrun {}\n", report.run).expect("writing to a string does not fail");
        section(report, usize::MAX, &mut out).expect("writing to a string does not fail");
    }
    for NotKept { run, accepted, file } in &account.not_kept {
        let accepted = HumanCount(*accepted);
        writeln!(
            out,
            "\nrun {run}\n\n  audit        {accepted} accepted; what of them has arrived is not known: {file} is of a sink that has\n               \
             no account of this run, since it keeps {RUNS_MAX} runs and forgets the one that was longest without arrivals\n    \
             remedy     begin the sink anew, with a file of its own, for at most {RUNS_MAX} runs, and send this one again"
        )
        .expect("writing to a string does not fail");
    }
    for file in &account.running {
        writeln!(
            out,
            "\n  note         the sink of {file} had not ended: it runs, or was killed; what has arrived since counts as missing here"
        )
        .expect("writing to a string does not fail");
    }
    if !account.unknown_runs.is_empty() {
        let runs = account.unknown_runs.join(", ");
        writeln!(out, "\n  note         no file says what was accepted of runs that have arrived: {runs}")
            .expect("writing to a string does not fail");
    }
    out
}

/// What is wrong with a run whose audit found something, in words.
pub(super) fn fault(audit: &AuditReport) -> String {
    let (missing, altered) = audit.arrivals.as_ref().map_or((0, 0), |arrivals| (arrivals.missing, arrivals.altered));
    format!("of the accepted messages {missing} have not arrived, and {altered} have arrived altered")
}

/// The audit in a run's report.
pub(super) fn of_report(audit: &AuditReport, out: &mut String) -> std::fmt::Result {
    writeln!(out)?;
    section(audit, RANGES_SHOWN, out)
}

fn section(audit: &AuditReport, ranges_max: usize, out: &mut String) -> std::fmt::Result {
    let count = |n: u64| HumanCount(n).to_string();
    let Some(arrivals) = &audit.arrivals else {
        return writeln!(
            out,
            "  audit        {} accepted and put down; `timecop audit` holds them against what has arrived",
            count(audit.accepted)
        );
    };
    let AuditArrivals { arrived, missing, duplicate, altered, late, .. } = arrivals;
    writeln!(
        out,
        "  audit        {} accepted: {} arrived, {} missing, {} duplicate, {} altered, {} late (over {})",
        count(audit.accepted),
        count(*arrived),
        count(*missing),
        count(*duplicate),
        count(*altered),
        count(*late),
        time(arrivals.late_after_s)
    )?;
    let others = [
        (arrivals.forged, "forged, or stamped with another key"),
        (arrivals.malformed, "malformed"),
        (arrivals.unstamped, "without a stamp"),
        (arrivals.other_runs, "of other runs"),
        (arrivals.unacknowledged, "arrived without a reply that says they were accepted"),
        (arrivals.skewed, "arrived before they were sent, by clocks that disagree"),
        (audit.untracked, "beyond those that are told apart"),
    ];
    for (number, what) in others.into_iter().filter(|(number, _)| *number > 0) {
        writeln!(out, "               {} {what}", count(number))?;
    }
    if !arrivals.missing_sequences.is_empty() {
        let shown = &arrivals.missing_sequences[..arrivals.missing_sequences.len().min(ranges_max)];
        let range = |&[first, last]: &[u64; 2]| match first == last {
            true => format!("{first} ({first:016x})"),
            false => format!("{first} to {last} ({first:016x} to {last:016x})"),
        };
        let named: u64 = shown.iter().map(|[first, last]| last - first + 1).sum();
        let ranges: Vec<String> = shown.iter().map(range).collect();
        write!(out, "    missing    {}", ranges.join(", "))?;
        match arrivals.missing - named {
            0 => writeln!(out)?,
            more => writeln!(out, ", and {} more", count(more))?,
        }
    }
    if !arrivals.altered_sequences.is_empty() {
        let list: Vec<String> =
            arrivals.altered_sequences.iter().take(ranges_max).map(|n| format!("{n} ({n:016x})")).collect();
        let more = if (list.len() as u64) < *altered { ", …" } else { "" };
        writeln!(out, "    altered    {}{more}", list.join(", "))?;
    }
    let first_missing = arrivals.missing_sequences.first().map(|[first, _]| first);
    if let Some(named) = first_missing.or(arrivals.altered_sequences.first()) {
        let run = &audit.run;
        writeln!(out, "    in logs    by Message-ID, which begins as in parentheses: grep {named:016x}.{run}")?;
    }
    if arrivals.forged > 0 && arrivals.missing > 0 {
        writeln!(
            out,
            "    note       {} arrived with stamps of another key, which may be those that are missing: give generator and sink\n               \
             the same --audit-key, and send again",
            count(arrivals.forged)
        )?;
    }
    if arrivals.end_to_end_s.count > 0 {
        report::table_head("end to end", out)?;
        report::table_row("arrival", &arrivals.end_to_end_s, out)?;
        writeln!(
            out,
            "  (from when content was written to when the sink had it all, by the {} clock)",
            arrivals.clock.name()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::join::{Arrived, join};
    use crate::audit::ledger::{StrayCounts, Tally};
    use crate::audit::sequences::Sequences;
    use crate::measure::audit::AuditClock;

    /// The section of a run of 40 messages, of which all but these have arrived.
    fn shown(missing: &[u64], forged: u64) -> String {
        let (accepted, arrived) = (Sequences::default(), Sequences::default());
        for sequence in 0..40 {
            accepted.insert(sequence);
            if !missing.contains(&sequence) {
                arrived.insert(sequence);
            }
        }
        let side = Arrived {
            sequences: &arrived,
            tally: &Tally::default(),
            strays: StrayCounts { forged, ..StrayCounts::default() },
            late_after: LATE_AFTER,
            clock: AuditClock::Wall,
        };
        let arrivals = Some(join(&accepted, &side));
        let mut out = String::new();
        section(
            &AuditReport { run: "00000000000000ab".to_owned(), accepted: 40, untracked: 0, arrivals },
            20,
            &mut out,
        )
        .unwrap();
        out
    }

    #[test]
    fn what_is_missing_is_named_as_it_stands_in_mail_logs() {
        let shown = shown(&[10, 31, 32], 0);
        let named = "    missing    10 (000000000000000a), 31 to 32 (000000000000001f to 0000000000000020)\n";
        assert!(shown.contains(named), "{shown}");
        assert!(shown.contains("grep 000000000000000a.00000000000000ab\n"), "{shown}");
        assert!(!shown.contains("another key"), "{shown}");
    }

    #[test]
    fn mail_that_was_stamped_with_another_key_is_said_to_have_come() {
        let all: Vec<u64> = (0..40).collect();
        let shown = shown(&all, 40);
        assert!(shown.contains("40 arrived with stamps of another key") && shown.contains("--audit-key"), "{shown}");
    }

    #[test]
    fn what_a_sink_puts_down_while_it_runs_is_whole_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("arrived"), folder.path().join("link"));
        std::fs::write(&path, "older").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let ledger = Arc::new(Ledger::new(7, Signer::new(&Key::new([1; 32])), LATE_AFTER, true));
        let mut output = JsonOutput::of_option("--audit-report", &link).unwrap();
        assert!(output.is_replaceable());
        output.replace(&AuditFile::of_running_sink(&ledger)).unwrap();
        let is_running = || read(&path).unwrap().1.arrived.unwrap().running;
        assert!(is_running());
        assert!(Keeper::start(output, ledger).unwrap().end().unwrap());
        assert!(!is_running());
        assert!(link.is_symlink());
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "nothing is left beside them");
    }
}
