//! Holds the table of SECURITY.md to the sources: every row names a test, and every test that is named is one.

use std::fs;
use std::path::Path;

/// Rows that there are at least: none goes without a word.
const ROWS_MIN: usize = 26;

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
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
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
