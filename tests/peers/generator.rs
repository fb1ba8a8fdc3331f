//! Our generator into other people's servers: what it reports is what arrived there.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::support::{Aiosmtpd, Hammer, Port, Postfix, Scripted, Sink, SmtpSink, poll};

#[test]
fn smtp_sink_receives_as_many_messages_as_are_reported() {
    let sink = SmtpSink::start(&[]);
    let run = Hammer::run(sink.port(), &["-m", "3000", "-c", "20"]);
    run.assert_all_accepted(3000);
    assert_eq!(sink.messages(), 3000);
    assert_eq!(sink.recipients(), 3000);
    assert_eq!(run.count("connections.asked"), 20);
    assert!(run.count("connections.held_max") <= 20, "{}", run.shown());
}

#[test]
fn smtp_sink_receives_as_many_recipients_a_message_as_were_asked_for() {
    let sink = SmtpSink::start(&[]);
    let run = Hammer::run(sink.port(), &["-m", "200", "-c", "4", "--recipients-per-message", "5"]);
    run.assert_all_accepted(200);
    assert_eq!(run.count("recipients.accepted"), 1000);
    assert_eq!((sink.messages(), sink.recipients()), (200, 1000));
}

#[test]
fn a_connection_ends_after_as_many_messages_as_it_may_carry() {
    let server = Aiosmtpd::start(None);
    let run = Hammer::run(server.port(), &["-m", "60", "-c", "3", "--messages-per-connection", "5"]);
    run.assert_all_accepted(60);
    let arrived = server.stop();
    assert_eq!(arrived["messages"], 60);
    assert_eq!(arrived["sessions"], run.count("connections.opened"), "{}", run.shown());
    assert!(run.count("connections.opened") >= 12, "60 messages, at most 5 a connection: {}", run.shown());
}

#[test]
fn postfix_delivers_as_many_messages_as_are_reported() {
    let postfix = Postfix::start("");
    let options =
        ["-m", "200", "-c", "5", "--recipients-per-message", "2", "--to", "a@example.com", "--to", "b@example.com"];
    let run = Hammer::run(postfix.port(), &options);
    run.assert_all_accepted(200);
    assert_eq!(run.count("recipients.accepted"), 400);
    assert_eq!(postfix.delivered(400), 400);
    assert_eq!(postfix.messages(), 200);
}

#[test]
fn postfix_delivers_what_is_sent_without_pipelining() {
    let postfix = Postfix::start("");
    let run = Hammer::run(postfix.port(), &["-m", "100", "-c", "5", "--pipelining", "off"]);
    run.assert_all_accepted(100);
    assert_eq!(postfix.delivered(100), 100);
}

#[test]
fn recipients_that_postfix_refuses_are_counted_with_their_code() {
    let postfix = Postfix::start(
        "smtpd_recipient_restrictions = check_recipient_access inline:{\n  \
         { refused@example.com = 550 5.7.1 refused by the test } { later@example.com = 450 4.7.1 deferred by the test } }",
    );
    let refused = Hammer::run(postfix.port(), &["-m", "40", "-c", "2", "--to", "refused@example.com"]);
    assert_eq!(refused.exit, 1, "{}", refused.shown());
    assert_eq!(refused.count("messages.rejected"), 40, "{}", refused.shown());
    assert_eq!(refused.count("recipients.rejected"), 40, "{}", refused.shown());
    assert_eq!(refused.replies("rcpt", 550), 40, "{}", refused.shown());

    let deferred =
        Hammer::run(postfix.port(), &["-m", "40", "-c", "2", "--to", "later@example.com", "--pipelining", "off"]);
    assert_eq!(deferred.exit, 1, "{}", deferred.shown());
    assert_eq!(deferred.count("messages.deferred"), 40, "{}", deferred.shown());
    assert_eq!(deferred.count("recipients.deferred"), 40, "{}", deferred.shown());
    assert_eq!(deferred.replies("rcpt", 450), 40, "{}", deferred.shown());
    assert_eq!(postfix.delivered(0), 0, "nobody was accepted");
}

#[test]
fn a_message_with_one_refused_recipient_reaches_the_others() {
    let postfix = Postfix::start(
        "smtpd_recipient_restrictions = check_recipient_access inline:{ { refused@example.com = 550 5.7.1 refused } }",
    );
    let recipients = ["--to", "refused@example.com", "--to", "fine@example.com", "--recipients-per-message", "2"];
    let run = Hammer::run(postfix.port(), &[&["-m", "40", "-c", "2"], &recipients[..]].concat());
    assert_eq!(run.count("messages.accepted"), 40, "{}", run.shown());
    assert_eq!(run.count("recipients.accepted"), 40, "{}", run.shown());
    assert_eq!(run.count("recipients.rejected"), 40, "{}", run.shown());
    assert_eq!(run.replies("rcpt", 550), 40, "{}", run.shown());
    assert_eq!(postfix.delivered(40), 40);
}

#[test]
fn messages_are_valid_and_as_large_as_was_asked_for() {
    for size in ["400", "1024", "70001"] {
        let server = Aiosmtpd::start(None);
        let run = Hammer::run(server.port(), &["-m", "30", "-c", "3", "-s", size, "--from", "sender@example.org"]);
        run.assert_all_accepted(30);
        let arrived = server.stop(); // it has found them valid, with one Message-ID each
        assert_eq!(arrived["sizes"], serde_json::json!({ size: 30 }));
        assert_eq!(arrived["senders"], serde_json::json!({ "sender@example.org": 30 }));
        assert_eq!(arrived["recipient_addresses"], serde_json::json!({ "load@example.com": 30 }));
    }
}

