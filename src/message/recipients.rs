//! Which addresses a message goes to.

use std::fmt;
use std::sync::Arc;

use super::address::{MAILBOX_BYTES_MAX, Mailbox};
use super::draw::draw_below;
use super::escape::Escape;
use super::{AddressError, RecipientVariables};

/// Most recipients of one message. RFC 5321, 4.5.3.1.8, has servers take at least 100; 1,000 is what Mailgun's API takes
/// in one call.
pub const RECIPIENTS_PER_MESSAGE_MAX: u32 = 1_000;
/// Most entries, addresses and patterns, in the list of a job.
pub const RECIPIENTS_MAX: usize = 1_000_000;
/// Most addresses that a list stands for, those of its patterns included.
pub const ADDRESSES_MAX: u64 = 1_000_000_000_000;
/// Most digits of a number in a pattern.
const DIGITS_MAX: usize = 18;

/// Longest pattern, in octets: an address with a range in it.
const PATTERN_BYTES_MAX: usize = MAILBOX_BYTES_MAX + 2 * DIGITS_MAX + "{..}".len();

/// The order in which a job's messages take its recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecipientOrder {
    /// Round the list: with n addresses and p a message, recipient j of message i is address (i × p + j) mod n.
    #[default]
    Sequential,
    /// Each message begins at an address drawn by the seed, and goes to those that follow it.
    Random,
}

impl RecipientOrder {
    /// All of them.
    pub const ALL: [RecipientOrder; 2] = [RecipientOrder::Sequential, RecipientOrder::Random];

    /// The name in requests and reports.
    pub const fn name(self) -> &'static str {
        match self {
            RecipientOrder::Sequential => "sequential",
            RecipientOrder::Random => "random",
        }
    }
}

/// The addresses of a job, and how many of them each message goes to. Cloning shares the list.
///
/// With more recipients a message than there are addresses, a message goes to some more than once.
#[derive(Clone, Debug)]
pub struct Recipients {
    entries: Arc<[Entry]>,
    /// Where each entry's addresses end, counting all; empty where every entry is one address.
    ends: Arc<[u64]>,
    /// Addresses in all.
    count: u64,
    per_message: u32,
    order: RecipientOrder,
    seed: u64,
}

/// What a list of recipients is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// One address.
    Mailbox(Mailbox),
    /// As many addresses as a counter takes values.
    Pattern(Pattern),
}

/// Addresses that differ by a number, as `user{1..100000}@example.com`. Never held one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What stands before the number, and behind it.
    before: Box<str>,
    after: Box<str>,
    first: u64,
    count: u64,
    /// Least digits: `{001..100}` keeps its zeros.
    digits_min: usize,
}

/// Room for one address, so that those of a pattern are written without an allocation.
#[derive(Clone, Debug)]
pub struct AddressBuffer([u8; MAILBOX_BYTES_MAX]);

impl AddressBuffer {
    /// Room for any address.
    #[inline]
    pub fn new() -> AddressBuffer {
        AddressBuffer([0; MAILBOX_BYTES_MAX])
    }
}

