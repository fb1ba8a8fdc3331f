//! The stamp of the delivery audit in each message: its hash is known before the message is written, wherever all messages
//! of a kind have one body.

use super::expansion::Expansion;
use super::generate;
use super::template::Body;
use crate::audit::body::BodyHasher;
use crate::audit::scan::Scan;
use crate::audit::stamp::{FIELD_BYTES, Signer, Stamp};
use crate::outgoing::Outgoing;
use crate::time::WallTime;

/// What a template's messages are stamped with.
#[derive(Debug)]
pub(super) struct Stamping {
    run: u64,
    signer: Signer,
    hashes: Hashes,
}

/// The hashes of bodies.
#[derive(Debug)]
enum Hashes {
    /// Of generated ones, by their size's place in the mix: the least room that a head leaves for the body, and the hash for
    /// it and for each octet more.
    Generated(Box<[(usize, Box<[u64]>)]>),
    /// Of given ones; `None` where variables make each another one.
    Given(Box<[Option<u64>]>),
}

impl Stamping {
    /// Hashes all bodies that there are, once. `heads` is the shortest and the longest head, the stamp included.
    pub(super) fn new(run: u64, signer: Signer, body: &Body, heads: (u64, u64)) -> Stamping {
        let hashes = match body {
            Body::Generated { sizes, header_bytes, content } => {
                let sizes: Vec<u64> = sizes.list().iter().map(|size| size.bytes).collect();
                Hashes::Generated(generated(&sizes, *header_bytes, content, heads))
            }
            Body::Given(contents) => Hashes::Given(contents.iter().map(given).collect()),
        };
        Stamping { run, signer, hashes }
    }

    /// Leaves room for the stamp, and says where.
    #[inline]
    pub(super) fn leave_room(out: &mut Outgoing) -> usize {
        let at = out.bytes.len();
        out.bytes.resize(at + FIELD_BYTES, 0);
        at
    }

    /// Stamps message `sequence`, which was written behind the room at `at`. A generated body has filled `room` octets.
    #[inline]
    pub(super) fn write(&self, body: &Body, sequence: u64, room: usize, wall: WallTime, out: &mut Outgoing, at: usize) {
        let hash = match (&self.hashes, body) {
            (Hashes::Generated(by_size), Body::Generated { sizes, .. }) => {
                let (least, hashes) = &by_size[sizes.index_of(sequence)];
                hashes[room - least]
            }
            (Hashes::Given(hashes), Body::Given(contents)) => {
                let index = (sequence % contents.len() as u64) as usize;
                hashes[index].unwrap_or_else(|| of_written(out, at, contents[index].is_stuffed()))
            }
            _ => unreachable!("the hashes are those of the body"),
        };
        let stamp = Stamp { run: self.run, sequence, sent: wall, body: hash };
        let field = out.bytes[at..].first_chunk_mut().expect("there was left room for it");
        stamp.write(&self.signer, field);
    }
}

/// For each size, and each length of head that there may be, the body is hashed as it will be cut. All that they have in
/// common is hashed once.
fn generated(
    sizes: &[u64],
    header_bytes: usize,
    content: &[u8],
    (shortest, longest): (u64, u64),
) -> Box<[(usize, Box<[u64]>)]> {
    let text_of = |room: usize| generate::cut(room);
    let body = &content[header_bytes..];
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&index| sizes[index]);
    let mut hashed = vec![(0, Box::default()); sizes.len()];
    // Of the next shorter size's shortest text.
    let (mut common, mut common_bytes) = (BodyHasher::new(), 0);
    for index in order {
        let rooms =
            (sizes[index] - longest) as usize - header_bytes..=(sizes[index] - shortest) as usize - header_bytes;
        let shortest_text = text_of(*rooms.start()).0;
        common.update(&body[common_bytes..shortest_text.max(common_bytes)]);
        common_bytes = shortest_text.max(common_bytes);
        let hash = |room| {
            let (text, tail) = text_of(room);
            let mut hasher = common.clone();
            hasher.update(&body[common_bytes..text]);
            hasher.update(tail);
            hasher.finish()
        };
        hashed[index] = (*rooms.start(), rooms.map(hash).collect());
    }
    hashed.into()
}

/// The hash of a body without variables in it.
fn given(content: &Expansion) -> Option<u64> {
    if content.has_variables() {
        return None;
    }
    let mut scan = Scan::of_bodies();
    content.texts().for_each(|text| scan.update(text));
    Some(scan.body())
}

/// The hash of the body of a message that was just written from `at` on, as the receiver will find it.
fn of_written(out: &Outgoing, at: usize, is_stuffed: bool) -> u64 {
    let mut scan = Scan::of_bodies();
    let mut begins_line = true;
    let mut skip = at;
    for segment in out.segments() {
        let segment = &segment[skip.min(segment.len())..];
        skip = 0;
        if !is_stuffed {
            scan.update(segment);
            continue;
        }
        // Of each line that begins with a dot, the first is not content.
        for line in segment.split_inclusive(|&octet| octet == b'\n') {
            scan.update(&line[usize::from(begins_line && line[0] == b'.')..]);
            begins_line = line.ends_with(b"\n");
        }
    }
    scan.body()
}

#[cfg(test)]
mod tests;
