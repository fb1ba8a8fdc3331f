//! When each route fires: at a jittered first time, then at each interval on the same grid.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::time::{Instant, duration_ns};

/// The routes and their next times.
#[derive(Debug, Default)]
pub struct Schedule {
    routes: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    interval: Duration,
    next: Instant,
}

impl Schedule {
    /// Takes these routes and intervals in the place of those before. A route that stays as it was keeps its time; a new
    /// one, and one with another interval, fires first at a random time within its interval, so that routes, and services
    /// that were started together, do not send together.
    pub fn set(&mut self, routes: impl Iterator<Item = (String, Duration)>, now: Instant, random: &mut impl Rng) {
        let mut before = std::mem::take(&mut self.routes);
        self.routes = routes
            .map(|(name, interval)| {
                let same = |entry: &Entry| entry.name == name && entry.interval == interval;
                match before.iter().position(same) {
                    Some(at) => before.swap_remove(at),
                    None => {
                        let jitter = random.random_range(0..duration_ns(interval).max(1));
                        Entry { name, interval, next: now + Duration::from_nanos(jitter) }
                    }
                }
            })
            .collect();
    }

    /// The routes that are to fire now, each once: times that were slept through are not made up for.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.routes.iter_mut().filter(|entry| entry.next <= now);
        due.map(|entry| {
            let (interval, behind) = (duration_ns(entry.interval).max(1), now.ns_since(entry.next));
            entry.next += Duration::from_nanos((behind / interval + 1).saturating_mul(interval));
            entry.name.clone()
        })
        .collect()
    }

    /// The next time that a route is to fire.
    pub fn next(&self) -> Option<Instant> {
        self.routes.iter().map(|entry| entry.next).min()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_pcg::Pcg64;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_ns(seconds * 1_000_000_000)
    }

    fn routes(list: &[(&str, u32)]) -> impl Iterator<Item = (String, Duration)> {
        let list: Vec<_> = list.iter().map(|&(name, seconds)| (name.to_owned(), S * seconds)).collect();
        list.into_iter()
    }

    #[test]
    fn first_times_are_spread_over_the_interval_and_the_others_follow_at_it() {
        let mut seconds = Vec::new();
        for seed in 0..1_000 {
            let mut schedule = Schedule::default();
            schedule.set(routes(&[("a", 60)]), at(1_000), &mut Pcg64::seed_from_u64(seed));
            let first = schedule.next().unwrap();
            assert!(first >= at(1_000) && first < at(1_060));
            assert_eq!(schedule.due(first), ["a"]);
            assert_eq!((schedule.due(first), schedule.next()), (Vec::new(), Some(first + 60 * S)));
            seconds.push((first - at(1_000)).as_secs_f64());
        }
        let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
        assert!((25.0..35.0).contains(&mean), "{mean}");
    }

    #[test]
    fn times_that_were_slept_through_are_not_made_up_for() {
        let mut schedule = Schedule::default();
        schedule.set(routes(&[("a", 10)]), at(0), &mut Pcg64::seed_from_u64(1));
        let first = schedule.next().unwrap();
        assert_eq!(schedule.due(first + 95 * S), ["a"]);
        assert_eq!(schedule.next(), Some(first + 100 * S));
    }

    #[test]
    fn a_reload_leaves_the_times_of_what_stays_as_it_was() {
        let mut random = Pcg64::seed_from_u64(1);
        let mut schedule = Schedule::default();
        schedule.set(routes(&[("a", 10), ("b", 10)]), at(0), &mut random);
        let next = |schedule: &Schedule, name: &str| {
            schedule.routes.iter().find(|entry| entry.name == name).map(|entry| entry.next)
        };
        let before = next(&schedule, "a");
        schedule.set(routes(&[("c", 10), ("a", 10), ("b", 20)]), at(9), &mut random);
        assert_eq!(next(&schedule, "a"), before);
        assert!(next(&schedule, "b") >= Some(at(9)) && next(&schedule, "c") >= Some(at(9)));
        schedule.set(routes(&[]), at(9), &mut random);
        assert_eq!((schedule.next(), schedule.due(at(99))), (None, Vec::new()));
    }
}
