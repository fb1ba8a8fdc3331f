//! From raw input to a job that is known to be valid.
//!
//! [`RawSpec`] holds what somebody wrote, on a command line or elsewhere; [`JobSpec`] is what is left to believe once
//! every value was looked at. Past [`JobSpec::new`] nothing can be malformed.

mod content;
pub mod http;
mod load;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use thiserror::Error;

use self::http::{HttpSpec, JobType, RawHttp};
use super::time_limits::TimeLimits;
use crate::audit::sequences::SEQUENCES_MAX;
use crate::load::connections::ConnectionStages;
use crate::load::stages::{Goal, Stage, Stages};
use crate::load::warmup::Warmup;
use crate::load::{Arrival, Rate};
use crate::measure::abort::{ABORT_RULES_MAX, AbortRule, WarmSpan};
use crate::message::{Attachment, RecipientOrder, RecipientVariables, Recipients, ReversePath, WeightedSize};
use crate::phase::Phase;
use crate::wire::smtp::auth::Credentials;
pub use content::{Content, MESSAGES_GIVEN_BYTES_MAX, MESSAGES_GIVEN_MAX};

/// Most messages of one job.
pub const MESSAGES_MAX: u64 = 1_000_000_000_000;
/// Most connections of one job.
pub const CONNECTIONS_MAX: u32 = 50_000;
/// Longest run by time.
pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Most source addresses of one job.
pub const SOURCE_ADDRESSES_MAX: usize = 256;
/// Longest name of a way to control congestion (the kernel's TCP_CA_NAME_MAX, without its NUL).
pub const CONGESTION_NAME_BYTES_MAX: usize = 15;
/// Longest time limit of one reply.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Connections of a job that names none: of an open loop, and of a closed loop.
pub const CONNECTIONS_OPEN_LOOP: u32 = 100;
/// See [`CONNECTIONS_OPEN_LOOP`].
pub const CONNECTIONS_CLOSED_LOOP: u32 = 1;
/// Size of a generated message whose job names none, in octets.
pub const MESSAGE_BYTES: u64 = 1_024;
/// The recipient of a job that names none.
pub const RECIPIENT: &str = "load@example.com";
/// The sender of a job that names none.
pub const SENDER: &str = "timecop@example.com";

