//! The session itself.

use super::login::Login;
use super::{Answer, Decision, Event, Policy, Question, Refusal, ServerConfig, SessionError};
use crate::time::Instant;
use crate::wire::flow::Flow;
use crate::wire::held::Held;
use crate::wire::line::{LineError, LineScanner};
use crate::wire::smtp::auth::EXCHANGE_LINE_BYTES_MAX;
use crate::wire::smtp::command::{self, Command, Mail, Rcpt};
use crate::wire::smtp::data::{DataDecoder, End};
use std::time::Duration;

/// Octets of a command line, CRLF not counted. RFC 5321 §4.5.3.1.4 asks for 512, extensions for some more.
pub const LINE_BYTES_MAX: u32 = 2_048;

/// Each octet of a message moves the deadline by a part of a second: a peer that stays below this rate uses up
/// [`ServerConfig::data_timeout`], however evenly it sends.
pub const DATA_BYTES_A_SECOND_MIN: u64 = 1_000;

const OK: &[u8] = b"250 2.0.0 ok\r\n";
const MAIL_OK: &[u8] = b"250 2.1.0 ok\r\n";
const RCPT_OK: &[u8] = b"250 2.1.5 ok\r\n";
const TLS_OK: &[u8] = b"220 2.0.0 go ahead with TLS\r\n";
const DATA_OK: &[u8] = b"354 go ahead, end with <CRLF>.<CRLF>\r\n";
const MESSAGE_OK: &[u8] = b"250 2.6.0 accepted\r\n";
const VRFY_OK: &[u8] = b"252 2.0.0 not verified, but mail for it is taken\r\n";
const HELP_OK: &[u8] = b"214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\r\n";
const QUIT_OK: &[u8] = b"221 2.0.0 goodbye\r\n";
const TIMED_OUT: &[u8] = b"421 4.4.2 timed out, closing\r\n";
const TOO_MANY_ERRORS: &[u8] = b"421 4.7.0 too many errors, closing\r\n";
const TOO_MANY_RECIPIENTS: &[u8] = b"452 4.5.3 too many recipients\r\n";
const TOO_MANY_COMMANDS: &[u8] = b"421 4.7.0 too many commands without a message, closing\r\n";
const LINE_TOO_LONG: &[u8] = b"500 5.5.2 line too long\r\n";
const LINE_FAULT: &[u8] = b"500 5.5.2 bare CR, bare LF or NUL in a command, closing\r\n";
const REFUSED: &[u8] = b"503 5.5.1 no service here, expected QUIT\r\n";
const NO_STARTTLS: &[u8] = b"502 5.5.1 STARTTLS is not offered\r\n";
const SECURED: &[u8] = b"503 5.5.1 TLS is in use already\r\n";
const NO_AUTH: &[u8] = b"530 5.7.0 authentication required\r\n";
pub(super) const NO_EHLO: &[u8] = b"503 5.5.1 expected EHLO or HELO first\r\n";
pub(super) const NESTED_MAIL: &[u8] = b"503 5.5.1 transaction open, expected RCPT, DATA or RSET\r\n";
const NO_MAIL: &[u8] = b"503 5.5.1 expected MAIL first\r\n";
const NEEDS_UTF8: &[u8] = b"553 5.6.7 recipient address beyond ASCII: expected SMTPUTF8 in MAIL\r\n";
const NOT_OFFERED: &[u8] = b"555 5.5.4 parameter of an extension that is not offered\r\n";
const DATA_FAULT: &[u8] = b"550 5.6.0 bare CR, bare LF or NUL in the message\r\n";
const TOO_LARGE: &[u8] = b"552 5.3.4 message too large\r\n";
const TOO_EARLY: &[u8] = b"554 5.5.0 octets before the reply that had to be awaited, closing\r\n";
const NO_RECIPIENTS: &[u8] = b"554 5.5.1 no valid recipients\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The TLS handshake is under way: of a new connection, or behind STARTTLS.
    Handshake { greeted: bool },
    /// 220 to STARTTLS was queued: not an octet in the clear may follow.
    StartTls,
    /// The greeting was queued; nothing has arrived.
    Greeting,
    /// The greeting was a refusal: only QUIT is of use (RFC 5321 §3.1).
    Refused,
    /// No EHLO or HELO yet.
    Start,
    /// Between transactions.
    Ready,
    /// MAIL was accepted.
    Transaction,
    /// 334 was queued: an answer of the AUTH exchange follows.
    Auth,
    /// 354 was queued: a message follows.
    Data,
    /// The connection closes when all held replies have gone out. Whatever arrives is ignored.
    Closing,
    /// The connection is to be dropped.
    Dropped,
}

