//! The probe's own shard: it sends each probe by hammer's machines and serves our own port 25, and never hammers.
//!
//! Control's loop awaits [`ProbeShard::events`] beside its other events and gives each to [`ProbeShard::take`]; a few
//! times a second it calls [`ProbeShard::look`]. What comes of it is a [`Heard`]: an [`Arrival`], which
//! [`ProbeShard::answer`] must answer within [`WORD_WITHIN`](crate::probe::policy::WORD_WITHIN), or a [`Posted`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_channel::Receiver;
use thiserror::Error;

use crate::config::ROUTES_MAX;
use crate::control::layout;
use crate::control::running::{RunningJob, SILENT};
use crate::control::sink::SinkError;
use crate::control::targets::ResolvedTarget;
use crate::job::plan::{Circumstances, Job};
use crate::job::spec::http::{JobType, RawHttp};
use crate::job::spec::{Content, JobSpec, RawSpec, SpecError, TIMEOUT_MAX};
use crate::measure::recorder::Delta;
use crate::message::{Conversion, MESSAGE_BYTES_MAX, Mailbox, ReversePath};
use crate::phase::Phase;
use crate::probe::header::NAME;
use crate::probe::policy::ProbePolicy;
pub use crate::probe::policy::{Arrival, ServerCounts, ServerLimits, Verdict};
use crate::shard::clock::{Clock, wall_now};
use crate::shard::listen::listen;
use crate::shard::mailbox::{Command, Event};
use crate::shard::pool::{Pool, SHARDS_END_WITHIN, ShardSpec};
use crate::shard::probe_service::ProbeSpec;
use crate::shard::service::ServiceSpec;
use crate::shard::sink_service::{ListenerSpec, Protocol};
use crate::shard::tls::{ClientTls, ServerTls};
use crate::time::{Instant, WallTime, duration_ns};

/// Probes of one route that may be on their way into their target's server at once, so that a server that hangs holds up
/// no other route; without those that have arrived already, whose target does not hang.
pub const POSTING_OF_ROUTE_MAX: usize = 4;
/// The same with those: how a sending has ended is heard up to a second later.
pub const SENDING_OF_ROUTE_MAX: usize = 32;
/// Those of all routes.
pub const POSTING_MAX: usize = ROUTES_MAX * SENDING_OF_ROUTE_MAX;
/// The only one of its pool.
const SHARD: usize = 0;
/// The subject of probes.
const SUBJECT: &str = "timecop probe";

/// What the shard is made of.
#[derive(Debug)]
pub struct ProbeShardPlan {
    /// Where mail is taken; nowhere if empty. Port 0 takes any free one.
    pub listen: Vec<SocketAddr>,
    /// The name in the greeting, in EHLO and in Message-ID.
    pub hostname: String,
    /// With it STARTTLS is offered.
    pub tls: Option<ServerTls>,
    /// Whose mail is taken.
    pub address: Mailbox,
    /// What the listener bears.
    pub limits: ServerLimits,
    /// The CPU it is pinned to; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
}

/// A probe that is to be sent.
#[derive(Clone, Debug)]
pub struct Post {
    /// What [`Posted`] will name; not that of another probe that is being sent.
    pub id: u64,
    /// Its route's name, for [`POSTING_OF_ROUTE_MAX`].
    pub route: String,
    /// Where to. Its credentials are used if it has any, and TLS as it says.
    pub target: ResolvedTarget,
    /// What by, which fits the target: never `http.raw`.
    pub job_type: JobType,
    /// Envelope sender, and From.
    pub from: ReversePath,
    /// Envelope recipient, and To: the probe address.
    pub to: Mailbox,
    /// The value of the header `X-Timecop-Probe`: one line of printable ASCII.
    pub header: String,
    /// Octets of the message, which is padded to it; a smaller one than its header block is not padded. Of `http` those of
    /// the request's body, in which the fields must have room.
    pub size: u64,
    /// Time limit of each reply, of the connect, and of the whole.
    pub timeout: Duration,
}

/// A probe whose message is made.
#[derive(Debug)]
pub struct Built {
    id: u64,
    route: String,
    spec: JobSpec,
    job: (Job, Conversion),
    tls: Option<ClientTls>,
    is_http: bool,
    timeout: Duration,
}

