//! AUTH on both sides: the vectors that the RFCs publish, each side against the other, and what goes wrong.

use super::*;

const CHALLENGE: &[u8] = b"<1896.697170952@postoffice.reston.mci.net>";

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials::new(user.to_owned(), SecretString::from(password)).unwrap()
}

fn users() -> Users {
    Users::parse("tim:tanstaaftanstaaf\nanna:geheim:mit:Doppelpunkt\n").unwrap()
}

fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> (ServerExchange, Step) {
    ServerExchange::start(mechanism, initial, CHALLENGE, &users())
}

fn challenge(text: &str) -> Step {
    Step::Challenge(text.as_bytes().to_vec())
}

/// The exchange between the two sides, to its end.
fn exchange(mechanism: Mechanism, credentials: &Credentials) -> Step {
    let (mut client, mut out) = (ClientExchange::new(mechanism), Vec::new());
    client.first(credentials, &mut out);
    let command = String::from_utf8(out.clone()).unwrap();
    let mut words = command.strip_suffix("\r\n").unwrap().split(' ').skip(1);
    assert_eq!(Mechanism::parse(words.next().unwrap().as_bytes()), Some(mechanism));
    let (mut server, mut step) = start(mechanism, words.next().map(str::as_bytes));
    for _ in 0..3 {
        let Step::Challenge(text) = &step else { return step };
        out.clear();
        client.challenge(text, credentials, &mut out).unwrap();
        step = server.respond(out.strip_suffix(b"\r\n").unwrap(), &users());
    }
    panic!("the exchange does not end: {step:?}");
}

#[test]
fn cram_md5_gives_the_digest_of_rfc_2195() {
    let tim = credentials("tim", "tanstaaftanstaaf");
    let (mut client, mut out) = (ClientExchange::new(Mechanism::CramMd5), Vec::new());
    client.first(&tim, &mut out);
    let text = b"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+";
    client.challenge(text, &tim, &mut out).unwrap();
    let expected = b"AUTH CRAM-MD5\r\ndGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw\r\n";
    assert_eq!(out, expected, "{}", out.escape_ascii());

    let (mut server, step) = start(Mechanism::CramMd5, None);
    assert_eq!(step, Step::Challenge(text.to_vec()));
    let answer = b"dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw";
    assert_eq!(server.respond(answer, &users()), Step::Verified("tim".into()));
}

#[test]
fn plain_goes_as_rfc_4616_and_rfc_4954_show_it() {
    let tim = credentials("tim", "tanstaaftanstaaf");
    let (mut client, mut out) = (ClientExchange::new(Mechanism::Plain), Vec::new());
    client.first(&tim, &mut out);
    assert_eq!(out, b"AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n", "{}", out.escape_ascii());

    let initial = b"AHRpbQB0YW5zdGFhZnRhbnN0YWFm";
    assert_eq!(start(Mechanism::Plain, Some(initial)).1, Step::Verified("tim".into()));
    // RFC 4616 §4: Ursel acts for Kurt, which is for nobody here.
    let users = Users::parse("Kurt:xipj3plmq").unwrap();
    let step = |message: &[u8]| {
        let initial = STANDARD.encode(message);
        ServerExchange::start(Mechanism::Plain, Some(initial.as_bytes()), b"", &users).1
    };
    assert_eq!(step(b"Ursel\0Kurt\0xipj3plmq"), Step::Denied);
    assert_eq!(step(b"Kurt\0Kurt\0xipj3plmq"), Step::Verified("Kurt".into()));
    assert_eq!(step(b"\0Kurt\0xipj3plmq"), Step::Verified("Kurt".into()));
}

#[test]
fn login_asks_for_the_user_and_then_the_password() {
    let (mut server, step) = start(Mechanism::Login, None);
    assert_eq!(step, challenge("VXNlcm5hbWU6"));
    assert_eq!(server.respond(b"dGlt", &users()), challenge("UGFzc3dvcmQ6"));
    assert_eq!(server.respond(b"dGFuc3RhYWZ0YW5zdGFhZg==", &users()), Step::Verified("tim".into()));
    // Some clients send the user with the command.
    let (mut server, step) = start(Mechanism::Login, Some(b"dGlt"));
    assert_eq!(step, challenge("UGFzc3dvcmQ6"));
    assert_eq!(server.respond(b"dGFuc3RhYWZ0YW5zdGFhZg==", &users()), Step::Verified("tim".into()));
}