/// One SMTP session of a server. Small while idle: nothing on the heap until a line is torn apart, a reply is held or
/// content is collected.
#[derive(Debug)]
pub struct Session {
    pub(super) scanner: LineScanner,
    decoder: DataDecoder,
    /// The beginning of the current message, if the policy wants it.
    content: Vec<u8>,
    /// Made when a reply is held for the first time.
    held: Option<Box<Held>>,
    /// When the peer has been silent for too long.
    silence_deadline: Instant,
    recipients: u32,
    errors: u32,
    /// Commands since the last message.
    idle_commands: u32,
    pub(super) state: State,
    smtputf8: bool,
    /// TLS protects the session.
    pub(super) secured: bool,
    /// EHLO was accepted and not HELO.
    pub(super) is_extended: bool,
    /// Made by the first AUTH.
    pub(super) login: Option<Box<Login>>,
    /// MAIL or a RCPT was refused. A peer that pipelines could not know: what it sent behind it in the same group is out
    /// of place through no fault of its own (RFC 2920 §3.1).
    refused: bool,
    /// It closes by a reset.
    resets: bool,
}

/// The arguments of one call.
pub(super) struct Turn<'a, P> {
    pub(super) now: Instant,
    pub(super) config: &'a ServerConfig,
    pub(super) policy: &'a mut P,
    out: &'a mut Vec<u8>,
}

impl Default for Session {
    fn default() -> Session {
        Session::new()
    }
}

impl Session {
    /// A session whose connection is not accepted yet.
    pub const fn new() -> Session {
        Session {
            scanner: LineScanner::new(LINE_BYTES_MAX),
            decoder: DataDecoder::new(),
            content: Vec::new(),
            held: None,
            silence_deadline: Instant::NEVER,
            recipients: 0,
            errors: 0,
            idle_commands: 0,
            state: State::Greeting,
            smtputf8: false,
            secured: false,
            is_extended: false,
            login: None,
            refused: false,
            resets: false,
        }
    }

    /// The connection is accepted: queues the greeting.
    pub fn connected<P: Policy>(
        &mut self,
        now: Instant,
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn { now, config, policy, out };
        turn.policy.observe(Event::SessionOpened);
        let decision = turn.policy.decide(now, Question::Connect);
        if !self.answer(&mut turn, decision, config.greeting()) && self.state == State::Greeting {
            self.state = State::Refused;
        }
        self.restart_silence(&turn);
        self.flow()
    }

    /// The connection is accepted and TLS comes first: [`Session::tls_ready`] then takes the place of
    /// [`Session::connected`].
    pub fn secure(&mut self, now: Instant, config: &ServerConfig) {
        self.state = State::Handshake { greeted: false };
        self.silence_deadline = now + config.command_timeout;
    }

    /// The TLS handshake has come to its good end. The session begins anew: all that was said before is forgotten.
    pub fn tls_ready<P: Policy>(
        &mut self,
        now: Instant,
        resumed: bool,
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Flow {
        let State::Handshake { greeted } = self.state else {
            debug_assert!(false, "no handshake was asked for");
            return Flow::Drop;
        };
        let Session { errors, idle_commands, .. } = *self;
        *self = Session { secured: true, errors, idle_commands, ..Session::new() };
        policy.observe(Event::Secured { resumed });
        if !greeted {
            return self.connected(now, config, policy, out);
        }
        self.state = State::Start;
        self.restart_silence(&Turn { now, config, policy, out });
        Flow::Continue
    }

    /// The TLS handshake failed, or TLS broke: nothing can be said any more.
    pub fn tls_failed<P: Policy>(&mut self, policy: &mut P) -> Flow {
        policy.observe(Event::Error(SessionError::Tls));
        self.state = State::Dropped;
        self.flow()
    }

    /// Consumes all of `bytes` and appends the replies to `out`.
    pub fn handle<P: Policy>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn { now, config, policy, out };
        self.release(&mut turn);
        let is_login_unseen = self.login.as_mut().is_some_and(|login| std::mem::take(&mut login.is_unseen));
        if !bytes.is_empty()
            && (is_login_unseen || matches!(self.state, State::Greeting | State::Data | State::StartTls | State::Auth))
            && self.is_holding()
        {
            // The peer cannot have seen the greeting, the 354, the 220, the 334 or what ends a login: it is taken back.
            if let Some(held) = &mut self.held {
                held.retract_last();
            }
            self.too_early(&mut turn);
        } else if self.state == State::Greeting && !bytes.is_empty() {
            self.state = State::Start;
        }
        let mut rest = bytes;
        let mut completed = false;
        while !rest.is_empty() {
            let (consumed, whole) = match self.state {
                State::Closing | State::Dropped | State::StartTls | State::Handshake { .. } => break,
                State::Data => self.take_data(&mut turn, rest),
                State::Auth => self.take_answer(&mut turn, rest),
                _ => self.take_line(&mut turn, rest),
            };
            completed |= whole;
            rest = &rest[consumed..];
        }
        if completed {
            self.restart_silence(&turn);
        }
        self.flow()
    }

