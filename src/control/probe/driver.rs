//! Drives the round trip: fires routes, takes arrivals, and says what came of each probe to store, metrics and alerts.
//!
//! Everything is mutated by control's one thread. An arrival is in the table at once, and its sender is answered when it
//! is in the store.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use async_channel::Receiver;
use serde_json::{Map, json};
use thiserror::Error;

use super::certificate;
use super::mail::{Arrival as Mail, Heard, Post, PostError, PostOutcome, Posted, ProbeShard, Verdict};
use crate::alert::policy::Kind;
use crate::config::{Config, Route};
use crate::control::alert::{Account, Alerts, read};
use crate::control::metrics::{Metrics, ProbeTotals};
use crate::control::store::{Kept, Row, RowKey, Store};
use crate::control::targets::{ResolveError, ResolvedTarget, Resolver, Targets, Unresolved};
use crate::job::spec::SpecError;
use crate::job::worker::DRAIN;
use crate::message::{Mailbox, ReversePath};
use crate::probe::header::{self, Key, Token};
use crate::probe::hops::hops;
use crate::probe::schedule::Schedule;
use crate::probe::table::{Arrival, Ended, Leg, Legs, NewProbe, Outcome, Overdue, Probe, Sent, StartFault, Table};
use crate::probe::view::{ProbeView, RouteFired, RouteList, RouteState, RouteView};
use crate::shard::clock::{Clock, wall_now};
use crate::shard::mailbox::Event;
use crate::time::{Instant, WallTime};

