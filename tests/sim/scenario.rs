//! From a seed to a whole run, and what must be true of every run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use timecop::job::content;
use timecop::job::plan::{Circumstances, Job};
use timecop::job::spec::{ConnectionType, JobSpec, Limit, RawSpec, Target};
use timecop::job::worker::Worker;
use timecop::load::Arrival;
use timecop::measure::recorder::{ConnectionCounts, Delta, Latencies};
use timecop::message::{DateCache, RecipientOrder, WeightedSize};
use timecop::outgoing::Outgoing;
use timecop::phase::Phase;
use timecop::sink::{Counts, Faults, SinkSettings};
use timecop::time::{Instant, WallTime};
use timecop::wire::smtp::server::ServerConfig;

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
    malice: f64,
    /// When somebody stops the job.
    stop_ns: Option<u64>,
}

/// What a run came to.
pub struct Outcome {
    /// All deltas.
    pub totals: Delta,
    gauges: Vec<ConnectionCounts>,
    counts: Counts,
    accepted_heard: u64,
    written: u64,
    connected: u64,
    kept: Vec<Vec<u8>>,
    /// Turns that the world made.
    pub turns: u32,
    job: Arc<Job>,
}

fn one_in(random: &mut Pcg64, n: u32) -> bool {
    random.random_range(0..n) == 0
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(kind: Weather, seed: u64) -> Scenario {
        let mut random = Pcg64::seed_from_u64(seed);
        let random = &mut random;
        let raw = raw_spec(kind, random);
        let target = Target {
            name: "smtp://sim".into(),
            host: "127.0.0.1".into(),
            address: ([127, 0, 0, 1], 25).into(),
            connection: ConnectionType::Plain,
        };
        let spec = JobSpec::new(raw, target, seed).expect("scenarios have valid jobs");
        let stop_ns = one_in(random, 5).then(|| BEGIN_NS + random.random_range(0..3_000) * MS);
        Scenario {
            seed,
            kind,
            shards: random.random_range(1..=3),
            conditions: conditions(kind, &spec, random),
            settings: settings(kind, random),
            message_bytes_max: if one_in(random, 20) { 700 } else { 1_000_000 },
            pipelining_offered: !one_in(random, 4),
            malice: if kind == Weather::Hostile { *pick(random, &[0.02, 0.1, 0.3, 1.0]) } else { 0.0 },
            stop_ns,
            spec,
        }
    }

    /// Runs it. With `deltas_often`, what was measured is taken out at a few random times.
    pub fn run(&self, deltas_often: bool) -> Outcome {
        let at = circumstances();
        let begin = at.now;
        let job = Arc::new(Job::new(&self.spec, &at).expect("scenarios have valid jobs").0);
        let worker = |share: timecop::job::plan::Share| Worker::new(Arc::clone(&job), share.pacer, share.connections);
        let workers: Vec<Worker> = job.split(self.spec.connections, self.shards).into_iter().map(worker).collect();
        let config = ServerConfig::new("sink.example", self.message_bytes_max, self.pipelining_offered);
        let server = Server::new(config, self.settings.clone(), begin, self.malice, self.seed);
        let mut world = World::new(BEGIN_NS, workers, server, self.conditions.clone(), self.seed ^ 0xc0ffee);
        let mut random = Pcg64::seed_from_u64(self.seed ^ 0xde17a);
        let mut totals = Delta::new();
        let mut deltas_left = if deltas_often { 4 } else { 0 };
        let (mut turns, mut stop_ns) = (0, self.stop_ns);
        world.start();
        while !world.is_finished() {
            if stop_ns.is_some_and(|stop_ns| world.next_ns().is_none_or(|next| next >= stop_ns)) {
                world.now_ns = world.now_ns.max(stop_ns.take().unwrap_or(0));
                world.stop();
                continue;
            }
            assert!(world.turn(), "nothing will ever happen, and the job is not over");
            turns += 1;
            assert!(turns < TURNS_MAX, "the job does not come to its end, or only in very many turns");
            assert!(world.now_ns < BEGIN_NS + DAY_NS, "the job takes more than a day");
            if deltas_left > 0 && one_in(&mut random, 40) {
                deltas_left -= 1;
                let shard = random.random_range(0..world.shards.len());
                totals.merge(&world.shards[shard].worker.take_delta(Box::default()));
            }
        }
        assert!(world.is_closed(), "a connection was left open");
        // What is still under way arrives, so that the server's counts are final.
        while world.turn() {}
        let mut gauges = Vec::new();
        for shard in &mut world.shards {
            let delta = shard.worker.take_delta(Box::default());
            totals.merge(&delta);
            gauges.push(ConnectionCounts { opened: 0, reopened: 0, ..delta.connections });
        }
        let World { accepted_heard, written, connected, .. } = world;
        let (counts, kept) = (world.server.policy.counts(), world.server.kept);
        Outcome { totals, gauges, counts, accepted_heard, written, connected, kept, turns, job }
    }

    /// The same with a warm-up.
    pub fn with_warmup(mut self, warmup: timecop::load::warmup::Warmup) -> Scenario {
        self.spec.warmup = Some(warmup);
        self
    }

    /// What must be true of the measured part of a run with a warm-up, and of the warm-up itself.
    pub fn check_parts(&self, outcome: &Outcome) {
        for counts in [outcome.totals.messages, outcome.totals.warmup] {
            let ended = counts.accepted + counts.not_accepted() + counts.cut;
            assert_eq!(counts.taken, ended, "each message that was taken has one outcome: {counts:?}");
            assert!(counts.sent <= counts.taken, "{counts:?}");
        }
        self.check_recipients(outcome);
        check_latencies(&outcome.totals);
    }

    /// What must be true of every run.
    pub fn check(&self, outcome: &Outcome) {
        self.check_messages(outcome);
        self.check_recipients(outcome);
        self.check_connections(outcome);
        check_latencies(&outcome.totals);
        if self.kind != Weather::Hostile {
            self.check_server(outcome);
            self.check_contents(outcome);
        }
    }

    fn check_messages(&self, outcome: &Outcome) {
        let messages = outcome.totals.messages;
        let ended = messages.accepted + messages.not_accepted() + messages.cut;
        assert_eq!(messages.taken, ended, "each message that was taken has one outcome: {messages:?}");
        assert!(messages.sent <= messages.taken, "{messages:?}");
        match self.spec.limit {
            Limit::Messages(asked) => {
                assert!(messages.taken + messages.missed <= asked, "{messages:?} of {asked}");
                let is_whole = messages.taken == asked && messages.missed == 0;
                assert!(is_whole || self.stop_ns.is_some(), "{messages:?} of {asked}");
            }
            Limit::Duration(_) if outcome.job.is_open_loop() && self.stop_ns.is_none() => {
                assert_eq!(messages.taken + messages.missed, self.due(&outcome.job), "{messages:?}");
            }
            Limit::Duration(_) => {}
        }
        if !outcome.job.is_open_loop() {
            assert_eq!(messages.missed, 0, "nothing is missed in a closed loop");
        }
        if self.kind == Weather::Kind && self.stop_ns.is_none() {
            assert_eq!((messages.failed, messages.cut), (0, 0), "{:?}", outcome.totals.errors);
            assert_eq!(outcome.totals.errors, []);
        }
    }

    /// How many messages the whole schedule has.
    fn due(&self, job: &Job) -> u64 {
        let count = |mut pacer: timecop::load::Pacer| {
            while pacer.take(Instant::NEVER).is_some() {}
            pacer.taken()
        };
        job.split(self.spec.connections, self.shards).into_iter().map(|share| count(share.pacer)).sum()
    }

    fn check_recipients(&self, outcome: &Outcome) {
        let (recipients, messages) = (outcome.totals.recipients, outcome.totals.messages);
        let answered = messages.accepted + messages.deferred + messages.rejected;
        let tallied = recipients.accepted + recipients.deferred + recipients.rejected;
        assert_eq!(tallied, answered * u64::from(self.spec.recipients.per_message()), "{recipients:?} {messages:?}");
        assert!(recipients.accepted >= messages.accepted, "an accepted message has a recipient: {recipients:?}");
    }

    fn check_connections(&self, outcome: &Outcome) {
        for gauges in &outcome.gauges {
            assert_eq!((gauges.held, gauges.waiting), (0, 0), "{gauges:?}");
        }
        let held_max: u64 = outcome.gauges.iter().map(|gauges| gauges.held_max).sum();
        assert!(held_max <= u64::from(self.spec.connections), "{:?}", outcome.gauges);
        let connections = outcome.totals.connections;
        assert_eq!((connections.opened, outcome.totals.bytes_sent), (outcome.connected, outcome.written));
        assert!(connections.held_max <= connections.opened, "{connections:?}");
        let first = connections.opened - connections.reopened;
        assert!(
            first <= u64::from(self.spec.connections) && (first > 0) == (connections.opened > 0),
            "{connections:?}"
        );
    }

    fn check_server(&self, outcome: &Outcome) {
        let (accepted, counts) = (outcome.totals.messages.accepted, outcome.counts);
        let cut = outcome.totals.messages.cut;
        // A reply that came for a message that was cut meanwhile is heard by nobody.
        assert_eq!(accepted, outcome.accepted_heard, "of {counts:?}");
        assert!(counts.messages >= accepted && outcome.totals.recipients.accepted <= counts.recipients, "{counts:?}");
        if self.kind == Weather::Kind && cut == 0 {
            assert_eq!(counts.messages, accepted, "nothing was lost");
            assert_eq!(counts.recipients, outcome.totals.recipients.accepted);
        }
        let broken = outcome.totals.messages.failed + cut;
        assert!(counts.messages <= accepted + broken, "a message counts as accepted here or as failed: {counts:?}");
        assert_eq!(outcome.kept.len() as u64, counts.messages);
        let is_mild = self.message_bytes_max > 700 && self.kind == Weather::Kind && cut == 0;
        if is_mild && self.stop_ns.is_none() {
            assert_eq!(counts.errors, 0, "the client keeps to the protocol");
        }
    }

    fn check_contents(&self, outcome: &Outcome) {
        let mut seen = HashSet::new();
        // As the messages are before they are dot-stuffed.
        let template = content::messages(&self.spec, &circumstances(), true).expect("scenarios have valid jobs").0;
        let (mut dates, mut expected) = (DateCache::new(), Outgoing::new());
        for message in &outcome.kept {
            let text = String::from_utf8_lossy(message);
            let id = text.strip_prefix("Message-ID: <").and_then(|text| text.get(..16));
            let sequence =
                id.and_then(|id| u64::from_str_radix(id, 16).ok()).expect("a message begins with its number");
            assert!(seen.insert(sequence), "message {sequence} arrived twice");
            expected.clear();
            template.write(sequence, outcome.job.wall_start, &mut dates, &mut expected);
            let expected = expected.to_vec();
            assert_eq!(without_date(message), without_date(&expected), "message {sequence} as {text}");
        }
        if let Limit::Messages(asked) = self.spec.limit {
            assert!(seen.iter().all(|sequence| *sequence < asked));
        }
    }
}

