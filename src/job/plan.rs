//! A valid job, made ready: what all its shards share, and what each of them does.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::content;
use super::http::HttpJob;
use super::spec::{ConnectionType, Content, JobSpec, Limit, LoadModel, SpecError};
use crate::audit::sent::{AuditPlan, Sent};
use crate::load::connections::ConnectionRamp;
use crate::load::warmup::{Warmup, WarmupEnd};
use crate::load::{self, ClosedLoop, MessageCounter, OpenLoop, OpenLoopSpec, Pacer};
use crate::message::{Conversion, Recipients, ReversePath, Sizes, Template};
use crate::time::{Instant, WallTime};
use crate::wire::smtp::client::{ClientConfig, Needs, TlsStart};
use crate::wire::smtp::data;

/// How long the kernel may take to open a connection where the job sets no time limit.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long before an open loop's first message is due its connections are dialled, so that they are open by then.
pub const OPEN_LOOP_LEAD: Duration = Duration::from_millis(500);
/// What each connection adds to [`OPEN_LOOP_LEAD`].
pub const OPEN_LOOP_LEAD_A_CONNECTION: Duration = Duration::from_micros(100);

/// What the machine says of the run and the job cannot know.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Now, on the shards' clock: connections are dialled from here on.
    pub now: Instant,
    /// Now, on the calendar.
    pub wall: WallTime,
    /// A fresh number, so that no two runs share a Message-ID.
    pub run_id: u64,
    /// This host's name, for EHLO and Message-ID.
    pub host: String,
    /// What a job that is audited needs; without it none is.
    pub audit: Option<AuditPlan>,
}

/// What builds each message, by what they are sent.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of a job")]
pub enum Payload {
    /// SMTP: messages, dot-stuffed.
    Smtp(Template),
    /// HTTP: requests, and how connections talk, of which [`Job::client`] says nothing.
    Http(Box<HttpJob>),
}

/// What all shards of a job share and none of them changes.
#[derive(Debug)]
pub struct Job {
    /// Builds each message.
    pub payload: Payload,
    /// Envelope recipients.
    pub recipients: Recipients,
    /// Envelope sender.
    pub from: ReversePath,
    /// An address beyond ASCII is in use (RFC 6531).
    pub needs_smtp_utf8: bool,
    /// What EHLO says.
    pub ehlo_name: Vec<u8>,
    /// How sessions of SMTP talk.
    pub client: ClientConfig,
    /// Addresses of this machine that connections come from, in turns; empty leaves it to the kernel.
    pub source_addresses: Vec<IpAddr>,
    /// How the kernel is to control congestion.
    pub congestion: Option<String>,
    /// Time limit of the connect.
    pub connect_timeout: Duration,
    /// Messages after which a connection is closed and opened anew.
    pub messages_per_connection: Option<NonZeroU64>,
    /// Where elapsed time counts from: the first dial in closed loop, the schedule's origin in open loop.
    pub start: Instant,
    /// The calendar time of `start`.
    pub wall_start: WallTime,
    /// When a run by time ends.
    pub end: Option<Instant>,
    /// What was accepted, if that is audited.
    pub audit: Option<Arc<Sent>>,
    audit_plan: Option<(u64, AuditPlan)>,
    /// Which messages are shown apart.
    pub warmup: WarmupEnd,
    warmup_asked: Option<Warmup>,
    /// How long before `start` connections are dialled.
    lead: Duration,
    load: LoadModel,
    limit: Limit,
    seed: u64,
}

impl Job {
    /// Builds what is built once. Says what had to be changed in a given message.
    pub fn new(spec: &JobSpec, at: &Circumstances) -> Result<(Job, Conversion), SpecError> {
        let (payload, conversion) = match &spec.http {
            None => {
                let (template, conversion) = content::template(spec, at, data::stuff)?;
                (Payload::Smtp(template), conversion)
            }
            Some(http) => {
                let (http, conversion) = HttpJob::new(spec, http, at)?;
                (Payload::Http(Box::new(http)), conversion)
            }
        };
        let lead = match spec.load {
            LoadModel::Closed | LoadModel::Ramped(_) => Duration::ZERO,
            LoadModel::Open { .. } | LoadModel::Staged { .. } => {
                OPEN_LOOP_LEAD + OPEN_LOOP_LEAD_A_CONNECTION * spec.connections
            }
        };
        let mut job = Job {
            needs_smtp_utf8: needs_smtp_utf8(spec, &payload),
            recipients: spec.recipients.clone(),
            from: spec.from.clone(),
            ehlo_name: at.host.clone().into_bytes(),
            client: ClientConfig {
                tls: match spec.target.connection {
                    ConnectionType::Plain => TlsStart::Never,
                    ConnectionType::Tls => TlsStart::AtOnce,
                    ConnectionType::StartTls => TlsStart::StartTls,
                },
                auth: spec.auth.clone(),
                needs: needs(spec, &payload),
                pipelining: spec.pipelining,
                timeouts: spec.timeout.smtp(),
            },
            source_addresses: spec.source_addresses.clone(),
            congestion: spec.congestion.clone(),
            connect_timeout: spec.timeout.connect(),
            messages_per_connection: spec.messages_per_connection,
            start: at.now,
            wall_start: at.wall,
            end: None,
            audit: None,
            audit_plan: at.audit.clone().filter(|_| spec.audit).map(|plan| (at.run_id, plan)),
            warmup: WarmupEnd::new(None, at.now),
            warmup_asked: spec.warmup,
            lead,
            load: spec.load.clone(),
            limit: spec.limit,
            seed: spec.seed,
            payload,
        };
        job.begin(at.now, at.wall);
        Ok((job, conversion))
    }