/// What somebody asked for, value by value; `None` where nothing was said.
#[derive(Clone, Debug, Default)]
pub struct RawSpec {
    /// What messages are sent by.
    pub job_type: JobType,
    /// What jobs by HTTP are asked for.
    pub http: RawHttp,
    /// Number of messages. Excludes `duration`.
    pub messages: Option<u64>,
    /// How long new messages are sent. Excludes `messages`.
    pub duration: Option<Duration>,
    /// Connections to the target.
    pub connections: Option<u32>,
    /// Addresses of this machine that connections come from, in turns.
    pub source_addresses: Vec<IpAddr>,
    /// Messages a second: makes the loop an open one.
    pub rate: Option<f64>,
    /// Linear ramps of the rate, the first of which begins at `rate`, or at none; or of the number of connections, which
    /// excludes `rate` and `connections`. Excludes `messages` and `duration`.
    pub stages: Option<Vec<Stage>>,
    /// How an open loop's messages are spaced.
    pub arrival: Option<Arrival>,
    /// Size of a generated message in octets. Excludes `body`.
    pub msg_size: Option<u64>,
    /// A mix of sizes, of which each generated message draws one. Excludes `msg_size` and `body`.
    pub msg_size_mix: Option<Vec<WeightedSize>>,
    /// A message to send instead of generated ones.
    pub body: Option<Vec<u8>>,
    /// Further such messages; all of them take turns.
    pub bodies: Vec<Bytes>,
    /// Given messages are sent octet for octet.
    pub verbatim: Option<bool>,
    /// The subject of messages that are not given whole.
    pub subject: Option<String>,
    /// Plain text to send instead of generated one. Excludes `msg_size` and `body`.
    pub text: Option<String>,
    /// HTML, in place of the text or beside it.
    pub html: Option<String>,
    /// Files that go along with `text` or `html`.
    pub attachments: Vec<Attachment>,
    /// What differs from recipient to recipient, as JSON.
    pub recipient_variables: Option<Vec<u8>>,
    /// Variables are replaced here, not by the server.
    pub expand: Option<bool>,
    /// Envelope sender; `""` for the null reverse-path.
    pub from: Option<String>,
    /// Envelope recipients: addresses, and patterns of them.
    pub recipients: Vec<String>,
    /// The order in which messages take them.
    pub recipient_order: Option<RecipientOrder>,
    /// Recipients of one message.
    pub recipients_per_message: Option<u32>,
    /// Messages after which a connection is closed and opened anew.
    pub messages_per_connection: Option<u64>,
    /// Whether PIPELINING is used where it is offered.
    pub pipelining: Option<bool>,
    /// Time limits of the connect and of each reply.
    pub timeout: Option<TimeLimits>,
    /// Whether the certificate of a target with TLS is believed unseen.
    pub skip_verify: Option<bool>,
    /// Whether TLS sessions are resumed.
    pub resumption: Option<bool>,
    /// How the kernel is to control congestion, such as `cubic` (TCP_CONGESTION).
    pub congestion: Option<String>,
    /// Whom to log in as.
    pub auth: Option<Credentials>,
    /// The first part of the run, which is shown apart.
    pub warmup: Option<Warmup>,
    /// Conditions under which the run is given up.
    pub abort_on: Vec<AbortRule>,
    /// Messages are stamped, and those that were accepted are put down, so that it shows which have arrived.
    pub audit: Option<bool>,
    /// What repeats sizes, recipients, arrivals and content.
    pub seed: Option<u64>,
}

/// A value that a job cannot have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// The field's name as [`RawSpec`] spells it.
    pub field: &'static str,
    /// What was expected, what came, and what to do about it.
    pub problem: String,
}

impl SpecError {
    /// A value that is not what was expected of it.
    pub(crate) fn new(field: &'static str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> SpecError {
        SpecError { field, problem: format!("expected {expected}, got {got}") }
    }

    /// What means something under TLS alone was given for a target without.
    pub(crate) fn without_tls(field: &'static str) -> SpecError {
        SpecError::new(field, "a target with TLS (smtps://, smtp+starttls:// or https://)", "one without")
    }

    /// An error of the value itself, which says all there is to say.
    pub(crate) fn of(field: &'static str, error: impl std::fmt::Display) -> SpecError {
        SpecError { field, problem: error.to_string() }
    }
}

/// How a connection to a server is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionType {
    /// Not at all.
    #[default]
    Plain,
    /// TLS from the first byte (RFC 8314 §3).
    Tls,
    /// TLS after STARTTLS (RFC 3207); SMTP alone has it.
    StartTls,
}

impl ConnectionType {
    /// All of them.
    pub const ALL: [ConnectionType; 3] = [ConnectionType::Plain, ConnectionType::Tls, ConnectionType::StartTls];

    /// The name in requests and reports.
    pub const fn name(self) -> &'static str {
        match self {
            ConnectionType::Plain => "plain",
            ConnectionType::Tls => "tls",
            ConnectionType::StartTls => "starttls",
        }
    }
}

/// Where a job's load goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As reports name it.
    pub name: String,
    /// The host as it was asked for, without brackets: the name that a certificate must be valid for.
    pub host: String,
    /// Resolved once, before the start.
    pub address: SocketAddr,
    /// How connections to it are secured.
    pub connection: ConnectionType,
}

/// When a job ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After so many messages.
    Messages(u64),
    /// When it has run for so long.
    Duration(Duration),
}

