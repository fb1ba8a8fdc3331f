//! `timecop job`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::http::FormArguments;
use super::load::{FailIfArguments, LoadArguments};
use super::search::{SearchOptions, Slo, slo};
use super::value::whole_number;

const JOB_EXAMPLES: &str = "\
Examples:
  timecop job run -m 100000 -c 50
      load the service's own sink; prints the job's id
  timecop job run smtp://127.0.0.1:2525 --rate 500 -d 1m --wait
      a URL that the service allows, or a target of its configuration by name; waits for the end
  timecop job run mailgun --type http --auth --option o:testmode=yes -m 1000
      a configured target with an API like Mailgun's; without a target, the service's own stub
  timecop job run smtp://127.0.0.1:2525 --search --slo 'p99<250ms,failures<0.1%' --wait
      the highest rate that the target holds, as timecop search finds it
  timecop job get 1 --json
  timecop job wait 1
      waits for the end of a job, and shows its result
  timecop job list
  timecop job stop 1

They ask POST /v1/hammer/job.run, job.get?id=ID, job.list and job.stop?id=ID, which curl can as well; GET /openapi.json
describes them, and so does docs/api.md.
The service is that of --api, else of the environment's TIMECOP_API, else http://127.0.0.1:8025.
Exit code: 0 done; 1 with wait or --wait, when not all messages were accepted, the job was given up, a condition of --fail-if is
true of its result, or its verdict is INVALID; 2 the service refused or was not reached.";

/// `timecop job`.
#[derive(Debug, Args)]
#[command(after_help = JOB_EXAMPLES)]
pub(in crate::cli) struct JobArguments {
    #[command(subcommand)]
    pub(in crate::cli) command: JobCommand,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum JobCommand {
    /// Start a job.
    Run(Box<JobRunArguments>),
    /// Show a job with its result so far.
    Get(JobIdArguments),
    /// Wait until a job has ended, and show its result.
    Wait(JobIdArguments),
    /// List all jobs that are kept, the newest first.
    List(ServiceArguments),
    /// Stop a job: no new messages, those in flight may end.
    Stop(JobIdArguments),
}

/// Which service is asked.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServiceAddress {
    /// The service's address
    #[arg(
        long,
        value_name = "URL",
        env = "TIMECOP_API",
        default_value = "http://127.0.0.1:8025",
        help_heading = "Service"
    )]
    pub(in crate::cli) api: String,
    /// File with the service's token
    #[arg(long, value_name = "FILE", env = "TIMECOP_TOKEN_FILE", help_heading = "Service")]
    pub(in crate::cli) token_file: Option<PathBuf>,
}

/// Which service is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(in crate::cli) struct ServiceArguments {
    #[command(flatten)]
    pub(in crate::cli) address: ServiceAddress,
    /// Print the service's answer as it is, one JSON object
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

/// `timecop job get`, `timecop job wait` and `timecop job stop`.
#[derive(Debug, Args)]
pub(in crate::cli) struct JobIdArguments {
    /// The job's id
    pub(in crate::cli) id: String,
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArguments,
}

/// `timecop job run`.
#[derive(Debug, Args)]
#[command(after_help = JOB_EXAMPLES, allow_negative_numbers = true)]
pub(in crate::cli) struct JobRunArguments {
    /// The server: a URL (mx://DOMAIN, too), or the name of a target in the service's configuration [default: the service's
    /// own sink]
    #[arg(value_name = "TARGET")]
    pub(in crate::cli) target: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) load: LoadArguments,
    #[command(flatten)]
    pub(in crate::cli) form: FormArguments,
    /// How connections are secured [default: as the target's URL says, here or in the configuration, else plain]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Load")]
    pub(in crate::cli) connection_type: Option<ConnectionTypeArgument>,
    /// Log in with the credentials that the configured target has
    #[arg(long, help_heading = "Load")]
    pub(in crate::cli) auth: bool,
    /// Believe any certificate, whoever shows it; the result says so. A configured target decides for itself
    #[arg(long, help_heading = "Load")]
    pub(in crate::cli) skip_verify: bool,
    /// Stamp each message, and hold what was accepted against what arrives at the service's own sink
    #[arg(long, help_heading = "Audit")]
    pub(in crate::cli) audit: bool,
    /// Shards of the service that are used [default: all]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>, help_heading = "Run")]
    pub(in crate::cli) shards: Option<usize>,
    /// Wait until the job has ended, and show its result
    #[arg(long, help_heading = "Run")]
    pub(in crate::cli) wait: bool,
    #[command(flatten)]
    pub(in crate::cli) fail_if: FailIfArguments,
    /// Search the highest rate that the target holds, in trials
    #[arg(long, requires = "slo", help_heading = "Search")]
    pub(in crate::cli) search: bool,
    /// What must be true of a trial that the target holds
    #[arg(long, value_name = "CONDITION[,CONDITION...]", value_parser = slo, requires = "search", help_heading = "Search")]
    pub(in crate::cli) slo: Option<Slo>,
    #[command(flatten)]
    pub(in crate::cli) search_options: SearchOptions,
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArguments,
}

/// `--connection-type`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ConnectionTypeArgument {
    /// No TLS
    Plain,
    /// TLS from the first byte
    Tls,
    /// TLS after STARTTLS
    Starttls,
}
