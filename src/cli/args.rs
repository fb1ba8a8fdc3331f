//! The arguments as they are written.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control::sink::Listen;
use crate::load::search::PRECISION_MIN;
use crate::load::stages::Stage;
use crate::load::warmup::Warmup;
use crate::load::{self, Arrival, RATE_PER_S_MAX};
use crate::measure::abort::AbortRule;
use crate::measure::threshold::Threshold;
use crate::shard::placement;
use crate::sink::{Capacity, PhaseDelay, PhaseDrop, PhaseReply, Stall};

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
    /// Check a configuration file, and say what is wrong with it.
    Check(CheckArguments),
    /// Compare reports: which differences are more than chance?
    Compare(CompareArguments),
    /// Merge the reports of several generators into one, exactly.
    Merge(MergeArguments),
    /// Say whether this machine can run at full speed, and what mends it where it cannot.
    Doctor(DoctorArguments),
}

const COMPARE_EXAMPLES: &str = "\
Examples:
  timecop compare before.json after.json
      two runs; a third and more are compared with the first, too
  timecop compare before1.json before2.json before3.json --against after1.json after2.json after3.json
      repeated runs, of which each counts as one value: the most reliable comparison

Reports are what `timecop hammer --json FILE` and `timecop job get ID --json` write.
Exit code: 0 they were compared, whatever came of it; 2 they could not be.";

/// `timecop compare`.
#[derive(Debug, Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(super) struct CompareArguments {
    /// Reports; without --against, the first is compared with each of the others
    #[arg(value_name = "FILE", required = true)]
    pub(super) reports: Vec<PathBuf>,
    /// The other side: reports of runs that are to be compared with the first ones
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(super) against: Vec<PathBuf>,
    /// Print the comparison as one JSON object, or as a list of them where there are several
    #[arg(long)]
    pub(super) json: bool,
}

const MERGE_EXAMPLES: &str = "\
Examples:
  timecop merge east.json west.json -o both.json
      what two generators measured at the same time, as if one had

Exit code: 0 they were merged, whatever the verdict; 2 they could not be.";

