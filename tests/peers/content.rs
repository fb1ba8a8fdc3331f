//! What is sent, as real servers see it: sizes, recipients, given and composed messages, variables; and what is refused.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Aiosmtpd, Hammer, timecop};

/// Runs against a server that shows each message, and gives its report.
fn arrived(count: u64, options: &[&str]) -> Value {
    let server = Aiosmtpd::showing();
    let count_text = count.to_string();
    Hammer::run(server.port(), &[&["-m", &count_text, "-c", "2", "--seed", "5"], options].concat())
        .assert_all_accepted(count);
    let report = server.stop();
    assert_eq!(report["messages"], count);
    report
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    fs::write(&path, content).expect("the file can be written");
    path.to_str().expect("the path is UTF-8").to_owned()
}

fn messages(report: &Value) -> Vec<&Value> {
    report["shown"].as_array().expect("messages are shown").iter().collect()
}

#[test]
fn a_mix_of_sizes_arrives_as_it_is_reported() {
    let server = Aiosmtpd::start(None);
    let run = Hammer::run(server.port(), &["-m", "200", "-c", "2", "--msg-size", "600:3,2000:1", "--seed", "1"]);
    run.assert_all_accepted(200);
    let sizes = server.stop()["sizes"].clone();
    let counts = run.report["sizes"]["counts"].as_array().unwrap();
    let reported: Value = counts.iter().map(|row| (row["bytes"].to_string(), row["messages"].clone())).collect();
    assert_eq!(sizes, reported);
    let small = counts[0]["messages"].as_f64().unwrap();
    assert_eq!(run.number("sizes.mean"), (small * 600.0 + (200.0 - small) * 2000.0) / 200.0);
    assert!((100.0..190.0).contains(&small), "{sizes}");
}

#[test]
fn recipients_of_patterns_and_files_all_get_their_message() {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "to", "# two of us\r\nfile@example.com\n\n  w{1..3}@example.com  \n");
    let report = arrived(16, &["--to", "u{08..11}@example.com", "--to-file", &file, "--recipients-per-message", "2"]);
    let names = ["file", "u08", "u09", "u10", "u11", "w1", "w2", "w3"];
    let expected: Value = names.iter().map(|name| (format!("{name}@example.com"), json!(4))).collect();
    assert_eq!(report["recipient_addresses"], expected);

    let random = arrived(50, &["--to", "u{1..1000000000}@example.com", "--recipient-order", "random"]);
    assert!(random["recipient_addresses"].as_object().unwrap().len() >= 49, "{}", random["recipient_addresses"]);
    for message in messages(&random) {
        assert_eq!(message["to"], message["recipients"][0], "the To field names the recipient");
    }
}

#[test]
fn a_composed_message_arrives_with_its_texts_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let text = write(dir.path(), "text", "Grüße,\n.\nBob\n");
    let html = write(dir.path(), "html", "<p>".to_owned() + &"long ".repeat(300) + "</p>");
    let pdf = write(dir.path(), "größe & \"x\".pdf", [0u8, 1, 2, 255, b'\r', b'.', b'\n']);
    let big = write(dir.path(), "big.bin", vec![7u8; 100_000]);
    let options = ["--subject", "Grüße %", "--text", &text, "--html", &html, "--attach", &pdf, "--attach", &big];
    let report = arrived(4, &options);
    for message in messages(&report) {
        assert_eq!(message["subject"], "Grüße %");
        assert_eq!(message["text"].as_str().unwrap().replace("\r\n", "\n"), "Grüße,\n.\nBob\n");
        assert_eq!(message["html"].as_str().unwrap().trim_end(), fs::read_to_string(&html).unwrap());
        let files = message["attachments"].as_array().unwrap();
        assert_eq!(files[0], json!(["größe & \"x\".pdf", "application/pdf", "000102ff0d2e0a"]));
        assert_eq!((&files[1][0], &files[1][1]), (&json!("big.bin"), &json!("application/octet-stream")));
        assert_eq!(files[1][2].as_str().unwrap(), "07".repeat(100_000));
    }
}

#[test]
fn a_folder_of_messages_takes_turns_and_a_verbatim_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "b.eml", "From: <b@example.com>\nSubject: two\n\nb\n");
    write(dir.path(), "a.eml", "From: <a@example.com>\nSubject: one\n\na\n");
    write(dir.path(), "notes.txt", "no message");
    let report = arrived(10, &["--body", dir.path().to_str().unwrap()]);
    let with = |subject: &str| messages(&report).iter().filter(|message| message["subject"] == subject).count();
    assert_eq!((with("one"), with("two")), (5, 5));

    let file =
        "Message-ID: <mine@example.com>\r\nDate: Mon, 01 Jan 2001 00:00:00 +0000\r\nFrom: <a@example.com>\r\n\r\n.\r\n";
    let body = write(dir.path(), "verbatim", file);
    let report = arrived(1, &["--body", &body, "--verbatim"]);
    assert_eq!(messages(&report)[0]["raw"], file);
}

const VARIABLES: &str = r#"{"bob@example.com":{"first":"Bob","dot":"."},"al@example.com":{"first":"Jörg","dot":"x"}}"#;

