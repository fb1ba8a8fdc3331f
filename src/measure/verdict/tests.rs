//! The rules, one by one.

use super::*;
use crate::measure::recorder::ErrorKind;
use crate::measure::report::StandstillReport;
use crate::measure::samples::{self, Run as Sample};
use crate::measure::stamps::{TimedBy, Writes};
use crate::phase::Phase;

fn rules(report: &Report) -> Vec<(Rule, Severity)> {
    Verdict::of(report).reasons.iter().map(|reason| (reason.rule, reason.severity)).collect()
}

#[test]
fn a_run_in_which_all_is_well_is_valid() {
    for report in [samples::open(5_000, 1_000.0), samples::closed(20_000, 10)] {
        assert_eq!(Verdict::of(&report), Verdict { result: Validity::Valid, reasons: Vec::new() });
    }
}

#[test]
fn a_short_run_is_valid_and_says_what_it_cannot() {
    for report in [samples::open(1_000, 5_000.0), samples::closed(1_000, 100), samples::closed(10, 10)] {
        let verdict = Verdict::of(&report);
        assert_eq!(verdict.result, Validity::Valid, "{verdict:?}");
        assert_eq!(rules(&report), [(Rule::FewSamples, Severity::Note)]);
    }
    let text = &Verdict::of(&samples::open(1_000, 5_000.0)).reasons[0].text;
    assert!(text.contains("(1,000)") && text.contains("p99.9") && text.contains("3,688"), "{text}");
}

#[test]
fn a_run_of_which_nothing_was_accepted_is_invalid() {
    let refused = |rejected| Sample { rejected, ..Sample::closed(5_000, 10) }.report();
    let verdict = Verdict::of(&refused(5_000));
    assert_eq!((verdict.result, verdict.reasons[0].rule), (Validity::Invalid, Rule::NoneAccepted), "{verdict:?}");
    assert_eq!(Verdict::of(&refused(2_500)).result, Validity::Valid, "a server that refuses some can be measured");
}

#[test]
fn connections_that_go_up_and_down_are_not_all_there_all_the_time() {
    let mut report = samples::closed(20_000, 10);
    report.connections.asked = 100;
    report.connections.held_max = 96;
    assert!(rules(&report).contains(&(Rule::Connections, Severity::Suspect)));
    report.spec["stages"] = serde_json::json!([{ "duration_s": 1.0, "connections": 100 }]);
    assert_eq!(rules(&report), []);
    report.connections.held_max = 94;
    assert_eq!(rules(&report), [(Rule::Connections, Severity::Suspect)]);
}

#[test]
fn an_open_loop_that_offers_less_than_asked_is_invalid() {
    // By number: it takes longer than the schedule.
    let slow = |behind_s: f64| {
        let mut report = samples::open(10_000, 1_000.0);
        // One message took its time: that is no part of the offering, and hides nothing of it.
        report.latency_s.accepted.service.max = 8.0;
        report.elapsed_s += 8.0;
        report.behind_s = behind_s;
        report
    };
    assert_eq!(rules(&slow(0.05)), []);
    let verdict = Verdict::of(&slow(0.51));
    assert_eq!((verdict.result, verdict.reasons[0].rule), (Validity::Invalid, Rule::Rate));
    assert!(verdict.reasons[0].text.starts_with("95.2 % of the 1,000 messages"), "{verdict:?}");
    // By time: what fell due did not leave.
    let missed = |missed: u64| {
        let mut report = samples::open(10_000, 1_000.0);
        report.spec["messages"] = Value::Null;
        report.messages.missed = missed;
        report
    };
    assert_eq!(rules(&missed(50)), [(Rule::Missed, Severity::Suspect)]);
    assert!(rules(&missed(200)).contains(&(Rule::Rate, Severity::Invalid)));
}

#[test]
fn one_late_message_at_the_end_of_a_short_run_is_no_rate() {
    let behind = |messages, behind_s, standstill_s| {
        let mut report = samples::open(messages, 1_000.0);
        report.behind_s = behind_s;
        report.generator.standstill.longest_s = standstill_s;
        rules(&report).contains(&(Rule::Rate, Severity::Invalid))
    };
    // 4, 20 and 100 ms, a second and ten: what may befall any message, up to a tenth of the run, and 1 % beyond it.
    for (messages, held, not_held) in [
        (4, 0.001, 0.001_1),
        (20, 0.002_2, 0.002_3),
        (100, 0.011, 0.011_1),
        (1_000, 0.02, 0.020_2),
        (10_000, 0.11, 0.112),
    ] {
        assert!(!behind(messages, held, 0.0), "{messages}: {held}");
        assert!(behind(messages, not_held, 0.0), "{messages}: {not_held}");
    }
    assert!(!behind(100, 0.003, 0.0));
    // A standstill at the end is told of as such, and what it does not explain is the rate.
    assert!(!behind(1_000, 0.2, 0.195) && behind(1_000, 0.22, 0.195));
}