    /// Lets the job begin at another time than it was built at: its first connection is dialled at `now`.
    pub fn begin(&mut self, now: Instant, wall: WallTime) {
        (self.start, self.wall_start) = (now + self.lead, wall + self.lead);
        self.warmup = WarmupEnd::new(self.warmup_asked, self.start);
        let origin = (self.start, self.wall_start);
        let sent = |(run, plan): &(u64, AuditPlan)| Arc::new(Sent::new(*run, plan.ledger.clone(), origin));
        self.audit = self.audit_plan.as_ref().map(sent);
        self.end = match self.limit {
            Limit::Messages(_) => None,
            Limit::Duration(duration) => Some(self.start + duration),
        };
    }

    /// Builds each message of a job by SMTP.
    #[inline]
    pub fn template(&self) -> Option<&Template> {
        match &self.payload {
            Payload::Smtp(template) => Some(template),
            Payload::Http(_) => None,
        }
    }

    /// The sizes of generated messages, or of requests' bodies where those are what has a size.
    #[inline]
    pub fn sizes(&self) -> Option<&Sizes> {
        match &self.payload {
            Payload::Smtp(template) => template.sizes(),
            Payload::Http(http) => http.sizes(),
        }
    }

    /// Octets that no message has more of once its variables are replaced here, its head aside; `None` where none are.
    pub fn expanded_bytes_max(&self) -> Option<u64> {
        match &self.payload {
            Payload::Smtp(template) => template.expanded_bytes_max(),
            Payload::Http(http) => http.expanded_bytes_max(),
        }
    }

    /// Octets of message `sequence` itself, whatever carries it.
    pub fn message_bytes(&self, sequence: u64) -> u64 {
        match &self.payload {
            Payload::Smtp(template) => template.bytes(sequence),
            Payload::Http(http) => http.message_bytes(sequence),
        }
    }

    /// Builds each request of a job by HTTP.
    #[inline]
    pub fn http(&self) -> Option<&HttpJob> {
        match &self.payload {
            Payload::Smtp(_) => None,
            Payload::Http(http) => Some(http),
        }
    }

    /// Whether messages are due on a schedule.
    #[inline]
    pub fn is_open_loop(&self) -> bool {
        !matches!(self.load, LoadModel::Closed | LoadModel::Ramped(_))
    }

    /// Splits the job over at most `shards` shards; no shard is left without a connection.
    pub fn split(&self, connections: u32, shards: u32) -> Vec<Share> {
        let shards = shards.min(connections).max(1);
        let counter = Arc::new(match self.limit {
            Limit::Messages(messages) => MessageCounter::bounded(messages, shards),
            Limit::Duration(_) => MessageCounter::unbounded(),
        });
        let of_shards = Job::connections(connections, shards).enumerate();
        of_shards
            .map(|(shard, connections)| Share { connections, pacer: self.pacer(shard as u32, shards, &counter) })
            .collect()
    }

    /// How many of a job's connections each of at most `shards` shards has.
    pub fn connections(connections: u32, shards: u32) -> impl Iterator<Item = u32> {
        let shards = shards.min(connections).max(1);
        (0..shards).map(move |shard| connections / shards + u32::from(shard < connections % shards))
    }

    fn pacer(&self, shard: u32, shards: u32, counter: &Arc<MessageCounter>) -> Pacer {
        match &self.load {
            LoadModel::Closed => Pacer::Closed(ClosedLoop::new(Arc::clone(counter), self.end)),
            LoadModel::Ramped(stages) => {
                let ramp = ConnectionRamp::new(Arc::clone(stages), self.start, (shard, shards));
                Pacer::Closed(ClosedLoop::new(Arc::clone(counter), self.end).with_ramp(ramp))
            }
            LoadModel::Staged { stages, arrival } => {
                let open = OpenLoop::staged(Arc::clone(stages), *arrival, self.start, self.seed, (shard, shards));
                Pacer::Open(open.expect("the shard is one of its shards"))
            }
            &LoadModel::Open { rate, arrival } => {
                let limit = match (self.limit, self.end) {
                    (Limit::Messages(messages), _) => load::Limit::Messages(messages),
                    (Limit::Duration(duration), end) => load::Limit::Until(end.unwrap_or(self.start + duration)),
                };
                let (start, seed) = (self.start, self.seed);
                let spec =
                    OpenLoopSpec { rate_per_s: rate.as_per_second(), arrival, limit, start, seed, shard, shards };
                Pacer::Open(OpenLoop::new(spec).expect("the rate was validated and the shard is one of its shards"))
            }
        }
    }
}

/// One shard's part of a job.
#[derive(Debug)]
pub struct Share {
    /// Its connections.
    pub connections: u32,
    /// Its part of the messages.
    pub pacer: Pacer,
}

/// What a server must offer for messages that are made here. A given message goes as it is.
fn needs(spec: &JobSpec, payload: &Payload) -> Needs {
    let Payload::Smtp(template) = payload else { return Needs::default() };
    match spec.content {
        Content::Given { .. } if !spec.expand => Needs::default(),
        _ => Needs { eight_bit_mime: template.is_8bit(), smtp_utf8: needs_smtp_utf8(spec, payload) },
    }
}

fn needs_smtp_utf8(spec: &JobSpec, payload: &Payload) -> bool {
    let Payload::Smtp(template) = payload else { return false };
    let addresses_are_ascii = spec.from.is_ascii() && spec.recipients.is_ascii();
    !addresses_are_ascii || template.is_8bit_header()
}
