//! The line scanner against any octets: every split of them gives the lines that a naive search finds in the whole, and no
//! more is kept than the bound allows.
//!
//! The first setting is the bound.

use timecop::wire::line::{LineError, LineScanner};

use super::{SPLITS, Settings};

type Line = Result<Vec<u8>, LineError>;

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, octets) = Settings::split(input);
    let bound = u32::from(settings.get(0) % 64);
    let expected = naive(bound as usize, octets);
    for split in 0..SPLITS {
        let mut scanner = LineScanner::new(bound);
        let mut found = Vec::new();
        for piece in settings.pieces(octets, split) {
            let mut rest = piece;
            loop {
                let scan = scanner.scan(rest);
                assert!(scan.consumed <= rest.len());
                assert!(scan.line.is_some() || scan.consumed == rest.len(), "octets without a line are all eaten");
                rest = &rest[scan.consumed..];
                match scan.line {
                    Some(line) => found.push(line.map(<[u8]>::to_vec)),
                    None => break,
                }
            }
        }
        assert_eq!(found, expected, "split {split}");
    }
}

/// All lines that have an end: at their first LF; where more than the bound stands before it, at their first CRLF.
fn naive(bound: usize, mut octets: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    while let Some(lf) = memchr::memchr(b'\n', octets) {
        let (line, in_crlf) = match octets[..lf].strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (&octets[..lf], false),
        };
        let mut end = lf + 1;
        if line.len() > bound {
            let Some(crlf) = memchr::memmem::find(octets, b"\r\n") else { break };
            end = crlf + 2;
            lines.push(Err(LineError::TooLong));
        } else if let Some(stray) = line.iter().find(|octet| matches!(octet, b'\r' | 0)) {
            lines.push(Err(if *stray == 0 { LineError::Nul } else { LineError::BareCr }));
        } else {
            lines.push(if in_crlf { Ok(line.to_vec()) } else { Err(LineError::BareLf) });
        }
        octets = &octets[end..];
    }
    lines
}