#[test]
fn random_arrivals_are_no_reason_to_doubt_the_rate() {
    let mut report = samples::open(900, 1_000.0);
    report.load_model = "open poisson".into();
    report.elapsed_s *= 1.05;
    assert_eq!(rules(&report), [(Rule::FewSamples, Severity::Note)]);
    report.behind_s = 0.05;
    assert!(rules(&report).contains(&(Rule::Rate, Severity::Invalid)));
}

#[test]
fn late_messages_count_in_an_open_loop_alone() {
    let late = Sample { lateness_us: 1_500.0, ..Sample::open(5_000, 1_000.0) };
    assert_eq!(rules(&late.report()), [(Rule::Late, Severity::Suspect)]);
    let on_time = Sample { lateness_us: 900.0, ..late };
    assert_eq!(rules(&on_time.report()), []);
    let closed = Sample { lateness_us: 1_500.0, ..Sample::closed(5_000, 10) };
    assert_eq!(rules(&closed.report()), []);
}

#[test]
fn a_busy_generator_is_named_as_the_bottleneck() {
    let closed = Sample { busy: 0.96, ..Sample::closed(5_000, 10) }.report();
    let verdict = Verdict::of(&closed);
    assert_eq!(verdict.result, Validity::Suspect);
    assert!(verdict.reasons[0].text.contains("not what the target can take"), "{verdict:?}");
    let open = Sample { busy: 0.81, ..Sample::open(5_000, 1_000.0) }.report();
    assert_eq!(rules(&open), [(Rule::Busy, Severity::Suspect)]);
    assert_eq!(rules(&Sample { busy: 0.79, ..Sample::open(5_000, 1_000.0) }.report()), []);
}

#[test]
fn turns_are_held_against_the_times_that_they_blur() {
    let coarse = |turn_us| rules(&Sample { turn_us, ..Sample::open(5_000, 1_000.0) }.report());
    assert_eq!(coarse(90), []);
    assert_eq!(coarse(150), [(Rule::Turns, Severity::Suspect)]);
    // Stamps of the kernel's are no turn's, if writes are not either.
    for (singly, together, is_coarse) in [(1_000, 0, false), (1_000, 10, false), (1_000, 11, true), (0, 9, true)] {
        let mut report = Sample { turn_us: 150, ..Sample::open(5_000, 1_000.0) }.report();
        report.generator.stamps = TimedBy::Kernel;
        report.generator.writes = Writes { singly, together };
        assert_eq!(rules(&report).is_empty(), !is_coarse, "{singly} {together}");
    }
}

#[test]
fn in_closed_loop_lateness_is_the_generators_own_and_held_against_the_times_that_hold_it() {
    let late = |lateness_us, together| {
        let mut report = Sample { lateness_us, ..Sample::closed(5_000, 10) }.report();
        report.generator.stamps = TimedBy::Kernel;
        report.generator.writes = Writes { singly: 1_000, together };
        rules(&report)
    };
    // A message takes about a millisecond.
    assert_eq!(late(90.0, 0), []);
    assert_eq!(late(150.0, 0), [(Rule::Late, Severity::Suspect)]);
    assert_eq!(late(150.0, 1_000), [], "turns tell where times are coarse");
}

#[test]
fn a_generator_that_stood_still_is_no_clock() {
    let still = |longest_s: f64, sum_s: f64| {
        let mut report = samples::open(5_000, 1_000.0);
        report.generator.standstill = StandstillReport { count: 1, longest_s, sum_s };
        rules(&report)
    };
    // Of 5 s, in which a message took about a millisecond.
    assert_eq!((still(0.004, 0.004), still(0.000_1, 0.4)), (vec![], vec![]));
    assert_eq!(still(0.1, 0.1), [(Rule::Standstill, Severity::Suspect)]);
    // However long it was, the messages were sent and their times are true: it is the reader who must not blame the target.
    assert_eq!(still(0.1, 4.0), [(Rule::Standstill, Severity::Suspect)]);
}

