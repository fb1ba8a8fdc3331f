//! What a report says of what was counted.

use super::*;
use crate::measure::recorder::{Blame, MessageTimes};
use crate::measure::samples::Run;
use crate::measure::threshold::{Metric, Threshold};

const SECOND: Duration = Duration::from_secs(1);

fn asked(messages: Option<u64>) -> Asked {
    Asked {
        load_model: "closed",
        target: String::new(),
        spec: serde_json::Value::Null,
        seed: 1,
        messages,
        sizes: Vec::new(),
        connections: 1,
        shards: 1,
        dialed: Instant::from_ns(1),
        start: Instant::from_ns(1),
        wall_start: WallTime::from_unix_ns(1_619_661_039_000_000_000),
        congestion: None,
        end: None,
        warmup: None,
    }
}

/// A second of `accepted` messages, of which the last is accepted at `last`.
fn totals(accepted: u64, in_drain: u64, stopped: Instant, last: Instant) -> Totals {
    let mut delta = Delta::new();
    let times = MessageTimes { due: Instant::from_ns(1), started: None, ended: last };
    (0..accepted).for_each(|_| delta.message(true, times));
    delta.messages.taken = accepted + 1;
    delta.messages.accepted = accepted;
    delta.messages.accepted_in_drain = in_drain;
    delta.effort.cpu_ns = 900_000_000;
    delta.effort.busy_ns = 500_000_000;
    delta.stopped = stopped;
    let mut totals = Totals::new(1);
    totals.add(0, 1, SECOND, &delta);
    totals.shard_finished(0);
    totals
}

#[test]
fn calendar_times_are_those_of_the_start_and_of_the_last_outcome() {
    let start = asked(None).start;
    let times = |totals: &Totals| {
        let report = Report::new(&asked(None), totals, start + SECOND * 2);
        (report.started_at.unwrap(), report.ended_at)
    };
    let mut ended = totals(1_000, 10, start + SECOND, start + SECOND * 11);
    ended.merged.last_outcome = start + SECOND * 11;
    let at = |text: &str| text.to_owned();
    let expected = (at("2021-04-29T01:50:39.000000Z"), Some(at("2021-04-29T01:50:50.000000Z")));
    assert_eq!(times(&ended), expected);
    assert_eq!(times(&Totals::new(1)), (expected.0, None), "it goes on");
}

#[test]
fn what_is_accepted_in_the_drain_does_not_count_towards_the_rate() {
    let start = asked(None).start;
    let report = Report::new(&asked(None), &totals(1_000, 10, start + SECOND, start + SECOND * 11), Instant::NEVER);
    assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (1.0, 10.0, 990.0));
    assert_eq!(report.generator.busy, 0.5);
}

#[test]
fn a_job_beside_others_is_told_how_busy_its_shard_was_and_pays_for_its_own_messages() {
    let start = asked(None).start;
    let mut totals = totals(1_000, 0, start + SECOND, start + SECOND);
    let effort = &mut totals.merged.effort;
    (effort.cpu_ns, effort.busy_ns, totals.merged.messages.sent) = (0, 0, 100);
    effort.charge(950_000_000, (100, 1_900), false);
    effort.charge(10_000_000, (0, 1), true);
    let report = Report::new(&asked(None), &totals, Instant::NEVER);
    assert_eq!((report.generator.busy, report.generator.cpu_us_per_message), (0.95, 500.0));
}

#[test]
fn a_run_by_number_lasts_until_its_last_outcome() {
    let start = asked(None).start;
    let report = Report::new(&asked(Some(1_001)), &totals(1_000, 0, Instant::ZERO, start + SECOND * 4), Instant::NEVER);
    assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (4.0, 0.0, 250.0));
}

#[test]
fn a_stall_at_the_end_does_not_raise_the_rate() {
    let start = asked(None).start;
    let report = Report::new(&asked(None), &totals(1_000, 0, start + SECOND * 5, start + SECOND), Instant::NEVER);
    assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (5.0, 0.0, 200.0));
}

#[test]
fn a_run_by_time_lasts_its_time_though_its_last_message_was_over_before() {
    let start = asked(None).start;
    let asked = Asked { end: Some(start + SECOND * 4), ..asked(None) };
    let report = Report::new(&asked, &totals(1_000, 0, Instant::ZERO, start + SECOND), Instant::NEVER);
    assert_eq!((report.elapsed_s, report.drain_s, report.rate_per_s), (4.0, 0.0, 250.0));
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    let mut report = Run { rejected: 10, ..Run::open(2_000, 1_000.0) }.report();
    report.errors.push(ErrorKind {
        blame: Blame::Peer,
        kind: "reset".into(),
        phase: Phase::Data,
        count: 1,
        example: "connection reset".into(),
    });
    report.other_jobs = vec!["7".into()];
    report.check(&[Threshold::parse("p99>1s").unwrap()]);
    report.judge();
    let text = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    // Fields may be absent that are there only at times, or were not always.
    let mut value = serde_json::to_value(&report).unwrap();
    let object = value.as_object_mut().unwrap();
    for field in ["other_jobs", "thresholds", "verdict"] {
        object.remove(field).unwrap();
    }
    for field in ["response_95", "service_95", "late"] {
        object["latency_s"].as_object_mut().unwrap().remove(field).unwrap();
    }
    let read: Report = serde_json::from_value(value).unwrap();
    assert!(read.verdict.is_none() && read.thresholds.is_empty() && read.aborted.is_none());
}

#[test]
fn messages_whose_shard_broke_down_were_cut() {
    let start = asked(None).start;
    let report = Report::new(&asked(Some(1_500)), &totals(1_000, 0, Instant::ZERO, start + SECOND), Instant::NEVER);
    let messages = report.messages;
    assert_eq!((messages.cut, messages.missed, messages.outcomes()), (1, 499, messages.asked));
}

/// A share of 20 messages a run of 100 asked for has begun; 17 of them were accepted in the second it reports of.
fn live(messages: Option<u64>) -> Report {
    let asked = asked(messages);
    let mut delta = Delta::new();
    (delta.messages.taken, delta.messages.sent, delta.messages.accepted) = (20, 20, 17);
    let mut totals = Totals::new(2);
    totals.add(0, 1, SECOND, &delta);
    totals.add(1, 1, SECOND, &Delta::new());
    Report::new(&asked, &totals, asked.start + Duration::from_millis(1_900))
}

#[test]
fn the_rate_of_a_job_that_runs_is_over_the_time_that_was_reported() {
    let report = live(None);
    assert_eq!((report.elapsed_s, report.rate_per_s), (1.0, 17.0));
}

#[test]
fn what_is_in_flight_or_to_come_while_a_job_runs_is_neither_cut_nor_missed() {
    for (asked, to_come) in [(Some(100), 80), (None, 0)] {
        let report = live(asked);
        let messages = serde_json::to_value(report.messages).unwrap();
        assert_eq!((&messages["cut"], &messages["missed"]), (&0.into(), &0.into()));
        assert_eq!((&messages["in_flight"], messages["to_come"].as_u64().unwrap_or(0)), (&3.into(), to_come));
        assert_eq!(report.messages.outcomes(), report.messages.asked);
        assert_eq!(Metric::Failures.of(&report), Some(0.0));
    }
}
