//! The store's SQLite file: its schema, and every statement on it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, TransactionBehavior, params};

use super::{Batch, IDS_RESERVED, Kept, Limits, StoreError, StoredJob, kept};
use crate::job::record::JobState;

/// The schema's version, in the file's `user_version`.
pub(super) const SCHEMA: i64 = 2;
/// The version before, which had jobs and no probes.
const JOBS_ONLY: i64 = 1;
/// Tells our files from other databases: "tcop", in the file's `application_id`.
pub(super) const APPLICATION: i64 = 0x7463_6f70;

const CREATE: &str = "
    CREATE TABLE jobs (
        id             INTEGER PRIMARY KEY,
        state          TEXT NOT NULL,
        job            TEXT NOT NULL,
        start_unix_ns  INTEGER NOT NULL,
        stop_unix_ns   INTEGER,
        totals_unix_ns INTEGER NOT NULL,
        result         TEXT
    ) STRICT;
    -- One row: the first id that has not been reserved.
    CREATE TABLE ids (free INTEGER NOT NULL CHECK (free > 0)) STRICT;
    INSERT INTO ids VALUES (1);";

const PUT: &str = "
    INSERT INTO jobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, job = excluded.job, start_unix_ns = excluded.start_unix_ns,
        stop_unix_ns = excluded.stop_unix_ns, totals_unix_ns = excluded.totals_unix_ns,
        result = excluded.result";

/// A job that ran, or that was stopped and still drained, which shows by that its result has no verdict, or, of a search,
/// that nothing has come of it yet.
const INTERRUPT: &str = "
    UPDATE jobs SET state = 'interrupted', stop_unix_ns = max(totals_unix_ns, start_unix_ns)
    WHERE state = 'running'
        OR (state = 'stopped' AND json_valid(result)
            AND coalesce(result ->> '$.verdict', result ->> '$.result') IS NULL)";

const TRIM: &str = "
    DELETE FROM jobs WHERE id NOT IN (SELECT id FROM jobs ORDER BY id DESC LIMIT ?1)";

const LIST: &str = "
    SELECT id, state, job, start_unix_ns, stop_unix_ns, totals_unix_ns,
        CASE WHEN json_valid(result)
            THEN coalesce(result ->> '$.verdict.result', result ->> '$.result')
        END
    FROM jobs ORDER BY id DESC";

/// The file, open and taken.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    connection: Connection,
    /// Beside the file, not on it: closing any other descriptor of a database would give SQLite's own locks away. Let go
    /// last, and by the kernel however the process ends.
    _taken: Flock<fs::File>,
}

impl StoreFile {
    /// Opens or makes the file, takes it, and makes sure that it is a store of this version.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<StoreFile, StoreError> {
        let path = make(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        let taken = take(&path)?;
        // Without SQLITE_OPEN_URI: a path is a path.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)
            .and_then(|connection| connection.busy_timeout(limits.busy).map(|()| connection))
            .map_err(|source| StoreError::Sqlite { path: path.clone(), source })?;
        let mut file = StoreFile { path, connection, _taken: taken };
        file.check_schema()?;
        file.configure(limits).map_err(|source| file.error(source))?;
        Ok(file)
    }

    /// Looks at the schema, and makes it in an empty file. Nothing is changed in a file that is not ours.
    fn check_schema(&mut self) -> Result<(), StoreError> {
        let look = |connection: &Connection| -> rusqlite::Result<(i64, i64, i64)> {
            let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            Ok((application, version, tables))
        };
        match look(&self.connection).map_err(|source| self.error(source))? {
            (0, 0, 0) => self.create().map_err(|source| self.error(source)),
            (APPLICATION, SCHEMA, _) => Ok(()),
            (APPLICATION, JOBS_ONLY, _) => self.add_kept().map_err(|source| self.error(source)),
            (APPLICATION, found, _) => Err(StoreError::Newer { path: self.path.clone(), found }),
            _ => Err(StoreError::Foreign { path: self.path.clone() }),
        }
    }

    fn create(&mut self) -> rusqlite::Result<()> {
        let create = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        create.execute_batch(CREATE)?;
        create.execute_batch(kept::CREATE)?;
        create.pragma_update(None, "application_id", APPLICATION)?;
        create.pragma_update(None, "user_version", SCHEMA)?;
        create.commit()
    }

    /// What version 2 has and version 1 had not.
    fn add_kept(&mut self) -> rusqlite::Result<()> {
        let add = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        add.execute_batch(kept::CREATE)?;
        add.pragma_update(None, "user_version", SCHEMA)?;
        add.commit()
    }

    /// What there is besides jobs, with those.
    pub(super) fn kept(&self, jobs: Vec<StoredJob>) -> Result<Kept, StoreError> {
        kept::read(&self.connection, jobs).map_err(|source| self.error(source))
    }