#[test]
fn one_busy_shard_of_several_is_not_hidden_by_the_others() {
    let mut report = samples::open(5_000, 1_000.0);
    (report.generator.shards, report.generator.busy, report.generator.busy_max) = (2, 0.5, 0.95);
    let verdict = Verdict::of(&report);
    assert_eq!(rules(&report), [(Rule::Busy, Severity::Suspect)]);
    assert!(verdict.reasons[0].text.contains("the busiest of its shards was so for 95.0 %"), "{verdict:?}");
}

#[test]
fn littles_law_finds_connections_that_were_idle_and_times_that_cannot_be() {
    let with = |factor: f64| {
        let mut report = samples::closed(20_000, 10);
        report.elapsed_s *= factor;
        rules(&report)
    };
    assert_eq!((with(1.04), with(0.96)), (vec![], vec![]));
    assert_eq!(with(1.1), [(Rule::LittlesLaw, Severity::Suspect)]);
    assert_eq!(with(0.9), [(Rule::LittlesLaw, Severity::Suspect)]);
    // A stall in the drain is no contradiction.
    let mut stalled = samples::closed(20_000, 10);
    stalled.latency_s.accepted.response.mean *= 2.0;
    stalled.drain_s = stalled.elapsed_s;
    assert_eq!(rules(&stalled), []);
    // A connection a message: what opening and closing take is no part of a message's time.
    let mut reconnecting = samples::closed(20_000, 10);
    reconnecting.spec["messages_per_connection"] = 1.into();
    reconnecting.elapsed_s *= 1.2;
    assert_eq!(rules(&reconnecting), []);
}

#[test]
fn connections_count_where_the_run_needed_them() {
    let mut report = samples::closed(20_000, 10);
    report.connections.asked = 12;
    assert_eq!(rules(&report), [(Rule::Connections, Severity::Suspect)]);
    let mut few_messages = samples::closed(10, 10);
    few_messages.connections.asked = 100;
    assert!(rules(&few_messages).contains(&(Rule::Connections, Severity::Note)));
}

#[test]
fn circumstances_are_named() {
    let mut report = samples::open(5_000, 1_000.0);
    report.aborted = Some("it was stopped".into());
    report.messages.missed = 100;
    report.elapsed_s *= 0.98;
    report.messages.cut = 3;
    report.other_jobs = vec!["7".into(), "8".into()];
    report.spec["skip_verify"] = true.into();
    report.errors.push(ErrorKind {
        blame: Blame::Generator,
        kind: "ports".into(),
        phase: Phase::Connect,
        count: 4,
        example: String::new(),
    });
    assert_eq!(
        rules(&report),
        [
            (Rule::Aborted, Severity::Suspect),
            (Rule::Missed, Severity::Suspect),
            (Rule::Generator, Severity::Suspect),
            (Rule::OtherJobs, Severity::Suspect),
            (Rule::SkipVerify, Severity::Note),
        ]
    );
}

#[test]
fn a_target_that_is_not_there_makes_the_run_invalid() {
    let mut report = samples::nothing_accepted();
    report.judge();
    assert!(report.is_invalid());
    assert!(rules(&report).contains(&(Rule::Unanswered, Severity::Invalid)));
}

#[test]
fn every_rule_is_in_the_table_of_the_documentation() {
    let table = include_str!("../../../docs/verdict.md");
    for rule in Rule::ALL {
        let name = serde_json::to_value(rule).unwrap();
        assert!(table.contains(&format!("| `{}` |", name.as_str().unwrap())), "docs/verdict.md lacks {rule:?}");
    }
}

#[test]
fn a_target_that_died_is_not_mended_by_more_connections() {
    let mut report = Sample { rejected: 0, ..Sample::open(10_000, 1_000.0) }.report();
    report.behind_s = 8.0;
    report.aborted = Some("all connections were lost and none could be opened for 10 s".into());
    let rate = |report: &Report| {
        let reasons = Verdict::of(report).reasons;
        reasons.into_iter().find(|reason| reason.rule == Rule::Rate).unwrap().text
    };
    assert!(rate(&report).ends_with("were offered"), "{}", rate(&report));
    (report.messages.accepted, report.messages.failed) = (9_000, 1_000);
    assert!(rate(&report).contains("the errors say why"), "{}", rate(&report));
    (report.aborted, report.messages.failed) = (None, 0);
    assert!(rate(&report).contains("give it more connections"), "{}", rate(&report));
}