/// Probes of a route that the API shows.
const PROBES_SHOWN: usize = 20;
/// How long after its drain a shard may take to tell how a sending ended.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(1);
/// The longest that the sending of one probe may take, whatever its route's time limit.
const POST_WITHIN: Duration = Duration::from_secs(300);
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
    alive_at: Instant,
    /// When certificates are looked at next.
    certificates_at: Instant,
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
            resolver: Rc::default(),
            alive_at: Instant::ZERO,
            certificates_at: Instant::ZERO,
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
        self.routes.clone_from(&config.probe.routes);
        self.targets = targets;
        let times = self.routes.iter().map(|route| (route.name.clone(), route.interval));
        self.schedule.set(times, self.clock.now(), &mut rand::rng());
        let is_route = |name: &str| self.routes.iter().any(|route| route.name == name);
        self.certificates_at = Instant::ZERO;
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
                // That of its target now; it is asked for at once.
                totals.certificate_expiry_unix_s = None;
            }
        });
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

    /// Enters a probe and sends it; a target that could not be resolved is a probe that could not be sent. What we
    /// ourselves have no room for is none, and says nothing of its route.
    fn send(&mut self, route: &Route, target: Result<ResolvedTarget, ResolveError>) -> Result<u64, FireError> {
        let busy = match &target {
            Err(ResolveError::Busy(error)) => Some(error.to_string()),
            _ if !self.shard.has_room() => Some(PostError::Busy.to_string()),
            _ => None,
        };
        if let Some(reason) = busy {
            self.metrics.probes(|totals| totals.skipped(&route.name));
            return Err(FireError::Busy(reason));
        }
        let (now, wall) = (self.clock.now(), wall_now());
        let new = |id| NewProbe {
            id,
            nonce: rand::random(),
            route: route.name.clone(),
            timeout: route.timeout,
            threshold: route.threshold,
        };
        let token = match self.table.start(new(rand::random()), now, wall) {
            // Of 2^64 ids the same one twice in a row.
            Err(StartFault::Taken) => self.table.start(new(rand::random()), now, wall),
            other => other,
        };
        let token = token.map_err(|fault| {
            self.metrics.probes(|totals| totals.skipped(&route.name));
            FireError::Busy(fault.to_string())
        })?;
        self.keep(token.id);
        let posted = target.map_err(|error| error.to_string()).and_then(|target| self.post(route, &target, &token));
        if let Err(reason) = posted {
            self.posted(token.id, Sent::Failed(reason), Legs::default());
        }
        Ok(token.id)
    }

    fn post(&mut self, route: &Route, target: &ResolvedTarget, token: &Token) -> Result<(), String> {
        let from = route.from.as_deref().unwrap_or(self.address.as_str());
        let from = ReversePath::parse(from).map_err(|error| error.to_string())?;
        let post = Post {
            id: token.id,
            target,
            job_type: route.job_type,
            from: &from,
            to: &self.address,
            header: &token.write(&self.key),
            size: route.size,
            // With its drain it ends before the probe is lost, so that what was not sent is told from what did not arrive.
            timeout: route.timeout.saturating_sub(DRAIN + LAST_WORD_WITHIN).max(route.timeout / 2).min(POST_WITHIN),
        };
        self.shard.post(&post).map_err(|error: PostError| error.to_string())
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
        let ignored = |reason| {
            self.metrics.probes(|totals| totals.ignore(reason));
            tracing::debug!(reason, client = ?mail.client, "a message arrived that ends no probe");
        };
        if mail.to_postmaster {
            // RFC 5321 §4.5.1: it has to be taken. Whoever reads the log is the postmaster.
            let (from, subject) = (String::from_utf8_lossy(&mail.reverse_path), header::subject(&mail.header));
            tracing::info!(client = ?mail.client, %from, subject, "mail for the postmaster arrived, which is not kept");
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

    /// Says an outcome to everybody.
    fn ended(&mut self, ended: &Ended) {
        let wall = wall_now();
        self.metrics.probes(|totals| totals.ended(ended, wall));
        self.keep(ended.id);
        self.forget();
        let round_trip_s = ended.round_trip.map(|time| time.as_secs_f64());
        tracing::debug!(route = ended.route, outcome = ended.outcome.name(), round_trip_s, "probe ended");
        let Some(route) = self.route(&ended.route) else { return };
        let kind = match ended.outcome {
            Outcome::Ok => return self.alerts.well(&route.name, route.rule),
            Outcome::Late if ended.was_lost => return self.alerts.found(&route.name, ended.id),
            Outcome::Late if ended.was_overdue || ended.is_excused => return,
            Outcome::Lost if ended.is_excused => return,
            Outcome::Late => Kind::Late,
            Outcome::Lost => Kind::Lost,
            Outcome::SendFailed => Kind::SendFailed,
        };
        self.alert(ended.id, kind, &route);
    }

    /// A probe has passed its threshold, and may come yet.
    fn overdue(&mut self, overdue: &Overdue) {
        self.metrics.probes(|totals| totals.overdue(&overdue.route));
        self.keep(overdue.id);
        tracing::debug!(route = overdue.route, "probe overdue");
        if let Some(route) = self.route(&overdue.route).filter(|_| !overdue.is_excused) {
            self.alert(overdue.id, Kind::Late, &route);
        }
    }

    fn route(&self, name: &str) -> Option<Route> {
        self.routes.iter().find(|route| route.name == name).cloned()
    }

    /// Tells the alerts of a probe that was not well.
    fn alert(&mut self, id: u64, kind: Kind, route: &Route) {
        let wall = wall_now();
        let probe = self.table.get(id);
        let detail = probe.and_then(|probe| probe.detail.clone());
        let round_trip_s = probe.and_then(|probe| probe.round_trip_ns).map(|ns| ns as f64 / 1e9);
        let shown = |time| humantime::format_duration(time).to_string();
        let what = match (kind, round_trip_s) {
            (Kind::Late, Some(took)) => {
                format!("mail is late: it took {took:.1} s, more than {}", shown(route.threshold))
            }
            (Kind::Late, None) => {
                format!("mail is late: it has not arrived within {}", shown(route.threshold))
            }
            (Kind::Lost, _) => format!("mail is lost: it has not arrived within {}", shown(route.timeout)),
            (Kind::SendFailed, _) => {
                format!("mail cannot be sent: {}", detail.as_deref().unwrap_or("the server does not take it"))
            }
        };
        let mut details = Map::new();
        details.insert("probe".to_owned(), json!(format!("{id:016x}")));
        details.insert("target".to_owned(), json!(route.target));
        details.insert("round_trip_s".to_owned(), json!(round_trip_s));
        details.insert("threshold_s".to_owned(), json!(route.threshold.as_secs_f64()));
        details.insert("timeout_s".to_owned(), json!(route.timeout.as_secs_f64()));
        details.insert("detail".to_owned(), json!(detail));
        let summary = format!("timecop route {}: {what}", route.name);
        let account = Account { route: &route.name, probe: id, severity: route.severity, summary, details };
        self.alerts.bad(kind, route.rule, wall, account);
    }

    /// Whether alerts can be told, or why not.
    ///
    /// # Errors
    ///
    /// In words.
    pub fn health(&self) -> Result<(), String> {
        self.alerts.health()
    }

    /// All routes.
    pub fn list(&self) -> RouteList {
        RouteList { items: self.routes.iter().map(|route| self.view(route)).collect() }
    }

    /// A route with its last probes.
    pub fn get(&self, name: &str) -> Option<RouteView> {
        let route = self.routes.iter().find(|route| route.name == name)?;
        let probes = self.table.last(name, PROBES_SHOWN).into_iter().map(ProbeView::from).collect();
        Some(RouteView { probes: Some(probes), ..self.view(route) })
    }

    fn view(&self, route: &Route) -> RouteView {
        let name = &route.name;
        let state = RouteState::of(&self.table.last(name, usize::MAX));
        let (last_ok_unix_s, certificate_expiry_unix_s) = self
            .metrics
            .probes(|totals| (totals.route(name).last_ok_unix_s, totals.route(name).certificate_expiry_unix_s));
        let kinds = self.alerts.open(name).iter().map(|kind| match kind {
            Kind::Late => Outcome::Late,
            Kind::Lost => Outcome::Lost,
            Kind::SendFailed => Outcome::SendFailed,
        });
        RouteView {
            name: name.clone(),
            target: route.target.clone(),
            interval_s: route.interval.as_secs_f64(),
            threshold_s: route.threshold.as_secs_f64(),
            timeout_s: route.timeout.as_secs_f64(),
            state,
            alerts: kinds.collect(),
            outstanding: self.table.outstanding(name),
            last_ok_unix_s,
            certificate_expiry_unix_s,
            probes: None,
        }
    }

    /// Brings what is not counted but stands so and so into the metrics.
    pub fn measure(&self) {
        self.metrics.probes(|totals: &mut ProbeTotals| {
            totals.alerts = self.alerts.counts();
            totals.server = self.shard.counts();
            totals.server_certificate_expiry_unix_s = self.shard.certificate_expiry_unix_s();
            for route in &self.routes {
                let totals = totals.route(&route.name);
                totals.outstanding = self.table.outstanding(&route.name) as u64;
                totals.overdue = self.table.outstanding_overdue(&route.name) as u64;
            }
        });
    }
}

/// Takes what the shard says. An error means that it cannot go on.
pub fn take(prober: &Rc<RefCell<Prober>>, event: Event) -> Result<(), String> {
    let mut this = prober.borrow_mut();
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
    this.shard.look()?;
    for overdue in this.table.overdue(now) {
        this.overdue(&overdue);
    }
    for ended in this.table.expire(now) {
        this.ended(&ended);
    }
    this.alerts.look(now);
    if now >= this.alive_at {
        this.alive_at = now + ALIVE_EVERY;
        this.note_alive();
    }
    let look_at_certificates = now >= this.certificates_at && !this.closing;
    if look_at_certificates {
        this.certificates_at = now + CERTIFICATE_EVERY;
    }
    let due = if this.closing { Vec::new() } else { this.schedule.due(now) };
    let aims: Vec<Aim> = due.iter().filter_map(|name| this.aim(name).ok()).collect();
    // A task that is spawned runs at once, as far as it can.
    drop(this);
    if look_at_certificates {
        ask_for_certificates(prober);
    }
    for aim in aims {
        // Not held on to while the target is looked up: the service may end meanwhile.
        let prober = Rc::downgrade(prober);
        glommio::spawn_local(async move {
            let (route, target) = aim.resolve().await;
            let Some(prober) = prober.upgrade() else { return };
            if let Err(error) = prober.borrow_mut().send(&route, target) {
                tracing::warn!(route = route.name, %error, "a probe was not sent");
            }
        })
        .detach();
    }
    Ok(())
}

/// Asks all targets for their certificates, one after the other; where one does not answer, again after an hour.
fn ask_for_certificates(prober: &Rc<RefCell<Prober>>) {
    let this = prober.borrow();
    let aims: Vec<Aim> = this.routes.iter().filter_map(|route| this.aim(&route.name).ok()).collect();
    let prober = Rc::downgrade(prober);
    drop(this);
    glommio::spawn_local(async move {
        for aim in aims {
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
            if !this.routes.contains(&route) {
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

/// Sends a probe by a route. Its target's host is looked up first, which is no part of the round trip.
pub async fn fire(prober: &RefCell<Prober>, name: &str) -> Result<RouteFired, FireError> {
    let aim = prober.borrow().aim(name)?;
    let (route, target) = aim.resolve().await;
    let id = prober.borrow_mut().send(&route, target)?;
    Ok(RouteFired { name: route.name, id: format!("{id:016x}") })
}
