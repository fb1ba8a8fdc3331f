//! Jobs by HTTP against nginx.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::Value;

use crate::support::{Certificate, Hammer, Nginx, Process, Run, Sink, text, timecop};

fn run(url: &str, options: &[&str]) -> Run {
    Hammer::start_at(url, options).finish()
}

#[test]
fn requests_arrive_and_are_answered_over_connections_that_nginx_ends_now_and_then() {
    let nginx = Nginx::start(&Certificate::of(&["127.0.0.1"]));
    let run = run(&nginx.url("/v3/example.com"), &["-m", "1000", "-c", "4"]);
    run.assert_all_accepted(1_000);
    assert_eq!(run.replies("last_byte", 200), 1_000);
    for phase in ["connect", "write", "first_byte", "last_byte"] {
        assert!(run.count(&format!("latency_s.accepted.phases.{phase}.count")) > 0, "{phase} in {}", run.shown());
    }
    assert!(run.count("connections.opened") >= 10, "nginx ends a connection after 100 requests: {}", run.shown());
    assert_eq!(run.report["spec"]["type"], "http");
    assert_eq!(run.report["replies"][0]["example"], "Queued. Thank you.");
    assert!(run.report["congestion"].is_string(), "{}", run.shown());
    let log = nginx.stop();
    assert_eq!(log.len(), 1_000);
    let kinds: BTreeSet<&String> = log.iter().collect();
    let expected = "POST /v3/example.com/messages 200 1024 application/x-www-form-urlencoded -".to_owned();
    assert_eq!(kinds, BTreeSet::from([&expected]));
}

#[test]
fn tls_is_verified_and_the_key_goes_along() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let nginx = Nginx::start(&certificate);
    let (ca, dir) = (certificate.file(), tempfile::tempdir().expect("a temporary folder"));
    let key = dir.path().join("key");
    fs::write(&key, "key-tanstaafl\n").expect("a file in our folder");
    let url = nginx.secured_url("/v3/example.com");
    let refused = run(&url, &["-m", "1"]);
    assert_eq!((refused.exit, refused.errors_of("certificate", "tls")), (1, 1), "{}", refused.shown());
    let options = ["-m", "200", "--type", "http.mime", "--ca-file", text(&ca), "--password-file", text(&key)];
    let run = run(&url, &[&options[..], &["--messages-per-connection", "50"]].concat());
    run.assert_all_accepted(200);
    assert_eq!((run.count("tls.full"), run.count("tls.resumed")), (1, 3));
    assert!(!run.shown().contains("tanstaafl"));
    let log = nginx.stop();
    assert_eq!(log.len(), 200);
    for line in log {
        assert!(line.starts_with("POST /v3/example.com/messages.mime 200 "), "{line}");
        assert!(
            line.contains(" multipart/form-data; boundary=") && line.ends_with(" Basic YXBpOmtleS10YW5zdGFhZmw="),
            "{line}"
        );
    }
}

#[test]
fn each_kind_of_answer_has_its_outcome() {
    let nginx = Nginx::start(&Certificate::of(&["127.0.0.1"]));
    let outcome = |path: &str, outcome: &str, code: u64, example: &str| {
        let run = run(&nginx.url(path), &["-m", "20", "-c", "2"]);
        assert_eq!(run.count(&format!("messages.{outcome}")), 20, "{}", run.shown());
        assert_eq!(run.replies("last_byte", code), 20, "{}", run.shown());
        let shown = run.report["replies"][0]["example"].as_str().unwrap_or_default();
        assert!(shown.contains(example), "{}", run.shown());
        run
    };
    outcome("/chunked", "accepted", 200, "Queued.");
    outcome("/once", "accepted", 200, "ok");
    outcome("/broken", "failed", 500, "out of order");
    let run = outcome("/forbidden", "rejected", 401, "\"Forbidden\"");
    assert_eq!(run.errors_of("credentials", "last_byte"), 20);
    let run = outcome("/moved", "rejected", 302, "");
    assert_eq!(run.errors_of("redirect", "last_byte"), 20);
    let run = self::run(&nginx.url("/silent"), &["-m", "3"]);
    // It resets the connection rather than closing it where it has not read the whole request.
    assert_eq!((run.count("messages.failed"), run.errors("first_byte")), (3, 3), "{}", run.shown());
    assert_eq!(nginx.stop().len(), 103, "nothing was sent twice");
}

