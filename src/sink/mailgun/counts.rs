//! What arrived at the stub.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

/// Counters of one shard, or of all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HttpCounts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests that were answered, faulty ones included.
    pub requests: u64,
    /// Messages that were accepted: each was consumed to its last octet before it was counted.
    pub messages: u64,
    /// Recipients of those messages.
    pub recipients: u64,
    /// Octets of the content of those messages' requests, without the framing of chunks.
    pub bytes: u64,
    /// TLS handshakes that came to a good end.
    pub tls_handshakes: u64,
    /// Those of them that resumed an earlier session.
    pub tls_resumed: u64,
    /// Answers by their status.
    pub statuses: BTreeMap<u16, u64>,
    /// What clients did wrong as speakers of HTTP: protocol errors, time-outs, requests cut off. What Mailgun would refuse
    /// is none, and injected faults are none.
    pub errors: u64,
}

impl AddAssign<&HttpCounts> for HttpCounts {
    fn add_assign(&mut self, other: &HttpCounts) {
        self.connections += other.connections;
        self.requests += other.requests;
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.bytes += other.bytes;
        self.tls_handshakes += other.tls_handshakes;
        self.tls_resumed += other.tls_resumed;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.errors += other.errors;
    }
}
