//! The client's side of an SMTP session as a machine without I/O (RFC 5321, with PIPELINING of RFC 2920).
//!
//! Feed it with [`Client::handle`] and its siblings, then drain [`Client::poll_output`] until it says
//! [`Output::Wait`] or [`Output::Close`]. It says *what* is to be written; the driver, who knows the message, turns
//! that into bytes and calls [`Client::written`] when they leave. Pipelining stays inside one transaction: MAIL, every
//! RCPT and DATA go out as one group, and the next MAIL waits for the reply to the message.

use std::time::Duration;

use thiserror::Error;

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
    /// For EHLO and HELO.
    pub ehlo: Duration,
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
        ehlo: Duration::from_secs(300),
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
            ehlo: limit,
            mail: limit,
            rcpt: limit,
            data: limit,
            message: limit,
            rset: limit,
            quit,
        }
    }
}

/// How all sessions of a job talk.
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
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
    /// The server does not want the session: a 4xx or 5xx to the greeting, EHLO, RSET or out of turn.
    Refused {
        /// [`Class::Transient`] or [`Class::Permanent`].
        class: Class,
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
    /// A reply that nothing had asked for, or that came before its command had left.
    #[error("a reply without a command, code {0}")]
    Unsolicited(u16),
}

impl ClientError {
    /// A short name from a closed set, for reports and metrics.
    pub const fn kind(self) -> &'static str {
        match self {
            ClientError::Closed => "closed",
            ClientError::TimedOut => "timeout",
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

    /// The connection is open; the greeting is awaited.
    pub fn connected(&mut self, now: Instant, config: &ClientConfig) {
        debug_assert_eq!(self.dialogue.state, State::Connecting);
        self.dialogue.await_reply(State::Greeting, now + config.timeouts.banner);
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
                Ok(line) => self.dialogue.line(now, line, config),
                Err(error) => {
                    self.dialogue.fail(ClientError::Reply(error));
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Greeting,
    Ehlo,
    Helo,
    Ready,
    Mail,
    Rcpt,
    Data,
    Message,
    Rset,
    Quit,
    Over,
}

impl State {
    const fn phase(self) -> Phase {
        match self {
            State::Connecting => Phase::Connect,
            State::Greeting => Phase::Banner,
            State::Ehlo | State::Helo => Phase::Ehlo,
            State::Ready | State::Over => Phase::Idle,
            State::Mail => Phase::Mail,
            State::Rcpt => Phase::Rcpt,
            State::Data => Phase::Data,
            State::Message => Phase::Final,
            State::Rset => Phase::Rset,
            State::Quit => Phase::Quit,
        }
    }
}

/// The transaction under way.
#[derive(Clone, Copy, Debug, Default)]
struct Transaction {
    recipients: u32,
    answered: u32,
    tally: RecipientTally,
    /// MAIL, RCPT and DATA went out together, so the replies to all of them are on their way.
    grouped: bool,
    mail_accepted: bool,
    /// The first reply that decided against the message.
    verdict: Option<(Class, Phase)>,
}

/// The session without the scanner, so that a reply's text may be borrowed from the one while the other changes.
#[derive(Debug)]
struct Dialogue {
    state: State,
    transaction: Transaction,
    capabilities: Capabilities,
    deadline: Instant,
    event: Option<Event>,
    write: Option<Write>,
    /// What was asked to be written last has not left yet. Nothing but it awaits a reply.
    unsent: bool,
    /// [`Event::Ready`] is due behind the other outputs.
    ready: bool,
    lines: u32,
    code: u16,
    /// Text of the first line of a reply of several lines, kept only for 4xx and 5xx.
    first_text: Vec<u8>,
}

impl Dialogue {
    fn new() -> Dialogue {
        Dialogue {
            state: State::Connecting,
            transaction: Transaction::default(),
            capabilities: Capabilities::default(),
            deadline: Instant::NEVER,
            event: None,
            write: None,
            unsent: false,
            ready: false,
            lines: 0,
            code: 0,
            first_text: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.state == State::Over
    }

    #[inline]
    fn poll_output(&mut self) -> Output {
        if let Some(event) = self.event.take() {
            return Output::Event(event);
        }
        if let Some(write) = self.write.take() {
            self.unsent = true;
            return Output::Write(write);
        }
        if self.ready {
            self.ready = false;
            return Output::Event(Event::Ready);
        }
        if self.is_over() { Output::Close } else { Output::Wait(self.deadline) }
    }

    #[inline]
    fn await_reply(&mut self, state: State, deadline: Instant) {
        self.state = state;
        self.deadline = deadline;
    }

    fn become_ready(&mut self) {
        self.ready = true;
        self.await_reply(State::Ready, Instant::NEVER);
    }

    fn close(&mut self) {
        self.state = State::Over;
        self.write = None;
        self.ready = false;
    }

    fn fail(&mut self, error: ClientError) {
        self.event = Some(Event::Failed { phase: self.state.phase(), error });
        self.close();
    }

    fn refuse(&mut self, class: Class) {
        self.event = Some(Event::Refused { class, phase: self.state.phase() });
        self.close();
    }

    fn end_of_stream(&mut self) {
        match self.state {
            State::Over => {}
            State::Quit => self.close(),
            _ => self.fail(ClientError::Closed),
        }
    }

    #[inline]
    fn begin(&mut self, now: Instant, recipients: u32, config: &ClientConfig) {
        debug_assert!(self.state == State::Ready && recipients > 0);
        let grouped = config.pipelining && self.capabilities.pipelining;
        self.transaction = Transaction { recipients, grouped, ..Transaction::default() };
        self.ready = false;
        self.write = Some(if grouped { Write::Group } else { Write::Mail });
        self.await_reply(State::Mail, now + config.timeouts.mail);
    }

    #[inline]
    fn line<'a>(&'a mut self, now: Instant, line: ReplyLine<'a>, config: &ClientConfig) -> Option<Reply<'a>> {
        if self.lines > 0 && line.code != self.code {
            self.fail(ClientError::MixedCodes);
            return None;
        }
        self.lines += 1;
        self.code = line.code;
        if self.state == State::Ehlo && self.lines > 1 {
            self.capabilities.note(line.text);
        }
        if !line.last {
            self.continuation(line);
            return None;
        }
        if self.unsent && self.state != State::Quit {
            // As if the session were still waiting for something to do, which is all that the peer can know.
            self.state = State::Ready;
        }
        let phase = self.state.phase();
        let lines = std::mem::take(&mut self.lines);
        self.reply(now, line.code, line.class(), config);
        let first = if lines > 1 && line.code >= 400 { ReplyLine { text: &self.first_text, ..line } } else { line };
        let (enhanced, text) = first.enhanced();
        Some(Reply { phase, code: first.code, class: first.class(), enhanced, text })
    }

    #[cold]
    fn continuation(&mut self, line: ReplyLine<'_>) {
        if self.lines >= REPLY_LINES_MAX {
            self.fail(ClientError::TooManyLines);
        } else if self.lines == 1 && line.code >= 400 {
            self.first_text.clear();
            self.first_text.extend_from_slice(line.text);
        }
    }

    /// The reply to what the state waits for is complete.
    #[inline]
    fn reply(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
        match self.state {
            State::Mail => self.mail_replied(now, code, class, config),
            State::Rcpt => self.rcpt_replied(now, code, class, config),
            State::Data => self.data_replied(now, code, class, config),
            State::Message => self.message_replied(code, class),
            _ => self.session_replied(now, code, class, config),
        }
    }

    fn session_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
        match (self.state, class) {
            (State::Greeting, Class::Positive) if code == 220 => {
                self.write = Some(Write::Ehlo);
                self.await_reply(State::Ehlo, now + config.timeouts.ehlo);
            }
            (State::Ehlo, Class::Permanent) => {
                self.capabilities = Capabilities::default();
                self.write = Some(Write::Helo);
                self.await_reply(State::Helo, now + config.timeouts.ehlo);
            }
            (State::Ehlo | State::Helo | State::Rset, Class::Positive) if code == 250 => self.become_ready(),
            (State::Quit, _) => self.close(),
            (State::Ready, Class::Positive) => self.fail(ClientError::Unsolicited(code)),
            (_, Class::Positive) => self.fail(ClientError::UnexpectedCode(code)),
            (_, class) => self.refuse(class),
        }
    }

    #[inline]
    fn mail_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
        if class == Class::Positive {
            if code >= 300 {
                return self.fail(ClientError::UnexpectedCode(code));
            }
            self.transaction.mail_accepted = true;
        } else {
            self.transaction.verdict = Some((class, Phase::Mail));
            if code == 421 || !self.transaction.grouped {
                return self.done(code);
            }
        }
        if !self.transaction.grouped {
            self.write = Some(Write::Rcpt(0));
        }
        self.await_reply(State::Rcpt, now + config.timeouts.rcpt);
    }

    #[inline]
    fn rcpt_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
        if (300..400).contains(&code) {
            return self.fail(ClientError::UnexpectedCode(code));
        }
        let transaction = &mut self.transaction;
        transaction.answered += 1;
        if transaction.mail_accepted {
            transaction.tally.add(class, 1);
        }
        if code == 421 {
            transaction.verdict.get_or_insert((class, Phase::Rcpt));
            return self.done(code);
        }
        if transaction.answered < transaction.recipients {
            if !transaction.grouped {
                self.write = Some(Write::Rcpt(transaction.answered));
            }
            return self.await_reply(State::Rcpt, now + config.timeouts.rcpt);
        }
        if transaction.tally.accepted == 0 && transaction.verdict.is_none() {
            let class = if transaction.tally.deferred > 0 { Class::Transient } else { Class::Permanent };
            transaction.verdict = Some((class, Phase::Rcpt));
        }
        if !transaction.grouped {
            if transaction.tally.accepted == 0 {
                self.done(code);
                return self.reset(now, config);
            }
            self.write = Some(Write::Data);
        }
        self.await_reply(State::Data, now + config.timeouts.data);
    }

    #[inline]
    fn data_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
        match class {
            Class::Positive if code == 354 => {
                let wanted = self.transaction.verdict.is_none();
                self.write = Some(if wanted { Write::Message } else { Write::EmptyMessage });
                self.await_reply(State::Message, now + config.timeouts.message);
            }
            Class::Positive => self.fail(ClientError::UnexpectedCode(code)),
            _ => {
                self.transaction.verdict.get_or_insert((class, Phase::Data));
                self.done(code);
                if self.transaction.mail_accepted {
                    self.reset(now, config);
                }
            }
        }
    }

