//! What outlives the service: its jobs, with their states and last results, its probes and what is to be told about them,
//! in one SQLite file.
//!
//! Control never waits for the file. It leaves rows in memory, the newest of each job, and a thread of its own writes all
//! of them in one transaction. What cannot be written, because the disk is full or somebody else holds the file, waits and
//! is tried again once a second; jobs go on meanwhile, and [`Store::health`] says so. What waits is bounded by the number
//! of jobs, and that by the ids that were reserved: without a store that can be written, ids run out.
//!
//! The file is in WAL mode, so that a person may look at it with `sqlite3` while the service runs, and with
//! `synchronous=NORMAL`: whatever was written survives the end of the process, however it comes. A power cut may cost the
//! last seconds of states and results, not more, and never an id: their reservations are synced. SQLite moves the log into
//! the file at every 4 MB; only somebody who keeps a read transaction open hinders that, and the log grows as long as he does.

mod file;
mod kept;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_channel::Receiver;
use rusqlite::ErrorCode;
use thiserror::Error;

use self::file::StoreFile;
pub use self::kept::{Kept, Row, RowKey};
pub use self::look::{StoreState, look};
use crate::job::record::JobState;

/// How long a write waits for somebody else's lock, and how long after a failure the next one is tried.
const PATIENCE: Duration = Duration::from_secs(1);
/// Ids that are reserved at once.
pub const IDS_RESERVED: u64 = 100;
/// The next block is asked for when no more than so many ids are left of this one.
const IDS_LOW: u64 = IDS_RESERVED / 2;
/// What may be asked of the store's thread and not be answered yet; more is refused.
pub const ASKED_MAX: usize = 1_024;

/// A job, exactly as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// Its number, from [`Store::next_id`].
    pub id: u64,
    /// How it stands.
    pub state: JobState,
    /// What was asked for, as JSON.
    pub job: String,
    /// When it began, in nanoseconds since 1970.
    pub start_unix_ns: u64,
    /// When it ended; `None` while it runs.
    pub stop_unix_ns: Option<u64>,
    /// When its result was last written.
    pub totals_unix_ns: u64,
    /// What came of it so far, as JSON; left out where jobs are listed.
    pub result: Option<String>,
    /// What the result says of itself, where jobs are listed: it follows from `result` and is not written.
    pub verdict: Option<String>,
}

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder or the file cannot be made or found.
    #[error("store {}: {source}; name another file, or let this user write there", path.display())]
    File {
        /// The file, or its folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another service has it.
    #[error("store {}: in use by another timecop; stop that one, or give this one a store of its own", path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// A database of something else.
    #[error("store {}: a database, but not one of timecop; it was left as it is, name another file", path.display())]
    Foreign {
        /// The store's file.
        path: PathBuf,
    },
    /// Written by a later version.
    #[error(
        "store {}: expected schema {} or older, found {found}; it was left as it is, use a newer timecop or name another \
         file", path.display(), file::SCHEMA
    )]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// SQLite refused.
    #[error("store {}: {source}; {}", path.display(), remedy(source))]
    Sqlite {
        /// The store's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The thread could not be started.
    #[error("the store's thread could not be started: {0}")]
    Thread(std::io::Error),
    /// More was asked than is answered.
    #[error("the store is behind: {ASKED_MAX} requests wait for it; try again later")]
    Behind,
    /// The store's thread has ended.
    #[error("the store's thread has ended; restart the service")]
    Ended,
    /// The time for the last writes was over.
    #[error("{jobs} jobs or probes could not be written: {reason}")]
    Unwritten {
        /// Rows that are lost.
        jobs: usize,
        /// Why.
        reason: String,
    },
}

/// What the reader of an error can do.
fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "it was left as it is: move it away and start with an empty store, or recover it with `sqlite3 FILE .recover`"
        }
        Some(ErrorCode::DiskFull) => "free some space on its disk",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds a lock on it: find it with `fuser FILE`"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "let this user write the file and its folder"
        }
        _ => "look at the disk and at the system's log",
    }
}

/// The jobs that are kept. Dropping it writes what waits, once, without waiting for it; [`Store::close`] waits.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    asks: SyncSender<Ask>,
    ended: mpsc::Receiver<Result<(), StoreError>>,
    thread: JoinHandle<()>,
}