impl Post {
    /// Makes its message, of which a large one takes its time, on any thread; `host` is [`ProbeShard::host`].
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn build(self, host: String, now: Instant) -> Result<Built, SpecError> {
        let at = Circumstances { now, wall: wall_now(), run_id: rand::random(), host, audit: None };
        let (spec, job) = built(&self, &at)?;
        let Post { id, route, target, job_type, timeout, .. } = self;
        Ok(Built { id, route, spec, job, tls: target.tls, is_http: job_type.is_http(), timeout })
    }
}

/// A probe whose sending has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Posted {
    /// As [`Post::id`].
    pub id: u64,
    /// How.
    pub outcome: PostOutcome,
    /// How long its parts took.
    pub legs: PostLegs,
}

/// How the sending of a probe has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// The target's server has taken it.
    Accepted {
        /// When its reply came.
        at: Instant,
    },
    /// The target's server has answered 4xx (deferred) or 5xx (rejected) to a command, or to the message; by HTTP with any
    /// status but 2xx.
    Refused(Refused),
    /// There was no such answer: the connection, TLS or the protocol failed, or a time limit was over.
    Failed {
        /// In which phase.
        phase: Phase,
        /// In words.
        reason: String,
        /// The message may have been taken all the same: its reply was being awaited.
        unsure: bool,
    },
}

/// An answer that takes no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// To what.
    pub phase: Phase,
    /// 400 to 599; by HTTP 300 to 599.
    pub code: u16,
    /// What the server says, with its enhanced status code; printable, at most 200 octets of it.
    pub text: String,
}

/// How long the parts of a probe's sending took; `None` for those that it did not reach or did not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostLegs {
    /// Opening the TCP connection.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// AUTH, up to its last reply.
    pub auth: Option<Duration>,
    /// From MAIL to the last reply to the message; by HTTP from the first octet of the request to the last of its answer.
    pub submit: Option<Duration>,
}

/// What the shard has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A message has arrived and waits for [`ProbeShard::answer`]; the calendar time of its end of data.
    Arrived(Arrival, WallTime),
    /// The sending of a probe has ended.
    Posted(Posted),
}

/// Why a probe is not sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PostError {
    /// [`POSTING_OF_ROUTE_MAX`] of its route are under way, or [`SENDING_OF_ROUTE_MAX`].
    #[error("as many probes of the route are being sent as may be at once; its target is slow")]
    RouteBusy,
    /// [`POSTING_MAX`] are under way, those of routes that there no longer are included.
    #[error("{POSTING_MAX} probes are being sent, as many as may be at once; targets are slow")]
    Busy,
}

/// The shard.
#[derive(Debug)]
pub struct ProbeShard {
    pool: Pool,
    addresses: Vec<SocketAddr>,
    host: String,
    /// When the certificate expires that the listener shows.
    certificate_expiry_unix_s: Option<i64>,
    counts: Arc<Mutex<ServerCounts>>,
    posting: Vec<Posting>,
}

/// A probe on its way into its target's server.
#[derive(Debug)]
struct Posting {
    job: RunningJob,
    route: String,
    is_http: bool,
    /// When it is given up.
    until: Instant,
    /// It was said how it ended; what is left of it is the end of its session.
    is_told: bool,
}

impl ProbeShard {
    /// Binds its addresses and starts it.
    pub fn start(plan: ProbeShardPlan, clock: Clock) -> Result<ProbeShard, SinkError> {
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for &address in &plan.listen {
            let (sockets, address) = listen(address, 1)?;
            listeners.extend(sockets.into_iter().map(|socket| ListenerSpec {
                socket,
                implicit_tls: false,
                protocol: Protocol::Smtp,
            }));
            addresses.push(address);
        }
        let counts = Arc::default();
        let certificate_expiry_unix_s = plan.tls.as_ref().and_then(ServerTls::expiry_unix_s);
        let config = plan.limits.config(&plan.hostname);
        let spec = ShardSpec {
            cpu: plan.cpu,
            ring: layout::probe_ring(POSTING_MAX as u32, plan.limits.connections_max),
            sink: (!listeners.is_empty()).then(|| {
                ServiceSpec::Probe(Box::new(ProbeSpec {
                    listeners,
                    config: if plan.tls.is_some() { config.offering_starttls() } else { config },
                    tls: plan.tls,
                    policy: ProbePolicy::new(plan.address, plan.hostname.clone(), plan.limits),
                    counts: Arc::clone(&counts),
                }))
            }),
        };
        let pool = Pool::start(vec![spec], clock)?;
        Ok(ProbeShard { pool, addresses, host: plan.hostname, certificate_expiry_unix_s, counts, posting: Vec::new() })
    }

