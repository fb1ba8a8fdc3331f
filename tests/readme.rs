//! What the documentation shows works as shown: the README's commands run, `docs/report.md` names every field, and
//! `docs/timecop.toml` is a right configuration.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const README: &str = include_str!("../README.md");
const REPORT: &str = include_str!("../docs/report.md");

/// The shell blocks behind a heading, one after the other.
fn shell_blocks(heading: &str) -> Vec<&'static str> {
    let section = &README[README.find(heading).unwrap_or_else(|| panic!("the README has no {heading:?}"))..];
    let section = section.split("\n## ").next().unwrap();
    section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Runs a script in an empty folder, with `timecop` on its path.
fn run(script: &str) -> (Output, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let binaries = Path::new(env!("CARGO_BIN_EXE_timecop")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    // What was put into the background ends with the script, however that ends.
    let script = format!("trap 'kill $(jobs -p) 2> kill.err || true' EXIT\n{script}");
    bash.args(["-euo", "pipefail", "-c", &script]).current_dir(&folder).env("PATH", path);
    (bash.output().unwrap(), folder)
}

/// The README's two terminals as one script, with a port that is free and a wait for the sink's word that it listens.
fn one_terminal(blocks: &[&str]) -> String {
    let [sink, hammer] = blocks else { panic!("expected the blocks of two terminals, got {blocks:?}") };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = format!(
        "{} > sink.out 2> sink.err &\n\
         timeout 30 sh -c 'until grep -q listening sink.err; do :; done'\n\
         {hammer}\n\
         kill -TERM $!; wait $!; cat sink.out\n",
        sink.trim_end()
    );
    script.replace("127.0.0.1:2525", &format!("127.0.0.1:{port}"))
}

/// The messages that a sink says at its end to have accepted by a protocol.
fn arrived(out: &str, protocol: &str) -> u64 {
    let mut words = out.lines().rev().map(|line| line.split_whitespace());
    let mut words = words.find(|line| line.clone().next() == Some(protocol)).unwrap();
    words.nth(1).unwrap().replace(',', "").parse().unwrap()
}

#[test]
fn the_commands_of_the_readme_work() {
    let (output, folder) = run(&one_terminal(&shell_blocks("## Use")));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    assert!(out.contains("20,000 asked: 20,000 accepted"), "{out}\n{error}");
    let report = fs::read_to_string(folder.path().join("result.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["messages"]["accepted"], 1_000);
    assert!(arrived(&out, "smtp") >= 21_000, "{out}");
}

#[test]
fn the_stub_of_the_readme_works() {
    let script = one_terminal(&shell_blocks("## A stub of Mailgun's API"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (output, _folder) = run(&script.replace("127.0.0.1:8026", &format!("127.0.0.1:{port}")));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    assert!(out.contains("@example.com>\",\"message\":\"Queued. Thank you.\"}"), "{out}\n{error}");
    assert!(out.contains("{\"message\":\"from parameter is missing\"}"), "{out}\n{error}");
    assert_eq!(arrived(&out, "http"), 2_001, "{out}");
}

#[test]
fn the_service_of_the_readme_works() {
    let blocks = shell_blocks("## A service for the team");
    let [serve, requests] = blocks[..] else { panic!("expected the blocks of two terminals, got {blocks:?}") };
    let [api, sink] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [api, sink] = [api, sink].map(|listener| listener.local_addr().unwrap());
    let script = format!(
        "printf '[api]\\nlisten=[\"{api}\"]\\n[sink]\\nlisten=[\"{sink}\"]\\nhttp_listen=[\"127.0.0.1:0\"]\\n[store]\\npath=\"jobs.db\"\\n' > timecop.toml\n\
         export TIMECOP_API=http://{api}\n\
         {} --config timecop.toml > serve.out &\n\
         timeout 30 sh -c 'until grep -q smtp: serve.out; do :; done'\n\
         {requests}\n\
         kill -TERM $!; wait $!\n",
        serve.trim_end()
    );
    let (output, _folder) = run(&script.replace("127.0.0.1:8025", &api.to_string()));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    assert!(out.contains("5,000 asked: 5,000 accepted"), "{out}\n{error}");
    assert!(out.contains("2,000 asked: 2,000 accepted"), "{out}\n{error}");
    assert!(out.contains(r#""Type":"http""#) && out.contains(r#""state":"running""#), "{out}\n{error}");
    assert!(out.contains("timecop_hammer_messages_total{type=\"smtp\",outcome=\"accepted\"}"), "{out}\n{error}");
}

#[test]
fn the_audit_of_the_readme_works() {
    let blocks = shell_blocks("## Has all of it arrived?");
    let [here, sink, hammer, join] = blocks[..] else { panic!("expected four blocks, got {blocks:?}") };
    let (output, _folder) = run(&format!("{here}\n{}", one_terminal(&[sink, hammer]) + join));
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{error}");
    let account = "20,000 accepted: 20,000 arrived, 0 missing, 0 duplicate, 0 altered, 0 late";
    assert_eq!(out.matches(account).count(), 2, "{out}\n{error}");
}

#[test]
fn the_table_of_the_report_names_every_field() {
    let binary = env!("CARGO_BIN_EXE_timecop");
    let arguments = ["hammer", "-m", "10", "--audit", "--json", "-", "--quiet"];
    let output = Command::new(binary).args(arguments).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut fields = BTreeSet::new();
    collect(&report, &mut fields);
    // Phases and histograms are named by their pattern.
    fields.retain(|field| !field.contains('.'));
    let missing: Vec<_> = fields.iter().filter(|field| !REPORT.contains(&format!("`{field}`"))).collect();
    assert!(missing.is_empty(), "docs/report.md does not name {missing:?}");
}

fn collect(value: &serde_json::Value, fields: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                fields.insert(name.clone());
                collect(value, fields);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect(value, fields)),
        _ => {}
    }
}

/// What `timecop check` says of a file, and its exit code.
fn check(file: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_timecop")).args(["check", "--config", file]).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_configurations_of_the_readme_are_right() {
    let folder = tempfile::tempdir().unwrap();
    for (secret, text) in
        [("mailgun.key", "a key of the provider"), ("pagerduty.key", "0123456789abcdef0123456789abcdef")]
    {
        fs::write(folder.path().join(secret), text).unwrap();
    }
    let store = "[store]\npath = \"jobs.db\"\n";
    let all: Vec<_> = README.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(all.len(), 2, "a target with a key, and the smallest round trip");
    for configuration in all {
        let file = folder.path().join("timecop.toml");
        fs::write(&file, format!("{store}{configuration}")).unwrap();
        let (code, text) = check(file.to_str().unwrap());
        assert!(code == Some(0) && text.contains("no faults"), "{configuration}: {text}");
    }
}

#[test]
fn the_example_of_a_configuration_is_right_and_a_wrong_one_is_told_of() {
    let (code, text) = check(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/timecop.toml"));
    assert!(code == Some(0) && text.contains("no faults"), "{text}");
    let (code, text) = check(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    assert!(code == Some(2) && text.contains("package: this key is unknown"), "{text}");
}

#[test]
fn no_place_is_left_to_be_filled_in() {
    for text in [README, REPORT, include_str!("../ARCHITECTURE.md"), include_str!("../CHANGELOG.md")] {
        assert!(!text.contains("<!--"), "{text}");
    }
}

#[test]
fn every_option_of_the_readme_exists() {
    let binary = env!("CARGO_BIN_EXE_timecop");
    let help = |command: &[&str]| {
        let output = Command::new(binary).args(command).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let known = [&["hammer"][..], &["sink"], &["check"], &["serve"], &["search"], &["job", "run"], &["audit"]]
        .map(help)
        .concat();
    for word in README.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).filter(|word| word.starts_with("--")) {
        if !["--release", "--path", "--", "--help", "---"].contains(&word) && !word.trim_matches('-').is_empty() {
            assert!(known.contains(word), "the README speaks of {word}, which no command knows");
        }
    }
}
