//! Rounds of a test that differ by their seed, and what is drawn from one.

/// Rounds of each test, unless `TIMECOP_FAULT_ROUNDS` says otherwise.
const ROUNDS: u64 = 5;

/// Runs `round` once for each seed and says, when one fails, with which.
pub fn rounds(round: impl Fn(Draws)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let one = number("TIMECOP_FAULT_SEED");
    let seeds = one.map_or(1..=number("TIMECOP_FAULT_ROUNDS").unwrap_or(ROUNDS), |seed| seed..=seed);
    for seed in seeds {
        let shown = ShownOnPanic(seed);
        round(Draws(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        drop(shown);
    }
}

struct ShownOnPanic(u64);

impl Drop for ShownOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TIMECOP_FAULT_SEED={} repeats this round", self.0);
        }
    }
}

/// Numbers that a seed determines (SplitMix64).
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// One of `range`.
    pub fn of(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (z ^ (z >> 31)) % (range.end - range.start)
    }
}
