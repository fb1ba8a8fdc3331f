//! Events that were not delivered yet. Those of one `dedup_key` go out in their order, one at a time; those of others
//! do not wait for them.
//!
//! A trigger that was never tried and its resolve cancel each other: nobody is called for what is over. One that was
//! tried may have been taken without our hearing of it, so that both go out.

use std::collections::VecDeque;
use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::event::Event;
use crate::time::Instant;

/// Events that wait at most; a new one beyond them costs the oldest trigger, and where there is none the oldest resolve.
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
    /// PagerDuty may have it.
    was_tried: bool,
}

/// What came of a new event.
#[derive(Debug, PartialEq)]
pub struct Pushed {
    /// Its number; `None` where it does not wait, because it and what it took back cancel each other.
    pub id: Option<u64>,
    /// The event that no longer waits: the one that was taken back, or one for which there was no room.
    pub gone: Option<(u64, Event)>,
}

impl Queue {
    /// What an earlier service left, in the order of the ids.
    pub fn restored(events: Vec<(u64, Event)>) -> Queue {
        let mut queue = Queue { next_id: events.iter().map(|(id, _)| id + 1).max().unwrap_or(0), ..Queue::default() };
        // Whether they were tried is not kept: they may have been.
        queue.waiting = events.into_iter().map(|(id, event)| Waiting::new(id, event, true)).collect();
        queue
    }

    /// Adds an event.
    pub fn push(&mut self, event: Event) -> Pushed {
        let last = self.waiting.iter().rposition(|waiting| waiting.event.dedup_key == event.dedup_key);
        let takes_back = |at: &usize| self.waiting[*at].event.trigger.is_some() && !self.waiting[*at].was_tried;
        if event.trigger.is_none()
            && let Some(gone) = last.filter(takes_back).and_then(|at| self.waiting.remove(at))
        {
            return Pushed { id: None, gone: Some((gone.id, gone.event)) };
        }
        let id = self.next_id;
        self.next_id += 1;
        // A trigger that is lost is told again by the next probe; a resolve by nobody.
        let oldest = |is_wanted: fn(&Waiting) -> bool| {
            self.waiting.iter().position(|waiting| !waiting.is_out && is_wanted(waiting))
        };
        let is_full = self.waiting.len() >= EVENTS_MAX;
        let least = oldest(|waiting| waiting.event.trigger.is_some()).or_else(|| oldest(|_| true));
        let gone = least.filter(|_| is_full).and_then(|at| self.waiting.remove(at));
        self.dropped += u64::from(gone.is_some());
        self.waiting.push_back(Waiting::new(id, event, false));
        Pushed { id: Some(id), gone: gone.map(|gone| (gone.id, gone.event)) }
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
        self.waiting[at].was_tried = true;
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

impl Waiting {
    fn new(id: u64, event: Event, was_tried: bool) -> Waiting {
        Waiting { id, event, failures: 0, not_before: Instant::ZERO, is_out: false, was_tried }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_pcg::Pcg64;

    use super::*;
    use crate::alert::event::{Severity, Trigger};

    /// A resolve.
    fn event(key: &str) -> Event {
        Event { dedup_key: key.to_owned(), trigger: None }
    }

    fn trigger(key: &str) -> Event {
        let trigger = Trigger {
            summary: String::new(),
            source: String::new(),
            severity: Severity::Error,
            timestamp: String::new(),
            component: String::new(),
            class: String::new(),
            custom_details: Default::default(),
            client_url: None,
        };
        Event { dedup_key: key.to_owned(), trigger: Some(trigger) }
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
        assert_eq!(queue.push(event("a")), Pushed { id: Some(10), gone: None });
        for id in [7, 9, 10] {
            assert_eq!(taken(&mut queue, at(0)), [id]);
            queue.answered(id, &Answer::Taken, at(0), &mut random());
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn a_trigger_that_nobody_has_heard_of_and_its_resolve_cancel_each_other() {
        let mut queue = Queue::default();
        queue.push(trigger("b"));
        queue.push(trigger("a"));
        let pushed = queue.push(event("a"));
        assert_eq!(pushed, Pushed { id: None, gone: Some((1, trigger("a"))) });
        assert_eq!((queue.len(), queue.dropped()), (1, 0), "that of b stays");
        assert_eq!(queue.push(event("a")).id, Some(2), "what PagerDuty may know of is resolved");
    }

    #[test]
    fn a_trigger_that_was_tried_and_its_resolve_go_out_in_order() {
        let mut queue = Queue::default();
        queue.push(trigger("a"));
        queue.take(at(0)).unwrap();
        assert_eq!(queue.push(event("a")), Pushed { id: Some(1), gone: None }, "it is under way");
        queue.answered(0, &Answer::Failed(None), at(0), &mut random());
        queue.push(trigger("a"));
        assert_eq!(queue.push(event("a")), Pushed { id: None, gone: Some((2, trigger("a"))) });
        assert_eq!(taken(&mut queue, at(2)), [0]);
        queue.answered(0, &Answer::Taken, at(2), &mut random());
        assert_eq!(taken(&mut queue, at(2)), [1]);
        let mut restored = Queue::restored(vec![(0, trigger("a"))]);
        assert_eq!(restored.push(event("a")).id, Some(1), "an earlier service may have tried it");
    }

    #[test]
    fn it_does_not_grow_without_bound_and_a_resolve_goes_last() {
        let mut queue = Queue::default();
        queue.push(trigger("0"));
        queue.take(at(0)).unwrap();
        queue.push(event("1"));
        for key in 2..EVENTS_MAX {
            assert_eq!(queue.push(trigger(&key.to_string())).gone, None);
        }
        let gone = queue.push(event("more")).gone;
        assert_eq!(gone, Some((2, trigger("2"))), "the one under way stays, and the resolve before it");
        assert_eq!((queue.len(), queue.dropped()), (EVENTS_MAX, 1));
        let mut resolves = Queue::restored((0..EVENTS_MAX as u64).map(|id| (id, event(&id.to_string()))).collect());
        assert_eq!(resolves.push(trigger("more")).gone, Some((0, event("0"))));
    }
}
