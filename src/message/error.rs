//! Why a message cannot be sent as it is.

use super::{EXPANSION_BYTES_MAX, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, PLACES_MAX, VariablesError};

/// A message that cannot be sent as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The headers alone are larger than the message is to be.
    #[error("expected a message of at least {least} octets, which its header needs, got {bytes}; ask for a larger one")]
    TooSmall {
        /// The size asked for, in octets.
        bytes: u64,
        /// The least size with these addresses and this host name, in octets.
        least: u64,
    },
    /// The message is larger than [`MESSAGE_BYTES_MAX`].
    #[error("expected a message of at most {MESSAGE_BYTES_MAX} octets, got {bytes}; ask for a smaller one")]
    TooLarge {
        /// The size asked for or given, in octets.
        bytes: u64,
    },
    /// The host name cannot stand in a Message-ID.
    #[error("expected a host name in ASCII for the Message-ID, got {host:?}; set one as mail.example.com")]
    Host {
        /// What was given.
        host: String,
    },
    /// The file does not begin with a header.
    #[error(
        "expected a message that begins with a header field as \"Subject: text\", got {got:?}; give a whole message (.eml)"
    )]
    NoHeader {
        /// The beginning of its first line.
        got: String,
    },
    /// A line of the header is no field and continues none.
    #[error(
        "line {line}: expected a header field as \"Subject: text\", or an empty line at the header's end, got {got:?}; correct it"
    )]
    HeaderLine {
        /// Number of the line in the file, from 1.
        line: u64,
        /// Its beginning.
        got: String,
    },
    /// A carriage return stands alone.
    #[error("line {line}: expected CR only before LF, got a CR alone, which no mail may contain; remove it")]
    BareCr {
        /// Number of the line in the file, from 1.
        line: u64,
    },
    /// A NUL octet.
    #[error("line {line}: expected text, got a NUL octet, which no mail may contain; encode the part as base64")]
    Nul {
        /// Number of the line in the file, from 1.
        line: u64,
    },
    /// A line is longer than [`LINE_BYTES_MAX`].
    #[error(
        "line {line}: expected at most {LINE_BYTES_MAX} octets in a line, got {bytes}; break it, or encode the part"
    )]
    LineTooLong {
        /// Number of the line in the file, from 1.
        line: u64,
        /// Its length in octets, without its line end.
        bytes: usize,
    },
    /// A message that is to stay as it is has a line that SMTP cannot carry as it is.
    #[error(
        "line {line}: expected CRLF at its end, as a message sent verbatim must have it, got none; convert the file"
    )]
    LineEnd {
        /// Number of the line in the file, from 1.
        line: u64,
    },
    /// A line is too long once its variables are replaced.
    #[error(
        "expected lines of at most {LINE_BYTES_MAX} octets once variables are replaced, got up to {bytes}; break the line, or \
         shorten the values"
    )]
    ExpandedLineTooLong {
        /// Octets of the longest line, at most.
        bytes: u64,
    },
    /// More variables than are replaced.
    #[error("expected at most {PLACES_MAX} variables in a message, got more; use fewer")]
    TooManyPlaces,
    /// The values of one message are too long together.
    #[error(
        "expected variables that put at most {EXPANSION_BYTES_MAX} octets into a message, got up to {bytes}; shorten the \
         values, or use them less often"
    )]
    ExpansionTooLarge {
        /// Octets of the values, at most.
        bytes: u64,
    },
    /// Variables stand in a part that had to be encoded.
    #[error(
        "expected lines of at most {LINE_BYTES_MAX} octets in a part with variables, got longer ones, which need base64; \
         break the lines"
    )]
    EncodedVariables,
    /// A variable cannot go along.
    #[error(transparent)]
    Variables(#[from] VariablesError),
}
