//! The round trip from outside: its API, its command line, its store through a kill, its alerts. Probes go to the service
//! itself, or to a sink that keeps them, so that the test decides when they arrive.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{
    Certificate, Nginx, Port, Postfix, Process, Service, Sink, contents, pagerduty, poll, python, script, text, timecop,
};

pub(super) const ADDRESS: &str = "probe@probe.example.com";

/// A configuration with one route, which its schedule leaves alone for the time of a test.
pub(super) fn configuration(port: u16, target: &str, rest: &str) -> String {
    format!(
        "[smtp]\nlisten = [\"127.0.0.1:{port}\"]\nhostname = \"probe.example.com\"\n[probe]\naddress = \"{ADDRESS}\"\n\
         [[probe.route]]\nname = \"r\"\ntarget = \"{target}\"\ninterval = \"5days\"\n{rest}\n"
    )
}

pub(super) fn to_itself(port: u16) -> String {
    configuration(port, &format!("smtp://127.0.0.1:{port}"), "threshold = \"20s\"\ntimeout = \"30s\"")
}

pub(super) fn route(service: &Service) -> Value {
    let answer = service.post("/v1/probe/route.get?name=r", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

pub(super) fn fire(service: &Service) -> String {
    let answer = service.post("/v1/probe/route.fire?name=r", None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["id"].as_str().expect("an id").to_owned()
}

/// Waits until the probe is as it is asked for.
pub(super) fn until(service: &Service, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    poll(what, || {
        let route = route(service);
        let probe = route["probes"].as_array()?.iter().find(|probe| probe["id"] == id)?.clone();
        is_so(&probe).then_some(probe)
    })
}

pub(super) fn ended(service: &Service, id: &str, outcome: &str) -> Value {
    until(service, id, &format!("outcome {outcome} of {id}"), |probe| probe["outcome"] == outcome)
}

fn probes_of(service: &Service) -> Vec<Value> {
    route(service)["probes"].as_array().expect("a list").clone()
}

/// A sample of the metrics.
pub(super) fn metric(service: &Service, sample: &str) -> f64 {
    let text = service.get("/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().expect("a number")
}

fn ignored(service: &Service, reason: &str) -> f64 {
    metric(service, &format!("timecop_probe_ignored_total{{reason=\"{reason}\"}}"))
}

/// Hands a message to our own server, as another server would, and gives its last reply.
pub(super) fn deliver(port: u16, message: &[u8]) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    let mut stream = stream;
    let mut reply = |stream: &mut TcpStream, line: &[u8]| {
        stream.write_all(line).expect("it can be written");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a reply");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    };
    reply(&mut stream, b"");
    reply(&mut stream, b"EHLO test.example.com\r\n");
    reply(&mut stream, b"MAIL FROM:<>\r\n");
    reply(&mut stream, format!("RCPT TO:<{ADDRESS}>\r\n").as_bytes());
    reply(&mut stream, b"DATA\r\n");
    reply(&mut stream, &[message, b".\r\n"].concat())
}

#[test]
fn a_probe_to_ourselves_is_shown_by_api_command_line_and_metrics() {
    let port = Port::claim();
    let service = Service::start(&to_itself(port.number()));
    let key = service.folder().join("probe.key");
    assert_eq!(key.metadata().expect("it was made").permissions().mode() & 0o777, 0o600);
    assert_eq!(route(&service)["state"], "unknown");
    let shown = Process::run(timecop().args(["probe", "r", "--api", &service.api]));
    assert_eq!(shown.status.code(), Some(0), "{}{}", shown.stdout, shown.stderr);
    for part in ["r by smtp://127.0.0.1", ": ok\n", "round trip", "connect", "submit", "transit"] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    let json = Process::run(timecop().args(["probe", "r", "--json", "--api", &service.api]));
    let probe: Value = serde_json::from_str(&json.stdout).expect("one object");
    assert_eq!((json.status.code(), &probe["outcome"]), (Some(0), &"ok".into()));
    let (round_trip, submit) = (&probe["round_trip_s"], &probe["legs"]["submit_s"]);
    assert!(round_trip.as_f64().is_some_and(|seconds| seconds > 0.0 && seconds < 20.0) && submit.is_f64(), "{probe}");
    let route = route(&service);
    assert_eq!(
        (&route["state"], &route["outstanding"], &route["alerts"]),
        (&"ok".into(), &0.into(), &Value::Array(vec![]))
    );
    assert_eq!(route["probes"].as_array().map(Vec::len), Some(2));
    assert_eq!(metric(&service, r#"timecop_probe_outcomes_total{route="r",outcome="ok"}"#), 2.0);
    assert_eq!(metric(&service, r#"timecop_round_trip_seconds_count{route="r"}"#), 2.0);
    assert_eq!(metric(&service, r#"timecop_probe_leg_seconds_count{route="r",leg="submit"}"#), 2.0);
    // Of many probes any one is found by its number.
    let ids: Vec<String> = (0..22)
        .map(|_| {
            let id = fire(&service);
            ended(&service, &id, "ok");
            id
        })
        .collect();
    let one = service.post(&format!("/v1/probe/route.get?name=r&id={}", ids[0]), None).body;
    assert_eq!((one["probes"].as_array().map(Vec::len), &one["probes"][0]["id"]), (Some(1), &ids[0].as_str().into()));
    assert!(probes_of(&service).iter().all(|probe| probe["id"] != ids[0].as_str()), "it is not among the last ones");
    let none = service.post("/v1/probe/route.get?name=r&id=0", None).body;
    assert_eq!(none["probes"], Value::Array(vec![]));
    assert_eq!(service.post("/v1/probe/route.get?name=r&id=x", None).status, 400);
    let list = service.post("/v1/probe/route.list", None).body;
    assert_eq!((&list["Items"][0]["name"], &list["Items"][0]["probes"]), (&"r".into(), &Value::Null));
    for (path, status) in
        [("route.get?name=x", 404), ("route.fire?name=x", 404), ("route.get", 400), ("route.fire?name=", 400)]
    {
        let answer = service.post(&format!("/v1/probe/{path}"), None);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.reason().starts_with("name: expected"), "{answer:?}");
    }
    let unknown = Process::run(timecop().args(["probe", "x", "--api", &service.api]));
    assert_eq!(unknown.status.code(), Some(2), "{}", unknown.stderr);
}

/// An API, both of its endpoints, that hands what it takes to a server to be delivered, as Mailgun does.
fn provider(mx: u16) -> (Process, u16) {
    let mut command = python();
    let mut process = Process::start(command.arg(script("mailgun_relay.py")).arg(mx.to_string()));
    let line = process.wait_line("listening on ");
    let port = line.rsplit(' ').next().and_then(|port| port.parse().ok()).expect("a port");
    (process, port)
}

/// The API hands them to a Postfix, which relays them to the probe's own server.
#[test]
fn probes_by_http_arrive_as_whole_messages_and_as_forms() {
    let port = Port::claim();
    let postfix = Postfix::start(&format!(
        "mynetworks = 127.0.0.0/8\nsmtpd_relay_restrictions = permit_mynetworks, reject\n\
         transport_maps = inline:{{ {{ probe.example.com = relay:[127.0.0.1]:{} }} }}",
        port.number()
    ));
    let (_provider, api) = provider(postfix.port());
    for kind in ["http.mime", "http"] {
        let target = format!("http://127.0.0.1:{api}/v3/example.com");
        let times = format!("type = \"{kind}\"\nthreshold = \"20s\"\ntimeout = \"30s\"");
        let service = Service::start(&configuration(port.number(), &target, &times));
        let id = fire(&service);
        let probe = ended(&service, &id, "ok");
        assert!(probe["round_trip_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{probe}");
        // It may arrive before the answer to its request.
        let probe = until(&service, &id, "the answer", |probe| probe["legs"]["submit_s"].is_f64());
        assert!(probe["legs"]["connect_s"].is_f64() && probe["legs"]["auth_s"].is_null(), "{probe}");
        let hops = probe["hops"].as_array().expect("hops");
        assert!(hops.iter().any(|hop| hop.to_string().contains("postfix.test")), "{probe}");
        service.stop("TERM");
    }
}

/// nginx ends TLS before the API, whose certificate is looked at as well.
#[test]
fn probes_by_https_arrive_and_the_targets_certificate_is_known() {
    let (port, certificate) = (Port::claim(), Certificate::of(&["localhost", "127.0.0.1"]));
    let (_provider, api) = provider(port.number());
    let nginx = Nginx::before(&certificate, api);
    let url = nginx.secured_url("/stub/v3/example.com");
    let target = |ca: &str| format!("[targets.api]\nurl = \"{url}\"\n{ca}");
    let route_text =
        configuration(port.number(), "api", "type = \"http.mime\"\nthreshold = \"20s\"\ntimeout = \"30s\"");
    let trusting = target(&format!("ca_file = \"{}\"\n", text(&certificate.file())));
    let service = Service::start(&format!("{route_text}{trusting}"));
    let id = fire(&service);
    ended(&service, &id, "ok");
    let probe = until(&service, &id, "the answer", |probe| probe["legs"]["submit_s"].is_f64());
    assert!(probe["legs"]["tls_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{probe}");
    let known = || route(&service)["certificate_expiry_unix_s"].as_i64();
    poll("the target's certificate", known);
    // Whom the system does not trust is handed no probe.
    service.configure(&format!("{route_text}{}", target("")));
    service.reload();
    let detail = poll("a certificate that is not trusted", || {
        // One that was sent before the reload is taken.
        let probe = until(&service, &fire(&service), "an outcome", |probe| !probe["outcome"].is_null());
        probe["detail"].as_str().map(str::to_owned)
    });
    assert!(detail.contains("issuer is unknown"), "{detail}");
    // The certificate of a target that the route no longer has says nothing about the route.
    service.configure(&to_itself(port.number()));
    service.signal("HUP");
    poll("the gauge to go", || known().is_none().then_some(()));
}

#[test]
fn a_new_certificate_in_the_same_files_is_shown_after_a_reload() {
    let (port, first, second) = (Port::claim(), Certificate::of(&["a.example"]), Certificate::expired(&["b.example"]));
    let files = format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", text(&first.file()), text(&first.key_file()));
    let service = Service::start(&to_itself(port.number()).replace("[probe]\n", &format!("{files}[probe]\n")));
    let shown = || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-starttls", "smtp", "-connect", &format!("127.0.0.1:{}", port.number())]);
        let said = Process::run(&mut command).stdout;
        let pem = said.split("-----").nth(2).expect("a certificate").to_owned();
        pem.split_whitespace().collect::<String>()
    };
    let of = |certificate: &Certificate| {
        let pem = fs::read_to_string(certificate.file()).expect("it was written");
        pem.split("-----").nth(2).expect("PEM").split_whitespace().collect::<String>()
    };
    let expiry = "timecop_smtp_certificate_expiry_timestamp_seconds";
    assert_eq!(shown(), of(&first));
    assert!(metric(&service, expiry) > 4e9);
    fs::copy(second.file(), first.file()).expect("it can be replaced");
    fs::copy(second.key_file(), first.key_file()).expect("it can be replaced");
    assert!(metric(&service, expiry) > 4e9, "what is shown counts, not what is in the file");
    service.signal("HUP");
    poll("the new certificate", || (metric(&service, expiry) < 1e9).then_some(()));
    assert_eq!(shown(), of(&second));
    ended(&service, &fire(&service), "ok");
    // A file with a fault changes nothing.
    fs::write(first.file(), "nonsense").expect("it can be written");
    service.reload();
    ended(&service, &fire(&service), "ok");
    assert_eq!(shown(), of(&second));
}

#[test]
fn an_api_that_refuses_a_probe_is_an_outcome() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a temporary folder"));
    let key = folder.path().join("key");
    fs::write(&key, "right\n").expect("it can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    let stub = Sink::http("", &["--http-key-file", text(&key)]);
    let url = format!("http://127.0.0.1:{}/v3/example.com", stub.port());
    let service = Service::start(&configuration(port.number(), &url, ""));
    let probe = ended(&service, &fire(&service), "send_failed");
    assert!(probe["detail"].as_str().is_some_and(|detail| detail.starts_with("last_byte: 401 ")), "{probe}");
    // With the key it is taken, and not delivered.
    let named = configuration(port.number(), "stub", "threshold = \"1s\"\ntimeout = \"2s\"");
    let target = format!("[targets.stub]\nurl = \"{url}\"\nuser = \"api\"\npassword_file = \"{}\"\n", key.display());
    service.configure(&(named + &target));
    service.signal("HUP");
    poll("the reload", || (route(&service)["target"] == "stub").then_some(()));
    let probe = ended(&service, &fire(&service), "lost");
    assert!(probe["legs"]["submit_s"].is_f64(), "{probe}");
    assert_eq!(stub.stop()["http"]["messages"], 1);
}

#[test]
fn a_service_without_a_prober_has_no_routes() {
    let service = Service::start("");
    assert_eq!(service.post("/v1/probe/route.list", None).body, serde_json::json!({ "Items": [] }));
    assert_eq!(service.post("/v1/probe/route.fire?name=r", None).status, 404);
}

#[test]
fn lost_mail_is_an_alert_and_found_mail_its_end_and_copies_and_forgeries_change_nothing() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a temporary folder"));
    let (sink, key) = (Sink::saving_to(folder.path()), tempfile::tempdir().expect("a temporary folder"));
    let (alert, events) = pagerduty(&[], key.path());
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let text = configuration(port.number(), &target, "threshold = \"1s\"\ntimeout = \"2s\"\nseverity = \"critical\"");
    let service = Service::start(&format!("{text}{alert}"));
    let id = fire(&service);
    let late = events.recv().expect("an event");
    assert_eq!((&late["event_action"], &late["payload"]["class"]), (&"trigger".into(), &"late".into()), "{late}");
    let probe = ended(&service, &id, "lost");
    assert!(probe["legs"]["submit_s"].is_f64() && probe["legs"]["transit_s"].is_null(), "{probe}");
    assert_eq!((&probe["overdue"], &route(&service)["alerts"]), (&true.into(), &serde_json::json!(["late", "lost"])));
    let raised = events.recv().expect("an event");
    assert_eq!(raised["event_action"], "trigger", "{raised}");
    assert_eq!(raised["dedup_key"], "timecop/r/lost/probe@probe.example.com");
    assert_eq!(raised["payload"]["severity"], "critical");
    // What the sink kept is delivered now, as by a queue that was stuck.
    let mail = contents(folder.path()).pop().expect("the sink keeps mail");
    let changed = String::from_utf8(mail.clone()).expect("ASCII").replace("route=r", "route=s").into_bytes();
    assert!(deliver(port.number(), &changed).starts_with("250"));
    assert_eq!(ignored(&service, "forged"), 1.0);
    assert_eq!(route(&service)["state"], "lost");
    assert!(deliver(port.number(), &mail).starts_with("250"));
    let probe = ended(&service, &id, "late");
    assert!(probe["round_trip_s"].as_f64().is_some_and(|seconds| seconds > 1.0), "{probe}");
    let resolved = events.recv().expect("an event");
    assert_eq!((&resolved["event_action"], &resolved["dedup_key"]), (&"resolve".into(), &raised["dedup_key"]));
    assert!(deliver(port.number(), &mail).starts_with("250"));
    assert_eq!(ignored(&service, "duplicate"), 1.0);
    assert!(deliver(port.number(), b"Subject: no probe\r\n\r\n").starts_with("250"));
    assert!(deliver(port.number(), b"X-Timecop-Probe: v=1; id=1\r\n\r\n").starts_with("250"));
    assert_eq!((ignored(&service, "absent"), ignored(&service, "malformed")), (1.0, 1.0));
    for (outcome, count) in [("ok", 0.0), ("late", 1.0), ("lost", 1.0), ("send_failed", 0.0)] {
        let name = format!("timecop_probe_outcomes_total{{route=\"r\",outcome=\"{outcome}\"}}");
        assert_eq!(metric(&service, &name), count, "{outcome}");
    }
    assert_eq!(metric(&service, r#"timecop_probe_found_total{route="r"}"#), 1.0);
    assert_eq!(metric(&service, r#"timecop_round_trip_seconds_count{route="r"}"#), 1.0);
    // Control hears of the last answer a little later than the stub of the request.
    let taken = r#"timecop_alert_events_total{result="taken"}"#;
    poll("all answers", || (metric(&service, taken) == 3.0).then_some(()));
    assert_eq!(metric(&service, r#"timecop_probe_not_in_time_total{route="r"}"#), 1.0, "late, lost and found is one");
}

#[test]
fn a_probe_on_its_way_survives_a_kill_and_its_alert_a_restart() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a temporary folder"));
    let sink = Sink::saving_to(folder.path());
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let times = "threshold = \"20s\"\ntimeout = \"1h\"";
    let service = Service::start(&configuration(port.number(), &target, times));
    let id = fire(&service);
    until(&service, &id, "its acceptance", |probe| probe["legs"]["submit_s"].is_f64());
    let (_, service) = service.restart_after("KILL");
    assert_eq!(route(&service)["outstanding"], 1);
    let mail = contents(folder.path()).pop().expect("the sink keeps mail");
    assert!(deliver(port.number(), &mail).starts_with("250"));
    let probe = ended(&service, &id, "ok");
    assert!(probe["round_trip_s"].is_f64() && probe["down_s"].as_f64().is_some_and(|down| down > 0.0), "{probe}");
    // What its sender was told is stored, is so.
    let (_, service) = service.restart_after("KILL");
    assert_eq!(ended(&service, &id, "ok"), probe);
    assert!(deliver(port.number(), &mail).starts_with("250"));
    assert_eq!(ignored(&service, "duplicate"), 1.0);
}

#[test]
fn mail_that_cannot_be_sent_is_an_outcome_and_a_reload_brings_another_route() {
    let (port, nobody) = (Port::claim(), Port::claim());
    let target = format!("smtp://127.0.0.1:{}", nobody.number());
    let service = Service::start(&configuration(port.number(), &target, ""));
    let id = fire(&service);
    let probe = ended(&service, &id, "send_failed");
    assert!(probe["detail"].as_str().is_some_and(|detail| detail.contains("connect")), "{probe}");
    let shown = Process::run(timecop().args(["probe", "r", "--api", &service.api]));
    assert_eq!(shown.status.code(), Some(1), "{}", shown.stdout);
    assert!(shown.stdout.contains("could not be sent"), "{}", shown.stdout);
    service.configure(&(to_itself(port.number()) + "[[probe.route]]\nname = \"s\"\ntarget = \"smtp://127.0.0.1:1\"\n"));
    service.signal("HUP");
    poll("the reload", || (service.post("/v1/probe/route.get?name=s", None).status == 200).then_some(()));
    assert_eq!(route(&service)["probes"].as_array().map(Vec::len), Some(2), "what there was is kept");
    let id = fire(&service);
    ended(&service, &id, "ok");
}

#[test]
fn an_arrival_that_cannot_be_stored_is_put_off() {
    let (port, folder) = (Port::claim(), tempfile::tempdir().expect("a temporary folder"));
    let sink = Sink::saving_to(folder.path());
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let service = Service::start(&configuration(port.number(), &target, "threshold = \"40s\"\ntimeout = \"1h\""));
    let id = fire(&service);
    until(&service, &id, "its acceptance", |probe| probe["legs"]["submit_s"].is_f64());
    let mail = contents(folder.path()).pop().expect("the sink keeps mail");
    let lock = rusqlite::Connection::open(service.store()).expect("the store can be opened by others");
    lock.execute_batch("BEGIN IMMEDIATE").expect("it can be locked");
    let reply = deliver(port.number(), &mail);
    assert!(reply.starts_with("451"), "{reply}");
    lock.execute_batch("ROLLBACK").expect("it can be unlocked");
    assert!(deliver(port.number(), &mail).starts_with("250"));
    ended(&service, &id, "ok");
}

#[test]
fn an_alert_can_be_tried() {
    let folder = tempfile::tempdir().expect("a folder");
    let (alert, events) = pagerduty(&[], folder.path());
    let file = folder.path().join("t.toml");
    fs::write(&file, alert).expect("it can be written");
    let tried = Process::run(timecop().args(["alert", "test", "--config"]).arg(&file));
    assert_eq!(tried.status.code(), Some(0), "{}", tried.stderr);
    assert_eq!(tried.stdout, "trigger: 202: {\"status\":\"success\"}\nresolve: 202: {\"status\":\"success\"}\n");
    let actions: Vec<Value> = events.try_iter().map(|event| event["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    fs::write(&file, "").expect("it can be written");
    let without = Process::run(timecop().args(["alert", "test", "--config"]).arg(&file));
    assert_eq!(without.status.code(), Some(2), "{}", without.stderr);
}

#[test]
fn prometheus_tools_find_no_fault_with_rules_and_metrics() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/deploy/prometheus");
    let promtool = |arguments: &[&str], input: Stdio| {
        let checked = Command::new("promtool").args(arguments).current_dir(&rules).stdin(input).output();
        let checked = checked.expect("promtool can be run; tools/test installs it");
        let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        assert!(checked.status.success(), "{arguments:?}: {said}");
        assert!(checked.stderr.is_empty(), "{arguments:?}: {said}");
    };
    promtool(&["check", "rules", "timecop.rules.yml"], Stdio::null());
    promtool(&["test", "rules", "timecop.rules.test.yml"], Stdio::null());
    let port = Port::claim();
    let service = Service::start(&to_itself(port.number()));
    ended(&service, &fire(&service), "ok");
    let file = service.folder().join("metrics");
    fs::write(&file, service.get("/metrics").1).expect("it can be written");
    promtool(&["check", "metrics"], fs::File::open(&file).expect("it is there").into());
}