    /// Where it listens, with the ports that were given where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it says, for [`ProbeShard::take`]. Closed once it has ended.
    pub fn events(&self) -> Receiver<(usize, Event)> {
        self.pool.events().clone()
    }

    /// Takes what it says. An error means that the shard cannot go on.
    pub fn take(&mut self, event: Event) -> Result<Option<Heard>, String> {
        match event {
            Event::Arrived(arrival) => {
                let since = self.pool.clock().now() - arrival.arrived;
                let wall = wall_now().as_unix_ns().saturating_sub(duration_ns(since));
                Ok(Some(Heard::Arrived(arrival, WallTime::from_unix_ns(wall))))
            }
            Event::Measured { job, second, elapsed, delta, finished } => {
                let Some(at) = self.posting.iter().position(|posting| posting.job.id() == job) else { return Ok(None) };
                let posting = &mut self.posting[at];
                posting.job.take(SHARD, second, elapsed, delta, finished);
                let outcome =
                    if posting.is_told { None } else { outcome(posting.job.measured(), posting.is_http, finished) };
                posting.is_told |= outcome.is_some();
                let heard = outcome
                    .map(|outcome| Heard::Posted(Posted { id: job, outcome, legs: legs(posting.job.measured()) }));
                if finished {
                    self.posting.swap_remove(at);
                }
                Ok(heard)
            }
            Event::Failed(reason) => Err(format!("the probe's shard failed: {reason}")),
            Event::Ready | Event::Sunk(_) | Event::Ended => Ok(None),
        }
    }

    /// Gives up probes whose time limit is over; to be called a few times a second. What comes of it is heard as
    /// [`Heard::Posted`].
    ///
    /// # Errors
    ///
    /// The shard hangs: it has reported nothing of a probe for [`SILENT_FOR`](crate::control::running::SILENT_FOR).
    pub fn look(&mut self) -> Result<(), String> {
        let now = self.pool.clock().now();
        if self.posting.iter_mut().filter_map(|posting| posting.job.silent(now)).count() > 0 {
            return Err(SILENT.to_owned());
        }
        for posting in self.posting.iter_mut().filter(|posting| posting.until <= now) {
            posting.job.stop(&self.pool);
        }
        Ok(())
    }

    /// Sends a probe. Ends as [`Heard::Posted`], at the latest 10 s (the drain) after its time limit.
    ///
    /// # Errors
    ///
    /// Those of [`ProbeShard::has_room`].
    pub fn post(&mut self, built: Built) -> Result<(), PostError> {
        self.has_room(&built.route, |_| false)?;
        let Built { id, route, spec, job, tls, is_http, timeout } = built;
        let until = self.pool.clock().now() + timeout;
        let job = RunningJob::start(id, &spec, job, tls.as_ref(), &self.pool, &[SHARD]);
        self.posting.push(Posting { job, route, is_http, until, is_told: false });
        Ok(())
    }

    /// Whether another probe of a route can be sent now; `is_awaited` says of one that is being sent whether it has not
    /// arrived.
    ///
    /// # Errors
    ///
    /// As many are being sent as may be.
    pub fn has_room(&self, route: &str, is_awaited: impl Fn(u64) -> bool) -> Result<(), PostError> {
        let of_route = self.posting.iter().filter(|posting| !posting.is_told && posting.route == route);
        let awaited = of_route.clone().filter(|posting| is_awaited(posting.job.id())).count();
        if awaited >= POSTING_OF_ROUTE_MAX || of_route.count() >= SENDING_OF_ROUTE_MAX {
            return Err(PostError::RouteBusy);
        }
        if self.posting.len() >= POSTING_MAX {
            return Err(PostError::Busy);
        }
        Ok(())
    }

