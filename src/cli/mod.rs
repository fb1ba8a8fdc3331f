//! The command line: raw arguments, then resolved ones, then a start; and what people read.
//!
//! Exit codes: 0 all messages were accepted (or the command did what it was asked); 1 some were not, or the run was
//! given up; 2 it could not start; 130 a second interrupt ended it at once.

mod args;
mod doctor;
mod hammer;
mod output;
mod progress;
mod report;
mod resources;
mod sink;
mod target;

use std::process::ExitCode;

use clap::Parser as _;

use crate::shard::machine::{self, Needs};

/// Everything was accepted, or done.
pub const OK: u8 = 0;
/// Some messages were not accepted, or the run was given up.
pub const NOT_ALL_ACCEPTED: u8 = 1;
/// It could not start.
pub const CANNOT_START: u8 = 2;

/// Reads the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let arguments = args::Arguments::parse();
    // The hard limits are ours to use; whatever is checked later is checked against them.
    machine::raise_descriptor_limit();
    machine::raise_locked_memory_limit();
    let result = match arguments.command {
        args::Command::Doctor(arguments) => Ok(doctor::run(&arguments)),
        args::Command::Hammer(arguments) => hammer::run(*arguments),
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

/// The checks without which nothing would run, before anything is started.
fn check_machine(needs: &Needs) -> Result<(), StartError> {
    machine::check(needs).map_err(StartError::new)
}
