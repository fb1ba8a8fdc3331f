//! `timecop serve`, and what looks at a configuration or a machine: `check` and `doctor`.

use std::path::PathBuf;

use clap::Args;

/// `timecop doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 timecop can run here, perhaps not at full speed; 2 it cannot.")]
pub(in crate::cli) struct DoctorArguments {
    /// Print the findings as one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  timecop check --config /etc/timecop/timecop.toml
      print every fault with its line, key and remedy, or else what the service would do; looks at the store's folder and
      file, too, and makes or changes neither
  timecop check --config timecop.toml --json
      the same as one JSON object, for scripts

Exit code: 0 the file is right; 2 it is not, or cannot be read.";

/// `timecop check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(in crate::cli) struct CheckArguments {
    /// The file, and with it the files of secrets and certificates that it names; nothing is started
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: PathBuf,
    /// Print what was found as one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  timecop serve
      the API on 127.0.0.1:8025, a sink on 127.0.0.1:2525 as the default target
  timecop serve --config timecop.toml
      as the file says; `timecop check --config timecop.toml` tries the file first

SIGTERM or Ctrl-C ends it: no new jobs, running ones drain for at most 10 seconds; a second one ends it at once.
SIGHUP reads targets, routes, limits and the certificate of [smtp] again.
Exit code: 0 it was told to end; 1 a shard failed, or its last jobs could not be stored; 2 it could not start;
130 a second signal ended it at once.";

/// `timecop serve`.
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(in crate::cli) struct ServeArguments {
    /// Configuration file; without it defaults hold
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
}
