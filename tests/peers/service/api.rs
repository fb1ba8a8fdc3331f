//! The job API as its users know it.

use serde_json::{Value, json};

use crate::support::{Aiosmtpd, Process, Service, Sink, python, timecop};

/// The request that the API's first users sent, to the letter.
const ORIGINAL: &str = r#"{"Type":"smtp","messages":1000,"connections":10,"msg_size":100000,"timeout":"0s","smtp_connection_type":"plain"}"#;
/// Runs until it is stopped.
const ENDLESS: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"1h","rate":200,"connections":4}"#;

#[test]
fn the_original_request_runs_to_its_end_and_is_kept() {
    let service = Service::start("");
    let answer = service.post("/v1/hammer/job.run", Some(ORIGINAL));
    assert_eq!(answer.status, 200, "{answer:?}");
    let started = answer.body;
    assert_eq!(started["job"], serde_json::from_str::<Value>(ORIGINAL).expect("it is JSON"), "{started}");
    assert_eq!(started["stop_time"], "Mon, 01 Jan 0001 00:00:00 UTC");
    let id = started["id"].as_str().expect("an id");
    assert!(id.parse::<u64>().is_ok(), "{id}");

    let ended = service.ended(id);
    assert_eq!(
        (&ended["state"], &ended["job"], &ended["start_time"]),
        (&json!("finished"), &started["job"], &started["start_time"])
    );
    assert_eq!(ended["result"]["messages"]["accepted"], 1_000, "{ended}");
    assert_eq!(ended["result"]["connections"]["asked"], 10);
    assert_eq!(ended["result"]["spec"]["msg_size"], 100_000);
    for time in ["start_time", "stop_time"] {
        let text = ended[time].as_str().expect("a time");
        let shape: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_digit() {
                    '0'
                } else if c.is_ascii_alphabetic() {
                    'a'
                } else {
                    c
                }
            })
            .collect();
        assert_eq!(shape, "aaa, 00 aaa 0000 00:00:00 aaa", "{text}");
        assert!(text.ends_with(" UTC"), "{text}");
    }

    let list = service.post("/v1/hammer/job.list", None).body;
    assert_eq!(list["Items"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["Items"][0]["id"], id);
    assert!(list["Items"][0].get("result").is_none(), "{list}");
    // Stopping what has ended changes nothing.
    let stopped = service.post(&format!("/v1/hammer/job.stop?id={id}"), None).body;
    assert_eq!(stopped, ended);
}