    #[inline]
    fn message_replied(&mut self, code: u16, class: Class) {
        if (300..400).contains(&code) {
            return self.fail(ClientError::UnexpectedCode(code));
        }
        self.transaction.verdict.get_or_insert((class, Phase::Final));
        self.done(code);
    }

    /// The transaction has its verdict: every recipient that is not yet accounted for shares it.
    #[inline]
    fn done(&mut self, code: u16) {
        let (class, phase) = self.transaction.verdict.unwrap_or((Class::Transient, self.state.phase()));
        let Transaction { recipients, mut tally, .. } = self.transaction;
        if class != Class::Positive {
            let accepted = std::mem::take(&mut tally.accepted);
            tally.add(class, accepted);
        }
        let unanswered = recipients - (tally.accepted + tally.deferred + tally.rejected);
        tally.add(class, unanswered);
        self.event = Some(Event::Done { class, phase, recipients: tally });
        if code == 421 {
            self.close();
        } else {
            self.become_ready();
        }
    }

    /// Clears a transaction that the server still holds open, before the next one may begin.
    fn reset(&mut self, now: Instant, config: &ClientConfig) {
        if self.state == State::Ready {
            self.ready = false;
            self.write = Some(Write::Rset);
            self.await_reply(State::Rset, now + config.timeouts.rset);
        }
    }
}
