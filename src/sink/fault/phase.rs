//! What a fault may concern, and what it may do.

use crate::phase::Phase;
use crate::wire::smtp::server::Question;

/// A step of a connection that a fault may concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPhase {
    /// The connection, before anything is said on it.
    Connect,
    /// The TLS handshake, of a new connection or behind STARTTLS.
    Tls,
    /// The greeting.
    Banner,
    /// The reply to EHLO or HELO.
    Ehlo,
    /// The reply to STARTTLS.
    StartTls,
    /// The reply that ends AUTH.
    Auth,
    /// The reply to MAIL.
    Mail,
    /// The reply to RCPT.
    Rcpt,
    /// The reply to DATA.
    Data,
    /// The reply to the message.
    Final,
    /// The reply to QUIT.
    Quit,
    /// The response to an HTTP request.
    Http,
}

impl FaultPhase {
    /// All of them.
    pub const ALL: [FaultPhase; 12] = [
        FaultPhase::Connect,
        FaultPhase::Tls,
        FaultPhase::Banner,
        FaultPhase::Ehlo,
        FaultPhase::StartTls,
        FaultPhase::Auth,
        FaultPhase::Mail,
        FaultPhase::Rcpt,
        FaultPhase::Data,
        FaultPhase::Final,
        FaultPhase::Quit,
        FaultPhase::Http,
    ];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            FaultPhase::Connect => Phase::Connect.name(),
            FaultPhase::Tls => Phase::Tls.name(),
            FaultPhase::Banner => Phase::Banner.name(),
            FaultPhase::Ehlo => Phase::Ehlo.name(),
            FaultPhase::StartTls => Phase::StartTls.name(),
            FaultPhase::Auth => Phase::Auth.name(),
            FaultPhase::Mail => Phase::Mail.name(),
            FaultPhase::Rcpt => Phase::Rcpt.name(),
            FaultPhase::Data => Phase::Data.name(),
            FaultPhase::Final => Phase::Final.name(),
            FaultPhase::Quit => Phase::Quit.name(),
            FaultPhase::Http => "http",
        }
    }

    /// Neither the greeting nor the reply to EHLO carries an enhanced status code (RFC 2034 §4), and HTTP knows none.
    pub(super) const fn has_enhanced_codes(self) -> bool {
        !matches!(self, FaultPhase::Banner | FaultPhase::Ehlo | FaultPhase::Http)
    }

    /// Whether SMTP gives a reply in it.
    pub(super) const fn is_replied_to(self) -> bool {
        !matches!(self, FaultPhase::Connect | FaultPhase::Tls | FaultPhase::Http)
    }
}

/// The phase in which a question is asked.
#[inline]
pub const fn phase_of(question: &Question<'_>) -> FaultPhase {
    match question {
        Question::Connect => FaultPhase::Banner,
        Question::Ehlo { .. } => FaultPhase::Ehlo,
        Question::StartTls => FaultPhase::StartTls,
        Question::Auth { .. } => FaultPhase::Auth,
        Question::Mail { .. } => FaultPhase::Mail,
        Question::Rcpt { .. } => FaultPhase::Rcpt,
        Question::Data { .. } => FaultPhase::Data,
        Question::Message { .. } => FaultPhase::Final,
        Question::Quit => FaultPhase::Quit,
    }
}

/// How a TLS handshake goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// It is refused by an alert.
    Refuse,
    /// The certificate is one that has expired.
    Expired,
    /// The certificate is one of another host.
    WrongName,
    /// The connection is closed when the client has begun it.
    Drop,
    /// The connection is reset when the client has begun it.
    Reset,
}

/// The kinds of faults, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reply,
    Drop,
    Reset,
    Delay,
    Slow,
    Refuse,
    Expired,
    WrongName,
    Without,
}

impl Kind {
    pub(super) const ALL: [Kind; 9] = [
        Kind::Reply,
        Kind::Drop,
        Kind::Reset,
        Kind::Delay,
        Kind::Slow,
        Kind::Refuse,
        Kind::Expired,
        Kind::WrongName,
        Kind::Without,
    ];

    /// As it is written in rules, and in counts.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Reply => "reply",
            Kind::Drop => "drop",
            Kind::Reset => "reset",
            Kind::Delay => "delay",
            Kind::Slow => "slow",
            Kind::Refuse => "refuse",
            Kind::Expired => "expired",
            Kind::WrongName => "wrong-name",
            Kind::Without => "without",
        }
    }
}
