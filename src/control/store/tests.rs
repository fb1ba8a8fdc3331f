//! The store against real files: what survives, what is refused, and what a full disk or a foreign lock does to it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(60);
/// Tried again at once, so that [`settle`] needs no clock.
const LIMITS: Limits = Limits { busy: Duration::ZERO, retry: Duration::ZERO, pages_max: None };

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/jobs.db");
    (folder, path)
}

fn open(path: &Path, kept: u64) -> (Store, Vec<StoredJob>) {
    let (store, kept) = open_all(path, kept);
    (store, kept.jobs)
}

/// With all that there is besides jobs.
fn open_all(path: &Path, kept: u64) -> (Store, Kept) {
    Store::open_within(path, kept, LIMITS).unwrap()
}

fn job(id: u64, state: JobState) -> StoredJob {
    StoredJob {
        id,
        state,
        job: format!(r#"{{"messages":{id}}}"#),
        start_unix_ns: 1_000,
        stop_unix_ns: (state != JobState::Running).then_some(3_000),
        totals_unix_ns: 2_000,
        result: Some(format!(r#"{{"accepted":{id}}}"#)),
        verdict: None,
    }
}

fn result(store: &Store, id: u64) -> Option<String> {
    store.result(id).recv_blocking().expect("the thread answers").unwrap()
}

/// Returns when everything put so far was tried: a read is answered before the write that follows it, so the second
/// answer comes after the first one's write.
fn settle(store: &Store) {
    result(store, 0);
    result(store, 0);
}

/// What the file would be after `kill -9`: a copy of it and its log while the store has it open.
fn as_killed(path: &Path) -> (TempDir, PathBuf) {
    let (folder, copy) = folder();
    fs::create_dir(copy.parent().unwrap()).unwrap();
    for end in ["", "-wal"] {
        let named = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        fs::copy(named(path), named(&copy)).unwrap();
    }
    (folder, copy)
}

fn ids(jobs: &[StoredJob]) -> Vec<u64> {
    jobs.iter().map(|job| job.id).collect()
}

#[test]
fn jobs_come_back_newest_first_and_without_their_results() {
    let (_folder, path) = folder();
    let (store, found) = open(&path, 10);
    assert_eq!(found, []);
    let (first, second) = (job(1, JobState::Finished), job(2, JobState::Failed));
    store.put(first.clone());
    store.put(second.clone());
    store.close(LONG).unwrap();
    let (store, found) = open(&path, 10);
    assert_eq!(found, [second, first.clone()].map(|job| StoredJob { result: None, ..job }));
    assert_eq!(result(&store, 1), first.result);
    assert_eq!(result(&store, 3), None);
}

#[test]
fn a_store_that_was_killed_opens_again_and_what_ran_was_interrupted_at_its_last_totals() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    store.put(job(1, JobState::Finished));
    store.put(job(2, JobState::Running));
    store.put(StoredJob { totals_unix_ns: 0, result: None, ..job(3, JobState::Running) });
    settle(&store);
    let (_copied, copy) = as_killed(&path);
    let (killed, found) = open(&copy, 10);
    let states: Vec<_> = found.iter().map(|job| (job.id, job.state, job.stop_unix_ns)).collect();
    assert_eq!(
        states,
        [
            (3, JobState::Interrupted, Some(1_000)),
            (2, JobState::Interrupted, Some(2_000)),
            (1, JobState::Finished, Some(3_000))
        ]
    );
    assert_eq!(result(&killed, 2), job(2, JobState::Running).result, "partial results are kept");
}

#[test]
fn ids_never_come_again() {
    let (_folder, path) = folder();
    let mut given = BTreeSet::new();
    let mut take = |store: &Store, count: u64| {
        for _ in 0..count {
            let id = store.next_id().unwrap();
            assert!(given.insert(id), "{id} came twice");
            if id.is_multiple_of(20) {
                settle(store);
            }
        }
    };
    let (store, _) = open(&path, 0);
    take(&store, 3 * IDS_RESERVED);
    let (_copied, killed) = as_killed(&path);
    drop(store);
    let (store, _) = open(&killed, 0);
    take(&store, 1);
    store.put(job(1, JobState::Finished));
    store.close(LONG).unwrap();
    let (store, found) = open(&killed, 0);
    assert_eq!(found, [], "no job is kept, and yet");
    take(&store, IDS_RESERVED);
}

#[test]
fn ids_end_when_the_store_cannot_be_written_and_go_on_when_it_can() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let given: Vec<u64> = std::iter::from_fn(|| store.next_id()).take(10_000).collect();
    assert_eq!(given.len() as u64, IDS_RESERVED);
    settle(&store);
    assert!(store.health().is_err());
    other.execute_batch("COMMIT").unwrap();
    settle(&store);
    assert_eq!(store.next_id(), Some(given.last().unwrap() + 1));
    assert_eq!(store.health(), Ok(()));
}

#[test]
fn the_last_id_is_the_greatest_that_sqlite_can_hold() {
    let (_folder, path) = folder();
    open(&path, 10).0.close(LONG).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE ids SET free = ?1", [i64::MAX - IDS_RESERVED as i64]).unwrap();
    let (store, _) = open(&path, 10);
    let given: Vec<u64> = std::iter::from_fn(|| store.next_id()).take(10_000).collect();
    assert_eq!((given.len() as u64, *given.last().unwrap()), (IDS_RESERVED, i64::MAX as u64 - 1));
    settle(&store);
    assert_eq!((store.ids_left(), store.next_id()), (0, None));
}

#[test]
fn what_is_forgotten_goes_and_a_store_that_keeps_fewer_forgets_the_others_when_it_opens() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 3);
    store.put(job(1, JobState::Running));
    for id in 2..=10 {
        store.put(job(id, JobState::Finished));
        settle(&store);
    }
    assert!(result(&store, 7).is_some(), "the store itself takes nothing away while it is open");
    store.forget(7);
    settle(&store);
    assert_eq!(result(&store, 7), None);
    {
        // A row that was never written is not written any more.
        let mut desk = store.shared.lock();
        desk.put(job(11, JobState::Finished));
        desk.forget(11);
        assert!(desk.waiting.is_empty());
    }
    settle(&store);
    assert_eq!((result(&store, 11), result(&store, 1).is_some()), (None, true));
    let (_copied, copy) = as_killed(&path);
    store.close(LONG).unwrap();
    let (_fewer, found) = open(&copy, 2);
    assert_eq!(ids(&found), [10, 9]);
}

