//! Every probe from its start to its one outcome.
//!
//! A probe enters before it is sent and leaves none of four ways open: it arrived in time (`ok`) or not (`late`), it did
//! not arrive within its time limit (`lost`), or it was never accepted by the server that it was handed to
//! (`send_failed`). A lost one that arrives after all has become `late`. Whatever else arrives changes nothing. One that is
//! not there at its threshold is overdue: that it will not be in time is known then, whatever its outcome will be.
//!
//! While the process lives, times are those of the monotonic clock. Only a probe that was sent before a restart is
//! measured by the wall clock, and a difference that is negative then counts as skew and as no measurement. The time in
//! which nobody was there to take it is no part of its round trip and extends its deadlines.
//!
//! Servers that found nobody at our port come again only after a while. For as long what is late or lost is excused: it
//! is no reason to call anybody. Mail that was on its way is waited for by [`BACK_OFF_MIN`] at least and [`BACK_OFF_MAX`]
//! at most, since servers come again after as long as they have tried. Mail that was sent later is held up only by a
//! server that takes us for dead, for as long as we were, and for [`BACK_OFF_MIN`] at most. What a process sleeps
//! through that lives on ([`Table::slept`]) is down time as well; servers wait that long for an answer, up to
//! [`PATIENCE`]. Of a probe whose sending a restart cut off nobody knows whether it was sent, and it calls nobody ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::header::Token;
use super::hops::Hop;
use crate::time::{Instant, WallTime, duration_ns};

/// Probes of one route that may be outstanding.
pub const OUTSTANDING_MAX: usize = 1_000;
/// Ended probes of one route that are remembered, so that a later copy is known, and a lost one that arrives.
pub const ENDED_KEPT: usize = 1_000;
/// How long a server may hold mail back that found nobody at its first try, such as Postfix by its defaults: for
/// `minimal_backoff_time` (300 s) and until the next run of its queue (300 s).
pub const BACK_OFF_MIN: Duration = Duration::from_secs(600);
/// The same for mail that it has tried for long: `maximal_backoff_time` (4,000 s) and the next run of the queue.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(4_300);
/// So long a server waits for one that does not answer, at least, before it gives up and comes again later: Postfix for
/// the connection (`smtp_connect_timeout`), and ten times as long for a greeting.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// An arrival that was stamped longer than this before the end of a sleep shows that it was none of the probe's server.
const AWAKE_BEFORE: Duration = Duration::from_secs(1);
/// Characters of what a server said that are kept.
const DETAIL_CHARS_MAX: usize = 300;

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It arrived within the route's threshold.
    Ok,
    /// It arrived later.
    Late,
    /// It has not arrived within the route's time limit.
    Lost,
    /// The server that it was handed to did not accept it, or was not reached.
    SendFailed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 4] = [Outcome::Ok, Outcome::Late, Outcome::Lost, Outcome::SendFailed];

    /// The name in the API, the store and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Late => "late",
            Outcome::Lost => "lost",
            Outcome::SendFailed => "send_failed",
        }
    }
}

/// A part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Opening the TCP connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// AUTH.
    Auth,
    /// From MAIL to the reply to the message.
    Submit,
    /// From that reply to the end of data here. Zero where the message was here before the reply was there.
    Transit,
}

impl Leg {
    /// All of them, in the order of the way.
    pub const ALL: [Leg; 5] = [Leg::Connect, Leg::Tls, Leg::Auth, Leg::Submit, Leg::Transit];

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Leg::Connect => "connect",
            Leg::Tls => "tls",
            Leg::Auth => "auth",
            Leg::Submit => "submit",
            Leg::Transit => "transit",
        }
    }
}