#[test]
fn an_empty_list_and_unknown_jobs_are_answered() {
    let service = Service::start("");
    assert_eq!(service.post("/v1/hammer/job.list", None).body, json!({ "Items": [] }));
    for verb in ["get", "stop"] {
        for (query, status) in
            [("", 400), ("?id=", 400), ("?ID=7", 400), ("?id=7", 404), ("?id=-1", 404), ("?id=a%0d%0ab", 404)]
        {
            let answer = service.post(&format!("/v1/hammer/job.{verb}{query}"), None);
            assert_eq!(answer.status, status, "{verb}{query}: {answer:?}");
            assert!(answer.reason().starts_with("id: expected"), "{answer:?}");
        }
    }
    assert_eq!(service.post("/v1/hammer/job", None).status, 404);
    assert_eq!(service.get("/v1/hammer/job.list").0, 405);
    assert_eq!(service.get("/healthz"), (200, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(service.get("/readyz").0, 200);
}

#[test]
fn a_job_is_shown_without_its_result_where_that_is_asked_for() {
    let service = Service::start("");
    let id = service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"messages":20}"#);
    let whole = service.ended(&id);
    let get = |query: &str| service.post(&format!("/v1/hammer/job.get?id={id}{query}"), None);
    assert_eq!(get("&result=true").body, whole);
    let record = get("&result=false").body;
    let mut expected = whole.clone();
    expected.as_object_mut().expect("a job").remove("result");
    assert_eq!(record, expected);
    assert!(record["verdict"].is_string(), "{record}");
    let refused = get("&result=no");
    assert_eq!(
        (refused.status, refused.reason().contains("result: expected true or false")),
        (400, true),
        "{refused:?}"
    );
    assert_eq!(service.post("/v1/hammer/job.get?id=777&result=false", None).status, 404);
}

#[test]
fn a_live_result_says_what_is_in_flight_and_what_is_to_come() {
    let service = Service::start("");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("smtp://{}", silent.local_addr().expect("an address"));
    let id = service.run(
        &json!({ "smtp_connection_type": "plain", "msg_size": 500, "messages": 100, "connections": 3, "target": target })
            .to_string(),
    );
    let in_flight = |job: &Value| job["result"]["messages"]["in_flight"].as_u64() == Some(3);
    let live = crate::support::poll("messages in flight", || Some(service.job(&id)).filter(in_flight));
    let messages = &live["result"]["messages"];
    assert_eq!((&messages["cut"], &messages["missed"], &messages["to_come"]), (&json!(0), &json!(0), &json!(97)));
    service.post(&format!("/v1/hammer/job.stop?id={id}"), None);
}

#[test]
fn a_wrong_value_names_its_field_and_starts_nothing() {
    let service = Service::start("");
    for (change, status, named) in [
        (r#""messages":0"#, 422, "messages"),
        (r#""messages":"many""#, 422, "messages"),
        (r#""connections":1.5"#, 422, "connections"),
        (r#""msgsize":5"#, 422, "msgsize"),
        (r#""type":"carrier pigeon""#, 422, "carrier pigeon"),
        (r#""type":"lmtp""#, 422, "lmtp"),
        (r#""timeout":"soon""#, 422, "timeout"),
        (r#""from":"a@b>\r\nRCPT TO:<c@d""#, 422, "from"),
        (r#""recipients":["nobody"]"#, 422, "recipients"),
        (r#""target":"smtp://192.0.2.1""#, 422, "allow_targets"),
        (r#""target":"smtp://[::ffff:192.0.2.1]""#, 422, "allow_targets"),
        (r#""target":"elsewhere""#, 422, "elsewhere"),
        (r#""auth":true"#, 422, "auth"),
        (r#""connections":999999"#, 422, "connections"),
        (r#""shards":1000"#, 422, "shards"),
        (r#""body":"x""#, 422, "msg_size"),
        (r#""text":"x""#, 422, "msg_size"),
        (r#""msg_size":[]"#, 422, "msg_size"),
        (r#""subject":"a\u0000""#, 422, "subject"),
        (r#""expand":true"#, 422, "expand"),
        (r#""recipient_order":"any""#, 422, "recipient_order: expected sequential or random"),
        (r#""recipients":["u{2..1}@example.com"]"#, 422, "recipients: expected a range"),
        (r#""warmup":1000"#, 422, "warmup"),
        (r#""messages":10,"warmup":{"messages":10}"#, 422, "warmup: expected fewer than all messages"),
        (r#""stages":[{"duration":"1s","rate":"fast"}]"#, 422, "stages: stage 1: rate"),
        (r#""stages":[{"duration":"1s","rate":1}],"messages":5"#, 422, "stages: expected neither"),
        (r#""stages":[{"duration":"1s","rate":2000000}]"#, 422, "rate_max"),
        (r#""stages":[{"duration":"25h","rate":1}]"#, 422, "duration_max"),
        (r#""abort_on":{"failure_rate":0.1,"p99":"1s"}"#, 422, "abort_on: expected exactly one of failure_rate"),
        (r#""fail_if":["p99>300"]"#, 422, "fail_if: condition 1: expected a time with its unit"),
        (r#"oops"#, 400, "JSON"),
    ] {
        let request = format!(r#"{{"smtp_connection_type":"plain","msg_size":500,{change}}}"#);
        let answer = service.post("/v1/hammer/job.run", Some(&request));
        assert_eq!(answer.status, status, "{change}: {answer:?}");
        assert!(answer.reason().contains(named), "{change}: {answer:?}");
        assert!(!answer.reason().contains('\r'), "{answer:?}");
    }
    let twice = r#"{"msg_size":1,"MSG_SIZE":2,"smtp_connection_type":"plain"}"#;
    assert!(service.post("/v1/hammer/job.run", Some(twice)).reason().to_lowercase().contains("msg_size"));
    assert_eq!(service.post("/v1/hammer/job.list", None).body, json!({ "Items": [] }));
}

#[test]
fn what_is_sent_is_as_the_request_says() {
    let server = Aiosmtpd::showing();
    let service = Service::start("");
    let request = json!({
        "smtp_connection_type": "plain", "target": format!("smtp://127.0.0.1:{}", server.port()), "messages": 4,
        "subject": "Hi %recipient.first%", "text": "Grüße, %recipient.first%", "html": "<p>%recipient%</p>",
        "recipients": ["u{1..2}@example.com"], "expand": true,
        "recipient_variables": r#"{"u1@example.com":{"first":"Bob"},"u2@example.com":{"first":"Al"}}"#,
    });
    let job = service.ended(&service.run(&request.to_string()));
    assert_eq!(job["result"]["messages"]["accepted"], 4, "{job}");
    assert_eq!(job["job"]["text"]["bytes"], "Grüße, %recipient.first%".len());
    assert_eq!((&job["result"]["spec"]["recipients"], &job["result"]["spec"]["expand"]), (&json!(2), &json!(true)));
    for message in server.stop()["shown"].as_array().expect("messages are shown") {
        let to = message["recipients"][0].as_str().expect("a recipient");
        let first = if to == "u1@example.com" { "Bob" } else { "Al" };
        let line = |text: &Value| text.as_str().expect("a text").trim_end().to_owned();
        assert_eq!(message["subject"], format!("Hi {first}"));
        assert_eq!(
            (line(&message["text"]), line(&message["html"])),
            (format!("Grüße, {first}"), format!("<p>{to}</p>"))
        );
    }
    // Beside generated messages, variables are left out, and the result says so.
    let request = r#"{"smtp_connection_type":"plain","msg_size":[{"bytes":500,"weight":1},{"bytes":900,"weight":1}],
        "recipient_variables":"{}","messages":20,"recipient_order":"random"}"#;
    let result = service.ended(&service.run(request))["result"].clone();
    assert!(result["notes"].to_string().contains("recipient_variables are ignored"), "{result}");
    let counts = result["sizes"]["counts"].as_array().expect("the sizes are counted");
    assert_eq!(counts.iter().map(|row| row["messages"].as_u64().expect("a count")).sum::<u64>(), 20);
}

#[test]
fn stopping_a_job_answers_at_once_and_counts_every_message() {
    let service = Service::start("");
    let id = service.run(ENDLESS);
    service.accepted(&id, 50);
    let stopped = service.post(&format!("/v1/hammer/job.stop?id={id}"), None).body;
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    assert!(!stopped["stop_time"].as_str().expect("a time").contains(" 0001 "), "{stopped}");
    let ended = service.ended(&id);
    assert_eq!((&ended["state"], &ended["stop_time"]), (&stopped["state"], &stopped["stop_time"]));
    assert_eq!(ended["result"]["messages"]["cut"], 0, "{ended}");
    assert!(ended["result"]["aborted"].as_str().expect("a reason").contains("job.stop"), "{ended}");
}

#[test]
fn jobs_side_by_side_name_each_other_and_keep_their_figures_apart() {
    let service = Service::start("");
    let first = service.run(ENDLESS);
    let second = service.run(ORIGINAL);
    let ended = service.ended(&second);
    assert_eq!(ended["result"]["messages"]["accepted"], 1_000, "{ended}");
    assert_eq!(ended["result"]["other_jobs"], json!([first]), "{ended}");
    service.accepted(&first, 1);
    service.post(&format!("/v1/hammer/job.stop?id={first}"), None);
    let ended = service.ended(&first);
    assert_eq!(ended["result"]["other_jobs"], json!([second]), "{ended}");
    // One after another, each on the connections that the one before it has given back.
    for _ in 0..20 {
        let id = service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100,"connections":40}"#);
        assert_eq!(service.ended(&id)["result"]["messages"]["accepted"], 100);
    }
}

#[test]
fn a_body_is_sent_and_shown_as_its_size_and_hash_alone() {
    let service = Service::start("");
    let request =
        json!({ "smtp_connection_type": "plain", "messages": 3, "body": "Subject: a secret\r\n\r\nhello\r\n" });
    let id = service.run(&request.to_string());
    let ended = service.ended(&id);
    assert_eq!(ended["result"]["messages"]["accepted"], 3, "{ended}");
    assert_eq!(ended["job"]["body"]["bytes"], 28, "{ended}");
    assert_eq!(ended["job"]["body"]["sha256"].as_str().map(str::len), Some(64), "{ended}");
    assert!(!ended.to_string().contains("a secret"), "{ended}");
}

#[test]
fn the_command_line_runs_shows_lists_and_stops_jobs() {
    let service = Service::start("");
    let job = |arguments: &[&str]| Process::run(timecop().arg("job").args(arguments).env("TIMECOP_API", &service.api));
    let ran = job(&["run", "-m", "50", "-c", "2", "--wait"]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("job 1, finished") && ran.stdout.contains("50 asked: 50 accepted"), "{}", ran.stdout);
    let endless = job(&["run", &service.sink, "-d", "1h", "--rate", "10", "--json"]);
    let started: Value = serde_json::from_str(&endless.stdout).expect("one object");
    assert_eq!(started["job"]["target"], service.sink);
    let id = started["id"].as_str().expect("an id");
    assert!(job(&["stop", id]).stdout.contains("stopped"));
    let listed = job(&["list"]).stdout;
    assert!(
        listed.lines().count() == 3
            && listed.contains("STATE")
            && listed.contains("finished")
            && listed.contains("stopped"),
        "{listed}"
    );
    let shown: Value = serde_json::from_str(&job(&["get", "1", "--json"]).stdout).expect("one object");
    assert_eq!(shown["result"]["messages"]["accepted"], 50);
    let waited = job(&["wait", "1"]);
    assert_eq!((waited.status.code(), &waited.stdout), (Some(0), &job(&["get", "1"]).stdout), "{}", waited.stderr);
    assert_eq!(job(&["wait", id]).status.code(), Some(1), "one that was stopped");
    let by_http = job(&["run", "--type", "http", "-m", "50", "--wait"]);
    assert_eq!(by_http.status.code(), Some(0), "{}", by_http.stderr);
    let listed = job(&["list"]).stdout;
    let targets: Vec<&str> = listed.lines().skip(1).map(|line| line.rsplit("  ").next().expect("a target")).collect();
    assert_eq!(targets, ["the service's HTTP stub", &service.sink, "the service's sink"], "{listed}");
    for verb in ["get", "wait"] {
        let refused = job(&[verb, "77"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(refused.stderr.contains("77") && !refused.stderr.contains("/v1/"), "{}", refused.stderr);
    }
    let by_proxy = timecop()
        .args(["job", "list", "--api", &service.api])
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("ALL_PROXY", "http://127.0.0.1:9")
        .output();
    assert!(by_proxy.expect("it can be run").status.success(), "a token goes to the service and to nobody else");
    let nobody = Process::run(timecop().args(["job", "list", "--api", "http://127.0.0.1:9"]));
    assert_eq!(nobody.status.code(), Some(2));
    assert!(nobody.stderr.contains("timecop serve"), "{}", nobody.stderr);
}

#[test]
fn load_control_is_the_same_by_request_and_by_command_line() {
    let service = Service::start("");
    let request = json!({
        "smtp_connection_type": "plain",
        "msg_size": 500,
        "connections": 4,
        "rate": 50,
        "stages": [{ "duration": "1s", "rate": 100 }, { "duration": "1s", "rate": 0 }],
        "warmup": "500ms",
        "abort_on": [{ "failure_rate": 0.5, "window": "1s", "grace": "0s" }, "p50>1m"],
        "fail_if": ["p99>60m", "rate>0.001"],
        "seed": 7,
    });
    let asked = service.ended(&service.run(&request.to_string()));
    let mut echo = request.clone();
    echo["abort_on"][1] = json!("p50>1m,window=10s,grace=5s");
    assert_eq!((&asked["state"], &asked["job"]), (&json!("finished"), &echo), "a failed condition is no failed job");
    let result = &asked["result"];
    assert_eq!(result["load_model"], "open poisson");
    assert_eq!(result["spec"]["duration_s"], 2.0);
    assert!(result["warmup"]["messages"]["accepted"].as_u64().is_some_and(|messages| messages > 0), "{result}");
    let met = |result: &Value| {
        let thresholds = result["thresholds"].as_array().expect("a list").iter();
        thresholds.map(|threshold| threshold["met"].as_bool().expect("yes or no")).collect::<Vec<_>>()
    };
    assert_eq!(met(result), [true, false], "{result}");

    let job = |arguments: &[&str]| {
        let mut command = timecop();
        command.args(["job", "run", "--wait", "--json"]).args(arguments).env("TIMECOP_API", &service.api);
        let ran = Process::run(&mut command);
        let job: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
        (ran.status.code(), job)
    };
    let options = "-s 500 -c 4 --rate 50 --stages 1s@100,1s@0 --warmup 500ms --seed 7 --fail-if p99>60m --fail-if rate>0.001 \
        --abort-on failures>50%,window=1s,grace=0s --abort-on p50>1m";
    let (code, mut by_options) = job(&options.split_whitespace().collect::<Vec<_>>());
    assert_eq!(code, Some(1), "{by_options}");
    assert_eq!(met(&by_options["result"]), [true, false]);
    // The share is written in another way; what is understood is the same.
    let spec = by_options["result"]["spec"].take();
    assert_eq!(spec["abort_on"], json!(["failures>50%,window=1s,grace=0s", "p50>1m,window=10s,grace=5s"]));
    for field in ["stages", "warmup", "rate", "duration_s", "arrival", "msg_size", "connections"] {
        assert_eq!(spec[field], result["spec"][field], "{field}");
    }
    assert_eq!(by_options["result"]["messages"]["asked"], result["messages"]["asked"], "the same seed");

    let (code, job) = job(&["-m", "50", "--warmup", "20", "--fail-if", "p99>60m"]);
    assert_eq!((code, met(&job["result"])), (Some(0), vec![true]), "{job}");
    assert_eq!((&job["job"]["warmup"], &job["result"]["messages"]["asked"]), (&json!({ "messages": 20 }), &json!(30)));

    let (_, metrics) = service.get("/metrics");
    let verdicts = metrics.lines().filter(|line| line.starts_with("timecop_hammer_verdicts_total{type=\"smtp\""));
    let counts: Vec<u64> =
        verdicts.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number")).collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (3, 3), "{metrics}");
}

#[test]
fn jobs_are_compared_and_merged_by_their_ids() {
    let service = Service::start("");
    let ids = [(), ()].map(|()| {
        let id = service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"messages":300,"connections":2}"#);
        service.ended(&id);
        id
    });
    let run = |arguments: &[&str]| {
        Process::run(timecop().args(arguments).args([&ids[0], &ids[1]]).args(["--api", &service.api]))
    };
    let compared = run(&["compare"]);
    assert_eq!(compared.status.code(), Some(0), "{}", compared.stderr);
    for id in &ids {
        assert!(compared.stdout.contains(&format!("job {id}")), "{}", compared.stdout);
    }
    let merged = run(&["merge"]);
    let report: Value = serde_json::from_str(&merged.stdout).unwrap_or_else(|_| panic!("{}", merged.stderr));
    assert_eq!(report["messages"]["accepted"], 600);
    let running = service.run(ENDLESS);
    for (id, words) in [("4000000000", "4000000000"), (running.as_str(), "one that runs")] {
        let refused = Process::run(timecop().args(["compare", &ids[0], id, "--api", &service.api]));
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stdout);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[test]
fn a_job_that_was_stopped_is_compared_and_merged_once_it_has_its_verdict() {
    let service = Service::start("");
    let sink = Sink::start(&["--delay", "final=4s"]);
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let request = json!({
        "target": target, "smtp_connection_type": "plain", "msg_size": 500, "duration": "1h", "connections": 2,
    });
    let id = service.run(&request.to_string());
    service.accepted(&id, 2);
    service.post(&format!("/v1/hammer/job.stop?id={id}"), None);
    // The messages under way have seconds to go.
    let run = |command, ids: &[&str]| Process::run(timecop().arg(command).args(ids).args(["--api", &service.api]));
    for (command, ids) in [("merge", vec![&*id]), ("compare", vec![&*id, &*id])] {
        let refused = run(command, &ids);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stdout);
        assert!(refused.stderr.contains("one that was stopped and still drains"), "{}", refused.stderr);
    }
    service.ended(&id);
    let merged = run("merge", &[&id]);
    let report: Value = serde_json::from_str(&merged.stdout).unwrap_or_else(|_| panic!("{}", merged.stderr));
    assert_eq!(report["messages"]["asked"], report["messages"]["accepted"], "{report}");
}

/// A job that names no connections gets as many as there may be, not more.
#[test]
fn the_usual_connections_of_an_open_loop_stay_within_the_limit() {
    let service = Service::start("[hammer]\nconnections_max = 20\n");
    let job =
        service.ended(&service.run(r#"{"smtp_connection_type":"plain","msg_size":500,"messages":20,"rate":200}"#));
    assert_eq!(job["result"]["connections"]["asked"], 20, "{job}");
}

#[test]
fn a_job_is_given_up_when_too_many_messages_fail() {
    let service = Service::start("");
    let sink = Sink::start(&["--reply", "rcpt=550"]);
    let target = format!("smtp://127.0.0.1:{}", sink.port());
    let request = json!({
        "smtp_connection_type": "plain",
        "target": target,
        "msg_size": 500,
        "duration": "1h",
        "rate": 100,
        "abort_on": { "failure_rate": 0.05, "window": "1s", "grace": "0s" },
    });
    let job = service.ended(&service.run(&request.to_string()));
    assert_eq!(job["state"], "failed", "{job}");
    let why = job["result"]["aborted"].as_str().expect("a reason");
    assert!(why.starts_with("failures>0.05,window=1s,grace=0s: failures is 100.0 %"), "{why}");

    let mut command = timecop();
    command.args(["job", "run", &target, "-d", "1h", "--rate", "100", "--wait"]).env("TIMECOP_API", &service.api);
    let ran = Process::run(command.args(["--abort-on", "failures>5%,window=1s,grace=0s"]));
    assert_eq!(ran.status.code(), Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("job 2, failed") && ran.stdout.contains("failures>5%"), "{}", ran.stdout);
}

/// Requests made up from the API's own description: each must be answered as it says.
#[test]
fn the_api_answers_as_its_description_says() {
    let service = Service::start(
        "[hammer]\nduration_max = \"2s\"\nmessages_max = 1000\nmsg_size_max = 10000\nconnections_max = 200\n",
    );
    let mut schemathesis = python();
    schemathesis.args(["-m", "schemathesis.cli"]);
    schemathesis.args(["run", &format!("{}/openapi.json", service.api)]);
    schemathesis.args(["--checks", "all", "--max-examples", "60", "--seed", "7", "--no-color"]);
    // Rules between fields, and the caps of a configuration, cannot stand in a schema.
    let rules =
        "[checks.positive_data_acceptance]\nexpected-statuses = [\"2xx\", \"401\", \"404\", \"422\", \"429\"]\n";
    std::fs::write(service.folder().join("schemathesis.toml"), rules).expect("a file can be written");
    schemathesis.env("NO_PROXY", "*").current_dir(service.folder());
    let finished = Process::run(&mut schemathesis);
    assert!(finished.status.success(), "{}\n{}", finished.stdout, finished.stderr);
    assert_eq!(service.get("/healthz").0, 200);
}

#[test]
fn a_job_over_tls_verifies_the_certificate_unless_it_is_told_not_to() {
    let service = Service::start("");
    let request = r#"{"smtp_connection_type":"starttls","msg_size":500,"messages":3"#;
    let refused = service.post("/v1/hammer/job.run", Some(&format!("{request}}}")));
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.reason().starts_with("skip_verify: expected true"), "{refused:?}");
    let job = service.ended(&service.run(&format!("{request},\"skip_verify\":true}}")));
    assert_eq!(job["result"]["messages"]["accepted"], 3, "{job}");
    assert_eq!(job["result"]["tls"]["full"], 1, "{job}");
    assert!(job["result"]["notes"][0].as_str().expect("a note").contains("NOT VERIFIED"), "{job}");

    // A URL is verified by the system's issuers, none of which has signed our sink's certificate.
    let target = service.sink.replace("smtp://", "smtp+starttls://");
    let unsigned = service.run(&format!("{request},\"target\":\"{target}\"}}"));
    let job = service.ended(&unsigned);
    assert_eq!(
        (&job["result"]["messages"]["accepted"], &job["result"]["messages"]["failed"]),
        (&json!(0), &json!(3)),
        "{job}"
    );
    assert_eq!(job["result"]["errors"][0]["kind"], "certificate", "{job}");
}
