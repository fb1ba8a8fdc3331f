//! The session around the transactions: greeting, EHLO, and what a reply means by the state that waits for it.

use super::login::Login;
use super::transaction::Transaction;
use super::{ClientConfig, ClientError, Event, Needs, NoGreeting, Output, REPLY_LINES_MAX, Reply, TlsStart, Write};
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::smtp::reply::{Capabilities, Class, ReplyLine};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    /// The TLS handshake of a connection that was just opened.
    Handshake,
    /// The TLS handshake behind STARTTLS.
    Upgrade,
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth,
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
    pub(super) const fn phase(self) -> Phase {
        match self {
            State::Connecting => Phase::Connect,
            State::Handshake | State::Upgrade => Phase::Tls,
            State::Greeting => Phase::Banner,
            State::Ehlo | State::Helo => Phase::Ehlo,
            State::StartTls => Phase::StartTls,
            State::Auth => Phase::Auth,
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

/// The session without the scanner, so that a reply's text may be borrowed from the one while the other changes.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) state: State,
    pub(super) transaction: Transaction,
    pub(super) capabilities: Capabilities,
    pub(super) deadline: Instant,
    pub(super) event: Option<Event>,
    pub(super) write: Option<Write>,
    /// What was asked to be written last has not left yet. Nothing but it awaits a reply.
    pub(super) unsent: bool,
    /// [`Event::Ready`] is due behind the other outputs.
    pub(super) ready: bool,
    /// [`Output::StartTls`] is due.
    start_tls: bool,
    /// TLS protects the session.
    pub(super) secured: bool,
    /// AUTH, from its command on.
    pub(super) login: Option<Box<Login>>,
    lines: u32,
    code: u16,
    /// Text of the first line of a reply of several lines, kept only for 4xx and 5xx.
    first_text: Vec<u8>,
}

impl Dialogue {
    pub(super) fn new() -> Dialogue {
        Dialogue {
            state: State::Connecting,
            transaction: Transaction::default(),
            capabilities: Capabilities::default(),
            deadline: Instant::NEVER,
            event: None,
            write: None,
            unsent: false,
            ready: false,
            start_tls: false,
            secured: false,
            login: None,
            lines: 0,
            code: 0,
            first_text: Vec::new(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    #[inline]
    pub(super) fn poll_output(&mut self) -> Output {
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
        if self.start_tls {
            self.start_tls = false;
            return Output::StartTls;
        }
        if self.is_over() { Output::Close } else { Output::Wait(self.deadline) }
    }

    #[inline]
    pub(super) fn await_reply(&mut self, state: State, deadline: Instant) {
        self.state = state;
        self.deadline = deadline;
    }

    pub(super) fn greet(&mut self, now: Instant, config: &ClientConfig) {
        self.await_reply(State::Greeting, now + config.timeouts.banner);
    }

    fn hello(&mut self, now: Instant, config: &ClientConfig) {
        self.write = Some(Write::Ehlo);
        self.await_reply(State::Ehlo, now + config.timeouts.ehlo);
    }

    /// Asks for the handshake, whose end `state` awaits.
    pub(super) fn start_tls(&mut self, now: Instant, state: State, config: &ClientConfig) {
        self.start_tls = true;
        self.await_reply(state, now + config.timeouts.tls);
    }

    pub(super) fn tls_ready(&mut self, now: Instant, config: &ClientConfig) {
        self.secured = true;
        match self.state {
            State::Handshake => self.greet(now, config),
            State::Upgrade => {
                // What was said in the clear may have been said by anybody (RFC 3207 §4.2).
                self.capabilities = Capabilities::default();
                self.hello(now, config);
            }
            _ => debug_assert!(false, "no handshake was asked for"),
        }
    }

    pub(super) fn become_ready(&mut self) {
        self.ready = true;
        self.await_reply(State::Ready, Instant::NEVER);
    }

    pub(super) fn close(&mut self) {
        self.state = State::Over;
        self.write = None;
        self.ready = false;
        self.start_tls = false;
    }

    pub(super) fn fail(&mut self, error: ClientError) {
        self.event = Some(Event::Failed { phase: self.state.phase(), error });
        self.close();
    }

    pub(super) fn refuse(&mut self, class: Class, code: u16) {
        self.event = Some(Event::Refused { class, code, phase: self.state.phase() });
        self.close();
    }

    pub(super) fn end_of_stream(&mut self) {
        match self.state {
            State::Over => {}
            State::Quit => self.close(),
            State::Greeting => self.fail(ClientError::NoGreeting(NoGreeting::Closed)),
            _ => {
                self.forget_unsent();
                self.fail(ClientError::Closed);
            }
        }
    }

    #[inline]
    pub(super) fn line<'a>(
        &'a mut self,
        now: Instant,
        line: ReplyLine<'a>,
        more_follows: bool,
        config: &ClientConfig,
    ) -> Option<Reply<'a>> {
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
        self.forget_unsent();
        let phase = self.state.phase();
        let lines = std::mem::take(&mut self.lines);
        if self.state == State::StartTls && line.code == 220 && more_follows {
            self.fail(ClientError::Injection);
        } else {
            self.reply(now, line, config);
        }
        let first = if lines > 1 && line.code >= 400 { ReplyLine { text: &self.first_text, ..line } } else { line };
        let (enhanced, text) = first.enhanced();
        Some(Reply { phase, code: first.code, class: first.class(), enhanced, text })
    }

    /// What has not left yet is not waited for: the session is still waiting for something to do, which is all that the
    /// peer can know.
    #[inline]
    fn forget_unsent(&mut self) {
        if self.unsent && self.state != State::Quit {
            self.state = State::Ready;
        }
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
    fn reply(&mut self, now: Instant, line: ReplyLine<'_>, config: &ClientConfig) {
        let (code, class) = (line.code, line.class());
        match self.state {
            State::Mail => self.mail_replied(now, code, class, config),
            State::Rcpt => self.rcpt_replied(now, code, class, config),
            State::Data => self.data_replied(now, code, class, config),
            State::Message => self.message_replied(code, class),
            State::Auth => self.auth_replied(now, line, config),
            _ => self.session_replied(now, code, class, config),
        }
    }

    fn session_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
        match (self.state, class) {
            (State::Greeting, Class::Positive) if code == 220 => self.hello(now, config),
            (State::Ehlo, Class::Permanent) if self.wants_tls(config) => self.secure(now, false, config),
            (State::Ehlo, Class::Positive) if code == 250 && self.wants_tls(config) => {
                self.secure(now, self.capabilities.starttls, config);
            }
            (State::StartTls, Class::Positive) if code == 220 => self.start_tls(now, State::Upgrade, config),
            (State::StartTls, _) => self.fail(ClientError::StartTlsRefused(code)),
            (State::Ehlo, Class::Permanent) => {
                self.capabilities = Capabilities::default();
                self.write = Some(Write::Helo);
                self.await_reply(State::Helo, now + config.timeouts.ehlo);
            }
            (State::Ehlo | State::Helo, Class::Positive) if code == 250 => match self.lacking(config) {
                Some(error) => self.fail(error),
                None => self.log_in(now, config),
            },
            (State::Rset, Class::Positive) if code == 250 => self.become_ready(),
            (State::Quit, _) => self.close(),
            (State::Ready, Class::Positive) => self.fail(ClientError::Unsolicited(code)),
            (_, Class::Positive) => self.fail(ClientError::UnexpectedCode(code)),
            (_, class) => self.refuse(class, code),
        }
    }

    /// What the server does not offer and the messages need.
    fn lacking(&self, config: &ClientConfig) -> Option<ClientError> {
        let (needs, offered) = (config.needs, &self.capabilities);
        match needs {
            Needs { smtp_utf8: true, .. } if !offered.smtp_utf8 => Some(ClientError::SmtpUtf8NotOffered),
            Needs { eight_bit_mime: true, .. } if !offered.eight_bit_mime => Some(ClientError::EightBitMimeNotOffered),
            _ => None,
        }
    }

    fn wants_tls(&self, config: &ClientConfig) -> bool {
        config.tls == TlsStart::StartTls && !self.secured
    }

    /// The server has said what it offers in the clear. There is no session without TLS.
    fn secure(&mut self, now: Instant, offered: bool, config: &ClientConfig) {
        self.await_reply(State::StartTls, now + config.timeouts.starttls);
        match offered {
            true => self.write = Some(Write::StartTls),
            false => self.fail(ClientError::StartTlsNotOffered),
        }
    }
}
