//! What a worker does to log in.

use timecop::wire::smtp::auth::Credentials;

use super::*;

const PASSWORD: &str = "tanstaaftanstaaf";
const WRONG: &str = "535 5.7.8 no\r\n";

fn with_login(raw: &mut RawSpec) {
    raw.auth = Some(Credentials::new("tim".into(), PASSWORD.into()).expect("a user and a password"));
}

/// A session under TLS up to what is written behind EHLO.
fn secured(mechanisms: &str) -> (Play, String) {
    let mut play = Play::over(ConnectionType::Tls, with_login);
    play.connect(0);
    play.tls_ready();
    play.say("220 hi\r\n");
    let written = play.say(&format!("250-hi\r\n{mechanisms}250 HELP\r\n"));
    (play, written)
}

#[test]
fn a_login_comes_before_the_first_message_by_the_best_mechanism() {
    let (mut play, written) = secured("250-AUTH LOGIN CRAM-MD5\r\n250-AUTH PLAIN\r\n");
    assert_eq!(written, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
    assert!(play.say("235 hello\r\n").starts_with("MAIL"));
    let delta = play.delta();
    assert_eq!((delta.auth[0].mechanism.as_ref(), delta.auth[0].tried, delta.auth[0].granted), ("PLAIN", 1, 1));
    assert_eq!(delta.accepted.phases[Phase::Auth as usize].count(), 1);

    let (mut play, written) = secured("250-AUTH LOGIN CRAM-MD5\r\n");
    assert_eq!(written, "AUTH LOGIN\r\n");
    assert_eq!(play.say("334 \r\n"), "dGlt\r\n");
    assert_eq!(play.say("334 UGFzc3dvcmQ6\r\n"), "dGFuc3RhYWZ0YW5zdGFhZg==\r\n");
    assert!(play.say("235 hello\r\n").starts_with("MAIL"));
    let delta = play.delta();
    let time = delta.accepted.phases[Phase::Auth as usize].quantile_ns(1.0);
    assert_eq!(time.map(|ns| ns / 100_000), Some(30), "three turns: the exchange counts as a whole");

    let (mut play, written) = secured("250-AUTH CRAM-MD5\r\n");
    assert_eq!(written, "AUTH CRAM-MD5\r\n");
    let challenge = "334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+\r\n";
    assert_eq!(play.say(challenge), "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n", "RFC 2195 section 2");
    assert!(play.say("235 hello\r\n").starts_with("MAIL"));
}

#[test]
fn a_refused_login_is_the_outcome_of_a_message_and_is_backed_off_from() {
    for (reply, rejected, error) in [
        (WRONG, true, Some(("credentials", Phase::Auth))),
        ("454 4.7.0 later\r\n", false, None),
        ("534 5.7.9 too weak\r\n", true, None),
    ] {
        let (mut play, _) = secured("250-AUTH PLAIN\r\n");
        assert_eq!(play.say(reply), "");
        let messages = play.messages();
        assert_eq!(
            (messages.rejected == 1, messages.deferred == 1, messages.sent),
            (rejected, !rejected, 0),
            "{reply}"
        );
        assert_eq!((play.error(), play.closed()), (error, vec![0]), "{reply}");
        assert_eq!(play.worker.delta_mut().replies[Phase::Auth as usize].len(), 1);
        assert!(play.wait_for_deadline(0) <= BACKOFF_FIRST && play.dialed() == [0]);
    }
    let (mut play, _) = secured("250-AUTH LOGIN\r\n");
    play.say("334 VXNlcm5hbWU6\r\n");
    assert_eq!(play.say("535 5.7.8 in the middle\r\n"), "", "the password is kept");
    assert_eq!(play.messages().rejected, 1);
}

#[test]
fn without_a_mechanism_nothing_is_sent() {
    for offered in ["", "250-AUTH\r\n", "250-AUTH GSSAPI XOAUTH2\r\n", "250-AUTHENTICATE PLAIN\r\n"] {
        let (mut play, written) = secured(offered);
        assert_eq!((written.as_str(), play.messages().failed), ("", 1), "{offered}");
        assert_eq!(play.error(), Some(("auth_not_offered", Phase::Auth)));
    }
    // What was offered in the clear is forgotten under TLS.
    let mut play = Play::over(ConnectionType::StartTls, with_login);
    assert_eq!(play.session("250-STARTTLS\r\n250-AUTH PLAIN\r\n"), "STARTTLS\r\n");
    play.say("220 go\r\n");
    play.tls_ready();
    assert_eq!(play.say("250 hi\r\n"), "");
    assert_eq!(play.error(), Some(("auth_not_offered", Phase::Auth)));
    // In the clear CRAM-MD5 comes first: it alone keeps the password to itself.
    let mut play = Play::new(with_login);
    assert_eq!(play.session("250-AUTH PLAIN LOGIN CRAM-MD5\r\n"), "AUTH CRAM-MD5\r\n");
}

#[test]
fn what_does_not_belong_into_an_exchange_ends_it() {
    for (mechanism, says, kind) in [
        ("PLAIN", &["334 \r\n"][..], "protocol"),
        ("LOGIN", &["334 \r\n", "334 \r\n", "334 \r\n"], "protocol"),
        ("LOGIN", &["334 \r\n334 \r\n"], "protocol"),
        ("CRAM-MD5", &["334 no base64\r\n"], "protocol"),
        ("PLAIN", &["250 ok\r\n"], "protocol"),
        ("PLAIN", &["235 ok\r\n250 ok\r\n"], "protocol"),
    ] {
        let (mut play, _) = secured(&format!("250-AUTH {mechanism}\r\n"));
        says.iter().for_each(|text| drop(play.say(text)));
        assert_eq!(play.error().map(|(kind, _)| kind), Some(kind), "{mechanism} {says:?}");
        assert_eq!((play.messages().failed, play.closed()), (1, vec![0]), "{mechanism} {says:?}");
    }
    let mut play = Play::over(ConnectionType::Tls, |raw| {
        with_login(raw);
        raw.timeout = Some(SECOND.into());
    });
    play.connect(0);
    play.tls_ready();
    play.say("220 hi\r\n");
    play.say("250-hi\r\n250 AUTH PLAIN\r\n");
    play.wait_for_deadline(0);
    assert_eq!(play.error(), Some(("timeout", Phase::Auth)));
}

#[test]
fn a_server_that_repeats_the_password_does_not_get_it_shown() {
    let repeated = [
        format!("535 5.7.8 tim/{PASSWORD}: no\r\n"),
        "500 5.5.2 unknown: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n".into(),
        "501 5.5.2 dGFuc3RhYWZ0YW5zdG...\r\n".into(),
    ];
    for reply in repeated {
        let (mut play, _) = secured("250-AUTH PLAIN\r\n");
        play.say(&reply);
        let example = &play.worker.delta_mut().replies[Phase::Auth as usize][0].example;
        assert_eq!(example, "(withheld: the server repeats the password)", "{reply}");
        let shown = format!("{:?}", play.worker);
        assert!(!shown.contains(PASSWORD) && !shown.contains("AHRpbQB0"), "{shown}");
        // What is kept as octets is shown as numbers.
        for secret in [PASSWORD, "AHRpbQB0"] {
            let numbers = format!("{:?}", secret.as_bytes());
            assert!(!shown.contains(numbers.trim_matches(['[', ']'])), "{secret} in {shown}");
        }
    }
}

#[test]
fn a_password_is_shown_in_no_reply_whatever_it_answers() {
    for echo in [PASSWORD.to_owned(), "AHRpbQB0YW5zdGFhZnRhbnN0YWFm".to_owned()] {
        let (mut play, _) = secured("250-AUTH PLAIN\r\n");
        assert!(play.say("235 hello\r\n").starts_with("MAIL"));
        play.say(&format!("550 5.1.0 you said {echo}\r\n"));
        let delta = play.delta();
        let example = &delta.replies[Phase::Mail as usize][0].example;
        assert!(example.contains("withheld") && !example.contains(&echo), "{example}");
    }
}

#[test]
fn a_login_that_is_not_offered_in_the_clear_has_a_hint() {
    let mut play = Play::new(with_login);
    play.session("250-STARTTLS\r\n");
    assert_eq!(play.error(), Some(("auth_not_offered", Phase::Auth)));
    let example = play.worker.delta_mut().errors[0].example.clone();
    assert!(example.contains("smtp+starttls://"), "{example}");
    let mut play = Play::new(with_login);
    assert_eq!(play.session("250-AUTH=LOGIN\r\n"), "AUTH LOGIN\r\n", "the old form");
}
