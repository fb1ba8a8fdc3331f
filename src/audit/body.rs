//! What of a body must not change on its way, as one number.

use xxhash_rust::xxh3::Xxh3;

/// The hash (XXH3, 64 bits) of a body, whatever the pieces in which it comes.
///
/// Empty lines at its end do not count, as in the `simple` canonicalization of RFC 6376, section 3.4.3, since relays add and
/// take those; neither does the last line's own end. Every other octet counts: white space within a line, which `relaxed` would
/// forgive, is content that a relay has no business to change. Line ends are CRLF, as SMTP has them.
///
/// The hash finds what went wrong by accident, and the stamp that carries it is signed. It is no cryptographic one: whoever
/// can make a second body of the same hash can deceive the audit.
#[derive(Clone)]
pub struct BodyHasher {
    hash: Xxh3,
    /// Octets of line ends that count only if something follows them.
    pending: usize,
}

/// Line ends as they are put back before what follows them.
const LINE_ENDS: &[u8; 64] = &{
    let mut ends = [b'\r'; 64];
    let mut at = 1;
    while at < ends.len() {
        ends[at] = b'\n';
        at += 2;
    }
    ends
};

impl Default for BodyHasher {
    fn default() -> BodyHasher {
        BodyHasher::new()
    }
}

impl std::fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyHasher").finish_non_exhaustive()
    }
}

impl BodyHasher {
    /// Of a body of which nothing has come yet.
    pub fn new() -> BodyHasher {
        BodyHasher { hash: Xxh3::new(), pending: 0 }
    }

    /// Forgets what has come.
    #[inline]
    pub fn clear(&mut self) {
        self.hash.reset();
        self.pending = 0;
    }

    /// The next octets of the body.
    #[inline]
    pub fn update(&mut self, octets: &[u8]) {
        let text = octets.iter().rposition(|octet| !matches!(octet, b'\r' | b'\n')).map_or(0, |last| last + 1);
        if text > 0 {
            while self.pending > 0 {
                // A run of line ends begins with CR, and so does every stretch of even length.
                let length = self.pending.min(LINE_ENDS.len());
                self.hash.update(&LINE_ENDS[..length]);
                self.pending -= length;
            }
            self.hash.update(&octets[..text]);
        }
        self.pending += octets.len() - text;
    }

    /// The hash of all that has come.
    #[inline]
    pub fn finish(&self) -> u64 {
        self.hash.digest()
    }

    /// The hash of a whole body.
    pub fn of(body: &[u8]) -> u64 {
        let mut hasher = BodyHasher::new();
        hasher.update(body);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_lines_at_the_end_do_not_count_and_others_do() {
        let body = BodyHasher::of(b"one\r\n\r\ntwo\r\n");
        for same in [&b"one\r\n\r\ntwo"[..], b"one\r\n\r\ntwo\r\n\r\n\r\n"] {
            assert_eq!(BodyHasher::of(same), body, "{same:?}");
        }
        for other in [&b"one\r\ntwo\r\n"[..], b"\r\none\r\n\r\ntwo", b"one \r\n\r\ntwo", b"one\r\n\r\nTwo"] {
            assert_ne!(BodyHasher::of(other), body, "{other:?}");
        }
        assert_eq!(BodyHasher::of(b"\r\n\r\n"), BodyHasher::of(b""));
    }

    proptest! {
        #[test]
        fn no_split_changes_the_hash(lines in proptest::collection::vec("[a-c .]{0,70}", 0..40), cuts in proptest::collection::vec(0usize..2_000, 0..6)) {
            let body = lines.join("\r\n").into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut hasher = BodyHasher::new();
            cuts.windows(2).for_each(|pair| hasher.update(&body[pair[0]..pair[1]]));
            prop_assert_eq!(hasher.finish(), BodyHasher::of(&body));
            let trimmed = body.iter().rposition(|octet| !matches!(octet, b'\r' | b'\n')).map_or(0, |last| last + 1);
            prop_assert_eq!(hasher.finish(), xxhash_rust::xxh3::xxh3_64(&body[..trimmed]));
        }
    }
}
