//! From a seed to a whole run, and what must be true of every run.

mod checks;
mod draw;
mod follower;

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use timecop::audit::join;
use timecop::audit::ledger::{LATE_AFTER, Ledger};
use timecop::audit::sent::AuditPlan;
use timecop::audit::stamp::{Key, Signer};
use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::{ConnectionType, JobSpec, Target};
use timecop::job::worker::Worker;
use timecop::load::warmup::Warmup;
use timecop::measure::recorder::{ConnectionCounts, Delta};
use timecop::measure::totals::Totals;
use timecop::sink::mailgun::REQUEST_BYTES_MAX;
use timecop::sink::{FaultCounters, Faults, SinkSettings, Stub, StubSettings};
use timecop::time::{Instant, WallTime};
use timecop::wire::http::server as http;
use timecop::wire::smtp::server::ServerConfig;

use self::draw::{one_in, pick};
use self::follower::Follower;
use crate::network::{Conditions, World};
use crate::server::Server;

const MS: u64 = 1_000_000;
const RUN_ID: u64 = 0xfeed;
const HOST: &str = "load.example";
/// When worlds begin: not at zero, so that a forgotten epoch shows.
const BEGIN_NS: u64 = 77_000 * MS;
/// No run may take longer in virtual time.
const DAY_NS: u64 = 24 * 3_600 * 1_000 * MS;
/// No run may take more turns.
const TURNS_MAX: u32 = 200_000;

/// How bad the world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Octets are torn and late, and nothing else goes wrong.
    Kind,
    /// The network breaks, the server injects faults.
    Faulty,
    /// The server says what no server should.
    Hostile,
}

/// Everything that a seed decides.
pub struct Scenario {
    seed: u64,
    kind: Weather,
    spec: JobSpec,
    shards: u32,
    conditions: Conditions,
    settings: SinkSettings,
    message_bytes_max: u64,
    pipelining_offered: bool,
    /// The server takes mail from users only.
    asks_for_login: bool,
    malice: f64,
    stop: Option<Stop>,
    /// From when to when the server wants to be left alone.
    storm_ns: (u64, u64),
    /// What the follower takes for a second.
    second_ns: u64,
}

/// When somebody stops the job.
#[derive(Clone, Copy, Debug)]
enum Stop {
    At(u64),
    /// Behind so many turns: the first ones are as likely as all later ones together.
    Turn(u32),
}

/// What arrived at the server.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    messages: u64,
    recipients: u64,
    errors: u64,
}

/// What a run came to.
pub struct Outcome {
    /// All deltas.
    pub totals: Delta,
    /// All deltas, and the seconds that they were of.
    pub followed: Option<Totals>,
    /// Why the run was given up.
    pub aborted: Option<String>,
    /// Somebody has stopped it, or it was given up.
    pub stopped: bool,
    /// Replies by which the server wanted to be left alone.
    pub storms: u64,
    /// Writes that the kernel did not take at once.
    pub short_writes: u64,
    /// See [`World::log`].
    log: u64,
    gauges: Vec<ConnectionCounts>,
    counts: Arrived,
    accepted_heard: u64,
    written: u64,
    connected: u64,
    kept: Vec<Vec<u8>>,
    /// Turns that the world made.
    pub turns: u32,
    job: Arc<Job>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(kind: Weather, seed: u64) -> Scenario {
        let mut random = Pcg64::seed_from_u64(seed);
        let random = &mut random;
        let mut raw = draw::raw_spec(kind, random);
        let secured: &[ConnectionType] =
            if raw.job_type.is_http() { &ConnectionType::ALL[..2] } else { &ConnectionType::ALL };
        let connection = if one_in(random, 3) { *pick(random, secured) } else { ConnectionType::Plain };
        let asks_for_login = draw::login(kind, connection, &mut raw, random);
        let target = Target {
            name: "smtp://sim".into(),
            host: "127.0.0.1".into(),
            address: ([127, 0, 0, 1], 25).into(),
            connection,
        };
        let spec = JobSpec::new(raw, target, seed).expect("scenarios have valid jobs");
        let stop = match random.random_range(0..10) {
            0 | 1 => Some(Stop::At(BEGIN_NS + random.random_range(0..3_000) * MS)),
            2 | 3 => {
                let turns_max = 1 << random.random_range(1..10);
                Some(Stop::Turn(random.random_range(0..turns_max)))
            }
            _ => None,
        };
        let storm_ns = match one_in(random, 6) && kind == Weather::Faulty {
            true => {
                let from = BEGIN_NS + random.random_range(0..600) * MS;
                (from, from + random.random_range(1..2_000) * MS)
            }
            false => (0, 0),
        };
        Scenario {
            seed,
            kind,
            shards: random.random_range(1..=3),
            conditions: draw::conditions(kind, &spec, random),
            settings: draw::settings(kind, random),
            asks_for_login,
            message_bytes_max: if one_in(random, 20) { 700 } else { 1_000_000 },
            pipelining_offered: !one_in(random, 4),
            malice: if kind == Weather::Hostile { *pick(random, &[0.02, 0.1, 0.3, 1.0]) } else { 0.0 },
            stop,
            storm_ns,
            second_ns: *pick(random, &[MS, 30 * MS, 1_000 * MS]),
            spec,
        }
    }

