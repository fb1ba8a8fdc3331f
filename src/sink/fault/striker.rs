//! The rules in force, and what becomes of a question by them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use rand_pcg::Pcg64;

use super::counters::FaultCounters;
use super::greylist::{Greylist, hash};
use super::phase::{FaultPhase, TlsFault, phase_of};
use super::rule::{Action, Connections, Rule};
use crate::sink::capacity::RateLimit;
use crate::time::{Instant, duration_ns};
use crate::wire::smtp::server::{Capabilities, Question, Refusal};

/// Most rules in force; a set of them is the bits of a word.
pub const RULES_MAX: usize = 64;

/// The rules in force. Clones share what all shards of a sink must know of one another.
#[derive(Clone, Debug, Default)]
pub struct Faults(Option<Arc<Table>>);

#[derive(Debug)]
struct Table {
    rules: Vec<Armed>,
    open: Open,
    /// They do not outlive the table, and are handed on to the next one.
    counters: FaultCounters,
}

/// A rule, and what it remembers.
#[derive(Debug)]
struct Armed {
    rule: Rule,
    refusal: Option<Refusal>,
    rate: Option<RateLimit>,
    greylist: Option<Mutex<Greylist>>,
    struck: AtomicU64,
}

/// The connections of all shards.
#[derive(Debug, Default)]
struct Open {
    all: AtomicU32,
    /// As many as there are connections at most.
    of_address: Mutex<HashMap<IpAddr, u32>>,
}

impl Faults {
    /// The rules, of which there are [`RULES_MAX`] at most, in the order in which they are tried; what strikes is counted.
    /// `None` where there are more.
    pub fn new(rules: impl IntoIterator<Item = Rule>, counters: FaultCounters) -> Option<Faults> {
        let armed = |rule: Rule| Armed {
            refusal: rule.reply_line().map(|line| Refusal::new(line.into_bytes().into())),
            // It was read before.
            rate: rule.conditions.above.as_ref().and_then(|rate| rate.parse().ok()),
            greylist: rule.conditions.greylist.map(|_| Mutex::default()),
            struck: AtomicU64::new(0),
            rule,
        };
        let rules: Vec<Armed> = rules.into_iter().map(armed).collect();
        match rules.len() {
            0 => Some(Faults(None)),
            1..=RULES_MAX => Some(Faults(Some(Arc::new(Table { rules, open: Open::default(), counters })))),
            _ => None,
        }
    }

    /// Whether nothing goes wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each rule as it is written, and how often it has struck.
    pub fn rules(&self) -> impl Iterator<Item = (&Rule, u64)> {
        let rules = self.0.iter().flat_map(|table| &table.rules);
        rules.map(|armed| (&armed.rule, armed.struck.load(Relaxed)))
    }

    /// What is not to be offered.
    pub fn withheld(&self) -> Capabilities {
        let withheld = |all: Capabilities, (rule, _): (&Rule, u64)| match rule.action {
            Action::Without(capabilities) => all.and(capabilities),
            _ => all,
        };
        self.rules().fold(Capabilities::default(), withheld)
    }

    /// Whether some rule asks where a client comes from.
    pub fn want_addresses(&self) -> bool {
        self.rules().any(|(rule, _)| {
            rule.conditions.greylist.is_some() || rule.conditions.connections.is_some_and(|cap| cap.of_address)
        })
    }
}

/// What strikes one step of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// The connection is closed instead.
    pub drop: bool,
    /// The connection is reset instead.
    pub reset: bool,
    /// This is sent instead.
    pub refusal: Option<Refusal>,
    /// It is held for so long.
    pub hold: Duration,
    /// From then on the client is read at so many octets a second.
    pub slow: Option<u32>,
    /// The handshake fails like this.
    pub tls: Option<TlsFault>,
}

/// What a striker knows of a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Guest {
    is_open: bool,
    address: Option<IpAddr>,
    /// What the sender is known by.
    reverse_path: u64,
    /// The rules whose pattern a recipient of the transaction fits.
    fitting: u64,
    /// It is to be read so slowly.
    slow: Option<u32>,
}