    fn configure(&self, limits: Limits) -> rusqlite::Result<()> {
        // It answers with the mode that it came to.
        self.connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        if let Some(pages) = limits.pages_max {
            self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        Ok(())
    }

    /// What a new service does first: interrupts, trims and reserves; then it reads all jobs, newest first.
    pub(super) fn begin(&mut self, kept: u64) -> Result<(Range<u64>, Vec<StoredJob>), StoreError> {
        self.try_begin(kept).map_err(|source| self.error(source))
    }

    fn try_begin(&mut self, kept: u64) -> rusqlite::Result<(Range<u64>, Vec<StoredJob>)> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let begin = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        begin.execute(INTERRUPT, [])?;
        begin.execute(TRIM, [signed(kept)])?;
        let ids = reserve(&begin)?;
        let jobs = begin.prepare(LIST)?.query_map([], stored_job)?.collect::<rusqlite::Result<Vec<StoredJob>>>()?;
        begin.commit()?;
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok((ids, jobs))
    }

    /// Writes these jobs and rows, deletes what is to go and, if asked, reserves ids: all of it, or nothing.
    pub(super) fn write(&mut self, batch: &Batch<'_>) -> Result<Option<Range<u64>>, StoreError> {
        self.try_write(batch).map_err(|source| self.error(source))
    }

    fn try_write(&mut self, batch: &Batch<'_>) -> rusqlite::Result<Option<Range<u64>>> {
        let &Batch { jobs, forgotten, needs_ids, rows, synced } = batch;
        // An id must not come again even after a power cut, so its reservation is synced before it is given out.
        self.connection.pragma_update(None, "synchronous", if needs_ids || synced { "FULL" } else { "NORMAL" })?;
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = write.prepare_cached(PUT)?;
            for job in jobs {
                put.execute(params![
                    signed(job.id),
                    job.state.name(),
                    job.job,
                    signed(job.start_unix_ns),
                    job.stop_unix_ns.map(signed),
                    signed(job.totals_unix_ns),
                    job.result,
                ])?;
            }
            let mut delete = write.prepare_cached("DELETE FROM jobs WHERE id = ?1")?;
            for &id in forgotten {
                delete.execute([signed(id)])?;
            }
        }
        kept::write(&write, rows)?;
        let ids = if needs_ids { Some(reserve(&write)?) } else { None };
        write.commit()?;
        Ok(ids)
    }

    /// A job's result, where it is kept and has one.
    pub(super) fn result(&self, id: u64) -> Result<Option<String>, StoreError> {
        let found = self
            .connection
            .prepare_cached("SELECT result FROM jobs WHERE id = ?1")
            .and_then(|mut select| select.query_row([signed(id)], |row| row.get::<_, Option<String>>(0)).optional());
        found.map(Option::flatten).map_err(|source| self.error(source))
    }

    /// Moves what the write-ahead log holds into the file and empties the log. A reader or a full disk may prevent it,
    /// which loses nothing: what the log holds is written, and the next service finds it.
    pub(super) fn checkpoint(&self) {
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), source }
    }
}

/// Makes the folder and the file where they are missing, for this user alone, and says which file it is.
fn make(path: &Path) -> std::io::Result<PathBuf> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // One store has one lock, by whatever links it was found.
    let path = fs::canonicalize(path)?;
    if fs::metadata(&path)?.is_file() { Ok(path) } else { Err(std::io::Error::other("not a regular file")) }
}

/// The file beside the store that is locked.
pub(super) fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    PathBuf::from(lock)
}

/// Takes the store for this process.
fn take(path: &Path) -> Result<Flock<fs::File>, StoreError> {
    let lock = lock_of(path);
    let failed = |source| StoreError::File { path: lock.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => StoreError::InUse { path: path.to_owned() },
        _ => failed(errno.into()),
    })
}

fn reserve(connection: &Connection) -> rusqlite::Result<Range<u64>> {
    // SQLite turns an integer that overflows into a REAL, which the STRICT table refuses: ids end, they do not come again.
    let sql = "UPDATE ids SET free = free + ?1 RETURNING free";
    let free = unsigned(connection.query_row(sql, [signed(IDS_RESERVED)], |row| row.get(0))?);
    Ok(free.saturating_sub(IDS_RESERVED)..free)
}

fn stored_job(row: &Row<'_>) -> rusqlite::Result<StoredJob> {
    let name: String = row.get(1)?;
    let state = JobState::parse(&name).ok_or_else(|| {
        let fault =
            format!("job {}: `{name}` is no state of a job", row.get_ref(0).map_or(0, |id| id.as_i64().unwrap_or(0)));
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, fault.into())
    })?;
    Ok(StoredJob {
        id: unsigned(row.get(0)?),
        state,
        job: row.get(2)?,
        start_unix_ns: unsigned(row.get(3)?),
        stop_unix_ns: row.get::<_, Option<i64>>(4)?.map(unsigned),
        totals_unix_ns: unsigned(row.get(5)?),
        result: None,
        verdict: row.get(6)?,
    })
}

/// SQLite's integers are signed. Times reach their end in 2262; ids do not reach it, see [`reserve`].
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