impl Default for AddressBuffer {
    fn default() -> AddressBuffer {
        AddressBuffer::new()
    }
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
    /// Patterns stand for too many addresses.
    #[error("expected patterns of at most {ADDRESSES_MAX} addresses in all, got {0}; narrow their ranges")]
    TooManyAddresses(u128),
    /// A message would go to nobody, or to too many.
    #[error("expected 1 to {RECIPIENTS_PER_MESSAGE_MAX} recipients a message, got {0}; send more messages instead")]
    PerMessage(u32),
    /// The range of a pattern cannot be counted through.
    #[error(
        "expected a range such as {{1..1000}} or {{001..100}}, of at most {DIGITS_MAX} digits, that does not go down, got \
         {0:?}; correct it"
    )]
    Range(String),
    /// A pattern counts by one number.
    #[error(
        "expected one range of numbers in a pattern, got a second one, {0:?}; write a pattern for each value of one of them"
    )]
    Ranges(String),
    /// It is no address, or the pattern makes none.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl Entry {
    /// Reads an address, or a pattern with one range of numbers in braces.
    ///
    /// # Errors
    ///
    /// When it is neither, or the first or last address of the pattern is none.
    pub fn parse(text: &str) -> Result<Entry, RecipientsError> {
        // No address has two dots in braces, unless it is a quoted one, which is taken as it stands.
        let not_an_address = match Mailbox::parse(text) {
            Ok(mailbox) => return Ok(Entry::Mailbox(mailbox)),
            Err(error) => error,
        };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(not_an_address.into());
        }
        let Some((before, range, after)) = find_range(text) else { return Err(not_an_address.into()) };
        let wrong = || RecipientsError::Range(range.chars().take(60).collect());
        if let Some((_, second, _)) = find_range(after) {
            return Err(RecipientsError::Ranges(format!("{{{}}}", second.chars().take(60).collect::<String>())));
        }
        let (first, last) = range.split_once("..").ok_or_else(wrong)?;
        if first.len() > DIGITS_MAX || last.len() > DIGITS_MAX {
            return Err(wrong());
        }
        let digits_min = if first.starts_with('0') && first.len() > 1 { first.len() } else { 1 };
        let [first, last]: [u64; 2] = [first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?];
        let count = last.checked_sub(first).ok_or_else(wrong)? + 1;
        let pattern = Pattern { before: before.into(), after: after.into(), first, count, digits_min };
        // The last address is the longest, and nothing but length and size of the number differs between them.
        for number in [first, last] {
            let mut room = Vec::new();
            pattern.push(number, &mut room);
            Mailbox::parse(&String::from_utf8_lossy(&room))?;
        }
        Ok(Entry::Pattern(pattern))
    }

    /// Addresses that it stands for.
    pub fn count(&self) -> u64 {
        match self {
            Entry::Mailbox(_) => 1,
            Entry::Pattern(pattern) => pattern.count,
        }
    }

    /// Octets of its shortest and of its longest address.
    fn bytes(&self, escape: Escape) -> (usize, usize) {
        match self {
            Entry::Mailbox(mailbox) => (escape.len(mailbox.as_bytes()), escape.len(mailbox.as_bytes())),
            Entry::Pattern(pattern) => {
                let around = escape.len(pattern.before.as_bytes()) + escape.len(pattern.after.as_bytes());
                let digits = |number| digits(number).max(pattern.digits_min);
                (around + digits(pattern.first), around + digits(pattern.first + pattern.count - 1))
            }
        }
    }

    /// Whether all of its addresses are ASCII.
    fn is_ascii(&self) -> bool {
        match self {
            Entry::Mailbox(mailbox) => mailbox.is_ascii(),
            Entry::Pattern(pattern) => pattern.before.is_ascii() && pattern.after.is_ascii(),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Mailbox(mailbox) => mailbox.fmt(f),
            Entry::Pattern(Pattern { before, after, first, count, digits_min: width }) => {
                write!(f, "{before}{{{first:0width$}..{:0width$}}}{after}", first + count - 1)
            }
        }
    }
}

/// The first `{1..5}` of a text, and what stands around it.
fn find_range(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(at, _)| {
        let (range, after) = text[at + 1..].split_once('}')?;
        let is_range = range.contains("..") && range.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
        is_range.then_some((&text[..at], range, after))
    })
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

impl Pattern {
    fn push(&self, number: u64, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let Pattern { before, after, digits_min, .. } = self;
        write!(out, "{before}{number:0digits_min$}{after}").expect("a vector takes everything");
    }

    /// Address `index` of those that it stands for.
    #[inline]
    fn write<'a>(&self, index: u64, buffer: &'a mut AddressBuffer) -> &'a [u8] {
        let mut number = self.first + index;
        let room = &mut buffer.0;
        let digits_end = self.before.len() + digits(number).max(self.digits_min);
        let end = digits_end + self.after.len();
        room[..self.before.len()].copy_from_slice(self.before.as_bytes());
        for digit in room[self.before.len()..digits_end].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        room[digits_end..end].copy_from_slice(self.after.as_bytes());
        &room[..end]
    }
}

impl Recipients {
    /// `per_message` addresses of `list` for each message.
    ///
    /// # Errors
    ///
    /// When the list is empty or longer than [`RECIPIENTS_MAX`], or `per_message` is zero or above
    /// [`RECIPIENTS_PER_MESSAGE_MAX`].
    pub fn new(list: Vec<Mailbox>, per_message: u32) -> Result<Recipients, RecipientsError> {
        let entries = list.into_iter().map(Entry::Mailbox).collect();
        Recipients::of_entries(entries, per_message, RecipientOrder::Sequential, 0)
    }

