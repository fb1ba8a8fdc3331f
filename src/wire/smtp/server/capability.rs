//! What a server says that it can do, in its reply to EHLO (RFC 5321 §4.1.1.1).

use crate::wire::smtp::command::MailParameters;

/// One line of the reply to EHLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Commands in groups (RFC 2920).
    Pipelining,
    /// The largest message, and MAIL's parameter SIZE (RFC 1870).
    Size,
    /// MAIL's parameter BODY (RFC 6152).
    EightBitMime,
    /// Addresses beyond ASCII (RFC 6531).
    SmtpUtf8,
    /// Codes such as 5.7.1 in replies (RFC 2034).
    EnhancedStatusCodes,
    /// TLS within the session (RFC 3207).
    StartTls,
    /// Logging in (RFC 4954).
    Auth,
}

impl Capability {
    /// All of them.
    pub const ALL: [Capability; 7] = [
        Capability::Pipelining,
        Capability::Size,
        Capability::EightBitMime,
        Capability::SmtpUtf8,
        Capability::EnhancedStatusCodes,
        Capability::StartTls,
        Capability::Auth,
    ];

    /// Its keyword.
    pub const fn name(self) -> &'static str {
        match self {
            Capability::Pipelining => "PIPELINING",
            Capability::Size => "SIZE",
            Capability::EightBitMime => "8BITMIME",
            Capability::SmtpUtf8 => "SMTPUTF8",
            Capability::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Capability::StartTls => "STARTTLS",
            Capability::Auth => "AUTH",
        }
    }
}

/// Some of the [`Capability`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u8);

impl Capabilities {
    /// Whether there is none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub const fn contain(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// The same with this one.
    #[must_use]
    pub const fn with(self, capability: Capability) -> Capabilities {
        Capabilities(self.0 | 1 << capability as u8)
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, others: Capabilities) -> Capabilities {
        Capabilities(self.0 | others.0)
    }

    /// Those among them, in the order of [`Capability::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |&capability| self.contain(capability))
    }

    /// Whether MAIL makes use of one of them by a parameter.
    pub(super) fn serve(self, parameters: &MailParameters) -> bool {
        (parameters.size.is_some() && self.contain(Capability::Size))
            || (parameters.body.is_some() && self.contain(Capability::EightBitMime))
            || (parameters.smtputf8 && self.contain(Capability::SmtpUtf8))
    }
}
