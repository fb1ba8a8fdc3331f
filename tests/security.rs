//! Holds the table of SECURITY.md to the sources: every row names a test, and every test that is named is one.

use std::fs;
use std::path::Path;

/// The attacks and faults of the table: none goes without a word.
const ROWS: &[&str] = &[
    "SMTP smuggling: ends of data that are not CRLF.CRLF, bare CR, bare LF, NUL in a message",
    "Commands in the clear behind STARTTLS, or replies behind its 220",
    "STARTTLS stripped from the reply to EHLO",
    "A server's certificate that is forged, expired or another host's",
    "Over-long command lines",
    "Replies without end, in many lines, of mixed codes, or octet by octet",
    "Clients that are slow or silent",
    "Floods of connections",
    "Many recipients, many errors, many messages",
    "NUL, stray CR or LF, octets beyond ASCII in an envelope",
    "Talk before a greeting that is held, or behind DATA before the 354",
    "BDAT",
    "Guessed passwords, logins in the clear",
    "Use as an open relay",
    "CR, LF, NUL in a field of the API",
    "Aiming load at others: foreign pages, tokens, names that resolve elsewhere, redirects",
    "Secrets in answers, logs or reports",
    "Abuse of the API: malformed, slow, endless or many requests",
    "MIME bombs",
    "Forged or repeated probes",
    "Labels of metrics without number",
    "Storms of alerts",
    "No descriptors, locked memory or local ports left",
    "A crash in mid-job",
    "SIGTERM",
    "A full disk, a locked store",
    "A kernel that refuses io_uring",
];

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// The cells of the table's rows, without its head.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    lines.skip(2).map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// What is wrong with a test that is named as `FILE::NAME`.
fn fault(named: &str, source: impl Fn(&str) -> Option<String>) -> Option<String> {
    let Some((file, name)) = named.split_once("::") else { return Some(format!("{named}: expected FILE::NAME")) };
    let Some(text) = source(file) else { return Some(format!("{named}: there is no such file")) };
    let mut before = "";
    for line in text.lines().map(str::trim) {
        if line.starts_with(&format!("fn {name}(")) {
            return (!before.contains("#[test]")).then(|| format!("{named}: it is no test"));
        }
        before = line;
    }
    Some(format!("{named}: there is no such function"))
}

#[test]
fn every_row_names_tests_that_there_are() {
    let text = read("SECURITY.md").expect("the table");
    let rows = rows(&text);
    let titles: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(titles, ROWS);
    let mut faults = Vec::new();
    for row in &rows {
        let [attack, does, shown] = row[..] else {
            faults.push(format!("{row:?}: expected three cells"));
            continue;
        };
        let named: Vec<&str> = shown.split('`').map(str::trim).filter(|part| !part.is_empty()).collect();
        if attack.is_empty() || does.is_empty() || named.is_empty() {
            faults.push(format!("{attack}: expected what is done and at least one test"));
        }
        faults.extend(named.into_iter().filter_map(|named| fault(named, read)));
    }
    assert!(faults.is_empty(), "{} faults:\n  {}", faults.len(), faults.join("\n  "));
}

#[test]
fn a_test_that_is_none_is_found() {
    let source = |path: &str| (path == "a.rs").then(|| "#[test]\nfn one() {}\n\nfn two() {}\n".to_owned());
    assert_eq!(fault("a.rs::one", source), None);
    for wrong in ["a.rs::two", "a.rs::three", "b.rs::one", "one"] {
        assert!(fault(wrong, source).is_some(), "{wrong}");
    }
}