    fn server(&self, begin: Instant, audit: Option<Arc<Ledger>>) -> Server {
        let mut config = ServerConfig::new("sink.example", self.message_bytes_max, self.pipelining_offered);
        if self.spec.target.connection == ConnectionType::StartTls {
            config = config.offering_starttls();
        }
        if self.asks_for_login {
            config = config.requiring_auth(draw::users(), || 7);
        }
        let config = config.without(self.settings.faults.withheld());
        // Made for this run: what rules remember is shared by clones.
        let rules = self.settings.faults.rules().map(|(rule, _)| rule.clone());
        let faults = Faults::new(rules, FaultCounters::default()).expect("they are few");
        let settings = SinkSettings { faults: faults.clone(), audit, ..self.settings.clone() };
        let mut server = Server::new(config, settings, begin, self.malice, self.seed);
        server.tls_at_once = self.spec.target.connection == ConnectionType::Tls;
        server.storm_ns = self.storm_ns;
        if self.spec.http.is_some() {
            let settings =
                StubSettings { faults, message_bytes_max: self.message_bytes_max, ..StubSettings::default() };
            let stub = Stub::new(settings, begin, self.seed);
            server.http = Some((http::ServerConfig::new(REQUEST_BYTES_MAX), stub));
        }
        server
    }

    /// Runs it. If it is `followed`, what was measured is taken out again and again, as control does, and the run is given
    /// up when a rule says so.
    pub fn run(&self, followed: bool) -> Outcome {
        let at = circumstances(self.spec.audit);
        let begin = at.now;
        let ledger = at.audit.as_ref().and_then(|audit| audit.ledger.clone());
        let job = Arc::new(Job::new(&self.spec, &at).expect("scenarios have valid jobs").0);
        let worker = |share: timecop::job::plan::Share| Worker::new(Arc::clone(&job), share.pacer, share.connections);
        let workers: Vec<Worker> = job.split(self.spec.connections, self.shards).into_iter().map(worker).collect();
        let mut follower = followed.then(|| Follower::new(&self.spec, &job, workers.len(), self.second_ns, self.seed));
        let server = self.server(begin, ledger);
        let mut world = World::new(BEGIN_NS, workers, server, self.conditions.clone(), self.seed ^ 0xc0ffee);
        let (mut turns, mut stop, mut stopped) = (0, self.stop, false);
        world.start();
        while !world.is_finished() {
            let stop_ns = match stop {
                Some(Stop::At(ns)) if world.next_ns().is_none_or(|next| next >= ns) => Some(ns),
                Some(Stop::Turn(turn)) if turns >= turn => Some(world.now_ns),
                _ => None,
            };
            if let Some(stop_ns) = stop_ns {
                (stop, stopped) = (None, true);
                world.now_ns = world.now_ns.max(stop_ns);
                world.stop();
                continue;
            }
            assert!(world.turn(), "nothing will ever happen, and the job is not over");
            turns += 1;
            assert!(turns < TURNS_MAX, "the job does not come to its end, or only in very many turns");
            assert!(world.now_ns < BEGIN_NS + DAY_NS, "the job takes more than a day");
            if follower.as_mut().is_some_and(|follower| follower.look(&mut world)) {
                stopped = true;
                world.stop();
            }
        }
        assert!(world.is_closed(), "a connection was left open");
        // What is still under way arrives, so that the server's counts are final.
        while world.turn() {}
        assert!(world.is_closed_at_server(), "the server was left with a connection");
        let (mut totals, mut gauges) = (Delta::new(), Vec::new());
        if let Some(follower) = &mut follower {
            follower.end(&mut world);
            totals = follower.totals.merged.clone();
            gauges = follower.gauges.clone();
        } else {
            for shard in &mut world.shards {
                let delta = shard.worker.take_delta(Box::default());
                totals.merge(&delta);
                gauges.push(ConnectionCounts { opened: 0, reopened: 0, ..delta.connections });
            }
        }
        let log = world.log();
        let World { accepted_heard, written, connected, short_writes, server, .. } = world;
        let counts = match &server.http {
            None => {
                let counts = server.policy.counts();
                Arrived { messages: counts.messages, recipients: counts.recipients, errors: counts.errors }
            }
            Some((_, stub)) => {
                let counts = stub.counts();
                Arrived { messages: counts.messages, recipients: counts.recipients, errors: counts.errors }
            }
        };
        let Server { kept, storms, .. } = server;
        let (followed, aborted) = follower.map_or((None, None), |it| (Some(it.totals), it.aborted));
        Outcome {
            totals,
            followed,
            aborted,
            stopped,
            storms,
            short_writes,
            log,
            gauges,
            counts,
            accepted_heard,
            written,
            connected,
            kept,
            turns,
            job,
        }
    }

