//! The report that a person reads.

use std::fmt::Write as _;

use indicatif::HumanCount;

use super::{audit, output};
use crate::measure::confidence::Intervals;
use crate::measure::histogram::Summary;
use crate::measure::report::{Generator, Latency, Report, RetryAfter, SizeCount, Times, WarmupReport};
use crate::measure::stamps::TimedBy;
use crate::measure::threshold::{Threshold, ThresholdResult};
use crate::measure::verdict::{Rule, Verdict};
use crate::measure::words::{rate, time};
use crate::phase::Phase;

/// Octets of a line of a reason, beside its indent.
const REASON_WIDTH: usize = 90;

/// Prints a run's report to standard output.
pub(super) fn print(report: &Report) -> std::io::Result<()> {
    output::print(&render(report))
}

fn render(report: &Report) -> String {
    let mut text = String::new();
    head(report, &mut text).expect("writing to a string does not fail");
    latencies(report, &mut text).expect("writing to a string does not fail");
    tail(report, &mut text).expect("writing to a string does not fail");
    text
}

fn head(report: &Report, out: &mut String) -> std::fmt::Result {
    let messages = &report.messages;
    let count = |n: u64| HumanCount(n).to_string();
    let connections = report.connections.asked;
    let rate_asked = match report.spec["rate"].as_f64() {
        Some(_) if report.spec["stages"].is_array() => " in stages".to_owned(),
        Some(asked) => format!(" at {} a second", rate(asked)),
        None if report.spec["stages"].is_array() => " in stages".to_owned(),
        None => String::new(),
    };
    let address = report.spec["address"].as_str().filter(|address| !report.target.contains(address));
    let address = address.map_or(String::new(), |address| format!(" ({address})"));
    writeln!(out, "\n{}{address}", report.target)?;
    writeln!(
        out,
        "{} loop{rate_asked}, {} connection{}, seed {}\n{}",
        report.load_model,
        count(connections),
        if connections == 1 { "" } else { "s" },
        report.seed,
        calendar(report)
    )?;
    write!(
        out,
        "{}  rate         {} messages a second accepted, for {}",
        warmup(report),
        rate(report.rate_per_s),
        time(report.elapsed_s)
    )?;
    if report.drain_s >= 0.001 {
        write!(out, ", then {} for what was in flight", time(report.drain_s))?;
    }
    writeln!(out)?;
    write!(out, "  messages     {} asked: {} accepted", count(messages.asked), count(messages.accepted))?;
    for (number, outcome) in [
        (messages.deferred, "deferred"),
        (messages.rejected, "rejected"),
        (messages.failed, "failed"),
        (messages.missed, "missed"),
        (messages.cut, "cut"),
    ] {
        write!(out, ", {} {outcome}", count(number))?;
    }
    for (number, state) in [(messages.in_flight, "in flight"), (messages.to_come, "to come")] {
        if number > 0 {
            write!(out, ", {} {state}", count(number))?;
        }
    }
    write!(out, "\n               (none is sent twice, whatever became of it)")?;
    let recipients = &report.recipients;
    writeln!(
        out,
        "\n  recipients   {} accepted, {} deferred, {} rejected",
        count(recipients.accepted),
        count(recipients.deferred),
        count(recipients.rejected)
    )?;
    let held = &report.connections;
    write!(out, "  connections  {} held at once, {} opened", count(held.held_max), count(held.opened))?;
    if held.waiting_max > 0 {
        write!(out, ", up to {} waiting to reconnect", count(held.waiting_max))?;
    }
    if let Some(tls) = &report.tls {
        write!(out, "\n  tls          {} full, {} resumed", count(tls.full), count(tls.resumed))?;
        let kinds: Vec<String> = tls.kinds.iter().map(|kind| format!("{} {}", kind.version, kind.cipher)).collect();
        write!(out, " ({})", kinds.join(", "))?;
    }
    for kind in &report.auth {
        let (granted, tried) = (count(kind.granted), count(kind.tried));
        write!(out, "\n  auth         {granted} of {tried} logins granted ({})", kind.mechanism)?;
    }
    if let Some(RetryAfter { waits, waited_s }) = &report.retry_after {
        write!(out, "\n  retry-after  {} waits that the server asked for, {} in all", count(*waits), time(*waited_s))?;
    }
    if let Some(congestion) = &report.congestion {
        write!(out, "\n  congestion   {congestion}")?;
    }
    if let Some(sizes) = &report.sizes {
        let size = |size: &SizeCount| format!("{} of {}", count(size.messages), bytes(size.bytes as f64));
        let sizes_of: Vec<String> = sizes.counts.iter().map(size).collect();
        write!(out, "\n  sizes        {} on average: {}", bytes(sizes.mean), sizes_of.join(", "))?;
    }
    writeln!(out, "\n  sent         {} ({}/s)", bytes(report.bytes_sent as f64), bytes(per_second(report)))
}