/// What the thread is woken for. Sender: control, which never waits. Loss: a lost `Look` is made good by whatever fills
/// the channel, since the thread looks after each; a `Read` that finds no room is answered with an error.
enum Ask {
    /// Something waits in [`Shared`].
    Look,
    /// A result is wanted.
    Read(u64, async_channel::Sender<Result<Option<String>, StoreError>>),
}

/// What control and the store's thread both hold. The lock is never held while SQLite works.
#[derive(Debug)]
struct Shared(Mutex<Desk>);

#[derive(Debug)]
struct Desk {
    /// Rows that have not been written, by id. Those that the thread is just writing are among them.
    waiting: BTreeMap<u64, Arc<StoredJob>>,
    /// Jobs whose rows are to go.
    forgotten: BTreeSet<u64>,
    /// Other rows that have not been written, the newest of each; `None` for one that is to go. Bounded by the rows that
    /// there are: what was put and dropped while nothing could be written leaves no trace.
    rows: BTreeMap<RowKey, Option<Arc<Row>>>,
    /// The rows of the file.
    in_file: BTreeSet<RowKey>,
    /// Who waits for all that was put so far; told when it is written, dropped never before.
    waiters: Vec<async_channel::Sender<()>>,
    /// Ids that may be given out.
    ids: Range<u64>,
    /// Those after them, once they are reserved.
    next_ids: Option<Range<u64>>,
    /// Why the last write failed; `None` when it did not.
    failing: Option<String>,
    /// When the store is closed, the time by which that must have happened.
    close_by: Option<Instant>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        // Nothing is left half done where this lock is held, so a panic elsewhere does not matter here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Leaves a row to be written, over an older one of the same job.
    fn put(&mut self, job: StoredJob) {
        self.waiting.insert(job.id, Arc::new(job));
    }

    fn forget(&mut self, id: u64) {
        self.waiting.remove(&id);
        self.forgotten.insert(id);
    }

    /// Forgets what was written, but for those of which a newer row has come meanwhile.
    fn written(&mut self, jobs: &[Arc<StoredJob>]) {
        for job in jobs {
            if self.waiting.get(&job.id).is_some_and(|waiting| Arc::ptr_eq(waiting, job)) {
                self.waiting.remove(&job.id);
            }
        }
    }

    fn drop_row(&mut self, key: RowKey) {
        match self.in_file.contains(&key) {
            true => self.rows.insert(key, None),
            false => self.rows.remove(&key),
        };
    }

    /// As [`Desk::written`], for rows of other kinds.
    fn rows_written(&mut self, rows: &[(RowKey, Option<Arc<Row>>)]) {
        for (key, row) in rows {
            match row {
                Some(_) => self.in_file.insert(key.clone()),
                None => self.in_file.remove(key),
            };
            // It was dropped while it was being written.
            if row.is_some() && !self.rows.contains_key(key) {
                self.rows.insert(key.clone(), None);
            }
            let is_the_same = self.rows.get(key).is_some_and(|waiting| match (waiting, row) {
                (Some(waiting), Some(row)) => Arc::ptr_eq(waiting, row),
                (waiting, row) => waiting.is_none() && row.is_none(),
            });
            if is_the_same {
                self.rows.remove(key);
            }
        }
    }

    fn needs_ids(&self) -> bool {
        self.next_ids.is_none() && self.ids.end - self.ids.start <= IDS_LOW
    }
}

/// How long the store's thread waits, and in tests how far the file may grow.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For somebody else's lock.
    busy: Duration,
    /// After a failure.
    retry: Duration,
    /// The most pages of the file; `None` is SQLite's own limit.
    pages_max: Option<u32>,
}

impl Store {
    /// Opens or makes the file, and its folder, for this user alone, and takes it: no second service can. Jobs found
    /// running become interrupted, with the time of their last totals as their stop. All but the `kept` newest are
    /// forgotten; these come back without their results, newest first. Blocks; a file that is not a store, or a newer
    /// one, is left as it is.
    pub fn open(path: &Path, kept: u64) -> Result<(Store, Kept), StoreError> {
        Store::open_within(path, kept, Limits { busy: PATIENCE, retry: PATIENCE, pages_max: None })
    }

