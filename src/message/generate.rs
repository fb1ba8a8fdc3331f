//! Made-up mail: a plain header and readable words.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::{Mailbox, Recipients, ReversePath, Sizes, compose};

/// What a generated message is made from.
#[derive(Clone, Debug)]
pub struct GeneratedSpec {
    /// Size of each message in octets: header, empty line and body with its final CRLF, before dot-stuffing and without
    /// the line that ends the data.
    pub sizes: Sizes,
    /// The subject; `None` for one that says what the message is.
    pub subject: Option<String>,
    /// The author. The null path becomes `MAILER-DAEMON` at `host`, as in a notice of failure.
    pub from: ReversePath,
    /// Who gets which message.
    pub recipients: Recipients,
    /// Repeats the text.
    pub seed: u64,
    /// A fresh number for each run, so that no two runs share a Message-ID.
    pub run_id: u64,
    /// The right side of the Message-ID: the name of this host.
    pub host: String,
}

/// The subject of a message that is not told another.
pub(super) const SUBJECT: &str = "timecop load message";
/// Characters of a full line of text.
const LINE_CHARS: usize = 76;
/// Octets of a full line with its CRLF.
const LINE_BYTES: usize = LINE_CHARS + 2;
/// What ends a text that has been cut.
pub(super) const TAIL: &[u8] = b"\r\n";
/// The same where the cut would fall between CR and LF: the line before it is full, and gets one character more.
const TAIL_OF_FULL_LINE: &[u8] = b".\r\n";

/// The fields that all messages share, and the empty line after them.
pub(super) fn header(spec: &GeneratedSpec) -> Vec<u8> {
    let subject = spec.subject.as_deref().unwrap_or(SUBJECT);
    let fields = [
        compose::from_field(&author(&spec.from, &spec.host)).as_str(),
        compose::subject_field(subject).as_str(),
        "MIME-Version: 1.0\r\n",
        "Content-Type: text/plain; charset=us-ascii\r\n",
        "Content-Transfer-Encoding: 7bit\r\n",
        "\r\n",
    ]
    .concat();
    fields.into_bytes()
}

/// Who is named as the author. The null path becomes `MAILER-DAEMON` at `host`, as in a notice of failure.
pub(super) fn author(from: &ReversePath, host: &str) -> String {
    match from {
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
        ReversePath::Null => format!("MAILER-DAEMON@{host}"),
    }
}

/// Recipients of a message that does not depend on them.
pub(super) fn nobody() -> Recipients {
    let nobody = Mailbox::parse("nobody@localhost").expect("the address is valid");
    Recipients::new(vec![nobody], 1).expect("there is one address")
}

/// Appends text, in full lines, until `content` has at least `bytes` octets. The seed decides the words, the size only
/// how many there are.
pub(super) fn push_text(content: &mut Vec<u8>, bytes: usize, seed: u64) {
    let mut rng = Pcg64::seed_from_u64(seed);
    content.reserve_exact(bytes.saturating_sub(content.len()) + LINE_BYTES);
    while content.len() < bytes {
        push_line(content, &mut rng);
    }
}

fn push_line(content: &mut Vec<u8>, rng: &mut Pcg64) {
    let mut room = LINE_CHARS;
    while room > 0 {
        // The top six bits choose one of 64 words.
        let word = WORDS[(rng.next_u64() >> 58) as usize].as_bytes();
        if word.len() + 1 < room {
            content.extend_from_slice(word);
            content.push(b' ');
            room -= word.len() + 1;
        } else {
            content.extend_from_slice(LAST_WORDS[room - 1].as_bytes());
            room = 0;
        }
    }
    content.extend_from_slice(b"\r\n");
}

/// How a text is cut so that it fills `room` octets (at least those of [`TAIL`]): how much of it is taken, and what
/// follows it. Never parts a CR from its LF.
#[inline]
pub(super) fn cut(room: usize) -> (usize, &'static [u8]) {
    let text = room - TAIL.len();
    if text % LINE_BYTES == LINE_BYTES - 1 { (text - 1, TAIL_OF_FULL_LINE) } else { (text, TAIL) }
}

/// None longer than 8 letters: see [`LAST_WORDS`].
const WORDS: [&str; 64] = [
    "about", "after", "again", "all", "and", "any", "arrive", "as", "at", "before", "between", "both", "bridge",
    "carry", "clock", "come", "day", "distant", "down", "each", "early", "evening", "every", "far", "few", "find",
    "first", "from", "garden", "give", "hand", "harbour", "here", "hour", "house", "in", "into", "keep", "late",
    "letter", "light", "line", "long", "market", "minute", "morning", "near", "night", "of", "on", "only", "open",
    "paper", "post", "reply", "river", "road", "second", "station", "the", "through", "to", "weather", "with",
];

/// The word that fills the rest of a line: entry n - 1 has n letters. A word of [`WORDS`] is only left out when it and a
/// space leave no room for another letter, so the rest is never longer than 9.
const LAST_WORDS: [&str; 9] = ["a", "it", "now", "soon", "today", "always", "tonight", "tomorrow", "yesterday"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_the_lines() {
        assert!(WORDS.iter().all(|word| (1..=8).contains(&word.len())));
        assert!(LAST_WORDS.iter().enumerate().all(|(i, word)| word.len() == i + 1));
        let mut text = Vec::new();
        push_text(&mut text, 100_000, 5);
        for line in text.chunks(LINE_BYTES) {
            assert_eq!(line.len(), LINE_BYTES);
            assert!(line[..LINE_CHARS].iter().all(|c| c.is_ascii_lowercase() || *c == b' '));
            assert!(line[0] != b' ' && line[LINE_CHARS - 1] != b' ' && line.ends_with(b"\r\n"));
        }
    }

    #[test]
    fn a_longer_text_begins_with_the_shorter_one() {
        let (mut short, mut long, mut other) = (Vec::new(), Vec::new(), Vec::new());
        push_text(&mut short, 1_000, 5);
        push_text(&mut long, 5_000, 5);
        push_text(&mut other, 1_000, 6);
        assert!(long.starts_with(&short));
        assert!(!long.starts_with(&other));
    }

    #[test]
    fn a_cut_fills_the_room_and_never_parts_cr_from_lf() {
        for room in 2..500 {
            let (text, tail) = cut(room);
            assert_eq!(text + tail.len(), room);
            assert_ne!(text % LINE_BYTES, LINE_BYTES - 1);
        }
    }
}
