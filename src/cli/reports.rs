//! `timecop compare` and `timecop merge`: what can be done with reports that were written before.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::args::{CompareArguments, MergeArguments, ServiceAddress};
use super::output::JsonOutput;
use super::{CANNOT_START, OK, StartError, job, output, report};
use crate::measure::compare::{self, Comparison, Difference, Finding};
use crate::measure::merge::{self, Named};
use crate::measure::report::Report;
use crate::measure::words::{rate, time};

/// Most octets of a file that are read: more than a report of a day's run has.
const REPORT_BYTES_MAX: u64 = 64 << 20;

/// `timecop compare`.
pub(super) fn compare(arguments: &CompareArguments) -> Result<u8, StartError> {
    let CompareArguments { reports, against, json, service } = arguments;
    let reports = read_all(reports, service)?;
    let against = read_all(against, service)?;
    let mut comparisons = Vec::new();
    match against.is_empty() {
        false => comparisons.push(compare::compare(&reports, &against).map_err(StartError::new)?),
        true => {
            let Some((first, others)) = reports.split_first().filter(|(_, others)| !others.is_empty()) else {
                let text = "expected at least two reports, or more of them behind --against, got one";
                return Err(StartError::new(text));
            };
            for other in others {
                let (a, b) = (std::slice::from_ref(first), std::slice::from_ref(other));
                comparisons.push(compare::compare(a, b).map_err(StartError::new)?);
            }
        }
    }
    if *json {
        // One object of one comparison, else a list of them.
        match &comparisons[..] {
            [one] => JsonOutput::StandardOutput.write(one),
            all => JsonOutput::StandardOutput.write(&all),
        }
        .map_err(StartError::new)?;
    } else {
        let text: String = comparisons.iter().map(render).collect();
        output::print(&text).map_err(StartError::new)?;
    }
    Ok(OK)
}

/// `timecop merge`.
pub(super) fn merge(arguments: &MergeArguments) -> Result<u8, StartError> {
    let MergeArguments { reports, output, quiet, service } = arguments;
    refuse_twice(reports)?;
    refuse_overwriting(output, reports)?;
    let output = JsonOutput::open(output)?;
    let merged = merge::merge(&read_all(reports, service)?).map_err(StartError::new)?;
    let shows = !quiet && !output.is_standard_output();
    let written = output.write(&merged).map_err(StartError::new)?;
    if shows {
        report::print(&merged).map_err(StartError::new)?;
    }
    Ok(if written { OK } else { CANNOT_START })
}

/// A part that the merged report takes the place of is lost, and would count twice the next time.
fn refuse_overwriting(output: &Path, reports: &[PathBuf]) -> Result<(), StartError> {
    let Some(real) = output.canonicalize().ok().filter(|real| real.is_file()) else { return Ok(()) };
    match reports.iter().find(|path| job_id(path).is_none() && path.canonicalize().is_ok_and(|path| path == real)) {
        Some(part) => {
            let text = format!("--output: expected a file that is not merged itself, got {}", part.display());
            Err(StartError::new(text + "; name another one"))
        }
        None => Ok(()),
    }
}

/// A file that is merged twice would count twice.
fn refuse_twice(paths: &[PathBuf]) -> Result<(), StartError> {
    let mut seen = BTreeSet::new();
    for path in paths {
        let named = match job_id(path) {
            Some(_) => path.clone(),
            // One that cannot be found is told of when it is read; what is no file, such as a pipe, is read as it comes.
            None => match path.canonicalize() {
                Ok(real) if real.is_file() => real,
                _ => continue,
            },
        };
        if !seen.insert(named) {
            return Err(StartError::new(format!("expected each report once, got {} twice", path.display())));
        }
    }
    Ok(())
}

fn read_all(paths: &[PathBuf], service: &ServiceAddress) -> Result<Vec<Named>, StartError> {
    let read = |path: &PathBuf| match job_id(path) {
        Some(id) => Ok((format!("job {id}"), job::result(service, id)?)),
        None => Ok((path.display().to_string(), read(path)?)),
    };
    paths.iter().map(read).collect()
}

/// The id of a job of the service: digits that are not the name of a file.
fn job_id(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    (!text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) && !path.exists()).then_some(text)
}

/// A report as `hammer --json` writes it, or inside of a job as the service shows it.
fn read(path: &Path) -> Result<Report, StartError> {
    #[derive(Deserialize)]
    struct Job {
        result: Report,
    }
    let wrong =
        |got: &dyn std::fmt::Display| StartError::new(format!("expected a report, got {}: {got}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    file.take(REPORT_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    if text.len() as u64 > REPORT_BYTES_MAX {
        return Err(wrong(&format_args!("more than {REPORT_BYTES_MAX} octets")));
    }
    serde_json::from_str(&text).or_else(|error| match serde_json::from_str::<Job>(&text) {
        Ok(job) => Ok(job.result),
        Err(_) => Err(wrong(&format_args!(
            "{error}; reports are what `timecop hammer --json` and `timecop job get --json` write"
        ))),
    })
}

fn render(comparison: &Comparison) -> String {
    let mut text = String::new();
    table(comparison, &mut text).expect("writing to a string does not fail");
    text
}

fn table(comparison: &Comparison, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nA  {}\nB  {}\n", comparison.a.join(", "), comparison.b.join(", "))?;
    writeln!(out, "  {:<8} {:>12} {:>12} {:>10}", "", "A", "B", "change")?;
    for difference in &comparison.differences {
        let Difference { metric, a, b, change, .. } = difference;
        let figure = |value: &Option<f64>| match value {
            Some(value) if *metric == "rate" => format!("{} /s", rate(*value)),
            Some(value) => time(*value),
            None => "-".to_owned(),
        };
        let change = change.map_or("-".to_owned(), |change| format!("{:+.1} %", change * 100.0));
        writeln!(out, "  {metric:<8} {:>12} {:>12} {change:>10}   {}", figure(a), figure(b), finding(difference))?;
    }
    writeln!(
        out,
        "\n  p is how often chance alone makes such a difference, by Welch's t-test over {}, corrected for the number of\n  \
         figures that are tested; below {} it is taken for one, if the 95 % intervals of a percentile do not overlap\n  \
         either. Percentiles are of response times.",
        comparison.values,
        compare::SIGNIFICANCE
    )?;
    for warning in &comparison.warnings {
        writeln!(out, "  warning: {warning}")?;
    }
    Ok(())
}

fn finding(difference: &Difference) -> String {
    let p = match difference.p_corrected {
        Some(p) if p < 0.001 => " (p < 0.001)".to_owned(),
        Some(p) => format!(" (p = {p:.3})"),
        None => String::new(),
    };
    match difference.finding {
        Finding::Different => format!("different{p}"),
        Finding::IntervalsApart => "intervals do not overlap".to_owned(),
        Finding::NotShown => format!("no difference shown{p}"),
        Finding::TooFew => "too few values to say".to_owned(),
    }
}
