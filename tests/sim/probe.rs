//! Two hours of probes in virtual time: a wall clock that steps, a service that is killed and comes back, mail that is
//! late, lost, doubled, or refused, and routes that are changed under way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;
use timecop::alert::policy::{Action, Kind, RouteAlerts, Rule};
use timecop::probe::header::{Key, Token};
use timecop::probe::schedule::Schedule;
use timecop::probe::table::{Arrival, BACK_OFF_MAX, Ended, Legs, NewProbe, Outcome, Overdue, Probe, Sent, Table};
use timecop::time::{Instant, WallTime};

use crate::seeds::for_each_seed;

const S: u64 = 1_000_000_000;
/// How long probes are fired.
const HOURS_2: u64 = 7_200 * S;
/// After it, everything has had time to end: the time limit, and as often again as the service was down.
const END: u64 = 6 * HOURS_2;
const TIMEOUT: u64 = 600 * S;
const THRESHOLD: u64 = 60 * S;
const RULE: Rule = Rule { after: 1, well_for: 3 };
/// How often control looks.
const LOOK: u64 = S;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Look,
    /// The reply to a submission, or none that is of use.
    Posted(u64, u8),
    /// A copy of a probe reaches us, or finds nobody and comes again.
    Mail(u64),
    Forged(u64),
    Kill(u64),
    Revive,
    /// The process is stopped, and goes on after so long.
    Stop(u64),
    Wake,
    Step(i64),
    Reload,
}

