//! What all sessions of a server have in common.

use std::sync::Arc;
use std::time::Duration;

use super::capability::{Capabilities, Capability};
use crate::wire::smtp::auth::{Mechanism, Users};

/// The settings of a server. Made once, lent to every call of a session.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Octets of the largest message taken; advertised as SIZE (RFC 1870).
    pub message_bytes_max: u64,
    /// Recipients of a transaction that are accepted; the next ones are answered with 452.
    pub recipients_max: u32,
    /// Protocol errors of a session that are borne; one more ends it with 421.
    pub errors_max: u32,
    /// Commands that may follow one another without a message; one more ends the session with 421.
    pub idle_commands_max: u32,
    /// From the reply to one command to the end of the next one.
    pub command_timeout: Duration,
    /// From the 354 to the end of the message, and at most so long ahead at any time; see
    /// [`DATA_BYTES_A_SECOND_MIN`](super::DATA_BYTES_A_SECOND_MIN).
    pub data_timeout: Duration,
    greeting: Box<[u8]>,
    ehlo: Box<[u8]>,
    /// The reply to EHLO where TLS does not protect the session: with STARTTLS, where that is offered, and without AUTH.
    ehlo_in_the_clear: Box<[u8]>,
    starttls: bool,
    /// What is not offered though it is there.
    pub(super) withheld: Capabilities,
    /// Who may send mail; everybody where there is no such table.
    pub(super) logins: Option<Logins>,
    helo: Box<[u8]>,
}

impl ServerConfig {
    /// The settings of a server that calls itself `hostname`, which is one word of printable ASCII, with the usual
    /// limits: 1,000 recipients, 20 errors, any number of commands, 5 minutes a command, 10 minutes for data (RFC 5321 §4.5.3). `pipelining` says
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
            idle_commands_max: u32::MAX,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(10 * 60),
            greeting: format!("220 {hostname} ESMTP\r\n").into_bytes().into(),
            ehlo: ehlo.as_bytes().into(),
            ehlo_in_the_clear: ehlo.into_bytes().into(),
            starttls: false,
            withheld: Capabilities::default(),
            logins: None,
            helo: format!("250 {hostname}\r\n").into_bytes().into(),
        }
    }

    /// The same server, which offers STARTTLS in sessions that TLS does not protect yet.
    pub fn offering_starttls(self) -> ServerConfig {
        let ehlo_in_the_clear = with_line(&self.ehlo_in_the_clear, b"250-STARTTLS\r\n");
        ServerConfig { ehlo_in_the_clear, starttls: true, ..self }
    }

    /// The same server, which takes mail from these users alone, once they have logged in, which they can under TLS alone.
    /// `nonce` gives an unpredictable number each time: CRAM-MD5's challenges are made of them.
    pub fn requiring_auth(self, users: Arc<Users>, nonce: fn() -> u64) -> ServerConfig {
        let names = Mechanism::ALL.map(Mechanism::name).join(" ");
        let ehlo = with_line(&self.ehlo, format!("250-AUTH {names}\r\n").as_bytes());
        ServerConfig { ehlo, logins: Some(Logins { users, nonce }), ..self }
    }

    /// The same server without these capabilities: it does not name them, and refuses what makes use of them. Commands that
    /// arrive together are carried out all the same, and replies have enhanced status codes.
    pub fn without(self, withheld: Capabilities) -> ServerConfig {
        let ehlo = without_lines(&self.ehlo, withheld);
        let ehlo_in_the_clear = without_lines(&self.ehlo_in_the_clear, withheld);
        let starttls = self.starttls && !withheld.contain(Capability::StartTls);
        ServerConfig { ehlo, ehlo_in_the_clear, starttls, withheld, ..self }
    }

    /// Whether STARTTLS is offered.
    pub fn offers_starttls(&self) -> bool {
        self.starttls
    }

    /// Whether mail is taken from users only.
    pub fn requires_auth(&self) -> bool {
        self.logins.is_some()
    }

    pub(super) fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// The reply to EHLO, under TLS or not.
    pub(super) fn ehlo(&self, secured: bool) -> &[u8] {
        if secured { &self.ehlo } else { &self.ehlo_in_the_clear }
    }

    pub(super) fn helo(&self) -> &[u8] {
        &self.helo
    }

    fn hostname(&self) -> &str {
        // The reply to HELO is the code and the name.
        self.helo.get(4..).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default().trim_end()
    }

    /// A challenge that no session had before, as CRAM-MD5 wants it (RFC 2195 §2).
    pub(super) fn challenge(&self, logins: &Logins) -> String {
        format!("<{}.{}@{}>", (logins.nonce)(), (logins.nonce)(), self.hostname())
    }
}

/// Who may log in.
#[derive(Clone, Debug)]
pub(super) struct Logins {
    pub(super) users: Arc<Users>,
    nonce: fn() -> u64,
}

/// A reply of several lines with one more behind its first.
fn with_line(reply: &[u8], line: &[u8]) -> Box<[u8]> {
    let first = reply.iter().position(|&octet| octet == b'\n').map_or(0, |at| at + 1);
    [&reply[..first], line, &reply[first..]].concat().into()
}

/// A reply to EHLO without the lines of these capabilities. Its last line is that of none.
fn without_lines(reply: &[u8], withheld: Capabilities) -> Box<[u8]> {
    let is_withheld = |line: &[u8]| {
        let keyword = line.get(4..).unwrap_or_default();
        let keyword = keyword.split(|octet| matches!(octet, b' ' | b'\r')).next().unwrap_or_default();
        withheld.iter().any(|capability| capability.name().as_bytes() == keyword)
    };
    reply.split_inclusive(|&octet| octet == b'\n').filter(|line| !is_withheld(line)).collect::<Vec<_>>().concat().into()
}
