//! The arguments as they are written, command by command.

mod audit;
mod hammer;
mod http;
mod job;
mod load;
mod probe;
mod reports;
mod search;
mod service;
mod sink;
mod value;

use clap::{Parser, Subcommand};

pub(super) use self::audit::{AuditArguments, HammerAuditArguments, SinkAuditArguments};
pub(super) use self::hammer::HammerArguments;
pub(super) use self::http::HttpArguments;
pub(super) use self::job::{
    ConnectionTypeArgument, JobArguments, JobCommand, JobIdArguments, JobRunArguments, ServiceAddress, ServiceArguments,
};
pub(super) use self::load::{LoadArguments, PipeliningArgument, SizesArgument, Stages, TlsArguments};
pub(super) use self::probe::{AlertArguments, AlertCommand, AlertTestArguments, ProbeArguments};
pub(super) use self::reports::{CompareArguments, MergeArguments};
pub(super) use self::search::SearchArguments;
pub(super) use self::service::{CheckArguments, DoctorArguments, ServeArguments};
pub(super) use self::sink::SinkArguments;

/// How much mail a system can take, and how long it takes to arrive.
#[derive(Debug, Parser)]
#[command(name = "timecop", version, about, max_term_width = 110, propagate_version = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Load an SMTP server, and say how fast it took the mail and how long each message took.
    Hammer(Box<HammerArguments>),
    /// Search the highest rate that an SMTP server holds.
    Search(Box<SearchArguments>),
    /// Serve SMTP at high speed: accept everything, keep nothing, count all of it.
    Sink(Box<SinkArguments>),
    /// Serve the job API, with a sink of its own to be loaded, until a signal ends it.
    Serve(ServeArguments),
    /// Start, watch and stop jobs of a service.
    Job(JobArguments),
    /// Send a probe by a route of a service, and show how long its way was.
    Probe(ProbeArguments),
    /// Try whether alerts reach PagerDuty.
    Alert(AlertArguments),
    /// Check a configuration file, and say what is wrong with it.
    Check(CheckArguments),
    /// Compare reports: which differences are more than chance?
    Compare(CompareArguments),
    /// Merge the reports of several generators into one, exactly.
    Merge(MergeArguments),
    /// Hold what a generator was promised against what has arrived at sinks: what is missing, twice, altered or late?
    Audit(AuditArguments),
    /// Say whether this machine can run at full speed, and what mends it where it cannot.
    Doctor(DoctorArguments),
}