/// How long the parts of a probe's way took, in seconds; `null` for one that it did not have, or has not reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Legs {
    /// Opening the TCP connection.
    pub connect_s: Option<f64>,
    /// The TLS handshake.
    pub tls_s: Option<f64>,
    /// AUTH.
    pub auth_s: Option<f64>,
    /// From MAIL to the reply to the message.
    pub submit_s: Option<f64>,
    /// From that reply to the end of data here.
    pub transit_s: Option<f64>,
}

impl Legs {
    /// One of them.
    pub fn get(&self, leg: Leg) -> Option<f64> {
        match leg {
            Leg::Connect => self.connect_s,
            Leg::Tls => self.tls_s,
            Leg::Auth => self.auth_s,
            Leg::Submit => self.submit_s,
            Leg::Transit => self.transit_s,
        }
    }
}

/// A probe, as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Its number.
    pub id: u64,
    /// Its route's name.
    pub route: String,
    /// When it was sent, in nanoseconds since 1970.
    pub sent_unix_ns: u64,
    /// Its place in the order in which all are sent: when it was sent, or later than the one before it where the wall clock
    /// was set back meanwhile.
    #[serde(default)]
    pub order: u64,
    /// What its header carries.
    pub nonce: u64,
    /// After so many nanoseconds it is lost.
    pub timeout_ns: u64,
    /// After so many nanoseconds it is late.
    pub threshold_ns: u64,
    /// So many nanoseconds of its way this service was down.
    pub down_ns: u64,
    /// Whether it was not there at its threshold.
    #[serde(default)]
    pub overdue: bool,
    /// Whether that was excused.
    #[serde(default)]
    pub excused: bool,
    /// Whether it is known how its sending ended.
    #[serde(default)]
    pub posted: bool,
    /// What became of it; `None` while it is outstanding.
    pub outcome: Option<Outcome>,
    /// From its start to its end of data here, without the time in which the service was down.
    pub round_trip_ns: Option<u64>,
    /// Whether the clocks before and behind a restart disagreed, so that it has no round trip.
    pub skewed: bool,
    /// The parts of its way.
    pub legs: Legs,
    /// Why it could not be sent, or what is doubtful about that.
    pub detail: Option<String>,
    /// Its Received headers.
    pub hops: Vec<Hop>,
}

/// A probe that is to be sent.
#[derive(Clone, Debug)]
pub struct NewProbe {
    /// Random, and not in use.
    pub id: u64,
    /// Random.
    pub nonce: u64,
    /// Its route's name.
    pub route: String,
    /// After so long it is lost.
    pub timeout: Duration,
    /// After so long it is late; less than `timeout`.
    pub threshold: Duration,
}

impl NewProbe {
    /// What its header says if it is sent at `wall`.
    pub fn token(&self, wall: WallTime) -> Token {
        Token { id: self.id, route: self.route.clone(), sent: wall, nonce: self.nonce }
    }
}

/// Why a probe cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartFault {
    /// The route has as many as it may have.
    #[error("the route has {OUTSTANDING_MAX} outstanding probes, as many as it may have; wait until some have ended")]
    Full,
    /// The id is in use.
    #[error("the id is in use")]
    Taken,
}

/// How the sending of a probe ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// The server has accepted it.
    Accepted {
        /// When its reply came.
        at: Instant,
    },
    /// It has not, and will not have.
    Failed(String),
    /// Nobody knows: its reply to the message did not come.
    Unsure(String),
}

/// An outcome that has come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The probe.
    pub id: u64,
    /// As [`Probe::order`].
    pub order: u64,
    /// Its route.
    pub route: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it had been lost before.
    pub was_lost: bool,
    /// What it took, where that is known.
    pub round_trip: Option<Duration>,
    /// Whether the clocks disagreed, so that it is not known.
    pub skewed: bool,
    /// Whether [`Table::overdue`] has said before that it would not be in time.
    pub was_overdue: bool,
    /// Whether its being overdue was excused.
    pub was_excused: bool,
    /// Whether this service was down of late, so that its being late or lost is no reason to call anybody; of one that
    /// could not be sent, whether the service was down while it was being sent.
    pub is_excused: bool,
}

