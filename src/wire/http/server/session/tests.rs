//! The session against right, wrong, hostile and silent clients.

use super::*;

/// Answers with what it was asked, and remembers the events.
#[derive(Debug, Default)]
struct Echo {
    json: Vec<u8>,
    events: Vec<Event>,
    drops: bool,
    hold: Duration,
}

#[derive(Debug, Default)]
struct Asked {
    head: String,
    content: Vec<u8>,
}

impl Policy for Echo {
    type Request = Asked;

    fn begin(&mut self, _now: Instant, head: &RequestHead<'_>, request: &mut Asked) -> Intake {
        *request = Asked { head: format!("{} {} ", head.method, head.target), content: Vec::new() };
        if head.target == "/no" { Intake::Discard } else { Intake::Read }
    }

    fn content(&mut self, request: &mut Asked, octets: &[u8]) {
        request.content.extend_from_slice(octets);
    }

    fn decide(&mut self, _now: Instant, request: &mut Asked) -> Decision<'_> {
        self.json = [request.head.as_bytes(), &request.content].concat();
        let answer = Answer { status: 200, fields: b"", json: &self.json };
        Decision { answer: (!self.drops).then_some(answer), hold: self.hold }
    }

    fn observe(&mut self, event: Event) {
        self.events.push(event);
    }
}

const NOW: Instant = Instant::from_ns(1_000);

struct Drive {
    session: Session<Asked>,
    policy: Echo,
    config: ServerConfig,
}

impl Drive {
    fn new(policy: Echo) -> Drive {
        let mut drive = Drive { session: Session::new(), policy, config: ServerConfig::new(20) };
        let _ = drive.session.connected(NOW, &drive.config, &mut drive.policy);
        drive
    }

    fn send(&mut self, octets: &str) -> (String, Flow) {
        let mut out = Vec::new();
        let flow = self.session.handle(NOW, octets.as_bytes(), &self.config, &mut self.policy, &mut out);
        (String::from_utf8(out).unwrap(), flow)
    }

    fn expire(&mut self) -> (String, Flow) {
        let mut out = Vec::new();
        let now = self.session.deadline();
        let flow = self.session.handle_timeout(now, &self.config, &mut self.policy, &mut out);
        (String::from_utf8(out).unwrap(), flow)
    }
}

fn ok(content: &str, field: &str) -> String {
    let length = content.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{field}\r\n{content}")
}

/// The status of a last answer, with the content of which the rest is read and thrown away.
fn fault_of(octets: &str) -> u16 {
    let mut drive = Drive::new(Echo::default());
    let (response, flow) = drive.send(octets);
    assert!(response.contains("\r\nConnection: close\r\n"), "{octets:?}: {response}");
    assert_eq!(flow, Flow::Continue, "it lingers: {octets:?}");
    assert_eq!(drive.send("POST / HTTP/1.1\r\n"), (String::new(), Flow::Continue));
    assert_eq!(drive.session.end_of_stream(&mut drive.policy), Flow::Close);
    assert!(matches!(drive.policy.events[1], Event::Error(_)), "{:?}", drive.policy.events);
    response[9..12].parse().unwrap()
}

#[test]
fn requests_are_answered_in_their_order_and_the_connection_stays() {
    let mut drive = Drive::new(Echo::default());
    let requests = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n\
                    POST /no HTTP/1.1\r\nhost:h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let expected = ok("POST /a ab", "") + &ok("GET /b ", "") + &ok("POST /no ", "");
    assert_eq!(drive.send(requests), (expected, Flow::Continue));
}

#[test]
fn the_connection_closes_where_that_is_asked_for_or_goes_without_saying() {
    let close = "GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\nGET / HTTP/1.1\r\n";
    assert_eq!(Drive::new(Echo::default()).send(close), (ok("GET / ", "Connection: close\r\n"), Flow::Close));
    let old = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(Drive::new(Echo::default()).send(old), (ok("GET / ", "Connection: close\r\n"), Flow::Close));
    let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(Drive::new(Echo::default()).send(kept), (ok("GET / ", "Connection: keep-alive\r\n"), Flow::Continue));
}

