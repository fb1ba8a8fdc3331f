//! A sink's side of the audit: what has arrived of each run, put down by all of its shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::scan::{Found, Scan};
use super::sequences::{Inserted, Sequences};
use super::stamp::{Signer, Stamp, StampFault};
use crate::measure::histogram::{Digits, LatencyHistogram};
use crate::time::{Instant, WallTime, duration_ns};

/// Runs of which a sink keeps account at once. For a further one it forgets the one that was longest without arrivals.
pub const RUNS_MAX: usize = 16;
/// Runs that a sink remembers to have forgotten, so that nobody takes their mail for missing. When there are so many it takes
/// up no further one, and of that counts the messages.
pub const FORGOTTEN_MAX: usize = 4_096;
/// Altered messages of a run that are named.
pub const ALTERED_NAMED_MAX: usize = 100;
/// After how long an arrival is late, unless something else is said.
pub const LATE_AFTER: Duration = Duration::from_secs(60);
/// Sets of figures of a run; so many shards never wait for each other.
const TALLIES: usize = 16;

/// The same moment by both clocks of a process.
pub type Origin = (Instant, WallTime);

/// What a sink has seen, shared by its shards.
#[derive(Debug)]
pub struct Ledger {
    /// What the sink is known by, in whatever files it writes.
    id: u64,
    signer: Signer,
    late_after: Duration,
    /// Runs are taken up when their first message arrives, and not only those that were announced.
    takes_any: bool,
    /// Tells instants of this process from its wall clock.
    origin: OnceLock<Origin>,
    runs: Mutex<Runs>,
    /// How many runs are in account, for whoever does not want to wait.
    open: AtomicUsize,
    readers: AtomicUsize,
    strays: Strays,
}

/// Runs by their numbers.
#[derive(Debug, Default)]
struct Runs {
    kept: BTreeMap<u64, Arc<Arrivals>>,
    forgotten: BTreeSet<u64>,
}

/// Messages that belong to no run in account.
#[derive(Debug, Default)]
struct Strays {
    forged: AtomicU64,
    malformed: AtomicU64,
    unstamped: AtomicU64,
    other_runs: AtomicU64,
    unnamed_runs: AtomicU64,
}

/// The same as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrayCounts {
    /// With a stamp that the key has not made.
    pub forged: u64,
    /// With a stamp that says something else than ours do.
    pub malformed: u64,
    /// Without a stamp.
    pub unstamped: u64,
    /// Of runs that are not in account.
    pub other_runs: u64,
}

/// What has arrived of one run.
#[derive(Debug)]
pub struct Arrivals {
    /// When the run began, if it did in this process.
    sent_origin: Option<Origin>,
    /// What had strayed by then.
    strays_before: StrayCounts,
    /// When the newest message came, in nanoseconds of this process.
    newest_ns: AtomicU64,
    arrived: Sequences,
    tallies: [Mutex<Tally>; TALLIES],
}

/// What is counted of a run's arrivals.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Copies beyond the first.
    pub duplicate: u64,
    /// Copies with another body than was sent.
    pub altered: u64,
    /// The first of them.
    pub altered_sequences: Vec<u64>,
    /// First copies that were late.
    pub late: u64,
    /// First copies that came before they were sent.
    pub skewed: u64,
    /// From send to arrival, of all other first copies.
    pub end_to_end: LatencyHistogram,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            duplicate: 0,
            altered: 0,
            altered_sequences: Vec::new(),
            late: 0,
            skewed: 0,
            end_to_end: LatencyHistogram::new(Digits::Three),
        }
    }
}

impl Tally {
    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Tally) {
        self.duplicate += other.duplicate;
        self.altered += other.altered;
        let room = ALTERED_NAMED_MAX.saturating_sub(self.altered_sequences.len());
        self.altered_sequences.extend(other.altered_sequences.iter().take(room));
        self.late += other.late;
        self.skewed += other.skewed;
        self.end_to_end.merge(&other.end_to_end);
    }
}

impl Ledger {
    /// An account of nothing yet; `takes_any` run with the key, or only those that are announced by [`Ledger::open`]. No two
    /// sinks whose files may come together have one `id`: it is a random number.
    pub fn new(id: u64, signer: Signer, late_after: Duration, takes_any: bool) -> Ledger {
        Ledger {
            id,
            signer,
            late_after,
            takes_any,
            origin: OnceLock::new(),
            runs: Mutex::default(),
            open: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
            strays: Strays::default(),
        }
    }

    /// Says what the sink's instants are by the calendar, once, before anything arrives.
    pub fn begin(&self, origin: Origin) {
        let _ = self.origin.set(origin);
    }

    /// What the sink is known by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// After how long an arrival is late.
    pub fn late_after(&self) -> Duration {
        self.late_after
    }

