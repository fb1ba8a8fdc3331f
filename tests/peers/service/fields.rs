//! Each field of a job's request, as a real peer sees it: aiosmtpd, what parses its messages behind an API by HTTP, or a
//! server of the test's own. A wrong value for each stands in `every_key_takes_its_kind_of_value_and_no_other` of the
//! request itself, and in its neighbours here for what only the service knows.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Aiosmtpd, Process, Scripted, Service, python, script};

/// What came of a job: the job as the service shows it at its end, and what its peer says.
type Check = fn(&Value, &Value) -> bool;

/// Fields that aiosmtpd sees: what is asked for beside the usual request, and what must be so then.
const SEEN: &[(&str, &str, Check)] = &[
    ("target", "{}", |_, peer| peer["messages"] == 4),
    ("smtp_connection_type", "{}", |job, peer| {
        job["result"].get("tls").is_none_or(Value::is_null) && peer["messages"] == 4
    }),
    ("Type", r#"{"Type":"smtp"}"#, |job, peer| job["result"]["spec"]["type"] == "smtp" && peer["messages"] == 4),
    ("msg_size", r#"{"msg_size":701}"#, |_, peer| peer["sizes"] == json!({ "701": 4 })),
    ("connections", r#"{"connections":3,"messages":60}"#, |_, peer| peer["sessions"] == 3 && peer["messages"] == 60),
    ("body", r#"{"msg_size":null,"body":"From: <a@example.com>\nSubject: S\n\nHello\n"}"#, |_, peer| {
        peer["shown"][0]["subject"] == "S" && peer["shown"][0]["body"] == "Hello\n"
    }),
    ("subject", r#"{"subject":"Tanstaafl, Jörg"}"#, |_, peer| peer["shown"][0]["subject"] == "Tanstaafl, Jörg"),
    ("text", r#"{"msg_size":null,"text":"Grüße\n"}"#, |_, peer| peer["shown"][0]["text"] == "Grüße\r\n"),
    ("html", r#"{"msg_size":null,"html":"<p>Grüße</p>\n"}"#, |_, peer| {
        peer["shown"][0]["html"] == "<p>Grüße</p>\r\n"
    }),
    (
        "recipient_variables",
        r#"{"msg_size":null,"text":"%recipient.first%\n","recipient_variables":"{\"load@example.com\":{\"first\":\"Al\"}}"}"#,
        |_, peer| {
            let message = &peer["shown"][0];
            message["variables"].as_str().is_some_and(|field| field.contains("Al"))
                && message["to_raw"] == "%recipient%"
        },
    ),
    (
        "expand",
        r#"{"msg_size":null,"text":"%recipient.first%\n","expand":true,"recipient_variables":"{\"load@example.com\":{\"first\":\"Al\"}}"}"#,
        |_, peer| peer["shown"][0]["text"] == "Al\r\n" && peer["shown"][0]["variables"].is_null(),
    ),
    ("messages", r#"{"messages":9}"#, |job, peer| peer["messages"] == 9 && job["result"]["messages"]["asked"] == 9),
    ("recipients", r#"{"recipients":["b@example.com","u{1..3}@example.com"]}"#, |_, peer| {
        let once = ["b", "u1", "u2", "u3"].map(|local| (format!("{local}@example.com"), json!(1)));
        peer["recipient_addresses"] == Value::Object(once.into_iter().collect())
    }),
    (
        "recipient_order",
        r#"{"recipients":["u{1..1000000}@example.com"],"recipient_order":"random","seed":1}"#,
        |_, peer| {
            let seen = peer["recipient_addresses"].as_object().expect("an object");
            seen.len() == 4 && !(1..=4).all(|n| seen.contains_key(&format!("u{n}@example.com")))
        },
    ),
    ("from", r#"{"from":"sender@example.org"}"#, |_, peer| peer["senders"] == json!({ "sender@example.org": 4 })),
    ("rate", r#"{"rate":50,"arrival":"constant","connections":2}"#, |job, peer| {
        job["result"]["spec"]["rate"] == 50.0 && peer["messages"] == 4
    }),
    ("arrival", r#"{"rate":50,"arrival":"constant","connections":2,"messages":5}"#, |job, peer| {
        job["result"]["spec"]["arrival"] == "constant" && peer["messages"] == 5
    }),
    ("duration", r#"{"messages":null,"duration":"1s","rate":20,"arrival":"constant","connections":2}"#, |job, peer| {
        (19..=21).contains(&peer["messages"].as_u64().expect("a count"))
            && job["result"]["messages"]["accepted"] == peer["messages"]
    }),
    (
        "stages",
        r#"{"messages":null,"stages":[{"duration":"1s","rate":20}],"arrival":"constant","connections":2}"#,
        |job, peer| {
            // A triangle: half of what a whole second at the last rate would be.
            (9..=11).contains(&peer["messages"].as_u64().expect("a count"))
                && job["result"]["messages"]["accepted"] == peer["messages"]
        },
    ),
    ("warmup", r#"{"messages":7,"warmup":{"messages":3}}"#, |job, peer| {
        peer["messages"] == 7 && job["result"]["messages"]["accepted"] == 4
    }),
    ("recipients_per_message", r#"{"recipients":["u{1..9}@example.com"],"recipients_per_message":3}"#, |_, peer| {
        peer["recipients_per_message"] == json!({ "3": 4 })
    }),
    ("messages_per_connection", r#"{"messages_per_connection":2}"#, |_, peer| peer["sessions"] == 2),
    ("shards", r#"{"shards":1,"connections":2}"#, |job, peer| {
        job["result"]["generator"]["shards"] == 1 && peer["messages"] == 4
    }),
    (
        "seed",
        r#"{"seed":77,"msg_size":[{"bytes":700,"weight":1},{"bytes":900,"weight":1}],"messages":40}"#,
        |job, peer| {
            let sizes = peer["sizes"].as_object().expect("an object");
            job["result"]["seed"] == 77 && sizes.len() == 2
        },
    ),
];