#[test]
fn login_answers_whatever_the_prompts_say() {
    let tim = credentials("tim", "tanstaaftanstaaf");
    for prompts in [[&b"VXNlcm5hbWU6"[..], b"UGFzc3dvcmQ6"], [b"", b"?"], [b"UGFzc3dvcmQ6", b"Username:"]] {
        let (mut client, mut out) = (ClientExchange::new(Mechanism::Login), Vec::new());
        prompts.iter().for_each(|prompt| client.challenge(prompt, &tim, &mut out).unwrap());
        assert_eq!(out, b"dGlt\r\ndGFuc3RhYWZ0YW5zdGFhZg==\r\n");
        assert_eq!(client.challenge(b"", &tim, &mut out), Err(ChallengeError::TooMany));
    }
}

#[test]
fn the_right_password_alone_is_verified_by_each_mechanism() {
    let long = "x".repeat(CREDENTIAL_BYTES_MAX);
    for mechanism in Mechanism::ALL {
        let verified = |user: &str| Step::Verified(user.into());
        assert_eq!(exchange(mechanism, &credentials("tim", "tanstaaftanstaaf")), verified("tim"), "{mechanism:?}");
        assert_eq!(exchange(mechanism, &credentials("anna", "geheim:mit:Doppelpunkt")), verified("anna"));
        for (user, password) in
            [("tim", "tanstaaf"), ("tim", "no such user"), ("nobody", "no such user"), ("TIM", "tanstaaftanstaaf")]
        {
            assert_eq!(exchange(mechanism, &credentials(user, password)), Step::Denied, "{mechanism:?} {user}");
        }
        assert_eq!(exchange(mechanism, &credentials("tim", &long)), Step::Denied, "{mechanism:?}");
    }
}

#[test]
fn a_response_that_would_make_the_command_too_long_waits_for_its_challenge() {
    for length in [300, 360, 361, 362, 363, 364, 1_000] {
        let long = credentials("tim", &"x".repeat(length));
        let (mut client, mut out) = (ClientExchange::new(Mechanism::Plain), Vec::new());
        client.first(&long, &mut out);
        assert!(out.len() <= COMMAND_LINE_BYTES_MAX, "{length}: {}", out.len());
        assert_eq!(out == b"AUTH PLAIN\r\n", length > 368, "{length}");
        assert_eq!(client.challenge(b"", &long, &mut out).is_ok(), length > 368, "{length}");
    }
}

#[test]
fn what_is_no_response_is_malformed_and_ends_the_exchange() {
    for mechanism in Mechanism::ALL {
        for line in [&b"not base64"[..], b"dGlt=", b"dGlt\t", b"=", b"\xff\xfe"] {
            let (mut server, _) = start(mechanism, None);
            assert_eq!(server.respond(line, &users()), Step::Malformed, "{mechanism:?} {}", line.escape_ascii());
            assert_eq!(server.respond(b"dGlt", &users()), Step::Malformed, "it is over");
        }
    }
    for message in [&b"tim"[..], b"\0tim", b"\0tim\0", b"\0\0tanstaaftanstaaf", b"\0tim\0a\0b", b"\0\xff\0a"] {
        let initial = STANDARD.encode(message);
        assert_eq!(start(Mechanism::Plain, Some(initial.as_bytes())).1, Step::Malformed, "{}", message.escape_ascii());
    }
    assert_eq!(start(Mechanism::CramMd5, Some(b"dGlt")).1, Step::Malformed, "the server begins");
    assert_eq!(start(Mechanism::Plain, Some(b"=")).1, Step::Malformed, "an empty message is none of PLAIN");
    assert_eq!(start(Mechanism::Plain, Some(b"*")).1, Step::Malformed, "cancelling takes a line of its own");
    let (mut server, _) = start(Mechanism::CramMd5, None);
    assert_eq!(server.respond(STANDARD.encode(b"tim").as_bytes(), &users()), Step::Malformed);
    let (mut client, mut out) = (ClientExchange::new(Mechanism::CramMd5), Vec::new());
    let error = client.challenge(b"not base64", &credentials("tim", "x"), &mut out);
    assert_eq!((error, out.as_slice()), (Err(ChallengeError::Base64), &b""[..]));
}

