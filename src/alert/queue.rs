//! Events that were not delivered yet. Those of one `dedup_key` go out in their order, one at a time; those of others
//! do not wait for them.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::event::Event;
use crate::time::Instant;

/// Events that wait at most; a new one beyond them costs the oldest.
pub const EVENTS_MAX: usize = 1_000;
/// After the first failure; doubled with each further one.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest time between two tries, and the most that `Retry-After` may ask for.
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 202: PagerDuty has it.
    Taken,
    /// Another answer that will not change, such as 400: it is given up.
    Refused,
    /// 429: too much for this key, whatever the event; with the seconds of `Retry-After`.
    TooMany(Option<Duration>),
    /// 5xx, or none at all; with the seconds of `Retry-After`.
    Failed(Option<Duration>),
}

/// The events that wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    /// None goes out before.
    held_until: Instant,
    next_id: u64,
    /// Events that were given up because there were too many.
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    event: Event,
    failures: u32,
    not_before: Instant,
    is_out: bool,
}

impl Queue {
    /// What an earlier service left, in the order of the ids.
    pub fn restored(events: Vec<(u64, Event)>) -> Queue {
        let mut queue = Queue { next_id: events.iter().map(|(id, _)| id + 1).max().unwrap_or(0), ..Queue::default() };
        let wait = |(id, event)| Waiting { id, event, failures: 0, not_before: Instant::ZERO, is_out: false };
        queue.waiting = events.into_iter().map(wait).collect();
        queue
    }

    /// Adds an event; gives its number, and that of one that had to go for it.
    pub fn push(&mut self, event: Event) -> (u64, Option<u64>) {
        let id = self.next_id;
        self.next_id += 1;
        let oldest = self.waiting.iter().position(|waiting| !waiting.is_out);
        let gone = oldest.filter(|_| self.waiting.len() >= EVENTS_MAX).and_then(|at| self.waiting.remove(at));
        self.dropped += u64::from(gone.is_some());
        self.waiting.push_back(Waiting { id, event, failures: 0, not_before: Instant::ZERO, is_out: false });
        (id, gone.map(|gone| gone.id))
    }

    /// The next event that may go out now. Whoever takes it tells [`Queue::answered`] what came of it.
    pub fn take(&mut self, now: Instant) -> Option<(u64, Event)> {
        if now < self.held_until {
            return None;
        }
        let at = (0..self.waiting.len()).find(|&at| {
            let this = &self.waiting[at];
            let is_first = self.waiting.range(..at).all(|before| before.event.dedup_key != this.event.dedup_key);
            is_first && !this.is_out && this.not_before <= now
        })?;
        self.waiting[at].is_out = true;
        Some((self.waiting[at].id, self.waiting[at].event.clone()))
    }

    /// What came of an event that was taken; says whether it is done with, and need not be kept.
    pub fn answered(&mut self, id: u64, answer: &Answer, now: Instant, random: &mut impl Rng) -> bool {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.id == id) else { return true };
        let waiting = &mut self.waiting[at];
        let after = match answer {
            Answer::Taken | Answer::Refused => {
                self.waiting.remove(at);
                return true;
            }
            Answer::TooMany(after) | Answer::Failed(after) => after.unwrap_or_default().min(RETRY_MAX),
        };
        waiting.is_out = false;
        let back_off = RETRY_FIRST.saturating_mul(1 << waiting.failures.min(16)).min(RETRY_MAX);
        waiting.failures += 1;
        // Between the half and the whole, so that those who failed together do not come back together.
        let wait = after.max(back_off.mul_f64(random.random_range(0.5..=1.0)));
        waiting.not_before = now + wait;
        if matches!(answer, Answer::TooMany(_)) {
            self.held_until = waiting.not_before;
        }
        false
    }

    /// How many wait, those under way included.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many were given up because there were too many.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_pcg::Pcg64;

    use super::*;

    fn event(key: &str) -> Event {
        Event { dedup_key: key.to_owned(), trigger: None }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_ns(seconds * 1_000_000_000)
    }

    fn random() -> Pcg64 {
        Pcg64::seed_from_u64(1)
    }

    fn taken(queue: &mut Queue, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| queue.take(now).map(|(id, _)| id)).collect()
    }

    #[test]
    fn events_of_one_key_go_out_one_by_one_and_in_order() {
        let mut queue = Queue::default();
        for key in ["a", "b", "a", "a"] {
            queue.push(event(key));
        }
        assert_eq!(taken(&mut queue, at(0)), [0, 1]);
        assert!(!queue.answered(0, &Answer::Failed(None), at(0), &mut random()));
        assert!(queue.answered(1, &Answer::Taken, at(0), &mut random()));
        assert_eq!(taken(&mut queue, at(0)), [0; 0], "the first of a holds up the others of a");
        assert_eq!(taken(&mut queue, at(2)), [0]);
        assert!(queue.answered(0, &Answer::Refused, at(2), &mut random()));
        assert_eq!(taken(&mut queue, at(2)), [2]);
    }

    #[test]
    fn the_time_between_two_tries_grows_is_jittered_and_bounded() {
        let mut random = random();
        let mut queue = Queue::default();
        queue.push(event("a"));
        let mut now = at(0);
        let mut waits = Vec::new();
        for failures in 0..40 {
            queue.take(now).unwrap();
            queue.answered(0, &Answer::Failed(None), now, &mut random);
            let wait = queue.waiting[0].not_before - now;
            let whole = RETRY_FIRST.saturating_mul(1 << failures.min(16)).min(RETRY_MAX);
            assert!(wait >= whole / 2 && wait <= whole, "{failures}: {wait:?}");
            now += wait;
            waits.push(wait);
        }
        assert!(waits[30..].windows(2).any(|pair| pair[0] != pair[1]), "{waits:?}");
        queue.take(now).unwrap();
        queue.answered(0, &Answer::Failed(Some(Duration::from_secs(100_000))), now, &mut random);
        assert_eq!(queue.waiting[0].not_before - now, RETRY_MAX);
    }

    #[test]
    fn too_many_requests_hold_up_all_of_them_for_as_long_as_is_asked() {
        let mut queue = Queue::default();
        queue.push(event("a"));
        queue.push(event("b"));
        queue.take(at(0)).unwrap();
        queue.answered(0, &Answer::TooMany(Some(Duration::from_secs(20))), at(0), &mut random());
        assert_eq!(taken(&mut queue, at(19)), [0; 0]);
        assert_eq!(taken(&mut queue, at(20)), [0, 1]);
    }

    #[test]
    fn what_was_left_goes_out_first_and_numbers_do_not_come_twice() {
        let mut queue = Queue::restored(vec![(7, event("a")), (9, event("a"))]);
        assert_eq!(queue.push(event("a")), (10, None));
        for id in [7, 9, 10] {
            assert_eq!(taken(&mut queue, at(0)), [id]);
            queue.answered(id, &Answer::Taken, at(0), &mut random());
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let mut queue = Queue::default();
        queue.push(event("a"));
        queue.take(at(0)).unwrap();
        for _ in 1..EVENTS_MAX {
            assert_eq!(queue.push(event("a")).1, None);
        }
        assert_eq!(queue.push(event("a")).1, Some(1), "the one under way stays");
        assert_eq!((queue.len(), queue.dropped()), (EVENTS_MAX, 1));
    }
}
