//! A text with variables in it: compiled once, written for each message with that message's values.

use bytes::Bytes;

use super::date::DATE_BYTES;
use super::escape::Escape;
use super::message_id::MessageId;
use super::template::COPY_BYTES_MAX;
use super::variables::{ByRecipient, RecipientVariables, Row};
use crate::outgoing::Outgoing;

/// Most places in one text that are replaced.
pub const PLACES_MAX: usize = 10_000;
/// Most octets of what is put into one message in the place of variables. It is written for each message anew, so that every
/// connection may hold as much.
pub const EXPANSION_BYTES_MAX: u64 = 1 << 20;
/// Longest name of a variable, in octets.
const NAME_BYTES_MAX: usize = 256;

/// What a message puts in the place of variables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    /// The number of the message.
    pub sequence: u64,
    /// Its first recipient.
    pub recipient: &'a [u8],
    /// Its sender.
    pub from: &'a [u8],
    /// Its Message-ID.
    pub id: &'a MessageId,
    /// When it is written.
    pub date: &'a [u8; DATE_BYTES],
}

/// Which names are variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// None: the text is what it is.
    Nothing,
    /// `%recipient%` and `%recipient.NAME%`.
    Recipient,
    /// Those, and `%from%`, `%message_id%`, `%date%`, `%sequence%`.
    All,
}

/// A compiled text.
#[derive(Debug)]
pub(super) struct Expansion {
    pieces: Box<[Piece]>,
    escape: Escape,
    /// The values of its variables, recipient by recipient.
    values: ByRecipient<Row>,
    /// The longest text, if it is worth not to be copied.
    shared: Option<usize>,
    /// Octets of its texts before [`Expansion::stuff`].
    text_bytes: u64,
    /// Dots at the beginning of a line are doubled.
    stuffed: bool,
}

#[derive(Debug)]
enum Piece {
    Text(Bytes),
    Recipient,
    /// The variable of the recipient that has this number; without a value it stays as it was written.
    RecipientVariable(usize, Bytes),
    From,
    MessageId,
    Date,
    Sequence,
}

/// A text with more places than can be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyPlaces;

impl Expansion {
    /// Compiles `text`. What looks like a variable and is none stays.
    pub(super) fn new(
        text: &Bytes,
        vocabulary: Vocabulary,
        variables: Option<&RecipientVariables>,
        escape: Escape,
    ) -> Result<Expansion, TooManyPlaces> {
        let (mut pieces, mut names) = (Vec::new(), Vec::new());
        let (mut done, mut at) = (0, 0);
        while let Some(found) = find_variable(text, at, vocabulary) {
            let (begin, end) = found;
            let Some(piece) = piece(text.slice(begin..end), vocabulary, &mut names) else {
                // Its last % may begin a variable.
                at = end - 1;
                continue;
            };
            if pieces.len() >= 2 * PLACES_MAX {
                return Err(TooManyPlaces);
            }
            if begin > done {
                pieces.push(Piece::Text(text.slice(done..begin)));
            }
            pieces.push(piece);
            (done, at) = (end, end);
        }
        if done < text.len() {
            pieces.push(Piece::Text(text.slice(done..)));
        }
        let values = match variables {
            Some(variables) if !names.is_empty() => variables.values(&names, escape),
            _ => ByRecipient::new(),
        };
        let text_bytes = pieces.iter().map(|piece| piece.text().map_or(0, |text| text.len() as u64)).sum();
        let mut compiled =
            Expansion { pieces: pieces.into(), escape, values, shared: None, text_bytes, stuffed: false };
        compiled.find_shared();
        Ok(compiled)
    }

    /// Lets dots at the beginning of a line be doubled, also where a variable stands there. `stuff` does so to a text that
    /// begins a line.
    pub(super) fn stuff(&mut self, stuff: impl Fn(&[u8]) -> Vec<u8>) {
        let mut follows_variable = false;
        for piece in &mut self.pieces {
            let Piece::Text(text) = piece else {
                follows_variable = true;
                continue;
            };
            let stuffed = Bytes::from(stuff(text));
            // Whether it begins a line is known only once what stands before it is.
            let undone = usize::from(follows_variable && text.starts_with(b"."));
            *text = stuffed.slice(undone..);
        }
        self.stuffed = true;
        self.find_shared();
    }

    fn find_shared(&mut self) {
        let longest = (0..self.pieces.len()).max_by_key(|&i| self.pieces[i].text().map_or(0, Bytes::len));
        self.shared = longest.filter(|&i| self.pieces[i].text().is_some_and(|text| text.len() > COPY_BYTES_MAX));
    }

    /// Whether anything is replaced.
    #[inline]
    pub(super) fn has_variables(&self) -> bool {
        // Two texts never stand side by side.
        self.pieces.len() > 1 || self.pieces.first().is_some_and(|piece| piece.text().is_none())
    }

    /// Whether dots at the beginning of a line are doubled.
    pub(super) fn is_stuffed(&self) -> bool {
        self.stuffed
    }

