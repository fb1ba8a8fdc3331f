//! Drives the round trip: fires routes, takes arrivals, and says what came of each probe to store, metrics and alerts.
//!
//! Everything is mutated by control's one thread. An arrival is in the table at once, and its sender is answered when it
//! is in the store.

mod told;
mod view;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};
use std::time::Duration;

use async_channel::Receiver;
use thiserror::Error;

use self::told::PostmasterLog;
use super::certificate;
use super::mail::{Arrival as Mail, Built, Heard, Post, PostOutcome, Posted, ProbeShard, Verdict};
use crate::config::{Config, ROUTES_MAX, Route};
use crate::control::alert::{Alerts, read};
use crate::control::draft::Helpers;
use crate::control::metrics::Metrics;
use crate::control::store::{Kept, Row, RowKey, Store};
use crate::control::targets::{ResolveError, ResolvedTarget, Resolver, Targets, Unresolved};
use crate::job::spec::SpecError;
use crate::job::worker::DRAIN;
use crate::message::{Mailbox, ReversePath};
use crate::probe::header::{self, Key};
use crate::probe::hops::hops;
use crate::probe::schedule::Schedule;
use crate::probe::table::{Arrival, Leg, Legs, NewProbe, Outcome, Probe, Sent, Table};
use crate::probe::view::RouteFired;
use crate::shard::clock::{Clock, wall_now};
use crate::shard::mailbox::Event;
use crate::time::{Instant, WallTime};

/// How long after its drain a shard may take to tell how a sending ended.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// The longest that the sending of one probe may take, whatever its route's time limit.
const POST_WITHIN: Duration = Duration::from_secs(300);
/// Look-ups of one host, of which those that hang outlive their time limit.
const RESOLUTIONS_OF_HOST_MAX: usize = 2;
/// Nobody has looked for longer than this, where a few times a second are usual: the process was stopped, or had no CPU.
const ASLEEP_MIN: Duration = Duration::from_secs(2);
/// How often the store is told that the service lives.
const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How often a target's certificate is looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// The same where it was not shown.
const CERTIFICATE_AGAIN: Duration = Duration::from_secs(3_600);
/// The note with the time when the service was last alive.
const ALIVE: &str = "alive";

/// What the prober is made of.
pub struct ProberParts<'a> {
    /// The running shard.
    pub shard: ProbeShard,
    /// Its clock.
    pub clock: Clock,
    /// What probes are signed with.
    pub key: Key,
    /// Where they are sent to.
    pub address: Mailbox,
    /// The alerts.
    pub alerts: Alerts,
    /// Where probes are kept.
    pub store: Rc<Store>,
    /// Where they are counted.
    pub metrics: Metrics,
    /// What an earlier service left.
    pub kept: &'a Kept,
}

/// The round trip.
pub struct Prober {
    shard: ProbeShard,
    clock: Clock,
    key: Key,
    address: Mailbox,
    alerts: Alerts,
    store: Rc<Store>,
    metrics: Metrics,
    table: Table,
    schedule: Schedule,
    routes: Vec<Route>,
    targets: Targets,
    resolver: Rc<Resolver>,
    helpers: Rc<Helpers>,
    /// Routes whose last probe that was due was not sent, because too much was under way.
    skipped: BTreeSet<String>,
    postmaster: PostmasterLog,
    alive_at: Instant,
    /// When control last did anything here.
    awake_at: Instant,
    /// When all certificates are looked at next.
    certificates_at: Instant,
    /// The routes whose target's is looked at at once.
    certificates_of: BTreeSet<String>,
    /// Whether our own server's certificate is one that was given.
    has_certificate: bool,
    closing: bool,
}

/// Why a route was not fired.
#[derive(Debug, Error)]
pub enum FireError {
    /// There is none of this name.
    #[error("name: expected a route of /v1/probe/route.list, got {0}")]
    Unknown(String),
    /// It has too many probes on their way, or the shard has.
    #[error("{0}")]
    Busy(String),
    /// The service ends.
    #[error("the service is ending and sends no more probes")]
    Closing,
}

