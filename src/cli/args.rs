//! The arguments as they are written.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::control::sink::Listen;
use crate::load::{Arrival, RATE_PER_S_MAX};
use crate::shard::placement;
use crate::sink::{PhaseDelay, PhaseDrop, PhaseReply, Stall};

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
    /// Serve SMTP at high speed: accept everything, keep nothing, count all of it.
    Sink(Box<SinkArguments>),
    /// Say whether this machine can run at full speed, and what mends it where it cannot.
    Doctor(DoctorArguments),
}

/// `timecop doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 timecop can run here, perhaps not at full speed; 2 it cannot.")]
pub(super) struct DoctorArguments {
    /// Print the findings as one JSON object
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
  timecop hammer smtp://127.0.0.1:2525 -m 1000 --messages-per-connection 1 --json - --quiet
      a connection a message, the result as one JSON object on standard output
  timecop hammer smtps://mail.example.com -m 100 --ca-file ca.pem
      TLS from the first byte, for a server whose certificate this issuer has signed
  timecop hammer smtp+starttls://127.0.0.1:2525 -d 10s -c 50 --skip-verify
      STARTTLS, for a sink with a certificate of its own making

Exit code: 0 all messages were accepted; 1 some were not, or the run was given up; 2 it could not start;
130 a second interrupt ended it at once.";

#[derive(Debug, Args)]
#[command(after_help = HAMMER_EXAMPLES, allow_negative_numbers = true)]
pub(super) struct HammerArguments {
    /// The server, as smtp://HOST[:PORT], smtps:// (TLS) or smtp+starttls://; without it a sink on loopback is started and loaded
    #[arg(value_name = "TARGET")]
    pub(super) target: Option<String>,
    /// Number of messages
    #[arg(short, long, value_name = "N", value_parser = whole_number::<u64>, conflicts_with = "duration", help_heading = "Load")]
    pub(super) messages: Option<u64>,
    /// How long new messages are sent [default: 10s, unless -m is given]
    #[arg(short, long, value_name = "TIME", value_parser = duration, help_heading = "Load")]
    pub(super) duration: Option<Duration>,
    /// Connections [default: 1; 100 with the embedded sink or with --rate]
    #[arg(short, long, value_name = "N", value_parser = whole_number::<u32>, help_heading = "Load")]
    pub(super) connections: Option<u32>,
    /// Messages a second: open loop, they are due whatever the server does. The schedule begins half a second after the
    /// connections are dialled, and 100 us more for each of them
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Load")]
    pub(super) rate: Option<f64>,
    /// How the messages of an open loop are spaced [default: poisson]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Load")]
    pub(super) arrival: Option<ArrivalArgument>,
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
    /// Repeats sizes, recipients, arrivals and content of an earlier run [default: a fresh one, which is reported]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, help_heading = "Run")]
    pub(super) seed: Option<u64>,
    /// Shards: threads that generate, each on a CPU of its own [default: half of the CPUs towards this machine, else
    /// all but one]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>, help_heading = "Run")]
    pub(super) shards: Option<usize>,
    /// CPUs that the shards may run on, such as 0,2-5
    #[arg(long, value_name = "LIST", value_parser = cpus, help_heading = "Run")]
    pub(super) cpus: Option<Cpus>,
    /// Write the result as one JSON object to a file, or to standard output for -
    #[arg(long, value_name = "FILE|-", help_heading = "Output")]
    pub(super) json: Option<PathBuf>,
    /// Neither progress nor report; errors still show
    #[arg(short, long, help_heading = "Output")]
    pub(super) quiet: bool,
}

const SINK_EXAMPLES: &str = "\
Examples:
  timecop sink --listen 127.0.0.1:2525
      accept all mail at full speed; Ctrl-C ends it and prints what arrived
  timecop sink --listen 127.0.0.1:2525 --delay final=exp:10ms --reply rcpt=451,5%
      accept messages after 10 ms on average, and defer one recipient in twenty
  timecop sink --listen 127.0.0.1:2525 --save /tmp/mail
      write each message to a file, to look at it
  timecop sink --listen smtps://127.0.0.1:4465 --tls-cert cert.pem --tls-key key.pem
      TLS from the first byte, with this certificate

PHASE is one of banner, ehlo, starttls, mail, rcpt, data, final (the reply to the message).
Exit code: 0 it was told to end; 2 it could not start.";

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