/// Fields that are seen on the wire by another test, which is named: its file, and it.
const SEEN_ELSEWHERE: &[(&str, &str, &str)] = &[
    ("skip_verify", include_str!("api.rs"), "a_job_over_tls_verifies_the_certificate_unless_it_is_told_not_to"),
    (
        "auth",
        include_str!("../auth.rs"),
        "a_job_of_the_service_logs_in_by_its_target_and_leaves_no_trace_of_the_password",
    ),
    ("abort_on", include_str!("api.rs"), "a_job_is_given_up_when_too_many_messages_fail"),
    ("fail_if", include_str!("api.rs"), "load_control_is_the_same_by_request_and_by_command_line"),
    ("audit", include_str!("../audit.rs"), "a_job_of_the_service_is_held_against_its_own_sink"),
    ("search", include_str!("search.rs"), "a_search_shows_its_trials_live_and_finds_the_capacity_of_a_sink"),
    ("options", include_str!("fields.rs"), "the_options_of_a_request_by_http_arrive"),
    ("pipelining", include_str!("fields.rs"), "pipelining_is_used_unless_the_request_says_off"),
    ("timeout", include_str!("fields.rs"), "a_server_that_says_nothing_is_given_up_in_the_requests_time"),
];

/// The usual request with what `change` says otherwise.
fn request(target: &str, change: &str) -> String {
    let mut request = json!({ "smtp_connection_type": "plain", "target": target, "messages": 4, "msg_size": 600 });
    let change: Value = serde_json::from_str(change).expect("JSON");
    for (key, value) in change.as_object().expect("an object") {
        request[key] = value.clone();
    }
    request.to_string()
}

#[test]
fn each_field_of_a_request_is_seen_on_the_wire() {
    let service = Service::start("");
    let description: Value = serde_json::from_str(&service.get("/openapi.json").1).expect("JSON");
    let properties = description["components"]["schemas"]["JobRequest"]["properties"].as_object().expect("an object");
    let known: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
    let seen: Vec<&str> = SEEN.iter().map(|row| row.0).chain(SEEN_ELSEWHERE.iter().map(|row| row.0)).collect();
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), known, "every field of the description");
    assert_eq!(seen.len(), known.len(), "each stands once");
    for (field, file, test) in SEEN_ELSEWHERE {
        assert!(file.contains(&format!("#[test]\nfn {test}()")), "{field}: there is no {test} any more");
    }
    for (field, change, is_so) in SEEN {
        let server = Aiosmtpd::showing();
        let job = service.ended(&service.run(&request(&format!("smtp://127.0.0.1:{}", server.port()), change)));
        let peer = server.stop();
        assert_eq!(job["state"], "finished", "{field}: {job}");
        assert!(is_so(&job, &peer), "{field}: {job}\n{peer}");
    }
}