/// A route that is to be fired, and where its target's address comes from.
struct Aim {
    route: Route,
    target: Result<Unresolved, SpecError>,
    resolver: Rc<Resolver>,
}

/// A probe whose message is to be made.
struct Draft {
    new: NewProbe,
    wall: WallTime,
    /// What is to be sent, or why nothing can be.
    post: Result<Post, String>,
    host: String,
    clock: Clock,
    helpers: Rc<Helpers>,
}

impl Draft {
    /// A large one is made on a thread of its own.
    async fn build(self) -> Result<Made, FireError> {
        let Draft { new, wall, post, host, clock, helpers } = self;
        let built = match post {
            Err(reason) => Err(reason),
            Ok(post) => {
                let built = helpers.run(post.size, move || post.build(host, clock.now())).await;
                built.map_err(|busy| FireError::Busy(busy.to_string()))?.map_err(|error| error.to_string())
            }
        };
        Ok(Made { new, wall, built })
    }
}

/// A probe that has only to be sent.
struct Made {
    new: NewProbe,
    wall: WallTime,
    built: Result<Built, String>,
}

impl Aim {
    async fn resolve(self) -> (Route, Result<ResolvedTarget, ResolveError>) {
        let target = match self.target {
            Ok(unresolved) => self.resolver.resolve(unresolved).await,
            Err(error) => Err(error.into()),
        };
        (self.route, target)
    }
}

impl Prober {
    /// Goes on with the probes of an earlier service.
    pub fn new(parts: ProberParts<'_>, config: &Config, targets: Targets) -> Prober {
        let ProberParts { shard, clock, key, address, alerts, store, metrics, kept } = parts;
        let probe = |(id, text): &(u64, String)| read(&format!("probe {id:016x}"), text);
        let probes: Vec<Probe> = kept.probes.iter().filter_map(probe).collect();
        let alive = kept.notes.get(ALIVE).and_then(|text| text.parse().ok()).map(WallTime::from_unix_ns);
        let mut prober = Prober {
            table: Table::restored(probes, clock.now(), wall_now(), alive),
            shard,
            clock,
            key,
            address,
            alerts,
            store,
            metrics,
            schedule: Schedule::default(),
            routes: Vec::new(),
            targets: Targets::default(),
            resolver: Rc::new(Resolver::bounded(ROUTES_MAX * RESOLUTIONS_OF_HOST_MAX, RESOLUTIONS_OF_HOST_MAX)),
            helpers: Rc::default(),
            skipped: BTreeSet::new(),
            postmaster: PostmasterLog::default(),
            alive_at: Instant::ZERO,
            awake_at: clock.now(),
            certificates_at: Instant::ZERO,
            certificates_of: BTreeSet::new(),
            has_certificate: false,
            closing: false,
        };
        // How long it was down, for the next one.
        prober.table.outstanding_ids().for_each(|id| prober.keep(id));
        prober.configure(config, targets);
        let unix_s = |wall: WallTime| wall.as_unix_ns() as f64 / 1e9;
        prober.metrics.probes(|totals| {
            for route in &prober.routes {
                totals.route(&route.name).last_ok_unix_s = prober.table.last_ok(&route.name).map(unix_s);
            }
        });
        prober
    }

    /// Takes the routes of a configuration that was read again, and the certificate of our own server, which may be a new
    /// one in the same files.
    pub fn reload(&mut self, config: &Config, targets: Targets) {
        if config.smtp.certificate.is_some() || self.has_certificate {
            match certificate::of_server(&config.smtp, self.shard.host()) {
                Ok(tls) => self.shard.secure(tls),
                Err(error) => tracing::error!("the certificate stays the one that it was: {error}"),
            }
        }
        self.configure(config, targets);
    }