/// What decides when the next message is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadModel {
    /// Each connection sends its next message when its last one ended.
    Closed,
    /// Messages are due on a schedule, whatever the target does.
    Open {
        /// Of the whole job.
        rate: Rate,
        /// Their spacing.
        arrival: Arrival,
    },
    /// A closed loop whose number of connections goes up and down.
    Ramped(Arc<ConnectionStages>),
    /// An open loop with a rate that goes up and down.
    Staged {
        /// The rates of the whole job.
        stages: Arc<Stages>,
        /// Their spacing.
        arrival: Arrival,
    },
}

impl LoadModel {
    /// The name that every output carries.
    pub const fn name(&self) -> &'static str {
        match self.arrival() {
            None => "closed",
            Some(Arrival::Constant) => "open constant",
            Some(Arrival::Poisson) => "open poisson",
        }
    }

    /// How messages are spaced, in an open loop.
    pub const fn arrival(&self) -> Option<Arrival> {
        match self {
            LoadModel::Closed | LoadModel::Ramped(_) => None,
            LoadModel::Open { arrival, .. } | LoadModel::Staged { arrival, .. } => Some(*arrival),
        }
    }
}

/// A valid job.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Where to.
    pub target: Target,
    /// Its requests; `None` for a job by SMTP.
    pub http: Option<HttpSpec>,
    /// How long or how many.
    pub limit: Limit,
    /// Connections to the target, over all shards.
    pub connections: u32,
    /// Addresses of this machine that connections come from, in turns; empty leaves it to the kernel.
    pub source_addresses: Vec<IpAddr>,
    /// When each message is sent.
    pub load: LoadModel,
    /// What is sent.
    pub content: Content,
    /// Envelope sender.
    pub from: ReversePath,
    /// Envelope recipients.
    pub recipients: Recipients,
    /// What differs from recipient to recipient.
    pub variables: Option<Arc<RecipientVariables>>,
    /// Variables are replaced here, not by the server.
    pub expand: bool,
    /// What a report should say of the job as it was understood.
    pub notes: Vec<String>,
    /// Messages after which a connection is closed and opened anew; `None` keeps it.
    pub messages_per_connection: Option<NonZeroU64>,
    /// Whether PIPELINING is used where it is offered.
    pub pipelining: bool,
    /// Time limits of the connect and of each reply.
    pub timeout: TimeLimits,
    /// Whether the target's certificate is believed unseen.
    pub skip_verify: bool,
    /// Whether TLS sessions are resumed.
    pub resumption: bool,
    /// How the kernel is to control congestion; `None` leaves it to the kernel.
    pub congestion: Option<String>,
    /// Whom to log in as, if anybody.
    pub auth: Option<Arc<Credentials>>,
    /// The first part of the run, which is shown apart.
    pub warmup: Option<Warmup>,
    /// Conditions under which the run is given up.
    pub abort_on: Vec<AbortRule>,
    /// Messages are stamped, and those that were accepted are put down.
    pub audit: bool,
    /// What repeats sizes, recipients, arrivals and content.
    pub seed: u64,
}

