//! From raw input to a job that is known to be valid.
//!
//! [`RawSpec`] holds what somebody wrote, on a command line or elsewhere; [`JobSpec`] is what is left to believe once
//! every value was looked at. Past [`JobSpec::new`] nothing can be malformed.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use serde_json::json;
use thiserror::Error;

use crate::load::{Arrival, Rate};
use crate::message::{MESSAGE_BYTES_MAX, Mailbox, RECIPIENTS_PER_MESSAGE_MAX, Recipients, ReversePath};

/// Most messages of one job.
pub const MESSAGES_MAX: u64 = 1_000_000_000_000;
/// Most connections of one job.
pub const CONNECTIONS_MAX: u32 = 50_000;
/// Longest run by time.
pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
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
    /// Number of messages. Excludes `duration`.
    pub messages: Option<u64>,
    /// How long new messages are sent. Excludes `messages`.
    pub duration: Option<Duration>,
    /// Connections to the target.
    pub connections: Option<u32>,
    /// Messages a second: makes the loop an open one.
    pub rate: Option<f64>,
    /// How an open loop's messages are spaced.
    pub arrival: Option<Arrival>,
    /// Size of a generated message in octets. Excludes `body`.
    pub msg_size: Option<u64>,
    /// A message to send instead of generated ones.
    pub body: Option<Vec<u8>>,
    /// Envelope sender; `""` for the null reverse-path.
    pub from: Option<String>,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// Recipients of one message.
    pub recipients_per_message: Option<u32>,
    /// Messages after which a connection is closed and opened anew.
    pub messages_per_connection: Option<u64>,
    /// Whether PIPELINING is used where it is offered.
    pub pipelining: Option<bool>,
    /// Time limit of every reply and of the connect.
    pub timeout: Option<Duration>,
    /// Whether the certificate of a target with TLS is believed unseen.
    pub skip_verify: Option<bool>,
    /// Whether TLS sessions are resumed.
    pub resumption: Option<bool>,
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
    /// An error that says what was expected and what came.
    pub(crate) fn new(field: &'static str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> SpecError {
        SpecError { field, problem: format!("expected {expected}, got {got}") }
    }

    /// What means something under TLS alone was given for a target without.
    pub(crate) fn without_tls(field: &'static str) -> SpecError {
        SpecError::new(field, "a target with TLS (smtps:// or smtp+starttls://)", "one without")
    }

    /// An error of the value itself, which says all there is to say.
    pub(crate) fn of(field: &'static str, error: impl std::fmt::Display) -> SpecError {
        SpecError { field, problem: error.to_string() }
    }
}

/// How a connection to an SMTP server is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionType {
    /// Not at all.
    #[default]
    Plain,
    /// TLS from the first byte (RFC 8314 §3).
    Tls,
    /// TLS after STARTTLS (RFC 3207).
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
#[derive(Clone, Copy, Debug, PartialEq)]
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
}

impl LoadModel {
    /// The name that every output carries.
    pub const fn name(self) -> &'static str {
        match self {
            LoadModel::Closed => "closed",
            LoadModel::Open { arrival: Arrival::Constant, .. } => "open constant",
            LoadModel::Open { arrival: Arrival::Poisson, .. } => "open poisson",
        }
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Generated messages of exactly so many octets.
    Generated(u64),
    /// A given message.
    Given(Vec<u8>),
}

/// A valid job.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Where to.
    pub target: Target,
    /// How long or how many.
    pub limit: Limit,
    /// Connections to the target, over all shards.
    pub connections: u32,
    /// When each message is sent.
    pub load: LoadModel,
    /// What is sent.
    pub content: Content,
    /// Envelope sender.
    pub from: ReversePath,
    /// Envelope recipients.
    pub recipients: Recipients,
    /// Messages after which a connection is closed and opened anew; `None` keeps it.
    pub messages_per_connection: Option<NonZeroU64>,
    /// Whether PIPELINING is used where it is offered.
    pub pipelining: bool,
    /// Time limit of every reply and of the connect; `None` for those of RFC 5321 §4.5.3.2.
    pub timeout: Option<Duration>,
    /// Whether the target's certificate is believed unseen.
    pub skip_verify: bool,
    /// Whether TLS sessions are resumed.
    pub resumption: bool,
    /// What repeats sizes, recipients, arrivals and content.
    pub seed: u64,
}

