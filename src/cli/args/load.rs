//! What every run has: what is sent and when, the TLS towards its target, what generates it, and what makes its result a failure.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{Cpus, cpus, duration, rate, whole_number};
use crate::job::time_limits::TimeLimits;
use crate::load::stages::Stage;
use crate::load::warmup::Warmup;
use crate::load::{self, Arrival};
use crate::measure::abort::AbortRule;
use crate::measure::threshold::Threshold;
use crate::message::{RecipientOrder, WeightedSize};

/// TLS towards a target that is secured.
#[derive(Debug, Args)]
pub(in crate::cli) struct TlsArguments {
    /// Issuers of certificates (PEM) that are trusted, in place of the system's
    #[arg(long, value_name = "FILE.pem", help_heading = "TLS")]
    pub(in crate::cli) ca_file: Option<PathBuf>,
    /// Believe any certificate, whoever shows it; the report says so
    #[arg(long, help_heading = "TLS")]
    pub(in crate::cli) skip_verify: bool,
    /// A full TLS handshake for every connection
    #[arg(long, help_heading = "TLS")]
    pub(in crate::cli) no_resumption: bool,
    /// The certificate (PEM) to show to a server that asks for one
    #[arg(long, value_name = "FILE.pem", requires = "client_key", help_heading = "TLS")]
    pub(in crate::cli) client_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE.pem", requires = "client_cert", help_heading = "TLS")]
    pub(in crate::cli) client_key: Option<PathBuf>,
}

/// What is sent, and when: the same for a job of this process and for one of a service.
#[derive(Debug, Args)]
pub(in crate::cli) struct LoadArguments {
    /// Number of messages
    #[arg(short, long, value_name = "N", value_parser = whole_number::<u64>, conflicts_with = "duration", help_heading = "Load")]
    pub(in crate::cli) messages: Option<u64>,
    /// How long new messages are sent [default: 10s for hammer, unless -m is given]
    #[arg(short, long, value_name = "TIME", value_parser = duration, help_heading = "Load")]
    pub(in crate::cli) duration: Option<Duration>,
    /// Connections [default: 1; 100 with --rate, and for hammer with the embedded sink]
    #[arg(short, long, value_name = "N", value_parser = whole_number::<u32>, help_heading = "Load")]
    pub(in crate::cli) connections: Option<u32>,
    /// Messages a second: open loop, they are due whatever the server does. The schedule begins half a second after the
    /// connections are dialled, and 100 us more for each of them
    #[arg(long, value_name = "N", value_parser = rate, help_heading = "Load")]
    pub(in crate::cli) rate: Option<f64>,
    /// Linear ramps of the rate, as in 1m@1000,5m@5000: from --rate, or from 0, to 1,000 messages a second in a minute,
    /// then to 5,000 in five; 5m@5000 after 0s@5000 jumps there and stays; open loop, ends with the last stage. Or of the
    /// number of connections, from 0, in a closed loop: 1m@50c,5m@50c
    #[arg(long, value_name = "TIME@RATE|TIME@Nc[,...]", value_parser = stages, conflicts_with_all = ["messages", "duration"], help_heading = "Load")]
    pub(in crate::cli) stages: Option<Stages>,
    /// How the messages of an open loop are spaced [default: poisson]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Load")]
    pub(in crate::cli) arrival: Option<ArrivalArgument>,
    /// The first part of the run, as a time or a number of messages, which is left out of all figures and shown apart:
    /// -d 60s --warmup 10s measures 50 s
    #[arg(long, value_name = "TIME|N", help_heading = "Load")]
    pub(in crate::cli) warmup: Option<Warmup>,
    /// Messages after which a connection is closed and opened anew [default: unlimited]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, help_heading = "Load")]
    pub(in crate::cli) messages_per_connection: Option<u64>,
    /// Size of each generated message in octets, headers included, exactly; or sizes with weights, of which each message
    /// draws one, as in 2000:70,100000:30 [default: 1024]
    #[arg(short = 's', long, value_name = "BYTES[:WEIGHT,...]", value_parser = sizes, conflicts_with_all = ["body", "text", "html"], help_heading = "Message")]
    pub(in crate::cli) msg_size: Option<SizesArgument>,
    /// A message to send instead, header and body; each copy gets a Date and a Message-ID of its own. Of a folder, all .eml
    /// files take turns
    #[arg(long, value_name = "FILE.eml|DIR", conflicts_with_all = ["text", "html", "subject"], help_heading = "Message")]
    pub(in crate::cli) body: Option<PathBuf>,
    /// Send the --body as it is, octet for octet, without a Date and Message-ID of its own
    #[arg(long, requires = "body", conflicts_with_all = ["recipient_variables", "expand"], help_heading = "Message")]
    pub(in crate::cli) verbatim: bool,
    /// Subject of messages without --body [default: timecop load message]
    #[arg(long, value_name = "TEXT", help_heading = "Message")]
    pub(in crate::cli) subject: Option<String>,
    /// Plain text to send, in UTF-8, as a message that is made of it
    #[arg(long, value_name = "FILE", help_heading = "Message")]
    pub(in crate::cli) text: Option<PathBuf>,
    /// HTML to send, in UTF-8, in place of --text or as its alternative
    #[arg(long, value_name = "FILE", help_heading = "Message")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// A file that goes along with --text or --html; repeatable
    #[arg(long, value_name = "FILE", help_heading = "Message")]
    pub(in crate::cli) attach: Vec<PathBuf>,
    /// What differs in --body, --text and --html from recipient to recipient, as JSON: {"bob@example.com":{"first":"Bob"}}.
    /// It goes along as X-Mailgun-Recipient-Variables, with To: %recipient%, for the server to put in
    #[arg(long, value_name = "FILE.json", help_heading = "Message")]
    pub(in crate::cli) recipient_variables: Option<PathBuf>,
    /// Put variables in here, for each message: %recipient% and %recipient.NAME%
    #[arg(long, help_heading = "Message")]
    pub(in crate::cli) expand: bool,
    /// Envelope sender, "" for the null sender [default: timecop@example.com]
    #[arg(long, value_name = "ADDRESS", help_heading = "Message")]
    pub(in crate::cli) from: Option<String>,
    /// Envelope recipient, or a pattern of them such as 'user{1..100000}@example.com'; repeat it for more, which take turns
    /// [default: load@example.com]
    #[arg(long, value_name = "ADDRESS", help_heading = "Message")]
    pub(in crate::cli) to: Vec<String>,
    /// File with recipients or patterns, one a line; lines that begin with # are skipped
    #[arg(long, value_name = "FILE", help_heading = "Message")]
    pub(in crate::cli) to_file: Option<PathBuf>,
    /// Whether messages take recipients in turns, or each begins at one drawn by the seed [default: sequential]
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Message")]
    pub(in crate::cli) recipient_order: Option<RecipientOrderArgument>,
    /// Recipients of one message [default: 1]
    #[arg(long, value_name = "N", value_parser = whole_number::<u32>, help_heading = "Message")]
    pub(in crate::cli) recipients_per_message: Option<u32>,
    /// Whether SMTP PIPELINING is used where the server offers it
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = "Message")]
    pub(in crate::cli) pipelining: PipeliningArgument,
    /// Time limit of each reply and of the connect, or of some phases, as in 10s,connect=5s,final=1m; 0s for those of RFC
    /// 5321. Phases: connect, tls, banner, ehlo, starttls, auth, mail, rcpt, data, final, rset, quit [default: 0s]
    #[arg(long, value_name = "TIME|PHASE=TIME[,...]", value_parser = TimeLimits::parse, help_heading = "Message")]
    pub(in crate::cli) timeout: Option<TimeLimits>,
    /// Give the run up when this is true of the last seconds, such as 'failures>5%' or 'p99>2s,window=10s,grace=5s': of
    /// 10 whole seconds after the first 5, unless it says otherwise; repeatable
    #[arg(long, value_name = "CONDITION[,window=TIME][,grace=TIME]", value_parser = AbortRule::parse, help_heading = "Run")]
    pub(in crate::cli) abort_on: Vec<AbortRule>,
    /// Repeats sizes, recipients, arrivals and content of an earlier run [default: a fresh one, which is reported]
    #[arg(long, value_name = "N", value_parser = whole_number::<u64>, help_heading = "Run")]
    pub(in crate::cli) seed: Option<u64>,
}