fn circumstances() -> Circumstances {
    let (now, wall) = (Instant::from_ns(BEGIN_NS), WallTime::from_unix_ns(1_700_000_000_000_000_000));
    Circumstances { now, wall, run_id: RUN_ID, host: HOST.into(), audit: None }
}

fn without_date(message: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memmem::find(message, b"\r\nDate: ").expect("a message has a date");
    (&message[..at], &message[at + b"\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000".len()..])
}

fn check_latencies(totals: &Delta) {
    let messages = totals.messages;
    assert_eq!(totals.accepted.service.count(), messages.accepted, "an accepted message was begun");
    for (latencies, count) in [(&totals.accepted, messages.accepted), (&totals.other, messages.not_accepted())] {
        let Latencies { response, service, lateness, .. } = latencies;
        assert_eq!(response.count(), count);
        assert_eq!(service.count(), lateness.count());
        // A message that failed for want of a connection was never begun.
        if service.count() < count {
            continue;
        }
        let sum = |histogram: &timecop::measure::histogram::LatencyHistogram| histogram.summary().mean * count as f64;
        let (whole, parts) = (sum(response), sum(service) + sum(lateness));
        let error = (whole - parts).abs();
        assert!(error <= whole * 2e-3 + count as f64 * 4e-9, "response {whole} s is service + lateness {parts} s");
    }
    let accepted = &totals.accepted.phases;
    assert!(accepted[Phase::Final as usize].count() >= messages.accepted);
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
    lines.push(format!("{:?} {:?}", totals.messages, totals.recipients));
    lines.push(format!("{:?} {:?} {:?}", outcome.gauges, outcome.counts, totals.last_outcome));
    lines.push(format!("{} octets, {} connections, {} turns", totals.bytes_sent, outcome.connected, outcome.turns));
    lines
}

