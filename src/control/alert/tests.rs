//! PagerDuty as a stub on loopback: each answer that it may give, and what comes of it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::alert::policy::Rule;
use crate::shard::clock::Clock;

const KEY: &str = "0123456789abcdef0123456789abcdef";
#[path = "../../../tests/peers/support/pagerduty_schema.rs"]
mod schema;

const ONCE: Rule = Rule { after: 1, well_for: 1 };

/// What the stub does with one request.
#[derive(Clone, Debug)]
enum Reply {
    Answer(&'static str),
    /// Nothing at all, until the client has gone.
    Hang,
    /// It closes.
    Close,
}

const TAKEN: Reply = Reply::Answer(
    "HTTP/1.1 202 Accepted\r\nContent-Length: 63\r\n\r\n{\"status\":\"success\",\"message\":\"Event processed\",\"dedup_key\":\"k\"}",
);
const OTHER: Reply = Reply::Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
const NO: Reply = Reply::Answer(
    "HTTP/1.1 400 Bad Request\r\nContent-Length: 84\r\n\r\n{\"status\":\"invalid event\",\"errors\":[\"0123456789abcdef0123456789abcdef is not a key\"]}",
);
const MANY: Reply = Reply::Answer("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n");
const BROKEN: Reply = Reply::Answer("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
const ELSEWHERE: Reply =
    Reply::Answer("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");

/// Answers each connection by the next of these, then by 202; gives where, and the bodies that came.
fn stub(replies: Vec<Reply>) -> (PagerDuty, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v2/enqueue", listener.local_addr().unwrap());
    let (tell, bodies) = mpsc::channel();
    thread::spawn(move || {
        let mut replies = replies.into_iter();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let reply = replies.next().unwrap_or(TAKEN);
            if tell.send(serve(stream, &reply)).is_err() {
                return;
            }
        }
    });
    (PagerDuty { routing_key: KEY.into(), url, client_url: Some("https://a.example/d".to_owned()) }, bodies)
}

fn serve(stream: TcpStream, reply: &Reply) -> Value {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    // Whatever it is answered, it is what the vendor describes.
    let body = serde_json::from_slice(&body).unwrap();
    schema::check(&body);
    let mut stream = reader.into_inner();
    match reply {
        // Each on a connection of its own.
        Reply::Answer(text) => {
            stream.write_all(text.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).unwrap()
        }
        Reply::Hang => drop(stream.read(&mut [0])),
        Reply::Close => {}
    }
    body
}

fn client(config: &PagerDuty) -> Client {
    Client::answering_within(config, Duration::from_millis(300))
}

fn event() -> Event {
    test_events("probe.example.com", WallTime::from_unix_ns(1_795_521_602_000_000_000), None)[0].clone()
}

#[test]
fn each_answer_has_its_meaning_and_none_shows_the_key() {
    for (reply, answer, status) in [
        (TAKEN, Answer::Taken, Some(202)),
        (OTHER, Answer::Failed(None), Some(200)),
        (NO, Answer::Refused, Some(400)),
        (ELSEWHERE, Answer::Failed(None), Some(307)),
        (MANY, Answer::TooMany(Some(Duration::from_secs(3_600))), Some(429)),
        (BROKEN, Answer::Failed(None), Some(500)),
        (Reply::Hang, Answer::Failed(None), None),
        (Reply::Close, Answer::Failed(None), None),
    ] {
        let (config, bodies) = stub(vec![reply.clone()]);
        let told = client(&config).tell(&event());
        assert_eq!((&told.answer, told.status), (&answer, status), "{reply:?}: {told:?}");
        assert!(!told.words.contains(KEY) && !format!("{:?} {config:?}", client(&config)).contains(KEY), "{told:?}");
        assert_eq!(bodies.recv().unwrap()["routing_key"], KEY);
    }
    let nobody = PagerDuty { routing_key: KEY.into(), url: "http://127.0.0.1:1/".to_owned(), client_url: None };
    let told = client(&nobody).tell(&event());
    assert_eq!((told.answer, told.status), (Answer::Failed(None), None));
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
    assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None, "which was long ago");
    assert!(retry_after("Wed, 21 Oct 2048 07:28:00 GMT") > Some(Duration::from_secs(86_400)));
    assert_eq!((retry_after("soon"), retry_after("-1")), (None, None));
}

/// Alerts on a store of their own, as a service finds them.
fn alerts(path: &Path, config: Option<&PagerDuty>) -> (Alerts, Rc<Store>) {
    let (store, kept) = Store::open(path, 10).unwrap();
    let store = Rc::new(store);
    let names = Names { source: "here".to_owned(), address: "probe@example.com".to_owned() };
    let alerts = Alerts::new(config, names, Rc::clone(&store), &kept.events, &kept.notes).unwrap();
    (alerts, store)
}

fn closed(alerts: Alerts, store: Rc<Store>) {
    drop(alerts);
    Rc::into_inner(store).unwrap().close(Duration::from_secs(60)).unwrap();
}

