//! The command line: arguments, then configuration, then start. No logic lives here.

use std::process::ExitCode;

fn main() -> ExitCode {
    timecop::cli::main()
}