/// `timecop merge`.
#[derive(Debug, Args)]
#[command(after_help = MERGE_EXAMPLES)]
pub(super) struct MergeArguments {
    /// Reports of generators that ran at the same time, with the same load model
    #[arg(value_name = "FILE", required = true)]
    pub(super) reports: Vec<PathBuf>,
    /// Where the merged report goes as one JSON object: a file, or - for standard output
    #[arg(short, long, value_name = "FILE|-", default_value = "-")]
    pub(super) output: PathBuf,
    /// Do not print the merged report for people when the object goes to a file
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// `timecop doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 timecop can run here, perhaps not at full speed; 2 it cannot.")]
pub(super) struct DoctorArguments {
    /// Print the findings as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  timecop check --config /etc/timecop/timecop.toml
      print every fault with its line, key and remedy, or else what the service would do
  timecop check --config timecop.toml --json
      the same as one JSON object, for scripts

Exit code: 0 the file is right; 2 it is not, or cannot be read.";

/// `timecop check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(super) struct CheckArguments {
    /// The file, and with it the files of secrets and certificates that it names; nothing is started
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Print what was found as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

const HAMMER_EXAMPLES: &str = "\
Examples:
  timecop hammer
      load an embedded sink for 10 seconds: what can this machine generate?
  timecop hammer smtp://127.0.0.1:2525 -m 200000 -c 100
      200,000 messages over 100 connections, as fast as the server takes them (closed loop)
  timecop hammer smtp://127.0.0.1:2525 --rate 5000 -d 1m
      5,000 messages a second for a minute, whatever the server does (open loop, Poisson arrivals)
  timecop hammer smtp://127.0.0.1:2525 --stages 1m@1000,5m@1000,1m@0
      up to 1,000 messages a second in a minute, five minutes there, down again
  timecop hammer smtp://127.0.0.1:2525 -m 1000 --messages-per-connection 1 --json - --quiet
      a connection a message, the result as one JSON object on standard output
  timecop hammer smtps://mail.example.com -m 100 --ca-file ca.pem
      TLS from the first byte, for a server whose certificate this issuer has signed
  timecop hammer smtp+starttls://127.0.0.1:2525 -d 10s -c 50 --skip-verify
      STARTTLS, for a sink with a certificate of its own making
  timecop hammer smtps://mail.example.com -m 100 --user joe --password-file joe.password
      log in before mail is sent
  timecop hammer smtp://127.0.0.1:2525 --rate 500 -d 1m --fail-if 'p99>300ms' --fail-if 'failures>0.1%'
      a test that fails when the server is too slow

Exit code: 0 all messages were accepted; 1 some were not, the run was given up, a condition of --fail-if is true of
it, or its verdict is INVALID; 2 it could not start; 130 a second interrupt ended it at once.";

#[derive(Debug, Args)]
#[command(after_help = HAMMER_EXAMPLES, allow_negative_numbers = true)]
pub(super) struct HammerArguments {
    /// The server, as smtp://HOST[:PORT], smtps:// (TLS), smtp+starttls://, or mx://DOMAIN for the domain's most preferred
    /// mail exchanger; without it a sink on loopback is started and loaded
    #[arg(value_name = "TARGET")]
    pub(super) target: Option<String>,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    #[command(flatten)]
    pub(super) tls: TlsArguments,
    /// Log in (AUTH) as this user, by the best of PLAIN, LOGIN and CRAM-MD5 that the server offers; the password is that of
    /// --password-file, or of the environment's TIMECOP_PASSWORD
    #[arg(long, value_name = "NAME", requires = "target", help_heading = "Login")]
    pub(super) user: Option<String>,
    /// File with the user's password, one line
    #[arg(long, value_name = "FILE", requires = "user", help_heading = "Login")]
    pub(super) password_file: Option<PathBuf>,
    /// Address of this machine that connections come from; repeat it for more, which take turns [default: the system
    /// chooses]
    #[arg(long, value_name = "IP", value_parser = ip_address, help_heading = "Run")]
    pub(super) source_address: Vec<IpAddr>,
    #[command(flatten)]
    pub(super) generator: GeneratorArguments,
    /// Write the result as one JSON object to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// Neither progress nor report; errors still show
    #[arg(short, long, help_heading = "Output")]
    pub(super) quiet: bool,
    #[command(flatten)]
    pub(super) fail_if: FailIfArguments,
}

/// What makes a result a failure.
#[derive(Debug, Args)]
pub(super) struct FailIfArguments {
    /// Exit with 1 when this is true of the result, such as 'p99>300ms', 'failures>0.1%' or 'rate<1000'; repeatable.
    /// Of p50, p90, p95, p99, p99.9, max and mean (response times of accepted messages), failures and rate
    #[arg(long = "fail-if", value_name = "CONDITION", value_parser = Threshold::parse, help_heading = "Output")]
    pub(super) conditions: Vec<Threshold>,
}

/// What generates.
#[derive(Debug, Args)]
pub(super) struct GeneratorArguments {
    /// Shards: threads that generate, each on a CPU of its own [default: half of the CPUs towards this machine, else
    /// all but one]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>, help_heading = "Run")]
    pub(super) shards: Option<usize>,
    /// CPUs that the shards may run on, such as 0,2-5
    #[arg(long, value_name = "LIST", value_parser = cpus, help_heading = "Run")]
    pub(super) cpus: Option<Cpus>,
}

/// TLS towards a target that is secured.
#[derive(Debug, Args)]
pub(super) struct TlsArguments {
    /// Issuers of certificates (PEM) that are trusted, in place of the system's
    #[arg(long, value_name = "FILE.pem", help_heading = "TLS")]
    pub(super) ca_file: Option<PathBuf>,
    /// Believe any certificate, whoever shows it; the report says so
    #[arg(long, help_heading = "TLS")]
    pub(super) skip_verify: bool,
    /// A full TLS handshake for every connection
    #[arg(long, help_heading = "TLS")]
    pub(super) no_resumption: bool,
    /// The certificate (PEM) to show to a server that asks for one
    #[arg(long, value_name = "FILE.pem", requires = "client_key", help_heading = "TLS")]
    pub(super) client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE.pem", requires = "client_cert", help_heading = "TLS")]
    pub(super) client_key: Option<PathBuf>,
}

/// What is sent, and when: the same for a job of this process and for one of a service.
#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// Number of messages
    #[arg(short, long, value_name = "N", value_parser = whole_number::<u64>, conflicts_with = "duration", help_heading = "Load")]
    pub(super) messages: Option<u64>,
    /// How long new messages are sent [default: 10s for hammer, unless -m is given]
    #[arg(short, long, value_name = "TIME", value_parser = duration, help_heading = "Load")]
    pub(super) duration: Option<Duration>,
    /// Connections [default: 1; 100 with --rate, and for hammer with the embedded sink]
    #[arg(short, long, value_name = "N", value_parser = whole_number::<u32>, help_heading = "Load")]
    pub(super) connections: Option<u32>,
    /// Messages a second: open loop, they are due whatever the server does. The schedule begins half a second after the
    /// connections are dialled, and 100 us more for each of them
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Load")]
    pub(super) rate: Option<f64>,
    /// Linear ramps of the rate, as in 1m@1000,5m@5000: from --rate, or from 0, to 1,000 messages a second in a minute,
    /// then to 5,000 in five; 5m@5000 after 0s@5000 jumps there and stays; open loop, ends with the last stage
    #[arg(long, value_name = "TIME@RATE[,...]", value_parser = stages, conflicts_with_all = ["messages", "duration"], help_heading = "Load")]
    pub(super) stages: Option<Stages>,
    /// How the messages of an open loop are spaced [default: poisson]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Load")]
    pub(super) arrival: Option<ArrivalArgument>,
    /// The first part of the run, as a time or a number of messages, which is left out of all figures and shown apart:
    /// -d 60s --warmup 10s measures 50 s
    #[arg(long, value_name = "TIME|N", help_heading = "Load")]
    pub(super) warmup: Option<Warmup>,
    /// Messages after which a connection is closed and opened anew [default: unlimited]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, help_heading = "Load")]
    pub(super) messages_per_connection: Option<u64>,
    /// Size of each generated message in octets, headers included, exactly [default: 1024]
    #[arg(short = 's', long, value_name = "BYTES", value_parser = whole_number::<u64>, conflicts_with = "body", help_heading = "Message")]
    pub(super) msg_size: Option<u64>,
    /// A message to send instead, header and body; each copy gets a Date and a Message-ID of its own
    #[arg(long, value_name = "FILE.eml", help_heading = "Message")]
    pub(super) body: Option<PathBuf>,
    /// Envelope sender, "" for the null sender [default: timecop@example.com]
    #[arg(long, value_name = "ADDRESS", help_heading = "Message")]
    pub(super) from: Option<String>,
    /// Envelope recipient; repeat it for more, which take turns [default: load@example.com]
    #[arg(long, value_name = "ADDRESS", help_heading = "Message")]
    pub(super) to: Vec<String>,
    /// Recipients of one message [default: 1]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>, help_heading = "Message")]
    pub(super) recipients_per_message: Option<u32>,
    /// Whether SMTP PIPELINING is used where the server offers it
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = "Message")]
    pub(super) pipelining: PipeliningArgument,
    /// Time limit of each reply and of the connect; 0s for those of RFC 5321 [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Message")]
    pub(super) timeout: Option<Duration>,
    /// Give the run up when this is true of the last seconds, such as 'failures>5%' or 'p99>2s,window=10s,grace=5s': of
    /// 10 whole seconds after the first 5, unless it says otherwise; repeatable
    #[arg(long, value_name = "CONDITION[,window=TIME][,grace=TIME]", value_parser = AbortRule::parse, help_heading = "Run")]
    pub(super) abort_on: Vec<AbortRule>,
    /// Repeats sizes, recipients, arrivals and content of an earlier run [default: a fresh one, which is reported]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, help_heading = "Run")]
    pub(super) seed: Option<u64>,
}

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
pub(super) struct SearchArguments {
    /// The server, as smtp://HOST[:PORT]
    #[arg(value_name = "TARGET")]
    pub(super) target: String,
    /// What must be true of a trial that the target holds
    #[arg(long, value_name = "CONDITION[,CONDITION...]", value_parser = slo, help_heading = "Search")]
    pub(super) slo: Slo,
    /// Messages a second of the first trial [default: 100]
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Search")]
    pub(super) start_rate: Option<f64>,
    /// Never offer more than this, in messages a second
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Search")]
    pub(super) max_rate: Option<f64>,
    /// Length of the trials that find the rate
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s", help_heading = "Search")]
    pub(super) trial: Duration,
    /// Length of the trials that confirm it
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20s", help_heading = "Search")]
    pub(super) confirm: Duration,
    /// How long the target rests between two trials
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s", help_heading = "Search")]
    pub(super) cool_down: Duration,
    /// How close the rate that holds and the one that does not must come, at least 0.2%
    #[arg(long, value_name = "P%", value_parser = precision, default_value = "1%", help_heading = "Search")]
    pub(super) precision: f64,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    #[command(flatten)]
    pub(super) tls: TlsArguments,
    #[command(flatten)]
    pub(super) generator: GeneratorArguments,
    /// Write the result as one JSON object to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// Neither progress nor trials nor result; errors still show
    #[arg(short, long, help_heading = "Output")]
    pub(super) quiet: bool,
}