#[test]
fn message_ids_differ_between_messages_and_between_runs_with_the_same_seed() {
    let server = Aiosmtpd::start(None);
    for _ in 0..2 {
        Hammer::run(server.port(), &["-m", "100", "-c", "4", "--seed", "7"]).assert_all_accepted(100);
    }
    assert_eq!(server.stop()["message_ids"], 200);
}

#[test]
fn a_body_file_arrives_octet_for_octet() {
    let dir = tempfile::tempdir().unwrap();
    let (body, expected) = (dir.path().join("body.eml"), dir.path().join("expected"));
    let text = "From: Anna <anna@example.com>\nTo: Bob <bob@example.com>\nSubject: dots\nMIME-Version: 1.0\n\
                Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\
                .\n..\n.one\n...three\n\n.\nend of it: é.\n.\n";
    fs::write(&body, text).unwrap();
    fs::write(&expected, text.replace('\n', "\r\n")).unwrap();
    for pipelining in ["auto", "off"] {
        let server = Aiosmtpd::start(Some(&expected));
        let body = body.to_str().unwrap();
        Hammer::run(server.port(), &["-m", "20", "-c", "2", "--body", body, "--pipelining", pipelining])
            .assert_all_accepted(20);
        assert_eq!(server.stop()["messages"], 20);
    }
}

#[test]
fn a_body_file_with_crlf_arrives_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let body = dir.path().join("body.eml");
    fs::write(&body, "From: <a@example.com>\r\nSubject: crlf\r\n\r\n.\r\n..\r\n\r\nend\r\n").unwrap();
    let server = Aiosmtpd::start(Some(&body));
    Hammer::run(server.port(), &["-m", "5", "--body", body.to_str().unwrap()]).assert_all_accepted(5);
    assert_eq!(server.stop()["messages"], 5);
}

#[test]
fn pipelining_sends_the_envelope_in_one_group_and_stays_inside_one_transaction() {
    let server = Scripted::start(true);
    Hammer::run(server.port(), &["-m", "50", "-c", "2", "--recipients-per-message", "2"]).assert_all_accepted(50);
    let groups = server.groups();
    assert!(groups.contains(&["MAIL", "RCPT", "RCPT", "DATA"].map(str::to_owned).to_vec()), "{groups:?}");
    for group in groups {
        let end = group.iter().position(|verb| verb == ".");
        assert!(end.is_none_or(|end| end == group.len() - 1), "a command came before the final reply: {group:?}");
        assert!(!group.contains(&"EHLO".to_owned()) || group.len() == 1, "EHLO waits for its reply: {group:?}");
    }
}

#[test]
fn nothing_happens_in_a_steady_run_that_should_not() {
    let sink = Sink::start(&[]);
    let run = Hammer::run(sink.port(), &["-m", "100000", "-c", "50"]);
    run.assert_all_accepted(100_000);
    for count in ["buffers_exhausted", "short_writes", "rearms"] {
        assert_eq!(run.count(&format!("generator.{count}")), 0, "{count}: {}", run.shown());
    }
}

#[test]
fn no_command_is_sent_ahead_without_pipelining() {
    for (offered, asked) in [(true, "off"), (false, "auto")] {
        let server = Scripted::start(offered);
        let options = ["-m", "50", "-c", "2", "--recipients-per-message", "2", "--pipelining", asked];
        Hammer::run(server.port(), &options).assert_all_accepted(50);
        let groups = server.groups();
        assert!(groups.iter().all(|group| group.len() == 1), "offered {offered}, {asked}: {groups:?}");
    }
}

#[test]
fn connections_take_turns_over_the_source_addresses() {
    let server = Scripted::start(true);
    let options = ["-m", "40", "-c", "6", "--shards", "1", "--messages-per-connection", "2"];
    let sources = ["--source-address", "127.0.0.2", "--source-address", "127.0.0.3"];
    let run = Hammer::run(server.port(), &[&options[..], &sources].concat());
    run.assert_all_accepted(40);
    let seen = server.sources();
    let expected: Vec<IpAddr> = ["127.0.0.2", "127.0.0.3"].map(|source| source.parse().unwrap()).to_vec();
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), expected, "{seen:?}");
    assert_eq!(seen.values().map(|&count| u64::from(count)).sum::<u64>(), run.count("connections.opened"));
    let [few, many] = [seen.values().min(), seen.values().max()].map(Option::unwrap);
    assert!(many - few <= 1, "in turns: {seen:?}");
    assert_eq!(run.report["spec"]["source_addresses"], serde_json::json!(["127.0.0.2", "127.0.0.3"]));
}

#[test]
fn ipv6_works_as_target_and_as_source() {
    let port = Port::claim();
    let address = format!("[::1]:{}", port.number());
    let sink = Sink::start(&["--listen", &address]);
    let run = Hammer::start_at(&format!("smtp://{address}"), &["-m", "50", "-c", "3", "--source-address", "::1"]);
    run.finish().assert_all_accepted(50);
    assert_eq!(sink.stop()["messages"], 50);
}

#[test]
fn a_generator_that_was_stopped_says_so_unless_it_was_in_the_warm_up() {
    for (warmup, is_told) in [(&[][..], true), (&["--warmup", "6s"], false)] {
        let sink = SmtpSink::start(&[]);
        let hammer = Hammer::start(sink.port(), &[&["--rate", "200", "-d", "8s", "-c", "5"], warmup].concat());
        poll("the first messages", || (sink.messages() >= 20).then_some(()));
        let stopped = Instant::now();
        hammer.signal("STOP");
        poll("a second to go by", || (stopped.elapsed() > Duration::from_millis(1_100)).then_some(()));
        hammer.signal("CONT");
        let run = hammer.finish();
        let longest_s = run.number("generator.standstill.longest_s");
        assert_eq!(longest_s >= 1.0, is_told, "{longest_s} s: {}", run.shown());
    }
}
