//! Replies that wait for their time, of any server's session.

use crate::time::Instant;
use std::collections::VecDeque;

/// Octets of replies that a session holds back at most. A peer that goes on sending commands beyond it is dropped.
pub const HELD_BYTES_MAX: usize = 256 * 1024;

/// Memory that a session keeps for the next held replies when none is held, in each of its two buffers.
const IDLE_BYTES_MAX: usize = 1_024;

/// The replies of one session that are not due yet, in the order in which they go out.
#[derive(Debug, Default)]
pub(in crate::wire) struct Held {
    bytes: Vec<u8>,
    /// When each reply is due, and its length. The times never fall.
    replies: VecDeque<(Instant, usize)>,
    /// When the reply that was appended last is, or was, due.
    last: Instant,
    /// The reply that may still be replaced.
    pending: Option<Pending>,
}

/// A reply that says what is to be said when nobody has decided otherwise before it is due.
#[derive(Debug)]
struct Pending {
    ticket: u64,
    /// Its place among the replies.
    at: usize,
}

impl Held {
    pub(in crate::wire) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// When the first reply is due; never if there is none.
    pub(in crate::wire) fn due(&self) -> Instant {
        self.replies.front().map_or(Instant::NEVER, |(due, _)| *due)
    }

    /// When the last reply is, or was, due.
    pub(in crate::wire) fn last(&self) -> Instant {
        self.last
    }

    /// Appends a reply. False when there is no room for it.
    #[must_use]
    pub(in crate::wire) fn push(&mut self, due: Instant, reply: &[u8]) -> bool {
        debug_assert!(due >= self.last);
        if self.bytes.len() + reply.len() > HELD_BYTES_MAX {
            return false;
        }
        self.bytes.extend_from_slice(reply);
        self.replies.push_back((due, reply.len()));
        self.last = due;
        true
    }

    /// Appends a reply that [`Held::settle`] may replace until it is due. False when there is no room for it.
    #[must_use]
    pub(super) fn push_pending(&mut self, due: Instant, otherwise: &[u8], ticket: u64) -> bool {
        debug_assert!(self.pending.is_none(), "a message is sent once the one before it was answered");
        self.pending = Some(Pending { ticket, at: self.replies.len() });
        self.push(due, otherwise)
    }

    /// What the reply that may still be replaced is known by.
    pub(super) fn pending(&self) -> Option<u64> {
        self.pending.as_ref().map(|pending| pending.ticket)
    }

    /// Puts `reply` in the place of the pending one and makes it due at once, and those behind it as much earlier. False
    /// when it is another one that is pending, or none.
    #[must_use]
    pub(super) fn settle(&mut self, now: Instant, ticket: u64, reply: &[u8]) -> bool {
        let Some(Pending { at, .. }) = self.pending.take_if(|pending| pending.ticket == ticket) else { return false };
        let begin: usize = self.replies.iter().take(at).map(|(_, length)| length).sum();
        let not_before = at.checked_sub(1).and_then(|before| self.replies.get(before)).map_or(now, |reply| reply.0);
        let Some((due, length)) = self.replies.get_mut(at) else { return false };
        self.bytes.splice(begin..begin + *length, reply.iter().copied());
        *length = reply.len();
        let earlier = due.ns_since(now.max(not_before));
        let earlier = |due: Instant| Instant::from_ns(due.as_ns() - earlier);
        self.replies.iter_mut().skip(at).for_each(|(due, _)| *due = earlier(*due));
        self.last = earlier(self.last);
        true
    }

    /// Takes back the reply that was appended last.
    pub(in crate::wire) fn retract_last(&mut self) {
        if let Some((_, length)) = self.replies.pop_back() {
            self.bytes.truncate(self.bytes.len() - length);
            self.last = self.replies.back().map_or(Instant::ZERO, |(due, _)| *due);
        }
    }

    /// Moves what is due to `out`.
    pub(in crate::wire) fn release(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (before, mut released) = (self.replies.len(), 0);
        while let Some((due, length)) = self.replies.front()
            && *due <= now
        {
            released += length;
            self.replies.pop_front();
        }
        out.extend(self.bytes.drain(..released));
        let gone = before - self.replies.len();
        // What has gone out is decided.
        self.pending.take_if(|pending| pending.at < gone);
        if let Some(pending) = &mut self.pending {
            pending.at -= gone;
        }
        if self.replies.is_empty() {
            self.bytes.shrink_to(IDLE_BYTES_MAX);
            self.replies.shrink_to(IDLE_BYTES_MAX / size_of::<(Instant, usize)>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_out_when_due_and_in_order() {
        let (mut held, mut out) = (Held::default(), Vec::new());
        let at = Instant::from_ns;
        assert!(held.push(at(5), b"one ") && held.push(at(7), b"two ") && held.push(at(7), b"three"));
        held.release(at(4), &mut out);
        assert_eq!((out.as_slice(), held.due()), (&b""[..], at(5)));
        held.release(at(5), &mut out);
        assert_eq!((out.as_slice(), held.due()), (&b"one "[..], at(7)));
        held.retract_last();
        held.release(at(9), &mut out);
        assert_eq!((out.as_slice(), held.due(), held.last()), (&b"one two "[..], Instant::NEVER, at(7)));
    }

    #[test]
    fn room_is_bounded() {
        let mut held = Held::default();
        assert!(held.push(Instant::ZERO, &vec![0; HELD_BYTES_MAX]));
        assert!(!held.push(Instant::ZERO, b"x"));
    }
}