/// A line on when it was, where the report says so, and of how many runs.
fn calendar(report: &Report) -> String {
    let Some(started_at) = &report.started_at else { return String::new() };
    // Seconds are enough for a person.
    let seconds = |text: &str| text.get(.."2021-04-29T01:50:39".len()).unwrap_or(text).replace('T', " ");
    let until = report.ended_at.as_ref().map_or(String::new(), |ended_at| format!(" to {}", seconds(ended_at)));
    let of = match report.parts.len() {
        0 => String::new(),
        1 => ", 1 run merged".to_owned(),
        parts => format!(", {} runs merged", HumanCount(parts as u64)),
    };
    format!("{}{until} UTC{of}\n", seconds(started_at))
}

/// A line on what was left out, where there is any.
fn warmup(report: &Report) -> String {
    let Some(WarmupReport { elapsed_s, messages }) = &report.warmup else { return String::new() };
    let count = |n: u64| HumanCount(n).to_string();
    let (asked, accepted) = (count(messages.asked), count(messages.accepted));
    format!("  warm-up      {asked} messages in {}, {accepted} accepted, in no other figure\n", time(*elapsed_s))
}

fn per_second(report: &Report) -> f64 {
    if report.elapsed_s > 0.0 { report.bytes_sent as f64 / report.elapsed_s } else { 0.0 }
}

fn latencies(report: &Report, out: &mut String) -> std::fmt::Result {
    let Latency { accepted, other, phases_from_group, response_95, service_95, late: _ } = &report.latency_s;
    for (side, times) in [("accepted", accepted), ("not accepted", other)] {
        let rows: Vec<(String, &Summary)> = rows(times).collect();
        if !rows.is_empty() {
            table_head(side, out)?;
        }
        for (name, s) in rows {
            table_row(&name, s, out)?;
            match (side, &*name) {
                ("accepted", "response") => interval(response_95, out)?,
                ("accepted", "service") => interval(service_95, out)?,
                _ => {}
            }
        }
    }
    if *phases_from_group {
        writeln!(out, "  (pipelined: mail, rcpt and data count from the write of their group)")?;
    }
    Ok(())
}

/// The head of a table of times.
pub(super) fn table_head(name: &str, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n  {name:<12} {:>11} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "count", "mean", "p50", "p90", "p99", "p99.9", "max"
    )
}

/// A row of such a table.
pub(super) fn table_row(name: &str, s: &Summary, out: &mut String) -> std::fmt::Result {
    write!(out, "  {name:<12} {:>11}", HumanCount(s.count).to_string())?;
    for value in [s.mean, s.p50, s.p90, s.p99, s.p99_9, s.max] {
        write!(out, " {:>8}", time(value))?;
    }
    writeln!(out)
}

