//! `timecop search`.

use std::io::Write as _;
use std::time::Duration;

use indicatif::HumanCount;

use super::args::SearchArguments;
use super::output::{JsonOutput, complain};
use super::{NOT_ALL_ACCEPTED, OK, StartError, check_machine, hammer, http, progress, resources, target, with_option};
use crate::control::hammer::HammerError;
use crate::control::search::{self, SearchEvent, SearchPlan};
use crate::control::signals;
use crate::job::search::{SearchReport, SearchResult, SearchSpec, Searching, TrialReport};
use crate::measure::words::time;
use crate::shard::machine::Needs;
use crate::shard::tls::ClientTls;

pub(super) fn run(arguments: SearchArguments) -> Result<u8, StartError> {
    let json = arguments.json.as_deref().map(JsonOutput::open).transpose()?;
    let quiet = arguments.quiet;
    let prints = !quiet && !json.as_ref().is_some_and(JsonOutput::is_standard_output);
    let plan = plan(arguments)?;
    let job = plan.searching.job();
    let shards = plan.cpus.len().min(job.connections as usize) as u32;
    check_machine(&Needs {
        shards,
        files_per_shard: job.connections.div_ceil(shards),
        same_target_connections: job.connections,
        accepted_connections: 0,
        is_loopback: job.target.address.ip().is_loopback(),
    })?;
    let stop = signals::stop_requests().map_err(StartError::new)?;
    if prints {
        let slo: Vec<String> = plan.searching.spec().slo.iter().map(ToString::to_string).collect();
        print(&head(&job.target.name, &slo, u64::from(job.connections), job.seed));
    }
    let mut bar = None;
    let report = search::run(plan, &stop, |event| match event {
        SearchEvent::Begins(spec) => bar = Some(progress::Bar::new(spec, quiet)),
        SearchEvent::Stands(now) => bar.iter().for_each(|bar| bar.show(now)),
        SearchEvent::Ended(trial) => {
            bar.take().iter().for_each(progress::Bar::finish);
            if prints {
                print(&line(trial));
            }
        }
    });
    let report = report.map_err(|error| match error {
        HammerError::Spec(error) => StartError::new(with_option(&error)),
        error => StartError::new(error),
    })?;
    let mut all_is_well = has_a_rate(&report);
    if let Some(json) = json {
        all_is_well &= hammer::written(json.write(&report));
    }
    if prints {
        print(&conclusion(&report));
    }
    if let Some(reason) = &report.aborted {
        complain(format_args!("error: the search was given up: {reason}"));
    }
    Ok(if all_is_well { OK } else { NOT_ALL_ACCEPTED })
}

/// What a search shows, it shows while it goes on. A reader who has seen enough does not end it.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn plan(arguments: SearchArguments) -> Result<SearchPlan, StartError> {
    let seed = arguments.load.seed.unwrap_or_else(|| rand::random::<u64>() >> 33);
    let target = target::resolve(&arguments.target, seed)?;
    let tls_files = hammer::tls_files(&arguments.tls)?;
    let may = resources::cpus("--cpus", arguments.generator.cpus.as_ref().map(|cpus| cpus.0.as_slice()))?;
    let usual = hammer::generator_cpus(&target, arguments.generator.cpus.is_some(), &may);
    let cpus = resources::shards("--shards", arguments.generator.shards, usual, &may)?;
    let wrong = |error| StartError::new(with_option(&error));
    let search = SearchSpec::new(arguments.options.with(arguments.slo)).map_err(wrong)?;
    let duration = arguments.load.duration;
    let raw = hammer::raw_spec(arguments.load, false)?;
    let mut raw = http::complete(raw, Some(&arguments.target), arguments.http)?;
    raw.skip_verify = arguments.tls.skip_verify.then_some(true);
    raw.resumption = arguments.tls.no_resumption.then_some(false);
    // Not the usual length of a run, of which nobody has said anything.
    raw.duration = duration;
    let searching = Searching::new(search, raw, &target, seed).map_err(wrong)?;
    let tls = ClientTls::of_job(searching.job(), &tls_files).map_err(wrong)?;
    Ok(SearchPlan { searching, tls, cpus, host: resources::host_name(), run_id: rand::random() })
}

