//! `timecop probe` and `timecop alert`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::job::ServiceArguments;
use super::value::duration;

const PROBE_EXAMPLES: &str = "\
Examples:
  timecop probe mailgun
      send one probe by the route of that name, wait for it, and show its legs and the servers on its way
  timecop probe mailgun --wait 30s --json
      give up waiting after 30 seconds; the probe as one JSON object

The service is that of --api, else of the environment's TIMECOP_API, else http://127.0.0.1:8025.
Exit code: 0 the probe arrived in time; 1 it was late, is lost, could not be sent, or was not waited for any longer;
2 the service refused or was not reached.";

/// `timecop probe`.
#[derive(Debug, Args)]
#[command(after_help = PROBE_EXAMPLES)]
pub(in crate::cli) struct ProbeArguments {
    /// The route: its name in the service's configuration
    pub(in crate::cli) name: String,
    /// How long to wait for its outcome [default: the route's time limit, and 5 s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) wait: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArguments,
}

const ALERT_EXAMPLES: &str = "\
Examples:
  timecop alert test --config /etc/timecop/timecop.toml
      send PagerDuty an event that begins an alert of severity info, and one that ends it; print both answers

Exit code: 0 both were taken; 1 one was not; 2 the configuration has faults or no [alert.pagerduty].";

/// `timecop alert`.
#[derive(Debug, Args)]
#[command(after_help = ALERT_EXAMPLES)]
pub(in crate::cli) struct AlertArguments {
    #[command(subcommand)]
    pub(in crate::cli) command: AlertCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AlertCommand {
    /// Send one alert and resolve it.
    Test(AlertTestArguments),
}

/// `timecop alert test`.
#[derive(Debug, Args)]
#[command(after_help = ALERT_EXAMPLES)]
pub(in crate::cli) struct AlertTestArguments {
    /// The service's configuration file, with [alert.pagerduty] in it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: PathBuf,
}
