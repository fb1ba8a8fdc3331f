//! Where a body ends, on either side of HTTP/1.1 (RFC 9112 §6 and §7), found without keeping any of it.

use thiserror::Error;

/// Longest line with the size of a chunk, its extensions included, in octets without CRLF. Extensions are skipped.
pub const CHUNK_LINE_BYTES_MAX: u32 = 1_024;
/// Most octets of trailer fields behind the last chunk, which are skipped.
pub const TRAILER_BYTES_MAX: u32 = 8_192;

/// How a head says that its body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Exactly so many octets.
    Length(u64),
    /// In chunks, the last of which is empty.
    Chunked,
    /// Everything up to the end of the stream; in responses alone.
    UntilClose,
}

impl Framing {
    /// There is no body.
    pub const NONE: Framing = Framing::Length(0);
}

/// What is wrong with a body in chunks. Nothing behind it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// The size of a chunk is not one to 16 hexadecimal digits.
    #[error("a chunk whose size is no hexadecimal number")]
    ChunkSize,
    /// A line with a chunk's size of more than [`CHUNK_LINE_BYTES_MAX`].
    #[error("a chunk's first line of more than {CHUNK_LINE_BYTES_MAX} octets")]
    ChunkLineTooLong,
    /// Something else than CRLF where a line or a chunk ends.
    #[error("a chunk or a line of it that does not end in CRLF")]
    LineEnd,
    /// Trailer fields of more than [`TRAILER_BYTES_MAX`].
    #[error("trailer fields of more than {TRAILER_BYTES_MAX} octets")]
    TrailersTooLong,
}

/// What one call of [`BodyReader::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Octets of the input that were eaten, those of the framing included.
    pub consumed: usize,
    /// The part of them that is content: one run, which may be empty.
    pub content: &'a [u8],
    /// The body ends with them; what follows belongs to somebody else.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So much content is to come, in one piece.
    Length(u64),
    UntilClose,
    /// In a chunk's size, so many digits in.
    Size {
        size: u64,
        digits: u8,
        line: u32,
    },
    /// Behind a chunk's size: white space or an extension.
    Extension {
        size: u64,
        line: u32,
    },
    /// Behind the CR of a line with a chunk's size.
    SizeLf {
        size: u64,
    },
    /// So much of a chunk's content is to come.
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    /// In the trailer fields; `octets` of them were seen, and the line has its beginning only if `in_line`.
    Trailer {
        octets: u32,
        in_line: bool,
    },
    TrailerLf {
        octets: u32,
        in_line: bool,
    },
    Ended,
}

/// Eats a body, whatever the pieces in which it arrives. Keeps none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyReader {
    state: State,
}

impl BodyReader {
    /// A body of that framing.
    pub const fn new(framing: Framing) -> BodyReader {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(octets) => State::Length(octets),
            Framing::Chunked => State::Size { size: 0, digits: 0, line: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        BodyReader { state }
    }

    /// No body.
    pub const fn none() -> BodyReader {
        BodyReader::new(Framing::NONE)
    }

    /// Whether the body has ended. One of no octets has from the outset.
    #[inline]
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the body is whole if the stream ends here.
    pub const fn may_end_here(&self) -> bool {
        matches!(self.state, State::Ended | State::UntilClose)
    }

    /// Eats octets up to the end of one run of content, or of the body, or of the input. To be called again with the rest
    /// until the body has ended; from then on nothing is eaten.
    #[inline]
    pub fn read<'a>(&mut self, input: &'a [u8]) -> Result<Run<'a>, BodyError> {
        match self.state {
            State::Length(left) => {
                let (content, left) = take(input, left);
                self.state = if left == 0 { State::Ended } else { State::Length(left) };
                Ok(Run { consumed: content.len(), content, ended: left == 0 })
            }
            State::UntilClose => Ok(Run { consumed: input.len(), content: input, ended: false }),
            State::Ended => Ok(Run { consumed: 0, content: &[], ended: true }),
            _ => self.read_chunked(input),
        }
    }

    fn read_chunked<'a>(&mut self, input: &'a [u8]) -> Result<Run<'a>, BodyError> {
        let mut at = 0;
        loop {
            if let State::Chunk(left) = self.state {
                let (content, left) = take(&input[at..], left);
                self.state = if left == 0 { State::ChunkCr } else { State::Chunk(left) };
                return Ok(Run { consumed: at + content.len(), content, ended: false });
            }
            if self.state == State::Ended {
                return Ok(Run { consumed: at, content: &[], ended: true });
            }
            let Some(&octet) = input.get(at) else {
                return Ok(Run { consumed: at, content: &[], ended: false });
            };
            at += 1;
            self.state = self.state.after(octet)?;
        }
    }
}