fn lost(alerts: &mut Alerts) {
    let account = Account {
        route: "r",
        probe: 1,
        order: 1,
        severity: Severity::Critical,
        summary: "mail is lost".to_owned(),
        details: Map::new(),
    };
    alerts.bad(Kind::Lost, ONCE, WallTime::from_unix_ns(1_795_521_602_000_000_000), account);
}

/// Looks, as control does, with a clock that runs ahead of the back-off.
fn look_until(alerts: &mut Alerts, what: &str, is_so: impl Fn(AlertCounts) -> bool) {
    let clock = Clock::start();
    let mut ahead = Duration::ZERO;
    for _ in 0..6_000 {
        ahead += Duration::from_secs(1);
        alerts.look(clock.now() + ahead);
        if is_so(alerts.counts()) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for {what}: {:?}", alerts.counts());
}

#[test]
fn an_alert_and_its_end_are_told_once_each_and_in_order_whatever_goes_wrong_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (config, bodies) = stub(vec![BROKEN, Reply::Close, MANY]);
    let (mut alerts, store) = alerts(&folder.path().join("a.db"), Some(&config));
    lost(&mut alerts);
    lost(&mut alerts);
    alerts.look(Instant::ZERO);
    alerts.well("r", 1, ONCE);
    assert_eq!((alerts.counts().waiting, alerts.counts().open), (2, 0));
    look_until(&mut alerts, "both", |counts| counts.taken == 2);
    let counts = alerts.counts();
    assert_eq!((counts.failed, counts.throttled, counts.refused, counts.waiting), (2, 1, 0, 0));
    let told: Vec<Value> = bodies.try_iter().collect();
    let actions: Vec<&Value> = told.iter().map(|body| &body["event_action"]).collect();
    assert_eq!(actions, ["trigger", "trigger", "trigger", "trigger", "resolve"]);
    assert!(told.iter().all(|body| body["dedup_key"] == "timecop/r/lost/probe@example.com"), "{told:?}");
    assert_eq!(told[0]["payload"]["timestamp"], "2026-11-24T12:00:02Z");
    assert_eq!(told[0]["client_url"], "https://a.example/d");
    closed(alerts, store);
}

#[test]
fn what_was_not_delivered_survives_a_restart_and_what_was_open_is_resolved_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let nobody = PagerDuty { routing_key: KEY.into(), url: "http://127.0.0.1:1/".to_owned(), client_url: None };
    let (mut first, store) = alerts(&path, Some(&nobody));
    lost(&mut first);
    look_until(&mut first, "a failure", |counts| counts.failed > 0);
    closed(first, store);
    let text = std::fs::read(&path).unwrap();
    assert!(!text.windows(KEY.len()).any(|octets| octets == KEY.as_bytes()), "the key is in the store");
    let (config, bodies) = stub(Vec::new());
    let (mut second, store) = alerts(&path, Some(&config));
    assert_eq!(second.open("r"), [Kind::Lost]);
    second.well("r", 1, ONCE);
    look_until(&mut second, "both", |counts| counts.taken == 2);
    let actions: Vec<Value> = bodies.try_iter().map(|body| body["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    closed(second, store);
    let (third, store) = alerts(&path, Some(&config));
    assert_eq!((third.counts().waiting, third.open("r")), (0, &[][..]));
    closed(third, store);
}

#[test]
fn what_is_refused_is_given_up_and_the_next_bad_probe_tells_of_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let (config, bodies) = stub(vec![NO]);
    let (mut alerts, store) = alerts(&folder.path().join("a.db"), Some(&config));
    lost(&mut alerts);
    look_until(&mut alerts, "the refusal", |counts| counts.refused == 1);
    assert_eq!((alerts.open("r"), alerts.counts().waiting), (&[Kind::Lost][..], 0));
    lost(&mut alerts);
    look_until(&mut alerts, "the second one", |counts| counts.taken == 1);
    lost(&mut alerts);
    alerts.well("r", 1, ONCE);
    look_until(&mut alerts, "the resolve", |counts| counts.taken == 2);
    let actions: Vec<Value> = bodies.try_iter().map(|body| body["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "trigger", "resolve"]);
    closed(alerts, store);
}

#[test]
fn an_end_that_is_refused_is_told_again_by_the_next_probe_that_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (config, bodies) = stub(vec![TAKEN, NO]);
    let (mut alerts, store) = alerts(&folder.path().join("a.db"), Some(&config));
    lost(&mut alerts);
    look_until(&mut alerts, "the trigger", |counts| counts.taken == 1);
    alerts.well("r", 1, ONCE);
    look_until(&mut alerts, "the refusal", |counts| counts.refused == 1);
    alerts.well("r", 1, ONCE);
    look_until(&mut alerts, "the resolve", |counts| counts.taken == 2);
    alerts.well("r", 1, ONCE);
    assert_eq!(alerts.counts().waiting, 0);
    let told: Vec<Value> = bodies.try_iter().collect();
    let actions: Vec<&Value> = told.iter().map(|body| &body["event_action"]).collect();
    assert_eq!(actions, ["trigger", "resolve", "resolve"]);
    assert_eq!(told[1], told[2]);
    closed(alerts, store);
}

#[test]
fn an_alert_from_before_pagerduty_was_configured_is_told_by_the_next_bad_probe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (mut first, store) = alerts(&path, None);
    lost(&mut first);
    lost(&mut first);
    assert_eq!(first.open("r"), [Kind::Lost]);
    closed(first, store);
    let (config, bodies) = stub(Vec::new());
    let (mut second, store) = alerts(&path, Some(&config));
    lost(&mut second);
    lost(&mut second);
    look_until(&mut second, "the trigger", |counts| counts.taken == 1);
    assert_eq!(second.counts().waiting, 0);
    assert_eq!(bodies.try_iter().map(|body| body["event_action"].clone()).collect::<Vec<_>>(), ["trigger"]);
    closed(second, store);
}