/// The faults of one shard: its dice, and what it knows of its connections.
#[derive(Debug)]
pub struct Striker {
    table: Arc<Table>,
    random: Pcg64,
    /// When the sink started; rates count from it.
    start: Instant,
    /// By number of the connection; the last one there was bounds them.
    guests: Vec<Guest>,
    /// Whose question is asked.
    current: usize,
}

impl Striker {
    /// For a shard of a sink that started at `start`; `None` where there are no faults. `seed` repeats its rolls; each shard
    /// needs its own.
    pub fn new(faults: &Faults, start: Instant, seed: u64) -> Option<Box<Striker>> {
        let table = Arc::clone(faults.0.as_ref()?);
        let random = Pcg64::seed_from_u64(seed);
        Some(Box::new(Striker { table, random, start, guests: vec![Guest::default()], current: 0 }))
    }

    /// Other rules take the place of these. Connections stay known, and count for the new ones.
    pub fn replace(&mut self, faults: &Faults) {
        let Some(table) = &faults.0 else { return };
        self.table = Arc::clone(table);
        let guests = std::mem::take(&mut self.guests);
        self.guests = vec![Guest::default(); guests.len()];
        for (number, guest) in guests.into_iter().enumerate().filter(|(_, guest)| guest.is_open) {
            self.enter(number, guest.address);
            self.guests[number].reverse_path = guest.reverse_path;
        }
    }

    /// A connection is there, by a number that no other one has at the time.
    pub fn enter(&mut self, number: usize, address: Option<IpAddr>) {
        if number >= self.guests.len() {
            self.guests.resize(number + 1, Guest::default());
        }
        let address = address.map(|address| address.to_canonical());
        self.guests[number] = Guest { is_open: true, address, ..Guest::default() };
        self.table.open.all.fetch_add(1, Relaxed);
        if let Some(address) = address {
            *lock(&self.table.open.of_address).entry(address).or_default() += 1;
        }
    }

    /// A connection has gone.
    pub fn leave(&mut self, number: usize) {
        let Some(guest) = self.guests.get_mut(number).map(std::mem::take).filter(|guest| guest.is_open) else { return };
        self.table.open.all.fetch_sub(1, Relaxed);
        if let Some(address) = guest.address {
            let mut of_address = lock(&self.table.open.of_address);
            if let Some(connections) = of_address.get_mut(&address) {
                *connections -= 1;
                if *connections == 0 {
                    of_address.remove(&address);
                }
            }
        }
    }

    /// The next questions are those of this connection, which has entered.
    #[inline]
    pub fn attend(&mut self, number: usize) {
        self.current = number;
    }

    /// How slowly the connection in hand is to be read from now on, once.
    pub fn take_slow(&mut self) -> Option<u32> {
        self.guests.get_mut(self.current)?.slow.take()
    }

    /// What strikes the reply to a question of SMTP, which is no reply of a rule where the answer is no already.
    pub fn ask(&mut self, now: Instant, question: &Question<'_>, is_refused: bool) -> Struck {
        let to = match question {
            Question::Rcpt { forward_path } => Some(*forward_path),
            _ => None,
        };
        if let (Question::Mail { reverse_path, .. }, Some(guest)) = (question, self.guests.get_mut(self.current)) {
            (guest.reverse_path, guest.fitting) = (hash(reverse_path), 0);
        }
        let offers = matches!(question, Question::Ehlo { is_extended: true, .. });
        let struck = self.strike_if(now, phase_of(question), to, |action| match action {
            Action::Reply { .. } => !is_refused,
            Action::Without(_) => offers,
            _ => true,
        });
        if let Some(guest) = self.guests.get_mut(self.current) {
            guest.slow = struck.slow.or(guest.slow);
        }
        struck
    }

    /// A recipient was accepted: rules for it hold for its message, too.
    pub fn accepted(&mut self, forward_path: &[u8]) {
        let fits = |armed: &Armed| armed.rule.to.as_ref().is_some_and(|to| to.fits(forward_path));
        let fitting = self.table.rules.iter().enumerate().filter(|(_, armed)| fits(armed));
        let fitting = fitting.fold(0, |all, (number, _)| all | 1 << number);
        if let Some(guest) = self.guests.get_mut(self.current) {
            guest.fitting |= fitting;
        }
    }

