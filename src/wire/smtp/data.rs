//! The content of a message on the wire: dot-stuffing (RFC 5321 §4.5.2), and the one sequence that ends it.
//!
//! Only CRLF.CRLF ends data. A server that also took `LF.LF`, `LF.CRLF` or their kin for the end would let a sender hide
//! a second message in the first (SMTP smuggling, CVE-2023-51764). A message with a bare CR, a bare LF or a NUL is
//! decoded to its true end, and reported as faulty.

use memchr::{memchr_iter, memchr3};

/// What ends a message that itself ends in CRLF.
pub const END_OF_DATA: &[u8] = b".\r\n";

/// Doubles each dot at the beginning of a line. The line ends of `message` are CRLF; [`END_OF_DATA`] is not appended.
pub fn stuff(message: &[u8]) -> Vec<u8> {
    // A line that begins with a dot is rare: room for a few saves growing once more.
    let mut stuffed = Vec::with_capacity(message.len() + 16);
    let mut copied = 0;
    for dot in memchr_iter(b'.', message) {
        if dot == 0 || message[..dot].ends_with(b"\r\n") {
            stuffed.extend_from_slice(&message[copied..=dot]);
            copied = dot;
        }
    }
    stuffed.extend_from_slice(&message[copied..]);
    stuffed
}

/// An octet that makes a message unfit to be passed on (RFC 5321 §2.3.8 and §4.1.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataFault {
    /// A CR without LF behind it.
    BareCr,
    /// A LF without CR before it.
    BareLf,
    /// A NUL octet.
    Nul,
}

/// A whole message has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Octets of the message, its last CRLF included, dot-stuffing and the ending dot not.
    pub bytes: u64,
    /// The first fault in it.
    pub fault: Option<DataFault>,
}

/// What one call of [`DataDecoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Octets of the input that were eaten. All of them when `end` is `None`.
    pub consumed: usize,
    /// The message ended right before the octet number `consumed`.
    pub end: Option<End>,
}

/// Where in a line the next octet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind CRLF, or at the beginning of the message.
    LineStart,
    /// Behind a dot at the beginning of a line.
    Dot,
    /// Behind a dot and CR at the beginning of a line. That CR has not been given out: it may belong to the end.
    DotCr,
    /// Behind any other CR.
    Cr,
    /// Anywhere else.
    Middle,
}

/// Octets that are judged in one go. Large enough to spread the cost of a step, small enough that the exact search, which
/// the block with the end of the message always needs, has little to read.
const BLOCK_BYTES: usize = 128;

/// Decodes the content that follows DATA, whatever the pieces in which it arrives.
#[derive(Debug)]
pub struct DataDecoder {
    bytes: u64,
    place: Place,
    fault: Option<DataFault>,
}

impl Default for DataDecoder {
    fn default() -> DataDecoder {
        DataDecoder::new()
    }
}

impl DataDecoder {
    /// A decoder at the beginning of a message.
    pub const fn new() -> DataDecoder {
        DataDecoder { bytes: 0, place: Place::LineStart, fault: None }
    }

    /// Octets of the current message so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Eats `input` up to the end of the message. Gives its content, without the stuffing, to `content` in slices that
    /// are lent from the input. After an end the decoder stands at the beginning of the next message.
    ///
    /// Blocks in which nothing is remarkable, which are nearly all, are passed by a comparison of each octet with the
    /// one before it, which the compiler turns into vector instructions. Only a block with a dot at the beginning of a
    /// line or a stray octet is searched exactly.
    #[inline]
    pub fn decode<F: FnMut(&[u8])>(&mut self, input: &[u8], content: &mut F) -> Decoded {
        // Octets in `given..at` were found to be content, and are given out together.
        let (mut given, mut at) = (0, 0);
        while at < input.len() {
            if self.passes(input, at) {
                at += BLOCK_BYTES;
                continue;
            }
            // The first octet alone: behind it, each octet of a block has the one before it in the input.
            let stop = if at == 0 { 1 } else { input.len().min(at + BLOCK_BYTES) };
            while at < stop {
                match self.step(&input[at..stop]) {
                    Step::Content(length) => at += length,
                    Step::Skip => {
                        self.give(&input[given..at], content);
                        at += 1;
                        given = at;
                    }
                    Step::GiveCr => {
                        self.give(&input[given..at], content);
                        self.give(b"\r", content);
                        given = at;
                    }
                    Step::End => {
                        self.give(&input[given..at], content);
                        let end = End { bytes: self.bytes, fault: self.fault };
                        *self = DataDecoder::new();
                        return Decoded { consumed: at + 1, end: Some(end) };
                    }
                }
            }
        }
        self.give(&input[given..], content);
        Decoded { consumed: input.len(), end: None }
    }

    #[inline]
    fn give<F: FnMut(&[u8])>(&mut self, slice: &[u8], content: &mut F) {
        if !slice.is_empty() {
            self.bytes += slice.len() as u64;
            content(slice);
        }
    }

