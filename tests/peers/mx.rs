//! `mx://`: in a network of its own, where port 25 is free and the system's name server is the test's.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Process, python, script, text, timecop};

/// What came of each of `commands`, of timecop's words each, with a configuration for the service at CONFIG; those that
/// begin with `&` are started first and have no outcome. Those that begin with `~` and a pattern are repeated until their output
/// has it, and `!` ends what was started last. Words of another program than timecop follow `curl`.
fn in_a_network_of_its_own(configuration: &str, commands: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("timecop.toml");
    let configuration = format!("[store]\npath = 'jobs.db'\n{configuration}");
    fs::write(&config, configuration).expect("a file can be written");
    let binary = timecop().get_program().to_str().expect("a path in UTF-8").to_owned();
    let lines: String = commands
        .iter()
        .map(|command| {
            let mut words: Vec<&str> = command.split(' ').collect();
            words.iter_mut().filter(|word| **word == "CONFIG").for_each(|word| *word = text(&config));
            let before = match words[0] {
                "!" | "&" => 1,
                "~" => 2,
                _ => 0,
            };
            if !matches!(words.get(before), Some(&"curl") | None) {
                words.insert(before, &binary);
            }
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

/// A service whose own server is the mail exchanger of example.com, with these routes.
fn prober(routes: &[(&str, &str, &str)]) -> String {
    let route = |(name, target, interval): &(&str, &str, &str)| {
        format!("[[probe.route]]\nname = '{name}'\ntarget = '{target}'\ninterval = '{interval}'\ntimeout = '15m'\n")
    };
    let routes: String = routes.iter().map(route).collect();
    format!(
        "[smtp]\nlisten = ['127.0.0.5:25']\nhostname = 'a.example.com'\n[probe]\naddress = 'probe@example.com'\n{routes}"
    )
}

#[test]
fn a_probe_goes_by_the_mail_exchanger_of_its_domain_and_comes_back() {
    let configuration = format!(
        "{}[targets.own]\nurl = 'mx+starttls://example.com'\nskip_verify = true\n",
        prober(&[("plain", "mx://example.com", "5days"), ("secured", "own", "5days")])
    );
    let commands = ["& serve --config CONFIG", "probe plain --json", "probe secured --json"];
    let outcomes = in_a_network_of_its_own(&configuration, &commands);
    for outcome in &outcomes {
        assert_eq!(outcome["exit"], 0, "{outcome}");
        let probe = written(outcome);
        assert!(probe["outcome"] == "ok" && probe["legs"]["submit_s"].is_f64(), "{probe}");
    }
    assert!(written(&outcomes[0])["legs"]["tls_s"].is_null() && written(&outcomes[1])["legs"]["tls_s"].is_f64());
}

/// Its name servers hang: the route says so, no other one waits, look-ups do not pile up, and the end does not wait for them.
#[test]
fn a_route_whose_name_servers_are_silent_holds_up_nobody_else() {
    let configuration = prober(&[
        ("hung", "mx://silent.example", "1s"),
        ("once", "mx://once.silent.example", "5days"),
        ("plain", "mx://example.com", "5days"),
    ]);
    let outcomes = in_a_network_of_its_own(
        &configuration,
        &[
            "& serve --config CONFIG",
            "~ timecop_probe_skipped_total\\{route=\"hung\"\\}\\s([2-9]|\\d\\d) curl -s http://127.0.0.1:8025/metrics",
            "probe plain --json",
            "probe once --json",
            "~ \"state\":\"send_failed\" curl -s -X POST http://127.0.0.1:8025/v1/probe/route.get?name=hung",
            "!",
        ],
    );
    let [_, plain, once, hung, end] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(plain["exit"] == 0 && written(plain)["outcome"] == "ok", "{plain}");
    let failed = written(once);
    assert_eq!((&once["exit"], &failed["outcome"]), (&json!(1), &json!("send_failed")), "{once}");
    let why = failed["detail"].as_str().expect("a reason");
    assert!(why.contains("silent.example") && why.contains("try again later"), "{why}");
    assert!(hung["stdout"].as_str().is_some_and(|shown| shown.contains("send_failed")), "{hung}");
    let log = end["stdout"].as_str().expect("a log");
    assert_eq!(end["exit"], 0, "{log}");
    assert!(log.contains("fewer than 2 look-ups of this host under way"), "{log}");
    // Look-ups are under way, and nothing is waited for.
    assert!(log.contains("ending: no new jobs"), "{log}");
}