impl JobSpec {
    /// Looks at every value. `seed` serves where the input names none.
    pub fn new(mut raw: RawSpec, target: Target, seed: u64) -> Result<JobSpec, SpecError> {
        let seed = raw.seed.unwrap_or(seed);
        let load = load::load_model(&raw)?;
        let connections = raw.connections.unwrap_or(match &load {
            LoadModel::Closed => CONNECTIONS_CLOSED_LOOP,
            LoadModel::Ramped(stages) => stages.most(),
            LoadModel::Open { .. } | LoadModel::Staged { .. } => CONNECTIONS_OPEN_LOOP,
        });
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            let field = if matches!(load, LoadModel::Ramped(_)) { "stages" } else { "connections" };
            return Err(SpecError::new(field, format!("1 to {CONNECTIONS_MAX} connections"), connections));
        }
        let messages_per_connection = match raw.messages_per_connection {
            None => None,
            Some(most) => Some(NonZeroU64::new(most).ok_or_else(|| {
                SpecError::new("messages_per_connection", "at least 1 (leave it out to keep connections)", most)
            })?),
        };
        with_tls_only(&raw, target.connection)?;
        if raw.abort_on.len() > ABORT_RULES_MAX {
            return Err(SpecError::new(
                "abort_on",
                format!("at most {ABORT_RULES_MAX} conditions"),
                raw.abort_on.len(),
            ));
        }
        let limit = load::limit(&raw, &load)?;
        let http = HttpSpec::new(raw.job_type, raw.http.clone())?;
        if let Some(http) = &http {
            http.goes_with(&raw)?;
        }
        let content = content::content(&mut raw, seed)?;
        let recipients = content::recipients(&raw, seed)?;
        let variables = content::variables(&raw, &content, recipients.per_message())?;
        let unreplaced = content::unreplaced(&raw, &content, &variables, &recipients);
        Ok(JobSpec {
            source_addresses: source_addresses(&raw, &target)?,
            warmup: load::warmup(&raw, limit)?,
            abort_on: raw.abort_on.clone(),
            audit: audit(&raw, limit)?,
            http,
            target,
            limit,
            connections,
            load,
            from: reverse_path(&raw)?,
            recipients,
            variables: variables.variables,
            expand: variables.expand,
            notes: variables.note.into_iter().chain(unreplaced).collect(),
            messages_per_connection,
            pipelining: raw.pipelining.unwrap_or(true),
            timeout: raw.timeout.clone().unwrap_or_default().checked()?,
            skip_verify: raw.skip_verify.unwrap_or(false),
            resumption: raw.resumption.unwrap_or(true),
            congestion: congestion(&raw)?,
            seed,
            auth: raw.auth.clone().map(Arc::new),
            content,
        })
    }

    /// What messages are sent by.
    pub fn job_type(&self) -> JobType {
        self.http.as_ref().map_or(JobType::Smtp, |http| http.kind)
    }

    /// What conditions of `abort_on` do not look at.
    pub fn warm_span(&self) -> WarmSpan {
        match self.warmup {
            Some(Warmup::Duration(time)) => WarmSpan { time, messages: 0 },
            Some(Warmup::Messages(messages)) => WarmSpan { time: Duration::ZERO, messages },
            None => WarmSpan::default(),
        }
    }

    /// The job as it was understood, for reports; a given message appears as its size.
    pub fn describe(&self) -> serde_json::Value {
        let (messages, duration_s) = match self.limit {
            Limit::Messages(messages) => (Some(messages), None),
            Limit::Duration(duration) => (None, Some(duration.as_secs_f64())),
        };
        let (rate, stages) = match &self.load {
            LoadModel::Closed => (None, None),
            LoadModel::Ramped(stages) => (None, Some(stages.list())),
            LoadModel::Open { rate, .. } => (Some(rate.as_per_second()), None),
            LoadModel::Staged { stages, .. } => (Some(stages.from_per_s()), Some(stages.list())),
        };
        let stage = |Stage { duration, goal }: &Stage| match goal {
            Goal::Rate(per_s) => json!({ "duration_s": duration.as_secs_f64(), "rate": per_s }),
            Goal::Connections(number) => json!({ "duration_s": duration.as_secs_f64(), "connections": number }),
        };
        let arrival = self.load.arrival().map(|arrival| match arrival {
            Arrival::Constant => "constant",
            Arrival::Poisson => "poisson",
        });
        let tls = |flag: bool| (self.target.connection != ConnectionType::Plain).then_some(flag);
        let mut described = json!({
            "type": self.job_type().name(),
            "http": self.http.as_ref().map(HttpSpec::describe),
            "connection_type": self.target.connection.name(),
            "address": self.target.address.to_string(),
            "messages": messages,
            "duration_s": duration_s,
            "connections": self.connections,
            "source_addresses": self.source_addresses,
            "rate": rate,
            "stages": stages.map(|stages| stages.iter().map(stage).collect::<Vec<_>>()),
            "arrival": arrival,
            "from": String::from_utf8_lossy(self.from.as_bytes()),
            "recipients": self.recipients.count(),
            "recipients_per_message": self.recipients.per_message(),
            "recipient_order": self.recipients.order().name(),
            "recipient_variables": self.variables.as_ref().map(|variables| variables.len()),
            "expand": self.expand,
            "verbatim": matches!(self.content, Content::Given { verbatim: true, .. }),
            "messages_per_connection": self.messages_per_connection,
            "pipelining": if self.pipelining { "auto" } else { "off" },
            "auth": self.auth.is_some(),
            "skip_verify": tls(self.skip_verify),
            "resumption": tls(self.resumption),
            "warmup": self.warmup.map(|warmup| match warmup {
                Warmup::Duration(duration) => json!({ "duration_s": duration.as_secs_f64() }),
                Warmup::Messages(messages) => json!({ "messages": messages }),
            }),
            "abort_on": self.abort_on.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "audit": self.audit,
            "timeout_s": self.timeout.default.map(|limit| limit.as_secs_f64()),
            "timeouts_s": phase_limits(&self.timeout),
        });
        if let serde_json::Value::Object(fields) = &mut described {
            // Requests of http.raw are their data, whatever the content says.
            let is_raw = self.job_type() == JobType::HttpRaw;
            let shown = |value| if is_raw { serde_json::Value::Null } else { value };
            fields.extend(self.content.describe().map(|(name, value)| (name.to_owned(), shown(value))));
        }
        described
    }
}