/// `--stages`.
#[derive(Clone, Debug)]
pub(super) struct Stages(pub(super) Vec<Stage>);

fn stages(text: &str) -> Result<Stages, String> {
    load::stages::parse(text).map(Stages).map_err(|error| error.to_string())
}

/// `--slo`.
#[derive(Clone, Debug)]
pub(super) struct Slo(pub(super) Vec<Threshold>);

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

const SINK_EXAMPLES: &str = "\
Examples:
  timecop sink --listen 127.0.0.1:2525
      accept all mail at full speed; Ctrl-C ends it and prints what arrived
  timecop sink --listen 127.0.0.1:2525 --delay final=exp:10ms --reply rcpt=451,5%
      accept messages after 10 ms on average, and defer one recipient in twenty
  timecop sink --listen 127.0.0.1:2525 --capacity 5000/s
      accept 5,000 messages a second and let the others wait, so that a search has something known to find
  timecop sink --listen 127.0.0.1:2525 --save /tmp/mail
      write each message to a file, to look at it
  timecop sink --listen smtps://127.0.0.1:4465 --tls-cert cert.pem --tls-key key.pem
      TLS from the first byte, with this certificate

PHASE is one of banner, ehlo, starttls, auth, mail, rcpt, data, final (the reply to the message).
Exit code: 0 it was told to end; 1 its counts could not be written; 2 it could not start.";

