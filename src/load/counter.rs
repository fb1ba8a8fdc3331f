//! Sharing out the messages of a closed-loop job.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most messages that one shard takes from the counter at once. Large enough that the shared cache line is touched
/// once in hundreds of messages.
pub const BLOCK_MESSAGES_MAX: u64 = 256;

/// Of what is left, a shard takes this fraction of its fair share, so that a slow shard holds little when the others
/// run dry.
const BLOCKS_PER_SHARD: u64 = 4;

/// The one counter from which all shards of a closed-loop job take their messages, in blocks of sequence numbers.
///
/// Blocks shrink as the end comes near (guided self-scheduling, Polychronopoulos and Kuck, 1987): remaining / (4 ×
/// shards), at least 1 and at most [`BLOCK_MESSAGES_MAX`]. So the shards end together, though none talks to another.
/// Lives in an `Arc`.
#[derive(Debug)]
pub struct MessageCounter {
    next: AtomicU64,
    end: u64,
    shards: u64,
}

impl MessageCounter {
    /// Counts out exactly `messages` messages, 0..messages, among `shards` shards.
    ///
    /// # Panics
    ///
    /// When `shards` is zero.
    pub fn bounded(messages: u64, shards: u32) -> MessageCounter {
        assert!(shards > 0, "a job runs on at least one shard");
        MessageCounter { next: AtomicU64::new(0), end: messages, shards: u64::from(shards) }
    }

    /// Counts without end, for a job that a duration bounds.
    pub fn unbounded() -> MessageCounter {
        MessageCounter { next: AtomicU64::new(0), end: u64::MAX, shards: 1 }
    }

    /// The next block of sequence numbers, never empty; none when all have been given out.
    pub fn take_block(&self) -> Option<Range<u64>> {
        // Relaxed is enough: the numbers themselves are all that the counter passes on.
        let mut start = self.next.load(Ordering::Relaxed);
        loop {
            let remaining = self.end - start;
            if remaining == 0 {
                return None;
            }
            let fair = remaining / (BLOCKS_PER_SHARD * self.shards);
            let block = start..start + fair.clamp(1, BLOCK_MESSAGES_MAX);
            match self.next.compare_exchange_weak(start, block.end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(block),
                Err(current) => start = current,
            }
        }
    }

    /// Whether all messages have been given out.
    pub fn is_exhausted(&self) -> bool {
        self.next.load(Ordering::Relaxed) == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn every_message_is_given_out_once_among_threads() {
        for (messages, shards) in [(0, 1), (1, 4), (255, 2), (1_000_003, 4)] {
            let counter = MessageCounter::bounded(messages, shards);
            let work = || {
                let mut own = Vec::new();
                while let Some(block) = counter.take_block() {
                    own.extend(block);
                }
                own
            };
            let mut all: Vec<u64> = thread::scope(|scope| {
                let workers: Vec<_> = (0..shards).map(|_| scope.spawn(work)).collect();
                workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
            });
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..messages), "{messages} messages among {shards} shards");
            assert!(counter.is_exhausted());
        }
    }

    #[test]
    fn blocks_shrink_towards_the_end() {
        let counter = MessageCounter::bounded(100_000, 8);
        let sizes: Vec<u64> =
            std::iter::from_fn(|| counter.take_block()).map(|block| block.end - block.start).collect();
        assert_eq!(sizes[0], BLOCK_MESSAGES_MAX);
        assert!(sizes.is_sorted_by(|earlier, later| earlier >= later));
        assert!(sizes.ends_with(&[1; 32]), "the last messages go one at a time");
    }

    #[test]
    fn an_unbounded_counter_gives_full_blocks() {
        let counter = MessageCounter::unbounded();
        assert_eq!(counter.take_block(), Some(0..256));
        assert_eq!(counter.take_block(), Some(256..512));
        assert!(!counter.is_exhausted());
    }
}