#[test]
fn a_full_disk_keeps_rows_waiting_and_is_recovered_from() {
    let (_folder, path) = folder();
    let (store, _) = Store::open_within(&path, 10, Limits { pages_max: Some(40), ..LIMITS }).unwrap();
    let large = |id| StoredJob { result: Some("x".repeat(100_000)), ..job(id, JobState::Running) };
    store.put(large(1));
    settle(&store);
    assert_eq!(store.health(), Ok(()));
    store.put(large(2));
    settle(&store);
    let reason = store.health().unwrap_err();
    assert!(reason.contains("full") && reason.contains("free some space"), "{reason}");
    assert_eq!(result(&store, 2), large(2).result, "read from what waits");
    store.put(StoredJob { state: JobState::Finished, ..large(2) });
    let other = Connection::open(&path).unwrap();
    assert_eq!(other.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0)), Ok(1));
    assert_eq!(other.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)), Ok("ok".into()));
    other.execute("DELETE FROM jobs WHERE id = 1", []).unwrap();
    settle(&store);
    assert_eq!(store.health(), Ok(()));
    store.close(LONG).unwrap();
    let (store, found) = open(&path, 10);
    assert_eq!((ids(&found), found[0].state), (vec![2], JobState::Finished));
    assert_eq!(result(&store, 2), large(2).result);
}

#[test]
fn a_row_that_comes_while_its_older_one_is_written_is_written_next() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let mut desk = store.shared.lock();
    desk.put(job(1, JobState::Running));
    desk.put(job(2, JobState::Running));
    let writing: Vec<_> = desk.waiting.values().cloned().collect();
    desk.put(job(2, JobState::Finished));
    desk.written(&writing);
    assert_eq!(desk.waiting.values().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(2, JobState::Finished)]);
}

#[test]
fn a_locked_file_keeps_the_newest_row_of_each_job_waiting() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for accepted in 0..100 {
        store.put(StoredJob { result: Some(accepted.to_string()), ..job(1, JobState::Running) });
    }
    settle(&store);
    let reason = store.health().unwrap_err();
    assert!(reason.contains("locked") && reason.contains("fuser"), "{reason}");
    assert_eq!(store.shared.lock().waiting.len(), 1);
    other.execute_batch("COMMIT").unwrap();
    settle(&store);
    assert_eq!(store.health(), Ok(()));
    assert_eq!(store.shared.lock().waiting.len(), 0);
    assert_eq!(result(&store, 1).as_deref(), Some("99"));
}

