//! The highest rate that a target holds: which rate is tried next, and when that is known.
//!
//! Short trials find where it lies: the rate is doubled until one fails (or halved until one holds), then the interval is
//! bisected. Long trials then confirm it: first the highest rate that held, then onwards in growing steps, upwards while
//! they hold and downwards while they fail, and by bisection again. So the result rests on long trials alone, on both
//! of its sides, and a short trial that was wrong costs time and no truth. (Nighthawk's adaptive load controller
//! doubles, bisects and confirms; MLRsearch has the short trials first.)
//!
//! A trial that the generator limited says nothing of the target. It is repeated, one on which the result rests more often
//! than one that only finds the place, and then bounds the search from above like a failed one, but as what it is.

/// Most trials of a search.
pub const TRIALS_MAX: u32 = 60;
/// Finest distance between the rates that held and failed, as a share of the rate.
pub const PRECISION_MIN: f64 = 0.002;
/// A search that has come down to this part of its first rate has found nothing that holds.
const FLOOR: f64 = 1.0 / 4_096.0;

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target held the rate, and every condition.
    Held,
    /// It did not.
    Failed,
    /// The generator could not offer the rate: nothing is known of the target.
    Unknown,
}

/// How long a trial lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// To find out where the highest rate lies.
    Short,
    /// To confirm it.
    Long,
}

impl Length {
    /// How often a trial is repeated of which nothing is known.
    const fn repeats_max(self) -> u32 {
        match self {
            Length::Short => 1,
            Length::Long => 3,
        }
    }
}

/// One run at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Messages a second.
    pub rate_per_s: f64,
    /// How long.
    pub length: Length,
}

/// What a search knows of the highest rate, from trials of one length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The highest rate that held.
    pub held: Option<f64>,
    /// The lowest rate above it that did not, and whether that is the target's doing or unknown.
    pub not_held: Option<(f64, Outcome)>,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    start_per_s: f64,
    rate_per_s_max: f64,
    precision: f64,
    length: Length,
    bounds: Bounds,
    /// Where the long trials begin.
    estimate: f64,
    /// How many precisions the next step goes while the long trials have one bound only; doubled by each long trial.
    stride: f64,
    trials: u32,
    /// The rate of the last trial, if it has to be repeated.
    repeat: Option<f64>,
    /// How often that was done.
    repeats: u32,
}

impl Search {
    /// A search that begins at `start_per_s`, never goes beyond `rate_per_s_max`, and ends when held and failed rate
    /// differ by at most `precision`, a share of the rate from [`PRECISION_MIN`] to 1.
    pub fn new(start_per_s: f64, rate_per_s_max: f64, precision: f64) -> Search {
        Search {
            start_per_s: start_per_s.min(rate_per_s_max),
            rate_per_s_max,
            precision: precision.clamp(PRECISION_MIN, 1.0),
            length: Length::Short,
            bounds: Bounds::default(),
            estimate: 0.0,
            stride: 0.5,
            trials: 0,
            repeat: None,
            repeats: 0,
        }
    }

    /// The next trial; none when the search is over.
    pub fn next_trial(&self) -> Option<Trial> {
        if self.trials >= TRIALS_MAX {
            return None;
        }
        let rate_per_s = self.repeat.or_else(|| self.next_rate())?;
        Some(Trial { rate_per_s, length: self.length })
    }

    fn next_rate(&self) -> Option<f64> {
        let Bounds { held, not_held } = self.bounds;
        let step = 1.0 + self.precision * self.stride;
        let rate = match (held, not_held, self.length) {
            (None, None, Length::Short) => self.start_per_s,
            (None, None, Length::Long) => self.estimate,
            (Some(low), None, _) if low >= self.rate_per_s_max => return None,
            (Some(low), None, Length::Short) => low * 2.0,
            (Some(low), None, Length::Long) => low * step,
            (None, Some((high, _)), _) if high <= self.start_per_s * FLOOR => return None,
            (None, Some((high, _)), Length::Short) => high / 2.0,
            (None, Some((high, _)), Length::Long) => high / step,
            (Some(low), Some((high, _)), _) if self.is_close(low, high) => return None,
            (Some(low), Some((high, _)), _) => (low * high).sqrt(),
        };
        Some(legible(rate).min(self.rate_per_s_max))
    }

