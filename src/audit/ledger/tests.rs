//! Accounts of what arrives: once, twice, altered, late, forged, of several runs, and joined with what was accepted.

use super::*;
use crate::audit::body::BodyHasher;
use crate::audit::file::{AuditFile, JoinError, NotKept, account};
use crate::audit::join;
use crate::audit::sent::Sent;
use crate::audit::stamp::{FIELD_BYTES, Key};
use crate::measure::audit::AuditClock;

const BODY: &str = "Hello\r\n";
/// When the sink began, by both clocks.
const ORIGIN: Origin = (Instant::from_ns(1_000), WallTime::from_unix_ns(1_000_000_000_000));

/// Whatever tells the sinks of these tests apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn signer() -> Signer {
    Signer::new(&Key::new([7; 32]))
}

fn at_ms(ms: u64) -> Instant {
    ORIGIN.0 + Duration::from_millis(ms)
}

fn message(run: u64, sequence: u64, sent_ms: u64, body: &str) -> String {
    let sent = ORIGIN.1 + Duration::from_millis(sent_ms);
    let stamp = Stamp { run, sequence, sent, body: BodyHasher::of(BODY.as_bytes()) };
    let mut field = [0; FIELD_BYTES];
    stamp.write(&signer(), &mut field);
    format!("{}Subject: x\r\n\r\n{body}", std::str::from_utf8(&field).unwrap())
}

fn ledger(takes_any: bool) -> Arc<Ledger> {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let ledger = Ledger::new(id, signer(), Duration::from_secs(1), takes_any);
    ledger.begin(ORIGIN);
    Arc::new(ledger)
}

fn arrive(reader: &mut Reader, connection: usize, ms: u64, message: &str) {
    reader.attend(connection, at_ms(ms));
    reader.begin();
    for piece in message.as_bytes().chunks(50) {
        reader.attend(connection, at_ms(ms));
        reader.update(piece);
    }
    reader.accepted();
}

#[test]
fn what_arrives_is_told_apart_and_joined_with_what_was_accepted() {
    let ledger = ledger(false);
    let sent = Sent::new(1, Some(Arc::clone(&ledger)), ORIGIN);
    (0..10).for_each(|sequence| sent.accept(sequence));
    let mut shards = [Reader::new(Arc::clone(&ledger)), Reader::new(Arc::clone(&ledger))];
    for sequence in 0..7 {
        arrive(&mut shards[0], sequence as usize, 10, &message(1, sequence, 0, BODY));
    }
    assert!(sent.awaits_arrivals());
    // By another shard, altered by a relay, late, and one whose reply nobody saw.
    arrive(&mut shards[1], 0, 20, &message(1, 3, 0, BODY));
    arrive(&mut shards[1], 0, 20, &message(1, 7, 0, "hello\r\n"));
    arrive(&mut shards[1], 1, 5_000, &message(1, 8, 0, "Hello\r\n\r\n\r\n"));
    arrive(&mut shards[1], 1, 20, &message(1, 12, 0, BODY));
    arrive(&mut shards[1], 1, 20, &message(1, 0, 0, BODY).replace("seq=0", "seq=1"));
    arrive(&mut shards[1], 1, 20, &message(1, 0, 0, BODY).replace("v=1", "x=1"));
    arrive(&mut shards[1], 1, 20, &message(2, 0, 0, BODY));
    arrive(&mut shards[1], 1, 20, "Subject: x\r\n\r\nHello\r\n");
    let report = join::report(&sent);
    assert_eq!((report.accepted, report.untracked, report.run.as_str()), (10, 0, "0000000000000001"));
    assert!(report.is_faulty());
    let arrivals = report.arrivals.unwrap();
    assert_eq!((arrivals.arrived, arrivals.missing, arrivals.missing_sequences), (10, 1, vec![[9, 9]]));
    assert_eq!((arrivals.unacknowledged, arrivals.duplicate, arrivals.late, arrivals.skewed), (1, 1, 1, 0));
    assert_eq!((arrivals.altered, arrivals.altered_sequences), (1, vec![7]));
    assert_eq!((arrivals.forged, arrivals.malformed, arrivals.other_runs, arrivals.unstamped), (1, 1, 1, 1));
    assert_eq!((arrivals.clock, arrivals.end_to_end_s.count), (AuditClock::Monotonic, 10));
    assert!((arrivals.end_to_end_s.max - 5.0).abs() < 0.01 && (arrivals.end_to_end_s.p50 - 0.01).abs() < 0.001);
}

