//! Data against any octets: every split of them gives the content and the faults that a naive search finds, only CRLF.CRLF
//! ends it, and what was dot-stuffed comes out as it went in.

use timecop::wire::smtp::data::{DataDecoder, DataFault, END_OF_DATA, End, stuff};

use super::{SPLITS, Settings};

/// A message, and how it ended if it did.
type Message = (Vec<u8>, Option<End>);

/// Asserts all of it for one input.
pub fn check(input: &[u8]) {
    let (settings, octets) = Settings::split(input);
    let expected = naive(octets);
    for split in 0..SPLITS {
        assert_eq!(decode(&settings.pieces(octets, split)), expected, "split {split}");
    }
    if octets.is_empty() || octets.ends_with(b"\r\n") {
        let stuffed = [&stuff(octets), END_OF_DATA].concat();
        let messages = decode(&settings.pieces(&stuffed, 2));
        assert_eq!(messages.len(), 1, "no content ends the data");
        assert_eq!(messages[0].0, octets);
        assert!(messages[0].1.is_some_and(|end| end.bytes == octets.len() as u64 && end.fault == fault(octets)));
    }
}

/// All messages, the last of which may have no end.
fn decode(pieces: &[&[u8]]) -> Vec<Message> {
    let (mut decoder, mut content, mut messages) = (DataDecoder::new(), Vec::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let decoded = decoder.decode(rest, &mut |octets| content.extend_from_slice(octets));
            assert!(decoded.consumed > 0 && decoded.consumed <= rest.len());
            rest = &rest[decoded.consumed..];
            match decoded.end {
                Some(end) => {
                    assert_eq!(end.bytes, content.len() as u64);
                    messages.push((std::mem::take(&mut content), Some(end)));
                }
                None => assert!(rest.is_empty()),
            }
        }
    }
    assert_eq!(decoder.bytes(), content.len() as u64);
    // What may still be a part of the end is not content yet.
    if !content.is_empty() {
        messages.push((content, None));
    }
    messages
}

fn naive(mut octets: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let (mut content, mut at) = (Vec::new(), 0);
        let end = loop {
            let is_line_start = at == 0 || octets[..at].ends_with(b"\r\n");
            let rest = &octets[at..];
            match rest {
                [] => break None,
                [b'.', b'\r', b'\n', ..] if is_line_start => break Some(at + 3),
                // Too early to say.
                [b'.'] | [b'.', b'\r'] if is_line_start => break None,
                [b'.', ..] if is_line_start => {
                    // The dot goes; what follows it does not begin a line.
                    content.push(rest[1]);
                    at += 2;
                }
                [octet, ..] => {
                    content.push(*octet);
                    at += 1;
                }
            }
        };
        let Some(end) = end else {
            if !content.is_empty() {
                messages.push((content, None));
            }
            return messages;
        };
        let (bytes, fault) = (content.len() as u64, fault(&content));
        messages.push((content, Some(End { bytes, fault })));
        octets = &octets[end..];
    }
}

/// The first octet that makes a message unfit to be passed on.
fn fault(content: &[u8]) -> Option<DataFault> {
    content.iter().enumerate().find_map(|(at, octet)| match octet {
        b'\r' if content.get(at + 1) != Some(&b'\n') => Some(DataFault::BareCr),
        b'\n' if at == 0 || content[at - 1] != b'\r' => Some(DataFault::BareLf),
        0 => Some(DataFault::Nul),
        _ => None,
    })
}
