//! `timecop audit`, and what `timecop hammer` and `timecop sink` are told of audits.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

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
        return Err(wrong(&"it is empty; a sink and a generator write it when they end, so end them first (Ctrl-C)"));
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
        (arrivals.forged, "forged"),
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
            true => first.to_string(),
            false => format!("{first} to {last}"),
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
        let list: Vec<String> = arrivals.altered_sequences.iter().take(ranges_max).map(u64::to_string).collect();
        let more = if (list.len() as u64) < *altered { ", …" } else { "" };
        writeln!(out, "    altered    {}{more}", list.join(", "))?;
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
