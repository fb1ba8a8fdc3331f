//! `kill -9` in mid-job, at moments that a seed draws: of the service, of the sink, of Postfix.

use std::path::Path;

use serde_json::Value;

use crate::support::{Hammer, Postfix, Service, Sink, poll, rounds};

/// All that a message may be in a result, the last two as long as the job runs; a kill leaves the last that was known.
const ENDS: [&str; 8] = ["accepted", "deferred", "rejected", "failed", "missed", "cut", "in_flight", "to_come"];

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a count, got {value}"))
}

/// What the store's file is like, by SQLite's own word.
fn integrity(store: &Path) -> String {
    let file = rusqlite::Connection::open(store).expect("the store can be opened by others");
    file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be asked")
}

#[test]
fn a_killed_service_finds_its_jobs_with_the_totals_of_their_last_second() {
    let service = std::cell::Cell::new(Some(Service::start("")));
    let interrupted = std::cell::RefCell::new(Vec::<Value>::new());
    rounds(|mut draws| {
        let running = service.take().expect("it was put back");
        let sink = Sink::start(&[]);
        let request = format!(
            r#"{{"smtp_connection_type":"plain","msg_size":500,"duration":"1h","rate":400,"connections":4,
                "target":"smtp://127.0.0.1:{}"}}"#,
            sink.port()
        );
        let id = running.run(&request);
        running.accepted(&id, draws.of(1..1_000));
        let seen = running.job(&id);
        let (_, again) = running.restart_after("KILL");
        assert_eq!(integrity(&again.store()), "ok");
        let job = again.job(&id);
        assert_eq!(job["state"], "interrupted", "{job}");
        assert!(!job["stop_time"].as_str().expect("a time").contains(" 0001 "), "{job}");
        let messages = &job["result"]["messages"];
        assert_eq!(
            ENDS.iter().filter_map(|end| messages.get(end)).map(count).sum::<u64>(),
            count(&messages["asked"]),
            "{job}"
        );
        // Written each second, of totals that come each second: they may lack two, and what a busy machine adds.
        let elapsed = |job: &Value| job["result"]["elapsed_s"].as_f64().expect("a time");
        assert!(elapsed(&job) + 4.0 >= elapsed(&seen), "{job}, seen {seen}");
        assert!(count(&messages["accepted"]) <= count(&sink.stop()["messages"]), "{job}");
        // Those of the rounds before are what they were.
        for earlier in interrupted.borrow().iter() {
            assert_eq!(again.job(earlier["id"].as_str().expect("an id")), *earlier);
        }
        interrupted.borrow_mut().push(job);
        service.set(Some(again));
    });
}

#[test]
fn a_generator_whose_sink_is_killed_counts_what_failed_by_phase() {
    rounds(|mut draws| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sink = Sink::saving_to(folder.path());
        let saved = || std::fs::read_dir(folder.path()).expect("the folder is there").count() as u64;
        let hammer = Hammer::start(sink.port(), &["-d", "3s", "-c", "8"]);
        let moment = draws.of(1..2_000);
        poll("messages at the sink", || (saved() >= moment).then_some(()));
        drop(sink); // kills it
        let run = hammer.finish();
        assert_eq!(run.exit, 1, "{}", run.shown());
        let failed = run.count("messages.failed");
        assert!(failed > 0 && run.errors_in_all() >= failed, "each failure has its phase: {}", run.shown());
        assert_eq!(run.count("messages.accepted") + failed, run.count("messages.asked"), "{}", run.shown());
        assert!(run.count("messages.accepted") <= saved(), "what was accepted had arrived: {}", run.shown());
    });
}

#[test]
fn a_generator_whose_postfix_is_killed_ends_and_postfix_comes_back() {
    rounds(|mut draws| {
        let postfix = Postfix::start("");
        let hammer = Hammer::start(postfix.port(), &["-d", "3s", "-c", "4"]);
        let moment = draws.of(1..200);
        poll("messages in the log of Postfix", || (postfix.messages() >= moment).then_some(()));
        postfix.kill();
        let run = hammer.finish();
        assert_eq!(run.exit, 1, "{}", run.shown());
        let failed = run.count("messages.failed");
        assert!(failed > 0 && run.errors_in_all() >= failed, "each failure has its phase: {}", run.shown());
        postfix.start_again();
        Hammer::run(postfix.port(), &["-m", "20", "-c", "2"]).assert_all_accepted(20);
        poll("an empty queue", || (postfix.queued() == 0).then_some(()));
    });
}