impl State {
    /// The state behind one more octet of the framing of chunks.
    fn after(self, octet: u8) -> Result<State, BodyError> {
        match (self, octet) {
            (State::Size { size, digits, line }, _) if octet.is_ascii_hexdigit() => {
                if digits == 16 || size >> 60 != 0 {
                    // Zeros in front are digits too: no number of them is a size.
                    return Err(BodyError::ChunkSize);
                }
                let digit = (octet as char).to_digit(16).map_or(0, u64::from);
                Ok(State::Size { size: size << 4 | digit, digits: digits + 1, line: line + 1 })
            }
            (State::Size { digits: 0, .. }, _) => Err(BodyError::ChunkSize),
            (State::Size { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, line, .. }, b' ' | b'\t' | b';') => Ok(State::Extension { size, line: line + 1 }),
            (State::Size { .. }, b'\n') => Err(BodyError::LineEnd),
            (State::Size { .. }, _) => Err(BodyError::ChunkSize),
            (State::Extension { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { .. }, b'\n') => Err(BodyError::LineEnd),
            (State::Extension { line, .. }, _) if line >= CHUNK_LINE_BYTES_MAX => Err(BodyError::ChunkLineTooLong),
            (State::Extension { size, line }, _) => Ok(State::Extension { size, line: line + 1 }),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::Trailer { octets: 0, in_line: false }),
            (State::SizeLf { size }, b'\n') => Ok(State::Chunk(size)),
            (State::ChunkCr, b'\r') => Ok(State::ChunkLf),
            (State::ChunkLf, b'\n') => Ok(State::Size { size: 0, digits: 0, line: 0 }),
            (State::Trailer { octets, in_line }, b'\r') => Ok(State::TrailerLf { octets, in_line }),
            (State::Trailer { .. }, b'\n') => Err(BodyError::LineEnd),
            (State::Trailer { octets, .. }, _) if octets >= TRAILER_BYTES_MAX => Err(BodyError::TrailersTooLong),
            (State::Trailer { octets, .. }, _) => Ok(State::Trailer { octets: octets + 1, in_line: true }),
            (State::TrailerLf { in_line: false, .. }, b'\n') => Ok(State::Ended),
            (State::TrailerLf { octets, in_line: true }, b'\n') => Ok(State::Trailer { octets, in_line: false }),
            _ => Err(BodyError::LineEnd),
        }
    }
}