    /// The deadline has come: lets held replies go, or gives up a silent peer. Does nothing when called too early.
    pub fn handle_timeout<P: Policy>(
        &mut self,
        now: Instant,
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mut turn = Turn { now, config, policy, out };
        self.release(&mut turn);
        if now >= self.silence_deadline && !matches!(self.state, State::Closing | State::Dropped) {
            turn.policy.observe(Event::Error(SessionError::TimedOut));
            match self.state {
                // In the middle of a handshake there is nothing to say it by.
                State::Handshake { .. } => self.state = State::Dropped,
                _ => self.close(&mut turn, TIMED_OUT),
            }
        }
        self.flow()
    }

    /// The ticket of the message that waits for [`Session::settle`], if one does.
    pub fn pending(&self) -> Option<u64> {
        self.held.as_ref().and_then(|held| held.pending())
    }

    /// Decides over the message to which the policy answered [`Answer::Pending`] with this ticket: accepted, or refused by
    /// a reply that does not close. Its reply goes out at once, and with it those that wait for nothing else. `None`, and
    /// nothing is done, when no such message waits any more.
    pub fn settle<P: Policy>(
        &mut self,
        now: Instant,
        (ticket, refusal): (u64, Option<&Refusal>),
        config: &ServerConfig,
        policy: &mut P,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let reply = refusal.map_or(MESSAGE_OK, Refusal::line);
        if !self.held.as_mut()?.settle(now, ticket, reply) {
            return None;
        }
        let mut turn = Turn { now, config, policy, out };
        self.release(&mut turn);
        self.restart_silence(&turn);
        Some(self.flow())
    }

    /// The peer will send nothing more. A message that is cut off by it is an error. Says whether replies are still
    /// held, which the peer may be waiting for.
    pub fn end_of_stream<P: Policy>(&mut self, policy: &mut P) -> Flow {
        if self.state == State::Data {
            policy.observe(Event::Error(SessionError::CutOff));
        }
        if self.state != State::Dropped {
            self.state = State::Closing;
        }
        self.flow()
    }

    /// When [`Session::handle_timeout`] is to be called: a held reply is due, or the peer has been silent for too long.
    #[inline]
    pub fn deadline(&self) -> Instant {
        let due = self.held.as_ref().map_or(Instant::NEVER, |held| held.due());
        match self.state {
            State::Closing | State::Dropped => due,
            _ => due.min(self.silence_deadline),
        }
    }

    /// Whether a message is on its way.
    pub fn is_receiving_data(&self) -> bool {
        self.state == State::Data
    }

    fn flow(&mut self) -> Flow {
        match self.state {
            State::StartTls if !self.is_holding() => {
                self.state = State::Handshake { greeted: true };
                Flow::StartTls
            }
            State::Dropped => Flow::Drop,
            State::Closing if !self.is_holding() && self.resets => Flow::Reset,
            State::Closing if !self.is_holding() => Flow::Close,
            _ => Flow::Continue,
        }
    }

    // Lines.