    /// What strikes a step of the connection in hand; `to` is the recipient that it is about. Every rule that concerns it is
    /// tried, in their order: delays add up, and of the others the first one holds.
    pub fn strike(&mut self, now: Instant, phase: FaultPhase, to: Option<&[u8]>) -> Struck {
        self.strike_if(now, phase, to, |_| true)
    }

    fn strike_if(
        &mut self,
        now: Instant,
        phase: FaultPhase,
        to: Option<&[u8]>,
        may: impl Fn(&Action) -> bool,
    ) -> Struck {
        let Striker { table, random, start, guests, current } = self;
        let guest = guests.get(*current).copied().unwrap_or_default();
        let mut struck = Struck::default();
        // The rules that were taken up, a bit each.
        let mut taken: u64 = 0;
        let concerned = |armed: &Armed| armed.rule.phase == phase && may(&armed.rule.action);
        for (number, armed) in table.rules.iter().enumerate().filter(|(_, armed)| concerned(armed)) {
            let for_it = match (&armed.rule.to, to) {
                (None, _) => true,
                (Some(pattern), Some(to)) => pattern.fits(to),
                (Some(_), None) => guest.fitting & (1 << number) != 0,
            };
            if !for_it || !armed.holds(&table.open, &guest, to, *start, now, random) {
                continue;
            }
            taken |= u64::from(struck.take(armed, random)) << number;
        }
        let is_over = struck.drop || struck.reset || struck.refusal.as_ref().is_some_and(Refusal::closes);
        if is_over && struck.hold.is_zero() {
            struck.slow = None;
        }
        for armed in
            table.rules.iter().enumerate().filter(|(number, _)| taken & (1 << number) != 0).map(|(_, armed)| armed)
        {
            let happens = match armed.rule.action {
                Action::Slow { .. } => struck.slow.is_some(),
                // Another reply offers nothing.
                Action::Without(_) => !(struck.drop || struck.reset) && struck.refusal.is_none(),
                _ => true,
            };
            if happens {
                armed.struck.fetch_add(1, Relaxed);
                table.counters.add(phase, armed.rule.action.kind());
            }
        }
        struck
    }
}

impl Armed {
    /// Whether all of its conditions are true. The dice are thrown last.
    fn holds(
        &self,
        open: &Open,
        guest: &Guest,
        to: Option<&[u8]>,
        start: Instant,
        now: Instant,
        random: &mut impl Rng,
    ) -> bool {
        let conditions = &self.rule.conditions;
        let crowded = |cap: Connections| match (cap.of_address, guest.address) {
            (false, _) => open.all.load(Relaxed) > cap.most,
            (true, Some(address)) => lock(&open.of_address).get(&address).is_some_and(|open| *open > cap.most),
            (true, None) => false,
        };
        let early = |wait: Duration, list: &Mutex<Greylist>| {
            let key = Greylist::key(guest.address, guest.reverse_path, to.unwrap_or_default());
            lock(list).defers(key, now, wait)
        };
        conditions.connections.is_none_or(crowded)
            && conditions.greylist.zip(self.greylist.as_ref()).is_none_or(|(wait, list)| early(wait, list))
            && self.rate.as_ref().is_none_or(|rate| rate.admit(start, now).is_err())
            && conditions.percent.is_none_or(|percent| random.random_bool(percent / 100.0))
    }
}

impl Struck {
    /// Takes up what a rule does, if nothing that excludes it has been taken up before.
    fn take(&mut self, armed: &Armed, random: &mut impl Rng) -> bool {
        match &armed.rule.action {
            Action::Delay { mean, exponential: false } => self.hold += *mean,
            Action::Delay { mean, exponential: true } => {
                let factor: f64 = Exp1.sample(random);
                self.hold += Duration::from_nanos((duration_ns(*mean) as f64 * factor) as u64);
            }
            Action::Slow { bytes_per_s } => self.slow = Some(*bytes_per_s),
            Action::Without(_) => {}
            _ if self.drop || self.reset || self.refusal.is_some() || self.tls.is_some() => return false,
            Action::Reply { .. } => self.refusal = armed.refusal.clone(),
            Action::Drop => self.drop = true,
            Action::Reset => self.reset = true,
            Action::Tls(fault) => self.tls = Some(*fault),
        }
        true
    }
}

/// Nothing is done under these locks that could panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