    fn is_close(&self, low: f64, high: f64) -> bool {
        // Rates are legible, so that a step of one precision may come out a little longer.
        high <= low * (1.0 + self.precision) * (1.0 + 1e-4)
    }

    /// Learns what came of the trial that [`Search::next_trial`] named.
    pub fn learn(&mut self, trial: Trial, outcome: Outcome) {
        self.trials += 1;
        let rate = trial.rate_per_s;
        if outcome == Outcome::Unknown && self.repeats < self.length.repeats_max() {
            (self.repeat, self.repeats) = (Some(rate), self.repeats + 1);
            return;
        }
        (self.repeat, self.repeats) = (None, 0);
        match outcome {
            Outcome::Held => self.bounds.held = Some(rate),
            Outcome::Failed | Outcome::Unknown => self.bounds.not_held = Some((rate, outcome)),
        }
        match self.length {
            Length::Long => self.stride *= 2.0,
            Length::Short if self.next_rate().is_none() => self.begin_to_confirm(),
            Length::Short => {}
        }
    }

    /// Forgets the short trials but for what they point to.
    fn begin_to_confirm(&mut self) {
        if let Some(held) = self.bounds.held {
            (self.length, self.estimate, self.bounds) = (Length::Long, held, Bounds::default());
        }
    }

    /// Trials made so far.
    pub fn trials(&self) -> u32 {
        self.trials
    }

    /// What is known so far by trials of the longest kind made.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Whether the result is confirmed: by long trials, as closely as was asked for, or at the highest rate allowed.
    pub fn is_confirmed(&self) -> bool {
        match (self.length, self.bounds) {
            (Length::Short, _) => false,
            (Length::Long, Bounds { held: Some(low), not_held: Some((high, _)) }) => self.is_close(low, high),
            (Length::Long, Bounds { held: Some(low), not_held: None }) => low >= self.rate_per_s_max,
            (Length::Long, Bounds { held: None, .. }) => false,
        }
    }
}