/// A probe that was not there at its threshold, and may come yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The probe.
    pub id: u64,
    /// As [`Probe::order`].
    pub order: u64,
    /// Its route.
    pub route: String,
    /// As [`Ended::is_excused`].
    pub is_excused: bool,
}

/// What a message with a good header was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The probe has ended by it.
    Ended(Ended),
    /// It had arrived before.
    Duplicate,
    /// Its sending had failed, as far as the server had said.
    Unsent,
    /// Nobody knows it any more, or its header says other things than it did.
    Unknown,
    /// Nobody knows it, and it was sent at a time that has not come.
    Future,
}

/// All probes that are outstanding, and those that have ended of late.
#[derive(Debug, Default)]
pub struct Table {
    probes: BTreeMap<u64, Entry>,
    /// The same by route.
    routes: BTreeMap<String, OfRoute>,
    /// Those that are no longer kept, until somebody asks for them.
    forgotten: Vec<u64>,
    /// Until then new probes may be held up because this service was down.
    excused_until: Instant,
    /// That of the last probe that was sent.
    last_order: u64,
}

/// The probes of one route.
#[derive(Debug, Default)]
struct OfRoute {
    outstanding: BTreeSet<u64>,
    /// In the order in which they ended.
    ended: VecDeque<u64>,
}

#[derive(Debug)]
struct Entry {
    probe: Probe,
    /// `None` for one that was sent before a restart.
    started: Option<Instant>,
    /// When it is overdue.
    late_at: Instant,
    /// When it is lost.
    deadline: Instant,
    /// Until then its being late or lost is excused.
    excused_until: Instant,
    accepted: Option<Instant>,
    arrived: Option<Instant>,
    /// When the last sleep ended, and how much of that was down time of this probe.
    slept: Option<(Instant, Duration)>,
}

/// For how long mail that was on its way is excused after a down time.
fn back_off(down: Duration) -> Duration {
    down.clamp(BACK_OFF_MIN, BACK_OFF_MAX)
}

impl Table {
    /// What an earlier service left, which was last alive at `alive`, and is not told more often than when it starts.
    pub fn restored(probes: Vec<Probe>, now: Instant, wall: WallTime, alive: Option<WallTime>) -> Table {
        let wall_ns = wall.as_unix_ns();
        let down = Duration::from_nanos(alive.map_or(0, |alive| wall_ns.saturating_sub(alive.as_unix_ns())));
        let mut table = Table { excused_until: now + down.min(BACK_OFF_MIN), ..Table::default() };
        let mut probes = probes;
        probes.sort_by_key(|probe| probe.sent_unix_ns);
        for mut probe in probes {
            table.last_order = table.last_order.max(probe.order);
            let of_route = table.routes.entry(probe.route.clone()).or_default();
            if probe.outcome.is_some() {
                of_route.ended.push_back(probe.id);
            } else {
                of_route.outstanding.insert(probe.id);
                // One that was sent after the last sign of life lost less.
                let down_since = alive.map_or(0, WallTime::as_unix_ns).max(probe.sent_unix_ns);
                probe.down_ns = probe.down_ns.saturating_add(wall_ns.saturating_sub(down_since));
            }
            let waited = wall_ns.saturating_sub(probe.sent_unix_ns);
            let until = |limit_ns: u64| {
                now + Duration::from_nanos(limit_ns.saturating_add(probe.down_ns).saturating_sub(waited))
            };
            let back_off = back_off(Duration::from_nanos(probe.down_ns));
            let entry = Entry {
                started: None,
                late_at: until(probe.threshold_ns),
                deadline: until(probe.timeout_ns),
                excused_until: if probe.posted { now + back_off } else { Instant::NEVER },
                accepted: None,
                arrived: None,
                slept: None,
                probe,
            };
            table.probes.insert(entry.probe.id, entry);
        }
        table.forget_old();
        table
    }