impl JobSpec {
    /// Looks at every value. `seed` serves where the input names none.
    pub fn new(raw: RawSpec, target: Target, seed: u64) -> Result<JobSpec, SpecError> {
        let load = load_model(&raw)?;
        let connections = raw.connections.unwrap_or(match load {
            LoadModel::Closed => CONNECTIONS_CLOSED_LOOP,
            LoadModel::Open { .. } => CONNECTIONS_OPEN_LOOP,
        });
        if !(1..=CONNECTIONS_MAX).contains(&connections) {
            return Err(SpecError::new("connections", format!("1 to {CONNECTIONS_MAX}"), connections));
        }
        let messages_per_connection = match raw.messages_per_connection {
            None => None,
            Some(most) => Some(NonZeroU64::new(most).ok_or_else(|| {
                SpecError::new("messages_per_connection", "at least 1 (leave it out to keep connections)", most)
            })?),
        };
        with_tls_only(&raw, target.connection)?;
        Ok(JobSpec {
            target,
            limit: limit(&raw)?,
            connections,
            load,
            from: reverse_path(&raw)?,
            recipients: recipients(&raw)?,
            messages_per_connection,
            pipelining: raw.pipelining.unwrap_or(true),
            timeout: timeout(&raw)?,
            skip_verify: raw.skip_verify.unwrap_or(false),
            resumption: raw.resumption.unwrap_or(true),
            seed: raw.seed.unwrap_or(seed),
            content: content(raw)?,
        })
    }

    /// The job as it was understood, for reports; a given message appears as its size.
    pub fn describe(&self) -> serde_json::Value {
        let (messages, duration_s) = match self.limit {
            Limit::Messages(messages) => (Some(messages), None),
            Limit::Duration(duration) => (None, Some(duration.as_secs_f64())),
        };
        let (rate, arrival) = match self.load {
            LoadModel::Closed => (None, None),
            LoadModel::Open { rate, arrival } => (
                Some(rate.as_per_second()),
                Some(match arrival {
                    Arrival::Constant => "constant",
                    Arrival::Poisson => "poisson",
                }),
            ),
        };
        let (msg_size, body_bytes) = match &self.content {
            Content::Generated(bytes) => (Some(*bytes), None),
            Content::Given(body) => (None, Some(body.len())),
        };
        let tls = |flag: bool| (self.target.connection != ConnectionType::Plain).then_some(flag);
        json!({
            "type": "smtp",
            "connection_type": self.target.connection.name(),
            "address": self.target.address.to_string(),
            "messages": messages,
            "duration_s": duration_s,
            "connections": self.connections,
            "rate": rate,
            "arrival": arrival,
            "msg_size": msg_size,
            "body_bytes": body_bytes,
            "from": String::from_utf8_lossy(self.from.as_bytes()),
            "recipients": self.recipients.list().len(),
            "recipients_per_message": self.recipients.per_message(),
            "messages_per_connection": self.messages_per_connection,
            "pipelining": if self.pipelining { "auto" } else { "off" },
            "skip_verify": tls(self.skip_verify),
            "resumption": tls(self.resumption),
            "timeout_s": self.timeout.map(|t| t.as_secs_f64()),
        })
    }
}

/// What means something under TLS alone is not passed over in silence without it.
fn with_tls_only(raw: &RawSpec, connection: ConnectionType) -> Result<(), SpecError> {
    let said = [("skip_verify", raw.skip_verify.is_some()), ("resumption", raw.resumption.is_some())];
    match said.into_iter().find(|(_, said)| *said) {
        Some((field, _)) if connection == ConnectionType::Plain => Err(SpecError::without_tls(field)),
        _ => Ok(()),
    }
}

fn load_model(raw: &RawSpec) -> Result<LoadModel, SpecError> {
    match (raw.rate, raw.arrival) {
        (None, None) => Ok(LoadModel::Closed),
        (None, Some(_)) => Err(SpecError::new("arrival", "a `rate` beside it, in messages a second", "none")),
        (Some(rate), arrival) => {
            let rate = Rate::per_second(rate)
                .map_err(|_| SpecError::new("rate", "messages a second, above 0 and at most 100000000", rate))?;
            Ok(LoadModel::Open { rate, arrival: arrival.unwrap_or(Arrival::Poisson) })
        }
    }
}

fn limit(raw: &RawSpec) -> Result<Limit, SpecError> {
    match (raw.messages, raw.duration) {
        (Some(_), Some(_)) => Err(SpecError::new("messages", "either `messages` or `duration`", "both")),
        (None, None) => Err(SpecError::new("messages", "either `messages` or `duration`", "neither")),
        (Some(messages), None) if (1..=MESSAGES_MAX).contains(&messages) => Ok(Limit::Messages(messages)),
        (Some(messages), None) => Err(SpecError::new("messages", format!("1 to {MESSAGES_MAX}"), messages)),
        (None, Some(duration)) if !duration.is_zero() && duration <= DURATION_MAX => Ok(Limit::Duration(duration)),
        (None, Some(duration)) => Err(SpecError::new("duration", "more than 0 and at most 30 days", pretty(duration))),
    }
}

