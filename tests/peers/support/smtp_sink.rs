//! Postfix's smtp-sink.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::process::read;
use super::{Port, Process};

/// A running smtp-sink that counts, and keeps every transaction in a file.
pub struct SmtpSink {
    process: Process,
    port: Port,
    dir: TempDir,
}

impl SmtpSink {
    /// Starts it with `options` beside the counting.
    pub fn start(options: &[&str]) -> SmtpSink {
        let port = Port::claim();
        let dir = tempfile::tempdir().expect("a temporary folder");
        // It gives up root's rights before it writes.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("our own folder");
        let mut command = Command::new("/usr/sbin/smtp-sink");
        command.args(["-u", "nobody", "-c", "-D"]).arg(dir.path().join("dump")).args(options);
        command.arg(format!("127.0.0.1:{}", port.number())).arg("512");
        let mut process = Process::start(&mut command);
        process.wait_port(port.number());
        SmtpSink { process, port, dir }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Messages that it has acknowledged so far. It shows them with every end of data.
    pub fn messages(&self) -> u64 {
        let stdout = self.process.stdout();
        let last = stdout.rsplit('\r').find_map(|counters| counters.split_once("mesg="));
        last.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Recipients of the transactions that it has kept.
    pub fn recipients(&self) -> u64 {
        let count = read(&self.dir.path().join("dump")).lines().filter(|l| l.starts_with("X-Rcpt-Args: ")).count();
        count as u64
    }
}
