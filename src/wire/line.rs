//! A bounded scanner of lines that end in CRLF, as SMTP's commands and replies do.
//!
//! A line that lies in one piece of input, which is nearly every line, is lent out of that input: one `memchr` finds
//! its end, one more proves that it holds no stray octet. Only a line that was torn apart is put together in a buffer.

use std::fmt;

use memchr::{memchr, memchr_iter, memchr2};
use thiserror::Error;

/// What is wrong with a line that cannot be given to a parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// More octets than the scanner's bound before CRLF. The whole line was discarded, its tail included.
    #[error("line longer than the bound")]
    TooLong,
    /// A CR without LF behind it.
    #[error("CR without LF in a line")]
    BareCr,
    /// A LF without CR before it. The line counts as ended there.
    #[error("LF without CR in a line")]
    BareLf,
    /// A NUL octet.
    #[error("NUL in a line")]
    Nul,
}

/// What one call of [`LineScanner::scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan<'a> {
    /// Octets of the input that were eaten. All of them when `line` is `None`.
    pub consumed: usize,
    /// The line without its CRLF, or what is wrong with it. `None`: the line's end has not arrived yet.
    pub line: Option<Result<&'a [u8], LineError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line; the buffer may hold the line that was lent out last.
    Between,
    /// `partial` holds the beginning of a line.
    Torn,
    /// Within a line that was too long; `after_cr` says whether the last octet was CR.
    Discarding { after_cr: bool },
}

/// Cuts a stream of octets into lines, whatever the pieces in which it arrives.
///
/// A line ends at its first LF; one that is too long by then ends at its first CRLF, so that no part of it is ever
/// taken for a line of its own.
pub struct LineScanner {
    /// Has no capacity until a line is torn apart; never holds more than the bound and a CR.
    partial: Vec<u8>,
    line_bytes_max: u32,
    state: State,
}

/// A line may hold a password: only how much of it there is is shown.
impl fmt::Debug for LineScanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LineScanner { partial, line_bytes_max, state } = self;
        f.debug_struct("LineScanner")
            .field("partial_bytes", &partial.len())
            .field("line_bytes_max", line_bytes_max)
            .field("state", state)
            .finish()
    }
}

impl LineScanner {
    /// A scanner of lines of at most `line_bytes_max` octets, CRLF not counted.
    pub const fn new(line_bytes_max: u32) -> LineScanner {
        LineScanner { partial: Vec::new(), line_bytes_max, state: State::Between }
    }

    /// Another bound, from the next line on. Only between two lines.
    pub fn set_line_bytes_max(&mut self, line_bytes_max: u32) {
        debug_assert!(!self.is_within_line());
        self.line_bytes_max = line_bytes_max;
        // Room for longer lines than there may be is not kept, nor what stood in them.
        if self.partial.capacity() > line_bytes_max as usize + 1 {
            self.partial = Vec::new();
        }
    }

    /// Whether the beginning of a line has arrived, but not its end.
    pub fn is_within_line(&self) -> bool {
        self.state != State::Between
    }

    /// Eats octets up to the end of the first line in `input`, or all of them when it holds none.
    ///
    /// To be called again with the rest of the input as long as it returns a line.
    #[inline]
    pub fn scan<'a>(&'a mut self, input: &'a [u8]) -> Scan<'a> {
        if self.state == State::Between {
            if let Some(lf) = memchr(b'\n', input) {
                let (line, ended) = split_cr(&input[..lf]);
                if line.len() <= self.line_bytes_max as usize {
                    return Scan { consumed: lf + 1, line: Some(checked(line, ended)) };
                }
            }
            self.partial.clear();
        }
        self.scan_torn(input)
    }

    /// Lines that lie in more than one piece of input, and lines that are too long.
    fn scan_torn<'a>(&'a mut self, input: &'a [u8]) -> Scan<'a> {
        if input.is_empty() {
            return Scan { consumed: 0, line: None };
        }
        if let State::Discarding { after_cr } = self.state {
            return self.discard(after_cr, input);
        }
        let lf = memchr(b'\n', input);
        let piece = &input[..lf.unwrap_or(input.len())];
        // The CR of the line's end is not counted, and whether a CR is that one shows only with the next octet.
        if self.partial.len() + piece.len() > self.line_bytes_max as usize + 1 {
            let after_cr = self.partial.last() == Some(&b'\r');
            return self.discard(after_cr, input);
        }
        let Some(lf) = lf else {
            self.partial.extend_from_slice(piece);
            self.state = State::Torn;
            return Scan { consumed: input.len(), line: None };
        };
        self.partial.extend_from_slice(piece);
        if split_cr(&self.partial).0.len() > self.line_bytes_max as usize {
            // One octet too many and a bare LF: the line goes on to its CRLF.
            self.state = State::Discarding { after_cr: false };
            let rest = self.discard(false, &input[lf + 1..]);
            return Scan { consumed: lf + 1 + rest.consumed, line: rest.line };
        }
        self.state = State::Between;
        let (line, ended) = split_cr(&self.partial);
        Scan { consumed: lf + 1, line: Some(checked(line, ended)) }
    }

