//! The client's side of an SMTP session as a machine without I/O (RFC 5321, with PIPELINING of RFC 2920, STARTTLS of
//! RFC 3207 and AUTH of RFC 4954).
//!
//! Feed it with [`Client::handle`] and its siblings, then drain [`Client::poll_output`] until it says
//! [`Output::Wait`] or [`Output::Close`]. It says *what* is to be written; the driver, who knows the message, turns
//! that into bytes and calls [`Client::written`] when they leave. Pipelining stays inside one transaction: MAIL, every
//! RCPT and DATA go out as one group, and the next MAIL waits for the reply to the message.
//!
//! TLS is the driver's affair: told by [`Output::StartTls`] it begins the handshake, calls [`Client::tls_ready`] at its
//! end, and from the output on hands in what it has deciphered.

mod login;
mod session;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use self::session::{Dialogue, State};
use super::auth::{ChallengeError, Credentials, Mechanism};
use super::reply::{Capabilities, Class, EnhancedCode, ReplyError, ReplyLine};
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::line::{LineError, LineScanner};

/// Longest reply line that is read, in octets without its CRLF. RFC 5321 §4.5.3.1.5 allows 512.
pub const REPLY_LINE_BYTES_MAX: u32 = 2_048;
/// Most lines that one reply may have.
pub const REPLY_LINES_MAX: u32 = 128;

/// Longest wait for the reply to QUIT, for which RFC 5321 names none: a run is not kept from its end for it.
pub const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the client waits for each reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting, from the open connection.
    pub banner: Duration,
    /// For the TLS handshake, for which RFC 5321 names none.
    pub tls: Duration,
    /// For EHLO and HELO.
    pub ehlo: Duration,
    /// For STARTTLS, for which RFC 5321 names none.
    pub starttls: Duration,
    /// For each reply of an AUTH exchange, for which RFC 4954 names none.
    pub auth: Duration,
    /// For MAIL.
    pub mail: Duration,
    /// For each RCPT.
    pub rcpt: Duration,
    /// For the 354.
    pub data: Duration,
    /// From the first octet of the message to its reply.
    pub message: Duration,
    /// For RSET.
    pub rset: Duration,
    /// For QUIT, on which nothing depends any more.
    pub quit: Duration,
}

impl Timeouts {
    /// The least that RFC 5321 §4.5.3.2 asks of a client.
    pub const RFC_5321: Timeouts = Timeouts {
        banner: Duration::from_secs(300),
        tls: Duration::from_secs(300),
        ehlo: Duration::from_secs(300),
        starttls: Duration::from_secs(300),
        auth: Duration::from_secs(300),
        mail: Duration::from_secs(300),
        rcpt: Duration::from_secs(300),
        data: Duration::from_secs(120),
        message: Duration::from_secs(600),
        rset: Duration::from_secs(300),
        quit: QUIT_TIMEOUT,
    };

    /// The same limit for every reply.
    pub const fn uniform(limit: Duration) -> Timeouts {
        let quit = if limit.as_nanos() < QUIT_TIMEOUT.as_nanos() { limit } else { QUIT_TIMEOUT };
        Timeouts {
            banner: limit,
            tls: limit,
            ehlo: limit,
            starttls: limit,
            auth: limit,
            mail: limit,
            rcpt: limit,
            data: limit,
            message: limit,
            rset: limit,
            quit,
        }
    }
}

/// When a session changes over to TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsStart {
    /// Never.
    #[default]
    Never,
    /// Before the greeting (RFC 8314 §3).
    AtOnce,
    /// By STARTTLS (RFC 3207), without which there is no session.
    StartTls,
}

/// What a server must offer for a job's messages: without it nothing is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// 8BITMIME (RFC 6152): octets above 127.
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531): such octets in a header or an address.
    pub smtp_utf8: bool,
}

/// How all sessions of a job talk.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// When TLS begins.
    pub tls: TlsStart,
    /// What the messages need of a server.
    pub needs: Needs,
    /// Whom to log in as. Without TLS that is done only where it never begins ([`TlsStart::Never`]): with
    /// [`TlsStart::StartTls`] there is no session in the clear.
    pub auth: Option<Arc<Credentials>>,
    /// Use PIPELINING where the server offers it.
    pub pipelining: bool,
    /// Limits of every reply.
    pub timeouts: Timeouts,
}

