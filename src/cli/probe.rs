//! `timecop probe`: one round trip by a route of a service.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::args::ProbeArguments;
use super::client::{ask, escaped, parse};
use super::output::{complain, say};
use super::{NOT_ALL_ACCEPTED, OK, StartError};
use crate::measure::words::time;
use crate::probe::table::{Leg, Outcome};
use crate::probe::view::{ProbeView, RouteFired, RouteView};

/// How often the service is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How much longer than the route's time limit an outcome is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the reply to the submission is waited for when the probe is here already.
const LEGS_WITHIN: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: &ProbeArguments) -> Result<u8, StartError> {
    let service = &arguments.service;
    let name = escaped(&arguments.name);
    let fired: RouteFired = parse(&ask(&service.address, &format!("/v1/probe/route.fire?name={name}"), None)?)?;
    let began = Instant::now();
    let bar = indicatif::ProgressBar::new_spinner();
    bar.enable_steady_tick(ASK_EVERY);
    let mut ended = None;
    let (route, probe) = loop {
        let route: RouteView =
            parse(&ask(&service.address, &format!("/v1/probe/route.get?name={name}&id={}", fired.id), None)?)?;
        let within = arguments.wait.unwrap_or(Duration::from_secs_f64(route.timeout_s) + PATIENCE);
        let probe = route.probes.iter().flatten().find(|probe| probe.id == fired.id).cloned();
        let elapsed = began.elapsed();
        if let Some(probe) = &probe {
            let known = ended.get_or_insert(elapsed);
            let is_whole = probe.legs.submit_s.is_some() || probe.detail.is_some() || elapsed > *known + LEGS_WITHIN;
            if probe.outcome.is_none() {
                ended = None;
            } else if is_whole {
                break (route, probe.clone());
            }
            let sent = if probe.legs.submit_s.is_some() { "is handed over" } else { "is being sent" };
            bar.set_message(format!(
                "{}: {sent}, {:.0} s of {:.0} s",
                route.name,
                elapsed.as_secs_f64(),
                within.as_secs_f64()
            ));
        }
        if elapsed > within {
            match probe {
                Some(probe) => break (route, probe),
                None => return Err(StartError::new(format!("the service no longer knows probe {}", fired.id))),
            }
        }
        std::thread::sleep(ASK_EVERY);
    };
    bar.finish_and_clear();
    match service.json {
        true => say(serde_json::to_string(&probe).map_err(StartError::new)?)?,
        false => say(to_text(&route, &probe).trim_end())?,
    }
    if probe.outcome.is_none() {
        complain(format_args!("it has not arrived yet; the service goes on waiting for it"));
    }
    Ok(if probe.outcome == Some(Outcome::Ok) { OK } else { NOT_ALL_ACCEPTED })
}

/// A probe as people read it.
fn to_text(route: &RouteView, probe: &ProbeView) -> String {
    let outcome = match probe.outcome {
        None => "on its way".to_owned(),
        Some(Outcome::Ok) => "ok".to_owned(),
        Some(Outcome::Late) => format!("late: more than {}", time(route.threshold_s)),
        Some(Outcome::Lost) => format!("lost: not here within {}", time(route.timeout_s)),
        Some(Outcome::SendFailed) => "could not be sent".to_owned(),
    };
    let mut text = format!("{} by {}: {outcome}\n", route.name, route.target);
    if let Some(detail) = &probe.detail {
        text += &format!("  {detail}\n");
    }
    if let Some(round_trip) = probe.round_trip_s {
        text += &format!("\n  round trip  {:>9}\n", time(round_trip));
    }
    for leg in Leg::ALL {
        if let Some(value) = probe.legs.get(leg) {
            text += &format!("    {:<8}  {:>9}\n", leg.name(), time(value));
        }
    }
    if !probe.hops.is_empty() {
        text += "\n  servers on its way, by their own clocks, to the second\n";
    }
    for hop in &probe.hops {
        let at = hop
            .unix_s
            .and_then(|second| Timestamp::from_second(second).ok())
            .map_or_else(|| "no date".to_owned(), |at| at.strftime("%H:%M:%S UTC").to_string());
        let after = hop.after_s.map_or_else(String::new, |after| format!("  {after:+} s"));
        let by = if hop.by.is_empty() { "one without a name" } else { &hop.by };
        text += &format!("    {at:<12}  {by}{after}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::hops::Hop;
    use crate::probe::table::Legs;
    use crate::probe::view::RouteState;

    #[test]
    fn a_probe_is_shown_with_its_legs_and_hops() {
        let route = RouteView {
            name: "mailgun".to_owned(),
            target: "mg".to_owned(),
            interval_s: 60.0,
            threshold_s: 300.0,
            timeout_s: 3_600.0,
            state: RouteState::Ok,
            alerts: Vec::new(),
            outstanding: 0,
            last_ok_unix_s: None,
            certificate_expiry_unix_s: None,
            probes: None,
        };
        let hop = |by: &str, unix_s, after_s| Hop { by: by.to_owned(), unix_s: Some(unix_s), after_s };
        let probe = ProbeView {
            id: "00000000000000ab".to_owned(),
            sent_unix_ns: 0,
            outcome: Some(Outcome::Ok),
            overdue: false,
            round_trip_s: Some(3.2),
            legs: Legs {
                connect_s: Some(0.02),
                tls_s: Some(0.05),
                auth_s: Some(0.03),
                submit_s: Some(0.4),
                transit_s: Some(2.5),
            },
            detail: None,
            hops: vec![hop("a.example", 1_795_521_602, None), hop("b.example", 1_795_521_605, Some(3))],
            down_s: 0.0,
            skewed: false,
        };
        assert_eq!(
            to_text(&route, &probe),
            "\
mailgun by mg: ok

  round trip     3.20 s
    connect     20.0 ms
    tls         50.0 ms
    auth        30.0 ms
    submit     400.0 ms
    transit      2.50 s

  servers on its way, by their own clocks, to the second
    12:00:02 UTC  a.example
    12:00:05 UTC  b.example  +3 s
"
        );
        let failed = ProbeView {
            outcome: Some(Outcome::SendFailed),
            round_trip_s: None,
            legs: Legs::default(),
            detail: Some("auth: 535 5.7.8 no".to_owned()),
            hops: Vec::new(),
            ..probe
        };
        assert_eq!(to_text(&route, &failed), "mailgun by mg: could not be sent\n  auth: 535 5.7.8 no\n");
    }
}