    /// The same of addresses and patterns, in the given order; `seed` repeats a random one.
    ///
    /// # Errors
    ///
    /// Those of [`Recipients::new`], and when patterns stand for more than [`ADDRESSES_MAX`] addresses.
    pub fn of_entries(
        entries: Vec<Entry>,
        per_message: u32,
        order: RecipientOrder,
        seed: u64,
    ) -> Result<Recipients, RecipientsError> {
        if entries.is_empty() {
            return Err(RecipientsError::Empty);
        }
        if entries.len() > RECIPIENTS_MAX {
            return Err(RecipientsError::TooMany(entries.len()));
        }
        if !(1..=RECIPIENTS_PER_MESSAGE_MAX).contains(&per_message) {
            return Err(RecipientsError::PerMessage(per_message));
        }
        let all: u128 = entries.iter().map(|entry| u128::from(entry.count())).sum();
        let count = u64::try_from(all).ok().filter(|count| *count <= ADDRESSES_MAX);
        let count = count.ok_or(RecipientsError::TooManyAddresses(all))?;
        let ends: Arc<[u64]> = match count == entries.len() as u64 && entries.iter().all(Entry::is_mailbox) {
            true => Arc::new([]),
            false => entries
                .iter()
                .scan(0, |end, entry| {
                    *end += entry.count();
                    Some(*end)
                })
                .collect(),
        };
        Ok(Recipients { entries: entries.into(), ends, count, per_message, order, seed })
    }

    /// Recipient `j` of message `sequence`, with `j` below [`Recipients::per_message`]. Lent from the list, or from
    /// `buffer`.
    #[inline]
    pub fn of<'a>(&'a self, sequence: u64, j: u32, buffer: &'a mut AddressBuffer) -> &'a [u8] {
        debug_assert!(j < self.per_message, "recipient {j} of {}", self.per_message);
        let mut index = self.first(sequence) + u64::from(j);
        if index >= self.count {
            index %= self.count;
        }
        if self.ends.is_empty() {
            // No pattern is in a list without ends.
            let Entry::Mailbox(mailbox) = &self.entries[index as usize] else { return b"" };
            return mailbox.as_bytes();
        }
        let at = self.ends.partition_point(|end| *end <= index);
        match &self.entries[at] {
            Entry::Mailbox(mailbox) => mailbox.as_bytes(),
            Entry::Pattern(pattern) => pattern.write(index + pattern.count - self.ends[at], buffer),
        }
    }

    /// Recipients of one message.
    #[inline]
    pub fn per_message(&self) -> u32 {
        self.per_message
    }

    /// Addresses in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The list, entry by entry.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many of the addresses have no `variables`, at least: exactly, where the list is no longer than
    /// [`RECIPIENTS_MAX`] addresses.
    pub fn count_without(&self, variables: &RecipientVariables) -> u64 {
        if self.count > RECIPIENTS_MAX as u64 {
            return self.count.saturating_sub(variables.len() as u64);
        }
        let one_by_one = Recipients { per_message: 1, order: RecipientOrder::Sequential, ..self.clone() };
        let mut buffer = AddressBuffer::new();
        (0..self.count).filter(|&i| !variables.contains(one_by_one.of(i, 0, &mut buffer))).count() as u64
    }

    /// The order in which messages take them.
    pub fn order(&self) -> RecipientOrder {
        self.order
    }

    /// Whether all addresses are ASCII. If not, they may be sent only to a server that offers SMTPUTF8 (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.entries.iter().all(Entry::is_ascii)
    }

    /// Octets of the shortest and of the longest address, written in this way.
    pub(super) fn address_bytes(&self, escape: Escape) -> (usize, usize) {
        self.entries
            .iter()
            .map(|entry| entry.bytes(escape))
            .fold((usize::MAX, 0), |(shortest, longest), (short, long)| (shortest.min(short), longest.max(long)))
    }

    /// Where in the list the recipients of message `sequence` begin. Reduced before the multiplication, so that no
    /// sequence number overflows it.
    #[inline]
    fn first(&self, sequence: u64) -> u64 {
        match self.order {
            // Both factors are below 2^40 and 2^10.
            RecipientOrder::Sequential => sequence % self.count * u64::from(self.per_message) % self.count,
            RecipientOrder::Random => draw_below(self.seed, sequence, self.count),
        }
    }
}