struct World {
    random: Pcg64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    now: u64,
    /// What the wall clock is off.
    wall_off: i64,
    /// When the process began; `None` while there is none.
    process: Option<u64>,
    /// Since then, and until then, it is or was stopped; whatever comes meanwhile waits.
    stopped_from: u64,
    stopped_until: u64,
    /// The times in which it was, up to its end.
    stops: Vec<(u64, u64)>,
    /// When the service last said that it lives, by its wall clock.
    alive: WallTime,
    table: Table,
    schedule: Schedule,
    alerts: BTreeMap<String, RouteAlerts>,
    /// What outlives the process.
    stored: BTreeMap<u64, String>,
    /// By id: what was sent, in true time, and in which process.
    fired: BTreeMap<u64, (Token, u64, Option<u64>)>,
    outcomes: BTreeMap<u64, Vec<Outcome>>,
    was_overdue: BTreeSet<u64>,
    /// The probes that would not have been in time had the service never been away: nobody is called for another one.
    bad: BTreeSet<u64>,
    /// Those of which nothing is known but that they were to be sent.
    unposted: BTreeSet<u64>,
    /// Those that a kill kept from being handed over.
    unsent: BTreeSet<u64>,
    open: BTreeMap<(String, &'static str), bool>,
    /// By route: when those were sent that were in time, since the last one that was not.
    well: BTreeMap<String, Vec<u64>>,
    /// By route: when the first of those was sent that ended the last alert.
    cured: BTreeMap<String, u64>,
}

#[test]
fn every_probe_ends_once_whatever_clocks_restarts_and_mail_do() {
    for_each_seed("every_probe_ends_once", 0.02, run);
}

fn run(seed: u64) {
    let mut world = World {
        random: Pcg64::seed_from_u64(seed),
        queue: BinaryHeap::new(),
        sequence: 0,
        now: 0,
        wall_off: 0,
        process: Some(0),
        stopped_from: 0,
        stopped_until: 0,
        stops: Vec::new(),
        alive: WallTime::default(),
        table: Table::default(),
        schedule: Schedule::default(),
        alerts: BTreeMap::new(),
        stored: BTreeMap::new(),
        fired: BTreeMap::new(),
        outcomes: BTreeMap::new(),
        was_overdue: BTreeSet::new(),
        bad: BTreeSet::new(),
        unposted: BTreeSet::new(),
        unsent: BTreeSet::new(),
        open: BTreeMap::new(),
        well: BTreeMap::new(),
        cured: BTreeMap::new(),
    };
    world.reload();
    world.at(0, Event::Look);
    for _ in 0..world.random.random_range(0..6) {
        let (at, down) = (world.random.random_range(0..HOURS_2), world.random.random_range(S / 10..900 * S));
        world.at(at, Event::Kill(down));
    }
    for _ in 0..world.random.random_range(0..6) {
        let (at, down) = (world.random.random_range(0..HOURS_2), world.random.random_range(2 * S..900 * S));
        world.at(at, Event::Stop(down));
    }
    for _ in 0..world.random.random_range(0..6) {
        let (at, step) = (world.random.random_range(0..HOURS_2), world.random.random_range(-7_200..7_200));
        world.at(at, Event::Step(step * S as i64));
    }
    let at = world.random.random_range(0..HOURS_2);
    world.at(at, Event::Reload);
    while let Some(Reverse((at, _, event))) = world.queue.pop() {
        world.now = at;
        world.handle(event);
    }
    world.check();
}

impl World {
    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, event)));
    }

    fn instant(&self, process: u64) -> Instant {
        Instant::from_ns(self.now - process)
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_ns((1_700_000_000 * S + self.now).saturating_add_signed(self.wall_off))
    }

    fn handle(&mut self, event: Event) {
        let is_of_process =
            matches!(event, Event::Look | Event::Posted(..) | Event::Mail(_) | Event::Forged(_) | Event::Reload);
        if self.now < self.stopped_until && self.process.is_some() && (is_of_process || matches!(event, Event::Stop(_)))
        {
            // What waits in sockets and queues is dealt with at once. A server that has waited in vain comes again later, and
            // again, for who was stopped may be killed before going on.
            let waits = self.stopped_until - self.now > 30 * S && matches!(event, Event::Mail(_));
            let again = if waits { self.now + self.random.random_range(S..300 * S) } else { self.stopped_until + 1 };
            return self.at(again, event);
        }
        match (event, self.process) {
            (Event::Look, Some(process)) => self.look(process),
            (Event::Posted(id, how), Some(process)) if self.fired[&id].2 == Some(process) => {
                let sent = match how {
                    0 => Sent::Failed("550 no".to_owned()),
                    1 => Sent::Unsure("no reply".to_owned()),
                    _ => Sent::Accepted { at: self.instant(process) },
                };
                let ended = self.table.posted(id, sent, Legs::default(), self.instant(process));
                self.unposted.remove(&id);
                self.keep(id);
                ended.iter().for_each(|ended| self.ended(ended));
            }
            (Event::Mail(id), _) if self.unsent.contains(&id) => {}
            (Event::Mail(id), Some(process)) => {
                let token = self.fired[&id].0.clone();
                let arrival = self.table.arrived(&token, self.instant(process), self.wall(), Vec::new());
                match arrival {
                    Arrival::Ended(ended) => {
                        self.measured(&ended);
                        self.keep(id);
                        self.ended(&ended);
                    }
                    Arrival::Duplicate | Arrival::Unsent => {}
                    other => panic!("{other:?}: a probe of ours is known"),
                }
            }
            // Its server tries again later, as servers do.
            (Event::Mail(id), None) => {
                let again = self.now + self.random.random_range(S..300 * S);
                self.at(again, Event::Mail(id));
            }
            (Event::Forged(id), Some(process)) => {
                let Token { route, sent, nonce, .. } = self.fired[&id].0.clone();
                let other = Token { id: id ^ 1 << 60, route, sent, nonce };
                let arrival = self.table.arrived(&other, self.instant(process), self.wall(), Vec::new());
                assert!(matches!(arrival, Arrival::Unknown | Arrival::Future), "{arrival:?}");
                let value = other.write(&Key::new([1; 32]));
                assert!(Token::parse(&value, &Key::new([2; 32])).is_err());
            }
            (Event::Stop(down), Some(_)) => {
                (self.stopped_from, self.stopped_until) = (self.now, self.now + down);
                self.at(self.stopped_until, Event::Wake);
            }
            (Event::Wake, Some(process)) if self.now == self.stopped_until => {
                let from = Instant::from_ns(self.stopped_from - process);
                self.table.slept(from, self.instant(process));
                self.stops.push((self.stopped_from, self.now));
                let ids: Vec<u64> = self.table.outstanding_ids().collect();
                ids.into_iter().for_each(|id| self.keep(id));
            }
            (Event::Kill(down), Some(_)) => {
                self.process = None;
                self.stopped_until = self.now;
                // What was being sent has reached its server, or has not.
                let cut = self.unposted.iter().filter(|_| self.random.random());
                self.unsent.extend(cut);
                self.table = Table::default();
                self.at(self.now + down, Event::Revive);
            }
            (Event::Revive, None) => {
                self.process = Some(self.now);
                let probes: Vec<Probe> = self
                    .stored
                    .values()
                    .map(|text| serde_json::from_str(text).expect("what was stored can be read"))
                    .collect();
                self.table = Table::restored(probes, Instant::ZERO, self.wall(), Some(self.alive));
                self.schedule = Schedule::default();
                self.reload();
                self.at(self.now, Event::Look);
            }
            (Event::Step(step), _) => self.wall_off += step,
            (Event::Reload, Some(_)) => self.reload(),
            _ => {}
        }
    }

    fn reload(&mut self) {
        let intervals = [("fast", 10), ("slow", 60 + self.random.random_range(0..2))];
        let routes = intervals.map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
        let now = Instant::from_ns(self.now - self.process.expect("it is reloaded while it lives"));
        self.schedule.set(routes.into_iter(), now, &mut self.random);
    }

    fn look(&mut self, process: u64) {
        let now = self.instant(process);
        for overdue in self.table.overdue(now) {
            self.keep(overdue.id);
            self.overdue(&overdue);
        }
        for ended in self.table.expire(now) {
            assert!(ended.was_overdue, "{ended:?}");
            self.keep(ended.id);
            self.ended(&ended);
        }
        if self.now < HOURS_2 {
            for route in self.schedule.due(now) {
                self.fire(route, process);
            }
        }
        self.alive = self.wall();
        for id in self.table.take_forgotten() {
            self.stored.remove(&id);
        }
        if self.now < END {
            let again = self.now + if self.now < HOURS_2 { LOOK } else { 60 * LOOK };
            self.at(again, Event::Look);
        }
    }

    fn fire(&mut self, route: String, process: u64) {
        let (id, nonce) = (self.random.random_range(0..1 << 50), self.random.random());
        let new = NewProbe {
            id,
            nonce,
            route,
            timeout: Duration::from_nanos(TIMEOUT),
            threshold: Duration::from_nanos(THRESHOLD),
        };
        let token = self.table.start(new, self.instant(process), self.wall()).expect("there is room");
        self.fired.insert(id, (token, self.now, Some(process)));
        self.keep(id);
        let how = self.random.random_range(0..40_u8);
        let posted = self.now + self.random.random_range(S / 100..5 * S);
        self.at(posted, Event::Posted(id, how));
        self.unposted.insert(id);
        self.bad.insert(id);
        if how == 0 {
            return;
        }
        let copies = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2][self.random.random_range(0..10)];
        for _ in 0..copies {
            let most = [5, 5, 5, 5, 5, 300, 3_000][self.random.random_range(0..7)];
            let takes = self.random.random_range(S / 100..most * S);
            if takes <= THRESHOLD {
                self.bad.remove(&id);
            }
            self.at(self.now + takes, Event::Mail(id));
        }
        if self.random.random_range(0..20) == 0 {
            self.at(posted, Event::Forged(id));
        }
    }

    fn keep(&mut self, id: u64) {
        if let Some(probe) = self.table.get(id) {
            self.stored.insert(id, serde_json::to_string(probe).expect("it can be written"));
        }
    }

    /// How long the process was running since `sent`.
    fn awake_since(&self, sent: u64) -> u64 {
        let stopped = self.stops.iter().map(|(from, until)| until.saturating_sub(sent.max(*from)));
        self.now - sent - stopped.sum::<u64>()
    }

    /// What was measured is the truth, whatever the wall clock did.
    fn measured(&self, ended: &Ended) {
        let (_, sent, process) = &self.fired[&ended.id];
        let took = Duration::from_nanos(self.awake_since(*sent));
        if *process == self.process {
            // What is slept through by a probe that is given up already is not made out.
            let longest = if ended.was_lost { Duration::from_nanos(self.now - sent) } else { took };
            assert!(
                !ended.skewed && (took..=longest).contains(&ended.round_trip.expect("no skew")),
                "{ended:?} {took:?}"
            );
            let in_time = took.as_nanos() <= u128::from(THRESHOLD);
            assert_eq!(ended.outcome == Outcome::Ok, in_time && !ended.was_lost, "{ended:?}");
        } else {
            assert_eq!(ended.skewed, ended.round_trip.is_none(), "{ended:?}");
            if ended.skewed {
                assert_eq!(ended.outcome == Outcome::Ok, !ended.was_overdue, "known by its threshold alone: {ended:?}");
            }
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let outcomes = self.outcomes.entry(ended.id).or_default();
        outcomes.push(ended.outcome);
        assert!(
            matches!(outcomes[..], [_] | [Outcome::Lost, Outcome::Late]) && ended.was_lost == (outcomes.len() == 2),
            "{ended:?} {outcomes:?}"
        );
        let route = self.alerts.entry(ended.route.clone()).or_default();
        let kind = match ended.outcome {
            Outcome::Ok => {
                let actions = route.well(ended.order, RULE);
                let well = self.well.entry(ended.route.clone()).or_default();
                well.push(self.fired[&ended.id].1);
                if !actions.is_empty() {
                    assert_eq!(well.len(), RULE.well_for as usize, "{ended:?} {actions:?}");
                    let first = *well.iter().min().expect("there is one");
                    let cured = self.cured.entry(ended.route.clone()).or_default();
                    *cured = first.max(*cured);
                }
                return self.act(&ended.route, actions);
            }
            Outcome::Late if ended.was_lost => {
                let actions = route.found(ended.id);
                return self.act(&ended.route, actions);
            }
            Outcome::Late if ended.was_overdue => return,
            _ if ended.is_excused => return,
            Outcome::Late => Kind::Late,
            Outcome::Lost => Kind::Lost,
            Outcome::SendFailed => Kind::SendFailed,
        };
        self.call(ended.id, ended.order, &ended.route, kind);
    }

    /// A probe is a reason to call somebody, which it would be without our own down time as well; but not where it was sent
    /// before those that ended the last alert, whatever the wall clock did.
    fn call(&mut self, id: u64, order: u64, route: &str, kind: Kind) {
        assert!(self.bad.contains(&id), "{kind:?}: probe {id:x} would have been in time had we been there");
        let is_news = self.fired[&id].1 >= self.cured.get(route).copied().unwrap_or(0);
        let was_open = self.open.get(&(route.to_owned(), kind.name())).copied().unwrap_or(false);
        if is_news {
            self.well.remove(route);
        }
        let actions = self.alerts.entry(route.to_owned()).or_default().bad(id, order, kind, RULE);
        assert_eq!(actions.len(), usize::from(is_news && !was_open), "{kind:?} of {route}: probe {id:x} {actions:?}");
        self.act(route, actions);
    }

    /// A probe is overdue at its threshold and not before, whatever the wall clock does.
    fn overdue(&mut self, overdue: &Overdue) {
        let (_, sent, process) = &self.fired[&overdue.id];
        assert!(!self.outcomes.contains_key(&overdue.id), "{overdue:?} has ended");
        assert!(self.was_overdue.insert(overdue.id), "{overdue:?} twice");
        let waited = self.awake_since(*sent);
        if *process == self.process {
            assert!(waited > THRESHOLD && waited <= THRESHOLD + 60 * LOOK, "{overdue:?} after {waited}");
        }
        let since_start = self.now - self.process.expect("it lives");
        let since_away = since_start.min(self.now - self.stopped_until);
        let may_be_excused = u128::from(since_away) < BACK_OFF_MAX.as_nanos() || self.unposted.contains(&overdue.id);
        assert!(!overdue.is_excused || may_be_excused, "{overdue:?}");
        if !overdue.is_excused {
            self.call(overdue.id, overdue.order, &overdue.route, Kind::Late);
        }
    }

    fn act(&mut self, route: &str, actions: Vec<Action>) {
        for action in actions {
            let (kind, opens) = match action {
                Action::Trigger(kind) => (kind, true),
                Action::Resolve(kind) => (kind, false),
            };
            let is_open = self.open.entry((route.to_owned(), kind.name())).or_default();
            assert_ne!(*is_open, opens, "{action:?} of what is so already");
            *is_open = opens;
        }
    }

    fn check(&self) {
        assert!(self.fired.len() > 100, "{} probes were fired", self.fired.len());
        for (id, (token, ..)) in &self.fired {
            let outcomes = self.outcomes.get(id).map_or(&[][..], Vec::as_slice);
            assert!(!outcomes.is_empty(), "probe {id:x} of {} has no outcome", token.route);
        }
        assert_eq!(self.table.outstanding("fast") + self.table.outstanding("slow"), 0);
    }
}
