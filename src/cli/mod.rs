//! The command line: raw arguments, then resolved ones, then a start; and what people read.
//!
//! Exit codes: 0 all messages were accepted (or the command did what it was asked); 1 some were not, or the run was
//! given up, is invalid, or failed by a condition of `--fail-if`; 2 it could not start; 130 a second interrupt ended it
//! at once.

mod alert;
mod args;
mod audit;
mod check;
mod client;
mod content;
mod doctor;
mod hammer;
mod http;
mod job;
mod output;
mod probe;
mod progress;
mod report;
mod reports;
mod resources;
mod search;
mod serve;
mod sink;
mod target;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config;
use crate::job::spec::SpecError;
use crate::shard::machine::{self, Needs};

/// Everything was accepted, or done.
pub const OK: u8 = 0;
/// Some messages were not accepted, or the run was given up.
pub const NOT_ALL_ACCEPTED: u8 = 1;
/// An audit cannot say what became of a run, since the sink has not kept it in account.
pub const NOT_KEPT: u8 = 3;
/// It could not start.
pub const CANNOT_START: u8 = 2;

/// Reads the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    // The hard limits are ours to use; whatever is checked later is checked against them.
    machine::raise_descriptor_limit();
    machine::raise_locked_memory_limit();
    let result = match arguments.command {
        args::Command::Check(arguments) => Ok(check::run(&arguments)),
        args::Command::Doctor(arguments) => Ok(doctor::run(&arguments)),
        args::Command::Serve(arguments) => serve::run(&arguments),
        args::Command::Job(arguments) => job::run(arguments),
        args::Command::Probe(arguments) => probe::run(&arguments),
        args::Command::Alert(arguments) => alert::run(&arguments),
        args::Command::Compare(arguments) => reports::compare(&arguments),
        args::Command::Audit(arguments) => audit::run(&arguments),
        args::Command::Merge(arguments) => reports::merge(&arguments),
        args::Command::Hammer(arguments) => hammer::run(*arguments),
        args::Command::Search(arguments) => search::run(*arguments),
        args::Command::Sink(arguments) => sink::run(*arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(format_args!("error: {error}"));
            ExitCode::from(CANNOT_START)
        }
    }
}

/// Why a command could not start: what is wrong, what was expected, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn new(text: impl std::fmt::Display) -> StartError {
        StartError(text.to_string())
    }
}

/// Reads certificates that an option names.
fn certificates(option: &str, path: &Path) -> Result<Vec<u8>, StartError> {
    config::certificates(path).map_err(|problem| StartError::new(format!("{option}: {problem}")))
}

/// Reads a private key that an option names.
fn private_key(option: &str, path: &Path) -> Result<Vec<u8>, StartError> {
    config::private_key(path).map_err(|problem| StartError::new(format!("{option}: {problem}")))
}

/// An error of the job in the words of the command line.
fn with_option(error: &SpecError) -> String {
    let option = match error.field {
        "recipients" => "--to".to_owned(),
        "source_addresses" => "--source-address".to_owned(),
        "options" => "--option".to_owned(),
        "resumption" => "--no-resumption".to_owned(),
        "target" => "TARGET".to_owned(),
        // Its values are options of their own.
        "search" => return search_option(&error.problem),
        field => format!("--{}", field.replace('_', "-")),
    };
    // The job's fields are spelt in backquotes where an error names another one.
    let mut words = String::with_capacity(error.problem.len());
    for (index, part) in error.problem.split('`').enumerate() {
        let is_field = index % 2 == 1 && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        match is_field {
            true => words += &format!("--{}", part.replace('_', "-")),
            false => words += part,
        }
    }
    format!("{option}: {words}")
}

/// A wrong value of a search, which begins with its name.
fn search_option(problem: &str) -> String {
    match problem.split_once(": ") {
        Some((name, problem)) => format!("--{}: {problem}", name.replace('_', "-")),
        None => problem.to_owned(),
    }
}

/// The checks without which nothing would run, before anything is started.
fn check_machine(needs: &Needs) -> Result<(), StartError> {
    machine::check(needs).map_err(StartError::new)
}
