//! The delivery audit: what `timecop hammer` and `timecop sink` are told of it, and `timecop audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::duration;
use crate::cli::StartError;
use crate::cli::output::JsonOutput;

/// Of `timecop hammer`.
#[derive(Debug, Args)]
pub(in crate::cli) struct HammerAuditArguments {
    /// Stamp each message, and put down which were accepted: with the embedded sink the report says what became of them.
    /// Towards a server it needs --audit-key, and a sink behind the server
    #[arg(long, help_heading = "Audit")]
    pub(in crate::cli) audit: bool,
    /// File with the key that stamps are signed with, 64 hexadecimal digits, the same as the sink's [default: a fresh one,
    /// for the embedded sink]; write one with: openssl rand -hex 32
    #[arg(long, value_name = "FILE", requires = "audit", help_heading = "Audit")]
    pub(in crate::cli) audit_key: Option<PathBuf>,
    /// Write which messages were accepted to this file, for `timecop audit`
    #[arg(long, value_name = "FILE", requires = "audit", help_heading = "Audit")]
    pub(in crate::cli) audit_report: Option<PathBuf>,
}

/// Of `timecop sink`.
#[derive(Debug, Args)]
pub(in crate::cli) struct SinkAuditArguments {
    /// Put down which messages arrive of generators with this key: a file with 64 hexadecimal digits
    #[arg(long, value_name = "FILE", requires = "audit_report", help_heading = "Audit")]
    pub(in crate::cli) audit_key: Option<PathBuf>,
    /// Where that goes every 5 s and at the end, for `timecop audit`
    #[arg(long, value_name = "FILE", requires = "audit_key", help_heading = "Audit")]
    pub(in crate::cli) audit_report: Option<PathBuf>,
    /// After how long an arrival counts as late
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s", help_heading = "Audit")]
    pub(in crate::cli) audit_late: Duration,
}

impl HammerAuditArguments {
    /// `--audit-report`, opened before anything is started.
    pub(in crate::cli) fn report(&self) -> Result<Option<JsonOutput>, StartError> {
        open(self.audit_report.as_ref())
    }
}

impl SinkAuditArguments {
    /// `--audit-report`, opened before anything is started.
    pub(in crate::cli) fn report(&self) -> Result<Option<JsonOutput>, StartError> {
        open(self.audit_report.as_ref())
    }
}

fn open(path: Option<&PathBuf>) -> Result<Option<JsonOutput>, StartError> {
    path.map(|path| JsonOutput::of_option("--audit-report", path)).transpose()
}

const AUDIT_EXAMPLES: &str = "\
Examples:
  openssl rand -hex 32 > audit.key
  timecop sink --listen 127.0.0.1:2525 --audit-key audit.key --audit-report arrived.json
      behind the relay that is tried; Ctrl-C ends it when nothing is on its way any more
  timecop hammer smtp://relay.example.com -m 100000 -c 50 --audit --audit-key audit.key --audit-report accepted.json
  timecop audit accepted.json arrived.json
      what the relay has taken responsibility for, and what it has delivered

Exit code: 0 all that was accepted has arrived, with the body that was sent; 1 something is missing or altered; 2 the
files cannot be read, or are not those of both sides; 3 a sink has forgotten a run: it keeps account of 16, and for another one
forgets the one that was longest without arrivals.";

/// `timecop audit`.
#[derive(Debug, Args)]
#[command(after_help = AUDIT_EXAMPLES)]
pub(in crate::cli) struct AuditArguments {
    /// Files of --audit-report: of at least one generator, and of the sinks where its mail arrives
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Print the account as one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}