    /// Whether a whole block lies at `at` that is content and needs no closer look; if so, the place behind it is taken.
    #[inline]
    fn passes(&mut self, input: &[u8], at: usize) -> bool {
        let Some(block) = input[at..].first_chunk::<BLOCK_BYTES>() else { return false };
        let Some(before) = at.checked_sub(1).and_then(|at| input[at..].first_chunk::<BLOCK_BYTES>()) else {
            return false;
        };
        // Behind a dot that begins a line, the octets before do not tell the whole story.
        if matches!(self.place, Place::Dot | Place::DotCr) || !is_plain(before, block) {
            return false;
        }
        self.place = match block[BLOCK_BYTES - 1] {
            b'\n' => Place::LineStart,
            b'\r' => Place::Cr,
            _ => Place::Middle,
        };
        true
    }

    /// The exact search: what the first octets of `input`, which is not empty, are.
    fn step(&mut self, input: &[u8]) -> Step {
        match (self.place, input[0]) {
            (Place::LineStart, b'.') => {
                self.place = Place::Dot;
                return Step::Skip;
            }
            (Place::Dot, b'\r') => {
                self.place = Place::DotCr;
                return Step::Skip;
            }
            (Place::DotCr, b'\n') => return Step::End,
            (Place::DotCr, _) => {
                // Not the end after all: the line is a bare CR and more.
                self.place = Place::Cr;
                return Step::GiveCr;
            }
            (Place::Cr, b'\n') => {
                self.place = Place::LineStart;
                return Step::Content(1);
            }
            (Place::Cr, _) => self.note(DataFault::BareCr),
            _ => {}
        }
        self.place = Place::Middle;
        let Some(length) = memchr3(b'\r', b'\n', 0, input) else {
            return Step::Content(input.len());
        };
        match input[length] {
            b'\r' if input.get(length + 1) == Some(&b'\n') => {
                self.place = Place::LineStart;
                return Step::Content(length + 2);
            }
            b'\r' => self.place = Place::Cr,
            b'\n' => self.note(DataFault::BareLf),
            _ => self.note(DataFault::Nul),
        }
        Step::Content(length + 1)
    }

    fn note(&mut self, fault: DataFault) {
        self.fault.get_or_insert(fault);
    }
}

/// What the exact search says about the octets at hand.
enum Step {
    /// So many octets are content.
    Content(usize),
    /// One octet is not content.
    Skip,
    /// A CR that was skipped is content after all; nothing is eaten.
    GiveCr,
    /// One octet, and with it the message ends.
    End,
}