fn head(target: &str, slo: &[String], connections: u64, seed: u64) -> String {
    format!(
        "\n{target}\nthe highest rate at which {}; {} connections, seed {seed}\n\n  {:>12} {:>7}  {:<11} {:>12} {:>9} {:>9} {:>9}\n",
        slo.join(" and "),
        HumanCount(connections),
        "a second",
        "for",
        "outcome",
        "accepted",
        "p50",
        "p99",
        "busy"
    )
}

/// A search as a service shows it: all of it at once.
pub(super) fn render(report: &SearchReport) -> String {
    let connections = report.spec["connections"].as_u64().unwrap_or(0);
    let mut text = head(&report.target, &report.slo, connections, report.seed);
    report.trials.iter().for_each(|trial| text += &line(trial));
    text += &conclusion(report);
    if let Some(reason) = &report.aborted {
        text += &format!("  given up: {reason}\n");
    }
    text
}

fn line(trial: &TrialReport) -> String {
    let mut text = format!(
        "  {:>12} {:>7}  {:<11} {:>10}/s {:>9} {:>9} {:>7.0} %{}\n",
        rate(trial.rate_per_s),
        humantime::format_duration(Duration::from_secs_f64(trial.duration_s)).to_string(),
        trial.outcome.name(),
        rate(trial.achieved_per_s),
        trial.p50.map_or("-".to_owned(), time),
        trial.p99.map_or("-".to_owned(), time),
        trial.busy * 100.0,
        if trial.confirms { "  (confirms)" } else { "" },
    );
    trial.reasons.iter().for_each(|reason| text += &format!("  {:>22} {reason}\n", ""));
    text
}

fn conclusion(report: &SearchReport) -> String {
    let held = report.rate_per_s.map_or(String::new(), rate);
    let above = report.not_held_per_s.map_or(String::new(), rate);
    let known = if held.is_empty() { String::new() } else { format!("; {held} a second was held so far") };
    let mut text = match (report.result, report.not_held_per_s) {
        (None, _) => format!("\n  the search goes on{known}\n"),
        (Some(SearchResult::Found), _) => {
            format!("\n  the target holds {held} messages a second, and not {above}\n")
        }
        (Some(SearchResult::AtLeast), Some(_)) => {
            format!("\n  the target holds at least {held} messages a second: at {above} the generator was the limit\n")
        }
        (Some(SearchResult::AtLeast), None) => {
            format!("\n  the target holds {held} messages a second, the most allowed\n")
        }
        (Some(SearchResult::None), _) => "\n  the target holds no rate that was tried\n".to_owned(),
        (Some(SearchResult::Unfinished), _) => format!("\n  the search has no result{known}\n"),
    };
    report.notes.iter().for_each(|note| text += &format!("  note: {note}\n"));
    text
}

/// How a search stands, in a line.
pub(super) fn stands(report: &SearchReport) -> String {
    let held = report.rate_per_s.map_or("nothing".to_owned(), rate);
    match report.trials.last() {
        Some(trial) => {
            let (number, asked) = (report.trials.len(), rate(trial.rate_per_s));
            format!("trial {number} at {asked} a second: {}; held so far: {held}", trial.outcome.name())
        }
        None => "the first trial begins".to_owned(),
    }
}

/// Whether it came to a rate.
pub(super) fn has_a_rate(report: &SearchReport) -> bool {
    matches!(report.result, Some(SearchResult::Found | SearchResult::AtLeast))
}

fn rate(per_second: f64) -> String {
    crate::measure::words::rate(per_second)
}
