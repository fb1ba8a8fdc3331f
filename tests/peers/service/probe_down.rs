//! What is not the fault of a route, and calls nobody for it: that timecop was down, stopped, or cut off in mid-flight. And
//! what is, though no probe says so: targets that hang, and a PagerDuty that does not take what it is told.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::probe::{ADDRESS, configuration, deliver, ended, fire, metric, route, to_itself, until};
use crate::support::{Events, HANG, Port, Service, Sink, contents, pagerduty, poll};

/// Of the route `r`.
fn count(service: &Service, name: &str) -> f64 {
    metric(service, &format!("timecop_probe_{name}_total{{route=\"r\"}}"))
}

/// A server that takes connections and says nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("smtp://{}", listener.local_addr().expect("an address"));
    (listener, target)
}

/// A service whose probe was taken by a sink, which keeps it, and a PagerDuty that listens.
struct OnItsWay {
    service: Service,
    id: String,
    events: Events,
    port: Port,
    sink: Sink,
    /// In `mail` what the sink keeps.
    files: TempDir,
}

impl OnItsWay {
    fn start() -> OnItsWay {
        let (port, files) = (Port::claim(), tempfile::tempdir().expect("a folder"));
        let sink = Sink::saving_to(&files.path().join("mail"));
        let (alert, events) = pagerduty(&[], files.path());
        let target = format!("smtp://127.0.0.1:{}", sink.port());
        let text = configuration(port.number(), &target, "threshold = \"8s\"\ntimeout = \"1h\"");
        let service = Service::start(&format!("{text}{alert}"));
        let id = fire(&service);
        until(&service, &id, "its acceptance", |probe| probe["legs"]["submit_s"].is_f64());
        OnItsWay { service, id, events, port, sink, files }
    }
}