    /// Enters a probe that is about to be sent: its round trip begins at `now`, and its header says `wall`.
    ///
    /// # Errors
    ///
    /// It cannot be entered, and must not be sent.
    pub fn start(&mut self, new: NewProbe, now: Instant, wall: WallTime) -> Result<Token, StartFault> {
        if self.outstanding(&new.route) >= OUTSTANDING_MAX {
            return Err(StartFault::Full);
        }
        if self.probes.contains_key(&new.id) {
            return Err(StartFault::Taken);
        }
        let token = new.token(wall);
        self.last_order = self.next_order(wall);
        let probe = Probe {
            id: new.id,
            route: new.route.clone(),
            sent_unix_ns: wall.as_unix_ns(),
            order: self.last_order,
            nonce: new.nonce,
            timeout_ns: duration_ns(new.timeout),
            threshold_ns: duration_ns(new.threshold),
            down_ns: 0,
            overdue: false,
            excused: false,
            posted: false,
            outcome: None,
            round_trip_ns: None,
            skewed: false,
            legs: Legs::default(),
            detail: None,
            hops: Vec::new(),
        };
        let entry = Entry {
            probe,
            started: Some(now),
            late_at: now + new.threshold,
            deadline: now + new.timeout,
            excused_until: self.excused_until,
            accepted: None,
            arrived: None,
            slept: None,
        };
        self.probes.insert(new.id, entry);
        self.routes.entry(new.route).or_default().outstanding.insert(new.id);
        Ok(token)
    }

    /// The [`Probe::order`] of a probe that is sent now.
    pub fn next_order(&self, wall: WallTime) -> u64 {
        wall.as_unix_ns().max(self.last_order.saturating_add(1))
    }

    /// This process did not run from `from` to `until`: it was stopped, or had no CPU. Until what has arrived meanwhile
    /// was taken, nothing should be given up.
    pub fn slept(&mut self, from: Instant, until: Instant) {
        let down = until - from;
        let excused = if down <= PATIENCE { down } else { back_off(down) };
        self.excused_until = self.excused_until.max(until + down.min(BACK_OFF_MIN));
        let ids: Vec<u64> = self.outstanding_ids().collect();
        for id in ids {
            let entry = self.probes.get_mut(&id).expect("an outstanding probe is kept");
            let down = until - entry.started.map_or(from, |started| started.max(from));
            entry.probe.down_ns = entry.probe.down_ns.saturating_add(duration_ns(down));
            entry.late_at += down;
            entry.deadline += down;
            entry.excused_until = entry.excused_until.max(until + excused);
            entry.slept = Some((until, down));
        }
    }

    /// Takes a message whose header is good: `arrived` is its end of data, `wall` the same by the wall clock.
    pub fn arrived(&mut self, token: &Token, arrived: Instant, wall: WallTime, hops: Vec<Hop>) -> Arrival {
        let Some(entry) = self.probes.get_mut(&token.id).filter(|entry| entry.is(token)) else {
            return if token.sent > wall { Arrival::Future } else { Arrival::Unknown };
        };
        match entry.probe.outcome {
            None | Some(Outcome::Lost) => {}
            Some(Outcome::SendFailed) => return Arrival::Unsent,
            Some(Outcome::Ok | Outcome::Late) => return Arrival::Duplicate,
        }
        let was_lost = entry.probe.outcome.is_some();
        // The server of the shard was awake, whatever control was.
        if let Some((_, down)) = entry.slept.filter(|(until, _)| arrived + AWAKE_BEFORE < *until) {
            entry.probe.down_ns = entry.probe.down_ns.saturating_sub(duration_ns(down));
        }
        let round_trip_ns = match entry.started {
            Some(started) => Some(arrived.ns_since(started).saturating_sub(entry.probe.down_ns)),
            None => wall
                .as_unix_ns()
                .checked_sub(token.sent.as_unix_ns())
                .and_then(|ns| ns.checked_sub(entry.probe.down_ns)),
        };
        let in_time = round_trip_ns.map_or(!entry.probe.overdue, |ns| ns <= entry.probe.threshold_ns);
        entry.arrived = Some(arrived);
        entry.probe.round_trip_ns = round_trip_ns;
        entry.probe.skewed = round_trip_ns.is_none();
        entry.probe.hops = hops;
        if let Some(accepted) = entry.accepted {
            entry.probe.legs.transit_s = Some((arrived - accepted).as_secs_f64());
        }
        let outcome = if in_time && !was_lost { Outcome::Ok } else { Outcome::Late };
        Arrival::Ended(self.end(token.id, outcome, arrived))
    }

