//! Logins (AUTH).

use super::*;

/// A session under TLS, behind EHLO, of a server that asks for a login.
fn login_bench() -> Bench {
    let mut bench = Bench::new(Told::default());
    let users = Users::parse("tim:tanstaaftanstaaf").unwrap();
    bench.config = bench.config.offering_starttls().requiring_auth(users.into(), || 7);
    bench.session.secure(bench.now, &bench.config);
    let mut out = Vec::new();
    let _ = bench.session.tls_ready(bench.now, false, &bench.config, &mut bench.policy, &mut out);
    assert!(bench.send("EHLO client.example\r\n").contains("250-AUTH PLAIN LOGIN CRAM-MD5\r\n"));
    bench
}

const PLAIN: &str = "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n";
const WRONG: &str = "AUTH PLAIN AHRpbQB3cm9uZw==\r\n";

#[test]
fn mail_is_taken_after_a_login_only() {
    let mut bench = login_bench();
    assert_eq!(
        codes(&bench.send("MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")),
        ["530 5.7.0", "503 5.5.1", "503 5.5.1"]
    );
    assert_eq!(bench.errors().len(), 1, "what was pipelined behind MAIL could not know");
    assert_eq!(bench.send("AUTH LOGIN\r\n"), "334 VXNlcm5hbWU6\r\n");
    assert_eq!(bench.send("dGlt\r\n"), "334 UGFzc3dvcmQ6\r\n");
    assert!(bench.send("dGFuc3RhYWZ0YW5zdGFhZg==\r\n").starts_with("235 2.7.0"));
    assert!(bench.send(PLAIN).starts_with("503 "), "once is enough");
    bench.send("EHLO again.example\r\nRSET\r\n");
    assert_eq!(codes(&bench.send(ENVELOPE)), ["250 2.1.0", "250 2.1.5"]);
    assert!(bench.send(PLAIN).starts_with("503 "), "not within a transaction");
    assert!(bench.policy.asked.contains(&"Auth { user: Some(\"tim\") }".to_owned()));
}

#[test]
fn nobody_logs_in_in_the_clear() {
    let mut bench = Bench::new(Told::default());
    let users = Users::parse("tim:tanstaaftanstaaf").unwrap();
    bench.config = bench.config.requiring_auth(users.into(), || 7).offering_starttls();
    bench.connect();
    let offered = bench.send("EHLO client.example\r\n");
    assert!(!offered.contains("AUTH") && offered.contains("STARTTLS"), "{offered}");
    assert!(bench.send(PLAIN).starts_with("538 5.7.11"));
    assert!(bench.send("MAIL FROM:<a@x>\r\n").starts_with("530 5.7.0"));
    let mut open = Bench::ready();
    assert!(open.send(PLAIN).starts_with("502 "), "without a table there is nothing to log in by");
}

#[test]
fn three_failed_logins_end_the_session() {
    let mut bench = login_bench();
    assert!(bench.send(WRONG).starts_with("535 5.7.8"));
    assert_eq!(bench.send("AUTH CRAM-MD5\r\n"), "334 PDcuN0BteC5leGFtcGxlPg==\r\n", "<7.7@mx.example>");
    assert!(bench.send("*\r\n").starts_with("501 5.7.0"));
    assert!(bench.send("AUTH GSSAPI\r\n").starts_with("504 "), "no exchange was begun");
    assert_eq!(bench.flow, Flow::Continue);
    assert!(bench.send(WRONG).starts_with("421 4.7.0"));
    assert_eq!(bench.flow, Flow::Close);
    let refused = bench.policy.events.iter().filter(|event| **event == Event::Login { granted: false });
    assert_eq!(refused.count(), 3);
}

#[test]
fn a_right_password_that_the_policy_refuses_counts_as_a_failure_too() {
    let mut bench = login_bench();
    let users = Users::parse("banned:b").unwrap();
    bench.config = bench.config.requiring_auth(users.into(), || 7);
    for flow in [Flow::Continue, Flow::Continue, Flow::Close] {
        assert_eq!(bench.send("AUTH PLAIN AGJhbm5lZABi\r\n"), "535 5.7.8 not you\r\n");
        assert_eq!(bench.flow, flow);
    }
}

