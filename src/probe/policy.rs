//! What our own port 25 answers: mail for the probe address only, of which nothing is kept but that it arrived.
//!
//! A message that is whole is not accepted at once: its header block goes to control as an [`Arrival`], and its reply
//! waits for control's word, so that the arrival is stored before the server that sends it is told so.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use bytes::Bytes;

use crate::message::Mailbox;
use crate::time::Instant;
use crate::wire::smtp::server::{Answer, Decision, Event, Policy, Question, Refusal, ServerConfig, SessionError};

/// Octets of a message's header block, its empty line included; a message with a longer one is refused by 552.
pub const HEADER_BYTES_MAX: usize = 256 << 10;
/// Arrivals that control may have left untaken; beyond it a message is put off by 451.
pub const ARRIVALS_PENDING_MAX: usize = 64;
/// How long a reply waits for control's word before the message is put off by 451.
pub const WORD_WITHIN: Duration = Duration::from_secs(10);
/// The longest session: whoever takes longer is cut off. A server that has so much to say comes again.
pub const SESSION_TIME_MAX: Duration = Duration::from_secs(600);

/// The reply to a message that could not be stored, or for which control had no word in time.
pub const DEFERRED: Refusal = Refusal::from_static("451 4.3.0 try again later\r\n");
/// The last reply of a session that ends because others have none, see [`ProbePolicy::crowd`].
pub const MADE_ROOM: &[u8] = b"421 4.7.0 too many connections from your address, closing\r\n";
const FULL: Refusal = Refusal::from_static("421 4.7.0 too many connections, try again later\r\n");
const FULL_FOR_CLIENT: Refusal =
    Refusal::from_static("421 4.7.0 too many connections from your address, try again later\r\n");
const TOO_MANY_MESSAGES: Refusal = Refusal::from_static("421 4.7.0 too many messages in one session, closing\r\n");
const NOT_OURS: Refusal = Refusal::from_static("550 5.7.1 no mail for this address here\r\n");
const HEADER_TOO_LONG: Refusal = Refusal::from_static("552 5.3.4 message header too large\r\n");

/// What a listener bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once.
    pub connections_max: u32,
    /// Connections at once from one address.
    pub connections_per_client_max: u32,
    /// Messages of a session, accepted or not.
    pub messages_per_session_max: u32,
    /// Octets of a message; advertised as SIZE.
    pub message_bytes_max: u64,
    /// Recipients of a message.
    pub recipients_max: u32,
    /// Commands of a session that bring no message, since its last one.
    pub idle_commands_max: u32,
    /// Protocol errors of a session.
    pub errors_max: u32,
    /// From the reply to one command to the end of the next one.
    pub command_timeout: Duration,
    /// From the 354 to the end of the message.
    pub data_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_max: 100,
            connections_per_client_max: 20,
            messages_per_session_max: 100,
            message_bytes_max: 10 << 20,
            recipients_max: 100,
            idle_commands_max: 100,
            errors_max: 20,
            command_timeout: Duration::from_secs(5 * 60),
            data_timeout: Duration::from_secs(10 * 60),
        }
    }
}

/// A message that has arrived whole and waits for its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What the answer must name; used once in the life of a listener.
    pub ticket: u64,
    /// Its header block as received, up to and with the empty line that ends it; at most [`HEADER_BYTES_MAX`] octets.
    pub header: Bytes,
    /// Octets of the whole message.
    pub bytes: u64,
    /// The end of data, by the shard's clock.
    pub arrived: Instant,
    /// Whom it came from.
    pub client: Option<IpAddr>,
    /// It came under TLS.
    pub secured: bool,
    /// Its reverse-path, empty for the null one.
    pub reverse_path: Bytes,
    /// It is for the postmaster alone, whose mail every server must take (RFC 5321 §4.5.1): no probe.
    pub to_postmaster: bool,
}

/// Control's word on an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored, or known not to be worth it: `250`.
    Accept,
    /// It could not be stored, or not now: `451 4.3.0 try again later`.
    Defer,
}

/// What a listener has seen since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Connections, those that were turned away included.
    pub sessions: u64,
    /// Those of them that were turned away for want of room: in all, or from their address.
    pub sessions_refused: u64,
    /// Sessions that were ended so that a client with fewer of them had room.
    pub sessions_ended: u64,
    /// TLS handshakes that came to a good end.
    pub secured: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Messages put off, by control or for want of its word.
    pub deferred: u64,
    /// Messages refused: too large, with a bare CR, LF or NUL, or with too long a header block.
    pub refused: u64,
    /// Those of them whose header block was too long, or none.
    pub malformed: u64,
    /// Recipients refused: not the probe address.
    pub recipients_refused: u64,
    /// Other protocol errors.
    pub errors: u64,
}

