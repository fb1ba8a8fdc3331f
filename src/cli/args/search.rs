//! `timecop search`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::http::HttpArguments;
use super::load::{GeneratorArguments, LoadArguments, TlsArguments};
use super::value::{duration, rate};
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
behind; where the generator was the limit, it is unknown. Conditions: p50, p90, p95, p99, p99.9, max, mean (response
times of accepted messages), failures, rate.
Exit code: 0 a rate was found; 1 none was, or the search was given up; 2 it could not start; 130 a second interrupt
ended it at once.";

/// `timecop search`.
#[derive(Debug, Args)]
#[command(after_help = SEARCH_EXAMPLES, allow_negative_numbers = true)]
pub(in crate::cli) struct SearchArguments {
    /// The server, as smtp://HOST[:PORT], or http://HOST[:PORT]/PATH
    #[arg(value_name = "TARGET")]
    pub(in crate::cli) target: String,
    /// What must be true of a trial that the target holds
    #[arg(long, value_name = "CONDITION[,CONDITION...]", value_parser = slo, help_heading = "Search")]
    pub(in crate::cli) slo: Slo,
    /// Messages a second of the first trial [default: 100]
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Search")]
    pub(in crate::cli) start_rate: Option<f64>,
    /// Never offer more than this, in messages a second
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Search")]
    pub(in crate::cli) max_rate: Option<f64>,
    /// Length of the trials that find the rate
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s", help_heading = "Search")]
    pub(in crate::cli) trial: Duration,
    /// Length of the trials that confirm it
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20s", help_heading = "Search")]
    pub(in crate::cli) confirm: Duration,
    /// How long the target rests between two trials
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s", help_heading = "Search")]
    pub(in crate::cli) cool_down: Duration,
    /// How close the rate that holds and the one that does not must come, at least 0.2%
    #[arg(long, value_name = "P%", value_parser = precision, default_value = "1%", help_heading = "Search")]
    pub(in crate::cli) precision: f64,
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

/// `--slo`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Slo(pub(in crate::cli) Vec<Threshold>);

fn slo(text: &str) -> Result<Slo, String> {
    let conditions = text.split(',').map(Threshold::parse).collect::<Result<_, _>>();
    conditions.map(Slo).map_err(|error| error.to_string())
}

fn precision(text: &str) -> Result<f64, String> {
    let share = text.strip_suffix('%').and_then(|percent| percent.parse::<f64>().ok()).map(|percent| percent / 100.0);
    share
        .filter(|share| (PRECISION_MIN..=1.0).contains(share))
        .ok_or_else(|| format!("expected 0.2% to 100%, got {text:?}"))
}
