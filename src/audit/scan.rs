//! The stamp and the body of a message that passes by, found without keeping it.

use super::body::BodyHasher;
use super::stamp::{NAME, Signer, Stamp, StampFault, VALUE_BYTES_MAX};

/// Octets of a header within which the stamp is looked for. Relays put their own fields before it. Behind them nothing but the
/// header's end is looked for, since the body begins there.
pub const HEADER_BYTES_MAX: usize = 256 << 10;
/// Octets of a header line that are kept until the rest of it has come: longer ones are no stamp.
const LINE_BYTES_MAX: usize = NAME.len() + 10 + VALUE_BYTES_MAX;

/// What a whole message was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has no stamp.
    Unstamped,
    /// It has one that cannot be believed.
    Faulty(StampFault),
    /// It is one of ours.
    Stamped {
        /// What it says.
        stamp: Stamp,
        /// Its body is another one than was sent.
        altered: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Body,
}

/// Looks at one message after another, slice by slice, without dot-stuffing. Keeps a header line, where a slice ends within
/// one, and the stamp's value; of the body its hash alone, and that only behind a stamp.
#[derive(Debug)]
pub struct Scan {
    place: Place,
    header_bytes: usize,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The last field is the stamp, which the next line may go on with.
    in_stamp: bool,
    stamps: u32,
    value: Vec<u8>,
    body: BodyHasher,
    /// Bodies are hashed without a stamp, too.
    hashes_all: bool,
}

impl Default for Scan {
    fn default() -> Scan {
        Scan::new()
    }
}

impl Scan {
    /// At the beginning of a message.
    pub fn new() -> Scan {
        Scan {
            place: Place::Header,
            header_bytes: 0,
            line: Vec::new(),
            in_stamp: false,
            stamps: 0,
            value: Vec::new(),
            body: BodyHasher::new(),
            hashes_all: false,
        }
    }

    /// The same for whoever is about to stamp a message: the body is hashed whether there is a stamp or not.
    pub fn of_bodies() -> Scan {
        Scan { hashes_all: true, ..Scan::new() }
    }

    /// Begins with the next message. Keeps its memory.
    pub fn clear(&mut self) {
        (self.place, self.header_bytes, self.in_stamp, self.stamps) = (Place::Header, 0, false, 0);
        self.line.clear();
        self.value.clear();
        self.body.clear();
    }

    /// The next octets of the message.
    #[inline]
    pub fn update(&mut self, mut octets: &[u8]) {
        while self.place == Place::Header && !octets.is_empty() {
            let end = memchr::memchr(b'\n', octets);
            let (piece, rest) = octets.split_at(end.map_or(octets.len(), |at| at + 1));
            octets = rest;
            self.header_bytes += piece.len();
            if end.is_some() && self.line.is_empty() {
                self.header_line(piece);
            } else {
                let room = LINE_BYTES_MAX.saturating_sub(self.line.len());
                self.line.extend_from_slice(&piece[..piece.len().min(room)]);
                if end.is_some() {
                    let line = std::mem::take(&mut self.line);
                    self.header_line(&line);
                    self.line = line;
                    self.line.clear();
                }
            }
        }
        if self.place == Place::Body && (self.stamps > 0 || self.hashes_all) {
            self.body.update(octets);
        }
    }

    fn header_line(&mut self, line: &[u8]) {
        match line {
            b"\r\n" | b"\n" => self.place = Place::Body,
            [b' ' | b'\t', ..] if self.in_stamp => self.keep(line),
            [b' ' | b'\t', ..] => {}
            _ => {
                let value = stamp_value(line).filter(|_| self.header_bytes <= HEADER_BYTES_MAX);
                self.in_stamp = value.is_some();
                if let Some(value) = value {
                    self.stamps += 1;
                    self.value.clear();
                    self.keep(value);
                }
            }
        }
    }

    /// One octet more than may be is kept, by which it is known that there were more.
    fn keep(&mut self, octets: &[u8]) {
        let room = (VALUE_BYTES_MAX + 1).saturating_sub(self.value.len());
        self.value.extend_from_slice(&octets[..octets.len().min(room)]);
    }

    /// The message has come to its end.
    pub fn finish(&self, signer: &Signer) -> Found {
        match self.stamps {
            0 => Found::Unstamped,
            1 => match Stamp::parse(&self.value, signer) {
                Ok(stamp) => Found::Stamped { stamp, altered: stamp.body != self.body.finish() },
                Err(fault) => Found::Faulty(fault),
            },
            _ => Found::Faulty(StampFault::Malformed("there are several")),
        }
    }

    /// The hash of the body, as far as it is looked at.
    pub fn body(&self) -> u64 {
        self.body.finish()
    }
}