#[test]
fn closing_a_store_that_cannot_be_written_ends_and_says_what_is_lost() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.put(job(1, JobState::Finished));
    settle(&store);
    let error = store.close(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, StoreError::Unwritten { jobs: 1, .. }), "{error}");
}

#[test]
fn two_services_never_share_a_store_by_whatever_name() {
    let (folder, path) = folder();
    let (store, _) = open(&path, 10);
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = Store::open_within(name, 10, LIMITS).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("data/jobs.db"), "{error}");
    }
    store.close(LONG).unwrap();
    open(&link, 10);
}

#[test]
fn the_folder_and_the_files_are_for_this_user_alone() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    store.put(job(1, JobState::Running));
    settle(&store);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = path.parent().unwrap();
    assert_eq!(mode(folder), 0o700);
    let modes: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| mode(&entry.unwrap().path())).collect();
    assert_eq!(modes, [0o600; 4], "the file, its log, the log's index, and the lock");
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let with = |sql: &str| {
        let (folder, path) = folder();
        fs::create_dir(path.parent().unwrap()).unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        (folder, path)
    };
    let garbage = folder();
    fs::create_dir(garbage.1.parent().unwrap()).unwrap();
    fs::write(&garbage.1, "no database at all, but long enough for the header of one").unwrap();
    let newer = folder();
    open(&newer.1, 10).0.close(LONG).unwrap();
    Connection::open(&newer.1).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    let cases = [
        (garbage, "move it away"),
        (newer, "found 9"),
        (with("CREATE TABLE theirs (x)"), "not one of timecop"),
        (with("CREATE TABLE theirs (x); PRAGMA user_version = 1"), "not one of timecop"),
    ];
    for ((_folder, path), expected) in cases {
        let before = fs::read(&path).unwrap();
        let error = Store::open_within(&path, 10, LIMITS).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("jobs.db"), "{error}");
        assert!(error.contains("left as it is"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn a_damaged_page_is_an_error_with_a_remedy() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    store.put(job(1, JobState::Finished));
    store.close(LONG).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[4_096..].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let error = Store::open_within(&path, 10, LIMITS).unwrap_err().to_string();
    assert!(error.contains("malformed") && error.contains(".recover"), "{error}");
}

#[test]
fn a_path_that_cannot_be_a_file_names_itself() {
    let (folder, _) = folder();
    let error = Store::open_within(folder.path(), 10, LIMITS).unwrap_err().to_string();
    assert!(error.starts_with(&format!("store {}: not a regular file", folder.path().display())), "{error}");
    assert!(!folder.path().with_extension("lock").exists(), "nothing is left beside it");
    let error = Store::open_within(Path::new("/proc/nowhere/jobs.db"), 10, LIMITS).unwrap_err().to_string();
    assert!(error.starts_with("store /proc/nowhere/jobs.db"), "{error}");
}

#[test]
fn a_reader_that_gave_up_holds_nobody_up() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    (0..10 * ASKED_MAX as u64).for_each(|id| drop(store.result(id)));
    store.put(job(1, JobState::Finished));
    store.close(LONG).unwrap();
    assert_eq!(ids(&open(&path, 10).1), [1]);
}

#[test]
fn the_log_does_not_grow_with_every_write() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let large = StoredJob { result: Some("x".repeat(100_000)), ..job(1, JobState::Running) };
    for _ in 0..200 {
        store.put(large.clone());
        settle(&store);
    }
    let log = fs::metadata(path.with_extension("db-wal")).unwrap().len();
    assert!(log < 8 << 20, "{log} octets of log after 20 MB of writes");
    store.close(LONG).unwrap();
    assert_eq!(fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len()), 0);
}

fn row(text: &str) -> Row {
    Row { subject: "r".to_owned(), sent_unix_ns: 5, outcome: Some("ok"), text: text.to_owned() }
}

