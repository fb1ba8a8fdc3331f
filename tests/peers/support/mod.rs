//! Starting, watching and ending the peers. Every guard ends its process when it is dropped, and shows the process's
//! logs when the test is failing.

mod aiosmtpd;
mod certificate;
mod exim;
mod hammer;
mod nginx;
mod pagerduty;
mod pagerduty_schema;
mod port;
mod postfix;
mod process;
mod proxy;
mod scripted;
mod seeded;
mod service;
mod sink;
mod smtp_sink;

pub use aiosmtpd::Aiosmtpd;
pub use certificate::{Certificate, text};
pub use exim::Exim;
pub use hammer::{Hammer, Run};
pub use nginx::Nginx;
pub use pagerduty::{Events, HANG, pagerduty};
pub use port::Port;
pub use postfix::Postfix;
pub use process::{Finished, Process, poll};
pub use proxy::Proxy;
pub use scripted::Scripted;
pub use seeded::{Draws, rounds};
pub use service::{Service, agent};
pub use sink::{Sink, contents};
pub use smtp_sink::SmtpSink;

use std::path::PathBuf;
use std::process::Command;

/// The program under test. `TIMECOP_BINARY` puts another build in its place, say a release build.
pub fn timecop() -> Command {
    let binary = std::env::var_os("TIMECOP_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_timecop").into());
    Command::new(binary)
}

/// The Python that has the peers' packages, as `tools/test` installs it.
pub fn python() -> Command {
    let python = repository().join("target/peers-venv/bin/python3");
    assert!(python.exists(), "no {}: tools/test installs the peers", python.display());
    Command::new(python)
}

/// Node.js, for a script of this folder that uses packages which `tools/test` installs.
pub fn node(name: &str) -> Command {
    let modules = repository().join("target/peers-node");
    assert!(modules.join("node_modules").exists(), "no {}: tools/test installs the peers", modules.display());
    let mut command = Command::new("node");
    // `require` looks for packages from where it stands.
    command.arg(script(name)).env("PEERS", modules);
    command
}

/// A file of this folder.
pub fn script(name: &str) -> PathBuf {
    repository().join("tests/peers").join(name)
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
