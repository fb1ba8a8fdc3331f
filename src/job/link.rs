//! What a worker and whoever owns its connections say to each other.

use crate::measure::recorder::Blame;
use crate::outgoing::Outgoing;
use crate::time::Instant;

/// The connections of one worker, each known by its slot's number. The pump implements it over io_uring, the
/// simulation over a network of its own.
pub trait Links {
    /// Opens the slot's connection; its close, if one is under way, comes first. Answered by
    /// [`super::worker::Worker::connected`] or [`super::worker::Worker::connect_failed`].
    fn dial(&mut self, slot: u32);

    /// Where bytes for the slot's peer are put. They leave together at the end of the turn, which
    /// [`super::worker::Worker::written`] tells.
    fn outgoing(&mut self, slot: u32) -> &mut Outgoing;

    /// Begins TLS on the slot's connection. Answered by [`super::worker::Worker::tls_ready`] or
    /// [`super::worker::Worker::tls_failed`].
    fn start_tls(&mut self, slot: u32);

    /// Closes the slot's connection, open or still opening. Nothing is heard of it afterwards.
    fn close(&mut self, slot: u32);

    /// Asks for [`super::worker::Worker::timer`] at `at`; replaces what was asked for before.
    fn deadline(&mut self, slot: u32, at: Instant);
}

/// What a TLS handshake has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// The protocol's name, from a closed set.
    pub version: &'static str,
    /// The cipher suite's name, from a closed set.
    pub cipher: &'static str,
    /// It resumed an earlier session.
    pub resumed: bool,
}

/// Why TLS did not come about, or broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// A short name from a closed set: `certificate`, `handshake`, or `tls` behind the handshake.
    pub kind: &'static str,
    /// In words.
    pub reason: String,
}

/// Why a connection could not be opened or broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkError {
    /// Nobody listens there.
    Refused,
    /// The peer, or the network, ended the connection without ceremony.
    Reset,
    /// No route, or the host does not answer.
    Unreachable,
    /// The connection was not open within the time limit.
    TimedOut,
    /// Every local port towards this target is in use.
    NoPorts,
    /// No more descriptors, or no room in the ring's table of files.
    NoDescriptors,
    /// The machine has no memory for another socket.
    NoMemory,
    /// Any other error, by its number (errno).
    Other(i32),
}

impl LinkError {
    /// Who must act.
    pub const fn blame(self) -> Blame {
        match self {
            LinkError::NoPorts | LinkError::NoDescriptors | LinkError::NoMemory => Blame::Generator,
            _ => Blame::Peer,
        }
    }

    /// A short name from a closed set.
    pub const fn kind(self) -> &'static str {
        match self {
            LinkError::Refused => "refused",
            LinkError::Reset => "reset",
            LinkError::Unreachable => "unreachable",
            LinkError::TimedOut => "timeout",
            LinkError::NoPorts => "ports",
            LinkError::NoDescriptors => "descriptors",
            LinkError::NoMemory => "memory",
            LinkError::Other(_) => "network",
        }
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkError::Refused => f.write_str("connection refused: nothing listens there"),
            LinkError::Reset => f.write_str("connection reset by the peer"),
            LinkError::Unreachable => f.write_str("host or network unreachable"),
            LinkError::TimedOut => f.write_str("the connection was not open within the time limit"),
            LinkError::NoPorts => f.write_str(
                "no free local port towards the target: use fewer connections, keep them longer, or widen \
                 net.ipv4.ip_local_port_range",
            ),
            LinkError::NoDescriptors => f.write_str("no free descriptor: raise the limit with `ulimit -n`"),
            LinkError::NoMemory => f.write_str("no memory for another socket"),
            LinkError::Other(errno) => write!(f, "network error {errno}"),
        }
    }
}
