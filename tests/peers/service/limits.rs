//! Who may ask, and for how much.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use crate::support::{Finished, Process, Service, Sink, agent, timecop};

const SHORT: &str = r#"{"smtp_connection_type":"plain","msg_size":500,"messages":100}"#;

#[test]
fn foreign_pages_hosts_and_bodies_are_kept_out() {
    let service = Service::start("[api]\nhosts = [\"timecop.example.com\"]\n");
    let run = |headers: &[(&str, &str)]| {
        let mut request = agent().post(format!("{}/v1/hammer/job.run", service.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send(SHORT).expect("the service answers").status().as_u16()
    };
    let json = ("Content-Type", "application/json");
    assert_eq!(run(&[json, ("Host", "timecop.example.com")]), 200);
    assert_eq!(run(&[json, ("Host", "localhost:8025"), ("Origin", "http://localhost:8025")]), 200);
    assert_eq!(run(&[json, ("Origin", "http://timecop.example.com")]), 200);
    assert_eq!(run(&[json, ("Origin", "http://localhost:3000")]), 403, "another program's page on this machine");
    assert_eq!(run(&[json, ("Host", "attacker.example")]), 403);
    assert_eq!(run(&[json, ("Origin", "https://attacker.example")]), 403);
    assert_eq!(run(&[json, ("Origin", "null")]), 403);
    assert_eq!(run(&[("Content-Type", "text/plain")]), 415);
    assert_eq!(run(&[]), 415);
}

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    fs::write(&file, "correct-horse-battery-staple\n").expect("a file can be written");
    let service = Service::start(&format!("[api]\ntoken_file = \"{}\"\n", file.display()));
    let list = |token: Option<&str>| {
        let mut request = agent().post(format!("{}/v1/hammer/job.list", service.api));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.send_empty().expect("the service answers").status().as_u16()
    };
    assert_eq!(list(None), 401);
    assert_eq!(list(Some("correct-horse-battery-stapl")), 401);
    assert_eq!(list(Some("correct-horse-battery-staple")), 200);
    assert_eq!(service.get("/healthz").0, 200);
    assert_eq!((service.get("/metrics").0, service.get("/openapi.json").0), (401, 401));
    let listed = Process::run(timecop().args(["job", "list", "--api", &service.api, "--token-file"]).arg(&file));
    assert_eq!(listed.status.code(), Some(0), "{}", listed.stderr);
    service.signal("TERM");
    let ended = service.finish();
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("correct-horse"), "{}", ended.stderr);
}

#[test]
fn other_addresses_need_a_token() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("timecop.toml");
    fs::write(&file, "[api]\nlisten = [\"0.0.0.0:0\"]\n").expect("a file can be written");
    for command in ["serve", "check"] {
        let Finished { status, stderr, stdout } = Process::run(timecop().arg(command).arg("--config").arg(&file));
        assert_eq!(status.code(), Some(2), "{command}: {stderr}");
        let said = format!("{stdout}{stderr}");
        assert!(said.contains("token_file") && said.contains("timecop.toml"), "{command}: {said}");
    }
}

#[test]
fn jobs_and_connections_at_once_are_bounded() {
    let service = Service::start("[hammer]\njobs_max = 2\nconnections_max = 50\n");
    let endless = r#"{"smtp_connection_type":"plain","msg_size":500,"duration":"1h","rate":10,"connections":30}"#;
    let first = service.run(endless);
    let many = service.post("/v1/hammer/job.run", Some(endless));
    assert_eq!(many.status, 429, "{many:?}");
    assert!(many.reason().contains("connections_max"), "{many:?}");
    service.run(SHORT);
    service.accepted(&first, 1);
    service.post(&format!("/v1/hammer/job.stop?id={first}"), None);
    service.ended(&first);
    service.ended(&service.run(&endless.replace("1h", "1s")));
}

#[test]
fn a_body_beyond_the_cap_is_not_read() {
    let service = Service::start("[api]\nbody_bytes_max = 1000\n");
    let address = service.api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the service listens");
    let head = format!(
        "POST /v1/hammer/job.run HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it can be written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it is answered and closed");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_bytes_max"), "{answer}");
}

