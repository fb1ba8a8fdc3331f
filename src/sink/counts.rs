//! What arrived at a sink.

use crate::sink::mailgun::HttpCounts;
use crate::wire::smtp::server::Event;
use serde::Serialize;
use std::ops::AddAssign;

/// Counters of one shard, or of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Connections that were accepted.
    pub sessions: u64,
    /// Messages that were accepted: each was consumed to its last octet before it was counted.
    pub messages: u64,
    /// Recipients of those messages.
    pub recipients: u64,
    /// Octets of those messages, without dot-stuffing and the ending dot.
    pub bytes: u64,
    /// TLS handshakes that came to a good end.
    pub tls_handshakes: u64,
    /// Those of them that resumed an earlier session.
    pub tls_resumed: u64,
    /// Logins.
    pub auth_granted: u64,
    /// AUTH exchanges that ended without a login.
    pub auth_refused: u64,
    /// Command lines, faulty ones included.
    pub commands: u64,
    /// What clients did wrong: protocol errors, time-outs, messages cut off. Injected faults and refused domains are
    /// none.
    pub errors: u64,
}

impl Counts {
    /// Counts one event.
    #[inline]
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::SessionOpened => self.sessions += 1,
            Event::Secured { resumed } => {
                self.tls_handshakes += 1;
                self.tls_resumed += u64::from(*resumed);
            }
            Event::Login { granted: true } => self.auth_granted += 1,
            Event::Login { granted: false } => self.auth_refused += 1,
            Event::Command => self.commands += 1,
            Event::Error(_) => self.errors += 1,
            Event::Message { bytes, recipients, .. } => {
                self.messages += 1;
                self.recipients += u64::from(*recipients);
                self.bytes += bytes;
            }
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.sessions += other.sessions;
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.bytes += other.bytes;
        self.tls_handshakes += other.tls_handshakes;
        self.tls_resumed += other.tls_resumed;
        self.auth_granted += other.auth_granted;
        self.auth_refused += other.auth_refused;
        self.commands += other.commands;
        self.errors += other.errors;
    }
}

/// What arrived at a sink in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkCounts {
    /// By SMTP.
    #[serde(flatten)]
    pub smtp: Counts,
    /// By HTTP, where that was listened for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCounts>,
}

impl AddAssign<&SinkCounts> for SinkCounts {
    fn add_assign(&mut self, other: &SinkCounts) {
        self.smtp += other.smtp;
        if let Some(http) = &other.http {
            *self.http.get_or_insert_default() += http;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_shards_add_up() {
        let mut all = Counts::default();
        all.add(&Event::SessionOpened);
        all.add(&Event::Message { bytes: 7, recipients: 2, content: Vec::new() });
        all += all;
        assert_eq!(all, Counts { sessions: 2, messages: 2, recipients: 4, bytes: 14, ..Counts::default() });
    }
}