/// A target that hangs holds up its own route and no other, and somebody is called.
#[test]
fn a_target_that_hangs_silences_no_other_route_and_is_told_of() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a folder"));
    let (_silent, target) = silent();
    let (alert, events) = pagerduty(&[], folder.path());
    let good = to_itself(port.number()).replace("5days", "1s");
    let times = "interval = \"1s\"\nthreshold = \"15m\"\ntimeout = \"16m\"";
    let hung = format!("[[probe.route]]\nname = \"hung\"\ntarget = \"{target}\"\n{times}\n");
    let service = Service::start(&format!("{good}{hung}{alert}"));
    let skipped = |name: &str| metric(&service, &format!("timecop_probe_skipped_total{{route=\"{name}\"}}"));
    poll("probes that are not sent", || (skipped("hung") >= 2.0).then_some(()));
    let event = events.recv().expect("an event");
    let payload = &event["payload"];
    assert_eq!((&payload["component"], &payload["class"]), (&"hung".into(), &"send_failed".into()), "{event}");
    assert!(payload["summary"].as_str().is_some_and(|summary| summary.contains("are being sent")), "{event}");
    let shown = service.post("/v1/probe/route.get?name=hung", None).body;
    assert_eq!((&shown["state"], &shown["outstanding"]), (&"send_failed".into(), &4.into()), "{shown}");
    assert_eq!(service.post("/v1/probe/route.fire?name=hung", None).status, 429);
    let ok = metric(&service, r#"timecop_probe_outcomes_total{route="r",outcome="ok"}"#);
    ended(&service, &fire(&service), "ok");
    poll("the other route's next one", || {
        (metric(&service, r#"timecop_probe_outcomes_total{route="r",outcome="ok"}"#) > ok + 1.0).then_some(())
    });
    assert_eq!((skipped("r"), &route(&service)["state"]), (0.0, &"ok".into()));
    assert_eq!(events.try_iter().count(), 0, "nobody is called for the other one");
    // Its end would wait for what hangs.
    service.signal("KILL");
}

#[test]
fn what_is_late_because_the_service_was_down_counts_as_excused_and_calls_nobody() {
    let OnItsWay { service, events, port: _port, sink: _sink, files: _files, .. } = OnItsWay::start();
    let (_, service) = service.restart_after("KILL");
    poll("the threshold", || (count(&service, "excused") == 1.0).then_some(()));
    assert_eq!((count(&service, "not_in_time"), &route(&service)["alerts"]), (0.0, &json!([])));
    assert_eq!(events.try_iter().count(), 0);
}

/// Nobody knows whether it left.
#[test]
fn a_probe_that_was_being_sent_when_the_service_was_killed_calls_nobody_when_it_is_lost() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a folder"));
    let (_silent, target) = silent();
    let (alert, events) = pagerduty(&[], folder.path());
    let text = configuration(port.number(), &target, "threshold = \"1s\"\ntimeout = \"20s\"");
    let service = Service::start(&format!("{text}{alert}"));
    let id = fire(&service);
    let store = rusqlite::Connection::open(service.store()).expect("the store can be opened by others");
    let is_stored = || store.query_row("SELECT count(*) FROM probes", [], |row| row.get::<_, i64>(0));
    poll("its row", || (is_stored() == Ok(1)).then_some(()));
    let before: Vec<Value> = events.try_iter().collect();
    let (_, service) = service.restart_after("KILL");
    let probe = ended(&service, &id, "lost");
    assert!(probe["legs"]["submit_s"].is_null(), "{probe}");
    assert_eq!((count(&service, "not_in_time"), metric(&service, "timecop_alert_events_waiting")), (0.0, 0.0));
    // But for what it was told before its end, on a slow machine.
    let after = before.into_iter().chain(events.try_iter());
    assert!(after.into_iter().all(|event| event["payload"]["class"] == "late"));
}

/// The end of the service waits for what is being sent, so that the next one knows.
#[test]
fn a_probe_that_is_being_sent_at_the_end_is_known_to_have_been() {
    let port = Port::claim();
    let sink = Sink::start(&["--delay", "final=1500ms"]);
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let service = Service::start(&configuration(port.number(), &target, "threshold = \"30m\"\ntimeout = \"1h\""));
    let id = fire(&service);
    let (finished, service) = service.restart_after("TERM");
    assert!(finished.status.success(), "{}", finished.stderr);
    let probe = until(&service, &id, "it", |_| true);
    assert!(probe["legs"]["submit_s"].is_f64() && probe["outcome"].is_null(), "{probe}");
    assert_eq!(sink.stop()["messages"], 1);
}

/// The kernel goes on taking connections for a process that is stopped.
#[test]
fn mail_that_waits_while_the_process_is_stopped_is_in_time() {
    let OnItsWay { service, id, events, port, sink: _sink, files } = OnItsWay::start();
    let mail = contents(&files.path().join("mail")).pop().expect("the sink keeps mail");
    service.signal("STOP");
    let (stopped, number) = (Instant::now(), port.number());
    let delivery = thread::spawn(move || deliver(number, &mail));
    // But less than an arrival waits for its word (10 s), should its end have come before the stop.
    poll("the threshold to pass", || (stopped.elapsed() > Duration::from_secs(9)).then_some(()));
    service.signal("CONT");
    assert!(delivery.join().expect("it is delivered").starts_with("250"));
    let probe = ended(&service, &id, "ok");
    assert!(probe["down_s"].as_f64() > Some(8.0) && probe["overdue"] == false, "{probe}");
    assert_eq!(events.try_iter().count(), 0);
    assert!(service.stderr().contains("did not run for a while"), "{}", service.stderr());
}

#[test]
fn a_probe_on_its_way_survives_a_reload() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a folder"));
    let sink = Sink::saving_to(folder.path());
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let times = "threshold = \"5m\"\ntimeout = \"1h\"";
    let service = Service::start(&configuration(port.number(), &target, times));
    let id = fire(&service);
    until(&service, &id, "its acceptance", |probe| probe["legs"]["submit_s"].is_f64());
    service.configure(&configuration(port.number(), &target, &times.replace("1h", "2h")));
    service.signal("HUP");
    poll("the reload", || (route(&service)["timeout_s"] == 7_200.0).then_some(()));
    assert_eq!(route(&service)["outstanding"], 1);
    let mail = contents(folder.path()).pop().expect("the sink keeps mail");
    assert!(deliver(port.number(), &mail).starts_with("250"));
    let probe = ended(&service, &id, "ok");
    assert_eq!((&probe["down_s"], &probe["skewed"]), (&0.0.into(), &false.into()), "{probe}");
}