    /// Takes the routes of a configuration in the place of those before.
    fn configure(&mut self, config: &Config, targets: Targets) {
        self.has_certificate = config.smtp.certificate.is_some();
        let is_secured_as_before = |route: &Route| {
            let before = self.routes.iter().find(|before| before.name == route.name)?;
            let before = self.targets.of_route(&before.target).ok()?;
            targets.of_route(&route.target).ok().filter(|target| target.is_secured_as(&before))
        };
        let changed = config.probe.routes.iter().filter(|route| is_secured_as_before(route).is_none());
        let changed: BTreeSet<String> = changed.map(|route| route.name.clone()).collect();
        self.routes.clone_from(&config.probe.routes);
        self.targets = targets;
        let times = self.routes.iter().map(|route| (route.name.clone(), route.interval));
        self.schedule.set(times, self.clock.now(), &mut rand::rng());
        let is_route = |name: &str| self.routes.iter().any(|route| route.name == name);
        self.skipped.retain(|name| is_route(name));
        self.table.keep_routes(is_route);
        self.alerts.keep_routes(is_route);
        self.metrics.probes(|totals| {
            totals.set_routes(self.routes.iter().map(|route| route.name.as_str()));
            let now = wall_now().as_unix_ns() as f64 / 1e9;
            for route in &self.routes {
                let totals = totals.route(&route.name);
                totals.times_s = [route.interval, route.threshold, route.timeout].map(|time| time.as_secs_f64());
                if totals.begin_unix_s == 0.0 {
                    totals.begin_unix_s = now;
                }
                // That of its target now, which is asked for at once.
                if changed.contains(&route.name) {
                    totals.certificate_expiry_unix_s = None;
                }
            }
        });
        self.certificates_of.extend(changed);
        self.forget();
    }

    /// Where its server listens.
    pub fn addresses(&self) -> &[std::net::SocketAddr] {
        self.shard.addresses()
    }

    /// What the shard says, for [`take`].
    pub fn events(&self) -> Receiver<(usize, Event)> {
        self.shard.events()
    }

    /// No more probes are sent; what is on its way may arrive.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Probes that are being sent. How that ends is not known to a later service.
    pub fn posting(&self) -> usize {
        self.shard.posting()
    }

    /// Control does something here, and has not for a while if the process was stopped: says whether that is so.
    fn wakes(&mut self) -> bool {
        let (before, now) = (self.awake_at, self.clock.now());
        self.awake_at = now;
        let was_asleep = now - before >= ASLEEP_MIN;
        if was_asleep {
            let seconds = (now - before).as_secs_f64();
            tracing::warn!(seconds, "the service did not run for a while, which counts as down time");
            self.table.slept(before, now);
            self.table.outstanding_ids().for_each(|id| self.keep(id));
        }
        was_asleep
    }

    /// Ends the shard.
    pub fn end(self) {
        self.note_alive();
        self.shard.end();
    }

    fn note_alive(&self) {
        let now = wall_now().as_unix_ns().to_string();
        self.store.keep(RowKey::Note(ALIVE.to_owned()), Row::note(now));
    }

    /// Keeps a probe as it stands now.
    fn keep(&self, id: u64) {
        let Some(probe) = self.table.get(id) else { return };
        let row = Row {
            subject: probe.route.clone(),
            sent_unix_ns: probe.sent_unix_ns,
            outcome: probe.outcome.map(Outcome::name),
            text: serde_json::to_string(probe).expect("a probe is made of numbers and strings"),
        };
        self.store.keep(RowKey::Probe(id), row);
    }

    /// The routes whose target's certificate is to be looked at now.
    fn certificates_due(&mut self, now: Instant) -> BTreeSet<String> {
        if self.closing {
            return BTreeSet::new();
        }
        let of_new = std::mem::take(&mut self.certificates_of);
        if now < self.certificates_at {
            return of_new;
        }
        self.certificates_at = now + CERTIFICATE_EVERY;
        self.routes.iter().map(|route| route.name.clone()).collect()
    }

    fn forget(&mut self) {
        for id in self.table.take_forgotten() {
            self.store.drop_row(RowKey::Probe(id));
        }
    }

