//! The delivery audit: what was accepted is held against what has arrived, through real relays that lose, repeat and alter.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Finished, Hammer, Postfix, Process, Service, Sink, contents, poll, text, timecop};

/// A folder with a key, and the files that both ends write into it.
struct Audit {
    dir: TempDir,
}

impl Audit {
    fn new() -> Audit {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("key"), format!("{}\n", "5a".repeat(32))).expect("a file in our folder");
        Audit { dir }
    }

    fn file(&self, name: &str) -> String {
        text(&self.dir.path().join(name)).to_owned()
    }

    fn sink(&self) -> Sink {
        Sink::start(&["--audit-key", &self.file("key"), "--audit-report", &self.file("arrived")])
    }

    fn options(&self) -> [String; 5] {
        let (key, report) = (self.file("key"), self.file("accepted"));
        ["--audit".into(), "--audit-key".into(), key, "--audit-report".into(), report]
    }

    /// The exit status of `timecop audit`, and its account of the one run.
    fn account(&self) -> (i32, Value) {
        let mut command = timecop();
        command.args(["audit", "--json", &self.file("accepted"), &self.file("arrived")]);
        let Finished { status, stdout, stderr } = Process::run(&mut command);
        let account: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        assert_eq!(account["runs"].as_array().map(Vec::len), Some(1), "{account}");
        (status.code().expect("it was not killed"), account["runs"][0].clone())
    }
}

/// The missing messages that an account names.
fn missing(run: &Value) -> BTreeSet<u64> {
    let ranges: Vec<[u64; 2]> =
        serde_json::from_value(run["arrivals"]["missing_sequences"].clone()).unwrap_or_default();
    ranges.into_iter().flat_map(|[first, last]| first..=last).collect()
}

/// The sequence in a message's stamp.
fn sequence(message: &str) -> u64 {
    let (_, digits) = message.split_once("; seq=").expect("it has a stamp");
    u64::from_str_radix(&digits[..16], 16).expect("digits")
}