#[test]
fn whoever_waits_for_a_row_is_told_when_a_killed_service_would_find_it() {
    let (_folder, path) = folder();
    let (store, found) = open_all(&path, 10);
    assert_eq!(found, Kept::default());
    store.keep(RowKey::Probe(u64::MAX), row("probe"));
    store.keep(RowKey::Event(7), row("seven"));
    store.keep(RowKey::Event(3), row("three"));
    store.keep(RowKey::Event(4), row("four"));
    store.keep(RowKey::Note("n".to_owned()), Row::note("old".to_owned()));
    store.keep(RowKey::Note("n".to_owned()), Row::note("new".to_owned()));
    store.drop_row(RowKey::Event(4));
    store.written().recv_blocking().expect("it is written");
    let (_copied, copy) = as_killed(&path);
    let (_store, found) = open_all(&copy, 10);
    assert_eq!(found.probes, [(u64::MAX, "probe".to_owned())]);
    assert_eq!(found.events, [(3, "three".to_owned()), (7, "seven".to_owned())]);
    assert_eq!(found.notes, BTreeMap::from([("n".to_owned(), "new".to_owned())]));
    store.drop_row(RowKey::Probe(u64::MAX));
    store.drop_row(RowKey::Note("n".to_owned()));
    store.written().recv_blocking().expect("it is written");
    store.close(LONG).unwrap();
    let (_store, found) = open_all(&path, 10);
    assert_eq!((found.probes.len(), found.events.len(), found.notes.len()), (0, 2, 0));
}

#[test]
fn nobody_is_told_that_a_row_is_written_while_it_cannot_be() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.keep(RowKey::Probe(1), row("probe"));
    let written = store.written();
    settle(&store);
    assert!(written.try_recv().is_err() && !written.is_closed(), "it waits");
    other.execute_batch("ROLLBACK").unwrap();
    written.recv_blocking().expect("it is written after all");
    let waiting: Vec<_> = (0..=ASKED_MAX).map(|_| store.written()).collect();
    store.close(LONG).unwrap();
    assert!(waiting.iter().filter(|receiver| receiver.try_recv().is_ok()).count() >= ASKED_MAX);
}

#[test]
fn a_store_of_jobs_alone_is_taken_over_with_its_jobs() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    store.put(job(1, JobState::Finished));
    store.close(LONG).unwrap();
    let older = "DROP TABLE probes; DROP TABLE alert_events; DROP TABLE notes; PRAGMA user_version = 1";
    Connection::open(&path).unwrap().execute_batch(older).unwrap();
    let (store, jobs) = open(&path, 10);
    assert_eq!(ids(&jobs), [1]);
    store.keep(RowKey::Probe(1), row("probe"));
    store.close(LONG).unwrap();
    assert_eq!(open_all(&path, 10).1.probes, [(1, "probe".to_owned())]);
}

/// While nothing can be written, what comes and goes must not pile up.
#[test]
fn rows_that_came_and_went_while_nothing_could_be_written_leave_no_trace() {
    let (_folder, path) = folder();
    let (store, _) = open_all(&path, 10);
    store.keep(RowKey::Probe(0), row("before"));
    store.written().recv_blocking().expect("it is written");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.drop_row(RowKey::Probe(0));
    for id in 1..10_000 {
        store.keep(RowKey::Probe(id), row("meanwhile"));
        store.drop_row(RowKey::Probe(id));
    }
    store.keep(RowKey::Probe(10_000), row("after"));
    assert_eq!(store.shared.lock().rows.len(), 2, "the last one, and that the first one is to go");
    other.execute_batch("ROLLBACK").unwrap();
    store.close(LONG).unwrap();
    let (store, found) = open_all(&path, 10);
    assert_eq!(found.probes, [(10_000, "after".to_owned())]);
    store.drop_row(RowKey::Probe(10_000));
    store.close(LONG).unwrap();
    assert_eq!(open_all(&path, 10).1.probes, [], "what was there before is known to be");
}

#[test]
fn a_job_that_was_stopped_and_had_not_drained_is_interrupted_too() {
    let (_folder, path) = folder();
    let (store, _) = open(&path, 10);
    let draining = job(1, JobState::Stopped);
    let drained = StoredJob { result: Some(r#"{"verdict":{}}"#.to_owned()), ..job(2, JobState::Stopped) };
    // What comes of a search has no verdict.
    let searched = StoredJob { result: Some(r#"{"result":"unfinished"}"#.to_owned()), ..job(3, JobState::Stopped) };
    let searching = StoredJob { result: Some(r#"{"result":null}"#.to_owned()), ..job(4, JobState::Stopped) };
    [draining, drained, searched, searching].into_iter().for_each(|job| store.put(job));
    settle(&store);
    let (_copy, killed) = as_killed(&path);
    let (_store, found) = open(&killed, 10);
    let states: Vec<_> = found.iter().map(|job| (job.id, job.state, job.stop_unix_ns)).collect();
    assert_eq!(
        states,
        [
            (4, JobState::Interrupted, Some(2_000)),
            (3, JobState::Stopped, Some(3_000)),
            (2, JobState::Stopped, Some(3_000)),
            (1, JobState::Interrupted, Some(2_000))
        ]
    );
}