/// The policy of a listener, for all of its sessions.
#[derive(Debug)]
pub struct ProbePolicy {
    address: Mailbox,
    hostname: String,
    limits: ServerLimits,
    /// Connections by client.
    clients: HashMap<IpAddr, u32>,
    connections: u32,
    tickets: u64,
    arrivals: Vec<Arrival>,
    /// What was seen so far.
    pub counts: ServerCounts,
}

/// What a policy knows of one client's connection.
#[derive(Debug)]
pub struct Visitor {
    client: Option<IpAddr>,
    /// When it must be gone.
    until: Instant,
    secured: bool,
    messages: u32,
    reverse_path: Bytes,
    to_probe: bool,
}

impl Visitor {
    /// Whether it belongs to a client that [`ProbePolicy::crowd`] has named.
    pub fn is_of(&self, client: IpAddr) -> bool {
        self.client.map(network) == Some(client)
    }

    /// When it must be gone, whatever it does.
    pub fn until(&self) -> Instant {
        self.until
    }
}

impl ServerLimits {
    /// The settings of the sessions of a server that calls itself `hostname`.
    pub fn config(&self, hostname: &str) -> ServerConfig {
        let mut config = ServerConfig::new(hostname, self.message_bytes_max, true);
        config.recipients_max = self.recipients_max;
        config.errors_max = self.errors_max;
        config.idle_commands_max = self.idle_commands_max;
        config.command_timeout = self.command_timeout;
        config.data_timeout = self.data_timeout;
        config
    }
}

impl ProbePolicy {
    /// The policy of a server `hostname` that takes mail for `address`.
    pub fn new(address: Mailbox, hostname: String, limits: ServerLimits) -> ProbePolicy {
        ProbePolicy {
            address,
            hostname,
            limits,
            clients: HashMap::new(),
            connections: 0,
            tickets: 0,
            arrivals: Vec::new(),
            counts: ServerCounts::default(),
        }
    }

    /// A connection was accepted. To be given back to [`ProbePolicy::leave`].
    pub fn enter(&mut self, now: Instant, client: Option<IpAddr>) -> Visitor {
        self.connections += 1;
        if let Some(client) = client {
            *self.clients.entry(network(client)).or_default() += 1;
        }
        let until = now + SESSION_TIME_MAX;
        Visitor { client, until, secured: false, messages: 0, reverse_path: Bytes::new(), to_probe: false }
    }

    /// Its connection has ended.
    pub fn leave(&mut self, visitor: &Visitor) {
        self.connections -= 1;
        if let Some(client) = visitor.client.map(network)
            && let Some(connections) = self.clients.get_mut(&client)
        {
            *connections -= 1;
            if *connections == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// Where there is no room for a visitor who has just entered, the client with the most connections, if it has more than
    /// the visitor's: one of its sessions is to end, so that a few addresses cannot keep out all others. IPv6 by network.
    pub fn crowd(&self, visitor: &Visitor) -> Option<IpAddr> {
        let client = visitor.client.map(network)?;
        let own = self.clients.get(&client).copied().unwrap_or(0);
        let (crowd, most) = self.clients.iter().max_by_key(|(client, connections)| (**connections, **client))?;
        (self.connections > self.limits.connections_max && *most > own).then_some(*crowd)
    }

    /// The policy of one visitor's session.
    pub fn of<'a>(&'a mut self, visitor: &'a mut Visitor) -> VisitorPolicy<'a> {
        VisitorPolicy { policy: self, visitor }
    }

    /// The messages that wait for control's word since the last call. To be called after each call of a session.
    pub fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals)
    }

    fn greet(&mut self, visitor: &Visitor) -> Option<Refusal> {
        let of_client = visitor.client.and_then(|client| self.clients.get(&network(client))).copied().unwrap_or(0);
        if self.connections > self.limits.connections_max {
            Some(FULL)
        } else if of_client > self.limits.connections_per_client_max {
            Some(FULL_FOR_CLIENT)
        } else {
            None
        }
    }

    fn is_probe(&self, forward_path: &[u8]) -> bool {
        // The part before the @ is ours, so that its case is ours to pass over.
        forward_path.eq_ignore_ascii_case(self.address.as_bytes())
    }