    /// Octets consumed, and whether a line came to its end.
    #[inline]
    fn take_line<P: Policy>(&mut self, turn: &mut Turn<'_, P>, input: &[u8]) -> (usize, bool) {
        // The scanner lends out its line; it is put back when the line has been dealt with.
        let mut scanner = std::mem::replace(&mut self.scanner, LineScanner::new(0));
        let scan = scanner.scan(input);
        let (consumed, whole) = (scan.consumed, scan.line.is_some());
        if let Some(line) = scan.line {
            turn.policy.observe(Event::Command);
            self.idle_commands = self.idle_commands.saturating_add(1);
            match line.map(command::parse) {
                _ if self.idle_commands > turn.config.idle_commands_max => self.close(turn, TOO_MANY_COMMANDS),
                Ok(Ok(command)) => self.command(turn, command, consumed < input.len()),
                Ok(Err(error)) => self.error(turn, SessionError::Command, error.reply()),
                Err(LineError::TooLong) => self.error(turn, SessionError::LineTooLong, LINE_TOO_LONG),
                Err(LineError::BareCr | LineError::BareLf | LineError::Nul) => {
                    turn.policy.observe(Event::Error(SessionError::LineFault));
                    self.close(turn, LINE_FAULT);
                }
            }
        }
        self.scanner = scanner;
        if self.state == State::Auth {
            self.scanner.set_line_bytes_max(EXCHANGE_LINE_BYTES_MAX as u32);
        }
        (consumed, whole)
    }

    /// `more_follows`: octets behind this command have arrived with it.
    #[inline]
    fn command<P: Policy>(&mut self, turn: &mut Turn<'_, P>, command: Command<'_>, more_follows: bool) {
        if self.state == State::Refused && command != Command::Quit {
            return self.error(turn, SessionError::Sequence, REFUSED);
        }
        match command {
            Command::Mail(mail) => self.mail(turn, mail),
            Command::Rcpt(rcpt) => self.rcpt(turn, rcpt),
            Command::Data => self.data(turn, more_follows),
            Command::Ehlo { name } => self.hello(turn, name, true),
            Command::Helo { name } => self.hello(turn, name, false),
            Command::Rset => {
                self.end_transaction();
                self.reply(turn, OK);
            }
            Command::Noop => self.reply(turn, OK),
            Command::Vrfy => self.reply(turn, VRFY_OK),
            Command::Help => self.reply(turn, HELP_OK),
            Command::Auth(auth) => self.auth(turn, auth, more_follows),
            Command::StartTls => self.starttls(turn, more_follows),
            Command::Quit => {
                let decision = turn.policy.decide(turn.now, Question::Quit);
                self.answer(turn, decision, QUIT_OK);
                self.finish();
            }
        }
    }

    fn hello<P: Policy>(&mut self, turn: &mut Turn<'_, P>, name: &[u8], is_extended: bool) {
        let accepted = if is_extended { turn.config.ehlo(self.secured) } else { turn.config.helo() };
        let decision = turn.policy.decide(turn.now, Question::Ehlo { name, is_extended });
        if self.answer(turn, decision, accepted) {
            // Ends a transaction as RSET does (RFC 5321 §4.1.4).
            self.end_transaction();
            self.state = State::Ready;
            self.is_extended = is_extended;
        }
    }

    fn starttls<P: Policy>(&mut self, turn: &mut Turn<'_, P>, more_follows: bool) {
        if !turn.config.offers_starttls() {
            return self.error(turn, SessionError::Command, NO_STARTTLS);
        }
        if more_follows {
            // STARTTLS ends a group (RFC 3207 §4). What follows it in the clear would be taken for what was said under TLS.
            return self.too_early(turn);
        }
        match self.state {
            _ if self.secured => return self.error(turn, SessionError::Sequence, SECURED),
            State::Ready => {}
            State::Transaction => return self.error(turn, SessionError::Sequence, NESTED_MAIL),
            _ => return self.error(turn, SessionError::Sequence, NO_EHLO),
        }
        let decision = turn.policy.decide(turn.now, Question::StartTls);
        if self.answer(turn, decision, TLS_OK) {
            self.state = State::StartTls;
        }
    }

    fn mail<P: Policy>(&mut self, turn: &mut Turn<'_, P>, mail: Mail<'_>) {
        match self.state {
            State::Ready => {}
            State::Transaction => return self.error(turn, SessionError::Sequence, NESTED_MAIL),
            _ => return self.error(turn, SessionError::Sequence, NO_EHLO),
        }
        self.refused = true;
        if turn.config.logins.is_some() && !self.is_logged_in() {
            return self.error(turn, SessionError::Sequence, NO_AUTH);
        }
        if !turn.config.withheld.is_empty() && turn.config.withheld.serve(&mail.parameters) {
            return self.error(turn, SessionError::Command, NOT_OFFERED);
        }
        let size = mail.parameters.size;
        if size.is_some_and(|size| size > turn.config.message_bytes_max) {
            turn.policy.observe(Event::Error(SessionError::TooLarge));
            return self.reply(turn, TOO_LARGE);
        }
        let decision = turn.policy.decide(turn.now, Question::Mail { reverse_path: mail.reverse_path, size });
        if self.answer(turn, decision, MAIL_OK) {
            self.state = State::Transaction;
            self.refused = false;
            self.smtputf8 = mail.parameters.smtputf8;
            self.recipients = 0;
        }
    }

