//! Other people's clients into our sink: it counts what they sent, keeps it octet for octet, refuses what it must.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::bench::smtp_source;
use crate::support::{Finished, Hammer, Process, Sink, contents, python, script};

/// swaks with `options`, to a port of this machine, without looking anything up.
pub fn swaks(port: u16, options: &[&str]) -> Finished {
    let mut command = Command::new("swaks");
    command.args([
        "--server",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--helo",
        "swaks.test",
        "--from",
        "a@example.com",
    ]);
    Process::run(command.args(options))
}

#[test]
fn smtp_source_and_the_sink_count_the_same() {
    let sink = Sink::start(&[]);
    smtp_source(sink.port(), &["-d", "-s", "5", "-m", "2000", "-r", "3", "-l", "2000"]);
    let report = sink.stop();
    assert_eq!(report["messages"], 2000);
    assert_eq!(report["recipients"], 6000);
    assert_eq!(report["sessions"], 5);
    assert_eq!(report["errors"], 0);
    assert!(report["bytes"].as_u64() >= Some(2000 * 2000), "2000 octets of payload each: {report}");
    assert!(report["commands"].as_u64() >= Some(2000 * 5), "MAIL, three RCPT and DATA each: {report}");
}

#[test]
fn smtp_source_may_open_a_session_for_every_message() {
    let sink = Sink::start(&[]);
    smtp_source(sink.port(), &["-s", "10", "-m", "500"]);
    let report = sink.stop();
    assert_eq!((&report["messages"], &report["sessions"], &report["errors"]), (&500.into(), &500.into(), &0.into()));
}

#[test]
fn the_sink_and_the_generator_count_the_same() {
    for pipelining in ["auto", "off"] {
        let sink = Sink::start(&[]);
        let run = Hammer::run(
            sink.port(),
            &["-m", "5000", "-c", "10", "--recipients-per-message", "2", "--pipelining", pipelining],
        );
        run.assert_all_accepted(5000);
        let report = sink.stop();
        assert_eq!(report["messages"], 5000);
        assert_eq!(report["recipients"], 10_000);
        assert_eq!(report["sessions"], run.count("connections.opened"));
        assert_eq!(report["errors"], 0);
    }
}

#[test]
fn a_message_of_swaks_with_dots_is_kept_octet_for_octet() {
    let dir = tempfile::tempdir().unwrap();
    let (saved, mail) = (dir.path().join("saved"), dir.path().join("mail"));
    fs::create_dir(&saved).unwrap();
    let text = "From: <a@example.com>\nTo: <b@example.com>\nSubject: dots\n\n.\n..\n.one\n...three\n\n.\nQUIT\nend\n";
    fs::write(&mail, text).unwrap();
    let sink = Sink::saving_to(&saved);
    let data = format!("@{}", mail.display());
    let finished = swaks(sink.port(), &["--to", "b@example.com", "--data", &data]);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let report = sink.stop();
    assert_eq!((&report["messages"], &report["errors"]), (&1.into(), &0.into()));
    assert_eq!(shown(&contents(&saved)), [text.replace('\n', "\r\n") + SWAKS_END]);
}

/// swaks ends every message with an empty line of its own.
const SWAKS_END: &str = "\r\n";

fn shown(messages: &[Vec<u8>]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(message).into_owned()).collect()
}

#[test]
fn messages_of_smtplib_with_random_content_are_kept_octet_for_octet() {
    let dir = tempfile::tempdir().unwrap();
    let (saved, sent) = (dir.path().join("saved"), dir.path().join("sent"));
    fs::create_dir(&saved).unwrap();
    fs::create_dir(&sent).unwrap();
    let sink = Sink::saving_to(&saved);
    smtplib(sink.port(), 300, 1, &sent);
    let report = sink.stop();
    assert_eq!((&report["messages"], &report["errors"]), (&300.into(), &0.into()));
    assert_eq!(report["recipients"], 600, "one, two, three, one, …");
    let (saved, sent) = (contents(&saved), contents(&sent));
    assert_eq!(saved.len(), sent.len());
    for (saved, sent) in saved.iter().zip(&sent) {
        assert_eq!(String::from_utf8_lossy(saved), String::from_utf8_lossy(sent));
        assert_eq!(saved, sent);
    }
}

fn smtplib(port: u16, count: u32, seed: u32, sent: &Path) {
    let mut command = python();
    command.arg(script("smtplib_send.py")).args([port.to_string(), count.to_string(), seed.to_string()]).arg(sent);
    let finished = Process::run(&mut command);
    assert!(finished.status.success(), "smtplib: {}", finished.stderr);
}

#[test]
fn only_the_accepted_domains_are_accepted() {
    let sink = Sink::start(&["--accept-domain", "example.com", "--accept-domain", "example.org"]);
    for (to, status) in [
        ("a@example.com", 0),
        ("b@EXAMPLE.org", 0),
        ("c@example.net", SWAKS_NO_RCPT),
        ("d@sub.example.com", SWAKS_NO_RCPT),
    ] {
        let finished = swaks(sink.port(), &["--to", to]);
        assert_eq!(finished.status.code(), Some(status), "{to}: {}{}", finished.stdout, finished.stderr);
        assert_eq!(finished.stdout.contains("550 5.7.1"), status != 0, "{to}: {}", finished.stdout);
    }
    let report = sink.stop();
    assert_eq!((&report["messages"], &report["recipients"]), (&2.into(), &2.into()));
}

/// The exit status of swaks when no recipient was accepted.
const SWAKS_NO_RCPT: i32 = 24;
/// The exit status of swaks when the message was not accepted after its end.
const SWAKS_NO_FINAL: i32 = 26;

#[test]
fn a_message_above_the_limit_is_refused_and_one_below_it_is_not() {
    let sink = Sink::start(&["--max-size", "20000"]);
    let small = swaks(sink.port(), &["--to", "a@example.com", "--body", &"x".repeat(60)]);
    assert!(small.status.success(), "{}{}", small.stdout, small.stderr);
    assert!(small.stdout.contains("SIZE 20000"), "the limit is announced: {}", small.stdout);
    // swaks announces no size, so the sink learns it from the message itself.
    let large = swaks(sink.port(), &["--to", "a@example.com", "--body", &format!("{}\n", "x".repeat(70)).repeat(400)]);
    assert_eq!(large.status.code(), Some(SWAKS_NO_FINAL), "{}{}", large.stdout, large.stderr);
    assert!(large.stdout.contains(" 552 "), "{}", large.stdout);
    assert_eq!(sink.stop()["messages"], 1);
}

#[test]
fn the_generator_learns_that_its_messages_are_too_large() {
    let sink = Sink::start(&["--max-size", "20000"]);
    let run = Hammer::run(sink.port(), &["-m", "20", "-c", "2", "-s", "30000"]);
    assert_eq!(run.count("messages.rejected"), 20, "{}", run.shown());
    assert_eq!(run.replies_of(552), 20, "{}", run.shown());
    assert_eq!(sink.stop()["messages"], 0);
}

#[test]
fn the_sink_greets_with_its_host_name() {
    let sink = Sink::start(&["--hostname", "mx.sink.test"]);
    let finished = swaks(sink.port(), &["--to", "a@example.com"]);
    assert!(finished.stdout.contains(" 220 mx.sink.test"), "{}", finished.stdout);
    assert!(finished.stdout.contains(" 250-mx.sink.test"), "{}", finished.stdout);
    assert_eq!(sink.stop_by("INT")["messages"], 1);
}