#[test]
fn a_client_that_waits_for_100_gets_it_or_its_answer() {
    let head = |path| format!("POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n");
    let mut drive = Drive::new(Echo::default());
    assert_eq!(drive.send(&head("/")), ("HTTP/1.1 100 Continue\r\n\r\n".into(), Flow::Continue));
    assert_eq!(drive.send("ab"), (ok("POST / ab", ""), Flow::Continue));
    assert_eq!(drive.send(&head("/no")), (ok("POST /no ", "Connection: close\r\n"), Flow::Continue));
    assert_eq!(drive.send("ab").0, "");
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    for (fields, status) in [
        ("Host: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Host: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Host: h\r\nContent-Length: +1\r\n", 400),
        ("Host: h\r\nTransfer-Encoding: gzip, chunked\r\n", 501),
        ("Host: h\r\nTransfer-Encoding : chunked\r\n", 400),
        ("Host: h\r\nX: a\r\n folded\r\n", 400),
        ("Host: h\r\nX: a\rb\r\n", 400),
        ("Host: h\r\nX: a\nContent-Length: 1\r\n", 400),
        ("Host: h\r\nX: \0\r\n", 400),
        ("Host: h\r\nHost: g\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 0\r\n", 400),
        ("Host: h\r\n", 411),
        ("Host: h\r\nContent-Length: 21\r\n", 413),
        ("Host: h\r\nExpect: wonders\r\nContent-Length: 1\r\n", 417),
        ("Host: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ("Host: h\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n012345678901234567890\r\n0\r\n", 413),
    ] {
        assert_eq!(fault_of(&format!("POST / HTTP/1.1\r\n{fields}\r\n")), status, "{fields:?}");
    }
    for (octets, status) in [
        ("GET / HTTP/1.1\n", 400),
        ("\rGET / HTTP/1.1\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (&format!("GET /{} HTTP/1.1\r\n", "x".repeat(head::REQUEST_LINE_BYTES_MAX)), 414),
        (&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(head::HEAD_BYTES_MAX)), 431),
        (&format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1)), 431),
    ] {
        assert_eq!(fault_of(octets), status, "{octets:.60}");
    }
}

#[test]
fn a_silent_client_is_given_up() {
    let mut idle = Drive::new(Echo::default());
    assert_eq!(idle.session.deadline(), NOW + idle.config.idle_timeout);
    assert_eq!(idle.expire(), (String::new(), Flow::Close));
    assert_eq!(idle.policy.events, [Event::SessionOpened]);
    for (sent, span) in [
        ("POST / H", Duration::from_secs(30)),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n", Duration::from_secs(120)),
    ] {
        let mut drive = Drive::new(Echo::default());
        assert_eq!(drive.send(sent), (String::new(), Flow::Continue));
        assert_eq!(drive.session.deadline(), NOW + span);
        let (response, flow) = drive.expire();
        assert!(response.starts_with("HTTP/1.1 408 ") && flow == Flow::Close, "{response}");
        assert_eq!(drive.policy.events[1], Event::Error(SessionError::TimedOut));
    }
}

#[test]
fn a_request_that_is_cut_off_is_an_error_and_an_idle_connection_that_ends_is_none() {
    for (sent, errors) in [("", 0), ("GET", 1), ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na", 1)] {
        let mut drive = Drive::new(Echo::default());
        let _ = drive.send(sent);
        assert_eq!(drive.session.end_of_stream(&mut drive.policy), Flow::Close);
        let found = drive.policy.events.iter().filter(|event| **event == Event::Error(SessionError::CutOff)).count();
        assert_eq!(found, errors, "{sent}");
    }
}

#[test]
fn held_responses_are_bounded_and_a_drop_says_nothing() {
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut holding = Drive::new(Echo { hold: Duration::from_secs(1), ..Echo::default() });
    assert_eq!(holding.send(get), (String::new(), Flow::Continue));
    assert_eq!(holding.expire(), (ok("GET / ", ""), Flow::Continue));
    assert_eq!(holding.send(&get.repeat(5_000)), (String::new(), Flow::Drop));
    assert_eq!(holding.policy.events.last(), Some(&Event::Error(SessionError::TooManyHeld)));
    let mut dropping = Drive::new(Echo { drops: true, ..Echo::default() });
    assert_eq!(dropping.send(get), (String::new(), Flow::Close));
}