/// What the driver is to write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// EHLO.
    Ehlo,
    /// HELO, after EHLO was refused.
    Helo,
    /// STARTTLS.
    StartTls,
    /// AUTH by this mechanism; [`Client::write_auth`] has the line.
    Auth(Mechanism),
    /// The answer to a challenge; [`Client::write_auth`] has the line.
    AuthAnswer,
    /// MAIL alone.
    Mail,
    /// RCPT for the recipient with this index.
    Rcpt(u32),
    /// DATA alone.
    Data,
    /// MAIL, all RCPT and DATA in one go.
    Group,
    /// The dot-stuffed message and the terminating dot.
    Message,
    /// The terminating dot alone: the server said 354 though it accepted no recipient (RFC 2920 §3.1).
    EmptyMessage,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

/// How many recipients of one transaction met which fate. The three add up to the transaction's recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecipientTally {
    /// Accepted, by RCPT and by the reply to the message.
    pub accepted: u32,
    /// Answered 4xx, themselves or through their message.
    pub deferred: u32,
    /// Answered 5xx, themselves or through their message.
    pub rejected: u32,
}

impl RecipientTally {
    fn add(&mut self, class: Class, count: u32) {
        match class {
            Class::Positive => self.accepted += count,
            Class::Transient => self.deferred += count,
            Class::Permanent => self.rejected += count,
        }
    }
}

/// What happened, as far as the driver must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session takes the next [`Client::begin`] or [`Client::quit`].
    Ready,
    /// The transaction has its outcome.
    Done {
        /// Accepted, deferred or rejected.
        class: Class,
        /// The phase whose reply decided.
        phase: Phase,
        /// The fate of each recipient.
        recipients: RecipientTally,
    },
    /// The server does not want the session: a 4xx or 5xx to the greeting, EHLO, AUTH, RSET or out of turn.
    Refused {
        /// [`Class::Transient`] or [`Class::Permanent`].
        class: Class,
        /// The reply's code.
        code: u16,
        /// Where it said so.
        phase: Phase,
    },
    /// The session broke.
    Failed {
        /// Where it broke.
        phase: Phase,
        /// How.
        error: ClientError,
    },
}

/// How a greeting failed to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGreeting {
    /// The server closed the connection.
    Closed,
    /// The time limit has passed.
    TimedOut,
}

impl std::fmt::Display for NoGreeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoGreeting::Closed => "before the server closed the connection",
            NoGreeting::TimedOut => "within the time limit",
        })
    }
}

