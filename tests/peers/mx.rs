//! `mx://`: in a network of its own, where port 25 is free and the system's name server is the test's.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Process, python, script, text, timecop};

/// What came of each of `commands`, of timecop's words each, with a configuration for the service at CONFIG; those that
/// begin with `&` are started first and have no outcome.
fn in_a_network_of_its_own(configuration: &str, commands: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("timecop.toml");
    let configuration = format!("[store]\npath = 'jobs.db'\n{configuration}");
    fs::write(&config, configuration).expect("a file can be written");
    let binary = timecop().get_program().to_str().expect("a path in UTF-8").to_owned();
    let lines: String = commands
        .iter()
        .map(|command| {
            let (start, words) = match command.strip_prefix("& ") {
                Some(words) => (Some("&"), words),
                None => (None, *command),
            };
            let words = words.split(' ').map(|word| if word == "CONFIG" { text(&config) } else { word });
            let words: Vec<&str> = start.into_iter().chain([binary.as_str()]).chain(words).collect();
            format!("{}\n", json!(words))
        })
        .collect();
    let input = folder.path().join("commands");
    fs::write(&input, lines).expect("a file can be written");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).arg(python().get_program()).arg(script("mx_world.py")).arg(input);
    let run = Process::run(&mut command);
    assert!(run.status.success(), "{}{}", run.stdout, run.stderr);
    let outcomes: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(outcomes.len(), commands.iter().filter(|command| !command.starts_with("& ")).count());
    outcomes
}

/// The JSON that a command wrote.
fn written(outcome: &Value) -> Value {
    let stdout = outcome["stdout"].as_str().expect("a text");
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

#[test]
fn mail_for_a_domain_goes_to_its_most_preferred_exchanger() {
    let outcomes = in_a_network_of_its_own(
        "",
        &[
            "& sink --listen 127.0.0.5:25 --hostname a.example.com",
            "hammer mx://example.com -m 7 --quiet --json -",
            "hammer mx+starttls://example.com -m 7 --quiet --json - --skip-verify",
            "hammer mx://bare.example -m 7 --quiet --json -",
        ],
    );
    for (outcome, target) in outcomes.iter().zip([
        "mx://example.com (mail exchanger a.example.com, 127.0.0.5:25)",
        "mx+starttls://example.com (mail exchanger a.example.com, 127.0.0.5:25)",
        "mx://bare.example (mail exchanger bare.example, 127.0.0.5:25)",
    ]) {
        assert_eq!(outcome["exit"], 0, "{outcome}");
        let report = written(outcome);
        assert_eq!((&report["target"], &report["messages"]["accepted"]), (&json!(target), &json!(7)), "{report}");
    }
}

#[test]
fn a_domain_without_mail_exchangers_says_why() {
    let domains = ["null.example", "gone.example", "empty.example", "broken.example"];
    let commands = domains.map(|domain| format!("hammer mx://{domain} -m 1"));
    let outcomes = in_a_network_of_its_own("", &commands.each_ref().map(String::as_str));
    for (outcome, says) in outcomes.iter().zip([
        "its MX is null (RFC 7505)",
        "there is no such domain",
        "no address at which mail could be taken",
        "try again later",
    ]) {
        let said = outcome["stderr"].as_str().expect("a text");
        assert!(outcome["exit"] == 2 && said.contains("TARGET: ") && said.contains(says), "{outcome}");
    }
}

#[test]
fn a_job_for_a_domain_is_held_to_the_allow_list_and_shown_as_it_was_given() {
    let outcomes = in_a_network_of_its_own(
        "[targets.far]\nurl = 'mx://far.example'\n",
        &[
            "& sink --listen 127.0.0.5:25",
            "& serve --config CONFIG",
            "job run mx://example.com -m 7 --wait --json",
            "job run mx://far.example -m 7 --wait --json",
            "job run far -m 7 --wait --json",
            "job run mx://null.example -m 7 --wait --json",
            "job run mx://broken.example -m 7 --wait --json",
            "job run mx://example.com --search --slo p50<1s --start-rate 50 --max-rate 50 --trial 1s --confirm 1s --wait --json",
        ],
    );
    let [job, outside, named, null, broken, search] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!(job["exit"], 0, "{job}");
    let job = written(job);
    assert_eq!(
        (&job["job"]["target"], &job["result"]["messages"]["accepted"]),
        (&json!("mx://example.com"), &json!(7))
    );
    assert_eq!(job["result"]["target"], "mx://example.com (mail exchanger a.example.com, 127.0.0.5:25)");
    for (refused, says) in [
        (outside, &["192.0.2.1", "far.example.net", "allow_targets"][..]),
        (null, &["its MX is null (RFC 7505)"]),
        (broken, &["try again later"]),
    ] {
        let said = refused["stderr"].as_str().expect("a text");
        assert!(refused["exit"] != 0 && says.iter().all(|word| said.contains(word)), "{refused}");
    }
    // The configuration may reach what a request may not.
    assert_eq!(named["exit"], 0, "{named}");
    let named = "far (mx://far.example) (mail exchanger a.example.com, 127.0.0.5:25)";
    assert_eq!(written(&outcomes[2])["result"]["target"], named);
    assert_eq!(search["exit"], 0, "{search}");
    assert_eq!(written(search)["result"]["target"], "mx://example.com (mail exchanger a.example.com, 127.0.0.5:25)");
}
