//! The text that Prometheus reads, against the deltas and reports that it is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use super::families::{Samples, sides};
use super::*;
use crate::measure::recorder::{Blame, MessageTimes};
use crate::measure::report::{Asked, AskedWarmup, Report};
use crate::measure::totals::Totals as JobTotals;
use crate::phase::Phase;
use crate::probe::table::{Leg, Legs, Outcome};
use crate::time::{Instant, WallTime};

/// Every sample of a text, by its name with labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(found.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} twice");
    }
    found
}

fn rendered(metrics: &Metrics) -> BTreeMap<String, f64> {
    samples(&metrics.render(&Gauges::default()))
}

/// What a shard may measure in second `n`: as different from any other as it can be.
fn delta(n: u64) -> Delta {
    let mut delta = Delta::new();
    let at = Instant::from_ns;
    for i in 0..n {
        let due = at(1_000_000_000 * n);
        let times = MessageTimes {
            due,
            started: Some(at(due.ns_since(at(0)) + i * 1_000)),
            ended: due + Duration::from_micros(i * i * 40),
        };
        delta.message(i % 3 == 0, times);
        delta.reply(Phase::Rcpt, [250, 251, 451, 550][i as usize % 4], Some((2, 1, (i % 7) as u16)), b"evil\"\n text");
        delta.reply(Phase::Data, 354, None, b"go");
        delta.error(Blame::Peer, ["reset", "timeout"][i as usize % 2], Phase::Final, || "evil\"} text".into());
        delta.error(Blame::Generator, "ports", Phase::Connect, || "x".into());
        delta.phase(Phase::Rcpt, i % 2 == 0, i * 77_000);
        delta.effort.turns.record(i * 3_000);
    }
    let messages = &mut delta.messages;
    (messages.taken, messages.sent) = (n + 3, n + 1);
    (messages.accepted, messages.deferred, messages.rejected, messages.failed) =
        (n.div_ceil(3), 1, 0, n - n.div_ceil(3));
    messages.missed = n % 5;
    let warmup = &mut delta.warmup;
    (warmup.taken, warmup.sent, warmup.missed) = (n + 6, n + 1, 2);
    (warmup.accepted, warmup.deferred, warmup.rejected, warmup.failed) = (n, 1, 2, 3);
    (delta.recipients.accepted, delta.recipients.deferred, delta.recipients.rejected) = (2 * n, n, 3);
    delta.bytes_sent = 1_000 * n;
    (delta.connections.opened, delta.connections.reopened) = (n, n / 2);
    let effort = &mut delta.effort;
    (effort.cpu_ns, effort.buffers_exhausted, effort.deltas_held) = (n * 1_000_000, n, 1);
    (effort.short_writes, effort.rearms) = (2 * n, 3 * n);
    delta
}

fn filled() -> (Metrics, Delta) {
    let (mut metrics, mut whole) = (Metrics::new(), Delta::new());
    for n in [1, 40, 7, 300] {
        metrics.add(JobType::Smtp, &delta(n));
        whole.merge(&delta(n));
    }
    (metrics, whole)
}