#[test]
fn a_connection_waits_when_nginx_says_so() {
    let nginx = Nginx::start(&Certificate::of(&["127.0.0.1"]));
    let run = run(&nginx.url("/limit"), &["-m", "3"]);
    assert_eq!(run.count("messages.deferred"), 3, "{}", run.shown());
    assert_eq!(run.count("retry_after.waits"), 2, "{}", run.shown());
    assert!(run.number("retry_after.waited_s") >= 2.0, "{}", run.shown());
    assert_eq!(nginx.stop().len(), 3);
}

#[test]
fn a_large_body_goes_out_whole() {
    let nginx = Nginx::start(&Certificate::of(&["127.0.0.1"]));
    let run = run(&nginx.url("/v3/example.com"), &["-m", "20", "-c", "2", "--msg-size", "500000"]);
    run.assert_all_accepted(20);
    assert!(nginx.stop().iter().all(|line| line.contains(" 200 500000 ")));
}

#[test]
fn any_api_is_asked_as_the_options_say() {
    let nginx = Nginx::start(&Certificate::of(&["127.0.0.1"]));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().join("mail.json");
    fs::write(&data, r#"{"to":"%recipient%"}"#).expect("a file in our folder");
    let options = ["--type", "http.raw", "--method", "PUT", "--header", "Authorization: Bearer tanstaafl"];
    let run = run(&nginx.url("/v3/mail?x=1"), &[&options[..], &["-m", "2", "--data", text(&data)]].concat());
    run.assert_all_accepted(2);
    assert!(!run.shown().contains("tanstaafl"));
    let expected = "PUT /v3/mail?x=1 200 25 application/json Bearer tanstaafl";
    assert_eq!(nginx.stop(), [expected, expected]);
}

#[test]
fn interim_answers_are_passed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    let url = format!("http://{}/v3/example.com", listener.local_addr().expect("it is bound"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let (mut request, mut piece) = (Vec::new(), [0; 4_096]);
        while String::from_utf8_lossy(&request).split_once("\r\n\r\n").is_none_or(|(_, body)| body.len() < 500) {
            let octets = stream.read(&mut piece).expect("a request");
            assert!(octets > 0, "the request ends early");
            request.extend_from_slice(&piece[..octets]);
        }
        let answer =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.0 201 Created\r\n\r\nall";
        stream.write_all(answer.as_bytes()).expect("it is read");
    });
    let run = run(&url, &["-m", "1", "--msg-size", "500"]);
    run.assert_all_accepted(1);
    assert_eq!(run.report["replies"][0]["example"], "all");
    server.join().expect("the server saw what it should");
}

#[test]
fn a_wrong_value_names_its_option() {
    for (arguments, says) in [
        (&["http://127.0.0.1:1/v3/a", "--type", "smtp"][..], "--type: expected http, http.mime or http.raw"),
        (&["smtp://127.0.0.1:1", "--type", "http"], "--type: expected a TARGET such as http://"),
        (&["http://127.0.0.1:1/v3/a?b"], "TARGET: expected a URL without a query"),
        (&["http://127.0.0.1:1/v3/a/messages"], "TARGET: expected the URL before /messages"),
        (&["http://127.0.0.1:1/v3/a/messages.mime/"], "TARGET: expected the URL before /messages.mime"),
        (&["--type", "http.raw"], "--type: expected a TARGET such as http://"),
        (&["http://127.0.0.1:1/a#b"], "TARGET: expected"),
        (&["http://127.0.0.1:1/a", "--header", "Host: tanstaafl"], "--header: expected a header field that is not"),
        (&["http://127.0.0.1:1/a", "--header", "A: tanst\naafl"], "--header: expected a header field without control"),
        (&["http://127.0.0.1:1/a", "--method", "PUT"], "--method: expected type http.raw"),
        (&["http://127.0.0.1:1/a", "--type", "http.raw", "--method", "CONNECT"], "--method: expected a method"),
        (&["http://127.0.0.1:1/a", "--type", "http.raw", "--data", "/nonexistent"], "--data: expected a file"),
        (&["http://127.0.0.1:1/a", "--option", "x:a=b"], "--option: expected a name that begins with o:"),
        (&["smtp://127.0.0.1:1", "--option", "o:a=b"], "--option: expected a type by HTTP"),
        (&["smtp://127.0.0.1:1", "--password-file", "/dev/null"], "--password-file: expected --user"),
        (&["http://127.0.0.1:1/a", "--congestion", "nonesuch"], "--congestion: expected one that this kernel has"),
    ] {
        let finished = Process::run(timecop().arg("hammer").args(arguments));
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(says), "{arguments:?}: {}", finished.stderr);
        assert!(!finished.stderr.contains("tanst"), "{arguments:?}: {}", finished.stderr);
    }
}

