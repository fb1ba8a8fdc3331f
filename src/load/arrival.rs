//! When the messages of an open loop are due: the two schedules, each computed without end and without drift.

use std::fmt;

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

use super::stages::StagedSchedule;
use crate::time::Instant;

/// Highest rate of a job, in messages a second: ten times what a machine can be made to send.
pub const RATE_PER_S_MAX: f64 = 1e8;

const NS_PER_S: u128 = 1_000_000_000;

/// How due times follow each other at a given mean rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// All gaps are equal.
    Constant,
    /// A Poisson process: gaps are exponential and independent, as when many senders do not know of each other.
    Poisson,
}

impl Arrival {
    /// All of them.
    pub const ALL: [Arrival; 2] = [Arrival::Constant, Arrival::Poisson];

    /// The name in requests and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Arrival::Constant => "constant",
            Arrival::Poisson => "poisson",
        }
    }
}

/// A rate of messages a second, above zero and at most [`RATE_PER_S_MAX`].
#[derive(Clone, Copy, PartialEq)]
pub struct Rate(f64);

/// A number that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "expected a rate above 0 and up to {RATE_PER_S_MAX} messages a second, got {0}; leave the rate out to send as fast as the target answers"
)]
pub struct RateError(f64);

impl Rate {
    /// `rate` messages a second.
    ///
    /// # Errors
    ///
    /// When it is not finite, not above zero, or above [`RATE_PER_S_MAX`].
    pub fn per_second(rate: f64) -> Result<Rate, RateError> {
        if rate.is_finite() && rate > 0.0 && rate <= RATE_PER_S_MAX { Ok(Rate(rate)) } else { Err(RateError(rate)) }
    }

    /// Messages a second.
    pub fn as_per_second(self) -> f64 {
        self.0
    }

    /// The gap between two messages as a fraction of nanoseconds: (numerator, denominator).
    ///
    /// The rate is taken as the shortest decimal number that stands for it, which is what a person wrote: 0.1 means one
    /// message every 10 s exactly, though the nearest `f64` lies a little beside it.
    fn gap_ns(self) -> (u128, u64) {
        let decimal = self.0.to_string();
        let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
        // At most 17 significant digits, so the denominator fits. The numerator may not, at less than a message in
        // 10^20 s: saturated, it still puts every message but the first beyond all time.
        let digits = format!("{whole}{fraction}");
        let denominator = digits.trim_start_matches('0').parse().expect("17 decimal digits at most fit into 64 bits");
        let numerator = fraction.bytes().fold(NS_PER_S, |ns, _| ns.saturating_mul(10));
        (numerator, denominator)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per s", self.0)
    }
}

/// The shard's part of a constant schedule: message i of the job is due floor(i / rate) ns after the start, and shard k
/// of n has the messages i ≡ k (mod n).
///
/// Steps are added as whole nanoseconds and an integer remainder, so that the 10^9th due time is as exact as the first
/// and none takes a division.
#[derive(Clone, Debug)]
pub(super) struct ConstantSchedule {
    start: Instant,
    gap_numerator: u128,
    gap_denominator: u64,
    step_whole: u64,
    step_remainder: u64,
    due: Instant,
    remainder: u64,
}

impl ConstantSchedule {
    pub(super) fn new(rate: Rate, start: Instant, shard: u32, shards: u32) -> ConstantSchedule {
        let (gap_numerator, gap_denominator) = rate.gap_ns();
        let (offset, remainder) = times_fraction(u64::from(shard), gap_numerator, gap_denominator);
        let (step_whole, step_remainder) = times_fraction(u64::from(shards), gap_numerator, gap_denominator);
        let due = Instant::from_ns(start.as_ns().saturating_add(offset));
        ConstantSchedule { start, gap_numerator, gap_denominator, step_whole, step_remainder, due, remainder }
    }