#[test]
fn nothing_is_looked_at_while_no_run_is_in_account() {
    let ledger = ledger(false);
    let mut reader = Reader::new(Arc::clone(&ledger));
    arrive(&mut reader, 0, 1, &message(1, 0, 0, BODY));
    assert!(!reader.is_reading() && reader.scans.is_empty());
    let sent = Sent::new(1, Some(Arc::clone(&ledger)), ORIGIN);
    arrive(&mut reader, 0, 1, &message(1, 0, 0, BODY));
    assert!(reader.is_reading());
    assert_eq!(join::report(&sent).arrivals.unwrap().arrived, 1);
    drop(sent);
    arrive(&mut reader, 0, 1, &message(1, 0, 0, BODY));
    assert!(!reader.is_reading() && reader.last.is_none() && ledger.runs().is_empty());
    assert_eq!(ledger.strays(), StrayCounts::default());
}

#[test]
fn a_sink_for_any_run_keeps_a_bounded_number_of_accounts() {
    let ledger = ledger(true);
    let mut reader = Reader::new(Arc::clone(&ledger));
    let most = (RUNS_MAX + FORGOTTEN_MAX) as u64;
    for run in 0..most {
        arrive(&mut reader, 0, run, &message(run, 0, 0, BODY));
        // One that never rests.
        arrive(&mut reader, 0, run, &message(0, run, 0, BODY));
    }
    assert_eq!((ledger.runs().len(), ledger.forgotten().len()), (RUNS_MAX, FORGOTTEN_MAX));
    assert_eq!((ledger.strays().other_runs, ledger.unnamed_runs()), (0, 0));
    assert_eq!(ledger.runs()[0].1.sequences().len(), most, "those that were longest without arrivals were forgotten");
    // One that was forgotten does not begin anew, and where too many were no other one does.
    arrive(&mut reader, 0, 1, &message(1, 1, 0, BODY));
    arrive(&mut reader, 0, 1, &message(most, 0, 0, BODY));
    assert_eq!((ledger.strays().other_runs, ledger.unnamed_runs()), (2, 1));
    let newest = ledger.runs();
    let (newest, _) = newest.last().unwrap();
    let sink = file("sink.json", &AuditFile::of_sink(&ledger));
    let files = [sent_in(0), sent_in(*newest), sent_in(1), sent_in(most), sink];
    let account = account(&files).unwrap();
    let names = |runs: &[u64]| runs.iter().map(|run| join::run_name(*run)).collect::<Vec<_>>();
    assert_eq!(account.runs.iter().map(|run| run.run.clone()).collect::<Vec<_>>(), names(&[0, *newest]));
    assert_eq!(account.not_kept.iter().map(|run| run.run.clone()).collect::<Vec<_>>(), names(&[1, most]));
    // A message that was sent in the future, by the clock of whoever sent it.
    arrive(&mut reader, 0, 1, &message(*newest, 1, 60_000_000, BODY));
    let tally = ledger.runs().last().unwrap().1.tally();
    assert_eq!((tally.skewed, tally.end_to_end.count()), (1, 1));
}

/// As it comes out of the file that it was written to.
fn file(name: &str, file: &AuditFile) -> (String, AuditFile) {
    let text = serde_json::to_string(file).unwrap();
    (name.to_owned(), serde_json::from_str(&text).unwrap())
}

/// The file of a generator that sent one message in a run, and was told that it was accepted.
fn sent_in(run: u64) -> (String, AuditFile) {
    let sent = Sent::new(run, None, ORIGIN);
    sent.accept(0);
    file("generator.json", &AuditFile::of_job(&sent))
}

#[test]
fn what_a_sink_has_not_kept_is_not_called_missing() {
    let ledger = ledger(true);
    let mut reader = Reader::new(Arc::clone(&ledger));
    let runs = RUNS_MAX as u64 + 2;
    for run in 0..runs {
        arrive(&mut reader, 0, run, &message(run, 0, 0, BODY));
    }
    for run in 0..runs {
        let account = account(&[sent_in(run), file("sink.json", &AuditFile::of_sink(&ledger))]).unwrap();
        // The first and the second have made room, and have not lost a message by it.
        let not_kept = NotKept { run: join::run_name(run), accepted: 1, file: "sink.json".into() };
        assert_eq!(account.not_kept, Vec::from_iter((run < 2).then_some(not_kept)));
        assert_eq!(account.unknown_runs.len(), RUNS_MAX - account.runs.len());
        let missing = account.runs.iter().filter_map(|run| run.arrivals.as_ref()).map(|arrivals| arrivals.missing);
        assert_eq!(missing.sum::<u64>(), 0, "run {run}: {account:?}");
    }
}