    fn aim(&self, name: &str) -> Result<Aim, FireError> {
        if self.closing {
            return Err(FireError::Closing);
        }
        let route = self.routes.iter().find(|route| route.name == name);
        let route = route.ok_or_else(|| FireError::Unknown(crate::config::shown(name)))?.clone();
        Ok(Aim { target: self.targets.of_route(&route.target), route, resolver: Rc::clone(&self.resolver) })
    }

    /// What is to be sent; a target that could not be resolved is a probe that could not be sent. What we ourselves have no
    /// room for is none.
    fn draft(&self, route: &Route, target: Result<ResolvedTarget, ResolveError>) -> Result<Draft, FireError> {
        if let Err(ResolveError::Busy(error)) = &target {
            return Err(FireError::Busy(error.to_string()));
        }
        self.has_room(&route.name)?;
        let wall = wall_now();
        let new = NewProbe {
            id: rand::random(),
            nonce: rand::random(),
            route: route.name.clone(),
            timeout: route.timeout,
            threshold: route.threshold,
        };
        let post = |target| {
            let from = route.from.as_deref().unwrap_or(self.address.as_str());
            Ok(Post {
                id: new.id,
                route: route.name.clone(),
                target,
                job_type: route.job_type,
                from: ReversePath::parse(from).map_err(|error| error.to_string())?,
                to: self.address.clone(),
                header: new.token(wall).write(&self.key),
                size: route.size,
                // With its drain it ends before the probe is lost, so that what was not sent is told from what did not
                // arrive.
                timeout: route.timeout.saturating_sub(DRAIN + LAST_WORD_WITHIN).max(route.timeout / 2).min(POST_WITHIN),
            })
        };
        let post = target.map_err(|error| error.to_string()).and_then(post);
        let (host, clock, helpers) = (self.shard.host().to_owned(), self.clock, Rc::clone(&self.helpers));
        Ok(Draft { new, wall, post, host, clock, helpers })
    }

    /// Whether the shard can send another one.
    fn has_room(&self, route: &str) -> Result<(), FireError> {
        let is_awaited = |id| self.table.get(id).is_some_and(|probe| probe.outcome.is_none());
        self.shard.has_room(route, is_awaited).map_err(|error| FireError::Busy(error.to_string()))
    }

    /// Enters a probe and sends it. Its round trip begins here, when its message is made.
    fn send(&mut self, made: Made) -> Result<u64, FireError> {
        let Made { new, wall, built } = made;
        if self.closing {
            return Err(FireError::Closing);
        }
        let (id, route) = (new.id, new.route.clone());
        // Others may have begun while it was being made.
        self.has_room(&route)?;
        self.table.start(new, self.clock.now(), wall).map_err(|fault| FireError::Busy(fault.to_string()))?;
        self.skipped.remove(&route);
        self.keep(id);
        let posted = built.and_then(|built| self.shard.post(built).map_err(|error| error.to_string()));
        if let Err(reason) = posted {
            self.posted(id, Sent::Failed(reason), Legs::default());
        }
        Ok(id)
    }

    /// Takes how the sending of a probe ended.
    fn posted(&mut self, id: u64, sent: Sent, legs: Legs) {
        let had_transit = self.table.get(id).is_some_and(|probe| probe.legs.transit_s.is_some());
        let ended = self.table.posted(id, sent, legs, self.clock.now());
        let Some(probe) = self.table.get(id) else { return };
        let measured = Leg::ALL.into_iter().filter(|leg| *leg != Leg::Transit || !had_transit);
        self.metrics.probes(|totals| totals.legs(&probe.route, &probe.legs, measured));
        match ended {
            Some(ended) => self.ended(&ended),
            None => self.keep(id),
        }
    }

