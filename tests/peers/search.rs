//! `timecop search` against a sink whose capacity is known.

use serde_json::Value;

use crate::support::{Finished, Hammer, Process, Sink, timecop};

/// Searches the sink on `port`.
fn search(port: u16, options: &[&str]) -> (i32, Value, Finished) {
    let mut command = timecop();
    command.arg("search").arg(format!("smtp://127.0.0.1:{port}")).args(["--json", "-"]).args(options);
    let finished = Process::run(&mut command);
    let report = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("no JSON object: {error}\n{}\n{}", finished.stdout, finished.stderr));
    (finished.status.code().unwrap_or(-1), report, finished)
}

const SLO: [&str; 2] = ["--slo", "p99<250ms,failures<0.1%"];
const SHORT: [&str; 6] = ["--trial", "2s", "--confirm", "3s", "--cool-down", "100ms"];

#[test]
fn the_capacity_of_a_sink_is_found_within_three_percent() {
    let sink = Sink::start(&["--capacity", "2000/s"]);
    let (exit, report, _) = search(sink.port(), &[&SLO[..], &SHORT, &["--start-rate", "500"]].concat());
    let held = report["rate_per_s"].as_f64().unwrap_or_else(|| panic!("nothing was held: {report:#}"));
    assert_eq!((exit, report["result"].as_str()), (0, Some("found")), "{report:#}");
    assert!((1_940.0..=2_060.0).contains(&held), "{report:#}");
    assert!(report["not_held_per_s"].as_f64().is_some_and(|above| above > held), "{report:#}");
    let trials = report["trials"].as_array().expect("the trials are an array");
    assert!(trials.iter().any(|trial| trial["confirms"] == true && trial["outcome"] == "held"), "{report:#}");
    let failed = trials.iter().filter(|trial| trial["outcome"] == "failed");
    assert!(failed.clone().count() > 0, "{report:#}");
    failed.for_each(|trial| assert_ne!(trial["reasons"], serde_json::json!([]), "{report:#}"));
}

#[test]
fn a_search_that_may_not_go_further_says_at_least() {
    let sink = Sink::start(&[]);
    let options =
        ["--trial", "500ms", "--confirm", "500ms", "--cool-down", "0s", "--start-rate", "50", "--max-rate", "100"];
    let (exit, report, _) = search(sink.port(), &[&["--slo", "p50<5s"], &options[..]].concat());
    assert_eq!((exit, report["result"].as_str(), report["rate_per_s"].as_f64()), (0, Some("at_least"), Some(100.0)));
}

#[test]
fn a_target_that_refuses_everything_holds_nothing() {
    let sink = Sink::start(&["--reply", "mail=451"]);
    let options = ["--trial", "100ms", "--confirm", "100ms", "--cool-down", "0s", "--start-rate", "20"];
    let (exit, report, _) = search(sink.port(), &[&["--slo", "failures<1%"], &options[..]].concat());
    assert_eq!((exit, report["result"].as_str(), &report["rate_per_s"]), (1, Some("none"), &Value::Null), "{report:#}");
}

#[test]
fn a_target_where_nobody_listens_ends_the_search_after_one_trial() {
    let options = ["--trial", "200ms", "--confirm", "200ms", "--cool-down", "0s"];
    let (exit, report, finished) = search(9, &[&SLO[..], &options[..]].concat());
    assert_eq!((exit, report["result"].as_str()), (1, Some("unfinished")), "{report:#}");
    assert_eq!(report["trials"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert!(finished.stderr.contains("refused"), "{}", finished.stderr);
}

#[test]
fn the_help_offers_what_a_search_takes_and_nothing_else() {
    let help = Process::run(timecop().args(["search", "--help"])).stdout;
    for option in ["--rate", "--stages", "--messages ", "--duration"] {
        assert!(!help.contains(&format!(" {option}")), "{option}: {help}");
    }
    assert!(help.contains("--start-rate") && help.contains("--warmup"), "{help}");
}

#[test]
fn what_a_search_decides_cannot_be_asked_for() {
    for options in [["--rate", "5"], ["-m", "5"], ["-d", "5s"]] {
        let mut command = timecop();
        command.args(["search", "smtp://127.0.0.1:9", "--slo", "p99<1s"]).args(options);
        let finished = Process::run(&mut command);
        assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains("the search chooses") || finished.stderr.contains("--trial"));
    }
}

#[test]
fn a_closed_loop_reaches_the_capacity_of_a_sink_and_not_more() {
    let sink = Sink::start(&["--capacity", "500/s"]);
    let run = Hammer::run(sink.port(), &["-m", "1500", "-c", "20"]);
    run.assert_all_accepted(1_500);
    let rate = run.number("rate_per_s");
    assert!((450.0..=501.0).contains(&rate), "{rate} a second; {}", run.shown());
}
