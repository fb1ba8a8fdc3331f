//! `timecop doctor`: whether this machine can run at full speed, and what mends it where it cannot.

use std::io::{self, IsTerminal, Write};

use console::Style;
use serde::Serialize;

use super::args::DoctorArguments;
use super::{CANNOT_START, OK};
use crate::shard::machine::{self, Finding, Needs, Severity};
use crate::shard::placement;

/// The version of the JSON object: raised when a field changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    version: u32,
    /// Whether nothing is fatal.
    ok: bool,
    findings: &'a [Finding],
}

/// Connections that a run is thought to have, for the checks that depend on it.
const CONNECTIONS: u32 = 100;

/// Examines this machine and prints what was found to standard output: exit code 0 when timecop can run, be it slowly,
/// and 2 when it cannot. There is no colour where the output is not a terminal or `NO_COLOR` is set.
pub(super) fn run(arguments: &DoctorArguments) -> u8 {
    let shards = placement::allowed_cpus().len() as u32;
    let findings = machine::examine(&Needs::on_loopback(shards, CONNECTIONS));
    let stdout = io::stdout();
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_colored = !is_plain && stdout.is_terminal();
    let text = if arguments.json { to_json(&findings) } else { to_table(&findings, is_colored) };
    // Whoever closed the output early has seen enough; the exit code says the rest.
    let _ = stdout.lock().write_all(text.as_bytes());
    if worst(&findings) == Severity::Fatal { CANNOT_START } else { OK }
}

fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Fine)
}

fn to_json(findings: &[Finding]) -> String {
    let report = Report { version: SCHEMA_VERSION, ok: worst(findings) != Severity::Fatal, findings };
    let text = serde_json::to_string_pretty(&report).expect("strings, numbers and booleans can be written as JSON");
    text + "\n"
}

fn to_table(findings: &[Finding], is_colored: bool) -> String {
    let style = |severity| {
        let style = Style::new().force_styling(is_colored);
        match severity {
            Severity::Fine => style.green(),
            Severity::Slow => style.yellow(),
            Severity::Fatal => style.red().bold(),
        }
    };
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.severity {
            Severity::Fine => "✓",
            Severity::Slow => "!",
            Severity::Fatal => "✗",
        };
        let mark = style(finding.severity).apply_to(mark);
        text += &format!("{mark} {:width$}  {}\n", finding.name, finding.found);
        for way in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
            text += &format!("  {:width$}  → {way}\n", "");
        }
    }
    text + &format!("\n{}\n", style(worst(findings)).apply_to(verdict(findings)))
}

/// The last line, in plain words.
fn verdict(findings: &[Finding]) -> String {
    let named = |severity| {
        let names = findings.iter().filter(|finding| finding.severity == severity).map(|finding| finding.name);
        names.collect::<Vec<_>>().join(", ")
    };
    match worst(findings) {
        Severity::Fine => "This machine can run timecop at full speed.".to_owned(),
        Severity::Slow => format!("This machine can run timecop, but not at full speed: {}.", named(Severity::Slow)),
        Severity::Fatal => format!("This machine cannot run timecop until this is mended: {}.", named(Severity::Fatal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &'static str, severity: Severity) -> Finding {
        let remedy = (severity != Severity::Fine).then(|| format!("mend {name}"));
        Finding { name, severity, found: format!("{name} found"), remedy }
    }

    fn some() -> Vec<Finding> {
        vec![
            finding("kernel", Severity::Fine),
            finding("CPUs", Severity::Slow),
            Finding { remedy: Some("mend descriptors\nor not".to_owned()), ..finding("descriptors", Severity::Fatal) },
        ]
    }

    #[test]
    fn the_table_has_a_line_a_check_and_one_for_its_remedy() {
        let expected = "\
✓ kernel       kernel found
! CPUs         CPUs found
               → mend CPUs
✗ descriptors  descriptors found
               → mend descriptors
               → or not

This machine cannot run timecop until this is mended: descriptors.
";
        assert_eq!(to_table(&some(), false), expected);
        let colored = to_table(&some(), true);
        assert_ne!(colored, expected);
        assert_eq!(console::strip_ansi_codes(&colored), expected);
    }

    #[test]
    fn slow_is_said_and_still_runs() {
        assert_eq!(verdict(&some()[..1]), "This machine can run timecop at full speed.");
        assert_eq!(verdict(&some()[..2]), "This machine can run timecop, but not at full speed: CPUs.");
        assert_eq!(worst(&some()[..2]), Severity::Slow);
    }

    #[test]
    fn the_json_is_versioned_and_complete() {
        let value: serde_json::Value = serde_json::from_str(&to_json(&some())).unwrap();
        assert_eq!((&value["version"], &value["ok"]), (&1.into(), &false.into()));
        let third = serde_json::json!({
            "name": "descriptors", "severity": "fatal", "found": "descriptors found", "remedy": "mend descriptors\nor not",
        });
        assert_eq!(value["findings"][2], third);
        assert_eq!(value["findings"][0]["remedy"], serde_json::Value::Null);
        let value: serde_json::Value = serde_json::from_str(&to_json(&some()[..2])).unwrap();
        assert_eq!(value["ok"], true);
    }
}
