//! A warm-up is left out of all figures, and changes nothing of the run.

use timecop::load::warmup::Warmup;
use timecop::measure::recorder::MessageCounts;

use crate::scenario::{Outcome, Scenario, Weather};

/// What a run looks like from outside, whatever was counted where.
fn outside(outcome: &Outcome) -> (MessageCounts, u32, u64) {
    let mut all = outcome.totals.messages;
    all.add(&outcome.totals.warmup);
    (all, outcome.turns, outcome.totals.connections.opened)
}

#[test]
fn the_warm_up_and_the_rest_make_up_the_same_run_without_one() {
    let mut warm_and_rest = 0;
    for weather in [Weather::Kind, Weather::Faulty, Weather::Hostile] {
        for seed in 0..200 {
            let cold = Scenario::new(weather, seed).with_warmup(None).run(false);
            for warmup in ["2ms", "25ms", "7", "1000000"] {
                let warmup: Warmup = warmup.parse().expect("the warm-up is valid");
                let scenario = Scenario::new(weather, seed).with_warmup(Some(warmup));
                let warm = scenario.run(false);
                scenario.check(&warm);
                assert_eq!(outside(&warm), outside(&cold), "{weather:?}, seed {seed}, {warmup:?}");
                let (ours, apart) = (warm.totals.messages.taken, warm.totals.warmup.taken);
                warm_and_rest += u32::from(ours > 0 && apart > 0);
                if let Warmup::Messages(most) = warmup {
                    assert!(apart + warm.totals.warmup.missed <= most, "{weather:?}, seed {seed}");
                }
            }
        }
    }
    assert!(warm_and_rest > 250, "only {warm_and_rest} runs have both parts");
}
