//! What a worker does by HTTP.

use timecop::job::spec::http::{JobType, RawHttp};
use timecop::job::worker::RETRY_AFTER_MAX;
use timecop::wire::smtp::auth::Credentials;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n{\"id\":\"<1>\",\"message\":\"Queued.\"}";

fn by_http(raw: &mut RawSpec) {
    raw.job_type = JobType::Http;
    raw.http = RawHttp { host: "api.example".into(), path: "/v3/example.com".into(), ..RawHttp::default() };
}

/// A worker by HTTP with one connection, which is open, and what it has written to it.
fn http(change: impl FnOnce(&mut RawSpec)) -> (Play, String) {
    let mut play = Play::new(|raw| {
        by_http(raw);
        change(raw);
    });
    play.links.dialed.clear();
    play.worker.connected(0, play.now, &mut play.links);
    let written = play.end_turn().swap_remove(0);
    (play, written)
}

fn answer(status: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_goes_out_whole_and_the_next_one_waits_for_its_answer() {
    let (mut play, written) = http(|raw| raw.messages = Some(2));
    let (head, body) = written.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("POST /v3/example.com/messages HTTP/1.1\r\nHost: api.example\r\n"), "{head}");
    assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    assert_eq!(body.len(), 1_024);
    assert!(body.contains("to=load%40example.com"), "{body}");
    assert_eq!(play.say(&OK[..20]), "");
    assert!(play.say(&OK[20..]).starts_with("POST "));
    assert_eq!(play.say(OK), "");
    // Nothing is left to be asked for.
    assert_eq!(play.closed(), [0]);
    assert!(play.worker.is_finished());
    let delta = play.delta();
    assert_eq!((delta.messages.accepted, delta.messages.sent, delta.recipients.accepted), (2, 2, 2));
    for (phase, longest_ms) in [(Phase::Write, 0), (Phase::FirstByte, 1), (Phase::LastByte, 1)] {
        let times = &delta.accepted.phases[phase as usize];
        let ms = times.quantile_ns(1.0).map(|ns| (ns + 50_000) / 1_000_000);
        assert_eq!((times.count(), ms), (2, Some(longest_ms)), "{phase}");
    }
    let replies = &delta.replies[Phase::LastByte as usize];
    assert_eq!((replies[0].code, replies[0].count, &*replies[0].example), (200, 2, "Queued."));
}

#[test]
fn an_answer_decides_by_its_status() {
    for (status, counts) in [
        (202, MessageCounts { accepted: 1, ..MessageCounts::default() }),
        (302, MessageCounts { rejected: 1, ..MessageCounts::default() }),
        (400, MessageCounts { rejected: 1, ..MessageCounts::default() }),
        (429, MessageCounts { deferred: 1, ..MessageCounts::default() }),
        (500, MessageCounts { failed: 1, ..MessageCounts::default() }),
        (503, MessageCounts { failed: 1, ..MessageCounts::default() }),
    ] {
        let (mut play, _) = http(|raw| raw.messages = Some(1));
        play.say(&answer(status, "", r#"{"message":"why"}"#));
        assert!(play.worker.is_finished(), "{status}");
        assert_eq!(play.messages(), MessageCounts { taken: 1, sent: 1, ..counts }, "{status}");
        let delta = play.delta();
        let reply = &delta.replies[Phase::LastByte as usize][0];
        assert_eq!((reply.code, &*reply.example), (status, "why"));
    }
}

#[test]
fn what_another_configuration_would_mend_is_said_to_be_its_fault() {
    for (status, kind) in [(401, "credentials"), (403, "credentials"), (301, "redirect"), (308, "redirect")] {
        let (mut play, _) = http(|_| {});
        play.say(&answer(status, "Location: http://elsewhere.example/\r\n", "\"Forbidden\""));
        assert_eq!(play.error(), Some((kind, Phase::LastByte)), "{status}");
        assert!(play.dialed().is_empty(), "no redirect is followed");
    }
}

#[test]
fn a_connection_waits_as_long_as_the_server_wants() {
    for (field, wait) in [
        ("Retry-After: 3\r\n", Duration::from_secs(3)),
        ("X-RateLimit-Reset: 1700000007\r\n", Duration::from_millis(7_000 - 1)),
        ("Retry-After: Tue, 14 Nov 2023 22:13:25 GMT\r\n", Duration::from_millis(5_000 - 1)),
        ("Retry-After: 99999999999\r\n", RETRY_AFTER_MAX),
    ] {
        let (mut play, _) = http(|raw| raw.messages = Some(2));
        let now = play.now;
        assert_eq!(play.say(&answer(429, field, "")), "", "{field}");
        let until = play.links.deadlines[0];
        assert!((until - now).as_millis().abs_diff(wait.as_millis()) <= 2, "{field}: {:?}", until - now);
        play.now = until;
        play.worker.timer(0, until, &mut play.links);
        assert!(play.end_turn()[0].starts_with("POST "), "{field}");
        play.say(OK);
        assert!(play.worker.is_finished());
        let delta = play.delta();
        assert_eq!((delta.messages.deferred, delta.messages.accepted, delta.retry_after.waits), (1, 1, 1));
        assert_eq!(delta.retry_after.waited_ns, (until - now).as_nanos() as u64);
    }
}

#[test]
fn a_wait_outlasts_its_connection() {
    let (mut play, _) = http(|raw| raw.messages = Some(2));
    let now = play.now;
    play.say(&answer(503, "Connection: close\r\nRetry-After: 5\r\n", ""));
    assert_eq!((play.closed(), play.dialed()), (vec![0], vec![]));
    assert_eq!(play.links.deadlines[0], now + Duration::from_secs(5));
    play.wait_for_deadline(0);
    assert_eq!(play.dialed(), [0]);

    // The server closes while the connection waits.
    let (mut play, _) = http(|raw| raw.messages = Some(2));
    let now = play.now;
    play.say(&answer(429, "Retry-After: 5\r\n", ""));
    play.worker.closed(0, play.now, None, &mut play.links);
    play.end_turn();
    assert_eq!((play.dialed(), play.links.deadlines[0]), (vec![], now + Duration::from_secs(5)));
    assert_eq!(play.messages().failed, 0, "no message is in hand that could fail");
}

#[test]
fn nobody_waits_when_nothing_is_left_to_be_sent() {
    let (mut play, _) = http(|raw| raw.messages = Some(1));
    play.say(&answer(429, "Retry-After: 50\r\n", ""));
    assert!(play.worker.is_finished());

    let (mut play, _) = http(|raw| raw.messages = Some(9));
    play.say(&answer(429, "Retry-After: 50\r\n", ""));
    play.worker.stop(play.now, &mut play.links);
    play.end_turn();
    assert!(play.worker.is_finished());
    assert_eq!(play.closed(), [0]);
}

#[test]
fn an_open_loop_does_not_wait() {
    let (mut play, _) = http(|raw| {
        (raw.rate, raw.arrival, raw.connections) = (Some(1.0), Some(Arrival::Constant), Some(1));
    });
    assert!(play.pass(SECOND)[0].starts_with("POST "));
    play.say(&answer(429, "Retry-After: 50\r\n", ""));
    assert!(play.pass(SECOND)[0].starts_with("POST "));
}

#[test]
fn a_server_that_closes_costs_the_message_in_hand_and_no_other() {
    let (mut play, _) = http(|_| {});
    assert!(play.say(OK).starts_with("POST "));
    play.worker.closed(0, play.now, None, &mut play.links);
    play.end_turn();
    assert_eq!((play.messages().accepted, play.messages().failed), (1, 1));
    assert_eq!(play.error(), Some(("closed", Phase::FirstByte)));
    // It is not sent again: the next connection has the third one.
    play.wait_for_deadline(0);
    play.worker.connected(0, play.now, &mut play.links);
    assert!(play.end_turn()[0].starts_with("POST "));
    assert_eq!(play.messages().taken, 3);
}

#[test]
fn a_connection_is_opened_anew_where_the_answer_or_the_job_says_so() {
    let (mut play, _) = http(|_| {});
    play.say(&answer(200, "Connection: close\r\n", ""));
    assert_eq!((play.closed(), play.dialed()), (vec![0], vec![0]));
    let (mut play, _) = http(|raw| raw.messages_per_connection = Some(1));
    play.say(OK);
    assert_eq!((play.closed(), play.dialed()), (vec![0], vec![0]));
    // An answer may end with its connection.
    let (mut play, _) = http(|_| {});
    assert_eq!(play.say("HTTP/1.1 200 OK\r\n\r\nall"), "");
    play.worker.closed(0, play.now, None, &mut play.links);
    play.end_turn();
    assert_eq!((play.messages().accepted, play.messages().failed, play.dialed()), (1, 0, vec![0]));
}

#[test]
fn tls_comes_first_and_a_slow_server_is_given_up() {
    let mut play = Play::over(ConnectionType::Tls, |raw| {
        by_http(raw);
        raw.timeout = Some(SECOND.into());
    });
    play.connect(0);
    assert_eq!(play.links.secured, [0]);
    play.tls_ready();
    assert_eq!(play.messages().sent, 1);
    assert_eq!(play.wait_for_deadline(0).as_secs_f64().round(), 1.0);
    assert_eq!((play.messages().failed, play.error()), (1, Some(("timeout", Phase::FirstByte))));
}

#[test]
fn the_write_lasts_until_all_of_it_has_left() {
    let (mut play, _) = http(|raw| raw.messages = Some(1));
    play.now += Duration::from_millis(9);
    play.worker.left(0, play.now);
    play.say(OK);
    let delta = play.delta();
    let ms = |phase: Phase| delta.accepted.phases[phase as usize].quantile_ns(1.0).map(|ns| (ns + 50_000) / 1_000_000);
    assert_eq!((ms(Phase::Write), ms(Phase::FirstByte)), (Some(10), Some(0)));
}

#[test]
fn a_key_that_the_server_repeats_is_not_shown() {
    let (mut play, written) = http(|raw| {
        raw.auth = Some(Credentials::new("api".into(), "key-tanstaafl".into()).expect("a user and a password"));
    });
    assert!(written.contains("\r\nAuthorization: Basic YXBpOmtleS10YW5zdGFhZmw=\r\n"), "{written}");
    play.say(&answer(500, "", "what is Basic YXBpOmtleS10YW5zdGFhZmw= ?"));
    play.say(&answer(501, "", "what is key-tanstaafl ?"));
    let delta = play.delta();
    for reply in &delta.replies[Phase::LastByte as usize] {
        assert!(reply.example.contains("withheld"), "{reply:?}");
    }
}

#[test]
fn a_request_that_has_not_left_goes_on_the_next_connection() {
    // The answer and the end of the connection arrive together: the next request was made, and never left.
    for (end, kind) in [(None, "closed"), (Some(LinkError::Reset), "reset")] {
        for rate in [None, Some(1_000.0)] {
            let (mut play, first) = http(|raw| (raw.messages, raw.rate, raw.connections) = (Some(2), rate, Some(1)));
            let first = if first.is_empty() { play.pass(SECOND).swap_remove(0) } else { first };
            assert!(first.starts_with("POST "), "{first}");
            play.worker.received(0, play.now, play.now, OK.as_bytes(), &mut play.links);
            play.worker.turn(play.now, &mut play.links);
            play.worker.closed(0, play.now, end, &mut play.links);
            play.end_turn();
            assert_eq!(play.messages(), MessageCounts { taken: 2, sent: 1, accepted: 1, ..MessageCounts::default() });
            assert_eq!((play.error(), play.dialed()), (Some((kind, Phase::Idle)), vec![0]), "at once");
            play.links.dialed.clear();
            play.worker.connected(0, play.now, &mut play.links);
            assert!(play.end_turn()[0].starts_with("POST "));
            play.say(OK);
            assert!(play.worker.is_finished());
            assert_eq!(play.messages(), MessageCounts { taken: 2, sent: 2, accepted: 2, ..MessageCounts::default() });
        }
    }
}

#[test]
fn a_request_that_never_leaves_any_connection_fails() {
    // The connection has not served, so that nothing says that the next one would.
    let mut play = Play::new(|raw| {
        by_http(raw);
        raw.messages = Some(1);
    });
    play.links.dialed.clear();
    play.worker.connected(0, play.now, &mut play.links);
    play.worker.closed(0, play.now, None, &mut play.links);
    play.end_turn();
    assert_eq!(play.messages(), MessageCounts { taken: 1, failed: 1, ..MessageCounts::default() });
    assert!(play.worker.is_finished());
}