/// At most `left` octets of the input, and how many are still to come.
#[inline]
fn take(input: &[u8], left: u64) -> (&[u8], u64) {
    let octets = left.min(input.len() as u64);
    (&input[..octets as usize], left - octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The content, what was left behind the body, and whether it ended.
    type Outcome = Result<(Vec<u8>, Vec<u8>, bool), BodyError>;

    fn read(framing: Framing, pieces: &[&[u8]]) -> Outcome {
        let mut body = BodyReader::new(framing);
        let (mut content, mut rest) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() && !body.is_ended() {
                let run = body.read(piece)?;
                assert!(run.consumed > 0 && run.content.len() <= run.consumed, "no call is without progress");
                assert_eq!(run.ended, body.is_ended());
                content.extend_from_slice(run.content);
                piece = &piece[run.consumed..];
            }
            rest.extend_from_slice(piece);
        }
        Ok((content, rest, body.is_ended()))
    }

    fn ended(content: &[u8], rest: &[u8]) -> Outcome {
        Ok((content.to_vec(), rest.to_vec(), true))
    }

    #[test]
    fn a_length_is_counted_off() {
        assert_eq!(read(Framing::Length(3), &[b"ab", b"cHTTP"]), ended(b"abc", b"HTTP"));
        assert_eq!(read(Framing::NONE, &[b"HTTP"]), ended(b"", b"HTTP"));
        assert!(BodyReader::none().is_ended());
        let mut body = BodyReader::new(Framing::Length(u64::MAX));
        assert_eq!(body.read(b"abc"), Ok(Run { consumed: 3, content: b"abc", ended: false }));
        assert!(!body.may_end_here());
    }

    #[test]
    fn without_a_length_the_stream_ends_it() {
        assert_eq!(read(Framing::UntilClose, &[b"ab", b"c"]), Ok((b"abc".to_vec(), vec![], false)));
        assert!(BodyReader::new(Framing::UntilClose).may_end_here());
        assert!(!BodyReader::new(Framing::Chunked).may_end_here());
    }

    #[test]
    fn chunks_are_taken_out_of_their_framing() {
        let chunked = b"4\r\nWiki\r\n0006;a=\"b\"\r\npedia \r\nA \t;x\r\nin chunks.\r\n000\r\nX: y\r\nZ:\r\n\r\nHTTP";
        assert_eq!(read(Framing::Chunked, &[chunked]), ended(b"Wikipedia in chunks.", b"HTTP"));
        assert_eq!(read(Framing::Chunked, &[b"0\r\n\r\n"]), ended(b"", b""));
    }

    #[test]
    fn a_call_eats_one_run() {
        let mut body = BodyReader::new(Framing::Chunked);
        let input = b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(body.read(input), Ok(Run { consumed: 5, content: b"ab", ended: false }));
        assert_eq!(body.read(&input[5..]), Ok(Run { consumed: 6, content: b"c", ended: false }));
        assert_eq!(body.read(&input[11..]), Ok(Run { consumed: 7, content: b"", ended: true }));
        assert_eq!(body.read(b"more"), Ok(Run { consumed: 0, content: b"", ended: true }));
    }

    #[test]
    fn anything_else_than_hexadecimal_digits_is_no_size() {
        for wrong in ["\r\n", " 1\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", "g\r\n", ";a\r\n", "1_0\r\n", "\n"] {
            assert_eq!(read(Framing::Chunked, &[wrong.as_bytes()]), Err(BodyError::ChunkSize), "{wrong:?}");
        }
        // One more than 64 bits can hold, and zeros without end.
        assert_eq!(read(Framing::Chunked, &[b"10000000000000000\r\n"]), Err(BodyError::ChunkSize));
        assert_eq!(read(Framing::Chunked, &[b"00000000000000001\r\n"]), Err(BodyError::ChunkSize));
        assert_eq!(
            read(Framing::Chunked, &[b"ffffffffffffffff\r\nabc"]),
            Ok((b"abc".to_vec(), vec![], false)),
            "the longest one is no overflow"
        );
    }

    #[test]
    fn lines_and_chunks_end_in_crlf_and_nothing_else() {
        for wrong in ["1\nab", "1;x\nab", "1\rab", "1\r\nab\r\n", "1\r\na\n0", "0\r\nX: y\n\r\n", "0\r\n\n", "0\r\n\rx"]
        {
            assert_eq!(read(Framing::Chunked, &[wrong.as_bytes()]), Err(BodyError::LineEnd), "{wrong:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_have_their_bounds() {
        let extension = |octets| format!("0;{}\r\n\r\n", "x".repeat(octets));
        let longest = CHUNK_LINE_BYTES_MAX as usize - 2;
        assert_eq!(read(Framing::Chunked, &[extension(longest).as_bytes()]), ended(b"", b""));
        assert_eq!(read(Framing::Chunked, &[extension(longest + 1).as_bytes()]), Err(BodyError::ChunkLineTooLong));
        let trailers = |lines, last| format!("0\r\n{}{}\r\n\r\n", "abcdefg\r\n".repeat(lines), "x".repeat(last));
        let lines = TRAILER_BYTES_MAX as usize / 7;
        let last = TRAILER_BYTES_MAX as usize % 7;
        assert_eq!(read(Framing::Chunked, &[trailers(lines, last).as_bytes()]), ended(b"", b""));
        assert_eq!(read(Framing::Chunked, &[trailers(lines, last + 1).as_bytes()]), Err(BodyError::TrailersTooLong));
    }

    #[test]
    fn every_split_in_two_gives_the_same_content() {
        let chunked = b"4;e\r\nWiki\r\n5\r\npedia\r\n0\r\nA: b\r\n\r\nHTTP";
        for at in 0..=chunked.len() {
            let pieces = [&chunked[..at], &chunked[at..]];
            assert_eq!(read(Framing::Chunked, &pieces), ended(b"Wikipedia", b"HTTP"), "split at {at}");
        }
        let octets: Vec<&[u8]> = chunked.chunks(1).collect();
        assert_eq!(read(Framing::Chunked, &octets), ended(b"Wikipedia", b"HTTP"));
    }

    proptest! {
        #[test]
        fn any_split_of_anything_gives_the_same(
            octets in prop::collection::vec(prop::sample::select(b"0012aF;\r\n\r\n x".to_vec()), 0..60),
            cuts in prop::collection::vec(0usize..60, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(octets.len())).collect();
            cuts.extend([0, octets.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &octets[pair[0]..pair[1]]).collect();
            for framing in [Framing::Chunked, Framing::Length(7), Framing::UntilClose] {
                prop_assert_eq!(read(framing, &pieces), read(framing, &[&octets]));
            }
        }
    }
}
