//! Bytes on their way to a peer.

use bytes::Bytes;

/// What one connection wants written in one go: own bytes, with at most one shared segment somewhere between them.
///
/// A large message body is the same for all messages of a job. It is not copied into `bytes` but referred to, and goes
/// out by scatter-gather: `bytes[..at]`, then the shared segment, then `bytes[at..]`.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// The bytes that belong to this write alone. Reused from write to write: clearing keeps the capacity.
    pub bytes: Vec<u8>,
    shared: Option<(usize, Bytes)>,
}

impl Outgoing {
    /// An empty write.
    pub fn new() -> Outgoing {
        Outgoing::default()
    }

    /// Appends own bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a shared segment without copying it. A write has room for one; a second one is copied.
    pub fn push_shared(&mut self, segment: Bytes) {
        if self.shared.is_some() {
            self.bytes.extend_from_slice(&segment);
        } else if !segment.is_empty() {
            self.shared = Some((self.bytes.len(), segment));
        }
    }

    /// Whether there is nothing to write.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.shared.is_none()
    }

    /// Octets to be written in all.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.shared.as_ref().map_or(0, |(_, segment)| segment.len())
    }

    /// Forgets everything, keeping the capacity of the own bytes.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.shared = None;
    }

    /// Whether a shared segment is part of it.
    #[inline]
    pub fn has_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The three runs of octets in the order in which they go out; the second and third are empty without a shared
    /// segment.
    pub fn segments(&self) -> [&[u8]; 3] {
        match &self.shared {
            None => [&self.bytes, &[], &[]],
            Some((at, segment)) => [&self.bytes[..*at], segment, &self.bytes[*at..]],
        }
    }

    /// Everything in one piece, for tests and for peers that are not sockets.
    pub fn to_vec(&self) -> Vec<u8> {
        self.segments().concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_keep_the_order_in_which_they_were_pushed() {
        let mut out = Outgoing::new();
        out.push(b"head ");
        out.push_shared(Bytes::from_static(b"body"));
        out.push(b" tail ");
        out.push_shared(Bytes::from_static(b"again"));
        assert_eq!(out.to_vec(), b"head body tail again");
        assert_eq!(out.len(), 20);
        out.clear();
        assert!(out.is_empty() && out.segments().iter().all(|s| s.is_empty()));
    }
}