fn source_addresses(raw: &RawSpec, target: &Target) -> Result<Vec<IpAddr>, SpecError> {
    const FIELD: &str = "source_addresses";
    let addresses = &raw.source_addresses;
    if addresses.len() > SOURCE_ADDRESSES_MAX {
        return Err(SpecError::new(FIELD, format!("at most {SOURCE_ADDRESSES_MAX}"), addresses.len()));
    }
    let target = target.address.ip();
    let family = if target.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut known = BTreeSet::new();
    for &address in addresses {
        if address.is_ipv4() != target.is_ipv4() {
            return Err(SpecError::new(FIELD, format!("{family} addresses, as the target {target} is one"), address));
        }
        if address.is_unspecified() || address.is_multicast() {
            return Err(SpecError::new(FIELD, "addresses of this machine's own", address));
        }
        if !known.insert(address) {
            return Err(SpecError::new(FIELD, "each address once", format!("{address} twice")));
        }
    }
    Ok(addresses.clone())
}

/// What means something under TLS alone is not passed over in silence without it.
fn with_tls_only(raw: &RawSpec, connection: ConnectionType) -> Result<(), SpecError> {
    let said = [("skip_verify", raw.skip_verify.is_some()), ("resumption", raw.resumption.is_some())];
    match said.into_iter().find(|(_, said)| *said) {
        Some((field, _)) if connection == ConnectionType::Plain => Err(SpecError::without_tls(field)),
        _ => Ok(()),
    }
}

/// A stamp needs a message that may be given one, whose number is told apart from all others.
fn audit(raw: &RawSpec, limit: Limit) -> Result<bool, SpecError> {
    const FIELD: &str = "audit";
    match (raw.audit.unwrap_or(false), limit) {
        (false, _) => Ok(false),
        _ if raw.job_type != JobType::Smtp => Err(SpecError::new(FIELD, "false for jobs by HTTP", "true")),
        _ if raw.verbatim == Some(true) => {
            Err(SpecError::new(FIELD, "false with `verbatim`, which leaves no room for a stamp", "true"))
        }
        (true, Limit::Messages(messages)) if messages > SEQUENCES_MAX => {
            Err(SpecError::new(FIELD, format!("at most {SEQUENCES_MAX} `messages` beside it"), messages))
        }
        _ => Ok(true),
    }
}

fn congestion(raw: &RawSpec) -> Result<Option<String>, SpecError> {
    let Some(name) = &raw.congestion else { return Ok(None) };
    let fits = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-');
    match (1..=CONGESTION_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        true => Ok(Some(name.clone())),
        false => Err(SpecError::new("congestion", "a name such as cubic or bbr", name.escape_debug())),
    }
}

