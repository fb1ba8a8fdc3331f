//! Jobs by HTTP through the service: to its own stub, and to configured targets.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Service, Sink, text};

/// A file with the key `right`, that its owner alone may read.
fn key_file(folder: &Path) -> PathBuf {
    let path = folder.join("key");
    fs::write(&path, "right\n").expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

/// Runs a job to its end, all of whose messages must be accepted.
fn accepted(service: &Service, request: &Value, messages: u64) -> Value {
    let job = service.ended(&service.run(&request.to_string()));
    assert_eq!(
        (&job["state"], &job["result"]["messages"]["accepted"]),
        (&json!("finished"), &json!(messages)),
        "{job}"
    );
    assert_eq!(job["result"]["spec"]["type"], request["Type"], "{job}");
    job
}

fn counted(service: &Service, sample: &str) -> u64 {
    let text = service.get("/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in {text}")).parse().expect("a number")
}

#[test]
fn without_a_target_jobs_go_to_the_stub_of_the_service() {
    let service = Service::start("");
    for (kind, messages) in [("http", 300), ("http.mime", 200)] {
        let request = json!({ "Type": kind, "messages": messages, "connections": 4, "msg_size": 2_000 });
        let job = accepted(&service, &request, messages);
        assert_eq!(job["job"], request);
        assert_eq!(job["result"]["replies"][0]["example"], "Queued. Thank you.", "{job}");
        let sample = format!("timecop_hammer_messages_total{{type=\"{kind}\",outcome=\"accepted\"}}");
        assert_eq!(counted(&service, &sample), messages);
    }
    assert_eq!(counted(&service, r#"timecop_hammer_messages_total{type="smtp",outcome="accepted"}"#), 0);
}

#[test]
fn a_configured_target_has_the_key_and_any_api_its_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key = key_file(folder.path());
    let sink = Sink::http("", &["--http-key-file", text(&key)]);
    let data = folder.path().join("mail.form");
    fs::write(&data, "from=me@example.com&to=%recipient%&subject=Hi&text=Hello").expect("a file can be written");
    let (url, key, data) = (format!("http://127.0.0.1:{}/v3/example.com", sink.port()), key.display(), data.display());
    let service = Service::start(&format!(
        "[targets.mailgun]\nurl = \"{url}\"\nuser = \"api\"\npassword_file = \"{key}\"\n\
         [targets.raw]\nurl = \"{url}/messages\"\ndata_file = \"{data}\"\n\
         headers = [\"Content-Type: application/x-www-form-urlencoded\", \"Authorization: Basic YXBpOnJpZ2h0\"]\n"
    ));
    let by_key = json!({
        "Type": "http", "target": "mailgun", "auth": true, "messages": 20, "connections": 2, "subject": "Hi",
        "text": "Hello %recipient.first%", "recipients": ["a@example.com", "b@example.com"],
        "options": { "o:testmode": "yes", "h:Reply-To": "me@example.com" },
        "recipient_variables": r#"{"a@example.com":{"first":"Al"}}"#,
    });
    let job = accepted(&service, &by_key, 20);
    // A value may be a key.
    assert_eq!(job["job"]["options"]["o:testmode"]["bytes"], 3, "{job}");
    assert!(!job.to_string().contains("me@example.com"), "{job}");
    assert_eq!(job["result"]["spec"]["http"]["options"], json!(["h:Reply-To", "o:testmode"]), "{job}");
    accepted(
        &service,
        &json!({ "Type": "http.mime", "target": "mailgun", "auth": true, "messages": 5, "msg_size": 900 }),
        5,
    );
    let job = accepted(&service, &json!({ "Type": "http.raw", "target": "raw", "messages": 10 }), 10);
    assert!(!job.to_string().contains("YXBp"), "{job}");
    // Without its key the target's answer is an outcome like any other.
    let refused = json!({ "Type": "http", "target": "mailgun", "messages": 3, "msg_size": 500 });
    let job = service.ended(&service.run(&refused.to_string()));
    assert_eq!(job["result"]["messages"]["rejected"], 3, "{job}");
    assert_eq!(job["result"]["replies"][0]["code"], 401, "{job}");
    let report = sink.stop();
    assert_eq!(report["http"]["messages"], 35, "{report}");
}

#[test]
fn a_wrong_value_names_its_field() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("mail.json");
    fs::write(&data, "{}").expect("a file can be written");
    let service = Service::start(&format!(
        "[targets.api]\nurl = \"http://127.0.0.1:1/a\"\n[targets.raw]\nurl = \"http://127.0.0.1:1/a\"\ndata_file = \"{}\"\n\
         [targets.mail]\nurl = \"smtp://127.0.0.1:1\"\n",
        data.display()
    ));
    for (request, named) in [
        (r#""Type":"http.form","msg_size":500"#, "Type: expected smtp, http, http.mime or http.raw"),
        (r#""Type":"http""#, "msg_size: expected either"),
        (r#""Type":"http","msg_size":1"#, "msg_size: expected"),
        (r#""Type":"http","msg_size":500,"auth":true"#, "auth: expected a target with user and password_file"),
        (r#""Type":"http","msg_size":500,"target":"api","auth":true"#, "auth: expected a target with user"),
        (r#""Type":"http","msg_size":500,"target":"mail""#, "target: expected http:// or https://"),
        (r#""Type":"http","msg_size":500,"target":"smtp://127.0.0.1""#, "target: expected http:// or https://"),
        (
            r#""Type":"http.mime","msg_size":500,"target":"http://127.0.0.1:1/a?b""#,
            "target: expected a URL without a query",
        ),
        (
            r#""Type":"http","msg_size":500,"target":"http://192.0.2.1/a""#,
            "target: expected a host inside of allow_targets",
        ),
        (r#""Type":"http","msg_size":500,"target":"raw""#, "target: expected a target without data_file"),
        (r#""Type":"http.raw""#, "target: expected the name of a configured target with a data_file"),
        (r#""Type":"http.raw","target":"api""#, "target: expected the name of a configured target with a data_file"),
        (r#""Type":"http.raw","target":"http://127.0.0.1:1/a""#, "target: expected the name of a configured target"),
        (r#""Type":"http","msg_size":500,"options":{"tag":"a"}"#, "options: expected an object"),
        (r#""Type":"http.raw","target":"raw","options":{"o:tag":"a"}"#, "options: expected type http or http.mime"),
        (
            r#""smtp_connection_type":"plain","msg_size":500,"options":{"o:tag":"a"}"#,
            "options: expected a type by HTTP",
        ),
        (r#""smtp_connection_type":"plain","msg_size":500,"target":"api""#, "target: expected smtp://"),
    ] {
        let answer = service.post("/v1/hammer/job.run", Some(&format!("{{{request}}}")));
        assert_eq!(answer.status, 422, "{request}: {answer:?}");
        assert!(answer.reason().starts_with(named), "{request}: {answer:?}");
    }
    assert_eq!(service.post("/v1/hammer/job.list", None).body, json!({ "Items": [] }));
}
