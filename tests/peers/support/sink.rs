//! Our own sink as a target.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Port, Process, timecop};

/// A running `timecop sink`.
pub struct Sink {
    process: Process,
    port: Port,
}

impl Sink {
    /// Starts it with `options` and waits until it says that it listens.
    pub fn start(options: &[&str]) -> Sink {
        Sink::listening("", options)
    }

    /// Starts it with TLS from the first byte.
    pub fn secured(options: &[&str]) -> Sink {
        Sink::listening("smtps://", options)
    }

    fn listening(scheme: &str, options: &[&str]) -> Sink {
        let port = Port::claim();
        let address = format!("{scheme}127.0.0.1:{}", port.number());
        let mut command = timecop();
        command.args(["sink", "--listen", &address, "--json", "-"]).args(options);
        let mut process = Process::start(&mut command);
        assert_eq!(process.wait_error_line("listening on "), format!("listening on {address}"));
        Sink { process, port }
    }

    /// Starts it as a stub of Mailgun's API, without SMTP; `scheme` is nothing or `https://`.
    pub fn http(scheme: &str, options: &[&str]) -> Sink {
        let port = Port::claim();
        let mut command = timecop();
        command.args(["sink", "--http", &format!("{scheme}127.0.0.1:{}", port.number()), "--json", "-"]).args(options);
        let mut process = Process::start(&mut command);
        let scheme = if scheme.is_empty() { "http://" } else { scheme };
        let expected = format!("listening on {scheme}127.0.0.1:{}", port.number());
        assert_eq!(process.wait_error_line("listening on "), expected);
        Sink { process, port }
    }

    /// Starts it so that it keeps what it receives in `dir`.
    pub fn saving_to(dir: &Path) -> Sink {
        Sink::start(&["--save", dir.to_str().expect("a temporary folder has a plain name")])
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Ends it with SIGTERM and gives its final object.
    pub fn stop(self) -> Value {
        self.stop_by("TERM")
    }

    /// Ends it with a signal and gives its final object.
    pub fn stop_by(self, signal: &str) -> Value {
        self.process.signal(signal);
        let finished = self.process.finish();
        assert!(finished.status.success(), "sink ended with {}: {}", finished.status, finished.stderr);
        let report: Value = serde_json::from_str(&finished.stdout).expect("one object and nothing else");
        for field in ["sessions", "messages", "recipients", "bytes", "commands", "errors"] {
            assert!(report[field].is_u64(), "`{field}` is a count in {report}");
        }
        assert!(report["elapsed_s"].is_number(), "`elapsed_s` is a number in {report}");
        report
    }
}

/// The files of a folder, sorted by content. What they are called is the sink's affair.
pub fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(dir).expect("the folder can be listed");
    let read = |entry: fs::DirEntry| fs::read(entry.path()).expect("a file of the folder can be read");
    let mut found: Vec<Vec<u8>> = entries.map(|entry| read(entry.expect("an entry can be read"))).collect();
    found.sort();
    found
}