#[test]
fn large_requests_keep_nobody_else_waiting() {
    let service = Service::start("");
    let address = service.api.trim_start_matches("http://");
    // A line that is too long is refused only after the request was read to its end.
    let body = format!(r#"{{"smtp_connection_type":"plain","body":"{}"}}"#, r"\u0041".repeat(2 << 20));
    let mut large: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).expect("it listens")).collect();
    let head = format!(
        "POST /v1/hammer/job.run HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (most, last) = body.split_at(body.len() - 1);
    for stream in &mut large {
        stream.write_all(head.as_bytes()).expect("it can be written");
        stream.write_all(most.as_bytes()).expect("it can be written");
    }
    assert_eq!(service.get("/healthz").0, 200);
    for stream in &mut large {
        stream.write_all(last.as_bytes()).expect("it can be written");
    }
    assert_eq!(service.get("/healthz").0, 200);
    let answered = |stream: &&TcpStream| {
        stream.set_nonblocking(true).expect("a socket can be told so");
        stream.peek(&mut [0]).is_ok()
    };
    assert_eq!(large.iter().filter(answered).count(), 0, "others are answered while a large request is read");
    for mut stream in large {
        stream.set_nonblocking(false).expect("a socket can be told so");
        let mut start = [0; 12];
        stream.read_exact(&mut start).expect("it is answered in the end");
        assert_eq!(start.as_slice(), b"HTTP/1.1 422");
    }
}

#[test]
fn what_is_echoed_and_kept_of_a_request_is_small() {
    let service = Service::start("");
    let variables = format!(r#"{{"a@example.com":{{"text":"{}"}}}}"#, "x".repeat(1_000_000));
    let recipients: Vec<String> = (0..1_000).map(|n| format!("user{n}@example.com")).collect();
    let request = serde_json::json!({
        "smtp_connection_type": "plain", "msg_size": 500, "messages": 3,
        "recipient_variables": variables, "recipients": recipients,
    });
    let job = service.ended(&service.run(&request.to_string()));
    assert_eq!(job["result"]["messages"]["accepted"], 3, "{job}");
    assert!(job["job"].to_string().len() < 1_000, "{}", job["job"]);
    assert_eq!(job["job"]["recipient_variables"]["bytes"], variables.len());
    assert_eq!(job["job"]["recipients"]["count"], 1_000);
}

#[test]
fn two_services_never_share_a_store() {
    let service = Service::start("");
    let config = service.folder().join("timecop.toml");
    let second = Process::run(timecop().arg("serve").arg("--config").arg(config));
    assert_eq!(second.status.code(), Some(2), "{}", second.stderr);
    assert!(second.stderr.contains("jobs.db"), "{}", second.stderr);
}

/// What the command line says to a service that wants a token, and to an address where something else answers.
#[test]
fn a_client_that_asks_wrongly_is_told_by_its_options() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    fs::write(&file, "correct-horse-battery-staple\n").expect("a file can be written");
    let service = Service::start(&format!("[api]\ntoken_file = \"{}\"\n", file.display()));
    let sink = Sink::start(&[]);
    let other = format!("http://127.0.0.1:{}", sink.port());
    let secured = service.api.replace("http://", "https://");
    for (api, expected) in
        [(&*service.api, "--token-file: expected"), (&secured, "write http://"), (&other, "--api names the address")]
    {
        let told = Process::run(timecop().args(["job", "list", "--api", api]));
        assert_eq!(told.status.code(), Some(2), "{}", told.stderr);
        assert!(told.stderr.contains(expected), "{api}: {}", told.stderr);
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let service = Service::start("");
    for command in [&["job", "list"][..], &["job", "list", "--json"], &["job", "run"], &["doctor"]] {
        let mut command_line = timecop();
        command_line.args(command);
        if command[0] == "job" {
            command_line.args(["--api", &service.api]);
        }
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command_line.stdout(writer).stderr(Stdio::piped()).output().expect("timecop starts");
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
