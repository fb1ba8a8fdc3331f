//! AUTH (RFC 4954), where a server takes mail from users only.

use super::session::{LINE_BYTES_MAX, NESTED_MAIL, NO_EHLO, Session, State, Turn};
use super::{Capability, Event, Policy, Question, SessionError};
use crate::wire::line::LineError;
use crate::wire::smtp::auth::{Auth, ServerExchange, Step};

/// Exchanges of a session that may end without a login; the last of them ends the session.
pub const AUTH_FAILURES_MAX: u32 = 3;

const NOT_IMPLEMENTED: &[u8] = b"502 5.5.1 AUTH is not offered\r\n";
const NEEDS_TLS: &[u8] = b"538 5.7.11 encryption required for authentication\r\n";
const NEEDS_EHLO: &[u8] = b"503 5.5.1 expected EHLO first, since HELO offers no AUTH\r\n";
const LOGGED_IN: &[u8] = b"503 5.5.1 logged in already\r\n";
const UNKNOWN_MECHANISM: &[u8] = b"504 5.5.4 expected one of the mechanisms PLAIN, LOGIN and CRAM-MD5\r\n";
const LINE_FAULT: &[u8] = b"501 5.5.2 bare CR, bare LF or NUL in an authentication response, closing\r\n";
const TOO_MANY_FAILURES: &[u8] = b"421 4.7.0 too many failed logins, closing\r\n";

/// What a session knows of logins.
#[derive(Debug, Default)]
pub(super) struct Login {
    /// The one under way.
    exchange: Option<ServerExchange>,
    failures: u32,
    granted: bool,
    /// The reply that ended an exchange may not have gone out yet.
    pub(super) is_unseen: bool,
}

impl Session {
    pub(super) fn is_logged_in(&self) -> bool {
        self.login.as_ref().is_some_and(|login| login.granted)
    }

    pub(super) fn auth<P: Policy>(&mut self, turn: &mut Turn<'_, P>, auth: Auth<'_>, more_follows: bool) {
        let offered = turn.config.logins.as_ref().filter(|_| !turn.config.withheld.contain(Capability::Auth));
        let Some(logins) = offered else {
            return self.error(turn, SessionError::Command, NOT_IMPLEMENTED);
        };
        if more_follows {
            // What follows could not know whether it would be an answer or a command.
            return self.too_early(turn);
        }
        match self.state {
            State::Ready => {}
            State::Transaction => return self.error(turn, SessionError::Sequence, NESTED_MAIL),
            _ => return self.error(turn, SessionError::Sequence, NO_EHLO),
        }
        if !self.secured {
            return self.error(turn, SessionError::Sequence, NEEDS_TLS);
        }
        if !self.is_extended {
            return self.error(turn, SessionError::Sequence, NEEDS_EHLO);
        }
        if self.is_logged_in() {
            return self.error(turn, SessionError::Sequence, LOGGED_IN);
        }
        let Some(mechanism) = auth.mechanism else {
            return self.error(turn, SessionError::Command, UNKNOWN_MECHANISM);
        };
        let challenge = turn.config.challenge(logins);
        let (exchange, step) = ServerExchange::start(mechanism, auth.initial, challenge.as_bytes(), &logins.users);
        self.login.get_or_insert_default().exchange = Some(exchange);
        self.auth_step(turn, step);
    }

    /// Octets consumed, and whether an answer came to its end.
    pub(super) fn take_answer<P: Policy>(&mut self, turn: &mut Turn<'_, P>, input: &[u8]) -> (usize, bool) {
        let scan = self.scanner.scan(input);
        let (consumed, more_follows) = (scan.consumed, scan.consumed < input.len());
        let exchange = self.login.as_mut().and_then(|login| login.exchange.as_mut());
        let (Some(line), Some(exchange), Some(logins)) = (scan.line, exchange, &turn.config.logins) else {
            return (consumed, false);
        };
        let step = match line {
            _ if more_follows => None,
            Ok(line) => Some(exchange.respond(line, &logins.users)),
            Err(LineError::TooLong) => Some(Step::TooLong),
            Err(LineError::BareCr | LineError::BareLf | LineError::Nul) => {
                turn.policy.observe(Event::Error(SessionError::LineFault));
                self.close(turn, LINE_FAULT);
                return (consumed, true);
            }
        };
        match step {
            Some(step) => self.auth_step(turn, step),
            None => self.too_early(turn),
        }
        (consumed, true)
    }

    fn auth_step<P: Policy>(&mut self, turn: &mut Turn<'_, P>, step: Step) {
        if let Step::Challenge(text) = &step {
            self.state = State::Auth;
            return self.reply(turn, &[b"334 ", text.as_slice(), b"\r\n"].concat());
        }
        self.state = State::Ready;
        self.scanner.set_line_bytes_max(LINE_BYTES_MAX);
        let reply = step.reply().unwrap_or_default();
        let login = self.login.get_or_insert_default();
        (login.exchange, login.is_unseen) = (None, true);
        let is_last = login.failures + 1 >= AUTH_FAILURES_MAX;
        let granted = match &step {
            Step::Verified(user) => {
                let decision = turn.policy.decide(turn.now, Question::Auth { user: Some(user) });
                self.answer(turn, decision, reply)
            }
            Step::Denied => {
                let decision = turn.policy.decide(turn.now, Question::Auth { user: None });
                self.answer(turn, decision, if is_last { TOO_MANY_FAILURES } else { reply });
                false
            }
            _ if is_last => {
                self.close(turn, TOO_MANY_FAILURES);
                false
            }
            _ => {
                self.error(turn, SessionError::Command, reply);
                false
            }
        };
        turn.policy.observe(Event::Login { granted });
        let login = self.login.get_or_insert_default();
        login.granted = granted;
        login.failures += u32::from(!granted);
        if is_last && !granted {
            // Behind the policy's last refusal, too, nothing follows.
            self.finish();
        }
    }
}
