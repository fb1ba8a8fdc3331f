//! The phases of a message's life, as everybody names them: machines, measurements, faults and reports.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was going on between generator and target when something was measured or went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Phase {
    /// Opening the TCP connection.
    Connect,
    /// The TLS handshake: behind the connect, or behind STARTTLS.
    Tls,
    /// From the open connection to the server's greeting (RFC 5321 §3.1).
    Banner,
    /// EHLO, or HELO where EHLO is refused (RFC 5321 §3.2); once more behind STARTTLS.
    Ehlo,
    /// STARTTLS, up to the 220 (RFC 3207 §4).
    StartTls,
    /// AUTH, the whole exchange up to the reply that ends it (RFC 4954 §4).
    Auth,
    /// MAIL FROM (RFC 5321 §3.3).
    Mail,
    /// RCPT TO; one for each recipient.
    Rcpt,
    /// DATA, up to the 354.
    Data,
    /// The message itself, from its first octet to the reply to the end of data.
    Final,
    /// An HTTP request, from its beginning until it has left completely.
    Write,
    /// From there to the first octet of its answer.
    #[serde(rename = "first_byte")]
    FirstByte,
    /// From the first to the last octet of the answer.
    #[serde(rename = "last_byte")]
    LastByte,
    /// RSET after a transaction that did not reach its end.
    Rset,
    /// QUIT.
    Quit,
    /// An open session between two messages.
    Idle,
}

impl Phase {
    /// Every phase, in the order of a session; those of SMTP's messages come before HTTP's.
    pub const ALL: [Phase; 16] = [
        Phase::Connect,
        Phase::Tls,
        Phase::Banner,
        Phase::Ehlo,
        Phase::StartTls,
        Phase::Auth,
        Phase::Mail,
        Phase::Rcpt,
        Phase::Data,
        Phase::Final,
        Phase::Write,
        Phase::FirstByte,
        Phase::LastByte,
        Phase::Rset,
        Phase::Quit,
        Phase::Idle,
    ];

    /// The phases whose durations are measured and reported.
    pub const MEASURED: [Phase; 13] = [
        Phase::Connect,
        Phase::Tls,
        Phase::Banner,
        Phase::Ehlo,
        Phase::StartTls,
        Phase::Auth,
        Phase::Mail,
        Phase::Rcpt,
        Phase::Data,
        Phase::Final,
        Phase::Write,
        Phase::FirstByte,
        Phase::LastByte,
    ];

    /// The name in reports, options and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::Banner => "banner",
            Phase::Ehlo => "ehlo",
            Phase::StartTls => "starttls",
            Phase::Auth => "auth",
            Phase::Mail => "mail",
            Phase::Rcpt => "rcpt",
            Phase::Data => "data",
            Phase::Final => "final",
            Phase::Write => "write",
            Phase::FirstByte => "first_byte",
            Phase::LastByte => "last_byte",
            Phase::Rset => "rset",
            Phase::Quit => "quit",
            Phase::Idle => "idle",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serialised_name_is_the_name() {
        for phase in Phase::ALL {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        }
    }
}