/// What stands behind the name, if the line is the stamp's first. Names match without regard to case, and old mail may have
/// blanks before the colon (RFC 5322, 4.5).
fn stamp_value(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME.as_bytes()).then(|| rest.trim_ascii_start().strip_prefix(b":")).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::stamp::{FIELD_BYTES, Key};
    use crate::time::WallTime;
    use proptest::prelude::*;

    fn signer() -> Signer {
        Signer::new(&Key::new([7; 32]))
    }

    fn stamp(body: &str) -> Stamp {
        Stamp { run: 1, sequence: 2, sent: WallTime::from_unix_ns(3), body: BodyHasher::of(body.as_bytes()) }
    }

    fn field(body: &str) -> String {
        let mut field = [0; FIELD_BYTES];
        stamp(body).write(&signer(), &mut field);
        String::from_utf8(field.to_vec()).unwrap()
    }

    fn found(message: &str) -> Found {
        let mut scan = Scan::new();
        scan.update(message.as_bytes());
        scan.finish(&signer())
    }

    #[test]
    fn a_stamp_is_found_behind_what_relays_have_put_before_it() {
        let body = "Hello\r\n\r\nWorld\r\n";
        let field = field(body);
        let whole = Found::Stamped { stamp: stamp(body), altered: false };
        let received = "Received: from a\r\n\tby b; X-Timecop-Audit: no\r\n".repeat(20);
        for message in [
            format!("{field}Subject: x\r\n\r\n{body}"),
            format!("{received}{field}Subject: x\r\n\r\n{body}\r\n\r\n"),
            format!("Subject: x\r\n{}\r\n{body}", field.replace("X-Timecop-Audit:", "x-timecop-AUDIT :")),
            format!("{}\r\n{body}", field.replace("; ", ";\r\n    ")),
        ] {
            assert_eq!(found(&message), whole, "{message}");
        }
        assert_eq!(found(&format!("{field}\r\nhello\r\n")), Found::Stamped { stamp: stamp(body), altered: true });
    }

    #[test]
    fn what_is_none_of_ours_is_told_apart() {
        let (body, field) = ("x\r\n", field("x\r\n"));
        assert_eq!(found("Subject: x\r\n\r\nx\r\n"), Found::Unstamped);
        assert_eq!(found(&format!("Subject: x\r\n\r\n{field}x\r\n")), Found::Unstamped, "it stands in the body");
        assert_eq!(
            found(&format!("Subject: x\r\n {field}\r\n{body}")),
            Found::Unstamped,
            "it goes on with another field"
        );
        assert_eq!(found(&format!("X-Timecop-Auditor: {}\r\n\r\n{body}", &field[17..])), Found::Unstamped);
        let several = Found::Faulty(StampFault::Malformed("there are several"));
        assert_eq!(found(&format!("{field}{field}\r\n{body}")), several);
        assert_eq!(found(&format!("{}\r\n{body}", field.replace("seq=0", "seq=1"))), Found::Faulty(StampFault::Forged));
        let long = format!("X-Timecop-Audit: {}\r\n\r\n{body}", "x".repeat(10_000));
        assert_eq!(found(&long), Found::Faulty(StampFault::Malformed("it is too long")));
        let late = format!("{}{field}\r\n{body}", "X-Filler: 0123456789\r\n".repeat(HEADER_BYTES_MAX / 22 + 1));
        assert_eq!(found(&late), Found::Unstamped);
    }

    #[test]
    fn a_body_is_judged_behind_a_header_of_whatever_length() {
        let (body, other) = ("Hello\r\n", "hello\r\n");
        for lines in [HEADER_BYTES_MAX / 22 - 8, HEADER_BYTES_MAX / 22 - 1, HEADER_BYTES_MAX / 22 + 1, 20_000] {
            let header = "X-Filler: 0123456789\r\n".repeat(lines);
            let stamped = |body: &str| format!("{}{header}\r\n{body}", field(body));
            assert_eq!(found(&stamped(body)), Found::Stamped { stamp: stamp(body), altered: false }, "{lines} lines");
            let altered = found(&stamped(body).replace(body, other));
            assert_eq!(altered, Found::Stamped { stamp: stamp(body), altered: true }, "{lines} lines");
            // Whoever stamps it hashes it before the stamp is there.
            let mut scan = Scan::of_bodies();
            scan.update(format!("{header}\r\n{body}").as_bytes());
            assert_eq!(scan.body(), BodyHasher::of(body.as_bytes()), "{lines} lines");
        }
    }

    #[test]
    fn nothing_that_a_peer_sends_makes_it_grow() {
        let mut scan = Scan::new();
        for _ in 0..100 {
            scan.update(&[b'x'; 10_000]);
        }
        assert!(scan.line.capacity() <= 4 * LINE_BYTES_MAX && scan.place == Place::Header);
        scan.clear();
        scan.update(b"X-Timecop-Audit: v=1\r\n");
        for _ in 0..1_000 {
            scan.update(b" 0123456789\r\n");
        }
        assert!(scan.value.len() <= VALUE_BYTES_MAX + 1);
    }

    proptest! {
        #[test]
        fn no_split_changes_what_is_found(cuts in proptest::collection::vec(0usize..500, 0..6), dirt in "[a-z :\r\n]{0,40}") {
            let message = format!("Received: by x\r\n {dirt}\r\n{}To: y\r\n\r\nHello {dirt}\r\n\r\n", field("Hello\r\n")).into_bytes();
            let mut whole = Scan::new();
            whole.update(&message);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(message.len())).collect();
            cuts.extend([0, message.len()]);
            cuts.sort_unstable();
            let mut parts = Scan::new();
            cuts.windows(2).for_each(|pair| parts.update(&message[pair[0]..pair[1]]));
            // A run of line ends that is none of SMTP's is refused before it is looked at.
            if !dirt.contains(['\r', '\n']) {
                prop_assert_eq!(parts.finish(&signer()), whole.finish(&signer()));
            }
        }
    }
}
