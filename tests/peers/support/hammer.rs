//! Running the generator. What must hold for every run is checked here, once.

use serde_json::Value;

use super::{Process, timecop};

/// A running `timecop hammer`.
pub struct Hammer {
    process: Process,
}

/// A finished run.
pub struct Run {
    /// The exit status.
    pub exit: i32,
    /// The object of `--json`.
    pub report: Value,
    /// What went to standard error.
    pub stderr: String,
}

/// Where messages end; every message in exactly one of them.
const ENDS: [&str; 6] = ["accepted", "deferred", "rejected", "failed", "missed", "cut"];

impl Hammer {
    /// Starts a run against a port of this machine.
    pub fn start(port: u16, options: &[&str]) -> Hammer {
        Hammer::start_at(&format!("smtp://127.0.0.1:{port}"), options)
    }

    /// Starts a run against a target.
    pub fn start_at(target: &str, options: &[&str]) -> Hammer {
        let mut command = timecop();
        command.args(["hammer", target, "--json", "-", "--quiet"]).args(options);
        Hammer { process: Process::start(&mut command) }
    }

    /// Starts a run and waits for its end.
    pub fn run(port: u16, options: &[&str]) -> Run {
        Hammer::start(port, options).finish()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for the end and checks what holds for every run.
    pub fn finish(self) -> Run {
        let finished = self.process.finish();
        let exit = finished.status.code().unwrap_or_else(|| panic!("hammer: {}: {}", finished.status, finished.stderr));
        let report = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| {
            panic!("exit {exit}, no JSON object: {error}\n{}\n{}", finished.stdout, finished.stderr)
        });
        let run = Run { exit, report, stderr: finished.stderr };
        run.check();
        run
    }
}

impl Run {
    /// A count of the report by its path, `messages.accepted`.
    pub fn count(&self, path: &str) -> u64 {
        self.at(path).as_u64().unwrap_or_else(|| panic!("`{path}` is no count in {}", self.shown()))
    }

    /// A number of the report by its path.
    pub fn number(&self, path: &str) -> f64 {
        self.at(path).as_f64().unwrap_or_else(|| panic!("`{path}` is no number in {}", self.shown()))
    }

    fn at(&self, path: &str) -> &Value {
        let pointer = format!("/{}", path.replace('.', "/"));
        self.report.pointer(&pointer).unwrap_or_else(|| panic!("no `{path}` in {}", self.shown()))
    }

    /// How often `code` came in `phase`.
    pub fn replies(&self, phase: &str, code: u64) -> u64 {
        self.sum("replies", |row| row["phase"] == phase && row["code"] == code)
    }

    /// How often `code` came in whatever phase.
    pub fn replies_of(&self, code: u64) -> u64 {
        self.sum("replies", |row| row["code"] == code)
    }

    /// How many errors there were in `phase`.
    pub fn errors(&self, phase: &str) -> u64 {
        self.sum("errors", |row| row["phase"] == phase)
    }

    /// How many errors of this kind there were in `phase`.
    pub fn errors_of(&self, kind: &str, phase: &str) -> u64 {
        self.sum("errors", |row| row["phase"] == phase && row["kind"] == kind)
    }

    /// How many errors there were in all.
    pub fn errors_in_all(&self) -> u64 {
        self.sum("errors", |_| true)
    }

    fn sum(&self, table: &str, wanted: impl Fn(&Value) -> bool) -> u64 {
        let rows = self.at(table).as_array().unwrap_or_else(|| panic!("`{table}` is no array in {}", self.shown()));
        rows.iter().filter(|row| wanted(row)).map(|row| row["count"].as_u64().expect("a row has a count")).sum()
    }

    /// Every message of `asked` was accepted, nothing else happened, and the exit status says so.
    pub fn assert_all_accepted(&self, asked: u64) {
        assert_eq!(self.count("messages.asked"), asked, "{}", self.shown());
        assert_eq!(self.count("messages.accepted"), asked, "{}", self.shown());
        assert_eq!(self.exit, 0, "{}", self.shown());
        assert_eq!(self.errors_in_all(), 0, "{}", self.shown());
    }

    /// The report without its long parts, for failures.
    pub fn shown(&self) -> String {
        let mut report = self.report.clone();
        if let Some(object) = report.as_object_mut() {
            for long in ["histograms", "series"] {
                object.remove(long);
            }
        }
        format!("exit {}, stderr {:?}, report {report:#}", self.exit, self.stderr)
    }

    fn check(&self) {
        let shown = self.shown();
        let ended: u64 = ENDS.iter().map(|end| self.count(&format!("messages.{end}"))).sum();
        let (asked, accepted) = (self.count("messages.asked"), self.count("messages.accepted"));
        assert_eq!(asked, ended, "asked = {} in {shown}", ENDS.join(" + "));
        assert!(self.count("messages.sent") <= asked, "sent <= asked in {shown}");
        assert!(self.count("recipients.accepted") >= accepted, "an accepted message has a recipient in {shown}");
        assert_eq!(self.count("latency_s.accepted.response.count"), accepted, "one latency a message in {shown}");
        match self.exit {
            0 => assert_eq!(accepted, asked, "exit 0 says that all were accepted: {shown}"),
            1 => {}
            other => panic!("a run that started ends with 0 or 1, not {other}: {shown}"),
        }
        assert!(accepted == asked || self.exit == 1, "not all accepted, so exit 1: {shown}");
    }
}