    /// Probes that are being sent.
    pub fn posting(&self) -> usize {
        self.posting.iter().filter(|posting| !posting.is_told).count()
    }

    /// Lets the reply to an arrival go. One whose client is gone, or whose time was over, is passed over.
    pub fn answer(&self, ticket: u64, verdict: Verdict) {
        self.pool.send(SHARD, Command::Answer { ticket, verdict });
    }

    /// The listener's connections show this certificate from now on.
    pub fn secure(&mut self, tls: ServerTls) {
        self.certificate_expiry_unix_s = tls.expiry_unix_s();
        self.pool.send(SHARD, Command::Secure(tls));
    }

    /// When the certificate expires that the listener shows, in seconds since 1970.
    pub fn certificate_expiry_unix_s(&self) -> Option<i64> {
        self.certificate_expiry_unix_s
    }

    /// What it calls itself.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the listener has seen so far.
    pub fn counts(&self) -> ServerCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the shard; connections are closed and what is being sent is given up.
    pub fn end(mut self) {
        if let Err(error) = self.pool.end(SHARDS_END_WITHIN, |_, _| {}) {
            tracing::error!(%error, "the probes' shard hangs");
        }
    }
}

/// Makes a probe ready: a message of its size, for one connection.
fn built(post: &Post, at: &Circumstances) -> Result<(JobSpec, (Job, Conversion)), SpecError> {
    let raw = RawSpec {
        messages: Some(1),
        connections: Some(1),
        from: Some(String::from_utf8_lossy(post.from.as_bytes()).into_owned()),
        recipients: vec![post.to.as_str().to_owned()],
        // So that the phases of the transaction follow one another, and add up.
        pipelining: Some(false),
        timeout: Some(post.timeout.min(TIMEOUT_MAX).into()),
        auth: post.target.credentials.clone(),
        job_type: post.job_type,
        ..RawSpec::default()
    };
    if post.job_type == JobType::Http {
        let options = vec![(format!("h:{NAME}"), post.header.clone())];
        let http = RawHttp { options, ..RawHttp::default() };
        let raw = RawSpec { msg_size: Some(post.size), subject: Some(SUBJECT.to_owned()), http, ..raw };
        let spec = JobSpec::new(post.target.complete(raw), post.target.as_target(), 0)?;
        let built = Job::new(&spec, at)?;
        return Ok((spec, built));
    }
    let raw = RawSpec { body: Some(message(post, 0)), ..raw };
    let mut spec = JobSpec::new(post.target.complete(raw), post.target.as_target(), 0)?;
    let built = Job::new(&spec, at)?;
    // What the job writes in front, Date and Message-ID, counts too.
    let padding = post.size.min(MESSAGE_BYTES_MAX).saturating_sub(built.0.message_bytes(0));
    if padding == 0 {
        return Ok((spec, built));
    }
    let padded = message(post, padding as usize).into();
    spec.content = Content::Given { messages: [padded].into(), verbatim: false };
    let built = Job::new(&spec, at)?;
    Ok((spec, built))
}

/// The message but for its Date and Message-ID, with a body of so many octets.
fn message(post: &Post, body: usize) -> Vec<u8> {
    const LINE: &[u8] = b"This message measures how long mail takes to arrive. Nobody reads it.\r\n";
    debug_assert!(post.header.bytes().all(|octet| matches!(octet, b' '..=b'~')), "the header is one printable line");
    let to = post.to.as_str();
    // The null reverse-path is nobody's name.
    let from = Some(String::from_utf8_lossy(post.from.as_bytes())).filter(|from| !from.is_empty());
    let from = from.as_deref().unwrap_or(to);
    let header = &post.header;
    let mut message = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: {SUBJECT}\r\n{NAME}: {header}\r\n\
         Auto-Submitted: auto-generated\r\n\r\n"
    )
    .into_bytes();
    // Its last two octets end a line, wherever the text is cut.
    message.extend(LINE.iter().cycle().take(body.saturating_sub(2)));
    if body >= 2 {
        if body > 2 && message.ends_with(b"\r") {
            message.pop();
            message.push(b' ');
        }
        message.extend(b"\r\n");
    }
    message
}