#[test]
fn both_apis_reach_the_stub_through_nginx_with_tls() {
    let (sink, certificate) = (Sink::http("", &[]), Certificate::of(&["127.0.0.1"]));
    let nginx = Nginx::before(&certificate, sink.port());
    let (ca, dir) = (certificate.file(), tempfile::tempdir().expect("a temporary folder"));
    let key = dir.path().join("key");
    fs::write(&key, "key-tanstaafl\n").expect("a file in our folder");
    let variables = dir.path().join("variables.json");
    fs::write(&variables, r#"{"load@example.com":{"first":"Jörg"}}"#).expect("a file in our folder");
    let file = dir.path().join("text");
    fs::write(&file, "Hi %recipient.first%\n").expect("a file in our folder");
    let with_variables = ["--text", text(&file), "--recipient-variables", text(&variables)];
    for content in [&["-s", "3000"][..], &["--html", text(&file)], &with_variables] {
        for kind in ["http", "http.mime"] {
            let login = ["--ca-file", text(&ca), "--password-file", text(&key)];
            let options = [&["-m", "150", "-c", "4", "--type", kind][..], &login, content].concat();
            run(&nginx.secured_url("/stub/v3/example.com"), &options).assert_all_accepted(150);
        }
    }
    assert_eq!(nginx.stop().len(), 900);
    let report = sink.stop();
    let http = &report["http"];
    assert_eq!((&http["messages"], &http["errors"]), (&900.into(), &0.into()), "{report}");
}

#[test]
fn without_a_target_a_stub_is_started_and_loaded() {
    for kind in ["http", "http.mime"] {
        let finished = Process::run(timecop().args(["hammer", "--type", kind, "-m", "500", "-c", "5", "--json", "-"]));
        assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
        let report: Value = serde_json::from_str(&finished.stdout).expect("a report");
        assert_eq!(report["messages"]["accepted"], 500, "{report}");
        let name = report["target"].as_str().unwrap_or_default();
        assert!(name.starts_with("http://127.0.0.1:") && name.contains("embedded"), "{report}");
        assert!(report["notes"].to_string().contains("counted 500 messages, as many as"), "{report}");
    }
}

#[test]
fn what_does_not_speak_the_targets_protocol_is_told_in_plain_words() {
    let (mail, api) = (Sink::start(&[]), Nginx::start(&Certificate::of(&["127.0.0.1"])));
    for (url, says) in [
        (format!("smtps://127.0.0.1:{}", mail.port()), "the peer does not speak TLS at this port"),
        (format!("http://127.0.0.1:{}/v3/a", mail.port()), "be one of mail (smtp://)"),
        (api.url("").replace("http://", "smtp://"), "a port with TLS from the first byte (smtps://), or one of HTTP"),
        (api.url("/v3/a").replace("http://", "https://"), "the peer does not speak TLS at this port"),
    ] {
        let run = run(&url, &["-m", "1", "--timeout", "1s"]);
        assert_eq!(run.count("messages.failed"), 1, "{url}: {}", run.shown());
        assert!(run.shown().contains(says), "{url}: {}", run.shown());
    }
}