    /// Takes how the sending of a probe ended, and how long its parts took.
    pub fn posted(&mut self, id: u64, sent: Sent, legs: Legs, now: Instant) -> Option<Ended> {
        let entry = self.probes.get_mut(&id)?;
        entry.probe.legs = Legs { transit_s: entry.probe.legs.transit_s, ..legs };
        entry.probe.posted = true;
        match sent {
            Sent::Accepted { at } => {
                entry.accepted = Some(at);
                entry.probe.legs.transit_s = entry.arrived.map(|arrived| (arrived - at).as_secs_f64());
                None
            }
            Sent::Unsure(detail) => {
                entry.probe.detail = Some(cut(&detail));
                None
            }
            Sent::Failed(detail) => {
                entry.probe.detail = Some(cut(&detail));
                // What arrived was sent, whatever its sender heard.
                entry.probe.outcome.is_none().then(|| self.end(id, Outcome::SendFailed, now))
            }
        }
    }

    /// What has passed its threshold and is still outstanding: each probe once. To be called before [`Table::expire`], so
    /// that what is lost was overdue.
    pub fn overdue(&mut self, now: Instant) -> Vec<Overdue> {
        let ids: Vec<u64> = self.outstanding_ids().collect();
        let entries = ids.into_iter().filter_map(|id| {
            let entry = self.probes.get_mut(&id)?;
            if entry.late_at >= now && entry.deadline > now {
                return None;
            }
            if std::mem::replace(&mut entry.probe.overdue, true) {
                return None;
            }
            entry.probe.excused = now < entry.excused_until;
            Some(Overdue {
                id,
                order: entry.probe.order,
                route: entry.probe.route.clone(),
                is_excused: entry.probe.excused,
            })
        });
        entries.collect()
    }

    /// Ends what has passed its deadline.
    pub fn expire(&mut self, now: Instant) -> Vec<Ended> {
        let over: Vec<u64> = self.waiting().filter(|(_, deadline)| *deadline <= now).map(|(id, _)| id).collect();
        over.into_iter().map(|id| self.end(id, Outcome::Lost, now)).collect()
    }

    fn end(&mut self, id: u64, outcome: Outcome, now: Instant) -> Ended {
        let entry = self.probes.get_mut(&id).expect("whoever ends a probe has just looked at it");
        let was = entry.probe.outcome.replace(outcome);
        debug_assert!(was.is_none() || (was, outcome) == (Some(Outcome::Lost), Outcome::Late), "{was:?} {outcome:?}");
        let ended = Ended {
            id,
            order: entry.probe.order,
            route: entry.probe.route.clone(),
            outcome,
            was_lost: was.is_some(),
            round_trip: entry.probe.round_trip_ns.map(Duration::from_nanos),
            skewed: entry.probe.skewed,
            was_overdue: entry.probe.overdue || was.is_some(),
            was_excused: entry.probe.excused,
            is_excused: match outcome {
                Outcome::SendFailed => entry.probe.down_ns > 0,
                _ => now < entry.excused_until,
            },
        };
        if was.is_none() {
            let of_route = self.routes.entry(ended.route.clone()).or_default();
            of_route.outstanding.remove(&id);
            of_route.ended.push_back(id);
            self.forget_old();
        }
        ended
    }