#[test]
fn an_alert_is_resolved_by_the_key_that_it_was_told_by_whatever_the_address_is_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (config, bodies) = stub(Vec::new());
    let (mut first, store) = alerts(&path, Some(&config));
    lost(&mut first);
    look_until(&mut first, "the trigger", |counts| counts.taken == 1);
    closed(first, store);
    let (mut second, store) = alerts(&path, Some(&config));
    second.address = "probe@other.example".to_owned();
    second.well("r", 1, ONCE);
    look_until(&mut second, "the resolve", |counts| counts.taken == 1);
    lost(&mut second);
    look_until(&mut second, "the next trigger", |counts| counts.taken == 2);
    let keys: Vec<Value> = bodies.try_iter().map(|body| body["dedup_key"].clone()).collect();
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[2], "timecop/r/lost/probe@other.example");
    closed(second, store);
}

#[test]
fn an_alert_that_is_over_before_it_could_be_told_is_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (config, bodies) = stub(Vec::new());
    let (mut first, store) = alerts(&path, Some(&config));
    lost(&mut first);
    first.well("r", 1, ONCE);
    assert_eq!((first.counts().waiting, first.counts().dropped, first.counts().open), (0, 0, 0));
    first.look(Instant::ZERO);
    closed(first, store);
    assert!(bodies.try_recv().is_err());
    assert_eq!(Store::open(&path, 10).unwrap().1.events, []);
}

#[test]
fn a_thread_that_has_ended_is_said_to_have() {
    let folder = tempfile::tempdir().unwrap();
    let (mut alerts, store) = alerts(&folder.path().join("a.db"), None);
    alerts.courier = Some(Courier::start(|_| panic!("a fault")).unwrap());
    assert_eq!(alerts.health(), Ok(()));
    lost(&mut alerts);
    for _ in 0..6_000 {
        alerts.look(Instant::ZERO);
        if let Err(why) = alerts.health() {
            assert!(why.contains("nobody is called"), "{why}");
            return closed(alerts, store);
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for the thread's end");
}

#[test]
fn the_key_of_an_alert_hangs_on_no_host_and_keeps_kinds_apart_however_long_it_is() {
    let long = format!("{}@example.com", "a".repeat(240));
    let keys = Kind::ALL.map(|kind| {
        let event = Event { dedup_key: dedup_key(&long, &"r".repeat(64), kind), trigger: None };
        let body: Value = serde_json::from_str(&event.body("k")).unwrap();
        body["dedup_key"].as_str().unwrap().to_owned()
    });
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2], "{keys:?}");
}

#[test]
fn what_cannot_be_read_of_an_earlier_service_does_not_hinder_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(&folder.path().join("a.db"), 10).unwrap();
    let event = (7, serde_json::to_string(&event()).unwrap());
    let notes = BTreeMap::from([("alert/r".to_owned(), "nonsense".to_owned())]);
    let names = Names { source: "here".to_owned(), address: "a@b".to_owned() };
    let alerts = Alerts::new(None, names, Rc::new(store), &[(3, "nonsense".to_owned()), event], &notes).unwrap();
    assert_eq!((alerts.counts().waiting, alerts.open("r")), (1, &[][..]));
}

#[test]
fn a_route_that_is_gone_takes_its_alerts_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (config, bodies) = stub(Vec::new());
    let (mut first, store) = alerts(&path, Some(&config));
    lost(&mut first);
    first.look(Instant::ZERO);
    first.keep_routes(|route| route != "r");
    look_until(&mut first, "both", |counts| counts.taken == 2);
    assert_eq!(bodies.try_iter().last().unwrap()["event_action"], "resolve");
    closed(first, store);
    let (_store, kept) = Store::open(&path, 10).unwrap();
    assert_eq!((kept.notes.len(), kept.events.len()), (0, 0));
}

#[test]
fn without_pagerduty_alerts_are_known_and_told_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (mut alerts, store) = alerts(&folder.path().join("a.db"), None);
    lost(&mut alerts);
    alerts.look(Instant::ZERO);
    assert_eq!((alerts.open("r"), alerts.counts().waiting), (&[Kind::Lost][..], 0));
    closed(alerts, store);
}
