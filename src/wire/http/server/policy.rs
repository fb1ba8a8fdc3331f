//! What a server asks the one who runs it, and what it tells him.

use std::time::Duration;

use httparse::Header;
use thiserror::Error;

use crate::time::Instant;

/// Decides over what clients ask for and counts what happened. One policy serves all sessions of a shard.
pub trait Policy {
    /// What it has to remember of the request that a session is receiving.
    type Request: Default + std::fmt::Debug;

    /// A request's head is there, and its framing is right. Called once for each request, before its content.
    fn begin(&mut self, now: Instant, head: &RequestHead<'_>, request: &mut Self::Request) -> Intake;

    /// The next octets of the content.
    fn content(&mut self, request: &mut Self::Request, octets: &[u8]);

    /// The request is whole, or was not to be read: what is answered. Called once for each request.
    fn decide(&mut self, now: Instant, request: &mut Self::Request) -> Decision<'_>;

    /// When a response that would go out at `due` goes out: then, or later. Must not fall when `due` rises.
    #[inline]
    fn release(&self, due: Instant) -> Instant {
        due
    }

    /// Told of everything that is worth a count.
    #[inline]
    fn observe(&mut self, _event: Event) {}
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// As it came: methods are in capitals.
    pub method: &'a str,
    /// As it came: mostly the path, with a query if there is one.
    pub target: &'a str,
    /// The fields.
    pub headers: &'a [Header<'a>],
}

impl<'a> RequestHead<'a> {
    /// The first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let found = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value.trim_ascii())
    }
}

/// What becomes of a request's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is given to [`Policy::content`].
    Read,
    /// It is thrown away, since the answer is known; a client that waits for its 100 is answered at once.
    Discard,
}

/// What is answered, and when.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// `None` drops the connection once the responses before it are out.
    pub answer: Option<Answer<'a>>,
    /// For how long the response is held back, from now or from when the response before it goes out, whichever is later.
    pub hold: Duration,
}

/// A response with JSON content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// From 200 to 599.
    pub status: u16,
    /// Fields beside those that the session writes itself, each with its CRLF.
    pub fields: &'a [u8],
    /// The content.
    pub json: &'a [u8],
}

/// What happened in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    SessionOpened,
    /// A TLS handshake came to its good end.
    Secured {
        /// It resumed an earlier session.
        resumed: bool,
    },
    /// A request was answered, by the policy or for its faults.
    Answered {
        /// With this.
        status: u16,
    },
    /// The peer did what it must not.
    Error(SessionError),
}

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// A head that is no HTTP/1.0 or HTTP/1.1, or one that leaves open where the request ends.
    #[error("malformed request")]
    Malformed,
    /// A head beyond its bounds.
    #[error("head of a request too large")]
    HeadTooLarge,
    /// A body beyond [`ServerConfig::body_bytes_max`](super::ServerConfig::body_bytes_max).
    #[error("body of a request too large")]
    BodyTooLarge,
    /// Nothing, or too little, for too long within a request.
    #[error("timed out")]
    TimedOut,
    /// The connection ended within a request.
    #[error("connection ended within a request")]
    CutOff,
    /// A TLS handshake that failed, or TLS that broke.
    #[error("TLS failed")]
    Tls,
    /// More responses waiting than can be held.
    #[error("more requests than responses can be held for")]
    TooManyHeld,
}