/// A rate with five significant digits, which a person can repeat.
fn legible(rate: f64) -> f64 {
    let digits = 4 - rate.log10().floor() as i32;
    // A power of ten below one is no number that a machine has; dividing by its inverse rounds to the nearest one.
    match digits {
        0.. => (rate * 10f64.powi(digits)).round() / 10f64.powi(digits),
        ..0 => (rate / 10f64.powi(-digits)).round() * 10f64.powi(-digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    const MAX: f64 = 1e8;

    /// Searches a target of which `outcome` tells what becomes of a trial; gives the rates that were tried, too.
    fn search(start: f64, precision: f64, mut outcome: impl FnMut(Trial) -> Outcome) -> (Search, Vec<Trial>) {
        let mut search = Search::new(start, MAX, precision);
        let mut trials = Vec::new();
        while let Some(trial) = search.next_trial() {
            assert!(trials.len() < TRIALS_MAX as usize, "the search does not come to its end");
            search.learn(trial, outcome(trial));
            trials.push(trial);
        }
        (search, trials)
    }

    fn step(capacity: f64) -> impl FnMut(Trial) -> Outcome {
        move |trial| if trial.rate_per_s <= capacity { Outcome::Held } else { Outcome::Failed }
    }

    #[test]
    fn doubles_bisects_and_confirms() {
        let (search, trials) = search(500.0, 0.1, step(2_000.0));
        let shown: Vec<(f64, bool)> = trials.iter().map(|t| (t.rate_per_s, t.length == Length::Long)).collect();
        let expected = [
            (500.0, false),
            (1_000.0, false),
            (2_000.0, false),
            (4_000.0, false),
            (2_828.4, false),
            (2_378.4, false),
            (2_181.0, false),
            (2_000.0, true),
            (2_200.0, true),
        ];
        assert_eq!(shown, expected);
        assert_eq!(search.bounds(), Bounds { held: Some(2_000.0), not_held: Some((2_200.0, Outcome::Failed)) });
        assert!(search.is_confirmed());
    }

    #[test]
    fn any_capacity_is_found_within_the_precision_from_any_start() {
        for capacity in [0.37, 1.0, 99.9, 2_000.0, 123_456.7, 4e6] {
            for start in [0.5, 100.0, 70_000.0] {
                for precision in [0.002, 0.01, 0.2] {
                    if capacity < start * FLOOR * 2.0 {
                        continue;
                    }
                    let (search, trials) = search(start, precision, step(capacity));
                    let held = search.bounds().held.unwrap();
                    let case = format!("{capacity} from {start} at {precision}: {held} after {}", trials.len());
                    assert!(search.is_confirmed(), "{case}");
                    assert!(held <= capacity && held >= capacity / (1.0 + precision) * 0.9998, "{case}");
                    assert!(trials.len() <= 45, "{case}");
                }
            }
        }
    }

    #[test]
    fn short_trials_that_are_wrong_are_outvoted_by_long_ones() {
        for seed in 0..500 {
            let mut random = Pcg64::seed_from_u64(seed);
            let (search, trials) = search(100.0, 0.01, |trial| {
                let is_wrong = trial.length == Length::Short && random.random_bool(0.1);
                if (trial.rate_per_s <= 5_000.0) != is_wrong { Outcome::Held } else { Outcome::Failed }
            });
            let held = search.bounds().held.unwrap();
            assert!(search.is_confirmed() && (4_949.0..=5_000.0).contains(&held), "seed {seed}: {held}, {trials:?}");
        }
    }

    #[test]
    fn a_target_that_holds_a_rate_for_a_short_time_only_is_found_out() {
        let (search, trials) = search(100.0, 0.01, |trial| {
            let capacity = if trial.length == Length::Short { 5_000.0 } else { 3_500.0 };
            step(capacity)(trial)
        });
        let held = search.bounds().held.unwrap();
        assert!((3_464.0..=3_500.0).contains(&held), "{held}");
        let long = trials.iter().filter(|trial| trial.length == Length::Long).count();
        assert!(long <= 14, "{long} long trials");
    }

    #[test]
    fn where_the_generator_gives_up_the_target_is_not_said_to_have_failed() {
        let (search, trials) =
            search(100.0, 0.01, |trial| if trial.rate_per_s <= 3_000.0 { Outcome::Held } else { Outcome::Unknown });
        let Bounds { held: Some(held), not_held: Some((above, Outcome::Unknown)) } = search.bounds() else {
            panic!("{search:?}")
        };
        assert!((2_970.0..=3_000.0).contains(&held) && above > 3_000.0);
        let at_3200: Vec<_> = trials.iter().filter(|trial| trial.rate_per_s == 3_200.0).collect();
        assert_eq!(at_3200.len(), 2, "an unknown outcome is looked at twice");
        let of_result = trials.iter().filter(|trial| trial.rate_per_s == above && trial.length == Length::Long);
        assert_eq!(of_result.count(), 4, "and four times where the result rests on it");
    }

    #[test]
    fn hiccups_of_the_generator_cost_trials_and_no_truth() {
        for every in [7, 2] {
            let mut made = 0;
            let (search, _) = search(100.0, 0.01, |trial| {
                made += 1;
                if made % every == 0 { Outcome::Unknown } else { step(1_500.0)(trial) }
            });
            assert!(search.is_confirmed() && matches!(search.bounds().not_held, Some((_, Outcome::Failed))));
        }
    }

    #[test]
    fn a_target_that_holds_nothing_or_everything_ends_the_search() {
        let (nothing, trials) = search(100.0, 0.01, |_| Outcome::Failed);
        assert_eq!((nothing.bounds().held, nothing.is_confirmed()), (None, false));
        assert!(trials.len() <= 14);
        let mut everything = Search::new(100.0, 1_000.0, 0.01);
        while let Some(trial) = everything.next_trial() {
            assert!(trial.rate_per_s <= 1_000.0);
            everything.learn(trial, Outcome::Held);
        }
        assert_eq!((everything.bounds().held, everything.is_confirmed()), (Some(1_000.0), true));
    }

    #[test]
    fn rates_are_legible() {
        for (rate, shown) in [(1_414.213_562, "1414.2"), (0.012_345_678, "0.012346"), (98_765_432.1, "98765000")] {
            assert_eq!(legible(rate).to_string(), shown);
        }
    }
}