    fn open_within(path: &Path, kept: u64, limits: Limits) -> Result<(Store, Kept), StoreError> {
        let mut file = StoreFile::open(path, limits)?;
        let (ids, jobs) = file.begin(kept)?;
        let kept = file.kept(jobs)?;
        let desk = Desk {
            waiting: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            rows: BTreeMap::new(),
            in_file: kept.keys().collect(),
            waiters: Vec::new(),
            ids,
            next_ids: None,
            failing: None,
            close_by: None,
        };
        let shared = Arc::new(Shared(Mutex::new(desk)));
        let (asks, asked) = mpsc::sync_channel(ASKED_MAX);
        let (end, ended) = mpsc::sync_channel(1);
        let mut writer = Writer { file, shared: Arc::clone(&shared), retry: limits.retry, retry_at: None };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            writer.run(&asked);
            let outcome = writer.finish();
            // The file, and with it the lock, is free before anybody hears of it.
            drop(writer);
            let _ = end.send(outcome);
        });
        let thread = thread.map_err(StoreError::Thread)?;
        Ok((Store { shared, asks, ended, thread }, kept))
    }

    /// Keeps a job as it now stands; never blocks.
    pub fn put(&self, job: StoredJob) {
        self.shared.lock().put(job);
        self.look();
    }

    /// Keeps a job no longer. Which ones are, its owner alone decides; the store trims only when it opens.
    pub fn forget(&self, id: u64) {
        self.shared.lock().forget(id);
        self.look();
    }

    /// Keeps a row of another kind than a job, over an older one of the same key; never blocks.
    pub fn keep(&self, key: RowKey, row: Row) {
        self.shared.lock().rows.insert(key, Some(Arc::new(row)));
        self.look();
    }

    /// Keeps such a row no longer.
    pub fn drop_row(&self, key: RowKey) {
        self.shared.lock().drop_row(key);
        self.look();
    }

    /// Says when all that was put so far is written, and synced: the receiver gets one message then. It is closed without
    /// one when the store ends, and at once when [`ASKED_MAX`] wait already. Never blocks.
    pub fn written(&self) -> Receiver<()> {
        let (teller, receiver) = async_channel::bounded(1);
        let mut desk = self.shared.lock();
        if desk.waiters.len() < ASKED_MAX {
            desk.waiters.push(teller);
        }
        drop(desk);
        self.look();
        receiver
    }

    /// Asks for a job's last result, be it written or not; `None` for a job without one, or one that is not kept. The
    /// receiver gets one answer; that it is closed without one means [`StoreError::Ended`].
    pub fn result(&self, id: u64) -> Receiver<Result<Option<String>, StoreError>> {
        let (answer, receiver) = async_channel::bounded(1);
        match self.asks.try_send(Ask::Read(id, answer)) {
            Err(TrySendError::Full(Ask::Read(_, answer))) => drop(answer.try_send(Err(StoreError::Behind))),
            Err(TrySendError::Disconnected(Ask::Read(_, answer))) => drop(answer.try_send(Err(StoreError::Ended))),
            _ => {}
        }
        receiver
    }

    /// A fresh id, which no job of this store has had or will have; `None` when the file could not be written for so
    /// long that no id is reserved any more. Never blocks.
    pub fn next_id(&self) -> Option<u64> {
        let mut desk = self.shared.lock();
        if desk.ids.is_empty()
            && let Some(next) = desk.next_ids.take()
        {
            desk.ids = next;
        }
        let id = desk.ids.next();
        let needs_ids = desk.needs_ids();
        drop(desk);
        if needs_ids {
            self.look();
        }
        id
    }

    /// Ids that can be given out without the file.
    pub fn ids_left(&self) -> u64 {
        let desk = self.shared.lock();
        [Some(&desk.ids), desk.next_ids.as_ref()].into_iter().flatten().map(|ids| ids.end - ids.start).sum()
    }

    /// Whether what waits can be written, or why not; good again as soon as it can.
    pub fn health(&self) -> Result<(), String> {
        if self.thread.is_finished() {
            return Err(StoreError::Ended.to_string());
        }
        self.shared.lock().failing.clone().map_or(Ok(()), Err)
    }

    /// Writes what waits, and ends the thread. Blocks, for no longer than `within`.
    pub fn close(self, within: Duration) -> Result<(), StoreError> {
        self.shared.lock().close_by = Some(Instant::now() + within);
        // The end of the channel is the sign to end.
        drop(self.asks);
        match self.ended.recv_timeout(within) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::Ended),
            Err(RecvTimeoutError::Timeout) => {
                let desk = self.shared.lock();
                let reason =
                    desk.failing.clone().unwrap_or_else(|| format!("the file did not answer within {within:?}"));
                Err(StoreError::Unwritten { jobs: desk.waiting.len() + desk.rows.len(), reason })
            }
        }
    }

    fn look(&self) {
        let _ = self.asks.try_send(Ask::Look);
    }
}