#[test]
fn variables_are_replaced_for_each_recipient() {
    let dir = tempfile::tempdir().unwrap();
    let variables = write(dir.path(), "variables.json", VARIABLES);
    let body =
        "From: <a@example.com>\nTo: <%recipient%>\nSubject: Hi\n\n%recipient.first%\n%recipient.dot%\n%recipient.no%\n";
    let body = write(dir.path(), "body.eml", body);
    let to = ["--to", "bob@example.com", "--to", "al@example.com", "--to", "none@example.com"];
    for pipelining in ["auto", "off"] {
        let options = ["--body", &body, "--recipient-variables", &variables, "--expand", "--pipelining", pipelining];
        let report = arrived(9, &[&options[..], &to].concat());
        for message in messages(&report) {
            let to = message["recipients"][0].as_str().unwrap();
            let expected = match to {
                "bob@example.com" => "Bob\n.\n%recipient.no%\n",
                "al@example.com" => "Jörg\nx\n%recipient.no%\n",
                _ => "%recipient.first%\n%recipient.dot%\n%recipient.no%\n",
            };
            assert_eq!((message["to"].as_str().unwrap(), message["body"].as_str().unwrap()), (to, expected));
        }
    }
}

#[test]
fn variables_go_along_for_the_server_to_replace() {
    let dir = tempfile::tempdir().unwrap();
    let variables = write(dir.path(), "variables.json", VARIABLES);
    let text = write(dir.path(), "text", "Hi %recipient.first%\n");
    let to = ["--to", "bob@example.com", "--to", "al@example.com", "--recipients-per-message", "2"];
    let report = arrived(2, &[&["--text", &text, "--recipient-variables", &variables][..], &to].concat());
    for message in messages(&report) {
        assert_eq!(message["to_raw"], "%recipient%");
        let field: Value = serde_json::from_str(message["variables"].as_str().unwrap()).unwrap();
        assert_eq!(field, serde_json::from_str::<Value>(VARIABLES).unwrap());
        assert_eq!(message["body"], "Hi %recipient.first%\n");
    }
}

/// The words in which the command line refuses these options.
fn refusal(options: &[&str]) -> String {
    let output =
        timecop().args(["hammer", "smtp://127.0.0.1:9", "-m", "1"]).args(options).output().expect("timecop can be run");
    assert_eq!(output.status.code(), Some(2), "{options:?}");
    String::from_utf8(output.stderr).expect("errors are UTF-8")
}

#[test]
fn each_wrong_value_is_refused_in_words_that_help() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| write(dir.path(), name, content);
    let to = file("to", "a@example.com\n# fine\nnobody\n");
    let empty = file("empty", "# nobody\n");
    let body = file("body.eml", "A: b\n\n%recipient.v%\n");
    let text = file("text", "x");
    let broken = file("broken.json", r#"{"load@example.com":{"v":"a\r\nb"}}"#);
    let no_json = file("no.json", "[]");
    let latin = write(dir.path(), "latin", [b'a', 0xe9]);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let with_variables = |file: &str| refusal(&["--body", &body, "--recipient-variables", file]);
    let table = [
        (refusal(&["--msg-size", "2000:1,x:2"]), "expected a whole number, got \"x\""),
        (refusal(&["--msg-size", "2000:1,300"]), "expected sizes with weights"),
        (refusal(&["--msg-size", "2000:0"]), "--msg-size: expected a weight of 1 to 1000000, got 0"),
        (refusal(&["--msg-size", "2000:1,9:1"]), "--msg-size: expected a message of at least"),
        (refusal(&["--to", "u{5..1}@example.com"]), "--to: expected a range such as {1..1000}"),
        (refusal(&["--to", "u{1..9999999999999}@example.com"]), "--to: expected patterns of at most 1000000000000"),
        (refusal(&["--to-file", &to]), "line 3: expected an address as local@domain, got \"nobody\""),
        (refusal(&["--to-file", &empty]), "--to-file: expected at least one recipient, got none"),
        (refusal(&["--to-file", "/nonexistent"]), "--to-file: expected a file of recipients, got /nonexistent"),
        (refusal(&["--recipient-order", "sideways"]), "[possible values: sequential, random]"),
        (refusal(&["--body", folder]), "--body: expected a folder of message files (.eml)"),
        (refusal(&["--body", &body, "--verbatim"]), "--body: line 1: expected CRLF at its end"),
        (refusal(&["--verbatim"]), "--body"),
        (refusal(&["--body", &body, "--text", &text]), "cannot be used with"),
        (refusal(&["--body", &body, "--subject", "x"]), "cannot be used with"),
        (
            refusal(&["--subject", "a\r\nX: b"]),
            "--subject: expected at most 4096 characters without control characters",
        ),
        (refusal(&["--text", &latin]), "--text: expected text in UTF-8"),
        (refusal(&["--attach", &text]), "--attach: expected --text or --html beside it, got neither"),
        (refusal(&["--text", &text, "--attach", "/nonexistent"]), "--attach: expected a file, got /nonexistent"),
        (refusal(&["--expand"]), "--expand: expected a --body, --text or --html beside it"),
        (refusal(&["--body", &body, "--expand", "--recipients-per-message", "2"]), "expected 1 with --expand"),
        (with_variables(&broken), "--recipient-variables: expected names and values without control characters"),
        (with_variables(&no_json), "--recipient-variables: expected the JSON of an object"),
        (with_variables("/nonexistent"), "--recipient-variables: expected a file of JSON, got /nonexistent"),
    ];
    for (refused, words) in table {
        assert!(refused.contains(words), "expected {words:?} in {refused:?}");
    }
}