/// Two rows: within what the percentiles above them lie with a probability of 95 %.
fn interval(intervals: &Intervals, out: &mut String) -> std::fmt::Result {
    let Intervals { p50, p90, p95: _, p99, p99_9 } = intervals;
    if p50.is_none() {
        return Ok(());
    }
    for (name, end) in [("  95 % from", 0), ("       to", 1)] {
        write!(out, "  {name:<12} {:>11} {:>8}", "", "")?;
        for percentile in [p50, p90, p99, p99_9] {
            write!(out, " {:>8}", percentile.map_or("?".to_owned(), |bounds| time(bounds[end])))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Everything of which there is at least one value.
fn rows(times: &Times) -> impl Iterator<Item = (String, &Summary)> {
    let whole = [("response", &times.response), ("service", &times.service), ("lateness", &times.lateness)];
    let phases = Phase::MEASURED.into_iter().filter_map(|phase| Some((phase, times.phases.get(&phase)?)));
    let whole = whole.into_iter().map(|(name, summary)| (name.to_owned(), summary));
    whole.chain(phases.map(|(phase, summary)| (format!("  {phase}"), summary))).filter(|(_, s)| s.count > 0)
}

fn tail(report: &Report, out: &mut String) -> std::fmt::Result {
    let mut failures = report.replies.iter().filter(|reply| reply.code >= 400).peekable();
    if failures.peek().is_some() {
        writeln!(out, "\n  replies")?;
    }
    for reply in failures {
        let enhanced = reply.enhanced.as_deref().unwrap_or("-");
        let count = HumanCount(reply.count).to_string();
        writeln!(out, "  {count:>10} x {:<9} {} {enhanced:<7} {}", reply.phase.name(), reply.code, reply.example)?;
    }
    if !report.errors.is_empty() {
        writeln!(out, "\n  errors")?;
    }
    for error in &report.errors {
        let count = HumanCount(error.count).to_string();
        writeln!(out, "  {count:>10} x {:<9} {:<11} {}", error.phase.name(), error.kind, error.example)?;
    }
    if let Some(audit) = &report.audit {
        audit::of_report(audit, out)?;
    }
    let generator = &report.generator;
    writeln!(
        out,
        "\n  generator    {} shard{}, {:.0} % busy{}, {} us of CPU a message; {}\n\
         \x20              p50 {}, p99 {}, max {}",
        generator.shards,
        if generator.shards == 1 { "" } else { "s" },
        generator.busy * 100.0,
        busiest(generator),
        if report.messages.sent > 0 { format!("{:.1}", generator.cpu_us_per_message) } else { "-".to_owned() },
        match (generator.is_exact(), generator.stamps) {
            (true, _) =>
                "arrivals are stamped by the\n               kernel and writes one by one: connects alone err by a turn of its loop, which took",
            (false, TimedBy::Kernel) =>
                "arrivals are stamped by the\n               kernel; what leaves does so up to one turn of its loop behind its stamp:",
            (false, TimedBy::Turn) =>
                "a time errs by up to one\n               turn of its loop at either end, and by standstills:",
        },
        time(generator.turn_us.p50 / 1e6),
        time(generator.turn_us.p99 / 1e6),
        time(generator.turn_us.max / 1e6)
    )?;
    let standstill = generator.standstill;
    if standstill.count > 0 {
        let (times, all, longest) = (HumanCount(standstill.count), time(standstill.sum_s), time(standstill.longest_s));
        let plural = if standstill.count == 1 { "" } else { "s" };
        writeln!(out, "               it stood still {times} time{plural}, {all} in all, the longest {longest}")?;
    }
    for note in &report.notes {
        writeln!(out, "  note         {note}")?;
    }
    if let Some(reason) = &report.aborted {
        writeln!(out, "  given up     {reason}")?;
    }
    for threshold in &report.thresholds {
        let met = if threshold.met { "passed" } else { "FAILED" };
        writeln!(out, "  fail if      {}: {}, {met}", threshold.asked, actual(threshold))?;
    }
    if let Some(verdict) = &report.verdict {
        self::verdict(verdict, out)?;
    }
    Ok(())
}

/// The busiest of several shards.
fn busiest(generator: &Generator) -> String {
    if generator.shards == 1 { String::new() } else { format!(" (the busiest {:.0} %)", generator.busiest() * 100.0) }
}

/// The figure that a condition was held against, in words.
pub(super) fn actual(ThresholdResult { asked, actual, .. }: &ThresholdResult) -> String {
    match (actual, Threshold::parse(asked)) {
        (Some(actual), Ok(threshold)) => threshold.metric.words(*actual),
        _ => "no figure".to_owned(),
    }
}

/// The verdict with its reasons; that the certificate was not checked stands among the notes already.
pub(super) fn verdict(verdict: &Verdict, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n  verdict      {}", verdict.result.name())?;
    for reason in verdict.reasons.iter().filter(|reason| reason.rule != Rule::SkipVerify) {
        let mut indent = format!("  {:<12}", format!("  {}", reason.severity.name()));
        let mut line = String::new();
        for word in reason.text.split(' ') {
            if line.len() + word.len() > REASON_WIDTH {
                writeln!(out, "{indent}{line}")?;
                line.clear();
                indent = " ".repeat(indent.len());
            }
            line.push(' ');
            line.push_str(word);
        }
        writeln!(out, "{indent}{line}")?;
    }
    Ok(())
}

/// Octets in words.
pub(super) fn bytes(octets: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut value = octets;
    while value >= 1_000.0 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
