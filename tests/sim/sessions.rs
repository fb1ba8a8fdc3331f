//! Whole jobs by seeds.

use crate::scenario::{Scenario, Weather, fingerprint};
use crate::seeds::for_each_seed;

/// Runs one seed, and now and then a second time: without deltas in between the totals must be the same.
fn run(kind: Weather, seed: u64) {
    let scenario = Scenario::new(kind, seed);
    let outcome = scenario.run(true);
    scenario.check(&outcome);
    if seed.is_multiple_of(10) {
        let again = scenario.run(false);
        for (first, second) in fingerprint(&outcome).iter().zip(&fingerprint(&again)) {
            assert_eq!(first, second, "the same seed, another run");
        }
    }
}

#[test]
fn in_a_kind_world_everything_arrives_once_and_is_counted() {
    for_each_seed("in_a_kind_world", 0.3, |seed| run(Weather::Kind, seed));
}

#[test]
fn in_a_faulty_world_every_message_has_one_outcome() {
    for_each_seed("in_a_faulty_world", 0.4, |seed| run(Weather::Faulty, seed));
}

#[test]
fn against_a_hostile_server_every_job_ends() {
    for_each_seed("against_a_hostile_server", 0.3, |seed| run(Weather::Hostile, seed));
}