/// What broke a session. All of these are the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClientError {
    /// The peer closed the connection where a reply was due, or between two messages.
    #[error("the server closed the connection")]
    Closed,
    /// No reply within the time limit.
    #[error("no reply within the time limit")]
    TimedOut,
    /// A reply line that is none.
    #[error("malformed reply: {0}")]
    Reply(ReplyError),
    /// A reply line that is not one line of text ended by CRLF.
    #[error("malformed reply: {0}")]
    Line(LineError),
    /// A reply of several lines whose codes differ.
    #[error("the lines of one reply have different codes")]
    MixedCodes,
    /// More than [`REPLY_LINES_MAX`] lines.
    #[error("a reply of more than {REPLY_LINES_MAX} lines")]
    TooManyLines,
    /// A positive code that means nothing here.
    #[error("unexpected reply code {0}")]
    UnexpectedCode(u16),
    /// STARTTLS is wanted and not offered.
    #[error("the server does not offer STARTTLS, and without it nothing is sent")]
    StartTlsNotOffered,
    /// STARTTLS was answered, but not by 220.
    #[error("STARTTLS was answered {0} instead of 220, and without it nothing is sent")]
    StartTlsRefused(u16),
    /// Octets in the clear behind the 220 to STARTTLS (RFC 3207 §4.2): somebody wants them taken for the server's words.
    #[error("octets in the clear behind the reply to STARTTLS, where only TLS may follow")]
    Injection,
    /// There are credentials and no mechanism that they can be used with.
    #[error("the server offers none of AUTH PLAIN, LOGIN and CRAM-MD5, and without a login nothing is sent")]
    AuthNotOffered,
    /// The same, where STARTTLS is offered: many a server takes logins under TLS alone.
    #[error(
        "the server offers no AUTH in the clear, though it offers STARTTLS: smtp+starttls:// (smtp_connection_type \
         starttls) may have it; without a login nothing is sent"
    )]
    AuthNeedsTls,
    /// The messages need 8BITMIME, which is not offered.
    #[error(
        "the messages have octets above 127, and the server does not offer 8BITMIME, without which they may not be sent: \
         use text and values in ASCII, or another server"
    )]
    EightBitMimeNotOffered,
    /// The messages or their addresses need SMTPUTF8, which is not offered.
    #[error(
        "addresses or header fields have characters beyond ASCII, and the server does not offer SMTPUTF8, without which they \
         may not be sent: use addresses, subject and values in ASCII, or another server"
    )]
    SmtpUtf8NotOffered,
    /// The server ended a connection on which it had not said a word, or said none in time.
    #[error(
        "no greeting {0}: a port with TLS from the first byte (smtps://), or one of HTTP (http://), says nothing either"
    )]
    NoGreeting(NoGreeting),
    /// An answer of HTTP in the place of a greeting.
    #[error("an answer of HTTP: this is no mail server; its URL begins with http:// or https://")]
    Http,
    /// A challenge of AUTH that has no answer.
    #[error("AUTH: {0}")]
    Challenge(ChallengeError),
    /// A reply that nothing had asked for, or that came before its command had left.
    #[error("a reply without a command, code {0}")]
    Unsolicited(u16),
}

impl ClientError {
    /// A short name from a closed set, for reports and metrics.
    pub const fn kind(self) -> &'static str {
        match self {
            ClientError::Closed | ClientError::NoGreeting(NoGreeting::Closed) => "closed",
            ClientError::TimedOut | ClientError::NoGreeting(NoGreeting::TimedOut) => "timeout",
            ClientError::StartTlsNotOffered => "not_offered",
            ClientError::AuthNotOffered | ClientError::AuthNeedsTls => "auth_not_offered",
            ClientError::EightBitMimeNotOffered => "8bitmime_not_offered",
            ClientError::SmtpUtf8NotOffered => "smtputf8_not_offered",
            ClientError::StartTlsRefused(_) => "not_granted",
            ClientError::Injection => "injection",
            _ => "protocol",
        }
    }
}

/// What [`Client::poll_output`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this.
    Write(Write),
    /// Take note of this.
    Event(Event),
    /// Begin the TLS handshake: whatever comes and goes from now on is ciphered. Answered by [`Client::tls_ready`].
    StartTls,
    /// Nothing to do before input comes or this instant has passed.
    Wait(Instant),
    /// Close the connection; nothing follows.
    Close,
}

/// A complete reply, for whoever counts and times replies. The text is that of the first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// What it answers.
    pub phase: Phase,
    /// 200 to 599.
    pub code: u16,
    /// The code's class.
    pub class: Class,
    /// The enhanced status code, if there was one.
    pub enhanced: Option<EnhancedCode>,
    /// The text of the first line, behind the codes.
    pub text: &'a [u8],
}

/// What one call of [`Client::handle`] did.
#[derive(Debug, PartialEq, Eq)]
pub struct Handled<'a> {
    /// Octets eaten: call again with the rest, after draining the outputs.
    pub consumed: usize,
    /// The reply that was completed by them.
    pub reply: Option<Reply<'a>>,
}

/// One client session.
#[derive(Debug)]
pub struct Client {
    scanner: LineScanner,
    dialogue: Dialogue,
}

impl Client {
    /// A session whose connection is being opened.
    pub fn new() -> Client {
        Client { scanner: LineScanner::new(REPLY_LINE_BYTES_MAX), dialogue: Dialogue::new() }
    }

