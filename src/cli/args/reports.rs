//! `timecop compare` and `timecop merge`.

use std::path::PathBuf;

use clap::Args;

use super::job::ServiceAddress;

const COMPARE_EXAMPLES: &str = "\
Examples:
  timecop compare before.json after.json
      two runs; a third and more are compared with the first, too
  timecop compare before1.json before2.json before3.json --against after1.json after2.json after3.json
      repeated runs, of which each counts as one value: the most reliable comparison
  timecop compare 12 15 --api http://127.0.0.1:8025
      two jobs of a service, by their ids

Reports are what `timecop hammer --json FILE` and `timecop job get ID --json` write. A number that is no file's name is
the id of a job, whose result is asked of the service of --api.
Exit code: 0 they were compared, whatever came of it; 2 they could not be.";

/// `timecop compare`.
#[derive(Debug, Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(in crate::cli) struct CompareArguments {
    /// Reports, or ids of jobs; without --against, the first is compared with each of the others
    #[arg(value_name = "FILE|ID", required = true)]
    pub(in crate::cli) reports: Vec<PathBuf>,
    /// The other side: reports of runs that are to be compared with the first ones
    #[arg(long, value_name = "FILE|ID", num_args = 1..)]
    pub(in crate::cli) against: Vec<PathBuf>,
    /// Print the comparison as one JSON object, or as a list of them where there are several
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) service: ServiceAddress,
}

const MERGE_EXAMPLES: &str = "\
Examples:
  timecop merge east.json west.json -o both.json
      what two generators measured at the same time, as if one had
  timecop merge east.json 12 -o both.json
      the result of job 12 of the service of --api for one of them

A run that would count twice is refused: in two files, or by itself and in a merged report.
Exit code: 0 they were merged, whatever the verdict; 2 they could not be.";

/// `timecop merge`.
#[derive(Debug, Args)]
#[command(after_help = MERGE_EXAMPLES)]
pub(in crate::cli) struct MergeArguments {
    /// Reports, or ids of jobs, of generators that ran at the same time, with the same load model
    #[arg(value_name = "FILE|ID", required = true)]
    pub(in crate::cli) reports: Vec<PathBuf>,
    /// Where the merged report goes as one JSON object: a file, or - for standard output
    #[arg(short, long, value_name = "FILE|-", default_value = "-")]
    pub(in crate::cli) output: PathBuf,
    /// Do not print the merged report for people when the object goes to a file
    #[arg(short, long)]
    pub(in crate::cli) quiet: bool,
    #[command(flatten)]
    pub(in crate::cli) service: ServiceAddress,
}