    /// Whether messages are looked at at all.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.takes_any || self.open.load(Ordering::Relaxed) > 0
    }

    /// Takes up a run of this process, which began at `origin`; a run of that number that is there already is forgotten.
    pub fn open(&self, run: u64, origin: Origin) -> Arc<Arrivals> {
        let arrivals = Arc::new(Arrivals::new(Some(origin), self.strays()));
        let mut runs = lock(&self.runs);
        runs.kept.insert(run, Arc::clone(&arrivals));
        self.open.store(runs.kept.len(), Ordering::Relaxed);
        arrivals
    }

    /// Forgets a run, unless another one of that number has taken its place.
    pub fn close(&self, run: u64, arrivals: &Arc<Arrivals>) {
        let mut runs = lock(&self.runs);
        if runs.kept.get(&run).is_some_and(|own| Arc::ptr_eq(own, arrivals)) {
            runs.kept.remove(&run);
        }
        self.open.store(runs.kept.len(), Ordering::Relaxed);
    }

    /// The runs in account, by their numbers.
    pub fn runs(&self) -> Vec<(u64, Arc<Arrivals>)> {
        lock(&self.runs).kept.iter().map(|(run, arrivals)| (*run, Arc::clone(arrivals))).collect()
    }

    /// The runs that were in account and are no more, by their numbers.
    pub fn forgotten(&self) -> Vec<u64> {
        lock(&self.runs).forgotten.iter().copied().collect()
    }

    /// Messages of runs that are neither in account nor [`Ledger::forgotten`].
    pub fn unnamed_runs(&self) -> u64 {
        self.strays.unnamed_runs.load(Ordering::Relaxed)
    }

    /// The account of a run, which is taken up if there is room; else the message in hand is a stray.
    fn run(&self, run: u64) -> Option<Arc<Arrivals>> {
        let mut runs = lock(&self.runs);
        if let Some(arrivals) = runs.kept.get(&run) {
            return Some(Arc::clone(arrivals));
        }
        // The rest of a run's mail would be an account of nothing, so that one that was forgotten does not begin anew.
        let is_forgotten = runs.forgotten.contains(&run);
        if is_forgotten || !self.takes_any || !runs.make_room() {
            self.strays.other_runs.fetch_add(1, Ordering::Relaxed);
            self.strays.unnamed_runs.fetch_add(u64::from(!is_forgotten), Ordering::Relaxed);
            return None;
        }
        let arrivals = Arc::new(Arrivals::new(None, self.strays()));
        runs.kept.insert(run, Arc::clone(&arrivals));
        self.open.store(runs.kept.len(), Ordering::Relaxed);
        Some(arrivals)
    }

    /// What belongs to no run in account.
    pub fn strays(&self) -> StrayCounts {
        let Strays { forged, malformed, unstamped, other_runs, unnamed_runs: _ } = &self.strays;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StrayCounts {
            forged: read(forged),
            malformed: read(malformed),
            unstamped: read(unstamped),
            other_runs: read(other_runs),
        }
    }

    /// The same, without what was there when the run began.
    pub fn strays_since(&self, arrivals: &Arrivals) -> StrayCounts {
        let (now, before) = (self.strays(), arrivals.strays_before);
        StrayCounts {
            forged: now.forged - before.forged,
            malformed: now.malformed - before.malformed,
            unstamped: now.unstamped - before.unstamped,
            other_runs: now.other_runs - before.other_runs,
        }
    }

    /// The wall time at an instant of the sink.
    fn wall(&self, now: Instant) -> WallTime {
        let (start, wall) = self.origin.get().copied().unwrap_or_default();
        wall + (now - start)
    }
}

impl Runs {
    /// Whether there is room for one more run, now or because another one was forgotten.
    fn make_room(&mut self) -> bool {
        if self.kept.len() < RUNS_MAX {
            return true;
        }
        let idle = self.kept.iter().filter(|(_, arrivals)| arrivals.sent_origin.is_none());
        let idlest = idle.min_by_key(|(_, arrivals)| arrivals.newest_ns.load(Ordering::Relaxed)).map(|(run, _)| *run);
        let Some(idlest) = idlest.filter(|_| self.forgotten.len() < FORGOTTEN_MAX) else { return false };
        self.kept.remove(&idlest);
        self.forgotten.insert(idlest)
    }
}

impl Arrivals {
    fn new(sent_origin: Option<Origin>, strays_before: StrayCounts) -> Arrivals {
        let tallies = std::array::from_fn(|_| Mutex::default());
        let newest_ns = AtomicU64::new(0);
        Arrivals { sent_origin, strays_before, newest_ns, arrived: Sequences::new(), tallies }
    }