    #[inline]
    fn advance(&mut self) {
        let remainder = self.remainder + self.step_remainder;
        let carry = u64::from(remainder >= self.gap_denominator);
        self.remainder = remainder - carry * self.gap_denominator;
        self.due = Instant::from_ns(self.due.as_ns().saturating_add(self.step_whole).saturating_add(carry));
    }

    /// How many messages of the whole job are due before `horizon`.
    fn due_before(&self, horizon: Instant) -> u64 {
        // floor(i × gap) < span exactly when i < span / gap.
        let span = u128::from(horizon.ns_since(self.start)) * u128::from(self.gap_denominator);
        u64::try_from(span.div_ceil(self.gap_numerator)).unwrap_or(u64::MAX)
    }
}

/// `count` × `numerator` / `denominator`, as whole and remainder; saturates at the end of time.
fn times_fraction(count: u64, numerator: u128, denominator: u64) -> (u64, u64) {
    let Some(product) = u128::from(count).checked_mul(numerator) else {
        return (u64::MAX, 0);
    };
    let (whole, remainder) = (product / u128::from(denominator), product % u128::from(denominator));
    // The remainder is below the denominator, which has 64 bits.
    u64::try_from(whole).map_or((u64::MAX, 0), |whole| (whole, remainder as u64))
}

/// One shard's own Poisson process. Independent processes of rate / n add up to one of the whole rate.
///
/// Gaps come by inversion, -ln(u) / rate with u uniform in (0, 1] at 53 bits: one draw a gap, so the schedule depends
/// on nothing but the generator's published algorithm (PCG XSL RR 128/64) and the machine's logarithm.
#[derive(Clone, Debug)]
pub(super) struct PoissonSchedule {
    rng: Pcg64,
    gap_mean_ns: f64,
    due: Instant,
    /// What the due time lacks of the true one, in [0, 1) ns. Kept apart, so that a run of weeks adds gaps as exactly
    /// as its first second does.
    fraction_ns: f64,
}

impl PoissonSchedule {
    pub(super) fn new(rate: Rate, start: Instant, seed: u64, shard: u32, shards: u32) -> PoissonSchedule {
        let mut schedule = PoissonSchedule {
            rng: Pcg64::seed_from_u64(mix(seed ^ mix(u64::from(shard)))),
            gap_mean_ns: NS_PER_S as f64 * f64::from(shards) / rate.as_per_second(),
            due: start,
            fraction_ns: 0.0,
        };
        schedule.advance();
        schedule
    }

    #[inline]
    fn advance(&mut self) {
        let gap_ns = exponential(&mut self.rng) * self.gap_mean_ns + self.fraction_ns;
        // The cast saturates, and a gap is never negative: due times do not go backwards.
        let whole = gap_ns as u64;
        self.fraction_ns = gap_ns - whole as f64;
        self.due = Instant::from_ns(self.due.as_ns().saturating_add(whole));
    }
}

/// An exponentially distributed number with mean 1.
#[inline]
pub(super) fn exponential(rng: &mut Pcg64) -> f64 {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 * UNIT;
    -uniform.ln()
}

/// SplitMix64's finalizer (Steele, Lea and Flood, 2014): neighbouring seeds and shards get unrelated generators.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The due times of one shard, one after the other.
#[derive(Clone, Debug)]
pub(super) enum Schedule {
    Constant(ConstantSchedule),
    Poisson(PoissonSchedule),
    Staged(StagedSchedule),
}

impl Schedule {
    /// The due time of the message that comes next.
    #[inline]
    pub(super) fn due(&self) -> Instant {
        match self {
            Schedule::Constant(constant) => constant.due,
            Schedule::Poisson(poisson) => poisson.due,
            Schedule::Staged(staged) => staged.due,
        }
    }

    /// Goes on to the shard's next message.
    #[inline]
    pub(super) fn advance(&mut self) {
        match self {
            Schedule::Constant(constant) => constant.advance(),
            Schedule::Poisson(poisson) => poisson.advance(),
            Schedule::Staged(staged) => staged.advance(),
        }
    }