/// How a probe's sending has ended, if it has.
fn outcome(measured: &Delta, is_http: bool, finished: bool) -> Option<PostOutcome> {
    let messages = &measured.messages;
    if messages.accepted > 0 {
        return Some(PostOutcome::Accepted { at: measured.last_outcome });
    }
    // Whatever a request's one answer says, the message was not taken.
    if let Some(answer) = measured.replies[Phase::LastByte as usize].first() {
        let text = answer.example.clone();
        return Some(PostOutcome::Refused(Refused { phase: answer.phase, code: answer.code, text }));
    }
    if messages.deferred + messages.rejected > 0 {
        let class = if messages.deferred > 0 { 4 } else { 5 };
        let of_message = Phase::MEASURED.iter().rev().flat_map(|&phase| &measured.replies[phase as usize]);
        // EHLO may have been refused before HELO was not: the last refusal is the one that decided.
        let reply = of_message.into_iter().find(|reply| reply.code / 100 == class);
        let refused = reply.map(|reply| Refused {
            phase: reply.phase,
            code: reply.code,
            text: match reply.enhanced {
                Some((class, subject, detail)) => format!("{class}.{subject}.{detail} {}", reply.example),
                None => reply.example.clone(),
            },
        });
        return refused.map(PostOutcome::Refused).or_else(|| Some(not_ended(measured, is_http)));
    }
    if messages.failed > 0 {
        let error = measured.errors.iter().max_by_key(|error| error.phase);
        let failed = error.map(|error| PostOutcome::Failed {
            phase: error.phase,
            reason: error.example.clone(),
            unsure: matches!(error.phase, Phase::Final | Phase::FirstByte | Phase::LastByte),
        });
        return failed.or_else(|| Some(not_ended(measured, is_http)));
    }
    finished.then(|| not_ended(measured, is_http))
}

/// It was given up.
fn not_ended(measured: &Delta, is_http: bool) -> PostOutcome {
    let seen = |&&phase: &&Phase| took(measured, phase).is_some();
    match Phase::MEASURED.iter().rev().find(seen) {
        None => {
            let reason = "the connection was not open within the time limit".to_owned();
            PostOutcome::Failed { phase: Phase::Connect, reason, unsure: false }
        }
        Some(Phase::Data) => {
            let reason = "the message was not answered within the time limit".to_owned();
            PostOutcome::Failed { phase: Phase::Final, reason, unsure: true }
        }
        // The phases of a request are known with its answer only.
        Some(_) if is_http => {
            let reason = "the request was not answered within the time limit".to_owned();
            PostOutcome::Failed { phase: Phase::FirstByte, reason, unsure: true }
        }
        Some(&phase) => {
            let reason = format!("not sent within the time limit; the last that was answered is {phase}");
            PostOutcome::Failed { phase, reason, unsure: false }
        }
    }
}

/// How long a phase took, as fine as the histograms are: to within 1 %.
fn took(measured: &Delta, phase: Phase) -> Option<Duration> {
    [&measured.accepted, &measured.other].into_iter().find_map(|latencies| {
        let phase = latencies.phases.get(phase as usize)?;
        phase.quantile_ns(1.0).map(Duration::from_nanos)
    })
}

fn legs(measured: &Delta) -> PostLegs {
    let took = |phase| took(measured, phase);
    let sum = |phases: &[Phase]| phases.iter().map(|&phase| took(phase)).sum::<Option<Duration>>();
    let transaction = sum(&[Phase::Mail, Phase::Rcpt, Phase::Data, Phase::Final]);
    PostLegs {
        connect: took(Phase::Connect),
        tls: took(Phase::Tls),
        auth: took(Phase::Auth),
        submit: transaction.or_else(|| sum(&[Phase::Write, Phase::FirstByte, Phase::LastByte])),
    }
}

#[cfg(test)]
mod tests;