    /// Whether a run of it may be given up, which depends on when it is looked at.
    pub fn may_be_given_up(&self) -> bool {
        !self.spec.abort_on.is_empty()
    }

    /// What is asked for.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// The same with another warm-up, or none.
    pub fn with_warmup(mut self, warmup: Option<Warmup>) -> Scenario {
        self.spec.warmup = warmup;
        self
    }
}

/// With a ledger of nothing yet, if the job is audited.
fn circumstances(is_audited: bool) -> Circumstances {
    let (now, wall) = (Instant::from_ns(BEGIN_NS), WallTime::from_unix_ns(1_700_000_000_000_000_000));
    let audit = is_audited.then(|| {
        let signer = Signer::new(&Key::new([7; 32]));
        let ledger = Ledger::new(1, signer.clone(), LATE_AFTER, false);
        ledger.begin((now, wall));
        AuditPlan { signer, ledger: Some(Arc::new(ledger)) }
    });
    Circumstances { now, wall, run_id: RUN_ID, host: HOST.into(), audit }
}

/// A run in figures, one thing a line, for comparing two.
pub fn fingerprint(outcome: &Outcome) -> Vec<String> {
    let totals = &outcome.totals;
    // Kinds stand in the order in which they were first seen, which taking deltas may change, as it may the examples.
    let replies =
        totals.replies.iter().flatten().map(|k| format!("{:?} {} {:?} {}", k.phase, k.code, k.enhanced, k.count));
    let errors = totals.errors.iter().map(|k| format!("{:?} {} {:?} {}", k.blame, k.kind, k.phase, k.count));
    let mut lines: Vec<String> = replies.chain(errors).collect();
    lines.sort_unstable();
    for (name, side) in [("accepted", &totals.accepted), ("other", &totals.other)] {
        let histograms = [&side.response, &side.service, &side.lateness].into_iter().chain(&side.phases);
        lines.extend(histograms.enumerate().map(|(at, histogram)| format!("{name} {at} {:?}", histogram.summary())));
    }
    lines.push(format!("{:?} {:?} {:?}", totals.messages, totals.warmup, totals.recipients));
    lines.push(format!("{:?} {:?} {:?}", outcome.gauges, outcome.counts, totals.last_outcome));
    lines.push(format!("{} octets, {} connections, {} turns", totals.bytes_sent, outcome.connected, outcome.turns));
    if let Some(audit) = &outcome.job.audit {
        lines.push(format!("{:?}", join::report(audit)));
    }
    lines.push(format!("everything that happened: {:016x}", outcome.log));
    lines
}
