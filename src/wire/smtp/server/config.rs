//! What all sessions of a server have in common.

use std::time::Duration;

/// The settings of a server. Made once, lent to every call of a session.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Octets of the largest message taken; advertised as SIZE (RFC 1870).
    pub message_bytes_max: u64,
    /// Recipients of a transaction that are accepted; the next ones are answered with 452.
    pub recipients_max: u32,
    /// Protocol errors of a session that are borne; one more ends it with 421.
    pub errors_max: u32,
    /// From the reply to one command to the end of the next one.
    pub command_timeout: Duration,
    /// From the 354 to the end of the message, and at most so long ahead at any time; see
    /// [`DATA_BYTES_A_SECOND_MIN`](super::DATA_BYTES_A_SECOND_MIN).
    pub data_timeout: Duration,
    greeting: Box<[u8]>,
    ehlo: Box<[u8]>,
    /// With STARTTLS in it, where that is offered.
    ehlo_in_the_clear: Option<Box<[u8]>>,
    helo: Box<[u8]>,
}

impl ServerConfig {
    /// The settings of a server that calls itself `hostname`, which is one word of printable ASCII, with the usual
    /// limits: 1,000 recipients, 20 errors, 5 minutes a command, 10 minutes for data (RFC 5321 §4.5.3). `pipelining` says
    /// whether it is advertised (RFC 2920); commands that arrive together are carried out in either case.
    pub fn new(hostname: &str, message_bytes_max: u64, pipelining: bool) -> ServerConfig {
        debug_assert!(!hostname.is_empty() && hostname.bytes().all(|octet| octet.is_ascii_graphic()));
        let pipelining = if pipelining { "250-PIPELINING\r\n" } else { "" };
        let ehlo = format!(
            "250-{hostname}\r\n{pipelining}250-SIZE {message_bytes_max}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
             250-ENHANCEDSTATUSCODES\r\n250 HELP\r\n"
        );
        ServerConfig {
            message_bytes_max,
            recipients_max: 1_000,
            errors_max: 20,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(10 * 60),
            greeting: format!("220 {hostname} ESMTP\r\n").into_bytes().into(),
            ehlo: ehlo.into_bytes().into(),
            ehlo_in_the_clear: None,
            helo: format!("250 {hostname}\r\n").into_bytes().into(),
        }
    }

    /// The same server, which offers STARTTLS in sessions that TLS does not protect yet.
    pub fn offering_starttls(self) -> ServerConfig {
        let first_line = self.ehlo.iter().position(|&octet| octet == b'\n').map_or(0, |at| at + 1);
        let (name, offers) = self.ehlo.split_at(first_line);
        let ehlo_in_the_clear = Some([name, b"250-STARTTLS\r\n", offers].concat().into());
        ServerConfig { ehlo_in_the_clear, ..self }
    }

    pub(super) fn offers_starttls(&self) -> bool {
        self.ehlo_in_the_clear.is_some()
    }

    pub(super) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// The reply to EHLO, under TLS or not.
    pub(super) fn ehlo(&self, secured: bool) -> &[u8] {
        self.ehlo_in_the_clear.as_deref().filter(|_| !secured).unwrap_or(&self.ehlo)
    }

    pub(super) fn helo(&self) -> &[u8] {
        &self.helo
    }
}