    fn forget_old(&mut self) {
        for of_route in self.routes.values_mut() {
            while of_route.ended.len() > ENDED_KEPT {
                let Some(id) = of_route.ended.pop_front() else { break };
                self.probes.remove(&id);
                self.forgotten.push(id);
            }
        }
    }

    /// Forgets what has ended of routes that there no longer are. What is outstanding of them stays until it has ended.
    pub fn keep_routes(&mut self, is_route: impl Fn(&str) -> bool) {
        let gone = self.routes.iter_mut().filter(|(route, _)| !is_route(route));
        for id in gone.flat_map(|(_, of_route)| of_route.ended.drain(..)) {
            self.probes.remove(&id);
            self.forgotten.push(id);
        }
        self.routes.retain(|route, of_route| is_route(route) || !of_route.outstanding.is_empty());
    }

    /// The probes that are no longer kept since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.forgotten)
    }

    /// A probe that is kept.
    pub fn get(&self, id: u64) -> Option<&Probe> {
        self.probes.get(&id).map(|entry| &entry.probe)
    }

    /// The probes of a route that are kept, the last one that was sent first, at most `most` of them.
    pub fn last(&self, route: &str, most: usize) -> Vec<&Probe> {
        let Some(of_route) = self.routes.get(route) else { return Vec::new() };
        let ids = of_route.outstanding.iter().chain(&of_route.ended);
        let mut probes: Vec<&Probe> = ids.filter_map(|&id| self.get(id)).collect();
        probes.sort_by_key(|probe| std::cmp::Reverse((probe.sent_unix_ns, probe.id)));
        probes.truncate(most);
        probes
    }

    /// How many probes of a route are outstanding.
    pub fn outstanding(&self, route: &str) -> usize {
        self.routes.get(route).map_or(0, |of_route| of_route.outstanding.len())
    }

    /// How many of them have passed their threshold.
    pub fn outstanding_overdue(&self, route: &str) -> usize {
        let ids = self.routes.get(route).into_iter().flat_map(|of_route| &of_route.outstanding);
        ids.filter(|id| self.get(**id).is_some_and(|probe| probe.overdue)).count()
    }

    /// When the last probe of a route arrived that was in time, by the wall clock.
    pub fn last_ok(&self, route: &str) -> Option<WallTime> {
        let probes = self.routes.get(route)?.ended.iter().filter_map(|&id| self.get(id));
        let in_time = probes.filter(|probe| probe.outcome == Some(Outcome::Ok));
        let arrived = |probe: &Probe| {
            let on_its_way = probe.round_trip_ns.unwrap_or(0).saturating_add(probe.down_ns);
            WallTime::from_unix_ns(probe.sent_unix_ns.saturating_add(on_its_way))
        };
        in_time.map(arrived).max()
    }

    /// When [`Table::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.waiting().map(|(_, deadline)| deadline).min()
    }

    /// The outstanding probes.
    pub fn outstanding_ids(&self) -> impl Iterator<Item = u64> {
        self.routes.values().flat_map(|of_route| &of_route.outstanding).copied()
    }

    /// The same with their deadlines.
    fn waiting(&self) -> impl Iterator<Item = (u64, Instant)> {
        self.outstanding_ids().filter_map(|id| Some((id, self.probes.get(&id)?.deadline)))
    }
}

impl Entry {
    /// Whether a token is this probe's, and not one that only has its number.
    fn is(&self, token: &Token) -> bool {
        let Probe { route, sent_unix_ns, nonce, .. } = &self.probe;
        (route, *sent_unix_ns, *nonce) == (&token.route, token.sent.as_unix_ns(), token.nonce)
    }
}

/// What others said, short and on one line.
fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