impl Entry {
    fn is_mailbox(&self) -> bool {
        matches!(self, Entry::Mailbox(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> Vec<Mailbox> {
        (0..count).map(|i| Mailbox::parse(&format!("r{i}@example.com")).unwrap()).collect()
    }

    fn mixed(entries: &[&str], per_message: u32, order: RecipientOrder) -> Recipients {
        let entries = entries.iter().map(|text| Entry::parse(text).unwrap()).collect();
        Recipients::of_entries(entries, per_message, order, 5).unwrap()
    }

    fn of(recipients: &Recipients, sequence: u64, j: u32) -> String {
        String::from_utf8(recipients.of(sequence, j, &mut AddressBuffer::new()).to_vec()).unwrap()
    }

    #[test]
    fn messages_go_round_the_list() {
        for (count, per_message) in [(1, 1), (5, 1), (5, 2), (3, 3), (2, 5), (7, 1_000)] {
            let recipients = Recipients::new(list(count), per_message).unwrap();
            for sequence in 0..20 {
                for j in 0..per_message {
                    let expected = (sequence as usize * per_message as usize + j as usize) % count;
                    assert_eq!(of(&recipients, sequence, j), format!("r{expected}@example.com"));
                }
            }
        }
    }

    #[test]
    fn the_highest_sequence_number_has_recipients_too() {
        let recipients = Recipients::new(list(7), 1_000).unwrap();
        let expected = (u128::from(u64::MAX) * 1_000 + 999) % 7;
        assert_eq!(of(&recipients, u64::MAX, 999), format!("r{expected}@example.com"));
        let many = mixed(&["u{1..999999999999}@e", "a@b"], 1_000, RecipientOrder::Sequential);
        assert_eq!(many.count(), ADDRESSES_MAX);
        let index = (u128::from(u64::MAX) * 1_000 + 7) % u128::from(ADDRESSES_MAX);
        assert_eq!(of(&many, u64::MAX, 7), format!("u{}@e", index + 1));
    }

    #[test]
    fn patterns_and_addresses_stand_in_one_list() {
        let recipients =
            mixed(&["a@x", "u{08..11}@x", "b@x", "v{9..10}.w@d", "c@y{3..4}.z"], 1, RecipientOrder::Sequential);
        let all: Vec<String> = (0..recipients.count()).map(|sequence| of(&recipients, sequence, 0)).collect();
        assert_eq!(all, ["a@x", "u08@x", "u09@x", "u10@x", "u11@x", "b@x", "v9.w@d", "v10.w@d", "c@y3.z", "c@y4.z"]);
        assert_eq!(of(&recipients, 10, 0), "a@x");
        assert_eq!(recipients.address_bytes(Escape::None), (3, 7));
        assert_eq!(recipients.entries()[1].to_string(), "u{08..11}@x");
    }

    #[test]
    fn a_pattern_is_a_counter_whose_zeros_stay() {
        for (text, index, expected) in [
            ("user{1..100000}@example.com", 99_999, "user100000@example.com"),
            ("{001..100}@example.com", 0, "001@example.com"),
            ("{001..100}@example.com", 99, "100@example.com"),
            ("{0..5}@example.com", 0, "0@example.com"),
            ("{7..7}@example.com", 3, "7@example.com"),
            ("a{b}{5..6}@example.com", 1, "a{b}6@example.com"),
            ("\"{1..2}\"@example.com", 1, "\"{1..2}\"@example.com"),
        ] {
            assert_eq!(of(&mixed(&[text], 1, RecipientOrder::Sequential), index, 0), expected, "{text}");
        }
    }

    #[test]
    fn a_wrong_pattern_says_what_is_wrong_with_it() {
        for text in ["u{5..1}@x", "u{1..}@x", "u{..5}@x", "u{1...5}@x", "u{1..9999999999999999999}@x"] {
            assert!(matches!(Entry::parse(text), Err(RecipientsError::Range(_))), "{text}");
        }
        let long = format!("{}{{1..10}}@x", "l".repeat(63));
        for text in ["u{1..5}", "u{1..5}@x y", "a@[127.0.0.{250..260}]", "u{a..b}@x", &long] {
            assert!(matches!(Entry::parse(text), Err(RecipientsError::Address(_))), "{text}");
        }
        for text in ["u{1..5}{1..5}@x", "u{1..10}-{1..5}@x", "u{1..5}@x{1..5}.example"] {
            assert!(matches!(Entry::parse(text), Err(RecipientsError::Ranges(_))), "{text}");
        }
        assert!(Entry::parse(&"{".repeat(1 << 20)).is_err(), "at once");
        let all =
            Recipients::of_entries(vec![Entry::parse("u{0..1000000000000}@x").unwrap()], 1, RecipientOrder::Random, 0);
        assert_eq!(all.unwrap_err(), RecipientsError::TooManyAddresses(1_000_000_000_001));
    }

    #[test]
    fn a_random_order_is_repeated_by_its_seed_and_reaches_everybody() {
        let recipients = mixed(&["u{1..50}@x", "a@x"], 3, RecipientOrder::Random);
        let firsts: Vec<String> = (0..1_000).map(|sequence| of(&recipients, sequence, 0)).collect();
        assert_eq!(firsts, (0..1_000).map(|sequence| of(&recipients, sequence, 0)).collect::<Vec<_>>());
        let mut known = firsts.clone();
        known.sort();
        known.dedup();
        assert_eq!(known.len(), 51);
        assert_ne!(firsts[..50], firsts[50..100]);
        for sequence in 0..200 {
            let of_message: std::collections::HashSet<_> = (0..3).map(|j| of(&recipients, sequence, j)).collect();
            assert_eq!(of_message.len(), 3, "nobody twice in a message");
        }
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
