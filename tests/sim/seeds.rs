//! Many seeds on all cores, and the command that replays the one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Runs `one` for `share` of all seeds: 20,000 unless `TIMECOP_SIM_SEEDS` says otherwise, or for the one that
/// `TIMECOP_SIM_SEED` names. `test` is the test's name.
pub fn for_each_seed(test: &str, share: f64, one: impl Fn(u64) + Sync) {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("expected a whole number in {name}, got {text:?}")))
    };
    if let Some(seed) = number("TIMECOP_SIM_SEED") {
        return one(seed);
    }
    let seeds = (number("TIMECOP_SIM_SEEDS").unwrap_or(20_000) as f64 * share).ceil() as u64;
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| one(seed))).is_err() && !failed.swap(true, Ordering::Relaxed) {
                eprintln!("seed {seed} failed; to replay it: TIMECOP_SIM_SEED={seed} cargo test --test sim {test}");
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    assert!(!failed.into_inner(), "a seed failed, see above");
}