#[test]
fn at_full_load_each_message_that_the_embedded_sink_accepts_arrives_once_and_whole() {
    let mut command = timecop();
    command.args(["hammer", "--audit", "-m", "50000", "-s", "1000:3,20000:1", "--json", "-", "--quiet"]);
    let Finished { status, stdout, stderr } = Process::run(&mut command);
    assert!(status.success(), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("one object");
    let audit = &report["audit"];
    assert_eq!((&audit["accepted"], &audit["arrivals"]["arrived"]), (&50_000.into(), &50_000.into()), "{audit}");
    for none in ["missing", "duplicate", "altered", "late", "forged", "malformed", "unacknowledged", "skewed"] {
        assert_eq!(audit["arrivals"][none], 0, "{none}: {audit}");
    }
    assert_eq!(audit["arrivals"]["end_to_end_s"]["count"], 50_000, "{audit}");
    assert_eq!(audit["arrivals"]["clock"], "monotonic");
    assert!(report["histograms"]["audit.end_to_end"].is_string());
}

#[test]
fn each_message_that_a_killed_postfix_has_accepted_and_lost_is_named() {
    let audit = Audit::new();
    let sink = audit.sink();
    let postfix = Postfix::start(&format!(
        "local_transport = relay:[127.0.0.1]:{}\n\
         queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n\
         smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ held@example.com = HOLD }} }}\n",
        sink.port()
    ));
    let options = audit.options();
    let mut arguments = vec!["-c", "10", "--rate", "200", "-d", "8s", "--to", "a@example.com", "--to", "b@example.com"];
    arguments.extend(["--to", "c@example.com", "--to", "held@example.com"]);
    arguments.extend(options.iter().map(String::as_str));
    let hammer = Hammer::start(postfix.port(), &arguments);
    poll("a load under way", || (postfix.messages() >= 100).then_some(()));
    postfix.kill();
    postfix.start_again();
    let run = hammer.finish();
    let accepted = run.count("messages.accepted");
    assert!(accepted >= 150, "it took mail before and after: {}", run.shown());
    assert_eq!(run.count("audit.accepted"), accepted);

    // Of what it holds, some is lost without a word; the rest is delivered.
    let held = postfix.held();
    assert!(held.len() > 5, "{held:?}");
    let lost: BTreeSet<u64> = held.iter().take(3).map(|id| sequence(&postfix.message(id))).collect();
    held.iter().take(3).for_each(|id| postfix.lose(id));
    postfix.release();
    poll("an empty queue", || {
        postfix.flush();
        (postfix.queued() == 0).then_some(())
    });
    let arrived = sink.stop();
    let (exit, account) = audit.account();
    assert_eq!(missing(&account), lost, "{account}");
    assert_eq!((exit, &account["accepted"]), (1, &accepted.into()), "{account}");
    let count = |name: &str| account["arrivals"][name].as_u64().expect("a count");
    assert_eq!(count("arrived") - count("unacknowledged"), accepted - 3, "{account}");
    assert_eq!(count("arrived") + count("duplicate"), arrived["messages"].as_u64().expect("a count"), "{account}");
    assert_eq!((count("altered"), count("forged"), count("malformed"), count("unstamped")), (0, 0, 0, 0), "{account}");
    assert_eq!(account["arrivals"]["clock"], "wall");
}

/// Sends these messages, octet for octet.
fn send_as_they_are(port: u16, dir: &Path, messages: &[Vec<u8>]) {
    for (index, message) in messages.iter().enumerate() {
        fs::write(dir.join(format!("{index:03}.eml")), message).expect("a file in our folder");
    }
    let count = messages.len().to_string();
    let run = Hammer::run(port, &["--body", text(dir), "--verbatim", "-m", &count, "-c", "1"]);
    run.assert_all_accepted(messages.len() as u64);
}

fn replaced(message: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(message).expect("it is ASCII");
    assert!(text.contains(from), "{text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn what_a_relay_repeats_alters_forges_and_breaks_is_told_apart() {
    let audit = Audit::new();
    let relay: PathBuf = audit.dir.path().join("relay");
    let saving = Sink::saving_to(&relay);
    let options = audit.options();
    let mut arguments = vec!["-m", "12", "-c", "1"];
    arguments.extend(options.iter().map(String::as_str));
    Hammer::run(saving.port(), &arguments).assert_all_accepted(12);
    saving.stop();
    // Sorted by content, whose first difference is the sequence.
    let messages = contents(&relay);
    let stamps: Vec<u64> = messages.iter().map(|message| sequence(&String::from_utf8_lossy(message))).collect();
    assert_eq!(stamps, (0..12).collect::<Vec<_>>());

    let passed_on = [
        messages[0].clone(),
        // What relays may do: fields before it, the field folded, empty lines behind the body.
        replaced(&messages[1], "X-Timecop", "Received: from a\r\n\tby b; Tue, 14 Nov 2023 22:13:20 +0000\r\nX-Timecop"),
        replaced(&messages[2], "; body=", ";\r\n\tbody="),
        [&messages[3][..], b"\r\n\r\n"].concat(),
        messages[3].clone(),
        // What they must not do.
        replaced(&messages[4], "\r\n\r\n", "\r\n\r\n "),
        replaced(&messages[5], "seq=0000000000000005", "seq=0000000000000006"),
        replaced(&messages[6], "v=1; ", ""),
        replaced(&messages[7], "X-Timecop-Audit", "X-Other"),
    ];
    let sink = audit.sink();
    let folder = audit.dir.path().join("passed-on");
    fs::create_dir(&folder).expect("a folder in ours");
    send_as_they_are(sink.port(), &folder, &passed_on);
    sink.stop();
    let (exit, account) = audit.account();
    assert_eq!((exit, &account["accepted"]), (1, &12.into()), "{account}");
    assert_eq!(missing(&account), (5..12).collect(), "{account}");
    for (name, count) in [
        ("arrived", 5),
        ("missing", 7),
        ("duplicate", 1),
        ("altered", 1),
        ("forged", 1),
        ("malformed", 1),
        ("unstamped", 1),
        ("unacknowledged", 0),
    ] {
        assert_eq!(account["arrivals"][name], count, "{name}: {account}");
    }
    assert_eq!(account["arrivals"]["altered_sequences"], serde_json::json!([4]), "{account}");

    let mut command = timecop();
    let finished = Process::run(command.args(["audit", &audit.file("accepted"), &audit.file("arrived")]));
    let named = "    missing    5 to 11 (0000000000000005 to 000000000000000b)\n    altered    4 (0000000000000004)\n";
    assert!(finished.stdout.contains(named), "{}", finished.stdout);
    // What is to be grepped for stands in the message itself, as a relay logs it.
    let (_, grep) = finished.stdout.split_once("grep ").expect("what to look for");
    let grep = grep.lines().next().expect("a line");
    let message = String::from_utf8_lossy(&messages[5]);
    assert!(message.lines().any(|line| line.starts_with(&format!("Message-ID: <{grep}@"))), "{grep}: {message}");
}

/// With the words of the wrong key, and what a sink leaves that is killed.
#[test]
fn mail_of_another_key_is_said_to_have_come_and_a_killed_sink_leaves_its_account() {
    let audit = Audit::new();
    fs::write(audit.dir.path().join("other"), format!("{}\n", "a5".repeat(32))).expect("a file in our folder");
    let sink = Sink::start(&["--audit-key", &audit.file("other"), "--audit-report", &audit.file("arrived")]);
    let options = audit.options();
    let mut arguments = vec!["-m", "12", "-c", "1"];
    arguments.extend(options.iter().map(String::as_str));
    Hammer::run(sink.port(), &arguments).assert_all_accepted(12);
    let says = |what: &str| fs::read_to_string(audit.file("arrived")).is_ok_and(|text| text.contains(what));
    poll("the account of what has arrived", || says("\"forged\":12,").then_some(()));
    sink.signal("KILL");
    let mut command = timecop();
    let finished = Process::run(command.args(["audit", &audit.file("accepted"), &audit.file("arrived")]));
    assert_eq!(finished.status.code(), Some(1), "{}{}", finished.stdout, finished.stderr);
    for words in ["12 missing", "12 arrived with stamps of another key", "had not ended: it runs, or was killed"] {
        assert!(finished.stdout.contains(words), "{words}: {}", finished.stdout);
    }
}

#[test]
fn a_run_that_the_sink_has_forgotten_is_not_missing_and_no_file_counts_twice() {
    let audit = Audit::new();
    let sink = audit.sink();
    for _ in 0..17 {
        let options = audit.options();
        let mut arguments = vec!["-m", "10", "-c", "1"];
        arguments.extend(options.iter().map(String::as_str));
        Hammer::run(sink.port(), &arguments).assert_all_accepted(10);
        if !Path::new(&audit.file("first")).exists() {
            fs::copy(audit.file("accepted"), audit.file("first")).expect("a file in our folder");
        }
    }
    sink.stop();
    let (exit, account) = audit.account();
    assert_eq!((exit, &account["arrivals"]["arrived"]), (0, &10.into()), "{account}");
    let of = |files: &[&str]| {
        let mut command = timecop();
        let files: Vec<String> = files.iter().map(|file| audit.file(file)).collect();
        Process::run(command.arg("audit").args(files))
    };
    let first = of(&["first", "arrived"]);
    assert_eq!(first.status.code(), Some(3), "{}{}", first.stdout, first.stderr);
    assert!(first.stdout.contains("10 accepted; what of them has arrived is not known"), "{}", first.stdout);
    let twice = of(&["accepted", "arrived", "arrived"]);
    assert_eq!(twice.status.code(), Some(2), "{}{}", twice.stdout, twice.stderr);
    assert!(twice.stderr.contains("expected one file of each sink"), "{}", twice.stderr);
}

#[test]
fn a_job_of_the_service_is_held_against_its_own_sink() {
    let service = Service::start("");
    let job = |audit: &str| {
        format!(r#"{{"smtp_connection_type":"plain","msg_size":1000,"messages":2000,"connections":10{audit}}}"#)
    };
    let unaudited = service.ended(&service.run(&job("")));
    assert!(unaudited["result"]["audit"].is_null(), "{unaudited}");
    for n in 1..3 {
        let ended = service.ended(&service.run(&job(r#","audit":true"#)));
        let audit = &ended["result"]["audit"];
        assert_eq!((&audit["accepted"], &audit["arrivals"]["arrived"]), (&2_000.into(), &2_000.into()), "{audit}");
        assert_eq!((&audit["arrivals"]["missing"], &audit["arrivals"]["unstamped"]), (&0.into(), &0.into()), "{audit}");
        let metrics = service.get("/metrics").1;
        let arrived = format!("timecop_audit_messages_total{{what=\"arrived\"}} {}\n", n * 2_000);
        assert!(metrics.contains(&arrived), "{metrics}");
        assert!(metrics.contains(&format!("timecop_audit_end_to_end_seconds_count {}\n", n * 2_000)), "{metrics}");
    }
    let refused = service.post("/v1/hammer/job.run", Some(r#"{"Type":"http","msg_size":1000,"audit":true}"#));
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.reason().starts_with("audit: expected false for jobs by HTTP"), "{refused:?}");
}