/// Whether in `block` each LF follows a CR, each CR is followed by LF, no line begins with a dot and nothing is NUL;
/// `before` is the block one octet earlier. A CR at the end is for the next block to judge.
#[inline]
fn is_plain(before: &[u8; BLOCK_BYTES], block: &[u8; BLOCK_BYTES]) -> bool {
    let mut odd = 0;
    // No early exit and a fixed length: that is what lets the loop become vector instructions, without a remainder.
    for (before, octet) in before.iter().zip(block) {
        let stray = u8::from(*octet == b'\n') ^ u8::from(*before == b'\r');
        let dot = u8::from(*octet == b'.') & u8::from(*before == b'\n');
        odd |= stray | dot | u8::from(*octet == 0);
    }
    odd == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Content, and the end with what was left behind it.
    type Outcome = (Vec<u8>, Option<(End, Vec<u8>)>);

    fn decode(pieces: &[&[u8]]) -> Outcome {
        let mut decoder = DataDecoder::new();
        let mut content = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let decoded = decoder.decode(piece, &mut |slice| content.extend_from_slice(slice));
            if let Some(end) = decoded.end {
                let rest = [&piece[decoded.consumed..], &pieces[index + 1..].concat()].concat();
                return (content, Some((end, rest)));
            }
            assert_eq!(decoded.consumed, piece.len());
        }
        (content, None)
    }

    /// The same, octet by octet, by the words of the RFC: the oracle.
    fn decode_naively(stream: &[u8]) -> Outcome {
        // The message begins as if behind CRLF.
        let framed = [b"\r\n", stream].concat();
        let end = framed.windows(5).position(|window| window == b"\r\n.\r\n");
        let body = match end {
            Some(end) => &framed[..end + 2],
            None => framed.strip_suffix(b"\r\n.\r").map_or(&framed[..], |_| &framed[..framed.len() - 2]),
        };
        let mut content = Vec::new();
        let mut fault = None;
        for at in 2..body.len() {
            let (before, octet) = (body[at - 1], body[at]);
            let found = match octet {
                _ if before == b'\r' && octet != b'\n' && at > 2 => Some(DataFault::BareCr),
                b'\n' if before != b'\r' => Some(DataFault::BareLf),
                0 => Some(DataFault::Nul),
                _ => None,
            };
            fault = fault.or(found);
            if !(octet == b'.' && body[..at].ends_with(b"\r\n")) {
                content.push(octet);
            }
        }
        let bytes = content.len() as u64;
        (content, end.map(|end| (End { bytes, fault }, framed[end + 5..].to_vec())))
    }

    #[test]
    fn only_crlf_dot_crlf_ends_data() {
        // Every pair of line ends around the dot; all but one are content.
        let ends: [&[u8]; 8] = [b"\r\n", b"\n", b"\r", b"\r\r", b"\n\n", b"\r\0\n", b"\n\r", b""];
        for before in ends {
            for after in ends {
                let stream = [b"first", before, b".", after, b"MAIL FROM:<smuggled@example.com>\r\n.\r\n"].concat();
                let (content, end) = decode(&[&stream]);
                let (end, rest) = end.expect("the true end is there");
                if before == b"\r\n" && after == b"\r\n" {
                    assert_eq!((content.as_slice(), end.fault), (&b"first\r\n"[..], None));
                    assert_eq!(rest, b"MAIL FROM:<smuggled@example.com>\r\n.\r\n");
                } else {
                    assert!(rest.is_empty(), "{before:?} . {after:?} ended data");
                    let harmless = (before == b"" || before == b"\r\n") && (after == b"" || after == b"\r\n");
                    assert_eq!(end.fault.is_none(), harmless, "{before:?} . {after:?}");
                }
            }
        }
    }

    #[test]
    fn a_dot_at_the_very_beginning_is_an_empty_message() {
        assert_eq!(decode(&[b".\r\nQUIT"]), (vec![], Some((End { bytes: 0, fault: None }, b"QUIT".to_vec()))));
        assert_eq!(decode(&[b".", b"\r", b"\n"]), (vec![], Some((End { bytes: 0, fault: None }, vec![]))));
    }

    #[test]
    fn the_first_fault_is_reported() {
        for (message, fault) in [
            (&b"a\rb\0\r\n.\r\n"[..], DataFault::BareCr),
            (b"a\nb\r\n.\r\n", DataFault::BareLf),
            (b"a\0b\n\r\n.\r\n", DataFault::Nul),
            (b".\rx\r\n.\r\n", DataFault::BareCr),
            (b"a\r\r\n.\r\n", DataFault::BareCr),
        ] {
            assert_eq!(decode(&[message]).1.unwrap().0.fault, Some(fault), "{message:?}");
        }
    }

    #[test]
    fn stray_octets_behind_the_end_do_not_count() {
        let (_, end) = decode(&[b"a\r\n.\r\n\0\n\r"]);
        assert_eq!(end.unwrap().0, End { bytes: 3, fault: None });
    }

    #[test]
    fn a_long_message_comes_out_as_it_went_in() {
        let line = b"..Lorem ipsum. dolor sit amet, consectetur adipiscing elit, sed do eiusmod te\r\n";
        let message = line.repeat(1_000);
        let wire = [&stuff(&message), END_OF_DATA].concat();
        assert_eq!(wire.len(), message.len() + 1_000 + 3);
        let (content, end) = decode(&[&wire]);
        assert_eq!(content, message);
        assert_eq!(end, Some((End { bytes: message.len() as u64, fault: None }, vec![])));
    }

    #[test]
    fn remarkable_octets_are_seen_wherever_they_stand_in_a_block() {
        let remarkable: [&[u8]; 11] = [
            b"\r",
            b"\n",
            b"\0",
            b"\r\n",
            b"\r\n.",
            b"\r\n..",
            b"\r\n.\r",
            b"\r\n.\n",
            b"\n.\r\n",
            b"\r\n.\r\n",
            b"\r\r\n.\r\n",
        ];
        for sequence in remarkable {
            for at in 0..2 * BLOCK_BYTES + 2 {
                let tail = vec![b'y'; 2 * BLOCK_BYTES];
                let stream = [&vec![b'x'; at], sequence, &tail, b"\r\n.\r\n"].concat();
                assert_eq!(decode(&[&stream]), decode_naively(&stream), "{sequence:?} at {at}");
            }
        }
    }

    /// Octets from a small alphabet, so that line ends and dots meet often, in runs long enough to cross blocks.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let pieces: Vec<&[u8]> = vec![b"\r\n", b".", b"\r", b"\n", b"\0", b"a", b"\r\n.", &[b'x'; 125], &[b'y'; 64]];
        proptest::collection::vec(proptest::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_what_the_oracle_gives(stream in streams(), end in any::<bool>(), cuts in proptest::collection::vec(0usize..900, 0..9)) {
            let stream = if end { [&stream, &b"\r\n.\r\nrest"[..]].concat() } else { stream };
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&pieces), decode_naively(&stream));
        }

        #[test]
        fn what_was_stuffed_decodes_to_itself(message in streams()) {
            let message = [&message, &b"\r\n"[..]].concat();
            let wire = [&stuff(&message), END_OF_DATA].concat();
            let (content, end) = decode(&[&wire]);
            prop_assert_eq!(content, message);
            prop_assert_eq!(end.unwrap().1, b"");
        }
    }
}