    /// Takes a message that has arrived; what its sender is answered, and whether only when all is stored.
    fn arrived(&mut self, mail: &Mail, wall: WallTime) -> bool {
        let metrics = self.metrics.clone();
        let ignored = |reason| {
            metrics.probes(|totals| totals.ignore(reason));
            tracing::debug!(reason, client = ?mail.client, "a message arrived that ends no probe");
        };
        if mail.to_postmaster {
            // RFC 5321 §4.5.1: it has to be taken.
            self.postmaster.tell(mail, self.clock.now());
            return (ignored("postmaster"), false).1;
        }
        let token = match header::find(&mail.header, &self.key) {
            Ok(token) => token,
            Err(header::HeaderFault::Absent) => return (ignored("absent"), false).1,
            Err(header::HeaderFault::Malformed(_)) => return (ignored("malformed"), false).1,
            Err(header::HeaderFault::Version) => return (ignored("version"), false).1,
            Err(header::HeaderFault::Forged) => return (ignored("forged"), false).1,
        };
        match self.table.arrived(&token, mail.arrived, wall, hops(&mail.header)) {
            Arrival::Ended(ended) => {
                if let Some(probe) = self.table.get(ended.id) {
                    self.metrics.probes(|totals| totals.legs(&probe.route, &probe.legs, [Leg::Transit].into_iter()));
                }
                self.ended(&ended);
                true
            }
            // The copy before it may not be stored yet.
            Arrival::Duplicate => (ignored("duplicate"), true).1,
            Arrival::Unsent => (ignored("unsent"), false).1,
            Arrival::Unknown => (ignored("unknown"), false).1,
            Arrival::Future => (ignored("future"), false).1,
        }
    }
}

/// Takes what the shard says. An error means that it cannot go on.
pub fn take(prober: &Rc<RefCell<Prober>>, event: Event) -> Result<(), String> {
    let mut this = prober.borrow_mut();
    this.wakes();
    let heard = this.shard.take(event)?;
    match heard {
        None => {}
        Some(Heard::Posted(Posted { id, outcome, legs })) => {
            let seconds = |leg: Option<Duration>| leg.map(|time| time.as_secs_f64());
            let legs = Legs {
                connect_s: seconds(legs.connect),
                tls_s: seconds(legs.tls),
                auth_s: seconds(legs.auth),
                submit_s: seconds(legs.submit),
                transit_s: None,
            };
            let sent = match outcome {
                PostOutcome::Accepted { at } => Sent::Accepted { at },
                PostOutcome::Refused(refused) => {
                    Sent::Failed(format!("{}: {} {}", refused.phase, refused.code, refused.text))
                }
                PostOutcome::Failed { phase, reason, unsure: false } => Sent::Failed(format!("{phase}: {reason}")),
                PostOutcome::Failed { phase, reason, unsure: true } => Sent::Unsure(format!("{phase}: {reason}")),
            };
            this.posted(id, sent, legs);
        }
        Some(Heard::Arrived(mail, wall)) => {
            if !this.arrived(&mail, wall) {
                this.shard.answer(mail.ticket, Verdict::Accept);
                return Ok(());
            }
            let (written, prober) = (this.store.written(), Rc::downgrade(prober));
            // A task that is spawned runs at once, as far as it can.
            drop(this);
            glommio::spawn_local(async move {
                let verdict = if written.recv().await.is_ok() { Verdict::Accept } else { Verdict::Defer };
                if let Some(prober) = prober.upgrade() {
                    prober.borrow().shard.answer(mail.ticket, verdict);
                }
            })
            .detach();
        }
    }
    Ok(())
}