#[test]
fn the_file_of_a_sink_counts_once() {
    let ledger = ledger(true);
    arrive(&mut Reader::new(Arc::clone(&ledger)), 0, 1, &message(1, 0, 0, BODY));
    let sink = |name: &str| file(name, &AuditFile::of_sink(&ledger));
    assert!(account(&[sent_in(1), sink("sink.json")]).is_ok());
    let error = account(&[sent_in(1), sink("sink.json"), sink("copy.json")]).expect_err("it stands twice").to_string();
    assert!(error.starts_with("copy.json: ") && error.contains("sink.json"), "{error}");
}

#[test]
fn messages_of_several_connections_may_come_piece_by_piece() {
    let ledger = ledger(true);
    let mut reader = Reader::new(Arc::clone(&ledger));
    let messages = [message(1, 0, 0, BODY), message(1, 1, 0, BODY), message(1, 2, 0, BODY)];
    for connection in 0..3 {
        reader.attend(connection, at_ms(0));
        reader.begin();
    }
    for at in (0..messages[0].len()).step_by(7) {
        for (connection, message) in messages.iter().enumerate() {
            reader.attend(connection, at_ms(1));
            assert!(reader.is_reading());
            reader.update(&message.as_bytes()[at..message.len().min(at + 7)]);
        }
    }
    for connection in 0..3 {
        reader.attend(connection, at_ms(2));
        reader.accepted();
    }
    let arrivals = &ledger.runs()[0].1;
    assert_eq!((arrivals.sequences().len(), arrivals.tally().altered), (3, 0));
}

#[test]
fn the_files_of_both_ends_make_the_account_of_one_process() {
    let (here, there) = (ledger(true), ledger(true));
    let sent = Sent::new(1, None, ORIGIN);
    (0..1_000).for_each(|sequence| sent.accept(sequence));
    let mut readers = [Reader::new(Arc::clone(&here)), Reader::new(Arc::clone(&there))];
    (0..600).for_each(|sequence| arrive(&mut readers[0], 0, 1, &message(1, sequence, 0, BODY)));
    (500..990).for_each(|sequence| arrive(&mut readers[1], 0, 1, &message(1, sequence, 0, BODY)));
    arrive(&mut readers[1], 0, 1, &message(9, 0, 0, BODY));
    let generator = || file("generator.json", &AuditFile::of_job(&sent));
    let sinks = || [file("here.json", &AuditFile::of_sink(&here)), file("there.json", &AuditFile::of_sink(&there))];
    let [one, two] = sinks();
    let account_of = account(&[generator(), one, two]).unwrap();
    assert_eq!(account_of.unknown_runs, ["0000000000000009"]);
    let [run] = &account_of.runs[..] else { panic!("one run was sent") };
    let arrivals = run.arrivals.as_ref().unwrap();
    assert_eq!((run.accepted, arrivals.arrived, arrivals.missing), (1_000, 990, 10));
    assert_eq!((&arrivals.missing_sequences[..], arrivals.duplicate), (&[[990, 999]][..], 100));
    assert_eq!((arrivals.clock, arrivals.end_to_end_s.count), (AuditClock::Wall, 1_090));

    assert!(matches!(account(&[generator()]), Err(JoinError::OneSided("sink"))));
    assert!(matches!(account(&sinks()), Err(JoinError::OneSided("generator"))));
    assert!(matches!(account(&[generator(), generator()]), Err(JoinError::Again { .. })));
    let (_, mut newer) = generator();
    newer.timecop_audit = 2;
    assert!(matches!(account(&[("x".into(), newer)]), Err(JoinError::Version { got: 2, .. })));
    let (_, mut broken) = generator();
    broken.accepted[0].sequences = "?".into();
    let error = account(&[("x.json".into(), broken)]).unwrap_err().to_string();
    assert!(error.starts_with("x.json: run 0000000000000001: expected a deflated set"), "{error}");
}