    /// Whether both ends are this process, whose clock then measures times.
    pub fn is_of_this_process(&self) -> bool {
        self.sent_origin.is_some()
    }

    /// The messages that have arrived.
    pub fn sequences(&self) -> &Sequences {
        &self.arrived
    }

    /// What was counted, by all shards.
    pub fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.tallies.iter().for_each(|tally| all.merge(&lock(tally)));
        all
    }

    fn add(&self, place: usize, stamp: &Stamp, altered: bool, delay_ns: Option<u64>, late_after: Duration) -> Inserted {
        let inserted = self.arrived.insert(stamp.sequence);
        let mut tally = lock(&self.tallies[place]);
        if altered {
            tally.altered += 1;
            if tally.altered_sequences.len() < ALTERED_NAMED_MAX {
                tally.altered_sequences.push(stamp.sequence);
            }
        }
        match (inserted, delay_ns) {
            (Inserted::Again, _) => tally.duplicate += 1,
            (_, None) => tally.skewed += 1,
            (_, Some(delay_ns)) => {
                tally.late += u64::from(delay_ns > duration_ns(late_after));
                tally.end_to_end.record(delay_ns);
            }
        }
        inserted
    }
}

/// A shard's eye on the messages of its connections, each known by a number.
#[derive(Debug)]
pub struct Reader {
    ledger: Arc<Ledger>,
    /// Which of the tallies is this shard's.
    place: usize,
    scans: Vec<Option<Box<Scan>>>,
    /// The connection that is being read from, and when that has arrived.
    current: usize,
    arrived: Instant,
    /// The current message is looked at.
    is_reading: bool,
    /// The run of the last message.
    last: Option<(u64, Arc<Arrivals>)>,
}

impl Reader {
    /// An eye for one more shard.
    pub fn new(ledger: Arc<Ledger>) -> Reader {
        let place = ledger.readers.fetch_add(1, Ordering::Relaxed) % TALLIES;
        Reader { ledger, place, scans: Vec::new(), current: 0, arrived: Instant::ZERO, is_reading: false, last: None }
    }

    /// What follows is of this connection, and has arrived at `arrived`.
    #[inline]
    pub fn attend(&mut self, connection: usize, arrived: Instant) {
        (self.current, self.arrived) = (connection, arrived);
        self.is_reading = self.scans.get(connection).is_some_and(Option::is_some);
    }

    /// A message is about to come.
    #[inline]
    pub fn begin(&mut self) {
        self.is_reading = self.ledger.is_open();
        if !self.is_reading {
            self.last = None;
            if let Some(scan) = self.scans.get_mut(self.current) {
                *scan = None;
            }
            return;
        }
        if self.current >= self.scans.len() {
            self.scans.resize_with(self.current + 1, || None);
        }
        self.scans[self.current].get_or_insert_default().clear();
    }

    /// Whether content is looked at.
    #[inline]
    pub fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// The next octets of the message, without dot-stuffing.
    #[inline]
    pub fn update(&mut self, octets: &[u8]) {
        if let Some(Some(scan)) = self.scans.get_mut(self.current) {
            scan.update(octets);
        }
    }

    /// The message has come to its end, and was accepted.
    #[inline]
    pub fn accepted(&mut self) {
        let Some(Some(scan)) = self.scans.get(self.current) else { return };
        let stray = match scan.finish(&self.ledger.signer) {
            Found::Stamped { stamp, altered } => return self.arrive(&stamp, altered),
            Found::Unstamped => &self.ledger.strays.unstamped,
            Found::Faulty(StampFault::Forged) => &self.ledger.strays.forged,
            Found::Faulty(StampFault::Malformed(_) | StampFault::Version) => &self.ledger.strays.malformed,
        };
        stray.fetch_add(1, Ordering::Relaxed);
    }

    fn arrive(&mut self, stamp: &Stamp, altered: bool) {
        if self.last.as_ref().is_none_or(|(run, _)| *run != stamp.run) {
            self.last = self.ledger.run(stamp.run).map(|arrivals| (stamp.run, arrivals));
        }
        let Some((_, arrivals)) = &self.last else { return };
        arrivals.newest_ns.store(self.arrived.as_ns(), Ordering::Relaxed);
        // In one process the difference is that of its monotonic clock: the wall clock's reading at the run's beginning
        // is in both, and falls out.
        let now = match arrivals.sent_origin {
            Some((start, wall)) => wall + (self.arrived - start),
            None => self.ledger.wall(self.arrived),
        };
        let delay_ns = now.as_unix_ns().checked_sub(stamp.sent.as_unix_ns());
        arrivals.add(self.place, stamp, altered, delay_ns, self.ledger.late_after);
    }
}

/// Whoever panicked has left numbers that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
