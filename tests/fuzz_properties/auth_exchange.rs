//! AUTH against any lines: the server verifies nobody but the one user, by the one answer that proves it; the client
//! writes base64 and nothing else; both come to an end.
//!
//! The first setting chooses the mechanism, the second whether the first line comes with the command.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use timecop::wire::smtp::auth::{
    COMMAND_LINE_BYTES_MAX, ClientExchange, Credentials, EXCHANGE_LINE_BYTES_MAX, Mechanism, ServerExchange, Step,
    Users,
};

use super::Settings;

const USER: &str = "tim";
const PASSWORD: &str = "tanstaaftanstaaf";
const CHALLENGE: &[u8] = b"<1896.697170952@postoffice.reston.mci.net>";
/// What CRAM-MD5 answers to the challenge (RFC 2195 §2).
const CRAM_MD5: &[u8] = b"tim b913a602c7eda7a495b4e6e7334d3890";

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, octets) = Settings::split(input);
    let mechanism = Mechanism::ALL[usize::from(settings.get(0)) % Mechanism::ALL.len()];
    let lines: Vec<&[u8]> = octets.split(|octet| *octet == b'\n').collect();
    server(mechanism, settings.get(1) & 1 == 1, &lines);
    client(mechanism, &lines);
}

fn server(mechanism: Mechanism, has_initial: bool, lines: &[&[u8]]) {
    let users = Users::parse(&format!("{USER}:{PASSWORD}")).expect("a table");
    let (initial, mut lines) = if has_initial { (Some(lines[0]), &lines[1..]) } else { (None, lines) };
    let (mut exchange, mut step) = ServerExchange::start(mechanism, initial, CHALLENGE, &users);
    let mut said: Vec<&[u8]> = initial.into_iter().collect();
    let mut challenges = 0;
    while let Step::Challenge(text) = &step {
        assert!(STANDARD.decode(text).is_ok(), "a challenge is base64");
        assert!(text.len() <= EXCHANGE_LINE_BYTES_MAX);
        challenges += 1;
        assert!(challenges <= 2, "no mechanism asks more than twice");
        let Some((line, rest)) = lines.split_first() else { return };
        lines = rest;
        said.push(line);
        step = exchange.respond(line, &users);
    }
    assert!(step.reply().is_some_and(|line| line.ends_with(b"\r\n")));
    if let Step::Verified(user) = &step {
        assert_eq!(user, USER);
        let said: Vec<Vec<u8>> = said.iter().map(|line| STANDARD.decode(line).expect("it was taken")).collect();
        assert!(proves(mechanism, &said), "{mechanism:?} {said:?}");
    }
    for line in lines {
        let step = exchange.respond(line, &users);
        assert!(matches!(step, Step::Malformed | Step::TooLong | Step::Cancelled), "after its end: {step:?}");
    }
}

/// Whether this is what one says who knows the password.
fn proves(mechanism: Mechanism, said: &[Vec<u8>]) -> bool {
    let plain = |authorization: &str| format!("{authorization}\0{USER}\0{PASSWORD}").into_bytes();
    match mechanism {
        Mechanism::Plain => *said == [plain("")] || *said == [plain(USER)],
        Mechanism::Login => *said == [USER.as_bytes(), PASSWORD.as_bytes()],
        Mechanism::CramMd5 => *said == [CRAM_MD5],
    }
}

fn client(mechanism: Mechanism, challenges: &[&[u8]]) {
    let credentials = Credentials::new(USER.to_owned(), SecretString::from(PASSWORD)).expect("credentials");
    let (mut exchange, mut out) = (ClientExchange::new(mechanism), Vec::new());
    exchange.first(&credentials, &mut out);
    assert!(out.ends_with(b"\r\n") && out.len() <= COMMAND_LINE_BYTES_MAX);
    let mut answers = 0;
    for challenge in challenges {
        out.clear();
        match exchange.challenge(challenge, &credentials, &mut out) {
            Ok(()) => answers += 1,
            Err(_) => assert!(out.is_empty(), "half an answer"),
        }
        if let Some(line) = out.strip_suffix(b"\r\n") {
            assert!(STANDARD.decode(line).is_ok(), "an answer is base64");
        }
    }
    assert!(answers <= 2, "no mechanism answers more than twice");
}
