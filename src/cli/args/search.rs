//! `timecop search`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::http::HttpArguments;
use super::load::{GeneratorArguments, LoadArguments, TlsArguments};
use super::value::{duration, rate};
use crate::job::search::RawSearch;
use crate::load::search::PRECISION_MIN;
use crate::measure::threshold::Threshold;

const SEARCH_EXAMPLES: &str = "\
Examples:
  timecop search smtp://127.0.0.1:2525 --slo 'p99<250ms,failures<0.1%'
      the highest rate at which 99 % of messages take less than 250 ms and fewer than 1 in 1,000 fail
  timecop search smtp://127.0.0.1:2525 --slo 'p99<1s' --start-rate 1000 --trial 10s --confirm 2m --json result.json
      begin at 1,000 messages a second, with longer trials

A trial is an open loop. The rate is doubled until a trial fails, then the interval is bisected, then the result is
confirmed by long trials on both sides. A trial fails when a condition is not true of it, or when the target falls
behind, or when it accepts less than 99 % of the messages and no condition on failures says how many it may refuse; where
the generator was the limit, or a confirming trial has too few messages to tell a percentile, it is unknown. Conditions: p50, p90, p95, p99, p99.9, max, mean (response
times of accepted messages), failures, rate.
Exit code: 0 a rate was found; 1 none was, or the search was given up; 2 it could not start; 130 a second interrupt
ended it at once.";

/// `timecop search`.
#[derive(Debug, Args)]
#[command(
    after_help = SEARCH_EXAMPLES,
    allow_negative_numbers = true,
    // What the search decides is refused with a word on what decides it, and not offered.
    mut_arg("messages", |argument| argument.hide(true)),
    mut_arg("duration", |argument| argument.hide(true)),
    mut_arg("rate", |argument| argument.hide(true)),
    mut_arg("stages", |argument| argument.hide(true)),
    mut_arg("connections", |argument| argument.help("Connections [default: 100]")),
    mut_arg("arrival", |argument| argument.help("How messages are spaced [default: constant]")),
    mut_arg("warmup", |argument| argument.help(
        "The first part of each trial, as a time or a number of messages, which is left out of all figures"
    )),
    mut_arg("abort_on", |argument| argument.help(
        "Give a trial up, as one that was not held, when this is true of its last seconds, such as 'failures>5%' or \
         'p99>2s,window=10s,grace=5s'; repeatable"
    )),
)]
pub(in crate::cli) struct SearchArguments {
    /// The server, as smtp://HOST[:PORT], or http://HOST[:PORT]/PATH
    #[arg(value_name = "TARGET")]
    pub(in crate::cli) target: String,
    /// What must be true of a trial that the target holds
    #[arg(long, value_name = "CONDITION[,CONDITION...]", value_parser = slo, help_heading = "Search")]
    pub(in crate::cli) slo: Slo,
    #[command(flatten)]
    pub(in crate::cli) options: SearchOptions,
    #[command(flatten)]
    pub(in crate::cli) load: LoadArguments,
    #[command(flatten)]
    pub(in crate::cli) http: HttpArguments,
    #[command(flatten)]
    pub(in crate::cli) tls: TlsArguments,
    #[command(flatten)]
    pub(in crate::cli) generator: GeneratorArguments,
    /// Write the result as one JSON object to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    pub(in crate::cli) json: Option<PathBuf>,
    /// Neither progress nor trials nor result; errors still show
    #[arg(short, long, help_heading = "Output")]
    pub(in crate::cli) quiet: bool,
}

/// How a search goes on.
#[derive(Debug, Args)]
pub(in crate::cli) struct SearchOptions {
    /// Messages a second of the first trial [default: 100]
    #[arg(long, value_name = "N", value_parser = rate, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) start_rate: Option<f64>,
    /// Never offer more than this, in messages a second
    #[arg(long, value_name = "N", value_parser = rate, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) max_rate: Option<f64>,
    /// Length of the trials that find the rate [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) trial: Option<Duration>,
    /// Length of the trials that confirm it [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) confirm: Option<Duration>,
    /// How long the target rests between two trials [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) cool_down: Option<Duration>,
    /// How close the rate that holds and the one that does not must come, at least 0.2% [default: 1%]
    #[arg(long, value_name = "P%", value_parser = precision, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) precision: Option<f64>,
}

impl SearchOptions {
    /// With the conditions.
    pub(in crate::cli) fn with(self, Slo(slo): Slo) -> RawSearch {
        let SearchOptions { start_rate, max_rate, trial, confirm, cool_down, precision } = self;
        RawSearch { slo, start_rate, max_rate, trial, confirm, cool_down, precision }
    }
}

/// `--slo`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Slo(pub(in crate::cli) Vec<Threshold>);

pub(super) fn slo(text: &str) -> Result<Slo, String> {
    let conditions = text.split(',').map(Threshold::parse).collect::<Result<_, _>>();
    conditions.map(Slo).map_err(|error| error.to_string())
}

fn precision(text: &str) -> Result<f64, String> {
    let share = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok()).map(|percent| percent / 100.0);
    share
        .filter(|share| (PRECISION_MIN..=1.0).contains(share))
        .ok_or_else(|| format!("expected 0.2% to 100%, got {text:?}"))
}