/// What is written at once: all of it, or nothing.
struct Batch<'a> {
    jobs: &'a [Arc<StoredJob>],
    forgotten: &'a BTreeSet<u64>,
    needs_ids: bool,
    rows: &'a [(RowKey, Option<Arc<Row>>)],
    /// Somebody waits until no power cut can undo it.
    synced: bool,
}

/// The store's thread.
struct Writer {
    file: StoreFile,
    shared: Arc<Shared>,
    /// How long to wait after a failure.
    retry: Duration,
    /// After a failure: when the next write is tried.
    retry_at: Option<Instant>,
}

impl Writer {
    /// Answers and writes until the store is closed or dropped.
    fn run(&mut self, asked: &mpsc::Receiver<Ask>) {
        loop {
            let ask = match self.retry_at {
                Some(at) => asked.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => asked.recv().map_err(RecvTimeoutError::from),
            };
            match ask {
                Ok(Ask::Read(id, answer)) => drop(answer.try_send(self.read(id))),
                Ok(Ask::Look) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.retry_at.is_none_or(|at| Instant::now() >= at) {
                self.write();
            }
        }
    }

    fn read(&self, id: u64) -> Result<Option<String>, StoreError> {
        let waiting = self.shared.lock().waiting.get(&id).and_then(|job| job.result.clone());
        if waiting.is_some() { Ok(waiting) } else { self.file.result(id) }
    }

    /// Writes all that waits and reserves ids where they run low: all of it, or nothing.
    fn write(&mut self) {
        let (jobs, forgotten, needs_ids, rows, waiters) = {
            let desk = self.shared.lock();
            let jobs = desk.waiting.values().cloned().collect::<Vec<_>>();
            let rows: Vec<_> = desk.rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
            (jobs, desk.forgotten.clone(), desk.needs_ids(), rows, desk.waiters.len())
        };
        if jobs.is_empty() && forgotten.is_empty() && !needs_ids && rows.is_empty() && waiters == 0 {
            return;
        }
        let batch = Batch { jobs: &jobs, forgotten: &forgotten, needs_ids, rows: &rows, synced: waiters > 0 };
        let written = self.file.write(&batch);
        let mut desk = self.shared.lock();
        match written {
            Ok(ids) => {
                desk.written(&jobs);
                desk.rows_written(&rows);
                desk.waiters.drain(..waiters).for_each(|waiter| {
                    // Whoever no longer waits has no use for it.
                    let _ = waiter.try_send(());
                });
                desk.forgotten.retain(|id| !forgotten.contains(id));
                if ids.is_some() {
                    desk.next_ids = ids;
                }
                if desk.failing.take().is_some() {
                    tracing::info!("the store can be written again");
                }
                self.retry_at = None;
            }
            Err(error) => {
                let reason = error.to_string();
                if desk.failing.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the store cannot be written; jobs go on, and what is to be kept waits");
                }
                desk.failing = Some(reason);
                self.retry_at = Some(Instant::now() + self.retry);
            }
        }
    }

    /// Writes what still waits: once, or when the store was closed as often as there is time for.
    fn finish(&mut self) -> Result<(), StoreError> {
        loop {
            self.write();
            let (jobs, failing, close_by) = {
                let desk = self.shared.lock();
                (desk.waiting.len() + desk.rows.len(), desk.failing.clone(), desk.close_by)
            };
            if jobs == 0 {
                self.file.checkpoint();
                return Ok(());
            }
            let left = close_by.map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(StoreError::Unwritten { jobs, reason: failing.unwrap_or_default() });
            }
            thread::sleep(self.retry.min(left));
        }
    }
}