fn pick<'a, T>(random: &mut Pcg64, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

fn raw_spec(kind: Weather, random: &mut Pcg64) -> RawSpec {
    let is_open = random.random::<bool>();
    let by_time = one_in(random, 4);
    let ms = |ms: u64| Some(Duration::from_millis(ms));
    let mut raw = RawSpec {
        messages: (!by_time).then(|| random.random_range(1..=40)),
        duration: if by_time { ms(random.random_range(1..=30)) } else { None },
        connections: Some(random.random_range(1..=5)),
        recipients: (0..random.random_range(1..=7)).map(|i| format!("r{i}@example.com")).collect(),
        recipients_per_message: Some(random.random_range(1..=5)),
        messages_per_connection: *pick(random, &[None, None, Some(1), Some(3)]),
        pipelining: Some(!one_in(random, 3)),
        ..RawSpec::default()
    };
    if is_open {
        raw.rate = Some(*pick(random, &[5.0, 100.0, 1_000.0, 7_919.0]));
        raw.arrival = Some(*pick(random, &[Arrival::Constant, Arrival::Poisson]));
    }
    match random.random_range(0..4) {
        0 => raw.msg_size = Some(random.random_range(600..1_000)),
        1 => raw.msg_size = Some(random.random_range(8_000..9_000)),
        _ => {
            let lines =
                ["Subject: x\r\n\r\n", ".\r\n", "..dots\r\n", "text.\n", "\r\n", ".\r\n.\r\n", "Gr\u{fc}\u{df}e\n"];
            let mut body = b"From: <a@example.com>\r\nSubject: x\r\n\r\n".to_vec();
            (0..random.random_range(0..9)).for_each(|_| body.extend_from_slice(pick(random, &lines[1..]).as_bytes()));
            if one_in(random, 2) {
                // Values that begin with a dot, or are empty, at the beginning of a line, in the middle, and in a row.
                let lines = [
                    "%recipient.dot%end\r\n",
                    "%recipient.none%.dot\r\n",
                    "%recipient.none%%recipient.dot%.\r\n",
                    "a %recipient% b\r\n",
                    "%recipient.none%\r\n",
                    "%recipient.dot%\r\n",
                ];
                (0..random.random_range(1..9)).for_each(|_| body.extend_from_slice(pick(random, &lines).as_bytes()));
                let values = |i| format!(r#""r{i}@example.com":{{"dot":".","none":"","i":{i}}}"#);
                raw.recipient_variables = Some(format!("{{{},{}}}", values(0), values(3)).into_bytes());
                raw.expand = Some(one_in(random, 2));
                raw.recipients_per_message = raw.recipients_per_message.filter(|_| raw.expand == Some(false));
            }
            raw.body = Some(body);
        }
    }
    if one_in(random, 3) {
        raw.recipients.push("p{07..123}@example.com".into());
        raw.recipient_order = Some(*pick(random, &RecipientOrder::ALL));
    }
    if raw.msg_size.is_some() && one_in(random, 3) {
        raw.msg_size = None;
        let size = |bytes, weight| WeightedSize { bytes, weight };
        raw.msg_size_mix = Some(vec![size(650, 5), size(1_000, 3), size(9_000, 1)]);
    }
    if kind != Weather::Kind {
        raw.timeout = ms(*pick(random, &[20, 500, 3_000])).map(Into::into);
    }
    raw
}

fn conditions(kind: Weather, spec: &JobSpec, random: &mut Pcg64) -> Conditions {
    let most = *pick(random, &[1_000, 100_000, 2 * MS]);
    // A closed loop that runs by time goes through tens of thousands of messages where the network costs next to nothing.
    let least = if matches!(spec.limit, Limit::Duration(_)) { 20_000 } else { 500 };
    let mut conditions = Conditions {
        latency_ns: (least, most.max(least)),
        jitter_ns: *pick(random, &[0, 0, 1_000, 300_000]),
        split: *pick(random, &[0.0, 0.2, 0.9]),
        turn_ns: *pick(random, &[0, 100, 30_000]),
        dialing_max: *pick(random, &[0, 1, 2]),
        ..Conditions::default()
    };
    if kind == Weather::Faulty {
        let rare = [0.0, 0.0, 0.01, 0.1];
        conditions.refuse = *pick(random, &[0.0, 0.0, 0.1, 0.6, 1.0]);
        conditions.ignore = *pick(random, &rare);
        conditions.no_ports = *pick(random, &rare);
        conditions.reset = *pick(random, &rare);
        conditions.swallow = *pick(random, &rare);
        conditions.rude_close = *pick(random, &[0.0, 0.2, 1.0]);
    }
    conditions
}

fn settings(kind: Weather, random: &mut Pcg64) -> SinkSettings {
    let phases = ["banner", "ehlo", "mail", "rcpt", "data", "final"];
    let (mut delays, mut replies, mut drops) = (Vec::new(), Vec::new(), Vec::new());
    for phase in phases {
        if one_in(random, 4) {
            let delay = pick(random, &["1ms", "exp:2ms", "10us", "300ms"]);
            delays.push(format!("{phase}={delay}").parse().expect("the fault is valid"));
        }
        // In a kind world the server may still say no to a message, but not to a session.
        let of_message = !matches!(phase, "banner" | "ehlo");
        if one_in(random, 4) && (of_message || kind == Weather::Faulty) {
            let codes: &[u16] = if kind == Weather::Kind { &[450, 452, 550, 554] } else { &[421, 451, 503, 550] };
            let (code, percent) = (pick(random, codes), pick(random, &[5, 50, 100]));
            replies.push(format!("{phase}={code},{percent}%").parse().expect("the fault is valid"));
        }
        if one_in(random, 6) && kind == Weather::Faulty {
            let percent = pick(random, &[1, 10, 100]);
            drops.push(format!("{phase}={percent}%").parse().expect("the fault is valid"));
        }
    }
    let stall = one_in(random, 6).then(|| "40ms@5ms".parse().expect("the fault is valid"));
    let faults = Faults::new(delays, replies, drops, stall).expect("each fault was asked for once");
    SinkSettings { faults, keep_bytes_max: 1 << 20, ..SinkSettings::default() }
}