fn reverse_path(raw: &RawSpec) -> Result<ReversePath, SpecError> {
    let from = raw.from.as_deref().unwrap_or(SENDER);
    ReversePath::parse(from).map_err(|error| SpecError::of("from", error))
}

fn recipients(raw: &RawSpec) -> Result<Recipients, SpecError> {
    let given = if raw.recipients.is_empty() { &[RECIPIENT.to_owned()][..] } else { &raw.recipients };
    let list = given.iter().map(|to| Mailbox::parse(to)).collect::<Result<Vec<_>, _>>();
    let list = list.map_err(|error| SpecError::of("recipients", error))?;
    let per_message = raw.recipients_per_message.unwrap_or(1);
    if !(1..=RECIPIENTS_PER_MESSAGE_MAX).contains(&per_message) {
        let expected = format!("1 to {RECIPIENTS_PER_MESSAGE_MAX}");
        return Err(SpecError::new("recipients_per_message", expected, per_message));
    }
    Recipients::new(list, per_message).map_err(|error| SpecError::of("recipients", error))
}

fn timeout(raw: &RawSpec) -> Result<Option<Duration>, SpecError> {
    match raw.timeout {
        Some(timeout) if timeout.is_zero() => Ok(None),
        Some(timeout) if timeout > TIMEOUT_MAX => {
            Err(SpecError::new("timeout", "at most 1 hour, or 0s for the limits of RFC 5321", pretty(timeout)))
        }
        timeout => Ok(timeout),
    }
}

fn content(raw: RawSpec) -> Result<Content, SpecError> {
    match (raw.msg_size, raw.body) {
        (Some(_), Some(_)) => Err(SpecError::new("msg_size", "either `msg_size` or `body`", "both")),
        (None, Some(body)) => Ok(Content::Given(body)),
        (size, None) => {
            let bytes = size.unwrap_or(MESSAGE_BYTES);
            if bytes > MESSAGE_BYTES_MAX {
                return Err(SpecError::new("msg_size", format!("at most {MESSAGE_BYTES_MAX} octets"), bytes));
            }
            Ok(Content::Generated(bytes))
        }
    }
}

fn pretty(duration: Duration) -> String {
    format!("{duration:?}")
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
    fn defaults_are_those_of_the_contract() {
        let spec = spec(|_| {}).unwrap();
        assert_eq!(spec.connections, 1);
        assert_eq!(spec.content, Content::Generated(1024));
        assert_eq!(spec.recipients.list()[0].as_str(), "load@example.com");
        assert_eq!((spec.load.name(), spec.seed, spec.pipelining, spec.timeout), ("closed", 7, true, None));
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
        let wrong: [(&str, Change); 20] = [
            ("messages", |raw| raw.messages = Some(0)),
            ("messages", |raw| raw.messages = Some(MESSAGES_MAX + 1)),
            ("messages", |raw| raw.messages = None),
            ("messages", |raw| raw.duration = Some(Duration::from_secs(1))),
            ("duration", |raw| (raw.messages, raw.duration) = (None, Some(Duration::ZERO))),
            ("duration", |raw| (raw.messages, raw.duration) = (None, Some(DURATION_MAX * 2))),
            ("connections", |raw| raw.connections = Some(0)),
            ("connections", |raw| raw.connections = Some(CONNECTIONS_MAX + 1)),
            ("rate", |raw| raw.rate = Some(0.0)),
            ("rate", |raw| raw.rate = Some(f64::NAN)),
            ("arrival", |raw| raw.arrival = Some(Arrival::Constant)),
            ("msg_size", |raw| raw.msg_size = Some(u64::MAX)),
            ("msg_size", |raw| (raw.msg_size, raw.body) = (Some(1), Some(vec![]))),
            ("from", |raw| raw.from = Some("a@b>\r\nRCPT TO:<c@d".into())),
            ("recipients", |raw| raw.recipients = vec!["nobody".into()]),
            ("recipients_per_message", |raw| raw.recipients_per_message = Some(0)),
            ("messages_per_connection", |raw| raw.messages_per_connection = Some(0)),
            ("skip_verify", |raw| raw.skip_verify = Some(true)),
            ("resumption", |raw| raw.resumption = Some(false)),
            ("timeout", |raw| raw.timeout = Some(TIMEOUT_MAX * 2)),
        ];
        for (field, change) in wrong {
            let error = spec(change).expect_err(field);
            assert_eq!(error.field, field, "{error}");
            assert!(error.problem.contains("expected") && error.problem.contains("got"), "{error}");
            assert!(!error.problem.contains('\r'), "{error}");
        }
    }
}