    fn rcpt<P: Policy>(&mut self, turn: &mut Turn<'_, P>, rcpt: Rcpt<'_>) {
        if self.state != State::Transaction {
            return self.out_of_place(turn, NO_MAIL);
        }
        if rcpt.has_8bit && !self.smtputf8 {
            return self.error(turn, SessionError::Command, NEEDS_UTF8);
        }
        if self.recipients >= turn.config.recipients_max {
            self.refused = true;
            return self.reply(turn, TOO_MANY_RECIPIENTS);
        }
        let decision = turn.policy.decide(turn.now, Question::Rcpt { forward_path: rcpt.forward_path });
        if self.answer(turn, decision, RCPT_OK) {
            self.recipients += 1;
        } else {
            self.refused = true;
        }
    }

    fn data<P: Policy>(&mut self, turn: &mut Turn<'_, P>, more_follows: bool) {
        if more_follows {
            // DATA ends a group of pipelined commands (RFC 2920 §3.1), whatever its reply. What follows it may be a
            // message or commands: whichever we took it for, somebody could exploit.
            return self.too_early(turn);
        }
        if self.state != State::Transaction {
            return self.out_of_place(turn, NO_MAIL);
        }
        if self.recipients == 0 {
            return self.out_of_place(turn, NO_RECIPIENTS);
        }
        let decision = turn.policy.decide(turn.now, Question::Data { recipients: self.recipients });
        if self.answer(turn, decision, DATA_OK) {
            self.state = State::Data;
            self.decoder = DataDecoder::new();
        }
    }

    // The message.

    /// Octets consumed, and whether the message came to its end.
    #[inline]
    fn take_data<P: Policy>(&mut self, turn: &mut Turn<'_, P>, input: &[u8]) -> (usize, bool) {
        let wanted = turn.policy.content_bytes_wanted();
        let reads = turn.policy.reads_content();
        let decoded = if wanted == 0 && !reads {
            self.decoder.decode(input, &mut |_| {})
        } else {
            let policy = &mut *turn.policy;
            let room = wanted.min(usize::try_from(turn.config.message_bytes_max).unwrap_or(usize::MAX));
            let content = &mut self.content;
            self.decoder.decode(input, &mut |slice| {
                if reads {
                    policy.content(slice);
                }
                let length = slice.len().min(room.saturating_sub(content.len()));
                content.extend_from_slice(&slice[..length]);
            })
        };
        match decoded.end {
            Some(end) => self.end_of_data(turn, end),
            None => {
                let credit = Duration::from_nanos(decoded.consumed as u64 * (1_000_000_000 / DATA_BYTES_A_SECOND_MIN));
                self.silence_deadline = (self.silence_deadline + credit).min(turn.now + turn.config.data_timeout);
            }
        }
        (decoded.consumed, decoded.end.is_some())
    }

    fn end_of_data<P: Policy>(&mut self, turn: &mut Turn<'_, P>, end: End) {
        let recipients = self.recipients;
        let content = std::mem::take(&mut self.content);
        self.idle_commands = 0;
        self.end_transaction();
        if end.fault.is_some() {
            return self.error(turn, SessionError::DataFault, DATA_FAULT);
        }
        if end.bytes > turn.config.message_bytes_max {
            turn.policy.observe(Event::Error(SessionError::TooLarge));
            return self.reply(turn, TOO_LARGE);
        }
        let question = Question::Message { bytes: end.bytes, recipients, content: &content };
        let decision = turn.policy.decide(turn.now, question);
        if self.answer(turn, decision, MESSAGE_OK) {
            turn.policy.observe(Event::Message { bytes: end.bytes, recipients, content });
        }
    }

    fn end_transaction(&mut self) {
        if matches!(self.state, State::Transaction | State::Data) {
            self.state = State::Ready;
        }
        self.recipients = 0;
        self.refused = false;
        self.content.clear();
    }

    // Replies.

