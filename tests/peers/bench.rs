//! The test bench itself: the peers agree with each other before they judge timecop.

use std::process::Command;

use crate::support::{Aiosmtpd, Postfix, Process, Scripted, SmtpSink};

/// smtp-source with `options`, to a port of this machine; it must succeed.
pub fn smtp_source(port: u16, options: &[&str]) {
    let mut command = Command::new("/usr/sbin/smtp-source");
    command.args(["-4", "-M", "source.test", "-f", "source@example.com", "-t", "load@example.com"]);
    let finished = Process::run(command.args(options).arg(format!("127.0.0.1:{port}")));
    assert!(finished.status.success(), "smtp-source: {} {}", finished.status, finished.stderr);
}

#[test]
fn smtp_sink_counts_what_smtp_source_sends() {
    let sink = SmtpSink::start(&[]);
    smtp_source(sink.port(), &["-d", "-s", "3", "-m", "50", "-r", "2"]);
    assert_eq!((sink.messages(), sink.recipients()), (50, 100));
}

#[test]
fn aiosmtpd_counts_what_smtp_source_sends() {
    let server = Aiosmtpd::start(None);
    smtp_source(server.port(), &["-d", "-s", "3", "-m", "50", "-r", "2"]);
    let arrived = server.stop();
    assert_eq!((&arrived["messages"], &arrived["recipients"]), (&50.into(), &100.into()));
    assert_eq!(arrived["message_ids"], 50);
}

#[test]
#[should_panic(expected = "faulty messages arrived")]
fn aiosmtpd_complains_about_content_that_was_not_expected() {
    let dir = tempfile::tempdir().unwrap();
    let expected = dir.path().join("expected");
    std::fs::write(&expected, "Subject: another\r\n\r\nbody\r\n").unwrap();
    let server = Aiosmtpd::start(Some(&expected));
    smtp_source(server.port(), &[]);
    server.stop();
}

#[test]
fn postfix_delivers_what_smtp_source_sends() {
    let postfix = Postfix::start("");
    smtp_source(postfix.port(), &["-d", "-s", "3", "-m", "20", "-r", "2"]);
    assert_eq!(postfix.delivered(40), 40);
    assert_eq!(postfix.messages(), 20);
}

#[test]
fn the_scripted_server_sees_one_command_at_a_time_from_smtp_source() {
    let server = Scripted::start(true);
    smtp_source(server.port(), &["-d", "-s", "2", "-m", "10"]);
    let groups = server.groups();
    assert!(!groups.is_empty() && groups.iter().all(|group| group.len() == 1), "{groups:?}");
}
