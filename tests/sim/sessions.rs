//! Whole jobs by seeds.

use std::collections::BTreeSet;

use timecop::job::spec::{ConnectionType, LoadModel};
use timecop::phase::Phase;

use crate::scenario::{Scenario, Weather, fingerprint};
use crate::seeds::for_each_seed;

/// Runs one seed, and now and then a second time, without deltas in between: the same must happen, event by event and octet
/// by octet, and the totals must be the same.
fn run(kind: Weather, seed: u64) {
    let scenario = Scenario::new(kind, seed);
    let outcome = scenario.run(true);
    scenario.check(&outcome);
    if seed.is_multiple_of(10) {
        let again = scenario.run(scenario.may_be_given_up());
        let (first, second) = (fingerprint(&outcome), fingerprint(&again));
        if let Some(at) = first.iter().zip(&second).position(|(first, second)| first != second) {
            panic!("the same seed, another run: {:?} and {:?}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "the same seed, a run that ends later");
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

/// What only happens if the scenarios try it: a simulation in which nothing goes wrong finds nothing.
#[test]
fn the_seeds_break_every_phase_and_reach_every_end() {
    let mut errors = BTreeSet::new();
    let (mut cut, mut missed, mut warm, mut staged, mut secured, mut by_http) = (0, 0, 0, 0, 0, 0);
    let (mut given_up, mut stopped, mut storms, mut short_writes, mut full) = (0, 0, 0, 0, 0);
    let (mut granted, mut refused, mut audited) = (0, 0, 0);
    for seed in 0..1_500 {
        let scenario = Scenario::new(Weather::Faulty, seed);
        let outcome = scenario.run(true);
        let totals = &outcome.totals;
        errors.extend(totals.errors.iter().map(|error| (error.kind.to_string(), error.phase)));
        cut += totals.messages.cut;
        missed += totals.messages.missed;
        warm += totals.warmup.accepted;
        full += totals.tls.iter().map(|kind| kind.full).sum::<u64>();
        given_up += u32::from(outcome.aborted.is_some());
        stopped += u32::from(outcome.stopped);
        storms += outcome.storms;
        short_writes += outcome.short_writes;
        staged += u32::from(matches!(scenario.spec().load, LoadModel::Staged { .. }));
        secured += u32::from(scenario.spec().target.connection != ConnectionType::Plain);
        by_http += u32::from(scenario.spec().http.is_some());
        granted += totals.auth.iter().map(|kind| kind.granted).sum::<u64>();
        refused += totals.auth.iter().map(|kind| kind.tried - kind.granted).sum::<u64>();
        audited += u32::from(scenario.spec().audit);
    }
    let counts = [
        ("cut", cut),
        ("missed", missed),
        ("warm-up", warm),
        ("in stages", staged.into()),
        ("with TLS", secured.into()),
        ("handshakes", full),
        ("by HTTP", by_http.into()),
        ("logged in", granted),
        ("not let in", refused),
        ("audited", audited.into()),
        ("given up", given_up.into()),
        ("stopped", stopped.into()),
        ("421 in a storm", storms),
        ("short writes", short_writes),
    ];
    for (what, count) in counts {
        assert!(count >= 20, "too few of {what}: {counts:?}");
    }
    use Phase::*;
    let broken = [Banner, Ehlo, StartTls, Tls, Auth, Mail, Rcpt, Data, Final, FirstByte, Rset, Idle];
    for phase in broken {
        assert!(errors.contains(&("reset".to_owned(), phase)), "no reset in {phase:?}: {errors:?}");
    }
    for phase in [Connect, Banner, Ehlo, StartTls, Tls, Auth, Mail, Rcpt, Data, Final, FirstByte] {
        assert!(errors.contains(&("timeout".to_owned(), phase)), "no time-out in {phase:?}: {errors:?}");
    }
    for (kind, phase) in [("certificate", Tls), ("tls", Final), ("tls", Mail), ("refused", Connect), ("ports", Connect)]
    {
        assert!(errors.contains(&(kind.to_owned(), phase)), "no {kind} in {phase:?}: {errors:?}");
    }
}
