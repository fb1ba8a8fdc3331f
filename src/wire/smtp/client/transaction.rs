//! One transaction: MAIL, RCPT, DATA and the message, with and without PIPELINING, up to its verdict.

use super::session::{Dialogue, State};
use super::{ClientConfig, ClientError, Event, RecipientTally, Write};
use crate::phase::Phase;
use crate::time::Instant;
use crate::wire::smtp::reply::Class;

/// The transaction under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transaction {
    recipients: u32,
    answered: u32,
    tally: RecipientTally,
    /// MAIL, RCPT and DATA went out together, so the replies to all of them are on their way.
    grouped: bool,
    mail_accepted: bool,
    /// The first reply that decided against the message.
    verdict: Option<(Class, Phase)>,
}

impl Dialogue {
    #[inline]
    pub(super) fn begin(&mut self, now: Instant, recipients: u32, config: &ClientConfig) {
        debug_assert!(self.state == State::Ready && recipients > 0);
        let grouped = config.pipelining && self.capabilities.pipelining;
        self.transaction = Transaction { recipients, grouped, ..Transaction::default() };
        self.ready = false;
        self.write = Some(if grouped { Write::Group } else { Write::Mail });
        self.await_reply(State::Mail, now + config.timeouts.mail);
    }

    #[inline]
    pub(super) fn mail_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
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
    pub(super) fn rcpt_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
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
    pub(super) fn data_replied(&mut self, now: Instant, code: u16, class: Class, config: &ClientConfig) {
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
    pub(super) fn message_replied(&mut self, code: u16, class: Class) {
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