    /// How many of the shard's messages, of which the next has the number `next` and the others follow by steps of
    /// `step` up to `end`, are due before `horizon`, and whether that were all. Of a schedule that is not constant it
    /// goes past at most `most` of them.
    pub(super) fn count_before(&mut self, horizon: Instant, next: u64, step: u64, end: u64, most: u64) -> (u64, bool) {
        let mine = |end: u64| end.saturating_sub(next).div_ceil(step);
        if let Schedule::Constant(constant) = self {
            return (mine(end.min(constant.due_before(horizon))), true);
        }
        let left = mine(end);
        let mut count = 0;
        while count < left.min(most) && self.due() < horizon {
            count += 1;
            self.advance();
        }
        (count, count >= left || self.due() >= horizon)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn rate(per_s: f64) -> Rate {
        Rate::per_second(per_s).unwrap()
    }

    #[test]
    fn a_rate_is_finite_positive_and_bounded() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1.1e8] {
            let error = Rate::per_second(bad).unwrap_err();
            assert!(error.to_string().contains(&format!("got {bad}")), "{error}");
        }
        for good in [f64::MIN_POSITIVE, 0.1, RATE_PER_S_MAX] {
            assert_eq!(Rate::per_second(good).unwrap().as_per_second(), good);
        }
    }

    #[test]
    fn a_rate_means_the_decimal_that_was_written() {
        assert_eq!(rate(0.1).gap_ns(), (10_000_000_000, 1));
        assert_eq!(rate(3.0).gap_ns(), (1_000_000_000, 3));
        assert_eq!(rate(1234.5678).gap_ns(), (10_000_000_000_000, 12_345_678));
        assert_eq!(rate(1e8).gap_ns(), (1_000_000_000, 100_000_000));
        assert_eq!(rate(f64::MIN_POSITIVE).gap_ns().0, u128::MAX);
    }

    #[test]
    fn constant_due_times_are_exact_over_ten_million_messages() {
        let start = Instant::from_ns(77);
        // (messages a second, the same as nanoseconds a number of messages)
        let awkward = [(3.0, 1_000_000_000, 3), (7919.0, 1_000_000_000, 7919), (0.1, 10_000_000_000, 1)];
        for (per_s, numerator, denominator) in awkward {
            let mut schedule = ConstantSchedule::new(rate(per_s), start, 0, 1);
            for i in 0..10_000_000u128 {
                assert_eq!(
                    u128::from(schedule.due.as_ns()),
                    77 + i * numerator / denominator,
                    "message {i} at {per_s}/s"
                );
                schedule.advance();
            }
        }
    }

    #[test]
    fn a_constant_schedule_does_not_drift_after_billions_of_messages() {
        // One shard in a thousand: its 10^7th message is the job's 10^10th.
        let mut schedule = ConstantSchedule::new(rate(98765.4321), Instant::ZERO, 1, 1_000);
        for _ in 0..10_000_000 {
            schedule.advance();
        }
        let exact = 10_000_000_001u128 * 10_000_000_000_000 / 987_654_321;
        assert_eq!(u128::from(schedule.due.as_ns()), exact);
    }

    #[test]
    fn a_rate_below_all_time_has_its_first_message_only() {
        let mut schedule = ConstantSchedule::new(rate(1e-300), Instant::from_ns(5), 0, 1);
        assert_eq!(schedule.due, Instant::from_ns(5));
        schedule.advance();
        assert_eq!(schedule.due, Instant::NEVER);
        schedule.advance();
        assert_eq!(schedule.due, Instant::NEVER);
    }

    fn poisson_gaps_ns(per_s: f64, seed: u64, count: usize) -> Vec<u64> {
        let mut schedule = PoissonSchedule::new(rate(per_s), Instant::ZERO, seed, 0, 1);
        let mut last = Instant::ZERO;
        let gap = |_| {
            let gap = schedule.due.ns_since(last);
            last = schedule.due;
            schedule.advance();
            gap
        };
        (0..count).map(gap).collect()
    }

    /// A² of Anderson and Darling against the exponential distribution with the given mean (nothing estimated).
    pub(in super::super) fn anderson_darling(gaps_ns: &[u64], mean_ns: f64) -> f64 {
        let mut x: Vec<f64> = gaps_ns.iter().map(|&gap| (gap as f64 / mean_ns).max(1e-12)).collect();
        x.sort_unstable_by(f64::total_cmp);
        let n = x.len();
        // ln F(x) = ln(1 - e^-x), and ln(1 - F(x)) = -x.
        let term = |i: usize| (2 * i + 1) as f64 * ((-(-x[i]).exp_m1()).ln() - x[n - 1 - i]);
        -(n as f64) - (0..n).map(term).sum::<f64>() / n as f64
    }

    /// Critical value at 5 % for a fully specified distribution (D'Agostino and Stephens, 1986, table 4.2).
    pub(in super::super) const A2_CRITICAL: f64 = 2.492;

    #[test]
    fn poisson_gaps_pass_the_anderson_darling_test() {
        let thinned: Vec<u64> = poisson_gaps_ns(1_000.0, 1, 400_000).into_iter().step_by(100).collect();
        let a2 = anderson_darling(&thinned, 1e6);
        assert!(a2 < A2_CRITICAL, "A² = {a2}");

        // True exponential gaps are rejected in 5 % of samples. Seeds are not picked: all of them together must be
        // rejected about as often. More than 12 of 100 has a chance of 0.15 %.
        let rejected = |seed: &u64| {
            let thinned: Vec<u64> = poisson_gaps_ns(50_000.0, *seed, 100_000).into_iter().step_by(25).collect();
            anderson_darling(&thinned, 20_000.0) > A2_CRITICAL
        };
        let rejections = (0..100).filter(rejected).count();
        assert!(rejections <= 12, "{rejections} of 100 samples rejected");
    }

    #[test]
    fn the_anderson_darling_test_rejects_what_is_not_exponential() {
        let constant = vec![1_000_000; 4_000];
        assert!(anderson_darling(&constant, 1e6) > 100.0 * A2_CRITICAL);
        // A mean that is 10 % off is seen as well.
        let slow: Vec<u64> = poisson_gaps_ns(900.0, 1, 400_000).into_iter().step_by(100).collect();
        assert!(anderson_darling(&slow, 1e6) > A2_CRITICAL);
    }

    #[test]
    fn poisson_keeps_the_mean_rate() {
        for per_s in [0.5, 1_000.0, 1e7, 1e8] {
            let total: u64 = poisson_gaps_ns(per_s, 7, 1_000_000).iter().sum();
            let ratio = total as f64 * per_s / 1e9 / 1e6;
            assert!((ratio - 1.0).abs() < 0.004, "mean gap is {ratio} of the asked one at {per_s}/s");
        }
    }

    #[test]
    fn poisson_loses_no_precision_after_months() {
        let seed = 11;
        let early = PoissonSchedule::new(rate(1e8), Instant::ZERO, seed, 0, 1);
        let months = Instant::from_ns(10_000_000_000_000_000);
        let late = PoissonSchedule::new(rate(1e8), months, seed, 0, 1);
        let (mut early, mut late) = (early, late);
        for _ in 0..100_000 {
            assert_eq!(early.due.as_ns(), late.due.ns_since(months));
            early.advance();
            late.advance();
        }
    }

    #[test]
    fn shards_and_seeds_have_processes_of_their_own() {
        let first = |seed, shard| PoissonSchedule::new(rate(1.0), Instant::ZERO, seed, shard, 2).due;
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
        assert_ne!(first(0, 1), first(1, 0));
    }
}
