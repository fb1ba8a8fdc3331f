//! The stub of Mailgun's API against Mailgun's own clients and curl, and what HTTP asks for beside that.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Certificate, Finished, Nginx, Process, Sink, node, python, script};

/// A file with the key `right`, that its owner alone may read.
fn key_file(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("key");
    fs::write(&path, "right\n").expect("a file can be written");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("it is ours");
    path
}

fn with_key(folder: &tempfile::TempDir) -> Sink {
    Sink::http("", &["--http-key-file", key_file(folder).to_str().expect("a plain name")])
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Mailgun's description of its API, where it was put beside the repository.
fn openapi() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mailgun-messages.openapi.json");
    let path = std::env::var_os("MAILGUN_OPENAPI").map_or(beside, PathBuf::from);
    path.exists().then_some(path)
}

#[test]
fn mailguns_python_client_understands_the_stub() {
    let folder = tempfile::tempdir().unwrap();
    let sink = with_key(&folder);
    let url = format!("http://127.0.0.1:{}", sink.port());
    python_client(&mut python(), &url, sink);
}

#[test]
fn mailguns_python_client_reaches_the_stub_through_nginx_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, certificate) = (with_key(&folder), Certificate::of(&["127.0.0.1"]));
    let nginx = Nginx::before(&certificate, sink.port());
    let trusts = ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"].map(|name| (name, certificate.file()));
    let mut command = python();
    command.envs(trusts);
    python_client(&mut command, &nginx.secured_url(""), sink);
    assert_eq!(nginx.stop().len(), 8);
}

/// Mailgun's client in this Python, all of whose calls must be answered as Mailgun would, and be known to the sink.
fn python_client(command: &mut Command, url: &str, sink: Sink) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let results = folder.path().join("results");
    command.arg(script("mailgun_client.py")).args([url, "right"]).arg(&results);
    let openapi = openapi();
    match &openapi {
        Some(path) => command.arg(path),
        None => {
            println!("not validated: no MAILGUN_OPENAPI, which names Mailgun's OpenAPI file");
            &mut *command
        }
    };
    let finished = Process::run(command);
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let calls = objects(&fs::read_to_string(results).expect("it wrote results"));
    let refused = |text: &str| (400, json!({ "message": text }));
    let expected = [
        refused("from parameter is missing"),
        refused("to parameter is not a valid address. please check documentation"),
        refused("'recipient-variables' parameter is not a valid JSON"),
        refused("'message' parameter is not a file"),
        (401, json!("Forbidden")),
    ];
    let mut ids = Vec::new();
    for call in &calls[..3] {
        assert_eq!(
            (&call["status"], &call["content"]["message"]),
            (&200.into(), &"Queued. Thank you.".into()),
            "{call}"
        );
        let id = call["content"]["id"].as_str().expect("an id");
        assert!(id.starts_with('<') && id.ends_with("@example.com>") && !ids.contains(&id), "{id}");
        ids.push(id);
    }
    let rest: Vec<(u64, Value)> =
        calls[3..].iter().map(|call| (call["status"].as_u64().expect("a status"), call["content"].clone())).collect();
    assert_eq!(rest, expected);
    assert!(openapi.is_none() || calls.iter().all(|call| call["validated"] == true), "{calls:?}");
    let report = sink.stop();
    let http = &report["http"];
    assert_eq!(
        (&http["messages"], &http["recipients"], &http["errors"]),
        (&3.into(), &7.into(), &0.into()),
        "{report}"
    );
    assert_eq!(http["statuses"], json!({ "200": 3, "400": 4, "401": 1 }), "{report}");
    assert!(http["bytes"].as_u64() > Some(512_000), "{report}");
    assert_eq!(report["messages"], 0, "nothing came by SMTP: {report}");
}

#[test]
fn mailguns_client_for_nodejs_understands_the_stub() {
    let folder = tempfile::tempdir().unwrap();
    let sink = with_key(&folder);
    let url = format!("http://127.0.0.1:{}", sink.port());
    node_client(&mut node("mailgun_client.js"), &url, sink);
}

#[test]
fn mailguns_client_for_nodejs_reaches_the_stub_through_nginx_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (sink, certificate) = (with_key(&folder), Certificate::of(&["127.0.0.1"]));
    let nginx = Nginx::before(&certificate, sink.port());
    let mut command = node("mailgun_client.js");
    command.env("NODE_EXTRA_CA_CERTS", certificate.file());
    node_client(&mut command, &nginx.secured_url(""), sink);
    assert_eq!(nginx.stop().len(), 5);
}

/// The same for Node.js.
fn node_client(command: &mut Command, url: &str, sink: Sink) {
    let finished = Process::run(command.args([url, "right"]));
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    let calls = objects(&finished.stdout);
    assert_eq!(calls.len(), 5, "{calls:?}");
    for call in &calls[..3] {
        assert_eq!((&call["status"], &call["message"]), (&200.into(), &"Queued. Thank you.".into()), "{call}");
    }
    assert_eq!(calls[3]["status"], 400, "{calls:?}");
    let text = "to parameter is not a valid address. please check documentation";
    assert!(calls[3]["details"].as_str().expect("details").contains(text), "{calls:?}");
    assert_eq!(calls[4]["status"], 401, "{calls:?}");
    assert_eq!(sink.stop()["http"]["messages"], 3);
}

/// curl with `options`; what it was answered is followed by the status on a line of its own.
fn curl(sink: &Sink, scheme: &str, options: &[&str]) -> Finished {
    let url = format!("{scheme}127.0.0.1:{}/v3/example.com/messages", sink.port());
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--user", "api:key", "--write-out", "\n%{http_code}\n", &url]);
    Process::run(command.args(options))
}

