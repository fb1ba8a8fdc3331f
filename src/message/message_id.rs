//! What every message is known by.

use super::template::LINE_BYTES_GOOD;
use super::{AddressError, Mailbox, MessageError};

/// Octets of a number in hexadecimal digits. Fixed, so that all messages of a given file have one size.
const HEX_BYTES: usize = 16;

/// Message-IDs of a run, `sequence.run@host`. Two runs share none if their run ids differ.
#[derive(Clone, Debug)]
pub(super) struct MessageId {
    /// What follows the sequence number.
    rest: Box<[u8]>,
}

impl MessageId {
    pub(super) fn new(run_id: u64, host: &str) -> Result<MessageId, MessageError> {
        // The right side of a Message-ID is of the same form as the domain of an ASCII address (RFC 5322, 3.6.4).
        let fits = |error: Result<Mailbox, AddressError>| error.is_ok_and(|mailbox| mailbox.is_ascii());
        if host.contains('@') || !fits(Mailbox::parse(&format!("x@{host}"))) {
            return Err(MessageError::Host { host: host.chars().take(LINE_BYTES_GOOD).collect() });
        }
        Ok(MessageId { rest: format!(".{run_id:016x}@{host}").into_bytes().into() })
    }

    /// Octets of every one of them.
    pub(super) fn len(&self) -> usize {
        HEX_BYTES + self.rest.len()
    }

    /// The same, part by part.
    #[inline]
    pub(super) fn each_part(&self, sequence: u64, push: &mut impl FnMut(&[u8])) {
        push(&hex(sequence));
        push(&self.rest);
    }

    /// Appends that of message `sequence`, without angle brackets.
    #[inline]
    pub(super) fn push(&self, sequence: u64, out: &mut Vec<u8>) {
        self.each_part(sequence, &mut |part| out.extend_from_slice(part));
    }
}

/// A number in [`HEX_BYTES`] lower-case digits.
#[inline]
fn hex(number: u64) -> [u8; HEX_BYTES] {
    let mut digits = [0; HEX_BYTES];
    for (i, digit) in digits.iter_mut().enumerate() {
        let nibble = (number >> (4 * (HEX_BYTES - 1 - i))) as u8 & 0xf;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}