fn reverse_path(raw: &RawSpec) -> Result<ReversePath, SpecError> {
    let from = raw.from.as_deref().unwrap_or(SENDER);
    ReversePath::parse(from).map_err(|error| SpecError::of("from", error))
}

/// The time limits of phases that have their own, by the phase's name; `None` where none has.
fn phase_limits(limits: &TimeLimits) -> Option<serde_json::Map<String, serde_json::Value>> {
    let seconds = |(phase, limit): (&Phase, &Duration)| (phase.name().to_owned(), json!(limit.as_secs_f64()));
    (!limits.phases.is_empty()).then(|| limits.phases.iter().map(seconds).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: SocketAddr) -> Target {
        let connection = ConnectionType::Plain;
        Target { name: "smtp://127.0.0.1:2525".into(), host: "127.0.0.1".into(), address, connection }
    }

    fn spec(change: impl FnOnce(&mut RawSpec)) -> Result<JobSpec, SpecError> {
        let mut raw = RawSpec { messages: Some(10), ..RawSpec::default() };
        change(&mut raw);
        let address = "127.0.0.1:2525".parse().unwrap();
        JobSpec::new(raw, target(address), 7)
    }

    #[test]
    fn requests_of_ones_own_keep_their_variables() {
        let variables = r#"{"a@example.com":{"first":"Ann"}}"#;
        let spec = |job_type| {
            spec(|raw| {
                raw.job_type = job_type;
                raw.recipient_variables = Some(variables.into());
            })
            .unwrap()
        };
        let (raw, generated) = (spec(JobType::HttpRaw), spec(JobType::Smtp));
        assert!(raw.variables.is_some() && raw.notes.is_empty(), "{:?}", raw.notes);
        assert!(generated.variables.is_none() && !generated.notes.is_empty());
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let spec = spec(|_| {}).unwrap();
        assert_eq!(spec.connections, 1);
        assert_eq!(spec.content, Content::generated(1024));
        assert_eq!(spec.recipients.entries()[0].to_string(), "load@example.com");
        assert_eq!(
            (spec.load.name(), spec.seed, spec.pipelining, spec.timeout),
            ("closed", 7, true, TimeLimits::default())
        );
    }

    fn stage(s: u64, rate_per_s: f64) -> Stage {
        Stage { duration: Duration::from_secs(s), goal: Goal::Rate(rate_per_s) }
    }

    #[test]
    fn stages_of_connections_make_a_closed_loop_of_as_many_as_there_are_at_most() {
        let stages = crate::load::stages::parse("1m@50c,1m@20c").unwrap();
        let spec = spec(|raw| (raw.messages, raw.stages) = (None, Some(stages))).unwrap();
        assert_eq!((spec.load.name(), spec.connections), ("closed", 50));
        assert_eq!(spec.limit, Limit::Duration(Duration::from_secs(120)));
        assert_eq!(spec.describe()["stages"][1], json!({ "duration_s": 60.0, "connections": 20 }));
    }

    #[test]
    fn stages_make_an_open_loop_that_ends_with_them() {
        let stages = vec![stage(60, 1_000.0), stage(300, 5_000.0)];
        let spec = spec(|raw| (raw.messages, raw.rate, raw.stages) = (None, Some(10.0), Some(stages))).unwrap();
        assert_eq!((spec.load.name(), spec.connections), ("open poisson", 100));
        assert_eq!(spec.limit, Limit::Duration(Duration::from_secs(360)));
        let shown = spec.describe();
        assert_eq!(
            (&shown["rate"], &shown["stages"][1]),
            (&json!(10.0), &json!({ "duration_s": 300.0, "rate": 5000.0 }))
        );
    }

    #[test]
    fn a_rate_makes_an_open_loop_of_a_hundred_connections() {
        let spec = spec(|raw| raw.rate = Some(50.0)).unwrap();
        assert_eq!((spec.load.name(), spec.connections), ("open poisson", 100));
    }

    /// Each wrong value alone, and the field that its error must name.
    #[test]
    fn every_wrong_value_names_its_field() {
        type Change = fn(&mut RawSpec);
        let wrong: [(&str, Change); 35] = [
            ("warmup", |raw| raw.warmup = Some(Warmup::Messages(10))),
            ("warmup", |raw| raw.warmup = Some(Warmup::Messages(0))),
            ("warmup", |raw| raw.warmup = Some(Warmup::Duration(Duration::ZERO))),
            ("abort_on", |raw| raw.abort_on = vec![AbortRule::parse("p99>1s").unwrap(); ABORT_RULES_MAX + 1]),
            ("messages", |raw| raw.messages = Some(0)),
            ("messages", |raw| raw.messages = Some(MESSAGES_MAX + 1)),
            ("messages", |raw| raw.messages = None),
            ("messages", |raw| raw.duration = Some(Duration::from_secs(1))),
            ("duration", |raw| (raw.messages, raw.duration) = (None, Some(Duration::ZERO))),
            ("duration", |raw| (raw.messages, raw.duration) = (None, Some(DURATION_MAX * 2))),
            ("connections", |raw| raw.connections = Some(0)),
            ("connections", |raw| raw.connections = Some(CONNECTIONS_MAX + 1)),
            ("source_addresses", |raw| raw.source_addresses = vec!["::1".parse().unwrap()]),
            ("source_addresses", |raw| raw.source_addresses = vec!["0.0.0.0".parse().unwrap()]),
            ("source_addresses", |raw| raw.source_addresses = vec!["127.0.0.2".parse().unwrap(); 2]),
            ("source_addresses", |raw| {
                raw.source_addresses = (0..=256u32).map(|n| IpAddr::from((0x7f00_0001 + n).to_be_bytes())).collect();
            }),
            ("rate", |raw| raw.rate = Some(0.0)),
            ("rate", |raw| raw.rate = Some(f64::NAN)),
            ("arrival", |raw| raw.arrival = Some(Arrival::Constant)),
            ("stages", |raw| raw.stages = Some(vec![stage(1, 5.0)])),
            ("stages", |raw| (raw.messages, raw.stages) = (None, Some(vec![]))),
            ("stages", |raw| (raw.messages, raw.stages) = (None, Some(vec![stage(1, -5.0)]))),
            ("stages", |raw| (raw.messages, raw.stages) = (None, Some(vec![stage(u64::MAX, 5.0)]))),
            ("stages", |raw| {
                (raw.messages, raw.stages) = (None, Some(crate::load::stages::parse("1s@5c,1s@5").unwrap()))
            }),
            ("stages", |raw| {
                (raw.messages, raw.stages) = (None, Some(crate::load::stages::parse("1s@60000c").unwrap()))
            }),
            ("connections", |raw| {
                (raw.messages, raw.connections) = (None, Some(5));
                raw.stages = Some(crate::load::stages::parse("1s@5c").unwrap());
            }),
            ("msg_size", |raw| raw.msg_size = Some(u64::MAX)),
            ("msg_size", |raw| (raw.msg_size, raw.body) = (Some(1), Some(vec![]))),
            ("from", |raw| raw.from = Some("a@b>\r\nRCPT TO:<c@d".into())),
            ("recipients", |raw| raw.recipients = vec!["nobody".into()]),
            ("recipients_per_message", |raw| raw.recipients_per_message = Some(0)),
            ("messages_per_connection", |raw| raw.messages_per_connection = Some(0)),
            ("skip_verify", |raw| raw.skip_verify = Some(true)),
            ("resumption", |raw| raw.resumption = Some(false)),
            ("timeout", |raw| raw.timeout = Some((TIMEOUT_MAX * 2).into())),
        ];
        for (field, change) in wrong {
            let error = spec(change).expect_err(field);
            assert_eq!(error.field, field, "{error}");
            assert!(error.problem.contains("expected") && error.problem.contains("got"), "{error}");
            assert!(!error.problem.contains('\r'), "{error}");
        }
    }
}