const FORM: [&str; 6] = ["--data", "from=a@example.com", "--data", "to=b@example.com", "--data", "text=hello"];

#[test]
fn curl_may_frame_a_request_in_every_way() {
    let sink = Sink::http("", &[]);
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    fs::write(&large, "x".repeat(3_000_000)).unwrap();
    let attachment = format!("attachment=@{}", large.display());
    let multipart =
        ["--form", "from=a@example.com", "--form", "to=b@example.com", "--form", "text=hello", "--form", &attachment];
    for (options, wanted) in [
        (FORM.to_vec(), "< HTTP/1.1 200 OK"),
        ([&FORM[..], &["--http1.0"]].concat(), "< Connection: close"),
        ([&FORM[..], &["--header", "Transfer-Encoding: chunked"]].concat(), "< HTTP/1.1 200 OK"),
        ([&FORM[..], &["--header", "Expect: 100-continue"]].concat(), "< HTTP/1.1 100 Continue"),
        (multipart.to_vec(), "< HTTP/1.1 200 OK"),
        ([&multipart[..], &["--header", "Transfer-Encoding: chunked"]].concat(), "< HTTP/1.1 200 OK"),
    ] {
        let finished = curl(&sink, "http://", &[&options[..], &["--verbose"]].concat());
        let shown = format!("{options:?}: {}{}", finished.stdout, finished.stderr);
        assert!(finished.stdout.ends_with("\n200\n") && finished.stderr.contains(wanted), "{shown}");
    }
    let report = sink.stop();
    let http = &report["http"];
    assert_eq!((&http["messages"], &http["errors"]), (&6.into(), &0.into()), "{report}");
}

#[test]
fn what_is_too_large_is_refused_and_the_client_learns_it() {
    let sink = Sink::http("", &["--max-size", "10000"]);
    let folder = tempfile::tempdir().unwrap();
    let [message, request] = ["message", "request"].map(|name| folder.path().join(name));
    fs::write(&message, "x".repeat(20_000)).unwrap();
    fs::write(&request, vec![b'x'; 60 << 20]).unwrap();
    for path in [message, request] {
        for header in ["X-A: b", "Transfer-Encoding: chunked", "Expect:"] {
            let attachment = format!("attachment=@{}", path.display());
            let mut options = vec!["--header", header, "--form", &attachment];
            for field in ["from=a@example.com", "to=b@example.com", "text=hello"] {
                options.extend(["--form", field]);
            }
            let finished = curl(&sink, "http://", &options);
            let shown = format!("{header}: {}{}", finished.stdout, finished.stderr);
            assert!(finished.status.success() && finished.stdout.ends_with("\n413\n"), "{shown}");
        }
    }
    assert_eq!(sink.stop()["http"]["messages"], 0);
}

#[test]
fn the_stub_speaks_tls_and_http_1_1_alone() {
    let sink = Sink::http("https://", &[]);
    for options in [&["--insecure"][..], &["--insecure", "--no-alpn"], &["--insecure", "--http1.1"]] {
        let finished = curl(&sink, "https://", &[&FORM[..], options].concat());
        assert!(finished.stdout.ends_with("\n200\n"), "{options:?}: {}{}", finished.stdout, finished.stderr);
    }
    let report = sink.stop();
    assert_eq!((&report["http"]["messages"], &report["http"]["tls_handshakes"]), (&3.into(), &3.into()), "{report}");
}

#[test]
fn the_stub_answers_429_above_its_rate() {
    let sink = Sink::http("", &["--http-rate", "0.01/s"]);
    assert!(curl(&sink, "http://", &FORM).stdout.ends_with("\n200\n"));
    let finished = curl(&sink, "http://", &[&FORM[..], &["--include"]].concat());
    for wanted in ["\nRetry-After: ", "\nX-RateLimit-Reset: ", "try again after ", "\n429\n"] {
        assert!(finished.stdout.contains(wanted), "{}{}", finished.stdout, finished.stderr);
    }
    assert_eq!(sink.stop()["http"]["statuses"], json!({ "200": 1, "429": 1 }));
}

#[test]
fn smtp_and_http_are_served_beside_each_other() {
    let sink = Sink::start(&["--http", "127.0.0.1:0", "--accept-domain", "example.org"]);
    let other = sink.stop();
    assert_eq!((&other["messages"], &other["http"]["messages"]), (&0.into(), &0.into()), "{other}");
    let none = Sink::start(&[]);
    assert!(none.stop().get("http").is_none());
}

#[test]
fn the_stub_does_not_pretend_to_save_what_it_keeps_nothing_of() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().expect("a plain name");
    let finished = Process::run(crate::support::timecop().args(["sink", "--http", "127.0.0.1:0", "--save", folder]));
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("--save: expected --listen beside it"), "{}", finished.stderr);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let sink = Sink::http("", &[]);
    let mut stream = TcpStream::connect(("127.0.0.1", sink.port())).unwrap();
    let mut request = |path: &str, more: &str| {
        let text = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YXBpOmtleQ==\r\n{more}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 22\r\n\r\nfrom=a@x&to=b@x&text=t"
        );
        stream.write_all(text.as_bytes()).unwrap();
    };
    for _ in 0..10 {
        request("/v3/one.example/messages", "");
        request("/nothing", "");
        request("/v3/two.example/messages", "");
    }
    request("/v3/three.example/messages", "Connection: close\r\n");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let found: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| ["@one", "@two", "@three", "404"].into_iter().find(|of| answer.contains(of)).unwrap())
        .collect();
    assert_eq!(found, [["@one", "404", "@two"].repeat(10), vec!["@three"]].concat());
    assert_eq!(sink.stop()["http"]["connections"], 1);
}