    /// Eats the rest of a line that is too long; `after_cr` says what the octet before `input` was.
    fn discard(&mut self, after_cr: bool, input: &[u8]) -> Scan<'static> {
        self.partial.clear();
        for lf in memchr_iter(b'\n', input) {
            let crlf = if lf == 0 { after_cr } else { input[lf - 1] == b'\r' };
            if crlf {
                self.state = State::Between;
                return Scan { consumed: lf + 1, line: Some(Err(LineError::TooLong)) };
            }
        }
        self.state = State::Discarding { after_cr: input.last().map_or(after_cr, |last| *last == b'\r') };
        Scan { consumed: input.len(), line: None }
    }
}

/// What stands before a LF, without its CR, and whether there was one.
#[inline]
fn split_cr(before_lf: &[u8]) -> (&[u8], bool) {
    match before_lf {
        [line @ .., b'\r'] => (line, true),
        line => (line, false),
    }
}

/// The line itself, if nothing is wrong with it; else its first fault.
#[inline]
fn checked(line: &[u8], ended_in_crlf: bool) -> Result<&[u8], LineError> {
    match memchr2(b'\r', 0, line) {
        Some(at) if line[at] == 0 => Err(LineError::Nul),
        Some(_) => Err(LineError::BareCr),
        None if ended_in_crlf => Ok(line),
        None => Err(LineError::BareLf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Line = Result<Vec<u8>, LineError>;

    /// All lines of a stream that arrives in `pieces`.
    fn lines(line_bytes_max: u32, pieces: &[&[u8]]) -> Vec<Line> {
        let mut scanner = LineScanner::new(line_bytes_max);
        let mut found = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let scan = scanner.scan(rest);
                let consumed = scan.consumed;
                let Some(line) = scan.line else {
                    assert_eq!(consumed, rest.len(), "no line, but input was left");
                    break;
                };
                found.push(line.map(<[u8]>::to_vec));
                rest = &rest[consumed..];
            }
            assert!(scanner.partial.len() <= line_bytes_max as usize + 1);
        }
        found
    }

    fn ok(line: &[u8]) -> Line {
        Ok(line.to_vec())
    }

    #[test]
    fn a_line_in_one_piece_is_lent_from_the_input_without_allocation() {
        let mut scanner = LineScanner::new(10);
        let input = b"QUIT\r\nrest";
        let scan = scanner.scan(input);
        assert_eq!(scan, Scan { consumed: 6, line: Some(Ok(b"QUIT")) });
        assert!(std::ptr::eq(scan.line.unwrap().unwrap().as_ptr(), input.as_ptr()));
        assert_eq!(scanner.partial.capacity(), 0);
    }

    #[test]
    fn torn_lines_are_put_together() {
        assert_eq!(lines(10, &[b"QU", b"IT\r", b"\nNO", b"OP\r\n"]), [ok(b"QUIT"), ok(b"NOOP")]);
        assert_eq!(lines(10, &[b"\r", b"\n\r\n"]), [ok(b""), ok(b"")]);
    }

    #[test]
    fn the_bound_does_not_count_crlf() {
        assert_eq!(lines(4, &[b"QUIT\r\n"]), [ok(b"QUIT")]);
        assert_eq!(lines(4, &[b"QUIT\r", b"\n"]), [ok(b"QUIT")]);
        assert_eq!(lines(4, &[b"QUITS\r\nNOOP\r\n"]), [Err(LineError::TooLong), ok(b"NOOP")]);
    }

    #[test]
    fn the_tail_of_an_over_long_line_is_never_a_line() {
        assert_eq!(
            lines(4, &[b"123456", b"RSET\nQUIT\r", b"QUIT\r\nNOOP\r\n"]),
            [Err(LineError::TooLong), ok(b"NOOP")]
        );
        assert_eq!(lines(4, &[b"12345\nQUIT\r\nNOOP\r\n"]), [Err(LineError::TooLong), ok(b"NOOP")]);
    }

    #[test]
    fn stray_octets_are_reported_once_a_line() {
        assert_eq!(lines(9, &[b"a\rb\rc\r\nd\r\n"]), [Err(LineError::BareCr), ok(b"d")]);
        assert_eq!(lines(9, &[b"a\0b\r\nd\r\n"]), [Err(LineError::Nul), ok(b"d")]);
        assert_eq!(lines(9, &[b"a\nd\r\n"]), [Err(LineError::BareLf), ok(b"d")]);
        assert_eq!(lines(9, &[b"a\r\r\n"]), [Err(LineError::BareCr)]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            octets in proptest::collection::vec(proptest::sample::select(b"ab\r\n\0".to_vec()), 0..60),
            crlfs in proptest::collection::vec(0usize..60, 0..8),
            cuts in proptest::collection::vec(0usize..80, 0..12),
        ) {
            let mut stream = octets;
            for at in crlfs {
                let at = at.min(stream.len());
                stream.splice(at..at, *b"\r\n");
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            for line_bytes_max in [0, 1, 3, 8] {
                prop_assert_eq!(lines(line_bytes_max, &pieces), lines(line_bytes_max, &[&stream]));
            }
        }
    }

    #[test]
    fn room_for_longer_lines_is_given_back() {
        let mut scanner = LineScanner::new(12_000);
        scanner.scan(&[b'x'; 10_000]);
        assert_eq!(scanner.scan(b"\r\n").line.map(|line| line.map(<[u8]>::len)), Some(Ok(10_000)));
        scanner.set_line_bytes_max(512);
        assert!(scanner.partial.capacity() <= 513, "{}", scanner.partial.capacity());
    }
}