#[derive(Debug, Args)]
#[command(after_help = SINK_EXAMPLES, allow_negative_numbers = true)]
pub(super) struct SinkArguments {
    /// Where to listen, in the clear with STARTTLS on offer, or with TLS from the first byte as smtps://ADDR:PORT; repeat
    /// it for more; port 0 takes a free one [default: 127.0.0.1:2525]
    #[arg(long, value_name = "[smtps://]ADDR:PORT", value_parser = listen)]
    pub(super) listen: Vec<Listen>,
    /// Name in the greeting [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub(super) hostname: Option<String>,
    /// Largest message that is taken, in octets
    #[arg(long, value_name = "BYTES", value_parser = whole_number::<u64>, default_value_t = 50 << 20)]
    pub(super) max_size: u64,
    /// The certificate (PEM), and those that lead to its issuer [default: a fresh one that nobody has signed but itself]
    #[arg(long, value_name = "FILE.pem", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE.pem", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Do not offer STARTTLS
    #[arg(long)]
    pub(super) no_starttls: bool,
    /// Take mail from these users only, once they have logged in (AUTH), which they can under TLS alone: lines user:password
    #[arg(long, value_name = "FILE")]
    pub(super) auth_file: Option<PathBuf>,
    /// Take mail for this domain, and none for domains not named; repeat it for more [default: all domains]
    #[arg(long, value_name = "DOMAIN")]
    pub(super) accept_domain: Vec<String>,
    /// Write each message as it was received, without dot-stuffing, to a file in this folder; for looking, not for speed
    #[arg(long, value_name = "DIR")]
    pub(super) save: Option<PathBuf>,
    /// Shards: threads that serve, each on a CPU of its own [default: half of the CPUs]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>)]
    pub(super) shards: Option<usize>,
    /// CPUs that the shards may run on, such as 0,2-5
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub(super) cpus: Option<Cpus>,
    /// Where the counts go at the end: a file, or - for standard output
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    pub(super) json: PathBuf,
    /// Accept so many messages a second over all shards, one after the other; the others wait in line. Where MESSAGES
    /// wait already, one more is answered 452
    #[arg(long, value_name = "RATE/s[,queue=MESSAGES]", help_heading = "Faults")]
    pub(super) capacity: Option<Capacity>,
    /// Hold the reply of a phase back: for a fixed time, or exponentially with this mean; repeatable
    #[arg(long, value_name = "PHASE=[exp:]TIME", help_heading = "Faults")]
    pub(super) delay: Vec<PhaseDelay>,
    /// Answer a phase with this code, always or with this probability, and with this text; repeatable
    #[arg(long, value_name = "PHASE=CODE[,P%[,TEXT]]", help_heading = "Faults")]
    pub(super) reply: Vec<PhaseReply>,
    /// Drop the connection instead of answering a phase; repeatable
    #[arg(long, value_name = "PHASE=P%", help_heading = "Faults")]
    pub(super) drop: Vec<PhaseDrop>,
    /// Do not offer PIPELINING
    #[arg(long, help_heading = "Faults")]
    pub(super) no_pipelining: bool,
    /// Answer nothing for a time, beginning so long after the start, as in 1s@5s
    #[arg(long, value_name = "TIME@AFTER", help_heading = "Faults")]
    pub(super) stall: Option<Stall>,
    /// Repeats the rolls of the faults
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, default_value_t = 1, help_heading = "Faults")]
    pub(super) seed: u64,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  timecop serve
      the API on 127.0.0.1:8025, a sink on 127.0.0.1:2525 as the default target
  timecop serve --config timecop.toml
      as the file says; `timecop check --config timecop.toml` tries the file first