#[test]
fn the_policy_has_a_word_in_logins_that_are_denied_too() {
    let mut bench = login_bench();
    bench.policy.hold_ms = 10;
    for (reply, flow) in [("535 5.7.8", Flow::Continue), ("535 5.7.8", Flow::Continue), ("421 4.7.0", Flow::Close)] {
        assert_eq!(bench.send(WRONG), "", "it is held");
        let now = bench.now.as_ns() / 1_000_000;
        let late = bench.wait_until(now + 10);
        assert!(late.starts_with(reply), "{late}");
        assert_eq!(bench.flow, flow);
    }
    let refused = bench.policy.events.iter().filter(|event| **event == Event::Login { granted: false });
    assert_eq!(refused.count(), 3);
}

#[test]
fn an_exchange_takes_long_lines_and_nothing_behind_one() {
    let mut bench = login_bench();
    bench.send("AUTH PLAIN\r\n");
    let most = "A".repeat(EXCHANGE_LINE_BYTES_MAX);
    assert!(bench.send(format!("{most}\r\n")).starts_with("501 "), "no such response, but no line too long");
    bench.send("AUTH PLAIN\r\n");
    assert!(bench.send(format!("{most}A\r\n")).starts_with("500 5.5.6"));
    assert!(bench.send(format!("{most}\r\n")).starts_with("500 5.5.2"), "between exchanges lines are short");
    for early in
        ["AUTH PLAIN\r\nAHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n", "AUTH PLAIN AHRpbQB3cm9uZw==\r\nMAIL FROM:<a@x>\r\n"]
    {
        let mut bench = login_bench();
        assert!(bench.send(early).starts_with("554 5.5.0"), "{early}");
        assert_eq!(bench.flow, Flow::Close);
    }
    let mut bench = login_bench();
    bench.send("AUTH PLAIN\r\n");
    assert!(bench.send("AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\nMAIL FROM:<a@x>\r\n").starts_with("554 5.5.0"));
    assert_eq!((bench.flow, bench.policy.asked.iter().any(|asked| asked.starts_with("Auth"))), (Flow::Close, false));
}

#[test]
fn a_torn_answer_is_not_shown_by_the_session() {
    // The scanner keeps the beginning of a torn line, and showed it as a list of octets.
    let mut bench = login_bench();
    bench.send("AUTH PLAIN\r\n");
    bench.send("AHRpbQB0YW5zdGFh");
    let shown = format!("{:?}", bench.session);
    assert!(!shown.contains("65, 72, 82, 112") && !shown.contains("AHRp"), "{shown}");
}

#[test]
fn a_login_is_awaited_before_anything_else_is_said() {
    let mut bench = login_bench();
    bench.policy.hold_ms = 10;
    assert_eq!(bench.send(PLAIN), "", "the reply is held");
    assert_eq!(codes(&bench.send("MAIL FROM:<a@x>\r\n")), ["554 5.5.0"]);
    assert_eq!((bench.send("RCPT TO:<b@x>\r\n").as_str(), bench.flow), ("", Flow::Close));
    // Once it has left, replies may be held as those of any command.
    let mut bench = login_bench();
    bench.policy.hold_ms = 10;
    bench.send(PLAIN);
    assert!(bench.wait_until(10).starts_with("235 "));
    assert_eq!(bench.send("MAIL FROM:<a@x>\r\n"), "");
    assert_eq!(bench.send("RCPT TO:<b@x>\r\n"), "");
    assert_eq!(codes(&bench.wait_until(20)), ["250 2.1.0"]);
}

#[test]
fn helo_offers_no_login() {
    let mut bench = login_bench();
    bench.send("HELO client.example\r\n");
    assert!(bench.send(PLAIN).starts_with("503 5.5.1 expected EHLO"));
    bench.send("EHLO client.example\r\n");
    assert!(bench.send(PLAIN).starts_with("235 "));
}