    fn is_postmaster(&self, forward_path: &[u8]) -> bool {
        let (local, domain) = match memchr::memrchr(b'@', forward_path) {
            Some(at) => (&forward_path[..at], Some(&forward_path[at + 1..])),
            None => (forward_path, None),
        };
        let address = self.address.as_bytes();
        let own = memchr::memrchr(b'@', address).map_or(&b""[..], |at| &address[at + 1..]);
        let is_own =
            |domain: &[u8]| domain.eq_ignore_ascii_case(own) || domain.eq_ignore_ascii_case(self.hostname.as_bytes());
        local.eq_ignore_ascii_case(b"postmaster") && domain.is_none_or(is_own)
    }

    /// A message is whole: it waits, or what is wrong with it.
    fn take(&mut self, visitor: &Visitor, now: Instant, bytes: u64, content: &[u8]) -> Decision {
        let Some(header) = header_block(content, bytes) else {
            self.counts.refused += 1;
            self.counts.malformed += 1;
            return Decision::refuse(HEADER_TOO_LONG);
        };
        self.tickets += 1;
        self.arrivals.push(Arrival {
            ticket: self.tickets,
            header: Bytes::copy_from_slice(header),
            bytes,
            arrived: now,
            client: visitor.client,
            secured: visitor.secured,
            reverse_path: visitor.reverse_path.clone(),
            to_postmaster: !visitor.to_probe,
        });
        Decision { answer: Answer::Pending { ticket: self.tickets, otherwise: DEFERRED }, hold: WORD_WITHIN }
    }
}

/// A [`ProbePolicy`] as one visitor meets it.
#[derive(Debug)]
pub struct VisitorPolicy<'a> {
    policy: &'a mut ProbePolicy,
    visitor: &'a mut Visitor,
}

impl Policy for VisitorPolicy<'_> {
    fn decide(&mut self, now: Instant, question: Question<'_>) -> Decision {
        let VisitorPolicy { policy, visitor } = self;
        let refusal = match question {
            Question::Connect => {
                let refusal = policy.greet(visitor);
                policy.counts.sessions_refused += u64::from(refusal.is_some());
                refusal
            }
            Question::Mail { .. } if visitor.messages >= policy.limits.messages_per_session_max => {
                Some(TOO_MANY_MESSAGES)
            }
            Question::Mail { reverse_path, .. } => {
                visitor.messages += 1;
                visitor.to_probe = false;
                visitor.reverse_path = Bytes::copy_from_slice(reverse_path);
                None
            }
            Question::Rcpt { forward_path } if policy.is_probe(forward_path) => {
                visitor.to_probe = true;
                None
            }
            Question::Rcpt { forward_path } if policy.is_postmaster(forward_path) => None,
            Question::Rcpt { .. } => {
                policy.counts.recipients_refused += 1;
                Some(NOT_OURS)
            }
            Question::Message { bytes, content, .. } => return policy.take(visitor, now, bytes, content),
            Question::Ehlo { .. }
            | Question::StartTls
            | Question::Auth { .. }
            | Question::Data { .. }
            | Question::Quit => None,
        };
        refusal.map_or(Decision::ACCEPT, Decision::refuse)
    }

    fn content_bytes_wanted(&self) -> usize {
        HEADER_BYTES_MAX
    }

    fn observe(&mut self, event: Event) {
        let counts = &mut self.policy.counts;
        match event {
            Event::SessionOpened => counts.sessions += 1,
            Event::Secured { .. } => {
                self.visitor.secured = true;
                counts.secured += 1;
            }
            Event::Error(SessionError::DataFault | SessionError::TooLarge) => counts.refused += 1,
            Event::Error(_) => counts.errors += 1,
            Event::Command | Event::Login { .. } | Event::Message { .. } => {}
        }
    }
}

/// What counts as one client: an address, of IPv6 the network of 64 bits that one customer has at least (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The header block of a message of `bytes` octets that begins with `content`, with the empty line that ends it; `None`
/// where it goes beyond `content`.
fn header_block(content: &[u8], bytes: u64) -> Option<&[u8]> {
    if content.starts_with(b"\r\n") {
        return Some(&content[..2]);
    }
    match memchr::memmem::find(content, b"\r\n\r\n") {
        Some(at) => Some(&content[..at + 4]),
        // A message may have no body at all (RFC 5322 §2.1).
        None => (bytes <= content.len() as u64).then_some(content),
    }
}

#[cfg(test)]
mod tests;
