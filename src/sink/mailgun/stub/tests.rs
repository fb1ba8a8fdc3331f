//! What the stub answers to whom.

use super::*;
use crate::sink::FaultCounters;
use crate::wire::flow::Flow;
use crate::wire::http::server::{ServerConfig, Session};

const START: Instant = Instant::from_ns(5_000_000_000);

fn at_ms(ms: u64) -> Instant {
    START + Duration::from_millis(ms)
}

/// One connection to a stub, driven in virtual time.
struct Drive {
    stub: Stub,
    session: Session<Request>,
    config: ServerConfig,
    flow: Flow,
}

impl Drive {
    fn new(settings: StubSettings) -> Drive {
        let mut stub = Stub::new(settings, START, 7);
        let (mut session, config) = (Session::new(), ServerConfig::new(REQUEST_BYTES_MAX));
        let flow = session.connected(START, &config, &mut stub);
        Drive { stub, session, config, flow }
    }

    fn send_at(&mut self, now: Instant, octets: &[u8]) -> String {
        let mut out = Vec::new();
        self.flow = self.session.handle(now, octets, &self.config, &mut self.stub, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn wait_until(&mut self, now: Instant) -> String {
        let mut out = Vec::new();
        self.flow = self.session.handle_timeout(now, &self.config, &mut self.stub, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Posts content, and gives the status and the content of the answer.
    fn post(&mut self, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        parts(&self.send_at(START, &request(path, kind, body)))
    }

    fn form(&mut self, body: &str) -> (u16, String) {
        self.post("/v3/example.com/messages", URLENCODED, body.as_bytes())
    }

    fn mime(&mut self, body: &str) -> (u16, String) {
        self.post("/v3/example.com/messages.mime", MULTIPART, body.replace('\n', "\r\n").as_bytes())
    }
}

const URLENCODED: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=xx";

/// `api:key`.
const AUTHORIZATION: &str = "Basic YXBpOmtleQ==";

fn request(path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {AUTHORIZATION}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn parts(response: &str) -> (u16, String) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response:?}"));
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head} {body}");
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn message(text: &str) -> String {
    format!(r#"{{"message":"{text}"}}"#)
}

const RIGHT: &str = "from=Me+%3Cme%40x.org%3E&to=a@example.com,%20b@example.com&subject=s&text=hi";

#[test]
fn a_form_is_accepted_with_an_id_of_its_own() {
    let mut drive = Drive::new(StubSettings { id_nonce: 9, ..StubSettings::default() });
    let queued = |id: u32| format!(r#"{{"id":"<{id}.9@example.com>","message":"Queued. Thank you."}}"#);
    assert_eq!(drive.form(RIGHT), (200, queued(1)));
    assert_eq!(drive.form(RIGHT), (200, queued(2)));
    let counts = drive.stub.counts();
    assert_eq!((counts.connections, counts.requests, counts.messages, counts.recipients), (1, 2, 2, 4));
    assert_eq!((counts.bytes, counts.statuses[&200], counts.errors), (2 * RIGHT.len() as u64, 2, 0));
}

#[test]
fn each_wrong_parameter_has_mailguns_text() {
    let mut drive = Drive::new(StubSettings::default());
    let many = vec!["a@x"; 1_001].join(",");
    let long = "x".repeat(OPTIONS + 1);
    for (body, text) in [
        ("", "from parameter is missing"),
        ("to=a@x&text=t", "from parameter is missing"),
        ("from=&to=a@x&text=t", "from parameter is missing"),
        ("from=a&to=a@x&text=t", "from parameter is not a valid address. please check documentation"),
        ("from=a@x&text=t", "to parameter is missing"),
        ("from=a@x&to=&text=t", "to parameter is missing"),
        ("from=a@x&to=a&text=t", "to parameter is not a valid address. please check documentation"),
        ("from=a@x&to=a@x&to=b&text=t", "to parameter is not a valid address. please check documentation"),
        ("from=a@x&to=a@x&cc=b&text=t", "cc parameter is not a valid address. please check documentation"),
        ("from=a@x&to=a@x&bcc=b&text=t", "bcc parameter is not a valid address. please check documentation"),
        ("from=a@x&to=a@x", "Need at least one of 'text' or 'html' parameters specified"),
        ("from=a@x&to=a@x&html=h&template=t", "Only one parameters 'html' or 'template' is allowed"),
        (&format!("from=a@x&to={many}&text=t"), "Too many recipients, max is 1000"),
        ("from=a@x&to=a@x&text=t&recipient-variables={", "'recipient-variables' parameter is not a valid JSON"),
        ("from=a@x&to=a@x&text=t&recipient-variables=[]", "'recipient-variables' parameter is not a valid JSON"),
        (
            &format!("from=a@x&to=a@x&text=t&h:X-A={long}"),
            "Send options (parameters starting with o:, h:, v:, or t:) are limited to 16KB total",
        ),
    ] {
        assert_eq!(drive.form(body), (400, message(text)), "{}", &body[..body.len().min(80)]);
    }
    for right in [
        "from=a@x&to=a@x&html=h",
        "from=a@x&to=a@x&amp-html=h",
        "to=a@x&template=t",
        "from=a@x&to=a@x&text=t&recipient-variables=%7B%22a%40x%22%3A%7B%22id%22%3A1%7D%7D",
        &format!("from=a@x&to={}&text=t", vec!["a@x"; 1_000].join(",")),
        &format!("from=a@x&to=a@x&text=t&h:X-A={}", "x".repeat(OPTIONS)),
    ] {
        assert_eq!(drive.form(right).0, 200, "{right}");
    }
    assert_eq!((drive.stub.counts().errors, drive.stub.counts().statuses[&400]), (0, 16));
}

/// What one option may have, with the five octets of its name.
const OPTIONS: usize = super::super::OPTIONS_BYTES_MAX as usize - 5;

#[test]
fn a_mime_message_is_a_file() {
    let mut drive = Drive::new(StubSettings::default());
    let to = "--xx\nContent-Disposition: form-data; name=\"to\"\n\na@x, b@x\n";
    let file =
        "--xx\nContent-Disposition: form-data; name=\"message\"; filename=\"message.mime\"\n\nSubject: x\n\n--x\n\n";
    assert_eq!(drive.mime(&format!("{to}{file}--xx--\n")).0, 200);
    assert_eq!(drive.stub.counts().recipients, 2);
    let text = "--xx\nContent-Disposition: form-data; name=\"message\"\n\nSubject: x\n";
    let refused = (400, message("'message' parameter is not a file"));
    assert_eq!(drive.mime(&format!("{to}{text}--xx--")), refused);
    assert_eq!(drive.mime(&format!("{to}--xx--")), refused);
    assert_eq!(drive.mime(&format!("{file}--xx--")), (400, message("to parameter is missing")));
    let unended = (400, message("the body is no form of the type that Content-Type says"));
    assert_eq!(drive.mime(&format!("{to}{file}")), unended);
    let wrong = drive.post("/v3/example.com/messages", "application/json", b"{}");
    let expected = "expected Content-Type: multipart/form-data or application/x-www-form-urlencoded";
    assert_eq!(wrong, (400, message(expected)));
}

#[test]
fn attachments_count_towards_the_size_and_options_do_not() {
    let mut drive = Drive::new(StubSettings { message_bytes_max: 100, ..StubSettings::default() });
    let attach = |octets: usize| {
        format!(
            "from=a@x&to=a@x&subject={}&text={}&attachment={}",
            "s".repeat(100),
            "%20".repeat(50),
            "x".repeat(octets)
        )
    };
    assert_eq!(drive.form(&attach(50)).0, 200);
    assert_eq!(drive.form(&attach(51)), (413, message("Message is too large, max is 100 bytes")));
}

#[test]
fn only_a_key_opens_and_only_the_right_one_where_there_is_one() {
    let with = |authorization: &str| {
        let right = String::from_utf8(request("/v3/a.b/messages", URLENCODED, RIGHT.as_bytes())).unwrap();
        right.replace(&format!("Authorization: {AUTHORIZATION}\r\n"), authorization).into_bytes()
    };
    let mut any = Drive::new(StubSettings::default());
    let mut one = Drive::new(StubSettings { key: Some("key".to_owned().into()), ..StubSettings::default() });
    for (authorization, any_status, one_status) in [
        ("", 401, 401),
        ("Authorization: Basic YXBpOmtleQ==\r\n", 200, 200),
        ("authorization: basic  YXBpOmtleQ==\r\n", 200, 200),
        ("Authorization: Basic YXBpOmtleTI=\r\n", 200, 401),
        ("Authorization: Basic YXBpOg==\r\n", 200, 401),
        ("Authorization: Basic YXBp\r\n", 401, 401),
        ("Authorization: Basic eHh4OmtleQ==\r\n", 401, 401),
        ("Authorization: Basic !\r\n", 401, 401),
        ("Authorization: Bearer YXBpOmtleQ==\r\n", 401, 401),
    ] {
        for (drive, status) in [(&mut any, any_status), (&mut one, one_status)] {
            let response = drive.send_at(START, &with(authorization));
            let (got, body) = parts(&response);
            assert_eq!(got, status, "{authorization}");
            if status == 401 {
                assert_eq!(body, "\"Forbidden\"");
                assert!(response.contains("\r\nWWW-Authenticate: Basic realm="), "{response}");
            }
        }
    }
    let shown = format!("{:?}", one.stub);
    assert!(!shown.contains("\"key\""), "{shown}");
}

#[test]
fn paths_domains_and_methods_are_known_or_not() {
    let accept_domains = vec!["example.com".to_owned()];
    let mut drive = Drive::new(StubSettings { accept_domains, ..StubSettings::default() });
    let mut post = |path: &str| drive.post(path, URLENCODED, RIGHT.as_bytes());
    for right in ["/v3/example.com/messages", "/v3/Example.COM/messages?x=y", "http://h/v3/example.com/messages"] {
        assert_eq!(post(right).0, 200, "{right}");
    }
    assert_eq!(post("/v3/example.org/messages"), (404, message("Domain not found: example.org")));
    for wrong in
        ["/", "/v3/messages", "/v3//messages", "/v3/example.com/messages/", "/v3/a%22b/messages", "/v2/a/messages"]
    {
        assert_eq!(post(wrong).0, 404, "{wrong}");
    }
    let response = drive.send_at(START, b"GET /v3/example.com/messages HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && response.contains("\r\nAllow: POST\r\n"));
    let response = drive.send_at(START, b"HEAD /v3/example.com/messages HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 405 ") && response.ends_with("\r\n\r\n"), "{response}");
}

#[test]
fn above_the_rate_the_answer_is_429_and_says_when_to_come_back() {
    let wall_start = WallTime::from_unix_ns(1_700_000_000_900_000_000);
    let rate = Some("2/s".parse().unwrap());
    let mut drive = Drive::new(StubSettings { rate, wall_start, ..StubSettings::default() });
    let right = request("/v3/example.com/messages", URLENCODED, RIGHT.as_bytes());
    for _ in 0..2 {
        assert_eq!(parts(&drive.send_at(at_ms(0), &right)).0, 200);
    }
    let response = drive.send_at(at_ms(200), &right);
    let text = "Domain example.com is not allowed to send: requests-per-sec limit exceeded, try again after 1 seconds";
    assert_eq!(parts(&response), (429, message(text)));
    // 0.9 s and 0.2 s behind the second, and one second more.
    assert!(response.contains("\r\nRetry-After: 1\r\nX-RateLimit-Reset: 1700000002\r\n"), "{response}");
    assert_eq!(parts(&drive.send_at(at_ms(500), &right)).0, 200);
    // What is refused for its own faults takes nothing of the rate.
    assert_eq!(drive.form("").0, 400);
}

fn faults(rule: &str) -> Faults {
    Faults::new([rule.parse().unwrap()], FaultCounters::default()).unwrap()
}

#[test]
fn faults_strike_responses() {
    let of = |faults| Drive::new(StubSettings { faults, ..StubSettings::default() });
    let right = request("/v3/example.com/messages", URLENCODED, RIGHT.as_bytes());

    let mut delayed = of(faults("http=delay:10ms"));
    assert_eq!(delayed.send_at(at_ms(0), &[right.clone(), right.clone()].concat()), "");
    assert_eq!(delayed.session.deadline(), at_ms(10));
    assert_eq!(parts(&delayed.wait_until(at_ms(10))).0, 200);
    assert_eq!(parts(&delayed.wait_until(at_ms(20))).0, 200, "one after the other");

    let mut replying = of(faults("http=503,100%,a \"quoted\" text"));
    assert_eq!(parts(&replying.send_at(at_ms(0), &right)), (503, message(r#"a \"quoted\" text"#)));
    assert_eq!((replying.stub.counts().messages, replying.stub.counts().errors), (0, 0));

    let mut dropping = of(faults("http=drop"));
    assert_eq!((dropping.send_at(at_ms(0), &right), dropping.flow), (String::new(), Flow::Close));

    let mut stalled = Drive::new(StubSettings { stall: Some("1s@5s".parse().unwrap()), ..StubSettings::default() });
    assert_eq!(parts(&stalled.send_at(at_ms(4_999), &right)).0, 200);
    assert_eq!(stalled.send_at(at_ms(5_500), &right), "");
    assert_eq!(parts(&stalled.wait_until(at_ms(6_000))).0, 200);
}

#[test]
fn messages_wait_for_the_capacity_and_a_full_line_is_429() {
    let capacity = Some("10/s,queue=0".parse().unwrap());
    let mut drive = Drive::new(StubSettings { capacity, ..StubSettings::default() });
    let right = request("/v3/example.com/messages", URLENCODED, RIGHT.as_bytes());
    assert_eq!(drive.send_at(at_ms(0), &[right.clone(), right].concat()), "");
    let both = drive.wait_until(at_ms(100));
    let text = message("Too many messages in line, try again after 1 seconds");
    assert!(both.starts_with("HTTP/1.1 200 OK\r\n") && both.ends_with(&text), "{both}");
}

#[test]
fn a_client_that_waits_for_its_100_is_refused_at_once() {
    let mut drive = Drive::new(StubSettings::default());
    let head = "POST /v3/a/messages HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let response = drive.send_at(START, head.as_bytes());
    assert!(response.starts_with("HTTP/1.1 401 ") && response.contains("\r\nConnection: close\r\n"), "{response}");
    assert_eq!((drive.flow, drive.send_at(START, b"hello")), (Flow::Continue, String::new()));
}
