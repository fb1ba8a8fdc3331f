//! Verdicts, conditions and what can be done with reports, by the exit codes and files of the program itself.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn timecop(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_timecop")).args(arguments).current_dir(folder).output().unwrap()
}

/// Runs a small job against an embedded sink; gives its exit code and its report.
fn hammer(folder: &Path, file: &str, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = ["hammer", "-m", "400", "-c", "4", "--quiet", "--json", file];
    let output = timecop(folder, &[&arguments, more].concat());
    let report = std::fs::read_to_string(folder.join(file));
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), serde_json::from_str(&report).unwrap())
}

#[test]
fn a_condition_decides_the_exit_code_and_shows_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let (code, report) = hammer(folder.path(), "good.json", &["--fail-if", "failures>0.1%", "--fail-if", "p99>10m"]);
    assert_eq!(code, Some(0));
    assert_eq!(report["thresholds"][0]["actual"], 0.0);
    assert_eq!((&report["thresholds"][0]["met"], &report["thresholds"][1]["met"]), (&true.into(), &true.into()));
    let (code, report) = hammer(folder.path(), "bad.json", &["--fail-if", "rate<100000000"]);
    assert_eq!(code, Some(1));
    assert_eq!(report["thresholds"][0]["met"], false);
    let output = timecop(folder.path(), &["hammer", "--fail-if", "p98>1s"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("one of p50, p90"));
}

#[test]
fn an_open_loop_that_cannot_keep_its_rate_is_invalid_though_everything_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (code, report) = hammer(folder.path(), "fast.json", &["--rate", "90000000"]);
    assert_eq!((&report["messages"]["accepted"], &report["verdict"]["result"]), (&400.into(), &"INVALID".into()));
    assert_eq!((&report["verdict"]["reasons"][0]["rule"], code), (&"rate".into(), Some(1)));
}

#[test]
fn reports_are_merged_and_compared_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let parts = ["a.json", "b.json"].map(|file| hammer(path, file, &[]).1);
    let output = timecop(path, &["merge", "a.json", "b.json", "-o", "both.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("800 asked: 800 accepted"));
    let both: Value = serde_json::from_str(&std::fs::read_to_string(path.join("both.json")).unwrap()).unwrap();
    assert_eq!(both["latency_s"]["accepted"]["response"]["count"], 800);
    let began = |report: &Value| report["started_at"].as_str().unwrap().to_owned();
    assert!(began(&parts[0]) < began(&parts[1]) && began(&both) == began(&parts[0]), "{both:#}");
    assert_eq!((&both["ended_at"], both["parts"].as_array().map(Vec::len)), (&parts[1]["ended_at"], Some(2)));
    std::fs::copy(path.join("a.json"), path.join("copy.json")).unwrap();
    for twice in [["a.json", "copy.json"], ["both.json", "b.json"]] {
        let output = timecop(path, &["merge", twice[0], twice[1], "-o", "more.json"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains("expected each run once"), "{twice:?}: {stderr}");
    }
    let max = |report: &Value| report["latency_s"]["accepted"]["response"]["max"].as_f64().unwrap();
    assert_eq!(max(&both), max(&parts[0]).max(max(&parts[1])));
    let output = timecop(path, &["compare", "a.json", "a.json", "--json"]);
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings: Vec<&Value> =
        comparison["differences"].as_array().unwrap().iter().map(|difference| &difference["finding"]).collect();
    assert!(!findings.contains(&&"different".into()) && !findings.contains(&&"intervals_apart".into()), "{findings:?}");
    let output = timecop(path, &["compare", "a.json", "b.json", "--against", "both.json"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("p99.9"));
    std::fs::write(path.join("broken.json"), "{}").unwrap();
    for arguments in [["compare", "a.json", "broken.json"], ["merge", "a.json", "nowhere.json"]] {
        assert_eq!(timecop(path, &arguments).status.code(), Some(2));
    }
}

#[test]
fn a_report_is_merged_once_by_whatever_name_and_what_is_none_says_what_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    hammer(path, "a.json", &[]);
    std::fs::write(path.join("none.json"), "{}").unwrap();
    std::fs::write(path.join("empty.json"), "").unwrap();
    let written = std::fs::read(path.join("a.json")).unwrap();
    for (arguments, says) in [
        (&["merge", "a.json", "./a.json"][..], "./a.json twice"),
        (&["merge", "a.json", "none.json", "-o", "./a.json"], "--output: expected a file that is not merged itself"),
        (&["compare", "a.json", "none.json"], "timecop hammer --json"),
        (&["job", "list", "--api=127.0.0.1:8025"], "write http:// before it"),
        (&["audit", "empty.json"], "end them first"),
        (&["hammer", "smtp://127.0.0.1:9", "--audit", "--audit-key", "key"], "--audit: expected --audit-report"),
    ] {
        std::fs::write(path.join("key"), "ab".repeat(32)).unwrap();
        let output = timecop(path, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(says), "{arguments:?}: {stderr}");
    }
    assert_eq!(std::fs::read(path.join("a.json")).unwrap(), written, "a part is not overwritten");
}