#[test]
fn what_pagerduty_breaks_off_puts_off_leaves_unanswered_or_refuses_is_told_again() {
    let (port, nobody, folder) = (Port::claim(), Port::claim(), tempfile::tempdir().expect("a folder"));
    let answers = &["500 No", "429 Slow\r\nRetry-After: 1", HANG, "202 Accepted", "400 Bad Request"];
    let (alert, events) = pagerduty(answers, folder.path());
    let failing = configuration(port.number(), &format!("smtp://127.0.0.1:{}", nobody.number()), "for = 1");
    let service = Service::start(&format!("{failing}{alert}"));
    ended(&service, &fire(&service), "send_failed");
    let told: Vec<Value> = (0..4).map(|_| events.recv().expect("an event")).collect();
    assert!(told.iter().all(|event| *event == told[0] && event["event_action"] == "trigger"), "{told:?}");
    let details = &told[0]["payload"]["custom_details"];
    assert!(details["detail"].as_str().is_some_and(|detail| detail.starts_with("connect: ")), "{details}");
    let events_total = |result: &str| metric(&service, &format!("timecop_alert_events_total{{result=\"{result}\"}}"));
    poll("the answer", || (events_total("taken") == 1.0).then_some(()));
    assert_eq!(metric(&service, r#"timecop_alert_retries_total{reason="throttled"}"#), 1.0);
    assert_eq!(metric(&service, r#"timecop_alert_retries_total{reason="failed"}"#), 2.0);
    ended(&service, &fire(&service), "send_failed");
    // All is well, of which the first word is refused.
    service.configure(&format!("{}for = 1\n{alert}", to_itself(port.number())));
    service.signal("HUP");
    poll("the reload", || (route(&service)["timeout_s"] == 30.0).then_some(()));
    ended(&service, &fire(&service), "ok");
    let refused = events.recv().expect("an event");
    assert_eq!((&refused["event_action"], &refused["dedup_key"]), (&"resolve".into(), &told[0]["dedup_key"]));
    poll("the refusal", || (events_total("refused") == 1.0).then_some(()));
    ended(&service, &fire(&service), "ok");
    assert_eq!(events.recv().expect("an event"), refused);
    poll("the answer", || (events_total("taken") == 2.0).then_some(()));
}

#[test]
fn alerts_of_a_prober_that_is_taken_out_of_the_configuration_are_resolved() {
    let (port, nobody, folder) = (Port::claim(), Port::claim(), tempfile::tempdir().expect("a folder"));
    let (alert, events) = pagerduty(&[], folder.path());
    let failing = configuration(port.number(), &format!("smtp://127.0.0.1:{}", nobody.number()), "");
    let service = Service::start(&format!("{failing}{alert}"));
    ended(&service, &fire(&service), "send_failed");
    let trigger = events.recv().expect("an event");
    assert_eq!(trigger["dedup_key"], format!("timecop/r/send_failed/{ADDRESS}"));
    poll("the answer", || (metric(&service, "timecop_alert_events_waiting") == 0.0).then_some(()));
    service.configure(&alert);
    let (_, _service) = service.restart_after("TERM");
    let resolve = events.recv().expect("an event");
    assert_eq!((&resolve["event_action"], &resolve["dedup_key"]), (&"resolve".into(), &trigger["dedup_key"]));
}
