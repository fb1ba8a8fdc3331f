//! How a run goes and ends: open loop, refused connections, interruption, start-up errors.

use crate::support::{Aiosmtpd, Finished, Hammer, Port, Process, Sink, SmtpSink, poll, timecop};

#[test]
fn an_open_loop_offers_the_rate_that_was_asked_for_and_accounts_for_every_message() {
    for arrival in ["constant", "poisson"] {
        let server = Aiosmtpd::start(None);
        let run =
            Hammer::run(server.port(), &["--rate", "100", "-d", "2s", "-c", "8", "--arrival", arrival, "--seed", "3"]);
        let asked = run.count("messages.asked"); // the support code has checked the sum
        if arrival == "constant" {
            assert!((199..=201).contains(&asked), "100 a second for 2 s: {}", run.shown());
        } else {
            assert!((100..=300).contains(&asked), "seven standard deviations around 200: {}", run.shown());
        }
        assert_eq!(server.stop()["messages"], run.count("messages.accepted"), "{}", run.shown());
    }
}

#[test]
fn arrivals_are_timed_by_the_kernel_and_writes_one_by_one_while_there_is_time_to_spare() {
    let server = Aiosmtpd::start(None);
    // Two groups of commands a message: few receives, so that those of the first connections, which may come before the kernel
    // has begun to stamp, would show.
    let run = Hammer::run(server.port(), &["--rate", "200", "-d", "3s", "-c", "2", "--seed", "3"]);
    let (arrivals, messages) = (run.count("generator.arrivals.kernel"), run.count("messages.accepted"));
    assert!(arrivals >= 2 * messages, "{arrivals} of {messages} messages: {}", run.shown());
    assert_eq!(run.report["generator"]["stamps"], "kernel", "{}", run.shown());
    assert!(run.count("generator.writes.singly") >= 2 * messages, "{}", run.shown());
    server.stop();
}

#[test]
fn refused_connections_are_failures_of_the_connect_phase_and_end_the_run() {
    let nobody = Port::claim();
    let run = Hammer::run(nobody.number(), &["-m", "100000", "-c", "4"]);
    assert_eq!(run.exit, 1, "{}", run.shown());
    assert_eq!(run.count("messages.accepted"), 0, "{}", run.shown());
    assert!(run.errors("connect") > 0, "{}", run.shown());
    assert_eq!(run.errors("connect"), run.errors_in_all(), "nothing else went wrong: {}", run.shown());
    let aborted = run.report["aborted"].as_str().expect("the report says why it ended");
    assert!(aborted.to_lowercase().contains("refused"), "the error is named: {}", run.shown());
}

/// In the drain of slow replies fewer and fewer messages end, which is no fault of anybody.
#[test]
fn a_condition_that_ends_runs_says_nothing_of_the_drain() {
    let sink = Sink::start(&["--delay", "final=exp:1s"]);
    let options = ["--rate", "50", "-d", "4s", "-c", "300", "--arrival", "constant", "--abort-on"];
    let run = Hammer::run(sink.port(), &[&options[..], &["rate<25,window=1s,grace=2s"]].concat());
    assert!(run.number("drain_s") > 2.0, "a second of the drain was whole: {}", run.shown());
    assert!(run.report["aborted"].is_null(), "{}", run.shown());
}

#[test]
fn an_interrupted_run_drains_and_reports_what_arrived() {
    for options in
        [&["-d", "10m", "-c", "5"][..], &["-d", "10m", "-c", "5", "--rate", "500"], &["-m", "100000000", "-c", "5"]]
    {
        let sink = SmtpSink::start(&[]);
        let hammer = Hammer::start(sink.port(), options);
        poll("a hundred messages", || (sink.messages() >= 100).then_some(()));
        hammer.signal("INT");
        let run = hammer.finish(); // the support code has checked the sum
        assert!(run.count("messages.accepted") >= 100, "{}", run.shown());
        assert_eq!(run.count("messages.accepted"), sink.messages(), "{options:?}: {}", run.shown());
        assert_eq!(run.count("messages.cut"), 0, "what was in flight was waited for: {}", run.shown());
        assert_eq!(run.errors_in_all(), 0, "{}", run.shown());
    }
}

#[test]
fn a_result_that_cannot_be_written_where_it_was_to_be_is_rescued_and_fails_the_run() {
    let sink = SmtpSink::start(&[]);
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let run = Process::run(timecop().args(["hammer", &target, "-m", "10", "--quiet", "--json", "/dev/full"]));
    assert_eq!(run.status.code(), Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("/dev/full"), "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).expect("the object is on standard output");
    assert_eq!(report["messages"]["accepted"], 10);
}

#[test]
fn a_quiet_run_says_why_messages_were_not_accepted() {
    let sink = Sink::start(&["--reply", "rcpt=550,100%,nobody of that name"]);
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let refused = Process::run(timecop().args(["hammer", &target, "-m", "5", "--quiet"]));
    let words = "error: 5 messages were not accepted; most of all for this: rcpt 550 nobody of that name";
    assert!(refused.status.code() == Some(1) && refused.stderr.contains(words), "{}", refused.stderr);
    sink.stop();
    let gone = Process::run(timecop().args(["hammer", &target, "-m", "2", "--quiet"]));
    let words = "error: 2 messages were not accepted; most of all for this: connect connection refused";
    assert!(gone.status.code() == Some(1) && gone.stderr.contains(words), "{}", gone.stderr);
}

#[test]
fn the_series_adds_up_to_the_totals() {
    let sink = SmtpSink::start(&[]);
    let run = Hammer::run(sink.port(), &["-d", "3s", "-c", "4", "--rate", "200"]);
    let rows = run.report["series"].as_array().expect("the report has a series");
    let sum = |column: &str| rows.iter().map(|row| row[column].as_u64().expect("a count")).sum::<u64>();
    assert_eq!(sum("accepted"), run.count("messages.accepted"), "{rows:?}");
    assert_eq!(sum("sent"), run.count("messages.sent"), "{rows:?}");
    let times: Vec<f64> = rows.iter().map(|row| row["t_s"].as_f64().expect("a time")).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

#[test]
fn a_wrong_value_is_named_and_nothing_is_started() {
    for (option, value) in [
        ("--messages", "many"),
        ("--connections", "0"),
        ("--arrival", "sometimes"),
        ("--to", "no address"),
        ("--source-address", "somewhere"),
        // Not of the target's family, and not of this machine.
        ("--source-address", "::1"),
        ("--source-address", "192.0.2.1"),
    ] {
        let Finished { status, stdout, stderr } =
            Process::run(timecop().args(["hammer", "smtp://127.0.0.1:9", "--json", "-", "--quiet", option, value]));
        assert_eq!(status.code(), Some(2), "{option} {value}: {stderr}");
        assert!(stderr.contains(option) && stderr.contains(value), "{option} {value} is named: {stderr}");
        assert_eq!(stdout, "", "{option} {value}");
    }
}
