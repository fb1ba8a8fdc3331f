//! Which addresses a message goes to.

use std::sync::Arc;

use super::Mailbox;

/// Most recipients of one message. RFC 5321, 4.5.3.1.8, has servers take at least 100; 1,000 is what Mailgun's API takes
/// in one call.
pub const RECIPIENTS_PER_MESSAGE_MAX: u32 = 1_000;
/// Most addresses in the list of a job.
pub const RECIPIENTS_MAX: usize = 1_000_000;

/// The addresses of a job, and how many of them each message goes to. Cloning shares the list.
///
/// Messages go round the list: with n addresses and p a message, recipient j of message i is address (i × p + j) mod n.
/// With p above n a message goes to some addresses more than once.
#[derive(Clone, Debug)]
pub struct Recipients {
    list: Arc<[Mailbox]>,
    per_message: u32,
}

/// Recipients that no job can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientsError {
    /// There is no address.
    #[error("expected at least one recipient, got none; name one")]
    Empty,
    /// There are too many addresses.
    #[error("expected at most {RECIPIENTS_MAX} recipients, got {0}; shorten the list")]
    TooMany(usize),
    /// A message would go to nobody, or to too many.
    #[error("expected 1 to {RECIPIENTS_PER_MESSAGE_MAX} recipients a message, got {0}; send more messages instead")]
    PerMessage(u32),
}

impl Recipients {
    /// `per_message` addresses of `list` for each message.
    ///
    /// # Errors
    ///
    /// When the list is empty or longer than [`RECIPIENTS_MAX`], or `per_message` is zero or above
    /// [`RECIPIENTS_PER_MESSAGE_MAX`].
    pub fn new(list: Vec<Mailbox>, per_message: u32) -> Result<Recipients, RecipientsError> {
        if list.is_empty() {
            return Err(RecipientsError::Empty);
        }
        if list.len() > RECIPIENTS_MAX {
            return Err(RecipientsError::TooMany(list.len()));
        }
        if !(1..=RECIPIENTS_PER_MESSAGE_MAX).contains(&per_message) {
            return Err(RecipientsError::PerMessage(per_message));
        }
        Ok(Recipients { list: list.into(), per_message })
    }

    /// Recipient `j` of message `sequence`, with `j` below [`Recipients::per_message`].
    #[inline]
    pub fn of(&self, sequence: u64, j: u32) -> &Mailbox {
        debug_assert!(j < self.per_message, "recipient {j} of {}", self.per_message);
        &self.list[(self.first(sequence) + j as usize) % self.list.len()]
    }

    /// All recipients of message `sequence`, in their order.
    #[inline]
    pub fn of_message(&self, sequence: u64) -> impl Iterator<Item = &Mailbox> {
        self.list[self.first(sequence)..].iter().chain(self.list.iter().cycle()).take(self.per_message as usize)
    }

    /// Recipients of one message.
    #[inline]
    pub fn per_message(&self) -> u32 {
        self.per_message
    }

    /// All addresses of the job.
    pub fn list(&self) -> &[Mailbox] {
        &self.list
    }

    /// Where in the list the recipients of message `sequence` begin. Reduced before the multiplication, so that no
    /// sequence number overflows it.
    #[inline]
    fn first(&self, sequence: u64) -> usize {
        let len = self.list.len() as u64;
        // Below RECIPIENTS_MAX, so the cast is exact.
        (sequence % len * u64::from(self.per_message) % len) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> Vec<Mailbox> {
        (0..count).map(|i| Mailbox::parse(&format!("r{i}@example.com")).unwrap()).collect()
    }

    #[test]
    fn messages_go_round_the_list() {
        for (count, per_message) in [(1, 1), (5, 1), (5, 2), (3, 3), (2, 5), (7, 1_000)] {
            let recipients = Recipients::new(list(count), per_message).unwrap();
            for sequence in 0..20 {
                let all: Vec<&Mailbox> = recipients.of_message(sequence).collect();
                assert_eq!(all.len(), per_message as usize);
                for j in 0..per_message {
                    let expected = (sequence as usize * per_message as usize + j as usize) % count;
                    assert_eq!(recipients.of(sequence, j).as_str(), format!("r{expected}@example.com"));
                    assert_eq!(all[j as usize], recipients.of(sequence, j));
                }
            }
        }
    }

    #[test]
    fn the_highest_sequence_number_has_recipients_too() {
        let recipients = Recipients::new(list(7), 1_000).unwrap();
        let expected = (u128::from(u64::MAX) * 1_000 + 999) % 7;
        assert_eq!(recipients.of(u64::MAX, 999).as_str(), format!("r{expected}@example.com"));
    }

    #[test]
    fn counts_out_of_bounds_are_refused() {
        assert_eq!(Recipients::new(vec![], 1).unwrap_err(), RecipientsError::Empty);
        for per_message in [0, 1_001] {
            assert_eq!(Recipients::new(list(1), per_message).unwrap_err(), RecipientsError::PerMessage(per_message));
        }
        assert!(Recipients::new(list(1), RECIPIENTS_PER_MESSAGE_MAX).is_ok());
    }
}