SIGTERM or Ctrl-C ends it: no new jobs, running ones drain for at most 10 seconds; a second one ends it at once.
SIGHUP reads targets and limits again.
Exit code: 0 it was told to end; 1 a shard failed, or its last jobs could not be stored; 2 it could not start;
130 a second signal ended it at once.";

/// `timecop serve`.
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub(super) struct ServeArguments {
    /// Configuration file; without it defaults hold
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

const JOB_EXAMPLES: &str = "\
Examples:
  timecop job run -m 100000 -c 50
      load the service's own sink; prints the job's id
  timecop job run smtp://127.0.0.1:2525 --rate 500 -d 1m --wait
      a URL that the service allows, or a target of its configuration by name; waits for the end
  timecop job get 1 --json
  timecop job list
  timecop job stop 1

The service is that of --api, else of the environment's TIMECOP_API, else http://127.0.0.1:8025.
Exit code: 0 done; 1 with --wait, when not all messages were accepted, the job was given up, a condition of --fail-if is
true of its result, or its verdict is INVALID; 2 the service refused or was not reached.";

/// `timecop job`.
#[derive(Debug, Args)]
#[command(after_help = JOB_EXAMPLES)]
pub(super) struct JobArguments {
    #[command(subcommand)]
    pub(super) command: JobCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// Start a job.
    Run(Box<JobRunArguments>),
    /// Show a job with its result so far.
    Get(JobIdArguments),
    /// List all jobs that are kept, the newest first.
    List(ServiceArguments),
    /// Stop a job: no new messages, those in flight may end.
    Stop(JobIdArguments),
}

/// Which service is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub(super) struct ServiceArguments {
    /// The service's address
    #[arg(
        long,
        value_name = "URL",
        env = "TIMECOP_API",
        default_value = "http://127.0.0.1:8025",
        help_heading = "Service"
    )]
    pub(super) api: String,
    /// File with the service's token
    #[arg(long, value_name = "FILE", env = "TIMECOP_TOKEN_FILE", help_heading = "Service")]
    pub(super) token_file: Option<PathBuf>,
    /// Print the service's answer as it is, one JSON object
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
}