#[test]
fn the_options_of_a_request_by_http_arrive() {
    let (service, server) = (Service::start(""), Aiosmtpd::showing());
    let mut api = Process::start(python().arg(script("mailgun_relay.py")).arg(server.port().to_string()));
    let port: u16 = api.wait_line("listening on ")["listening on ".len()..].parse().expect("a port");
    let request = json!({
        "Type": "http", "target": format!("http://127.0.0.1:{port}/v3/example.com"), "messages": 3,
        "text": "Hello\n", "subject": "Hi", "options": { "h:X-Mark": "a & b = 100 %, Jörg", "o:tag": "load" },
    });
    let job = service.ended(&service.run(&request.to_string()));
    assert_eq!(job["result"]["messages"]["accepted"], 3, "{job}");
    let report = server.stop();
    assert_eq!(report["messages"], 3, "{report}");
    for message in report["shown"].as_array().expect("messages are shown") {
        assert_eq!((&message["subject"], &message["text"]), (&json!("Hi"), &json!("Hello\r\n")), "{message}");
        let raw = message["raw"].as_str().expect("a text");
        assert!(raw.contains("X-Mark: a & b = 100 %,"), "{raw}");
    }
}

#[test]
fn pipelining_is_used_unless_the_request_says_off() {
    let service = Service::start("");
    for (pipelining, together) in [("auto", true), ("off", false)] {
        let server = Scripted::start(true);
        let target = format!("smtp://127.0.0.1:{}", server.port());
        let change = json!({ "pipelining": pipelining }).to_string();
        let job = service.ended(&service.run(&request(&target, &change)));
        assert_eq!(job["result"]["messages"]["accepted"], 4, "{job}");
        let groups = server.groups();
        let is_envelope = |group: &Vec<String>| ["MAIL", "RCPT"].iter().all(|verb| group.iter().any(|has| has == verb));
        assert_eq!(groups.iter().any(is_envelope), together, "{pipelining}: {groups:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_the_requests_time() {
    let service = Service::start("");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("smtp://{}", silent.local_addr().expect("it has one"));
    // Without it a greeting has five minutes, which are more than this test has.
    let change = r#"{"messages":1,"timeout":{"default":"1h","banner":"100ms"}}"#;
    let job = service.ended(&service.run(&request(&target, change)));
    assert_eq!(job["result"]["messages"]["failed"], 1, "{job}");
    assert_eq!(
        (&job["result"]["errors"][0]["kind"], &job["result"]["errors"][0]["phase"]),
        (&json!("timeout"), &json!("banner")),
        "{job}"
    );
}

const VARIABLES: &str =
    r#"{"load@example.com":{"long":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#;

#[test]
fn messages_that_variables_make_larger_than_may_be_are_refused() {
    let service = Service::start("[hammer]\nmsg_size_max = 1000\n");
    let asked = |text: &str| {
        let change = json!({ "msg_size": null, "text": text, "expand": true, "recipient_variables": VARIABLES });
        service.post("/v1/hammer/job.run", Some(&request(&service.sink, &change.to_string())))
    };
    let text = "%recipient.long%\n";
    let refused = asked(&text.repeat(20));
    assert_eq!(refused.status, 422, "{refused:?}");
    let words =
        "recipient_variables: expected messages of at most 1000 octets once variables are replaced (msg_size_max";
    assert!(refused.reason().starts_with(words), "{refused:?}");
    let taken = asked(text);
    assert_eq!(taken.status, 200, "{taken:?}");
    // Without variables in it the text alone counts.
    let refused = asked(&"x\n".repeat(600));
    assert!(refused.status == 422 && refused.reason().contains("msg_size_max"), "{refused:?}");
}

#[test]
fn recipients_without_variables_are_counted_in_a_note() {
    let (service, server) = (Service::start(""), Aiosmtpd::showing());
    let target = format!("smtp://127.0.0.1:{}", server.port());
    let noted = |recipients: &[&str], expand: bool| {
        let change = json!({
            "msg_size": null, "text": "Hi %recipient.long%\n", "recipients": recipients, "expand": expand,
            "recipient_variables": VARIABLES,
        });
        service.ended(&service.run(&request(&target, &change.to_string())))["result"]["notes"].to_string()
    };
    let note =
        "2 of 3 recipients have no recipient variables: in their messages %recipient.NAME% stays as it is written";
    let some = ["load@example.com", "u{1..2}@example.com"];
    for expand in [true, false] {
        let notes = noted(&some, expand);
        assert!(notes.contains(note), "{expand}: {notes}");
    }
    let notes = noted(&["load@example.com"], true);
    assert!(!notes.contains("no recipient variables"), "{notes}");
    let report = server.stop();
    let stays = report["shown"].as_array().expect("messages are shown").iter().filter(|message| {
        message["recipients"][0] != "load@example.com" && message["text"] == "Hi %recipient.long%\r\n"
    });
    assert!(stays.count() >= 4, "{report}");
}