/// Sends what is due, gives up what is over, and looks after shard and alerts; to be called a few times a second. An error
/// means that the shard cannot go on.
pub fn look(prober: &Rc<RefCell<Prober>>) -> Result<(), String> {
    let mut this = prober.borrow_mut();
    let now = this.clock.now();
    // What has arrived while the process was stopped is taken before anything is given up.
    if !this.wakes() {
        this.shard.look()?;
        for overdue in this.table.overdue(now) {
            this.overdue(&overdue);
        }
        for ended in this.table.expire(now) {
            this.ended(&ended);
        }
    }
    this.postmaster.look(now);
    this.alerts.look(now);
    if now >= this.alive_at {
        this.alive_at = now + ALIVE_EVERY;
        this.note_alive();
    }
    let due = if this.closing { Vec::new() } else { this.schedule.due(now) };
    let aims: Vec<Aim> = due.iter().filter_map(|name| this.aim(name).ok()).collect();
    let of = this.certificates_due(now);
    // A task that is spawned runs at once, as far as it can.
    drop(this);
    if !of.is_empty() {
        ask_for_certificates(prober, of);
    }
    for aim in aims {
        let prober = Rc::downgrade(prober);
        glommio::spawn_local(async move {
            let route = aim.route.clone();
            if let Err(error) = go(&prober, aim).await {
                tracing::warn!(route = route.name, %error, "a probe was not sent");
                if let (FireError::Busy(reason), Some(prober)) = (error, prober.upgrade()) {
                    prober.borrow_mut().skipped(&route, reason);
                }
            }
        })
        .detach();
    }
    Ok(())
}

/// Asks the targets of these routes for their certificates, one after the other; where one does not answer, all are
/// asked again after an hour.
fn ask_for_certificates(prober: &Rc<RefCell<Prober>>, of: BTreeSet<String>) {
    let aims: Vec<Aim> = of.iter().filter_map(|route| prober.borrow().aim(route).ok()).collect();
    let prober = Rc::downgrade(prober);
    glommio::spawn_local(async move {
        for aim in aims {
            let Ok(asked) = aim.target.clone() else { continue };
            let (route, target) = aim.resolve().await;
            let expiry = match target {
                Err(error) => Err(std::io::Error::other(error.to_string())),
                Ok(target) => match certificate::ask(target) {
                    None => continue,
                    Some(answer) => answer.recv().await.unwrap_or_else(|_| Err(std::io::Error::other("no answer"))),
                },
            };
            let Some(prober) = prober.upgrade() else { return };
            let mut this = prober.borrow_mut();
            // The answer of a target that is that of another route, or of none, by now says nothing.
            let of_route = this.routes.iter().find(|other| other.name == route.name);
            let target = of_route.and_then(|route| this.targets.of_route(&route.target).ok());
            if !target.is_some_and(|target| target.is_secured_as(&asked)) {
                continue;
            }
            match expiry {
                Ok(expiry) => {
                    this.metrics.probes(|totals| totals.route(&route.name).certificate_expiry_unix_s = Some(expiry));
                }
                Err(error) => {
                    tracing::debug!(route = route.name, %error, "no certificate was shown");
                    this.certificates_at = this.certificates_at.min(this.clock.now() + CERTIFICATE_AGAIN);
                }
            }
        }
    })
    .detach();
}

/// Looks a route's target up, which is no part of the round trip, makes a probe and sends it. The prober is not held on to
/// while that takes time: the service may end meanwhile.
async fn go(prober: &Weak<RefCell<Prober>>, aim: Aim) -> Result<u64, FireError> {
    let (route, target) = aim.resolve().await;
    let there = || prober.upgrade().ok_or(FireError::Closing);
    let drafted = there()?.borrow().draft(&route, target);
    let made = match drafted {
        Ok(draft) => draft.build().await,
        Err(error) => Err(error),
    };
    let prober = there()?;
    let sent = made.and_then(|made| prober.borrow_mut().send(made));
    if let Err(FireError::Busy(_)) = &sent {
        prober.borrow().metrics.probes(|totals| totals.skipped(&route.name));
    }
    sent
}

/// Sends a probe by a route.
///
/// # Errors
///
/// It is not sent, which says nothing of its route.
pub async fn fire(prober: &Rc<RefCell<Prober>>, name: &str) -> Result<RouteFired, FireError> {
    let aim = prober.borrow().aim(name)?;
    let id = go(&Rc::downgrade(prober), aim).await?;
    Ok(RouteFired { name: name.to_owned(), id: format!("{id:016x}") })
}