    /// Carries out a decision; true if it is yes and its reply is under way.
    #[inline]
    pub(super) fn answer<P: Policy>(&mut self, turn: &mut Turn<'_, P>, decision: Decision, accepted: &[u8]) -> bool {
        match decision.answer {
            Answer::Accept => {
                self.reply_after(turn, decision.hold, accepted);
                self.state != State::Dropped
            }
            Answer::Refuse(refusal) => {
                self.refuse(turn, decision.hold, &refusal);
                false
            }
            Answer::Drop => {
                // As a server that breaks down over this command: what it said before is out.
                self.close_after(turn, decision.hold, b"");
                false
            }
            Answer::Reset => {
                self.resets = true;
                self.close_after(turn, decision.hold, b"");
                false
            }
            Answer::Pending { ticket, otherwise } => {
                let due = turn.policy.release(self.last_release(turn.now) + decision.hold);
                if !self.held.get_or_insert_default().push_pending(due, otherwise.line(), ticket) {
                    turn.policy.observe(Event::Error(SessionError::TooManyHeld));
                    self.state = State::Dropped;
                }
                false
            }
        }
    }

    fn refuse<P: Policy>(&mut self, turn: &mut Turn<'_, P>, hold: Duration, refusal: &Refusal) {
        match refusal.closes() {
            true => self.close_after(turn, hold, refusal.line()),
            false => self.reply_after(turn, hold, refusal.line()),
        }
    }

    #[inline]
    pub(super) fn reply<P: Policy>(&mut self, turn: &mut Turn<'_, P>, line: &[u8]) {
        self.reply_after(turn, Duration::ZERO, line);
    }

    #[inline]
    fn reply_after<P: Policy>(&mut self, turn: &mut Turn<'_, P>, hold: Duration, line: &[u8]) {
        let due = match hold.is_zero() && self.held.is_none() {
            true => turn.policy.release(turn.now),
            false => turn.policy.release(self.last_release(turn.now) + hold),
        };
        if due <= turn.now && !self.is_holding() {
            turn.out.extend_from_slice(line);
        } else if !self.held.get_or_insert_default().push(due, line) {
            turn.policy.observe(Event::Error(SessionError::TooManyHeld));
            self.state = State::Dropped;
        }
    }

    /// A protocol error, for which the peer gets `line`, unless it has made too many.
    #[cold]
    pub(super) fn error<P: Policy>(&mut self, turn: &mut Turn<'_, P>, error: SessionError, line: &[u8]) {
        turn.policy.observe(Event::Error(error));
        self.errors += 1;
        if self.errors > turn.config.errors_max {
            self.close(turn, TOO_MANY_ERRORS);
        } else {
            self.reply(turn, line);
        }
    }

    /// RCPT or DATA where there is nothing for it: an error, unless what it belongs to was refused.
    #[cold]
    fn out_of_place<P: Policy>(&mut self, turn: &mut Turn<'_, P>, line: &[u8]) {
        if self.refused {
            self.reply(turn, line);
        } else {
            self.error(turn, SessionError::Sequence, line);
        }
    }

    #[cold]
    pub(super) fn too_early<P: Policy>(&mut self, turn: &mut Turn<'_, P>) {
        turn.policy.observe(Event::Error(SessionError::TooEarly));
        self.close(turn, TOO_EARLY);
    }

    /// A last reply, after which the connection is closed.
    pub(super) fn close<P: Policy>(&mut self, turn: &mut Turn<'_, P>, line: &[u8]) {
        self.close_after(turn, Duration::ZERO, line);
    }

    fn close_after<P: Policy>(&mut self, turn: &mut Turn<'_, P>, hold: Duration, line: &[u8]) {
        self.reply_after(turn, hold, line);
        self.finish();
    }

    /// Nothing follows what has been answered.
    pub(super) fn finish(&mut self) {
        if self.state != State::Dropped {
            self.state = State::Closing;
        }
    }

    // Time.

    fn is_holding(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.is_empty())
    }

    /// When the last reply goes out: now, unless it is held.
    fn last_release(&self, now: Instant) -> Instant {
        self.held.as_ref().map_or(now, |held| held.last().max(now))
    }

    fn release<P: Policy>(&mut self, turn: &mut Turn<'_, P>) {
        if let Some(held) = &mut self.held {
            held.release(turn.now, turn.out);
        }
    }

    /// The peer has done its part: its time begins anew when it has the last reply.
    fn restart_silence<P>(&mut self, turn: &Turn<'_, P>) {
        let span = match self.state {
            State::Data => turn.config.data_timeout,
            _ => turn.config.command_timeout,
        };
        self.silence_deadline = self.last_release(turn.now) + span;
    }
}

#[cfg(test)]
mod tests;