#[test]
fn counters_are_the_sums_of_all_deltas() {
    let (metrics, whole) = filled();
    let found = rendered(&metrics);
    let sum = |prefix: &str, part: &str| -> f64 {
        found.iter().filter(|(name, _)| name.starts_with(prefix) && name.contains(part)).map(|(_, value)| value).sum()
    };
    let outcome = |outcome: &str| sum("timecop_hammer_messages_total{", &format!(r#"outcome="{outcome}""#));
    // The messages of a warm-up were sent, too.
    let mut messages = whole.messages;
    messages.add(&whole.warmup);
    assert_eq!(outcome("accepted"), messages.accepted as f64);
    assert_eq!(outcome("deferred"), messages.deferred as f64);
    assert_eq!(outcome("rejected"), messages.rejected as f64);
    assert_eq!(outcome("failed"), messages.failed as f64);
    assert_eq!((outcome("missed"), outcome("cut")), (0.0, 0.0), "known when the job ends");
    assert_eq!(found[r#"timecop_hammer_messages_sent_total{type="smtp"}"#], messages.sent as f64);
    assert_eq!(sum("timecop_hammer_recipients_total{", "accepted"), whole.recipients.accepted as f64);
    assert_eq!(sum("timecop_hammer_recipients_total{", "rejected"), whole.recipients.rejected as f64);
    assert_eq!(sum("timecop_hammer_sent_bytes_total{", ""), whole.bytes_sent as f64);
    assert_eq!(sum("timecop_hammer_connections_opened_total{", ""), whole.connections.opened as f64);
    assert_eq!(sum("timecop_hammer_reconnects_total{", ""), whole.connections.reopened as f64);
    for (class, codes) in [("2xx", 200..300), ("3xx", 300..400), ("4xx", 400..500), ("5xx", 500..600)] {
        let replies = whole.replies.iter().flatten().filter(|reply| codes.contains(&reply.code));
        let count: u64 = replies.map(|reply| reply.count).sum();
        assert!(count > 0);
        assert_eq!(sum("timecop_hammer_replies_total{", class), count as f64);
    }
    let errors: u64 = whole.errors.iter().map(|error| error.count).sum();
    assert_eq!(sum("timecop_hammer_errors_total{", ""), errors as f64);
    let reset = r#"timecop_hammer_errors_total{type="smtp",phase="final",kind="reset",blame="peer"}"#;
    assert_eq!(found[reset], whole.errors[0].count as f64);
    assert_eq!(found["timecop_engine_buffers_exhausted_total"], whole.effort.buffers_exhausted as f64);
    assert_eq!(found["timecop_engine_short_writes_total"], whole.effort.short_writes as f64);
    assert_eq!(found["timecop_engine_rearms_total"], whole.effort.rearms as f64);
    assert_eq!(found[r#"timecop_engine_deltas_held_total{type="smtp"}"#], 4.0);
    assert_eq!(found[r#"timecop_engine_cpu_seconds_total{type="smtp"}"#], 0.348);
}

#[test]
fn the_outcomes_of_ended_jobs_are_those_of_their_reports_and_add_up_to_what_was_asked() {
    let mut metrics = Metrics::new();
    let (mut asked_sum, mut by_report) = (0, [0; 6]);
    let mut verdicts = BTreeMap::from(Validity::ALL.map(|validity| (validity.name(), 0.0)));
    // By number, by time, and by number with a shard that broke down and took its messages with it.
    for messages in [Some(500), None, Some(1_000)] {
        let asked = Asked {
            load_model: "closed",
            target: String::new(),
            spec: serde_json::Value::Null,
            seed: 1,
            messages,
            sizes: Vec::new(),
            connections: 1,
            shards: 2,
            dialed: Instant::from_ns(1),
            start: Instant::from_ns(1),
            wall_start: WallTime::default(),
            warmup: Some(AskedWarmup::ByNumber),
            congestion: None,
            end: None,
        };
        let mut totals = JobTotals::new(2);
        for (shard, n) in [(0, 40), (1, 13), (0, 8)] {
            let mut delta = delta(n);
            delta.messages.cut = if messages == Some(1_000) { 0 } else { 2 };
            metrics.add(JobType::Smtp, &delta);
            totals.add(shard, 1, Duration::from_secs(1), &delta);
        }
        (0..2).for_each(|shard| totals.shard_finished(shard));
        let mut whole = Report::new(&asked, &totals, Instant::NEVER);
        whole.judge();
        *verdicts.entry(whole.verdict.as_ref().unwrap().result.name()).or_insert(0.0) += 1.0;
        metrics.job_ended(JobType::Smtp, JobState::Finished, Some(&whole));
        for report in [whole.messages, whole.warmup.unwrap().messages] {
            asked_sum += report.asked;
            let outcomes =
                [report.accepted, report.deferred, report.rejected, report.failed, report.missed, report.cut];
            by_report.iter_mut().zip(outcomes).for_each(|(sum, count)| *sum += count);
        }
    }
    metrics.job_ended(JobType::Smtp, JobState::Failed, None);
    let found = rendered(&metrics);
    let names = ["accepted", "deferred", "rejected", "failed", "missed", "cut"];
    let counted =
        names.map(|name| found[&format!(r#"timecop_hammer_messages_total{{type="smtp",outcome="{name}"}}"#)] as u64);
    assert_eq!(counted, by_report);
    assert_eq!(counted.iter().sum::<u64>(), asked_sum);
    assert_eq!(found[r#"timecop_hammer_jobs_total{type="smtp",state="finished"}"#], 3.0);
    assert_eq!(found[r#"timecop_hammer_jobs_total{type="smtp",state="failed"}"#], 1.0);
    for (verdict, jobs) in verdicts {
        let name = format!(r#"timecop_hammer_verdicts_total{{type="smtp",verdict="{verdict}"}}"#);
        assert_eq!(found[&name], jobs, "{name}");
    }
}

#[test]
fn histograms_agree_with_what_was_recorded() {
    let (metrics, whole) = filled();
    let found = rendered(&metrics);
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (name, &count) in found.iter().filter(|(name, _)| name.contains("_bucket{")) {
        // Audits are of one type of job alone, and have no label.
        let Some((labels, bound)) = name.trim_end_matches("\"}").rsplit_once(",le=\"") else { continue };
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
        series.entry(labels.replace("_bucket{", "_count{") + "}").or_default().push((bound, count));
    }
    let of_a_type = 6 + 1;
    assert_eq!(series.len(), TYPES.len() * of_a_type + 2, "three times of two outcomes, turns; one phase with two");
    for (name, mut buckets) in series {
        buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
        assert!(buckets.is_sorted_by_key(|bucket| bucket.1), "{name}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, found[&name])), "{name}");
    }
    for (outcome, latencies) in sides(&whole) {
        let labels = format!(r#"{{type="smtp",outcome="{outcome}",time="response"}}"#);
        let summary = latencies.response.summary();
        assert_eq!(found[&format!("timecop_hammer_message_seconds_count{labels}")], summary.count as f64);
        let sum = found[&format!("timecop_hammer_message_seconds_sum{labels}")];
        assert!((sum / (summary.mean * summary.count as f64) - 1.0).abs() < 1e-9);
    }
    let bucket = r#"timecop_hammer_message_seconds_bucket{type="smtp",outcome="accepted",time="lateness",le="0.0001"}"#;
    let lateness = [1u64, 40, 7, 300].map(|n| (0..n).filter(|i| i % 3 == 0 && i * 1_000 <= 100_000).count());
    assert_eq!(found[bucket], lateness.iter().sum::<usize>() as f64);
}

#[test]
fn no_counter_ever_goes_down_and_no_series_goes() {
    let mut metrics = Metrics::new();
    let mut before = rendered(&metrics);
    for n in 1..100 {
        metrics.add(JobType::Smtp, &delta(n));
        let now = rendered(&metrics);
        assert!(before.iter().all(|(name, value)| now[name] >= *value));
        before = now;
    }
}

#[test]
fn small_sets_are_there_from_the_start_and_gauges_say_what_is_now() {
    let gauges = Gauges {
        jobs_running: 2,
        store_writable: true,
        descriptors_max: 1_024,
        file_slots: 64,
        file_slots_used: 5,
        ..Gauges::default()
    };
    let found = samples(&Metrics::new().render(&gauges));
    let of = |family: &str| found.keys().filter(|name| name.starts_with(family)).count();
    assert_eq!(of("timecop_hammer_messages_total{"), TYPES.len() * 6);
    assert_eq!(of("timecop_hammer_recipients_total{"), TYPES.len() * 3);
    assert_eq!(of("timecop_hammer_jobs_total{"), TYPES.len() * JobState::FINAL.len());
    assert_eq!(of("timecop_hammer_verdicts_total{"), TYPES.len() * Validity::ALL.len());
    assert_eq!(of("timecop_hammer_searches_total{"), TYPES.len() * SearchResult::ALL.len());
    assert_eq!(of("timecop_hammer_message_seconds_count{"), TYPES.len() * 6);
    assert_eq!(of("timecop_hammer_phase_seconds"), 0);
    assert_eq!((found["timecop_hammer_jobs_running"], found["timecop_store_writable"]), (2.0, 1.0));
    assert_eq!(found["process_max_fds"], 1_024.0);
    assert_eq!((found["timecop_engine_file_slots"], found["timecop_engine_file_slots_used"]), (64.0, 5.0));
    let changed = Gauges { jobs_running: 1, ..gauges };
    assert_eq!(samples(&Metrics::new().render(&changed))["timecop_hammer_jobs_running"], 1.0);
}

#[test]
fn text_from_a_peer_never_gets_into_a_label() {
    let text = filled().0.render(&Gauges::default());
    assert!(!text.contains("evil"), "{text}");
}

#[test]
fn names_follow_the_conventions_and_their_order() {
    assert!([FAMILIES, probe::FAMILIES].iter().all(|table| table.is_sorted_by_key(|family| family.name)));
    for Family { name, samples, .. } in families() {
        assert_eq!(name.ends_with("_total"), matches!(samples, Samples::Counter(_)), "{name}");
        assert!(!matches!(samples, Samples::Histogram(..)) || name.ends_with("_seconds"), "{name}");
    }
}

#[test]
fn descriptors_in_use_are_counted() {
    let (open, max) = descriptors();
    assert!(open > 2 && open < max, "{open} of {max}");
}

#[test]
fn a_prober_has_its_metrics_and_a_service_without_one_has_none_of_them() {
    let metrics = Metrics::new();
    assert!(rendered(&metrics).keys().all(|name| !name.contains("probe") && !name.contains("alert")));
    metrics.probes(|totals| totals.set_routes(["r", "s"].into_iter()));
    let ended = |outcome, was_lost, seconds: Option<u64>| crate::probe::table::Ended {
        id: 1,
        order: 1,
        route: "r".to_owned(),
        outcome,
        was_lost,
        round_trip: seconds.map(Duration::from_secs),
        skewed: seconds.is_none() && outcome == Outcome::Ok,
        was_overdue: was_lost,
        was_excused: false,
        is_excused: false,
    };
    let wall = WallTime::from_unix_ns(1_500_000_000);
    metrics.probes(|totals| {
        totals.ended(&ended(Outcome::Ok, false, Some(3)), wall);
        totals.ended(&ended(Outcome::Ok, false, None), wall);
        totals.ended(&ended(Outcome::Lost, false, None), wall);
        totals.ended(&ended(Outcome::Late, true, Some(7_200)), wall);
        let legs = Legs { connect_s: Some(0.02), transit_s: Some(0.0), ..Legs::default() };
        totals.legs("r", &legs, Leg::ALL.into_iter());
        IGNORED.iter().for_each(|reason| totals.ignore(reason));
    });
    let found = rendered(&metrics);
    let outcome = |route: &str, outcome: &str| {
        // The text has labels in the order of the table.
        found[&format!(r#"timecop_probe_outcomes_total{{route="{route}",outcome="{outcome}"}}"#)]
    };
    assert_eq!(["ok", "late", "lost", "send_failed"].map(|name| outcome("r", name)), [2.0, 1.0, 1.0, 0.0]);
    assert_eq!(outcome("s", "ok"), 0.0, "its series are there from the start");
    for (name, value) in [
        (r#"timecop_probe_found_total{route="r"}"#, 1.0),
        (r#"timecop_probe_not_in_time_total{route="r"}"#, 1.0),
        (r#"timecop_probe_excused_total{route="r"}"#, 0.0),
        (r#"timecop_probe_skewed_total{route="r"}"#, 1.0),
        (r#"timecop_round_trip_seconds_count{route="r"}"#, 2.0),
        (r#"timecop_round_trip_seconds_bucket{route="r",le="2"}"#, 0.0),
        (r#"timecop_round_trip_seconds_bucket{route="r",le="3"}"#, 1.0),
        (r#"timecop_round_trip_seconds_bucket{route="r",le="3600"}"#, 1.0),
        (r#"timecop_round_trip_seconds_bucket{route="r",le="14400"}"#, 2.0),
        (r#"timecop_probe_leg_seconds_count{route="r",leg="connect"}"#, 1.0),
        (r#"timecop_probe_leg_seconds_bucket{route="r",leg="connect",le="0.025"}"#, 1.0),
        (r#"timecop_probe_leg_seconds_count{route="r",leg="tls"}"#, 0.0),
        (r#"timecop_probe_last_success_timestamp_seconds{route="r"}"#, 1.5),
        (r#"timecop_probe_ignored_total{reason="forged"}"#, 1.0),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}: {found:#?}");
    }
    metrics.probes(|totals| totals.set_routes(["s"].into_iter()));
    assert!(rendered(&metrics).keys().all(|name| !name.contains(r#"route="r""#)), "a route that is gone");
}

/// Our own down time is no error of the route.
#[test]
fn what_is_excused_is_counted_apart_unless_it_is_lost_all_the_same() {
    let metrics = Metrics::new();
    metrics.probes(|totals| totals.set_routes(["r"].into_iter()));
    let count = |name: &str| rendered(&metrics)[&format!("timecop_probe_{name}_total{{route=\"r\"}}")];
    let overdue = |is_excused| {
        let overdue = crate::probe::table::Overdue { id: 1, order: 1, route: "r".to_owned(), is_excused };
        metrics.probes(|totals| totals.overdue(&overdue));
    };
    let ended = |outcome, [was_overdue, was_excused, is_excused]: [bool; 3]| {
        let ended = crate::probe::table::Ended {
            id: 1,
            order: 1,
            route: "r".to_owned(),
            outcome,
            was_lost: false,
            round_trip: None,
            skewed: false,
            was_overdue,
            was_excused,
            is_excused,
        };
        metrics.probes(|totals| totals.ended(&ended, WallTime::default()));
        (count("not_in_time"), count("excused"))
    };
    overdue(true);
    assert_eq!(ended(Outcome::Late, [true, true, false]), (0.0, 1.0), "it was excused at its threshold");
    overdue(false);
    assert_eq!(ended(Outcome::Lost, [true, false, true]), (1.0, 1.0), "it was not");
    overdue(true);
    assert_eq!(ended(Outcome::Lost, [true, true, false]), (2.0, 2.0), "its excuse has run out");
    assert_eq!(ended(Outcome::SendFailed, [false, false, true]), (2.0, 3.0));
    assert_eq!(ended(Outcome::SendFailed, [false, false, false]), (3.0, 3.0));
}

/// What the dashboard and the rules ask for.
#[test]
fn dashboard_and_rules_ask_only_for_metrics_that_there_are() {
    for (file, text, least) in [
        ("dashboard", include_str!("../../../tools/deploy/grafana/timecop.json"), 15),
        ("rules", include_str!("../../../tools/deploy/prometheus/timecop.rules.yml"), 15),
    ] {
        let mut asked = 0;
        for (at, _) in text.match_indices("timecop_") {
            let name: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
            assert!(families().any(|known| known.name == family), "{file}: there is no {name}");
            asked += 1;
        }
        assert!(asked >= least, "{file}: {asked} names were found");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../tools/deploy/grafana/timecop.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 8);
}