    /// The connection is open; the greeting, or the end of the TLS handshake, is awaited.
    pub fn connected(&mut self, now: Instant, config: &ClientConfig) {
        debug_assert_eq!(self.dialogue.state, State::Connecting);
        match config.tls {
            TlsStart::AtOnce => self.dialogue.start_tls(now, State::Handshake, config),
            TlsStart::Never | TlsStart::StartTls => self.dialogue.greet(now, config),
        }
    }

    /// The TLS handshake that [`Output::StartTls`] asked for has come to its good end.
    pub fn tls_ready(&mut self, now: Instant, config: &ClientConfig) {
        self.dialogue.tls_ready(now, config);
    }

    /// Takes at most one reply line from `bytes`.
    #[inline]
    pub fn handle<'a>(&'a mut self, now: Instant, bytes: &'a [u8], config: &ClientConfig) -> Handled<'a> {
        if self.dialogue.is_over() {
            return Handled { consumed: bytes.len(), reply: None };
        }
        let scan = self.scanner.scan(bytes);
        let reply = match scan.line {
            None => None,
            Some(Err(error)) => {
                self.dialogue.fail(ClientError::Line(error));
                None
            }
            Some(Ok(line)) => match ReplyLine::parse(line) {
                Ok(line) => {
                    let more_follows = scan.consumed < bytes.len();
                    self.dialogue.line(now, line, more_follows, config)
                }
                Err(error) => {
                    let is_http = self.dialogue.state == State::Greeting && line.starts_with(b"HTTP/");
                    self.dialogue.fail(if is_http { ClientError::Http } else { ClientError::Reply(error) });
                    None
                }
            },
        };
        Handled { consumed: scan.consumed, reply }
    }

    /// The peer closed its side, or the connection broke.
    pub fn end_of_stream(&mut self) {
        self.dialogue.end_of_stream();
    }

    /// The instant of the last [`Output::Wait`] has come.
    pub fn timed_out(&mut self, now: Instant) {
        if !self.dialogue.is_over() && now >= self.dialogue.deadline {
            match self.dialogue.state {
                State::Quit => self.dialogue.close(),
                State::Greeting => self.dialogue.fail(ClientError::NoGreeting(NoGreeting::TimedOut)),
                _ => self.dialogue.fail(ClientError::TimedOut),
            }
        }
    }

    /// Begins a transaction with so many recipients; only after [`Event::Ready`].
    #[inline]
    pub fn begin(&mut self, now: Instant, recipients: u32, config: &ClientConfig) {
        self.dialogue.begin(now, recipients, config);
    }

    /// The last [`Output::Write`] is on its way: from now on a reply can be one to it.
    #[inline]
    pub fn written(&mut self) {
        self.dialogue.unsent = false;
    }

    /// Appends the line of [`Write::Auth`] or [`Write::AuthAnswer`], with its CRLF. It may hold a password.
    pub fn write_auth(&mut self, out: &mut Vec<u8>) {
        if let Some(login) = &mut self.dialogue.login {
            login.write(out);
        }
    }

    /// How the client logs in, or has; `None` without a login.
    pub fn auth_mechanism(&self) -> Option<Mechanism> {
        self.dialogue.login.as_ref().map(|login| login.mechanism())
    }

    /// Ends the session in good order; only after [`Event::Ready`].
    pub fn quit(&mut self, now: Instant, config: &ClientConfig) {
        debug_assert_eq!(self.dialogue.state, State::Ready);
        self.dialogue.write = Some(Write::Quit);
        self.dialogue.await_reply(State::Quit, now + config.timeouts.quit);
    }

    /// The next thing to do.
    #[inline]
    pub fn poll_output(&mut self) -> Output {
        self.dialogue.poll_output()
    }

    /// Whether nothing but [`Output::Close`] is left to come.
    pub fn is_over(&self) -> bool {
        self.dialogue.is_over()
    }

    /// What the server offered; all off before its reply to EHLO.
    pub fn capabilities(&self) -> &Capabilities {
        &self.dialogue.capabilities
    }

    /// What the session is waiting for.
    pub fn phase(&self) -> Phase {
        self.dialogue.state.phase()
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}
