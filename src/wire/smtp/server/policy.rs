//! What a server asks the one who runs it, and what it tells him.

use crate::time::Instant;
use bytes::Bytes;
use std::time::Duration;
use thiserror::Error;

/// Decides over what clients ask for and counts what happened. One policy serves all sessions of a shard.
pub trait Policy {
    /// Asked once for each command that is well-formed and in its place, and once for each whole message.
    fn decide(&mut self, now: Instant, question: Question<'_>) -> Decision;

    /// When a reply that would go out at `due` goes out: then, or later. Must not fall when `due` rises.
    #[inline]
    fn release(&self, due: Instant) -> Instant {
        due
    }

    /// How many octets of the beginning of each message are to be collected for [`Question::Message`] and
    /// [`Event::Message`]. With zero, which is the default, content costs nothing.
    #[inline]
    fn content_bytes_wanted(&self) -> usize {
        0
    }

    /// Whether the message that is coming is to be given to [`Policy::content`]. By default none is, and content costs
    /// nothing.
    #[inline]
    fn reads_content(&self) -> bool {
        false
    }

    /// The next octets of the message, without dot-stuffing. What is told of it, by [`Policy::decide`] and
    /// [`Policy::observe`], comes within the call that brings its last octet.
    #[inline]
    fn content(&mut self, _octets: &[u8]) {}

    /// Told of everything that is worth a count.
    #[inline]
    fn observe(&mut self, _event: Event) {}
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// To be greeted.
    Connect,
    /// To begin, by EHLO or HELO.
    Ehlo {
        /// The client's name for itself.
        name: &'a [u8],
        /// By EHLO, which is answered with what is offered.
        is_extended: bool,
    },
    /// To go on under TLS (RFC 3207).
    StartTls,
    /// To be let in (RFC 4954).
    Auth {
        /// Its name, which its password has proved. Without it a password was wrong: the reply says so, unless another one is
        /// answered.
        user: Option<&'a str>,
    },
    /// To begin a transaction.
    Mail {
        /// Without angle brackets; empty for the null reverse-path.
        reverse_path: &'a [u8],
        /// Octets of the message as declared; at most the server's maximum.
        size: Option<u64>,
    },
    /// To add a recipient.
    Rcpt {
        /// Without angle brackets.
        forward_path: &'a [u8],
    },
    /// To send the message.
    Data {
        /// Recipients accepted.
        recipients: u32,
    },
    /// To have a whole message, in which nothing is wrong, accepted.
    Message {
        /// Its octets.
        bytes: u64,
        /// Recipients accepted.
        recipients: u32,
        /// Its beginning, as much as [`Policy::content_bytes_wanted`] asked for.
        content: &'a [u8],
    },
    /// To end the session. Whatever is answered, it ends.
    Quit,
}

/// The answer to a question, and when it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is answered.
    pub answer: Answer,
    /// For how long the reply is held back, from now or from when the reply before it goes out, whichever is later: the
    /// time that a server spends which does one thing after the other. Later replies wait behind it. A drop or reset waits like a reply.
    pub hold: Duration,
}

impl Decision {
    /// Yes, at once.
    pub const ACCEPT: Decision = Decision { answer: Answer::Accept, hold: Duration::ZERO };

    /// No, at once.
    pub const fn refuse(refusal: Refusal) -> Decision {
        Decision { answer: Answer::Refuse(refusal), hold: Duration::ZERO }
    }
}

/// What is answered to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply that says yes.
    Accept,
    /// Another reply.
    Refuse(Refusal),
    /// None: the connection is closed once the replies before it are out.
    Drop,
    /// None: the connection is reset once the replies before it are out.
    Reset,
    /// To [`Question::Message`] alone: it is not decided yet. [`Session::settle`](super::Session::settle) decides, within
    /// [`Decision::hold`]; replies to what the client sends meanwhile wait behind it.
    Pending {
        /// What the decision will name; of one session never the same twice.
        ticket: u64,
        /// What is answered when nobody has decided in time.
        otherwise: Refusal,
    },
}

/// A reply of 4xx or 5xx, with its CRLF. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(Bytes);

impl Refusal {
    /// Of a complete line, as in `550 5.7.1 no\r\n`.
    pub const fn from_static(line: &'static str) -> Refusal {
        Refusal::new(Bytes::from_static(line.as_bytes()))
    }

    /// Of a complete line, as in `550 5.7.1 no\r\n`.
    pub const fn new(line: Bytes) -> Refusal {
        Refusal(line)
    }

    /// The whole line.
    pub fn line(&self) -> &[u8] {
        &self.0
    }

    /// The reply code, and the text behind it.
    pub fn code_and_text(&self) -> (u16, &[u8]) {
        let (code, text) = self.0.split_at(self.0.len().min(3));
        (code.iter().fold(0, |code, digit| 10 * code + u16::from(digit.wrapping_sub(b'0'))), text.trim_ascii())
    }

    /// Whether the server closes the connection after it (RFC 5321 §3.8).
    pub fn closes(&self) -> bool {
        self.0.starts_with(b"421")
    }
}

/// What happened in a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was accepted.
    SessionOpened,
    /// A TLS handshake came to its good end.
    Secured {
        /// It resumed an earlier session.
        resumed: bool,
    },
    /// An AUTH exchange came to its end.
    Login {
        /// The client is logged in; else it was refused, or the exchange was none.
        granted: bool,
    },
    /// A line arrived where a command was due, whatever it was.
    Command,
    /// The peer did what it must not.
    Error(SessionError),
    /// A message was accepted: its last octet has been consumed.
    Message {
        /// Octets of the message.
        bytes: u64,
        /// Recipients for whom it was accepted.
        recipients: u32,
        /// Its beginning, as much as [`Policy::content_bytes_wanted`] asked for.
        content: Vec<u8>,
    },
}

/// What a peer did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// A command that is unknown, not implemented or malformed.
    #[error("command that is unknown or malformed")]
    Command,
    /// A command out of its place.
    #[error("command out of sequence")]
    Sequence,
    /// A command line longer than [`LINE_BYTES_MAX`](super::LINE_BYTES_MAX).
    #[error("command line too long")]
    LineTooLong,
    /// A command line with a bare CR, a bare LF or a NUL.
    #[error("command line with a bare CR, a bare LF or a NUL")]
    LineFault,
    /// A message with a bare CR, a bare LF or a NUL.
    #[error("message with a bare CR, a bare LF or a NUL")]
    DataFault,
    /// A message larger than the server takes, announced or sent.
    #[error("message too large")]
    TooLarge,
    /// Octets before the greeting, or behind DATA before the 354.
    #[error("octets before the reply that had to be awaited")]
    TooEarly,
    /// A TLS handshake that failed, or TLS that broke.
    #[error("TLS failed")]
    Tls,
    /// Nothing, or too little, for too long.
    #[error("timed out")]
    TimedOut,
    /// The connection ended within a message.
    #[error("connection ended within a message")]
    CutOff,
    /// More replies waiting than [`HELD_BYTES_MAX`](super::HELD_BYTES_MAX).
    #[error("more commands than replies can be held for")]
    TooManyHeld,
}