#[test]
fn a_client_may_cancel_and_may_not_go_on_for_ever() {
    for mechanism in Mechanism::ALL {
        let (mut server, _) = start(mechanism, None);
        assert_eq!(server.respond(CANCEL.strip_suffix(b"\r\n").unwrap(), &users()), Step::Cancelled);
        let (mut server, _) = start(mechanism, None);
        assert_eq!(server.respond(&[b'A'; EXCHANGE_LINE_BYTES_MAX + 1], &users()), Step::TooLong);
        assert_eq!(server.respond(b"dGlt", &users()), Step::Malformed, "it is over");
    }
    let (mut server, _) = start(Mechanism::Login, None);
    assert!(matches!(server.respond(&[b'A'; 12_284], &users()), Step::Challenge(_)), "the longest line");
}

#[test]
fn every_end_has_its_reply() {
    let reply = |step: Step| step.reply().map(|line| std::str::from_utf8(&line[..3]).unwrap().to_owned());
    let codes = [Step::Verified("tim".into()), Step::Denied, Step::Malformed, Step::TooLong, Step::Cancelled];
    assert_eq!(codes.map(|step| reply(step).unwrap()), ["235", "535", "501", "500", "501"]);
    assert_eq!(reply(challenge("")), None);
}

#[test]
fn the_best_mechanism_depends_on_who_can_listen() {
    for (offered, over_tls, in_clear) in [
        ("PLAIN LOGIN CRAM-MD5", Some(Mechanism::Plain), Some(Mechanism::CramMd5)),
        ("cram-md5 login", Some(Mechanism::Login), Some(Mechanism::CramMd5)),
        ("LOGIN  PLAIN", Some(Mechanism::Plain), Some(Mechanism::Plain)),
        ("SCRAM-SHA-256 CRAM-MD5", Some(Mechanism::CramMd5), Some(Mechanism::CramMd5)),
        ("XOAUTH2 GSSAPI PLAINER", None, None),
        ("", None, None),
    ] {
        assert_eq!(best_offered(offered.as_bytes(), true), over_tls, "{offered}");
        assert_eq!(best_offered(offered.as_bytes(), false), in_clear, "{offered}");
    }
}

#[test]
fn users_are_read_line_by_line_and_errors_name_the_line() {
    let users = Users::parse("# who may\n\ntim:a:b \r\nanna:x\n").unwrap();
    assert_eq!(users.len(), 2);
    assert!(users.has_password("tim", b"a:b "), "all behind the first colon, without the line's end");
    for (text, line, problem) in [
        ("tim", 1, UsersProblem::NoColon),
        ("tim:x\n:y", 2, UsersProblem::User(CredentialsError::Empty)),
        ("#\ntim:", 2, UsersProblem::Password(CredentialsError::Empty)),
        ("tim:x\nanna:y\ntim:z", 3, UsersProblem::Twice),
        ("tim:a\0b", 1, UsersProblem::Password(CredentialsError::Control)),
        (&format!("{}:x", "u".repeat(CREDENTIAL_BYTES_MAX + 1)), 1, UsersProblem::User(CredentialsError::TooLong)),
    ] {
        let error = Users::parse(text).unwrap_err();
        assert_eq!(error, UsersError { line, problem }, "{text:?}");
        assert!(error.to_string().contains("expected"), "{error}");
    }
    assert!(Users::parse("").unwrap().is_empty());
}

#[test]
fn passwords_are_never_shown() {
    let tim = credentials("tim", "tanstaaftanstaaf");
    let (mut server, _) = start(Mechanism::Login, None);
    let _ = server.respond(b"dGlt", &users());
    let shown = format!("{tim:?} {:?} {server:?} {:?}", users(), ClientExchange::new(Mechanism::Plain));
    assert!(shown.contains("tim") && !shown.contains("tanstaaf") && !shown.contains("geheim"), "{shown}");
}