    /// Whether a value depends on the recipient.
    pub(super) fn needs_recipient(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Recipient | Piece::RecipientVariable(..)))
    }

    /// Whether any value of the recipients' variables has octets above 127.
    pub(super) fn has_8bit_values(&self) -> bool {
        self.values.values().flatten().flatten().any(|value| !value.is_ascii())
    }

    /// The texts between the variables.
    pub(super) fn texts(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().filter_map(Piece::text)
    }

    /// Most octets that a message can have, and that one of its lines can, with recipients and senders of so many octets
    /// as they are written.
    pub(super) fn longest(&self, recipient: usize, from: usize, id: usize) -> (u64, u64) {
        let mut of_variable = vec![0; self.values.values().next().map_or(0, |row| row.len())];
        for row in self.values.values() {
            for (longest, value) in of_variable.iter_mut().zip(row.iter().flatten().map(|value| value.len())) {
                *longest = value.max(*longest);
            }
        }
        let (mut all, mut line, mut longest_line) = (0u64, 0u64, 0);
        for piece in &self.pieces {
            let bytes = match piece {
                Piece::Text(text) => {
                    let mut lines = text.split(|&octet| octet == b'\n').map(|line| line.len() as u64);
                    let ends = memchr::memchr_iter(b'\n', text).count();
                    let last = lines.next_back().unwrap_or_default();
                    if ends > 0 {
                        longest_line = longest_line.max(line + lines.next().unwrap_or_default());
                        longest_line = longest_line.max(lines.max().unwrap_or_default());
                        line = 0;
                    }
                    line += last;
                    all += text.len() as u64;
                    longest_line = longest_line.max(line);
                    continue;
                }
                Piece::Recipient => recipient,
                Piece::RecipientVariable(index, written) => {
                    written.len().max(of_variable.get(*index).copied().unwrap_or_default())
                }
                Piece::From => from,
                Piece::MessageId => id,
                Piece::Date => DATE_BYTES,
                Piece::Sequence => 20,
            } as u64;
            (all, line) = (all + bytes, line + bytes);
            longest_line = longest_line.max(line);
        }
        (all, longest_line)
    }

    /// Octets of its texts, before dot-stuffing.
    #[inline]
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Octets of the text with these values, before dot-stuffing.
    #[inline]
    pub(super) fn bytes(&self, values: &Values<'_>) -> u64 {
        let row = self.row(values);
        let of_variables = self.pieces.iter().map(|piece| match piece {
            Piece::Text(_) => 0,
            Piece::Recipient => self.escape.len(values.recipient),
            Piece::RecipientVariable(index, written) => value(row, *index).unwrap_or(written).len(),
            Piece::From => self.escape.len(values.from),
            Piece::MessageId => values.id.len(),
            Piece::Date => self.escape.len(values.date),
            Piece::Sequence => values.sequence.checked_ilog10().map_or(1, |log| log as usize + 1),
        });
        self.text_bytes + of_variables.sum::<usize>() as u64
    }

    /// Appends the text with these values. Its longest piece is referred to where that pays. Allocates nothing but room in
    /// `out`.
    #[inline]
    pub(super) fn write(&self, values: &Values<'_>, out: &mut Outgoing) {
        let row = self.row(values);
        // Set behind a variable at the beginning of a line that was empty, or that is about to be written.
        let mut begins_line = self.stuffed;
        for (i, piece) in self.pieces.iter().enumerate() {
            let before = out.bytes.len();
            match piece {
                Piece::Text(text) => {
                    if begins_line && i > 0 && text[0] == b'.' {
                        out.push(b".");
                    }
                    match self.shared == Some(i) {
                        true => out.push_shared(text.clone()),
                        false => out.push(text),
                    }
                    begins_line = self.stuffed && text.ends_with(b"\n");
                    continue;
                }
                Piece::Recipient => self.escape.push(values.recipient, &mut out.bytes),
                Piece::RecipientVariable(index, written) => out.push(value(row, *index).unwrap_or(written)),
                Piece::From => self.escape.push(values.from, &mut out.bytes),
                Piece::MessageId => values.id.push(values.sequence, &mut out.bytes),
                Piece::Date => self.escape.push(values.date, &mut out.bytes),
                Piece::Sequence => out.push(itoa::Buffer::new().format(values.sequence).as_bytes()),
            }
            if begins_line && out.bytes.len() > before {
                if out.bytes[before] == b'.' {
                    out.bytes.insert(before, b'.');
                }
                begins_line = false;
            }
        }
    }

    /// The recipient's values.
    #[inline]
    fn row(&self, values: &Values<'_>) -> Option<&[Option<Box<[u8]>>]> {
        if self.values.is_empty() { None } else { self.values.get(values.recipient).map(|row| &**row) }
    }
}

/// The value of a recipient's variable, if it has one.
#[inline]
fn value(row: Option<&[Option<Box<[u8]>>]>, index: usize) -> Option<&[u8]> {
    row?.get(index)?.as_deref()
}

impl Piece {
    fn text(&self) -> Option<&Bytes> {
        match self {
            Piece::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// The next thing at or behind `from` that looks like a variable: from its first % to behind its last.
fn find_variable(text: &[u8], mut from: usize, vocabulary: Vocabulary) -> Option<(usize, usize)> {
    if vocabulary == Vocabulary::Nothing {
        return None;
    }
    loop {
        let begin = from + memchr::memchr(b'%', text.get(from..)?)?;
        let within = &text[begin + 1..text.len().min(begin + 2 + NAME_BYTES_MAX)];
        match memchr::memchr(b'%', within) {
            Some(length) => return Some((begin, begin + 2 + length)),
            None => from = begin + 1 + within.len(),
        }
    }
}

fn piece(written: Bytes, vocabulary: Vocabulary, names: &mut Vec<String>) -> Option<Piece> {
    const OF_RECIPIENT: &[u8] = b"recipient.";
    let name = &written[1..written.len() - 1];
    match name {
        b"recipient" => return Some(Piece::Recipient),
        _ if vocabulary != Vocabulary::All => {}
        b"from" => return Some(Piece::From),
        b"message_id" => return Some(Piece::MessageId),
        b"date" => return Some(Piece::Date),
        b"sequence" => return Some(Piece::Sequence),
        _ => {}
    }
    let name = std::str::from_utf8(name.strip_prefix(OF_RECIPIENT)?).ok()?;
    if name.is_empty() || name.contains(char::is_control) {
        return None;
    }
    let index = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    Some(Piece::RecipientVariable(index, written))
}