/// `timecop job get` and `timecop job stop`.
#[derive(Debug, Args)]
pub(super) struct JobIdArguments {
    /// The job's id
    pub(super) id: String,
    #[command(flatten)]
    pub(super) service: ServiceArguments,
}

/// `timecop job run`.
#[derive(Debug, Args)]
#[command(after_help = JOB_EXAMPLES, allow_negative_numbers = true)]
pub(super) struct JobRunArguments {
    /// The server: a URL, or the name of a target in the service's configuration [default: the service's own sink]
    #[arg(value_name = "TARGET")]
    pub(super) target: Option<String>,
    #[command(flatten)]
    pub(super) load: LoadArguments,
    /// How connections are secured; a configured target with TLS needs its own one named [default: as the target's URL
    /// says, else plain]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Load")]
    pub(super) connection_type: Option<ConnectionTypeArgument>,
    /// Log in with the credentials that the configured target has (not built yet: the service refuses it)
    #[arg(long, help_heading = "Load")]
    pub(super) auth: bool,
    /// Believe any certificate, whoever shows it; the result says so. A configured target decides for itself
    #[arg(long, help_heading = "Load")]
    pub(super) skip_verify: bool,
    /// Shards of the service that are used [default: all]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>, help_heading = "Run")]
    pub(super) shards: Option<usize>,
    /// Wait until the job has ended, and show its result
    #[arg(long, help_heading = "Run")]
    pub(super) wait: bool,
    #[command(flatten)]
    pub(super) fail_if: FailIfArguments,
    #[command(flatten)]
    pub(super) service: ServiceArguments,
}

/// `--connection-type`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ConnectionTypeArgument {
    /// No TLS
    Plain,
    /// TLS from the first byte
    Tls,
    /// TLS after STARTTLS
    Starttls,
}

/// `--arrival`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ArrivalArgument {
    /// At random, as independent senders would
    Poisson,
    /// At equal distances
    Constant,
}

impl From<ArrivalArgument> for Arrival {
    fn from(argument: ArrivalArgument) -> Arrival {
        match argument {
            ArrivalArgument::Poisson => Arrival::Poisson,
            ArrivalArgument::Constant => Arrival::Constant,
        }
    }
}

/// `--pipelining`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PipeliningArgument {
    /// Where it is offered
    Auto,
    /// Never
    Off,
}

/// `--cpus`.
#[derive(Clone, Debug)]
pub(super) struct Cpus(pub(super) Vec<usize>);

fn cpus(text: &str) -> Result<Cpus, String> {
    placement::parse_cpus(text).map(Cpus)
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("expected a time with its unit, such as 30s, 500ms or 1m30s, got {text:?}: {error}"))
}

fn whole_number<N: TryFrom<u128>>(text: &str) -> Result<N, String> {
    let number: u128 = text.parse().map_err(|_| format!("expected a whole number, got {text:?}"))?;
    N::try_from(number).map_err(|_| format!("expected a smaller number, got {text}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 =
        text.parse().map_err(|_| format!("expected messages a second, such as 5000 or 0.5, got {text:?}"))?;
    match rate > 0.0 && rate <= RATE_PER_S_MAX {
        true => Ok(rate),
        false => Err(format!("expected messages a second, above 0 and at most {RATE_PER_S_MAX}, got {text}")),
    }
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("expected an IP address, such as 192.0.2.1 or 2001:db8::1, got {text:?}"))
}

fn listen(text: &str) -> Result<Listen, String> {
    let (implicit_tls, address) = match text.strip_prefix("smtps://") {
        Some(address) => (true, address),
        None => (false, text.strip_prefix("smtp://").unwrap_or(text)),
    };
    let address = address.trim_end_matches('/').parse().map_err(|_| {
        format!("expected an IP address and a port, such as 127.0.0.1:2525, [::1]:2525 or smtps://127.0.0.1:4465, got {text:?}")
    })?;
    Ok(Listen { address, implicit_tls })
}
