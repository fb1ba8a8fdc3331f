//! `timecop search`.

use std::io::Write as _;
use std::time::Duration;

use indicatif::HumanCount;

use super::args::{LoadArguments, SearchArguments};
use super::output::{JsonOutput, complain};
use super::{NOT_ALL_ACCEPTED, OK, StartError, check_machine, hammer, http, progress, resources, target, with_option};
use crate::control::hammer::HammerError;
use crate::control::search::{self, SearchEvent, SearchPlan, SearchReport, SearchResult, TrialReport};
use crate::control::signals;
use crate::job::spec::JobSpec;
use crate::load::search::Outcome;
use crate::load::{Arrival, RATE_PER_S_MAX};
use crate::measure::words::time;
use crate::shard::machine::Needs;
use crate::shard::tls::ClientTls;

/// Where a search begins that is not told where, in messages a second.
const START_RATE: f64 = 100.0;

pub(super) fn run(arguments: SearchArguments) -> Result<u8, StartError> {
    let json = arguments.json.as_deref().map(JsonOutput::open).transpose()?;
    let quiet = arguments.quiet;
    let prints = !quiet && !json.as_ref().is_some_and(JsonOutput::is_standard_output);
    let plan = plan(arguments)?;
    let shards = plan.cpus.len().min(plan.spec.connections as usize) as u32;
    check_machine(&Needs {
        shards,
        files_per_shard: plan.spec.connections.div_ceil(shards),
        same_target_connections: plan.spec.connections,
        accepted_connections: 0,
        is_loopback: plan.spec.target.address.ip().is_loopback(),
    })?;
    let stop = signals::stop_requests().map_err(StartError::new)?;
    if prints {
        print(&head(&plan));
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
    let mut all_is_well = report.result == SearchResult::Found || report.result == SearchResult::AtLeast;
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
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn plan(arguments: SearchArguments) -> Result<SearchPlan, StartError> {
    refuse_what_the_search_decides(&arguments.load)?;
    let seed = arguments.load.seed.unwrap_or_else(|| rand::random::<u64>() >> 33);
    let target = target::resolve(&arguments.target, seed)?;
    let tls_files = hammer::tls_files(&arguments.tls)?;
    let may = resources::cpus("--cpus", arguments.generator.cpus.as_ref().map(|cpus| cpus.0.as_slice()))?;
    let usual = hammer::generator_cpus(&target, arguments.generator.cpus.is_some(), &may);
    let cpus = resources::shards("--shards", arguments.generator.shards, usual, &may)?;
    let start_rate = arguments.start_rate.unwrap_or(START_RATE);
    let rate_per_s_max = arguments.max_rate.unwrap_or(RATE_PER_S_MAX);
    if start_rate > rate_per_s_max {
        let problem = format!("--start-rate: expected at most --max-rate, {rate_per_s_max}, got {start_rate}");
        return Err(StartError::new(problem));
    }
    let raw = hammer::raw_spec(arguments.load, false)?;
    let mut raw = http::complete(raw, Some(&arguments.target), arguments.http)?;
    raw.skip_verify = arguments.tls.skip_verify.then_some(true);
    raw.resumption = arguments.tls.no_resumption.then_some(false);
    (raw.duration, raw.rate) = (Some(arguments.trial), Some(start_rate));
    // A Poisson schedule of 2 s at 1,000/s has 2,000 messages give or take 45: trials would differ by what they ask.
    raw.arrival = raw.arrival.or(Some(Arrival::Constant));
    let spec = |raw| JobSpec::new(raw, target.clone(), seed);
    let wrong = |error| StartError::new(with_option(&error));
    // The longer of the two lengths has to be a valid one, too.
    spec(crate::job::spec::RawSpec { duration: Some(arguments.confirm), ..raw.clone() }).map_err(wrong)?;
    let spec = spec(raw).map_err(wrong)?;
    let tls = ClientTls::of_job(&spec, &tls_files).map_err(wrong)?;
    Ok(SearchPlan {
        spec,
        tls,
        slo: arguments.slo.0,
        rate_per_s_max,
        precision: arguments.precision,
        trial: arguments.trial,
        confirm: arguments.confirm,
        cool_down: arguments.cool_down,
        cpus,
        host: resources::host_name(),
        run_id: rand::random(),
    })
}

fn refuse_what_the_search_decides(load: &LoadArguments) -> Result<(), StartError> {
    let said = [
        ("--rate", load.rate.is_some(), "the search chooses it; --start-rate says where it begins"),
        ("--stages", load.stages.is_some(), "the search chooses the rate; --start-rate says where it begins"),
        ("--messages", load.messages.is_some(), "--trial and --confirm say how long trials last"),
        ("--duration", load.duration.is_some(), "--trial and --confirm say how long trials last"),
    ];
    match said.into_iter().find(|(_, said, _)| *said) {
        Some((option, _, instead)) => Err(StartError::new(format!("{option}: expected none in a search: {instead}"))),
        None => Ok(()),
    }
}

fn head(plan: &SearchPlan) -> String {
    let slo: Vec<String> = plan.slo.iter().map(ToString::to_string).collect();
    let JobSpec { target, connections, seed, .. } = &plan.spec;
    format!(
        "\n{}\nthe highest rate at which {}; {} connections, seed {seed}\n\n  {:>12} {:>7}  {:<8} {:>12} {:>9} {:>9} {:>9}\n",
        target.name,
        slo.join(" and "),
        HumanCount(u64::from(*connections)),
        "a second",
        "for",
        "outcome",
        "accepted",
        "p50",
        "p99",
        "busy"
    )
}

fn line(trial: &TrialReport) -> String {
    let outcome = match trial.outcome {
        Outcome::Held => "held",
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
    };
    let mut text = format!(
        "  {:>12} {:>7}  {outcome:<8} {:>10}/s {:>9} {:>9} {:>7.0} %{}\n",
        rate(trial.rate_per_s),
        humantime::format_duration(Duration::from_secs_f64(trial.duration_s)).to_string(),
        rate(trial.achieved_per_s),
        time(trial.p50),
        time(trial.p99),
        trial.busy * 100.0,
        if trial.confirms { "  (confirms)" } else { "" },
    );
    trial.reasons.iter().for_each(|reason| text += &format!("  {:>22} {reason}\n", ""));
    text
}

fn conclusion(report: &SearchReport) -> String {
    let held = report.rate_per_s.map_or(String::new(), rate);
    let above = report.not_held_per_s.map_or(String::new(), rate);
    match (report.result, report.not_held_per_s) {
        (SearchResult::Found, _) => {
            format!("\n  the target holds {held} messages a second, and not {above}\n")
        }
        (SearchResult::AtLeast, Some(_)) => {
            format!("\n  the target holds at least {held} messages a second: at {above} the generator was the limit\n")
        }
        (SearchResult::AtLeast, None) => format!("\n  the target holds {held} messages a second, the most allowed\n"),
        (SearchResult::None, _) => "\n  the target holds no rate that was tried\n".to_owned(),
        (SearchResult::Unfinished, _) => {
            let known = if held.is_empty() { String::new() } else { format!("; {held} a second was held so far") };
            format!("\n  the search has no result{known}\n")
        }
    }
}

fn rate(per_second: f64) -> String {
    crate::measure::words::rate(per_second)
}