/// What generates.
#[derive(Debug, Args)]
pub(in crate::cli) struct GeneratorArguments {
    /// Shards: threads that generate, each on a CPU of its own [default: half of the CPUs towards this machine, else
    /// all but one]
    #[arg(long, value_name = "N", value_parser = whole_number::<usize>, help_heading = "Run")]
    pub(in crate::cli) shards: Option<usize>,
    /// CPUs that the shards may run on, such as 0,2-5
    #[arg(long, value_name = "LIST", value_parser = cpus, help_heading = "Run")]
    pub(in crate::cli) cpus: Option<Cpus>,
}

/// What makes a result a failure.
#[derive(Debug, Args)]
pub(in crate::cli) struct FailIfArguments {
    /// Exit with 1 when this is true of the result, such as 'p99>300ms', 'failures>0.1%' or 'rate<1000'; repeatable.
    /// Of p50, p90, p95, p99, p99.9, max and mean (response times of accepted messages), failures and rate
    #[arg(long = "fail-if", value_name = "CONDITION", value_parser = Threshold::parse, help_heading = "Output")]
    pub(in crate::cli) conditions: Vec<Threshold>,
}

/// `--stages`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Stages(pub(in crate::cli) Vec<Stage>);

fn stages(text: &str) -> Result<Stages, String> {
    load::stages::parse(text).map(Stages).map_err(|error| error.to_string())
}

/// `--msg-size`.
#[derive(Clone, Debug)]
pub(in crate::cli) enum SizesArgument {
    /// One for all.
    Exactly(u64),
    /// With their weights.
    Mix(Vec<WeightedSize>),
}

fn sizes(text: &str) -> Result<SizesArgument, String> {
    if !text.contains([':', ',']) {
        return whole_number(text).map(SizesArgument::Exactly);
    }
    let size = |part: &str| match part.split_once(':') {
        Some((bytes, weight)) => Ok(WeightedSize { bytes: whole_number(bytes)?, weight: whole_number(weight)? }),
        None => Err(format!("expected sizes with weights, as in 2000:70,100000:30, got {part:?}")),
    };
    text.split(',').map(size).collect::<Result<_, _>>().map(SizesArgument::Mix)
}

/// `--recipient-order`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum RecipientOrderArgument {
    /// In turns
    Sequential,
    /// At random, from there on in turns
    Random,
}

impl From<RecipientOrderArgument> for RecipientOrder {
    fn from(argument: RecipientOrderArgument) -> RecipientOrder {
        match argument {
            RecipientOrderArgument::Sequential => RecipientOrder::Sequential,
            RecipientOrderArgument::Random => RecipientOrder::Random,
        }
    }
}

/// `--arrival`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ArrivalArgument {
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
pub(in crate::cli) enum PipeliningArgument {
    /// Where it is offered
    Auto,
    /// Never
    Off,
}
