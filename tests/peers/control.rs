//! Load control on the machine: stages, the warm-up, and conditions that end a run.

use crate::support::{Hammer, Sink};

#[test]
fn stages_ramp_the_rate_and_end_with_the_last_of_them() {
    let sink = Sink::start(&[]);
    // 250 in the first second, 500 in the next one, none in the last.
    let stages = ["--stages", "1s@500,1s@500,0s@0,1s@0", "--arrival", "constant", "-c", "10"];
    let run = Hammer::run(sink.port(), &stages);
    run.assert_all_accepted(750);
    assert!(run.number("elapsed_s") >= 3.0, "{}", run.shown());
    assert_eq!(run.report["load_model"], "open constant");
    assert_eq!(sink.stop()["messages"], 750);
}

#[test]
fn stages_of_connections_open_them_one_by_one_and_end_them() {
    let sink = Sink::start(&["--delay", "final=5ms"]);
    let run = Hammer::run(sink.port(), &["--stages", "1s@20c,500ms@20c,500ms@0c"]);
    assert_eq!(run.report["load_model"], "closed");
    assert_eq!((run.count("connections.asked"), run.count("connections.opened")), (20, 20), "{}", run.shown());
    // A line from none to 20 and back: 10 + 10 + 5 seconds of a connection.
    let asked = run.count("messages.asked");
    run.assert_all_accepted(asked);
    assert!(asked > 0 && asked < 5_000, "{}", run.shown());
    assert!(run.number("elapsed_s") >= 2.0, "{}", run.shown());
    assert_eq!(sink.stop()["messages"], asked);
}

#[test]
fn a_warm_up_is_shown_apart_and_counted_nowhere_else() {
    let sink = Sink::start(&["--reply", "rcpt=451,10%"]);
    let load = ["--rate", "500", "-d", "2s", "--arrival", "constant", "--warmup", "1s"];
    let run = Hammer::run(sink.port(), &load);
    assert_eq!((run.count("messages.asked"), run.count("warmup.messages.asked")), (500, 500), "{}", run.shown());
    assert!(run.number("warmup.elapsed_s") == 1.0 && run.number("elapsed_s") >= 1.0, "{}", run.shown());
    let deferred = run.count("messages.deferred");
    assert!(deferred > 0 && run.count("warmup.messages.deferred") > 0, "{}", run.shown());
    assert_eq!(run.replies("rcpt", 451), deferred, "{}", run.shown());
    let accepted = run.count("messages.accepted") + run.count("warmup.messages.accepted");
    assert_eq!(sink.stop()["messages"].as_u64(), Some(accepted));
}

#[test]
fn a_warm_up_by_number_works_in_a_closed_loop() {
    let sink = Sink::start(&[]);
    let run = Hammer::run(sink.port(), &["-m", "1000", "-c", "10", "--warmup", "300"]);
    run.assert_all_accepted(700);
    assert_eq!(run.count("warmup.messages.accepted"), 300, "{}", run.shown());
    assert_eq!(sink.stop()["messages"], 1_000);
}

#[test]
fn a_condition_ends_a_run_and_says_why() {
    let sink = Sink::start(&["--reply", "mail=451,50%"]);
    let rule = "failures>5%,window=1s,grace=1s";
    let run = Hammer::run(sink.port(), &["--rate", "200", "-d", "1h", "--abort-on", rule, "--abort-on", "p99>1m"]);
    assert_eq!(run.exit, 1);
    let reason = run.report["aborted"].as_str().unwrap_or_default();
    assert!(reason.starts_with(&format!("{rule}: failures is ")), "{}", run.shown());
    assert!(run.stderr.contains(reason), "{}", run.stderr);
}

#[test]
fn a_phase_has_its_own_time_limit() {
    let sink = Sink::start(&["--delay", "mail=5s"]);
    let run = Hammer::run(sink.port(), &["-m", "2", "--timeout", "1m,mail=200ms"]);
    assert_eq!((run.exit, run.count("messages.failed")), (1, 2), "{}", run.shown());
    let errors = run.report["errors"].as_array().expect("a list");
    assert!(errors.iter().all(|error| error["phase"] == "mail" && error["kind"] == "timeout"), "{}", run.shown());
    assert!(!errors.is_empty(), "{}", run.shown());
    assert_eq!(run.report["spec"]["timeouts_s"]["mail"], 0.2, "{}", run.shown());
    assert_eq!(run.report["spec"]["timeout_s"], 60.0, "{}", run.shown());
}
