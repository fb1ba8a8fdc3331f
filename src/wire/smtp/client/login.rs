//! AUTH (RFC 4954): between the last EHLO and the first message, where there are credentials.

use std::fmt;

use secrecy::zeroize::Zeroizing;

use super::session::{Dialogue, State};
use super::{ClientConfig, ClientError, Write};
use crate::time::Instant;
use crate::wire::smtp::auth::{ClientExchange, Mechanism};
use crate::wire::smtp::reply::{Class, ReplyLine};

/// An exchange under way, and the line that is to be written next.
pub(super) struct Login {
    exchange: ClientExchange,
    line: Zeroizing<Vec<u8>>,
}

/// The line may hold a password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exchange.fmt(f)
    }
}

impl Login {
    /// Appends the line, which is then forgotten.
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&std::mem::take(&mut self.line));
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.exchange.mechanism()
    }
}

impl Dialogue {
    /// The server has said for the last time what it offers: log in, or be ready.
    pub(super) fn log_in(&mut self, now: Instant, config: &ClientConfig) {
        let Some(credentials) = &config.auth else { return self.become_ready() };
        self.await_reply(State::Auth, now + config.timeouts.auth);
        let Some(mechanism) = self.capabilities.auth.best(self.secured) else {
            let hint = !self.secured && self.capabilities.starttls;
            return self.fail(if hint { ClientError::AuthNeedsTls } else { ClientError::AuthNotOffered });
        };
        let (mut exchange, mut line) = (ClientExchange::new(mechanism), Zeroizing::default());
        exchange.first(credentials, &mut line);
        self.login = Some(Box::new(Login { exchange, line }));
        self.write = Some(Write::Auth(mechanism));
    }

    pub(super) fn auth_replied(&mut self, now: Instant, reply: ReplyLine<'_>, config: &ClientConfig) {
        match (reply.class(), reply.code) {
            (Class::Positive, 235) => self.become_ready(),
            (Class::Positive, 334) => {
                let (Some(login), Some(credentials)) = (&mut self.login, &config.auth) else {
                    return self.fail(ClientError::Unsolicited(334));
                };
                match login.exchange.challenge(reply.text, credentials, &mut login.line) {
                    Ok(()) => {
                        self.write = Some(Write::AuthAnswer);
                        self.await_reply(State::Auth, now + config.timeouts.auth);
                    }
                    Err(error) => self.fail(ClientError::Challenge(error)),
                }
            }
            (Class::Positive, code) => self.fail(ClientError::UnexpectedCode(code)),
            (class, code) => self.refuse(class, code),
        }
    }
}
