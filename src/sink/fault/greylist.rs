//! Who has tried before.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;

use crate::time::Instant;

/// Tries that a greylist remembers; beyond that it forgets the oldest, which then begin anew.
pub const GREYLIST_TRIES_MAX: usize = 65_536;

/// The first try of each sender, recipient and client.
#[derive(Debug, Default)]
pub(super) struct Greylist {
    first: HashMap<u64, Instant>,
    /// The same tries, the oldest first.
    order: VecDeque<u64>,
}

impl Greylist {
    /// What a try is known by. The client's address does not tell where it is not known.
    pub(super) fn key(client: Option<IpAddr>, reverse_path: u64, forward_path: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        (client, reverse_path, forward_path.to_ascii_lowercase()).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether a try comes too early: it is the first one, or `wait` has not passed since that. Notes it, if it is.
    pub(super) fn defers(&mut self, key: u64, now: Instant, wait: Duration) -> bool {
        if let Some(&first) = self.first.get(&key) {
            return now < first + wait;
        }
        if self.order.len() >= GREYLIST_TRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.first.remove(&oldest);
        }
        self.first.insert(key, now);
        self.order.push_back(key);
        true
    }
}

/// What a reverse-path is known by.
pub(super) fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.to_ascii_lowercase().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_is_accepted_once_the_time_has_passed_since_the_first_one() {
        let (mut list, wait) = (Greylist::default(), Duration::from_secs(60));
        let at = |s: u64| Instant::from_ns(s * 1_000_000_000);
        let key = |client: &str, from: &[u8], to: &[u8]| Greylist::key(client.parse().ok(), hash(from), to);
        let one = key("192.0.2.1", b"a@x", b"b@y");
        assert_eq!([0, 30, 59, 60, 1_000].map(|s| list.defers(one, at(s), wait)), [true, true, true, false, false]);
        for other in
            [key("192.0.2.2", b"a@x", b"b@y"), key("192.0.2.1", b"c@x", b"b@y"), key("192.0.2.1", b"a@x", b"d@y")]
        {
            assert!(list.defers(other, at(2_000), wait));
        }
        assert!(!list.defers(key("192.0.2.1", b"A@X", b"B@y"), at(2_000), wait), "case tells nothing");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_tries_are_forgotten() {
        let (mut list, wait) = (Greylist::default(), Duration::from_secs(1));
        let at = |s: u64| Instant::from_ns(s * 1_000_000_000);
        for key in 0..=GREYLIST_TRIES_MAX as u64 {
            assert!(list.defers(key, at(0), wait));
        }
        assert_eq!((list.first.len(), list.order.len()), (GREYLIST_TRIES_MAX, GREYLIST_TRIES_MAX));
        assert_eq!([0, 2].map(|key| list.defers(key, at(5), wait)), [true, false]);
    }
}
