//! aiosmtpd, which looks at every message.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Certificate, Port, Process, python, script};

/// A running aiosmtpd.
pub struct Aiosmtpd {
    process: Process,
    port: Port,
}

impl Aiosmtpd {
    /// Starts it. With `expected`, every message must be this file behind fresh Date and Message-ID fields.
    pub fn start(expected: Option<&Path>) -> Aiosmtpd {
        Aiosmtpd::launch(|command| command.args(expected))
    }

    /// Starts it so that it takes no mail without TLS: from the first byte (`tls`) or by STARTTLS (`starttls`). With
    /// `client`, clients must show that certificate.
    pub fn secured(how: &str, certificate: &Certificate, client: Option<&Certificate>) -> Aiosmtpd {
        Aiosmtpd::launch(|command| {
            command.env("TLS", how).env("TLS_CERT", certificate.file()).env("TLS_KEY", certificate.key_file());
            command.envs(client.map(|client| ("TLS_CLIENT_CA", client.file())))
        })
    }

    /// Starts it so that it offers STARTTLS and takes no mail but from this user, `user:password`. Mechanisms of `exclude`
    /// are not offered.
    pub fn asking_for_login(certificate: &Certificate, user: &str, exclude: &str) -> Aiosmtpd {
        Aiosmtpd::launch(|command| {
            command.env("TLS", "starttls").env("TLS_CERT", certificate.file()).env("TLS_KEY", certificate.key_file());
            command.env("AUTH", user).env("AUTH_EXCLUDE", exclude)
        })
    }

    /// Starts it so that its report shows each message, `shown`: as a parser understands it, and as it came.
    pub fn showing() -> Aiosmtpd {
        Aiosmtpd::launch(|command| command.env("SHOW", "1"))
    }

    fn launch(settle: impl FnOnce(&mut Command) -> &mut Command) -> Aiosmtpd {
        let port = Port::claim();
        let mut command = python();
        settle(command.arg(script("aiosmtpd_count.py")).arg(port.number().to_string()));
        let mut process = Process::start(&mut command);
        process.wait_line("listening on ");
        Aiosmtpd { process, port }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Ends it and gives what arrived (the script says which fields there are). Fails when a message was faulty.
    pub fn stop(self) -> Value {
        self.process.signal("TERM");
        let finished = self.process.finish();
        assert!(finished.status.success(), "aiosmtpd failed: {}", finished.stderr);
        let line = finished.stdout.lines().last().unwrap_or_default();
        let report: Value = serde_json::from_str(line).expect("aiosmtpd's last line is its report");
        assert_eq!(report["faults"], serde_json::json!([]), "faulty messages arrived");
        report
    }
}
